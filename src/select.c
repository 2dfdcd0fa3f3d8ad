/* select.c - normalisers that give most keys no weight at all: which keys are left, and what their
 * weights are counted from. Once the scan has shown a row all its exponents x, most of them can be
 * treated as hidden, in both passes.
 *
 *     top-k         the k largest x
 *     sparsemax     w = max(0, x - m - t), m the largest x and sum w = 1: t is the largest of
 *                   (sum_S (x - m) - 1) / |S|, approached from below by ever smaller sets S
 *                   (Michelot 1986)
 *     1.5-entmax    w = max(0, (x - m) / 2 - t)^2: Newton's steps from t = -1, which stay below the
 *                   root since sum w is convex and falls
 *
 * A bound leaves few candidates, which move to the front of their lane: of sparsemax m - 1, of
 * entmax m - 2, of top-k the k-th largest of the maxima of some 4 k groups of keys. */
#include "tile.h"

static const real INF = (real)INFINITY;

static bool counts(const FN(qkv_block) *t)
{
    return t->in->a.normalize == QKV_TOP_K || t->in->a.normalize == QKV_TOP_K_UNIFORM;
}

void IN(qkv_select_keep)(FN(qkv_block) *t, bool seen)
{
    real *to = t->exponents + t->k0 * QKV_LANES;
    int n = t->n_k * QKV_LANES;
    for (int x = 0; x < n && !seen; x += QKV_VEC) store(to + x, splat(-INF));
    if (!seen) return;
    IN(qkv_complete_exponents)(t);
    memcpy(to, t->s, sizeof(real) * (size_t)n);
}

