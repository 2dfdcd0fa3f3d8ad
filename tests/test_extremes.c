/* test_extremes.c - the numeric contract for numbers: NaN and infinity where nobody may look,
 * biases and logits at the ends of the range. Built for each dtype. */
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

/* ---- Hidden keys --------------------------------------------------------------------------- */

typedef enum hiding { BY_MASK, BY_BIAS, BY_CAUSE, BY_LENGTH, BY_WINDOW, HIDINGS } hiding;

/* All rows are kept from the keys j with j % 3 == 1; by cause or length, from the last hundred; by
 * the window, from the first fifty. */
static bool is_hidden(hiding how, ptrdiff_t j)
{
    if (how == BY_WINDOW) return j < 50;
    return how == BY_CAUSE || how == BY_LENGTH ? j >= 199 : j % 3 == 1;
}

static problem problem_with_hidden_keys(qkv_attention a, hiding how)
{
    if (how == BY_CAUSE) a.mask = (qkv_mask){.causal = true, .causal_offset = 198 - a.n_q + 1};
    if (how == BY_WINDOW)
        a.mask = (qkv_mask){.window = true, .window_left = 50, .window_right = -1};
    int with = WITH_BIAS | WITH_MASK | WITH_SCALE | WITH_BANDWIDTH | WITH_D_LSE;
    if (how == BY_MASK || how == BY_LENGTH) with |= WITH_SLOPES | WITH_SINK;
    if (takes_softcap(&a) && (how == BY_MASK || how == BY_CAUSE)) a.softcap = 2;
    problem p = problem_of(a, with | WITH_LENGTHS | WITH_OFFSETS);
    for (ptrdiff_t b = 0; b < a.batch; b++) {
        p.lengths[b] = how == BY_LENGTH ? 199 : a.n_k;
        p.causal_offsets[b] = how == BY_WINDOW ? 100 : a.mask.causal_offset;
    }
    for (ptrdiff_t i = 0; i < problem_rows(&p) * a.n_k; i++) {
        if (!is_hidden(how, i % a.n_k)) continue;
        if (how == BY_MASK) p.mask[i] = 0;
        if (how == BY_BIAS) p.in[BIAS][i] = -INFINITY;
    }
    return p;
}

static void nan_and_infinity_in_keys_nobody_sees_change_no_bit(void **state)
{
    (void)state;
    static const double poisons[] = {NAN, INFINITY, -INFINITY};
    for (size_t c = first_choice(REAL_DTYPE); c < CHOICES; c += CHOICE_STEP)
        for (hiding how = BY_MASK; how < HIDINGS; how++) {
            problem p = problem_with_hidden_keys(with_choice(many_keys, c), how);
            answer clean = solve(&p);
            for (ptrdiff_t row = 0; row < p.a.batch * p.a.n_k; row++) { /* one key head */
                if (!is_hidden(how, row % p.a.n_k)) continue;
                for (ptrdiff_t i = 0; i < p.a.d_k; i++)
                    p.in[K][row * p.a.d_k + i] = poisons[(row + i) % 3];
                for (ptrdiff_t i = 0; i < p.a.d_v; i++)
                    p.in[V][row * p.a.d_v + i] = poisons[(row + i) % 3];
            }
            answer poisoned = solve(&p);
            assert_same_bits(&p, ALL_GRADIENTS, &poisoned, &clean, "hidden keys");
            answer_free(&poisoned);
            answer_free(&clean);
            problem_free(&p);
        }
}

/* Even queries see even keys, odd queries odd keys. */
static problem problem_of_two_parties(qkv_attention a)
{
    problem p = problem_of(a, WITH_BIAS | WITH_MASK | WITH_BANDWIDTH | WITH_D_LSE);
    for (ptrdiff_t i = 0; i < problem_rows(&p) * a.n_k; i++)
        p.mask[i] = (i / a.n_k % a.n_q - i % a.n_k) % 2 == 0;
    return p;
}

