/* test_determinism.c - the same bits for any number of threads, any company and any strides. Built
 * for each dtype. */
#include "agree.h"

#include <stdio.h>
#include <stdlib.h>

#include "choices.h"
#include "src/real.h"
#include "support.h"

enum { EVERYTHING = WITH_BIAS | WITH_MASK | WITH_HEAD_SCALE | WITH_HEAD_BANDWIDTH | WITH_D_LSE };

static problem problem_of(qkv_attention a, int with, size_t seed)
{
    if (problem_takes_bandwidth(&a)) a.bandwidths = a.d_k;
    return problem_random(a, REAL_DTYPE, with, seed);
}

static void the_number_of_threads_changes_no_bit(void **state)
{
    (void)state;
    static const int threads[] = {2, 3, 8};
    /* Enough work for eight threads; many heads, and one to share. */
    static const qkv_attention shapes[] = {
        {.batch = 2, .heads = 4, .kv_heads = 2, .n_q = 167, .n_k = 231, .d_k = 5, .d_v = 3},
        {.batch = 1, .heads = 1, .n_q = 701, .n_k = 457, .d_k = 3, .d_v = 4},
    };
    for (size_t c = 0; c < 2 * CHOICES; c += QKV_EMULATED ? 7 : 1) {
        int with = c % 3 ? EVERYTHING
                         : WITH_KEY_BIAS | WITH_RELATIVE | WITH_SCALE | WITH_BANDWIDTH; /* summed */
        qkv_attention a = with_choice(shapes[c % 2], c / 2);
        a.dropout = c % 5 == 0 ? 0.4 : 0;
        problem p = problem_of(a, with, c);
        answer alone = answer_new(&p), y = answer_new(&p);
        assert_ok(qkv_set_num_threads(1));
        assert_ok(compute(&p, LAYOUT_PACKED, ALL_GRADIENTS, &alone));
        for (size_t t = 0; t < 3; t++) {
            assert_ok(qkv_set_num_threads(threads[t]));
            assert_ok(compute(&p, LAYOUT_PACKED, ALL_GRADIENTS, &y));
            assert_same_bits(&p, ALL_GRADIENTS, &y, &alone, "threads");
        }
        assert_ok(qkv_set_num_threads(0));
        answer_free(&y);
        answer_free(&alone);
        problem_free(&p);
    }
}

static void strides_change_no_bit(void **state)
{
    (void)state;
    qkv_attention a = {
        .batch = 2, .heads = 4, .kv_heads = 2, .n_q = 37, .n_k = 75, .d_k = 17, .d_v = 18};
    for (size_t c = first_choice(REAL_DTYPE); c < CHOICES; c += CHOICE_STEP) {
        a.dropout = c % 5 == 0 ? 0.4 : 0;
        problem p = problem_of(with_choice(a, c), EVERYTHING, c);
        answer packed = answer_new(&p), y = answer_new(&p);
        assert_ok(compute(&p, LAYOUT_PACKED, ALL_GRADIENTS, &packed));
        for (layout l = LAYOUT_PACKED; l < LAYOUTS; l++) {
            char what[64];
            snprintf(what, sizeof what, "choice %zu, layout %d", c, (int)l);
            assert_ok(compute(&p, l, ALL_GRADIENTS, &y));
            assert_same_bits(&p, ALL_GRADIENTS, &y, &packed, what);
        }
        answer_free(&y);
        answer_free(&packed);
        problem_free(&p);
    }
}

/* One batch item and one key head of p, as a problem of its own; arrays point into p's. */
static problem part_of(const problem *p, ptrdiff_t b, ptrdiff_t g)
{
    problem part = *p;
    ptrdiff_t group = p->a.heads / p->a.kv_heads, h = g * group;
    ptrdiff_t row = (b * p->a.heads + h) * p->a.n_q;
    part.a.batch = part.a.kv_heads = 1;
    part.a.heads = group;
    for (operand x = Q; x < OPERANDS; x++) {
        if (!p->in[x]) continue;
        part.in[x] += operand_index(p, x, b, x == K || x == V ? g : h, 0, 0);
        part.dim[x][0] = 1;
        part.dim[x][1] = x == K || x == V ? 1 : group;
    }
    if (p->mask) part.mask += row * p->a.n_k;
    part.d_o += row * p->a.d_v;
    if (p->d_lse) part.d_lse += row;
    return part;
}

