#include "oracle.h"

#include <complex.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <Random123/philox.h>

/* Complex throughout, so that one forward pass serves the values and the complex step. */
typedef long double complex number;

static const long double step = 1e-30L;

/* One query and everything it leads to. Arrays have n_k entries, o has d_v. */
typedef struct row {
    const problem *p;
    const double *perturbed; /* the input element that gets + i step, or NULL */
    ptrdiff_t b, h, i, g;    /* batch, head, query, and the head of its keys and values */
    bool *seen;
    number *a, *s, *bias;  /* a(q, k), the score, bias and slope together */
    number *capped;        /* d score / d (scale a) */
    number *prior, *w;     /* e^bias and the weight, both times a common factor */
    number *alpha, *o;     /* the weight at last, before dropout; the answer */
    double *keep;          /* what dropout makes of 1 */
    number sum, lse;       /* of w; its log with the common factor put back */
    long double condition; /* see find_condition */
    long double size;      /* the largest sum of absolute values that makes up a logit */
    ptrdiff_t n_seen;
    bool outside; /* sees keys, but none within the kernel's support */
    bool fragile; /* one rounding may change the answer */
} row;

static row row_new(const problem *p)
{
    size_t n = (size_t)p->a.n_k + 1;
    return (row){.p = p,
                 .seen = calloc(n, sizeof(bool)),
                 .a = calloc(n, sizeof(number)),
                 .s = calloc(n, sizeof(number)),
                 .bias = calloc(n, sizeof(number)),
                 .capped = calloc(n, sizeof(number)),
                 .prior = calloc(n, sizeof(number)),
                 .w = calloc(n, sizeof(number)),
                 .alpha = calloc(n, sizeof(number)),
                 .keep = calloc(n, sizeof(double)),
                 .o = calloc((size_t)p->a.d_v + 1, sizeof(number))};
}

static void row_free(row *r)
{
    free(r->seen);
    free(r->a);
    free(r->s);
    free(r->bias);
    free(r->capped);
    free(r->prior);
    free(r->w);
    free(r->alpha);
    free(r->keep);
    free(r->o);
}

/* ---- Forward ------------------------------------------------------------------------------- */

static number element(const row *r, operand x, ptrdiff_t h, ptrdiff_t i, ptrdiff_t c)
{
    const double *at = r->p->in[x] + operand_index(r->p, x, r->b, h, i, c);
    return *at + (at == r->perturbed ? step * I : 0);
}

static number query(const row *r, ptrdiff_t c)
{
    return element(r, Q, r->h, r->i, c);
}

static number key(const row *r, ptrdiff_t j, ptrdiff_t c)
{
    return element(r, K, r->g, j, c);
}

static number value(const row *r, ptrdiff_t j, ptrdiff_t c)
{
    return element(r, V, r->g, j, c);
}

static number scale(const row *r)
{
    if (r->p->in[SCALE]) return element(r, SCALE, r->h, 0, 0);
    return r->p->a.score == QKV_SCORE_SCALED_DOT ? 1 / sqrtl((long double)r->p->a.d_k) : 1;
}

static number bandwidth(const row *r, ptrdiff_t c)
{
    return r->p->in[BANDWIDTH] ? element(r, BANDWIDTH, r->h, 0, c) : 1;
}

static bool sees(const row *r, ptrdiff_t j)
{
    const problem *p = r->p;
    const qkv_attention *a = &p->a;
    if (p->lengths && j >= p->lengths[r->b]) return false;
    ptrdiff_t own = r->i + (p->causal_offsets ? p->causal_offsets[r->b] : a->mask.causal_offset);
    ptrdiff_t left = a->mask.window_left, right = a->mask.window_right;
    if (a->mask.causal && j > own) return false;
    if (a->mask.window && ((left >= 0 && j < own - left) || (right >= 0 && j > own + right)))
        return false;
    if (a->mask.leave_one_out && j == r->i) return false;
    if (p->mask && !p->mask[((r->b * a->heads + r->h) * a->n_q + r->i) * a->n_k + j]) return false;
    return !p->in[BIAS] || creall(element(r, BIAS, r->h, r->i, j)) != -INFINITY;
}

/* Of key j, counted from where the query stands. */
static long double position(const row *r, ptrdiff_t j)
{
    const problem *p = r->p;
    return (long double)(j - r->i -
                         (p->causal_offsets ? p->causal_offsets[r->b] : p->a.mask.causal_offset));
}

