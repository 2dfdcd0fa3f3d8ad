/* database - the chapter's first example: a lookup of first names by last names is attention.
 *
 * A name becomes a vector with one coordinate for every prefix that occurs ("l", "li", "lip", ..),
 * 1 where the name begins so. The end of a name counts as a letter, so that "Li" is closer to "Li"
 * than to "Lipton". Then
 *
 *     q'k           = number of leading letters the two names share
 *     ||q - k||^2   = number of prefixes only one of them has: 0 for equal names, else 1 or more
 *
 * and the three classical ways to ask a database are three choices of one layer: exact is a boxcar
 * kernel narrower than any difference, nearest is the hard maximum of q'k, soft its softmax. */
#include <getopt.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common.h"
#include "qkv/attention.h"
#include "qkv/plot.h"

typedef struct person {
    const char *last, *first;
} person;

static const person everybody[] = {{"Zhang", "Aston"}, {"Lipton", "Zachary"}, {"Li", "Mu"},
                                   {"Smola", "Alex"},  {"Hu", "Rachel"},      {"Werness", "Brent"}};
enum { PEOPLE = sizeof everybody / sizeof *everybody };

enum { EXACT, NEAREST, SOFT, MODES };
static const char *const mode_names[MODES] = {"exact", "nearest", "softmax"};

/* ---- Names as vectors --------------------------------------------------------------------------
 */

/* Every prefix of every name, each once: borrowed starts and their lengths in bytes. */
typedef struct vocabulary {
    const char **prefix;
    size_t *length;
    size_t n;
} vocabulary;

/* A length beyond the end of prefix asks for an equal name: the comparison includes the zero. */
static bool begins_with(const char *name, const char *prefix, size_t length)
{
    return strncasecmp(name, prefix, length) == 0;
}

static void add_prefix(vocabulary *v, const char *name, size_t length)
{
    for (size_t i = 0; i < v->n; i++)
        if (v->length[i] == length && begins_with(name, v->prefix[i], length)) return;
    v->prefix[v->n] = name;
    v->length[v->n++] = length;
}

static void add_prefixes(vocabulary *v, const char *name)
{
    for (size_t at = 1; at <= strlen(name); at++)
        if (((unsigned char)name[at] & 0xc0) != 0x80) add_prefix(v, name, at); /* whole UTF-8 */
    add_prefix(v, name, strlen(name) + 1);
}

static vocabulary collect_prefixes(const char *const *names, size_t n)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++) most += strlen(names[i]) + 1;
    vocabulary v = {allocate(most, sizeof *v.prefix), allocate(most, sizeof *v.length), 0};
    for (size_t i = 0; i < n; i++) add_prefixes(&v, names[i]);
    return v;
}

static void encode(const vocabulary *v, const char *name, double *x)
{
    for (size_t i = 0; i < v->n; i++) x[i] = begins_with(name, v->prefix[i], v->length[i]);
}

/* ---- Asking ------------------------------------------------------------------------------------
 */

/* Some queries to a database, and the weights it gives. */
typedef struct lookup {
    const char *const *queries;
    ptrdiff_t n_q;
    bool present[PEOPLE]; /* the records of this database */
    double temperature;
    double *weights[MODES]; /* [n_q, PEOPLE] */
    double *shared;         /* [n_q, PEOPLE] leading letters in common, the end included */
} lookup;

/* One call of the layer: its weights, for keys and queries of d coordinates. visible [n_q, PEOPLE]:
 * other records are as if absent; NULL: all of the database. */
