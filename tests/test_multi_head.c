/* test_multi_head.c - multi-head attention on the tape: PyTorch's numbers and gradients, ragged
 * batches and errors. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/npy.h"
#include "qkv/tape.h"
#include "support.h"

enum { X_Q, X_K, W_Q, W_K, W_V, W_O, B_Q, B_K, B_V, B_O, LEAVES };

static const char *const names[LEAVES] = {"x_q", "x_k", "w_q", "w_k", "w_v",
                                          "w_o", "b_q", "b_k", "b_v", "b_o"};

static qkv_npy load(const char *prefix, const char *name)
{
    char path[4096];
    qkv_npy x;
    snprintf(path, sizeof path, "%s/multi-head/%s%s.npy", QKV_TEST_DATA, prefix, name);
    assert_ok(qkv_npy_load(&x, path));
    return x;
}

typedef struct model {
    qkv_tape *tape;
    qkv_npy x[LEAVES];
    double *gradient[LEAVES];
    qkv_var leaf[LEAVES];
} model;

static model model_new(void)
{
    model m;
    assert_ok(qkv_tape_new(&m.tape, QKV_F64));
    for (int i = 0; i < LEAVES; i++) {
        m.x[i] = load("", names[i]);
        qkv_shape shape = {.rank = m.x[i].rank};
        memcpy(shape.dim, m.x[i].dim, (size_t)shape.rank * sizeof *shape.dim);
        m.gradient[i] = calloc(qkv_npy_size(&m.x[i]), sizeof(double));
        m.leaf[i] = qkv_leaf_f64(m.tape, shape, m.x[i].data, m.gradient[i]);
    }
    return m;
}

static void model_free(model *m)
{
    for (int i = 0; i < LEAVES; i++) {
        qkv_npy_free(&m->x[i]);
        free(m->gradient[i]);
    }
    qkv_tape_free(m->tape);
}

static qkv_multi_head_vars vars_of(const model *m)
{
    const qkv_var *x = m->leaf;
    return (qkv_multi_head_vars){.x_q = x[X_Q],
                                 .x_k = x[X_K],
                                 .w_q = x[W_Q],
                                 .w_k = x[W_K],
                                 .w_v = x[W_V],
                                 .w_o = x[W_O],
                                 .b_q = x[B_Q],
                                 .b_k = x[B_K],
                                 .b_v = x[B_V],
                                 .b_o = x[B_O]};
}

static void assert_near(const double *x, const qkv_npy *expected)
{
    for (size_t i = 0; i < qkv_npy_size(expected); i++) {
        double y = qkv_npy_element(expected, i);
        assert_close(x[i], y, 1e-12 * (1 + fabs(y)));
    }
}

static void it_is_pytorch_s_module(void **state)
{
    (void)state;
    model m = model_new();
    qkv_npy mask = load("", "mask"), o = load("", "o"), d_o = load("d_", "o");
    const qkv_slot_bool seen = {.data = mask.data, .strided = true, .stride = {0, 0, 7, 1}};
    qkv_multi_head_vars in = vars_of(&m);
    in.attend.mask = &seen;
    qkv_var y = qkv_multi_head_attention(m.tape, &(qkv_attention){.heads = 3}, &in);
    assert_near(qkv_value_f64(m.tape, y), &o);
    qkv_var seed = qkv_leaf_f64(m.tape, qkv_shape3(2, 5, 12), d_o.data, NULL);
    assert_ok(qkv_backward_with(m.tape, y, &(qkv_backward_options){.seed = seed}));
    for (int i = 0; i < LEAVES; i++) {
        qkv_npy expected = load("d", names[i]);
        assert_near(m.gradient[i], &expected);
        qkv_npy_free(&expected);
    }
    qkv_npy_free(&mask);
    qkv_npy_free(&o);
    qkv_npy_free(&d_o);
    model_free(&m);
}

/* Two items of a batch, and the same without padding; keys are the queries if not given. */
static void a_ragged_batch_is_its_items(void **state)
{
    (void)state;
    static const int64_t starts[] = {0, 5, 10};
    double answers[2][2 * 5 * 12];
    for (int ragged = 0; ragged < 2; ragged++) {
        model m = model_new();
        qkv_multi_head_vars in = vars_of(&m);
        qkv_attention a = {.heads = 3, .mask = {.causal = true}};
        in.x_k = (qkv_var){0};
        if (ragged) {
            a.batch = 2;
            in.attend.starts_q = in.attend.starts_k = starts;
            in.x_q = qkv_reshape(m.tape, in.x_q, qkv_shape2(10, 12));
        }
        qkv_var y = qkv_multi_head_attention(m.tape, &a, &in);
        const double *value = qkv_value_f64(m.tape, y);
        assert_non_null(value);
        memcpy(answers[ragged], value, sizeof answers[0]);
        model_free(&m);
    }
    assert_memory_equal(answers[0], answers[1], sizeof answers[0]);
}

static void widths_that_heads_do_not_divide_are_named(void **state)
{
    (void)state;
    model m = model_new();
    qkv_multi_head_vars in = vars_of(&m);
    qkv_multi_head_attention(m.tape, &(qkv_attention){.heads = 5}, &in);
    assert_status(qkv_tape_status(m.tape), QKV_E_SHAPE);
    assert_non_null(strstr(qkv_tape_error(m.tape), "w_q has 12 columns, expected a multiple of"));
    model_free(&m);
    m = model_new();
    in = vars_of(&m);
    qkv_multi_head_attention(m.tape, &(qkv_attention){.heads = 0}, &in);
    assert_status(qkv_tape_status(m.tape), QKV_E_SHAPE);
    assert_non_null(strstr(qkv_tape_error(m.tape), "heads is 0, expected 1 or more"));
    qkv_multi_head_attention(m.tape, NULL, &in);
    model_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_pytorch_s_module),
        cmocka_unit_test(a_ragged_batch_is_its_items),
        cmocka_unit_test(widths_that_heads_do_not_divide_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
