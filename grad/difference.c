#include "grad/difference.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "src/fail.h"

/* Standard deviations of the noise of f in E. R itself has about one (its weights are 64, -20 and 1
 * over 45), so the bound of 4 E leaves 32: the noise is known from five numbers only. */
static const double NOISE_FACTOR = 8;
/* Rounding errors of a itself, in those of f over the scale of x: steps may grow until R has
 * less. */
static const double CLAIM = 4;
/* What is that many times the noise is none. */
static const double CLEAR = 100;

qkv_check_name qkv_name_of(const qkv_differences *d, size_t input)
{
    qkv_check_name name;
    const char *given = d->inputs[input].name;
    if (given)
        snprintf(name.text, sizeof name.text, "%s", given);
    else
        snprintf(name.text, sizeof name.text, "x%zu", input);
    return name;
}

double qkv_input_at(const qkv_differences *d, const void *numbers, size_t i)
{
    return d->dtype == QKV_F32 ? (double)((const float *)numbers)[i] : ((const double *)numbers)[i];
}

/* As stored. */
static double put(const qkv_differences *d, void *numbers, size_t i, double x)
{
    if (d->dtype == QKV_F32) return ((float *)numbers)[i] = (float)x;
    return ((double *)numbers)[i] = x;
}

double qkv_room(const qkv_check_array *in, double x)
{
    if (in->lower == 0 && in->upper == 0) return INFINITY;
    return fmin(x - in->lower, in->upper - x);
}

double qkv_length(const double *x, size_t n)
{
    double largest = 0, sum = 0;
    for (size_t i = 0; i < n; i++)
        if (!(fabs(x[i]) <= largest)) largest = fabs(x[i]); /* NaN stays */
    if (!(largest > 0 && largest < INFINITY)) return largest;
    for (size_t i = 0; i < n; i++) sum += x[i] / largest * (x[i] / largest);
    return largest * sqrt(sum);
}

/* ---- f --------------------------------------------------------------------------------------- */

static qkv_status call(const qkv_differences *d, double *value)
{
    *value = NAN; /* what a function that forgets to answer has said */
    return d->f(d->context, value);
}

static qkv_status fail_at(const qkv_differences *d, qkv_status status, const char *where)
{
    char cause[QKV_MESSAGE_BYTES / 2];
    snprintf(cause, sizeof cause, "%s", qkv_last_error());
    return qkv_fail(status, "%s: the function returned %s at %s (%s)", d->who,
                    qkv_status_name(status), where, cause);
}

static qkv_status fail_on_line(const qkv_differences *d, const qkv_line *line, double t,
                               qkv_status status)
{
    char where[96];
    qkv_check_name name = qkv_name_of(d, line->input);
    if (line->is_direction)
        snprintf(where, sizeof where, "%.3g along direction %zu of %s", t, line->index, name.text);
    else
        snprintf(where, sizeof where, "%s[%zu] = %.17g", name.text, line->index,
                 qkv_input_at(d, d->inputs[line->input].x, line->index));
    return fail_at(d, status, where);
}

qkv_status qkv_evaluate(const qkv_differences *d, double *value)
{
    qkv_status status = call(d, value);
    return status ? fail_at(d, status, "the inputs as given") : QKV_OK;
}

/* f at t on the line; how far that is: as stored on a coordinate, by a on a direction. NaN where f
 * took other branches. */
static qkv_status evaluate_at(const qkv_differences *d, const qkv_line *line, double t,
                              double *value, double *far)
{
    const qkv_check_array in = d->inputs[line->input];
    size_t first = line->is_direction ? 0 : line->index, n = line->is_direction ? in.n : 1;
    size_t bytes = d->dtype == QKV_F32 ? sizeof(float) : sizeof(double);
    char *x = (char *)in.x + first * bytes;
    memcpy(d->kept, x, n * bytes);
    *far = 0;
    for (size_t i = 0; i < n; i++) {
        double before = qkv_input_at(d, x, i), by = line->is_direction ? d->u[i] : 1;
        double moved = put(d, x, i, before + t * by) - before;
        *far += line->is_direction ? moved * in.gradient[i] : moved;
    }
    qkv_status status = call(d, value);
    if (status) status = fail_on_line(d, line, t, status);
    if (!status && d->branches && d->branches(d->context) != d->branch) *value = NAN;
    memcpy(x, d->kept, n * bytes);
    return status;
}

