/* nadaraya_watson_data.c - where the rows come from: the toy data, a CSV, a saved model. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nadaraya_watson.h"
#include "src/csv.h"
#include "src/random.h"

enum {
    TOY_ROWS = 40,
    MANY_ROWS = 50000,
    SOME_ROWS = 10000,
    LEAST_ROWS = 2,
    MOST_QUERIES = 10000000
};

/* Where the columns of a file stand in its table. */
typedef struct columns {
    size_t x[MAX_COLUMNS], y[MAX_COLUMNS], weight;
    ptrdiff_t n_x, n_y;
    bool weighted;
} columns;

ptrdiff_t columns_x(const session *s)
{
    return s->model.r.d_x > 0 ? s->model.r.d_x : 1;
}

ptrdiff_t columns_y(const session *s)
{
    return s->model.r.d_y > 0 ? s->model.r.d_y : 1;
}

qkv_regression for_rows(const qkv_regression *r)
{
    qkv_regression rows = *r;
    if (rows.empty == QKV_EMPTY_ERROR) rows.empty = QKV_EMPTY_NAN;
    return rows;
}

double toy_function(double x)
{
    return 2 * sin(x) + x;
}

void fill_steps(double *x, ptrdiff_t n, double low, double high)
{
    double step = (high - low) / (double)(n - 1);
    for (ptrdiff_t i = 0; i < n; i++) {
        double part = (double)i / (double)(n - 1);
        x[i] = isfinite(step) ? low + (double)i * step /* as NumPy's linspace */
                              : low * (1 - part) + high * part;
    }
    x[n - 1] = high;
}

static char *copy_text(const char *text)
{
    char *copy = strdup(text);
    if (!copy) fail_with("out of memory");
    return copy;
}

static void find_range(session *s)
{
    const qkv_regression *r = &s->model.r;
    ptrdiff_t d = columns_x(s);
    for (ptrdiff_t c = 0; c < d; c++) {
        s->low[c] = INFINITY, s->high[c] = -INFINITY;
        for (ptrdiff_t i = 0; i < r->n; i++) {
            s->low[c] = fmin(s->low[c], r->x[i * d + c]);
            s->high[c] = fmax(s->high[c], r->x[i * d + c]);
        }
    }
}

/* ---- Toy data -------------------------------------------------------------------------------- */