static void attend(const lookup *l, qkv_attention a, double *q, double *k, double scale,
                   const double *visible, double *weights)
{
    double values[PEOPLE] = {0}, bandwidth = 0.5;
    uint8_t *mask = allocate((size_t)l->n_q * PEOPLE, 1);
    for (ptrdiff_t i = 0; i < l->n_q * PEOPLE; i++)
        mask[i] = l->present[i % PEOPLE] && (!visible || visible[i] > 0);
    double *o = allocate((size_t)l->n_q, sizeof *o);
    a.batch = a.heads = a.d_v = 1;
    a.n_q = l->n_q;
    a.n_k = PEOPLE;
    qkv_operands_f64 in = {.q.data = q, .k.data = k, .v.data = values, .scale.data = &scale};
    if (a.score == QKV_SCORE_GAUSSIAN) in.bandwidth.data = &bandwidth;
    in.mask.data = mask;
    qkv_results_f64 out = {.o.data = o, .weights.data = weights};
    size_t bytes;
    check(qkv_attention_workspace(&a, QKV_FORWARD, QKV_F64, &bytes));
    void *workspace = allocate(bytes, 1);
    check(qkv_attention_forward_f64(&a, &in, &out, workspace, bytes));
    free(workspace);
    free(mask);
    free(o);
}

static void ask(lookup *l)
{
    size_t n_names = (size_t)l->n_q + PEOPLE;
    const char **names = allocate(n_names, sizeof *names);
    for (ptrdiff_t i = 0; i < l->n_q; i++) names[i] = l->queries[i];
    for (int i = 0; i < PEOPLE; i++) names[l->n_q + i] = everybody[i].last;
    vocabulary v = collect_prefixes(names, n_names);
    double *x = allocate(n_names * v.n, sizeof *x);
    for (size_t i = 0; i < n_names; i++) encode(&v, names[i], x + i * v.n);

    static const qkv_attention modes[MODES] = {
        [EXACT] = {.score = QKV_SCORE_GAUSSIAN, .normalize = QKV_NONE_KERNEL},
        [NEAREST] = {.score = QKV_SCORE_DOT, .normalize = QKV_HARD},
        [SOFT] = {.score = QKV_SCORE_DOT, .normalize = QKV_SOFTMAX}};
    qkv_attention a = {.score = QKV_SCORE_DOT, .normalize = QKV_NONE_IDENTITY};
    double *keys = x + (size_t)l->n_q * v.n;
    a.d_k = (ptrdiff_t)v.n;
    size_t cells = (size_t)l->n_q * PEOPLE;
    l->shared = allocate(cells, sizeof *l->shared);
    attend(l, a, x, keys, 1, NULL, l->shared);
    for (int mode = 0; mode < MODES; mode++) {
        a = modes[mode];
        a.d_k = (ptrdiff_t)v.n;
        l->weights[mode] = allocate(cells, sizeof **l->weights);
        /* Who has nothing in common with the query is not near, even if nobody is nearer. */
        attend(l, a, x, keys, mode == SOFT ? 1 / l->temperature : 1,
               mode == NEAREST ? l->shared : NULL, l->weights[mode]);
    }
    free(x);
    free(v.prefix);
    free(v.length);
    free(names);
}

static void forget(lookup *l)
{
    for (int mode = 0; mode < MODES; mode++) free(l->weights[mode]);
    free(l->shared);
}

/* ---- Telling -----------------------------------------------------------------------------------
 */

/* Who has the largest weight for a query; -1 if nobody has any. */
static int answer(const lookup *l, int mode, ptrdiff_t query)
{
    const double *w = l->weights[mode] + query * PEOPLE;
    int best = 0;
    for (int i = 1; i < PEOPLE; i++)
        if (w[i] > w[best]) best = i;
    return w[best] > 0 ? best : -1;
}

static void print_answer(const lookup *l, int mode, ptrdiff_t query, const char *label)
{
    int who = answer(l, mode, query);
    if (who < 0)
        printf("  %-12s no answer\n", label);
    else
        printf("  %-12s \"%s\"  (%s)\n", label, everybody[who].first, everybody[who].last);
}

static void print_query(const lookup *l, ptrdiff_t query)
{
    enum { BAR = 36 };
    static const char full[] = "####################################";
    putchar('\n');
    say("Query \"%s\"", l->queries[query]);
    print_answer(l, EXACT, query, "exact:");
    print_answer(l, NEAREST, query, "approximate:");
    printf("  softmax weights at temperature %g, by shared leading letters (and end):\n",
           l->temperature);
    for (int i = 0; i < PEOPLE; i++) {
        if (!l->present[i]) continue;
        double w = l->weights[SOFT][query * PEOPLE + i];
        printf("    %-8s %-8s %2.0f  %.3f  %.*s\n", everybody[i].last, everybody[i].first,
               l->shared[query * PEOPLE + i], w, (int)lround(BAR * w), full);
    }
}

