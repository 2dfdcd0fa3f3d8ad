/* adjoint.c - v'(Ju) = u'(J'v): forward and reverse mode against each other. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "grad/difference.h"
#include "src/fail.h"
#include "src/random.h"

static const char who[] = "qkv_gradcheck_adjoint";
static const double FACTOR = 64;

typedef struct pair {
    double *u, *ju, *v, *jv;
} pair;

/* x'y; the sum of its terms' sizes, and the product of both lengths, in size. */
static double product(const double *x, const double *y, size_t n, double *size)
{
    double sum = 0, absolute = 0;
    for (size_t i = 0; i < n; i++) {
        sum += x[i] * y[i];
        absolute += fabs(x[i] * y[i]);
    }
    *size += absolute + qkv_length(x, n) * qkv_length(y, n);
    return sum;
}

static qkv_status apply(const qkv_check_map *map, bool forward, const pair *p, uint64_t index)
{
    qkv_status status =
        forward ? map->jvp(map->context, p->u, p->ju) : map->vjp(map->context, p->v, p->jv);
    if (!status) return QKV_OK;
    char cause[QKV_MESSAGE_BYTES / 2];
    snprintf(cause, sizeof cause, "%s", qkv_last_error());
    return qkv_fail(status, "%s: %s returned %s at pair %llu (%s)", who, forward ? "jvp" : "vjp",
                    qkv_status_name(status), (unsigned long long)index, cause);
}

static qkv_status try_pair(const qkv_check_map *map, double epsilon, uint64_t seed, uint64_t index,
                           const pair *p, qkv_check_report *report)
{
    for (size_t i = 0; i < map->n_in; i++) p->u[i] = qkv_random_normal(seed, 2 * index, i);
    for (size_t i = 0; i < map->n_out; i++) p->v[i] = qkv_random_normal(seed, 2 * index + 1, i);
    qkv_status status = apply(map, true, p, index);
    if (!status) status = apply(map, false, p, index);
    if (status) return status;
    double size = 0, forward = product(p->v, p->ju, map->n_out, &size);
    double reverse = product(p->u, p->jv, map->n_in, &size);
    double error = fabs(forward - reverse), bound = FACTOR * epsilon * size;
    bool failed = !(error <= bound && bound < INFINITY), first = report->checked++ == 0;
    report->failed += failed;
    report->vacuous = (first || report->vacuous) && size == 0;
    if (!first && !(failed && !(report->error > report->bound)) &&
        !(error * report->bound > report->error * bound))
        return QKV_OK;
    report->worst_index = index;
    report->analytic = reverse;
    report->numeric = forward;
    report->error = error;
    report->bound = bound;
    return QKV_OK;
}

static qkv_status conclude(qkv_check_report *report)
{
    report->passed = !report->failed && !report->vacuous && report->checked;
    snprintf(report->message, sizeof report->message,
             "%s: %s: v'(Ju) is %.9g, u'(J'v) %.9g, off by %.2g, bound %.2g; "
             "%zu of %zu pairs disagree",
             who,
             report->vacuous  ? "all products are 0, so nothing is proven"
             : report->passed ? "they agree, worst"
                              : "forward and reverse mode disagree",
             report->numeric, report->analytic, report->error, report->bound, report->failed,
             report->checked);
    return report->passed ? QKV_OK : qkv_fail(QKV_E_GRADIENT, "%s", report->message);
}

qkv_status qkv_gradcheck_adjoint(const qkv_check_map *map, double epsilon, int pairs, uint64_t seed,
                                 qkv_check_report *report)
{
    qkv_check_report own;
    if (!report) report = &own;
    *report = (qkv_check_report){0};
    if (!map || !map->jvp || !map->vjp)
        return qkv_fail(QKV_E_ARG, "%s: %s is NULL", who, !map ? "map" : map->jvp ? "vjp" : "jvp");
    if (pairs < 0 || !(epsilon >= 0 && epsilon < 1))
        return qkv_fail(QKV_E_ARG, "%s: pairs is %d and epsilon %g, expected 0 or more and below 1",
                        who, pairs, epsilon);
    pair p = {calloc(map->n_in + 1, sizeof(double)), calloc(map->n_out + 1, sizeof(double)),
              calloc(map->n_out + 1, sizeof(double)), calloc(map->n_in + 1, sizeof(double))};
    qkv_status status = QKV_OK;
    if (!p.u || !p.ju || !p.v || !p.jv)
        status = qkv_fail(QKV_E_NOMEM, "%s: no memory for vectors of %zu and %zu", who, map->n_in,
                          map->n_out);
    for (int i = 0; i < (pairs ? pairs : 10) && !status; i++)
        status = try_pair(map, epsilon > 0 ? epsilon : DBL_EPSILON, seed, (uint64_t)i, &p, report);
    if (status)
        snprintf(report->message, sizeof report->message, "%s", qkv_last_error());
    else
        status = conclude(report);
    free(p.u);
    free(p.ju);
    free(p.v);
    free(p.jv);
    return status;
}
