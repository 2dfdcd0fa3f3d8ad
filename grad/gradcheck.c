/* gradcheck.c - the verdict on a gradient: measure f's noise, difference, refine, judge, report. */
#include "qkv/gradcheck.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "src/fail.h"
#include "src/random.h"
#include "src/size.h"

/* Of the gradient scale of its input: the error at which a difference still decides. */
static const double RESOLUTION = 1e-6;
/* Standard deviations of the noise of f in E. R itself has about one (its weights are 64, -20 and 1
 * over 45), so the bound of 4 E leaves 32: the noise is known from five numbers only. */
static const double NOISE_FACTOR = 8;
enum { RETRIES = 6 };

typedef struct element {
    size_t input, index;
    double analytic;
    double step;       /* h_0 */
    double noise;      /* of f around x, a standard deviation */
    double numeric;    /* R */
    double truncation; /* |R - R2| */
    double error;      /* E; not finite if f was not */
    bool failed, inconclusive;
} element;

typedef struct check {
    qkv_check_function f;
    void *context;
    const qkv_check_input *inputs;
    size_t n_inputs;
    qkv_check_options options;
    double value; /* f at the inputs as given */
    element *elements;
    size_t count;
} check;

typedef struct input_name {
    char text[sizeof((qkv_check_report *)0)->worst_input];
} input_name;

static input_name name_of(const check *c, size_t input)
{
    input_name name;
    if (c->inputs[input].name)
        snprintf(name.text, sizeof name.text, "%s", c->inputs[input].name);
    else
        snprintf(name.text, sizeof name.text, "x%zu", input);
    return name;
}

/* ---- f --------------------------------------------------------------------------------------- */

/* f as the inputs are; e is the element that is not as given, NULL if none. */
static qkv_status evaluate(const check *c, const element *e, double *value)
{
    *value = NAN; /* what a function that forgets to answer has said */
    qkv_status status = c->f(c->context, value);
    if (!status) return QKV_OK;
    char cause[QKV_MESSAGE_BYTES / 2], where[96] = "the inputs as given";
    snprintf(cause, sizeof cause, "%s", qkv_last_error());
    if (e)
        snprintf(where, sizeof where, "%s[%zu] = %.17g", name_of(c, e->input).text, e->index,
                 c->inputs[e->input].x[e->index]);
    return qkv_fail(status, "qkv_gradcheck: the function returned %s at %s (%s)",
                    qkv_status_name(status), where, cause);
}

static qkv_status evaluate_at(const check *c, const element *e, double x, double *value)
{
    double *slot = &c->inputs[e->input].x[e->index];
    double kept = *slot;
    *slot = x;
    qkv_status status = evaluate(c, e, value);
    *slot = kept;
    return status;
}

/* ---- The numeric derivative ------------------------------------------------------------------ */

enum { POINTS = 9, CUBIC = 4 };

/* Irrational and unrelated: f with a constant added is linear and quantised, and at points of a
 * lattice its rounding errors can all be the same. -4, -(3/2 + sqrt 2), -(sqrt 5), -(golden - 1),
 * 0, sqrt 2, log 8, pi, sqrt 15. */
static const double points[POINTS] = {-4,
                                      -2.9142135623730951,
                                      -2.2360679774997898,
                                      -0.6180339887498949,
                                      0,
                                      1.4142135623730951,
                                      2.0794415416798359,
                                      3.1415926535897931,
                                      3.8729833462074170};

/* f minus its best cubic in the least squares sense: Gram-Schmidt on 1, t, t^2, t^3. */
static void remove_cubic(double f[POINTS])
{
    double basis[CUBIC][POINTS];
    for (int k = 0; k < CUBIC; k++) {
        double *p = basis[k], norm = 0, share = 0;
        for (int j = 0; j < POINTS; j++) p[j] = k ? basis[k - 1][j] * points[j] : 1;
        for (int i = 0; i < k; i++) {
            double overlap = 0;
            for (int j = 0; j < POINTS; j++) overlap += basis[i][j] * p[j];
            for (int j = 0; j < POINTS; j++) p[j] -= overlap * basis[i][j];
        }
        for (int j = 0; j < POINTS; j++) norm += p[j] * p[j];
        for (int j = 0; j < POINTS; j++) p[j] /= sqrt(norm);
        for (int j = 0; j < POINTS; j++) share += p[j] * f[j];
        for (int j = 0; j < POINTS; j++) f[j] -= share * p[j];
    }
}

/* The standard deviation of f about a cubic, over points so close together that a smooth f is one.
 */
