/* test_op_layers.c - what the layers of a network are made of beside products and attention:
 * normalization, GELU and dropout, against plain C and by their corners. */
#include <string.h>

#include <Random123/philox.h>

#include "qkv/tape.h"
#include "src/real.h"
#include "support.h"

enum { MOST = 4096 };

static qkv_tape *tape;
static real x[MOST], dx[MOST];

static int set_up(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < MOST; i++) {
        x[i] = (real)uniform(1, i, -3, 3);
        dx[i] = 0;
    }
    return (int)qkv_tape_new(&tape, REAL_DTYPE);
}

static int tear_down(void **state)
{
    (void)state;
    qkv_tape_free(tape);
    return 0;
}

static qkv_var leaf(qkv_shape shape)
{
    return FN(qkv_leaf)(tape, shape, x, dx);
}

static void add_gradient_of_sum(qkv_var y)
{
    if (qkv_backward(tape, qkv_sum(tape, y, NULL, 0, false))) fail_msg("%s", qkv_tape_error(tape));
}

static void assert_refused(qkv_var y, qkv_status status, const char *message)
{
    assert_int_equal(y.generation, 0);
    assert_status(qkv_tape_status(tape), status);
    if (!strstr(qkv_tape_error(tape), message))
        fail_msg("\"%s\" does not contain \"%s\"", qkv_tape_error(tape), message);
    qkv_tape_reset(tape);
}

/* ---- The normal distribution and the GELU ---------------------------------------------------- */

/* Phi, and the density, of numbers from the least with a Phi that is normal to 8; and what the GELU
 * and the slopes make of them. In long double, which has digits to spare where it is longer. */
static void the_tails_keep_their_digits(void **state)
{
    (void)state;
    const double least = QKV_REAL == 32 ? -12.9 : -37.5;
    for (int i = 0; i < MOST; i++) x[i] = (real)(least + (8 - least) * i / (MOST - 1));
    static real density[MOST];
    qkv_var in = leaf(qkv_shape1(MOST)), again = FN(qkv_leaf)(tape, qkv_shape1(MOST), x, density);
    qkv_var cdf = qkv_normal_cdf(tape, again), gelu = qkv_gelu(tape, in);
    memset(density, 0, sizeof density);
    add_gradient_of_sum(qkv_add(tape, cdf, gelu));
    for (int i = 0; i < MOST; i++) {
        const long double a = x[i], root = sqrtl(2), phi = expl(-a * a / 2) / sqrtl(2 * acosl(-1));
        const double p = (double)(erfcl(-a / root) / 2), slope = (double)(p + a * phi);
        assert_close((double)FN(qkv_value)(tape, cdf)[i] / p, 1, 8 * REAL_EPSILON);
        assert_close((double)FN(qkv_value)(tape, gelu)[i], (double)a * p,
                     9 * REAL_EPSILON * (fabs)((double)a * p));
        assert_close((double)density[i] / (double)phi, 1, 3 * REAL_EPSILON);
        assert_close((double)dx[i], slope, 16 * REAL_EPSILON * (p + (fabs)((double)(a * phi))));
    }
}

/* Through the subnormal numbers to 0. */
static void phi_ends_softly(void **state)
{
    (void)state;
    const real points[] = {(real)-13.5, -14, -38, (real)-38.5, -50,
                           -INFINITY,   0,   50,  INFINITY,    NAN};
    const double phi[] = {
        7.81880730566e-42, 7.79353681919e-45, 2.88542836007e-316, 0, 0, 0, 0.5, 1, 1, NAN};
    memcpy(x, points, sizeof points);
    qkv_var y = qkv_normal_cdf(tape, leaf(qkv_shape1(10)));
    add_gradient_of_sum(y);
    for (int i = 0; i < 10; i++) {
        assert_close((double)FN(qkv_value)(tape, y)[i], phi[i],
                     (double)REAL_MIN * REAL_EPSILON + 1e-11 * phi[i]);
        if (i > 2) assert_close((double)dx[i], i == 6 ? 0.3989422804014327 : 0 * phi[i], 1e-7);
    }
}

static void gelu_has_limits_and_so_has_its_slope(void **state)
{
    (void)state;
    const real smallest = REAL_MIN * REAL_EPSILON;
    const double value[] = {0, 0, 0, INFINITY, NAN, 0}, slope[] = {0, 0, 0.5, 1, NAN, 0.5};
    x[0] = -INFINITY, x[1] = -60, x[2] = 0, x[3] = INFINITY, x[4] = NAN, x[5] = smallest;
    qkv_var y = qkv_gelu(tape, leaf(qkv_shape1(6)));
    add_gradient_of_sum(y);
    for (int i = 0; i < 6; i++) {
        assert_close((double)FN(qkv_value)(tape, y)[i], value[i], 0);
        assert_close((double)dx[i], slope[i], 0);
    }
}

