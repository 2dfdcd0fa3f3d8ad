/* file.h - files that exist whole or not at all, and numbers spelled the same in every locale. */
#ifndef QKV_SRC_FILE_H
#define QKV_SRC_FILE_H

#include <locale.h>
#include <stdio.h>

#include "qkv/status.h"

/* A file being written under a temporary name beside its target, or a device or pipe itself. */
typedef struct qkv_output {
    FILE *stream; /* NULL: closed, another program writes to temporary */
    char *path;
    char *temporary; /* NULL: a device or pipe */
} qkv_output;

/* Creates the temporary file. caller names the public function, for messages. QKV_E_ARG for a NULL
 * path, QKV_E_IO, QKV_E_NOMEM; nothing is left behind then. */
qkv_status qkv_output_open(qkv_output *output, const char *path, const char *caller);

/* The same, but path "-" is the standard output. */
qkv_status qkv_output_open_or_standard(qkv_output *output, const char *path, const char *caller);

/* Flushes, closes and renames over the target: the target is the old file or the whole new one. On
 * QKV_E_IO the temporary file is gone. Either way output is finished. */
qkv_status qkv_output_commit(qkv_output *output, const char *caller);

/* Removes the temporary file; the target stays as it was. Fine on a zeroed or finished output. */
void qkv_output_discard(qkv_output *output);

/* A decimal point is a point until leave, in this thread only, whatever locale the program set. */
locale_t qkv_c_locale_enter(void);
void qkv_c_locale_leave(locale_t previous);

#endif
