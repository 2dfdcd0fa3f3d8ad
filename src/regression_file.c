/* regression_file.c - a regression model as a text file:
 *
 *     qkv regression 1                    the format's version
 *     kernel gaussian                     a name of qkv_regression_kernel_name
 *     product no                          yes or no
 *     open_edge no
 *     degree 0                            0 or 1
 *     empty nan                           nan, nearest or error
 *     classes no
 *     rows 2                              n
 *     x_columns 1                         d_x
 *     y_columns 1                         d_y
 *     judged_rows 0                       rows of qkv_regression: 0, or at most so many
 *     case_weights no                     yes: they are the last number of each row
 *     bandwidth 1 0x1.8p+0                how many there are, and each
 *     sigma2 0                            0, or d_y and each
 *     x_names 1 "speed"                   0, or d_x and each
 *     y_names 0                           0, or d_y and each
 *     data
 *     0x1p+2 0x1p+1                       a row: its x, its y, its case weight
 *     nan -0x1.4p+3
 *     fnv1a64 0123456789abcdef            the checksum
 *
 * These lines in this order, with a line feed after each and one space between words. A number is a
 * hexadecimal constant of C, so that it is the same to the bit after reading, or nan. In names the
 * bytes " and \ and those below space are written \xHH; all others stand for themselves. The
 * checksum is the 64-bit FNV-1a hash (Fowler, Noll & Vo) of all bytes before its line. A change in
 * any of this is a new version. */
#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fail.h"
#include "file.h"
#include "regression.h"
#include "size.h"

static const char first_line[] = "qkv regression ";
static const char version[] = "1\n";
static const char *const no_yes[] = {"no", "yes"};
static const char *const degrees[] = {"0", "1"};
static const char *const policies[] = {"nan", "nearest", "error"};
enum {
    KERNELS = QKV_REGRESSION_CONSTANT + 1,
    CHECKSUM = sizeof "fnv1a64 0123456789abcdef\n" - 1,
    MIN_NUMBER = sizeof "nan " - 1, /* bytes of the shortest number and of the shortest name */
    MIN_NAME = sizeof "\"\" " - 1
};

static uint64_t fnv1a(uint64_t hash, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3;
    return hash;
}

static const uint64_t fnv1a_start = 0xcbf29ce484222325;

/* ---- Saving ---------------------------------------------------------------------------------- */

static bool valid_number(double x)
{
    return !isinf(x);
}

static bool valid_bandwidth(double x)
{
    return x >= DBL_MIN && isfinite(x);
}

static bool valid_weight(double x)
{
    return isnan(x) || (x >= 0 && isfinite(x));
}

/* All of n numbers are valid; names the first that is not. columns: how many make a row. */
static qkv_status check_numbers(const char *what, const double *x, ptrdiff_t n, ptrdiff_t columns,
                                bool (*valid)(double), const char *expected)
{
    for (ptrdiff_t i = 0; x && i < n; i++)
        if (!valid(x[i]))
            return qkv_fail(QKV_E_ARG, "qkv_regression_save: %s[%td][%td] is %g, expected %s", what,
                            i / columns, i % columns, x[i], expected);
    return QKV_OK;
}

/* So that no product of sizes below overflows. */
static qkv_status check_sizes(const qkv_regression *r)
{
    size_t numbers = sizeof(double);
    if (qkv_size_mul(&numbers, r->n) && r->d_x < PTRDIFF_MAX - r->d_y - 2 &&
        qkv_size_mul(&numbers, r->d_x + r->d_y + 2))
        return QKV_OK;
    return qkv_fail(QKV_E_OVERFLOW, "qkv_regression_save: the sizes overflow");
}

