/* test_alias.c - an element written twice, or written and read, is an error; layouts that
 * interleave without sharing are not. Built for each dtype. */
#include "qkv/attention.h"
#include "src/real.h"
#include "support.h"

#include <string.h>

enum { N = 6, D = 2, ROWS = 2 * 2 * N };

static const qkv_attention a = {.batch = 2, .heads = 2, .n_q = N, .n_k = N, .d_k = D, .d_v = D};

/* Every operand in memory of its own; tests then move one. */
typedef struct arrays {
    real q[ROWS * D], k[ROWS * D], v[ROWS * D], bias[ROWS * N], o[ROWS * D], lse[ROWS],
        row_max[ROWS], row_log_sum[ROWS], weights[ROWS * N];
    real d_o[ROWS * D], d_lse[ROWS], dq[ROWS * D], dk[ROWS * D], dv[ROWS * D], d_bias[ROWS * N];
    FN(qkv_operands) in, d_in;
    FN(qkv_results) out, d_out;
    char workspace[1 << 22];
} arrays;

static arrays *fresh(void)
{
    static arrays x;
    memset(&x, 0, sizeof x);
    x.in = (FN(qkv_operands)){.q.data = x.q, .k.data = x.k, .v.data = x.v, .bias.data = x.bias};
    x.out = (FN(qkv_results)){.o.data = x.o,
                              .lse.data = x.lse,
                              .row_max.data = x.row_max,
                              .row_log_sum.data = x.row_log_sum,
                              .weights.data = x.weights};
    x.d_in =
        (FN(qkv_operands)){.q.data = x.dq, .k.data = x.dk, .v.data = x.dv, .bias.data = x.d_bias};
    x.d_out = (FN(qkv_results)){.o.data = x.d_o, .lse.data = x.d_lse};
    return &x;
}

static qkv_status forward(arrays *x)
{
    return FN(qkv_attention_forward)(&a, &x->in, &x->out, x->workspace, sizeof x->workspace);
}

static qkv_status backward(arrays *x)
{
    FN(qkv_results) saved = x->out;
    memset(&saved.lse, 0, sizeof saved.lse);
    memset(&saved.weights, 0, sizeof saved.weights);
    return FN(qkv_attention_backward)(&a, &x->in, &saved, &x->d_out, &x->d_in, x->workspace,
                                      sizeof x->workspace);
}

static void arrays_of_their_own_are_fine(void **state)
{
    (void)state;
    assert_ok(forward(fresh()));
    assert_ok(backward(fresh()));
}

static void a_result_over_an_input_or_another_result_is_refused(void **state)
{
    (void)state;
    arrays *x = fresh();
    real *inputs[] = {x->q, x->k, x->v, x->bias};
    real *results[] = {x->o, x->lse, x->row_max, x->row_log_sum, x->weights};
    for (size_t r = 0; r < 5; r++) {
        for (size_t i = 0; i < 4; i++) {
            x = fresh();
            real **slots[] = {&x->out.o.data, &x->out.lse.data, &x->out.row_max.data,
                              &x->out.row_log_sum.data, &x->out.weights.data};
            *slots[r] = inputs[i];
            assert_status(forward(x), QKV_E_ALIAS);
        }
        for (size_t s = 0; s < 5; s++) {
            if (s == r) continue;
            x = fresh();
            real **slots[] = {&x->out.o.data, &x->out.lse.data, &x->out.row_max.data,
                              &x->out.row_log_sum.data, &x->out.weights.data};
            *slots[r] = results[s];
            assert_status(forward(x), QKV_E_ALIAS);
        }
    }
}

static void one_shared_element_is_enough_and_the_next_is_free(void **state)
{
    (void)state;
    arrays *x = fresh();
    static real memory[ROWS * D + ROWS * N];
    x->in.q.data = memory;
    x->out.o.data = memory + ROWS * D - 1; /* q's last is o's first */
    assert_status(forward(x), QKV_E_ALIAS);
    x->out.o.data = memory + ROWS * D;
    assert_ok(forward(x));
}

static void a_gradient_over_an_input_a_cotangent_or_a_gradient_is_refused(void **state)
{
    (void)state;
    arrays *x = fresh();
    real *others[] = {x->q,  x->k,  x->v,      x->bias, x->o,     x->row_max,    x->dq,
                      x->dk, x->dv, x->d_bias, x->d_o,  x->d_lse, x->row_log_sum};
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < sizeof others / sizeof *others; j++) {
            x = fresh();
            real **slots[] = {&x->d_in.q.data, &x->d_in.k.data, &x->d_in.v.data,
                              &x->d_in.bias.data};
            if (*slots[i] == others[j]) continue;
            *slots[i] = others[j];
            assert_status(backward(x), QKV_E_ALIAS);
        }
}

