/* test_ragged.c - a ragged batch is its items, computed one after the other by the calls of
 * attention.h: to the bit, in any layout, for any number of threads. Built for each dtype. */
#include "qkv/ragged.h"
#include "qkv/tape.h"

#include <stdlib.h>
#include <string.h>

#include "choices.h"
#include "compute.h"
#include "src/random.h"
#include "src/real.h"
#include "support.h"

/* Normal numbers, soon: these arrays are large. */
static double number(uint64_t seed, size_t i)
{
    enum { N = 8191 };
    static double table[N];
    if (table[0] == 0) fill_normal(table, N, 1);
    return table[(i + seed * 977) % N];
}

/* An array of heads, rows of all items, columns; or of items, heads, 1, columns. */
typedef struct array {
    real *memory, *first;
    size_t n;
    FN(qkv_slot) slot;
    ptrdiff_t stride[4];
} array;

static array array_of(const ptrdiff_t dim[4], layout where, double center, uint64_t seed)
{
    static const int orders[LAYOUTS][4] = {[LAYOUT_PACKED] = {0, 1, 2, 3},
                                           [LAYOUT_ROWS_FIRST] = {0, 2, 1, 3},
                                           [LAYOUT_PADDED] = {0, 1, 2, 3},
                                           [LAYOUT_REVERSED] = {0, 1, 2, 3},
                                           [LAYOUT_COLUMNS] = {0, 1, 3, 2}};
    ptrdiff_t step = 1, first = 0, pad = where == LAYOUT_PADDED || where == LAYOUT_COLUMNS ? 2 : 0;
    array x = {.slot.strided = where != LAYOUT_PACKED};
    for (int o = 3; o >= 0; o--) {
        int axis = orders[where][o];
        bool back = where == LAYOUT_REVERSED;
        x.stride[axis] = back ? -step : step;
        first += back && dim[axis] ? step * (dim[axis] - 1) : 0;
        step *= dim[axis] + pad;
    }
    x.n = (size_t)step + 1;
    x.memory = malloc(x.n * sizeof(real));
    if (!x.memory) abort();
    for (size_t i = 0; i < x.n; i++) {
        double y = number(seed, i);
        x.memory[i] = (real)(center > 0 ? center * exp(0.3 * y) : y);
    }
    x.first = x.slot.data = x.memory + first;
    memcpy(x.slot.stride, x.stride, sizeof x.stride);
    return x;
}

/* What an item sees of it: `at` steps along the axis. */
static FN(qkv_slot) slot_at(const array *x, int axis, int64_t at)
{
    FN(qkv_slot) slot = x->slot;
    if (!slot.data) return slot;
    slot.strided = true;
    memcpy(slot.stride, x->stride, sizeof slot.stride);
    slot.data += at * slot.stride[axis];
    return slot;
}

enum { O, LSE, ROW_MAX, ROW_LOG_SUM, OUTPUTS, ITEMS_MOST = 300 };

typedef struct batch {
    qkv_attention a;
    int64_t starts_q[ITEMS_MOST + 1], starts_k[ITEMS_MOST + 1], offsets[ITEMS_MOST];
    ptrdiff_t longest;
    array in[OPERANDS], d[OPERANDS], out[OUTPUTS], d_o, d_lse;
    array mask_as; /* its strides are the mask's */
    uint8_t *mask;
    qkv_user_mask mask_rule; /* instead of the mask */
    bool with_offsets;
} batch;

enum { SHARED_PARAMETERS = 1, WITHOUT_MASKS = 2, SHARED_BIAS = 4, PLAIN = 8, WITHOUT_TABLE = 16 };

static bool has_lse(const qkv_attention *a)
{
    return a->normalize <= QKV_TOP_K;
}

/* Without strides: shared by all items and, with a step of 0, by all heads. */
static array repacked(array x, ptrdiff_t step)
{
    x.first = x.slot.data = x.memory;
    x.slot.strided = false;
    x.stride[1] = step;
    x.stride[3] = 1;
    return x;
}