static qkv_status deviation_from_cubic(const check *c, const element *e, double spacing,
                                       double *deviation)
{
    double x = c->inputs[e->input].x[e->index], f[POINTS], sum = 0;
    for (int j = 0; j < POINTS; j++) {
        qkv_status status = evaluate_at(c, e, x + points[j] * spacing, &f[j]);
        if (status) return status;
        f[j] -= c->value;
    }
    remove_cubic(f);
    for (int j = 0; j < POINTS; j++) sum += f[j] * f[j];
    *deviation = sqrt(sum / (POINTS - CUBIC));
    return QKV_OK;
}

/* An f that varies faster than its scale says is no cubic. That part shrinks by 16^4 from one
 * spacing to the next and noise does not, so the smallest of three is noise; but an exact 0 only
 * says that f, as stored, did not move. */
static qkv_status measure_noise(const check *c, element *e)
{
    double spacing = e->step / 512, deviation = INFINITY;
    for (int i = 0; i < 3 && deviation > DBL_EPSILON * fabs(c->value); i++, spacing /= 16) {
        qkv_status status = deviation_from_cubic(c, e, spacing, &deviation);
        if (status) return status;
        if (deviation > 0 && (e->noise == 0 || deviation < e->noise)) e->noise = deviation;
    }
    return QKV_OK;
}

/* R and E of element e at its step: the formulas of gradcheck.h. */
static qkv_status differentiate(const check *c, element *e)
{
    double x = c->inputs[e->input].x[e->index], h = e->step;
    double d[3], largest = fabs(c->value);
    for (int k = 0; k < 3; k++, h /= 2) {
        double above = x + h, below = x - h, f_above, f_below;
        qkv_status status = evaluate_at(c, e, above, &f_above);
        if (!status) status = evaluate_at(c, e, below, &f_below);
        if (status) return status;
        d[k] = (f_above - f_below) / (above - below);
        largest = fmax(largest, fmax(fabs(f_above), fabs(f_below)));
    }
    double r1 = (4 * d[1] - d[0]) / 3, r2 = (4 * d[2] - d[1]) / 3;
    double noise = fmax(e->noise, DBL_EPSILON / 8 * largest);
    e->numeric = (16 * r2 - r1) / 15;
    e->truncation = fabs(e->numeric - r2);
    e->error = e->truncation + NOISE_FACTOR * noise / (e->step / 4);
    return QKV_OK;
}

/* Smaller steps while truncation (or a NaN) is the larger part of E, larger ones while noise is,
 * until E is good enough; the best estimate stays. 64 times the first step is 0.37 of the way to
 * the end of the domain. */
static qkv_status refine(const check *c, element *e, double good_enough)
{
    double largest_step = 64 * e->step;
    element trial = *e;
    for (int i = 0; i < RETRIES && !(e->error <= good_enough); i++) {
        bool grow = trial.truncation < trial.error / 2;
        trial.step = fmin(trial.step * (grow ? 4 : 0.125), largest_step);
        qkv_status status = differentiate(c, &trial);
        if (status) return status;
        if (trial.error < e->error || !isfinite(e->error)) *e = trial;
    }
    return QKV_OK;
}

/* ---- The verdict ----------------------------------------------------------------------------- */

static bool agrees(const check *c, const element *e)
{
    if (c->options.gradient_is_zero && e->analytic != 0) return false;
    return isfinite(e->analytic) && isfinite(e->numeric) &&
           fabs(e->analytic - e->numeric) <= 4 * e->error;
}

/* How large the gradient of an input certainly is somewhere; of all inputs for input = n_inputs. */
static double gradient_scale(const check *c, size_t input)
{
    double scale = 0;
    for (size_t i = 0; i < c->count; i++) {
        const element *e = &c->elements[i];
        if (input < c->n_inputs && e->input != input) continue;
        if (isfinite(e->analytic)) scale = fmax(scale, fabs(e->analytic));
        if (isfinite(e->error)) scale = fmax(scale, fabs(e->numeric) - e->error);
    }
    return scale;
}

/* What an input's errors are measured by. One whose claim is exactly 0 everywhere has no scale of
 * its own: the other inputs lend theirs. */
static double reference_scale(const check *c, size_t input)
{
    for (size_t i = 0; i < c->count; i++)
        if (c->elements[i].input == input && c->elements[i].analytic != 0)
            return gradient_scale(c, input);
    return gradient_scale(c, c->n_inputs);
}

/* A disagreement has to be repeated at half the step: E is an estimate, too small by accident where
 * the fifth derivative has a zero. */
