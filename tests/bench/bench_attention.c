/* bench_attention.c - how fast attention is, against what the machine can do: see --help. */
#include <getopt.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cases.h"
#include "measure.h"
#include "pairs.h"
#include "yardstick.h"

typedef struct options {
    const char *csv, *filter;
    int repeats, threads;
    bool quick, yardsticks, list;
    bool memory_child; /* this is the process that measures memory */
} options;

static void usage(void)
{
    puts(
        "Usage: bench_attention [OPTION]...\n"
        "How fast attention is, against what this machine can do at the same moment.\n"
        "\n"
        "  --csv FILE      write the results there too\n"
        "  --filter TEXT   only cases whose label (the table's first column) contains it\n"
        "  --repeats N     pairs of {our call, yardstick} a case; default 9\n"
        "  --threads N     default 1\n"
        "  --quick         tiny sizes, one pair: shows that it works, measures nothing\n"
        "  --list          the labels alone\n"
        "  --yardsticks    each yardstick's loops, for every instruction set of this processor\n"
        "  --help          this text\n"
        "\n"
        "The environment variable QKV_ISA forces the library's instruction set: baseline, avx2,\n"
        "avx512, neon.\n"
        "\n"
        "A case is measured in pairs: our call (repeated for 5 ms if short), then the yardstick.\n"
        "seconds (of one call) and peak_gflops are medians over the pairs, the peak of a pair\n"
        "being its best loop's; fraction is the median of the pairs' own ratios. FLOPs of a call:\n"
        "2 n_q n_k (d_k + d_v) forward, 2 n_q n_k (3 d_k + 2 d_v) backward, that is 4 and 10\n"
        "n_q n_k d; half of it if causal, of the seen keys if in a window (256 on either side);\n"
        "both if through the tape. The peak is that of the instruction set and dtype in force,\n"
        "the threads together.\n"
        "\n"
        "Cases that measure something else say so in their name:\n"
        "  decode_gbytes           gflops: GB/s of keys and values; peak_gflops: GB/s of the best\n"
        "                          read loop\n"
        "  nadaraya_watson_gpairs  gflops: 1e9 query-key pairs a second (peak_gflops as usual)\n"
        "  speedup                 gflops: GFLOP/s of 2 threads; peak_gflops: of 1; fraction: the\n"
        "                          speed-up\n"
        "  memory_mebibytes        forward and backward; gflops: the process's peak over inputs,\n"
        "                          results and gradients, in MiB; peak_gflops: these, in MiB");
}

static int number(const char *text, const char *option)
{
    char *end;
    long n = strtol(text, &end, 10);
    if (*end || n < 1 || n > INT_MAX)
        die("--%s is '%s', expected a number from 1 on", option, text);
    return (int)n;
}

static options parse(int argc, char **argv)
{
    static const struct option known[] = {
        {"csv", 1, NULL, 'c'},        {"filter", 1, NULL, 'f'},
        {"repeats", 1, NULL, 'r'},    {"threads", 1, NULL, 't'},
        {"quick", 0, NULL, 'q'},      {"list", 0, NULL, 'l'},
        {"yardsticks", 0, NULL, 'y'}, {"memory-child", 0, NULL, 'm'},
        {"help", 0, NULL, 'h'},       {NULL, 0, NULL, 0}};
    options o = {.filter = "", .threads = 1};
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;) switch (option) {
        case 'c':
            o.csv = optarg;
            break;
        case 'f':
            o.filter = optarg;
            break;
        case 'r':
            o.repeats = number(optarg, "repeats");
            break;
        case 't':
            o.threads = number(optarg, "threads");
            break;
        case 'q':
            o.quick = true;
            break;
        case 'l':
            o.list = true;
            break;
        case 'y':
            o.yardsticks = true;
            break;
        case 'm':
            o.memory_child = true;
            break;
        case 'h':
            usage();
            exit(0);
        default:
            fputs("See bench_attention --help.\n", stderr);
            exit(2);
        }
    if (optind < argc) die("'%s' is not an option; see bench_attention --help", argv[optind]);
#ifndef _OPENMP
    if (o.threads > 1) die("--threads %d: this build has no threads", o.threads);
#endif
    if (o.repeats == 0) o.repeats = o.quick ? 1 : 9;
    return o;
}

