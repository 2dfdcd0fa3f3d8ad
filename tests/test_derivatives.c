/* test_derivatives.c - Jacobians, Hessians and their products as nodes: against formulas, against
 * one another, and differentiated once more. */
#include <math.h>
#include <string.h>

#include "qkv/tape.h"
#include "support.h"

enum { N = 7, D = 3 };

static qkv_tape *new_tape(void)
{
    qkv_tape *t;
    assert_ok(qkv_tape_new(&t, QKV_F64));
    return t;
}

static qkv_var leaf(qkv_tape *t, qkv_shape shape, const double *data)
{
    return qkv_leaf_f64(t, shape, data, NULL);
}

static qkv_var sum(qkv_tape *t, qkv_var x)
{
    return qkv_sum(t, x, NULL, 0, false);
}

/* The value, once its shape is seen to be [rows, columns]. */
static const double *matrix(qkv_tape *t, qkv_var x, ptrdiff_t rows, ptrdiff_t columns)
{
    if (qkv_tape_status(t)) fail_msg("%s", qkv_tape_error(t));
    const qkv_shape s = qkv_shape_of(t, x);
    assert_int_equal(s.rank, 2);
    assert_int_equal(s.dim[0], rows);
    assert_int_equal(s.dim[1], columns);
    return qkv_value_f64(t, x);
}

/* softmax(x) = p: dp/dx = diag(p) - p p'. */
static void the_jacobian_of_softmax(void **state)
{
    (void)state;
    double x[N];
    fill_normal(x, N, 1);
    qkv_tape *t = new_tape();
    qkv_var v = leaf(t, qkv_shape1(N), x), y = qkv_softmax(t, v, 0);
    const double *j = matrix(t, qkv_jacobian(t, y, v), N, N), *p = qkv_value_f64(t, y);
    for (int r = 0; r < N; r++)
        for (int c = 0; c < N; c++)
            assert_close(j[r * N + c], (r == c ? p[r] : 0) - p[r] * p[c], 1e-16);
    qkv_tape_free(t);
}

/* Rows follow y, columns x: of y = A x it is A, whatever the ranks. */
static void the_jacobian_of_a_linear_map_is_its_matrix(void **state)
{
    (void)state;
    double a[6 * 4], x[4];
    fill_normal(a, 24, 1);
    fill_normal(x, 4, 2);
    qkv_tape *t = new_tape();
    qkv_var m = leaf(t, qkv_shape2(6, 4), a), v = leaf(t, qkv_shape2(2, 2), x);
    qkv_var y = qkv_matmul(t, m, qkv_reshape(t, v, qkv_shape1(4)));
    y = qkv_reshape(t, y, qkv_shape3(2, 1, 3));
    const double *j = matrix(t, qkv_jacobian(t, y, v), 6, 4);
    for (int i = 0; i < 24; i++) assert_close(j[i], a[i], 0);
    qkv_var by_m = qkv_jacobian(t, y, m);
    j = matrix(t, by_m, 6, 24);
    for (int r = 0; r < 6; r++)
        for (int c = 0; c < 24; c++) assert_close(j[r * 24 + c], c / 4 == r ? x[c % 4] : 0, 0);
    qkv_tape_free(t);
}

/* Cov_p[k] of p = softmax(K q). */
static void covariance(const double *q, const double *k, double cov[D][D])
{
    double p[N], mean[D] = {0}, total = 0;
    for (int j = 0; j < N; j++) {
        double s = 0;
        for (int c = 0; c < D; c++) s += q[c] * k[j * D + c];
        total += p[j] = exp(s);
    }
    for (int i = 0; i < N * D; i++) mean[i % D] += p[i / D] / total * k[i];
    for (int r = 0; r < D; r++)
        for (int c = 0; c < D; c++) {
            cov[r][c] = 0;
            for (int j = 0; j < N; j++)
                cov[r][c] += p[j] / total * (k[j * D + r] - mean[r]) * (k[j * D + c] - mean[c]);
        }
}

/* Exercise 2 of the chapter: attention with k = v has the Jacobian Cov_p[k] by q, the Hessian of
 * the log-sum-exp of K q. */
static void both_are_the_covariance_of_the_keys(void **state)
{
    (void)state;
    double q[D], k[N * D], cov[D][D];
    fill_normal(q, D, 1);
    fill_normal(k, N * D, 2);
    covariance(q, k, cov);
    qkv_tape *t = new_tape();
    qkv_var keys = leaf(t, qkv_shape2(N, D), k), query = leaf(t, qkv_shape2(1, D), q);
    qkv_var o = qkv_attend(t, &(qkv_attention){.score = QKV_SCORE_DOT},
                           &(qkv_attend_vars){.q = query, .k = keys, .v = keys});
    qkv_var scores = qkv_matmul(t, query, qkv_transpose(t, keys, NULL));
    qkv_var lse = qkv_log(t, sum(t, qkv_exp(t, scores)));
    const double *jacobian = matrix(t, qkv_jacobian(t, o, query), D, D),
                 *hessian = matrix(t, qkv_hessian(t, lse, query), D, D);
    for (int i = 0; i < D * D; i++) {
        assert_close(jacobian[i], cov[i / D][i % D], 1e-14);
        assert_close(hessian[i], cov[i / D][i % D], 1e-14);
    }
    qkv_tape_free(t);
}

