/* large_database - attention on a database that does not fit into memory. Keys and values lie in
 * .npy files larger than the address space that the program leaves itself (setrlimit); it maps one
 * shard of rows after another and attends to each. What shards answer merges into what the whole
 * database answers:
 *
 *     lse = log(e^lse_a + e^lse_b),   o = e^(lse_a - lse) o_a + e^(lse_b - lse) o_b
 *
 * and merges backward too, so that queries get their gradients from a second pass over the files.
 */
#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "common.h"
#include "qkv/attention.h"
#include "qkv/npy.h"
#include "qkv/plot.h"
#include "src/file.h"
#include "src/random.h"

typedef struct settings {
    long records, dim, queries, seed; /* of a database that is made */
    const char *keys, *values, *ask;  /* files of one's own; NULL: made in directory */
    const char *directory, *output, *gradient, *plot, *format;
    long memory, shard, sweep; /* MiB, rows, queries */
    bool keep, check;
    char *made[3]; /* paths */
} settings;

/* Rows of floats in a file. */
typedef struct rows_file {
    const char *path;
    int file;
    size_t offset; /* of the first row, in bytes */
    ptrdiff_t rows, columns;
} rows_file;

typedef struct database {
    rows_file keys, values;
    ptrdiff_t shard, shards; /* rows of one, and how many there are */
} database;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double mebibytes(const database *d)
{
    return (double)(d->keys.rows * (d->keys.columns + d->values.columns)) * sizeof(float) / 0x1p20;
}

/* ---- Making a database -------------------------------------------------------------------------
 */

enum { KEYS, VALUES, PLACES, NOISE, SWEEP }; /* streams of random numbers */

/* Keys this large make the score of a key with itself stand out from a million of others, and leave
 * these a part of the attention all the same. */
static const double key_size = 1.55;

static float key_element(const settings *s, uint64_t index)
{
    return (float)(key_size * qkv_random_normal((uint64_t)s->seed, KEYS, index));
}

static float value_element(const settings *s, uint64_t index)
{
    return (float)qkv_random_normal((uint64_t)s->seed, VALUES, index);
}

/* The record that a query is made from: one in each of as many parts of the database. */
static long place_of(const settings *s, long query)
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
static void make_file(const settings *s, const char *path, long rows,
                      float (*element)(const settings *, uint64_t))
{
    enum { PIECE = 1 << 18 };
    char *label = print_text("making %s", path);
    progress p = {.label = label, .total = rows * s->dim};
    float *piece = allocate(PIECE, sizeof *piece);
    qkv_output out;
    check(qkv_output_open(&out, path, "qkv_npy_save"));
    write_header(out.stream, rows, s->dim);
    for (long at = 0; at < p.total; at += PIECE) {
        long n = p.total - at < PIECE ? p.total - at : PIECE;
#ifdef _OPENMP
#pragma omp parallel for
#endif
        for (long i = 0; i < n; i++) piece[i] = element(s, (uint64_t)(at + i));
        fwrite(piece, sizeof *piece, (size_t)n, out.stream);
        progress_show(&p, at + n, "%.0f MiB", (double)(at + n) * sizeof *piece / 0x1p20);
    }
    check(qkv_output_commit(&out, "qkv_npy_save"));
    free(piece);
    free(label);
}

static void make_database(settings *s)
{
    make_directories(s->directory);
    s->keys = s->made[0] = join_path(s->directory, "keys.npy");
    s->values = s->made[1] = join_path(s->directory, "values.npy");
    s->ask = s->made[2] = join_path(s->directory, "queries.npy");
    make_file(s, s->keys, s->records, key_element);
    make_file(s, s->values, s->records, value_element);
    make_file(s, s->ask, s->queries, query_element);
}

/* What is open stays readable, and goes with the program, however that ends. */
static void remove_database(const settings *s)
{
    unlink(s->keys);
    unlink(s->values);
    unlink(s->ask);
    rmdir(s->directory); /* unless it has something else */
}

/* ---- Files as memory ---------------------------------------------------------------------------
 */

