/* descent.c - from one bandwidth downhill, on log h: L-BFGS by liblbfgs, or the optimizers of
 * optim.h, whose every step has to lower the loss. */
#include "grad/descent.h"

#include <lbfgs.h>
#include <math.h>
#include <string.h>

#include "src/fail.h"
#include "src/regression.h"

qkv_status qkv_descent_evaluate(qkv_descent *d, const double *h, ptrdiff_t every, double *loss,
                                double *gradient, bool *admissible)
{
    ptrdiff_t undefined = 0;
    *admissible = false;
    *loss = NAN;
    for (ptrdiff_t c = 0; c < d->n; c++)
        if (!isnormal(h[c])) return QKV_OK;
    d->evaluations++;
    qkv_status status = qkv_sample_widen("qkv_regression_fit", h, d->s);
    if (status == QKV_OK)
        status = qkv_sample_objective("qkv_regression_fit", d->s, d->options->criterion, every,
                                      loss, &undefined, gradient);
    *admissible = status == QKV_OK && undefined == 0 && isfinite(*loss);
    return status;
}

/* At theta, as tried. */
static qkv_status evaluate(qkv_descent *d, bool *admissible)
{
    for (ptrdiff_t c = 0; c < d->n; c++) d->tried[c] = exp(d->theta[c]);
    return qkv_descent_evaluate(d, d->tried, d->s->every, &d->tried_loss, d->tried_gradient,
                                admissible);
}

static void keep(qkv_descent *d)
{
    size_t bytes = (size_t)d->n * sizeof *d->theta;
    memcpy(d->kept, d->theta, bytes);
    memcpy(d->bandwidth, d->tried, bytes);
    memcpy(d->gradient, d->tried_gradient, bytes);
    d->loss = d->tried_loss;
}

enum { MAX_PULLS = 60 }; /* doublings of h, or halvings of a step: beyond the digits of a double */

static qkv_status admit_start(qkv_descent *d)
{
    for (int pull = 0; pull < MAX_PULLS; pull++) {
        bool admissible;
        qkv_status status = evaluate(d, &admissible);
        if (status == QKV_OK && admissible) keep(d);
        if (status != QKV_OK || admissible) return status;
        for (ptrdiff_t c = 0; c < d->n; c++) d->theta[c] += log(2);
    }
    return qkv_fail(QKV_E_DOMAIN,
                    "qkv_regression_fit: the loss at the start is %g and stays so at larger "
                    "bandwidths: is y - y squared finite?",
                    d->tried_loss);
}

static double largest(const double *x, ptrdiff_t n)
{
    double most = 0;
    for (ptrdiff_t i = 0; i < n; i++) most = fmax(most, fabs(x[i]));
    return most;
}

/* What a gradient is small beside: the loss, or 1 for AICc, which is a logarithm. */
static double scale_of(const qkv_descent *d)
{
    if (d->options->criterion == QKV_REGRESSION_AICC) return 1;
    return fmax(d->loss, d->loss_before / 1e3);
}

/* Tells what was kept after so many steps; whether to go on. */
static bool watch(qkv_descent *d, ptrdiff_t step)
{
    const qkv_regression_fit_options *o = d->options;
    ptrdiff_t steps = o->steps ? o->steps : 500;
    double tolerance = o->tolerance != 0 ? o->tolerance : 1e-6;
    d->steps = step;
    d->converged = largest(d->gradient, d->n) <= tolerance * scale_of(d);
    qkv_regression_step seen = {.step = step,
                                .start = d->start,
                                .steps = steps,
                                .loss = d->loss,
                                .bandwidth = d->bandwidth,
                                .gradient = d->gradient};
    d->stopped = o->observe && !o->observe(o->context, &seen);
    return !d->stopped && !d->converged && step < steps;
}

/* ---- L-BFGS ---------------------------------------------------------------------------------- */

/* L-BFGS moves FINE log h: its first step has the length 1, with which it would jump over minima.
 */
static const double FINE = 4;

/* The loss over scale_of at the start; infinite where it is not admissible, from where the line
 * search turns back. */
static lbfgsfloatval_t value_at(void *context, const lbfgsfloatval_t *theta, lbfgsfloatval_t *g,
                                const int n, const lbfgsfloatval_t step)
{
    qkv_descent *d = context;
    bool admissible = false;
    double scale = d->options->criterion == QKV_REGRESSION_AICC ? 1 : d->loss_before;
    (void)step;
    for (int c = 0; c < n; c++) d->theta[c] = theta[c] / FINE;
    if (d->status == QKV_OK) d->status = evaluate(d, &admissible);
    for (int c = 0; c < n; c++) g[c] = admissible ? d->tried_gradient[c] / (FINE * scale) : 0;
    return admissible ? d->tried_loss / scale : INFINITY;
}

