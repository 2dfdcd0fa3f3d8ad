#include "csv.h"

#include <ctype.h>
#include <csv.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "fail.h"
#include "file.h"
#include "size.h"

static const char caller[] = "qkv_csv_load";

enum {
    MAX_RECORD = 16 << 20, /* bytes: what has no end of line must end */
    MAX_LEVELS = 1000      /* labels: a column with more is no class */
};

/* One record's fields, terminated, one after the other in text. */
typedef struct record {
    char *text;
    size_t used, capacity;
    size_t *start; /* of each field in text */
    size_t fields, fields_capacity;
} record;

typedef struct reader {
    const char *path;
    qkv_csv_options o;
    size_t *index; /* of the columns asked for, in the file */
    char **header; /* [width] if there is one and others are wanted: their names */
    size_t width;  /* fields in every record; 0 before the first */
    char delimiter;
    size_t line, record_line;
    size_t record_bytes; /* of the lines of this record so far */
    size_t data_capacity;
    record record;
    qkv_table *table;
    qkv_status status; /* libcsv's callbacks cannot stop it: the first error waits here */
} reader;

/* Makes room for at least n items of that size; false if there is none. */
static bool reserve(void *array, size_t *capacity, size_t n, size_t item)
{
    if (n <= *capacity) return true;
    size_t wanted = n < 16 ? 16 : n, bytes = item;
    if (wanted < SIZE_MAX / 2 && wanted < 2 * *capacity) wanted = 2 * *capacity;
    if (wanted > PTRDIFF_MAX || !qkv_size_mul(&bytes, (ptrdiff_t)wanted)) return false;
    void *old;
    memcpy(&old, array, sizeof old);
    void *grown = realloc(old, bytes);
    if (!grown) return false;
    memcpy(array, &grown, sizeof grown);
    *capacity = wanted;
    return true;
}

static qkv_status no_memory(void)
{
    return qkv_fail(QKV_E_NOMEM, "%s: no memory", caller);
}

/* ---- What a cell means ----------------------------------------------------------------------- */

static bool is_missing(const char *cell)
{
    return *cell == '\0' || strcasecmp(cell, "NA") == 0 || strcasecmp(cell, "NaN") == 0;
}

/* Plain decimal notation only: strtod alone would take "infinity" and hexadecimal too. */
static bool parse_number(const char *cell, double *x)
{
    char *end;
    *x = strtod(cell, &end);
    return end != cell && *end == '\0' && strspn(cell, "0123456789+-.eE") == strlen(cell);
}

/* Does it begin as a number does, and is no date or time? 12a and 1,5 are numbers with a mistake in
 * them rather than labels. */
static bool is_meant_as_number(const char *cell)
{
    size_t sign = *cell == '+' || *cell == '-';
    return isdigit((unsigned char)cell[sign]) && !strpbrk(cell + 1, "-/:");
}

static const char *field(const record *r, size_t i)
{
    return r->text + r->start[i];
}

static bool is_header(const record *r)
{
    double ignored;
    for (size_t i = 0; i < r->fields; i++)
        if (parse_number(field(r, i), &ignored)) return false;
    return true;
}

/* ---- Which columns --------------------------------------------------------------------------- */

/* What can be asked for: as many names as there is room for, or numbers. */
static void list_columns(const record *r, bool header, char *text, size_t room)
{
    if (!header) {
        snprintf(text, room,
                 r->fields > 1 ? "1 to %zu (the file has no header)"
                               : "%zu (the file has no header)",
                 r->fields);
        return;
    }
    size_t n = 0;
    *text = '\0';
    for (size_t i = 0; i < r->fields; i++) {
        const char *end = i + 1 < r->fields ? ", ..." : "";
        size_t needed = strlen(field(r, i)) + strlen("'', ") + strlen(end);
        if (n + needed >= room) {
            snprintf(text + n, room - n, "%s...", i ? ", " : "");
            return;
        }
        n += (size_t)snprintf(text + n, room - n, "%s'%s'", i ? ", " : "", field(r, i));
    }
}

static const char unnamed[] = "column "; /* and a number: what is without a name is called so */

