/* test_op_shapes.c - slice, concat, gather and scatter: values, gradients, and what they refuse. */
#include <string.h>

#include "qkv/tape.h"
#include "src/real.h"
#include "support.h"

enum { MOST = 64 };

static qkv_tape *tape;
static real x[MOST], dx[MOST]; /* 0, 1, 2, .. and its gradient */

static int set_up(void **state)
{
    (void)state;
    for (int i = 0; i < MOST; i++) {
        x[i] = (real)i;
        dx[i] = 0;
    }
    return (int)qkv_tape_new(&tape, REAL_DTYPE);
}

static int tear_down(void **state)
{
    (void)state;
    qkv_tape_free(tape);
    return 0;
}

static qkv_var leaf(qkv_shape shape)
{
    return FN(qkv_leaf)(tape, shape, x, dx);
}

/* y has this rank, this last size and exactly these n elements. */
static void assert_rows(qkv_var y, int rank, ptrdiff_t last, size_t n, const real *expected)
{
    const real *value = FN(qkv_value)(tape, y);
    qkv_shape shape = qkv_shape_of(tape, y);
    size_t size = 1;
    assert_string_equal(qkv_tape_error(tape), "");
    assert_non_null(value);
    assert_int_equal(shape.rank, rank);
    assert_int_equal(shape.dim[rank - 1], last);
    for (int i = 0; i < rank; i++) size *= (size_t)shape.dim[i];
    assert_int_equal(size, n);
    for (size_t i = 0; i < n; i++) assert_close((double)value[i], (double)expected[i], 0);
}

/* dx after the cotangent 1, 2, 3, .. of y. */
static void assert_gradient(qkv_var y, size_t n, const real *expected)
{
    real counting[MOST];
    for (int i = 0; i < MOST; i++) counting[i] = (real)(i + 1);
    qkv_var seed = FN(qkv_leaf)(tape, qkv_shape_of(tape, y), counting, NULL);
    assert_ok(qkv_backward_with(tape, y, &(qkv_backward_options){.seed = seed}));
    for (size_t i = 0; i < n; i++) assert_close((double)dx[i], (double)expected[i], 0);
}

/* y was refused with this status and message. The next test of the same tape starts afresh. */
static void assert_refused(qkv_var y, qkv_status status, const char *message)
{
    assert_int_equal(y.generation, 0);
    assert_status(qkv_tape_status(tape), status);
    if (!strstr(qkv_tape_error(tape), message))
        fail_msg("\"%s\" does not contain \"%s\"", qkv_tape_error(tape), message);
    qkv_tape_reset(tape);
}

/* ---- slice ----------------------------------------------------------------------------------- */

static void a_slice_is_a_range_of_rows(void **state)
{
    (void)state;
    qkv_var y = qkv_slice(tape, leaf(qkv_shape2(4, 3)), 0, 1, 3, 1);
    assert_rows(y, 2, 3, 6, (real[]){3, 4, 5, 6, 7, 8});
    assert_gradient(y, 12, (real[]){0, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 0});
}

static void a_slice_steps_and_counts_from_the_end(void **state)
{
    (void)state;
    qkv_var y = qkv_slice(tape, leaf(qkv_shape3(2, 5, 2)), -2, -4, 5, 3);
    assert_rows(y, 3, 2, 8, (real[]){2, 3, 8, 9, 12, 13, 18, 19});
    assert_gradient(y, 20, (real[]){0, 0, 1, 2, 0, 0, 0, 0, 3, 4, 0, 0, 5, 6, 0, 0, 0, 0, 7, 8});
}

static void a_slice_whose_step_overshoots_has_its_first_row(void **state)
{
    (void)state;
    qkv_var y = qkv_slice(tape, leaf(qkv_shape1(5)), 0, 1, 5, PTRDIFF_MAX);
    assert_rows(y, 1, 1, 1, (real[]){1});
}

static void an_empty_slice_is_fine(void **state)
{
    (void)state;
    qkv_var y = qkv_slice(tape, leaf(qkv_shape2(4, 3)), 1, 3, 3, 1);
    assert_rows(y, 2, 0, 0, NULL);
    assert_gradient(y, 12, (real[12]){0});
    assert_rows(qkv_slice(tape, leaf(qkv_shape2(0, 3)), 0, 0, 0, 1), 2, 3, 0, NULL);
}

