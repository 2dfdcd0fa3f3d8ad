/* test_ops.c - the value of each operation against plain C, and the corners its gradient has. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/tape.h"
#include "src/real.h"
#include "support.h"

static const double TOLERANCE = 8 * REAL_EPSILON; /* relative */
static qkv_tape *tape;

static int set_up(void **state)
{
    (void)state;
    return (int)qkv_tape_new(&tape, REAL_DTYPE);
}

static int tear_down(void **state)
{
    (void)state;
    qkv_tape_free(tape);
    return 0;
}

static qkv_var leaf(qkv_shape shape, const real *data)
{
    return FN(qkv_leaf)(tape, shape, data, NULL);
}

static qkv_var vector(ptrdiff_t n, const real *data, real *grad)
{
    return FN(qkv_leaf)(tape, qkv_shape1(n), data, grad);
}

static void assert_shape_(qkv_var y, qkv_shape expected, const char *file, int line)
{
    if (qkv_tape_status(tape)) print_error("%s\n", qkv_tape_error(tape));
    qkv_shape shape = qkv_shape_of(tape, y);
    _assert_int_equal((uintmax_t)shape.rank, (uintmax_t)expected.rank, file, line);
    for (int i = 0; i < shape.rank; i++)
        _assert_int_equal((uintmax_t)shape.dim[i], (uintmax_t)expected.dim[i], file, line);
}
#define assert_shape(y, expected) assert_shape_(y, expected, __FILE__, __LINE__)

static void assert_value_(qkv_var y, size_t n, const double *expected, const char *file, int line)
{
    const real *value = FN(qkv_value)(tape, y);
    if (!value) print_error("%s\n", qkv_tape_error(tape));
    _assert_true(value != NULL, "value", file, line);
    for (size_t i = 0; i < n; i++)
        assert_close_((double)value[i], expected[i], TOLERANCE * (1 + fabs(expected[i])), "value",
                      file, line);
}
/* The elements of y are these. */
#define assert_value(y, ...)                                                                \
    assert_value_(y, sizeof((double[])__VA_ARGS__) / sizeof(double), (double[])__VA_ARGS__, \
                  __FILE__, __LINE__)

/* ---- Elementwise ----------------------------------------------------------------------------- */

static void check_unary(qkv_var (*op)(qkv_tape *, qkv_var), double (*f)(double))
{
    const real x[] = {(real)-2.5, -1, (real)-1e-3, 0,        (real)0.25,      1,
                      3,          90, -90,         INFINITY, (real)-INFINITY, NAN};
    enum { COUNT = sizeof x / sizeof *x };
    qkv_var y = op(tape, vector(COUNT, x, NULL));
    for (int i = 0; i < COUNT; i++) {
        double expected = (double)(real)f((double)x[i]);
        assert_close((double)FN(qkv_value)(tape, y)[i], expected,
                     isfinite(expected) ? TOLERANCE * fabs(expected) : 0);
    }
}

static double negated(double x)
{
    return -x;
}

static double exponential(double x)
{
    return (exp)(x);
}

static double logarithm(double x)
{
    return (log)(x);
}

static double square_root(double x)
{
    return (sqrt)(x);
}

static double hyperbolic_tangent(double x)
{
    return (tanh)(x);
}

static double logistic(double x)
{
    return 1 / (1 + (exp)(-x));
}

static double sine(double x)
{
    return (sin)(x);
}

static double cosine(double x)
{
    return (cos)(x);
}

static double normal_cdf(double x)
{
    return (erfc)(-x / (sqrt)(2.0)) / 2;
}

static double gelu(double x)
{
    return x == -INFINITY ? 0 : x * normal_cdf(x);
}

static double rectified(double x)
{
    return isnan(x) ? x : x > 0 ? x : 0;
}

