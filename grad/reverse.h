/* reverse.h - backward as a computation that is itself recorded (reverse.c), and what the
 * operations' own parts of it, qkv_differentiate_NAME, are made of. */
#ifndef QKV_GRAD_REVERSE_H
#define QKV_GRAD_REVERSE_H

#include "grad/tape.h"

/* One node on the way back. */
typedef struct qkv_reverse {
    qkv_var y, dy; /* its value and the cotangent */
    int n;
    const qkv_var *x;   /* its n inputs */
    const bool *wanted; /* which of them lead to what is asked for */
    qkv_var *dx;        /* {0}; to become their cotangents; where not wanted they are ignored */
} qkv_reverse;

/* dx[0..n) = the cotangents of xs that dy of y leads to; {0} where it does not. */
void qkv_reverse_through(qkv_tape *tape, qkv_var y, qkv_var dy, const qkv_var *xs, int n,
                         qkv_var *dx);

/* The same with zeros where it does not; derivatives.c. */
qkv_status qkv_carry_back(qkv_tape *tape, qkv_var y, qkv_var dy, const qkv_var *xs, int n,
                          qkv_var *dx);

/* What a node keeps, and the number of its elements. NULL and 0 with the tape in error. */
const void *qkv_state_of(qkv_tape *tape, qkv_var x);
size_t qkv_size_of(qkv_tape *tape, qkv_var x);

/* dy, summed over what was stretched, in the shape of x. */
qkv_var qkv_sum_to(qkv_tape *tape, qkv_var dy, qkv_var x);
/* The cotangent of a reduction, stretched over its input. */
qkv_var qkv_spread(qkv_tape *tape, const qkv_reverse *r);

/* Constants of x's shape: f of each element, or what mark makes of zeros. */
qkv_var qkv_constant_map(qkv_tape *tape, qkv_var x, double (*f)(double x));
qkv_var qkv_constant_marks(qkv_tape *tape, qkv_var x, void (*mark)(const void *of, double *x),
                           const void *of);

#endif
