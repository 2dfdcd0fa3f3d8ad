/* large_database_files.c - the database's files, made piece by piece and mapped shard by shard. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "large_database.h"
#include "src/file.h"
#include "src/random.h"

static rows_file open_rows(const char *path)
{
    qkv_npy header;
    rows_file f;
    check(qkv_npy_header(&header, path, &f.offset));
    if (header.type != QKV_NPY_F32 || header.rank != 2 || qkv_npy_size(&header) == 0)
        fail_with("%s: expected a matrix of float32 with a row and a column at least, found %s",
                  path, describe_array(&header));
    f.rows = header.dim[0];
    f.columns = header.dim[1];
    f.file = open(path, O_RDONLY | O_CLOEXEC);
    if (f.file < 0) fail_with("cannot open %s: %s", path, strerror(errno));
    return f;
}

/* ---- Making a database -------------------------------------------------------------------------
 */

/* Keys this large make the score of a key with itself stand out from a million of others, and leave
 * these a part of the attention all the same. */
static const double key_size = 1.55;

typedef float (*element_of)(const settings *s, uint64_t index);

static float key_element(const settings *s, uint64_t index)
{
    return (float)(key_size * qkv_random_normal((uint64_t)s->seed, KEYS, index));
}

static float value_element(const settings *s, uint64_t index)
{
    return (float)qkv_random_normal((uint64_t)s->seed, VALUES, index);
}

long place_of(const settings *s, long query)
{
    double u = qkv_random_uniform((uint64_t)s->seed, PLACES, (uint64_t)query);
    return (long)(((double)query + u) / (double)s->queries * (double)s->records);
}

static float query_element(const settings *s, uint64_t index)
{
    long query = (long)index / s->dim, column = (long)index % s->dim;
    double noise = qkv_random_normal((uint64_t)s->seed, NOISE, index);
    return key_element(s, (uint64_t)(place_of(s, query) * s->dim + column)) +
           (float)(0.3 * key_size * noise);
}

/* Of a file in the directory, where nothing is written over. */
static char *new_path(const settings *s, const char *name)
{
    char *path = join_path(s->directory, name);
    if (access(path, F_OK) == 0)
        fail_with("%s is there already: name another --directory, or attend to it with --keys",
                  path);
    return path;
}

/* The header that NumPy writes: text padded to 128 bytes, so that the rows can be mapped. */
static void write_header(FILE *to, long rows, long columns)
{
    enum { PREFIX = 10, TEXT = 128 - PREFIX };
    static const char prefix[PREFIX] = {'\x93', 'N', 'U', 'M', 'P', 'Y', 1, 0, TEXT, 0};
    char text[TEXT + 1];
    snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (%ld, %ld), }",
             rows, columns);
    fwrite(prefix, 1, PREFIX, to);
    fprintf(to, "%-*s\n", TEXT - 1, text);
}

/* Piece by piece: no file is ever in memory as a whole. */
static void write_rows(const settings *s, const char *path, element_of element)
{
    enum { PIECE = 1 << 18 };
    char *label = print_text("making %s", path);
    progress p = {.label = label, .total = s->records * s->dim};
    float *piece = allocate(PIECE, sizeof *piece);
    qkv_output out;
    check(qkv_output_open(&out, path, "qkv_npy_save"));
    write_header(out.stream, s->records, s->dim);
    for (long at = 0; at < p.total; at += PIECE) {
        long n = p.total - at < PIECE ? p.total - at : PIECE;
#ifdef _OPENMP
#pragma omp parallel for
#endif
        for (long i = 0; i < n; i++) piece[i] = element(s, (uint64_t)(at + i));
        if (fwrite(piece, sizeof *piece, (size_t)n, out.stream) < (size_t)n) break; /* disk full */
        progress_show(&p, at + n, "%.0f MiB", (double)(at + n) * sizeof *piece / 0x1p20);
    }
    check(qkv_output_commit(&out, "qkv_npy_save"));
    free(piece);
    free(label);
}

/* A file that is not to be kept loses its name at once: what is open stays readable, and goes with
 * the program, however that ends. */
static rows_file make_rows(const settings *s, const char *name, element_of element)
{
    char *path = new_path(s, name);
    write_rows(s, path, element);
    rows_file f = open_rows(path);
    if (!s->keep) unlink(path);
    free(path);
    return f;
}