/* Recorded, the slopes are those of backward, and so are theirs: 0 at the infinities. */
static void recorded_slopes_have_limits(void **state)
{
    (void)state;
    qkv_var (*const of[])(qkv_tape *, qkv_var) = {qkv_gelu, qkv_normal_cdf};
    const double peak = 0.3989422804014327, at_2 = 0.05399096651318806, phi_2 = 0.9772498680518208;
    const double slope[2][5] = {{0, 1, NAN, 0.5, phi_2 + 2 * at_2}, {0, 0, NAN, peak, at_2}},
                 bend[2][5] = {{0, 0, NAN, 2 * peak, -2 * at_2}, {0, 0, NAN, 0, -2 * at_2}};
    x[0] = -INFINITY, x[1] = INFINITY, x[2] = NAN, x[3] = 0, x[4] = 2;
    for (int k = 0; k < 2; k++) {
        qkv_var in = leaf(qkv_shape1(5)), sum = qkv_sum(tape, of[k](tape, in), NULL, 0, false), g;
        assert_ok(qkv_grad(tape, sum, &in, 1, &g));
        memset(dx, 0, sizeof dx);
        add_gradient_of_sum(g);
        for (int i = 0; i < 5; i++) {
            assert_close((double)FN(qkv_value)(tape, g)[i], slope[k][i], 4 * REAL_EPSILON);
            assert_close((double)dx[i], bend[k][i], 4 * REAL_EPSILON);
        }
    }
}

/* ---- Layer normalization --------------------------------------------------------------------- */

enum { ROWS = 6, N = 37 };

/* Row by row, in double. */
static void norm_by_definition(const real *from, const real *weight, const real *bias,
                               double epsilon, double *y)
{
    for (int row = 0; row < ROWS; row++, from += N, y += N) {
        double mean = 0, variance = 0;
        for (int i = 0; i < N; i++) mean += (double)from[i] / N;
        for (int i = 0; i < N; i++) variance += ((double)from[i] - mean) * ((double)from[i] - mean);
        for (int i = 0; i < N; i++)
            y[i] = (double)(weight ? weight[i] : 1) * ((double)from[i] - mean) /
                       (sqrt)(variance / N + epsilon) +
                   (double)(bias ? bias[i] : 0);
    }
}

static void layer_norm_is_its_formula(void **state)
{
    (void)state;
    const real *weight = x + 1000, *bias = x + 2000;
    for (int k = 0; k < 8; k++) {
        qkv_tape_reset(tape);
        qkv_var w = {0}, b = {0}, in = leaf(qkv_shape3(2, 3, N));
        if (k & 1) w = FN(qkv_leaf)(tape, qkv_shape1(N), weight, NULL);
        if (k & 2) b = FN(qkv_leaf)(tape, qkv_shape1(N), bias, NULL);
        double epsilon = k & 4 ? 0.5 : 1e-5, expected[ROWS * N];
        norm_by_definition(x, k & 1 ? weight : NULL, k & 2 ? bias : NULL, epsilon, expected);
        qkv_var y = qkv_layer_norm(tape, in, w, b, k & 4 ? epsilon : 0);
        assert_int_equal(qkv_shape_of(tape, y).rank, 3);
        for (int i = 0; i < ROWS * N; i++)
            assert_close((double)FN(qkv_value)(tape, y)[i], expected[i], 32 * REAL_EPSILON);
    }
}

/* The same rows of small integers, with and without an offset that leaves them their last bit. */
static void an_offset_of_a_row_costs_layer_norm_no_digits(void **state)
{
    (void)state;
    enum { LONG = 1000 };
    static real y[2][LONG], gradient[2][LONG], recorded[2][LONG];
    const real offset = (real)0.125 / REAL_EPSILON;
    for (int far = 0; far < 2; far++) {
        memset(dx, 0, sizeof dx);
        qkv_tape_reset(tape);
        for (uint64_t i = 0; i < LONG; i++)
            x[i] = (real)(int)uniform(2, i, 0, 100) + (far ? offset : 0);
        qkv_var in = leaf(qkv_shape1(LONG)), g;
        qkv_var z = qkv_layer_norm(tape, in, (qkv_var){0}, (qkv_var){0}, 0);
        qkv_var cubes = qkv_sum(tape, qkv_mul(tape, z, qkv_mul(tape, z, z)), NULL, 0, false);
        assert_ok(qkv_grad(tape, cubes, &in, 1, &g));
        memcpy(recorded[far], FN(qkv_value)(tape, g), sizeof recorded[far]);
        add_gradient_of_sum(cubes);
        memcpy(y[far], FN(qkv_value)(tape, z), sizeof y[far]);
        memcpy(gradient[far], dx, sizeof gradient[far]);
    }
    for (int i = 0; i < LONG; i++) {
        assert_close((double)y[1][i], (double)y[0][i], 16 * REAL_EPSILON);
        assert_close((double)gradient[1][i], (double)gradient[0][i], 64 * REAL_EPSILON);
        assert_close((double)recorded[1][i], (double)recorded[0][i], 64 * REAL_EPSILON);
        assert_close((double)recorded[0][i], (double)gradient[0][i], 64 * REAL_EPSILON);
    }
    assert_true(y[0][0] != 0);
}

