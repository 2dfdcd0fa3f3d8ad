/* covariance.c - exercise 2 of the chapter, four ways. For a(q, k) = q'k, softmax weights p and
 * values equal to the keys, the Jacobian of attention with respect to the query is the covariance
 * of the keys under p:
 *
 *     o = sum_j p_j k_j,   dp_j/dq = p_j (k_j - o)
 *     do/dq = sum_j p_j k_j (k_j - o)' = Cov_p[k]
 *
 * The tape differentiates, finite differences measure, and the covariance is computed from its
 * definition. The second proof needs no attention at all: o is the gradient of log sum_j exp(q'k_j)
 * with respect to q, so its Jacobian is the Hessian of that, by differentiating twice. */
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "qkv/attention.h"
#include "qkv/plot.h"
#include "qkv/tape.h"
#include "src/random.h"

typedef struct settings {
    long keys, d, seed;
    double scale;
    const char *plot, *format;
} settings;

/* One query against keys that are their own values. */
typedef struct exercise {
    qkv_attention a;
    double *q, *k, *weights; /* [d], [keys, d], [keys] */
    double *output;          /* [d] */
    double scale;
} exercise;

static exercise make_exercise(const settings *s)
{
    exercise e = {.a = {.batch = 1, .heads = 1, .n_q = 1, .n_k = s->keys, .d_k = s->d, .d_v = s->d},
                  .scale = s->scale};
    e.q = allocate((size_t)s->d, sizeof(double));
    e.k = allocate((size_t)(s->keys * s->d), sizeof(double));
    e.weights = allocate((size_t)s->keys, sizeof(double));
    e.output = allocate((size_t)s->d, sizeof(double));
    for (long c = 0; c < s->d; c++) e.q[c] = qkv_random_normal((uint64_t)s->seed, 0, (uint64_t)c);
    for (long x = 0; x < s->keys * s->d; x++)
        e.k[x] = qkv_random_normal((uint64_t)s->seed, 1, (uint64_t)x);
    return e;
}

static qkv_operands_f64 operands(exercise *e)
{
    return (qkv_operands_f64){
        .q.data = e->q, .k.data = e->k, .v.data = e->k, .scale.data = &e->scale};
}

/* o and p at the present query. */
static void attend(exercise *e)
{
    size_t bytes;
    check(qkv_attention_workspace(&e->a, QKV_FORWARD, QKV_F64, &bytes));
    void *workspace = allocate(bytes, 1);
    const qkv_operands_f64 in = operands(e);
    const qkv_results_f64 out = {.o.data = e->output, .weights.data = e->weights};
    check(qkv_attention_forward_f64(&e->a, &in, &out, workspace, bytes));
    free(workspace);
}

/* Row r of the Jacobian is the gradient of o_r, so backward starts from the r-th unit vector. */
static void by_tape(exercise *e, double *jacobian)
{
    ptrdiff_t d = e->a.d_k;
    double *unit = allocate((size_t)d, sizeof *unit);
    qkv_tape *t;
    check(qkv_tape_new(&t, QKV_F64));
    for (ptrdiff_t r = 0; r < d; r++) {
        unit[r] = 1;
        qkv_var k = qkv_leaf_f64(t, qkv_shape2(e->a.n_k, d), e->k, NULL);
        const qkv_attend_vars in = {.q = qkv_leaf_f64(t, qkv_shape2(1, d), e->q, jacobian + r * d),
                                    .k = k,
                                    .v = k,
                                    .scale = qkv_leaf_f64(t, qkv_scalar(), &e->scale, NULL)};
        qkv_var o = qkv_attend(t, &e->a, &in);
        qkv_var seed = qkv_leaf_f64(t, qkv_shape2(1, d), unit, NULL);
        check(qkv_backward_with(t, o, &(qkv_backward_options){.seed = seed}));
        qkv_tape_reset(t);
        unit[r] = 0;
    }
    qkv_tape_free(t);
    free(unit);
}

