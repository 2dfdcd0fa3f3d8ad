/* search_engine_classic.c - BM25 (Robertson & Zaragoza 2009), which the engine is compared
 * with. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "search_engine.h"

static void make_postings(bm25 *m)
{
    const corpus *c = m->c;
    float *count = allocate((size_t)m->terms.n, sizeof *count);
    m->start = allocate((size_t)m->terms.n + 2, sizeof *m->start);
    for (int pass = 0; pass < 2; pass++) { /* counts how many, then writes them */
        for (ptrdiff_t i = 0; i < c->n; i++) {
            const bag *b = &c->documents[i];
            for (ptrdiff_t k = 0; k < b->n; k++)
                count[m->term_of[b->word[k]]] += (float)b->count[k];
            for (ptrdiff_t k = 0; k < b->n; k++) {
                ptrdiff_t t = m->term_of[b->word[k]];
                if (count[t] == 0) continue; /* another word of this term has been here */
                if (pass == 0) {
                    m->start[t + 2]++;
                } else {
                    ptrdiff_t at = m->start[t + 1]++;
                    m->document[at] = i, m->count[at] = count[t];
                }
                count[t] = 0;
            }
        }
        for (ptrdiff_t t = 0; pass == 0 && t < m->terms.n; t++) m->start[t + 2] += m->start[t + 1];
        if (pass > 0) break;
        size_t total = (size_t)m->start[m->terms.n + 1];
        m->document = allocate(total, sizeof *m->document);
        m->count = allocate(total, sizeof *m->count);
        m->weight = allocate(total, sizeof *m->weight);
    }
    free(count);
}

static bm25 make_index(const corpus *c, int cut)
{
    bm25 m = {.cut = cut, .c = c, .term_of = allocate((size_t)c->words.n, sizeof *m.term_of)};
    for (ptrdiff_t w = 0; w < c->words.n; w++) {
        char term[LONGEST_WORD + 1];
        snprintf(term, sizeof term, "%.*s", cut, c->words.words[w]->text);
        m.term_of[w] = number_of(&m.terms, term);
    }
    make_postings(&m);
    return m;
}

void free_index(bm25 *m)
{
    free_dictionary(&m->terms);
    free(m->term_of), free(m->start), free(m->document), free(m->count), free(m->weight);
}

static void weigh(bm25 *m, double k1, double b)
{
    const corpus *c = m->c;
    m->k1 = k1, m->b = b;
    for (ptrdiff_t t = 0; t < m->terms.n; t++) {
        double rarity = idf(c->n, m->start[t + 1] - m->start[t]);
        for (ptrdiff_t at = m->start[t]; at < m->start[t + 1]; at++) {
            double tf = m->count[at],
                   length = (double)c->documents[m->document[at]].length / c->average_length;
            m->weight[at] = (float)(rarity * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length)));
        }
    }
}

void bm25_score(const bm25 *m, const bag *query, float *score)
{
    memset(score, 0, (size_t)m->c->n * sizeof *score);
    for (ptrdiff_t k = 0; k < query->n; k++) {
        ptrdiff_t t = m->term_of[query->word[k]];
        for (ptrdiff_t at = m->start[t]; at < m->start[t + 1]; at++)
            score[m->document[at]] += (float)query->count[k] * m->weight[at];
    }
}

quality bm25_quality(const bm25 *m, const ptrdiff_t *rows, ptrdiff_t n)
{
    quality r = new_quality(n);
    float *score = allocate((size_t)m->c->n, sizeof *score);
    for (ptrdiff_t i = 0; i < n; i++) {
        bm25_score(m, &m->c->queries[rows[i]], score);
        take_rank(&r, i, score, m->c->n, rows[i]);
    }
    end_ranks(&r);
    free(score);
    return r;
}

static const double k1_grid[] = {0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.6, 2, 3};
static const double b_grid[] = {0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1};
enum { K1S = sizeof k1_grid / sizeof *k1_grid, BS = sizeof b_grid / sizeof *b_grid };

/* The index with the k1 and b that find best on the training part; *mrr is how well. */
static bm25 tune_index(const corpus *c, int cut, progress *p, long *done, double *mrr)
{
    bm25 m = make_index(c, cut);
    double k1 = 0, b = 0;
    *mrr = -1;
    for (int i = 0; i < K1S * BS; i++) {
        weigh(&m, k1_grid[i / BS], b_grid[i % BS]);
        quality r = bm25_quality(&m, c->order, c->n_train);
        if (r.mrr > *mrr) *mrr = r.mrr, k1 = m.k1, b = m.b;
        free(r.reciprocal);
        progress_show(p, ++*done, "MRR %.3f", *mrr);
    }
    weigh(&m, k1, b);
    return m;
}

void tune_bm25(const corpus *c, bm25 *whole, bm25 *best)
{
    static const int cuts[] = {7, 6, 5, 4};
    long done = 0;
    progress p = {.label = "BM25", .total = 5L * K1S * BS};
    double mrr, best_mrr = -1;
    *whole = tune_index(c, LONGEST_WORD, &p, &done, &mrr);
    for (int i = 0; i < 4; i++) {
        bm25 m = tune_index(c, cuts[i], &p, &done, &mrr);
        if (mrr <= best_mrr) {
            free_index(&m);
            continue;
        }
        if (i > 0) free_index(best);
        *best = m, best_mrr = mrr;
    }
}