/* A parameter: a number an item and head, or (shared) the same for all. */
static array parameter(const batch *x, operand i, bool shared, layout where, double center,
                       uint64_t seed)
{
    ptrdiff_t columns = i == BANDWIDTH && x->a.bandwidths ? x->a.bandwidths : 1;
    if (i == RELATIVE) columns = x->a.relative_left + x->a.relative_right + 1;
    if (i == W) columns = x->a.score == QKV_SCORE_USER ? x->a.bandwidths : x->a.d_k;
    bool one = i == SCALE || i == BANDWIDTH || i == W; /* packed means the same for all heads */
    const ptrdiff_t dim[4] = {shared ? 1 : x->a.batch, x->a.heads, 1, columns};
    bool packed = shared && where == LAYOUT_PACKED;
    array y = array_of(dim, where == LAYOUT_PACKED ? LAYOUT_PADDED : where, center, seed);
    if (packed) y = repacked(y, one ? 0 : columns);
    if (shared) y.stride[0] = y.slot.stride[0] = 0;
    return y;
}

static void add_masks(batch *x, layout where, int how, uint64_t seed)
{
    const ptrdiff_t dim[4] = {1, x->a.heads, x->a.n_q, x->longest};
    x->in[BIAS] = array_of(dim, where, 0, seed + 3);
    x->d[BIAS] = array_of(dim, where, 0, seed + 13);
    if (how & SHARED_BIAS) {
        array *both[] = {&x->in[BIAS], &x->d[BIAS]};
        for (int i = 0; i < 2; i++) {
            both[i]->slot.strided = true;
            both[i]->stride[2] = both[i]->slot.stride[2] = 0;
        }
    }
    x->mask_as = array_of(dim, where, 0, seed);
    x->mask = malloc(x->mask_as.n);
    for (size_t i = 0; i < x->mask_as.n; i++) x->mask[i] = number(seed + 5, i) < 0.5;
}

/* sizes: n_q and n_k of each item. */
static batch *batch_of(qkv_attention a, const ptrdiff_t (*sizes)[2], ptrdiff_t n, layout where,
                       int how, uint64_t seed)
{
    batch *x = calloc(1, sizeof *x);
    if (!x) abort();
    a.batch = n;
    a.n_q = a.n_k = 0;
    for (ptrdiff_t b = 0; b < n; b++) {
        x->starts_q[b + 1] = a.n_q += sizes[b][0];
        x->starts_k[b + 1] = a.n_k += sizes[b][1];
        x->longest = sizes[b][1] > x->longest ? sizes[b][1] : x->longest;
        x->offsets[b] = sizes[b][1] - sizes[b][0]; /* bottom-right */
    }
    bool distance = problem_takes_bandwidth(&a), shared = how & SHARED_PARAMETERS;
    ptrdiff_t kv_heads = a.kv_heads ? a.kv_heads : a.heads;
    if (distance && !shared) a.bandwidths = a.d_k;
    a.relative_left = 3;
    a.relative_right = 2;
    x->a = a;
    const ptrdiff_t q[4] = {1, a.heads, a.n_q, a.d_k}, k[4] = {1, kv_heads, a.n_k, a.d_k},
                    v[4] = {1, kv_heads, a.n_k, a.d_v}, o[4] = {1, a.heads, a.n_q, a.d_v},
                    row[4] = {1, a.heads, a.n_q, 1};
    const ptrdiff_t *const dims[] = {q, k, v};
    for (uint64_t i = Q; i <= V; i++) {
        x->in[i] = array_of(dims[i], where, 0, seed + i);
        x->d[i] = array_of(dims[i], where, 0, seed + 10 + i);
    }
    for (uint64_t i = O; i < OUTPUTS; i++)
        x->out[i] = array_of(i == O ? o : row, where, 0, seed + 20 + i);
    x->d_o = array_of(o, where, 0, seed + 30);
    if (has_lse(&a)) x->d_lse = array_of(row, where, 0, seed + 31);
    if (!has_lse(&a)) x->out[LSE].slot.data = NULL;
    if (how & PLAIN) return x;
    const bool wanted[OPERANDS] = {[SCALE] = true,
                                   [BANDWIDTH] = distance,
                                   [W] = a.score >= QKV_SCORE_ADDITIVE,
                                   [SLOPES] = true,
                                   [RELATIVE] = !(how & WITHOUT_TABLE),
                                   [SINK] = !a.normalize};
    const double center[OPERANDS] = {[SCALE] = 0.4, [BANDWIDTH] = 3, [SLOPES] = 0.02};
    for (operand i = SCALE; i < OPERANDS; i++) {
        if (!wanted[i]) continue;
        x->in[i] = parameter(x, i, shared, where, center[i], seed + i);
        x->d[i] = parameter(x, i, shared, where, 0, seed + 10 + i);
    }
    if (!(how & WITHOUT_MASKS)) add_masks(x, where, how, seed);
    x->with_offsets = seed % 2;
    return x;
}

