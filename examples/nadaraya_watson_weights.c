/* nadaraya_watson_weights.c - heatmaps of the attention weights. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "nadaraya_watson.h"

enum { MAX_QUERIES = 50, MAX_CELLS = 80 }; /* rows and columns of a heatmap */

typedef struct key {
    double x;
    ptrdiff_t row;
} key;

static int by_x(const void *a, const void *b)
{
    const key *x = a, *y = b;
    if (x->x != y->x) return x->x < y->x ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

/* The rows of the data in the order of the first column. */
static ptrdiff_t *sort_rows(const session *s)
{
    const qkv_regression *r = &s->model.r;
    key *keys = allocate((size_t)r->n, sizeof *keys);
    ptrdiff_t *order = allocate((size_t)r->n, sizeof *order);
    for (ptrdiff_t i = 0; i < r->n; i++) keys[i] = (key){r->x[i * columns_x(s)], i};
    qsort(keys, (size_t)r->n, sizeof *keys, by_x);
    for (ptrdiff_t i = 0; i < r->n; i++) order[i] = keys[i].row;
    free(keys);
    return order;
}

/* Steps along the only column, or evenly chosen rows of the data in the order of the first. */
static double *weight_queries(const session *s, const ptrdiff_t *order, ptrdiff_t rows)
{
    const qkv_regression *r = &s->model.r;
    ptrdiff_t d = columns_x(s);
    double *q = allocate((size_t)(rows * d), sizeof *q);
    if (d == 1) fill_steps(q, rows, s->low[0], s->high[0]);
    for (ptrdiff_t i = 0; d > 1 && i < rows; i++)
        memcpy(q + i * d, r->x + order[rows > 1 ? i * (r->n - 1) / (rows - 1) : 0] * d,
               (size_t)d * sizeof *q);
    return q;
}

/* The weights of n queries, in the order of the keys, so many neighbours a cell added up: a row
 * still adds to 1. cells: [n, cols]. Not all at once: weights are as many as queries times keys. */
static void add_weights(const qkv_regression *r, const double *bandwidth, const double *q,
                        ptrdiff_t n, const ptrdiff_t *order, ptrdiff_t bin, double *cells)
{
    enum { AT_ONCE = 10000000 };
    ptrdiff_t most = r->n < AT_ONCE ? AT_ONCE / r->n : 1, cols = (r->n + bin - 1) / bin;
    double *weights = allocate((size_t)(r->n * (most < n ? most : n)), sizeof *weights);
    for (ptrdiff_t i = 0, part; i < n; i += part) {
        part = most < n - i ? most : n - i;
        check(qkv_regression_predict(r, bandwidth, q + i * (r->d_x > 0 ? r->d_x : 1), part,
                                     &(qkv_regression_results){.weights = weights}));
        for (ptrdiff_t k = 0; k < part; k++)
            for (ptrdiff_t j = 0; j < r->n; j++)
                cells[(i + k) * cols + j / bin] += weights[k * r->n + order[j]];
    }
    free(weights);
}

void draw_weights(const sheet *to, const char *name, const session *s, const qkv_regression *each,
                  const double *bandwidths, const char *const *titles, int n)
{
    ptrdiff_t d = columns_x(s), keys = s->model.r.n, bin = (keys + MAX_CELLS - 1) / MAX_CELLS,
              cols = (keys + bin - 1) / bin;
    ptrdiff_t rows = (ptrdiff_t)fmin(MAX_QUERIES, 2 * (double)keys); /* or it would be a strip */
    ptrdiff_t *order = sort_rows(s);
    double *q = weight_queries(s, order, rows);
    double *cells = allocate((size_t)(n * rows * cols), sizeof *cells);
    for (int k = 0; k < n; k++)
        add_weights(&each[k], bandwidths + k * d, q, rows, order, bin, cells + k * rows * cols);
    double first = d == 1 ? s->low[0] : 0, last = d == 1 ? s->high[0] : (double)(keys - 1);
    double half = last > first ? (last - first) / (double)(rows - 1) / 2 : 0.5; /* of a cell */
    char *path = sheet_path(to, name);
    char *below = bin > 1 ? print_text("Keys, by %s (%td a cell)", s->model.x_names[0], bin)
                          : print_text("Keys, by %s", s->model.x_names[0]);
    char *beside = d == 1 ? print_text("Queries, by %s", s->model.x_names[0])
                          : print_text("Queries, by %s", s->model.x_names[0]);
    const qkv_heatmap_options options = {.figure.path = path,
                                         .x_label = below,
                                         .y_label = beside,
                                         .x_range = {-0.5, (double)(bin * cols) - 0.5},
                                         .y_range = {first - half, last + half},
                                         .titles = titles};
    check(qkv_show_heatmaps(cells, (const ptrdiff_t[]){1, n, rows, cols}, &options));
    say("wrote %s", path);
    free(path), free(below), free(beside), free(q), free(cells), free(order);
}
