/* test_gradcheck_directions.c - whole gradients by a few directions, functions of floats, kinks,
 * Taylor's remainder, forward mode against reverse mode. */
#include "support.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/gradcheck.h"
#include "src/random.h"

/* ---- f(x) = sum_i sin(a_i x_i) + (sum_i b_i x_i)^2 / n, large
 * ------------------------------------
 */

enum { LARGE = 2000 };

typedef struct waves {
    size_t n;
    double x[LARGE], a[LARGE], b[LARGE], gradient[LARGE];
} waves;

static qkv_status waves_value(void *context, double *value)
{
    const waves *w = context;
    double sum = 0, dot = 0;
    for (size_t i = 0; i < w->n; i++) {
        sum += sin(w->a[i] * w->x[i]);
        dot += w->b[i] * w->x[i];
    }
    *value = sum + dot * dot / (double)w->n;
    return QKV_OK;
}

static waves *waves_new(size_t n, uint64_t seed)
{
    waves *w = calloc(1, sizeof *w);
    double dot = 0;
    w->n = n;
    fill_normal(w->x, n, 3 * seed);
    fill_normal(w->a, n, 3 * seed + 1);
    fill_normal(w->b, n, 3 * seed + 2);
    for (size_t i = 0; i < n; i++) dot += w->b[i] * w->x[i];
    for (size_t i = 0; i < n; i++)
        w->gradient[i] = w->a[i] * cos(w->a[i] * w->x[i]) + 2 * dot * w->b[i] / (double)n;
    return w;
}

static qkv_status check_waves(waves *w, const qkv_check_options *options, qkv_check_report *report)
{
    const qkv_check_input x = {.name = "x", .x = w->x, .gradient = w->gradient, .n = w->n};
    waves before = *w;
    qkv_status status = qkv_gradcheck(waves_value, w, &x, 1, options, report);
    assert_memory_equal(w, &before, sizeof before);
    return status;
}

static double norm(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

static void directions_pass_what_is_right_and_certify_it(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 40; seed++) {
        waves *w = waves_new(seed % 2 ? LARGE : 7, seed);
        const qkv_check_options options = {.directions = 8, .seed = seed};
        qkv_check_report report;
        assert_ok(check_waves(w, &options, &report));
        assert_int_equal(report.checked, 8);
        assert_true(report.certificate > 0 && report.certificate < 1e-5);
        assert_non_null(strstr(report.message, "the whole is off by less than"));
        free(w);
    }
}

/* A gradient whose error exceeds what its certificate says passes in a share delta of the runs at
 * most. The bound is no idle one: small errors pass, and some of those that pass exceed it. */
static void the_certificate_holds(void **state)
{
    (void)state;
    enum { RUNS = 400, SIZES = 5, N = 50 };
    static const double sizes[SIZES] = {0.01, 1, 2, 4, 16};
    const double delta = 0.2;
    int passed[SIZES] = {0}, wrong[SIZES] = {0};
    for (uint64_t seed = 0; seed < RUNS; seed++)
        for (int size = 0; size < SIZES; size++) {
            waves *w = waves_new(N, seed);
            const qkv_check_options options = {
                .directions = 3, .delta = delta, .seed = seed + 1000};
            qkv_check_report report;
            assert_ok(check_waves(w, &options, &report));
            double e[N], length = report.certificate * norm(w->gradient, N) * sizes[size];
            fill_normal(e, N, seed + 5000);
            for (int i = 0; i < N; i++) w->gradient[i] += e[i] / norm(e, N) * length;
            bool pass = check_waves(w, &options, &report) == QKV_OK;
            passed[size] += pass;
            wrong[size] += pass && length > report.certificate * norm(w->gradient, N);
            free(w);
        }
    for (int size = 0; size < SIZES; size++) assert_true(wrong[size] <= RUNS * delta);
    assert_true(passed[0] >= RUNS / 2);
    assert_true(wrong[1] + wrong[2] + wrong[3] > 0);
}

static void one_wrong_element_among_thousands_is_seen_by_directions(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        waves *w = waves_new(LARGE, seed);
        const qkv_check_options options = {.directions = 4, .seed = seed};
        size_t i = 97 * seed;
        w->gradient[i] += 1e-2;
        qkv_check_report report;
        assert_status(check_waves(w, &options, &report), QKV_E_GRADIENT);
        assert_true(report.failed > 0);
        assert_true(isinf(report.certificate));
        assert_close(report.taylor_rate, 1, 0.1);
        assert_message("along random directions");
        assert_message("falls like step^1.0");
        free(w);
    }
}