/* A loss of self-attention: of every element of x, by all of them. */
static qkv_var loss_of(qkv_tape *t, qkv_var x)
{
    const qkv_attention a = {.mask.causal = true};
    qkv_var o = qkv_attend(t, &a, &(qkv_attend_vars){.q = x, .k = x, .v = x});
    return sum(t, qkv_mul(t, o, qkv_tanh(t, x)));
}

static void a_hessian_is_symmetric_and_its_products_are_products(void **state)
{
    (void)state;
    enum { X = N * D };
    double x[X], u[X];
    fill_normal(x, X, 3);
    fill_normal(u, X, 4);
    qkv_tape *t = new_tape();
    qkv_var v = leaf(t, qkv_shape2(N, D), x), y = loss_of(t, v);
    const double *h = matrix(t, qkv_hessian(t, y, v), X, X);
    const double *hu = matrix(t, qkv_hessian_vector(t, y, v, leaf(t, qkv_shape2(N, D), u)), N, D);
    const double *hx = matrix(t, qkv_hessian_vector(t, y, v, v), N, D); /* v may be x itself */
    for (int r = 0; r < X; r++) {
        double along_u = 0, along_x = 0;
        for (int c = 0; c < X; c++) {
            assert_close(h[r * X + c], h[c * X + r], 1e-14);
            along_u += h[r * X + c] * u[c];
            along_x += h[r * X + c] * x[c];
        }
        assert_true(fabs(along_u) > 1e-4);
        assert_close(hu[r], along_u, 1e-13);
        assert_close(hx[r], along_x, 1e-13);
    }
    qkv_tape_free(t);
}

/* y = sum x^4: the Hessian diag(12 x^2), whose sum has the gradient 24 x; u'Hu, 24 x u^2 and
 * 24 x^2 u. */
static void all_can_be_differentiated_again(void **state)
{
    (void)state;
    const double x[] = {1.5, -2}, u[] = {0.5, 3};
    qkv_tape *t = new_tape();
    qkv_var v = leaf(t, qkv_shape1(2), x), along = leaf(t, qkv_shape1(2), u), g[2];
    qkv_var square = qkv_mul(t, v, v), y = sum(t, qkv_mul(t, square, square));
    assert_ok(qkv_grad(t, sum(t, qkv_hessian(t, y, v)), &v, 1, g));
    for (int i = 0; i < 2; i++) assert_close(qkv_value_f64(t, g[0])[i], 24 * x[i], 1e-13);
    qkv_var hu = qkv_hessian_vector(t, y, v, along);
    assert_ok(qkv_grad(t, sum(t, qkv_mul(t, hu, along)), (qkv_var[]){v, along}, 2, g));
    for (int i = 0; i < 2; i++) {
        assert_close(qkv_value_f64(t, g[0])[i], 24 * x[i] * u[i] * u[i], 1e-13);
        assert_close(qkv_value_f64(t, g[1])[i], 24 * x[i] * x[i] * u[i], 1e-13);
    }
    const double *third = matrix(t, qkv_jacobian(t, qkv_hessian(t, y, v), v), 4, 2);
    for (int i = 0; i < 8; i++) assert_close(third[i], i == 0 || i == 7 ? 24 * x[i / 7] : 0, 1e-13);
    qkv_tape_free(t);
}

static void what_does_not_depend_is_zero_and_nothing_has_no_rows(void **state)
{
    (void)state;
    const double x[] = {1, 2, 3};
    qkv_tape *t = new_tape();
    qkv_var v = leaf(t, qkv_shape1(3), x), other = leaf(t, qkv_shape1(2), x);
    qkv_var y = sum(t, v), none = leaf(t, qkv_shape2(0, 2), NULL);
    const double *j = matrix(t, qkv_jacobian(t, v, other), 3, 2),
                 *h = matrix(t, qkv_hessian(t, y, v), 3, 3);
    for (int i = 0; i < 6; i++) assert_close(j[i], 0, 0);
    for (int i = 0; i < 9; i++) assert_close(h[i], 0, 0);
    const double *hv = qkv_value_f64(t, qkv_hessian_vector(t, y, v, v));
    for (int i = 0; i < 3; i++) assert_close(hv[i], 0, 0);
    matrix(t, qkv_jacobian(t, none, v), 0, 3);
    matrix(t, qkv_jacobian(t, v, none), 3, 0);
    j = matrix(t, qkv_jacobian(t, v, v), 3, 3);
    for (int i = 0; i < 9; i++) assert_close(j[i], i % 4 == 0, 0);
    qkv_tape_free(t);
}

