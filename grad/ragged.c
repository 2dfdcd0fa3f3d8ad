/* ragged.c - mirror of src/ragged.c: the items of a ragged batch backward, and the workspace of
 * either direction. */
#include "src/ragged.h"

#include "grad/kernels.h"
#include "src/fail.h"
#include "src/workspace.h"

typedef struct call {
    const FN(qkv_backward_kernels) *kernels;
    qkv_items items;
    FN(qkv_inputs) in;
    FN(qkv_gradients) to;
    size_t *at; /* [items]: where the item's sums for shared parameters lie in memory */
    char *memory;
} call;

/* What the items leave for the end, when their parameters' gradients are added up in order. at
 * NULL: counts only. SIZE_MAX on overflow. */
static size_t common_layout(const FN(qkv_backward_kernels) *kernels, const qkv_items *items,
                            size_t *at)
{
    qkv_cursor c = {0};
    qkv_take(&c, sizeof *at, items->n, 1);
    for (ptrdiff_t b = 0; b < items->n && !c.overflow; b++) {
        qkv_attention a = qkv_item_of(items, b);
        size_t bytes = a.n_q ? kernels->common(&a) : 0;
        if (at) at[b] = c.used;
        if (bytes == SIZE_MAX || !qkv_size_add(&c.used, bytes)) c.overflow = true;
    }
    return c.overflow ? SIZE_MAX : c.used;
}

static size_t share_of(const FN(qkv_backward_kernels) *kernels, const qkv_items *items,
                       ptrdiff_t *work)
{
    size_t most = QKV_ALIGN; /* of no use, but not 0 */
    ptrdiff_t pieces = 0;
    *work = 1;
    for (ptrdiff_t b = 0; b < items->n; b++) {
        qkv_attention a = qkv_item_of(items, b);
        size_t bytes = kernels->share(&a);
        most = bytes > most ? bytes : most;
        pieces += kernels->pieces(&a);
    }
    *work = FN(qkv_worth)(items->work, pieces);
    return most;
}

static FN(qkv_gradients) gradients_of_item(const call *x, ptrdiff_t b)
{
    FN(qkv_gradients) to = x->to;
    FN(qkv_view) *const of_queries[] = {&to.q, &to.bias,    &to.d_o,        &to.d_lse,
                                        &to.o, &to.row_max, &to.row_log_sum};
    FN(qkv_view) *const of_items[] = {&to.scale, &to.parameters, &to.slopes, &to.sink,
                                      &to.relative};
    for (size_t i = 0; i < sizeof of_queries / sizeof *of_queries; i++)
        FN(qkv_begin_at)(of_queries[i], 2, x->items.starts_q[b]);
    FN(qkv_begin_at)(&to.k, 2, x->items.starts_k[b]);
    FN(qkv_begin_at)(&to.v, 2, x->items.starts_k[b]);
    for (size_t i = 0; i < sizeof of_items / sizeof *of_items; i++)
        FN(qkv_begin_at)(of_items[i], 0, b);
    return to;
}

static void backward_item(void *context, ptrdiff_t b, const qkv_team *team)
{
    const call *x = context;
    FN(qkv_inputs) in = FN(qkv_inputs_of_item)(&x->items, &x->in, b);
    FN(qkv_gradients) to = gradients_of_item(x, b);
    qkv_team own = *team;
    own.memory = x->memory + x->at[b];
    own.common = (size_t)(team->memory - own.memory); /* the shares lie behind all items' sums */
    own.share = x->kernels->share(&in.a);
    ptrdiff_t threads = FN(qkv_work)(&in.a, x->kernels->pieces(&in.a));
    if (threads < own.threads) own.threads = (int)threads;
    x->kernels->backward(&in, &to, &own);
}

static void add_parameters(const call *x)
{
    const FN(qkv_gradients) *all = &x->to;
    if (!all->scale.data && !all->parameters.data && !all->slopes.data && !all->sink.data) return;
    for (ptrdiff_t b = 0; b < x->items.n; b++) {
        FN(qkv_inputs) in = FN(qkv_inputs_of_item)(&x->items, &x->in, b);
        FN(qkv_gradients) to = gradients_of_item(x, b);
        if (in.a.n_q) x->kernels->add_parameters(&in, &to, x->memory + x->at[b]);
    }
}

/* Do different items add to the same numbers? */
static bool bias_is_shared(const call *x)
{
    return (x->to.bias.data && x->to.bias.stride[2] == 0) || x->to.relative.data;
}

