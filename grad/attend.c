/* attend.c - mirror of src/attend.c: the call of attention.h that goes backward, and how much
 * memory each pass needs (here since it must know both directions). */
#include "grad/kernels.h"
#include "grad/second_order.h"
#include "src/fail.h"
#include "src/kernels.h"
#include "src/simd/isa.h"

#define DECLARE(isa) FN(qkv_backward_kernels_##isa)
extern const FN(qkv_backward_kernels) QKV_EACH_ISA(DECLARE);
#define ADDRESS(isa) &FN(qkv_backward_kernels_##isa)

const FN(qkv_backward_kernels) *FN(qkv_backward_kernels_of)(const char *who)
{
    static const FN(qkv_backward_kernels) *const all[] = {QKV_EACH_ISA(ADDRESS)};
    int index;
    return qkv_isa_find(who, &index) ? NULL : all[index];
}

qkv_status FN(qkv_attention_backward)(const qkv_attention *a, const FN(qkv_operands) *in,
                                      const FN(qkv_results) *saved, const FN(qkv_results) *d_out,
                                      const FN(qkv_operands) *d_in, void *workspace,
                                      size_t workspace_bytes)
{
    FN(qkv_inputs) inputs;
    FN(qkv_gradients) to;
    qkv_slot_list list;
    qkv_status status = FN(qkv_inputs_resolve)("qkv_attention_backward", a, in, &inputs, &list);
    a = &inputs.a;
    if (!status) status = FN(qkv_cotangents_resolve)(a, saved, d_out, &to, &list);
    if (!status) status = FN(qkv_gradients_resolve)(a, d_in, &to, &list);
    if (!status && a->score == QKV_SCORE_USER && inputs.user_score && !inputs.user_score->backward)
        status = qkv_fail(QKV_E_ARG, "%s: user_score has no backward", list.who);
    if (!status) status = qkv_slot_list_check(&list);
    if (status || !a->batch || !a->heads || !a->n_q) return status;
    const FN(qkv_backward_kernels) *kernels = FN(qkv_backward_kernels_of)(list.who);
    if (!kernels) return QKV_E_ARG;
    qkv_team team;
    status = qkv_team_of(list.who, kernels->share(a), kernels->common(a),
                         FN(qkv_work)(a, kernels->pieces(a)), workspace, workspace_bytes, &team);
    if (status) return status;
    kernels->backward(&inputs, &to, &team);
    kernels->add_parameters(&inputs, &to, team.memory);
    return QKV_OK;
}

static size_t workspace_bytes(const qkv_attention *a, qkv_pass pass,
                              const FN(qkv_forward_kernels) *forward,
                              const FN(qkv_backward_kernels) *backward,
                              const FN(qkv_second_kernels) *second)
{
    switch (pass) {
    case QKV_FORWARD:
        return qkv_team_bytes(forward->forward_share(a), forward->forward_common(a),
                              FN(qkv_work)(a, forward->forward_pieces(a)));
    case QKV_COVARIANCE:
        return qkv_team_bytes(forward->covariance_share(a), 0,
                              FN(qkv_work)(a, forward->covariance_pieces(a)));
    case QKV_SUMMARY:
        return qkv_team_bytes(forward->summary_share(a), forward->summary_common(a),
                              FN(qkv_work)(a, forward->covariance_pieces(a)));
    case QKV_JVP:
        return qkv_team_bytes(second->jvp_share(a), 0, FN(qkv_work)(a, second->pieces(a)));
    case QKV_DOUBLE_BACKWARD:
        return qkv_team_bytes(second->share(a), second->common(a),
                              FN(qkv_work)(a, second->pieces(a)));
    case QKV_BACKWARD:
        break;
    }
    return qkv_team_bytes(backward->share(a), backward->common(a),
                          FN(qkv_work)(a, backward->pieces(a)));
}

qkv_status FN(qkv_workspace)(const char *who, const qkv_attention *a, qkv_pass pass, size_t *bytes)
{
    const FN(qkv_forward_kernels) *forward = FN(qkv_forward_kernels_of)(who);
    if (!forward) return QKV_E_ARG;
    *bytes = workspace_bytes(a, pass, forward, FN(qkv_backward_kernels_of)(who),
                             FN(qkv_second_kernels_of)(who));
    return QKV_OK;
}

#if QKV_REAL == 64 /* the door knows both dtypes, so it is built once */
qkv_status qkv_workspace_f32(const char *who, const qkv_attention *a, qkv_pass pass, size_t *bytes);

qkv_status qkv_attention_workspace(const qkv_attention *a, qkv_pass pass, qkv_dtype dtype,
                                   size_t *bytes)
{
    static const char who[] = "qkv_attention_workspace";
    if (!bytes) return qkv_fail(QKV_E_ARG, "%s: bytes is NULL", who);
    if (pass < QKV_FORWARD || pass > QKV_SUMMARY)
        return qkv_fail(QKV_E_ARG, "%s: pass is %d, expected 0 to 5", who, (int)pass);
    if (dtype != QKV_F32 && dtype != QKV_F64)
        return qkv_fail(QKV_E_ARG, "%s: dtype is %d, expected QKV_F32 or QKV_F64", who, (int)dtype);
    qkv_attention filled;
    qkv_status status = qkv_problem_check(who, a, dtype == QKV_F32 ? 4 : 8, &filled);
    if (!status)
        status =
            (dtype == QKV_F32 ? qkv_workspace_f32 : qkv_workspace_f64)(who, &filled, pass, bytes);
    if (!status && *bytes == SIZE_MAX)
        return qkv_fail(QKV_E_OVERFLOW, "%s: d_k = %td, d_v = %td need more than memory", who,
                        a->d_k, a->d_v);
    return status;
}
#endif
