#include "common.h"

#include <cblas.h>
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "src/file.h"
#include "src/label.h"

enum { MAX_OPTIONS = 64, HELP_COLUMN = 28, HELP_WIDTH = 80 };

/* Words of text from column on, wrapped and indented to that column. */
static void print_wrapped(const char *text, int column)
{
    int at = column;
    while (*text) {
        int word = (int)strcspn(text, " ");
        if (at > column && at + 1 + word > HELP_WIDTH) {
            printf("\n%*s", column, "");
            at = column;
        }
        if (at > column) at += printf(" ");
        at += printf("%.*s", word, text);
        text += word + (text[word] == ' ');
    }
    putchar('\n');
}

static void print_option(const command_option *o)
{
    int at = printf("  --%s", o->name);
    if (o->argument) at += printf(" %s", o->argument);
    if (at + 2 > HELP_COLUMN) {
        putchar('\n');
        at = 0;
    }
    printf("%*s", HELP_COLUMN - at, "");
    print_wrapped(o->help, HELP_COLUMN);
}

_Noreturn static void print_help(const command *c)
{
    printf("Usage: %s [OPTION]...%s%s\n", program_invocation_short_name, *c->usage ? " " : "",
           c->usage);
    print_wrapped(c->summary, 0);
    putchar('\n');
    for (const command_option *o = c->options; o->name; o++) print_option(o);
    print_option(&(command_option){"help", NULL, "Print this and exit."});
    print_option(&(command_option){"version", NULL, "Print the version of qkv and exit."});
    puts("\nExit status: 0 done, 1 something failed, 2 wrong usage.");
    exit(fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILED);
}

static char unfinished[32]; /* what src/file.c puts into the name of a file until it is whole */

/* Only what POSIX allows in a handler: the half-written files are found among those open. */
static void clean_up(int number)
{
    enum { FILES = 100 };
    char link[] = "/proc/self/fd/00", path[PATH_MAX];
    for (int file = 0; file < FILES; file++) {
        char *digit = link + sizeof link - 3;
        if (file >= 10) *digit++ = (char)('0' + file / 10);
        *digit++ = (char)('0' + file % 10);
        *digit = '\0';
        ssize_t n = readlink(link, path, sizeof path - 1);
        path[n < 0 ? 0 : n] = '\0';
        if (n > 4 && strcmp(path + n - 4, ".tmp") == 0 && strstr(path, unfinished)) unlink(path);
    }
    raise(number); /* ends the program: the handler was for one time */
}

void clean_up_on_signals(void)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
    snprintf(unfinished, sizeof unfinished, ".%ld-", (long)getpid());
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction action;
        if (sigaction(signals[i], NULL, &action) != 0 || action.sa_handler == SIG_IGN) continue;
        action = (struct sigaction){.sa_handler = clean_up, .sa_flags = (int)SA_RESETHAND};
        sigaction(signals[i], &action, NULL);
    }
}

void use_one_thread(void)
{
    openblas_set_num_threads(1);
#ifdef _OPENMP
    omp_set_num_threads(1);
#endif
}

int command_next(const command *c, int argc, char **argv)
{
    enum { HELP = 1000, VERSION, FIRST };
    struct option options[MAX_OPTIONS + 3] = {{"help", no_argument, NULL, HELP},
                                              {"version", no_argument, NULL, VERSION}};
    for (int i = 0; i < MAX_OPTIONS && c->options[i].name; i++) {
        const command_option *o = &c->options[i];
        options[2 + i] = (struct option){o->name, o->argument ? required_argument : no_argument,
                                         NULL, FIRST + i};
    }
    opterr = 0; /* getopt's own messages have argv[0], path and all */
    int found = getopt_long(argc, argv, ":", options, NULL);
    if (found == HELP) print_help(c);
    if (found == VERSION) {
        printf("%s (qkv) %s\n", program_invocation_short_name, qkv_version());
        exit(EXIT_SUCCESS);
    }
    if (found == ':') usage_error("option %s needs an argument", argv[optind - 1]);
    if (found == '?' && optopt >= HELP)
        usage_error("option %s takes no argument", argv[optind - 1]);
    if (found == '?') usage_error("unknown or ambiguous option %s", argv[optind - 1]);
    return found < 0 ? -1 : found - FIRST;
}