static rows_file open_rows(const char *path)
{
    qkv_npy header;
    rows_file f = {.path = path};
    check(qkv_npy_header(&header, path, &f.offset));
    if (header.type != QKV_NPY_F32 || header.rank != 2 || qkv_npy_size(&header) == 0)
        fail_with("%s: expected a matrix of 32-bit floats with a row and a column at least", path);
    f.rows = header.dim[0];
    f.columns = header.dim[1];
    f.file = open(path, O_RDONLY | O_CLOEXEC);
    if (f.file < 0) fail_with("cannot open %s: %s", path, strerror(errno));
    return f;
}

static database open_database(const settings *s)
{
    database d = {.keys = open_rows(s->keys), .values = open_rows(s->values), .shard = s->shard};
    if (d.keys.rows != d.values.rows)
        fail_with("%s has %td rows, %s %td", s->keys, d.keys.rows, s->values, d.values.rows);
    fsync(d.keys.file); /* or forget() below has no effect */
    fsync(d.values.file);
    d.shards = (d.keys.rows + d.shard - 1) / d.shard;
    return d;
}

/* Rows of a file in the address space. */
typedef struct mapping {
    float *data; /* NULL: there is no room, errno says */
    char *page;
    size_t bytes;
} mapping;

static mapping map_rows(const rows_file *f, ptrdiff_t first, ptrdiff_t rows)
{
    size_t row = (size_t)f->columns * sizeof(float), from = f->offset + (size_t)first * row;
    size_t within = from % (size_t)sysconf(_SC_PAGESIZE), bytes = within + (size_t)rows * row;
    off_t page = (off_t)(from - within);
    void *start = mmap(NULL, bytes, PROT_READ, MAP_SHARED, f->file, page);
    if (start == MAP_FAILED) return (mapping){0};
    return (mapping){(float *)((char *)start + within), start, bytes};
}

static void unmap(mapping m)
{
    munmap(m.page, m.bytes);
}

typedef struct mapped_shard {
    ptrdiff_t rows;
    mapping k, v;
} mapped_shard;

/* Asks the disk for a shard, without waiting. */
static void expect_shard(const rows_file *f, ptrdiff_t first, ptrdiff_t rows)
{
    off_t row = (off_t)f->columns * (off_t)sizeof(float);
    posix_fadvise(f->file, (off_t)f->offset + first * row, rows * row, POSIX_FADV_WILLNEED);
}

/* Maps a shard; the disk meanwhile reads the next one, which is before it or behind it. */
static mapped_shard map_shard(const database *d, ptrdiff_t index, int direction)
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

static void unmap_shard(mapped_shard m)
{
    unmap(m.k);
    unmap(m.v);
}

/* Drops the files from the memory that the system keeps of them: the disk has to be read again. */
static void forget(const database *d)
{
    posix_fadvise(d->keys.file, 0, 0, POSIX_FADV_DONTNEED);
    posix_fadvise(d->values.file, 0, 0, POSIX_FADV_DONTNEED);
}

/* ---- The limit ---------------------------------------------------------------------------------
 */

static double mapped_mebibytes(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    long pages = 0;
    if (!f || fscanf(f, "%ld", &pages) != 1) fail_with("cannot read /proc/self/statm");
    fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 0x1p20;
}

/* No more address space than this, code and stacks included; 0: as much as there was. */
static void limit_memory(double mebi)
{
    static rlim_t before;
    struct rlimit r;
    if (getrlimit(RLIMIT_AS, &r) != 0) fail_with("getrlimit: %s", strerror(errno));
    if (before == 0) before = r.rlim_cur;
    r.rlim_cur = mebi > 0 && mebi * 0x1p20 < (double)before ? (rlim_t)(mebi * 0x1p20) : before;
    if (setrlimit(RLIMIT_AS, &r) != 0) fail_with("setrlimit: %s", strerror(errno));
}

/* Threads take their stacks when they first run, which should not be under the limit. */
static void wake_threads(void)
{
    float x[64] = {0}, o[64];
    const qkv_attention a = {.batch = 64, .heads = 1, .n_q = 1, .n_k = 1, .d_k = 1, .d_v = 1};
    check(qkv_attend_f32(&a, x, x, x, o));
}

