/* test_second_order.c - products with the Jacobian and with second derivatives: against differences
 * of the shipped forward and backward, and by the identities that tie them together. Built for each
 * dtype. */
#include "agree.h"
#include "choices.h"
#include "qkv/second_order.h"
#include "src/real.h"
#include "support.h"

#include <stdlib.h>
#include <string.h>

typedef FN(qkv_slot) real_slot;

/* Everything about a problem, packed, in this dtype. */
typedef struct arrays {
    real *x[OPERANDS]; /* NULL: absent */
    real *o, *lse, *row_max, *row_log_sum;
} arrays;

typedef struct setup {
    problem p;
    arrays in, u, d_in; /* operands; tangents; gradients */
    real *d_o, *d_lse;
    arrays row_out; /* of the tangents: o, lse */
} setup;

static size_t value_size(const problem *p)
{
    return (size_t)(problem_rows(p) * p->a.d_v);
}

static real *new_reals(size_t n)
{
    real *x = calloc(n + 1, sizeof *x);
    if (!x) abort();
    return x;
}

static real *normal_reals(size_t n, uint64_t seed)
{
    double *y = malloc((n + 1) * sizeof *y);
    real *x = new_reals(n);
    fill_normal(y, n, seed);
    for (size_t i = 0; i < n; i++) x[i] = (real)y[i];
    free(y);
    return x;
}

static arrays new_rows(const problem *p)
{
    size_t rows = (size_t)problem_rows(p);
    return (arrays){.o = new_reals(value_size(p)),
                    .lse = new_reals(rows),
                    .row_max = new_reals(rows),
                    .row_log_sum = new_reals(rows)};
}

static void free_arrays(arrays *x)
{
    for (operand i = Q; i < OPERANDS; i++) free(x->x[i]);
    free(x->o);
    free(x->lse);
    free(x->row_max);
    free(x->row_log_sum);
}

static setup setup_of(qkv_attention a, int with, uint64_t seed)
{
    setup s = {.p = problem_random(a, REAL_DTYPE, with, seed)};
    const problem *p = &s.p;
    s.in = new_rows(p);
    s.row_out = new_rows(p);
    for (operand i = Q; i < OPERANDS; i++) {
        if (!p->in[i]) continue;
        size_t n = operand_size(p, i);
        s.in.x[i] = new_reals(n);
        for (size_t j = 0; j < n; j++) s.in.x[i][j] = (real)p->in[i][j];
        s.u.x[i] = normal_reals(n, seed + 100 + i);
        /* A bias that hides has nowhere to move. */
        for (size_t j = 0; i == BIAS && j < n; j++)
            if (isinf(p->in[i][j])) s.u.x[i][j] = 0;
        s.d_in.x[i] = new_reals(n);
    }
    s.d_o = normal_reals(value_size(p), seed + 200);
    s.d_lse = normal_reals((size_t)problem_rows(p), seed + 201);
    return s;
}

static void setup_free(setup *s)
{
    free_arrays(&s->in);
    free_arrays(&s->u);
    free_arrays(&s->d_in);
    free_arrays(&s->row_out);
    free(s->d_o);
    free(s->d_lse);
    problem_free(&s->p);
}

/* Dense arrays as slots; shared axes have stride 0. */
static FN(qkv_operands) operands_of(const problem *p, const arrays *x)
{
    FN(qkv_operands) y = {0};
    real_slot *to[OPERANDS] = {&y.q,         &y.k, &y.v,      &y.bias, &y.scale,
                               &y.bandwidth, &y.w, &y.slopes, &y.sink, &y.relative};
    for (operand i = Q; i < OPERANDS; i++) {
        ptrdiff_t step = 1;
        *to[i] = (real_slot){.data = x->x[i], .strided = true};
        for (int axis = 3; axis >= 0 && x->x[i]; axis--) {
            to[i]->stride[axis] = p->dim[i][axis] == 1 ? 0 : step;
            step *= p->dim[i][axis];
        }
    }
    y.mask.data = p->mask;
    y.lengths = p->lengths;
    y.causal_offsets = p->causal_offsets;
    return y;
}