/* Of the table of relative positions. */
static ptrdiff_t entry(const row *r, ptrdiff_t j)
{
    long double d = position(r, j), left = r->p->a.relative_left, right = r->p->a.relative_right;
    return (ptrdiff_t)(fminl(fmaxl(d, -left), right) + left);
}

/* Of a query, or of key j. */
static number length(const row *r, ptrdiff_t j)
{
    number sum = 0;
    for (ptrdiff_t c = 0; c < r->p->a.d_k; c++) {
        number x = j < 0 ? query(r, c) : key(r, j, c);
        sum += x * x;
    }
    return csqrtl(sum);
}

static number parameter(const row *r, ptrdiff_t c)
{
    return element(r, W, r->h, 0, c);
}

/* One coordinate's part of a(q, k), for the scores that add such parts. */
static number term_of(const row *r, ptrdiff_t j, ptrdiff_t c)
{
    number q = query(r, c), k = key(r, j, c), x = (q - k) / bandwidth(r, c);
    switch (r->p->a.score) {
    case QKV_SCORE_SCALED_DOT:
    case QKV_SCORE_DOT:
        break;
    case QKV_SCORE_COSINE:
        return q * k / (length(r, -1) * length(r, j));
    case QKV_SCORE_GAUSSIAN:
        return -x * x / 2;
    case QKV_SCORE_LAPLACE:
        return creall(x) > 0 ? -x : x;
    case QKV_SCORE_CAUCHY:
        return x * x;
    case QKV_SCORE_ADDITIVE:
        return parameter(r, c) * ctanhl(q + k);
    case QKV_SCORE_USER: /* compute.c's */
        return (parameter(r, 0) * q + parameter(r, 1) * q * q) * k;
    }
    return q * k;
}

static void score(row *r, ptrdiff_t j)
{
    number sum = 0;
    long double size = 0;
    qkv_score kind = r->p->a.score;
    for (ptrdiff_t c = 0; c < r->p->a.d_k; c++) {
        number term = term_of(r, j, c);
        sum += term;
        size += fabsl(creall(term));
        if (kind == QKV_SCORE_ADDITIVE) /* the argument's rounding counts */
            size += fabsl(creall(parameter(r, c))) *
                    (fabsl(creall(query(r, c))) + fabsl(creall(key(r, j, c))));
        if (kind == QKV_SCORE_USER) {
            long double q = fabsl(creall(query(r, c))), w = fabsl(creall(parameter(r, 1)));
            size += (fabsl(creall(parameter(r, 0))) * q + w * q * q) * fabsl(creall(key(r, j, c)));
        }
    }
    if (kind == QKV_SCORE_CAUCHY) {
        sum = -clogl(1 + sum);
        size = 1 - creall(sum); /* a relative error of what is under the logarithm */
    }
    r->a[j] = sum;
    r->s[j] = scale(r) * sum;
    r->capped[j] = 1;
    long double c = r->p->a.softcap;
    if (c > 0) {
        number t = ctanhl(r->s[j] / c);
        r->s[j] = c * t;
        r->capped[j] = 1 - t * t;
    }
    r->bias[j] = r->p->in[BIAS] ? element(r, BIAS, r->h, r->i, j) : 0;
    if (r->p->in[SLOPES]) {
        number slope = element(r, SLOPES, r->h, 0, 0) * position(r, j);
        r->bias[j] += slope;
        size += fabsl(creall(slope) / creall(scale(r)));
    }
    if (r->p->in[RELATIVE]) r->bias[j] += element(r, RELATIVE, r->h, 0, entry(r, j));
    r->size = fmaxl(r->size, fabsl(creall(scale(r))) * size + fabsl(creall(r->bias[j])));
}

static number kernel(const qkv_attention *a, number u)
{
    bool inside = creall(u) <= 1;
    switch (a->kernel) {
    case QKV_KERNEL_BOXCAR:
        return inside && !(a->open_edge && creall(u) == 1) ? 1 : 0;
    case QKV_KERNEL_TRIANGULAR:
        return inside ? 1 - u : 0;
    case QKV_KERNEL_EPANECHNIKOV:
        return inside ? 1 - u * u : 0;
    case QKV_KERNEL_BIWEIGHT:
        return inside ? (1 - u * u) * (1 - u * u) : 0;
    case QKV_KERNEL_TRIWEIGHT:
        return inside ? (1 - u * u) * (1 - u * u) * (1 - u * u) : 0;
    case QKV_KERNEL_TRICUBE:
        return inside ? (1 - u * u * u) * (1 - u * u * u) * (1 - u * u * u) : 0;
    case QKV_KERNEL_COSINE:
        return inside ? ccosl(acosl(0) * u) : 0;
    case QKV_KERNEL_CONSTANT:
        return 1;
    }
    return NAN;
}

