/* test_weightings.c - the chapter's weightings by their properties: cone, convex hull, exactly one
 * value, mean; what each is linear in, equivariant and invariant to; rows outside every kernel's
 * support. Built for each dtype. */
#include "agree.h"
#include "choices.h"
#include "src/real.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const qkv_attention shape = {
    .batch = 2, .heads = 2, .kv_heads = 1, .n_q = 19, .n_k = 70, .d_k = 3, .d_v = 4};

static problem problem_of(qkv_attention a, int with)
{
    return problem_random(a, REAL_DTYPE, with, 3);
}

static answer solve(const problem *p)
{
    answer y = answer_new(p);
    assert_ok(compute(p, LAYOUT_PACKED, ALL_GRADIENTS, &y));
    return y;
}

static bool is_convex(const problem *p)
{
    return p->a.normalize < QKV_NONE_EXP;
}

/* The value that column c of key j has for a row of o or weights. */
static double value_at(const problem *p, ptrdiff_t row, ptrdiff_t j, ptrdiff_t c)
{
    ptrdiff_t b = row / p->a.n_q / p->a.heads;
    return p->in[V][operand_index(p, V, b, 0, j, c)];
}

static double weight_at(const problem *p, const answer *y, ptrdiff_t row, ptrdiff_t j)
{
    return y->weights[row * p->a.n_k + j];
}

static double row_sum(const problem *p, const answer *y, ptrdiff_t row)
{
    double sum = 0;
    for (ptrdiff_t j = 0; j < p->a.n_k; j++) sum += weight_at(p, y, row, j);
    return sum;
}

/* ---- The four special cases ---------------------------------------------------------------- */

static void the_answer_is_the_values_combined_by_the_weights(void **state)
{
    (void)state;
    for (size_t c = 0; c < CHOICES; c++) {
        problem p = problem_of(with_choice(shape, c), WITH_BIAS | WITH_MASK | WITH_BANDWIDTH);
        answer y = solve(&p);
        for (ptrdiff_t row = 0; row < problem_rows(&p); row++)
            for (ptrdiff_t i = 0; i < p.a.d_v; i++) {
                double sum = 0, size = 0;
                for (ptrdiff_t j = 0; j < p.a.n_k; j++) {
                    double term = weight_at(&p, &y, row, j) * value_at(&p, row, j, i);
                    sum += term;
                    size += fabs(term);
                }
                assert_close(y.o[row * p.a.d_v + i], sum, 128 * REAL_EPSILON * size);
            }
        answer_free(&y);
        problem_free(&p);
    }
}

static void weights_that_are_not_negative_stay_in_the_cone_of_the_values(void **state)
{
    (void)state;
    for (size_t c = 0; c < CHOICES; c++) {
        problem p = problem_of(with_choice(shape, c), WITH_BIAS | WITH_MASK | WITH_BANDWIDTH);
        if (p.a.normalize != QKV_NONE_IDENTITY) {
            for (size_t i = 0; i < operand_size(&p, V); i++) p.in[V][i] = fabs(p.in[V][i]);
            answer y = solve(&p);
            for (ptrdiff_t i = 0; i < problem_rows(&p) * p.a.n_k; i++)
                assert_true(y.weights[i] >= 0);
            for (ptrdiff_t i = 0; i < problem_rows(&p) * p.a.d_v; i++) assert_true(y.o[i] >= 0);
            answer_free(&y);
        }
        problem_free(&p);
    }
}

static void the_identity_combines_with_weights_of_both_signs(void **state)
{
    (void)state;
    qkv_attention a = shape;
    a.normalize = QKV_NONE_IDENTITY;
    problem p = problem_of(a, 0);
    answer y = solve(&p);
    for (ptrdiff_t row = 0; row < problem_rows(&p); row++) {
        int negative = 0, positive = 0;
        for (ptrdiff_t j = 0; j < a.n_k; j++) {
            negative += weight_at(&p, &y, row, j) < 0;
            positive += weight_at(&p, &y, row, j) > 0;
        }
        assert_true(negative > 0 && positive > 0);
    }
    answer_free(&y);
    problem_free(&p);
}