static qkv_status judge(const check *c, element *e, double scale)
{
    double own = fmax(fabs(e->analytic), fabs(e->numeric));
    qkv_status status = refine(c, e, RESOLUTION * fmax(own, scale / 1000));
    if (!status && isfinite(e->error) && !agrees(c, e)) {
        element again = *e;
        again.step /= 2;
        status = differentiate(c, &again);
        if (agrees(c, &again)) *e = again;
    }
    e->failed = !isfinite(e->analytic) || (isfinite(e->error) && !agrees(c, e));
    e->inconclusive = !e->failed && !(e->error <= RESOLUTION * scale);
    return status;
}

static qkv_status judge_all(const check *c)
{
    size_t input = SIZE_MAX;
    double scale = 0;
    qkv_status status = QKV_OK;
    for (size_t i = 0; i < c->count && !status; i++) {
        element *e = &c->elements[i];
        if (e->input != input) scale = reference_scale(c, e->input);
        input = e->input;
        /* A gradient that is 0 by design has no scale at all: f over its first step has one. */
        status = judge(c, e, c->options.gradient_is_zero ? fabs(c->value) / e->step : scale);
    }
    return status;
}

/* ---- What is checked ------------------------------------------------------------------------- */

static double room(const qkv_check_input *in, double x)
{
    if (in->lower == 0 && in->upper == 0) return INFINITY;
    return fmin(x - in->lower, in->upper - x);
}

/* f may be singular at the end of its domain, so the distance to it is a scale, too. */
static double first_step(const qkv_check_input *in, double x)
{
    double scale = in->scale > 0 ? in->scale : fmax(1, fabs(x));
    return pow(DBL_EPSILON, 1.0 / 7) * fmin(scale, room(in, x));
}

static qkv_status validate_input(const check *c, size_t input)
{
    const qkv_check_input *in = &c->inputs[input];
    input_name name = name_of(c, input);
    if (in->n && (!in->x || !in->gradient))
        return qkv_fail(QKV_E_ARG, "qkv_gradcheck: %s has %zu elements but its %s is NULL",
                        name.text, in->n, in->x ? "gradient" : "x");
    if (!(in->scale >= 0 && in->scale < INFINITY))
        return qkv_fail(QKV_E_ARG, "qkv_gradcheck: %s has scale %g, expected a number >= 0",
                        name.text, in->scale);
    if (!(in->lower < in->upper) && !(in->lower == 0 && in->upper == 0))
        return qkv_fail(QKV_E_ARG, "qkv_gradcheck: %s has the empty domain (%g, %g)", name.text,
                        in->lower, in->upper);
    for (size_t i = 0; i < in->n; i++)
        if (!isfinite(in->x[i]) || !(room(in, in->x[i]) > 0))
            return qkv_fail(
                QKV_E_ARG, "qkv_gradcheck: %s[%zu] is %.17g, expected a finite number%s", name.text,
                i, in->x[i], isfinite(in->x[i]) ? " inside the open domain" : "");
    return QKV_OK;
}

static size_t sample_size(const check *c, size_t input)
{
    size_t n = c->inputs[input].n, most = c->options.max_elements;
    return most && most < n ? most : n;
}

/* Selection sampling (Knuth, TAOCP 3.4.2, algorithm S): every subset equally likely, in order. */
static void choose_elements(check *c)
{
    for (size_t input = 0; input < c->n_inputs; input++) {
        const qkv_check_input *in = &c->inputs[input];
        size_t wanted = sample_size(c, input);
        for (size_t i = 0; i < in->n && wanted; i++) {
            double u = qkv_random_uniform(c->options.seed, input, i);
            if ((double)(in->n - i) * u >= (double)wanted) continue;
            c->elements[c->count++] = (element){.input = input,
                                                .index = i,
                                                .analytic = in->gradient[i],
                                                .step = first_step(in, in->x[i])};
            wanted--;
        }
    }
}

static qkv_status prepare(check *c)
{
    size_t total = 0;
    for (size_t input = 0; input < c->n_inputs; input++) {
        qkv_status status = validate_input(c, input);
        if (status) return status;
        if (!qkv_size_add(&total, sample_size(c, input)))
            return qkv_fail(QKV_E_OVERFLOW, "qkv_gradcheck: the inputs have too many elements");
    }
    c->elements = calloc(total + !total, sizeof *c->elements);
    if (!c->elements)
        return qkv_fail(QKV_E_NOMEM, "qkv_gradcheck: no memory for %zu elements", total);
    choose_elements(c);
    return QKV_OK;
}

