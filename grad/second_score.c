/* second_score.c - the scores' own part of second.h. For each pair, a(q, k) and its tangent a';
 * then, given g = d phi / da and h = d phi / da', what q, k and the parameters get:
 *
 *   dot       a = q'k, a' = q_u'k + q'k_u:        dq = sum_j g k + h k_u,  dk = sum_i g q + h q_u
 *   cosine    the same of rows of unit length and their tangents; through the length at the end
 *   distance  with u = (q - k) / h_c and u' its tangent: f = g da/du + h da'/du, e = h da/du;
 *             dq = f / h_c - e h_c' / h_c^2, dk = -dq,
 *             dh_c = -f u / h_c + e (u h_c' / h_c - u') / h_c
 *   additive  with r = tanh(z), z = q + k: dz = g w r' + h (w' r' + w r'' z'), dw = g r + h r' z'
 */
#include "grad/second.h"
#include "src/simd/log.h"
#include "src/simd/tanh.h"

/* ---- a and a' ---- */

static void dots(FN(qkv_second) *x)
{
    FN(qkv_block) *t = &x->t;
    ptrdiff_t d = t->in->a.d_k;
    const FN(qkv_rows) k_u = {.data = x->k_u, .stride = d};
    IN(qkv_dot_tile)(&t->k, t->n_k, x->q, d, t->vectors, x->a, t->tile_max, NULL);
    IN(qkv_dot_tile)(&t->k, t->n_k, x->q_u, d, t->vectors, x->a_u, t->tile_max, NULL);
    IN(qkv_dot_tile)(&k_u, t->n_k, x->q, d, t->vectors, x->r, t->tile_max, NULL);
    for (int j = 0; j < t->n_k; j++)
        for (int i = j * QKV_LANES; i < j * QKV_LANES + t->vectors * QKV_VEC; i++)
            x->a_u[i] += x->r[i];
}

/* u and u' of a coordinate. */
INLINE void distance_of(const FN(qkv_second) *x, int lane, int j, ptrdiff_t c, vec *u, vec *u_u)
{
    const FN(qkv_block) *t = &x->t;
    real inverse = t->inverse_bandwidth[c];
    ptrdiff_t d = t->in->a.d_k, at = c * QKV_LANES + lane;
    *u = (load(x->q + at) - t->k.data[j * t->k.stride + c]) * inverse;
    *u_u = (load(x->q_u + at) - x->k_u[j * d + c] - *u * x->parameters_u[c]) * inverse;
}

INLINE vec sign_of(vec x)
{
    return choose(x > 0, splat(1), choose(x < 0, splat(-1), x * 0));
}

/* sum u^2 (Laplace: |u|) and sum u u' (Laplace: of the sign). */
INLINE void distance_sums(const FN(qkv_second) *x, int lane, int j, vec *squares, vec *products)
{
    bool laplace = x->t.in->a.score == QKV_SCORE_LAPLACE;
    *squares = *products = splat(0);
    for (ptrdiff_t c = 0; c < x->t.in->a.d_k; c++) {
        vec u, u_u;
        distance_of(x, lane, j, c, &u, &u_u);
        vec way = laplace ? sign_of(u) : u;
        *squares += way * u;
        *products += way * u_u;
    }
}

static void distances(FN(qkv_second) *x)
{
    const FN(qkv_block) *t = &x->t;
    qkv_score kind = t->in->a.score;
    for (int lane = 0; lane < t->vectors * QKV_VEC; lane += QKV_VEC)
        for (int j = 0; j < t->n_k; j++) {
            vec squares, products;
            int at = j * QKV_LANES + lane;
            distance_sums(x, lane, j, &squares, &products);
            vec a = kind == QKV_SCORE_GAUSSIAN  ? squares * (real)-0.5
                    : kind == QKV_SCORE_LAPLACE ? -squares
                                                : -log_of(1 + squares);
            store(x->a + at, a);
            store(x->a_u + at,
                  kind == QKV_SCORE_CAUCHY ? products * -2 / (1 + squares) : -products);
        }
}