static void assert_party_unchanged(const problem *p, const answer *y, const answer *expected,
                                   ptrdiff_t party)
{
    const qkv_attention *a = &p->a;
    for (ptrdiff_t row = 0; row < problem_rows(p); row++) {
        if (row % a->n_q % 2 != party) continue;
        for (ptrdiff_t c = 0; c < a->d_v; c++)
            assert_close(y->o[row * a->d_v + c], expected->o[row * a->d_v + c], 0);
        for (ptrdiff_t c = 0; c < a->d_k; c++)
            assert_close(y->d[Q][row * a->d_k + c], expected->d[Q][row * a->d_k + c], 0);
        for (ptrdiff_t j = 0; j < a->n_k; j++) {
            assert_close(y->weights[row * a->n_k + j], expected->weights[row * a->n_k + j], 0);
            assert_close(y->d[BIAS][row * a->n_k + j], expected->d[BIAS][row * a->n_k + j], 0);
        }
    }
    for (ptrdiff_t row = 0; row < a->batch * a->n_k; row++) {
        if (row % a->n_k % 2 != party) continue;
        for (ptrdiff_t c = 0; c < a->d_k; c++)
            assert_close(y->d[K][row * a->d_k + c], expected->d[K][row * a->d_k + c], 0);
        for (ptrdiff_t c = 0; c < a->d_v; c++)
            assert_close(y->d[V][row * a->d_v + c], expected->d[V][row * a->d_v + c], 0);
    }
}

static bool reads_scores(const problem *p)
{
    return p->a.normalize != QKV_UNIFORM;
}

static void a_nan_key_spoils_only_the_rows_that_see_it(void **state)
{
    (void)state;
    for (size_t c = first_choice(REAL_DTYPE); c < CHOICES; c += CHOICE_STEP) {
        problem p = problem_of_two_parties(with_choice(many_keys, c));
        answer clean = solve(&p);
        ptrdiff_t spoiled = 201; /* of batch 0; seen by odd queries */
        p.in[K][spoiled * p.a.d_k] = NAN;
        answer y = solve(&p);
        assert_party_unchanged(&p, &y, &clean, 0);
        for (ptrdiff_t row = 1; reads_scores(&p) && row < p.a.n_q; row += 2) {
            for (ptrdiff_t i = 0; i < p.a.d_v; i++) assert_true(isnan(y.o[row * p.a.d_v + i]));
            bool flat = p.a.normalize == QKV_HARD || p.a.normalize == QKV_TOP_K_UNIFORM;
            /* dq = sum ds k: 0 for choices; for the identity ds does not depend on the score */
            ptrdiff_t affected = flat ? 0 : p.a.normalize == QKV_NONE_IDENTITY ? 1 : p.a.d_k;
            for (ptrdiff_t i = 0; i < affected; i++) assert_true(isnan(y.d[Q][row * p.a.d_k + i]));
            assert_true(isnan(y.weights[row * p.a.n_k + spoiled]));
        }
        answer_free(&y);
        answer_free(&clean);
        problem_free(&p);
    }
}

static void a_nan_query_spoils_only_its_row_and_the_keys_it_sees(void **state)
{
    (void)state;
    for (size_t c = first_choice(REAL_DTYPE); c < CHOICES; c += CHOICE_STEP) {
        problem p = problem_of_two_parties(with_choice(many_keys, c));
        answer clean = solve(&p);
        ptrdiff_t spoiled = 7;
        p.in[Q][spoiled * p.a.d_k + 1] = NAN;
        answer y = solve(&p);
        assert_party_unchanged(&p, &y, &clean, 0);
        for (ptrdiff_t row = 0; row < p.a.n_q; row++)
            for (ptrdiff_t i = 0; i < p.a.d_v; i++) {
                bool is_nan = row == spoiled && reads_scores(&p);
                assert_true(!isnan(y.o[row * p.a.d_v + i]) == !is_nan);
            }
        answer_free(&y);
        answer_free(&clean);
        problem_free(&p);
    }
}

