/* test_reference.c - numbers that others computed: kernel regressions of the cars by NumPy,
 * gradients by complex step (tests/data/nadaraya-watson). Built for each dtype. */
#include "compute.h"
#include "src/real.h"
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double tolerance = REAL_DTYPE == QKV_F32 ? 1e-5 : 1e-12;

static FILE *open_data(const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/nadaraya-watson/%s", QKV_TEST_DATA, name);
    FILE *file = fopen(path, "r");
    if (!file) fail_msg("cannot open %s", path);
    return file;
}

/* The attention of a kernel by its name in the files. */
static qkv_attention kernel_attention(const char *name)
{
    static const char *const kernels[] = {"boxcar",    "triangular", "epanechnikov", "biweight",
                                          "triweight", "tricube",    "cosine",       "constant"};
    qkv_attention a = {.batch = 1, .heads = 1, .score = QKV_SCORE_GAUSSIAN};
    if (!strcmp(name, "dot")) a.score = QKV_SCORE_SCALED_DOT;
    if (!strcmp(name, "cauchy")) a.score = QKV_SCORE_CAUCHY;
    for (int k = 0; k < 8; k++)
        if (!strcmp(name, kernels[k])) {
            a.normalize = QKV_KERNEL_SUM;
            a.kernel = (qkv_kernel)k;
        }
    return a;
}

/* ---- Kernel regression --------------------------------------------------------------------- */

enum { CARS = 50 };

static void read_cars(real *speed, real *distance)
{
    FILE *file = open_data("cars.csv");
    char header[64];
    assert_non_null(fgets(header, sizeof header, file));
    for (int i = 0; i < CARS; i++) {
        double x, y;
        assert_int_equal(fscanf(file, "%lf,%lf", &x, &y), 2);
        speed[i] = (real)x;
        distance[i] = (real)y;
    }
    fclose(file);
}

static real predict(const char *kernel, double bandwidth, double at, real *speed, real *distance)
{
    static char workspace[1 << 20];
    qkv_attention a = kernel_attention(kernel);
    a.n_q = a.d_k = a.d_v = 1;
    a.n_k = CARS;
    real q = (real)at, h = (real)bandwidth, o;
    const FN(qkv_operands) in = {
        .q.data = &q, .k.data = speed, .v.data = distance, .bandwidth.data = &h};
    const FN(qkv_results) out = {.o.data = &o};
    assert_ok(FN(qkv_attention_forward)(&a, &in, &out, workspace, sizeof workspace));
    return o;
}

/* Whether kernel_attention knows it. */
static bool is_kernel(const char *name)
{
    const qkv_attention a = kernel_attention(name);
    return a.normalize == QKV_KERNEL_SUM || a.score == QKV_SCORE_CAUCHY ||
           !strcmp(name, "gaussian");
}

static void every_kernel_predicts_the_cars_as_numpy_does(void **state)
{
    (void)state;
    real speed[CARS], distance[CARS];
    read_cars(speed, distance);
    FILE *file = open_data("ref/kernels_numpy.csv");
    char line[256], kernel[32];
    int rows = 0, undefined = 0;
    assert_non_null(fgets(line, sizeof line, file));
    while (fgets(line, sizeof line, file)) {
        double h, x, mean;
        assert_int_equal(sscanf(line, "cars,%31[^,],1,%lf,nan,%lf,nan,%lf", kernel, &h, &x, &mean),
                         4);
        if (!is_kernel(kernel)) continue;
        assert_close(predict(kernel, h, x, speed, distance), mean, tolerance * 120);
        rows++;
        undefined += isnan(mean);
    }
    fclose(file);
    assert_int_equal(rows, 10 * 82);
    assert_true(0 < undefined && undefined < 100);
}

static void a_key_exactly_one_bandwidth_away_is_in_the_boxcar(void **state)
{
    (void)state;
    real speed[CARS] = {0}, distance[CARS] = {0};
    for (int i = 0; i < CARS; i++) speed[i] = 1000;
    distance[0] = 7;
    for (uint64_t i = 0; i < 500; i++) {
        real h = (real)uniform(5, i, 1e-3, 10);
        speed[0] = i % 2 ? h : -h; /* query at 0, so the difference is exact */
        assert_close(predict("boxcar", h, 0, speed, distance), 7, 0);
    }
}

