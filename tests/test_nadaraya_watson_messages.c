/* test_nadaraya_watson_messages.c - the regressor with the files that people have: what is read,
 * what is refused, and what a person is told. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nadaraya_watson_run.h"

/* ---- Files that people have ------------------------------------------------------------------ */

static void good_files_of_every_kind_just_work(void **state)
{
    (void)state;
    static const char *const files[] = {
        "x,y\n1,2\n2,4\n3,3\n4,5\n",
        "x,y\r\n1,2\r\n2,4\r\n3,3\r\n4,5\r\n",
        "\xef\xbb\xbfx;y\n1;2\n2;4\n3;3\n4;5",
        "\"x\"\t\"y\"\n\"1\"\t\"2\"\n2\t4\n3\t3\n\n4\t5\n",
        "\"\",\"x\",\"y\"\n\"1\",1,2\n\"2\",2,4\n\"3\",3,3\n\"4\",4,5\n", /* R's row names */
        "note,x,y\na,1,2\nb,2,4\nc,3,3\nd,4,5\n",
        "x,y\n1,2\n2,4\nNA,7\n3,3\n8,\n4,5\n"};
    const char *out = scratch("good.csv");
    write_text("good_at.csv", "x\n1.5\n2.5\n");
    double *expected = NULL;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        ran r = regress(ARGUMENTS("--data", "-", "--bandwidth", "1", "--at", scratch("good_at.csv"),
                                  "--predict", out),
                        files[i]);
        if (r.exit_code) fail_msg("file %zu: %s", i, r.err);
        assert_contains(r.out, "data           y by x, of standard input: 4 rows\n");
        ran_free(&r);
        if (i == 0) expected = column(out, "mean", NULL);
        assert_column(out, "mean", expected, 2, 1, 0);
    }
    ran r = regress(
        ARGUMENTS("--data", "-", "--x", "1", "--y", "3", "--bandwidth", "1", "--predict", out),
        "1,a,2\n2,b,4\n3,c,3\n4,d,5\n");
    assert_int_equal(r.exit_code, 0);
    assert_contains(r.out, "column 3 by column 1, of standard input");
    free(column(out, "grad_column 1", NULL));
    ran_free(&r), free(expected);
    r = regress(ARGUMENTS("--data", "-", "--bandwidth", "1"), "a,b,note,c\n1,2,x,3\n2,1,y,4\n");
    assert_contains(r.out, "c by a and b, of "); /* the last column of numbers by all others */
    ran_free(&r);
    r = regress(ARGUMENTS("--data", "-", "--y", "a", "--bandwidth", "1"), "a,b,c\n1,2,3\n2,1,4\n");
    assert_contains(r.out, "a by b and c, of ");
    ran_free(&r);
    r = regress(ARGUMENTS("--data", "-", "--x", "a", "--bandwidth", "1"), "a,b,c\n1,2,3\n2,1,4\n");
    assert_contains(r.out, "c by a, of ");
    ran_free(&r);
    /* A mistake in a number is told in the first row, too; a date is no number. */
    r = regress(ARGUMENTS("--data", "-", "--bandwidth", "1"), "a,b,c\n1,12a,3\n2,1,4\n3,1,2\n");
    assert_int_equal(r.exit_code, 1);
    assert_contains(r.err, "line 2, column 2 (b): '12a' is not a number");
    ran_free(&r);
    r = regress(ARGUMENTS("--data", "-", "--bandwidth", "1"),
                "a,b,c\n2026-11-26,1,3\n2026-11-27,2,4\n");
    assert_contains(r.out, "c by b, of ");
    ran_free(&r);
}

