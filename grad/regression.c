/* regression.c - how good a bandwidth is: the criteria, their exact gradients, and what else the
 * fits of the rows themselves tell. */
#include "src/regression.h"

#include <math.h>
#include <stdlib.h>

#include "src/fail.h"
#include "src/local.h"

/* ---- What one row adds ------------------------------------------------------------------------
 */

/* Of each row: the weighted squared residuals and, in a fit that the row is part of, its weight in
 * its own prediction; then their derivatives by log h. NaN where there is no prediction. */
typedef struct ledger {
    double *rows;              /* [n, 2 + 2 d], or [n, 2] without a gradient */
    ptrdiff_t n, every, width; /* n rows, one in `every` of the sample */
    double *norm;              /* [n] ||S_i||^2, or NULL */
    double *residual;          /* [n, d_y] squared and weighted, or NULL */
} ledger;

static void add_own_weight(const qkv_sweep *sweep, const qkv_local *l, ptrdiff_t i, double *row)
{
    const qkv_sample *s = l->s;
    const ledger *to = sweep->job;
    double *slope = l->slope, *by_log_h = l->slope + s->d;
    row[1] = l->w[i] * qkv_local_lambda(l, i);
    if (to->width == 2) return;
    for (ptrdiff_t c = 0; c < s->d; c++) {
        slope[c] = 0;
        for (ptrdiff_t b = 0; b < s->d && s->r->degree; b++)
            slope[c] +=
                l->inverse[c * s->d + b] * l->w[i] * (qkv_local_offset(l, i, b) - l->mean[b]);
    }
    sweep->kernels->differentiate(l, NULL, row[1], slope, NULL, by_log_h);
    for (ptrdiff_t c = 0; c < s->d; c++) row[2 + s->d + c] = by_log_h[c];
}

static void add_row(const qkv_sweep *sweep, const qkv_local *l, ptrdiff_t i)
{
    const qkv_sample *s = l->s;
    const ledger *to = sweep->job;
    double *row = to->rows + i / sweep->every * to->width, *by_log_h = l->slope + s->d,
           c_i = s->c ? s->c[i] : 1;
    for (ptrdiff_t c = 0; c < to->width; c++) row[c] = 0;
    for (ptrdiff_t k = 0; k < s->d_y; k++) {
        const double *y = s->y + k * s->stride;
        double m = sweep->kernels->predict(l, y, l->slope), error = m - y[i];
        row[0] += c_i * error * error;
        if (to->residual) to->residual[i / sweep->every * s->d_y + k] = c_i * error * error;
        if (to->width == 2) continue;
        sweep->kernels->differentiate(l, y, m, l->slope, NULL, by_log_h);
        for (ptrdiff_t c = 0; c < s->d; c++) row[2 + c] += 2 * c_i * error * by_log_h[c];
    }
    if (!sweep->leave_out) add_own_weight(sweep, l, i, row);
    if (to->norm) to->norm[i / sweep->every] = c_i * sweep->kernels->norms(l, NULL);
}

/* ---- The criteria ---------------------------------------------------------------------------- */

/* Sums over all rows, from those that were visited. */
typedef struct totals {
    double rss, trace, weight;
    ptrdiff_t undefined;
} totals;

static totals add_up(const qkv_sample *s, const ledger *from)
{
    totals t = {0};
    double share = (double)s->n / (double)from->n; /* rows that each stands for */
    for (ptrdiff_t i = 0; i < from->n; i++) {
        const double *row = from->rows + i * from->width;
        if (isnan(row[0])) {
            t.undefined++;
            continue;
        }
        t.rss += share * row[0];
        t.trace += share * row[1];
        t.weight += share * (s->c ? s->c[i * from->every] : 1);
    }
    return t;
}

/* The sum of column c over the rows that are defined. */
static double column_sum(const qkv_sample *s, const ledger *from, ptrdiff_t c)
{
    double sum = 0;
    for (ptrdiff_t i = 0; i < from->n; i++)
        if (!isnan(from->rows[i * from->width])) sum += from->rows[i * from->width + c];
    return sum * (double)s->n / (double)from->n;
}

