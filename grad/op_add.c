/* op_add.c - y = a + b. */
#include "grad/elementwise.h"
#include "src/real.h"

static void forward(const FN(qkv_run) *r)
{
    for (size_t i = 0; i < r->n; i++) {
        real a = r->a[i * r->a_step], b = r->b[i * r->b_step];
        r->y[i] = a + b;
    }
}

static void backward(const FN(qkv_run) *r)
{
    if (r->da)
        for (size_t i = 0; i < r->n; i++) r->da[i * r->a_step] += r->dy[i];
    if (r->db)
        for (size_t i = 0; i < r->n; i++) r->db[i * r->b_step] += r->dy[i];
}

static qkv_var apply(qkv_tape *tape, const qkv_var *x)
{
    return qkv_add(tape, x[0], x[1]);
}

static const qkv_op_case cases[] = {
    {.n_input = 2, .input = {{2, {3, 4}}, {2, {3, 4}}}, .apply = apply},
    {.label = "add of a row", .n_input = 2, .input = {{3, {2, 3, 4}}, {1, {4}}}, .apply = apply},
    {.label = "add outer", .n_input = 2, .input = {{3, {2, 1, 4}}, {2, {3, 1}}}, .apply = apply},
    {.label = "add of a scalar", .n_input = 2, .input = {{0}, {2, {3, 4}}}, .apply = apply},
    {0},
};

static const FN(qkv_binary) kernel = {forward, backward};
const qkv_op FN(qkv_op_add) = {
    "add", qkv_shape_broadcast, FN(qkv_binary_forward), FN(qkv_binary_backward), cases, &kernel};
