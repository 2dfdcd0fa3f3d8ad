/* gradcheck_corrupt.c - the test of the check: true gradients, made wrong in every way that we have
 * seen gradients be wrong, must all be caught. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gradcheck.h"
#include "src/random.h"

typedef struct tensor {
    double *g;
    size_t n;
    const qkv_shape *shape;
    size_t largest; /* index */
} tensor;

typedef struct kind {
    const char *name;
    void (*apply)(const tensor *t, uint64_t seed);
    bool everywhere; /* all inputs, not one of them */
} kind;

static size_t axis_size(const tensor *t, int from_end)
{
    return t->shape->rank >= from_end ? (size_t)t->shape->dim[t->shape->rank - from_end] : 1;
}

static void flip(const tensor *t, uint64_t seed)
{
    (void)seed;
    for (size_t i = 0; i < t->n; i++) t->g[i] = -t->g[i];
}

static void times(const tensor *t, double factor)
{
    for (size_t i = 0; i < t->n; i++) t->g[i] *= factor;
}

static void twice(const tensor *t, uint64_t seed)
{
    (void)seed;
    times(t, 2);
}

static void half(const tensor *t, uint64_t seed)
{
    (void)seed;
    times(t, 0.5);
}

static void a_millionth_more(const tensor *t, uint64_t seed)
{
    (void)seed;
    times(t, 1 + 1e-6);
}

static void nothing(const tensor *t, uint64_t seed)
{
    (void)seed;
    times(t, 0);
}

/* The last two axes, read in the other order. */
static void transpose(const tensor *t, uint64_t seed)
{
    (void)seed;
    size_t rows = axis_size(t, 2), columns = axis_size(t, 1), matrix = rows * columns;
    double *copy = allocate(t->n, sizeof *copy);
    memcpy(copy, t->g, t->n * sizeof *copy);
    for (size_t at = 0; at + matrix <= t->n; at += matrix)
        for (size_t i = 0; i < rows; i++)
            for (size_t j = 0; j < columns; j++)
                t->g[at + j * rows + i] = copy[at + i * columns + j];
    free(copy);
}

/* The halves of the tensor, as heads or batch items would be. */
static void swap_halves(const tensor *t, uint64_t seed)
{
    (void)seed;
    for (size_t i = 0; i < t->n / 2; i++) {
        double kept = t->g[i];
        t->g[i] = t->g[t->n / 2 + i];
        t->g[t->n / 2 + i] = kept;
    }
}

static void shift(const tensor *t, uint64_t seed)
{
    (void)seed;
    double first = t->n ? t->g[0] : 0;
    for (size_t i = 0; i + 1 < t->n; i++) t->g[i] = t->g[i + 1];
    if (t->n) t->g[t->n - 1] = first;
}

static void lose_a_row(const tensor *t, uint64_t seed)
{
    (void)seed;
    size_t columns = axis_size(t, 1), row = t->largest / columns;
    for (size_t c = 0; c < columns; c++) t->g[row * columns + c] = 0;
}

static void repeat_a_row(const tensor *t, uint64_t seed)
{
    (void)seed;
    size_t columns = axis_size(t, 1), rows = t->n / columns, row = t->largest / columns;
    for (size_t c = 0; c < columns; c++)
        t->g[(row + 1) % rows * columns + c] = t->g[row * columns + c];
}

static void flip_one(const tensor *t, uint64_t seed)
{
    (void)seed;
    t->g[t->largest] = -t->g[t->largest];
}

static void one_a_millionth_less(const tensor *t, uint64_t seed)
{
    (void)seed;
    t->g[t->largest] *= 1 - 1e-6;
}

static void lose_one(const tensor *t, uint64_t seed)
{
    (void)seed;
    t->g[t->largest] = 0;
}

static void add_anywhere(const tensor *t, uint64_t seed)
{
    t->g[qkv_random_bits(seed, 9, 0) % t->n] += 1e-4 * fabs(t->g[t->largest]);
}

static void nan_anywhere(const tensor *t, uint64_t seed)
{
    t->g[qkv_random_bits(seed, 9, 1) % t->n] = NAN;
}

static void infinity_anywhere(const tensor *t, uint64_t seed)
{
    t->g[qkv_random_bits(seed, 9, 2) % t->n] = -INFINITY;
}

static void add_noise(const tensor *t, uint64_t seed)
{
    double size = 1e-5 * fabs(t->g[t->largest]);
    for (size_t i = 0; i < t->n; i++) t->g[i] += size * qkv_random_normal(seed, 10, i);
}

