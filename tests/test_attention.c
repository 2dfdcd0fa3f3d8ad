/* test_attention.c - forward and every gradient against the oracle, over all choices and over the
 * sizes at which a tile loop goes wrong. Built for each dtype. */
#include "agree.h"
#include "choices.h"
#include "src/real.h"
#include "support.h"

#include <stdio.h>

/* Operands and masks, each alone and all together. */
static const struct {
    int with;
    qkv_mask mask;
    bool bandwidth_each; /* d_k bandwidths */
    double softcap;      /* where the normaliser has one */
    double dropout;
} extras[] = {
    {WITH_BANDWIDTH, {0}, false, 0, 0},
    {WITH_BIAS | WITH_BANDWIDTH | WITH_D_LSE, {.leave_one_out = true}, true, 0, 0},
    {WITH_SCALE | WITH_HEAD_BANDWIDTH, {.causal = true}, true, 0, 0},
    {WITH_MASK | WITH_BANDWIDTH | WITH_D_LSE, {.leave_one_out = true}, false, 0, 0},
    {WITH_HEAD_SCALE | WITH_SHARED_BIAS | WITH_HEAD_BANDWIDTH,
     {.causal = true, .causal_offset = 3},
     false,
     0,
     0},
    {WITH_KEY_BIAS | WITH_HIDING_BIAS | WITH_BANDWIDTH,
     {.causal = true, .causal_offset = -2},
     true,
     0,
     0},
    {WITH_BIAS | WITH_HIDING_BIAS | WITH_MASK | WITH_SCALE | WITH_D_LSE | WITH_HEAD_BANDWIDTH,
     {.causal = true, .causal_offset = 1, .leave_one_out = true},
     true,
     0,
     0},
    {WITH_BANDWIDTH | WITH_D_LSE,
     {.window = true, .window_left = 2, .window_right = 1},
     false,
     0,
     0},
    {WITH_LENGTHS | WITH_BANDWIDTH | WITH_D_LSE, {0}, false, 0, 0},
    {WITH_LENGTHS | WITH_OFFSETS | WITH_BIAS,
     {.causal = true, .window = true, .window_left = 3, .window_right = -1},
     false,
     0,
     0},
    {WITH_OFFSETS | WITH_MASK | WITH_BANDWIDTH | WITH_D_LSE,
     {.leave_one_out = true, .window = true, .window_left = -1, .window_right = 40},
     true,
     0,
     0},
    {WITH_SINK | WITH_BANDWIDTH | WITH_D_LSE, {0}, false, 0, 0},
    {WITH_SLOPES | WITH_OFFSETS | WITH_BANDWIDTH | WITH_D_LSE, {.causal = true}, false, 0, 0},
    {WITH_BANDWIDTH | WITH_D_LSE, {0}, false, 1.5, 0},
    {WITH_SLOPES | WITH_SINK | WITH_MASK | WITH_BIAS | WITH_HEAD_SCALE | WITH_BANDWIDTH,
     {.causal_offset = 2, .window = true, .window_left = 50, .window_right = 3},
     true,
     2,
     0},
    {WITH_BANDWIDTH | WITH_D_LSE, {0}, false, 0, 0.3},
    {WITH_RELATIVE | WITH_BANDWIDTH | WITH_D_LSE, {0}, false, 0, 0},
    {WITH_RELATIVE | WITH_SLOPES | WITH_BIAS | WITH_OFFSETS | WITH_SINK | WITH_BANDWIDTH,
     {.causal = true},
     true,
     3,
     0.2},
    {WITH_BIAS | WITH_MASK | WITH_SINK | WITH_SCALE | WITH_BANDWIDTH | WITH_D_LSE,
     {.causal_offset = 3, .window = true, .window_left = 37, .window_right = 20},
     false,
     1.5,
     0.6},
};

enum { EXTRAS = sizeof extras / sizeof *extras };

static void assert_case_agrees(qkv_attention a, size_t c, size_t e, layout where, uint64_t seed)
{
    a = with_choice(a, c);
    a.mask = extras[e].mask;
    /* Not so low that most scores end up equal. */
    bool wide = a.score == QKV_SCORE_DOT || a.score == QKV_SCORE_USER;
    double spread = wide ? 3 * sqrt((double)a.d_k) : 1;
    if (takes_softcap(&a)) a.softcap = extras[e].softcap * spread;
    a.dropout = extras[e].dropout;
    a.dropout_seed = seed << 31 | 5;
    a.dropout_offset = (uint32_t)c;
    int with = extras[e].with;
    if (extras[e].bandwidth_each && problem_takes_bandwidth(&a)) a.bandwidths = a.d_k;
    char what[200];
    snprintf(
        what, sizeof what,
        "choice %zu extra %zu layout %d seed %llu, batch %td heads %td/%td n_q %td n_k %td d_k "
        "%td d_v %td",
        c, e, (int)where, (unsigned long long)seed, a.batch, a.heads, a.kv_heads, a.n_q, a.n_k,
        a.d_k, a.d_v);
    problem p = problem_random(a, REAL_DTYPE, with, seed);
    assert_agrees(&p, where, what);
    problem_free(&p);
}