static void batch_free(batch *x)
{
    for (operand i = Q; i < OPERANDS; i++) {
        free(x->in[i].memory);
        free(x->d[i].memory);
    }
    for (int i = O; i < OUTPUTS; i++) free(x->out[i].memory);
    free(x->d_o.memory);
    free(x->d_lse.memory);
    free(x->mask_as.memory);
    free(x->mask);
    free(x);
}

/* Everything that a call writes, one array after the other: copied from there, or put back. */
static void copy_results(const batch *x, real *all, bool back)
{
    for (int i = 0; i < OPERANDS + OUTPUTS; i++) {
        const array *y = i < OPERANDS ? &x->d[i] : &x->out[i - OPERANDS];
        size_t bytes = y->n * sizeof(real);
        if (y->n) memcpy(back ? y->memory : all, back ? all : y->memory, bytes);
        all += y->n;
    }
}

static real *results_of(const batch *x, size_t *n)
{
    *n = 0;
    for (operand i = Q; i < OPERANDS; i++) *n += x->d[i].n;
    for (int i = O; i < OUTPUTS; i++) *n += x->out[i].n;
    real *all = malloc((*n + 1) * sizeof(real));
    if (!all) abort();
    copy_results(x, all, false);
    return all;
}

/* The slots of the whole batch (item -1) or of an item. */
typedef struct slots {
    FN(qkv_operands) in, d_in;
    FN(qkv_results) out, saved, d_out;
} slots;

static FN(qkv_operands) operands_of(const batch *x, const array from[OPERANDS], ptrdiff_t b)
{
    FN(qkv_operands) y = {0};
    FN(qkv_slot) *to[OPERANDS] = {&y.q,         &y.k, &y.v,      &y.bias, &y.scale,
                                  &y.bandwidth, &y.w, &y.slopes, &y.sink, &y.relative};
    if (x->a.score == QKV_SCORE_USER) y.user_score = &FN(test_score);
    for (operand i = Q; i < OPERANDS; i++) {
        const int64_t *starts = i == K || i == V ? x->starts_k : x->starts_q;
        *to[i] = b < 0        ? from[i].slot
                 : i >= SCALE ? slot_at(&from[i], 0, b)
                              : slot_at(&from[i], 2, starts[b]);
    }
    return y;
}

static FN(qkv_slot) row_slot(const batch *x, const array *from, ptrdiff_t b)
{
    return b < 0 ? from->slot : slot_at(from, 2, x->starts_q[b]);
}

static slots slots_of(const batch *x, ptrdiff_t b)
{
    slots y = {.in = operands_of(x, x->in, b), .d_in = operands_of(x, x->d, b)};
    y.in.mask_rule = x->mask_rule;
    if (x->mask && !x->mask_rule.fill) {
        int64_t row = b < 0 ? 0 : x->starts_q[b];
        y.in.mask = (qkv_slot_bool){.strided = b >= 0 || x->mask_as.slot.strided};
        memcpy(y.in.mask.stride, x->mask_as.stride, sizeof y.in.mask.stride);
        y.in.mask.data =
            x->mask + (x->mask_as.first - x->mask_as.memory) + row * x->mask_as.stride[2];
    }
    if (x->with_offsets) y.in.causal_offsets = x->offsets + (b < 0 ? 0 : b);
    y.out = (FN(qkv_results)){.o = row_slot(x, &x->out[O], b),
                              .lse = row_slot(x, &x->out[LSE], b),
                              .row_max = row_slot(x, &x->out[ROW_MAX], b),
                              .row_log_sum = row_slot(x, &x->out[ROW_LOG_SUM], b)};
    y.saved = y.out;
    y.saved.lse.data = NULL;
    y.d_out = (FN(qkv_results)){.o = row_slot(x, &x->d_o, b), .lse = row_slot(x, &x->d_lse, b)};
    return y;
}

static void *new_workspace(size_t bytes)
{
    void *workspace = malloc(bytes + 1);
    if (!workspace) abort();
    memset(workspace, 0xFF, bytes + 1);
    return workspace;
}