static const kind kinds[] = {
    {"sign", flip, true},
    {"sign of one input", flip, false},
    {"twice", twice, false},
    {"half", half, false},
    {"1 + 1e-6", a_millionth_more, false},
    {"missing", nothing, false},
    {"transposed", transpose, false},
    {"heads swapped", swap_halves, false},
    {"shifted by one", shift, false},
    {"missing row", lose_a_row, false},
    {"row repeated", repeat_a_row, false},
    {"sign of one element", flip_one, false},
    {"one element 1 - 1e-6", one_a_millionth_less, false},
    {"one element missing", lose_one, false},
    {"one element off by 1e-4", add_anywhere, false},
    {"noise of 1e-5", add_noise, false},
    {"nan", nan_anywhere, false},
    {"inf", infinity_anywhere, false},
};

int corruption_count(void)
{
    return sizeof kinds / sizeof *kinds;
}

const char *corruption_name(int i)
{
    return kinds[i].name;
}

/* Is one of the differences more than the check claims to see: half a millionth of the largest? */
static bool changed(const double *before, const double *after, size_t n, double largest)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs(after[i] - before[i]) <= 0.5e-6 * largest)) return true;
    return false;
}

static bool corrupt_input(const qkv_trial *trial, int input, const kind *k, uint64_t seed)
{
    tensor t = {
        .g = trial->gradient[input], .n = trial->n[input], .shape = &trial->test->input[input]};
    if (!t.g || !t.n) return false;
    for (size_t i = 0; i < t.n; i++)
        if (fabs(t.g[i]) > fabs(t.g[t.largest])) t.largest = i;
    double *before = allocate(t.n, sizeof *before), largest = fabs(t.g[t.largest]);
    memcpy(before, t.g, t.n * sizeof *before);
    k->apply(&t, seed);
    bool did = changed(before, t.g, t.n, largest);
    free(before);
    return did;
}

bool corrupt(const qkv_trial *trial, int i, uint64_t seed)
{
    int inputs = trial->test->n_input;
    int first = kinds[i].everywhere ? 0 : (int)(seed % (uint64_t)inputs), tried = 0;
    bool did = false;
    for (; tried < inputs && (kinds[i].everywhere || !did); tried++)
        did |= corrupt_input(trial, (first + tried) % inputs, &kinds[i], seed);
    return did;
}

/* ---- The test --------------------------------------------------------------------------------
 */

typedef struct attempt {
    int kind; /* -1: none */
    uint64_t seed;
    bool did;
} attempt;

static void apply(void *context, const qkv_trial *trial)
{
    attempt *a = context;
    a->did = a->kind >= 0 && corrupt(trial, a->kind, a->seed);
}

typedef struct score {
    long planted, caught, clean, alarms;
} score;

/* Of inputs: by the seed, so that one of many can be run again alone. */
static double factor_of(uint64_t seed)
{
    static const double factors[] = {0.3, 1, 2};
    return factors[seed % 3];
}

static void try_case(int op, const qkv_op_case *test, uint64_t seed, const char *replay_to,
                     score *s)
{
    for (int i = -1; i < corruption_count(); i++) {
        attempt a = {.kind = i, .seed = seed};
        const qkv_corruption corruption = {apply, &a};
        qkv_trial trial;
        qkv_check_report report;
        qkv_status status = qkv_trial_begin(&trial, test, seed, factor_of(seed));
        if (!status) status = qkv_gradcheck_trial(&trial, &corruption, &report);
        if (status && status != QKV_E_GRADIENT) check(status);
        if (i < 0) {
            s->clean++;
            s->alarms += status != QKV_OK;
            if (status) {
                say("false alarm: %s, seed %llu: %s", qkv_case_name(op, test),
                    (unsigned long long)seed, qkv_last_error());
                save_replay(replay_to, op, test, &trial, &report);
            }
        } else if (a.did) {
            s->planted++;
            s->caught += status != QKV_OK;
            if (!status)
                say("missed: %s, seed %llu: %s", qkv_case_name(op, test), (unsigned long long)seed,
                    corruption_name(i));
        }
        qkv_trial_end(&trial);
    }
}

bool self_test(uint64_t seed, long seeds, const char *replay_to)
{
    score s = {0};
    progress p = {.label = "corrupting", .total = seeds * qkv_op_count()};
    for (long k = 0; k < seeds; k++)
        for (int op = 0; op < qkv_op_count(); op++) {
            for (const qkv_op_case *test = qkv_registry[op].cases; test->n_input; test++)
                try_case(op, test, seed + (uint64_t)k, replay_to, &s);
            progress_show(&p, k * qkv_op_count() + op + 1, "%s", qkv_op_name(op));
        }
    say("%ld of %ld corrupted gradients caught, %ld of %ld true ones refused", s.caught, s.planted,
        s.alarms, s.clean);
    return s.caught == s.planted && !s.alarms;
}
