/* test_cache.c - a cache of keys and values: token by token is the whole sequence at once. Built
 * for each dtype. */
#include "qkv/cache.h"
#include "src/real.h"
#include "support.h"

#include <math.h>

#include <stdlib.h>
#include <string.h>

enum { B = 2, H = 4, G = 2, D_K = 5, D_V = 3 };

typedef FN(qkv_slot) real_slot;

static real *normal(size_t n, uint64_t seed)
{
    double *y = malloc(n * sizeof *y);
    real *x = malloc(n * sizeof *x);
    fill_normal(y, n, seed);
    for (size_t i = 0; i < n; i++) x[i] = (real)y[i];
    free(y);
    return x;
}

typedef struct cache {
    FN(qkv_cache) c;
    int64_t lengths[B], offsets[B];
} cache;

static cache *cache_new(ptrdiff_t capacity)
{
    cache *x = calloc(1, sizeof *x);
    x->c = (FN(qkv_cache)){.batch = B,
                           .kv_heads = G,
                           .capacity = capacity,
                           .d_k = D_K,
                           .d_v = D_V,
                           .k = malloc((size_t)(B * G * capacity * D_K) * sizeof(real)),
                           .v = malloc((size_t)(B * G * capacity * D_V) * sizeof(real)),
                           .lengths = x->lengths,
                           .offsets = x->offsets};
    for (ptrdiff_t i = 0; i < B * G * capacity * D_K; i++) x->c.k[i] = (real)NAN;
    for (ptrdiff_t i = 0; i < B * G * capacity * D_V; i++) x->c.v[i] = (real)NAN;
    return x;
}

static void cache_free(cache *x)
{
    free(x->c.k);
    free(x->c.v);
    free(x);
}

/* Rows first .. of [b, n, heads, d], as projections leave them. */
static real_slot rows(real *x, ptrdiff_t n, ptrdiff_t heads, ptrdiff_t d, ptrdiff_t first)
{
    return (real_slot){
        .data = x + first * heads * d, .strided = true, .stride = {n * heads * d, d, heads * d, 1}};
}

static void attend(const qkv_attention *a, const FN(qkv_operands) *in, real_slot o)
{
    const FN(qkv_results) out = {.o = o};
    size_t bytes;
    assert_ok(qkv_attention_workspace(a, QKV_FORWARD, REAL_DTYPE, &bytes));
    void *workspace = malloc(bytes);
    assert_ok(FN(qkv_attention_forward)(a, in, &out, workspace, bytes));
    free(workspace);
}

/* Steps of 1, 2, .. rows after a first one of `prompt`. */
static void check_steps(ptrdiff_t n, ptrdiff_t prompt, double tolerance)
{
    real *q = normal((size_t)(B * n * H * D_K), 1), *k = normal((size_t)(B * n * G * D_K), 2),
         *v = normal((size_t)(B * n * G * D_V), 3);
    size_t size = (size_t)(B * n * H * D_V);
    real *o = calloc(size, sizeof *o), *expected = calloc(size, sizeof *o);
    const qkv_attention whole = {.batch = B,
                                 .heads = H,
                                 .kv_heads = G,
                                 .n_q = n,
                                 .n_k = n,
                                 .d_k = D_K,
                                 .d_v = D_V,
                                 .mask.causal = true};
    const FN(qkv_operands) all = {
        .q = rows(q, n, H, D_K, 0), .k = rows(k, n, G, D_K, 0), .v = rows(v, n, G, D_V, 0)};
    attend(&whole, &all, rows(expected, n, H, D_V, 0));
    cache *x = cache_new(n);
    for (ptrdiff_t at = 0, step = prompt; at < n; at += step, step = 1 + at % 3) {
        if (step > n - at) step = n - at;
        const real_slot new_k = rows(k, n, G, D_K, at), new_v = rows(v, n, G, D_V, at);
        qkv_attention a = {.heads = H, .n_q = step, .mask.causal = true};
        FN(qkv_operands) in = {.q = rows(q, n, H, D_K, at)};
        assert_ok(FN(qkv_cache_append)(&x->c, step, &new_k, &new_v));
        assert_ok(FN(qkv_cache_bind)(&x->c, &a, &in));
        attend(&a, &in, rows(o, n, H, D_V, at));
    }
    for (size_t i = 0; i < size; i++) assert_close(o[i], expected[i], tolerance);
    cache_free(x);
    free(expected);
    free(o);
    free(v);
    free(k);
    free(q);
}

