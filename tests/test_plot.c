#include "support.h"

#include <locale.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "process.h"
#include "qkv/plot.h"

static const double eye[] = {1, 0, 0, 0, 1, 0};
static const ptrdiff_t eye_shape[4] = {1, 1, 2, 3};

static qkv_heatmap_options to(const char *name)
{
    return (qkv_heatmap_options){.figure.path = scratch(name)};
}

static int count(const char *text, const char *part)
{
    int n = 0;
    for (; (text = strstr(text, part)); text += strlen(part)) n++;
    return n;
}

static void assert_contains(const char *text, const char *part)
{
    if (text && strstr(text, part)) return;
    print_error("no \"%s\" in:\n%s\n", part, text ? text : "nothing");
    fail();
}

/* The kept script of a heatmap. */
static char *heatmap_script(const double *matrices, const ptrdiff_t *shape, qkv_heatmap_options o)
{
    o.figure.path = scratch("kept.svg");
    o.figure.keep_script = true;
    assert_ok(qkv_show_heatmaps(matrices, shape, &o));
    return read_file(scratch("kept.svg.gp"), NULL);
}

static void an_svg_is_one_well_formed_document(void **state)
{
    (void)state;
    qkv_heatmap_options o = to("eye.svg");
    o.titles = (const char *[]){"a < b & \"c\" > 'd' \x01\xff\xc3"};
    assert_ok(qkv_show_heatmaps(eye, eye_shape, &o));
    char *svg = read_file(o.figure.path, NULL);
    assert_contains(svg, "<svg");
    assert_contains(svg, "</svg>");
    assert_contains(svg, "???");
    free(svg);
    const char *argv[] = {"rsvg-convert", "--output", scratch("eye.png"), o.figure.path, NULL};
    ran r = run(argv, NULL);
    if (r.exit_code != 127) assert_int_equal(r.exit_code, 0); /* 127: not installed */
    ran_free(&r);
    struct stat info;
    assert_int_equal(stat(o.figure.path, &info), 0);
    assert_int_equal(info.st_mode & 0600, 0600);
    assert_int_equal(scratch_count(".tmp"), 0);
}

static void png_and_pdf_follow_the_extension(void **state)
{
    (void)state;
    qkv_heatmap_options o = to("eye.PNG");
    o.figure.width = 3;
    o.figure.height = 2;
    assert_ok(qkv_show_heatmaps(eye, eye_shape, &o));
    size_t bytes;
    char *file = read_file(o.figure.path, &bytes);
    assert_memory_equal(file, "\x89PNG", 4);
    const unsigned char size[] = {0, 0, 3 * 192 / 256, 3 * 192 % 256,
                                  0, 0, 2 * 192 / 256, 2 * 192 % 256};
    assert_memory_equal(file + 16, size, sizeof size);
    free(file);
    o = to("eye.pdf");
    assert_ok(qkv_show_heatmaps(eye, eye_shape, &o));
    file = read_file(o.figure.path, &bytes);
    assert_memory_equal(file, "%PDF", 4);
    free(file);
    o = to("eye.jpg");
    assert_status(qkv_show_heatmaps(eye, eye_shape, &o), QKV_E_ARG);
    assert_message("eye.jpg");
    assert_int_equal(scratch_count(".jpg"), 0);
}

