/* test_gradcheck.c - the checker passes what is right and nothing else. */
#include "support.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/gradcheck.h"

/* ---- A random smooth function of n numbers:
 *     f(x) = offset + sum_j c_j g_j(u_j),  u_j = w_j'x / sqrt(n) + b_j ---------------------------
 */

enum { N = 6, TERMS = 12 };

typedef struct smooth {
    double x[N], w[TERMS * N], b[TERMS], c[TERMS], offset, gradient[N];
} smooth;

static double shape(int kind, double u, double *derivative)
{
    double y;
    switch (kind % 7) {
    case 0:
        return *derivative = cos(u), sin(u);
    case 1:
        return y = exp(-u * u / 2), *derivative = -u * y, y;
    case 2:
        return y = tanh(u), *derivative = 1 - y * y, y;
    case 3:
        return *derivative = 2 * u, u * u;
    case 4:
        return *derivative = 3 * u * u, u * u * u;
    case 5:
        return y = 1 / (1 + u * u), *derivative = -2 * u * y * y, y;
    default:
        return y = exp(u / 3), *derivative = y / 3, y;
    }
}

static double evaluate(const smooth *s, double *gradient)
{
    double f = s->offset;
    if (gradient) memset(gradient, 0, N * sizeof *gradient);
    for (int j = 0; j < TERMS; j++) {
        double u = s->b[j], slope;
        for (int i = 0; i < N; i++) u += s->w[j * N + i] * s->x[i] / sqrt(N);
        f += s->c[j] * shape(j, u, &slope);
        if (!gradient) continue;
        for (int i = 0; i < N; i++) gradient[i] += s->c[j] * slope * s->w[j * N + i] / sqrt(N);
    }
    return f;
}

static qkv_status smooth_function(void *context, double *value)
{
    *value = evaluate(context, NULL);
    return QKV_OK;
}

static smooth random_smooth(uint64_t seed)
{
    static const double offsets[] = {0, 0, 1, -1e3, 1e6};
    smooth s;
    fill_normal(s.x, N, 5 * seed);
    fill_normal(s.w, TERMS * N, 5 * seed + 1);
    fill_normal(s.b, TERMS, 5 * seed + 2);
    fill_normal(s.c, TERMS, 5 * seed + 3);
    s.offset = offsets[seed % 5];
    evaluate(&s, s.gradient);
    return s;
}

static qkv_status check_smooth(smooth *s, const double *gradient, qkv_check_report *report)
{
    qkv_check_input input = {.name = "x", .x = s->x, .gradient = gradient, .n = N};
    return qkv_gradcheck(smooth_function, s, &input, 1, NULL, report);
}

static void smooth_functions_raise_no_false_alarm(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 3000; seed++) {
        smooth s = random_smooth(seed), before = s;
        qkv_check_report report;
        assert_ok(check_smooth(&s, s.gradient, &report));
        assert_true(report.passed);
        assert_int_equal(report.checked, N);
        assert_memory_equal(&s, &before, sizeof s);
    }
}

/* The largest share of its bound, each element asked alone. */
static void the_worst_element_is_the_one_reported(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        smooth s = random_smooth(seed);
        qkv_check_report all, one;
        double worst = 0;
        size_t index = 0;
        assert_ok(check_smooth(&s, s.gradient, &all));
        for (size_t i = 0; i < N; i++) {
            qkv_check_input input = {.x = &s.x[i], .gradient = &s.gradient[i], .n = 1};
            if (qkv_gradcheck(smooth_function, &s, &input, 1, NULL, &one)) break; /* too small */
            if (one.error / one.bound > worst) worst = one.error / one.bound, index = i;
        }
        if (one.passed) assert_int_equal(all.worst_index, index);
    }
}

/* An error of 1e-5 relative, in an element that is at least a tenth of its tensor's largest. */
static void relative_errors_of_1e_5_are_all_caught(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 2000; seed++) {
        smooth s = random_smooth(seed);
        double planted[N], largest = 0;
        for (size_t i = 0; i < N; i++) largest = fmax(largest, fabs(s.gradient[i]));
        size_t i = seed % N;
        while (fabs(s.gradient[i]) < 0.1 * largest) i = (i + 1) % N;
        memcpy(planted, s.gradient, sizeof planted);
        planted[i] *= seed & 8 ? 1 + 1e-5 : 1 - 1e-5;
        qkv_check_report report;
        assert_status(check_smooth(&s, planted, &report), QKV_E_GRADIENT);
        assert_int_equal(report.failed, 1);
        assert_string_equal(report.worst_input, "x");
        assert_int_equal(report.worst_index, i);
        assert_close(report.analytic, planted[i], 0);
        assert_close(report.numeric, s.gradient[i], 2e-6 * largest);
    }
}