/* ---- Noise ----------------------------------------------------------------------------------- */

enum { POINTS = 9, CUBIC = 4 };

/* Irrational and unrelated: f with a constant added is linear and quantised, and at points of a
 * lattice its rounding errors can all be the same. -4, -(3/2 + sqrt 2), -(sqrt 5), -(golden - 1),
 * 0, sqrt 2, log 8, pi, sqrt 15. */
static const double points[POINTS] = {-4,
                                      -2.9142135623730951,
                                      -2.2360679774997898,
                                      -0.6180339887498949,
                                      0,
                                      1.4142135623730951,
                                      2.0794415416798359,
                                      3.1415926535897931,
                                      3.8729833462074170};

static double dot(const double a[POINTS], const double b[POINTS])
{
    double sum = 0;
    for (int j = 0; j < POINTS; j++) sum += a[j] * b[j];
    return sum;
}

static void remove_along(double f[POINTS], const double p[POINTS])
{
    double share = dot(f, p) / dot(p, p);
    for (int j = 0; j < POINTS; j++) f[j] -= share * p[j];
}

/* f minus its best cubic in the least squares sense: Gram-Schmidt on 1, t, t^2, t^3. (In one loop
 * with p[k][j] = k ? p[k - 1][j] * points[j] : 1, clang 14 left a parabola as noise.) */
static void remove_cubic(double f[POINTS])
{
    double p[CUBIC][POINTS];
    for (int j = 0; j < POINTS; j++) {
        double power = 1;
        for (int k = 0; k < CUBIC; k++, power *= points[j]) p[k][j] = power;
    }
    for (int k = 0; k < CUBIC; k++) {
        for (int i = 0; i < k; i++) remove_along(p[k], p[i]);
        remove_along(f, p[k]);
    }
}

/* The standard deviation of f about a cubic, over points so close together that a smooth f is one.
 */
static qkv_status deviation_from_cubic(const qkv_differences *d, const qkv_line *line,
                                       double spacing, double *deviation)
{
    double f[POINTS], far;
    for (int j = 0; j < POINTS; j++) {
        qkv_status status = evaluate_at(d, line, points[j] * spacing, &f[j], &far);
        if (status) return status;
        f[j] -= d->value;
    }
    remove_cubic(f);
    *deviation = qkv_length(f, POINTS) / sqrt(POINTS - CUBIC);
    return QKV_OK;
}

/* An f that varies faster than its scale says is no cubic, and no branch of f may be crossed.
 * Closer together the points see less of either (16^4 times less of what is smooth, 16 of a kink),
 * and of noise the same: the smallest is noise. An exact 0 only says that f, as stored, did not
 * move. */
qkv_status qkv_measure_noise(const qkv_differences *d, qkv_line *line)
{
    double spacing = line->step / 512, before = INFINITY, deviation;
    for (int i = 0; i < 6; i++, spacing /= 16) {
        qkv_status status = deviation_from_cubic(d, line, spacing, &deviation);
        if (status) return status;
        if (!isfinite(deviation)) continue;
        if (deviation > 0 && (line->noise == 0 || deviation < line->noise)) line->noise = deviation;
        if (deviation <= d->epsilon * fabs(d->value) || deviation > before / 4) break;
        before = deviation;
    }
    return QKV_OK;
}

/* ---- The slope ------------------------------------------------------------------------------- */

/* f may be singular at the end of its domain, so the distance to it is a scale, too. A direction's
 * first step moves no coordinate further than that coordinate's own, nor all of them together. */
