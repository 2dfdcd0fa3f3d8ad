/* regression_fit.c - where to descend from, and which minimum is the best. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "grad/descent.h"
#include "src/fail.h"
#include "src/order.h"
#include "src/regression.h"

static const double SMOOTH = 10;   /* times a column's range: its rows weigh alike */
static const double FARTHEST = 20; /* ranges: the end of the grid */

enum {
    LOOKED_AT = 1000,   /* rows whose fits make the criterion on the grid */
    PAIRED_ROWS = 1400, /* rows whose distances are steps of the boxcar's: a million */
    MOST_TRIED = 4096,  /* steps, of few rows */
    FEWEST_TRIED = 128, /* of many: in between as many as are this */
    MOST_WORK = 1 << 20 /* over the rows */
};

typedef struct candidate {
    double loss;
    double *h; /* [n] */
} candidate;

typedef struct search {
    qkv_descent d;
    const qkv_regression_fit_options *options;
    qkv_regression_fit_report *report;
    ptrdiff_t n;             /* bandwidths */
    double *reference;       /* [n] */
    double *range;           /* [d] of the columns of x */
    candidate *grid, *found; /* candidates to descend from, and minima */
    ptrdiff_t n_grid, n_found, room;
    double *numbers; /* of all of them */
    ptrdiff_t every; /* of the rows one in so many is looked at on the grid */
    bool stopped;
} search;

/* ---- The grid -------------------------------------------------------------------------------- */

/* Between rows, if they were evenly spread: no bandwidth much smaller is worth a look. */
static double spacing(const search *s)
{
    const qkv_sample *sample = s->d.s;
    return pow((double)sample->n, -1 / (double)sample->d) / 4;
}

/* range over h of column c. */
static double ranges(const search *s, const double *h, ptrdiff_t c)
{
    return s->range[c] / h[s->n == 1 ? 0 : c];
}

/* The factors of the reference that are tried: 2^(low / 2) .. 2^(high / 2). */
static void find_grid(const search *s, int *low, int *high)
{
    double most = 0, least = INFINITY; /* of h over the range */
    for (ptrdiff_t c = 0; c < s->d.s->d; c++) {
        double x = ranges(s, s->reference, c);
        if (x == 0) continue;
        most = fmax(most, 1 / x);
        least = fmin(least, 1 / x);
    }
    *low = *high = 0;
    if (most == 0) return; /* no column has any range */
    *low = (int)floor(fmin(0, 2 * log2(spacing(s) / most)));
    *high = (int)ceil(fmax(0, 2 * log2(FARTHEST / least)));
}

static qkv_status try(search *s, const double *h, ptrdiff_t done, ptrdiff_t of, double *loss)
{
    const qkv_regression_fit_options *o = s->options;
    bool admissible;
    qkv_status status = qkv_descent_evaluate(&s->d, h, s->every, loss, NULL, &admissible);
    if (status != QKV_OK) return status;
    qkv_regression_step seen = {
        .step = done, .start = -1, .steps = of, .loss = *loss, .bandwidth = h};
    if (o->observe && !o->observe(o->context, &seen)) s->stopped = true;
    if (!admissible) s->report->inadmissible++;
    if (!admissible) *loss = INFINITY;
    return QKV_OK;
}

static void add(search *s, candidate *list, ptrdiff_t *n, const double *h, double loss)
{
    if (*n == s->room || !isfinite(loss)) return;
    list[*n].loss = loss;
    memcpy(list[*n].h, h, (size_t)s->n * sizeof *h);
    ++*n;
}

/* The local minima among multiples of the reference. */
static qkv_status search_multiples(search *s)
{
    int low, high;
    find_grid(s, &low, &high);
    double last = INFINITY, now = INFINITY, next, *h = s->d.tried;
    for (int k = low; k <= high + 1 && !s->stopped; k++, last = now, now = next) {
        next = INFINITY;
        for (ptrdiff_t c = 0; c < s->n; c++) h[c] = s->reference[c] * exp2(k / 2.0);
        if (k <= high) {
            qkv_status status = try(s, h, k - low + 1, high - low + 1, &next);
            if (status != QKV_OK) return status;
        }
        for (ptrdiff_t c = 0; c < s->n; c++) h[c] = s->reference[c] * exp2((k - 1) / 2.0);
        if (k > low && now <= last && now < next) add(s, s->grid, &s->n_grid, h, now);
        if (k > high && now <= last && now == next) add(s, s->grid, &s->n_grid, h, now);
    }
    return QKV_OK;
}