static qkv_status forward(const batch *x)
{
    slots y = slots_of(x, -1);
    size_t bytes;
    assert_ok(
        qkv_ragged_workspace(&x->a, x->starts_q, x->starts_k, QKV_FORWARD, REAL_DTYPE, &bytes));
    void *workspace = new_workspace(bytes);
    qkv_status status =
        FN(qkv_ragged_forward)(&x->a, x->starts_q, x->starts_k, &y.in, &y.out, workspace, bytes);
    free(workspace);
    return status;
}

static qkv_status backward(const batch *x)
{
    slots y = slots_of(x, -1);
    size_t bytes;
    assert_ok(
        qkv_ragged_workspace(&x->a, x->starts_q, x->starts_k, QKV_BACKWARD, REAL_DTYPE, &bytes));
    void *workspace = new_workspace(bytes);
    qkv_status status = FN(qkv_ragged_backward)(&x->a, x->starts_q, x->starts_k, &y.in, &y.saved,
                                                &y.d_out, &y.d_in, workspace, bytes);
    free(workspace);
    return status;
}

static qkv_attention item_of(const batch *x, ptrdiff_t b)
{
    qkv_attention a = x->a;
    a.batch = 1;
    a.n_q = x->starts_q[b + 1] - x->starts_q[b];
    a.n_k = x->starts_k[b + 1] - x->starts_k[b];
    return a;
}

/* The same, item by item. */
static void expected_forward_backward(const batch *x)
{
    for (ptrdiff_t b = 0; b < x->a.batch; b++) {
        qkv_attention a = item_of(x, b);
        slots y = slots_of(x, b);
        size_t f, g;
        assert_ok(qkv_attention_workspace(&a, QKV_FORWARD, REAL_DTYPE, &f));
        assert_ok(qkv_attention_workspace(&a, QKV_BACKWARD, REAL_DTYPE, &g));
        void *workspace = new_workspace(f + g);
        assert_ok(FN(qkv_attention_forward)(&a, &y.in, &y.out, workspace, f + g));
        assert_ok(
            FN(qkv_attention_backward)(&a, &y.in, &y.saved, &y.d_out, &y.d_in, workspace, f + g));
        free(workspace);
    }
}

/* Several items of all kinds; four heads of 27 coordinates are worth threads. */
static const ptrdiff_t many[][2] = {{5, 7},   {0, 3},   {1, 40}, {33, 0}, {0, 0},    {70, 200},
                                    {2, 300}, {64, 64}, {17, 1}, {61, 3}, {130, 64}, {0, 9}};
static const ptrdiff_t few[][2] = {{301, 203}, {0, 4}, {3, 5}, {97, 401}};
enum { MANY = sizeof many / sizeof *many, FEW = sizeof few / sizeof *few };

static void assert_same(const real *got, const real *expected, size_t n, const char *what,
                        int number)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&got[i], &expected[i], sizeof(real)))
            fail_msg("%s %d: number %zu is %.17g, expected %.17g", what, number, i, (double)got[i],
                     (double)expected[i]);
}

static void check(qkv_attention a, const ptrdiff_t (*sizes)[2], ptrdiff_t n, layout where, int how,
                  uint64_t seed)
{
    batch *x = batch_of(a, sizes, n, where, how, seed);
    size_t length;
    real *start = results_of(x, &length);
    expected_forward_backward(x);
    real *expected = results_of(x, &length);
    for (int threads = 1; threads <= 5; threads += threads == 3 ? 2 : 1) {
        copy_results(x, start, true);
        if (threads == 2) x->a.n_q = x->a.n_k = 0; /* the starts are enough */
        assert_ok(qkv_set_num_threads(threads));
        assert_ok(forward(x));
        assert_ok(backward(x));
        assert_ok(qkv_set_num_threads(0));
        real *got = results_of(x, &length);
        assert_same(got, expected, length, "threads", threads);
        free(got);
    }
    free(start);
    free(expected);
    batch_free(x);
}

static qkv_mask rule(uint64_t seed)
{
    const qkv_mask rules[] = {
        {.causal = false},
        {.causal = true, .causal_offset = 3},
        {.leave_one_out = true},
        {.window = true, .window_left = 20, .window_right = 30, .causal_offset = -4},
    };
    return rules[seed % 4];
}

