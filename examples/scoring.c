/* scoring - the attention functions of the chapters that follow, additive, scaled dot product and
 * multi-head, and what becomes of their gradients.
 *
 * First their own examples, of lengths that differ and values of other sizes than keys, against
 * plain loops, with NaN wherever a mask should hide. Then a task that needs two look-ups at once:
 * records have a colour, a shape and a number, and a query asks for the number of the record of
 * one colour and that of the record of one shape. A head has one set of weights for both; two heads
 * can look at two records. Last, the chapter's claim that the gradient of the softmax never
 * vanishes: its norm as the scale of the scores grows, beside that of other normalisers. */
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "qkv/attention.h"
#include "qkv/optim.h"
#include "qkv/plot.h"
#include "qkv/tape.h"
#include "src/random.h"

typedef struct settings {
    long steps, seed;
    const char *plot, *format;
} settings;

enum { WEIGHT, EXAMPLE, LENGTH, COLOUR, SHAPE, NUMBER, QUERY, SCALE }; /* random streams */

/* ---- A layer -----------------------------------------------------------------------------------
 */

enum { W_Q, W_K, W_V, W_O, W_SCORE, MATRICES };

/* Multi-head attention; with one head and identities for matrices, attention as it is. */
typedef struct layer {
    qkv_score score;
    ptrdiff_t heads, d_q, d_key, d_value; /* columns of what comes in */
    ptrdiff_t d_k, d_v, d_out;            /* of a head's keys and values, of what goes out */
    double *w[MATRICES], *gradient[MATRICES];
} layer;

static qkv_shape matrix_shape(const layer *l, int matrix)
{
    const qkv_shape shapes[] = {[W_Q] = qkv_shape2(l->d_q, l->heads * l->d_k),
                                [W_K] = qkv_shape2(l->d_key, l->heads * l->d_k),
                                [W_V] = qkv_shape2(l->d_value, l->heads * l->d_v),
                                [W_O] = qkv_shape2(l->heads * l->d_v, l->d_out),
                                [W_SCORE] = qkv_shape2(1, l->d_k)};
    return shapes[matrix];
}

/* Normal numbers, so that a product with a matrix is about as large as what it is of. */
static void make_layer(layer *l, long seed)
{
    for (int m = 0; m < MATRICES; m++) {
        qkv_shape shape = matrix_shape(l, m);
        ptrdiff_t n = shape.dim[0] * shape.dim[1];
        double size = 1 / sqrt((double)(m == W_SCORE ? l->d_k : shape.dim[0]));
        l->w[m] = allocate((size_t)n, sizeof(double));
        l->gradient[m] = allocate((size_t)n, sizeof(double));
        for (ptrdiff_t i = 0; i < n; i++)
            l->w[m][i] =
                size * qkv_random_normal((uint64_t)seed, (uint64_t)(10 * WEIGHT + m), (uint64_t)i);
    }
}

static void make_identity(const layer *l, int matrix)
{
    qkv_shape shape = matrix_shape(l, matrix);
    for (ptrdiff_t i = 0; i < shape.dim[0] * shape.dim[1]; i++)
        l->w[matrix][i] = i / shape.dim[1] == i % shape.dim[1];
}

static void free_layer(layer *l)
{
    for (int m = 0; m < MATRICES; m++) free(l->w[m]), free(l->gradient[m]);
}

/* Some sequences of records and their queries, [batch, n_q, d_q], [batch, n_k, d_key] .. */
typedef struct batch {
    ptrdiff_t n, n_q, n_k;
    double *q, *k, *v, *target;
    int64_t *lengths;
} batch;

static batch make_batch(const layer *l, ptrdiff_t n, ptrdiff_t n_q, ptrdiff_t n_k)
{
    return (batch){n,
                   n_q,
                   n_k,
                   allocate((size_t)(n * n_q * l->d_q), sizeof(double)),
                   allocate((size_t)(n * n_k * l->d_key), sizeof(double)),
                   allocate((size_t)(n * n_k * l->d_value), sizeof(double)),
                   allocate((size_t)(n * n_q * l->d_out), sizeof(double)),
                   allocate((size_t)n, sizeof(int64_t))};
}

