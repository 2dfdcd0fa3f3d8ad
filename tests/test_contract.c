/* test_contract.c - the numeric contract, one test a line of it: rows without keys, empty and
 * impossible sizes, the workspace, causal alignment. Built for each dtype. */
#include "agree.h"
#include "choices.h"
#include "src/real.h"
#include "support.h"

#include <stdlib.h>

/* Enough keys for several tiles of any size. */
static const qkv_attention many_keys = {
    .batch = 2, .heads = 2, .kv_heads = 1, .n_q = 21, .n_k = 299, .d_k = 3, .d_v = 2};

static problem problem_of(qkv_attention a, int with)
{
    return problem_random(a, REAL_DTYPE, with, 11);
}

static answer solve(const problem *p)
{
    answer y = answer_new(p);
    assert_ok(compute(p, LAYOUT_PACKED, ALL_GRADIENTS, &y));
    return y;
}

static void assert_no_gradient(const problem *p, const answer *y, operand x, size_t from, size_t n)
{
    for (size_t i = from; y->d[x] && i < from + n; i++)
        if (y->d[x][i] != gradient_start(x)) {
            print_error("d%s[%zu] of %zu is %g, expected no gradient\n", operand_name[x], i,
                        operand_size(p, x), y->d[x][i] - gradient_start(x));
            fail();
        }
}

static void assert_all(const double *x, size_t from, size_t n, double expected)
{
    for (size_t i = from; i < from + n; i++) assert_close(x[i], expected, 0);
}

/* ---- Nothing to see ------------------------------------------------------------------------ */

enum { EVERYTHING = WITH_BIAS | WITH_SCALE | WITH_BANDWIDTH | WITH_D_LSE };

static void a_row_that_sees_no_key_is_zero_and_has_no_gradient(void **state)
{
    (void)state;
    for (size_t c = 0; c < CHOICES; c++) {
        problem p = problem_of(with_choice(many_keys, c), EVERYTHING | WITH_MASK);
        size_t d_v = (size_t)p.a.d_v, d_k = (size_t)p.a.d_k, n_k = (size_t)p.a.n_k;
        for (size_t row = 3; row < (size_t)problem_rows(&p); row += 7) { /* blind, see WITH_MASK */
            p.in[Q][row * d_k] = NAN;
            p.d_o[row * d_v] = NAN;
            p.d_lse[row] = INFINITY;
        }
        answer y = solve(&p);
        for (size_t row = 3; row < (size_t)problem_rows(&p); row += 7) {
            assert_all(y.o, row * d_v, d_v, 0);
            assert_all(y.weights, row * n_k, n_k, 0);
            if (problem_has_lse(&p)) assert_close(y.lse[row], -INFINITY, 0);
            assert_no_gradient(&p, &y, Q, row * d_k, d_k);
            assert_no_gradient(&p, &y, BIAS, row * n_k, n_k);
        }
        for (operand x = Q; x < OPERANDS; x++) /* 0 x NaN reached nobody */
            for (size_t i = 0; p.in[x] && i < operand_size(&p, x); i++)
                assert_true(isfinite(y.d[x][i]));
        answer_free(&y);
        problem_free(&p);
    }
}

static void assert_all_rows_are_blind(qkv_attention a, int with)
{
    problem p = problem_of(a, with);
    answer y = solve(&p);
    size_t rows = (size_t)problem_rows(&p);
    assert_all(y.o, 0, rows * (size_t)a.d_v, 0);
    assert_all(y.weights, 0, rows * (size_t)a.n_k, 0);
    if (problem_has_lse(&p)) assert_all(y.lse, 0, rows, -INFINITY);
    for (operand x = Q; x < OPERANDS; x++) assert_no_gradient(&p, &y, x, 0, operand_size(&p, x));
    answer_free(&y);
    problem_free(&p);
}

static void when_no_row_sees_a_key_nothing_has_a_gradient(void **state)
{
    (void)state;
    for (size_t c = 0; c < CHOICES; c++) {
        qkv_attention a = with_choice(many_keys, c);
        a.mask.causal = true;
        a.mask.causal_offset = -a.n_q;
        assert_all_rows_are_blind(a, EVERYTHING);
    }
}

static void without_keys_every_row_is_blind(void **state)
{
    (void)state;
    for (size_t c = 0; c < CHOICES; c++) {
        qkv_attention a = with_choice(many_keys, c);
        a.n_k = 0;
        assert_all_rows_are_blind(a, EVERYTHING);
    }
}

