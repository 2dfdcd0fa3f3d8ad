#include <math.h>

#include "fail.h"
#include "qkv/regression.h"

const char *qkv_regression_kernel_name(qkv_regression_kernel kernel)
{
    static const char *const names[] = {
        [QKV_REGRESSION_GAUSSIAN] = "gaussian",     [QKV_REGRESSION_BOXCAR] = "boxcar",
        [QKV_REGRESSION_TRIANGULAR] = "triangular", [QKV_REGRESSION_EPANECHNIKOV] = "epanechnikov",
        [QKV_REGRESSION_BIWEIGHT] = "biweight",     [QKV_REGRESSION_TRIWEIGHT] = "triweight",
        [QKV_REGRESSION_TRICUBE] = "tricube",       [QKV_REGRESSION_COSINE] = "cosine",
        [QKV_REGRESSION_LAPLACE] = "laplace",       [QKV_REGRESSION_CAUCHY] = "cauchy",
        [QKV_REGRESSION_CONSTANT] = "constant",
    };
    size_t i = (size_t)kernel;
    return i < sizeof names / sizeof *names ? names[i] : NULL;
}

/* ---- h / b of each tool; 0 for a kernel that it does not have -------------------------------- */

/* Its users' fits have this rounding of 0.25 / qnorm(0.75) = 0.370650555. */
static double ksmooth(qkv_regression_kernel kernel)
{
    return kernel == QKV_REGRESSION_BOXCAR     ? 0.5
           : kernel == QKV_REGRESSION_GAUSSIAN ? 0.3706506
                                               : 0;
}

static double np(qkv_regression_kernel kernel)
{
    return kernel == QKV_REGRESSION_GAUSSIAN       ? 1
           : kernel == QKV_REGRESSION_EPANECHNIKOV ? sqrt(5) /* so that its variance is b^2 */
                                                   : 0;
}

static double statsmodels(qkv_regression_kernel kernel)
{
    return kernel == QKV_REGRESSION_GAUSSIAN ? 1 : 0;
}

static double locfit(qkv_regression_kernel kernel)
{
    switch (kernel) {
    case QKV_REGRESSION_GAUSSIAN:
        return 1 / 2.5;
    case QKV_REGRESSION_BOXCAR: /* rect, epan, bisq, tcub, tria, trwt */
    case QKV_REGRESSION_TRIANGULAR:
    case QKV_REGRESSION_EPANECHNIKOV:
    case QKV_REGRESSION_BIWEIGHT:
    case QKV_REGRESSION_TRIWEIGHT:
    case QKV_REGRESSION_TRICUBE:
        return 1;
    case QKV_REGRESSION_COSINE:
    case QKV_REGRESSION_LAPLACE:
    case QKV_REGRESSION_CAUCHY:
    case QKV_REGRESSION_CONSTANT:
        break;
    }
    return 0;
}

qkv_status qkv_regression_from_convention(qkv_regression_convention convention,
                                          qkv_regression_kernel kernel, double b, double *h)
{
    static const struct {
        const char *name;
        double (*factor)(qkv_regression_kernel kernel);
    } tools[] = {
        [QKV_REGRESSION_KSMOOTH] = {"ksmooth", ksmooth},
        [QKV_REGRESSION_NP] = {"np", np},
        [QKV_REGRESSION_STATSMODELS] = {"statsmodels", statsmodels},
        [QKV_REGRESSION_LOCFIT] = {"locfit", locfit},
    };
    if ((size_t)convention >= sizeof tools / sizeof *tools)
        return qkv_fail(QKV_E_ARG, "%s: %d is not a convention", __func__, (int)convention);
    const char *name = qkv_regression_kernel_name(kernel);
    if (!name) return qkv_fail(QKV_E_ARG, "%s: %d is not a kernel", __func__, (int)kernel);
    if (!h) return qkv_fail(QKV_E_ARG, "%s: h is NULL", __func__);
    if (!(b > 0 && isfinite(b)))
        return qkv_fail(QKV_E_ARG, "%s: b is %g, expected a finite number > 0", __func__, b);
    double factor = tools[convention].factor(kernel);
    if (factor == 0)
        return qkv_fail(QKV_E_ARG, "%s: %s has no %s kernel", __func__, tools[convention].name,
                        name);
    *h = factor * b;
    return QKV_OK;
}
