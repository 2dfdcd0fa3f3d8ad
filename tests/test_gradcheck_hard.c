/* test_gradcheck_hard.c - functions that are hard to difference: of several scales at once, noisy,
 * quantised, near kinks, huge. What is right passes or is undecided, never wrong; what is wrong by
 * more than f lets see never passes. */
#include "support.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/gradcheck.h"
#include "src/random.h"

enum { N = 4 };

typedef struct hard {
    double (*f)(const struct hard *h);
    double x[N], gradient[N], size, rate, noise;
    size_t n;
    uint64_t calls;
} hard;

static double noise_at(const hard *h)
{
    uint64_t bits = 0;
    for (int i = 0; i < N; i++) {
        uint64_t word;
        memcpy(&word, &h->x[i], sizeof word);
        bits = qkv_random_bits(bits ^ word, 1, (uint64_t)i);
    }
    return h->noise * (2 * qkv_random_uniform(bits, 2, 0) - 1);
}

static qkv_status hard_value(void *context, double *value)
{
    hard *h = context;
    h->calls++;
    *value = h->f(h) + noise_at(h);
    return QKV_OK;
}

static qkv_status check_hard(hard *h, const qkv_check_options *options, qkv_check_report *report)
{
    const qkv_check_input in = {.name = "x", .x = h->x, .gradient = h->gradient, .n = h->n};
    return qkv_gradcheck(hard_value, h, &in, 1, options, report);
}

static const qkv_check_options elements = {0}, directions = {.directions = 8, .seed = 3},
                               in_float = {.computes_in_float = true};

/* ---- Scales -------------------------------------------------------------------------------- */

static double two_scales(const hard *h)
{
    return h->size * sin(h->x[0]) + sin(h->rate * h->x[1]) / h->rate;
}

/* Over steps that are 25 waves long differences are small, and their estimate of E at times, too.
 * Noise is about 1e-16 size and steps of 1e-2 waves are possible. */
static void small_elements_are_judged_by_their_own_scale(void **state)
{
    (void)state;
    static const double sizes[] = {1, 1e3, 1e5, 1e6, 1e7},
                        errors[] = {1e-6, 1e-4, 1e-3, 3e-3, 3e-2};
    for (int k = 0; k < 5; k++)
        for (double rate = 1; rate < 5000; rate *= 1.03) {
            hard h = {.f = two_scales, .x = {0.7, 0.3}, .n = 2, .size = sizes[k], .rate = rate};
            h.gradient[0] = sizes[k] * cos(0.7);
            h.gradient[1] = cos(rate * 0.3);
            if (fabs(h.gradient[1]) < 0.3) continue;
            assert_ok(check_hard(&h, &elements, NULL));
            assert_ok(check_hard(&h, &directions, NULL));
            h.gradient[1] *= 1 + errors[k];
            qkv_check_report report;
            assert_status(check_hard(&h, &elements, &report), QKV_E_GRADIENT);
            assert_int_equal(report.failed, 1);
            assert_int_equal(report.worst_index, 1);
        }
}

static double wave(const hard *h)
{
    return sin(h->rate * h->x[0]) / h->rate;
}

static void a_millionth_is_always_seen(void **state)
{
    (void)state;
    for (double rate = 1; rate < 3e5; rate *= 1.1) {
        hard h = {.f = wave, .x = {0.3}, .n = 1, .rate = rate, .gradient = {cos(0.3 * rate)}};
        if (fabs(h.gradient[0]) < 0.1) continue;
        qkv_check_report report;
        assert_ok(check_hard(&h, &elements, &report));
        h.gradient[0] *= 1 + 1e-6;
        assert_status(check_hard(&h, &elements, &report), QKV_E_GRADIENT);
        assert_int_equal(report.failed, 1);
    }
}

/* ---- Kinks, branches, bends ---------------------------------------------------------------- */

static double corner(const hard *h)
{
    return h->size * h->x[0] + fabs(h->x[1]) + sin(h->x[1]);
}

static uint64_t side(void *context)
{
    return ((const hard *)context)->x[1] > 0;
}

/* Whatever the noise, the distance and what f tells: the slope is never called wrong, and the one
 * on the other side, or between, never right. */
