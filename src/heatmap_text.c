#include <math.h>
#include <string.h>

#include "fail.h"
#include "heatmap.h"
#include "label.h"
#include "resample.h"

enum { MAX_TEXT_CELLS = 40 }; /* across a terminal of 80 columns */

/* Titles and labels cannot steer the terminal: a control character, or a byte that is not UTF-8, is
 * a '?', as in a figure. */
static void print_plain(FILE *to, const char *text)
{
    for (int n; *text; text += n ? n : 1) {
        n = qkv_utf8_length(text);
        bool control = n == 1 ? *text < ' ' || *text == 0x7f
                              : n == 2 && memcmp(text, "\u00a0", 2) < 0; /* U+0080 to U+009F */
        if (n == 0 || (control && *text != '\n'))
            fputc(*text == '\t' ? ' ' : '?', to);
        else
            fwrite(text, 1, (size_t)n, to);
    }
}

static void print_row(const qkv_heatmaps *h, FILE *to, const double *row)
{
    static const char *const shades[] = {"  ", "\u2591\u2591", "\u2592\u2592", "\u2593\u2593",
                                         "\u2588\u2588"};
    for (ptrdiff_t k = 0; k < h->samples_k; k++) {
        double part = (row[k] - h->lower) / (h->upper - h->lower);
        fputs(isnan(part) ? "??" : shades[(int)lround(4 * part)], to);
    }
}

/* Two rows stay two, however long they are. */
static ptrdiff_t samples(ptrdiff_t n, double part)
{
    return (ptrdiff_t)fmax(n > 1 ? 2 : 1, round((double)n * part));
}

qkv_status qkv_heatmap_print(qkv_heatmaps *h, const char *caller)
{
    const qkv_heatmap_options *o = h->options;
    FILE *to = o->figure.text ? o->figure.text : stdout;
    double longest = (double)(h->n_q > h->n_k ? h->n_q : h->n_k);
    double part = fmin(1, MAX_TEXT_CELLS / longest), row[MAX_TEXT_CELLS];
    h->samples_q = samples(h->n_q, part);
    h->samples_k = samples(h->n_k, part);
    for (ptrdiff_t i = 0; i < h->rows * h->cols; i++) {
        if (o->titles && o->titles[i % h->cols]) {
            print_plain(to, o->titles[i % h->cols]);
            fputc('\n', to);
        }
        if (o->y_labels && o->y_labels[i / h->cols]) {
            print_plain(to, o->y_labels[i / h->cols]);
            fputc('\n', to);
        }
        for (ptrdiff_t q = 0; q < h->samples_q; q++) {
            qkv_resample_row(h->matrices + i * h->n_q * h->n_k, h->n_q, h->n_k, h->lower, h->upper,
                             q, h->samples_q, h->samples_k, row);
            print_row(h, to, row);
            if (o->y_ticks && h->samples_q == h->n_q && o->y_ticks[q]) {
                fputc(' ', to);
                print_plain(to, o->y_ticks[q]);
            }
            fputc('\n', to);
        }
        fputc('\n', to);
    }
    print_plain(to, o->y_label ? o->y_label : "rows");
    fputs(" down, ", to);
    print_plain(to, o->x_label ? o->x_label : "columns");
    fprintf(to, " across, from %g (blank) to %g (full)", h->lower, h->upper);
    if (part < 1)
        fprintf(to, "; each shade is the mean of %.3g x %.3g cells",
                (double)h->n_q / (double)h->samples_q, (double)h->n_k / (double)h->samples_k);
    fputc('\n', to);
    return ferror(to) ? qkv_fail(QKV_E_IO, "%s: cannot write the figure as text", caller) : QKV_OK;
}
