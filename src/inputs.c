/* inputs.c - the caller's operands and results become checked views with all their strides. */
#include "inputs.h"

#include <string.h>

#include "fail.h"

FN(qkv_view) FN(qkv_view_of)(const FN(qkv_slot) *slot, const ptrdiff_t dim[4])
{
    FN(qkv_view) view = {.data = slot->data};
    if (slot->data) qkv_strides(dim, slot->strided, slot->stride, view.stride);
    return view;
}

/* A packed parameter is shared by all batch items and heads. */
FN(qkv_view) FN(qkv_parameter_view)(const FN(qkv_slot) *slot, const ptrdiff_t dim[4])
{
    FN(qkv_view) view = FN(qkv_view_of)(slot, dim);
    if (!slot->strided) view.stride[0] = view.stride[1] = 0;
    return view;
}

FN(qkv_view) FN(qkv_head_view)(const FN(qkv_slot) *slot, const ptrdiff_t dim[4])
{
    FN(qkv_view) view = FN(qkv_view_of)(slot, dim);
    if (!slot->strided) view.stride[0] = 0;
    return view;
}

qkv_extent FN(qkv_extent_of)(const char *name, const FN(qkv_slot) *slot, const ptrdiff_t dim[4],
                             bool written)
{
    qkv_extent e = {.name = name,
                    .data = slot->data,
                    .element = sizeof(real),
                    .written = written,
                    .packed = !slot->strided};
    memcpy(e.dim, dim, sizeof e.dim);
    qkv_strides(dim, slot->strided, slot->stride, e.stride);
    return e;
}

void FN(qkv_operand_dims)(const qkv_attention *a, const qkv_items *items,
                          const FN(qkv_operands) *in, ptrdiff_t dims[QKV_OPERANDS][4])
{
    ptrdiff_t batch = items ? items->n : a->batch; /* of what has no rows */
    bool many_scales = in->scale.strided, many_bandwidths = in->bandwidth.strided;
    bool many_w = in->w.strided;
    const ptrdiff_t d[QKV_OPERANDS][4] = {
        {a->batch, a->heads, a->n_q, a->d_k},
        {a->batch, a->kv_heads, a->n_k, a->d_k},
        {a->batch, a->kv_heads, a->n_k, a->d_v},
        {a->batch, a->heads, a->n_q, items ? items->longest : a->n_k},
        {many_scales ? batch : 1, many_scales ? a->heads : 1, 1, 1},
        {many_bandwidths ? batch : 1, many_bandwidths ? a->heads : 1, 1, a->bandwidths},
        {many_w ? batch : 1, many_w ? a->heads : 1, 1, a->bandwidths},
        {in->slopes.strided ? batch : 1, a->heads, 1, 1},
        {in->sink.strided ? batch : 1, a->heads, 1, 1},
        {in->relative.strided ? batch : 1, a->heads, 1, qkv_relative_size(a)}};
    memcpy(dims, d, sizeof d);
}

qkv_status FN(qkv_operands_list)(ptrdiff_t dims[QKV_OPERANDS][4], const FN(qkv_operands) *x,
                                 qkv_role role, qkv_slot_list *list)
{
    const FN(qkv_slot) *slots[] = {&x->q,         &x->k, &x->v,      &x->bias, &x->scale,
                                   &x->bandwidth, &x->w, &x->slopes, &x->sink, &x->relative};
    static const char *const names[3][QKV_OPERANDS] = {
        {"q", "k", "v", "bias", "scale", "bandwidth", "w", "slopes", "sink", "relative"},
        {"dq", "dk", "dv", "dbias", "dscale", "dbandwidth", "dw", "dslopes", "dsink", "drelative"},
        {"tangent q", "tangent k", "tangent v", "tangent bias", "tangent scale",
         "tangent bandwidth", "tangent w", "tangent slopes", "tangent sink", "tangent relative"}};
    for (int i = 0; i < QKV_OPERANDS; i++) {
        if (!slots[i]->data) continue;
        qkv_extent e = FN(qkv_extent_of)(names[role][i], slots[i], dims[i], role == QKV_GRADIENT);
        e.reduces = i >= 3;
        qkv_status status = qkv_slot_list_add(list, &e);
        if (status) return status;
    }
    return QKV_OK;
}

