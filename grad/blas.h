/* blas.h - the one BLAS call the tape makes, row-major c = a b + beta c, under a name a dtype. */
#ifndef QKV_GRAD_BLAS_H
#define QKV_GRAD_BLAS_H

#include <cblas.h>

static inline void qkv_gemm_f32(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k,
                                const float *a, int lda, const float *b, int ldb, float beta,
                                float *c)
{
    cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, 1, a, lda, b, ldb, beta, c, n);
}

static inline void qkv_gemm_f64(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k,
                                const double *a, int lda, const double *b, int ldb, double beta,
                                double *c)
{
    cblas_dgemm(CblasRowMajor, ta, tb, m, n, k, 1, a, lda, b, ldb, beta, c, n);
}

#endif