static void *new_workspace(const qkv_attention *a, qkv_pass pass, size_t *bytes)
{
    assert_ok(qkv_attention_workspace(a, pass, REAL_DTYPE, bytes));
    void *memory = malloc(*bytes + 1);
    memset(memory, 0xFF, *bytes + 1);
    return memory;
}

static void forward(const problem *p, const arrays *x)
{
    const FN(qkv_operands) in = operands_of(p, x);
    const FN(qkv_results) out = {.o.data = x->o,
                                 .lse.data = x->lse,
                                 .row_max.data = x->row_max,
                                 .row_log_sum.data = x->row_log_sum};
    size_t bytes;
    void *workspace = new_workspace(&p->a, QKV_FORWARD, &bytes);
    assert_ok(FN(qkv_attention_forward)(&p->a, &in, &out, workspace, bytes));
    free(workspace);
}

static FN(qkv_results) saved_of(const arrays *x)
{
    return (FN(qkv_results)){
        .o.data = x->o, .row_max.data = x->row_max, .row_log_sum.data = x->row_log_sum};
}

/* d_in += the gradients of sum(d_o o) + sum(d_lse lse). */
static void backward(const setup *s, const arrays *x, const arrays *d_in)
{
    const problem *p = &s->p;
    const FN(qkv_operands) in = operands_of(p, x), to = operands_of(p, d_in);
    const FN(qkv_results) saved = saved_of(x), d_out = {.o.data = s->d_o, .lse.data = s->d_lse};
    size_t bytes;
    void *workspace = new_workspace(&p->a, QKV_BACKWARD, &bytes);
    assert_ok(FN(qkv_attention_backward)(&p->a, &in, &saved, &d_out, &to, workspace, bytes));
    free(workspace);
}

static void jvp(const setup *s, const arrays *out)
{
    const problem *p = &s->p;
    const FN(qkv_operands) in = operands_of(p, &s->in), u = operands_of(p, &s->u);
    const FN(qkv_results) saved = saved_of(&s->in), to = {.o.data = out->o, .lse.data = out->lse};
    size_t bytes;
    void *workspace = new_workspace(&p->a, QKV_JVP, &bytes);
    assert_ok(FN(qkv_attention_jvp)(&p->a, &in, &saved, &u, &to, workspace, bytes));
    free(workspace);
}

static void double_backward_from(const setup *s, FN(qkv_results) saved, const arrays *u,
                                 const arrays *d_in, const arrays *dd_out)
{
    const problem *p = &s->p;
    const FN(qkv_operands) in = operands_of(p, &s->in), tangent = operands_of(p, u);
    const FN(qkv_operands) to = operands_of(p, d_in);
    const FN(qkv_results) d_out = {.o.data = s->d_o, .lse.data = s->d_lse};
    const FN(qkv_results) dd = {.o.data = dd_out->o, .lse.data = dd_out->lse};
    size_t bytes;
    void *workspace = new_workspace(&p->a, QKV_DOUBLE_BACKWARD, &bytes);
    assert_ok(FN(qkv_attention_double_backward)(&p->a, &in, &saved, &d_out, &tangent, &to, &dd,
                                                workspace, bytes));
    free(workspace);
}

static void double_backward(const setup *s, const arrays *u, const arrays *d_in,
                            const arrays *dd_out)
{
    double_backward_from(s, saved_of(&s->in), u, d_in, dd_out);
}

/* ---- The cases ----------------------------------------------------------------------------- */

static const struct {
    int with;
    qkv_mask mask;
    double softcap, dropout;
    bool each; /* d_k bandwidths */
} extras[] = {
    {0, {0}, 0, 0, false},
    {WITH_BIAS | WITH_SCALE | WITH_BANDWIDTH, {.leave_one_out = true}, 0, 0, true},
    {WITH_SHARED_BIAS | WITH_HEAD_SCALE | WITH_HEAD_BANDWIDTH | WITH_SLOPES | WITH_SINK |
         WITH_RELATIVE,
     {.causal = true, .causal_offset = 2},
     0,
     0,
     true},
    {WITH_KEY_BIAS | WITH_HIDING_BIAS | WITH_MASK | WITH_BANDWIDTH, {0}, 1.5, 0, false},
    {WITH_SCALE | WITH_LENGTHS | WITH_OFFSETS | WITH_BANDWIDTH | WITH_SINK,
     {.window = true, .window_left = 5, .window_right = 3},
     2,
     0.4,
     false},
};

