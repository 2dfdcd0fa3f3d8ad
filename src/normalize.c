/* normalize.c - third stage: the scores of a row become its weights.
 *
 * Softmax and the kernel sum share one shape, weight = factor * exp(exponent - max) / sum: softmax
 * has factor 1 and exponent s + b, the kernel sum has factor K(u) and exponent b. max and sum are
 * kept online while the tiles pass (Milakov & Gimelshein 2018). The other normalisers have weights
 * that depend on no sum. */
#include "tile.h"

static const real INF = (real)INFINITY;

/* K as a function of u^2, so that the edges are exact; NaN stays NaN. */
real FN(qkv_kernel_weight)(qkv_kernel kernel, real u2)
{
    if (u2 != u2) return u2;
    switch (kernel) {
    case QKV_KERNEL_BOXCAR:
        return u2 <= 1;
    case QKV_KERNEL_TRIANGULAR:
        return u2 < 1 ? 1 - sqrt(u2) : 0;
    case QKV_KERNEL_EPANECHNIKOV:
        return u2 < 1 ? 1 - u2 : 0;
    case QKV_KERNEL_CONSTANT:
        break;
    }
    return 1;
}

void FN(qkv_normalize_begin)(FN(qkv_block) *t)
{
    for (int i = 0; i < QKV_LANES; i++) {
        t->max[i] = -INF;
        t->sum[i] = 0;
        t->rescale[i] = 1;
        t->any[i] = 0;
        t->best[i] = t->in->a.normalize == QKV_HARD      ? -INF
                     : t->in->a.normalize == QKV_UNIFORM ? 0
                                                         : INF;
        t->winner[i] = -1;
    }
}

/* The pass over all keys that some normalisers need before they can give a single weight: the
 * largest exponent (the first of equals; a NaN wins and stays), the smallest u^2, or the number of
 * seen keys. */
void FN(qkv_normalize_scan)(FN(qkv_block) *t)
{
    qkv_normalize normalize = t->in->a.normalize;
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

/* K(u), or for a row whose support is empty under the policy nearest, 1 at the smallest u. */
static real kernel_factor(const FN(qkv_block) *t, int i, real s)
{
    real u2 = -2 * s;
    const qkv_attention *a = &t->in->a;
    if (qkv_needs_scan(a) && FN(qkv_kernel_weight)(a->kernel, t->best[i]) == 0)
        return u2 != u2 ? u2 : u2 == t->best[i];
    return FN(qkv_kernel_weight)(a->kernel, u2);
}

/* The weights that need no sum. */
static real direct_weight(const FN(qkv_block) *t, int i, int x, ptrdiff_t key)
{
    const qkv_attention *a = &t->in->a;
    if (a->normalize == QKV_UNIFORM) return 1 / t->best[i]; /* there are no scores */
    real e = t->s[x] + FN(qkv_bias_at)(t, x);
    switch (a->normalize) {
    case QKV_HARD:
        return t->best[i] != t->best[i] ? t->best[i] : t->winner[i] == key;
    case QKV_NONE_EXP:
        return exp(e);
    case QKV_NONE_SIGMOID:
        return e < 0 ? exp(e) / (1 + exp(e)) : 1 / (1 + exp(-e));
    case QKV_NONE_KERNEL:
        return FN(qkv_kernel_weight)(a->kernel, -2 * t->s[x]) * exp(FN(qkv_bias_at)(t, x));
    case QKV_NONE_IDENTITY:
        return e;
    case QKV_UNIFORM:
    case QKV_SOFTMAX:
    case QKV_KERNEL_SUM:
        break;
    }
    return 0;
}

/* w = exponents, -inf where the factor is 0 or the key hidden; s becomes the factor for the kernel
 * sum. */
static void exponents(FN(qkv_block) *t)
{
    int n = t->n_k * QKV_LANES;
    bool bias = t->in->bias.data;
    if (t->in->a.normalize == QKV_SOFTMAX) {
        for (int x = 0; x < n; x++) t->w[x] = bias ? t->s[x] + t->b[x] : t->s[x];
    } else {
        for (int x = 0; x < n; x++) {
            t->s[x] = kernel_factor(t, x % QKV_LANES, t->s[x]);
            t->w[x] = t->s[x] == 0 ? -INF : bias ? t->b[x] : 0;
        }
    }
    if (t->coverage == QKV_SEES_SOME)
        for (int x = 0; x < n; x++)
            if (!t->seen[x]) t->w[x] = -INF;
}

/* exp(w - from) times the factor; hidden keys, at -inf, become exactly 0. from is finite or +inf.
 */
static void exponentiate(FN(qkv_block) *t, const real *from, const real *log_sum)
{
    bool kernel = t->in->a.normalize == QKV_KERNEL_SUM;
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < QKV_LANES; i++) {
            int x = j * QKV_LANES + i;
            real e = exp(t->w[x] - from[i] - (log_sum ? log_sum[i] : 0));
            /* A factor of a hidden key may be NaN: e is 0 then, and must stay so. */
            t->w[x] = kernel && t->w[x] != -INF ? e * t->s[x] : e;
        }
}

static void update_max(FN(qkv_block) *t, real *from)
{
    real max[QKV_LANES];
    memcpy(max, t->max, sizeof max);
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < QKV_LANES; i++) {
            real w = t->w[j * QKV_LANES + i];
            max[i] = w > max[i] ? w : max[i];
        }
    for (int i = 0; i < QKV_LANES; i++) {
        t->rescale[i] = max[i] == t->max[i] ? 1 : exp(t->max[i] - max[i]);
        t->max[i] = max[i];
        from[i] = max[i] == -INF ? 0 : max[i];
    }
}

void FN(qkv_normalize_online)(FN(qkv_block) *t)
{
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < QKV_LANES; i++)
            if (FN(qkv_pair)(t, j, i)) t->any[i] = 1;
    if (!qkv_has_sum(&t->in->a)) {
        FN(qkv_normalize_weights)(t);
        return;
    }
    real from[QKV_LANES];
    exponents(t);
    update_max(t, from);
    exponentiate(t, from, NULL);
    for (int i = 0; i < QKV_LANES; i++) t->sum[i] *= t->rescale[i];
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < QKV_LANES; i++) t->sum[i] += t->w[j * QKV_LANES + i];
}

void FN(qkv_normalize_weights)(FN(qkv_block) *t)
{
    int n = t->n_k * QKV_LANES;
    if (qkv_has_sum(&t->in->a)) {
        exponents(t);
        exponentiate(t, t->max, t->log_sum);
    } else {
        for (int x = 0; x < n; x++)
            t->w[x] = direct_weight(t, x % QKV_LANES, x, t->k0 + x / QKV_LANES);
    }
    if (t->coverage == QKV_SEES_SOME)
        for (int x = 0; x < n; x++)
            if (!t->seen[x]) t->w[x] = 0;
}
