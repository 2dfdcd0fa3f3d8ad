/* random.h - random numbers as a pure function of (seed, stream, index): Random123's Philox 4x32-10
 * (Salmon et al. 2011). No state, so what is drawn is the same under any threads and order. */
#ifndef QKV_SRC_RANDOM_H
#define QKV_SRC_RANDOM_H

#include <math.h>
#include <stdint.h>

#include <Random123/philox.h>

static inline uint64_t qkv_random_bits(uint64_t seed, uint64_t stream, uint64_t index)
{
    philox4x32_ctr_t counter = {
        {(uint32_t)index, (uint32_t)(index >> 32), (uint32_t)stream, (uint32_t)(stream >> 32)}};
    philox4x32_key_t key = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    philox4x32_ctr_t r = philox4x32(counter, key);
    return (uint64_t)r.v[1] << 32 | r.v[0];
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
