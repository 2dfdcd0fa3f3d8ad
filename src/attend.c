/* attend.c - the common case in one call: packed arrays, its own workspace. */
#include "qkv/attention.h"

#include <stdlib.h>

#include "fail.h"
#include "real.h"

qkv_status FN(qkv_attend)(const qkv_attention *a, const real *q, const real *k, const real *v,
                          real *o)
{
    size_t bytes;
    qkv_status status = qkv_attention_workspace(a, QKV_FORWARD, REAL_DTYPE, &bytes);
    if (status) return status;
    void *workspace = bytes ? malloc(bytes) : NULL;
    if (bytes && !workspace)
        return qkv_fail(QKV_E_NOMEM, "qkv_attend: no memory for a workspace of %zu bytes", bytes);
    const FN(qkv_operands)
        in = {.q.data = (real *)q, .k.data = (real *)k, .v.data = (real *)v}; /* never written */
    const FN(qkv_results) out = {.o.data = o};
    status = FN(qkv_attention_forward)(a, &in, &out, workspace, bytes);
    free(workspace);
    return status;
}
