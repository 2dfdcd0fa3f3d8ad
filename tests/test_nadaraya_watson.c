/* test_nadaraya_watson.c - the regressor as a person runs it: what it prints, writes, and refuses.
 */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "process.h"

static const char program[] = QKV_BIN_DIR "/nadaraya_watson";

/* Runs the program with up to eight arguments. */
static ran regress(const char *const *arguments, const char *input)
{
    const char *argv[10] = {program};
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
        assert_int_equal(!strncmp(content, i < 4 ? "<?xml" : "times", 5), 1);
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
    assert_non_null(strstr(r.out, "7 rows, 1 incomplete"));
    assert_non_null(strstr(r.out, "of a (started"));
    assert_non_null(strstr(r.out, "of b (started"));
    ran_free(&r);
}

static void a_wrong_command_line_is_exit_2(void **state)
{
    (void)state;
    const char *const lines[][4] = {{"--data", "x.csv"}, {"--x", "a"},         {"--format", "gif"},
                                    {"--steps", "many"}, {"--no-such-option"}, {"stray"}};
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
        const char *content, *message;
    } bad[] = {{"x,y\n1,2\n2,three\n3,4\n", "line 3, column 2"},
               {"x,y\n1,2\n2\n3,4\n", "line 3"},
               {"x,y\n1,2\n2,1e999\n3,4\n", "line 3, column 2"},
               {"", "bad.csv"},
               {"x,z\n1,2\n2,3\n3,4\n", "'y'"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(scratch("bad.csv"), bad[i].content, strlen(bad[i].content));
        ran r = regress((const char *const[]){"--data", scratch("bad.csv"), "--x", "x", "--y", "y",
                                              "--plot", scratch("nothing"), NULL},
                        NULL);
        assert_int_equal(r.exit_code, 1);
        if (!strstr(r.err, bad[i].message)) fail_msg("expected %s in: %s", bad[i].message, r.err);
        assert_int_equal(scratch_count("nothing"), 0);
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
    static const char *const programs[] = {"nadaraya_watson --plot ''", "covariance --plot ''",
                                           "database", "heatmap"};
    for (int i = 0; i < 4; i++) {
        char line[512];
        snprintf(line, sizeof line, "exec " QKV_BIN_DIR "/%s >/dev/full", programs[i]);
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
        cmocka_unit_test(a_wrong_command_line_is_exit_2),
        cmocka_unit_test(bad_data_is_exit_1_with_file_line_and_column_and_writes_nothing),
        cmocka_unit_test(without_gnuplot_the_predictions_are_written_all_the_same),
        cmocka_unit_test(output_that_does_not_arrive_is_exit_1),
        cmocka_unit_test(help_says_what_it_takes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
