/* kernels.h - what one instruction set offers to the calls of attend.c. */
#ifndef QKV_SRC_KERNELS_H
#define QKV_SRC_KERNELS_H

#include "inputs.h"
#include "summary.h"
#include "team.h"

/* Inputs and outputs are checked and at least one query exists; the team has its memory. The passes
 * return the number of rows that see keys but none within their kernel's support. */
typedef struct FN(qkv_forward_kernels) {
    /* Pieces for threads; bytes of workspace of a thread and for all, SIZE_MAX on overflow. */
    ptrdiff_t (*forward_pieces)(const qkv_attention *a);
    size_t (*forward_share)(const qkv_attention *a);
    size_t (*forward_common)(const qkv_attention *a);
    ptrdiff_t (*forward)(const FN(qkv_inputs) *in, const FN(qkv_outputs) *out,
                         const qkv_team *team);
    ptrdiff_t (*covariance_pieces)(const qkv_attention *a);
    size_t (*covariance_share)(const qkv_attention *a);
    size_t (*summary_share)(const qkv_attention *a);
    size_t (*summary_common)(const qkv_attention *a);
    void (*summarize)(const FN(qkv_inputs) *in, const FN(qkv_summary_views) *out,
                      const qkv_team *team);
    ptrdiff_t (*covariance)(const FN(qkv_inputs) *in, const FN(qkv_view) *to, const qkv_team *team);
} FN(qkv_forward_kernels);

/* Those of the instruction set in force; NULL, and an error, if QKV_ISA asks for what is not there.
 */
const FN(qkv_forward_kernels) *FN(qkv_forward_kernels_of)(const char *who);

/* The number of pieces that is worth threads of their own: fewer if they are tiny. work: of all
 * pieces together, as qkv_work_of counts it. */
ptrdiff_t FN(qkv_work)(const qkv_attention *a, ptrdiff_t pieces);
ptrdiff_t FN(qkv_worth)(double work, ptrdiff_t pieces);

/* QKV_E_DOMAIN under QKV_EMPTY_ERROR if rows are empty (as the passes count them). */
qkv_status FN(qkv_check_empty)(const char *who, const qkv_attention *a, ptrdiff_t empty);

#endif