static void it_is_its_items_for_every_choice(void **state)
{
    (void)state;
    for (size_t c = first_choice(REAL_DTYPE); c < CHOICES; c += QKV_EMULATED ? 5 : 1) {
        const qkv_attention a = {
            .heads = 4, .kv_heads = 2, .d_k = 17, .d_v = 10, .mask = rule(c / 2)};
        int how = (c % 3 ? 0 : SHARED_PARAMETERS) | (c % 4 ? 0 : WITHOUT_MASKS);
        check(with_choice(a, c), many, MANY, (layout)(c % LAYOUTS), how, c);
    }
}

static void it_is_its_items_in_every_layout(void **state)
{
    (void)state;
    qkv_attention a = {.heads = 4, .kv_heads = 1, .d_k = 16, .d_v = 19};
    for (layout l = LAYOUT_PACKED; l < LAYOUTS; l++)
        for (uint64_t seed = first_choice(REAL_DTYPE); seed < 4; seed += QKV_EMULATED ? 3 : 1) {
            a.mask = rule(seed);
            a.softcap = seed == 1 ? 0.8 : 0;
            check(a, many, MANY, l, SHARED_PARAMETERS | (seed < 2 ? WITHOUT_MASKS : 0), seed);
            check(a, few, FEW, l, SHARED_PARAMETERS | (seed > 2 ? PLAIN : 0), seed);
        }
}

static void a_bias_that_items_share_gets_its_gradient_in_order(void **state)
{
    (void)state;
    const qkv_attention a = {.heads = 2, .d_k = 16, .d_v = 19};
    for (layout l = LAYOUT_PACKED; l < LAYOUTS; l++) {
        check(a, many, MANY, l, SHARED_BIAS, 1);
        check(a, few, FEW, l, SHARED_BIAS, 2);
        check(a, many, MANY, l, SHARED_BIAS | WITHOUT_TABLE, 3); /* whose gradient is shared, too */
    }
}

/* An item of few queries and many keys goes its own way in forward. */
static void a_cache_among_others(void **state)
{
    (void)state;
    static const ptrdiff_t sizes[][2] = {{1, 6000}, {40, 40}, {3, 4500}, {4, 70}};
    const qkv_attention a = {.heads = 4, .kv_heads = 2, .d_k = 17, .d_v = 10};
    for (layout l = LAYOUT_PACKED; l < LAYOUTS; l++) check(a, sizes, 4, l, PLAIN, 5);
}

/* The mask of a batch, as the rule of one. */
static void from_mask(void *context, const qkv_mask_tile *t, uint8_t *seen)
{
    const batch *x = context;
    const ptrdiff_t *stride = x->mask_as.stride;
    const uint8_t *mask = x->mask + (x->mask_as.first - x->mask_as.memory) + t->head * stride[1];
    for (ptrdiff_t i = 0; i < t->n_q; i++)
        for (ptrdiff_t j = 0; j < t->n_k; j++) {
            ptrdiff_t row = x->starts_q[t->batch] + t->query + i;
            if (!mask[row * stride[2] + (t->key + j) * stride[3]])
                seen[i * t->stride_q + j * t->stride_k] = 0;
        }
}

static void a_rule_of_the_callers_is_told_the_item(void **state)
{
    (void)state;
    const qkv_attention a = {.heads = 4, .kv_heads = 2, .d_k = 17, .d_v = 10, .mask = rule(1)};
    batch *x = batch_of(a, many, MANY, LAYOUT_PACKED, 0, 1);
    size_t n;
    real *start = results_of(x, &n);
    assert_ok(forward(x));
    assert_ok(backward(x));
    real *expected = results_of(x, &n);
    copy_results(x, start, true);
    x->mask_rule = (qkv_user_mask){.fill = from_mask, .context = x};
    assert_ok(forward(x));
    assert_ok(backward(x));
    real *got = results_of(x, &n);
    assert_same(got, expected, n, "mask rule", 0);
    free(got);
    free(expected);
    free(start);
    batch_free(x);
}

