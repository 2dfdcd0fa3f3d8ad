/* vector.h - vectors of QKV_VECTOR_BYTES in the notation that gcc and clang share, and the few
 * operations that C's operators lack.
 *
 * A file that includes this is compiled once for every instruction set and dtype (isa.cmake):
 * IN(name) is name_avx2_f32 and so on. */
#ifndef QKV_SIMD_VECTOR_H
#define QKV_SIMD_VECTOR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "src/real.h"

#define IN(name) FN(QKV_JOIN(name, QKV_ISA)) /* QKV_ISA is _avx2 and so on */

/* Loops over the registers of a tile must be unrolled wholly, or the tile does not live in
 * registers. gcc asks for a number, clang for the word. */
#define QKV_PRAGMA(text) _Pragma(#text)
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#define UNROLL_BY(n) QKV_PRAGMA(clang loop unroll_count(n))
#else
#define UNROLL _Pragma("GCC unroll 16")
#define UNROLL_BY(n) QKV_PRAGMA(GCC unroll n)
#endif

/* The register kernels are specialised by constant arguments: they must be inlined. */
#define INLINE static inline __attribute__((always_inline))

#if QKV_REAL == 32
typedef int32_t FN(integer);
typedef uint32_t FN(natural);
enum { MANTISSA_BITS = 23 };
#else
typedef int64_t FN(integer);
typedef uint64_t FN(natural);
enum { MANTISSA_BITS = 52 };
#endif
typedef real vec __attribute__((vector_size(QKV_VECTOR_BYTES)));
typedef FN(integer) ivec __attribute__((vector_size(QKV_VECTOR_BYTES)));
typedef FN(natural) uvec __attribute__((vector_size(QKV_VECTOR_BYTES))); /* may wrap around */
typedef real any_vec __attribute__((vector_size(QKV_VECTOR_BYTES), aligned(sizeof(real))));

enum {
    QKV_VEC = QKV_VECTOR_BYTES / (int)sizeof(real), /* elements of a vector */
    QKV_VECTORS = 3,                                /* vectors in a row of a tile */
    QKV_LANES = QKV_VECTORS * QKV_VEC               /* queries of a block */
};

INLINE vec splat(real x)
{
    return x - (vec){0};
}

INLINE vec load(const real *x) /* aligned to a vector */
{
    return *(const vec *)x;
}

INLINE vec load_any(const real *x)
{
    return *(const any_vec *)x;
}

INLINE void store(real *x, vec v)
{
    *(vec *)x = v;
}

INLINE void store_any(real *x, vec v)
{
    *(any_vec *)x = v;
}

/* Where the comparison gave all ones: a, elsewhere b. */
INLINE vec choose(ivec where, vec a, vec b)
{
    return (vec)(((ivec)a & where) | ((ivec)b & ~where));
}

INLINE vec magnitude(vec x)
{
    return (vec)((ivec)x & ~(ivec)splat((real)-0.0));
}

/* Bit i: is lane i of the comparison all ones? */
INLINE unsigned which(ivec mask)
{
#if defined(__AVX512F__) && QKV_REAL == 32
    return (unsigned)_mm512_movepi32_mask((__m512i)mask);
#elif defined(__AVX512F__)
    return (unsigned)_mm512_movepi64_mask((__m512i)mask);
#elif defined(__AVX2__) && QKV_REAL == 32
    return (unsigned)_mm256_movemask_ps((__m256)mask);
#elif defined(__AVX2__)
    return (unsigned)_mm256_movemask_pd((__m256d)mask);
#elif defined(__SSE2__) && QKV_REAL == 32
    return (unsigned)_mm_movemask_ps((__m128)mask);
#elif defined(__SSE2__)
    return (unsigned)_mm_movemask_pd((__m128d)mask);
#else
    unsigned bits = 0;
    for (int i = 0; i < QKV_VEC; i++) bits |= (unsigned)(mask[i] & 1) << i;
    return bits;
#endif
}

/* All ones where the byte is 1, 0 where it is 0: gcc 12 takes the bytes of the portable conversion
 * one by one. */
INLINE ivec from_bytes(const uint8_t *x)
{
#if defined(__AVX512F__) && QKV_REAL == 32
    __m128i y = _mm_loadu_si128((const __m128i *)x);
    return (ivec)_mm512_movm_epi32(_mm_test_epi8_mask(y, y));
#elif defined(__AVX512F__)
    __m128i y = _mm_loadl_epi64((const __m128i *)x);
    return (ivec)_mm512_movm_epi64((__mmask8)_mm_test_epi8_mask(y, y));
#elif defined(__AVX2__) && QKV_REAL == 32
    return -(ivec)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)x));
#elif defined(__AVX2__)
    int y;
    memcpy(&y, x, sizeof y);
    return -(ivec)_mm256_cvtepu8_epi64(_mm_cvtsi32_si128(y));
#else
    ivec y;
    for (int i = 0; i < QKV_VEC; i++) y[i] = -(FN(integer))x[i];
    return y;
#endif
}

/* The other way. */
INLINE void to_bytes(ivec mask, uint8_t *x)
{
#if defined(__AVX512F__) && QKV_REAL == 32
    _mm_storeu_si128((__m128i *)x, _mm512_cvtepi32_epi8((__m512i)(mask & 1)));
#elif defined(__AVX512F__)
    _mm_storel_epi64((__m128i *)x, _mm512_cvtepi64_epi8((__m512i)(mask & 1)));
#else
    for (int i = 0; i < QKV_VEC; i++) x[i] = (uint8_t)(mask[i] & 1);
#endif
}

INLINE real sum_of_lanes(vec x)
{
    real sum = 0;
    for (int i = 0; i < QKV_VEC; i++) sum += x[i];
    return sum;
}

INLINE real sum_of(const real *x, ptrdiff_t n)
{
    vec lanes = splat(0);
    ptrdiff_t i = 0;
    for (; i + QKV_VEC <= n; i += QKV_VEC) lanes += load_any(x + i);
    real sum = sum_of_lanes(lanes);
    for (; i < n; i++) sum += x[i];
    return sum;
}

/* The larger of each pair; b where either is NaN. */
INLINE vec larger(vec a, vec b)
{
#if defined(__AVX512F__) && QKV_REAL == 32
    return (vec)_mm512_max_ps((__m512)a, (__m512)b); /* gcc 12 makes two of the portable form: */
#elif defined(__AVX512F__)
    return (vec)_mm512_max_pd((__m512d)a, (__m512d)b); /* 2 % of the whole forward pass */
#else
    return choose(a > b, a, b);
#endif
}

/* Lanes 1 and up of a, then lane 0 of b. */
INLINE vec one_lane_on(vec a, vec b)
{
#if QKV_VECTOR_BYTES * 8 / QKV_REAL == 16
    return __builtin_shufflevector(a, b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16);
#elif QKV_VECTOR_BYTES * 8 / QKV_REAL == 8
    return __builtin_shufflevector(a, b, 1, 2, 3, 4, 5, 6, 7, 8);
#elif QKV_VECTOR_BYTES * 8 / QKV_REAL == 4
    return __builtin_shufflevector(a, b, 1, 2, 3, 4);
#else
    return __builtin_shufflevector(a, b, 1, 2);
#endif
}

#endif
