/* Compiled twice, like the library's own numeric sources. */
#include "compute.h"

#include <stdlib.h>
#include <string.h>

#include "src/real.h"
#include "support.h"

typedef FN(qkv_slot) real_slot;

/* Dense doubles, and their image in memory as the library sees it. */
typedef struct image {
    double *dense;
    ptrdiff_t dim[4], stride[4];
    real *memory, *first; /* first: element 0, 0, 0, 0 */
    real *before;         /* a copy of memory, to see what was written */
    size_t n;             /* numbers in memory */
} image;

/* Places dim in memory, axis order[3] innermost, pad extra elements along each axis. */
static size_t place(image *m, const int order[4], ptrdiff_t pad, int sign)
{
    ptrdiff_t stride = 1, first = 0;
    for (int o = 3; o >= 0; o--) {
        int axis = order[o];
        m->stride[axis] = sign * stride;
        if (sign < 0) first += stride * (m->dim[axis] > 0 ? m->dim[axis] - 1 : 0);
        stride *= m->dim[axis] + pad;
    }
    m->n = (size_t)stride + 1;
    m->memory = malloc(m->n * sizeof(real));
    m->before = malloc(m->n * sizeof(real));
    if (!m->memory || !m->before) abort();
    m->first = m->memory + first;
    return m->n;
}

static void place_as(image *m, layout where)
{
    static const int in_order[4] = {0, 1, 2, 3}, rows_first[4] = {0, 2, 1, 3},
                     columns[4] = {0, 1, 3, 2};
    size_t n = 0;
    switch (where) {
    case LAYOUT_PACKED:
        n = place(m, in_order, 0, 1);
        break;
    case LAYOUT_ROWS_FIRST:
        n = place(m, rows_first, 0, 1);
        break;
    case LAYOUT_PADDED:
        n = place(m, in_order, 3, 1);
        break;
    case LAYOUT_REVERSED:
        n = place(m, in_order, 1, -1);
        break;
    case LAYOUT_COLUMNS:
        n = place(m, columns, 2, 1);
        break;
    case LAYOUTS:
        break;
    }
    for (size_t i = 0; i < n; i++) m->memory[i] = (real)NAN; /* whoever reads a gap will show it */
}

/* Calls visit for every element of the image with its place in memory and in the dense array. */
static void each(const image *m, void (*visit)(real *, double *))
{
    const ptrdiff_t *n = m->dim, *s = m->stride;
    double *dense = m->dense;
    for (ptrdiff_t b = 0; b < n[0]; b++)
        for (ptrdiff_t h = 0; h < n[1]; h++)
            for (ptrdiff_t i = 0; i < n[2]; i++)
                for (ptrdiff_t c = 0; c < n[3]; c++)
                    visit(m->first + b * s[0] + h * s[1] + i * s[2] + c * s[3], dense++);
}

static void write_element(real *memory, double *dense)
{
    *memory = (real)*dense;
}

static void read_element(real *memory, double *dense)
{
    *dense = (double)*memory;
}

static void forget_element(real *memory, double *dense)
{
    (void)dense;
    *memory = 0;
}

static image image_of(double *dense, const ptrdiff_t dim[4], layout where)
{
    image m = {.dense = dense};
    if (!dense) return m;
    memcpy(m.dim, dim, sizeof m.dim);
    place_as(&m, where);
    each(&m, write_element);
    memcpy(m.before, m.memory, m.n * sizeof(real));
    return m;
}

/* The slot of an image. Axes of size 1 get stride 0, which is what shares an operand. */
static real_slot slot_of(const image *m, layout where, const ptrdiff_t logical[4])
{
    real_slot slot = {.data = m->first, .strided = where != LAYOUT_PACKED};
    for (int axis = 0; axis < 4 && m->first; axis++) {
        slot.stride[axis] = m->dim[axis] == 1 ? 0 : m->stride[axis];
        if (m->dim[axis] != logical[axis]) slot.strided = true;
    }
    return slot;
}

static void assert_unchanged(const image *m, const char *what)
{
    if (!m->memory || !memcmp(m->memory, m->before, m->n * sizeof(real))) return;
    print_error("%s: the library wrote where it must not\n", what);
    fail();
}

static void release(image *m)
{
    free(m->memory);
    free(m->before);
}