static int by_loss(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    return (x->loss > y->loss) - (x->loss < y->loss);
}

static void sort(candidate *list, ptrdiff_t n)
{
    qsort(list, (size_t)n, sizeof *list, by_loss);
}

/* The best multiple, with one column after the other smoothed out. */
static qkv_status search_columns(search *s)
{
    if (s->n == 1 || s->n_grid == 0) return QKV_OK;
    sort(s->grid, s->n_grid);
    double *h = s->d.tried;
    for (ptrdiff_t c = 0; c < s->n && !s->stopped; c++) {
        double loss;
        memcpy(h, s->grid[0].h, (size_t)s->n * sizeof *h);
        h[c] = 2 * SMOOTH * (s->range[c] > 0 ? s->range[c] : 1);
        qkv_status status = try(s, h, c + 1, s->n, &loss);
        if (status != QKV_OK) return status;
        add(s, s->grid, &s->n_grid, h, loss);
    }
    return QKV_OK;
}

/* ---- The steps of the boxcar ------------------------------------------------------------------
 */

static bool has_steps(const qkv_regression *r)
{
    return r->kernel == QKV_REGRESSION_BOXCAR;
}

/* Rows i and j enter each other's support at this multiple of the sample's bandwidths. */
static double entry(const search *s, ptrdiff_t i, ptrdiff_t j)
{
    const qkv_sample *sample = s->d.s;
    double sum = 0;
    for (ptrdiff_t c = 0; c < sample->d; c++) {
        const double *x = sample->x + c * sample->stride;
        double u = (x[i] - x[j]) / sample->h[c];
        sum = sample->r->product ? fmax(sum, u * u) : sum + u * u;
    }
    return sqrt(sum);
}

/* The multiples of the sample's bandwidths at which the criterion steps, ascending. */
typedef struct steps {
    double *at;
    ptrdiff_t n;
} steps;

/* Multiples that differ by roundings of x (src/local.c) are one step. */
static void merge_steps(const search *s, steps *all)
{
    const qkv_sample *sample = s->d.s;
    double offset = 0, last = 0;
    for (ptrdiff_t c = 0; c < sample->d; c++) {
        const double *x = sample->x + c * sample->stride;
        double most = 0;
        for (ptrdiff_t i = 0; i < sample->n; i++) most = fmax(most, fabs(x[i]));
        offset += most / sample->h[c];
    }
    ptrdiff_t n = 0;
    for (ptrdiff_t i = 0; i < all->n; i++) {
        double at = all->at[i];
        if (at - last > 0x1p-48 * (at + offset)) all->at[n++] = at;
        last = at;
    }
    all->n = n;
}

/* Those of all pairs of rows, or of some rows, which stand for the others; at to be freed. */
static qkv_status find_steps(const search *s, steps *all)
{
    const ptrdiff_t n = s->d.s->n, every = (n + PAIRED_ROWS - 1) / PAIRED_ROWS;
    const ptrdiff_t some = (n + every - 1) / every;
    qkv_status status =
        qkv_regression_allocate("qkv_regression_fit", &all->at, some, (some - 1) / 2 + 1);
    if (status != QKV_OK) return status;
    for (ptrdiff_t i = 0; i < some; i++)
        for (ptrdiff_t j = 0; j < i; j++) all->at[all->n++] = entry(s, i * every, j * every);
    qkv_sort(all->at, all->n);
    merge_steps(s, all);
    return QKV_OK;
}

/* Beyond step k, as far from the next as it can be: roundings of h, too, decide nothing. */
static double beyond(const steps *all, ptrdiff_t k)
{
    return k + 1 < all->n ? (all->at[k] + all->at[k + 1]) / 2 : 2 * all->at[k];
}

/* The search among steps: what is tried is a multiple of start. */
typedef struct stair {
    const double *start;
    steps all;
    double best, factor; /* the criterion, and where it is that */
    ptrdiff_t place;     /* the step; -1: the start */
} stair;

static qkv_status climb(search *s, stair *t, ptrdiff_t from, ptrdiff_t to, ptrdiff_t stride)
{
    for (ptrdiff_t k = from; k < to && !s->stopped; k += stride) {
        double loss, factor = beyond(&t->all, k), *h = s->d.tried;
        for (ptrdiff_t c = 0; c < s->n; c++) h[c] = t->start[c] * factor;
        qkv_status status = try(s, h, k - from + 1, to - from, &loss);
        if (status != QKV_OK) return status;
        if (loss < t->best) t->best = loss, t->factor = factor, t->place = k;
    }
    return QKV_OK;
}

