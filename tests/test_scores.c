/* test_scores.c - the scores that are not in the chapter's first sections: cosine, bilinear,
 * additive and a user's own, by what defines them; on the tape against the same made of its other
 * operations. Built for each dtype. */
#include "agree.h"
#include "compute.h"
#include "qkv/tape.h"
#include "src/real.h"
#include "support.h"

#include <string.h>

enum { N_Q = 5, N_K = 7, D_Q = 4, D = 3, D_V = 2, HIDDEN = 6 };

static FN(qkv_slot) slot(real *x)
{
    return (FN(qkv_slot)){.data = x};
}

static void fill(real *x, size_t n, uint64_t seed)
{
    double y[64];
    fill_normal(y, n, seed);
    for (size_t i = 0; i < n; i++) x[i] = (real)y[i];
}

/* ---- Cosine -------------------------------------------------------------------------------- */

static const qkv_attention cosine = {.batch = 2,
                                     .heads = 2,
                                     .kv_heads = 1,
                                     .n_q = 21,
                                     .n_k = 70,
                                     .d_k = 5,
                                     .d_v = 3,
                                     .score = QKV_SCORE_COSINE};

static void a_cosine_knows_no_length(void **state)
{
    (void)state;
    static const double lengths[] = {0x1p-60, 0x1p60, 4};
    problem p = problem_random(cosine, REAL_DTYPE, WITH_SCALE, 1);
    answer y = answer_new(&p), z = answer_new(&p);
    assert_ok(compute(&p, LAYOUT_PACKED, ALL_GRADIENTS, &y));
    for (int l = 0; l < 3; l++) {
        for (size_t i = 0; i < operand_size(&p, Q); i++) p.in[Q][i] *= lengths[l];
        for (size_t i = 0; i < operand_size(&p, K); i++) p.in[K][i] /= lengths[l];
        assert_ok(compute(&p, LAYOUT_PACKED, ALL_GRADIENTS, &z));
        for (ptrdiff_t i = 0; i < problem_rows(&p) * p.a.d_v; i++) assert_close(z.o[i], y.o[i], 0);
        for (size_t i = 0; i < operand_size(&p, Q); i++) {
            double start = gradient_start(Q), gradient = y.d[Q][i] - start; /* at length 1 */
            assert_close(z.d[Q][i] - start, gradient / lengths[l],
                         16 * REAL_EPSILON * (1 + (1 + fabs(gradient)) / lengths[l]));
            p.in[Q][i] /= lengths[l];
        }
        for (size_t i = 0; i < operand_size(&p, K); i++) p.in[K][i] *= lengths[l];
    }
    answer_free(&z);
    answer_free(&y);
    problem_free(&p);
}

static void zero_fits_everything_equally_and_does_not_move(void **state)
{
    (void)state;
    problem p = problem_random(cosine, REAL_DTYPE, 0, 1);
    for (ptrdiff_t c = 0; c < p.a.d_k; c++) p.in[Q][c] = p.in[K][c] = 0;
    answer y = answer_new(&p);
    assert_ok(compute(&p, LAYOUT_PACKED, ALL_GRADIENTS, &y));
    for (ptrdiff_t j = 0; j < p.a.n_k; j++) assert_close(y.weights[j], 1.0 / 70, REAL_EPSILON);
    for (ptrdiff_t c = 0; c < p.a.d_k; c++) {
        assert_close(y.d[Q][c], gradient_start(Q), 0);
        assert_close(y.d[K][c], gradient_start(K), 0);
    }
    for (size_t i = 0; i < operand_size(&p, K); i++) assert_true(isfinite(y.d[K][i]));
    answer_free(&y);
    problem_free(&p);
}

/* ---- On the tape --------------------------------------------------------------------------- */

typedef struct leaves {
    real q[N_Q * D_Q], k[N_K * D], v[N_K * D_V], m[D_Q * D], w_q[HIDDEN * D_Q], w_k[HIDDEN * D],
        w[HIDDEN];
} leaves;

static leaves random_leaves(void)
{
    leaves x;
    fill(x.q, N_Q * D_Q, 1);
    fill(x.k, N_K * D, 2);
    fill(x.v, N_K * D_V, 3);
    fill(x.m, D_Q * D, 4);
    fill(x.w_q, HIDDEN * D_Q, 5);
    fill(x.w_k, HIDDEN * D, 6);
    fill(x.w, HIDDEN, 7);
    return x;
}

