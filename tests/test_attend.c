/* examples/attend: the official cases of the ONNX operator as files, its gradients against the
 * library's, its errors. */
#include "support.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "process.h"
#include "qkv/attention.h"
#include "qkv/npy.h"
#include "src/random.h"

#define ATTEND QKV_BIN_DIR "/attend"
#define ARGV(...) ((const char *const[]){ATTEND, __VA_ARGS__, NULL})

static void assert_runs(const char *const *argv)
{
    ran r = run(argv, NULL);
    if (r.exit_code || *r.err) print_error("exit code %d: %s\n", r.exit_code, r.err);
    assert_int_equal(r.exit_code, 0);
    assert_string_equal(r.err, "");
    ran_free(&r);
}

static void assert_fails(const char *const *argv, int exit_code, const char *message)
{
    ran r = run(argv, NULL);
    if (r.exit_code != exit_code || !strstr(r.err, message))
        print_error("exit code %d, expected %d with \"%s\": %s\n", r.exit_code, exit_code, message,
                    r.err);
    assert_int_equal(r.exit_code, exit_code);
    assert_non_null(strstr(r.err, message));
    ran_free(&r);
}

/* ---- ONNX ---------------------------------------------------------------------------------- */

typedef struct onnx_case {
    char name[96], heads[16], kv_heads[16], scale[32], softcap[32], mask[16];
    int rank, past, causal, mode, nonpad, qk_out;
} onnx_case;

static bool parse_case(const char *line, onnx_case *c)
{
    return sscanf(line,
                  "%95s %*d %d %*d %15s %15s %*d %*d %d %*d %*d %*d %d %31s %31s %d %*d %15s %*s "
                  "%d %d",
                  c->name, &c->rank, c->heads, c->kv_heads, &c->past, &c->causal, c->scale,
                  c->softcap, &c->mode, c->mask, &c->nonpad, &c->qk_out) == 12;
}

static const char *file_of(const onnx_case *c, const char *array)
{
    static char paths[8][4096];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/onnx-attention/%s/%s.npy", QKV_TEST_DATA, c->name, array);
    return path;
}

static void assert_same_arrays(const char *actual, const char *expected)
{
    qkv_npy x, y;
    assert_ok(qkv_npy_load(&x, actual));
    assert_ok(qkv_npy_load(&y, expected));
    assert_int_equal(x.type, y.type);
    assert_int_equal(x.rank, y.rank);
    for (int i = 0; i < x.rank; i++) assert_int_equal(x.dim[i], y.dim[i]);
    for (size_t i = 0; i < qkv_npy_size(&x); i++) {
        double a = qkv_npy_element(&x, i), e = qkv_npy_element(&y, i);
        double allowed = isinf(e) ? 0 : 4e-6 * (1 + fabs(e));
        if (a != e) assert_close_(a, e, allowed, expected, __FILE__, __LINE__);
    }
    qkv_npy_free(&x);
    qkv_npy_free(&y);
}

static void run_case(const onnx_case *c)
{
    static const char *const stages[] = {"raw", "softcap", "bias", "weights"};
    const char *argv[64] = {ATTEND, "--scale", c->scale};
    int n = 3;
    const struct {
        bool given;
        const char *option, *argument;
    } all[] = {{true, "--query", file_of(c, "Q")},
               {true, "--key", file_of(c, "K")},
               {true, "--value", file_of(c, "V")},
               {true, "--out", scratch("Y.npy")},
               {c->rank == 3, "--heads", c->heads},
               {c->rank == 3, "--kv-heads", c->kv_heads},
               {strcmp(c->softcap, "0") != 0, "--softcap", c->softcap},
               {c->causal, "--causal", NULL},
               {strcmp(c->mask, "none") != 0, "--mask", file_of(c, "attn_mask")},
               {c->nonpad, "--lengths", file_of(c, "nonpad_kv_seqlen")},
               {c->past, "--past-key", file_of(c, "past_key")},
               {c->past, "--past-value", file_of(c, "past_value")},
               {c->past, "--present-key", scratch("present_key.npy")},
               {c->past, "--present-value", scratch("present_value.npy")},
               {c->qk_out, "--scores", scratch("scores.npy")},
               {c->qk_out, "--scores-stage", stages[c->mode]}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!all[i].given) continue;
        argv[n++] = all[i].option;
        if (all[i].argument) argv[n++] = all[i].argument;
    }
    assert_runs(argv);
    assert_same_arrays(scratch("Y.npy"), file_of(c, "Y"));
    if (c->past) {
        assert_same_arrays(scratch("present_key.npy"), file_of(c, "present_key"));
        assert_same_arrays(scratch("present_value.npy"), file_of(c, "present_value"));
    }
    if (c->qk_out) assert_same_arrays(scratch("scores.npy"), file_of(c, "qk_matmul_output"));
}