/* ---- Attention over all shards -----------------------------------------------------------------
 */

/* What a pass over the database leaves. Arrays of [shards] have an entry of [n_q] or [n_q, d_v] for
 * each shard; total [shards + 1], of the shards before it: the last is the answer. */
typedef struct stream {
    const database *d;
    qkv_attention a;
    float *q;                                  /* [n_q, d_k] */
    float *o, *lse, *row_max, *row_log_sum;    /* [shards] */
    float *total_o, *total_lse;                /* [shards + 1] */
    qkv_partial_f32 d_whole, d_before, d_part; /* of one merge */
    float *gradient;                           /* [n_q, d_k] */
    void *workspace;
    size_t bytes;
} stream;

static qkv_partial_f32 make_partial(ptrdiff_t rows, ptrdiff_t d_v)
{
    return (qkv_partial_f32){allocate((size_t)(rows * d_v), sizeof(float)),
                             allocate((size_t)rows, sizeof(float))};
}

static void zero(const stream *x, qkv_partial_f32 p)
{
    memset(p.o, 0, (size_t)(x->a.n_q * x->a.d_v) * sizeof *p.o);
    memset(p.lse, 0, (size_t)x->a.n_q * sizeof *p.lse);
}

static stream make_stream(const database *d, float *q, ptrdiff_t n_q)
{
    stream x = {.d = d, .q = q};
    x.a = (qkv_attention){.batch = 1,
                          .heads = 1,
                          .n_q = n_q,
                          .n_k = d->shard,
                          .d_k = d->keys.columns,
                          .d_v = d->values.columns};
    size_t n = (size_t)n_q, all = n * (size_t)d->shards, width = (size_t)x.a.d_v, backward;
    float **const rows[] = {&x.lse, &x.row_max, &x.row_log_sum};
    for (int i = 0; i < 3; i++) *rows[i] = allocate(all, sizeof(float));
    x.o = allocate(all * width, sizeof(float));
    x.total_o = allocate((all + n) * width, sizeof(float));
    x.total_lse = allocate(all + n, sizeof(float));
    x.d_whole = make_partial(n_q, x.a.d_v);
    x.d_before = make_partial(n_q, x.a.d_v);
    x.d_part = make_partial(n_q, x.a.d_v);
    x.gradient = allocate(n * (size_t)x.a.d_k, sizeof(float));
    check(qkv_attention_workspace(&x.a, QKV_FORWARD, QKV_F32, &x.bytes));
    check(qkv_attention_workspace(&x.a, QKV_BACKWARD, QKV_F32, &backward));
    if (backward > x.bytes) x.bytes = backward;
    x.workspace = allocate(x.bytes, 1);
    return x;
}

static void free_stream(stream *x)
{
    float *const all[] = {x->o,          x->lse,          x->row_max,   x->row_log_sum,
                          x->total_o,    x->total_lse,    x->d_whole.o, x->d_whole.lse,
                          x->d_before.o, x->d_before.lse, x->d_part.o,  x->d_part.lse,
                          x->gradient};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    free(x->workspace);
}

static qkv_partial_f32 part(const stream *x, ptrdiff_t shard)
{
    ptrdiff_t at = shard * x->a.n_q;
    return (qkv_partial_f32){x->o + at * x->a.d_v, x->lse + at};
}

static qkv_partial_f32 total(const stream *x, ptrdiff_t shards)
{
    ptrdiff_t at = shards * x->a.n_q;
    return (qkv_partial_f32){x->total_o + at * x->a.d_v, x->total_lse + at};
}

static qkv_results_f32 results_of(const stream *x, ptrdiff_t shard)
{
    qkv_partial_f32 p = part(x, shard);
    ptrdiff_t at = shard * x->a.n_q;
    return (qkv_results_f32){.o.data = p.o,
                             .lse.data = p.lse,
                             .row_max.data = x->row_max + at,
                             .row_log_sum.data = x->row_log_sum + at};
}

