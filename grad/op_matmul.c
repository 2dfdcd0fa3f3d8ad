/* op_matmul.c - y = a b over the last two axes, leading axes broadcast:  da = dy b',  db = a' dy.
 * OpenBLAS. */
#include <limits.h>

#include "grad/axes.h"
#include "grad/blas.h"
#include "src/real.h"

/* state: a [batch.., m, k] times b [batch.., k, n] */
typedef struct product {
    int m, n, k;
    int rank; /* of the batch axes */
    ptrdiff_t dim[QKV_MAX_RANK];
    ptrdiff_t a[QKV_MAX_RANK],
        b[QKV_MAX_RANK]; /* strides of the batch axes in elements, 0 where broadcast */
    size_t batch;
} product;

/* Strides of x's batch axes, aligned at the right with those of the result. */
static void batch_strides(const product *p, const qkv_node *x, int x_batch, ptrdiff_t matrix,
                          ptrdiff_t *stride)
{
    ptrdiff_t step = matrix;
    for (int i = p->rank - 1, j = x_batch - 1; i >= 0; i--, j--) {
        ptrdiff_t n = j >= 0 ? x->dim[j] : 1;
        stride[i] = n == 1 ? 0 : step;
        step *= n;
    }
}

static qkv_status fit(qkv_tape *tape, const qkv_node *node, ptrdiff_t size)
{
    if (size <= INT_MAX) return QKV_OK;
    return qkv_node_fail(tape, node, QKV_E_OVERFLOW, "a size of %td exceeds what BLAS takes", size);
}

/* A vector on the left is a row, on the right a column, and its axis of size 1 is dropped again
 * (NumPy's matmul). */
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
    *p = (product){.m = (int)m, .n = (int)n, .k = (int)k, .rank = y.rank, .batch = 1};
    for (int i = 0; i < y.rank; i++) p->dim[i] = y.dim[i];
    batch_strides(p, a, a_batch, m * k, p->a);
    batch_strides(p, b, b_batch, k * n, p->b);
    if (a->rank > 1) y.dim[y.rank++] = m;
    if (b->rank > 1) y.dim[y.rank++] = n;
    node->state = p;
    status = qkv_node_shape(tape, node, y.rank, y.dim);
    for (int i = 0; i < p->rank; i++) p->batch *= (size_t)p->dim[i];
    return status;
}

/* c = a b + beta c, with the sizes of c and of the sum; BLAS wants leading dimensions of at
 * least 1. */
static void multiply(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, const real *a,
                     const real *b, real beta, real *c)
{
    if (m == 0 || n == 0 || k == 0) return;
    int lda = ta == CblasNoTrans ? k : m, ldb = tb == CblasNoTrans ? n : k;
    FN(qkv_gemm)(ta, tb, m, n, k, a, lda, b, ldb, beta, c);
}

/* A b shared by the whole batch of matrices turns the batch into one tall product. */
static bool is_one_product(const product *p)
{
    bool b_shared = true, a_whole = true;
    ptrdiff_t step = (ptrdiff_t)p->m * p->k;
    for (int i = p->rank - 1; i >= 0; i--) {
        if (p->dim[i] == 1) continue;
        b_shared = b_shared && p->b[i] == 0;
        a_whole = a_whole && p->a[i] == step;
        step *= p->dim[i];
    }
    return b_shared && a_whole && (double)p->batch * p->m <= INT_MAX;
}

typedef void (*matrix_function)(const product *p, const real *a, const real *b, real *y, real *da,
                                real *db);

static void each_matrix(const qkv_tape *tape, const qkv_node *node, matrix_function f)
{
    product p = *(const product *)node->state;
    if (p.batch == 0) return;
    if (is_one_product(&p)) {
        p.m *= (int)p.batch;
        p.batch = 1;
        p.rank = 0;
    }
    qkv_odometer oa = {.rank = p.rank, .dim = p.dim}, ob = oa;
    for (int i = 0; i < p.rank; i++) {
        oa.stride[i] = p.a[i];
        ob.stride[i] = p.b[i];
    }
    const real *a = qkv_input(tape, node, 0)->value, *b = qkv_input(tape, node, 1)->value;
    real *da = node->gradient ? qkv_input_gradient(tape, node, 0) : NULL;
    real *db = node->gradient ? qkv_input_gradient(tape, node, 1) : NULL;
    real *y = node->gradient ? node->gradient : node->value;
    for (size_t i = 0; i < p.batch; i++, y += (ptrdiff_t)p.m * p.n) {
        f(&p, a + oa.at, b + ob.at, y, da ? da + oa.at : NULL, db ? db + ob.at : NULL);
        qkv_odometer_next(&oa);
        qkv_odometer_next(&ob);
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

static qkv_var apply(qkv_tape *tape, const qkv_var *x)
{
    return qkv_matmul(tape, x[0], x[1]);
}

static const qkv_op_case cases[] = {
    {.n_input = 2, .input = {{2, {3, 4}}, {2, {4, 5}}}, .apply = apply},
    {.label = "matmul batched",
     .n_input = 2,
     .input = {{3, {2, 3, 4}}, {3, {2, 4, 2}}},
     .apply = apply},
    {.label = "matmul of a shared b",
     .n_input = 2,
     .input = {{3, {2, 3, 4}}, {2, {4, 2}}},
     .apply = apply},
    {.label = "matmul broadcast",
     .n_input = 2,
     .input = {{4, {2, 1, 2, 3}}, {3, {3, 3, 2}}},
     .apply = apply},
    {.label = "matmul of vectors", .n_input = 2, .input = {{1, {4}}, {1, {4}}}, .apply = apply},
    {.label = "matmul of a vector",
     .n_input = 2,
     .input = {{1, {4}}, {3, {2, 4, 3}}},
     .apply = apply},
    {.label = "matmul with a vector",
     .n_input = 2,
     .input = {{3, {2, 3, 4}}, {1, {4}}},
     .apply = apply},
    {0},
};

const qkv_op FN(qkv_op_matmul) = {"matmul", shape, forward, backward, cases, NULL};