static void unary_operations_are_their_functions(void **state)
{
    (void)state;
    check_unary(qkv_neg, negated);
    check_unary(qkv_exp, exponential);
    check_unary(qkv_log, logarithm);
    check_unary(qkv_sqrt, square_root);
    check_unary(qkv_tanh, hyperbolic_tangent);
    check_unary(qkv_sigmoid, logistic);
    check_unary(qkv_relu, rectified);
    check_unary(qkv_sin, sine);
    check_unary(qkv_cos, cosine);
    check_unary(qkv_normal_cdf, normal_cdf);
    check_unary(qkv_gelu, gelu);
}

static void saturated_sigmoid_keeps_its_slope(void **state)
{
    (void)state;
    const real x[2] = {40, -40};
    real grad[2] = {0};
    qkv_var y = qkv_sum(tape, qkv_sigmoid(tape, vector(2, x, grad)), NULL, 0, false);
    assert_ok(qkv_backward(tape, y));
    for (int i = 0; i < 2; i++) assert_close((double)grad[i] / (exp)(-40.0), 1, 100 * REAL_EPSILON);
}

static void relu_is_flat_at_zero(void **state)
{
    (void)state;
    const real x[3] = {-1, 0, 1};
    real grad[3] = {0};
    assert_ok(
        qkv_backward(tape, qkv_sum(tape, qkv_relu(tape, vector(3, x, grad)), NULL, 0, false)));
    assert_close(grad[0], 0, 0);
    assert_close(grad[1], 0, 0);
    assert_close(grad[2], 1, 0);
}

static void binary_operations_are_their_functions(void **state)
{
    (void)state;
    const real a[4] = {3, -2, 0, (real)0.5}, b[4] = {2, 4, -1, (real)0.25};
    qkv_var x = vector(4, a, NULL), y = vector(4, b, NULL);
    assert_value(qkv_add(tape, x, y), {5, 2, -1, 0.75});
    assert_value(qkv_sub(tape, x, y), {1, -6, 1, 0.25});
    assert_value(qkv_mul(tape, x, y), {6, -8, 0, 0.125});
    assert_value(qkv_div(tape, x, y), {1.5, -0.5, 0, 2});
    assert_value(qkv_pow(tape, x, y), {9, 16, INFINITY, 0.8408964152537145});
}

/* Each element of the result by its index, the slow way. */
static void check_broadcast(qkv_shape shape_a, qkv_shape shape_b, qkv_shape expected)
{
    enum { MOST = 512 };
    static real a[MOST], b[MOST];
    for (int i = 0; i < MOST; i++) a[i] = (real)(i + 1), b[i] = (real)(1000 * (i + 1));
    qkv_var y = qkv_sub(tape, leaf(shape_a, a), leaf(shape_b, b));
    assert_shape(y, expected);
    const real *value = FN(qkv_value)(tape, y);
    size_t size = 1;
    for (int i = 0; i < expected.rank; i++) size *= (size_t)expected.dim[i];
    for (size_t flat = 0; flat < size; flat++) {
        size_t rest = flat, at[2] = {0, 0}, stride[2] = {1, 1};
        for (int i = 1; i <= expected.rank; i++) {
            size_t n = (size_t)expected.dim[expected.rank - i], index = rest % n;
            const qkv_shape *operand[2] = {&shape_a, &shape_b};
            rest /= n;
            for (int k = 0; k < 2; k++) {
                if (i > operand[k]->rank) continue;
                size_t own = (size_t)operand[k]->dim[operand[k]->rank - i];
                if (own > 1) at[k] += index * stride[k];
                stride[k] *= own;
            }
        }
        assert_close(value[flat], a[at[0]] - b[at[1]], 0);
    }
    qkv_tape_reset(tape);
}

