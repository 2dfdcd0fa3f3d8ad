/* sum_of.h - the sum of n numbers, by halves (Higham 1993): its error grows as log n. */
#ifndef QKV_GRAD_SUM_OF_H
#define QKV_GRAD_SUM_OF_H

#include <stddef.h>

float qkv_sum_of_f32(const float *x, size_t n);
double qkv_sum_of_f64(const double *x, size_t n);

#endif
