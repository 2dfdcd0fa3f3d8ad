#include "safetensors.h"

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fail.h"
#include "file.h"
#include "json.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are copied as they are");

enum { PREFIX = 8, ALIGNMENT = 8 };
static const uint64_t MAX_HEADER = 100000000; /* the format's own limit */

static const char *const dtypes[] = {[QKV_F32] = "F32", [QKV_F64] = "F64"};

/* ---- Names ----------------------------------------------------------------------------------- */

/* The bytes of the character at text, of n that are left; 0 if it is none. */
static size_t character(const unsigned char *text, size_t n)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t bytes = *text < 0x80             ? 1
                   : (*text & 0xe0) == 0xc0 ? 2
                   : (*text & 0xf0) == 0xe0 ? 3
                   : (*text & 0xf8) == 0xf0 ? 4
                                            : 0;
    if (bytes == 0 || bytes > n) return 0;
    uint32_t code = bytes == 1 ? *text : *text & (0x7fu >> bytes);
    for (size_t i = 1; i < bytes; i++) {
        if ((text[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (text[i] & 0x3f);
    }
    bool surrogate = code >= 0xd800 && code <= 0xdfff;
    return code < least[bytes] || code > 0x10ffff || surrogate ? 0 : bytes;
}

bool qkv_is_utf8(const char *text, size_t n, bool printable)
{
    const unsigned char *at = (const unsigned char *)text, *end = at + n;
    while (at < end) {
        size_t bytes = character(at, (size_t)(end - at));
        bool control = *at < 0x20 || *at == 0x7f || (bytes == 2 && *at == 0xc2 && at[1] < 0xa0);
        if (bytes == 0 || (printable && control)) return false;
        at += bytes;
    }
    return true;
}

/* ---- Saving ---------------------------------------------------------------------------------- */

static void write_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') fputc('\\', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

static void write_header(FILE *out, const qkv_tensor *tensors, size_t n)
{
    size_t at = 0;
    fputc('{', out);
    for (size_t i = 0; i < n; i++) {
        const qkv_tensor *t = &tensors[i];
        if (i) fputc(',', out);
        write_string(out, t->name);
        fprintf(out, ":{\"dtype\":\"%s\",\"shape\":[", dtypes[t->dtype]);
        for (int k = 0; k < t->rank; k++) fprintf(out, k ? ",%td" : "%td", t->dim[k]);
        fprintf(out, "],\"data_offsets\":[%zu,%zu]}", at, at + t->bytes);
        at += t->bytes;
    }
    fputc('}', out);
    /* Blanks, so that the numbers are aligned where the file is mapped. */
    for (long length = ftell(out); length % ALIGNMENT; length++) fputc(' ', out);
}

qkv_status qkv_tensors_save(const char *caller, const qkv_tensor *tensors, size_t n,
                            const char *path)
{
    char *header = NULL;
    size_t length = 0;
    FILE *text = open_memstream(&header, &length);
    if (text) write_header(text, tensors, n);
    bool failed = !text || ferror(text) != 0;
    if ((text && fclose(text) != 0) || failed) {
        free(header);
        return qkv_fail(QKV_E_NOMEM, "%s: no memory for the header", caller);
    }
    qkv_output output;
    qkv_status status = qkv_output_open(&output, path, caller);
    if (!status) {
        const uint64_t prefix = length;
        fwrite(&prefix, 1, sizeof prefix, output.stream);
        fwrite(header, 1, length, output.stream);
        for (size_t i = 0; i < n; i++)
            if (tensors[i].bytes) fwrite(tensors[i].data, 1, tensors[i].bytes, output.stream);
        status = qkv_output_commit(&output, caller);
    }
    free(header);
    return status;
}

/* ---- The header of a file -------------------------------------------------------------------- */

/* A file that is read, and what it is read into. */
typedef struct source {
    const char *caller, *path;
    qkv_json json; /* its header */
    size_t data_bytes;
    qkv_tensor *tensors;
    size_t n;
} source;

static qkv_status malformed(const source *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static qkv_status malformed(const source *s, const char *format, ...)
{
    char problem[QKV_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(problem, sizeof problem, format, arguments);
    va_end(arguments);
    return qkv_fail(QKV_E_FORMAT, "%s: %s: %s", s->caller, s->path, problem);
}

/* What the JSON reader found wrong, or that it found something else. */
static qkv_status unexpected(const source *s, const char *expected)
{
    return malformed(s, "byte %zu: %s", PREFIX + s->json.at,
                     s->json.problem ? s->json.problem : expected);
}

/* What the file says of one array. */
typedef struct entry {
    qkv_json_text dtype;
    int rank;
    size_t dim[QKV_TENSOR_MAX_RANK];
    size_t offset[2];
} entry;

/* Numbers in brackets, up to most of them. */
static qkv_status read_sizes(source *s, size_t *to, int most, int *n)
{
    qkv_json *j = &s->json;
    if (!qkv_json_accept(j, '[')) return unexpected(s, "expected [");
    for (*n = 0; !qkv_json_accept(j, ']'); ++*n) {
        if (*n && !qkv_json_accept(j, ',')) return unexpected(s, "expected , or ]");
        if (*n == most) return malformed(s, "byte %zu: more than %d numbers", PREFIX + j->at, most);
        if (!qkv_json_size(j, &to[*n])) return unexpected(s, "expected a number, 0 or more");
    }
    return QKV_OK;
}

static qkv_status read_field(source *s, qkv_json_text key, bool seen[3], entry *e)
{
    static const char *const keys[] = {"dtype", "shape", "data_offsets"};
    int k = 0, n;
    while (k < 3 && !qkv_json_is(key, keys[k])) k++;
    if (k == 3 || seen[k]) return unexpected(s, "an unknown or repeated key before this");
    seen[k] = true;
    if (k == 0) {
        if (!qkv_json_string(&s->json, &e->dtype)) return unexpected(s, "expected a string");
        return qkv_is_utf8(e->dtype.text, e->dtype.n, true)
                   ? QKV_OK
                   : unexpected(s, "a control character in the dtype before this");
    }
    if (k == 1) return read_sizes(s, e->dim, QKV_TENSOR_MAX_RANK, &e->rank);
    qkv_status status = read_sizes(s, e->offset, 2, &n);
    return status || n == 2 ? status : unexpected(s, "expected two offsets before this");
}

static qkv_status read_entry(source *s, entry *e)
{
    bool seen[3] = {false};
    qkv_json_text key;
    qkv_json *j = &s->json;
    if (!qkv_json_accept(j, '{')) return unexpected(s, "expected {");
    for (bool first = true; !qkv_json_accept(j, '}'); first = false) {
        if (!first && !qkv_json_accept(j, ',')) return unexpected(s, "expected , or }");
        if (!qkv_json_key(j, &key)) return unexpected(s, "expected a key");
        qkv_status status = read_field(s, key, seen, e);
        if (status) return status;
    }
    if (seen[0] && seen[1] && seen[2]) return QKV_OK;
    return unexpected(s, "dtype, shape or data_offsets is missing before this");
}

/* {"key": "value", ..} */
static qkv_status skip_metadata(source *s)
{
    qkv_json_text key, value;
    qkv_json *j = &s->json;
    if (!qkv_json_accept(j, '{')) return unexpected(s, "expected {");
    for (bool first = true; !qkv_json_accept(j, '}'); first = false) {
        if (!first && !qkv_json_accept(j, ',')) return unexpected(s, "expected , or }");
        if (!qkv_json_key(j, &key) || !qkv_json_string(j, &value))
            return unexpected(s, "expected a string");
    }
    return QKV_OK;
}

enum { SIZES_TEXT = 200 }; /* 8 numbers of 20 digits */

/* "[2,3]" */
static const char *describe(int rank, const size_t *dim, char text[SIZES_TEXT])
{
    int at = snprintf(text, SIZES_TEXT, "[");
    for (int i = 0; i < rank; i++)
        at += snprintf(text + at, SIZES_TEXT - (size_t)at, i ? ",%zu" : "%zu", dim[i]);
    snprintf(text + at, SIZES_TEXT - (size_t)at, "]");
    return text;
}

/* The bytes of x's whole characters within the first most. */
static int most_of(qkv_json_text x, int most)
{
    int n = x.n < (size_t)most ? (int)x.n : most;
    while (!qkv_is_utf8(x.text, (size_t)n, false)) n--;
    return n;
}

/* What the file has is what is expected. */
static qkv_status match(const source *s, const qkv_tensor *t, const entry *e)
{
    if (!qkv_json_is(e->dtype, dtypes[t->dtype]))
        return malformed(s, "'%s' is of dtype %.*s, expected %s", t->name, most_of(e->dtype, 20),
                         e->dtype.text, dtypes[t->dtype]);
    size_t dim[QKV_TENSOR_MAX_RANK];
    bool same = e->rank == t->rank;
    for (int i = 0; i < t->rank; i++) {
        dim[i] = (size_t)t->dim[i];
        same = same && e->dim[i] == dim[i];
    }
    char found[SIZES_TEXT], expected[SIZES_TEXT];
    if (!same)
        return malformed(s, "'%s' is %s, expected %s", t->name, describe(e->rank, e->dim, found),
                         describe(t->rank, dim, expected));
    if (e->offset[1] < e->offset[0] || e->offset[1] > s->data_bytes ||
        e->offset[1] - e->offset[0] != t->bytes)
        return malformed(s, "'%s' has %zu bytes, but is said to be bytes %zu to %zu of %zu",
                         t->name, t->bytes, e->offset[0], e->offset[1], s->data_bytes);
    return QKV_OK;
}

static qkv_status read_tensor(source *s, qkv_json_text name)
{
    if (!qkv_is_utf8(name.text, name.n, true))
        return unexpected(s, "a control character in the name before this");
    qkv_tensor *t = s->tensors, *end = t + s->n;
    while (t < end && !qkv_json_is(name, t->name)) t++;
    if (t == end)
        return malformed(s, "it has '%.*s', which is not expected", most_of(name, 255), name.text);
    if (t->found) return malformed(s, "it has '%s' twice", t->name);
    entry e = {0};
    qkv_status status = read_entry(s, &e);
    if (!status) status = match(s, t, &e);
    t->begin = e.offset[0];
    t->end = e.offset[1];
    t->found = true;
    return status;
}

static qkv_status read_names(source *s)
{
    qkv_json *j = &s->json;
    bool metadata = false;
    if (!qkv_json_accept(j, '{')) return unexpected(s, "expected {");
    for (bool first = true; !qkv_json_accept(j, '}'); first = false) {
        qkv_json_text name;
        if (!first && !qkv_json_accept(j, ',')) return unexpected(s, "expected , or }");
        if (!qkv_json_key(j, &name)) return unexpected(s, "expected a key");
        bool is_metadata = qkv_json_is(name, "__metadata__");
        if (is_metadata && metadata) return malformed(s, "it has __metadata__ twice");
        metadata |= is_metadata;
        qkv_status status = is_metadata ? skip_metadata(s) : read_tensor(s, name);
        if (status) return status;
    }
    return qkv_json_at_end(j) ? QKV_OK : unexpected(s, "text after the header's }");
}

/* ---- Loading --------------------------------------------------------------------------------- */

static int by_place(const void *a, const void *b)
{
    const qkv_tensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

/* The arrays are one after another, from the first byte of the data to the last. */
static qkv_status check_places(source *s)
{
    size_t at = 0;
    for (size_t i = 0; i < s->n; i++)
        if (!s->tensors[i].found) return malformed(s, "it lacks '%s'", s->tensors[i].name);
    if (s->n) qsort(s->tensors, s->n, sizeof *s->tensors, by_place);
    for (size_t i = 0; i < s->n; i++) {
        const qkv_tensor *t = &s->tensors[i];
        if (t->begin < at)
            return malformed(s, "'%s' and '%s' overlap", s->tensors[i - 1].name, t->name);
        if (t->begin > at)
            return malformed(s, "bytes %zu to %zu of the data are nobody's", at, t->begin);
        at = t->end;
    }
    if (at == s->data_bytes) return QKV_OK;
    return malformed(s, "bytes %zu to %zu of the data are nobody's", at, s->data_bytes);
}

static qkv_status read_exactly(const source *s, FILE *file, void *to, size_t n)
{
    if (fread(to, 1, n, file) == n) return QKV_OK;
    if (!ferror(file)) return malformed(s, "the file ends too early");
    return qkv_fail(QKV_E_IO, "%s: cannot read %s: %s", s->caller, s->path, strerror(errno));
}

static qkv_status no_memory(const source *s, size_t bytes)
{
    return qkv_fail(QKV_E_NOMEM, "%s: no memory for %zu bytes", s->caller, bytes);
}

/* All of it at first, so that a file that cannot be read to its end changes nothing. */
static qkv_status read_data(source *s, FILE *file)
{
    char *data = malloc(s->data_bytes + !s->data_bytes);
    if (!data) return no_memory(s, s->data_bytes);
    qkv_status status = read_exactly(s, file, data, s->data_bytes);
    for (size_t i = 0; i < s->n && !status; i++)
        if (s->tensors[i].bytes)
            memcpy(s->tensors[i].data, data + s->tensors[i].begin, s->tensors[i].bytes);
    free(data);
    return status;
}

static qkv_status read_file(source *s, FILE *file, size_t file_bytes)
{
    uint64_t length;
    qkv_status status = read_exactly(s, file, &length, PREFIX);
    if (status) return status;
    if (length > file_bytes - PREFIX || length > MAX_HEADER)
        return malformed(s, "byte 0: a header of %llu bytes, in a file of %zu",
                         (unsigned long long)length, file_bytes);
    s->json = (qkv_json){.text = malloc(length + 1), .length = length};
    s->data_bytes = file_bytes - PREFIX - length;
    if (!s->json.text) return no_memory(s, length);
    status = read_exactly(s, file, s->json.text, length);
    if (!status && !qkv_is_utf8(s->json.text, length, false))
        status = malformed(s, "the header is not UTF-8");
    if (!status && (length == 0 || s->json.text[0] != '{'))
        status = malformed(s, "byte %d: expected {", PREFIX);
    if (!status) status = read_names(s);
    if (!status) status = check_places(s);
    free(s->json.text);
    return status ? status : read_data(s, file);
}

qkv_status qkv_tensors_load(const char *caller, qkv_tensor *tensors, size_t n, const char *path)
{
    FILE *file = fopen(path, "rbe");
    struct stat info;
    if (!file || fstat(fileno(file), &info) != 0 || !S_ISREG(info.st_mode)) {
        const char *reason = file ? "not a regular file" : strerror(errno);
        if (file) fclose(file);
        return qkv_fail(QKV_E_IO, "%s: cannot read %s: %s", caller, path, reason);
    }
    source s = {.caller = caller, .path = path, .tensors = tensors, .n = n};
    qkv_status status = read_file(&s, file, (size_t)info.st_size);
    fclose(file);
    return status;
}
