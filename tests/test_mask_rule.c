/* test_mask_rule.c - a mask of the caller's own, asked tile by tile, hides what the same mask as an
 * array hides, to the bit. Built for each dtype. */
#include "agree.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "choices.h"
#include "src/real.h"
#include "support.h"

/* The mask as an array, and what the other rules leave. */
typedef struct rule {
    const problem *p;
    const uint8_t *mask;
    int wrong; /* pairs that were given otherwise than the other rules say */
    int calls;
} rule;

static bool others_let(const problem *p, ptrdiff_t b, ptrdiff_t h, ptrdiff_t i, ptrdiff_t j)
{
    const qkv_mask *m = &p->a.mask;
    ptrdiff_t own = i + (p->causal_offsets ? (ptrdiff_t)p->causal_offsets[b] : m->causal_offset);
    if (m->causal && j > own) return false;
    if (m->window && m->window_left >= 0 && j < own - m->window_left) return false;
    if (m->window && m->window_right >= 0 && j > own + m->window_right) return false;
    if (m->leave_one_out && i == j) return false;
    if (p->lengths && j >= p->lengths[b]) return false;
    return !p->in[BIAS] || p->in[BIAS][operand_index(p, BIAS, b, h, i, j)] > -INFINITY;
}

static void from_array(void *context, const qkv_mask_tile *t, uint8_t *seen)
{
    rule *r = context;
    const qkv_attention *a = &r->p->a;
    int wrong = t->n_q < 1 || t->n_k < 1 || t->query + t->n_q > a->n_q || t->key + t->n_k > a->n_k;
    for (ptrdiff_t i = 0; i < t->n_q; i++)
        for (ptrdiff_t j = 0; j < t->n_k; j++) {
            uint8_t *at = seen + i * t->stride_q + j * t->stride_k;
            ptrdiff_t q = t->query + i, k = t->key + j;
            wrong += *at != others_let(r->p, t->batch, t->head, q, k);
            ptrdiff_t row = (t->batch * a->heads + t->head) * a->n_q + q;
            if (!r->mask[row * a->n_k + k]) *at = 0;
        }
    __atomic_fetch_add(&r->wrong, wrong, __ATOMIC_RELAXED);
    __atomic_fetch_add(&r->calls, 1, __ATOMIC_RELAXED);
}

/* p has a mask: the same answer if that becomes a rule. */
static void assert_rule_is_array(problem *p, layout where)
{
    answer expected = answer_new(p), y = answer_new(p);
    if (p->a.n_k > 4096) { /* what is fast with few queries is only without weights */
        free(expected.weights);
        free(y.weights);
        expected.weights = y.weights = NULL;
    }
    assert_ok(compute(p, where, ALL_GRADIENTS, &expected));
    uint8_t *mask = p->mask;
    rule r = {.p = p, .mask = mask};
    p->mask = NULL;
    p->mask_rule = (qkv_user_mask){.fill = from_array, .context = &r};
    assert_ok(compute(p, where, ALL_GRADIENTS, &y));
    assert_same_bits(p, ALL_GRADIENTS, &y, &expected, "mask rule");
    assert_int_equal(r.wrong, 0);
    assert_true(r.calls > 0);
    p->mask = mask;
    p->mask_rule = (qkv_user_mask){.fill = NULL};
    answer_free(&y);
    answer_free(&expected);
}

static qkv_mask other_rules(size_t c)
{
    const qkv_mask rules[] = {
        {.causal = false},
        {.causal = true, .causal_offset = 20},
        {.leave_one_out = true},
        {.window = true, .window_left = 90, .window_right = 30, .causal_offset = 30},
    };
    return rules[c % 4];
}

