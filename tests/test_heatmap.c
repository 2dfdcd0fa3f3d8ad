/* What makes a heatmap readable: texts that fit, numbers on the colour bar, and matrices of more
 * cells than a figure can show. */
#include "support.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../src/label.h"
#include "process.h"
#include "qkv/plot.h"
#include "../src/resample.h"

static void assert_fit(const char *text, double inches, int lines, const char *expected)
{
    char *fitted = qkv_label_fit(text, inches, lines);
    assert_string_equal(fitted, expected);
    free(fitted);
}

static void a_text_is_broken_where_it_can_be_and_cut_where_it_must(void **state)
{
    (void)state;
    assert_fit("", 1, 1, "");
    assert_fit("short", 1, 1, "short");
    assert_fit("two words", 0.6, 2, "two\nwords");
    assert_fit("two words", 0.6, 1, "two w\u2026");
    assert_fit("a\nb\n", 1, 2, "a\nb");
    assert_fit("a\nb\nc", 1, 2, "a\nb\u2026");
    assert_fit("encoder.layers", 0.8, 2, "encoder.\nlayers");
    assert_fit("abcdefghijkl", 0.5, 9, "abcdef\nghijkl");
    assert_fit("abcdefghijkl", 0, 3, "a\nb\n\u2026");
    assert_fit("\xe6\xb3\xa8\xe6\x84\x8f\xe5\x8a\x9b", 0.3, 1, "\xe6\xb3\xa8\u2026");
    assert_fit("\u6ce8\u6ce8\u6ce8", 0.01, 2, "\u6ce8\n\u2026");
    assert_fit("\xff\xff\xff\xff", 0.2, 2, "\xff\xff\n\xff\xff");
}

/* Whatever the text, the lines are as few and as narrow as asked, and no character is halved. */
static void fitted_text_fits(void **state)
{
    (void)state;
    static const char *const parts[] = {"word ",  " ",      "\n",   "i", "W",
                                        "\u00e9", "\u6ce8", "\xff", "-"};
    for (uint64_t seed = 0; seed < 2000; seed++) {
        char text[200] = "";
        int n = (int)uniform(seed, 0, 0, 30), lines = (int)uniform(seed, 1, 1, 5);
        double inches = uniform(seed, 2, 0.26, 2);
        for (int i = 0; i < n; i++)
            strcat(text, parts[(int)uniform(seed, 3 + (uint64_t)i, 0, 8.999)]);
        char *fitted = qkv_label_fit(text, inches, lines);
        assert_true(qkv_label_lines(fitted) <= lines);
        for (const char *line = fitted; line; line = strchr(line, '\n')) {
            line += *line == '\n';
            assert_true(qkv_label_inches(line) <= inches + 1e-9);
        }
        for (const char *s = fitted; *s; s++)
            assert_true(qkv_utf8_length(s) || *(const unsigned char *)s >= 0x80);
        if (!strstr(text, "\xff")) assert_null(strstr(fitted, "\xff"));
        free(fitted);
    }
}

/* The kept script of a heatmap. */
static char *script_of(const double *matrices, const ptrdiff_t *shape, qkv_heatmap_options o)
{
    o.figure.path = scratch("kept.svg");
    o.figure.keep_script = true;
    assert_ok(qkv_show_heatmaps(matrices, shape, &o));
    return read_file(scratch("kept.svg.gp"), NULL);
}

/* The number behind the n-th "name at screen " in script. */
static double margin(const char *script, const char *name, int n)
{
    char key[40];
    snprintf(key, sizeof key, "%s at screen ", name);
    const char *at = strstr(script, key);
    for (; n > 0; n--) at = strstr(at + 1, key);
    assert_non_null(at);
    return strtod(at + strlen(key), NULL);
}