static void operands_broadcast_as_in_numpy(void **state)
{
    (void)state;
    const qkv_shape wide = {8, {2, 1, 2, 1, 2, 1, 2, 1}}, other = {7, {2, 1, 2, 1, 2, 1, 2}};
    check_broadcast(qkv_scalar(), qkv_scalar(), qkv_scalar());
    check_broadcast(qkv_scalar(), qkv_shape2(3, 4), qkv_shape2(3, 4));
    check_broadcast(qkv_shape2(3, 4), qkv_scalar(), qkv_shape2(3, 4));
    check_broadcast(qkv_shape2(3, 4), qkv_shape1(1), qkv_shape2(3, 4));
    check_broadcast(qkv_shape2(3, 4), qkv_shape1(4), qkv_shape2(3, 4));
    check_broadcast(qkv_shape2(3, 1), qkv_shape1(4), qkv_shape2(3, 4));
    check_broadcast(qkv_shape3(2, 3, 4), qkv_shape3(2, 1, 4), qkv_shape3(2, 3, 4));
    check_broadcast(qkv_shape3(2, 3, 4), qkv_shape3(1, 3, 1), qkv_shape3(2, 3, 4));
    check_broadcast(qkv_shape1(1), qkv_shape4(2, 1, 3, 1), qkv_shape4(2, 1, 3, 1));
    check_broadcast(qkv_shape4(2, 1, 3, 1), qkv_shape3(5, 1, 4), qkv_shape4(2, 5, 3, 4));
    check_broadcast(wide, other, (qkv_shape){8, {2, 2, 2, 2, 2, 2, 2, 2}});
}

/* a / b and a b of four shapes each, the rows longer than a block of what backward sums at once. */
static void gradients_of_long_rows_are_those_of_each_element(void **state)
{
    (void)state;
    enum { ROWS = 2, LONG = 700, SIZE = ROWS * LONG };
    static real x[2][SIZE], dx[2][SIZE], cotangent[SIZE];
    const qkv_shape shapes[] = {qkv_shape2(ROWS, LONG), qkv_shape1(LONG), qkv_shape2(ROWS, 1),
                                qkv_scalar()};
    for (uint64_t i = 0; i < SIZE; i++) {
        for (uint64_t k = 0; k < 2; k++) x[k][i] = (real)uniform(k, i, 1, 2);
        cotangent[i] = (real)uniform(2, i, 0, 1);
    }
    for (int c = 0; c < 14; c++) { /* one of both is whole */
        const bool divides = c % 2;
        const int pair = c / 2, shape[] = {pair < 4 ? pair : 0, pair < 4 ? 0 : pair - 3};
        static double expected[2][SIZE];
        memset(expected, 0, sizeof expected);
        memset(dx, 0, sizeof dx);
        qkv_var a = FN(qkv_leaf)(tape, shapes[shape[0]], x[0], dx[0]);
        qkv_var b = FN(qkv_leaf)(tape, shapes[shape[1]], x[1], dx[1]);
        qkv_var y = divides ? qkv_div(tape, a, b) : qkv_mul(tape, a, b);
        y = qkv_mul(tape, y, leaf(shapes[0], cotangent));
        assert_ok(qkv_backward(tape, qkv_sum(tape, y, NULL, 0, false)));
        for (int i = 0; i < SIZE; i++) {
            const int at[] = {i, i % LONG, i / LONG, 0};
            double u = x[0][at[shape[0]]], v = x[1][at[shape[1]]], dy = cotangent[i];
            expected[0][at[shape[0]]] += divides ? dy / v : dy * v;
            expected[1][at[shape[1]]] += divides ? -dy * u / (v * v) : dy * u;
        }
        for (int k = 0; k < 2; k++)
            for (int i = 0; i < SIZE; i++)
                assert_close(dx[k][i], expected[k][i], 32 * REAL_EPSILON * fabs(expected[k][i]));
        qkv_tape_reset(tape);
    }
}

