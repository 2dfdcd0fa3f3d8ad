#include "items.h"

#include "fail.h"

static qkv_status check_starts(const char *who, const char *name, const int64_t *starts,
                               ptrdiff_t n, const char *total_name, ptrdiff_t total)
{
    if (n == 0) return QKV_OK;
    if (!starts) return qkv_fail(QKV_E_ARG, "%s: %s is NULL", who, name);
    if (starts[0] != 0)
        return qkv_fail(QKV_E_SHAPE, "%s: %s[0] is %lld, expected 0", who, name,
                        (long long)starts[0]);
    for (ptrdiff_t b = 1; b <= n; b++)
        if (starts[b] < starts[b - 1])
            return qkv_fail(QKV_E_SHAPE, "%s: %s[%td] is %lld, expected %lld or more, as %s[%td]",
                            who, name, b, (long long)starts[b], (long long)starts[b - 1], name,
                            b - 1);
    if (total && starts[n] != total)
        return qkv_fail(QKV_E_SHAPE, "%s: %s[%td] is %lld, expected %s, %td", who, name, n,
                        (long long)starts[n], total_name, total);
    return QKV_OK;
}

qkv_status qkv_items_of(const char *who, const qkv_attention *a, size_t element,
                        const int64_t *starts_q, const int64_t *starts_k, qkv_items *items)
{
    if (!a) return qkv_fail(QKV_E_ARG, "%s: the problem (qkv_attention *) is NULL", who);
    *items = (qkv_items){.n = a->batch, .starts_q = starts_q, .starts_k = starts_k};
    qkv_attention all = *a;
    if (a->batch > 1) all.batch = 1;
    qkv_status status = qkv_problem_check(who, &all, element, &items->rows);
    if (!status) status = check_starts(who, "starts_q", starts_q, a->batch, "n_q", a->n_q);
    if (!status) status = check_starts(who, "starts_k", starts_k, a->batch, "n_k", a->n_k);
    if (status) return status;
    all.n_q = a->batch ? (ptrdiff_t)starts_q[a->batch] : 0;
    all.n_k = a->batch ? (ptrdiff_t)starts_k[a->batch] : 0;
    status = qkv_problem_check(who, &all, element, &items->rows);
    for (ptrdiff_t b = 0; !status && b < items->n; b++) {
        qkv_attention item = qkv_item_of(items, b);
        items->work += qkv_work_of(&item);
        if (item.n_k > items->longest) items->longest = item.n_k;
    }
    return status;
}

qkv_attention qkv_item_of(const qkv_items *items, ptrdiff_t b)
{
    qkv_attention a = items->rows;
    a.n_q = (ptrdiff_t)(items->starts_q[b + 1] - items->starts_q[b]);
    a.n_k = (ptrdiff_t)(items->starts_k[b + 1] - items->starts_k[b]);
    return a;
}

typedef struct job {
    const qkv_items *items;
    int threads;
    bool in_order;
    ptrdiff_t taken;
    void (*compute)(void *context, ptrdiff_t b, const qkv_team *team);
    void *context;
} job;

/* One thread that is busy with a large item might keep the others waiting. */
static bool is_large(const job *x, ptrdiff_t b)
{
    qkv_attention a = qkv_item_of(x->items, b);
    return x->in_order || qkv_work_of(&a) * 4 * x->threads > x->items->work;
}

static bool has_queries(const qkv_items *items, ptrdiff_t b)
{
    return items->starts_q[b + 1] > items->starts_q[b];
}

static void run_small(void *context, void *memory)
{
    job *x = context;
    const qkv_team alone = {.threads = 1, .memory = memory};
    for (ptrdiff_t b; (b = qkv_team_take(&x->taken)) < x->items->n;)
        if (has_queries(x->items, b) && !is_large(x, b)) x->compute(x->context, b, &alone);
}

void qkv_items_run(const qkv_items *items, const qkv_team *team, bool in_order,
                   void (*compute)(void *context, ptrdiff_t b, const qkv_team *team), void *context)
{
    job x = {.items = items,
             .threads = team->threads,
             .in_order = in_order,
             .compute = compute,
             .context = context};
    const qkv_team all = {.threads = team->threads, .memory = team->memory + team->common};
    for (ptrdiff_t b = 0; b < items->n; b++)
        if (has_queries(items, b) && is_large(&x, b)) compute(context, b, &all);
    if (!in_order) qkv_team_run(team, team->threads, run_small, &x);
}