static void empty_batches_heads_and_query_sets_are_fine(void **state)
{
    (void)state;
    for (size_t c = 0; c < CHOICES; c++)
        for (int which = 0; which < 3; which++) {
            qkv_attention a = with_choice(many_keys, c);
            if (which == 0) a.batch = 0;
            if (which == 1) a.heads = a.kv_heads = 0;
            if (which == 2) a.n_q = 0;
            assert_all_rows_are_blind(a, EVERYTHING);
        }
}

static void an_empty_problem_needs_no_workspace(void **state)
{
    (void)state;
    qkv_attention a = many_keys;
    a.n_q = 0;
    real some = 0;
    const FN(qkv_operands) in = {.q.data = &some, .k.data = &some, .v.data = &some};
    const FN(qkv_results) out = {.o.data = &some};
    assert_ok(FN(qkv_attention_forward)(&a, &in, &out, NULL, 0));
    assert_true(some == 0);
}

static void zero_columns_are_fine_where_a_score_exists(void **state)
{
    (void)state;
    qkv_attention a = many_keys;
    a.d_v = 0; /* o has no elements; weights and lse have */
    problem p = problem_of(a, EVERYTHING);
    assert_agrees(&p, LAYOUT_PACKED, "d_v = 0");
    problem_free(&p);
    a = many_keys;
    a.d_k = 0; /* all scores 0 */
    a.score = QKV_SCORE_DOT;
    p = problem_of(a, WITH_BIAS);
    assert_agrees(&p, LAYOUT_PACKED, "d_k = 0");
    problem_free(&p);
}

/* ---- Impossible sizes ---------------------------------------------------------------------- */

static void assert_refused(qkv_attention a, qkv_status expected)
{
    size_t bytes = 0;
    real some[8] = {0}, o[8] = {0}, lse[8] = {0};
    char workspace[64];
    const FN(qkv_operands) in = {.q.data = some, .k.data = some, .v.data = some};
    const FN(qkv_results) out = {.o.data = o},
                          saved = {.o.data = o, .row_max.data = lse, .row_log_sum.data = lse + 4};
    const FN(qkv_results) d_out = {.o.data = some};
    const FN(qkv_operands) d_in = {.q.data = lse};
    assert_status(qkv_attention_workspace(&a, QKV_FORWARD, REAL_DTYPE, &bytes), expected);
    assert_status(qkv_attention_workspace(&a, QKV_BACKWARD, REAL_DTYPE, &bytes), expected);
    assert_status(FN(qkv_attention_forward)(&a, &in, &out, workspace, sizeof workspace), expected);
    assert_status(
        FN(qkv_attention_backward)(&a, &in, &saved, &d_out, &d_in, workspace, sizeof workspace),
        expected);
    assert_status(FN(qkv_attend)(&a, some, some, some, o), expected);
    assert_true(qkv_last_error()[0]);
    for (size_t i = 0; i < 8; i++) assert_true(o[i] == 0 && lse[i] == 0);
}

static const qkv_attention one = {
    .batch = 1, .heads = 4, .kv_heads = 2, .n_q = 1, .n_k = 1, .d_k = 1, .d_v = 1};

static void heads_that_no_key_head_divides_are_a_shape_error(void **state)
{
    (void)state;
    qkv_attention a = one;
    a.kv_heads = 3;
    assert_refused(a, QKV_E_SHAPE);
    a.kv_heads = 8;
    assert_refused(a, QKV_E_SHAPE);
}

static void the_default_scale_of_no_coordinates_is_a_shape_error(void **state)
{
    (void)state;
    qkv_attention a = one;
    a.d_k = 0;
    real some[8] = {0}, o[8] = {0}, scale = 1;
    char workspace[1 << 16];
    FN(qkv_operands) in = {.q.data = some, .k.data = some, .v.data = some};
    const FN(qkv_results) out = {.o.data = o};
    assert_status(FN(qkv_attention_forward)(&a, &in, &out, workspace, sizeof workspace),
                  QKV_E_SHAPE);
    assert_status(FN(qkv_attend)(&a, some, some, some, o), QKV_E_SHAPE);
    in.scale.data = &scale;
    assert_ok(FN(qkv_attention_forward)(&a, &in, &out, workspace, sizeof workspace));
}

static void negative_sizes_are_shape_errors(void **state)
{
    (void)state;
    for (int which = 0; which < 8; which++) {
        qkv_attention a = one;
        ptrdiff_t *sizes[] = {&a.batch, &a.heads, &a.kv_heads, &a.n_q,
                              &a.n_k,   &a.d_k,   &a.d_v,      &a.bandwidths};
        if (which == 7) a.score = QKV_SCORE_GAUSSIAN;
        *sizes[which] = -1;
        assert_refused(a, QKV_E_SHAPE);
    }
}

