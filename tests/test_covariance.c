/* test_covariance.c - exercise 2 of the chapter: for a(q, k) = q'k and k = v, grad_q Attention =
 * Cov_p[k]; and its general form, Cov_p[v, k] times the score's own slope. */
#include "support.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/attention.h"
#include "qkv/tape.h"

enum { MAX_KEYS = 300, MAX_D = 128 };

/* One query against n_k keys. v = k unless values is set. */
typedef struct problem {
    qkv_attention a;
    double q[MAX_D], k[MAX_KEYS * MAX_D], v[MAX_KEYS * MAX_D];
    double scale, bandwidth[MAX_D];
    uint8_t mask[MAX_KEYS];
    double cov[MAX_D * MAX_D], jacobian[MAX_D * MAX_D], expected[MAX_D * MAX_D];
} problem;

static problem p; /* too large for the stack */

static void make_problem(ptrdiff_t n_k, ptrdiff_t d_k, ptrdiff_t d_v, uint64_t seed)
{
    p.a = (qkv_attention){.batch = 1, .heads = 1, .n_q = 1, .n_k = n_k, .d_k = d_k, .d_v = d_v};
    fill_normal(p.q, (size_t)d_k, seed);
    fill_normal(p.k, (size_t)(n_k * d_k), seed + 1);
    fill_normal(p.v, (size_t)(n_k * d_v), seed + 2);
    p.scale = 1;
    for (int c = 0; c < MAX_D; c++) p.bandwidth[c] = uniform(seed, (uint64_t)c, 0.5, 3);
    memset(p.mask, 1, sizeof p.mask);
}

static qkv_operands_f64 operands(void)
{
    bool gaussian = p.a.score == QKV_SCORE_GAUSSIAN;
    return (qkv_operands_f64){.q.data = p.q,
                              .k.data = p.k,
                              .v.data = p.v,
                              .scale.data = &p.scale,
                              .bandwidth.data = gaussian ? p.bandwidth : NULL,
                              .mask.data = p.mask};
}

static void compute_covariance(void)
{
    size_t bytes;
    assert_ok(qkv_attention_workspace(&p.a, QKV_COVARIANCE, QKV_F64, &bytes));
    void *workspace = malloc(bytes);
    const qkv_operands_f64 in = operands();
    assert_ok(
        qkv_attention_covariance_f64(&p.a, &in, &(qkv_slot_f64){.data = p.cov}, workspace, bytes));
    free(workspace);
}

/* Row by row through the tape: backward from the r-th unit vector is row r of dO/dq. */
static void compute_jacobian(void)
{
    ptrdiff_t n_k = p.a.n_k, d_k = p.a.d_k, d_v = p.a.d_v;
    double unit[MAX_D] = {0};
    qkv_tape *t;
    assert_ok(qkv_tape_new(&t, QKV_F64));
    for (ptrdiff_t r = 0; r < d_v; r++) {
        double *row = p.jacobian + r * d_k;
        unit[r] = 1;
        memset(row, 0, sizeof *row * (size_t)d_k);
        const qkv_slot_bool mask = {.data = p.mask};
        bool gaussian = p.a.score == QKV_SCORE_GAUSSIAN;
        qkv_attend_vars in = {.q = qkv_leaf_f64(t, qkv_shape2(1, d_k), p.q, row),
                              .k = qkv_leaf_f64(t, qkv_shape2(n_k, d_k), p.k, NULL),
                              .v = qkv_leaf_f64(t, qkv_shape2(n_k, d_v), p.v, NULL),
                              .scale = qkv_leaf_f64(t, qkv_scalar(), &p.scale, NULL),
                              .mask = &mask};
        qkv_shape h = qkv_shape1(p.a.bandwidths > 1 ? d_k : 1);
        if (gaussian) in.bandwidth = qkv_leaf_f64(t, h, p.bandwidth, NULL);
        qkv_var o = qkv_attend(t, &p.a, &in);
        qkv_var seed = qkv_leaf_f64(t, qkv_shape2(1, d_v), unit, NULL);
        assert_ok(qkv_backward_with(t, o, &(qkv_backward_options){.seed = seed}));
        qkv_tape_reset(t);
        unit[r] = 0;
    }
    qkv_tape_free(t);
}

static long double score(ptrdiff_t j)
{
    long double s = 0, q_norm = 0, k_norm = 0;
    for (ptrdiff_t c = 0; c < p.a.d_k; c++) {
        double q = p.q[c], k = p.k[j * p.a.d_k + c];
        q_norm = hypotl(q_norm, q);
        k_norm = hypotl(k_norm, k);
        long double u = ((long double)q - k) / p.bandwidth[p.a.bandwidths > 1 ? c : 0];
        s += p.a.score == QKV_SCORE_GAUSSIAN ? -u * u / 2 : (long double)q * k;
    }
    if (p.a.score == QKV_SCORE_COSINE) s /= q_norm * k_norm;
    return s * p.scale;
}

