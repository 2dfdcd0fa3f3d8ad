/* trial.h - one case of the registry laid out: inputs drawn from a seed, a cotangent for the
 * result, and what the tape says of their gradients. */
#ifndef QKV_GRAD_TRIAL_H
#define QKV_GRAD_TRIAL_H

#include "grad/tape.h"
#include "qkv/gradcheck.h"

enum { QKV_TRIAL_INPUTS = sizeof((qkv_op_case){0}.input) / sizeof(qkv_shape) };

typedef struct qkv_trial {
    const qkv_op_case *test;
    uint64_t seed;
    qkv_tape *tape, *tape_f32;
    /* All of these fit in float, so that both dtypes start from the same. */
    double *x[QKV_TRIAL_INPUTS];
    double *gradient[QKV_TRIAL_INPUTS]; /* NULL for a constant */
    size_t n[QKV_TRIAL_INPUTS];
    double *cotangent;
    size_t n_result;
    float *x_f32[QKV_TRIAL_INPUTS], *gradient_f32[QKV_TRIAL_INPUTS], *cotangent_f32;
} qkv_trial;

/* Draws everything, again if by accident float would decide otherwise than double, or an input have
 * next to no gradient. factor: what inputs without a declared domain are times, 1 for -1 to 1. Ends
 * in qkv_trial_end whatever it returns. */
qkv_status qkv_trial_begin(qkv_trial *c, const qkv_op_case *test, uint64_t seed, double factor);
void qkv_trial_end(qkv_trial *c);

/* cotangent' result, of a qkv_trial. */
qkv_status qkv_trial_value(void *trial, double *value);
/* What the operations recorded by the last value decided; of a qkv_trial. */
uint64_t qkv_trial_branches(void *trial);

/* Overwrites gradient with the gradient of factor cotangent' result; with beside, of that plus the
 * sum of the inputs, used before the operation, and twice the sum, used after it: 3 more
 * everywhere, unless the operation overwrites what is there instead of adding to it. */
qkv_status qkv_trial_differentiate(qkv_trial *c, double factor, bool beside);
/* Both gradient (of factor 1) and gradient_f32, on a tape of floats. */
qkv_status qkv_trial_differentiate_f32(qkv_trial *c);

/* Each gradient's name, and what is on trial. Returns how many. */
size_t qkv_trial_inputs(const qkv_trial *c, qkv_check_input inputs[QKV_TRIAL_INPUTS]);

#endif