void qkv_line_begin(const qkv_differences *d, qkv_line *line)
{
    const qkv_check_array in = d->inputs[line->input];
    size_t first = line->is_direction ? 0 : line->index;
    size_t end = line->is_direction ? in.n : line->index + 1;
    double step = INFINITY, largest = 0;
    for (size_t i = first; i < end;
         i++) { /* by if: gcc 12 for AArch64 breaks down over fmin here */
        double x = qkv_input_at(d, in.x, i);
        double scale = fmin(in.scale > 0 ? in.scale : fmax(1, fabs(x)), qkv_room(&in, x));
        double own = scale / (line->is_direction ? fabs(d->u[i]) : 1);
        if (scale > largest) largest = scale;
        if (own < step) step = own;
    }
    line->scale = fmin(step, largest);
    line->step = pow(d->epsilon, 1.0 / 7) * line->scale;
}

/* The difference of both slopes falls like the step where f is smooth, and stays at a kink. */
static bool stays(double before, double after)
{
    return after > 0.9 * before && after < 1.1 * before;
}

/* R of D_0, D_1, D_2; R_2. */
static double extrapolate(const double d[3], double *r2)
{
    double r1 = (4 * d[1] - d[0]) / 3;
    *r2 = (4 * d[2] - d[1]) / 3;
    return (16 * *r2 - r1) / 15;
}

/* D at one step, and what else is seen there. */
typedef struct rung {
    double slope, claim; /* of a direction, a is differenced, too: how far it says that steps go */
    double jump;         /* between the slopes on both sides */
    double above, below; /* f */
} rung;

static qkv_status step_out(const qkv_differences *d, const qkv_line *line, double h, rung *r)
{
    double f_above, f_below, above, below;
    qkv_status status = evaluate_at(d, line, h, &f_above, &above);
    if (!status) status = evaluate_at(d, line, -h, &f_below, &below);
    if (status) return status;
    double width = line->is_direction ? 2 * h : above - below;
    r->slope = (f_above - f_below) / width;
    r->claim = line->is_direction ? (above - below) / width * line->norm
                                  : d->inputs[line->input].gradient[line->index];
    r->jump = fabs(f_above - d->value - (d->value - f_below)) / h;
    r->above = f_above;
    r->below = f_below;
    return QKV_OK;
}

double qkv_noise_of(const qkv_differences *d, const qkv_line *line)
{
    double grid = d->grid < INFINITY ? d->grid / 8 : 0;
    return fmax(fmax(line->noise, grid), d->epsilon / 8 * d->size);
}

static double last_bit(double x)
{
    int exponent;
    if (x == 0) return INFINITY; /* it has none */
    uint64_t bits = (uint64_t)ldexp(fabs(frexp(x, &exponent)), DBL_MANT_DIG);
    return ldexp((double)(bits & -bits), exponent - DBL_MANT_DIG);
}

/* What one step shows of f: how large it is, and of what it is a multiple. A sum whose large terms
 * cancel keeps their last bit. */
static void learn(qkv_differences *d, double f)
{
    if (!isfinite(f)) return;
    d->size = fmax(d->size, fabs(f));
    if (f != d->value) d->grid = fmin(d->grid, fmin(last_bit(f), last_bit(d->value)));
}

static double rounding_of(const qkv_differences *d, const qkv_line *line, double h)
{
    return (NOISE_FACTOR * qkv_noise_of(d, line) / (h / 4) +
            CLAIM * d->epsilon * d->size / line->scale) *
           line->norm;
}

