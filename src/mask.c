/* mask.c - second stage: which keys of the tile may each query of the block see at all? The bias
 * belongs here, since -inf hides a key. */
#include "exponents.h"
#include "simd/transpose.h"
#include "tile.h"

static ptrdiff_t between(ptrdiff_t lower, ptrdiff_t x, ptrdiff_t upper)
{
    return x < lower ? lower : smaller(x, upper);
}

/* Farther than any matrix reaches, and few enough that sums do not overflow. */
static const ptrdiff_t FAR = PTRDIFF_MAX / 4;

/* The key at which query 0 stands. */
static ptrdiff_t origin(const FN(qkv_inputs) *in, ptrdiff_t batch)
{
    int64_t offset = in->causal_offsets ? in->causal_offsets[batch] : in->a.mask.causal_offset;
    return between(-FAR / 2, offset, FAR / 2);
}

/* How many keys beyond its own a query sees. */
static ptrdiff_t reach(const qkv_attention *a)
{
    const qkv_mask *m = &a->mask;
    ptrdiff_t right = m->window && m->window_right >= 0 ? smaller(m->window_right, FAR) : FAR;
    return m->causal ? 0 : right;
}

static ptrdiff_t look_back(const qkv_attention *a)
{
    const qkv_mask *m = &a->mask;
    return m->window && m->window_left >= 0 ? smaller(m->window_left, FAR) : FAR;
}

IN(qkv_span) IN(qkv_span_of)(const FN(qkv_inputs) *in, ptrdiff_t batch, ptrdiff_t query)
{
    ptrdiff_t n_k = in->lengths ? (ptrdiff_t)in->lengths[batch] : in->a.n_k;
    ptrdiff_t own = query + origin(in, batch);
    IN(qkv_span) span = {.end = between(0, own + reach(&in->a) + 1, n_k)};
    span.first = between(0, own - look_back(&in->a), span.end);
    return span;
}

IN(qkv_span) IN(qkv_mask_span)(const FN(qkv_block) *t)
{
    IN(qkv_span) first = IN(qkv_span_of)(t->in, t->batch, t->q0);
    IN(qkv_span) last = IN(qkv_span_of)(t->in, t->batch, t->q0 + t->n_q - 1);
    return (IN(qkv_span)){first.first, last.end};
}

/* Every pair of the tile is seen, by the rules alone. */
static bool rules_hide_nothing(const FN(qkv_block) *t)
{
    IN(qkv_span) first = IN(qkv_span_of)(t->in, t->batch, t->q0);
    IN(qkv_span) last = IN(qkv_span_of)(t->in, t->batch, t->q0 + t->n_q - 1);
    bool diagonal = t->in->a.mask.leave_one_out && t->k0 < t->q0 + t->n_q && t->q0 < t->k0 + t->n_k;
    return t->k0 >= last.first && t->k0 + t->n_k <= first.end && !diagonal;
}

static void apply_rules(FN(qkv_block) *t)
{
    const qkv_attention *a = &t->in->a;
    ptrdiff_t start = origin(t->in, t->batch), left = look_back(a), right = reach(a);
    for (int j = 0; j < t->n_k; j++) {
        uint8_t *seen = t->seen + j * QKV_LANES;
        ptrdiff_t own = t->k0 + j - t->q0; /* the lane of the query with the key's number */
        ptrdiff_t first = between(0, own - start - right, QKV_LANES);
        ptrdiff_t end = between(first, own - start + left + 1, QKV_LANES);
        memset(seen, 0, QKV_LANES);
        memset(seen + first, 1, (size_t)(end - first));
        if (a->mask.leave_one_out && own >= 0 && own < QKV_LANES) seen[own] = 0;
    }
}

/* seen &= mask for a square of 16 keys and up to 16 queries, rows of the mask being row apart. */
INLINE void apply_square(uint8_t *seen, const uint8_t *mask, ptrdiff_t row, int n)
{
    bytes16 r[16];
    for (int i = 0; i < 16; i++) {
        r[i] = (bytes16){0};
        if (i < n) memcpy(&r[i], mask + i * row, 16);
        r[i] = (bytes16)(r[i] != 0) & 1;
    }
    transpose_bytes(r);
    for (int j = 0; j < 16; j++, seen += QKV_LANES) {
        bytes16 before = {0};
        memcpy(&before, seen, (size_t)n);
        before &= r[j];
        memcpy(seen, &before, (size_t)n);
    }
}