/* The value, and its derivatives by the sum of squares and by the trace. */
static double value_of(qkv_regression_criterion criterion, const qkv_sample *s, const totals *t,
                       double *by_rss, double *by_trace)
{
    double n = (double)s->n, free = n - t->trace, left = free - 2;
    *by_trace = 0;
    switch (criterion) {
    case QKV_REGRESSION_AICC:
        *by_rss = 1 / t->rss;
        *by_trace = (2 * n - 2) / (left * left);
        if (!(left > 0) || t->rss == 0) return INFINITY;
        return log(t->rss / n / (double)s->d_y) + (n + t->trace) / left;
    case QKV_REGRESSION_GCV:
        *by_rss = n / (free * free);
        *by_trace = 2 * n * t->rss / (free * free * free);
        if (!(free > 1e-12 * n)) return INFINITY;
        return n * t->rss / (free * free);
    default:
        *by_rss = 1 / t->weight;
        return t->rss / t->weight;
    }
}

static void gradient_of(const qkv_sample *s, const ledger *from, double by_rss, double by_trace,
                        double *gradient)
{
    bool one = qkv_one_if_zero(s->r->bandwidths) == 1;
    for (ptrdiff_t c = 0; c < s->d; c++) {
        double g = by_rss * column_sum(s, from, 2 + c);
        if (by_trace != 0) g += by_trace * column_sum(s, from, 2 + s->d + c);
        gradient[one ? 0 : c] = (one && c ? gradient[0] : 0) + g;
    }
}

qkv_status qkv_sample_objective(const char *who, const qkv_sample *s,
                                qkv_regression_criterion criterion, ptrdiff_t every, double *value,
                                ptrdiff_t *undefined, double *gradient)
{
    ledger rows = {
        .n = (s->n + every - 1) / every, .every = every, .width = gradient ? 2 + 2 * s->d : 2};
    qkv_status status = qkv_regression_allocate(who, &rows.rows, rows.n, rows.width);
    if (status != QKV_OK) return status;
    qkv_sweep sweep = {.s = s,
                       .every = every,
                       .leave_out = criterion == QKV_REGRESSION_LOO,
                       .slopes = gradient != NULL,
                       .visit = add_row,
                       .job = &rows};
    status = qkv_sample_sweep(who, &sweep);
    if (status == QKV_OK) {
        double by_rss, by_trace;
        totals t = add_up(s, &rows);
        *value = value_of(criterion, s, &t, &by_rss, &by_trace);
        if (undefined) *undefined = t.undefined;
        if (gradient) gradient_of(s, &rows, by_rss, by_trace, gradient);
    }
    free(rows.rows);
    return status;
}

qkv_status qkv_regression_objective(const qkv_regression *r, qkv_regression_criterion criterion,
                                    const double *bandwidth, double *value, ptrdiff_t *undefined,
                                    double *gradient)
{
    if (!value) return qkv_fail(QKV_E_ARG, "%s: value is NULL", __func__);
    if ((unsigned)criterion > QKV_REGRESSION_GCV)
        return qkv_fail(QKV_E_ARG, "%s: %d is not a criterion", __func__, (int)criterion);
    qkv_sample s;
    ptrdiff_t rows_undefined = 0;
    qkv_status status = qkv_sample_take_pair(__func__, r, &s);
    if (status == QKV_OK) status = qkv_sample_widen(__func__, bandwidth, &s);
    if (status == QKV_OK)
        status = qkv_sample_objective(__func__, &s, criterion, s.every, value, &rows_undefined,
                                      gradient);
    qkv_sample_free(&s);
    if (undefined && status == QKV_OK) *undefined = rows_undefined;
    if (status == QKV_OK && rows_undefined && r->empty == QKV_EMPTY_ERROR)
        return qkv_fail(QKV_E_DOMAIN, "%s: %td of %td rows have no other in the kernel's support",
                        __func__, rows_undefined, r->n);
    return status;
}

/* ---- Statistics ------------------------------------------------------------------------------ */

