/* nadaraya_watson_predict.c - predictions with all that is known about them, and their files. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nadaraya_watson.h"
#include "qkv/npy.h"
#include "src/csv.h"

enum { PARTS = 20, LEAST_PART = 10000 }; /* queries predicted at a time */
static const double too_few = 2;         /* effective rows: fewer are hardly a mean */

/* P(|Z| > z) = erfc(z / sqrt 2) falls from 1 to 0 over z. */
double normal_quantile(double level)
{
    double low = 0, high = 40;
    for (int i = 0; i < 100; i++) {
        double middle = (low + high) / 2;
        if (erfc(middle / sqrt(2)) > 1 - level)
            low = middle;
        else
            high = middle;
    }
    return (low + high) / 2;
}

double best_class(const double *probabilities, ptrdiff_t n)
{
    ptrdiff_t best = 0;
    for (ptrdiff_t k = 1; k < n; k++)
        if (probabilities[k] > probabilities[best]) best = k;
    return isnan(probabilities[best]) ? NAN : (double)best;
}

double *transpose(const double *x, ptrdiff_t n, ptrdiff_t d)
{
    double *columns = allocate((size_t)(n * d), sizeof *columns);
    for (ptrdiff_t i = 0; i < n; i++)
        for (ptrdiff_t c = 0; c < d; c++) columns[c * n + i] = x[i * d + c];
    return columns;
}

/* ---- Errors and bands ------------------------------------------------------------------------ */

/* se = sigma ||weights||, of m and of its gradient. */
static void fill_errors(const session *s, predictions *p, const double *norm,
                        const double *gradient_norm)
{
    ptrdiff_t d = columns_x(s), d_y = columns_y(s);
    for (ptrdiff_t i = 0; i < p->queries.n; i++)
        for (ptrdiff_t k = 0; k < d_y; k++) {
            double sigma = s->model.sigma2 ? sqrt(s->model.sigma2[k]) : NAN;
            p->se[i * d_y + k] = sigma * norm[i];
            for (ptrdiff_t c = 0; c < d; c++)
                p->gradient_se[(i * d_y + k) * d + c] = sigma * gradient_norm[i * d + c];
        }
}

static bool observe(void *context, ptrdiff_t done, ptrdiff_t samples)
{
    (void)samples;
    progress_show(context, (long)done, "samples");
    return true;
}

static void fill_bands(const settings *o, const session *s, predictions *p)
{
    const qkv_regression_model *m = &s->model;
    ptrdiff_t n = p->queries.n * columns_y(s);
    if (o->samples) {
        progress bar = {.label = "bootstrap", .total = o->samples};
        const qkv_regression_bootstrap_options options = {.samples = o->samples,
                                                          .seed = (uint64_t)o->seed,
                                                          .level = o->level,
                                                          .observe = observe,
                                                          .context = &bar};
        check(qkv_regression_bootstrap(&m->r, m->bandwidth, p->queries.x, p->queries.n, &options,
                                       p->lower, p->upper));
    } else {
        double z = normal_quantile(o->level);
        for (ptrdiff_t i = 0; i < n; i++) {
            p->lower[i] = p->mean[i] - z * p->se[i];
            p->upper[i] = p->mean[i] + z * p->se[i];
        }
    }
    for (ptrdiff_t i = 0; m->classes && i < n; i++) { /* they are probabilities: NaN stays NaN */
        if (p->lower[i] < 0) p->lower[i] = 0;
        if (p->upper[i] > 1) p->upper[i] = 1;
    }
}

static void judge(const session *s, predictions *p)
{
    ptrdiff_t d = columns_x(s);
    for (ptrdiff_t i = 0; i < p->queries.n; i++) {
        bool missing = false, outside = false;
        for (ptrdiff_t c = 0; c < d; c++) {
            double x = p->queries.x[i * d + c];
            missing = missing || isnan(x);
            outside = outside || x < s->low[c] || x > s->high[c];
        }
        p->beyond[i] = !missing && (outside || !(p->n_effective[i] >= too_few));
        p->extrapolating += p->beyond[i];
        p->missing += missing;
    }
}

