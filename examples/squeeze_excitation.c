/* squeeze_excitation.c - exercise 4 of the chapter: squeeze-and-excitation networks (Hu, Shen & Sun
 * 2018) are attention, twice.
 *
 *     squeeze      the average of all pixels      one query, uniform attention to the pixels
 *     excitation   s_c = sigmoid(k_c'q + b_c)     the image is a query over the channels: channel c
 *                                                 has a key k_c, and no softmax, so that channels
 *                                                 do not compete
 *
 * and every channel is multiplied by the weight it got. A small convolutional network learns to
 * read digits with and without it, from the same starts and in the same order. */
#include "digits.h"

#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "common.h"
#include "qkv/parameters.h"
#include "qkv/plot.h"
#include "src/random.h"

enum { CHANNELS = 24, BLOCKS = 2, REDUCED = 6, PATCH = 9, BATCH = 64, MOST_SEEDS = 20 };
enum { PLAIN, EXCITED, NETWORKS };
static const char *const network_names[NETWORKS] = {"without", "with"};

enum { MOVES, ORDERS }; /* streams of random numbers; one an epoch */

typedef struct settings {
    const char *data, *plot, *format;
    long epochs, seeds, seed;
} settings;

/* ---- The network -------------------------------------------------------------------------------
 */

typedef struct network {
    qkv_tape *t;
    qkv_parameters *set;
    bool excited;
    uint64_t seed;
    qkv_var maps[BLOCKS], gates[BLOCKS]; /* of the last images, [n, .., CHANNELS], [n, CHANNELS] */
} network;

/* The parameter of that name; it is made when it is asked for the first time. */
static qkv_var parameter(network *net, const char *name, int block, qkv_shape shape,
                         qkv_initial rule)
{
    char full[32];
    snprintf(full, sizeof full, "%s.%d", name, block);
    if (!qkv_parameters_find(net->set, full)) {
        const qkv_initializer how = {.rule = rule, .seed = net->seed};
        check(qkv_parameters_add(net->set, full, shape, &how));
    }
    return qkv_parameters_leaf(net->t, net->set, full);
}

/* The 3 x 3 patches of images [n, side^2, channels], every step-th each way: [n, out, 9 channels].
 * What lies outside is the row of zeros that comes after the pixels. */
static qkv_var patches(network *net, qkv_var x, ptrdiff_t side, ptrdiff_t step)
{
    static const float zero = 0;
    const qkv_shape s = qkv_shape_of(net->t, x);
    const ptrdiff_t out = side / step, n = s.dim[0], channels = s.dim[2];
    ptrdiff_t index[PIXELS * PATCH], at = 0;
    for (ptrdiff_t i = 0; i < out * out * PATCH; i++) {
        const ptrdiff_t row = i / PATCH / out * step + i % PATCH / 3 - 1;
        const ptrdiff_t column = i / PATCH % out * step + i % 3 - 1;
        const bool inside = row >= 0 && row < side && column >= 0 && column < side;
        index[at++] = inside ? row * side + column : side * side;
    }
    qkv_var border = qkv_broadcast(net->t, qkv_leaf_f32(net->t, qkv_scalar(), &zero, NULL),
                                   qkv_shape3(n, 1, channels));
    x = qkv_concat(net->t, (const qkv_var[]){x, border}, 2, 1);
    x = qkv_gather(net->t, x, 1, index, at);
    return qkv_reshape(net->t, x, qkv_shape2(n * out * out, PATCH * channels));
}

/* relu(w * x + b), a convolution. */
static qkv_var convolved(network *net, int block, qkv_var x, ptrdiff_t side, ptrdiff_t step)
{
    const qkv_shape s = qkv_shape_of(net->t, x);
    const ptrdiff_t out = side / step, in = PATCH * s.dim[2];
    qkv_var w = parameter(net, "convolution", block, qkv_shape2(in, CHANNELS), QKV_INIT_HE);
    qkv_var b = parameter(net, "bias", block, qkv_shape1(CHANNELS), QKV_INIT_ZEROS);
    x = qkv_add(net->t, qkv_matmul(net->t, patches(net, x, side, step), w), b);
    return qkv_reshape(net->t, qkv_relu(net->t, x), qkv_shape3(s.dim[0], out * out, CHANNELS));
}