static void the_cases_of_the_onnx_operator_agree(void **state)
{
    (void)state;
    int n = 0;
    char line[512];
    FILE *file = fopen(QKV_TEST_DATA "/onnx-attention/cases.tsv", "r");
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof line, file)); /* header */
    for (; fgets(line, sizeof line, file); n++) {
        onnx_case c;
        assert_true(parse_case(line, &c));
        run_case(&c);
    }
    fclose(file);
    assert_int_equal(n, 28);
}

/* ---- Gradients ------------------------------------------------------------------------------ */

enum { B = 2, H = 4, G = 2, NQ = 5, PAST = 3, NK = 7, DK = 3, DV = 2, MASKED = 6 };

static double *normal(size_t n, uint64_t stream)
{
    double *x = calloc(n, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) x[i] = qkv_random_normal(1, stream, i);
    return x;
}

static const char *save(const char *name, int rank, const ptrdiff_t *dim, const void *data)
{
    qkv_npy a = {.type = QKV_NPY_F64, .rank = rank, .data = (void *)data};
    memcpy(a.dim, dim, (size_t)rank * sizeof *dim);
    assert_ok(qkv_npy_save(&a, scratch(name)));
    return scratch(name);
}

static void assert_file(const char *name, const double *expected, size_t n)
{
    qkv_npy x;
    assert_ok(qkv_npy_load(&x, scratch(name)));
    assert_int_equal(x.type, QKV_NPY_F64);
    assert_int_equal(qkv_npy_size(&x), n);
    for (size_t i = 0; i < n; i++)
        assert_close_(((double *)x.data)[i], expected[i], 1e-12, name, __FILE__, __LINE__);
    qkv_npy_free(&x);
}

/* Rows from first on of every matrix of n rows. */
static double *rows_from(const double *x, size_t matrices, size_t n, size_t d, size_t first)
{
    double *y = calloc(matrices * (n - first) * d, sizeof *y), *to = y;
    for (size_t m = 0; m < matrices; m++)
        for (size_t i = first * d; i < n * d; i++) *to++ = x[m * n * d + i];
    return y;
}

