/* test_nadaraya_watson.c - the regressor as a person runs it: what it prints, writes, and refuses.
 */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "process.h"

static const char program[] = QKV_BIN_DIR "/nadaraya_watson";

/* Runs the program with up to ten arguments. */
static ran regress(const char *const *arguments, const char *input)
{
    const char *argv[12] = {program};
    for (int i = 0; arguments[i]; i++) argv[i + 1] = arguments[i];
    return run(argv, input);
}

static double number_after(const char *text, const char *label)
{
    const char *at = strstr(text, label);
    if (!at) fail_msg("'%s' is not in: %s", label, text);
    return strtod(at + strlen(label), NULL);
}

static void it_learns_a_better_bandwidth_and_leaves_its_figures(void **state)
{
    (void)state;
    const char *const arguments[] = {"--data", QKV_TEST_DATA "/../../examples/data/mcycle.csv",
                                     "--x",    "times",
                                     "--y",    "accel",
                                     "--plot", scratch("mcycle"),
                                     NULL};
    ran r = regress(arguments, NULL);
    assert_int_equal(r.exit_code, 0);
    assert_true(number_after(r.out, "loss after") < 0.6 * number_after(r.out, "loss before"));
    assert_true(number_after(r.out, "R^2") > 0.7);
    assert_non_null(strstr(r.err, "fit 0/300")); /* plain lines, since this is no terminal */
    static const char *const files[] = {"fit.svg", "weights.svg", "kernels.svg", "loss.svg",
                                        "predictions.csv"};
    for (int i = 0; i < 5; i++) {
        char name[64];
        size_t bytes;
        snprintf(name, sizeof name, "mcycle/%s", files[i]);
        char *content = read_file(scratch(name), &bytes);
        assert_true(bytes > 1000);
        const char *begin = i < 4 ? "<?xml" : "times,accel_predicted\n";
        assert_int_equal(strncmp(content, begin, strlen(begin)), 0);
        free(content);
    }
    ran_free(&r);
}

static void several_columns_have_a_bandwidth_each(void **state)
{
    (void)state;
    static const char csv[] = "a,b,y\n1,5,1\n2,3,2\n3,9,3\n4,1,4\n5,NA,5\n6,4,6\n7,8,7\n8,2,8\n";
    ran r = regress(
        (const char *const[]){"--data", "-", "--x", "a,b", "--y", "y", "--plot", "", NULL}, csv);
    assert_int_equal(r.exit_code, 0);
    assert_non_null(strstr(r.out, "7 rows\n               incomplete rows dropped: 1"));
    assert_non_null(strstr(r.out, "of a (started"));
    assert_non_null(strstr(r.out, "of b (started"));
    ran_free(&r);
}

static void how_the_fit_ended_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *option, *value, *message;
    } cases[] = {
        {"--steps", "3", "steps          3, not converged: allow more --steps"},
        {"--start", "1e-9", "steps          0, no slope at the start: try another --start"},
        {"--start", "1", ", converged"}};
    for (int i = 0; i < 3; i++) {
        ran r = regress((const char *const[]){"--plot", "", cases[i].option, cases[i].value, NULL},
                        NULL);
        assert_int_equal(r.exit_code, 0);
        if (!strstr(r.out, cases[i].message)) fail_msg("no '%s' in: %s", cases[i].message, r.out);
        const char *end = strrchr(r.err, '/'); /* "fit 3/3  loss": the last line says all is done */
        assert_non_null(end);
        assert_close(strtod(end + 1, NULL), number_after(r.out, "steps "), 0);
        char *first = strstr(r.err, "3/3"); /* and says so once */
        assert_true(!first || !strstr(first + 1, "3/3"));
        ran_free(&r);
    }
}

static void progress_is_a_bar_on_a_terminal_and_a_few_lines_elsewhere(void **state)
{
    (void)state;
    static const char *const slow[] = {"--plot", "", "--rate", "0.0001", NULL};
    ran r = regress(slow, NULL);
    int lines = 0;
    for (const char *at = r.err; (at = strchr(at, '\n')); at++) lines++;
    assert_int_equal(lines, 11);
    assert_null(strchr(r.err, '\r'));
    ran_free(&r);

    char command[512];
    snprintf(command, sizeof command, "'%s' --plot '' --rate 0.0001", program);
    r = run((const char *const[]){"script", "-qec", command, "/dev/null", NULL}, "");
    if (r.exit_code == 127) skip();
    assert_non_null(strstr(r.out, "\rfit [###############...............]  50%  loss "));
    assert_non_null(strstr(r.out, "\rfit [##############################] 100%  loss "));
    ran_free(&r);
}

static void the_rate_is_the_length_of_the_first_step(void **state)
{
    (void)state;
    ran r =
        regress((const char *const[]){"--plot", "", "--steps", "1", "--rate", "0.01", NULL}, NULL);
    assert_close(number_after(r.out, "bandwidth "), 3 * exp(-0.01), 1e-4);
    ran_free(&r);
}

