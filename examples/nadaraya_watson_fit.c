/* nadaraya_watson_fit.c - how the bandwidth, and the kernel if asked to, is found. */
#include <float.h>
#include <math.h>
#include <string.h>
#include <time.h>

#include "nadaraya_watson.h"

enum { STARTS = 3, PERCENT = 100 };

/* A search in progress. Its bar counts percent of every kernel's: half for the grid, half for the
 * descents, each of which comes closer to its end by a fixed part of what is left. */
typedef struct watch {
    progress bar;
    long before; /* percent of the kernels that are done */
} watch;

double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool observe(void *context, const qkv_regression_step *s)
{
    watch *w = context;
    double part = 0.5;
    if (s->start < 0)
        part *= (double)s->step / fmax(1, (double)s->steps);
    else
        part += 0.5 * fmin(1, (s->start + 1 - pow(0.9, (double)s->step)) / STARTS);
    long done = w->before + (long)(part * PERCENT);
    if (done < w->bar.total)
        progress_show(&w->bar, done, isnan(s->loss) ? "objective NA" : "objective %.6g", s->loss);
    return true;
}

static qkv_status learn(const settings *o, const qkv_regression *r, watch *w, trial *t)
{
    const qkv_regression_fit_options options = {.criterion = o->criterion,
                                                .optimizer = o->optimizer,
                                                .starts = STARTS,
                                                .observe = observe,
                                                .context = w,
                                                .minima = t->minima,
                                                .max_minima = MAX_MINIMA};
    return qkv_regression_fit(r, &options, t->bandwidth, &t->report);
}

/* The numbers of the command line, in our own convention. */
static void take_numbers(const settings *o, qkv_regression *r, double *bandwidth)
{
    if (o->n_h != 1 && o->n_h != r->d_x)
        usage_error("--bandwidth gives %ld numbers, expected 1%s", o->n_h,
                    r->d_x > 1 ? print_text(" or %td, the columns of x", r->d_x)
                               : ", for the only column of x");
    for (ptrdiff_t c = 0; c < r->d_x; c++) {
        bandwidth[c] = o->h[o->n_h > 1 ? c : 0];
        double b = bandwidth[c];
        if (!o->converts) continue;
        check(qkv_regression_from_convention(o->convention, r->kernel, b, &bandwidth[c]));
        if (!isnormal(bandwidth[c]))
            usage_error("--bandwidth: %g is %g without --convention, expected between %g and %g", b,
                        bandwidth[c], DBL_MIN, DBL_MAX);
    }
    bool multiplies =
        o->convention == QKV_REGRESSION_NP || o->convention == QKV_REGRESSION_STATSMODELS;
    if (o->converts && multiplies) r->product = true;
}

/* QKV_E_DOMAIN: this kernel has none, which is no reason to give up all. */
static void try_kernel(const settings *o, qkv_regression *r, watch *w, trial *t)
{
    qkv_status status = QKV_OK;
    qkv_regression rows = for_rows(r);
    if (o->rule == AUTO)
        status = learn(o, &rows, w, t);
    else if (o->rule == SILVERMAN)
        status = qkv_regression_silverman(r, t->bandwidth);
    else
        take_numbers(o, r, t->bandwidth);
    rows.product = r->product; /* a convention may have said so */
    if (!status)
        status = qkv_regression_objective(&rows, o->criterion, t->bandwidth, &t->objective,
                                          &t->undefined, NULL);
    if (status && status != QKV_E_DOMAIN) check(status);
    t->found = !status;
    if (status) snprintf(t->message, sizeof t->message, "%s", qkv_last_error());
}

/* Rows left out compare with no other bandwidth: all of them come first. */
static bool is_better(const trial *a, const trial *b)
{
    if (a->found != b->found) return a->found;
    if ((a->undefined > 0) != (b->undefined > 0)) return a->undefined == 0;
    return a->objective < b->objective || isnan(b->objective);
}

static void search_kernels(const settings *o, session *s, search *found)
{
    qkv_regression *r = &s->model.r;
    int first = found->every_kernel ? 0 : (int)r->kernel,
        last = found->every_kernel ? KERNELS - 1 : (int)r->kernel, best = first;
    watch w = {.bar = {.label = "search", .total = (long)PERCENT * (last - first + 1)}};
    for (int k = first; k <= last; k++) {
        trial *t = &found->trials[k];
        r->kernel = (qkv_regression_kernel)k;
        try_kernel(o, r, &w, t);
        if (k > first && is_better(t, &found->trials[best])) best = k;
        w.before += PERCENT;
        if (o->rule == AUTO)
            progress_show(&w.bar, w.before, t->found ? "%s: objective %.6g" : "%s: no bandwidth",
                          qkv_regression_kernel_name(r->kernel), t->objective);
    }
    r->kernel = (qkv_regression_kernel)best;
    if (!found->trials[best].found) {
        const char *message = found->trials[best].message, *colon = strstr(message, ": ");
        fail_with("%s", colon ? colon + 2 : message);
    }
    memcpy(s->model.bandwidth, found->trials[best].bandwidth, (size_t)r->d_x * sizeof(double));
}

void find_bandwidth(const settings *o, session *s, search *found)
{
    double start = now();
    found->every_kernel = o->every_kernel;
    search_kernels(o, s, found);
    found->seconds = now() - start;
}
