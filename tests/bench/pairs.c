#include "pairs.h"

#include <stdlib.h>

#include "calls.h"
#include "measure.h"
#include "yardstick.h"

enum { THREADS_OF_SPEEDUP = 2 };
static const double AT_LEAST = 5e-3; /* seconds of calls in a measurement */

/* What a call does, in units of 1e9. */
static double work(const bench_case *c, const bench_calls *calls)
{
    if (c->measure == GPAIRS) return (double)c->a.n_q * (double)c->a.n_k / 1e9;
    if (c->measure == GBYTES) return (double)calls->keys_bytes / 1e9;
    return case_flops(c) / 1e9;
}

static double time_calls(const bench_calls *calls, int threads)
{
    qkv_set_num_threads(threads);
    return seconds_per_call(calls->call, calls->state, AT_LEAST);
}

static double yardstick(const bench_case *c, const bench_calls *calls, int threads)
{
    switch (c->measure) {
    case GBYTES:
        return read_gbytes(calls->keys, calls->keys_bytes, threads);
    case SPEEDUP:
        return work(c, calls) / time_calls(calls, 1);
    default:
        return peak_gflops(isa_in_force(), c->dtype, threads);
    }
}

/* Calls must find the workspace of the threads they will run on. */
static bench_calls prepare(const bench_case *c, int threads)
{
    qkv_set_num_threads(threads);
    return c->dtype == QKV_F32 ? calls_f32(c) : calls_f64(c);
}

bench_result measure_pairs(const bench_case *c, int threads, int repeats)
{
    bench_result r = {.threads = c->measure == SPEEDUP ? THREADS_OF_SPEEDUP : threads};
    bench_calls calls = prepare(c, r.threads);
    double *seconds = memory_for(3 * (size_t)repeats * sizeof *seconds);
    double *peak = seconds + repeats, *fraction = peak + repeats;
    calls.call(calls.state); /* pages, caches and threads are there from now on */
    for (int i = 0; i < repeats; i++) {
        seconds[i] = time_calls(&calls, r.threads);
        peak[i] = yardstick(c, &calls, r.threads);
        fraction[i] = work(c, &calls) / seconds[i] / peak[i];
    }
    r.seconds = median(seconds, repeats);
    r.rate = work(c, &calls) / r.seconds;
    r.peak = median(peak, repeats);
    r.fraction = median(fraction, repeats);
    free(seconds);
    calls.free(calls.state);
    return r;
}
