/* attend.h - what the parts of attend share: its options (attend_options.c) and its arrays
 * (attend_arrays.c). */
#ifndef QKV_EXAMPLES_ATTEND_H
#define QKV_EXAMPLES_ATTEND_H

#include "common.h"
#include "qkv/attention.h"
#include "qkv/npy.h"

enum {
    QUERY,
    KEY,
    VALUE,
    OUT,
    HEADS,
    KV_HEADS,
    SCORE,
    BANDWIDTH,
    SCALE,
    SOFTCAP,
    CAUSAL,
    CAUSAL_OFFSET,
    WINDOW,
    MASK,
    LENGTHS,
    ALIBI,
    SINK,
    PAST_KEY,
    PAST_VALUE,
    PRESENT_KEY,
    PRESENT_VALUE,
    NORMALIZE,
    TOP_K,
    DROPOUT,
    SEED,
    WEIGHTS,
    LSE,
    SCORES,
    SCORES_STAGE,
    GRAD_OUT,
    GRAD_QUERY,
    GRAD_KEY,
    GRAD_VALUE,
    GRAD_MASK,
    GRAD_BANDWIDTH,
    GRAD_SCALE,
    THREADS,
    OPTIONS
};

extern const command attend;
extern const char *given[OPTIONS]; /* the arguments, NULL where absent */

qkv_score parse_score(const char *name);
void parse_normalize(const char *name, qkv_attention *a);
/* The numbers of "1,2,3", whole ones (within 2^53) or any; how many. */
ptrdiff_t parse_list(int option, bool whole, double lower, double upper, double **numbers);

/* An operand over [batch, heads, rows, columns], of the type of the queries. */
typedef struct operand {
    void *data;
    ptrdiff_t dim[4], stride[4];
} operand;

extern qkv_npy_type type; /* of the queries, and of everything computed */

size_t item(void);
double get(const void *data, ptrdiff_t i);
void set(void *data, ptrdiff_t i, double x);
operand packed(ptrdiff_t batch, ptrdiff_t heads, ptrdiff_t rows, ptrdiff_t columns);
/* Packed as the axes of the queries' file have it: [batch, rows, heads * columns] for 3. */
operand packed_as(int rank, ptrdiff_t batch, ptrdiff_t heads, ptrdiff_t rows, ptrdiff_t columns);
ptrdiff_t place(const operand *x, ptrdiff_t b, ptrdiff_t h, ptrdiff_t i, ptrdiff_t c);
qkv_npy load(int option);
/* Queries, keys, values: their axes as [batch, heads, rows, columns]. */
operand load_operand(int option, int rank, ptrdiff_t heads);
_Noreturn void refuse_axes(int option, int found, const char *expected);
/* What both have on an axis must be the same. */
void expect(int option, const char *what, ptrdiff_t found, ptrdiff_t expected);
void save(int option, int rank, const ptrdiff_t *dim, const void *data);
/* x, which is packed, with the axes of the queries' file. */
void save_operand(int option, const operand *x, int rank);
/* [n_q, n_k] for files of 2 axes, [batch, heads, n_q, n_k] otherwise; the last axis may be dropped.
 */
void save_matrix(int option, const operand *x, int rank, int axes);

#endif
