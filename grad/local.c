/* local.c - how the prediction at one query changes with the query and with the bandwidths: forward
 * mode, since a handful of bandwidths and columns stand against n rows.
 *
 * The prediction is a weighted least-squares fit, whose derivative by the weight of row j is
 * lambda_j times that row's residual. Since sum w lambda (y - fit) = 0, a multiple of w may be
 * taken from the derivative of w: what all rows have in common cancels before it is multiplied by
 * 1 / h. */
#include <math.h>

#include "src/tile.h"

#include "src/local.h"

#if QKV_REAL == 64 /* regression has no float */

/* A column of x, and what is taken from the derivatives of the weights there. */
typedef struct column {
    const double *x, *t; /* t NULL: the Gaussian's */
    double q, near, by_q, by_log_h;
    double factor; /* of both sums */
} column;

static column column_of(const qkv_local *l, ptrdiff_t c)
{
    const qkv_sample *s = l->s;
    column a = {.x = s->x + c * s->stride, .q = l->q[c], .factor = s->ratio[c] / s->least};
    a.near = a.x[l->near];
    if (s->r->kernel == QKV_REGRESSION_GAUSSIAN) return a;
    a.t = l->t + (s->r->product ? c * s->stride : 0);
    if (s->r->kernel == QKV_REGRESSION_LAPLACE || s->r->kernel == QKV_REGRESSION_CAUCHY) {
        double common = a.t[l->near] / l->w[l->near];
        a.by_q = common * (a.q - a.near);
        a.by_log_h = a.by_q * (a.q - a.near);
    }
    return a;
}

INLINE vec by_query(const qkv_local *l, const column *a, ptrdiff_t j)
{
    vec w = load_any(l->w + j), x = load_any(a->x + j);
    return a->t ? load_any(a->t + j) * (a->q - x) - w * a->by_q : w * (a->near - x);
}

INLINE vec by_log_bandwidth(const qkv_local *l, const column *a, ptrdiff_t j)
{
    vec w = load_any(l->w + j), x = load_any(a->x + j), rest = a->q - x;
    if (a->t) return load_any(a->t + j) * rest * rest - w * a->by_log_h;
    return w * ((a->near - x) * (rest + (a->q - a->near)));
}

/* lambda and the residual of rows j on. */
INLINE vec lambda_of(const qkv_local *l, ptrdiff_t j)
{
    const qkv_sample *s = l->s;
    vec lambda = splat(1 / l->sum);
    for (ptrdiff_t c = 0; c < s->d && s->r->degree; c++) {
        const double *x = s->x + c * s->stride;
        lambda += l->lean[c] * ((load_any(x + j) - x[l->base]) - l->mean[c]);
    }
    return lambda;
}

INLINE vec residual_of(const qkv_local *l, const double *y, double mean, const double *slope,
                       ptrdiff_t j)
{
    const qkv_sample *s = l->s;
    vec r = (y ? load_any(y + j) : splat(0)) - mean;
    for (ptrdiff_t c = 0; c < s->d && s->r->degree; c++) {
        const double *x = s->x + c * s->stride;
        r -= slope[c] * ((load_any(x + j) - x[l->base]) - l->mean[c]);
    }
    return r;
}

/* The Gaussian's w / least is divided late: w may be 0 where 1 / least^2 is infinite. */
static double finish(const qkv_local *l, const column *a, vec sum)
{
    double x = sum_of_lanes(sum) * a->factor;
    return a->t ? x : x / l->s->least;
}

void IN(qkv_local_differentiate)(const qkv_local *l, const double *y, double m, const double *slope,
                                 double *by_q, double *by_log_h)
{
    const qkv_sample *s = l->s;
    double mean = m; /* of the line at the mean of x */
    for (ptrdiff_t c = 0; c < s->d && s->r->degree; c++)
        mean -= slope[c] * (l->q[c] - s->x[c * s->stride + l->base] - l->mean[c]);
    for (ptrdiff_t c = 0; c < s->d; c++) {
        const column a = column_of(l, c);
        vec q = splat(0), h = splat(0);
        for (ptrdiff_t j = l->from; j < l->to; j += QKV_VEC) {
            vec r = lambda_of(l, j) * residual_of(l, y, mean, slope, j);
            q -= by_query(l, &a, j) * r;
            h += by_log_bandwidth(l, &a, j) * r;
        }
        if (by_q) by_q[c] = finish(l, &a, q);
        if (by_log_h) by_log_h[c] = finish(l, &a, h);
    }
}

/* The squares of the weights of the gradient's column c. */
static double gradient_norm(const qkv_local *l, ptrdiff_t c)
{
    const qkv_sample *s = l->s;
    const column a = column_of(l, c);
    vec total = splat(0), squares = splat(0);
    for (ptrdiff_t j = l->from; j < l->to; j += QKV_VEC) total += by_query(l, &a, j);
    double common = sum_of_lanes(total) / l->sum;
    for (ptrdiff_t j = l->from; j < l->to; j += QKV_VEC) {
        vec g = by_query(l, &a, j) - load_any(l->w + j) * common;
        g *= a.factor / l->sum; /* before it is squared */
        if (!a.t) g /= s->least;
        squares += s->c ? g * (g / load_any(s->c + j)) : g * g;
    }
    return sum_of_lanes(squares);
}

/* The same of the slope of a line. */
static double slope_norm(const qkv_local *l, ptrdiff_t c)
{
    const qkv_sample *s = l->s;
    vec squares = splat(0);
    for (ptrdiff_t j = l->from; j < l->to; j += QKV_VEC) {
        vec g = splat(0);
        for (ptrdiff_t b = 0; b < s->d; b++) {
            const double *x = s->x + b * s->stride;
            g += l->inverse[c * s->d + b] * ((load_any(x + j) - x[l->base]) - l->mean[b]);
        }
        g *= load_any(l->w + j);
        squares += s->c ? g * (g / load_any(s->c + j)) : g * g;
    }
    return sum_of_lanes(squares);
}

double IN(qkv_local_norms)(const qkv_local *l, double *gradient)
{
    const qkv_sample *s = l->s;
    for (ptrdiff_t c = 0; c < s->d && gradient; c++)
        gradient[c] = s->r->degree ? slope_norm(l, c) : gradient_norm(l, c);
    if (s->r->degree == 0) return l->squares / l->sum / l->sum;
    vec squares = splat(0);
    for (ptrdiff_t j = l->from; j < l->to; j += QKV_VEC) {
        vec w = load_any(l->w + j) * lambda_of(l, j);
        squares += s->c ? w * (w / load_any(s->c + j)) : w * w;
    }
    return sum_of_lanes(squares);
}

const qkv_local_kernels IN(qkv_local_kernels) = {.weigh = IN(qkv_local_weigh),
                                                 .predict = IN(qkv_local_predict),
                                                 .differentiate = IN(qkv_local_differentiate),
                                                 .norms = IN(qkv_local_norms)};
#endif
