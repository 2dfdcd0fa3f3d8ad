/* optim.c - the rules of descent, on registered arrays of either dtype. */
#include "qkv/optim.h"

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "grad/sum_of.h"
#include "qkv/parameters.h"
#include "src/fail.h"

/* One registered array. x and gradient are float or double, as dtype says. */
typedef struct parameter {
    qkv_dtype dtype;
    void *x, *gradient;
    size_t n;
    double *state; /* SGD: [n] velocity; Adam: [2, n] first and second moments */
    uint64_t steps;
} parameter;

struct qkv_optimizer {
    bool is_adam;
    qkv_sgd sgd;
    qkv_adam adam;
    double rate;
    parameter *parameters;
    size_t count;
};

/* Up to BLOCK numbers at a time, in double whatever the dtype: the rules are plain loops over them,
 * which vectorise. */
enum { BLOCK = 256 };

typedef struct block {
    double x[BLOCK], g[BLOCK];
    size_t start, n;
} block;

static void load(const void *data, qkv_dtype dtype, const block *b, double *to)
{
    for (size_t i = 0; i < b->n; i++)
        to[i] = dtype == QKV_F32 ? (double)((const float *)data)[b->start + i]
                                 : ((const double *)data)[b->start + i];
}

/* The block from start on; n = 0 behind the last. Its numbers are loaded when wanted. */
static void go_to(size_t start, const parameter *p, block *b)
{
    b->start = start;
    b->n = p->n - start < BLOCK ? p->n - start : BLOCK;
}

static void store(const block *b, parameter *p)
{
    for (size_t i = 0; i < b->n; i++)
        if (p->dtype == QKV_F32)
            ((float *)p->x)[b->start + i] = (float)b->x[i];
        else
            ((double *)p->x)[b->start + i] = b->x[i];
}

/* ---- The two rules --------------------------------------------------------------------------- */

static void step_sgd(const qkv_sgd *o, double rate, parameter *p)
{
    block b;
    for (go_to(0, p, &b); b.n; go_to(b.start + b.n, p, &b)) {
        load(p->x, p->dtype, &b, b.x);
        load(p->gradient, p->dtype, &b, b.g);
        double *restrict v = p->state + b.start;
        for (size_t i = 0; i < b.n; i++) {
            double g = b.g[i] + o->weight_decay * b.x[i];
            v[i] = o->momentum * v[i] + g;
            b.x[i] -= rate * (o->nesterov ? g + o->momentum * v[i] : v[i]);
        }
        store(&b, p);
    }
}

static void step_adam(const qkv_adam *o, double rate, parameter *p)
{
    const double steps = (double)++p->steps; /* of this array: its moments started at zero then */
    const double beta1 = o->beta1, beta2 = o->beta2, epsilon = o->epsilon;
    const double unbias1 = 1 / (1 - pow(beta1, steps)), unbias2 = 1 / (1 - pow(beta2, steps));
    const double decay = o->decoupled ? 0 : o->weight_decay;
    const double keep = o->decoupled ? 1 - rate * o->weight_decay : 1;
    block b;
    for (go_to(0, p, &b); b.n; go_to(b.start + b.n, p, &b)) {
        load(p->x, p->dtype, &b, b.x);
        load(p->gradient, p->dtype, &b, b.g);
        double *restrict m = p->state + b.start, *restrict v = m + p->n;
        for (size_t i = 0; i < b.n; i++) {
            double g = b.g[i] + decay * b.x[i];
            m[i] = beta1 * m[i] + (1 - beta1) * g;
            v[i] = beta2 * v[i] + (1 - beta2) * g * g;
            double step = unbias1 * m[i] / (sqrt(unbias2 * v[i]) + epsilon);
            b.x[i] = keep * b.x[i] - rate * step;
        }
        store(&b, p);
    }
}

/* Without a way out of the loop, and with sums of its own in each lane, so that it vectorises. */
static bool is_finite(const double *x, size_t n)
{
    enum { LANES = 8 };
    double zero[LANES] = {0}; /* NaN once a number is not finite */
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) zero[j] += 0 * x[i + j];
    for (; i < n; i++) zero[0] += 0 * x[i];
    for (size_t j = 1; j < LANES; j++) zero[0] += zero[j];
    return zero[0] == 0;
}

/* Nothing may change if anything is wrong, so this is asked of every array before the step. */
static qkv_status check_finite(const char *function, const parameter *p, size_t array)
{
    block b;
    for (go_to(0, p, &b); b.n; go_to(b.start + b.n, p, &b)) {
        load(p->gradient, p->dtype, &b, b.g);
        if (is_finite(b.g, b.n)) continue;
        size_t i = 0;
        while (isfinite(b.g[i])) i++;
        return qkv_fail(QKV_E_DOMAIN, "%s: the gradient of array %zu is %g at element %zu",
                        function, array, b.g[i], b.start + i);
    }
    return QKV_OK;
}