static void titles_of_neighbours_do_not_touch(void **state)
{
    (void)state;
    static const char *const titles[] = {
        "A title of so many words that it is wider than the column that it stands above",
        "encoder.layers.11.self_attention.weights.of.the.eleventh.layer.and.a.few.words.more",
        "An equally long title, which would run into both of the others if nobody broke it"};
    static const double widths[] = {0, 4, 12};
    double m[12] = {1};
    for (int i = 0; i < 3; i++) {
        qkv_heatmap_options o = {.titles = titles, .figure.width = widths[i]};
        char *script = script_of(m, (ptrdiff_t[]){1, 3, 2, 2}, o), *at = script;
        double width = strtod(strstr(script, "size ") + 5, NULL) / 96;
        double pitch = width * (margin(script, "lmargin", 1) - margin(script, "lmargin", 0));
        double above = 1 - margin(script, "tmargin", 0);
        for (int column = 0; column < 3; column++) {
            at = strstr(at, "set title '") + strlen("set title '");
            int lines = 1;
            for (const char *line = at; *line != '\n'; line++) {
                if (line > at && strncmp(line, "'.\"\\n\".'", 8) != 0) continue;
                if (line > at) lines++, line += 8;
                char text[200];
                snprintf(text, sizeof text, "%.*s", (int)strcspn(line, "'\n"), line);
                assert_true(qkv_label_inches(text) < pitch);
            }
            assert_true(lines <= 4);
            double height = strtod(strchr(strstr(script, "size "), ',') + 1, NULL) / 96;
            assert_true(lines * 0.18 < above * height);
        }
        free(script);
    }
}

/* Numbers on the colour bar: their positions, in order. */
static int tics_of(char *script, double *tic)
{
    char *at = strstr(script, "set cbtics");
    assert_non_null(at);
    at = strchr(at, '(');
    int n = 0;
    while (*at == '(' || *at == ',') {
        char text[40];
        assert_int_equal(sscanf(at + 1, " '%39[^']' %lf", text, &tic[n]), 2);
        assert_close(strtod(text, NULL), tic[n], 1e-12 * fabs(tic[n]));
        n++;
        at += strcspn(at + 1, ",)\n") + 1;
    }
    return n;
}

static void the_colour_bar_has_three_to_six_round_numbers(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        double size = exp(uniform(seed, 0, -40, 40)), lower = size * uniform(seed, 1, -1, 1);
        double upper = lower + size * uniform(seed, 2, 1e-4, 1), tic[20];
        static const double special[][2] = {{0, 1},       {0, 0.78},       {-2, 0},
                                            {99, 101},    {-1e300, 1e300}, {3 - 1e-6, 3},
                                            {-1e-200, 1}, {0, 1e-200}};
        if (seed < 8) lower = special[seed][0];
        if (seed < 8) upper = special[seed][1];
        setenv("QKV_GNUPLOT", seed < 8 ? "gnuplot" : "echo", 1); /* the script is what matters */
        double m[4] = {lower, upper, lower, upper};
        char *script = script_of(m, (ptrdiff_t[]){1, 1, 2, 2}, (qkv_heatmap_options){0});
        int n = tics_of(script, tic);
        if (n < 3 || n > 6) print_error("%d numbers from %g to %g\n", n, lower, upper);
        assert_true(n >= 3 && n <= 6);
        double step = tic[1] - tic[0], digit = step / pow(10, floor(log10(step * (1 + 1e-9))));
        assert_true(fabs(digit - 1) < 1e-6 || fabs(digit - 2) < 1e-6 || fabs(digit - 2.5) < 1e-6 ||
                    fabs(digit - 5) < 1e-6);
        for (int i = 0; i < n; i++)
            assert_true(tic[i] >= lower - 1e-6 * step && tic[i] <= upper + 1e-6 * step);
        free(script);
    }
    unsetenv("QKV_GNUPLOT");
}