static void free_batch(batch *b)
{
    free(b->q), free(b->k), free(b->v), free(b->target), free(b->lengths);
}

/* Records the layer's answers, [batch, n_q, d_out]. */
static qkv_var attend(qkv_tape *t, const layer *l, const batch *b)
{
    qkv_var w[MATRICES];
    for (int m = 0; m < MATRICES; m++) {
        qkv_shape shape = m == W_SCORE ? qkv_shape1(l->d_k) : matrix_shape(l, m);
        w[m] = m == W_SCORE && l->score != QKV_SCORE_ADDITIVE
                   ? (qkv_var){0}
                   : qkv_leaf_f64(t, shape, l->w[m], l->gradient[m]);
    }
    const qkv_multi_head_vars in = {
        .x_q = qkv_leaf_f64(t, qkv_shape3(b->n, b->n_q, l->d_q), b->q, NULL),
        .x_k = qkv_leaf_f64(t, qkv_shape3(b->n, b->n_k, l->d_key), b->k, NULL),
        .x_v = qkv_leaf_f64(t, qkv_shape3(b->n, b->n_k, l->d_value), b->v, NULL),
        .w_q = w[W_Q],
        .w_k = w[W_K],
        .w_v = w[W_V],
        .w_o = w[W_O],
        .attend = {.w = w[W_SCORE], .lengths = b->lengths}};
    return qkv_multi_head_attention(t, &(qkv_attention){.score = l->score, .heads = l->heads}, &in);
}

/* ---- The same as plain loops -------------------------------------------------------------------
 */

/* y [rows, m] = x [rows, n] w [n, m], to be freed. */
static double *multiply(const double *x, const double *w, ptrdiff_t rows, ptrdiff_t n, ptrdiff_t m)
{
    double *y = allocate((size_t)(rows * m), sizeof *y);
    for (ptrdiff_t i = 0; i < rows; i++)
        for (ptrdiff_t j = 0; j < n; j++)
            for (ptrdiff_t c = 0; c < m; c++) y[i * m + c] += x[i * n + j] * w[j * m + c];
    return y;
}

/* The score of a query and a key of one head. */
static double plain_score(const layer *l, const double *q, const double *k)
{
    double sum = 0;
    for (ptrdiff_t c = 0; c < l->d_k; c++)
        sum += l->score == QKV_SCORE_ADDITIVE ? l->w[W_SCORE][c] * tanh(q[c] + k[c]) : q[c] * k[c];
    return l->score == QKV_SCORE_ADDITIVE ? sum : sum / sqrt((double)l->d_k);
}

/* The softmax over the first n keys, [n_k]; 0 behind them. */
static void plain_weights(const layer *l, const double *q, const double *k, ptrdiff_t n,
                          ptrdiff_t n_k, double *weights)
{
    double most = -INFINITY, sum = 0;
    for (ptrdiff_t j = 0; j < n; j++) {
        weights[j] = plain_score(l, q, k + j * l->heads * l->d_k);
        most = fmax(most, weights[j]);
    }
    for (ptrdiff_t j = 0; j < n; j++) sum += weights[j] = exp(weights[j] - most);
    for (ptrdiff_t j = 0; j < n_k; j++) weights[j] = j < n ? weights[j] / sum : 0;
}