static void forward(stream *x)
{
    for (ptrdiff_t i = 0; i < x->a.n_q; i++) x->total_lse[i] = -INFINITY; /* of no shard */
    for (ptrdiff_t s = 0; s < x->d->shards; s++) {
        mapped_shard m = map_shard(x->d, s, 1);
        x->a.n_k = m.rows;
        qkv_operands_f32 in = {.q.data = x->q, .k.data = m.k.data, .v.data = m.v.data};
        qkv_results_f32 out = results_of(x, s);
        check(qkv_attention_forward_f32(&x->a, &in, &out, x->workspace, x->bytes));
        unmap_shard(m);
        qkv_partial_f32 before = total(x, s), here = part(x, s), with = total(x, s + 1);
        check(qkv_attention_merge_f32(x->a.n_q, x->a.d_v, &before, &here, &with));
    }
}

/* Of half the squared norm of the answer, whose cotangent is the answer itself: from the last shard
 * to the first, which the system may still have in memory. */
static void backward(stream *x)
{
    ptrdiff_t n = x->a.n_q, d_v = x->a.d_v;
    zero(x, x->d_whole);
    memcpy(x->d_whole.o, total(x, x->d->shards).o, (size_t)(n * d_v) * sizeof(float));
    memset(x->gradient, 0, (size_t)(n * x->a.d_k) * sizeof(float));
    for (ptrdiff_t s = x->d->shards - 1; s >= 0; s--) {
        qkv_partial_f32 before = total(x, s), here = part(x, s), d_whole = x->d_whole;
        zero(x, x->d_before);
        zero(x, x->d_part);
        check(qkv_attention_merge_backward_f32(n, d_v, &before, &here, &d_whole, &x->d_before,
                                               &x->d_part));
        x->d_whole = x->d_before; /* the next one to be split */
        x->d_before = d_whole;

        mapped_shard m = map_shard(x->d, s, -1);
        x->a.n_k = m.rows;
        qkv_operands_f32 in = {.q.data = x->q, .k.data = m.k.data, .v.data = m.v.data};
        qkv_results_f32 saved = results_of(x, s);
        qkv_results_f32 d_out = {.o.data = x->d_part.o, .lse.data = x->d_part.lse};
        qkv_operands_f32 d_in = {.q.data = x->gradient};
        check(
            qkv_attention_backward_f32(&x->a, &in, &saved, &d_out, &d_in, x->workspace, x->bytes));
        unmap_shard(m);
    }
}

static const float *answer(const stream *x)
{
    return total(x, x->d->shards).o;
}

/* What part of a query's weights lies in a shard. */
static double share(const stream *x, ptrdiff_t shard, ptrdiff_t query)
{
    return exp((double)part(x, shard).lse[query] - (double)total(x, x->d->shards).lse[query]);
}

/* ---- The same in memory ------------------------------------------------------------------------
 */

/* Attention to all rows at once in double, which rounds a thousand million times less. */
typedef struct reference {
    double *o, *gradient; /* [n_q, d_v], [n_q, d_k] */
} reference;

static double *widen(const float *x, ptrdiff_t n)
{
    double *wide = allocate((size_t)n, sizeof *wide);
    for (ptrdiff_t i = 0; i < n; i++) wide[i] = (double)x[i];
    return wide;
}

static reference attend_in_double(const qkv_attention *a, const mapped_shard *all, const float *q)
{
    size_t n_q = (size_t)a->n_q, o_size = n_q * (size_t)a->d_v, bytes, forward_bytes;
    reference r = {allocate(o_size, sizeof(double)),
                   allocate(n_q * (size_t)a->d_k, sizeof(double))};
    double *most = allocate(n_q, sizeof *most), *log_sum = allocate(n_q, sizeof *log_sum);
    double *wide[] = {widen(q, a->n_q * a->d_k), widen(all->k.data, a->n_k * a->d_k),
                      widen(all->v.data, a->n_k * a->d_v), allocate(o_size, sizeof(double))};
    qkv_operands_f64 in = {.q.data = wide[0], .k.data = wide[1], .v.data = wide[2]};
    qkv_operands_f64 d_in = {.q.data = r.gradient};
    qkv_results_f64 out = {.o.data = r.o, .row_max.data = most, .row_log_sum.data = log_sum};
    qkv_results_f64 d_out = {.o.data = wide[3]};
    check(qkv_attention_workspace(a, QKV_FORWARD, QKV_F64, &forward_bytes));
    check(qkv_attention_workspace(a, QKV_BACKWARD, QKV_F64, &bytes));
    if (bytes < forward_bytes) bytes = forward_bytes;
    void *workspace = allocate(bytes, 1);
    check(qkv_attention_forward_f64(a, &in, &out, workspace, bytes));
    memcpy(wide[3], r.o, o_size * sizeof *r.o);
    check(qkv_attention_backward_f64(a, &in, &out, &d_out, &d_in, workspace, bytes));
    free(workspace), free(most), free(log_sum);
    for (int i = 0; i < 4; i++) free(wide[i]);
    return r;
}

