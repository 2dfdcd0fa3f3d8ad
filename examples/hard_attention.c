/* hard_attention.c - attention that looks at one thing at a time cannot be differentiated, and is
 * learned all the same.
 *
 * A network reads handwritten digits by two glimpses: it knows the mean of each quarter, asks with
 * a query which of the 36 patches of 3 x 3 pixels to see, and after the first asks again (as Mnih
 * et al. 2014 do). The weights are softmax attention over the places. What it then sees is
 *
 *     soft             the patches, averaged under the weights; the gradient is exact
 *     REINFORCE        one patch, drawn with the weights as probabilities p. The gradient of the
 *                      expected loss L is the mean of dL + L d log p (Williams 1992)
 *     with a baseline  the same with (L - b) d log p, b a guess of L made before looking
 *     straight-through one patch, drawn by Gumbel noise; backward pretends that it was the softmax
 *                      of the noisy scores, at temperature 1 (Jang, Gu & Poole 2017): less noise,
 *                      but a bias
 *     at random        one patch, each as likely: to see what it is worth to learn where to look
 *
 * To draw is attention too: hard attention to scores with Gumbel noise as bias draws from their
 * softmax. With 36^2 pairs of glimpses the exact gradient can be had, to judge the others by: each
 * estimate's variance and bias, where the network is that learns with a baseline. */
#include "digits.h"

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

enum { GLIMPSES = 2, ACROSS = 6, PLACES = ACROSS * ACROSS, PATHS = PLACES * PLACES };
enum { PATCH_SIDE = 3, PATCH = PATCH_SIDE * PATCH_SIDE, QUARTERS = 4 };
enum { KEY = 16, VALUE = 32, STATE = 64, BATCH = 64 };

enum { RANDOM, SOFT, REINFORCE, BASELINE, STRAIGHT, METHODS, EXACT };
static const char *const method_names[METHODS] = {"at random", "soft", "REINFORCE",
                                                  "with a baseline", "straight-through"};
static const char *const colours[METHODS][2] = {{"#e0e0e0", "#999999"},
                                                {"#808080", "#000000"},
                                                {"#e69f00", "#d55e00"},
                                                {"#56b4e9", "#0072b2"},
                                                {"#40c99a", "#009e73"}};

/* Streams of random numbers from here on: one an epoch, a step, a draw. */
static const uint64_t ORDERS = 0, STEPS = 1ULL << 32, DRAWS = 1ULL << 48;

enum { MOST_MEASURES = 100, MOST_SEEDS = 20 };
static const double CURIOUS = 0.01;

typedef struct settings {
    const char *data, *plot, *format;
    long epochs, seeds, measures, draws, seed;
} settings;

/* ---- Images, patch by patch --------------------------------------------------------------------
 */

typedef struct batch {
    ptrdiff_t n;
    float quarters[BATCH * QUARTERS], patches[BATCH * PLACES * PATCH], label[BATCH * CLASSES];
    ptrdiff_t digit[BATCH];
} batch;

/* The images order[0..n). */
static void fill_batch(batch *b, const digits *d, const ptrdiff_t *order, ptrdiff_t n)
{
    *b = (batch){.n = n};
    for (ptrdiff_t i = 0; i < n; i++) {
        const float *image = d->pixels + order[i] * PIXELS;
        for (int p = 0; p < PIXELS; p++) {
            const int quarter = p / SIDE / 4 * 2 + p % SIDE / 4;
            b->quarters[i * QUARTERS + quarter] += image[p] / (PIXELS / QUARTERS);
        }
        for (int row = 0; row < PLACES * PATCH_SIDE; row++) { /* of a patch */
            const int place = row / PATCH_SIDE, top = place / ACROSS, left = place % ACROSS;
            memcpy(b->patches + (i * PLACES * PATCH_SIDE + row) * PATCH_SIDE,
                   image + (top + row % PATCH_SIDE) * SIDE + left, PATCH_SIDE * sizeof *image);
        }
        b->digit[i] = d->label[order[i]];
        b->label[i * CLASSES + b->digit[i]] = 1;
    }
}

/* ---- The network -------------------------------------------------------------------------------
 */

