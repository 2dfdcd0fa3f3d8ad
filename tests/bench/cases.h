/* cases.h - what is measured. */
#ifndef QKV_BENCH_CASES_H
#define QKV_BENCH_CASES_H

#include <stdbool.h>

#include "qkv/attention.h"

/* What the columns gflops, peak_gflops and fraction hold. */
typedef enum bench_measure {
    GFLOPS,   /* GFLOP/s; the FMA peak; their ratio */
    GPAIRS,   /* 1e9 query-key pairs a second; the FMA peak in GFLOP/s; their ratio */
    GBYTES,   /* GB/s of keys and values; the read bandwidth; their ratio */
    SPEEDUP,  /* GFLOP/s of 2 threads; of 1 thread; their ratio */
    MEBIBYTES /* the process's peak over inputs and outputs; the inputs and outputs; their ratio */
} bench_measure;

typedef struct bench_case {
    const char *name;
    bench_measure measure;
    qkv_dtype dtype;
    qkv_pass pass;
    qkv_attention a;
    bool bias, slopes, sink, relative; /* operands beside q, k, v */
    bool mask;                         /* an array that hides one pair in three */
    bool tape; /* forward and backward through the tape, not the pass alone */
} bench_case;

/* The i-th case; false if there is none. quick: the same at tiny sizes. */
bool case_at(int i, bool quick, bench_case *c);

/* "dense/f32/forward/1024x1024/d64", n_q x n_k, in a buffer of its own; heads and d_v if not plain.
 */
const char *case_label(const bench_case *c);

const char *dtype_name(qkv_dtype dtype);
const char *pass_name(qkv_pass pass);

/* FLOPs of a call, the products alone: 4 n_q n_k d forward and 10 backward where d = d_k = d_v,
 * half of it if causal. */
double case_flops(const bench_case *c);

#endif