static void normalized_weights_sum_to_one_and_stay_in_the_hull_of_the_values(void **state)
{
    (void)state;
    for (size_t c = 0; c < CHOICES; c++) {
        problem p = problem_of(with_choice(shape, c), WITH_BIAS | WITH_BANDWIDTH);
        answer y = solve(&p);
        for (ptrdiff_t row = 0; is_convex(&p) && row < problem_rows(&p); row++) {
            assert_close(row_sum(&p, &y, row), 1, 32 * REAL_EPSILON);
            for (ptrdiff_t i = 0; i < p.a.d_v; i++) {
                double low = INFINITY, high = -INFINITY, o = y.o[row * p.a.d_v + i];
                for (ptrdiff_t j = 0; j < p.a.n_k; j++) {
                    low = fmin(low, value_at(&p, row, j, i));
                    high = fmax(high, value_at(&p, row, j, i));
                }
                assert_true(low - 32 * REAL_EPSILON <= o && o <= high + 32 * REAL_EPSILON);
            }
        }
        answer_free(&y);
        problem_free(&p);
    }
}

static void hard_attention_is_exactly_one_value(void **state)
{
    (void)state;
    qkv_attention a = shape;
    a.normalize = QKV_HARD;
    problem p = problem_of(a, WITH_BIAS);
    answer y = solve(&p);
    for (ptrdiff_t row = 0; row < problem_rows(&p); row++) {
        ptrdiff_t winner = -1;
        for (ptrdiff_t j = 0; j < a.n_k; j++) {
            double weight = weight_at(&p, &y, row, j);
            assert_true(weight == 0 || (weight == 1 && winner < 0));
            if (weight == 1) winner = j;
        }
        assert_true(winner >= 0);
        for (ptrdiff_t i = 0; i < a.d_v; i++)
            assert_close(y.o[row * a.d_v + i], value_at(&p, row, winner, i), 0);
    }
    for (operand x = Q; x < OPERANDS; x++) /* no gradient but the values' */
        for (size_t i = 0; x != V && p.in[x] && i < operand_size(&p, x); i++)
            assert_close(y.d[x][i], gradient_start(x), 0);
    answer_free(&y);
    problem_free(&p);
}

static void hard_attention_does_not_look_at_the_values_it_leaves(void **state)
{
    (void)state;
    for (int with = WITH_BIAS; with <= (WITH_BIAS | WITH_MASK); with += WITH_MASK) {
        qkv_attention a = shape;
        a.normalize = QKV_HARD;
        problem p = problem_of(a, with);
        answer clean = solve(&p);
        for (ptrdiff_t j = 0; j < a.batch * a.n_k; j++) {
            ptrdiff_t b = j / a.n_k, rows = a.heads * a.n_q;
            bool chosen = false;
            for (ptrdiff_t row = b * rows; row < (b + 1) * rows; row++)
                chosen = chosen || weight_at(&p, &clean, row, j % a.n_k) != 0;
            if (!chosen) p.in[V][j * a.d_v] = NAN;
        }
        answer y = solve(&p);
        assert_same_bits(&p, ALL_GRADIENTS, &y, &clean, "values left");
        answer_free(&y);
        answer_free(&clean);
        problem_free(&p);
    }
}

static void the_lowest_index_wins_a_tie_across_any_distance(void **state)
{
    (void)state;
    static const ptrdiff_t ties[][2] = {{0, 1}, {3, 69}, {15, 16}, {31, 32}, {63, 64}, {0, 299}};
    for (size_t t = 0; t < sizeof ties / sizeof *ties; t++) {
        qkv_attention a = shape;
        a.normalize = QKV_HARD;
        a.n_k = 300;
        problem p = problem_of(a, WITH_SHARED_BIAS);
        for (size_t i = 0; i < operand_size(&p, K); i++) p.in[K][i] = 0;
        for (ptrdiff_t i = 0; i < a.n_q; i++)
            for (ptrdiff_t j = 0; j < a.n_k; j++)
                p.in[BIAS][i * a.n_k + j] = j == ties[t][0] || j == ties[t][1];
        answer y = solve(&p);
        for (ptrdiff_t row = 0; row < problem_rows(&p); row++)
            for (ptrdiff_t j = 0; j < a.n_k; j++)
                assert_close(weight_at(&p, &y, row, j), j == ties[t][0], 0);
        answer_free(&y);
        problem_free(&p);
    }
}