/* The largest difference, in roundings of the largest element. */
static double roundings(const float *x, const double *exact, ptrdiff_t n)
{
    double difference = 0, largest = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        double gap = fabs((double)x[i] - exact[i]);
        if (!(gap <= difference)) difference = gap;
        largest = fmax(largest, fabs(exact[i]));
    }
    return difference == 0 ? 0 : difference / (largest * FLT_EPSILON);
}

/* One shard of all rows is attention as it is without shards. */
static void compare(const stream *x)
{
    database one = *x->d;
    one.shard = one.keys.rows;
    one.shards = 1;
    stream whole = make_stream(&one, x->q, x->a.n_q);
    forward(&whole);
    backward(&whole);
    mapped_shard all = map_shard(&one, 0, 1);
    reference exact = attend_in_double(&whole.a, &all, x->q);
    unmap_shard(all);
    ptrdiff_t o = x->a.n_q * x->a.d_v, q = x->a.n_q * x->a.d_k;
    printf("\nroundings from double      by shards   all at once\n");
    printf("attention                  %9.1f   %11.1f\n", roundings(answer(x), exact.o, o),
           roundings(answer(&whole), exact.o, o));
    printf("gradient of the queries    %9.1f   %11.1f\n", roundings(x->gradient, exact.gradient, q),
           roundings(whole.gradient, exact.gradient, q));
    free_stream(&whole);
    free(exact.o), free(exact.gradient);
}

/* ---- Throughput --------------------------------------------------------------------------------
 */

enum { ALONE, FORWARD, BOTH };

/* Nothing but the reading: the sum of all the bits, which attention has to read as well. */
static uint64_t read_all(const database *d)
{
    uint64_t sum = 0;
    for (ptrdiff_t s = 0; s < d->shards; s++) {
        mapped_shard m = map_shard(d, s, 1);
        const mapping *const maps[] = {&m.k, &m.v};
        for (int i = 0; i < 2; i++) {
            const uint64_t *word = (const uint64_t *)(const void *)maps[i]->page;
            ptrdiff_t n = (ptrdiff_t)(maps[i]->bytes / sizeof *word);
#ifdef _OPENMP
#pragma omp parallel for reduction(+ : sum)
#endif
            for (ptrdiff_t w = 0; w < n; w++) sum += word[w];
        }
        unmap_shard(m);
    }
    return sum;
}

/* GB/s of a pass over the files: the best of a few, or from the disk. */
static double measure(stream *x, int what, bool from_disk)
{
    static volatile uint64_t sum; /* or nothing need be read */
    double best = INFINITY;
    for (int run = 0; run < (from_disk ? 1 : 3); run++) {
        if (from_disk) forget(x->d);
        double start = seconds();
        if (what == ALONE) sum = sum + read_all(x->d);
        if (what != ALONE) forward(x);
        if (what == BOTH) backward(x);
        best = fmin(best, seconds() - start);
    }
    return (what == BOTH ? 2 : 1) * mebibytes(x->d) * 0x1p20 * 1e-9 / best;
}

enum { POINTS = 16 };
enum { DISK_ALONE, FROM_DISK, MEMORY_ALONE, FROM_MEMORY, WITH_GRADIENT, KINDS };

typedef struct speeds {
    int n;
    double queries[POINTS], speed[KINDS][POINTS]; /* GB/s */
} speeds;

