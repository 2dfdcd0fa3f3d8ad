/* decode.c - forward for a few queries and many keys, as when text is generated token by token: the
 * memory that keys and values come from is what limits it. Coordinates are the lanes; every query
 * of the heads that share keys goes over a stretch of them while it is in the cache.
 *
 * The keys are cut into chunks of a fixed size that threads take; a chunk's maximum, sum and pooled
 * values are merged in order afterwards, so the bits do not depend on the number of threads. */
#include "kernels.h"
#include "simd/exp.h"
#include "simd/transpose.h"
#include "tile.h"
#include "workspace.h"

enum {
    CHUNK = 2048,  /* keys that one thread takes */
    STRETCH = 128, /* keys that go through the cache at once; a multiple of any QKV_VEC */
    FEW = 4,       /* queries */
    MANY = 4096,   /* keys below which tiles are as good */
    AHEAD = 8192   /* bytes to ask for before they are needed */
};

bool IN(qkv_decode_suits)(const qkv_attention *a)
{
    return a->n_q <= FEW && a->n_k >= MANY && a->normalize == QKV_SOFTMAX &&
           a->score <= QKV_SCORE_DOT && !a->mask.leave_one_out && !a->mask.window &&
           !(a->softcap > 0) && !(a->dropout > 0) && a->d_k && a->d_v;
}

static ptrdiff_t chunks_of(const qkv_attention *a)
{
    return (a->n_k + CHUNK - 1) / CHUNK;
}

/* Rows that share the keys of one key/value head. */
static ptrdiff_t rows_of(const qkv_attention *a)
{
    return a->heads / a->kv_heads * a->n_q;
}

ptrdiff_t IN(qkv_decode_pieces)(const qkv_attention *a)
{
    return a->batch * a->kv_heads * chunks_of(a);
}

/* What a chunk leaves of a row: max, sum, pooled values. */
static size_t part_size(const qkv_attention *a)
{
    return 2 + (size_t)a->d_v;
}

size_t IN(qkv_decode_common)(const qkv_attention *a)
{
    qkv_cursor c = {0};
    size_t part = part_size(a) * sizeof(real);
    if (!qkv_size_mul(&part, rows_of(a))) return SIZE_MAX;
    qkv_take(&c, part, IN(qkv_decode_pieces)(a), 1);
    return c.overflow ? SIZE_MAX : c.used;
}

typedef struct decoder {
    const FN(qkv_inputs) *in;
    real *q;       /* rows_of x d_k, times scale and log2(e) */
    real *packed;  /* STRETCH rows of keys or values whose columns are no neighbours */
    real *weights; /* STRETCH */
} decoder;

static size_t layout(decoder *x, const qkv_attention *a, void *memory)
{
    qkv_cursor c = {.base = memory};
    x->q = qkv_take(&c, sizeof(real), rows_of(a), a->d_k);
    x->packed = qkv_take(&c, sizeof(real), STRETCH, a->d_k > a->d_v ? a->d_k : a->d_v);
    x->weights = qkv_take(&c, sizeof(real), STRETCH, 1);
    return c.overflow ? SIZE_MAX : c.used;
}

size_t IN(qkv_decode_share)(const qkv_attention *a)
{
    decoder x;
    return layout(&x, a, NULL);
}

static void load_queries(decoder *x, ptrdiff_t batch, ptrdiff_t kv_head)
{
    const qkv_attention *a = &x->in->a;
    const FN(qkv_view) *q = &x->in->q;
    ptrdiff_t group = a->heads / a->kv_heads;
    for (ptrdiff_t r = 0; r < rows_of(a); r++) {
        ptrdiff_t head = kv_head * group + r / a->n_q;
        const real *from = FN(qkv_at)(q, batch, head, r % a->n_q);
        real scale = IN(qkv_scale_of)(x->in, batch, head) * (real)LOG2E;
        for (ptrdiff_t c = 0; c < a->d_k; c++)
            x->q[r * a->d_k + c] = from[c * q->stride[3]] * scale;
    }
}

/* Rows of keys or values from k0 on with columns side by side. */
static FN(qkv_rows) rows_at(const decoder *x, const FN(qkv_view) *view, ptrdiff_t batch,
                            ptrdiff_t kv_head, ptrdiff_t k0, int n, ptrdiff_t d)
{
    const real *from = FN(qkv_at)(view, batch, kv_head, k0);
    FN(qkv_rows) rows = {.data = from, .stride = view->stride[2]};
    if (view->stride[3] == 1 || d == 1) return rows;
    for (int j = 0; j < n; j++)
        for (ptrdiff_t c = 0; c < d; c++)
            x->packed[j * d + c] = from[j * view->stride[2] + c * view->stride[3]];
    return (FN(qkv_rows)){.data = x->packed, .stride = d};
}