/* From the differences at h, h/2 and h/4. */
static qkv_estimate estimate(const qkv_differences *d, const qkv_line *line, double h,
                             const rung r[3])
{
    const double slope[3] = {r[0].slope, r[1].slope, r[2].slope},
                 claim[3] = {r[0].claim, r[1].claim, r[2].claim};
    double r2, unused;
    qkv_estimate e = {.step = h};
    e.numeric = extrapolate(slope, &r2) * line->norm;
    e.analytic = line->is_direction ? extrapolate(claim, &unused) : claim[0];
    e.truncation = fabs(e.numeric - r2 * line->norm);
    e.rounding = rounding_of(d, line, h);
    e.error = e.truncation + e.rounding;
    e.bent = stays(r[0].jump, r[1].jump) && stays(r[1].jump, r[2].jump) &&
             r[2].jump * h / 4 > CLEAR * qkv_noise_of(d, line);
    e.still = true;
    for (int k = 0; k < 3; k++) e.still &= r[k].slope == 0 && r[k].jump == 0;
    return e;
}

qkv_status qkv_expect(const qkv_differences *d, double expected, double found)
{
    if (memcmp(&found, &expected, sizeof found) == 0) return QKV_OK;
    return qkv_fail(QKV_E_GRADIENT, "%s: f is not a function of its inputs: %.17g, then %.17g",
                    d->who, expected, found);
}

/* Two calls away from x are twice as likely to differ as one at x, from the value known of it. */
static qkv_status repeat(const qkv_differences *d, const qkv_line *line, double h, const rung *r)
{
    rung again;
    qkv_status status = step_out(d, line, h, &again);
    if (!status) status = qkv_expect(d, r->above, again.above);
    return status ? status : qkv_expect(d, r->below, again.below);
}

qkv_status qkv_survey(qkv_differences *d, qkv_line *line)
{
    rung r[3];
    for (int k = 0; k < 3; k++) {
        qkv_status status = step_out(d, line, ldexp(line->step, -k), &r[k]);
        if (status) return status;
        learn(d, r[k].above);
        learn(d, r[k].below);
    }
    qkv_status status = repeat(d, line, ldexp(line->step, -2), &r[2]);
    if (status) return status;
    line->at = estimate(d, line, line->step, r);
    /* The slope first: a product of both may be too large where this one is not. */
    double grown = fabs(line->at.numeric) / line->norm * line->scale;
    if (grown < INFINITY) d->size = fmax(d->size, grown);
    return QKV_OK;
}

/* ---- The best of many steps ------------------------------------------------------------------ */

/* Rung k is at the first step times 2^(UP - k). 64 times that is 0.37 of the way to the end of the
 * domain (of float, 8 times are 0.82 of it). */
enum { UP = 6, UP_F32 = 3, DOWN = 24, RUNGS = UP + DOWN + 1, CALM = 5 };

typedef struct ladder {
    rung rung[RUNGS + 2];
    bool known[RUNGS + 2];
    qkv_estimate at[RUNGS];
    int first, last; /* those estimated */
} ladder;

static qkv_status climb(const qkv_differences *d, const qkv_line *line, ladder *l, int k)
{
    for (int i = k; i < k + 3; i++) {
        qkv_status status = QKV_OK;
        if (!l->known[i]) status = step_out(d, line, ldexp(line->step, UP - i), &l->rung[i]);
        if (status) return status;
        l->known[i] = true;
    }
    l->at[k] = estimate(d, line, ldexp(line->step, UP - k), &l->rung[k]);
    if (k < l->first) l->first = k;
    if (k > l->last) l->last = k;
    return QKV_OK;
}

/* The smallest E, where E is no less than what smaller steps object: they see more, and only noise
 * excuses them. The last, to which none objects, is no candidate. */
static qkv_estimate best_of(const ladder *l)
{
    qkv_estimate best = l->at[l->first];
    best.error = INFINITY;
    for (int i = l->first; i < l->last || i == l->first; i++) {
        qkv_estimate e = l->at[i];
        for (int j = i + 1; j <= l->last; j++) {
            double objection = fabs(e.numeric - l->at[j].numeric) - l->at[j].rounding;
            if (objection > e.error) e.error = objection;
        }
        if (e.error < best.error) best = e;
    }
    return best;
}

static bool is_settled(const qkv_differences *d, const qkv_estimate *e)
{
    double own = fmax(fabs(e->analytic), fabs(e->numeric));
    return qkv_within(e) && e->error <= d->resolution / 8 * own;
}