typedef struct network {
    qkv_tape *t;
    qkv_parameters *set;
    uint64_t seed;
    float noise[GLIMPSES][BATCH * PLACES]; /* added to the scores where one place is drawn */
    bool forced;         /* the noise left no choice: a path counts by its probability */
    const float *values; /* of the patches, where only what decides where to look is to learn */
} network;

/* The parameter of that name; it is made when it is asked for the first time. */
static qkv_var parameter(network *net, const char *name, qkv_shape shape, qkv_initial rule)
{
    if (!qkv_parameters_find(net->set, name)) {
        const qkv_initializer how = {.rule = rule, .seed = net->seed};
        check(qkv_parameters_add(net->set, name, shape, &how));
    }
    return qkv_parameters_leaf(net->t, net->set, name);
}

/* relu(x W + b), x [.., in]. */
static qkv_var layer(network *net, const char *name, qkv_var x, ptrdiff_t in, ptrdiff_t out)
{
    char bias[32];
    snprintf(bias, sizeof bias, "%s.bias", name);
    x = qkv_matmul(net->t, x, parameter(net, name, qkv_shape2(in, out), QKV_INIT_HE));
    return qkv_relu(net->t, qkv_add(net->t, x, parameter(net, bias, qkv_shape1(out), 0)));
}

/* The weights of the places, [n, PLACES]: with values that are the identity, attention answers with
 * its weights. noise NULL: none. */
static qkv_var weights(network *net, qkv_var query, qkv_normalize how, const float *noise)
{
    static float identity[PLACES * PLACES];
    for (int i = 0; i < PLACES; i++) identity[i * PLACES + i] = 1;
    const ptrdiff_t n = qkv_shape_of(net->t, query).dim[0];
    const qkv_attention a = {.normalize = how};
    qkv_attend_vars in = {.q = query,
                          .k = parameter(net, "keys", qkv_shape2(PLACES, KEY), QKV_INIT_NORMAL),
                          .v = qkv_leaf_f32(net->t, qkv_shape2(PLACES, PLACES), identity, NULL)};
    if (noise) in.bias = qkv_leaf_f32(net->t, qkv_shape4(1, 1, n, PLACES), noise, NULL);
    return qkv_attend(net->t, &a, &in);
}

static qkv_var sum_rows(network *net, qkv_var x)
{
    return qkv_sum(net->t, x, &(int){1}, 1, false);
}

/* What came of looking at n images. */
typedef struct looked {
    qkv_var scores;            /* of the digits, [n, CLASSES] */
    qkv_var weights[GLIMPSES]; /* of the places, [n, PLACES] */
    qkv_var log_p;             /* of the places drawn, [n] */
    qkv_var entropy;           /* of the weights of both glimpses together, [n] */
    qkv_var guess;             /* of the loss, before looking, [n] */
} looked;

/* What there is to see, [n, PLACES, VALUE]. */
static qkv_var values_of(network *net, const batch *b)
{
    if (net->values)
        return qkv_leaf_f32(net->t, qkv_shape3(b->n, PLACES, VALUE), net->values, NULL);
    qkv_var patches = qkv_leaf_f32(net->t, qkv_shape3(b->n, PLACES, PATCH), b->patches, NULL);
    qkv_var places = parameter(net, "places", qkv_shape2(PLACES, VALUE), QKV_INIT_GLOROT);
    return qkv_add(net->t, layer(net, "values", patches, PATCH, VALUE), places);
}