static void the_tape_gives_the_same(void **state)
{
    (void)state;
    const qkv_attention a = {.heads = 4, .kv_heads = 2, .d_k = 17, .d_v = 10, .mask = rule(1)};
    batch *x = batch_of(a, many, MANY, LAYOUT_ROWS_FIRST, PLAIN, 3);
    for (operand i = Q; i <= V; i++)
        for (size_t j = 0; j < x->d[i].n; j++) x->d[i].memory[j] = 0;
    x->d_lse.slot.data = NULL;
    assert_ok(forward(x));
    assert_ok(backward(x));
    qkv_tape *tape;
    assert_ok(qkv_tape_new(&tape, REAL_DTYPE));
    const qkv_shape shapes[] = {qkv_shape3(x->a.n_q, a.heads, a.d_k),
                                qkv_shape3(x->a.n_k, a.kv_heads, a.d_k),
                                qkv_shape3(x->a.n_k, a.kv_heads, a.d_v)};
    qkv_var leaves[3];
    real *gradients[3];
    for (operand i = Q; i <= V; i++) {
        gradients[i] = calloc(x->d[i].n, sizeof(real));
        leaves[i] = FN(qkv_leaf)(tape, shapes[i], x->in[i].memory, gradients[i]);
    }
    qkv_var seed = FN(qkv_leaf)(tape, qkv_shape3(x->a.n_q, a.heads, a.d_v), x->d_o.memory, NULL);
    const qkv_attend_vars in = {.q = leaves[Q],
                                .k = leaves[K],
                                .v = leaves[V],
                                .starts_q = x->starts_q,
                                .starts_k = x->starts_k};
    qkv_var o = qkv_attend(tape, &x->a, &in);
    assert_ok(qkv_backward_with(tape, o, &(qkv_backward_options){.seed = seed}));
    assert_memory_equal(FN(qkv_value)(tape, o), x->out[O].memory, (x->out[O].n - 1) * sizeof(real));
    for (operand i = Q; i <= V; i++) {
        assert_memory_equal(gradients[i], x->d[i].memory, (x->d[i].n - 1) * sizeof(real));
        free(gradients[i]);
    }
    qkv_tape_free(tape);
    batch_free(x);
}

static void one_share_of_the_workspace_is_enough(void **state)
{
    (void)state;
    const qkv_attention a = {.heads = 4, .d_k = 17, .d_v = 10};
    batch *x = batch_of(a, many, MANY, LAYOUT_PACKED, 0, 1);
    slots y = slots_of(x, -1);
    expected_forward_backward(x);
    size_t n, alone, all;
    real *expected = results_of(x, &n);
    for (size_t i = 0; i + 1 < x->out[O].n; i++) x->out[O].memory[i] = 0;
    assert_ok(qkv_set_num_threads(1));
    assert_ok(
        qkv_ragged_workspace(&x->a, x->starts_q, x->starts_k, QKV_FORWARD, REAL_DTYPE, &alone));
    assert_ok(qkv_set_num_threads(3));
    assert_ok(qkv_ragged_workspace(&x->a, x->starts_q, x->starts_k, QKV_FORWARD, REAL_DTYPE, &all));
    assert_true(all > 2 * alone || qkv_get_num_threads() == 1); /* without OpenMP */
    void *workspace = new_workspace(all);
    assert_ok(
        FN(qkv_ragged_forward)(&x->a, x->starts_q, x->starts_k, &y.in, &y.out, workspace, alone));
    real *got = results_of(x, &n);
    assert_memory_equal(got, expected, n * sizeof(real));
    assert_status(FN(qkv_ragged_forward)(&x->a, x->starts_q, x->starts_k, &y.in, &y.out, workspace,
                                         alone / 2),
                  QKV_E_ARG);
    assert_message("qkv_ragged_forward: the workspace has");
    assert_status(FN(qkv_ragged_forward)(&x->a, x->starts_q, x->starts_k, &y.in, &y.out, NULL, 0),
                  QKV_E_ARG);
    assert_ok(qkv_set_num_threads(0));
    free(workspace);
    free(got);
    free(expected);
    batch_free(x);
}

static void nothing_needs_nothing(void **state)
{
    (void)state;
    const int64_t none[3] = {0};
    const FN(qkv_operands) in = {0};
    const FN(qkv_results) out = {0};
    qkv_attention a = {.heads = 2, .d_k = 3, .d_v = 4};
    assert_ok(FN(qkv_ragged_forward)(&a, NULL, NULL, &in, &out, NULL, 0));
    assert_ok(FN(qkv_ragged_backward)(&a, NULL, NULL, &in, &out, &out, &in, NULL, 0));
    a.batch = 2;
    assert_ok(FN(qkv_ragged_forward)(&a, none, none, &in, &out, NULL, 0));
    assert_ok(FN(qkv_ragged_backward)(&a, none, none, &in, &out, &out, &in, NULL, 0));
    a.heads = 0;
    assert_ok(FN(qkv_ragged_forward)(&a, none, (const int64_t[]){0, 1, 2}, &in, &out, NULL, 0));
    size_t bytes;
    assert_ok(qkv_ragged_workspace(&a, none, none, QKV_BACKWARD, REAL_DTYPE, &bytes));
}