/* The criterion at all steps if they are few; or about the candidate, from half to twice it, at as
 * many as may be tried, and then at those about the best, until none is between. */
static qkv_status climb_stair(search *s, stair *t)
{
    const ptrdiff_t n = s->d.s->n, work = MOST_WORK / n;
    const ptrdiff_t most = work < FEWEST_TRIED ? FEWEST_TRIED
                           : work < MOST_TRIED ? work
                                               : MOST_TRIED;
    ptrdiff_t from = 0, to = t->all.n;
    if (s->report->starts > 0 || to > most) {
        while (from < to && beyond(&t->all, from) < 0.5) from++;
        while (from < to && beyond(&t->all, to - 1) > 2) to--;
    }
    for (ptrdiff_t stride = 0; from < to && stride != 1;) {
        stride = (to - from + most - 1) / most;
        qkv_status status = climb(s, t, from, to, stride);
        if (status != QKV_OK || s->stopped || t->place < 0) return status;
        from = t->place - stride + 1 < 0 ? 0 : t->place - stride + 1;
        to = t->place + stride < t->all.n ? t->place + stride : t->all.n;
    }
    return QKV_OK;
}

/* The candidate becomes the best about it. */
static qkv_status refine_boxcar(search *s, candidate *at)
{
    stair t = {.start = at->h, .factor = 1, .place = -1};
    qkv_status status = try(s, at->h, 0, 1, &t.best); /* and the sample has these bandwidths */
    if (status == QKV_OK) status = find_steps(s, &t.all);
    if (status == QKV_OK) status = climb_stair(s, &t);
    for (ptrdiff_t c = 0; c < s->n; c++) at->h[c] *= t.factor;
    at->loss = t.best;
    free(t.all.at);
    return status;
}

/* ---- Minima ---------------------------------------------------------------------------------- */

/* Do they predict alike? Columns that both smooth out may differ. */
static bool alike(const search *s, const candidate *a, const candidate *b)
{
    if (!(fabs(a->loss - b->loss) <= 1e-4 * fmax(fabs(a->loss), fabs(b->loss)))) return false;
    for (ptrdiff_t c = 0; c < s->n; c++) {
        bool out = ranges(s, a->h, c) * SMOOTH < 1 && ranges(s, b->h, c) * SMOOTH < 1;
        if (!out && fabs(log(a->h[c] / b->h[c])) > 0.02) return false;
    }
    return true;
}

static void add_minimum(search *s, const double *h, double loss)
{
    candidate one = {loss, (double *)h};
    for (ptrdiff_t i = 0; i < s->n_found; i++)
        if (alike(s, &s->found[i], &one)) return;
    add(s, s->found, &s->n_found, h, loss);
}

static qkv_status descend_from(search *s, const double *h)
{
    qkv_descent *d = &s->d;
    qkv_regression_fit_report *report = s->report;
    for (ptrdiff_t c = 0; c < s->n; c++) d->theta[c] = log(h[c]);
    d->start = report->starts++;
    qkv_status status = qkv_descend(d);
    if (status != QKV_OK) return status;
    s->stopped = d->stopped;
    if (report->starts == 1 || d->loss < report->loss_after) {
        report->loss_before = d->loss_before;
        report->loss_after = d->loss;
        report->steps = d->steps;
        report->converged = d->converged;
        report->gradient = 0;
        for (ptrdiff_t c = 0; c < s->n; c++)
            report->gradient = fmax(report->gradient, fabs(d->gradient[c]));
    }
    add_minimum(s, d->bandwidth, d->loss);
    return QKV_OK;
}

/* The criterion of a compact kernel has corners and steps wherever rows come into reach: the
 * descent begins at the best of some bandwidths about the candidate. */
static qkv_status look_about(search *s, candidate *at)
{
    enum { POINTS = 48 };
    double best = INFINITY, factor = 1, *h = s->d.tried;
    for (int m = 0; m <= POINTS && !s->stopped; m++) {
        double loss, multiple = exp2((double)m / POINTS - 0.5);
        for (ptrdiff_t c = 0; c < s->n; c++) h[c] = at->h[c] * multiple;
        qkv_status status = try(s, h, m, POINTS, &loss);
        if (status != QKV_OK) return status;
        if (loss < best) {
            best = loss;
            factor = multiple;
        }
    }
    for (ptrdiff_t c = 0; c < s->n; c++) at->h[c] *= factor;
    return QKV_OK;
}

