/* gradcheck.h - is this gradient right? Central differences with Richardson extrapolation, which
 * carry an error estimate of their own, so that the verdict needs no hand-picked tolerance. For
 * qkv's operations and for yours.
 *
 * For each element x (Ridders 1982; Press et al., Numerical Recipes, 5.7):
 *
 *     D_k = (f(x + h_k) - f(x - h_k)) / (x+ - x-)   with x+ and x- as they were stored
 *     h_k = h / 2^k,  k = 0, 1, 2
 *     R_1 = (4 D_1 - D_0) / 3,  R_2 = (4 D_2 - D_1) / 3
 *     R   = (16 R_2 - R_1) / 15
 *     E   = |R - R_2| + 8 noise / h_2 + 4 eps F / scale
 *
 * First with h = eps^(1/7) scale, where scale is what the input says, else max(1, |x|), and no more
 * than the distance to the end of the domain. noise is the standard deviation of f's rounding
 * errors, measured around x about a cubic (as More & Wild 2011 do by differences), at least
 * eps F / 8: a large constant in f costs what it really costs. F is the size of f: the largest |f|
 * that was seen, or |R| scale, over all inputs. Nor is it less than an eighth of the last bit that
 * values of f have: an f that is 0 because large terms cancel is as noisy as they are.
 *
 * The analytic a agrees if it and R are finite and |a - R| <= 4 E. If it does, and E <= 1e-6 / 8 of
 * the larger of |a| and |R|, that is all: an error of 1e-6 would have been seen. Otherwise h is
 * halved, up to 24 times, until five in a row are limited by noise (the first term of E is the
 * smaller), then doubled from the first on, up to 6 times, while they are. An E that is small by
 * accident (f turns within the step) is found out by smaller steps: E is at least |R - R'| - (what
 * noise adds to E') for every smaller h' tried, of which there is at least one. The smallest E then
 * decides. Where f did not move at all h is not halved, and doubled only to confirm a: that larger
 * steps refute it proves nothing, for what moves may have been lost in a larger term. An element
 * that does not agree is wrong. It passes if E <= 1e-6 of the gradient's scale, the largest |a| or
 * |R| of its input; else it is inconclusive, which fails: a check that cannot tell right from wrong
 * has not passed. So fails an element at a kink, where f has one slope on the left and another on
 * the right.
 *
 * An input all of whose a and R are 0 within 4 E fails as vacuous: smaller errors than that would
 * not be seen in it. It can be declared to be such (qkv_check_zero); the other inputs then lend it
 * their scale, or, if none has one, f its own, F / scale.
 *
 * Large inputs are checked along random directions instead, a certificate for the whole gradient at
 * the price of a few elements. Along u_1 .. u_K, of independent standard normal elements, R and E
 * are those of the slope of f along u / ||u||, times ||u||, and with a'u for a. (The first step
 * moves no coordinate further than its own would, nor all together further than the largest.)
 *
 *     tau = max over u of |a'u - R| + 4 E
 *
 * If e is the error of the gradient, u'e is normal with standard deviation ||e||, so that
 * P(|u'e| <= tau) <= sqrt(2/pi) tau / ||e||. That K independent ones all are has a chance of at
 * most the K-th power of this, and with confidence 1 - delta
 *
 *     ||e|| <= sqrt(2/pi) tau delta^(-1/K)
 *
 * qkv_gradcheck_f32 does the same with the epsilon of float, 1e-2 instead of 1e-6, and 3 doublings.
 * That is a weaker proof, and the report says so: where f has a double twin, check that, and
 * compare the float with it. At the longest step E is at least 9 eps F / scale: where the gradient
 * of an input is nowhere above 1e-4 F / scale, as that of a saturated softmax, its elements are
 * undecided, or the input is vacuous. */