static void gross_errors_are_caught(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        smooth s = random_smooth(seed);
        double sign[N], twice[N], shifted[N], missing[N] = {0}, nan[N], infinite[N];
        for (int i = 0; i < N; i++) {
            sign[i] = -s.gradient[i];
            twice[i] = 2 * s.gradient[i];
            shifted[i] = s.gradient[(i + 1) % N];
            nan[i] = infinite[i] = s.gradient[i];
        }
        nan[3] = NAN;
        infinite[4] = -INFINITY;
        const double *wrong[] = {sign, twice, shifted, missing, nan, infinite};
        for (int k = 0; k < 6; k++) assert_status(check_smooth(&s, wrong[k], NULL), QKV_E_GRADIENT);
        qkv_check_report report;
        assert_status(check_smooth(&s, nan, &report), QKV_E_GRADIENT);
        assert_int_equal(report.worst_index, 3);
        assert_true(isnan(report.analytic));
    }
}

/* ---- Small functions, one subject each ---------------------------------------------------------
 */

typedef struct one {
    double (*f)(const double *x);
    double x[9], gradient[9];
    size_t n, calls, fail_at; /* fails at call number fail_at, if not 0 */
    bool wanders;             /* adds its number of calls: no function of x */
    double offset;
} one;

static qkv_status one_function(void *context, double *value)
{
    one *o = context;
    if (++o->calls == o->fail_at) return QKV_E_STATE;
    *value = o->f(o->x) + o->offset + (o->wanders ? (double)o->calls : 0);
    return QKV_OK;
}

static qkv_status check_one(one *o, qkv_check_input domain, const qkv_check_options *options,
                            qkv_check_report *report)
{
    domain.x = o->x;
    domain.gradient = o->gradient;
    domain.n = o->n;
    double before[9];
    memcpy(before, o->x, sizeof before);
    qkv_status status = qkv_gradcheck(one_function, o, &domain, 1, options, report);
    assert_memory_equal(o->x, before, sizeof before);
    return status;
}

static double bilinear(const double *x) /* [1 2] X [3 5]', X 2 x 2 */
{
    return 3 * x[0] + 5 * x[1] + 6 * x[2] + 10 * x[3];
}

static void a_transposed_gradient_is_caught(void **state)
{
    (void)state;
    one o = {.f = bilinear, .x = {1, 2, 3, 4}, .gradient = {3, 6, 5, 10}, .n = 4};
    qkv_check_report report;
    assert_status(check_one(&o, (qkv_check_input){.name = "weight"}, NULL, &report),
                  QKV_E_GRADIENT);
    assert_int_equal(report.failed, 2);
    assert_true(report.worst_index == 1 || report.worst_index == 2);
    assert_message(report.worst_index == 1 ? "weight[1]" : "weight[2]");
    assert_string_equal(qkv_last_error(), report.message);
    o.gradient[1] = 5, o.gradient[2] = 6;
    assert_ok(check_one(&o, (qkv_check_input){0}, NULL, &report));
    assert_string_equal(report.worst_input, "x0");
}

static double sum_of_fourth_powers(const double *x)
{
    return pow(x[0], 4) + pow(x[1], 4);
}

static void gradients_near_zero_beside_a_large_one_pass(void **state)
{
    (void)state;
    one o = {.f = sum_of_fourth_powers, .x = {1e-4, 1}, .gradient = {4e-12, 4}, .n = 2};
    assert_ok(check_one(&o, (qkv_check_input){0}, NULL, NULL));
    o.gradient[0] = 1e-7;
    assert_status(check_one(&o, (qkv_check_input){0}, NULL, NULL), QKV_E_GRADIENT);
}

static double constant(const double *x)
{
    return 0 * x[0] + 3;
}

