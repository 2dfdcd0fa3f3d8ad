#include "grad/trial.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/random.h"

enum { ORDER = 1, JITTER, COTANGENT }; /* streams of random numbers */
enum { DRAWS = 8 };

/* The middles of n equal pieces of the domain, shuffled (Fisher and Yates), each moved by up to a
 * quarter of a piece. */
static void spread(double *x, size_t n, const qkv_op_case *test, uint64_t seed, double factor)
{
    bool unset = test->lower == 0 && test->upper == 0;
    double lower = unset ? -factor : test->lower, upper = unset ? factor : test->upper;
    for (size_t i = 0; i < n; i++) {
        size_t j = (size_t)(qkv_random_uniform(seed, ORDER, i) * (double)(i + 1));
        double jitter = (qkv_random_uniform(seed, JITTER, i) - 0.5) / 2;
        x[i] = x[j];
        x[j] = (float)(lower + (upper - lower) * ((double)i + 0.5 + jitter) / (double)n);
    }
}

/* Zeroed doubles and floats; false without memory. */
static bool take(size_t n, double **x, float **x_f32)
{
    *x = calloc(n + !n, sizeof **x);
    *x_f32 = calloc(n + !n, sizeof **x_f32);
    return *x && *x_f32;
}

static size_t size_of(const qkv_shape *shape)
{
    size_t n = 1;
    for (int k = 0; k < shape->rank; k++) n *= (size_t)shape->dim[k];
    return n;
}

static qkv_var apply(const qkv_trial *c, qkv_tape *tape, const qkv_var *x)
{
    if (c->test->unary) return c->test->unary(tape, x[0]);
    if (c->test->binary) return c->test->binary(tape, x[0], x[1]);
    return c->test->apply(tape, x);
}

static void record_inputs(const qkv_trial *c, qkv_tape *tape, qkv_var *x)
{
    qkv_tape_reset(tape);
    for (int i = 0; i < c->test->n_input; i++)
        x[i] = tape == c->tape
                   ? qkv_leaf_f64(tape, c->test->input[i], c->x[i], c->gradient[i])
                   : qkv_leaf_f32(tape, c->test->input[i], c->x_f32[i], c->gradient_f32[i]);
}

static qkv_status no_memory(void)
{
    return qkv_fail(QKV_E_NOMEM, "qkv_gradcheck_op: no memory for the numbers of a case");
}

/* How many elements the result has, and memory for all numbers. */
static qkv_status take_all(qkv_trial *c)
{
    for (int i = 0; i < c->test->n_input; i++) {
        c->n[i] = size_of(&c->test->input[i]);
        if (!take(c->n[i], &c->x[i], &c->x_f32[i])) return no_memory();
        if (c->test->constant >> i & 1) continue;
        if (!take(c->n[i], &c->gradient[i], &c->gradient_f32[i])) return no_memory();
    }
    return QKV_OK;
}

static void draw_inputs(qkv_trial *c, double factor, uint64_t seed)
{
    for (int i = 0; i < c->test->n_input; i++) {
        spread(c->x[i], c->n[i], c->test, seed + (uint64_t)i, factor);
        for (size_t k = 0; k < c->n[i]; k++) c->x_f32[i][k] = (float)c->x[i][k];
    }
}

static qkv_status draw_cotangent(qkv_trial *c, uint64_t seed)
{
    qkv_var x[QKV_TRIAL_INPUTS];
    record_inputs(c, c->tape, x);
    qkv_shape shape = qkv_shape_of(c->tape, apply(c, c->tape, x));
    if (shape.rank < 0) return qkv_tape_status(c->tape);
    c->n_result = size_of(&shape);
    if (!c->cotangent && !take(c->n_result, &c->cotangent, &c->cotangent_f32)) return no_memory();
    for (size_t i = 0; i < c->n_result; i++)
        c->cotangent[i] = c->cotangent_f32[i] = (float)qkv_random_normal(seed, COTANGENT, i);
    return QKV_OK;
}

static uint64_t branches_of(const qkv_tape *tape)
{
    uint64_t hash = 0xcbf29ce484222325; /* FNV-1a, a word at a time */
    for (uint32_t n = 0; n < tape->n_nodes; n++) {
        const qkv_op *op = qkv_op_of(tape, &tape->nodes[n]);
        if (op->branches) hash = (hash ^ op->branches(tape, &tape->nodes[n])) * 0x100000001b3;
    }
    return hash;
}

/* Is nothing about these numbers an accident that would spoil the check? Float has to decide as
 * double does (no two scores tie within its rounding), and no gradient be a thousandth of another
 * because a whole row of products happens to cancel. */
static bool is_fair(qkv_trial *c)
{
    double largest[QKV_TRIAL_INPUTS] = {0}, most = 0;
    if (c->test->rounding < 0) return true;          /* it has no float */
    if (qkv_trial_differentiate_f32(c)) return true; /* it will fail, and say why */
    if (branches_of(c->tape) != branches_of(c->tape_f32)) return false;
    for (int i = 0; i < c->test->n_input; i++) {
        for (size_t k = 0; c->gradient[i] && k < c->n[i]; k++)
            largest[i] = fmax(largest[i], fabs(c->gradient[i][k]));
        most = fmax(most, largest[i]);
    }
    for (int i = 0; i < c->test->n_input; i++)
        if (c->gradient[i] && !(c->test->zero >> i & 1) && largest[i] < most / 1000) return false;
    return true;
}

