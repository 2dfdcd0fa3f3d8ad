/* score.c - mirror of src/score.c: ds, 0 at every hidden pair, becomes dq, dk, dscale, dbandwidth.
 *
 *   dot       s = scale q'k
 *             dq = scale sum_j ds_j k_j
 *             dk = scale sum_i ds_i q_i            (outer.c)
 *             dscale = sum_i q_i'(dq_i / scale)
 *   gaussian  s = -scale / 2 sum_c u_c^2, u_c = (q_c - k_c) / h_c
 *             dq_c = -scale sum_j ds_j u_c / h_c
 *             dk_c = scale sum_i ds_i u_c / h_c
 *             dh_c = scale / h_c sum ds u_c^2
 *             dscale = -1/2 sum_c sum ds u_c^2
 *   Laplace   s = -scale sum_c |u_c|: as the Gaussian with sign(u_c) for u_c, 0 at 0, and
 *             dh_c = scale / h_c sum ds |u_c|,  dscale = -sum_c sum ds |u_c|
 *   Cauchy    s = -scale log(1 + sum_c u_c^2): as the Gaussian with 2 ds / (1 + sum_c u_c^2) for
 *             ds, and dscale = -sum ds log(1 + sum_c u_c^2)
 *
 *   cosine    as the dot of queries and keys of unit length, and through the length |x|:
 *             dx = (dx^ - x^ x^'dx^) / |x| with x^ = x / |x|   (of keys: outer.c)
 *   additive  s = scale sum_c w_c r_c, r_c = tanh(q_c + k_c)
 *             dq_c = scale sum_j ds_j w_c (1 - r_c^2), dk_c the same over i,
 *             dw_c = scale sum ds r_c,  dscale = sum_c w_c sum ds r_c
 *
 * A hidden pair takes no part even if its query or key is NaN, hence the pairs are asked where a
 * tile is partly hidden. */
#include "grad/tile.h"
#include "src/simd/log.h"
#include "src/simd/tanh.h"

/* dq += sum_j ds_j k_j, which is pooling the keys by ds. */
static void dot_queries(FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    ptrdiff_t d = t->in->a.d_k;
    FN(qkv_pooling)
    p = {.t = t,
         .v = t->k,
         .d = d,
         .n_k = t->n_k,
         .vectors = t->vectors,
         .w = g->ds,
         .rescale = t->rescale,
         .o = g->dq,
         .by_pairs = t->coverage == QKV_SEES_SOME && !IN(qkv_rows_finite)(&t->k, t->n_k, d)};
    IN(qkv_pool_tile)(&p, NULL);
}

/* u = (q - k) / h of one coordinate of one key, 0 at hidden pairs. */
static void distances(const FN(qkv_block) *t, int j, ptrdiff_t c, real *u)
{
    real k = t->k.data[j * t->k.stride + c], inverse = t->inverse_bandwidth[c];
    const real *q = t->q + c * QKV_LANES;
    for (int i = 0; i < QKV_LANES; i++) u[i] = (q[i] - k) * inverse;
    if (t->coverage == QKV_SEES_ALL) return;
    for (int i = 0; i < QKV_LANES; i++) u[i] = t->seen[j * QKV_LANES + i] ? u[i] : 0;
}

/* ds becomes that of a Gaussian with the same slope. */
static void cauchy_to_gaussian(FN(qkv_grad_block) *g)
{
    typedef real lanes[QKV_LANES] __attribute__((aligned(QKV_VECTOR_BYTES)));
    const FN(qkv_block) *t = &g->t;
    real total = 0;
    for (int j = 0; j < t->n_k; j++) {
        lanes u, squares = {0}, parts;
        real *ds = g->ds + j * QKV_LANES;
        for (ptrdiff_t c = 0; c < t->in->a.d_k; c++) {
            distances(t, j, c, u);
            for (int i = 0; i < QKV_LANES; i++) squares[i] += u[i] * u[i];
        }
        for (int i = 0; i < QKV_LANES; i += QKV_VEC) {
            vec v = 1 + load(squares + i);
            store(parts + i, load(ds + i) * log_of(v));
            store(ds + i, load(ds + i) * (2 / v));
        }
        total += sum_of(parts, t->n_q);
    }
    g->partial[0] -= total;
}

/* One coordinate of a tile: its dq and dk; returns sum ds u^2, of the Laplace score sum ds |u|. */
static real distance_coordinate(FN(qkv_grad_block) *g, ptrdiff_t c)
{
    typedef real lanes[QKV_LANES] __attribute__((aligned(QKV_VECTOR_BYTES)));
    const FN(qkv_block) *t = &g->t;
    real inverse = t->inverse_bandwidth[c], factor = t->scale * inverse;
    bool laplace = t->in->a.score == QKV_SCORE_LAPLACE;
    lanes dq = {0}, squares = {0};
    for (int j = 0; j < t->n_k; j++) {
        lanes u, slope;
        distances(t, j, c, u);
        for (int i = 0; i < QKV_LANES; i++) {
            real way = laplace ? (real)(u[i] > 0) - (real)(u[i] < 0) : u[i];
            way = u[i] != u[i] ? u[i] : way;
            slope[i] = g->ds[j * QKV_LANES + i] * way;
            dq[i] -= slope[i];
            squares[i] += slope[i] * u[i];
        }
        g->dk[j * t->in->a.d_k + c] += sum_of(slope, t->n_q) * factor;
    }
    for (int i = 0; i < QKV_LANES; i++) g->dq[c * QKV_LANES + i] += dq[i] * inverse;
    return sum_of(squares, t->n_q);
}

