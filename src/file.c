#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"

static void finish(qkv_output *output)
{
    if (output->stream) fclose(output->stream);
    free(output->path);
    free(output->temporary);
    *output = (qkv_output){0};
}

/* Not mkstemp: it makes files that only the owner may read, and a figure is for everybody whom the
 * umask allows. */
static int create_unique(qkv_output *output)
{
    static atomic_uint count;
    for (int attempt = 0; attempt < 100; attempt++) {
        char *name;
        if (asprintf(&name, "%s.%ld-%u.tmp", output->path, (long)getpid(),
                     atomic_fetch_add(&count, 1)) < 0)
            return -1;
        int file = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (file >= 0) {
            output->temporary = name;
            return file;
        }
        int error = errno;
        free(name);
        errno = error;
        if (error != EEXIST) return -1;
    }
    return -1;
}

/* A device or a pipe is written to; a file renamed over it would take its place. */
static bool is_special(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && !S_ISREG(info.st_mode);
}

qkv_status qkv_output_open(qkv_output *output, const char *path, const char *caller)
{
    *output = (qkv_output){0};
    if (!path || !*path) return qkv_fail(QKV_E_ARG, "%s: the path is NULL or empty", caller);
    output->path = realpath(path, NULL); /* a link stays a link */
    if (!output->path) output->path = strdup(path);
    if (!output->path) return qkv_fail(QKV_E_NOMEM, "%s: no memory for a file name", caller);
    int file = is_special(path) ? open(path, O_WRONLY | O_CLOEXEC) : create_unique(output);
    if (file >= 0) output->stream = fdopen(file, "wb");
    if (output->stream) return QKV_OK;

    int error = errno;
    if (file >= 0) {
        close(file);
        if (output->temporary) unlink(output->temporary);
    }
    finish(output);
    return qkv_fail(error == ENOMEM ? QKV_E_NOMEM : QKV_E_IO, "%s: cannot create %s: %s", caller,
                    path, strerror(error));
}

qkv_status qkv_output_open_or_standard(qkv_output *output, const char *path, const char *caller)
{
    if (!path || strcmp(path, "-") != 0) return qkv_output_open(output, path, caller);
    *output = (qkv_output){.path = strdup("the standard output")};
    int file = dup(STDOUT_FILENO); /* stdout itself stays open */
    if (file >= 0) output->stream = fdopen(file, "wb");
    if (output->path && output->stream) return QKV_OK;
    int error = errno;
    if (file >= 0 && !output->stream) close(file);
    finish(output);
    return qkv_fail(QKV_E_IO, "%s: cannot write the standard output: %s", caller, strerror(error));
}

qkv_status qkv_output_commit(qkv_output *output, const char *caller)
{
    bool failed = false;
    if (output->stream) {
        failed = ferror(output->stream) != 0;
        if (fclose(output->stream) != 0) failed = true;
        output->stream = NULL;
    }
    if (!failed && (!output->temporary || rename(output->temporary, output->path) == 0)) {
        finish(output);
        return QKV_OK;
    }
    qkv_status status =
        qkv_fail(QKV_E_IO, "%s: cannot write %s: %s", caller, output->path, strerror(errno));
    qkv_output_discard(output);
    return status;
}

void qkv_output_discard(qkv_output *output)
{
    if (output->temporary) unlink(output->temporary);
    finish(output);
}

locale_t qkv_c_locale_enter(void)
{
    return uselocale(newlocale(LC_ALL_MASK, "C", (locale_t)0));
}

void qkv_c_locale_leave(locale_t previous)
{
    freelocale(uselocale(previous));
}
