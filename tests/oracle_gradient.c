/* oracle_gradient.c - oracle_solve: the chain rule term by term. */
#include <stdlib.h>
#include <string.h>

#include "oracle_row.h"

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
    row r = oracle_row_new(p);
    for (ptrdiff_t i = 0; i < problem_rows(p); i++) {
        oracle_solve_row(&r, i);
        store_row(&r, i, y, size);
        add_row_gradients(&r, i, y, size);
    }
    oracle_row_free(&r);
}