static qkv_status check_model(const qkv_regression_model *m)
{
    if (!m) return qkv_fail(QKV_E_ARG, "qkv_regression_save: model is NULL");
    const qkv_regression *r = &m->r;
    qkv_status status = qkv_regression_check("qkv_regression_save", r);
    if (!status) status = check_sizes(r);
    if (status) return status;
    if (!m->bandwidth) return qkv_fail(QKV_E_ARG, "qkv_regression_save: bandwidth is NULL");
    ptrdiff_t d_x = qkv_one_if_zero(r->d_x), d_y = qkv_one_if_zero(r->d_y);
    const char *const finite = "a finite number or NaN";
    status = check_numbers("x", r->x, r->n * d_x, d_x, valid_number, finite);
    if (!status) status = check_numbers("y", r->y, r->n * d_y, d_y, valid_number, finite);
    if (!status)
        status = check_numbers("weight", r->weight, r->n, 1, valid_weight,
                               "a finite number >= 0 or NaN");
    if (!status)
        status = check_numbers("bandwidth", m->bandwidth, qkv_one_if_zero(r->bandwidths), 1,
                               valid_bandwidth, "a finite number >= DBL_MIN");
    if (!status) status = check_numbers("sigma2", m->sigma2, d_y, 1, valid_number, finite);
    for (ptrdiff_t c = 0; !status && c < d_x + d_y; c++) {
        char **names = c < d_x ? m->x_names : m->y_names;
        if (names && !names[c < d_x ? c : c - d_x])
            status = qkv_fail(QKV_E_ARG, "qkv_regression_save: %s_names[%td] is NULL",
                              c < d_x ? "x" : "y", c < d_x ? c : c - d_x);
    }
    return status;
}

typedef struct writer {
    FILE *stream;
    uint64_t hash;
} writer;

static void put_bytes(writer *w, const char *text, size_t n)
{
    w->hash = fnv1a(w->hash, text, n);
    fwrite(text, 1, n, w->stream);
}

static void put(writer *w, const char *text)
{
    put_bytes(w, text, strlen(text));
}

static void put_choice(writer *w, const char *key, const char *name)
{
    put(w, key);
    put(w, " ");
    put(w, name);
    put(w, "\n");
}

static void put_count(writer *w, const char *key, ptrdiff_t n)
{
    char text[40];
    snprintf(text, sizeof text, "%s %td", key, n);
    put(w, text);
}

/* The sign of a NaN means nothing, and is written by some C libraries only. */
static void put_number(writer *w, double x)
{
    char text[40];
    int n = isnan(x) ? snprintf(text, sizeof text, "nan") : snprintf(text, sizeof text, "%a", x);
    put_bytes(w, text, (size_t)n);
}

static void put_numbers(writer *w, const char *key, const double *x, ptrdiff_t n)
{
    put_count(w, key, x ? n : 0);
    for (ptrdiff_t i = 0; x && i < n; i++) {
        put(w, " ");
        put_number(w, x[i]);
    }
    put(w, "\n");
}

static bool is_plain(unsigned char byte)
{
    return byte >= ' ' && byte != '"' && byte != '\\';
}

static void put_name(writer *w, const char *name)
{
    put(w, "\"");
    for (; *name; name++) {
        char hex[8];
        if (is_plain((unsigned char)*name)) {
            put_bytes(w, name, 1);
        } else {
            snprintf(hex, sizeof hex, "\\x%02x", (unsigned)(unsigned char)*name);
            put(w, hex);
        }
    }
    put(w, "\"");
}

static void put_names(writer *w, const char *key, char **names, ptrdiff_t n)
{
    put_count(w, key, names ? n : 0);
    for (ptrdiff_t i = 0; names && i < n; i++) {
        put(w, " ");
        put_name(w, names[i]);
    }
    put(w, "\n");
}

static void put_header(writer *w, const qkv_regression_model *m)
{
    const qkv_regression *r = &m->r;
    ptrdiff_t d_x = qkv_one_if_zero(r->d_x), d_y = qkv_one_if_zero(r->d_y);
    put(w, first_line);
    put(w, version);
    put_choice(w, "kernel", qkv_regression_kernel_name(r->kernel));
    put_choice(w, "product", no_yes[r->product]);
    put_choice(w, "open_edge", no_yes[r->open_edge]);
    put_choice(w, "degree", degrees[r->degree]);
    put_choice(w, "empty", policies[r->empty]);
    put_choice(w, "classes", no_yes[m->classes]);
    put_count(w, "rows", r->n);
    put_count(w, "\nx_columns", d_x);
    put_count(w, "\ny_columns", d_y);
    put_count(w, "\njudged_rows", r->rows);
    put(w, "\n");
    put_choice(w, "case_weights", no_yes[r->weight != NULL]);
    put_numbers(w, "bandwidth", m->bandwidth, qkv_one_if_zero(r->bandwidths));
    put_numbers(w, "sigma2", m->sigma2, d_y);
    put_names(w, "x_names", m->x_names, d_x);
    put_names(w, "y_names", m->y_names, d_y);
}