enum { SCORES = QKV_SCORE_ADDITIVE + 1, EXTRAS = sizeof extras / sizeof *extras };

static setup case_of(qkv_attention a, qkv_score score, size_t e, uint64_t seed)
{
    a.score = score;
    a.mask = extras[e].mask;
    a.softcap = extras[e].softcap;
    a.dropout = extras[e].dropout;
    a.dropout_seed = seed;
    if (extras[e].each && problem_takes_bandwidth(&a)) a.bandwidths = a.d_k;
    return setup_of(a, extras[e].with, seed);
}

static const qkv_attention shape = {
    .batch = 2, .heads = 4, .kv_heads = 2, .n_q = 9, .n_k = 11, .d_k = 3, .d_v = 2};

#if QKV_REAL == 64 /* differences of float would say too little; its agreement follows below */
/* Operands at the point in + h u. */
static arrays moved(const setup *s, double h)
{
    arrays x = new_rows(&s->p);
    for (operand i = Q; i < OPERANDS; i++) {
        if (!s->in.x[i]) continue;
        size_t n = operand_size(&s->p, i);
        x.x[i] = new_reals(n);
        for (size_t j = 0; j < n; j++)
            x.x[i][j] = (real)((double)s->in.x[i][j] + h * (double)s->u.x[i][j]);
    }
    return x;
}

/* (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12 h, of fourth order. */
static double slope(const double f[4], double h)
{
    return (8 * (f[1] - f[2]) - (f[0] - f[3])) / (12 * h);
}

static const double steps[4] = {2, 1, -1, -2};

/* Of Laplace so short that no coordinate passes its corner. */
static double step_of(int score)
{
    return ldexp(1, score == QKV_SCORE_LAPLACE ? -18 : -11);
}

static void jvp_is_the_slope_of_forward(void **state)
{
    (void)state;
    for (int score = 0; score < SCORES; score++)
        for (size_t e = 0; e < EXTRAS; e++) {
            double h = step_of(score);
            setup s = case_of(shape, (qkv_score)score, e, 7 + e);
            forward(&s.p, &s.in);
            jvp(&s, &s.row_out);
            arrays at[4];
            for (int i = 0; i < 4; i++) {
                at[i] = moved(&s, h * steps[i]);
                forward(&s.p, &at[i]);
            }
            for (size_t i = 0; i < value_size(&s.p); i++) {
                double f[] = {at[0].o[i], at[1].o[i], at[2].o[i], at[3].o[i]};
                assert_close(s.row_out.o[i], slope(f, h), 2e-7 * (1 + fabs(s.row_out.o[i])));
            }
            for (ptrdiff_t i = 0; i < problem_rows(&s.p); i++) {
                if (isinf(s.in.lse[i])) continue;
                double f[] = {at[0].lse[i], at[1].lse[i], at[2].lse[i], at[3].lse[i]};
                assert_close(s.row_out.lse[i], slope(f, h), 2e-7 * (1 + fabs(s.row_out.lse[i])));
            }
            for (int i = 0; i < 4; i++) free_arrays(&at[i]);
            setup_free(&s);
        }
}

/* phi(u) = <u, gradients>, whose slope along u is <u, H u>; and the gradient of phi is H u, whose
 * every element is the slope of the gradients along u, as H is symmetric. */
