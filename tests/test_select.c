/* test_select.c - top-k, sparsemax and 1.5-entmax by what defines them: which keys have weight, and
 * what the weights are. Built for each dtype. */
#include "agree.h"
#include "src/real.h"
#include "support.h"

#include <stdlib.h>

static const qkv_attention shape = {
    .batch = 2, .heads = 2, .kv_heads = 1, .n_q = 53, .n_k = 421, .d_k = 4, .d_v = 3};

static answer solve(const problem *p)
{
    answer y = answer_new(p);
    assert_ok(compute(p, LAYOUT_PACKED, ALL_GRADIENTS, &y));
    return y;
}

/* s + b of a whole problem: the weights of the identity. */
static answer exponents(const problem *p)
{
    problem scores = *p;
    scores.a.normalize = QKV_NONE_IDENTITY;
    scores.a.top_k = 0;
    return solve(&scores);
}

static problem problem_of(qkv_normalize normalize, ptrdiff_t top_k, int with)
{
    qkv_attention a = shape;
    a.normalize = normalize;
    a.top_k = top_k;
    return problem_random(a, REAL_DTYPE, with, 17);
}

/* Many equal scores: queries and keys with small whole coordinates. */
static void round_all(problem *p, operand x)
{
    for (size_t i = 0; i < operand_size(p, x); i++) p->in[x][i] = rint(p->in[x][i]);
}

static bool row_sees(const problem *p, ptrdiff_t row, ptrdiff_t j)
{
    return !p->mask || p->mask[row * p->a.n_k + j];
}

static void top_k_takes_the_largest_and_of_equals_the_first(void **state)
{
    (void)state;
    static const ptrdiff_t ks[] = {1, 2, 7, 64, 65, 300, 421, 1000};
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
        problem p = problem_of(QKV_TOP_K_UNIFORM, ks[i], WITH_MASK);
        round_all(&p, Q);
        round_all(&p, K);
        answer y = solve(&p), s = exponents(&p);
        for (ptrdiff_t row = 0; row < problem_rows(&p); row++) {
            const double *e = s.weights + row * p.a.n_k, *w = y.weights + row * p.a.n_k;
            ptrdiff_t seen = 0, taken = 0, k;
            for (ptrdiff_t j = 0; j < p.a.n_k; j++) seen += row_sees(&p, row, j);
            k = seen < ks[i] ? seen : ks[i];
            for (ptrdiff_t j = 0; j < p.a.n_k; j++) {
                ptrdiff_t before = 0;
                for (ptrdiff_t x = 0; x < p.a.n_k; x++)
                    before += row_sees(&p, row, x) && (e[x] > e[j] || (e[x] == e[j] && x < j));
                bool expected = row_sees(&p, row, j) && before < k;
                assert_close(w[j], expected ? (double)(1 / (real)k) : 0, 0);
                taken += expected;
            }
            assert_true(taken == k);
        }
        answer_free(&s);
        answer_free(&y);
        problem_free(&p);
    }
}

/* What is not selected is as if hidden, in both passes, NaN or not. */
static void top_k_is_softmax_over_what_it_takes(void **state)
{
    (void)state;
    problem p = problem_of(QKV_TOP_K, 9, WITH_BIAS | WITH_D_LSE);
    answer y = solve(&p);
    problem masked = p;
    masked.a.normalize = QKV_SOFTMAX;
    masked.a.top_k = 0;
    size_t n = (size_t)(problem_rows(&p) * p.a.n_k);
    masked.mask = calloc(n, 1);
    for (size_t i = 0; i < n; i++) masked.mask[i] = y.weights[i] > 0;
    answer expected = solve(&masked), size = answer_new(&p);
    oracle_solve(&masked, &expected, &size);
    for (size_t i = 0; i < (size_t)(problem_rows(&p) * p.a.d_v); i++)
        assert_close(y.o[i], expected.o[i], 64 * REAL_EPSILON * size.o[i]);
    for (operand x = Q; x <= BIAS; x++)
        for (size_t i = 0; i < operand_size(&p, x); i++)
            assert_close(y.d[x][i], expected.d[x][i], 64 * REAL_EPSILON * size.d[x][i]);
    answer_free(&size);
    answer_free(&expected);
    free(masked.mask);
    answer_free(&y);
    problem_free(&p);
}

static void what_has_no_weight_has_no_effect(void **state)
{
    (void)state;
    static const qkv_normalize all[] = {QKV_TOP_K, QKV_TOP_K_UNIFORM, QKV_SPARSEMAX, QKV_ENTMAX_15};
    for (size_t i = 0; i < 4; i++) {
        problem p = problem_of(all[i], i < 2 ? 3 : 0, WITH_BIAS);
        p.a.score = QKV_SCORE_DOT;
        answer y = solve(&p);
        size_t dead = 0;
        for (ptrdiff_t b = 0; b < p.a.batch; b++)
            for (ptrdiff_t j = 0; j < p.a.n_k; j++) {
                bool used = false;
                for (ptrdiff_t row = b * p.a.heads * p.a.n_q; row < (b + 1) * p.a.heads * p.a.n_q;
                     row++)
                    used |= y.weights[row * p.a.n_k + j] > 0;
                for (ptrdiff_t c = 0; !used && c < p.a.d_v; c++)
                    p.in[V][operand_index(&p, V, b, 0, j, c)] = NAN;
                dead += !used;
            }
        assert_true(dead > 20);
        answer again = solve(&p);
        assert_same_bits(&p, ALL_GRADIENTS, &again, &y, "values without weight");
        answer_free(&again);
        answer_free(&y);
        problem_free(&p);
    }
}