static void token_by_token_is_the_whole_to_the_bit(void **state)
{
    (void)state;
    check_steps(50, 1, 0);
    check_steps(300, 270, 0);
}

/* Where src/decode.c takes over, sums have another order. */
static void and_among_thousands_of_keys_to_rounding(void **state)
{
    (void)state;
    check_steps(4120, 4085, 16 * REAL_EPSILON);
}

static void batch_items_may_have_lengths_of_their_own(void **state)
{
    (void)state;
    enum { N = 9 };
    real *q = normal(B * H * D_K, 1), *k = normal(B * N * G * D_K, 2),
         *v = normal(B * N * G * D_V, 3);
    real o[B * H * D_V], expected[B * H * D_V];
    cache *x = cache_new(12);
    const real_slot new_k = rows(k, N, G, D_K, 0), new_v = rows(v, N, G, D_V, 0);
    const real_slot last_k = rows(k, N, G, D_K, 3), last_v = rows(v, N, G, D_V, 3);
    assert_ok(FN(qkv_cache_append)(&x->c, N, &new_k, &new_v));
    x->lengths[1] = 3; /* the second forgets six rows, which then come again */
    qkv_attention a = {.heads = H, .n_q = 1, .mask.causal = true};
    FN(qkv_operands) in = {.q = rows(q, 1, H, D_K, 0)};
    assert_ok(FN(qkv_cache_append)(&x->c, 1, &last_k, &last_v));
    assert_ok(FN(qkv_cache_bind)(&x->c, &a, &in));
    assert_int_equal(a.n_k, 10);
    attend(&a, &in, rows(o, 1, H, D_V, 0));
    for (ptrdiff_t b = 0; b < B; b++) {
        qkv_attention one = {
            .batch = 1, .heads = H, .kv_heads = G, .n_q = 1, .n_k = 4, .d_k = D_K, .d_v = D_V};
        const FN(qkv_operands) alone = {.q = rows(q, 1, H, D_K, b),
                                        .k = rows(k + N * G * D_K, N, G, D_K, 0),
                                        .v = rows(v + N * G * D_V, N, G, D_V, 0)};
        attend(&one, &alone, rows(expected, 1, H, D_V, b));
    }
    for (int i = H * D_V; i < 2 * H * D_V; i++) assert_close(o[i], expected[i], 0);
    cache_free(x);
    free(q);
    free(k);
    free(v);
}

static void a_full_cache_is_left_alone(void **state)
{
    (void)state;
    cache *x = cache_new(4);
    real *k = normal(B * G * 5 * D_K, 1), *v = normal(B * G * 5 * D_V, 2);
    const real_slot new_k = {.data = k}, new_v = {.data = v}, none = {.data = NULL};
    x->lengths[1] = 2;
    x->offsets[0] = 7;
    assert_status(FN(qkv_cache_append)(&x->c, 3, &new_k, &new_v), QKV_E_SHAPE);
    assert_message("batch item 1 has 2 rows of 4: there is no room for 3 more");
    assert_int_equal(x->lengths[0], 0);
    assert_int_equal(x->offsets[0], 7);
    assert_true(isnan(x->c.k[0]) && isnan(x->c.v[0]));
    assert_status(FN(qkv_cache_append)(&x->c, -1, &new_k, &new_v), QKV_E_SHAPE);
    assert_status(FN(qkv_cache_append)(&x->c, 1, &new_k, &none), QKV_E_ARG);
    assert_message("the new v is NULL");
    x->lengths[0] = 5;
    assert_status(FN(qkv_cache_append)(&x->c, 0, NULL, NULL), QKV_E_SHAPE);
    assert_message("lengths[0] is 5, expected 0 to the capacity, 4");
    x->lengths[0] = 4;
    x->lengths[1] = 4;
    assert_ok(FN(qkv_cache_append)(&x->c, 0, NULL, NULL));
    x->c.capacity = PTRDIFF_MAX;
    assert_status(FN(qkv_cache_append)(&x->c, 0, NULL, NULL), QKV_E_OVERFLOW);
    x->c.capacity = 4;
    assert_status(FN(qkv_cache_bind)(&x->c, NULL, NULL), QKV_E_ARG);
    cache_free(x);
    free(k);
    free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(token_by_token_is_the_whole_to_the_bit),
        cmocka_unit_test(and_among_thousands_of_keys_to_rounding),
        cmocka_unit_test(batch_items_may_have_lengths_of_their_own),
        cmocka_unit_test(a_full_cache_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
