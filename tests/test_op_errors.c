/* test_op_errors.c - what operations refuse, and the sentence they say. */
#include <stdlib.h>

#include "qkv/tape.h"
#include "support.h"

static qkv_tape *tape;

static int set_up(void **state)
{
    (void)state;
    return (int)qkv_tape_new(&tape, QKV_F64);
}

static int tear_down(void **state)
{
    (void)state;
    qkv_tape_free(tape);
    return 0;
}

static qkv_var leaf(qkv_shape shape)
{
    static const double numbers[256];
    return qkv_leaf_f64(tape, shape, numbers, NULL);
}

static void assert_refused_(qkv_var y, qkv_status status, const char *message, const char *file,
                            int line)
{
    _assert_int_equal(y.generation, 0, file, line);
    assert_status_(qkv_tape_status(tape), status, "operation", file, line);
    _assert_string_equal(qkv_tape_error(tape), message, file, line);
    qkv_tape_reset(tape);
}
/* The operation gave no node, and the tape this error; it is reset for the next. */
#define assert_refused(y, status, message) assert_refused_(y, status, message, __FILE__, __LINE__)

/* Leaves are numbered in the order they are made, which the arguments of a call do not have. */
static qkv_var pair(qkv_var (*op)(qkv_tape *, qkv_var, qkv_var), qkv_shape a, qkv_shape b)
{
    qkv_var x = leaf(a), y = leaf(b);
    return op(tape, x, y);
}

static void shapes_that_do_not_broadcast(void **state)
{
    (void)state;
    assert_refused(
        pair(qkv_mul, qkv_shape2(3, 4), qkv_shape2(3, 2)), QKV_E_SHAPE,
        "%2 = mul(%0,%1): shapes [3,4] and [3,2] do not broadcast: sizes 4 and 2 differ");
}

static void shapes_that_cannot_be_stretched(void **state)
{
    (void)state;
    assert_refused(
        qkv_broadcast(tape, leaf(qkv_shape1(3)), qkv_shape2(2, 4)), QKV_E_SHAPE,
        "%1 = broadcast(%0): shapes [3] and [2,4] do not broadcast: sizes 3 and 4 differ");
    const char *larger =
        "%1 = broadcast(%0): x has rank 2 and more elements than the shape asked for";
    assert_refused(qkv_broadcast(tape, leaf(qkv_shape2(2, 3)), qkv_shape1(3)), QKV_E_SHAPE, larger);
    assert_refused(qkv_broadcast(tape, leaf(qkv_shape2(2, 3)), qkv_shape2(1, 3)), QKV_E_SHAPE,
                   larger);
}

static void axes_that_do_not_exist(void **state)
{
    (void)state;
    const qkv_shape shape = qkv_shape2(3, 4);
    assert_refused(qkv_sum(tape, leaf(shape), (int[]){2}, 1, false), QKV_E_SHAPE,
                   "%1 = sum(%0): axis 2 does not exist at rank 2");
    assert_refused(qkv_mean(tape, leaf(shape), (int[]){-3}, 1, false), QKV_E_SHAPE,
                   "%1 = mean(%0): axis -3 does not exist at rank 2");
    assert_refused(qkv_max(tape, leaf(shape), (int[]){1, -1}, 2, false), QKV_E_ARG,
                   "%1 = max(%0): axis -1 is named twice");
    assert_refused(qkv_transpose(tape, leaf(shape), (int[]){0, 0}), QKV_E_ARG,
                   "%1 = transpose(%0): axis 0 stands twice in the permutation");
    assert_refused(qkv_transpose(tape, leaf(shape), (int[]){0, 2}), QKV_E_SHAPE,
                   "%1 = transpose(%0): axis 2 does not exist at rank 2");
    assert_refused(qkv_softmax(tape, leaf(shape), 2), QKV_E_SHAPE,
                   "%1 = softmax(%0): axis 2 does not exist at rank 2");
}

static void reductions_of_nothing(void **state)
{
    (void)state;
    assert_refused(qkv_mean(tape, leaf(qkv_shape2(0, 3)), (int[]){0}, 1, false), QKV_E_SHAPE,
                   "%1 = mean(%0): of no elements");
    assert_refused(qkv_max(tape, leaf(qkv_shape1(0)), NULL, 0, false), QKV_E_SHAPE,
                   "%1 = max(%0): of no elements");
}

