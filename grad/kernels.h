/* kernels.h - mirror of src/kernels.h. */
#ifndef QKV_GRAD_KERNELS_H
#define QKV_GRAD_KERNELS_H

#include "grad/inputs.h"
#include "src/team.h"

typedef struct FN(qkv_backward_kernels) {
    ptrdiff_t (*pieces)(const qkv_attention *a);
    size_t (*share)(const qkv_attention *a);  /* bytes of workspace a thread */
    size_t (*common)(const qkv_attention *a); /* and for all of them */
    /* All gradients but those of scale, bandwidth, slopes and sink, whose parts are left in what is
     * common to the threads; the second adds them up. */
    void (*backward)(const FN(qkv_inputs) *in, const FN(qkv_gradients) *to, const qkv_team *team);
    void (*add_parameters)(const FN(qkv_inputs) *in, const FN(qkv_gradients) *to, void *common);
} FN(qkv_backward_kernels);

/* As FN(qkv_forward_kernels_of). */
const FN(qkv_backward_kernels) *FN(qkv_backward_kernels_of)(const char *who);

#endif