/* Reads the elements back and checks that the gaps between them are as they were. */
static void read_back(image *m, const char *what)
{
    if (!m->memory) return;
    each(m, read_element);
    each(m, forget_element);
    real *after = m->memory;
    m->memory = m->before;
    m->first += m->before - after;
    each(m, forget_element);
    m->memory = after;
    assert_unchanged(m, what);
    release(m);
}

/* a(q, k) = sum_c (w_0 q_c + w_1 q_c^2) k_c */
static void user_forward(void *context, const FN(qkv_score_tile) *t, real *s)
{
    (void)context;
    for (ptrdiff_t j = 0; j < t->n_k; j++)
        for (ptrdiff_t i = 0; i < t->n_q; i++) {
            real sum = 0;
            for (ptrdiff_t c = 0; c < t->d_k; c++) {
                real q = t->q[c * t->lanes + i];
                sum += (t->w[0] * q + t->w[1] * q * q) * t->k[j * t->k_stride + c];
            }
            s[j * t->lanes + i] = sum;
        }
}

static void user_backward(void *context, const FN(qkv_score_tile) *t, const real *da, real *dq,
                          real *dk, real *dw)
{
    (void)context;
    for (ptrdiff_t j = 0; j < t->n_k; j++)
        for (ptrdiff_t i = 0; i < t->n_q; i++)
            for (ptrdiff_t c = 0; c < t->d_k && da[j * t->lanes + i] != 0; c++) {
                real q = t->q[c * t->lanes + i], k = t->k[j * t->k_stride + c];
                real d = da[j * t->lanes + i];
                dq[c * t->lanes + i] += d * (t->w[0] + 2 * t->w[1] * q) * k;
                dk[j * t->d_k + c] += d * (t->w[0] * q + t->w[1] * q * q);
                dw[0] += d * q * k;
                dw[1] += d * q * q * k;
            }
}

const FN(qkv_user_score) FN(test_score) = {user_forward, user_backward, NULL};

typedef struct operand_images {
    image at[OPERANDS];
    FN(qkv_operands) slots;
} operand_images;

static operand_images operands_of(const problem *p, double *const dense[OPERANDS], int wanted,
                                  layout where)
{
    const qkv_attention *a = &p->a;
    ptrdiff_t logical[OPERANDS][4] = {[BIAS] = {a->batch, a->heads, a->n_q, a->n_k},
                                      [SCALE] = {1, 1, 1, 1},
                                      [BANDWIDTH] = {1, 1, 1, p->dim[BANDWIDTH][3]},
                                      [W] = {1, 1, 1, p->dim[W][3]},
                                      [SLOPES] = {1, a->heads, 1, 1},
                                      [RELATIVE] = {1, a->heads, 1, p->dim[RELATIVE][3]},
                                      [SINK] = {1, a->heads, 1, 1}};
    operand_images m = {0};
    real_slot *slots[OPERANDS] = {&m.slots.q,     &m.slots.k,         &m.slots.v, &m.slots.bias,
                                  &m.slots.scale, &m.slots.bandwidth, &m.slots.w, &m.slots.slopes,
                                  &m.slots.sink,  &m.slots.relative};
    for (operand x = Q; x < OPERANDS; x++) {
        if (!p->in[x] || !(wanted >> x & 1)) continue;
        if (x <= V) memcpy(logical[x], p->dim[x], sizeof logical[x]);
        bool shared = x == SCALE || x == BANDWIDTH || x == W;
        bool one = shared && operand_size(p, x) == (size_t)p->dim[x][3];
        layout how = one ? LAYOUT_PACKED : where; /* unstrided shares these among all heads */
        m.at[x] = image_of(dense[x], p->dim[x], how);
        *slots[x] = slot_of(&m.at[x], how, logical[x]);
    }
    m.slots.mask.data = p->mask;
    if (p->a.score == QKV_SCORE_USER) m.slots.user_score = &FN(test_score);
    m.slots.mask_rule = p->mask_rule;
    m.slots.lengths = p->lengths;
    m.slots.causal_offsets = p->causal_offsets;
    return m;
}

static real_slot result_slot(image *m, double *dense, const ptrdiff_t dim[4], layout where)
{
    *m = image_of(dense, dim, where);
    return slot_of(m, where, dim);
}

