/* test_merge.c - attention over shards of the keys, merged, is attention over all of them, forward
 * and backward. Built for each dtype. */
#include "agree.h"
#include "src/real.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { B = 2, H = 2, N_Q = 19, N_K = 83, D = 4, D_V = 3, ROWS = B * H * N_Q };

typedef FN(qkv_slot) real_slot;

typedef struct shard {
    ptrdiff_t first, n; /* its keys */
    real o[ROWS * D_V], lse[ROWS], max[ROWS], log_sum[ROWS], d_o[ROWS * D_V], d_lse[ROWS];
} shard;

static FN(qkv_partial) partial(shard *s)
{
    return (FN(qkv_partial)){s->o, s->lse};
}

typedef struct arrays {
    real q[ROWS * D], k[B * N_K * D], v[B * N_K * D_V], bias[N_Q * N_K], sink[H];
} arrays;

static qkv_attention problem_of(const shard *s)
{
    return (qkv_attention){.batch = B,
                           .heads = H,
                           .kv_heads = 1,
                           .n_q = N_Q,
                           .n_k = s->n,
                           .d_k = D,
                           .d_v = D_V,
                           .mask = {.causal = true, .causal_offset = 30 - s->first}};
}

static FN(qkv_operands) operands(arrays *x, const shard *s, bool sink)
{
    return (FN(qkv_operands)){
        .q.data = x->q,
        .k = {x->k + s->first * D, true, {N_K * D, 0, D, 1}},
        .v = {x->v + s->first * D_V, true, {N_K * D_V, 0, D_V, 1}},
        .bias = {x->bias + s->first, true, {0, 0, N_K, 1}},
        .sink.data = sink ? x->sink : NULL,
    };
}

static void *new_workspace(const qkv_attention *a, qkv_pass pass, size_t *bytes)
{
    assert_ok(qkv_attention_workspace(a, pass, REAL_DTYPE, bytes));
    return malloc(*bytes);
}

static void forward(arrays *x, shard *s, bool sink)
{
    const qkv_attention a = problem_of(s);
    const FN(qkv_operands) in = operands(x, s, sink);
    const FN(qkv_results) out = {
        .o.data = s->o, .lse.data = s->lse, .row_max.data = s->max, .row_log_sum.data = s->log_sum};
    size_t bytes;
    void *workspace = new_workspace(&a, QKV_FORWARD, &bytes);
    assert_ok(FN(qkv_attention_forward)(&a, &in, &out, workspace, bytes));
    free(workspace);
}

static void backward(arrays *x, shard *s, bool sink, arrays *dx)
{
    const qkv_attention a = problem_of(s);
    const FN(qkv_operands) in = operands(x, s, sink), d_in = operands(dx, s, sink);
    const FN(qkv_results) saved = {
        .o.data = s->o, .row_max.data = s->max, .row_log_sum.data = s->log_sum};
    const FN(qkv_results) d_out = {.o.data = s->d_o, .lse.data = s->d_lse};
    size_t bytes;
    void *workspace = new_workspace(&a, QKV_BACKWARD, &bytes);
    assert_ok(FN(qkv_attention_backward)(&a, &in, &saved, &d_out, &d_in, workspace, bytes));
    free(workspace);
}

static void random_numbers(real *x, size_t n, uint64_t seed)
{
    double *y = malloc(n * sizeof *y);
    fill_normal(y, n, seed);
    for (size_t i = 0; i < n; i++) x[i] = (real)y[i];
    free(y);
}

static void assert_near(const real *x, const real *y, size_t n, double factor)
{
    for (size_t i = 0; i < n; i++)
        assert_close(x[i], y[i], factor * REAL_EPSILON * (1 + fabs((double)y[i])));
}