static looked look(network *net, const batch *b, int method)
{
    const ptrdiff_t n = b->n;
    looked l;
    qkv_var quarters = qkv_leaf_f32(net->t, qkv_shape2(n, QUARTERS), b->quarters, NULL);
    qkv_var values = values_of(net, b);
    qkv_var state = layer(net, "start", quarters, QUARTERS, STATE);
    qkv_var w = parameter(net, "guess", qkv_shape2(STATE, 1), QKV_INIT_ZEROS);
    l.guess = sum_rows(net, qkv_matmul(net->t, qkv_detach(net->t, state), w));
    for (int g = 0; g < GLIMPSES; g++) {
        w = parameter(net, "query", qkv_shape2(STATE, KEY), QKV_INIT_GLOROT);
        qkv_var query = qkv_matmul(net->t, state, w);
        if (method == RANDOM) query = qkv_mul(net->t, query, qkv_constant(net->t, 0));
        qkv_var score = weights(net, query, QKV_NONE_IDENTITY, NULL);
        qkv_var soft = weights(net, query, QKV_SOFTMAX, NULL);
        qkv_var hard = weights(net, query, QKV_HARD, net->noise[g]);
        qkv_var log_soft = qkv_log_softmax(net->t, score, 1);
        qkv_var log_p = sum_rows(net, qkv_mul(net->t, hard, log_soft));
        qkv_var entropy = qkv_neg(net->t, sum_rows(net, qkv_mul(net->t, soft, log_soft)));
        l.log_p = g == 0 ? log_p : qkv_add(net->t, l.log_p, log_p);
        l.entropy = g == 0 ? entropy : qkv_add(net->t, l.entropy, entropy);
        l.weights[g] = method == SOFT ? soft : hard;
        if (method == STRAIGHT) { /* of the value of hard, with the gradient of the softmax */
            qkv_var noisy = weights(net, query, QKV_SOFTMAX, net->noise[g]);
            noisy = qkv_sub(net->t, noisy, qkv_detach(net->t, noisy));
            l.weights[g] = qkv_add(net->t, hard, noisy);
        }
        qkv_var row = qkv_reshape(net->t, l.weights[g], qkv_shape3(n, 1, PLACES));
        qkv_var seen = qkv_reshape(net->t, qkv_matmul(net->t, row, values), qkv_shape2(n, VALUE));
        state = qkv_concat(net->t, (const qkv_var[]){state, seen}, 2, 1);
        state = layer(net, "state", state, STATE + VALUE, STATE);
    }
    w = parameter(net, "digits", qkv_shape2(STATE, CLASSES), QKV_INIT_GLOROT);
    l.scores = qkv_matmul(net->t, state, w);
    return l;
}

/* What backward starts from. curious: what a unit of entropy is worth, so that the eye does not
 * settle before it has looked around (Williams & Peng 1991). */
static qkv_var loss_of(network *net, const batch *b, int method, double curious)
{
    qkv_tape *t = net->t;
    const looked l = look(net, b, method);
    qkv_var label = qkv_leaf_f32(t, qkv_shape2(b->n, CLASSES), b->label, NULL);
    qkv_var loss =
        qkv_neg(t, sum_rows(net, qkv_mul(t, label, qkv_log_softmax(t, l.scores, 1)))); /* [n] */
    if (method == REINFORCE)
        loss = qkv_add(t, loss, qkv_mul(t, qkv_detach(t, loss), l.log_p));
    else if (method == BASELINE) {
        qkv_var surprise = qkv_sub(t, qkv_detach(t, loss), l.guess);
        loss = qkv_add(t, loss, qkv_mul(t, qkv_detach(t, surprise), l.log_p));
        loss = qkv_add(t, loss, qkv_mul(t, surprise, surprise)); /* the guess learns, too */
    }
    if (net->forced) {
        qkv_var p = qkv_exp(t, l.log_p);
        loss = qkv_mul(t, method == EXACT ? p : qkv_detach(t, p), loss);
    }
    if (curious > 0) loss = qkv_sub(t, loss, qkv_mul(t, qkv_constant(t, curious), l.entropy));
    return qkv_mean(t, loss, NULL, 0, false);
}

/* The noise under which hard attention draws from the softmax: Gumbel's distribution. */
static void draw_noise(network *net, uint64_t stream)
{
    net->forced = false;
    for (size_t g = 0; g < GLIMPSES; g++)
        for (size_t i = 0; i < BATCH * PLACES; i++) {
            const double u = qkv_random_uniform(net->seed, stream, g * BATCH * PLACES + i);
            net->noise[g][i] = (float)-log(-log(u));
        }
}

/* Noise that leaves no choice. */
static void force_path(network *net, int path)
{
    net->forced = true;
    for (int i = 0; i < BATCH * PLACES; i++) {
        net->noise[0][i] = i % PLACES == path / PLACES ? 1e6F : 0;
        net->noise[1][i] = i % PLACES == path % PLACES ? 1e6F : 0;
    }
}