static void reshapes_of_another_size(void **state)
{
    (void)state;
    const qkv_shape shape = qkv_shape2(3, 4);
    assert_refused(qkv_reshape(tape, leaf(shape), qkv_shape1(11)), QKV_E_SHAPE,
                   "%1 = reshape(%0): 12 elements cannot become 11");
    assert_refused(qkv_reshape(tape, leaf(shape), qkv_shape2(-1, 5)), QKV_E_SHAPE,
                   "%1 = reshape(%0): 12 elements do not divide by the 5 of the known sizes");
    assert_refused(qkv_reshape(tape, leaf(shape), qkv_shape2(-1, -1)), QKV_E_SHAPE,
                   "%1 = reshape(%0): sizes 0 and 1 are both -1");
    assert_refused(qkv_reshape(tape, leaf(shape), qkv_shape2(-2, -6)), QKV_E_SHAPE,
                   "%1 = reshape(%0): size 0 is -2, expected 0 or more");
    assert_refused(qkv_reshape(tape, leaf(shape), (qkv_shape){.rank = 9}), QKV_E_SHAPE,
                   "%1 = reshape(%0): the rank is 9, expected 0 to 8");
}

static void products_that_do_not_fit(void **state)
{
    (void)state;
    assert_refused(pair(qkv_matmul, qkv_shape2(3, 4), qkv_shape2(6, 2)), QKV_E_SHAPE,
                   "%2 = matmul(%0,%1): inner sizes 4 and 6 differ");
    assert_refused(pair(qkv_matmul, qkv_scalar(), qkv_shape1(1)), QKV_E_SHAPE,
                   "%2 = matmul(%0,%1): a scalar is no matrix; use mul");
    assert_refused(pair(qkv_matmul, qkv_shape3(2, 3, 4), qkv_shape3(3, 4, 2)), QKV_E_SHAPE,
                   "%2 = matmul(%0,%1): shapes [2] and [3] do not broadcast: sizes 2 and 3 differ");
    const ptrdiff_t huge = (ptrdiff_t)1 << 32;
    const ptrdiff_t sizes[][3] = {{huge, 0, 1}, {1, 0, huge}, {0, huge, 0}};
    for (int i = 0; i < 3; i++) {
        const ptrdiff_t m = sizes[i][0], k = sizes[i][1], n = sizes[i][2];
        assert_refused(pair(qkv_matmul, qkv_shape2(m, k), qkv_shape2(k, n)), QKV_E_OVERFLOW,
                       "%2 = matmul(%0,%1): a size of 4294967296 exceeds what BLAS takes");
    }
    const ptrdiff_t many = 1 << 16; /* a batch of them is no matrix that BLAS takes, but of none */
    qkv_var y = pair(qkv_matmul, qkv_shape3(many, many, 0), qkv_shape2(0, 0));
    assert_int_equal(qkv_shape_of(tape, y).dim[1], many);
}

static qkv_var attend(qkv_shape q, qkv_shape k, qkv_shape v, const qkv_attend_vars *more)
{
    qkv_attend_vars in = more ? *more : (qkv_attend_vars){0};
    in.q = leaf(q);
    in.k = leaf(k);
    in.v = leaf(v);
    return qkv_attend(tape, &(qkv_attention){.batch = 2}, &in);
}

