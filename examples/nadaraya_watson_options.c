/* nadaraya_watson_options.c - the options of nadaraya_watson, and what their arguments mean. */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "nadaraya_watson.h"

enum {
    DATA,
    X,
    Y,
    CLASSIFY,
    CASE_WEIGHT,
    KERNEL,
    PRODUCT,
    EDGE,
    DEGREE,
    BANDWIDTH,
    CONVENTION,
    SELECT,
    OPTIMIZER,
    ROWS,
    AT,
    GRID,
    PREDICT,
    EMPTY,
    BANDS,
    BOOTSTRAP,
    WEIGHTS,
    REPORT,
    PLOT,
    FORMAT,
    SAVE,
    LOAD,
    THREADS,
    SEED,
    OPTIONS
};

static const command_option options[] = {
    [DATA] = {"data", "FILE",
              "CSV to learn from, - for standard input; separated by comma, semicolon or tab, with "
              "a header or without (default: the toy data)."},
    [X] = {"x", "A[,B]",
           "Columns to predict from, by name or number from 1 (default: all other columns of "
           "numbers)."},
    [Y] = {"y", "C[,D]", "Columns to predict (default: the last column of numbers)."},
    [CLASSIFY] = {"classify", NULL,
                  "y is one column of labels, text or numbers: predict the probability of each."},
    [CASE_WEIGHT] = {"case-weight", "COL", "Column with the weight of each row, 0 or more."},
    [KERNEL] = {"kernel", "NAME",
                "gaussian (default), boxcar, triangular, epanechnikov, biweight, triweight, "
                "tricube, cosine, laplace, cauchy, constant; all: the best of them."},
    [PRODUCT] = {"product", NULL,
                 "Several columns: the product of their kernels, not the kernel of the distance."},
    [EDGE] = {"edge", "WHICH", "A boxcar's edge: closed (default) or open."},
    [DEGREE] = {"degree", "0|1", "0: the weighted mean (default); 1: the local line."},
    [BANDWIDTH] = {"bandwidth", "H[,H]",
                   "auto: learned (default); silverman: the rule of thumb; or numbers, one for all "
                   "columns or one each."},
    [CONVENTION] = {"convention", "TOOL",
                    "Whose bandwidths the numbers are: ksmooth, np, statsmodels or locfit."},
    [SELECT] = {"select", "NAME",
                "What the bandwidth is learned by: loo (leave-one-out error, default), aicc or "
                "gcv."},
    [OPTIMIZER] = {"optimizer", "NAME", "How: lbfgs (default), adam or gd (gradient descent)."},
    [ROWS] = {"rows", "N",
              "Learn and measure by the fits of N rows, which stand for the others; 0: all "
              "(default: 10000 if there are more than 50000). A fit is always of all data."},
    [AT] =
        {"at", "FILE",
         "Predict at the rows of this CSV, - for standard input. With a header it has the columns "
         "of x by name, among others; without one it has them alone, in the order of --x, or is "
         "laid out as data without a header were."},
    [GRID] = {"grid", "N", "Predict at N numbers over the range of each column of x."},
    [PREDICT] =
        {"predict", "FILE",
         "Write the predictions to this CSV, - for standard output (without --at and --grid: "
         "of the rows of the data, one for each)."},
    [EMPTY] = {"empty", "POLICY",
               "Where no row is in reach of a kernel: nan (default), nearest or error."},
    [BANDS] = {"bands", "P", "Level of lower and upper, pointwise (default: 0.95)."},
    [BOOTSTRAP] = {"bootstrap", "N", "lower and upper from N resamples, not from normal errors."},
    [WEIGHTS] =
        {"weights", "FILE",
         "Write the weights to this .npy, float64 [queries, rows without missing cells], at most "
         "2 GB."},
    [REPORT] =
        {"report", "FILE",
         "Write everything found as JSON, - for standard output (bandwidth: a number for one "
         "column of x, a list for several)."},
    [PLOT] = {"plot", "DIR",
              "Draw figures into DIR (default: figures for the toy data, none for others; '' for "
              "none)."},
    [FORMAT] = {"format", "FORMAT", "Format of the figures: svg (default), png or pdf."},
    [SAVE] = {"save", "FILE", "Write the model, data and all."},
    [LOAD] = {"load", "FILE", "Predict with a saved model instead of learning."},
    [THREADS] = {"threads", "N", "Processors to use (default: all)."},
    [SEED] = {"seed", "N", "Of the toy data and of --bootstrap (default: 1)."},
    {NULL, NULL, NULL}};

static const command program = {
    .usage = "",
    .summary =
        "Nadaraya-Watson kernel regression: attention with data for keys and values, its bandwidth "
        "learned. Without --data it is the chapter: y = 2 sin x + x + noise under four kernels and "
        "four widths. Rows with an empty or NA cell are left out, and counted. Predictions have "
        "the columns x, then mean, se, lower, upper, n_effective (how many rows it rests on: below "
        "2 is extrapolation) and grad_NAME for each x; several y: mean_NAME and so on; --classify: "
        "p_LABEL, then class. A column of x with the name of one of these is x_NAME there.",
    .options = options};