static void a_wrong_command_line_is_exit_2(void **state)
{
    (void)state;
    const char *const lines[][4] = {{"--data", "x.csv"}, {"--x", "a"},         {"--format", "gif"},
                                    {"--steps", "many"}, {"--no-such-option"}, {"stray"},
                                    {"--start", "0"},    {"--start", "1,2"},   {"--start", ","},
                                    {"--rate", "nan"},   {"--rate", "1e9"},    {"--n", "2"},
                                    {"--grid", "1"}};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        ran r = regress(lines[i], NULL);
        assert_int_equal(r.exit_code, 2);
        assert_non_null(strstr(r.err, "nadaraya_watson: "));
        assert_string_equal(r.out, "");
        ran_free(&r);
    }
}

static void bad_data_is_exit_1_with_file_line_and_column_and_writes_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *content, *x, *message;
    } bad[] = {
        {"x,y\n1,2\n2,three\n3,4\n", "x", "bad.csv, line 3, column 2 (y): 'three'"},
        {"x,y\n1,2\n2\n3,4\n", "x", "line 3, column 2: fields in the row: 1, in the first: 2"},
        {"x,y\n1,2\n2,1e999\n3,4\n", "x", "line 3, column 2"},
        {"", "x", "bad.csv, line 1, column 1: expected a complete row, found an empty file"},
        {"x,y\n", "x", "found only a header"},
        {"x,y\n1,2\n", "x", "complete rows: 1, expected at least 3"},
        {"x,y\n1,2\n2,3\n3,NA\n", "x",
         "complete rows: 2, expected at least 3 (incomplete, so dropped: 1)"},
        {"x,z\n1,2\n2,3\n3,4\n", "x", "line 1: no column 'y': expected 'x', 'z'\n"},
        {"x,b,y\n1,7,2\n2,7,3\n3,7,4\n", "x,b", "bad.csv: 'b' is 7 in all 3 rows"},
        {"x,y\n1,5\n2,5\n3,5\n", "x", "'y' is 5 in all 3 rows: there is nothing to predict\n"},
        {"x,y\n1,5\n2,6\n3,5\n", "x,1", "column 1 (x): asked for twice, as 'x' and as '1'"},
        {"x,y\n1,5\n2,6\n3,5\n", "2", "column 2 (y): asked for twice"},
        {"x,x,y\n1,5,1\n2,6,2\n3,5,3\n", "x", "columns 1 and 2 are both 'x'"},
        {"x,y\n1e200,5\n2e200,6\n3,5\n", "x", "'x' goes from 3 to 2e+200: rescale it"},
        {"x,y\n1e-200,5\n2e-200,6\n0,5\n", "x", "'x' goes from 0 to 2e-200: rescale it"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(scratch("bad.csv"), bad[i].content, strlen(bad[i].content));
        ran r = regress((const char *const[]){"--data", scratch("bad.csv"), "--x", bad[i].x, "--y",
                                              "y", "--plot", scratch("nothing"), NULL},
                        NULL);
        assert_int_equal(r.exit_code, 1);
        if (!strstr(r.err, bad[i].message)) fail_msg("expected %s in: %s", bad[i].message, r.err);
        assert_string_equal(r.out, "");
        assert_int_equal(scratch_count("nothing"), 0);
        ran_free(&r);
    }
}

static void assert_refused(const char *const *arguments, int exit_code, const char *message)
{
    ran r = regress(arguments, NULL);
    assert_int_equal(r.exit_code, exit_code);
    if (!strstr(r.err, message)) fail_msg("expected %s in: %s", message, r.err);
    ran_free(&r);
}

static void options_without_effect_are_refused(void **state)
{
    (void)state;
    write_file(scratch("abc.csv"), "a,b,c\n1,2,4\n2,1,3\n3,3,5\n", 24);
    const char *csv = scratch("abc.csv");
    assert_refused((const char *const[]){"--data", csv, "--x", "a", "--y", "c", "--n", "9", NULL},
                   2, "--n and --data do not go together");
    assert_refused(
        (const char *const[]){"--seed", "9", "--data", csv, "--x", "a", "--y", "c", NULL}, 2,
        "--seed and --data do not go together");
    assert_refused(
        (const char *const[]){"--data", csv, "--x", "a,b", "--y", "c", "--grid", "9", NULL}, 2,
        "--grid and several columns in --x do not go together");
    assert_refused((const char *const[]){"--predict", "", NULL}, 2, "--predict: the argument ");
    assert_refused((const char *const[]){"--data", csv, "--x", "a,", "--y", "c", NULL}, 2,
                   "--x: the argument or a part of it is empty");
    assert_refused((const char *const[]){"--start", "1e-300", "--plot", "", NULL}, 2,
                   "--start: 1e-300 is not between ");
    assert_refused((const char *const[]){"--start", "1e300", "--plot", "", NULL}, 2,
                   "for values of 'x' from ");
}