/* By name if there is a header and it has that name, otherwise by number from 1. */
static qkv_status find_column(const reader *d, bool header, const char *wanted, size_t *index)
{
    const record *r = &d->record;
    size_t found = r->fields;
    for (size_t i = 0; header && i < r->fields; i++) {
        if (strcmp(field(r, i), wanted) != 0) continue;
        if (found < r->fields)
            return qkv_fail(QKV_E_FORMAT,
                            "%s: %s, line %zu: columns %zu and %zu are both '%s': ask for one by "
                            "its number",
                            caller, d->path, d->record_line, found + 1, i + 1, wanted);
        found = i;
    }
    if (found == r->fields) {
        const size_t prefix = strlen(unnamed);
        const char *digits =
            !header && strncmp(wanted, unnamed, prefix) == 0 ? wanted + prefix : wanted;
        char *end;
        unsigned long number = strtoul(digits, &end, 10);
        if (*digits >= '0' && *digits <= '9' && !*end && number >= 1 && number <= r->fields)
            found = number - 1;
    }
    *index = found;
    if (found < r->fields) return QKV_OK;
    if (d->o.by_place && !header)
        return qkv_fail(QKV_E_FORMAT,
                        "%s: %s, line %zu: columns: %zu, without a header; expected %zu, or a "
                        "header with '%.60s'",
                        caller, d->path, d->record_line, r->fields, d->o.n, wanted);
    char there[200];
    list_columns(r, header, there, sizeof there);
    if (d->o.by_place) /* it is the file that is wrong, not who asked */
        return qkv_fail(QKV_E_FORMAT, "%s: %s, line %zu: expected a column '%.60s', found %s",
                        caller, d->path, d->record_line, wanted, there);
    return qkv_fail(QKV_E_FORMAT, "%s: %s, line %zu: no column '%.60s': expected %s", caller,
                    d->path, d->record_line, wanted, there);
}

/* The header's name, or one by position that no reader takes for a number. */
static qkv_status name_column(reader *d, const char *text, size_t j)
{
    char **name = &d->table->names[j];
    if (text && *text)
        *name = strdup(text);
    else if (asprintf(name, "%s%zu", unnamed, d->index[j] + 1) < 0)
        *name = NULL;
    return *name ? QKV_OK : no_memory();
}

static qkv_status choose_columns(reader *d, bool header)
{
    qkv_table *t = d->table;
    bool all = d->o.n == 0 && !d->o.others;
    bool in_order = all || (d->o.by_place && !header && d->record.fields == d->o.n);
    t->columns = all ? d->record.fields : d->o.n;
    t->names = calloc(t->columns + 1, sizeof *t->names);
    d->index = calloc(t->columns + 1, sizeof *d->index);
    if (d->o.text) t->levels = calloc(t->columns + 1, sizeof *t->levels);
    if (!t->names || !d->index || (d->o.text && !t->levels)) return no_memory();
    for (size_t j = 0; j < t->columns; j++) {
        d->index[j] = j;
        qkv_status status =
            in_order ? QKV_OK : find_column(d, header, d->o.columns[j], &d->index[j]);
        if (!status) status = name_column(d, header ? field(&d->record, d->index[j]) : NULL, j);
        if (status) return status;
        for (size_t k = 0; k < j; k++)
            if (d->index[k] == d->index[j])
                return qkv_fail(QKV_E_FORMAT,
                                "%s: %s, line %zu, column %zu (%s): asked for twice, as '%s' and "
                                "as '%s'",
                                caller, d->path, d->record_line, d->index[j] + 1, t->names[j],
                                d->o.columns[k], d->o.columns[j]);
    }
    return QKV_OK;
}

/* The header stays until the first row has told which columns are numbers. */
static qkv_status keep_header(reader *d)
{
    d->header = calloc(d->width, sizeof *d->header);
    if (!d->header) return no_memory();
    for (size_t i = 0; i < d->width; i++) {
        d->header[i] = strdup(field(&d->record, i));
        if (!d->header[i]) return no_memory();
    }
    return QKV_OK;
}

static bool is_chosen(const reader *d, size_t i)
{
    for (size_t j = 0; j < d->table->columns; j++)
        if (d->index[j] == i) return true;
    return false;
}

/* Of the first row with data: all columns of numbers that are not chosen yet; what is wrong with
 * one is told when it is taken. */
