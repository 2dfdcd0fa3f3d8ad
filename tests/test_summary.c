/* test_summary.c - what a summary says is what the matrix of weights says. Built for each dtype. */
#include "agree.h"
#include "choices.h"
#include "qkv/summary.h"
#include "src/real.h"
#include "support.h"

#include <stdlib.h>
#include <string.h>

static const qkv_attention shape = {
    .batch = 2, .heads = 2, .kv_heads = 1, .n_q = 53, .n_k = 205, .d_k = 3, .d_v = 2};

enum { TOP = 6, ROWS = 5 };
static const ptrdiff_t chosen[ROWS] = {52, 0, 17, 17, 48};

typedef struct outcome {
    real *entropy, *effective, *columns, *top, *rows, *weights, *max, *log_sum, *o;
    int64_t *keys;
} outcome;

static real *new_reals(ptrdiff_t n)
{
    real *x = malloc((size_t)(n + 1) * sizeof *x);
    for (ptrdiff_t i = 0; i < n; i++) x[i] = (real)NAN; /* all of it must be written */
    return x;
}

static outcome outcome_new(const problem *p)
{
    ptrdiff_t rows = problem_rows(p), heads = p->a.batch * p->a.heads;
    return (outcome){.entropy = new_reals(rows),
                     .effective = new_reals(rows),
                     .columns = new_reals(heads * p->a.n_k),
                     .top = new_reals(rows * TOP),
                     .rows = new_reals(heads * ROWS * p->a.n_k),
                     .weights = new_reals(rows * p->a.n_k),
                     .max = new_reals(rows),
                     .log_sum = new_reals(rows),
                     .o = new_reals(rows * p->a.d_v),
                     .keys = calloc((size_t)(rows * TOP) + 1, sizeof(int64_t))};
}

static void outcome_free(outcome *x)
{
    real *const all[] = {x->entropy, x->effective, x->columns, x->top, x->rows,
                         x->weights, x->max,       x->log_sum, x->o};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    free(x->keys);
}

/* The arrays of a problem in this dtype, alive until the next call. */
static FN(qkv_operands) operands_of(const problem *p)
{
    static real *memory[OPERANDS];
    FN(qkv_operands) y = {0};
    FN(qkv_slot) *to[OPERANDS] = {&y.q,         &y.k, &y.v,      &y.bias, &y.scale,
                                  &y.bandwidth, &y.w, &y.slopes, &y.sink, &y.relative};
    for (operand i = Q; i < OPERANDS; i++) {
        ptrdiff_t step = 1;
        free(memory[i]);
        memory[i] = NULL;
        if (!p->in[i]) continue;
        size_t n = operand_size(p, i);
        memory[i] = malloc((n + 1) * sizeof(real));
        for (size_t j = 0; j < n; j++) memory[i][j] = (real)p->in[i][j];
        *to[i] = (FN(qkv_slot)){.data = memory[i], .strided = true};
        for (int axis = 3; axis >= 0; axis--) {
            to[i]->stride[axis] = p->dim[i][axis] == 1 ? 0 : step;
            step *= p->dim[i][axis];
        }
    }
    y.mask.data = p->mask;
    y.lengths = p->lengths;
    y.causal_offsets = p->causal_offsets;
    if (p->a.score == QKV_SCORE_USER) y.user_score = &FN(test_score);
    return y;
}

static void *new_workspace(const qkv_attention *a, qkv_pass pass, size_t *bytes)
{
    assert_ok(qkv_attention_workspace(a, pass, REAL_DTYPE, bytes));
    void *memory = malloc(*bytes + 1);
    memset(memory, 0xFF, *bytes + 1);
    return memory;
}

static bool has_signs(const qkv_attention *a)
{
    return a->normalize == QKV_NONE_IDENTITY;
}

