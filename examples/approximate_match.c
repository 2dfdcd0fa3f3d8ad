/* approximate_match - exercise 1 of the chapter: the attention function that a database's
 * approximate match of keys and queries is. The score is a distance, and what SQL says behind it
 * is the normaliser:
 *
 *     WHERE key = q                      boxcar, narrower than any difference
 *     ORDER BY distance LIMIT 1          hard
 *     ORDER BY distance LIMIT k          top-k, uniform, or softmax: nearer ones count more
 *     WHERE distance <= r                boxcar; not normalised it counts the records
 *     ORDER BY distance LIMIT 1, nearly  softmax of -distance^2 / 2 t^2: the smaller t, the nearer
 *
 * Every answer is compared with a search written as plain loops, and its gradient by the query with
 * differences of that search. A search answers in steps, flat between its jumps; where weights fade
 * with distance there is a slope to descend. */
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "qkv/attention.h"
#include "qkv/plot.h"
#include "src/random.h"

typedef struct settings {
    long records, queries, dim, k, seed;
    double radius, temperature;
    const char *plot, *format;
} settings;

typedef struct database {
    ptrdiff_t n, d;
    double *keys, *values; /* [n, d], [n] */
} database;

enum { EXACT, NEAREST, K_NEAREST, K_WEIGHTED, RANGE, COUNT, FADING, SOFT, MATCHES };

static const struct {
    const char *name, *attention;
    qkv_normalize normalize;
    qkv_kernel kernel; /* of those that have one */
} matches[MATCHES] = {
    [EXACT] = {"exact", "boxcar, all but 0 wide", QKV_KERNEL_SUM, QKV_KERNEL_BOXCAR},
    [NEAREST] = {"nearest", "hard", .normalize = QKV_HARD},
    [K_NEAREST] = {"k nearest", "top-k, uniform", .normalize = QKV_TOP_K_UNIFORM},
    [K_WEIGHTED] = {"k nearest, weighted", "top-k, softmax", .normalize = QKV_TOP_K},
    [RANGE] = {"range", "boxcar", QKV_KERNEL_SUM, QKV_KERNEL_BOXCAR},
    [COUNT] = {"count in range", "boxcar, no sum", QKV_NONE_KERNEL, QKV_KERNEL_BOXCAR},
    [FADING] = {"fading range", "Epanechnikov", QKV_KERNEL_SUM, QKV_KERNEL_EPANECHNIKOV},
    [SOFT] = {"nearest, nearly", "softmax", .normalize = QKV_SOFTMAX}};

/* What a distance is divided by. */
static double width_of(int match, const settings *s)
{
    if (match == EXACT) return 1e-12;
    if (match == SOFT) return s->temperature;
    return match == NEAREST || match == K_NEAREST ? 1 : s->radius;
}

/* ---- The records ----------------------------------------------------------------------------- */

enum { TOWNS = 12, TOWN, PLACE, NOISE, CHOICE, STEP, COPY }; /* and streams of random numbers */
static const double town_size = 0.06;

static double town_centre(const settings *s, long town, long axis)
{
    return qkv_random_uniform((uint64_t)s->seed, TOWN, (uint64_t)(town * s->dim + axis));
}

/* Places in towns, each fifth in the country; one in a hundred is where the place before it is. A
 * value varies with the place, and a little beside. */
static database make_database(const settings *s)
{
    database d = {s->records, s->dim, NULL, NULL};
    d.keys = allocate((size_t)(d.n * d.d), sizeof *d.keys);
    d.values = allocate((size_t)d.n, sizeof *d.values);
    uint64_t seed = (uint64_t)s->seed;
    for (long i = 0; i < d.n; i++) {
        double *key = d.keys + i * d.d, wave = 0;
        bool copy = i > 0 && qkv_random_uniform(seed, COPY, (uint64_t)i) < 0.01;
        long town = (long)(1.25 * TOWNS * qkv_random_uniform(seed, CHOICE, (uint64_t)i));
        for (long c = 0; c < d.d; c++) {
            uint64_t at = (uint64_t)(i * d.d + c);
            key[c] = copy ? key[c - d.d]
                     : town < TOWNS
                         ? town_centre(s, town, c) + town_size * qkv_random_normal(seed, PLACE, at)
                         : qkv_random_uniform(seed, PLACE, at);
            wave += sin(25 * key[c] + (double)c);
        }
        d.values[i] = wave + 0.5 * qkv_random_normal(seed, NOISE, (uint64_t)i);
    }
    return d;
}

