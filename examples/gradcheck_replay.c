/* gradcheck_replay.c - a failed case as a text file, with every number in it to the bit, so that it
 * can be sent to somebody and run again. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gradcheck.h"
#include "src/file.h"

static const char magic[] = "qkv gradcheck replay 2";

static void write_numbers(FILE *out, const char *what, int input, const double *x, size_t n)
{
    fprintf(out, "%s %d %zu", what, input, n);
    for (size_t i = 0; i < n; i++) fprintf(out, " %a", x[i]);
    fputc('\n', out);
}

static int case_index(int op, const qkv_op_case *test)
{
    return (int)(test - qkv_registry[op].cases);
}

void save_replay(const char *directory, int op, const qkv_op_case *test, const qkv_trial *trial,
                 const qkv_check_report *report)
{
    char *name = print_text("%s.replay", qkv_op_name(op)), *path = join_path(directory, name);
    qkv_output out;
    check(qkv_output_open(&out, path, "--replay-to"));
    fprintf(out.stream, "%s\n# %s: %s\n", magic, qkv_case_name(op, test), report->message);
    fprintf(out.stream, "op %s\ncase %d\nlabel %s\nseed %llu\n", qkv_op_name(op),
            case_index(op, test), qkv_case_name(op, test), (unsigned long long)trial->seed);
    for (int i = 0; i < test->n_input; i++) {
        write_numbers(out.stream, "x", i, trial->x[i], trial->n[i]);
        if (trial->gradient[i])
            write_numbers(out.stream, "gradient", i, trial->gradient[i], trial->n[i]);
    }
    write_numbers(out.stream, "cotangent", 0, trial->cotangent, trial->n_result);
    check(qkv_output_commit(&out, "--replay-to"));
    say("wrote %s", path);
    free(path);
    free(name);
}

/* ---- Reading ---------------------------------------------------------------------------------
 */

typedef struct reader {
    const char *path;
    FILE *file;
    char *line;
    size_t capacity;
    long number;
} reader;

static _Noreturn void bad(const reader *r, const char *expected)
{
    fail_with("%s:%ld: expected %s", r->path, r->number, expected);
}

/* The next line that is no comment; false at the end. */
static bool next(reader *r)
{
    do {
        r->number++;
        if (getline(&r->line, &r->capacity, r->file) < 0) return false;
        r->line[strcspn(r->line, "\r\n")] = 0;
    } while (r->line[0] == '#');
    return true;
}

/* What follows the word on the next line. */
static const char *field(reader *r, const char *word)
{
    size_t n = strlen(word);
    if (!next(r) || strncmp(r->line, word, n) || r->line[n] != ' ') bad(r, word);
    return r->line + n + 1;
}

static unsigned long long integer(reader *r, const char *word, unsigned long long most)
{
    char *end;
    const char *text = field(r, word);
    errno = 0;
    unsigned long long x = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || x > most) bad(r, "an integer in range");
    return x;
}

static double *numbers_of(reader *r, const char *text, int input, size_t n)
{
    char *end;
    double *x = allocate(n, sizeof *x);
    if (strtol(text, &end, 10) != input || strtoul(end, &end, 10) != n)
        bad(r, "as many as there are");
    for (size_t i = 0; i < n; i++) {
        char *from = end;
        x[i] = strtod(from, &end);
        if (end == from) bad(r, "a number");
    }
    if (*end) bad(r, "the end of the line");
    return x;
}

static int find_op(const reader *r, const char *name)
{
    for (int op = 0; op < qkv_op_count(); op++)
        if (!strcmp(qkv_op_name(op), name)) return op;
    fail_with("%s:%ld: there is no operation '%s'", r->path, r->number, name);
}

typedef struct claims {
    double *gradient[QKV_TRIAL_INPUTS];
} claims;

static void take_claims(void *context, const qkv_trial *trial)
{
    const claims *c = context;
    for (int i = 0; i < trial->test->n_input; i++)
        if (trial->gradient[i])
            memcpy(trial->gradient[i], c->gradient[i], trial->n[i] * sizeof(double));
}

static void load_case(reader *r, qkv_trial *trial, claims *c)
{
    for (int i = 0; i < trial->test->n_input; i++) {
        double *x = numbers_of(r, field(r, "x"), i, trial->n[i]);
        for (size_t k = 0; k < trial->n[i]; k++) {
            trial->x[i][k] = x[k];
            trial->x_f32[i][k] = (float)x[k];
        }
        free(x);
        if (trial->gradient[i])
            c->gradient[i] = numbers_of(r, field(r, "gradient"), i, trial->n[i]);
    }
    double *cotangent = numbers_of(r, field(r, "cotangent"), 0, trial->n_result);
    for (size_t k = 0; k < trial->n_result; k++) {
        trial->cotangent[k] = cotangent[k];
        trial->cotangent_f32[k] = (float)cotangent[k];
    }
    free(cotangent);
    if (next(r)) bad(r, "the end of the file");
}

bool replay(const char *path)
{
    reader r = {.path = path, .file = fopen(path, "r")};
    if (!r.file) fail_with("%s: cannot be read", path);
    if (!next(&r) || strcmp(r.line, magic)) bad(&r, magic);
    locale_t locale = qkv_c_locale_enter();
    int op = find_op(&r, field(&r, "op")), cases = 0;
    while (qkv_registry[op].cases[cases].n_input) cases++;
    const qkv_op_case *test = &qkv_registry[op].cases[integer(&r, "case", (unsigned)cases - 1)];
    if (strcmp(field(&r, "label"), qkv_case_name(op, test)))
        bad(&r, qkv_case_name(op, test)); /* of another version */
    qkv_trial trial;
    claims c = {0};
    check(qkv_trial_begin(&trial, test, integer(&r, "seed", UINT64_MAX), 1));
    load_case(&r, &trial, &c);
    qkv_c_locale_leave(locale);
    qkv_check_report report;
    const qkv_corruption claimed = {take_claims, &c};
    say("%s", qkv_case_name(op, test));
    qkv_status then = qkv_gradcheck_trial(&trial, &claimed, &report);
    say("the file's gradient: %s", then ? qkv_last_error() : report.message);
    qkv_status now = qkv_gradcheck_trial(&trial, NULL, &report);
    say("the library's now:   %s", now ? qkv_last_error() : report.message);
    for (int i = 0; i < QKV_TRIAL_INPUTS; i++) free(c.gradient[i]);
    qkv_trial_end(&trial);
    free(r.line);
    fclose(r.file);
    return now == QKV_OK;
}
