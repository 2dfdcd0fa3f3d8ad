/* gradcheck.c - the verdict on a gradient: lines through the inputs are differenced
 * (difference.h), judged and reported. */
#include "qkv/gradcheck.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grad/difference.h"
#include "src/fail.h"
#include "src/random.h"
#include "src/size.h"

/* Of the gradient scale of its input: the error at which a difference still decides. */
static const double RESOLUTION = 1e-6, RESOLUTION_F32 = 1e-2;

typedef struct check {
    qkv_differences d;
    qkv_check_options options;
    qkv_line *lines;
    size_t count;
} check;

/* ---- The verdict ----------------------------------------------------------------------------- */

static bool agrees(const check *c, const qkv_line *e)
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
        const qkv_line *e = &c->lines[i];
        if (input < c->d.n_inputs && e->input != input) continue;
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
        if (c->lines[i].input == input && c->lines[i].analytic != 0)
            return gradient_scale(c, input);
    return gradient_scale(c, c->d.n_inputs);
}

/* d.u becomes direction index of the line's input, and the line's norm its length. */
static void set_direction(check *c, qkv_line *e)
{
    size_t n = qkv_array_of(&c->d, e->input).n;
    uint64_t stream = (uint64_t)e->index * c->d.n_inputs + e->input;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        c->d.u[i] = qkv_random_normal(c->options.seed, stream, i);
        sum += c->d.u[i] * c->d.u[i];
    }
    e->norm = sqrt(sum);
    for (size_t i = 0; i < n; i++) c->d.u[i] /= e->norm;
}

/* A disagreement has to be repeated at half the step: E is an estimate, too small by accident where
 * the fifth derivative has a zero. */
static qkv_status judge(check *c, qkv_line *e, double scale)
{
    double own = fmax(fabs(e->analytic), fabs(e->numeric));
    if (e->is_direction) set_direction(c, e);
    qkv_status status = qkv_refine(&c->d, e, c->d.resolution * fmax(own, scale / 1000));
    if (!status && isfinite(e->error) && !agrees(c, e)) {
        qkv_line again = *e;
        again.step /= 2;
        status = qkv_differentiate(&c->d, &again);
        if (agrees(c, &again)) *e = again;
    }
    e->failed = !isfinite(e->analytic) || (isfinite(e->error) && !agrees(c, e));
    e->inconclusive = !e->failed && !(e->error <= c->d.resolution * scale);
    if (!status && (e->failed || e->inconclusive || e->bent)) status = qkv_diagnose(&c->d, e);
    if (e->kinked && isfinite(e->analytic)) e->inconclusive = true, e->failed = false;
    return status;
}

static qkv_status judge_all(check *c)
{
    size_t input = SIZE_MAX;
    double scale = 0;
    qkv_status status = QKV_OK;
    for (size_t i = 0; i < c->count && !status; i++) {
        qkv_line *e = &c->lines[i];
        if (e->input != input) scale = reference_scale(c, e->input);
        input = e->input;
        /* A gradient that is 0 by design has no scale at all: f over its first step has one. */
        status = judge(c, e, c->options.gradient_is_zero ? fabs(c->d.value) / e->step : scale);
    }
    return status;
}

/* ---- What is checked ------------------------------------------------------------------------- */

static qkv_status validate_input(const check *c, size_t input)
{
    const qkv_check_array in = qkv_array_of(&c->d, input);
    const char *who = c->d.who;
    qkv_check_name name = qkv_name_of(&c->d, input);
    if (in.n && (!in.x || !in.gradient))
        return qkv_fail(QKV_E_ARG, "%s: %s has %zu elements but its %s is NULL", who, name.text,
                        in.n, in.x ? "gradient" : "x");
    if (!(in.scale >= 0 && in.scale < INFINITY))
        return qkv_fail(QKV_E_ARG, "%s: %s has scale %g, expected a number >= 0", who, name.text,
                        in.scale);
    if (!(in.lower < in.upper) && !(in.lower == 0 && in.upper == 0))
        return qkv_fail(QKV_E_ARG, "%s: %s has the empty domain (%g, %g)", who, name.text, in.lower,
                        in.upper);
    for (size_t i = 0; i < in.n; i++) {
        double x = qkv_input_at(&c->d, in.x, i);
        if (!isfinite(x) || !(qkv_room(&in, x) > 0))
            return qkv_fail(QKV_E_ARG, "%s: %s[%zu] is %.17g, expected a finite number%s", who,
                            name.text, i, x, isfinite(x) ? " inside the open domain" : "");
    }
    return QKV_OK;
}

