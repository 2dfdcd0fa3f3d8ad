/* oracle_row.h - one query of the oracle: what oracle.c finds on the way forward and
 * oracle_gradient.c goes back through. */
#ifndef QKV_TESTS_ORACLE_ROW_H
#define QKV_TESTS_ORACLE_ROW_H

#include <complex.h>
#include <math.h>

#include "oracle.h"

/* Complex throughout, so that one forward pass serves the values and the complex step. */
typedef long double complex number;

static const long double oracle_step = 1e-30L;

/* One query and everything it leads to. Arrays have n_k entries, o has d_v. */
typedef struct row {
    const problem *p;
    const double *perturbed; /* the input element that gets + i step, or NULL */
    ptrdiff_t b, h, i, g;    /* batch, head, query, and the head of its keys and values */
    bool *seen;
    number *a, *s, *bias;  /* a(q, k), the score, bias and slope together */
    number *capped;        /* d score / d (scale a) */
    number *prior, *w;     /* e^bias and the weight, both times a common factor */
    number *alpha, *o;     /* the weight at last, before dropout; the answer */
    double *keep;          /* what dropout makes of 1 */
    number sum, lse;       /* of w; its log with the common factor put back */
    long double condition; /* see find_condition */
    long double size;      /* the largest sum of absolute values that makes up a logit */
    ptrdiff_t n_seen;
    bool outside; /* sees keys, but none within the kernel's support */
    bool fragile; /* one rounding may change the answer */
} row;

row oracle_row_new(const problem *p);
void oracle_row_free(row *r);
/* Everything about query index, of all heads and batch items. */
void oracle_solve_row(row *r, ptrdiff_t index);

static inline number element(const row *r, operand x, ptrdiff_t h, ptrdiff_t i, ptrdiff_t c)
{
    const double *at = r->p->in[x] + operand_index(r->p, x, r->b, h, i, c);
    return *at + (at == r->perturbed ? oracle_step * I : 0);
}

static inline number query(const row *r, ptrdiff_t c)
{
    return element(r, Q, r->h, r->i, c);
}

static inline number key(const row *r, ptrdiff_t j, ptrdiff_t c)
{
    return element(r, K, r->g, j, c);
}

static inline number value(const row *r, ptrdiff_t j, ptrdiff_t c)
{
    return element(r, V, r->g, j, c);
}

static inline number scale(const row *r)
{
    if (r->p->in[SCALE]) return element(r, SCALE, r->h, 0, 0);
    return r->p->a.score == QKV_SCORE_SCALED_DOT ? 1 / sqrtl((long double)r->p->a.d_k) : 1;
}

static inline number bandwidth(const row *r, ptrdiff_t c)
{
    return r->p->in[BANDWIDTH] ? element(r, BANDWIDTH, r->h, 0, c) : 1;
}

/* Of key j, counted from where the query stands. */
static inline long double position(const row *r, ptrdiff_t j)
{
    const problem *p = r->p;
    return (long double)(j - r->i -
                         (p->causal_offsets ? p->causal_offsets[r->b] : p->a.mask.causal_offset));
}

/* Of the table of relative positions. */
static inline ptrdiff_t entry(const row *r, ptrdiff_t j)
{
    long double d = position(r, j), left = r->p->a.relative_left, right = r->p->a.relative_right;
    return (ptrdiff_t)(fminl(fmaxl(d, -left), right) + left);
}

/* Of a query, or of key j. */
static inline number length(const row *r, ptrdiff_t j)
{
    number sum = 0;
    for (ptrdiff_t c = 0; c < r->p->a.d_k; c++) {
        number x = j < 0 ? query(r, c) : key(r, j, c);
        sum += x * x;
    }
    return csqrtl(sum);
}

static inline number parameter(const row *r, ptrdiff_t c)
{
    return element(r, W, r->h, 0, c);
}

static inline number distance(const row *r, ptrdiff_t j)
{
    return csqrtl(-2 * r->s[j]);
}

static inline bool is_sparse(const row *r)
{
    return r->p->a.normalize == QKV_SPARSEMAX || r->p->a.normalize == QKV_ENTMAX_15;
}

/* Softmax, kernel sum, hard and uniform come before the unnormalised ones. */
static inline bool is_normalized(const row *r)
{
    return r->p->a.normalize < QKV_NONE_EXP;
}

static inline bool has_lse(const row *r)
{
    return problem_has_lse(r->p) && creall(r->lse) > -INFINITY;
}

#endif
