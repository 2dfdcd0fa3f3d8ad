/* memory.c - peak memory, in a process that does nothing else: the kernel's high-water mark is of
 * the whole process and never falls. */
#include <stdio.h>

#include "calls.h"
#include "measure.h"
#include "pairs.h"

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

bench_result measure_memory(int threads, bool quick)
{
    bench_result r = {.threads = threads};
    char n_threads[32];
    snprintf(n_threads, sizeof n_threads, "%d", threads);
    const char *argv[] = {"bench_attention", "--memory-child",         "--threads",
                          n_threads,         quick ? "--quick" : NULL, NULL};
    double over, data;
    double *numbers[] = {&over, &data, &r.seconds};
    run_self(argv, numbers, 3);
    r.rate = over / 0x1p20;
    r.peak = data / 0x1p20;
    r.fraction = over / data;
    return r;
}