/* Every second query is the key of a record, the others are close to one. */
static double *make_queries(const settings *s, const database *d)
{
    double *q = allocate((size_t)(s->queries * d->d), sizeof *q);
    for (long i = 0; i < s->queries; i++) {
        double u = qkv_random_uniform((uint64_t)s->seed, STEP, (uint64_t)(2 * i));
        const double *key = d->keys + (long)(u * (double)d->n) * d->d;
        for (long c = 0; c < d->d; c++) {
            double step =
                qkv_random_normal((uint64_t)s->seed, STEP + 100, (uint64_t)(i * d->d + c));
            q[i * d->d + c] = key[c] + (i % 2 ? s->radius * step : 0);
        }
    }
    return q;
}

/* ---- By attention ---------------------------------------------------------------------------- */

/* Answers [n_q] to queries [n_q, d], the weights [n_q, n] they have and their gradients [n_q, d]
 * by the query; either of the two may be NULL. */
static void attend(const database *d, const settings *s, int match, double width, double *q,
                   ptrdiff_t n_q, double *answers, double *weights, double *gradient)
{
    const qkv_attention a = {.batch = 1,
                             .heads = 1,
                             .n_q = n_q,
                             .n_k = d->n,
                             .d_k = d->d,
                             .d_v = 1,
                             .bandwidths = 1,
                             .score = QKV_SCORE_GAUSSIAN,
                             .normalize = matches[match].normalize,
                             .kernel = matches[match].kernel,
                             .top_k = match == K_NEAREST || match == K_WEIGHTED ? s->k : 0};
    double *ones = allocate((size_t)(d->n + n_q), sizeof *ones);
    for (ptrdiff_t i = 0; i < d->n + n_q; i++) ones[i] = 1;
    double *most = allocate((size_t)n_q, sizeof *most), *sum = allocate((size_t)n_q, sizeof *sum);
    const qkv_operands_f64 in = {.q.data = q,
                                 .k.data = d->keys,
                                 .v.data = match == COUNT ? ones : d->values,
                                 .bandwidth.data = &width};
    const qkv_operands_f64 d_in = {.q.data = gradient};
    const qkv_results_f64 out = {
        .o.data = answers, .row_max.data = most, .row_log_sum.data = sum, .weights.data = weights};
    const qkv_results_f64 d_out = {.o.data = ones + d->n};
    size_t bytes, backward;
    check(qkv_attention_workspace(&a, QKV_FORWARD, QKV_F64, &bytes));
    check(qkv_attention_workspace(&a, QKV_BACKWARD, QKV_F64, &backward));
    if (backward > bytes) bytes = backward;
    void *workspace = allocate(bytes, 1);
    check(qkv_attention_forward_f64(&a, &in, &out, workspace, bytes));
    if (gradient) check(qkv_attention_backward_f64(&a, &in, &out, &d_out, &d_in, workspace, bytes));
    free(workspace), free(ones), free(most), free(sum);
}

/* ---- By search ------------------------------------------------------------------------------- */

typedef struct found {
    double distance;
    ptrdiff_t record;
} found;

static int nearer(const void *x, const void *y)
{
    const found *a = x, *b = y;
    if (a->distance != b->distance) return a->distance < b->distance ? -1 : 1;
    return (a->record > b->record) - (a->record < b->record);
}

/* How much the record that is nearest but rank counts. */
static double counts(int match, ptrdiff_t rank, double distance, double nearest, const settings *s)
{
    double width = width_of(match, s), u = distance / width, least = nearest / width;
    switch (match) {
    case EXACT:
        return distance == 0;
    case NEAREST:
        return rank == 0;
    case K_NEAREST:
        return rank < s->k;
    case K_WEIGHTED:
        return rank < s->k ? exp((least * least - u * u) / 2) : 0;
    case FADING:
        return fmax(0, 1 - u * u);
    case SOFT:
        return exp((least * least - u * u) / 2);
    default:
        return distance <= s->radius;
    }
}

/* All records in order of their distance, the first to be asked first; to be freed. */
static found *sort_records(const database *d, const double *q)
{
    found *f = allocate((size_t)d->n, sizeof *f);
    for (ptrdiff_t j = 0; j < d->n; j++) {
        double square = 0;
        for (ptrdiff_t c = 0; c < d->d; c++)
            square += (q[c] - d->keys[j * d->d + c]) * (q[c] - d->keys[j * d->d + c]);
        f[j] = (found){sqrt(square), j};
    }
    qsort(f, (size_t)d->n, sizeof *f, nearer);
    return f;
}

