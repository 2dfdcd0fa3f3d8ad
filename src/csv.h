/* csv.h - columns of numbers from and to CSV files. */
#ifndef QKV_SRC_CSV_H
#define QKV_SRC_CSV_H

#include <stdbool.h>
#include <stddef.h>

#include "qkv/status.h"

/* The different labels of a column of text, in the order of their first rows. */
typedef struct qkv_levels {
    char **names;
    size_t n;
} qkv_levels;

/* The columns asked for, in that order. */
typedef struct qkv_table {
    size_t rows, columns;
    double *data;       /* [rows, columns], all finite unless rows with missing cells are kept */
    char **names;       /* of the columns; without one in the header "column 1", "column 2", .. */
    size_t dropped;     /* rows left out because a cell asked for was empty, NA or NaN */
    qkv_levels *levels; /* [columns], of those read as text; NULL: none are */
} qkv_table;

/* What is wanted of a file; zero is every column, as numbers. */
typedef struct qkv_csv_options {
    const char *const *columns; /* n names, or numbers from "1" on */
    size_t n;
    const bool *text; /* [n]: data has the number of each label in levels, from 0; NULL: none */
    bool others;   /* after those, all other columns with a number, what is meant as one (12a), or
                      nothing in the first row, and a name if there is a header */
    bool by_place; /* a file without a header that has just n columns has them in this order */
    bool keep_missing; /* a missing cell is NaN; its row is kept, and counted in dropped */
} qkv_csv_options;

/* Reads a CSV (RFC 4180, by libcsv): fields separated by comma, semicolon or tab, whichever the
 * first line has most of; quotes, CRLF and a byte order mark are fine. The first line is a header
 * if none of its cells is a number. columns: n names of the header or numbers from "1" on (names
 * win; without a header "column 1" and so on are names); n = 0: all. path "-" is the standard
 * input. A decimal point is a point in every locale, and a number the nearest double: 1e-400 is 0.
 * table is overwritten, and zeroed on an error: QKV_E_FORMAT naming file, line and column for an
 * unknown column (with those there are), a name that two have, a column asked for twice, a row of
 * another length, text or a number beyond double in a column asked for, a misplaced quote, a NUL
 * byte, a row of more than 16 MiB, no complete row; QKV_E_IO, QKV_E_NOMEM, QKV_E_ARG. */
qkv_status qkv_csv_load(qkv_table *table, const char *path, const char *const *columns, size_t n);
void qkv_csv_free(qkv_table *table);

/* The same with options; NULL: all zero. QKV_E_FORMAT also for more than 1000 labels. With
 * keep_missing a file has to have a row, complete or not. */
qkv_status qkv_csv_read(qkv_table *table, const char *path, const qkv_csv_options *options);

/* A column to be written. */
typedef struct qkv_csv_column {
    const char *name;
    const double *data;        /* [rows] */
    const char *const *levels; /* the cell is levels[data]; NULL: data itself. NaN is NA */
} qkv_csv_column;

/* Writes a header of n names and rows rows; columns[j] is a column of rows numbers. Numbers have
 * the fewest digits that read back as the same double; NaN becomes NA. path "-" is the
 * standard output; a file appears whole or not at all. QKV_E_ARG, QKV_E_IO, QKV_E_NOMEM. */
qkv_status qkv_csv_save(const char *path, const char *const *names, const double *const *columns,
                        size_t n, size_t rows);
qkv_status qkv_csv_write(const char *path, const qkv_csv_column *columns, size_t n, size_t rows);

#endif