static size_t sample_size(const check *c, size_t input)
{
    size_t n = qkv_array_of(&c->d, input).n, most = c->options.max_elements;
    if (c->options.directions) return n ? (size_t)c->options.directions : 0;
    return most && most < n ? most : n;
}

static void add_line(check *c, qkv_line line)
{
    qkv_line *e = &c->lines[c->count++];
    *e = line;
    e->is_direction = c->options.directions > 0;
    e->norm = 1;
    if (e->is_direction)
        set_direction(c, e);
    else
        e->analytic = qkv_input_at(&c->d, qkv_array_of(&c->d, e->input).gradient, e->index);
    qkv_line_begin(&c->d, e);
}

/* Of elements, selection sampling (Knuth, TAOCP 3.4.2, algorithm S): every subset equally likely,
 * in order. */
static void choose_lines(check *c)
{
    for (size_t input = 0; input < c->d.n_inputs; input++) {
        size_t wanted = sample_size(c, input), n = qkv_array_of(&c->d, input).n;
        if (c->options.directions) n = wanted;
        for (size_t i = 0; i < n && wanted; i++) {
            double u = qkv_random_uniform(c->options.seed, input, i);
            if ((double)(n - i) * u >= (double)wanted) continue;
            add_line(c, (qkv_line){.input = input, .index = i});
            wanted--;
        }
    }
}

static qkv_status prepare(check *c)
{
    size_t total = 0, longest = 1;
    if (c->options.directions < 0)
        return qkv_fail(QKV_E_ARG, "%s: directions is %d, expected 0 or more", c->d.who,
                        c->options.directions);
    if (!(c->options.delta >= 0 && c->options.delta < 1))
        return qkv_fail(QKV_E_ARG, "%s: delta is %g, expected a probability below 1", c->d.who,
                        c->options.delta);
    for (size_t input = 0; input < c->d.n_inputs; input++) {
        qkv_status status = validate_input(c, input);
        if (status) return status;
        if (!qkv_size_add(&total, sample_size(c, input)))
            return qkv_fail(QKV_E_OVERFLOW, "%s: the inputs have too many elements", c->d.who);
        if (qkv_array_of(&c->d, input).n > longest) longest = qkv_array_of(&c->d, input).n;
    }
    if (!c->options.directions) longest = 1;
    c->lines = calloc(total + !total, sizeof *c->lines);
    c->d.u = calloc(longest, sizeof *c->d.u);
    c->d.kept = calloc(longest, sizeof(double));
    if (!c->lines || !c->d.u || !c->d.kept)
        return qkv_fail(QKV_E_NOMEM, "%s: no memory for %zu elements", c->d.who, total);
    choose_lines(c);
    return QKV_OK;
}

/* The same bits from the same inputs? Asked before and after everything else. */
static qkv_status check_purity(const check *c)
{
    double again;
    qkv_status status = qkv_evaluate(&c->d, &again);
    if (status || memcmp(&again, &c->d.value, sizeof again) == 0) return status;
    return qkv_fail(QKV_E_GRADIENT, "%s: f is not a function of its inputs: %.17g, then %.17g",
                    c->d.who, c->d.value, again);
}