static void put_rows(writer *w, const qkv_regression *r)
{
    ptrdiff_t d_x = qkv_one_if_zero(r->d_x), d_y = qkv_one_if_zero(r->d_y);
    for (ptrdiff_t i = 0; i < r->n; i++) {
        for (ptrdiff_t c = 0; c < d_x + d_y; c++) {
            if (c > 0) put_bytes(w, " ", 1);
            put_number(w, c < d_x ? r->x[i * d_x + c] : r->y[i * d_y + c - d_x]);
        }
        if (r->weight) {
            put_bytes(w, " ", 1);
            put_number(w, r->weight[i]);
        }
        put_bytes(w, "\n", 1);
    }
}

qkv_status qkv_regression_save(const char *path, const qkv_regression_model *model)
{
    qkv_output output;
    qkv_status status = check_model(model);
    if (!status) status = qkv_output_open(&output, path, __func__);
    if (status) return status;
    writer w = {output.stream, fnv1a_start};
    locale_t locale = qkv_c_locale_enter();
    put_header(&w, model);
    put(&w, "data\n");
    put_rows(&w, &model->r);
    fprintf(output.stream, "fnv1a64 %016" PRIx64 "\n", w.hash);
    qkv_c_locale_leave(locale);
    return qkv_output_commit(&output, __func__);
}

/* ---- Loading --------------------------------------------------------------------------------- */

/* The file's text, which is terminated, and where in it reading is. */
typedef struct cursor {
    const char *path, *text;
    size_t at, length; /* up to the checksum's line */
} cursor;

static qkv_status malformed(const cursor *c, const char *expected)
{
    size_t line = 1, start = 0, n = 0;
    for (size_t i = 0; i < c->at; i++)
        if (c->text[i] == '\n') line++, start = i + 1;
    while (n < 24 && is_plain((unsigned char)c->text[c->at + n])) n++;
    return qkv_fail(QKV_E_FORMAT,
                    "qkv_regression_load: %s, line %zu, column %zu: expected %s, found '%.*s'%s",
                    c->path, line, c->at - start + 1, expected, (int)n, c->text + c->at,
                    n ? "" : " (the end of the line or a byte that does not belong here)");
}

static bool accept(cursor *c, const char *text)
{
    size_t n = strlen(text);
    if (strncmp(c->text + c->at, text, n) != 0) return false;
    c->at += n;
    return true;
}

static qkv_status expect(cursor *c, const char *text, const char *shown)
{
    return accept(c, text) ? QKV_OK : malformed(c, shown);
}

static qkv_status expect_key(cursor *c, const char *key)
{
    return accept(c, key) && accept(c, " ") ? QKV_OK : malformed(c, key);
}

/* "key name\n"; *choice is which of n names. */
static qkv_status read_choice(cursor *c, const char *key, const char *const *names, int n,
                              int *choice)
{
    qkv_status status = expect_key(c, key);
    if (status) return status;
    size_t word = strcspn(c->text + c->at, "\n");
    for (*choice = 0; *choice < n; ++*choice) {
        const char *name = names[*choice];
        if (word != strlen(name) || memcmp(c->text + c->at, name, word) != 0) continue;
        c->at += word;
        return expect(c, "\n", "the end of the line");
    }
    return malformed(c, "another value of this line");
}

static qkv_status read_flag(cursor *c, const char *key, bool *flag)
{
    int choice = 0;
    qkv_status status = read_choice(c, key, no_yes, 2, &choice);
    *flag = choice == 1;
    return status;
}