static void axes_are_shared_and_the_scale_is_common(void **state)
{
    (void)state;
    double m[3 * 2 * 2 * 2];
    for (int i = 0; i < 24; i++) m[i] = i;
    qkv_heatmap_options o = {.x_label = "Keys",
                             .y_label = "Queries",
                             .titles = (const char *[]){"left", "right"},
                             .palette = QKV_BLUES};
    char *script = heatmap_script(m, (ptrdiff_t[]){3, 2, 2, 2}, o);
    assert_int_equal(count(script, "set xlabel 'Keys'"), 2);
    assert_int_equal(count(script, "set label 1 'Queries'"), 3);
    assert_int_equal(count(script, "set format x '%.6g'"), 2);
    assert_int_equal(count(script, "set format y '%.6g'"), 3);
    assert_int_equal(count(script, "set title 'left'"), 1);
    assert_int_equal(count(script, "set title 'right'"), 1);
    assert_int_equal(count(script, "\nplot "), 6);
    assert_int_equal(count(script, "\nset colorbox"), 1);
    assert_contains(script, "set cbrange [0:23]");
    assert_contains(script, "set yrange [1.5:-0.5]"); /* query 0 at the top */
    assert_contains(script, "#08306b");
    /* The colour bar belongs to the first panel alone. */
    const char *unset = strstr(script, "unset colorbox");
    assert_non_null(unset);
    assert_true(unset < strstr(script, "index 1 "));
    free(script);
    char *data = read_file(scratch("kept.svg.dat"), NULL);
    assert_contains(data, "4 5 \n6 7 \n\n\n8 9 \n");
    free(data);
}

/* The number behind the first "name at screen " in script. */
static double margin(const char *script, const char *name)
{
    const char *at = strstr(script, name);
    assert_non_null(at);
    return strtod(at + strlen(name) + strlen(" at screen "), NULL);
}

static void cells_are_square_in_any_figure(void **state)
{
    (void)state;
    static const double sizes[][2] = {{0, 0}, {8, 3}, {3, 8}};
    for (size_t i = 0; i < 3; i++) {
        qkv_heatmap_options o = {.figure.width = sizes[i][0], .figure.height = sizes[i][1]};
        char *script = heatmap_script(eye, eye_shape, o);
        const char *size = strstr(script, "size ");
        char *end;
        double w = strtod(size + 5, &end), h = strtod(end + 1, NULL);
        double panel_w = w * (margin(script, "rmargin") - margin(script, "lmargin"));
        double panel_h = h * (margin(script, "tmargin") - margin(script, "bmargin"));
        assert_close(panel_w / 3, panel_h / 2, 0.01 * panel_w);
        if (i > 0) assert_close(w, 96 * sizes[i][0], 0.5);
        if (i > 0) assert_close(h, 96 * sizes[i][1], 0.5);
        free(script);
    }
    qkv_heatmap_options o = to("small.svg");
    o.figure.width = 0.5;
    assert_status(qkv_show_heatmaps(eye, eye_shape, &o), QKV_E_ARG);
    assert_message("no room");
}

static void nan_is_a_hole_and_infinity_the_end_of_the_scale(void **state)
{
    (void)state;
    const double m[] = {NAN, 2, INFINITY, -INFINITY, 5, 3};
    char *script = heatmap_script(m, eye_shape, (qkv_heatmap_options){0});
    assert_contains(script, "set cbrange [2:5]");
    assert_contains(script, "'#e0e0e0'");
    free(script);
    char *data = read_file(scratch("kept.svg.dat"), NULL);
    assert_contains(data, "NaN 2 5 \n2 5 3 \n");
    free(data);
    script = heatmap_script(eye, eye_shape, (qkv_heatmap_options){.lower = -1, .upper = 0.5});
    assert_contains(script, "set cbrange [-1:0.5]");
    assert_null(strstr(script, "#e0e0e0"));
    free(script);
    const double none[] = {NAN, NAN, NAN, NAN, NAN, NAN}, flat[] = {-2, -2, -2, -2, -2, -2};
    script = heatmap_script(none, eye_shape, (qkv_heatmap_options){0});
    assert_contains(script, "set cbrange [0:1]");
    free(script);
    script = heatmap_script(flat, eye_shape, (qkv_heatmap_options){0});
    assert_contains(script, "set cbrange [-2:0]");
    free(script);
}

