/* The programs a person runs: their answers, their figures, their exit codes. */
#include "support.h"

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "process.h"
#include "qkv/npy.h"

#define HEATMAP QKV_BIN_DIR "/heatmap"
#define DATABASE QKV_BIN_DIR "/database"
#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Runs argv and asserts its exit code, and that its output and its errors contain those texts. */
static void assert_run(const char *const *argv, int exit_code, const char *out, const char *err)
{
    ran r = run(argv, NULL);
    bool right = r.exit_code == exit_code && strstr(r.out, out) && strstr(r.err, err);
    if (!right)
        print_error("%s %s: exit code %d, expected %d with \"%s\" and \"%s\"\nout: %s\nerr: %s\n",
                    argv[0], argv[1] ? argv[1] : "", r.exit_code, exit_code, out, err, r.out,
                    r.err);
    assert_true(right);
    assert_true((*err != '\0') == (*r.err != '\0'));
    ran_free(&r);
}

static void every_program_explains_itself(void **state)
{
    (void)state;
    static const char *const programs[] = {HEATMAP,
                                           DATABASE,
                                           QKV_BIN_DIR "/approximate_match",
                                           QKV_BIN_DIR "/attend",
                                           QKV_BIN_DIR "/covariance",
                                           QKV_BIN_DIR "/hard_attention",
                                           QKV_BIN_DIR "/large_database",
                                           QKV_BIN_DIR "/nadaraya_watson",
                                           QKV_BIN_DIR "/scoring",
                                           QKV_BIN_DIR "/search_engine",
                                           QKV_BIN_DIR "/squeeze_excitation",
                                           QKV_BIN_DIR "/transformer"};
    for (size_t i = 0; i < sizeof programs / sizeof *programs; i++) {
        assert_run(ARGV(programs[i], "--help"), 0, "Usage: ", "");
        assert_run(ARGV(programs[i], "--help"), 0, "Exit status: 0 done", "");
        assert_run(ARGV(programs[i], "--version"), 0, qkv_version(), "");
        assert_run(ARGV(programs[i], "--bogus"), 2, "",
                   ": unknown or ambiguous option --bogus\nTry");
        assert_run(ARGV(programs[i], "--help=x"), 2, "", "takes no argument");
        assert_run(ARGV(programs[i], "a", "b"), 2, "", "Try '");
    }
}

/* The last number of the line that says so. */
static void the_jacobian_of_attention_is_the_same_four_ways(void **state)
{
    (void)state;
    static const char *const sizes[][3] = {{"12", "2", "1"},
                                           {"1", "3", "0.5"},
                                           {"20", "5", "-0.7"},
                                           {"7", "3", "0"},
                                           {"9", "2", "40"}};
    for (int i = 0; i < 5; i++) {
        ran r = run(ARGV(QKV_BIN_DIR "/covariance", "--plot", "", "--keys", sizes[i][0], "--dim",
                         sizes[i][1], "--scale", sizes[i][2]),
                    NULL);
        assert_int_equal(r.exit_code, 0);
        assert_true(number_after(r.out, "tape and covariance ") < 1e-12);
        assert_true(number_after(r.out, "log-sum-exp and covariance ") < 1e-12);
        assert_true(number_after(r.out, "its gradient and attention ") < 1e-13);
        assert_non_null(strstr(r.out, "log-sum-exp, twice"));
        ran_free(&r);
    }
}

static void heatmap_draws_the_identity_by_default(void **state)
{
    (void)state;
    ran r = run(ARGV(HEATMAP), NULL);
    assert_int_equal(r.exit_code, 0);
    for (int i = 0; i < 10; i++) {
        char row[64];
        snprintf(row, sizeof row, "%*s\u2588\u2588%*s\n", 2 * i, "", 2 * (9 - i), "");
        assert_non_null(strstr(r.out, row));
    }
    ran_free(&r);
    assert_run(ARGV(HEATMAP, "--scale", "-1,3"), 0, "from -1 (blank) to 3 (full)", "");
    assert_run(ARGV(HEATMAP, "--output", scratch("id.svg"), "--keep-script"), 0, "", "");
    char *script = read_file(scratch("id.svg.gp"), NULL),
         *data = read_file(scratch("id.svg.dat"), NULL);
    assert_non_null(strstr(script, "set xlabel 'Keys'"));
    assert_non_null(strstr(script, "set label 1 'Queries'"));
    assert_non_null(strstr(script, "#67000d"));
    assert_non_null(strstr(data, "1 0 0 0 0 0 0 0 0 0 \n0 1 0 0 0 0 0 0 0 0 \n"));
    free(script);
    free(data);
}

static void save(const char *path, qkv_npy_type type, int rank, void *data)
{
    qkv_npy a = {.type = type, .rank = rank, .dim = {2, 2, 2, 2, 2}, .data = data};
    if (rank < 2) a.dim[0] = 16;
    assert_ok(qkv_npy_save(&a, path));
}

