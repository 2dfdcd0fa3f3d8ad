/* select.c - normalisers that give most keys no weight at all: which keys are left, and what their
 * weights are counted from. Once the scan has shown a row all its exponents x, most of them can be
 * treated as hidden, in both passes.
 *
 *     top-k         the k largest x
 *     sparsemax     w = max(0, x - m - t), m the largest x and sum w = 1: t is the largest of
 *                   (sum_S (x - m) - 1) / |S|, approached from below by ever smaller sets S
 *                   (Michelot 1986)
 *     1.5-entmax    w = max(0, (x - m) / 2 - t)^2: Newton's steps from t = -1, which stay below the
 *                   root since sum w is convex and falls */
#include "tile.h"

static const real INF = (real)INFINITY;

void IN(qkv_select_keep)(FN(qkv_block) *t, bool seen)
{
    real ones[QKV_LANES] __attribute__((aligned(QKV_VECTOR_BYTES)));
    ptrdiff_t n = t->in->a.n_k;
    real *to = t->exponents + t->k0;
    if (!seen) {
        for (int i = 0; i < t->n_q; i++)
            for (int j = 0; j < t->n_k; j++) to[i * n + j] = -INF;
        return;
    }
    for (int i = 0; i < QKV_LANES; i++) ones[i] = 1;
    IN(qkv_complete_exponents)(t);
    IN(qkv_from_lanes)(to, n, 1, t->n_q, t->n_k, t->s, ones, false);
}

/* Numbers that ascend as x does; the two zeros are one. */
static FN(natural) ordered(real x)
{
    FN(natural) bits, sign = (FN(natural))1 << (8 * sizeof bits - 1);
    x += 0;
    memcpy(&bits, &x, sizeof bits);
    return bits & sign ? ~bits : bits | sign;
}