static void bad_files_are_exit_1_with_line_and_column_and_write_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *content, *x, *message;
    } bad[] = {
        {"x,y\n1,2\n2,three\n3,4\n", "x", "bad.csv, line 3, column 2 (y): 'three' is not a number"},
        {"x,y\n1,2\n2\n3,4\n", "x", "line 3, column 2: fields in the row: 1, in the first: 2"},
        {"x,y\n1,2\n2,3,4\n3,4\n", "x", "line 3, column 3: fields in the row: 3"},
        {"x,y\n1,2\n2,1e999\n3,4\n", "x", "line 3, column 2 (y): '1e999' is beyond the range"},
        {"", "x", "bad.csv, line 1, column 1: expected a complete row, found an empty file"},
        {"x,y\n", "x", "line 2, column 1: expected a complete row, found only a header"},
        {"x,y\n1,2\n", "x", "complete rows: 1, expected at least 2"},
        {"x,y\n1,2\n3,NA\n", "x",
         "complete rows: 1, expected at least 2 (incomplete, so dropped: 1)"},
        {"x,z\n1,2\n2,3\n3,4\n", "x", "line 1: no column 'y': expected 'x', 'z'\n"},
        {"x,y\n1,5\n2,6\n3,5\n", "x,1", "column 1 (x): asked for twice, as 'x' and as '1'"},
        {"x,y\n1,5\n2,6\n3,5\n", "2", "column 2 (y): asked for twice"},
        {"x,x,y\n1,5,1\n2,6,2\n3,5,3\n", "x", "columns 1 and 2 are both 'x'"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text("bad.csv", bad[i].content);
        ran r = regress(ARGUMENTS("--data", scratch("bad.csv"), "--x", bad[i].x, "--y", "y",
                                  "--plot", scratch("nothing"), "--predict", scratch("nothing.csv"),
                                  "--save", scratch("nothing.qkv")),
                        NULL);
        assert_int_equal(r.exit_code, 1);
        assert_contains(r.err, bad[i].message);
        assert_string_equal(r.out, "");
        assert_int_equal(scratch_count("nothing"), 0);
        ran_free(&r);
    }
    write_file(scratch("nul.csv"), "x,y\n1,\0002\n", 9);
    assert_refused(ARGUMENTS("--data", scratch("nul.csv")), 1, "line 2, column 2: a NUL byte");
    write_text("nul.csv", "a,b\nu,1\nv,2\n");
    assert_refused(ARGUMENTS("--data", scratch("nul.csv")), 1,
                   "fewer than two columns of numbers: name them with --x and --y");
    assert_refused(ARGUMENTS("--data", scratch("absent.csv")), 1, "absent.csv");
}

/* ---- What is said ---------------------------------------------------------------------------- */

static void what_a_person_should_know_is_said(void **state)
{
    (void)state;
    static const struct {
        const char *csv, *options[6], *message;
    } cases[] = {{"x,y\n1,1\n2,3\nNA,5\n4,4\n",
                  {"--bandwidth", "1"},
                  "warning: 1 of 4 rows have missing cells and are left out\n"},
                 {"x,c,y\n1,7,1\n2,7,3\n4,7,4\n",
                  {"--bandwidth", "1"},
                  "warning: 'c' is 7 in all rows: it predicts nothing\n"},
                 {"x,y\n1,7\n2,7\n4,7\n",
                  {"--bandwidth", "1"},
                  "warning: 'y' is 7 in all rows: there is nothing to learn\n"},
                 {"x,y\n1,u\n2,u\n4,u\n",
                  {"--bandwidth", "1", "--y", "y", "--classify"},
                  "warning: all rows are of the class 'u'\n"},
                 {"x,y\n1,1\n2,3\n9,5\n",
                  {"--bandwidth", "1", "--kernel", "boxcar"},
                  "warning: 1 of 3 rows have no other in reach: leave-one-out does without them\n"},
                 {"x,y\n1,1\n2,3\n9,5\n",
                  {"--bandwidth", "1", "--predict", "/dev/null"},
                  "warning: 3 of 3 queries extrapolate: n_effective below 2"},
                 {"x,y\n1,1e200\n2,3e200\n9,5e200\n",
                  {"--bandwidth", "1", "--predict", "/dev/null"},
                  "warning: y is up to 5e+200: a double has not its squares, so that errors, "},
                 {"x,u,y\n1,0.3,1\n2,0.9,2\n3,0.1,3\n4,0.8,4\n5,0.5,5\n6,0.2,6\n7,0.7,7\n8,0.4,8\n",
                  {NULL},
                  "warning: 'u' is smoothed out: its bandwidth, "}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *line[10] = {"--data", "-"};
        memcpy(line + 2, cases[i].options, sizeof cases[i].options);
        ran r = regress(line, cases[i].csv);
        assert_int_equal(r.exit_code, 0);
        assert_contains(r.err, cases[i].message);
        ran_free(&r);
    }
    ran r = regress(ARGUMENTS("--plot", ""), NULL); /* the toy data: two */
    assert_contains(r.err, "warning: the objective has 2 minima: the lowest was taken\n");
    assert_contains(r.out, "other minimum  1.53");
    ran_free(&r);
    r = regress(ARGUMENTS("--data", "-"), "x,y\n1,2\n1,5\n1,1\n1,9\n"); /* one warning is enough */
    assert_contains(r.err, "warning: 'x' is 1 in all rows: it predicts nothing\n");
    assert_null(strstr(r.err, "smoothed out"));
    assert_contains(r.out, "2 evaluations, 1 start, 0 steps");
    ran_free(&r);
}

