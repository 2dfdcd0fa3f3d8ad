/* local.c - the weights of the rows within reach of one query, and the mean or line they make. */
#include <float.h>
#include <math.h>

#include "simd/exp.h"
#include "tile.h"

#include "local.h"

#if QKV_REAL == 64 /* regression has no float */

static const double FEW_ROUNDINGS = 0x1p-50; /* four of a number near 1 */
static const double FAR_EXPONENT = 30;       /* of a row that is so much nearer, a new reference */

/* (q - x_j)^2 - (q - x_near)^2 in column c, without the difference of large squares. */
INLINE double excess(const qkv_local *l, ptrdiff_t j, ptrdiff_t c)
{
    const double *x = l->s->x + c * l->s->stride, q = l->q[c];
    return (x[l->near] - x[j]) * ((q - x[j]) + (q - x[l->near]));
}

static double excesses(const qkv_local *l, ptrdiff_t j)
{
    double sum = 0;
    for (ptrdiff_t c = 0; c < l->s->d; c++) sum += l->s->ratio[c] * excess(l, j, c);
    return sum;
}

/* || (q - x_j) least / h ||, in units of x. */
static double distance(const qkv_local *l, ptrdiff_t j)
{
    const qkv_sample *s = l->s;
    double sum = 0;
    if (s->d == 1) return fabs(l->q[0] - s->x[j]);
    for (ptrdiff_t c = 0; c < s->d; c++)
        sum = hypot(sum, (l->q[c] - s->x[c * s->stride + j]) * (s->least / s->h[c]));
    return sum;
}

/* ---- The window ------------------------------------------------------------------------------ */