enum { LEAVES = 7 };

/* The leaves as variables, in the order of the struct. */
static void record(qkv_tape *t, leaves *x, leaves *dx, qkv_var var[LEAVES])
{
    const ptrdiff_t rows[LEAVES] = {N_Q, N_K, N_K, D_Q, HIDDEN, HIDDEN, HIDDEN};
    const ptrdiff_t columns[LEAVES] = {D_Q, D, D_V, D, D_Q, D, 0};
    real *from[] = {x->q, x->k, x->v, x->m, x->w_q, x->w_k, x->w};
    real *to[] = {dx->q, dx->k, dx->v, dx->m, dx->w_q, dx->w_k, dx->w};
    for (int i = 0; i < LEAVES; i++) {
        qkv_shape shape = {.rank = columns[i] ? 2 : 1, .dim = {rows[i], columns[i]}};
        var[i] = FN(qkv_leaf)(t, shape, from[i], to[i]);
    }
}

static qkv_var softmax_pool(qkv_tape *t, qkv_var scores, qkv_var v)
{
    return qkv_matmul(t, qkv_softmax(t, scores, 1), v);
}

typedef enum how { BILINEAR, ADDITIVE, USER, HOWS } how;

static qkv_var composed(qkv_tape *t, const qkv_var *x, how score)
{
    static const int last[] = {2};
    if (score != ADDITIVE) {
        qkv_var q = qkv_matmul(t, x[0], x[3]);
        if (score == USER) { /* test_score: (w_0 q + w_1 q^2)'k */
            qkv_var w_0 = qkv_slice(t, x[6], 0, 0, 1, 1), w_1 = qkv_slice(t, x[6], 0, 1, 2, 1);
            q = qkv_add(t, qkv_mul(t, w_0, q), qkv_mul(t, w_1, qkv_mul(t, q, q)));
        }
        return softmax_pool(t, qkv_matmul(t, q, qkv_transpose(t, x[1], NULL)), x[2]);
    }
    qkv_var q = qkv_matmul(t, x[0], qkv_transpose(t, x[4], NULL));
    qkv_var k = qkv_matmul(t, x[1], qkv_transpose(t, x[5], NULL));
    q = qkv_reshape(t, q, (qkv_shape){3, {N_Q, 1, HIDDEN}});
    qkv_var each = qkv_mul(t, qkv_tanh(t, qkv_add(t, q, k)), x[6]);
    return softmax_pool(t, qkv_sum(t, each, last, 1, false), x[2]);
}

static qkv_var attended(qkv_tape *t, const qkv_var *x, how score)
{
    qkv_attend_vars in = {.q = x[0], .k = x[1], .v = x[2]};
    if (score == USER) {
        in.q = qkv_matmul(t, x[0], x[3]);
        in.w = qkv_slice(t, x[6], 0, 0, 2, 1);
        in.user_score = &FN(test_score);
        return qkv_attend(t, &(qkv_attention){.score = QKV_SCORE_USER, .bandwidths = 2}, &in);
    }
    if (score == BILINEAR) {
        in.m = x[3];
        return qkv_attend(t, &(qkv_attention){.score = QKV_SCORE_DOT}, &in);
    }
    in.w_q = x[4];
    in.w_k = x[5];
    in.w = x[6];
    return qkv_attend(t, &(qkv_attention){.score = QKV_SCORE_ADDITIVE}, &in);
}

static leaves gradients(leaves *x, how score,
                        qkv_var (*record_score)(qkv_tape *, const qkv_var *, how),
                        real y[N_Q * D_V])
{
    qkv_tape *t;
    leaves dx = {.q = {0}};
    qkv_var var[LEAVES];
    assert_ok(qkv_tape_new(&t, REAL_DTYPE));
    record(t, x, &dx, var);
    qkv_var o = record_score(t, var, score);
    assert_ok(qkv_backward(t, qkv_sum(t, qkv_mul(t, o, qkv_tanh(t, o)), NULL, 0, false)));
    memcpy(y, FN(qkv_value)(t, o), sizeof(real) * N_Q * D_V);
    qkv_tape_free(t);
    return dx;
}