/* The answer; and, unless counted is NULL, what each record counts, [n]. NaN: no record does. */
static double search(const database *d, const settings *s, int match, const found *f,
                     double *counted)
{
    double sum = 0, weighted = 0;
    for (ptrdiff_t rank = 0; rank < d->n; rank++) {
        double w = counts(match, rank, f[rank].distance, f[0].distance, s);
        if (counted) counted[f[rank].record] = w;
        sum += w;
        weighted += w * d->values[f[rank].record];
    }
    return match == COUNT ? sum : weighted / sum;
}

/* ---- One against the other ------------------------------------------------------------------- */

/* Of the queries. A slope is compared where the search has an answer on all sides. */
typedef struct verdict {
    long answered, same, compared, agreed;
    double difference, steepness; /* of answers, the largest; of gradients, the sum of the norms */
} verdict;

/* The slope of each search along an axis, by central differences of fourth order. */
static void slopes_of(const database *d, const settings *s, double *q, ptrdiff_t axis,
                      double slopes[MATCHES])
{
    static const double at[] = {1, -1, 2, -2}, factor[] = {8, -8, -1, 1};
    const double step = 1e-5 * fmin(s->radius, s->temperature), here = q[axis];
    for (int match = 0; match < MATCHES; match++) slopes[match] = 0;
    for (int i = 0; i < 4; i++) {
        q[axis] = here + at[i] * step;
        found *f = sort_records(d, q);
        for (int match = 0; match < MATCHES; match++)
            slopes[match] += factor[i] * search(d, s, match, f, NULL) / (12 * step);
        free(f);
    }
    q[axis] = here;
}

/* Whether the records with a weight are those that the search finds, where that is more than what
 * underflows; of the softmax, which weighs all, whether none weighs more than the nearest. */
static bool same_records(int match, const double *weights, const double *counted, ptrdiff_t n)
{
    const double tiny = 1e-290;
    ptrdiff_t best = 0;
    for (ptrdiff_t j = 0; j < n; j++) {
        bool one_alone =
            (weights[j] > tiny && counted[j] == 0) || (counted[j] > tiny && weights[j] == 0);
        if (match != SOFT && one_alone) return false;
        if (counted[j] > counted[best]) best = j;
    }
    for (ptrdiff_t j = 0; match == SOFT && j < n; j++)
        if (weights[j] > weights[best]) return false;
    return true;
}

/* slopes [d, MATCHES] */
static void judge_gradient(verdict *v, const double *gradient, const double *slopes, ptrdiff_t d)
{
    bool there = true, agrees = true;
    double square = 0;
    for (ptrdiff_t c = 0; c < d; c++) {
        double slope = slopes[c * MATCHES];
        there &= !isnan(slope);
        agrees &= fabs(gradient[c] - slope) <= 1e-5 * (1 + fabs(slope));
        square += gradient[c] * gradient[c];
    }
    v->compared += there;
    v->agreed += there && agrees;
    v->steepness += sqrt(square);
}

static void judge_query(const database *d, const settings *s, double *q, verdict all[MATCHES])
{
    double *weights = allocate((size_t)d->n, sizeof *weights);
    double *counted = allocate((size_t)d->n, sizeof *counted);
    double *slopes = allocate((size_t)d->d * MATCHES, sizeof *slopes);
    double *gradient = allocate((size_t)d->d, sizeof *gradient);
    for (ptrdiff_t c = 0; c < d->d; c++) slopes_of(d, s, q, c, slopes + c * MATCHES);
    found *f = sort_records(d, q);
    for (int match = 0; match < MATCHES; match++) {
        verdict *v = &all[match];
        double answer;
        memset(gradient, 0, (size_t)d->d * sizeof *gradient);
        attend(d, s, match, width_of(match, s), q, 1, &answer, weights, gradient);
        double expected = search(d, s, match, f, counted);
        v->same += same_records(match, weights, counted, d->n);
        if (isnan(answer) && isnan(expected)) continue; /* no record is there for either */
        v->answered++;
        v->difference =
            fmax(v->difference, isnan(answer - expected) ? INFINITY : fabs(answer - expected));
        judge_gradient(v, gradient, slopes + match, d->d);
    }
    free(f), free(gradient), free(slopes), free(counted), free(weights);
}

