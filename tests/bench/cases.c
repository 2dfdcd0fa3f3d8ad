#include "cases.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { F32 = 1, F64 = 2, FORWARD = 1, BACKWARD = 2, BOTH = 3 };

/* Every dtype and pass of a line is a case. */
static const struct {
    const char *name;
    int dtypes, passes;
    ptrdiff_t heads, n_q, n_k, d_k, d_v;
    bench_measure measure;
    bool causal, tape;
    ptrdiff_t window; /* keys seen on either side, 0: all */
    bool bias, slopes, sink, relative, mask;
    double softcap, dropout;
    qkv_score score;
    qkv_normalize normalize;
} lines[] = {
    {"dense", BOTH, BOTH, 1, 1024, 1024, .d_k = 64, .d_v = 64},
    {"dense", BOTH, BOTH, 1, 1024, 1024, .d_k = 128, .d_v = 128},
    {"dense", BOTH, BOTH, 1, 4096, 4096, .d_k = 64, .d_v = 64},
    {"dense", BOTH, BOTH, 1, 4096, 4096, .d_k = 128, .d_v = 128},
    {"odd", F32, BOTH, 1, 1000, 1000, .d_k = 60, .d_v = 60},
    {"odd", F32, BOTH, 1, 1000, 1000, .d_k = 100, .d_v = 100},
    {"odd", F32, BOTH, 1, 4001, 4001, .d_k = 60, .d_v = 60},
    {"odd", F32, BOTH, 1, 4001, 4001, .d_k = 100, .d_v = 100},
    {"narrow", F32, BOTH, 1, 1024, 1024, .d_k = 32, .d_v = 32},
    {"narrow", F32, BOTH, 1, 4096, 4096, .d_k = 32, .d_v = 32},
    {"wide", F32, BOTH, 1, 1024, 1024, .d_k = 256, .d_v = 256},
    {"wide", F32, BOTH, 1, 4096, 4096, .d_k = 256, .d_v = 256},
    {"unequal", F32, BOTH, 1, 1024, 1024, .d_k = 64, .d_v = 128},
    {"causal", F32, BOTH, 1, 4096, 4096, .d_k = 64, .d_v = 64, .causal = true},
    {"causal", F32, BOTH, 1, 4096, 4096, .d_k = 128, .d_v = 128, .causal = true},
    {"window", F32, BOTH, 1, 16384, 16384, .d_k = 64, .d_v = 64, .window = 256},
    {"bias", F32, BOTH, 1, 4096, 4096, .d_k = 64, .d_v = 64, .bias = true},
    {"mask", F32, BOTH, 1, 4096, 4096, .d_k = 64, .d_v = 64, .mask = true},
    {"slopes", F32, BOTH, 1, 4096, 4096, .d_k = 64, .d_v = 64, .slopes = true},
    {"relative", F32, BOTH, 1, 4096, 4096, .d_k = 64, .d_v = 64, .relative = true},
    {"sink", F32, BOTH, 1, 4096, 4096, .d_k = 64, .d_v = 64, .sink = true},
    {"softcap", F32, BOTH, 1, 4096, 4096, .d_k = 64, .d_v = 64, .softcap = 30},
    {"dropout", F32, BOTH, 1, 4096, 4096, .d_k = 64, .d_v = 64, .dropout = 0.1},
    {"cosine", F32, BOTH, 1, 4096, 4096, .d_k = 64, .d_v = 64, .score = QKV_SCORE_COSINE},
    {"top_k", F32, BOTH, 1, 4096, 4096, .d_k = 64, .d_v = 64, .normalize = QKV_TOP_K},
    {"sparsemax", F32, BOTH, 1, 4096, 4096, .d_k = 64, .d_v = 64, .normalize = QKV_SPARSEMAX},
    {"entmax", F32, BOTH, 1, 4096, 4096, .d_k = 64, .d_v = 64, .normalize = QKV_ENTMAX_15},
    {"heads", F32, BOTH, 8, 1024, 1024, .d_k = 64, .d_v = 64},
    {"speedup", F32, BOTH, 1, 4096, 4096, .d_k = 64, .d_v = 64, .measure = SPEEDUP},
    {"decode_gbytes", F32, FORWARD, 1, 1, 1000000, .d_k = 64, .d_v = 64, .measure = GBYTES},
    {"nadaraya_watson_gpairs", F32, FORWARD, 1, 4096, 100000, .d_k = 1, .d_v = 1, .measure = GPAIRS,
     .score = QKV_SCORE_GAUSSIAN},
    {"tiny", F32, FORWARD, 1, 10, 10, .d_k = 8, .d_v = 8},
    {"tiny_tape", F32, BACKWARD, 1, 10, 10, .d_k = 8, .d_v = 8, .tape = true},
    {"memory_mebibytes", F32, BACKWARD, 1, 65536, 65536, .d_k = 64, .d_v = 64,
     .measure = MEBIBYTES},
};

