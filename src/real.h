/* real.h - float and double from one source. A file that includes this is compiled twice, with
 * QKV_REAL = 32 and 64; FN(name) is name_f32 or name_f64, real is float or double. */
#ifndef QKV_SRC_REAL_H
#define QKV_SRC_REAL_H

#include <float.h>
#include <math.h>
#include <tgmath.h> /* exp, log, sqrt, fabs .. pick their precision by the argument */

#define QKV_JOIN_(a, b) a##b
#define QKV_JOIN(a, b) QKV_JOIN_(a, b)

#if QKV_REAL == 32
typedef float real;
#define FN(name) QKV_JOIN(name, _f32)
#define REAL_EPSILON FLT_EPSILON
#define REAL_MIN FLT_MIN
#define REAL_MAX FLT_MAX
#define REAL_DTYPE QKV_F32
#elif QKV_REAL == 64
typedef double real;
#define FN(name) QKV_JOIN(name, _f64)
#define REAL_EPSILON DBL_EPSILON
#define REAL_MIN DBL_MIN
#define REAL_MAX DBL_MAX
#define REAL_DTYPE QKV_F64
#else
#error "compile this file twice, with QKV_REAL = 32 and 64 (QKV_NUMERIC in CMakeLists.txt)"
#endif

#endif
