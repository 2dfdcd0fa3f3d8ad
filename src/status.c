#include "qkv/status.h"

#include <stdatomic.h>
#include <stdio.h>

#include "fail.h"

#ifdef _OPENMP
#include <omp.h>
#endif

static _Thread_local char message[QKV_MESSAGE_BYTES];

qkv_status qkv_vfail(qkv_status status, const char *format, va_list arguments)
{
    /* Through a second buffer: a message may quote qkv_last_error itself. */
    char text[QKV_MESSAGE_BYTES];
    vsnprintf(text, sizeof text, format, arguments);
    snprintf(message, sizeof message, "%s", text);
    return status;
}

qkv_status qkv_fail(qkv_status status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    qkv_vfail(status, format, arguments);
    va_end(arguments);
    return status;
}

const char *qkv_last_error(void)
{
    return message;
}

const char *qkv_status_name(qkv_status status)
{
    static const char *const names[] = {
        [QKV_OK] = "QKV_OK",
        [QKV_E_ARG] = "QKV_E_ARG",
        [QKV_E_SHAPE] = "QKV_E_SHAPE",
        [QKV_E_OVERFLOW] = "QKV_E_OVERFLOW",
        [QKV_E_ALIAS] = "QKV_E_ALIAS",
        [QKV_E_NOMEM] = "QKV_E_NOMEM",
        [QKV_E_DTYPE] = "QKV_E_DTYPE",
        [QKV_E_STATE] = "QKV_E_STATE",
        [QKV_E_DOMAIN] = "QKV_E_DOMAIN",
        [QKV_E_GRADIENT] = "QKV_E_GRADIENT",
        [QKV_E_FORMAT] = "QKV_E_FORMAT",
        [QKV_E_IO] = "QKV_E_IO",
        [QKV_E_PROCESS] = "QKV_E_PROCESS",
    };
    size_t i = (size_t)status;
    return i < sizeof names / sizeof *names ? names[i] : "unknown status";
}

const char *qkv_version(void)
{
    return QKV_VERSION;
}

static atomic_int num_threads; /* 0: OpenMP's own choice */

qkv_status qkv_set_num_threads(int n)
{
    if (n < 0) return qkv_fail(QKV_E_ARG, "qkv_set_num_threads: n is %d, expected 0 or more", n);
    atomic_store(&num_threads, n);
    return QKV_OK;
}

int qkv_get_num_threads(void)
{
#ifdef _OPENMP
    int n = atomic_load(&num_threads);
    return n > 0 ? n : omp_get_max_threads();
#else
    return 1;
#endif
}