static void a_slice_outside_its_axis_is_refused(void **state)
{
    (void)state;
    assert_refused(qkv_slice(tape, leaf(qkv_shape2(4, 3)), 1, 1, 4, 1), QKV_E_SHAPE,
                   "%1 = slice(%0): 1 to 4 is no range of axis 1, which has size 3");
    assert_refused(qkv_slice(tape, leaf(qkv_shape2(4, 3)), 0, -5, 4, 1), QKV_E_SHAPE, "-5 to 4");
    assert_refused(qkv_slice(tape, leaf(qkv_shape2(4, 3)), 0, 3, 2, 1), QKV_E_SHAPE, "3 to 2");
    assert_refused(qkv_slice(tape, leaf(qkv_shape2(4, 3)), 0, PTRDIFF_MIN, PTRDIFF_MAX, 1),
                   QKV_E_SHAPE, "size 4");
    assert_refused(qkv_slice(tape, leaf(qkv_shape2(4, 3)), 0, 0, 4, 0), QKV_E_ARG, "step is 0");
    assert_refused(qkv_slice(tape, leaf(qkv_shape2(4, 3)), 2, 0, 4, 1), QKV_E_SHAPE, "axis 2");
}

/* ---- concat ---------------------------------------------------------------------------------- */

static void concat_lines_arrays_up_on_an_axis(void **state)
{
    (void)state;
    qkv_var a = leaf(qkv_shape2(2, 3)), b = FN(qkv_leaf)(tape, qkv_shape2(2, 1), x + 6, dx + 6);
    qkv_var y = qkv_concat(tape, (qkv_var[]){a, b}, 2, -1);
    assert_rows(y, 2, 4, 8, (real[]){0, 1, 2, 6, 3, 4, 5, 7});
    assert_gradient(y, 8, (real[]){1, 2, 3, 5, 6, 7, 4, 8});
}

static void concat_of_one_array_with_itself_adds_its_gradients(void **state)
{
    (void)state;
    qkv_var a = leaf(qkv_shape2(1, 2));
    qkv_var y = qkv_concat(tape, (qkv_var[]){a, a, a}, 3, 0);
    assert_rows(y, 2, 2, 6, (real[]){0, 1, 0, 1, 0, 1});
    assert_gradient(y, 2, (real[]){1 + 3 + 5, 2 + 4 + 6});
}

static void concat_passes_over_constants_and_empty_arrays(void **state)
{
    (void)state;
    qkv_var constant = FN(qkv_leaf)(tape, qkv_shape1(2), x + 4, NULL);
    qkv_var y = qkv_concat(
        tape, (qkv_var[]){constant, leaf(qkv_shape1(0)), leaf(qkv_shape1(2)), constant}, 4, 0);
    assert_rows(y, 1, 6, 6, (real[]){4, 5, 0, 1, 4, 5});
    assert_gradient(y, 6, (real[]){3, 4, 0, 0, 0, 0});
}

static void arrays_that_do_not_line_up_are_refused(void **state)
{
    (void)state;
    qkv_var a = leaf(qkv_shape2(2, 3)), b = leaf(qkv_shape2(3, 2)), c = leaf(qkv_shape1(3));
    assert_refused(qkv_concat(tape, (qkv_var[]){a, a, b}, 3, 0), QKV_E_SHAPE,
                   "input 2 is [3,2], expected [2,3] but for axis 0");
    a = leaf(qkv_shape2(2, 3)), c = leaf(qkv_shape1(3));
    assert_refused(qkv_concat(tape, (qkv_var[]){a, c}, 2, 0), QKV_E_SHAPE, "input 1 is [3]");
    a = leaf(qkv_shape2(2, 3));
    assert_refused(qkv_concat(tape, &a, 1, 2), QKV_E_SHAPE, "axis 2");
    a = leaf(qkv_shape2(2, 3)), b = leaf(qkv_shape2(3, 3));
    assert_refused(qkv_concat(tape, (qkv_var[]){a, b}, 2, 1), QKV_E_SHAPE, "but for axis 1");
    assert_refused(qkv_concat(tape, &a, 0, 0), QKV_E_ARG, "concat");
    assert_refused(qkv_concat(tape, NULL, 2, 0), QKV_E_ARG, "concat");
}

/* ---- gather ---------------------------------------------------------------------------------- */

static void gather_copies_rows_and_adds_up_the_gradients_of_repeated_ones(void **state)
{
    (void)state;
    qkv_var y = qkv_gather(tape, leaf(qkv_shape2(4, 2)), 0, (ptrdiff_t[]){3, 0, 3}, 3);
    assert_rows(y, 2, 2, 6, (real[]){6, 7, 0, 1, 6, 7});
    assert_gradient(y, 8, (real[]){3, 4, 0, 0, 0, 0, 1 + 5, 2 + 6});
}

static void gather_works_on_inner_axes_and_keeps_a_copy_of_the_index(void **state)
{
    (void)state;
    ptrdiff_t index[] = {2, 0};
    qkv_var y = qkv_gather(tape, leaf(qkv_shape2(2, 3)), -1, index, 2);
    index[0] = index[1] = 1;
    assert_rows(y, 2, 2, 4, (real[]){2, 0, 5, 3});
    assert_gradient(y, 6, (real[]){2, 0, 1, 4, 0, 3});
}