/* log sum_j exp(s_j), without overflow. */
static qkv_var log_sum_exp(qkv_tape *t, qkv_var s)
{
    const double *score = qkv_value_f64(t, s);
    double largest = -INFINITY;
    ptrdiff_t n = qkv_shape_of(t, s).dim[0];
    for (ptrdiff_t j = 0; score && j < n; j++) largest = fmax(largest, score[j]);
    qkv_var top = qkv_constant(t, largest);
    qkv_var sum = qkv_sum(t, qkv_exp(t, qkv_sub(t, s, top)), NULL, 0, false);
    return qkv_add(t, qkv_log(t, sum), top);
}

/* Row r is the gradient of element r of the gradient o, by u = scale q, times scale. */
static void by_two_gradients(exercise *e, double *output, double *jacobian)
{
    ptrdiff_t d = e->a.d_k;
    double *u = allocate((size_t)d, sizeof *u);
    qkv_tape *t;
    check(qkv_tape_new(&t, QKV_F64));
    for (ptrdiff_t c = 0; c < d; c++) u[c] = e->scale * e->q[c];
    for (ptrdiff_t r = 0; r < d; r++, qkv_tape_reset(t)) {
        qkv_var x = qkv_leaf_f64(t, qkv_shape2(d, 1), u, NULL), o, row;
        qkv_var k = qkv_leaf_f64(t, qkv_shape2(e->a.n_k, d), e->k, NULL);
        check(qkv_grad(t, log_sum_exp(t, qkv_matmul(t, k, x)), &x, 1, &o));
        check(qkv_grad(t, qkv_slice(t, o, 0, r, r + 1, 1), &x, 1, &row));
        memcpy(output, qkv_value_f64(t, o), (size_t)d * sizeof *output);
        for (ptrdiff_t c = 0; c < d; c++)
            jacobian[r * d + c] = e->scale * qkv_value_f64(t, row)[c] + 0.0;
    }
    qkv_tape_free(t);
    free(u);
}

/* Central differences of fourth order: (8 (o(q + h) - o(q - h)) - (o(q + 2h) - o(q - 2h))) / 12 h.
 */
static void by_differences(exercise *e, double *jacobian)
{
    static const double step = 1e-3, at[] = {1, -1, 2, -2}, factor[] = {8, -8, -1, 1};
    ptrdiff_t d = e->a.d_k;
    for (ptrdiff_t c = 0; c < d; c++) {
        double q = e->q[c];
        for (int i = 0; i < 4; i++) {
            e->q[c] = q + at[i] * step;
            attend(e);
            for (ptrdiff_t r = 0; r < d; r++)
                jacobian[r * d + c] += factor[i] * e->output[r] / (12 * step);
        }
        e->q[c] = q;
    }
    attend(e);
}

/* Cov_p[k]; the Jacobian is scale times it. */
static void covariance(exercise *e, double *cov)
{
    size_t bytes;
    check(qkv_attention_workspace(&e->a, QKV_COVARIANCE, QKV_F64, &bytes));
    void *workspace = allocate(bytes, 1);
    const qkv_operands_f64 in = operands(e);
    const qkv_slot_f64 to = {.data = cov};
    check(qkv_attention_covariance_f64(&e->a, &in, &to, workspace, bytes));
    free(workspace);
}

static double largest_difference(const double *x, const double *y, ptrdiff_t n)
{
    double largest = 0;
    for (ptrdiff_t i = 0; i < n; i++)
        if (!(fabs(x[i] - y[i]) <= largest)) largest = fabs(x[i] - y[i]);
    return largest;
}

enum { TAPE, DIFFERENCES, TWICE, COVARIANCE, WAYS };

