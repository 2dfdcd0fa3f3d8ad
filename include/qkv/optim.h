/* optim.h - gradient descent on arrays the caller owns: SGD with momentum, Adam, AdamW, clipped
 * gradients, schedules of the rate. */
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

/* Scales all registered gradients by one factor, so that the norm of them all together is at most
 * max_norm (Pascanu, Mikolov & Bengio 2013, algorithm 1):
 *
 *     norm = sqrt(sum over arrays and elements of gradient^2)
 *     gradient *= max_norm / norm  if norm > max_norm
 *
 * *norm (NULL: not wanted) is what it was before, INFINITY if that is beyond double; with max_norm
 * INFINITY it is only measured.
 * QKV_E_ARG for a NULL optimizer and for a max_norm that is not > 0. A gradient that is not finite
 * is QKV_E_DOMAIN as in a step: nothing is changed, and *norm is NaN. */
QKV_API qkv_status qkv_optimizer_clip_gradients(qkv_optimizer *optimizer, double max_norm,
                                                double *norm);

/* All registered gradients = 0, for the next backward to add to. NULL is fine. */
QKV_API void qkv_optimizer_zero_gradients(qkv_optimizer *optimizer);

/* The rate from the next step on, for schedules; 0 means 0 here: nothing moves. QKV_E_ARG for NULL
 * and for a rate that is negative or not finite. */
QKV_API qkv_status qkv_optimizer_set_rate(qkv_optimizer *optimizer, double rate);

/* What follows the warm-up of a schedule. */
typedef enum qkv_decay {
    QKV_DECAY_NONE = 0, /* the rate stays */
    QKV_DECAY_COSINE,
    QKV_DECAY_INVERSE_SQRT
} qkv_decay;

/* How the rate of learning goes up, and then down: with t = 1, 2, .. the number of the step, W =
 * warmup and T = steps,
 *
 *     t <= W         rate t / W                                    (linear; Goyal et al. 2017)
 *     none           rate
 *     cosine         last + (rate - last) (1 + cos(pi (t - W) / (T - W))) / 2, from T on last
 *                                                  (Loshchilov & Hutter 2017, equation 5)
 *     inverse sqrt   rate sqrt(max(W, 1) / t)      (Vaswani et al. 2017, equation 3, which has the
 *                                                  rate 1 / sqrt(W d_model))
 *
 * Zeroed fields: 0.001 for ever. */
typedef struct qkv_schedule {
    double rate; /* the highest; 0: 0.001 */
    double last; /* of the cosine */
    qkv_decay decay;
    ptrdiff_t warmup; /* steps that lead up to rate; 0: none */
    ptrdiff_t steps;  /* of the whole training, for the cosine: more than warmup */
} qkv_schedule;

/* The rate of a step, 0, 1, .. (its t is step + 1). A pure function. NaN, which
 * qkv_optimizer_set_rate refuses, for NULL, a negative or non-finite number, an unknown decay, or a
 * cosine of no steps. */
QKV_API double qkv_schedule_rate(const qkv_schedule *schedule, ptrdiff_t step);

#ifdef __cplusplus
}
#endif
#endif
