/* heatmap - the chapter's figure: matrices of attention weights as colours. */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common.h"
#include "qkv/npy.h"
#include "qkv/plot.h"

enum { OUTPUT, PALETTE, TITLE, XLABEL, YLABEL, SIZE, SCALE, KEEP_SCRIPT };

static const command heatmap = {
    "[FILE.npy]",
    "Draws matrices of attention weights, [queries, keys], [columns, queries, keys] or [rows, "
    "columns, queries, keys] of any real type, on one colour scale. Without a file: "
    "the chapter's identity matrix, 10 queries by 10 keys.",
    (const command_option[]){
        [OUTPUT] = {"output", "FILE", "Draw into FILE (.svg, .png or .pdf), not the terminal."},
        [PALETTE] = {"palette", "NAME", "Reds (default), viridis, Blues or Greys."},
        [TITLE] = {"title", "TEXT", "Title of a column; repeat it for the next column."},
        [XLABEL] = {"xlabel", "TEXT", "Label below the bottom row (default: Keys)."},
        [YLABEL] = {"ylabel", "TEXT", "Label beside the first column (default: Queries)."},
        [SIZE] = {"size", "W,H", "Size of the figure in inches (default: fitted)."},
        [SCALE] = {"scale", "LOW,HIGH",
                   "Colours run from LOW to HIGH (default: the least and greatest element)."},
        [KEEP_SCRIPT] = {"keep-script", NULL,
                         "Also write FILE.gp and FILE.dat, to draw again with gnuplot."},
        {NULL, NULL, NULL}}};

static qkv_palette parse_palette(const char *name)
{
    static const char *const names[] = {"Reds", "viridis", "Blues", "Greys"};
    static const qkv_palette palettes[] = {QKV_REDS, QKV_VIRIDIS, QKV_BLUES, QKV_GREYS};
    for (int i = 0; i < 4; i++)
        if (strcasecmp(name, names[i]) == 0) return palettes[i];
    usage_error("--palette: '%s' is none of Reds, viridis, Blues, Greys", name);
}

static void parse_pair(const char *option, char *text, const char *form, double low, double high,
                       double *first, double *second)
{
    char *comma = strchr(text, ',');
    if (!comma) usage_error("--%s: '%s' is not %s", option, text, form);
    *comma = '\0';
    *first = number_argument(option, text, low, high);
    *second = number_argument(option, comma + 1, low, high);
}

static double *load_matrices(const char *path, ptrdiff_t shape[4])
{
    qkv_npy array;
    check(qkv_npy_load(&array, path));
    if (array.rank < 2 || array.rank > 4)
        fail_with("%s has %d ax%s, expected 2 to 4", path, array.rank,
                  array.rank == 1 ? "is" : "es");
    for (int i = 0; i < 4; i++) shape[i] = i < 4 - array.rank ? 1 : array.dim[i - (4 - array.rank)];
    size_t n = qkv_npy_size(&array);
    for (int i = 0; i < array.rank; i++)
        if (array.dim[i] == 0)
            fail_with("%s: axis %d of %d has size 0: there is nothing to draw", path, i,
                      array.rank);
    double *matrices = allocate(n, sizeof *matrices);
    for (size_t i = 0; i < n; i++) matrices[i] = qkv_npy_element(&array, i);
    qkv_npy_free(&array);
    return matrices;
}

static double *identity(ptrdiff_t n, ptrdiff_t shape[4])
{
    double *matrix = allocate((size_t)(n * n), sizeof *matrix);
    for (ptrdiff_t i = 0; i < n; i++) matrix[i * n + i] = 1;
    shape[0] = shape[1] = 1;
    shape[2] = shape[3] = n;
    return matrix;
}

int main(int argc, char **argv)
{
    clean_up_on_signals();
    qkv_heatmap_options options = {.x_label = "Keys", .y_label = "Queries"};
    const char *figure = NULL; /* an option that text has no use for */
    const char **titles = allocate((size_t)argc, sizeof *titles);
    ptrdiff_t n_titles = 0, shape[4];
    for (int option; (option = command_next(&heatmap, argc, argv)) >= 0;) {
        if (option == OUTPUT) options.figure.path = path_argument("output", optarg);
        if (option == PALETTE || option == SIZE || option == KEEP_SCRIPT)
            figure = heatmap.options[option].name;
        if (option == PALETTE) options.palette = parse_palette(optarg);
        if (option == TITLE) titles[n_titles++] = optarg;
        if (option == XLABEL) options.x_label = optarg;
        if (option == YLABEL) options.y_label = optarg;
        if (option == SIZE)
            parse_pair("size", optarg, "WIDTH,HEIGHT", 0.5, 100, &options.figure.width,
                       &options.figure.height);
        if (option == SCALE)
            parse_pair("scale", optarg, "LOW,HIGH", -1e300, 1e300, &options.lower, &options.upper);
        if (option == KEEP_SCRIPT) options.figure.keep_script = true;
    }
    if (argc - optind > 1) usage_error("more than one file: %s", argv[optind + 1]);
    if (figure && !options.figure.path) usage_error("--%s needs --output", figure);

    if (optind < argc && !strcmp(argv[optind], "-"))
        usage_error("'-' is no stream here: expected a path");
    double *matrices = optind < argc ? load_matrices(argv[optind], shape) : identity(10, shape);
    if (n_titles > shape[1]) {
        free(matrices);
        usage_error("--title: %td titles for %td column%s", n_titles, shape[1],
                    shape[1] == 1 ? "" : "s");
    }
    if (n_titles > 0) {
        titles = realloc(titles, (size_t)shape[1] * sizeof *titles);
        if (!titles) fail_with("out of memory");
        for (ptrdiff_t i = n_titles; i < shape[1]; i++) titles[i] = NULL;
        options.titles = titles;
    }
    check(qkv_show_heatmaps(matrices, shape, &options));
    if (options.figure.path) say("wrote %s", options.figure.path);
    free(matrices);
    free(titles);
    return finish();
}
