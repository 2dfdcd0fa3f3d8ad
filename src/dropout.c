/* dropout.c - between the third stage and the fourth: weights are dropped, or grow so that their
 * expectation stays. Which are, is a function of the pair's place in the problem and of the seed
 * alone, so that backward drops the same. */
#include "simd/philox.h"
#include "tile.h"

/* 0 where the word of a query's counter is below the limit, else the factor: one vector of queries
 * for the four keys of a group. */
INLINE void factors(const FN(qkv_block) *t, int lane, ptrdiff_t group, uint64_t limit, real factor,
                    vec to[4])
{
    enum { HALVES = QKV_VEC / QKV_WORDS }; /* of float, two 64-bit lanes share one */
    const qkv_attention *a = &t->in->a;
    uint64_t row = (uint64_t)((t->in->item + t->batch) * a->heads + t->head);
    wide c[HALVES][4];
    UNROLL
    for (int half = 0; half < HALVES; half++) {
        wide query = {0};
        for (int i = 0; i < QKV_WORDS; i++) query[i] = (uint64_t)(t->q0 + lane + i * HALVES + half);
        c[half][0] = query;
        c[half][1] = (wide){0} + (uint64_t)group;
        c[half][2] = (wide){0} + row;
        c[half][3] = (wide){0} + a->dropout_offset;
        philox(c[half], (uint32_t)a->dropout_seed, (uint32_t)(a->dropout_seed >> 32));
    }
    UNROLL
    for (int y = 0; y < 4; y++) {
        uint64_t low = 0xFFFFFFFF;
        wide drop = (wide)((c[0][y] & low) < limit);
        if (HALVES == 2) drop = (drop & low) | ((wide)((c[HALVES - 1][y] & low) < limit) & ~low);
        to[y] = choose((ivec)drop, splat(0), splat(factor));
    }
}

void IN(qkv_dropout)(const FN(qkv_block) *t, real *keep, real *w)
{
    double p = t->in->a.dropout;
    uint64_t limit = (uint64_t)(p * 0x1p32 + 0.5);
    real factor = p < 1 ? (real)(1 / (1 - p)) : 0;
    for (ptrdiff_t group = t->k0 / 4; group <= (t->k0 + t->n_k - 1) / 4; group++)
        for (int lane = 0; lane < t->vectors * QKV_VEC; lane += QKV_VEC) {
            vec f[4];
            factors(t, lane, group, limit, factor, f);
            for (int y = 0; y < 4; y++) {
                ptrdiff_t j = 4 * group + y - t->k0, x = j * QKV_LANES + lane;
                if (j < 0 || j >= t->n_k) continue;
                if (keep) store(keep + x, f[y]);
                if (w) store(w + x, choose(f[y] == 0, splat(0), load(w + x) * f[y]));
            }
        }
}

void IN(qkv_times_keep)(const FN(qkv_block) *t, const real *keep, real *x)
{
    for (int j = 0; j < t->n_k; j++)
        for (int y = j * QKV_LANES; y < j * QKV_LANES + t->vectors * QKV_VEC; y += QKV_VEC)
            store(x + y, choose(load(keep + y) == 0, splat(0), load(x + y) * load(keep + y)));
}
