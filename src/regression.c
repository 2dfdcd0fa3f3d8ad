/* regression.c - predictions: the fit at every query, and what is wanted of it. */
#include "regression.h"

#include <math.h>
#include <stdlib.h>

#include "fail.h"
#include "local.h"
#include "size.h"

qkv_status qkv_regression_check(const char *function, const qkv_regression *r)
{
    if (!r) return qkv_fail(QKV_E_ARG, "%s: r is NULL", function);
    if (r->n < 1 || r->d_x < 0 || r->d_y < 0)
        return qkv_fail(QKV_E_SHAPE,
                        "%s: n, d_x, d_y are %td, %td, %td, expected n >= 1 and others >= 0",
                        function, r->n, r->d_x, r->d_y);
    if (!r->x || !r->y) return qkv_fail(QKV_E_ARG, "%s: %s is NULL", function, r->x ? "y" : "x");
    if (r->bandwidths != 0 && r->bandwidths != 1 && r->bandwidths != r->d_x)
        return qkv_fail(QKV_E_SHAPE, "%s: bandwidths is %td, expected 0, 1 or d_x = %td", function,
                        r->bandwidths, r->d_x);
    if (r->rows < 0)
        return qkv_fail(QKV_E_SHAPE, "%s: rows is %td, expected >= 0", function, r->rows);
    if (r->degree != 0 && r->degree != 1)
        return qkv_fail(QKV_E_SHAPE, "%s: degree is %d, expected 0 or 1", function, r->degree);
    if ((unsigned)r->kernel > QKV_REGRESSION_CONSTANT)
        return qkv_fail(QKV_E_ARG, "%s: %d is not a kernel", function, (int)r->kernel);
    if ((unsigned)r->empty > QKV_EMPTY_ERROR)
        return qkv_fail(QKV_E_ARG, "%s: %d is no policy for empty supports", function,
                        (int)r->empty);
    return QKV_OK;
}

qkv_status qkv_regression_allocate(const char *function, double **x, ptrdiff_t rows,
                                   ptrdiff_t columns)
{
    size_t bytes = sizeof(double);
    if (!qkv_size_mul(&bytes, rows) || !qkv_size_mul(&bytes, columns))
        return qkv_fail(QKV_E_OVERFLOW, "%s: %td rows of %td numbers exceed SIZE_MAX", function,
                        rows, columns);
    *x = malloc(bytes ? bytes : 1);
    if (!*x) return qkv_fail(QKV_E_NOMEM, "%s: no memory for %zu bytes", function, bytes);
    return QKV_OK;
}

/* ---- One query ------------------------------------------------------------------------------- */

static void write_weights(const qkv_local *l, double *weights)
{
    const qkv_sample *s = l->s;
    for (ptrdiff_t j = 0; j < s->r->n; j++) weights[j] = isnan(l->sum) || l->sum == 0 ? NAN : 0;
    for (ptrdiff_t j = l->from; j < l->to; j++)
        weights[s->row[j]] = l->w[j] * qkv_local_lambda(l, j);
}

static void write_fits(const qkv_sweep *sweep, const qkv_local *l, ptrdiff_t i)
{
    const qkv_sample *s = l->s;
    const qkv_regression_results *out = sweep->job;
    for (ptrdiff_t k = 0; k < s->d_y && (out->mean || out->gradient); k++) {
        const double *y = s->y + k * s->stride;
        double m = sweep->kernels->predict(l, y, l->slope), *by_q = l->slope + s->d;
        if (out->mean) out->mean[i * s->d_y + k] = m;
        if (!out->gradient) continue;
        if (s->r->degree == 0) sweep->kernels->differentiate(l, y, m, l->slope, by_q, NULL);
        double *to = out->gradient + (i * s->d_y + k) * s->d;
        for (ptrdiff_t c = 0; c < s->d; c++) {
            double slope = s->r->degree == 0 ? by_q[c] : l->slope[c];
            to[c] = l->sum > 0 ? ldexp(slope, -s->exponent[c]) : NAN;
        }
    }
}

static void write_norms(const qkv_sweep *sweep, const qkv_local *l, ptrdiff_t i)
{
    const qkv_regression_results *out = sweep->job;
    double *gradient = out->gradient_norm ? out->gradient_norm + i * l->s->d : NULL;
    double norm = sqrt(sweep->kernels->norms(l, gradient));
    if (!(l->sum > 0)) norm = NAN;
    if (out->norm) out->norm[i] = norm;
    for (ptrdiff_t c = 0; c < l->s->d && gradient; c++)
        gradient[c] = l->sum > 0 ? ldexp(sqrt(gradient[c]), -l->s->exponent[c]) : NAN;
}

static void write_all(const qkv_sweep *sweep, const qkv_local *l, ptrdiff_t i)
{
    qkv_regression_results *out = sweep->job;
    if (!sweep->q) i = l->s->row[i];
    write_fits(sweep, l, i);
    if (out->weights) write_weights(l, out->weights + i * l->s->r->n);
    if (out->norm || out->gradient_norm) write_norms(sweep, l, i);
    if (out->n_effective) out->n_effective[i] = l->sum / l->squares * l->sum;
    if (l->empty) __atomic_fetch_add(&out->empty, 1, __ATOMIC_RELAXED);
}

/* What a row that is missing has. */
static void write_missing(const qkv_sample *s, const qkv_regression_results *out)
{
    const struct {
        double *to;
        ptrdiff_t columns;
    } all[] = {{out->mean, s->d_y}, {out->gradient, s->d_y * s->d}, {out->weights, s->r->n},
               {out->norm, 1},      {out->gradient_norm, s->d},     {out->n_effective, 1}};
    for (size_t a = 0; a < sizeof all / sizeof *all; a++)
        for (ptrdiff_t i = 0; i < s->r->n && all[a].to; i++)
            for (ptrdiff_t c = 0; c < all[a].columns && s->place[i] < 0; c++)
                all[a].to[i * all[a].columns + c] = NAN;
}

qkv_status qkv_regression_predict(const qkv_regression *r, const double *bandwidth, const double *q,
                                  ptrdiff_t n_q, qkv_regression_results *out)
{
    if (!out) return qkv_fail(QKV_E_ARG, "%s: out is NULL", __func__);
    if (q && n_q < 0) return qkv_fail(QKV_E_SHAPE, "%s: n_q is %td, expected >= 0", __func__, n_q);
    qkv_sample s;
    out->empty = 0;
    qkv_status status =
        q ? qkv_sample_take(__func__, r, &s) : qkv_sample_take_pair(__func__, r, &s);
    if (status == QKV_OK) status = qkv_sample_widen(__func__, bandwidth, &s);
    qkv_sweep sweep = {.s = &s,
                       .q = q,
                       .n = n_q,
                       .leave_out = !q,
                       .slopes = out->gradient || out->gradient_norm,
                       .visit = write_all,
                       .job = out};
    if (status == QKV_OK) status = qkv_sample_sweep(__func__, &sweep);
    if (status == QKV_OK && !q) write_missing(&s, out);
    qkv_sample_free(&s);
    if (status == QKV_OK && out->empty && r->empty == QKV_EMPTY_ERROR)
        return qkv_fail(QKV_E_DOMAIN,
                        "%s: %td of %td queries have no row in the kernel's support (a larger "
                        "bandwidth?)",
                        __func__, out->empty, sweep.n);
    return status;
}
