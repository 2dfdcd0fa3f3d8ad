/* sample.c - the rows of a regression, checked, complete and sorted: what is within reach of a
 * query in the first column is then a range. */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"
#include "local.h"
#include "radix.h"
#include "regression.h"
#include "simd/isa.h"
#include "team.h"
#include "workspace.h"

#define DECLARE(isa) qkv_local_kernels_##isa##_f64
extern const qkv_local_kernels QKV_EACH_ISA(DECLARE);
#define ADDRESS(isa) &qkv_local_kernels_##isa##_f64

const qkv_local_kernels *qkv_local_kernels_of(const char *who)
{
    static const qkv_local_kernels *const all[] = {QKV_EACH_ISA(ADDRESS)};
    int index;
    return qkv_isa_find(who, &index) ? NULL : all[index];
}

/* ---- Which rows are complete ------------------------------------------------------------------
 */

static qkv_status infinite(const char *who, const char *what, ptrdiff_t i, ptrdiff_t c, double x)
{
    return qkv_fail(QKV_E_ARG,
                    "%s: %s[%td, %td] is %g, expected a finite number, or NaN if it is "
                    "missing",
                    who, what, i, c, x);
}

static qkv_status check_row(const char *who, const qkv_sample *s, ptrdiff_t i, bool *complete)
{
    const qkv_regression *r = s->r;
    *complete = true;
    for (ptrdiff_t c = 0; c < s->d + s->d_y; c++) {
        bool is_y = c >= s->d;
        ptrdiff_t column = is_y ? c - s->d : c;
        double x = is_y ? r->y[i * s->d_y + column] : r->x[i * s->d + column];
        if (isinf(x)) return infinite(who, is_y ? "y" : "x", i, column, x);
        *complete &= !isnan(x);
    }
    if (!r->weight) return QKV_OK;
    if (r->weight[i] < 0 || isinf(r->weight[i]))
        return qkv_fail(QKV_E_ARG, "%s: weight[%td] is %g, expected a finite number >= 0", who, i,
                        r->weight[i]);
    *complete &= r->weight[i] > 0; /* a row of weight 0 is no row */
    return QKV_OK;
}

/* Keys are by the first column. */
static qkv_status find_rows(const char *who, qkv_sample *s, qkv_key *keys)
{
    const qkv_regression *r = s->r;
    for (ptrdiff_t i = 0; i < r->n; i++) {
        bool complete;
        qkv_status status = check_row(who, s, i, &complete);
        if (status != QKV_OK) return status;
        if (complete) keys[s->n++] = (qkv_key){r->x[i * s->d], i};
    }
    s->missing = r->n - s->n;
    s->every = r->rows > 0 ? (s->n + r->rows - 1) / r->rows : 1;
    if (s->every < 1) s->every = 1;
    if (s->n == 0) return qkv_fail(QKV_E_SHAPE, "%s: none of the %td rows is complete", who, r->n);
    return QKV_OK;
}

static qkv_status sort_rows(const char *who, const qkv_sample *s, qkv_key *keys)
{
    qkv_key *room = malloc((size_t)s->n * sizeof *room);
    if (!room) return qkv_fail(QKV_E_NOMEM, "%s: no memory for %td rows", who, s->n);
    qkv_radix_sort(keys, room, s->n);
    free(room);
    return QKV_OK;
}

/* ---- Their columns --------------------------------------------------------------------------- */

static qkv_status take_memory(const char *who, qkv_sample *s)
{
    s->stride = s->n + QKV_ROW_PAD;
    s->row = malloc((size_t)s->n * sizeof *s->row);
    s->place = malloc((size_t)s->r->n * sizeof *s->place);
    qkv_status status = s->row && s->place
                            ? qkv_regression_allocate(who, &s->x, s->stride, s->d + s->d_y + 1)
                            : qkv_fail(QKV_E_NOMEM, "%s: no memory for %td rows", who, s->n);
    if (status == QKV_OK) status = qkv_regression_allocate(who, &s->h, s->d, 4);
    if (status != QKV_OK) return status;
    s->ratio = s->h + s->d;
    s->scale = s->ratio + s->d;
    s->exponent = (int *)(s->scale + s->d);
    s->y = s->x + s->d * s->stride;
    s->c = s->r->weight ? s->y + s->d_y * s->stride : NULL;
    memset(s->x, 0, (size_t)(s->stride * (s->d + s->d_y)) * sizeof *s->x);
    return QKV_OK;
}

