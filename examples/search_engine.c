/* search_engine.c - exercise 3 of the chapter: a differentiable search engine. Pairs of a query and
 * its document are all it learns from; attention is at work four times, and its gradient trains
 * everything at once:
 *
 *     a word      is its features, hashed: itself and its runs of three letters. Its embedding is
 *                 the mean of theirs: uniform attention
 *     a match     each word of a query attends to the words of a document, and takes the cosine of
 *                 the nearest: hard attention (max), which sends its gradient there
 *     a score     is the sum of the matches by importance: exp attention that is not normalised,
 *                 and a term for long documents
 *     a search    is softmax attention over the documents, with a learned temperature
 *
 * The loss is the cross-entropy of the attended document, -log of the weight that the query's own
 * document gets. Nearest words are the late interaction of Khattab & Zaharia 2020 (ColBERT). */
#include "search_engine.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkv/optim.h"
#include "src/random.h"

enum {
    MOST_WORDS = 200,     /* different words of a document that the engine looks at */
    SOME_DOCUMENTS = 200, /* that are scored together, */
    SOME_QUERIES = 100    /* for so many queries */
};

/* ---- The engine ------------------------------------------------------------------------------ */

static ptrdiff_t words_seen(const bag *b)
{
    return b->n < MOST_WORDS ? b->n : MOST_WORDS;
}

/* Documents in the order of their lengths: those that are padded together are about as long. */
static ptrdiff_t *order_by_words(const corpus *c)
{
    ptrdiff_t *order = allocate((size_t)c->n, sizeof *order), at = 0;
    for (ptrdiff_t n = 0; n <= MOST_WORDS; n++)
        for (ptrdiff_t i = 0; i < c->n; i++)
            if (words_seen(&c->documents[i]) == n) order[at++] = i;
    return order;
}

/* Embeddings begin at random: words that share no feature are about orthogonal. The importance of a
 * word begins as its idf. */
static engine make_engine(const corpus *c, const settings *s, const bm25 *bias)
{
    engine e = {.c = c, .d = s->dim, .bias = bias, .by_words = order_by_words(c)};
    check(qkv_parameters_new(&e.p, QKV_F32));
    check(qkv_parameters_add(e.p, "embedding", qkv_shape2(BUCKETS, e.d),
                             &(qkv_initializer){.rule = QKV_INIT_NORMAL,
                                                .scale = 1 / sqrt((double)e.d),
                                                .seed = (uint64_t)s->seed}));
    check(qkv_parameters_add(e.p, "log_importance", qkv_shape2(BUCKETS, 1), NULL));
    check(qkv_parameters_add(e.p, "log_temperature", qkv_scalar(), NULL));
    check(qkv_parameters_add(e.p, "length", qkv_scalar(),
                             &(qkv_initializer){.rule = QKV_INIT_CONSTANT, .scale = -0.5}));
    if (bias)
        check(qkv_parameters_add(e.p, "bias", qkv_scalar(),
                                 &(qkv_initializer){.rule = QKV_INIT_CONSTANT, .scale = 0.3}));
    ptrdiff_t *with = allocate((size_t)c->words.n, sizeof *with);
    for (ptrdiff_t i = 0; i < c->n; i++)
        for (ptrdiff_t k = 0; k < c->documents[i].n; k++) with[c->documents[i].word[k]]++;
    float *importance = qkv_parameters_find(e.p, "log_importance")->data;
    for (ptrdiff_t f = 0; f < BUCKETS; f++) importance[f] = (float)log(idf(c->n, 0));
    for (ptrdiff_t w = 0; w < c->words.n; w++)
        if (with[w] > 0) importance[c->words.words[w]->feature[0]] = (float)log(idf(c->n, with[w]));
    free(with);
    return e;
}

double parameter(const engine *e, const char *name)
{
    return *(const float *)qkv_parameters_find(e->p, name)->data;
}