/* Answers [n_q, d_out] of one item of a batch, to be freed; weights [heads, n_q, n_k]. */
static double *plain_attend(const layer *l, const batch *b, ptrdiff_t item, double *weights)
{
    const ptrdiff_t keys = l->heads * l->d_k, values = l->heads * l->d_v, n = b->lengths[item];
    double *q = multiply(b->q + item * b->n_q * l->d_q, l->w[W_Q], b->n_q, l->d_q, keys);
    double *k = multiply(b->k + item * b->n_k * l->d_key, l->w[W_K], n, l->d_key, keys);
    double *v = multiply(b->v + item * b->n_k * l->d_value, l->w[W_V], n, l->d_value, values);
    double *o = allocate((size_t)(b->n_q * values), sizeof *o);
    for (ptrdiff_t head = 0; head < l->heads; head++)
        for (ptrdiff_t i = 0; i < b->n_q; i++) {
            double *w = weights + (head * b->n_q + i) * b->n_k;
            plain_weights(l, q + i * keys + head * l->d_k, k + head * l->d_k, n, b->n_k, w);
            for (ptrdiff_t j = 0; j < n; j++)
                for (ptrdiff_t c = head * l->d_v; c < (head + 1) * l->d_v; c++)
                    o[i * values + c] += w[j] * v[j * values + c];
        }
    double *y = multiply(o, l->w[W_O], b->n_q, values, l->d_out);
    free(q), free(k), free(v), free(o);
    return y;
}

/* ---- The chapters' examples --------------------------------------------------------------------
 */

static const struct example {
    const char *name;
    layer l;
    ptrdiff_t n_q, n_k;
    int64_t lengths[2];
    bool as_it_is; /* no projections but the score's own */
} examples[] = {{"scaled dot product",
                 {.score = QKV_SCORE_SCALED_DOT,
                  .heads = 1,
                  .d_q = 2,
                  .d_key = 2,
                  .d_value = 4,
                  .d_k = 2,
                  .d_v = 4,
                  .d_out = 4},
                 1,
                 10,
                 {2, 6},
                 true},
                {"additive",
                 {.score = QKV_SCORE_ADDITIVE,
                  .heads = 1,
                  .d_q = 20,
                  .d_key = 2,
                  .d_value = 4,
                  .d_k = 8,
                  .d_v = 4,
                  .d_out = 4},
                 1,
                 10,
                 {2, 6},
                 true},
                {"multi-head",
                 {.score = QKV_SCORE_SCALED_DOT,
                  .heads = 5,
                  .d_q = 100,
                  .d_key = 100,
                  .d_value = 100,
                  .d_k = 20,
                  .d_v = 20,
                  .d_out = 100},
                 4,
                 6,
                 {3, 2},
                 false}};
enum { EXAMPLES = sizeof examples / sizeof *examples };

/* Two items of random numbers, and NaN in all that lies behind their lengths. */
static batch fill_example(const struct example *e, long seed)
{
    batch b = make_batch(&e->l, 2, e->n_q, e->n_k);
    double *const data[] = {b.q, b.k, b.v};
    const ptrdiff_t rows[] = {e->n_q, e->n_k, e->n_k};
    const ptrdiff_t columns[] = {e->l.d_q, e->l.d_key, e->l.d_value};
    for (int x = 0; x < 3; x++)
        for (ptrdiff_t i = 0; i < 2 * rows[x] * columns[x]; i++) {
            ptrdiff_t row = i / columns[x] % rows[x], item = i / columns[x] / rows[x];
            bool hidden = x > 0 && row >= e->lengths[item];
            double z = qkv_random_normal((uint64_t)seed, (uint64_t)(10 * EXAMPLE + x), (uint64_t)i);
            data[x][i] = hidden ? (double)NAN : z;
        }
    memcpy(b.lengths, e->lengths, sizeof e->lengths);
    return b;
}

static void show_example(const struct example *e, long seed)
{
    layer l = e->l;
    make_layer(&l, seed);
    if (e->as_it_is) make_identity(&l, W_V), make_identity(&l, W_O);
    if (e->as_it_is && l.score != QKV_SCORE_ADDITIVE)
        make_identity(&l, W_Q), make_identity(&l, W_K);
    batch b = fill_example(e, seed);
    qkv_tape *t;
    check(qkv_tape_new(&t, QKV_F64));
    const double *o = qkv_value_f64(t, attend(t, &l, &b));
    if (!o) fail_with("%s", qkv_tape_error(t));
    double difference = 0;
    for (ptrdiff_t item = 0; item < 2; item++) {
        double *weights = allocate((size_t)(l.heads * e->n_q * e->n_k), sizeof *weights);
        double *y = plain_attend(&l, &b, item, weights);
        for (ptrdiff_t i = 0; i < e->n_q * l.d_out; i++) {
            double gap = fabs(o[item * e->n_q * l.d_out + i] - y[i]);
            if (!(gap <= difference)) difference = gap;
        }
        free(weights), free(y);
    }
    printf(
        "%-20s (2, %td, %3td)  (2, %2td, %3td)  (2, %2td, %3td)  %td of %2td  %td, %td     %.1e\n",
        e->name, e->n_q, l.d_q, e->n_k, l.d_key, e->n_k, l.d_value, l.heads, l.d_k,
        (ptrdiff_t)e->lengths[0], (ptrdiff_t)e->lengths[1], difference);
    qkv_tape_free(t);
    free_batch(&b);
    free_layer(&l);
}