qkv_status qkv_trial_begin(qkv_trial *c, const qkv_op_case *test, uint64_t seed, double factor)
{
    *c = (qkv_trial){.test = test, .seed = seed};
    qkv_status status = take_all(c);
    if (!status) status = qkv_tape_new(&c->tape, QKV_F64);
    if (!status) status = qkv_tape_new(&c->tape_f32, QKV_F32);
    for (uint64_t draw = 0; draw < DRAWS && !status; draw++) {
        uint64_t drawn = seed + draw * 0x9e3779b97f4a7c15;
        draw_inputs(c, factor, drawn);
        status = draw_cotangent(c, drawn);
        if (!status && is_fair(c)) break;
    }
    return status;
}

void qkv_trial_end(qkv_trial *c)
{
    for (int i = 0; i < QKV_TRIAL_INPUTS; i++) {
        free(c->x[i]);
        free(c->x_f32[i]);
        free(c->gradient[i]);
        free(c->gradient_f32[i]);
    }
    free(c->cotangent);
    free(c->cotangent_f32);
    qkv_tape_free(c->tape);
    qkv_tape_free(c->tape_f32);
}

qkv_status qkv_trial_value(void *trial, double *value)
{
    const qkv_trial *c = trial;
    qkv_var x[QKV_TRIAL_INPUTS];
    record_inputs(c, c->tape, x);
    const double *y = qkv_value_f64(c->tape, apply(c, c->tape, x));
    if (!y) return qkv_tape_status(c->tape);
    *value = 0;
    for (size_t i = 0; i < c->n_result; i++) *value += c->cotangent[i] * y[i];
    return QKV_OK;
}

uint64_t qkv_trial_branches(void *trial)
{
    return branches_of(((const qkv_trial *)trial)->tape);
}

/* total + weight sum x over the inputs on trial. */
static qkv_var use_beside(const qkv_trial *c, qkv_tape *tape, const qkv_var *x, qkv_var total,
                          double weight)
{
    for (int i = 0; i < c->test->n_input; i++) {
        if (!c->gradient[i]) continue;
        qkv_var sum = qkv_sum(tape, x[i], NULL, 0, false);
        total = qkv_add(tape, total, qkv_mul(tape, sum, qkv_constant(tape, weight)));
    }
    return total;
}

static qkv_status differentiate(qkv_trial *c, qkv_tape *tape, double factor, bool beside)
{
    qkv_var x[QKV_TRIAL_INPUTS], before = {0};
    record_inputs(c, tape, x);
    if (beside) before = use_beside(c, tape, x, qkv_constant(tape, 0), 1);
    qkv_var y = apply(c, tape, x);
    qkv_shape shape = qkv_shape_of(tape, y);
    qkv_var cotangent = tape == c->tape ? qkv_leaf_f64(tape, shape, c->cotangent, NULL)
                                        : qkv_leaf_f32(tape, shape, c->cotangent_f32, NULL);
    cotangent = qkv_mul(tape, cotangent, qkv_constant(tape, factor));
    qkv_var value = qkv_sum(tape, qkv_mul(tape, y, cotangent), NULL, 0, false);
    if (beside) value = use_beside(c, tape, x, qkv_add(tape, before, value), 2);
    return qkv_backward(tape, value);
}

static void forget(const qkv_trial *c)
{
    for (int i = 0; i < c->test->n_input; i++) {
        if (!c->gradient[i]) continue;
        memset(c->gradient[i], 0, c->n[i] * sizeof *c->gradient[i]);
        memset(c->gradient_f32[i], 0, c->n[i] * sizeof *c->gradient_f32[i]);
    }
}

qkv_status qkv_trial_differentiate(qkv_trial *c, double factor, bool beside)
{
    forget(c);
    return differentiate(c, c->tape, factor, beside);
}

qkv_status qkv_trial_differentiate_f32(qkv_trial *c)
{
    forget(c);
    qkv_status status = differentiate(c, c->tape, 1, false);
    return status ? status : differentiate(c, c->tape_f32, 1, false);
}

size_t qkv_trial_inputs(const qkv_trial *c, qkv_check_input inputs[QKV_TRIAL_INPUTS])
{
    static const char *const names[QKV_TRIAL_INPUTS] = {"x0", "x1", "x2", "x3", "x4", "x5", "x6"};
    size_t n = 0;
    for (int i = 0; i < c->test->n_input; i++)
        if (c->gradient[i])
            inputs[n++] = (qkv_check_input){.name = names[i],
                                            .x = c->x[i],
                                            .gradient = c->gradient[i],
                                            .n = c->n[i],
                                            .lower = c->test->lower,
                                            .upper = c->test->upper,
                                            .zero = c->test->zero >> i & 1 ? QKV_ZERO_EXACT
                                                                           : QKV_ZERO_UNDECLARED};
    return n;
}