static qkv_status examine(check *c)
{
    qkv_status status = prepare(c);
    if (!status) status = qkv_evaluate(&c->d, &c->d.value);
    if (status) return status;
    if (!isfinite(c->d.value))
        return qkv_fail(QKV_E_GRADIENT, "%s: f is %g at the inputs as given", c->d.who, c->d.value);
    if (c->d.branches) c->d.branch = c->d.branches(c->d.context);
    status = check_purity(c);
    for (size_t i = 0; i < c->count && !status; i++) {
        qkv_line *e = &c->lines[i];
        if (e->is_direction) set_direction(c, e);
        status = qkv_measure_noise(&c->d, e);
        if (!status) status = qkv_differentiate(&c->d, e);
    }
    if (!status) status = judge_all(c);
    return status ? status : check_purity(c);
}

/* ---- The report ------------------------------------------------------------------------------ */

/* The share of the bound that is used up. NaN is infinitely bad. */
static double badness(const qkv_line *e)
{
    if (e->analytic == e->numeric) return 0;
    double ratio = fabs(e->analytic - e->numeric) / (4 * e->error);
    return isnan(ratio) ? INFINITY : ratio;
}

static bool is_worse(const qkv_line *a, const qkv_line *b)
{
    if (a->failed != b->failed) return a->failed;
    if (a->inconclusive != b->inconclusive) return a->inconclusive;
    return badness(a) > badness(b);
}

/* Zero within the error, on both sides, everywhere. */
static bool is_vacuous(const check *c)
{
    for (size_t i = 0; i < c->count; i++) {
        const qkv_line *e = &c->lines[i];
        if (!(fabs(e->analytic) <= 4 * e->error && fabs(e->numeric) <= 4 * e->error)) return false;
    }
    return true;
}

static double norm_of(const check *c, size_t input)
{
    const qkv_check_array in = qkv_array_of(&c->d, input);
    double squares = 0;
    for (size_t i = 0; i < in.n; i++) {
        double a = qkv_input_at(&c->d, in.gradient, i);
        squares += a * a;
    }
    return sqrt(squares);
}

/* The largest bound of an input's error, as a share of its gradient; of the largest gradient, if
 * its own is 0. */
static double certificate_of(const check *c)
{
    double delta = c->options.delta > 0 ? c->options.delta : 1e-6, share = 0, longest = 0;
    double factor = sqrt(2 / 3.14159265358979324) * pow(delta, -1.0 / c->options.directions);
    for (size_t i = 0; i < c->d.n_inputs; i++) longest = fmax(longest, norm_of(c, i));
    for (size_t input = 0; input < c->d.n_inputs; input++) {
        double tau = 0, norm = norm_of(c, input);
        for (size_t i = 0; i < c->count; i++) {
            const qkv_line *e = &c->lines[i];
            if (e->input != input) continue;
            if (e->failed || e->inconclusive) return INFINITY;
            tau = fmax(tau, fabs(e->analytic - e->numeric) + 4 * e->error);
        }
        if (tau > 0) share = fmax(share, factor * tau / (norm > 0 ? norm : longest));
    }
    return share;
}

static void describe_worst(const check *c, const qkv_line *worst, qkv_check_report *report)
{
    memcpy(report->worst_input, qkv_name_of(&c->d, worst->input).text, sizeof report->worst_input);
    report->worst_index = worst->index;
    report->analytic = worst->analytic;
    report->numeric = worst->numeric;
    report->error = fabs(worst->analytic - worst->numeric);
    report->bound = 4 * worst->error;
    report->left = worst->left;
    report->right = worst->right;
    report->taylor_rate = worst->taylor_rate;
}

static void count_verdicts(const check *c, qkv_check_report *report)
{
    const qkv_line *worst = c->lines;
    for (size_t i = 0; i < c->count; i++) {
        const qkv_line *e = &c->lines[i];
        report->failed += e->failed;
        report->inconclusive += e->inconclusive;
        report->kinks += e->kinked;
        if (is_worse(e, worst)) worst = e;
    }
    report->checked = c->count;
    report->vacuous = !c->options.gradient_is_zero && is_vacuous(c);
    report->passed = !report->failed && !report->inconclusive && !report->vacuous;
    report->weak = c->d.dtype == QKV_F32;
    if (c->options.directions) report->certificate = certificate_of(c);
    if (c->count) describe_worst(c, worst, report);
}

