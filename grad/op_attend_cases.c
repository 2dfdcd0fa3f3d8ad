/* op_attend_cases.c - what the gradients of attention on the tape are checked on. */
#include "grad/tape.h"

static qkv_var plain(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attend_vars in = {.q = x[0], .k = x[1], .v = x[2]};
    return qkv_attend(tape, &(qkv_attention){0}, &in);
}

static qkv_var itself(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attend_vars in = {.q = x[0], .k = x[0], .v = x[0]};
    return qkv_attend(tape, &(qkv_attention){.score = QKV_SCORE_DOT}, &in);
}

static qkv_var causal_bias(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attention a = {.mask = {.causal = true, .causal_offset = 1}};
    const qkv_attend_vars in = {.q = x[0], .k = x[1], .v = x[2], .bias = x[3], .scale = x[4]};
    return qkv_attend(tape, &a, &in);
}

static qkv_var window(qkv_tape *tape, const qkv_var *x)
{
    static const int64_t lengths[] = {7, 4}, offsets[] = {0, -1};
    const qkv_attention a = {.mask = {.window = true, .window_left = 2, .window_right = 1}};
    const qkv_attend_vars in = {
        .q = x[0], .k = x[1], .v = x[2], .lengths = lengths, .causal_offsets = offsets};
    return qkv_attend(tape, &a, &in);
}

static qkv_var modified(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attention a = {.softcap = 0.7, .mask = {.causal = true, .causal_offset = 1}};
    const qkv_attend_vars in = {
        .q = x[0], .k = x[1], .v = x[2], .bias = x[3], .slopes = x[4], .sink = x[5]};
    return qkv_attend(tape, &a, &in);
}

static qkv_var unit_length(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attend_vars in = {.q = x[0], .k = x[1], .v = x[2], .scale = x[3]};
    return qkv_attend(tape, &(qkv_attention){.score = QKV_SCORE_COSINE}, &in);
}

static qkv_var bilinear(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attend_vars in = {.q = x[0], .k = x[1], .v = x[2], .m = x[3]};
    return qkv_attend(tape, &(qkv_attention){.score = QKV_SCORE_DOT}, &in);
}

static qkv_var additive(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attend_vars in = {
        .q = x[0], .k = x[1], .v = x[2], .w_q = x[3], .w_k = x[4], .w = x[5]};
    return qkv_attend(tape, &(qkv_attention){.score = QKV_SCORE_ADDITIVE}, &in);
}

static qkv_var relative(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attention a = {.relative_left = 2, .relative_right = 1};
    const qkv_attend_vars in = {.q = x[0], .k = x[1], .v = x[2], .relative = x[3]};
    return qkv_attend(tape, &a, &in);
}

static qkv_var variance(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attend_vars in = {.q = x[0], .k = x[1], .v = x[2]};
    return qkv_attend_variance(tape, &(qkv_attention){0}, &in);
}

static qkv_var covariance(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attention a = {.score = QKV_SCORE_GAUSSIAN};
    const qkv_attend_vars in = {.q = x[0], .k = x[1], .v = x[2]};
    return qkv_attend_covariance(tape, &a, &in);
}

static qkv_var multi_head(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attention a = {.heads = 4, .kv_heads = 2, .mask = {.causal = true}};
    const qkv_multi_head_vars in = {
        .x_q = x[0], .w_q = x[1], .w_k = x[2], .w_v = x[3], .w_o = x[4], .b_q = x[5], .b_o = x[6]};
    return qkv_multi_head_attention(tape, &a, &in);
}

static qkv_var dropout(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attention a = {.dropout = 0.3, .dropout_seed = 3};
    const qkv_attend_vars in = {.q = x[0], .k = x[1], .v = x[2]};
    return qkv_attend(tape, &a, &in);
}

/* Hides a third of the pairs, and all of query 2's. */
static void hide_some(void *context, const qkv_mask_tile *tile, uint8_t *seen)
{
    (void)context;
    for (ptrdiff_t i = 0; i < tile->n_q; i++)
        for (ptrdiff_t j = 0; j < tile->n_k; j++) {
            ptrdiff_t q = tile->query + i, k = tile->key + j;
            if ((tile->batch + tile->head + q + 2 * k) % 3 == 0 || q == 2)
                seen[i * tile->stride_q + j * tile->stride_k] = 0;
        }
}

static qkv_var masked(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attend_vars in = {
        .q = x[0], .k = x[1], .v = x[2], .bias = x[3], .mask_rule = {.fill = hide_some}};
    return qkv_attend(tape, &(qkv_attention){0}, &in);
}

static const int64_t starts_q[] = {0, 3, 3, 5}, starts_k[] = {0, 2, 3, 7};

