#include "grad/arena.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

enum { ALIGN = 64, SMALL_ALIGN = 16, FIRST_CHUNK = 1 << 14 };

struct qkv_chunk {
    qkv_chunk *next;
    size_t size, used; /* of the bytes at data */
    char *data;
};

static qkv_chunk *new_chunk(qkv_arena *arena, size_t bytes)
{
    /* Each chunk is as large as all before it: their number stays logarithmic. */
    size_t size = arena->bytes > FIRST_CHUNK ? arena->bytes : FIRST_CHUNK;
    if (size < bytes) size = bytes;
    size = (size + ALIGN - 1) / ALIGN * ALIGN;
    if (size > PTRDIFF_MAX - 2 * ALIGN) return NULL;
    char *memory = malloc(size + sizeof(qkv_chunk) + ALIGN - 1);
    if (!memory) return NULL;
    qkv_chunk *c = (qkv_chunk *)(void *)memory;
    uintptr_t data = ((uintptr_t)(memory + sizeof *c) + ALIGN - 1) / ALIGN * ALIGN;
    *c = (qkv_chunk){.size = size, .data = memory + (data - (uintptr_t)memory)};
    arena->bytes += size;
    return c;
}

/* Where a piece would start in a chunk. */
static size_t start_in(const qkv_chunk *c, size_t align)
{
    return (c->used + align - 1) / align * align;
}

static bool fits(const qkv_chunk *c, size_t align, size_t bytes)
{
    size_t start = start_in(c, align);
    return start <= c->size && c->size - start >= bytes;
}

void *qkv_arena_take(qkv_arena *arena, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > PTRDIFF_MAX - ALIGN) return NULL;
    size_t align = bytes < ALIGN ? SMALL_ALIGN : ALIGN;
    qkv_chunk *c = arena->current;
    while (c && !fits(c, align, bytes) && c->next) c = c->next;
    if (!c || !fits(c, align, bytes)) {
        qkv_chunk *fresh = new_chunk(arena, bytes);
        if (!fresh) return NULL;
        *(c ? &c->next : &arena->first) = fresh;
        c = fresh;
    }
    arena->current = c;
    size_t start = start_in(c, align);
    c->used = start + bytes;
    return c->data + start;
}

void qkv_arena_reset(qkv_arena *arena)
{
    for (qkv_chunk *c = arena->first; c; c = c->next) c->used = 0;
    arena->current = arena->first;
}

void qkv_arena_free(qkv_arena *arena)
{
    for (qkv_chunk *c = arena->first, *next; c; c = next) {
        next = c->next;
        free(c);
    }
    *arena = (qkv_arena){0};
}