/* The products of QKV_VEC rows with q, one a lane; what is left of d beyond whole vectors last. */
static vec scores_of_square(const FN(qkv_rows) *k, int j, int n, const real *q, ptrdiff_t d)
{
    ptrdiff_t whole = d / QKV_VEC * QKV_VEC;
    vec t[QKV_VEC];
    real rest[QKV_VEC] __attribute__((aligned(QKV_VECTOR_BYTES))) = {0};
    UNROLL
    for (int r = 0; r < QKV_VEC; r++) {
        const real *row = k->data + (j + r < n ? j + r : j) * k->stride;
        t[r] = splat(0);
        for (ptrdiff_t c = 0; c < whole; c += QKV_VEC) {
            __builtin_prefetch((const char *)(row + c) + AHEAD, 0, 0);
            t[r] += load_any(row + c) * load_any(q + c);
        }
        for (ptrdiff_t c = whole; c < d; c++) rest[r] += row[c] * q[c];
    }
    transpose(t);
    vec sum = load(rest);
    UNROLL
    for (int r = 0; r < QKV_VEC; r++) sum += t[r];
    return sum;
}

/* Scores of up to STRETCH keys; lanes beyond n get -inf. The largest. */
static real score_stretch(decoder *x, const FN(qkv_rows) *k, int n, const real *q)
{
    vec max = splat((real)-INFINITY);
    for (int j = 0; j < STRETCH; j += QKV_VEC) {
        vec s = splat((real)-INFINITY);
        if (j < n) s = scores_of_square(k, j, n, q, x->in->a.d_k);
        for (int i = 0; i < QKV_VEC; i++)
            if (j + i >= n) s[i] = (real)-INFINITY;
        store(x->weights + j, s);
        max = larger(s, max);
    }
    real most = max[0];
    for (int i = 1; i < QKV_VEC; i++) most = max[i] > most ? max[i] : most;
    return most;
}

/* o = o * rescale + sum_j w_j v_j, four vectors of columns at a time. */
INLINE void pool_columns(const FN(qkv_rows) *v, ptrdiff_t c, int n, const real *w, real rescale,
                         real *o, const int nv)
{
    vec even[4], odd[4];
    UNROLL
    for (int x = 0; x < nv; x++) even[x] = odd[x] = splat(0);
    int j = 0;
    for (; j + 2 <= n; j += 2) {
        const real *row = v->data + j * v->stride + c, *next = row + v->stride;
        UNROLL
        for (int x = 0; x < nv; x++) {
            __builtin_prefetch((const char *)(row + x * QKV_VEC) + AHEAD, 0, 0);
            __builtin_prefetch((const char *)(next + x * QKV_VEC) + AHEAD, 0, 0);
            even[x] += w[j] * load_any(row + x * QKV_VEC);
            odd[x] += w[j + 1] * load_any(next + x * QKV_VEC);
        }
    }
    UNROLL
    for (int x = 0; x < nv; x++) {
        if (j < n) even[x] += w[j] * load_any(v->data + j * v->stride + c + x * QKV_VEC);
        real *to = o + c + x * QKV_VEC;
        store_any(to, load_any(to) * rescale + (even[x] + odd[x]));
    }
}

static void pool_stretch(const FN(qkv_rows) *v, int n, const real *w, real rescale, real *o,
                         ptrdiff_t d)
{
    ptrdiff_t c = 0;
    for (; c + 4 * QKV_VEC <= d; c += 4 * QKV_VEC) pool_columns(v, c, n, w, rescale, o, 4);
    for (; c + QKV_VEC <= d; c += QKV_VEC) pool_columns(v, c, n, w, rescale, o, 1);
    for (; c < d; c++) {
        real sum = 0;
        for (int j = 0; j < n; j++) sum += w[j] * v->data[j * v->stride + c];
        o[c] = o[c] * rescale + sum;
    }
}

/* What one row makes of a stretch, into its part of the chunk. */
static void attend_stretch(decoder *x, const FN(qkv_rows) *k, const real *q, int n, real *part,
                           real *rescale)
{
    real max = score_stretch(x, k, n, q), old = part[0];
    max = max > old ? max : old;
    real from = max == (real)-INFINITY ? 0 : max;
    vec sums = splat(0);
    for (int j = 0; j < STRETCH; j += QKV_VEC) {
        vec w = exp2_weight(load(x->weights + j) - from, exp_table);
        store(x->weights + j, w);
        sums += w;
    }
    *rescale = max == old ? 1 : exp2(old - max);
    part[0] = max;
    part[1] *= *rescale;
    for (int i = 0; i < QKV_VEC; i++) part[1] += sums[i];
}

