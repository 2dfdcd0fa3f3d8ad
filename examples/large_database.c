/* large_database - attention on a database that does not fit into memory. Keys and values lie in
 * .npy files larger than the address space that the program leaves itself (setrlimit); it maps one
 * shard of rows after another and attends to each. What shards answer merges into what the whole
 * database answers:
 *
 *     lse = log(e^lse_a + e^lse_b),   o = e^(lse_a - lse) o_a + e^(lse_b - lse) o_b
 *
 * From o and lse a second pass over the files has the gradients of the queries, shard by shard. So
 * what memory holds beside a shard is of the size of the answer, however large the files are (for
 * the figure, a number more for each shard and query).
 */
#include <errno.h>
#include <float.h>
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "large_database.h"
#include "qkv/attention.h"
#include "qkv/plot.h"
#include "qkv/tape.h"
#include "src/random.h"

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
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

typedef struct stream {
    const database *d;
    qkv_attention a;
    float *q;                    /* [n_q, d_k] */
    qkv_partial_f64 total, part; /* what all shards so far answer, and one */
    double *lse;                 /* [shards, n_q] of each shard, for the figure; NULL: unwanted */
    float *o, *row_max, *row_log_sum; /* what one answers; after a pass what all do */
    float *gradient;                  /* [n_q, d_k] */
    void *workspace;
    size_t bytes;
} stream;

static qkv_attention attention_to(const database *d, ptrdiff_t n_q)
{
    return (qkv_attention){.batch = 1,
                           .heads = 1,
                           .n_q = n_q,
                           .n_k = d->shard,
                           .d_k = d->keys.columns,
                           .d_v = d->values.columns};
}

static size_t workspace_of(const qkv_attention *a)
{
    size_t forward, backward;
    check(qkv_attention_workspace(a, QKV_FORWARD, QKV_F32, &forward));
    check(qkv_attention_workspace(a, QKV_BACKWARD, QKV_F32, &backward));
    return forward > backward ? forward : backward;
}

static stream make_stream(const database *d, float *q, ptrdiff_t n_q)
{
    stream x = {.d = d, .q = q, .a = attention_to(d, n_q)};
    size_t n = (size_t)n_q, width = (size_t)x.a.d_v;
    qkv_partial_f64 *const partials[] = {&x.total, &x.part};
    for (int i = 0; i < 2; i++)
        *partials[i] =
            (qkv_partial_f64){allocate(n * width, sizeof(double)), allocate(n, sizeof(double))};
    x.o = allocate(n * width, sizeof *x.o);
    x.row_max = allocate(n, sizeof *x.row_max);
    x.row_log_sum = allocate(n, sizeof *x.row_log_sum);
    x.gradient = allocate(n * (size_t)x.a.d_k, sizeof *x.gradient);
    x.bytes = workspace_of(&x.a);
    x.workspace = allocate(x.bytes, 1);
    return x;
}

/* What a stream of n queries takes, they among it. */
static double stream_mebibytes(const database *d, ptrdiff_t n)
{
    const qkv_attention a = attention_to(d, n);
    const double floats = (double)(2 * a.d_k + a.d_v + 2), doubles = (double)(2 * (a.d_v + 1));
    return ((double)n * (4 * floats + 8 * doubles) + (double)workspace_of(&a)) / 0x1p20;
}

static void free_stream(stream *x)
{
    free(x->total.o), free(x->total.lse), free(x->part.o), free(x->part.lse), free(x->lse);
    free(x->o), free(x->row_max), free(x->row_log_sum), free(x->gradient), free(x->workspace);
}

static qkv_results_f32 results_of(const stream *x)
{
    return (qkv_results_f32){
        .o.data = x->o, .row_max.data = x->row_max, .row_log_sum.data = x->row_log_sum};
}

/* In double, lest the roundings of many shards add up. row_max counts in powers of two. */
static void merge(stream *x, ptrdiff_t shard)
{
    ptrdiff_t n = x->a.n_q, d_v = x->a.d_v;
    for (ptrdiff_t i = 0; i < n * d_v; i++) x->part.o[i] = (double)x->o[i];
    for (ptrdiff_t i = 0; i < n; i++)
        x->part.lse[i] = M_LN2 * (double)x->row_max[i] + (double)x->row_log_sum[i];
    if (x->lse) memcpy(x->lse + shard * n, x->part.lse, (size_t)n * sizeof *x->lse);
    check(qkv_attention_merge_f64(n, d_v, &x->total, &x->part, &x->total));
}