static void what_does_not_go_together_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        qkv_attention a;
        bool sink;
        const char *message;
    } all[] = {
        {{.softcap = -1}, false, "softcap is -1, expected a positive number"},
        {{.softcap = NAN}, false, "softcap is "},
        {{.softcap = INFINITY}, false, "softcap is inf"},
        {{.softcap = 1, .normalize = QKV_UNIFORM}, false, "softcap does not go with QKV_UNIFORM"},
        {{.softcap = 1, .score = QKV_SCORE_GAUSSIAN, .normalize = QKV_KERNEL_SUM},
         false,
         "softcap does not go with a sum of kernels"},
        {{.normalize = QKV_HARD}, true, "a sink does not go with a normaliser other than softmax"},
    };
    real some[8] = {0}, o[8] = {0};
    char workspace[1 << 16];
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        qkv_attention a = one;
        a.softcap = all[i].a.softcap;
        a.normalize = all[i].a.normalize;
        a.score = all[i].a.score;
        FN(qkv_operands) in = {.q.data = some, .k.data = some, .v.data = some};
        if (all[i].sink) in.sink.data = some;
        const FN(qkv_results) out = {.o.data = o};
        assert_status(FN(qkv_attention_forward)(&a, &in, &out, workspace, sizeof workspace),
                      QKV_E_ARG);
        assert_message(all[i].message);
    }
}

static void lengths_are_0_to_n_k(void **state)
{
    (void)state;
    qkv_attention a = one;
    a.batch = 2;
    a.n_k = 3;
    real some[64] = {0}, o[8] = {0};
    char workspace[1 << 16];
    int64_t lengths[2] = {3, 0};
    const FN(qkv_operands) in = {
        .q.data = some, .k.data = some, .v.data = some, .lengths = lengths};
    const FN(qkv_results) out = {.o.data = o};
    assert_ok(FN(qkv_attention_forward)(&a, &in, &out, workspace, sizeof workspace));
    static const int64_t wrong[] = {4, -1, INT64_MAX, INT64_MIN};
    for (int i = 0; i < 4; i++) {
        lengths[1] = wrong[i];
        assert_status(FN(qkv_attention_forward)(&a, &in, &out, workspace, sizeof workspace),
                      QKV_E_SHAPE);
        assert_message("lengths[1] is ");
    }
}

static void bandwidths_are_one_or_one_a_coordinate(void **state)
{
    (void)state;
    qkv_attention a = one;
    a.score = QKV_SCORE_GAUSSIAN;
    a.d_k = 5;
    a.bandwidths = 4;
    assert_refused(a, QKV_E_SHAPE);
}

static void size_products_that_overflow_are_refused_before_memory_is_touched(void **state)
{
    (void)state;
    for (int which = 0; which < 6; which++) {
        qkv_attention a = one;
        ptrdiff_t *sizes[] = {&a.batch, &a.heads, &a.n_q, &a.n_k, &a.d_k, &a.d_v};
        a.kv_heads = 0;
        a.batch = 3;
        *sizes[which] = PTRDIFF_MAX;
        assert_refused(a, QKV_E_OVERFLOW);
    }
    qkv_attention a = one;
    a.n_q = a.n_k = PTRDIFF_MAX / 64; /* each operand fits; queries times keys would not */
    size_t bytes;
    assert_ok(qkv_attention_workspace(&a, QKV_FORWARD, REAL_DTYPE, &bytes));
}

static void choices_that_exclude_each_other_are_argument_errors(void **state)
{
    (void)state;
    qkv_attention a = one;
    a.normalize = QKV_KERNEL_SUM; /* of a dot product */
    assert_refused(a, QKV_E_ARG);
    a.normalize = QKV_NONE_KERNEL;
    assert_refused(a, QKV_E_ARG);
    a = one;
    a.score = (qkv_score)77;
    assert_refused(a, QKV_E_ARG);
    a = one;
    a.normalize = (qkv_normalize)77;
    assert_refused(a, QKV_E_ARG);
}

/* ---- Workspace and operands ---------------------------------------------------------------- */

static void a_missing_operand_is_an_argument_error(void **state)
{
    (void)state;
    real x[4] = {0}, o[4], m[4], l[4], dq[4];
    char workspace[1 << 16];
    for (int missing = 0; missing < 4; missing++) {
        FN(qkv_operands) in = {.q.data = x, .k.data = x, .v.data = x};
        FN(qkv_results) out = {.o.data = o};
        real **slots[] = {&in.q.data, &in.k.data, &in.v.data, &out.o.data};
        *slots[missing] = NULL;
        assert_status(FN(qkv_attention_forward)(&one, &in, &out, workspace, sizeof workspace),
                      QKV_E_ARG);
    }
    const FN(qkv_operands) in = {.q.data = x, .k.data = x, .v.data = x}, d_in = {.q.data = dq};
    const FN(qkv_results) saved = {.o.data = o, .row_max.data = m, .row_log_sum.data = l};
    const FN(qkv_results) no_cotangent = {0};
    assert_status(FN(qkv_attention_backward)(&one, &in, &saved, &no_cotangent, &d_in, workspace,
                                             sizeof workspace),
                  QKV_E_ARG);
}