static qkv_status list_mask(const ptrdiff_t dim[4], const qkv_slot_bool *mask, qkv_slot_list *list)
{
    if (!mask->data) return QKV_OK;
    qkv_extent e = {.name = "mask", .data = mask->data, .element = 1};
    memcpy(e.dim, dim, sizeof e.dim);
    qkv_strides(dim, mask->strided, mask->stride, e.stride);
    return qkv_slot_list_add(list, &e);
}

/* lengths and causal_offsets: one number a batch item. */
static qkv_status list_numbers(const qkv_attention *a, const FN(qkv_operands) *in,
                               qkv_slot_list *list)
{
    ptrdiff_t batch = list->items ? list->items->n : a->batch;
    qkv_extent e = {.element = sizeof(int64_t), .dim = {batch, 1, 1, 1}, .packed = true};
    e.stride[0] = 1;
    e.name = "lengths";
    e.data = in->lengths;
    qkv_status status = qkv_slot_list_add(list, &e);
    e.name = "causal_offsets";
    e.data = in->causal_offsets;
    if (!status) status = qkv_slot_list_add(list, &e);
    for (ptrdiff_t b = 0; !status && in->lengths && b < a->batch; b++)
        if (in->lengths[b] < 0 || in->lengths[b] > a->n_k)
            status = qkv_fail(QKV_E_SHAPE, "%s: lengths[%td] is %lld, expected 0 to n_k, %td",
                              list->who, b, (long long)in->lengths[b], a->n_k);
    return status;
}

qkv_status FN(qkv_parameters_check)(const char *who, const qkv_attention *a,
                                    const FN(qkv_operands) *x)
{
    if (x->bandwidth.data && !qkv_is_distance(a))
        return qkv_fail(QKV_E_ARG,
                        "%s: a bandwidth does not go with %s score, only with a Gaussian, Laplace "
                        "or Cauchy",
                        who, qkv_score_name(a));
    if (x->w.data && (qkv_is_dot(a) || qkv_is_distance(a)))
        return qkv_fail(QKV_E_ARG,
                        "%s: w does not go with %s score, only with an additive or a user's", who,
                        qkv_score_name(a));
    return QKV_OK;
}

static qkv_status require_operands(const char *who, const qkv_attention *a,
                                   const FN(qkv_operands) *in)
{
    bool queries = a->batch && a->heads && a->n_q, keys = queries && a->n_k;
    qkv_status status;
    const struct {
        const char *name;
        const void *data;
        bool needed;
    } operands[] = {{"q", in->q.data, queries && a->d_k},
                    {"k", in->k.data, keys && a->d_k},
                    {"v", in->v.data, keys && a->d_v}};
    for (int i = 0; i < 3; i++)
        if (operands[i].needed && !operands[i].data)
            return qkv_fail(QKV_E_ARG, "%s: %s is NULL", who, operands[i].name);
    bool user = a->score == QKV_SCORE_USER, own = user || a->score == QKV_SCORE_ADDITIVE;
    if (queries && own && a->bandwidths && !in->w.data)
        return qkv_fail(QKV_E_ARG, "%s: w is NULL, expected %td numbers", who, a->bandwidths);
    if (queries && user && (!in->user_score || !in->user_score->forward))
        return qkv_fail(QKV_E_ARG, "%s: user_score %s", who,
                        in->user_score ? "has no forward" : "is NULL");
    status = FN(qkv_parameters_check)(who, a, in);
    if (status) return status;
    if (in->sink.data && a->normalize != QKV_SOFTMAX)
        return qkv_fail(QKV_E_ARG, "%s: a sink does not go with a normaliser other than softmax",
                        who);
    if (a->score == QKV_SCORE_SCALED_DOT && a->d_k == 0 && !in->scale.data)
        return qkv_fail(QKV_E_SHAPE,
                        "%s: d_k is 0, so the default scale 1/sqrt(d_k) does not exist; give a "
                        "scale",
                        who);
    return QKV_OK;
}