static void a_nan_value_spoils_only_its_column_of_the_rows_that_see_it(void **state)
{
    (void)state;
    for (size_t c = first_choice(REAL_DTYPE); c < CHOICES; c += CHOICE_STEP) {
        problem p = problem_of_two_parties(with_choice(many_keys, c));
        answer clean = solve(&p);
        p.in[V][201 * p.a.d_v + 1] = NAN;
        answer y = solve(&p);
        assert_party_unchanged(&p, &y, &clean, 0);
        for (ptrdiff_t row = 1; row < p.a.n_q; row += 2)
            assert_close(y.o[row * p.a.d_v], clean.o[row * p.a.d_v], 0);
        answer_free(&y);
        answer_free(&clean);
        problem_free(&p);
    }
}

/* ---- Biases -------------------------------------------------------------------------------- */

static void an_infinite_cotangent_spoils_only_its_column_of_the_values_its_row_sees(void **state)
{
    (void)state;
    qkv_attention a = many_keys;
    a.batch = a.heads = 1;
    a.mask = (qkv_mask){.causal = true, .causal_offset = 100};
    for (ptrdiff_t row = 0; row < a.n_q; row++) {
        problem p = problem_of(a, 0);
        p.d_o[row * a.d_v] = INFINITY;
        answer y = solve(&p);
        for (ptrdiff_t j = 0; j < a.n_k; j++) {
            assert_int_equal(isinf(y.d[V][j * a.d_v]) != 0, j <= row + 100);
            assert_true(isfinite(y.d[V][j * a.d_v + 1]));
        }
        answer_free(&y);
        problem_free(&p);
    }
}

static void a_bias_of_minus_infinity_is_a_mask_to_the_bit(void **state)
{
    (void)state;
    for (size_t c = first_choice(REAL_DTYPE); c < CHOICES; c += CHOICE_STEP) {
        qkv_attention a = with_choice(many_keys, c);
        problem masked = problem_of(a, WITH_BIAS | WITH_MASK | WITH_BANDWIDTH | WITH_D_LSE);
        answer expected = solve(&masked);
        for (size_t i = 0; i < operand_size(&masked, BIAS); i++)
            if (!masked.mask[i]) masked.in[BIAS][i] = -INFINITY;
        uint8_t *mask = masked.mask;
        masked.mask = NULL;
        answer y = solve(&masked);
        assert_same_bits(&masked, ALL_GRADIENTS, &y, &expected, "bias -inf");
        for (size_t i = 0; i < operand_size(&masked, BIAS); i++)
            if (!mask[i]) assert_true(y.d[BIAS][i] == gradient_start(BIAS)); /* exactly 0 */
        free(mask);
        answer_free(&y);
        answer_free(&expected);
        problem_free(&masked);
    }
}

static void the_largest_finite_biases_are_numbers_not_sentinels(void **state)
{
    (void)state;
    static const qkv_normalize all[] = {QKV_SOFTMAX, QKV_KERNEL_SUM, QKV_HARD, QKV_UNIFORM};
    double huge = REAL_DTYPE == QKV_F32 ? FLT_MAX : DBL_MAX;
    for (size_t n = 0; n < 4; n++)
        for (int sign = -1; sign <= 1; sign += 2) {
            qkv_attention a = many_keys;
            a.score = QKV_SCORE_GAUSSIAN;
            a.normalize = all[n];
            a.kernel = QKV_KERNEL_CONSTANT;
            problem p = problem_of(a, WITH_BIAS);
            for (size_t i = 0; i < operand_size(&p, BIAS); i++) p.in[BIAS][i] = sign * huge;
            for (size_t i = 0; i < operand_size(&p, Q); i++) p.in[Q][i] = 0;
            for (size_t i = 0; i < operand_size(&p, K); i++) p.in[K][i] = 0;
            answer y = solve(&p);
            for (ptrdiff_t i = 0; i < problem_rows(&p) * a.n_k; i++) {
                double expected = a.normalize == QKV_HARD ? i % a.n_k == 0 : 1.0 / (double)a.n_k;
                assert_close(y.weights[i], expected, 4 * REAL_EPSILON / (double)a.n_k);
            }
            for (size_t i = 0; i < operand_size(&p, BIAS); i++) assert_true(isfinite(y.d[BIAS][i]));
            answer_free(&y);
            problem_free(&p);
        }
}

/* Scores and biases at six tenths of the range: finite, also times log2(e) in base 2, but their sum
 * is not. The key numbered moderate, if any, has logit 0. */
