#include "problem.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/random.h"

const char *const operand_name[OPERANDS] = {"q",         "k", "v",      "bias", "scale",
                                            "bandwidth", "w", "slopes", "sink", "relative"};

ptrdiff_t problem_kv_heads(const problem *p)
{
    return p->a.kv_heads ? p->a.kv_heads : p->a.heads;
}

ptrdiff_t problem_rows(const problem *p)
{
    return p->a.batch * p->a.heads * p->a.n_q;
}

size_t operand_size(const problem *p, operand x)
{
    const ptrdiff_t *n = p->dim[x];
    return (size_t)(n[0] * n[1] * n[2] * n[3]);
}

size_t operand_index(const problem *p, operand x, ptrdiff_t b, ptrdiff_t h, ptrdiff_t i,
                     ptrdiff_t c)
{
    const ptrdiff_t *n = p->dim[x], at[4] = {b, h, i, c};
    ptrdiff_t index = 0;
    for (int axis = 0; axis < 4; axis++) index = index * n[axis] + (n[axis] == 1 ? 0 : at[axis]);
    return (size_t)index;
}

bool problem_takes_bandwidth(const qkv_attention *a)
{
    return a->score >= QKV_SCORE_GAUSSIAN && a->score <= QKV_SCORE_CAUCHY;
}

bool problem_has_lse(const problem *p)
{
    return p->a.normalize <= QKV_TOP_K || p->a.normalize == QKV_TOP_K_UNIFORM;
}

double problem_epsilon(const problem *p)
{
    return p->dtype == QKV_F32 ? FLT_EPSILON : DBL_EPSILON;
}

static double *new_array(ptrdiff_t n)
{
    double *x = calloc((size_t)n + 1, sizeof *x);
    if (!x) abort();
    return x;
}

static double in_dtype(qkv_dtype dtype, double x)
{
    return dtype == QKV_F32 ? (double)(float)x : x;
}

static double *normal_array(const problem *p, ptrdiff_t n, uint64_t seed, uint64_t stream)
{
    double *x = new_array(n);
    for (ptrdiff_t i = 0; i < n; i++)
        x[i] = in_dtype(p->dtype, qkv_random_normal(seed, stream, (uint64_t)i));
    return x;
}

static void add_operand(problem *p, operand x, const ptrdiff_t dim[4], uint64_t seed)
{
    memcpy(p->dim[x], dim, sizeof p->dim[x]);
    p->in[x] = normal_array(p, (ptrdiff_t)operand_size(p, x), seed, 10 + x);
}

static void add_bias(problem *p, int with, uint64_t seed)
{
    const qkv_attention *a = &p->a;
    if (with & WITH_SHARED_BIAS)
        add_operand(p, BIAS, (ptrdiff_t[]){1, 1, a->n_q, a->n_k}, seed);
    else if (with & WITH_KEY_BIAS)
        add_operand(p, BIAS, (ptrdiff_t[]){a->batch, 1, 1, a->n_k}, seed);
    else
        add_operand(p, BIAS, (ptrdiff_t[]){a->batch, a->heads, a->n_q, a->n_k}, seed);
    if (!(with & WITH_HIDING_BIAS)) return;
    for (size_t i = 0; i < operand_size(p, BIAS); i++)
        if (qkv_random_bits(seed, 1, i) % 5 == 0) p->in[BIAS][i] = -INFINITY;
}

/* exp of the normal numbers that are there, times center: positive, around center */
static void make_positive(problem *p, operand x, double center)
{
    for (size_t i = 0; i < operand_size(p, x); i++)
        p->in[x][i] = in_dtype(p->dtype, center * exp(0.3 * p->in[x][i]));
}

static void add_mask(problem *p, uint64_t seed)
{
    ptrdiff_t n = problem_rows(p) * p->a.n_k;
    p->mask = (uint8_t *)new_array(n / 8 + 1);
    for (ptrdiff_t i = 0; i < n; i++) {
        bool blind = (i / p->a.n_k) % 7 == 3;
        p->mask[i] = !blind && qkv_random_bits(seed, 2, (uint64_t)i) % 3 != 0;
    }
}

/* [batch], from least to most; the first is most, the second least. */
static int64_t *numbers(ptrdiff_t batch, ptrdiff_t least, ptrdiff_t most, uint64_t seed)
{
    int64_t *x = (int64_t *)new_array(batch);
    for (ptrdiff_t b = 0; b < batch; b++) {
        uint64_t range = (uint64_t)(most - least + 1);
        x[b] = b == 0   ? most
               : b == 1 ? least
                        : least + (int64_t)(qkv_random_bits(seed, 5, (uint64_t)b) % range);
    }
    return x;
}

