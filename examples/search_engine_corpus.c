/* search_engine_corpus.c - what the search engine reads: words, and rows of queries and
 * documents. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <csv.h>

#include "search_engine.h"
#include "src/random.h"

static void *resize(void *memory, ptrdiff_t n, size_t size)
{
    void *resized = reallocarray(memory, n > 0 ? (size_t)n : 1, size);
    if (!resized) fail_with("out of memory");
    return resized;
}

/* ---- Words ----------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    return strcmp(((const known_word *)a)->text, ((const known_word *)b)->text);
}

/* FNV-1a, by Fowler, Noll and Vo, folded. */
static ptrdiff_t hash(const char *text, ptrdiff_t n)
{
    uint64_t h = 0xcbf29ce484222325u;
    for (ptrdiff_t i = 0; i < n; i++) h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
    return (ptrdiff_t)((h ^ h >> 32) % BUCKETS);
}

/* "cat" is <cat>, <ca, cat and at>: similar words share features, and so do words never seen. */
static void find_features(known_word *w)
{
    char marked[LONGEST_WORD + 3];
    ptrdiff_t n = snprintf(marked, sizeof marked, "<%s>", w->text);
    w->feature[w->n_features++] = hash(marked, n);
    for (ptrdiff_t at = 0; n > GRAM && at + GRAM <= n; at++)
        w->feature[w->n_features++] = hash(marked + at, GRAM);
}

ptrdiff_t number_of(dictionary *d, const char *text)
{
    known_word *w = allocate(1, sizeof *w);
    snprintf(w->text, sizeof w->text, "%s", text);
    known_word **found = tsearch(w, &d->tree, by_text);
    if (!found) fail_with("out of memory");
    if (*found != w) {
        free(w);
        return (*found)->number;
    }
    find_features(w);
    if (d->n % 1024 == 0) d->words = resize(d->words, d->n + 1024, sizeof *d->words);
    d->words[d->n] = w;
    return w->number = d->n++;
}

void free_dictionary(dictionary *d)
{
    tdestroy(d->tree, free);
    free(d->words);
}

static int by_number(const void *a, const void *b)
{
    ptrdiff_t x = *(const ptrdiff_t *)a, y = *(const ptrdiff_t *)b;
    return (x > y) - (x < y);
}

static bag count_words(ptrdiff_t *all, ptrdiff_t n)
{
    bag b = {.word = allocate((size_t)n, sizeof *b.word),
             .count = allocate((size_t)n, sizeof *b.count),
             .length = n};
    qsort(all, (size_t)n, sizeof *all, by_number);
    for (ptrdiff_t i = 0; i < n; i++) {
        if (b.n == 0 || b.word[b.n - 1] != all[i]) b.word[b.n++] = all[i];
        b.count[b.n - 1]++;
    }
    return b;
}

/* Words are runs of letters and digits, of any bytes that are not ASCII too, in lower case. */
bag read_words(dictionary *d, const char *text)
{
    ptrdiff_t *all = allocate(strlen(text), sizeof *all), n = 0;
    while (*text) {
        char spelled[LONGEST_WORD + 1];
        size_t length = 0;
        for (; isalnum((unsigned char)*text) || (unsigned char)*text >= 0x80; text++)
            if (length < LONGEST_WORD) spelled[length++] = (char)tolower((unsigned char)*text);
        spelled[length] = '\0';
        if (length > 0) all[n++] = number_of(d, spelled);
        if (*text) text++;
    }
    bag b = count_words(all, n);
    free(all);
    return b;
}

void free_bags(bag *bags, ptrdiff_t n)
{
    for (ptrdiff_t i = 0; i < n; i++) free(bags[i].word), free(bags[i].count);
    free(bags);
}

/* ---- The corpus ------------------------------------------------------------------------------ */

static void on_field(void *text, size_t n, void *context)
{
    corpus *c = context;
    if (c->n == c->limit) return;
    if (c->field == 0) {
        if (c->n % 1024 == 0) c->pairs = resize(c->pairs, c->n + 1024, sizeof *c->pairs);
        c->pairs[c->n] = (pair){0};
    }
    pair *p = &c->pairs[c->n];
    char **to[] = {&p->query, &p->document, &p->name};
    if (c->field < 3) *to[c->field] = print_text("%.*s", (int)n, (const char *)text);
    c->field++;
}