static void a_sample_is_the_mean_over_its_area(void **state)
{
    (void)state;
    const double m[] = {1, 2, 3, 4, 5, 6, 7, NAN, INFINITY};
    double to[6];
    for (ptrdiff_t i = 0; i < 3; i++) { /* the same grid: the elements themselves */
        qkv_resample_row(m, 3, 3, 0, 10, i, 3, 3, to);
        for (ptrdiff_t j = 0; j < 3; j++)
            assert_close(to[j], i * 3 + j == 8 ? 10 : m[i * 3 + j], 0);
    }
    qkv_resample_row(m, 3, 3, 0, 10, 0, 2, 2, to); /* 1.5 x 1.5 cells each */
    assert_close(to[0], (1 + 2 * 0.5 + 4 * 0.5 + 5 * 0.25) / 2.25, 1e-15);
    assert_close(to[1], (3 + 2 * 0.5 + 6 * 0.5 + 5 * 0.25) / 2.25, 1e-15);
    qkv_resample_row(m, 3, 3, 0, 10, 1, 2, 2, to); /* NaN is left out */
    assert_close(to[1], (10 + 6 * 0.5 + 5 * 0.25) / 1.75, 1e-15);
    qkv_resample_row(m + 7, 1, 1, 0, 10, 0, 1, 2, to);
    assert_true(isnan(to[0]) && isnan(to[1]));
    qkv_resample_row(m, 1, 2, 0, 10, 1, 2, 6, to); /* a finer grid repeats */
    assert_close(to[2], 1, 0);
    assert_close(to[3], 2, 0);
}

enum { LARGE = 1024 };

/* LARGE x LARGE attention weights: softmax of normal scores. */
static double *large_weights(void)
{
    double *w = malloc(sizeof *w * LARGE * LARGE);
    fill_normal(w, LARGE * LARGE, 3);
    for (int i = 0; i < LARGE; i++) {
        double sum = 0;
        for (int j = 0; j < LARGE; j++) sum += w[i * LARGE + j] = exp(2 * w[i * LARGE + j]);
        for (int j = 0; j < LARGE; j++) w[i * LARGE + j] /= sum;
    }
    return w;
}

static void a_large_matrix_is_a_small_file(void **state)
{
    (void)state;
    double *w = large_weights();
    static const ptrdiff_t shapes[][4] = {{1, 1, LARGE, LARGE}, {4, 4, LARGE / 4, LARGE / 4}};
    for (int i = 0; i < 2; i++) {
        char *script = script_of(w, shapes[i], (qkv_heatmap_options){.upper = 0.005});
        assert_null(strstr(script, "image pixels"));
        free(script);
        size_t bytes;
        char *svg = read_file(scratch("kept.svg"), &bytes);
        assert_true(bytes < 2000000);
        assert_non_null(strstr(svg, "<image"));
        free(svg);
    }
    free(w);
}

/* Every element counts as much as any other, and the scale and the axes are the elements'. */
static void a_large_matrix_keeps_its_mean_scale_and_axes(void **state)
{
    (void)state;
    double *w = large_weights(), largest = 0, sum = 0, upper;
    for (int i = 0; i < LARGE * LARGE; i++) largest = fmax(largest, w[i]);
    char *script = script_of(w, (ptrdiff_t[]){1, 1, LARGE, LARGE}, (qkv_heatmap_options){0});
    assert_int_equal(sscanf(strstr(script, "set cbrange"), "set cbrange [%*[^:]:%lf]", &upper), 1);
    assert_close(upper, largest, 1e-12);
    assert_non_null(strstr(script, "set xrange [-0.5:1023.5]"));
    assert_non_null(strstr(script, "set yrange [1023.5:-0.5]"));
    char *data = read_file(scratch("kept.svg.dat"), NULL), *at = data;
    int n = 0;
    for (char *end;; n++, at = end) {
        double x = strtod(at, &end);
        if (end == at) break;
        sum += x;
    }
    assert_true(n > 300 * 300 && n < LARGE * LARGE);
    assert_close(sum / n, 1.0 / LARGE, 1e-9);
    double stretch = strtod(strstr(script, "(($1+0.5)*") + strlen("(($1+0.5)*"), NULL);
    assert_close(stretch, LARGE / sqrt(n), 1e-9);
    free(data);
    free(script);
    free(w);
}