/* What the diagnosis adds to the message. */
static void explain(const qkv_check_report *report, char text[120])
{
    *text = 0;
    if (report->passed) {
        if (report->certificate > 0)
            snprintf(text, 120, "; the whole is off by less than %.1e of its norm",
                     report->certificate);
    } else if (report->kinks && !report->failed) {
        snprintf(text, 120, "; f has a kink there, slope %.3g on the left, %.3g on the right",
                 report->left, report->right);
    } else if (report->failed && isfinite(report->taylor_rate)) {
        snprintf(text, 120, "; Taylor's remainder falls like step^%.1f", report->taylor_rate);
    }
}

static qkv_status conclude(const check *c, qkv_check_report *report)
{
    const char *verdict = report->passed    ? "right everywhere, worst"
                          : report->failed  ? "wrong"
                          : report->vacuous ? "zero everywhere, so nothing is proven, as"
                                            : "undecided (declare its scale or domain?)";
    char more[120];
    explain(report, more);
    if (report->checked)
        snprintf(report->message, sizeof report->message,
                 "%s: the gradient%s is %s at %s[%zu]: %.9g, by differences %.9g, off by %.2g, "
                 "bound %.2g; %zu of %zu wrong, %zu undecided%s",
                 c->d.who, c->options.directions ? " along random directions" : "", verdict,
                 report->worst_input, report->worst_index, report->analytic, report->numeric,
                 report->error, report->bound, report->failed, report->checked,
                 report->inconclusive, more);
    else
        snprintf(report->message, sizeof report->message, "%s: there are no elements", c->d.who);
    return report->passed ? QKV_OK : qkv_fail(QKV_E_GRADIENT, "%s", report->message);
}

static qkv_status run(check *c, const qkv_check_options *options, qkv_check_report *report)
{
    qkv_check_report own;
    if (!report) report = &own;
    *report = (qkv_check_report){0};
    if (options) c->options = *options;
    c->d.branches = c->options.branches;
    c->d.epsilon = c->d.dtype == QKV_F32 ? FLT_EPSILON : DBL_EPSILON;
    c->d.resolution = c->d.dtype == QKV_F32 ? RESOLUTION_F32 : RESOLUTION;
    qkv_status status = QKV_OK;
    if (!c->d.f || (c->d.n_inputs && !c->d.inputs))
        status = qkv_fail(QKV_E_ARG, "%s: %s is NULL", c->d.who, c->d.f ? "inputs" : "f");
    if (!status) status = examine(c);
    if (!status) {
        count_verdicts(c, report);
        status = conclude(c, report);
    } else {
        snprintf(report->message, sizeof report->message, "%s", qkv_last_error());
    }
    free(c->lines);
    free(c->d.u);
    free(c->d.kept);
    return status;
}

static qkv_status check_inputs(const char *who, qkv_dtype dtype, qkv_check_function f,
                               void *context, const void *inputs, size_t n_inputs,
                               const qkv_check_options *options, qkv_check_report *report)
{
    check c = {.d = {.who = who, .f = f, .context = context, .dtype = dtype, .inputs = inputs}};
    c.d.n_inputs = n_inputs;
    return run(&c, options, report);
}

qkv_status qkv_gradcheck(qkv_check_function f, void *context, const qkv_check_input *inputs,
                         size_t n_inputs, const qkv_check_options *options,
                         qkv_check_report *report)
{
    return check_inputs("qkv_gradcheck", QKV_F64, f, context, inputs, n_inputs, options, report);
}

qkv_status qkv_gradcheck_f32(qkv_check_function f, void *context, const qkv_check_input_f32 *inputs,
                             size_t n_inputs, const qkv_check_options *options,
                             qkv_check_report *report)
{
    return check_inputs("qkv_gradcheck_f32", QKV_F32, f, context, inputs, n_inputs, options,
                        report);
}
