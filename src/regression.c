#include "regression.h"

#include <math.h>
#include <stdlib.h>

#include "fail.h"
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
    if ((unsigned)r->kernel > QKV_REGRESSION_CONSTANT)
        return qkv_fail(QKV_E_ARG, "%s: %d is not a kernel", function, (int)r->kernel);
    return QKV_OK;
}

static qkv_status check_bandwidth(const char *function, const qkv_regression *r, const double *h)
{
    if (!h) return qkv_fail(QKV_E_ARG, "%s: bandwidth is NULL", function);
    for (ptrdiff_t c = 0; c < qkv_one_if_zero(r->bandwidths); c++)
        if (!(h[c] > 0 && isfinite(h[c])))
            return qkv_fail(QKV_E_ARG, "%s: bandwidth[%td] is %g, expected a finite number > 0",
                            function, c, h[c]);
    return QKV_OK;
}

/* The Gaussian is a softmax over -u^2/2; the other kernels are sums over the same distance u. */
static void choose_kernel(qkv_attention *a, qkv_regression_kernel kernel)
{
    static const qkv_kernel kernels[] = {
        [QKV_REGRESSION_BOXCAR] = QKV_KERNEL_BOXCAR,
        [QKV_REGRESSION_TRIANGULAR] = QKV_KERNEL_TRIANGULAR,
        [QKV_REGRESSION_EPANECHNIKOV] = QKV_KERNEL_EPANECHNIKOV,
        [QKV_REGRESSION_CONSTANT] = QKV_KERNEL_CONSTANT,
    };
    a->score = QKV_SCORE_GAUSSIAN;
    a->normalize = kernel == QKV_REGRESSION_GAUSSIAN ? QKV_SOFTMAX : QKV_KERNEL_SUM;
    if (a->normalize == QKV_KERNEL_SUM) a->kernel = kernels[kernel];
}

qkv_status qkv_regression_pose(qkv_regression_problem *p, const char *function,
                               const qkv_regression *r, const double *bandwidth, const double *q,
                               ptrdiff_t n_q)
{
    qkv_status status = qkv_regression_check(function, r);
    if (status == QKV_OK) status = check_bandwidth(function, r, bandwidth);
    if (status != QKV_OK) return status;
    if (n_q < 0) return qkv_fail(QKV_E_SHAPE, "%s: n_q is %td, expected >= 0", function, n_q);
    bool leave_one_out = q == NULL;
    if (leave_one_out && r->n < 2)
        return qkv_fail(QKV_E_SHAPE, "%s: n is 1, expected >= 2 to leave one out", function);

    *p = (qkv_regression_problem){
        .a = {.batch = 1,
              .heads = 1,
              .n_q = leave_one_out ? r->n : n_q,
              .n_k = r->n,
              .d_k = qkv_one_if_zero(r->d_x),
              .d_v = qkv_one_if_zero(r->d_y),
              .bandwidths = r->bandwidths,
              .empty = r->empty,
              .mask.leave_one_out = leave_one_out},
        /* Operands are never written. */
        .in = {.q.data = (double *)(leave_one_out ? r->x : q),
               .k.data = (double *)r->x,
               .v.data = (double *)r->y,
               .bandwidth.data = (double *)bandwidth},
    };
    choose_kernel(&p->a, r->kernel);
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

qkv_status qkv_regression_forward(const char *function, const qkv_regression_problem *p,
                                  const qkv_results_f64 *out)
{
    size_t bytes;
    qkv_status status = qkv_attention_workspace(&p->a, QKV_FORWARD, QKV_F64, &bytes);
    if (status != QKV_OK) return status;
    void *workspace = malloc(bytes ? bytes : 1);
    if (!workspace) return qkv_fail(QKV_E_NOMEM, "%s: no memory for %zu bytes", function, bytes);
    status = qkv_attention_forward_f64(&p->a, &p->in, out, workspace, bytes);
    free(workspace);
    return status;
}

qkv_status qkv_regression_predict(const qkv_regression *r, const double *bandwidth, const double *q,
                                  ptrdiff_t n_q, double *mean, double *weights)
{
    qkv_regression_problem p;
    if (n_q == 0) return qkv_regression_check(__func__, r);
    if (!q || !mean) return qkv_fail(QKV_E_ARG, "%s: %s is NULL", __func__, q ? "mean" : "q");
    qkv_status status = qkv_regression_pose(&p, __func__, r, bandwidth, q, n_q);
    if (status != QKV_OK) return status;
    return qkv_regression_forward(__func__, &p,
                                  &(qkv_results_f64){.o.data = mean, .weights.data = weights});
}

qkv_status qkv_regression_leave_one_out(const qkv_regression *r, const double *bandwidth,
                                        double *mean)
{
    qkv_regression_problem p;
    if (!mean) return qkv_fail(QKV_E_ARG, "%s: mean is NULL", __func__);
    qkv_status status = qkv_regression_pose(&p, __func__, r, bandwidth, NULL, 0);
    if (status != QKV_OK) return status;
    return qkv_regression_forward(__func__, &p, &(qkv_results_f64){.o.data = mean});
}

double qkv_regression_cv_of(const qkv_regression *r, const double *mean, ptrdiff_t *undefined)
{
    ptrdiff_t d_y = qkv_one_if_zero(r->d_y);
    double sum = 0;
    *undefined = 0;
    for (ptrdiff_t i = 0; i < r->n; i++) {
        const double *m = mean + i * d_y, *y = r->y + i * d_y;
        if (isnan(m[0])) {
            ++*undefined;
            continue;
        }
        for (ptrdiff_t c = 0; c < d_y; c++) sum += (y[c] - m[c]) * (y[c] - m[c]);
    }
    return sum / (double)(r->n - *undefined);
}

qkv_status qkv_regression_cv(const qkv_regression *r, const double *bandwidth, double *cv,
                             ptrdiff_t *undefined)
{
    if (!cv) return qkv_fail(QKV_E_ARG, "%s: cv is NULL", __func__);
    double *mean = NULL;
    ptrdiff_t rows_undefined = 0;
    qkv_status status = qkv_regression_check(__func__, r);
    if (status == QKV_OK)
        status = qkv_regression_allocate(__func__, &mean, r->n, qkv_one_if_zero(r->d_y));
    if (status == QKV_OK) status = qkv_regression_leave_one_out(r, bandwidth, mean);
    if (status == QKV_OK) {
        *cv = qkv_regression_cv_of(r, mean, &rows_undefined);
        if (undefined) *undefined = rows_undefined;
    }
    free(mean);
    return status;
}
