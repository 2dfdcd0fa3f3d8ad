/* test_large_database.c - files that do not fit into the program's memory are attended to as if
 * they did: against the library, in double, on all rows at once. */
#include "support.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "process.h"
#include "qkv/attention.h"
#include "qkv/npy.h"

#define PROGRAM QKV_BIN_DIR "/large_database"
#define ARGV(...) ((const char *const[]){PROGRAM, __VA_ARGS__, NULL})

/* The last of 59 shards has fewer rows than the others. */
enum { RECORDS = 60000, DIM = 32, QUERIES = 16 };

/* A matrix in double, to be freed. */
static double *load(const char *name, ptrdiff_t rows)
{
    qkv_npy a;
    assert_ok(qkv_npy_load(&a, scratch(name)));
    assert_int_equal(a.type, QKV_NPY_F32);
    assert_int_equal(a.rank, 2);
    assert_int_equal(a.dim[0], rows);
    assert_int_equal(a.dim[1], DIM);
    size_t n = qkv_npy_size(&a);
    double *x = calloc(n, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) x[i] = qkv_npy_element(&a, i);
    qkv_npy_free(&a);
    return x;
}

/* The file is x to so many roundings of the largest element. */
static void assert_file_is(const char *name, const double *x, double roundings)
{
    double *file = load(name, QUERIES), largest = 0;
    for (int i = 0; i < QUERIES * DIM; i++) largest = fmax(largest, fabs(x[i]));
    for (int i = 0; i < QUERIES * DIM; i++)
        assert_close(file[i], x[i], roundings * (double)FLT_EPSILON * largest);
    free(file);
}

static void assert_attention_of_all_rows(void)
{
    double *k = load("db/keys.npy", RECORDS), *v = load("db/values.npy", RECORDS);
    double *q = load("db/queries.npy", QUERIES);
    double o[QUERIES * DIM], cotangent[QUERIES * DIM], dq[QUERIES * DIM] = {0};
    double most[QUERIES], log_sum[QUERIES];
    const qkv_attention a = {
        .batch = 1, .heads = 1, .n_q = QUERIES, .n_k = RECORDS, .d_k = DIM, .d_v = DIM};
    const qkv_operands_f64 in = {.q.data = q, .k.data = k, .v.data = v}, d_in = {.q.data = dq};
    const qkv_results_f64 out = {.o.data = o, .row_max.data = most, .row_log_sum.data = log_sum};
    const qkv_results_f64 d_out = {.o.data = cotangent};
    size_t bytes, more;
    assert_ok(qkv_attention_workspace(&a, QKV_FORWARD, QKV_F64, &bytes));
    assert_ok(qkv_attention_workspace(&a, QKV_BACKWARD, QKV_F64, &more));
    if (more > bytes) bytes = more;
    void *workspace = malloc(bytes);
    assert_ok(qkv_attention_forward_f64(&a, &in, &out, workspace, bytes));
    memcpy(cotangent, o, sizeof o);
    assert_ok(qkv_attention_backward_f64(&a, &in, &out, &d_out, &d_in, workspace, bytes));
    assert_file_is("o.npy", o, 64);
    assert_file_is("dq.npy", dq, 256);
    free(workspace), free(k), free(v), free(q);
}

static void shards_answer_as_the_whole(void **state)
{
    (void)state;
    ran r = run(ARGV("--records", "60000", "--dim", "32", "--memory", "6", "--shard", "1024",
                     "--sweep", "4", "--keep", "--directory", scratch("db"), "--output",
                     scratch("o.npy"), "--gradient", scratch("dq.npy"), "--plot", scratch("fig")),
                NULL);
    if (r.exit_code) print_error("%s", r.err);
    assert_int_equal(r.exit_code, 0);
    assert_non_null(strstr(r.out, "all the keys   cannot be mapped"));
    assert_non_null(strstr(r.out, "shards         59 of 1024 rows for 16 queries"));
    assert_true(number_after(r.out, "they resemble: ") >= 12); /* by chance: none */
    assert_true(number_after(r.out, "\n      4 ") > 0);
    assert_true(number_after(r.out, "\nattention  ") < 64);
    assert_true(number_after(r.out, "\ngradient of the queries") < 256);
    assert_attention_of_all_rows();
    assert_int_equal(scratch_count("fig"), 1);
    static const char *const figures[] = {"fig/large_database_shares.svg",
                                          "fig/large_database_throughput.svg"};
    for (int i = 0; i < 2; i++) {
        char *svg = read_file(scratch(figures[i]), NULL);
        assert_non_null(strstr(svg, "</svg>"));
        free(svg);
    }
    ran_free(&r);
}

/* The files just made, as somebody's own; other shards differ by rounding alone. An answer for each
 * of these 8572 would not fit into the memory there is. */