static qkv_status refine(search *s, candidate *at)
{
    qkv_regression_fit_report *report = s->report;
    double before = at->loss;
    qkv_status status = has_steps(s->d.s->r) ? refine_boxcar(s, at) : QKV_OK;
    if (status != QKV_OK) return status;
    report->starts++;
    if (report->starts == 1 || at->loss < report->loss_after) {
        report->loss_before = before;
        report->loss_after = at->loss;
    }
    report->converged = true;
    add_minimum(s, at->h, at->loss);
    return QKV_OK;
}

static bool is_constant(const qkv_sample *s)
{
    for (ptrdiff_t k = 0; k < s->d_y; k++)
        for (ptrdiff_t i = 1; i < s->n; i++)
            if (s->y[k * s->stride + i] != s->y[k * s->stride]) return false;
    return true;
}

/* Why the criterion is finite nowhere. */
static qkv_status fail_everywhere(const search *s)
{
    const qkv_sample *rows = s->d.s;
    ptrdiff_t least = 4 + (rows->r->degree ? rows->d : 0); /* tr S is at least 1, of lines 1 + d */
    if (is_constant(rows))
        return qkv_fail(QKV_E_DOMAIN, "qkv_regression_fit: y is the same in all rows: every "
                                      "bandwidth fits it, and none is the best");
    if (s->options->criterion == QKV_REGRESSION_AICC && rows->n < least)
        return qkv_fail(QKV_E_DOMAIN,
                        "qkv_regression_fit: rows: %td, expected at least %td for AICc", rows->n,
                        least);
    return qkv_fail(QKV_E_DOMAIN,
                    "qkv_regression_fit: at every bandwidth of the grid the criterion is infinite "
                    "or undefined: is y - y squared finite?");
}

static qkv_status search_all(search *s)
{
    int starts = s->options->starts ? s->options->starts : 3;
    bool smooth = !has_steps(s->d.s->r) && s->d.s->r->kernel != QKV_REGRESSION_CONSTANT;
    s->every = (s->d.s->n + LOOKED_AT - 1) / LOOKED_AT;
    if (s->every < s->d.s->every) s->every = s->d.s->every;
    if (s->options->start && smooth) return descend_from(s, s->options->start);
    qkv_status status = search_multiples(s);
    if (status == QKV_OK && smooth) status = search_columns(s);
    if (status == QKV_OK && s->n_grid == 0) return fail_everywhere(s);
    sort(s->grid, s->n_grid);
    s->every = s->d.s->every;
    for (ptrdiff_t i = 0; i < s->n_grid && i < starts && status == QKV_OK && !s->stopped; i++) {
        if (smooth && qkv_is_compact(s->d.s->r->kernel)) status = look_about(s, &s->grid[i]);
        if (status == QKV_OK)
            status = smooth ? descend_from(s, s->grid[i].h) : refine(s, &s->grid[i]);
    }
    if (status == QKV_OK && s->n_found == 0) add_minimum(s, s->grid[0].h, s->grid[0].loss);
    return status;
}

/* ---- The call -------------------------------------------------------------------------------- */

static qkv_status check_options(const char *function, const qkv_regression *r,
                                const qkv_regression_fit_options *o, const double *bandwidth)
{
    qkv_status status = qkv_regression_check(function, r);
    if (status != QKV_OK) return status;
    if (!bandwidth) return qkv_fail(QKV_E_ARG, "%s: bandwidth is NULL", function);
    if ((unsigned)o->optimizer > QKV_REGRESSION_GRADIENT_DESCENT)
        return qkv_fail(QKV_E_ARG, "%s: %d is not an optimizer", function, (int)o->optimizer);
    if ((unsigned)o->criterion > QKV_REGRESSION_GCV)
        return qkv_fail(QKV_E_ARG, "%s: %d is not a criterion", function, (int)o->criterion);
    if (o->steps < 0 || o->starts < 0 || !(o->rate >= 0) || isnan(o->tolerance))
        return qkv_fail(QKV_E_ARG,
                        "%s: steps %td, starts %d, rate %g, tolerance %g, expected >= 0, >= 0, >= "
                        "0, a number",
                        function, o->steps, o->starts, o->rate, o->tolerance);
    if (o->max_minima < 0 || (o->max_minima > 0 && !o->minima))
        return qkv_fail(QKV_E_ARG, "%s: max_minima is %td and minima %s", function, o->max_minima,
                        o->minima ? "not NULL" : "NULL");
    for (ptrdiff_t c = 0; o->start && c < qkv_one_if_zero(r->bandwidths); c++)
        if (!(o->start[c] > 0 && isfinite(o->start[c])))
            return qkv_fail(QKV_E_ARG, "%s: start[%td] is %g, expected a finite number > 0",
                            function, c, o->start[c]);
    return QKV_OK;
}