static FN(qkv_slot) slot(real *data, ptrdiff_t b, ptrdiff_t h, ptrdiff_t i, ptrdiff_t c)
{
    return (FN(qkv_slot)){.data = data, .strided = true, .stride = {b, h, i, c}};
}

static void an_element_written_twice_is_refused(void **state)
{
    (void)state;
    arrays *x = fresh();
    x->out.o = slot(x->o, 0, N * D, D, 1); /* both batches into one */
    assert_status(forward(x), QKV_E_ALIAS);
    x = fresh();
    x->out.o = slot(x->o, 2 * N * D, N * D, 1, 1); /* rows overlap */
    assert_status(forward(x), QKV_E_ALIAS);
    x = fresh();
    x->out.weights = slot(x->weights, 2 * N * N, N * N, 0, 1);
    assert_status(forward(x), QKV_E_ALIAS);
    x = fresh();
    x->d_in.k = slot(x->dk, 2 * N * D, 0, D, 1);
    assert_status(backward(x), QKV_E_ALIAS);
    x = fresh();
    x->d_in.v = slot(x->dv, 2 * N * D, N * D, D, 0);
    assert_status(backward(x), QKV_E_ALIAS);
}

static void inputs_may_repeat_and_share(void **state)
{
    (void)state;
    arrays *x = fresh();
    x->in.q = slot(x->q, 0, 0, D, 1);
    x->in.k.data = x->in.v.data = x->in.q.data;
    assert_ok(forward(x));
    x = fresh();
    x->in.k.data = x->in.v.data = x->in.q.data;
    x->d_out.o.data = x->in.q.data;
    assert_ok(backward(x));
}

static void a_bias_gradient_may_sum_over_an_axis_of_stride_0(void **state)
{
    (void)state;
    arrays *x = fresh();
    x->in.bias = slot(x->bias, 0, 0, N, 1);
    x->d_in.bias = slot(x->d_bias, 0, 0, N, 1);
    assert_ok(forward(x));
    assert_ok(backward(x));
}

static void layouts_that_interleave_and_share_nothing_are_fine(void **state)
{
    (void)state;
    /* [batch, row, (q k v o), head, column]: the packed projection of every framework */
    static real memory[4 * ROWS * D], gradients[4 * ROWS * D];
    ptrdiff_t row = 4 * 2 * D;
    arrays *x = fresh();
    x->in.q = slot(memory, N * row, D, row, 1);
    x->in.k = slot(memory + 2 * D, N * row, D, row, 1);
    x->in.v = slot(memory + 4 * D, N * row, D, row, 1);
    x->out.o = slot(memory + 6 * D, N * row, D, row, 1);
    assert_ok(forward(x));
    x->d_in.q = slot(gradients, N * row, D, row, 1);
    x->d_in.k = slot(gradients + 2 * D, N * row, D, row, 1);
    x->d_in.v = slot(gradients + 4 * D, N * row, D, row, 1);
    x->d_out.o = slot(gradients + 6 * D, N * row, D, row, 1);
    assert_ok(backward(x));
    /* every other element, and backwards: q at 0, 2, .., o at 1, 3, .. */
    x = fresh();
    ptrdiff_t last = 2 * ROWS * D - 1;
    x->in.q = slot(memory, 4 * N * D, 2 * N * D, 2 * D, 2);
    x->out.o = slot(memory + last, -4 * N * D, -2 * N * D, -2 * D, -2);
    assert_ok(forward(x));
    x->out.o = slot(memory + last - 1, -4 * N * D, -2 * N * D, -2 * D, -2);
    assert_status(forward(x), QKV_E_ALIAS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_of_their_own_are_fine),
        cmocka_unit_test(a_result_over_an_input_or_another_result_is_refused),
        cmocka_unit_test(one_shared_element_is_enough_and_the_next_is_free),
        cmocka_unit_test(a_gradient_over_an_input_a_cotangent_or_a_gradient_is_refused),
        cmocka_unit_test(an_element_written_twice_is_refused),
        cmocka_unit_test(inputs_may_repeat_and_share),
        cmocka_unit_test(a_bias_gradient_may_sum_over_an_axis_of_stride_0),
        cmocka_unit_test(layouts_that_interleave_and_share_nothing_are_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
