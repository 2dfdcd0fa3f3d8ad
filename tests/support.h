/* support.h - what every test needs: cmocka, asserts that NaN cannot pass, seeded random numbers.
 *
 * cmocka 1.1.5's assert_float_equal passes on NaN and has no double version, hence our own. */
#ifndef QKV_TESTS_SUPPORT_H
#define QKV_TESTS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "qkv/status.h"

/* |actual - expected| <= tolerance; equal infinities are close; NaN is close to NaN only. */
#define assert_close(actual, expected, tolerance) \
    assert_close_(actual, expected, tolerance, #actual, __FILE__, __LINE__)
void assert_close_(double actual, double expected, double tolerance, const char *what,
                   const char *file, int line);

/* The status is the expected one; prints qkv_last_error() otherwise. */
#define assert_status(call, expected) assert_status_(call, expected, #call, __FILE__, __LINE__)
void assert_status_(qkv_status actual, qkv_status expected, const char *what, const char *file,
                    int line);
#define assert_ok(call) assert_status(call, QKV_OK)

/* qkv_last_error() contains the text. */
#define assert_message(text) assert_message_(text, __FILE__, __LINE__)
void assert_message_(const char *text, const char *file, int line);

/* n standard normal numbers, a function of seed alone. */
void fill_normal(double *x, size_t n, uint64_t seed);
double uniform(uint64_t seed, uint64_t index, double lower, double upper);

#endif
