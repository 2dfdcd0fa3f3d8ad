#include "measure.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, ascending);
    return (x[(n - 1) / 2] + x[n / 2]) / 2;
}

double seconds_per_call(void (*call)(void *state), void *state, double at_least)
{
    double start = seconds_now(), elapsed;
    size_t calls = 0;
    for (size_t batch = 1;; batch *= 2) { /* few looks at the clock, which costs 20 ns or more */
        for (size_t i = 0; i < batch; i++) call(state);
        calls += batch;
        elapsed = seconds_now() - start;
        if (elapsed >= at_least) return elapsed / (double)calls;
    }
}

void *memory_for(size_t bytes)
{
    size_t whole = (bytes + 63) / 64 * 64;
    void *memory = aligned_alloc(64, whole ? whole : 64);
    if (!memory) die("no memory for %zu bytes", bytes);
    return memset(memory, 0, bytes);
}

void die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fflush(stdout);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}