/* The weighted sum of squares of column k of y about its mean. */
static double total_squares(const qkv_sample *s, ptrdiff_t k)
{
    const double *y = s->y + k * s->stride;
    double mean = 0, weight = 0, sum = 0;
    for (ptrdiff_t i = 0; i < s->n; i++) {
        double c = s->c ? s->c[i] : 1;
        weight += c;
        mean += (y[i] - mean) * (c / weight);
    }
    for (ptrdiff_t i = 0; i < s->n; i++)
        sum += (s->c ? s->c[i] : 1) * ((y[i] - mean) * (y[i] - mean));
    return sum;
}

static void measure_fit(const qkv_sample *s, const ledger *rows, qkv_regression_statistics *to,
                        double *sigma2)
{
    double unused, total = 0, n = (double)s->n, share = n / (double)rows->n;
    totals t = add_up(s, rows);
    to->rss = t.rss;
    to->trace = t.trace;
    to->aicc = value_of(QKV_REGRESSION_AICC, s, &t, &unused, &unused);
    to->gcv = value_of(QKV_REGRESSION_GCV, s, &t, &unused, &unused);
    to->trace_squared = 0;
    for (ptrdiff_t i = 0; i < rows->n; i++) to->trace_squared += share * rows->norm[i];
    double free = n - 2 * t.trace + to->trace_squared;
    if (!(free > 1e-12 * n)) free = NAN;
    to->sigma2 = t.rss / free / (double)s->d_y;
    for (ptrdiff_t k = 0; k < s->d_y; k++) {
        double rss = 0;
        for (ptrdiff_t i = 0; i < rows->n; i++) rss += share * rows->residual[i * s->d_y + k];
        if (sigma2) sigma2[k] = rss / free;
        total += total_squares(s, k);
    }
    to->r_squared = total > 0 ? 1 - t.rss / total : NAN;
    to->r_squared_loo = total; /* until measure_rest */
}

static void measure_rest(const qkv_sample *s, const ledger *rows, qkv_regression_statistics *to)
{
    totals t = add_up(s, rows);
    double total = to->r_squared_loo, unused;
    to->undefined = t.undefined;
    to->cv = value_of(QKV_REGRESSION_LOO, s, &t, &unused, &unused);
    to->r_squared_loo = total > 0 && !t.undefined ? 1 - t.rss / total : NAN;
}

static qkv_status measure(const char *who, const qkv_sample *s, qkv_regression_statistics *to,
                          double *sigma2)
{
    ledger rows = {.n = (s->n + s->every - 1) / s->every, .every = s->every, .width = 2};
    qkv_status status = qkv_regression_allocate(who, &rows.rows, rows.n, 3 + s->d_y);
    if (status != QKV_OK) return status;
    rows.norm = rows.rows + 2 * rows.n;
    rows.residual = rows.norm + rows.n;
    qkv_sweep sweep = {.s = s, .every = s->every, .visit = add_row, .job = &rows};
    status = qkv_sample_sweep(who, &sweep);
    if (status == QKV_OK) {
        measure_fit(s, &rows, to, sigma2);
        rows.norm = rows.residual = NULL;
        sweep.leave_out = true;
        status = qkv_sample_sweep(who, &sweep);
    }
    if (status == QKV_OK) measure_rest(s, &rows, to);
    free(rows.rows);
    return status;
}

qkv_status qkv_regression_measure(const qkv_regression *r, const double *bandwidth,
                                  qkv_regression_statistics *statistics, double *sigma2)
{
    if (!statistics) return qkv_fail(QKV_E_ARG, "%s: statistics is NULL", __func__);
    qkv_sample s;
    qkv_status status = qkv_sample_take_pair(__func__, r, &s);
    if (status == QKV_OK) status = qkv_sample_widen(__func__, bandwidth, &s);
    if (status == QKV_OK) {
        *statistics = (qkv_regression_statistics){.n = s.n, .missing = s.missing};
        status = measure(__func__, &s, statistics, sigma2);
    }
    qkv_sample_free(&s);
    return status;
}
