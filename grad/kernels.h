/* kernels.h - mirror of src/kernels.h. */
#ifndef QKV_GRAD_KERNELS_H
#define QKV_GRAD_KERNELS_H

#include "grad/inputs.h"
#include "src/team.h"

typedef struct FN(qkv_backward_kernels) {
    ptrdiff_t (*pieces)(const qkv_attention *a);
    size_t (*share)(const qkv_attention *a);  /* bytes of workspace a thread */
    size_t (*common)(const qkv_attention *a); /* and for all of them */
    void (*backward)(const FN(qkv_inputs) *in, const FN(qkv_gradients) *to, const qkv_team *team);
} FN(qkv_backward_kernels);

#endif
