/* gradcheck_op.c - every operation of the registry, run through the gradient check. */
#include "grad/gradcheck_op.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/gradcheck.h"

enum { DIRECTIONS = 8 };

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

static qkv_status check_repeats(qkv_trial *c)
{
    double *first[QKV_TRIAL_INPUTS] = {0};
    qkv_status status = qkv_trial_differentiate(c, 1, false);
    for (int i = 0; i < c->test->n_input && !status; i++) {
        if (!c->gradient[i]) continue;
        size_t bytes = c->n[i] * sizeof *first[i];
        first[i] = malloc(bytes + !bytes);
        if (!first[i]) status = qkv_fail(QKV_E_NOMEM, "no memory for %zu bytes", bytes);
        if (first[i]) memcpy(first[i], c->gradient[i], bytes);
    }
    if (!status) status = check_again(c, first, false);
    if (!status) status = check_again(c, first, true);
    for (int i = 0; i < QKV_TRIAL_INPUTS; i++) free(first[i]);
    return status;
}

/* The gradient in float against the one in double, in epsilons of the largest element of the case:
 * a small gradient may be the difference of large terms. The worst goes into report. */
static qkv_status check_float(qkv_trial *c, qkv_check_report *report)
{
    if (c->test->rounding < 0) return QKV_OK;
    qkv_status status = qkv_trial_differentiate_f32(c);
    report->float_bound = c->test->rounding > 0 ? c->test->rounding : 64;
    double largest = 0;
    for (int i = 0; i < c->test->n_input; i++)
        for (size_t k = 0; c->gradient[i] && k < c->n[i]; k++)
            largest = fmax(largest, fabs(c->gradient[i][k]));
    for (int i = 0; i < c->test->n_input && !status; i++)
        for (size_t k = 0; c->gradient[i] && k < c->n[i]; k++) {
            double difference = fabs((double)c->gradient_f32[i][k] - c->gradient[i][k]);
            double error = difference == 0 ? 0 : difference / (FLT_EPSILON * largest);
            report->float_error = fmax(report->float_error, error);
            if (!(error <= report->float_bound))
                return wrong("in float, the gradient by x%d[%zu] is %.9g, expected %.9g", i, k,
                             (double)c->gradient_f32[i][k], c->gradient[i][k]);
        }
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
    report->certificate = along.certificate;
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
    both.certificate = fmax(total->certificate, one->certificate);
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