static void double_backward_is_the_slope_of_backward(void **state)
{
    (void)state;
    for (int score = 0; score < SCORES; score++)
        for (size_t e = 0; e < EXTRAS; e++) {
            double h = step_of(score);
            setup s = case_of(shape, (qkv_score)score, e, 7 + e);
            forward(&s.p, &s.in);
            double_backward(&s, &s.u, &s.d_in, &s.row_out);
            arrays at[4], d[4];
            for (int i = 0; i < 4; i++) {
                at[i] = moved(&s, h * steps[i]);
                d[i] = moved(&s, 0);
                for (operand x = Q; x < OPERANDS; x++)
                    if (d[i].x[x]) memset(d[i].x[x], 0, operand_size(&s.p, x) * sizeof(real));
                forward(&s.p, &at[i]);
                backward(&s, &at[i], &d[i]);
            }
            for (operand x = Q; x < OPERANDS; x++)
                for (size_t i = 0; s.in.x[x] && i < operand_size(&s.p, x); i++) {
                    double f[] = {d[0].x[x][i], d[1].x[x][i], d[2].x[x][i], d[3].x[x][i]};
                    double found = s.d_in.x[x][i], expected = slope(f, h);
                    if (fabs(found - expected) > 1e-6 * (1 + fabs(expected)))
                        fail_msg("score %d extra %zu: %s[%zu] is %g, expected %g", score, e,
                                 operand_name[x], i, found, expected);
                }
            arrays along = new_rows(&s.p);
            jvp(&s, &along);
            for (size_t i = 0; i < value_size(&s.p); i++)
                assert_close(s.row_out.o[i], along.o[i], 0);
            for (ptrdiff_t i = 0; i < problem_rows(&s.p); i++)
                assert_close(s.row_out.lse[i], along.lse[i], 0);
            free_arrays(&along);
            for (int i = 0; i < 4; i++) free_arrays(&at[i]);
            for (int i = 0; i < 4; i++) free_arrays(&d[i]);
            setup_free(&s);
        }
}
#endif

/* sum of the products, and of their magnitudes. */
static double inner(const real *x, const real *y, size_t n, double *size)
{
    double sum = 0;
    for (size_t i = 0; x && y && i < n; i++) {
        sum += (double)x[i] * (double)y[i];
        *size += fabs((double)x[i] * (double)y[i]);
    }
    return sum;
}

static void jvp_is_the_adjoint_of_backward(void **state)
{
    (void)state;
    qkv_attention a = shape;
    a.n_q = 70;
    a.n_k = 150;
    for (int score = 0; score < SCORES; score++)
        for (size_t e = 0; e < EXTRAS; e++) {
            setup s = case_of(a, (qkv_score)score, e, 3 + e);
            forward(&s.p, &s.in);
            jvp(&s, &s.row_out);
            backward(&s, &s.in, &s.d_in);
            size_t rows = (size_t)problem_rows(&s.p);
            double size = 0, left = inner(s.d_o, s.row_out.o, value_size(&s.p), &size), right = 0;
            left += inner(s.d_lse, s.row_out.lse, rows, &size);
            for (operand x = Q; x < OPERANDS; x++)
                right += inner(s.u.x[x], s.d_in.x[x], s.in.x[x] ? operand_size(&s.p, x) : 0, &size);
            assert_close(left, right, 32 * REAL_EPSILON * size);
            assert_true(fabs(left) > 64 * REAL_EPSILON * size);
            setup_free(&s);
        }
}

/* <w, H u> = <u, H w>. */
static void the_hessian_is_symmetric(void **state)
{
    (void)state;
    qkv_attention a = shape;
    a.n_q = 50;
    a.n_k = 140;
    for (int score = 0; score < SCORES; score++)
        for (size_t e = 0; e < EXTRAS; e++) {
            setup s = case_of(a, (qkv_score)score, e, 3 + e),
                  z = case_of(a, (qkv_score)score, e, 3 + e);
            for (operand x = Q; x < OPERANDS; x++) {
                if (!z.u.x[x]) continue;
                real *other = normal_reals(operand_size(&s.p, x), 900 + x);
                for (size_t i = 0; i < operand_size(&s.p, x); i++)
                    z.u.x[x][i] = s.u.x[x][i] == 0 ? 0 : other[i];
                free(other);
            }
            forward(&s.p, &s.in);
            double_backward(&s, &s.u, &s.d_in, &s.row_out);
            double_backward(&s, &z.u, &z.d_in, &s.row_out);
            double left = 0, right = 0, size = 0;
            for (operand x = Q; x < OPERANDS; x++) {
                size_t n = s.in.x[x] ? operand_size(&s.p, x) : 0;
                left += inner(z.u.x[x], s.d_in.x[x], n, &size);
                right += inner(s.u.x[x], z.d_in.x[x], n, &size);
            }
            assert_close(left, right, 128 * REAL_EPSILON * size);
            assert_true(size > 1);
            setup_free(&s);
            setup_free(&z);
        }
}

