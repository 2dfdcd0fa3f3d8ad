/* print.c - the tape as text: one line a node, or Graphviz. */
#include "grad/tape.h"

#include <stdio.h>

/* Appends to text at *at, which never passes bytes - 1. */
static void append(char *text, size_t bytes, size_t *at, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void append(char *text, size_t bytes, size_t *at, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(text + *at, bytes - *at, format, arguments);
    va_end(arguments);
    if (n > 0) *at = *at + (size_t)n < bytes ? *at + (size_t)n : bytes - 1;
}

static const char *name_of(const qkv_node *node)
{
    return node->op == QKV_OP_user ? qkv_user_name(node) : qkv_registry[node->op].name;
}

void qkv_node_describe(const qkv_tape *tape, const qkv_node *node, char *text, size_t bytes)
{
    size_t at = 0;
    append(text, bytes, &at, "%%%td = %s(", node - tape->nodes, name_of(node));
    for (int i = 0; i < node->n_input; i++)
        if (qkv_input_index(node, i) < tape->n_nodes)
            append(text, bytes, &at, i ? ",%%%u" : "%%%u", (unsigned)qkv_input_index(node, i));
        else
            append(text, bytes, &at, i ? ",?" : "?");
    append(text, bytes, &at, ")");
}

void qkv_shape_describe(int rank, const ptrdiff_t *dim, char *text, size_t bytes)
{
    size_t at = 0;
    append(text, bytes, &at, "[");
    for (int i = 0; i < rank; i++) append(text, bytes, &at, i ? ",%td" : "%td", dim[i]);
    append(text, bytes, &at, "]");
}

static qkv_status finish(FILE *out, const char *who)
{
    if (fflush(out) || ferror(out)) return qkv_fail(QKV_E_IO, "%s: a write failed", who);
    return QKV_OK;
}

qkv_status qkv_tape_print(const qkv_tape *tape, FILE *out)
{
    if (!tape || !out) return qkv_fail(QKV_E_ARG, "qkv_tape_print: tape or out is NULL");
    for (uint32_t n = 0; n < tape->n_nodes; n++) {
        char shape[256];
        const qkv_node *node = &tape->nodes[n];
        qkv_shape_describe(node->rank, node->dim, shape, sizeof shape);
        fprintf(out, "%%%u = %s(", (unsigned)n, name_of(node));
        for (int i = 0; i < node->n_input; i++)
            fprintf(out, i ? ",%%%u" : "%%%u", (unsigned)qkv_input_index(node, i));
        fprintf(out, ") %s\n", shape);
    }
    return finish(out, "qkv_tape_print");
}

/* A name may be the user's: quotes and backslashes are escaped. */
static void print_label(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') fputc('\\', out);
        fputc(*text, out);
    }
}

qkv_status qkv_tape_dot(const qkv_tape *tape, FILE *out)
{
    if (!tape || !out) return qkv_fail(QKV_E_ARG, "qkv_tape_dot: tape or out is NULL");
    fprintf(out, "digraph tape {\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n");
    for (uint32_t n = 0; n < tape->n_nodes; n++) {
        char shape[256];
        const qkv_node *node = &tape->nodes[n];
        qkv_shape_describe(node->rank, node->dim, shape, sizeof shape);
        fprintf(out, "  n%u [label=\"%%%u ", (unsigned)n, (unsigned)n);
        print_label(out, name_of(node));
        fprintf(out, " %s\"%s];\n", shape, node->needs_gradient ? "" : ", color=gray");
        for (int i = 0; i < node->n_input; i++)
            fprintf(out, "  n%u -> n%u;\n", (unsigned)qkv_input_index(node, i), (unsigned)n);
    }
    fprintf(out, "}\n");
    return finish(out, "qkv_tape_dot");
}