/* ---- A task of two look-ups --------------------------------------------------------------------
 */

enum { SYMBOLS = 8, N_Q = 4, BATCH = 32, HELD_OUT = 500 };

/* A sequence, which is a pure function of its number: 4 to 8 records of different colours and
 * different shapes; of a record that is not there, the coordinates are those of none. */
static void fill_sequence(const batch *b, ptrdiff_t item, uint64_t seed, uint64_t number)
{
    long colour[SYMBOLS], shape[SYMBOLS];
    for (long i = 0; i < SYMBOLS; i++) {
        long *const order[] = {colour, shape};
        for (int s = 0; s < 2; s++) { /* shuffled from the inside out */
            double u = qkv_random_uniform(seed, s ? SHAPE : COLOUR, number * SYMBOLS + (uint64_t)i);
            long at = (long)(u * (double)(i + 1));
            order[s][i] = order[s][at];
            order[s][at] = i;
        }
    }
    long n = 4 + (long)(5 * qkv_random_uniform(seed, LENGTH, number));
    b->lengths[item] = n;
    for (long j = 0; j < n; j++) {
        double *key = b->k + (item * SYMBOLS + j) * 2 * SYMBOLS;
        key[colour[j]] = key[SYMBOLS + shape[j]] = 1;
        b->v[item * SYMBOLS + j] = qkv_random_normal(seed, NUMBER, number * SYMBOLS + (uint64_t)j);
    }
    for (long i = 0; i < 2 * N_Q; i++) { /* each query: a colour, then a shape */
        double u = qkv_random_uniform(seed, QUERY, number * 2 * N_Q + (uint64_t)i);
        long j = (long)(u * (double)n);
        double *query = b->q + (item * N_Q + i / 2) * 2 * SYMBOLS;
        query[i % 2 ? SYMBOLS + shape[j] : colour[j]] = 1;
        b->target[item * 2 * N_Q + i] = b->v[item * SYMBOLS + j];
    }
}

static batch make_task(const layer *l, const settings *s, ptrdiff_t n, uint64_t first)
{
    batch b = make_batch(l, n, N_Q, SYMBOLS);
    for (ptrdiff_t i = 0; i < n; i++) fill_sequence(&b, i, (uint64_t)s->seed, first + (uint64_t)i);
    return b;
}

/* Sequences that no training gets to. */
static batch held_out(const layer *l, const settings *s)
{
    return make_task(l, s, HELD_OUT, (uint64_t)1 << 40);
}

enum { SCORES = 2, SIZES = 3, WINDOW = 25 };
static const ptrdiff_t heads_of[SIZES] = {1, 2, 4};
static const qkv_score score_of[SCORES] = {QKV_SCORE_ADDITIVE, QKV_SCORE_SCALED_DOT};
static const char *const score_names[SCORES] = {"additive", "scaled dot product"};

typedef struct learner {
    layer l;
    double *loss;         /* of each WINDOW steps, the mean */
    double before, after; /* mean squared errors of what was held out */
} learner;

/* The mean squared error of a batch; its gradients are added if wanted. */
static double loss_of(qkv_tape *t, const layer *l, const batch *b, bool gradients)
{
    qkv_var target = qkv_leaf_f64(t, qkv_shape3(b->n, b->n_q, l->d_out), b->target, NULL);
    qkv_var loss = qkv_mse(t, attend(t, l, b), target);
    double value = qkv_item(t, loss);
    qkv_status status = gradients ? qkv_backward(t, loss) : qkv_tape_status(t);
    if (status) fail_with("%s", qkv_tape_error(t));
    qkv_tape_reset(t);
    return value;
}