static void print_plain(FILE *to, const char *format, va_list arguments)
{
    char *text;
    if (vasprintf(&text, format, arguments) < 0) {
        fputs("out of memory\n", to);
        return;
    }
    for (const char *s = text; *s;) {
        int n = qkv_utf8_length(s);
        bool control = n == 1 ? *s < ' ' || *s == 0x7f
                              : n == 2 && memcmp(s, "\u00a0", 2) < 0; /* U+0080 to U+009F */
        if (n > 0 && !control)
            fwrite(s, 1, (size_t)n, to);
        else /* of two bytes the second is none by itself */
            n = fprintf(to, "\\x%02x", (unsigned char)*s) / 4;
        s += n;
    }
    fputc('\n', to);
    free(text);
}

static bool stdout_is_data;

void leave_stdout_to_data(void)
{
    stdout_is_data = true;
}

void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_plain(stdout_is_data ? stderr : stdout, format, arguments);
    va_end(arguments);
}

static void print_error(const char *format, va_list arguments)
{
    fflush(stdout);
    fprintf(stderr, "%s: ", program_invocation_short_name);
    print_plain(stderr, format, arguments);
}

void complain(const char *format, ...)
{
    fflush(stdout);
    fprintf(stderr, "%s: warning: ", program_invocation_short_name);
    va_list arguments;
    va_start(arguments, format);
    print_plain(stderr, format, arguments);
    va_end(arguments);
}

_Noreturn void usage_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_error(format, arguments);
    va_end(arguments);
    fprintf(stderr, "Try '%s --help'.\n", program_invocation_short_name);
    exit(EXIT_USAGE);
}

_Noreturn void fail_with(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    print_error(format, arguments);
    va_end(arguments);
    exit(EXIT_FAILED);
}

int finish(void)
{
    if (fflush(stdout) || ferror(stdout)) fail_with("cannot write to the standard output");
    return EXIT_SUCCESS;
}

void check(qkv_status status)
{
    if (status == QKV_OK) return;
    const char *message = qkv_last_error(), *colon = strstr(message, ": ");
    fail_with("%s", strncmp(message, "qkv_", 4) == 0 && colon ? colon + 2 : message);
}

void *allocate(size_t n, size_t size)
{
    void *memory = calloc(n ? n : 1, size ? size : 1);
    if (!memory) fail_with("out of memory: %zu times %zu bytes", n, size);
    return memory;
}

double number_argument(const char *option, const char *text, double lower, double upper)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || isnan(value))
        usage_error("--%s: '%s' is not a number", option, text);
    if (value >= lower && value <= upper) return value;
    if (value <= 0 && lower > 0 && upper > 1e300) /* limits that are only those of a double */
        usage_error("--%s: %s is not above 0", option, text);
    usage_error("--%s: %s is not between %.10g and %.10g", option, text, lower, upper);
}

long integer_argument(const char *option, const char *text, long lower, long upper)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (end == text || *end) usage_error("--%s: '%s' is not a whole number", option, text);
    if (!errno && value >= lower && value <= upper) return value;
    if (value < lower && upper >= 1L << 62) /* no limit that anybody would meet */
        usage_error("--%s: %s is less than %ld", option, text, lower);
    usage_error("--%s: %s is not between %ld and %ld", option, text, lower, upper);
}

const char *text_argument(const char *option, const char *text)
{
    if (!*text) usage_error("--%s: the argument or a part of it is empty", option);
    return text;
}

const char *path_argument(const char *option, const char *text)
{
    if (!strcmp(text, "-")) usage_error("--%s: '-' is no stream here: expected a path", option);
    return text_argument(option, text);
}

const char *format_argument(const char *option, const char *text)
{
    static const char *const formats[] = {"svg", "png", "pdf"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(text, formats[i])) return formats[i];
    usage_error("--%s: '%s' is none of svg, png, pdf", option, text);
}

static bool same_node(const struct stat *s, const struct stat *t)
{
    return s->st_dev == t->st_dev && s->st_ino == t->st_ino;
}

