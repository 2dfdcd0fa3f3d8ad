#include "support.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/regression.h"
#include "src/order.h"
#include "src/random.h"

enum { N = 40, D_X = 2, D_Y = 2, N_Q = 3, SAMPLES = 51 };

typedef struct sampled {
    double x[N * D_X], y[N * D_Y], weight[N], h[D_X], q[N_Q * D_X];
    qkv_regression r; /* of the first rows: more may follow */
    qkv_regression_bootstrap_options options;
    double lower[N_Q * D_Y], upper[N_Q * D_Y];
} sampled;

static void prepare(sampled *s)
{
    *s = (sampled){.h = {0.5, 0.8}, .q = {0, 0, 0.5, -1, 2, 1}};
    fill_normal(s->x, N * D_X, 1);
    fill_normal(s->y, N * D_Y, 2);
    for (int i = 0; i < N; i++) s->weight[i] = uniform(3, (uint64_t)i, 0.5, 2);
    s->r = (qkv_regression){.x = s->x,
                            .y = s->y,
                            .weight = s->weight,
                            .n = N - 4,
                            .d_x = D_X,
                            .d_y = D_Y,
                            .bandwidths = D_X};
    s->options = (qkv_regression_bootstrap_options){.samples = SAMPLES, .seed = 7, .level = 0.8};
}

static void band(sampled *s)
{
    assert_ok(qkv_regression_bootstrap(&s->r, s->h, s->q, N_Q, &s->options, s->lower, s->upper));
}

static void assert_same_band(const sampled *a, const sampled *b)
{
    assert_memory_equal(a->lower, b->lower, sizeof a->lower);
    assert_memory_equal(a->upper, b->upper, sizeof a->upper);
}

/* Predictions from the rows that sample draws, each a row of its own. */
static void predict_drawn(const sampled *s, uint64_t sample, double *mean)
{
    double x[N * D_X], y[N * D_Y], weight[N];
    for (int i = 0; i < s->r.n; i++) {
        size_t row =
            (size_t)(qkv_random_uniform(s->options.seed, sample, (uint64_t)i) * (double)s->r.n);
        memcpy(x + i * D_X, s->x + row * D_X, D_X * sizeof *x);
        memcpy(y + i * D_Y, s->y + row * D_Y, D_Y * sizeof *y);
        weight[i] = s->weight[row];
    }
    qkv_regression r = s->r;
    r.x = x, r.y = y, r.weight = weight;
    assert_ok(qkv_regression_predict(&r, s->h, s->q, N_Q, &(qkv_regression_results){.mean = mean}));
}

static void a_sample_is_the_regression_of_the_rows_drawn(void **state)
{
    (void)state;
    sampled s;
    prepare(&s);
    for (int degree = 0; degree <= 1; degree++) {
        double mean[SAMPLES][N_Q * D_Y], column[SAMPLES];
        s.r.degree = degree;
        band(&s);
        for (int i = 0; i < SAMPLES; i++) predict_drawn(&s, (uint64_t)i, mean[i]);
        for (int c = 0; c < N_Q * D_Y; c++) {
            for (int i = 0; i < SAMPLES; i++) column[i] = mean[i][c];
            qkv_sort(column, SAMPLES);
            assert_close(s.lower[c], column[5], 1e-9);
            assert_close(s.upper[c], column[45], 1e-9);
            assert_true(s.lower[c] < s.upper[c]);
        }
    }
}

static void the_band_is_a_function_of_the_seed_and_of_no_threads(void **state)
{
    (void)state;
    sampled s, again, other;
    prepare(&s);
    prepare(&again);
    prepare(&other);
    qkv_set_num_threads(1);
    band(&s);
    for (int threads = 2; threads <= 5; threads++) {
        qkv_set_num_threads(threads);
        band(&again);
        assert_same_band(&s, &again);
    }
    qkv_set_num_threads(1);
    other.options.seed = 8;
    band(&other);
    for (int i = 0; i < N_Q * D_Y; i++) assert_true(s.lower[i] != other.lower[i]);
}

