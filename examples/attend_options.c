/* attend_options.c - the options of attend, and what their arguments mean. */
#include <stdlib.h>
#include <string.h>

#include "attend.h"

const command attend = {
    "",
    "Attention of queries to keys and values in .npy files of float32 or float64, with 2 axes [n, "
    "d], 3 axes [batch, n, heads * d] (see --heads) or 4 axes [batch, heads, n, d]. With the "
    "defaults, the semantics are those of ONNX's operator Attention.",
    (const command_option[]){
        [QUERY] = {"query", "FILE", "The queries (required)."},
        [KEY] = {"key", "FILE", "The keys (required)."},
        [VALUE] = {"value", "FILE", "The values (required)."},
        [OUT] = {"out", "FILE", "Write the answers here, with the axes of the queries."},
        [HEADS] = {"heads", "N", "Heads of queries with 3 axes (default: 1)."},
        [KV_HEADS] = {"kv-heads", "N", "Heads of keys with 3 axes (default: as --heads)."},
        [SCORE] = {"score", "NAME",
                   "scaled-dot (default), dot, cosine, gaussian, laplace or cauchy."},
        [BANDWIDTH] = {"bandwidth", "H[,H..]",
                       "Of the distances: one, or one a coordinate (default: 1)."},
        [SCALE] = {"scale", "S", "Scores are times S (default: scaled-dot 1/sqrt(d), else 1)."},
        [SOFTCAP] = {"softcap", "C", "Scores become C tanh(s / C)."},
        [CAUSAL] = {"causal", NULL, "Query i sees keys up to i + offset."},
        [CAUSAL_OFFSET] = {"causal-offset", "N[,N..]",
                           "The offset, or one a batch item (default: the length of the past; with "
                           "--lengths, length - queries; else 0)."},
        [WINDOW] = {"window", "L,R",
                    "Query i sees keys from i + offset - L to i + offset + R; -1: no bound."},
        [MASK] = {"mask", "FILE",
                  "Boolean (true: attend) or float (added); broadcast, aligned at the right; a "
                  "short last axis hides the rest."},
        [LENGTHS] = {"lengths", "FILE", "int64 [batch]: only the first keys of each item exist."},
        [ALIBI] = {"alibi", "FILE", "[heads] slopes m: m (j - i - offset) is added."},
        [SINK] = {"sink", "FILE", "[heads] logits that take part in the softmax, without value."},
        [PAST_KEY] = {"past-key", "FILE", "[batch, heads, n, d] before the keys."},
        [PAST_VALUE] = {"past-value", "FILE", "The same before the values."},
        [PRESENT_KEY] = {"present-key", "FILE", "Write past and new keys here."},
        [PRESENT_VALUE] = {"present-value", "FILE", "Write past and new values here."},
        [NORMALIZE] =
            {"normalize", "NAME",
             "softmax (default), boxcar, triangular, epanechnikov, biweight, triweight, "
             "tricube, cosine, constant (these with --score gaussian), top-k, top-k-uniform "
             "(nearest neighbours), hard, "
             "uniform, sparsemax, entmax (1.5); none (that is exp), sigmoid, identity: no "
             "sum."},
        [TOP_K] = {"top-k", "N", "How many keys top-k and top-k-uniform select at most."},
        [DROPOUT] = {"dropout", "P",
                     "Drop weights with this probability, the others times 1 / (1 - P)."},
        [SEED] = {"seed", "N", "Which are dropped is a function of it (default: 0)."},
        [WEIGHTS] = {"weights", "FILE", "Write the weights here, [.., queries, keys]."},
        [LSE] = {"lse", "FILE", "Write the log of each row's sum here."},
        [SCORES] = {"scores", "FILE", "Write scores here, [.., queries, keys]."},
        [SCORES_STAGE] = {"scores-stage", "NAME",
                          "raw (default), softcap, bias (hidden: -inf) or weights."},
        [GRAD_OUT] = {"grad-out", "FILE", "The gradient of a loss by the answers."},
        [GRAD_QUERY] = {"grad-query", "FILE", "Write its gradient by the queries here."},
        [GRAD_KEY] = {"grad-key", "FILE", "By the (new) keys."},
        [GRAD_VALUE] = {"grad-value", "FILE", "By the (new) values."},
        [GRAD_MASK] = {"grad-mask", "FILE", "By the float mask, of its shape."},
        [GRAD_BANDWIDTH] = {"grad-bandwidth", "FILE", "By the bandwidths."},
        [GRAD_SCALE] = {"grad-scale", "FILE", "By the scale."},
        [THREADS] = {"threads", "N", "Processors to use (default: all)."},
        {NULL, NULL, NULL}}};

const char *given[OPTIONS];

qkv_score parse_score(const char *name)
{
    static const char *const names[] = {"scaled-dot", "dot",     "cosine",
                                        "gaussian",   "laplace", "cauchy"};
    for (int i = 0; i < 6; i++)
        if (!strcmp(name, names[i])) return (qkv_score)i;
    usage_error("--score: '%s' is none of scaled-dot, dot, cosine, gaussian, laplace, cauchy",
                name);
}

void parse_normalize(const char *name, qkv_attention *a)
{
    static const struct {
        const char *name;
        qkv_normalize normalize;
        qkv_kernel kernel;
    } all[] = {{"softmax", QKV_SOFTMAX, 0},
               {"boxcar", QKV_KERNEL_SUM, QKV_KERNEL_BOXCAR},
               {"triangular", QKV_KERNEL_SUM, QKV_KERNEL_TRIANGULAR},
               {"epanechnikov", QKV_KERNEL_SUM, QKV_KERNEL_EPANECHNIKOV},
               {"biweight", QKV_KERNEL_SUM, QKV_KERNEL_BIWEIGHT},
               {"triweight", QKV_KERNEL_SUM, QKV_KERNEL_TRIWEIGHT},
               {"tricube", QKV_KERNEL_SUM, QKV_KERNEL_TRICUBE},
               {"cosine", QKV_KERNEL_SUM, QKV_KERNEL_COSINE},
               {"constant", QKV_KERNEL_SUM, QKV_KERNEL_CONSTANT},
               {"top-k", QKV_TOP_K, 0},
               {"top-k-uniform", QKV_TOP_K_UNIFORM, 0},
               {"sparsemax", QKV_SPARSEMAX, 0},
               {"entmax", QKV_ENTMAX_15, 0},
               {"hard", QKV_HARD, 0},
               {"uniform", QKV_UNIFORM, 0},
               {"none", QKV_NONE_EXP, 0},
               {"sigmoid", QKV_NONE_SIGMOID, 0},
               {"identity", QKV_NONE_IDENTITY, 0}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(name, all[i].name)) {
            a->normalize = all[i].normalize;
            a->kernel = all[i].kernel;
            return;
        }
    usage_error("--normalize: '%s' is none of softmax, boxcar, triangular, epanechnikov, biweight, "
                "triweight, tricube, cosine, constant, top-k, top-k-uniform, hard, uniform, "
                "sparsemax, entmax, none, sigmoid, identity",
                name);
}

ptrdiff_t parse_list(int option, bool whole, double lower, double upper, double **numbers)
{
    const char *name = attend.options[option].name;
    char *text = print_text("%s", given[option]), *rest = text;
    *numbers = allocate(strlen(text) + 1, sizeof **numbers);
    ptrdiff_t n = 0;
    for (char *part; (part = strsep(&rest, ","));)
        (*numbers)[n++] = whole ? (double)integer_argument(name, part, (long)lower, (long)upper)
                                : number_argument(name, part, lower, upper);
    free(text);
    return n;
}
