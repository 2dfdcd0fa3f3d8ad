/* digits.h - the handwritten digits that two programs learn: 8 x 8 pixels, 0 (white) to 1; and what
 * both tell of their learning. */
#ifndef QKV_EXAMPLES_DIGITS_H
#define QKV_EXAMPLES_DIGITS_H

#include <stddef.h>
#include <stdint.h>

#include "qkv/plot.h"

enum { SIDE = 8, PIXELS = SIDE * SIDE, CLASSES = 10 };

/* The first two thirds of the file to learn from, the last third to be tested on. */
typedef struct digits {
    ptrdiff_t n, n_train;
    float *pixels;    /* [n, PIXELS], row by row from the top left */
    ptrdiff_t *label; /* [n], the digit */
} digits;

/* A .npy of [n, PIXELS + 1] integers, pixels 0 to 16 and the digit. Exits as common.h does. */
digits load_digits(const char *path);
void free_digits(digits *d);

/* order[0..n) = 0, 1, .. n - 1, shuffled: a function of seed and stream. */
void shuffle(ptrdiff_t *order, ptrdiff_t n, uint64_t seed, uint64_t stream);

/* share[c] = what each test image of digit c adds to the mean of all of them; NaN if there is none.
 */
void class_shares(const digits *d, double share[CLASSES]);

/* How many of n images have their largest score, of [n, CLASSES], where their label is. */
ptrdiff_t count_right(const float *score, const ptrdiff_t *label, ptrdiff_t n);

/* The mean of n numbers, and their standard deviation, NaN of one. */
double mean_of(const double *x, long n);
double deviation_of(const double *x, long n);

/* After each epoch, of accuracy [kinds, seeds, epochs]: the mean of the seeds, a line each, above
 * the range of the seeds, a band each. colours: of the band, of the line. */
typedef struct curves {
    double *x;
    qkv_series *series;
    size_t n;
} curves;

curves learning_curves(const double *accuracy, size_t kinds, size_t seeds, size_t epochs,
                       const char *const *names, const char *const (*colours)[2]);
void free_curves(curves *c);

#endif