static number distance(const row *r, ptrdiff_t j)
{
    return csqrtl(-2 * r->s[j]);
}

/* The largest x among the keys in the set; the first of equals. */
static ptrdiff_t largest(const row *r, const number *x, const number *y, const bool *set)
{
    ptrdiff_t best = -1;
    for (ptrdiff_t j = 0; j < r->p->a.n_k; j++)
        if (set[j] && (best < 0 || creall(x[j] + y[j]) > creall(x[best] + y[best]))) best = j;
    return best;
}

static void weigh_exponential(row *r, bool normalized)
{
    ptrdiff_t best = largest(r, r->s, r->bias, r->seen);
    long double top = normalized && best >= 0 ? creall(r->s[best] + r->bias[best]) : 0;
    if (r->p->in[SINK]) {
        number sink = element(r, SINK, r->h, 0, 0);
        top = best >= 0 ? fmaxl(top, creall(sink)) : creall(sink);
        r->size = fmaxl(r->size, fabsl(creall(sink)));
        r->sum = cexpl(sink - top);
    }
    for (ptrdiff_t j = 0; j < r->p->a.n_k; j++) {
        if (r->seen[j]) r->w[j] = cexpl(r->s[j] + r->bias[j] - top);
        r->sum += r->w[j];
    }
    r->lse = top + clogl(r->sum);
}

/* No seen key within the support: NaN, or the nearest keys in proportion to their prior, which top
 * was taken out of. */
static void weigh_outside(row *r, long double top)
{
    r->outside = true;
    r->sum = 0;
    long double nearest = -INFINITY;
    for (ptrdiff_t j = 0; j < r->p->a.n_k; j++)
        if (r->seen[j]) nearest = fmaxl(nearest, creall(r->s[j]));
    for (ptrdiff_t j = 0; j < r->p->a.n_k; j++) {
        if (!r->seen[j]) continue;
        long double gap = nearest - creall(r->s[j]);
        if (r->p->a.empty != QKV_EMPTY_NEAREST)
            r->w[j] = NAN;
        else if (gap == 0)
            r->w[j] = r->prior[j];
        else if (gap < 64 * problem_epsilon(r->p) * r->size)
            r->fragile = true;
        r->sum += r->w[j];
    }
    if (r->p->a.empty == QKV_EMPTY_NEAREST) r->lse = top + clogl(r->sum);
}

static void weigh_kernel(row *r, bool normalized)
{
    const qkv_attention *a = &r->p->a;
    bool *supported = calloc((size_t)a->n_k + 1, sizeof *supported);
    for (ptrdiff_t j = 0; j < a->n_k; j++) {
        if (!r->seen[j]) continue;
        number u = distance(r, j);
        supported[j] = creall(kernel(a, u)) > 0;
        if (a->kernel != QKV_KERNEL_CONSTANT && fabsl(creall(u) - 1) < 64 * problem_epsilon(r->p))
            r->fragile = true;
    }
    const bool *set = largest(r, r->bias, r->bias, supported) < 0 ? r->seen : supported;
    long double top = normalized ? creall(r->bias[largest(r, r->bias, r->bias, set)]) : 0;
    for (ptrdiff_t j = 0; j < a->n_k; j++) {
        if (!r->seen[j]) continue;
        r->prior[j] = set[j] ? cexpl(r->bias[j] - top) : 0;
        if (supported[j]) r->w[j] = kernel(a, distance(r, j)) * r->prior[j];
        r->sum += r->w[j];
    }
    if (normalized && set == r->seen)
        weigh_outside(r, top);
    else
        r->lse = top + clogl(r->sum);
    free(supported);
}

