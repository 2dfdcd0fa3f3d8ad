/* common.h - what the example programs share: options, errors, progress, output directories.
 *
 * Exit codes: 0 done; 1 something failed (a file, gnuplot, the data); 2 the command line is wrong.
 * Every error is one line on stderr, "program: message". These are programs: unlike the library,
 * the functions here print and exit. */
#ifndef QKV_EXAMPLES_COMMON_H
#define QKV_EXAMPLES_COMMON_H

#include <stdbool.h>
#include <stddef.h>

#include "qkv/npy.h"
#include "qkv/status.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* One long option. A table of them ends with a zeroed entry; --help and --version are added. */
typedef struct command_option {
    const char *name;     /* "output" for --output */
    const char *argument; /* what --help calls its argument, "FILE"; NULL: it takes none */
    const char *help;     /* one sentence, wrapped by command_next */
} command_option;

typedef struct command {
    const char *usage;   /* what may follow the options: "[FILE]"; "" for nothing */
    const char *summary; /* what the program does, in a sentence or two */
    const command_option *options;
} command;

/* For main to begin with: a signal that ends the program (Ctrl-C) takes half-written files with it.
 */
void clean_up_on_signals(void);

/* For programs that train on arrays so small that threads would spend their time waiting for each
 * other, in loops that take the cores from everybody: all is computed by one, and its bits do not
 * depend on how many cores there are. */
void use_one_thread(void);

/* The index in the table of the next option of argv, its argument in getopt's optarg; -1 when there
 * are no more (what is left begins at argv[optind]). Prints and exits for --help and --version, and
 * exits with EXIT_USAGE for what the table does not have. */
int command_next(const command *c, int argc, char **argv);

/* One line on stdout, as printf would print it, with its end. Control characters, and bytes that
 * are not UTF-8, show as \x1b: names come from files, and must not steer the terminal. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* What say prints goes to stderr from now on: stdout is for data. */
void leave_stdout_to_data(void);

/* Prints "program: message", as say does, and exits: with EXIT_USAGE and a hint at --help, with
 * EXIT_FAILED. */
_Noreturn void usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void fail_with(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints "program: warning: message" on stderr, as say does. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Exits through fail_with unless status is QKV_OK, with what qkv_last_error says behind the name of
 * the function. */
void check(qkv_status status);

/* What main returns: EXIT_SUCCESS if all that was printed has arrived; exits through fail_with
 * otherwise (a full disk). */
int finish(void);

/* n zeroed elements of size bytes; exits when there is no memory. */
void *allocate(size_t n, size_t size);

/* The number that text spells, in [lower, upper]; a usage_error naming --option otherwise. */
double number_argument(const char *option, const char *text, double lower, double upper);
long integer_argument(const char *option, const char *text, long lower, long upper);

/* text, which must not be empty; a usage_error naming --option otherwise. */
const char *text_argument(const char *option, const char *text);

/* The same of a path: "-" is refused, for a file of that name would be a surprise. */
const char *path_argument(const char *option, const char *text);

/* "svg", "png" or "pdf", whichever text is; a usage_error naming --option otherwise. */
const char *format_argument(const char *option, const char *text);

/* Do both name one file that is there, or the same that is not? */
bool same_file(const char *a, const char *b);

/* Of the options files[0 .. n), the first read name what is read, the others what is written: a
 * usage_error where given[an option] of these is the file of one before it. NULL: not given; "-" is
 * a stream. */
void expect_different_files(const command_option *options, const char *const *given,
                            const int *files, int read, int n);

/* Makes the directory and its parents (mkdir -p); exits with a message if it cannot, or if no file
 * can be created there. */
void make_directories(const char *path);

/* Exits with a message that begins with option if no file can be created at path (NULL: none is to
 * be). Before long work, which would be lost for want of a directory. */
void expect_creatable(const char *option, const char *path);

/* What printf would print, to be freed. */
char *print_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* "float32", as NumPy calls it, and "float32 [5, 8]", what there is of an array, to be freed. */
const char *type_name(qkv_npy_type of);
char *describe_array(const qkv_npy *a);

/* "directory/name", to be freed. */
char *join_path(const char *directory, const char *name);

/* "directory/program_name.format", to be freed: programs may draw into one directory. */
char *figure_path(const char *directory, const char *program, const char *name, const char *format);

/* Progress on stderr: a bar redrawn in place on a terminal, about ten plain lines otherwise. Zero
 * all but label and total. */
typedef struct progress {
    const char *label;
    long total;
    int shown; /* the last step of the bar that was drawn, plus 1 */
} progress;

/* done of total, with a note beside the bar ("loss 0.0123"). At done = total the line is ended. */
void progress_show(progress *p, long done, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
