/* test_many_keys.c - rows of so many keys that the library sums them by legs (src/tile.h): rounding
 * errors do not grow with the number of keys, and nothing else changes. Built for each dtype. */
#include "agree.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "choices.h"
#include "src/real.h"
#include "support.h"

enum { KEYS = 1 << 20, D = 4, MOST = 6 /* queries */ };

static const double UNIT = REAL_DTYPE == QKV_F32 ? 0x1p-24 : 0x1p-53;

/* A query that looks at the first key, and at all others alike: each has a millionth. */
typedef struct row {
    long double first, other; /* weights */
    long double o[D], lse, dq[D];
    long double size_dq[D]; /* of the terms of dq */
} row;

/* Between 0 and 1: sums grow until each term is small beside them. */
static void fill(real *x, size_t n)
{
    for (uint32_t i = 0; i < n; i++) x[i] = (real)((double)(uint32_t)(i * 2654435761u) / 0x1p32);
}

static long double dot(const real *x, const long double *o, const real *d_o)
{
    long double sum = 0;
    for (int c = 0; c < D; c++) sum += ((long double)x[c] - o[c]) * (long double)d_o[c];
    return sum;
}

static row row_of(const real *q, const real *k, const real *v, const real *d_o)
{
    row r = {0};
    long double e = expl((long double)q[0] / 2), sum = e + KEYS - 1; /* scale: 1 / sqrt(D) */
    r.lse = logl(sum);
    for (ptrdiff_t j = 0; j < KEYS; j++)
        for (int c = 0; c < D; c++) r.o[c] += (j ? 1 : e) / sum * (long double)v[j * D + c];
    for (ptrdiff_t j = 0; j < KEYS; j++) {
        long double ds = (j ? 1 : e) / sum * dot(v + j * D, r.o, d_o) / 2;
        for (int c = 0; c < D; c++) {
            r.dq[c] += ds * (long double)k[j * D + c];
            r.size_dq[c] += fabsl(ds * (long double)k[j * D + c]);
        }
    }
    return r;
}

/* Within so many roundings: o of its size, the same of lse; dq of that of its terms, which are
 * differences. */
static void assert_roundings(ptrdiff_t n_q, double most)
{
    const qkv_attention a = {.batch = 1, .heads = 1, .n_q = n_q, .n_k = KEYS, .d_k = D, .d_v = D};
    real *k = malloc(sizeof(real) * KEYS * D), *v = malloc(sizeof(real) * KEYS * D);
    real q[MOST * D] = {0}, d_o[MOST * D], o[MOST * D], dq[MOST * D] = {0};
    real max[MOST], log_sum[MOST], lse[MOST];
    fill(k, (size_t)KEYS * D);
    fill(v, (size_t)KEYS * D);
    fill(d_o, (size_t)MOST * D);
    for (ptrdiff_t j = 0; j < KEYS; j++) k[j * D] = j == 0;
    for (int i = 0; i < MOST; i++) q[i * D] = 1 + (real)i / 8;
    const FN(qkv_operands) in = {.q.data = q, .k.data = k, .v.data = v}, d_in = {.q.data = dq};
    const FN(qkv_results) out = {
        .o.data = o, .lse.data = lse, .row_max.data = max, .row_log_sum.data = log_sum};
    const FN(qkv_results) d_out = {.o.data = d_o};
    size_t bytes[2];
    assert_ok(qkv_attention_workspace(&a, QKV_FORWARD, REAL_DTYPE, &bytes[0]));
    assert_ok(qkv_attention_workspace(&a, QKV_BACKWARD, REAL_DTYPE, &bytes[1]));
    void *memory = malloc(bytes[0] + bytes[1]);
    assert_ok(FN(qkv_attention_forward)(&a, &in, &out, memory, bytes[0]));
    assert_ok(FN(qkv_attention_backward)(&a, &in, &out, &d_out, &d_in, memory, bytes[1]));
    for (ptrdiff_t i = 0; i < n_q; i++) {
        row r = row_of(q + i * D, k, v, d_o + i * D);
        assert_close((double)lse[i], (double)r.lse, most * UNIT);
        for (ptrdiff_t c = 0; c < D; c++) {
            assert_close((double)o[i * D + c], (double)r.o[c], most * UNIT * (double)r.o[c]);
            assert_close((double)dq[i * D + c], (double)r.dq[c],
                         8 * most * UNIT * (double)r.size_dq[c]);
        }
    }
    free(memory), free(k), free(v);
}

/* One after the other the tiles leave 900. All terms alike, as here, is the worst case: each
 * rounding goes the way of the one before. */
static void roundings_of_tiles_do_not_add_up(void **state)
{
    (void)state;
    assert_roundings(MOST, 80);
}

/* Up to four queries go forward by chunks of keys; one after the other these leave 53 or more. */
static void roundings_of_chunks_do_not_add_up(void **state)
{
    (void)state;
    assert_roundings(2, 16);
}

/* Three legs, the last one short; or a window that begins and ends within two. */
static void every_kind_of_sum_agrees_with_the_oracle(void **state)
{
    (void)state;
    /* Of with_choice: softmax of a dot product and of a distance, a kernel sum, exp, uniform. */
    static const size_t choices[] = {0, 2, 10, 33, 22};
    for (size_t c = 0; c < sizeof choices / sizeof *choices; c++) {
        qkv_attention a = {.batch = 1, .heads = 1, .n_q = 5, .n_k = 25000, .d_k = 3, .d_v = 3};
        if (c % 2)
            a.mask = (qkv_mask){
                .causal_offset = 12400, .window = true, .window_left = 300, .window_right = 400};
        a = with_choice(a, choices[c]);
        int with = a.normalize == QKV_SOFTMAX ? WITH_BIAS | WITH_SINK | WITH_D_LSE : 0;
        char what[32];
        snprintf(what, sizeof what, "choice %zu", choices[c]);
        problem p = problem_random(a, REAL_DTYPE, with, c);
        assert_agrees_without_weights(&p, LAYOUT_PACKED, what);
        problem_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(roundings_of_tiles_do_not_add_up),
                                       cmocka_unit_test(roundings_of_chunks_do_not_add_up),
                                       cmocka_unit_test(every_kind_of_sum_agrees_with_the_oracle)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