static void weigh_hard(row *r)
{
    ptrdiff_t best = largest(r, r->s, r->bias, r->seen);
    r->w[best] = r->sum = 1;
    for (ptrdiff_t j = 0; j < r->p->a.n_k; j++) {
        long double gap = creall(r->s[best] + r->bias[best] - r->s[j] - r->bias[j]);
        if (r->seen[j] && j != best && gap < 64 * problem_epsilon(r->p) * (1 + r->size))
            r->fragile = true;
    }
}

static bool is_top(const row *r)
{
    return r->p->a.normalize == QKV_TOP_K || r->p->a.normalize == QKV_TOP_K_UNIFORM;
}

static bool is_sparse(const row *r)
{
    return r->p->a.normalize == QKV_SPARSEMAX || r->p->a.normalize == QKV_ENTMAX_15;
}

/* How many seen keys come before j: larger, or as large and of a lower index. */
static ptrdiff_t rank(const row *r, ptrdiff_t j)
{
    ptrdiff_t before = 0;
    for (ptrdiff_t x = 0; x < r->p->a.n_k; x++) {
        long double gap = creall(r->s[x] + r->bias[x] - r->s[j] - r->bias[j]);
        before += r->seen[x] && x != j && (gap > 0 || (gap == 0 && x < j));
    }
    return before;
}

/* All but the largest count as hidden. */
static void choose_top(row *r)
{
    ptrdiff_t n = r->p->a.n_k, k = r->p->a.top_k;
    ptrdiff_t *ranks = calloc((size_t)n + 1, sizeof *ranks);
    long double least = INFINITY, next = -INFINITY;
    for (ptrdiff_t j = 0; j < n; j++) {
        if (!r->seen[j]) continue;
        ranks[j] = rank(r, j);
        long double e = creall(r->s[j] + r->bias[j]);
        if (ranks[j] < k) least = fminl(least, e);
        if (ranks[j] >= k) next = fmaxl(next, e);
    }
    r->fragile = least - next < 64 * problem_epsilon(r->p) * (1 + r->size);
    for (ptrdiff_t j = 0; j < n && !r->fragile; j++) r->seen[j] = r->seen[j] && ranks[j] < k;
    free(ranks);
}

/* max(0, z - t)^power with z = s + b or half of it: the support is the m largest for which t, from
 * them alone, leaves none of them out. */
static void weigh_sparse(row *r)
{
    bool entmax = r->p->a.normalize == QKV_ENTMAX_15;
    ptrdiff_t n = r->p->a.n_k;
    number t = 0, *z = calloc((size_t)n + 1, sizeof *z);
    long double top = creall(r->s[largest(r, r->s, r->bias, r->seen)] +
                             r->bias[largest(r, r->s, r->bias, r->seen)]);
    number sum = 0, squares = 0;
    for (ptrdiff_t j = 0; j < n; j++) z[j] = (r->s[j] + r->bias[j] - top) * (entmax ? 0.5L : 1);
    for (ptrdiff_t m = 0; m < r->n_seen; m++)
        for (ptrdiff_t j = 0; j < n; j++) {
            if (!r->seen[j] || rank(r, j) != m) continue;
            if (m && creall(z[j]) <= creall(t)) goto found;
            sum += z[j];
            squares += z[j] * z[j];
            number count = m + 1, mean = sum / count;
            t = entmax ? mean - csqrtl((1 - squares + count * mean * mean) / count)
                       : (sum - 1) / count;
        }
found:
    for (ptrdiff_t j = 0; j < n; j++) {
        if (!r->seen[j]) continue;
        number above = z[j] - t;
        bool edge = fabsl(creall(above)) < 16 * problem_epsilon(r->p) * (1 + r->size);
        if (edge && !entmax) r->fragile = true; /* entmax has no jump there */
        if (creall(above) > 0) r->w[j] = entmax ? above * above : above;
    }
    r->sum = 1;
    free(z);
}