static void progress_is_a_bar_on_a_terminal_and_a_few_lines_elsewhere(void **state)
{
    (void)state;
    ran r = regress(ARGUMENTS("--plot", ""), NULL);
    int lines = 0;
    for (const char *at = r.err; (at = strstr(at, "search ")); at++) lines++;
    assert_true(lines >= 5 && lines <= 12);
    assert_contains(r.err, "search 100/100  gaussian: objective ");
    assert_null(strchr(r.err, '\r'));
    ran_free(&r);

    const char *some = scratch("some.csv"), *many = scratch("many.csv"); /* predicted in parts */
    succeed(ARGUMENTS("--data", CARS, "--kernel", "boxcar", "--bandwidth", "0.3001", "--grid",
                      "251", "--predict", some),
            NULL);
    r = regress(ARGUMENTS("--data", CARS, "--kernel", "boxcar", "--bandwidth", "0.3001", "--grid",
                          "25001", "--predict", many),
                NULL);
    assert_contains(r.err, "predict 2/3  20000 queries\npredict 3/3  25001 queries\n");
    assert_contains(r.err, "12139 of 25001 queries have no row in reach");
    assert_refused(ARGUMENTS("--data", CARS, "--kernel", "boxcar", "--bandwidth", "0.3001",
                             "--grid", "25001", "--predict", many, "--empty", "error"),
                   1, "12139 of 25001 queries");
    double *expected = column(many, "lower", NULL);
    assert_column(some, "lower", expected, 251, 100, 1e-12);
    ran_free(&r), free(expected);

    char command[512];
    snprintf(command, sizeof command, "'%s' --plot ''", NADARAYA_WATSON);
    r = run(ARGUMENTS("script", "-qec", command, "/dev/null"), "");
    if (r.exit_code == 127) skip();
    assert_contains(r.out, "%  objective ");
    assert_contains(r.out, "\rsearch [##############################] 100%  gaussian: ");
    ran_free(&r);
}

/* "-" is the standard output, which then has nothing else; what is told a person goes to stderr. */
static void text_can_go_to_the_standard_output(void **state)
{
    (void)state;
    static const char csv[] = "x,y\n1,2\n2,4\n3,3\n4,5\n";
    static const char *const options[] = {"--predict", "--report"};
    for (int i = 0; i < 2; i++) {
        const char *path = scratch("stream");
        succeed(ARGUMENTS("--data", "-", "--bandwidth", "1", options[i], path), csv);
        ran r = regress(ARGUMENTS("--data", "-", "--bandwidth", "1", options[i], "-"), csv);
        assert_int_equal(r.exit_code, 0);
        char *text = read_file(path, NULL), *seconds = strstr(text, "\"seconds");
        size_t same = seconds ? (size_t)(seconds - text) : strlen(text) + 1;
        assert_true(strlen(text) > 50);
        assert_int_equal(strncmp(r.out, text, same), 0);
        assert_contains(r.err, "kernel         gaussian\n");
        assert_null(strstr(r.err, "wrote"));
        free(text), ran_free(&r);
    }
    char line[512];
    snprintf(line, sizeof line, "exec '%s' --data '" CARS "' --bandwidth 2 --predict - >/dev/full",
             NADARAYA_WATSON);
    ran r = run(ARGUMENTS("sh", "-c", line), NULL);
    assert_int_equal(r.exit_code, 1);
    assert_contains(r.err, "cannot write the standard output: No space left on device\n");
    ran_free(&r);
}