/* Which query meets which documents, as arrays that the tape can gather by. Words have numbers here
 * that count only those that are there, the queries' first: two words are compared once. */
typedef struct meeting {
    ptrdiff_t n_q, n_d, longest;
    ptrdiff_t *word, n_words, n_asked; /* [n_words], of the dictionary; n_asked are in queries */
    ptrdiff_t *query_word, *bucket;    /* the words of all queries, one query after another */
    int64_t *query_start, *each;       /* [n_q + 1]; 0, 1, 2, .. */
    ptrdiff_t *document_word;          /* [n_d, longest]: shorter ones repeat their first word */
    float *log_length, *bias;          /* [n_d]; [n_q, n_d], NULL: none */
} meeting;

/* A different half, say, of the words each time: the engine must not rely on any one of them. Of
 * too many it takes those that the corpus came to last, which are the rarer ones. */
static ptrdiff_t pick_words(const bag *b, double dropout, uint64_t seed, ptrdiff_t i, ptrdiff_t *to)
{
    ptrdiff_t n = 0;
    for (ptrdiff_t k = b->n - words_seen(b); k < b->n; k++) {
        bool dropped = dropout > 0 && qkv_random_uniform(seed, (uint64_t)i, (uint64_t)k) < dropout;
        if (!dropped) to[n++] = b->word[k];
    }
    if (n == 0) to[n++] = b->word[b->n - 1];
    return n;
}

static void place_queries(meeting *m, const engine *e, const bag *const *queries)
{
    ptrdiff_t total = 0;
    for (ptrdiff_t i = 0; i < m->n_q; i++) total += queries[i]->n;
    m->query_word = allocate((size_t)total, sizeof *m->query_word);
    m->bucket = allocate((size_t)total, sizeof *m->bucket);
    m->query_start = allocate((size_t)m->n_q + 1, sizeof *m->query_start);
    m->each = allocate((size_t)m->n_q + 1, sizeof *m->each);
    ptrdiff_t at = 0;
    for (ptrdiff_t i = 0; i < m->n_q; i++) {
        for (ptrdiff_t k = 0; k < queries[i]->n; k++, at++) {
            m->query_word[at] = queries[i]->word[k];
            m->bucket[at] = e->c->words.words[queries[i]->word[k]]->feature[0];
        }
        m->query_start[i + 1] = at;
        m->each[i + 1] = i + 1;
    }
}

static void place_documents(meeting *m, const engine *e, const ptrdiff_t *documents, double dropout,
                            uint64_t seed)
{
    ptrdiff_t *all = allocate((size_t)(m->n_d * MOST_WORDS), sizeof *all),
              *n = allocate((size_t)m->n_d, sizeof *n);
    m->log_length = allocate((size_t)m->n_d, sizeof *m->log_length);
    for (ptrdiff_t j = 0; j < m->n_d; j++) {
        const bag *b = &e->c->documents[documents[j]];
        n[j] = pick_words(b, dropout, seed, j, all + j * MOST_WORDS);
        if (n[j] > m->longest) m->longest = n[j];
        m->log_length[j] = (float)log((double)b->length / e->c->average_length);
    }
    m->document_word = allocate((size_t)(m->n_d * m->longest), sizeof *m->document_word);
    for (ptrdiff_t j = 0; j < m->n_d; j++)
        for (ptrdiff_t k = 0; k < m->longest; k++)
            m->document_word[j * m->longest + k] = all[j * MOST_WORDS + (k < n[j] ? k : 0)];
    free(all), free(n);
}

static void place_bias(meeting *m, const engine *e, const bag *const *queries,
                       const ptrdiff_t *documents)
{
    float *score = allocate((size_t)e->c->n, sizeof *score);
    m->bias = allocate((size_t)(m->n_q * m->n_d), sizeof *m->bias);
    for (ptrdiff_t i = 0; i < m->n_q; i++) {
        bm25_score(e->bias, queries[i], score);
        for (ptrdiff_t j = 0; j < m->n_d; j++) m->bias[i * m->n_d + j] = score[documents[j]];
    }
    free(score);
}