static int by_number(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void make_toy(const settings *o, session *s)
{
    double *x = allocate(TOY_ROWS, sizeof *x), *y = allocate(TOY_ROWS, sizeof *y);
    uint64_t seed = (uint64_t)o->seed;
    for (int i = 0; i < TOY_ROWS; i++) x[i] = 5 * qkv_random_uniform(seed, 0, (uint64_t)i);
    qsort(x, TOY_ROWS, sizeof *x, by_number);
    for (int i = 0; i < TOY_ROWS; i++)
        y[i] = toy_function(x[i]) + qkv_random_normal(seed, 1, (uint64_t)i);
    qkv_regression_model *m = &s->model;
    m->r.x = x, m->r.y = y, m->r.n = TOY_ROWS, m->r.d_x = m->r.d_y = 1;
    m->x_names = allocate(1, sizeof *m->x_names);
    m->y_names = allocate(1, sizeof *m->y_names);
    m->x_names[0] = copy_text("x"), m->y_names[0] = copy_text("y");
    s->toy = true;
    s->source = "y = 2 sin x + x + noise";
    s->rows = (query_set){allocate(TOY_ROWS, sizeof *x), TOY_ROWS};
    memcpy(s->rows.x, x, TOY_ROWS * sizeof *x);
}

/* ---- A CSV ----------------------------------------------------------------------------------- */

/* The table has x, y and the weight as far as they are named, then the other columns of numbers. */
static columns place_columns(const settings *o, const qkv_table *t)
{
    columns c = {.n_x = o->n_x, .n_y = o->n_y, .weighted = o->case_weight != NULL};
    size_t next = 0, end = t->columns;
    for (long i = 0; i < o->n_x; i++) c.x[i] = next++;
    for (long i = 0; i < o->n_y; i++) c.y[i] = next++;
    if (c.weighted) c.weight = next++;
    if (c.n_y == 0) {
        if (end <= next + (c.n_x == 0))
            fail_with("%s: %s: name them with --x and --y", o->data,
                      c.n_x ? "no column of numbers is left to predict"
                            : "fewer than two columns of numbers");
        c.y[c.n_y++] = --end;
    }
    if (c.n_x == 0 && next == end)
        fail_with("%s: no column of numbers is left to predict from: name it with --x", o->data);
    for (; o->n_x == 0 && next < end; next++) {
        if (c.n_x == MAX_COLUMNS)
            fail_with("%s: more than %d columns of numbers: choose some with --x", o->data,
                      MAX_COLUMNS);
        c.x[c.n_x++] = next;
    }
    return c;
}

static bool is_complete(const double *row, const columns *c)
{
    bool complete = !c->weighted || !isnan(row[c->weight]);
    for (ptrdiff_t i = 0; i < c->n_x; i++) complete = complete && !isnan(row[c->x[i]]);
    for (ptrdiff_t i = 0; i < c->n_y; i++) complete = complete && !isnan(row[c->y[i]]);
    return complete;
}

/* Labels in order, as numbers if all are numbers: the same whatever the order of the rows. */
static const qkv_levels *levels_sorted; /* qsort's comparison takes no context */

static bool is_number(const char *text)
{
    char *end;
    strtod(text, &end);
    return end != text && !*end;
}

static int by_level(const void *a, const void *b)
{
    const char *x = levels_sorted->names[*(const size_t *)a],
               *y = levels_sorted->names[*(const size_t *)b];
    if (is_number(x) && is_number(y)) {
        double u = strtod(x, NULL), v = strtod(y, NULL);
        if (u != v) return u < v ? -1 : 1;
    }
    if (is_number(x) != is_number(y)) return is_number(x) ? -1 : 1;
    return strcmp(x, y);
}

/* y: one-hot, in the order of the labels. */
static void take_classes(session *s, const qkv_levels *levels, const double *label)
{
    qkv_regression_model *m = &s->model;
    size_t n = levels->n, *order = allocate(n, sizeof *order), *place = allocate(n, sizeof *place);
    for (size_t k = 0; k < n; k++) order[k] = k;
    levels_sorted = levels;
    qsort(order, n, sizeof *order, by_level);
    m->y_names = allocate(n, sizeof *m->y_names);
    for (size_t k = 0; k < n; k++) {
        m->y_names[k] = copy_text(levels->names[order[k]]);
        place[order[k]] = k;
    }
    double *y = allocate((size_t)m->r.n * n, sizeof *y);
    for (ptrdiff_t i = 0; i < m->r.n; i++) y[(size_t)i * n + place[(size_t)label[i]]] = 1;
    m->r.y = y;
    m->r.d_y = (ptrdiff_t)n;
    m->classes = true;
    free(order), free(place);
}

/* The complete rows; x of all of them as well. */
static void take_rows(session *s, const qkv_table *t, const columns *c, bool classes)
{
    qkv_regression_model *m = &s->model;
    size_t d = (size_t)c->n_x, d_y = (size_t)c->n_y;
    ptrdiff_t n = 0;
    double *x = allocate(t->rows * d, sizeof *x), *y = allocate(t->rows * d_y, sizeof *y);
    double *weight = c->weighted ? allocate(t->rows, sizeof *weight) : NULL;
    s->rows = (query_set){allocate(t->rows * d, sizeof *x), (ptrdiff_t)t->rows};
    for (size_t i = 0; i < t->rows; i++) {
        const double *row = t->data + i * t->columns;
        for (size_t j = 0; j < d; j++) s->rows.x[i * d + j] = row[c->x[j]];
        if (!is_complete(row, c)) continue;
        memcpy(x + (size_t)n * d, s->rows.x + i * d, d * sizeof *x);
        for (size_t j = 0; j < d_y; j++) y[(size_t)n * d_y + j] = row[c->y[j]];
        if (weight) weight[n] = row[c->weight];
        n++;
    }
    s->dropped = (ptrdiff_t)t->rows - n;
    m->r.x = x, m->r.y = y, m->r.weight = weight;
    m->r.n = n, m->r.d_x = c->n_x, m->r.d_y = c->n_y;
    m->x_names = allocate(d, sizeof *m->x_names);
    for (size_t j = 0; j < d; j++) m->x_names[j] = copy_text(t->names[c->x[j]]);
    if (classes) {
        take_classes(s, &t->levels[c->y[0]], y);
        s->label = copy_text(t->names[c->y[0]]);
        free(y);
        return;
    }
    m->y_names = allocate(d_y, sizeof *m->y_names);
    for (size_t j = 0; j < d_y; j++) m->y_names[j] = copy_text(t->names[c->y[j]]);
}

static void check_weights(const session *s, const char *name)
{
    const qkv_regression *r = &s->model.r;
    ptrdiff_t some = 0;
    for (ptrdiff_t i = 0; i < r->n; i++) {
        if (r->weight[i] < 0)
            fail_with("%s: the weight '%s' of complete row %td is %g, expected 0 or more",
                      s->source, name, i + 1, r->weight[i]);
        some += r->weight[i] > 0;
    }
    if (some < LEAST_ROWS)
        fail_with("%s: rows with a weight '%s' above 0: %td, expected at least %d", s->source, name,
                  some, LEAST_ROWS);
}

static void load_data(const settings *o, session *s)
{
    const char *names[2 * MAX_COLUMNS + 1];
    bool text[2 * MAX_COLUMNS + 1] = {false};
    size_t n = 0;
    for (long i = 0; i < o->n_x; i++) names[n++] = o->x[i];
    for (long i = 0; i < o->n_y; i++) {
        text[n] = o->classify;
        names[n++] = o->y[i];
    }
    if (o->case_weight) names[n++] = o->case_weight;
    qkv_table t;
    check(qkv_csv_read(&t, o->data,
                       &(qkv_csv_options){.columns = names,
                                          .n = n,
                                          .text = text,
                                          .others = o->n_x == 0 || o->n_y == 0,
                                          .keep_missing = true}));
    s->source = strcmp(o->data, "-") == 0 ? "standard input" : o->data;
    columns c = place_columns(o, &t);
    take_rows(s, &t, &c, o->classify);
    qkv_csv_free(&t);
    if (s->model.r.n < LEAST_ROWS)
        fail_with("%s: complete rows: %td, expected at least %d (incomplete, so dropped: %td)",
                  s->source, s->model.r.n, LEAST_ROWS, s->dropped);
    if (o->case_weight) check_weights(s, o->case_weight);
}

/* ---- All of it ------------------------------------------------------------------------------- */

static char **number_names(const char *what, ptrdiff_t n)
{
    char **names = allocate((size_t)n, sizeof *names);
    for (ptrdiff_t i = 0; i < n; i++)
        names[i] = n == 1 ? print_text("%s", what) : print_text("%s%td", what, i + 1);
    return names;
}

static void load_model(const settings *o, session *s)
{
    qkv_regression_model *m = &s->model;
    check(qkv_regression_load(o->load, m));
    s->source = o->load;
    if (o->sets_empty) m->r.empty = o->empty;
    ptrdiff_t d = columns_x(s);
    if (d > MAX_COLUMNS)
        fail_with("%s: %td columns of x, expected at most %d", o->load, d, MAX_COLUMNS);
    if (!m->x_names) m->x_names = number_names("x", d);
    if (!m->y_names) m->y_names = number_names("y", columns_y(s));
    size_t numbers = (size_t)m->r.n * (size_t)d;
    s->rows = (query_set){allocate(numbers, sizeof(double)), m->r.n};
    memcpy(s->rows.x, m->r.x, numbers * sizeof(double));
}

session open_session(const settings *o)
{
    session s = {0};
    if (o->load)
        load_model(o, &s);
    else if (o->data)
        load_data(o, &s);
    else
        make_toy(o, &s);
    find_range(&s);
    qkv_regression *r = &s.model.r;
    if (o->rows >= 0) r->rows = o->rows;
    if (o->load) return s;
    if (o->rows < 0 && r->n > MANY_ROWS) r->rows = SOME_ROWS;
    r->bandwidths = r->d_x;
    r->kernel = o->kernel;
    r->product = o->product;
    r->open_edge = o->open_edge;
    r->degree = (int)o->degree;
    r->empty = o->empty;
    s.model.bandwidth = allocate((size_t)r->d_x, sizeof(double));
    s.model.sigma2 = allocate((size_t)r->d_y, sizeof(double));
    return s;
}

void close_session(session *s)
{
    qkv_regression_model_free(&s->model);
    free(s->rows.x), free(s->label);
}

static query_set load_queries(const char *path, const session *s)
{
    qkv_table t;
    check(qkv_csv_read(&t, path,
                       &(qkv_csv_options){.columns = (const char *const *)s->model.x_names,
                                          .n = (size_t)columns_x(s),
                                          .by_place = true,
                                          .keep_missing = true}));
    query_set q = {t.data, (ptrdiff_t)t.rows};
    t.data = NULL;
    qkv_csv_free(&t);
    return q;
}

/* All points of a lattice, the last column fastest. */
static query_set make_grid(long per_column, const session *s)
{
    ptrdiff_t d = columns_x(s), n = 1;
    for (ptrdiff_t c = 0; c < d; c++) {
        if (n > MOST_QUERIES / per_column)
            usage_error("--grid: %ld numbers for each of %td columns are more than %d points",
                        per_column, d, MOST_QUERIES);
        n *= per_column;
    }
    query_set q = {allocate((size_t)(n * d), sizeof(double)), n};
    double *steps = allocate((size_t)per_column, sizeof *steps);
    ptrdiff_t repeat = n; /* how many neighbours in a row have the same number */
    for (ptrdiff_t c = 0; c < d; c++) {
        fill_steps(steps, per_column, s->low[c], s->high[c]);
        repeat /= per_column;
        for (ptrdiff_t i = 0; i < n; i++) q.x[i * d + c] = steps[i / repeat % per_column];
    }
    free(steps);
    return q;
}

query_set find_queries(const settings *o, const session *s)
{
    if (o->at) return load_queries(o->at, s);
    if (o->grid) return make_grid(o->grid, s);
    size_t bytes = (size_t)(s->rows.n * columns_x(s)) * sizeof(double);
    query_set q = {allocate(bytes, 1), s->rows.n};
    memcpy(q.x, s->rows.x, bytes);
    return q;
}