/* Reading alone is measured anew beside each number of queries: what else the machine has to do
 * then slows down both. */
static void measure_point(stream *x, speeds *r)
{
    r->queries[r->n] = (double)x->a.n_q;
    r->speed[DISK_ALONE][r->n] = measure(x, ALONE, true);
    r->speed[FROM_DISK][r->n] = measure(x, FORWARD, true);
    r->speed[MEMORY_ALONE][r->n] = measure(x, ALONE, false);
    r->speed[FROM_MEMORY][r->n] = measure(x, FORWARD, false);
    r->speed[WITH_GRADIENT][r->n] = measure(x, BOTH, false);
    printf("%7td", x->a.n_q);
    for (int kind = 0; kind < KINDS; kind++) printf("%12.2f", r->speed[kind][r->n]);
    putchar('\n');
    r->n++;
}

static speeds measure_all(const database *d, const settings *s)
{
    speeds r = {0};
    float *q = allocate((size_t)(s->sweep * d->keys.columns), sizeof *q);
    for (long i = 0; i < s->sweep * d->keys.columns; i++)
        q[i] = (float)qkv_random_normal((uint64_t)s->seed, SWEEP, (uint64_t)i);
    progress p = {.label = "measuring"};
    for (long n = 1; n <= s->sweep && p.total < POINTS; n *= 4) p.total++;
    printf("\n   GB/s  from disk: alone, attended   from memory: alone, attended, with gradient\n");
    for (long n = 1; r.n < p.total; n *= 4) {
        stream x = make_stream(d, q, n);
        measure_point(&x, &r);
        free_stream(&x);
        progress_show(&p, r.n, "%ld quer%s", n, n == 1 ? "y" : "ies");
    }
    free(q);
    return r;
}

/* ---- Figures -----------------------------------------------------------------------------------
 */

static char *figure_path(const settings *s, const char *name)
{
    make_directories(s->plot);
    return print_text("%s/%s.%s", s->plot, name, s->format);
}

static void draw_shares(const stream *x, const settings *s)
{
    ptrdiff_t n_q = x->a.n_q, shards = x->d->shards, shape[4] = {1, 1, n_q, shards};
    double *shares = allocate((size_t)(n_q * shards), sizeof *shares);
    for (ptrdiff_t i = 0; i < n_q * shards; i++) shares[i] = share(x, i % shards, i / shards);
    char *path = figure_path(s, "shares");
    const char *const title[] = {"Where the weights of each query lie"};
    const qkv_heatmap_options options = {.figure.path = path,
                                         .x_label = "Shards",
                                         .y_label = "Queries",
                                         .titles = title,
                                         .upper = 1};
    check(qkv_show_heatmaps(shares, shape, &options));
    say("wrote %s", path);
    free(path);
    free(shares);
}

static void draw_speeds(const speeds *r, const settings *s)
{
    static const char *const blue = "#0072b2", *const orange = "#d55e00", *const green = "#009e73";
    size_t n = (size_t)r->n;
    const double *x = r->queries;
    double fastest = 0;
    for (int i = 0; i < KINDS * POINTS; i++)
        fastest = fmax(fastest, r->speed[i / POINTS][i % POINTS]);
    const qkv_series series[] = {
        {QKV_DASHES, "memory, reading alone", n, x, r->speed[MEMORY_ALONE], .colour = blue},
        {QKV_LINE, "memory, attention", n, x, r->speed[FROM_MEMORY], .colour = blue},
        {QKV_LINE, "memory, with gradients", n, x, r->speed[WITH_GRADIENT], .colour = green},
        {QKV_DASHES, "disk, reading alone", n, x, r->speed[DISK_ALONE], .colour = orange},
        {QKV_LINE, "disk, attention", n, x, r->speed[FROM_DISK], .colour = orange}};
    const qkv_panel panel = {.title = "How fast the database passes by",
                             .x_label = "queries at once",
                             .y_label = "GB/s",
                             .y_range = {0, 1.1 * fastest},
                             .log_x = true,
                             .series = series,
                             .n_series = sizeof series / sizeof *series};
    char *path = figure_path(s, "throughput");
    check(qkv_plot_panels(&panel, 1, 1, &(qkv_figure){.path = path, .width = 6.5, .height = 4.5}));
    say("wrote %s", path);
    free(path);
}