static qkv_status choose_others(reader *d)
{
    qkv_table *t = d->table;
    size_t room = t->columns + d->width;
    char **names = realloc(t->names, room * sizeof *names);
    if (names) t->names = names;
    size_t *index = realloc(d->index, room * sizeof *index);
    if (index) d->index = index;
    if (!names || !index) return no_memory();
    if (t->levels) {
        qkv_levels *levels = realloc(t->levels, room * sizeof *levels);
        if (!levels) return no_memory();
        t->levels = levels;
        memset(levels + t->columns, 0, d->width * sizeof *levels);
    }
    for (size_t i = 0; i < d->width; i++) {
        double ignored;
        const char *cell = field(&d->record, i);
        bool nameless = d->header && !*d->header[i]; /* R numbers its rows in such a column */
        if (nameless || is_chosen(d, i)) continue;
        if (!is_missing(cell) && !parse_number(cell, &ignored) && !is_meant_as_number(cell))
            continue;
        d->index[t->columns] = i;
        t->names[t->columns] = NULL;
        qkv_status status = name_column(d, d->header ? d->header[i] : NULL, t->columns++);
        if (status) return status;
    }
    d->o.others = false;
    return QKV_OK;
}

/* ---- Records --------------------------------------------------------------------------------- */

/* The number of the label among those of column j so far; a new one is added. */
static qkv_status find_level(reader *d, size_t j, const char *cell, double *number)
{
    qkv_levels *l = &d->table->levels[j];
    size_t i = 0;
    while (i < l->n && strcmp(l->names[i], cell) != 0) i++;
    *number = (double)i;
    if (i < l->n) return QKV_OK;
    if (l->n == MAX_LEVELS)
        return qkv_fail(QKV_E_FORMAT,
                        "%s: %s, line %zu, column %zu (%s): more than %d different labels", caller,
                        d->path, d->record_line, d->index[j] + 1, d->table->names[j], MAX_LEVELS);
    if (!l->names) l->names = calloc(MAX_LEVELS, sizeof *l->names);
    if (!l->names || !(l->names[i] = strdup(cell))) return no_memory();
    l->n++;
    return QKV_OK;
}

static qkv_status take_cell(reader *d, size_t j, double *x)
{
    const char *cell = field(&d->record, d->index[j]), *problem = NULL;
    *x = NAN;
    if (is_missing(cell)) return QKV_OK;
    if (d->o.text && j < d->o.n && d->o.text[j]) return find_level(d, j, cell, x);
    if (!parse_number(cell, x))
        problem = strchr(cell, ',')
                      ? "is not a number; a decimal point is '.', and digits stand ungrouped"
                      : "is not a number";
    else if (!isfinite(*x))
        problem = "is beyond the range of a double";
    if (!problem) return QKV_OK;
    return qkv_fail(QKV_E_FORMAT, "%s: %s, line %zu, column %zu (%s): '%.60s' %s", caller, d->path,
                    d->record_line, d->index[j] + 1, d->table->names[j], cell, problem);
}

static qkv_status add_row(reader *d)
{
    qkv_table *t = d->table;
    size_t used = t->rows * t->columns;
    if (!reserve(&t->data, &d->data_capacity, used + t->columns, sizeof *t->data))
        return no_memory();
    bool missing = false;
    for (size_t j = 0; j < t->columns; j++) {
        qkv_status status = take_cell(d, j, &t->data[used + j]);
        if (status) return status;
        missing = missing || isnan(t->data[used + j]);
    }
    t->rows += !missing || d->o.keep_missing;
    t->dropped += missing;
    return QKV_OK;
}

static qkv_status take_record(reader *d)
{
    size_t fields = d->record.fields;
    if (d->width == 0) {
        d->width = fields;
        bool header = is_header(&d->record);
        qkv_status status = choose_columns(d, header);
        if (!status && header && d->o.others) status = keep_header(d);
        if (status || header) return status;
    }
    if (fields != d->width)
        return qkv_fail(QKV_E_FORMAT,
                        "%s: %s, line %zu, column %zu: fields in the row: %zu, in the first: %zu",
                        caller, d->path, d->record_line,
                        fields < d->width ? fields + 1 : d->width + 1, fields, d->width);
    qkv_status status = d->o.others ? choose_others(d) : QKV_OK;
    return status ? status : add_row(d);
}

static void on_field(void *text, size_t length, void *context)
{
    reader *d = context;
    record *r = &d->record;
    if (d->status) return;
    if (!reserve(&r->start, &r->fields_capacity, r->fields + 1, sizeof *r->start) ||
        !reserve(&r->text, &r->capacity, r->used + length + 1, 1)) {
        d->status = no_memory();
        return;
    }
    r->start[r->fields++] = r->used;
    if (length > 0) memcpy(r->text + r->used, text, length);
    r->text[r->used + length] = '\0';
    r->used += length + 1;
}

