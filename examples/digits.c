/* digits.c - the handwritten digits from their file, orders to learn them in, and how that went. */
#include "digits.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common.h"
#include "qkv/npy.h"
#include "src/random.h"

digits load_digits(const char *path)
{
    qkv_npy a;
    check(qkv_npy_load(&a, path));
    if (a.rank != 2 || a.dim[1] != PIXELS + 1 || a.dim[0] < 3)
        fail_with("%s: expected an array of 3 or more rows and %d columns, found %s", path,
                  PIXELS + 1, describe_array(&a));
    digits d = {.n = a.dim[0], .n_train = a.dim[0] * 2 / 3};
    d.pixels = allocate((size_t)(d.n * PIXELS), sizeof *d.pixels);
    d.label = allocate((size_t)d.n, sizeof *d.label);
    for (ptrdiff_t i = 0; i < d.n * (PIXELS + 1); i++) {
        const double x = qkv_npy_element(&a, (size_t)i);
        const ptrdiff_t row = i / (PIXELS + 1), column = i % (PIXELS + 1);
        const bool whole = column < PIXELS || x == floor(x);
        if (!(x >= 0 && x <= (column < PIXELS ? 16 : CLASSES - 1) && whole))
            fail_with("%s: row %td, column %td is %g, which is no %s", path, row, column, x,
                      column < PIXELS ? "pixel from 0 to 16" : "digit");
        if (column < PIXELS)
            d.pixels[row * PIXELS + column] = (float)(x / 16);
        else
            d.label[row] = (ptrdiff_t)x;
    }
    qkv_npy_free(&a);
    return d;
}

void free_digits(digits *d)
{
    free(d->pixels);
    free(d->label);
}

void shuffle(ptrdiff_t *order, ptrdiff_t n, uint64_t seed, uint64_t stream)
{
    for (ptrdiff_t i = 0; i < n; i++) {
        const ptrdiff_t j =
            (ptrdiff_t)(qkv_random_bits(seed, stream, (uint64_t)i) % (uint64_t)(i + 1));
        order[i] = order[j];
        order[j] = i;
    }
}

void class_shares(const digits *d, double share[CLASSES])
{
    for (int c = 0; c < CLASSES; c++) share[c] = 0;
    for (ptrdiff_t i = d->n_train; i < d->n; i++) share[d->label[i]]++;
    for (int c = 0; c < CLASSES; c++) share[c] = share[c] > 0 ? 1 / share[c] : NAN;
}

ptrdiff_t count_right(const float *score, const ptrdiff_t *label, ptrdiff_t n)
{
    ptrdiff_t right = 0;
    for (ptrdiff_t i = 0; i < n; i++, score += CLASSES) {
        int best = 0;
        for (int c = 1; c < CLASSES; c++)
            if (score[c] > score[best]) best = c;
        right += best == label[i];
    }
    return right;
}

double mean_of(const double *x, long n)
{
    double sum = 0;
    for (long i = 0; i < n; i++) sum += x[i];
    return sum / (double)n;
}

double deviation_of(const double *x, long n)
{
    const double mean = mean_of(x, n);
    double sum = 0;
    for (long i = 0; i < n; i++) sum += (x[i] - mean) * (x[i] - mean);
    return n > 1 ? sqrt(sum / (double)(n - 1)) : NAN;
}

curves learning_curves(const double *accuracy, size_t kinds, size_t seeds, size_t epochs,
                       const char *const *names, const char *const (*colours)[2])
{
    curves c = {.n = 2 * kinds};
    c.x = allocate((1 + 3 * kinds) * epochs, sizeof *c.x);
    c.series = allocate(c.n, sizeof *c.series);
    for (size_t e = 0; e < epochs; e++) c.x[e] = (double)(e + 1);
    for (size_t kind = 0; kind < kinds; kind++) {
        double *mean = c.x + (1 + 3 * kind) * epochs, *low = mean + epochs, *high = low + epochs;
        for (size_t e = 0; e < epochs; e++) {
            low[e] = 100;
            for (size_t i = 0; i < seeds; i++) {
                const double a = accuracy[(kind * seeds + i) * epochs + e];
                mean[e] += a / (double)seeds;
                low[e] = fmin(low[e], a);
                high[e] = fmax(high[e], a);
            }
        }
        c.series[kind] = (qkv_series){.mark = QKV_BAND,
                                      .n = epochs,
                                      .x = c.x,
                                      .y = low,
                                      .y2 = high,
                                      .colour = colours[kind][0]};
        c.series[kinds + kind] = (qkv_series){
            QKV_LINE, names[kind], epochs, c.x, mean, .size = 2, .colour = colours[kind][1]};
    }
    return c;
}

void free_curves(curves *c)
{
    free(c->x);
    free(c->series);
}