/* The definition, in two passes and long double: E[(v - E v)(k - E k)']. */
static void compute_expected(void)
{
    static long double w[MAX_KEYS];
    long double max = -INFINITY, sum = 0;
    ptrdiff_t n = p.a.n_k, d_k = p.a.d_k, d_v = p.a.d_v;
    for (ptrdiff_t j = 0; j < n; j++)
        if (p.mask[j] && score(j) > max) max = score(j);
    for (ptrdiff_t j = 0; j < n; j++) sum += w[j] = p.mask[j] ? expl(score(j) - max) : 0;
    for (ptrdiff_t r = 0; r < d_v; r++)
        for (ptrdiff_t c = 0; c < d_k; c++) {
            long double mean_v = 0, mean_k = 0, cov = 0;
            for (ptrdiff_t j = 0; j < n; j++) {
                mean_v += w[j] / sum * p.v[j * d_v + r];
                mean_k += w[j] / sum * p.k[j * d_k + c];
            }
            for (ptrdiff_t j = 0; j < n; j++)
                cov += w[j] / sum * (p.v[j * d_v + r] - mean_v) * (p.k[j * d_k + c] - mean_k);
            p.expected[r * d_k + c] = (double)cov;
        }
}

static double largest_norm(const double *x, ptrdiff_t n, ptrdiff_t d)
{
    double largest = 0;
    for (ptrdiff_t j = 0; j < n; j++) {
        double norm = 0;
        for (ptrdiff_t c = 0; c < d; c++) norm = hypot(norm, x[j * d + c]);
        largest = fmax(largest, norm);
    }
    return largest;
}

static double size_of_problem(void)
{
    return largest_norm(p.v, p.a.n_k, p.a.d_v) * largest_norm(p.k, p.a.n_k, p.a.d_k);
}

/* One pass against two, and the tape against the covariance. */
static void check_problem(void)
{
    compute_covariance();
    compute_jacobian();
    compute_expected();
    double size = size_of_problem();
    for (ptrdiff_t x = 0; x < p.a.d_v * p.a.d_k; x++) {
        double h = p.bandwidth[p.a.bandwidths > 1 ? x % p.a.d_k : 0];
        double slope = p.a.score == QKV_SCORE_GAUSSIAN ? p.scale / (h * h) : p.scale;
        assert_close(p.cov[x], p.expected[x], 1e-12 * size);
        assert_close(p.jacobian[x], slope * p.cov[x], 1e-12 * fabs(slope) * size);
    }
}

static void the_gradient_of_attention_is_the_covariance_of_the_keys(void **state)
{
    (void)state;
    const ptrdiff_t sizes[][2] = {{2, 1},  {3, 2},    {17, 5},   {64, 16},
                                  {65, 3}, {130, 31}, {300, 128}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (uint64_t seed = 0; seed < 4; seed++) {
            make_problem(sizes[i][0], sizes[i][1], sizes[i][1], 10 * seed + i);
            memcpy(p.v, p.k, sizeof p.k);
            p.a.score = QKV_SCORE_DOT;
            p.scale = seed == 0 ? 1 : uniform(seed, i, -0.5, 1);
            for (ptrdiff_t j = 0; seed == 3 && j < p.a.n_k; j += 3) p.mask[j] = 0;
            check_problem();
            for (ptrdiff_t x = 0; x < p.a.d_v * p.a.d_k; x++) /* a covariance is symmetric */
                assert_close(p.cov[x], p.cov[x % p.a.d_k * p.a.d_k + x / p.a.d_k],
                             1e-14 * (double)p.a.d_k);
        }
}

static void values_other_than_keys_give_the_cross_covariance(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 6; seed++) {
        make_problem(20 + 37 * (ptrdiff_t)seed, 1 + 3 * (ptrdiff_t)seed, 7, seed);
        p.scale = 0.3;
        check_problem();
    }
}

static void the_gaussian_score_divides_by_the_squared_bandwidth(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 6; seed++) {
        make_problem(20 + 37 * (ptrdiff_t)seed, 1 + 2 * (ptrdiff_t)seed, 4, seed);
        p.a.score = QKV_SCORE_GAUSSIAN;
        p.a.bandwidths = seed % 2 ? p.a.d_k : 1;
        p.scale = 0.8;
        check_problem();
    }
}

static void the_keys_of_a_cosine_keep_their_length(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 4; seed++) {
        make_problem(20 + 90 * (ptrdiff_t)seed, 1 + 2 * (ptrdiff_t)seed, 4, seed);
        p.a.score = QKV_SCORE_COSINE;
        p.scale = 2;
        compute_covariance();
        compute_expected();
        for (ptrdiff_t x = 0; x < p.a.d_v * p.a.d_k; x++)
            assert_close(p.cov[x], p.expected[x], 1e-12 * size_of_problem());
    }
}