/* The largest of n rows, NaN if one is. */
static vec largest(const real *x, ptrdiff_t n)
{
    vec max = splat(-INF), nan = splat(0);
    for (ptrdiff_t j = 0; j < n; j++) {
        vec y = load(x + j * QKV_LANES);
        max = larger(y, max);
        nan = choose(y != y, y, nan);
    }
    return max + nan;
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

/* The k-th largest of n >= k numbers of a lane, digit by digit; *k becomes how many of those that
 * equal it are among the k. */
static real kth_largest(const real *x, ptrdiff_t n, ptrdiff_t *k)
{
    FN(natural) known = 0, mask = 0;
    for (int shift = 8 * (int)sizeof known - 8; shift >= 0; shift -= 8) {
        ptrdiff_t count[256] = {0};
        FN(natural) digit = 255;
        for (ptrdiff_t j = 0; j < n; j++) {
            FN(natural) bits = ordered(x[j * QKV_LANES]);
            count[bits >> shift & 255] += (bits & mask) == known;
        }
        while (count[digit] < *k) *k -= count[digit--];
        known |= digit << shift;
        mask |= (FN(natural))255 << shift;
    }
    return unordered(known);
}

/* At least top_k exponents of a lane, if there are so many, are not below its bound. */
static void bound_of_top_k(const FN(qkv_block) *t, const real *x, ptrdiff_t n, real *bound)
{
    ptrdiff_t k = t->in->a.top_k, size = k > n / 8 ? 1 : n / (4 * k);
    ptrdiff_t groups = size > 1 ? (n + size - 1) / size : 0;
    real *max = t->exponents + t->in->a.n_k * QKV_LANES;
    for (ptrdiff_t g = 0; g < groups; g++)
        for (int i = 0; i < t->vectors * QKV_VEC; i += QKV_VEC)
            store(max + g * QKV_LANES + i,
                  largest(x + g * size * QKV_LANES + i, smaller(size, n - g * size)));
    for (int i = 0; i < t->n_q; i++) {
        ptrdiff_t rank = k;
        bound[i] = groups ? kth_largest(max + i, groups, &rank) : -INF;
        if (bound[i] < -REAL_MAX) bound[i] = -REAL_MAX; /* hidden keys are no candidates */
    }
}

/* What is not below its lane's bound moves to the front of the lane, in order; how many. */
static void keep_candidates(const FN(qkv_block) *t, real *x, ptrdiff_t n, const real *bound,
                            ptrdiff_t *count)
{
    for (int i = 0; i < t->n_q; i++) count[i] = 0;
    for (ptrdiff_t j = 0; j < n; j++)
        for (int v = 0; v < t->vectors * QKV_VEC; v += QKV_VEC) {
            const vec y = load(x + j * QKV_LANES + v);
            for (unsigned lanes = which(y >= load(bound + v)); lanes; lanes &= lanes - 1) {
                int i = __builtin_ctz(lanes);
                x[count[v + i]++ * QKV_LANES + v + i] = y[i];
            }
        }
}

/* Of the candidates z = x - m (entmax: half of it) of a vector of lanes, -inf beyond them: sum w
 * less 1, and minus its slope, at the threshold t. Partial sums, since thousands of terms may add
 * up. */
INLINE void excess(const real *z, ptrdiff_t n, vec t, double *f, double *slope, const bool entmax)
{
    enum { PART = 64 };
    for (int i = 0; i < QKV_VEC; i++) f[i] = -1;
    for (int i = 0; i < QKV_VEC; i++) slope[i] = 0;
    for (ptrdiff_t first = 0; first < n; first += PART) {
        vec sum = splat(0), more = splat(0);
        for (ptrdiff_t j = first; j < smaller(first + PART, n); j++) {
            vec w = load(z + j * QKV_LANES) - t;
            w = choose(w > 0, w, splat(0));
            sum += entmax ? w * w : w;
            more += entmax ? 2 * w : choose(w > 0, splat(1), splat(0));
        }
        for (int i = 0; i < QKV_VEC; i++) f[i] += (double)sum[i];
        for (int i = 0; i < QKV_VEC; i++) slope[i] += (double)more[i];
    }
}

/* Until none rises any more; at the limit all that is left is rounding. */
INLINE vec find_thresholds(const real *z, ptrdiff_t n, const bool entmax)
{
    enum { LIMIT = 64 };
    vec t = splat(-1);
    for (int step = 0; step < LIMIT; step++) {
        double f[QKV_VEC], slope[QKV_VEC];
        vec next = t;
        excess(z, n, t, f, slope, entmax);
        for (int i = 0; i < QKV_VEC; i++)
            if (slope[i] > 0) next[i] = (real)((double)t[i] + f[i] / slope[i]);
        if (!which(next > t)) break;
        t = larger(next, t);
    }
    return t;
}

/* Turns candidates into z and finds what their weights are counted from. */
static void sparse_rows(FN(qkv_block) *t, real *x, const ptrdiff_t *count)
{
    bool entmax = t->in->a.normalize == QKV_ENTMAX_15;
    for (int lane = 0; lane < t->n_q; lane += QKV_VEC) {
        ptrdiff_t n = 0;
        for (int i = lane; i < lane + QKV_VEC && i < t->n_q; i++) n = count[i] > n ? count[i] : n;
        for (int i = lane; i < lane + QKV_VEC; i++)
            for (ptrdiff_t j = i < t->n_q ? count[i] : 0; j < n; j++) x[j * QKV_LANES + i] = -INF;
        vec best = load(t->best + lane);
        for (ptrdiff_t j = 0; j < n; j++) {
            vec z = load(x + j * QKV_LANES + lane) - best;
            store(x + j * QKV_LANES + lane, entmax ? z * (real)0.5 : z);
        }
        store(t->threshold + lane,
              entmax ? find_thresholds(x + lane, n, true) : find_thresholds(x + lane, n, false));
        store(t->best + lane, choose(best == INF, splat((real)NAN), best)); /* as softmax */
    }
}

/* False if the tie rule needs the keys' numbers. */
static bool top_k_row(FN(qkv_block) *t, int i, const real *x, ptrdiff_t n)
{
    ptrdiff_t k = smaller(t->in->a.top_k, n), equal = 0;
    t->winner[i] = PTRDIFF_MAX;
    t->threshold[i] = 1 / (real)k;
    if (n == 0) t->best[i] = INF; /* nothing is selected */
    if (n == 0) return true;
    t->best[i] = kth_largest(x, n, &k);
    for (ptrdiff_t j = 0; j < n; j++) equal += x[j * QKV_LANES] == t->best[i];
    if (equal > k) t->winner[i] = -k;
    return equal == k;
}

bool IN(qkv_select_end)(FN(qkv_block) *t)
{
    real bound[QKV_LANES] __attribute__((aligned(QKV_VECTOR_BYTES)));
    ptrdiff_t count[QKV_LANES];
    IN(qkv_span) span = IN(qkv_mask_span)(t);
    real *x = t->exponents + span.first * QKV_LANES;
    ptrdiff_t n = span.end - span.first;
    real range = t->in->a.normalize == QKV_ENTMAX_15 ? 2 : 1;
    bool complete = true;
    for (int i = 0; i < QKV_LANES; i += QKV_VEC) {
        vec max = largest(x + i, i < t->vectors * QKV_VEC ? n : 0);
        store(t->best + i, max);
        store(bound + i, choose(max > -INF, max - range, splat(INF)));
    }
    if (counts(t)) bound_of_top_k(t, x, n, bound);
    for (int i = t->n_q; i < QKV_LANES; i++) t->best[i] = bound[i] = INF;
    keep_candidates(t, x, n, bound, count);
    if (!counts(t)) {
        sparse_rows(t, x, count);
        return true;
    }
    for (int i = 0; i < t->n_q; i++)
        if (t->best[i] == t->best[i]) complete &= top_k_row(t, i, x + i, count[i]);
    return complete;
}

/* s + b of element x on. */
INLINE vec exponents(const FN(qkv_block) *t, int x, const bool biased)
{
    return biased ? exponent(load(t->s + x), load(t->b + x)) : load(t->s + x);
}

void IN(qkv_select_find)(FN(qkv_block) *t)
{
    bool biased = IN(qkv_biased)(t->in);
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < t->n_q; i++) {
            int v = i % QKV_VEC, x = j * QKV_LANES + i;
            if (t->winner[i] >= 0 || !FN(qkv_pair)(t, j, i)) continue;
            bool tie = exponents(t, x - v, biased)[v] == t->best[i];
            if (tie && ++t->winner[i] == 0) t->winner[i] = t->k0 + j;
        }
}