static ptrdiff_t smaller(ptrdiff_t n, ptrdiff_t most)
{
    return n < most ? n : most;
}

static void fill(int line, qkv_dtype dtype, qkv_pass pass, bool quick, bench_case *c)
{
    *c = (bench_case){.name = lines[line].name,
                      .measure = lines[line].measure,
                      .dtype = dtype,
                      .pass = pass,
                      .bias = lines[line].bias,
                      .slopes = lines[line].slopes,
                      .sink = lines[line].sink,
                      .relative = lines[line].relative,
                      .mask = lines[line].mask,
                      .tape = lines[line].tape};
    c->a = (qkv_attention){.batch = 1,
                           .heads = lines[line].heads,
                           .n_q = smaller(lines[line].n_q, quick ? 50 : PTRDIFF_MAX),
                           .n_k = smaller(lines[line].n_k, quick ? 50 : PTRDIFF_MAX),
                           .d_k = lines[line].d_k,
                           .d_v = lines[line].d_v,
                           .score = lines[line].score,
                           .mask = {.causal = lines[line].causal,
                                    .window = lines[line].window > 0,
                                    .window_left = lines[line].window,
                                    .window_right = lines[line].window},
                           .softcap = lines[line].softcap,
                           .relative_left = lines[line].relative ? 128 : 0,
                           .relative_right = lines[line].relative ? 128 : 0,
                           .dropout = lines[line].dropout,
                           .normalize = lines[line].normalize,
                           .top_k = lines[line].normalize == QKV_TOP_K ? 32 : 0};
}

bool case_at(int i, bool quick, bench_case *c)
{
    for (int line = 0; line < (int)(sizeof lines / sizeof *lines); line++)
        for (qkv_dtype dtype = QKV_F32; dtype <= QKV_F64; dtype++)
            for (qkv_pass pass = QKV_FORWARD; pass <= QKV_BACKWARD; pass++) {
                if (!(lines[line].dtypes >> dtype & 1 && lines[line].passes >> pass & 1)) continue;
                if (i-- > 0) continue;
                fill(line, dtype, pass, quick, c);
                return true;
            }
    return false;
}

const char *dtype_name(qkv_dtype dtype)
{
    return dtype == QKV_F32 ? "f32" : "f64";
}

const char *pass_name(qkv_pass pass)
{
    return pass == QKV_FORWARD ? "forward" : "backward";
}

const char *case_label(const bench_case *c)
{
    static char text[128];
    const qkv_attention *a = &c->a;
    int n = snprintf(text, sizeof text, "%s/%s/%s/%tdx%td/d%td", c->name, dtype_name(c->dtype),
                     pass_name(c->pass), a->n_q, a->n_k, a->d_k);
    if (a->d_v != a->d_k) n += snprintf(text + n, sizeof text - (size_t)n, "+%td", a->d_v);
    if (a->heads > 1) snprintf(text + n, sizeof text - (size_t)n, "/%td heads", a->heads);
    return text;
}

double case_flops(const bench_case *c)
{
    const qkv_attention *a = &c->a;
    double keys = (double)a->n_k;
    if (a->mask.window) keys = fmin(keys, (double)(2 * a->mask.window_left + 1));
    double pairs = (double)a->batch * (double)a->heads * (double)a->n_q * keys;
    double forward = 2 * (double)(a->d_k + a->d_v),
           backward = 2 * (double)(3 * a->d_k + 2 * a->d_v);
    double each = c->tape || c->measure == MEBIBYTES ? forward + backward
                  : c->pass == QKV_FORWARD           ? forward
                                                     : backward;
    return (a->mask.causal ? 0.5 : 1) * pairs * each;
}
