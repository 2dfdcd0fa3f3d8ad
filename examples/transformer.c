/* transformer.c - one encoder-decoder learns two small programs from examples alone: to write a
 * sequence of symbols backwards, and to sort it.
 *
 *     encoder    symbols, places          [ attention to all, MLP ] x LAYERS            -> memory
 *     decoder    start y_1 .. y_{t-1}     [ attention to what was said, attention to
 *                                           the memory, MLP ] x LAYERS                  -> y_t
 *
 * (Vaswani et al. 2017, with the layer normalization in front of each block: Xiong et al. 2020.)
 * The start symbol names the task, so both share every weight. Training never sees the sequences
 * that are asked at the end: a hash keeps one in eight of all there are for that. */
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "qkv/parameters.h"
#include "qkv/plot.h"
#include "src/random.h"

enum { SYMBOLS = 16, LONGEST = 16 }; /* the letters a to p; the most places there are */
enum { D = 64, HEADS = 4, LAYERS = 2, HIDDEN = 4 * D, BATCH = 64 };
enum { REVERSE, SORT, TASKS };
static const char *const task_names[TASKS] = {"reverse", "sort"};

typedef struct settings {
    long shortest, longest, steps, asked, seed;
    const char *sequence, *load, *save, *plot, *format;
} settings;

/* ---- Sequences ---------------------------------------------------------------------------------
 */

/* n questions and their answers, padded with 0: [n, width]. What was said is a symbol for the task
 * and then the answer, one place late: up to its place it never shows what is to be told next. */
typedef struct batch {
    ptrdiff_t n, width, *source, *said, *target;
    int64_t *length; /* [n] */
} batch;

static batch new_batch(ptrdiff_t n, ptrdiff_t width)
{
    const size_t cells = (size_t)(n * width);
    return (batch){.n = n,
                   .width = width,
                   .source = allocate(cells, sizeof(ptrdiff_t)),
                   .said = allocate(cells, sizeof(ptrdiff_t)),
                   .target = allocate(cells, sizeof(ptrdiff_t)),
                   .length = allocate((size_t)n, sizeof(int64_t))};
}

static void free_batch(batch *b)
{
    free(b->source), free(b->said), free(b->target), free(b->length);
}

static int compare(const void *a, const void *b)
{
    const ptrdiff_t x = *(const ptrdiff_t *)a, y = *(const ptrdiff_t *)b;
    return (x > y) - (x < y);
}

/* Question i of the batch, of n symbols, and its answer. */
static void set_question(batch *b, ptrdiff_t i, int task, const ptrdiff_t *x, ptrdiff_t n)
{
    ptrdiff_t *y = b->target + i * b->width, *said = b->said + i * b->width;
    for (ptrdiff_t j = 0; j < b->width; j++) {
        b->source[i * b->width + j] = j < n ? x[j] : 0;
        y[j] = j >= n ? 0 : task == REVERSE ? x[n - 1 - j] : x[j];
    }
    if (task == SORT) qsort(y, (size_t)n, sizeof *y, compare);
    said[0] = SYMBOLS + task;
    for (ptrdiff_t j = 1; j < b->width; j++) said[j] = y[j - 1];
    b->length[i] = n;
}

/* Whether training leaves a sequence out: one in eight, by a hash of its symbols. */
static bool is_held_out(const ptrdiff_t *x, ptrdiff_t n)
{
    uint64_t hash = 0;
    for (ptrdiff_t i = 0; i < n; i++) hash = qkv_random_bits(hash, 0, (uint64_t)x[i]);
    return hash % 8 == 0;
}