static void it_hides_what_an_array_hides(void **state)
{
    (void)state;
    const qkv_attention a = {
        .batch = 2, .heads = 4, .kv_heads = 2, .n_q = 101, .n_k = 231, .d_k = 5, .d_v = 6};
    for (size_t c = 0; c < 2 * CHOICES; c++) {
        qkv_attention chosen = with_choice(a, c / 2);
        chosen.mask = other_rules(c);
        int with = WITH_MASK | WITH_D_LSE;
        if (c % 3 == 1) with |= WITH_BIAS | WITH_HIDING_BIAS;
        if (c % 5 == 2) with |= WITH_LENGTHS | WITH_OFFSETS;
        problem p = problem_random(chosen, REAL_DTYPE, with, c);
        assert_ok(qkv_set_num_threads(1 + (int)c % 3));
        assert_rule_is_array(&p, (layout)(c % LAYOUTS));
        problem_free(&p);
    }
    assert_ok(qkv_set_num_threads(0));
}

static void it_hides_from_few_queries_with_many_keys(void **state)
{
    (void)state;
    const qkv_attention a = {.batch = 1, .heads = 2, .n_q = 2, .n_k = 5000, .d_k = 9, .d_v = 10};
    for (layout l = LAYOUT_PACKED; l < LAYOUTS; l++) {
        problem p = problem_random(a, REAL_DTYPE, WITH_MASK, 7);
        assert_rule_is_array(&p, l);
        problem_free(&p);
    }
}

static void show_everything(void *context, const qkv_mask_tile *t, uint8_t *seen)
{
    (void)context;
    for (ptrdiff_t i = 0; i < t->n_q; i++)
        for (ptrdiff_t j = 0; j < t->n_k; j++) seen[i * t->stride_q + j * t->stride_k] = 0xFF;
}

static void it_cannot_show_what_is_hidden(void **state)
{
    (void)state;
    qkv_attention a = {.batch = 2, .heads = 2, .n_q = 67, .n_k = 90, .d_k = 5, .d_v = 6};
    a.mask = other_rules(1);
    problem p = problem_random(a, REAL_DTYPE, WITH_MASK | WITH_BIAS | WITH_HIDING_BIAS, 3);
    answer expected = answer_new(&p), y = answer_new(&p);
    assert_ok(compute(&p, LAYOUT_PACKED, ALL_GRADIENTS, &expected));
    p.mask_rule.fill = show_everything;
    assert_ok(compute(&p, LAYOUT_PACKED, ALL_GRADIENTS, &y));
    assert_same_bits(&p, ALL_GRADIENTS, &y, &expected, "a rule that shows");
    answer_free(&y);
    answer_free(&expected);
    problem_free(&p);
}

/* Sees only the keys below 192 and from 576 on. */
static void hide_the_middle(void *context, const qkv_mask_tile *t, uint8_t *seen)
{
    (void)context;
    for (ptrdiff_t i = 0; i < t->n_q; i++)
        for (ptrdiff_t j = 0; j < t->n_k; j++)
            if (t->key + j >= 192 && t->key + j < 576) seen[i * t->stride_q + j * t->stride_k] = 0;
}

/* 768 rows of 64 numbers, of which those that are hidden cannot be read. */
static real *guarded_rows(bool guard)
{
    enum { ROW = 64 };
    size_t bytes = 768 * ROW * sizeof(real), page = (size_t)sysconf(_SC_PAGESIZE);
    real *x = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(x != MAP_FAILED);
    double normal[ROW];
    for (size_t i = 0; i < 768; i++) {
        fill_normal(normal, ROW, i);
        for (size_t c = 0; c < ROW; c++) x[i * ROW + c] = (real)normal[c];
    }
    if (!guard) return x;
    size_t first = 192 * ROW * sizeof(real), end = 576 * ROW * sizeof(real);
    assert_true(first % page == 0 && end % page == 0); /* else this test needs other numbers */
    assert_int_equal(mprotect((char *)x + first, end - first, PROT_NONE), 0);
    return x;
}

