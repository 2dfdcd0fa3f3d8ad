#include "measure.h"

#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

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

double high_water_bytes(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    double kib = -1;
    while (f && fgets(line, sizeof line, f)) sscanf(line, "VmHWM: %lf", &kib);
    if (f) fclose(f);
    if (kib < 0) die("no VmHWM in /proc/self/status: peak memory needs Linux");
    return 1024 * kib;
}

void run_self(const char *const *argv, double *const *numbers, int n)
{
    int ends[2], status = 1, read = 0;
    pid_t child;
    posix_spawn_file_actions_t files;
    if (pipe(ends)) die("no pipe");
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&files, ends[0]);
    if (posix_spawn(&child, "/proc/self/exe", &files, NULL, (char *const *)argv, environ))
        die("cannot start /proc/self/exe");
    posix_spawn_file_actions_destroy(&files);
    close(ends[1]);
    FILE *f = fdopen(ends[0], "r");
    while (f && read < n && fscanf(f, "%lf", numbers[read]) == 1) read++;
    if (f) fclose(f);
    waitpid(child, &status, 0);
    if (read != n || status) die("the process that measures %s failed", argv[2]);
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