static void own_files_are_attended_to(void **state)
{
    (void)state;
    const char *keys = scratch("db/keys.npy"), *values = scratch("db/values.npy"),
               *queries = scratch("db/queries.npy");
    ran r = run(ARGV("--keys", keys, "--values", values, "--ask", queries, "--shard", "7",
                     "--memory", "4", "--sweep", "0", "--plot", "", "--no-check", "--output",
                     scratch("o.npy"), "--gradient", scratch("dq.npy")),
                NULL);
    if (r.exit_code) print_error("%s", r.err);
    assert_int_equal(r.exit_code, 0);
    assert_null(strstr(r.out, "roundings"));
    assert_attention_of_all_rows();
    ran_free(&r);
    r = run(ARGV("--keys", keys, "--values", queries, "--ask", queries), NULL);
    assert_int_equal(r.exit_code, 1);
    assert_non_null(strstr(r.err, "keys.npy has 60000 rows, "));
    ran_free(&r);
    r = run(ARGV("--keys", keys, "--values", values, "--ask", queries, "--memory", "1", "--shard",
                 "60000"),
            NULL);
    assert_int_equal(r.exit_code, 1);
    assert_non_null(strstr(r.err, "allow more --memory"));
    ran_free(&r);
    double wide[2] = {1, 2};
    const qkv_npy a = {.type = QKV_NPY_F64, .rank = 2, .dim = {2, 1}, .data = wide};
    assert_ok(qkv_npy_save(&a, scratch("wide.npy")));
    r = run(ARGV("--keys", scratch("wide.npy"), "--values", values, "--ask", queries), NULL);
    assert_int_equal(r.exit_code, 1);
    assert_non_null(strstr(r.err, "wide.npy: expected a matrix of float32 with a row and a column "
                                  "at least, found float64 [2, 1]\n"));
    ran_free(&r);
    r = run(ARGV("--keys", keys, "--values", values, "--ask", scratch("wide.npy")), NULL);
    assert_int_equal(r.exit_code, 1);
    assert_non_null(strstr(r.err, "columns, as the keys have, found float64 [2, 1]\n"));
    ran_free(&r);
}

static bool is_there(const char *path)
{
    return access(path, F_OK) == 0;
}

static void nothing_is_written_over(void **state)
{
    (void)state;
    const char *keys = scratch("db/keys.npy"), *values = scratch("db/values.npy"),
               *queries = scratch("db/queries.npy");
    size_t before, after;
    char *content = read_file(keys, &before);
    ran r = run(ARGV("--records", "5", "--sweep", "0", "--directory", scratch("db")), NULL);
    assert_int_equal(r.exit_code, 1);
    assert_non_null(strstr(r.err, "db/keys.npy is there already"));
    ran_free(&r);
    static const char *const options[] = {"--output", "--gradient"};
    for (int i = 0; i < 2; i++) {
        r = run(ARGV("--keys", keys, "--values", values, "--ask", queries, options[i], keys), NULL);
        assert_int_equal(r.exit_code, 2);
        assert_non_null(strstr(r.err, "would be written over what is read"));
        ran_free(&r);
    }
    char *now = read_file(keys, &after);
    assert_int_equal(after, before);
    assert_memory_equal(now, content, before);
    assert_true(is_there(values) && is_there(queries));
    free(now), free(content);
}

static void what_was_made_goes_with_the_program(void **state)
{
    (void)state;
    ran r = run(ARGV("--records", "5", "--dim", "3", "--queries", "2", "--sweep", "1", "--plot", "",
                     "--directory", scratch("gone")),
                NULL);
    assert_int_equal(r.exit_code, 0);
    assert_non_null(strstr(r.out, "1 of 16384 rows"));
    assert_false(is_there(scratch("gone")));
    ran_free(&r);
}

static void queries_that_do_not_fit_are_told_before_the_work(void **state)
{
    (void)state;
    static const char *const options[] = {"--queries", "--sweep"};
    for (int i = 0; i < 2; i++) {
        ran r = run(ARGV("--records", "5", "--memory", "4", "--sweep", "0", "--plot", "",
                         "--directory", scratch("gone"), options[i], "65536"),
                    NULL);
        assert_int_equal(r.exit_code, 1);
        assert_non_null(strstr(r.err, "65536 queries and their answers take "));
        assert_non_null(strstr(r.err, " MiB beside a shard: allow more --memory or fewer of them"));
        assert_string_equal(r.out, "");
        ran_free(&r);
    }
}

static void a_wrong_command_line_is_told_at_once(void **state)
{
    (void)state;
    const char *const lines[][6] = {{"--records", "0"},  {"--dim", "x"}, {"--keys", "a.npy"},
                                    {"--format", "gif"}, {"stray"},      {"--memory", "0"}};
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        ran r = run(ARGV(lines[i][0], lines[i][1]), NULL);
        assert_int_equal(r.exit_code, 2);
        assert_string_equal(r.out, "");
        ran_free(&r);
    }
    ran r = run(ARGV("--plot", "", "--gradient", scratch("no/dq.npy")), NULL);
    assert_int_equal(r.exit_code, 1);
    assert_non_null(strstr(r.err, "--gradient: cannot create"));
    assert_string_equal(r.out, ""); /* told before a database is made */
    ran_free(&r);
    r = run(ARGV("--keys", "a", "--values", "b", "--ask", "c", "--seed", "2"), NULL);
    assert_int_equal(r.exit_code, 2);
    assert_non_null(strstr(r.err, "do not go together"));
    ran_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shards_answer_as_the_whole),
        cmocka_unit_test(own_files_are_attended_to),
        cmocka_unit_test(nothing_is_written_over),
        cmocka_unit_test(what_was_made_goes_with_the_program),
        cmocka_unit_test(queries_that_do_not_fit_are_told_before_the_work),
        cmocka_unit_test(a_wrong_command_line_is_told_at_once)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