static void every_shape_of_matrix_is_drawn(void **state)
{
    (void)state;
    static const ptrdiff_t shapes[][4] = {
        {1, 1, 1, 1}, {1, 1, 1, 40}, {1, 1, 40, 1}, {4, 4, 1, 2}, {1, 1, 50, 40}};
    static double m[2000];
    for (int i = 0; i < 2000; i++) m[i] = sin(i);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        qkv_heatmap_options o = to("shape.svg");
        assert_ok(qkv_show_heatmaps(m, shapes[i], &o));
    }
    /* gnuplot draws nothing for one row: it is written twice. */
    free(heatmap_script(eye, (ptrdiff_t[]){1, 1, 1, 2}, (qkv_heatmap_options){0}));
    char *data = read_file(scratch("kept.svg.dat"), NULL);
    assert_string_equal(data, "1 0 \n1 0 \n\n\n");
    free(data);
}

static void any_text_stays_text(void **state)
{
    (void)state;
    static const char *const hostile[] = {"it's",
                                          "'; system \"touch pwned\" #",
                                          "`touch pwned`",
                                          "\"`touch pwned`\"",
                                          "back\\slash\\",
                                          "$HOME ${x} @data",
                                          "{/=20 a}_b^c",
                                          "100%d %s %%",
                                          "\xc3\xa9 \xe6\xb3\xa8\xe6\x84\x8f"};
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        const char *three[] = {hostile[i], hostile[i], hostile[i]};
        qkv_heatmap_options o = to("hostile.svg");
        o.x_label = o.y_label = hostile[i];
        o.titles = o.x_ticks = o.y_ticks = three;
        assert_ok(qkv_show_heatmaps(eye, eye_shape, &o));
        char *svg = read_file(o.figure.path, NULL);
        if (!strpbrk(hostile[i], "'\"<>&")) {
            int n = count(svg, hostile[i]);
            if (n != 3 + 3 + 2) print_error("%s is there %d times\n", hostile[i], n);
            assert_int_equal(n, 3 + 3 + 2);
        }
        free(svg);
        struct stat info;
        assert_int_not_equal(stat("pwned", &info), 0);
    }
    qkv_heatmap_options o = to("lines.svg");
    o.titles = (const char *[]){"first 'line'\nsecond line\n"};
    assert_ok(qkv_show_heatmaps(eye, eye_shape, &o));
    char *svg = read_file(o.figure.path, NULL);
    assert_contains(svg, "second line");
    free(svg);
}

/* Runs gnuplot in a directory on a script called that; it must draw expected into figure. */
static void assert_draws(const char *directory, const char *script, const char *figure,
                         const char *expected)
{
    const char *argv[] = {"env", directory, "gnuplot", "-d", script, NULL};
    ran r = run(argv, NULL);
    assert_int_equal(r.exit_code, 0);
    ran_free(&r);
    char *drawn = read_file(figure, NULL);
    assert_string_equal(drawn, expected);
    free(drawn);
    remove(figure);
}

static void a_kept_script_draws_the_same_figure_again_from_anywhere(void **state)
{
    (void)state;
    qkv_heatmap_options o = to("it's.svg");
    o.figure.keep_script = true;
    assert_ok(qkv_show_heatmaps(eye, eye_shape, &o));
    char *first = read_file(o.figure.path, NULL), here[256], there[256];
    remove(o.figure.path);
    snprintf(here, sizeof here, "--chdir=%.*s", (int)(strrchr(o.figure.path, '/') - o.figure.path),
             o.figure.path);
    assert_draws(here, "it's.svg.gp", o.figure.path, first);
    assert_draws(here, "./it's.svg.gp", o.figure.path, first);
    assert_draws("--chdir=/", scratch("it's.svg.gp"), o.figure.path, first);
    /* And from where it was moved to. */
    snprintf(there, sizeof there, "%s", scratch("sub d'ir"));
    assert_int_equal(mkdir(there, 0700), 0);
    assert_int_equal(rename(scratch("it's.svg.gp"), scratch("sub d'ir/it's.svg.gp")), 0);
    assert_int_equal(rename(scratch("it's.svg.dat"), scratch("sub d'ir/it's.svg.dat")), 0);
    assert_draws(here, "sub d'ir/it's.svg.gp", scratch("sub d'ir/it's.svg"), first);
    free(first);
}

