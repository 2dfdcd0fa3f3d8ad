/* search_engine.h - what the parts of the search engine share: the corpus, the classic index, the
 * engine, and the report on both. */
#ifndef QKV_EXAMPLES_SEARCH_ENGINE_H
#define QKV_EXAMPLES_SEARCH_ENGINE_H

#include <stdbool.h>
#include <stddef.h>

#include "common.h"
#include "qkv/attention.h"
#include "qkv/parameters.h"
#include "qkv/tape.h"

typedef struct settings {
    const char *corpus, *save, *load, *plot, *format;
    const char **queries;
    long n_queries, pairs, dim, epochs, batch, top, seed;
    double held_out, rate, dropout;
    bool bias, mismatch;
} settings;

/* Streams of random numbers, one for each use. */
enum { SPLIT, EPOCH_ORDER, WORD_DROPOUT };

/* ---- search_engine_corpus.c ------------------------------------------------------------------ */

enum {
    LONGEST_WORD = 40, /* bytes; what is longer is cut */
    GRAM = 3,          /* bytes of a run */
    MOST_FEATURES = LONGEST_WORD + 1,
    BUCKETS = 32768 /* features are hashed to so many rows */
};

typedef struct known_word {
    char text[LONGEST_WORD + 1];
    ptrdiff_t number, feature[MOST_FEATURES]; /* the first feature is the word as a whole */
    ptrdiff_t n_features;
} known_word;

/* All words met so far, numbered as they came. */
typedef struct dictionary {
    void *tree; /* of tsearch */
    known_word **words;
    ptrdiff_t n;
} dictionary;

/* The number of a word, which is added if it is new. */
ptrdiff_t number_of(dictionary *d, const char *text);
void free_dictionary(dictionary *d);

/* The different words of a text, ascending, and how often each is there. */
typedef struct bag {
    ptrdiff_t *word, *count, n;
    ptrdiff_t length; /* all words */
} bag;

bag read_words(dictionary *d, const char *text);
void free_bags(bag *bags, ptrdiff_t n);

/* One row of the file. */
typedef struct pair {
    char *query, *document, *name; /* name NULL: it has no third column */
} pair;

typedef struct corpus {
    const char *path;
    pair *pairs;
    bag *queries, *documents;
    ptrdiff_t n, limit, field;     /* field: of the row being read */
    ptrdiff_t n_train, n_held_out; /* n together */
    ptrdiff_t *order;              /* the rows in a random order, first those to learn from */
    const ptrdiff_t *held_out;     /* the rest of it */
    double average_length;         /* of a document, in words */
    dictionary words;
} corpus;

corpus *read_corpus(const settings *s);
void free_corpus(corpus *c);

void shuffle(ptrdiff_t *x, ptrdiff_t n, uint64_t seed, uint64_t stream);

/* The inverse document frequency as BM25 has it, never negative. */
double idf(ptrdiff_t documents, ptrdiff_t with);

/* ---- search_engine_classic.c ----------------------------------------------------------------- */

/* An index over all documents, by terms: words cut to their first letters, the plainest stemmer. */
typedef struct bm25 {
    int cut;
    double k1, b;
    dictionary terms;
    ptrdiff_t *term_of;          /* of each word of the corpus */
    ptrdiff_t *start, *document; /* term t is in document[start[t] .. start[t + 1]) */
    float *count, *weight;       /* as often as this, with this weight */
    const corpus *c;
} bm25;

/* Indexes over whole words and over the cut that finds best, with the k1 and b that find best: on
 * the training part, all of it. */
void tune_bm25(const corpus *c, bm25 *whole, bm25 *best);
void free_index(bm25 *m);

/* score[j] of every document j. */
void bm25_score(const bm25 *m, const bag *query, float *score);

/* ---- search_engine.c ------------------------------------------------------------------------- */

typedef struct engine {
    const corpus *c;
    qkv_parameters *p;
    ptrdiff_t d;
    const bm25 *bias;    /* NULL: none */
    ptrdiff_t *by_words; /* documents, the shortest first */
    float *words;        /* [words, d]: embeddings of all words, as of the last refresh */
} engine;

/* to[i, j] = the score of document j for query i, over all documents. */
void score_documents(const engine *e, qkv_tape *t, const bag *const *queries, ptrdiff_t n,
                     float *to);

/* The same for the queries of n rows, to be freed. */
float *score_rows(const engine *e, qkv_tape *t, const ptrdiff_t *rows, ptrdiff_t n);

/* The weights of documents from scores [n_q, n_k]; weights may be score. */
void attend(const float *score, ptrdiff_t n_q, ptrdiff_t n_k, qkv_normalize how, double temperature,
            float *weights);

double parameter(const engine *e, const char *name);

/* ---- search_engine_report.c ------------------------------------------------------------------ */

/* What a search is worth. */
typedef struct quality {
    double recall[3], mrr, mrr_error; /* its standard error, over queries */
    ptrdiff_t n;
    double *reciprocal; /* [n], 1 / rank of the query's own document */
} quality;

quality new_quality(ptrdiff_t n);
void take_rank(quality *q, ptrdiff_t query, const float *score, ptrdiff_t n, ptrdiff_t own);
void end_ranks(quality *q); /* after the last of them */

/* Of the queries of these rows, each among all documents. */
quality bm25_quality(const bm25 *m, const ptrdiff_t *rows, ptrdiff_t n);

/* One point an epoch, the first before all learning. */
typedef struct curve {
    size_t n;
    double *epoch, *loss, *mrr, *temperature;
} curve;

typedef struct report {
    quality before, after, whole, best; /* of the engine; of BM25 over whole words and over cut */
    bm25 whole_index, best_index;
    curve curve;
} report;

void print_corpus(const corpus *c);
void print_report(const report *r, const engine *e);

/* Exact, top-k and soft retrieval become one as the temperature falls. */
void print_temperatures(const engine *e, qkv_tape *t);

/* The documents of a query, with bars. own: the row whose document is the right one; -1: none is
 * known. */
void print_answer(const engine *e, qkv_tape *t, const char *text, const bag *query, ptrdiff_t own,
                  long top);

void draw_learning(const report *r, const settings *s);
void draw_weights(const engine *e, qkv_tape *t, const settings *s);

#endif