/* How far exponents are above their threshold: the weight of sparsemax, the root of entmax's. */
INLINE vec above(const FN(qkv_block) *t, int x, int lane, const bool biased)
{
    vec z = exponents(t, x, biased) - load(t->best + lane);
    return (t->in->a.normalize == QKV_ENTMAX_15 ? z * (real)0.5 : z) - load(t->threshold + lane);
}

INLINE bool select_lanes(FN(qkv_block) *t, int lane, const bool biased, const bool top)
{
    vec best = load(t->best + lane), last;
    ivec any = {0}, spoiled = best != best;
    for (int i = 0; i < QKV_VEC; i++) { /* the last row whose tie is taken */
        ptrdiff_t row = top ? t->winner[lane + i] - t->k0 : 0;
        last[i] = (real)(row < -1 ? -1 : smaller(row, QKV_KEYS));
    }
    for (int j = 0; j < t->n_k; j++) {
        int x = j * QKV_LANES + lane;
        uint8_t *seen = t->seen + x;
        vec e = exponents(t, x, biased);
        ivec keep = top ? (e > best) | ((e == best) & (last >= splat((real)j)))
                        : above(t, x, lane, biased) > 0;
        keep |= spoiled;
        if (t->coverage == QKV_SEES_SOME) keep &= from_bytes(seen);
        any |= keep;
        to_bytes(keep, seen);
    }
    return which(any != 0) != 0;
}

void IN(qkv_select_tile)(FN(qkv_block) *t)
{
    bool any = false, biased = IN(qkv_biased)(t->in);
    for (int i = t->n_q; i < QKV_LANES; i++) t->winner[i] = -1;
    for (int lane = 0; lane < t->vectors * QKV_VEC; lane += QKV_VEC)
        any |= biased ? (counts(t) ? select_lanes(t, lane, true, true)
                                   : select_lanes(t, lane, true, false))
                      : (counts(t) ? select_lanes(t, lane, false, true)
                                   : select_lanes(t, lane, false, false));
    for (int x = 0; x < t->n_k; x++)
        memset(t->seen + x * QKV_LANES + t->vectors * QKV_VEC, 0,
               (size_t)(QKV_LANES - t->vectors * QKV_VEC));
    t->coverage = any ? QKV_SEES_SOME : QKV_SEES_NONE;
}

/* 0 where nothing is selected, NaN where the row is. */
void IN(qkv_select_weights)(FN(qkv_block) *t)
{
    bool biased = IN(qkv_biased)(t->in);
    for (int lane = 0; lane < t->vectors * QKV_VEC; lane += QKV_VEC) {
        vec best = load(t->best + lane);
        for (int x = lane; x < t->n_k * QKV_LANES; x += QKV_LANES) {
            vec z = counts(t) ? load(t->threshold + lane) : above(t, x, lane, biased);
            if (t->in->a.normalize == QKV_ENTMAX_15) z *= z;
            z = choose(best != best, best, z);
            store(t->w + x, if_seen(t->seen + x, z, splat(0)));
        }
    }
}
