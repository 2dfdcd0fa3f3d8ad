/* size.h - products of sizes that notice when they overflow. */
#ifndef QKV_SRC_SIZE_H
#define QKV_SRC_SIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* *total *= n; false (and *total unspecified) if n is negative or the product exceeds SIZE_MAX. */
static inline bool qkv_size_mul(size_t *total, ptrdiff_t n)
{
    return n >= 0 && !__builtin_mul_overflow(*total, (size_t)n, total);
}

static inline bool qkv_size_add(size_t *total, size_t n)
{
    return !__builtin_add_overflow(*total, n, total);
}

#endif
