#include "support.h"

#include <float.h>
#include <inttypes.h>
#include <locale.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "process.h"
#include "qkv/regression.h"

enum { N = 3, D_X = 2, D_Y = 3 };

/* Everything that a model can have; the numbers are the extremes of a double. */
static qkv_regression_model full_model(void)
{
    static const double x[N * D_X] = {0.0, -0.0, DBL_TRUE_MIN, -DBL_MAX, NAN, 0.1};
    static const double y[N * D_Y] = {1, 2.5, -3, DBL_MIN, 1e-310, 1 / 3.0, 1e300, NAN, -NAN};
    static const double weight[N] = {0, 2.25, NAN};
    static double bandwidth[D_X] = {DBL_MIN, 1e160}, sigma2[D_Y] = {0.5, NAN, 1e-300};
    static char *x_names[] = {"speed", ""};
    static char *y_names[] = {"a \"quoted\\\n\t name", "\xc3\xa9t\xc3\xa9 \x01\x7f\xff", "nan 3"};
    return (qkv_regression_model){.r = {.x = x,
                                        .y = y,
                                        .weight = weight,
                                        .n = N,
                                        .d_x = D_X,
                                        .d_y = D_Y,
                                        .bandwidths = D_X,
                                        .kernel = QKV_REGRESSION_TRICUBE,
                                        .product = true,
                                        .open_edge = true,
                                        .degree = 1,
                                        .empty = QKV_EMPTY_NEAREST,
                                        .rows = 1000000},
                                  .bandwidth = bandwidth,
                                  .sigma2 = sigma2,
                                  .x_names = x_names,
                                  .y_names = y_names,
                                  .classes = true};
}

/* As little as a model can have: a zeroed field is its default. */
static qkv_regression_model small_model(void)
{
    static const double x[] = {4, 7}, y[] = {2, NAN};
    static double bandwidth[] = {1.5};
    return (qkv_regression_model){.r = {.x = x, .y = y, .n = 2}, .bandwidth = bandwidth};
}

static const char small_text[] = "qkv regression 1\n"
                                 "kernel gaussian\n"
                                 "product no\n"
                                 "open_edge no\n"
                                 "degree 0\n"
                                 "empty nan\n"
                                 "classes no\n"
                                 "rows 2\n"
                                 "x_columns 1\n"
                                 "y_columns 1\n"
                                 "judged_rows 0\n"
                                 "case_weights no\n"
                                 "bandwidth 1 0x1.8p+0\n"
                                 "sigma2 0\n"
                                 "x_names 0\n"
                                 "y_names 0\n"
                                 "data\n"
                                 "0x1p+2 0x1p+1\n"
                                 "0x1.cp+2 nan\n";

static void assert_numbers(const double *a, const double *b, ptrdiff_t n)
{
    assert_true((a == NULL) == (b == NULL));
    for (ptrdiff_t i = 0; a && i < n; i++)
        if (!(isnan(a[i]) && isnan(b[i]))) assert_memory_equal(&a[i], &b[i], sizeof *a);
}

static void assert_names(char **a, char **b, ptrdiff_t n)
{
    assert_true((a == NULL) == (b == NULL));
    for (ptrdiff_t i = 0; a && i < n; i++) assert_string_equal(a[i], b[i]);
}

/* d_x, d_y and bandwidths of b, which was loaded, are never 0. */
static void assert_equal_models(const qkv_regression_model *a, const qkv_regression_model *b)
{
    const qkv_regression *r = &b->r;
    assert_int_equal(r->n, a->r.n);
    assert_int_equal(r->d_x, a->r.d_x ? a->r.d_x : 1);
    assert_int_equal(r->d_y, a->r.d_y ? a->r.d_y : 1);
    assert_int_equal(r->bandwidths, a->r.bandwidths ? a->r.bandwidths : 1);
    assert_int_equal(r->kernel, a->r.kernel);
    assert_int_equal(r->product, a->r.product);
    assert_int_equal(r->open_edge, a->r.open_edge);
    assert_int_equal(r->degree, a->r.degree);
    assert_int_equal(r->empty, a->r.empty);
    assert_int_equal(r->rows, a->r.rows);
    assert_int_equal(b->classes, a->classes);
    assert_numbers(a->r.x, r->x, r->n * r->d_x);
    assert_numbers(a->r.y, r->y, r->n * r->d_y);
    assert_numbers(a->r.weight, r->weight, r->n);
    assert_numbers(a->bandwidth, b->bandwidth, r->bandwidths);
    assert_numbers(a->sigma2, b->sigma2, r->d_y);
    assert_names(a->x_names, b->x_names, r->d_x);
    assert_names(a->y_names, b->y_names, r->d_y);
}