static qkv_status run(call *x, const char *who, void *workspace, size_t workspace_bytes)
{
    x->kernels = FN(qkv_backward_kernels_of)(who);
    if (!x->kernels) return QKV_E_ARG;
    qkv_team team;
    ptrdiff_t work;
    size_t share = share_of(x->kernels, &x->items, &work);
    size_t common = common_layout(x->kernels, &x->items, NULL);
    if (share == SIZE_MAX || common == SIZE_MAX)
        return qkv_fail(QKV_E_OVERFLOW, "%s: d_k = %td, d_v = %td need more than memory", who,
                        x->in.a.d_k, x->in.a.d_v);
    qkv_status status = qkv_team_of(who, share, common, work, workspace, workspace_bytes, &team);
    if (status) return status;
    x->memory = team.memory;
    x->at = (size_t *)(void *)team.memory;
    common_layout(x->kernels, &x->items, x->at);
    qkv_items_run(&x->items, &team, bias_is_shared(x), backward_item, x);
    add_parameters(x);
    return QKV_OK;
}

qkv_status FN(qkv_ragged_backward)(const qkv_attention *a, const int64_t *starts_q,
                                   const int64_t *starts_k, const FN(qkv_operands) *in,
                                   const FN(qkv_results) *saved, const FN(qkv_results) *d_out,
                                   const FN(qkv_operands) *d_in, void *workspace,
                                   size_t workspace_bytes)
{
    call x;
    qkv_slot_list list;
    qkv_status status = FN(qkv_ragged_resolve)("qkv_ragged_backward", a, starts_q, starts_k, in,
                                               &x.items, &x.in, &list);
    a = &x.in.a;
    if (!status) status = FN(qkv_cotangents_resolve)(a, saved, d_out, &x.to, &list);
    if (!status) status = FN(qkv_gradients_resolve)(a, d_in, &x.to, &list);
    if (!status) status = qkv_slot_list_check(&list);
    if (status || !a->heads || !a->n_q) return status;
    return run(&x, list.who, workspace, workspace_bytes);
}

qkv_status FN(qkv_ragged_bytes)(const char *who, const qkv_items *items, qkv_pass pass,
                                size_t *bytes)
{
    const FN(qkv_forward_kernels) *forward = FN(qkv_forward_kernels_of)(who);
    const FN(qkv_backward_kernels) *backward = FN(qkv_backward_kernels_of)(who);
    if (!forward || !backward) return QKV_E_ARG;
    ptrdiff_t work = 1;
    if (pass == QKV_FORWARD) {
        size_t share = FN(qkv_ragged_forward_share)(forward, items, &work);
        *bytes = qkv_team_bytes(share, 0, work);
    } else {
        size_t share = share_of(backward, items, &work);
        *bytes = qkv_team_bytes(share, common_layout(backward, items, NULL), work);
    }
    return QKV_OK;
}

#if QKV_REAL == 64 /* the door knows both dtypes, so it is built once */
qkv_status qkv_ragged_bytes_f32(const char *who, const qkv_items *items, qkv_pass pass,
                                size_t *bytes);

qkv_status qkv_ragged_workspace(const qkv_attention *a, const int64_t *starts_q,
                                const int64_t *starts_k, qkv_pass pass, qkv_dtype dtype,
                                size_t *bytes)
{
    static const char who[] = "qkv_ragged_workspace";
    if (!bytes) return qkv_fail(QKV_E_ARG, "%s: bytes is NULL", who);
    if (pass != QKV_FORWARD && pass != QKV_BACKWARD)
        return qkv_fail(QKV_E_ARG, "%s: pass is %d, expected QKV_FORWARD or QKV_BACKWARD", who,
                        (int)pass);
    if (dtype != QKV_F32 && dtype != QKV_F64)
        return qkv_fail(QKV_E_ARG, "%s: dtype is %d, expected QKV_F32 or QKV_F64", who, (int)dtype);
    qkv_items items;
    qkv_status status = qkv_items_of(who, a, dtype == QKV_F32 ? 4 : 8, starts_q, starts_k, &items);
    if (!status)
        status = (dtype == QKV_F32 ? qkv_ragged_bytes_f32 : qkv_ragged_bytes_f64)(who, &items, pass,
                                                                                  bytes);
    if (!status && *bytes == SIZE_MAX)
        return qkv_fail(QKV_E_OVERFLOW, "%s: d_k = %td, d_v = %td need more than memory", who,
                        a->d_k, a->d_v);
    return status;
}
#endif