static qkv_status take_memory(search *s)
{
    ptrdiff_t d = s->d.s->d, n = s->n;
    s->room = 256 + n;
    s->grid = calloc((size_t)s->room, 2 * sizeof *s->grid);
    qkv_status status = qkv_regression_allocate("qkv_regression_fit", &s->numbers, n,
                                                2 * s->room + QKV_DESCENT_ARRAYS + 1 + d);
    if (!s->grid) status = qkv_fail(QKV_E_NOMEM, "qkv_regression_fit: no memory for candidates");
    if (status != QKV_OK) return status;
    s->found = s->grid + s->room;
    double *at = s->numbers;
    for (ptrdiff_t i = 0; i < 2 * s->room; i++, at += n) s->grid[i].h = at;
    double **const arrays[] = {&s->d.theta, &s->d.bandwidth,      &s->d.gradient, &s->d.kept,
                               &s->d.tried, &s->d.tried_gradient, &s->reference};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++, at += n) *arrays[i] = at;
    s->range = at;
    for (ptrdiff_t c = 0; c < d; c++) {
        const double *x = s->d.s->x + c * s->d.s->stride;
        double low = x[0], high = x[0];
        for (ptrdiff_t i = 1; i < s->d.s->n; i++) {
            low = fmin(low, x[i]);
            high = fmax(high, x[i]);
        }
        s->range[c] = ldexp(high - low, s->d.s->exponent[c]);
    }
    return QKV_OK;
}

static void report_minima(search *s, double *bandwidth)
{
    const qkv_regression_fit_options *o = s->options;
    size_t bytes = (size_t)s->n * sizeof *bandwidth;
    sort(s->found, s->n_found);
    memcpy(bandwidth, s->found[0].h, bytes);
    s->report->minima = s->n_found;
    s->report->evaluations = s->d.evaluations;
    for (ptrdiff_t i = 0; i < s->n_found && i < o->max_minima; i++) {
        o->minima[i * (1 + s->n)] = s->found[i].loss;
        memcpy(o->minima + i * (1 + s->n) + 1, s->found[i].h, bytes);
    }
    for (ptrdiff_t c = 0; c < s->d.s->d && c < 64; c++)
        if (ranges(s, bandwidth, c) * SMOOTH < 1) s->report->smoothed_out |= (uint64_t)1 << c;
}

static qkv_status fit(const qkv_regression *r, const qkv_regression_fit_options *options,
                      double *bandwidth, qkv_regression_fit_report *report)
{
    qkv_sample sample;
    search s = {.d = {.s = &sample, .options = options, .n = qkv_one_if_zero(r->bandwidths)},
                .options = options,
                .report = report,
                .n = qkv_one_if_zero(r->bandwidths)};
    qkv_status status = qkv_sample_take_pair("qkv_regression_fit", r, &sample);
    if (status == QKV_OK) status = take_memory(&s);
    if (status == QKV_OK) status = qkv_regression_silverman(r, s.reference);
    if (status == QKV_OK) status = search_all(&s);
    if (status == QKV_OK) report_minima(&s, bandwidth);
    free(s.grid);
    free(s.numbers);
    qkv_sample_free(&sample);
    return status;
}

qkv_status qkv_regression_fit(const qkv_regression *r, const qkv_regression_fit_options *options,
                              double *bandwidth, qkv_regression_fit_report *report)
{
    const qkv_regression_fit_options defaults = {0};
    qkv_regression_fit_report unwanted;
    if (!options) options = &defaults;
    if (!report) report = &unwanted;
    *report = (qkv_regression_fit_report){0};
    qkv_status status = check_options(__func__, r, options, bandwidth);
    if (status != QKV_OK) return status;
    qkv_regression admitting = *r; /* an empty support on the way is no error: it is turned back */
    if (r->empty == QKV_EMPTY_ERROR) admitting.empty = QKV_EMPTY_NAN;
    return fit(&admitting, options, bandwidth, report);
}