static void gather_of_no_rows_is_empty(void **state)
{
    (void)state;
    assert_rows(qkv_gather(tape, leaf(qkv_shape2(4, 2)), 0, NULL, 0), 2, 2, 0, NULL);
}

static void an_index_outside_its_axis_is_refused(void **state)
{
    (void)state;
    qkv_var a = leaf(qkv_shape2(4, 2));
    assert_refused(qkv_gather(tape, a, 0, (ptrdiff_t[]){3, 4}, 2), QKV_E_ARG,
                   "%1 = gather(%0): index[1] is 4, expected 0 to 3");
    a = leaf(qkv_shape2(4, 2));
    assert_refused(qkv_gather(tape, a, 1, (ptrdiff_t[]){-1}, 1), QKV_E_ARG, "index[0] is -1");
    a = leaf(qkv_shape2(4, 2));
    assert_refused(qkv_gather(tape, a, 0, NULL, 1), QKV_E_ARG, "index is NULL");
    a = leaf(qkv_shape2(4, 2));
    assert_refused(qkv_gather(tape, a, 0, (ptrdiff_t[]){0}, -1), QKV_E_ARG, "n is -1");
    a = leaf(qkv_shape2(4, 2));
    assert_refused(qkv_gather(tape, a, -3, (ptrdiff_t[]){0}, 1), QKV_E_SHAPE, "axis -3");
}

/* ---- scatter --------------------------------------------------------------------------------- */

static void scatter_adds_rows_up_and_copies_their_gradients(void **state)
{
    (void)state;
    qkv_var y = qkv_scatter(tape, leaf(qkv_shape2(3, 2)), 0, (ptrdiff_t[]){3, 0, 3}, 3, 4);
    assert_rows(y, 2, 2, 8, (real[]){2, 3, 0, 0, 0, 0, 0 + 4, 1 + 5});
    assert_gradient(y, 6, (real[]){7, 8, 1, 2, 7, 8});
}

static void scatter_works_on_inner_axes_and_from_no_rows(void **state)
{
    (void)state;
    qkv_var y = qkv_scatter(tape, leaf(qkv_shape2(2, 2)), -1, (ptrdiff_t[]){2, 0}, 2, 3);
    assert_rows(y, 2, 3, 6, (real[]){1, 0, 0, 3, 0, 2});
    assert_gradient(y, 4, (real[]){3, 1, 6, 4});
    qkv_tape_reset(tape);
    y = qkv_scatter(tape, leaf(qkv_shape2(0, 2)), 0, NULL, 0, 2);
    assert_rows(y, 2, 2, 4, (real[]){0, 0, 0, 0});
}

static void what_scatter_refuses(void **state)
{
    (void)state;
    const ptrdiff_t index[] = {0, 1, 2};
    assert_refused(qkv_scatter(tape, leaf(qkv_shape2(3, 2)), 0, index, 2, 3), QKV_E_ARG,
                   "%1 = scatter(%0): n is 2, expected 3, the size of axis 0");
    assert_refused(qkv_scatter(tape, leaf(qkv_shape2(3, 2)), 0, NULL, 3, 3), QKV_E_ARG,
                   "index is NULL, expected 3 numbers");
    assert_refused(qkv_scatter(tape, leaf(qkv_shape2(3, 2)), 0, index, 3, 2), QKV_E_ARG,
                   "index[2] is 2, expected 0 to 1");
    assert_refused(qkv_scatter(tape, leaf(qkv_shape2(3, 2)), 0, index, 3, -1), QKV_E_SHAPE,
                   "size is -1, expected 0 or more");
    assert_refused(qkv_scatter(tape, leaf(qkv_shape2(3, 2)), 2, index, 3, 3), QKV_E_SHAPE,
                   "axis 2");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_slice_is_a_range_of_rows),
        TEST(a_slice_steps_and_counts_from_the_end),
        TEST(a_slice_whose_step_overshoots_has_its_first_row),
        TEST(an_empty_slice_is_fine),
        TEST(a_slice_outside_its_axis_is_refused),
        TEST(concat_lines_arrays_up_on_an_axis),
        TEST(concat_of_one_array_with_itself_adds_its_gradients),
        TEST(concat_passes_over_constants_and_empty_arrays),
        TEST(arrays_that_do_not_line_up_are_refused),
        TEST(gather_copies_rows_and_adds_up_the_gradients_of_repeated_ones),
        TEST(gather_works_on_inner_axes_and_keeps_a_copy_of_the_index),
        TEST(gather_of_no_rows_is_empty),
        TEST(an_index_outside_its_axis_is_refused),
        TEST(scatter_adds_rows_up_and_copies_their_gradients),
        TEST(scatter_works_on_inner_axes_and_from_no_rows),
        TEST(what_scatter_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