static qkv_status check_all_finite(const char *function, const qkv_optimizer *optimizer)
{
    if (!optimizer) return qkv_fail(QKV_E_ARG, "%s: optimizer is NULL", function);
    for (size_t i = 0; i < optimizer->count; i++) {
        qkv_status status = check_finite(function, &optimizer->parameters[i], i);
        if (status) return status;
    }
    return QKV_OK;
}

qkv_status qkv_optimizer_step(qkv_optimizer *optimizer)
{
    qkv_status status = check_all_finite("qkv_optimizer_step", optimizer);
    if (status) return status;
    for (size_t i = 0; i < optimizer->count; i++) {
        if (optimizer->is_adam)
            step_adam(&optimizer->adam, optimizer->rate, &optimizer->parameters[i]);
        else
            step_sgd(&optimizer->sgd, optimizer->rate, &optimizer->parameters[i]);
    }
    return QKV_OK;
}

void qkv_optimizer_zero_gradients(qkv_optimizer *optimizer)
{
    for (size_t i = 0; optimizer && i < optimizer->count; i++) {
        const parameter *p = &optimizer->parameters[i];
        size_t number = p->dtype == QKV_F32 ? sizeof(float) : sizeof(double);
        if (p->n) memset(p->gradient, 0, p->n * number);
    }
}

/* ---- Clipping -------------------------------------------------------------------------------- */

static double largest_gradient(const parameter *p)
{
    double largest = 0;
    block b;
    for (go_to(0, p, &b); b.n; go_to(b.start + b.n, p, &b)) {
        load(p->gradient, p->dtype, &b, b.g);
        for (size_t i = 0; i < b.n; i++) largest = fabs(b.g[i]) > largest ? fabs(b.g[i]) : largest;
    }
    return largest;
}

/* The sum of (factor gradient)^2, a block at a time. */
static double sum_of_squares(const parameter *p, double factor)
{
    double sum = 0;
    block b;
    for (go_to(0, p, &b); b.n; go_to(b.start + b.n, p, &b)) {
        load(p->gradient, p->dtype, &b, b.g);
        for (size_t i = 0; i < b.n; i++) b.g[i] = factor * b.g[i] * (factor * b.g[i]);
        sum += qkv_sum_of_f64(b.g, b.n);
    }
    return sum;
}

/* The norm, which may be beyond double, as scaled / factor. */
typedef struct scaled_norm {
    double scaled, factor;
} scaled_norm;

/* factor is a power of two that brings the largest gradient to 1/2 .. 1: no square overflows, and
 * what becomes subnormal then does not count beside it. */
static scaled_norm norm_of(const qkv_optimizer *optimizer)
{
    double largest = 0, sum = 0;
    int exponent;
    for (size_t i = 0; i < optimizer->count; i++)
        largest = fmax(largest, largest_gradient(&optimizer->parameters[i]));
    frexp(largest, &exponent);
    const double factor = ldexp(1, -(exponent > -DBL_MAX_EXP ? exponent : 1 - DBL_MAX_EXP));
    for (size_t i = 0; i < optimizer->count; i++)
        sum += sum_of_squares(&optimizer->parameters[i], factor);
    return (scaled_norm){sqrt(sum), factor};
}

static void scale_gradient(const parameter *p, double factor)
{
    for (size_t i = 0; i < p->n; i++)
        if (p->dtype == QKV_F32)
            ((float *)p->gradient)[i] = (float)(factor * (double)((float *)p->gradient)[i]);
        else
            ((double *)p->gradient)[i] *= factor;
}

qkv_status qkv_optimizer_clip_gradients(qkv_optimizer *optimizer, double max_norm, double *norm)
{
    static const char function[] = "qkv_optimizer_clip_gradients";
    if (norm) *norm = NAN;
    if (!(max_norm > 0))
        return qkv_fail(QKV_E_ARG, "%s: max_norm is %g, expected > 0", function, max_norm);
    qkv_status status = check_all_finite(function, optimizer);
    if (status) return status;
    const scaled_norm n = norm_of(optimizer);
    const double found = n.scaled / n.factor;
    if (norm) *norm = found;
    for (size_t i = 0; found > max_norm && i < optimizer->count; i++)
        scale_gradient(&optimizer->parameters[i], max_norm * n.factor / n.scaled);
    return QKV_OK;
}

/* ---- Options --------------------------------------------------------------------------------- */

static qkv_status check_option(const char *function, const char *option, double value, double limit)
{
    if (value >= 0 && value < limit) return QKV_OK;
    return qkv_fail(QKV_E_ARG, "%s: %s is %g, expected a finite number >= 0%s", function, option,
                    value, limit < INFINITY ? " and < 1" : "");
}

static qkv_status make(const char *function, qkv_optimizer **optimizer, qkv_optimizer made)
{
    *optimizer = malloc(sizeof **optimizer);
    if (!*optimizer) return qkv_fail(QKV_E_NOMEM, "%s: no memory for an optimizer", function);
    **optimizer = made;
    return QKV_OK;
}

