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
    double *claims;
} check;

/* ---- The verdict ----------------------------------------------------------------------------- */

/* Zero within the error, on both sides, wherever it was tried. */
static bool is_dark(const check *c, size_t input)
{
    size_t tried = 0;
    for (size_t i = 0; i < c->count; i++) {
        const qkv_estimate *e = &c->lines[i].at;
        if (c->lines[i].input != input) continue;
        if (!(fabs(e->analytic) <= 4 * e->error && fabs(e->numeric) <= 4 * e->error)) return false;
        tried++;
    }
    return tried > 0;
}

/* How large the gradient of an input certainly is somewhere. */
static double gradient_scale(const check *c, size_t input)
{
    double scale = 0;
    for (size_t i = 0; i < c->count; i++) {
        const qkv_estimate *e = &c->lines[i].at;
        if (c->lines[i].input != input) continue;
        if (isfinite(e->analytic)) scale = fmax(scale, fabs(e->analytic));
        if (isfinite(e->error)) scale = fmax(scale, fabs(e->numeric) - e->error);
    }
    return scale;
}

static double largest_scale(const check *c)
{
    double scale = 0;
    for (size_t i = 0; i < c->d.n_inputs; i++)
        if (!is_dark(c, i)) scale = fmax(scale, gradient_scale(c, i));
    return scale;
}

/* d.u becomes direction index of the line's input, and the line's norm its length. */
static void set_direction(check *c, qkv_line *e)
{
    size_t n = c->d.inputs[e->input].n;
    uint64_t stream = (uint64_t)e->index * c->d.n_inputs + e->input;
    for (size_t i = 0; i < n; i++) c->d.u[i] = qkv_random_normal(c->options.seed, stream, i);
    e->norm = qkv_length(c->d.u, n);
    for (size_t i = 0; i < n; i++) c->d.u[i] /= e->norm;
}

static bool agrees(const check *c, const qkv_line *e)
{
    bool exact = c->d.inputs[e->input].zero == QKV_ZERO_EXACT;
    bool zero = c->d.inputs[e->input].zero != QKV_ZERO_UNDECLARED;
    if (exact && e->at.analytic != 0) return false;
    return qkv_within(&e->at) && (!zero || fabs(e->at.numeric) <= 4 * e->at.error);
}

static qkv_status judge(check *c, qkv_line *e, double scale)
{
    bool decides = isfinite(e->at.error);
    e->failed = !isfinite(e->at.analytic) || (decides && !agrees(c, e));
    e->inconclusive = !e->failed && !(e->at.error <= c->d.resolution * scale);
    qkv_status status = QKV_OK;
    if (e->is_direction) set_direction(c, e);
    if (e->failed || e->inconclusive || e->at.bent) status = qkv_diagnose(&c->d, e);
    if (e->kinked && isfinite(e->at.analytic)) e->inconclusive = true, e->failed = false;
    return status;
}

static qkv_status judge_all(check *c)
{
    double largest = largest_scale(c);
    size_t i = 0;
    qkv_status status = QKV_OK;
    for (size_t input = 0; input < c->d.n_inputs; input++) {
        double scale = is_dark(c, input) ? largest : gradient_scale(c, input);
        for (; i < c->count && c->lines[i].input == input && !status; i++) {
            double of_f = c->d.size / c->lines[i].scale * c->lines[i].norm;
            status = judge(c, &c->lines[i], scale > 0 ? scale : of_f);
        }
    }
    return status;
}

/* ---- What is checked ------------------------------------------------------------------------- */

static qkv_status validate_input(const check *c, size_t input)
{
    const qkv_check_array in = c->d.inputs[input];
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
    size_t n = c->d.inputs[input].n, most = c->options.max_elements;
    if (c->options.directions) return n ? (size_t)c->options.directions : 0;
    return most && most < n ? most : n;
}

static void add_line(check *c, qkv_line line)
{
    qkv_line *e = &c->lines[c->count++];
    *e = line;
    e->is_direction = c->options.directions > 0;
    e->norm = 1;
    if (e->is_direction) set_direction(c, e);
    qkv_line_begin(&c->d, e);
}

/* The first that is no number is tried in any case: n if there is none. */
static size_t first_not_finite(const qkv_check_array *in)
{
    size_t i = 0;
    while (i < in->n && isfinite(in->gradient[i])) i++;
    return i;
}

/* Of elements, selection sampling (Knuth, TAOCP 3.4.2, algorithm S): every subset equally likely,
 * in order. */