static answer answer_part(const problem *p, const answer *whole, ptrdiff_t b, ptrdiff_t g)
{
    answer y = *whole;
    ptrdiff_t h = g * (p->a.heads / p->a.kv_heads), row = (b * p->a.heads + h) * p->a.n_q;
    y.o += row * p->a.d_v;
    y.lse += row;
    y.weights += row * p->a.n_k;
    for (operand x = Q; x < OPERANDS; x++)
        if (p->in[x]) y.d[x] += operand_index(p, x, b, x == K || x == V ? g : h, 0, 0);
    return y;
}

static void other_batch_items_and_heads_change_no_bit(void **state)
{
    (void)state;
    const qkv_attention a = {
        .batch = 3, .heads = 4, .kv_heads = 2, .n_q = 37, .n_k = 75, .d_k = 5, .d_v = 6};
    for (size_t c = first_choice(REAL_DTYPE); c < CHOICES; c += CHOICE_STEP) {
        problem p = problem_of(with_choice(a, c), EVERYTHING, c);
        answer whole = answer_new(&p);
        assert_ok(compute(&p, LAYOUT_PACKED, ALL_GRADIENTS, &whole));
        for (ptrdiff_t b = 0; b < a.batch; b++)
            for (ptrdiff_t g = 0; g < a.kv_heads; g++) {
                problem part = part_of(&p, b, g);
                answer y = answer_new(&part), expected = answer_part(&p, &whole, b, g);
                assert_ok(compute(&part, LAYOUT_PACKED, ALL_GRADIENTS, &y));
                assert_same_bits(&part, ALL_GRADIENTS, &y, &expected, "part of a batch");
                answer_free(&y);
            }
        answer_free(&whole);
        problem_free(&p);
    }
}

/* The rows from first on of a problem of one head, as a problem of its own; arrays are p's. */
static problem rows_of(const problem *p, ptrdiff_t first, ptrdiff_t n)
{
    problem part = *p;
    part.a.n_q = part.dim[Q][2] = part.dim[BIAS][2] = n;
    part.a.mask.causal_offset += first;
    part.in[Q] += first * p->a.d_k;
    part.in[BIAS] += first * p->a.n_k;
    part.mask += first * p->a.n_k;
    part.d_o += first * p->a.d_v;
    part.d_lse += first;
    return part;
}

/* Rows from rows[0] on, rows[1] of them, have the same bits alone. */
static void assert_rows_are(const problem *p, const ptrdiff_t rows[2], const answer *whole)
{
    problem part = rows_of(p, rows[0], rows[1]);
    answer y = answer_new(&part), expected = *whole;
    assert_ok(compute(&part, LAYOUT_PACKED, ALL_GRADIENTS, &y));
    expected.o += rows[0] * p->a.d_v;
    expected.lse += rows[0];
    expected.weights += rows[0] * p->a.n_k;
    expected.d[Q] += rows[0] * p->a.d_k;
    expected.d[BIAS] += rows[0] * p->a.n_k;
    assert_same_bits(&part, 1 << Q | 1 << BIAS, &y, &expected, "some of the queries");
    answer_free(&y);
}

static void other_queries_change_no_bit(void **state)
{
    (void)state;
    static const ptrdiff_t parts[][2] = {{0, 1}, {0, 17}, {5, 32}, {16, 33}, {60, 7}, {66, 1}};
    for (size_t c = first_choice(REAL_DTYPE); c < CHOICES; c += CHOICE_STEP) {
        qkv_attention a = {.batch = 1, .heads = 1, .n_q = 67, .n_k = 150, .d_k = 5, .d_v = 6};
        a.mask = (qkv_mask){.causal = true, .causal_offset = 20};
        if (c % 2)
            a.mask = (qkv_mask){
                .causal_offset = 30, .window = true, .window_left = 40, .window_right = 70};
        problem p = problem_of(with_choice(a, c), EVERYTHING, c);
        answer whole = answer_new(&p);
        assert_ok(compute(&p, LAYOUT_PACKED, ALL_GRADIENTS, &whole));
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            assert_rows_are(&p, parts[i], &whole);
        answer_free(&whole);
        problem_free(&p);
    }
}