static void weigh(row *r)
{
    if (is_top(r)) choose_top(r);
    switch (r->p->a.normalize) {
    case QKV_SPARSEMAX:
    case QKV_ENTMAX_15:
        if (r->n_seen) weigh_sparse(r);
        return;
    case QKV_SOFTMAX:
    case QKV_TOP_K:
        weigh_exponential(r, true);
        return;
    case QKV_NONE_EXP:
        weigh_exponential(r, false);
        return;
    case QKV_KERNEL_SUM:
        weigh_kernel(r, true);
        return;
    case QKV_NONE_KERNEL:
        weigh_kernel(r, false);
        return;
    case QKV_HARD:
        weigh_hard(r);
        return;
    default:
        break;
    }
    for (ptrdiff_t j = 0; j < r->p->a.n_k; j++) {
        number x = r->s[j] + r->bias[j];
        if (!r->seen[j]) continue;
        if (r->p->a.normalize == QKV_UNIFORM || r->p->a.normalize == QKV_TOP_K_UNIFORM)
            r->w[j] = 1;
        else if (r->p->a.normalize == QKV_NONE_IDENTITY)
            r->w[j] = x;
        else if (creall(x) > 0)
            r->w[j] = 1 / (1 + cexpl(-x));
        else
            r->w[j] = cexpl(x) / (1 + cexpl(x));
        r->sum += r->w[j];
    }
}

/* Softmax, kernel sum, hard and uniform come before the unnormalised ones. */
static bool is_normalized(const row *r)
{
    return r->p->a.normalize < QKV_NONE_EXP;
}

/* By how much a row's rounding errors exceed epsilon: its logits are that large, and a sum of
 * kernels may be smaller than what they are computed from. */
static long double find_condition(const row *r)
{
    if (r->fragile) return INFINITY;
    if (r->p->a.normalize != QKV_KERNEL_SUM) return 1 + r->size;
    number prior = 0;
    for (ptrdiff_t j = 0; j < r->p->a.n_k; j++) prior += r->prior[j];
    return (1 + r->size) * fmaxl(1, fabsl(creall(prior / r->sum)));
}

static double dropout(const row *r, ptrdiff_t j)
{
    const qkv_attention *a = &r->p->a;
    philox4x32_ctr_t counter = {
        {(uint32_t)r->i, (uint32_t)(j / 4), (uint32_t)(r->b * a->heads + r->h), a->dropout_offset}};
    philox4x32_key_t key = {{(uint32_t)a->dropout_seed, (uint32_t)(a->dropout_seed >> 32)}};
    uint32_t word = philox4x32(counter, key).v[j % 4];
    return (double)word < a->dropout * 0x1p32 ? 0 : 1 / (1 - a->dropout);
}

static void solve_row(row *r, ptrdiff_t index)
{
    const qkv_attention *a = &r->p->a;
    r->i = index % a->n_q;
    r->h = index / a->n_q % a->heads;
    r->b = index / a->n_q / a->heads;
    r->g = r->h / (a->heads / problem_kv_heads(r->p));
    r->n_seen = 0;
    r->outside = r->fragile = false;
    r->size = 0;
    r->sum = 0;
    r->lse = -INFINITY;
    for (ptrdiff_t j = 0; j < a->n_k; j++) {
        r->w[j] = r->prior[j] = 0;
        r->seen[j] = sees(r, j);
        r->n_seen += r->seen[j];
        r->keep[j] = dropout(r, j);
        if (r->seen[j]) score(r, j);
    }
    if (r->n_seen || r->p->in[SINK]) weigh(r);
    for (ptrdiff_t c = 0; c < a->d_v; c++) r->o[c] = 0;
    for (ptrdiff_t j = 0; j < a->n_k; j++) {
        r->alpha[j] = r->seen[j] && is_normalized(r) ? r->w[j] / r->sum : r->w[j];
        if (!r->seen[j]) continue;
        for (ptrdiff_t c = 0; c < a->d_v; c++) r->o[c] += r->keep[j] * r->alpha[j] * value(r, j, c);
    }
    r->condition = find_condition(r);
}

static bool has_lse(const row *r)
{
    qkv_normalize n = r->p->a.normalize;
    return (n == QKV_SOFTMAX || n == QKV_KERNEL_SUM || n == QKV_TOP_K) &&
           creall(r->lse) > -INFINITY;
}

double oracle_derivative(const problem *p, operand x, size_t index)
{
    row r = row_new(p);
    r.perturbed = &p->in[x][index];
    long double sum = 0;
    for (ptrdiff_t i = 0; i < problem_rows(p); i++) {
        solve_row(&r, i);
        for (ptrdiff_t c = 0; c < p->a.d_v; c++) sum += p->d_o[i * p->a.d_v + c] * cimagl(r.o[c]);
        if (p->d_lse && has_lse(&r)) sum += p->d_lse[i] * cimagl(r.lse);
    }
    row_free(&r);
    return (double)(sum / step);
}

/* ---- Backward ------------------------------------------------------------------------------ */

