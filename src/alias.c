/* alias.c - which elements do two strided arrays share? Decided exactly: interleaved layouts that
 * share nothing pass.
 *
 * Two arrays share a byte iff a sum of strides, each taken 0 to n - 1 times, reaches a target: a
 * bounded linear Diophantine equation with positive coefficients. It is searched from the largest
 * stride down, where the remaining strides bound the choice to one or two values, unless a layout
 * is very odd. */
#include "problem.h"

#include <stdint.h>

#include "fail.h"
#include "size.h"

enum { MAX_TERMS = 9, MAX_VISITS = 100000 };

typedef struct equation {
    int n;
    size_t coefficient[MAX_TERMS]; /* descending */
    size_t bound[MAX_TERMS];       /* how often each may be taken */
    int visits;
} equation;

static void add_term(equation *e, size_t coefficient, size_t bound)
{
    if (coefficient == 0 || bound == 0) return;
    int i = 0;
    while (i < e->n && e->coefficient[i] > coefficient) i++;
    if (i < e->n && e->coefficient[i] == coefficient) {
        e->bound[i] += bound;
        return;
    }
    for (int j = e->n++; j > i; j--) {
        e->coefficient[j] = e->coefficient[j - 1];
        e->bound[j] = e->bound[j - 1];
    }
    e->coefficient[i] = coefficient;
    e->bound[i] = bound;
}

/* The number of solutions from term i on, counted up to limit; limit as well when the search is too
 * long, so that what cannot be proven disjoint counts as shared. */
static int solutions(equation *e, int i, size_t target, int limit)
{
    if (i == e->n) return target == 0;
    if (++e->visits > MAX_VISITS) return limit;
    size_t rest = 0; /* the most that later terms can add */
    for (int j = i + 1; j < e->n; j++) rest += e->coefficient[j] * e->bound[j];
    size_t c = e->coefficient[i];
    size_t low = target > rest ? (target - rest + c - 1) / c : 0;
    size_t high = target / c < e->bound[i] ? target / c : e->bound[i];
    int found = 0;
    for (size_t k = low; k <= high && found < limit; k++)
        found += solutions(e, i + 1, target - k * c, limit - found);
    return found;
}

static bool is_empty(const qkv_extent *x)
{
    return x->dim[0] == 0 || x->dim[1] == 0 || x->dim[2] == 0 || x->dim[3] == 0;
}

static void add_terms(equation *e, const qkv_extent *x, size_t times)
{
    for (int axis = 0; axis < 4; axis++) {
        ptrdiff_t stride = x->stride[axis] < 0 ? -x->stride[axis] : x->stride[axis];
        add_term(e, (size_t)stride * x->element, (size_t)(x->dim[axis] - 1) * times);
    }
}

static bool share(const qkv_extent *x, const qkv_extent *y)
{
    if (x->last < y->first || y->last < x->first || is_empty(x) || is_empty(y)) return false;
    /* x->first + sum x = y->last - sum y, both counted in bytes. */
    equation e = {.n = 0};
    add_terms(&e, x, 1);
    add_terms(&e, y, 1);
    add_term(&e, 1, x->element - 1 + y->element - 1);
    return solutions(&e, 0, y->last - x->first, 1) > 0;
}

/* Is an element reached by two indices? Iff differences of indices solve sum = 0, and not all are
 * zero. */
static bool repeats(const qkv_extent *x)
{
    if (x->packed || is_empty(x)) return false;
    equation e = {.n = 0};
    size_t target = 0;
    for (int axis = 0; axis < 4; axis++) {
        if (x->dim[axis] < 2) continue;
        size_t stride = (size_t)(x->stride[axis] < 0 ? -x->stride[axis] : x->stride[axis]);
        if (stride == 0) {
            if (x->reduces) continue;
            return true;
        }
        /* Two axes of one stride: (0, 1) and (1, 0) are one element. */
        for (int i = 0; i < e.n; i++)
            if (e.coefficient[i] == stride) return true;
        add_term(&e, stride, 2 * (size_t)(x->dim[axis] - 1));
        target += stride * (size_t)(x->dim[axis] - 1);
    }
    return solutions(&e, 0, target, 2) > 1;
}

/* The bytes of a packed array; false if it has none, or more than memory can have. */
static bool pack(const qkv_extent *x, size_t *bytes)
{
    *bytes = x->element;
    bool fits = x->packed;
    for (int axis = 0; axis < 4; axis++) fits = fits && qkv_size_mul(bytes, x->dim[axis]);
    return fits && *bytes > 0 && *bytes <= PTRDIFF_MAX;
}

qkv_status qkv_slot_list_add(qkv_slot_list *list, const qkv_extent *extent)
{
    if (!extent->data) return QKV_OK;
    qkv_extent *x = &list->extent[list->n++];
    *x = *extent;
    x->first = (uintptr_t)x->data;
    size_t reach;          /* bytes from the first element to the end of the last */
    if (pack(x, &reach)) { /* 5 % of a tiny call less than by strides */
        x->last = x->first + reach - 1;
        return QKV_OK;
    }
    x->last = x->first + x->element - 1;
    reach = x->element;
    for (int axis = 0; axis < 4; axis++) {
        ptrdiff_t stride = x->stride[axis];
        size_t bytes = x->element;
        if (x->dim[axis] == 0) continue;
        bool fits = stride > PTRDIFF_MIN && qkv_size_mul(&bytes, stride < 0 ? -stride : stride) &&
                    qkv_size_mul(&bytes, x->dim[axis] - 1) && qkv_size_add(&reach, bytes);
        if (!fits || reach > PTRDIFF_MAX)
            return qkv_fail(QKV_E_OVERFLOW, "%s: %s: %td elements at stride %td exceed memory",
                            list->who, x->name, x->dim[axis], stride);
        if (stride < 0)
            x->first -= bytes;
        else
            x->last += bytes;
    }
    return QKV_OK;
}

qkv_status qkv_slot_list_check(const qkv_slot_list *list)
{
    for (int i = 0; i < list->n; i++) {
        const qkv_extent *x = &list->extent[i];
        if (!x->written) continue;
        if (repeats(x))
            return qkv_fail(
                QKV_E_ALIAS, "%s: the strides %td, %td, %td, %td of %s write an element twice",
                list->who, x->stride[0], x->stride[1], x->stride[2], x->stride[3], x->name);
        for (int j = 0; j < list->n; j++) {
            const qkv_extent *y = &list->extent[j];
            bool once = !y->written || j < i; /* each pair once */
            if (j != i && once && share(x, y))
                return qkv_fail(QKV_E_ALIAS, "%s: %s, which is written, shares elements with %s",
                                list->who, x->name, y->name);
        }
    }
    return QKV_OK;
}