/* The parameters come into being when the network computes for the first time. */
static network new_network(uint64_t seed)
{
    network net = {.seed = seed};
    static const batch one = {.n = 1};
    check(qkv_tape_new(&net.t, QKV_F32));
    check(qkv_parameters_new(&net.set, QKV_F32));
    look(&net, &one, SOFT);
    check(qkv_tape_status(net.t));
    qkv_tape_reset(net.t);
    return net;
}

static void free_network(network *net)
{
    qkv_parameters_free(net->set);
    qkv_tape_free(net->t);
}

/* ---- The noise of gradients --------------------------------------------------------------------
 */

enum { POLICY = (STATE + PLACES) * KEY }; /* numbers that say where to look */

/* gradient[POLICY] = that of the loss of method, by the query's and the keys' parameters: of the
 * noise there is, or the mean over all paths. */
static void gradient_of(network *net, const batch *b, int method, bool all_paths, double *gradient)
{
    for (size_t i = 0; i < qkv_parameters_count(net->set); i++) {
        const qkv_parameter *p = qkv_parameters_at(net->set, i);
        memset(p->gradient, 0, p->size * sizeof(float));
    }
    for (int path = 0; path < (all_paths ? PATHS : 1); path++) {
        if (all_paths) force_path(net, path);
        check(qkv_backward(net->t, loss_of(net, b, method, 0)));
        qkv_tape_reset(net->t);
    }
    const float *query = qkv_parameters_find(net->set, "query")->gradient;
    const float *keys = qkv_parameters_find(net->set, "keys")->gradient;
    for (int i = 0; i < POLICY; i++)
        gradient[i] = i < STATE * KEY ? query[i] : keys[i - STATE * KEY];
}

static double square_distance(const double *a, const double *b)
{
    double sum = 0;
    for (int i = 0; i < POLICY; i++) sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sum;
}

/* An estimate of the gradient, from many draws of the same images. */
typedef struct noise {
    double variance; /* of one draw: the mean squared distance from the mean */
    double bias; /* the distance of the mean from the exact gradient, without what chance adds */
} noise;

static noise measure(network *net, const batch *b, int method, long draws, const double *exact)
{
    double mean[POLICY] = {0}, one[POLICY], sum = 0;
    for (long d = 0; d < draws; d++) {
        draw_noise(net, DRAWS + (uint64_t)d);
        gradient_of(net, b, method, false, one);
        for (int i = 0; i < POLICY; i++) { /* Welford's update */
            const double change = one[i] - mean[i];
            mean[i] += change / (double)(d + 1);
            sum += change * (one[i] - mean[i]);
        }
    }
    const double variance = sum / (double)(draws - 1);
    const double apart = square_distance(mean, exact) - variance / (double)draws;
    return (noise){.variance = variance, .bias = sqrt(fmax(0, apart))};
}

/* ---- Learning and testing ----------------------------------------------------------------------
 */

/* What the test images show of a network. */
typedef struct tested {
    double accuracy; /* per cent */
    /* How often each pixel was seen, for each digit; before that, the mean image. */
    double seen[1 + GLIMPSES][CLASSES][PIXELS];
} tested;

static void add_seen(const batch *b, const float *image, ptrdiff_t i, int glimpse,
                     const float *weight, double share, tested *to)
{
    double *seen = to->seen[1 + glimpse][b->digit[i]], *mean = to->seen[0][b->digit[i]];
    for (int p = 0; glimpse == 0 && p < PIXELS; p++) mean[p] += share * image[p];
    for (int at = 0; at < PLACES * PATCH; at++) {
        const int place = at / PATCH, row = at % PATCH / PATCH_SIDE, column = at % PATCH_SIDE;
        seen[(place / ACROSS + row) * SIDE + place % ACROSS + column] += share * weight[place];
    }
}