/* Numbers whose squares, or whose sum, would overflow; dx is r (g - mean(g) - z mean(g z)). */
static void rows_of_any_size_are_normalized(void **state)
{
    (void)state;
    static const double rows[][4] = {{0.5, -0.5, 1, 0}, {-1, 1, -1, 1}, {1, 1, 1, 1}, {0, 0, 0, 1}};
    const real g[4] = {1, 2, 4, -2}, sizes[] = {REAL_MAX, sqrt(REAL_MAX)};
    for (int k = 0; k < 8; k++) {
        double mean = 0, squares = 0, z[4], along = 0;
        for (int i = 0; i < 4; i++) mean += rows[k / 2][i] / 4;
        for (int i = 0; i < 4; i++) squares += (rows[k / 2][i] - mean) * (rows[k / 2][i] - mean);
        const double r =
            squares > 0 ? (double)(1 / sizes[k % 2]) / (sqrt)(squares / 4) : 1 / (sqrt)(1e-5);
        for (int i = 0; i < 4; i++) {
            x[i] = (real)rows[k / 2][i] * sizes[k % 2];
            z[i] = squares > 0 ? (rows[k / 2][i] - mean) / (sqrt)(squares / 4) : 0;
            along += (double)g[i] * z[i] / 4;
            dx[i] = 0;
        }
        qkv_tape_reset(tape);
        qkv_var y = qkv_layer_norm(tape, leaf(qkv_shape1(4)), (qkv_var){0}, (qkv_var){0}, 0);
        add_gradient_of_sum(qkv_mul(tape, y, FN(qkv_leaf)(tape, qkv_shape1(4), g, NULL)));
        for (int i = 0; i < 4; i++) {
            assert_close((double)FN(qkv_value)(tape, y)[i], z[i], 8 * REAL_EPSILON);
            assert_close((double)dx[i] / r, (double)g[i] - 1.25 - z[i] * along, 1e-5);
        }
    }
}

static void the_least_epsilon_is_not_lost(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) x[i] = (real)0.1;
    static const double epsilons[] = {1e-60, 5e-324};
    for (int k = 0; k < 2; k++) {
        const real *y = FN(qkv_value)(tape, qkv_layer_norm(tape, leaf(qkv_shape1(4)), (qkv_var){0},
                                                           (qkv_var){0}, epsilons[k]));
        for (int i = 0; i < 4; i++) assert_close((double)y[i], 0, 0);
    }
}

static void a_constant_row_is_its_bias(void **state)
{
    (void)state;
    const real bias[4] = {1, 2, 3, 4};
    for (int i = 0; i < 4; i++) x[i] = (real)0.1;
    qkv_var b = FN(qkv_leaf)(tape, qkv_shape1(4), bias, NULL);
    qkv_var y = qkv_layer_norm(tape, leaf(qkv_shape1(4)), (qkv_var){0}, b, 0);
    add_gradient_of_sum(qkv_mul(tape, y, y));
    for (int i = 0; i < 4; i++) {
        assert_close((double)FN(qkv_value)(tape, y)[i], (double)bias[i], 1e-6);
        assert_true(isfinite(dx[i]));
    }
}

static void layer_norm_of_no_rows_is_empty(void **state)
{
    (void)state;
    qkv_var y = qkv_layer_norm(tape, leaf(qkv_shape2(0, 4)), (qkv_var){0}, (qkv_var){0}, 0);
    assert_int_equal(qkv_shape_of(tape, y).dim[0], 0);
    add_gradient_of_sum(y);
}

static void what_layer_norm_refuses(void **state)
{
    (void)state;
    const qkv_var none = {0};
    assert_refused(qkv_layer_norm(tape, qkv_constant(tape, 1), none, none, 0), QKV_E_SHAPE,
                   "%1 = layer_norm(%0): a scalar has no last axis");
    assert_refused(qkv_layer_norm(tape, leaf(qkv_shape2(3, 0)), none, none, 0), QKV_E_SHAPE,
                   "the mean of nothing");
    qkv_var a = leaf(qkv_shape2(3, 4)), three = leaf(qkv_shape1(3));
    assert_refused(qkv_layer_norm(tape, a, three, none, 0), QKV_E_SHAPE,
                   "%2 = layer_norm(%0,%1): the weight is [3], expected [4]");
    a = leaf(qkv_shape2(3, 4)), three = leaf(qkv_shape2(1, 4));
    assert_refused(qkv_layer_norm(tape, a, none, three, 0), QKV_E_SHAPE,
                   "the bias is [1,4], expected [4]");
    static const double epsilons[] = {-1e-5, INFINITY, NAN};
    for (int i = 0; i < 3; i++)
        assert_refused(qkv_layer_norm(tape, leaf(qkv_shape2(3, 4)), none, none, epsilons[i]),
                       QKV_E_ARG, "epsilon is ");
}

