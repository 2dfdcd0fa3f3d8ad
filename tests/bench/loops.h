/* loops.h - the loops behind the yardsticks: as much arithmetic, or as much reading, as one thread
 * can do. loops.c is built once per instruction set and dtype; each build is one table. */
#ifndef QKV_BENCH_LOOPS_H
#define QKV_BENCH_LOOPS_H

#include <stddef.h>

enum { L1_BYTES = 16384 }; /* what the arithmetic loops read, again and again */

/* turns times the body, on L1_BYTES of small numbers; the result only keeps the compiler from
 * leaving it out. */
typedef struct fma_loop {
    const char *name;
    double (*run)(size_t turns, const void *l1);
    double flops; /* of a turn */
} fma_loop;

/* Reads lines cache lines of 64 bytes. */
typedef struct read_loop {
    const char *name;
    double (*run)(const void *memory, size_t lines);
} read_loop;

typedef struct loop_table {
    const char *isa; /* as qkv_isa() calls it */
    const fma_loop *fma;
    int n_fma;
    const read_loop *read;
    int n_read;
} loop_table;

#endif