static void directions_stay_within_the_domain(void **state)
{
    (void)state;
    waves *w = waves_new(60, 3);
    for (int i = 0; i < 60; i++) w->x[i] = 0.01 + 0.001 * i;
    double dot = 0;
    for (int i = 0; i < 60; i++) dot += w->b[i] * w->x[i];
    for (int i = 0; i < 60; i++)
        w->gradient[i] = w->a[i] * cos(w->a[i] * w->x[i]) + 2 * dot * w->b[i] / 60;
    const qkv_check_input x = {
        .name = "x", .x = w->x, .gradient = w->gradient, .n = 60, .lower = 0, .upper = INFINITY};
    assert_ok(qkv_gradcheck(waves_value, w, &x, 1, &(qkv_check_options){.directions = 5}, NULL));
    w->x[7] = -1;
    assert_status(qkv_gradcheck(waves_value, w, &x, 1, &(qkv_check_options){.directions = 5}, NULL),
                  QKV_E_ARG);
    const qkv_check_options wrong[] = {{.directions = -1}, {.directions = 1, .delta = 1}};
    for (int i = 0; i < 2; i++)
        assert_status(qkv_gradcheck(waves_value, w, &x, 1, &wrong[i], NULL), QKV_E_ARG);
    free(w);
}

/* The sum of sines, and how far from 1 it was asked. */
typedef struct walked {
    double x[9], farthest;
} walked;

static qkv_status sum_of_sines(void *context, double *value)
{
    walked *w = context;
    double distance = 0;
    *value = 0;
    for (int i = 0; i < 9; i++) {
        *value += sin(w->x[i]);
        distance += (w->x[i] - 1) * (w->x[i] - 1);
    }
    w->farthest = fmax(w->farthest, sqrt(distance));
    return QKV_OK;
}

static void a_step_along_a_direction_is_as_long_as_one_of_an_element(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        walked w = {.farthest = 0};
        double gradient[9], h = pow(DBL_EPSILON, 1.0 / 7);
        for (int i = 0; i < 9; i++) w.x[i] = 1, gradient[i] = cos(1);
        const qkv_check_input in = {.x = w.x, .gradient = gradient, .n = 9};
        const qkv_check_options options = {.directions = 1, .seed = seed};
        assert_ok(qkv_gradcheck(sum_of_sines, &w, &in, 1, &options, NULL));
        assert_close(w.farthest, h, 1e-9 * h);
    }
}

/* ---- Floats ----------------------------------------------------------------------------------
 */

typedef struct floats {
    float x[20], gradient[20];
} floats;

static qkv_status float_value(void *context, double *value)
{
    const floats *f = context;
    float sum = 0;
    for (int i = 0; i < 20; i++) sum += sinf(f->x[i] * (float)(i % 5 + 1)) + 0.5f * f->x[i];
    *value = (double)sum;
    return QKV_OK;
}

static void functions_of_floats_are_checked_and_called_weak(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        floats f;
        for (int i = 0; i < 20; i++) {
            float k = (float)(i % 5 + 1);
            f.x[i] = (float)qkv_random_normal(seed, 0, (uint64_t)i);
            f.gradient[i] = k * cosf(f.x[i] * k) + 0.5f;
        }
        const qkv_check_input_f32 x = {.name = "x", .x = f.x, .gradient = f.gradient, .n = 20};
        qkv_check_report report;
        assert_ok(qkv_gradcheck_f32(float_value, &f, &x, 1, NULL, &report));
        assert_true(report.weak);
        const qkv_check_options options = {.directions = 4, .seed = seed};
        assert_ok(qkv_gradcheck_f32(float_value, &f, &x, 1, &options, &report));
        f.gradient[seed % 20] += 0.1f;
        assert_status(qkv_gradcheck_f32(float_value, &f, &x, 1, NULL, &report), QKV_E_GRADIENT);
        assert_int_equal(report.worst_index, seed % 20);
    }
}

/* ---- Kinks -----------------------------------------------------------------------------------
 */

typedef struct kink {
    double x[2], gradient[2], at;
    bool tells; /* its branches */
} kink;

/* |x - at| / 2 + x, and a second input of no interest */
static qkv_status kink_value(void *context, double *value)
{
    const kink *k = context;
    *value = fabs(k->x[0] - k->at) / 2 + k->x[0] + sin(k->x[1]);
    return QKV_OK;
}

