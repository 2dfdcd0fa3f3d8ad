/* nadaraya_watson_report.c - what was found, for a person. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nadaraya_watson.h"

enum { MAX_STEPS = 500 }; /* the library's default */

/* ---- Measures -------------------------------------------------------------------------------- */

/* The part of the weight whose class is the most probable one when the row itself is left out; rows
 * with no other in reach are left out of both. */
static double leave_one_out_accuracy(const session *s)
{
    const qkv_regression rows = for_rows(&s->model.r), *r = &rows;
    ptrdiff_t classes = columns_y(s);
    double *mean = allocate((size_t)(r->n * classes), sizeof *mean), right = 0, all = 0;
    check(qkv_regression_predict(r, s->model.bandwidth, NULL, 0,
                                 &(qkv_regression_results){.mean = mean}));
    for (ptrdiff_t i = 0; i < r->n; i++) {
        double predicted = best_class(mean + i * classes, classes),
               weight = r->weight ? r->weight[i] : 1;
        if (isnan(predicted)) continue;
        all += weight;
        if (r->y[i * classes + (ptrdiff_t)predicted] > 0) right += weight;
    }
    free(mean);
    return right / all;
}

void measure(session *s, account *a)
{
    qkv_regression_model *m = &s->model;
    /* A loaded model keeps its own sigma2: its errors are those it was saved with. */
    qkv_regression rows = for_rows(&m->r);
    check(qkv_regression_measure(&rows, m->bandwidth, &a->statistics, a->found ? m->sigma2 : NULL));
    for (ptrdiff_t k = 0; k < columns_y(s) && m->sigma2; k++) /* unknown, if y has no squares */
        if (isinf(m->sigma2[k])) m->sigma2[k] = NAN;
    bool some = m->r.rows > 0 && m->r.rows < m->r.n;
    a->accuracy = m->classes && !some ? leave_one_out_accuracy(s) : NAN;
    a->measured = true;
}

/* ---- For a person ---------------------------------------------------------------------------- */

typedef struct digits {
    char text[32];
} digits;

/* Six digits; NA for NaN, whose sign is an accident. */
static digits show(double x)
{
    digits d = {"NA"};
    if (!isnan(x)) snprintf(d.text, sizeof d.text, "%.6g", x);
    return d;
}

/* A part of 1, with four decimals. */
static digits show_part(double x)
{
    digits d = {"NA"};
    if (!isnan(x)) snprintf(d.text, sizeof d.text, "%.4f", x);
    return d;
}

/* "a, b and c", to be freed. */
static char *list_names(char *const *names, ptrdiff_t n)
{
    char *list = print_text("%s", names[0]);
    for (ptrdiff_t i = 1; i < n; i++) {
        char *longer = print_text("%s%s%s", list, i + 1 < n ? ", " : " and ", names[i]);
        free(list);
        list = longer;
    }
    return list;
}

static void print_data(const session *s)
{
    const qkv_regression_model *m = &s->model;
    if (s->toy) {
        say("data           %s: %td rows", s->source, m->r.n);
        return;
    }
    char *x = list_names(m->x_names, columns_x(s)), *y = list_names(m->y_names, columns_y(s));
    say("data           %s by %s, of %s: %td rows", s->label ? s->label : y, x, s->source, m->r.n);
    free(x), free(y);
}

static void print_kernels(const settings *o, const session *s, const search *found)
{
    say("%-14s %-10s   bandwidth", "kernel", criterion_name(o->criterion));
    for (int k = 0; k < KERNELS; k++) {
        const trial *t = &found->trials[k];
        const char *name = qkv_regression_kernel_name((qkv_regression_kernel)k);
        if (!t->found) {
            say("  %-12s %-10s   no bandwidth defines every row", name, "-");
            continue;
        }
        char *list = print_text("%.6g", t->bandwidth[0]);
        for (ptrdiff_t c = 1; c < columns_x(s); c++) {
            char *longer = print_text("%s, %.6g", list, t->bandwidth[c]);
            free(list);
            list = longer;
        }
        say("  %-12s %-10s   %s%s%s", name, show(t->objective).text, list,
            t->undefined ? "   (rows undefined)" : "",
            k == (int)s->model.r.kernel ? "   best" : "");
        free(list);
    }
}

static void print_kernel(const session *s)
{
    const qkv_regression *r = &s->model.r;
    say("kernel         %s%s%s%s", qkv_regression_kernel_name(r->kernel),
        r->open_edge ? ", open edge" : "", r->product && columns_x(s) > 1 ? ", product" : "",
        r->degree ? ", local linear" : "");
    for (ptrdiff_t c = 0; c < columns_x(s); c++)
        say("bandwidth      %-10.6g   of %s", s->model.bandwidth[r->bandwidths > 1 ? c : 0],
            s->model.x_names[c]);
}

/* How the search went. */
static void print_search(const trial *t, ptrdiff_t d)
{
    const qkv_regression_fit_report *f = &t->report;
    if (f->evaluations == 0) return;
    say("search         %td evaluations, %d start%s, %td step%s from the best: %s", f->evaluations,
        f->starts, f->starts == 1 ? "" : "s", f->steps, f->steps == 1 ? "" : "s",
        f->converged           ? "converged"
        : f->steps < MAX_STEPS ? "no step lowers the objective any more"
                               : "not converged");
    ptrdiff_t shown = f->minima < MAX_MINIMA ? f->minima : MAX_MINIMA;
    for (ptrdiff_t i = 1; i < shown; i++)
        say("other minimum  %-10.6g   at bandwidth %.6g%s", t->minima[i * (1 + d)],
            t->minima[i * (1 + d) + 1], d > 1 ? ", .." : "");
}

