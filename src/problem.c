/* problem.c - the checks of a qkv_attention: sizes, choices, overflow. */
#include "problem.h"

#include <float.h>
#include <stdint.h>

#include "fail.h"
#include "size.h"

static qkv_status check_sizes(const char *who, const qkv_attention *a, const qkv_attention *f)
{
    const struct {
        const char *name;
        ptrdiff_t value;
    } sizes[] = {{"batch", a->batch},
                 {"heads", a->heads},
                 {"kv_heads", a->kv_heads},
                 {"n_q", a->n_q},
                 {"n_k", a->n_k},
                 {"d_k", a->d_k},
                 {"d_v", a->d_v},
                 {"bandwidths", a->bandwidths},
                 {"relative_left", a->relative_left},
                 {"relative_right", a->relative_right}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < 0)
            return qkv_fail(QKV_E_SHAPE, "%s: %s is %td, expected 0 or more", who, sizes[i].name,
                            sizes[i].value);
    if (f->kv_heads && f->heads % f->kv_heads)
        return qkv_fail(QKV_E_SHAPE, "%s: heads is %td, expected a multiple of kv_heads, %td", who,
                        f->heads, f->kv_heads);
    if (f->bandwidths != 1 && f->bandwidths != a->d_k && a->score != QKV_SCORE_USER)
        return qkv_fail(QKV_E_SHAPE, "%s: bandwidths is %td, expected 1 or d_k, %td", who,
                        f->bandwidths, a->d_k);
    return QKV_OK;
}

const char *qkv_score_name(const qkv_attention *a)
{
    static const char *const names[] = {"a scaled dot", "a dot",    "a cosine",    "a Gaussian",
                                        "a Laplace",    "a Cauchy", "an additive", "a user's"};
    bool known = a->score >= 0 && a->score <= QKV_SCORE_USER;
    return known ? names[a->score] : "an unknown";
}

static qkv_status check_choices(const char *who, const qkv_attention *a)
{
    const struct {
        const char *name;
        int value, last;
    } choices[] = {{"score", (int)a->score, QKV_SCORE_USER},
                   {"normalize", (int)a->normalize, QKV_NONE_IDENTITY},
                   {"kernel", (int)a->kernel, QKV_KERNEL_CONSTANT},
                   {"empty", (int)a->empty, QKV_EMPTY_ERROR}};
    for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
        if (choices[i].value < 0 || choices[i].value > choices[i].last)
            return qkv_fail(QKV_E_ARG, "%s: %s is %d, expected 0 to %d", who, choices[i].name,
                            choices[i].value, choices[i].last);
    bool kernel = a->normalize == QKV_KERNEL_SUM || a->normalize == QKV_NONE_KERNEL;
    if (kernel && a->score != QKV_SCORE_GAUSSIAN)
        return qkv_fail(QKV_E_ARG,
                        "%s: a kernel K(u) does not go with %s score; it needs the distance u "
                        "of QKV_SCORE_GAUSSIAN",
                        who, qkv_score_name(a));
    if (!(a->softcap >= 0 && a->softcap <= DBL_MAX))
        return qkv_fail(QKV_E_ARG, "%s: softcap is %g, expected a positive number, or 0 for none",
                        who, a->softcap);
    if (a->softcap > 0 && (a->normalize == QKV_KERNEL_SUM || a->normalize == QKV_UNIFORM))
        return qkv_fail(QKV_E_ARG, "%s: softcap does not go with %s", who,
                        kernel ? "a sum of kernels K(u)" : "QKV_UNIFORM, which reads no scores");
    if (!(a->dropout >= 0 && a->dropout <= 1))
        return qkv_fail(QKV_E_ARG, "%s: dropout is %g, expected a probability, 0 to 1", who,
                        a->dropout);
    bool counts = a->normalize == QKV_TOP_K || a->normalize == QKV_TOP_K_UNIFORM;
    if (counts ? a->top_k < 1 : a->top_k != 0)
        return qkv_fail(QKV_E_ARG, "%s: top_k is %td, expected %s", who, a->top_k,
                        counts ? "1 or more" : "0, since the normaliser counts no keys");
    bool distance = a->score >= QKV_SCORE_GAUSSIAN && a->score <= QKV_SCORE_CAUCHY;
    if (!distance && a->score != QKV_SCORE_USER && a->bandwidths > 1)
        return qkv_fail(QKV_E_ARG, "%s: bandwidths is %td, but %s score has none", who,
                        a->bandwidths, qkv_score_name(a));
    return QKV_OK;
}

/* The bytes of q, k, v and o: a problem that cannot exist is refused before anyone allocates for
 * it. */
static qkv_status check_overflow(const char *who, const qkv_attention *f, size_t element)
{
    const ptrdiff_t dims[][4] = {{f->batch, f->heads, f->n_q, f->d_k},
                                 {f->batch, f->kv_heads, f->n_k, f->d_k},
                                 {f->batch, f->kv_heads, f->n_k, f->d_v},
                                 {f->batch, f->heads, f->n_q, f->d_v}};
    static const char *const names[] = {"q", "k", "v", "o"};
    for (int i = 0; i < 4; i++) {
        size_t bytes = element;
        bool fits = true;
        for (int axis = 0; axis < 4; axis++) fits = fits && qkv_size_mul(&bytes, dims[i][axis]);
        if (!fits || bytes > PTRDIFF_MAX)
            return qkv_fail(QKV_E_OVERFLOW, "%s: %s of %td x %td x %td x %td exceeds memory", who,
                            names[i], dims[i][0], dims[i][1], dims[i][2], dims[i][3]);
    }
    return QKV_OK;
}

qkv_status qkv_problem_check(const char *who, const qkv_attention *a, size_t element,
                             qkv_attention *filled)
{
    if (!a) return qkv_fail(QKV_E_ARG, "%s: the problem (qkv_attention *) is NULL", who);
    *filled = *a;
    if (!a->kv_heads) filled->kv_heads = a->heads;
    if (!a->bandwidths && a->score != QKV_SCORE_USER) filled->bandwidths = 1;
    if (a->score == QKV_SCORE_ADDITIVE) filled->bandwidths = a->d_k;
    qkv_status status = check_sizes(who, a, filled);
    if (!status) status = check_choices(who, a);
    if (!status) status = check_overflow(who, filled, element);
    if (status) return status;
    if (a->relative_left > PTRDIFF_MAX / 32 || a->relative_right > PTRDIFF_MAX / 32)
        return qkv_fail(QKV_E_OVERFLOW, "%s: a relative table of %td + %td + 1 exceeds memory", who,
                        a->relative_left, a->relative_right);
    return QKV_OK;
}

double qkv_work_of(const qkv_attention *a)
{
    double rows = (double)(a->batch * a->heads);
    return rows * (double)a->n_q * (double)a->n_k * (double)(a->d_k + a->d_v + 16);
}

void qkv_strides(const ptrdiff_t dim[4], bool strided, const ptrdiff_t given[4],
                 ptrdiff_t stride[4])
{
    ptrdiff_t packed = 1;
    for (int axis = 3; axis >= 0; axis--) {
        stride[axis] = strided ? given[axis] : packed;
        packed *= dim[axis];
    }
}