static problem problem_beyond_the_range(qkv_score score, int sign, ptrdiff_t moderate)
{
    qkv_attention a = {.batch = 1, .heads = 1, .n_q = 21, .n_k = 150, .d_k = 1, .d_v = 2};
    a.score = score;
    problem p = problem_of(a, WITH_BIAS);
    double large = REAL_MAX * 0.6, far = sqrt(REAL_MAX) * 0.95;
    for (ptrdiff_t i = 0; i < a.n_q; i++) p.in[Q][i] = score == QKV_SCORE_GAUSSIAN ? 0 : 1;
    for (ptrdiff_t j = 0; j < a.n_k; j++) {
        double key = score == QKV_SCORE_GAUSSIAN ? far : sign * large;
        p.in[K][j] = j == moderate ? 0 : (double)(real)key;
        for (ptrdiff_t i = 0; i < a.n_q; i++)
            p.in[BIAS][i * a.n_k + j] = j == moderate ? 0 : sign * large;
    }
    return p;
}

static void a_score_and_a_bias_whose_sum_overflows_are_as_large_as_can_be(void **state)
{
    (void)state;
    static const struct {
        qkv_score score;
        int sign;
    } all[] = {{QKV_SCORE_DOT, 1}, {QKV_SCORE_DOT, -1}, {QKV_SCORE_GAUSSIAN, -1}};
    for (int c = 0; c < 3; c++)
        for (ptrdiff_t moderate = -1; moderate < 150; moderate += 75) {
            problem p = problem_beyond_the_range(all[c].score, all[c].sign, moderate);
            answer y = solve(&p), expected = answer_new(&p);
            double others = moderate < 0 ? 1.0 / 150 : all[c].sign > 0 ? 1.0 / 149 : 0;
            double largest = REAL_MAX / 1.4426950408889634; /* that softmax counts in */
            double lse = moderate < 0 || all[c].sign > 0 ? all[c].sign * largest : 0;
            for (ptrdiff_t i = 0; i < p.a.n_q; i++) {
                assert_close(y.lse[i], lse, 4 * REAL_EPSILON * fabs(lse));
                for (ptrdiff_t j = 0; j < p.a.n_k; j++) {
                    double w = j != moderate ? others : all[c].sign > 0 ? 0 : 1;
                    assert_close(y.weights[i * p.a.n_k + j], w, 4 * REAL_EPSILON * w);
                }
            }
            for (operand x = Q; x <= BIAS; x++)
                for (size_t i = 0; i < operand_size(&p, x); i++) assert_true(isfinite(y.d[x][i]));
            answer_free(&expected);
            answer_free(&y);
            problem_free(&p);
        }
}

/* ---- Logits -------------------------------------------------------------------------------- */

/* s = q k with one coordinate, all keys the same. */
static problem problem_of_equal_logits(qkv_normalize normalize, double logit)
{
    qkv_attention a = {.batch = 1, .heads = 1, .n_q = 3, .n_k = 150, .d_k = 1, .d_v = 2};
    a.score = QKV_SCORE_DOT;
    a.normalize = normalize;
    problem p = problem_of(a, WITH_BIAS | WITH_D_LSE);
    for (size_t i = 0; i < operand_size(&p, BIAS); i++) p.in[BIAS][i] = 0;
    for (size_t i = 0; i < operand_size(&p, Q); i++) p.in[Q][i] = 1;
    for (size_t i = 0; i < operand_size(&p, K); i++) p.in[K][i] = (double)(real)logit;
    return p;
}

/* Two keys, the second out of reach of every compact kernel, with a bias whose exponential
 * overflows: it must be as if absent. */