static void print_statistics(const session *s, const account *a)
{
    const qkv_regression_statistics *t = &a->statistics;
    say("leave-one-out  %-10s   mean squared error (aicc %s, gcv %s)", show(t->cv).text,
        show(t->aicc).text, show(t->gcv).text);
    say("trace          %-10s   degrees of freedom", show(t->trace).text);
    say("sigma          %-10s   standard deviation of the noise", show(sqrt(t->sigma2)).text);
    if (s->model.classes)
        say("accuracy       %-10s   leave-one-out, %td classes", show_part(a->accuracy).text,
            columns_y(s));
    else
        say("R^2            %-10s   leave-one-out (%s in sample)", show_part(t->r_squared_loo).text,
            show_part(t->r_squared).text);
}

void print_account(const settings *o, const session *s, const account *a)
{
    print_data(s);
    if (a->found && a->found->every_kernel) print_kernels(o, s, a->found);
    print_kernel(s);
    if (a->found) print_search(&a->found->trials[s->model.r.kernel], columns_x(s));
    if (a->measured) print_statistics(s, a);
}

/* ---- Warnings -------------------------------------------------------------------------------- */

static void add_warning(warnings *w, char *text)
{
    w->text[w->n++] = text;
}

static void warn_of_fit(const session *s, const account *a, warnings *w)
{
    const trial *t = &a->found->trials[s->model.r.kernel];
    for (ptrdiff_t c = 0; c < columns_x(s); c++)
        if (c < 64 && t->report.smoothed_out >> c & 1 && s->low[c] < s->high[c])
            add_warning(w, print_text("'%s' is smoothed out: its bandwidth, %.3g, is so large that "
                                      "it takes no part",
                                      s->model.x_names[c], s->model.bandwidth[c]));
    if (t->report.minima > 1)
        add_warning(
            w, print_text("the objective has %td minima: the lowest was taken", t->report.minima));
}

static double largest_y(const session *s)
{
    double most = 0;
    for (ptrdiff_t i = 0; i < s->model.r.n * columns_y(s); i++)
        most = fmax(most, fabs(s->model.r.y[i]));
    return most;
}

static bool is_constant(const session *s, ptrdiff_t k)
{
    const qkv_regression *r = &s->model.r;
    for (ptrdiff_t i = 1, d_y = columns_y(s); i < r->n; i++)
        if (r->y[i * d_y + k] != r->y[k]) return false;
    return true;
}

/* What is the same in all rows. */
static void warn_of_constants(const session *s, warnings *w)
{
    const qkv_regression_model *m = &s->model;
    for (ptrdiff_t c = 0; c < columns_x(s); c++)
        if (s->low[c] == s->high[c])
            add_warning(w, print_text("'%s' is %g in all rows: it predicts nothing", m->x_names[c],
                                      s->low[c]));
    for (ptrdiff_t k = 0; k < columns_y(s) && (m->classes || k < MAX_COLUMNS); k++) {
        if (!is_constant(s, k)) continue;
        if (!m->classes)
            add_warning(w, print_text("'%s' is %g in all rows: there is nothing to learn",
                                      m->y_names[k], m->r.y[k]));
        else if (m->r.y[k] > 0)
            add_warning(w, print_text("all rows are of the class '%s'", m->y_names[k]));
    }
}

static void warn_of_data(const session *s, const account *a, warnings *w)
{
    if (s->dropped)
        add_warning(w, print_text("%td of %td rows have missing cells and are left out", s->dropped,
                                  s->rows.n));
    warn_of_constants(s, w);
    double y = largest_y(s);
    if (y > 1e150 || (y > 0 && y < 1e-150))
        add_warning(w, print_text("y is up to %.3g: a double has not its squares, so that errors, "
                                  "bands and criteria are none: in another unit it would do",
                                  y));
    ptrdiff_t rows = s->model.r.rows;
    if (a->measured && rows && rows < s->model.r.n)
        add_warning(w, print_text("criteria and statistics come from the fits of %td of %td rows: "
                                  "--rows says how many",
                                  rows, s->model.r.n));
    if (a->measured && a->statistics.undefined)
        add_warning(w, print_text("%td of %td rows have no other in reach: leave-one-out does "
                                  "without them",
                                  a->statistics.undefined, a->statistics.n));
}

static void warn_of_predictions(const predictions *p, warnings *w)
{
    if (p->missing)
        add_warning(w, print_text("%td of %td queries have missing cells: their results are NA",
                                  p->missing, p->queries.n));
    if (p->empty)
        add_warning(w,
                    print_text("%td of %td queries have no row in reach", p->empty, p->queries.n));
    if (p->extrapolating)
        add_warning(w, print_text("%td of %td queries extrapolate: n_effective below 2, or outside "
                                  "the range of the data",
                                  p->extrapolating, p->queries.n));
}

warnings list_warnings(const session *s, const account *a)
{
    warnings w = {0};
    warn_of_data(s, a, &w);
    if (a->found) warn_of_fit(s, a, &w);
    if (a->predicted) warn_of_predictions(a->predicted, &w);
    return w;
}

void free_warnings(warnings *w)
{
    for (int i = 0; i < w->n; i++) free(w->text[i]);
}

void warn(const session *s, const account *a)
{
    warnings w = list_warnings(s, a);
    for (int i = 0; i < w.n; i++) complain("%s", w.text[i]);
    free_warnings(&w);
}
