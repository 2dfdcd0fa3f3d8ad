/* loops.c - see loops.h. Built with QKV_REAL = 32 or 64, BENCH_ISA = baseline, avx2 .., BENCH_BYTES
 * of a vector, BENCH_REGISTERS of them, and the compiler's options for that instruction set.
 *
 * No loop alone is the peak everywhere: too few chains wait for the latency of an FMA, too many
 * spill; two-operand instructions want chains that overwrite themselves; some processors clock
 * down. Hence many, and the best counts. One that a compiler makes badly only loses. */
#include "loops.h"

#include "src/real.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif

enum { LANES = BENCH_BYTES / sizeof(real), MOST = 30, STEPS = 64 };

typedef real vector __attribute__((vector_size(BENCH_BYTES), may_alias));

ALWAYS_INLINE vector splat(real x)
{
    return x - (vector){0};
}

ALWAYS_INLINE double total(const vector *a, int n)
{
    vector sum = {0};
    double result = 0;
    UNROLL
    for (int i = 0; i < n; i++) sum += a[i];
    for (int i = 0; i < (int)LANES; i++) result += (double)sum[i];
    return result;
}

/* ---- Arithmetic ---- */

/* n chains a = a x + c: nothing but registers. The compiler cannot shorten a chain of roundings. */
ALWAYS_INLINE double chains(size_t turns, const real *l1, int n)
{
    const vector x = splat(l1[0]), c = splat(l1[1]);
    vector a[MOST];
    UNROLL
    for (int i = 0; i < n; i++) a[i] = splat(l1[i]);
    for (; turns; turns--)
        for (int step = 0; step < STEPS; step++) {
            UNROLL
            for (int i = 0; i < n; i++) a[i] = a[i] * x + c;
        }
    return total(a, n);
}

/* n sums a += x y, one of the factors from L1 each time. */
ALWAYS_INLINE double loads(size_t turns, const real *l1, int n)
{
    const vector x = splat(l1[0]);
    vector a[MOST];
    UNROLL
    for (int i = 0; i < n; i++) a[i] = splat(l1[i]);
    for (; turns; turns--)
        for (int step = 0; step < STEPS; step++) {
            const vector *y = (const vector *)l1 + step;
            UNROLL
            for (int i = 0; i < n; i++) a[i] += x * y[i];
        }
    return total(a, n);
}

/* The inside of a matrix product: rows vectors times columns broadcast numbers, all from L1. */
ALWAYS_INLINE double product(size_t turns, const real *l1, int rows, int columns)
{
    vector a[MOST];
    UNROLL
    for (int i = 0; i < rows * columns; i++) a[i] = splat(l1[i]);
    for (; turns; turns--)
        for (int step = 0; step < STEPS; step++) {
            const vector *x = (const vector *)l1 + (size_t)rows * (unsigned)step % 128;
            const real *y = l1 + columns * step;
            UNROLL
            for (int j = 0; j < columns; j++) {
                UNROLL
                for (int i = 0; i < rows; i++) a[j * rows + i] += x[i] * splat(y[j]);
            }
        }
    return total(a, rows * columns);
}

/* One function and one line of a table for each size: the compiler must know it. */
#define CHAINS(n)                                          \
    static double chains_##n(size_t turns, const void *l1) \
    {                                                      \
        return chains(turns, l1, n);                       \
    }
#define LOADS(n)                                          \
    static double loads_##n(size_t turns, const void *l1) \
    {                                                     \
        return loads(turns, l1, n);                       \
    }
#define PRODUCT(m, n)                                             \
    static double product_##m##x##n(size_t turns, const void *l1) \
    {                                                             \
        return product(turns, l1, m, n);                          \
    }
#define LINE(name, n)                                 \
    {                                                 \
#name, name, 2.0 * (n) * (double)LANES *STEPS \
    }

CHAINS(10)
CHAINS(12)
CHAINS(14)
LOADS(8)
LOADS(10)
LOADS(12)
PRODUCT(2, 6)
PRODUCT(3, 4)
#if BENCH_REGISTERS > 16
CHAINS(16)
CHAINS(20)
CHAINS(24)
CHAINS(28)
LOADS(16)
PRODUCT(2, 12)
PRODUCT(3, 8)
PRODUCT(4, 6)
PRODUCT(6, 4)
#endif

static const fma_loop fma_loops[] = {
    LINE(chains_10, 10),   LINE(chains_12, 12),    LINE(chains_14, 14),   LINE(loads_8, 8),
    LINE(loads_10, 10),    LINE(loads_12, 12),     LINE(product_2x6, 12), LINE(product_3x4, 12),
#if BENCH_REGISTERS > 16
    LINE(chains_16, 16),   LINE(chains_20, 20),    LINE(chains_24, 24),   LINE(chains_28, 28),
    LINE(loads_16, 16),    LINE(product_2x12, 24), LINE(product_3x8, 24), LINE(product_4x6, 24),
    LINE(product_6x4, 24),
#endif
};

/* ---- Reading ---- */

/* As many streams, each through its own part of the memory, with the line ahead lines further on
 * asked for early (0: left to the processor). */
ALWAYS_INLINE double streams(const void *memory, size_t lines, int n, size_t ahead)
{
    enum { PER_LINE = 64 / BENCH_BYTES };
    const size_t part = lines / (size_t)n;
    const vector *at = memory;
    vector sum[8 * PER_LINE] = {{0}};
    for (size_t line = 0; line < part; line++) {
        UNROLL
        for (int i = 0; i < n; i++) {
            const vector *p = at + ((size_t)i * part + line) * PER_LINE;
            if (ahead) __builtin_prefetch(p + ahead * PER_LINE, 0, 3);
            UNROLL
            for (int j = 0; j < PER_LINE; j++) sum[i * PER_LINE + j] += p[j];
        }
    }
    for (size_t i = part * (size_t)n * PER_LINE; i < lines * PER_LINE; i++) sum[0] += at[i];
    return total(sum, n * PER_LINE);
}

#define STREAMS(n, ahead)                                                       \
    static double streams_##n##_ahead_##ahead(const void *memory, size_t lines) \
    {                                                                           \
        return streams(memory, lines, n, ahead);                                \
    }

STREAMS(1, 0)
STREAMS(1, 16)
STREAMS(1, 64)
STREAMS(2, 0)
STREAMS(2, 16)
STREAMS(2, 64)
STREAMS(4, 0)
STREAMS(4, 16)
STREAMS(4, 64)
STREAMS(8, 0)
STREAMS(8, 16)

static const read_loop read_loops[] = {
    {"streams_1", streams_1_ahead_0},           {"streams_1_ahead_16", streams_1_ahead_16},
    {"streams_1_ahead_64", streams_1_ahead_64}, {"streams_2", streams_2_ahead_0},
    {"streams_2_ahead_16", streams_2_ahead_16}, {"streams_2_ahead_64", streams_2_ahead_64},
    {"streams_4", streams_4_ahead_0},           {"streams_4_ahead_16", streams_4_ahead_16},
    {"streams_4_ahead_64", streams_4_ahead_64}, {"streams_8", streams_8_ahead_0},
    {"streams_8_ahead_16", streams_8_ahead_16},
};

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

extern const loop_table FN(QKV_JOIN(loops_, BENCH_ISA));
const loop_table FN(QKV_JOIN(loops_, BENCH_ISA)) = {
    TEXT(BENCH_ISA), fma_loops, sizeof fma_loops / sizeof *fma_loops, read_loops,
    sizeof read_loops / sizeof *read_loops};
