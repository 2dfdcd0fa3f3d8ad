#include "src/regression.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/optim.h"
#include "src/fail.h"

/* ---- The gradient of CV ------------------------------------------------------------------- */

/* What one evaluation keeps of every row: m_-i, the row's maximum and log sum, the cotangent. */
typedef struct loo_rows {
    double *mean, *cotangent; /* [n, d_y] */
    double *row_max, *row_log_sum;
} loo_rows;

static void free_rows(loo_rows *rows)
{
    free(rows->mean);
    free(rows->cotangent);
    free(rows->row_max);
    free(rows->row_log_sum);
}

static qkv_status allocate_rows(const char *function, const qkv_regression *r, loo_rows *rows)
{
    ptrdiff_t d_y = qkv_one_if_zero(r->d_y);
    qkv_status status = qkv_regression_allocate(function, &rows->mean, r->n, d_y);
    if (status == QKV_OK) status = qkv_regression_allocate(function, &rows->cotangent, r->n, d_y);
    if (status == QKV_OK) status = qkv_regression_allocate(function, &rows->row_max, r->n, 1);
    if (status == QKV_OK) status = qkv_regression_allocate(function, &rows->row_log_sum, r->n, 1);
    return status;
}

/* d CV / d m_-i = 2 (m_-i - y_i) / defined rows. It is NaN in an undefined row, whose empty support
 * lets no gradient through. */
static void set_cotangent(const qkv_regression *r, loo_rows *rows, ptrdiff_t undefined)
{
    double factor = 2 / (double)(r->n - undefined);
    for (ptrdiff_t i = 0; i < r->n * qkv_one_if_zero(r->d_y); i++)
        rows->cotangent[i] = factor * (rows->mean[i] - r->y[i]);
}

/* gradient = d CV / d log h = h d CV / d h. */
static qkv_status backward(const char *function, const qkv_regression_problem *p,
                           const loo_rows *rows, double *gradient)
{
    size_t bytes;
    qkv_status status = qkv_attention_workspace(&p->a, QKV_BACKWARD, QKV_F64, &bytes);
    if (status != QKV_OK) return status;
    void *workspace = malloc(bytes ? bytes : 1);
    if (!workspace) return qkv_fail(QKV_E_NOMEM, "%s: no memory for %zu bytes", function, bytes);

    ptrdiff_t n = qkv_one_if_zero(p->a.bandwidths);
    memset(gradient, 0, (size_t)n * sizeof *gradient);
    qkv_results_f64 saved = {
        .o.data = rows->mean, .row_max.data = rows->row_max, .row_log_sum.data = rows->row_log_sum};
    status = qkv_attention_backward_f64(
        &p->a, &p->in, &saved, &(qkv_results_f64){.o.data = rows->cotangent},
        &(qkv_operands_f64){.bandwidth.data = gradient}, workspace, bytes);
    for (ptrdiff_t c = 0; c < n; c++) gradient[c] *= p->in.bandwidth.data[c];
    free(workspace);
    return status;
}

qkv_status qkv_regression_cv_gradient(const qkv_regression *r, const double *bandwidth, double *cv,
                                      ptrdiff_t *undefined, double *gradient)
{
    if (!cv || !gradient)
        return qkv_fail(QKV_E_ARG, "%s: %s is NULL", __func__, cv ? "gradient" : "cv");
    qkv_regression_problem p;
    qkv_status status = qkv_regression_pose(&p, __func__, r, bandwidth, NULL, 0);
    if (status != QKV_OK) return status;

    loo_rows rows = {0};
    ptrdiff_t rows_undefined = 0;
    status = allocate_rows(__func__, r, &rows);
    if (status == QKV_OK)
        status = qkv_regression_forward(__func__, &p,
                                        &(qkv_results_f64){.o.data = rows.mean,
                                                           .row_max.data = rows.row_max,
                                                           .row_log_sum.data = rows.row_log_sum});
    if (status == QKV_OK) {
        *cv = qkv_regression_cv_of(r, rows.mean, &rows_undefined);
        if (undefined) *undefined = rows_undefined;
        set_cotangent(r, &rows, rows_undefined);
        status = backward(__func__, &p, &rows, gradient);
    }
    free_rows(&rows);
    return status;
}

/* ---- The descent -------------------------------------------------------------------------- */

typedef struct descent {
    const qkv_regression *r;
    const qkv_regression_fit_options *options;
    ptrdiff_t n;                  /* the arrays below are [n], pieces of one block */
    double *theta;                /* log h, moved by the optimizer along gradient */
    double *bandwidth, *gradient; /* at the last theta that was kept, as its loss */
    double *kept, *tried, *tried_gradient;
    double loss, tried_loss;
    qkv_optimizer *optimizer;
    double rate, full_rate; /* full_rate is what rate grows back to */
} descent;

/* Loss and gradient at theta, as tried. An overflowing exp(theta), an undefined row and a loss
 * that is not finite make it inadmissible, which is no error. */
static qkv_status evaluate(descent *d, bool *admissible)
{
    *admissible = false;
    d->tried_loss = NAN;
    for (ptrdiff_t c = 0; c < d->n; c++) {
        d->tried[c] = exp(d->theta[c]);
        if (!isnormal(d->tried[c])) return QKV_OK;
    }
    ptrdiff_t undefined;
    qkv_status status =
        qkv_regression_cv_gradient(d->r, d->tried, &d->tried_loss, &undefined, d->tried_gradient);
    *admissible = !status && undefined == 0 && isfinite(d->tried_loss);
    return status;
}

static void keep(descent *d)
{
    size_t bytes = (size_t)d->n * sizeof *d->theta;
    memcpy(d->kept, d->theta, bytes);
    memcpy(d->bandwidth, d->tried, bytes);
    memcpy(d->gradient, d->tried_gradient, bytes);
    d->loss = d->tried_loss;
}

