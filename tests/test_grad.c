/* test_grad.c - gradients that are recorded: the same as backward's for every operation of the
 * registry, and themselves differentiable; Hessians, third derivatives, the chapter's exercise. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "grad/trial.h"
#include "qkv/gradcheck.h"
#include "qkv/tape.h"
#include "support.h"

/* ---- Every operation of the registry ---- */

static qkv_var apply(const qkv_trial *c, const qkv_var *x)
{
    if (c->test->unary) return c->test->unary(c->tape, x[0]);
    if (c->test->binary) return c->test->binary(c->tape, x[0], x[1]);
    return c->test->apply(c->tape, x);
}

static qkv_var total(qkv_tape *t, qkv_var x, qkv_var weights)
{
    return qkv_sum(t, qkv_mul(t, x, weights), NULL, 0, false);
}

static void record_leaves(const qkv_trial *c, qkv_var *x)
{
    qkv_tape_reset(c->tape);
    for (int i = 0; i < c->test->n_input; i++)
        x[i] = qkv_leaf_f64(c->tape, c->test->input[i], c->x[i], c->gradient[i]);
}

static qkv_var record_loss(const qkv_trial *c, const qkv_var *x)
{
    qkv_var y = apply(c, x);
    qkv_shape shape = qkv_shape_of(c->tape, y);
    if (shape.rank < 0) return (qkv_var){0};
    return total(c->tape, y, qkv_leaf_f64(c->tape, shape, c->cotangent, NULL));
}

/* What is differentiated in second order: the sum over the inputs of sin(1 + i)' gradient of the
 * loss; in third, the same of its own gradient. */
static qkv_var record_phi(const qkv_trial *c, const qkv_var *x, int order)
{
    static double weight[4096];
    for (int i = 0; i < 4096; i++) weight[i] = sin(1 + i);
    qkv_var phi = record_loss(c, x);
    for (int above = 1; above < order; above++) {
        qkv_var g[QKV_TRIAL_INPUTS];
        qkv_grad(c->tape, phi, x, c->test->n_input, g);
        for (int i = 0; i < c->test->n_input; i++) {
            qkv_var w = qkv_leaf_f64(c->tape, c->test->input[i], weight + 17 * i, NULL);
            qkv_var part = total(c->tape, g[i], w);
            phi = i ? qkv_add(c->tape, phi, part) : part;
        }
    }
    return phi;
}

typedef struct order_of {
    const qkv_trial *c;
    int order;
} order_of;

static qkv_status phi_at(void *context, double *value)
{
    const order_of *f = context;
    qkv_var x[QKV_TRIAL_INPUTS];
    record_leaves(f->c, x);
    *value = qkv_item(f->c->tape, record_phi(f->c, x, f->order));
    return qkv_tape_status(f->c->tape);
}

static const char *name_of(const qkv_trial *c, int op)
{
    return c->test->label ? c->test->label : qkv_op_name(op);
}

static void assert_recorded_is_backward(const qkv_trial *c, int op)
{
    qkv_var x[QKV_TRIAL_INPUTS], g[QKV_TRIAL_INPUTS];
    record_leaves(c, x);
    qkv_var loss = record_loss(c, x);
    qkv_status status = qkv_grad(c->tape, loss, x, c->test->n_input, g);
    if (status) fail_msg("%s: %s", name_of(c, op), qkv_tape_error(c->tape));
    assert_ok(qkv_backward(c->tape, loss));
    for (int i = 0; i < c->test->n_input; i++) {
        const double *expected = qkv_grad_f64(c->tape, x[i]), *found = qkv_value_f64(c->tape, g[i]);
        double size = 0;
        for (size_t k = 0; expected && k < c->n[i]; k++) size = fmax(size, fabs(expected[k]));
        for (size_t k = 0; k < c->n[i]; k++) {
            double e = expected ? expected[k] : 0;
            if (c->test->constant >> i & 1) continue; /* backward is not asked */
            if (!(fabs(found[k] - e) <= 1e-14 * (1 + size)))
                fail_msg("%s: by x%d[%zu] %g, backward has %g", name_of(c, op), i, k, found[k], e);
        }
    }
}

/* Recorded twice, the gradient of phi is what the backward that has just been gives. */
static void assert_grad_of_grad(const qkv_trial *c, int op, const qkv_var *x, qkv_var phi)
{
    qkv_var g[QKV_TRIAL_INPUTS];
    if (qkv_grad(c->tape, phi, x, c->test->n_input, g))
        fail_msg("%s, recorded twice: %s", name_of(c, op), qkv_tape_error(c->tape));
    for (int i = 0; i < c->test->n_input; i++) {
        const double *found = qkv_value_f64(c->tape, g[i]);
        double size = 0;
        if (!c->gradient[i]) continue;
        for (size_t k = 0; k < c->n[i]; k++) size = fmax(size, fabs(c->gradient[i][k]));
        for (size_t k = 0; k < c->n[i]; k++)
            assert_close(found[k], c->gradient[i][k], 1e-13 * (1 + size));
    }
}