typedef struct run {
    const problem *p;
    layout where;
    operand_images in;
    image o, lse, row_max, row_log_sum, weights;
    FN(qkv_results) saved;
    double *scratch; /* for row_max and row_log_sum, which no test reads */
} run;

static void *new_workspace(const problem *p, qkv_pass pass, size_t *bytes)
{
    assert_ok(qkv_attention_workspace(&p->a, pass, REAL_DTYPE, bytes));
    void *workspace = malloc(*bytes + 1);
    if (!workspace) abort();
    memset(workspace, 0xFF, *bytes + 1);
    return workspace;
}

static qkv_status forward(run *r, answer *y)
{
    const qkv_attention *a = &r->p->a;
    const ptrdiff_t row[4] = {a->batch, a->heads, a->n_q, 1};
    r->scratch = calloc((size_t)problem_rows(r->p) + 1, sizeof(double));
    FN(qkv_results) *out = &r->saved;
    out->o = result_slot(&r->o, y->o, (ptrdiff_t[]){row[0], row[1], row[2], a->d_v}, r->where);
    if (problem_has_lse(r->p)) out->lse = result_slot(&r->lse, y->lse, row, r->where);
    out->row_max = result_slot(&r->row_max, r->scratch, row, r->where);
    out->row_log_sum = result_slot(&r->row_log_sum, r->scratch, row, r->where);
    out->weights = result_slot(&r->weights, y->weights,
                               (ptrdiff_t[]){row[0], row[1], row[2], a->n_k}, r->where);
    size_t bytes;
    void *workspace = new_workspace(r->p, QKV_FORWARD, &bytes);
    qkv_status status = FN(qkv_attention_forward)(a, &r->in.slots, out, workspace, bytes);
    free(workspace);
    return status;
}

static qkv_status backward(run *r, int gradients, answer *y)
{
    const problem *p = r->p;
    const qkv_attention *a = &p->a;
    image d_o, d_lse = {0};
    FN(qkv_results) d_out = {0};
    d_out.o =
        result_slot(&d_o, p->d_o, (ptrdiff_t[]){a->batch, a->heads, a->n_q, a->d_v}, r->where);
    if (p->d_lse && problem_has_lse(p))
        d_out.lse =
            result_slot(&d_lse, p->d_lse, (ptrdiff_t[]){a->batch, a->heads, a->n_q, 1}, r->where);
    operand_images d_in = operands_of(p, y->d, gradients, r->where);
    size_t bytes;
    void *workspace = new_workspace(p, QKV_BACKWARD, &bytes);
    FN(qkv_results)
    saved = {.o = r->saved.o, .row_max = r->saved.row_max, .row_log_sum = r->saved.row_log_sum};
    qkv_status status =
        FN(qkv_attention_backward)(a, &r->in.slots, &saved, &d_out, &d_in.slots, workspace, bytes);
    free(workspace);
    for (operand x = Q; x < OPERANDS; x++) read_back(&d_in.at[x], operand_name[x]);
    assert_unchanged(&d_o, "d_o");
    assert_unchanged(&d_lse, "d_lse");
    release(&d_o);
    release(&d_lse);
    return status;
}

qkv_status FN(compute)(const problem *p, layout where, int gradients, answer *y)
{
    run r = {.p = p, .where = where};
    for (operand x = Q; x < OPERANDS; x++)
        for (size_t i = 0; p->in[x] && i < operand_size(p, x); i++) y->d[x][i] = gradient_start(x);
    r.in = operands_of(p, p->in, ALL_GRADIENTS, where);
    qkv_status status = forward(&r, y);
    if (gradients && (status == QKV_OK || status == QKV_E_DOMAIN)) {
        qkv_status second = backward(&r, gradients, y);
        status = status ? status : second;
    }
    read_back(&r.o, "o");
    read_back(&r.lse, "lse");
    read_back(&r.row_max, "row_max");
    read_back(&r.row_log_sum, "row_log_sum");
    read_back(&r.weights, "weights");
    for (operand x = Q; x < OPERANDS; x++) {
        assert_unchanged(&r.in.at[x], operand_name[x]);
        release(&r.in.at[x]);
    }
    free(r.scratch);
    return status;
}

#if QKV_REAL == 64
qkv_status compute(const problem *p, layout where, int gradients, answer *y)
{
    return (p->dtype == QKV_F32 ? compute_f32 : compute_f64)(p, where, gradients, y);
}
#endif