static outcome summarize(const problem *p)
{
    outcome x = outcome_new(p);
    const FN(qkv_operands) in = operands_of(p);
    const FN(qkv_results) out = {.o.data = x.o,
                                 .row_max.data = x.max,
                                 .row_log_sum.data = x.log_sum,
                                 .weights.data = x.weights};
    FN(qkv_summary) wanted = {.entropy.data = x.entropy,
                              .effective_keys.data = x.effective,
                              .column_sums.data = x.columns,
                              .top_weights.data = x.top,
                              .top_keys = x.keys,
                              .top = TOP,
                              .row_weights.data = x.rows,
                              .rows = chosen,
                              .n_rows = ROWS};
    if (has_signs(&p->a)) wanted.entropy.data = wanted.effective_keys.data = NULL;
    size_t bytes;
    qkv_attention plain = p->a;
    void *workspace = new_workspace(&plain, QKV_FORWARD, &bytes);
    assert_ok(FN(qkv_attention_forward)(&plain, &in, &out, workspace, bytes));
    free(workspace);
    workspace = new_workspace(&p->a, QKV_SUMMARY, &bytes);
    assert_ok(FN(qkv_attention_summary)(&p->a, &in, &out, &wanted, workspace, bytes));
    free(workspace);
    return x;
}

static void assert_row(const problem *p, const outcome *x, ptrdiff_t row)
{
    const real *w = x->weights + row * p->a.n_k;
    double sum = 0, squares = 0, logs = 0, size = 0;
    for (ptrdiff_t j = 0; j < p->a.n_k; j++) {
        sum += (double)w[j];
        squares += (double)w[j] * (double)w[j];
        if (w[j] > 0) logs += (double)w[j] * log((double)w[j]);
        if (w[j] > 0) size += fabs((double)w[j] * log((double)w[j]));
    }
    double entropy = sum == 0 ? 0 : log(sum) - logs / sum;
    double effective = sum == 0 ? 0 : sum * sum / squares;
    if (!has_signs(&p->a)) {
        assert_close((double)x->entropy[row], entropy,
                     64 * REAL_EPSILON * (sum == 0 ? 0 : 1 + fabs(log(sum)) + size / sum));
        assert_close((double)x->effective[row], effective, 64 * REAL_EPSILON * effective);
    }
    for (ptrdiff_t n = 0; n < TOP; n++) { /* who is n-th? */
        double weight = 0;
        int64_t key = -1;
        for (ptrdiff_t j = 0; j < p->a.n_k; j++) {
            ptrdiff_t before = 0;
            for (ptrdiff_t y = 0; y < p->a.n_k; y++)
                before += w[y] > w[j] || (w[y] == w[j] && y < j);
            if (before != n || !(w[j] > 0)) continue;
            weight = (double)w[j];
            key = j;
        }
        assert_close((double)x->top[row * TOP + n], weight, 0);
        assert_int_equal(x->keys[row * TOP + n], key);
    }
}

static void assert_columns_and_rows(const problem *p, const outcome *x)
{
    const qkv_attention *a = &p->a;
    for (ptrdiff_t h = 0; h < a->batch * a->heads; h++)
        for (ptrdiff_t j = 0; j < a->n_k; j++) {
            double sum = 0, size = 0;
            for (ptrdiff_t i = 0; i < a->n_q; i++) {
                double w = (double)x->weights[(h * a->n_q + i) * a->n_k + j];
                sum += w;
                size += fabs(w);
            }
            assert_close((double)x->columns[h * a->n_k + j], sum, 16 * REAL_EPSILON * size);
            for (ptrdiff_t r = 0; r < ROWS; r++)
                assert_close((double)x->rows[(h * ROWS + r) * a->n_k + j],
                             (double)x->weights[(h * a->n_q + chosen[r]) * a->n_k + j], 0);
        }
}

static void it_is_what_the_matrix_says(void **state)
{
    (void)state;
    static const int with[] = {WITH_BIAS | WITH_MASK | WITH_BANDWIDTH,
                               WITH_SLOPES | WITH_LENGTHS | WITH_SINK | WITH_BANDWIDTH};
    for (size_t c = 0; c < CHOICES; c++) {
        qkv_attention a = with_choice(shape, c);
        if (c % 3 == 0) a.mask = (qkv_mask){.causal = true, .causal_offset = 40};
        problem p = problem_random(a, REAL_DTYPE, with[c % 2], c);
        outcome x = summarize(&p);
        for (ptrdiff_t row = 0; row < problem_rows(&p); row += c % 2 ? 1 : 7)
            assert_row(&p, &x, row);
        assert_columns_and_rows(&p, &x);
        outcome_free(&x);
        problem_free(&p);
    }
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    for (size_t c = 0; c < CHOICES; c += 4) {
        qkv_attention a = with_choice(shape, c);
        a.n_q = 400;
        problem p = problem_random(a, REAL_DTYPE, WITH_BIAS | WITH_BANDWIDTH, c);
        assert_ok(qkv_set_num_threads(1));
        outcome x = summarize(&p);
        assert_ok(qkv_set_num_threads(3));
        outcome y = summarize(&p);
        assert_ok(qkv_set_num_threads(0));
        size_t rows = (size_t)problem_rows(&p) * sizeof(real);
        assert_memory_equal(x.columns, y.columns, sizeof(real) * 4 * 205);
        assert_memory_equal(x.entropy, y.entropy, has_signs(&a) ? 0 : rows);
        assert_memory_equal(x.effective, y.effective, has_signs(&a) ? 0 : rows);
        assert_memory_equal(x.top, y.top, TOP * rows);
        outcome_free(&x);
        outcome_free(&y);
        problem_free(&p);
    }
}