/* Sequences of random length and symbols, to learn from or held out, the tasks in turn. */
static void draw_questions(batch *b, const settings *s, bool held_out, uint64_t stream)
{
    const uint64_t lengths = (uint64_t)(s->longest - s->shortest + 1);
    uint64_t at = 0, seed = (uint64_t)s->seed;
    for (ptrdiff_t i = 0; i < b->n; i++) {
        ptrdiff_t x[LONGEST], n;
        do {
            n = s->shortest + (ptrdiff_t)(qkv_random_bits(seed, stream, at++) % lengths);
            for (ptrdiff_t j = 0; j < n; j++)
                x[j] = (ptrdiff_t)(qkv_random_bits(seed, stream, at++) % SYMBOLS);
        } while (is_held_out(x, n) != held_out);
        set_question(b, i, (int)(i % TASKS), x, n);
    }
}

/* ---- The model ---------------------------------------------------------------------------------
 */

/* The blocks of attention, in the order of their use. */
enum { ENCODER_SELF, DECODER_SELF, DECODER_MEMORY, KINDS };

typedef struct model {
    qkv_tape *t;
    qkv_parameters *set;
    uint64_t seed;
    double *weights; /* [KINDS, LAYERS, width, HEADS, width] of one question; NULL: unwanted */
} model;

/* The parameter block.name; it is made when it is asked for the first time. */
static qkv_var parameter(model *m, const char *block, const char *name, qkv_shape shape,
                         qkv_initializer how)
{
    char full[80];
    snprintf(full, sizeof full, "%s.%s", block, name);
    how.seed = m->seed;
    if (!qkv_parameters_find(m->set, full)) check(qkv_parameters_add(m->set, full, shape, &how));
    return qkv_parameters_leaf(m->t, m->set, full);
}

static qkv_var matrix(model *m, const char *block, const char *name, ptrdiff_t in, ptrdiff_t out)
{
    return parameter(m, block, name, qkv_shape2(in, out),
                     (qkv_initializer){.rule = QKV_INIT_GLOROT});
}

static qkv_var bias(model *m, const char *block, const char *name, ptrdiff_t n)
{
    return parameter(m, block, name, qkv_shape1(n), (qkv_initializer){.rule = QKV_INIT_ZEROS});
}

static qkv_var normalized(model *m, const char *block, qkv_var x)
{
    qkv_var gain =
        parameter(m, block, "gain", qkv_shape1(D), (qkv_initializer){.rule = QKV_INIT_CONSTANT});
    return qkv_layer_norm(m->t, x, gain, bias(m, block, "shift", D), 0);
}

/* [n, width, D]: a row for each symbol and one for each place. */
static qkv_var embedded(model *m, const char *block, const ptrdiff_t *symbol, const batch *b,
                        ptrdiff_t symbols)
{
    const qkv_initializer some = {.rule = QKV_INIT_NORMAL, .scale = 0.5};
    qkv_var table = parameter(m, block, "symbols", qkv_shape2(symbols, D), some);
    qkv_var places = parameter(m, block, "places", qkv_shape2(LONGEST, D), some);
    qkv_var x = qkv_gather(m->t, table, 0, symbol, b->n * b->width);
    x = qkv_reshape(m->t, x, qkv_shape3(b->n, b->width, D));
    return qkv_add(m->t, x, qkv_slice(m->t, places, 0, 0, b->width, 1));
}

/* Attention whose values are the identity answers with its weights: [1, n, HEADS n]. */
static void keep_weights(model *m, const qkv_attention *a, qkv_multi_head_vars in, double *to)
{
    static float eye[LONGEST * LONGEST], eyes[HEADS * LONGEST * LONGEST];
    static float apart[HEADS * LONGEST * HEADS * LONGEST];
    const ptrdiff_t n = qkv_shape_of(m->t, in.x_q).dim[1], side = HEADS * n;
    for (ptrdiff_t i = 0; i < side; i++) {
        eye[i % n * n + i % n] = 1;
        eyes[i % n * side + i] = 1;
        apart[i * side + i] = 1;
    }
    in.x_v = qkv_leaf_f32(m->t, qkv_shape3(1, n, n), eye, NULL);
    in.w_v = qkv_leaf_f32(m->t, qkv_shape2(n, side), eyes, NULL);
    in.w_o = qkv_leaf_f32(m->t, qkv_shape2(side, side), apart, NULL);
    const float *weights = qkv_value_f32(m->t, qkv_multi_head_attention(m->t, a, &in));
    check(qkv_tape_status(m->t));
    for (ptrdiff_t i = 0; i < n * side; i++) to[i] = weights[i];
}

