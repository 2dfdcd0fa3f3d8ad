/* op_matmul.c - y = a b over the last two axes, leading axes broadcast; by OpenBLAS.
 *
 *     da = dy b',  db = a' dy */
#include <limits.h>

#include "grad/blas.h"
#include "grad/loops.h"
#include "grad/reverse.h"
#include "src/real.h"

/* state: a [batch.., m, k] times b [batch.., k, n] */
typedef struct product {
    int m, n, k;
    qkv_loops batch; /* over the matrices of y; strides count matrices */
} product;

static qkv_status fit(qkv_tape *tape, const qkv_node *node, ptrdiff_t size)
{
    if (size <= INT_MAX) return QKV_OK;
    return qkv_node_fail(tape, node, QKV_E_OVERFLOW, "a size of %td exceeds what BLAS takes", size);
}

/* A b that the whole batch shares makes of the batch one tall product. */
static void merge_batch(product *p)
{
    bool shared = p->batch.rows == 1 && p->batch.step_a == 1 && p->batch.step_b == 0;
    if (!shared || (double)p->batch.n * p->m > INT_MAX) return;
    p->m *= (int)p->batch.n;
    p->batch.n = 1;
}

/* As in NumPy's matmul, a vector on the left is a row, on the right a column, and its axis of size
 * 1 is dropped again. */
static qkv_status shape(qkv_tape *tape, qkv_node *node, const void *arguments)
{
    (void)arguments;
    const qkv_node *a = qkv_input(tape, node, 0), *b = qkv_input(tape, node, 1);
    if (a->rank == 0 || b->rank == 0)
        return qkv_node_fail(tape, node, QKV_E_SHAPE, "a scalar is no matrix; use mul");
    ptrdiff_t m = a->rank > 1 ? a->dim[a->rank - 2] : 1, k = a->dim[a->rank - 1];
    ptrdiff_t n = b->rank > 1 ? b->dim[b->rank - 1] : 1,
              k_b = b->dim[b->rank > 1 ? b->rank - 2 : 0];
    if (k != k_b)
        return qkv_node_fail(tape, node, QKV_E_SHAPE, "inner sizes %td and %td differ", k, k_b);
    if (fit(tape, node, m) || fit(tape, node, n) || fit(tape, node, k)) return QKV_E_OVERFLOW;
    int a_batch = a->rank > 2 ? a->rank - 2 : 0, b_batch = b->rank > 2 ? b->rank - 2 : 0;
    qkv_shape y;
    qkv_status status = qkv_shape_broadcast_pair(tape, node, a_batch, a->dim, b_batch, b->dim, &y);
    product *p = status ? NULL : qkv_node_take(tape, node, 1, sizeof *p);
    if (!p) return tape->status;
    size_t stride_a[QKV_MAX_RANK], stride_b[QKV_MAX_RANK];
    qkv_stretched_strides(y.rank, a_batch, a->dim, stride_a);
    qkv_stretched_strides(y.rank, b_batch, b->dim, stride_b);
    *p = (product){.m = (int)m, .n = (int)n, .k = (int)k};
    p->batch = qkv_loops_over(y.rank, y.dim, stride_a, stride_b);
    merge_batch(p);
    node->state = p;
    if (a->rank > 1) y.dim[y.rank++] = m;
    if (b->rank > 1) y.dim[y.rank++] = n;
    return qkv_node_shape(tape, node, y.rank, y.dim);
}

/* c = a b + beta c, with the sizes of c and of the sum. BLAS wants leading dimensions of 1 or more,
 * hence the early return. */
static void multiply(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, const real *a,
                     const real *b, real beta, real *c)
{
    if (m == 0 || n == 0 || k == 0) return;
    int lda = ta == CblasNoTrans ? k : m, ldb = tb == CblasNoTrans ? n : k;
    FN(qkv_gemm)(ta, tb, m, n, k, a, lda, b, ldb, beta, c);
}

typedef void (*matrix_function)(const product *p, const real *a, const real *b, real *y, real *da,
                                real *db);

static void each_matrix(const qkv_tape *tape, const qkv_node *node, matrix_function f)
{
    const product *p = node->state;
    const size_t of_a = (size_t)p->m * (size_t)p->k, of_b = (size_t)p->k * (size_t)p->n;
    const real *a = qkv_input(tape, node, 0)->value, *b = qkv_input(tape, node, 1)->value;
    real *da = node->gradient ? qkv_input_gradient(tape, node, 0) : NULL;
    real *db = node->gradient ? qkv_input_gradient(tape, node, 1) : NULL;
    real *y = node->gradient ? node->gradient : node->value;
    qkv_loops l = p->batch;
    if (!node->size) return;
    for (size_t row = 0; row < l.rows; row++, qkv_loops_next(&l))
        for (size_t i = 0; i < l.n; i++, y += (size_t)p->m * (size_t)p->n) {
            size_t at_a = (l.at_a + i * l.step_a) * of_a, at_b = (l.at_b + i * l.step_b) * of_b;
            f(p, a + at_a, b + at_b, y, da ? da + at_a : NULL, db ? db + at_b : NULL);
        }
}

