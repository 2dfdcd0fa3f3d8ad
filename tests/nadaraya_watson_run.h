/* nadaraya_watson_run.h - the program as tests run it, and what they ask of its files. */
#ifndef QKV_TESTS_NADARAYA_WATSON_RUN_H
#define QKV_TESTS_NADARAYA_WATSON_RUN_H

#include <stddef.h>

#include "process.h"

#define NADARAYA_WATSON QKV_BIN_DIR "/nadaraya_watson"
#define CARS QKV_TEST_DATA "/../../examples/data/cars.csv"
#define ARGUMENTS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Runs the program with up to 24 arguments. */
ran regress(const char *const *arguments, const char *input);

/* The same, to succeed; what it says on both streams is dropped. */
void succeed(const char *const *arguments, const char *input);

void assert_contains(const char *text, const char *part);

void assert_refused(const char *const *arguments, int exit_code, const char *message);

void write_text(const char *name, const char *text);

/* A column of a CSV, NaN where it has NA, to be freed. */
double *column(const char *path, const char *name, size_t *rows);

void assert_column(const char *path, const char *name, const double *expected, size_t n,
                   ptrdiff_t stride, double tolerance);

#endif
