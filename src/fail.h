/* fail.h - how the library reports an error: fail() keeps the message for qkv_last_error and
 * returns the status. */
#ifndef QKV_SRC_FAIL_H
#define QKV_SRC_FAIL_H

#include <stdarg.h>

#include "qkv/status.h"

enum { QKV_MESSAGE_BYTES = 512 }; /* longer messages are cut */

qkv_status qkv_fail(qkv_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
qkv_status qkv_vfail(qkv_status status, const char *format, va_list arguments)
    __attribute__((format(printf, 2, 0)));

#endif
