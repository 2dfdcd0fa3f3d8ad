/* pool.c - mirror of src/pool.c: o = sum_j w_j v_j. */
#include "grad/tile.h"

/* dw[j][i] = sum_c v[j][c] d_o[c][i]. A hidden pair may get NaN here; normalize.c drops
 * it. dv is outer.c's. */
void IN(qkv_pool_backward)(FN(qkv_grad_block) *g)
{
    FN(qkv_block) *t = &g->t;
    IN(qkv_dot_tile)
    (&t->v, t->n_k, g->d_o, t->in->a.d_v, t->vectors, g->dw, t->tile_max, NULL);
}