static const char *given[OPTIONS]; /* the arguments, "" for those without; NULL: absent */

/* Splits "a,b" in place. */
static long split(int option, char *text, const char **parts)
{
    long n = 0;
    for (char *part; (part = strsep(&text, ","));) {
        if (n == MAX_COLUMNS)
            usage_error("--%s has more than %d parts", options[option].name, MAX_COLUMNS);
        parts[n++] = text_argument(options[option].name, part);
    }
    return n;
}

/* Which of the n names it is. */
static int choice(int option, const char *const *names, int n)
{
    char all[200] = "";
    for (int i = 0; i < n; i++) {
        if (strcmp(given[option], names[i]) == 0) return i;
        strcat(strcat(all, i ? ", " : ""), names[i]);
    }
    usage_error("--%s: '%s' is none of %s", options[option].name, given[option], all);
}

const char *criterion_name(qkv_regression_criterion criterion)
{
    static const char *const names[] = {"loo", "aicc", "gcv"};
    return names[criterion];
}

static void read_kernel(settings *o)
{
    const char *names[KERNELS + 1];
    for (int k = 0; k < KERNELS; k++)
        names[k] = qkv_regression_kernel_name((qkv_regression_kernel)k);
    names[KERNELS] = "all";
    int k = choice(KERNEL, names, KERNELS + 1);
    o->every_kernel = k == KERNELS;
    o->kernel = o->every_kernel ? QKV_REGRESSION_GAUSSIAN : (qkv_regression_kernel)k;
}

static void read_bandwidth(settings *o, char *text)
{
    o->rule = strcmp(text, "auto") == 0        ? AUTO
              : strcmp(text, "silverman") == 0 ? SILVERMAN
                                               : NUMBERS;
    if (o->rule != NUMBERS) return;
    const char *parts[MAX_COLUMNS];
    o->n_h = split(BANDWIDTH, text, parts);
    for (long c = 0; c < o->n_h; c++)
        o->h[c] = number_argument("bandwidth", parts[c], 2.3e-308, 1.7e308);
}

static void read_choices(settings *o)
{
    static const char *const edges[] = {"closed", "open"},
                             *const tools[] = {"ksmooth", "np", "statsmodels", "locfit"},
                             *const criteria[] = {"loo", "aicc", "gcv"},
                             *const optimizers[] = {"lbfgs", "adam", "gd"},
                             *const policies[] = {"nan", "nearest", "error"};
    if (given[KERNEL]) read_kernel(o);
    o->product = given[PRODUCT] != NULL;
    if (given[EDGE]) o->open_edge = choice(EDGE, edges, 2) == 1;
    if (given[DEGREE]) o->degree = integer_argument("degree", given[DEGREE], 0, 1);
    o->converts = given[CONVENTION] != NULL;
    if (o->converts) o->convention = (qkv_regression_convention)choice(CONVENTION, tools, 4);
    if (given[SELECT]) o->criterion = (qkv_regression_criterion)choice(SELECT, criteria, 3);
    if (given[OPTIMIZER]) o->optimizer = (qkv_regression_optimizer)choice(OPTIMIZER, optimizers, 3);
    o->sets_empty = given[EMPTY] != NULL;
    if (o->sets_empty) o->empty = (qkv_empty)choice(EMPTY, policies, 3);
}

static void read_numbers(settings *o)
{
    if (given[GRID]) o->grid = integer_argument("grid", given[GRID], 2, 10000000);
    o->level = given[BANDS] ? number_argument("bands", given[BANDS], 1e-9, 1 - 1e-9) : 0.95;
    if (given[BOOTSTRAP]) o->samples = integer_argument("bootstrap", given[BOOTSTRAP], 2, 10000000);
    o->rows = given[ROWS] ? integer_argument("rows", given[ROWS], 0, 1L << 62) : -1;
    o->seed = given[SEED] ? integer_argument("seed", given[SEED], 0, 1L << 62) : 1;
    if (given[THREADS])
        check(qkv_set_num_threads((int)integer_argument("threads", given[THREADS], 1, 4096)));
}

static void read_files(settings *o)
{
    static const int files[] = {DATA, AT, PREDICT, REPORT, WEIGHTS, SAVE, LOAD, CASE_WEIGHT};
    const char **to[] = {&o->data,    &o->at,   &o->predict, &o->report,
                         &o->weights, &o->save, &o->load,    &o->case_weight};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (given[files[i]]) *to[i] = text_argument(options[files[i]].name, given[files[i]]);
    o->plot = given[PLOT] ? given[PLOT] : o->data || o->load ? "" : "figures";
    if (!*o->plot) o->plot = NULL;
    o->format = given[FORMAT] ? format_argument("format", given[FORMAT]) : "svg";
}