/* A part of many queries at a time, so that one sees how far it is: each part sorts the rows again,
 * which is little beside so many predictions. */
static void predict_parts(const session *s, predictions *p, double *norm, double *gradient_norm)
{
    const qkv_regression_model *m = &s->model;
    ptrdiff_t n = p->queries.n, d = columns_x(s), d_y = columns_y(s);
    ptrdiff_t part = n > PARTS * LEAST_PART ? (n + PARTS - 1) / PARTS : LEAST_PART;
    if (m->r.empty == QKV_EMPTY_ERROR) part = n; /* whose message counts all that are empty */
    progress bar = {.label = "predict", .total = (n + part - 1) / part};
    for (ptrdiff_t at = 0; at < n; at += part) {
        ptrdiff_t some = n - at < part ? n - at : part;
        qkv_regression_results results = {.mean = p->mean + at * d_y,
                                          .gradient = p->gradient + at * d_y * d,
                                          .norm = norm + at,
                                          .gradient_norm = gradient_norm + at * d,
                                          .n_effective = p->n_effective + at};
        check(qkv_regression_predict(&m->r, m->bandwidth, p->queries.x + at * d, some, &results));
        p->empty += results.empty;
        if (bar.total > 1) progress_show(&bar, at / part + 1, "%td queries", at + some);
    }
}

predictions predict_at(const settings *o, const session *s, query_set queries)
{
    size_t n = (size_t)queries.n, d = (size_t)columns_x(s), d_y = (size_t)columns_y(s);
    predictions p = {.queries = queries,
                     .mean = allocate(n * d_y, sizeof(double)),
                     .se = allocate(n * d_y, sizeof(double)),
                     .lower = allocate(n * d_y, sizeof(double)),
                     .upper = allocate(n * d_y, sizeof(double)),
                     .n_effective = allocate(n, sizeof(double)),
                     .gradient = allocate(n * d_y * d, sizeof(double)),
                     .gradient_se = allocate(n * d_y * d, sizeof(double)),
                     .beyond = allocate(n, sizeof(bool))};
    double *norm = allocate(n, sizeof *norm), *gradient_norm = allocate(n * d, sizeof *norm);
    predict_parts(s, &p, norm, gradient_norm);
    fill_errors(s, &p, norm, gradient_norm);
    fill_bands(o, s, &p);
    judge(s, &p);
    free(norm), free(gradient_norm);
    return p;
}

void free_predictions(predictions *p)
{
    free(p->mean), free(p->se), free(p->lower), free(p->upper);
    free(p->n_effective), free(p->gradient), free(p->gradient_se), free(p->beyond);
}

/* ---- Files ----------------------------------------------------------------------------------- */

/* A table of columns that own their names and numbers. */
typedef struct output {
    qkv_csv_column *columns;
    size_t n;
} output;

/* Takes both; levels are borrowed. */
static void add_column(output *t, char *name, double *data, const char *const *levels)
{
    t->columns = realloc(t->columns, (t->n + 1) * sizeof *t->columns);
    if (!t->columns) fail_with("out of memory");
    t->columns[t->n++] = (qkv_csv_column){name, data, levels};
}

/* Column k of x, [n, d]. */
static double *take_column(const double *x, ptrdiff_t n, ptrdiff_t d, ptrdiff_t k)
{
    double *column = allocate((size_t)n, sizeof *column);
    for (ptrdiff_t i = 0; i < n; i++) column[i] = x[i * d + k];
    return column;
}

/* "se" of the only y, "se_NAME" of several. */
static char *name_result(const session *s, const char *what, ptrdiff_t k)
{
    return columns_y(s) > 1 || s->model.classes ? print_text("%s_%s", what, s->model.y_names[k])
                                                : print_text("%s", what);
}

static void add_result(output *t, const session *s, const char *what, const double *data,
                       const predictions *p, ptrdiff_t k)
{
    add_column(t, name_result(s, what, k), take_column(data, p->queries.n, columns_y(s), k), NULL);
}