static void attention_over_sizes_that_differ(void **state)
{
    (void)state;
    const qkv_shape three_two = qkv_shape2(3, 2), four_two = qkv_shape2(4, 2);
    assert_refused(attend(qkv_shape1(2), three_two, three_two, NULL), QKV_E_SHAPE,
                   "%3 = attend(%0,%1,%2): q has rank 1, expected 2 to 4");
    assert_refused(attend(three_two, qkv_shape3(1, 3, 2), three_two, NULL), QKV_E_SHAPE,
                   "%3 = attend(%0,%1,%2): the rank of k is 3, expected 2");
    assert_refused(attend(three_two, qkv_shape2(3, 5), three_two, NULL), QKV_E_SHAPE,
                   "%3 = attend(%0,%1,%2): the size of a key is 5, expected 2");
    assert_refused(attend(three_two, three_two, four_two, NULL), QKV_E_SHAPE,
                   "%3 = attend(%0,%1,%2): the number of values is 4, expected 3");
    assert_refused(attend(three_two, three_two, qkv_shape3(1, 3, 2), NULL), QKV_E_SHAPE,
                   "%3 = attend(%0,%1,%2): the rank of v is 3, expected 2");
    const qkv_shape once = {3, {1, 3, 2}}, twice = {3, {2, 3, 2}};
    assert_refused(attend(twice, once, twice, NULL), QKV_E_SHAPE,
                   "%3 = attend(%0,%1,%2): the batch of k is 1, expected 2");
    assert_refused(attend(twice, twice, once, NULL), QKV_E_SHAPE,
                   "%3 = attend(%0,%1,%2): the batch of v is 1, expected 2");
    assert_refused(
        attend(qkv_shape4(1, 2, 3, 2), qkv_shape4(1, 2, 3, 2), qkv_shape4(1, 1, 3, 2), NULL),
        QKV_E_SHAPE, "%3 = attend(%0,%1,%2): the number of heads of v is 1, expected 2");
    qkv_attend_vars more = {.bias = leaf(qkv_shape2(2, 3))};
    assert_refused(attend(three_two, three_two, three_two, &more), QKV_E_SHAPE,
                   "%4 = attend(%1,%2,%3,%0): axis 0 of the bias is 2, expected 3 or 1");
    more = (qkv_attend_vars){.scale = leaf(qkv_shape1(2))};
    assert_refused(attend(three_two, three_two, three_two, &more), QKV_E_SHAPE,
                   "%4 = attend(%1,%2,%3,%0): scale has 2 elements, expected 1 or [1]");
    const qkv_shape two_heads = {4, {1, 2, 3, 2}};
    more = (qkv_attend_vars){.relative = leaf(qkv_shape2(3, 1))};
    assert_refused(attend(two_heads, two_heads, two_heads, &more), QKV_E_SHAPE,
                   "%4 = attend(%1,%2,%3,%0): relative has 3 elements and rank 2, expected [1] or "
                   "[2, 1]");
    assert_refused(
        attend(qkv_shape4(1, 3, 1, 2), qkv_shape4(1, 2, 1, 2), qkv_shape4(1, 2, 1, 2), NULL),
        QKV_E_SHAPE,
        "%3 = attend(%0,%1,%2): qkv_attention_workspace: heads is 3, expected a multiple of "
        "kv_heads, "
        "2");
    qkv_attend(tape, NULL, &more);
    assert_refused((qkv_var){0}, QKV_E_ARG, "%0 = attend(): a is NULL");
    leaf(three_two);
    assert_refused(qkv_attend(tape, &(qkv_attention){0}, NULL), QKV_E_ARG,
                   "%1 = attend(): in is NULL");
}

static void ragged_attention_whose_starts_do_not_fit(void **state)
{
    (void)state;
    const qkv_shape three_two = qkv_shape2(3, 2);
    static const int64_t good[] = {0, 1, 3}, down[] = {0, 2, 1}, more[] = {0, 1, 4};
    qkv_attend_vars in = {.starts_q = good};
    assert_refused(attend(three_two, three_two, three_two, &in), QKV_E_ARG,
                   "%3 = attend(%0,%1,%2): qkv_attend: starts_k is NULL");
    in = (qkv_attend_vars){.starts_q = down, .starts_k = good};
    assert_refused(attend(three_two, three_two, three_two, &in), QKV_E_SHAPE,
                   "%3 = attend(%0,%1,%2): qkv_attend: starts_q[2] is 1, expected 2 or more, as "
                   "starts_q[1]");
    in = (qkv_attend_vars){.starts_q = good, .starts_k = more};
    assert_refused(attend(three_two, three_two, three_two, &in), QKV_E_SHAPE,
                   "%3 = attend(%0,%1,%2): qkv_attend: starts_k[2] is 4, expected n_k, 3");
    in.starts_k = good;
    assert_refused(attend(qkv_shape2(0, 2), three_two, three_two, &in), QKV_E_SHAPE,
                   "%3 = attend(%0,%1,%2): the number of queries is 0, expected 3");
    assert_refused(attend(qkv_shape4(1, 1, 3, 2), three_two, three_two, &in), QKV_E_SHAPE,
                   "%3 = attend(%0,%1,%2): q has rank 4, expected 2 to 3");
}

/* ---- The caller's own ------------------------------------------------------------------------ */

static qkv_status fine(void *context, const qkv_op_array *in, int n, const qkv_op_array *out,
                       void *y)
{
    (void)context, (void)in, (void)n, (void)out, (void)y;
    return QKV_OK;
}

static qkv_status refuse(void *context, const qkv_op_array *in, int n, const qkv_op_array *out,
                         void *y)
{
    (void)context, (void)in, (void)n, (void)out, (void)y;
    return QKV_E_DOMAIN;
}