static qkv_optimizer *make_optimizer(const layer *l)
{
    qkv_optimizer *o;
    check(qkv_adam_new(&o, NULL));
    for (int m = 0; m < MATRICES; m++) {
        qkv_shape shape = matrix_shape(l, m);
        check(qkv_optimizer_add_f64(o, l->w[m], l->gradient[m],
                                    (size_t)(shape.dim[0] * shape.dim[1])));
    }
    return o;
}

/* Every step sees sequences of its own; the rate falls to 0 at the end. */
static void train(learner *x, const settings *s, progress *p, long done)
{
    static const double rate = 0.02;
    qkv_tape *t;
    check(qkv_tape_new(&t, QKV_F64));
    qkv_optimizer *o = make_optimizer(&x->l);
    batch test = held_out(&x->l, s);
    x->before = loss_of(t, &x->l, &test, false);
    x->loss = allocate((size_t)(s->steps / WINDOW + 1), sizeof *x->loss);
    for (long step = 0; step < s->steps; step++) {
        batch b = make_task(&x->l, s, BATCH, (uint64_t)(step * BATCH));
        qkv_optimizer_zero_gradients(o);
        double loss = loss_of(t, &x->l, &b, true);
        check(qkv_optimizer_set_rate(o, rate * (1 - (double)step / (double)s->steps)));
        check(qkv_optimizer_step(o));
        x->loss[step / WINDOW] += loss / WINDOW;
        free_batch(&b);
        progress_show(p, done + step + 1, "loss %.3f", loss);
    }
    x->after = loss_of(t, &x->l, &test, false);
    free_batch(&test);
    qkv_optimizer_free(o);
    qkv_tape_free(t);
}

/* One head answers with one number. Of two independent ones it can tell half, and all if both are
 * the same record's, which happens once in n times; n is 4 to 8. */
static double best_of_one_head(void)
{
    double sum = 0;
    for (int n = 4; n <= 8; n++) sum += 0.5 * (1 - 1.0 / n) / 5;
    return sum;
}

static void train_all(learner all[SCORES][SIZES], const settings *s)
{
    progress p = {.label = "training", .total = SCORES * SIZES * s->steps};
    for (int i = 0; i < SCORES * SIZES; i++) {
        learner *x = &all[i / SIZES][i % SIZES];
        x->l = (layer){.score = score_of[i / SIZES],
                       .heads = heads_of[i % SIZES],
                       .d_q = 2 * SYMBOLS,
                       .d_key = 2 * SYMBOLS,
                       .d_value = 1,
                       .d_k = 16,
                       .d_v = 4,
                       .d_out = 2};
        make_layer(&x->l, s->seed + i);
        train(x, s, &p, i * s->steps);
    }
    printf(
        "\nmean squared error of %d sequences held out; of 0 as the answer 1, of one head at best "
        "%.2f\n                      1 head    2 heads    4 heads    before\n",
        HELD_OUT, best_of_one_head());
    for (int i = 0; i < SCORES; i++) {
        printf("%-18s", score_names[i]);
        for (int j = 0; j < SIZES; j++) printf("%11.4f", all[i][j].after);
        printf("%10.2f\n", all[i][0].before);
    }
}

/* ---- The scale, and what it leaves of the gradient ---------------------------------------------
 */

enum { KEYS = 32, QUERIES = 501, D = 16, SCALES = 43 };
enum { SOFTMAX, ENTMAX, SPARSEMAX, BOXCAR, HARD, NORMALISERS };
static const char *const normaliser_names[] = {"softmax", "1.5-entmax", "sparsemax", "boxcar",
                                               "hard"};

/* The norms of do/dq for one number as value; how many are exactly 0. */
typedef struct norms {
    double scale[SCALES], median[NORMALISERS][SCALES], mean[NORMALISERS][SCALES],
        zero[NORMALISERS][SCALES];
} norms;

