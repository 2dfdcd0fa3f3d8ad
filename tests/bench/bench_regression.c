/* bench_regression.c - kernel regression: the search of a bandwidth, a fit with its gradients, many
 * rows. Every measurement is a process of its own, so that its peak memory is its own. See --help.
 */
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "measure.h"
#include "qkv/regression.h"
#include "src/random.h"

typedef struct options {
    const char *only, *data, *out; /* of one measurement */
    double bandwidth;
    int threads, repeats;
    bool quick;
} options;

/* What is measured, on n rows of one column. */
typedef struct setting {
    qkv_regression r;
    double h;  /* given, or 0: to be found */
    double *q; /* [n_q] */
    ptrdiff_t n_q;
    double *mean, *gradient; /* [n_q] */
} setting;

static void check(qkv_status status)
{
    if (status) die("%s: %s", qkv_status_name(status), qkv_last_error());
}

static void search(setting *s)
{
    check(qkv_regression_fit(&s->r, NULL, &s->h, NULL));
}

static void predict(setting *s)
{
    if (s->h == 0) check(qkv_regression_silverman(&s->r, &s->h));
    qkv_regression_results out = {.mean = s->mean, .gradient = s->gradient};
    check(qkv_regression_predict(&s->r, &s->h, s->q, s->n_q, &out));
}

typedef struct measured_case {
    const char *name, *what;
    ptrdiff_t n, quick_n, n_q; /* n_q 0: the rows */
    double bandwidth;          /* 0: found */
    void (*run)(setting *s);
} measured_case;

static const measured_case cases[] = {
    {"search", "the leave-one-out bandwidth", 10000, 200, 0, 0, search},
    {"fit", "mean and gradient at every row", 10000, 200, 0, 0, predict},
    {"queries/4", "mean and gradient at 1,000 points", 250000, 500, 1000, 0, predict},
    {"queries", "mean and gradient at 1,000 points", 1000000, 2000, 1000, 0, predict},
    {"wide", "the same with every row in reach", 1000000, 2000, 1000, 3, predict},
};
enum { CASES = sizeof cases / sizeof *cases };

/* ---- One measurement, in this process --------------------------------------------------------
 */

/* x, then y, of the file's n rows; without a file y is a sine and noise over x from 0 to 10. */
static double *rows_of(const char *path, ptrdiff_t *n)
{
    if (!path) {
        double *x = memory_for(2 * (size_t)*n * sizeof *x);
        for (ptrdiff_t i = 0; i < *n; i++) {
            x[i] = 10 * qkv_random_uniform(1, 0, (uint64_t)i);
            x[*n + i] = sin(x[i]) + 0.5 * qkv_random_normal(1, 1, (uint64_t)i);
        }
        return x;
    }
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END)) die("cannot read %s", path);
    size_t bytes = (size_t)ftell(f);
    double *x = memory_for(bytes);
    rewind(f);
    if (fread(x, 1, bytes, f) != bytes || bytes % (2 * sizeof *x)) die("cannot read %s", path);
    fclose(f);
    *n = (ptrdiff_t)(bytes / (2 * sizeof *x));
    return x;
}

static void write_results(const char *path, const setting *s)
{
    FILE *f = fopen(path, "wb");
    if (!f) die("cannot write %s", path);
    fwrite(s->mean, sizeof *s->mean, (size_t)s->n_q, f);
    fwrite(s->gradient, sizeof *s->gradient, (size_t)s->n_q, f);
    if (fclose(f)) die("cannot write %s", path);
}

/* Of all threads: what a busy machine leaves as it is. */
static double processor_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Prints seconds, bytes beyond the data, rows, the bandwidth and the processors' seconds. */
static void measure_one(const measured_case *c, const options *o)
{
    ptrdiff_t n = o->quick ? c->quick_n : c->n;
    double *x = rows_of(o->data, &n);
    setting s = {.r = {.x = x, .y = x + n, .n = n},
                 .h = o->bandwidth > 0 ? o->bandwidth : c->bandwidth,
                 .q = x,
                 .n_q = c->n_q ? c->n_q : n};
    const size_t bytes = (size_t)s.n_q * sizeof *x;
    s.mean = memory_for(bytes);
    s.gradient = memory_for(bytes);
    if (c->n_q) {
        s.q = memory_for(bytes);
        for (ptrdiff_t i = 0; i < s.n_q; i++) s.q[i] = 10 * (double)i / (double)s.n_q;
    }
    qkv_set_num_threads(o->threads);
    double before = high_water_bytes(), work = processor_seconds(), start = seconds_now();
    c->run(&s);
    double seconds = seconds_now() - start;
    work = processor_seconds() - work;
    printf("%.9g %.0f %td %.17g %.9g\n", seconds, high_water_bytes() - before, n, s.h, work);
    if (o->out) write_results(o->out, &s);
    if (c->n_q) free(s.q);
    free(s.mean);
    free(s.gradient);
    free(x);
}