/* A file is removed before another takes its name: to replace one, some file systems wait for the
 * disk, and there are thousands here. */
static const char *fresh(const char *name)
{
    remove(scratch(name));
    return scratch(name);
}

/* Loads what it saves, and saves that as the same bytes. */
static void check_round_trip(const qkv_regression_model *m)
{
    qkv_regression_model again;
    size_t bytes, bytes_again;
    assert_ok(qkv_regression_save(fresh("a.qkv"), m));
    assert_ok(qkv_regression_load(scratch("a.qkv"), &again));
    assert_equal_models(m, &again);
    assert_ok(qkv_regression_save(fresh("b.qkv"), &again));
    char *first = read_file(scratch("a.qkv"), &bytes);
    char *second = read_file(scratch("b.qkv"), &bytes_again);
    assert_int_equal(bytes, bytes_again);
    assert_memory_equal(first, second, bytes);
    free(first);
    free(second);
    qkv_regression_model_free(&again);
    assert_null(again.r.x);
    assert_null(again.x_names);
    assert_int_equal(scratch_count(".tmp"), 0);
}

static void a_model_is_saved_and_loaded_to_the_bit(void **state)
{
    (void)state;
    qkv_regression_model m = full_model();
    check_round_trip(&m);
    for (int kernel = 0; kernel <= QKV_REGRESSION_CONSTANT; kernel++) {
        m.r.kernel = (qkv_regression_kernel)kernel;
        m.r.empty = (qkv_empty)(kernel % 3);
        m.r.product = kernel & 1;
        m.r.open_edge = kernel & 2;
        m.classes = kernel & 4;
        m.r.degree = kernel & 8 ? 1 : 0;
        m.r.rows = kernel ? PTRDIFF_MAX : 0;
        check_round_trip(&m);
    }
    m.r.bandwidths = 1;
    m.sigma2 = NULL;
    m.x_names = NULL;
    check_round_trip(&m);
    m = small_model();
    check_round_trip(&m);
    enum { MANY = 3000 };
    double *numbers = calloc(MANY, sizeof *numbers);
    assert_non_null(numbers);
    fill_normal(numbers, MANY, 1);
    m.r = (qkv_regression){.x = numbers, .y = numbers, .n = MANY / 3, .d_x = 2, .d_y = 3};
    check_round_trip(&m);
    free(numbers);
    qkv_regression_model_free(NULL);
}

static void predictions_from_a_file_are_equal_to_the_bit(void **state)
{
    (void)state;
    enum { ROWS = 50, QUERIES = 7 };
    double x[2 * ROWS], y[2 * ROWS], weight[ROWS], q[2 * QUERIES], h[] = {0.7, 1.1};
    double mean[2][2 * QUERIES], gradient[2][4 * QUERIES], norm[2][QUERIES];
    fill_normal(x, 2 * ROWS, 5);
    fill_normal(y, 2 * ROWS, 6);
    fill_normal(q, 2 * (size_t)QUERIES, 7);
    for (int i = 0; i < ROWS; i++) weight[i] = uniform(8, (uint64_t)i, 0, 3);
    y[17] = NAN;
    qkv_regression_model m = {
        .r = {.x = x, .y = y, .weight = weight, .n = ROWS, .d_x = 2, .d_y = 2, .bandwidths = 2},
        .bandwidth = h};
    for (int i = 0; i < 8; i++) {
        m.r.degree = i & 1;
        m.r.product = i & 2;
        m.r.kernel = i & 4 ? QKV_REGRESSION_EPANECHNIKOV : QKV_REGRESSION_GAUSSIAN;
        qkv_regression_model loaded;
        assert_ok(qkv_regression_save(fresh("m.qkv"), &m));
        assert_ok(qkv_regression_load(scratch("m.qkv"), &loaded));
        for (int k = 0; k < 2; k++) {
            qkv_regression_results out = {
                .mean = mean[k], .gradient = gradient[k], .norm = norm[k]};
            const qkv_regression_model *from = k ? &loaded : &m;
            assert_ok(qkv_regression_predict(&from->r, from->bandwidth, q, QUERIES, &out));
        }
        assert_memory_equal(mean[0], mean[1], sizeof mean[0]);
        assert_memory_equal(gradient[0], gradient[1], sizeof gradient[0]);
        assert_memory_equal(norm[0], norm[1], sizeof norm[0]);
        qkv_regression_model_free(&loaded);
    }
}