static void compare(const database *d, const settings *s, double *queries)
{
    verdict all[MATCHES] = {{0}};
    progress p = {.label = "searching", .total = s->queries};
    for (long i = 0; i < s->queries; i++) {
        judge_query(d, s, queries + i * d->d, all);
        progress_show(&p, i + 1, "queries");
    }
    printf("match                attention               answered  same records  largest     "
           "gradient   agrees with\n"
           "                                                                     difference  "
           "mean norm  differences\n");
    for (int match = 0; match < MATCHES; match++) {
        const verdict *v = &all[match];
        printf("%-20s %-22s %5ld/%ld  %8ld/%ld  %10.1e  %9.3g  ", matches[match].name,
               matches[match].attention, v->answered, s->queries, v->same, s->queries,
               v->difference, v->answered ? v->steepness / (double)v->answered : 0);
        printf(v->compared ? "%7ld/%ld\n" : "   no slope\n", v->agreed, v->compared);
    }
}

/* ---- Figures --------------------------------------------------------------------------------- */

/* The answer to every place at the edge of the first town, match by match. */
static void draw_map(const database *d, const settings *s)
{
    enum { SIDE = 120, COLUMNS = 3, ROWS = 2 };
    static const int shown[] = {NEAREST, K_NEAREST, RANGE, SOFT, K_WEIGHTED, FADING};
    const ptrdiff_t cells = SIDE * SIDE, shape[4] = {ROWS, COLUMNS, SIDE, SIDE};
    const double half = 6 * s->radius, x = town_centre(s, 0, 0) + 1.2 * town_size,
                 y = town_centre(s, 0, 1);
    double *q = allocate((size_t)(2 * cells), sizeof *q);
    double *answers = allocate((size_t)(ROWS * COLUMNS * cells), sizeof *answers);
    for (ptrdiff_t i = 0; i < cells; i++) {
        q[2 * i] = x + half * (2 * ((double)(i % SIDE) + 0.5) / SIDE - 1);
        q[2 * i + 1] = y + half * (1 - 2 * ((double)(i / SIDE) + 0.5) / SIDE);
    }
    for (int i = 0; i < ROWS * COLUMNS; i++)
        attend(d, s, shown[i], width_of(shown[i], s), q, cells, answers + i * cells, NULL, NULL);
    static const char *const titles[] = {"nearest", "k nearest", "range"};
    static const char *const rows[] = {"search", "fading with distance"};
    char *path = figure_path(s->plot, "approximate_match", "map", s->format);
    const qkv_heatmap_options options = {.figure.path = path,
                                         .titles = titles,
                                         .palette = QKV_VIRIDIS,
                                         .x_range = {x - half, x + half},
                                         .y_range = {y + half, y - half},
                                         .y_labels = rows};
    check(qkv_show_heatmaps(answers, shape, &options));
    say("wrote %s", path);
    free(path), free(answers), free(q);
}

enum { SHARPNESSES = 41 };

/* What the softmax is, from sharp to dull, on average over the queries that are no records. */
typedef struct curves {
    double temperature[SHARPNESSES], weight[SHARPNESSES], error[SHARPNESSES], slope[SHARPNESSES];
} curves;

static void measure_sharpness(const database *d, const settings *s, double *q, ptrdiff_t n_q,
                              curves *c)
{
    double *hard = allocate((size_t)n_q, sizeof *hard);
    double *weights = allocate((size_t)d->n, sizeof *weights);
    double *gradient = allocate((size_t)d->d, sizeof *gradient);
    attend(d, s, NEAREST, 1, q, n_q, hard, NULL, NULL);
    for (int t = 0; t < SHARPNESSES; t++) {
        c->temperature[t] = s->radius * pow(10, -2.5 + 4.0 * t / (SHARPNESSES - 1));
        for (ptrdiff_t i = 0; i < n_q; i++) {
            double answer, largest = 0, square = 0;
            memset(gradient, 0, (size_t)d->d * sizeof *gradient);
            attend(d, s, SOFT, c->temperature[t], q + i * d->d, 1, &answer, weights, gradient);
            for (ptrdiff_t j = 0; j < d->n; j++) largest = fmax(largest, weights[j]);
            for (ptrdiff_t x = 0; x < d->d; x++) square += gradient[x] * gradient[x];
            c->weight[t] += largest / (double)n_q;
            c->error[t] += fabs(answer - hard[i]) / (double)n_q;
            c->slope[t] += sqrt(square) / (double)n_q;
        }
    }
    free(gradient), free(weights), free(hard);
}