/* ---- What is refused, and how it is told ----------------------------------------------------- */

static void a_wrong_command_line_is_exit_2(void **state)
{
    (void)state;
    const char *const lines[][7] = {{"--x", "a"},
                                    {"--y", "a"},
                                    {"--classify"},
                                    {"--case-weight", "w"},
                                    {"--format", "gif"},
                                    {"--no-such-option"},
                                    {"stray"},
                                    {"--bandwidth", "0"},
                                    {"--bandwidth", "-1"},
                                    {"--bandwidth", "nan"},
                                    {"--bandwidth", "1,2"},
                                    {"--bandwidth", "1,"},
                                    {"--bandwidth", "wide"},
                                    {"--kernel", "round"},
                                    {"--kernel", "all", "--bandwidth", "1"},
                                    {"--edge", "open"},
                                    {"--degree", "2"},
                                    {"--convention", "np"},
                                    {"--bandwidth", "1", "--convention", "excel"},
                                    {"--select", "luck"},
                                    {"--bandwidth", "1", "--select", "gcv"},
                                    {"--bandwidth", "1", "--optimizer", "gd"},
                                    {"--grid", "1"},
                                    {"--bands", "1"},
                                    {"--bootstrap", "1"},
                                    {"--empty", "zero"},
                                    {"--predict", ""},
                                    {"--threads", "0"},
                                    {"--seed", "x"},
                                    {"--at", "q.csv"},
                                    {"--at", "q.csv", "--grid", "3", "--predict", "p.csv"},
                                    {"--data", "-", "--at", "-", "--predict", "p.csv"},
                                    {"--data", CARS, "--y", "speed,dist", "--classify"},
                                    {"--load", "m.qkv", "--data", CARS, "--predict", "p.csv"},
                                    {"--data", "missing.csv", "--predict", "missing.csv"},
                                    {"--data", CARS, "--predict", "p", "--report", "p"},
                                    {"--data", CARS, "--predict", "-", "--report", "-"},
                                    {"--data", CARS, "--weights", "-"},
                                    {"--data", CARS, "--save", "-"},
                                    {"--data", CARS, "--plot", "-"},
                                    {"--load", "-", "--grid", "3", "--predict", "p.csv"}};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        ran r = regress(lines[i], NULL);
        if (r.exit_code != 2) fail_msg("line %zu, %s: exit %d", i, lines[i][0], r.exit_code);
        assert_contains(r.err, "nadaraya_watson: ");
        assert_string_equal(r.out, "");
        ran_free(&r);
    }
}

