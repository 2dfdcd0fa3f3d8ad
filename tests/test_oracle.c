/* test_oracle.c - the oracle's gradients against the complex step, which shares no derivation with
 * them. What attention is measured with must not itself be wrong. */
#include "oracle.h"
#include "support.h"

#include <math.h>

static void assert_gradients_by_complex_step(qkv_attention a, int with, uint64_t seed)
{
    problem p = problem_random(a, QKV_F64, with, seed);
    answer y = answer_new(&p), size = answer_new(&p);
    oracle_solve(&p, &y, &size);
    for (operand x = Q; x < OPERANDS; x++)
        for (size_t i = 0; p.in[x] && i < operand_size(&p, x); i++) {
            if (isinf(p.in[x][i])) continue; /* no neighbourhood to differentiate in */
            double expected = gradient_start(x) + oracle_derivative(&p, x, i);
            assert_true(isfinite(expected) && isfinite(size.d[x][i]));
            assert_close(y.d[x][i], expected, 16 * 0x1p-52 * (1 + size.d[x][i]));
        }
    answer_free(&size);
    answer_free(&y);
    problem_free(&p);
}

static const qkv_attention shapes[] = {
    {.batch = 2, .heads = 4, .kv_heads = 2, .n_q = 5, .n_k = 7, .d_k = 3, .d_v = 2},
    {.batch = 1, .heads = 3, .n_q = 8, .n_k = 4, .d_k = 1, .d_v = 5},
    {.batch = 3, .heads = 2, .kv_heads = 1, .n_q = 1, .n_k = 1, .d_k = 2, .d_v = 1},
};
static const int extras[] = {
    0,
    WITH_BIAS | WITH_SCALE | WITH_D_LSE | WITH_BANDWIDTH,
    WITH_SHARED_BIAS | WITH_HEAD_SCALE | WITH_MASK | WITH_HEAD_BANDWIDTH | WITH_D_LSE,
    WITH_KEY_BIAS | WITH_HIDING_BIAS | WITH_MASK | WITH_BANDWIDTH | WITH_D_LSE,
};

static void for_all_shapes(qkv_attention choices)
{
    uint64_t seed = 1;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t e = 0; e < sizeof extras / sizeof *extras; e++) {
            qkv_attention a = shapes[s];
            int with = extras[e];
            a.score = choices.score;
            a.normalize = choices.normalize;
            a.kernel = choices.kernel;
            a.top_k = choices.top_k;
            a.dropout = choices.dropout;
            a.empty = QKV_EMPTY_NEAREST;
            a.bandwidths = problem_takes_bandwidth(&a) && e % 2 ? a.d_k : 0;
            if (a.score == QKV_SCORE_USER) a.bandwidths = 2;
            /* Cosines of numbers are 1 or -1: who is the largest? */
            if (a.score == QKV_SCORE_COSINE && a.d_k == 1 && a.normalize < QKV_NONE_EXP) continue;
            a.mask.causal = e == 2;
            a.mask.causal_offset = 2;
            a.mask.leave_one_out = e == 1;
            assert_gradients_by_complex_step(a, with, seed++);
        }
}

static void every_score_and_normaliser_has_the_gradient_of_its_forward(void **state)
{
    (void)state;
    for (qkv_normalize i = QKV_SOFTMAX; i <= QKV_NONE_IDENTITY; i++) {
        if (i == QKV_KERNEL_SUM || i == QKV_NONE_KERNEL) continue;
        ptrdiff_t top_k = i == QKV_TOP_K || i == QKV_TOP_K_UNIFORM ? 2 : 0;
        for (qkv_score score = QKV_SCORE_SCALED_DOT; score <= QKV_SCORE_USER; score++) {
            if (i > QKV_SOFTMAX && ((int)i + (int)score) % 3) continue; /* the oracle is slow */
            double dropout = score % 2 ? 0.4 : 0;
            for_all_shapes((qkv_attention){
                .score = score, .normalize = i, .top_k = top_k, .dropout = dropout});
        }
    }
}

static void every_kernel_has_the_gradient_of_its_forward(void **state)
{
    (void)state;
    static const qkv_normalize all[] = {QKV_KERNEL_SUM, QKV_NONE_KERNEL};
    for (size_t i = 0; i < 2; i++)
        for (int kernel = QKV_KERNEL_BOXCAR; kernel <= QKV_KERNEL_CONSTANT; kernel++)
            for_all_shapes((qkv_attention){
                .score = QKV_SCORE_GAUSSIAN, .normalize = all[i], .kernel = (qkv_kernel)kernel});
}

/* q = 0 against keys 0 and 1 under exp(k ln 2 ..): by hand, weights 1/3 and 2/3. */
static void softmax_of_two_keys_is_what_a_pencil_says(void **state)
{
    (void)state;
    problem p = problem_random(
        (qkv_attention){.batch = 1, .heads = 1, .n_q = 1, .n_k = 2, .d_k = 1, .d_v = 1}, QKV_F64, 0,
        1);
    p.in[Q][0] = log(2);
    p.in[K][0] = 0;
    p.in[K][1] = 1;
    p.in[V][0] = 3;
    p.in[V][1] = 6;
    p.d_o[0] = 1;
    answer y = answer_new(&p), size = answer_new(&p);
    oracle_solve(&p, &y, &size);
    assert_close(y.weights[0], 1.0 / 3, 1e-16);
    assert_close(y.o[0], 5, 1e-15);
    assert_close(y.lse[0], log(3), 1e-15);
    assert_close(y.d[Q][0] - gradient_start(Q), 2.0 / 3, 1e-15); /* Cov[v, k] = 3 (1/3)(2/3) */
    answer_free(&size);
    answer_free(&y);
    problem_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(softmax_of_two_keys_is_what_a_pencil_says),
        cmocka_unit_test(every_score_and_normaliser_has_the_gradient_of_its_forward),
        cmocka_unit_test(every_kernel_has_the_gradient_of_its_forward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