static void distance(FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    const qkv_attention *a = &t->in->a;
    real share = a->score == QKV_SCORE_GAUSSIAN ? (real)0.5 : a->score == QKV_SCORE_LAPLACE;
    if (a->score == QKV_SCORE_CAUCHY) cauchy_to_gaussian(g);
    for (ptrdiff_t c = 0; c < a->d_k; c++) {
        real squares = distance_coordinate(g, c);
        g->partial[0] -= squares * share;
        g->partial[1 + (a->bandwidths > 1 ? c : 0)] += t->scale * t->inverse_bandwidth[c] * squares;
    }
}

/* One coordinate of a tile: its dq and dk; returns sum ds r. */
static real additive_coordinate(FN(qkv_grad_block) *g, ptrdiff_t c)
{
    typedef real lanes[QKV_LANES] __attribute__((aligned(QKV_VECTOR_BYTES)));
    const FN(qkv_block) *t = &g->t;
    real w = t->parameters[c];
    lanes products = {0};
    real *dq = g->dq + c * QKV_LANES;
    for (int j = 0; j < t->n_k; j++) {
        lanes slope = {0};
        real k = t->k.data[j * t->k.stride + c];
        for (int i = 0; i < t->vectors * QKV_VEC; i += QKV_VEC) {
            vec ds = load(g->ds + j * QKV_LANES + i), zero = splat(0);
            vec r = tanh_of(load(t->q + c * QKV_LANES + i) + k);
            vec y = choose(ds == 0, zero, ds * w * (1 - r) * (1 + r));
            store(slope + i, y);
            store(dq + i, load(dq + i) + y);
            store(products + i, load(products + i) + choose(ds == 0, zero, ds * r));
        }
        g->dk[j * t->in->a.d_k + c] += sum_of(slope, t->n_q) * t->scale;
    }
    return sum_of(products, t->n_q);
}

static void additive(FN(qkv_grad_block) *g)
{
    for (ptrdiff_t c = 0; c < g->t.in->a.d_k; c++) {
        real products = additive_coordinate(g, c);
        g->partial[0] += g->t.parameters[c] * products;
        g->partial[1 + c] += g->t.scale * products;
    }
}

/* da = scale ds, so that what the user adds needs no factor. */
static void user(FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    const FN(qkv_user_score) *user = t->in->user_score;
    const FN(qkv_score_tile) tile = IN(qkv_score_tile_of)(t);
    if (g->to->scale.data) {
        real *a = t->b, sum = 0; /* the bias is not needed any more */
        user->forward(user->context, &tile, a);
        for (int j = 0; j < t->n_k; j++)
            for (int i = 0; i < t->n_q; i++) {
                real ds = g->ds[j * QKV_LANES + i];
                sum += ds == 0 ? 0 : ds * a[j * QKV_LANES + i];
            }
        g->partial[0] += sum;
    }
    for (int x = 0; x < t->n_k * QKV_LANES; x++) g->ds[x] *= t->scale;
    user->backward(user->context, &tile, g->ds, g->dq, g->dk, g->partial + 1);
}

void IN(qkv_score_backward)(FN(qkv_grad_block) *g)
{
    if (qkv_is_distance(&g->t.in->a))
        distance(g);
    else if (g->t.in->a.score == QKV_SCORE_ADDITIVE)
        additive(g);
    else if (g->t.in->a.score == QKV_SCORE_USER)
        user(g);
    else if (g->to->q.data || g->to->scale.data)
        dot_queries(g);
}

/* sum_i q_i'dq_i, dq still without scale. What is 0 was not seen, and its query may be NaN. */
static real scale_gradient(const FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    const FN(qkv_view) *q = &t->in->q;
    real sum = 0;
    for (int i = 0; i < t->n_q; i++) {
        const real *x = FN(qkv_at)(q, t->batch, t->head, t->q0 + i);
        real along = 0;
        for (ptrdiff_t c = 0; c < t->in->a.d_k; c++) {
            real dq = g->dq[c * QKV_LANES + i];
            if (dq != 0) along += x[c * q->stride[3]] * dq;
        }
        if (t->in->a.score == QKV_SCORE_COSINE && along != 0) along *= t->q_inverse[i];
        sum += along;
    }
    return sum;
}

/* dq of queries of unit length becomes that of the queries. */
static void through_length(FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    const FN(qkv_view) *q = &t->in->q;
    for (int i = 0; i < t->n_q; i++) {
        const real *x = FN(qkv_at)(q, t->batch, t->head, t->q0 + i);
        real along = 0, inverse = t->q_inverse[i], *dq = g->dq + i;
        for (ptrdiff_t c = 0; c < t->in->a.d_k; c++)
            if (dq[c * QKV_LANES] != 0) along += x[c * q->stride[3]] * inverse * dq[c * QKV_LANES];
        for (ptrdiff_t c = 0; c < t->in->a.d_k; c++, dq += QKV_LANES)
            if (along != 0 || *dq != 0)
                *dq = (*dq - x[c * q->stride[3]] * inverse * along) * inverse;
    }
}

void IN(qkv_score_backward_end)(FN(qkv_grad_block) *g)
{
    const FN(qkv_block) *t = &g->t;
    const qkv_attention *a = &t->in->a;
    const FN(qkv_view) *to = &g->to->q;
    if (g->to->scale.data && qkv_is_dot(a)) g->partial[0] += scale_gradient(g);
    if (!to->data || a->d_k == 0) return;
    if (a->score == QKV_SCORE_COSINE) through_length(g);
    for (int i = 0; i < QKV_LANES; i++) t->rescale[i] = a->score == QKV_SCORE_USER ? 1 : t->scale;
    IN(qkv_from_lanes)
    (FN(qkv_at)(to, t->batch, t->head, t->q0), to->stride[2], to->stride[3], t->n_q, a->d_k, g->dq,
     t->rescale, true);
}