static void empty_arrays_pass_through(void **state)
{
    (void)state;
    const real one = 1;
    real grad = 0;
    qkv_var none = leaf(qkv_shape2(0, 3), NULL);
    qkv_var scalar = FN(qkv_leaf)(tape, qkv_scalar(), &one, &grad);
    qkv_var y = qkv_exp(tape, qkv_mul(tape, none, scalar));
    assert_shape(y, qkv_shape2(0, 3));
    assert_non_null(FN(qkv_value)(tape, y));
    assert_shape(qkv_transpose(tape, y, NULL), qkv_shape2(3, 0));
    assert_shape(qkv_add(tape, leaf(qkv_shape2(0, 1), NULL), leaf(qkv_shape2(1, 3), (real[3]){0})),
                 qkv_shape2(0, 3));
    assert_ok(qkv_backward(tape, qkv_sum(tape, y, NULL, 0, false)));
    assert_close(grad, 0, 0);
}

/* Gradients of pow at a = 0: the header's promise. */
static void pow_has_no_slope_in_the_exponent_at_zero(void **state)
{
    (void)state;
    const real a[3] = {0, 0, 0}, b[3] = {2, 1, 0};
    real da[3] = {0}, db[3] = {0};
    qkv_var y = qkv_pow(tape, vector(3, a, da), vector(3, b, db));
    assert_value(y, {0, 0, 1});
    assert_ok(qkv_backward(tape, qkv_sum(tape, y, NULL, 0, false)));
    assert_close(da[0], 0, 0);
    assert_close(da[1], 1, 0);
    assert_close(da[2], 0, 0);
    for (int i = 0; i < 3; i++) assert_close(db[i], 0, 0);
}

/* ---- Reductions ------------------------------------------------------------------------------ */

static const real cube[12] = {1, 2, 3, 4, 5, 6, 70, 80, 90, 100, 110, 120}; /* [2,3,2] */

static void sums_go_over_the_named_axes(void **state)
{
    (void)state;
    qkv_var x = leaf(qkv_shape3(2, 3, 2), cube);
    qkv_var rows = qkv_sum(tape, x, (int[]){2}, 1, false);
    assert_shape(rows, qkv_shape2(2, 3));
    assert_value(rows, {3, 7, 11, 150, 190, 230});
    assert_value(qkv_sum(tape, x, (int[]){1}, 1, false), {9, 12, 270, 300});
    assert_value(qkv_sum(tape, x, (int[]){0}, 1, false), {71, 82, 93, 104, 115, 126});
    qkv_var ends = qkv_sum(tape, x, (int[]){-1, 0}, 2, true);
    assert_shape(ends, qkv_shape3(1, 3, 1));
    assert_value(ends, {153, 197, 241});
    assert_shape(qkv_sum(tape, x, NULL, 0, true), qkv_shape3(1, 1, 1));
    assert_value(qkv_sum(tape, x, NULL, 0, false), {591});
    assert_value(qkv_sum(tape, x, (int[]){0}, 0, false), {1, 2, 3, 4, 5, 6, 70, 80, 90, 100, 110});
}

static void long_sums_do_not_lose_digits(void **state)
{
    (void)state;
    enum { LONG = 1 << 20 };
    real *x = malloc(LONG * sizeof *x);
    long double expected = 0;
    for (uint64_t i = 0; i < LONG; i++) expected += x[i] = (real)uniform(1, i, 0, 1);
    qkv_var y = qkv_sum(tape, vector(LONG, x, NULL), NULL, 0, false);
    assert_close(qkv_item(tape, y), (double)expected, 8 * REAL_EPSILON * (double)expected);
    free(x);
}

/* Blocks, halves and what is left over: 1, 2, .. 7, 1, 2, .. whose sums are exact. */
static void sums_of_any_length_count_every_number(void **state)
{
    (void)state;
    static const ptrdiff_t lengths[] = {15, 16, 17, 255, 256, 257, 300, 511, 512, 513, 800, 3001};
    real x[3001];
    for (int i = 0; i < 3001; i++) x[i] = (real)(i % 7 + 1);
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        ptrdiff_t n = lengths[k], rest = n % 7;
        double expected = (double)(n / 7 * 28 + rest * (rest + 1) / 2);
        assert_close(qkv_item(tape, qkv_sum(tape, vector(n, x, NULL), NULL, 0, false)), expected,
                     0);
    }
}

