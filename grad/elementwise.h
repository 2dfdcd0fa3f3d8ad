/* elementwise.h - the loops that elementwise operations share; an operation brings the formula of
 * one run. */
#ifndef QKV_GRAD_ELEMENTWISE_H
#define QKV_GRAD_ELEMENTWISE_H

#include "grad/tape.h"
#include "src/real.h"

/* y[i] = f(x[i]);  dx[i] += f'(x[i]) dy[i]. */
typedef struct FN(qkv_unary) {
    void (*forward)(real *y, const real *x, size_t n);
    void (*backward)(real *dx, const real *dy, const real *x, const real *y, size_t n);
} FN(qkv_unary);

/* A stretch of n elements of a broadcast operation: element i of a is a[i * a_step], with a step of
 * 0 or 1. */
typedef struct FN(qkv_run) {
    size_t n, a_step, b_step;
    const real *a, *b;
    real *y;        /* forward */
    const real *dy; /* backward */
    real *da, *db;  /* +=, NULL where not wanted */
} FN(qkv_run);

typedef struct FN(qkv_binary) {
    void (*forward)(const FN(qkv_run) *r);
    void (*backward)(const FN(qkv_run) *r);
} FN(qkv_binary);

qkv_status FN(qkv_unary_forward)(qkv_tape *tape, qkv_node *node);
qkv_status FN(qkv_unary_backward)(qkv_tape *tape, qkv_node *node);
qkv_status FN(qkv_binary_forward)(qkv_tape *tape, qkv_node *node);
qkv_status FN(qkv_binary_backward)(qkv_tape *tape, qkv_node *node);

#endif
