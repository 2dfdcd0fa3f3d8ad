/* gradcheck_op.c - every operation of the registry, run through the gradient check. */
#include <stdlib.h>
#include <string.h>

#include "grad/tape.h"
#include "qkv/gradcheck.h"
#include "src/random.h"

enum { ORDER = 1, JITTER, COTANGENT }; /* streams of random numbers */
enum { INPUTS = sizeof((qkv_op_case){0}.input) / sizeof(qkv_shape) };

/* One case laid out: inputs, their gradients, and a cotangent for the result. */
typedef struct trial {
    const qkv_op_case *test;
    qkv_tape *tape;
    double *x[INPUTS], *gradient[INPUTS]; /* NULL for a constant */
    size_t n[INPUTS];
    double *cotangent;
    size_t n_result;
} trial;

/* The middles of n equal pieces of the domain, shuffled (Fisher and Yates), each moved by up to a
 * quarter of a piece. */
static void spread(double *x, size_t n, const qkv_op_case *test, uint64_t seed)
{
    bool unset = test->lower == 0 && test->upper == 0;
    double lower = unset ? -1 : test->lower, upper = unset ? 1 : test->upper;
    for (size_t i = 0; i < n; i++) {
        size_t j = (size_t)(qkv_random_uniform(seed, ORDER, i) * (double)(i + 1));
        double jitter = (qkv_random_uniform(seed, JITTER, i) - 0.5) / 2;
        x[i] = x[j];
        x[j] = lower + (upper - lower) * ((double)i + 0.5 + jitter) / (double)n;
    }
}

static qkv_status no_memory(void)
{
    return qkv_fail(QKV_E_NOMEM, "qkv_gradcheck_op: no memory for the numbers of a case");
}

static void record_inputs(const trial *c, qkv_var *x)
{
    for (int i = 0; i < c->test->n_input; i++)
        x[i] = qkv_leaf_f64(c->tape, c->test->input[i], c->x[i], c->gradient[i]);
}

static qkv_var apply(const trial *c, const qkv_var *x)
{
    if (c->test->unary) return c->test->unary(c->tape, x[0]);
    if (c->test->binary) return c->test->binary(c->tape, x[0], x[1]);
    return c->test->apply(c->tape, x);
}

/* The function under test: cotangent' result. */
static qkv_status evaluate(void *context, double *value)
{
    const trial *c = context;
    qkv_var x[INPUTS];
    qkv_tape_reset(c->tape);
    record_inputs(c, x);
    const double *y = qkv_value_f64(c->tape, apply(c, x));
    if (!y) return qkv_tape_status(c->tape);
    *value = 0;
    for (size_t i = 0; i < c->n_result; i++) *value += c->cotangent[i] * y[i];
    return QKV_OK;
}

static qkv_status lay_out(trial *c, uint64_t seed)
{
    for (int i = 0; i < c->test->n_input; i++) {
        const qkv_shape *shape = &c->test->input[i];
        c->n[i] = 1;
        for (int k = 0; k < shape->rank; k++) c->n[i] *= (size_t)shape->dim[k];
        c->x[i] = calloc(c->n[i], sizeof *c->x[i]);
        if (!c->x[i]) return no_memory();
        spread(c->x[i], c->n[i], c->test, seed + (uint64_t)i);
        if (c->test->constant >> i & 1) continue;
        c->gradient[i] = calloc(c->n[i], sizeof *c->gradient[i]);
        if (!c->gradient[i]) return no_memory();
    }
    return qkv_tape_new(&c->tape, QKV_F64);
}

/* total + weight sum x over the inputs on trial. */
static qkv_var use_beside(const trial *c, const qkv_var *x, qkv_var total, double weight)
{
    for (int i = 0; i < c->test->n_input; i++) {
        if (!c->gradient[i]) continue;
        qkv_var sum = qkv_sum(c->tape, x[i], NULL, 0, false);
        total = qkv_add(c->tape, total, qkv_mul(c->tape, sum, qkv_constant(c->tape, weight)));
    }
    return total;
}

