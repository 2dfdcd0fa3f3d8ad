#include "yardstick.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure.h"

/* From the best to the least, for float and for double. */
#ifdef __x86_64__
extern const loop_table loops_avx512_f32, loops_avx512_f64, loops_avx2_f32, loops_avx2_f64,
    loops_baseline_f32, loops_baseline_f64;
static const loop_table *const tables[][2] = {{&loops_avx512_f32, &loops_avx512_f64},
                                              {&loops_avx2_f32, &loops_avx2_f64},
                                              {&loops_baseline_f32, &loops_baseline_f64}};
#elif defined(__aarch64__)
extern const loop_table loops_neon_f32, loops_neon_f64;
static const loop_table *const tables[][2] = {{&loops_neon_f32, &loops_neon_f64}};
#else
extern const loop_table loops_baseline_f32, loops_baseline_f64;
static const loop_table *const tables[][2] = {{&loops_baseline_f32, &loops_baseline_f64}};
#endif
enum { TABLES = sizeof tables / sizeof *tables };

const char *isa_in_force(void)
{
    const char *isa = qkv_isa();
    if (!isa) die("%s", qkv_last_error());
    return isa;
}

static bool can_run(const char *isa)
{
#ifdef __x86_64__
    if (!strcmp(isa, "avx512"))
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl");
    if (!strcmp(isa, "avx2"))
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    (void)isa;
    return true;
}

/* NULL if there is none, or the processor cannot run it. isa NULL: the best there is. */
static const loop_table *loops_for(const char *isa, qkv_dtype dtype)
{
    for (int i = 0; i < TABLES; i++) {
        const loop_table *t = tables[i][dtype];
        if (can_run(t->isa) && (!isa || !strcmp(isa, t->isa))) return t;
    }
    return NULL;
}

/* ---- Arithmetic ---- */

/* To be freed. Near 0.7, so that chains of products neither vanish nor overflow. */
static void *small_numbers(qkv_dtype dtype)
{
    float *single = memory_for(L1_BYTES);
    double *twice = (double *)single;
    for (size_t i = 0; i < L1_BYTES / (dtype == QKV_F32 ? sizeof *single : sizeof *twice); i++)
        if (dtype == QKV_F32)
            single[i] = 0.5F + (float)(i % 7) / 16;
        else
            twice[i] = 0.5 + (double)(i % 7) / 16;
    return single;
}

static volatile double sink; /* so that no loop is left out */

/* Seconds from the start of all threads to the end of the last. */
static double time_fma(const fma_loop *loop, size_t turns, const void *l1, int threads)
{
    double start = 0;
    (void)threads; /* 1 in a build without OpenMP */
#pragma omp parallel num_threads(threads)
    {
#pragma omp barrier
#pragma omp master
        start = seconds_now();
        double result = loop->run(turns, l1);
#pragma omp critical
        sink = result;
    }
    return seconds_now() - start;
}

/* FLOP/s of one thread, alone: what the loops' length is taken from. A team's own time would not
 * do: one late thread makes any number of turns look long enough. */
static double rate_alone(const loop_table *t, const void *l1)
{
    for (size_t turns = 64;; turns *= 2) {
        double seconds = time_fma(t->fma, turns, l1, 1);
        if (seconds > 0.5e-3) return t->fma->flops * (double)turns / seconds;
    }
}

static double fma_gflops(const fma_loop *loop, double alone, const void *l1, int threads)
{
    const size_t turns = 1 + (size_t)(1e-3 * alone / loop->flops); /* about a millisecond */
    return loop->flops * (double)turns * threads / time_fma(loop, turns, l1, threads) / 1e9;
}

double peak_gflops(const char *isa, qkv_dtype dtype, int threads)
{
    const loop_table *t = loops_for(isa, dtype);
    if (!t) die("no peak loops for the instruction set %s on this processor", isa);
    void *l1 = small_numbers(dtype);
    double best = 0, alone = rate_alone(t, l1);
    for (int i = 0; i < t->n_fma; i++) {
        double rate = fma_gflops(&t->fma[i], alone, l1, threads);
        if (rate > best) best = rate;
    }
    free(l1);
    return best;
}

/* ---- Reading ---- */

static double loop_gbytes(const read_loop *loop, const char *memory, size_t bytes, int threads)
{
    const size_t lines = bytes / 64 / (size_t)threads;
    double start = seconds_now();
#pragma omp parallel for num_threads(threads)
    for (int i = 0; i < threads; i++) sink = loop->run(memory + (size_t)i * lines * 64, lines);
    return (double)(lines * 64 * (size_t)threads) / (seconds_now() - start) / 1e9;
}

/* The memory, from its first whole line on. */
static const char *first_line(const void *memory, size_t *bytes)
{
    size_t before = -(uintptr_t)memory % 64;
    *bytes -= before;
    return (const char *)memory + before;
}

double read_gbytes(const void *memory, size_t bytes, int threads)
{
    const loop_table *t = loops_for(NULL, QKV_F32);
    const char *lines = first_line(memory, &bytes);
    double best = 0;
    for (int i = 0; i < t->n_read; i++) {
        double rate = loop_gbytes(&t->read[i], lines, bytes, threads);
        if (rate > best) best = rate;
    }
    return best;
}

/* ---- All of them ---- */

static void print_fma(const loop_table *t, qkv_dtype dtype, int threads)
{
    void *l1 = small_numbers(dtype);
    const double alone = rate_alone(t, l1);
    for (int i = 0; i < t->n_fma; i++) {
        double best = 0;
        for (int repeat = 0; repeat < 5; repeat++) {
            double rate = fma_gflops(&t->fma[i], alone, l1, threads);
            if (rate > best) best = rate;
        }
        printf("%-10s %s  %-20s %8.1f GFLOP/s\n", t->isa, dtype == QKV_F32 ? "f32" : "f64",
               t->fma[i].name, best);
    }
    free(l1);
}

void print_yardsticks(int threads)
{
    enum { BYTES = 1 << 28 };
    for (qkv_dtype dtype = QKV_F32; dtype <= QKV_F64; dtype++)
        for (int i = 0; i < TABLES; i++)
            if (can_run(tables[i][dtype]->isa)) print_fma(tables[i][dtype], dtype, threads);
    const loop_table *t = loops_for(NULL, QKV_F32);
    char *memory = memory_for(BYTES);
    for (int i = 0; i < t->n_read; i++)
        printf("%-10s      %-20s %8.1f GB/s\n", t->isa, t->read[i].name,
               loop_gbytes(&t->read[i], memory, BYTES, threads));
    free(memory);
}
