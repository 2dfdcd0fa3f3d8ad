/* test_tape_debug.c - qkv_tape_debug: changed values and the first NaN are found where they are. */
#include "support.h"

#include <math.h>
#include <string.h>

#include "qkv/tape.h"

static void a_leaf_that_changed_is_named(void **state)
{
    (void)state;
    for (int bits = 32; bits <= 64; bits += 32)
        for (size_t i = 0; i < 5; i++) {
            qkv_tape *t;
            float x32[5] = {1, 2, 3, 4, 5}, d32[5] = {0};
            double x64[5] = {1, 2, 3, 4, 5}, d64[5] = {0};
            assert_ok(qkv_tape_new(&t, bits == 32 ? QKV_F32 : QKV_F64));
            qkv_tape_debug(t, true);
            qkv_constant(t, 2);
            qkv_var x = bits == 32 ? qkv_leaf_f32(t, qkv_shape1(5), x32, d32)
                                   : qkv_leaf_f64(t, qkv_shape1(5), x64, d64);
            qkv_var y = qkv_sum(t, qkv_mul(t, x, x), NULL, 0, false);
            assert_ok(qkv_backward_with(t, y, &(qkv_backward_options){.keep = true}));
            if (bits == 32)
                x32[i] = nextafterf(x32[i], 9);
            else
                x64[i] = nextafter(x64[i], 9);
            assert_status(qkv_backward(t, y), QKV_E_STATE);
            assert_message("%1 = leaf()");
            assert_message("changed since it was recorded");
            if (bits == 32) assert_close((double)d32[i], 2 * (double)(i + 1), 0);
            if (bits == 64) assert_close(d64[i], 2 * (double)(i + 1), 0);
            qkv_tape_free(t);
        }
}

static void a_leaf_that_changed_is_named_by_qkv_grad_too(void **state)
{
    (void)state;
    qkv_tape *t;
    double x[2] = {1, 2};
    assert_ok(qkv_tape_new(&t, QKV_F64));
    qkv_tape_debug(t, true);
    qkv_var leaf = qkv_leaf_f64(t, qkv_shape1(2), x, NULL), g, h;
    qkv_var y = qkv_sum(t, qkv_exp(t, leaf), NULL, 0, false);
    assert_ok(qkv_grad(t, y, &leaf, 1, &g));
    x[1] = 3;
    assert_status(qkv_grad(t, qkv_sum(t, g, NULL, 0, false), &leaf, 1, &h), QKV_E_STATE);
    assert_message("%0 = leaf()");
    qkv_tape_free(t);
}

static void what_lies_just_below_is_compared_too(void **state)
{
    (void)state;
    for (int again = 0; again < 2; again++) {
        qkv_tape *t;
        double x[2] = {1, 2}, d[2] = {0};
        assert_ok(qkv_tape_new(&t, QKV_F64));
        qkv_tape_debug(t, true);
        qkv_var leaf = qkv_leaf_f64(t, qkv_shape1(2), x, d), g;
        qkv_var y = qkv_sum(t, leaf, NULL, 0, false);
        x[1] = 3;
        assert_status(again ? qkv_grad(t, y, &leaf, 1, &g) : qkv_backward(t, y), QKV_E_STATE);
        qkv_tape_free(t);
    }
}