static void product_of(const product *p, const real *a, const real *b, real *y, real *da, real *db)
{
    (void)da, (void)db;
    multiply(CblasNoTrans, CblasNoTrans, p->m, p->n, p->k, a, b, 0, y);
}

static void gradients_of(const product *p, const real *a, const real *b, real *dy, real *da,
                         real *db)
{
    if (da) multiply(CblasNoTrans, CblasTrans, p->m, p->k, p->n, dy, b, 1, da);
    if (db) multiply(CblasTrans, CblasNoTrans, p->k, p->n, p->m, a, dy, 1, db);
}

static qkv_status forward(qkv_tape *tape, qkv_node *node)
{
    const product *p = node->state;
    if (p->k == 0) /* the empty sum */
        for (size_t i = 0; i < node->size; i++) ((real *)node->value)[i] = 0;
    else
        each_matrix(tape, node, product_of);
    return QKV_OK;
}

static qkv_status backward(qkv_tape *tape, qkv_node *node)
{
    each_matrix(tape, node, gradients_of);
    return QKV_OK;
}

const qkv_op FN(qkv_op_matmul) = {.shape = shape, .forward = forward, .backward = backward};

#if QKV_REAL == 64 /* what has no dtype is compiled once */
static qkv_var last_two_swapped(qkv_tape *t, qkv_var x)
{
    int axes[QKV_MAX_RANK], rank = qkv_shape_of(t, x).rank;
    for (int i = 0; i < rank; i++) axes[i] = i < rank - 2 ? i : 2 * rank - 3 - i;
    return qkv_transpose(t, x, axes);
}

/* A vector as the matrix that it stands for: a row on the left, a column on the right. */
static qkv_var as_matrix(qkv_tape *t, qkv_var x, bool column)
{
    const qkv_shape s = qkv_shape_of(t, x);
    if (s.rank != 1) return x;
    return qkv_reshape(t, x, column ? qkv_shape2(s.dim[0], 1) : qkv_shape2(1, s.dim[0]));
}

/* dy with the axes of size 1 that vectors lost. */
static qkv_var as_product(qkv_tape *t, const qkv_reverse *r)
{
    qkv_shape s = qkv_shape_of(t, r->dy);
    bool row = qkv_shape_of(t, r->x[0]).rank == 1, column = qkv_shape_of(t, r->x[1]).rank == 1;
    if (!row && !column) return r->dy;
    ptrdiff_t n = row && !column ? s.dim[s.rank - 1] : 1;
    ptrdiff_t m = column && !row ? s.dim[s.rank - 1] : 1;
    s.rank -= !row || !column;
    s.dim[s.rank++] = m;
    s.dim[s.rank++] = n;
    return qkv_reshape(t, r->dy, s);
}

void qkv_differentiate_matmul(qkv_tape *t, const qkv_reverse *r)
{
    qkv_var a = as_matrix(t, r->x[0], false), b = as_matrix(t, r->x[1], true);
    qkv_var dy = as_product(t, r);
    if (r->wanted[0]) {
        qkv_var da = qkv_sum_to(t, qkv_matmul(t, dy, last_two_swapped(t, b)), a);
        r->dx[0] = qkv_reshape(t, da, qkv_shape_of(t, r->x[0]));
    }
    if (r->wanted[1]) {
        qkv_var db = qkv_sum_to(t, qkv_matmul(t, last_two_swapped(t, a), dy), b);
        r->dx[1] = qkv_reshape(t, db, qkv_shape_of(t, r->x[1]));
    }
}

qkv_var qkv_matmul(qkv_tape *tape, qkv_var a, qkv_var b)
{
    return qkv_record(tape, QKV_OP_matmul, (qkv_var[]){a, b}, 2, NULL);
}

const qkv_op_case qkv_cases_matmul[] = {
    {.n_input = 2, .input = {{2, {3, 4}}, {2, {4, 5}}}, .binary = qkv_matmul},
    {.label = "matmul batched",
     .n_input = 2,
     .input = {{3, {2, 3, 4}}, {3, {2, 4, 2}}},
     .binary = qkv_matmul},
    {.label = "matmul of a shared b",
     .n_input = 2,
     .input = {{3, {2, 3, 4}}, {2, {4, 2}}},
     .binary = qkv_matmul},
    {.label = "matmul broadcast",
     .n_input = 2,
     .input = {{4, {2, 1, 2, 3}}, {3, {3, 3, 2}}},
     .binary = qkv_matmul},
    {.label = "matmul of vectors",
     .n_input = 2,
     .input = {{1, {4}}, {1, {4}}},
     .binary = qkv_matmul},
    {.label = "matmul of a vector",
     .n_input = 2,
     .input = {{1, {4}}, {3, {2, 4, 3}}},
     .binary = qkv_matmul},
    {.label = "matmul with a vector",
     .n_input = 2,
     .input = {{3, {2, 3, 4}}, {1, {4}}},
     .binary = qkv_matmul},
    {0},
};
#endif