static void uniform_attention_is_the_mean_of_the_seen_values(void **state)
{
    (void)state;
    qkv_attention a = shape;
    a.normalize = QKV_UNIFORM;
    problem p = problem_of(a, WITH_BIAS | WITH_MASK);
    answer y = solve(&p);
    for (ptrdiff_t row = 0; row < problem_rows(&p); row++)
        for (ptrdiff_t i = 0; i < a.d_v; i++) {
            double sum = 0;
            int seen = 0;
            for (ptrdiff_t j = 0; j < a.n_k; j++) {
                if (!p.mask[row * a.n_k + j]) continue;
                sum += value_at(&p, row, j, i);
                seen++;
            }
            assert_close(y.o[row * a.d_v + i], seen ? sum / seen : 0, 32 * REAL_EPSILON);
        }
    answer_free(&y);
    problem_free(&p);
}

/* ---- Linear, equivariant, invariant -------------------------------------------------------- */

static void every_weighting_is_linear_in_the_values(void **state)
{
    (void)state;
    for (size_t c = 0; c < CHOICES; c++) {
        problem p = problem_of(with_choice(shape, c), WITH_BIAS | WITH_MASK | WITH_BANDWIDTH);
        answer first = solve(&p), size = answer_new(&p), unused = answer_new(&p);
        oracle_solve(&p, &unused, &size);
        size_t n = operand_size(&p, V);
        double *v = malloc(n * sizeof *v);
        memcpy(v, p.in[V], n * sizeof *v);
        for (size_t i = 0; i < n; i++) p.in[V][i] = (double)(real)uniform(9, i, -1, 1);
        answer second = solve(&p);
        for (size_t i = 0; i < n; i++) p.in[V][i] = 2 * v[i] - p.in[V][i];
        answer both = solve(&p);
        for (ptrdiff_t i = 0; i < problem_rows(&p) * p.a.d_v; i++)
            assert_close(both.o[i], 2 * first.o[i] - second.o[i],
                         128 * REAL_EPSILON * (size.o[i] + 1));
        free(v);
        answer_free(&both);
        answer_free(&second);
        answer_free(&unused);
        answer_free(&size);
        answer_free(&first);
        problem_free(&p);
    }
}

/* Key j goes to (j s + 5) mod n_k, with s prime to n_k. */
static ptrdiff_t permuted(const problem *p, ptrdiff_t j)
{
    return (j * 27 + 5) % p->a.n_k;
}

static void permute_rows(const problem *p, double *x, size_t rows, ptrdiff_t width)
{
    double *old = malloc(rows * (size_t)width * sizeof *old);
    memcpy(old, x, rows * (size_t)width * sizeof *old);
    for (size_t r = 0; r < rows; r++) {
        ptrdiff_t set = (ptrdiff_t)r / p->a.n_k, j = (ptrdiff_t)r % p->a.n_k;
        memcpy(x + (set * p->a.n_k + permuted(p, j)) * width, old + (ptrdiff_t)r * width,
               (size_t)width * sizeof *x);
    }
    free(old);
}