/* The text of the format, with the checksum that another implementation finds. */
static char *with_checksum(const char *text, size_t n, size_t *bytes)
{
    char *file = malloc(n + 64);
    assert_non_null(file);
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < n; i++) {
        hash ^= (unsigned char)text[i];
        hash *= 1099511628211u;
    }
    memcpy(file, text, n);
    *bytes = n + (size_t)sprintf(file + n, "fnv1a64 %016" PRIx64 "\n", hash);
    return file;
}

static void the_text_is_the_documented_one(void **state)
{
    (void)state;
    const qkv_regression_model m = small_model();
    size_t bytes, expected_bytes;
    assert_ok(qkv_regression_save(scratch("small.qkv"), &m));
    char *text = read_file(scratch("small.qkv"), &bytes);
    char *expected = with_checksum(small_text, sizeof small_text - 1, &expected_bytes);
    assert_string_equal(text, expected);
    assert_int_equal(bytes, expected_bytes);
    free(text);
    free(expected);

    const qkv_regression_model full = full_model();
    assert_ok(qkv_regression_save(scratch("full.qkv"), &full));
    text = read_file(scratch("full.qkv"), &bytes);
    assert_non_null(strstr(text, "\nx_names 2 \"speed\" \"\"\n"));
    assert_non_null(strstr(text, "\ny_names 3 \"a \\x22quoted\\x5c\\x0a\\x09 name\" "));
    assert_non_null(strstr(text, "\nbandwidth 2 0x1p-1022 0x1.6c2d42"));
    assert_non_null(strstr(text, "\n0x0p+0 -0x0p+0 0x1p+0 0x1.4p+1 -0x1.8p+1 0x0p+0\n"));
    free(text);
}

static void a_comma_for_a_point_changes_nothing(void **state)
{
    (void)state;
    const locale_t comma = comma_locale();
    if (!comma) skip();
    const locale_t before = uselocale(comma);
    const qkv_regression_model full = full_model(), small = small_model();
    size_t bytes;
    check_round_trip(&full);
    assert_ok(qkv_regression_save(scratch("small.qkv"), &small));
    uselocale(before);
    freelocale(comma);
    char *text = read_file(scratch("small.qkv"), &bytes);
    assert_memory_equal(text, small_text, sizeof small_text - 1);
    free(text);
}

/* ---- Malformed files --------------------------------------------------------------------------
 */

static void assert_refused(const char *text, size_t bytes, const char *message)
{
    qkv_regression_model m;
    memset(&m, 1, sizeof m);
    write_file(fresh("in.qkv"), text, bytes);
    assert_status(qkv_regression_load(scratch("in.qkv"), &m), QKV_E_FORMAT);
    assert_message("in.qkv, line ");
    assert_message(message);
    assert_null(m.r.x);
    assert_null(m.bandwidth);
    assert_null(m.y_names);
    assert_int_equal(m.r.n, 0);
}

/* That text is refused although its checksum is right. */
static void assert_text_refused(const char *text, size_t n, const char *message)
{
    size_t bytes;
    char *file = with_checksum(text, n, &bytes);
    assert_refused(file, bytes, message);
    free(file);
}

/* The small text with `to` in the place of the first `from`. */
static void assert_edit_refused(const char *from, const char *to, const char *message)
{
    char text[1024];
    const char *at = strstr(small_text, from);
    assert_non_null(at);
    int n = snprintf(text, sizeof text, "%.*s%s%s", (int)(at - small_text), small_text, to,
                     at + strlen(from));
    assert_text_refused(text, (size_t)n, message);
}

