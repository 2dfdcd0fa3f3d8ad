#include "agree.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

typedef struct tally {
    const char *what;
    double epsilon, least; /* of the dtype: what is less may be 0 */
    size_t compared, unbounded;
} tally;

static void compare(tally *t, const char *name, const double *actual, const double *expected,
                    const double *size, size_t n)
{
    char label[400];
    for (size_t i = 0; actual && i < n; i++) {
        t->compared++;
        if (!isfinite(size[i])) {
            t->unbounded++;
            continue;
        }
        double allowed = 64 * t->epsilon * size[i] + t->least;
        if (fabs(actual[i] - expected[i]) <= allowed || actual[i] == expected[i]) continue;
        snprintf(label, sizeof label, "%s: %s[%zu]", t->what, name, i);
        assert_close_(actual[i], expected[i], allowed, label, __FILE__, __LINE__);
    }
}

static void agrees(const problem *p, layout where, const char *what, bool weights)
{
    answer y = answer_new(p), expected = answer_new(p), size = answer_new(p);
    if (!weights) {
        free(y.weights);
        y.weights = NULL;
    }
    assert_ok(compute(p, where, ALL_GRADIENTS, &y));
    oracle_solve(p, &expected, &size);
    tally t = {.what = what,
               .epsilon = problem_epsilon(p),
               .least = p->dtype == QKV_F32 ? FLT_MIN : DBL_MIN};
    size_t rows = (size_t)problem_rows(p);
    compare(&t, "o", y.o, expected.o, size.o, rows * (size_t)p->a.d_v);
    compare(&t, "weights", y.weights, expected.weights, size.weights, rows * (size_t)p->a.n_k);
    if (problem_has_lse(p)) compare(&t, "lse", y.lse, expected.lse, size.lse, rows);
    for (operand x = Q; x < OPERANDS; x++)
        if (p->in[x])
            compare(&t, operand_name[x], y.d[x], expected.d[x], size.d[x], operand_size(p, x));
    if (4 * t.unbounded > t.compared) {
        print_error("%s: %zu of %zu numbers may be anything\n", what, t.unbounded, t.compared);
        fail();
    }
    answer_free(&size);
    answer_free(&expected);
    answer_free(&y);
}

void assert_agrees(const problem *p, layout where, const char *what)
{
    agrees(p, where, what, true);
}

void assert_agrees_without_weights(const problem *p, layout where, const char *what)
{
    agrees(p, where, what, false);
}

static void assert_same(const char *what, const char *name, const double *actual,
                        const double *expected, size_t n)
{
    for (size_t i = 0; actual && i < n; i++) {
        if (!memcmp(&actual[i], &expected[i], sizeof *actual)) continue;
        print_error("%s: %s[%zu] is %a, expected the bits of %a\n", what, name, i, actual[i],
                    expected[i]);
        fail();
    }
}

void assert_same_bits(const problem *p, int gradients, const answer *y, const answer *expected,
                      const char *what)
{
    size_t rows = (size_t)problem_rows(p);
    assert_same(what, "o", y->o, expected->o, rows * (size_t)p->a.d_v);
    assert_same(what, "lse", y->lse, expected->lse, rows);
    assert_same(what, "weights", y->weights, expected->weights, rows * (size_t)p->a.n_k);
    for (operand x = Q; x < OPERANDS; x++)
        if (p->in[x] && gradients >> x & 1)
            assert_same(what, operand_name[x], y->d[x], expected->d[x], operand_size(p, x));
}
