/* test_attention_gradcheck.c - every score, mask and normaliser under qkv_gradcheck, the check that
 * users have: finite differences of the shipped forward, with strided inputs and signed cotangents.
 */
#include "choices.h"
#include "compute.h"
#include "qkv/gradcheck.h"
#include "support.h"

#include <math.h>
#include <stdlib.h>

typedef struct loss {
    const problem *p;
    answer *y;
    layout where;
} loss;

/* sum(d_o o) + sum(d_lse lse), where a row has an lse. */
static qkv_status evaluate(void *context, double *value)
{
    const loss *l = context;
    qkv_status status = compute(l->p, l->where, 0, l->y);
    *value = 0;
    for (ptrdiff_t i = 0; i < problem_rows(l->p) * l->p->a.d_v; i++)
        *value += l->p->d_o[i] * l->y->o[i];
    for (ptrdiff_t i = 0; i < problem_rows(l->p) && problem_has_lse(l->p); i++)
        if (isfinite(l->y->lse[i])) *value += l->p->d_lse[i] * l->y->lse[i];
    return status;
}

/* Operands that the weights do not depend on, or only by steps. */
static bool is_flat(const qkv_attention *a, operand x)
{
    bool steps = (a->normalize == QKV_KERNEL_SUM || a->normalize == QKV_NONE_KERNEL) &&
                 (a->kernel == QKV_KERNEL_BOXCAR || a->kernel == QKV_KERNEL_CONSTANT);
    if (x == V) return false;
    return a->normalize == QKV_HARD || a->normalize == QKV_UNIFORM ||
           a->normalize == QKV_TOP_K_UNIFORM ||
           (steps && x != BIAS && x != SLOPES && x != RELATIVE);
}

static void check_operand(const problem *p, operand x, double *gradient, layout where,
                          size_t choice)
{
    answer y = answer_new(p);
    loss l = {.p = p, .y = &y, .where = where};
    const qkv_check_input input = {.name = operand_name[x],
                                   .x = p->in[x],
                                   .gradient = gradient,
                                   .n = operand_size(p, x),
                                   .upper = x == BANDWIDTH ? INFINITY : 0,
                                   .zero =
                                       is_flat(&p->a, x) ? QKV_ZERO_EXACT : QKV_ZERO_UNDECLARED};
    qkv_check_report report;
    if (qkv_gradcheck(evaluate, &l, &input, 1, NULL, &report) != QKV_OK)
        fail_msg("choice %zu: %s", choice, report.message);
    answer_free(&y);
}

static void check(qkv_attention a, int with, layout where, size_t choice, uint64_t seed)
{
    if (problem_takes_bandwidth(&a)) a.bandwidths = seed % 2 ? a.d_k : 1;
    problem p = problem_random(a, QKV_F64, with | WITH_D_LSE, seed);
    answer y = answer_new(&p);
    assert_ok(compute(&p, where, ALL_GRADIENTS, &y));
    for (operand x = Q; x < OPERANDS; x++) {
        if (!p.in[x]) continue;
        for (size_t i = 0; i < operand_size(&p, x); i++) y.d[x][i] -= gradient_start(x);
        check_operand(&p, x, y.d[x], where, choice);
    }
    answer_free(&y);
    problem_free(&p);
}

static const qkv_attention shape = {
    .batch = 1, .heads = 2, .kv_heads = 1, .n_q = 3, .n_k = 5, .d_k = 2, .d_v = 2};

/* Masks and operands, each set with one layout after the other. */
static const struct {
    int with;
    qkv_mask mask;
    double softcap, dropout;
} settings[] = {
    {WITH_BIAS | WITH_SCALE | WITH_BANDWIDTH, {0}, 0, 0},
    {WITH_SHARED_BIAS | WITH_MASK | WITH_HEAD_SCALE | WITH_HEAD_BANDWIDTH,
     {.causal = true, .causal_offset = 3, .leave_one_out = true},
     0,
     0.4},
    {WITH_SLOPES | WITH_RELATIVE | WITH_SINK | WITH_LENGTHS | WITH_OFFSETS | WITH_BANDWIDTH,
     {.window = true, .window_left = 2, .window_right = 2},
     2.5,
     0},
};

static bool takes_kernel(const qkv_attention *a)
{
    return a->normalize == QKV_KERNEL_SUM || a->normalize == QKV_NONE_KERNEL;
}

/* All that DESIGN.md's table allows: every score with every normaliser, and every kernel with the
 * distance it needs. */
static void every_score_and_normaliser_has_the_gradient_of_its_differences(void **state)
{
    (void)state;
    size_t checked = 0;
    for (qkv_normalize n = QKV_SOFTMAX; n <= QKV_NONE_IDENTITY; n++)
        for (qkv_score score = QKV_SCORE_SCALED_DOT; score <= QKV_SCORE_USER; score++)
            for (qkv_kernel kernel = QKV_KERNEL_BOXCAR; kernel <= QKV_KERNEL_CONSTANT; kernel++)
                for (size_t e = 0; e < sizeof settings / sizeof *settings; e++) {
                    qkv_attention a = shape;
                    a.score = score;
                    a.normalize = n;
                    a.kernel = kernel;
                    a.empty = QKV_EMPTY_NEAREST;
                    a.mask = settings[e].mask;
                    a.dropout = settings[e].dropout;
                    if (takes_kernel(&a) ? score != QKV_SCORE_GAUSSIAN : kernel) continue;
                    if (takes_softcap(&a)) a.softcap = settings[e].softcap;
                    if (n == QKV_TOP_K || n == QKV_TOP_K_UNIFORM) a.top_k = 2;
                    if (score == QKV_SCORE_USER) a.bandwidths = 2;
                    if (settings[e].with & WITH_LENGTHS) a.batch = 2;
                    check(a, settings[e].with, (layout)(checked % LAYOUTS), checked,
                          1 + checked % 7);
                    checked++;
                }
    assert_true(checked == 3 * (8 * 10 + 2 * 8));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_score_and_normaliser_has_the_gradient_of_its_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
