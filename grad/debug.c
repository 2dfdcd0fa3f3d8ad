/* debug.c - what qkv_tape_debug asks for: values that change behind the tape's back, and where the
 * first NaN came from. */
#include <math.h>
#include <string.h>

#include "grad/tape.h"

/* FNV-1a over the bytes, eight at a time. */
uint64_t qkv_debug_hash(uint64_t hash, const void *value, size_t bytes)
{
    const unsigned char *byte = value;
    uint64_t word;
    size_t at = 0;
    for (; at + sizeof word <= bytes; at += sizeof word) {
        memcpy(&word, byte + at, sizeof word);
        hash = (hash ^ word) * 0x100000001b3;
        hash ^= hash >> 32;
    }
    for (; at < bytes; at++) hash = (hash ^ byte[at]) * 0x100000001b3;
    return hash;
}

static uint64_t checksum_of(const qkv_tape *tape, const qkv_node *node)
{
    const qkv_op *op = qkv_op_of(tape, node);
    uint64_t hash = op->borrowed ? op->borrowed(node) : 0xcbf29ce484222325;
    return qkv_debug_hash(hash, node->value, node->size * qkv_element(tape));
}

/* The first NaN of size numbers; size if there is none. */
static size_t find_nan(const qkv_tape *tape, const void *numbers, size_t size)
{
    size_t i = 0;
    if (tape->dtype == QKV_F32)
        while (i < size && !isnan(((const float *)numbers)[i])) i++;
    else
        while (i < size && !isnan(((const double *)numbers)[i])) i++;
    return i;
}

static bool input_has_nan(const qkv_tape *tape, const qkv_node *node)
{
    for (int i = 0; i < node->n_input; i++) {
        const qkv_node *x = qkv_input(tape, node, i);
        if (find_nan(tape, x->value, x->size) < x->size) return true;
    }
    return false;
}

qkv_status qkv_debug_recorded(qkv_tape *tape, qkv_node *node)
{
    node->checksum = checksum_of(tape, node);
    size_t i = find_nan(tape, node->value, node->size);
    if (i == node->size || input_has_nan(tape, node)) return QKV_OK;
    return qkv_node_fail(tape, node, QKV_E_DOMAIN,
                         "element %zu of its value is NaN, and its inputs have none", i);
}

qkv_status qkv_debug_unchanged(qkv_tape *tape, uint32_t n_nodes)
{
    for (uint32_t n = 0; n < n_nodes; n++) {
        const qkv_node *node = &tape->nodes[n];
        if (node->checksum && node->checksum != checksum_of(tape, node))
            return qkv_node_fail(tape, node, QKV_E_STATE,
                                 "its value, or an array it was given, has changed since it was "
                                 "recorded; gradients would be "
                                 "of another function than the one computed");
    }
    return QKV_OK;
}

qkv_status qkv_debug_swept(qkv_tape *tape, const qkv_node *node)
{
    if (find_nan(tape, node->gradient, node->size) < node->size) return QKV_OK;
    for (int i = 0; i < node->n_input && !tape->status; i++) {
        const qkv_node *x = qkv_input(tape, node, i);
        size_t at = x->gradient ? find_nan(tape, x->gradient, x->size) : x->size;
        if (at < x->size)
            qkv_node_fail(tape, node, QKV_E_DOMAIN,
                          "element %zu of its gradient by input %d is NaN, and the gradient of its "
                          "value has none",
                          at, i);
    }
    return tape->status;
}

void qkv_tape_debug(qkv_tape *tape, bool on)
{
    if (tape) tape->debug = on;
}