static void on_record(int terminator, void *context)
{
    (void)terminator;
    reader *d = context;
    bool blank = d->record.fields == 0;
    if (!d->status && !blank) d->status = take_record(d);
    d->record.fields = d->record.used = d->record_bytes = 0;
    d->record_line = d->line + 1;
}

/* ---- Files ----------------------------------------------------------------------------------- */

static unsigned char find_delimiter(const char *line, size_t length)
{
    static const char candidates[] = ",;\t";
    size_t count[3] = {0};
    bool quoted = false;
    for (size_t i = 0; i < length; i++) {
        if (line[i] == '"') quoted = !quoted;
        const char *found = quoted || !line[i] ? NULL : strchr(candidates, line[i]);
        if (found) count[found - candidates]++;
    }
    size_t best = 0;
    for (size_t i = 1; i < 3; i++)
        if (count[i] > count[best]) best = i;
    return (unsigned char)candidates[best];
}

/* Which field of the record byte at of a line is in, from 1. */
static size_t column_of(const reader *d, const char *line, const char *at)
{
    size_t column = d->record.fields + 1;
    bool quoted = false;
    for (; line < at; line++) {
        if (*line == '"') quoted = !quoted;
        column += !quoted && *line == d->delimiter;
    }
    return column;
}

static qkv_status parse_error(const reader *d, struct csv_parser *parser)
{
    if (d->status) return d->status;
    if (csv_error(parser) == CSV_ENOMEM) return no_memory();
    return qkv_fail(QKV_E_FORMAT, "%s: %s, line %zu, column %zu: a misplaced or unclosed quote",
                    caller, d->path, d->record_line, d->record.fields + 1);
}

static qkv_status parse_line(reader *d, struct csv_parser *parser, const char *line, size_t length)
{
    d->line++;
    if (d->line == 1) {
        if (length >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
            line += 3;
            length -= 3;
        }
        d->delimiter = (char)find_delimiter(line, length);
        csv_set_delim(parser, (unsigned char)d->delimiter);
    }
    const char *nul = memchr(line, '\0', length);
    if (nul)
        return qkv_fail(QKV_E_FORMAT, "%s: %s, line %zu, column %zu: a NUL byte", caller, d->path,
                        d->line, column_of(d, line, nul));
    d->record_bytes += length;
    bool parsed = csv_parse(parser, line, length, on_field, on_record, d) == length;
    return parsed && !d->status ? QKV_OK : parse_error(d, parser);
}

static qkv_status read_lines(reader *d, FILE *file)
{
    /* REPALL_NL: blank lines are reported too, or else we would lose count. */
    struct csv_parser parser;
    if (csv_init(&parser, CSV_STRICT | CSV_STRICT_FINI | CSV_REPALL_NL) != 0) return no_memory();
    csv_set_blk_size(&parser, 1 << 16); /* a long field grows by it, copied each time */
    char *line = NULL;
    size_t capacity = 0, length = 0;
    qkv_status status = QKV_OK;
    errno = 0;
    for (int c = 0; !status && c != EOF;) {
        c = getc_unlocked(file);
        if (c != EOF) {
            if (!reserve(&line, &capacity, length + 1, 1)) status = no_memory();
            if (!status) line[length++] = (char)c;
        }
        /* What no text has ends the line too: a device or a binary file may have no other end. */
        bool ended = c == '\n' || c == '\0' || (c == EOF && length > 0);
        if (!status && ended) {
            status = parse_line(d, &parser, line, length);
            length = 0;
        }
        if (!status && d->record_bytes + length > MAX_RECORD)
            status = qkv_fail(QKV_E_FORMAT, "%s: %s, line %zu: the row has more than %d MiB",
                              caller, d->path, d->record_line, MAX_RECORD >> 20);
    }
    if (!status && ferror(file))
        status = qkv_fail(errno == ENOMEM ? QKV_E_NOMEM : QKV_E_IO, "%s: cannot read %s: %s",
                          caller, d->path, strerror(errno));
    if (!status && (csv_fini(&parser, on_field, on_record, d) != 0 || d->status))
        status = parse_error(d, &parser);
    free(line);
    csv_free(&parser);
    if (!status && d->table->rows == 0)
        status =
            qkv_fail(QKV_E_FORMAT, "%s: %s, line %zu, column 1: expected a complete row, found %s",
                     caller, d->path, d->line + 1,
                     d->table->dropped ? "only incomplete ones"
                     : d->width        ? "only a header"
                                       : "an empty file");
    return status;
}

