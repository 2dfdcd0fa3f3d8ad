#include "support.h"

#include <fcntl.h>
#include <locale.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "process.h"
#include "src/csv.h"

static qkv_status load(qkv_table *t, const char *text, size_t bytes, const char *a, const char *b)
{
    write_file(scratch("in.csv"), text, bytes);
    const char *columns[] = {a, b};
    return qkv_csv_load(t, scratch("in.csv"), columns, b ? 2 : a ? 1 : 0);
}

static void assert_table(const char *text, const char *a, const char *b, const double *expected,
                         size_t rows, size_t columns)
{
    qkv_table t;
    assert_ok(load(&t, text, strlen(text), a, b));
    assert_int_equal(t.rows, rows);
    assert_int_equal(t.columns, columns);
    for (size_t i = 0; i < rows * columns; i++) assert_close(t.data[i], expected[i], 0);
    qkv_csv_free(&t);
}

static void assert_refused(const char *text, size_t bytes, const char *column, const char *message)
{
    qkv_table t;
    assert_status(load(&t, text, bytes, column, NULL), QKV_E_FORMAT);
    assert_message(message);
    assert_message("in.csv");
    assert_null(t.data);
    assert_null(t.names);
}

static void columns_are_found_by_name_and_by_number(void **state)
{
    (void)state;
    const char *text = "name,x,y\nfirst,1,10\nsecond,2,20\n";
    assert_table(text, "y", "x", (double[]){10, 1, 20, 2}, 2, 2);
    assert_table(text, "3", "2", (double[]){10, 1, 20, 2}, 2, 2);
    assert_table("1,2\n3,4\n", "2", NULL, (double[]){2, 4}, 2, 1);
    assert_table("1,2\n3,4", NULL, NULL, (double[]){1, 2, 3, 4}, 2, 2);
    qkv_table t;
    assert_ok(load(&t, text, strlen(text), "3", NULL));
    assert_string_equal(t.names[0], "y");
    qkv_csv_free(&t);
    assert_ok(load(&t, "1,2\n", 4, "2", NULL));
    assert_string_equal(t.names[0], "column 2"); /* "2" in a header would be read as a number */
    qkv_csv_free(&t);
    assert_ok(load(&t, "x,,x\n1,2,3\n", 11, "2", "3"));
    assert_string_equal(t.names[0], "column 2");
    assert_string_equal(t.names[1], "x");
    qkv_csv_free(&t);
}

