/* test_onnx.c - the ONNX project's own cases of its Attention operator (tests/data/onnx-attention).
 * The ones that need what attention does not offer yet are skipped by name, with the reason. */
#include "qkv/attention.h"
#include "support.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct onnx_case {
    char name[96], mask[16], mask_dims[16];
    int rank, causal, mode, nonpad, qk_out;
    ptrdiff_t batch, heads, kv_heads, n_q, n_new, n_past, n_k, d_k, d_v;
    double scale, softcap;
} onnx_case;

static bool parse_case(const char *line, onnx_case *c)
{
    return sscanf(
               line,
               "%95s %*d %d %td %td %td %td %td %td %td %td %td %d %lf %lf %d %*d %15s %15s %d %d",
               c->name, &c->rank, &c->batch, &c->heads, &c->kv_heads, &c->n_q, &c->n_new,
               &c->n_past, &c->n_k, &c->d_k, &c->d_v, &c->causal, &c->scale, &c->softcap, &c->mode,
               c->mask, c->mask_dims, &c->nonpad, &c->qk_out) == 19;
}

/* The data of one .npy of the case; NULL if it has no such file. All have a header of 128 bytes and
 * hold C order, little endian float, bool or int64, see the README there. */
static void *load(const onnx_case *c, const char *array)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/onnx-attention/%s/%s.npy", QKV_TEST_DATA, c->name, array);
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    enum { HEADER = 128, MOST = 1 << 16 };
    char *data = calloc(1, MOST);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, HEADER, file), HEADER);
    assert_memory_equal(data, "\x93NUMPY\x01", 7);
    assert_non_null(strstr(data + 10, "'fortran_order': False"));
    size_t n = fread(data, 1, MOST, file);
    assert_true(0 < n && n < MOST);
    fclose(file);
    return data;
}

static float *load_floats(const onnx_case *c, const char *array)
{
    float *x = load(c, array);
    if (!x) fail_msg("%s has no %s", c->name, array);
    return x;
}

/* [batch, heads, rows, columns] packed, or of rank 3 [batch, rows, heads columns]. */
static qkv_slot_f32 slot_of(int rank, float *data, ptrdiff_t heads, ptrdiff_t rows,
                            ptrdiff_t columns)
{
    qkv_slot_f32 slot = {.data = data, .strided = true};
    ptrdiff_t packed[4] = {heads * rows * columns, rows * columns, columns, 1};
    ptrdiff_t by_row[4] = {heads * rows * columns, columns, heads * columns, 1};
    memcpy(slot.stride, rank == 3 ? by_row : packed, sizeof slot.stride);
    return slot;
}

/* Strides of the mask over [batch, heads, n_q, n_k]: its axes, aligned at the right; 0 repeats. */
static void mask_strides(const onnx_case *c, ptrdiff_t stride[4])
{
    ptrdiff_t dims[4] = {1, 1, 1, 1}, step = 1;
    int axes = sscanf(c->mask_dims, "%tdx%tdx%tdx%td", dims, dims + 1, dims + 2, dims + 3);
    assert_true(axes >= 1);
    for (int axis = 3; axis >= 0; axis--) {
        ptrdiff_t size = axis >= 4 - axes ? dims[axis - 4 + axes] : 1;
        stride[axis] = size == 1 ? 0 : step;
        step *= size;
    }
}

static qkv_attention attention_of(const onnx_case *c)
{
    return (qkv_attention){.batch = c->batch,
                           .heads = c->heads,
                           .kv_heads = c->kv_heads,
                           .n_q = c->n_q,
                           .n_k = c->n_k,
                           .d_k = c->d_k,
                           .d_v = c->d_v,
                           .softcap = c->softcap,
                           .mask = {.causal = c->causal, .causal_offset = c->n_past}};
}

static void assert_floats(const char *what, const float *actual, const float *expected, size_t n)
{
    char label[200];
    for (size_t i = 0; i < n; i++) {
        snprintf(label, sizeof label, "%s[%zu]", what, i);
        assert_close_((double)actual[i], (double)expected[i],
                      4e-6 * (1 + fabs((double)expected[i])), label, __FILE__, __LINE__);
    }
}

