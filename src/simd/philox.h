/* philox.h - random numbers for many queries at once: the words of Philox 4x32-10 (Salmon et al.
 * 2011), a function of a counter and a key alone; Random123's, to the bit (tests/test_dropout.c).
 *
 * A word stands in the lower half of a 64-bit lane, whatever is in the upper half: that is what the
 * widening multiplication of every instruction set reads. */
#ifndef QKV_SIMD_PHILOX_H
#define QKV_SIMD_PHILOX_H

#include "vector.h"

#ifdef __SSE2__
#include <immintrin.h>
#endif

typedef uint64_t wide __attribute__((vector_size(QKV_VECTOR_BYTES)));

enum { QKV_WORDS = QKV_VECTOR_BYTES / 8 }; /* of a wide */

INLINE wide multiply_words(wide a, wide b)
{
#if defined(__AVX512F__)
    return (wide)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (wide)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return (wide)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xFFFFFFFF) * (b & 0xFFFFFFFF);
#endif
}

/* c becomes the four words of its counter. */
INLINE void philox(wide c[4], uint32_t key0, uint32_t key1)
{
    UNROLL
    for (int round = 0; round < 10; round++) {
        wide a = multiply_words(c[0], (wide){0} + 0xD2511F53);
        wide b = multiply_words(c[2], (wide){0} + 0xCD9E8D57);
        c[0] = (b >> 32) ^ c[1] ^ ((wide){0} + key0);
        c[1] = b;
        c[2] = (a >> 32) ^ c[3] ^ ((wide){0} + key1);
        c[3] = a;
        key0 += 0x9E3779B9;
        key1 += 0xBB67AE85;
    }
}

#endif
