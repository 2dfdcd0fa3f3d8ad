/* examples/gradcheck: its table, its failures as files, its test of itself. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "process.h"
#include "qkv/gradcheck.h"

#define ARGV(...) ((const char *const[]){QKV_BIN_DIR "/gradcheck", __VA_ARGS__, NULL})

static ran assert_exits(const char *const *argv, int exit_code)
{
    ran r = run(argv, NULL);
    if (r.exit_code != exit_code) print_error("exit code %d: %s%s\n", r.exit_code, r.out, r.err);
    assert_int_equal(r.exit_code, exit_code);
    return r;
}

static void assert_says(const char *const *argv, int exit_code, const char *text)
{
    ran r = assert_exits(argv, exit_code);
    if (!strstr(r.out, text) && !strstr(r.err, text))
        print_error("expected \"%s\" in: %s%s\n", text, r.out, r.err);
    assert_true(strstr(r.out, text) || strstr(r.err, text));
    ran_free(&r);
}

static void every_operation_has_a_line_and_a_record(void **state)
{
    (void)state;
    const char *json = scratch("all.json");
    ran r = assert_exits(ARGV("--json", json, "--seed", "5"), 0);
    size_t bytes;
    char *record = read_file(json, &bytes), name[64];
    for (int op = 0; op < qkv_op_count(); op++) {
        snprintf(name, sizeof name, "\n%s ", qkv_op_name(op));
        assert_non_null(strstr(r.out, name));
        snprintf(name, sizeof name, "{\"op\": \"%s\", \"passed\": true", qkv_op_name(op));
        assert_non_null(strstr(record, name));
    }
    assert_non_null(strstr(r.out, " 0 wrong"));
    free(record);
    ran_free(&r);
    assert_says(ARGV("--op", "tanh"), 0, "\n1 operation, 12 elements: 0 wrong");
}

static void a_failure_leaves_a_file_that_runs_again(void **state)
{
    (void)state;
    char *directory = strdup(scratch("failures"));
    const char *const mkdir[] = {"mkdir", directory, NULL};
    ran made = run(mkdir, NULL);
    ran_free(&made);
    assert_says(ARGV("--op", "matmul", "--corrupt", "transposed", "--replay-to", directory), 1,
                "matmul.replay");
    char path[4096];
    snprintf(path, sizeof path, "%s/matmul.replay", directory);
    assert_says(ARGV("--replay", path), 0,
                "the file's gradient: qkv_gradcheck: the gradient is wrong");
    assert_says(ARGV("--replay", path), 0,
                "the library's now:   qkv_gradcheck: the gradient is right everywhere");

    size_t bytes;
    char *text = read_file(path, &bytes), *cut = strstr(text, "cotangent"), more[64];
    assert_non_null(cut);
    char *longer = malloc(bytes + sizeof more);
    memcpy(longer, text, bytes);
    memcpy(longer + bytes, "more\n", 5);
    write_file(path, longer, bytes + 5);
    assert_says(ARGV("--replay", path), 1, "expected the end of the file");
    static const char *const fields[] = {"\nlabel matmul", "\nseed 1"}, *const expected[] = {
                                                                            "expected matmul",
                                                                            "an integer in range"};
    for (int i = 0; i < 2; i++) {
        memcpy(longer, text, bytes);
        char *at = strstr(longer, fields[i]);
        assert_non_null(at);
        at[7 - i] = 'x'; /* the word's first letter, the number's first digit */
        if (i) at[6] = 'x';
        write_file(path, longer, bytes);
        assert_says(ARGV("--replay", path), 1, expected[i]);
    }
    free(longer);
    write_file(path, text, (size_t)(cut - text));
    assert_says(ARGV("--replay", path), 1, "expected cotangent");
    write_file(path, "qkv gradcheck replay 2\nop none\n", 31);
    assert_says(ARGV("--replay", path), 1, ":2: there is no operation 'none'");
    write_file(path, "something else\n", 15);
    assert_says(ARGV("--replay", path), 1, ":1: expected qkv gradcheck replay 2");
    assert_says(ARGV("--replay", "/nowhere"), 1, "/nowhere: cannot be read");
    free(text);
    free(directory);
}

static void the_check_catches_all_that_is_planted_and_nothing_else(void **state)
{
    (void)state;
    ran r = assert_exits(ARGV("--self-test", "--seeds", "3"), 0);
    long caught, planted, refused, right;
    const char *line = strstr(r.out, " corrupted gradients caught");
    assert_non_null(line);
    while (line > r.out && line[-1] != '\n') line--;
    assert_int_equal(sscanf(line, "%ld of %ld corrupted gradients caught, %ld of %ld", &caught,
                            &planted, &refused, &right),
                     4);
    assert_int_equal(caught, planted);
    assert_true(planted > 4000);
    assert_int_equal(refused, 0);
    assert_true(right > 250);
    ran_free(&r);
}

static void a_record_of_failures_is_json(void **state)
{
    (void)state;
    const char *json = scratch("failed.json"), *directory = scratch("");
    ran r = assert_exits(
        ARGV("--op", "tanh", "--corrupt", "nan", "--json", json, "--replay-to", directory), 1);
    char *record = read_file(json, NULL);
    assert_non_null(strstr(record, "\"passed\": false"));
    assert_non_null(strstr(record, "\"error\": null"));
    assert_non_null(strstr(record, "\"certificate\": null"));
    assert_null(strstr(record, "nan"));
    assert_null(strstr(record, "inf,"));
    free(record);
    ran_free(&r);
    r = assert_exits(ARGV("--op", "tanh", "--json", json), 0);
    record = read_file(json, NULL);
    assert_non_null(strstr(record, "\"directions\": 8"));
    assert_non_null(strstr(record, "\"error_norm\": "));
    assert_non_null(strstr(record, "\"delta\": 1e-06"));
    free(record);
    ran_free(&r);
}

static void mistakes_on_the_command_line_are_named(void **state)
{
    (void)state;
    assert_says(ARGV("--op", "nothing"), 2, "'nothing' is none of what --op list lists");
    assert_says(ARGV("--op", "list"), 0, "\nlayer_norm\n");
    assert_says(ARGV("--op", "tanh"), 0, "     32 "); /* what float may be off is said */
    assert_says(ARGV("--corrupt", "badly"), 2, "--corrupt list");
    assert_says(ARGV("--corrupt", "list"), 0, "heads swapped");
    assert_says(ARGV("--seeds", "0"), 2, "seeds");
    assert_says(ARGV("extra"), 2, "'extra'");
    assert_says(ARGV("--json", "/nowhere/x.json", "--op", "add"), 1, "/nowhere/x.json");
    assert_says(ARGV("--json", "/nowhere/x.json", "--op", "add"), 1, "gradcheck: --json: cannot");
    assert_says(ARGV("--self-test", "--op", "add"), 2, "--op does not go with --self-test");
    assert_says(ARGV("--self-test", "--json", "x"), 2, "--json does not go with --self-test");
    assert_says(ARGV("--replay", "x", "--op", "add"), 2, "--op does not go with --replay");
    assert_says(ARGV("--seeds", "3"), 2, "--seeds does not go alone");
    assert_says(ARGV("--help"), 0, "--self-test");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_has_a_line_and_a_record),
        cmocka_unit_test(a_failure_leaves_a_file_that_runs_again),
        cmocka_unit_test(the_check_catches_all_that_is_planted_and_nothing_else),
        cmocka_unit_test(a_record_of_failures_is_json),
        cmocka_unit_test(mistakes_on_the_command_line_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