/* Lengths, offsets and mask are the caller's, and no leaves. */
static void what_attention_was_given_is_compared(void **state)
{
    (void)state;
    for (int which = 0; which < 4; which++) {
        double x[2][6] = {{1, 2, 3, 4, 5, 6}, {1, 3, 2, 5, 4, 6}}, d[6];
        int64_t lengths[1] = {2}, offsets[1] = {1};
        uint8_t seen[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
        const qkv_slot_bool mask = {.data = seen};
        qkv_tape *t;
        assert_ok(qkv_tape_new(&t, QKV_F64));
        qkv_tape_debug(t, true);
        const qkv_attend_vars in = {.q = qkv_leaf_f64(t, qkv_shape2(3, 2), x[0], d),
                                    .k = qkv_leaf_f64(t, qkv_shape2(3, 2), x[1], NULL),
                                    .v = qkv_leaf_f64(t, qkv_shape2(3, 2), x[1], NULL),
                                    .lengths = lengths,
                                    .causal_offsets = offsets,
                                    .mask = &mask};
        const qkv_attention a = {.mask = {.causal = true}};
        qkv_var y = qkv_sum(t, qkv_attend(t, &a, &in), NULL, 0, false);
        if (which == 1) lengths[0] = 3;
        if (which == 2) offsets[0] = 0;
        if (which == 3) seen[7] = 0;
        assert_status(qkv_backward(t, y), which ? QKV_E_STATE : QKV_OK);
        if (which) assert_message("an array it was given, has changed");
        qkv_tape_free(t);
    }
}

static void what_was_recorded_without_it_is_not_compared(void **state)
{
    (void)state;
    qkv_tape *t;
    double x[2] = {1, 2}, d[2] = {0};
    assert_ok(qkv_tape_new(&t, QKV_F64));
    qkv_var y = qkv_sum(t, qkv_exp(t, qkv_leaf_f64(t, qkv_shape1(2), x, d)), NULL, 0, false);
    qkv_tape_debug(t, true);
    x[0] = 3;
    assert_ok(qkv_backward(t, y));
    qkv_tape_reset(t);
    y = qkv_sum(t, qkv_exp(t, qkv_leaf_f64(t, qkv_shape1(2), x, d)), NULL, 0, false);
    x[0] = 4;
    assert_status(qkv_backward(t, y), QKV_E_STATE); /* a reset keeps it on */
    qkv_tape_reset(t);
    qkv_tape_debug(t, false);
    y = qkv_sum(t, qkv_exp(t, qkv_leaf_f64(t, qkv_shape1(2), x, d)), NULL, 0, false);
    x[0] = 5;
    assert_ok(qkv_backward(t, y));
    qkv_tape_debug(NULL, true);
    qkv_tape_free(t);
}

static void the_first_nan_is_named(void **state)
{
    (void)state;
    qkv_tape *t;
    double x[3] = {1, -2, 0}, d[3] = {0}, nan[2] = {1, NAN};
    assert_ok(qkv_tape_new(&t, QKV_F64));
    qkv_tape_debug(t, true);
    qkv_var v = qkv_leaf_f64(t, qkv_shape1(3), x, d);
    qkv_exp(t, qkv_log(t, v));
    assert_status(qkv_tape_status(t), QKV_E_DOMAIN);
    assert_true(strstr(qkv_tape_error(t), "%1 = log(%0)") != NULL);
    assert_true(strstr(qkv_tape_error(t), "element 1 ") != NULL);
    qkv_tape_reset(t);
    qkv_leaf_f64(t, qkv_shape1(2), nan, NULL);
    assert_status(qkv_tape_status(t), QKV_E_DOMAIN);
    assert_true(strstr(qkv_tape_error(t), "%0 = leaf()") != NULL);

    /* Backward: sqrt(0) 0 is 0, but its derivative is infinity times 0. */
    qkv_tape_reset(t);
    v = qkv_leaf_f64(t, qkv_shape1(3), (double[]){1, 4, 0}, d);
    qkv_var root = qkv_sqrt(t, v), y = qkv_mul(t, root, qkv_constant(t, 0));
    assert_status(qkv_backward(t, qkv_sum(t, y, NULL, 0, false)), QKV_E_DOMAIN);
    assert_message("%1 = sqrt(%0)");
    assert_message("element 2 of its gradient by input 0 is NaN");
    assert_true(d[0] == 0 && d[1] == 0 && d[2] == 0);
    qkv_tape_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_leaf_that_changed_is_named),
        cmocka_unit_test(a_leaf_that_changed_is_named_by_qkv_grad_too),
        cmocka_unit_test(what_lies_just_below_is_compared_too),
        cmocka_unit_test(what_attention_was_given_is_compared),
        cmocka_unit_test(what_was_recorded_without_it_is_not_compared),
        cmocka_unit_test(the_first_nan_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
