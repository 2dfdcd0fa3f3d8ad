/* test_regression_local.c - local lines: exact on planes, with their limits far from all rows. */
#include "support.h"

#include <math.h>

#include "regression_data.h"

/* On a line any weights give the line; where all rows in reach share a place, their mean. */
static void a_local_line_is_exact_and_safe(void **state)
{
    (void)state;
    double x[40], y[20], h[] = {0.4, 0.7}, q[] = {0.2, 0.9, 5, -3}, m[2], gradient[4];
    for (int i = 0; i < 20; i++) {
        x[2 * i] = uniform(1, (uint64_t)i, 0, 1);
        x[2 * i + 1] = uniform(2, (uint64_t)i, 0, 1);
        y[i] = 3 - 2 * x[2 * i] + 5 * x[2 * i + 1];
    }
    qkv_regression r = {.x = x, .y = y, .n = 20, .d_x = 2, .bandwidths = 2, .degree = 1};
    qkv_regression_results out = {.mean = m, .gradient = gradient};
    assert_ok(qkv_regression_predict(&r, h, q, 2, &out));
    assert_relative(m[0], 3 - 0.4 + 4.5, 1e-12);
    assert_relative(gradient[0], -2, 1e-11);
    assert_relative(gradient[1], 5, 1e-11);
    for (int i = 0; i < 20; i++) x[2 * i + 1] = x[2 * i]; /* one direction only */
    for (int i = 0; i < 20; i++) y[i] = 3 * x[2 * i];
    assert_ok(qkv_regression_predict(&r, h, q, 1, &out));
    assert_relative(gradient[0] + gradient[1], 3, 1e-10); /* none across */
    qkv_regression far = cars(); /* which end at speed 24, 93.75 on average, and 25, 85 */
    double far_q = 200, far_h = 1.5;
    far.degree = 1;
    assert_ok(qkv_regression_predict(&far, &far_h, &far_q, 1, &out));
    assert_relative(m[0], 85 - 8.75 * 175, 1e-12);
    assert_relative(gradient[0], -8.75, 1e-12);
    free_data(&far);
    /* A column of two values, one of which weighs next to nothing at q: the plane all the same. */
    double two_x[] = {0.1, 0.1, 0.4, 0.1, 0.9, 0.1, 0.2, 1.1, 0.5, 1.1, 0.8, 1.1}, two_y[6];
    double two_h[] = {0.2, 0.05}, two_q[] = {0.7, 0.15, 0.3, 0.1, 0.5, 1.4};
    for (int i = 0; i < 6; i++) two_y[i] = 1 + 2 * two_x[2 * i] - 3 * two_x[2 * i + 1];
    qkv_regression two = {.x = two_x, .y = two_y, .n = 6, .d_x = 2, .bandwidths = 2, .degree = 1};
    for (int i = 0; i < 3; i++) {
        assert_ok(qkv_regression_predict(&two, two_h, two_q + 2 * i, 1, &out));
        assert_close(m[0], 1 + 2 * two_q[2 * i] - 3 * two_q[2 * i + 1], 1e-9);
        assert_close(gradient[0], 2, 1e-9);
        assert_close(gradient[1], -3, 1e-9);
    }
    double one_x[] = {2, 2, 2}, one_y[] = {1, 2, 6};
    r = (qkv_regression){.x = one_x, .y = one_y, .n = 3, .degree = 1};
    assert_ok(qkv_regression_predict(&r, h, q, 1, &out));
    assert_relative(m[0], 3, 1e-15);
    assert_true(gradient[0] == 0);
}

/* All but the nearest x may weigh less than a double can tell: the line through the two nearest
 * stays. */
static void a_local_line_has_its_limit_far_away_and_for_narrow_kernels(void **state)
{
    (void)state;
    qkv_regression r = cars();
    r.degree = 1;
    double m, slope, norm;
    qkv_regression_results out = {.mean = &m, .gradient = &slope, .norm = &norm};
    const double weights[] = {1, 3}; /* of the even and the odd rows */
    double c[50];
    for (int i = 0; i < 50; i++) c[i] = weights[i % 2];
    for (int weighted = 0; weighted < 2; weighted++) {
        double ends[] = {93.75, 85}; /* means at 24 and 25 */
        r.weight = weighted ? c : NULL;
        if (weighted) ends[0] = (3 * 70 + 92 + 3 * 93 + 120) / 8.0;
        for (double q = 300; q < 1e20; q *= 1.5) {
            double h = 2, expected = ends[1] + (ends[1] - ends[0]) * (q - 25);
            assert_ok(qkv_regression_predict(&r, &h, &q, 1, &out));
            assert_relative(m, expected, 1e-12);
            assert_relative(slope, ends[1] - ends[0], 1e-12);
            if (!weighted) assert_relative(norm, hypot((q - 24), 0.5 * (q - 25)), 1e-12);
        }
    }
    r.weight = NULL;
    /* Between rows the line through the two nearest, which need not be on both sides. */
    double x[] = {0, 1, 3, 3, 7}, y[] = {1, 4, 2, 4, 9}, q[] = {1.4, 3.4, 5.5, -2, 7};
    const double expected[] = {5.2, 2.8, 6.75, -5, 9}, slopes[] = {3, -0.5, 1.5, 3, 1.5};
    qkv_regression few = {.x = x, .y = y, .n = 5, .degree = 1};
    for (int kernel = 0; kernel < 2; kernel++)
        for (double h = 1e-3; h > 1e-160; h *= 0.7)
            for (int i = 0; i < 5; i++) {
                few.kernel = kernel ? QKV_REGRESSION_LAPLACE : QKV_REGRESSION_GAUSSIAN;
                assert_ok(qkv_regression_predict(&few, &h, &q[i], 1, &out));
                assert_close(m, expected[i], 1e-12);
                assert_close(slope, slopes[i], 1e-12);
            }
    double h = 1e-3, cv, gradient;
    assert_ok(cv_of(&few, &h, &cv, NULL, &gradient));
    assert_relative(cv, (3.5 * 3.5 + 49 / 9.0 + 4 + 4 + 64) / 5, 1e-12);
    assert_close(gradient, 0, 1e-9 * cv);
    free_data(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_local_line_is_exact_and_safe),
        cmocka_unit_test(a_local_line_has_its_limit_far_away_and_for_narrow_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
