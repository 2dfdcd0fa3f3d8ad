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
enum { RETRIES = 6 };

qkv_check_array qkv_array_of(const qkv_differences *d, size_t input)
{
    if (d->dtype == QKV_F32) {
        const qkv_check_input_f32 *in = (const qkv_check_input_f32 *)d->inputs + input;
        return (qkv_check_array){in->name,  in->x,     in->gradient, in->n,
                                 in->lower, in->upper, in->scale};
    }
    const qkv_check_input *in = (const qkv_check_input *)d->inputs + input;
    return (qkv_check_array){in->name, in->x, in->gradient, in->n, in->lower, in->upper, in->scale};
}

qkv_check_name qkv_name_of(const qkv_differences *d, size_t input)
{
    qkv_check_name name;
    const char *given = qkv_array_of(d, input).name;
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
                 qkv_input_at(d, qkv_array_of(d, line->input).x, line->index));
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
    const qkv_check_array in = qkv_array_of(d, line->input);
    size_t first = line->is_direction ? 0 : line->index, n = line->is_direction ? in.n : 1;
    size_t bytes = d->dtype == QKV_F32 ? sizeof(float) : sizeof(double);
    char *x = (char *)in.x + first * bytes;
    memcpy(d->kept, x, n * bytes);
    *far = 0;
    for (size_t i = 0; i < n; i++) {
        double before = qkv_input_at(d, x, i), by = line->is_direction ? d->u[i] : 1;
        double moved = put(d, x, i, before + t * by) - before;
        *far += line->is_direction ? moved * qkv_input_at(d, in.gradient, i) : moved;
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

/* f minus its best cubic in the least squares sense: Gram-Schmidt on 1, t, t^2, t^3. */
static void remove_cubic(double f[POINTS])
{
    double basis[CUBIC][POINTS];
    for (int k = 0; k < CUBIC; k++) {
        double *p = basis[k], norm = 0, share = 0;
        for (int j = 0; j < POINTS; j++) p[j] = k ? basis[k - 1][j] * points[j] : 1;
        for (int i = 0; i < k; i++) {
            double overlap = 0;
            for (int j = 0; j < POINTS; j++) overlap += basis[i][j] * p[j];
            for (int j = 0; j < POINTS; j++) p[j] -= overlap * basis[i][j];
        }
        for (int j = 0; j < POINTS; j++) norm += p[j] * p[j];
        for (int j = 0; j < POINTS; j++) p[j] /= sqrt(norm);
        for (int j = 0; j < POINTS; j++) share += p[j] * f[j];
        for (int j = 0; j < POINTS; j++) f[j] -= share * p[j];
    }
}

/* The standard deviation of f about a cubic, over points so close together that a smooth f is one.
 */
static qkv_status deviation_from_cubic(const qkv_differences *d, const qkv_line *line,
                                       double spacing, double *deviation)
{
    double f[POINTS], far, sum = 0;
    for (int j = 0; j < POINTS; j++) {
        qkv_status status = evaluate_at(d, line, points[j] * spacing, &f[j], &far);
        if (status) return status;
        f[j] -= d->value;
    }
    remove_cubic(f);
    for (int j = 0; j < POINTS; j++) sum += f[j] * f[j];
    *deviation = sqrt(sum / (POINTS - CUBIC));
    return QKV_OK;
}

/* An f that varies faster than its scale says is no cubic. That part shrinks by 16^4 from one
 * spacing to the next and noise does not, so the smallest of three is noise; but an exact 0 only
 * says that f, as stored, did not move. */
qkv_status qkv_measure_noise(const qkv_differences *d, qkv_line *line)
{
    double spacing = line->step / 512, deviation = INFINITY;
    for (int i = 0; i < 3 && deviation > d->epsilon * fabs(d->value); i++, spacing /= 16) {
        qkv_status status = deviation_from_cubic(d, line, spacing, &deviation);
        if (status) return status;
        if (deviation > 0 && (line->noise == 0 || deviation < line->noise)) line->noise = deviation;
    }
    return QKV_OK;
}

/* ---- The slope ------------------------------------------------------------------------------- */

/* f may be singular at the end of its domain, so the distance to it is a scale, too. A direction's
 * first step moves no coordinate further than that coordinate's own, nor all of them together. */
void qkv_line_begin(const qkv_differences *d, qkv_line *line)
{
    const qkv_check_array in = qkv_array_of(d, line->input);
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

/* On a direction the claim is differenced, too: how far a says that each step as stored goes. */
qkv_status qkv_differentiate(const qkv_differences *d, qkv_line *line)
{
    double h = line->step, slope[3], claim[3], jump[3], largest = fabs(d->value), r2, unused;
    for (int k = 0; k < 3; k++, h /= 2) {
        double f_above, f_below, above, below;
        qkv_status status = evaluate_at(d, line, h, &f_above, &above);
        if (!status) status = evaluate_at(d, line, -h, &f_below, &below);
        if (status) return status;
        double width = line->is_direction ? 2 * h : above - below;
        slope[k] = (f_above - f_below) / width;
        claim[k] = (above - below) / width;
        jump[k] = fabs(f_above - d->value - (d->value - f_below)) / h;
        largest = fmax(largest, fmax(fabs(f_above), fabs(f_below)));
    }
    double noise = fmax(line->noise, d->epsilon / 8 * largest);
    line->numeric = extrapolate(slope, &r2) * line->norm;
    line->truncation = fabs(line->numeric - r2 * line->norm);
    double rounding =
        NOISE_FACTOR * noise / (line->step / 4) + CLAIM * d->epsilon * largest / line->scale;
    line->error = line->truncation + rounding * line->norm;
    if (line->is_direction) line->analytic = extrapolate(claim, &unused) * line->norm;
    line->bent = stays(jump[0], jump[1]) && stays(jump[1], jump[2]) &&
                 jump[2] * line->step / 4 > CLEAR * noise;
    return QKV_OK;
}

/* Smaller steps while truncation (or a NaN) is the larger part of E, larger ones while noise is,
 * until E is good enough; the best estimate stays. 64 times the first step is 0.37 of the way to
 * the end of the domain (0.1 of it and 4 times of float). */
qkv_status qkv_refine(const qkv_differences *d, qkv_line *line, double good_enough)
{
    double largest_step = (d->dtype == QKV_F32 ? 4 : 64) * line->step;
    qkv_line trial = *line;
    for (int i = 0; i < RETRIES && !(line->error <= good_enough); i++) {
        bool grow = trial.truncation < trial.error / 2;
        trial.step = fmin(trial.step * (grow ? 4 : 0.125), largest_step);
        qkv_status status = qkv_differentiate(d, &trial);
        if (status) return status;
        if (trial.error < line->error || !isfinite(line->error)) *line = trial;
    }
    return QKV_OK;
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
        double claim = line->is_direction ? far : far * line->analytic;
        remainder[side] = fabs(f - d->value - claim);
    }
    return QKV_OK;
}

/* Steps shrink until noise is in the way: what the last two above it say counts. */
qkv_status qkv_diagnose(const qkv_differences *d, qkv_line *line)
{
    double noise = fmax(line->noise, d->epsilon / 8 * fabs(d->value)), t = line->step;
    double jump = 0, remainder = 0;
    qkv_differences across = *d;
    across.branches = NULL;
    line->kinked = d->branches && !isfinite(line->error);
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