/* Calls with QKV_GNUPLOT set to program; nothing may be left, and an old figure must stay. */
static void assert_process_error(const char *program, const char *message)
{
    qkv_heatmap_options o = to("old.svg");
    write_file(o.figure.path, "old", 3);
    setenv("QKV_GNUPLOT", program, 1);
    o.figure.keep_script = true;
    assert_status(qkv_show_heatmaps(eye, eye_shape, &o), QKV_E_PROCESS);
    unsetenv("QKV_GNUPLOT");
    assert_message(message);
    char *old = read_file(o.figure.path, NULL);
    assert_string_equal(old, "old");
    free(old);
    assert_int_equal(scratch_count("old.svg"), 1);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left, living or dead */
}

static const char *fake_gnuplot(const char *body)
{
    const char *path = scratch("fake");
    write_file(path, body, strlen(body));
    assert_int_equal(chmod(path, 0700), 0);
    return path;
}

static void a_missing_or_failing_gnuplot_is_a_status_with_its_message(void **state)
{
    (void)state;
    assert_process_error("/no/such/gnuplot", "/no/such/gnuplot: ");
    assert_process_error("false", "exit code 1");
    assert_process_error("true", "drew nothing");
    assert_process_error(
        fake_gnuplot("#!/bin/sh\nexec <&-\necho part\necho out of ink >&2\nexit 3\n"),
        "exit code 3: out of ink");
    assert_process_error(fake_gnuplot("#!/bin/sh\nkill -9 $$\n"), "signal 9");
}

static volatile sig_atomic_t signals;

static void on_pipe(int number)
{
    (void)number;
    signals++;
}

static void a_reader_that_is_gone_raises_no_signal(void **state)
{
    (void)state;
    static double many[300 * 300];
    struct sigaction mine = {.sa_handler = on_pipe}, after;
    sigaction(SIGPIPE, &mine, NULL);
    setenv("QKV_GNUPLOT", "true", 1);
    qkv_heatmap_options o = to("gone.svg");
    assert_status(qkv_show_heatmaps(many, (ptrdiff_t[]){1, 1, 300, 300}, &o), QKV_E_PROCESS);
    unsetenv("QKV_GNUPLOT");
    sigaction(SIGPIPE, NULL, &after);
    assert_int_equal(signals, 0);
    assert_ptr_equal(after.sa_handler, on_pipe);
    signal(SIGPIPE, SIG_DFL);
}

