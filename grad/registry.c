/* registry.c - ops.def as a table. An operation must have all that stands here, its check cases
 * included, or the library does not link. */
#include "grad/reverse.h"
#include "qkv/gradcheck.h"

#define QKV_OP(name)                                              \
    extern const qkv_op qkv_op_##name##_f32, qkv_op_##name##_f64; \
    extern const qkv_op_case qkv_cases_##name[];                  \
    void qkv_differentiate_##name(qkv_tape *tape, const qkv_reverse *reverse);
#include "grad/ops.def"
#undef QKV_OP

const qkv_registered qkv_registry[QKV_OP_COUNT] = {
#define QKV_OP(name)                               \
    {#name,                                        \
     {&qkv_op_##name##_f32, &qkv_op_##name##_f64}, \
     qkv_cases_##name,                             \
     qkv_differentiate_##name},
#include "grad/ops.def"
#undef QKV_OP
};

int qkv_op_count(void)
{
    return QKV_OP_COUNT;
}

const char *qkv_op_name(int op)
{
    return op >= 0 && op < QKV_OP_COUNT ? qkv_registry[op].name : NULL;
}
