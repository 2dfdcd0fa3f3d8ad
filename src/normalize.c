/* normalize.c - third stage: the scores of a row become its weights.
 *
 * Softmax and the kernel sum share one shape, weight = factor * exp(exponent - max) / sum: softmax
 * has factor 1 and exponent s + b, the kernel sum has factor K(u) and exponent b. max and sum are
 * kept online while the tiles pass (Milakov & Gimelshein 2018). The other normalisers have weights
 * that depend on no sum. */
#include "tile.h"

static const real INF = (real)INFINITY;

/* K as a function of u^2, so that the edges are exact; NaN stays NaN. */
real IN(qkv_kernel_weight)(const qkv_attention *a, real u2)
{
    if (u2 != u2) return u2;
    real rest = u2 < 1 ? 1 - u2 : 0, u;
    switch (a->kernel) {
    case QKV_KERNEL_BOXCAR:
        return a->open_edge ? u2 < 1 : u2 <= 1;
    case QKV_KERNEL_TRIANGULAR:
        return u2 < 1 ? 1 - sqrt(u2) : 0;
    case QKV_KERNEL_EPANECHNIKOV:
        return rest;
    case QKV_KERNEL_BIWEIGHT:
        return rest * rest;
    case QKV_KERNEL_TRIWEIGHT:
        return rest * rest * rest;
    case QKV_KERNEL_TRICUBE:
        u = 1 - u2 * sqrt(u2);
        return u2 < 1 ? u * u * u : 0;
    case QKV_KERNEL_COSINE:
        return u2 < 1 ? cos((real)(M_PI / 2) * sqrt(u2)) : 0;
    case QKV_KERNEL_CONSTANT:
        break;
    }
    return 1;
}

/* The sink is what a row has seen before its first key; where there may be legs, before the first
 * of them, whichever that is. */
static void begin_with_sink(FN(qkv_block) *t)
{
    bool waits = t->in->a.n_k > QKV_LEG;
    real sink = *FN(qkv_at)(&t->in->sink, t->batch, t->head, 0) * (real)LOG2E;
    real *sum = waits ? t->earlier_sum : t->sum;
    for (int i = 0; i < QKV_LANES; i++) {
        t->max[i] = sink;
        if (waits) t->earlier_max[i] = sink;
        sum[i] = sink == -INF ? 0 : 1;
    }
}

void IN(qkv_normalize_begin)(FN(qkv_block) *t)
{
    qkv_normalize normalize = t->in->a.normalize;
    real best = normalize == QKV_HARD ? -INF : normalize == QKV_UNIFORM ? 0 : INF;
    for (int x = 0; x < QKV_LANES; x += QKV_VEC) {
        store(t->max + x, splat(-INF));
        store(t->sum + x, splat(0));
        store(t->rescale + x, splat(1));
        store(t->any + x, splat(0));
        store(t->best + x, splat(best));
    }
    for (int i = 0; i < QKV_LANES && t->in->a.n_k > QKV_LEG; i++) {
        t->earlier_max[i] = -INF;
        t->earlier_sum[i] = 0;
    }
    for (int i = 0; i < QKV_LANES && qkv_needs_scan(&t->in->a); i++) t->winner[i] = -1;
    if (t->in->sink.data) begin_with_sink(t);
}

/* The pass over all keys that some normalisers need before they can give a single weight: the
 * largest exponent (the first of equals; a NaN wins and stays), the smallest u^2, or the number of
 * seen keys. */
void IN(qkv_normalize_scan)(FN(qkv_block) *t)
{
    qkv_normalize normalize = t->in->a.normalize;
    if (normalize == QKV_UNIFORM && t->coverage == QKV_SEES_ALL) {
        for (int x = 0; x < QKV_LANES; x += QKV_VEC)
            store(t->best + x, load(t->best + x) + splat((real)t->n_k));
        return;
    }
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < QKV_LANES; i++) {
            int x = j * QKV_LANES + i;
            if (!FN(qkv_pair)(t, j, i)) continue;
            if (normalize == QKV_UNIFORM) {
                t->best[i] += 1;
            } else if (normalize == QKV_HARD) {
                real e = t->s[x] + FN(qkv_bias_at)(t, x);
                if (e > t->best[i] || e != e || t->winner[i] < 0) {
                    t->best[i] = t->best[i] != t->best[i] ? t->best[i] : e;
                    t->winner[i] = t->k0 + j;
                }
            } else if (-2 * t->s[x] < t->best[i]) {
                t->best[i] = -2 * t->s[x];
            }
        }
}

static void note_any(FN(qkv_block) *t)
{
    if (t->coverage == QKV_SEES_ALL) {
        for (int x = 0; x < QKV_LANES; x += QKV_VEC) store(t->any + x, splat(1));
        return;
    }
    uint8_t any[QKV_LANES] = {0};
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < QKV_LANES; i++) any[i] |= t->seen[j * QKV_LANES + i];
    for (int i = 0; i < QKV_LANES; i++) t->any[i] = any[i] ? 1 : t->any[i];
}