static void a_large_bias_outside_the_support_weighs_nothing(void **state)
{
    (void)state;
    static const qkv_normalize all[] = {QKV_KERNEL_SUM, QKV_NONE_KERNEL};
    for (int n = 0; n < 2; n++)
        for (qkv_kernel kernel = QKV_KERNEL_BOXCAR; kernel < QKV_KERNEL_CONSTANT; kernel++) {
            const qkv_attention a = {.batch = 1,
                                     .heads = 1,
                                     .n_q = 1,
                                     .n_k = 2,
                                     .d_k = 1,
                                     .d_v = 1,
                                     .score = QKV_SCORE_GAUSSIAN,
                                     .normalize = all[n],
                                     .kernel = kernel};
            problem p = problem_random(a, REAL_DTYPE, WITH_BIAS | WITH_BANDWIDTH, 1);
            p.in[Q][0] = 0, p.in[K][0] = 0.5, p.in[K][1] = 2, p.in[BANDWIDTH][0] = 1;
            p.in[BIAS][0] = 0, p.in[BIAS][1] = 1000;
            answer y = solve(&p);
            p.in[BIAS][1] = 0;
            answer expected = solve(&p);
            assert_same_bits(&p, ALL_GRADIENTS, &y, &expected, "out of reach");
            answer_free(&expected);
            answer_free(&y);
            problem_free(&p);
        }
}

static void equal_logits_weigh_the_same_however_large(void **state)
{
    (void)state;
    static const double logits[] = {1e30, -1e30, 1e4, -1e4, 0};
    for (size_t l = 0; l < 5; l++) {
        problem p = problem_of_equal_logits(QKV_SOFTMAX, logits[l]);
        problem zero = problem_of_equal_logits(QKV_SOFTMAX, 0);
        answer y = solve(&p), plain = solve(&zero);
        for (ptrdiff_t i = 0; i < p.a.n_q * p.a.n_k; i++) {
            assert_close(y.weights[i], 1.0 / 150, 4 * REAL_EPSILON / 150);
            assert_close(y.d[BIAS][i], plain.d[BIAS][i], 0);
        }
        for (size_t i = 0; i < operand_size(&p, V); i++) assert_close(y.d[V][i], plain.d[V][i], 0);
        for (size_t i = 0; i < operand_size(&p, K); i++) assert_close(y.d[K][i], plain.d[K][i], 0);
        for (size_t i = 0; i < operand_size(&p, Q); i++) assert_true(isfinite(y.d[Q][i]));
        answer_free(&plain);
        answer_free(&y);
        problem_free(&zero);
        problem_free(&p);
    }
}

/* Scores of +-1e30 are +-c for the softmax, and pass no gradient on. */
static void a_softcap_makes_usual_numbers_of_huge_scores(void **state)
{
    (void)state;
    qkv_attention a = {.batch = 1, .heads = 1, .n_q = 3, .n_k = 150, .d_k = 1, .d_v = 2};
    a.score = QKV_SCORE_DOT;
    a.softcap = 3;
    problem p = problem_of(a, 0);
    for (ptrdiff_t i = 0; i < a.n_q; i++) p.in[Q][i] = 1;
    for (ptrdiff_t j = 0; j < a.n_k; j++) p.in[K][j] = j % 2 ? 1e30 : -1e30;
    answer y = solve(&p);
    for (ptrdiff_t j = 0; j < a.n_k; j++) {
        double expected = (j % 2 ? 1 : exp(-6)) / (75 + 75 * exp(-6));
        assert_close(y.weights[j], expected, 100 * REAL_EPSILON * expected);
    }
    assert_close(y.lse[0], 3 + log(75 + 75 * exp(-6)), 10 * REAL_EPSILON);
    for (size_t i = 0; i < operand_size(&p, Q); i++) assert_close(y.d[Q][i], gradient_start(Q), 0);
    for (size_t i = 0; i < operand_size(&p, K); i++) assert_close(y.d[K][i], gradient_start(K), 0);
    answer_free(&y);
    problem_free(&p);
}