enum { MAX_PULLS = 60 }; /* doublings of h, or halvings of a step: beyond the digits of a double */

static qkv_status admit_start(descent *d)
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
                    "bandwidths: are x and y finite, and y - y squared?",
                    d->tried_loss);
}

/* A new optimizer at d->rate: one that has no momentum yet. */
static qkv_status renew_optimizer(descent *d)
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
static qkv_status lower(descent *d, bool *lowered)
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

static double largest(const double *x, ptrdiff_t n)
{
    double most = 0;
    for (ptrdiff_t i = 0; i < n; i++) most = fmax(most, fabs(x[i]));
    return most;
}

static qkv_status descend(descent *d, qkv_regression_fit_report *report)
{
    const qkv_regression_fit_options *o = d->options;
    ptrdiff_t steps = o->steps ? o->steps : 500;
    double tolerance = o->tolerance != 0 ? o->tolerance : 1e-6;
    bool lowered = true;
    for (ptrdiff_t step = 0; lowered; step++) {
        report->steps = step;
        report->loss_after = d->loss;
        report->gradient = largest(d->gradient, d->n);
        report->converged =
            report->gradient <= tolerance * fmax(d->loss, report->loss_before / 1e3);
        qkv_regression_step seen = {step, d->loss, d->bandwidth, d->gradient};
        if (o->observe && !o->observe(o->context, &seen)) return QKV_OK;
        if (report->converged || step == steps) return QKV_OK;
        qkv_status status = lower(d, &lowered);
        if (status != QKV_OK) return status;
    }
    return QKV_OK;
}

/* From d->theta to d->bandwidth. */
static qkv_status minimize(descent *d, qkv_regression_fit_report *report)
{
    qkv_status status = admit_start(d);
    if (status != QKV_OK) return status;
    report->loss_before = d->loss;
    d->full_rate = d->options->rate;
    if (d->full_rate == 0 && d->options->optimizer == QKV_REGRESSION_ADAM) d->full_rate = 0.1;
    if (d->full_rate == 0 && d->loss > 0) d->full_rate = 1 / d->loss;
    d->rate = d->full_rate;
    status = renew_optimizer(d);
    if (status == QKV_OK) status = descend(d, report);
    qkv_optimizer_free(d->optimizer);
    return status;
}

static qkv_status check_options(const char *function, const qkv_regression *r,
                                const qkv_regression_fit_options *options, const double *bandwidth)
{
    qkv_status status = qkv_regression_check(function, r);
    if (status != QKV_OK) return status;
    if (!bandwidth) return qkv_fail(QKV_E_ARG, "%s: bandwidth is NULL", function);
    if (r->kernel == QKV_REGRESSION_BOXCAR || r->kernel == QKV_REGRESSION_CONSTANT)
        return qkv_fail(QKV_E_ARG, "%s: the %s kernel has no gradient to follow", function,
                        r->kernel == QKV_REGRESSION_BOXCAR ? "boxcar" : "constant");
    if ((unsigned)options->optimizer > QKV_REGRESSION_GRADIENT_DESCENT)
        return qkv_fail(QKV_E_ARG, "%s: %d is not an optimizer", function, (int)options->optimizer);
    if (options->steps < 0 || !(options->rate >= 0) || isnan(options->tolerance))
        return qkv_fail(QKV_E_ARG,
                        "%s: steps %td, rate %g, tolerance %g, expected >= 0, >= 0, a number",
                        function, options->steps, options->rate, options->tolerance);
    return QKV_OK;
}

static qkv_status set_start(const char *function, descent *d, const double *start)
{
    if (!start) {
        qkv_status status = qkv_regression_silverman(d->r, d->tried);
        if (status != QKV_OK) return status;
        start = d->tried;
    }
    for (ptrdiff_t c = 0; c < d->n; c++) {
        if (!(start[c] > 0 && isfinite(start[c])))
            return qkv_fail(QKV_E_ARG, "%s: start[%td] is %g, expected a finite number > 0",
                            function, c, start[c]);
        d->theta[c] = log(start[c]);
    }
    return QKV_OK;
}

qkv_status qkv_regression_fit(const qkv_regression *r, const qkv_regression_fit_options *options,
                              double *bandwidth, qkv_regression_fit_report *report)
{
    const qkv_regression_fit_options defaults = {0};
    qkv_regression_fit_report unwanted;
    if (!options) options = &defaults;
    if (!report) report = &unwanted;
    *report = (qkv_regression_fit_report){0};
    qkv_status status = check_options(__func__, r, options, bandwidth);
    if (status != QKV_OK) return status;

    qkv_regression admitting = *r; /* an empty support on the way is no error: it is turned back */
    if (r->empty == QKV_EMPTY_ERROR) admitting.empty = QKV_EMPTY_NAN;
    ptrdiff_t n = qkv_one_if_zero(r->bandwidths);
    double *block = NULL;
    status = qkv_regression_allocate(__func__, &block, n, 6);
    if (status != QKV_OK) return status;
    descent d = {.r = &admitting,
                 .options = options,
                 .n = n,
                 .theta = block,
                 .bandwidth = block + n,
                 .gradient = block + 2 * n,
                 .kept = block + 3 * n,
                 .tried = block + 4 * n,
                 .tried_gradient = block + 5 * n};
    status = set_start(__func__, &d, options->start);
    if (status == QKV_OK) status = minimize(&d, report);
    if (status == QKV_OK) memcpy(bandwidth, d.bandwidth, (size_t)n * sizeof *bandwidth);
    free(block);
    return status;
}
