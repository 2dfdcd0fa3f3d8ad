/* op_layer_norm.c - y = weight (x - mean) / sqrt(variance + epsilon) + bias along the last axis.
 *
 * With z = (x - mean) r, r = 1 / sqrt(variance + epsilon) and g = weight dy, backward is
 *
 *     dx = r (g - mean(g) - z mean(g z)),  dweight = sum of dy z,  dbias = sum of dy
 *
 * The mean is subtracted in two steps, itself and then what its rounding has left, so that a common
 * offset of a row costs no digits; squares are of what remains. A row whose sum or squares overflow
 * is measured again in small. */
#include "grad/reverse.h"
#include "grad/sum_of.h"
#include "src/real.h"

/* The call: which inputs there are after x. */
typedef struct call {
    double epsilon;
    bool weighted, shifted; /* by a weight, by a bias */
} call;

/* What forward found of a row: z = (x scale - mean - rest) r. */
typedef struct row {
    real scale, mean, rest, r;
} row;

typedef struct norm {
    call call;
    size_t n, rows;
    row *row;
} norm;

static qkv_status check_vector(qkv_tape *tape, qkv_node *node, int input, const char *name,
                               ptrdiff_t n)
{
    const qkv_node *v = qkv_input(tape, node, input);
    if (v->rank == 1 && v->dim[0] == n) return QKV_OK;
    char found[128];
    qkv_shape_describe(v->rank, v->dim, found, sizeof found);
    return qkv_node_fail(tape, node, QKV_E_SHAPE, "the %s is %s, expected [%td]", name, found, n);
}

static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    const call *a = arguments;
    const qkv_node *x = qkv_input(tape, node, 0);
    if (x->rank == 0) return qkv_node_fail(tape, node, QKV_E_SHAPE, "a scalar has no last axis");
    ptrdiff_t n = x->dim[x->rank - 1];
    if (n == 0) return qkv_node_fail(tape, node, QKV_E_SHAPE, "the mean of nothing");
    if (!(a->epsilon > 0 && a->epsilon < INFINITY))
        return qkv_node_fail(tape, node, QKV_E_ARG, "epsilon is %g, expected a finite number >= 0",
                             a->epsilon);
    qkv_status status = a->weighted ? check_vector(tape, node, 1, "weight", n) : QKV_OK;
    if (!status && a->shifted) status = check_vector(tape, node, 1 + a->weighted, "bias", n);
    if (status) return status;
    norm *s = node->state = qkv_node_take(tape, node, 1, sizeof *s);
    if (!s) return QKV_E_NOMEM;
    *s = (norm){.call = *a, .n = (size_t)n, .rows = x->size / (size_t)n};
    s->row = qkv_node_take(tape, node, s->rows, sizeof *s->row);
    return s->row ? qkv_node_shape(tape, node, x->rank, x->dim) : QKV_E_NOMEM;
}

/* z of one row. */
static void normalize(const norm *s, const row *of, const real *x, real *restrict z)
{
    for (size_t i = 0; i < s->n; i++) z[i] = (x[i] * of->scale - of->mean - of->rest) * of->r;
}

/* Finds a row's mean and r. work: [n]. */
static row measure(const norm *s, const real *x, real scale, real *restrict work)
{
    for (size_t i = 0; i < s->n; i++) work[i] = x[i] * scale;
    row found = {.scale = scale, .mean = FN(qkv_sum_of)(work, s->n) / (real)s->n};
    for (size_t i = 0; i < s->n; i++) work[i] -= found.mean;
    found.rest = FN(qkv_sum_of)(work, s->n) / (real)s->n;
    for (size_t i = 0; i < s->n; i++) work[i] = (work[i] - found.rest) * (work[i] - found.rest);
    real variance = FN(qkv_sum_of)(work, s->n) / (real)s->n;
    found.r = 1 / hypot(sqrt(variance), (real)(sqrt)(s->call.epsilon) * scale);
    if (found.r > REAL_MAX) found.r = REAL_MAX; /* times 0 it is 0, however small epsilon is */
    return found;
}

/* Where the sum or the squares overflow, r is 0 or NaN; in small, those of any n numbers do not. */
static row measure_any(const norm *s, const real *x, real *restrict work)
{
    const row found = measure(s, x, 1, work);
    return found.r > 0 ? found : measure(s, x, QKV_REAL == 32 ? 0x1p-90f : (real)0x1p-600, work);
}

static const real *value_of(const qkv_tape *tape, const qkv_node *node, int input, bool is_there)
{
    return is_there ? qkv_input(tape, node, input)->value : NULL;
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    norm *s = node->state;
    const real *x = qkv_input(tape, node, 0)->value;
    const real *weight = value_of(tape, node, 1, s->call.weighted);
    const real *bias = value_of(tape, node, 1 + s->call.weighted, s->call.shifted);
    real *restrict y = node->value;
    for (size_t k = 0; k < s->rows; k++, x += s->n, y += s->n) {
        s->row[k] = measure_any(s, x, y);
        normalize(s, &s->row[k], x, y);
        for (size_t i = 0; weight && i < s->n; i++) y[i] *= weight[i];
        for (size_t i = 0; bias && i < s->n; i++) y[i] += bias[i];
    }
    return QKV_OK;
}