/* From the numbers of the dictionary to those of the meeting. */
static void number_words(meeting *m, const dictionary *d)
{
    ptrdiff_t *lists[] = {m->query_word, m->document_word},
              sizes[] = {m->query_start[m->n_q], m->n_d * m->longest};
    ptrdiff_t *local = allocate((size_t)d->n, sizeof *local); /* plus 1; 0: none yet */
    m->word = allocate((size_t)d->n, sizeof *m->word);
    for (int l = 0; l < 2; l++) {
        for (ptrdiff_t k = 0; k < sizes[l]; k++) {
            ptrdiff_t w = lists[l][k];
            if (local[w] == 0) m->word[m->n_words++] = w, local[w] = m->n_words;
            lists[l][k] = local[w] - 1;
        }
        if (l == 0) m->n_asked = m->n_words;
    }
    free(local);
}

static meeting meet(const engine *e, const bag *const *queries, ptrdiff_t n_q,
                    const ptrdiff_t *documents, ptrdiff_t n_d, double dropout, uint64_t seed)
{
    meeting m = {.n_q = n_q, .n_d = n_d};
    place_queries(&m, e, queries);
    place_documents(&m, e, documents, dropout, seed);
    number_words(&m, &e->c->words);
    if (e->bias) place_bias(&m, e, queries, documents);
    return m;
}

static void part(meeting *m)
{
    free(m->word), free(m->query_word), free(m->bucket), free(m->query_start), free(m->each);
    free(m->document_word), free(m->log_length), free(m->bias);
}

/* Pools the values of each item, which stand one after another, by the scores of their keys. */
static qkv_var pool(qkv_tape *t, qkv_normalize how, ptrdiff_t items, const int64_t *each,
                    const int64_t *start, qkv_var key, qkv_var value)
{
    qkv_var one = qkv_broadcast(t, qkv_constant(t, 1), qkv_shape2(items, 1));
    const qkv_attention a = {.batch = items, .heads = 1, .score = QKV_SCORE_DOT, .normalize = how};
    return qkv_attend(
        t, &a,
        &(qkv_attend_vars){.q = one, .k = key, .v = value, .starts_q = each, .starts_k = start});
}

/* Words by their features; to be kept until the tape is reset. */
typedef struct spelling {
    ptrdiff_t n, *feature;
    int64_t *start, *each;
} spelling;

static spelling spell(const dictionary *d, const ptrdiff_t *words, ptrdiff_t n)
{
    spelling s = {.n = n,
                  .feature = allocate((size_t)n * MOST_FEATURES, sizeof *s.feature),
                  .start = allocate((size_t)n + 1, sizeof *s.start),
                  .each = allocate((size_t)n + 1, sizeof *s.each)};
    for (ptrdiff_t i = 0; i < n; i++) {
        const known_word *w = d->words[words[i]];
        for (ptrdiff_t k = 0; k < w->n_features; k++) s.feature[s.start[i] + k] = w->feature[k];
        s.start[i + 1] = s.start[i] + w->n_features;
        s.each[i + 1] = i + 1;
    }
    return s;
}

static void forget_spelling(spelling *s)
{
    free(s->feature), free(s->start), free(s->each);
}

/* [words, d], each of unit length. */
static qkv_var embed_words(qkv_tape *t, const engine *e, const spelling *s)
{
    qkv_var features =
        qkv_gather(t, qkv_parameters_leaf(t, e->p, "embedding"), 0, s->feature, s->start[s->n]);
    qkv_var same = qkv_broadcast(t, qkv_constant(t, 0), qkv_shape2(s->start[s->n], 1));
    qkv_var x = pool(t, QKV_UNIFORM, s->n, s->each, s->start, same, features);
    qkv_var square = qkv_sum(t, qkv_mul(t, x, x), (int[]){1}, 1, true);
    return qkv_div(t, x, qkv_sqrt(t, square));
}

