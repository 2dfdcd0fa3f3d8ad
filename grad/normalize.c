/* normalize.c - mirror of src/normalize.c. With s the score, b the bias, and dw = d_o'v:
 *
 *   softmax     w = exp(s + b) / sum   db = w (dw - delta)   ds = db
 *   kernel sum  w = K(s) e^b / sum     db = w (dw - delta)   ds = K'(s) e^b / sum (dw - delta)
 *   none        w = f(s + b)           db = f' dw            ds = db
 *   none        w = K(s) e^b           db = w dw             ds = K'(s) e^b dw
 *   sparsemax   w = (s + b - t)_+      db = g (dw - delta), g = 1 where w > 0         ds = db
 *   1.5-entmax  w = ((s + b)/2 - t)_+^2   the same with g = sqrt(w)
 *   hard, uniform, uniform top-k: the weights do not move with the scores (not called)
 *
 * where delta = sum_j w_j dw_j - d_lse = d_o'o - d_lse, one number a row; of sparsemax and entmax
 * delta = sum_j g_j dw_j / sum_j g_j (Peters, Niculae & Martins 2019, eq. 14). */
#include "grad/tile.h"

/* dK/ds at s = -u^2/2. The triangle has a corner at u = 0, where the subgradient 0 is taken: 1/u
 * would meet q - k = 0. */
static real kernel_slope(qkv_kernel kernel, real s)
{
    real u2 = -2 * s;
    if (u2 != u2) return u2;
    if (u2 >= 1) return 0;
    real u = sqrt(u2), rest;
    switch (kernel) {
    case QKV_KERNEL_TRIANGULAR:
        return u2 >= REAL_MIN ? 1 / u : 0;
    case QKV_KERNEL_EPANECHNIKOV:
        return 2;
    case QKV_KERNEL_BIWEIGHT:
        return 4 * (1 - u2);
    case QKV_KERNEL_TRIWEIGHT:
        return 6 * (1 - u2) * (1 - u2);
    case QKV_KERNEL_TRICUBE:
        rest = 1 - u2 * u;
        return 9 * u * rest * rest;
    case QKV_KERNEL_COSINE:
        rest = (real)(M_PI / 2);
        return u2 >= REAL_MIN ? rest * sin(rest * u) / u : rest * rest;
    case QKV_KERNEL_BOXCAR:
    case QKV_KERNEL_CONSTANT:
        break;
    }
    return 0;
}

static void softmax(FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < QKV_LANES; i++) {
            int x = j * QKV_LANES + i;
            g->ds[x] = g->dw[x] = t->w[x] * (g->dw[x] - g->delta[i]);
        }
}

/* A row whose support is empty passes no gradient on (attention.c drops it). One that fell back to
 * its nearest keys has no slope: all of them lie outside. */
static void kernel_sum(FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    qkv_kernel kernel = t->in->a.kernel;
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < QKV_LANES; i++) {
            int x = j * QKV_LANES + i;
            bool empty = t->log_sum[i] == (real)-INFINITY;
            real rest = empty ? 0 : g->dw[x] - g->delta[i];
            real share = exp(FN(qkv_bias_at)(t, x) - t->max[i] - t->log_sum[i]);
            g->dw[x] = empty ? 0 : t->w[x] * rest;
            real slope = kernel_slope(kernel, g->ds[x]);
            /* Outside the support the share may be anything, infinite too. */
            g->ds[x] = empty || slope == 0 ? 0 : slope * share * rest;
        }
}

/* How weights move with their exponents, before the row's term: 0 where nothing is selected. */
INLINE vec sparse_slope(const qkv_attention *a, vec w)
{
    if (a->normalize == QKV_SPARSEMAX) return choose(w > 0, splat(1), w);
    for (int i = 0; i < QKV_VEC; i++) w[i] = sqrt(w[i]);
    return w;
}

void IN(qkv_sparse_row_terms)(const FN(qkv_grad_block) *g, real *g_dw, real *sum)
{
    const FN(qkv_block) *t = &g->t;
    for (int i = 0; i < t->vectors * QKV_VEC; i += QKV_VEC) {
        vec products = load(g_dw + i), slopes = load(sum + i);
        for (int x = i; x < t->n_k * QKV_LANES; x += QKV_LANES) {
            vec slope = sparse_slope(&t->in->a, load(t->w + x));
            slopes += slope;
            products += choose(slope == 0, splat(0), slope * load(g->dw + x));
        }
        store(g_dw + i, products);
        store(sum + i, slopes);
    }
}

static void sparse(FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    for (int x = 0; x < t->n_k * QKV_LANES; x += QKV_VEC) {
        vec rest = load(g->dw + x) - load(g->delta + x % QKV_LANES);
        vec ds = sparse_slope(&t->in->a, load(t->w + x)) * rest;
        store(g->ds + x, ds);
        store(g->dw + x, ds);
    }
}

/* w (1 - w) without the cancellation of 1 - w near 1. */
static real sigmoid_slope(real x)
{
    real e = exp(-fabs(x));
    return e / ((1 + e) * (1 + e));
}

static void unnormalized(FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    for (int x = 0; x < t->n_k * QKV_LANES; x++) {
        real dw = g->dw[x], w = t->w[x], s = g->ds[x];
        switch (t->in->a.normalize) {
        case QKV_NONE_SIGMOID:
            g->ds[x] = g->dw[x] = dw * sigmoid_slope(s + FN(qkv_bias_at)(t, x));
            break;
        case QKV_NONE_IDENTITY:
            g->ds[x] = dw;
            break;
        case QKV_NONE_KERNEL:
            g->dw[x] = dw * w;
            g->ds[x] = kernel_slope(t->in->a.kernel, s);
            if (g->ds[x] != 0) g->ds[x] *= dw * exp(FN(qkv_bias_at)(t, x));
            break;
        default:
            g->ds[x] = g->dw[x] = dw * w;
            break; /* exp is its own derivative */
        }
    }
}

/* The sink's weight p loses what the others win: dsink = -sum p delta over the rows. */
void IN(qkv_sink_backward)(const FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    real sink = *FN(qkv_at)(&t->in->sink, t->batch, t->head, 0) * (real)LOG2E, sum = 0;
    for (int i = 0; i < t->n_q && sink != (real)-INFINITY; i++)
        sum -= exp2(sink - t->max[i] - t->log_sum[i]) * g->delta[i];
    g->partial[IN(qkv_at_sink)(&t->in->a)] += sum;
}

void IN(qkv_normalize_backward)(FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    if (qkv_is_softmax(&t->in->a))
        softmax(g);
    else if (t->in->a.normalize == QKV_KERNEL_SUM)
        kernel_sum(g);
    else if (qkv_has_row_pass(&t->in->a))
        sparse(g);
    else
        unnormalized(g);
    if (t->coverage == QKV_SEES_ALL) return;
    for (int x = 0; x < t->n_k * QKV_LANES; x++)
        if (!t->seen[x]) g->dw[x] = g->ds[x] = 0;
}