static void wrong_arguments_are_refused(void **state)
{
    (void)state;
    assert_status(qkv_show_heatmaps(NULL, eye_shape, NULL), QKV_E_ARG);
    assert_status(qkv_show_heatmaps(eye, NULL, NULL), QKV_E_ARG);
    assert_status(qkv_show_heatmaps(eye, (ptrdiff_t[]){1, 0, 2, 3}, NULL), QKV_E_SHAPE);
    assert_message("shape[1] is 0");
    assert_status(qkv_show_heatmaps(eye, (ptrdiff_t[]){1, 1, PTRDIFF_MAX, 3}, NULL),
                  QKV_E_OVERFLOW);
    qkv_heatmap_options o = {.palette = (qkv_palette)4};
    assert_status(qkv_show_heatmaps(eye, eye_shape, &o), QKV_E_ARG);
    o = (qkv_heatmap_options){.lower = 2, .upper = 1};
    assert_status(qkv_show_heatmaps(eye, eye_shape, &o), QKV_E_ARG);
    o = (qkv_heatmap_options){.lower = 1, .upper = INFINITY};
    assert_status(qkv_show_heatmaps(eye, eye_shape, &o), QKV_E_ARG);
    o = (qkv_heatmap_options){.y_range = {2, 2}};
    assert_status(qkv_show_heatmaps(eye, eye_shape, &o), QKV_E_ARG);
    assert_message("y_range 2 to 2");
    o = (qkv_heatmap_options){.lower = -1e308, .upper = 1e308};
    assert_status(qkv_show_heatmaps(eye, eye_shape, &o), QKV_E_DOMAIN);
    static const double sizes[][2] = {{-1, 0}, {0, -1}, {NAN, 0}, {0, NAN}, {101, 0}, {0, 101}};
    const qkv_panel blank = {.title = "blank"};
    for (int i = 0; i < 6; i++) {
        o = to("size.svg");
        o.figure.width = sizes[i][0];
        o.figure.height = sizes[i][1];
        assert_status(qkv_show_heatmaps(eye, eye_shape, &o), QKV_E_ARG);
        assert_message(i < 4 ? "expected 0 or more" : "expected above 0, to 100");
        assert_status(qkv_plot_panels(&blank, 1, 1, &o.figure), QKV_E_ARG);
        assert_message(i < 4 ? "expected 0 or more" : "expected above 0, to 100");
    }
    qkv_series s = {.n = 1};
    qkv_panel p = {.series = &s, .n_series = 1};
    assert_status(qkv_plot_panels(&p, 1, 1, NULL), QKV_E_ARG);
    assert_status(qkv_plot_panels(NULL, 1, 1, NULL), QKV_E_ARG);
    assert_status(qkv_plot_panels(&p, 0, 1, NULL), QKV_E_SHAPE);
    p = (qkv_panel){.x_range = {2, 1}};
    assert_status(qkv_plot_panels(&p, 1, 1, NULL), QKV_E_ARG);
    p = (qkv_panel){.log_y = true, .y_range = {-1, 1}};
    assert_status(qkv_plot_panels(&p, 1, 1, NULL), QKV_E_ARG);
}

static void without_a_file_the_figure_is_text(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    qkv_heatmap_options o = {.figure.text = f, .titles = (const char *[]){"Head 1"}};
    assert_ok(qkv_show_heatmaps(eye, eye_shape, &o));
    fflush(f);
    assert_contains(text, "Head 1\n\u2588\u2588    \n  \u2588\u2588  \n");
    const double x[] = {0, 1, 2};
    qkv_series s = {.label = "a line", .n = 3, .x = x, .y = x};
    qkv_panel p = {.title = "A title", .series = &s, .n_series = 1};
    assert_ok(qkv_plot_panels(&p, 1, 1, &o.figure));
    fclose(f);
    assert_contains(text, "A title");
    assert_contains(text, "a line");
    free(text);
}

static void panels_have_their_ranges_labels_and_series(void **state)
{
    (void)state;
    const double x[] = {0, 1, 2, NAN}, y[] = {1, 10, -100, 1}, up[] = {2, 20, 3, 1};
    const char *ticks[] = {"a%d", "b"};
    const qkv_series curves[] = {
        {QKV_LINE, "line", 4, x, y, NULL, NULL, 0, NULL},
        {QKV_DASHES, NULL, 4, x, y, NULL, NULL, 2, "#123456"},
        {QKV_POINTS, "points", 4, x, y, NULL, up, 0, NULL},
        {QKV_BAND, "it's a band", 4, x, y, up, NULL, 0, NULL},
        {QKV_POINTS, "nothing", 0, NULL, NULL, NULL, NULL, 0, NULL},
    };
    const qkv_series bars = {.mark = QKV_BARS, .n = 2, .x = x, .y = up};
    const qkv_panel panels[] = {
        {.title = "One", .x_label = "x", .series = curves, .n_series = 5},
        {.log_y = true, .series = curves, .n_series = 1},
        {.equal_aspect = true, .series = curves, .n_series = 1, .x_range = {0, 4}},
        {.x_ticks = ticks, .n_x_ticks = 2, .series = &bars, .n_series = 1}};
    qkv_figure figure = {.path = scratch("panels.svg"), .keep_script = true};
    assert_ok(qkv_plot_panels(panels, 2, 2, &figure));
    char *script = read_file(scratch("panels.svg.gp"), NULL);
    assert_contains(script, "set title 'One'");
    assert_contains(script, "set yrange [-106:26]"); /* -100 .. 20, and 5 % of it around */
    assert_contains(script, "title 'it'.\"\\047\".'s a band'");
    assert_contains(script, "notitle");
    assert_int_equal(count(script, "set format x '%.6g'"), 4);
    assert_contains(script, "'#123456'");
    assert_int_equal(count(script, "\nset logscale y"), 1);
    assert_contains(script,
                    "set yrange [0.891250938133746:11.2201845430196]"); /* -100 has no logarithm */
    assert_contains(script, "'a%%d' 0, 'b' 1");
    assert_contains(script, "set yrange [0:21]"); /* bars stand on zero */
    free(script);
    char *data = read_file(scratch("panels.svg.dat"), NULL);
    assert_contains(data, "0 1 NaN 2 \n1 10 NaN 20 \n");
    free(data);
    const qkv_panel rest[] = {{.title = "bare axes"}, {0}};
    assert_ok(qkv_plot_panels(rest, 1, 2, &figure));
    script = read_file(scratch("panels.svg.gp"), NULL);
    assert_int_equal(count(script, "\nplot "), 1); /* nothing is drawn of nothing */
    free(script);
}

