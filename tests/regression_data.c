#include "regression_data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

qkv_table load(const char *path, const char *const *columns, size_t n)
{
    qkv_table t;
    assert_ok(qkv_csv_load(&t, path, columns, n));
    return t;
}

double *load_column(const char *path, const char *name, size_t *rows)
{
    qkv_table t = load(path, &name, 1);
    double *column = calloc(t.rows, sizeof *column);
    assert_non_null(column);
    memcpy(column, t.data, t.rows * sizeof *column);
    if (rows) *rows = t.rows;
    qkv_csv_free(&t);
    return column;
}

qkv_regression load_data(const char *path, const char *x, const char *y)
{
    size_t n;
    qkv_regression r = {.x = load_column(path, x, &n), .y = load_column(path, y, NULL)};
    r.n = (ptrdiff_t)n;
    return r;
}

void free_data(qkv_regression *r)
{
    free((double *)r->x);
    free((double *)r->y);
}

qkv_regression cars(void)
{
    return load_data(DATA "cars.csv", "speed", "dist");
}

qkv_regression faithful(void)
{
    return load_data(DATA "faithful.csv", "eruptions", "waiting");
}

qkv_regression mcycle(void)
{
    return load_data(DATA "mcycle.csv", "times", "accel");
}

qkv_status predict(const qkv_regression *r, const double *h, const double *q, ptrdiff_t n,
                   double *mean, double *weights)
{
    qkv_regression_results out = {.mean = mean, .weights = weights};
    return qkv_regression_predict(r, h, q, n, &out);
}

qkv_status leave_one_out(const qkv_regression *r, const double *h, double *mean)
{
    return predict(r, h, NULL, 0, mean, NULL);
}

qkv_status cv_of(const qkv_regression *r, const double *h, double *cv, ptrdiff_t *undefined,
                 double *gradient)
{
    return qkv_regression_objective(r, QKV_REGRESSION_LOO, h, cv, undefined, gradient);
}

void assert_relative(double actual, double expected, double tolerance)
{
    assert_close(actual, expected, tolerance * fmax(fabs(expected), 1e-300));
}
