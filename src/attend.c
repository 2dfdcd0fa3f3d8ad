/* attend.c - the common case in one call: packed arrays, its own workspace. */
#include "qkv/attention.h"

#include <stdlib.h>

#include "fail.h"
#include "team.h"
#include "tile.h"

qkv_status FN(qkv_attend)(const qkv_attention *a, const real *q, const real *k, const real *v,
                          real *o)
{
    qkv_attention filled;
    qkv_status status = qkv_problem_check("qkv_attend", a, sizeof(real), &filled);
    if (status) return status;
    size_t bytes = qkv_team_bytes(FN(qkv_forward_share)(&filled), 0, FN(qkv_forward_work)(&filled));
    void *workspace = malloc(bytes);
    if (!workspace)
        return qkv_fail(QKV_E_NOMEM, "qkv_attend: no memory for a workspace of %zu bytes", bytes);
    const FN(qkv_operands) in = {
        .q.data = (real *)q, .k.data = (real *)k, .v.data = (real *)v}; /* never written */
    const FN(qkv_results) out = {.o.data = o};
    status = FN(qkv_attention_forward)(a, &in, &out, workspace, bytes);
    free(workspace);
    return status;
}