static qkv_var ragged(qkv_tape *tape, const qkv_var *x)
{
    static const int64_t offsets[] = {1, 0, 2};
    const qkv_attention a = {.batch = 3, .mask = {.causal = true}};
    const qkv_attend_vars in = {.q = x[0],
                                .k = x[1],
                                .v = x[2],
                                .bias = x[3],
                                .scale = x[4],
                                .slopes = x[5],
                                .sink = x[6],
                                .causal_offsets = offsets,
                                .starts_q = starts_q,
                                .starts_k = starts_k};
    return qkv_attend(tape, &a, &in);
}

static qkv_var ragged_gaussian(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attention a = {.batch = 3, .score = QKV_SCORE_GAUSSIAN};
    const qkv_attend_vars in = {.q = x[0],
                                .k = x[1],
                                .v = x[2],
                                .bandwidth = x[3],
                                .starts_q = starts_q,
                                .starts_k = starts_k};
    return qkv_attend(tape, &a, &in);
}

static qkv_var gaussian(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attention a = {.score = QKV_SCORE_GAUSSIAN, .mask = {.leave_one_out = true}};
    const qkv_attend_vars in = {.q = x[0], .k = x[1], .v = x[2], .bandwidth = x[3]};
    return qkv_attend(tape, &a, &in);
}

static qkv_var kernel(qkv_tape *tape, const qkv_var *x, qkv_normalize normalize, qkv_kernel kernel)
{
    const qkv_attention a = {.score = QKV_SCORE_GAUSSIAN, .normalize = normalize, .kernel = kernel};
    const qkv_attend_vars in = {.q = x[0], .k = x[1], .v = x[2], .bias = x[3], .bandwidth = x[4]};
    return qkv_attend(tape, &a, &in);
}

static qkv_var triangular(qkv_tape *tape, const qkv_var *x)
{
    return kernel(tape, x, QKV_KERNEL_SUM, QKV_KERNEL_TRIANGULAR);
}

static qkv_var epanechnikov(qkv_tape *tape, const qkv_var *x)
{
    return kernel(tape, x, QKV_KERNEL_SUM, QKV_KERNEL_EPANECHNIKOV);
}

static qkv_var biweight(qkv_tape *tape, const qkv_var *x)
{
    return kernel(tape, x, QKV_KERNEL_SUM, QKV_KERNEL_BIWEIGHT);
}

static qkv_var triweight(qkv_tape *tape, const qkv_var *x)
{
    return kernel(tape, x, QKV_KERNEL_SUM, QKV_KERNEL_TRIWEIGHT);
}

static qkv_var tricube(qkv_tape *tape, const qkv_var *x)
{
    return kernel(tape, x, QKV_KERNEL_SUM, QKV_KERNEL_TRICUBE);
}

static qkv_var cosine(qkv_tape *tape, const qkv_var *x)
{
    return kernel(tape, x, QKV_KERNEL_SUM, QKV_KERNEL_COSINE);
}

static qkv_var none_kernel(qkv_tape *tape, const qkv_var *x)
{
    return kernel(tape, x, QKV_NONE_KERNEL, QKV_KERNEL_EPANECHNIKOV);
}

/* The kernels whose weights are steps: only values and bias have a slope. */
static qkv_var boxcar(qkv_tape *tape, const qkv_var *x)
{
    return kernel(tape, x, QKV_KERNEL_SUM, QKV_KERNEL_BOXCAR);
}

static qkv_var constant(qkv_tape *tape, const qkv_var *x)
{
    return kernel(tape, x, QKV_KERNEL_SUM, QKV_KERNEL_CONSTANT);
}

static qkv_var normalized(qkv_tape *tape, const qkv_var *x, qkv_normalize normalize)
{
    const qkv_attend_vars in = {.q = x[0], .k = x[1], .v = x[2]};
    return qkv_attend(tape, &(qkv_attention){.normalize = normalize}, &in);
}

static qkv_var hard(qkv_tape *tape, const qkv_var *x)
{
    return normalized(tape, x, QKV_HARD);
}

static qkv_var uniform(qkv_tape *tape, const qkv_var *x)
{
    return normalized(tape, x, QKV_UNIFORM);
}

static qkv_var top_k(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attend_vars in = {.q = x[0], .k = x[1], .v = x[2]};
    return qkv_attend(tape, &(qkv_attention){.normalize = QKV_TOP_K, .top_k = 3}, &in);
}

static qkv_var top_k_uniform(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attend_vars in = {.q = x[0], .k = x[1], .v = x[2]};
    return qkv_attend(tape, &(qkv_attention){.normalize = QKV_TOP_K_UNIFORM, .top_k = 3}, &in);
}