static void release(reader *d)
{
    free(d->record.text);
    free(d->record.start);
    free(d->index);
    for (size_t i = 0; d->header && i < d->width; i++) free(d->header[i]);
    free(d->header);
}

qkv_status qkv_csv_read(qkv_table *table, const char *path, const qkv_csv_options *options)
{
    static const qkv_csv_options all = {0};
    if (!options) options = &all;
    if (!table || !path || (options->n > 0 && !options->columns))
        return qkv_fail(QKV_E_ARG, "%s: table, path or columns is NULL", caller);
    *table = (qkv_table){0};
    bool standard = strcmp(path, "-") == 0;
    FILE *file = standard ? stdin : fopen(path, "re");
    if (!file) return qkv_fail(QKV_E_IO, "%s: cannot read %s: %s", caller, path, strerror(errno));
    reader d = {.path = standard ? "standard input" : path,
                .o = *options,
                .record_line = 1,
                .table = table};
    locale_t locale = qkv_c_locale_enter();
    qkv_status status = read_lines(&d, file);
    qkv_c_locale_leave(locale);
    if (!standard) fclose(file);
    release(&d);
    if (status) qkv_csv_free(table);
    return status;
}

qkv_status qkv_csv_load(qkv_table *table, const char *path, const char *const *columns, size_t n)
{
    return qkv_csv_read(table, path, &(qkv_csv_options){.columns = columns, .n = n});
}

void qkv_csv_free(qkv_table *table)
{
    if (!table) return;
    for (size_t j = 0; j < table->columns; j++) {
        if (table->names) free(table->names[j]);
        for (size_t i = 0; table->levels && i < table->levels[j].n; i++)
            free(table->levels[j].names[i]);
        if (table->levels) free(table->levels[j].names);
    }
    free(table->names);
    free(table->levels);
    free(table->data);
    *table = (qkv_table){0};
}

/* ---- Writing --------------------------------------------------------------------------------- */

static void write_number(FILE *f, double x)
{
    if (isnan(x)) {
        fputs("NA", f);
        return;
    }
    char digits[40];
    for (int precision = 15; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, x);
        if (strtod(digits, NULL) == x) break;
    }
    fputs(digits, f);
}

static void write_text(FILE *f, const char *text)
{
    if (strpbrk(text, ",;\t\"\r\n"))
        csv_fwrite(f, text, strlen(text));
    else
        fputs(text, f);
}

qkv_status qkv_csv_write(const char *path, const qkv_csv_column *columns, size_t n, size_t rows)
{
    if (n == 0 || !columns) return qkv_fail(QKV_E_ARG, "qkv_csv_save: no columns, or NULL");
    qkv_output output;
    qkv_status status = qkv_output_open_or_standard(&output, path, "qkv_csv_save");
    if (status) return status;
    locale_t locale = qkv_c_locale_enter();
    for (size_t j = 0; j < n; j++) {
        write_text(output.stream, columns[j].name);
        fputc(j + 1 < n ? ',' : '\n', output.stream);
    }
    for (size_t i = 0; i < rows; i++) {
        for (size_t j = 0; j < n; j++) {
            double x = columns[j].data[i];
            if (columns[j].levels && !isnan(x))
                write_text(output.stream, columns[j].levels[(size_t)x]);
            else
                write_number(output.stream, x);
            fputc(j + 1 < n ? ',' : '\n', output.stream);
        }
    }
    qkv_c_locale_leave(locale);
    return qkv_output_commit(&output, "qkv_csv_save");
}

qkv_status qkv_csv_save(const char *path, const char *const *names, const double *const *columns,
                        size_t n, size_t rows)
{
    if (n == 0 || !names || !columns)
        return qkv_fail(QKV_E_ARG, "qkv_csv_save: no columns, or names or columns is NULL");
    qkv_csv_column *all = calloc(n, sizeof *all);
    if (!all) return qkv_fail(QKV_E_NOMEM, "qkv_csv_save: no memory");
    for (size_t j = 0; j < n; j++) all[j] = (qkv_csv_column){.name = names[j], .data = columns[j]};
    qkv_status status = qkv_csv_write(path, all, n, rows);
    free(all);
    return status;
}
