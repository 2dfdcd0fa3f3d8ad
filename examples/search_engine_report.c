/* search_engine_report.c - how well a search finds, in numbers and figures. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/plot.h"
#include "search_engine.h"

/* ---- How well a search finds ----------------------------------------------------------------- */

quality new_quality(ptrdiff_t n)
{
    return (quality){.n = n, .reciprocal = allocate((size_t)n, sizeof(double))};
}

/* The rank is how many documents are not behind the query's own. Of equal scores it is the last: a
 * search that tells nothing apart finds nothing. */
void take_rank(quality *r, ptrdiff_t query, const float *score, ptrdiff_t n, ptrdiff_t own)
{
    static const ptrdiff_t first[] = {1, 5, 10};
    const float of_own = score[own];
    int rank = 0;
    for (ptrdiff_t j = 0; j < n; j++) rank += !(score[j] < of_own);
    for (int i = 0; i < 3; i++) r->recall[i] += (rank <= first[i]) / (double)r->n;
    r->reciprocal[query] = 1 / (double)rank;
}

/* The mean and its standard error. */
static void mean_of(const double *x, ptrdiff_t n, double *mean, double *error)
{
    double sum = 0, squares = 0;
    for (ptrdiff_t i = 0; i < n; i++) sum += x[i];
    *mean = sum / (double)n;
    for (ptrdiff_t i = 0; i < n; i++) squares += (x[i] - *mean) * (x[i] - *mean);
    *error = sqrt(squares / (double)(n - 1) / (double)n);
}

void end_ranks(quality *q)
{
    mean_of(q->reciprocal, q->n, &q->mrr, &q->mrr_error);
}

static void print_quality(const char *label, const quality *r)
{
    say("%-38s  %.3f  %.3f  %.3f  %.3f \u00b1 %.3f", label, r->recall[0], r->recall[1],
        r->recall[2], r->mrr, r->mrr_error);
}

/* Of two searches for the same queries. */
static void print_difference(const char *label, const quality *a, const quality *b)
{
    double *difference = allocate((size_t)a->n, sizeof *difference), mean, error;
    for (ptrdiff_t i = 0; i < a->n; i++) difference[i] = a->reciprocal[i] - b->reciprocal[i];
    mean_of(difference, a->n, &mean, &error);
    say("%-38s  %21s%+.3f \u00b1 %.3f", label, "", mean, error);
    free(difference);
}

/* ---- Telling --------------------------------------------------------------------------------- */

void print_corpus(const corpus *c)
{
    say("%s: %td pairs, %td to learn from and %td held out, %td words", c->path, c->n, c->n_train,
        c->n_held_out, c->words.n);
}

static void print_bm25(const char *label, const bm25 *m, const quality *r)
{
    char *text = print_text("%s, k1 %g, b %g", label, m->k1, m->b);
    print_quality(text, r);
    free(text);
}

void print_report(const report *r, const engine *e)
{
    putchar('\n');
    say("The held-out queries, each among all %td documents:", e->c->n);
    say("%-38s  %5s  %5s  %5s  %5s", "", "R@1", "R@5", "R@10", "MRR");
    print_quality("before learning", &r->before);
    print_quality("after learning", &r->after);
    print_bm25("BM25, whole words", &r->whole_index, &r->whole);
    char *label = print_text("BM25, %d letters", r->best_index.cut);
    print_bm25(label, &r->best_index, &r->best);
    free(label);
    print_difference("after learning - BM25, whole words", &r->after, &r->whole);
    label = print_text("after learning - BM25, %d letters", r->best_index.cut);
    print_difference(label, &r->after, &r->best);
    free(label);
    say("learned: temperature %.3f, length %.3f", exp(parameter(e, "log_temperature")),
        parameter(e, "length"));
    if (e->bias) say("         weight of BM25's score %.3f", parameter(e, "bias"));
}

/* How much weight would have to move to make one of the other: half the sum of differences. */
static double apart(const float *a, const float *b, ptrdiff_t n_q, ptrdiff_t n_k)
{
    double sum = 0;
    for (ptrdiff_t i = 0; i < n_q * n_k; i++) sum += fabs((double)a[i] - (double)b[i]);
    return sum / 2 / (double)n_q;
}

