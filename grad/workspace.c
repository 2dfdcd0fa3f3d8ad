/* workspace.c - how much memory a pass needs; in grad/ since it must know both directions. */
#include "grad/tile.h"
#include "src/fail.h"
#include "src/team.h"

size_t FN(qkv_workspace)(const qkv_attention *a, qkv_pass pass)
{
    switch (pass) {
    case QKV_FORWARD:
        return qkv_team_bytes(FN(qkv_forward_share)(a), 0, FN(qkv_forward_work)(a));
    case QKV_COVARIANCE:
        return qkv_team_bytes(FN(qkv_covariance_share)(a), 0, FN(qkv_forward_work)(a));
    case QKV_BACKWARD:
        break;
    }
    return qkv_team_bytes(FN(qkv_backward_share)(a), FN(qkv_backward_common)(a),
                          FN(qkv_backward_work)(a));
}

#if QKV_REAL == 64 /* the door knows both dtypes, so it is built once */
size_t qkv_workspace_f32(const qkv_attention *a, qkv_pass pass);

qkv_status qkv_attention_workspace(const qkv_attention *a, qkv_pass pass, qkv_dtype dtype,
                                   size_t *bytes)
{
    static const char who[] = "qkv_attention_workspace";
    if (!bytes) return qkv_fail(QKV_E_ARG, "%s: bytes is NULL", who);
    if (pass < QKV_FORWARD || pass > QKV_COVARIANCE)
        return qkv_fail(QKV_E_ARG, "%s: pass is %d, expected 0 to 2", who, (int)pass);
    if (dtype != QKV_F32 && dtype != QKV_F64)
        return qkv_fail(QKV_E_ARG, "%s: dtype is %d, expected QKV_F32 or QKV_F64", who, (int)dtype);
    qkv_attention filled;
    qkv_status status = qkv_problem_check(who, a, dtype == QKV_F32 ? 4 : 8, &filled);
    if (status) return status;
    *bytes = dtype == QKV_F32 ? qkv_workspace_f32(&filled, pass) : qkv_workspace_f64(&filled, pass);
    if (*bytes == SIZE_MAX)
        return qkv_fail(QKV_E_OVERFLOW, "%s: d_k = %td, d_v = %td need more than memory", who,
                        a->d_k, a->d_v);
    return QKV_OK;
}
#endif