static void a_large_matrix_fits_a_terminal(void **state)
{
    (void)state;
    static double m[300 * 200];
    for (int i = 0; i < 300 * 200; i++) m[i] = i % 200 < 100;
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    assert_ok(qkv_show_heatmaps(m, (ptrdiff_t[]){1, 1, 300, 200},
                                &(qkv_heatmap_options){.figure.text = f}));
    fclose(f);
    int lines = 0;
    for (const char *s = text; *s; s++) lines += *s == '\n';
    assert_int_equal(lines, 42); /* the matrix, a blank one, the legend */
    assert_non_null(strstr(text, "the mean of 7.5 x 7.41 cells"));
    for (int i = 0; i < 13; i++) assert_memory_equal(text + 3 * 2 * i, "\u2588\u2588", 6);
    assert_int_equal(text[3 * 2 * 13 + 6], ' ');
    free(text);
}

static void a_long_matrix_is_no_hairline(void **state)
{
    (void)state;
    static double m[6000];
    for (int i = 0; i < 6000; i++) m[i] = i % 7;
    static const ptrdiff_t shapes[][4] = {{1, 1, 2, 3000}, {1, 1, 3000, 2}, {1, 1, 1, 19}};
    static const double ratios[] = {20, 0.05, 19}; /* the last has square cells still */
    for (int i = 0; i < 3; i++) {
        char *script = script_of(m, shapes[i], (qkv_heatmap_options){0}), *end;
        double w = strtod(strstr(script, "size ") + 5, &end), h = strtod(end + 1, NULL);
        w *= margin(script, "rmargin", 0) - margin(script, "lmargin", 0);
        h *= margin(script, "tmargin", 0) - margin(script, "bmargin", 0);
        assert_close(w / h, ratios[i], 0.02 * ratios[i]);
        assert_true(fmin(w, h) > 0.15 * 96);
        free(script);
    }
}

static void assert_scale(double element, double other, double lower, double upper)
{
    const double m[] = {element, other, element, element};
    char *script = script_of(m, (ptrdiff_t[]){1, 1, 2, 2}, (qkv_heatmap_options){0});
    double scale[2];
    assert_int_equal(
        sscanf(strstr(script, "set cbrange"), "set cbrange [%lf:%lf]", scale, scale + 1), 2);
    assert_close(scale[0], lower, 0);
    assert_close(scale[1], upper, 0);
    free(script);
}

static void a_constant_matrix_has_zero_at_the_other_end_of_its_scale(void **state)
{
    (void)state;
    assert_scale(7, 7, 0, 7);
    assert_scale(-3, -3, -3, 0);
    assert_scale(0, 0, 0, 1);
    assert_scale(NAN, NAN, 0, 1);
    assert_scale(7, 7 + 1e-15, 0, 7); /* rounding is no variation */
    assert_scale(5e-324, 0, 0, 1);
    assert_scale(1e307, -1e307, -1e307, 1e307);
}

static void a_scale_beyond_double_is_refused(void **state)
{
    (void)state;
    const double m[] = {1e308, -1e308, 0, 1};
    qkv_heatmap_options o = {.figure.path = scratch("far.svg")};
    assert_status(qkv_show_heatmaps(m, (ptrdiff_t[]){1, 1, 2, 2}, &o), QKV_E_DOMAIN);
    assert_message("from -1e+308 to 1e+308");
    assert_int_equal(scratch_count("far.svg"), 0);
    o.upper = 1; /* elements beyond a scale that is given are its ends */
    assert_ok(qkv_show_heatmaps(m, (ptrdiff_t[]){1, 1, 2, 2}, &o));
}

