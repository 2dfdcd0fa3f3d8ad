#include "figure.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fail.h"
#include "file.h"
#include "gnuplot.h"
#include "label.h"

enum { MAX_INCHES = 100 };

static const char *find_terminal(const char *path)
{
    if (!path) return "dumb";
    const char *dot = strrchr(path, '.');
    if (dot && strcasecmp(dot, ".svg") == 0) return "svg";
    if (dot && strcasecmp(dot, ".png") == 0) return "pngcairo";
    if (dot && strcasecmp(dot, ".pdf") == 0) return "pdfcairo";
    return NULL;
}

static void set_terminal(const qkv_sheet *s)
{
    static const char font[] = "noenhanced font 'DejaVu Sans,%g'";
    FILE *f = s->script;
    if (strcmp(s->terminal, "dumb") == 0) {
        fprintf(f, "set terminal dumb noenhanced size %.0f,%.0f\n", 14 * s->width, 6 * s->height);
        return;
    }
    fprintf(f, "set terminal %s ", s->terminal);
    if (strcmp(s->terminal, "svg") == 0) {
        fprintf(f, "size %.0f,%.0f background '#ffffff' ", 96 * s->width, 96 * s->height);
        fprintf(f, font, 12.0);
    } else if (strcmp(s->terminal, "pngcairo") == 0) {
        fprintf(f, "size %.0f,%.0f background '#ffffff' fontscale 2 linewidth 2 pointscale 2 ",
                192 * s->width, 192 * s->height);
        fprintf(f, font, 9.0);
    } else {
        /* Its point is 1/96 inch. */
        fprintf(f, "size %.3fin,%.3fin background '#ffffff' fontscale 0.75 ", s->width, s->height);
        fprintf(f, font, 9.0);
    }
    fputc('\n', f);
}

void qkv_sheet_drop(qkv_sheet *s)
{
    if (s->script) fclose(s->script);
    if (s->data) fclose(s->data);
    free(s->script_text);
    free(s->data_text);
    qkv_c_locale_leave(s->locale);
}

qkv_status qkv_sheet_open(qkv_sheet *sheet, const qkv_figure *figure, double width, double height,
                          const char *caller)
{
    *sheet = (qkv_sheet){.width = width, .height = height, .figure = figure, .caller = caller};
    sheet->terminal = find_terminal(figure->path);
    if (!sheet->terminal)
        return qkv_fail(QKV_E_ARG, "%s: the path %s does not end in .svg, .png or .pdf", caller,
                        figure->path);
    if (!(width > 0 && width <= MAX_INCHES && height > 0 && height <= MAX_INCHES))
        return qkv_fail(QKV_E_ARG, "%s: the figure is %g x %g inches, expected above 0, to %d",
                        caller, width, height, MAX_INCHES);
    sheet->vector = strcmp(sheet->terminal, "pngcairo") != 0;
    bool svg = strcmp(sheet->terminal, "svg") == 0;
    sheet->samples_per_inch = sheet->vector ? 144 : 192;
    sheet->raise = svg ? 0.5 : 0;
    sheet->key_spacing = svg ? 0.85 : 1.1;
    sheet->points_per_line = 0.75;
    sheet->points_per_mark = svg ? 7.1 : 5.2;
    sheet->locale = qkv_c_locale_enter();
    sheet->script = open_memstream(&sheet->script_text, &sheet->script_length);
    sheet->data = open_memstream(&sheet->data_text, &sheet->data_length);
    if (!sheet->script || !sheet->data) {
        qkv_sheet_drop(sheet);
        return qkv_fail(QKV_E_NOMEM, "%s: no memory for the script", caller);
    }
    fputs("set encoding utf8\n", sheet->script);
    set_terminal(sheet);
    return QKV_OK;
}

void qkv_sheet_number(qkv_sheet *sheet, double x)
{
    if (isfinite(x))
        fprintf(sheet->data, "%.10g ", x);
    else
        fputs("NaN ", sheet->data);
}

void qkv_sheet_end_block(qkv_sheet *sheet)
{
    fputs("\n\n", sheet->data);
}

static bool is_empty(const char *text)
{
    return !text || !*text;
}

static void set_label(FILE *script, const char *what, const char *text, double raise)
{
    if (is_empty(text)) {
        fprintf(script, "unset %s\n", what);
        return;
    }
    fprintf(script, "set %s ", what);
    qkv_gnuplot_quote(script, text);
    fprintf(script, " offset 0,%g textcolor '#222222'\n", raise);
}

void qkv_sheet_labels(qkv_sheet *sheet, const char *title, const char *x_label)
{
    set_label(sheet->script, "title", title, -0.4);
    set_label(sheet->script, "xlabel", x_label, 2 * sheet->raise);
}

void qkv_sheet_y_label(qkv_sheet *sheet, const char *text, double x, double y)
{
    if (is_empty(text)) {
        fputs("unset label 1\n", sheet->script);
        return;
    }
    const double line = 0.16;
    x -= line * (qkv_label_lines(text) - 1) / 2; /* gnuplot places the first one */
    fputs("set label 1 ", sheet->script);
    qkv_gnuplot_quote(sheet->script, text);
    fprintf(sheet->script, " at screen %.5f,%.5f center rotate by 90 textcolor '#222222'\n",
            x / sheet->width, y / sheet->height);
}