static void near_a_kink_the_right_slope_is_never_wrong(void **state)
{
    (void)state;
    static const double sizes[] = {1, 1e6}, noises[] = {0, 1e-13, 1e-10};
    for (int told = 0; told < 2; told++)
        for (int k = 0; k < 6; k++)
            for (double x = 1e-2; x > 1e-8; x /= 7) {
                hard h = {.f = corner, .x = {0.7, x}, .n = 2, .size = sizes[k % 2]};
                h.noise = noises[k / 2];
                const qkv_check_options options = {.branches = told ? side : NULL};
                qkv_check_report report;
                double visible = 1e3 * DBL_EPSILON * h.size + 1e2 * h.noise;
                for (int slope = 1; slope >= -1 && x > visible; slope--) {
                    h.gradient[0] = h.size;
                    h.gradient[1] = slope + cos(x);
                    qkv_status status = check_hard(&h, &options, &report);
                    if (slope == 1) assert_int_equal(report.failed, 0);
                    if (slope == 1 && h.noise == 0) assert_ok(status);
                    if (slope < 1) assert_status(status, QKV_E_GRADIENT);
                }
            }
}

static double bent(const hard *h)
{
    double x = h->x[0];
    return (x > 0 ? x * x : -x * x / 2) + h->x[1];
}

/* Nearer than 1e-8 the slopes on both sides differ by what the noise of f leaves of them. */
static void a_second_derivative_that_jumps_is_no_error(void **state)
{
    (void)state;
    for (double x = 1e-2; x > 1e-8; x /= 3)
        for (int sign = -1; sign <= 1; sign++) {
            hard h = {.f = bent, .x = {sign * x, 1}, .n = 2};
            h.gradient[0] = sign > 0 ? 2 * x : sign < 0 ? x : 0;
            h.gradient[1] = 1;
            assert_ok(check_hard(&h, &elements, NULL));
            h.gradient[0] += 1e-6;
            assert_status(check_hard(&h, &elements, NULL), QKV_E_GRADIENT);
        }
}

/* ---- Where f is zero, large or noisy ------------------------------------------------------- */

static double saturated(const hard *h)
{
    return 1 / (1 + exp(-h->x[0])) - 1 + h->x[1];
}

static double swallowed(const hard *h)
{
    volatile double large = 1000 + 1e-13 * sin(h->x[0]);
    return large - 1000 + h->x[1];
}

/* f is 0, its terms are not. */
static void what_cancels_in_f_is_not_wrong(void **state)
{
    (void)state;
    hard h = {.f = saturated, .x = {38, 0}, .gradient = {exp(-38), 1}, .n = 2};
    assert_ok(check_hard(&h, &elements, NULL));
    assert_ok(check_hard(&h, &directions, NULL));
    h.gradient[0] = 1e-9;
    assert_status(check_hard(&h, &elements, NULL), QKV_E_GRADIENT);
    hard s = {.f = swallowed, .x = {0.2, 0}, .gradient = {1e-13 * cos(0.2), 1}, .n = 2};
    assert_ok(check_hard(&s, &elements, NULL));
    assert_ok(check_hard(&s, &directions, NULL));
}

/* Terms of size 1 whose sum is 4e-6: neither f nor its gradient shows them, but its last bit. */
static double steps_up_and_down(const hard *h)
{
    return erf(h->x[0]) - erf(h->x[1]) + erf(h->x[2]) - erf(h->x[3]);
}

static void what_lies_below_the_last_bit_of_f_is_not_wrong(void **state)
{
    (void)state;
    for (int k = 0; k < 60; k++) {
        hard h = {.f = steps_up_and_down, .x = {5.4 + 0.01 * k, 3.3, 7, 5.8}, .n = N};
        for (int i = 0; i < N; i++)
            h.gradient[i] = (i % 2 ? -1 : 1) * 1.1283791670955126 * exp(-h.x[i] * h.x[i]);
        qkv_check_report report;
        assert_ok(check_hard(&h, &elements, &report));
        h.gradient[0] += 1e-10;
        assert_status(check_hard(&h, &elements, &report), QKV_E_GRADIENT);
        assert_int_equal(report.failed, 1);
    }
}