static void equal_weights_come_in_the_order_of_keys_and_all_count(void **state)
{
    (void)state;
    qkv_attention a = shape;
    a.normalize = QKV_UNIFORM;
    a.dropout = 0.5; /* is not seen */
    problem p = problem_random(a, REAL_DTYPE, 0, 1);
    outcome x = summarize(&p);
    for (ptrdiff_t row = 0; row < problem_rows(&p); row++) {
        assert_close((double)x.entropy[row], log(205), 16 * REAL_EPSILON);
        assert_close((double)x.effective[row], 205, 205 * 16 * REAL_EPSILON);
        for (int n = 0; n < TOP; n++) assert_int_equal(x.keys[row * TOP + n], n);
    }
    outcome_free(&x);
    problem_free(&p);
}

static void a_nan_score_is_told(void **state)
{
    (void)state;
    problem p = problem_random(shape, REAL_DTYPE, 0, 1);
    p.in[Q][0] = NAN;
    outcome x = summarize(&p);
    assert_true(isnan(x.entropy[0]) && isnan(x.effective[0]) && isnan(x.top[0]));
    assert_int_equal(x.keys[0], 0);
    assert_true(isfinite(x.entropy[1]) && isfinite(x.top[TOP]));
    outcome_free(&x);
    problem_free(&p);
}

static void what_does_not_go_together_is_refused(void **state)
{
    (void)state;
    static real memory[64], workspace[1 << 15];
    int64_t keys[4];
    static const ptrdiff_t bad[] = {0, 1};
    qkv_attention a = {.batch = 1, .heads = 1, .n_q = 1, .n_k = 1, .d_k = 1, .d_v = 1};
    const FN(qkv_operands) in = {
        .q.data = memory, .k.data = memory + 1, .v.data = memory + 2, .w.data = NULL};
    const FN(qkv_results) saved = {.row_max.data = memory + 4, .row_log_sum.data = memory + 5},
                          nothing = {.o.data = NULL};
    const FN(qkv_summary) entropy = {.entropy.data = memory + 6},
                          overlaps = {.entropy.data = memory},
                          no_weights = {.top_keys = keys, .top = 2},
                          row = {.row_weights.data = memory + 6, .rows = bad, .n_rows = 2},
                          negative = {.top = -1};
    const struct {
        const FN(qkv_results) *saved;
        const FN(qkv_summary) *out;
        qkv_status status;
        const char *message;
    } all[] = {{&nothing, &entropy, QKV_E_ARG, "saved lacks row_max or row_log_sum"},
               {NULL, &entropy, QKV_E_ARG, "saved is NULL"},
               {&saved, NULL, QKV_E_ARG, "out is NULL"},
               {&saved, &overlaps, QKV_E_ALIAS, "entropy, which is written, shares"},
               {&saved, &no_weights, QKV_E_ARG, "top_keys needs top_weights"},
               {&saved, &row, QKV_E_SHAPE, "rows[1] is 1, expected 0 to n_q - 1, 0"},
               {&saved, &negative, QKV_E_SHAPE, "top is -1"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_status(FN(qkv_attention_summary)(&a, &in, all[i].saved, all[i].out, workspace,
                                                sizeof workspace),
                      all[i].status);
        assert_message(all[i].message);
    }
    a.normalize = QKV_NONE_IDENTITY;
    assert_status(
        FN(qkv_attention_summary)(&a, &in, &nothing, &entropy, workspace, sizeof workspace),
        QKV_E_ARG);
    assert_message("do not go with QKV_NONE_IDENTITY");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_what_the_matrix_says),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(equal_weights_come_in_the_order_of_keys_and_all_count),
        cmocka_unit_test(a_nan_score_is_told),
        cmocka_unit_test(what_does_not_go_together_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
