/* compute.h - the library's answer to a problem, whatever the dtype, laid out in any way. */
#ifndef QKV_TESTS_COMPUTE_H
#define QKV_TESTS_COMPUTE_H

#include "problem.h"

typedef enum layout {
    LAYOUT_PACKED,     /* strides left to their default */
    LAYOUT_ROWS_FIRST, /* [batch, row, head, column], as projections leave it */
    LAYOUT_PADDED,     /* gaps along every axis */
    LAYOUT_REVERSED,   /* negative strides, padded rows */
    LAYOUT_COLUMNS,    /* columns strided, rows adjacent */
    LAYOUTS
} layout;

enum { ALL_GRADIENTS = (1 << OPERANDS) - 1 };

/* The user's score of all tests, with two parameters. */
extern const qkv_user_score_f32 test_score_f32;
extern const qkv_user_score_f64 test_score_f64;

/* Forward, then backward, of p: arrays converted to p->dtype, laid out, computed, and read back.
 * Checks on the way that inputs and everything between the elements keep their bits. gradients:
 * bits 1 << operand of those wanted; 0 runs forward only. y is from answer_new; gradients not
 * wanted hold gradient_start. lse is asked for and d_lse used only where the normaliser has them.
 * The status is forward's, if that failed, else backward's. Workspace memory starts as NaN. */
qkv_status compute(const problem *p, layout where, int gradients, answer *y);

qkv_status compute_f32(const problem *p, layout where, int gradients, answer *y);
qkv_status compute_f64(const problem *p, layout where, int gradients, answer *y);

#endif
