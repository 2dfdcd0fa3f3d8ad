/* test_search_engine.c - the search engine learns, on queries that it has not learned from. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "process.h"

static const char program[] = QKV_BIN_DIR "/search_engine";
static const char debian[] = QKV_TEST_DATA "/../../examples/data/debian.tsv";

/* Runs the program with up to 18 arguments. */
static ran search(const char *const *arguments)
{
    const char *argv[20] = {program};
    for (int i = 0; arguments[i]; i++) argv[i + 1] = arguments[i];
    return run(argv, NULL);
}

#define SEARCH(...) search((const char *const[]){__VA_ARGS__, NULL})
#define SHORT \
    "--corpus", debian, "--pairs", "1500", "--epochs", "5", "--dim", "32", "--held-out", "0.3"

static const char query[] = "simulation of planetary gravity";

/* One training serves several tests. */
static ran learned;

static int learn(void **state)
{
    (void)state;
    learned = SEARCH(SHORT, "--plot", scratch("figures"), "--save", scratch("model.safetensors"),
                     "--query", query);
    return learned.exit_code;
}

static int forget(void **state)
{
    (void)state;
    ran_free(&learned);
    return 0;
}

static void it_finds_what_it_has_not_learned_from(void **state)
{
    (void)state;
    double before[4], after[4]; /* recall at 1, 5 and 10, mean reciprocal rank */
    assert_non_null(strstr(learned.out, "1500 pairs, 1050 to learn from and 450 held out"));
    numbers_after(learned.out, "\nbefore learning", before, 4);
    numbers_after(learned.out, "\nafter learning", after, 4);
    assert_true(after[3] > before[3] + 0.02);
    assert_true(after[3] > 0.75 && after[2] > 0.85);
    assert_true(before[3] > 0.6); /* random embeddings tell words apart, too */
}

/* As another program has it, written in Python with NumPy: k1 and b by the training part of the
 * same split, recall and mean reciprocal rank by the rest. */
static void bm25_is_bm25(void **state)
{
    (void)state;
    static const char whole[] = "\nBM25, whole words, k1 0.8, b 0.4 ";
    static const double expected[4] = {0.702, 0.831, 0.880, 0.767};
    double found[4];
    numbers_after(learned.out, whole, found, 4);
    for (int i = 0; i < 4; i++) assert_close(found[i], expected[i], 1e-9);
}

/* Of the ten queries shown the right document is there, with a star, wherever it ranks. */
static void it_draws_its_figures(void **state)
{
    (void)state;
    size_t bytes;
    free(read_file(scratch("figures/search_engine_learning.svg"), &bytes));
    assert_true(bytes > 5000);
    char *weights = read_file(scratch("figures/search_engine_weights.svg"), NULL);
    int stars = 0;
    for (const char *at = weights; (at = strstr(at, ">* ")); at++) stars++;
    assert_int_equal(stars, 10);
    free(weights);
}

/* Columns: temperature; soft and exact; top-10 and exact; soft and top-10. */
static void exact_top_and_soft_retrieval_agree_as_the_temperature_falls(void **state)
{
    (void)state;
    enum { ROWS = 7 };
    double x[ROWS * 4];
    numbers_after(learned.out, "soft, top-10\n", x, ROWS * 4);
    for (int i = 1; i < ROWS; i++) {
        assert_true(x[4 * i] < x[4 * i - 4]);
        for (int k = 1; k < 4; k++) assert_true(x[4 * i + k] <= x[4 * i + k - 4]);
    }
    assert_true(x[1] > 0.5 && x[2] > 0.3 && x[3] > 0.3);
    const double *last = x + 4 * (ROWS - 1);
    assert_true(last[1] < 0.01 && last[2] < 0.01 && last[3] < 1e-4);
}

static void a_saved_engine_answers_as_the_one_that_learned(void **state)
{
    (void)state;
    ran loaded =
        SEARCH(SHORT, "--plot", "", "--load", scratch("model.safetensors"), "--query", query);
    assert_int_equal(loaded.exit_code, 0);
    const char *a = strstr(learned.out, "\nQuery"), *b = strstr(loaded.out, "\nQuery");
    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal(strncmp(a, b, strlen(b)), 0);
    assert_null(strstr(loaded.out, "BM25"));
    ran_free(&loaded);
}

/* Queries are three numbers in English, documents the same in Hungarian: no letters help, all must
 * come from the pairs. Each is another three. */