static void mean_and_max_go_over_the_named_axes(void **state)
{
    (void)state;
    qkv_var x = leaf(qkv_shape3(2, 3, 2), cube);
    assert_value(qkv_mean(tape, x, (int[]){1}, 1, false), {3, 4, 90, 100});
    assert_value(qkv_mean(tape, x, NULL, 0, false), {49.25});
    assert_value(qkv_max(tape, x, (int[]){1}, 1, false), {5, 6, 110, 120});
    assert_value(qkv_max(tape, x, (int[]){0, 2}, 2, false), {80, 100, 120});
}

static void maximum_of_equals_is_the_first_and_nan_wins(void **state)
{
    (void)state;
    const real rows[6] = {2, 5, 5, 1, NAN, 3}, columns[6] = {2, 1, 5, NAN, 5, 3};
    const double of_rows[6] = {0, 1, 0, 0, 1, 0}, of_columns[6] = {0, 0, 1, 1, 0, 0};
    for (int axis = 0; axis < 2; axis++) {
        real grad[6] = {0};
        qkv_var x = FN(qkv_leaf)(tape, axis ? qkv_shape2(2, 3) : qkv_shape2(3, 2),
                                 axis ? rows : columns, grad);
        qkv_var y = qkv_max(tape, x, &axis, 1, false);
        assert_value(y, {5, NAN});
        assert_ok(qkv_backward(tape, qkv_sum(tape, y, NULL, 0, false)));
        for (int i = 0; i < 6; i++) assert_close(grad[i], (axis ? of_rows : of_columns)[i], 0);
    }
}

static void maximum_of_minus_infinities_is_one_of_them(void **state)
{
    (void)state;
    const real x[2] = {(real)-INFINITY, (real)-INFINITY};
    real grad[2] = {0};
    qkv_var y = qkv_max(tape, vector(2, x, grad), NULL, 0, false);
    assert_value(y, {-INFINITY});
    assert_ok(qkv_backward(tape, y));
    assert_close(grad[0], 1, 0);
}

static void sum_of_nothing_is_zero(void **state)
{
    (void)state;
    qkv_var none = leaf(qkv_shape2(0, 3), NULL);
    assert_value(qkv_sum(tape, none, (int[]){0}, 1, false), {0, 0, 0});
    assert_value(qkv_sum(tape, none, NULL, 0, false), {0});
    assert_shape(qkv_mean(tape, none, (int[]){1}, 1, false), qkv_shape1(0));
}

/* ---- Shapes and products --------------------------------------------------------------------- */

static void transpose_moves_axes(void **state)
{
    (void)state;
    qkv_var x = leaf(qkv_shape3(2, 3, 2), cube);
    qkv_var y = qkv_transpose(tape, x, NULL);
    assert_shape(y, qkv_shape3(2, 3, 2));
    assert_value(y, {1, 70, 3, 90, 5, 110, 2, 80, 4, 100, 6, 120});
    y = qkv_transpose(tape, x, (int[]){1, 0, 2});
    assert_shape(y, qkv_shape3(3, 2, 2));
    assert_value(y, {1, 2, 70, 80, 3, 4, 90, 100, 5, 6, 110, 120});
    assert_value(qkv_transpose(tape, qkv_constant(tape, 7), NULL), {7});
}

static void reshape_shares_the_numbers(void **state)
{
    (void)state;
    qkv_var x = leaf(qkv_shape3(2, 3, 2), cube), y = qkv_reshape(tape, x, qkv_shape2(-1, 4));
    assert_shape(y, qkv_shape2(3, 4));
    assert_ptr_equal(FN(qkv_value)(tape, y), cube);
    assert_shape(qkv_reshape(tape, leaf(qkv_shape1(0), NULL), qkv_shape2(3, 0)), qkv_shape2(3, 0));
}