static double sum_of_a_softmax(const double *x)
{
    double top = fmax(x[0], x[1]), a = exp(x[0] - top), b = exp(x[1] - top), sum = a + b;
    return 1e3 * (a / sum + b / sum);
}

static void a_check_that_cannot_fail_is_vacuous(void **state)
{
    (void)state;
    qkv_check_report report;
    one o = {.f = constant, .x = {2}, .n = 1};
    assert_status(check_one(&o, (qkv_check_input){0}, NULL, &report), QKV_E_GRADIENT);
    assert_true(report.vacuous);
    one rows = {.f = sum_of_a_softmax, .x = {0.3, -0.9}, .gradient = {1e-17, -1e-17}, .n = 2};
    assert_status(check_one(&rows, (qkv_check_input){0}, NULL, &report), QKV_E_GRADIENT);
    assert_true(report.vacuous);
    assert_message("nothing is proven");
    assert_message("if f is flat there, declare it (qkv_check_zero)");
    assert_status(qkv_gradcheck(one_function, &o, NULL, 0, NULL, &report), QKV_E_GRADIENT);
    assert_true(report.vacuous);
}

static void a_gradient_declared_zero_is_exactly_that_or_to_rounding(void **state)
{
    (void)state;
    const qkv_check_input exact = {.zero = QKV_ZERO_EXACT}, rounded = {.zero = QKV_ZERO_ROUNDED};
    one o = {.f = constant, .x = {2}, .n = 1};
    assert_ok(check_one(&o, exact, NULL, NULL));
    assert_ok(check_one(&o, rounded, NULL, NULL));
    one rows = {.f = sum_of_a_softmax, .x = {0.3, -0.9}, .n = 2};
    assert_ok(check_one(&rows, exact, NULL, NULL));
    rows.gradient[1] = 1e-17;
    assert_status(check_one(&rows, exact, NULL, NULL), QKV_E_GRADIENT);
    assert_ok(check_one(&rows, rounded, NULL, NULL));
    rows.gradient[1] = 1e-6;
    assert_status(check_one(&rows, rounded, NULL, NULL), QKV_E_GRADIENT);
    one wrong = {.f = bilinear, .x = {1, 2, 3, 4}, .n = 4};
    assert_status(check_one(&wrong, exact, NULL, NULL), QKV_E_GRADIENT);
    one right = {.f = bilinear, .x = {1, 2, 3, 4}, .gradient = {3, 5, 6, 10}, .n = 4};
    assert_status(check_one(&right, rounded, NULL, NULL), QKV_E_GRADIENT);
    one nothing = {.f = constant, .x = {1}, .n = 1};
    nothing.offset = -constant(nothing.x); /* 0, without an error */
    assert_ok(check_one(&nothing, exact, NULL, NULL));
}

static void an_input_without_effect_is_vacuous_beside_one_with(void **state)
{
    (void)state;
    one o = {.f = bilinear, .x = {1, 2, 3, 4, 5}, .gradient = {3, 5, 6, 10}, .n = 4};
    qkv_check_input inputs[] = {
        {.x = o.x, .gradient = o.gradient, .n = 4},
        {.name = "unused", .x = o.x + 4, .gradient = o.gradient + 4, .n = 1}};
    qkv_check_report report;
    assert_status(qkv_gradcheck(one_function, &o, inputs, 2, NULL, &report), QKV_E_GRADIENT);
    assert_true(report.vacuous && !report.failed && !report.inconclusive);
    assert_string_equal(report.worst_input, "unused");
    assert_message("nothing is proven");
    o.gradient[4] = 1e-17; /* dust */
    assert_status(qkv_gradcheck(one_function, &o, inputs, 2, NULL, &report), QKV_E_GRADIENT);
    assert_true(report.vacuous && !report.failed && !report.inconclusive);
    inputs[1].zero = QKV_ZERO_ROUNDED;
    assert_ok(qkv_gradcheck(one_function, &o, inputs, 2, NULL, NULL));
    for (int directions = 0; directions <= 4; directions += 4) {
        const qkv_check_options options = {.directions = directions};
        inputs[1].zero = QKV_ZERO_EXACT;
        o.gradient[4] = 0;
        assert_ok(qkv_gradcheck(one_function, &o, inputs, 2, &options, NULL));
        inputs[1].zero = QKV_ZERO_ROUNDED;
        o.gradient[4] = 1e-9;
        assert_status(qkv_gradcheck(one_function, &o, inputs, 2, &options, &report),
                      QKV_E_GRADIENT);
        assert_string_equal(report.worst_input, "unused");
    }
}

