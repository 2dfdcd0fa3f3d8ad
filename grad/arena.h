/* arena.h - memory that is given out piece by piece and taken back all at once. Pieces never move.
 */
#ifndef QKV_GRAD_ARENA_H
#define QKV_GRAD_ARENA_H

#include <stddef.h>

typedef struct qkv_chunk qkv_chunk;

typedef struct qkv_arena {
    qkv_chunk *newest;
    size_t bytes; /* of all chunks */
} qkv_arena;

/* n elements of size bytes, aligned to 64 bytes (pieces below that size to 16, up to 8 bytes to 8),
 * contents undefined; NULL if n * size overflows or memory is out. n * size = 0 gives a valid
 * pointer too. */
void *qkv_arena_take(qkv_arena *arena, size_t n, size_t size);

/* Takes everything back but keeps the memory, as one chunk from now on: whatever fitted before fits
 * again, in any order, without another malloc. */
void qkv_arena_reset(qkv_arena *arena);

void qkv_arena_free(qkv_arena *arena);

#endif