static int ascending(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* dq [QUERIES, D]. The boxcar's scale is that of the squared distance: its width is 1 / sqrt. */
static void differentiate(int normaliser, double scale, double *q, double *k, double *v, double *dq)
{
    static const qkv_normalize of[] = {QKV_SOFTMAX, QKV_ENTMAX_15, QKV_SPARSEMAX, QKV_KERNEL_SUM,
                                       QKV_HARD};
    const qkv_attention a = {.batch = 1,
                             .heads = 1,
                             .n_q = QUERIES,
                             .n_k = KEYS,
                             .d_k = D,
                             .d_v = 1,
                             .score = normaliser == BOXCAR ? QKV_SCORE_GAUSSIAN : QKV_SCORE_DOT,
                             .normalize = of[normaliser],
                             .empty = normaliser == BOXCAR ? QKV_EMPTY_NEAREST : QKV_EMPTY_NAN};
    qkv_tape *t;
    check(qkv_tape_new(&t, QKV_F64));
    memset(dq, 0, QUERIES * D * sizeof *dq);
    const qkv_attend_vars in = {.q = qkv_leaf_f64(t, qkv_shape2(QUERIES, D), q, dq),
                                .k = qkv_leaf_f64(t, qkv_shape2(KEYS, D), k, NULL),
                                .v = qkv_leaf_f64(t, qkv_shape2(KEYS, 1), v, NULL),
                                .scale = qkv_constant(t, scale)};
    if (qkv_backward(t, qkv_sum(t, qkv_attend(t, &a, &in), NULL, 0, false)))
        fail_with("%s", qkv_tape_error(t));
    qkv_tape_free(t);
}

static void measure_norm(int normaliser, int at, double *q, double *k, double *v, norms *r)
{
    static double dq[QUERIES * D], norm[QUERIES];
    double zero = 0, sum = 0;
    differentiate(normaliser, r->scale[at], q, k, v, dq);
    for (int i = 0; i < QUERIES; i++) {
        norm[i] = 0;
        for (int c = 0; c < D; c++) norm[i] = hypot(norm[i], dq[i * D + c]);
        zero += norm[i] == 0;
        sum += norm[i];
    }
    qsort(norm, QUERIES, sizeof *norm, ascending);
    r->median[normaliser][at] = norm[QUERIES / 2];
    r->mean[normaliser][at] = sum / QUERIES;
    r->zero[normaliser][at] = zero / QUERIES;
}

static void print_norms(const norms *r)
{
    printf("\nnorm of the gradient by the query, of %d queries\nscale              ", QUERIES);
    for (int at = 0; at < SCALES; at += 7) printf("%10g", r->scale[at]);
    for (int n = 0; n < NORMALISERS; n++) {
        printf("\n%-11s median ", normaliser_names[n]);
        for (int at = 0; at < SCALES; at += 7) printf("%10.2g", r->median[n][at]);
        printf("\n            mean   ");
        for (int at = 0; at < SCALES; at += 7) printf("%10.2g", r->mean[n][at]);
        printf("\n            zero   ");
        for (int at = 0; at < SCALES; at += 7) printf("%8.1f %%", 100 * r->zero[n][at]);
    }
    putchar('\n');
}

static void measure_norms(const settings *s, norms *r)
{
    static double q[QUERIES * D], k[KEYS * D], v[KEYS];
    double *const data[] = {q, k, v};
    static const int size[] = {QUERIES * D, KEYS * D, KEYS};
    for (int x = 0; x < 3; x++)
        for (int i = 0; i < size[x]; i++)
            data[x][i] =
                qkv_random_normal((uint64_t)s->seed, (uint64_t)(10 * SCALE + x), (uint64_t)i);
    for (int at = 0; at < SCALES; at++) {
        r->scale[at] = pow(10, -2 + at / 7.0);
        for (int n = 0; n < NORMALISERS; n++) measure_norm(n, at, q, k, v, r);
    }
    print_norms(r);
}

/* ---- Figures -----------------------------------------------------------------------------------
 */

/* What a record or a query is called: a letter for its colour, a digit for its shape. */
static char *name_of(const double *symbols)
{
    char colour = '-', shape = '-';
    for (int i = 0; i < SYMBOLS; i++) {
        if (symbols[i] == 1) colour = (char)('A' + i);
        if (symbols[SYMBOLS + i] == 1) shape = (char)('1' + i);
    }
    return print_text("%c%c", colour, shape);
}

/* The weights of one head and of two, for a sequence that was held out. */
static void draw_heads(learner all[SCORES][SIZES], const settings *s)
{
    enum { COLUMNS = 3, CELLS = N_Q * SYMBOLS };
    static const char *const titles[] = {"one head", "two heads: first", "second"};
    batch b = held_out(&all[0][0].l, s);
    ptrdiff_t item = 0, shape[4] = {SCORES, COLUMNS, N_Q, SYMBOLS};
    while (b.lengths[item] != SYMBOLS - 1) item++;
    double weights[SCORES * COLUMNS * CELLS];
    for (int i = 0; i < SCORES; i++)
        for (int heads = 1; heads <= 2; heads++)
            free(plain_attend(&all[i][heads - 1].l, &b, item,
                              weights + (i * COLUMNS + heads - 1) * CELLS));
    for (int i = 0; i < SCORES * COLUMNS * N_Q; i++) /* what is hidden is grey */
        weights[i * SYMBOLS + SYMBOLS - 1] = (double)NAN;
    char *records[SYMBOLS], *queries[N_Q],
        *path = figure_path(s->plot, "scoring", "heads", s->format);
    for (int j = 0; j < SYMBOLS; j++)
        records[j] = name_of(b.k + (item * SYMBOLS + j) * 2 * SYMBOLS);
    for (int i = 0; i < N_Q; i++) queries[i] = name_of(b.q + (item * N_Q + i) * 2 * SYMBOLS);
    const qkv_heatmap_options options = {.figure.path = path,
                                         .titles = titles,
                                         .y_labels = score_names,
                                         .x_label = "Records",
                                         .x_ticks = (const char *const *)records,
                                         .y_ticks = (const char *const *)queries,
                                         .upper = 1};
    check(qkv_show_heatmaps(weights, shape, &options));
    say("wrote %s", path);
    for (int j = 0; j < SYMBOLS; j++) free(records[j]);
    for (int i = 0; i < N_Q; i++) free(queries[i]);
    free(path);
    free_batch(&b);
}

static void draw_learning(learner all[SCORES][SIZES], const settings *s)
{
    static const char *const labels[SIZES] = {"1 head", "2 heads", "4 heads"};
    static const char *const titles[SCORES] = {"Mean squared error, additive",
                                               "Mean squared error, scaled dot product"};
    size_t n = (size_t)(s->steps / WINDOW);
    double *steps = allocate(2 * n, sizeof *steps), *best = steps + n;
    for (size_t i = 0; i < n; i++) {
        steps[i] = ((double)i + 0.5) * WINDOW;
        best[i] = best_of_one_head();
    }
    qkv_series series[SCORES][SIZES + 1];
    qkv_panel panels[SCORES];
    for (int i = 0; i < SCORES; i++) {
        for (int j = 0; j < SIZES; j++)
            series[i][j] = (qkv_series){QKV_LINE, labels[j], n, steps, .y = all[i][j].loss};
        series[i][SIZES] =
            (qkv_series){QKV_DASHES, "best of 1 head", n, steps, best, .colour = "#999999"};
        panels[i] = (qkv_panel){.title = titles[i],
                                .x_label = "step",
                                .log_y = true,
                                .series = series[i],
                                .n_series = SIZES + 1};
    }
    char *path = figure_path(s->plot, "scoring", "learning", s->format);
    check(qkv_plot_panels(panels, 1, SCORES, &(qkv_figure){.path = path, .width = 9, .height = 4}));
    say("wrote %s", path);
    free(path), free(steps);
}

static void draw_norms(const norms *r, const settings *s)
{
    static const char *const colours[NORMALISERS] = {"#0072b2", "#009e73", "#d55e00", "#cc79a7",
                                                     "#666666"};
    qkv_series steep[2 * NORMALISERS], zero[NORMALISERS];
    const int drawn = SPARSEMAX + 1; /* the norms of the others are 0, which has no logarithm */
    for (int n = 0; n < NORMALISERS; n++) {
        const char *name = normaliser_names[n];
        if (n < drawn) {
            steep[n] =
                (qkv_series){QKV_LINE, name, SCALES, r->scale, r->median[n], .colour = colours[n]};
            steep[drawn + n] =
                (qkv_series){QKV_DASHES, NULL, SCALES, r->scale, r->mean[n], .colour = colours[n]};
        }
        zero[n] = (qkv_series){n == HARD ? QKV_DASHES : QKV_LINE,
                               name,
                               SCALES,
                               r->scale,
                               r->zero[n],
                               .colour = colours[n]};
    }
    const qkv_panel panels[] = {{.title = "Norm of the gradient: median, and mean (dashed)",
                                 .x_label = "scale of the score",
                                 .y_range = {1e-16, 100},
                                 .log_x = true,
                                 .log_y = true,
                                 .series = steep,
                                 .n_series = (size_t)(2 * drawn)},
                                {.title = "Queries whose gradient is exactly 0",
                                 .x_label = "scale of the score",
                                 .y_range = {0, 1.05},
                                 .log_x = true,
                                 .series = zero,
                                 .n_series = NORMALISERS}};
    char *path = figure_path(s->plot, "scoring", "vanishing", s->format);
    check(qkv_plot_panels(panels, 1, 2, &(qkv_figure){.path = path, .width = 9.5, .height = 4.4}));
    say("wrote %s", path);
    free(path);
}

/* ---- The program -------------------------------------------------------------------------------
 */

enum { STEPS, SEED, PLOT, FORMAT };

static const command scoring = {
    "",
    "Attends with additive, scaled dot product and multi-head attention, trains them on a task "
    "that needs two look-ups at once, and measures what the scale leaves of the gradient.",
    (const command_option[]){
        [STEPS] = {"steps", "N", "Training steps of each of six layers (default: 1000)."},
        [SEED] = {"seed", "N", "Seed of parameters and data (default: 1)."},
        [PLOT] = {"plot", "DIR", "Draw into DIR (default: figures; '' for none)."},
        [FORMAT] = {"format", "FORMAT", "Format of the figures: svg (default), png or pdf."},
        {NULL, NULL, NULL}}};

static settings read_settings(int argc, char **argv)
{
    settings s = {.steps = 1000, .seed = 1, .plot = "figures", .format = "svg"};
    for (int o; (o = command_next(&scoring, argc, argv)) >= 0;) {
        if (o == STEPS) s.steps = integer_argument("steps", optarg, 2 * WINDOW, 10000000);
        if (o == SEED) s.seed = integer_argument("seed", optarg, 0, 1L << 62);
        if (o == PLOT) s.plot = *optarg ? optarg : NULL;
        if (o == FORMAT) s.format = format_argument("format", optarg);
    }
    if (optind < argc) usage_error("unexpected argument '%s'", argv[optind]);
    return s;
}

int main(int argc, char **argv)
{
    clean_up_on_signals();
    const settings s = read_settings(argc, argv);
    if (s.plot) make_directories(s.plot); /* better told before the training than after it */
    printf("attention            queries      keys         values       heads    lengths  "
           "loops differ by\n");
    for (int i = 0; i < EXAMPLES; i++) show_example(&examples[i], s.seed);
    static learner all[SCORES][SIZES];
    static norms r;
    train_all(all, &s);
    measure_norms(&s, &r);
    if (s.plot) {
        draw_heads(all, &s);
        draw_learning(all, &s);
        draw_norms(&r, &s);
    }
    for (int i = 0; i < SCORES * SIZES; i++) {
        free_layer(&all[i / SIZES][i % SIZES].l);
        free(all[i / SIZES][i % SIZES].loss);
    }
    return finish();
}