qkv_status qkv_sgd_new(qkv_optimizer **optimizer, const qkv_sgd *options)
{
    static const char function[] = "qkv_sgd_new";
    if (!optimizer) return qkv_fail(QKV_E_ARG, "%s: optimizer is NULL", function);
    *optimizer = NULL;
    qkv_sgd o = options ? *options : (qkv_sgd){0};
    qkv_status status = check_option(function, "rate", o.rate, INFINITY);
    if (!status) status = check_option(function, "momentum", o.momentum, INFINITY);
    if (!status) status = check_option(function, "weight_decay", o.weight_decay, INFINITY);
    if (status) return status;
    return make(function, optimizer,
                (qkv_optimizer){.sgd = o, .rate = o.rate == 0 ? 0.01 : o.rate});
}

qkv_status qkv_adam_new(qkv_optimizer **optimizer, const qkv_adam *options)
{
    static const char function[] = "qkv_adam_new";
    if (!optimizer) return qkv_fail(QKV_E_ARG, "%s: optimizer is NULL", function);
    *optimizer = NULL;
    qkv_adam o = options ? *options : (qkv_adam){0};
    qkv_status status = check_option(function, "rate", o.rate, INFINITY);
    if (!status) status = check_option(function, "beta1", o.beta1, 1);
    if (!status) status = check_option(function, "beta2", o.beta2, 1);
    if (!status) status = check_option(function, "epsilon", o.epsilon, INFINITY);
    if (!status) status = check_option(function, "weight_decay", o.weight_decay, INFINITY);
    if (status) return status;
    if (o.beta1 == 0) o.beta1 = 0.9;
    if (o.beta2 == 0) o.beta2 = 0.999;
    if (o.epsilon == 0) o.epsilon = 1e-8;
    return make(function, optimizer,
                (qkv_optimizer){.is_adam = true, .adam = o, .rate = o.rate == 0 ? 0.001 : o.rate});
}

qkv_status qkv_optimizer_set_rate(qkv_optimizer *optimizer, double rate)
{
    static const char function[] = "qkv_optimizer_set_rate";
    if (!optimizer) return qkv_fail(QKV_E_ARG, "%s: optimizer is NULL", function);
    qkv_status status = check_option(function, "rate", rate, INFINITY);
    if (!status) optimizer->rate = rate;
    return status;
}

void qkv_optimizer_free(qkv_optimizer *optimizer)
{
    if (!optimizer) return;
    for (size_t i = 0; i < optimizer->count; i++) free(optimizer->parameters[i].state);
    free(optimizer->parameters);
    free(optimizer);
}

/* ---- Registration ---------------------------------------------------------------------------- */

static qkv_status add(const char *function, qkv_optimizer *optimizer, parameter p)
{
    if (!optimizer) return qkv_fail(QKV_E_ARG, "%s: optimizer is NULL", function);
    if (p.n && (!p.x || !p.gradient))
        return qkv_fail(QKV_E_ARG, "%s: %s is NULL, expected %zu numbers", function,
                        p.x ? "gradient" : "x", p.n);
    size_t bytes = (optimizer->is_adam ? 2 : 1) * sizeof *p.state;
    if (__builtin_mul_overflow(bytes, p.n, &bytes))
        return qkv_fail(QKV_E_OVERFLOW, "%s: the state of %zu numbers exceeds SIZE_MAX", function,
                        p.n);
    parameter *grown =
        realloc(optimizer->parameters, (optimizer->count + 1) * sizeof *optimizer->parameters);
    if (grown) optimizer->parameters = grown;
    p.state = grown && bytes ? calloc(1, bytes) : NULL;
    if (!grown || (bytes && !p.state))
        return qkv_fail(QKV_E_NOMEM, "%s: no memory for the state of %zu numbers", function, p.n);
    optimizer->parameters[optimizer->count++] = p;
    return QKV_OK;
}

qkv_status qkv_optimizer_add_f32(qkv_optimizer *optimizer, float *x, float *gradient, size_t n)
{
    return add("qkv_optimizer_add_f32", optimizer,
               (parameter){.dtype = QKV_F32, .x = x, .gradient = gradient, .n = n});
}

qkv_status qkv_optimizer_add_f64(qkv_optimizer *optimizer, double *x, double *gradient, size_t n)
{
    return add("qkv_optimizer_add_f64", optimizer,
               (parameter){.dtype = QKV_F64, .x = x, .gradient = gradient, .n = n});
}

qkv_status qkv_optimizer_add_parameters(qkv_optimizer *optimizer, qkv_parameters *set)
{
    static const char function[] = "qkv_optimizer_add_parameters";
    if (!optimizer || !set)
        return qkv_fail(QKV_E_ARG, "%s: %s is NULL", function, set ? "optimizer" : "set");
    const size_t before = optimizer->count;
    qkv_status status = QKV_OK;
    for (size_t i = 0; i < qkv_parameters_count(set) && !status; i++) {
        const qkv_parameter *p = qkv_parameters_at(set, i);
        status = add(
            function, optimizer,
            (parameter){.dtype = p->dtype, .x = p->data, .gradient = p->gradient, .n = p->size});
    }
    while (status && optimizer->count > before)
        free(optimizer->parameters[--optimizer->count].state);
    return status;
}