static void add_classes(output *t, const session *s, const predictions *p)
{
    ptrdiff_t d_y = columns_y(s);
    for (ptrdiff_t k = 0; k < d_y; k++) add_result(t, s, "p", p->mean, p, k);
    double *chosen = allocate((size_t)p->queries.n, sizeof *chosen);
    for (ptrdiff_t i = 0; i < p->queries.n; i++) chosen[i] = best_class(p->mean + i * d_y, d_y);
    add_column(t, print_text("class"), chosen, (const char *const *)s->model.y_names);
}

static void add_gradients(output *t, const session *s, const predictions *p)
{
    ptrdiff_t d = columns_x(s), d_y = columns_y(s);
    for (ptrdiff_t k = 0; k < d_y; k++)
        for (ptrdiff_t c = 0; c < d; c++) {
            char *what = print_text("grad_%s", s->model.x_names[c]);
            add_column(t, name_result(s, what, k),
                       take_column(p->gradient, p->queries.n, d_y * d, k * d + c), NULL);
            free(what);
        }
}

/* By a column before j or, if j is one of the d columns of x, by a result. */
static bool is_taken(const output *t, const char *name, size_t j, size_t d)
{
    for (size_t i = 0; i < t->n; i++)
        if ((i < j || (j < d && i >= d)) && strcmp(t->columns[i].name, name) == 0) return true;
    return false;
}

/* No two columns have one name: results keep theirs, and the column of x that is called "mean" is
 * "x_mean"; where columns of the data have one name, the results for the second are "mean_a_2". */
static void tell_apart(output *t, size_t d)
{
    for (size_t j = 0; j < t->n; j++) {
        const char *name = t->columns[j].name;
        char *other = print_text("%s", name);
        for (int k = 2; is_taken(t, other, j, d); k++) {
            char *longer = j < d ? print_text("x_%s", other) : print_text("%s_%d", name, k);
            free(other);
            other = longer;
        }
        if (strcmp(name, other) != 0)
            complain("two columns of the predictions would be called '%s': one is '%s'", name,
                     other);
        t->columns[j].name = other;
        free((char *)name);
    }
}

void save_predictions(const session *s, const predictions *p, const char *path)
{
    output t = {0};
    ptrdiff_t n = p->queries.n, d = columns_x(s), d_y = columns_y(s);
    bool classes = s->model.classes;
    for (ptrdiff_t c = 0; c < d; c++)
        add_column(&t, print_text("%s", s->model.x_names[c]), take_column(p->queries.x, n, d, c),
                   NULL);
    if (classes) add_classes(&t, s, p);
    for (ptrdiff_t k = 0; k < d_y; k++) {
        if (!classes) add_result(&t, s, "mean", p->mean, p, k);
        add_result(&t, s, "se", p->se, p, k);
        add_result(&t, s, "lower", p->lower, p, k);
        add_result(&t, s, "upper", p->upper, p, k);
    }
    add_column(&t, print_text("n_effective"), take_column(p->n_effective, n, 1, 0), NULL);
    add_gradients(&t, s, p);
    tell_apart(&t, (size_t)d);
    check(qkv_csv_write(path, t.columns, t.n, (size_t)n));
    for (size_t j = 0; j < t.n; j++)
        free((char *)t.columns[j].name), free((double *)t.columns[j].data);
    free(t.columns);
}

/* They are in memory as a whole. */
void refuse_many_weights(const session *s, query_set queries)
{
    static const double most = 2e9;
    double bytes = (double)queries.n * (double)s->model.r.n * sizeof(double);
    if (bytes > most)
        fail_with("--weights: %td queries by %td rows are %.3g GB, expected at most %g: ask for "
                  "fewer queries with --grid or --at",
                  queries.n, s->model.r.n, bytes / 1e9, most / 1e9);
}

void save_weights(const session *s, query_set queries, const char *path)
{
    const qkv_regression_model *m = &s->model;
    qkv_npy weights = {.type = QKV_NPY_F64, .rank = 2, .dim = {queries.n, m->r.n}};
    weights.data = allocate(qkv_npy_size(&weights), sizeof(double));
    qkv_regression_results results = {.weights = weights.data};
    check(qkv_regression_predict(&m->r, m->bandwidth, queries.x, queries.n, &results));
    check(qkv_npy_save(&weights, path));
    qkv_npy_free(&weights);
}
