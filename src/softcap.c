/* softcap.c - scores are kept within (-c, c), between the first stage and the second. */
#include "simd/tanh.h"
#include "tile.h"

real IN(qkv_softcap_of)(const FN(qkv_block) *t)
{
    double c = t->in->a.softcap;
    return (real)(t->base_2 ? c * LOG2E : c);
}

void IN(qkv_softcap)(const FN(qkv_block) *t, real *s, int n)
{
    if (t->in->a.softcap == 0) return;
    real c = IN(qkv_softcap_of)(t), inverse = 1 / c;
    for (int j = 0; j < n; j++)
        for (int x = j * QKV_LANES; x < j * QKV_LANES + t->vectors * QKV_VEC; x += QKV_VEC)
            store(s + x, tanh_of(load(s + x) * inverse) * c);
}