static double exponential(const hard *h)
{
    return exp(h->x[0]);
}

static double parabola(const hard *h)
{
    return h->size * h->x[0] * h->x[0];
}

static void squares_that_overflow_are_not_taken(void **state)
{
    (void)state;
    for (double x = -700; x <= 700; x += 50) {
        hard h = {.f = exponential, .x = {x}, .gradient = {exp(x)}, .n = 1};
        assert_ok(check_hard(&h, &elements, NULL));
        assert_ok(check_hard(&h, &directions, NULL));
        h.gradient[0] *= 1 + 1e-6;
        assert_status(check_hard(&h, &elements, NULL), QKV_E_GRADIENT);
    }
    for (double size = 1e-300; size < 1e301; size *= 1e50) {
        hard h = {.f = parabola, .x = {0.7}, .gradient = {1.4 * size}, .n = 1, .size = size};
        qkv_check_report report;
        assert_ok(check_hard(&h, &elements, NULL));
        assert_ok(check_hard(&h, &directions, &report));
        assert_true(report.error_norm > 0 && report.error_norm < 1e-6 * size);
        assert_close(report.certificate, report.error_norm / h.gradient[0], 1e-12);
        h.gradient[0] *= -1;
        assert_status(check_hard(&h, &elements, NULL), QKV_E_GRADIENT);
    }
}

static double two_waves(const hard *h)
{
    return h->size + sin(h->x[0]) + h->x[1] * h->x[1];
}

static void where_noise_hides_the_gradient_the_message_says_so(void **state)
{
    (void)state;
    for (int k = 0; k < 100; k++) {
        hard h = {.f = two_waves, .x = {0.01 * k, 0.1 + 0.01 * k}, .n = 2, .size = 1e9};
        h.gradient[0] = cos(h.x[0]);
        h.gradient[1] = 2 * h.x[1];
        qkv_check_report report;
        h.size = 1e7;
        assert_ok(check_hard(&h, &elements, NULL));
        h.size = 1e10;
        assert_status(check_hard(&h, &elements, &report), QKV_E_GRADIENT);
        assert_int_equal(report.failed, 0);
        assert_message("f is noisy");
        assert_true(report.noise > 1e-7 && report.noise < 1e-5);
    }
}

static double rounded_to_float(const hard *h)
{
    return (double)(sinf((float)h->x[0]) * (float)h->x[1]);
}

static void a_function_that_computes_in_float_says_so(void **state)
{
    (void)state;
    hard h = {.f = rounded_to_float, .x = {0.7, 0.9}, .n = 2};
    h.gradient[0] = (double)cosf(0.7f) * 0.9;
    h.gradient[1] = (double)sinf(0.7f);
    qkv_check_report report;
    assert_status(check_hard(&h, &elements, &report), QKV_E_GRADIENT);
    assert_int_equal(report.failed, 0);
    assert_ok(check_hard(&h, &in_float, &report));
    assert_true(report.weak);
    h.gradient[1] *= 1.02;
    assert_status(check_hard(&h, &in_float, &report), QKV_E_GRADIENT);
    assert_int_equal(report.failed, 1);
}

/* ---- What f does to its surroundings ------------------------------------------------------- */

static double backward_too(const hard *h)
{
    double sum = 0;
    for (int i = 0; i < N; i++) {
        sum += exp(h->x[i]);
        ((hard *)h)->gradient[i] = exp(h->x[i]) + h->size;
    }
    return sum;
}

static void the_claim_is_what_it_was_before_f_ran(void **state)
{
    (void)state;
    const qkv_check_options *const options[] = {&elements, &directions};
    for (int k = 0; k < 2; k++)
        for (int wrong = 0; wrong < 2; wrong++) {
            hard h = {.f = backward_too, .x = {0.1, -0.4, 0.9, 0.3}, .n = N, .size = !wrong};
            for (int i = 0; i < N; i++) h.gradient[i] = exp(h.x[i]) + 0.1 * wrong;
            assert_int_equal(check_hard(&h, options[k], NULL), wrong ? QKV_E_GRADIENT : QKV_OK);
        }
}