/* Legs (src/tile.h) begin at fixed keys: whether a walk crosses into the next, and where it begins,
 * is the same to each of its queries. */
static void other_queries_and_threads_change_no_bit_of_many_keys(void **state)
{
    (void)state;
    enum { LEG = 12288, N_Q = 230 };
    static const ptrdiff_t parts[][2] = {{0, 1}, {9, 31}, {100, 130}, {8, 1}};
    /* The queries' first keys are on both sides of a leg's end; or in one tile and the next. */
    static const ptrdiff_t first[] = {LEG - 100, LEG + 184, 100};
    for (size_t f = 0; f < 3; f++) {
        const qkv_attention a = {.batch = 1,
                                 .heads = 1,
                                 .n_q = N_Q,
                                 .n_k = LEG + 1000,
                                 .d_k = 5,
                                 .d_v = 3,
                                 .mask = {.causal_offset = first[f] + 20,
                                          .window = true,
                                          .window_left = 20,
                                          .window_right = f == 2 ? LEG : 700}};
        problem p = problem_of(a, EVERYTHING | WITH_SINK, f);
        answer whole = answer_new(&p), y = answer_new(&p);
        assert_ok(qkv_set_num_threads(1));
        assert_ok(compute(&p, LAYOUT_PACKED, ALL_GRADIENTS, &whole));
        assert_ok(qkv_set_num_threads(3));
        assert_ok(compute(&p, LAYOUT_PACKED, ALL_GRADIENTS, &y));
        assert_same_bits(&p, ALL_GRADIENTS, &y, &whole, "threads");
        assert_ok(qkv_set_num_threads(0));
        answer_free(&y);
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
            assert_rows_are(&p, parts[i], &whole);
        answer_free(&whole);
        problem_free(&p);
    }
}

/* Chunks of keys are what threads share where queries are few. */
static void threads_strides_and_heads_change_no_bit_of_few_queries(void **state)
{
    (void)state;
    static const qkv_attention a = {
        .batch = 2, .heads = 4, .kv_heads = 2, .n_q = 2, .n_k = 9000, .d_k = 21, .d_v = 19};
    problem p = problem_random(a, REAL_DTYPE, WITH_HEAD_SCALE, 1), part = part_of(&p, 1, 1);
    answer alone = answer_new(&p), y = answer_new(&p), less = answer_new(&part);
    answer *all[] = {&alone, &y, &less};
    for (int i = 0; i < 3; i++) {
        free(all[i]->weights);
        all[i]->weights = NULL;
    }
    assert_ok(qkv_set_num_threads(1));
    assert_ok(compute(&p, LAYOUT_PACKED, 0, &alone));
    static const int threads[] = {2, 3, 8};
    for (size_t t = 0; t < 3; t++)
        for (layout l = LAYOUT_PACKED; l < LAYOUTS; l++) {
            assert_ok(qkv_set_num_threads(threads[t]));
            assert_ok(compute(&p, l, 0, &y));
            assert_same_bits(&p, 0, &y, &alone, "few queries");
        }
    assert_ok(compute(&part, LAYOUT_PACKED, 0, &less));
    answer expected = alone;
    ptrdiff_t row = (1 * a.heads + 2) * a.n_q;
    expected.o += row * a.d_v;
    expected.lse += row;
    assert_same_bits(&part, 0, &less, &expected, "part of few queries");
    assert_ok(qkv_set_num_threads(0));
    for (int i = 0; i < 3; i++) answer_free(all[i]);
    problem_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_number_of_threads_changes_no_bit),
        cmocka_unit_test(strides_change_no_bit),
        cmocka_unit_test(other_batch_items_and_heads_change_no_bit),
        cmocka_unit_test(other_queries_change_no_bit),
        cmocka_unit_test(other_queries_and_threads_change_no_bit_of_many_keys),
        cmocka_unit_test(threads_strides_and_heads_change_no_bit_of_few_queries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