/* Shards are cut at these keys; the sink goes to the last. */
static void check(const ptrdiff_t *cut, int n, bool backwards)
{
    arrays x;
    random_numbers((real *)&x, sizeof x / sizeof(real), 1);
    arrays *dx = calloc(3, sizeof *dx);
    shard *s = calloc((size_t)n + 2, sizeof *s), *whole = s + n, *merged = s + n + 1;
    whole->n = N_K;
    random_numbers(whole->d_o, ROWS * D_V, 2);
    random_numbers(whole->d_lse, ROWS, 3);
    forward(&x, whole, true);
    for (int i = 0; i < n; i++) {
        s[i].first = cut[i];
        s[i].n = cut[i + 1] - cut[i];
        forward(&x, &s[i], i == n - 1);
    }
    for (int i = 0; i < ROWS; i++) merged->lse[i] = (real)-INFINITY;
    const FN(qkv_partial) sum = partial(merged);
    for (int i = 0; i < n; i++) {
        const FN(qkv_partial) next = partial(&s[backwards ? n - 1 - i : i]);
        if (i % 2)
            assert_ok(FN(qkv_attention_merge)(ROWS, D_V, &next, &sum, &sum)); /* in place */
        else
            assert_ok(FN(qkv_attention_merge)(ROWS, D_V, &sum, &next, &sum));
    }
    assert_near(merged->o, whole->o, ROWS * D_V, 16);
    assert_near(merged->lse, whole->lse, ROWS, 16);
    backward(&x, whole, true, &dx[0]);
    for (int i = 0; i < n; i++) { /* what the whole saved serves its shards */
        *merged = *whole;
        merged->first = cut[i];
        merged->n = cut[i + 1] - cut[i];
        backward(&x, merged, i == n - 1, &dx[2]);
    }
    assert_near((real *)&dx[2], (real *)&dx[0], sizeof *dx / sizeof(real), 256);
    if (n == 2) {
        const FN(qkv_partial) a = partial(&s[0]), b = partial(&s[1]);
        const FN(qkv_partial) d_out = {whole->d_o, whole->d_lse};
        const FN(qkv_partial) d_a = {s[0].d_o, s[0].d_lse}, d_b = {s[1].d_o, s[1].d_lse};
        assert_ok(FN(qkv_attention_merge_backward)(ROWS, D_V, &a, &b, &d_out, &d_a, &d_b));
        for (int i = 0; i < n; i++) backward(&x, &s[i], i == n - 1, &dx[1]);
        assert_near((real *)&dx[1], (real *)&dx[0], sizeof *dx / sizeof(real), 256);
    }
    free(s);
    free(dx);
}

static void two_shards_are_the_whole_forward_and_backward(void **state)
{
    (void)state;
    static const ptrdiff_t cuts[] = {0, 1, 20, 41, 82, 83};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) /* one of them may have no keys */
        check((const ptrdiff_t[]){0, cuts[i], N_K}, 2, i % 2);
}

static void many_shards_are_the_whole_in_any_order(void **state)
{
    (void)state;
    static const ptrdiff_t cuts[] = {0, 3, 3, 17, 40, 60, 79, 83};
    check(cuts, 7, false);
    check(cuts, 7, true);
}

static void a_shard_without_weight_does_not_count(void **state)
{
    (void)state;
    static const real lses[][3] = {{(real)-INFINITY, 5, 5},
                                   {(real)-INFINITY, (real)-INFINITY, (real)-INFINITY},
                                   {-1e30f, 1e30f, 1e30f},
                                   {0, (real)1000, (real)1000}};
    for (int i = 0; i < 4; i++) {
        real oa = i % 2 ? (real)1e30f : (real)NAN, ob = 7, la = lses[i][0], lb = lses[i][1];
        real o = 3, lse = 3, d[4] = {0}, one = 1;
        if (i == 1) oa = ob = (real)NAN;
        const FN(qkv_partial) a = {&oa, &la}, b = {&ob, &lb}, out = {&o, &lse},
                              d_out = {&one, &one};
        const FN(qkv_partial) d_a = {d, d + 1}, d_b = {d + 2, d + 3};
        assert_ok(FN(qkv_attention_merge)(1, 1, &a, &b, &out));
        assert_close(o, i == 1 ? 0 : 7, 0);
        assert_close(lse, lses[i][2], 0);
        assert_ok(FN(qkv_attention_merge_backward)(1, 1, &a, &b, &d_out, &d_a, &d_b));
        const double expected[] = {0, 0, i != 1, i != 1};
        for (int x = 0; x < 4; x++) assert_close(d[x], expected[x], 0);
        assert_ok(FN(qkv_attention_merge)(1, 1, &b, &a, &out)); /* and the other way round */
        assert_close(o, i == 1 ? 0 : 7, 0);
    }
}