static const double LEAST_WEIGHT = 0x1p-1000; /* of a mean of 1: what is less would become 0 */

static void scale_weights(qkv_sample *s)
{
    double mean = 0, least = INFINITY, most = 0;
    for (ptrdiff_t i = 0; i < s->n; i++) {
        s->c[i] = s->r->weight[s->row[i]];
        mean += (s->c[i] - mean) / (double)(i + 1);
    }
    for (ptrdiff_t i = 0; i < s->n; i++) {
        s->c[i] = fmax(s->c[i] / mean, LEAST_WEIGHT);
        least = fmin(least, s->c[i]);
        most = fmax(most, s->c[i]);
    }
    for (ptrdiff_t i = s->n; i < s->stride; i++) s->c[i] = 1;
    s->spread = log(most) - log(least);
}

/* That of the range of column c, within what leaves room for far queries. */
static int exponent_of(const qkv_sample *s, const qkv_key *keys, ptrdiff_t c)
{
    double low = INFINITY, high = -INFINITY;
    for (ptrdiff_t i = 0; i < s->n; i++) {
        double x = c ? s->r->x[keys[i].row * s->d + c] : keys[i].x;
        low = fmin(low, x / 2); /* half of it does not overflow */
        high = fmax(high, x / 2);
    }
    return high > low ? (int)fmax(-900, fmin(900, ilogb(high - low) + 1)) : 0;
}

static void fill(qkv_sample *s, const qkv_key *keys)
{
    for (ptrdiff_t c = 0; c < s->d; c++) {
        s->exponent[c] = exponent_of(s, keys, c);
        s->scale[c] = ldexp(1, -s->exponent[c]);
    }
    for (ptrdiff_t i = 0; i < s->r->n; i++) s->place[i] = -1;
    for (ptrdiff_t i = 0; i < s->n; i++) {
        ptrdiff_t row = s->row[i] = keys[i].row;
        s->place[row] = i;
        s->x[i] = keys[i].x * s->scale[0];
        for (ptrdiff_t c = 1; c < s->d; c++)
            s->x[c * s->stride + i] = s->r->x[row * s->d + c] * s->scale[c];
        for (ptrdiff_t c = 0; c < s->d_y; c++) s->y[c * s->stride + i] = s->r->y[row * s->d_y + c];
    }
    if (s->c) scale_weights(s);
}

qkv_status qkv_sample_take(const char *who, const qkv_regression *r, qkv_sample *s)
{
    *s = (qkv_sample){.r = r};
    qkv_status status = qkv_regression_check(who, r);
    if (status != QKV_OK) return status;
    s->d = qkv_one_if_zero(r->d_x);
    s->d_y = qkv_one_if_zero(r->d_y);
    size_t bytes = sizeof(double);
    if (!qkv_size_mul(&bytes, r->n + QKV_ROW_PAD) || s->d_y > PTRDIFF_MAX - s->d - 1 ||
        !qkv_size_mul(&bytes, s->d + s->d_y + 1))
        return qkv_fail(QKV_E_OVERFLOW, "%s: %td rows of %td and %td numbers exceed SIZE_MAX", who,
                        r->n, s->d, s->d_y);
    qkv_key *keys = malloc((size_t)r->n * sizeof *keys);
    if (!keys) return qkv_fail(QKV_E_NOMEM, "%s: no memory for %td rows", who, r->n);
    status = find_rows(who, s, keys);
    if (status == QKV_OK) status = sort_rows(who, s, keys);
    if (status == QKV_OK) status = take_memory(who, s);
    if (status == QKV_OK) fill(s, keys);
    free(keys);
    return status;
}

qkv_status qkv_sample_take_pair(const char *who, const qkv_regression *r, qkv_sample *s)
{
    qkv_status status = qkv_sample_take(who, r, s);
    if (status != QKV_OK || s->n > 1) return status;
    return qkv_fail(QKV_E_SHAPE, "%s: %td complete rows, expected >= 2 to leave one out", who,
                    s->n);
}

void qkv_sample_free(qkv_sample *s)
{
    free(s->row);
    free(s->place);
    free(s->x);
    free(s->h);
}

