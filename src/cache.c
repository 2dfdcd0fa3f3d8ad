/* cache.c - keys and values that grow in place. */
#include "qkv/cache.h"

#include <string.h>

#include "fail.h"
#include "real.h"
#include "size.h"

static qkv_status check_sizes(const char *who, const FN(qkv_cache) *x)
{
    const struct {
        const char *name;
        ptrdiff_t value;
    } sizes[] = {{"batch", x->batch},
                 {"kv_heads", x->kv_heads},
                 {"capacity", x->capacity},
                 {"d_k", x->d_k},
                 {"d_v", x->d_v}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < 0)
            return qkv_fail(QKV_E_SHAPE, "%s: the cache's %s is %td, expected 0 or more", who,
                            sizes[i].name, sizes[i].value);
    for (int value = 0; value < 2; value++) {
        size_t bytes = sizeof(real);
        ptrdiff_t d = value ? x->d_v : x->d_k;
        bool fits = qkv_size_mul(&bytes, x->batch) && qkv_size_mul(&bytes, x->kv_heads) &&
                    qkv_size_mul(&bytes, x->capacity) && qkv_size_mul(&bytes, d);
        if (!fits || bytes > PTRDIFF_MAX)
            return qkv_fail(QKV_E_OVERFLOW, "%s: %s of %td x %td x %td x %td exceeds memory", who,
                            value ? "v" : "k", x->batch, x->kv_heads, x->capacity, d);
        if (bytes && !(value ? x->v : x->k))
            return qkv_fail(QKV_E_ARG, "%s: the cache's %s is NULL", who, value ? "v" : "k");
    }
    return QKV_OK;
}

static qkv_status check(const char *who, const FN(qkv_cache) *x)
{
    if (!x) return qkv_fail(QKV_E_ARG, "%s: the cache is NULL", who);
    qkv_status status = check_sizes(who, x);
    if (status) return status;
    if (x->batch && (!x->lengths || !x->offsets))
        return qkv_fail(QKV_E_ARG, "%s: the cache's %s is NULL", who,
                        x->lengths ? "offsets" : "lengths");
    for (ptrdiff_t b = 0; b < x->batch; b++)
        if (x->lengths[b] < 0 || x->lengths[b] > x->capacity)
            return qkv_fail(QKV_E_SHAPE,
                            "%s: lengths[%td] is %lld, expected 0 to the capacity, %td", who, b,
                            (long long)x->lengths[b], x->capacity);
    return QKV_OK;
}

/* New rows of one batch item behind its old ones. */
static void copy(const FN(qkv_cache) *x, ptrdiff_t b, ptrdiff_t n, const FN(qkv_slot) *slot,
                 ptrdiff_t d, real *cache)
{
    const ptrdiff_t packed[4] = {x->kv_heads * n * d, n * d, d, 1};
    const ptrdiff_t *stride = slot->strided ? slot->stride : packed;
    for (ptrdiff_t h = 0; h < x->kv_heads; h++)
        for (ptrdiff_t i = 0; i < n; i++) {
            const real *from = slot->data + b * stride[0] + h * stride[1] + i * stride[2];
            real *to =
                cache + ((b * x->kv_heads + h) * x->capacity + (ptrdiff_t)x->lengths[b] + i) * d;
            for (ptrdiff_t c = 0; c < d; c++) to[c] = from[c * stride[3]];
        }
}

qkv_status FN(qkv_cache_append)(const FN(qkv_cache) *x, ptrdiff_t n, const FN(qkv_slot) *k,
                                const FN(qkv_slot) *v)
{
    static const char who[] = "qkv_cache_append";
    qkv_status status = check(who, x);
    if (status) return status;
    if (n < 0) return qkv_fail(QKV_E_SHAPE, "%s: n is %td, expected 0 or more", who, n);
    bool rows = n && x->batch && x->kv_heads;
    if (rows && ((x->d_k && (!k || !k->data)) || (x->d_v && (!v || !v->data))))
        return qkv_fail(QKV_E_ARG, "%s: the new %s is NULL", who, !k || !k->data ? "k" : "v");
    for (ptrdiff_t b = 0; b < x->batch; b++)
        if (n > x->capacity - (ptrdiff_t)x->lengths[b])
            return qkv_fail(
                QKV_E_SHAPE,
                "%s: batch item %td has %lld rows of %td: there is no room for %td more", who, b,
                (long long)x->lengths[b], x->capacity, n);
    for (ptrdiff_t b = 0; b < x->batch; b++) {
        if (rows && x->d_k) copy(x, b, n, k, x->d_k, x->k);
        if (rows && x->d_v) copy(x, b, n, v, x->d_v, x->v);
        x->offsets[b] = x->lengths[b];
        x->lengths[b] += n;
    }
    return QKV_OK;
}

static FN(qkv_slot) slot_of(const FN(qkv_cache) *x, real *data, ptrdiff_t d)
{
    ptrdiff_t head = x->capacity * d;
    return (FN(qkv_slot)){
        .data = data, .strided = true, .stride = {x->kv_heads * head, head, d, 1}};
}

qkv_status FN(qkv_cache_bind)(const FN(qkv_cache) *x, qkv_attention *a, FN(qkv_operands) *in)
{
    static const char who[] = "qkv_cache_bind";
    qkv_status status = check(who, x);
    if (status) return status;
    if (!a || !in) return qkv_fail(QKV_E_ARG, "%s: %s is NULL", who, a ? "in" : "a");
    a->batch = x->batch;
    a->kv_heads = x->kv_heads;
    a->d_k = x->d_k;
    a->d_v = x->d_v;
    a->n_k = 0;
    for (ptrdiff_t b = 0; b < x->batch; b++)
        if (x->lengths[b] > a->n_k) a->n_k = (ptrdiff_t)x->lengths[b];
    in->k = slot_of(x, x->k, x->d_k);
    in->v = slot_of(x, x->v, x->d_v);
    in->lengths = x->lengths;
    in->causal_offsets = x->offsets;
    return QKV_OK;
}
