/* optim.h - gradient descent on arrays the caller owns: SGD with momentum, Adam, AdamW. */
#ifndef QKV_OPTIM_H
#define QKV_OPTIM_H

#include <stdbool.h>

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qkv_optimizer qkv_optimizer;

/* v = momentum v + g;  x -= rate (g + momentum v if nesterov, else v). Zeroed fields: plain descent
 * at rate 0.01. (Sutskever et al. 2013, in PyTorch's form: the rate multiplies the velocity.) */
typedef struct qkv_sgd {
    double rate; /* 0: 0.01 */
    double momentum;
    double weight_decay; /* added to the gradient: g + weight_decay x */
    bool nesterov;
} qkv_sgd;

/* m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  x -= rate m_hat / (sqrt(v_hat) + epsilon),
 * bias-corrected. (Kingma & Ba 2015, algorithm 1.) decoupled: AdamW, x -= rate weight_decay x
 * before the step (Loshchilov & Hutter 2019, algorithm 2); otherwise weight_decay x is added to the
 * gradient. */
typedef struct qkv_adam {
    double rate;         /* 0: 0.001 */
    double beta1, beta2; /* 0: 0.9 and 0.999 */
    double epsilon;      /* 0: 1e-8 */
    double weight_decay;
    bool decoupled;
} qkv_adam;

/* options NULL: all zero. QKV_E_ARG for a negative or non-finite option or a beta of 1 or more,
 * QKV_E_NOMEM; *optimizer is then NULL. free(NULL) is fine. */
QKV_API qkv_status qkv_sgd_new(qkv_optimizer **optimizer, const qkv_sgd *options);
QKV_API qkv_status qkv_adam_new(qkv_optimizer **optimizer, const qkv_adam *options);
QKV_API void qkv_optimizer_free(qkv_optimizer *optimizer);

/* Register n numbers x with their gradient; both stay the caller's and must outlive the optimizer.
 * The state (momentum, moments) is in double for either dtype and starts at zero; Adam counts the
 * steps of each array. QKV_E_ARG for NULL with n > 0, QKV_E_OVERFLOW, QKV_E_NOMEM. */
QKV_API qkv_status qkv_optimizer_add_f32(qkv_optimizer *optimizer, float *x, float *gradient,
                                         size_t n);
QKV_API qkv_status qkv_optimizer_add_f64(qkv_optimizer *optimizer, double *x, double *gradient,
                                         size_t n);

/* One step on everything registered. A gradient that is not finite is QKV_E_DOMAIN, naming array
 * (0, 1, .. as registered) and element, and nothing is changed. Gradients are left as they are.
 * Does not allocate. */
QKV_API qkv_status qkv_optimizer_step(qkv_optimizer *optimizer);
QKV_API void qkv_optimizer_zero_gradients(qkv_optimizer *optimizer);
/* From the next step on, for schedules; 0 means 0 here: nothing moves. QKV_E_ARG as above. */
QKV_API qkv_status qkv_optimizer_set_rate(qkv_optimizer *optimizer, double rate);

#ifdef __cplusplus
}
#endif
#endif