/* ---- The program -------------------------------------------------------------------------------
 */

static void save(const char *path, float *data, ptrdiff_t rows, ptrdiff_t columns)
{
    if (!path) return;
    const qkv_npy a = {.type = QKV_NPY_F32, .rank = 2, .dim = {rows, columns}, .data = data};
    check(qkv_npy_save(&a, path));
    say("wrote %s", path);
}

static void tell_limit(const database *d, double limit)
{
    printf("database       %td keys of %td numbers, values of %td: %.0f MiB in two files\n",
           d->keys.rows, d->keys.columns, d->values.columns, mebibytes(d));
    printf("address space  %.0f MiB (setrlimit), of which the program has %.0f\n", limit,
           mapped_mebibytes());
    mapping all = map_rows(&d->keys, 0, d->keys.rows);
    if (all.data) unmap(all);
    printf("all the keys   %s\n", all.data ? "could be mapped: allow less --memory"
                                           : "cannot be mapped: there is no room");
}

/* A made query is a noisy copy of one key. */
static void tell_found(const stream *x, const settings *s)
{
    long found = 0;
    for (long i = 0; i < s->queries; i++) {
        ptrdiff_t best = 0;
        for (ptrdiff_t j = 1; j < x->d->shards; j++)
            if (share(x, j, i) > share(x, best, i)) best = j;
        found += best == place_of(s, i) / x->d->shard;
    }
    printf("found          the shard of the record they resemble: %ld of %ld queries\n", found,
           s->queries);
}

static qkv_npy load_queries(const settings *s, const database *d)
{
    qkv_npy q;
    check(qkv_npy_load(&q, s->ask));
    if (q.type != QKV_NPY_F32 || q.rank != 2 || q.dim[0] == 0 || q.dim[1] != d->keys.columns)
        fail_with("%s: expected a matrix of 32-bit floats with %td columns, as the keys have",
                  s->ask, d->keys.columns);
    return q;
}

enum {
    RECORDS,
    DIM,
    QUERIES,
    SEED,
    DIRECTORY,
    KEEP,
    OWN_KEYS,
    OWN_VALUES,
    OWN_QUERIES,
    MEMORY,
    SHARD,
    OUTPUT,
    GRADIENT,
    SWEEP_TO,
    NO_CHECK,
    PLOT,
    FORMAT
};

static const command large_database = {
    "",
    "Attends to keys and values in files larger than its address space, shard by shard, forward "
    "and "
    "backward, and measures how fast that is beside the disk and the memory themselves.",
    (const command_option[]){
        [RECORDS] = {"records", "N", "Records of the database that is made (default: 524288)."},
        [DIM] = {"dim", "D", "Numbers of a key, and of a value (default: 64)."},
        [QUERIES] = {"queries", "N", "Queries, noisy copies of keys (default: 16)."},
        [SEED] = {"seed", "N", "Seed of what is made (default: 1)."},
        [DIRECTORY] = {"directory", "DIR", "Where the files are made (default: large_database)."},
        [KEEP] = {"keep", NULL, "Keep them; else they go with the program."},
        [OWN_KEYS] = {"keys", "FILE", "Your own keys instead: an .npy matrix of 32-bit floats."},
        [OWN_VALUES] = {"values", "FILE", "Their values."},
        [OWN_QUERIES] = {"ask", "FILE", "Queries to them."},
        [MEMORY] = {"memory", "MIB", "Address space for data, in MiB (default: 64)."},
        [SHARD] = {"shard", "ROWS", "Rows attended to at a time (default: 16384)."},
        [OUTPUT] = {"output", "FILE", "Write the attention of the queries as .npy."},
        [GRADIENT] = {"gradient", "FILE",
                      "Write the gradient of half its squared norm by the queries."},
        [SWEEP_TO] = {"sweep", "N",
                      "Measure the throughput of 1, 4, .. N queries (default: 256; 0: do not)."},
        [NO_CHECK] = {"no-check", NULL, "Do not compare with attention to all rows at once."},
        [PLOT] = {"plot", "DIR", "Draw into DIR (default: figures; '' for none)."},
        [FORMAT] = {"format", "FORMAT", "Format of the figures: svg (default), png or pdf."},
        {NULL, NULL, NULL}}};