static void attention_equals_the_same_made_of_other_operations(void **state)
{
    (void)state;
    for (how score = BILINEAR; score < HOWS; score++) {
        leaves x = random_leaves();
        real y[N_Q * D_V], z[N_Q * D_V];
        leaves dy = gradients(&x, score, attended, y), dz = gradients(&x, score, composed, z);
        const real *a = (const real *)&dy, *b = (const real *)&dz;
        for (int i = 0; i < N_Q * D_V; i++) assert_close(y[i], z[i], 64 * REAL_EPSILON);
        bool moves = false;
        for (size_t i = 0; i < sizeof dy / sizeof *a; i++) {
            assert_close(a[i], b[i], 256 * REAL_EPSILON);
            moves |= a[i] != 0 && i >= sizeof dy.q / sizeof *a;
        }
        assert_true(moves);
    }
}

/* One item: what the dense batch gives, heads before rows. As many rows as heads, which a matrix a
 * row would fit as well. */
static void a_matrix_a_head_serves_ragged_batches(void **state)
{
    (void)state;
    enum { HEADS = 3, ROWS = 3, SIZE = HEADS * ROWS * D };
    static const int rows_first[] = {1, 0, 2};
    const int64_t starts[] = {0, ROWS};
    real x[SIZE], m[HEADS * D * D], dm[2][HEADS * D * D] = {{0}}, dx[2][SIZE] = {{0}}, y[2][SIZE];
    fill(x, SIZE, 1);
    fill(m, HEADS * D * D, 2);
    for (int ragged = 0; ragged < 2; ragged++) {
        qkv_tape *t;
        assert_ok(qkv_tape_new(&t, REAL_DTYPE));
        qkv_var rows = FN(qkv_leaf)(t, qkv_shape3(ROWS, HEADS, D), x, dx[ragged]);
        qkv_attend_vars in = {.m = FN(qkv_leaf)(t, qkv_shape3(HEADS, D, D), m, dm[ragged])};
        if (ragged) in.starts_q = in.starts_k = starts;
        in.q = in.k = in.v = ragged ? rows
                                    : qkv_reshape(t, qkv_transpose(t, rows, rows_first),
                                                  (qkv_shape){4, {1, HEADS, ROWS, D}});
        qkv_var o = qkv_attend(t, &(qkv_attention){.batch = 1}, &in);
        if (!ragged)
            o = qkv_transpose(t, qkv_reshape(t, o, qkv_shape3(HEADS, ROWS, D)), rows_first);
        assert_ok(qkv_backward(t, qkv_sum(t, qkv_mul(t, o, rows), NULL, 0, false)));
        memcpy(y[ragged], FN(qkv_value)(t, o), sizeof y[ragged]);
        qkv_tape_free(t);
    }
    for (int i = 0; i < SIZE; i++) assert_close(y[1][i], y[0][i], 64 * REAL_EPSILON);
    for (int i = 0; i < SIZE; i++) assert_close(dx[1][i], dx[0][i], 256 * REAL_EPSILON);
    for (int i = 0; i < HEADS * D * D; i++) assert_close(dm[1][i], dm[0][i], 256 * REAL_EPSILON);
}

/* ---- What does not go together ------------------------------------------------------------- */

static void assert_refused(qkv_attention a, FN(qkv_operands) in, const char *message)
{
    static real memory[64], workspace[1 << 16];
    const FN(qkv_results) out = {.o.data = memory + 50};
    a.batch = a.heads = a.n_q = a.n_k = a.d_v = 1;
    a.d_k = 2;
    in.q.data = memory;
    in.k.data = memory + 10;
    in.v.data = memory + 20;
    assert_status(FN(qkv_attention_forward)(&a, &in, &out, workspace, sizeof workspace), QKV_E_ARG);
    assert_message(message);
}

static void a_score_without_backward_serves_forward_only(void **state)
{
    (void)state;
    static real x[16], workspace[1 << 16];
    const FN(qkv_user_score) half = {.forward = FN(test_score).forward};
    const qkv_attention a = {.batch = 1,
                             .heads = 1,
                             .n_q = 1,
                             .n_k = 1,
                             .d_k = 2,
                             .d_v = 1,
                             .score = QKV_SCORE_USER,
                             .bandwidths = 2};
    const FN(qkv_operands) in = {
        .q = slot(x), .k = slot(x + 2), .v = slot(x + 4), .w = slot(x + 6), .user_score = &half};
    const FN(qkv_results) out = {
        .o = slot(x + 8), .row_max = slot(x + 9), .row_log_sum = slot(x + 10)};
    const FN(qkv_results) d_out = {.o = slot(x + 11)};
    const FN(qkv_operands) d_in = {.v = slot(x + 12)};
    assert_ok(FN(qkv_attention_forward)(&a, &in, &out, workspace, sizeof workspace));
    assert_status(
        FN(qkv_attention_backward)(&a, &in, &out, &d_out, &d_in, workspace, sizeof workspace),
        QKV_E_ARG);
    assert_message("user_score has no backward");
}