/* words [m->n_words, d]. Returns [n_q, n_d], already divided by the temperature: what the softmax
 * over documents is taken of. */
static qkv_var score(qkv_tape *t, const engine *e, qkv_var words, const meeting *m)
{
    ptrdiff_t n = m->query_start[m->n_q];
    qkv_var asked = qkv_slice(t, words, 0, 0, m->n_asked, 1);
    qkv_var cosine = qkv_matmul(t, words, qkv_transpose(t, asked, NULL));
    cosine = qkv_gather(t, cosine, 0, m->document_word, m->n_d * m->longest);
    cosine = qkv_reshape(t, cosine, qkv_shape3(m->n_d, m->longest, m->n_asked));
    qkv_var nearest = qkv_transpose(t, qkv_max(t, cosine, (int[]){1}, 1, false), NULL);
    nearest = qkv_gather(t, nearest, 0, m->query_word, n);

    qkv_var importance =
        qkv_gather(t, qkv_parameters_leaf(t, e->p, "log_importance"), 0, m->bucket, n);
    qkv_var match = pool(t, QKV_NONE_EXP, m->n_q, m->each, m->query_start, importance, nearest);
    qkv_var length = qkv_leaf_f32(t, qkv_shape2(1, m->n_d), m->log_length, NULL);
    match = qkv_add(t, match, qkv_mul(t, length, qkv_parameters_leaf(t, e->p, "length")));
    qkv_var s = qkv_div(t, match, qkv_exp(t, qkv_parameters_leaf(t, e->p, "log_temperature")));
    if (!m->bias) return s;
    qkv_var bias = qkv_leaf_f32(t, qkv_shape2(m->n_q, m->n_d), m->bias, NULL);
    return qkv_add(t, s, qkv_mul(t, bias, qkv_parameters_leaf(t, e->p, "bias")));
}

/* ---- Searching ------------------------------------------------------------------------------- */

/* Embeds the whole dictionary, for the searches from here on. */
static void refresh(engine *e, qkv_tape *t)
{
    ptrdiff_t n = e->c->words.n, *all = allocate((size_t)n, sizeof *all);
    for (ptrdiff_t w = 0; w < n; w++) all[w] = w;
    spelling s = spell(&e->c->words, all, n);
    if (!e->words) e->words = allocate((size_t)(n * e->d), sizeof *e->words);
    qkv_no_grad_begin(t);
    const float *value = qkv_value_f32(t, embed_words(t, e, &s));
    check(qkv_tape_status(t));
    memcpy(e->words, value, (size_t)(n * e->d) * sizeof *value);
    qkv_tape_reset(t);
    forget_spelling(&s), free(all);
}

void score_documents(const engine *e, qkv_tape *t, const bag *const *queries, ptrdiff_t n,
                     float *to)
{
    const corpus *c = e->c;
    for (ptrdiff_t at = 0; at < c->n; at += SOME_DOCUMENTS) {
        ptrdiff_t n_d = c->n - at < SOME_DOCUMENTS ? c->n - at : SOME_DOCUMENTS;
        meeting m = meet(e, queries, n, e->by_words + at, n_d, 0, 0);
        qkv_no_grad_begin(t);
        qkv_var all = qkv_leaf_f32(t, qkv_shape2(c->words.n, e->d), e->words, NULL);
        qkv_var words = qkv_gather(t, all, 0, m.word, m.n_words);
        const float *s = qkv_value_f32(t, score(t, e, words, &m));
        check(qkv_tape_status(t));
        for (ptrdiff_t i = 0; i < n; i++)
            for (ptrdiff_t j = 0; j < n_d; j++) to[i * c->n + e->by_words[at + j]] = s[i * n_d + j];
        qkv_tape_reset(t);
        part(&m);
    }
}