static double sine(const double *x)
{
    return sin(x[0]);
}

static void a_large_constant_in_f_raises_no_alarm_and_hides_no_error(void **state)
{
    (void)state;
    static const double offsets[] = {1e3, -1e5, 1e6, -1e7, 1e7};
    for (int k = 0; k < 5; k++)
        for (int i = 0; i < 50; i++) {
            one o = {.f = sine, .x = {0.02 * i}, .gradient = {cos(0.02 * i)}, .n = 1};
            o.offset = offsets[k];
            assert_ok(check_one(&o, (qkv_check_input){0}, NULL, NULL));
            o.gradient[0] *= 1 + 1e-5;
            assert_status(check_one(&o, (qkv_check_input){0}, NULL, NULL), QKV_E_GRADIENT);
        }
    one hopeless = {.f = sine, .x = {1}, .gradient = {cos(1)}, .n = 1, .offset = 1e14};
    qkv_check_report report;
    assert_status(check_one(&hopeless, (qkv_check_input){0}, NULL, &report), QKV_E_GRADIENT);
    assert_int_equal(report.failed, 0);
    assert_message("nothing is proven");
    assert_message("f is noisy");
    assert_true(report.noise > 1e-3 && report.noise < 1e-1);
}

/* Rounding errors of about 1e-12: the sine lost among large numbers. */
static double noisy_sine(const double *x)
{
    volatile double large = sin(x[0]) + 1e4;
    return large - 1e4;
}

static void the_noise_of_f_is_measured(void **state)
{
    (void)state;
    for (int i = 1; i <= 500; i++) {
        one o = {.f = noisy_sine, .x = {0.003 * i}, .gradient = {cos(0.003 * i)}, .n = 1};
        assert_ok(check_one(&o, (qkv_check_input){0}, NULL, NULL));
        o.gradient[0] *= 1 - 1e-5;
        assert_status(check_one(&o, (qkv_check_input){0}, NULL, NULL), QKV_E_GRADIENT);
    }
}

/* |R - R2| = 4 a h_2^4 + 84 c h_2^6 is 0 here while R is off by 64 c h_2^6. */
static double accident(const double *x)
{
    double h2 = pow(0x1p-52, 1.0 / 7) / 4, c = 1e6, a = -21 * c * h2 * h2;
    return x[0] + a * pow(x[0], 5) + c * pow(x[0], 7);
}

static void an_estimate_small_by_accident_raises_no_alarm(void **state)
{
    (void)state;
    one o = {.f = accident, .x = {0}, .gradient = {1}, .n = 1};
    assert_ok(check_one(&o, (qkv_check_input){0}, NULL, NULL));
    o.gradient[0] += 1e-8;
    assert_status(check_one(&o, (qkv_check_input){0}, NULL, NULL), QKV_E_GRADIENT);
}

static double bent_beside_steep(const double *x)
{
    return 1e-3 * x[0] + 2.8e4 * pow(x[0] - 1, 5) + x[1];
}

static void a_small_gradient_beside_a_large_one_is_still_resolved(void **state)
{
    (void)state;
    one o = {.f = bent_beside_steep, .x = {1, 1}, .gradient = {1e-3, 1}, .n = 2};
    assert_ok(check_one(&o, (qkv_check_input){0}, NULL, NULL));
    o.gradient[0] *= 1 + 1e-4;
    assert_status(check_one(&o, (qkv_check_input){0}, NULL, NULL), QKV_E_GRADIENT);
}

static double millionths(const double *x)
{
    return rint(1e6 * sin(x[0])) / 1e6;
}

static void a_coarsely_rounded_f_is_undecided_not_wrong(void **state)
{
    (void)state;
    for (int i = 1; i <= 50; i++) {
        one o = {.f = millionths, .x = {0.02 * i}, .gradient = {cos(0.02 * i)}, .n = 1};
        qkv_check_report report;
        assert_status(check_one(&o, (qkv_check_input){0}, NULL, &report), QKV_E_GRADIENT);
        assert_int_equal(report.inconclusive, 1);
        assert_int_equal(report.failed, 0);
    }
}