static qkv_var sparsemax(qkv_tape *tape, const qkv_var *x)
{
    return normalized(tape, x, QKV_SPARSEMAX);
}

static qkv_var entmax_15(qkv_tape *tape, const qkv_var *x)
{
    return normalized(tape, x, QKV_ENTMAX_15);
}

static qkv_var none_exp(qkv_tape *tape, const qkv_var *x)
{
    return normalized(tape, x, QKV_NONE_EXP);
}

static qkv_var none_sigmoid(qkv_tape *tape, const qkv_var *x)
{
    return normalized(tape, x, QKV_NONE_SIGMOID);
}

static qkv_var none_identity(qkv_tape *tape, const qkv_var *x)
{
    return normalized(tape, x, QKV_NONE_IDENTITY);
}

static qkv_var no_key_first(qkv_tape *tape, const qkv_var *x)
{
    const qkv_attention a = {.mask = {.causal = true, .causal_offset = -1}};
    const qkv_attend_vars in = {.q = x[0], .k = x[1], .v = x[2]};
    return qkv_attend(tape, &a, &in);
}

/* Scores of 1e4: what all keys have in common must cancel in the weights. */
static qkv_var large(qkv_tape *tape, const qkv_var *x)
{
    qkv_var hundred = qkv_constant(tape, 100);
    const qkv_attend_vars in = {
        .q = qkv_add(tape, x[0], hundred),
        .k = qkv_add(tape, qkv_mul(tape, x[1], qkv_constant(tape, 0.125)), hundred),
        .v = x[2]};
    return qkv_attend(tape, &(qkv_attention){.score = QKV_SCORE_DOT}, &in);
}

/* Values within 0.4 and bandwidths near 2 keep every distance inside the support, away from the
 * kink at its edge. */
#define KERNEL_CASE(name, without_slope)                                                  \
    {                                                                                     \
        .label = "attend " #name, .n_input = 5,                                           \
        .input = {{2, {5, 3}}, {2, {7, 3}}, {2, {7, 2}}, {2, {5, 7}}, {0}}, .lower = 0.6, \
        .upper = 1, .zero = (without_slope), .apply = name                                \
    }
#define NORMALIZE_CASE(name, without_slope)                                                       \
    {                                                                                             \
        .label = "attend " #name, .n_input = 3, .input = {{2, {5, 3}}, {2, {7, 3}}, {2, {7, 2}}}, \
        .zero = (without_slope), .apply = name                                                    \
    }
/* Of weights that are a step function of the scores. */
enum { NONE = 0, QUERY_KEY = 1 << 0 | 1 << 1, QUERY_KEY_BANDWIDTH = QUERY_KEY | 1 << 4 };