float *score_rows(const engine *e, qkv_tape *t, const ptrdiff_t *rows, ptrdiff_t n)
{
    float *all = allocate((size_t)(n * e->c->n), sizeof *all);
    const bag *queries[SOME_QUERIES];
    for (ptrdiff_t at = 0; at < n; at += SOME_QUERIES) {
        ptrdiff_t n_q = n - at < SOME_QUERIES ? n - at : SOME_QUERIES;
        for (ptrdiff_t i = 0; i < n_q; i++) queries[i] = &e->c->queries[rows[at + i]];
        score_documents(e, t, queries, n_q, all + at * e->c->n);
    }
    return all;
}

/* Of the held-out queries, each searched among all documents. */
static quality engine_quality(engine *e, qkv_tape *t)
{
    const corpus *c = e->c;
    quality r = new_quality(c->n_held_out);
    refresh(e, t);
    for (ptrdiff_t at = 0; at < r.n; at += SOME_QUERIES) {
        ptrdiff_t n = r.n - at < SOME_QUERIES ? r.n - at : SOME_QUERIES;
        float *s = score_rows(e, t, c->held_out + at, n);
        for (ptrdiff_t i = 0; i < n; i++)
            take_rank(&r, at + i, s + i * c->n, c->n, c->held_out[at + i]);
        free(s);
    }
    end_ranks(&r);
    return r;
}

/* The weights of documents from scores, which attention takes as its bias: there is nothing left to
 * compare (d_k = 0), and no value to pool. */
void attend(const float *score, ptrdiff_t n_q, ptrdiff_t n_k, qkv_normalize how, double temperature,
            float *weights)
{
    const qkv_attention a = {.batch = 1,
                             .heads = 1,
                             .n_q = n_q,
                             .n_k = n_k,
                             .score = QKV_SCORE_DOT,
                             .normalize = how,
                             .top_k = how == QKV_TOP_K ? 10 : 0};
    float *bias = allocate((size_t)(n_q * n_k), sizeof *bias), nothing = 0;
    for (ptrdiff_t i = 0; i < n_q * n_k; i++) bias[i] = (float)(score[i] / temperature);
    size_t bytes;
    check(qkv_attention_workspace(&a, QKV_FORWARD, QKV_F32, &bytes));
    void *workspace = allocate(bytes, 1);
    const qkv_operands_f32 in = {
        .q.data = &nothing, .k.data = &nothing, .v.data = &nothing, .bias.data = bias};
    float *row = allocate((size_t)n_q, sizeof *row);
    const qkv_results_f32 out = {.o.data = row, .weights.data = weights};
    check(qkv_attention_forward_f32(&a, &in, &out, workspace, bytes));
    free(bias), free(workspace), free(row);
}

/* ---- Learning -------------------------------------------------------------------------------- */

static void add_point(curve *k, const engine *e, double loss, double mrr)
{
    k->epoch[k->n] = (double)k->n;
    k->loss[k->n] = loss;
    k->mrr[k->n] = mrr;
    k->temperature[k->n++] = exp(parameter(e, "log_temperature"));
}

/* Rows in, their loss out; gradients are added up. The other documents of the batch are what the
 * right one is told from. */
static double learn_batch(const engine *e, qkv_tape *t, const ptrdiff_t *rows, ptrdiff_t n,
                          const settings *o, uint64_t seed)
{
    const bag **queries = allocate((size_t)n, sizeof *queries);
    ptrdiff_t *own = allocate((size_t)n, sizeof *own);
    for (ptrdiff_t i = 0; i < n; i++)
        queries[i] = &e->c->queries[rows[i]], own[i] = (i + o->mismatch) % n;
    meeting m = meet(e, queries, n, rows, n, o->dropout, seed);
    spelling s = spell(&e->c->words, m.word, m.n_words);
    qkv_var scores = score(t, e, embed_words(t, e, &s), &m);
    qkv_var loss = qkv_cross_entropy(t, scores, own, n); /* -log softmax(scores)[own], the mean */
    check(qkv_backward(t, loss));
    double value = qkv_item(t, loss);
    qkv_tape_reset(t);
    part(&m), forget_spelling(&s), free(own), free(queries);
    return value;
}