static uint64_t kink_branch(void *context)
{
    const kink *k = context;
    return k->x[0] > k->at;
}

static void a_kink_is_named_with_both_slopes(void **state)
{
    (void)state;
    for (int told = 0; told < 2; told++)
        for (int claim = 0; claim < 3; claim++) {
            kink k = {.x = {0.7, 0.2}, .gradient = {0.5 + 0.5 * claim, cos(0.2)}, .at = 0.7};
            const qkv_check_input x = {.x = k.x, .gradient = k.gradient, .n = 2};
            const qkv_check_options options = {.branches = told ? kink_branch : NULL};
            qkv_check_report report;
            assert_status(qkv_gradcheck(kink_value, &k, &x, 1, &options, &report), QKV_E_GRADIENT);
            assert_int_equal(report.kinks, 1);
            assert_int_equal(report.inconclusive, 1);
            assert_int_equal(report.failed, 0);
            assert_close(report.left, 0.5, 1e-3);
            assert_close(report.right, 1.5, 1e-3);
            assert_message("has a kink there, slope 0.5 on the left, 1.5 on the right");
        }
}

static void steps_do_not_cross_a_branch_that_is_told(void **state)
{
    (void)state;
    kink k = {.x = {0.701, 0.2}, .gradient = {1.5, cos(0.2)}, .at = 0.7};
    const qkv_check_input x = {.x = k.x, .gradient = k.gradient, .n = 2};
    const qkv_check_options options = {.branches = kink_branch};
    qkv_check_report report;
    assert_ok(qkv_gradcheck(kink_value, &k, &x, 1, &options, &report));
    k.gradient[0] = 0.5;
    assert_status(qkv_gradcheck(kink_value, &k, &x, 1, &options, &report), QKV_E_GRADIENT);
    assert_int_equal(report.failed, 1);
    assert_int_equal(report.kinks, 0);
}

/* ---- Adjoints --------------------------------------------------------------------------------
 */

enum { IN = 5, OUT = 3 };

typedef struct matrix {
    double a[OUT][IN], by; /* the adjoint's error */
    double u[IN], v[OUT];  /* of the last products */
} matrix;

static qkv_status forward(void *context, const double *u, double *ju)
{
    matrix *m = context;
    memcpy(m->u, u, sizeof m->u);
    for (int i = 0; i < OUT; i++) {
        ju[i] = 0;
        for (int j = 0; j < IN; j++) ju[i] += m->a[i][j] * u[j];
    }
    return QKV_OK;
}

static qkv_status reverse(void *context, const double *v, double *jv)
{
    matrix *m = context;
    memcpy(m->v, v, sizeof m->v);
    for (int j = 0; j < IN; j++) {
        jv[j] = 0;
        for (int i = 0; i < OUT; i++)
            jv[j] += m->a[i][j] * v[i] * (i == 1 && j == 3 ? 1 + m->by : 1);
    }
    return QKV_OK;
}

static qkv_status broken(void *context, const double *u, double *ju)
{
    (void)context, (void)u, (void)ju;
    return QKV_E_STATE;
}

static void adjoints_agree_to_rounding_or_not_at_all(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        matrix m = {.by = 0};
        fill_normal(m.a[0], OUT * IN, seed);
        m.a[1][3] = 1;
        qkv_check_map map = {IN, OUT, forward, reverse, &m};
        qkv_check_report report;
        assert_ok(qkv_gradcheck_adjoint(&map, 0, 0, seed, &report));
        assert_int_equal(report.checked, 10);
        m.by = 1e-10;
        assert_status(qkv_gradcheck_adjoint(&map, 0, 0, seed, &report), QKV_E_GRADIENT);
        assert_true(report.error > report.bound);
        assert_message("disagree");
        m.by = NAN;
        assert_status(qkv_gradcheck_adjoint(&map, 0, 0, seed, &report), QKV_E_GRADIENT);
    }
    matrix zero = {.by = 0};
    qkv_check_map map = {IN, OUT, forward, reverse, &zero};
    qkv_check_report report;
    assert_status(qkv_gradcheck_adjoint(&map, 0, 3, 1, &report), QKV_E_GRADIENT);
    assert_true(report.vacuous);
    map.jvp = broken;
    assert_status(qkv_gradcheck_adjoint(&map, 0, 3, 1, NULL), QKV_E_STATE);
    map.jvp = NULL;
    assert_status(qkv_gradcheck_adjoint(&map, 0, 3, 1, NULL), QKV_E_ARG);
    assert_status(qkv_gradcheck_adjoint(NULL, 0, 3, 1, NULL), QKV_E_ARG);
    map.jvp = forward;
    assert_status(qkv_gradcheck_adjoint(&map, 0, -3, 1, NULL), QKV_E_ARG);
}