/* Fills in the gradients on trial. The inputs are used before and after the operation, too, in a
 * way that cancels to the bit: an operation that does not add to what is there, but overwrites it,
 * loses the one that went before it in the sweep. */
static qkv_status differentiate(trial *c, uint64_t seed)
{
    qkv_var x[INPUTS];
    record_inputs(c, x);
    qkv_var before = use_beside(c, x, qkv_constant(c->tape, 0), 1), y = apply(c, x);
    qkv_shape shape = qkv_shape_of(c->tape, y);
    if (shape.rank < 0) return qkv_tape_status(c->tape);
    c->n_result = 1;
    for (int i = 0; i < shape.rank; i++) c->n_result *= (size_t)shape.dim[i];
    c->cotangent = calloc(c->n_result, sizeof *c->cotangent);
    if (!c->cotangent) return no_memory();
    for (size_t i = 0; i < c->n_result; i++)
        c->cotangent[i] = qkv_random_normal(seed, COTANGENT, i);
    qkv_var cotangent = qkv_leaf_f64(c->tape, shape, c->cotangent, NULL);
    qkv_var value = qkv_sum(c->tape, qkv_mul(c->tape, y, cotangent), NULL, 0, false);
    return qkv_backward(c->tape, use_beside(c, x, qkv_add(c->tape, before, value), -1));
}

static qkv_status compare(trial *c, uint64_t seed, qkv_check_report *report)
{
    static const char *const names[INPUTS] = {"x0", "x1", "x2", "x3", "x4", "x5", "x6"};
    qkv_check_input inputs[INPUTS];
    size_t n = 0;
    for (int i = 0; i < c->test->n_input; i++)
        if (c->gradient[i])
            inputs[n++] = (qkv_check_input){.name = names[i],
                                            .x = c->x[i],
                                            .gradient = c->gradient[i],
                                            .n = c->n[i],
                                            .lower = c->test->lower,
                                            .upper = c->test->upper};
    const qkv_check_options options = {.seed = seed, .gradient_is_zero = c->test->gradient_is_zero};
    return qkv_gradcheck(evaluate, c, inputs, n, &options, report);
}

static void clean_up(trial *c)
{
    for (int i = 0; i < INPUTS; i++) {
        free(c->x[i]);
        free(c->gradient[i]);
    }
    free(c->cotangent);
    qkv_tape_free(c->tape);
}

static qkv_status run_case(const qkv_op_case *test, uint64_t seed, qkv_check_report *report)
{
    trial c = {.test = test};
    qkv_status status = lay_out(&c, seed);
    if (!status) status = differentiate(&c, seed);
    if (!status) status = compare(&c, seed, report);
    clean_up(&c);
    return status;
}

/* Counts add up; the worst element stays, and a failure is worse than any ratio. */
static void merge(qkv_check_report *total, const qkv_check_report *one)
{
    size_t checked = total->checked + one->checked;
    bool worse = !one->passed || one->error * total->bound > total->error * one->bound;
    if (total->checked == 0 || worse) *total = *one;
    total->checked = checked;
}

qkv_status qkv_gradcheck_op(int op, uint64_t seed, qkv_check_report *report)
{
    qkv_check_report local;
    if (!report) report = &local;
    *report = (qkv_check_report){0};
    if (!qkv_op_name(op))
        return qkv_fail(QKV_E_ARG, "qkv_gradcheck_op: op is %d, expected 0 to %d", op,
                        qkv_op_count() - 1);
    for (const qkv_op_case *test = qkv_registry[op].cases; test->n_input; test++) {
        qkv_check_report one = {0};
        qkv_status status = run_case(test, seed, &one);
        merge(report, &one);
        if (!status) continue;
        report->passed = false;
        return qkv_fail(status, "%s: %s", test->label ? test->label : qkv_op_name(op),
                        qkv_last_error());
    }
    if (report->checked) return QKV_OK;
    report->vacuous = true;
    return qkv_fail(QKV_E_GRADIENT, "%s: no case to check", qkv_op_name(op));
}
