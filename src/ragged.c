/* ragged.c - forward over the items of a ragged batch: each is a problem of its own for the same
 * kernels, so its bits are those it would have alone. */
#include "ragged.h"

#include "fail.h"
#include "kernels.h"
#include "workspace.h"

qkv_status FN(qkv_ragged_resolve)(const char *who, const qkv_attention *a, const int64_t *starts_q,
                                  const int64_t *starts_k, const FN(qkv_operands) *in,
                                  qkv_items *items, FN(qkv_inputs) *all, qkv_slot_list *list)
{
    list->who = who;
    list->items = items;
    qkv_status status = qkv_items_of(who, a, sizeof(real), starts_q, starts_k, items);
    if (status) return status;
    if (in && in->lengths)
        return qkv_fail(QKV_E_ARG, "%s: lengths do not go with a ragged batch; starts_k says them",
                        who);
    status = FN(qkv_inputs_view)(&items->rows, in, all, list);
    ptrdiff_t numbers = items->n ? items->n + 1 : 0;
    qkv_extent e = {.element = sizeof(int64_t), .dim = {numbers, 1, 1, 1}, .packed = true};
    e.stride[0] = 1;
    e.name = "starts_q";
    e.data = starts_q;
    if (!status) status = qkv_slot_list_add(list, &e);
    e.name = "starts_k";
    e.data = starts_k;
    return status ? status : qkv_slot_list_add(list, &e);
}

FN(qkv_inputs)
FN(qkv_inputs_of_item)(const qkv_items *items, const FN(qkv_inputs) *all, ptrdiff_t b)
{
    FN(qkv_inputs) in = *all;
    int64_t q = items->starts_q[b], k = items->starts_k[b];
    in.a = qkv_item_of(items, b);
    in.item = b;
    FN(qkv_begin_at)(&in.q, 2, q);
    FN(qkv_begin_at)(&in.k, 2, k);
    FN(qkv_begin_at)(&in.v, 2, k);
    FN(qkv_begin_at)(&in.bias, 2, q);
    FN(qkv_begin_at)(&in.scale, 0, b);
    FN(qkv_begin_at)(&in.parameters, 0, b);
    FN(qkv_begin_at)(&in.slopes, 0, b);
    FN(qkv_begin_at)(&in.sink, 0, b);
    FN(qkv_begin_at)(&in.relative, 0, b);
    if (in.mask.data) in.mask.data += q * in.mask.stride[2];
    if (in.causal_offsets) in.causal_offsets += b;
    return in;
}

/* All there is to a call. */
typedef struct call {
    const FN(qkv_forward_kernels) *kernels;
    qkv_items items;
    FN(qkv_inputs) in;
    FN(qkv_outputs) out;
    ptrdiff_t empty;
} call;

static void forward_item(void *context, ptrdiff_t b, const qkv_team *team)
{
    call *x = context;
    FN(qkv_inputs) in = FN(qkv_inputs_of_item)(&x->items, &x->in, b);
    FN(qkv_outputs) out = x->out;
    int64_t q = x->items.starts_q[b];
    FN(qkv_begin_at)(&out.o, 2, q);
    FN(qkv_begin_at)(&out.lse, 2, q);
    FN(qkv_begin_at)(&out.row_max, 2, q);
    FN(qkv_begin_at)(&out.row_log_sum, 2, q);
    qkv_team own = *team; /* with what the item's threads have in common before their shares */
    own.share = x->kernels->forward_share(&in.a);
    own.common = x->kernels->forward_common(&in.a);
    ptrdiff_t threads = FN(qkv_work)(&in.a, x->kernels->forward_pieces(&in.a));
    if (threads < own.threads) own.threads = (int)threads;
    ptrdiff_t empty = x->kernels->forward(&in, &out, &own);
    __atomic_fetch_add(&x->empty, empty, __ATOMIC_RELAXED);
}

/* An item in the hands of one thread needs its share and what its threads have in common; so much
 * from every thread is enough when all have it. */
size_t FN(qkv_ragged_forward_share)(const FN(qkv_forward_kernels) *kernels, const qkv_items *items,
                                    ptrdiff_t *work)
{
    size_t most = QKV_ALIGN; /* of no use, but not 0 */
    ptrdiff_t pieces = 0;
    *work = 1;
    for (ptrdiff_t b = 0; b < items->n; b++) {
        qkv_attention a = qkv_item_of(items, b);
        size_t bytes = kernels->forward_share(&a), common = kernels->forward_common(&a);
        if (bytes == SIZE_MAX || common == SIZE_MAX || !qkv_size_add(&bytes, common))
            return SIZE_MAX;
        most = bytes > most ? bytes : most;
        pieces += kernels->forward_pieces(&a);
    }
    *work = FN(qkv_worth)(items->work, pieces);
    return most;
}

qkv_status FN(qkv_ragged_forward)(const qkv_attention *a, const int64_t *starts_q,
                                  const int64_t *starts_k, const FN(qkv_operands) *in,
                                  const FN(qkv_results) *out, void *workspace,
                                  size_t workspace_bytes)
{
    call x = {.empty = 0};
    qkv_slot_list list;
    qkv_status status = FN(qkv_ragged_resolve)("qkv_ragged_forward", a, starts_q, starts_k, in,
                                               &x.items, &x.in, &list);
    if (!status && out && out->weights.data)
        status = qkv_fail(QKV_E_ARG, "%s: weights do not go with a ragged batch", list.who);
    if (!status) status = FN(qkv_outputs_resolve)(&x.in.a, out, &x.out, &list);
    if (!status) status = qkv_slot_list_check(&list);
    if (status || !x.in.a.heads || !x.in.a.n_q) return status;
    x.kernels = FN(qkv_forward_kernels_of)(list.who);
    if (!x.kernels) return QKV_E_ARG;
    qkv_team team;
    ptrdiff_t work;
    size_t share = FN(qkv_ragged_forward_share)(x.kernels, &x.items, &work);
    if (share == SIZE_MAX)
        return qkv_fail(QKV_E_OVERFLOW, "%s: d_k = %td, d_v = %td need more than memory", list.who,
                        a->d_k, a->d_v);
    status = qkv_team_of(list.who, share, 0, work, workspace, workspace_bytes, &team);
    if (status) return status;
    qkv_items_run(&x.items, &team, false, forward_item, &x);
    return FN(qkv_check_empty)(list.who, &x.in.a, x.empty);
}