static double logarithm(const double *x)
{
    return log(x[0]);
}

static double kernel(const double *x) /* of a bandwidth */
{
    return exp(-0.5 * pow(0.004 / x[0], 2));
}

/* A function that must never be asked outside (0, 0.01). */
static double fenced_logarithm(const double *x)
{
    assert_true(x[0] > 0 && x[0] < 0.01);
    return log(x[0]);
}

static void tiny_domains_are_respected_declared_or_not(void **state)
{
    (void)state;
    const qkv_check_input undeclared = {0}, positive = {.lower = 0, .upper = INFINITY},
                          scaled = {.scale = 0.003}, fence = {.lower = 0, .upper = 0.01};
    const qkv_check_input domains[] = {undeclared, positive, scaled};
    double u = pow(0.004 / 0.003, 2);
    for (int k = 0; k < 3; k++) {
        one o = {.f = logarithm, .x = {0.003}, .gradient = {1 / 0.003}, .n = 1};
        one h = {.f = kernel, .x = {0.003}, .gradient = {exp(-0.5 * u) * u / 0.003}, .n = 1};
        assert_ok(check_one(&o, domains[k], NULL, NULL));
        assert_ok(check_one(&h, domains[k], NULL, NULL));
        o.gradient[0] *= 1 + 1e-5;
        h.gradient[0] *= 1 + 1e-5;
        assert_status(check_one(&o, domains[k], NULL, NULL), QKV_E_GRADIENT);
        assert_status(check_one(&h, domains[k], NULL, NULL), QKV_E_GRADIENT);
    }
    one inside = {.f = fenced_logarithm, .x = {0.003, 0}, .gradient = {1 / 0.003}, .n = 1};
    assert_ok(check_one(&inside, fence, NULL, NULL));
    inside.x[0] = 0.01;
    assert_status(check_one(&inside, fence, NULL, NULL), QKV_E_ARG);
    assert_message("x0[0]");
}

static double kinked(const double *x)
{
    return fabs(x[0]) + x[1];
}

static void a_kink_within_the_first_step_is_stepped_around(void **state)
{
    (void)state;
    one o = {.f = kinked, .x = {1e-3, 1}, .gradient = {1, 1}, .n = 2};
    assert_ok(check_one(&o, (qkv_check_input){0}, NULL, NULL));
    o.gradient[0] = -1;
    assert_status(check_one(&o, (qkv_check_input){0}, NULL, NULL), QKV_E_GRADIENT);
}

static double discontinuous(const double *x)
{
    return x[0] >= 1 ? 1 : 0;
}

static void what_cannot_be_decided_fails(void **state)
{
    (void)state;
    one o = {.f = discontinuous, .x = {1}, .gradient = {1}, .n = 1};
    qkv_check_report report;
    assert_status(check_one(&o, (qkv_check_input){.name = "step"}, NULL, &report), QKV_E_GRADIENT);
    assert_false(report.passed);
    assert_int_equal(report.inconclusive, 1);
    assert_message("undecided");
    assert_message("step[0]");
}

static double nan_above_one(const double *x)
{
    return x[0] > 1 ? NAN : x[0];
}

static double always_nan(const double *x)
{
    return NAN * x[0];
}

static void a_nan_from_f_never_passes(void **state)
{
    (void)state;
    one o = {.f = nan_above_one, .x = {1}, .gradient = {1}, .n = 1};
    assert_status(check_one(&o, (qkv_check_input){0}, NULL, NULL), QKV_E_GRADIENT);
    o.gradient[0] = NAN;
    assert_status(check_one(&o, (qkv_check_input){0}, NULL, NULL), QKV_E_GRADIENT);
    o.f = always_nan;
    assert_status(check_one(&o, (qkv_check_input){0}, NULL, NULL), QKV_E_GRADIENT);
    assert_message("nan");
}

static void f_failing_anywhere_ends_the_check_with_x_restored(void **state)
{
    (void)state;
    one o = {.f = bilinear, .x = {1, 2, 3, 4}, .gradient = {3, 5, 6, 10}, .n = 4};
    assert_ok(check_one(&o, (qkv_check_input){0}, NULL, NULL));
    size_t calls = o.calls;
    assert_true(calls < 30 * 4);
    for (o.fail_at = 1; o.fail_at <= calls; o.fail_at++) {
        o.calls = 0;
        qkv_check_report report;
        assert_status(check_one(&o, (qkv_check_input){.name = "w"}, NULL, &report), QKV_E_STATE);
        assert_false(report.passed);
        assert_message("QKV_E_STATE");
    }
}

