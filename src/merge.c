/* merge.c - attention over two shards of the keys becomes attention over all of them. */
#include <string.h>

#include "fail.h"
#include "merge.h"
#include "real.h"

/* What is missing, or NULL. */
static const char *missing(ptrdiff_t d_v, const FN(qkv_partial) *x)
{
    return !x ? "NULL" : !x->o && d_v ? "without o" : !x->lse ? "without lse" : NULL;
}

qkv_status FN(qkv_merge_check)(const char *who, ptrdiff_t rows, ptrdiff_t d_v,
                               const FN(qkv_partial) *const parts[], const char *const names[],
                               int n)
{
    if (rows < 0 || d_v < 0)
        return qkv_fail(QKV_E_SHAPE, "%s: %td rows of %td, expected 0 or more of both", who, rows,
                        d_v);
    for (int i = 0; i < n && rows; i++) {
        const char *what = missing(d_v, parts[i]);
        if (what) return qkv_fail(QKV_E_ARG, "%s: %s is %s", who, names[i], what);
    }
    return QKV_OK;
}

FN(qkv_shares) FN(qkv_shares_of)(real a, real b)
{
    real most = a > b ? a : b;
    if (most == (real)-INFINITY) return (FN(qkv_shares)){0, 0, most};
    real ea = exp(a - most), eb = exp(b - most), sum = ea + eb; /* NaN stays NaN */
    return (FN(qkv_shares)){ea / sum, eb / sum, most + log(sum)};
}

qkv_status FN(qkv_attention_merge)(ptrdiff_t rows, ptrdiff_t d_v, const FN(qkv_partial) *a,
                                   const FN(qkv_partial) *b, const FN(qkv_partial) *out)
{
    static const char *const names[] = {"a", "b", "out"};
    const FN(qkv_partial) *const parts[] = {a, b, out};
    qkv_status status = FN(qkv_merge_check)("qkv_attention_merge", rows, d_v, parts, names, 3);
    for (ptrdiff_t i = 0; !status && i < rows; i++) {
        FN(qkv_shares) w = FN(qkv_shares_of)(a->lse[i], b->lse[i]);
        for (ptrdiff_t c = i * d_v; c < (i + 1) * d_v; c++)
            out->o[c] = FN(qkv_share)(w.a, a->o[c]) + FN(qkv_share)(w.b, b->o[c]);
        out->lse[i] = w.lse;
    }
    return status;
}