/* A few numbers that all queries share, and the importance of a word, learn faster than the
 * embeddings: two optimizers, one schedule. */
enum { SLOW, FAST, SPEEDS };

static void make_optimizers(const engine *e, qkv_optimizer *o[SPEEDS])
{
    for (int i = 0; i < SPEEDS; i++) check(qkv_adam_new(&o[i], NULL));
    for (size_t i = 0; i < qkv_parameters_count(e->p); i++) {
        const qkv_parameter *p = qkv_parameters_at(e->p, i);
        qkv_optimizer *to = o[strcmp(p->name, "embedding") == 0 ? SLOW : FAST];
        check(qkv_optimizer_add_f32(to, p->data, p->gradient, p->size));
    }
}

static void take_step(qkv_optimizer *const o[SPEEDS], double rate)
{
    static const double speed[SPEEDS] = {1, 3};
    for (int i = 0; i < SPEEDS; i++) {
        check(qkv_optimizer_set_rate(o[i], speed[i] * rate));
        check(qkv_optimizer_step(o[i]));
        qkv_optimizer_zero_gradients(o[i]);
    }
}

/* Returns how well the engine finds in the end. */
static quality learn(engine *e, qkv_tape *t, const settings *s, curve *k)
{
    const corpus *c = e->c;
    uint64_t seed = (uint64_t)s->seed;
    ptrdiff_t size = s->batch < c->n_train ? s->batch : c->n_train, steps = c->n_train / size,
              total = s->epochs * steps;
    qkv_optimizer *o[SPEEDS];
    make_optimizers(e, o);
    ptrdiff_t *rows = allocate((size_t)c->n_train, sizeof *rows);
    memcpy(rows, c->order, (size_t)c->n_train * sizeof *rows);
    const qkv_schedule schedule = {
        .rate = s->rate, .decay = QKV_DECAY_COSINE, .warmup = steps / 2, .steps = total + 1};
    progress p = {.label = "learning", .total = total};
    quality r = {0};
    for (long epoch = 0; epoch < s->epochs; epoch++) {
        double loss = 0;
        shuffle(rows, c->n_train, seed + (uint64_t)epoch, EPOCH_ORDER);
        for (ptrdiff_t step = 0; step < steps; step++) {
            ptrdiff_t now = epoch * steps + step;
            uint64_t dropped = qkv_random_bits(seed, WORD_DROPOUT, (uint64_t)now);
            loss += learn_batch(e, t, rows + step * size, size, s, dropped);
            take_step(o, qkv_schedule_rate(&schedule, now));
            progress_show(&p, now + 1, "loss %.3f", loss / (double)(step + 1));
        }
        free(r.reciprocal);
        r = engine_quality(e, t);
        add_point(k, e, loss / (double)steps, r.mrr);
    }
    for (int i = 0; i < SPEEDS; i++) qkv_optimizer_free(o[i]);
    free(rows);
    return r;
}

/* ---- The program ----------------------------------------------------------------------------- */

enum {
    CORPUS,
    QUERY,
    TOP,
    BIAS,
    PAIRS,
    HELD_OUT,
    DIM,
    EPOCHS,
    BATCH,
    RATE,
    DROPOUT,
    MISMATCH,
    SAVE,
    LOAD,
    SEED,
    PLOT,
    FORMAT
};

