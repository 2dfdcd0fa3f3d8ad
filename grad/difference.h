/* difference.h - the slope of f along a line through one of its inputs, by differences: how far to
 * step, how noisy f is, Richardson's extrapolation, and what stands in its way. The formulas are
 * those of qkv/gradcheck.h. */
#ifndef QKV_GRAD_DIFFERENCE_H
#define QKV_GRAD_DIFFERENCE_H

#include <math.h>

#include "qkv/attention.h"
#include "qkv/gradcheck.h"

/* A qkv_check_input of either dtype. */
typedef struct qkv_check_array {
    const char *name;
    void *x;
    const double *gradient; /* a copy: the caller's may be overwritten while f runs */
    size_t n;
    double lower, upper, scale;
    qkv_check_zero zero;
} qkv_check_array;

typedef struct qkv_check_name {
    char text[sizeof((qkv_check_report *)0)->worst_input];
} qkv_check_name;

typedef struct qkv_differences {
    const char *who; /* the public call, for messages */
    qkv_check_function f;
    void *context;
    uint64_t (*branches)(void *context); /* may be NULL */
    qkv_check_array *inputs;
    size_t n_inputs;
    qkv_dtype dtype;
    double epsilon, resolution;
    double value;    /* f at the inputs as given */
    double size;     /* of f, over a scale of each input */
    double grid;     /* all values of f that were seen to differ are multiples; infinite: none */
    uint64_t branch; /* and what it decided there */
    double *u;       /* the present direction, of unit length */
    void *kept;      /* the input before the step */
} qkv_differences;

/* What differences at one step say. */
typedef struct qkv_estimate {
    double step;       /* h, in t */
    double analytic;   /* a; of a direction, along the steps as stored */
    double numeric;    /* R */
    double truncation; /* |R - R2| */
    double rounding;   /* what noise adds to E */
    double error;      /* E; not finite if f was not, or its branches changed */
    bool bent;         /* differences look like those of a kink at x */
    bool still;        /* f did not move at all */
} qkv_estimate;

/* x + t u of one input: u is a coordinate, or a direction. Slopes are by u times its norm. */
typedef struct qkv_line {
    size_t input, index;
    bool is_direction; /* d.u; a coordinate otherwise */
    double norm;       /* of the direction before it had unit length; 1 */
    double scale;      /* of t */
    double step;       /* h_0, in t */
    double noise;      /* of f around x, a standard deviation */
    qkv_estimate at;   /* the best */
    double left, right, taylor_rate;
    bool failed, inconclusive, kinked;
} qkv_line;

qkv_check_name qkv_name_of(const qkv_differences *d, size_t input);
double qkv_input_at(const qkv_differences *d, const void *numbers, size_t i);
/* From x to the nearer end of the input's domain; infinite without. */
double qkv_room(const qkv_check_array *in, double x);
/* sqrt(sum x_i^2), without overflow of the squares. */
double qkv_length(const double *x, size_t n);

/* f at the inputs as given. Errors as the public calls. */
qkv_status qkv_evaluate(const qkv_differences *d, double *value);
/* QKV_E_GRADIENT unless f, called again, has given the same bits. */
qkv_status qkv_expect(const qkv_differences *d, double expected, double found);
/* Sets the first step. */
void qkv_line_begin(const qkv_differences *d, qkv_line *line);
qkv_status qkv_measure_noise(const qkv_differences *d, qkv_line *line);
/* What E takes for it: no less than an f of that size and grid must have. */
double qkv_noise_of(const qkv_differences *d, const qkv_line *line);
/* The estimate at the first step. size and grid learn what f shows of itself. */
qkv_status qkv_survey(qkv_differences *d, qkv_line *line);
/* The best estimate of all steps, unless that of the first settles it: a within 4 E, and E small
 * enough to see an error of the resolution in it. */
qkv_status qkv_settle(const qkv_differences *d, qkv_line *line);
/* kinked, left, right and taylor_rate of a line that did not pass. */
qkv_status qkv_diagnose(const qkv_differences *d, qkv_line *line);

static inline bool qkv_within(const qkv_estimate *e)
{
    return isfinite(e->analytic) && isfinite(e->numeric) &&
           fabs(e->analytic - e->numeric) <= 4 * e->error;
}

#endif