/* A number and what its rounding error is proportional to. */
typedef struct sized {
    long double x, size;
} sized;

static sized times(sized a, number factor)
{
    return (sized){a.x * creall(factor), a.size * fabsl(creall(factor))};
}

static sized dot_value(const row *r, const double *d_o, ptrdiff_t j)
{
    sized sum = {0, 0};
    for (ptrdiff_t c = 0; c < r->p->a.d_v; c++) {
        long double term = r->keep[j] * d_o[c] * creall(value(r, j, c));
        sum.x += term;
        sum.size += fabsl(term);
    }
    return sum;
}

/* dK/ds of the kernels as functions of s = -u^2 / 2; 0 at the tip of the triangle. */
static number kernel_slope(const row *r, ptrdiff_t j)
{
    number u = distance(r, j);
    if (creall(u) > 1) return 0;
    number half_pi = acosl(0);
    switch (r->p->a.kernel) { /* -K'(u) / u */
    case QKV_KERNEL_TRIANGULAR:
        return creall(u) > 0 ? 1 / u : 0;
    case QKV_KERNEL_EPANECHNIKOV:
        return 2;
    case QKV_KERNEL_BIWEIGHT:
        return 4 * (1 - u * u);
    case QKV_KERNEL_TRIWEIGHT:
        return 6 * (1 - u * u) * (1 - u * u);
    case QKV_KERNEL_TRICUBE:
        return 9 * u * (1 - u * u * u) * (1 - u * u * u);
    case QKV_KERNEL_COSINE:
        return creall(u) > 0 ? half_pi * csinl(half_pi * u) / u : half_pi * half_pi;
    case QKV_KERNEL_BOXCAR:
    case QKV_KERNEL_CONSTANT:
        break;
    }
    return 0;
}

/* What the rounding error of alpha_j is proportional to: near the edge of its support a kernel errs
 * as much as elsewhere, but is small. */
static long double alpha_size(const row *r, ptrdiff_t j)
{
    switch (r->p->a.normalize) {
    case QKV_KERNEL_SUM:
        return r->condition * fabsl(creall(r->prior[j] / r->sum));
    case QKV_NONE_KERNEL:
        return r->condition * fabsl(creall(r->prior[j]));
    case QKV_NONE_IDENTITY:
    case QKV_SPARSEMAX:
        return r->condition;
    case QKV_ENTMAX_15:
        return r->condition *
               (sqrtl(fabsl(creall(r->alpha[j]))) + 16 * problem_epsilon(r->p) * r->condition);
    default:
        return r->condition * fabsl(creall(r->alpha[j]));
    }
}

/* alpha_j = w_j / sum or w_j: d w_j / d s_j and d w_j / d bias_j, both over that sum. */
static void weight_slopes(const row *r, ptrdiff_t j, number *ds, number *db)
{
    number alpha = r->alpha[j];
    *ds = *db = 0;
    switch (r->p->a.normalize) {
    case QKV_SOFTMAX:
    case QKV_TOP_K:
    case QKV_NONE_EXP:
        *ds = *db = alpha;
        return;
    case QKV_SPARSEMAX:
        *ds = *db = creall(alpha) > 0;
        return;
    case QKV_ENTMAX_15:
        *ds = *db = csqrtl(alpha);
        return;
    case QKV_KERNEL_SUM:
        *db = alpha;
        if (!r->outside) *ds = kernel_slope(r, j) * r->prior[j] / r->sum;
        return;
    case QKV_NONE_KERNEL:
        *db = alpha;
        *ds = kernel_slope(r, j) * r->prior[j];
        return;
    case QKV_NONE_SIGMOID:
        *ds = *db = alpha * (1 - alpha);
        return;
    case QKV_NONE_IDENTITY:
        *ds = *db = 1;
        return;
    default:
        return;
    }
}

/* What every alpha loses when another grows: the mean of dw by the slopes (of softmax and the like,
 * the weights). */
static sized find_center(const row *r, const double *d_o)
{
    sized center = {0, 0};
    long double total = 0;
    for (ptrdiff_t j = 0; is_normalized(r) && j < r->p->a.n_k; j++) {
        if (!r->seen[j]) continue;
        number slope = r->alpha[j], unused;
        if (is_sparse(r)) weight_slopes(r, j, &slope, &unused);
        sized dw = dot_value(r, d_o, j), term = times(dw, slope);
        total += creall(slope);
        center.x += term.x;
        center.size += is_sparse(r) && creall(slope) > 0 ? dw.size : term.size;
    }
    return is_sparse(r) && total > 0 ? times(center, 1 / total) : center;
}

