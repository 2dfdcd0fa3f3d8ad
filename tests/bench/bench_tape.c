/* bench_tape.c - what the tape costs: bytes, nanoseconds and mallocs a node, and a network's
 * training step against the same matrix products without a tape. See --help. */
#include <cblas.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "measure.h"
#include "qkv/optim.h"
#include "qkv/tape.h"

/* ---- Every allocation is counted: the linker sends the library's calls here (CMakeLists.txt). */

static size_t mallocs;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t n, size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void *__real_aligned_alloc(size_t align, size_t bytes);

void *__wrap_malloc(size_t bytes)
{
    return mallocs++, __real_malloc(bytes);
}

void *__wrap_calloc(size_t n, size_t bytes)
{
    return mallocs++, __real_calloc(n, bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
    return mallocs++, __real_realloc(old, bytes);
}

void *__wrap_aligned_alloc(size_t align, size_t bytes)
{
    return mallocs++, __real_aligned_alloc(align, bytes);
}

static void check(qkv_status status)
{
    if (status) die("%s: %s", qkv_status_name(status), qkv_last_error());
}

/* ---- A chain of nodes --------------------------------------------------------------------------
 */

typedef struct chain {
    const char *name;
    qkv_var (*link)(qkv_tape *t, qkv_var x, qkv_var c);
    ptrdiff_t size; /* of each node; 0: a scalar */
} chain;

static qkv_var link_neg(qkv_tape *t, qkv_var x, qkv_var c)
{
    (void)c;
    return qkv_neg(t, x);
}

static qkv_var link_tanh(qkv_tape *t, qkv_var x, qkv_var c)
{
    (void)c;
    return qkv_tanh(t, x);
}

static const chain chains[] = {
    {"neg of a scalar", link_neg, 0},   {"tanh of a scalar", link_tanh, 0},
    {"add of scalars", qkv_add, 0},     {"mul of scalars", qkv_mul, 0},
    {"mul of 16 numbers", qkv_mul, 16},
};

enum { LONGEST = 16 };

/* Records n links; seconds of recording and of going back. */
static void run_chain(qkv_tape *t, const chain *c, size_t n, double seconds[2])
{
    static double x[LONGEST], one[LONGEST], dx[LONGEST];
    for (int i = 0; i < LONGEST; i++) x[i] = one[i] = 1;
    const qkv_shape shape = c->size ? qkv_shape1(c->size) : qkv_scalar();
    double start = seconds_now();
    qkv_var y = qkv_leaf_f64(t, shape, x, dx), by = qkv_leaf_f64(t, shape, one, NULL);
    for (size_t i = 0; i < n; i++) y = c->link(t, y, by);
    if (c->size) y = qkv_sum(t, y, NULL, 0, false);
    double middle = seconds_now();
    check(qkv_backward(t, y));
    seconds[0] = middle - start;
    seconds[1] = seconds_now() - middle;
}

static void measure_chain(const chain *c, size_t n, int repeats)
{
    qkv_tape *t;
    double *forward = memory_for(2 * (size_t)repeats * sizeof *forward),
           *backward = forward + repeats;
    check(qkv_tape_new(&t, QKV_F64));
    double first[2], both[2];
    run_chain(t, c, n, first);
    qkv_tape_reset(t);
    run_chain(t, c, n, both); /* in the memory it keeps from now on */
    double bytes = (double)qkv_tape_bytes(t) / (double)n;
    mallocs = 0;
    for (int i = 0; i < repeats; i++) {
        qkv_tape_reset(t);
        run_chain(t, c, n, both);
        forward[i] = both[0];
        backward[i] = both[1];
    }
    const double scale = 1e9 / (double)n;
    printf("%-20s %8.1f %9.1f %9.1f %9.1f %9.1f %8zu\n", c->name, bytes,
           scale * (first[0] + first[1]), scale * median(forward, repeats),
           scale * median(backward, repeats),
           scale * (median(forward, repeats) + median(backward, repeats)), mallocs);
    qkv_tape_free(t);
    free(forward);
}

/* ---- A network: batch x width, layers of f(h w + b), mean squared error, Adam ------------------
 */

enum { LAYERS = 3 };

typedef struct network {
    qkv_var (*activation)(qkv_tape *t, qkv_var x);
    qkv_tape *tape;
    qkv_optimizer *optimizer;
    ptrdiff_t batch, width;
    float *x, *target;
    float *parameters, *gradients; /* of each layer: w [width, width], b [width] */
    float *product;                /* for the products without a tape */
} network;

static float *numbers(ptrdiff_t n, float scale)
{
    float *x = memory_for((size_t)n * sizeof *x);
    for (ptrdiff_t i = 0; i < n; i++) x[i] = scale * (float)((i * 7919) % 1009 - 504) / 504;
    return x;
}

static network network_new(qkv_var (*activation)(qkv_tape *, qkv_var), ptrdiff_t batch,
                           ptrdiff_t width)
{
    const ptrdiff_t parameters = LAYERS * (width + 1) * width;
    network n = {.activation = activation,
                 .batch = batch,
                 .width = width,
                 .x = numbers(batch * width, 1),
                 .target = numbers(batch * width, 0.5F),
                 .parameters = numbers(parameters, 0.1F),
                 .gradients = numbers(parameters, 0),
                 .product = numbers((batch + width) * width, 0)};
    check(qkv_tape_new(&n.tape, QKV_F32));
    check(qkv_adam_new(&n.optimizer, NULL));
    check(qkv_optimizer_add_f32(n.optimizer, n.parameters, n.gradients, (size_t)parameters));
    return n;
}

static void network_free(network *n)
{
    free(n->x), free(n->target), free(n->parameters), free(n->gradients), free(n->product);
    qkv_optimizer_free(n->optimizer);
    qkv_tape_free(n->tape);
}

static void train(void *state)
{
    const network *n = state;
    qkv_tape *t = n->tape;
    const qkv_shape data = qkv_shape2(n->batch, n->width), square = qkv_shape2(n->width, n->width);
    float *parameter = n->parameters, *gradient = n->gradients;
    qkv_var h = qkv_leaf_f32(t, data, n->x, NULL);
    for (int l = 0; l < LAYERS; l++) {
        qkv_var w = qkv_leaf_f32(t, square, parameter, gradient);
        parameter += n->width * n->width, gradient += n->width * n->width;
        qkv_var b = qkv_leaf_f32(t, qkv_shape1(n->width), parameter, gradient);
        parameter += n->width, gradient += n->width;
        h = n->activation(t, qkv_add(t, qkv_matmul(t, h, w), b));
    }
    check(qkv_backward(t, qkv_mse(t, h, qkv_leaf_f32(t, data, n->target, NULL))));
    check(qkv_optimizer_step(n->optimizer));
    qkv_optimizer_zero_gradients(n->optimizer);
    qkv_tape_reset(t);
}

/* The step's matrix products alone, without a tape: h w, h' dy, and, but for the first layer, dy
 * w'. */
static void multiply(void *state)
{
    const network *n = state;
    const int batch = (int)n->batch, width = (int)n->width;
    float *y = n->product, *dw = y + n->batch * n->width;
    for (int l = 0; l < LAYERS; l++) {
        const float *w = n->parameters + l * (n->width + 1) * n->width;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, batch, width, width, 1, n->x, width,
                    w, width, 0, y, width);
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, width, width, batch, 1, n->x, width,
                    n->target, width, 0, dw, width);
        if (l == 0) continue;
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, batch, width, width, 1, n->target,
                    width, w, width, 0, y, width);
    }
}