/* ---- Dropout --------------------------------------------------------------------------------- */

/* The header's rule, by Random123 itself. */
static bool is_dropped(uint64_t seed, double p, uint64_t i)
{
    philox4x32_ctr_t counter = {{(uint32_t)(i / 4), (uint32_t)(i / 4 >> 32), 0, 0}};
    philox4x32_key_t key = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    return philox4x32(counter, key).v[i % 4] < p * 4294967296;
}

static void dropout_drops_what_its_rule_says(void **state)
{
    (void)state;
    static const uint64_t seeds[] = {0, 1, 0x123456789abcdef0};
    static const double ps[] = {0.125, 0.5, 0.75};
    enum { COUNT = MOST - 3 };
    for (int k = 0; k < 3; k++) {
        int dropped = 0;
        memset(dx, 0, sizeof dx);
        qkv_tape_reset(tape);
        qkv_var y = qkv_dropout(tape, leaf(qkv_shape1(COUNT)), ps[k], seeds[k]);
        add_gradient_of_sum(y);
        for (uint64_t i = 0; i < COUNT; i++) {
            bool drops = is_dropped(seeds[k], ps[k], i);
            real factor = drops ? 0 : (real)(1 / (1 - ps[k]));
            assert_close((double)FN(qkv_value)(tape, y)[i], (double)(factor * x[i]), 0);
            assert_close((double)dx[i], (double)factor, 0);
            dropped += drops;
        }
        double expected = ps[k] * COUNT, deviation = (sqrt)(expected * (1 - ps[k]));
        assert_close(dropped, expected, 4 * deviation);
    }
}

/* The last of 32 bits decides about the word itself. */
static void a_probability_is_rounded_to_32_bits(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 10; seed++) {
        philox4x32_ctr_t counter = {{0, 0, 0, 0}};
        philox4x32_key_t key = {{(uint32_t)seed, 0}};
        const double word = philox4x32(counter, key).v[0];
        for (int up = 0; up < 2; up++) {
            qkv_tape_reset(tape);
            qkv_var y =
                qkv_dropout(tape, leaf(qkv_shape1(4)), (word + (up ? 0.6 : 0.4)) * 0x1p-32, seed);
            assert_int_equal(FN(qkv_value)(tape, y)[0] == 0, up);
        }
    }
}

static void dropout_of_nothing_and_of_all(void **state)
{
    (void)state;
    for (int i = 0; i < MOST; i += 3) x[i] = i % 2 ? NAN : INFINITY;
    qkv_var in = leaf(qkv_shape1(MOST));
    assert_memory_equal(FN(qkv_value)(tape, qkv_dropout(tape, in, 0, 5)), x, sizeof x);
    qkv_var y = qkv_dropout(tape, in, 1, 5);
    add_gradient_of_sum(y);
    for (int i = 0; i < MOST; i++) {
        assert_close((double)FN(qkv_value)(tape, y)[i], 0, 0);
        assert_close((double)dx[i], 0, 0);
    }
}

static void a_probability_is_from_zero_to_one(void **state)
{
    (void)state;
    static const double ps[] = {-0.25, 1.25, NAN};
    static const char *const found[] = {"p is -0.25", "p is 1.25", "p is nan"};
    for (int i = 0; i < 3; i++)
        assert_refused(qkv_dropout(tape, leaf(qkv_shape1(3)), ps[i], 1), QKV_E_ARG, found[i]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_tails_keep_their_digits),
        TEST(phi_ends_softly),
        TEST(gelu_has_limits_and_so_has_its_slope),
        TEST(recorded_slopes_have_limits),
        TEST(layer_norm_is_its_formula),
        TEST(an_offset_of_a_row_costs_layer_norm_no_digits),
        TEST(rows_of_any_size_are_normalized),
        TEST(the_least_epsilon_is_not_lost),
        TEST(a_constant_row_is_its_bias),
        TEST(layer_norm_of_no_rows_is_empty),
        TEST(what_layer_norm_refuses),
        TEST(dropout_drops_what_its_rule_says),
        TEST(a_probability_is_rounded_to_32_bits),
        TEST(dropout_of_nothing_and_of_all),
        TEST(a_probability_is_from_zero_to_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