static void add(const row *r, answer *y, answer *size, operand x, size_t index, sized term)
{
    if (!r->p->in[x]) return;
    y->d[x][index] += (double)term.x;
    size->d[x][index] += (double)term.size;
}

/* Up to three parts of a derivative: what rounding is proportional to is the sum of their sizes. */
static sized chain(sized ds, number a, number b, number c)
{
    long double size = fabsl(creall(a)) + fabsl(creall(b)) + fabsl(creall(c));
    return (sized){ds.x * creall(a + b + c), ds.size * size};
}

/* da / dq_c, da / dk_c, and da / d parameter c (bandwidth, w); ds already holds the scale. */
static void add_coordinate(const row *r, answer *y, answer *size, ptrdiff_t j, ptrdiff_t c,
                           sized ds, number squares)
{
    const problem *p = r->p;
    number q = query(r, c), k = key(r, j, c), h = bandwidth(r, c), x = (q - k) / h, to_h = 0;
    sized dq, dk, dw = {0, 0};
    switch (p->a.score) {
    case QKV_SCORE_SCALED_DOT:
    case QKV_SCORE_DOT:
        dq = times(ds, k);
        dk = times(ds, q);
        break;
    case QKV_SCORE_COSINE: {
        number lq = length(r, -1), lk = length(r, j);
        dq = chain(ds, k / (lq * lk), -r->a[j] * q / (lq * lq), 0);
        dk = chain(ds, q / (lq * lk), -r->a[j] * k / (lk * lk), 0);
        break;
    }
    case QKV_SCORE_ADDITIVE: {
        number t = ctanhl(q + k), w = parameter(r, c);
        dw = times(ds, t);
        dq = dk = chain(ds, w, -w * t * t, 0);
        break;
    }
    case QKV_SCORE_USER: {
        number a = parameter(r, 0), b = parameter(r, 1);
        dq = chain(ds, a * k, 2 * b * q * k, 0);
        dk = chain(ds, a * q, b * q * q, 0);
        add(r, y, size, W, operand_index(p, W, r->b, r->h, 0, 0), times(ds, q * k));
        add(r, y, size, W, operand_index(p, W, r->b, r->h, 0, 1), times(ds, q * q * k));
        break;
    }
    default: {
        number slope = p->a.score == QKV_SCORE_LAPLACE  ? (creall(x) > 0) - (creall(x) < 0)
                       : p->a.score == QKV_SCORE_CAUCHY ? 2 * x / (1 + squares)
                                                        : x;
        dq = times(ds, -slope / h);
        dk = times(ds, slope / h);
        to_h = slope * x / h;
    }
    }
    add(r, y, size, Q, operand_index(p, Q, r->b, r->h, r->i, c), dq);
    add(r, y, size, K, operand_index(p, K, r->b, r->g, j, c), dk);
    if (p->in[BANDWIDTH])
        add(r, y, size, BANDWIDTH, operand_index(p, BANDWIDTH, r->b, r->h, 0, c), times(ds, to_h));
    if (p->a.score == QKV_SCORE_ADDITIVE)
        add(r, y, size, W, operand_index(p, W, r->b, r->h, 0, c), dw);
}

/* s = scale a(q, k): one pair's share of the gradients of q, k, scale, bandwidth and w. */
static void add_score_gradients(const row *r, answer *y, answer *size, ptrdiff_t j, sized ds)
{
    const problem *p = r->p;
    number squares = 0; /* of the Cauchy score: its slope is that of u^2 over 1 + their sum */
    for (ptrdiff_t c = 0; c < p->a.d_k && p->a.score == QKV_SCORE_CAUCHY; c++) {
        number x = (query(r, c) - key(r, j, c)) / bandwidth(r, c);
        squares += x * x;
    }
    if (p->in[SCALE]) {
        sized to_scale = times(ds, r->a[j]);
        if (p->a.score > QKV_SCORE_DOT) to_scale.size += ds.size;
        add(r, y, size, SCALE, operand_index(p, SCALE, r->b, r->h, 0, 0), to_scale);
    }
    for (ptrdiff_t c = 0; c < p->a.d_k; c++)
        add_coordinate(r, y, size, j, c, times(ds, scale(r)), squares);
}

