/* attend.c - the calls of attention.h that go forward: arguments are checked, then the kernels of
 * the instruction set in force run on as many threads as there is work for. */
#include <stdlib.h>

#include "fail.h"
#include "kernels.h"
#include "simd/isa.h"

#define DECLARE(isa) FN(qkv_forward_kernels_##isa)
extern const FN(qkv_forward_kernels) QKV_EACH_ISA(DECLARE);
#define ADDRESS(isa) &FN(qkv_forward_kernels_##isa)

const FN(qkv_forward_kernels) *FN(qkv_forward_kernels_of)(const char *who)
{
    static const FN(qkv_forward_kernels) *const all[] = {QKV_EACH_ISA(ADDRESS)};
    int index;
    return qkv_isa_find(who, &index) ? NULL : all[index];
}

/* Threads take microseconds to start: with fewer multiply-adds for each they do not pay. */
static const double WORTH_A_THREAD = 1e6;

ptrdiff_t FN(qkv_worth)(double work, ptrdiff_t pieces)
{
    double worth = 1 + work / WORTH_A_THREAD;
    return (double)pieces < worth ? pieces : (ptrdiff_t)worth;
}

ptrdiff_t FN(qkv_work)(const qkv_attention *a, ptrdiff_t pieces)
{
    return FN(qkv_worth)(qkv_work_of(a), pieces);
}

static bool has_rows(const qkv_attention *a)
{
    return a->batch && a->heads && a->n_q;
}

qkv_status FN(qkv_check_empty)(const char *who, const qkv_attention *a, ptrdiff_t empty)
{
    if (!empty || a->normalize != QKV_KERNEL_SUM || a->empty != QKV_EMPTY_ERROR) return QKV_OK;
    return qkv_fail(QKV_E_DOMAIN, "%s: %td of %td queries have no key within the kernel's support",
                    who, empty, a->batch * a->heads * a->n_q);
}

qkv_status FN(qkv_attention_forward)(const qkv_attention *a, const FN(qkv_operands) *in,
                                     const FN(qkv_results) *out, void *workspace,
                                     size_t workspace_bytes)
{
    FN(qkv_inputs) inputs;
    FN(qkv_outputs) views;
    qkv_slot_list list;
    qkv_status status = FN(qkv_inputs_resolve)("qkv_attention_forward", a, in, &inputs, &list);
    if (!status) status = FN(qkv_outputs_resolve)(&inputs.a, out, &views, &list);
    if (!status) status = qkv_slot_list_check(&list);
    if (status || !has_rows(&inputs.a)) return status;
    const FN(qkv_forward_kernels) *kernels = FN(qkv_forward_kernels_of)(list.who);
    if (!kernels) return QKV_E_ARG;
    qkv_team team;
    status =
        qkv_team_of(list.who, kernels->forward_share(&inputs.a), kernels->forward_common(&inputs.a),
                    FN(qkv_work)(&inputs.a, kernels->forward_pieces(&inputs.a)), workspace,
                    workspace_bytes, &team);
    if (status) return status;
    return FN(qkv_check_empty)(list.who, &inputs.a, kernels->forward(&inputs, &views, &team));
}

static qkv_status resolve_covariance(const FN(qkv_inputs) *in, const FN(qkv_slot) *cov,
                                     FN(qkv_view) *to, qkv_slot_list *list)
{
    const qkv_attention *a = &in->a;
    if (!qkv_is_convex(a))
        return qkv_fail(QKV_E_ARG,
                        "%s: a covariance does not go with weights that are no distribution over "
                        "the keys (QKV_NONE_...)",
                        list->who);
    if (in->sink.data)
        return qkv_fail(QKV_E_ARG, "%s: a covariance does not go with a sink, which has no value",
                        list->who);
    if (!cov || (!cov->data && has_rows(a) && a->d_v && a->d_k))
        return qkv_fail(QKV_E_ARG, "%s: cov is NULL", list->who);
    ptrdiff_t matrix;
    if (__builtin_mul_overflow(a->d_v, a->d_k, &matrix))
        return qkv_fail(QKV_E_OVERFLOW, "%s: matrices of d_v x d_k = %td x %td exceed memory",
                        list->who, a->d_v, a->d_k);
    const ptrdiff_t dim[4] = {a->batch, a->heads, a->n_q, matrix};
    *to = FN(qkv_view_of)(cov, dim);
    const qkv_extent e = FN(qkv_extent_of)("cov", cov, dim, true);
    return qkv_slot_list_add(list, &e);
}

qkv_status FN(qkv_attention_covariance)(const qkv_attention *a, const FN(qkv_operands) *in,
                                        const FN(qkv_slot) *cov, void *workspace,
                                        size_t workspace_bytes)
{
    FN(qkv_inputs) inputs;
    FN(qkv_view) to;
    qkv_slot_list list;
    qkv_status status = FN(qkv_inputs_resolve)("qkv_attention_covariance", a, in, &inputs, &list);
    a = &inputs.a;
    if (!status) status = resolve_covariance(&inputs, cov, &to, &list);
    if (!status) status = qkv_slot_list_check(&list);
    if (status || !has_rows(a) || a->d_v == 0 || a->d_k == 0) return status;
    const FN(qkv_forward_kernels) *kernels = FN(qkv_forward_kernels_of)(list.who);
    if (!kernels) return QKV_E_ARG;
    size_t share = kernels->covariance_share(a);
    if (share == SIZE_MAX)
        return qkv_fail(QKV_E_OVERFLOW, "%s: matrices of d_v x d_k = %td x %td exceed memory",
                        list.who, a->d_v, a->d_k);
    qkv_team team;
    status = qkv_team_of(list.who, share, 0, FN(qkv_work)(a, kernels->covariance_pieces(a)),
                         workspace, workspace_bytes, &team);
    if (status) return status;
    return FN(qkv_check_empty)(list.who, a, kernels->covariance(&inputs, &to, &team));
}

qkv_status FN(qkv_attend)(const qkv_attention *a, const real *q, const real *k, const real *v,
                          real *o)
{
    static const char who[] = "qkv_attend";
    qkv_attention filled;
    qkv_status status = qkv_problem_check(who, a, sizeof(real), &filled);
    if (status) return status;
    const FN(qkv_forward_kernels) *kernels = FN(qkv_forward_kernels_of)(who);
    if (!kernels) return QKV_E_ARG;
    size_t bytes = qkv_team_bytes(kernels->forward_share(&filled), kernels->forward_common(&filled),
                                  FN(qkv_work)(&filled, kernels->forward_pieces(&filled)));
    void *workspace = malloc(bytes);
    if (!workspace)
        return qkv_fail(QKV_E_NOMEM, "%s: no memory for a workspace of %zu bytes", who, bytes);
    const FN(qkv_operands) in = {
        .q.data = (real *)q, .k.data = (real *)k, .v.data = (real *)v}; /* never written */
    const FN(qkv_results) out = {.o.data = o};
    status = FN(qkv_attention_forward)(a, &in, &out, workspace, bytes);
    free(workspace);
    return status;
}