static void choose_lines(check *c)
{
    for (size_t input = 0; input < c->d.n_inputs; input++) {
        size_t wanted = sample_size(c, input), n = c->d.inputs[input].n;
        size_t bad = c->options.directions ? SIZE_MAX : first_not_finite(&c->d.inputs[input]);
        if (c->options.directions) n = wanted;
        for (size_t i = 0; i < n; i++) {
            double u = qkv_random_uniform(c->options.seed, input, i);
            bool drawn = wanted && (double)(n - i) * u < (double)wanted;
            if (drawn || i == bad) add_line(c, (qkv_line){.input = input, .index = i});
            wanted -= drawn;
        }
    }
}

/* What f is asked about: a copy of the claims, for f may overwrite the caller's. */
static qkv_status copy_claims(check *c)
{
    size_t total = 0;
    for (size_t input = 0; input < c->d.n_inputs; input++)
        if (!qkv_size_add(&total, c->d.inputs[input].n))
            return qkv_fail(QKV_E_OVERFLOW, "%s: the inputs have too many elements", c->d.who);
    double *to = c->claims = calloc(total + !total, sizeof *c->claims);
    if (!to) return qkv_fail(QKV_E_NOMEM, "%s: no memory for %zu gradients", c->d.who, total);
    for (size_t input = 0; input < c->d.n_inputs; input++) {
        qkv_check_array *in = &c->d.inputs[input];
        const void *from = in->gradient;
        in->gradient = to;
        for (size_t i = 0; i < in->n; i++) *to++ = qkv_input_at(&c->d, from, i);
    }
    return QKV_OK;
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
        if (!qkv_size_add(&total, sample_size(c, input)) || !qkv_size_add(&total, 1))
            return qkv_fail(QKV_E_OVERFLOW, "%s: the inputs have too many elements", c->d.who);
        if (c->d.inputs[input].n > longest) longest = c->d.inputs[input].n;
    }
    if (!c->options.directions) longest = 1;
    c->lines = calloc(total + !total, sizeof *c->lines);
    c->d.u = calloc(longest, sizeof *c->d.u);
    c->d.kept = calloc(longest, sizeof(double));
    if (!c->lines || !c->d.u || !c->d.kept)
        return qkv_fail(QKV_E_NOMEM, "%s: no memory for %zu elements", c->d.who, total);
    qkv_status status = copy_claims(c);
    if (!status) choose_lines(c);
    return status;
}

/* The same bits from the same inputs? Asked before and after everything else, and in between. */
static qkv_status check_purity(const check *c)
{
    double again;
    qkv_status status = qkv_evaluate(&c->d, &again);
    return status ? status : qkv_expect(&c->d, c->d.value, again);
}

/* All first steps before any other: they show the size of f. */
static qkv_status difference_all(check *c)
{
    qkv_status status = QKV_OK;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < c->count && !status; i++) {
            qkv_line *e = &c->lines[i];
            if (e->is_direction) set_direction(c, e);
            if (pass == 0) status = qkv_measure_noise(&c->d, e);
            if (!status) status = pass ? qkv_settle(&c->d, e) : qkv_survey(&c->d, e);
            if (!status) status = check_purity(c);
        }
    return status;
}

static qkv_status examine(check *c)
{
    qkv_status status = prepare(c);
    if (!status) status = qkv_evaluate(&c->d, &c->d.value);
    if (status) return status;
    if (!isfinite(c->d.value))
        return qkv_fail(QKV_E_GRADIENT, "%s: f is %g at the inputs as given", c->d.who, c->d.value);
    c->d.size = fabs(c->d.value);
    c->d.grid = INFINITY;
    if (c->d.branches) c->d.branch = c->d.branches(c->d.context);
    status = check_purity(c);
    if (!status) status = difference_all(c);
    if (!status) status = judge_all(c);
    return status ? status : check_purity(c);
}

/* ---- The report ------------------------------------------------------------------------------ */

/* The share of the bound that is used up. NaN is infinitely bad. */
static double badness(const qkv_line *e)
{
    if (e->at.analytic == e->at.numeric) return 0;
    double ratio = fabs(e->at.analytic - e->at.numeric) / (4 * e->at.error);
    return isnan(ratio) ? INFINITY : ratio;
}

static bool is_worse(const qkv_line *a, const qkv_line *b)
{
    if (a->failed != b->failed) return a->failed;
    if (a->inconclusive != b->inconclusive) return a->inconclusive;
    return badness(a) > badness(b);
}

/* The first undeclared input of which nothing is proven; n_inputs if there is none. */
static size_t find_vacuous(const check *c)
{
    size_t i = 0;
    while (i < c->d.n_inputs && (c->d.inputs[i].zero || !is_dark(c, i))) i++;
    return i;
}