/* They are right in a no-grad scope too, and constants. */
static void without_gradients_they_are_constants(void **state)
{
    (void)state;
    const double x[] = {1.5, -2};
    qkv_tape *t = new_tape();
    qkv_var v = leaf(t, qkv_shape1(2), x), y = sum(t, qkv_mul(t, v, qkv_mul(t, v, v))), g;
    qkv_no_grad_begin(t);
    qkv_var h = qkv_hessian(t, y, v), hv = qkv_hessian_vector(t, y, v, v);
    qkv_no_grad_end(t);
    matrix(t, h, 2, 2);
    for (int i = 0; i < 4; i++) assert_close(qkv_value_f64(t, h)[i], i % 3 ? 0 : 6 * x[i / 3], 0);
    for (int i = 0; i < 2; i++) assert_close(qkv_value_f64(t, hv)[i], 6 * x[i] * x[i], 1e-14);
    assert_ok(qkv_grad(t, qkv_add(t, sum(t, h), sum(t, hv)), &v, 1, &g));
    for (int i = 0; i < 2; i++) assert_close(qkv_value_f64(t, g)[i], 0, 0);
    qkv_tape_free(t);
}

static qkv_status leave_zeros(void *context, const qkv_op_array *in, int n, const qkv_op_array *out,
                              void *y)
{
    (void)context, (void)in, (void)n, (void)out, (void)y;
    return QKV_OK;
}

static qkv_status add_nothing(void *context, const qkv_op_array *in, int n, const qkv_op_array *out,
                              const void *dy, void *const *dx)
{
    (void)context, (void)in, (void)n, (void)out, (void)dy, (void)dx;
    return QKV_OK;
}

static void errors_are_named(void **state)
{
    (void)state;
    static const double data[2];
    /* Its gradient cannot be recorded: no 65536 rows, should they be tried. */
    const qkv_user_op zeros = {.forward = leave_zeros, .backward = add_nothing};
    static const struct {
        qkv_status status;
        const char *message;
    } expected[] = {
        {QKV_E_STATE, "qkv_jacobian: y: the handle is the invalid handle"},
        {QKV_E_STATE, "qkv_jacobian: x: the handle is stale (from before a reset) or of another"},
        {QKV_E_ARG, "qkv_jacobian: y has 65536 elements, expected 65535 at most"},
        {QKV_E_STATE, "qkv_hessian_vector: v: the handle is the invalid handle"},
        {QKV_E_SHAPE, "qkv_hessian_vector: v is [2], expected [1,2] as x"},
        {QKV_E_STATE, "qkv_grad: xs: the handle is stale (from before a reset) or of another"},
        {QKV_E_SHAPE, "y has 2 elements, expected one"},
        {QKV_E_SHAPE, "y has 2 elements, expected one"},
    };
    qkv_tape *foreign = new_tape();
    qkv_var theirs = leaf(foreign, qkv_shape1(2), data), no = {0};
    for (int i = 0; i < 8; i++) {
        qkv_tape *t = new_tape();
        qkv_var x = leaf(t, qkv_shape2(1, 2), data), v = leaf(t, qkv_shape1(2), data);
        qkv_var y = sum(t, x), large = qkv_apply(t, &zeros, &x, 1, qkv_shape1(65536));
        qkv_var found = i == 0   ? qkv_jacobian(t, no, x)
                        : i == 1 ? qkv_jacobian(t, y, theirs)
                        : i == 2 ? qkv_jacobian(t, large, x)
                        : i == 3 ? qkv_hessian_vector(t, y, x, no)
                        : i == 4 ? qkv_hessian_vector(t, y, x, v)
                        : i == 5 ? qkv_hessian(t, y, theirs)
                        : i == 6 ? qkv_hessian(t, x, x)
                                 : qkv_hessian_vector(t, x, x, x);
        assert_int_equal(found.generation, 0);
        assert_status(qkv_tape_status(t), expected[i].status);
        if (!strstr(qkv_tape_error(t), expected[i].message)) fail_msg("%s", qkv_tape_error(t));
        qkv_tape_free(t);
    }
    assert_int_equal(qkv_jacobian(NULL, theirs, theirs).generation, 0);
    assert_int_equal(qkv_hessian(NULL, theirs, theirs).generation, 0);
    assert_int_equal(qkv_hessian_vector(NULL, theirs, theirs, theirs).generation, 0);
    qkv_tape_free(foreign);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_jacobian_of_softmax),
        cmocka_unit_test(the_jacobian_of_a_linear_map_is_its_matrix),
        cmocka_unit_test(both_are_the_covariance_of_the_keys),
        cmocka_unit_test(a_hessian_is_symmetric_and_its_products_are_products),
        cmocka_unit_test(all_can_be_differentiated_again),
        cmocka_unit_test(what_does_not_depend_is_zero_and_nothing_has_no_rows),
        cmocka_unit_test(without_gradients_they_are_constants),
        cmocka_unit_test(errors_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