void qkv_sheet_place(qkv_sheet *sheet, double left, double bottom, double right, double top)
{
    fprintf(sheet->script,
            "set lmargin at screen %.5f\nset rmargin at screen %.5f\n"
            "set bmargin at screen %.5f\nset tmargin at screen %.5f\n",
            left / sheet->width, right / sheet->width, bottom / sheet->height, top / sheet->height);
}

/* ---- Drawing -----------------------------------------------------------------------------------
 */

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static qkv_status write_whole(const char *path, const char *prologue, const char *text,
                              const char *epilogue, const char *caller)
{
    qkv_output output;
    qkv_status status = qkv_output_open(&output, path, caller);
    if (status) return status;
    fprintf(output.stream, "%s%s%s", prologue, text, epilogue);
    return qkv_output_commit(&output, caller);
}

/* gnuplot calls a script ARG0: the part of it up to the last slash leads to what is beside it. */
static const char find_here[] =
    "if (!exists('ARG0')) ARG0 = ''\n"
    "here = ''\n"
    "do for [i = 1:strlen(ARG0)] { if (ARG0[i:i] eq '/') { here = ARG0[1:i] } }\n";

/* path.dat and path.gp, which finds its data and puts its figure beside itself, wherever it is
 * called from. */
static qkv_status keep(const qkv_sheet *s)
{
    char *script = NULL, *data = NULL, *prologue = NULL;
    size_t n;
    bool named = asprintf(&script, "%s.gp", s->figure->path) >= 0 &&
                 asprintf(&data, "%s.dat", s->figure->path) >= 0;
    FILE *f = named ? open_memstream(&prologue, &n) : NULL;
    if (f) {
        fprintf(f, "%sset output here.", find_here);
        qkv_gnuplot_quote(f, base_name(s->figure->path));
        fputs("\nfile = here.", f);
        qkv_gnuplot_quote(f, base_name(data));
        fputs("\ndata = 'file'\n", f); /* @data is the expression that names the data */
    }
    qkv_status status = f && fclose(f) == 0
                            ? write_whole(data, "", s->data_text, "", s->caller)
                            : qkv_fail(QKV_E_NOMEM, "%s: no memory for the script", s->caller);
    if (!status)
        status = write_whole(script, prologue, s->script_text, "unset output\n", s->caller);
    free(script);
    free(data);
    free(prologue);
    return status;
}

/* gnuplot reads its data from a file that only it and we know: from a pipe it would take them byte
 * by byte. */
static qkv_status run(const qkv_sheet *s, int out)
{
    int data = memfd_create("qkv-data", MFD_CLOEXEC);
    FILE *f = data < 0 ? NULL : fdopen(data, "w");
    if (!f) {
        if (data >= 0) close(data);
        return qkv_fail(QKV_E_IO, "%s: no temporary file", s->caller);
    }
    fwrite(s->data_text, 1, s->data_length, f);
    qkv_status status = fflush(f) == 0
                            ? qkv_gnuplot_run(s->script_text, data, out, s->caller)
                            : qkv_fail(QKV_E_NOMEM, "%s: no memory for the data", s->caller);
    fclose(f);
    return status;
}

static qkv_status draw_text(const qkv_sheet *s)
{
    int out = memfd_create("qkv-figure", MFD_CLOEXEC);
    if (out < 0) return qkv_fail(QKV_E_IO, "%s: no temporary file", s->caller);
    qkv_status status = run(s, out);
    FILE *to = s->figure->text ? s->figure->text : stdout;
    char part[4096];
    ssize_t n;
    for (off_t at = 0; !status && (n = pread(out, part, sizeof part, at)) > 0; at += n)
        if (fwrite(part, 1, (size_t)n, to) != (size_t)n)
            status = qkv_fail(QKV_E_IO, "%s: cannot write the figure as text", s->caller);
    close(out);
    return status;
}

static qkv_status draw_file(const qkv_sheet *s)
{
    qkv_output output;
    qkv_status status = qkv_output_open(&output, s->figure->path, s->caller);
    if (status) return status;
    status = run(s, fileno(output.stream));
    if (!status && s->figure->keep_script) status = keep(s);
    if (!status) return qkv_output_commit(&output, s->caller);
    qkv_output_discard(&output);
    return status;
}

qkv_status qkv_sheet_draw(qkv_sheet *sheet)
{
    bool written = !ferror(sheet->script) && !ferror(sheet->data);
    written = fclose(sheet->script) == 0 && written;
    written = fclose(sheet->data) == 0 && written;
    sheet->script = sheet->data = NULL;
    qkv_status status = !written
                            ? qkv_fail(QKV_E_NOMEM, "%s: no memory for the script", sheet->caller)
                        : sheet->figure->path ? draw_file(sheet)
                                              : draw_text(sheet);
    qkv_sheet_drop(sheet);
    return status;
}