static void equal_shards_share(void **state)
{
    (void)state;
    real oa = 1, ob = 2, l = 1e30f, o, lse;
    const FN(qkv_partial) a = {&oa, &l}, b = {&ob, &l}, out = {&o, &lse};
    assert_ok(FN(qkv_attention_merge)(1, 1, &a, &b, &out));
    assert_close(o, 1.5, 0);
    assert_close(lse, l, 0);
}

/* The shares are 1/4 and 3/4, and each shard's o is d_v = 2 numbers. */
static void cotangents_and_gradients_may_be_left_out(void **state)
{
    (void)state;
    real oa[] = {1, 2}, ob[] = {5, -2}, la = 0, lb = (real)log(3), d_o[] = {2, 3}, d_lse = 7;
    const FN(qkv_partial) a = {oa, &la}, b = {ob, &lb};
    const double along = 0.75 * 0.25 * (2 * (1 - 5) + 3 * (2 + 2)); /* w_a d_o'(o_a - o) */
    for (int given = 0; given < 3; given++) {                       /* 0: both, 1: o, 2: lse */
        real da[3] = {1, 1, 1}, db[3] = {1, 1, 1};
        const FN(qkv_partial) d_out = {given == 2 ? NULL : d_o, given == 1 ? NULL : &d_lse};
        const FN(qkv_partial) d_a = {da, da + 2}, d_b = {db, db + 2}, d_a_o = {da, NULL};
        const double o = given != 2, lse = given == 1 ? 0 : 7;
        assert_ok(FN(qkv_attention_merge_backward)(1, 2, &a, &b, &d_out, &d_a, &d_b));
        const double expected[] = {1 + o / 2,     1 + o * 3 / 4, 1 + o * along + lse / 4,
                                   1 + o * 3 / 2, 1 + o * 9 / 4, 1 - o * along + lse * 3 / 4};
        for (int i = 0; i < 3; i++) {
            assert_close(da[i], expected[i], 64 * REAL_EPSILON);
            assert_close(db[i], expected[3 + i], 64 * REAL_EPSILON);
        }
        assert_ok(FN(qkv_attention_merge_backward)(1, 2, &a, &b, &d_out, &d_a_o, NULL));
        assert_close(da[0], 1 + o, 64 * REAL_EPSILON);
        assert_close(da[2], expected[2], 64 * REAL_EPSILON);
    }
}

static void what_is_missing_is_named(void **state)
{
    (void)state;
    real x[4] = {0};
    const FN(qkv_partial) good = {x, x + 1}, no_o = {NULL, x}, no_lse = {x, NULL};
    assert_status(FN(qkv_attention_merge)(-1, 1, &good, &good, &good), QKV_E_SHAPE);
    assert_message("-1 rows of 1, expected 0 or more of both");
    assert_status(FN(qkv_attention_merge)(1, 1, NULL, &good, &good), QKV_E_ARG);
    assert_message("a is NULL");
    assert_status(FN(qkv_attention_merge)(1, 1, &good, &no_o, &good), QKV_E_ARG);
    assert_message("b is without o");
    assert_status(FN(qkv_attention_merge)(1, 1, &good, &good, &no_lse), QKV_E_ARG);
    assert_message("out is without lse");
    assert_status(FN(qkv_attention_merge_backward)(1, 1, &good, &good, NULL, NULL, NULL),
                  QKV_E_ARG);
    assert_message("d_out is NULL");
    assert_ok(FN(qkv_attention_merge)(0, 1, NULL, NULL, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_shards_are_the_whole_forward_and_backward),
        cmocka_unit_test(many_shards_are_the_whole_in_any_order),
        cmocka_unit_test(a_shard_without_weight_does_not_count),
        cmocka_unit_test(equal_shards_share),
        cmocka_unit_test(cotangents_and_gradients_may_be_left_out),
        cmocka_unit_test(what_is_missing_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