/* The legend's upper left corner, and the margin above the axes, in inches from the bottom. */
static void find_legend(const qkv_panel *p, double *key, double *axes, int *columns)
{
    qkv_figure figure = {.path = scratch("legend.svg"), .keep_script = true, .height = 4};
    assert_ok(qkv_plot_panels(p, 1, 1, &figure));
    char *script = read_file(scratch("legend.svg.gp"), NULL);
    const char *at = strstr(script, "\nset key at ");
    assert_non_null(at);
    assert_int_equal(
        sscanf(at, "\nset key at screen %*f,%lf left top horizontal maxcols %d", key, columns), 2);
    *key *= 4;
    *axes = 4 * margin(script, "tmargin");
    free(script);
}

static void the_legend_hides_no_data(void **state)
{
    (void)state;
    const double x[] = {0, 1, 0, 1}, y[] = {0, 0, 1, 1}; /* in every corner */
    qkv_series s[] = {
        {QKV_POINTS, "one", 4, x, y, .size = 2},
        {QKV_POINTS, NULL, 4, x, y, .size = 2},
        {QKV_LINE, "another", 4, x, y, .size = 2},
        {QKV_LINE, "a third with a name that has a line to itself, no less", 4, x, y, .size = 2}};
    qkv_panel p = {.title = "title", .series = s, .n_series = 3};
    double key, axes, alone;
    int columns;
    find_legend(&p, &key, &axes, &columns);
    assert_int_equal(columns, 2);
    assert_true(key - axes > 0.18); /* a line */
    alone = axes;
    p.n_series = 4;
    find_legend(&p, &key, &axes, &columns);
    assert_int_equal(columns, 1);
    assert_true(key - axes > 3 * 0.18);
    assert_close(alone - axes, 2 * 0.18, 1e-3);
    p.series = &s[1];
    p.n_series = 1;
    find_legend(&p, &key, &axes, &columns);
    assert_close(axes - alone, 0.18, 1e-3); /* no labels, no room */
}

static void numbers_far_from_zero_stay_apart(void **state)
{
    (void)state;
    const double x[] = {1000000.125, 1000000.5}, y[] = {-2e-9, -1e-9};
    const qkv_series s = {.n = 2, .x = x, .y = y};
    const qkv_panel p = {.series = &s, .n_series = 1};
    qkv_figure figure = {.path = scratch("far.svg"), .keep_script = true};
    assert_ok(qkv_plot_panels(&p, 1, 1, &figure));
    char *script = read_file(scratch("far.svg.gp"), NULL), *svg = read_file(figure.path, NULL);
    assert_contains(script, "set format x '%.10g'");
    assert_contains(script, "set format y '%.6g'");
    assert_contains(svg, "1000000.2");
    free(script), free(svg);
    script = heatmap_script(eye, eye_shape, (qkv_heatmap_options){.y_range = {2e6, 2e6 + 1}});
    assert_contains(script, "set format y '%.10g'");
    assert_contains(script, "set format x '%.6g'");
    free(script);
}