static void every_choice_with_every_operand_and_mask_agrees_with_the_oracle(void **state)
{
    (void)state;
    static const qkv_attention shapes[] = {
        {.batch = 2, .heads = 4, .kv_heads = 2, .n_q = 5, .n_k = 7, .d_k = 3, .d_v = 2},
        {.batch = 1, .heads = 2, .n_q = 9, .n_k = 6, .d_k = 1, .d_v = 1},
        {.batch = 2, .heads = 3, .kv_heads = 1, .n_q = 1, .n_k = 19, .d_k = 4, .d_v = 9},
        {.batch = 3, .heads = 1, .n_q = 60, .n_k = 70, .d_k = 2, .d_v = 2},
    };
    enum { LARGE = 3 }; /* some of the choices are enough there: the oracle is slow */
    uint64_t seed = 1;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (size_t c = first_choice(REAL_DTYPE); c < CHOICES;
             c += s == LARGE ? 6 * CHOICE_STEP : CHOICE_STEP)
            for (size_t e = 0; e < EXTRAS; e++, seed++)
                assert_case_agrees(shapes[s], c, e, (layout)(seed % LAYOUTS), seed);
}

static void sizes_around_the_edges_of_tiles_agree_with_the_oracle(void **state)
{
    (void)state;
    static const ptrdiff_t n[] = {1, 2, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 97, 127, 128, 129};
    static const ptrdiff_t d[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 32, 33};
    enum { SIZES = sizeof n / sizeof *n, WIDTHS = sizeof d / sizeof *d };
    size_t turn = 0;
    for (size_t i = 0; i < SIZES; i++)
        for (size_t j = 0; j < SIZES; j += QKV_EMULATED ? 6 : 3, turn++) {
            qkv_attention a = {.batch = 1,
                               .heads = 1 + (ptrdiff_t)(turn % 2),
                               .n_q = n[i],
                               .n_k = n[(i + j) % SIZES],
                               .d_k = d[turn % WIDTHS],
                               .d_v = d[turn * 5 % WIDTHS]};
            assert_case_agrees(a, turn % CHOICES, turn % EXTRAS, (layout)(turn % LAYOUTS), turn);
        }
}

static void many_keys_or_many_queries_agree_with_the_oracle(void **state)
{
    (void)state;
    static const ptrdiff_t many[] = {255, 256, 257, 511, 513, 1025};
    for (size_t i = 0; i < sizeof many / sizeof *many; i++)
        for (size_t c = first_choice(REAL_DTYPE); c < CHOICES; c += 2 * CHOICE_STEP) {
            qkv_attention keys = {.batch = 1,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .n_q = 3,
                                  .n_k = many[i],
                                  .d_k = 5,
                                  .d_v = 3};
            qkv_attention queries = keys;
            queries.n_q = keys.n_k;
            queries.n_k = 3;
            assert_case_agrees(keys, c, (i + c) % EXTRAS, LAYOUT_PACKED, i);
            assert_case_agrees(queries, c + 1 < CHOICES ? c + 1 : 0, (i + c) % EXTRAS,
                               LAYOUT_ROWS_FIRST, i);
        }
}

/* src/decode.c takes these. */
static void few_queries_against_thousands_of_keys_agree_with_the_oracle(void **state)
{
    (void)state;
    static const ptrdiff_t n_k[] = {4096, 4199};
    static const ptrdiff_t d[][2] = {{1, 1}, {3, 40}, {16, 8}, {33, 2}};
    for (size_t i = 0; i < 2; i++)
        for (size_t x = 0; x < 4; x++) {
            qkv_attention a = {.batch = 1, .heads = 2, .kv_heads = 1, .n_k = n_k[i]};
            a.n_q = 1 + (ptrdiff_t)(i + x) % 4;
            a.d_k = d[x][0];
            a.d_v = d[x][1];
            a.score = x % 2 ? QKV_SCORE_DOT : QKV_SCORE_SCALED_DOT;
            /* Offset -2 leaves the first two queries blind; others end within a stretch. */
            const ptrdiff_t offsets[] = {-2, 2049};
            a.mask = (qkv_mask){.causal = x > 1, .causal_offset = offsets[i]};
            problem p = problem_random(a, REAL_DTYPE, WITH_HEAD_SCALE | WITH_D_LSE, 10 * i + x);
            assert_agrees_without_weights(&p, x % 2 ? LAYOUT_PACKED : LAYOUT_ROWS_FIRST, "few");
            problem_free(&p);
        }
}

