/* nadaraya_watson_report.c - what was found: for a person, and as JSON. */
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "nadaraya_watson.h"
#include "src/file.h"
#include "src/label.h"

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
    bool some = m->r.rows > 0 && m->r.rows < m->r.n;
    a->accuracy = m->classes && !some ? leave_one_out_accuracy(s) : NAN;
    a->measured = true;
}

/* ---- For a person ---------------------------------------------------------------------------- */

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
        say("  %-12s %-10.6g   %s%s%s", name, t->objective, list,
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
    say("search         %td evaluations, %d starts, %td steps from the best: %s", f->evaluations,
        f->starts, f->steps,
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
    say("leave-one-out  %-10.6g   mean squared error (aicc %.6g, gcv %.6g)", t->cv, t->aicc,
        t->gcv);
    say("trace          %-10.6g   degrees of freedom", t->trace);
    say("sigma          %-10.6g   standard deviation of the noise", sqrt(t->sigma2));
    if (s->model.classes)
        say("accuracy       %-10.4f   leave-one-out, %td classes", a->accuracy, columns_y(s));
    else
        say("R^2            %-10.4f   leave-one-out (%.4f in sample)", t->r_squared_loo,
            t->r_squared);
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

/* Texts, owned. */
typedef struct warnings {
    char *text[8 + 2 * MAX_COLUMNS];
    int n;
} warnings;

static void add_warning(warnings *w, char *text)
{
    w->text[w->n++] = text;
}

static void warn_of_fit(const session *s, const account *a, warnings *w)
{
    const trial *t = &a->found->trials[s->model.r.kernel];
    for (ptrdiff_t c = 0; c < columns_x(s); c++)
        if (c < 64 && t->report.smoothed_out >> c & 1)
            add_warning(w, print_text("'%s' is smoothed out: its bandwidth, %.3g, is so large that "
                                      "it takes no part",
                                      s->model.x_names[c], s->model.bandwidth[c]));
    if (t->report.minima > 1)
        add_warning(
            w, print_text("the objective has %td minima: the lowest was taken", t->report.minima));
}

static void warn_of_data(const session *s, const account *a, warnings *w)
{
    if (s->dropped)
        add_warning(w, print_text("%td of %td rows have missing cells and are left out", s->dropped,
                                  s->rows.n));
    for (ptrdiff_t c = 0; c < columns_x(s); c++)
        if (s->low[c] == s->high[c])
            add_warning(w, print_text("'%s' is %g in all rows: it predicts nothing",
                                      s->model.x_names[c], s->low[c]));
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

static warnings list_warnings(const session *s, const account *a)
{
    warnings w = {0};
    warn_of_data(s, a, &w);
    if (a->found) warn_of_fit(s, a, &w);
    if (a->predicted) warn_of_predictions(a->predicted, &w);
    return w;
}

static void free_warnings(warnings *w)
{
    for (int i = 0; i < w->n; i++) free(w->text[i]);
}

void warn(const session *s, const account *a)
{
    warnings w = list_warnings(s, a);
    for (int i = 0; i < w.n; i++) complain("%s", w.text[i]);
    free_warnings(&w);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

/* A file in the making: name is the next one's; a value follows its name or, in a list, a comma. */
typedef struct json {
    FILE *f;
    bool first;
} json;

static void write_string(FILE *f, const char *text)
{
    fputc('"', f);
    for (const char *s = text; *s;) {
        int n = qkv_utf8_length(s);
        if (n == 0)
            fputs("\\ufffd", f); /* no text; what JSON has in its place */
        else if (*s == '"' || *s == '\\')
            fprintf(f, "\\%c", *s);
        else if ((unsigned char)*s < 0x20 || *s == 0x7f)
            fprintf(f, "\\u%04x", (unsigned)*s);
        else
            fwrite(s, 1, (size_t)n, f);
        s += n ? n : 1;
    }
    fputc('"', f);
}

static void separate(json *j)
{
    if (!j->first) fputs(", ", j->f);
    j->first = false;
}

/* The next value of the object, a line each. */
static void name(json *j, const char *text)
{
    fputs(j->first ? "\n  " : ",\n  ", j->f);
    write_string(j->f, text);
    fputs(": ", j->f);
    j->first = true;
}

/* JSON has neither NaN nor Infinity. */
static void number(json *j, double x)
{
    separate(j);
    char digits[40] = "null";
    for (int precision = 15; isfinite(x) && precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, x);
        if (strtod(digits, NULL) == x) break;
    }
    fputs(digits, j->f);
}

static void text(json *j, const char *s)
{
    separate(j);
    write_string(j->f, s);
}

static void boolean(json *j, bool x)
{
    separate(j);
    fputs(x ? "true" : "false", j->f);
}

static void begin(json *j, char bracket)
{
    separate(j);
    fputc(bracket, j->f);
    j->first = true;
}

static void end(json *j, char bracket)
{
    fputc(bracket, j->f);
    j->first = false;
}

static void name_number(json *j, const char *what, double x)
{
    name(j, what);
    number(j, x);
}

static void name_count(json *j, const char *what, ptrdiff_t n)
{
    name_number(j, what, (double)n);
}

static void name_text(json *j, const char *what, const char *s)
{
    name(j, what);
    text(j, s);
}

static void name_boolean(json *j, const char *what, bool x)
{
    name(j, what);
    boolean(j, x);
}

static void name_texts(json *j, const char *what, char *const *s, ptrdiff_t n)
{
    name(j, what);
    begin(j, '[');
    for (ptrdiff_t i = 0; i < n; i++) text(j, s[i]);
    end(j, ']');
}

/* One number as itself, several as a list. */
static void numbers(json *j, const double *x, ptrdiff_t n)
{
    if (n > 1) begin(j, '[');
    for (ptrdiff_t i = 0; i < n; i++) number(j, x[i]);
    if (n > 1) end(j, ']');
}

static void report_model(json *j, const session *s)
{
    const qkv_regression_model *m = &s->model;
    name_count(j, "n", m->r.n);
    name_count(j, "dropped", s->dropped);
    name_count(j, "rows", m->r.rows > 0 && m->r.rows < m->r.n ? m->r.rows : m->r.n);
    name_texts(j, "x", m->x_names, columns_x(s));
    name_texts(j, m->classes ? "classes" : "y", m->y_names, columns_y(s));
    name_text(j, "kernel", qkv_regression_kernel_name(m->r.kernel));
    name_boolean(j, "product", m->r.product);
    name_text(j, "edge", m->r.open_edge ? "open" : "closed");
    name_count(j, "degree", m->r.degree);
    name(j, "bandwidth");
    numbers(j, m->bandwidth, m->r.bandwidths > 1 ? m->r.bandwidths : 1);
}

static void report_statistics(json *j, const session *s, const account *a)
{
    const qkv_regression_statistics *t = &a->statistics;
    name_number(j, "cv", t->cv);
    name_number(j, "aicc", t->aicc);
    name_number(j, "gcv", t->gcv);
    name_number(j, "rss", t->rss);
    name_number(j, "trace", t->trace);
    name_number(j, "trace_squared", t->trace_squared);
    name_number(j, "sigma2", t->sigma2);
    if (columns_y(s) > 1 && s->model.sigma2) {
        name(j, "sigma2_each");
        numbers(j, s->model.sigma2, columns_y(s));
    }
    name_number(j, "r2", t->r_squared);
    name_number(j, "r2_loo", t->r_squared_loo);
    if (s->model.classes) name_number(j, "accuracy", a->accuracy);
    name_count(j, "undefined", t->undefined);
}

static void report_minima(json *j, const trial *t, ptrdiff_t d)
{
    ptrdiff_t n = t->report.minima < MAX_MINIMA ? t->report.minima : MAX_MINIMA;
    name(j, "minima");
    begin(j, '[');
    for (ptrdiff_t i = 0; i < n; i++) {
        separate(j);
        fputs("{\"objective\": ", j->f);
        j->first = true;
        number(j, t->minima[i * (1 + d)]);
        fputs(", \"bandwidth\": ", j->f);
        j->first = true;
        numbers(j, t->minima + i * (1 + d) + 1, d);
        fputc('}', j->f);
    }
    end(j, ']');
}

static void report_search(json *j, const settings *o, const session *s, const account *a)
{
    static const char *const rules[] = {"auto", "silverman", "given"}, *const optimizers[] = {
                                                                           "lbfgs", "adam", "gd"};
    const trial *t = &a->found->trials[s->model.r.kernel];
    name_text(j, "select", criterion_name(o->criterion));
    name_number(j, "objective", t->objective);
    name_text(j, "rule", rules[o->rule]);
    if (o->rule == AUTO) {
        const qkv_regression_fit_report *f = &t->report;
        name_text(j, "optimizer", optimizers[o->optimizer]);
        name_number(j, "objective_before", f->loss_before);
        name_number(j, "gradient", f->gradient);
        name_boolean(j, "converged", f->converged);
        name_count(j, "steps", f->steps);
        name_count(j, "starts", f->starts);
        name_count(j, "evaluations", f->evaluations);
        name_count(j, "inadmissible", f->inadmissible);
        report_minima(j, t, columns_x(s));
        name(j, "smoothed_out");
        begin(j, '[');
        for (ptrdiff_t c = 0; c < columns_x(s); c++)
            if (c < 64 && f->smoothed_out >> c & 1) text(j, s->model.x_names[c]);
        end(j, ']');
    }
    name_number(j, "seconds_search", a->found->seconds);
}

static void report_kernels(json *j, const session *s, const search *found)
{
    name(j, "kernels");
    begin(j, '{');
    for (int k = 0; k < KERNELS; k++) {
        const trial *t = &found->trials[k];
        separate(j);
        fprintf(j->f, "\n    \"%s\": {\"objective\": ",
                qkv_regression_kernel_name((qkv_regression_kernel)k));
        j->first = true;
        number(j, t->found ? t->objective : NAN);
        fputs(", \"bandwidth\": ", j->f);
        j->first = true;
        if (t->found)
            numbers(j, t->bandwidth, columns_x(s));
        else
            number(j, NAN);
        fprintf(j->f, ", \"undefined\": %td}", t->undefined);
    }
    end(j, '}');
}

void save_report(const settings *o, const session *s, const account *a)
{
    qkv_output output;
    check(qkv_output_open(&output, o->report, "nadaraya_watson"));
    json j = {output.stream, true};
    fputc('{', j.f);
    report_model(&j, s);
    if (a->found) report_search(&j, o, s, a);
    if (a->found && a->found->every_kernel) report_kernels(&j, s, a->found);
    report_statistics(&j, s, a);
    if (a->predicted) {
        name_count(&j, "queries", a->predicted->queries.n);
        name_count(&j, "queries_missing", a->predicted->missing);
        name_count(&j, "queries_empty", a->predicted->empty);
        name_count(&j, "queries_extrapolating", a->predicted->extrapolating);
    }
    warnings w = list_warnings(s, a);
    name_texts(&j, "warnings", w.text, w.n);
    free_warnings(&w);
    name_number(&j, "seconds", a->seconds);
    fputs("\n}\n", j.f);
    check(qkv_output_commit(&output, "nadaraya_watson"));
}