static void decode_chunk(decoder *x, ptrdiff_t batch, ptrdiff_t kv_head, ptrdiff_t k0, real *parts)
{
    const qkv_attention *a = &x->in->a;
    ptrdiff_t end = k0 + CHUNK < a->n_k ? k0 + CHUNK : a->n_k;
    size_t size = part_size(a);
    for (ptrdiff_t r = 0; r < rows_of(a); r++) {
        memset(parts + (size_t)r * size, 0, size * sizeof(real));
        parts[(size_t)r * size] = (real)-INFINITY;
    }
    for (; k0 < end; k0 += STRETCH)
        for (ptrdiff_t r = 0; r < rows_of(a); r++) {
            ptrdiff_t last = IN(qkv_span_of)(x->in, batch, r % a->n_q).end;
            ptrdiff_t left = smaller(last, end) - k0;
            int n = left < STRETCH ? (int)left : STRETCH;
            real *part = parts + (size_t)r * size, rescale;
            if (n <= 0) continue;
            FN(qkv_rows) rows = rows_at(x, &x->in->k, batch, kv_head, k0, n, a->d_k);
            attend_stretch(x, &rows, x->q + r * a->d_k, n, part, &rescale);
            rows = rows_at(x, &x->in->v, batch, kv_head, k0, n, a->d_v);
            pool_stretch(&rows, n, x->weights, rescale, part + 2, a->d_v);
        }
}

static void write_row(const FN(qkv_view) *to, ptrdiff_t b, ptrdiff_t h, ptrdiff_t i, real y)
{
    if (to->data) *FN(qkv_at)(to, b, h, i) = y;
}

/* A chunk's sum and pooled values shall count from max, as those of all chunks. */
static void count_from(real *part, real max, ptrdiff_t d_v)
{
    bool seen = part[1] != 0;
    real factor = part[0] == max ? 1 : exp2(part[0] - max);
    for (ptrdiff_t d = 0; d <= d_v; d++) part[1 + d] = seen ? part[1 + d] * factor : 0;
}

/* The chunks of one row, `step` apart, become its results. They are added by pairs, and pairs of
 * pairs: one after the other, the roundings would grow with their number. */
static void merge(const FN(qkv_inputs) *in, const FN(qkv_outputs) *out, real *parts, size_t step,
                  ptrdiff_t b, ptrdiff_t h, ptrdiff_t i)
{
    const qkv_attention *a = &in->a;
    ptrdiff_t chunks = chunks_of(a);
    real max = (real)-INFINITY, *o = FN(qkv_at)(&out->o, b, h, i);
    for (ptrdiff_t c = 0; c < chunks; c++) {
        real m = parts[(size_t)c * step];
        max = m > max ? m : max;
    }
    for (ptrdiff_t c = 0; c < chunks; c++) count_from(parts + (size_t)c * step, max, a->d_v);
    for (ptrdiff_t far = 1; far < chunks; far *= 2)
        for (ptrdiff_t c = 0; c + far < chunks; c += 2 * far) {
            real *to = parts + (size_t)c * step, *from = to + (size_t)far * step;
            for (ptrdiff_t d = 0; d <= a->d_v; d++) to[1 + d] += from[1 + d];
        }
    real sum = parts[1], log_sum = log(sum);
    bool sees = IN(qkv_span_of)(in, b, i).end > 0;
    for (ptrdiff_t d = 0; d < a->d_v; d++)
        o[d * out->o.stride[3]] = sees ? parts[2 + d] / sum : parts[2 + d];
    write_row(&out->row_max, b, h, i, max);
    write_row(&out->row_log_sum, b, h, i, log_sum);
    write_row(&out->lse, b, h, i, sum == 0 ? (real)-INFINITY : max * (real)(1 / LOG2E) + log_sum);
}

typedef struct job {
    const FN(qkv_inputs) *in;
    real *parts;
    ptrdiff_t taken;
} job;

static void run(void *context, void *memory)
{
    job *y = context;
    const qkv_attention *a = &y->in->a;
    ptrdiff_t chunks = chunks_of(a), pieces = IN(qkv_decode_pieces)(a);
    size_t piece = (size_t)rows_of(a) * part_size(a);
    decoder x = {.in = y->in};
    layout(&x, a, memory);
    for (ptrdiff_t i; (i = qkv_team_take(&y->taken)) < pieces;) {
        ptrdiff_t batch = i / chunks / a->kv_heads, kv_head = i / chunks % a->kv_heads;
        load_queries(&x, batch, kv_head);
        decode_chunk(&x, batch, kv_head, i % chunks * CHUNK, y->parts + (size_t)i * piece);
    }
}

void IN(qkv_decode)(const FN(qkv_inputs) *in, const FN(qkv_outputs) *out, const qkv_team *team)
{
    const qkv_attention *a = &in->a;
    job x = {.in = in, .parts = (real *)team->memory};
    qkv_team_run(team, team->threads, run, &x);
    size_t size = part_size(a), piece = (size_t)rows_of(a) * size;
    ptrdiff_t group = a->heads / a->kv_heads;
    for (ptrdiff_t g = 0; g < a->batch * a->kv_heads; g++)
        for (ptrdiff_t r = 0; r < rows_of(a); r++)
            merge(in, out, x.parts + (size_t)(g * chunks_of(a)) * piece + (size_t)r * size, piece,
                  g / a->kv_heads, g % a->kv_heads * group + r / a->n_q, r % a->n_q);
}