/* The first row whose first column is not less than x. */
static ptrdiff_t first_from(const qkv_sample *s, double x)
{
    ptrdiff_t low = 0, high = s->n;
    while (low < high) {
        ptrdiff_t middle = low + (high - low) / 2;
        if (s->x[middle] < x)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Of a few neighbours in the first column the nearest: with one column, of all rows. */
static void find_near(qkv_local *l)
{
    const qkv_sample *s = l->s;
    ptrdiff_t at = first_from(s, l->q[0]), few = s->d == 1 ? 2 : 32;
    ptrdiff_t low = at - few < 0 ? 0 : at - few, high = at + few > s->n ? s->n : at + few;
    l->near = -1;
    for (ptrdiff_t j = low; j < high; j++)
        if (j != l->self && (l->near < 0 || excesses(l, j) < 0)) l->near = j;
}

/* - log of a weight beside near's that makes no difference: all those together are less than half a
 * rounding of it. */
static double negligible(const qkv_sample *s)
{
    return log((double)s->n) + s->spread + 53 * log(2);
}

static const double LEAST_EXPONENT = 744; /* - log of the least positive double */

/* How far from q, in the first column, a row may lie whose weight is not so small beside that of
 * row j. */
static double reach(const qkv_local *l, ptrdiff_t j, double small)
{
    const qkv_sample *s = l->s;
    double d = distance(l, j), h = s->h[0];
    switch (s->r->kernel) {
    case QKV_REGRESSION_GAUSSIAN:
        return hypot(d * (h / s->least), h * sqrt(2 * small));
    case QKV_REGRESSION_LAPLACE:
        if (s->r->product) /* its distance is the sum of those in the columns, at most so much */
            return (d * (h / s->least)) * sqrt((double)s->d) + h * small;
        return d * (h / s->least) + h * small;
    case QKV_REGRESSION_CAUCHY:
    case QKV_REGRESSION_CONSTANT:
        return INFINITY;
    default:
        return h;
    }
}

static void find_window(qkv_local *l, double small)
{
    const qkv_sample *s = l->s;
    double far = reach(l, l->second < 0 ? l->near : l->second, small), q = l->q[0];
    far += 2 * FEW_ROUNDINGS * (far + fabs(q));
    l->from = first_from(s, q - far);
    l->to = first_from(s, nextafter(q + far, INFINITY));
}

/* ---- Weights relative to the nearest row's ----------------------------------------------------
 */

/* excesses of all rows in the window into w. */
static void all_excesses(qkv_local *l)
{
    const qkv_sample *s = l->s;
    for (ptrdiff_t c = 0; c < s->d; c++) {
        const double *x = s->x + c * s->stride;
        vec q = splat(l->q[c]), near = splat(x[l->near]), ratio = splat(s->ratio[c]);
        vec rest = q - near;
        for (ptrdiff_t j = l->from; j < l->to; j += QKV_VEC) {
            vec xj = load_any(x + j), e = ratio * ((near - xj) * ((q - xj) + rest));
            store_any(l->w + j, c ? load_any(l->w + j) + e : e);
        }
    }
}

/* log w, of a Gaussian. */
static void gaussian_exponents(qkv_local *l)
{
    double inverse = 1 / l->s->least;
    all_excesses(l);
    for (ptrdiff_t j = l->from; j < l->to; j += QKV_VEC)
        store_any(l->w + j, load_any(l->w + j) * inverse * (-0.5 * inverse));
}

/* -u + u_near = -(u^2 - u_near^2) / (u + u_near), the distances left in part. */
static void laplace_exponents(qkv_local *l)
{
    const qkv_sample *s = l->s;
    double near = distance(l, l->near), inverse = 1 / s->least;
    all_excesses(l);
    for (ptrdiff_t j = l->from; j < l->to; j++) {
        l->part[j] = distance(l, j);
        double sum = l->part[j] + near;
        l->w[j] = sum > 0 ? -(l->w[j] / sum) * inverse : 0;
    }
}

/* The sum over columns of the differences of -|q - x| / h. */
static void product_laplace_exponents(qkv_local *l)
{
    const qkv_sample *s = l->s;
    for (ptrdiff_t c = 0; c < s->d; c++) {
        const double *x = s->x + c * s->stride, q = l->q[c], h = s->h[c];
        double near = fabs(q - x[l->near]);
        for (ptrdiff_t j = l->from; j < l->to; j++)
            l->w[j] = (c ? l->w[j] : 0) + (near - fabs(q - x[j])) / h;
    }
}

/* log(1 + u^2), also where u^2 is beyond double. */
static double log_cauchy(double u)
{
    return u < 1e100 ? log1p(u * u) : 2 * log(u);
}

static void product_cauchy_exponents(qkv_local *l)
{
    const qkv_sample *s = l->s;
    for (ptrdiff_t c = 0; c < s->d; c++) {
        const double *x = s->x + c * s->stride, q = l->q[c], h = s->h[c];
        double near = log_cauchy(fabs(q - x[l->near]) / h);
        for (ptrdiff_t j = l->from; j < l->to; j++)
            l->w[j] = (c ? l->w[j] : 0) + near - log_cauchy(fabs(q - x[j]) / h);
    }
}

/* The row of the largest exponent. */
static ptrdiff_t largest(const qkv_local *l)
{
    ptrdiff_t best = l->from;
    for (ptrdiff_t j = l->from + 1; j < l->to; j++)
        if (l->w[j] > l->w[best]) best = j;
    return best;
}

/* - log w of row j over that of row i, of one column. */
static double falls(const qkv_local *l, ptrdiff_t i, ptrdiff_t j)
{
    const double *x = l->s->x, q = l->q[0], inverse = 1 / l->s->least;
    if (l->s->r->kernel == QKV_REGRESSION_LAPLACE)
        return (fabs(q - x[j]) - fabs(q - x[i])) * inverse;
    return (x[i] - x[j]) * ((q - x[j]) + (q - x[i])) * inverse * (0.5 * inverse);
}

static const double LEAST_RAISED =
    300; /* - log: e^-300 is nothing beside 1, its squares are numbers */

/* Far from the data, or with a narrow kernel, all rows but those at the nearest x may have weights
 * beyond double. The mean does not miss them, but the slope of a line hangs on their ratios: the
 * heaviest of them is then l->second. -1: it is not so. */
static void find_second(qkv_local *l)
{
    const qkv_sample *s = l->s;
    bool tail = s->r->kernel == QKV_REGRESSION_GAUSSIAN || s->r->kernel == QKV_REGRESSION_LAPLACE;
    l->second = -1;
    if (s->d > 1 || !tail || LEAST_RAISED + s->spread > LEAST_EXPONENT) return;
    const double x = s->x[l->near];
    ptrdiff_t below = first_from(s, x) - 1, above = first_from(s, nextafter(x, INFINITY));
    below -= below == l->self && below >= 0;
    above += above == l->self;
    if (below >= 0) l->second = below;
    if (above < s->n && (below < 0 || falls(l, below, above) < 0)) l->second = above;
    if (l->second >= 0 && falls(l, l->near, l->second) <= LEAST_RAISED + s->spread) l->second = -1;
}

/* The exponents of all but the rows nearest to q grow alike, until the largest is a number. */
static void raise(qkv_local *l)
{
    const qkv_sample *s = l->s;
    for (ptrdiff_t j = l->from; j < l->to; j++)
        if (s->x[j] < s->x[l->near] || s->x[j] > s->x[l->near])
            l->w[j] = -LEAST_RAISED - s->spread - falls(l, l->second, j);
}

/* w = exp of exponents(l), from a reference that is not much farther than the nearest row: the
 * first was only one of a few. */
static void exponential(qkv_local *l, void (*exponents)(qkv_local *l))
{
    for (int attempt = 0; attempt < 2; attempt++) {
        exponents(l);
        if (l->second >= 0) raise(l);
        if (l->self >= l->from && l->self < l->to) l->w[l->self] = -INFINITY;
        vec most = splat(-INFINITY);
        for (ptrdiff_t j = l->from; j + QKV_VEC <= l->to; j += QKV_VEC)
            most = larger(load_any(l->w + j), most);
        double top = -INFINITY;
        for (int i = 0; i < QKV_VEC; i++) top = fmax(top, most[i]);
        for (ptrdiff_t j = l->to - QKV_VEC < l->from ? l->from : l->to - QKV_VEC; j < l->to; j++)
            top = fmax(top, l->w[j]);
        if (top <= FAR_EXPONENT || attempt) break;
        l->near = largest(l);
    }
    for (ptrdiff_t j = l->from; j < l->to; j += QKV_VEC)
        store_any(l->w + j, exp_weight(load_any(l->w + j), exp_table));
}

/* (1 + u_near^2) / (1 + u^2), with nothing squared that may be beyond double. */
static void cauchy_weights(qkv_local *l)
{
    double h = l->s->least, near = distance(l, l->near), scale = fmax(h, near);
    double above = h / scale * (h / scale) + near / scale * (near / scale);
    for (ptrdiff_t j = l->from; j < l->to; j++) {
        double u = l->part[j] = distance(l, j);
        l->w[j] = above / (h / scale * (h / scale) + u / scale * (u / scale));
    }
}

/* ---- Compact kernels --------------------------------------------------------------------------
 */

/* What roundings of q, x and h may add to |q - x| / h in column c: 0.4 - 0.3 is more than 0.1. */
static double roundings(const qkv_local *l, ptrdiff_t c)
{
    return FEW_ROUNDINGS * (1 + fabs(l->q[c]) / l->s->h[c]);
}

/* The u^2 up to which, or with an open edge below which, rows are in reach of a boxcar: an edge
 * that is met but for those roundings is met. */
static double edge_of(const qkv_regression *r, double roundings)
{
    double u = r->open_edge ? fmax(1 - roundings, DBL_MIN) : 1 + roundings;
    return fmax(u * u, DBL_MIN);
}

/* K(u) and -2 dK/d(u^2) at u^2 = s; 0 where that has no value. The edge is the boxcar's. */
INLINE void compact_weight(const qkv_regression_kernel kernel, const bool open, double edge,
                           double s, double *k, double *t)
{
    double rest = s < 1 ? 1 - s : 0, inside = s < 1, u = sqrt(s), cube;
    switch (kernel) {
    case QKV_REGRESSION_BOXCAR:
        *k = open ? s < edge : s <= edge;
        *t = 0;
        break;
    case QKV_REGRESSION_TRIANGULAR:
        *k = s < 1 ? 1 - u : 0;
        *t = s < 1 && s > 0 ? 1 / u : 0;
        break;
    case QKV_REGRESSION_EPANECHNIKOV:
        *k = rest;
        *t = 2 * inside;
        break;
    case QKV_REGRESSION_BIWEIGHT:
        *k = rest * rest;
        *t = 4 * rest;
        break;
    case QKV_REGRESSION_TRIWEIGHT:
        *k = rest * rest * rest;
        *t = 6 * rest * rest;
        break;
    case QKV_REGRESSION_TRICUBE:
        cube = s < 1 ? 1 - s * u : 0;
        *k = cube * cube * cube;
        *t = 9 * u * cube * cube;
        break;
    case QKV_REGRESSION_COSINE:
        *k = s < 1 ? cos(M_PI / 2 * u) : 0;
        *t = s >= 1 ? 0 : s > 0 ? M_PI / 2 * sin(M_PI / 2 * u) / u : M_PI * M_PI / 4;
        break;
    default: /* the constant */
        *k = 1;
        *t = 0;
    }
}

/* Of n rows, with the kernel known to the compiler. t holds u^2 at first. */
INLINE void compact_weights(const qkv_regression_kernel kernel, const bool open, double edge,
                            double *k, double *t, ptrdiff_t n)
{
    for (ptrdiff_t j = 0; j < n; j++) compact_weight(kernel, open, edge, t[j], &k[j], &t[j]);
}

static void compact(const qkv_regression *r, double edge, double *k, double *t, ptrdiff_t n)
{
    switch (r->kernel) {
    case QKV_REGRESSION_BOXCAR:
        compact_weights(QKV_REGRESSION_BOXCAR, r->open_edge, edge, k, t, n);
        break;
    case QKV_REGRESSION_TRIANGULAR:
        compact_weights(QKV_REGRESSION_TRIANGULAR, false, 1, k, t, n);
        break;
    case QKV_REGRESSION_EPANECHNIKOV:
        compact_weights(QKV_REGRESSION_EPANECHNIKOV, false, 1, k, t, n);
        break;
    case QKV_REGRESSION_BIWEIGHT:
        compact_weights(QKV_REGRESSION_BIWEIGHT, false, 1, k, t, n);
        break;
    case QKV_REGRESSION_TRIWEIGHT:
        compact_weights(QKV_REGRESSION_TRIWEIGHT, false, 1, k, t, n);
        break;
    case QKV_REGRESSION_TRICUBE:
        compact_weights(QKV_REGRESSION_TRICUBE, false, 1, k, t, n);
        break;
    case QKV_REGRESSION_COSINE:
        compact_weights(QKV_REGRESSION_COSINE, false, 1, k, t, n);
        break;
    default:
        compact_weights(QKV_REGRESSION_CONSTANT, false, 1, k, t, n);
    }
}

static double square(double x)
{
    return x * x;
}

static void radial_weights(qkv_local *l)
{
    const qkv_sample *s = l->s;
    double slack = 0;
    for (ptrdiff_t c = 0; c < s->d; c++) {
        const double *x = s->x + c * s->stride, q = l->q[c], h = s->h[c];
        for (ptrdiff_t j = l->from; j < l->to; j++)
            l->t[j] = (c ? l->t[j] : 0) + square((q - x[j]) / h);
        slack += roundings(l, c);
    }
    compact(s->r, edge_of(s->r, slack), l->w + l->from, l->t + l->from, l->to - l->from);
    for (ptrdiff_t j = l->from; j < l->to; j++) l->t[j] /= s->least;
}

/* The product of columns; t holds t1 / K1 of each until the product is known. */
static void product_weights(qkv_local *l)
{
    const qkv_sample *s = l->s;
    for (ptrdiff_t j = l->from; j < l->to; j++) l->w[j] = 1;
    for (ptrdiff_t c = 0; c < s->d; c++) {
        const double *x = s->x + c * s->stride, q = l->q[c], h = s->h[c];
        double *t = l->t + c * s->stride, *k = l->part;
        for (ptrdiff_t j = l->from; j < l->to; j++) t[j] = square((q - x[j]) / h);
        compact(s->r, edge_of(s->r, roundings(l, c)), k + l->from, t + l->from, l->to - l->from);
        for (ptrdiff_t j = l->from; j < l->to; j++) {
            l->w[j] *= k[j];
            t[j] = k[j] > 0 ? t[j] / k[j] : 0;
        }
    }
    for (ptrdiff_t c = 0; c < s->d; c++)
        for (ptrdiff_t j = l->from; j < l->to; j++) l->t[c * s->stride + j] *= l->w[j] / s->least;
}

/* ---- All weights ----------------------------------------------------------------------------- */

/* -2 (dK/d(u^2)) / (K least) of the kernels with a tail. */
static double tail_slope(const qkv_sample *s, double u, ptrdiff_t c)
{
    double h = s->r->product ? s->h[c] : s->least; /* u in units of x */
    if (s->r->kernel == QKV_REGRESSION_LAPLACE) return u > 0 ? h / u / s->least : 0;
    return 2 * h / (h + u * (u / h)) * (h / s->least) / h;
}

static void tail_slopes(qkv_local *l)
{
    const qkv_sample *s = l->s;
    for (ptrdiff_t c = 0; c < (s->r->product ? s->d : 1); c++)
        for (ptrdiff_t j = l->from; j < l->to; j++) {
            double u = s->r->product ? fabs(l->q[c] - s->x[c * s->stride + j]) : l->part[j];
            l->t[c * s->stride + j] = l->w[j] * tail_slope(s, u, c);
        }
}

static void kernel_weights(qkv_local *l, bool slopes)
{
    const qkv_regression *r = l->s->r;
    switch (r->kernel) {
    case QKV_REGRESSION_GAUSSIAN:
        exponential(l, gaussian_exponents);
        return;
    case QKV_REGRESSION_LAPLACE:
        exponential(l, r->product ? product_laplace_exponents : laplace_exponents);
        break;
    case QKV_REGRESSION_CAUCHY:
        if (r->product)
            exponential(l, product_cauchy_exponents);
        else
            cauchy_weights(l);
        break;
    default:
        if (r->product)
            product_weights(l);
        else
            radial_weights(l);
        return;
    }
    if (slopes) tail_slopes(l);
}

/* Nothing for the row left out, nor for the lanes beyond the window. */
static void clear(const qkv_local *l, double *x)
{
    if (l->self >= l->from && l->self < l->to) x[l->self] = 0;
    for (int i = 0; i < QKV_VEC; i++) x[l->to + i] = 0;
}

static void times(const qkv_local *l, double *x, const double *c)
{
    for (ptrdiff_t j = l->from; j < l->to; j++) x[j] *= c[j];
}

/* Equal shares for the nearest of all rows, which do not change with h. */
static void share_among_nearest(qkv_local *l, bool slopes)
{
    const qkv_sample *s = l->s;
    l->from = 0;
    l->to = s->n;
    for (ptrdiff_t j = 0; j < s->n; j++)
        if (j != l->self && excesses(l, j) < 0) l->near = j;
    for (ptrdiff_t j = 0; j < s->n; j++) l->w[j] = excesses(l, j) == 0;
    for (ptrdiff_t c = 0; c < (s->r->product ? s->d : 1) && slopes; c++)
        for (ptrdiff_t j = 0; j < s->n; j++) l->t[c * s->stride + j] = 0;
}

static void finish_weights(qkv_local *l, bool slopes)
{
    const qkv_sample *s = l->s;
    ptrdiff_t columns =
        slopes && s->r->kernel != QKV_REGRESSION_GAUSSIAN ? (s->r->product ? s->d : 1) : 0;
    if (s->c) times(l, l->w, s->c);
    clear(l, l->w);
    for (ptrdiff_t c = 0; c < columns; c++) {
        if (s->c) times(l, l->t + c * s->stride, s->c);
        clear(l, l->t + c * s->stride);
    }
    vec sum = splat(0), squares = splat(0);
    for (ptrdiff_t j = l->from; j < l->to; j += QKV_VEC) {
        vec w = load_any(l->w + j);
        sum += w;
        squares += s->c ? w * (w / load_any(s->c + j)) : w * w;
    }
    l->sum = sum_of_lanes(sum);
    l->squares = sum_of_lanes(squares);
}

/* All of that for the Gaussian of one column, whose nearest row is known, while a row passes by: of
 * a million rows, each array that is read or written once more costs a third of the time. */
static void gaussian_column(qkv_local *l)
{
    const qkv_sample *s = l->s;
    const double *x = s->x, inverse = 1 / s->least, x_near = x[l->near], q = l->q[0];
    vec sum = splat(0), squares = splat(0);
    for (ptrdiff_t j = l->from; j < l->to; j += QKV_VEC) {
        vec xj = load_any(x + j), c = s->c ? load_any(s->c + j) : splat(1);
        vec e = (x_near - xj) * ((q - xj) + (q - x_near)) * inverse * (-0.5 * inverse);
        vec w = exp_weight(e, exp_table) * c;
        for (int i = 0;
             i < QKV_VEC && (j + QKV_VEC > l->to || (j <= l->self && l->self < j + QKV_VEC)); i++)
            if (j + i >= l->to || j + i == l->self) w[i] = 0;
        store_any(l->w + j, w);
        sum += w;
        squares += s->c ? w * (w / c) : w * w;
    }
    l->sum = sum_of_lanes(sum);
    l->squares = sum_of_lanes(squares);
}

/* ---- The line -------------------------------------------------------------------------------- */

static const double SINGULAR =
    1e-12; /* of a matrix whose diagonal is 1, a pivot that is rounding */

/* Turns rows and columns i and k of the symmetric a so that a_ik becomes 0 (Jacobi 1846), and the
 * columns of v along. */
static void rotate(double *a, double *v, ptrdiff_t d, ptrdiff_t i, ptrdiff_t k)
{
    if (a[i * d + k] == 0) return;
    double theta = (a[k * d + k] - a[i * d + i]) / (2 * a[i * d + k]);
    double t = (theta < 0 ? -1 : 1) / (fabs(theta) + hypot(theta, 1));
    double cosine = 1 / hypot(t, 1), sine = t * cosine;
    for (ptrdiff_t m = 0; m < d; m++) {
        double x = a[i * d + m], y = a[k * d + m];
        a[i * d + m] = cosine * x - sine * y;
        a[k * d + m] = sine * x + cosine * y;
    }
    for (ptrdiff_t m = 0; m < d; m++) {
        double x = a[m * d + i], y = a[m * d + k];
        a[m * d + i] = cosine * x - sine * y;
        a[m * d + k] = sine * x + cosine * y;
        x = v[m * d + i], y = v[m * d + k];
        v[m * d + i] = cosine * x - sine * y;
        v[m * d + k] = sine * x + cosine * y;
    }
}

/* a [d, d], with a diagonal of 1, becomes its inverse by Gauss and Jordan's sweeps, the largest
 * pivot first: elements of all sizes keep their digits. False, and a is spoilt, if it has none. */
static bool invert(double *a, ptrdiff_t d, double *done)
{
    for (ptrdiff_t i = 0; i < d; i++) done[i] = 0;
    for (ptrdiff_t step = 0; step < d; step++) {
        ptrdiff_t p = -1;
        for (ptrdiff_t i = 0; i < d; i++)
            if (!(done[i] > 0) && (p < 0 || a[i * d + i] > a[p * d + p])) p = i;
        if (!(a[p * d + p] > SINGULAR)) return false;
        double pivot = 1 / a[p * d + p];
        for (ptrdiff_t i = 0; i < d; i++)
            for (ptrdiff_t k = 0; k < d; k++)
                if (i != p && k != p) a[i * d + k] -= a[i * d + p] * a[p * d + k] * pivot;
        for (ptrdiff_t i = 0; i < d; i++) {
            a[p * d + i] *= pivot;
            if (i != p) a[i * d + p] *= -pivot;
        }
        a[p * d + p] = pivot;
        done[p] = 1;
    }
    return true;
}

/* a [d, d] becomes its pseudo-inverse, by its eigenvectors v [d, d] and values [d]. */
static void pseudo_invert(double *a, ptrdiff_t d, double *v, double *value)
{
    for (ptrdiff_t i = 0; i < d * d; i++) v[i] = i / d == i % d;
    for (int sweep = 0; sweep < 10; sweep++)
        for (ptrdiff_t i = 0; i < d; i++)
            for (ptrdiff_t k = i + 1; k < d; k++) rotate(a, v, d, i, k);
    for (ptrdiff_t i = 0; i < d; i++) value[i] = a[i * d + i] > SINGULAR ? 1 / a[i * d + i] : 0;
    for (ptrdiff_t i = 0; i < d * d; i++) {
        a[i] = 0;
        for (ptrdiff_t m = 0; m < d; m++) a[i] += v[i / d * d + m] * value[m] * v[i % d * d + m];
    }
}

/* The covariance matrix becomes its inverse; directions in which, in units of each column's spread,
 * the rows do not differ but for rounding are 0 in it. */
static void invert_covariance(qkv_local *l)
{
    ptrdiff_t d = l->s->d;
    double *a = l->inverse, *v = l->line, *value = v + d * d, *scale = value + d, *done = scale + d;
    bool flat = false;
    for (ptrdiff_t i = 0; i < d; i++) {
        scale[i] = a[i * d + i] > 0 ? 1 / sqrt(a[i * d + i]) : 0;
        flat |= scale[i] == 0;
    }
    for (ptrdiff_t i = 0; i < d * d; i++) v[i] = a[i] = a[i] * scale[i / d] * scale[i % d];
    for (ptrdiff_t i = 0; i < d; i++) v[i * d + i] = a[i * d + i] = scale[i] > 0;
    if (flat || !invert(a, d, done)) {
        for (ptrdiff_t i = 0; i < d * d; i++) a[i] = v[i];
        pseudo_invert(a, d, v, value);
    }
    for (ptrdiff_t i = 0; i < d * d; i++) a[i] *= scale[i / d] * scale[i % d];
}

static double weighted_mean(const qkv_local *l, const double *y)
{
    vec sum = splat(0);
    for (ptrdiff_t j = l->from; j < l->to; j += QKV_VEC)
        sum += load_any(l->w + j) * load_any(y + j);
    return sum_of_lanes(sum) / l->sum;
}

/* sum w (x_b - mean_b) y over the window, y less its mean; y NULL: x_c. x is relative to base's. */
static double moment(const qkv_local *l, ptrdiff_t b, ptrdiff_t c, const double *y, double mean)
{
    const double *x = l->s->x + b * l->s->stride, *z = l->s->x + c * l->s->stride;
    vec x_base = splat(x[l->base]), z_base = splat(z[l->base]), sum = splat(0);
    for (ptrdiff_t j = l->from; j < l->to; j += QKV_VEC) {
        vec other = y ? load_any(y + j) : load_any(z + j) - z_base;
        sum += load_any(l->w + j) * (((load_any(x + j) - x_base) - l->mean[b]) * (other - mean));
    }
    return sum_of_lanes(sum);
}

/* The line counts x from the heaviest row, and is 0 in all that equal it: from another row their
 * mean would be off by a rounding, which looks like a spread. */
static void count_from_heaviest(qkv_local *l)
{
    l->base = l->from;
    for (ptrdiff_t j = l->from + 1; j < l->to; j++)
        if (l->w[j] > l->w[l->base]) l->base = j;
}

static void find_line(qkv_local *l)
{
    const qkv_sample *s = l->s;
    ptrdiff_t d = s->d;
    count_from_heaviest(l);
    for (ptrdiff_t c = 0; c < d; c++) {
        const double *x = s->x + c * s->stride;
        vec near = splat(x[l->base]), sum = splat(0);
        for (ptrdiff_t j = l->from; j < l->to; j += QKV_VEC)
            sum += load_any(l->w + j) * (load_any(x + j) - near);
        l->mean[c] = sum_of_lanes(sum) / l->sum;
    }
    for (ptrdiff_t b = 0; b < d; b++)
        for (ptrdiff_t c = 0; c <= b; c++)
            l->inverse[b * d + c] = l->inverse[c * d + b] = moment(l, b, c, NULL, l->mean[c]);
    invert_covariance(l);
    for (ptrdiff_t c = 0; c < d; c++) {
        l->lean[c] = 0;
        for (ptrdiff_t b = 0; b < d; b++)
            l->lean[c] +=
                l->inverse[c * d + b] * (l->q[b] - s->x[b * s->stride + l->base] - l->mean[b]);
    }
}

static void weigh_within(qkv_local *l, double small, bool slopes)
{
    const qkv_sample *s = l->s;
    find_window(l, small);
    if (s->d == 1 && s->r->kernel == QKV_REGRESSION_GAUSSIAN && l->second < 0) {
        gaussian_column(l);
    } else {
        kernel_weights(l, slopes);
        finish_weights(l, slopes);
    }
}

/* A line through few rows, far from all data, hangs on weights however small. */
static bool leans_on_few(const qkv_local *l)
{
    return l->s->r->degree == 1 && l->sum * l->sum < 8 * l->squares;
}

void IN(qkv_local_weigh)(qkv_local *l, bool slopes)
{
    const qkv_sample *s = l->s;
    l->second = -1;
    find_near(l);
    weigh_within(l, negligible(s), slopes);
    if (leans_on_few(l)) {
        find_second(l);
        weigh_within(l, LEAST_EXPONENT, slopes);
    }
    l->empty = !(l->sum > 0);
    if (l->empty && s->r->empty == QKV_EMPTY_NEAREST) {
        share_among_nearest(l, slopes);
        finish_weights(l, slopes);
    }
    for (ptrdiff_t c = 0; c < s->d; c++) l->mean[c] = l->lean[c] = 0;
    if (s->r->degree == 1 && l->sum > 0) find_line(l);
}

double IN(qkv_local_predict)(const qkv_local *l, const double *y, double *slope)
{
    const qkv_sample *s = l->s;
    double mean = weighted_mean(l, y), m = mean;
    for (ptrdiff_t c = 0; c < s->d; c++) slope[c] = 0;
    if (s->r->degree == 0 || !(l->sum > 0)) return m;
    for (ptrdiff_t c = 0; c < s->d; c++) l->line[c] = moment(l, c, c, y, mean);
    for (ptrdiff_t c = 0; c < s->d; c++) {
        for (ptrdiff_t b = 0; b < s->d; b++) slope[c] += l->inverse[c * s->d + b] * l->line[b];
        m += slope[c] * (l->q[c] - s->x[c * s->stride + l->base] - l->mean[c]);
    }
    return m;
}

#endif