/* ---- All of them, each in a process ----------------------------------------------------------
 */

typedef struct row {
    double seconds, bytes, n, h, work;
} row;

static row measure_child(const measured_case *c, const options *o)
{
    char threads[32];
    snprintf(threads, sizeof threads, "%d", o->threads);
    const char *argv[] = {"bench_regression",          "--case", c->name, "--threads", threads,
                          o->quick ? "--quick" : NULL, NULL};
    row r;
    double *numbers[] = {&r.seconds, &r.bytes, &r.n, &r.h, &r.work};
    run_self(argv, numbers, 5);
    return r;
}

/* In rounds, so that what else the machine does falls on all of them. */
static void measure_all(const options *o)
{
    const int n = o->repeats;
    double *seconds = memory_for((size_t)(3 * CASES * n) * sizeof *seconds);
    double *bytes = seconds + CASES * n, *work = bytes + CASES * n;
    row last[CASES];
    for (int i = 0; i < n; i++)
        for (int c = 0; c < CASES; c++) {
            last[c] = measure_child(&cases[c], o);
            seconds[c * n + i] = last[c].seconds;
            bytes[c * n + i] = last[c].bytes;
            work[c * n + i] = last[c].work;
        }
    printf("%-10s %9s %10s %9s %9s %9s %10s  threads: %d, of %d\n", "case", "rows", "bandwidth",
           "seconds", "CPU s", "MiB added", "bytes/row", o->threads, n);
    for (int c = 0; c < CASES; c++) {
        double added = median(bytes + c * n, n);
        printf("%-10s %9.0f %10.4g %9.4f %9.4f %9.2f %10.1f  %s\n", cases[c].name, last[c].n,
               last[c].h, median(seconds + c * n, n), median(work + c * n, n), added / 0x1p20,
               added / last[c].n, cases[c].what);
    }
    free(seconds);
}

static void usage(void)
{
    puts("Usage: bench_regression [OPTION]...\n"
         "Kernel regression with a Gaussian on one column: seconds, and the peak of memory beyond "
         "the data\n"
         "and the results, which is linear if the bytes per row are the same for queries/4 and "
         "queries.\n\n"
         "  --threads N    default 1\n"
         "  --repeats N    rounds, of which the medians are printed (default 5)\n"
         "  --quick        tiny sizes: shows that it works\n"
         "  --case NAME    one measurement in this process: seconds, bytes, rows, bandwidth, CPU "
         "seconds\n"
         "    --data FILE    of it: x and then y as doubles\n"
         "    --bandwidth H  of it: 0 is Silverman's\n"
         "    --out FILE     of it: mean and then gradient as doubles\n"
         "  --help         this text\n\n"
         "tests/bench/regression_peers.py measures others beside it.");
}

static int positive(const char *text)
{
    int n = atoi(text);
    if (n < 1) die("bench_regression: '%s' is not 1 or more", text);
    return n;
}

static options parse(int argc, char **argv)
{
    static const struct option known[] = {{"case", required_argument, NULL, 'c'},
                                          {"data", required_argument, NULL, 'd'},
                                          {"out", required_argument, NULL, 'o'},
                                          {"bandwidth", required_argument, NULL, 'b'},
                                          {"threads", required_argument, NULL, 't'},
                                          {"repeats", required_argument, NULL, 'r'},
                                          {"quick", no_argument, NULL, 'q'},
                                          {"help", no_argument, NULL, 'h'},
                                          {0}};
    options o = {.threads = 1, .repeats = 5};
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) switch (option) {
        case 'c':
            o.only = optarg;
            break;
        case 'd':
            o.data = optarg;
            break;
        case 'o':
            o.out = optarg;
            break;
        case 'b':
            o.bandwidth = atof(optarg);
            break;
        case 't':
            o.threads = positive(optarg);
            break;
        case 'r':
            o.repeats = positive(optarg);
            break;
        case 'q':
            o.quick = true;
            break;
        case 'h':
            usage();
            exit(0);
        default:
            exit(2);
        }
    if (optind < argc) die("bench_regression: '%s' is not an option; see --help", argv[optind]);
    return o;
}

int main(int argc, char **argv)
{
    options o = parse(argc, argv);
    if (!o.only) return measure_all(&o), 0;
    for (int c = 0; c < CASES; c++)
        if (!strcmp(o.only, cases[c].name)) return measure_one(&cases[c], &o), 0;
    die("bench_regression: no case '%s'", o.only);
}