/* Where f was asked. */
typedef struct trace {
    double x, at[64];
    size_t calls;
} trace;

static qkv_status traced_sine(void *context, double *value)
{
    trace *t = context;
    assert_in_range(t->calls, 0, 63);
    t->at[t->calls++] = t->x;
    *value = sin(t->x);
    return QKV_OK;
}

/* R and E by the formulas of gradcheck.h. The noise is less than a rounding error of f or x. */
static void steps_estimate_and_error_are_those_documented(void **state)
{
    (void)state;
    static const double scales[] = {0, 0.125}, xs[] = {0.7, -3.1};
    for (int i = 0; i < 4; i++) {
        double x = xs[i & 1], scale = scales[i / 2], gradient = cos(x), d[3], largest = 0, far = 0;
        trace t = {.x = x};
        qkv_check_input in = {.x = &t.x, .gradient = &gradient, .n = 1, .scale = scale};
        qkv_check_report report;
        assert_ok(qkv_gradcheck(traced_sine, &t, &in, 1, NULL, &report));
        if (scale == 0) scale = fmax(1, fabs(x));
        double h = pow(DBL_EPSILON, 1.0 / 7) * scale;
        for (size_t k = 0; k < t.calls; k++) {
            far = fmax(far, fabs(t.at[k] - x));
            largest = fmax(largest, fabs(sin(t.at[k])));
        }
        assert_close(far, h, 1e-12 * h);
        for (int k = 0; k < 3; k++) {
            volatile double above = x + ldexp(h, -k), below = x - ldexp(h, -k);
            d[k] = (sin(above) - sin(below)) / (above - below);
        }
        double r1 = (4 * d[1] - d[0]) / 3, r2 = (4 * d[2] - d[1]) / 3, r = (16 * r2 - r1) / 15;
        double least = fabs(r - r2) + DBL_EPSILON * largest * (1 / (h / 4) + 4 / scale);
        double noise = DBL_EPSILON * (largest + fabs(x * gradient));
        assert_close(report.numeric, r, 1e-14);
        assert_close(report.error, fabs(gradient - r), 1e-14);
        assert_null(strstr(report.message, "the whole")); /* that is for directions to say */
        assert_true(report.bound >= 4 * least * (1 - 1e-3));
        assert_true(report.bound <= 4 * (least + 8 * noise / (h / 4)));
    }
}

static qkv_status its_input(void *x, double *value)
{
    *value = *(double *)x;
    return QKV_OK;
}

/* At 0 nothing is rounded. What remains of E is what the last bit of an f of that size may hide. */
static void the_error_of_an_exact_f_is_that_of_rounding(void **state)
{
    (void)state;
    static const double scales[] = {0.125, 8};
    for (int i = 0; i < 2; i++) {
        double x = 0, gradient = 1, h = pow(DBL_EPSILON, 1.0 / 7) * scales[i];
        qkv_check_input in = {.x = &x, .gradient = &gradient, .n = 1, .scale = scales[i]};
        qkv_check_report report;
        assert_ok(qkv_gradcheck(its_input, &x, &in, 1, NULL, &report));
        double size = scales[i], bound = 4 * DBL_EPSILON * (size / (h / 4) + 4 * size / scales[i]);
        assert_close(report.bound, bound, 1e-9 * bound);
    }
}

/* As one that fills a cache would be. */
static qkv_status different_at_first(void *context, double *value)
{
    one *o = context;
    *value = o->f(o->x) + (o->calls++ == 0);
    return QKV_OK;
}

static void f_must_be_a_function_of_its_inputs(void **state)
{
    (void)state;
    one o = {.f = bilinear, .x = {1, 2, 3, 4}, .gradient = {3, 5, 6, 10}, .n = 4, .wanders = true};
    assert_status(check_one(&o, (qkv_check_input){0}, NULL, NULL), QKV_E_GRADIENT);
    assert_message("not a function");
    qkv_check_input in = {.x = o.x, .gradient = o.gradient, .n = 4};
    o.calls = 0;
    assert_status(qkv_gradcheck(different_at_first, &o, &in, 1, NULL, NULL), QKV_E_GRADIENT);
    assert_message("not a function");
    assert_int_equal(o.calls, 2); /* before any other question */
}