static qkv_status refuse_backward(void *context, const qkv_op_array *in, int n,
                                  const qkv_op_array *out, const void *dy, void *const *dx)
{
    (void)context, (void)in, (void)n, (void)out, (void)dy, (void)dx;
    return QKV_E_DOMAIN;
}

/* Records on the tape it runs on, enough to move the tape's nodes. */
static qkv_status meddle(void *context, const qkv_op_array *in, int n, const qkv_op_array *out,
                         void *y)
{
    (void)context, (void)in, (void)n, (void)out, (void)y;
    for (int i = 0; i < 1000; i++) qkv_constant(tape, 1);
    return QKV_OK;
}

static void operation_of_the_callers_that_fails(void **state)
{
    (void)state;
    const qkv_user_op op = {"mine", refuse, refuse_backward, NULL};
    const qkv_var x = leaf(qkv_shape1(2));
    assert_refused(qkv_apply(tape, &op, &x, 1, qkv_shape1(2)), QKV_E_DOMAIN,
                   "%1 = mine(%0): the operation returned QKV_E_DOMAIN");
}

static void failed_backward_leaves_the_callers_gradients(void **state)
{
    (void)state;
    const qkv_user_op op = {"mine", fine, refuse_backward, NULL};
    const double number = 1;
    double grad = 0;
    qkv_var x = qkv_leaf_f64(tape, qkv_scalar(), &number, &grad);
    qkv_var y = qkv_add(tape, qkv_apply(tape, &op, &x, 1, qkv_scalar()), x);
    assert_status(qkv_backward(tape, y), QKV_E_DOMAIN);
    assert_message("%1 = mine(%0): the operation returned QKV_E_DOMAIN");
    assert_close(grad, 0, 0);
}

static void operation_that_records_on_its_own_tape(void **state)
{
    (void)state;
    const qkv_user_op op = {"meddle", meddle, refuse_backward, NULL};
    assert_refused(qkv_apply(tape, &op, NULL, 0, qkv_scalar()), QKV_E_STATE,
                   "%0 = leaf(): recorded from inside an operation of this tape");
}

static void lists_that_are_not_there(void **state)
{
    (void)state;
    const qkv_user_op whole = {"mine", fine, refuse_backward, NULL};
    const qkv_user_op no_forward = {.backward = refuse_backward}, no_backward = {.forward = fine};
    const qkv_var x = {0};
    const qkv_shape y = qkv_scalar();
    assert_refused(qkv_concat(tape, NULL, 2, 0), QKV_E_ARG, "%0 = concat(): xs is NULL");
    assert_refused(qkv_concat(tape, &x, 0, 0), QKV_E_ARG,
                   "%0 = concat(): n is 0, expected 1 to 65535 arrays");
    assert_refused(qkv_concat(tape, &x, 65536, 0), QKV_E_ARG,
                   "%0 = concat(): n is 65536, expected 1 to 65535 arrays");
    assert_refused(qkv_apply(tape, NULL, &x, 1, y), QKV_E_ARG, "%0 = user(): op is NULL");
    assert_refused(qkv_apply(tape, &no_forward, &x, 1, y), QKV_E_ARG,
                   "%0 = user(): op's forward is NULL");
    assert_refused(qkv_apply(tape, &no_backward, &x, 1, y), QKV_E_ARG,
                   "%0 = user(): op's backward is NULL");
    assert_refused(qkv_apply(tape, &whole, NULL, 1, y), QKV_E_ARG, "%0 = user(): xs is NULL");
    assert_refused(qkv_apply(tape, &whole, &x, -1, y), QKV_E_ARG,
                   "%0 = user(): n is -1, expected 0 to 65535");
    assert_refused(qkv_apply(tape, &whole, &x, 65536, y), QKV_E_ARG,
                   "%0 = user(): n is 65536, expected 0 to 65535");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(shapes_that_do_not_broadcast),
        TEST(shapes_that_cannot_be_stretched),
        TEST(axes_that_do_not_exist),
        TEST(reductions_of_nothing),
        TEST(reshapes_of_another_size),
        TEST(products_that_do_not_fit),
        TEST(attention_over_sizes_that_differ),
        TEST(ragged_attention_whose_starts_do_not_fit),
        TEST(operation_of_the_callers_that_fails),
        TEST(failed_backward_leaves_the_callers_gradients),
        TEST(operation_that_records_on_its_own_tape),
        TEST(lists_that_are_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
