/* test_approximate_match.c - what attention finds is what a search finds, and it has a gradient
 * exactly where weights fade with distance. */
#include "support.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "process.h"

#define PROGRAM QKV_BIN_DIR "/approximate_match"
#define ARGV(...) ((const char *const[]){PROGRAM, __VA_ARGS__, NULL})

enum { QUERIES = 20 };

typedef struct row {
    int answered, same, agreed, compared;
    double difference, steepness;
} row;

/* What the table says of a match; agreed and compared are 0 where there is no slope. */
static row read_row(const char *table, const char *match)
{
    enum { NAMES = 44 }; /* columns */
    char begin[64];
    snprintf(begin, sizeof begin, "\n%s  ", match);
    const char *line = strstr(table, begin);
    if (!line) fail_msg("no '%s' in: %s", match, table);
    row r = {0};
    int queries,
        found = sscanf(line + 1 + NAMES, "%d/%d %d/20 %lf %lf %d/%d", &r.answered, &queries,
                       &r.same, &r.difference, &r.steepness, &r.agreed, &r.compared);
    assert_true(found == 7 || found == 5);
    assert_int_equal(queries, QUERIES);
    return r;
}

static void assert_table(const char *table)
{
    static const struct {
        const char *match;
        bool slope;
    } matches[] = {{"exact", false},       {"nearest", false},
                   {"k nearest", false},   {"k nearest, weighted", true},
                   {"range", false},       {"count in range", false},
                   {"fading range", true}, {"nearest, nearly", true}};
    for (int i = 0; i < 8; i++) {
        row r = read_row(table, matches[i].match);
        assert_int_equal(r.same, QUERIES);
        assert_true(r.difference < 1e-13);
        assert_int_equal(r.agreed, r.compared);
        if (matches[i].slope) assert_true(r.steepness > 1);
        if (!matches[i].slope) assert_close(r.steepness, 0, 0);
        if (i == 0) assert_int_equal(r.answered, QUERIES / 2); /* those that are keys of records */
        if (i > 0) assert_true(r.compared >= QUERIES / 2);
    }
}

static void attention_finds_what_a_search_finds(void **state)
{
    (void)state;
    static const char *const seeds[] = {"1", "7", "2026"};
    for (int i = 0; i < 3; i++) {
        ran r = run(ARGV("--records", "1500", "--queries", "20", "--seed", seeds[i], "--plot", "",
                         "--k", i == 2 ? "1" : "5"),
                    NULL);
        if (r.exit_code) print_error("%s", r.err);
        assert_int_equal(r.exit_code, 0);
        if (i < 2) assert_table(r.out);
        /* Of one record the weight is 1, wherever the query stands. */
        if (i == 2) assert_close(read_row(r.out, "k nearest, weighted").steepness, 0, 1e-9);
        ran_free(&r);
    }
}

/* Weights of far records underflow, and differences go by the smaller of the two widths. */
static void widths_far_apart_agree_too(void **state)
{
    (void)state;
    static const char *const far[][2] = {{"--k", "2000"},
                                         {"--radius", "0.0001"},
                                         {"--radius", "1000"},
                                         {"--temperature", "0.0001"},
                                         {"--temperature", "1000"}};
    for (int i = 0; i < 5; i++) {
        ran r = run(
            ARGV("--records", "2000", "--queries", "20", "--plot", "", far[i][0], far[i][1]), NULL);
        assert_int_equal(r.exit_code, 0);
        static const char *const matches[] = {"exact",          "nearest",
                                              "k nearest",      "range",
                                              "count in range", "k nearest, weighted",
                                              "fading range",   "nearest, nearly"};
        for (int match = 0; match < 8; match++) {
            row v = read_row(r.out, matches[match]);
            assert_int_equal(v.same, QUERIES);
            assert_int_equal(v.agreed, v.compared);
        }
        ran_free(&r);
    }
}

/* The softmax loses its slope as its temperature falls, where that of the range does not change. */
static void a_cold_softmax_has_no_slope(void **state)
{
    (void)state;
    static const char *const temperatures[] = {"0.003", "0.0003"};
    row soft[2], range[2];
    for (int i = 0; i < 2; i++) {
        ran r = run(ARGV("--records", "2000", "--queries", "20", "--plot", "", "--temperature",
                         temperatures[i]),
                    NULL);
        assert_int_equal(r.exit_code, 0);
        soft[i] = read_row(r.out, "nearest, nearly");
        range[i] = read_row(r.out, "fading range");
        ran_free(&r);
    }
    assert_true(soft[0].steepness > 1 && soft[1].steepness < 1e-3);
    assert_close(range[1].steepness, range[0].steepness, 0);
}

static void it_draws_the_map_and_what_sharpness_costs(void **state)
{
    (void)state;
    ran r = run(ARGV("--records", "300", "--queries", "4", "--plot", scratch("match")), NULL);
    assert_int_equal(r.exit_code, 0);
    static const char *const figures[] = {"match/approximate_match_map.svg",
                                          "match/approximate_match_sharpness.svg"};
    for (int i = 0; i < 2; i++) {
        char *svg = read_file(scratch(figures[i]), NULL);
        assert_non_null(strstr(svg, "</svg>"));
        free(svg);
    }
    ran_free(&r);
}

static void more_than_two_coordinates_have_no_map(void **state)
{
    (void)state;
    ran r = run(ARGV("--records", "300", "--queries", "4", "--dim", "5", "--radius", "0.2",
                     "--plot", scratch("five")),
                NULL);
    assert_int_equal(r.exit_code, 0);
    assert_null(strstr(r.out, "match_map.svg"));
    assert_non_null(strstr(r.out, "match_sharpness.svg"));
    ran_free(&r);
}

static void a_wrong_command_line_is_exit_2(void **state)
{
    (void)state;
    const char *const lines[][2] = {
        {"--records", "0"}, {"--k", "0"}, {"--radius", "-1"}, {"--format", "gif"}, {"stray"}};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        ran r = run(ARGV(lines[i][0], lines[i][1]), NULL);
        assert_int_equal(r.exit_code, 2);
        assert_string_equal(r.out, "");
        ran_free(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(attention_finds_what_a_search_finds),
                                       cmocka_unit_test(widths_far_apart_agree_too),
                                       cmocka_unit_test(a_cold_softmax_has_no_slope),
                                       cmocka_unit_test(it_draws_the_map_and_what_sharpness_costs),
                                       cmocka_unit_test(more_than_two_coordinates_have_no_map),
                                       cmocka_unit_test(a_wrong_command_line_is_exit_2)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
