/* gradcheck_op.c - every operation of the registry, run through the gradient check. */
#include "grad/gradcheck_op.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/gradcheck.h"
#include "src/random.h"

enum { DIRECTIONS = 8, SHAKES = 16 };
/* No number of the cases is the end of a chain of more than 64 roundings (the longest: a score, its
 * exponential, a sum over 7 keys, a quotient, and all of it backward), each by half an epsilon. */
static const double ROUNDING = 32;

static qkv_status wrong(const char *format, int input, size_t i, double found, double expected)
{
    return qkv_fail(QKV_E_GRADIENT, format, input, i, found, expected);
}

static qkv_status check_zero(qkv_trial *c)
{
    qkv_status status = qkv_trial_differentiate(c, 0, false);
    for (int i = 0; i < c->test->n_input && !status; i++)
        for (size_t k = 0; c->gradient[i] && k < c->n[i] && !status; k++)
            if (c->gradient[i][k] != 0)
                status = wrong("the gradient of a cotangent of 0 by x%d[%zu] is %g, expected %g", i,
                               k, c->gradient[i][k], 0);
    return status;
}

/* Against first: the same bits, or, with other uses beside, 3 more. */
static qkv_status check_again(qkv_trial *c, double *const first[QKV_TRIAL_INPUTS], bool beside)
{
    qkv_status status = qkv_trial_differentiate(c, 1, beside);
    for (int i = 0; i < c->test->n_input && !status; i++)
        for (size_t k = 0; c->gradient[i] && k < c->n[i] && !status; k++) {
            double now = c->gradient[i][k], then = first[i][k];
            double allowed = 16 * DBL_EPSILON * (3 + fabs(then));
            if (!beside && memcmp(&now, &then, sizeof now))
                status = wrong("the gradient by x%d[%zu] is %a the second time, %a the first", i, k,
                               now, then);
            else if (beside && !(fabs(now - 3 - then) <= allowed))
                status = wrong("beside other uses that add 3, the gradient by x%d[%zu] is %g, %g "
                               "without: it is not added to what is there",
                               i, k, now, then);
        }
    return status;
}

typedef struct numbers {
    double *of[QKV_TRIAL_INPUTS]; /* NULL where there is no gradient */
} numbers;

static void numbers_free(numbers *x)
{
    for (int i = 0; i < QKV_TRIAL_INPUTS; i++) free(x->of[i]);
}

/* A copy of the gradients. Ends in numbers_free whatever it returns. */
static qkv_status numbers_copy(const qkv_trial *c, double *const from[QKV_TRIAL_INPUTS],
                               numbers *to)
{
    *to = (numbers){0};
    for (int i = 0; i < c->test->n_input; i++) {
        if (!from[i]) continue;
        size_t bytes = c->n[i] * sizeof *to->of[i];
        to->of[i] = malloc(bytes + !bytes);
        if (!to->of[i]) return qkv_fail(QKV_E_NOMEM, "no memory for %zu bytes", bytes);
        memcpy(to->of[i], from[i], bytes);
    }
    return QKV_OK;
}

static qkv_status check_repeats(qkv_trial *c)
{
    numbers first = {0};
    qkv_status status = qkv_trial_differentiate(c, 1, false);
    if (!status) status = numbers_copy(c, c->gradient, &first);
    if (!status) status = check_again(c, first.of, false);
    if (!status) status = check_again(c, first.of, true);
    numbers_free(&first);
    return status;
}

/* ---- Float ----------------------------------------------------------------------------------- */

static void shake(double *x, const double *from, size_t n, uint64_t seed, uint64_t stream)
{
    for (size_t k = 0; k < n; k++)
        x[k] = from[k] * (1 + FLT_EPSILON * qkv_random_normal(seed, stream, k));
}

/* The largest change, in the sense of root mean square over SHAKES, of an element of each gradient
 * when every number of the case is off by a float epsilon. */
static qkv_status measure_condition(qkv_trial *c, const numbers *x, const numbers *gradient,
                                    double change[QKV_TRIAL_INPUTS])
{
    double *cotangent = c->cotangent;
    numbers squares = {0};
    c->cotangent = calloc(c->n_result + 1, sizeof *cotangent);
    qkv_status status = c->cotangent ? numbers_copy(c, c->gradient, &squares) : QKV_E_NOMEM;
    for (int i = 0; i < QKV_TRIAL_INPUTS; i++)
        for (size_t k = 0; squares.of[i] && k < c->n[i]; k++) squares.of[i][k] = 0;
    for (uint64_t s = 0; s < SHAKES && !status; s++) {
        for (int i = 0; i < c->test->n_input; i++)
            shake(c->x[i], x->of[i], c->n[i], c->seed + s, 100 + (uint64_t)i);
        shake(c->cotangent, cotangent, c->n_result, c->seed + s, 99);
        status = qkv_trial_differentiate(c, 1, false);
        for (int i = 0; i < c->test->n_input; i++)
            for (size_t k = 0; squares.of[i] && k < c->n[i]; k++)
                squares.of[i][k] += pow(c->gradient[i][k] - gradient->of[i][k], 2) / SHAKES;
    }
    for (int i = 0; i < c->test->n_input; i++) {
        change[i] = 0;
        for (size_t k = 0; squares.of[i] && k < c->n[i]; k++)
            change[i] = fmax(change[i], sqrt(squares.of[i][k]));
        memcpy(c->x[i], x->of[i], c->n[i] * sizeof *c->x[i]);
    }
    numbers_free(&squares);
    free(c->cotangent);
    c->cotangent = cotangent;
    return status;
}