static void every_byte_changed_and_every_truncation_is_refused(void **state)
{
    (void)state;
    qkv_regression_model m = full_model();
    size_t bytes;
    assert_ok(qkv_regression_save(scratch("full.qkv"), &m));
    char *text = read_file(scratch("full.qkv"), &bytes);
    for (size_t i = 0; i < bytes; i++) {
        const char kept = text[i];
        const char changes[] = {(char)(kept ^ 1), (char)(kept ^ 32), (char)~kept, 0};
        for (size_t k = 0; k < sizeof changes; k++) {
            text[i] = changes[k];
            assert_refused(text, bytes, "expected ");
        }
        text[i] = kept;
        assert_refused(text, i, "expected ");
    }
    free(text);
}

/* Bytes swapped, dropped, doubled and replaced, with a checksum that fits: whatever the parser
 * accepts is a model that can be saved, and nothing else happens. */
static void a_changed_file_with_its_checksum_does_no_harm(void **state)
{
    (void)state;
    qkv_regression_model m = full_model(), loaded;
    size_t bytes, n;
    assert_ok(qkv_regression_save(scratch("full.qkv"), &m));
    char *text = read_file(scratch("full.qkv"), &bytes);
    bytes -= strlen(strstr(text, "fnv1a64 "));
    static const char replacements[] = "\n \"\\0179afnxp-+.\x80";
    int accepted = 0;
    for (uint64_t i = 0; i < 6 * bytes; i++) {
        char copy[2048];
        size_t at = i / 6, length = bytes;
        memcpy(copy, text, bytes);
        if (i % 6 == 0) memmove(copy + at, copy + at + 1, --length - at);
        if (i % 6 == 1) memmove(copy + at + 1, copy + at, length++ - at);
        if (i % 6 > 1)
            copy[at] = replacements[(size_t)uniform(3, i, 0, sizeof replacements)]; /* NUL too */
        char *file = with_checksum(copy, length, &n);
        write_file(fresh("in.qkv"), file, n);
        free(file);
        qkv_status status = qkv_regression_load(scratch("in.qkv"), &loaded);
        if (status == QKV_OK)
            accepted++, check_round_trip(&loaded);
        else
            assert_status(status, QKV_E_FORMAT);
        qkv_regression_model_free(&loaded);
    }
    assert_in_range(accepted, 100, 3 * bytes); /* changed digits and names are other models */
    free(text);
}