static void starts_that_are_wrong_are_named(void **state)
{
    (void)state;
    static const ptrdiff_t sizes[][2] = {{5, 7}, {2, 3}};
    const qkv_attention a = {.heads = 2, .d_k = 3, .d_v = 4};
    batch *x = batch_of(a, sizes, 2, LAYOUT_PACKED, PLAIN, 1);
    slots y = slots_of(x, -1);
    const struct {
        int64_t q[3], k[3];
        const char *message;
    } cases[] = {
        {{1, 5, 7}, {0, 7, 10}, "starts_q[0] is 1, expected 0"},
        {{0, 5, 7}, {-1, 7, 10}, "starts_k[0] is -1, expected 0"},
        {{0, 8, 7}, {0, 7, 10}, "starts_q[2] is 7, expected 8 or more, as starts_q[1]"},
        {{0, 5, 7}, {0, -7, 10}, "starts_k[1] is -7, expected 0 or more, as starts_k[0]"},
        {{0, 5, 6}, {0, 7, 10}, "starts_q[2] is 6, expected n_q, 7"},
        {{0, 5, 7}, {0, 7, 11}, "starts_k[2] is 11, expected n_k, 10"},
    };
    char workspace[1];
    size_t bytes;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int64_t *q = cases[i].q, *k = cases[i].k;
        assert_status(FN(qkv_ragged_forward)(&x->a, q, k, &y.in, &y.out, workspace, 1),
                      QKV_E_SHAPE);
        assert_message(cases[i].message);
        assert_status(
            FN(qkv_ragged_backward)(&x->a, q, k, &y.in, &y.saved, &y.d_out, &y.d_in, workspace, 1),
            QKV_E_SHAPE);
        assert_message(cases[i].message);
        assert_status(qkv_ragged_workspace(&x->a, q, k, QKV_FORWARD, REAL_DTYPE, &bytes),
                      QKV_E_SHAPE);
        assert_message(cases[i].message);
    }
    assert_status(FN(qkv_ragged_forward)(&x->a, x->starts_q, NULL, &y.in, &y.out, workspace, 1),
                  QKV_E_ARG);
    assert_message("starts_k is NULL");
    batch_free(x);
}

static void what_does_not_go_with_it_is_refused(void **state)
{
    (void)state;
    static const ptrdiff_t sizes[][2] = {{5, 7}, {2, 3}};
    qkv_attention a = {.heads = 2, .d_k = 3, .d_v = 4};
    batch *x = batch_of(a, sizes, 2, LAYOUT_PACKED, PLAIN, 1);
    slots good = slots_of(x, -1), y = good;
    char workspace[1];
    size_t bytes;
    const int64_t lengths[2] = {1, 1}, *q = x->starts_q, *k = x->starts_k;
    y.in.lengths = lengths;
    assert_status(FN(qkv_ragged_forward)(&x->a, q, k, &y.in, &y.out, workspace, 1), QKV_E_ARG);
    assert_message("lengths do not go with a ragged batch");
    y = good;
    y.out.weights.data = x->d_o.memory;
    assert_status(FN(qkv_ragged_forward)(&x->a, q, k, &y.in, &y.out, workspace, 1), QKV_E_ARG);
    assert_message("weights do not go with a ragged batch");
    y = good;
    y.out.o.data = y.in.v.data; /* the last of v would be overwritten by another item */
    assert_status(FN(qkv_ragged_forward)(&x->a, q, k, &y.in, &y.out, workspace, 1), QKV_E_ALIAS);
    y = good;
    y.d_in.k.data = y.d_in.q.data + 7 * 3 * 2 - 1;
    assert_status(
        FN(qkv_ragged_backward)(&x->a, q, k, &y.in, &y.saved, &y.d_out, &y.d_in, workspace, 1),
        QKV_E_ALIAS);
    assert_status(FN(qkv_ragged_forward)(NULL, q, k, &y.in, &y.out, workspace, 1), QKV_E_ARG);
    assert_status(FN(qkv_ragged_forward)(&x->a, q, k, NULL, &y.out, workspace, 1), QKV_E_ARG);
    assert_status(FN(qkv_ragged_forward)(&x->a, q, k, &y.in, NULL, workspace, 1), QKV_E_ARG);
    a = x->a;
    assert_status(qkv_ragged_workspace(&a, q, k, QKV_COVARIANCE, REAL_DTYPE, &bytes), QKV_E_ARG);
    assert_status(qkv_ragged_workspace(&a, q, k, QKV_FORWARD, REAL_DTYPE, NULL), QKV_E_ARG);
    assert_status(qkv_ragged_workspace(&a, q, k, QKV_FORWARD, (qkv_dtype)7, &bytes), QKV_E_ARG);
    a.batch = -1;
    assert_status(qkv_ragged_workspace(&a, q, k, QKV_FORWARD, REAL_DTYPE, &bytes), QKV_E_SHAPE);
    a = x->a;
    a.d_k = PTRDIFF_MAX / 16;
    assert_status(qkv_ragged_workspace(&a, q, k, QKV_FORWARD, REAL_DTYPE, &bytes), QKV_E_OVERFLOW);
    batch_free(x);
}

