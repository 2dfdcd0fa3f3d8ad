/* descent.h - from one bandwidth downhill. */
#ifndef QKV_GRAD_DESCENT_H
#define QKV_GRAD_DESCENT_H

#include "qkv/optim.h"
#include "src/local.h"

typedef struct qkv_descent {
    qkv_sample *s;
    const qkv_regression_fit_options *options;
    int start;                    /* for observe */
    ptrdiff_t n;                  /* the arrays below are [n], pieces of one block */
    double *theta;                /* log h, moved by the optimizer along gradient */
    double *bandwidth, *gradient; /* at the last theta that was kept, as its loss */
    double *kept, *tried, *tried_gradient;
    double loss, tried_loss, loss_before;
    ptrdiff_t steps, evaluations;
    bool converged, stopped; /* stopped: observe wanted no more */
    qkv_status status;       /* of what the library of L-BFGS cannot pass on */
    qkv_optimizer *optimizer;
    double rate, full_rate; /* full_rate is what rate grows back to */
} qkv_descent;

enum { QKV_DESCENT_ARRAYS = 6 };

/* The criterion from one row in `every`, and its gradient unless that is NULL, at the bandwidths h.
 * Whether it is admissible: finite, and defined for each of those rows. */
qkv_status qkv_descent_evaluate(qkv_descent *d, const double *h, ptrdiff_t every, double *loss,
                                double *gradient, bool *admissible);

/* From d->theta to d->bandwidth; d's arrays and options are set. */
qkv_status qkv_descend(qkv_descent *d);

#endif