static const command search_command = {
    "",
    "Learns to find the document of a query by attention, from pairs of both, and compares itself "
    "with BM25 on queries that it has not learned from.",
    (const command_option[]){
        [CORPUS] = {"corpus", "FILE",
                    "Tab or comma separated, without a header: a query, its document (of which the "
                    "engine looks at 200 different words, those that the file comes to last) and, "
                    "if there is a third column, a name (default: examples/data/debian.tsv)."},
        [QUERY] = {"query", "TEXT",
                   "Print the documents found for it; may be repeated (default: the first three "
                   "held-out queries)."},
        [TOP] = {"top", "N", "So many documents (default: 5)."},
        [BIAS] = {"bias", NULL,
                  "Add BM25's score to the engine's, as the bias of its attention, with a learned "
                  "weight."},
        [PAIRS] = {"pairs", "N", "Read only the first N rows (default: all)."},
        [HELD_OUT] = {"held-out", "PART", "Part of the rows to be held out (default: 0.2)."},
        [DIM] = {"dim", "D", "Size of an embedding (default: 96)."},
        [EPOCHS] = {"epochs", "N", "Passes over the training part (default: 8)."},
        [BATCH] = {"batch", "N", "Pairs of a step, told from each other (default: 128)."},
        [RATE] = {"rate", "R", "Rate of learning, of Adam (default: 0.003)."},
        [DROPOUT] = {"dropout", "P",
                     "Part of a document's words that a step leaves out (default: 0.5)."},
        [MISMATCH] =
            {"mismatch", NULL,
             "Take the document of another query for the right one, to see what is learned "
             "without any: how long documents are, and that words differ."},
        [SAVE] = {"save", "FILE", "Write what was learned, as safetensors."},
        [LOAD] = {"load", "FILE",
                  "Read what was learned instead of learning; with --query, only answer. What is "
                  "held out is so only with the corpus and seed of the learning."},
        [SEED] = {"seed", "N", "Seed of the split, the start and the order (default: 1)."},
        [PLOT] = {"plot", "DIR",
                  "Draw the learning curve and some weights into DIR (default: figures; '' for "
                  "none)."},
        [FORMAT] = {"format", "FORMAT", "Format of the figures: svg (default), png or pdf."},
        {NULL, NULL, NULL}}};

static void read_option(settings *s, int o)
{
    if (o == CORPUS) s->corpus = text_argument("corpus", optarg);
    if (o == QUERY) s->queries[s->n_queries++] = text_argument("query", optarg);
    if (o == TOP) s->top = integer_argument("top", optarg, 1, 1000);
    if (o == BIAS) s->bias = true;
    if (o == PAIRS) s->pairs = integer_argument("pairs", optarg, 4, 1L << 40);
    if (o == HELD_OUT) s->held_out = number_argument("held-out", optarg, 0, 1);
    if (o == DIM) s->dim = integer_argument("dim", optarg, 1, 4096);
    if (o == EPOCHS) s->epochs = integer_argument("epochs", optarg, 1, 10000);
    if (o == BATCH) s->batch = integer_argument("batch", optarg, 2, 4096);
    if (o == RATE) s->rate = number_argument("rate", optarg, 1e-9, 10);
    if (o == DROPOUT) s->dropout = number_argument("dropout", optarg, 0, 1);
    if (o == MISMATCH) s->mismatch = true;
    if (o == SAVE) s->save = path_argument("save", optarg);
    if (o == LOAD) s->load = path_argument("load", optarg);
    if (o == SEED) s->seed = integer_argument("seed", optarg, 0, 1L << 62);
    if (o == PLOT) s->plot = *optarg ? optarg : NULL;
    if (o == FORMAT) s->format = format_argument("format", optarg);
}