static void permuting_the_keys_permutes_the_weights_and_keeps_the_answer(void **state)
{
    (void)state;
    for (size_t c = 0; c < CHOICES; c++) {
        problem p = problem_of(with_choice(shape, c), WITH_BIAS | WITH_BANDWIDTH);
        answer y = solve(&p), size = answer_new(&p), unused = answer_new(&p);
        oracle_solve(&p, &unused, &size);
        permute_rows(&p, p.in[K], operand_size(&p, K) / 3, 3);
        permute_rows(&p, p.in[V], operand_size(&p, V) / 4, 4);
        permute_rows(&p, p.in[BIAS], operand_size(&p, BIAS), 1);
        answer z = solve(&p);
        for (ptrdiff_t i = 0; i < problem_rows(&p) * p.a.d_v; i++)
            assert_close(z.o[i], y.o[i], 64 * REAL_EPSILON * size.o[i]);
        permute_rows(&p, y.weights, (size_t)(problem_rows(&p) * p.a.n_k), 1);
        permute_rows(&p, size.weights, (size_t)(problem_rows(&p) * p.a.n_k), 1);
        for (ptrdiff_t i = 0; i < problem_rows(&p) * p.a.n_k; i++)
            assert_close(z.weights[i], y.weights[i], 64 * REAL_EPSILON * size.weights[i]);
        permute_rows(&p, y.d[K], operand_size(&p, K) / 3, 3);
        permute_rows(&p, size.d[K], operand_size(&p, K) / 3, 3);
        for (size_t i = 0; i < operand_size(&p, K); i++)
            assert_close(z.d[K][i], y.d[K][i], 64 * REAL_EPSILON * size.d[K][i]);
        answer_free(&z);
        answer_free(&unused);
        answer_free(&size);
        answer_free(&y);
        problem_free(&p);
    }
}

static void adding_a_constant_to_all_scores_of_a_row_changes_no_normalized_weight(void **state)
{
    (void)state;
    for (size_t c = 0; c < CHOICES; c++) {
        problem p = problem_of(with_choice(shape, c), WITH_BIAS | WITH_BANDWIDTH);
        bool sparse = p.a.normalize == QKV_SPARSEMAX || p.a.normalize == QKV_ENTMAX_15;
        double moved = p.a.normalize == QKV_TOP_K_UNIFORM ? 0 : 8; /* lse: keys only count there */
        if (is_convex(&p)) {
            answer y = solve(&p);
            for (size_t i = 0; i < operand_size(&p, BIAS); i++)
                p.in[BIAS][i] = (double)(real)(p.in[BIAS][i] + 8);
            answer z = solve(&p);
            for (ptrdiff_t i = 0; i < problem_rows(&p) * p.a.n_k; i++)
                assert_close(z.weights[i], y.weights[i],
                             256 * REAL_EPSILON * (sparse ? 1 : y.weights[i]));
            for (ptrdiff_t i = 0; problem_has_lse(&p) && i < problem_rows(&p); i++)
                assert_close(z.lse[i], y.lse[i] + moved, 64 * REAL_EPSILON * (1 + fabs(z.lse[i])));
            answer_free(&z);
            answer_free(&y);
        }
        problem_free(&p);
    }
}

static void one_key_returns_its_value(void **state)
{
    (void)state;
    for (size_t c = 0; c < CHOICES; c++) {
        qkv_attention a = with_choice(shape, c);
        a.n_k = 1;
        problem p = problem_of(a, WITH_BIAS);
        answer y = solve(&p);
        for (ptrdiff_t row = 0; is_convex(&p) && row < problem_rows(&p); row++) {
            assert_close(y.weights[row], 1, 4 * REAL_EPSILON);
            for (ptrdiff_t i = 0; i < a.d_v; i++)
                assert_close(y.o[row * a.d_v + i], value_at(&p, row, 0, i), 16 * REAL_EPSILON);
        }
        answer_free(&y);
        problem_free(&p);
    }
}

/* ---- Limits -------------------------------------------------------------------------------- */

static double distance_of_weights(const problem *p, const answer *y, const answer *z)
{
    double most = 0;
    for (ptrdiff_t i = 0; i < problem_rows(p) * p->a.n_k; i++)
        most = fmax(most, fabs(y->weights[i] - z->weights[i]));
    return most;
}

static void a_sharp_scale_tends_to_hard(void **state)
{
    (void)state;
    for (qkv_score score = QKV_SCORE_SCALED_DOT; score <= QKV_SCORE_GAUSSIAN; score++) {
        qkv_attention a = shape;
        a.score = score;
        problem p = problem_of(a, WITH_SCALE);
        p.a.normalize = QKV_HARD;
        answer hard = solve(&p);
        p.a.normalize = QKV_SOFTMAX;
        double last = 1;
        for (double scale = 1; scale < 1e9; scale *= 100) {
            p.in[SCALE][0] = scale;
            answer y = solve(&p);
            double now = distance_of_weights(&p, &y, &hard);
            assert_true(now <= last);
            last = now;
            answer_free(&y);
        }
        assert_close(last, 0, 0);
        answer_free(&hard);
        problem_free(&p);
    }
}

