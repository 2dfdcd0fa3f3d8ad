/* attention.c - forward: every block of queries walks over the keys once and pools as it goes,
 * keeping per query only the largest exponent and the sum (Dao et al. 2022, FlashAttention,
 * algorithm 1, with queries outside). */
#include "fail.h"
#include "tile.h"
#include "team.h"

typedef struct outputs {
    FN(qkv_view) o, lse, row_max, row_log_sum, weights;
} outputs;

static qkv_status resolve_outputs(const qkv_attention *a, const FN(qkv_results) *out,
                                  outputs *views, qkv_slot_list *list)
{
    const char *who = list->who;
    if (!out) return qkv_fail(QKV_E_ARG, "%s: the results are NULL", who);
    if (!out->o.data && a->batch && a->heads && a->n_q && a->d_v)
        return qkv_fail(QKV_E_ARG, "%s: the result o is NULL", who);
    if (out->lse.data && !qkv_has_sum(a))
        return qkv_fail(QKV_E_ARG,
                        "%s: lse does not go with a normaliser without a sum; use QKV_SOFTMAX or "
                        "QKV_KERNEL_SUM",
                        who);
    const ptrdiff_t row[4] = {a->batch, a->heads, a->n_q, 1};
    const ptrdiff_t value[4] = {a->batch, a->heads, a->n_q, a->d_v};
    const ptrdiff_t matrix[4] = {a->batch, a->heads, a->n_q, a->n_k};
    const struct {
        const char *name;
        const FN(qkv_slot) *slot;
        FN(qkv_view) *view;
        const ptrdiff_t *dim;
    } all[] = {{"o", &out->o, &views->o, value},
               {"lse", &out->lse, &views->lse, row},
               {"row_max", &out->row_max, &views->row_max, row},
               {"row_log_sum", &out->row_log_sum, &views->row_log_sum, row},
               {"weights", &out->weights, &views->weights, matrix}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        *all[i].view = FN(qkv_view_of)(all[i].slot, all[i].dim);
        qkv_status status =
            qkv_slot_list_add(list, FN(qkv_extent_of)(all[i].name, all[i].slot, all[i].dim, true));
        if (status) return status;
    }
    return QKV_OK;
}

static void write_row(const FN(qkv_view) *to, const FN(qkv_block) *t, int i, real x)
{
    if (to->data) *FN(qkv_at)(to, t->batch, t->head, t->q0 + i) = x;
}

/* The pooled sums become outputs; the number of rows of the block whose kernel support is empty. */
static ptrdiff_t finish(FN(qkv_block) *t, const outputs *out)
{
    ptrdiff_t d = t->in->a.d_v, empty = 0;
    bool sums = qkv_has_sum(&t->in->a);
    for (int i = 0; i < t->n_q; i++) {
        /* A row that sees keys but has no weight is 0 / 0, and says so. */
        real divisor = !sums || t->any[i] == 0 ? 1 : t->sum[i];
        t->log_sum[i] = sums ? log(t->sum[i]) : 0;
        if (!sums) t->max[i] = 0;
        empty += sums && t->any[i] != 0 && t->sum[i] == 0;
        write_row(&out->row_max, t, i, t->max[i]);
        write_row(&out->row_log_sum, t, i, t->log_sum[i]);
        write_row(&out->lse, t, i, t->sum[i] == 0 ? (real)-INFINITY : t->max[i] + t->log_sum[i]);
        if (d == 0) continue;
        real *o = FN(qkv_at)(&out->o, t->batch, t->head, t->q0 + i);
        for (ptrdiff_t c = 0; c < d; c++)
            o[c * out->o.stride[3]] = t->o[c * QKV_LANES + i] / divisor;
    }
    return empty;
}

/* The matrix, since it was asked for: a second walk, now that max and sum are known. */
static void write_weights(FN(qkv_block) *t, const FN(qkv_view) *weights)
{
    for (ptrdiff_t k0 = 0; k0 < t->in->a.n_k; k0 += QKV_KEYS) {
        bool seen = FN(qkv_block_tile)(t, k0);
        if (seen) FN(qkv_normalize_weights)(t);
        for (int i = 0; i < t->n_q; i++) {
            real *row = FN(qkv_at)(weights, t->batch, t->head, t->q0 + i);
            for (int j = 0; j < t->n_k; j++)
                row[(k0 + j) * weights->stride[3]] = seen ? t->w[j * QKV_LANES + i] : 0;
        }
    }
}

static ptrdiff_t forward_block(FN(qkv_block) *t, const outputs *out)
{
    FN(qkv_block_scan)(t);
    if (t->in->a.d_v) memset(t->o, 0, sizeof(real) * (size_t)t->in->a.d_v * QKV_LANES);
    ptrdiff_t last = FN(qkv_mask_last)(t);
    for (ptrdiff_t k0 = 0; k0 < last; k0 += QKV_KEYS) {
        if (!FN(qkv_block_tile)(t, k0)) continue;
        FN(qkv_normalize_online)(t);
        FN(qkv_pool_tile)(t);
    }
    ptrdiff_t empty = finish(t, out);
    if (out->weights.data) write_weights(t, &out->weights);
    return empty;
}

ptrdiff_t FN(qkv_forward_work)(const qkv_attention *a)
{
    return a->batch * a->heads * ((a->n_q + QKV_LANES - 1) / QKV_LANES);
}

qkv_status FN(qkv_empty_rows)(const char *who, const qkv_attention *a, ptrdiff_t empty)
{
    if (!empty || a->normalize != QKV_KERNEL_SUM || a->empty != QKV_EMPTY_ERROR) return QKV_OK;
    return qkv_fail(QKV_E_DOMAIN, "%s: %td of %td queries have no key within the kernel's support",
                    who, empty, a->batch * a->heads * a->n_q);
}

size_t FN(qkv_forward_share)(const qkv_attention *a)
{
    FN(qkv_block) t;
    return FN(qkv_block_layout)(&t, a, NULL);
}

qkv_status FN(qkv_attention_forward)(const qkv_attention *a, const FN(qkv_operands) *in,
                                     const FN(qkv_results) *out, void *workspace,
                                     size_t workspace_bytes)
{
    FN(qkv_inputs) inputs;
    outputs views;
    qkv_slot_list list;
    qkv_status status = FN(qkv_inputs_resolve)("qkv_attention_forward", a, in, &inputs, &list);
    if (!status) status = resolve_outputs(&inputs.a, out, &views, &list);
    if (!status) status = qkv_slot_list_check(&list);
    if (status) return status;
    a = &inputs.a;
    ptrdiff_t blocks = (a->n_q + QKV_LANES - 1) / QKV_LANES;
    ptrdiff_t work = FN(qkv_forward_work)(a);
    if (work == 0) return QKV_OK;
    qkv_team team;
    status =
        qkv_team_of(list.who, FN(qkv_forward_share)(a), 0, work, workspace, workspace_bytes, &team);
    if (status) return status;
    ptrdiff_t empty = 0;
#pragma omp parallel num_threads(team.threads) reduction(+ : empty) if (team.threads > 1)
    {
        FN(qkv_block) t = {.in = &inputs};
        FN(qkv_block_layout)(&t, a, qkv_team_share(&team));
#pragma omp for schedule(dynamic)
        for (ptrdiff_t i = 0; i < work; i++) {
            ptrdiff_t row = i / blocks;
            FN(qkv_block_begin)(&t, row / a->heads, row % a->heads, i % blocks * QKV_LANES);
            empty += forward_block(&t, &views);
        }
    }
    return FN(qkv_empty_rows)(list.who, a, empty);
}
