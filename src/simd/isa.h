/* isa.h - the instruction sets that the tile kernels are built for, the least capable first, and
 * the one in force. isa.cmake builds the same list. */
#ifndef QKV_SIMD_ISA_H
#define QKV_SIMD_ISA_H

#include "qkv/status.h"

#if defined(QKV_EACH_ISA) /* by isa.cmake: some only */
#elif defined(__x86_64__)
#define QKV_EACH_ISA(X) X(baseline), X(avx2), X(avx512)
#elif defined(__aarch64__)
#define QKV_EACH_ISA(X) X(neon)
#else
#define QKV_EACH_ISA(X) X(baseline)
#endif

/* Its place in the list: the best one that this processor has, unless the environment variable
 * QKV_ISA names another. QKV_E_ARG if that does not exist or the processor lacks it. */
qkv_status qkv_isa_find(const char *who, int *index);

#endif