static void apply_boolean(FN(qkv_block) *t)
{
    const qkv_slot_bool *mask = &t->in->mask;
    ptrdiff_t row = mask->stride[2], column = mask->stride[3];
    const uint8_t *m = mask->data + t->batch * mask->stride[0] + t->head * mask->stride[1] +
                       t->q0 * row + t->k0 * column;
    int squares = column == 1 ? t->n_k / 16 * 16 : 0;
    for (int j = 0; j < squares; j += 16)
        for (int i = 0; i < t->n_q; i += 16) {
            uint8_t *seen = t->seen + j * QKV_LANES + i;
            if (t->n_q - i >= 16)
                apply_square(seen, m + i * row + j, row, 16);
            else
                apply_square(seen, m + i * row + j, row, t->n_q - i);
        }
    for (int i = 0; i < t->n_q; i++)
        for (int j = squares; j < t->n_k; j++)
            t->seen[j * QKV_LANES + i] &= m[i * row + j * column] != 0;
}

real IN(qkv_distance_of)(const FN(qkv_block) *t, int j)
{
    return (real)(t->k0 + j - t->q0 - origin(t->in, t->batch));
}

/* b = (or += if there is a bias) unit slope (j - i - offset). */
static void add_slopes(FN(qkv_block) *t, real unit)
{
    real slope = *FN(qkv_at)(&t->in->slopes, t->batch, t->head, 0) * unit;
    real lane[QKV_LANES] __attribute__((aligned(QKV_VECTOR_BYTES)));
    for (int i = 0; i < QKV_LANES; i++) lane[i] = (real)i;
    for (int j = 0; j < t->n_k; j++) {
        real distance = IN(qkv_distance_of)(t, j), *b = t->b + j * QKV_LANES;
        for (int x = 0; x < QKV_LANES; x += QKV_VEC) {
            vec y = slope * (distance - load(lane + x));
            store(b + x, t->in->bias.data ? load(b + x) + y : y);
        }
    }
}

IN(qkv_diagonals) IN(qkv_diagonals_of)(const FN(qkv_block) *t, int n)
{
    const qkv_attention *a = &t->in->a;
    ptrdiff_t distance = t->k0 + t->n_k - 1 - t->q0 - origin(t->in, t->batch);
    IN(qkv_diagonals) d = {.at = distance + a->relative_left};
    d.last = (int)between(0, distance - a->relative_right, n);
    d.first = (int)between(d.last, d.at, n);
    return d;
}

void IN(qkv_relative_segment)(const FN(qkv_block) *t, const FN(qkv_view) *table,
                              real r[QKV_SEGMENT])
{
    const real *x = FN(qkv_at)(table, t->batch, t->head, 0);
    ptrdiff_t stride = table->stride[3], last = qkv_relative_size(&t->in->a) - 1;
    int n = t->n_k + QKV_LANES;
    IN(qkv_diagonals) d = IN(qkv_diagonals_of)(t, n);
    for (int m = 0; m < d.last; m++) r[m] = x[last * stride];
    for (int m = d.last; m < d.first; m++) r[m] = x[(d.at - m) * stride];
    for (int m = d.first; m < QKV_SEGMENT; m++) r[m] = x[0];
}

/* The largest |x|, NaN aside; n is a multiple of a vector's elements. */
static real largest_of(const real *x, int n)
{
    vec most = splat(0);
    for (int i = 0; i < n; i += QKV_VEC) most = larger(magnitude(load(x + i)), most);
    real largest = 0;
    for (int i = 0; i < QKV_VEC; i++) largest = most[i] > largest ? most[i] : largest;
    return largest;
}

/* The matrix itself, 0 in the unused lanes; the largest |b|. */
static real load_matrix(FN(qkv_block) *t, real unit)
{
    const FN(qkv_view) *bias = &t->in->bias;
    const real *x = FN(qkv_at)(bias, t->batch, t->head, t->q0) + t->k0 * bias->stride[3];
    IN(qkv_to_lanes)(t->b, x, bias->stride[2], bias->stride[3], t->n_q, t->n_k, QKV_VECTORS, unit);
    return largest_of(t->b, t->n_k * QKV_LANES);
}

/* Of what a caller adds, some is large, or hides: x, a whole number of vectors, becomes x unit, of
 * a finite number a finite one; true if it hides. */
static bool scale_large(FN(qkv_block) *t, real *x, int n, real unit)
{
    ivec hides = {0}, large = {0};
    for (int i = 0; i < n; i += QKV_VEC) {
        vec b = load(x + i), y = b * unit;
        ivec finite = is_finite(b);
        hides |= b == (real)-INFINITY;
        large |= finite & (magnitude(b) > REAL_MAX / 4);
        y = choose(finite & (y > REAL_MAX), splat(REAL_MAX), y);
        store(x + i, choose(finite & (y < -REAL_MAX), splat(-REAL_MAX), y));
    }
    t->large_bias |= which(large) != 0;
    return which(hides) != 0;
}