/* What path is called in its directory. */
static const char *split_path(const char *path, struct stat *directory)
{
    const char *slash = strrchr(path, '/');
    char *parent = slash ? print_text("%.*s", (int)(slash + 1 - path), path) : print_text(".");
    if (stat(parent, directory) != 0) *directory = (struct stat){0};
    free(parent);
    return slash ? slash + 1 : path;
}

bool same_file(const char *a, const char *b)
{
    struct stat s, t;
    if (!strcmp(a, b)) return true;
    bool there = stat(a, &s) == 0;
    if ((stat(b, &t) == 0) != there) return false;
    if (there) return S_ISREG(s.st_mode) && same_node(&s, &t);
    return !strcmp(split_path(a, &s), split_path(b, &t)) && same_node(&s, &t);
}

void expect_different_files(const command_option *options, const char *const *given,
                            const int *files, int read, int n)
{
    for (int i = read; i < n; i++) {
        const char *path = given[files[i]];
        for (int j = 0; j < i && path && strcmp(path, "-") != 0; j++)
            if (given[files[j]] && same_file(given[files[j]], path))
                usage_error("--%s and --%s are the same file, '%s'", options[files[j]].name,
                            options[files[i]].name, path);
    }
}

void make_directories(const char *path)
{
    char *part = strdup(path);
    if (!part) fail_with("out of memory");
    for (char *end = part; *end;) {
        end += strspn(end, "/");
        end += strcspn(end, "/");
        char after = *end;
        *end = '\0';
        if (mkdir(part, 0777) != 0 && errno != EEXIST)
            fail_with("cannot make the directory %s: %s", part, strerror(errno));
        *end = after;
    }
    struct stat found;
    if (stat(path, &found) != 0 || !S_ISDIR(found.st_mode))
        fail_with("%s is not a directory", path);
    char *file = join_path(path, "file");
    expect_creatable(path, file);
    free(file), free(part);
}

void expect_creatable(const char *option, const char *path)
{
    struct stat found;
    if (!path) return;
    if (stat(path, &found) == 0 && S_ISFIFO(found.st_mode))
        return; /* its reader would see an end */
    qkv_output output;
    check(qkv_output_open(&output, path, option));
    qkv_output_discard(&output);
}

char *print_text(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char *text;
    if (vasprintf(&text, format, arguments) < 0) fail_with("out of memory");
    va_end(arguments);
    return text;
}

const char *type_name(qkv_npy_type of)
{
    static const char *const names[] = {"float32", "float64", "int64",  "bool",
                                        "float16", "int8",    "int16",  "int32",
                                        "uint8",   "uint16",  "uint32", "uint64"};
    return names[of];
}

char *describe_array(const qkv_npy *a)
{
    char *text = print_text("%s [", type_name(a->type));
    for (int i = 0; i < a->rank; i++) {
        char *longer = print_text("%s%s%td", text, i ? ", " : "", a->dim[i]);
        free(text);
        text = longer;
    }
    char *whole = print_text("%s]", text);
    free(text);
    return whole;
}

char *join_path(const char *directory, const char *name)
{
    return print_text("%s/%s", directory, name);
}

char *figure_path(const char *directory, const char *program, const char *name, const char *format)
{
    return print_text("%s/%s_%s.%s", directory, program, name, format);
}

static void draw_bar(const progress *p, double part, const char *note)
{
    enum { WIDTH = 30 };
    static const char full[] = "##############################";
    static const char empty[] = "..............................";
    int filled = (int)lround(part * WIDTH);
    fprintf(stderr, "\r%s [%.*s%.*s] %3.0f%%  %s\033[K", p->label, filled, full, WIDTH - filled,
            empty, floor(100 * part), note);
}

void progress_show(progress *p, long done, const char *format, ...)
{
    bool terminal = isatty(STDERR_FILENO);
    double part = p->total > 0 ? (double)done / (double)p->total : 1;
    int step = 1 + (int)(part * (terminal ? 100 : 10));
    if (step <= p->shown && done < p->total) return;
    p->shown = step;

    char note[128];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(note, sizeof note, format, arguments);
    va_end(arguments);
    fflush(stdout);
    if (!terminal) {
        fprintf(stderr, "%s %ld/%ld  %s\n", p->label, done, p->total, note);
        return;
    }
    draw_bar(p, part, note);
    if (done >= p->total) fputc('\n', stderr);
}
