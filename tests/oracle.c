#include "oracle.h"

#include <stdlib.h>
#include <string.h>

#include <Random123/philox.h>

#include "oracle_row.h"

row oracle_row_new(const problem *p)
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

void oracle_row_free(row *r)
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
    if (r->p->a.normalize == QKV_TOP_K_UNIFORM) r->lse = clogl(r->sum);
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

void oracle_solve_row(row *r, ptrdiff_t index)
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

double oracle_derivative(const problem *p, operand x, size_t index)
{
    row r = oracle_row_new(p);
    r.perturbed = &p->in[x][index];
    long double sum = 0;
    for (ptrdiff_t i = 0; i < problem_rows(p); i++) {
        oracle_solve_row(&r, i);
        for (ptrdiff_t c = 0; c < p->a.d_v; c++) sum += p->d_o[i * p->a.d_v + c] * cimagl(r.o[c]);
        if (p->d_lse && has_lse(&r)) sum += p->d_lse[i] * cimagl(r.lse);
    }
    oracle_row_free(&r);
    return (double)(sum / oracle_step);
}