/* The average of the pixels of each image, [n, CHANNELS]: attention that asks for no scores. */
static qkv_var squeezed(network *net, qkv_var x)
{
    static const float nothing[BATCH * CHANNELS];
    const ptrdiff_t n = qkv_shape_of(net->t, x).dim[0];
    const qkv_attention uniform = {.normalize = QKV_UNIFORM};
    qkv_var query = qkv_leaf_f32(net->t, qkv_shape3(n, 1, CHANNELS), nothing, NULL);
    qkv_var mean = qkv_attend(net->t, &uniform, &(qkv_attend_vars){.q = query, .k = x, .v = x});
    return qkv_reshape(net->t, mean, qkv_shape2(n, CHANNELS));
}

/* The weight that each image gives to each channel, [n, CHANNELS]: with values that are the
 * identity, attention answers with its weights. */
static qkv_var excitation(network *net, int block, qkv_var x)
{
    static float identity[CHANNELS * CHANNELS];
    for (int c = 0; c < CHANNELS; c++) identity[c * CHANNELS + c] = 1;
    const qkv_attention gate = {.score = QKV_SCORE_DOT, .normalize = QKV_NONE_SIGMOID};
    qkv_var w = parameter(net, "query", block, qkv_shape2(CHANNELS, REDUCED), QKV_INIT_HE);
    qkv_var query = qkv_relu(net->t, qkv_matmul(net->t, squeezed(net, x), w));
    const qkv_attend_vars in = {
        .q = query,
        .k = parameter(net, "keys", block, qkv_shape2(CHANNELS, REDUCED), QKV_INIT_GLOROT),
        .v = qkv_leaf_f32(net->t, qkv_shape2(CHANNELS, CHANNELS), identity, NULL),
        .bias = parameter(net, "prior", block, qkv_shape1(CHANNELS), QKV_INIT_ZEROS)};
    net->maps[block] = x;
    return net->gates[block] = qkv_attend(net->t, &gate, &in);
}

/* The same as Hu, Shen & Sun wrote it: sigmoid(W_2 relu(W_1 mean) + b). */
static qkv_var classical_excitation(network *net, int block)
{
    static const int pixels = 1;
    qkv_var mean = qkv_mean(net->t, net->maps[block], &pixels, 1, false);
    qkv_var w = parameter(net, "query", block, qkv_shape2(CHANNELS, REDUCED), QKV_INIT_HE);
    qkv_var keys = parameter(net, "keys", block, qkv_shape2(CHANNELS, REDUCED), QKV_INIT_GLOROT);
    qkv_var prior = parameter(net, "prior", block, qkv_shape1(CHANNELS), QKV_INIT_ZEROS);
    qkv_var hidden = qkv_relu(net->t, qkv_matmul(net->t, mean, w));
    qkv_var s = qkv_matmul(net->t, hidden, qkv_transpose(net->t, keys, NULL));
    return qkv_sigmoid(net->t, qkv_add(net->t, s, prior));
}

/* The scores of the digits, [n, CLASSES], of images [n, PIXELS, 1]. */
static qkv_var scores(network *net, const float *pixels, ptrdiff_t n)
{
    const qkv_var none = {0};
    qkv_var x = qkv_leaf_f32(net->t, qkv_shape3(n, PIXELS, 1), pixels, NULL);
    for (int block = 0; block < BLOCKS; block++) {
        x = convolved(net, block, x, SIDE, block + 1);
        if (net->excited) {
            qkv_var gate = excitation(net, block, x);
            x = qkv_mul(net->t, x, qkv_reshape(net->t, gate, qkv_shape3(n, 1, CHANNELS)));
        }
        x = qkv_layer_norm(net->t, x, none, none, 0); /* or gates would only make all louder */
    }
    x = qkv_reshape(net->t, x, qkv_shape2(n, -1));
    const ptrdiff_t features = qkv_shape_of(net->t, x).dim[1];
    qkv_var w = parameter(net, "digits", 0, qkv_shape2(features, CLASSES), QKV_INIT_GLOROT);
    return qkv_matmul(net->t, x, w);
}

/* The parameters come into being when the network computes for the first time. */
static network new_network(bool excited, uint64_t seed)
{
    network net = {.excited = excited, .seed = seed};
    const float image[PIXELS] = {0};
    check(qkv_tape_new(&net.t, QKV_F32));
    check(qkv_parameters_new(&net.set, QKV_F32));
    scores(&net, image, 1);
    check(qkv_tape_status(net.t));
    qkv_tape_reset(net.t);
    return net;
}

static void free_network(network *net)
{
    qkv_parameters_free(net->set);
    qkv_tape_free(net->t);
}

