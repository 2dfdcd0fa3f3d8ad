#include "nadaraya_watson_run.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "src/csv.h"
#include "support.h"

ran regress(const char *const *arguments, const char *input)
{
    const char *argv[26] = {NADARAYA_WATSON};
    for (int i = 0; arguments[i]; i++) argv[i + 1] = arguments[i];
    return run(argv, input);
}

void succeed(const char *const *arguments, const char *input)
{
    ran r = regress(arguments, input);
    if (r.exit_code) fail_msg("exit %d: %s", r.exit_code, r.err);
    ran_free(&r);
}

void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part)) fail_msg("no '%s' in: %s", part, text);
}

void assert_refused(const char *const *arguments, int exit_code, const char *message)
{
    ran r = regress(arguments, NULL);
    if (r.exit_code != exit_code) fail_msg("exit %d, not %d: %s", r.exit_code, exit_code, r.err);
    assert_contains(r.err, message);
    ran_free(&r);
}

void write_text(const char *name, const char *text)
{
    write_file(scratch(name), text, strlen(text));
}

double *column(const char *path, const char *name, size_t *rows)
{
    qkv_table t;
    assert_ok(
        qkv_csv_read(&t, path, &(qkv_csv_options){.columns = &name, .n = 1, .keep_missing = true}));
    double *data = t.data;
    if (rows) *rows = t.rows;
    t.data = NULL;
    qkv_csv_free(&t);
    return data;
}

void assert_column(const char *path, const char *name, const double *expected, size_t n,
                   ptrdiff_t stride, double tolerance)
{
    size_t rows;
    double *found = column(path, name, &rows);
    assert_int_equal(rows, n);
    for (size_t i = 0; i < n; i++) {
        double x = expected[(ptrdiff_t)i * stride];
        if (!(fabs(found[i] - x) <= tolerance * (1 + fabs(x)) || (isnan(found[i]) && isnan(x))))
            fail_msg("%s of row %zu is %.17g, expected %.17g", name, i, found[i], x);
    }
    free(found);
}
