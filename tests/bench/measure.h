/* measure.h - time, medians and memory of a benchmark. A benchmark is a program: what fails here
 * ends it with a message. */
#ifndef QKV_BENCH_MEASURE_H
#define QKV_BENCH_MEASURE_H

#include <stddef.h>

double seconds_now(void);

/* Sorts x. */
double median(double *x, int n);

/* Seconds per call, of as many calls in a row as take at least this long. */
double seconds_per_call(void (*call)(void *state), void *state, double at_least);

/* Aligned to a cache line; every page touched; to be freed. */
void *memory_for(size_t bytes);

/* The most memory that this process has had so far: of the whole process, and it never falls. */
double high_water_bytes(void);

/* Runs this program with those arguments (NULL at the end) in another process and reads the n
 * numbers that it prints: what it measures is then its own. */
void run_self(const char *const *argv, double *const *numbers, int n);

/* Prints to stderr and exits with 1. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