/* The conditions of Karush, Kuhn and Tucker: the weights add up to 1; where they are not 0, s less
 * the slope of the penalty is one number; elsewhere s is not above it. */
static void sparsemax_and_entmax_are_the_best_of_their_problem(void **state)
{
    (void)state;
    for (int entmax = 0; entmax < 2; entmax++) {
        problem p = problem_of(entmax ? QKV_ENTMAX_15 : QKV_SPARSEMAX, 0, WITH_BIAS | WITH_MASK);
        answer y = solve(&p), s = exponents(&p);
        size_t zeros = 0;
        for (ptrdiff_t row = 0; row < problem_rows(&p); row++) {
            const double *e = s.weights + row * p.a.n_k, *w = y.weights + row * p.a.n_k;
            double sum = 0, level = -INFINITY, size = 1;
            for (ptrdiff_t j = 0; j < p.a.n_k; j++) {
                sum += w[j];
                size = fmax(size, fabs(e[j]));
                if (w[j] > 0) level = fmax(level, e[j] - (entmax ? 2 * sqrt(w[j]) : w[j]));
            }
            if (level == -INFINITY) continue; /* a blind row */
            assert_close(sum, 1, 64 * REAL_EPSILON * size);
            for (ptrdiff_t j = 0; j < p.a.n_k; j++) {
                double slope = e[j] - (entmax ? 2 * sqrt(w[j]) : w[j]);
                if (w[j] > 0) assert_close(slope, level, 64 * REAL_EPSILON * size);
                if (w[j] == 0 && row_sees(&p, row, j))
                    assert_true(e[j] <= level + 64 * REAL_EPSILON * size);
                zeros += w[j] == 0;
            }
        }
        assert_true(zeros > 0);
        answer_free(&s);
        answer_free(&y);
        problem_free(&p);
    }
}

static void a_wide_gap_leaves_one_key_and_none_leaves_all(void **state)
{
    (void)state;
    static const double bias[] = {0, 1e30, -1e30};
    for (qkv_normalize n = QKV_SPARSEMAX; n <= QKV_ENTMAX_15; n++)
        for (int i = 0; i < 3; i++) {
            problem p = problem_of(n, 0, WITH_KEY_BIAS);
            for (size_t x = 0; x < operand_size(&p, Q); x++) p.in[Q][x] = 0;
            for (size_t x = 0; x < operand_size(&p, BIAS); x++) p.in[BIAS][x] = bias[i];
            answer y = solve(&p);
            for (ptrdiff_t x = 0; x < problem_rows(&p) * p.a.n_k; x++)
                assert_close(y.weights[x], 1.0 / 421, 4 * REAL_EPSILON);
            p.in[BIAS][7] = bias[i] == 0 ? 5 : 2 * fabs(bias[i]); /* of the first batch item */
            answer_free(&y);
            y = solve(&p);
            for (ptrdiff_t x = 0; x < p.a.heads * p.a.n_q * p.a.n_k; x++)
                assert_close(y.weights[x], x % p.a.n_k == 7, 0);
            answer_free(&y);
            problem_free(&p);
        }
}

static void top_k_must_be_given_where_it_counts_and_only_there(void **state)
{
    (void)state;
    size_t bytes;
    qkv_attention a = shape;
    a.top_k = 3;
    assert_status(qkv_attention_workspace(&a, QKV_FORWARD, REAL_DTYPE, &bytes), QKV_E_ARG);
    assert_message("top_k is 3, expected 0");
    a.normalize = QKV_TOP_K;
    assert_ok(qkv_attention_workspace(&a, QKV_FORWARD, REAL_DTYPE, &bytes));
    a.top_k = 0;
    assert_status(qkv_attention_workspace(&a, QKV_FORWARD, REAL_DTYPE, &bytes), QKV_E_ARG);
    assert_message("top_k is 0, expected 1 or more");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(top_k_takes_the_largest_and_of_equals_the_first),
        cmocka_unit_test(top_k_is_softmax_over_what_it_takes),
        cmocka_unit_test(what_has_no_weight_has_no_effect),
        cmocka_unit_test(sparsemax_and_entmax_are_the_best_of_their_problem),
        cmocka_unit_test(a_wide_gap_leaves_one_key_and_none_leaves_all),
        cmocka_unit_test(top_k_must_be_given_where_it_counts_and_only_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