static void every_common_dialect_reads_the_same(void **state)
{
    (void)state;
    const double expected[] = {1.5, -2, 3e5, 4};
    static const char *const texts[] = {
        "x,y\n1.5,-2\n3e5,4\n",           "x,y\r\n1.5,-2\r\n3e5,4\r\n",
        "x;y\n1.5;-2\n3e5;4\n",           "x\ty\n1.5\t-2\n3e5\t4",
        "\xef\xbb\xbfx,y\n1.5,-2\n3e5,4", "\"x\",\"y\"\n\"1.5\",-2\n\"3e5\",\"4\"\n",
        "x , y\n 1.5 , -2\n\n+3e5,4 \n",  "1.5,-2\n3e5,4\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_table(texts[i], NULL, NULL, expected, 2, 2);
    assert_table("\xef\xbb\xbfx,y\n1,2\n", "x", NULL, (double[]){1}, 1, 1);
    assert_table("\"x, \"\"y\"\"; or\nz\",y\n1,2\n", "x, \"y\"; or\nz", NULL, (double[]){1}, 1, 1);
}

/* Rounding, which ends in 0 for the smallest; what is beyond the largest is refused. */
static void a_number_is_the_nearest_double(void **state)
{
    (void)state;
    assert_table(
        "x\n1e-400\n-1e-400\n3e-324\n2.2250738585072011e-308\n0.1\n1.7976931348623157e308\n", NULL,
        NULL, (double[]){0, 0, 5e-324, 2.2250738585072011e-308, 0.1, 1.7976931348623157e308}, 6, 1);
    assert_refused("x\n-1e309\n", 9, NULL, "'-1e309' is beyond the range of a double");
}

/* What has no end of line: a device, a binary file, a quote that nobody closed. */
static void a_row_without_end_is_refused(void **state)
{
    (void)state;
    enum { BYTES = 17 << 20 };
    qkv_table t;
    assert_status(qkv_csv_load(&t, "/dev/zero", NULL, 0), QKV_E_FORMAT);
    assert_message("/dev/zero, line 1, column 1: a NUL byte");
    char *text = malloc(BYTES);
    memset(text, 'x', BYTES);
    memcpy(text, "x\n1\n", 4);
    assert_refused(text, BYTES, NULL, "line 3: the row has more than 16 MiB");
    for (int i = 100; i < BYTES; i += 100) text[i] = '\n';
    text[4] = '"';
    assert_refused(text, BYTES, NULL, "line 3: the row has more than 16 MiB");
    memset(text, '1', BYTES); /* many rows are no long row */
    for (int i = 1; i < BYTES; i += 100) text[i] = '\n';
    text[0] = 'x';
    assert_ok(load(&t, text, BYTES, NULL, NULL));
    assert_int_equal(t.rows, (BYTES - 2) / 100 + 1);
    qkv_csv_free(&t);
    free(text);
}

static void many_columns_are_listed_as_far_as_there_is_room(void **state)
{
    (void)state;
    char text[1000] = "first";
    for (int i = 0; i < 90; i++) strcat(text, ",column");
    assert_refused(text, strlen(text), "x", "no column 'x': expected 'first', 'column', 'column'");
    const char *message = qkv_last_error(), *end = strstr(message, "'column', ...");
    assert_non_null(end);
    assert_string_equal(end, "'column', ...");
    assert_refused("a,b\n", 4, "x", "expected 'a', 'b'");
    assert_null(strstr(qkv_last_error(), "..."));
}

static void rows_with_missing_cells_are_dropped_and_counted(void **state)
{
    (void)state;
    const char *text = "x,y,note\n1,2,NA\nNA,3,a\n4,,b\nnan,5,\n6,NaN,c\n7,8,\n";
    assert_table(text, "x", "y", (double[]){1, 2, 7, 8}, 2, 2);
    qkv_table t;
    assert_ok(load(&t, text, strlen(text), "x", "y"));
    assert_int_equal(t.dropped, 4);
    qkv_csv_free(&t);
    assert_ok(load(&t, text, strlen(text), "x", NULL));
    assert_int_equal(t.dropped, 2);
    qkv_csv_free(&t);
}

static void malformed_files_are_refused_with_line_and_column(void **state)
{
    (void)state;
    static const struct {
        const char *text, *column, *message;
    } cases[] = {{"", NULL, "line 1, column 1: expected a complete row, found an empty file"},
                 {"x,y\n", NULL, "line 2, column 1: expected a complete row, found only a header"},
                 {"x\nNA\n", NULL, "only incomplete ones"},
                 {"x,y\n1,2\n3\n", NULL, "line 3, column 2: fields in the row: 1, in the first: 2"},
                 {"x,y\n1,2,3\n", NULL, "line 2, column 3"},
                 {"x,y\n1,2\n\n\n3,four\n", NULL, "line 5, column 2 (y): 'four' is not a number"},
                 {"x,y\r\n1,2\r\n3,four\r\n", NULL, "line 3, column 2 (y)"},
                 {"x,\"y\nz\"\n1,2\n3,four\n", NULL, "line 4, column 2"},
                 {"x\n1e999\n", NULL, "beyond the range of a double"},
                 {"x\ninf\n", NULL, "'inf' is not a number"},
                 {"x\n0x10\n", NULL, "'0x10' is not a number"},
                 {"x\n1 2\n", NULL, "'1 2' is not a number"},
                 {"x\n1,5\n", NULL, "line 2"},
                 {"x;y\n1,5;2\n", NULL, "'1,5' is not a number; a decimal point is '.'"},
                 {"x,y\n1,2\n", "z", "line 1: no column 'z': expected 'x', 'y'"},
                 {"x,y\n1,2\n", "3", "no column '3'"},
                 {"y,x,x\n1,2,3\n", "x", "line 1: columns 2 and 3 are both 'x'"},
                 {"x,y\n1,2\n", "0", "no column '0'"},
                 {"1,2\n", "x", "no column 'x': expected 1 to 2 (the file has no header)"},
                 {"1\n", "2", "no column '2': expected 1 (the file has no header)"},
                 {"x,y\n1,\"2\n", NULL, "line 2, column 2: a misplaced or unclosed quote"},
                 {"x,y\n1,2\"3\n", NULL, "line 2"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(cases[i].text, strlen(cases[i].text), cases[i].column, cases[i].message);
    assert_refused("x,y\n1,\0002\n", 9, NULL, "line 2, column 2: a NUL byte");
    assert_refused("x,y\n\"1,2\",\0002\n", 13, NULL, "line 2, column 2: a NUL byte");
    qkv_table t;
    const char *twice = "x,y\n1,2\n";
    assert_status(load(&t, twice, strlen(twice), "y", "2"), QKV_E_FORMAT);
    assert_message("in.csv, line 1, column 2 (y): asked for twice, as 'y' and as '2'");
    assert_status(qkv_csv_load(&t, scratch("absent.csv"), NULL, 0), QKV_E_IO);
    assert_message("absent.csv");
    assert_status(qkv_csv_load(&t, NULL, NULL, 0), QKV_E_ARG);
}

static qkv_status read_text(qkv_table *t, const char *text, qkv_csv_options o)
{
    write_file(scratch("in.csv"), text, strlen(text));
    return qkv_csv_read(t, scratch("in.csv"), &o);
}

static void labels_are_numbered_as_they_come(void **state)
{
    (void)state;
    const char *columns[] = {"kind", "x"};
    const bool text[] = {true, false};
    const qkv_csv_options o = {.columns = columns, .n = 2, .text = text};
    qkv_table t;
    assert_ok(read_text(&t, "x,kind\n1,b\n2,\"a, c\"\n3,NA\n4,\n5, b \n6,7\n", o));
    const double expected[] = {0, 1, 1, 2, 0, 5, 2, 6};
    assert_int_equal(t.rows, 4);
    assert_int_equal(t.dropped, 2);
    for (int i = 0; i < 8; i++) assert_close(t.data[i], expected[i], 0);
    assert_int_equal(t.levels[0].n, 3);
    assert_int_equal(t.levels[1].n, 0);
    static const char *const names[] = {"b", "a, c", "7"};
    for (int i = 0; i < 3; i++) assert_string_equal(t.levels[0].names[i], names[i]);
    qkv_csv_free(&t);
    assert_status(read_text(&t, "x,kind\nb,b\n", o), QKV_E_FORMAT);
    assert_message("line 2, column 1 (x): 'b' is not a number");

    char many[8000] = "kind,x\n";
    for (int i = 0; i < 1001; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), "%d,1\n", i);
    assert_status(read_text(&t, many, o), QKV_E_FORMAT);
    assert_message("line 1002, column 1 (kind): more than 1000 different labels");
    assert_null(t.levels);
}

/* After those asked for: what has a number, or nothing, in the first row. */
static void other_columns_of_numbers_follow(void **state)
{
    (void)state;
    const char *columns[] = {"c"};
    qkv_csv_options o = {.columns = columns, .n = 1, .others = true};
    qkv_table t;
    assert_ok(read_text(&t, "\"\",a,note,b,c,d\n\"1\",1,x,2,3,\n\"2\",4,5,6,7,8\n", o));
    assert_int_equal(t.columns, 4);
    static const char *const names[] = {"c", "a", "b", "d"};
    for (int i = 0; i < 4; i++) assert_string_equal(t.names[i], names[i]);
    assert_int_equal(t.rows, 1);
    for (int i = 0; i < 4; i++) assert_close(t.data[i], ((double[]){7, 4, 6, 8})[i], 0);
    qkv_csv_free(&t);
    o.n = 0;
    assert_ok(read_text(&t, "1,x,2\n", o));
    assert_int_equal(t.columns, 2);
    assert_string_equal(t.names[1], "column 3");
    qkv_csv_free(&t);
    o.text = (const bool[]){false};
    assert_ok(read_text(&t, "a,b\n1,2\n", o));
    assert_int_equal(t.levels[1].n, 0);
    qkv_csv_free(&t);
    assert_status(read_text(&t, "a,b\n1,2\n3,x\n", o), QKV_E_FORMAT);
    assert_message("line 3, column 2 (b): 'x' is not a number");
    assert_status(read_text(&t, "a,b\n", o), QKV_E_FORMAT);
    assert_message("found only a header");
}

static void rows_with_missing_cells_stay_if_asked_to(void **state)
{
    (void)state;
    const qkv_csv_options o = {.keep_missing = true};
    qkv_table t;
    assert_ok(read_text(&t, "a,b\n1,NA\n2,3\n,nan\n", o));
    assert_int_equal(t.rows, 3);
    assert_int_equal(t.dropped, 2);
    for (int i = 0; i < 6; i++) assert_close(t.data[i], ((double[]){1, NAN, 2, 3, NAN, NAN})[i], 0);
    qkv_csv_free(&t);
    assert_ok(read_text(&t, "a\nNA\n", o));
    assert_int_equal(t.rows, 1);
    qkv_csv_free(&t);
    assert_status(read_text(&t, "a\n", o), QKV_E_FORMAT);
    assert_status(qkv_csv_read(NULL, "-", NULL), QKV_E_ARG);
}

static void labels_are_written_by_their_names(void **state)
{
    (void)state;
    const double x[] = {1, 2, 3}, kind[] = {1, 0, NAN};
    const qkv_csv_column columns[] = {{"x", x, NULL},
                                      {"kind", kind, (const char *const[]){"a, b", "c"}}};
    assert_ok(qkv_csv_write(scratch("labels.csv"), columns, 2, 3));
    char *text = read_file(scratch("labels.csv"), NULL);
    assert_string_equal(text, "x,kind\n1,c\n2,\"a, b\"\n3,NA\n");
    free(text);
    assert_status(qkv_csv_write(scratch("labels.csv"), columns, 0, 3), QKV_E_ARG);
}

static void what_is_written_reads_back_to_the_bit(void **state)
{
    (void)state;
    const double a[] = {0.1, 1.0 / 3, -0x1p-1074, 1.7976931348623157e308, NAN};
    const double b[] = {1, 2, 3, 4, 5};
    const double *columns[] = {a, b};
    const char *path = scratch("out.csv"), *names[] = {"a, \"quoted\"", "b"};
    assert_ok(qkv_csv_save(path, names, columns, 2, 5));
    qkv_table t;
    assert_ok(qkv_csv_load(&t, path, NULL, 0));
    assert_int_equal(t.rows, 4);
    assert_int_equal(t.dropped, 1);
    for (size_t i = 0; i < 4; i++) assert_memory_equal(&t.data[2 * i], &a[i], sizeof *a);
    assert_string_equal(t.names[0], names[0]);
    qkv_csv_free(&t);
    char *text = read_file(path, NULL);
    assert_non_null(strstr(text, "\n0.1,1\n"));
    assert_non_null(strstr(text, "\nNA,5\n"));
    free(text);
    assert_int_equal(scratch_count(".tmp"), 0);
}

static void a_file_that_cannot_be_written_leaves_nothing(void **state)
{
    (void)state;
    const double a[] = {1};
    const double *columns[] = {a};
    const char *names[] = {"a"};
    assert_status(qkv_csv_save(scratch("no/such/directory.csv"), names, columns, 1, 1), QKV_E_IO);
    assert_status(qkv_csv_save("", names, columns, 1, 1), QKV_E_ARG);
    assert_status(qkv_csv_save(scratch("out.csv"), names, columns, 0, 1), QKV_E_ARG);
    assert_status(qkv_csv_save(scratch("."), names, columns, 1, 1), QKV_E_IO);
    assert_message("Is a directory");
    assert_int_equal(scratch_count("directory"), 0);
}

static void a_full_disk_leaves_the_old_file(void **state)
{
    (void)state;
    const double a[] = {1};
    const double *columns[] = {a};
    const char *path = scratch("full.csv"), *names[] = {"a"};
    assert_ok(qkv_csv_save(path, names, columns, 1, 1));
    struct rlimit before, none;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    names[0] = "b";
    qkv_status status = qkv_csv_save(path, names, columns, 1, 1);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, SIG_DFL);
    assert_status(status, QKV_E_IO);
    assert_message("full.csv: File too large");
    char *text = read_file(path, NULL);
    assert_string_equal(text, "a\n1\n");
    free(text);
    assert_int_equal(scratch_count(".tmp"), 0);
}

static void a_pipe_and_a_link_stay_what_they_are(void **state)
{
    (void)state;
    const double a[] = {1};
    const double *columns[] = {a};
    const char *names[] = {"a"}, *pipe = scratch("pipe"), *link = scratch("link.csv");
    assert_int_equal(mkfifo(pipe, 0600), 0);
    int reader = open(pipe, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    assert_true(reader >= 0);
    assert_ok(qkv_csv_save(pipe, names, columns, 1, 1));
    char text[8] = {0};
    assert_int_equal(read(reader, text, sizeof text - 1), 4);
    assert_string_equal(text, "a\n1\n");
    close(reader);

    write_file(scratch("target.csv"), "", 0);
    assert_int_equal(symlink(scratch("target.csv"), link), 0);
    assert_ok(qkv_csv_save(link, names, columns, 1, 1));
    size_t bytes;
    free(read_file(scratch("target.csv"), &bytes));
    assert_int_equal(bytes, 4);
    struct stat info;
    assert_int_equal(lstat(link, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
}

static void a_comma_decimal_locale_changes_nothing(void **state)
{
    (void)state;
    locale_t comma = comma_locale();
    if (!comma) skip();
    locale_t previous = uselocale(comma);
    bool commas = strtod("1,5", NULL) == 1.5;
    const double a[] = {2.5};
    const double *columns[] = {a};
    assert_ok(qkv_csv_save(scratch("locale.csv"), (const char *[]){"a"}, columns, 1, 1));
    qkv_table t;
    assert_ok(qkv_csv_load(&t, scratch("locale.csv"), NULL, 0));
    assert_close(t.data[0], 2.5, 0);
    qkv_csv_free(&t);
    bool still = strtod("1,5", NULL) == 1.5;
    uselocale(previous);
    freelocale(comma);
    assert_true(commas && still);
    char *text = read_file(scratch("locale.csv"), NULL);
    assert_string_equal(text, "a\n2.5\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_found_by_name_and_by_number),
        cmocka_unit_test(every_common_dialect_reads_the_same),
        cmocka_unit_test(a_number_is_the_nearest_double),
        cmocka_unit_test(a_row_without_end_is_refused),
        cmocka_unit_test(many_columns_are_listed_as_far_as_there_is_room),
        cmocka_unit_test(rows_with_missing_cells_are_dropped_and_counted),
        cmocka_unit_test(malformed_files_are_refused_with_line_and_column),
        cmocka_unit_test(labels_are_numbered_as_they_come),
        cmocka_unit_test(other_columns_of_numbers_follow),
        cmocka_unit_test(rows_with_missing_cells_stay_if_asked_to),
        cmocka_unit_test(labels_are_written_by_their_names),
        cmocka_unit_test(what_is_written_reads_back_to_the_bit),
        cmocka_unit_test(a_file_that_cannot_be_written_leaves_nothing),
        cmocka_unit_test(a_full_disk_leaves_the_old_file),
        cmocka_unit_test(a_pipe_and_a_link_stay_what_they_are),
        cmocka_unit_test(a_comma_decimal_locale_changes_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