/* Without noise: hard attention looks where the weight is largest. At random it draws. */
static tested test(network *net, const digits *d, int method)
{
    tested result = {0};
    double share[CLASSES];
    ptrdiff_t right = 0;
    static batch b;
    class_shares(d, share);
    memset(net->noise, 0, sizeof net->noise);
    for (ptrdiff_t first = d->n_train, n; first < d->n; first += n) {
        ptrdiff_t order[BATCH];
        for (n = 0; n < BATCH && first + n < d->n; n++) order[n] = first + n;
        fill_batch(&b, d, order, n);
        if (method == RANDOM) draw_noise(net, DRAWS + (uint64_t)first);
        qkv_no_grad_begin(net->t);
        const looked l = look(net, &b, method);
        const float *score = qkv_value_f32(net->t, l.scores), *weight[GLIMPSES];
        for (int g = 0; g < GLIMPSES; g++) weight[g] = qkv_value_f32(net->t, l.weights[g]);
        check(qkv_tape_status(net->t));
        right += count_right(score, b.digit, n);
        for (ptrdiff_t i = 0; i < n; i++)
            for (int g = 0; g < GLIMPSES; g++)
                add_seen(&b, d->pixels + (first + i) * PIXELS, i, g, weight[g] + i * PLACES,
                         share[b.digit[i]], &result);
        qkv_tape_reset(net->t);
    }
    result.accuracy = 100.0 * (double)right / (double)(d->n - d->n_train);
    return result;
}

typedef struct results {
    double *accuracy;             /* [METHODS, seeds, epochs] of the test images */
    double one_place[MOST_SEEDS]; /* of soft attention, if it may look at one place only */
    tested last[METHODS];         /* of the first seed */
    size_t n;                     /* measurements, on the way of that network */
    double epoch[MOST_MEASURES];
    double norm, bias[METHODS]; /* when measured first: of the exact gradient, of all paths */
    progress bar;               /* of epochs */
    long done;
    noise noise[METHODS][MOST_MEASURES];
} results;

/* For gradients of these images by where to look: what there is to see stays the same. */
static void keep_values(network *net, const batch *b)
{
    static float values[BATCH * PLACES * VALUE];
    qkv_no_grad_begin(net->t);
    const float *computed = qkv_value_f32(net->t, values_of(net, b));
    check(qkv_tape_status(net->t));
    memcpy(values, computed, (size_t)b->n * PLACES * VALUE * sizeof *values);
    qkv_tape_reset(net->t);
    net->values = values;
}

/* The gradients of the first images in the order, as all methods would estimate them here; the
 * first time, what REINFORCE gives in the mean over all paths, too. */
static void measure_all(network *net, const digits *d, const ptrdiff_t *order, const settings *s,
                        double epoch, results *r)
{
    static batch b;
    static const double zero[POLICY];
    double exact[POLICY], mean[POLICY];
    fill_batch(&b, d, order, d->n_train < BATCH ? d->n_train : BATCH);
    keep_values(net, &b);
    gradient_of(net, &b, EXACT, true, exact);
    for (int method = REINFORCE; method < METHODS; method++)
        r->noise[method][r->n] = measure(net, &b, method, s->draws, exact);
    if (r->n == 0) r->norm = sqrt(square_distance(exact, zero));
    for (int method = REINFORCE; method <= BASELINE && r->n == 0; method++) {
        gradient_of(net, &b, method, true, mean);
        r->bias[method] = sqrt(square_distance(mean, exact));
    }
    r->epoch[r->n++] = epoch;
    net->values = NULL;
}

static void learn(const digits *d, const settings *s, int method, long seed_number, results *r)
{
    static batch b;
    network net = new_network((uint64_t)(s->seed + seed_number));
    const long batches = (d->n_train + BATCH - 1) / BATCH;
    const qkv_schedule schedule = {
        .rate = 0.003, .decay = QKV_DECAY_COSINE, .warmup = 10, .steps = s->epochs * batches + 10};
    double *accuracy = r->accuracy + (method * s->seeds + seed_number) * s->epochs;
    ptrdiff_t *order = allocate((size_t)d->n_train, sizeof *order);
    tested last = {0};
    qkv_optimizer *optimizer;
    check(qkv_adam_new(&optimizer, NULL));
    check(qkv_optimizer_add_parameters(optimizer, net.set));
    for (long i = 0; i < s->epochs * batches; i++) {
        const ptrdiff_t begin = i % batches * BATCH, left = d->n_train - begin;
        const long epoch = i / batches;
        if (begin == 0) shuffle(order, d->n_train, net.seed, ORDERS + (uint64_t)epoch);
        fill_batch(&b, d, order + begin, left < BATCH ? left : BATCH);
        if (method != SOFT) draw_noise(&net, STEPS + (uint64_t)i);
        qkv_optimizer_zero_gradients(optimizer);
        check(qkv_backward(net.t, loss_of(&net, &b, method, method > SOFT ? CURIOUS : 0)));
        qkv_tape_reset(net.t);
        check(qkv_optimizer_set_rate(optimizer, qkv_schedule_rate(&schedule, i)));
        check(qkv_optimizer_step(optimizer));
        if (left > BATCH) continue;
        last = test(&net, d, method);
        accuracy[epoch] = last.accuracy;
        progress_show(&r->bar, ++r->done, "%s", method_names[method]);
        if (method == BASELINE && seed_number == 0 &&
            (epoch + 1) * s->measures / s->epochs > epoch * s->measures / s->epochs)
            measure_all(&net, d, order, s, (double)(epoch + 1), r);
    }
    if (method == SOFT) r->one_place[seed_number] = test(&net, d, REINFORCE).accuracy;
    if (seed_number == 0) r->last[method] = last;
    qkv_optimizer_free(optimizer);
    free(order);
    free_network(&net);
}

