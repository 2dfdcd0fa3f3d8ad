#include "support.h"

#include <math.h>
#include <string.h>

#include "src/random.h"

void assert_close_(double actual, double expected, double tolerance, const char *what,
                   const char *file, int line)
{
    if (isnan(expected) ? isnan(actual) : actual == expected) return;
    if (fabs(actual - expected) <= tolerance) return;
    print_error("%s: got %.17g, expected %.17g, difference %.3g, allowed %.3g\n", what, actual,
                expected, fabs(actual - expected), tolerance);
    _fail(file, line);
}

void assert_status_(qkv_status actual, qkv_status expected, const char *what, const char *file,
                    int line)
{
    if (actual == expected) return;
    print_error("%s: got %s (%s), expected %s\n", what, qkv_status_name(actual), qkv_last_error(),
                qkv_status_name(expected));
    _fail(file, line);
}

void assert_message_(const char *text, const char *file, int line)
{
    if (strstr(qkv_last_error(), text)) return;
    print_error("the message \"%s\" does not contain \"%s\"\n", qkv_last_error(), text);
    _fail(file, line);
}

void fill_normal(double *x, size_t n, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) x[i] = qkv_random_normal(seed, 0, i);
}

double uniform(uint64_t seed, uint64_t index, double lower, double upper)
{
    return lower + (upper - lower) * qkv_random_uniform(seed, 1, index);
}