static double jittery(const hard *h)
{
    double jitter = qkv_random_uniform(7, 1, h->calls) < h->rate ? h->size : 0;
    return sin(h->x[0]) + sin(h->x[1]) + sin(h->x[2]) + sin(h->x[3]) + jitter;
}

/* As often as gradcheck.h says, to within 3 % of the runs. */
static void values_that_vary_are_found(void **state)
{
    (void)state;
    enum { RUNS = 1000 };
    static const double rates[] = {0.5, 0.1, 0.01};
    for (int k = 0; k < 3; k++) {
        int found = 0;
        for (uint64_t run = 0; run < RUNS; run++) {
            hard h = {.f = jittery, .x = {0, 0.2, 0.4, 0.6}, .n = N, .size = 1e-12};
            h.calls = 1000 * run;
            h.rate = rates[k];
            for (int i = 0; i < N; i++) h.gradient[i] = cos(h.x[i]);
            found += check_hard(&h, &elements, NULL) == QKV_E_GRADIENT &&
                     strstr(qkv_last_error(), "not a function");
        }
        assert_close(found, RUNS * (1 - pow(1 - rates[k], 6 * N + 3)), 0.03 * RUNS);
    }
}

static double sum_of_squares(const hard *h)
{
    double sum = 0;
    for (int i = 0; i < N; i++) sum += h->x[i] * h->x[i];
    return sum;
}

static void a_gradient_that_is_no_number_is_seen_though_not_drawn(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++)
        for (size_t bad = 0; bad < N; bad++) {
            hard h = {.f = sum_of_squares, .x = {1, 2, 3, 4}, .gradient = {2, 4, 6, 8}, .n = N};
            h.gradient[bad] = seed % 2 ? NAN : INFINITY;
            const qkv_check_options one = {.max_elements = 1, .seed = seed};
            qkv_check_report report;
            assert_status(check_hard(&h, &one, &report), QKV_E_GRADIENT);
            assert_int_equal(report.worst_index, bad);
        }
}

static void directions_are_called_directions(void **state)
{
    (void)state;
    hard h = {.f = sum_of_squares, .x = {1, 2, 3, 4}, .gradient = {2, 4, 6, 9}, .n = N};
    qkv_check_report report;
    assert_status(check_hard(&h, &directions, &report), QKV_E_GRADIENT);
    assert_message("is wrong for x, direction");
    assert_int_equal(report.directions, 8);
    assert_true(isinf(report.error_norm) && isinf(report.certificate));
}

/* ---- Steps larger than the first ----------------------------------------------------------- */

static double plateau(const hard *h)
{
    return (double)(1 / (1 + expf(-30 - (float)h->x[0])) + 1.3e-4f * (float)h->x[1]);
}

/* E of a slope that is 0 is 4 % of the largest at the first step, 1.3 % at four times that. */
static void larger_steps_decide_where_f_does_not_move(void **state)
{
    (void)state;
    hard h = {.f = plateau, .x = {0.2, 8}, .gradient = {exp(-30), 1.3e-4}, .n = 2};
    assert_ok(check_hard(&h, &in_float, NULL));
    h.gradient[0] = 1e-4;
    assert_status(check_hard(&h, &in_float, NULL), QKV_E_GRADIENT);
}

static double cliff(const hard *h)
{
    return 1 / (1 + exp(1e5 * (h->x[0] - 0.109))) + h->x[1];
}

/* Twice the first step is 0.0116. */
static void a_cliff_that_only_larger_steps_reach_is_no_error(void **state)
{
    (void)state;
    hard h = {.f = cliff, .x = {0.1, 0.3}, .gradient = {0, 1}, .n = 2};
    assert_ok(check_hard(&h, &elements, NULL));
}

static double far_from_zero(const hard *h)
{
    if (!(h->x[0] > 0 && h->x[0] < 2)) ((hard *)h)->rate = 1;
    return (double)(3000 + (float)h->x[0]);
}

/* Noise lets them grow as far as they may. */
static void steps_in_float_stay_within_the_domain(void **state)
{
    (void)state;
    hard h = {.f = far_from_zero, .x = {1}, .gradient = {1}, .n = 1};
    const qkv_check_input in = {
        .name = "x", .x = h.x, .gradient = h.gradient, .n = 1, .lower = 0, .upper = 2};
    assert_ok(qkv_gradcheck(hard_value, &h, &in, 1, &in_float, NULL));
    assert_true(h.rate == 0);
}