static qkv_npy make_queries(const settings *s)
{
    qkv_npy q = {.type = QKV_NPY_F32, .rank = 2, .dim = {s->queries, s->dim}};
    float *x = q.data = allocate((size_t)(s->queries * s->dim), sizeof *x);
    for (long i = 0; i < s->queries * s->dim; i++) x[i] = query_element(s, (uint64_t)i);
    if (!s->keep) return q;
    char *path = new_path(s, "queries.npy");
    check(qkv_npy_save(&q, path));
    free(path);
    return q;
}

static qkv_npy load_queries(const settings *s, const database *d)
{
    qkv_npy q;
    check(qkv_npy_load(&q, s->ask));
    if (q.type != QKV_NPY_F32 || q.rank != 2 || q.dim[0] == 0 || q.dim[1] != d->keys.columns)
        fail_with("%s: expected a matrix of float32 with %td columns, as the keys have, found %s",
                  s->ask, d->keys.columns, describe_array(&q));
    return q;
}

qkv_npy open_queries(const settings *s, const database *d)
{
    return s->keys ? load_queries(s, d) : make_queries(s);
}

/* ---- Files as memory ---------------------------------------------------------------------------
 */

database open_database(const settings *s)
{
    database d = {.shard = s->shard};
    bool made = !s->keys;
    if (made) make_directories(s->directory);
    d.keys = made ? make_rows(s, "keys.npy", key_element) : open_rows(s->keys);
    d.values = made ? make_rows(s, "values.npy", value_element) : open_rows(s->values);
    if (d.keys.rows != d.values.rows)
        fail_with("%s has %td rows, %s %td", s->keys, d.keys.rows, s->values, d.values.rows);
    fsync(d.keys.file); /* or forget() below has no effect */
    fsync(d.values.file);
    d.shards = (d.keys.rows + d.shard - 1) / d.shard;
    return d;
}

mapping map_rows(const rows_file *f, ptrdiff_t first, ptrdiff_t rows)
{
    size_t row = (size_t)f->columns * sizeof(float), from = f->offset + (size_t)first * row;
    size_t within = from % (size_t)sysconf(_SC_PAGESIZE), bytes = within + (size_t)rows * row;
    off_t page = (off_t)(from - within);
    void *start = mmap(NULL, bytes, PROT_READ, MAP_SHARED, f->file, page);
    if (start == MAP_FAILED) return (mapping){0};
    return (mapping){(float *)((char *)start + within), start, bytes};
}

void unmap(mapping m)
{
    munmap(m.page, m.bytes);
}

/* Asks the disk for a shard, without waiting. */
static void expect_shard(const rows_file *f, ptrdiff_t first, ptrdiff_t rows)
{
    off_t row = (off_t)f->columns * (off_t)sizeof(float);
    posix_fadvise(f->file, (off_t)f->offset + first * row, rows * row, POSIX_FADV_WILLNEED);
}

mapped_shard map_shard(const database *d, ptrdiff_t index, int direction)
{
    ptrdiff_t first = index * d->shard, left = d->keys.rows - first;
    ptrdiff_t rows = left < d->shard ? left : d->shard, next = first + direction * d->shard;
    mapped_shard m = {rows, map_rows(&d->keys, first, rows), {0}};
    if (m.k.data) m.v = map_rows(&d->values, first, rows);
    if (!m.v.data)
        fail_with("a shard of %td rows does not fit: %s; allow more --memory or a smaller --shard",
                  rows, strerror(errno));
    if (next >= 0 && next < d->keys.rows) {
        expect_shard(&d->keys, next, d->shard);
        expect_shard(&d->values, next, d->shard);
    }
    return m;
}

void unmap_shard(mapped_shard m)
{
    unmap(m.k);
    unmap(m.v);
}

bool forget(const database *d)
{
    posix_fadvise(d->keys.file, 0, 0, POSIX_FADV_DONTNEED);
    posix_fadvise(d->values.file, 0, 0, POSIX_FADV_DONTNEED);
    mapping m = map_rows(&d->values, 0, 1); /* nobody asks for them ahead */
    unsigned char pages[1] = {0};
    bool there = m.data && mincore(m.page, 1, pages) == 0 && (pages[0] & 1);
    if (m.data) unmap(m);
    return !there;
}

double mebibytes(const database *d)
{
    return (double)(d->keys.rows * (d->keys.columns + d->values.columns)) * sizeof(float) / 0x1p20;
}