/* The scores themselves are the weights of QKV_NONE_IDENTITY. Mode 0: of q and k alone, 1: with
 * softcap, 2: with masks and bias too (a hidden one -inf, for us 0), 3: the weights. */
static void assert_scores(const onnx_case *c, qkv_operands_f32 in, const float *weights)
{
    static float scores[1 << 14], o[1 << 14];
    static char workspace[1 << 22];
    size_t n = (size_t)(c->batch * c->heads * c->n_q * c->n_k);
    float *expected = load_floats(c, "qk_matmul_output");
    if (c->mode == 3) {
        assert_floats(c->name, weights, expected, n);
    } else {
        qkv_attention a = attention_of(c);
        a.normalize = QKV_NONE_IDENTITY;
        if (c->mode < 1) a.softcap = 0;
        if (c->mode < 2) {
            a.mask.causal = false;
            in.bias.data = NULL;
            in.mask.data = NULL;
            in.lengths = NULL;
        }
        const qkv_results_f32 out = {.o.data = o, .weights.data = scores};
        assert_ok(qkv_attention_forward_f32(&a, &in, &out, workspace, sizeof workspace));
        for (size_t i = 0; i < n; i++)
            if (isinf(expected[i])) expected[i] = 0;
        assert_floats(c->name, scores, expected, n);
    }
    free(expected);
}

static void run_case(const onnx_case *c)
{
    static char workspace[1 << 22];
    static float o[1 << 14], weights[1 << 14];
    bool past = c->n_past; /* past and present are of rank 4 always, and present is all keys */
    float *q = load_floats(c, "Q"), *k = load_floats(c, past ? "present_key" : "K");
    float *v = load_floats(c, past ? "present_value" : "V"), *y = load_floats(c, "Y");
    float scale = (float)c->scale;
    void *mask = strcmp(c->mask, "none") ? load(c, "attn_mask") : NULL;
    int64_t *lengths = c->nonpad ? load(c, "nonpad_kv_seqlen") : NULL, offsets[8];
    for (ptrdiff_t b = 0; lengths && b < c->batch; b++) offsets[b] = lengths[b] - c->n_q;
    qkv_operands_f32 in = {
        .q = slot_of(c->rank, q, c->heads, c->n_q, c->d_k),
        .k = slot_of(past ? 4 : c->rank, k, c->kv_heads, c->n_k, c->d_k),
        .v = slot_of(past ? 4 : c->rank, v, c->kv_heads, c->n_k, c->d_v),
        .scale.data = &scale,
        .bias.strided = true,
        .mask.strided = true,
        .lengths = lengths,
        .causal_offsets = lengths ? offsets : NULL,
    };
    if (mask) mask_strides(c, in.bias.stride);
    memcpy(in.mask.stride, in.bias.stride, sizeof in.mask.stride);
    if (!strcmp(c->mask, "bool")) in.mask.data = mask;
    if (!strcmp(c->mask, "float")) in.bias.data = mask;
    const qkv_results_f32 out = {.o = slot_of(c->rank, o, c->heads, c->n_q, c->d_v),
                                 .weights.data = weights};
    qkv_attention a = attention_of(c);
    assert_ok(qkv_attention_forward_f32(&a, &in, &out, workspace, sizeof workspace));
    assert_floats(c->name, o, y, (size_t)(c->batch * c->heads * c->n_q * c->d_v));
    if (c->qk_out) assert_scores(c, in, weights);
    free(lengths);
    free(mask);
    free(y);
    free(v);
    free(k);
    free(q);
}

static void the_cases_of_the_onnx_operator_agree(void **state)
{
    (void)state;
    int run = 0;
    char line[512];
    FILE *file = fopen(QKV_TEST_DATA "/onnx-attention/cases.tsv", "r");
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof line, file)); /* header */
    while (fgets(line, sizeof line, file)) {
        onnx_case c;
        assert_true(parse_case(line, &c));
        run_case(&c);
        run++;
    }
    fclose(file);
    assert_int_equal(run, 28);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cases_of_the_onnx_operator_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