qkv_status FN(qkv_inputs_view)(const qkv_attention *a, const FN(qkv_operands) *in,
                               FN(qkv_inputs) *out, qkv_slot_list *list)
{
    list->n = 0;
    if (!in) return qkv_fail(QKV_E_ARG, "%s: the operands are NULL", list->who);
    ptrdiff_t dims[QKV_OPERANDS][4];
    FN(qkv_operand_dims)(a, list->items, in, dims);
    qkv_status status = require_operands(list->who, a, in);
    if (!status) status = FN(qkv_operands_list)(dims, in, QKV_INPUT, list);
    if (!status) status = list_mask(dims[3], &in->mask, list);
    if (!status) status = list_numbers(a, in, list);
    if (status) return status;
    out->a = *a;
    out->q = FN(qkv_view_of)(&in->q, dims[0]);
    out->k = FN(qkv_view_of)(&in->k, dims[1]);
    out->v = FN(qkv_view_of)(&in->v, dims[2]);
    out->bias = FN(qkv_view_of)(&in->bias, dims[3]);
    out->scale = FN(qkv_parameter_view)(&in->scale, dims[4]);
    out->parameters = qkv_is_distance(a) ? FN(qkv_parameter_view)(&in->bandwidth, dims[5])
                                         : FN(qkv_parameter_view)(&in->w, dims[6]);
    out->slopes = FN(qkv_head_view)(&in->slopes, dims[7]);
    out->sink = FN(qkv_head_view)(&in->sink, dims[8]);
    out->relative = FN(qkv_head_view)(&in->relative, dims[9]);
    out->user_score = in->user_score;
    out->lengths = in->lengths;
    out->causal_offsets = in->causal_offsets;
    out->mask_rule = in->mask_rule;
    out->item = 0;
    out->mask = in->mask;
    if (in->mask.data) qkv_strides(dims[3], in->mask.strided, in->mask.stride, out->mask.stride);
    return QKV_OK;
}

qkv_status FN(qkv_inputs_resolve)(const char *who, const qkv_attention *a,
                                  const FN(qkv_operands) *in, FN(qkv_inputs) *out,
                                  qkv_slot_list *list)
{
    qkv_attention filled;
    list->who = who;
    list->items = NULL;
    qkv_status status = qkv_problem_check(who, a, sizeof(real), &filled);
    return status ? status : FN(qkv_inputs_view)(&filled, in, out, list);
}

qkv_status FN(qkv_outputs_resolve)(const qkv_attention *a, const FN(qkv_results) *out,
                                   FN(qkv_outputs) *views, qkv_slot_list *list)
{
    const char *who = list->who;
    if (!out) return qkv_fail(QKV_E_ARG, "%s: the results are NULL", who);
    if (!out->o.data && a->batch && a->heads && a->n_q && a->d_v)
        return qkv_fail(QKV_E_ARG, "%s: the result o is NULL", who);
    if (out->lse.data && !qkv_has_lse(a))
        return qkv_fail(QKV_E_ARG,
                        "%s: lse does not go with a normaliser without a sum; use QKV_SOFTMAX, "
                        "QKV_KERNEL_SUM, QKV_TOP_K or QKV_TOP_K_UNIFORM",
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
        if (!all[i].slot->data) continue;
        const qkv_extent e = FN(qkv_extent_of)(all[i].name, all[i].slot, all[i].dim, true);
        qkv_status status = qkv_slot_list_add(list, &e);
        if (status) return status;
    }
    return QKV_OK;
}
