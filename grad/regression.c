#include "src/regression.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/optim.h"
#include "src/fail.h"

/* ---- The gradient of CV ------------------------------------------------------------------- */

/* What one evaluation keeps of every row: m_-i, the row's maximum and log sum, the cotangent. */
typedef struct loo_rows {
    double *mean, *cotangent; /* [n, d_y] */
    double *row_max, *row_log_sum;
    uint8_t *defined;
} loo_rows;

static void free_rows(loo_rows *rows)
{
    free(rows->mean);
    free(rows->cotangent);
    free(rows->row_max);
    free(rows->row_log_sum);
    free(rows->defined);
}

static qkv_status allocate_rows(const char *function, const qkv_regression *r, loo_rows *rows)
{
    ptrdiff_t d_y = qkv_one_if_zero(r->d_y);
    qkv_status status = qkv_regression_allocate(function, &rows->mean, r->n, d_y);
    if (status == QKV_OK) status = qkv_regression_allocate(function, &rows->cotangent, r->n, d_y);
    if (status == QKV_OK) status = qkv_regression_allocate(function, &rows->row_max, r->n, 1);
    if (status == QKV_OK) status = qkv_regression_allocate(function, &rows->row_log_sum, r->n, 1);
    if (status != QKV_OK) return status;
    rows->defined = malloc((size_t)r->n);
    if (!rows->defined) return qkv_fail(QKV_E_NOMEM, "%s: no memory for %td rows", function, r->n);
    return QKV_OK;
}

/* d CV / d m_-i = 2 (m_-i - y_i) / defined rows. An undefined row gets 0 and is hidden from
 * backward as well, because 0 times NaN is not 0. */
static void set_cotangent(const qkv_regression *r, loo_rows *rows, ptrdiff_t undefined)
{
    ptrdiff_t d_y = qkv_one_if_zero(r->d_y);
    double factor = 2 / (double)(r->n - undefined);
    for (ptrdiff_t i = 0; i < r->n; i++) {
        double *m = rows->mean + i * d_y, *d = rows->cotangent + i * d_y;
        rows->defined[i] = (uint8_t)!isnan(m[0]);
        for (ptrdiff_t c = 0; c < d_y; c++) {
            if (!rows->defined[i]) m[c] = 0;
            d[c] = rows->defined[i] ? factor * (m[c] - r->y[i * d_y + c]) : 0;
        }
    }
}

/* gradient = d CV / d log h = h d CV / d h. */
static qkv_status backward(const char *function, qkv_regression_problem *p, const loo_rows *rows,
                           double *gradient)
{
    size_t bytes;
    qkv_status status = qkv_attention_workspace(&p->a, QKV_BACKWARD, QKV_F64, &bytes);
    if (status != QKV_OK) return status;
    void *workspace = malloc(bytes ? bytes : 1);
    if (!workspace) return qkv_fail(QKV_E_NOMEM, "%s: no memory for %zu bytes", function, bytes);

    ptrdiff_t n = qkv_one_if_zero(p->a.bandwidths);
    memset(gradient, 0, (size_t)n * sizeof *gradient);
    p->in.mask = (qkv_slot_bool){.data = rows->defined, .strided = true, .stride = {0, 0, 1, 0}};
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
    ptrdiff_t n;      /* the arrays below are [n], pieces of one block that theta begins */
    double *theta;    /* log h, moved by the optimizer */
    double *admitted; /* the last theta that admissible() accepted */
    double *bandwidth, *gradient, *best;
    double loss, best_loss;
} descent;

/* Loss and gradient at theta. An overflowing exp(theta), an undefined row and a loss that is not
 * finite make it inadmissible, which is no error. */
static qkv_status evaluate(descent *d, bool *admissible)
{
    *admissible = false;
    for (ptrdiff_t c = 0; c < d->n; c++) {
        d->bandwidth[c] = exp(d->theta[c]);
        if (!isnormal(d->bandwidth[c])) return QKV_OK;
    }
    ptrdiff_t undefined;
    qkv_status status =
        qkv_regression_cv_gradient(d->r, d->bandwidth, &d->loss, &undefined, d->gradient);
    *admissible = undefined == 0 && isfinite(d->loss);
    return status;
}

enum { MAX_PULLS = 60 }; /* doublings of h, or halvings of a step: beyond the digits of a double */