static void the_constant_kernel_is_the_mean(void **state)
{
    (void)state;
    qkv_attention a = shape;
    a.score = QKV_SCORE_GAUSSIAN;
    problem p = problem_of(a, WITH_BANDWIDTH | WITH_MASK);
    p.a.normalize = QKV_UNIFORM;
    answer mean = solve(&p);
    p.a.normalize = QKV_KERNEL_SUM;
    p.a.kernel = QKV_KERNEL_CONSTANT;
    answer y = solve(&p);
    assert_close(distance_of_weights(&p, &y, &mean), 0, 4 * REAL_EPSILON);
    answer_free(&y);
    answer_free(&mean);
    problem_free(&p);
}

/* ---- Outside the support ------------------------------------------------------------------- */

/* Keys on the line at 0, 1, 2, ..; even queries at their own key, odd ones 1000 and 3/4 beyond. */
static problem problem_with_strays(qkv_kernel kernel, qkv_empty empty)
{
    qkv_attention a = {.batch = 1, .heads = 1, .n_q = 40, .n_k = 70, .d_k = 1, .d_v = 2};
    a.score = QKV_SCORE_GAUSSIAN;
    a.normalize = QKV_KERNEL_SUM;
    a.kernel = kernel;
    a.empty = empty;
    problem p = problem_of(a, WITH_BANDWIDTH | WITH_KEY_BIAS | WITH_D_LSE);
    p.in[BANDWIDTH][0] = 0.5;
    for (ptrdiff_t i = 0; i < a.n_q; i++) p.in[Q][i] = i % 2 ? 1000.75 + (double)i : (double)i;
    for (ptrdiff_t j = 0; j < a.n_k; j++) p.in[K][j] = (double)j;
    return p;
}

static void strays_are_nan_and_move_no_key_unless_asked_otherwise(void **state)
{
    (void)state;
    for (int kernel = QKV_KERNEL_BOXCAR; kernel < QKV_KERNEL_CONSTANT; kernel++)
        for (qkv_empty empty = QKV_EMPTY_NAN; empty <= QKV_EMPTY_ERROR; empty++) {
            if (empty == QKV_EMPTY_NEAREST) continue;
            problem p = problem_with_strays((qkv_kernel)kernel, empty);
            answer y = answer_new(&p);
            qkv_status expected = empty == QKV_EMPTY_ERROR ? QKV_E_DOMAIN : QKV_OK;
            assert_status(compute(&p, LAYOUT_PACKED, ALL_GRADIENTS, &y), expected);
            if (empty == QKV_EMPTY_ERROR) assert_message("20"); /* strays */
            for (ptrdiff_t i = 0; i < p.a.n_q; i++) {
                bool stray = i % 2;
                for (ptrdiff_t c = 0; c < p.a.d_v; c++)
                    assert_true(!isnan(y.o[i * p.a.d_v + c]) == !stray);
                for (ptrdiff_t j = 0; j < p.a.n_k; j++)
                    assert_true(!isnan(weight_at(&p, &y, i, j)) == !stray);
                assert_true(!isnan(y.d[Q][i]) == !stray);
                assert_true((y.lse[i] == -INFINITY) == stray);
            }
            for (operand x = K; x <= V; x++)
                for (size_t i = 0; i < operand_size(&p, x); i++) {
                    assert_true(isfinite(y.d[x][i]));
                    if (i / (size_t)p.dim[x][3] % 2) /* only strays are near odd keys */
                        assert_close(y.d[x][i], gradient_start(x), 0);
                }
            answer_free(&y);
            problem_free(&p);
        }
}

