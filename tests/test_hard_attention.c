/* test_hard_attention.c - where to look is learned by every method, and the gradients are as noisy
 * and as biased as theory says. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "process.h"

#define DIGITS QKV_TEST_DATA "/../../examples/data/digits.npy"
#define ARGV(...) \
    ((const char *const[]){QKV_BIN_DIR "/hard_attention", "--data", DIGITS, __VA_ARGS__, NULL})

static void every_method_learns_where_to_look(void **state)
{
    (void)state;
    ran r = run(ARGV("--epochs", "12", "--seeds", "2", "--measure", "2", "--draws", "800", "--plot",
                     scratch("drawn")),
                NULL);
    if (r.exit_code) fail_msg("exit code %d: %s", r.exit_code, r.err);
    double random, accuracy;
    numbers_after(r.out, "\n  at random ", &random, 1);
    static const char *const learned[] = {"\n  soft ", "\n  REINFORCE ", "\n  with a baseline ",
                                          "\n  straight-through "};
    for (int i = 0; i < 4; i++) {
        numbers_after(r.out, learned[i], &accuracy, 1);
        if (accuracy < random + 3) fail_msg("%s%g, at random %g", learned[i], accuracy, random);
    }

    const char *gradient = strstr(r.out, "exact norm is ");
    assert_non_null(gradient);
    double norm;
    double plain[4], baseline[4], straight[3]; /* variance, bias, its error by chance, all pairs' */
    numbers_after(gradient, "norm is ", &norm, 1);
    numbers_after(gradient, "\n  REINFORCE ", plain, 4);
    numbers_after(gradient, "\n  with a baseline ", baseline, 4);
    numbers_after(gradient, "\n  straight-through ", straight, 3);
    assert_true(baseline[0] < plain[0]);
    assert_true(straight[0] < baseline[0] / 10);
    assert_true(plain[1] < 2.5 * plain[2] && plain[3] < 1e-4 * norm);
    assert_true(baseline[1] < 2.5 * baseline[2] && baseline[3] < 1e-4 * norm);
    assert_true(straight[1] > 5 * straight[2]);
    static const char *const figures[] = {"learning", "glimpses"};
    for (int i = 0; i < 2; i++) {
        char name[64];
        size_t bytes;
        snprintf(name, sizeof name, "drawn/hard_attention_%s.svg", figures[i]);
        free(read_file(scratch(name), &bytes));
        assert_true(bytes > 1000);
    }
    ran_free(&r);
}

/* A copy of the digits in which all images to be tested on are said to be of the next digit. */
static void write_mislabelled(const char *path)
{
    enum { TESTED = 599, COLUMNS = 65 };
    size_t bytes;
    char *file = read_file(DIGITS, &bytes), *label = file + bytes - 1;
    for (int i = 0; i < TESTED; i++, label -= COLUMNS) *label = (char)((*label + 1) % 10);
    write_file(path, file, bytes);
    free(file);
}

static void accuracy_is_that_of_the_test_images(void **state)
{
    (void)state;
    write_mislabelled(scratch("wrong.npy"));
    ran r = run(ARGV("--data", scratch("wrong.npy"), "--epochs", "6", "--seeds", "1", "--measure",
                     "0", "--plot", ""),
                NULL);
    if (r.exit_code) fail_msg("exit code %d: %s", r.exit_code, r.err);
    double accuracy;
    numbers_after(r.out, "\n  soft ", &accuracy, 1);
    assert_true(accuracy < 5);
    numbers_after(r.out, "\n  straight-through ", &accuracy, 1);
    assert_true(accuracy < 10);
    ran_free(&r);
}

static void learning_is_drawn_without_measurements(void **state)
{
    (void)state;
    size_t bytes;
    ran r = run(ARGV("--epochs", "2", "--seeds", "1", "--measure", "0", "--plot", scratch("bare"),
                     "--format", "png"),
                NULL);
    if (r.exit_code) fail_msg("exit code %d: %s", r.exit_code, r.err);
    assert_null(strstr(r.out, "gradient"));
    free(read_file(scratch("bare/hard_attention_learning.png"), &bytes));
    ran_free(&r);
}

static void a_wrong_command_line_is_exit_2_and_a_bad_file_exit_1(void **state)
{
    (void)state;
    static const struct {
        const char *option, *value, *message;
        int exit_code;
    } cases[] = {{"--epochs", "1", "--epochs: 1 is not between", 2},
                 {"--draws", "1", "--draws: 1 is not between", 2},
                 {"--measure", "x", "--measure: 'x' is not a whole number", 2},
                 {"--format", "gif", "--format: 'gif' is none of svg, png, pdf", 2},
                 {"--data", "/no/such/file", "/no/such/file", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ran r = run(ARGV("--plot", "", cases[i].option, cases[i].value), NULL);
        if (!strstr(r.err, cases[i].message)) fail_msg("no '%s' in: %s", cases[i].message, r.err);
        assert_int_equal(r.exit_code, cases[i].exit_code);
        assert_string_equal(r.out, "");
        ran_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_method_learns_where_to_look),
        cmocka_unit_test(accuracy_is_that_of_the_test_images),
        cmocka_unit_test(learning_is_drawn_without_measurements),
        cmocka_unit_test(a_wrong_command_line_is_exit_2_and_a_bad_file_exit_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