static void write_numbers(const char *path)
{
    static const char *const english[] = {
        "one",   "two",    "three", "four",   "five", "six",     "ten",      "nine",
        "eight", "eleven", "seven", "twenty", "zero", "hundred", "thousand", "million"};
    static const char *const hungarian[] = {"egy",   "ketto",  "harom", "negy",     "ot",  "hat",
                                            "tiz",   "kilenc", "nyolc", "tizenegy", "het", "husz",
                                            "nulla", "szaz",   "ezer",  "millio"};
    enum { NUMBERS = sizeof english / sizeof *english };
    char *csv = malloc(1 << 20), *at = csv;
    for (int i = 0; i < NUMBERS; i++)
        for (int j = 0; j < i; j++)
            for (int k = 0; k < j; k++)
                at += sprintf(at, "%s %s %s,%s %s %s\n", english[j], english[k], english[i],
                              hungarian[i], hungarian[j], hungarian[k]);
    write_file(path, csv, (size_t)(at - csv));
    free(csv);
}

static void it_learns_a_language_from_pairs_alone(void **state)
{
    (void)state;
    const char *numbers = scratch("numbers.csv");
    write_numbers(numbers);
    double before[4], after[4], bm25[1], wrong[4];
    ran r = SEARCH("--corpus", numbers, "--plot", "", "--epochs", "10");
    assert_int_equal(r.exit_code, 0);
    numbers_after(r.out, "\nbefore learning", before, 4);
    numbers_after(r.out, "\nafter learning", after, 4);
    numbers_after(r.out, "\nafter learning - BM25, whole words", bm25, 1);
    assert_true(before[3] < 0.1);
    assert_true(after[0] > 0.9 && after[3] > 0.9);
    assert_true(bm25[0] > 0.8);
    ran_free(&r);
    r = SEARCH("--corpus", numbers, "--plot", "", "--epochs", "10", "--mismatch");
    assert_int_equal(r.exit_code, 0);
    numbers_after(r.out, "\nafter learning", wrong, 4);
    assert_true(wrong[3] < 0.1);
    ran_free(&r);
}

/* Which word goes with which was drawn by lot: of a pair held out there is nothing to be known. */
static void what_only_a_pair_tells_is_not_known_of_those_held_out(void **state)
{
    (void)state;
    enum { PAIRS = 60 };
    char csv[PAIRS * 16] = "";
    for (int i = 0; i < PAIRS; i++)
        sprintf(csv + strlen(csv), "q%dq,d%dd\n", 100 + i, 700 + i * 37 % PAIRS);
    write_file(scratch("lots.csv"), csv, strlen(csv));
    ran r = SEARCH("--corpus", scratch("lots.csv"), "--plot", "", "--epochs", "150", "--rate",
                   "0.02", "--dropout", "0", "--held-out", "0.5");
    assert_int_equal(r.exit_code, 0);
    double after[4];
    numbers_after(r.out, "\nafter learning", after, 4);
    assert_true(after[3] < 0.25);
    assert_non_null(strstr(r.err, "loss 0.")); /* it has learned those it was given */
    ran_free(&r);
}

static void bm25_as_the_bias_helps(void **state)
{
    (void)state;
    ran r = SEARCH("--corpus", debian, "--pairs", "800", "--epochs", "3", "--dim", "24", "--plot",
                   "", "--bias");
    assert_int_equal(r.exit_code, 0);
    double gain[1], weight[1];
    numbers_after(r.out, "\nafter learning - BM25, whole words", gain, 1);
    numbers_after(r.out, "weight of BM25's score", weight, 1);
    assert_true(gain[0] > 0);
    assert_true(weight[0] > 0.3);
    ran_free(&r);
}

/* Twenty fruits, each with a name that only its own document has. */
static void any_two_columns_do(void **state)
{
    (void)state;
    char csv[4000] = "";
    for (int i = 0; i < 20; i++)
        sprintf(csv + strlen(csv), "fruit x%dq,\"a \"\"sweet\"\" one, of x%dq;\nand %d more\"\n", i,
                i, i + 7);
    write_file(scratch("fruits.csv"), csv, strlen(csv));
    ran r = SEARCH("--corpus", scratch("fruits.csv"), "--plot", "", "--epochs", "2", "--query",
                   "x11q", "--top", "1");
    assert_int_equal(r.exit_code, 0);
    assert_non_null(strstr(r.out, "20 pairs, 16 to learn from and 4 held out"));
    const char *answer = strstr(r.out, "Query \"x11q\"\n");
    assert_non_null(answer);
    assert_non_null(strstr(answer, "  fruit x11q\n"));
    ran_free(&r);
}