static void a_row_that_sees_only_the_sink_is_0_with_the_lse_of_the_sink(void **state)
{
    (void)state;
    qkv_attention a = {.batch = 1, .heads = 2, .n_q = 3, .n_k = 4, .d_k = 2, .d_v = 2};
    a.mask = (qkv_mask){.causal = true, .causal_offset = -3};
    problem p = problem_of(a, WITH_SINK | WITH_D_LSE);
    p.in[SINK][1] = -INFINITY; /* no sink at all */
    answer y = solve(&p);
    double lost = 0;
    for (ptrdiff_t i = 0; i < 3; i++) {
        assert_close(y.lse[i], p.in[SINK][0], REAL_EPSILON * fabs(p.in[SINK][0]));
        assert_true(y.lse[3 + i] == -INFINITY);
        lost += p.d_lse[i];
    }
    for (ptrdiff_t i = 0; i < problem_rows(&p) * a.d_v; i++) assert_close(y.o[i], 0, 0);
    for (operand x = Q; x <= V; x++)
        for (size_t i = 0; i < operand_size(&p, x); i++)
            assert_close(y.d[x][i], gradient_start(x), 0);
    assert_close(y.d[SINK][0], gradient_start(SINK) + lost, 8 * REAL_EPSILON * (1 + fabs(lost)));
    assert_close(y.d[SINK][1], gradient_start(SINK), 0);
    answer_free(&y);
    problem_free(&p);
}

static void logits_far_below_the_maximum_weigh_nothing_and_are_no_nan(void **state)
{
    (void)state;
    static const double depths[] = {80, 95, 104, 700, 740, 800, 1e4, 1e30};
    for (size_t l = 0; l < sizeof depths / sizeof *depths; l++)
        for (ptrdiff_t winner = 0; winner < 150; winner += 149) {
            problem p = problem_of_equal_logits(QKV_SOFTMAX, -depths[l]);
            p.in[K][winner] = 0;
            answer y = solve(&p);
            for (ptrdiff_t i = 0; i < p.a.n_q; i++) {
                assert_close(y.weights[i * p.a.n_k + winner], 1, 200 * exp(-depths[l]));
                assert_close(y.weights[i * p.a.n_k + 75], exp(-depths[l]),
                             1e-5 * exp(-depths[l]) + 1.0 * REAL_MIN);
                assert_close(y.o[i * p.a.d_v], p.in[V][winner * p.a.d_v], 600 * exp(-depths[l]));
                assert_close(y.lse[i], 0, 200 * exp(-depths[l]));
            }
            for (operand x = Q; x < OPERANDS; x++)
                for (size_t i = 0; p.in[x] && i < operand_size(&p, x); i++)
                    assert_true(isfinite(y.d[x][i]));
            answer_free(&y);
            problem_free(&p);
        }
}

static void a_sigmoid_of_extreme_logits_is_0_or_1_with_a_gradient_of_0(void **state)
{
    (void)state;
    static const double logits[] = {1e30, -1e30, 1e4, -1e4};
    for (size_t l = 0; l < 4; l++) {
        problem p = problem_of_equal_logits(QKV_NONE_SIGMOID, logits[l]);
        answer y = solve(&p);
        for (ptrdiff_t i = 0; i < p.a.n_q * p.a.n_k; i++) {
            assert_close(y.weights[i], logits[l] > 0, 0);
            assert_close(y.d[BIAS][i], gradient_start(BIAS), 0);
        }
        answer_free(&y);
        problem_free(&p);
    }
}

/* 1e6 and 1e8 plus multiples of 1/16 and 1/1024 are exact in f32 and f64, hence so are differences.
 */
static void a_common_offset_of_queries_and_keys_changes_no_gaussian_weight(void **state)
{
    (void)state;
    double offset = REAL_DTYPE == QKV_F32 ? 1e6 : 1e8, grid = REAL_DTYPE == QKV_F32 ? 16 : 1024;
    for (size_t c = first_choice(REAL_DTYPE); c < CHOICES; c += CHOICE_STEP) {
        qkv_attention a = with_choice(many_keys, c);
        if (a.score != QKV_SCORE_GAUSSIAN) continue;
        problem p = problem_of(a, WITH_BANDWIDTH | WITH_SCALE | WITH_D_LSE);
        for (operand x = Q; x <= K; x++)
            for (size_t i = 0; i < operand_size(&p, x); i++)
                p.in[x][i] = round(p.in[x][i] * grid) / grid;
        answer near = solve(&p), expected = answer_new(&p), size = answer_new(&p);
        oracle_solve(&p, &expected, &size);
        for (operand x = Q; x <= K; x++)
            for (size_t i = 0; i < operand_size(&p, x); i++) {
                p.in[x][i] += offset;
                assert_true((double)(real)p.in[x][i] == p.in[x][i]);
            }
        answer far = solve(&p);
        for (ptrdiff_t i = 0; i < problem_rows(&p) * a.n_k; i++)
            assert_close(far.weights[i], near.weights[i], 128 * REAL_EPSILON * size.weights[i]);
        for (operand x = Q; x < OPERANDS; x++)
            for (size_t i = 0; p.in[x] && i < operand_size(&p, x); i++)
                assert_close(far.d[x][i], near.d[x][i], 128 * REAL_EPSILON * size.d[x][i]);
        answer_free(&far);
        answer_free(&size);
        answer_free(&expected);
        answer_free(&near);
        problem_free(&p);
    }
}