static settings read_settings(int argc, char **argv)
{
    settings s = {.records = 1 << 19, .dim = 64, .queries = 16, .seed = 1};
    s.memory = 64, s.shard = 16384, s.sweep = 256, s.check = true;
    s.directory = "large_database", s.plot = "figures", s.format = "svg";
    bool made = false;
    for (int o; (o = command_next(&large_database, argc, argv)) >= 0;) {
        made |= o < OWN_KEYS;
        if (o == RECORDS) s.records = integer_argument("records", optarg, 1, 1L << 40);
        if (o == DIM) s.dim = integer_argument("dim", optarg, 1, 65536);
        if (o == QUERIES) s.queries = integer_argument("queries", optarg, 1, 65536);
        if (o == SEED) s.seed = integer_argument("seed", optarg, 0, 1L << 62);
        if (o == DIRECTORY) s.directory = text_argument("directory", optarg);
        if (o == KEEP) s.keep = true;
        if (o == OWN_KEYS) s.keys = text_argument("keys", optarg);
        if (o == OWN_VALUES) s.values = text_argument("values", optarg);
        if (o == OWN_QUERIES) s.ask = text_argument("ask", optarg);
        if (o == MEMORY) s.memory = integer_argument("memory", optarg, 1, 1L << 30);
        if (o == SHARD) s.shard = integer_argument("shard", optarg, 1, 1L << 40);
        if (o == OUTPUT) s.output = text_argument("output", optarg);
        if (o == GRADIENT) s.gradient = text_argument("gradient", optarg);
        if (o == SWEEP_TO) s.sweep = integer_argument("sweep", optarg, 0, 1L << 20);
        if (o == NO_CHECK) s.check = false;
        if (o == PLOT) s.plot = *optarg ? optarg : NULL;
        if (o == FORMAT) s.format = format_argument("format", optarg);
    }
    if (optind < argc) usage_error("unexpected argument '%s'", argv[optind]);
    bool own = s.keys || s.values || s.ask;
    if (own && !(s.keys && s.values && s.ask))
        usage_error("--keys, --values and --ask go together");
    if (own && made) usage_error("--keys and options of a database to be made do not go together");
    return s;
}

/* Attention and its gradient under the limit, and what is to be told of them. */
static stream attend(const database *d, const settings *s, qkv_npy *q)
{
    stream x = make_stream(d, q->data, q->dim[0]);
    double start = seconds(), between;
    forward(&x);
    between = seconds();
    backward(&x);
    printf("shards         %td of %td rows for %td quer%s: forward %.2f s, gradients %.2f s\n",
           d->shards, d->shard, x.a.n_q, x.a.n_q == 1 ? "y" : "ies", between - start,
           seconds() - between);
    save(s->output, total(&x, d->shards).o, x.a.n_q, x.a.d_v);
    save(s->gradient, x.gradient, x.a.n_q, x.a.d_k);
    return x;
}

int main(int argc, char **argv)
{
    clean_up_on_signals();
    settings s = read_settings(argc, argv);
    bool made = !s.keys;
    if (made) make_database(&s);
    database d = open_database(&s);
    qkv_npy q = load_queries(&s, &d);
    if (made && !s.keep) remove_database(&s);

    wake_threads();
    double limit = mapped_mebibytes() + (double)s.memory;
    limit_memory(limit);
    tell_limit(&d, limit);
    stream x = attend(&d, &s, &q);
    if (made) tell_found(&x, &s);
    speeds r = {0};
    if (s.sweep) r = measure_all(&d, &s);
    limit_memory(0);

    if (s.check) compare(&x);
    if (s.plot) draw_shares(&x, &s);
    if (s.plot && s.sweep) draw_speeds(&r, &s);
    free_stream(&x);
    qkv_npy_free(&q);
    for (int i = 0; i < 3; i++) free(s.made[i]);
    return finish();
}
