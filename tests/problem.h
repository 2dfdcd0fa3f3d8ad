/* problem.h - an attention problem with its data, and an answer to it, for the tests: dense double
 * arrays whatever the dtype under test, so that one test serves both. */
#ifndef QKV_TESTS_PROBLEM_H
#define QKV_TESTS_PROBLEM_H

#include "qkv/attention.h"

typedef enum operand {
    Q,
    K,
    V,
    BIAS,
    SCALE,
    BANDWIDTH,
    W,
    SLOPES,
    SINK,
    RELATIVE,
    OPERANDS
} operand;
extern const char *const operand_name[OPERANDS];

/* Arrays are dense, C order. dim is 1 on an axis along which an operand is shared. */
typedef struct problem {
    qkv_attention a;
    qkv_dtype dtype; /* in and the cotangents hold numbers of this type exactly */
    ptrdiff_t dim[OPERANDS][4];
    double *in[OPERANDS]; /* NULL: absent */
    qkv_user_mask mask_rule;
    uint8_t *mask;                     /* [batch, heads, n_q, n_k] or NULL */
    int64_t *lengths, *causal_offsets; /* [batch] or NULL */
    double *d_o;                       /* [batch, heads, n_q, d_v], the cotangents of o and lse */
    double *d_lse;                     /* [batch, heads, n_q] or NULL */
} problem;

/* What problem_random adds to q, k, v and the cotangent of o; combined with |. */
enum {
    WITH_BIAS = 1,        /* one number a pair */
    WITH_SHARED_BIAS = 2, /* [1, 1, n_q, n_k] */
    WITH_KEY_BIAS = 4,    /* [batch, 1, 1, n_k] */
    WITH_SCALE = 8,       /* one number for all */
    WITH_HEAD_SCALE = 16, /* [batch, heads] */
    WITH_BANDWIDTH = 32,  /* [bandwidths] for all; distances only, as the next */
    WITH_HEAD_BANDWIDTH = 64,
    WITH_MASK = 128,        /* two keys in three seen; one row in seven sees none */
    WITH_HIDING_BIAS = 256, /* one bias in five is -inf */
    WITH_D_LSE = 512,
    WITH_LENGTHS = 1024, /* the first batch item has all keys, the second none, others some */
    WITH_OFFSETS = 2048,
    WITH_SLOPES = 4096,   /* [heads] */
    WITH_SINK = 8192,     /* [batch, heads]; softmax only */
    WITH_RELATIVE = 16384 /* [heads, entries], of 4 to the left and 2 to the right */
};

/* Normal q, k, v and cotangents, a function of a, dtype, with and seed alone. Bandwidths are such
 * that a compact kernel reaches about half the keys. */
problem problem_random(qkv_attention a, qkv_dtype dtype, int with, uint64_t seed);
void problem_free(problem *p);

ptrdiff_t problem_kv_heads(const problem *p);
ptrdiff_t problem_rows(const problem *p); /* batch heads n_q */
size_t operand_size(const problem *p, operand x);
/* Flat index; an index along a shared axis counts as 0. */
size_t operand_index(const problem *p, operand x, ptrdiff_t b, ptrdiff_t h, ptrdiff_t i,
                     ptrdiff_t c);
bool problem_takes_bandwidth(const qkv_attention *a);
bool problem_has_lse(const problem *p);
double problem_epsilon(const problem *p); /* of its dtype */

typedef struct answer {
    double *o;           /* [batch, heads, n_q, d_v] */
    double *lse;         /* [batch, heads, n_q] */
    double *weights;     /* [batch, heads, n_q, n_k] */
    double *d[OPERANDS]; /* gradients, as the operand; NULL where that is absent */
} answer;

answer answer_new(const problem *p);
void answer_free(answer *y);

/* Gradients accumulate: what every element of an operand's gradient holds before the call. */
double gradient_start(operand x);

#endif