static void axes_count_what_they_are_told_to(void **state)
{
    (void)state;
    const double m[32] = {1};
    const qkv_heatmap_options o = {.x_range = {100, 500},
                                   .y_range = {-0.5, 0.5},
                                   .y_labels = (const char *[]){"first row", "second row"}};
    char *script = script_of(m, (ptrdiff_t[]){2, 1, 4, 4}, o);
    assert_non_null(strstr(script, "set xrange [100:500] noextend"));
    assert_non_null(strstr(script, "set yrange [0.5:-0.5] noextend"));
    assert_non_null(strstr(script, "using (($1+0.5)*100+100):"));
    assert_non_null(strstr(script, "set xtics norotate 100\n"));
    const char *first = strstr(script, "set label 1 'first row'");
    assert_non_null(first);
    assert_non_null(strstr(first, "set label 1 'second row'"));
    free(script);
}

static void an_axis_may_fall(void **state)
{
    (void)state;
    const double m[32] = {1};
    const qkv_heatmap_options o = {.x_range = {500, 100}, .y_range = {0.5, -0.5}};
    char *script = script_of(m, (ptrdiff_t[]){2, 1, 4, 4}, o);
    assert_non_null(strstr(script, "set xrange [500:100] noextend"));
    assert_non_null(strstr(script, "set yrange [-0.5:0.5] noextend"));
    assert_non_null(strstr(script, "using (($1+0.5)*-100+500):(($2+0.5)*-0.25+0.5):3"));
    assert_non_null(strstr(script, "set xtics norotate 100\n"));
    assert_non_null(strstr(script, "set format x '%.6g'"));
    free(script);
}

static void a_title_does_not_steer_the_terminal(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    const double m[4] = {1};
    const char *hostile[] = {"a\033[2J\xc2\x9b\xff\nb\u00e9", "\a"};
    const qkv_heatmap_options o = {.figure.text = f,
                                   .titles = hostile,
                                   .y_ticks = hostile,
                                   .y_labels = hostile,
                                   .x_label = hostile[0],
                                   .y_label = hostile[0]};
    assert_ok(qkv_show_heatmaps(m, (ptrdiff_t[]){1, 1, 2, 2}, &o));
    fclose(f);
    assert_non_null(strstr(text, "a?[2J??\nb\u00e9\n"));
    assert_null(strpbrk(text, "\033\a\xff\x9b"));
    free(text);
}

static void a_closed_standard_input_is_no_obstacle(void **state)
{
    (void)state;
    int kept = dup(STDIN_FILENO);
    close(STDIN_FILENO);
    double m[4] = {1, 0, 0, 1};
    qkv_heatmap_options o = {.figure.path = scratch("closed.svg")};
    qkv_status status = qkv_show_heatmaps(m, (ptrdiff_t[]){1, 1, 2, 2}, &o);
    dup2(kept, STDIN_FILENO);
    close(kept);
    assert_ok(status);
    char *svg = read_file(o.figure.path, NULL);
    assert_non_null(strstr(svg, "</svg>"));
    free(svg);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_is_broken_where_it_can_be_and_cut_where_it_must),
        cmocka_unit_test(fitted_text_fits),
        cmocka_unit_test(titles_of_neighbours_do_not_touch),
        cmocka_unit_test(the_colour_bar_has_three_to_six_round_numbers),
        cmocka_unit_test(a_sample_is_the_mean_over_its_area),
        cmocka_unit_test(a_large_matrix_is_a_small_file),
        cmocka_unit_test(a_large_matrix_keeps_its_mean_scale_and_axes),
        cmocka_unit_test(a_large_matrix_fits_a_terminal),
        cmocka_unit_test(a_long_matrix_is_no_hairline),
        cmocka_unit_test(a_constant_matrix_has_zero_at_the_other_end_of_its_scale),
        cmocka_unit_test(a_scale_beyond_double_is_refused),
        cmocka_unit_test(axes_count_what_they_are_told_to),
        cmocka_unit_test(an_axis_may_fall),
        cmocka_unit_test(a_title_does_not_steer_the_terminal),
        cmocka_unit_test(a_closed_standard_input_is_no_obstacle)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