qkv_status qkv_sample_widen(const char *who, const double *bandwidth, qkv_sample *s)
{
    if (!bandwidth) return qkv_fail(QKV_E_ARG, "%s: bandwidth is NULL", who);
    bool one = qkv_one_if_zero(s->r->bandwidths) == 1;
    s->least = INFINITY;
    for (ptrdiff_t c = 0; c < s->d; c++) {
        double h = bandwidth[one ? 0 : c];
        if (!(h >= DBL_MIN && isfinite(h)))
            return qkv_fail(QKV_E_ARG, "%s: bandwidth[%td] is %g, expected between %g and %g", who,
                            one ? 0 : c, h, DBL_MIN, DBL_MAX);
        s->h[c] =
            fmax(1e-300, fmin(1e300, ldexp(h, -s->exponent[c]))); /* the limits, long before */
        s->least = fmin(s->least, s->h[c]);
    }
    for (ptrdiff_t c = 0; c < s->d; c++) s->ratio[c] = s->least / s->h[c] * (s->least / s->h[c]);
    return QKV_OK;
}

/* ---- A thread's memory ----------------------------------------------------------------------- */

static size_t layout(qkv_local *l, const qkv_sample *s, char *memory)
{
    qkv_cursor c = {.base = memory};
    const size_t e = sizeof(double);
    bool tail = s->r->kernel != QKV_REGRESSION_GAUSSIAN;
    l->w = qkv_take(&c, e, s->stride, 1);
    l->t = tail ? qkv_take(&c, e, s->stride, s->r->product ? s->d : 1) : NULL;
    l->part = tail ? qkv_take(&c, e, s->stride, 1) : NULL;
    l->mean = qkv_take(&c, e, s->d, 1);
    l->lean = qkv_take(&c, e, s->d, 1);
    l->inverse = qkv_take(&c, e, s->d, s->d);
    l->line = qkv_take(&c, e, s->d, 5 + s->d);
    l->slope = qkv_take(&c, e, s->d, 3);
    l->room = qkv_take(&c, e, s->d, 1);
    return c.overflow ? SIZE_MAX : c.used;
}

/* ---- Sweeps ---------------------------------------------------------------------------------- */

static void see(const qkv_sweep *sweep, qkv_local *l, ptrdiff_t i)
{
    const qkv_sample *s = l->s;
    bool complete = true;
    for (ptrdiff_t c = 0; c < s->d; c++) {
        l->room[c] = sweep->q ? sweep->q[i * s->d + c] * s->scale[c] : s->x[c * s->stride + i];
        complete &= !isnan(l->room[c]);
    }
    l->self = sweep->leave_out ? i : -1;
    if (complete && !(sweep->leave_out && s->n == 1)) {
        sweep->kernels->weigh(l, sweep->slopes);
        return;
    }
    l->from = l->to = l->near = 0;
    l->sum = l->squares = NAN;
    l->empty = false;
}

enum { PIECE = 8 }; /* queries that a thread takes at once */

static void run(void *job, void *memory)
{
    qkv_sweep *sweep = job;
    qkv_local l = {.s = sweep->s, .self = -1};
    layout(&l, sweep->s, memory);
    l.q = l.room;
    for (ptrdiff_t i; (i = PIECE * qkv_team_take(&sweep->taken)) < sweep->n;)
        for (ptrdiff_t end = i + PIECE; i < end && i < sweep->n; i++) {
            ptrdiff_t row = i * sweep->every;
            see(sweep, &l, row);
            sweep->visit(sweep, &l, row);
        }
}

qkv_status qkv_sample_sweep(const char *who, qkv_sweep *sweep)
{
    if (sweep->every == 0) sweep->every = 1;
    if (!sweep->q) sweep->n = (sweep->s->n + sweep->every - 1) / sweep->every;
    sweep->taken = 0;
    sweep->kernels = qkv_local_kernels_of(who);
    if (!sweep->kernels) return QKV_E_ARG;
    if (sweep->n == 0) return QKV_OK;
    qkv_local l;
    ptrdiff_t pieces = (sweep->n + PIECE - 1) / PIECE;
    size_t share = layout(&l, sweep->s, NULL), bytes = qkv_team_bytes(share, 0, pieces);
    if (bytes == SIZE_MAX)
        return qkv_fail(QKV_E_OVERFLOW, "%s: %td rows exceed SIZE_MAX bytes", who, sweep->s->n);
    void *memory = malloc(bytes);
    if (!memory) return qkv_fail(QKV_E_NOMEM, "%s: no memory for %zu bytes", who, bytes);
    qkv_team team;
    qkv_status status = qkv_team_of(who, share, 0, pieces, memory, bytes, &team);
    if (status == QKV_OK) qkv_team_run(&team, team.threads, run, sweep);
    free(memory);
    return status;
}