static real unordered(FN(natural) bits)
{
    FN(natural) sign = (FN(natural))1 << (8 * sizeof bits - 1);
    real x;
    bits = bits & sign ? bits ^ sign : ~bits;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The k-th largest of n >= k numbers, digit by digit; *k becomes how many of those that equal it
 * are among the k. */
static real kth_largest(const real *x, ptrdiff_t n, ptrdiff_t *k)
{
    FN(natural) known = 0, mask = 0;
    for (int shift = 8 * (int)sizeof known - 8; shift >= 0; shift -= 8) {
        ptrdiff_t count[256] = {0};
        FN(natural) digit = 255;
        for (ptrdiff_t j = 0; j < n; j++) {
            FN(natural) bits = ordered(x[j]);
            count[bits >> shift & 255] += (bits & mask) == known;
        }
        while (count[digit] < *k) *k -= count[digit--];
        known |= digit << shift;
        mask |= (FN(natural))255 << shift;
    }
    return unordered(known);
}

static void select_largest(FN(qkv_block) *t, int i, const real *x, IN(qkv_span) span)
{
    ptrdiff_t n = span.end - span.first, seen = 0, k, j = 0;
    for (ptrdiff_t y = 0; y < n; y++) seen += x[y] > -INF;
    k = smaller(t->in->a.top_k, seen);
    t->threshold[i] = 1 / (real)k;
    t->best[i] = INF;
    t->winner[i] = -1;
    if (k == 0) return;
    t->best[i] = kth_largest(x, n, &k);
    for (; k > 0; j++) k -= x[j] == t->best[i];
    t->winner[i] = span.first + j - 1;
}

/* Only what is less than a range below the largest can have weight: those to the front. */
static ptrdiff_t keep_near(real *x, ptrdiff_t n, real max, real range)
{
    ptrdiff_t m = 0;
    for (ptrdiff_t j = 0; j < n; j++) {
        x[m] = x[j];
        m += x[j] - max > -range;
    }
    return m;
}

/* In double, since thousands of terms may add up. */
static double sparsemax_threshold(const real *x, ptrdiff_t n, real max)
{
    for (double t = -1;;) {
        double sum = 0, count = 0;
        for (ptrdiff_t j = 0; j < n; j++) {
            double z = (double)(x[j] - max);
            sum += z > t ? z : 0;
            count += z > t;
        }
        double next = (sum - 1) / count;
        if (!(next > t)) return t;
        t = next;
    }
}

static double entmax_threshold(const real *x, ptrdiff_t n, real max)
{
    for (double t = -1;;) {
        double sum = 0, squares = 0;
        for (ptrdiff_t j = 0; j < n; j++) {
            double z = (double)(x[j] - max) / 2 - t;
            sum += z > 0 ? z : 0;
            squares += z > 0 ? z * z : 0;
        }
        double next = t + (squares - 1) / (2 * sum);
        if (!(next > t)) return t;
        t = next;
    }
}

void IN(qkv_select_end)(FN(qkv_block) *t)
{
    const qkv_attention *a = &t->in->a;
    IN(qkv_span) span = IN(qkv_mask_span)(t);
    ptrdiff_t n = span.end - span.first;
    for (int i = t->n_q; i < QKV_LANES; i++) { /* never selected */
        t->best[i] = INF;
        t->threshold[i] = 0;
    }
    for (int i = 0; i < t->n_q; i++) {
        real *x = t->exponents + i * a->n_k + span.first;
        real max = -INF;
        for (ptrdiff_t j = 0; j < n; j++) max = x[j] > max || x[j] != x[j] ? x[j] : max;
        for (ptrdiff_t j = 0; j < n; j++) max = x[j] != x[j] ? x[j] : max;
        if (a->normalize == QKV_TOP_K || a->normalize == QKV_TOP_K_UNIFORM) {
            t->best[i] = max;
            if (max == max) select_largest(t, i, x, span);
            continue;
        }
        t->best[i] = max == INF ? max - max : max; /* NaN, as a softmax would be */
        t->threshold[i] = 0;
        if (!(max > -INF && max < INF)) continue;
        bool sparsemax = a->normalize == QKV_SPARSEMAX;
        ptrdiff_t near = keep_near(x, n, max, sparsemax ? 1 : 2);
        t->threshold[i] =
            (real)(sparsemax ? sparsemax_threshold(x, near, max) : entmax_threshold(x, near, max));
    }
}

real IN(qkv_exponent_at)(const FN(qkv_block) *t, int x)
{
    real s = t->s[x], b = FN(qkv_bias_at)(t, x), e = s + b;
    if (fabs(e) <= REAL_MAX || !(fabs(s) <= REAL_MAX && fabs(b) <= REAL_MAX)) return e;
    return e > 0 ? REAL_MAX : -REAL_MAX;
}

/* How far the exponent of element x, of lane i, is above the threshold: the weight of sparsemax,
 * the root of that of entmax. */
static real above(const FN(qkv_block) *t, int i, int x)
{
    real z = IN(qkv_exponent_at)(t, x) - t->best[i];
    return (t->in->a.normalize == QKV_ENTMAX_15 ? z / 2 : z) - t->threshold[i];
}

real IN(qkv_sparse_weight)(const FN(qkv_block) *t, int i, int x)
{
    real z = above(t, i, x);
    return t->in->a.normalize == QKV_ENTMAX_15 ? z * z : z;
}

static bool selected(const FN(qkv_block) *t, int i, int x)
{
    qkv_normalize normalize = t->in->a.normalize;
    if (t->best[i] != t->best[i]) return true; /* all of the row is NaN */
    if (normalize == QKV_SPARSEMAX || normalize == QKV_ENTMAX_15) return above(t, i, x) > 0;
    real e = IN(qkv_exponent_at)(t, x);
    return e > t->best[i] || (e == t->best[i] && t->k0 + x / QKV_LANES <= t->winner[i]);
}

/* False if nothing in the tile is selected, as in most tiles. */
static bool maybe_selected(const FN(qkv_block) *t)
{
    bool biased = IN(qkv_biased)(t->in), partial = t->coverage == QKV_SEES_SOME;
    bool counts = t->in->a.normalize == QKV_TOP_K || t->in->a.normalize == QKV_TOP_K_UNIFORM;
    vec unit = splat(t->in->a.normalize == QKV_ENTMAX_15 ? (real)0.5 : 1);
    ivec any = {0};
    for (int i = 0; i < QKV_LANES; i += QKV_VEC) {
        vec best = load(t->best + i), threshold = counts ? splat(0) : load(t->threshold + i);
        for (int x = i; x < t->n_k * QKV_LANES; x += QKV_LANES) {
            vec e = biased ? exponent(load(t->s + x), load(t->b + x)) : load(t->s + x);
            if (partial) e = if_seen(t->seen + x, e, splat(-INF));
            any |= ~((e - best) * unit < threshold);
        }
    }
    FN(integer) found = 0;
    for (int i = 0; i < QKV_VEC; i++) found |= any[i];
    return found != 0;
}

void IN(qkv_select_tile)(FN(qkv_block) *t)
{
    int count = 0;
    if (!maybe_selected(t)) {
        t->coverage = QKV_SEES_NONE;
        return;
    }
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < t->n_q; i++) {
            int x = j * QKV_LANES + i;
            bool keep = FN(qkv_pair)(t, j, i) && selected(t, i, x);
            t->seen[x] = keep;
            count += keep;
        }
    for (int j = 0; j < t->n_k; j++)
        for (int i = t->n_q; i < QKV_LANES; i++) t->seen[j * QKV_LANES + i] = 0;
    t->coverage = count ? QKV_SEES_SOME : QKV_SEES_NONE;
}
