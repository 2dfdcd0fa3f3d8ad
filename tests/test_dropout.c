/* test_dropout.c - dropout by its properties; that forward and backward drop what the header says
 * is test_attention.c's, against the oracle and Random123. Built for each dtype. */
#include "agree.h"
#include "choices.h"
#include "src/real.h"
#include "support.h"

static const qkv_attention shape = {
    .batch = 2, .heads = 2, .n_q = 150, .n_k = 331, .d_k = 3, .d_v = 4, .dropout_seed = 1ull << 40};

static answer solve(const problem *p)
{
    answer y = answer_new(p);
    assert_ok(compute(p, LAYOUT_PACKED, ALL_GRADIENTS, &y));
    return y;
}

static size_t pairs(const problem *p)
{
    return (size_t)(problem_rows(p) * p->a.n_k);
}

static void weights_are_dropped_as_often_as_asked_and_the_rest_grow(void **state)
{
    (void)state;
    static const double p_drop[] = {1e-3, 0.1, 0.5, 0.9};
    for (size_t i = 0; i < 4; i++) {
        problem p = problem_random(shape, REAL_DTYPE, 0, 1);
        answer plain = solve(&p);
        p.a.dropout = p_drop[i];
        answer y = solve(&p);
        double dropped = 0, n = (double)pairs(&p);
        for (size_t x = 0; x < pairs(&p); x++) {
            dropped += y.weights[x] == 0;
            if (y.weights[x] != 0)
                assert_close(y.weights[x], plain.weights[x] / (1 - p_drop[i]),
                             8 * REAL_EPSILON * y.weights[x]);
        }
        /* Five standard deviations of the binomial distribution. */
        assert_close(dropped, n * p_drop[i], 5 * sqrt(n * p_drop[i] * (1 - p_drop[i])));
        for (ptrdiff_t row = 0; row < problem_rows(&p); row++)
            assert_close(y.lse[row], plain.lse[row], 0);
        answer_free(&y);
        answer_free(&plain);
        problem_free(&p);
    }
}

/* How many weights two calls drop together. */
static double dropped_in_both(qkv_attention a, qkv_attention b)
{
    problem p = problem_random(a, REAL_DTYPE, 0, 1), q = p;
    q.a = b;
    answer y = solve(&p), z = solve(&q);
    double both = 0;
    for (size_t x = 0; x < pairs(&p); x++) both += y.weights[x] == 0 && z.weights[x] == 0;
    answer_free(&z);
    answer_free(&y);
    problem_free(&p);
    return both;
}

static void seeds_and_offsets_drop_independently(void **state)
{
    (void)state;
    qkv_attention a = shape, seed, high, offset;
    a.dropout = 0.3;
    seed = high = offset = a;
    seed.dropout_seed++;
    high.dropout_seed ^= 1ull << 63;
    offset.dropout_offset++;
    double n = (double)(a.batch * a.heads * a.n_q * a.n_k), expected = n * 0.3 * 0.3;
    double deviation = 5 * sqrt(expected);
    assert_close(dropped_in_both(a, seed), expected, deviation);
    assert_close(dropped_in_both(a, high), expected, deviation);
    assert_close(dropped_in_both(a, offset), expected, deviation);
    assert_close(dropped_in_both(a, a), n * 0.3, 5 * sqrt(n * 0.3));
}

static void neighbours_in_every_direction_are_independent(void **state)
{
    (void)state;
    problem p = problem_random(shape, REAL_DTYPE, 0, 1);
    p.a.dropout = 0.3;
    answer y = solve(&p);
    ptrdiff_t n_k = p.a.n_k, rows = problem_rows(&p);
    const ptrdiff_t steps[] = {1, 2, 3, 4, n_k, 2 * n_k, p.a.n_q * n_k, p.a.heads * p.a.n_q * n_k};
    for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
        double n = (double)(rows * n_k - steps[s]), both = 0;
        for (ptrdiff_t x = 0; x + steps[s] < rows * n_k; x++)
            both += y.weights[x] == 0 && y.weights[x + steps[s]] == 0;
        assert_close(both, n * 0.09, 5 * sqrt(n * 0.09));
    }
    answer_free(&y);
    problem_free(&p);
}

static void everything_dropped_is_zero(void **state)
{
    (void)state;
    for (size_t c = 0; c < CHOICES; c++) {
        qkv_attention a = with_choice(shape, c);
        a.n_q = 20;
        a.dropout = 1;
        problem p = problem_random(a, REAL_DTYPE, WITH_BIAS, 1);
        answer y = solve(&p);
        for (ptrdiff_t i = 0; i < problem_rows(&p) * a.d_v; i++) assert_close(y.o[i], 0, 0);
        for (size_t i = 0; i < pairs(&p); i++) assert_close(y.weights[i], 0, 0);
        for (operand x = Q; x < OPERANDS; x++)
            for (size_t i = 0; p.in[x] && i < operand_size(&p, x); i++)
                assert_close(y.d[x][i], gradient_start(x), 0);
        answer_free(&y);
        problem_free(&p);
    }
}

static void a_dropout_that_is_no_probability_is_refused(void **state)
{
    (void)state;
    static const double bad[] = {-0.1, 1.1, NAN, INFINITY};
    for (size_t i = 0; i < 4; i++) {
        qkv_attention a = shape;
        size_t bytes;
        a.dropout = bad[i];
        assert_status(qkv_attention_workspace(&a, QKV_FORWARD, REAL_DTYPE, &bytes), QKV_E_ARG);
        assert_message("expected a probability, 0 to 1");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_dropped_as_often_as_asked_and_the_rest_grow),
        cmocka_unit_test(seeds_and_offsets_drop_independently),
        cmocka_unit_test(neighbours_in_every_direction_are_independent),
        cmocka_unit_test(everything_dropped_is_zero),
        cmocka_unit_test(a_dropout_that_is_no_probability_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