static void draw_sharpness(const database *d, const settings *s, const double *queries)
{
    ptrdiff_t n = s->queries / 2;
    double *q = allocate((size_t)(n * d->d), sizeof *q);
    for (ptrdiff_t i = 0; i < n; i++)
        memcpy(q + i * d->d, queries + (2 * i + 1) * d->d, (size_t)d->d * sizeof *q);
    curves c = {0};
    measure_sharpness(d, s, q, n, &c);
    const double *t = c.temperature;
    const qkv_series near[] = {
        {QKV_LINE, "weight of the nearest record", SHARPNESSES, t, c.weight, .colour = "#0072b2"},
        {QKV_LINE, "difference from its value", SHARPNESSES, t, c.error, .colour = "#d55e00"}};
    const qkv_series steep[] = {{QKV_LINE, NULL, SHARPNESSES, t, c.slope, .colour = "#009e73"}};
    const qkv_panel panels[] = {{.title = "Sharper, it is the nearest record",
                                 .x_label = "temperature",
                                 .y_range = {0, 1.05},
                                 .log_x = true,
                                 .series = near,
                                 .n_series = 2},
                                {.title = "and has no slope left",
                                 .x_label = "temperature",
                                 .y_label = "norm of the gradient, mean",
                                 .log_x = true,
                                 .series = steep,
                                 .n_series = 1}};
    char *path = figure_path(s->plot, "approximate_match", "sharpness", s->format);
    check(qkv_plot_panels(panels, 1, 2, &(qkv_figure){.path = path, .width = 9, .height = 3.8}));
    say("wrote %s", path);
    free(path), free(q);
}

/* ---- The program ----------------------------------------------------------------------------- */

enum { RECORDS, QUERIES, DIM, LIMIT, RADIUS, TEMPERATURE, SEED, PLOT, FORMAT };

static const command approximate_match = {
    "",
    "Searches a database exactly, for the nearest records and for a range by attention, compares "
    "every answer with plain loops, and every gradient with differences of these.",
    (const command_option[]){
        [RECORDS] = {"records", "N", "Records, places of towns (default: 10000)."},
        [QUERIES] = {"queries", "N", "Queries, half of them keys of records (default: 100)."},
        [DIM] = {"dim", "D", "Coordinates of a place; the map is drawn of 2 (default: 2)."},
        [LIMIT] = {"k", "K", "How many nearest records (default: 8)."},
        [RADIUS] = {"radius", "R", "Distance that is in range (default: 0.01)."},
        [TEMPERATURE] = {"temperature", "T",
                         "Distance over which the weights of the softmax fade (default: 0.003)."},
        [SEED] = {"seed", "N", "Seed of records and queries (default: 1)."},
        [PLOT] = {"plot", "DIR", "Draw into DIR (default: figures; '' for none)."},
        [FORMAT] = {"format", "FORMAT", "Format of the figures: svg (default), png or pdf."},
        {NULL, NULL, NULL}}};

static settings read_settings(int argc, char **argv)
{
    settings s = {.records = 10000, .queries = 100, .dim = 2, .k = 8, .seed = 1};
    s.radius = 0.01, s.temperature = 0.003, s.plot = "figures", s.format = "svg";
    for (int o; (o = command_next(&approximate_match, argc, argv)) >= 0;) {
        if (o == RECORDS) s.records = integer_argument("records", optarg, 1, 10000000);
        if (o == QUERIES) s.queries = integer_argument("queries", optarg, 2, 100000);
        if (o == DIM) s.dim = integer_argument("dim", optarg, 1, 1024);
        if (o == LIMIT) s.k = integer_argument("k", optarg, 1, 10000000);
        if (o == RADIUS) s.radius = number_argument("radius", optarg, 1e-4, 1e3);
        if (o == TEMPERATURE) s.temperature = number_argument("temperature", optarg, 1e-4, 1e3);
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
    if (s.plot) make_directories(s.plot);
    database d = make_database(&s);
    double *queries = make_queries(&s, &d);
    compare(&d, &s, queries);
    if (s.plot && s.dim == 2) draw_map(&d, &s);
    if (s.plot) draw_sharpness(&d, &s, queries);
    free(d.keys), free(d.values), free(queries);
    return finish();
}
