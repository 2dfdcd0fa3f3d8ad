/* choices.h - every score with every normaliser and kernel it goes with, for tests that hold for
 * all of them. */
#ifndef QKV_TESTS_CHOICES_H
#define QKV_TESTS_CHOICES_H

#include "qkv/attention.h"

enum { CHOICES = 51 };

/* Tests go through all choices. In an emulator, where the slow ones would take minutes, they take
 * every third: other ones in float than in double. */
enum { CHOICE_STEP = QKV_EMULATED ? 3 : 1 };

static inline size_t first_choice(qkv_dtype dtype)
{
    return QKV_EMULATED && dtype == QKV_F64;
}

static inline bool takes_softcap(const qkv_attention *a)
{
    return a->normalize != QKV_KERNEL_SUM && a->normalize != QKV_UNIFORM;
}

/* a with the choice numbered c; a kernel sum without support takes the nearest key. */
static inline qkv_attention with_choice(qkv_attention a, size_t c)
{
    static const struct {
        qkv_score score;
        qkv_normalize normalize;
        qkv_kernel kernel;
    } choices[CHOICES] = {
        {QKV_SCORE_SCALED_DOT, QKV_SOFTMAX, 0},
        {QKV_SCORE_DOT, QKV_SOFTMAX, 0},
        {QKV_SCORE_GAUSSIAN, QKV_SOFTMAX, 0},
        {QKV_SCORE_LAPLACE, QKV_SOFTMAX, 0},
        {QKV_SCORE_CAUCHY, QKV_SOFTMAX, 0},
        {QKV_SCORE_COSINE, QKV_SOFTMAX, 0},
        {QKV_SCORE_ADDITIVE, QKV_SOFTMAX, 0},
        {QKV_SCORE_USER, QKV_SOFTMAX, 0},
        {QKV_SCORE_GAUSSIAN, QKV_KERNEL_SUM, QKV_KERNEL_BOXCAR},
        {QKV_SCORE_GAUSSIAN, QKV_KERNEL_SUM, QKV_KERNEL_TRIANGULAR},
        {QKV_SCORE_GAUSSIAN, QKV_KERNEL_SUM, QKV_KERNEL_EPANECHNIKOV},
        {QKV_SCORE_GAUSSIAN, QKV_KERNEL_SUM, QKV_KERNEL_BIWEIGHT},
        {QKV_SCORE_GAUSSIAN, QKV_KERNEL_SUM, QKV_KERNEL_TRIWEIGHT},
        {QKV_SCORE_GAUSSIAN, QKV_KERNEL_SUM, QKV_KERNEL_TRICUBE},
        {QKV_SCORE_GAUSSIAN, QKV_KERNEL_SUM, QKV_KERNEL_COSINE},
        {QKV_SCORE_GAUSSIAN, QKV_KERNEL_SUM, QKV_KERNEL_CONSTANT},
        {QKV_SCORE_SCALED_DOT, QKV_TOP_K, 0},
        {QKV_SCORE_GAUSSIAN, QKV_TOP_K, 0},
        {QKV_SCORE_SCALED_DOT, QKV_HARD, 0},
        {QKV_SCORE_GAUSSIAN, QKV_HARD, 0},
        {QKV_SCORE_LAPLACE, QKV_HARD, 0},
        {QKV_SCORE_CAUCHY, QKV_HARD, 0},
        {QKV_SCORE_SCALED_DOT, QKV_UNIFORM, 0},
        {QKV_SCORE_GAUSSIAN, QKV_UNIFORM, 0},
        {QKV_SCORE_DOT, QKV_TOP_K_UNIFORM, 0},
        {QKV_SCORE_LAPLACE, QKV_TOP_K_UNIFORM, 0},
        {QKV_SCORE_SCALED_DOT, QKV_SPARSEMAX, 0},
        {QKV_SCORE_GAUSSIAN, QKV_SPARSEMAX, 0},
        {QKV_SCORE_DOT, QKV_ENTMAX_15, 0},
        {QKV_SCORE_CAUCHY, QKV_ENTMAX_15, 0},
        {QKV_SCORE_COSINE, QKV_SPARSEMAX, 0},
        {QKV_SCORE_ADDITIVE, QKV_ENTMAX_15, 0},
        {QKV_SCORE_USER, QKV_HARD, 0},
        {QKV_SCORE_SCALED_DOT, QKV_NONE_EXP, 0},
        {QKV_SCORE_GAUSSIAN, QKV_NONE_EXP, 0},
        {QKV_SCORE_LAPLACE, QKV_NONE_EXP, 0},
        {QKV_SCORE_CAUCHY, QKV_NONE_EXP, 0},
        {QKV_SCORE_DOT, QKV_NONE_SIGMOID, 0},
        {QKV_SCORE_USER, QKV_NONE_SIGMOID, 0},
        {QKV_SCORE_COSINE, QKV_NONE_IDENTITY, 0},
        {QKV_SCORE_GAUSSIAN, QKV_NONE_SIGMOID, 0},
        {QKV_SCORE_GAUSSIAN, QKV_NONE_KERNEL, QKV_KERNEL_BOXCAR},
        {QKV_SCORE_GAUSSIAN, QKV_NONE_KERNEL, QKV_KERNEL_TRIANGULAR},
        {QKV_SCORE_GAUSSIAN, QKV_NONE_KERNEL, QKV_KERNEL_EPANECHNIKOV},
        {QKV_SCORE_GAUSSIAN, QKV_NONE_KERNEL, QKV_KERNEL_BIWEIGHT},
        {QKV_SCORE_GAUSSIAN, QKV_NONE_KERNEL, QKV_KERNEL_TRIWEIGHT},
        {QKV_SCORE_GAUSSIAN, QKV_NONE_KERNEL, QKV_KERNEL_TRICUBE},
        {QKV_SCORE_GAUSSIAN, QKV_NONE_KERNEL, QKV_KERNEL_COSINE},
        {QKV_SCORE_GAUSSIAN, QKV_NONE_KERNEL, QKV_KERNEL_CONSTANT},
        {QKV_SCORE_DOT, QKV_NONE_IDENTITY, 0},
        {QKV_SCORE_GAUSSIAN, QKV_NONE_IDENTITY, 0},
    };
    a.score = choices[c].score;
    a.normalize = choices[c].normalize;
    a.kernel = choices[c].kernel;
    a.empty = QKV_EMPTY_NEAREST;
    a.bandwidths = a.score == QKV_SCORE_USER ? 2 : 0;
    a.top_k = a.normalize == QKV_TOP_K || a.normalize == QKV_TOP_K_UNIFORM ? 3 : 0;
    return a;
}

#endif