#ifndef QKV_GRADCHECK_H
#define QKV_GRADCHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What is known beforehand of a gradient that is 0 everywhere. Undeclared, it fails as vacuous. */
typedef enum qkv_check_zero {
    QKV_ZERO_UNDECLARED,
    QKV_ZERO_EXACT, /* f does not depend on the input by any path: exactly 0 is required */
    /* Contributions cancel, as those of a bias that is added to all keys of a softmax: 0 to within
     * 4 E is required, for each is rounded. */
    QKV_ZERO_ROUNDED
} qkv_check_zero;

/* One array the function depends on, with the gradient that is on trial. */
typedef struct qkv_check_input {
    const char *name;       /* for the report; NULL: "x0", "x1", .. by position */
    double *x;              /* n numbers; perturbed in place, restored to the bit */
    const double *gradient; /* n numbers: the claimed d f / d x; read before f is called */
    size_t n;
    double lower, upper; /* the open domain of x that steps must not leave; both 0: all numbers */
    double scale;        /* the distance over which f changes; 0: max(1, |x|) */
    qkv_check_zero zero;
} qkv_check_input;

/* f at the present contents of the inputs. Anything but QKV_OK ends the check with that status. A
 * function with many outputs y is checked as f = dy'y with a random dy, whose gradient is what its
 * backward pass makes of dy. */
typedef qkv_status (*qkv_check_function)(void *context, double *value);

/* The same of a function of floats. */
typedef struct qkv_check_input_f32 {
    const char *name;
    float *x;
    const float *gradient;
    size_t n;
    double lower, upper, scale;
    qkv_check_zero zero;
} qkv_check_input_f32;

static const double QKV_CHECK_DELTA = 1e-6;

typedef struct qkv_check_options {
    size_t max_elements; /* elements tried per input, drawn at random beyond that; 0: all */
    int directions;      /* K > 0: every input along K random directions, not by its elements */
    double delta;        /* of the certificate; 0: QKV_CHECK_DELTA */
    uint64_t seed;       /* for those draws */

    /* NULL, or what f decided when it was last called: a number that is the same as long as the
     * same branches were taken (the winner of a maximum, who is within a support). Steps across
     * which it changes are made smaller; where the smallest still cross, the element has a kink. */
    uint64_t (*branches)(void *context);

    /* f computes in float although its inputs are double: steps and bounds as for float. */
    bool computes_in_float;
} qkv_check_options;

typedef struct qkv_check_report {
    bool passed;
    /* Elements, or directions, over all inputs; those at a kink are among the inconclusive. */
    size_t checked, failed, inconclusive, kinks;
    size_t directions; /* of those checked; 0: they were elements */
    bool vacuous;      /* of an input every gradient and every difference is 0 within its error */

    /* The worst element (failed before inconclusive before passed, then the largest |a - R| / 4 E):
     * the name of its input, and its flat index there. */
    char worst_input[32];
    size_t worst_index;

    double analytic, numeric; /* a and R there */
    double error, bound;      /* |a - R| and 4 E there */
    double noise;             /* of f there: the standard deviation of its rounding errors */
    double left, right;       /* at a kink, f's slopes on both sides */

    /* Unless it passed there: the p by which |f(x + t) - f(x) - a t| falls like t^p. 2 or more: a
     * is the slope, and what is wrong is the check (noise?). 1: it is not. 0: f is not continuous.
     * NaN where rounding errors hide it. */
    double taylor_rate;

    /* With directions: with confidence 1 - delta, the error of each input's gradient is at most
     * error_norm, and at most certificate times its norm (times the largest norm, if its own is 0
     * within its error). The largest of all inputs; infinite if one failed. */
    double certificate, error_norm;
    bool weak; /* f was float */

    /* qkv_gradcheck_op: the gradient in float is off the one in double by what inputs and cotangent
     * do to it that are off by float_error epsilons (of float; root mean square over random ones,
     * in the element that they change most); they may be by float_bound. */
    double float_error, float_bound;
    char message[400]; /* one sentence; also qkv_last_error() on failure */
} qkv_check_report;