/* ---- Learning and testing ----------------------------------------------------------------------
 */

/* The weights of the channels for the test images. */
typedef struct gates {
    double mean[BLOCKS][CLASSES][CHANNELS]; /* over the images of a class; NaN of none */
    double apart;                           /* largest difference to the classical formula */
} gates;

static void begin_gates(const double *share, gates *to)
{
    *to = (gates){0};
    for (int block = 0; block < BLOCKS; block++)
        for (int i = 0; i < CLASSES * CHANNELS; i++)
            if (isnan(share[i / CHANNELS])) to->mean[block][i / CHANNELS][i % CHANNELS] = NAN;
}

/* Adds what n images, of those labels, gave to their channels. */
static void add_gates(network *net, const ptrdiff_t *label, ptrdiff_t n, const double *share,
                      gates *to)
{
    for (int block = 0; block < BLOCKS; block++) {
        const float *gate = qkv_value_f32(net->t, net->gates[block]);
        const float *classical = qkv_value_f32(net->t, classical_excitation(net, block));
        check(qkv_tape_status(net->t));
        for (ptrdiff_t i = 0; i < n * CHANNELS; i++) {
            const ptrdiff_t digit = label[i / CHANNELS];
            to->mean[block][digit][i % CHANNELS] += share[digit] * gate[i];
            to->apart = fmax(to->apart, fabs((double)gate[i] - classical[i]));
        }
    }
}

/* The accuracy on the test images, in per cent. to NULL: the gates are not wanted. */
static double test(network *net, const digits *d, gates *to)
{
    double share[CLASSES];
    ptrdiff_t right = 0;
    class_shares(d, share);
    if (to) begin_gates(share, to);
    for (ptrdiff_t i = d->n_train, n; i < d->n; i += n) {
        n = d->n - i < BATCH ? d->n - i : BATCH;
        qkv_no_grad_begin(net->t);
        const float *score = qkv_value_f32(net->t, scores(net, d->pixels + i * PIXELS, n));
        check(qkv_tape_status(net->t));
        right += count_right(score, d->label + i, n);
        if (to) add_gates(net, d->label + i, n, share, to);
        qkv_tape_reset(net->t);
    }
    return 100.0 * (double)right / (double)(d->n - d->n_train);
}

/* An image, moved by at most a pixel each way. */
static void copy_moved(float *to, const float *from, uint32_t random)
{
    const int down = (int)(random % 3) - 1, right = (int)(random / 3 % 3) - 1;
    for (int p = 0; p < PIXELS; p++) {
        const int row = p / SIDE + down, column = p % SIDE + right;
        const bool inside = row >= 0 && row < SIDE && column >= 0 && column < SIDE;
        to[p] = inside ? from[row * SIDE + column] : 0;
    }
}

/* One step on the images order[0..n). */
static void step(network *net, const digits *d, const ptrdiff_t *order, ptrdiff_t n, long number,
                 qkv_optimizer *optimizer)
{
    float pixels[BATCH * PIXELS];
    ptrdiff_t label[BATCH];
    for (ptrdiff_t i = 0; i < n; i++) {
        const uint64_t bits = qkv_random_bits(net->seed, MOVES, (uint64_t)(number * BATCH + i));
        copy_moved(pixels + i * PIXELS, d->pixels + order[i] * PIXELS, (uint32_t)bits);
        label[i] = d->label[order[i]];
    }
    qkv_optimizer_zero_gradients(optimizer);
    check(qkv_backward(net->t, qkv_cross_entropy(net->t, scores(net, pixels, n), label, n)));
    check(qkv_optimizer_step(optimizer));
    qkv_tape_reset(net->t);
}

/* The accuracy of all networks on the way, [NETWORKS, seeds, epochs]; the gates of the first that
 * has any. */
typedef struct results {
    double *accuracy;
    size_t parameters[NETWORKS];
    gates first;
    progress bar; /* of epochs */
    long done;
} results;