/* Larger steps than all so far, as long as noise is what there is. */
static qkv_status enlarge(const qkv_differences *d, qkv_line *line, ladder *l)
{
    int top = UP - (d->epsilon > DBL_EPSILON ? UP_F32 : UP);
    for (int k = l->first - 1; k >= top && l->at[k + 1].truncation <= l->at[k + 1].rounding; k--) {
        qkv_status status = climb(d, line, l, k);
        if (status) return status;
        line->at = best_of(l);
        if (is_settled(d, &line->at)) return QKV_OK;
    }
    return QKV_OK;
}

/* Where f did not move at all, larger steps may confirm a. That they refute it proves nothing: what
 * moves may have been lost in a larger term. */
static qkv_status settle_still(const qkv_differences *d, qkv_line *line, ladder *l)
{
    qkv_estimate first = line->at;
    qkv_status status = climb(d, line, l, UP);
    if (!status) status = enlarge(d, line, l);
    if (!qkv_within(&line->at) || line->at.error > first.error) line->at = first;
    return status;
}

/* Smaller steps until CALM in a row see nothing but noise: one over which f turns may by accident
 * see as little. Then larger ones. */
qkv_status qkv_settle(const qkv_differences *d, qkv_line *line)
{
    ladder l = {.first = RUNGS, .last = -1};
    int calm = 0;
    line->at.rounding = rounding_of(d, line, line->step); /* size has grown since the survey */
    line->at.error = line->at.truncation + line->at.rounding;
    if (is_settled(d, &line->at)) return QKV_OK;
    if (line->at.still) return settle_still(d, line, &l);
    for (int k = UP; k < RUNGS && calm < CALM; k++) {
        qkv_status status = climb(d, line, &l, k);
        if (status) return status;
        line->at = best_of(&l);
        if (is_settled(d, &line->at)) return QKV_OK;
        calm = l.at[k].truncation <= l.at[k].rounding ? calm + 1 : 0;
    }
    return enlarge(d, line, &l);
}

/* ---- What is the matter ---------------------------------------------------------------------- */

/* f(x + t) - f(x) and f(x) - f(x - t), and the same minus what a says. */
static qkv_status one_sided(const qkv_differences *d, const qkv_line *line, double t,
                            double rise[2], double remainder[2])
{
    for (int side = 0; side < 2; side++) {
        double f, far, way = side ? 1 : -1;
        qkv_status status = evaluate_at(d, line, way * t, &f, &far);
        if (status) return status;
        rise[side] = way * (f - d->value);
        double claim = line->is_direction ? far : far * line->at.analytic;
        remainder[side] = fabs(f - d->value - claim);
    }
    return QKV_OK;
}

/* Steps shrink until noise is in the way: what the last two above it say counts. */
qkv_status qkv_diagnose(const qkv_differences *d, qkv_line *line)
{
    double noise = qkv_noise_of(d, line), t = line->at.step;
    double jump = 0, remainder = 0;
    qkv_differences across = *d;
    across.branches = NULL;
    line->kinked = d->branches && !isfinite(line->at.error);
    line->taylor_rate = NAN;
    for (int i = 0; i < 16; i++, t /= 2) {
        double rise[2], rest[2];
        qkv_status status = one_sided(&across, line, t, rise, rest);
        if (status) return status;
        double before = jump, worst = fmax(rest[0], rest[1]);
        jump = fabs(rise[1] - rise[0]) / t;
        bool clear = jump * t > CLEAR * noise;
        if (i > 0 && clear) line->kinked = stays(before, jump);
        if (line->kinked) {
            line->left = rise[0] / t * line->norm;
            line->right = rise[1] / t * line->norm;
        }
        if (worst > CLEAR * noise && i > 0) line->taylor_rate = log2(remainder / worst);
        remainder = worst;
        if (!(worst > CLEAR * noise) && !clear) break;
    }
    return QKV_OK;
}