static void what_is_no_model_is_refused_by_line(void **state)
{
    (void)state;
    assert_refused("", 0, "line 1, column 1: expected \"qkv regression\": this is no model");
    assert_refused("speed,dist\n", 11, "line 1");
    assert_refused(small_text, sizeof small_text - 1, "the file is cut short");
    assert_edit_refused("regression 1", "regression 2",
                        "line 1, column 16: expected version 1 of the format, found '2'");
    assert_edit_refused("regression 1", "regression 10", "expected version 1");
    assert_edit_refused("regression 1", "regression 1 ", "expected version 1");
    assert_edit_refused("kernel gaussian", "kernel gaussiam", "line 2, column 8");
    assert_edit_refused("kernel gaussian", "kernel", "line 2");
    assert_edit_refused("product no", "product maybe", "line 3, column 9");
    assert_edit_refused("product no\n", "", "line 3, column 1: expected product");
    assert_edit_refused("degree 0", "degree 2", "line 5");
    assert_edit_refused("empty nan", "empty 0", "line 6");
    assert_edit_refused("rows 2", "rows 02", "line 8, column 6");
    assert_edit_refused("rows 2", "rows -2", "a number, 0 or more, found '-2'");
    assert_edit_refused("rows 2", "rows ", "a number, 0 or more");
    assert_edit_refused("rows 2", "rows 2 ", "the end of the line, found ' '");
    assert_edit_refused("rows 2", "rows 0", "line 8, column 7: expected 1 or more");
    assert_edit_refused("rows 2", "rows 1", "line 19, column 1: expected the checksum");
    assert_edit_refused("rows 2", "rows 3", "line 20, column 1: expected a hexadecimal number");
    assert_edit_refused("rows 2", "rows 5", "as many rows as the header says");
    assert_edit_refused("bandwidth 1 0x1.8p+0", "bandwidth 2 0x1p+0 0x1p+0",
                        "as many numbers as columns");
    assert_edit_refused("0x1.8p+0", "0x0p+0", "positive bandwidths");
    assert_edit_refused("0x1.8p+0", "0x1p-1074", "positive bandwidths");
    assert_edit_refused("0x1.8p+0", "nan", "positive bandwidths");
    assert_edit_refused("1 0x1.8p+0", "0", "positive bandwidths");
    assert_edit_refused("sigma2 0", "sigma2 1", "line 14, column 9: expected a space");
    assert_edit_refused("x_names 0", "x_names 2 \"a\" \"b\"", "as many names as columns");
    assert_edit_refused("x_names 0", "x_names 1 a", "a name in quotes");
    assert_edit_refused("x_names 0", "x_names 1 \"a", "the closing quote");
    assert_edit_refused("x_names 0", "x_names 1 \"\\x00\"", "a byte of a name");
    assert_edit_refused("x_names 0", "x_names 1 \"\\x41\"", "a byte of a name");
    assert_edit_refused("x_names 0", "x_names 1 \"\\x0A\"", "a byte of a name");
    assert_edit_refused("0x1p+2", "4.0", "line 18, column 1: expected a hexadecimal number");
    assert_edit_refused("0x1p+2", "0x", "a hexadecimal number");
    assert_edit_refused("0x1p+2", "inf", "a hexadecimal number");
    assert_edit_refused("0x1p+2", "0x1p+1024", "a hexadecimal number");
    assert_edit_refused("0x1p+2", " 0x1p+2", "a hexadecimal number");
    assert_edit_refused("0x1p+2", "0x1p+2,", "column 7: expected a space and another number");
    assert_edit_refused("0x1.cp+2 nan\n", "0x1.cp+2 nan", "line 19, column 13");
    assert_edit_refused("0x1.cp+2 nan\n", "0x1.cp+2 nan\n\n", "the checksum: no more rows");
    assert_edit_refused("case_weights no", "case_weights yes", "a space and another number");
    assert_text_refused("qkv regression 1\nkernel ga\0ssian\n", 34, "line 2");
}

static void what_follows_the_checksum_is_refused(void **state)
{
    (void)state;
    static const char *const garbage[] = {"\n", " ", "x", "qkv regression 1\n"};
    for (size_t i = 0; i < sizeof garbage / sizeof *garbage; i++) {
        size_t bytes;
        char *file = with_checksum(small_text, sizeof small_text - 1, &bytes);
        strcpy(file + bytes, garbage[i]);
        assert_refused(file, bytes + strlen(garbage[i]), "or something was added");
        assert_refused(file, bytes + 1 + strlen(garbage[i]), "or something was added");
        free(file);
    }
}

/* Refused as a size, not for want of memory: nothing was allocated by it. */
static void sizes_that_the_file_cannot_have_allocate_nothing(void **state)
{
    (void)state;
    static const char *const sizes[] = {"1000000000000000000", "9223372036854775807",
                                        "9223372036854775808", "99999999999999999999999", "4000"};
    static const char *const keys[] = {"rows 2", "x_columns 1", "y_columns 1", "bandwidth 1",
                                       "x_names 0"};
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            char to[64];
            snprintf(to, sizeof to, "%.*s %s", (int)strcspn(keys[k], " "), keys[k], sizes[i]);
            assert_edit_refused(keys[k], to, "expected no more than the file has");
        }
    assert_edit_refused("x_columns 1\ny_columns 1", "x_columns 20\ny_columns 20", "as many rows");
}

/* ---- What is refused before a file is ----------------------------------------------------------
 */

static void assert_not_saved(qkv_regression_model m, qkv_status status, const char *message)
{
    assert_status(qkv_regression_save(scratch("no.qkv"), &m), status);
    assert_message(message);
    assert_int_equal(scratch_count("no.qkv"), 0);
}

