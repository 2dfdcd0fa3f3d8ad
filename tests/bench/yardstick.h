/* yardstick.h - what the machine can do at this moment: arithmetic and reading, by as many threads
 * as the case uses. A shared machine drifts, so each measurement of a case has its own. */
#ifndef QKV_BENCH_YARDSTICK_H
#define QKV_BENCH_YARDSTICK_H

#include "loops.h"
#include "qkv/status.h"

/* The instruction set the library runs on. */
const char *isa_in_force(void);

/* GFLOP/s of the best loop of the instruction set (FMA counts 2), all threads together, each loop
 * for about a millisecond. */
double peak_gflops(const char *isa, qkv_dtype dtype, int threads);

/* GB/s of the best loop over this memory, read once by each. */
double read_gbytes(const void *memory, size_t bytes, int threads);

/* A line for each loop of each instruction set this processor has. */
void print_yardsticks(int threads);

#endif