static void refuse(int option, bool when, const char *why)
{
    if (given[option] && when) usage_error("--%s %s", options[option].name, why);
}

static bool is_standard(int option)
{
    return given[option] && !strcmp(given[option], "-");
}

/* What is written must not replace what is read, nor what is written besides. */
static void check_files(void)
{
    static const int files[] = {DATA, AT, LOAD, PREDICT, REPORT, WEIGHTS, SAVE};
    enum { READ = 3, FILES = sizeof files / sizeof *files };
    expect_different_files(options, given, files, READ, FILES);
}

/* "-" is a stream where text goes through it; a file of that name would be a surprise. */
static void check_streams(void)
{
    static const int others[] = {LOAD, WEIGHTS, SAVE, PLOT};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (is_standard(others[i]))
            usage_error("--%s: '-' is a stream only to --data, --at, --predict and --report: "
                        "expected a path",
                        options[others[i]].name);
    if (is_standard(DATA) && is_standard(AT))
        usage_error("--data and --at cannot both be the standard input");
    if (is_standard(PREDICT) && is_standard(REPORT))
        usage_error("--predict and --report cannot both be the standard output");
    if (is_standard(PREDICT) || is_standard(REPORT)) leave_stdout_to_data();
}

/* Not every tool has every kernel. */
static void check_convention(const settings *o)
{
    double unused;
    if (!qkv_regression_from_convention(o->convention, o->kernel, 1, &unused)) return;
    char all[256] = "";
    for (int k = 0; k < KERNELS; k++) {
        qkv_regression_kernel kernel = (qkv_regression_kernel)k;
        size_t n = strlen(all);
        if (!qkv_regression_from_convention(o->convention, kernel, 1, &unused))
            snprintf(all + n, sizeof all - n, "%s%s", n ? ", " : "",
                     qkv_regression_kernel_name(kernel));
    }
    usage_error("--convention %s has no %s kernel, but %s", given[CONVENTION],
                qkv_regression_kernel_name(o->kernel), all);
}

/* An option that would have no effect is a mistake of somebody. */
static void check_options(const settings *o)
{
    static const int of_data[] = {X, Y, CLASSIFY, CASE_WEIGHT};
    static const int of_learning[] = {DATA,      KERNEL,     PRODUCT, EDGE,      DEGREE,
                                      BANDWIDTH, CONVENTION, SELECT,  OPTIMIZER, SAVE};
    for (size_t i = 0; i < sizeof of_data / sizeof *of_data; i++)
        refuse(of_data[i], !o->data, "needs --data");
    for (size_t i = 0; i < sizeof of_learning / sizeof *of_learning; i++)
        refuse(of_learning[i], o->load,
               "and --load do not go together: the model is as it was saved");
    refuse(CLASSIFY, o->n_y != 1, "needs --y, one column");
    refuse(EDGE, o->kernel != QKV_REGRESSION_BOXCAR && !o->every_kernel,
           "goes with --kernel boxcar: no other has an edge");
    refuse(CONVENTION, o->rule != NUMBERS, "goes with numbers in --bandwidth");
    if (o->converts) check_convention(o);
    refuse(SELECT, o->rule == NUMBERS && !o->every_kernel,
           "chooses a bandwidth: it does not go with numbers in --bandwidth");
    refuse(OPTIMIZER, o->rule != AUTO, "goes with --bandwidth auto");
    if (o->every_kernel && o->rule == NUMBERS)
        usage_error("--kernel all goes with --bandwidth auto or silverman: one number does not "
                    "suit all kernels");
    refuse(AT, o->grid, "and --grid do not go together");
    bool asked = o->predict || o->weights || o->report;
    refuse(AT, !asked, "goes with --predict, --weights or --report");
    refuse(GRID, !asked && !o->plot, "goes with --predict, --weights, --report or --plot");
    if (o->load && !asked && !o->plot)
        usage_error("--load goes with --predict, --weights, --report or --plot");
    check_streams();
    check_files();
}

settings read_settings(int argc, char **argv)
{
    settings o = {0};
    char *x = NULL, *y = NULL, *h = NULL; /* to be split */
    for (int i; (i = command_next(&program, argc, argv)) >= 0;) {
        given[i] = options[i].argument ? optarg : "";
        if (i == X) x = optarg;
        if (i == Y) y = optarg;
        if (i == BANDWIDTH) h = optarg;
    }
    if (optind < argc) usage_error("unexpected argument '%s'", argv[optind]);
    read_files(&o);
    o.n_x = x ? split(X, x, o.x) : 0;
    o.n_y = y ? split(Y, y, o.y) : 0;
    o.classify = given[CLASSIFY] != NULL;
    read_choices(&o);
    if (h) read_bandwidth(&o, h);
    read_numbers(&o);
    check_options(&o);
    return o;
}