static void forward(stream *x)
{
    ptrdiff_t n = x->a.n_q;
    const qkv_results_f32 out = results_of(x);
    for (ptrdiff_t i = 0; i < n; i++) x->total.lse[i] = -INFINITY; /* of no shard */
    for (ptrdiff_t s = 0; s < x->d->shards; s++) {
        mapped_shard m = map_shard(x->d, s, 1);
        x->a.n_k = m.rows;
        const qkv_operands_f32 in = {.q.data = x->q, .k.data = m.k.data, .v.data = m.v.data};
        check(qkv_attention_forward_f32(&x->a, &in, &out, x->workspace, x->bytes));
        unmap_shard(m);
        merge(x, s);
    }
    for (ptrdiff_t i = 0; i < n * x->a.d_v; i++) x->o[i] = (float)x->total.o[i];
    for (ptrdiff_t i = 0; i < n; i++) { /* two floats tell more of lse than one */
        x->row_max[i] = (float)(x->total.lse[i] / M_LN2);
        x->row_log_sum[i] = (float)(x->total.lse[i] - M_LN2 * (double)x->row_max[i]);
    }
}

/* Of half the squared norm of the answer, whose cotangent is the answer itself: from the last shard
 * to the first, which the system may still have in memory. With the answer of all shards for its
 * own, each one's backward pass adds its part of the whole's gradient. */
static void backward(stream *x)
{
    const qkv_results_f32 saved = results_of(x), d_out = {.o.data = x->o};
    const qkv_operands_f32 d_in = {.q.data = x->gradient};
    memset(x->gradient, 0, (size_t)(x->a.n_q * x->a.d_k) * sizeof *x->gradient);
    for (ptrdiff_t s = x->d->shards - 1; s >= 0; s--) {
        mapped_shard m = map_shard(x->d, s, -1);
        x->a.n_k = m.rows;
        const qkv_operands_f32 in = {.q.data = x->q, .k.data = m.k.data, .v.data = m.v.data};
        check(
            qkv_attention_backward_f32(&x->a, &in, &saved, &d_out, &d_in, x->workspace, x->bytes));
        unmap_shard(m);
    }
}

