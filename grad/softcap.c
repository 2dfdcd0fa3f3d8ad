/* softcap.c - mirror of src/softcap.c: d c tanh(s / c) / ds = 1 - tanh^2. */
#include "grad/tile.h"

void IN(qkv_softcap_slope)(const FN(qkv_grad_block) *g, const real *s, int j, int n)
{
    real inverse = 1 / IN(qkv_softcap_of)(&g->t), *slope = g->slope + j * QKV_LANES;
    for (int x = 0; x < n * QKV_LANES; x += QKV_VEC) {
        vec r = load(s + x) * inverse;
        store(slope + x, (1 - r) * (1 + r));
    }
}
