/* status.h - what every function of qkv returns, and the few settings of the whole library.
 *
 * Errors are values: the library never aborts, exits or prints. A function that can fail returns a
 * qkv_status; the sentence that belongs to it (which argument, what was expected, what was found)
 * is kept per thread and read with qkv_last_error(). */
#ifndef QKV_STATUS_H
#define QKV_STATUS_H

#include <stddef.h>

#if defined(_WIN32)
#define QKV_API
#else
#define QKV_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum qkv_status {
    QKV_OK = 0,
    QKV_E_ARG,      /* an argument is NULL, out of its range, or two choices exclude each other */
    QKV_E_SHAPE,    /* sizes do not fit together */
    QKV_E_OVERFLOW, /* a product of sizes does not fit in size_t; nothing was allocated */
    QKV_E_ALIAS,    /* an element would be written twice, or written while it is read */
    QKV_E_NOMEM,    /* an allocation failed; nothing leaked */
    QKV_E_DTYPE,    /* float where double is meant, or the other way round */
    QKV_E_STATE,    /* a stale or foreign handle, a second backward, a call out of its order */
    QKV_E_DOMAIN,   /* the data admit no answer (no key within a kernel's support, policy error) */
    QKV_E_GRADIENT, /* a gradient check found a gradient wrong, or could not decide */
    QKV_E_FORMAT,   /* a file's content is malformed; the message has file, line and column */
    QKV_E_IO,       /* a file could not be opened, read, written or renamed */
    QKV_E_PROCESS   /* another program (gnuplot) is missing or failed */
} qkv_status;

/* The numeric types of the library, where a size or a tape must be told which. */
typedef enum qkv_dtype { QKV_F32 = 0, QKV_F64 = 1 } qkv_dtype;

/* "QKV_E_SHAPE" for QKV_E_SHAPE, and so on; "unknown status" for anything else. Never NULL. */
QKV_API const char *qkv_status_name(qkv_status status);

/* The message of the last call in this thread that failed; "" if none has. Valid until the next
 * failing call in this thread. Success does not clear it. Never NULL. */
QKV_API const char *qkv_last_error(void);

/* "major.minor.patch" of the library that is linked, as a static string. */
QKV_API const char *qkv_version(void);

/* The instruction set that attention's kernels run on: "baseline", "avx2" or "avx512" on x86-64,
 * "neon" on AArch64. It is the best that the processor has, or the one that the environment
 * variable QKV_ISA named when it was first needed; NULL if that one does not exist here (attention
 * then returns QKV_E_ARG). Different instruction sets round differently. */
QKV_API const char *qkv_isa(void);

/* How many threads attention may use: n >= 1 sets it, 0 returns to the default (OpenMP's own, hence
 * OMP_NUM_THREADS). A build without OpenMP has 1, whatever is set. It holds for the whole process
 * and changes no result: attention's bits are the same for any number. QKV_E_ARG if n < 0. */
QKV_API qkv_status qkv_set_num_threads(int n);
QKV_API int qkv_get_num_threads(void);

#ifdef __cplusplus
}
#endif
#endif
