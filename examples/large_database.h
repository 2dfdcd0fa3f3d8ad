/* large_database.h - the database of large_database.c: two files of rows, made or one's own, of
 * which a shard at a time is in memory. */
#ifndef QKV_EXAMPLES_LARGE_DATABASE_H
#define QKV_EXAMPLES_LARGE_DATABASE_H

#include <stdbool.h>
#include <stddef.h>

#include "common.h"
#include "qkv/npy.h"

typedef struct settings {
    long records, dim, queries, seed; /* of a database that is made */
    const char *keys, *values, *ask;  /* files of one's own; NULL: made in directory */
    const char *directory, *output, *gradient, *plot, *format;
    long memory, shard, sweep; /* MiB, rows, queries */
    bool keep, check;
} settings;

/* Streams of random numbers. */
enum { KEYS, VALUES, PLACES, NOISE, SWEEP };

/* Rows of floats in a file. */
typedef struct rows_file {
    int file;
    size_t offset; /* of the first row, in bytes */
    ptrdiff_t rows, columns;
} rows_file;

typedef struct database {
    rows_file keys, values;
    ptrdiff_t shard, shards; /* rows of one, and how many there are */
} database;

/* Makes the files, or opens those that settings name. What is made and not to be kept goes with the
 * program, however that ends. */
database open_database(const settings *s);

double mebibytes(const database *d);

/* [n, columns of the keys]: noisy copies of keys, or from a file; for qkv_npy_free. */
qkv_npy open_queries(const settings *s, const database *d);

/* The record that a query is made from: one in each of as many parts of the database. */
long place_of(const settings *s, long query);

/* Rows of a file in the address space. */
typedef struct mapping {
    float *data; /* NULL: there is no room, errno says */
    char *page;
    size_t bytes;
} mapping;

mapping map_rows(const rows_file *f, ptrdiff_t first, ptrdiff_t rows);
void unmap(mapping m);

typedef struct mapped_shard {
    ptrdiff_t rows;
    mapping k, v;
} mapped_shard;

/* Maps a shard; the disk meanwhile reads the next one, which is before it or behind it. */
mapped_shard map_shard(const database *d, ptrdiff_t index, int direction);
void unmap_shard(mapped_shard m);

/* Drops the files from the memory that the system keeps of them, so that the disk has to be read
 * again; false if they are still there, as in a file system that has no disk. */
bool forget(const database *d);

#endif