static void heatmap_draws_any_npy_of_two_to_four_axes(void **state)
{
    (void)state;
    double f8[32] = {0.25, 1};
    float f4[32] = {0.25f, 1};
    int64_t i8[32] = {-3, 5};
    uint8_t b1[32] = {7, 0, 1};
    void *data[] = {
        [QKV_NPY_F32] = f4, [QKV_NPY_F64] = f8, [QKV_NPY_I64] = i8, [QKV_NPY_BOOL] = b1};
    static const char *const first_row[] = {"0.25 1 \n", "0.25 1 \n", "-3 5 \n", "1 0 \n"};
    const char *npy = scratch("in.npy"), *svg = scratch("out.svg");
    for (int type = 0; type < 4; type++) {
        for (int rank = 2; rank <= 4; rank++) {
            save(npy, (qkv_npy_type)type, rank, data[type]);
            assert_run(ARGV(HEATMAP, npy, "--output", svg, "--keep-script", "--title", "100% 'A'",
                            "--palette", "VIRIDIS", "--size", "6,5", "--xlabel", "to", "--ylabel",
                            "from"),
                       0, "", "");
            char *text = read_file(scratch("out.svg.dat"), NULL);
            assert_int_equal(strncmp(text, first_row[type], strlen(first_row[type])), 0);
            free(text);
            text = read_file(scratch("out.svg.gp"), NULL);
            assert_non_null(strstr(text, "size 576,480"));
            assert_non_null(strstr(text, "set xlabel 'to'"));
            assert_non_null(strstr(text, "set title '100% '"));
            assert_non_null(strstr(text, "#fde725"));
            free(text);
        }
    }
    save(npy, QKV_NPY_F64, 1, f8);
    assert_run(ARGV(HEATMAP, npy), 1, "", "in.npy has 1 axis, expected 2 to 4");
    save(npy, QKV_NPY_F64, 5, f8);
    assert_run(ARGV(HEATMAP, npy), 1, "", "has 5 axes");
    const qkv_npy none = {.type = QKV_NPY_F64, .rank = 2, .dim = {3, 0}, .data = f8};
    assert_ok(qkv_npy_save(&none, npy));
    assert_run(ARGV(HEATMAP, npy), 1, "", "in.npy: axis 1 of 2 has size 0");
}

static void heatmap_tells_wrong_usage_from_failure(void **state)
{
    (void)state;
    assert_run(ARGV(HEATMAP, scratch("absent.npy")), 1, "", "heatmap: ");
    write_file(scratch("bad.npy"), "no", 2);
    assert_run(ARGV(HEATMAP, scratch("bad.npy")), 1, "", "bad.npy, byte 0");
    assert_run(ARGV(HEATMAP, "--output", "x.jpg"), 1, "", "x.jpg");
    assert_run(ARGV(HEATMAP, "--output", scratch("no/x.svg")), 1, "", "no/x.svg");
    assert_run(ARGV(HEATMAP, "--output"), 2, "", "--output needs an argument");
    assert_run(ARGV(HEATMAP, "--palette", "Pinks"), 2, "", "'Pinks'");
    assert_run(ARGV(HEATMAP, "--size", "3"), 2, "", "WIDTH,HEIGHT");
    assert_run(ARGV(HEATMAP, "--size", "3,x"), 2, "", "'x' is not a number");
    assert_run(ARGV(HEATMAP, "--size", "3,0"), 2, "", "not between");
    assert_run(ARGV(HEATMAP, "--scale", "0"), 2, "", "LOW,HIGH");
    assert_run(ARGV(HEATMAP, "--scale", "2,1"), 1, "", "from 2 to 1");
    assert_run(ARGV(HEATMAP, "--title", "a", "--title", "b"), 2, "", "2 titles for 1 column\n");
    assert_run(ARGV(HEATMAP, "--keep-script"), 2, "", "--keep-script needs --output");
    assert_run(ARGV(HEATMAP, "--size", "3,3"), 2, "", "--size needs --output");
    assert_run(ARGV(HEATMAP, "--palette", "Reds"), 2, "", "--palette needs --output");
    assert_run(ARGV(HEATMAP, "--output", ""), 2, "", "--output: the argument");
    assert_run(ARGV(HEATMAP, "--output", "-"), 2, "", "--output: '-' is no stream here");
    assert_run(ARGV(HEATMAP, "-"), 2, "", "'-' is no stream here: expected a path");
    setenv("QKV_GNUPLOT", "/no/such/gnuplot", 1);
    assert_run(ARGV(HEATMAP, "--output", scratch("none.svg")), 1, "", "/no/such/gnuplot");
    unsetenv("QKV_GNUPLOT");
    assert_int_equal(scratch_count("none.svg"), 0);
}