static void print_database(const lookup *l)
{
    printf("D = {");
    const char *comma = "";
    for (int i = 0; i < PEOPLE; i++) {
        if (!l->present[i]) continue;
        printf("%s(\"%s\", \"%s\")", comma, everybody[i].last, everybody[i].first);
        comma = ", ";
    }
    printf("}\n");
}

/* ---- Figures -----------------------------------------------------------------------------------
 */

/* Whom a database asks: "all records", or "all but" those it lacks; to be freed. */
static char *name_records(const lookup *l)
{
    char *name = print_text("all records");
    for (int i = 0, n = 0; i < PEOPLE; i++) {
        if (l->present[i]) continue;
        char *longer =
            print_text("%s%s%s", n ? name : "all but ", n ? ", " : "", everybody[i].last);
        n++;
        free(name);
        name = longer;
    }
    return name;
}

/* One row of the figure for each database, one column for each way of asking it. */
static void draw_weights(const char *directory, const lookup *lookups, int n)
{
    ptrdiff_t shape[4] = {n, MODES, lookups->n_q, PEOPLE}, cells = lookups->n_q * PEOPLE;
    double *all = allocate((size_t)(n * MODES * cells), sizeof *all);
    const char *keys[PEOPLE], *x_label = "Keys";
    char *rows[2];
    for (int d = 0; d < n; d++) {
        char *records = name_records(&lookups[d]);
        rows[d] = print_text("Queries to %s", records);
        free(records);
    }
    for (int i = 0; i < PEOPLE; i++) {
        keys[i] = everybody[i].last;
        if (!lookups[n - 1].present[i]) x_label = "Keys (grey: removed)";
    }
    for (ptrdiff_t at = 0; at < n * MODES * cells; at++) {
        const lookup *l = &lookups[at / (MODES * cells)];
        double w = l->weights[at / cells % MODES][at % cells];
        all[at] = l->present[at % PEOPLE] ? w : NAN; /* a record that is not there is grey */
    }
    char *path = join_path(directory, "database_weights.svg");
    qkv_heatmap_options options = {.figure.path = path,
                                   .x_label = x_label,
                                   .y_labels = (const char *const *)rows,
                                   .titles = mode_names,
                                   .x_ticks = keys,
                                   .y_ticks = lookups->queries,
                                   .upper = 1};
    check(qkv_show_heatmaps(all, shape, &options));
    say("wrote %s", path);
    for (int d = 0; d < n; d++) free(rows[d]);
    free(path);
    free(all);
}

/* What a panel of bars points to. */
typedef struct bars {
    char title[200];
    double weight[PEOPLE];
    qkv_series series;
} bars;

static qkv_panel fill_bars(bars *b, const lookup *l, ptrdiff_t query, const char *const *keys)
{
    static const double x[PEOPLE] = {0, 1, 2, 3, 4, 5};
    for (int i = 0; i < PEOPLE; i++)
        b->weight[i] = l->present[i] ? l->weights[SOFT][query * PEOPLE + i] : NAN;
    char *records = name_records(l);
    snprintf(b->title, sizeof b->title, "\"%.100s\" asked of %s", l->queries[query], records);
    free(records);
    b->series = (qkv_series){.mark = QKV_BARS, .n = PEOPLE, .x = x, .y = b->weight};
    return (qkv_panel){.title = b->title,
                       .y_label = "softmax weight",
                       .x_range = {-0.6, PEOPLE - 0.4},
                       .y_range = {0, 1},
                       .x_ticks = keys,
                       .n_x_ticks = PEOPLE,
                       .series = &b->series,
                       .n_series = 1};
}