/* All operations of the registry have all orders; a user's alone has none. */
static void assert_order(const qkv_trial *c, int op, int order)
{
    qkv_var x[QKV_TRIAL_INPUTS];
    record_leaves(c, x);
    qkv_var phi = record_phi(c, x, order);
    for (int i = 0; i < c->test->n_input; i++)
        for (size_t k = 0; c->gradient[i] && k < c->n[i]; k++) c->gradient[i][k] = 0;
    if (qkv_tape_status(c->tape)) fail_msg("%s: %s", name_of(c, op), qkv_tape_error(c->tape));
    qkv_status status = qkv_backward(c->tape, phi);
    if (status == QKV_E_STATE && strstr(qkv_tape_error(c->tape), "no leaf")) return;
    if (status) fail_msg("%s: %s", name_of(c, op), qkv_tape_error(c->tape));
    assert_grad_of_grad(c, op, x, phi);
    qkv_check_input inputs[QKV_TRIAL_INPUTS];
    size_t n = qkv_trial_inputs(c, inputs);
    for (size_t i = 0; i < n; i++) {
        size_t zeros = 0;
        for (size_t k = 0; k < inputs[i].n; k++) zeros += inputs[i].gradient[k] == 0;
        inputs[i].zero = zeros == inputs[i].n ? QKV_ZERO_EXACT : QKV_ZERO_UNDECLARED;
    }
    qkv_check_report report;
    status = qkv_gradcheck(phi_at, &(order_of){c, order}, inputs, n, NULL, &report);
    if (status) fail_msg("%s, order %d: %s", name_of(c, op), order, report.message);
}

static void every_operation_records_its_gradient(void **state)
{
    (void)state;
    int cases = 0;
    for (int op = 0; op < qkv_op_count(); op++) {
        if (!strcmp(qkv_op_name(op), "user")) continue;
        for (const qkv_op_case *test = qkv_registry[op].cases; test->n_input; test++) {
            qkv_trial c;
            assert_ok(qkv_trial_begin(&c, test, 5, 1));
            assert_recorded_is_backward(&c, op);
            assert_order(&c, op, 2);
            if (!QKV_EMULATED) assert_order(&c, op, 3); /* minutes there */
            cases++;
            qkv_trial_end(&c);
        }
    }
    assert_true(cases > 100);
}

/* ---- By hand ---- */

/* x^3: 3 x^2, 6 x, 6, 0; as often as one likes, on one graph. */
static void a_gradient_has_a_gradient_that_has_a_gradient(void **state)
{
    (void)state;
    qkv_tape *t;
    double x = 1.5;
    assert_ok(qkv_tape_new(&t, QKV_F64));
    qkv_var v = qkv_leaf_f64(t, qkv_scalar(), &x, NULL), y = qkv_mul(t, v, qkv_mul(t, v, v));
    const double expected[] = {3 * x * x, 6 * x, 6, 0};
    for (int order = 0; order < 4; order++) {
        qkv_var again;
        assert_ok(qkv_grad(t, y, &v, 1, &again));
        assert_ok(qkv_grad(t, y, &v, 1, &y));
        assert_close(qkv_item(t, again), qkv_item(t, y), 0);
        assert_close(qkv_item(t, y), expected[order], 1e-15);
    }
    qkv_tape_free(t);
}

/* What is detached, recorded without gradients, or elsewhere, counts as constant. */
static void only_what_leads_to_y_passes_gradients(void **state)
{
    (void)state;
    qkv_tape *t;
    const double data[] = {0.2, -0.3}; /* where tanh is not flat */
    assert_ok(qkv_tape_new(&t, QKV_F64));
    qkv_var x = qkv_leaf_f64(t, qkv_shape1(2), data, NULL),
            z = qkv_leaf_f64(t, qkv_shape1(2), data, NULL);
    qkv_no_grad_begin(t);
    qkv_var hidden = qkv_exp(t, x);
    qkv_no_grad_end(t);
    qkv_var y = qkv_add(t, qkv_mul(t, x, hidden), qkv_mul(t, x, qkv_detach(t, x)));
    qkv_var middle = qkv_tanh(t, y), loss = qkv_sum(t, middle, NULL, 0, false), g[3];
    assert_ok(qkv_grad(t, loss, (qkv_var[]){x, z, middle}, 3, g));
    for (int i = 0; i < 2; i++) {
        double a = exp(data[i]) + data[i], th = tanh(data[i] * a);
        assert_close(qkv_value_f64(t, g[0])[i], (1 - th * th) * a, 1e-14);
        assert_close(qkv_value_f64(t, g[1])[i], 0, 0);
        assert_close(qkv_value_f64(t, g[2])[i], 1, 0);
    }
    qkv_tape_free(t);
}

