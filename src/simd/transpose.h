/* transpose.h - a square of vectors, transposed in registers: log2(n) rounds, each of which riffles
 * the upper half of the rows into the lower one like two halves of a pack of cards. */
#ifndef QKV_SIMD_TRANSPOSE_H
#define QKV_SIMD_TRANSPOSE_H

#include "vector.h"

/* a0 b0 a1 b1 ..: the lower and the upper half of a and b, interleaved. */
INLINE void riffle(vec a, vec b, vec *lower, vec *upper)
{
#define SHUFFLE(...) __builtin_shufflevector(a, b, __VA_ARGS__)
#if QKV_VECTOR_BYTES * 8 / QKV_REAL == 16
    *lower = SHUFFLE(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    *upper = SHUFFLE(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
#elif QKV_VECTOR_BYTES * 8 / QKV_REAL == 8
    *lower = SHUFFLE(0, 8, 1, 9, 2, 10, 3, 11);
    *upper = SHUFFLE(4, 12, 5, 13, 6, 14, 7, 15);
#elif QKV_VECTOR_BYTES * 8 / QKV_REAL == 4
    *lower = SHUFFLE(0, 4, 1, 5);
    *upper = SHUFFLE(2, 6, 3, 7);
#else
    *lower = SHUFFLE(0, 2);
    *upper = SHUFFLE(1, 3);
#endif
#undef SHUFFLE
}

INLINE void transpose(vec r[QKV_VEC])
{
    UNROLL
    for (int round = 1; round < QKV_VEC; round *= 2) {
        vec s[QKV_VEC];
        UNROLL
        for (int i = 0; i < QKV_VEC / 2; i++)
            riffle(r[i], r[i + QKV_VEC / 2], &s[2 * i], &s[2 * i + 1]);
        UNROLL
        for (int i = 0; i < QKV_VEC; i++) r[i] = s[i];
    }
}

/* The same of 16 rows of 16 bytes. */
typedef uint8_t bytes16 __attribute__((vector_size(16)));

INLINE void transpose_bytes(bytes16 r[16])
{
    UNROLL
    for (int round = 1; round < 16; round *= 2) {
        bytes16 s[16];
        UNROLL
        for (int i = 0; i < 8; i++) {
            s[2 * i] = __builtin_shufflevector(r[i], r[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5,
                                               21, 6, 22, 7, 23);
            s[2 * i + 1] = __builtin_shufflevector(r[i], r[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12,
                                                   28, 13, 29, 14, 30, 15, 31);
        }
        UNROLL
        for (int i = 0; i < 16; i++) r[i] = s[i];
    }
}

#endif
