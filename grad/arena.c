#include "grad/arena.h"

#include <stdint.h>
#include <stdlib.h>

enum {
    LINE = 64,             /* bytes: a cache line, and the widest vector */
    FIRST_CHUNK = 1 << 14, /* bytes; later chunks double what is held .. */
    LARGEST_STEP = 1 << 26 /* .. up to this, so that a large tape is not held twice over */
};

struct qkv_chunk {
    _Alignas(LINE) qkv_chunk *older;
    size_t size, used; /* of data; size is a multiple of LINE */
    _Alignas(LINE) char data[];
};

static qkv_chunk *add_chunk(qkv_arena *arena, size_t size)
{
    qkv_chunk *c = aligned_alloc(LINE, sizeof *c + size);
    if (!c) return NULL;
    *c = (qkv_chunk){.older = arena->newest, .size = size};
    arena->newest = c;
    arena->bytes += size;
    return c;
}

static size_t size_of_next(const qkv_arena *arena, size_t bytes)
{
    size_t size = arena->bytes < FIRST_CHUNK ? FIRST_CHUNK : arena->bytes;
    if (size > LARGEST_STEP) size = LARGEST_STEP;
    if (size < bytes) size = bytes;
    return (size + LINE - 1) / LINE * LINE;
}

void *qkv_arena_take(qkv_arena *arena, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > PTRDIFF_MAX / 2) return NULL;
    size_t align = bytes >= LINE ? LINE : bytes > 8 ? 16 : 8;
    qkv_chunk *c = arena->newest;
    size_t start = c ? (c->used + align - 1) & -align : 0; /* a division would be half the time */
    if (!c || start > c->size || bytes > c->size - start) {
        c = add_chunk(arena, size_of_next(arena, bytes));
        start = 0;
    }
    if (!c) return NULL;
    c->used = start + bytes;
    return c->data + start;
}

void qkv_arena_reset(qkv_arena *arena)
{
    size_t bytes = arena->bytes;
    if (arena->newest && arena->newest->older) {
        qkv_arena_free(arena);
        add_chunk(arena, bytes); /* if this fails the arena starts again from nothing */
    }
    if (arena->newest) arena->newest->used = 0;
}

void qkv_arena_free(qkv_arena *arena)
{
    while (arena->newest) {
        qkv_chunk *older = arena->newest->older;
        free(arena->newest);
        arena->newest = older;
    }
    arena->bytes = 0;
}