/* Names from a file reach the terminal as text, and messages name no function of the library. */
static void names_do_not_steer_the_terminal(void **state)
{
    (void)state;
    static const char csv[] = "\033[31mx,y\xff\xc2\x9b\n1,2\n2,1\n3,4\n";
    ran r = regress(
        (const char *const[]){"--data", "-", "--x", "1", "--y", "2", "--plot", "", NULL}, csv);
    assert_int_equal(r.exit_code, 0);
    assert_non_null(strstr(r.out, "of \\x1b[31mx (started"));
    assert_non_null(strstr(r.out, "y\\xff\\xc2\\x9b of standard input: 3 rows"));
    assert_null(strpbrk(r.out, "\033\xff\x9b"));
    ran_free(&r);
    r = regress((const char *const[]){"--data", "-", "--x", "1", "--y", "z\033", NULL}, csv);
    assert_int_equal(r.exit_code, 1);
    assert_non_null(strstr(r.err, "nadaraya_watson: standard input, line 1: no column 'z\\x1b': "
                                  "expected '\\x1b[31mx', 'y\\xff\\xc2\\x9b'\n"));
    assert_null(strpbrk(r.err, "\033\xff\x9b"));
    ran_free(&r);
}

static void columns_without_a_name_are_numbered(void **state)
{
    (void)state;
    static const char csv[] = "1,2\n2,4\n3,3\n4,5\n";
    ran r = regress((const char *const[]){"--data", "-", "--x", "1", "--y", "2", "--plot", "",
                                          "--predict", scratch("numbered.csv"), NULL},
                    csv);
    assert_int_equal(r.exit_code, 0);
    assert_non_null(strstr(r.out, "of column 1 (started"));
    char *saved = read_file(scratch("numbered.csv"), NULL);
    assert_int_equal(strncmp(saved, "column 1,column 2_predicted\n", 28), 0);
    free(saved), ran_free(&r);
}

static void what_cannot_be_written_is_exit_1(void **state)
{
    (void)state;
    write_file(scratch("occupied"), "", 0);
    const char *const lines[][5] = {
        {"--plot", scratch("occupied"), NULL},
        {"--plot", scratch("occupied/under"), NULL},
        {"--plot", "", "--predict", scratch("absent/predictions.csv"), NULL},
        {"--plot", "", "--predict", scratch("."), NULL}};
    static const char *const messages[] = {
        "occupied is not a directory", "cannot make the directory",
        "absent/predictions.csv: No such file", "Is a directory"};
    for (int i = 0; i < 4; i++) {
        ran r = regress(lines[i], NULL);
        assert_int_equal(r.exit_code, 1);
        if (!strstr(r.err, messages[i])) fail_msg("expected %s in: %s", messages[i], r.err);
        assert_int_equal(scratch_count(".tmp"), 0);
        ran_free(&r);
    }
}

static void without_gnuplot_the_predictions_are_written_all_the_same(void **state)
{
    (void)state;
    setenv("QKV_GNUPLOT", "/nonexistent", 1);
    ran r = regress((const char *const[]){"--plot", scratch("no_gnuplot"), NULL}, NULL);
    unsetenv("QKV_GNUPLOT");
    assert_int_equal(r.exit_code, 1);
    free(read_file(scratch("no_gnuplot/predictions.csv"), &(size_t){0}));
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
        ran r = run((const char *const[]){"sh", "-c", line, NULL}, NULL);
        assert_int_equal(r.exit_code, 1);
        assert_non_null(strstr(r.err, "standard output"));
        ran_free(&r);
    }
}

static void help_says_what_it_takes(void **state)
{
    (void)state;
    ran r = regress((const char *const[]){"--help", NULL}, NULL);
    assert_int_equal(r.exit_code, 0);
    assert_non_null(strstr(r.out, "--data"));
    assert_non_null(strstr(r.out, "--predict"));
    ran_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_learns_a_better_bandwidth_and_leaves_its_figures),
        cmocka_unit_test(several_columns_have_a_bandwidth_each),
        cmocka_unit_test(how_the_fit_ended_is_told),
        cmocka_unit_test(progress_is_a_bar_on_a_terminal_and_a_few_lines_elsewhere),
        cmocka_unit_test(the_rate_is_the_length_of_the_first_step),
        cmocka_unit_test(a_wrong_command_line_is_exit_2),
        cmocka_unit_test(bad_data_is_exit_1_with_file_line_and_column_and_writes_nothing),
        cmocka_unit_test(options_without_effect_are_refused),
        cmocka_unit_test(names_do_not_steer_the_terminal),
        cmocka_unit_test(columns_without_a_name_are_numbered),
        cmocka_unit_test(what_cannot_be_written_is_exit_1),
        cmocka_unit_test(without_gnuplot_the_predictions_are_written_all_the_same),
        cmocka_unit_test(output_that_does_not_arrive_is_exit_1),
        cmocka_unit_test(help_says_what_it_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