static void gradients_are_the_library_s(void **state)
{
    (void)state;
    double *q = normal(B * H * NQ * DK, 1), *k = normal(B * G * NK * DK, 2),
           *v = normal(B * G * NK * DV, 3), *d_o = normal(B * H * NQ * DV, 4),
           *mask = normal(H * NQ * MASKED, 5), *bias = calloc(H * NQ * NK, sizeof *bias);
    double h[DK] = {1.5, 0.75, 2}, scale = 0.5;
    for (int i = 0; i < H * NQ; i++)
        for (int j = 0; j < NK; j++)
            bias[i * NK + j] = j < MASKED ? mask[i * MASKED + j] : -INFINITY;
    const qkv_attention a = {.batch = B,
                             .heads = H,
                             .kv_heads = G,
                             .n_q = NQ,
                             .n_k = NK,
                             .d_k = DK,
                             .d_v = DV,
                             .bandwidths = DK,
                             .score = QKV_SCORE_GAUSSIAN,
                             .softcap = 2,
                             .mask = {.causal = true, .causal_offset = PAST}};
    double *o = normal(B * H * NQ * DV, 0), *rows = normal(2 * B * H * NQ, 0);
    const qkv_slot_f64 shared = {.data = bias, .strided = true, .stride = {0, NQ * NK, NK, 1}};
    const qkv_operands_f64 in = {.q.data = q,
                                 .k.data = k,
                                 .v.data = v,
                                 .bias = shared,
                                 .scale.data = &scale,
                                 .bandwidth.data = h};
    const qkv_results_f64 out = {
        .o.data = o, .row_max.data = rows, .row_log_sum.data = rows + B * H * NQ};
    static char workspace[1 << 22];
    assert_ok(qkv_attention_forward_f64(&a, &in, &out, workspace, sizeof workspace));
    double *dq = calloc(B * H * NQ * DK, 8), *dk = calloc(B * G * NK * DK, 8),
           *dv = calloc(B * G * NK * DV, 8), *d_bias = calloc(H * NQ * NK, 8), dh[DK] = {0},
           d_scale = 0;
    qkv_operands_f64 d_in = {.q.data = dq,
                             .k.data = dk,
                             .v.data = dv,
                             .bias = shared,
                             .scale.data = &d_scale,
                             .bandwidth.data = dh};
    d_in.bias.data = d_bias;
    const qkv_results_f64 d_out = {.o.data = d_o};
    assert_ok(
        qkv_attention_backward_f64(&a, &in, &out, &d_out, &d_in, workspace, sizeof workspace));

    double *new_k = rows_from(k, B * G, NK, DK, PAST), *new_v = rows_from(v, B * G, NK, DV, PAST);
    double *past_k = calloc(B * G * PAST * DK, 8), *past_v = calloc(B * G * PAST * DV, 8);
    for (int m = 0; m < B * G; m++) {
        memcpy(past_k + m * PAST * DK, k + m * NK * DK, PAST * DK * 8);
        memcpy(past_v + m * PAST * DV, v + m * NK * DV, PAST * DV * 8);
    }
    const char *const *argv = ARGV(
        "--query", save("q.npy", 4, (ptrdiff_t[]){B, H, NQ, DK}, q), "--key",
        save("k.npy", 4, (ptrdiff_t[]){B, G, NK - PAST, DK}, new_k), "--value",
        save("v.npy", 4, (ptrdiff_t[]){B, G, NK - PAST, DV}, new_v), "--past-key",
        save("pk.npy", 4, (ptrdiff_t[]){B, G, PAST, DK}, past_k), "--past-value",
        save("pv.npy", 4, (ptrdiff_t[]){B, G, PAST, DV}, past_v), "--mask",
        save("mask.npy", 3, (ptrdiff_t[]){H, NQ, MASKED}, mask), "--grad-out",
        save("do.npy", 4, (ptrdiff_t[]){B, H, NQ, DV}, d_o), "--score", "gaussian", "--bandwidth",
        "1.5,0.75,2", "--scale", "0.5", "--softcap", "2", "--causal", "--out", scratch("o.npy"),
        "--grad-query", scratch("dq.npy"), "--grad-key", scratch("dk.npy"), "--grad-value",
        scratch("dv.npy"), "--grad-mask", scratch("dm.npy"), "--grad-bandwidth", scratch("dh.npy"),
        "--grad-scale", scratch("ds.npy"), "--threads", "1");
    assert_runs(argv);
    double *d_mask = calloc(H * NQ * MASKED, 8);
    for (int i = 0; i < H * NQ; i++)
        memcpy(d_mask + i * MASKED, d_bias + i * NK, MASKED * sizeof *d_mask);
    double *new_dk = rows_from(dk, B * G, NK, DK, PAST),
           *new_dv = rows_from(dv, B * G, NK, DV, PAST);
    assert_file("o.npy", o, B * H * NQ * DV);
    assert_file("dq.npy", dq, B * H * NQ * DK);
    assert_file("dk.npy", new_dk, B * G * (NK - PAST) * DK);
    assert_file("dv.npy", new_dv, B * G * (NK - PAST) * DV);
    assert_file("dm.npy", d_mask, H * NQ * MASKED);
    assert_file("dh.npy", dh, DK);
    assert_file("ds.npy", &d_scale, 1);
    double *all[] = {q,  k,      v,     d_o,   mask,   bias,   o,      rows,   dq,    dk,
                     dv, d_bias, new_k, new_v, past_k, past_v, d_mask, new_dk, new_dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
}

/* Heads side by side in 3 axes, and one head in 2. */
static void other_axes_are_the_same_attention(void **state)
{
    (void)state;
    enum { N = 6, D = 3 };
    double *q = normal(N * 2 * D, 1), *one = calloc(N * D, 8), *expected[2];
    for (int h = 0; h < 2; h++) {
        for (int i = 0; i < N; i++) memcpy(one + i * D, q + (i * 2 + h) * D, D * 8);
        const char *file = save("one.npy", 2, (ptrdiff_t[]){N, D}, one);
        assert_runs(ARGV("--query", file, "--key", file, "--value", file, "--out", scratch("y.npy"),
                         "--grad-out", file, "--grad-key", scratch("dk.npy")));
        qkv_npy y, dk;
        assert_ok(qkv_npy_load(&y, scratch("y.npy")));
        assert_ok(qkv_npy_load(&dk, scratch("dk.npy")));
        assert_int_equal(y.rank, 2);
        expected[h] = calloc(2 * N * D, 8);
        memcpy(expected[h], y.data, N * D * 8);
        memcpy(expected[h] + N * D, dk.data, N * D * 8);
        qkv_npy_free(&y);
        qkv_npy_free(&dk);
    }
    const char *file = save("both.npy", 3, (ptrdiff_t[]){1, N, 2 * D}, q);
    assert_runs(ARGV("--query", file, "--key", file, "--value", file, "--heads", "2", "--out",
                     scratch("y.npy"), "--grad-out", file, "--grad-key", scratch("dk.npy")));
    double *y = calloc(N * 2 * D, 8), *dk = calloc(N * 2 * D, 8);
    for (int i = 0; i < N; i++)
        for (int h = 0; h < 2; h++) {
            memcpy(y + (i * 2 + h) * D, expected[h] + i * D, D * 8);
            memcpy(dk + (i * 2 + h) * D, expected[h] + (N + i) * D, D * 8);
        }
    assert_file("y.npy", y, N * 2 * D);
    assert_file("dk.npy", dk, N * 2 * D);
    free(q);
    free(one);
    free(y);
    free(dk);
    free(expected[0]);
    free(expected[1]);
}

static void scores_are_written_at_the_stage_asked_for(void **state)
{
    (void)state;
    enum { N = 4, D = 2 };
    double *q = normal(N * D, 1), raw[N * N], capped[N * N];
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            raw[i * N + j] = q[i * D] * q[j * D] + q[i * D + 1] * q[j * D + 1];
            capped[i * N + j] = 0.5 * tanh(raw[i * N + j] / 0.5);
        }
    const char *file = save("q4.npy", 2, (ptrdiff_t[]){N, D}, q), *to = scratch("s.npy");
#define DOT "--query", file, "--key", file, "--value", file, "--score", "dot", "--softcap", "0.5"
    assert_runs(ARGV(DOT, "--causal", "--scores", to));
    assert_file("s.npy", raw, N * N);
    assert_runs(ARGV(DOT, "--causal", "--scores", to, "--scores-stage", "softcap"));
    assert_file("s.npy", capped, N * N);
    assert_runs(ARGV(DOT, "--causal", "--scores", to, "--scores-stage", "bias"));
    qkv_npy x;
    assert_ok(qkv_npy_load(&x, to));
    for (int i = 0; i < N * N; i++) {
        double s = qkv_npy_element(&x, (size_t)i);
        assert_true(i % N > i / N ? s == -INFINITY : fabs(s - capped[i]) < 1e-12);
    }
    qkv_npy_free(&x);
#undef DOT
    free(q);
}