static void elements_are_sampled_on_request(void **state)
{
    (void)state;
    one o = {.f = bilinear, .x = {1, 2, 3, 4}, .gradient = {3, 5, 6, 11}, .n = 4};
    int caught = 0;
    for (uint64_t seed = 0; seed < 200; seed++) {
        qkv_check_report report;
        const qkv_check_options two = {.max_elements = 2, .seed = seed};
        caught += check_one(&o, (qkv_check_input){0}, &two, &report) == QKV_E_GRADIENT;
        assert_int_equal(report.checked, 2);
    }
    assert_in_range(caught, 75, 125); /* the wrong one of four is in half of the pairs */
}

static void wrong_arguments_are_named(void **state)
{
    (void)state;
    one o = {.f = bilinear, .x = {1, 2, NAN, 4}, .gradient = {3, 5, 6, 10}, .n = 4};
    assert_status(check_one(&o, (qkv_check_input){.name = "key"}, NULL, NULL), QKV_E_ARG);
    assert_message("key[2]");
    o.x[2] = 3;
    assert_status(check_one(&o, (qkv_check_input){.scale = -1}, NULL, NULL), QKV_E_ARG);
    assert_message("scale");
    assert_status(check_one(&o, (qkv_check_input){.lower = 2, .upper = 2}, NULL, NULL), QKV_E_ARG);
    assert_message("domain");
    static const double no_probabilities[] = {-0.1, 1, 1.5, NAN};
    for (int i = 0; i < 4; i++) {
        const qkv_check_options options = {.directions = 2, .delta = no_probabilities[i]};
        assert_status(check_one(&o, (qkv_check_input){0}, &options, NULL), QKV_E_ARG);
        assert_message("delta");
    }
    qkv_check_input missing = {.name = "bias", .x = o.x, .n = 4};
    assert_status(qkv_gradcheck(one_function, &o, &missing, 1, NULL, NULL), QKV_E_ARG);
    assert_message("bias has 4 elements but its gradient is NULL");
    assert_status(qkv_gradcheck(NULL, &o, &missing, 1, NULL, NULL), QKV_E_ARG);
    assert_status(qkv_gradcheck(one_function, &o, NULL, 1, NULL, NULL), QKV_E_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smooth_functions_raise_no_false_alarm),
        cmocka_unit_test(the_worst_element_is_the_one_reported),
        cmocka_unit_test(relative_errors_of_1e_5_are_all_caught),
        cmocka_unit_test(gross_errors_are_caught),
        cmocka_unit_test(a_transposed_gradient_is_caught),
        cmocka_unit_test(gradients_near_zero_beside_a_large_one_pass),
        cmocka_unit_test(a_check_that_cannot_fail_is_vacuous),
        cmocka_unit_test(a_gradient_declared_zero_is_exactly_that_or_to_rounding),
        cmocka_unit_test(an_input_without_effect_is_vacuous_beside_one_with),
        cmocka_unit_test(a_large_constant_in_f_raises_no_alarm_and_hides_no_error),
        cmocka_unit_test(the_noise_of_f_is_measured),
        cmocka_unit_test(an_estimate_small_by_accident_raises_no_alarm),
        cmocka_unit_test(a_small_gradient_beside_a_large_one_is_still_resolved),
        cmocka_unit_test(a_coarsely_rounded_f_is_undecided_not_wrong),
        cmocka_unit_test(tiny_domains_are_respected_declared_or_not),
        cmocka_unit_test(a_kink_within_the_first_step_is_stepped_around),
        cmocka_unit_test(what_cannot_be_decided_fails),
        cmocka_unit_test(a_nan_from_f_never_passes),
        cmocka_unit_test(f_failing_anywhere_ends_the_check_with_x_restored),
        cmocka_unit_test(steps_estimate_and_error_are_those_documented),
        cmocka_unit_test(the_error_of_an_exact_f_is_that_of_rounding),
        cmocka_unit_test(f_must_be_a_function_of_its_inputs),
        cmocka_unit_test(elements_are_sampled_on_request),
        cmocka_unit_test(wrong_arguments_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