/* The matrices, two side by side, at most 4 x 4 of each. */
static void print_matrices(const double *const matrix[WAYS], ptrdiff_t d)
{
    static const char *const title[] = {"tape", "finite differences", "log-sum-exp, twice",
                                        "scale * Cov_p[k]"};
    ptrdiff_t shown = d < 4 ? d : 4;
    int width = (int)(11 * shown > 18 ? 11 * shown : 18);
    for (int m = 0; m < WAYS; m += 2) {
        printf("%s%-*s   %s\n", m ? "\n" : "", width, title[m], title[m + 1]);
        for (ptrdiff_t r = 0; r < shown; r++)
            for (int side = 0; side < 2; side++) {
                for (ptrdiff_t c = 0; c < shown; c++) printf("%11.7f", matrix[m + side][r * d + c]);
                printf("%*s", side ? 1 : width - (int)(11 * shown) + 3, side ? "\n" : "");
            }
    }
    if (shown < d) printf("(the first %td rows and columns of %td)\n", shown, d);
}

static void print_result(exercise *e, const double *const matrix[WAYS], const double *gradient)
{
    ptrdiff_t d = e->a.d_k, n = d * d;
    printf("a(q, k) = %g q'k, %td key%s in %td dimensions, values = keys\n\n", e->scale, e->a.n_k,
           e->a.n_k == 1 ? "" : "s", d);
    print_matrices(matrix, d);
    printf("\nlargest difference   tape and covariance         %.2e\n",
           largest_difference(matrix[TAPE], matrix[COVARIANCE], n));
    printf("                     differences and covariance  %.2e\n",
           largest_difference(matrix[DIFFERENCES], matrix[COVARIANCE], n));
    printf("                     log-sum-exp and covariance  %.2e\n",
           largest_difference(matrix[TWICE], matrix[COVARIANCE], n));
    printf("                     its gradient and attention  %.2e\n",
           largest_difference(gradient, e->output, d));
}

/* ---- The figure: the first two coordinates ------------------------------------------------------
 */

enum { ELLIPSE = 200 };

/* The curve (x - mean)' Cov^-1 (x - mean) = radius^2, from the eigenvectors of the 2 x 2
 * covariance. */
static void ellipse(const double mean[2], const double *cov, ptrdiff_t d, double radius, double *x,
                    double *y)
{
    double a = cov[0], b = cov[1], c = cov[d + 1];
    double angle = atan2(2 * b, a - c) / 2, spread = hypot((a - c) / 2, b);
    double major = radius * sqrt(fmax(0, (a + c) / 2 + spread));
    double minor = radius * sqrt(fmax(0, (a + c) / 2 - spread));
    for (int i = 0; i < ELLIPSE; i++) {
        double t = 6.283185307179586 * i / (ELLIPSE - 1);
        double u = major * cos(t), v = minor * sin(t);
        x[i] = mean[0] + u * cos(angle) - v * sin(angle);
        y[i] = mean[1] + u * sin(angle) + v * cos(angle);
    }
}

static void draw(exercise *e, const double *cov, const settings *s)
{
    size_t n = (size_t)e->a.n_k;
    double *x = allocate(n, sizeof *x), *y = allocate(n, sizeof *y), *size = allocate(n, sizeof *x);
    double greatest = 0, largest = 24 * sqrt(fmin(1, 20 / (double)n)); /* many discs need room */
    for (size_t j = 0; j < n; j++) greatest = fmax(greatest, e->weights[j]);
    for (size_t j = 0; j < n; j++) {
        x[j] = e->k[j * (size_t)s->d];
        y[j] = e->k[j * (size_t)s->d + 1];
        size[j] = fmax(1.5, largest * sqrt(e->weights[j] / greatest)); /* the area is the weight */
    }
    double curve[2][2][ELLIPSE];
    for (int i = 0; i < 2; i++) ellipse(e->output, cov, s->d, i + 1, curve[i][0], curve[i][1]);
    const qkv_series series[] = {
        {QKV_POINTS, "keys, area = weight", n, x, y, .sizes = size, .colour = "#999999"},
        {QKV_LINE, "covariance, 1 \u03c3", ELLIPSE, curve[0][0], curve[0][1], .colour = "#0072b2"},
        {QKV_LINE, "covariance, 2 \u03c3", ELLIPSE, curve[1][0], curve[1][1], .colour = "#56b4e9"},
        {QKV_POINTS, "query", 1, e->q, e->q + 1, .size = 9, .colour = "#d55e00"},
        {QKV_POINTS, "attention", 1, e->output, e->output + 1, .size = 9, .colour = "#0072b2"}};
    const qkv_panel panel = {.title = "Keys, their weights, and their covariance under them",
                             .x_label = "first coordinate",
                             .y_label = "second coordinate",
                             .equal_aspect = true,
                             .series = series,
                             .n_series = sizeof series / sizeof *series};
    char name[32];
    snprintf(name, sizeof name, "covariance.%s", s->format);
    make_directories(s->plot);
    char *path = join_path(s->plot, name);
    check(qkv_plot_panels(&panel, 1, 1, &(qkv_figure){.path = path, .width = 6.5, .height = 5.5}));
    putchar('\n');
    say("wrote %s", path);
    free(path), free(x), free(y), free(size);
}