static void one_key_has_covariance_zero_exactly(void **state)
{
    (void)state;
    make_problem(1, 9, 4, 1);
    compute_covariance();
    compute_jacobian();
    for (int x = 0; x < 36; x++) {
        assert_true(p.cov[x] == 0);
        assert_close(p.jacobian[x], 0, 1e-15);
    }
    make_problem(150, 9, 4, 2); /* and one that is left over by the mask, among NaN */
    memset(p.mask, 0, sizeof p.mask);
    p.mask[101] = 1;
    for (int x = 0; x < 150 * 9; x++) p.k[x] = x / 9 == 101 ? p.k[x] : NAN;
    for (int x = 0; x < 150 * 4; x++) p.v[x] = x / 4 == 101 ? p.v[x] : NAN;
    compute_covariance();
    for (int x = 0; x < 36; x++) assert_true(p.cov[x] == 0);
}

static void a_query_that_sees_nothing_has_covariance_zero(void **state)
{
    (void)state;
    make_problem(70, 3, 3, 1);
    memset(p.mask, 0, sizeof p.mask);
    compute_covariance();
    for (int x = 0; x < 9; x++) assert_true(p.cov[x] == 0);
}

static void a_common_offset_of_the_keys_costs_no_digit(void **state)
{
    (void)state;
    static double plain[MAX_D * MAX_D];
    make_problem(200, 3, 3, 5);
    p.a.score = QKV_SCORE_GAUSSIAN;
    for (ptrdiff_t x = 0; x < 600; x++) p.k[x] = round(p.k[x] * 1024) / 1024;
    for (int c = 0; c < 3; c++) p.q[c] = round(p.q[c] * 1024) / 1024;
    memcpy(p.v, p.k, sizeof p.k);
    compute_covariance();
    memcpy(plain, p.cov, sizeof plain);
    for (ptrdiff_t x = 0; x < 600; x++) p.v[x] = p.k[x] += 0x1p30;
    for (int c = 0; c < 3; c++) p.q[c] += 0x1p30;
    compute_covariance();
    for (int x = 0; x < 9; x++) assert_close(p.cov[x], plain[x], 1e-7 * fabs(plain[0]));
}

static void float_agrees_with_double(void **state)
{
    (void)state;
    static float q[MAX_D], k[MAX_KEYS * MAX_D], v[MAX_KEYS * MAX_D], cov[MAX_D * MAX_D];
    make_problem(130, 16, 5, 3);
    for (ptrdiff_t x = 0; x < 16; x++) p.q[x] = q[x] = (float)p.q[x];
    for (ptrdiff_t x = 0; x < 130 * 16; x++) p.k[x] = k[x] = (float)p.k[x];
    for (ptrdiff_t x = 0; x < 130 * 5; x++) p.v[x] = v[x] = (float)p.v[x];
    compute_covariance();
    size_t bytes;
    assert_ok(qkv_attention_workspace(&p.a, QKV_COVARIANCE, QKV_F32, &bytes));
    void *workspace = malloc(bytes);
    const qkv_operands_f32 in = {.q.data = q, .k.data = k, .v.data = v, .scale.data = &(float){1}};
    assert_ok(
        qkv_attention_covariance_f32(&p.a, &in, &(qkv_slot_f32){.data = cov}, workspace, bytes));
    free(workspace);
    for (int x = 0; x < 80; x++) assert_close(cov[x], p.cov[x], 2e-5);
}

static void weights_that_are_no_distribution_are_refused(void **state)
{
    (void)state;
    make_problem(5, 2, 2, 1);
    p.a.normalize = QKV_NONE_EXP;
    const qkv_operands_f64 in = operands();
    char workspace[1] = {0};
    assert_status(
        qkv_attention_covariance_f64(&p.a, &in, &(qkv_slot_f64){.data = p.cov}, workspace, 1),
        QKV_E_ARG);
    assert_message("no distribution");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_gradient_of_attention_is_the_covariance_of_the_keys),
        cmocka_unit_test(values_other_than_keys_give_the_cross_covariance),
        cmocka_unit_test(the_gaussian_score_divides_by_the_squared_bandwidth),
        cmocka_unit_test(the_keys_of_a_cosine_keep_their_length),
        cmocka_unit_test(one_key_has_covariance_zero_exactly),
        cmocka_unit_test(a_query_that_sees_nothing_has_covariance_zero),
        cmocka_unit_test(a_common_offset_of_the_keys_costs_no_digit),
        cmocka_unit_test(float_agrees_with_double),
        cmocka_unit_test(weights_that_are_no_distribution_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