/* Is each gradient that of f? report is overwritten; it may be NULL. options NULL: all zero.
 *
 *     QKV_OK          every element passed
 *     QKV_E_GRADIENT  one failed or was inconclusive; an input is vacuous or there are no elements;
 *                     f is not finite, or no function of its inputs: two values for the same bits
 *     QKV_E_ARG       a NULL; an x that is not finite or outside its domain; no domain or scale
 *     QKV_E_OVERFLOW  too many elements
 *     QKV_E_NOMEM     it copies the gradients, and allocates a little beside
 *     and f's own status if f failed
 *
 * For each of the n elements or directions tried, f is called twice more at x and twice more next
 * to it, and at x at both ends. If its value is off at random, in one call of 1/p, that is found
 * with a probability of 1 - (1 - p)^(6n + 3) where the check would pass: for p = 0.01, 24 % with 4
 * elements, 96 % with 52. What is not found passes if it moved no R by more than 4 E.
 *
 * NaN or infinity in a gradient never passes, tried or not. */
QKV_API qkv_status qkv_gradcheck(qkv_check_function f, void *context, const qkv_check_input *inputs,
                                 size_t n_inputs, const qkv_check_options *options,
                                 qkv_check_report *report);

/* The same of a function of floats, which may compute its value in double. */
QKV_API qkv_status qkv_gradcheck_f32(qkv_check_function f, void *context,
                                     const qkv_check_input_f32 *inputs, size_t n_inputs,
                                     const qkv_check_options *options, qkv_check_report *report);

/* A linear map and its adjoint, as forward and reverse mode are: Ju for n_in numbers u, and J'v for
 * n_out numbers v, both overwritten. */
typedef struct qkv_check_map {
    size_t n_in, n_out;
    qkv_status (*jvp)(void *context, const double *u, double *ju);
    qkv_status (*vjp)(void *context, const double *v, double *jv);
    void *context;
} qkv_check_map;

/* Is v'(Ju) = u'(J'v)? For pairs (0: 10) of random normal u and v, to within
 *
 *     64 eps (sum |v_i (Ju)_i| + sum |u_i (J'v)_i| + |v| |Ju| + |u| |J'v|)
 *
 * which is what both sums round by. epsilon: of what jvp and vjp compute in, below 1; 0:
 * DBL_EPSILON. No differences are taken: it says that the two agree, to rounding, not that either
 * is the derivative. report: error and bound of the worst pair; vacuous if all products are 0.
 * Errors as qkv_gradcheck.
 *
 * Second order needs nothing more: v'gradient is a function whose gradient is the Hessian-vector
 * product Hv, for qkv_gradcheck, and H its own adjoint. */
QKV_API qkv_status qkv_gradcheck_adjoint(const qkv_check_map *map, double epsilon, int pairs,
                                         uint64_t seed, qkv_check_report *report);

/* The operations of the tape (its registry, grad/ops.def): how many, and the name of each of
 * 0 .. count - 1; NULL for any other. */
QKV_API int qkv_op_count(void);
QKV_API const char *qkv_op_name(int op);

/* Runs every case of one operation: random values in its domain from seed, a signed random
 * cotangent, every input, each with other uses recorded before and after the operation, so that a
 * backward that overwrites a gradient instead of adding to it is wrong. In double, every element
 * and 8 directions are checked, backward has to give the same bits again, and exactly 0 for a
 * cotangent of 0. Floats are never differenced: their gradient is compared with the one in double.
 * report, of the worst element over the cases, is overwritten, with the largest certificate and
 * float error; it may be NULL. Stops at the first case that fails. Errors as above; an unknown op
 * is QKV_E_ARG. */
QKV_API qkv_status qkv_gradcheck_op(int op, uint64_t seed, qkv_check_report *report);

#ifdef __cplusplus
}
#endif
#endif
