/* second_order.h - how attention's answers and gradients move when its inputs do: products with the
 * Jacobian and with second derivatives, in memory linear in n_q + n_k.
 *
 * For the softmax of every score but a user's, with all masks, biases, sinks, softcap, dropout and
 * grouped heads; QKV_E_ARG for the rest. Scores that have corners (Laplace) count as straight on
 * both sides. Bits depend neither on the number of threads nor on strides. */
#ifndef QKV_SECOND_ORDER_H
#define QKV_SECOND_ORDER_H

#include "attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Forward mode: the Jacobian-vector product
 *
 *     o'_i = sum_j alpha_ij (v'_j + (s'_ij - lse'_i) v_j),   lse'_i = sum_j alpha_ij s'_ij
 *
 * along the tangents of q, k, v, bias, scale, bandwidth, w, slopes and sink, where s' is that of
 * score and bias (Baydin et al. 2018, section 3.1, for the notion). tangent: a slot without data is
 * 0; what is no slot of numbers is ignored. saved: the o, row_max and row_log_sum that forward
 * wrote for these inputs. d_result: o and lse are overwritten, either may be absent, not both; the
 * others must be absent. Workspace: pass QKV_JVP. Errors as qkv_attention_backward_f32. */
QKV_API qkv_status qkv_attention_jvp_f32(const qkv_attention *a, const qkv_operands_f32 *in,
                                         const qkv_results_f32 *saved,
                                         const qkv_operands_f32 *tangent,
                                         const qkv_results_f32 *d_result, void *workspace,
                                         size_t workspace_bytes);
QKV_API qkv_status qkv_attention_jvp_f64(const qkv_attention *a, const qkv_operands_f64 *in,
                                         const qkv_results_f64 *saved,
                                         const qkv_operands_f64 *tangent,
                                         const qkv_results_f64 *d_result, void *workspace,
                                         size_t workspace_bytes);

/* The gradient of phi = <u, gradients that backward gives for d_out>: what a second backward passes
 * on. With d_out = the gradient of a loss, d_in += the product of its Hessian (as far as it is
 * attention's) with u. u: as tangent above, for the gradients of the inputs of the same names.
 * d_in: slots with data receive += d phi / d input. dd_out: its o and lse, if they have data,
 * receive += d phi / d d_out, which is the Jacobian-vector product along u. A row pass finds
 *
 *     o'_i, lse'_i along u,   r_i = dO_i'o'_i,   delta_i = dO_i'o_i - dlse_i
 *
 * and a second one, with dw = dO_i'v_j, the derivatives by scores, d phi / ds' = alpha (dw - delta)
 * and d phi / ds = alpha (dO_i'u_v_j + (s' - lse')(dw - delta) - r). Workspace: pass
 * QKV_DOUBLE_BACKWARD. Errors as qkv_attention_backward_f32. */
QKV_API qkv_status qkv_attention_double_backward_f32(
    const qkv_attention *a, const qkv_operands_f32 *in, const qkv_results_f32 *saved,
    const qkv_results_f32 *d_out, const qkv_operands_f32 *u, const qkv_operands_f32 *d_in,
    const qkv_results_f32 *dd_out, void *workspace, size_t workspace_bytes);
QKV_API qkv_status qkv_attention_double_backward_f64(
    const qkv_attention *a, const qkv_operands_f64 *in, const qkv_results_f64 *saved,
    const qkv_results_f64 *d_out, const qkv_operands_f64 *u, const qkv_operands_f64 *d_in,
    const qkv_results_f64 *dd_out, void *workspace, size_t workspace_bytes);

#ifdef __cplusplus
}
#endif
#endif