problem problem_random(qkv_attention a, qkv_dtype dtype, int with, uint64_t seed)
{
    problem p = {.a = a, .dtype = dtype};
    ptrdiff_t kv_heads = problem_kv_heads(&p), bandwidths = a.bandwidths ? a.bandwidths : 1;
    add_operand(&p, Q, (ptrdiff_t[]){a.batch, a.heads, a.n_q, a.d_k}, seed);
    add_operand(&p, K, (ptrdiff_t[]){a.batch, kv_heads, a.n_k, a.d_k}, seed);
    add_operand(&p, V, (ptrdiff_t[]){a.batch, kv_heads, a.n_k, a.d_v}, seed);
    if (with & (WITH_BIAS | WITH_SHARED_BIAS | WITH_KEY_BIAS)) add_bias(&p, with, seed);
    if (with & (WITH_SCALE | WITH_HEAD_SCALE)) {
        bool each = with & WITH_HEAD_SCALE;
        add_operand(&p, SCALE, (ptrdiff_t[]){each ? a.batch : 1, each ? a.heads : 1, 1, 1}, seed);
        bool wide = a.score <= QKV_SCORE_DOT;
        make_positive(&p, SCALE, wide ? 1 / sqrt((double)a.d_k) : 1);
    }
    if (a.score >= QKV_SCORE_ADDITIVE) {
        bool each = with & WITH_HEAD_BANDWIDTH;
        ptrdiff_t n = a.score == QKV_SCORE_ADDITIVE ? a.d_k : a.bandwidths;
        add_operand(&p, W, (ptrdiff_t[]){each ? a.batch : 1, each ? a.heads : 1, 1, n}, seed);
    } else if (problem_takes_bandwidth(&a) && with & (WITH_BANDWIDTH | WITH_HEAD_BANDWIDTH)) {
        bool each = with & WITH_HEAD_BANDWIDTH;
        add_operand(&p, BANDWIDTH,
                    (ptrdiff_t[]){each ? a.batch : 1, each ? a.heads : 1, 1, bandwidths}, seed);
        make_positive(&p, BANDWIDTH, sqrt(2 * (double)a.d_k));
    }
    if (with & WITH_SLOPES) {
        add_operand(&p, SLOPES, (ptrdiff_t[]){1, a.heads, 1, 1}, seed);
        make_positive(&p, SLOPES, 0.02);
    }
    if (with & WITH_RELATIVE) {
        p.a.relative_left = 4;
        p.a.relative_right = 2;
        add_operand(&p, RELATIVE, (ptrdiff_t[]){1, a.heads, 1, 7}, seed);
    }
    if (with & WITH_SINK && a.normalize == QKV_SOFTMAX)
        add_operand(&p, SINK, (ptrdiff_t[]){a.batch, a.heads, 1, 1}, seed);
    if (with & WITH_MASK) add_mask(&p, seed);
    if (with & WITH_LENGTHS) p.lengths = numbers(a.batch, 0, a.n_k, seed);
    if (with & WITH_OFFSETS) p.causal_offsets = numbers(a.batch, -2, a.n_k / 2, seed + 1);
    p.d_o = normal_array(&p, problem_rows(&p) * a.d_v, seed, 3);
    if (with & WITH_D_LSE) p.d_lse = normal_array(&p, problem_rows(&p), seed, 4);
    return p;
}

void problem_free(problem *p)
{
    for (int x = 0; x < OPERANDS; x++) free(p->in[x]);
    free(p->mask);
    free(p->lengths);
    free(p->causal_offsets);
    free(p->d_o);
    free(p->d_lse);
}

answer answer_new(const problem *p)
{
    answer y = {.o = new_array(problem_rows(p) * p->a.d_v),
                .lse = new_array(problem_rows(p)),
                .weights = new_array(problem_rows(p) * p->a.n_k)};
    for (operand x = Q; x < OPERANDS; x++)
        if (p->in[x]) y.d[x] = new_array((ptrdiff_t)operand_size(p, x));
    return y;
}

void answer_free(answer *y)
{
    free(y->o);
    free(y->lse);
    free(y->weights);
    for (int x = 0; x < OPERANDS; x++) free(y->d[x]);
}

double gradient_start(operand x)
{
    return 0.875 - 0.25 * (int)x; /* never 0 */
}