static void a_model_that_predicts_nothing_is_not_saved(void **state)
{
    (void)state;
    double bad[] = {1, INFINITY}, zero = 0, negative[] = {1, -1};
    char *names[] = {NULL};
    const qkv_regression_model good = small_model();
    qkv_regression_model m = good;
    assert_status(qkv_regression_save(scratch("no.qkv"), NULL), QKV_E_ARG);
    assert_status(qkv_regression_save(NULL, &good), QKV_E_ARG);
    m.r.x = NULL, assert_not_saved(m, QKV_E_ARG, "x is NULL"), m = good;
    m.r.y = NULL, assert_not_saved(m, QKV_E_ARG, "y is NULL"), m = good;
    m.bandwidth = NULL, assert_not_saved(m, QKV_E_ARG, "bandwidth is NULL"), m = good;
    m.r.x = bad, assert_not_saved(m, QKV_E_ARG, "x[1][0] is inf"), m = good;
    m.r.y = bad, assert_not_saved(m, QKV_E_ARG, "y[1][0] is inf"), m = good;
    m.r.weight = negative, assert_not_saved(m, QKV_E_ARG, "weight[1][0] is -1"), m = good;
    m.bandwidth = &zero, assert_not_saved(m, QKV_E_ARG, "bandwidth[0][0] is 0"), m = good;
    m.sigma2 = bad + 1, assert_not_saved(m, QKV_E_ARG, "sigma2[0][0] is inf"), m = good;
    m.x_names = names, assert_not_saved(m, QKV_E_ARG, "x_names[0] is NULL"), m = good;
    m.y_names = names, assert_not_saved(m, QKV_E_ARG, "y_names[0] is NULL"), m = good;
    m.r.kernel = (qkv_regression_kernel)77, assert_not_saved(m, QKV_E_ARG, "77"), m = good;
    m.r.empty = (qkv_empty)3, assert_not_saved(m, QKV_E_ARG, "3 is no policy"), m = good;
    m.r.n = 0, assert_not_saved(m, QKV_E_SHAPE, "n >= 1"), m = good;
    m.r.d_x = -1, assert_not_saved(m, QKV_E_SHAPE, "others >= 0"), m = good;
    m.r.bandwidths = 2, assert_not_saved(m, QKV_E_SHAPE, "bandwidths is 2"), m = good;
    m.r.degree = 2, assert_not_saved(m, QKV_E_SHAPE, "degree is 2"), m = good;
    m.r.rows = -1, assert_not_saved(m, QKV_E_SHAPE, "rows is -1"), m = good;
    m.r.n = PTRDIFF_MAX, assert_not_saved(m, QKV_E_OVERFLOW, "overflow"), m = good;
    m.r.d_y = PTRDIFF_MAX, assert_not_saved(m, QKV_E_OVERFLOW, "overflow"), m = good;
}

static void files_that_cannot_be_read_or_written_say_why(void **state)
{
    (void)state;
    qkv_regression_model m = small_model(), loaded;
    assert_status(qkv_regression_save(scratch("no/such/folder"), &m), QKV_E_IO);
    assert_message("no/such/folder");
    assert_status(qkv_regression_load(scratch("absent.qkv"), &loaded), QKV_E_IO);
    assert_message("absent.qkv");
    assert_null(loaded.bandwidth);
    assert_status(qkv_regression_load("/dev/zero", &loaded), QKV_E_IO);
    assert_message("not a regular file");
    assert_status(qkv_regression_load(NULL, &loaded), QKV_E_ARG);
    assert_status(qkv_regression_load(scratch("absent.qkv"), NULL), QKV_E_ARG);
    if (access("/dev/full", W_OK) == 0)
        assert_status(qkv_regression_save("/dev/full", &m), QKV_E_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_is_saved_and_loaded_to_the_bit),
        cmocka_unit_test(predictions_from_a_file_are_equal_to_the_bit),
        cmocka_unit_test(the_text_is_the_documented_one),
        cmocka_unit_test(a_comma_for_a_point_changes_nothing),
        cmocka_unit_test(every_byte_changed_and_every_truncation_is_refused),
        cmocka_unit_test(a_changed_file_with_its_checksum_does_no_harm),
        cmocka_unit_test(what_is_no_model_is_refused_by_line),
        cmocka_unit_test(what_follows_the_checksum_is_refused),
        cmocka_unit_test(sizes_that_the_file_cannot_have_allocate_nothing),
        cmocka_unit_test(a_model_that_predicts_nothing_is_not_saved),
        cmocka_unit_test(files_that_cannot_be_read_or_written_say_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