/* x + what it finds by attention: in memory, or in itself if that is {0}. */
static qkv_var attended(model *m, int kind, int layer, qkv_var x, qkv_var memory,
                        const int64_t *lengths)
{
    static const char *const names[KINDS] = {"encoder.self", "decoder.self", "decoder.memory"};
    char block[32];
    snprintf(block, sizeof block, "%s.%d", names[kind], layer);
    const qkv_attention a = {.heads = HEADS, .mask.causal = kind == DECODER_SELF};
    const qkv_multi_head_vars in = {.x_q = normalized(m, block, x),
                                    .x_k = memory,
                                    .w_q = matrix(m, block, "w_q", D, D),
                                    .w_k = matrix(m, block, "w_k", D, D),
                                    .w_v = matrix(m, block, "w_v", D, D),
                                    .w_o = matrix(m, block, "w_o", D, D),
                                    .attend.lengths = lengths};
    const ptrdiff_t n = qkv_shape_of(m->t, x).dim[1];
    if (m->weights) keep_weights(m, &a, in, m->weights + (kind * LAYERS + layer) * n * HEADS * n);
    return qkv_add(m->t, x, qkv_multi_head_attention(m->t, &a, &in));
}

/* x + W_2 gelu(W_1 x + b_1) + b_2. */
static qkv_var thought(model *m, const char *part, int layer, qkv_var x)
{
    char block[32];
    snprintf(block, sizeof block, "%s.mlp.%d", part, layer);
    qkv_var y = qkv_matmul(m->t, normalized(m, block, x), matrix(m, block, "w_1", D, HIDDEN));
    y = qkv_gelu(m->t, qkv_add(m->t, y, bias(m, block, "b_1", HIDDEN)));
    y = qkv_matmul(m->t, y, matrix(m, block, "w_2", HIDDEN, D));
    return qkv_add(m->t, x, qkv_add(m->t, y, bias(m, block, "b_2", D)));
}

/* The scores of every symbol at every place, [n width, SYMBOLS]. */
static qkv_var scores(model *m, const batch *b)
{
    const qkv_var itself = {0};
    qkv_var x = embedded(m, "encoder", b->source, b, SYMBOLS);
    for (int i = 0; i < LAYERS; i++) {
        x = attended(m, ENCODER_SELF, i, x, itself, b->length);
        x = thought(m, "encoder", i, x);
    }
    qkv_var memory = normalized(m, "memory", x);
    x = embedded(m, "decoder", b->said, b, SYMBOLS + TASKS);
    for (int i = 0; i < LAYERS; i++) {
        x = attended(m, DECODER_SELF, i, x, itself, NULL);
        x = attended(m, DECODER_MEMORY, i, x, memory, b->length);
        x = thought(m, "decoder", i, x);
    }
    x = qkv_reshape(m->t, normalized(m, "answer", x), qkv_shape2(b->n * b->width, D));
    return qkv_matmul(m->t, x, matrix(m, "answer", "w", D, SYMBOLS));
}

/* The best symbol at every place, [n, width], given what was said up to there. If all are right
 * after the right beginnings, so is what the model writes by itself, and the other way round. */
static void tell(model *m, const batch *b, ptrdiff_t *symbol)
{
    qkv_no_grad_begin(m->t);
    const float *s = qkv_value_f32(m->t, scores(m, b));
    check(qkv_tape_status(m->t));
    for (ptrdiff_t i = 0; i < b->n * b->width; i++, s += SYMBOLS) {
        symbol[i] = 0;
        for (ptrdiff_t c = 1; c < SYMBOLS; c++)
            if (s[c] > s[symbol[i]]) symbol[i] = c;
    }
    qkv_tape_reset(m->t);
}