/* An array larger than all before it has a block of its own, to the byte, and so have gradients of
 * leaves: a sanitizer sees who steps beside them. */
static void large_arrays_are_not_overrun(void **state)
{
    (void)state;
    enum { ROWS = 48, COLUMNS = 512, SIZE = ROWS * COLUMNS, OPERATIONS = 19 };
    static qkv_var (*const unary[])(qkv_tape *, qkv_var) = {
        qkv_neg, qkv_exp, qkv_log, qkv_sqrt, qkv_tanh, qkv_sigmoid, qkv_relu};
    static qkv_var (*const binary[])(qkv_tape *, qkv_var, qkv_var) = {qkv_add, qkv_sub, qkv_mul,
                                                                      qkv_div, qkv_pow};
    const qkv_shape halves = qkv_shape2(2, SIZE / 2);
    real *x = malloc(SIZE * sizeof *x), *dx = malloc(SIZE * sizeof *dx);
    for (uint64_t i = 0; i < SIZE; i++) x[i] = (real)uniform(1, i, 1, 2), dx[i] = 0;
    for (int i = 0; i < OPERATIONS; i++) {
        qkv_tape *t;
        assert_ok(qkv_tape_new(&t, REAL_DTYPE));
        qkv_var a = FN(qkv_leaf)(t, qkv_shape2(ROWS, COLUMNS), x, dx);
        qkv_var y = i < 7    ? unary[i](t, a)
                    : i < 12 ? binary[i - 7](t, a, a)
                    : i < 14 ? qkv_softmax(t, a, i % 2)
                    : i < 16 ? qkv_log_softmax(t, a, i % 2)
                    : i < 17 ? qkv_div(t, a, qkv_constant(t, 2))
                    : i < 18 ? qkv_div(t, qkv_constant(t, 2), a)
                             : qkv_max(t, qkv_reshape(t, a, halves), (int[]){0}, 1, false);
        assert_ok(qkv_backward(t, qkv_sum(t, y, NULL, 0, false)));
        qkv_tape_free(t);
    }
    free(x);
    free(dx);
}

static void matmul_is_the_sum_of_products(void **state)
{
    (void)state;
    const real a[6] = {1, 2, 3, 4, 5, 6}, b[6] = {1, -1, 2, 0, 0, 3};
    qkv_var x = leaf(qkv_shape2(2, 3), a), y = leaf(qkv_shape2(3, 2), b);
    assert_value(qkv_matmul(tape, x, y), {5, 8, 14, 14});
    qkv_var row = vector(3, a, NULL);
    assert_shape(qkv_matmul(tape, row, row), qkv_scalar());
    assert_value(qkv_matmul(tape, row, row), {14});
    assert_shape(qkv_matmul(tape, row, y), qkv_shape1(2));
    assert_value(qkv_matmul(tape, row, y), {5, 8});
    assert_value(qkv_matmul(tape, x, row), {14, 32});
}

static void matmul_broadcasts_leading_axes(void **state)
{
    (void)state;
    const real a[8] = {1, 2, 3, 4, 5, 6, 7, 8}, b[4] = {1, 1, 0, 2};
    qkv_var x = leaf(qkv_shape4(2, 1, 2, 2), a), y = leaf(qkv_shape3(2, 2, 1), b);
    qkv_var z = qkv_matmul(tape, x, y);
    assert_shape(z, qkv_shape4(2, 2, 2, 1));
    assert_value(z, {3, 7, 4, 8, 11, 15, 12, 16});
    qkv_var tall = qkv_matmul(tape, x, leaf(qkv_shape2(2, 2), b));
    assert_shape(tall, qkv_shape4(2, 1, 2, 2));
    assert_value(tall, {1, 5, 3, 11, 5, 17, 7, 23});
}

