/* second.c - the calls of second_order.h: arguments are checked, then the kernels run. */
#include "grad/kernels.h"
#include "grad/second_order.h"
#include "qkv/second_order.h"
#include "src/fail.h"
#include "src/kernels.h"
#include "src/simd/isa.h"

#define DECLARE(isa) FN(qkv_second_kernels_##isa)
extern const FN(qkv_second_kernels) QKV_EACH_ISA(DECLARE);
#define ADDRESS(isa) &FN(qkv_second_kernels_##isa)

const FN(qkv_second_kernels) *FN(qkv_second_kernels_of)(const char *who)
{
    static const FN(qkv_second_kernels) *const all[] = {QKV_EACH_ISA(ADDRESS)};
    int index;
    return qkv_isa_find(who, &index) ? NULL : all[index];
}

static qkv_status check_choices(const char *who, const qkv_attention *a)
{
    if (a->normalize != QKV_SOFTMAX)
        return qkv_fail(QKV_E_ARG,
                        "%s: second order goes with QKV_SOFTMAX only, not with another "
                        "normaliser",
                        who);
    if (a->score == QKV_SCORE_USER)
        return qkv_fail(QKV_E_ARG, "%s: second order does not go with a user's score", who);
    return QKV_OK;
}

static bool has_rows(const qkv_attention *a)
{
    return a->batch && a->heads && a->n_q;
}

/* o and lse of results that are read or written; name: what they are. */
static qkv_status list_pair(const qkv_attention *a, const FN(qkv_results) *x, bool written,
                            const char *const names[2], FN(qkv_view) *o, FN(qkv_view) *lse,
                            qkv_slot_list *list)
{
    const ptrdiff_t row[4] = {a->batch, a->heads, a->n_q, 1};
    const ptrdiff_t value[4] = {a->batch, a->heads, a->n_q, a->d_v};
    if (x->row_max.data || x->row_log_sum.data || x->weights.data)
        return qkv_fail(QKV_E_ARG, "%s: %s and %s are all that is taken of these results",
                        list->who, names[0], names[1]);
    *o = FN(qkv_view_of)(&x->o, value);
    *lse = FN(qkv_view_of)(&x->lse, row);
    const qkv_extent two[] = {FN(qkv_extent_of)(names[0], &x->o, value, written),
                              FN(qkv_extent_of)(names[1], &x->lse, row, written)};
    qkv_status status = qkv_slot_list_add(list, &two[0]);
    return status ? status : qkv_slot_list_add(list, &two[1]);
}

static qkv_status list_saved(const qkv_attention *a, const FN(qkv_results) *saved,
                             FN(qkv_gradients) *to, qkv_slot_list *list)
{
    const ptrdiff_t row[4] = {a->batch, a->heads, a->n_q, 1};
    const ptrdiff_t value[4] = {a->batch, a->heads, a->n_q, a->d_v};
    bool lacks_o = a->d_v && !saved->o.data;
    if (has_rows(a) && (!saved->row_max.data || !saved->row_log_sum.data || lacks_o))
        return qkv_fail(QKV_E_ARG,
                        "%s: saved lacks o, row_max or row_log_sum; keep what forward wrote",
                        list->who);
    to->o = FN(qkv_view_of)(&saved->o, value);
    to->row_max = FN(qkv_view_of)(&saved->row_max, row);
    to->row_log_sum = FN(qkv_view_of)(&saved->row_log_sum, row);
    const qkv_extent all[] = {
        FN(qkv_extent_of)("saved o", &saved->o, value, false),
        FN(qkv_extent_of)("saved row_max", &saved->row_max, row, false),
        FN(qkv_extent_of)("saved row_log_sum", &saved->row_log_sum, row, false)};
    qkv_status status = QKV_OK;
    for (int i = 0; i < 3 && !status; i++) status = qkv_slot_list_add(list, &all[i]);
    return status;
}