/* What the model writes by itself: place by place, after its own words instead of the answer's. */
static void write_answers(model *m, batch *b, ptrdiff_t *symbol)
{
    for (ptrdiff_t i = 0; i < b->n * b->width; i++)
        if (i % b->width > 0) b->said[i] = 0; /* the right answer does not lie open */
    for (ptrdiff_t j = 0; j < b->width; j++) {
        tell(m, b, symbol);
        for (ptrdiff_t i = 0; j + 1 < b->width && i < b->n; i++)
            b->said[i * b->width + j + 1] = symbol[i * b->width + j];
    }
}

/* The share of questions of each task whose answer is right from the first symbol to the last. */
static void share_right(const batch *b, const ptrdiff_t *symbol, double right[TASKS])
{
    double asked[TASKS] = {0};
    for (int task = 0; task < TASKS; task++) right[task] = 0;
    for (ptrdiff_t i = 0; i < b->n; i++) {
        const size_t bytes = (size_t)b->length[i] * sizeof *symbol;
        const ptrdiff_t task = b->said[i * b->width] - SYMBOLS;
        asked[task]++;
        right[task] += !memcmp(symbol + i * b->width, b->target + i * b->width, bytes);
    }
    for (int task = 0; task < TASKS; task++) right[task] /= asked[task];
}

/* ---- Learning ----------------------------------------------------------------------------------
 */

enum { POINTS = 40, ASKED = 256 }; /* of the curves; questions asked at once, for each point */

typedef struct history {
    size_t n;
    double step[POINTS], loss[POINTS], right[TASKS][POINTS];
} history;

/* The cross-entropy of the next symbol, over all places that have one. */
static qkv_var loss_of(model *m, const batch *b)
{
    ptrdiff_t *place = allocate((size_t)(b->n * b->width), sizeof *place), n = 0;
    ptrdiff_t *next = allocate((size_t)(b->n * b->width), sizeof *next);
    for (ptrdiff_t i = 0; i < b->n * b->width; i++) {
        if (i % b->width >= b->length[i / b->width]) continue;
        place[n] = i;
        next[n++] = b->target[i];
    }
    qkv_var y = qkv_cross_entropy(m->t, qkv_gather(m->t, scores(m, b), 0, place, n), next, n);
    free(place), free(next);
    return y;
}

static double step(model *m, const batch *b, qkv_optimizer *optimizer, double rate)
{
    qkv_var y = loss_of(m, b);
    const double loss = qkv_item(m->t, y);
    qkv_optimizer_zero_gradients(optimizer);
    check(qkv_backward(m->t, y));
    qkv_tape_reset(m->t);
    check(qkv_optimizer_clip_gradients(optimizer, 1, NULL));
    check(qkv_optimizer_set_rate(optimizer, rate));
    check(qkv_optimizer_step(optimizer));
    return loss;
}

enum { HELD_OUT_CURVE, HELD_OUT_END, TRAINING }; /* streams of random numbers; one a step */

static void learn(model *m, const settings *s, history *h)
{
    batch b = new_batch(BATCH, s->longest), asked = new_batch(ASKED, s->longest);
    ptrdiff_t symbol[ASKED * LONGEST];
    draw_questions(&asked, s, true, HELD_OUT_CURVE);
    qkv_optimizer *optimizer;
    check(qkv_adam_new(&optimizer, &(qkv_adam){.beta2 = 0.98}));
    check(qkv_optimizer_add_parameters(optimizer, m->set));
    const qkv_schedule schedule = {
        .rate = 0.004, .decay = QKV_DECAY_COSINE, .warmup = s->steps / 12, .steps = s->steps};
    progress bar = {.label = "learning", .total = s->steps};
    for (long i = 0; i < s->steps; i++) {
        draw_questions(&b, s, false, TRAINING + (uint64_t)i);
        const double loss = step(m, &b, optimizer, qkv_schedule_rate(&schedule, i));
        if ((i + 1) * POINTS / s->steps > i * POINTS / s->steps) {
            double right[TASKS];
            tell(m, &asked, symbol);
            share_right(&asked, symbol, right);
            h->step[h->n] = (double)(i + 1);
            h->loss[h->n] = loss;
            for (int task = 0; task < TASKS; task++) h->right[task][h->n] = 100 * right[task];
            h->n++;
        }
        progress_show(&bar, i + 1, "loss %.4f", loss);
    }
    qkv_optimizer_free(optimizer);
    free_batch(&b), free_batch(&asked);
}