/* One panel for each query asked, of each database. */
static void draw_bars(const char *directory, const lookup *lookups, int n, ptrdiff_t asked)
{
    const char *keys[PEOPLE];
    for (int i = 0; i < PEOPLE; i++) keys[i] = everybody[i].last;
    int count = n * (int)asked, cols = count < 2 ? 1 : count <= 40 ? 2 : (count + 19) / 20;
    int rows = (count + cols - 1) / cols;
    bars *all = allocate((size_t)(rows * cols), sizeof *all);
    qkv_panel *panels = allocate((size_t)(rows * cols), sizeof *panels);
    for (int i = 0; i < count; i++) panels[i] = fill_bars(&all[i], &lookups[i % n], i / n, keys);
    char *path = join_path(directory, "database_bars.svg");
    check(qkv_plot_panels(panels, rows, cols, &(qkv_figure){.path = path, .height = 2.9 * rows}));
    say("wrote %s", path);
    free(path);
    free(panels);
    free(all);
}

/* ---- The program -------------------------------------------------------------------------------
 */

enum { QUERY, WITHOUT, TEMPERATURE, PLOT };

static const command database = {
    "",
    "Looks up first names by last names, as attention: exactly, and approximately by shared "
    "leading letters. Without --query and --without it tells the chapter's story: \"Li\" is found; "
    "then its record is removed and \"Li\" is asked again.",
    (const command_option[]){
        [QUERY] = {"query", "NAME", "Last name to look up; may be repeated (default: Li)."},
        [WITHOUT] = {"without", "NAME", "Leave this last name's record out; may be repeated."},
        [TEMPERATURE] = {"temperature", "T",
                         "Softmax of shared letters divided by T (default: 0.5)."},
        [PLOT] = {"plot", "DIR", "Draw the weights into DIR, a heatmap and bars (default: none)."},
        {NULL, NULL, NULL}}};

static void remove_record(lookup *l, const char *last)
{
    bool found = false;
    for (int i = 0; i < PEOPLE; i++) {
        if (strcasecmp(everybody[i].last, last) != 0) continue;
        l->present[i] = false;
        found = true;
    }
    if (!found) usage_error("--without: there is no record of '%s'", last);
}

int main(int argc, char **argv)
{
    clean_up_on_signals();
    /* The figure also asks for every name there is, behind the queries of the command line. */
    const char **queries = allocate((size_t)argc + 1 + PEOPLE, sizeof *queries), *plot = NULL;
    ptrdiff_t asked = 0;
    lookup lookups[2] = {{.temperature = 0.5}};
    int n = 1;
    for (int i = 0; i < PEOPLE; i++) lookups[0].present[i] = true;
    bool story = true;
    for (int option; (option = command_next(&database, argc, argv)) >= 0;) {
        if (option == QUERY || option == WITHOUT) story = false;
        if (option == QUERY) queries[asked++] = optarg;
        if (option == WITHOUT) remove_record(lookups, optarg);
        if (option == TEMPERATURE)
            lookups[0].temperature = number_argument("temperature", optarg, 1e-3, 1e3);
        if (option == PLOT) plot = *optarg ? optarg : NULL;
    }
    if (optind < argc) usage_error("unexpected argument '%s'", argv[optind]);
    if (asked == 0) queries[asked++] = "Li";
    ptrdiff_t n_q = asked;
    for (int i = 0; plot && i < PEOPLE; i++) {
        bool there = false;
        for (ptrdiff_t j = 0; j < asked; j++)
            there |= strcasecmp(queries[j], everybody[i].last) == 0;
        if (!there) queries[n_q++] = everybody[i].last;
    }
    lookups[0].queries = queries;
    lookups[0].n_q = n_q;
    if (story) {
        lookups[1] = lookups[0];
        remove_record(&lookups[1], "Li");
        n = 2;
    }
    for (int d = 0; d < n; d++) {
        ask(&lookups[d]);
        if (d > 0) putchar('\n');
        print_database(&lookups[d]);
        for (ptrdiff_t i = 0; i < asked; i++) print_query(&lookups[d], i);
    }
    if (plot) {
        make_directories(plot);
        putchar('\n');
        draw_weights(plot, lookups, n);
        draw_bars(plot, lookups, n, asked);
    }
    for (int d = 0; d < n; d++) forget(&lookups[d]);
    free(queries);
    return finish();
}
