/* test_transformer.c - the transformer learns two short tasks, on sequences that it never saw. */
#include "support.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "process.h"

#define TRANSFORMER QKV_BIN_DIR "/transformer"
#define ARGV(...) ((const char *const[]){TRANSFORMER, "--lengths", "2,4", __VA_ARGS__, NULL})

static ran transform(const char *const *argv)
{
    ran r = run(argv, NULL);
    if (r.exit_code) fail_msg("exit code %d: %s", r.exit_code, r.err);
    return r;
}

/* The report, from its first line on. */
static const char *report(const ran *r)
{
    const char *at = strstr(r->out, "Sequences of 2 to 4");
    assert_non_null(at);
    return at;
}

static void it_reverses_and_sorts_what_it_never_saw(void **state)
{
    (void)state;
    const char *weights = scratch("weights.safetensors");
    ran r = transform(ARGV("--steps", "250", "--ask", "300", "--sequence", "pond", "--save",
                           weights, "--plot", scratch("drawn")));
    assert_true(number_after(r.out, "  reverse ") >= 95);
    assert_true(number_after(r.out, "  sort ") >= 90);
    assert_non_null(strstr(r.out, "\nreverse    dnop\n"));
    assert_non_null(strstr(r.out, "\nsort       dnop\n"));
    static const char *const figures[] = {"reverse", "sort", "encoder", "decoder", "learning"};
    for (int i = 0; i < 5; i++) {
        char name[64];
        size_t bytes;
        snprintf(name, sizeof name, "drawn/transformer_%s.svg", figures[i]);
        char *svg = read_file(scratch(name), &bytes);
        assert_true(bytes > 1000);
        const bool some_is_hidden = strstr(svg, "rgb(224, 224, 224)") != NULL;
        assert_int_equal(some_is_hidden, strcmp(figures[i], "decoder") == 0);
        free(svg);
    }

    ran again = transform(ARGV("--steps", "0", "--ask", "300", "--sequence", "pond", "--load",
                               weights, "--plot", scratch("again"), "--format", "png"));
    assert_int_equal(access(scratch("again/transformer_sort.png"), F_OK), 0);
    const char *learned = report(&r), *end = strstr(learned, "\nwrote");
    assert_non_null(end);
    assert_int_equal(strncmp(report(&again), learned, strlen("Sequences of 2 to 4 letters")), 0);
    assert_close(number_after(report(&again), "  reverse "), number_after(learned, "  reverse "),
                 0);
    assert_close(number_after(report(&again), "  sort "), number_after(learned, "  sort "), 0);
    ran_free(&again);
    ran_free(&r);
}

static void without_learning_it_knows_nothing(void **state)
{
    (void)state;
    ran r = transform(ARGV("--steps", "0", "--ask", "300", "--plot", ""));
    assert_true(number_after(r.out, "  reverse ") < 5);
    assert_true(number_after(r.out, "  sort ") < 5);
    ran_free(&r);
}

/* MiB, the most that a program run so far has had. */
static double most_memory(void)
{
    struct rusage r;
    assert_int_equal(getrusage(RUSAGE_CHILDREN, &r), 0);
    return (double)r.ru_maxrss / 1024;
}

/* Asked at once, so many would take another 800 MiB. */
static void memory_does_not_grow_with_the_questions(void **state)
{
    (void)state;
    ran few = transform(ARGV("--steps", "0", "--ask", "128", "--plot", ""));
    const double before = most_memory();
    ran many = transform(ARGV("--steps", "0", "--ask", "3000", "--plot", ""));
    assert_true(most_memory() < before + 300);
    assert_true(number_after(many.out, "  sort ") < 5);
    ran_free(&few);
    ran_free(&many);
}

static void a_wrong_command_line_is_exit_2_and_a_bad_file_exit_1(void **state)
{
    (void)state;
    static const struct {
        const char *option, *value, *message;
        int exit_code;
    } cases[] = {{"--lengths", "3", "--lengths: '3' is not FROM,TO", 2},
                 {"--lengths", "5,4", "--lengths: 5 is not between 1 and 4", 2},
                 {"--lengths", "2,17", "--lengths: 17 is not between 1 and 16", 2},
                 {"--sequence", "quay", "--sequence: 'quay' is not 1 to 16 letters from a to p", 2},
                 {"--steps", "-1", "--steps: -1 is not between", 2},
                 {"--format", "gif", "--format: 'gif' is none of svg, png, pdf", 2},
                 {"--load", "/no/such/file", "/no/such/file", 1},
                 {"--save", "/no/such/file", "--save: cannot create /no/such/file: No such", 1},
                 {"--save", "/tmp", "--save: cannot create /tmp: Is a directory", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ran r = run(ARGV("--steps", "0", "--plot", "", cases[i].option, cases[i].value), NULL);
        if (!strstr(r.err, cases[i].message)) fail_msg("no '%s' in: %s", cases[i].message, r.err);
        assert_int_equal(r.exit_code, cases[i].exit_code);
        assert_string_equal(r.out, "");
        ran_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_reverses_and_sorts_what_it_never_saw),
        cmocka_unit_test(without_learning_it_knows_nothing),
        cmocka_unit_test(memory_does_not_grow_with_the_questions),
        cmocka_unit_test(a_wrong_command_line_is_exit_2_and_a_bad_file_exit_1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