static qkv_status admit_start(descent *d)
{
    bool admissible = false;
    for (int pull = 0; pull < MAX_PULLS; pull++) {
        qkv_status status = evaluate(d, &admissible);
        if (status != QKV_OK || admissible) return status;
        for (ptrdiff_t c = 0; c < d->n; c++) d->theta[c] += log(2);
    }
    return qkv_fail(QKV_E_DOMAIN,
                    "qkv_regression_fit: the loss at the start is %g and stays so at larger "
                    "bandwidths: are x and y finite?",
                    d->loss);
}

static qkv_status admit_step(descent *d)
{
    bool admissible = false;
    for (int pull = 0; pull < MAX_PULLS; pull++) {
        qkv_status status = evaluate(d, &admissible);
        if (status != QKV_OK || admissible) return status;
        for (ptrdiff_t c = 0; c < d->n; c++) d->theta[c] = (d->theta[c] + d->admitted[c]) / 2;
    }
    memcpy(d->theta, d->admitted, (size_t)d->n * sizeof *d->theta);
    return evaluate(d, &admissible);
}

static bool converged(const descent *d, double tolerance)
{
    double largest = 0;
    for (ptrdiff_t c = 0; c < d->n; c++) largest = fmax(largest, fabs(d->gradient[c]));
    return largest <= tolerance * d->loss;
}

static qkv_status descend(descent *d, qkv_optimizer *optimizer,
                          const qkv_regression_fit_options *options,
                          qkv_regression_fit_report *report)
{
    ptrdiff_t steps = options->steps ? options->steps : 500;
    double tolerance = options->tolerance != 0 ? options->tolerance : 1e-6;
    size_t bytes = (size_t)d->n * sizeof *d->theta;
    for (ptrdiff_t step = 0;; step++) {
        report->steps = step;
        if (step == 0 || d->loss < d->best_loss) {
            d->best_loss = d->loss;
            report->best_step = step;
            memcpy(d->best, d->bandwidth, bytes);
        }
        qkv_regression_step seen = {step, d->loss, d->bandwidth, d->gradient};
        if (options->observe && !options->observe(options->context, &seen)) return QKV_OK;
        report->converged = converged(d, tolerance);
        if (report->converged || step == steps) return QKV_OK;

        memcpy(d->admitted, d->theta, bytes);
        qkv_status status = qkv_optimizer_step(optimizer);
        if (status == QKV_OK) status = admit_step(d);
        if (status != QKV_OK) return status;
    }
}

static qkv_status new_optimizer(qkv_optimizer **optimizer, const descent *d,
                                const qkv_regression_fit_options *options)
{
    double rate = options->rate;
    if (options->optimizer == QKV_REGRESSION_ADAM)
        return qkv_adam_new(optimizer, &(qkv_adam){.rate = rate != 0 ? rate : 0.1});
    if (rate == 0 && d->loss > 0) rate = 1 / d->loss;
    return qkv_sgd_new(optimizer, &(qkv_sgd){.rate = rate});
}

/* From d->theta to d->best. */
static qkv_status minimize(descent *d, const qkv_regression_fit_options *options,
                           qkv_regression_fit_report *report)
{
    qkv_optimizer *optimizer = NULL;
    qkv_status status = admit_start(d);
    if (status == QKV_OK) status = new_optimizer(&optimizer, d, options);
    if (status == QKV_OK)
        status = qkv_optimizer_add_f64(optimizer, d->theta, d->gradient, (size_t)d->n);
    report->loss_before = d->loss;
    if (status == QKV_OK) status = descend(d, optimizer, options, report);
    report->loss_after = d->best_loss;
    qkv_optimizer_free(optimizer);
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
        qkv_status status = qkv_regression_silverman(d->r, d->bandwidth);
        if (status != QKV_OK) return status;
        start = d->bandwidth;
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
    status = qkv_regression_allocate(__func__, &block, n, 5);
    if (status != QKV_OK) return status;
    descent d = {.r = &admitting,
                 .n = n,
                 .theta = block,
                 .admitted = block + n,
                 .bandwidth = block + 2 * n,
                 .gradient = block + 3 * n,
                 .best = block + 4 * n};
    status = set_start(__func__, &d, options->start);
    if (status == QKV_OK) status = minimize(&d, options, report);
    if (status == QKV_OK) memcpy(bandwidth, d.best, (size_t)n * sizeof *bandwidth);
    free(block);
    return status;
}