static void the_database_tells_the_chapters_story(void **state)
{
    (void)state;
    ran r = run(ARGV(DATABASE), NULL);
    assert_int_equal(r.exit_code, 0);
    const char *whole = strstr(r.out, "(\"Li\", \"Mu\")");
    assert_non_null(whole);
    const char *found = strstr(whole, "exact:       \"Mu\"  (Li)\n  approximate: \"Mu\"");
    assert_non_null(found);
    assert_non_null(strstr(found, "exact:       no answer\n  approximate: \"Zachary\"  (Lipton)"));
    assert_null(strstr(found, "(\"Li\", \"Mu\")"));
    ran_free(&r);
}

static void the_database_weighs_by_shared_leading_letters(void **state)
{
    (void)state;
    /* Shared letters 3 (Lip), 2 (Li), 0 x 4 at temperature 1: e^3 / (e^3 + e^2 + 4) = 0.638. */
    const char *const *argv = ARGV(DATABASE, "--query", "lip", "--temperature", "1");
    assert_run(argv, 0, "Zachary   3  0.638  #######################\n", "");
    assert_run(argv, 0, "Mu        2  0.235  ########\n", "");
    assert_run(argv, 0, "exact:       no answer\n  approximate: \"Zachary\"", "");
    assert_run(ARGV(DATABASE, "--query", "lip"), 0, "Zachary   3  0.873", ""); /* at 1/2 */
    assert_run(ARGV(DATABASE, "--query", "SMOLA"), 0, "exact:       \"Alex\"", "");
    assert_run(ARGV(DATABASE, "--query", "Xu"), 0, "approximate: no answer", "");
    assert_run(ARGV(DATABASE, "--query", ""), 0, "approximate: no answer", "");
    assert_run(ARGV(DATABASE, "--without", "hu", "--query", "Hu"), 0, "exact:       no answer", "");
    assert_run(ARGV(DATABASE, "--without", "Nobody"), 2, "", "no record of 'Nobody'");
    assert_run(ARGV(DATABASE, "--temperature", "0"), 2, "", "--temperature: 0 is not between");
}

static void the_database_draws_its_weights(void **state)
{
    (void)state;
    const char *directory = scratch("made/by/the/program");
    assert_run(ARGV(DATABASE, "--plot", directory, "--query", "it's {a}"), 0, "database_bars.svg",
               "");
    char *svg = read_file(scratch("made/by/the/program/database_weights.svg"), NULL);
    assert_non_null(strstr(svg, "Werness"));
    assert_non_null(strstr(svg, "it's {a}"));
    free(svg);
    svg = read_file(scratch("made/by/the/program/database_bars.svg"), NULL);
    assert_non_null(strstr(svg, "softmax weight"));
    free(svg);
    assert_run(
        ARGV(DATABASE, "--plot", directory, "--query", "Li", "--query", "Hu", "--query", "Zoe"), 0,
        "", "");
    svg = read_file(scratch("made/by/the/program/database_bars.svg"), NULL);
    static const char *const titles[] = {"\"Li\" asked of all records",
                                         "\"Hu\" asked of all records",
                                         "\"Zoe\" asked of all records"};
    for (int i = 0; i < 3; i++) assert_non_null(strstr(svg, titles[i]));
    free(svg);
    write_file(scratch("file"), "", 0);
    assert_run(ARGV(DATABASE, "--plot", scratch("file")), 1, "", "is not a directory");
}

/* A stand-in for gnuplot that ends the program it draws for, and says what it had left by then. */
static void a_signal_leaves_no_half_written_file(void **state)
{
    (void)state;
    static const char *const names[] = {"INT", "TERM", "HUP"};
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    const char *svg = scratch("killed.svg"), *killer = scratch("killer");
    for (int i = 0; i < 3; i++) {
        char script[600];
        int n = snprintf(script, sizeof script,
                         "#!/bin/sh\nls %s.*.tmp >%s\nkill -%s $PPID\n"
                         "exec sleep 1\n",
                         svg, scratch("seen"), names[i]);
        write_file(killer, script, (size_t)n);
        assert_int_equal(chmod(killer, 0700), 0);
        setenv("QKV_GNUPLOT", killer, 1);
        ran r = run(ARGV(HEATMAP, "--output", svg), NULL);
        unsetenv("QKV_GNUPLOT");
        assert_int_equal(r.exit_code, 128 + numbers[i]);
        ran_free(&r);
        char *seen = read_file(scratch("seen"), NULL);
        assert_non_null(strstr(seen, "killed.svg."));
        free(seen);
        assert_int_equal(scratch_count("killed.svg"), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_program_explains_itself),
        cmocka_unit_test(the_jacobian_of_attention_is_the_same_four_ways),
        cmocka_unit_test(heatmap_draws_the_identity_by_default),
        cmocka_unit_test(heatmap_draws_any_npy_of_two_to_four_axes),
        cmocka_unit_test(heatmap_tells_wrong_usage_from_failure),
        cmocka_unit_test(the_database_tells_the_chapters_story),
        cmocka_unit_test(the_database_weighs_by_shared_leading_letters),
        cmocka_unit_test(the_database_draws_its_weights),
        cmocka_unit_test(a_signal_leaves_no_half_written_file)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
