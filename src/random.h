/* random.h - random numbers as a pure function of (seed, stream, index): Random123's Philox 4x32-10
 * (Salmon et al. 2011). No state, so what is drawn is the same under any threads and order. */
#ifndef QKV_SRC_RANDOM_H
#define QKV_SRC_RANDOM_H

#include <math.h>
#include <stdint.h>

#include <Random123/philox.h>

enum { QKV_RANDOM_WORDS = 4 };

/* The words of the counter {index, stream}, low half first, under the key seed. */
static inline void qkv_random_words(uint64_t seed, uint64_t stream, uint64_t index,
                                    uint32_t word[QKV_RANDOM_WORDS])
{
    philox4x32_ctr_t counter = {
        {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)}};
    philox4x32_key_t key = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    philox4x32_ctr_t r = philox4x32(counter, key);
    for (int i = 0; i < QKV_RANDOM_WORDS; i++) word[i] = r.v[i];
}

static inline uint64_t qkv_random_bits(uint64_t seed, uint64_t stream, uint64_t index)
{
    uint32_t word[QKV_RANDOM_WORDS];
    qkv_random_words(seed, stream, index, word);
    return (uint64_t)word[1] << 32 | word[0];
}

/* Uniform on the open interval (0, 1), a multiple of 2^-53 plus a half one. */
static inline double qkv_random_uniform(uint64_t seed, uint64_t stream, uint64_t index)
{
    return ((double)(qkv_random_bits(seed, stream, index) >> 11) + 0.5) * 0x1p-53;
}

/* Standard normal, by Box and Muller (1958), from the uniforms 2 index and 2 index + 1. */
static inline double qkv_random_normal(uint64_t seed, uint64_t stream, uint64_t index)
{
    double radius = sqrt(-2 * log(qkv_random_uniform(seed, stream, 2 * index)));
    return radius * cos(6.283185307179586 * qkv_random_uniform(seed, stream, 2 * index + 1));
}

#endif