/* "key n", n <= most. */
static qkv_status read_count(cursor *c, const char *key, ptrdiff_t most, ptrdiff_t *n)
{
    qkv_status status = expect_key(c, key);
    if (status) return status;
    size_t start = c->at;
    bool fits = true;
    for (*n = 0; c->text[c->at] >= '0' && c->text[c->at] <= '9'; c->at++)
        fits = fits && !__builtin_mul_overflow(*n, 10, n) &&
               !__builtin_add_overflow(*n, c->text[c->at] - '0', n);
    bool canonical = c->at == start + 1 || (c->at > start && c->text[start] != '0');
    if (fits && canonical && *n <= most) return QKV_OK;
    c->at = start;
    return malformed(c, canonical ? "no more than the file has" : "a number, 0 or more");
}

/* How many things of so many bytes the rest of the file can hold. */
static ptrdiff_t room(const cursor *c, size_t bytes)
{
    return c->at < c->length ? (ptrdiff_t)((c->length - c->at) / bytes) : 0;
}

static qkv_status read_number(cursor *c, double *x)
{
    const char *start = c->text + c->at, *digits = start + (*start == '-');
    if (accept(c, "nan")) {
        *x = NAN;
        return QKV_OK;
    }
    char *end;
    *x = strtod(start, &end); /* of "0x" alone it takes the 0 */
    if (strncmp(digits, "0x", 2) != 0 || end < digits + 3 || !isfinite(*x))
        return malformed(c, "a hexadecimal number or nan");
    c->at += (size_t)(end - start);
    return QKV_OK;
}

static qkv_status no_memory(void)
{
    return qkv_fail(QKV_E_NOMEM, "qkv_regression_load: no memory for the file's content");
}

/* "key n x..\n"; n is 0, with *x = NULL then, or a or b. */
static qkv_status read_numbers(cursor *c, const char *key, ptrdiff_t a, ptrdiff_t b, double **x,
                               ptrdiff_t *n)
{
    qkv_status status = read_count(c, key, room(c, MIN_NUMBER), n);
    if (status) return status;
    if (*n != 0 && *n != a && *n != b) return malformed(c, "as many numbers as columns");
    if (*n > 0) {
        *x = calloc((size_t)*n, sizeof **x);
        if (!*x) return no_memory();
    }
    for (ptrdiff_t i = 0; !status && i < *n; i++) {
        status = expect(c, " ", "a space");
        if (!status) status = read_number(c, &(*x)[i]);
    }
    return status ? status : expect(c, "\n", "the end of the line");
}

static int hex_digit(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *found = c ? strchr(digits, c) : NULL;
    return found ? (int)(found - digits) : -1;
}

/* One byte of a name, as put_name writes it; -1 if it is none. */
static int read_byte(cursor *c)
{
    unsigned char byte = (unsigned char)c->text[c->at];
    if (is_plain(byte)) return c->at++, byte;
    if (!accept(c, "\\x")) return -1;
    int high = hex_digit(c->text[c->at]), low = high < 0 ? -1 : hex_digit(c->text[c->at + 1]);
    int value = 16 * high + low;
    if (low < 0 || value == 0 || is_plain((unsigned char)value)) return -1;
    c->at += 2;
    return value;
}

static qkv_status read_name(cursor *c, char **name)
{
    if (!accept(c, " \"")) return malformed(c, "a space and a name in quotes");
    size_t most = strcspn(c->text + c->at, "\"\n"), n = 0;
    *name = malloc(most + 1);
    if (!*name) return no_memory();
    while (c->text[c->at] != '"') {
        int byte = read_byte(c);
        if (byte < 0) {
            (*name)[n] = 0;
            return malformed(c, "a byte of a name, \\xHH or the closing quote");
        }
        (*name)[n++] = (char)byte;
    }
    (*name)[n] = 0;
    return accept(c, "\"") ? QKV_OK : malformed(c, "a closing quote");
}

static qkv_status read_names(cursor *c, const char *key, ptrdiff_t columns, char ***names)
{
    ptrdiff_t n;
    qkv_status status = read_count(c, key, room(c, MIN_NAME), &n);
    if (status) return status;
    if (n != 0 && n != columns) return malformed(c, "as many names as columns");
    if (n > 0) {
        *names = calloc((size_t)n, sizeof **names);
        if (!*names) return no_memory();
    }
    for (ptrdiff_t i = 0; !status && i < n; i++) status = read_name(c, &(*names)[i]);
    return status ? status : expect(c, "\n", "the end of the line");
}