/* The gradient in float against the one in double: it must be that of numbers which are off by a
 * few float epsilons (its backward error), as rounding makes it, however much cancels. */
static qkv_status check_float(qkv_trial *c, qkv_check_report *report)
{
    if (c->test->rounding < 0) return QKV_OK;
    report->float_bound = c->test->rounding > 0 ? c->test->rounding : ROUNDING;
    numbers x = {0}, gradient = {0};
    double change[QKV_TRIAL_INPUTS] = {0};
    qkv_status status = qkv_trial_differentiate_f32(c);
    if (!status) status = numbers_copy(c, c->x, &x);
    if (!status) status = numbers_copy(c, c->gradient, &gradient);
    if (!status) status = measure_condition(c, &x, &gradient, change);
    if (!status) status = qkv_trial_differentiate_f32(c);
    for (int i = 0; i < c->test->n_input && !status; i++)
        for (size_t k = 0; c->gradient[i] && k < c->n[i] && !status; k++) {
            double difference = fabs((double)c->gradient_f32[i][k] - c->gradient[i][k]);
            double error = difference == 0 ? 0 : difference / change[i];
            report->float_error = fmax(report->float_error, error);
            if (!(error <= report->float_bound))
                status = wrong("in float, the gradient by x%d[%zu] is %.9g, expected %.9g", i, k,
                               (double)c->gradient_f32[i][k], c->gradient[i][k]);
        }
    numbers_free(&x);
    numbers_free(&gradient);
    return status;
}

/* By differences: the elements, then along random directions. */
static qkv_status check_slopes(qkv_trial *c, qkv_check_report *report)
{
    qkv_check_input inputs[QKV_TRIAL_INPUTS];
    qkv_check_report along;
    size_t n = qkv_trial_inputs(c, inputs);
    qkv_check_options options = {.seed = c->seed, .branches = qkv_trial_branches};
    qkv_status status = qkv_gradcheck(qkv_trial_value, c, inputs, n, &options, report);
    if (status) return status;
    options.directions = DIRECTIONS;
    status = qkv_gradcheck(qkv_trial_value, c, inputs, n, &options, &along);
    report->directions = along.directions;
    report->certificate = along.certificate;
    report->error_norm = along.error_norm;
    if (status) *report = along;
    return status;
}

qkv_status qkv_gradcheck_trial(qkv_trial *c, const qkv_corruption *corruption,
                               qkv_check_report *report)
{
    *report = (qkv_check_report){0};
    qkv_status status = qkv_trial_differentiate(c, 1, false);
    if (status) return status;
    if (corruption) corruption->apply(corruption->context, c);
    status = check_slopes(c, report);
    if (status || corruption) return status;
    status = check_zero(c);
    if (!status) status = check_repeats(c);
    if (!status) status = check_float(c, report);
    if (status) {
        report->passed = false;
        snprintf(report->message, sizeof report->message, "%s", qkv_last_error());
        (void)qkv_trial_differentiate(c, 1, false); /* what was judged, for who writes it down */
        return qkv_fail(status, "%s", report->message);
    }
    return QKV_OK;
}

static qkv_status run_case(const qkv_op_case *test, uint64_t seed, qkv_check_report *report)
{
    qkv_trial c;
    qkv_status status = qkv_trial_begin(&c, test, seed, 1);
    if (!status) status = qkv_gradcheck_trial(&c, NULL, report);
    qkv_trial_end(&c);
    return status;
}

/* Counts add up; the worst element stays, and a failure is worse than any ratio. */
static void merge(qkv_check_report *total, const qkv_check_report *one)
{
    qkv_check_report both = *total;
    bool worse = !one->passed || one->error * total->bound > total->error * one->bound;
    if (total->checked == 0 || worse) both = *one;
    both.checked = total->checked + one->checked;
    both.directions = total->directions + one->directions;
    both.certificate = fmax(total->certificate, one->certificate);
    both.error_norm = fmax(total->error_norm, one->error_norm);
    bool rounder = one->float_error * total->float_bound > total->float_error * one->float_bound;
    const qkv_check_report *in_float = total->checked && !rounder ? total : one;
    both.float_error = in_float->float_error;
    both.float_bound = in_float->float_bound;
    *total = both;
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
        return qkv_fail(status, "%s: %s", qkv_case_name(op, test), one.message);
    }
    if (report->checked) return QKV_OK;
    report->vacuous = true;
    return qkv_fail(QKV_E_GRADIENT, "%s: no case to check", qkv_op_name(op));
}
