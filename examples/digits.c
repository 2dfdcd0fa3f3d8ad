/* digits.c - the handwritten digits from their file, and orders to learn them in. */
#include "digits.h"

#include <stdlib.h>

#include "common.h"
#include "qkv/npy.h"
#include "src/random.h"

digits load_digits(const char *path)
{
    qkv_npy a;
    check(qkv_npy_load(&a, path));
    if (a.rank != 2 || a.dim[1] != PIXELS + 1 || a.dim[0] < 3)
        fail_with("%s: expected an array of 3 or more rows and %d columns", path, PIXELS + 1);
    digits d = {.n = a.dim[0], .n_train = a.dim[0] * 2 / 3};
    d.pixels = allocate((size_t)(d.n * PIXELS), sizeof *d.pixels);
    d.label = allocate((size_t)d.n, sizeof *d.label);
    for (ptrdiff_t i = 0; i < d.n * (PIXELS + 1); i++) {
        const double x = qkv_npy_element(&a, (size_t)i);
        const ptrdiff_t row = i / (PIXELS + 1), column = i % (PIXELS + 1);
        if (!(x >= 0 && x <= (column < PIXELS ? 16 : CLASSES - 1)))
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
