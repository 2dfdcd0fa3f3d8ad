/* test_squeeze_excitation.c - networks with and without the blocks read digits they never saw. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "process.h"

#define DIGITS QKV_TEST_DATA "/../../examples/data/digits.npy"
#define ONNX QKV_TEST_DATA "/onnx-attention/test_attention_4d_attn_mask_bool"
#define ARGV(...) ((const char *const[]){QKV_BIN_DIR "/squeeze_excitation", __VA_ARGS__, NULL})

static void both_networks_read_digits_they_never_saw(void **state)
{
    (void)state;
    ran r = run(ARGV("--data", DIGITS, "--epochs", "12", "--seeds", "2", "--seed", "3", "--plot",
                     scratch("drawn")),
                NULL);
    if (r.exit_code) fail_msg("exit code %d: %s", r.exit_code, r.err);
    char *end;
    const double without = strtod(text_after(r.out, "\nmean "), &end), with = strtod(end, &end);
    assert_true(without > 92);
    assert_true(with > 92);
    assert_true(with != without); /* the same starts and orders: the blocks do something */
    assert_close(strtod(end, NULL), with - without, 0.011); /* of rounded numbers */
    const double first = strtod(text_after(r.out, "differs by up to "), NULL);
    const double second = strtod(text_after(r.out, "first block,\n"), NULL);
    if (!(second > 4 * first && second > 0.05)) fail_msg("gates differ: %g, %g", first, second);
    assert_true(strtod(text_after(r.out, "classical formula differ by at most "), NULL) < 1e-5);
    assert_non_null(strstr(r.out, "on 599 images after 12 epochs of 1198 others"));
    static const char *const figures[] = {"weights", "learning"};
    for (int i = 0; i < 2; i++) {
        char name[64];
        size_t bytes;
        snprintf(name, sizeof name, "drawn/squeeze_excitation_%s.svg", figures[i]);
        free(read_file(scratch(name), &bytes));
        assert_true(bytes > 1000);
    }
    ran_free(&r);
}

enum { ROWS = 3, COLUMNS = 65, HEADER = 128 };

/* An .npy of zeros but for one element, which is the size bytes of x. */
static void write_digits(const char *path, const char *type, size_t size, size_t i, const void *x)
{
    char file[HEADER + ROWS * COLUMNS * sizeof(double)] = "\x93NUMPY\x01\0\x76";
    const int length =
        snprintf(file + 10, HEADER - 10,
                 "{'descr': '%s', 'fortran_order': False, 'shape': (3, 65), }", type);
    memset(file + 10 + length, ' ', (size_t)(HEADER - 11 - length));
    file[HEADER - 1] = '\n';
    memcpy(file + HEADER + i * size, x, size);
    write_file(path, file, HEADER + ROWS * COLUMNS * size);
}

/* Two images of a 0 to learn from; the same image is tested on, and said to be of a 1. */
static void accuracy_is_that_of_the_test_images(void **state)
{
    (void)state;
    write_digits(scratch("one.npy"), "|u1", 1, ROWS * COLUMNS - 1, &(unsigned char){1});
    ran r = run(ARGV("--data", scratch("one.npy"), "--epochs", "9", "--seeds", "1", "--plot", ""),
                NULL);
    if (r.exit_code) fail_msg("exit code %d: %s", r.exit_code, r.err);
    double accuracy[2];
    numbers_after(r.out, "\nmean ", accuracy, 2);
    for (int i = 0; i < 2; i++) assert_close(accuracy[i], 0, 0);
    ran_free(&r);
}

/* One image to be tested on, of a 0: there is no digit whose weights could differ from it. */
static void a_digit_without_images_has_no_weights(void **state)
{
    (void)state;
    write_digits(scratch("zeros.npy"), "|u1", 1, 0, &(unsigned char){16});
    ran r = run(ARGV("--data", scratch("zeros.npy"), "--epochs", "2", "--seeds", "1", "--plot", ""),
                NULL);
    if (r.exit_code) fail_msg("exit code %d: %s", r.exit_code, r.err);
    assert_close(strtod(text_after(r.out, "differs by up to "), NULL), 0, 0);
    assert_close(strtod(text_after(r.out, "first block,\n"), NULL), 0, 0);
    ran_free(&r);
}

static void what_are_no_digits_is_exit_1_and_a_wrong_command_line_exit_2(void **state)
{
    (void)state;
    write_digits(scratch("pixel.npy"), "|u1", 1, COLUMNS + 7, &(unsigned char){17});
    write_digits(scratch("label.npy"), "<f8", 8, 3 * COLUMNS - 1, &(double){3.5});
    const struct {
        const char *option, *value, *message;
        int exit_code;
    } cases[] = {{"--data", "/no/such/file", "/no/such/file", 1},
                 {"--data", ONNX "/Q.npy", "columns, found float32 [", 1},
                 {"--data", ONNX "/attn_mask.npy",
                  "expected an array of 3 or more rows and 65 columns, found bool [4, 6]\n", 1},
                 {"--data", scratch("pixel.npy"),
                  "row 1, column 7 is 17, which is no pixel from 0 to 16", 1},
                 {"--data", scratch("label.npy"), "row 2, column 64 is 3.5, which is no digit", 1},
                 {"--seeds", "21", "--seeds: 21 is not between 1 and 20", 2},
                 {"--epochs", "0", "--epochs: 0 is not between", 2},
                 {"--format", "gif", "--format: 'gif' is none of svg, png, pdf", 2}};
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
        cmocka_unit_test(both_networks_read_digits_they_never_saw),
        cmocka_unit_test(accuracy_is_that_of_the_test_images),
        cmocka_unit_test(a_digit_without_images_has_no_weights),
        cmocka_unit_test(what_are_no_digits_is_exit_1_and_a_wrong_command_line_exit_2),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