/* ---- Telling -----------------------------------------------------------------------------------
 */

/* n symbols as letters. */
static const char *spelled(char text[LONGEST + 1], const ptrdiff_t *symbol, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) text[i] = (char)('a' + symbol[i]);
    text[n] = '\0';
    return text;
}

/* Questions first to last - 1 of b, whose arrays they share. */
static batch part_of(const batch *b, ptrdiff_t first, ptrdiff_t last)
{
    const ptrdiff_t at = first * b->width;
    return (batch){.n = last - first,
                   .width = b->width,
                   .source = b->source + at,
                   .said = b->said + at,
                   .target = b->target + at,
                   .length = b->length + first};
}

/* In parts: what the tape keeps grows with the questions asked at once. */
static void report(model *m, const settings *s)
{
    batch b = new_batch(TASKS * s->asked, s->longest);
    ptrdiff_t *symbol = allocate((size_t)(b.n * b.width), sizeof *symbol);
    double right[TASKS];
    draw_questions(&b, s, true, HELD_OUT_END);
    progress bar = {.label = "asking", .total = b.n};
    for (ptrdiff_t first = 0, last; first < b.n; first = last) {
        last = first + ASKED < b.n ? first + ASKED : b.n;
        batch part = part_of(&b, first, last);
        write_answers(m, &part, symbol + first * b.width);
        progress_show(&bar, last, "sequences");
    }
    share_right(&b, symbol, right);
    printf("Sequences of %ld to %ld letters that training left out, written by the model itself, "
           "right\nfrom the first letter to the last:\n",
           s->shortest, s->longest);
    for (int task = 0; task < TASKS; task++)
        printf("  %-8s %6.2f %% of %ld\n", task_names[task], 100 * right[task], s->asked);
    free(symbol);
    free_batch(&b);
}

/* ---- Figures -----------------------------------------------------------------------------------
 */

/* The letters of a sequence, each a text of its own. */
typedef struct letters {
    char text[LONGEST][2];
    const char *tick[LONGEST];
} letters;

static void set_letters(letters *l, const ptrdiff_t *symbol, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        l->text[i][0] = symbol[i] < SYMBOLS ? (char)('a' + symbol[i]) : '>'; /* the task */
        l->tick[i] = l->text[i];
    }
}

/* One row of the figure for each layer, one column for each head; grey: hidden, for it is yet to be
 * said. */
static void draw_attention(const model *m, const settings *s, int kind, const char *name,
                           ptrdiff_t n, const letters *rows, const char *row_label,
                           const letters *columns, const char *column_label)
{
    static const char *const heads[HEADS] = {"head 1", "head 2", "head 3", "head 4"};
    const ptrdiff_t shape[4] = {LAYERS, HEADS, n, n};
    double matrices[LAYERS * HEADS * LONGEST * LONGEST], *at = matrices, largest = 0;
    for (ptrdiff_t layer = kind * LAYERS; layer < (kind + 1) * LAYERS; layer++)
        for (ptrdiff_t head = 0; head < HEADS; head++)
            for (ptrdiff_t i = 0; i < n; i++)
                for (ptrdiff_t j = 0; j < n; j++, at++) {
                    const bool hidden = kind == DECODER_SELF && j > i;
                    const double weight = m->weights[((layer * n + i) * HEADS + head) * n + j];
                    *at = hidden ? (double)NAN : weight;
                    largest = fmax(largest, weight);
                }
    char label[LAYERS][64];
    const char *labels[LAYERS];
    for (int layer = 0; layer < LAYERS; layer++) {
        snprintf(label[layer], sizeof *label, "layer %d: %s", layer + 1, row_label);
        labels[layer] = label[layer];
    }
    char *path = figure_path(s->plot, "transformer", name, s->format);
    const qkv_heatmap_options options = {.figure.path = path,
                                         .x_label = column_label,
                                         .y_labels = labels,
                                         .titles = heads,
                                         .x_ticks = columns->tick,
                                         .y_ticks = rows->tick,
                                         .upper = ceil(10 * largest) / 10};
    check(qkv_show_heatmaps(matrices, shape, &options));
    say("wrote %s", path);
    free(path);
}