/* Exercise 2 of the chapter once more: the log-sum-exp of the scores q'k has the gradient Attention
 * and the Hessian Cov_p[k], which is the gradient of Attention with k = v. */
static void the_hessian_of_log_sum_exp_is_the_covariance_of_the_keys(void **state)
{
    (void)state;
    enum { N = 7, D = 3 };
    double q[D], k[N * D], p[N], mean[D] = {0}, sum = 0;
    fill_normal(q, D, 1);
    fill_normal(k, N * D, 2);
    for (int j = 0; j < N; j++) {
        double s = 0;
        for (int c = 0; c < D; c++) s += q[c] * k[j * D + c];
        sum += p[j] = exp(s);
    }
    for (int x = 0; x < N * D; x++) mean[x % D] += p[x / D] / sum * k[x];
    qkv_tape *t;
    assert_ok(qkv_tape_new(&t, QKV_F64));
    qkv_var keys = qkv_leaf_f64(t, qkv_shape2(N, D), k, NULL),
            query = qkv_leaf_f64(t, qkv_shape2(1, D), q, NULL);
    qkv_var scores = qkv_matmul(t, query, qkv_transpose(t, keys, NULL));
    qkv_var lse = qkv_log(t, qkv_sum(t, qkv_exp(t, scores), NULL, 0, false)), pooled;
    assert_ok(qkv_grad(t, lse, &query, 1, &pooled));
    qkv_var o = qkv_attend(t, &(qkv_attention){.score = QKV_SCORE_DOT},
                           &(qkv_attend_vars){.q = query, .k = keys, .v = keys});
    for (int r = 0; r < D; r++) {
        qkv_var hessian, jacobian;
        assert_close(qkv_value_f64(t, pooled)[r], mean[r], 1e-14);
        assert_close(qkv_value_f64(t, o)[r], mean[r], 1e-14);
        assert_ok(qkv_grad(t, qkv_slice(t, pooled, 1, r, r + 1, 1), &query, 1, &hessian));
        assert_ok(qkv_grad(t, qkv_slice(t, o, 1, r, r + 1, 1), &query, 1, &jacobian));
        for (int c = 0; c < D; c++) {
            double cov = 0;
            for (int j = 0; j < N; j++)
                cov += p[j] / sum * (k[j * D + r] - mean[r]) * (k[j * D + c] - mean[c]);
            assert_close(qkv_value_f64(t, hessian)[c], cov, 1e-14);
            assert_close(qkv_value_f64(t, jacobian)[c], cov, 1e-14);
        }
    }
    qkv_tape_free(t);
}

/* Through multi-head attention: v' H w = w' H v. */
static void a_hessian_through_multi_head_attention_is_symmetric(void **state)
{
    (void)state;
    enum { N = 5, D = 4, W = D * D };
    static double x[N * D], w[W], u[2][W];
    fill_normal(x, N * D, 3);
    fill_normal(w, W, 4);
    fill_normal(u[0], W, 5);
    fill_normal(u[1], W, 6);
    qkv_tape *t;
    assert_ok(qkv_tape_new(&t, QKV_F64));
    qkv_var weights = qkv_leaf_f64(t, qkv_shape2(D, D), w, NULL),
            input = qkv_leaf_f64(t, qkv_shape2(N, D), x, NULL);
    const qkv_multi_head_vars in = {
        .x_q = input, .w_q = weights, .w_k = weights, .w_v = weights, .w_o = weights};
    const qkv_attention a = {.heads = 2, .mask.causal = true};
    qkv_var y = qkv_multi_head_attention(t, &a, &in), g, hv[2];
    assert_ok(qkv_grad(t, qkv_sum(t, qkv_mul(t, y, y), NULL, 0, false), &weights, 1, &g));
    double product[2];
    for (int i = 0; i < 2; i++) {
        qkv_var v = qkv_leaf_f64(t, qkv_shape2(D, D), u[i], NULL);
        assert_ok(qkv_grad(t, total(t, g, v), &weights, 1, &hv[i]));
        qkv_var other = qkv_leaf_f64(t, qkv_shape2(D, D), u[1 - i], NULL);
        product[i] = qkv_item(t, total(t, hv[i], other));
    }
    assert_true(fabs(product[0]) > 0.1);
    assert_close(product[0], product[1], 1e-12 * fabs(product[0]));
    qkv_tape_free(t);
}

static qkv_status double_it(void *context, const qkv_op_array *in, int n, const qkv_op_array *out,
                            void *y)
{
    (void)context, (void)n;
    for (size_t i = 0; i < out->size; i++) ((double *)y)[i] = 2 * ((const double *)in->data)[i];
    return QKV_OK;
}