static void sums_of_tangents(FN(qkv_second) *x)
{
    const FN(qkv_block) *t = &x->t;
    ptrdiff_t d = t->in->a.d_k;
    for (int lane = 0; lane < t->vectors * QKV_VEC; lane += QKV_VEC)
        for (int j = 0; j < t->n_k; j++) {
            vec a = splat(0), a_u = splat(0);
            for (ptrdiff_t c = 0; c < d; c++) {
                vec r = tanh_of(load(x->q + c * QKV_LANES + lane) + t->k.data[j * t->k.stride + c]);
                vec z_u = load(x->q_u + c * QKV_LANES + lane) + x->k_u[j * d + c];
                a += t->parameters[c] * r;
                a_u += x->parameters_u[c] * r + t->parameters[c] * (1 - r) * (1 + r) * z_u;
            }
            store(x->a + j * QKV_LANES + lane, a);
            store(x->a_u + j * QKV_LANES + lane, a_u);
        }
}

void IN(qkv_second_score)(FN(qkv_second) *x)
{
    if (qkv_is_dot(&x->t.in->a))
        dots(x);
    else if (qkv_is_distance(&x->t.in->a))
        distances(x);
    else
        sums_of_tangents(x);
}

/* ---- Back ---- */

void IN(qkv_second_outer)(const FN(qkv_second) *x, const real *p, const real *rows,
                          const real *lanes, ptrdiff_t d, real *dx)
{
    const FN(qkv_block) *t = &x->t;
    ptrdiff_t ld = IN(qkv_padded)(d);
    IN(qkv_outer_product)(p, rows, t->n_q, t->n_k, ld, dx);
    for (int i = 0; i < t->n_q && !x->finite; i++)
        for (ptrdiff_t c = 0; c < d; c++) {
            real y = lanes[c * QKV_LANES + i];
            for (int j = 0; j < t->n_k && !isfinite(y); j++)
                if (p[j * QKV_LANES + i] != 0) dx[j * ld + c] += p[j * QKV_LANES + i] * y;
        }
}

/* Gradients g1 by x / |x| and g2 by its tangent x_u become the gradient by x, in g1. With r =
 * 1/|x|: r (g1 - x x'g1 - x g2'x_u - x_u x'g2 - r along (g2 - x x'g2)). */
static void through_length(const real *x, const real *x_u, real *g1, const real *g2, ptrdiff_t step,
                           ptrdiff_t d, real r, real along)
{
    real x_g1 = 0, x_g2 = 0, g2_x_u = 0;
    for (ptrdiff_t c = 0; c < d * step; c += step) {
        x_g1 += x[c] * g1[c];
        x_g2 += x[c] * g2[c];
        g2_x_u += g2[c] * x_u[c];
    }
    for (ptrdiff_t c = 0; c < d * step; c += step)
        g1[c] = r * (g1[c] - x[c] * (x_g1 + g2_x_u) - x_u[c] * x_g2 -
                     r * along * (g2[c] - x[c] * x_g2));
}

static void chain_dots(FN(qkv_second) *x)
{
    FN(qkv_block) *t = &x->t;
    ptrdiff_t d = t->in->a.d_k, ld = IN(qkv_padded)(d);
    const FN(qkv_rows) k_u = {.data = x->k_u, .stride = d};
    IN(qkv_second_pool)(x, t->k, d, x->g, x->dq);
    IN(qkv_second_pool)(x, k_u, d, x->h, x->dq);
    IN(qkv_second_outer)(x, x->g, x->q_rows, x->q, d, x->dk);
    IN(qkv_second_outer)(x, x->h, x->q_u_rows, x->q_u, d, x->dk);
    if (!x->unit) return;
    IN(qkv_second_pool)(x, t->k, d, x->h, x->dq_u);
    IN(qkv_second_outer)(x, x->h, x->q_rows, x->q, d, x->dk_u);
    for (int j = 0; j < t->n_k; j++) {
        bool seen = false;
        for (int i = 0; i < t->n_q; i++) seen |= FN(qkv_pair)(t, j, i);
        if (seen)
            through_length(t->k.data + j * t->k.stride, x->k_u + j * d, x->dk + j * ld,
                           x->dk_u + j * ld, 1, d, t->k_inverse[j], x->k_along[j]);
    }
}