/* [batch_a.., 2, 3] times [batch_b.., 3, 2]; batches of one are stretched. */
static void assert_batched(const ptrdiff_t batch_a[2], const ptrdiff_t batch_b[2])
{
    real a[4 * 6], b[4 * 6];
    for (int i = 0; i < 24; i++) a[i] = (real)(i % 7 - 3), b[i] = (real)(i % 5 - 2);
    qkv_var y = qkv_matmul(tape, leaf(qkv_shape4(batch_a[0], batch_a[1], 2, 3), a),
                           leaf(qkv_shape4(batch_b[0], batch_b[1], 3, 2), b));
    const ptrdiff_t rows = batch_a[0] > batch_b[0] ? batch_a[0] : batch_b[0],
                    columns = batch_a[1] > batch_b[1] ? batch_a[1] : batch_b[1];
    assert_shape(y, qkv_shape4(rows, columns, 2, 2));
    const real *value = FN(qkv_value)(tape, y);
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t column = 0; column < columns; column++)
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 2; j++) {
                    const real *of_a =
                        a + 6 * (row % batch_a[0] * batch_a[1] + column % batch_a[1]);
                    const real *of_b =
                        b + 6 * (row % batch_b[0] * batch_b[1] + column % batch_b[1]);
                    double sum = 0;
                    for (int k = 0; k < 3; k++)
                        sum += (double)of_a[3 * i + k] * (double)of_b[2 * k + j];
                    assert_close((double)*value++, sum, 0);
                }
}

static void matmul_of_batches_is_that_of_each_matrix(void **state)
{
    (void)state;
    for (int which = 0; which < 16; which++)
        assert_batched((const ptrdiff_t[]){1 + which % 2, 1 + which / 2 % 2},
                       (const ptrdiff_t[]){1 + which / 4 % 2, 1 + which / 8});
}

static void matmul_over_nothing_is_zero(void **state)
{
    (void)state;
    qkv_var a = leaf(qkv_shape2(2, 0), NULL), b = leaf(qkv_shape2(0, 2), NULL);
    assert_value(qkv_matmul(tape, a, b), {0, 0, 0, 0});
    assert_shape(qkv_matmul(tape, b, a), qkv_shape2(0, 0));
    real grad[2] = {0};
    qkv_var c = FN(qkv_leaf)(tape, qkv_shape2(2, 1), cube, grad);
    assert_ok(qkv_backward(tape, qkv_sum(tape, qkv_matmul(tape, b, c), NULL, 0, false)));
    assert_close(grad[0], 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(unary_operations_are_their_functions),
        TEST(saturated_sigmoid_keeps_its_slope),
        TEST(relu_is_flat_at_zero),
        TEST(binary_operations_are_their_functions),
        TEST(operands_broadcast_as_in_numpy),
        TEST(gradients_of_long_rows_are_those_of_each_element),
        TEST(empty_arrays_pass_through),
        TEST(pow_has_no_slope_in_the_exponent_at_zero),
        TEST(sums_go_over_the_named_axes),
        TEST(long_sums_do_not_lose_digits),
        TEST(sums_of_any_length_count_every_number),
        TEST(mean_and_max_go_over_the_named_axes),
        TEST(maximum_of_equals_is_the_first_and_nan_wins),
        TEST(maximum_of_minus_infinities_is_one_of_them),
        TEST(sum_of_nothing_is_zero),
        TEST(transpose_moves_axes),
        TEST(reshape_shares_the_numbers),
        TEST(large_arrays_are_not_overrun),
        TEST(matmul_is_the_sum_of_products),
        TEST(matmul_broadcasts_leading_axes),
        TEST(matmul_of_batches_is_that_of_each_matrix),
        TEST(matmul_over_nothing_is_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