/* Shards of the keys stand before or after the queries: all rules count from there. */
static void offsets_beyond_the_matrix_count(void **state)
{
    (void)state;
    const struct {
        ptrdiff_t offset, left, right;
        int with;
    } cases[] = {
        {310, 40, -1, 0},
        {350, -1, 3, 0},
        {-25, -1, 30, 0},
        {-60, 10, 100, 0},
        {500, -1, -1, WITH_SLOPES},
        {-40, -1, -1, WITH_SLOPES},
        {302, 9, -1, WITH_RELATIVE},
        {-23, -1, 25, WITH_RELATIVE},
        {PTRDIFF_MAX, PTRDIFF_MAX, -1, 0},
        {PTRDIFF_MIN, -1, PTRDIFF_MAX, 0},
    };
    for (size_t c = 0; c < 2 * sizeof cases / sizeof *cases; c++) {
        qkv_attention a = many_keys;
        ptrdiff_t offset = cases[c / 2].offset;
        bool extreme = offset == PTRDIFF_MAX || offset == PTRDIFF_MIN;
        a.mask = (qkv_mask){.causal_offset = offset,
                            .window = true,
                            .window_left = cases[c / 2].left,
                            .window_right = cases[c / 2].right};
        a.relative_left = 4;
        a.relative_right = 2;
        problem p = problem_of(a, cases[c / 2].with | (c % 2 ? WITH_OFFSETS : 0));
        for (ptrdiff_t b = 0; b < a.batch && c % 2; b++) p.causal_offsets[b] = offset;
        for (size_t i = 0; p.in[SLOPES] && i < operand_size(&p, SLOPES); i++)
            p.in[SLOPES][i] *= 0x1p-6; /* a score's size, at this distance */
        if (!extreme) assert_agrees(&p, LAYOUT_PACKED, "offset");
        answer y = solve(&p);
        assert_true(isfinite(y.o[0]));
        answer_free(&y);
        problem_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nan_and_infinity_in_keys_nobody_sees_change_no_bit),
        cmocka_unit_test(a_nan_key_spoils_only_the_rows_that_see_it),
        cmocka_unit_test(a_nan_query_spoils_only_its_row_and_the_keys_it_sees),
        cmocka_unit_test(a_nan_value_spoils_only_its_column_of_the_rows_that_see_it),
        cmocka_unit_test(an_infinite_cotangent_spoils_only_its_column_of_the_values_its_row_sees),
        cmocka_unit_test(a_bias_of_minus_infinity_is_a_mask_to_the_bit),
        cmocka_unit_test(the_largest_finite_biases_are_numbers_not_sentinels),
        cmocka_unit_test(a_score_and_a_bias_whose_sum_overflows_are_as_large_as_can_be),
        cmocka_unit_test(a_large_bias_outside_the_support_weighs_nothing),
        cmocka_unit_test(equal_logits_weigh_the_same_however_large),
        cmocka_unit_test(a_softcap_makes_usual_numbers_of_huge_scores),
        cmocka_unit_test(a_row_that_sees_only_the_sink_is_0_with_the_lse_of_the_sink),
        cmocka_unit_test(logits_far_below_the_maximum_weigh_nothing_and_are_no_nan),
        cmocka_unit_test(a_sigmoid_of_extreme_logits_is_0_or_1_with_a_gradient_of_0),
        cmocka_unit_test(a_common_offset_of_queries_and_keys_changes_no_gaussian_weight),
        cmocka_unit_test(offsets_beyond_the_matrix_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