/* The same bits from the same inputs? Asked before and after everything else. */
static qkv_status check_purity(const check *c)
{
    double again;
    qkv_status status = evaluate(c, NULL, &again);
    if (status || memcmp(&again, &c->value, sizeof again) == 0) return status;
    return qkv_fail(QKV_E_GRADIENT,
                    "qkv_gradcheck: f is not a function of its inputs: %.17g, then %.17g", c->value,
                    again);
}

static qkv_status examine(check *c)
{
    qkv_status status = prepare(c);
    if (!status) status = evaluate(c, NULL, &c->value);
    if (status) return status;
    if (!isfinite(c->value))
        return qkv_fail(QKV_E_GRADIENT, "qkv_gradcheck: f is %g at the inputs as given", c->value);
    status = check_purity(c);
    for (size_t i = 0; i < c->count && !status; i++) {
        status = measure_noise(c, &c->elements[i]);
        if (!status) status = differentiate(c, &c->elements[i]);
    }
    if (!status) status = judge_all(c);
    return status ? status : check_purity(c);
}

/* ---- The report ------------------------------------------------------------------------------ */

/* The share of the bound that is used up. NaN is infinitely bad. */
static double badness(const element *e)
{
    if (e->analytic == e->numeric) return 0;
    double ratio = fabs(e->analytic - e->numeric) / (4 * e->error);
    return isnan(ratio) ? INFINITY : ratio;
}

static bool is_worse(const element *a, const element *b)
{
    if (a->failed != b->failed) return a->failed;
    if (a->inconclusive != b->inconclusive) return a->inconclusive;
    return badness(a) > badness(b);
}

/* Zero within the error, on both sides, everywhere. */
static bool is_vacuous(const check *c)
{
    for (size_t i = 0; i < c->count; i++) {
        const element *e = &c->elements[i];
        if (!(fabs(e->analytic) <= 4 * e->error && fabs(e->numeric) <= 4 * e->error)) return false;
    }
    return true;
}

static void count_verdicts(const check *c, qkv_check_report *report)
{
    const element *worst = c->elements;
    for (size_t i = 0; i < c->count; i++) {
        const element *e = &c->elements[i];
        report->failed += e->failed;
        report->inconclusive += e->inconclusive;
        if (is_worse(e, worst)) worst = e;
    }
    report->checked = c->count;
    report->vacuous = !c->options.gradient_is_zero && is_vacuous(c);
    report->passed = !report->failed && !report->inconclusive && !report->vacuous;
    if (!c->count) return;
    memcpy(report->worst_input, name_of(c, worst->input).text, sizeof report->worst_input);
    report->worst_index = worst->index;
    report->analytic = worst->analytic;
    report->numeric = worst->numeric;
    report->error = fabs(worst->analytic - worst->numeric);
    report->bound = 4 * worst->error;
}

static qkv_status conclude(qkv_check_report *report)
{
    const char *verdict = report->passed    ? "right everywhere, worst"
                          : report->failed  ? "wrong"
                          : report->vacuous ? "zero everywhere, so nothing is proven, as"
                                            : "undecided (declare its scale or domain?)";
    if (report->checked)
        snprintf(report->message, sizeof report->message,
                 "qkv_gradcheck: the gradient is %s at %s[%zu]: %.9g, by differences %.9g, off by "
                 "%.2g, bound %.2g; %zu of %zu wrong, %zu undecided",
                 verdict, report->worst_input, report->worst_index, report->analytic,
                 report->numeric, report->error, report->bound, report->failed, report->checked,
                 report->inconclusive);
    else
        snprintf(report->message, sizeof report->message, "qkv_gradcheck: there are no elements");
    return report->passed ? QKV_OK : qkv_fail(QKV_E_GRADIENT, "%s", report->message);
}

qkv_status qkv_gradcheck(qkv_check_function f, void *context, const qkv_check_input *inputs,
                         size_t n_inputs, const qkv_check_options *options,
                         qkv_check_report *report)
{
    qkv_check_report own;
    if (!report) report = &own;
    *report = (qkv_check_report){0};
    check c = {.f = f, .context = context, .inputs = inputs, .n_inputs = n_inputs};
    if (options) c.options = *options;
    qkv_status status = QKV_OK;
    if (!f || (n_inputs && !inputs))
        status = qkv_fail(QKV_E_ARG, "qkv_gradcheck: %s is NULL", f ? "inputs" : "f");
    if (!status) status = examine(&c);
    if (!status) {
        count_verdicts(&c, report);
        status = conclude(report);
    } else {
        snprintf(report->message, sizeof report->message, "%s", qkv_last_error());
    }
    free(c.elements);
    return status;
}