/* All that double_backward and jvp write, in one array. */
static real *all_results(const setup *s, size_t *n)
{
    size_t rows = (size_t)problem_rows(&s->p), at = 0;
    *n = value_size(&s->p) + rows;
    for (operand x = Q; x < OPERANDS; x++) *n += s->in.x[x] ? operand_size(&s->p, x) : 0;
    real *all = new_reals(*n);
    for (operand x = Q; x < OPERANDS; x++) {
        size_t size = s->in.x[x] ? operand_size(&s->p, x) : 0;
        if (size) memcpy(all + at, s->d_in.x[x], size * sizeof *all);
        at += size;
    }
    memcpy(all + at, s->row_out.o, value_size(&s->p) * sizeof *all);
    memcpy(all + at + value_size(&s->p), s->row_out.lse, rows * sizeof *all);
    return all;
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    qkv_attention a = shape;
    a.n_q = 150;
    a.n_k = 230;
    for (int score = 0; score < SCORES; score++) {
        size_t n, e = (size_t)score % EXTRAS;
        real *alone = NULL;
        for (int threads = 1; threads <= 5; threads += 2) {
            setup s = case_of(a, (qkv_score)score, e, 3);
            assert_ok(qkv_set_num_threads(threads));
            forward(&s.p, &s.in);
            double_backward(&s, &s.u, &s.d_in, &s.row_out);
            real *all = all_results(&s, &n);
            if (threads > 1) assert_memory_equal(all, alone, n * sizeof *all);
            if (threads > 1) free(all);
            if (threads == 1) alone = all;
            setup_free(&s);
        }
        free(alone);
        assert_ok(qkv_set_num_threads(0));
    }
}

static void strides_of_the_saved_change_no_bit(void **state)
{
    (void)state;
    for (size_t e = 0; e < EXTRAS; e++) {
        qkv_attention a = shape;
        a.d_v = 11;
        setup s = case_of(a, QKV_SCORE_SCALED_DOT, e, 3);
        size_t n, columns = (size_t)a.d_v;
        forward(&s.p, &s.in);
        double_backward(&s, &s.u, &s.d_in, &s.row_out);
        real *packed = all_results(&s, &n), *apart = new_reals(2 * value_size(&s.p));
        for (size_t i = 0; i < value_size(&s.p); i++) apart[2 * i] = s.in.o[i];
        for (operand x = Q; x < OPERANDS; x++)
            if (s.in.x[x]) memset(s.d_in.x[x], 0, operand_size(&s.p, x) * sizeof(real));
        memset(s.row_out.o, 0, value_size(&s.p) * sizeof(real));
        memset(s.row_out.lse, 0, (size_t)problem_rows(&s.p) * sizeof(real));
        FN(qkv_results) saved = saved_of(&s.in);
        const ptrdiff_t row = 2 * (ptrdiff_t)columns, head = row * a.n_q;
        saved.o =
            (real_slot){.data = apart, .strided = true, .stride = {head * a.heads, head, row, 2}};
        double_backward_from(&s, saved, &s.u, &s.d_in, &s.row_out);
        real *all = all_results(&s, &n);
        assert_memory_equal(all, packed, n * sizeof *all);
        free(all);
        free(apart);
        free(packed);
        setup_free(&s);
    }
}