static void rows_that_are_left_out_are_never_drawn(void **state)
{
    (void)state;
    sampled s, more;
    prepare(&s);
    band(&s);
    prepare(&more);
    more.r.n = N;
    more.x[(N - 4) * D_X] = more.y[(N - 3) * D_Y + 1] = more.weight[N - 2] = NAN;
    more.weight[N - 1] = 0;
    band(&more);
    assert_same_band(&s, &more);

    prepare(&more); /* no weights are equal weights */
    for (int i = 0; i < N; i++) s.weight[i] = 4;
    band(&s);
    more.r.weight = NULL;
    band(&more);
    for (int i = 0; i < N_Q * D_Y; i++) assert_close(more.lower[i], s.lower[i], 1e-12);
}

/* The constant kernel predicts the mean, of which the theory is exact: its deviation over samples
 * is the rows' own / sqrt(n). */
static void the_band_of_a_mean_has_the_width_it_must_have(void **state)
{
    (void)state;
    enum { ROWS = 400 };
    double x[ROWS] = {0}, y[ROWS], h = 1, q = 0, lower, upper, mean = 0, square = 0;
    fill_normal(y, ROWS, 4);
    for (int i = 0; i < ROWS; i++) mean += y[i] / ROWS;
    for (int i = 0; i < ROWS; i++) square += (y[i] - mean) * (y[i] - mean) / ROWS;
    qkv_regression r = {.x = x, .y = y, .n = ROWS, .kernel = QKV_REGRESSION_CONSTANT};
    const struct {
        double level, z;
    } levels[] = {{0.5, 0.67449}, {0.9, 1.64485}, {0, 1.95996}};
    for (int i = 0; i < 3; i++) {
        qkv_regression_bootstrap_options o = {.samples = 4000, .seed = 1, .level = levels[i].level};
        assert_ok(qkv_regression_bootstrap(&r, &h, &q, 1, &o, &lower, &upper));
        const double z = levels[i].z * sqrt(square / ROWS);
        assert_close(lower, mean - z, 0.06 * z);
        assert_close(upper, mean + z, 0.06 * z);
    }
}

static double truth(double x)
{
    return sin(3 * x);
}

/* Bands of 200 data sets at a bandwidth that has little bias, at 5 points: how many cover the
 * curve. */
static void nine_of_ten_bands_cover_the_curve(void **state)
{
    (void)state;
    enum { ROWS = 150, SETS = 200, POINTS = 5 };
    double x[ROWS], y[ROWS], h = 0.08, lower[POINTS], upper[POINTS];
    const double q[POINTS] = {0.3, 0.65, 1, 1.35, 1.7};
    const qkv_regression r = {.x = x, .y = y, .n = ROWS};
    int covered = 0;
    for (uint64_t set = 0; set < SETS; set++) {
        fill_normal(y, ROWS, 100 + set);
        for (int i = 0; i < ROWS; i++) {
            x[i] = uniform(50 + set, (uint64_t)i, 0, 2);
            y[i] = truth(x[i]) + 0.3 * y[i];
        }
        const qkv_regression_bootstrap_options o = {.samples = 200, .seed = set, .level = 0.9};
        assert_ok(qkv_regression_bootstrap(&r, &h, q, POINTS, &o, lower, upper));
        for (int i = 0; i < POINTS; i++)
            covered += lower[i] <= truth(q[i]) && truth(q[i]) <= upper[i];
    }
    assert_in_range(covered, 0.84 * SETS * POINTS, 0.93 * SETS * POINTS);
}

static void a_query_without_a_row_in_reach_does_not_count(void **state)
{
    (void)state;
    double x[] = {0, 0.5, 1, 1.5, 10}, y[] = {1, 2, 3, 4, 70}, h = 1, lower[4], upper[4];
    const double q[] = {1, 10, 100, NAN}; /* row 4 is in 2 of 3 samples */
    qkv_regression r = {.x = x, .y = y, .n = 5, .kernel = QKV_REGRESSION_BOXCAR};
    assert_ok(qkv_regression_bootstrap(&r, &h, q, 4, NULL, lower, upper));
    assert_true(lower[0] >= 1 && lower[0] < upper[0] && upper[0] <= 4);
    assert_true(lower[1] == 70 && upper[1] == 70);
    for (int i = 2; i < 4; i++) assert_true(isnan(lower[i]) && isnan(upper[i]));

    r.empty = QKV_EMPTY_ERROR; /* of the rows, not of a sample */
    assert_ok(qkv_regression_bootstrap(&r, &h, q, 2, NULL, lower, upper));
    assert_true(lower[1] == 70 && upper[1] == 70);
    assert_status(qkv_regression_bootstrap(&r, &h, q, 3, NULL, lower, upper), QKV_E_DOMAIN);

    r.empty = QKV_EMPTY_NEAREST; /* then every sample has a prediction */
    assert_ok(qkv_regression_bootstrap(&r, &h, q, 3, NULL, lower, upper));
    assert_true(lower[1] < 70 && upper[1] == 70);
    assert_true(lower[2] < 70 && upper[2] == 70);
}

