/* memory.c - peak memory, in a process that does nothing else: the kernel's high-water mark is of
 * the whole process and never falls. */
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "calls.h"
#include "measure.h"
#include "pairs.h"

extern char **environ;

static double high_water_bytes(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    double kib = -1;
    while (f && fgets(line, sizeof line, f)) sscanf(line, "VmHWM: %lf", &kib);
    if (f) fclose(f);
    if (kib < 0) die("no VmHWM in /proc/self/status: peak memory needs Linux");
    return 1024 * kib;
}

int memory_child(const bench_case *c, int threads)
{
    qkv_set_num_threads(threads);
    bench_calls calls = c->dtype == QKV_F32 ? calls_f32(c) : calls_f64(c);
    double before = high_water_bytes(), start = seconds_now();
    calls.call(calls.state);
    double seconds = seconds_now() - start;
    printf("%.0f %zu %.9g\n", high_water_bytes() - before, calls.data_bytes, seconds);
    calls.free(calls.state);
    return fflush(stdout) ? 1 : 0;
}

/* Its standard output, to be closed. */
static FILE *start_child(int threads, bool quick, pid_t *child)
{
    char n_threads[32];
    snprintf(n_threads, sizeof n_threads, "%d", threads);
    char *argv[] = {"bench_attention", "--memory-child",         "--threads",
                    n_threads,         quick ? "--quick" : NULL, NULL};
    int ends[2];
    posix_spawn_file_actions_t files;
    if (pipe(ends)) die("no pipe");
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&files, ends[0]);
    if (posix_spawn(child, "/proc/self/exe", &files, NULL, argv, environ))
        die("cannot start /proc/self/exe");
    posix_spawn_file_actions_destroy(&files);
    close(ends[1]);
    return fdopen(ends[0], "r");
}

bench_result measure_memory(int threads, bool quick)
{
    bench_result r = {.threads = threads};
    pid_t child;
    double over = 0, data = 1;
    FILE *f = start_child(threads, quick, &child);
    int read = f ? fscanf(f, "%lf %lf %lf", &over, &data, &r.seconds) : 0, status = 1;
    if (f) fclose(f);
    waitpid(child, &status, 0);
    if (read != 3 || status) die("the process that measures memory failed");
    r.rate = over / 0x1p20;
    r.peak = data / 0x1p20;
    r.fraction = over / data;
    return r;
}