/* What part of a query's weights lies in a shard. */
static double share(const stream *x, ptrdiff_t shard, ptrdiff_t query)
{
    return exp(x->lse[shard * x->a.n_q + query] - x->total.lse[query]);
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
    size_t o_size = (size_t)(a->n_q * a->d_v), q_size = (size_t)(a->n_q * a->d_k);
    reference r = {allocate(o_size, sizeof *r.o), allocate(q_size, sizeof *r.gradient)};
    double *wide[] = {widen(q, a->n_q * a->d_k), widen(all->k.data, a->n_k * a->d_k),
                      widen(all->v.data, a->n_k * a->d_v)};
    qkv_tape *t;
    check(qkv_tape_new(&t, QKV_F64));
    const qkv_attend_vars in = {
        .q = qkv_leaf_f64(t, qkv_shape2(a->n_q, a->d_k), wide[0], r.gradient),
        .k = qkv_leaf_f64(t, qkv_shape2(a->n_k, a->d_k), wide[1], NULL),
        .v = qkv_leaf_f64(t, qkv_shape2(a->n_k, a->d_v), wide[2], NULL)};
    qkv_var o = qkv_attend(t, a, &in), norm = qkv_sum(t, qkv_mul(t, o, o), NULL, 0, false);
    check(qkv_backward(t, qkv_mul(t, qkv_constant(t, 0.5), norm)));
    memcpy(r.o, qkv_value_f64(t, o), o_size * sizeof *r.o);
    qkv_tape_free(t);
    for (int i = 0; i < 3; i++) free(wide[i]);
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
    double free_pages = (double)sysconf(_SC_AVPHYS_PAGES);
    if (2 * mebibytes(x->d) > free_pages * (double)sysconf(_SC_PAGESIZE) / 0x1p20) {
        printf("\nnot compared with all rows at once in double, which %.0f MiB would take\n",
               2 * mebibytes(x->d));
        return;
    }
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
    printf("attention                  %9.1f   %11.1f\n", roundings(x->o, exact.o, o),
           roundings(whole.o, exact.o, o));
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

/* GB/s of a pass over the files: the best of a few, or from the disk, NaN where there is none. */
static double measure(stream *x, int what, bool from_disk)
{
    static volatile uint64_t sum; /* or nothing need be read */
    double best = INFINITY;
    for (int run = 0; run < (from_disk ? 1 : 3); run++) {
        if (from_disk && !forget(x->d)) return (double)NAN;
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
    if (isnan(*r.speed[FROM_DISK]))
        puts("nan: the system keeps these files in memory, not on disk");
    free(q);
    return r;
}

/* ---- Figures -----------------------------------------------------------------------------------
 */

static void draw_shares(const stream *x, const settings *s)
{
    ptrdiff_t n_q = x->a.n_q, shards = x->d->shards, shape[4] = {1, 1, n_q, shards};
    double *shares = allocate((size_t)(n_q * shards), sizeof *shares);
    for (ptrdiff_t i = 0; i < n_q * shards; i++) shares[i] = share(x, i % shards, i / shards);
    char *path = figure_path(s->plot, "large_database", "shares", s->format);
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
                             .n_series = isnan(*r->speed[FROM_DISK]) ? 3 : 5};
    char *path = figure_path(s->plot, "large_database", "throughput", s->format);
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

/* Better told before the work than in the middle of it. */
static void expect_room(const database *d, const settings *s, ptrdiff_t n)
{
    const ptrdiff_t most = n > s->sweep ? n : s->sweep;
    const double mebi = stream_mebibytes(d, most);
    if (mebi > (double)s->memory)
        fail_with("%td queries and their answers take %.0f MiB beside a shard: allow more --memory "
                  "or fewer of them (--queries, --sweep)",
                  most, ceil(mebi));
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
    "and backward, and measures how fast that is beside the disk and the memory themselves.",
    (const command_option[]){
        [RECORDS] = {"records", "N", "Records of the database that is made (default: 524288)."},
        [DIM] = {"dim", "D", "Numbers of a key, and of a value (default: 64)."},
        [QUERIES] = {"queries", "N", "Queries, noisy copies of keys (default: 16)."},
        [SEED] = {"seed", "N", "Seed of what is made (default: 1)."},
        [DIRECTORY] = {"directory", "DIR", "Where the files are made (default: large_database)."},
        [KEEP] = {"keep", NULL, "Keep them; else they go with the program."},
        [OWN_KEYS] = {"keys", "FILE", "Your own keys instead: an .npy matrix of float32."},
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

/* What is written must not replace what is read, nor what is written besides. */
static void check_files(const settings *s)
{
    const char *const files[] = {s->keys, s->values, s->ask, s->output, s->gradient};
    enum { READ = 3, FILES = sizeof files / sizeof *files };
    for (int i = READ; i < FILES; i++)
        for (int j = 0; j < i && files[i]; j++)
            if (files[j] && same_file(files[j], files[i]))
                usage_error("%s would be written over %s", files[i],
                            j < READ ? "what is read" : "by --gradient as well");
}

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
        if (o == OWN_KEYS) s.keys = path_argument("keys", optarg);
        if (o == OWN_VALUES) s.values = path_argument("values", optarg);
        if (o == OWN_QUERIES) s.ask = path_argument("ask", optarg);
        if (o == MEMORY) s.memory = integer_argument("memory", optarg, 1, 1L << 30);
        if (o == SHARD) s.shard = integer_argument("shard", optarg, 1, 1L << 40);
        if (o == OUTPUT) s.output = path_argument("output", optarg);
        if (o == GRADIENT) s.gradient = path_argument("gradient", optarg);
        if (o == SWEEP_TO) s.sweep = integer_argument("sweep", optarg, 0, 1L << 20);
        if (o == NO_CHECK) s.check = false;
        if (o == PLOT) s.plot = *optarg ? optarg : NULL;
        if (o == FORMAT) s.format = format_argument("format", optarg);
    }
    if (optind < argc) usage_error("unexpected argument '%s'", argv[optind]);
    bool own = s.keys || s.values || s.ask;
    if (own && !(s.keys && s.values && s.ask))
        usage_error("--keys, --values and --ask go together");
    check_files(&s);
    if (own && made) usage_error("--keys and options of a database to be made do not go together");
    return s;
}

/* Attention and its gradient under the limit, and what is to be told of them. */
static stream attend(const database *d, const settings *s, qkv_npy *q)
{
    stream x = make_stream(d, q->data, q->dim[0]);
    if (!s->keys || s->plot) x.lse = allocate((size_t)(d->shards * x.a.n_q), sizeof *x.lse);
    double start = seconds(), between;
    forward(&x);
    between = seconds();
    backward(&x);
    printf("shards         %td of %td rows for %td quer%s: forward %.2f s, gradients %.2f s\n",
           d->shards, d->shard, x.a.n_q, x.a.n_q == 1 ? "y" : "ies", between - start,
           seconds() - between);
    save(s->output, x.o, x.a.n_q, x.a.d_v);
    save(s->gradient, x.gradient, x.a.n_q, x.a.d_k);
    return x;
}

int main(int argc, char **argv)
{
    clean_up_on_signals();
    const settings s = read_settings(argc, argv);
    if (s.plot) make_directories(s.plot);
    expect_creatable("--output", s.output), expect_creatable("--gradient", s.gradient);
    bool there = access(s.directory, F_OK) == 0;
    database d = open_database(&s);
    qkv_npy q = open_queries(&s, &d);
    if (!there) rmdir(s.directory); /* if nothing is kept in it */
    expect_room(&d, &s, q.dim[0]);

    wake_threads();
    double limit = mapped_mebibytes() + (double)s.memory;
    limit_memory(limit);
    tell_limit(&d, limit);
    stream x = attend(&d, &s, &q);
    if (!s.keys) tell_found(&x, &s);
    speeds r = {0};
    if (s.sweep) r = measure_all(&d, &s);
    limit_memory(0);

    if (s.check) compare(&x);
    if (s.plot) draw_shares(&x, &s);
    if (s.plot && s.sweep) draw_speeds(&r, &s);
    free_stream(&x);
    qkv_npy_free(&q);
    return finish();
}