/* Every name of a score and of a normaliser means the library's, weights and scores too. */
static void names_are_the_library_s_choices(void **state)
{
    (void)state;
    enum { N = 7, D = 3 };
    const struct {
        const char *score, *normalize;
        qkv_attention a;
    } all[] = {
        {"cosine", "softmax", {.score = QKV_SCORE_COSINE}},
        {"laplace", "softmax", {.score = QKV_SCORE_LAPLACE}},
        {"cauchy", "hard", {.score = QKV_SCORE_CAUCHY, .normalize = QKV_HARD}},
        {"dot", "top-k", {.score = QKV_SCORE_DOT, .normalize = QKV_TOP_K, .top_k = 3}},
        {"dot",
         "top-k-uniform",
         {.score = QKV_SCORE_DOT, .normalize = QKV_TOP_K_UNIFORM, .top_k = 3}},
        {"dot", "sparsemax", {.score = QKV_SCORE_DOT, .normalize = QKV_SPARSEMAX}},
        {"scaled-dot", "entmax", {.normalize = QKV_ENTMAX_15}},
        {"gaussian",
         "tricube",
         {.score = QKV_SCORE_GAUSSIAN, .normalize = QKV_KERNEL_SUM, .kernel = QKV_KERNEL_TRICUBE}},
        {"dot", "sigmoid", {.score = QKV_SCORE_DOT, .normalize = QKV_NONE_SIGMOID}},
        {"dot", "softmax", {.score = QKV_SCORE_DOT, .dropout = 0.5, .dropout_seed = 9}},
    };
    double *q = normal(N * D, 1), *k = normal(N * D, 2), *v = normal(N * D, 3);
    for (int i = 0; i < N * D; i++) k[i] = q[i] + 0.1 * k[i]; /* some near, for the kernel */
    const char *fq = save("nq.npy", 2, (ptrdiff_t[]){N, D}, q),
               *fk = save("nk.npy", 2, (ptrdiff_t[]){N, D}, k),
               *fv = save("nv.npy", 2, (ptrdiff_t[]){N, D}, v);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        qkv_attention a = all[i].a;
        double o[N * D], weights[N * N];
        static char workspace[1 << 18];
        a.batch = a.heads = 1;
        a.n_q = a.n_k = N;
        a.d_k = a.d_v = D;
        const qkv_operands_f64 in = {.q.data = q, .k.data = k, .v.data = v};
        const qkv_results_f64 out = {.o.data = o, .weights.data = weights};
        assert_ok(qkv_attention_forward_f64(&a, &in, &out, workspace, sizeof workspace));
        const char *argv[32] = {ATTEND,
                                "--query",
                                fq,
                                "--key",
                                fk,
                                "--value",
                                fv,
                                "--score",
                                all[i].score,
                                "--normalize",
                                all[i].normalize,
                                "--out",
                                scratch("no.npy"),
                                "--weights",
                                scratch("nw.npy"),
                                "--scores",
                                scratch("ns.npy"),
                                "--scores-stage",
                                "bias"};
        int n = 19;
        if (a.top_k) argv[n++] = "--top-k", argv[n++] = "3";
        if (a.dropout > 0)
            argv[n++] = "--dropout", argv[n++] = "0.5", argv[n++] = "--seed", argv[n++] = "9";
        assert_runs(argv);
        assert_file("no.npy", o, N * D);
        assert_file("nw.npy", weights, N * N);
        a.normalize = QKV_NONE_IDENTITY;
        a.top_k = 0;
        a.dropout = 0;
        assert_ok(qkv_attention_forward_f64(&a, &in, &out, workspace, sizeof workspace));
        assert_file("ns.npy", weights, N * N);
    }
    free(q);
    free(k);
    free(v);
}

