/* digits.h - the handwritten digits that two programs learn: 8 x 8 pixels, 0 (white) to 1. */
#ifndef QKV_EXAMPLES_DIGITS_H
#define QKV_EXAMPLES_DIGITS_H

#include <stddef.h>
#include <stdint.h>

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

#endif