static double norm_of(const check *c, size_t input)
{
    return qkv_length(c->d.inputs[input].gradient, c->d.inputs[input].n);
}

/* tau of qkv/gradcheck.h; infinite if a line did not pass. */
static double tau_of(const check *c, size_t input)
{
    double tau = 0;
    for (size_t i = 0; i < c->count; i++) {
        const qkv_line *e = &c->lines[i];
        if (e->input != input) continue;
        if (e->failed || e->inconclusive) return INFINITY;
        tau = fmax(tau, fabs(e->at.analytic - e->at.numeric) + 4 * e->at.error);
    }
    return tau;
}

/* The largest bound of an input's error, and as a share of its gradient. */
static void certify(const check *c, qkv_check_report *report)
{
    double delta = c->options.delta > 0 ? c->options.delta : QKV_CHECK_DELTA, longest = 0;
    double factor = sqrt(2 / 3.14159265358979324) * pow(delta, -1.0 / c->options.directions);
    for (size_t i = 0; i < c->d.n_inputs; i++) longest = fmax(longest, norm_of(c, i));
    for (size_t input = 0; input < c->d.n_inputs; input++) {
        double bound = factor * tau_of(c, input);
        double norm = is_dark(c, input) ? longest : norm_of(c, input);
        report->error_norm = fmax(report->error_norm, bound);
        if (bound > 0) report->certificate = fmax(report->certificate, bound / norm);
    }
}

static void describe_worst(const check *c, const qkv_line *worst, qkv_check_report *report)
{
    memcpy(report->worst_input, qkv_name_of(&c->d, worst->input).text, sizeof report->worst_input);
    report->worst_index = worst->index;
    report->analytic = worst->at.analytic;
    report->numeric = worst->at.numeric;
    report->error = fabs(worst->at.analytic - worst->at.numeric);
    report->bound = 4 * worst->at.error;
    report->noise = qkv_noise_of(&c->d, worst);
    report->left = worst->left;
    report->right = worst->right;
    report->taylor_rate = worst->taylor_rate;
}

/* The worst line; of a vacuous input, if it is that which fails. */
static const qkv_line *count_verdicts(const check *c, qkv_check_report *report)
{
    size_t vacuous = find_vacuous(c);
    const qkv_line *worst = NULL;
    for (size_t i = 0; i < c->count; i++) {
        report->failed += c->lines[i].failed;
        report->inconclusive += c->lines[i].inconclusive;
        report->kinks += c->lines[i].kinked;
    }
    report->checked = c->count;
    report->directions = c->options.directions ? c->count : 0;
    report->vacuous = vacuous < c->d.n_inputs || !c->count;
    bool wrong = report->failed || report->inconclusive;
    for (size_t i = 0; i < c->count; i++) {
        const qkv_line *e = &c->lines[i];
        bool counts = wrong || vacuous == c->d.n_inputs || e->input == vacuous;
        if (counts && (!worst || is_worse(e, worst))) worst = e;
    }
    report->passed = !wrong && !report->vacuous;
    report->weak = c->d.epsilon > DBL_EPSILON;
    if (c->options.directions) certify(c, report);
    if (worst) describe_worst(c, worst, report);
    return worst;
}

/* What the diagnosis adds to the message. */
static void explain(const qkv_line *worst, const qkv_check_report *report, char text[120])
{
    *text = 0;
    if (report->passed) {
        if (report->certificate > 0)
            snprintf(text, 120, "; the whole is off by less than %.1e of its norm",
                     report->certificate);
    } else if (worst->kinked) {
        snprintf(text, 120, "; f has a kink there, slope %.3g on the left, %.3g on the right",
                 report->left, report->right);
    } else if (worst->failed && isfinite(report->taylor_rate)) {
        snprintf(text, 120, "; Taylor's remainder falls like step^%.1f", report->taylor_rate);
    } else if (!worst->failed && !worst->inconclusive) {
        snprintf(text, 120,
                 "; if f is flat there, declare it (qkv_check_zero); else f is noisy, by %.2g, "
                 "and hides it",
                 report->noise);
    } else if (!worst->failed && worst->at.truncation <= worst->at.rounding) {
        snprintf(text, 120, "; f is noisy, by %.2g, and hides what is smaller than the bound",
                 report->noise);
    } else if (worst->inconclusive) {
        snprintf(text, 120, "; has it a smaller scale, or a domain, to declare?");
    }
}