/* ---- Telling and drawing -----------------------------------------------------------------------
 */

static void print_accuracy(const char *name, const double *x, long n)
{
    printf("  %-18s %6.2f", name, mean_of(x, n));
    if (n > 1) printf("  %5.2f", deviation_of(x, n));
    putchar('\n');
}

static void report(const results *r, const digits *d, const settings *s)
{
    printf("Accuracy on %td images after %ld epochs of %td others, in per cent: mean%s\n",
           d->n - d->n_train, s->epochs, d->n_train, s->seeds > 1 ? " and deviation of seeds" : "");
    for (int method = 0; method < METHODS; method++) {
        double end[MOST_SEEDS];
        for (long i = 0; i < s->seeds; i++)
            end[i] = r->accuracy[(method * s->seeds + i + 1) * s->epochs - 1];
        print_accuracy(method_names[method], end, s->seeds);
        if (method == SOFT) print_accuracy("  at one place", r->one_place, s->seeds);
    }
    if (r->n == 0) return;
    printf("\nThe gradient by what decides where to look, after %g epochs, estimated %ld times "
           "from the "
           "same\nimages and parameters. Its exact norm is %.3g. The bias is of the draws, and of "
           "the mean "
           "over\nall %d pairs of places, which straight-through does not have.\n"
           "                     variance      bias    chance  all pairs\n",
           r->epoch[0], s->draws, r->norm, PATHS);
    for (int method = REINFORCE; method < METHODS; method++) {
        const noise *n = &r->noise[method][0];
        printf("  %-18s %9.3g %9.2g %9.2g", method_names[method], n->variance, n->bias,
               sqrt(n->variance / (double)s->draws));
        if (method == STRAIGHT)
            printf("\n");
        else
            printf("  %9.2g\n", r->bias[method]);
    }
}

static void draw_learning(const results *r, const settings *s)
{
    double variance[METHODS][MOST_MEASURES];
    qkv_series noises[METHODS];
    for (size_t m = REINFORCE; m < METHODS; m++) {
        for (size_t i = 0; i < r->n; i++) variance[m][i] = r->noise[m][i].variance;
        noises[m] = (qkv_series){
            QKV_LINE, NULL, r->n, r->epoch, variance[m], .size = 2, .colour = colours[m][1]};
    }
    curves c = learning_curves(r->accuracy, METHODS, (size_t)s->seeds, (size_t)s->epochs,
                               method_names, colours);
    const qkv_panel panels[] = {
        {.title = "Accuracy on the test images: mean and range of the seeds",
         .x_label = "epoch",
         .y_label = "per cent",
         .y_range = {40, 100},
         .series = c.series,
         .n_series = c.n},
        {.title = "Variance of the gradient estimates",
         .x_label = "epoch",
         .log_y = true,
         .series = noises + REINFORCE,
         .n_series = METHODS - REINFORCE}};
    const int n = r->n > 1 ? 2 : 1; /* a line of variances needs two */
    char *path = figure_path(s->plot, "hard_attention", "learning", s->format);
    check(
        qkv_plot_panels(panels, 1, n, &(qkv_figure){.path = path, .width = 5 * n, .height = 4.2}));
    say("wrote %s", path);
    free(path);
    free_curves(&c);
}

