/* pairs.h - a case against its yardstick: {our call, yardstick} again and again, in turn. */
#ifndef QKV_BENCH_PAIRS_H
#define QKV_BENCH_PAIRS_H

#include "cases.h"

typedef struct bench_result {
    double seconds;  /* of a call: the median over the pairs */
    double rate;     /* of that call, in the case's measure */
    double peak;     /* the median over the pairs, of the best loop each time */
    double fraction; /* the median over the pairs of rate / peak */
    int threads;
} bench_result;

bench_result measure_pairs(const bench_case *c, int threads, int repeats);

/* The peak memory of forward and backward, in a process of its own: this program again, with
 * --memory-child (and --quick). */
bench_result measure_memory(int threads, bool quick);

/* What that process runs. Prints the bytes over inputs and results, the bytes of these, and
 * seconds.
 */
int memory_child(const bench_case *c, int threads);

#endif