static settings read_settings(int argc, char **argv)
{
    settings s = {.corpus = "examples/data/debian.tsv",
                  .queries = allocate((size_t)argc, sizeof *s.queries),
                  .dim = 96,
                  .epochs = 8,
                  .batch = 128,
                  .top = 5,
                  .seed = 1,
                  .held_out = 0.2,
                  .rate = 0.003,
                  .dropout = 0.5,
                  .plot = "figures",
                  .format = "svg"};
    for (int option; (option = command_next(&search_command, argc, argv)) >= 0;)
        read_option(&s, option);
    if (optind < argc) usage_error("unexpected argument '%s'", argv[optind]);
    if (s.load && s.save) usage_error("--load and --save do not go together");
    return s;
}

/* Learns, or loads, and reports how well it finds. */
static void learn_and_report(engine *e, qkv_tape *t, report *r, const settings *s)
{
    const corpus *c = e->c;
    size_t points = (size_t)s->epochs + 1;
    r->curve = (curve){.epoch = allocate(points, sizeof(double)),
                       .loss = allocate(points, sizeof(double)),
                       .mrr = allocate(points, sizeof(double)),
                       .temperature = allocate(points, sizeof(double))};
    r->before = engine_quality(e, t);
    add_point(&r->curve, e, NAN, r->before.mrr);
    if (s->load) check(qkv_parameters_load(e->p, s->load));
    r->after = s->load ? engine_quality(e, t) : learn(e, t, s, &r->curve);
    r->whole = bm25_quality(&r->whole_index, c->held_out, c->n_held_out);
    r->best = bm25_quality(&r->best_index, c->held_out, c->n_held_out);
    print_report(r, e);
    print_temperatures(e, t);
    if (s->save) check(qkv_parameters_save(e->p, s->save));
}

static void draw(const engine *e, qkv_tape *t, const report *r, const settings *s)
{
    putchar('\n');
    if (!s->load) draw_learning(r, s);
    draw_weights(e, t, s);
}

static void answer(const engine *e, qkv_tape *t, const bag *queries, const settings *s)
{
    const corpus *c = e->c;
    for (long i = 0; i < s->n_queries; i++)
        print_answer(e, t, s->queries[i], &queries[i], -1, s->top);
    for (ptrdiff_t i = 0; s->n_queries == 0 && i < 3 && i < c->n_held_out; i++) {
        ptrdiff_t row = c->held_out[i];
        print_answer(e, t, c->pairs[row].query, &c->queries[row], row, s->top);
    }
}

static void free_report(report *r)
{
    free(r->before.reciprocal), free(r->after.reciprocal), free(r->whole.reciprocal);
    free(r->best.reciprocal), free(r->curve.epoch), free(r->curve.loss), free(r->curve.mrr);
    free(r->curve.temperature), free_index(&r->whole_index), free_index(&r->best_index);
}

int main(int argc, char **argv)
{
    clean_up_on_signals();
    use_one_thread();
    settings s = read_settings(argc, argv);
    corpus *c = read_corpus(&s);
    bag *queries = allocate((size_t)s.n_queries, sizeof *queries);
    for (long i = 0; i < s.n_queries; i++) queries[i] = read_words(&c->words, s.queries[i]);
    print_corpus(c);

    report r = {0};
    bool only_answer = s.load && s.n_queries > 0;
    if (!only_answer && s.plot) make_directories(s.plot);
    expect_creatable("--save", s.save);
    if (!only_answer || s.bias) tune_bm25(c, &r.whole_index, &r.best_index);
    engine e = make_engine(c, &s, s.bias ? &r.best_index : NULL);
    qkv_tape *t;
    check(qkv_tape_new(&t, QKV_F32));
    if (only_answer) {
        check(qkv_parameters_load(e.p, s.load));
        refresh(&e, t);
    } else {
        learn_and_report(&e, t, &r, &s);
    }
    answer(&e, t, queries, &s);
    if (s.plot && !only_answer) draw(&e, t, &r, &s);
    qkv_tape_free(t);
    qkv_parameters_free(e.p);
    free(e.words), free(e.by_words);
    free_report(&r);
    free_bags(queries, s.n_queries), free_corpus(c), free(s.queries);
    return finish();
}
