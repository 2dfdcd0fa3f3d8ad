/* optim.h - gradient descent on arrays the caller owns: SGD with momentum, Adam, AdamW. */
#ifndef QKV_OPTIM_H
#define QKV_OPTIM_H

#include <stdbool.h>

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qkv_optimizer qkv_optimizer;

/* Descent with momentum. Zeroed fields: plain descent at rate 0.01.
 *
 *     g  = gradient + weight_decay x
 *     v  = momentum v + g
 *     x -= rate v,  or  rate (g + momentum v) if nesterov
 *
 * (Sutskever et al. 2013, in PyTorch's form: the rate multiplies the velocity.) */
typedef struct qkv_sgd {
    double rate; /* 0: 0.01 */
    double momentum;
    double weight_decay;
    bool nesterov;
} qkv_sgd;

/* Adam (Kingma & Ba 2015, algorithm 1), after t steps of an array:
 *
 *     g  = gradient + weight_decay x
 *     m  = beta1 m + (1 - beta1) g
 *     v  = beta2 v + (1 - beta2) g^2
 *     x -= rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon)
 *
 * decoupled is AdamW: g is the gradient alone, and x -= rate weight_decay x comes before the step
 * (Loshchilov & Hutter 2019, algorithm 2). */
typedef struct qkv_adam {
    double rate;         /* 0: 0.001 */
    double beta1, beta2; /* 0: 0.9 and 0.999 */
    double epsilon;      /* 0: 1e-8 */
    double weight_decay;
    bool decoupled;
} qkv_adam;

/* *optimizer = a new one, to be freed; NULL on an error: QKV_E_NOMEM, or QKV_E_ARG for a NULL, a
 * negative or non-finite option, or a beta of 1 or more. options NULL: all zero. Freeing NULL is
 * fine, and frees none of the caller's arrays. */
QKV_API qkv_status qkv_sgd_new(qkv_optimizer **optimizer, const qkv_sgd *options);
QKV_API qkv_status qkv_adam_new(qkv_optimizer **optimizer, const qkv_adam *options);
QKV_API void qkv_optimizer_free(qkv_optimizer *optimizer);

/* Registers n numbers x with their gradient; both stay the caller's and must outlive the optimizer.
 * Arrays of both dtypes may be registered. The state (momentum, moments) is in double for either
 * and starts at zero; Adam counts the steps of each array. On an error nothing is registered:
 * QKV_E_ARG for a NULL (with n = 0, x and gradient may be), QKV_E_OVERFLOW, QKV_E_NOMEM. */
QKV_API qkv_status qkv_optimizer_add_f32(qkv_optimizer *optimizer, float *x, float *gradient,
                                         size_t n);
QKV_API qkv_status qkv_optimizer_add_f64(qkv_optimizer *optimizer, double *x, double *gradient,
                                         size_t n);

/* One step on everything registered: x is updated in place, gradients are left as they are. A
 * gradient that is not finite is QKV_E_DOMAIN, naming array (0, 1, .. as registered) and element,
 * and nothing is changed; NULL is QKV_E_ARG. Does not allocate. */
QKV_API qkv_status qkv_optimizer_step(qkv_optimizer *optimizer);

/* All registered gradients = 0, for the next backward to add to. NULL is fine. */
QKV_API void qkv_optimizer_zero_gradients(qkv_optimizer *optimizer);

/* The rate from the next step on, for schedules; 0 means 0 here: nothing moves. QKV_E_ARG for NULL
 * and for a rate that is negative or not finite. */
QKV_API qkv_status qkv_optimizer_set_rate(qkv_optimizer *optimizer, double rate);

#ifdef __cplusplus
}
#endif
#endif