/* One sequence, both tasks: what the model writes, and where it looks as it does. */
static void show(model *m, const settings *s)
{
    ptrdiff_t x[LONGEST], n = (ptrdiff_t)strlen(s->sequence), symbol[LONGEST];
    batch b = new_batch(1, n);
    char text[LONGEST + 1];
    letters source = {0}, said = {0}, written = {0};
    for (ptrdiff_t i = 0; i < n; i++) x[i] = s->sequence[i] - 'a';
    set_letters(&source, x, n);
    printf("\n%-10s %s\n", "asked", s->sequence);
    for (int task = 0; task < TASKS; task++) {
        set_question(&b, 0, task, x, n);
        m->weights = allocate((size_t)(KINDS * LAYERS * HEADS * n * n), sizeof *m->weights);
        write_answers(m, &b, symbol);
        say("%-10s %s", task_names[task], spelled(text, symbol, n));
        set_letters(&written, symbol, n);
        set_letters(&said, b.said, n);
        if (s->plot)
            draw_attention(m, s, DECODER_MEMORY, task_names[task], n, &written, "letter written",
                           &source, "letter of the sequence");
        if (s->plot && task == SORT) {
            draw_attention(m, s, DECODER_SELF, "decoder", n, &said, "letter said", &said,
                           "letter said before");
            draw_attention(m, s, ENCODER_SELF, "encoder", n, &source, "letter", &source,
                           "letter of the sequence");
        }
        free(m->weights);
        m->weights = NULL;
    }
    free_batch(&b);
}

static void draw_history(const settings *s, const history *h)
{
    static const char *const colours[TASKS] = {"#0072b2", "#d55e00"};
    qkv_series right[TASKS];
    for (int task = 0; task < TASKS; task++)
        right[task] = (qkv_series){QKV_LINE,  task_names[task],       h->n, h->step, h->right[task],
                                   .size = 2, .colour = colours[task]};
    const qkv_series loss = {QKV_LINE,           NULL, h->n, h->step, h->loss, .size = 2,
                             .colour = "#333333"};
    const qkv_panel panels[] = {{.title = "Held-out sequences, all letters right",
                                 .x_label = "step",
                                 .y_label = "per cent",
                                 .y_range = {0, 102},
                                 .series = right,
                                 .n_series = TASKS},
                                {.title = "Cross-entropy of the next letter",
                                 .x_label = "step",
                                 .y_label = "nats",
                                 .log_y = true,
                                 .series = &loss,
                                 .n_series = 1}};
    char *path = figure_path(s->plot, "transformer", "learning", s->format);
    check(qkv_plot_panels(panels, 1, 2, &(qkv_figure){.path = path, .width = 9, .height = 3.6}));
    say("wrote %s", path);
    free(path);
}

/* ---- The program -------------------------------------------------------------------------------
 */

enum { LENGTHS, STEPS, ASK, SEQUENCE, SEED, LOAD, SAVE, PLOT, FORMAT };