static void what_is_out_of_range_is_told_what_the_range_is(void **state)
{
    (void)state;
    static const struct {
        const char *options[7], *message;
    } cases[] = {
        {{"--bandwidth", "0"}, "--bandwidth: 0 is not above 0\n"},
        {{"--bandwidth", "1e400"}, "--bandwidth: 1e400 is not between 2.3e-308 and 1.7e+308\n"},
        {{"--bandwidth", "nan"}, "--bandwidth: 'nan' is not a number\n"},
        {{"--bandwidth", "1,2"}, "--bandwidth gives 2 numbers, expected 1, for the only column"},
        {{"--bands", "1"}, "--bands: 1 is not between 1e-09 and 0.999999999\n"},
        {{"--rows", "-1"}, "--rows: -1 is less than 0\n"},
        {{"--seed", "-1"}, "--seed: -1 is less than 0\n"},
        {{"--grid", "1"}, "--grid: 1 is not between 2 and 10000000\n"},
        {{"--bandwidth", "1e308", "--convention", "np", "--kernel", "epanechnikov"},
         "--bandwidth: 1e+308 is inf without --convention, expected between 2.22507e-308 and "},
        {{"--bandwidth", "1", "--convention", "np", "--kernel", "tricube"},
         "--convention np has no tricube kernel, but gaussian, epanechnikov\n"},
        {{"--bandwidth", "1", "--convention", "statsmodels", "--kernel", "boxcar"},
         "--convention statsmodels has no boxcar kernel, but gaussian\n"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(cases[i].options, 2, cases[i].message);
}

static void a_criterion_that_is_finite_nowhere_is_told_why(void **state)
{
    (void)state;
    static const struct {
        const char *csv, *options[3], *message;
    } cases[] = {
        {"x,y\n1,7\n2,7\n3,7\n4,7\n5,7\n",
         {"--kernel", "boxcar"},
         "y is the same in all rows: every bandwidth fits it, and none is the best\n"},
        {"x,y\n1,2\n2,5\n3,1\n", {NULL}, "rows: 3, expected at least 4 for AICc\n"},
        {"x,y\n1,2\n2,5\n3,1\n5,9\n", {"--degree", "1"}, "rows: 4, expected at least 5 for AICc\n"},
        {"x,y\n1,1e200\n2,3e200\n4,1e199\n5,9e200\n", {NULL}, "is y - y squared finite?\n"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *line[10] = {"--data", "-", "--select", "aicc"};
        memcpy(line + 4, cases[i].options, sizeof cases[i].options);
        ran r = regress(line, cases[i].csv);
        assert_int_equal(r.exit_code, 1);
        assert_contains(r.err, cases[i].message);
        ran_free(&r);
    }
    succeed(ARGUMENTS("--data", "-", "--select", "aicc"), "x,y\n1,2\n2,5\n3,1\n5,9\n");
    succeed(ARGUMENTS("--data", "-", "--select", "aicc", "--degree", "1"),
            "x,y\n1,2\n2,5\n3,1\n5,9\n6,2\n");
}

/* Where there is no number NA is printed, not a NaN with whatever sign it has. */
static void no_number_is_na(void **state)
{
    (void)state;
    static const struct {
        const char *csv, *options[5], *out;
    } cases[] = {{"x,y\n1,1\n2,3\n9,5\n",
                  {"--kernel", "boxcar", "--bandwidth", "0.5"},
                  "leave-one-out  NA           mean"},
                 {"x,y\n1,u\n2,v\n9,u\n",
                  {"--classify", "--kernel", "boxcar", "--bandwidth", "0.5"},
                  "accuracy       NA           leave"},
                 {"x,y\n1,3\n2,3\n3,3\n", {NULL}, "R^2            NA           leave-one-out (NA"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *line[10] = {"--data", "-", "--y", "y"};
        memcpy(line + 4, cases[i].options, sizeof cases[i].options);
        ran r = regress(line, cases[i].csv);
        assert_int_equal(r.exit_code, 0);
        assert_contains(r.out, cases[i].out);
        assert_null(strstr(r.out, "nan"));
        assert_null(strstr(r.err, "nan"));
        ran_free(&r);
    }
}

/* Names from a file reach the terminal as text, and messages name no function of the library. */
static void names_do_not_steer_the_terminal(void **state)
{
    (void)state;
    static const char csv[] = "\033[31mx,y\xff\xc2\x9b\n1,2\n2,1\n3,4\n";
    ran r = regress(ARGUMENTS("--data", "-", "--x", "1", "--y", "2", "--plot", ""), csv);
    assert_int_equal(r.exit_code, 0);
    assert_contains(r.out, "of \\x1b[31mx\n");
    assert_contains(r.out, "y\\xff\\xc2\\x9b by \\x1b[31mx, of standard input: 3 rows");
    assert_null(strpbrk(r.out, "\033\xff\x9b"));
    ran_free(&r);
    r = regress(ARGUMENTS("--data", "-", "--x", "1", "--y", "z\033"), csv);
    assert_int_equal(r.exit_code, 1);
    assert_contains(r.err, "nadaraya_watson: standard input, line 1: no column 'z\\x1b': "
                           "expected '\\x1b[31mx', 'y\\xff\\xc2\\x9b'\n");
    assert_null(strpbrk(r.err, "\033\xff\x9b"));
    ran_free(&r);
}

static void what_cannot_be_written_is_exit_1(void **state)
{
    (void)state;
    write_text("occupied", "");
    static const char *const options[] = {"--plot",   "--plot",    "--predict", "--predict",
                                          "--report", "--weights", "--save"};
    const char *const paths[] = {
        scratch("occupied"),    scratch("occupied/under"), scratch("absent/predictions.csv"),
        scratch("."),           scratch("absent/r.json"),  scratch("absent/w.npy"),
        scratch("absent/m.qkv")};
    static const char *const messages[] = {"occupied is not a directory",
                                           "cannot make the directory",
                                           "predictions.csv: No such file",
                                           "Is a directory",
                                           "r.json: No such file",
                                           "w.npy: No such file",
                                           "m.qkv: No such file"};
    for (int i = 0; i < 7; i++) {
        ran r = regress(ARGUMENTS("--data", CARS, options[i], paths[i]), NULL);
        assert_int_equal(r.exit_code, 1);
        assert_contains(r.err, messages[i]);
        assert_string_equal(r.out, ""); /* told before the search */
        ran_free(&r);
        assert_int_equal(scratch_count(".tmp"), 0);
    }
}

static void without_gnuplot_the_predictions_are_written_all_the_same(void **state)
{
    (void)state;
    setenv("QKV_GNUPLOT", "/nonexistent", 1);
    ran r = regress(
        ARGUMENTS("--plot", scratch("no_gnuplot"), "--predict", scratch("all_same.csv")), NULL);
    unsetenv("QKV_GNUPLOT");
    assert_int_equal(r.exit_code, 1);
    free(read_file(scratch("all_same.csv"), &(size_t){0}));
    ran_free(&r);
}

static void output_that_does_not_arrive_is_exit_1(void **state)
{
    (void)state;
    static const char *const programs[] = {"nadaraya_watson' --plot ''", "covariance' --plot ''",
                                           "database'", "heatmap'"};
    for (int i = 0; i < 4; i++) {
        char line[512];
        snprintf(line, sizeof line, "exec '" QKV_BIN_DIR "/%s >/dev/full", programs[i]);
        ran r = run(ARGUMENTS("sh", "-c", line), NULL);
        assert_int_equal(r.exit_code, 1);
        assert_contains(r.err, "standard output");
        ran_free(&r);
    }
}

static void help_says_what_it_takes(void **state)
{
    (void)state;
    ran r = regress(ARGUMENTS("--help"), NULL);
    assert_int_equal(r.exit_code, 0);
    static const char *const options[] = {
        "data",   "x",      "y",         "classify",   "case-weight", "kernel",    "product",
        "edge",   "degree", "bandwidth", "convention", "select",      "optimizer", "rows",
        "at",     "grid",   "predict",   "empty",      "bands",       "bootstrap", "weights",
        "report", "plot",   "format",    "save",       "load",        "threads",   "seed"};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
        char text[32];
        snprintf(text, sizeof text, "\n  --%s ", options[i]);
        assert_contains(r.out, text);
    }
    ran_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_person_should_know_is_said),
        cmocka_unit_test(progress_is_a_bar_on_a_terminal_and_a_few_lines_elsewhere),
        cmocka_unit_test(text_can_go_to_the_standard_output),
        cmocka_unit_test(good_files_of_every_kind_just_work),
        cmocka_unit_test(bad_files_are_exit_1_with_line_and_column_and_write_nothing),
        cmocka_unit_test(a_wrong_command_line_is_exit_2),
        cmocka_unit_test(what_is_out_of_range_is_told_what_the_range_is),
        cmocka_unit_test(a_criterion_that_is_finite_nowhere_is_told_why),
        cmocka_unit_test(no_number_is_na),
        cmocka_unit_test(names_do_not_steer_the_terminal),
        cmocka_unit_test(what_cannot_be_written_is_exit_1),
        cmocka_unit_test(without_gnuplot_the_predictions_are_written_all_the_same),
        cmocka_unit_test(output_that_does_not_arrive_is_exit_1),
        cmocka_unit_test(help_says_what_it_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
