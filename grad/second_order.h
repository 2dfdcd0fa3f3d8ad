/* second_order.h - what one instruction set offers to the calls of second.c. */
#ifndef QKV_GRAD_SECOND_ORDER_H
#define QKV_GRAD_SECOND_ORDER_H

#include "grad/inputs.h"
#include "src/team.h"

/* Inputs are checked and at least one query exists. u: the tangents, of which the operands only. */
typedef struct FN(qkv_second_kernels) {
    ptrdiff_t (*pieces)(const qkv_attention *a);
    size_t (*jvp_share)(const qkv_attention *a);
    void (*jvp)(const FN(qkv_inputs) *in, const FN(qkv_gradients) *u, const FN(qkv_gradients) *to,
                const FN(qkv_outputs) *out, const qkv_team *team);
    size_t (*share)(const qkv_attention *a);
    size_t (*common)(const qkv_attention *a);
    void (*backward)(const FN(qkv_inputs) *in, const FN(qkv_gradients) *u,
                     const FN(qkv_gradients) *to, const FN(qkv_outputs) *dd_out,
                     const qkv_team *team);
} FN(qkv_second_kernels);

/* As FN(qkv_forward_kernels_of). */
const FN(qkv_second_kernels) *FN(qkv_second_kernels_of)(const char *who);

#endif