/* What both calls begin with. */
static qkv_status resolve(const char *who, const qkv_attention *a, const FN(qkv_operands) *in,
                          const FN(qkv_results) *saved, const FN(qkv_operands) *tangent,
                          FN(qkv_inputs) *inputs, FN(qkv_gradients) *to, FN(qkv_gradients) *u,
                          qkv_slot_list *list)
{
    *to = (FN(qkv_gradients)){.q.data = NULL};
    qkv_status status = FN(qkv_inputs_resolve)(who, a, in, inputs, list);
    if (!status) status = check_choices(who, &inputs->a);
    if (status) return status;
    if (!saved || !tangent)
        return qkv_fail(QKV_E_ARG, "%s: %s is NULL", who, saved ? "the tangent u" : "saved");
    status = list_saved(&inputs->a, saved, to, list);
    return status ? status : FN(qkv_tangents_resolve)(&inputs->a, tangent, u, list);
}

qkv_status FN(qkv_attention_jvp)(const qkv_attention *a, const FN(qkv_operands) *in,
                                 const FN(qkv_results) *saved, const FN(qkv_operands) *tangent,
                                 const FN(qkv_results) *d_result, void *workspace,
                                 size_t workspace_bytes)
{
    static const char *const names[] = {"d_result o", "d_result lse"};
    FN(qkv_inputs) inputs;
    FN(qkv_gradients) to, u;
    FN(qkv_outputs) out = {.o.data = NULL};
    qkv_slot_list list;
    qkv_status status =
        resolve("qkv_attention_jvp", a, in, saved, tangent, &inputs, &to, &u, &list);
    if (status) return status;
    a = &inputs.a;
    if (!d_result) return qkv_fail(QKV_E_ARG, "%s: d_result is NULL", list.who);
    status = list_pair(a, d_result, true, names, &out.o, &out.lse, &list);
    if (!status) status = qkv_slot_list_check(&list);
    if (status || !has_rows(a)) return status;
    if (!out.lse.data && !out.o.data && a->d_v)
        return qkv_fail(QKV_E_ARG, "%s: d_result has neither o nor lse", list.who);
    const FN(qkv_second_kernels) *kernels = FN(qkv_second_kernels_of)(list.who);
    if (!kernels) return QKV_E_ARG;
    qkv_team team;
    status = qkv_team_of(list.who, kernels->jvp_share(a), 0, FN(qkv_work)(a, kernels->pieces(a)),
                         workspace, workspace_bytes, &team);
    if (!status) kernels->jvp(&inputs, &u, &to, &out, &team);
    return status;
}

qkv_status FN(qkv_attention_double_backward)(
    const qkv_attention *a, const FN(qkv_operands) *in, const FN(qkv_results) *saved,
    const FN(qkv_results) *d_out, const FN(qkv_operands) *u, const FN(qkv_operands) *d_in,
    const FN(qkv_results) *dd_out, void *workspace, size_t workspace_bytes)
{
    static const char *const cotangents[] = {"d_out o", "d_out lse"};
    static const char *const theirs[] = {"dd_out o", "dd_out lse"};
    static const FN(qkv_results) nothing = {.o.data = NULL};
    FN(qkv_inputs) inputs;
    FN(qkv_gradients) to, tangents;
    FN(qkv_outputs) out = {.o.data = NULL};
    qkv_slot_list list;
    qkv_status status =
        resolve("qkv_attention_double_backward", a, in, saved, u, &inputs, &to, &tangents, &list);
    if (status) return status;
    a = &inputs.a;
    if (!d_out) return qkv_fail(QKV_E_ARG, "%s: d_out is NULL", list.who);
    status = list_pair(a, d_out, false, cotangents, &to.d_o, &to.d_lse, &list);
    if (!status) status = FN(qkv_gradients_resolve)(a, d_in, &to, &list);
    if (!status)
        status = list_pair(a, dd_out ? dd_out : &nothing, true, theirs, &out.o, &out.lse, &list);
    if (!status) status = qkv_slot_list_check(&list);
    if (status || !has_rows(a)) return status;
    if (!to.d_o.data && !to.d_lse.data && a->d_v)
        return qkv_fail(QKV_E_ARG, "%s: d_out has neither o nor lse", list.who);
    const FN(qkv_second_kernels) *kernels = FN(qkv_second_kernels_of)(list.who);
    if (!kernels) return QKV_E_ARG;
    qkv_team team;
    status = qkv_team_of(list.who, kernels->share(a), kernels->common(a),
                         FN(qkv_work)(a, kernels->pieces(a)), workspace, workspace_bytes, &team);
    if (!status) kernels->backward(&inputs, &tangents, &to, &out, &team);
    return status;
}