void print_temperatures(const engine *e, qkv_tape *t)
{
    static const double factors[] = {4, 2, 1, 1 / 4., 1 / 16., 1 / 64., 1 / 1024.};
    const corpus *c = e->c;
    ptrdiff_t n = c->n_held_out < 200 ? c->n_held_out : 200;
    float *scores = score_rows(e, t, c->held_out, n), *weights[3];
    size_t size = (size_t)(n * c->n);
    for (int i = 0; i < 3; i++) weights[i] = allocate(size, sizeof **weights);
    putchar('\n');
    say("Soft, top-10 and exact (hard) retrieval of %td held-out queries: the share of the weight",
        n);
    say("that would have to move to make one of the other");
    say("%12s  %13s  %13s  %13s", "temperature", "soft, exact", "top-10, exact", "soft, top-10");
    attend(scores, n, c->n, QKV_HARD, 1, weights[0]);
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++) {
        attend(scores, n, c->n, QKV_TOP_K, factors[i], weights[1]);
        attend(scores, n, c->n, QKV_SOFTMAX, factors[i], weights[2]);
        say("%12.5f  %13.5f  %13.5f  %13.5f", factors[i] * exp(parameter(e, "log_temperature")),
            apart(weights[2], weights[0], n, c->n), apart(weights[1], weights[0], n, c->n),
            apart(weights[2], weights[1], n, c->n));
    }
    for (int i = 0; i < 3; i++) free(weights[i]);
    free(scores);
}

static const float *weights_sorted; /* of all documents for the query at hand */

static int by_weight(const void *a, const void *b)
{
    ptrdiff_t i = *(const ptrdiff_t *)a, j = *(const ptrdiff_t *)b;
    float x = weights_sorted[i], y = weights_sorted[j];
    return x == y ? (i > j) - (i < j) : x < y ? 1 : -1;
}

/* The documents by weight, the largest first; to be freed. */
static ptrdiff_t *rank_documents(const float *weights, ptrdiff_t n)
{
    ptrdiff_t *order = allocate((size_t)n, sizeof *order);
    for (ptrdiff_t j = 0; j < n; j++) order[j] = j;
    weights_sorted = weights;
    qsort(order, (size_t)n, sizeof *order, by_weight);
    return order;
}

/* How many bytes of a text to show: at most so many, and whole characters of UTF-8. */
static int fitting(const char *text, int most)
{
    int length = (int)strnlen(text, (size_t)most);
    while (length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80) length--;
    return length;
}

void print_answer(const engine *e, qkv_tape *t, const char *text, const bag *query, ptrdiff_t own,
                  long top)
{
    enum { BAR = 24, SHOWN_BYTES = 60 };
    static const char full[] = "########################";
    const corpus *c = e->c;
    putchar('\n');
    say("Query \"%s\"%s", text, query->n ? "" : ": no word in it");
    if (query->n == 0) return;
    float *weights = allocate((size_t)c->n, sizeof *weights);
    score_documents(e, t, (const bag *const[]){query}, 1, weights);
    attend(weights, 1, c->n, QKV_SOFTMAX, 1, weights);
    ptrdiff_t *order = rank_documents(weights, c->n);
    for (long i = 0; i < top && i < c->n; i++) {
        const pair *p = &c->pairs[order[i]];
        double w = weights[order[i]];
        int shown = fitting(p->query, SHOWN_BYTES);
        say("  %.3f  %-*.*s  %s%s%.*s%s%s", w, BAR, (int)lround(BAR * w), full,
            p->name ? p->name : "", p->name ? ": " : "", shown, p->query,
            p->query[shown] ? "\u2026" : "", order[i] == own ? "  <- its own" : "");
    }
    free(order), free(weights);
}

/* ---- Figures --------------------------------------------------------------------------------- */

void draw_learning(const report *r, const settings *s)
{
    const curve *k = &r->curve;
    double ends[2] = {0, (double)(k->n - 1)}, whole[2], best[2];
    for (int i = 0; i < 2; i++) whole[i] = r->whole.mrr, best[i] = r->best.mrr;
    char *cut = print_text("BM25, %d letters", r->best_index.cut);
    const qkv_series mrr[] = {
        {QKV_LINE, "attention", k->n, k->epoch, k->mrr, .colour = "#0072b2"},
        {QKV_POINTS, NULL, k->n, k->epoch, k->mrr, .colour = "#0072b2"},
        {QKV_DASHES, cut, 2, ends, best, .colour = "#d55e00"},
        {QKV_DASHES, "BM25, whole words", 2, ends, whole, .colour = "#e69f00"}};
    const qkv_series loss = {QKV_LINE, NULL, k->n, k->epoch, k->loss, .colour = "#0072b2"};
    const qkv_series warmth = {QKV_LINE, NULL, k->n, k->epoch, k->temperature, .colour = "#0072b2"};
    const qkv_panel panels[] = {{.title = "Held-out queries",
                                 .x_label = "epoch",
                                 .y_label = "mean reciprocal rank",
                                 .series = mrr,
                                 .n_series = 4},
                                {.title = "Training batches",
                                 .x_label = "epoch",
                                 .y_label = "-log weight of the right one",
                                 .x_range = {0, ends[1]},
                                 .series = &loss,
                                 .n_series = 1},
                                {.title = "What the softmax learns",
                                 .x_label = "epoch",
                                 .y_label = "temperature",
                                 .series = &warmth,
                                 .n_series = 1}};
    char *path = figure_path(s->plot, "search_engine", "learning", s->format);
    check(qkv_plot_panels(panels, 1, 3, &(qkv_figure){.path = path, .width = 12, .height = 3.8}));
    say("wrote %s", path);
    free(path), free(cut);
}