/* ---- softmax ---- */

/* s += b, and -inf where the key is hidden; tile_max follows. */
INLINE void complete(FN(qkv_block) *t, const bool biased, const bool large, const bool hides)
{
    vec max[QKV_VECTORS];
    for (int v = 0; v < QKV_VECTORS; v++) max[v] = splat(-INF);
    for (int j = 0; j < t->n_k; j++) {
        UNROLL
        for (int v = 0; v < QKV_VECTORS; v++) {
            int x = j * QKV_LANES + v * QKV_VEC;
            vec e = load(t->s + x);
            if (biased) e = large ? exponent(e, load(t->b + x)) : e + load(t->b + x);
            if (hides) e = if_seen(t->seen + x, e, splat(-INF));
            store(t->s + x, e);
            max[v] = larger(e, max[v]);
        }
    }
    for (int v = 0; v < QKV_VECTORS; v++) store(t->tile_max + v * QKV_VEC, max[v]);
}

void IN(qkv_complete_exponents)(FN(qkv_block) *t)
{
    bool biased = IN(qkv_biased)(t->in), hides = t->coverage == QKV_SEES_SOME;
    if (biased && t->large_bias)
        complete(t, true, true, true && hides);
    else if (biased && hides)
        complete(t, true, false, true);
    else if (biased)
        complete(t, true, false, false);
    else if (hides)
        complete(t, false, false, true);
}

/* What becomes of sums that count from old when they are to count from max, in units of log(2). */
INLINE vec change_of_max(vec old, vec max, real unit)
{
    return choose(max == old, splat(1), exp2_weight((old - max) * unit, exp_table));
}

/* The row's max takes in the tile's. from: what to count the tile's exponents from (finite or
 * +inf); rescale: what becomes of earlier sums. */
static void raise_max(FN(qkv_block) *t, const real *tile_max)
{
    real unit = t->base_2 ? 1 : (real)LOG2E;
    for (int x = 0; x < QKV_LANES; x += QKV_VEC) {
        vec old = load(t->max + x), max = larger(load(tile_max + x), old);
        store(t->rescale + x, change_of_max(old, max, unit));
        store(t->max + x, max);
        store(t->from + x, choose(max == -INF, splat(0), max));
    }
}

FN(qkv_exponents) IN(qkv_softmax_begin)(FN(qkv_block) *t)
{
    note_any(t);
    IN(qkv_complete_exponents)(t);
    raise_max(t, t->tile_max);
    memset(t->tile_sum, 0, QKV_LANES * sizeof(real));
    return (FN(qkv_exponents)){.x = t->s, .rows = t->n_k, .from = t->from, .sum = t->tile_sum};
}

void IN(qkv_softmax_weigh)(FN(qkv_exponents) *e, int vectors)
{
    switch (vectors) {
    case 1:
        forward_weights(e, 1);
        break;
    case 2:
        forward_weights(e, 2);
        break;
    default:
        forward_weights(e, 3);
    }
}

void IN(qkv_softmax_end)(FN(qkv_block) *t)
{
    for (int i = 0; i < QKV_LANES; i++) t->sum[i] = t->sum[i] * t->rescale[i] + t->tile_sum[i];
}

void IN(qkv_normalize_leg)(FN(qkv_block) *t, bool last)
{
    real unit = t->base_2 ? 1 : (real)LOG2E;
    real factor[QKV_LANES] __attribute__((aligned(QKV_VECTOR_BYTES)));
    for (int x = 0; x < QKV_LANES; x += QKV_VEC) {
        vec max = load(t->max + x);
        store(factor + x, change_of_max(load(t->earlier_max + x), max, unit));
        store(t->earlier_max + x, max);
    }
    if (t->legs) IN(qkv_add_leg)(t->o, t->earlier, factor, t->in->a.d_v, last);
    IN(qkv_add_leg)(t->sum, t->earlier_sum, factor, 1, last);
}

/* ---- kernel sum ---- */

/* K(u), or for a row whose support is empty under the policy nearest, 1 at the smallest u. */
static real kernel_factor(const FN(qkv_block) *t, int i, real s)
{
    real u2 = -2 * s;
    const qkv_attention *a = &t->in->a;
    if (qkv_needs_scan(a) && IN(qkv_kernel_weight)(a, t->best[i]) == 0)
        return u2 != u2 ? u2 : u2 == t->best[i];
    return IN(qkv_kernel_weight)(a, u2);
}

/* s becomes the factor, 0 where hidden; max_b the largest bias with a factor. */
static void kernel_factors(FN(qkv_block) *t, real *max_b)
{
    for (int i = 0; i < QKV_LANES; i++) max_b[i] = -INF;
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < QKV_LANES; i++) {
            int x = j * QKV_LANES + i;
            t->s[x] = FN(qkv_pair)(t, j, i) ? kernel_factor(t, i, t->s[x]) : 0;
            real b = FN(qkv_bias_at)(t, x);
            if (t->s[x] != 0 && b > max_b[i]) max_b[i] = b;
        }
}