static void empty_supports_are_counted_over_all_items(void **state)
{
    (void)state;
    static const ptrdiff_t sizes[][2] = {{2, 1}, {3, 0}, {1, 1}};
    const qkv_attention a = {.heads = 1,
                             .d_k = 1,
                             .d_v = 1,
                             .score = QKV_SCORE_GAUSSIAN,
                             .normalize = QKV_KERNEL_SUM,
                             .empty = QKV_EMPTY_ERROR};
    batch *x = batch_of(a, sizes, 3, LAYOUT_PACKED, PLAIN, 1);
    for (int i = 0; i < 6; i++) x->in[Q].memory[i] = i < 1 ? 0 : 9;
    for (int i = 0; i < 2; i++) x->in[K].memory[i] = 0;
    assert_status(forward(x), QKV_E_DOMAIN);
    assert_message("2 of 6 queries");
    batch_free(x);
}

static void dropout_tells_items_apart(void **state)
{
    (void)state;
    enum { ITEMS = 3, N = 40, WIDTH = 4, ALL = ITEMS * N * WIDTH };
    static real x[3 * ALL], o[2][ALL], workspace[1 << 17];
    qkv_attention a = {.batch = ITEMS, .heads = 1, .d_k = WIDTH, .d_v = WIDTH, .dropout = 0.4};
    const int64_t starts[] = {0, N, 2 * N, 3 * N};
    const FN(qkv_operands) in = {.q.data = x, .k.data = x + ALL, .v.data = x + 2 * ALL};
    for (size_t i = 0; i < 3 * ALL; i++) x[i] = (real)number(1, i % ALL);
    for (int ragged = 0; ragged < 2; ragged++) {
        const FN(qkv_results) out = {.o.data = o[ragged]};
        if (!ragged) a.n_q = a.n_k = N;
        if (ragged) a.n_q = a.n_k = ITEMS * N;
        assert_ok(ragged ? FN(qkv_ragged_forward)(&a, starts, starts, &in, &out, workspace,
                                                  sizeof workspace)
                         : FN(qkv_attention_forward)(&a, &in, &out, workspace, sizeof workspace));
    }
    assert_memory_equal(o[0], o[1], sizeof o[0]);
    assert_memory_not_equal(o[0], o[0] + N * WIDTH, N * WIDTH * sizeof(real));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_its_items_for_every_choice),
        cmocka_unit_test(it_is_its_items_in_every_layout),
        cmocka_unit_test(a_bias_that_items_share_gets_its_gradient_in_order),
        cmocka_unit_test(a_cache_among_others),
        cmocka_unit_test(a_rule_of_the_callers_is_told_the_item),
        cmocka_unit_test(the_tape_gives_the_same),
        cmocka_unit_test(one_share_of_the_workspace_is_enough),
        cmocka_unit_test(nothing_needs_nothing),
        cmocka_unit_test(starts_that_are_wrong_are_named),
        cmocka_unit_test(what_does_not_go_with_it_is_refused),
        cmocka_unit_test(empty_supports_are_counted_over_all_items),
        cmocka_unit_test(dropout_tells_items_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