static void wide_heads_agree_with_the_oracle(void **state)
{
    (void)state;
    static const ptrdiff_t d[][2] = {{64, 64},  {65, 1},  {128, 127}, {1, 129},
                                     {31, 257}, {256, 3}, {80, 96},   {300, 20}};
    for (size_t i = 0; i < sizeof d / sizeof *d; i++)
        for (size_t c = first_choice(REAL_DTYPE); c < CHOICES; c += 3 * CHOICE_STEP) {
            qkv_attention a = {
                .batch = 1, .heads = 1, .n_q = 9, .n_k = 21, .d_k = d[i][0], .d_v = d[i][1]};
            assert_case_agrees(a, (c + i) % CHOICES, (c + i) % EXTRAS, (layout)(i % LAYOUTS), i);
        }
}

static void a_gradient_wanted_alone_equals_the_one_wanted_with_all(void **state)
{
    (void)state;
    for (size_t c = first_choice(REAL_DTYPE); c < CHOICES; c += CHOICE_STEP) {
        qkv_attention a = with_choice(
            (qkv_attention){
                .batch = 2, .heads = 2, .kv_heads = 1, .n_q = 19, .n_k = 70, .d_k = 3, .d_v = 5},
            c);
        if (problem_takes_bandwidth(&a)) a.bandwidths = 3;
        problem p = problem_random(a, REAL_DTYPE, WITH_BIAS | WITH_SCALE | WITH_BANDWIDTH, c);
        answer all = answer_new(&p), one = answer_new(&p);
        assert_ok(compute(&p, LAYOUT_PACKED, ALL_GRADIENTS, &all));
        for (operand x = Q; x < OPERANDS; x++) {
            if (!p.in[x]) continue;
            assert_ok(compute(&p, LAYOUT_PACKED, 1 << x, &one));
            assert_same_bits(&p, 1 << x, &one, &all, operand_name[x]);
            for (operand z = Q; z < OPERANDS; z++) /* the others were left alone */
                for (size_t i = 0; z != x && p.in[z] && i < operand_size(&p, z); i++)
                    assert_true(one.d[z][i] == gradient_start(z));
        }
        answer_free(&one);
        answer_free(&all);
        problem_free(&p);
    }
}

static void either_cotangent_may_be_absent(void **state)
{
    (void)state;
    for (size_t c = first_choice(REAL_DTYPE); c < CHOICES; c += CHOICE_STEP) {
        qkv_attention a = with_choice(
            (qkv_attention){.batch = 2, .heads = 2, .n_q = 19, .n_k = 70, .d_k = 3, .d_v = 5}, c);
        if (a.normalize > QKV_TOP_K) continue;
        problem p = problem_random(a, REAL_DTYPE, WITH_BIAS | WITH_SCALE | WITH_D_LSE, c);
        assert_agrees(&p, LAYOUT_PACKED, "both cotangents");
        answer y = answer_new(&p), expected = answer_new(&p), size = answer_new(&p);
        double *d_o = p.d_o;
        p.d_o = NULL;
        assert_ok(compute(&p, LAYOUT_PACKED, ALL_GRADIENTS, &y));
        p.d_o = d_o;
        for (ptrdiff_t i = 0; i < problem_rows(&p) * a.d_v; i++) d_o[i] = 0;
        oracle_solve(&p, &expected, &size);
        for (operand x = Q; x < OPERANDS; x++)
            for (size_t i = 0; p.in[x] && i < operand_size(&p, x); i++)
                assert_close(y.d[x][i], expected.d[x][i], 64 * REAL_EPSILON * size.d[x][i]);
        answer_free(&size);
        answer_free(&expected);
        answer_free(&y);
        problem_free(&p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_choice_with_every_operand_and_mask_agrees_with_the_oracle),
        cmocka_unit_test(sizes_around_the_edges_of_tiles_agree_with_the_oracle),
        cmocka_unit_test(many_keys_or_many_queries_agree_with_the_oracle),
        cmocka_unit_test(few_queries_against_thousands_of_keys_agree_with_the_oracle),
        cmocka_unit_test(wide_heads_agree_with_the_oracle),
        cmocka_unit_test(either_cotangent_may_be_absent),
        cmocka_unit_test(a_gradient_wanted_alone_equals_the_one_wanted_with_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