static qkv_status conclude(const check *c, const qkv_line *worst, qkv_check_report *report)
{
    const char *verdict = report->passed         ? "right everywhere, worst"
                          : report->failed       ? "wrong"
                          : report->inconclusive ? "undecided"
                                                 : "0 within its error, so nothing is proven,";
    char more[120], where[64];
    if (!worst) {
        snprintf(report->message, sizeof report->message, "%s: there are no elements", c->d.who);
        return qkv_fail(QKV_E_GRADIENT, "%s", report->message);
    }
    explain(worst, report, more);
    snprintf(where, sizeof where, worst->is_direction ? "for %s, direction %zu" : "at %s[%zu]",
             report->worst_input, report->worst_index);
    snprintf(report->message, sizeof report->message,
             "%s: the gradient%s is %s %s: %.9g, by differences %.9g, off by %.2g, "
             "bound %.2g; %zu of %zu wrong, %zu undecided%s",
             c->d.who, worst->is_direction ? " along random directions" : "", verdict, where,
             report->analytic, report->numeric, report->error, report->bound, report->failed,
             report->checked, report->inconclusive, more);
    return report->passed ? QKV_OK : qkv_fail(QKV_E_GRADIENT, "%s", report->message);
}

static qkv_status run(check *c, const qkv_check_options *options, qkv_check_report *report)
{
    if (options) c->options = *options;
    bool in_float = c->d.dtype == QKV_F32 || c->options.computes_in_float;
    c->d.branches = c->options.branches;
    c->d.epsilon = in_float ? FLT_EPSILON : DBL_EPSILON;
    c->d.resolution = in_float ? RESOLUTION_F32 : RESOLUTION;
    qkv_status status = examine(c);
    if (status) {
        snprintf(report->message, sizeof report->message, "%s", qkv_last_error());
        return status;
    }
    const qkv_line *worst = count_verdicts(c, report);
    return conclude(c, worst, report);
}

static qkv_check_array array_of(qkv_dtype dtype, const void *inputs, size_t i)
{
    if (dtype == QKV_F32) {
        const qkv_check_input_f32 *in = (const qkv_check_input_f32 *)inputs + i;
        return (qkv_check_array){in->name,  in->x,     (const void *)in->gradient,
                                 in->n,     in->lower, in->upper,
                                 in->scale, in->zero};
    }
    const qkv_check_input *in = (const qkv_check_input *)inputs + i;
    return (qkv_check_array){in->name,  in->x,     in->gradient, in->n,
                             in->lower, in->upper, in->scale,    in->zero};
}

static qkv_status check_inputs(check c, const void *inputs, const qkv_check_options *options,
                               qkv_check_report *report)
{
    qkv_check_report own;
    if (!report) report = &own;
    *report = (qkv_check_report){0};
    qkv_status status = QKV_OK;
    if (!c.d.f || (c.d.n_inputs && !inputs))
        status = qkv_fail(QKV_E_ARG, "%s: %s is NULL", c.d.who, c.d.f ? "inputs" : "f");
    if (!status && !(c.d.inputs = calloc(c.d.n_inputs + 1, sizeof *c.d.inputs)))
        status = qkv_fail(QKV_E_NOMEM, "%s: no memory for %zu inputs", c.d.who, c.d.n_inputs);
    if (status) {
        snprintf(report->message, sizeof report->message, "%s", qkv_last_error());
        return status;
    }
    for (size_t i = 0; i < c.d.n_inputs; i++) c.d.inputs[i] = array_of(c.d.dtype, inputs, i);
    status = run(&c, options, report);
    free(c.d.inputs);
    free(c.claims);
    free(c.lines);
    free(c.d.u);
    free(c.d.kept);
    return status;
}

qkv_status qkv_gradcheck(qkv_check_function f, void *context, const qkv_check_input *inputs,
                         size_t n_inputs, const qkv_check_options *options,
                         qkv_check_report *report)
{
    const qkv_differences d = {
        .who = "qkv_gradcheck", .f = f, .context = context, .dtype = QKV_F64, .n_inputs = n_inputs};
    return check_inputs((check){.d = d}, inputs, options, report);
}

qkv_status qkv_gradcheck_f32(qkv_check_function f, void *context, const qkv_check_input_f32 *inputs,
                             size_t n_inputs, const qkv_check_options *options,
                             qkv_check_report *report)
{
    const qkv_differences d = {.who = "qkv_gradcheck_f32",
                               .f = f,
                               .context = context,
                               .dtype = QKV_F32,
                               .n_inputs = n_inputs};
    return check_inputs((check){.d = d}, inputs, options, report);
}