static void add_row_gradients(const row *r, ptrdiff_t index, answer *y, answer *size)
{
    const problem *p = r->p;
    const double *d_o = p->d_o + index * p->a.d_v;
    sized center = find_center(r, d_o);
    if (p->d_lse && has_lse(r)) {
        center.x -= p->d_lse[index];
        center.size += fabs(p->d_lse[index]);
    }
    if (p->in[SINK]) {
        size_t at = operand_index(p, SINK, r->b, r->h, 0, 0);
        long double share = expl((long double)p->in[SINK][at] - creall(r->lse));
        add(r, y, size, SINK, at, (sized){-share * center.x, share * center.size * r->condition});
    }
    for (ptrdiff_t j = 0; j < p->a.n_k; j++) {
        if (!r->seen[j]) continue;
        number to_s, to_b;
        weight_slopes(r, j, &to_s, &to_b);
        sized g = dot_value(r, d_o, j);
        g = (sized){g.x - center.x, (g.size + center.size) * r->condition};
        if (creall(to_s) != 0 || r->p->a.normalize == QKV_ENTMAX_15) {
            sized ds = times(g, to_s * r->capped[j]);
            if (is_sparse(r)) ds.size = g.size * fmaxl(1, fabsl(creall(to_s)));
            add_score_gradients(r, y, size, j, ds);
        }
        if (p->in[BIAS] && creall(to_b) != 0)
            add(r, y, size, BIAS, operand_index(p, BIAS, r->b, r->h, r->i, j),
                (sized){g.x * creall(to_b), g.size * (fabsl(creall(to_b)) + alpha_size(r, j))});
        if (p->in[RELATIVE] && creall(to_b) != 0)
            add(r, y, size, RELATIVE, operand_index(p, RELATIVE, r->b, r->h, 0, entry(r, j)),
                (sized){g.x * creall(to_b), g.size * (fabsl(creall(to_b)) + alpha_size(r, j))});
        if (creall(to_b) != 0)
            add(r, y, size, SLOPES, operand_index(p, SLOPES, r->b, r->h, 0, 0),
                times(
                    (sized){g.x * creall(to_b), g.size * (fabsl(creall(to_b)) + alpha_size(r, j))},
                    position(r, j)));
        for (ptrdiff_t c = 0; c < p->a.d_v; c++) {
            long double term = creall(r->alpha[j]) * d_o[c] * r->keep[j];
            add(r, y, size, V, operand_index(p, V, r->b, r->g, j, c),
                (sized){term, fabs(d_o[c]) * alpha_size(r, j) * r->keep[j]});
        }
    }
}

static void store_row(const row *r, ptrdiff_t index, answer *y, answer *size)
{
    const qkv_attention *a = &r->p->a;
    y->lse[index] = has_lse(r) ? (double)creall(r->lse) : -INFINITY;
    size->lse[index] = (double)r->condition;
    for (ptrdiff_t c = 0; c < a->d_v; c++) {
        y->o[index * a->d_v + c] = (double)creall(r->o[c]);
        size->o[index * a->d_v + c] = 0;
    }
    for (ptrdiff_t j = 0; j < a->n_k; j++) {
        long double alpha = creall(r->alpha[j]) * r->keep[j];
        y->weights[index * a->n_k + j] = (double)alpha;
        size->weights[index * a->n_k + j] = r->seen[j] ? (double)alpha_size(r, j) * r->keep[j] : 0;
        for (ptrdiff_t c = 0; r->seen[j] && c < a->d_v; c++)
            size->o[index * a->d_v + c] +=
                (double)(alpha_size(r, j) * r->keep[j] * fabsl(creall(value(r, j, c))));
    }
}

void oracle_solve(const problem *p, answer *y, answer *size)
{
    for (operand x = Q; x < OPERANDS; x++)
        for (size_t i = 0; p->in[x] && i < operand_size(p, x); i++) {
            y->d[x][i] = gradient_start(x);
            size->d[x][i] = fabs(gradient_start(x));
        }
    row r = row_new(p);
    for (ptrdiff_t i = 0; i < problem_rows(p); i++) {
        solve_row(&r, i);
        store_row(&r, i, y, size);
        add_row_gradients(&r, i, y, size);
    }
    row_free(&r);
}