/* ---- Errors ---------------------------------------------------------------------------------- */

static void what_is_wrong_is_said(void **state)
{
    (void)state;
    double x[24] = {0};
    const char *q = save("q2.npy", 2, (ptrdiff_t[]){4, 3}, x),
               *wide = save("wide.npy", 2, (ptrdiff_t[]){4, 5}, x),
               *three = save("three.npy", 3, (ptrdiff_t[]){1, 4, 3}, x);
    qkv_npy bools = {.type = QKV_NPY_BOOL, .rank = 1, .dim = {4}, .data = "\1\1\0\1"};
    assert_ok(qkv_npy_save(&bools, scratch("bool.npy")));
    const qkv_npy wholes = {.type = QKV_NPY_I64, .rank = 1, .dim = {1}, .data = &(int64_t){9}};
    const char *whole = scratch("whole.npy");
    const qkv_npy square = {.type = QKV_NPY_I64, .rank = 2, .dim = {1, 1}, .data = &(int64_t){1}};
    assert_ok(qkv_npy_save(&square, scratch("long2.npy")));
    assert_ok(qkv_npy_save(&wholes, whole));
#define PLAIN "--query", q, "--key", q, "--value", q, "--out", scratch("y2.npy")
    assert_fails(ARGV("--query", q), 2, "--key is required");
    assert_fails(ARGV("--query", q, "--key", q, "--value", q), 2, "nothing to write: give --out");
    assert_fails(ARGV("--query", q, "--key", wide, "--value", q, "--out", scratch("y2.npy")), 1,
                 "wide.npy: the size of a key is 5, expected 3");
    assert_fails(ARGV("--query", q, "--key", three, "--value", q, "--out", scratch("y2.npy")), 1,
                 "three.npy has 3 axes, expected 2");
    assert_fails(ARGV(PLAIN, "--heads", "2"), 2, "go with files of 3 axes");
    assert_fails(ARGV(PLAIN, "--grad-query", scratch("g.npy")), 2, "--grad-query needs --grad-out");
    assert_fails(ARGV(PLAIN, "--mask", scratch("bool.npy"), "--grad-out", q, "--grad-mask",
                      scratch("g.npy")),
                 1, "a boolean mask has no gradient");
    assert_fails(ARGV(PLAIN, "--mask", wide), 1,
                 "wide.npy: the last axis is 5, expected at most 4");
    assert_fails(ARGV(PLAIN, "--normalize", "soft"), 2, "'soft' is none of softmax");
    assert_fails(ARGV(PLAIN, "--score", "cos"), 2, "'cos' is none of scaled-dot");
    assert_fails(ARGV(PLAIN, "--normalize", "top-k"), 2, "--top-k goes with --normalize top-k");
    assert_fails(ARGV(PLAIN, "--top-k", "2"), 2, "--top-k goes with --normalize top-k");
    assert_fails(ARGV(PLAIN, "--dropout", "1.5"), 2, "--dropout");
    assert_fails(ARGV(PLAIN, "--seed", "1"), 2, "--seed needs --dropout");
    assert_fails(ARGV(PLAIN, "--window", "3"), 2, "'3' is not L,R");
    assert_fails(ARGV(PLAIN, "--normalize", "boxcar"), 2, "boxcar goes with --score gaussian");
    assert_fails(ARGV(PLAIN, "--normalize", "hard", "--lse", scratch("l.npy")), 2,
                 "--lse does not go with --normalize hard");
    assert_fails(ARGV(PLAIN, "--window", "1.5,2"), 2, "'1.5' is not a whole number");
    assert_fails(ARGV(PLAIN, "--causal", "--causal-offset", "0.5"), 2,
                 "'0.5' is not a whole number");
    assert_fails(ARGV(PLAIN, "--scores", scratch("s.npy"), "--scores-stage", "foo"), 2,
                 "'foo' is none of raw");
    assert_fails(ARGV(PLAIN, "--weights", scratch("y2.npy")), 2,
                 "--out and --weights are the same file");
    assert_fails(ARGV(PLAIN, "--weights", scratch("./y2.npy")), 2,
                 "--out and --weights are the same file");
    assert_fails(ARGV("--query", q, "--key", q, "--value", q, "--out", q), 2,
                 "--query and --out are the same file");
    assert_fails(ARGV("--query", q, "--key", q, "--value", q, "--out", "-"), 2,
                 "--out: '-' is no stream here: expected a path");
    assert_fails(ARGV(PLAIN, "--causal-offset", "1"), 2,
                 "--causal-offset goes with --causal, --window or --alibi");
    assert_fails(ARGV(PLAIN, "--weights", scratch("absent/w.npy")), 1, "--weights: cannot create");
    assert_fails(ARGV(PLAIN, "--grad-out", q), 2, "--grad-out needs --grad-query");
    assert_fails(ARGV(PLAIN, "--grad-out", wide, "--grad-query", scratch("g.npy")), 1,
                 "wide.npy: the size of a value is 5, expected 3");
    assert_fails(ARGV(PLAIN, "--mask", whole), 1, "whole.npy has type int64, expected bool");
    assert_fails(ARGV(PLAIN, "--lengths", whole), 1,
                 "whole.npy: length 0 is 9, expected 0 to the number of keys, 4");
    assert_fails(ARGV(PLAIN, "--lengths", q), 1, "q2.npy has type float64, expected int64");
    assert_fails(ARGV("--query", whole, "--key", q, "--value", q, "--out", scratch("y2.npy")), 1,
                 "whole.npy has type int64, expected float32 or float64");
    assert_fails(ARGV("--query", q, "--key", whole, "--value", q, "--out", scratch("y2.npy")), 1,
                 "whole.npy has type int64, expected that of the queries, float64");
    const qkv_npy one = {.type = QKV_NPY_F64, .rank = 1, .dim = {3}, .data = x};
    assert_ok(qkv_npy_save(&one, scratch("one.npy")));
    assert_fails(
        ARGV("--query", scratch("one.npy"), "--key", q, "--value", q, "--out", scratch("y2.npy")),
        1, "one.npy has 1 axis, expected 2 to 4");
    assert_fails(ARGV(PLAIN, "--lengths", scratch("long2.npy")), 1,
                 "long2.npy has 2 axes, expected 1, [batch]");
    assert_int_equal(access(scratch("y2.npy"), F_OK), -1); /* wrong is found before writing */
    assert_fails(ARGV(PLAIN, "--past-key", three), 2, "--past-key and --past-value go together");
    assert_fails(ARGV("--query", scratch("none.npy"), "--key", q, "--value", q, "--out", "y"), 1,
                 "none.npy");
#undef PLAIN
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cases_of_the_onnx_operator_agree),
        cmocka_unit_test(gradients_are_the_library_s),
        cmocka_unit_test(other_axes_are_the_same_attention),
        cmocka_unit_test(scores_are_written_at_the_stage_asked_for),
        cmocka_unit_test(names_are_the_library_s_choices),
        cmocka_unit_test(what_is_wrong_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