/* dx of one row += its part. work: [n]. */
static void add_row(const norm *s, const row *of, const real *g, const real *z, real *restrict work,
                    real *restrict dx)
{
    real r = of->r * of->scale, mean = FN(qkv_sum_of)(g, s->n) / (real)s->n;
    for (size_t i = 0; i < s->n; i++) work[i] = g[i] * z[i];
    real along = FN(qkv_sum_of)(work, s->n) / (real)s->n;
    for (size_t i = 0; i < s->n; i++) dx[i] += r * (g[i] - mean - z[i] * along);
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    const norm *s = node->state;
    const real *x = qkv_input(tape, node, 0)->value, *dy = node->gradient;
    const int at_bias = 1 + s->call.weighted;
    const real *weight = value_of(tape, node, 1, s->call.weighted);
    real *dx = qkv_input_gradient(tape, node, 0);
    real *restrict dweight = weight ? qkv_input_gradient(tape, node, 1) : NULL;
    real *restrict dbias = s->call.shifted ? qkv_input_gradient(tape, node, at_bias) : NULL;
    real *z = qkv_node_workspace(tape, node, 3 * s->n * sizeof *z), *g = z ? z + s->n : NULL;
    if (!z) return QKV_E_NOMEM;
    for (size_t k = 0; k < s->rows; k++, x += s->n, dy += s->n) {
        normalize(s, &s->row[k], x, z);
        for (size_t i = 0; dweight && i < s->n; i++) dweight[i] += dy[i] * z[i];
        for (size_t i = 0; dbias && i < s->n; i++) dbias[i] += dy[i];
        if (!dx) continue;
        for (size_t i = 0; weight && i < s->n; i++) g[i] = weight[i] * dy[i];
        add_row(s, &s->row[k], weight ? g : dy, z, g + s->n, dx + k * s->n);
    }
    return QKV_OK;
}

const qkv_op FN(qkv_op_layer_norm) = {.shape = shape, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
static qkv_var mean_of(qkv_tape *t, qkv_var x)
{
    return qkv_mean(t, x, (int[]){-1}, 1, true);
}

/* r of each row. */
static qkv_var scale_of(qkv_tape *t, qkv_var x, double epsilon)
{
    qkv_var near = qkv_sub(t, x, mean_of(t, x)), centred = qkv_sub(t, near, mean_of(t, near));
    qkv_var variance = mean_of(t, qkv_mul(t, centred, centred));
    qkv_var deviation = qkv_sqrt(t, qkv_add(t, variance, qkv_constant(t, epsilon)));
    return qkv_div(t, qkv_constant(t, 1), deviation);
}

void qkv_differentiate_layer_norm(qkv_tape *t, const qkv_reverse *r)
{
    const call c = ((const norm *)qkv_state_of(t, r->y))->call;
    const int at_bias = 1 + c.weighted;
    qkv_var x = r->x[0], z = qkv_layer_norm(t, x, (qkv_var){0}, (qkv_var){0}, c.epsilon);
    if (r->wanted[0]) {
        qkv_var g = c.weighted ? qkv_mul(t, r->dy, r->x[1]) : r->dy;
        qkv_var along = qkv_mul(t, z, mean_of(t, qkv_mul(t, g, z)));
        qkv_var across = qkv_sub(t, qkv_sub(t, g, mean_of(t, g)), along);
        r->dx[0] = qkv_mul(t, scale_of(t, x, c.epsilon), across);
    }
    if (c.weighted && r->wanted[1]) r->dx[1] = qkv_sum_to(t, qkv_mul(t, r->dy, z), r->x[1]);
    if (c.shifted && r->wanted[at_bias]) r->dx[at_bias] = qkv_sum_to(t, r->dy, r->x[at_bias]);
}

qkv_var qkv_layer_norm(qkv_tape *tape, qkv_var x, qkv_var weight, qkv_var bias, double epsilon)
{
    qkv_var inputs[3] = {x};
    int n = 1;
    call c = {.epsilon = epsilon == 0 ? 1e-5 : epsilon,
              .weighted = weight.generation != 0,
              .shifted = bias.generation != 0};
    if (c.weighted) inputs[n++] = weight;
    if (c.shifted) inputs[n++] = bias;
    return qkv_record(tape, QKV_OP_layer_norm, inputs, n, &c);
}

static qkv_var full(qkv_tape *tape, const qkv_var *x)
{
    return qkv_layer_norm(tape, x[0], x[1], x[2], 0);
}

static qkv_var bare(qkv_tape *tape, const qkv_var *x)
{
    return qkv_layer_norm(tape, x[0], (qkv_var){0}, (qkv_var){0}, 0.1);
}

static qkv_var weighted(qkv_tape *tape, const qkv_var *x)
{
    return qkv_layer_norm(tape, x[0], x[1], (qkv_var){0}, 0);
}

static qkv_var shifted(qkv_tape *tape, const qkv_var *x)
{
    return qkv_layer_norm(tape, x[0], (qkv_var){0}, x[1], 0);
}

const qkv_op_case qkv_cases_layer_norm[] = {
    {.n_input = 3, .input = {{3, {2, 3, 5}}, {1, {5}}, {1, {5}}}, .apply = full},
    {.label = "layer_norm alone", .n_input = 1, .input = {{1, {6}}}, .apply = bare},
    {.label = "layer_norm, a weight",
     .n_input = 2,
     .input = {{2, {3, 4}}, {1, {4}}},
     .apply = weighted},
    {.label = "layer_norm, a bias",
     .n_input = 2,
     .input = {{2, {3, 4}}, {1, {4}}},
     .apply = shifted},
    {.label = "layer_norm, a constant x",
     .n_input = 3,
     .input = {{2, {4, 3}}, {1, {3}}, {1, {3}}},
     .constant = 1u << 0,
     .apply = full},
    {0},
};
#endif
