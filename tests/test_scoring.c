/* test_scoring.c - attention of the following chapters is what plain loops compute; two heads learn
 * what one cannot, on sequences that they were not trained on; and which gradients vanish. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "process.h"

#define PROGRAM QKV_BIN_DIR "/scoring"
#define ARGV(...) ((const char *const[]){PROGRAM, __VA_ARGS__, NULL})

enum { COLUMNS = 7 }; /* scales 0.01, 0.1 .. 10000 */

/* With NaN behind every length, which would spread from one hidden key. */
static void assert_examples(const char *out)
{
    static const char *const lines[] = {
        "\nscaled dot product   (2, 1,   2)  (2, 10,   2)  (2, 10,   4)  1 of  2  2, 6 ",
        "\nadditive             (2, 1,  20)  (2, 10,   2)  (2, 10,   4)  1 of  8  2, 6 ",
        "\nmulti-head           (2, 4, 100)  (2,  6, 100)  (2,  6, 100)  5 of 20  3, 2 "};
    for (int i = 0; i < 3; i++) {
        double difference;
        numbers_after(out, lines[i], &difference, 1);
        assert_true(difference < 1e-13);
    }
}

static void assert_learned(const char *out)
{
    static const char *const scores[] = {"\nadditive          ", "\nscaled dot product"};
    for (int i = 0; i < 2; i++) {
        double errors[4]; /* of 1, 2 and 4 heads held out; before training */
        numbers_after(text_after(out, "    before"), scores[i], errors, 4);
        assert_true(errors[0] > 0.35 && errors[0] < 0.6);
        assert_true(errors[1] < 0.05);
        assert_true(errors[2] < 0.05);
        assert_true(errors[3] > 0.7);
    }
}

static void assert_gradients(const char *out)
{
    static const char *const names[] = {"\nsoftmax ", "\n1.5-entmax ", "\nsparsemax ", "\nboxcar ",
                                        "\nhard "};
    for (int i = 0; i < 5; i++) {
        double median[COLUMNS], zero[COLUMNS];
        const char *row = text_after(out, names[i]);
        numbers_after(row, "median ", median, COLUMNS);
        numbers_after(row, "zero   ", zero, COLUMNS);
        if (i < 3) assert_true(median[1] > 0.01 && zero[0] < 0.5 && zero[COLUMNS - 1] > 90);
        if (i == 0) assert_true(zero[3] < 0.5 && median[4] < 1e-20); /* small, not 0 */
        if (i == 1 || i == 2) assert_true(zero[3] > 80);             /* 0, at a scale of 10 */
        for (int at = 0; i > 2 && at < COLUMNS; at++) assert_true(zero[at] > 99.5);
    }
}

static void it_shows_what_the_chapters_say(void **state)
{
    (void)state;
    static const char *const seeds[] = {"1", "2"};
    for (int i = 0; i < 2; i++) {
        ran r = run(ARGV("--steps", "700", "--seed", seeds[i], "--plot", scratch("scoring")), NULL);
        if (r.exit_code) print_error("%s", r.err);
        assert_int_equal(r.exit_code, 0);
        assert_examples(r.out);
        assert_learned(r.out);
        assert_gradients(r.out);
        ran_free(&r);
    }
    static const char *const figures[] = {"scoring/scoring_heads.svg",
                                          "scoring/scoring_learning.svg",
                                          "scoring/scoring_vanishing.svg"};
    for (int i = 0; i < 3; i++) {
        char *svg = read_file(scratch(figures[i]), NULL);
        assert_non_null(strstr(svg, "</svg>"));
        free(svg);
    }
}

static void a_wrong_command_line_is_exit_2(void **state)
{
    (void)state;
    const char *const lines[][2] = {
        {"--steps", "1"}, {"--seed", "-1"}, {"--format", "gif"}, {"stray"}};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        ran r = run(ARGV(lines[i][0], lines[i][1]), NULL);
        assert_int_equal(r.exit_code, 2);
        assert_string_equal(r.out, "");
        ran_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(it_shows_what_the_chapters_say),
                                       cmocka_unit_test(a_wrong_command_line_is_exit_2)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