static void parameters_of_another_score_are_refused(void **state)
{
    (void)state;
    static real x[2];
    const qkv_attention dot = {.score = QKV_SCORE_DOT}, additive = {.score = QKV_SCORE_ADDITIVE};
    const qkv_attention user = {.score = QKV_SCORE_USER, .bandwidths = 2};
    const qkv_attention gaussian = {.score = QKV_SCORE_GAUSSIAN};
    const FN(qkv_user_score) empty = {NULL, NULL, NULL};
    assert_refused(dot, (FN(qkv_operands)){.w = slot(x)}, "w does not go with a dot score");
    assert_refused(gaussian, (FN(qkv_operands)){.w = slot(x)}, "w does not go with a Gaussian");
    assert_refused(additive, (FN(qkv_operands)){0}, "w is NULL, expected 2 numbers");
    assert_refused(user, (FN(qkv_operands)){0}, "w is NULL, expected 2 numbers");
    assert_refused(user, (FN(qkv_operands)){.w = slot(x)}, "user_score is NULL");
    assert_refused(user, (FN(qkv_operands)){.w = slot(x), .user_score = &empty},
                   "user_score has no forward");
    assert_refused(additive, (FN(qkv_operands)){.w = slot(x), .bandwidth = slot(x)},
                   "a bandwidth does not go with an additive score");
}

static void projections_of_another_score_are_refused(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        leaves x = random_leaves(), dx = {.q = {0}};
        qkv_var var[LEAVES];
        qkv_tape *t;
        assert_ok(qkv_tape_new(&t, REAL_DTYPE));
        record(t, &x, &dx, var);
        qkv_attend_vars in = {.q = var[1], .k = var[1], .v = var[2]};
        if (i) in.w_q = var[5];
        if (!i) in.m = var[3];
        qkv_attend(t, &(qkv_attention){.score = i ? QKV_SCORE_DOT : QKV_SCORE_GAUSSIAN}, &in);
        assert_status(qkv_tape_status(t), QKV_E_ARG);
        assert_non_null(
            strstr(qkv_tape_error(t), i ? "w_q and w_k do not go with" : "m does not go with"));
        qkv_tape_free(t);
    }
}

static void projections_of_a_wrong_shape_are_named(void **state)
{
    (void)state;
    static real x[4 * 4 * 3], q[2 * 4 * 5 * 3];
    const struct {
        qkv_shape m;
        const char *message;
    } cases[] = {
        {{3, {4, 4, 3}}, "m is [4,4,3], expected [3, d_k] or [4, 3, d_k]"},
        {{3, {2, 3, 3}}, "m is [2,3,3], expected [3, d_k] or [4, 3, d_k]"},
        {{1, {3}}, "m is [3], expected [3, d_k]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qkv_tape *t;
        assert_ok(qkv_tape_new(&t, REAL_DTYPE));
        qkv_var v = FN(qkv_leaf)(t, (qkv_shape){4, {2, 4, 5, 3}}, q, NULL);
        qkv_attend_vars in = {.q = v, .k = v, .v = v};
        in.m = FN(qkv_leaf)(t, cases[i].m, x, NULL);
        qkv_attend(t, &(qkv_attention){.score = QKV_SCORE_DOT}, &in);
        assert_status(qkv_tape_status(t), QKV_E_SHAPE);
        assert_non_null(strstr(qkv_tape_error(t), cases[i].message));
        qkv_tape_free(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cosine_knows_no_length),
        cmocka_unit_test(zero_fits_everything_equally_and_does_not_move),
        cmocka_unit_test(attention_equals_the_same_made_of_other_operations),
        cmocka_unit_test(a_matrix_a_head_serves_ragged_batches),
        cmocka_unit_test(a_score_without_backward_serves_forward_only),
        cmocka_unit_test(parameters_of_another_score_are_refused),
        cmocka_unit_test(projections_of_another_score_are_refused),
        cmocka_unit_test(projections_of_a_wrong_shape_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