/* Inches from the left edge of the figure to the axis label, and from there to the axis. */
static void find_y_label(char *script, double width, double *before, double *after)
{
    const char *at = strstr(script, "set label 1 'height'");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "set label 1 'height' at screen %lf", before), 1);
    *before *= width;
    *after = width * margin(script, "lmargin") - *before;
    free(script);
}

/* An inch is as wide as 12 digits, and half a line of text 0.07. */
static void a_label_stands_beside_the_longest_number(void **state)
{
    (void)state;
    static const double x[] = {1, 2}, few[] = {0, 1}, many[] = {-123456.5, -123456},
                        powers[] = {1e-16, 1}, decade[] = {0.003, 0.008};
    static const struct {
        const double *y;
        double digits;
        bool log;
    } axes[] = {{few, 3, false}, {many, 9, false}, {powers, 5, true}, {decade, 5, true}};
    double before, after;
    for (int i = 0; i < 4; i++) {
        const qkv_series s = {.n = 2, .x = x, .y = axes[i].y};
        const qkv_panel p = {
            .y_label = "height", .series = &s, .n_series = 1, .log_y = axes[i].log};
        qkv_figure figure = {.path = scratch("label.svg"), .keep_script = true, .width = 5};
        assert_ok(qkv_plot_panels(&p, 1, 1, &figure));
        find_y_label(read_file(scratch("label.svg.gp"), NULL), 5, &before, &after);
        assert_true(before > 0.07 && after > axes[i].digits / 12 + 0.07);
    }
    const char *const names[] = {"a name that is long", "b"};
    find_y_label(heatmap_script(eye, (ptrdiff_t[]){1, 1, 2, 2},
                                (qkv_heatmap_options){
                                    .y_label = "height", .y_ticks = names, .figure.width = 5}),
                 5, &before, &after);
    assert_true(before > 0.07 && after > 19 / 14.0 + 0.07);
}

static void a_logarithmic_axis_leaves_out_what_has_no_logarithm(void **state)
{
    (void)state;
    const double x[] = {-1, 0, 0.1, 10}, y[] = {7, 8, 1, 2};
    const qkv_series s = {.n = 4, .x = x, .y = y};
    qkv_panel p = {.log_x = true, .series = &s, .n_series = 1};
    qkv_figure figure = {.path = scratch("log.svg"), .keep_script = true};
    assert_ok(qkv_plot_panels(&p, 1, 1, &figure));
    char *script = read_file(scratch("log.svg.gp"), NULL);
    assert_contains(script, "set xrange [0.07943282347242");
    assert_contains(script, "set yrange [0.95:2.05]"); /* y of what is left out does not count */
    assert_contains(script, "\nset logscale x\nunset logscale y\n");
    assert_contains(script, "set xtics (0.1, 0.2, 0.5, 1, 2, 5, 10)\n");
    free(script);
    p.x_range[0] = 1e-3, p.x_range[1] = 1e3; /* powers of ten will do */
    assert_ok(qkv_plot_panels(&p, 1, 1, &figure));
    script = read_file(scratch("log.svg.gp"), NULL);
    assert_contains(script, "set xtics autofreq\nset grid");
    free(script);
    p.x_range[0] = -1;
    assert_status(qkv_plot_panels(&p, 1, 1, NULL), QKV_E_ARG);
    p = (qkv_panel){.log_x = true, .equal_aspect = true};
    assert_status(qkv_plot_panels(&p, 1, 1, NULL), QKV_E_ARG);
}