const qkv_op_case qkv_cases_attend[] = {
    {.n_input = 3,
     .input = {{4, {2, 4, 5, 3}}, {4, {2, 2, 7, 3}}, {4, {2, 2, 7, 2}}},
     .apply = plain},
    {.label = "attend to itself", .n_input = 1, .input = {{3, {2, 6, 3}}}, .apply = itself},
    {.label = "attend causal, bias, scale per head",
     .n_input = 5,
     .input = {{4, {2, 2, 5, 3}}, {4, {2, 1, 7, 3}}, {4, {2, 1, 7, 2}}, {3, {2, 1, 7}}, {1, {2}}},
     .apply = causal_bias},
    {.label = "attend in a window, lengths and offsets",
     .n_input = 3,
     .input = {{3, {2, 5, 3}}, {3, {2, 7, 3}}, {3, {2, 7, 2}}},
     .apply = window},
    {.label = "attend softcap, bias, slopes, sink",
     .n_input = 6,
     .input = {{4, {2, 2, 5, 3}}, {4, {2, 1, 7, 3}}, {4, {2, 1, 7, 2}}, {2, {5, 7}}, {1, {2}}, {0}},
     .apply = modified},
    {.label = "attend under a rule of the caller's",
     .n_input = 4,
     .input = {{4, {2, 2, 5, 3}}, {4, {2, 1, 7, 3}}, {4, {2, 1, 7, 2}}, {2, {5, 7}}},
     .apply = masked},
    {.label = "attend ragged, causal, bias, scale, slopes, sink",
     .n_input = 7,
     .input =
         {{3, {5, 4, 3}}, {3, {7, 2, 3}}, {3, {7, 2, 2}}, {2, {5, 4}}, {1, {4}}, {1, {4}}, {0}},
     .apply = ragged},
    {.label = "attend ragged, one head, gaussian",
     .n_input = 4,
     .input = {{2, {5, 3}}, {2, {7, 3}}, {2, {7, 2}}, {1, {3}}},
     .lower = 0.5,
     .upper = 2,
     .apply = ragged_gaussian},
    {.label = "attend gaussian, one bandwidth, leave one out",
     .n_input = 4,
     .input = {{2, {6, 3}}, {2, {7, 3}}, {2, {7, 2}}, {0}},
     .lower = 0.5,
     .upper = 2,
     .apply = gaussian},
    {.label = "attend gaussian, a bandwidth a column",
     .n_input = 4,
     .input = {{2, {6, 3}}, {2, {7, 3}}, {2, {7, 2}}, {1, {3}}},
     .lower = 0.5,
     .upper = 2,
     .apply = gaussian},
    {.label = "attend cosine, scale",
     .n_input = 4,
     .input = {{2, {5, 3}}, {2, {7, 3}}, {2, {7, 2}}, {0}},
     .apply = unit_length},
    {.label = "attend bilinear",
     .n_input = 4,
     .input = {{2, {5, 4}}, {2, {7, 3}}, {2, {7, 2}}, {2, {4, 3}}},
     .apply = bilinear},
    {.label = "attend bilinear, a matrix a head",
     .n_input = 4,
     .input = {{4, {1, 2, 3, 4}}, {4, {1, 1, 5, 3}}, {4, {1, 1, 5, 2}}, {3, {2, 4, 3}}},
     .apply = bilinear},
    {.label = "attend additive",
     .n_input = 6,
     .input = {{2, {5, 4}}, {2, {7, 3}}, {2, {7, 2}}, {2, {6, 4}}, {2, {6, 3}}, {1, {6}}},
     .apply = additive},
    {.label = "attend relative positions",
     .n_input = 4,
     .input = {{3, {2, 5, 3}}, {3, {2, 6, 3}}, {3, {2, 6, 2}}, {1, {4}}},
     .apply = relative},
    {.label = "attend relative positions, a table a head",
     .n_input = 4,
     .input = {{4, {1, 2, 5, 3}}, {4, {1, 2, 6, 3}}, {4, {1, 2, 6, 2}}, {2, {2, 4}}},
     .apply = relative},
    {.label = "variance of the values",
     .n_input = 3,
     .input = {{4, {1, 2, 4, 3}}, {4, {1, 2, 6, 3}}, {4, {1, 2, 6, 2}}},
     .apply = variance},
    {.label = "covariance of the values",
     .n_input = 3,
     .input = {{2, {4, 3}}, {2, {6, 3}}, {2, {6, 2}}},
     .apply = covariance},
    {.label = "multi-head attention",
     .n_input = 7,
     .input =
         {{3, {2, 3, 5}}, {2, {5, 8}}, {2, {5, 4}}, {2, {5, 6}}, {2, {12, 3}}, {1, {8}}, {1, {3}}},
     .apply = multi_head},
    {.label = "attend, scores of 1e4",
     .n_input = 3,
     .input = {{3, {2, 5, 1}}, {3, {2, 7, 1}}, {3, {2, 7, 2}}},
     /* Scores, rounded at 1e4, differ by about 10, and dq is a difference of 100 times its size. */
     .rounding = 1e5,
     .apply = large},
    {.label = "attend to no key, one, several",
     .n_input = 3,
     .input = {{3, {2, 4, 3}}, {3, {2, 5, 3}}, {3, {2, 5, 2}}},
     .apply = no_key_first},
    {.label = "attend dropout",
     .n_input = 3,
     .input = {{2, {5, 3}}, {2, {7, 3}}, {2, {7, 2}}},
     .apply = dropout},
    KERNEL_CASE(triangular, NONE),
    KERNEL_CASE(epanechnikov, NONE),
    KERNEL_CASE(biweight, NONE),
    KERNEL_CASE(triweight, NONE),
    KERNEL_CASE(tricube, NONE),
    KERNEL_CASE(cosine, NONE),
    KERNEL_CASE(none_kernel, NONE),
    KERNEL_CASE(boxcar, QUERY_KEY_BANDWIDTH),
    KERNEL_CASE(constant, QUERY_KEY_BANDWIDTH),
    NORMALIZE_CASE(hard, QUERY_KEY),
    NORMALIZE_CASE(uniform, QUERY_KEY),
    NORMALIZE_CASE(top_k, NONE),
    NORMALIZE_CASE(top_k_uniform, QUERY_KEY),
    NORMALIZE_CASE(sparsemax, NONE),
    NORMALIZE_CASE(entmax_15, NONE),
    NORMALIZE_CASE(none_exp, NONE),
    NORMALIZE_CASE(none_sigmoid, NONE),
    NORMALIZE_CASE(none_identity, NONE),
    {0},
};