/* b = (or += if there is more) the table's entry of the pair's distance; true if one is -inf. */
static bool add_relative(FN(qkv_block) *t, real unit)
{
    real r[QKV_SEGMENT] __attribute__((aligned(QKV_VECTOR_BYTES)));
    bool hides = false, first = !t->in->bias.data && !t->in->slopes.data;
    IN(qkv_relative_segment)(t, &t->in->relative, r);
    if (largest_of(r, QKV_SEGMENT) > REAL_MAX / 4)
        hides = scale_large(t, r, QKV_SEGMENT, unit);
    else
        for (int m = 0; m < QKV_SEGMENT; m++) r[m] *= unit;
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < QKV_LANES; i += QKV_VEC) {
            real *b = t->b + j * QKV_LANES + i;
            vec y = load_any(r + t->n_k - 1 - j + i);
            store(b, first ? y : load(b) + y);
        }
    return hides;
}

static FN(qkv_ahead) next_matrix(const FN(qkv_block) *t)
{
    const FN(qkv_view) *bias = &t->in->bias;
    ptrdiff_t k0 = t->k0 + t->n_k, left = t->in->a.n_k - k0;
    if (!bias->data || bias->stride[3] != 1 || left <= 0) return (FN(qkv_ahead)){0};
    return (FN(qkv_ahead)){.data = FN(qkv_at)(bias, t->batch, t->head, t->q0) + k0,
                           .stride = bias->stride[2],
                           .rows = t->n_q,
                           .columns = (int)smaller(t->n_k, left)};
}

/* Loads bias, slopes and relative into b; true if some of the bias is -inf. */
static bool load_bias(FN(qkv_block) *t)
{
    real unit = t->base_2 ? (real)LOG2E : 1;
    bool hides = false;
    t->large_bias = false;
    if (t->in->bias.data && load_matrix(t, unit) > REAL_MAX / 4) {
        load_matrix(t, 1); /* only the bias before the unit can tell what is infinite */
        hides = scale_large(t, t->b, t->n_k * QKV_LANES, unit);
    }
    t->next_b = next_matrix(t);
    if (t->in->slopes.data) add_slopes(t, unit);
    if (t->in->relative.data) hides |= add_relative(t, unit);
    return hides;
}

static void hide_infinite(uint8_t *restrict seen, const real *restrict b, int n)
{
    for (int x = 0; x < n; x++) seen[x] = (uint8_t)(seen[x] & (b[x] != (real)-INFINITY));
}

/* The caller's own rule. Whatever it writes, it does no more than hide. */
static void apply_user(FN(qkv_block) *t)
{
    const qkv_user_mask *rule = &t->in->mask_rule;
    uint8_t *seen = t->seen, before[QKV_KEYS * QKV_LANES];
    int n = t->n_k * QKV_LANES;
    const qkv_mask_tile tile = {.batch = t->batch + t->in->item,
                                .head = t->head,
                                .query = t->q0,
                                .key = t->k0,
                                .n_q = t->n_q,
                                .n_k = t->n_k,
                                .stride_q = 1,
                                .stride_k = QKV_LANES};
    memcpy(before, seen, (size_t)n);
    rule->fill(rule->context, &tile, seen);
    for (int x = 0; x < n; x++) seen[x] = before[x] & (seen[x] != 0);
}

static qkv_coverage coverage_of(const FN(qkv_block) *t)
{
    uint8_t any[QKV_LANES] = {0}, all[QKV_LANES];
    memset(all, 1, sizeof all);
    for (int j = 0; j < t->n_k; j++)
        for (int i = 0; i < QKV_LANES; i++) {
            any[i] |= t->seen[j * QKV_LANES + i];
            all[i] &= t->seen[j * QKV_LANES + i];
        }
    bool some = false, every = true;
    for (int i = 0; i < t->n_q; i++) {
        some = some || any[i];
        every = every && all[i];
    }
    return every ? QKV_SEES_ALL : some ? QKV_SEES_SOME : QKV_SEES_NONE;
}

void IN(qkv_mask_tile)(FN(qkv_block) *t)
{
    bool bias_hides = IN(qkv_biased)(t->in) && load_bias(t);
    bool user = t->in->mask_rule.fill, rules = !rules_hide_nothing(t);
    if (!rules && !t->in->mask.data && !bias_hides && !user) {
        t->coverage = QKV_SEES_ALL;
        return;
    }
    if (rules)
        apply_rules(t);
    else
        memset(t->seen, 1, (size_t)(t->n_k * QKV_LANES));
    if (t->in->mask.data) apply_boolean(t);
    if (bias_hides) hide_infinite(t->seen, t->b, t->n_k * QKV_LANES);
    if (user) apply_user(t);
    t->coverage = coverage_of(t);
}