static const command transformer = {
    "",
    "Trains a small transformer, two layers and four heads in encoder and decoder, to reverse and "
    "to sort sequences of 16 symbols, asks it sequences that it was not trained on, and draws "
    "where it looks. Takes about a minute.",
    (const command_option[]){
        [LENGTHS] = {"lengths", "FROM,TO",
                     "Lengths of the sequences, at most 16 (default: 10,16)."},
        [STEPS] = {"steps", "N", "Steps of training (default: 1200)."},
        [ASK] = {"ask", "N", "Held-out sequences asked at the end, for each task (default: 1000)."},
        [SEQUENCE] = {"sequence", "TEXT",
                      "Show what becomes of this one, of letters a to p (default: bookkeeping); "
                      "other lengths than --lengths are not learned."},
        [SEED] = {"seed", "N", "Seed of sequences and weights (default: 1)."},
        [LOAD] = {"load", "FILE", "Start from these weights (safetensors)."},
        [SAVE] = {"save", "FILE", "Write the weights that were learned (safetensors)."},
        [PLOT] = {"plot", "DIR",
                  "Draw attention and learning into DIR (default: figures; '' for none)."},
        [FORMAT] = {"format", "FORMAT", "Format of the figures: svg (default), png or pdf."},
        {NULL, NULL, NULL}}};

static void read_lengths(settings *s, const char *text)
{
    char *copy = print_text("%s", text), *comma = strchr(copy, ',');
    if (!comma) usage_error("--lengths: '%s' is not FROM,TO", text);
    *comma = '\0';
    s->longest = integer_argument("lengths", comma + 1, 1, LONGEST);
    s->shortest = integer_argument("lengths", copy, 1, s->longest);
    free(copy);
}

static settings read_settings(int argc, char **argv)
{
    settings s = {.shortest = 10,
                  .longest = 16,
                  .steps = 1200,
                  .asked = 1000,
                  .seed = 1,
                  .sequence = "bookkeeping",
                  .plot = "figures",
                  .format = "svg"};
    for (int option; (option = command_next(&transformer, argc, argv)) >= 0;) {
        if (option == LENGTHS) read_lengths(&s, optarg);
        if (option == STEPS) s.steps = integer_argument("steps", optarg, 0, 1000000);
        if (option == ASK) s.asked = integer_argument("ask", optarg, 1, 100000);
        if (option == SEQUENCE) s.sequence = text_argument("sequence", optarg);
        if (option == SEED) s.seed = integer_argument("seed", optarg, 0, 1L << 62);
        if (option == LOAD) s.load = path_argument("load", optarg);
        if (option == SAVE) s.save = path_argument("save", optarg);
        if (option == PLOT) s.plot = *optarg ? optarg : NULL;
        if (option == FORMAT) s.format = format_argument("format", optarg);
    }
    if (optind < argc) usage_error("unexpected argument '%s'", argv[optind]);
    if (strspn(s.sequence, "abcdefghijklmnop") != strlen(s.sequence) ||
        strlen(s.sequence) > LONGEST)
        usage_error("--sequence: '%s' is not 1 to %d letters from a to p", s.sequence, LONGEST);
    return s;
}

/* The parameters come into being when the model computes for the first time. */
static model new_model(const settings *s)
{
    model m = {.seed = (uint64_t)s->seed};
    check(qkv_tape_new(&m.t, QKV_F32));
    check(qkv_parameters_new(&m.set, QKV_F32));
    batch b = new_batch(1, 1);
    const ptrdiff_t a = 0;
    set_question(&b, 0, REVERSE, &a, 1);
    scores(&m, &b);
    check(qkv_tape_status(m.t));
    qkv_tape_reset(m.t);
    free_batch(&b);
    if (s->load) check(qkv_parameters_load(m.set, s->load));
    return m;
}

int main(int argc, char **argv)
{
    clean_up_on_signals();
    use_one_thread();
    const settings s = read_settings(argc, argv);
    model m = new_model(&s);
    if (s.plot) make_directories(s.plot);
    expect_creatable("--save", s.save);
    printf("%zu parameters in %zu arrays\n\n", qkv_parameters_size(m.set),
           qkv_parameters_count(m.set));
    history h = {0};
    learn(&m, &s, &h);
    if (s.save) check(qkv_parameters_save(m.set, s.save));
    report(&m, &s);
    show(&m, &s);
    if (s.plot && h.n > 1) draw_history(&s, &h);
    qkv_parameters_free(m.set);
    qkv_tape_free(m.t);
    return finish();
}