/* The mean images, and how often each pixel is seen, by soft and by hard attention. */
static void draw_glimpses(const results *r, const settings *s)
{
    enum { ROWS = 1 + 2 * GLIMPSES };
    static const char *const rows[ROWS] = {"mean", "soft 1", "soft 2", "hard 1", "hard 2"};
    static const char *const columns[] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
    static const char *const none[SIDE] = {"", "", "", "", "", "", "", ""};
    static double seen[ROWS][CLASSES][PIXELS];
    memcpy(seen, r->last[SOFT].seen, sizeof r->last[SOFT].seen);
    memcpy(seen[1 + GLIMPSES], r->last[BASELINE].seen[1], GLIMPSES * sizeof *seen);
    const ptrdiff_t shape[4] = {ROWS, CLASSES, SIDE, SIDE};
    char *path = figure_path(s->plot, "hard_attention", "glimpses", s->format);
    const qkv_heatmap_options options = {.figure.path = path,
                                         .figure.width = 10,
                                         .figure.height = 5.2,
                                         .y_labels = rows,
                                         .titles = columns,
                                         .x_ticks = none,
                                         .y_ticks = none,
                                         .upper = 1};
    check(qkv_show_heatmaps(&seen[0][0][0], shape, &options));
    say("wrote %s", path);
    free(path);
}

/* ---- The program -------------------------------------------------------------------------------
 */

enum { DATA, EPOCHS, SEEDS, MEASURE, DRAW, SEED, PLOT, FORMAT };

static const command hard_attention = {
    "",
    "Learns where to look, and to read handwritten digits by two glimpses, with soft attention and "
    "with hard attention by REINFORCE, with a baseline, and by the straight-through Gumbel "
    "estimator; compares accuracy, and variance and bias of the gradients.",
    (const command_option[]){
        [DATA] = {"data", "FILE", "The images (default: examples/data/digits.npy)."},
        [EPOCHS] = {"epochs", "N", "Passes over the training images (default: 60)."},
        [SEEDS] = {"seeds", "N", "Networks to train by each method, at most 20 (default: 5)."},
        [MEASURE] = {"measure", "N",
                     "How often the noise of gradients is measured on the way (default: 10); it is "
                     "drawn from 2 on."},
        [DRAW] = {"draws", "N", "Estimates of a gradient to measure their noise (default: 400)."},
        [SEED] = {"seed", "N", "The first seed, of starts, orders and draws (default: 1)."},
        [PLOT] = {"plot", "DIR",
                  "Draw learning and glimpses into DIR (default: figures; '' for none)."},
        [FORMAT] = {"format", "FORMAT", "Format of the figures: svg (default), png or pdf."},
        {NULL, NULL, NULL}}};

static settings read_settings(int argc, char **argv)
{
    settings s = {.data = "examples/data/digits.npy", .plot = "figures", .format = "svg"};
    s.epochs = 60, s.seeds = 5, s.measures = 10, s.draws = 400, s.seed = 1;
    for (int option; (option = command_next(&hard_attention, argc, argv)) >= 0;) {
        if (option == DATA) s.data = text_argument("data", optarg);
        if (option == EPOCHS) s.epochs = integer_argument("epochs", optarg, 2, 10000);
        if (option == SEEDS) s.seeds = integer_argument("seeds", optarg, 1, MOST_SEEDS);
        if (option == MEASURE) s.measures = integer_argument("measure", optarg, 0, MOST_MEASURES);
        if (option == DRAW) s.draws = integer_argument("draws", optarg, 2, 1000000);
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
    static results r;
    r.accuracy = allocate((size_t)(METHODS * s.seeds * s.epochs), sizeof *r.accuracy);
    r.bar = (progress){.label = "learning", .total = METHODS * s.seeds * s.epochs};
    for (long i = 0; i < METHODS * s.seeds; i++) learn(&d, &s, (int)(i % METHODS), i / METHODS, &r);
    report(&r, &d, &s);
    if (s.plot) draw_learning(&r, &s);
    if (s.plot) draw_glimpses(&r, &s);
    free(r.accuracy);
    free_digits(&d);
    return finish();
}
