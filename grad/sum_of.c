#include "sum_of.h"
#include "src/real.h"

enum { LANES = 16, BLOCK = 256 };

real FN(qkv_sum_of)(const real *x, size_t n)
{
    if (n > BLOCK) {
        size_t half = n / 2 / BLOCK * BLOCK + (n / 2 < BLOCK ? n / 2 : 0);
        return FN(qkv_sum_of)(x, half) + FN(qkv_sum_of)(x + half, n - half);
    }
    /* Lanes, because a compiler may not reorder a sum and so would not vectorise it. */
    real lane[LANES] = {0}, total = 0;
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) lane[j] += x[i + j];
    for (; i < n; i++) total += x[i];
    for (size_t j = 0; j < LANES; j++) total += lane[j];
    return total;
}