/* A pair that is hidden takes no part, whatever stands in its key, value, query and tangents. */
static void hidden_nan_has_no_effect(void **state)
{
    (void)state;
    for (int score = 0; score < SCORES; score++) {
        size_t n;
        real *clean = NULL;
        for (int spoiled = 0; spoiled < 2; spoiled++) {
            qkv_attention a = shape;
            a.score = (qkv_score)score;
            a.mask = (qkv_mask){.causal = true, .causal_offset = -3}; /* three blind queries */
            setup s = setup_of(a, WITH_BIAS | WITH_SCALE | WITH_BANDWIDTH, 5);
            ptrdiff_t last = a.n_q - 4; /* the last key that anyone sees is the one before */
            for (ptrdiff_t row = 0; spoiled && row < a.batch * a.kv_heads * a.n_k; row++)
                if (row % a.n_k > last + 1) {
                    s.in.x[K][row * a.d_k] = s.u.x[K][row * a.d_k + 1] = (real)NAN;
                    s.in.x[V][row * a.d_v] = s.u.x[V][row * a.d_v + 1] = (real)NAN;
                }
            for (ptrdiff_t row = 0; spoiled && row < problem_rows(&s.p); row++)
                if (row % a.n_q < 3) {
                    s.in.x[Q][row * a.d_k] = s.u.x[Q][row * a.d_k + 1] = (real)NAN;
                    s.d_o[row * a.d_v] = (real)NAN;
                }
            forward(&s.p, &s.in);
            double_backward(&s, &s.u, &s.d_in, &s.row_out);
            real *all = all_results(&s, &n);
            for (size_t i = 0; i < n; i++) assert_true(isfinite(all[i]));
            if (spoiled) assert_memory_equal(all, clean, n * sizeof *all);
            if (spoiled) free(all);
            if (!spoiled) clean = all;
            setup_free(&s);
        }
        free(clean);
    }
}

static void what_does_not_go_together_is_refused(void **state)
{
    (void)state;
    static real memory[64], workspace[1 << 16];
    qkv_attention a = {.batch = 1, .heads = 1, .n_q = 1, .n_k = 1, .d_k = 1, .d_v = 1};
    const FN(qkv_operands) in = {
        .q.data = memory, .k.data = memory + 1, .v.data = memory + 2, .w.data = NULL};
    const FN(qkv_results) saved = {
        .o.data = memory + 3, .row_max.data = memory + 4, .row_log_sum.data = memory + 5};
    const FN(qkv_results) out = {.o.data = memory + 6}, lacking = {.o.data = memory + 3};
    const FN(qkv_results) overlapping = {.o.data = memory + 1}, none = {.o.data = NULL};
    const FN(qkv_operands) tangent = {.q.data = memory + 7};
    size_t bytes = sizeof workspace;
    assert_ok(FN(qkv_attention_jvp)(&a, &in, &saved, &tangent, &out, workspace, bytes));
    assert_status(FN(qkv_attention_jvp)(&a, &in, &lacking, &tangent, &out, workspace, bytes),
                  QKV_E_ARG);
    assert_message("saved lacks o, row_max or row_log_sum");
    assert_status(FN(qkv_attention_jvp)(&a, &in, &saved, NULL, &out, workspace, bytes), QKV_E_ARG);
    assert_message("the tangent u is NULL");
    assert_status(FN(qkv_attention_jvp)(&a, &in, &saved, &tangent, &none, workspace, bytes),
                  QKV_E_ARG);
    assert_message("d_result has neither o nor lse");
    assert_status(FN(qkv_attention_jvp)(&a, &in, &saved, &tangent, &overlapping, workspace, bytes),
                  QKV_E_ALIAS);
    assert_message("d_result o, which is written, shares elements with k");
    assert_status(FN(qkv_attention_jvp)(&a, &in, &saved, &tangent, &out, workspace, 10), QKV_E_ARG);
    assert_message("the workspace has 10 bytes");
    a.normalize = QKV_HARD;
    assert_status(FN(qkv_attention_jvp)(&a, &in, &saved, &tangent, &out, workspace, bytes),
                  QKV_E_ARG);
    assert_message("second order goes with QKV_SOFTMAX only");
    a.normalize = QKV_SOFTMAX;
    assert_status(FN(qkv_attention_double_backward)(&a, &in, &saved, &out, &tangent, NULL, NULL,
                                                    workspace, bytes),
                  QKV_E_ARG);
    assert_message("d_in is NULL");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#if QKV_REAL == 64
        cmocka_unit_test(jvp_is_the_slope_of_forward),
        cmocka_unit_test(double_backward_is_the_slope_of_backward),
#endif
        cmocka_unit_test(jvp_is_the_adjoint_of_backward),
        cmocka_unit_test(the_hessian_is_symmetric),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(strides_of_the_saved_change_no_bit),
        cmocka_unit_test(hidden_nan_has_no_effect),
        cmocka_unit_test(what_does_not_go_together_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