static void learn(const digits *d, const settings *s, int kind, long seed_number, results *r)
{
    network net = new_network(kind == EXCITED, (uint64_t)(s->seed + seed_number));
    const long batches = (d->n_train + BATCH - 1) / BATCH;
    const qkv_schedule schedule = {
        .rate = 0.005, .decay = QKV_DECAY_COSINE, .warmup = 10, .steps = s->epochs * batches + 10};
    double *accuracy = r->accuracy + (kind * s->seeds + seed_number) * s->epochs;
    ptrdiff_t *order = allocate((size_t)d->n_train, sizeof *order);
    qkv_optimizer *optimizer;
    check(qkv_adam_new(&optimizer, NULL));
    check(qkv_optimizer_add_parameters(optimizer, net.set));
    for (long i = 0; i < s->epochs * batches; i++) {
        const ptrdiff_t begin = i % batches * BATCH, left = d->n_train - begin;
        const long epoch = i / batches;
        if (begin == 0) shuffle(order, d->n_train, net.seed, ORDERS + (uint64_t)epoch);
        check(qkv_optimizer_set_rate(optimizer, qkv_schedule_rate(&schedule, i)));
        step(&net, d, order + begin, left < BATCH ? left : BATCH, i, optimizer);
        if (left > BATCH) continue;
        accuracy[epoch] = test(&net, d, NULL);
        progress_show(&r->bar, ++r->done, "accuracy %.2f %%", accuracy[epoch]);
    }
    if (seed_number == 0) r->parameters[kind] = qkv_parameters_size(net.set);
    if (seed_number == 0 && kind == EXCITED) test(&net, d, &r->first);
    qkv_optimizer_free(optimizer);
    free(order);
    free_network(&net);
}

/* ---- Telling and drawing -----------------------------------------------------------------------
 */

/* The most that the mean weight of a channel differs from one digit to another. */
static double most_apart(const double mean[CLASSES][CHANNELS])
{
    double most = 0;
    for (int channel = 0; channel < CHANNELS; channel++)
        for (int a = 0; a < CLASSES; a++)
            for (int b = 0; b < a; b++)
                most = fmax(most, fabs(mean[a][channel] - mean[b][channel]));
    return most;
}

/* Student's t of a mean of n differences, beyond which it is in one of 20 samples by chance. */
static double critical(long n)
{
    static const double t[MOST_SEEDS - 1] = {12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36,
                                             2.31,  2.26, 2.23, 2.20, 2.18, 2.16, 2.14,
                                             2.13,  2.12, 2.11, 2.10, 2.09};
    return t[n - 2];
}

static void report(const results *r, const digits *d, const settings *s)
{
    double end[NETWORKS + 1][MOST_SEEDS];
    printf("Accuracy on %td images after %ld epochs of %td others, in per cent:\n\n"
           "seed      without     with  difference\n",
           d->n - d->n_train, s->epochs, d->n_train);
    for (long i = 0; i < s->seeds; i++) {
        for (int kind = 0; kind < NETWORKS; kind++)
            end[kind][i] = r->accuracy[(kind * s->seeds + i + 1) * s->epochs - 1];
        end[NETWORKS][i] = end[EXCITED][i] - end[PLAIN][i];
        printf("%-10ld  %5.2f    %5.2f      %+6.2f\n", s->seed + i, end[PLAIN][i], end[EXCITED][i],
               end[NETWORKS][i]);
    }
    printf("mean        %5.2f    %5.2f      %+6.2f\n", mean_of(end[PLAIN], s->seeds),
           mean_of(end[EXCITED], s->seeds), mean_of(end[NETWORKS], s->seeds));
    if (s->seeds > 1)
        printf("deviation   %5.2f    %5.2f       %5.2f\n", deviation_of(end[PLAIN], s->seeds),
               deviation_of(end[EXCITED], s->seeds), deviation_of(end[NETWORKS], s->seeds));
    printf("parameters %6zu   %6zu\n\n", r->parameters[PLAIN], r->parameters[EXCITED]);
    if (s->seeds > 1) {
        const double difference = mean_of(end[NETWORKS], s->seeds);
        const double error = deviation_of(end[NETWORKS], s->seeds) / sqrt((double)s->seeds);
        printf(
            "The difference is %+.2f with a standard error of %.2f: by Student's t, at 5 %%,\n%s\n",
            difference, error,
            fabs(difference) > critical(s->seeds) * error
                ? "more than the chance of the seeds."
                : "these seeds do not tell it from chance.");
    }
    printf(
        "From digit to digit the mean weight of a channel differs by up to %.2f in the first "
        "block,\n%.2f in the second. Weights by attention and by the classical formula differ by "
        "at most %.2g.\n",
        most_apart(r->first.mean[0]), most_apart(r->first.mean[1]), r->first.apart);
}