static void a_tile_that_it_hides_is_not_read(void **state)
{
    (void)state;
    enum { N_Q = 50, N_K = 768, D = 64 };
    static real w[D], q[N_Q * D], o[N_Q * D], row_max[N_Q], row_log_sum[N_Q], dq[N_Q * D],
        d_o[N_Q * D];
    static double normal[N_Q * D];
    fill_normal(normal, N_Q * D, 1000);
    for (int i = 0; i < N_Q * D; i++) q[i] = d_o[i] = (real)normal[i];
    for (int i = 0; i < D; i++) w[i] = (real)normal[i];
    real *k = guarded_rows(true), *v = guarded_rows(true), *dk = guarded_rows(true),
         *dv = guarded_rows(true);
    for (size_t c = 0; c < CHOICES; c++) {
        const qkv_attention a = with_choice(
            (qkv_attention){
                .batch = 1, .heads = 1, .n_q = N_Q, .n_k = N_K, .d_k = D, .d_v = D, .softcap = 0},
            c);
        const FN(qkv_operands) in = {.q.data = q,
                                     .k.data = k,
                                     .v.data = v,
                                     .w.data = a.score >= QKV_SCORE_ADDITIVE ? w : NULL,
                                     .user_score =
                                         a.score == QKV_SCORE_USER ? &FN(test_score) : NULL,
                                     .mask_rule.fill = hide_the_middle};
        const FN(qkv_operands) d_in = {.q.data = dq, .k.data = dk, .v.data = dv};
        const FN(qkv_results) out = {
            .o.data = o, .row_max.data = row_max, .row_log_sum.data = row_log_sum};
        const FN(qkv_results) d_out = {.o.data = d_o};
        size_t forward, backward;
        assert_ok(qkv_attention_workspace(&a, QKV_FORWARD, REAL_DTYPE, &forward));
        assert_ok(qkv_attention_workspace(&a, QKV_BACKWARD, REAL_DTYPE, &backward));
        void *memory = malloc(forward + backward);
        assert_non_null(memory);
        assert_ok(FN(qkv_attention_forward)(&a, &in, &out, memory, forward));
        assert_ok(FN(qkv_attention_backward)(&a, &in, &out, &d_out, &d_in, memory, backward));
        free(memory);
    }
    real *all[] = {k, v, dk, dv};
    for (int i = 0; i < 4; i++) munmap(all[i], 768 * D * sizeof(real));
}

/* The covariance walks by itself. */
static void it_hides_from_the_covariance(void **state)
{
    (void)state;
    const qkv_attention a = {
        .batch = 2, .heads = 2, .n_q = 37, .n_k = 230, .d_k = 3, .d_v = 2, .mask.causal = true};
    enum { ROWS = 2 * 2 * 37, MATRIX = 6 };
    problem p = problem_random(a, QKV_F64, WITH_MASK, 5);
    static double cov[2][ROWS * MATRIX];
    size_t bytes;
    assert_ok(qkv_attention_workspace(&a, QKV_COVARIANCE, QKV_F64, &bytes));
    void *memory = malloc(bytes);
    assert_non_null(memory);
    rule r = {.p = &p, .mask = p.mask};
    for (int i = 0; i < 2; i++) {
        qkv_operands_f64 in = {.q.data = p.in[Q], .k.data = p.in[K], .v.data = p.in[V]};
        const qkv_slot_f64 to = {.data = cov[i]};
        if (i == 0) in.mask.data = p.mask;
        if (i == 1) in.mask_rule = (qkv_user_mask){.fill = from_array, .context = &r};
        assert_ok(qkv_attention_covariance_f64(&a, &in, &to, memory, bytes));
    }
    assert_memory_equal(cov[0], cov[1], sizeof cov[0]);
    assert_int_equal(r.wrong, 0);
    free(memory);
    problem_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_hides_what_an_array_hides),
        cmocka_unit_test(it_hides_from_few_queries_with_many_keys),
        cmocka_unit_test(it_cannot_show_what_is_hidden),
        cmocka_unit_test(a_tile_that_it_hides_is_not_read),
        cmocka_unit_test(it_hides_from_the_covariance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