static qkv_status double_back(void *context, const qkv_op_array *in, int n, const qkv_op_array *out,
                              const void *dy, void *const *dx)
{
    (void)context, (void)in, (void)n;
    for (size_t i = 0; i < out->size; i++) ((double *)dx[0])[i] += 2 * ((const double *)dy)[i];
    return QKV_OK;
}

static void first_products(void *context, const qkv_score_tile_f64 *tile, double *s)
{
    (void)context;
    for (ptrdiff_t j = 0; j < tile->n_k; j++)
        for (ptrdiff_t i = 0; i < tile->n_q; i++)
            s[j * tile->lanes + i] = tile->q[i] * tile->k[j * tile->k_stride];
}

static void first_products_back(void *context, const qkv_score_tile_f64 *tile, const double *da,
                                double *dq, double *dk, double *dw)
{
    (void)context, (void)dw;
    for (ptrdiff_t j = 0; j < tile->n_k; j++)
        for (ptrdiff_t i = 0; i < tile->n_q; i++) {
            dq[i] += da[j * tile->lanes + i] * tile->k[j * tile->k_stride];
            dk[j * tile->d_k] += da[j * tile->lanes + i] * tile->q[i];
        }
}

static const qkv_user_score_f64 first_times_first = {.forward = first_products,
                                                     .backward = first_products_back};

static void what_cannot_be_recorded_is_named(void **state)
{
    (void)state;
    const double data[] = {2, 3};
    const qkv_user_op twice = {.name = "twice", .forward = double_it, .backward = double_back};
    for (int i = 0; i < 5; i++) {
        static const char *const messages[] = {"y has 2 elements, expected one", "gs is NULL",
                                               "twice, an operation of the user's",
                                               "a user's score", "n is negative"};
        static const qkv_status codes[] = {QKV_E_SHAPE, QKV_E_ARG, QKV_E_ARG, QKV_E_ARG, QKV_E_ARG};
        qkv_tape *t;
        assert_ok(qkv_tape_new(&t, QKV_F64));
        qkv_var x = qkv_leaf_f64(t, qkv_shape2(1, 2), data, NULL), g = {0};
        qkv_var y = qkv_sum(t, qkv_apply(t, &twice, &x, 1, qkv_shape2(1, 2)), NULL, 0, false);
        qkv_var o = qkv_attend(
            t, &(qkv_attention){.score = QKV_SCORE_USER, .normalize = QKV_SPARSEMAX},
            &(qkv_attend_vars){.q = x, .k = x, .v = x, .user_score = &first_times_first});
        o = qkv_sum(t, qkv_mul(t, o, o), NULL, 0, false);
        if (i == 3) {
            assert_ok(qkv_grad(t, o, &x, 1, &g));
            o = qkv_sum(t, qkv_mul(t, g, g), NULL, 0, false);
        }
        qkv_var of[] = {x, y, y, o, y};
        qkv_grad(t, of[i], &x, i == 4 ? -1 : 1, i == 1 ? NULL : &g);
        assert_status(qkv_tape_status(t), codes[i]);
        assert_non_null(strstr(qkv_tape_error(t), messages[i]));
        qkv_tape_free(t);
    }
}

static void a_variable_of_elsewhere_is_named_and_no_handle_is_left(void **state)
{
    (void)state;
    const double data[] = {2, 3};
    for (int bad = 0; bad < 3; bad++) {
        qkv_tape *t;
        assert_ok(qkv_tape_new(&t, QKV_F64));
        qkv_var x = qkv_leaf_f64(t, qkv_shape1(2), data, NULL), xs[] = {x, x, x}, gs[] = {x, x, x};
        xs[bad] = (qkv_var){0};
        qkv_var y = qkv_sum(t, qkv_mul(t, x, x), NULL, 0, false);
        assert_status(qkv_grad(t, y, xs, 3, gs), QKV_E_STATE);
        assert_non_null(strstr(qkv_tape_error(t), "qkv_grad: xs"));
        for (int i = 0; i <= bad; i++) assert_int_equal(gs[i].generation, 0);
        qkv_tape_free(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_records_its_gradient),
        cmocka_unit_test(a_gradient_has_a_gradient_that_has_a_gradient),
        cmocka_unit_test(only_what_leads_to_y_passes_gradients),
        cmocka_unit_test(the_hessian_of_log_sum_exp_is_the_covariance_of_the_keys),
        cmocka_unit_test(a_hessian_through_multi_head_attention_is_symmetric),
        cmocka_unit_test(what_cannot_be_recorded_is_named),
        cmocka_unit_test(a_variable_of_elsewhere_is_named_and_no_handle_is_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