/* At h = eps^(1/7) |R - R2| = 4 a h_2^4 + 84 c h_2^6 is 0, and R off by 64 c h_2^6, as is a. */
static double accident(const hard *h)
{
    double x = h->x[0], h_2 = pow(DBL_EPSILON, 1.0 / 7) / 4, a = -21 * h->size * h_2 * h_2;
    return x + a * pow(x, 5) + h->size * pow(x, 7);
}

static void a_smaller_step_objects_to_an_accident_at_the_second(void **state)
{
    (void)state;
    for (double size = 1e10; size < 1e12; size *= 3) {
        hard h = {.f = accident, .x = {0}, .n = 1, .size = size};
        h.gradient[0] = 1 + 64 * size * pow(DBL_EPSILON, 6.0 / 7) / 4096;
        for (int wrong = 1; wrong >= 0; wrong--) {
            const qkv_check_input in = {
                .name = "x", .x = h.x, .gradient = h.gradient, .n = 1, .scale = 2};
            assert_status(qkv_gradcheck(hard_value, &h, &in, 1, NULL, NULL),
                          wrong ? QKV_E_GRADIENT : QKV_OK);
            h.gradient[0] = 1;
        }
    }
}

/* Of each: 9 or 18 for the noise, 6 for R, 2 of these again, 2 at x; and 3 at x for all. */
static void what_is_smooth_takes_few_calls(void **state)
{
    (void)state;
    hard h = {.f = jittery, .x = {0.1, 0.2, 0.4, 0.6}, .n = N};
    for (int i = 0; i < N; i++) h.gradient[i] = cos(h.x[i]);
    assert_ok(check_hard(&h, &elements, NULL));
    assert_true(h.calls <= 28 * N + 3);
}

/* Declared zero, it fails nonetheless. */
static void the_taylor_rate_tells_the_true_slope(void **state)
{
    (void)state;
    for (int wrong = 0; wrong < 2; wrong++) {
        hard h = {.f = exponential, .x = {0.3}, .gradient = {exp(0.3) * (1 + 0.1 * wrong)}, .n = 1};
        const qkv_check_input in = {
            .name = "x", .x = h.x, .gradient = h.gradient, .n = 1, .zero = QKV_ZERO_EXACT};
        qkv_check_report report;
        assert_status(qkv_gradcheck(hard_value, &h, &in, 1, NULL, &report), QKV_E_GRADIENT);
        assert_close(report.taylor_rate, wrong ? 1 : 2, 0.1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_elements_are_judged_by_their_own_scale),
        cmocka_unit_test(a_millionth_is_always_seen),
        cmocka_unit_test(near_a_kink_the_right_slope_is_never_wrong),
        cmocka_unit_test(a_second_derivative_that_jumps_is_no_error),
        cmocka_unit_test(what_cancels_in_f_is_not_wrong),
        cmocka_unit_test(what_lies_below_the_last_bit_of_f_is_not_wrong),
        cmocka_unit_test(squares_that_overflow_are_not_taken),
        cmocka_unit_test(where_noise_hides_the_gradient_the_message_says_so),
        cmocka_unit_test(a_function_that_computes_in_float_says_so),
        cmocka_unit_test(the_claim_is_what_it_was_before_f_ran),
        cmocka_unit_test(values_that_vary_are_found),
        cmocka_unit_test(a_gradient_that_is_no_number_is_seen_though_not_drawn),
        cmocka_unit_test(directions_are_called_directions),
        cmocka_unit_test(larger_steps_decide_where_f_does_not_move),
        cmocka_unit_test(a_cliff_that_only_larger_steps_reach_is_no_error),
        cmocka_unit_test(steps_in_float_stay_within_the_domain),
        cmocka_unit_test(a_smaller_step_objects_to_an_accident_at_the_second),
        cmocka_unit_test(what_is_smooth_takes_few_calls),
        cmocka_unit_test(the_taylor_rate_tells_the_true_slope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
