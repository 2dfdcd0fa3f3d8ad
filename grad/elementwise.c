#include "grad/elementwise.h"
#include "src/real.h"

qkv_status FN(qkv_unary_forward)(qkv_tape *tape, qkv_node *node)
{
    const FN(qkv_unary) *kernel = qkv_op_of(tape, node)->kernel;
    kernel->forward(node->value, qkv_input(tape, node, 0)->value, node->size);
    return QKV_OK;
}

qkv_status FN(qkv_unary_backward)(qkv_tape *tape, qkv_node *node)
{
    const FN(qkv_unary) *kernel = qkv_op_of(tape, node)->kernel;
    const qkv_node *x = qkv_input(tape, node, 0);
    kernel->backward(x->gradient, node->gradient, x->value, node->value, node->size);
    return QKV_OK;
}

/* The axes of a broadcast, innermost first, with neighbours merged wherever both operands allow:
 * equal shapes are one axis, a bias added to rows two. */
typedef struct walk {
    int n;
    size_t dim[QKV_MAX_RANK], a[QKV_MAX_RANK], b[QKV_MAX_RANK]; /* sizes, and strides in elements */
} walk;

static size_t size_at(const qkv_node *x, int from_right)
{
    return from_right < x->rank ? (size_t)x->dim[x->rank - 1 - from_right] : 1;
}

static walk plan(const qkv_node *y, const qkv_node *a, const qkv_node *b)
{
    walk w = {.n = 0};
    size_t a_stride = 1, b_stride = 1;
    for (int i = 0; i < y->rank; i++) {
        size_t n = size_at(y, i), a_n = size_at(a, i), b_n = size_at(b, i);
        size_t a_step = a_n == 1 ? 0 : a_stride, b_step = b_n == 1 ? 0 : b_stride;
        a_stride *= a_n;
        b_stride *= b_n;
        if (n == 1) continue;
        int last = w.n - 1;
        bool merges =
            last >= 0 && a_step == w.a[last] * w.dim[last] && b_step == w.b[last] * w.dim[last];
        if (merges) {
            w.dim[last] *= n;
            continue;
        }
        w.dim[w.n] = n;
        w.a[w.n] = a_step;
        w.b[w.n++] = b_step;
    }
    if (w.n == 0) w = (walk){.n = 1, .dim = {1}};
    return w;
}

/* Calls the kernel for every run along the innermost axis. */
static void each_run(const walk *w, FN(qkv_run) r, void (*kernel)(const FN(qkv_run) *))
{
    size_t index[QKV_MAX_RANK] = {0}, a = 0, b = 0, y = 0;
    const FN(qkv_run) base = r;
    r.n = w->dim[0];
    r.a_step = w->a[0];
    r.b_step = w->b[0];
    for (;;) {
        r.a = base.a + a;
        r.b = base.b + b;
        r.y = base.y ? base.y + y : NULL;
        r.dy = base.dy ? base.dy + y : NULL;
        r.da = base.da ? base.da + a : NULL;
        r.db = base.db ? base.db + b : NULL;
        kernel(&r);
        y += r.n;
        int i = 1;
        for (; i < w->n; i++) { /* an odometer over the outer axes */
            a += w->a[i];
            b += w->b[i];
            if (++index[i] < w->dim[i]) break;
            a -= w->a[i] * w->dim[i];
            b -= w->b[i] * w->dim[i];
            index[i] = 0;
        }
        if (i >= w->n) return;
    }
}

qkv_status FN(qkv_binary_forward)(qkv_tape *tape, qkv_node *node)
{
    const FN(qkv_binary) *kernel = qkv_op_of(tape, node)->kernel;
    const qkv_node *a = qkv_input(tape, node, 0), *b = qkv_input(tape, node, 1);
    if (node->size == 0) return QKV_OK;
    walk w = plan(node, a, b);
    each_run(&w, (FN(qkv_run)){.a = a->value, .b = b->value, .y = node->value}, kernel->forward);
    return QKV_OK;
}

qkv_status FN(qkv_binary_backward)(qkv_tape *tape, qkv_node *node)
{
    const FN(qkv_binary) *kernel = qkv_op_of(tape, node)->kernel;
    const qkv_node *a = qkv_input(tape, node, 0), *b = qkv_input(tape, node, 1);
    if (node->size == 0) return QKV_OK;
    walk w = plan(node, a, b);
    const FN(qkv_run) r = {.a = a->value,
                           .b = b->value,
                           .dy = node->gradient,
                           .da = qkv_input_gradient(tape, node, 0),
                           .db = qkv_input_gradient(tape, node, 1)};
    each_run(&w, r, kernel->backward);
    return QKV_OK;
}