/* The sixtieth byte is the last of a letter in one query, the first of two in the other. */
static void a_long_query_is_cut_between_letters(void **state)
{
    (void)state;
    char csv[4000] = "";
    for (int i = 0; i < 10; i++)
        sprintf(csv + strlen(csv), "x%0*d\u00e4 and so on,document %d\n", 57 + i % 2, i, i);
    write_file(scratch("long.csv"), csv, strlen(csv));
    ran r = SEARCH("--corpus", scratch("long.csv"), "--plot", "", "--epochs", "1", "--top", "10");
    assert_int_equal(r.exit_code, 0);
    assert_non_null(strstr(r.out, "0004\u00e4\u2026\n"));
    assert_non_null(strstr(r.out, "0005\u2026\n"));
    ran_free(&r);
}

/* A tab makes a file tab separated only if it is in the first row. */
static void a_tab_within_a_text_is_none_between_columns(void **state)
{
    (void)state;
    char csv[4000] = "";
    for (int i = 0; i < 20; i++)
        sprintf(csv + strlen(csv), "fruit x%dq,\"of%sx%dq, sweet\"\n", i, i ? "\t" : " ", i);
    write_file(scratch("tabs.csv"), csv, strlen(csv));
    ran r = SEARCH("--corpus", scratch("tabs.csv"), "--plot", "", "--epochs", "1", "--query",
                   "x11q", "--top", "1");
    if (r.exit_code) fail_msg("exit code %d: %s", r.exit_code, r.err);
    assert_non_null(strstr(r.out, "  fruit x11q\n"));
    ran_free(&r);
}

static void what_is_wrong_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *content, *message;
    } bad[] = {{"a\tb\nc\n", "bad.tsv, row 2: columns: 1, expected a query and a document"},
               {"a\tb\nc\td\ne\tf\ng\t,\n", "bad.tsv: 3 of 4 rows to learn from and 1 held out"},
               {"", "bad.tsv: 0 of 0 rows to learn from"},
               {"a,b\nc,\"d\ne,f\n", "bad.tsv, row 2: a quote is not closed"},
               {"a,b\nc,d \"e\" f\n", "bad.tsv, row 2: a quote within a field"},
               {"a\tb\na\tb\na\tb\na\tb\na\tb\na\tb\na\tb\na\tb\na\tb\n?\tb\n",
                "bad.tsv, row 10: a text without words"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_file(scratch("bad.tsv"), bad[i].content, strlen(bad[i].content));
        ran r = SEARCH("--corpus", scratch("bad.tsv"), "--plot", "");
        assert_int_equal(r.exit_code, 1);
        if (!strstr(r.err, bad[i].message)) fail_msg("no '%s' in: %s", bad[i].message, r.err);
        assert_string_equal(r.out, "");
        ran_free(&r);
    }
    write_file(scratch("bad.tsv"), "a\tb\nc\0d\te\n", 10);
    ran r = SEARCH("--corpus", scratch("bad.tsv"), "--plot", "");
    assert_int_equal(r.exit_code, 1);
    assert_non_null(strstr(r.err, "bad.tsv: has a NUL byte"));
    ran_free(&r);
    r = SEARCH("--corpus", scratch("absent.tsv"));
    assert_int_equal(r.exit_code, 1);
    assert_non_null(strstr(r.err, "absent.tsv: No such file"));
    ran_free(&r);
    r = SEARCH("--load", "a", "--save", "b");
    assert_int_equal(r.exit_code, 2);
    ran_free(&r);
}

/* Before the learning, which such a mistake would throw away. */
static void what_cannot_be_written_is_told_at_once(void **state)
{
    (void)state;
    const char *const lines[][2] = {{"--save", scratch("no/model.safetensors")},
                                    {"--plot", "/dev/null/figures"},
                                    {"--plot", "/proc"}};
    for (int i = 0; i < 3; i++) {
        ran r = SEARCH("--corpus", debian, "--pairs", "100", lines[i][0], lines[i][1]);
        assert_int_equal(r.exit_code, 1);
        assert_null(strstr(r.err, "learning"));
        ran_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_finds_what_it_has_not_learned_from),
        cmocka_unit_test(bm25_is_bm25),
        cmocka_unit_test(it_draws_its_figures),
        cmocka_unit_test(exact_top_and_soft_retrieval_agree_as_the_temperature_falls),
        cmocka_unit_test(a_saved_engine_answers_as_the_one_that_learned),
        cmocka_unit_test(it_learns_a_language_from_pairs_alone),
        cmocka_unit_test(what_only_a_pair_tells_is_not_known_of_those_held_out),
        cmocka_unit_test(bm25_as_the_bias_helps),
        cmocka_unit_test(any_two_columns_do),
        cmocka_unit_test(a_long_query_is_cut_between_letters),
        cmocka_unit_test(a_tab_within_a_text_is_none_between_columns),
        cmocka_unit_test(what_is_wrong_is_told),
        cmocka_unit_test(what_cannot_be_written_is_told_at_once),
    };
    return cmocka_run_group_tests(tests, learn, forget);
}
