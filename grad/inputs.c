/* inputs.c - mirror of src/inputs.c: what backward is given, and where it is to add. */
#include "grad/inputs.h"
#include "src/fail.h"

static qkv_status check_cotangents(const char *who, const qkv_attention *a,
                                   const FN(qkv_results) *saved, const FN(qkv_results) *d_out)
{
    if (!saved || !d_out)
        return qkv_fail(QKV_E_ARG, "%s: %s is NULL", who, saved ? "d_out" : "saved");
    if (d_out->row_max.data || d_out->row_log_sum.data || d_out->weights.data)
        return qkv_fail(QKV_E_ARG, "%s: d_out takes cotangents of o and lse only", who);
    if (d_out->lse.data && !qkv_has_lse(a))
        return qkv_fail(QKV_E_ARG, "%s: d_out.lse does not go with a normaliser without a sum",
                        who);
    if (!a->batch || !a->heads || !a->n_q) return QKV_OK;
    if (!d_out->o.data && !d_out->lse.data && a->d_v)
        return qkv_fail(QKV_E_ARG, "%s: d_out has neither o nor lse", who);
    bool lacks_o = a->d_v && d_out->o.data && !saved->o.data;
    if (qkv_has_sum(a) && (!saved->row_max.data || !saved->row_log_sum.data || lacks_o))
        return qkv_fail(QKV_E_ARG,
                        "%s: saved lacks o, row_max or row_log_sum; keep what forward wrote", who);
    return QKV_OK;
}

qkv_status FN(qkv_cotangents_resolve)(const qkv_attention *a, const FN(qkv_results) *saved,
                                      const FN(qkv_results) *d_out, FN(qkv_gradients) *to,
                                      qkv_slot_list *list)
{
    qkv_status status = check_cotangents(list->who, a, saved, d_out);
    if (status) return status;
    const ptrdiff_t row[4] = {a->batch, a->heads, a->n_q, 1};
    const ptrdiff_t value[4] = {a->batch, a->heads, a->n_q, a->d_v};
    const struct {
        const char *name;
        const FN(qkv_slot) *slot;
        FN(qkv_view) *view;
        const ptrdiff_t *dim;
    } all[] = {{"saved o", &saved->o, &to->o, value},
               {"saved row_max", &saved->row_max, &to->row_max, row},
               {"saved row_log_sum", &saved->row_log_sum, &to->row_log_sum, row},
               {"d_out o", &d_out->o, &to->d_o, value},
               {"d_out lse", &d_out->lse, &to->d_lse, row}};
    for (size_t i = 0; i < sizeof all / sizeof *all && !status; i++) {
        *all[i].view = FN(qkv_view_of)(all[i].slot, all[i].dim);
        if (!all[i].slot->data) continue;
        const qkv_extent e = FN(qkv_extent_of)(all[i].name, all[i].slot, all[i].dim, false);
        status = qkv_slot_list_add(list, &e);
    }
    return status;
}

static qkv_status resolve(const qkv_attention *a, const FN(qkv_operands) *x, qkv_role role,
                          FN(qkv_gradients) *to, qkv_slot_list *list)
{
    qkv_status status = FN(qkv_parameters_check)(list->who, a, x);
    if (status) return status;
    ptrdiff_t dims[QKV_OPERANDS][4];
    FN(qkv_operand_dims)(a, list->items, x, dims);
    to->q = FN(qkv_view_of)(&x->q, dims[0]);
    to->k = FN(qkv_view_of)(&x->k, dims[1]);
    to->v = FN(qkv_view_of)(&x->v, dims[2]);
    to->bias = FN(qkv_view_of)(&x->bias, dims[3]);
    to->scale = FN(qkv_parameter_view)(&x->scale, dims[4]);
    to->parameters = qkv_is_distance(a) ? FN(qkv_parameter_view)(&x->bandwidth, dims[5])
                                        : FN(qkv_parameter_view)(&x->w, dims[6]);
    to->slopes = FN(qkv_head_view)(&x->slopes, dims[7]);
    to->sink = FN(qkv_head_view)(&x->sink, dims[8]);
    to->relative = FN(qkv_head_view)(&x->relative, dims[9]);
    return FN(qkv_operands_list)(dims, x, role, list);
}

qkv_status FN(qkv_gradients_resolve)(const qkv_attention *a, const FN(qkv_operands) *d_in,
                                     FN(qkv_gradients) *to, qkv_slot_list *list)
{
    if (!d_in) return qkv_fail(QKV_E_ARG, "%s: d_in is NULL", list->who);
    return resolve(a, d_in, QKV_GRADIENT, to, list);
}

qkv_status FN(qkv_tangents_resolve)(const qkv_attention *a, const FN(qkv_operands) *tangent,
                                    FN(qkv_gradients) *u, qkv_slot_list *list)
{
    return resolve(a, tangent, QKV_TANGENT, u, list);
}
