/* test_tape_print.c - a tape as text and as Graphviz, to the letter. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/tape.h"
#include "support.h"

static qkv_status double_it(void *context, const qkv_op_array *in, int n, const qkv_op_array *out,
                            void *y)
{
    (void)context, (void)n;
    for (size_t i = 0; i < out->size; i++) ((double *)y)[i] = 2 * ((const double *)in[0].data)[i];
    return QKV_OK;
}

static qkv_status no_backward(void *context, const qkv_op_array *in, int n, const qkv_op_array *out,
                              const void *dy, void *const *dx)
{
    (void)context, (void)in, (void)n, (void)out, (void)dy, (void)dx;
    return QKV_OK;
}

/* A network of one attention layer, with every kind of node. */
static qkv_tape *record(void)
{
    static const double x[48];
    static double dx[48];
    static const qkv_user_op op = {"my \"op\" \\", double_it, no_backward, NULL};
    qkv_tape *t;
    assert_ok(qkv_tape_new(&t, QKV_F64));
    qkv_var q = qkv_leaf_f64(t, qkv_shape4(2, 2, 3, 4), x, dx);
    qkv_var k = qkv_leaf_f64(t, qkv_shape4(2, 1, 3, 4), x, NULL);
    qkv_var v = qkv_leaf_f64(t, qkv_shape4(2, 1, 3, 1), x, NULL);
    qkv_var o = qkv_attend(t, &(qkv_attention){0}, &(qkv_attend_vars){.q = q, .k = k, .v = v});
    qkv_var doubled = qkv_apply(t, &op, &o, 1, qkv_shape1(12));
    qkv_var y = qkv_mul(t, doubled, qkv_constant(t, 2));
    qkv_concat(t, (qkv_var[]){y, y, qkv_detach(t, y)}, 3, 0);
    qkv_sum(t, y, NULL, 0, false);
    assert_ok(qkv_tape_status(t));
    return t;
}

static void assert_printed(qkv_status (*print)(const qkv_tape *, FILE *), const char *expected)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    qkv_tape *t = record();
    assert_ok(print(t, out));
    fclose(out);
    assert_string_equal(text, expected);
    free(text);
    qkv_tape_free(t);
}

static void tape_prints_one_line_a_node(void **state)
{
    (void)state;
    assert_printed(qkv_tape_print, "%0 = leaf() [2,2,3,4]\n"
                                   "%1 = leaf() [2,1,3,4]\n"
                                   "%2 = leaf() [2,1,3,1]\n"
                                   "%3 = attend(%0,%1,%2) [2,2,3,1]\n"
                                   "%4 = my \"op\" \\(%3) [12]\n"
                                   "%5 = leaf() []\n"
                                   "%6 = mul(%4,%5) [12]\n"
                                   "%7 = detach(%6) [12]\n"
                                   "%8 = concat(%6,%6,%7) [36]\n"
                                   "%9 = sum(%6) []\n");
}

static void dot_escapes_names_and_greys_constants(void **state)
{
    (void)state;
    assert_printed(qkv_tape_dot, "digraph tape {\n"
                                 "  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n"
                                 "  n0 [label=\"%0 leaf [2,2,3,4]\"];\n"
                                 "  n1 [label=\"%1 leaf [2,1,3,4]\", color=gray];\n"
                                 "  n2 [label=\"%2 leaf [2,1,3,1]\", color=gray];\n"
                                 "  n3 [label=\"%3 attend [2,2,3,1]\"];\n"
                                 "  n0 -> n3;\n  n1 -> n3;\n  n2 -> n3;\n"
                                 "  n4 [label=\"%4 my \\\"op\\\" \\\\ [12]\"];\n"
                                 "  n3 -> n4;\n"
                                 "  n5 [label=\"%5 leaf []\", color=gray];\n"
                                 "  n6 [label=\"%6 mul [12]\"];\n"
                                 "  n4 -> n6;\n  n5 -> n6;\n"
                                 "  n7 [label=\"%7 detach [12]\", color=gray];\n"
                                 "  n6 -> n7;\n"
                                 "  n8 [label=\"%8 concat [36]\"];\n"
                                 "  n6 -> n8;\n  n6 -> n8;\n  n7 -> n8;\n"
                                 "  n9 [label=\"%9 sum []\"];\n"
                                 "  n6 -> n9;\n"
                                 "}\n");
}

static void node_of_very_many_inputs_prints_them_all(void **state)
{
    (void)state;
    enum { MANY = 500 };
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    qkv_tape *t;
    const double x = 1;
    qkv_var xs[MANY];
    assert_ok(qkv_tape_new(&t, QKV_F64));
    for (int i = 0; i < MANY; i++) xs[i] = qkv_leaf_f64(t, qkv_shape1(1), &x, NULL);
    qkv_concat(t, xs, MANY, 0);
    assert_ok(qkv_tape_print(t, out));
    fclose(out);
    const char *end = ",%498,%499) [500]\n";
    assert_true(bytes > 2000);
    assert_string_equal(text + bytes - strlen(end), end);
    free(text);
    qkv_tape_free(t);
}

static void full_disk_is_reported(void **state)
{
    (void)state;
    FILE *out = fopen("/dev/full", "w");
    if (!out) skip();
    qkv_tape *t = record();
    assert_status(qkv_tape_print(t, out), QKV_E_IO);
    assert_status(qkv_tape_dot(t, out), QKV_E_IO);
    fclose(out);
    qkv_tape_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tape_prints_one_line_a_node),
        cmocka_unit_test(dot_escapes_names_and_greys_constants),
        cmocka_unit_test(node_of_very_many_inputs_prints_them_all),
        cmocka_unit_test(full_disk_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