static qkv_status read_choices(cursor *c, qkv_regression_model *m)
{
    const char *kernels[KERNELS];
    for (int k = 0; k < KERNELS; k++)
        kernels[k] = qkv_regression_kernel_name((qkv_regression_kernel)k);
    int kernel = 0, empty = 0;
    qkv_status status = read_choice(c, "kernel", kernels, KERNELS, &kernel);
    if (!status) status = read_flag(c, "product", &m->r.product);
    if (!status) status = read_flag(c, "open_edge", &m->r.open_edge);
    if (!status) status = read_choice(c, "degree", degrees, 2, &m->r.degree);
    if (!status) status = read_choice(c, "empty", policies, 3, &empty);
    if (!status) status = read_flag(c, "classes", &m->classes);
    m->r.kernel = (qkv_regression_kernel)kernel;
    m->r.empty = (qkv_empty)empty;
    return status;
}

/* A row takes a line, and every column of it at least one number: no size is larger than the file.
 */
static qkv_status read_sizes(cursor *c, qkv_regression_model *m, bool *weights)
{
    ptrdiff_t *const size[] = {&m->r.n, &m->r.d_x, &m->r.d_y, &m->r.rows};
    static const char *const keys[] = {"rows", "x_columns", "y_columns", "judged_rows"};
    for (int i = 0; i < 4; i++) {
        const bool judged = i == 3;
        const ptrdiff_t most = judged ? PTRDIFF_MAX : room(c, MIN_NUMBER);
        qkv_status status = read_count(c, keys[i], most, size[i]);
        if (!status && !judged && *size[i] < 1) status = malformed(c, "1 or more");
        if (!status) status = expect(c, "\n", "the end of the line");
        if (status) return status;
    }
    return read_flag(c, "case_weights", weights);
}

static qkv_status read_header(cursor *c, qkv_regression_model *m, bool *weights)
{
    ptrdiff_t known;
    qkv_status status = read_choices(c, m);
    if (!status) status = read_sizes(c, m, weights);
    if (!status)
        status = read_numbers(c, "bandwidth", 1, m->r.d_x, &m->bandwidth, &m->r.bandwidths);
    for (ptrdiff_t i = 0; !status && i < qkv_one_if_zero(m->r.bandwidths); i++)
        if (!m->bandwidth || !valid_bandwidth(m->bandwidth[i]))
            status = malformed(c, "positive bandwidths in the line before");
    if (!status) status = read_numbers(c, "sigma2", m->r.d_y, m->r.d_y, &m->sigma2, &known);
    if (!status) status = read_names(c, "x_names", m->r.d_x, &m->x_names);
    if (!status) status = read_names(c, "y_names", m->r.d_y, &m->y_names);
    return status ? status : expect(c, "data\n", "data");
}

/* n numbers at to, with a space before each but the first of a line. */
static qkv_status read_part(cursor *c, double *to, ptrdiff_t n, bool first)
{
    for (ptrdiff_t i = 0; i < n; i++, first = false) {
        if (!first && !accept(c, " ")) return malformed(c, "a space and another number");
        qkv_status status = read_number(c, &to[i]);
        if (status) return status;
    }
    return QKV_OK;
}

static qkv_status read_rows(cursor *c, qkv_regression *r, bool weights)
{
    const size_t columns = (size_t)r->d_x + (size_t)r->d_y + weights;
    if (columns > (size_t)room(c, MIN_NUMBER) || r->n > room(c, MIN_NUMBER * columns))
        return malformed(c, "as many rows as the header says: the file is too short for them");
    double *x = calloc((size_t)r->n * (size_t)r->d_x, sizeof *x);
    double *y = calloc((size_t)r->n * (size_t)r->d_y, sizeof *y);
    double *weight = weights ? calloc((size_t)r->n, sizeof *weight) : NULL;
    r->x = x, r->y = y, r->weight = weight;
    if (!x || !y || (weights && !weight)) return no_memory();
    for (ptrdiff_t i = 0; i < r->n; i++) {
        qkv_status status = read_part(c, x + i * r->d_x, r->d_x, true);
        if (!status) status = read_part(c, y + i * r->d_y, r->d_y, false);
        if (!status && weights) status = read_part(c, &weight[i], 1, false);
        if (!status && weights && !valid_weight(weight[i]))
            status = malformed(c, "a case weight >= 0 before this");
        if (!status) status = expect(c, "\n", "the end of the line");
        if (status) return status;
    }
    return c->at == c->length ? QKV_OK : malformed(c, "the checksum: no more rows");
}

