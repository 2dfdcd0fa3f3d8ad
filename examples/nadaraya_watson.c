/* nadaraya_watson - kernel regression that learns its bandwidth: attention with data for keys and
 * values. Options, data, search, predictions, report and figures are a file each,
 * nadaraya_watson_*.c; without arguments it is the chapter (nadaraya_watson_chapter.c). */
#include <stdlib.h>
#include <string.h>

#include "nadaraya_watson.h"

static bool is_file(const char *path)
{
    return path && strcmp(path, "-") != 0;
}

/* What cannot be written is told before the search, not after it. */
static void expect_files(const settings *o)
{
    if (is_file(o->predict)) expect_creatable("--predict", o->predict);
    if (is_file(o->weights)) expect_creatable("--weights", o->weights);
    if (is_file(o->save)) expect_creatable("--save", o->save);
    if (is_file(o->report)) expect_creatable("--report", o->report);
    if (o->plot) make_directories(o->plot);
}

static void write_files(const settings *o, session *s, const account *a)
{
    if (o->predict) save_predictions(s, a->predicted, o->predict);
    if (o->weights) save_weights(s, a->predicted->queries, o->weights);
    if (o->save) check(qkv_regression_save(o->save, &s->model));
    if (o->report) save_report(o, s, a);
    const char *const written[] = {o->predict, o->weights, o->save, o->report};
    for (int i = 0; i < 4; i++)
        if (is_file(written[i])) say("wrote %s", written[i]);
}

int main(int argc, char **argv)
{
    clean_up_on_signals();
    settings o = read_settings(argc, argv);
    double start = now();
    session s = open_session(&o);
    query_set queries = find_queries(&o, &s); /* what is wrong with them is told before a search */
    expect_files(&o);
    if (o.weights) refuse_many_weights(&s, queries);
    search found = {0};
    account a = {.found = o.load ? NULL : &found};
    if (!o.load) find_bandwidth(&o, &s, &found);
    if (!o.load || o.report) measure(&s, &a);
    print_account(&o, &s, &a);
    predictions p = {0};
    if (o.predict || o.weights || o.at || o.grid) {
        p = predict_at(&o, &s, queries);
        a.predicted = &p;
    }
    warn(&s, &a);
    a.seconds = now() - start;
    write_files(&o, &s, &a);
    if (o.plot) draw_figures(&o, &s, &found); /* last: the numbers need no gnuplot */
    free_predictions(&p);
    free(queries.x);
    close_session(&s);
    return finish();
}
