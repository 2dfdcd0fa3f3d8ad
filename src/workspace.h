/* workspace.h - cuts the caller's memory into aligned pieces; run on NULL first, the same code says
 * how much is needed. */
#ifndef QKV_SRC_WORKSPACE_H
#define QKV_SRC_WORKSPACE_H

#include <stdint.h>

#include "size.h"

enum { QKV_ALIGN = 64 }; /* a cache line, and the widest vector */

typedef struct qkv_cursor {
    char *base; /* aligned, or NULL to count only */
    size_t used;
    bool overflow;
} qkv_cursor;

static inline void *qkv_take(qkv_cursor *c, size_t element, ptrdiff_t a, ptrdiff_t b)
{
    size_t bytes = element;
    bool fits =
        qkv_size_mul(&bytes, a) && qkv_size_mul(&bytes, b) && qkv_size_add(&bytes, QKV_ALIGN - 1);
    bytes -= bytes % QKV_ALIGN;
    size_t start = c->used;
    if (!fits || !qkv_size_add(&c->used, bytes)) c->overflow = true;
    return c->base && !c->overflow ? c->base + start : NULL;
}

static inline char *qkv_align(void *memory)
{
    return (char *)(((uintptr_t)memory + QKV_ALIGN - 1) / QKV_ALIGN * QKV_ALIGN);
}

#endif
