/* summarize.c - the call of summary.h: arguments are checked, then the kernels run. */
#include "fail.h"
#include "kernels.h"
#include "summary.h"

static bool has_rows(const qkv_attention *a)
{
    return a->batch && a->heads && a->n_q;
}

static qkv_status check_rows(const char *who, const qkv_attention *a, const FN(qkv_summary) *out)
{
    if (out->top < 0 || out->n_rows < 0)
        return qkv_fail(QKV_E_SHAPE, "%s: top is %td and n_rows %td, expected 0 or more", who,
                        out->top, out->n_rows);
    bool signs = a->normalize == QKV_NONE_IDENTITY;
    if (signs && (out->entropy.data || out->effective_keys.data))
        return qkv_fail(QKV_E_ARG,
                        "%s: entropy and effective keys do not go with QKV_NONE_IDENTITY, whose "
                        "weights have signs",
                        who);
    if (out->top_keys && out->top && !out->top_weights.data)
        return qkv_fail(QKV_E_ARG, "%s: top_keys needs top_weights", who);
    if (out->row_weights.data && out->n_rows && !out->rows)
        return qkv_fail(QKV_E_ARG, "%s: rows is NULL", who);
    for (ptrdiff_t i = 0; i < out->n_rows && out->row_weights.data; i++)
        if (out->rows[i] < 0 || out->rows[i] >= a->n_q)
            return qkv_fail(QKV_E_SHAPE, "%s: rows[%td] is %td, expected 0 to n_q - 1, %td", who, i,
                            out->rows[i], a->n_q - 1);
    return QKV_OK;
}

static qkv_status resolve(const qkv_attention *a, const FN(qkv_results) *saved,
                          const FN(qkv_summary) *out, FN(qkv_summary_views) *views,
                          qkv_slot_list *list)
{
    const ptrdiff_t row[4] = {a->batch, a->heads, a->n_q, 1};
    const ptrdiff_t column[4] = {a->batch, a->heads, 1, a->n_k};
    const ptrdiff_t top[4] = {a->batch, a->heads, a->n_q, out->top};
    const ptrdiff_t chosen[4] = {a->batch, a->heads, out->n_rows, a->n_k};
    const struct {
        const char *name;
        const FN(qkv_slot) *slot;
        FN(qkv_view) *view;
        const ptrdiff_t *dim;
        bool written;
    } all[] = {{"saved row_max", &saved->row_max, &views->row_max, row, false},
               {"saved row_log_sum", &saved->row_log_sum, &views->row_log_sum, row, false},
               {"entropy", &out->entropy, &views->entropy, row, true},
               {"effective_keys", &out->effective_keys, &views->effective_keys, row, true},
               {"column_sums", &out->column_sums, &views->column_sums, column, true},
               {"top_weights", &out->top_weights, &views->top_weights, top, true},
               {"row_weights", &out->row_weights, &views->row_weights, chosen, true}};
    qkv_status status = QKV_OK;
    for (size_t i = 0; i < sizeof all / sizeof *all && !status; i++) {
        *all[i].view = FN(qkv_view_of)(all[i].slot, all[i].dim);
        const qkv_extent e =
            FN(qkv_extent_of)(all[i].name, all[i].slot, all[i].dim, all[i].written);
        status = qkv_slot_list_add(list, &e);
    }
    qkv_extent keys = {.name = "top_keys",
                       .data = out->top_keys,
                       .element = sizeof(int64_t),
                       .written = true,
                       .packed = true};
    for (int i = 0; i < 4; i++) keys.dim[i] = top[i];
    qkv_strides(top, false, NULL, keys.stride);
    views->top_keys = out->top_keys;
    views->rows = out->rows;
    views->top = out->top;
    views->n_rows = out->n_rows;
    return status ? status : qkv_slot_list_add(list, &keys);
}

qkv_status FN(qkv_attention_summary)(const qkv_attention *a, const FN(qkv_operands) *in,
                                     const FN(qkv_results) *saved, const FN(qkv_summary) *out,
                                     void *workspace, size_t workspace_bytes)
{
    FN(qkv_inputs) inputs;
    FN(qkv_summary_views) views;
    qkv_slot_list list;
    qkv_status status = FN(qkv_inputs_resolve)("qkv_attention_summary", a, in, &inputs, &list);
    if (status) return status;
    a = &inputs.a;
    if (!saved || !out)
        return qkv_fail(QKV_E_ARG, "%s: %s is NULL", list.who, saved ? "out" : "saved");
    if (has_rows(a) && qkv_has_sum(a) && (!saved->row_max.data || !saved->row_log_sum.data))
        return qkv_fail(
            QKV_E_ARG, "%s: saved lacks row_max or row_log_sum; keep what forward wrote", list.who);
    status = check_rows(list.who, a, out);
    if (!status) status = resolve(a, saved, out, &views, &list);
    if (!status) status = qkv_slot_list_check(&list);
    if (status || !a->batch || !a->heads) return status;
    const FN(qkv_forward_kernels) *kernels = FN(qkv_forward_kernels_of)(list.who);
    if (!kernels) return QKV_E_ARG;
    qkv_team team;
    status = qkv_team_of(list.who, kernels->summary_share(a), kernels->summary_common(a),
                         FN(qkv_work)(a, kernels->covariance_pieces(a)), workspace, workspace_bytes,
                         &team);
    if (!status) kernels->summarize(&inputs, &views, &team);
    return status;
}