/* w = factor exp(b - from - log_sum) over the tile. */
static void kernel_weights(FN(qkv_block) *t, const real *from, const real *log_sum)
{
    bool bias = IN(qkv_biased)(t->in);
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < QKV_LANES; i++) {
            int x = j * QKV_LANES + i;
            real e = (bias ? t->b[x] : 0) - from[i] - (log_sum ? log_sum[i] : 0);
            if (t->s[x] != 0 && e != 0) t->s[x] *= exp(e);
        }
}

static void kernel_online(FN(qkv_block) *t)
{
    real max_b[QKV_LANES] __attribute__((aligned(QKV_VECTOR_BYTES)));
    note_any(t);
    kernel_factors(t, max_b);
    raise_max(t, max_b);
    kernel_weights(t, t->from, NULL);
    for (int i = 0; i < QKV_LANES; i++) t->sum[i] *= t->rescale[i];
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < QKV_LANES; i++) t->sum[i] += t->w[j * QKV_LANES + i];
}

/* ---- weights that need no sum ---- */

static real direct_weight(const FN(qkv_block) *t, int i, int x, ptrdiff_t key)
{
    const qkv_attention *a = &t->in->a;
    real e = t->s[x] + FN(qkv_bias_at)(t, x);
    switch (a->normalize) {
    case QKV_HARD:
        return t->best[i] != t->best[i] ? t->best[i] : t->winner[i] == key;
    case QKV_NONE_EXP:
        return exp(e);
    case QKV_NONE_SIGMOID:
        return e < 0 ? exp(e) / (1 + exp(e)) : 1 / (1 + exp(-e));
    case QKV_NONE_KERNEL: {
        real k = IN(qkv_kernel_weight)(a, -2 * t->s[x]);
        return k == 0 ? 0 : k * exp(FN(qkv_bias_at)(t, x)); /* the bias may be of any size */
    }
    case QKV_NONE_IDENTITY:
        return e;
    default:
        break;
    }
    return 0;
}

static void hide(FN(qkv_block) *t)
{
    if (t->coverage == QKV_SEES_ALL) return;
    for (int x = 0; x < t->n_k * QKV_LANES; x++) t->w[x] = t->seen[x] ? t->w[x] : 0;
}

/* There are no scores. */
static void uniform_weights(FN(qkv_block) *t)
{
    for (int v = 0; v < QKV_LANES; v += QKV_VEC) {
        const vec share = splat(1) / load(t->best + v);
        for (int j = 0; j < t->n_k; j++) store(t->w + j * QKV_LANES + v, share);
    }
    hide(t);
}

static void direct_weights(FN(qkv_block) *t)
{
    if (qkv_selects(&t->in->a)) {
        IN(qkv_select_weights)(t);
        return;
    }
    if (t->in->a.normalize == QKV_UNIFORM) {
        uniform_weights(t);
        return;
    }
    for (int x = 0; x < t->n_k * QKV_LANES; x++)
        t->w[x] = direct_weight(t, x % QKV_LANES, x, t->k0 + x / QKV_LANES);
    hide(t);
}

/* ---- all of them ---- */

void IN(qkv_normalize_online)(FN(qkv_block) *t)
{
    if (qkv_is_softmax(&t->in->a)) {
        FN(qkv_exponents) e = IN(qkv_softmax_begin)(t);
        IN(qkv_softmax_weigh)(&e, t->vectors);
        IN(qkv_softmax_end)(t);
    } else if (t->in->a.normalize == QKV_KERNEL_SUM) {
        kernel_online(t);
    } else {
        note_any(t);
        direct_weights(t);
    }
}

/* A row whose support is empty has weights NaN where it sees, and log_sum -inf says so. */
static void final_kernel_weights(FN(qkv_block) *t)
{
    real unused[QKV_LANES];
    kernel_factors(t, unused);
    kernel_weights(t, t->max, t->log_sum);
    for (int x = 0; x < t->n_k * QKV_LANES; x++)
        if (t->log_sum[x % QKV_LANES] == -INF) t->w[x] = (real)NAN;
    hide(t);
}

void IN(qkv_normalize_weights)(FN(qkv_block) *t)
{
    if (qkv_is_softmax(&t->in->a)) {
        IN(qkv_complete_exponents)(t);
        FN(qkv_exponents)
        e = {.x = t->s, .rows = t->n_k, .from = t->max, .log_sum = t->log_sum};
        backward_weights(&e, QKV_VECTORS);
        hide(t); /* a row that sees nothing counts from -inf */
    } else if (t->in->a.normalize == QKV_KERNEL_SUM) {
        final_kernel_weights(t);
    } else {
        direct_weights(t);
    }
}