static void on_row(int end, void *context)
{
    (void)end;
    corpus *c = context;
    if (c->n == c->limit) return;
    if (c->field < 2)
        fail_with("%s, row %td: columns: %td, expected a query and a document", c->path, c->n + 1,
                  c->field);
    c->field = 0;
    c->n++;
}

static void parse_rows(corpus *c, struct csv_parser *parser, const char *block, size_t n)
{
    if (memchr(block, '\0', n)) fail_with("%s: has a NUL byte, is no text", c->path);
    if (csv_parse(parser, block, n, on_field, on_row, c) == n) return;
    int error = csv_error(parser);
    fail_with("%s, row %td: %s", c->path, c->n + 1,
              error == CSV_EPARSE ? "a quote within a field" : csv_strerror(error));
}

/* With a tab in its first row the file is tab separated and has no quotes; else it is a CSV. */
static void read_rows(corpus *c)
{
    static const char mark[] = "\ufeff"; /* a byte order mark is none of the text */
    static char block[1 << 16];
    FILE *f = fopen(c->path, "re");
    if (!f) fail_with("cannot read %s: %s", c->path, strerror(errno));
    struct csv_parser parser;
    if (csv_init(&parser, CSV_STRICT | CSV_STRICT_FINI) != 0) fail_with("out of memory");
    csv_set_blk_size(&parser, sizeof block); /* a long field grows by it, copied each time */
    size_t n = fread(block, 1, sizeof block, f), skip = n >= 3 && !memcmp(block, mark, 3) ? 3 : 0;
    const char *end = memchr(block, '\n', n);
    if (memchr(block, '\t', end ? (size_t)(end - block) : n)) {
        csv_set_delim(&parser, '\t');
        csv_set_quote(&parser, '\0');
    }
    for (; n > 0; n = fread(block, 1, sizeof block, f), skip = 0)
        parse_rows(c, &parser, block + skip, n - skip);
    if (ferror(f)) fail_with("cannot read %s: %s", c->path, strerror(errno));
    if (csv_fini(&parser, on_field, on_row, c) != 0)
        fail_with("%s, row %td: a quote is not closed", c->path, c->n + 1);
    csv_free(&parser);
    fclose(f);
}

void shuffle(ptrdiff_t *x, ptrdiff_t n, uint64_t seed, uint64_t stream)
{
    for (ptrdiff_t i = n - 1; i > 0; i--) {
        double u = qkv_random_uniform(seed, stream, (uint64_t)i);
        ptrdiff_t j = (ptrdiff_t)(u * (double)(i + 1)), swap = x[i];
        x[i] = x[j], x[j] = swap;
    }
}

corpus *read_corpus(const settings *s)
{
    corpus *c = allocate(1, sizeof *c);
    *c = (corpus){.path = s->corpus, .limit = s->pairs ? s->pairs : PTRDIFF_MAX};
    read_rows(c);
    c->n_held_out = (ptrdiff_t)lround(s->held_out * (double)c->n);
    c->n_train = c->n - c->n_held_out;
    if (c->n_train < 2 || c->n_held_out < 2)
        fail_with(
            "%s: %td of %td rows to learn from and %td held out, expected two of each or more",
            c->path, c->n_train, c->n, c->n_held_out);
    c->queries = allocate((size_t)c->n, sizeof *c->queries);
    c->documents = allocate((size_t)c->n, sizeof *c->documents);
    c->order = allocate((size_t)c->n, sizeof *c->order);
    for (ptrdiff_t i = 0; i < c->n; i++) {
        c->queries[i] = read_words(&c->words, c->pairs[i].query);
        c->documents[i] = read_words(&c->words, c->pairs[i].document);
        if (c->queries[i].n == 0 || c->documents[i].n == 0)
            fail_with("%s, row %td: a text without words", c->path, i + 1);
        c->average_length += (double)c->documents[i].length / (double)c->n;
        c->order[i] = i;
    }
    shuffle(c->order, c->n, (uint64_t)s->seed, SPLIT);
    c->held_out = c->order + c->n_train;
    return c;
}

void free_corpus(corpus *c)
{
    for (ptrdiff_t i = 0; i < c->n; i++)
        free(c->pairs[i].query), free(c->pairs[i].document), free(c->pairs[i].name);
    free(c->pairs), free(c->order);
    free_bags(c->queries, c->n), free_bags(c->documents, c->n);
    free_dictionary(&c->words);
    free(c);
}

double idf(ptrdiff_t documents, ptrdiff_t with)
{
    return log(1 + ((double)(documents - with) + 0.5) / ((double)with + 0.5));
}