/* Leaves c behind the first line, its length without the last one. */
static qkv_status check_frame(cursor *c)
{
    if (!accept(c, first_line)) return malformed(c, "\"qkv regression\": this is no model of qkv");
    if (!accept(c, version)) return malformed(c, "version 1 of the format");
    char last[CHECKSUM + 1];
    const size_t whole = c->length, start = c->at;
    c->length = whole < start + CHECKSUM ? start : whole - CHECKSUM;
    uint64_t hash = fnv1a(fnv1a_start, c->text, c->length);
    snprintf(last, sizeof last, "fnv1a64 %016" PRIx64 "\n", hash);
    if (whole == c->length + CHECKSUM && memcmp(c->text + c->length, last, CHECKSUM) == 0)
        return QKV_OK;
    c->at = c->length;
    bool is_line = accept(c, "fnv1a64 ");
    c->at = c->length;
    return malformed(c, is_line ? "another checksum: the file was changed or damaged"
                                : "the checksum's line and nothing after it: the file is cut "
                                  "short, or something was added");
}

static qkv_status read_model(cursor *c, qkv_regression_model *m)
{
    bool weights = false;
    qkv_status status = check_frame(c);
    locale_t locale = qkv_c_locale_enter();
    if (!status) status = read_header(c, m, &weights);
    if (!status) status = read_rows(c, &m->r, weights);
    qkv_c_locale_leave(locale);
    return status;
}

/* The whole of a regular file, terminated, to be freed. */
static qkv_status read_text(const char *path, char **text, size_t *length)
{
    FILE *file = fopen(path, "rbe");
    struct stat info;
    if (!file || fstat(fileno(file), &info) != 0 || !S_ISREG(info.st_mode)) {
        const char *reason = file ? "not a regular file" : strerror(errno);
        if (file) fclose(file);
        return qkv_fail(QKV_E_IO, "qkv_regression_load: cannot read %s: %s", path, reason);
    }
    qkv_status status = QKV_OK;
    *length = (size_t)info.st_size;
    *text = malloc(*length + 1);
    if (!*text) {
        status = no_memory();
    } else if (fread(*text, 1, *length, file) != *length) {
        status = qkv_fail(QKV_E_IO, "qkv_regression_load: cannot read %s: %s", path,
                          ferror(file) ? strerror(errno) : "it became shorter");
    } else {
        (*text)[*length] = 0;
    }
    fclose(file);
    return status;
}

qkv_status qkv_regression_load(const char *path, qkv_regression_model *model)
{
    if (!model) return qkv_fail(QKV_E_ARG, "%s: model is NULL", __func__);
    *model = (qkv_regression_model){0};
    if (!path) return qkv_fail(QKV_E_ARG, "%s: path is NULL", __func__);
    char *text = NULL;
    cursor c = {.path = path};
    qkv_status status = read_text(path, &text, &c.length);
    c.text = text;
    if (!status) status = read_model(&c, model);
    free(text);
    if (status) qkv_regression_model_free(model);
    return status;
}

static void free_names(char **names, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; names && i < n; i++) free(names[i]);
    free(names);
}

/* The arrays of a model that was loaded are its own, whatever the types of r say. */
void qkv_regression_model_free(qkv_regression_model *model)
{
    if (!model) return;
    free((double *)model->r.x);
    free((double *)model->r.y);
    free((double *)model->r.weight);
    free(model->bandwidth);
    free(model->sigma2);
    free_names(model->x_names, qkv_one_if_zero(model->r.d_x));
    free_names(model->y_names, qkv_one_if_zero(model->r.d_y));
    *model = (qkv_regression_model){0};
}