static void measure_network(bool smooth, ptrdiff_t batch, ptrdiff_t width, int repeats)
{
    network n = network_new(smooth ? qkv_tanh : qkv_relu, batch, width);
    double *step = memory_for(2 * (size_t)repeats * sizeof *step), *products = step + repeats;
    train(&n);
    train(&n);
    multiply(&n);
    mallocs = 0;
    for (int i = 0; i < repeats; i++) {
        step[i] = seconds_per_call(train, &n, 5e-3);
        products[i] = seconds_per_call(multiply, &n, 5e-3);
    }
    const double flops = 2 * (double)(3 * LAYERS - 1) * (double)(batch * width * width);
    const double seconds = median(step, repeats), alone = median(products, repeats);
    printf("%s %4td x %-4td %11.2f %11.2f %9.2f %9.2f %9.3f %8zu\n", smooth ? "tanh" : "relu",
           batch, width, 1e6 * seconds, 1e6 * alone, flops / seconds / 1e9, flops / alone / 1e9,
           alone / seconds, mallocs);
    free(step);
    network_free(&n);
}

static void usage(void)
{
    puts("Usage: bench_tape [--quick | --help]\n"
         "What the tape costs. First, a chain of a million nodes (--quick: a thousand): bytes held "
         "for each,\n"
         "nanoseconds for each (the first time on a new tape; then, the median of 9 times in the "
         "memory it\n"
         "has: forward, backward, both), and mallocs in all of those 9. Then a training step of a "
         "network of\n"
         "3 layers f(h w + b) with Adam, against its matrix products without a tape (both in "
         "microseconds\n"
         "and GFLOP/s of the products; fraction: products / step).");
}

int main(int argc, char **argv)
{
    const bool quick = argc == 2 && !strcmp(argv[1], "--quick");
    if (argc == 2 && !strcmp(argv[1], "--help")) return usage(), 0;
    if (argc > 1 + quick) die("bench_tape: '%s' is not an option; see --help", argv[1]);
    const size_t n = quick ? 1000 : 1000000;
    const int repeats = quick ? 1 : 9;
    printf("%-20s %8s %9s %9s %9s %9s %8s\n", "chain, a node", "bytes", "first ns", "forward",
           "backward", "both", "mallocs");
    for (size_t i = 0; i < sizeof chains / sizeof *chains; i++)
        measure_chain(&chains[i], n, repeats);
    printf("\n%-16s %11s %11s %9s %9s %9s %8s\n", "    batch x width", "step us", "products us",
           "GFLOP/s", "GFLOP/s", "fraction", "mallocs");
    for (int smooth = 0; smooth <= 1; smooth++)
        for (ptrdiff_t width = 16; width <= (quick ? 16 : 256); width *= 2)
            measure_network(smooth, 64, width, repeats);
    return 0;
}
