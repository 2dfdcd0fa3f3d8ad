/* regression_data.h - the data that tests of regressions share, and short ways to ask of them. */
#ifndef QKV_TESTS_REGRESSION_DATA_H
#define QKV_TESTS_REGRESSION_DATA_H

#include "qkv/regression.h"
#include "src/csv.h"

#define REFERENCE QKV_TEST_DATA "/nadaraya-watson/"
#define DATA QKV_TEST_DATA "/../../examples/data/"

qkv_table load(const char *path, const char *const *columns, size_t n);
/* One column as an array, to be freed. */
double *load_column(const char *path, const char *name, size_t *rows);
qkv_regression load_data(const char *path, const char *x, const char *y);
void free_data(qkv_regression *r);
qkv_regression cars(void);
qkv_regression faithful(void);
qkv_regression mcycle(void);
qkv_status predict(const qkv_regression *r, const double *h, const double *q, ptrdiff_t n,
                   double *mean, double *weights);
qkv_status leave_one_out(const qkv_regression *r, const double *h, double *mean);
qkv_status cv_of(const qkv_regression *r, const double *h, double *cv, ptrdiff_t *undefined,
                 double *gradient);
void assert_relative(double actual, double expected, double tolerance);

#endif
