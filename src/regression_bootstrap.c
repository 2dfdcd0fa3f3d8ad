/* regression_bootstrap.c - bands by resampling rows. A resample is the same rows with other case
 * weights: how often each was drawn. */
#include <math.h>
#include <stdlib.h>

#include "fail.h"
#include "order.h"
#include "random.h"
#include "regression.h"
#include "size.h"

static const char who[] = "qkv_regression_bootstrap";

typedef struct bootstrap {
    const qkv_regression *r;
    const double *bandwidth, *q;
    ptrdiff_t n_q, samples;
    uint64_t seed;
    ptrdiff_t *row; /* [complete] the rows that can be drawn */
    ptrdiff_t complete;
    double *weight; /* [n] of the present sample */
    ptrdiff_t size; /* n_q d_y */
    double *mean;   /* [samples, size] */
} bootstrap;

static bool all_numbers(const double *x, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++)
        if (isnan(x[i])) return false;
    return true;
}

/* Rows that a prediction leaves out cannot be drawn either. */
static void find_rows(bootstrap *b)
{
    const qkv_regression *r = b->r;
    ptrdiff_t d_x = qkv_one_if_zero(r->d_x), d_y = qkv_one_if_zero(r->d_y);
    for (ptrdiff_t i = 0; i < r->n; i++)
        if (all_numbers(r->x + i * d_x, d_x) && all_numbers(r->y + i * d_y, d_y) &&
            (!r->weight || r->weight[i] > 0))
            b->row[b->complete++] = i;
}

static void draw(bootstrap *b, ptrdiff_t sample)
{
    const ptrdiff_t n = b->r->n, last = b->complete - 1;
    for (ptrdiff_t i = 0; i < n; i++) b->weight[i] = 0;
    for (ptrdiff_t i = 0; i < b->complete; i++) {
        double u = qkv_random_uniform(b->seed, (uint64_t)sample, (uint64_t)i);
        ptrdiff_t place = (ptrdiff_t)(u * (double)b->complete);
        b->weight[b->row[place < last ? place : last]]++; /* u may round to 1 */
    }
    for (ptrdiff_t i = 0; b->r->weight && i < n; i++)
        if (b->weight[i] > 0) b->weight[i] *= b->r->weight[i];
}

/* Errors are those of all rows: a sample may lack the row that is wrong, or, under QKV_EMPTY_ERROR,
 * those that a query has in reach. */
static qkv_status check_data(bootstrap *b)
{
    qkv_regression_results out = {.mean = b->mean};
    return qkv_regression_predict(b->r, b->bandwidth, b->q, b->n_q, &out);
}

static qkv_status predict_all(bootstrap *b, const qkv_regression_bootstrap_options *o)
{
    qkv_regression r = *b->r;
    r.weight = b->weight;
    if (r.empty == QKV_EMPTY_ERROR) r.empty = QKV_EMPTY_NAN;
    for (ptrdiff_t s = 0; s < b->samples; s++) {
        draw(b, s);
        qkv_regression_results out = {.mean = b->mean + s * b->size};
        qkv_status status = qkv_regression_predict(&r, b->bandwidth, b->q, b->n_q, &out);
        if (status != QKV_OK) return status;
        if (o->observe && !o->observe(o->context, s + 1, b->samples))
            return qkv_fail(QKV_E_STATE, "%s: ended by observe after %td of %td samples", who,
                            s + 1, b->samples);
    }
    return QKV_OK;
}

/* column: room for a number of each sample. */
static void find_band(const bootstrap *b, double level, double *column, double *lower,
                      double *upper)
{
    for (ptrdiff_t i = 0; i < b->size; i++) {
        ptrdiff_t n = 0;
        for (ptrdiff_t s = 0; s < b->samples; s++) {
            double mean = b->mean[s * b->size + i];
            if (!isnan(mean)) column[n++] = mean;
        }
        qkv_sort(column, n);
        lower[i] = n ? qkv_quantile(column, n, (1 - level) / 2) : NAN;
        upper[i] = n ? qkv_quantile(column, n, (1 + level) / 2) : NAN;
    }
}

static qkv_status allocate(bootstrap *b, double **column)
{
    size_t size = 1;
    ptrdiff_t d_y = qkv_one_if_zero(b->r->d_y);
    if (!qkv_size_mul(&size, b->n_q) || !qkv_size_mul(&size, d_y) || size > PTRDIFF_MAX)
        return qkv_fail(QKV_E_OVERFLOW, "%s: n_q d_y = %td x %td exceeds SIZE_MAX", who, b->n_q,
                        d_y);
    b->size = (ptrdiff_t)size;
    qkv_status status = qkv_regression_allocate(who, &b->mean, b->samples, b->size);
    if (status == QKV_OK) status = qkv_regression_allocate(who, &b->weight, b->r->n, 1);
    if (status == QKV_OK) status = qkv_regression_allocate(who, column, b->samples, 1);
    if (status != QKV_OK) return status;
    b->row = malloc((size_t)b->r->n * sizeof *b->row);
    return b->row ? QKV_OK : qkv_fail(QKV_E_NOMEM, "%s: no memory for %td rows", who, b->r->n);
}

static qkv_status check_options(const bootstrap *b, const qkv_regression_bootstrap_options *o)
{
    if (o->samples < 0)
        return qkv_fail(QKV_E_ARG, "%s: samples is %td, expected 0 or more", who, o->samples);
    if (!(o->level >= 0 && o->level < 1))
        return qkv_fail(QKV_E_ARG, "%s: level is %g, expected 0 < level < 1, or 0", who, o->level);
    if (b->n_q < 0) return qkv_fail(QKV_E_SHAPE, "%s: n_q is %td, expected >= 0", who, b->n_q);
    return QKV_OK;
}

qkv_status qkv_regression_bootstrap(const qkv_regression *r, const double *bandwidth,
                                    const double *q, ptrdiff_t n_q,
                                    const qkv_regression_bootstrap_options *options, double *lower,
                                    double *upper)
{
    const qkv_regression_bootstrap_options defaults = {0}, *o = options ? options : &defaults;
    bootstrap b = {.r = r,
                   .bandwidth = bandwidth,
                   .q = q,
                   .n_q = n_q,
                   .samples = o->samples ? o->samples : 1000,
                   .seed = o->seed};
    double *column = NULL;
    qkv_status status = qkv_regression_check(who, r);
    if (status == QKV_OK) status = check_options(&b, o);
    if (status != QKV_OK || n_q == 0) return status;
    if (!q || !lower || !upper)
        return qkv_fail(QKV_E_ARG, "%s: %s is NULL", who, !q ? "q" : !lower ? "lower" : "upper");
    status = allocate(&b, &column);
    if (status == QKV_OK) status = check_data(&b);
    if (status == QKV_OK) {
        find_rows(&b);
        status = predict_all(&b, o);
    }
    if (status == QKV_OK) find_band(&b, o->level > 0 ? o->level : 0.95, column, lower, upper);
    free(b.row);
    free(b.weight);
    free(b.mean);
    free(column);
    return status;
}
