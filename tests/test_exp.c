/* test_exp.c - the vector exponential and tangent against libm's in higher precision, over their
 * whole range. Built for each instruction set and dtype. */
#include "src/simd/exp.h"
#include "src/simd/isa.h"
#include "src/simd/log.h"
#include "src/simd/tanh.h"
#include "support.h"

#include <stdlib.h>

#if QKV_REAL == 32
typedef double wide;
enum { DIGITS = 24, LOWEST = -126, HIGHEST = 127 };
static wide power(wide x)
{
    return exp2(x);
}
#else
typedef long double wide;
enum { DIGITS = 53, LOWEST = -1022, HIGHEST = 1023 };
static wide power(wide x)
{
    return exp2l(x);
}
#endif

static real first(vec (*f)(vec), real x)
{
    return f(splat(x))[0];
}

static vec weight_2(vec x)
{
    return exp2_weight(x, opaque(exp_table));
}

static vec weight_e(vec x)
{
    return exp_weight(x, exp_table);
}

/* The error in units of the last place of a normal result. */
static double error_in_ulp(real actual, wide expected)
{
    int exponent;
    frexp((double)expected, &exponent);
    return (double)fabsl(((long double)actual - (long double)expected) /
                         ldexpl(1, exponent - DIGITS));
}

static void every_power_of_2_is_within_an_ulp(void **state)
{
    (void)state;
    double worst = 0, steps = 4e6;
    for (double i = 0; i <= steps; i++) {
        real x = (real)(LOWEST + (HIGHEST - LOWEST) * i / steps);
        double error = error_in_ulp(first(weight_2, x), power((wide)x));
        worst = error > worst ? error : worst;
        x = (real)(i / steps * 1e-3 - 5e-4);
        error = error_in_ulp(first(weight_2, x), power((wide)x));
        worst = error > worst ? error : worst;
    }
    print_message("%s: largest error %.3f ulp\n", QKV_REAL == 32 ? "float" : "double", worst);
#if defined(__FMA__) || defined(__aarch64__)
    assert_true(worst > 0.5 && worst < 1);
#else
    assert_true(worst > 0.5 && worst < 1.5); /* each product rounds */
#endif
}

static void whole_powers_are_exact(void **state)
{
    (void)state;
    for (int n = LOWEST; n <= HIGHEST; n++)
        assert_true(first(weight_2, (real)n) == (real)ldexp(1, n));
}

static void what_is_not_normal_is_below_the_least_normal_number(void **state)
{
    (void)state;
    for (double x = LOWEST; x > 4 * LOWEST; x -= 0.01) {
        real y = first(weight_2, (real)(x - 0.01));
        assert_true(y >= 0 && y <= REAL_MIN);
        assert_close(y, (double)power((wide)(real)(x - 0.01)), REAL_MIN);
    }
    assert_true(first(weight_2, (real)-INFINITY) == 0);
    assert_true(first(weight_2, (real)-1e30) == 0);
    assert_true(first(weight_e, (real)-INFINITY) == 0);
}

static void nan_is_nan_whatever_its_payload(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++) {
        union {
            real x;
            FN(integer) bits;
        } nan = {.x = (real)NAN};
        nan.bits |= (FN(integer))rand() % 0x3fffff;
        assert_true(isnan(first(weight_2, nan.x)));
        assert_true(isnan(first(weight_e, -nan.x)));
    }
}

/* As exp.h states it: relative to e^x, |x| / 2 ulp more. */
static void exponentials_round_their_argument_once_more(void **state)
{
    (void)state;
    double lowest = LOWEST * 0.6931, steps = 1e6;
    for (double i = 0; i <= steps; i++) {
        real x = (real)(lowest * i / steps);
        wide expected = power((wide)x * (wide)1.44269504088896340735992468100189214L);
        assert_true(error_in_ulp(first(weight_e, x), expected) <= 1.5 + 2 * fabs((double)x));
        assert_close(first(weight_e, x), (double)expected, REAL_EPSILON);
    }
    assert_true(first(weight_e, 0) == 1);
}

/* tanh as wide as expected values get: e^2x - 1 without cancellation. */
static wide tangent(wide x)
{
    return (wide)tanhl((long double)x);
}

static void tangents_are_within_a_few_ulp(void **state)
{
    (void)state;
    double worst = 0, steps = 4e5;
    for (double i = 1; i <= steps; i++) {
        real xs[] = {(real)(i / steps * 25), (real)(i / steps), (real)exp(-i / steps * 80)};
        for (int k = 0; k < 3; k++) {
            real y = first(tanh_of, xs[k]);
            double error = error_in_ulp(y, tangent((wide)xs[k]));
            worst = error > worst ? error : worst;
            assert_true(y <= 1 && first(tanh_of, -xs[k]) == -y);
        }
    }
    print_message("%s: largest error %.3f ulp\n", QKV_REAL == 32 ? "float" : "double", worst);
    assert_true(worst > 0.5 && worst < 4);
}

static void logarithms_are_within_a_few_ulp(void **state)
{
    (void)state;
    double worst = 0, steps = 4e5, highest = HIGHEST * 0.6931;
    for (double i = 0; i <= steps; i++) {
        double x = exp(i / steps * highest);
        real xs[] = {(real)x, (real)(1 + i / steps), (real)(1 + i * 1e-9), (real)(2 / x),
                     (real)(1 - i / steps / 2)};
        for (int k = 0; k < 5; k++) {
            long double expected = logl((long double)xs[k]);
            double least = REAL_EPSILON * fmax(1, fabs((double)expected));
            double error = (double)fabsl(first(log_of, xs[k]) - expected) / least;
            worst = error > worst ? error : worst;
        }
    }
    print_message("%s: largest error %.3f\n", QKV_REAL == 32 ? "float" : "double", worst);
    assert_true(worst > 0.2 && worst < 2);
    assert_true(first(log_of, 1) == 0);
    assert_true(first(log_of, (real)INFINITY) == (real)INFINITY);
    assert_true(isnan(first(log_of, (real)NAN)));
}

static void tangents_of_what_is_no_usual_number(void **state)
{
    (void)state;
    assert_true(first(tanh_of, 0) == 0 && !signbit(first(tanh_of, 0)));
    assert_true(signbit(first(tanh_of, (real)-0.0)));
    assert_true(first(tanh_of, (real)INFINITY) == 1 && first(tanh_of, (real)-INFINITY) == -1);
    assert_true(isnan(first(tanh_of, (real)NAN)) && isnan(first(tanh_of, (real)-NAN)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_power_of_2_is_within_an_ulp),
        cmocka_unit_test(whole_powers_are_exact),
        cmocka_unit_test(what_is_not_normal_is_below_the_least_normal_number),
        cmocka_unit_test(nan_is_nan_whatever_its_payload),
        cmocka_unit_test(exponentials_round_their_argument_once_more),
        cmocka_unit_test(tangents_are_within_a_few_ulp),
        cmocka_unit_test(logarithms_are_within_a_few_ulp),
        cmocka_unit_test(tangents_of_what_is_no_usual_number),
    };
    int index;
    if (qkv_isa_find("test_exp", &index)) {
        print_message("%s\n", qkv_last_error());
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