typedef struct observed {
    ptrdiff_t seen, stop;
} observed;

static bool observe(void *context, ptrdiff_t done, ptrdiff_t samples)
{
    observed *o = context;
    assert_int_equal(done, ++o->seen);
    assert_int_equal(samples, SAMPLES);
    return done < o->stop;
}

static void every_sample_is_observed_and_can_be_the_last(void **state)
{
    (void)state;
    sampled s;
    observed o = {0, SAMPLES + 1};
    prepare(&s);
    s.options.observe = observe;
    s.options.context = &o;
    band(&s);
    assert_int_equal(o.seen, SAMPLES);
    o = (observed){0, 3};
    double kept = s.lower[0];
    s.options.seed = 1;
    assert_status(qkv_regression_bootstrap(&s.r, s.h, s.q, N_Q, &s.options, s.lower, s.upper),
                  QKV_E_STATE);
    assert_message("after 3 of 51 samples");
    assert_int_equal(o.seen, 3);
    assert_true(s.lower[0] == kept);
}

static qkv_status try(const sampled *s, ptrdiff_t n_q)
{
    double lower[N_Q * D_Y], upper[N_Q * D_Y];
    return qkv_regression_bootstrap(&s->r, s->h, s->q, n_q, &s->options, lower, upper);
}

static void what_cannot_be_is_an_error(void **state)
{
    (void)state;
    sampled s;
    prepare(&s);
    double out[N_Q * D_Y];
    const qkv_regression *r = &s.r;
    assert_status(qkv_regression_bootstrap(NULL, s.h, s.q, 1, NULL, out, out), QKV_E_ARG);
    assert_status(qkv_regression_bootstrap(r, NULL, s.q, 1, NULL, out, out), QKV_E_ARG);
    assert_status(qkv_regression_bootstrap(r, s.h, NULL, 1, NULL, out, out), QKV_E_ARG);
    assert_message("q is NULL");
    assert_status(qkv_regression_bootstrap(r, s.h, s.q, 1, NULL, NULL, out), QKV_E_ARG);
    assert_message("lower is NULL");
    assert_status(qkv_regression_bootstrap(r, s.h, s.q, 1, NULL, out, NULL), QKV_E_ARG);
    assert_status(try(&s, -1), QKV_E_SHAPE);
    assert_status(try(&s, PTRDIFF_MAX), QKV_E_OVERFLOW);
    assert_ok(try(&s, 0));
    s.options.samples = -1, assert_status(try(&s, 1), QKV_E_ARG);
    s.options.samples = PTRDIFF_MAX, assert_status(try(&s, 1), QKV_E_OVERFLOW);
    s.options.samples = SAMPLES;
    static const double bad[] = {1, -0.5, NAN, INFINITY};
    for (int i = 0; i < 4; i++) {
        s.options.level = bad[i];
        assert_status(try(&s, 1), QKV_E_ARG);
        assert_message("level");
    }
    prepare(&s), s.x[3] = INFINITY, assert_status(try(&s, 1), QKV_E_ARG);
    prepare(&s), s.weight[3] = -1, assert_status(try(&s, 1), QKV_E_ARG);
    prepare(&s), s.h[1] = 0, assert_status(try(&s, 1), QKV_E_ARG);
    prepare(&s), s.r.n = 0, assert_status(try(&s, 1), QKV_E_SHAPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sample_is_the_regression_of_the_rows_drawn),
        cmocka_unit_test(the_band_is_a_function_of_the_seed_and_of_no_threads),
        cmocka_unit_test(rows_that_are_left_out_are_never_drawn),
        cmocka_unit_test(the_band_of_a_mean_has_the_width_it_must_have),
        cmocka_unit_test(nine_of_ten_bands_cover_the_curve),
        cmocka_unit_test(a_query_without_a_row_in_reach_does_not_count),
        cmocka_unit_test(every_sample_is_observed_and_can_be_the_last),
        cmocka_unit_test(what_cannot_be_is_an_error),
    };
    qkv_set_num_threads(1); /* few rows: waking a second thread costs more than it brings */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