/* Keys at u = 0 and exactly 1. */
static void the_edge_of_the_boxcar_is_closed_unless_asked_otherwise(void **state)
{
    (void)state;
    for (int open = 0; open < 2; open++) {
        const qkv_attention a = {.batch = 1,
                                 .heads = 1,
                                 .n_q = 1,
                                 .n_k = 2,
                                 .d_k = 1,
                                 .d_v = 1,
                                 .score = QKV_SCORE_GAUSSIAN,
                                 .normalize = QKV_KERNEL_SUM,
                                 .open_edge = open};
        problem p = problem_of(a, 0);
        p.in[Q][0] = p.in[K][0] = 0, p.in[K][1] = 1;
        answer y = solve(&p);
        assert_close(y.weights[0], open ? 1 : 0.5, 0);
        assert_close(y.weights[1], open ? 0 : 0.5, 0);
        answer_free(&y);
        problem_free(&p);
    }
}

static void a_row_that_sees_no_key_is_no_stray(void **state)
{
    (void)state;
    qkv_attention a = shape;
    a.score = QKV_SCORE_GAUSSIAN;
    a.normalize = QKV_KERNEL_SUM;
    a.kernel = QKV_KERNEL_CONSTANT;
    a.empty = QKV_EMPTY_ERROR;
    problem p = problem_of(a, WITH_MASK); /* one row in seven */
    answer y = solve(&p);
    answer_free(&y);
    problem_free(&p);
}

static void strays_take_the_nearest_keys_if_asked(void **state)
{
    (void)state;
    for (int kernel = QKV_KERNEL_BOXCAR; kernel < QKV_KERNEL_CONSTANT; kernel++) {
        problem p = problem_with_strays((qkv_kernel)kernel, QKV_EMPTY_NEAREST);
        p.in[Q][7] = 30.5; /* as near to 30 as to 31, and h is 1/4 for it alone to see none */
        p.in[BANDWIDTH][0] = 0.25;
        answer y = solve(&p);
        for (ptrdiff_t i = 1; i < p.a.n_q; i += 2)
            for (ptrdiff_t j = 0; j < p.a.n_k; j++) {
                double e30 = exp(p.in[BIAS][30]), e31 = exp(p.in[BIAS][31]);
                double expected = j == p.a.n_k - 1;
                if (i == 7)
                    expected = j == 30 ? e30 / (e30 + e31) : j == 31 ? e31 / (e30 + e31) : 0;
                assert_close(weight_at(&p, &y, i, j), expected, 8 * REAL_EPSILON);
            }
        for (ptrdiff_t i = 1; i < p.a.n_q; i += 2) assert_close(y.d[Q][i], gradient_start(Q), 0);
        assert_agrees(&p, LAYOUT_PADDED, "nearest");
        answer_free(&y);
        problem_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_answer_is_the_values_combined_by_the_weights),
        cmocka_unit_test(weights_that_are_not_negative_stay_in_the_cone_of_the_values),
        cmocka_unit_test(the_identity_combines_with_weights_of_both_signs),
        cmocka_unit_test(normalized_weights_sum_to_one_and_stay_in_the_hull_of_the_values),
        cmocka_unit_test(hard_attention_is_exactly_one_value),
        cmocka_unit_test(hard_attention_does_not_look_at_the_values_it_leaves),
        cmocka_unit_test(the_lowest_index_wins_a_tie_across_any_distance),
        cmocka_unit_test(uniform_attention_is_the_mean_of_the_seen_values),
        cmocka_unit_test(every_weighting_is_linear_in_the_values),
        cmocka_unit_test(permuting_the_keys_permutes_the_weights_and_keeps_the_answer),
        cmocka_unit_test(adding_a_constant_to_all_scores_of_a_row_changes_no_normalized_weight),
        cmocka_unit_test(one_key_returns_its_value),
        cmocka_unit_test(a_sharp_scale_tends_to_hard),
        cmocka_unit_test(the_constant_kernel_is_the_mean),
        cmocka_unit_test(strays_are_nan_and_move_no_key_unless_asked_otherwise),
        cmocka_unit_test(the_edge_of_the_boxcar_is_closed_unless_asked_otherwise),
        cmocka_unit_test(a_row_that_sees_no_key_is_no_stray),
        cmocka_unit_test(strays_take_the_nearest_keys_if_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