/* ---- The command line --------------------------------------------------------------------------
 */

static settings read_settings(int argc, char **argv)
{
    static const command_option options[] = {
        {"keys", "N", "Number of keys (default: 12)."},
        {"dim", "D", "Their dimension, 2 or more (default: 2)."},
        {"scale", "S", "Scale of the score (default: 1)."},
        {"seed", "N", "Seed of the random keys and query (default: 1)."},
        {"plot", "DIR",
         "Draw keys, weights and the covariance ellipses into DIR (default: figures; '' for "
         "none)."},
        {"format", "FORMAT", "Format of the figure: svg (default), png or pdf."},
        {NULL, NULL, NULL}};
    static const command c = {
        .usage = "",
        .summary =
            "Computes four ways, and draws, what the Jacobian of attention with respect to its "
            "query is: the covariance of the keys under the attention weights.",
        .options = options};
    settings s = {.keys = 12, .d = 2, .seed = 1, .scale = 1, .plot = "figures", .format = "svg"};
    for (int o; (o = command_next(&c, argc, argv)) >= 0;) switch (o) {
        case 0:
            s.keys = integer_argument("keys", optarg, 1, 1000000);
            break;
        case 1:
            s.d = integer_argument("dim", optarg, 2, 1024);
            break;
        case 2:
            s.scale = number_argument("scale", optarg, -1e6, 1e6);
            break;
        case 3:
            s.seed = integer_argument("seed", optarg, 0, 1L << 62);
            break;
        case 4:
            s.plot = *optarg ? optarg : NULL;
            break;
        case 5:
            s.format = format_argument("format", optarg);
            break;
        }
    if (optind < argc) usage_error("unexpected argument '%s'", argv[optind]);
    return s;
}

int main(int argc, char **argv)
{
    clean_up_on_signals();
    settings s = read_settings(argc, argv);
    exercise e = make_exercise(&s);
    e.a.score = QKV_SCORE_DOT;
    size_t n = (size_t)(s.d * s.d);
    double *matrix[WAYS], *cov = allocate(n, sizeof *cov);
    double *gradient = allocate((size_t)s.d, sizeof *gradient);
    for (int m = 0; m < WAYS; m++) matrix[m] = allocate(n, sizeof(double));
    by_tape(&e, matrix[TAPE]);
    by_differences(&e, matrix[DIFFERENCES]);
    by_two_gradients(&e, gradient, matrix[TWICE]);
    covariance(&e, cov);
    for (size_t x = 0; x < n; x++) matrix[COVARIANCE][x] = e.scale * cov[x] + 0.0; /* not -0 */
    print_result(&e, (const double *const *)matrix, gradient);
    if (s.plot) draw(&e, cov, &s);
    for (int m = 0; m < WAYS; m++) free(matrix[m]);
    free(cov), free(gradient), free(e.q), free(e.k), free(e.weights), free(e.output);
    return finish();
}