static int after_step(void *context, const lbfgsfloatval_t *theta, const lbfgsfloatval_t *g,
                      const lbfgsfloatval_t value, const lbfgsfloatval_t norm,
                      const lbfgsfloatval_t g_norm, const lbfgsfloatval_t step, int n, int k,
                      int evaluations)
{
    qkv_descent *d = context;
    (void)theta, (void)g, (void)value, (void)norm, (void)g_norm, (void)step, (void)n;
    (void)evaluations;
    if (d->status != QKV_OK) return 1;
    keep(d);
    return !watch(d, k);
}

static qkv_status lbfgs_descent(qkv_descent *d)
{
    lbfgs_parameter_t p;
    lbfgs_parameter_init(&p);
    p.epsilon = 1e-300; /* after_step says when it is enough */
    p.linesearch = qkv_is_compact(d->s->r->kernel) ? LBFGS_LINESEARCH_BACKTRACKING_ARMIJO
                                                   : LBFGS_LINESEARCH_BACKTRACKING_WOLFE;
    if (!watch(d, 0)) return QKV_OK;
    lbfgsfloatval_t *theta = lbfgs_malloc((int)d->n), value;
    if (!theta) return qkv_fail(QKV_E_NOMEM, "qkv_regression_fit: no memory for L-BFGS");
    for (ptrdiff_t c = 0; c < d->n; c++) theta[c] = FINE * d->kept[c];
    int ended = lbfgs((int)d->n, theta, &value, value_at, after_step, d, &p);
    lbfgs_free(theta);
    if (ended == LBFGSERR_OUTOFMEMORY)
        return qkv_fail(QKV_E_NOMEM, "qkv_regression_fit: no memory for L-BFGS");
    return d->status; /* where no step lowers the loss any more, it is the minimum to rounding */
}

/* ---- The optimizers of optim.h --------------------------------------------------------------- */

/* A new optimizer at d->rate: one that has no momentum yet. */
static qkv_status renew_optimizer(qkv_descent *d)
{
    qkv_optimizer_free(d->optimizer);
    qkv_status status = d->options->optimizer == QKV_REGRESSION_ADAM
                            ? qkv_adam_new(&d->optimizer, &(qkv_adam){.rate = d->rate})
                            : qkv_sgd_new(&d->optimizer, &(qkv_sgd){.rate = d->rate});
    if (status != QKV_OK) return status;
    return qkv_optimizer_add_f64(d->optimizer, d->theta, d->gradient, (size_t)d->n);
}

/* Without it the column that overshot first would slow down all the others for good. */
static const double regrowth = 1.2;

/* One step that lowers the loss. What overshoots is taken back and tried again at half the rate
 * and without its momentum, which alone would swing Adam about the minimum. */
static qkv_status lower(qkv_descent *d, bool *lowered)
{
    for (int pull = 0; pull < MAX_PULLS; pull++) {
        qkv_status status = qkv_optimizer_step(d->optimizer);
        if (status == QKV_OK) status = evaluate(d, lowered);
        if (status != QKV_OK) return status;
        *lowered = *lowered && d->tried_loss < d->loss;
        if (*lowered) {
            keep(d);
            d->rate = fmin(d->full_rate, regrowth * d->rate);
            return qkv_optimizer_set_rate(d->optimizer, d->rate);
        }
        memcpy(d->theta, d->kept, (size_t)d->n * sizeof *d->theta);
        d->rate /= 2;
        status = renew_optimizer(d);
        if (status != QKV_OK) return status;
    }
    return QKV_OK;
}

static qkv_status optimizer_descent(qkv_descent *d)
{
    d->full_rate = d->options->rate;
    if (d->full_rate == 0 && d->options->optimizer == QKV_REGRESSION_ADAM) d->full_rate = 0.1;
    if (d->full_rate == 0) d->full_rate = 1 / scale_of(d);
    if (!isfinite(d->full_rate)) d->full_rate = 1;
    d->rate = d->full_rate;
    qkv_status status = renew_optimizer(d);
    bool lowered = true;
    for (ptrdiff_t step = 0; status == QKV_OK && lowered && watch(d, step); step++)
        status = lower(d, &lowered);
    qkv_optimizer_free(d->optimizer);
    d->optimizer = NULL;
    return status;
}

qkv_status qkv_descend(qkv_descent *d)
{
    d->status = QKV_OK;
    qkv_status status = admit_start(d);
    if (status != QKV_OK) return status;
    d->loss_before = d->loss;
    if (d->options->optimizer == QKV_REGRESSION_LBFGS && d->loss != 0) return lbfgs_descent(d);
    return optimizer_descent(d);
}