static void chain_distances(FN(qkv_second) *x)
{
    const FN(qkv_block) *t = &x->t;
    const qkv_attention *a = &t->in->a;
    ptrdiff_t d = a->d_k, ld = IN(qkv_padded)(d);
    bool laplace = a->score == QKV_SCORE_LAPLACE, cauchy = a->score == QKV_SCORE_CAUCHY;
    for (int lane = 0; lane < t->vectors * QKV_VEC; lane += QKV_VEC)
        for (int j = 0; j < t->n_k; j++) {
            vec g = load(x->g + j * QKV_LANES + lane), h = load(x->h + j * QKV_LANES + lane);
            ivec none = (g == 0) & (h == 0);
            vec squares, products, zero = splat(0);
            distance_sums(x, lane, j, &squares, &products);
            vec factor = cauchy ? 2 / (1 + squares) : splat(1); /* da/du = -factor u */
            for (ptrdiff_t c = 0; c < d; c++) {
                vec u, u_u;
                real inverse = t->inverse_bandwidth[c], h_u = x->parameters_u[c];
                distance_of(x, lane, j, c, &u, &u_u);
                vec to_u = -factor * (laplace ? sign_of(u) : u);
                vec both = laplace ? zero : -factor * u_u;
                if (cauchy) both += factor * factor * u * products;
                vec f = g * to_u + h * both, e = h * to_u;
                vec dq = choose(none, zero, (f - e * (h_u * inverse)) * inverse);
                vec dh = (e * (u * (h_u * inverse) - u_u) - f * u) * inverse;
                real *to = x->dq + c * QKV_LANES + lane;
                store(to, load(to) + dq);
                x->dk[j * ld + c] -= sum_of_lanes(dq);
                x->partial[1 + (a->bandwidths > 1 ? c : 0)] += sum_of_lanes(choose(none, zero, dh));
            }
        }
}

static void chain_sums(FN(qkv_second) *x)
{
    const FN(qkv_block) *t = &x->t;
    ptrdiff_t d = t->in->a.d_k, ld = IN(qkv_padded)(d);
    for (int lane = 0; lane < t->vectors * QKV_VEC; lane += QKV_VEC)
        for (int j = 0; j < t->n_k; j++) {
            vec g = load(x->g + j * QKV_LANES + lane), h = load(x->h + j * QKV_LANES + lane);
            ivec none = (g == 0) & (h == 0);
            for (ptrdiff_t c = 0; c < d; c++) {
                real w = t->parameters[c];
                vec r = tanh_of(load(x->q + c * QKV_LANES + lane) + t->k.data[j * t->k.stride + c]);
                vec z_u = load(x->q_u + c * QKV_LANES + lane) + x->k_u[j * d + c];
                vec slope = (1 - r) * (1 + r), zero = splat(0);
                vec dz = g * w * slope + h * slope * (x->parameters_u[c] - 2 * w * r * z_u);
                dz = choose(none, zero, dz);
                real *to = x->dq + c * QKV_LANES + lane;
                store(to, load(to) + dz);
                x->dk[j * ld + c] += sum_of_lanes(dz);
                x->partial[1 + c] += sum_of_lanes(choose(none, zero, g * r + h * slope * z_u));
            }
        }
}

void IN(qkv_second_chain)(FN(qkv_second) *x)
{
    if (qkv_is_dot(&x->t.in->a))
        chain_dots(x);
    else if (qkv_is_distance(&x->t.in->a))
        chain_distances(x);
    else
        chain_sums(x);
}

void IN(qkv_second_chain_end)(FN(qkv_second) *x)
{
    const FN(qkv_block) *t = &x->t;
    const FN(qkv_view) *to = &x->to->q;
    ptrdiff_t d = t->in->a.d_k;
    if (!to->data || !d) return;
    IN(qkv_span) span = IN(qkv_mask_span)(t);
    for (int i = 0; x->unit && i < t->n_q && span.first < span.end; i++) {
        bool moves = false; /* what sees nothing may be NaN */
        for (ptrdiff_t c = 0; c < d; c++)
            moves |= x->dq[c * QKV_LANES + i] != 0 || x->dq_u[c * QKV_LANES + i] != 0;
        if (moves)
            through_length(x->q + i, x->q_u + i, x->dq + i, x->dq_u + i, QKV_LANES, d,
                           t->q_inverse[i], x->q_along[i]);
    }
    IN(qkv_from_lanes)
    (FN(qkv_at)(to, t->batch, t->head, t->q0), to->stride[2], to->stride[3], t->n_q, d, x->dq,
     x->ones, true);
}