enum { SHOWN = 10, BEST = 2 }; /* queries, documents of each */

/* What stands for a document under the figure; a star: it is the right one for a row. */
static char *document_label(const corpus *c, ptrdiff_t document, const ptrdiff_t *rows, ptrdiff_t n)
{
    const pair *p = &c->pairs[document];
    const char *text = p->name ? p->name : p->query, *star = "";
    for (ptrdiff_t i = 0; i < n; i++)
        if (rows[i] == document) star = "* ";
    return print_text("%s%.*s", star, fitting(text, 24), text);
}

/* The first held-out queries that are short enough to be read beside the figure. */
static ptrdiff_t choose_short(const corpus *c, ptrdiff_t *rows)
{
    enum { FITS = 22 };
    ptrdiff_t n = 0;
    for (ptrdiff_t i = 0; i < c->n_held_out && n < SHOWN; i++)
        if (strlen(c->pairs[c->held_out[i]].query) <= FITS) rows[n++] = c->held_out[i];
    for (ptrdiff_t i = 0; n == 0 && i < c->n_held_out && i < SHOWN; i++) rows[i] = c->held_out[i];
    return n ? n : c->n_held_out < SHOWN ? c->n_held_out : SHOWN;
}

static void add_once(ptrdiff_t x, ptrdiff_t *list, ptrdiff_t *n)
{
    for (ptrdiff_t i = 0; i < *n; i++)
        if (list[i] == x) return;
    list[(*n)++] = x;
}

/* Of each of n rows the best documents and its own. Returns how many they are. */
static ptrdiff_t choose_documents(const ptrdiff_t *rows, ptrdiff_t n, const float *weights,
                                  ptrdiff_t n_documents, ptrdiff_t *documents)
{
    ptrdiff_t chosen = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        ptrdiff_t *order = rank_documents(weights + i * n_documents, n_documents);
        for (ptrdiff_t b = 0; b < BEST; b++) add_once(order[b], documents, &chosen);
        add_once(rows[i], documents, &chosen);
        free(order);
    }
    return chosen;
}

/* A few held-out queries, the documents that are the best for any of them, and the right ones. */
void draw_weights(const engine *e, qkv_tape *t, const settings *s)
{
    const corpus *c = e->c;
    ptrdiff_t rows[SHOWN], n = choose_short(c, rows), column[SHOWN * (BEST + 1)];
    float *weights = score_rows(e, t, rows, n);
    attend(weights, n, c->n, QKV_SOFTMAX, 1, weights);
    const ptrdiff_t columns = choose_documents(rows, n, weights, c->n, column);
    double *shown = allocate((size_t)(n * columns), sizeof *shown);
    const char *queries[SHOWN];
    char *documents[SHOWN * (BEST + 1)];
    for (ptrdiff_t j = 0; j < columns; j++) documents[j] = document_label(c, column[j], rows, n);
    for (ptrdiff_t i = 0; i < n; i++) {
        queries[i] = c->pairs[rows[i]].query;
        for (ptrdiff_t j = 0; j < columns; j++)
            shown[i * columns + j] = weights[i * c->n + column[j]];
    }
    char *path = figure_path(s->plot, "search_engine", "weights", s->format);
    const char *title =
        "What held-out queries (rows) attend to: the weights of documents (* the right one)";
    const qkv_heatmap_options options = {.figure.path = path,
                                         .titles = &title,
                                         .x_ticks = (const char *const *)documents,
                                         .y_ticks = queries,
                                         .palette = QKV_BLUES,
                                         .upper = 1};
    check(qkv_show_heatmaps(shown, (const ptrdiff_t[]){1, 1, n, columns}, &options));
    say("wrote %s", path);
    for (ptrdiff_t j = 0; j < columns; j++) free(documents[j]);
    free(path), free(shown), free(weights);
}