/* ---- Gradients ----------------------------------------------------------------------------- */

enum { N_Q = 5, N_K = 7, D_K = 2, D_V = 3, MOST = 35 };

/* Reads one array of one case, row after row; returns the numbers found. */
static int read_array(const char *name, bool masked, const char *array, double x[MOST])
{
    FILE *file = open_data("gradients.csv");
    char line[256], prefix[64];
    int n = 0;
    snprintf(prefix, sizeof prefix, "%s,%d,%s,", name, masked, array);
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, prefix, strlen(prefix))) {
            assert_true(n < MOST);
            x[n++] = strtod(strrchr(line, ',') + 1, NULL);
        }
    fclose(file);
    return n;
}

static void read_input(const char *array, double *to, int expected)
{
    double x[MOST];
    assert_int_equal(read_array("input", false, array, x), expected);
    for (int i = 0; i < expected; i++) to[i] = (double)(real)x[i];
}

static problem read_problem(const char *name, bool masked)
{
    qkv_attention a = kernel_attention(name);
    a.n_q = N_Q;
    a.n_k = N_K;
    a.d_k = D_K;
    a.d_v = D_V;
    bool dot = a.score == QKV_SCORE_SCALED_DOT;
    if (!dot) a.bandwidths = D_K;
    problem p =
        problem_random(a, REAL_DTYPE, (masked ? WITH_MASK : 0) | (dot ? 0 : WITH_BANDWIDTH), 1);
    read_input("q", p.in[Q], N_Q * D_K);
    read_input("k", p.in[K], N_K * D_K);
    read_input("v", p.in[V], N_K * D_V);
    read_input("c", p.d_o, N_Q * D_V);
    double x[MOST];
    read_array("input", false, "mask", x);
    for (int i = 0; masked && i < N_Q * N_K; i++) p.mask[i] = x[i] != 0;
    if (!dot) assert_int_equal(read_array(name, masked, "h", p.in[BANDWIDTH]), D_K);
    return p;
}

static void assert_array(const char *name, bool masked, const char *array, const double *actual,
                         operand start, int n)
{
    double expected[MOST];
    assert_int_equal(read_array(name, masked, array, expected), n);
    for (int i = 0; i < n; i++) {
        double from = start < OPERANDS ? gradient_start(start) : 0;
        assert_close(actual[i] - from, expected[i], tolerance);
    }
}

static void gradients_are_those_of_an_independent_complex_step(void **state)
{
    (void)state;
    static const char *const names[] = {"gaussian", "triangular", "epanechnikov", "dot",
                                        "cauchy",   "biweight",   "tricube"};
    for (int c = 0; c < 14; c++) {
        const char *name = names[c / 2];
        bool masked = c % 2;
        problem p = read_problem(name, masked);
        answer y = answer_new(&p);
        assert_ok(compute(&p, LAYOUT_PACKED, ALL_GRADIENTS, &y));
        assert_array(name, masked, "out", y.o, OPERANDS, N_Q * D_V);
        assert_array(name, masked, "dq", y.d[Q], Q, N_Q * D_K);
        assert_array(name, masked, "dk", y.d[K], K, N_K * D_K);
        assert_array(name, masked, "dv", y.d[V], V, N_K * D_V);
        for (size_t i = 0; p.in[BANDWIDTH] && i < D_K; i++) { /* dL/dlog h = h dL/dh */
            double start = gradient_start(BANDWIDTH);
            y.d[BANDWIDTH][i] = start + p.in[BANDWIDTH][i] * (y.d[BANDWIDTH][i] - start);
        }
        if (p.in[BANDWIDTH]) assert_array(name, masked, "dlogh", y.d[BANDWIDTH], BANDWIDTH, D_K);
        answer_free(&y);
        problem_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kernel_predicts_the_cars_as_numpy_does),
        cmocka_unit_test(a_key_exactly_one_bandwidth_away_is_in_the_boxcar),
        cmocka_unit_test(gradients_are_those_of_an_independent_complex_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