/* The mean weight of each channel, class by class. */
static void draw_gates(const results *r, const settings *s)
{
    static const char *const titles[BLOCKS] = {"first block", "second block"};
    static const char *const ticks[] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
    const ptrdiff_t shape[4] = {1, BLOCKS, CLASSES, CHANNELS};
    char *path = figure_path(s->plot, "squeeze_excitation", "weights", s->format);
    const qkv_heatmap_options options = {.figure.path = path,
                                         .x_label = "channel",
                                         .y_label = "digit",
                                         .titles = titles,
                                         .y_ticks = ticks,
                                         .palette = QKV_VIRIDIS,
                                         .upper = 1};
    check(qkv_show_heatmaps(&r->first.mean[0][0][0], shape, &options));
    say("wrote %s", path);
    free(path);
}

static void draw_learning(const results *r, const settings *s)
{
    static const char *const colours[NETWORKS][2] = {{"#56b4e9", "#0072b2"},
                                                     {"#f0c9a0", "#d55e00"}};
    curves c = learning_curves(r->accuracy, NETWORKS, (size_t)s->seeds, (size_t)s->epochs,
                               network_names, colours);
    const qkv_panel panel = {.title = "Accuracy on the test images: mean and range of all seeds",
                             .x_label = "epoch",
                             .y_label = "per cent",
                             .y_range = {85, 100},
                             .series = c.series,
                             .n_series = c.n};
    char *path = figure_path(s->plot, "squeeze_excitation", "learning", s->format);
    check(qkv_plot_panels(&panel, 1, 1, &(qkv_figure){.path = path, .width = 6.5, .height = 4}));
    say("wrote %s", path);
    free(path);
    free_curves(&c);
}

/* ---- The program -------------------------------------------------------------------------------
 */

enum { DATA, EPOCHS, SEEDS, SEED, PLOT, FORMAT };

static const command squeeze_excitation = {
    "",
    "Learns to read handwritten digits with a small convolutional network, with and without "
    "squeeze-and-excitation blocks written as attention over the channels, from several seeds, "
    "and draws what weight each channel gets for each digit.",
    (const command_option[]){
        [DATA] = {"data", "FILE", "The images (default: examples/data/digits.npy)."},
        [EPOCHS] = {"epochs", "N", "Passes over the training images (default: 60)."},
        [SEEDS] = {"seeds", "N", "Networks of each kind to train, at most 20 (default: 5)."},
        [SEED] = {"seed", "N", "The first seed, of starts and orders (default: 1)."},
        [PLOT] = {"plot", "DIR",
                  "Draw channel weights and learning into DIR (default: figures; '' for none)."},
        [FORMAT] = {"format", "FORMAT", "Format of the figures: svg (default), png or pdf."},
        {NULL, NULL, NULL}}};

static settings read_settings(int argc, char **argv)
{
    settings s = {.data = "examples/data/digits.npy",
                  .epochs = 60,
                  .seeds = 5,
                  .seed = 1,
                  .plot = "figures",
                  .format = "svg"};
    for (int option; (option = command_next(&squeeze_excitation, argc, argv)) >= 0;) {
        if (option == DATA) s.data = text_argument("data", optarg);
        if (option == EPOCHS) s.epochs = integer_argument("epochs", optarg, 2, 10000);
        if (option == SEEDS) s.seeds = integer_argument("seeds", optarg, 1, MOST_SEEDS);
        if (option == SEED) s.seed = integer_argument("seed", optarg, 0, 1L << 62);
        if (option == PLOT) s.plot = *optarg ? optarg : NULL;
        if (option == FORMAT) s.format = format_argument("format", optarg);
    }
    if (optind < argc) usage_error("unexpected argument '%s'", argv[optind]);
    return s;
}

int main(int argc, char **argv)
{
    clean_up_on_signals();
    use_one_thread();
    const settings s = read_settings(argc, argv);
    digits d = load_digits(s.data);
    if (s.plot) make_directories(s.plot);
    results r = {.accuracy = allocate((size_t)(NETWORKS * s.seeds * s.epochs), sizeof *r.accuracy),
                 .bar = {.label = "learning", .total = NETWORKS * s.seeds * s.epochs}};
    for (long i = 0; i < NETWORKS * s.seeds; i++)
        learn(&d, &s, (int)(i % NETWORKS), i / NETWORKS, &r);
    report(&r, &d, &s);
    if (s.plot) draw_gates(&r, &s);
    if (s.plot) draw_learning(&r, &s);
    free(r.accuracy);
    free_digits(&d);
    return finish();
}
