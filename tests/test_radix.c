#include "support.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/radix.h"

enum { MOST = 5000 };

/* By x, those that tie in the order they came: rows are numbered in it. */
static int by_number(const void *a, const void *b)
{
    const qkv_key *p = a, *q = b;
    if (p->x < q->x || p->x > q->x) return p->x < q->x ? -1 : 1;
    return (p->row > q->row) - (p->row < q->row);
}

static void assert_sorted_as_by_comparisons(const double *x, ptrdiff_t n)
{
    static qkv_key keys[MOST], room[MOST], expected[MOST];
    for (ptrdiff_t i = 0; i < n; i++) keys[i] = expected[i] = (qkv_key){x[i], i};
    qsort(expected, (size_t)n, sizeof *expected, by_number);
    qkv_radix_sort(keys, room, n);
    for (ptrdiff_t i = 0; i < n; i++) {
        assert_int_equal(keys[i].row, expected[i].row);
        assert_memory_equal(&keys[i].x, &expected[i].x, sizeof keys[i].x); /* -0 stays -0 */
    }
}

static void every_kind_of_number_is_in_its_place(void **state)
{
    (void)state;
    const double kinds[] = {
        0.0,       -0.0,       1,     -1,     INFINITY, -INFINITY, DBL_TRUE_MIN, -DBL_TRUE_MIN,
        DBL_MIN,   -DBL_MIN,   1e308, -1e308, DBL_MAX,  -DBL_MAX,  1 + 0x1p-52,  -1 - 0x1p-52,
        0x1p-1040, -0x1p-1040, 2,     -2,     0.1,      -0.1};
    enum { KINDS = sizeof kinds / sizeof *kinds };
    double x[MOST] = {0};
    for (ptrdiff_t n = 0; n <= MOST; n = n < 40 ? n + 1 : 3 * n) {
        for (ptrdiff_t i = 0; i < n; i++)
            x[i] = kinds[(int)uniform(1, (uint64_t)(n * MOST + i), 0, KINDS - 1e-9)];
        assert_sorted_as_by_comparisons(x, n);
    }
}

static void numbers_of_any_size_are_sorted(void **state)
{
    (void)state;
    double x[MOST];
    fill_normal(x, MOST, 2);
    assert_sorted_as_by_comparisons(x, MOST);
    for (int i = 0; i < MOST; i++) x[i] = ldexp(x[i], (int)uniform(3, (uint64_t)i, -1060, 1000));
    assert_sorted_as_by_comparisons(x, MOST);
    for (int i = 0; i < MOST; i++) x[i] = 1e9 + i % 7 - 3; /* few digits differ */
    assert_sorted_as_by_comparisons(x, MOST);
}

static void what_is_in_order_already_stays(void **state)
{
    (void)state;
    double x[MOST];
    for (int direction = -1; direction <= 1; direction++) {
        for (int i = 0; i < MOST; i++) x[i] = direction * (i / 2) * 0.25;
        assert_sorted_as_by_comparisons(x, MOST);
    }
    x[MOST - 1] = -1; /* but for the last */
    assert_sorted_as_by_comparisons(x, MOST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_number_is_in_its_place),
        cmocka_unit_test(numbers_of_any_size_are_sorted),
        cmocka_unit_test(what_is_in_order_already_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