/* Why it cannot be measured here; NULL if it can. */
static const char *hindrance(const bench_case *c, const options *o)
{
    cpu_set_t allowed;
    if (c->measure != SPEEDUP) return NULL;
    if (o->threads > 1) return "compares 2 threads with 1 whatever --threads says";
#ifndef _OPENMP
    return "this build has no threads";
#endif
    bool several = sched_getaffinity(0, sizeof allowed, &allowed) == 0 && CPU_COUNT(&allowed) > 1;
    return several ? NULL : "needs 2 processors";
}

static const char *unit(bench_measure measure)
{
    static const char *const names[] = {"GFLOP/s", "Gpairs/s", "GB/s", "GFLOP/s", "MiB"};
    return names[measure];
}

static void print_row(const bench_case *c, const bench_result *r)
{
    char time[32];
    if (r->seconds < 1e-4)
        snprintf(time, sizeof time, "%.0f ns", 1e9 * r->seconds);
    else
        snprintf(time, sizeof time, "%.3f ms", 1e3 * r->seconds);
    printf("%-52s %2d %13s %9.2f %-8s %9.2f %8.3f\n", case_label(c), r->threads, time, r->rate,
           unit(c->measure), r->peak, r->fraction);
    fflush(stdout);
}

static void write_row(FILE *csv, const bench_case *c, const bench_result *r)
{
    const qkv_attention *a = &c->a;
    fprintf(csv, "%s,%s,%s,%d,%s,%td,%td,%td,%td,%td,%td,%d,%.6g,%.6g,%.6g,%.4g\n", c->name,
            dtype_name(c->dtype), isa_in_force(), r->threads, pass_name(c->pass), a->batch,
            a->heads, a->n_q, a->n_k, a->d_k, a->d_v, a->mask.causal, r->seconds, r->rate, r->peak,
            r->fraction);
    fflush(csv);
}

static void run_case(const bench_case *c, const options *o, FILE *csv)
{
    const bool progress = isatty(STDERR_FILENO);
    const char *why = hindrance(c, o);
    if (why) {
        printf("%-52s skipped: %s\n", case_label(c), why);
        return;
    }
    if (progress) fprintf(stderr, "%s ..\r", case_label(c));
    bench_result r = c->measure == MEBIBYTES ? measure_memory(o->threads, o->quick)
                                             : measure_pairs(c, o->threads, o->repeats);
    if (progress) fputs("\033[K", stderr); /* erases the line */
    print_row(c, &r);
    if (csv) write_row(csv, c, &r);
}

static int run_cases(const options *o, FILE *csv)
{
    bench_case c;
    int n = 0;
    printf("qkv %s, %s\n%-52s %2s %13s %9s %-8s %9s %8s\n", qkv_version(), isa_in_force(), "case",
           "th", "time", "rate", "", "peak", "fraction");
    for (int i = 0; case_at(i, o->quick, &c); i++) {
        if (!strstr(case_label(&c), o->filter)) continue;
        run_case(&c, o, csv);
        n++;
    }
    return n;
}

static FILE *open_csv(const char *path)
{
    FILE *csv = fopen(path, "w");
    if (!csv) die("cannot write %s", path);
    fputs("case,dtype,isa,threads,pass,batch,heads,n_q,n_k,d_k,d_v,causal,seconds,gflops,"
          "peak_gflops,fraction\n",
          csv);
    return csv;
}

static int run_memory_child(const options *o)
{
    bench_case c;
    for (int i = 0; case_at(i, o->quick, &c); i++)
        if (c.measure == MEBIBYTES) return memory_child(&c, o->threads);
    return 1;
}

static int list_cases(const options *o)
{
    bench_case c;
    for (int i = 0; case_at(i, o->quick, &c); i++)
        if (strstr(case_label(&c), o->filter)) puts(case_label(&c));
    return 0;
}

int main(int argc, char **argv)
{
    const options o = parse(argc, argv);
    if (o.memory_child) return run_memory_child(&o);
    if (o.list) return list_cases(&o);
    if (o.yardsticks) return print_yardsticks(o.threads), 0;
    FILE *csv = o.csv ? open_csv(o.csv) : NULL;
    int n = run_cases(&o, csv);
    if (csv && (ferror(csv) | fclose(csv))) die("cannot write %s", o.csv);
    if (n == 0) die("no case's label contains '%s'; see --list", o.filter);
    return 0;
}