static void large_maps_and_failing_ones_are_told(void **state)
{
    (void)state;
    matrix m = {.a = {{1e160, -2e160, 3e155, 1e160, 0}, {1e160, 0, 0, 1e160, 1e160}}, .by = -2};
    qkv_check_map map = {IN, OUT, forward, reverse, &m};
    qkv_check_report report;
    assert_status(qkv_gradcheck_adjoint(&map, 0, 0, 1, &report), QKV_E_GRADIENT);
    assert_int_equal(report.failed, 10);
    m.by = 0;
    assert_ok(qkv_gradcheck_adjoint(&map, 0, 0, 1, &report));
    assert_status(qkv_gradcheck_adjoint(&map, INFINITY, 0, 1, &report), QKV_E_ARG);
    map.vjp = broken;
    assert_status(qkv_gradcheck_adjoint(&map, 0, 0, 1, &report), QKV_E_STATE);
    assert_message("vjp returned QKV_E_STATE at pair 0");
    assert_string_equal(report.message, qkv_last_error());
}

static double dot(const double *x, const double *y, size_t n, double *sizes)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] * y[i], *sizes += fabs(x[i] * y[i]);
    *sizes += norm(x, n) * norm(y, n);
    return sum;
}

/* By the formula of gradcheck.h, for one pair; exactly equal products are one, too. */
static void an_adjoint_is_allowed_the_error_documented(void **state)
{
    (void)state;
    for (int off = 0; off < 2; off++) {
        matrix m = {.by = off};
        m.a[1][3] = 1;
        if (off) fill_normal(m.a[0], OUT * IN, 1);
        const qkv_check_map map = {IN, OUT, forward, reverse, &m};
        qkv_check_report report;
        qkv_gradcheck_adjoint(&map, 0x1p-30, 1, 1, &report);
        double ju[OUT], jv[IN], size = 0;
        forward(&m, m.u, ju);
        reverse(&m, m.v, jv);
        double v_ju = dot(m.v, ju, OUT, &size), u_jv = dot(m.u, jv, IN, &size);
        assert_int_equal(report.checked, 1);
        assert_int_equal(report.failed, off);
        assert_close(report.numeric, v_ju, 1e-14);
        assert_close(report.analytic, u_jv, 1e-14);
        assert_close(report.error, fabs(v_ju - u_jv), 1e-14);
        assert_close(report.bound, 0x1p-24 * size, 0x1p-60 * size);
    }
}

static void the_worst_pair_is_the_one_reported(void **state)
{
    (void)state;
    matrix m = {.by = 0x1p-30};
    fill_normal(m.a[0], OUT * IN, 1);
    const qkv_check_map map = {IN, OUT, forward, reverse, &m};
    double worst = 0;
    for (int pairs = 1; pairs <= 20; pairs++) { /* u and v stay those of the last */
        double ju[OUT], jv[IN], size = 0;
        qkv_check_report report;
        assert_ok(qkv_gradcheck_adjoint(&map, 0x1p-30, pairs, 1, &report));
        forward(&m, m.u, ju);
        reverse(&m, m.v, jv);
        double error = fabs(dot(m.v, ju, OUT, &size) - dot(m.u, jv, IN, &size));
        worst = fmax(worst, error / (0x1p-24 * size));
        assert_close(report.error / report.bound, worst, 1e-4 * worst);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directions_pass_what_is_right_and_certify_it),
        cmocka_unit_test(the_certificate_holds),
        cmocka_unit_test(one_wrong_element_among_thousands_is_seen_by_directions),
        cmocka_unit_test(directions_stay_within_the_domain),
        cmocka_unit_test(a_step_along_a_direction_is_as_long_as_one_of_an_element),
        cmocka_unit_test(functions_of_floats_are_checked_and_called_weak),
        cmocka_unit_test(a_kink_is_named_with_both_slopes),
        cmocka_unit_test(steps_do_not_cross_a_branch_that_is_told),
        cmocka_unit_test(adjoints_agree_to_rounding_or_not_at_all),
        cmocka_unit_test(large_maps_and_failing_ones_are_told),
        cmocka_unit_test(an_adjoint_is_allowed_the_error_documented),
        cmocka_unit_test(the_worst_pair_is_the_one_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
