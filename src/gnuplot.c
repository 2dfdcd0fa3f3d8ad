#include "gnuplot.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fail.h"
#include "label.h"

extern char **environ;

/* ---- Text ------------------------------------------------------------------------------------ */

/* Single quotes, where nothing is special: gnuplot runs `commands` that it finds in double quotes.
 * What single quotes cannot hold stands outside: the quote itself (doubling it fails at the start
 * of a string) and the newline, which would end the command. */
static void quote(FILE *script, const char *text, bool double_percent)
{
    fputc('\'', script);
    for (const char *s = text; *s;) {
        int n = qkv_utf8_length(s);
        if (*s == '\n')
            fputs("'.\"\\n\".'", script);
        else if (*s == '\'')
            fputs("'.\"\\047\".'", script);
        else if (*s == '%' && double_percent)
            fputs("%%", script);
        else if (*s == '\t')
            fputc(' ', script);
        else if (n == 0 || (n == 1 && (*s < 0x20 || *s == 0x7f)))
            fputc('?', script);
        else
            fwrite(s, 1, (size_t)n, script);
        s += n ? n : 1;
    }
    fputc('\'', script);
}

void qkv_gnuplot_quote(FILE *script, const char *text)
{
    quote(script, text, false);
}

void qkv_gnuplot_quote_tic(FILE *script, const char *text)
{
    quote(script, text, true);
}

/* ---- The process ----------------------------------------------------------------------------- */

/* The child's descriptors 0, 1, .. are files; by way of higher ones, as files may be among them. */
static void add_files(posix_spawn_file_actions_t *actions, const int files[4])
{
    int above = 4;
    for (int i = 0; i < 4; i++)
        if (files[i] >= above) above = files[i] + 1;
    for (int i = 0; i < 4; i++) posix_spawn_file_actions_adddup2(actions, files[i], above + i);
    for (int i = 0; i < 4; i++) {
        posix_spawn_file_actions_adddup2(actions, above + i, i);
        posix_spawn_file_actions_addclose(actions, above + i);
    }
}

static int spawn(const char *program, const int files[4], pid_t *child)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int error = posix_spawn_file_actions_init(&actions);
    if (error) return error;
    error = posix_spawnattr_init(&attributes);
    if (!error) {
        sigset_t none, defaults;
        sigemptyset(&none);
        sigemptyset(&defaults);
        sigaddset(&defaults, SIGPIPE);
        posix_spawnattr_setsigmask(&attributes, &none);
        posix_spawnattr_setsigdefault(&attributes, &defaults);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        add_files(&actions, files);
        /* -d: not the user's ~/.gnuplot, which could draw anything. */
        char *argv[] = {(char *)program, "-d", NULL};
        error = posix_spawnp(child, program, &actions, &attributes, argv, environ);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

/* A reader that is gone shows in its exit status. */
static void send_all(int socket, const char *text)
{
    for (size_t length = strlen(text); length > 0;) {
        ssize_t n = send(socket, text, length, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return;
        text += n;
        length -= (size_t)n;
    }
}

/* What the program complained about, on one line. */
static void read_complaint(int err, char *text, size_t capacity)
{
    ssize_t n = pread(err, text, capacity - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    char *to = text;
    for (const char *from = text; *from; from++) {
        bool space = strchr(" \n\t^", *from) != NULL;
        if (!space) *to++ = *from;
        if (space && to > text && to[-1] != ' ') *to++ = ' ';
    }
    *to = '\0';
}

static qkv_status judge(const char *program, pid_t child, int out, int err, const char *caller)
{
    int state = 0;
    pid_t ended;
    do ended = waitpid(child, &state, 0);
    while (ended < 0 && errno == EINTR);
    char complaint[300];
    read_complaint(err, complaint, sizeof complaint);
    if (ended == child && WIFSIGNALED(state))
        return qkv_fail(QKV_E_PROCESS, "%s: %s was ended by signal %d: %s", caller, program,
                        WTERMSIG(state), complaint);
    if (ended == child && WEXITSTATUS(state) == 127 && !*complaint) /* as POSIX lets spawn fail */
        return qkv_fail(QKV_E_PROCESS, "%s: %s: could not be started", caller, program);
    if (ended == child && WEXITSTATUS(state) != 0)
        return qkv_fail(QKV_E_PROCESS, "%s: %s failed with exit code %d: %s", caller, program,
                        WEXITSTATUS(state), complaint);
    struct stat info;
    if (fstat(out, &info) != 0 || (S_ISREG(info.st_mode) && info.st_size == 0))
        return qkv_fail(QKV_E_PROCESS, "%s: %s drew nothing: %s", caller, program, complaint);
    return QKV_OK;
}

qkv_status qkv_gnuplot_run(const char *script, int data, int out, const char *caller)
{
    const char *program = getenv("QKV_GNUPLOT");
    if (!program || !*program) program = "gnuplot";

    /* A socket pair is a pipe that can be written without risking SIGPIPE; a file for stderr needs
     * no second reader, so nobody can block anybody. */
    int pipe[2], err = memfd_create("gnuplot-stderr", MFD_CLOEXEC);
    if (err < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pipe) != 0) {
        qkv_status status =
            qkv_fail(QKV_E_PROCESS, "%s: no pipe to gnuplot: %s", caller, strerror(errno));
        if (err >= 0) close(err);
        return status;
    }
    pid_t child;
    int error = spawn(program, (int[]){pipe[0], out, err, data}, &child);
    close(pipe[0]);
    if (!error) {
        send_all(pipe[1], "data = \"'/dev/fd/3'\"\n");
        send_all(pipe[1], script);
    }
    close(pipe[1]);
    qkv_status status =
        error ? qkv_fail(QKV_E_PROCESS, "%s: cannot start %s: %s (is gnuplot installed?)", caller,
                         program, strerror(error))
              : judge(program, child, out, err, caller);
    close(err);
    return status;
}