static void a_workspace_too_small_is_refused_and_one_threads_share_is_enough(void **state)
{
    (void)state;
    problem p = problem_of(many_keys, 0);
    answer y = answer_new(&p);
    size_t q = operand_size(&p, Q), k = operand_size(&p, K), v = operand_size(&p, V);
    size_t n_o = (size_t)(problem_rows(&p) * p.a.d_v), alone, all;
    real *memory = calloc(q + k + v + n_o, sizeof *memory);
    const FN(qkv_operands) in = {.q.data = memory, .k.data = memory + q, .v.data = memory + q + k};
    const FN(qkv_results) out = {.o.data = memory + q + k + v};
    assert_ok(qkv_set_num_threads(8));
    assert_ok(qkv_attention_workspace(&p.a, QKV_FORWARD, REAL_DTYPE, &all));
    assert_ok(qkv_set_num_threads(1));
    assert_ok(qkv_attention_workspace(&p.a, QKV_FORWARD, REAL_DTYPE, &alone));
    assert_true(0 < alone && alone <= all);
    assert_ok(qkv_set_num_threads(8));
    char *workspace = malloc(alone + 1);
    assert_ok(FN(qkv_attention_forward)(&p.a, &in, &out, workspace, alone));
    assert_ok(FN(qkv_attention_forward)(&p.a, &in, &out, workspace + 1, alone)); /* any alignment */
    assert_status(FN(qkv_attention_forward)(&p.a, &in, &out, workspace, alone / 2), QKV_E_ARG);
    assert_status(FN(qkv_attention_forward)(&p.a, &in, &out, NULL, 0), QKV_E_ARG);
    assert_ok(qkv_set_num_threads(0));
    free(workspace);
    free(memory);
    answer_free(&y);
    problem_free(&p);
}

/* ---- Causal -------------------------------------------------------------------------------- */

static void causal_is_aligned_at_the_top_left_unless_an_offset_says_otherwise(void **state)
{
    (void)state;
    static const ptrdiff_t offsets[] = {0, 1, -1, 5, -5, 38, -38, 300, PTRDIFF_MAX, PTRDIFF_MIN};
    static const ptrdiff_t sizes[][2] = {{41, 3}, {3, 41}, {40, 40}};
    for (size_t s = 0; s < 3; s++)
        for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
            qkv_attention a = {
                .batch = 1, .heads = 1, .n_q = sizes[s][0], .n_k = sizes[s][1], .d_k = 2, .d_v = 2};
            a.mask = (qkv_mask){.causal = true, .causal_offset = offsets[i]};
            problem p = problem_of(a, 0);
            answer y = solve(&p);
            for (ptrdiff_t q = 0; q < a.n_q; q++)
                for (ptrdiff_t k = 0; k < a.n_k; k++)
                    assert_true((y.weights[q * a.n_k + k] > 0) == (k - q <= offsets[i]));
            answer_free(&y);
            problem_free(&p);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_that_sees_no_key_is_zero_and_has_no_gradient),
        cmocka_unit_test(when_no_row_sees_a_key_nothing_has_a_gradient),
        cmocka_unit_test(without_keys_every_row_is_blind),
        cmocka_unit_test(empty_batches_heads_and_query_sets_are_fine),
        cmocka_unit_test(an_empty_problem_needs_no_workspace),
        cmocka_unit_test(zero_columns_are_fine_where_a_score_exists),
        cmocka_unit_test(heads_that_no_key_head_divides_are_a_shape_error),
        cmocka_unit_test(the_default_scale_of_no_coordinates_is_a_shape_error),
        cmocka_unit_test(negative_sizes_are_shape_errors),
        cmocka_unit_test(what_does_not_go_together_is_refused_by_name),
        cmocka_unit_test(lengths_are_0_to_n_k),
        cmocka_unit_test(bandwidths_are_one_or_one_a_coordinate),
        cmocka_unit_test(size_products_that_overflow_are_refused_before_memory_is_touched),
        cmocka_unit_test(choices_that_exclude_each_other_are_argument_errors),
        cmocka_unit_test(a_missing_operand_is_an_argument_error),
        cmocka_unit_test(a_workspace_too_small_is_refused_and_one_threads_share_is_enough),
        cmocka_unit_test(causal_is_aligned_at_the_top_left_unless_an_offset_says_otherwise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