static void what_only_rounding_tells_apart_has_a_range(void **state)
{
    (void)state;
    const double x[] = {0, 1}, y[] = {5, 5 + 1e-15};
    const qkv_series s = {.n = 2, .x = x, .y = y};
    const qkv_panel p = {.series = &s, .n_series = 1};
    qkv_figure figure = {.path = scratch("flat.svg"), .keep_script = true};
    assert_ok(qkv_plot_panels(&p, 1, 1, &figure));
    char *script = read_file(scratch("flat.svg.gp"), NULL);
    assert_contains(script, "set yrange [4.5:5.5]");
    free(script);
}

static void equal_aspect_makes_units_equally_long(void **state)
{
    (void)state;
    const double x[] = {0, 1}, y[] = {0, 5};
    const qkv_series s = {.n = 2, .x = x, .y = y};
    const qkv_panel p = {.equal_aspect = true, .series = &s, .n_series = 1};
    qkv_figure figure = {.path = scratch("equal.svg"), .keep_script = true};
    assert_ok(qkv_plot_panels(&p, 1, 1, &figure));
    char *script = read_file(scratch("equal.svg.gp"), NULL);
    double range[4], size[2];
    assert_int_equal(sscanf(strstr(script, "set xrange"),
                            "set xrange [%lf:%lf]\nset yrange [%lf:%lf]", range, range + 1,
                            range + 2, range + 3),
                     4);
    assert_int_equal(sscanf(strstr(script, "size"), "size %lf,%lf", size, size + 1), 2);
    double w = size[0] * (margin(script, "rmargin") - margin(script, "lmargin"));
    double h = size[1] * (margin(script, "tmargin") - margin(script, "bmargin"));
    assert_close(w / (range[1] - range[0]), h / (range[3] - range[2]), 0.01 * w);
    assert_true(range[0] <= 0 && range[1] >= 1 && range[2] <= 0 && range[3] >= 5);
    free(script);
}

static void a_comma_decimal_locale_changes_nothing(void **state)
{
    (void)state;
    locale_t comma = comma_locale();
    if (!comma) skip();
    char *before = heatmap_script(eye, eye_shape, (qkv_heatmap_options){0});
    locale_t previous = uselocale(comma);
    char *after = heatmap_script(eye, eye_shape, (qkv_heatmap_options){0});
    bool still = strtod("1,5", NULL) == 1.5;
    uselocale(previous);
    freelocale(comma);
    assert_string_equal(before, after);
    assert_true(still);
    free(before);
    free(after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_svg_is_one_well_formed_document),
        cmocka_unit_test(png_and_pdf_follow_the_extension),
        cmocka_unit_test(axes_are_shared_and_the_scale_is_common),
        cmocka_unit_test(cells_are_square_in_any_figure),
        cmocka_unit_test(nan_is_a_hole_and_infinity_the_end_of_the_scale),
        cmocka_unit_test(every_shape_of_matrix_is_drawn),
        cmocka_unit_test(any_text_stays_text),
        cmocka_unit_test(a_kept_script_draws_the_same_figure_again_from_anywhere),
        cmocka_unit_test(a_missing_or_failing_gnuplot_is_a_status_with_its_message),
        cmocka_unit_test(a_reader_that_is_gone_raises_no_signal),
        cmocka_unit_test(wrong_arguments_are_refused),
        cmocka_unit_test(without_a_file_the_figure_is_text),
        cmocka_unit_test(panels_have_their_ranges_labels_and_series),
        cmocka_unit_test(the_legend_hides_no_data),
        cmocka_unit_test(numbers_far_from_zero_stay_apart),
        cmocka_unit_test(a_label_stands_beside_the_longest_number),
        cmocka_unit_test(a_logarithmic_axis_leaves_out_what_has_no_logarithm),
        cmocka_unit_test(what_only_rounding_tells_apart_has_a_range),
        cmocka_unit_test(equal_aspect_makes_units_equally_long),
        cmocka_unit_test(a_comma_decimal_locale_changes_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
