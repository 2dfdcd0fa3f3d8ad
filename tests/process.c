#include "process.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

extern char **environ;

static char directory[] = "/tmp/qkv-test-XXXXXX";
static bool made;

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *at)
{
    (void)info, (void)type, (void)at;
    return remove(path);
}

static void remove_scratch(void)
{
    nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

const char *scratch(const char *name)
{
    enum { KEPT = 64 };
    static char *kept[KEPT]; /* reachable to the end, so that no leak is seen */
    static size_t n;
    if (!made) {
        assert_non_null(mkdtemp(directory));
        atexit(remove_scratch);
        made = true;
    }
    char *path;
    assert_true(asprintf(&path, "%s/%s", directory, name) >= 0);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(kept[i], path) != 0) continue;
        free(path);
        return kept[i];
    }
    assert_true(n < KEPT);
    return kept[n++] = path;
}

int scratch_count(const char *text)
{
    int n = 0;
    DIR *d = opendir(directory);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.' && strstr(e->d_name, text);
    closedir(d);
    return n;
}

void write_file(const char *path, const void *content, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(content, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

static char *read_descriptor(int file, size_t *bytes)
{
    off_t end = lseek(file, 0, SEEK_END);
    assert_true(end >= 0);
    char *content = malloc((size_t)end + 1);
    assert_non_null(content);
    assert_int_equal(pread(file, content, (size_t)end, 0), end);
    content[end] = '\0';
    close(file);
    if (bytes) *bytes = (size_t)end;
    return content;
}

char *read_file(const char *path, size_t *bytes)
{
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) print_error("cannot read %s\n", path);
    assert_true(file >= 0);
    return read_descriptor(file, bytes);
}

ran run(const char *const *argv, const char *input)
{
    int file[3];
    for (int i = 0; i < 3; i++) {
        file[i] = memfd_create("qkv-test", MFD_CLOEXEC);
        assert_true(file[i] >= 0);
    }
    if (input) assert_int_equal(pwrite(file[0], input, strlen(input), 0), strlen(input));
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    for (int i = 0; i < 3; i++) posix_spawn_file_actions_adddup2(&files, file[i], i);
    pid_t child;
    int state = 127 << 8;
    if (posix_spawnp(&child, argv[0], &files, NULL, (char *const *)argv, environ) == 0)
        assert_int_equal(waitpid(child, &state, 0), child);
    posix_spawn_file_actions_destroy(&files);
    close(file[0]);
    return (ran){WIFSIGNALED(state) ? 128 + WTERMSIG(state) : WEXITSTATUS(state),
                 read_descriptor(file[1], NULL), read_descriptor(file[2], NULL)};
}

void ran_free(ran *r)
{
    free(r->out);
    free(r->err);
}

const char *text_after(const char *text, const char *label)
{
    const char *at = strstr(text, label);
    if (!at) fail_msg("'%s' is not in: %s", label, text);
    return at + strlen(label);
}

void numbers_after(const char *text, const char *label, double *x, int n)
{
    const char *at = text_after(text, label);
    for (int i = 0; i < n; i++) {
        char *end;
        x[i] = strtod(at, &end);
        if (end == at) fail_msg("no number %d after '%s' in: %s", i + 1, label, text);
        at = *end == ' ' && end[1] == '%' ? end + 2 : end;
    }
}

double number_after(const char *text, const char *label)
{
    double x;
    numbers_after(text, label, &x, 1);
    return x;
}

/* glibc's newlocale leaks its copy of LOCPATH; that is not ours to fix. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void)
{
    return "leak:argz_add_sep\n";
}

locale_t comma_locale(void)
{
    static const char *const names[] = {"de_DE.UTF-8", "fr_FR.UTF-8", "es_ES.UTF-8"};
    locale_t found = (locale_t)0;
    for (size_t i = 0; !found && i < sizeof names / sizeof *names; i++)
        found = newlocale(LC_ALL_MASK, names[i], (locale_t)0);
    if (found) return found;
    const char *made_here = scratch("comma");
    const char *argv[] = {"localedef", "-i", "de_DE", "-f", "UTF-8", made_here, NULL};
    ran r = run(argv, NULL);
    ran_free(&r);
    setenv("LOCPATH", directory, 1);
    found = newlocale(LC_ALL_MASK, "comma", (locale_t)0);
    unsetenv("LOCPATH");
    return found;
}
