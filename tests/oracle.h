/* oracle.h - attention the slow obvious way, from the definitions in qkv/attention.h alone: one row
 * after the other, every sum a loop, in long double; gradients by the chain rule term by term, and
 * once more by complex step, which knows no derivation at all. */
#ifndef QKV_TESTS_ORACLE_H
#define QKV_TESTS_ORACLE_H

#include "problem.h"

/* Overwrites value (of answer_new). Gradients are gradient_start + d L with L = sum(d_o o) +
 * sum(d_lse lse). magnitude, of the same shape, receives what rounding errors are proportional to:
 * the same sums over absolute values, times 1 + the largest logit of the row. It is infinite or NaN
 * where one rounding may change the answer at all (a key at the edge of a kernel's support, two
 * equally good keys for QKV_HARD). */
void oracle_solve(const problem *p, answer *value, answer *magnitude);

/* dL/dx for one element of an operand, by complex step: Im L(x + ih) / h with h = 1e-30, exact to
 * rounding (Squire & Trapp 1998). */
double oracle_derivative(const problem *p, operand x, size_t index);

#endif
