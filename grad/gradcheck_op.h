/* gradcheck_op.h - all that one case of the registry is put through. */
#ifndef QKV_GRAD_GRADCHECK_OP_H
#define QKV_GRAD_GRADCHECK_OP_H

#include "grad/trial.h"

/* Changes gradients before they are judged: for the test of the judge. */
typedef struct qkv_corruption {
    void (*apply)(void *context, const qkv_trial *trial);
    void *context;
} qkv_corruption;

/* The elements of c's gradients, then all of them along random directions, then what a cotangent of
 * 0, a second backward, other uses of the inputs and floats make of them; report is overwritten,
 * its certificate that of the directions. corruption: NULL, or what happens to the gradients first,
 * which are then compared with differences alone. */
qkv_status qkv_gradcheck_trial(qkv_trial *c, const qkv_corruption *corruption,
                               qkv_check_report *report);

/* What of a case the message calls it by. */
static inline const char *qkv_case_name(int op, const qkv_op_case *test)
{
    return test->label ? test->label : qkv_op_name(op);
}

#endif
