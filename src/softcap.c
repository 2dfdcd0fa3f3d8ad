/* softcap.c - scores are kept within (-c, c), between the first stage and the second. Backward asks
 * for the slope at the same time: d c tanh(s / c) / ds = 1 - tanh^2, of which the capped score
 * alone would know too little near +-c. */
#include "simd/tanh.h"
#include "tile.h"

void IN(qkv_softcap)(const FN(qkv_block) *t, real *s, int n, real *slope)
{
    double cap = t->in->a.softcap;
    if (cap == 0) return;
    real c = (real)(t->base_2 ? cap * LOG2E : cap), inverse = 1 / c;
    for (int j = 0; j < n; j++)
        for (int x = j * QKV_LANES; x < j * QKV_LANES + t->vectors * QKV_VEC; x += QKV_VEC) {
            vec r = tanh_of(load(s + x) * inverse);
            store(s + x, r * c);
            if (slope) store(slope + x, (1 - r) * (1 + r));
        }
}
