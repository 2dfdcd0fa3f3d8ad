/* calls.h - the library's calls that are measured, with their data ready. calls.c is built for each
 * dtype. */
#ifndef QKV_BENCH_CALLS_H
#define QKV_BENCH_CALLS_H

#include "cases.h"

typedef struct bench_calls {
    void *state;
    void (*call)(void *state); /* what the case measures */
    void (*free)(void *state);
    const void *keys;              /* and values, one after the other */
    size_t keys_bytes, data_bytes; /* data: inputs, results and gradients */
} bench_calls;

/* Inputs are random numbers, uniform in (-1, 1). All of the case's memory is touched. */
bench_calls calls_f32(const bench_case *c);
bench_calls calls_f64(const bench_case *c);

#endif
