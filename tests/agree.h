/* agree.h - does the library agree with the oracle, and with itself? */
#ifndef QKV_TESTS_AGREE_H
#define QKV_TESTS_AGREE_H

#include "compute.h"
#include "oracle.h"

/* Computes p and compares o, lse (where the normaliser has one), weights and every gradient with
 * the oracle's, element by element: |error| <= 64 epsilon magnitude (oracle.h), epsilon being the
 * dtype's: 1.4e-14 and 7.6e-6 relative to the natural scale. At least nine elements in ten must
 * have a finite bound. what names the case in a failure. */
void assert_agrees(const problem *p, layout where, const char *what);
/* The same, but the library is not asked for the weights, which it then computes otherwise. */
void assert_agrees_without_weights(const problem *p, layout where, const char *what);

/* Two answers to problems of p's shape are the same to the bit; gradients: bits to compare. */
void assert_same_bits(const problem *p, int gradients, const answer *y, const answer *expected,
                      const char *what);

#endif
