/* merge.c - mirror of src/merge.c. With w the share of a shard, o = sum w o_shard:
 *
 *     d o_shard   += w do
 *     d lse_shard += w (do'(o_shard - o) + dlse) */
#include "src/fail.h"
#include "src/merge.h"
#include "src/real.h"

static void add(const FN(qkv_partial) *to, ptrdiff_t i, ptrdiff_t d_v, real weight, const real *x,
                const real *other, real other_weight, const FN(qkv_partial) *d_out)
{
    if (!to || weight == 0) return;
    const real *d_o = d_out->o ? d_out->o + i * d_v : NULL;
    real slope = d_out->lse ? d_out->lse[i] : 0;
    for (ptrdiff_t c = 0; d_o && c < d_v; c++) {
        /* x - o, of which o's own part in x cancels. */
        slope += other_weight == 0 ? 0 : d_o[c] * other_weight * (x[c] - other[c]);
        if (to->o) to->o[i * d_v + c] += weight * d_o[c];
    }
    if (to->lse) to->lse[i] += weight * slope;
}

qkv_status FN(qkv_attention_merge_backward)(ptrdiff_t rows, ptrdiff_t d_v, const FN(qkv_partial) *a,
                                            const FN(qkv_partial) *b, const FN(qkv_partial) *d_out,
                                            const FN(qkv_partial) *d_a, const FN(qkv_partial) *d_b)
{
    static const char *const names[] = {"a", "b"};
    const FN(qkv_partial) *const parts[] = {a, b};
    static const char who[] = "qkv_attention_merge_backward";
    qkv_status status = FN(qkv_merge_check)(who, rows, d_v, parts, names, 2);
    if (!status && rows && !d_out) status = qkv_fail(QKV_E_ARG, "%s: d_out is NULL", who);
    for (ptrdiff_t i = 0; !status && i < rows; i++) {
        FN(qkv_shares) w = FN(qkv_shares_of)(a->lse[i], b->lse[i]);
        const real *x = a->o + i * d_v, *y = b->o + i * d_v;
        add(d_a, i, d_v, w.a, x, y, w.b, d_out);
        add(d_b, i, d_v, w.b, y, x, w.a, d_out);
    }
    return status;
}
