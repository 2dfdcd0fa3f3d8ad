/* nadaraya_watson_json.c - what was found, as JSON. */
#include <math.h>
#include <stdlib.h>

#include "nadaraya_watson.h"
#include "src/file.h"
#include "src/label.h"

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
    check(qkv_output_open_or_standard(&output, o->report, "--report"));
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
