#include "qkv/npy.h"

#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fail.h"
#include "file.h"
#include "size.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "'<' and '=' are taken to be the same");

static const struct {
    const char *code; /* without the byte order */
    size_t bytes;
} types[] = {
    [QKV_NPY_F32] = {"f4", 4},  [QKV_NPY_F64] = {"f8", 8}, [QKV_NPY_I64] = {"i8", 8},
    [QKV_NPY_BOOL] = {"b1", 1}, [QKV_NPY_F16] = {"f2", 2}, [QKV_NPY_I8] = {"i1", 1},
    [QKV_NPY_I16] = {"i2", 2},  [QKV_NPY_I32] = {"i4", 4}, [QKV_NPY_U8] = {"u1", 1},
    [QKV_NPY_U16] = {"u2", 2},  [QKV_NPY_U32] = {"u4", 4}, [QKV_NPY_U64] = {"u8", 8},
};
enum { N_TYPES = sizeof types / sizeof *types, MAX_HEADER = 1 << 16 };

static const char magic[] = "\x93NUMPY";
enum { MAGIC = sizeof magic - 1, PREFIX_V1 = MAGIC + 4, PREFIX_V2 = MAGIC + 6 };

size_t qkv_npy_item_bytes(qkv_npy_type type)
{
    return (unsigned)type < N_TYPES ? types[type].bytes : 0;
}

size_t qkv_npy_size(const qkv_npy *array)
{
    size_t n = 1;
    for (int i = 0; i < array->rank; i++) n *= (size_t)array->dim[i];
    return n;
}

/* IEEE 754 binary16. */
static double half(uint16_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double x = exponent == 0   ? ldexp(fraction, -24)
               : exponent < 31 ? ldexp(1024 + fraction, exponent - 25)
               : fraction == 0 ? (double)INFINITY
                               : (double)NAN;
    return bits >> 15 ? -x : x;
}

double qkv_npy_element(const qkv_npy *array, size_t i)
{
    const void *data = array->data;
    switch (array->type) {
    case QKV_NPY_F32:
        return (double)((const float *)data)[i];
    case QKV_NPY_F64:
        return ((const double *)data)[i];
    case QKV_NPY_F16:
        return half(((const uint16_t *)data)[i]);
    case QKV_NPY_I8:
        return ((const int8_t *)data)[i];
    case QKV_NPY_I16:
        return ((const int16_t *)data)[i];
    case QKV_NPY_I32:
        return ((const int32_t *)data)[i];
    case QKV_NPY_I64:
        return (double)((const int64_t *)data)[i];
    case QKV_NPY_U8:
        return ((const uint8_t *)data)[i];
    case QKV_NPY_U16:
        return ((const uint16_t *)data)[i];
    case QKV_NPY_U32:
        return ((const uint32_t *)data)[i];
    case QKV_NPY_U64:
        return (double)((const uint64_t *)data)[i];
    case QKV_NPY_BOOL:
        return ((const uint8_t *)data)[i] != 0;
    }
    return NAN;
}

void qkv_npy_free(qkv_npy *array)
{
    if (!array) return;
    free(array->data);
    *array = (qkv_npy){0};
}

/* ---- The header: a Python dictionary of three keys in any order --------------------------------
 */

/* How the elements lie in the file. */
typedef struct storage {
    bool big_endian, fortran;
} storage;

/* Where we are in the header text, and the file it came from. */
typedef struct cursor {
    const char *caller, *path, *text; /* caller: the public function, for messages */
    size_t at, length, offset;        /* offset: of text in the file */
} cursor;

static qkv_status malformed(const cursor *c, const char *problem)
{
    return qkv_fail(QKV_E_FORMAT, "%s: %s, byte %zu: %s", c->caller, c->path, c->offset + c->at,
                    problem);
}

static bool accept(cursor *c, const char *token)
{
    while (c->at < c->length && (c->text[c->at] == ' ' || c->text[c->at] == '\n')) c->at++;
    size_t n = strlen(token);
    if (c->length - c->at < n || memcmp(c->text + c->at, token, n) != 0) return false;
    c->at += n;
    return true;
}

/* A quoted string without escapes; *string is not terminated. */
static qkv_status parse_string(cursor *c, const char **string, size_t *n)
{
    char quote = accept(c, "'") ? '\'' : '"';
    if (quote == '"' && !accept(c, "\"")) return malformed(c, "expected a quoted string");
    *string = c->text + c->at;
    const char *end = memchr(*string, quote, c->length - c->at);
    if (!end) return malformed(c, "a string without its closing quote");
    *n = (size_t)(end - *string);
    c->at += *n + 1;
    return QKV_OK;
}

/* Why elements of a kind that NumPy has are not read. */
static const char *refusal(char kind)
{
    switch (kind) {
    case 'O':
        return "Python objects are not supported";
    case 'c':
        return "complex numbers are not supported";
    case 'S':
    case 'U':
    case 'a':
        return "texts are not supported";
    case 'M':
    case 'm':
        return "dates and times are not supported";
    case 'V':
        return "raw bytes are not supported";
    default:
        return "expected element type b1, i1, i2, i4, i8, u1, u2, u4, u8, f2, f4 or f8 behind "
               "<, >, = or |";
    }
}

static qkv_status parse_type(cursor *c, qkv_npy_type *type, bool *big_endian)
{
    if (accept(c, "[")) return malformed(c, "structured element types are not supported");
    const char *descr;
    size_t n;
    qkv_status status = parse_string(c, &descr, &n);
    if (status) return status;
    bool ordered = n > 1 && memchr("<>=|", descr[0], 4);
    *big_endian = ordered && descr[0] == '>';
    for (int i = 0; ordered && n == 3 && i < N_TYPES; i++) {
        if (memcmp(descr + 1, types[i].code, 2) != 0) continue;
        *type = (qkv_npy_type)i;
        return QKV_OK;
    }
    c->at -= n + 1;
    char problem[200];
    snprintf(problem, sizeof problem, "%s, found '%.*s'", refusal(ordered ? descr[1] : '\0'),
             (int)(n < 20 ? n : 20), descr);
    return malformed(c, problem);
}

static qkv_status parse_order(cursor *c, bool *fortran)
{
    *fortran = accept(c, "True");
    return *fortran || accept(c, "False") ? QKV_OK : malformed(c, "expected True or False");
}

static qkv_status parse_dim(cursor *c, ptrdiff_t *dim)
{
    accept(c, "");
    size_t start = c->at;
    for (*dim = 0; c->at < c->length && c->text[c->at] >= '0' && c->text[c->at] <= '9'; c->at++) {
        if (__builtin_mul_overflow(*dim, 10, dim) ||
            __builtin_add_overflow(*dim, c->text[c->at] - '0', dim))
            return malformed(c, "a size beyond 64 bits");
    }
    if (c->at == start) return malformed(c, "expected a size: a number, 0 or more");
    accept(c, "L"); /* as Python 2 wrote it */
    return QKV_OK;
}

static qkv_status parse_shape(cursor *c, qkv_npy *array)
{
    if (!accept(c, "(")) return malformed(c, "expected the shape, (n, ...)");
    for (array->rank = 0; !accept(c, ")"); array->rank++) {
        if (array->rank == QKV_NPY_MAX_RANK) return malformed(c, "more than 8 axes");
        qkv_status status = parse_dim(c, &array->dim[array->rank]);
        if (status) return status;
        if (accept(c, ",")) continue;
        if (!accept(c, ")")) return malformed(c, "expected , or ) in the shape");
        if (array->rank == 0) return malformed(c, "one size in brackets is no tuple: (n,)");
        array->rank++;
        break;
    }
    return QKV_OK;
}

static qkv_status parse_header(cursor *c, qkv_npy *array, storage *stored)
{
    static const char *const keys[] = {"descr", "fortran_order", "shape"};
    bool seen[3] = {false};
    if (!accept(c, "{")) return malformed(c, "expected the header's {");
    while (!accept(c, "}")) {
        const char *name;
        size_t n;
        qkv_status status = parse_string(c, &name, &n);
        if (status) return status;
        int key = 0;
        while (key < 3 && (n != strlen(keys[key]) || memcmp(name, keys[key], n) != 0)) key++;
        if (key == 3 || seen[key]) return malformed(c, "an unknown or repeated key");
        seen[key] = true;
        if (!accept(c, ":")) return malformed(c, "expected : after a key");
        status = key == 0   ? parse_type(c, &array->type, &stored->big_endian)
                 : key == 1 ? parse_order(c, &stored->fortran)
                            : parse_shape(c, array);
        if (status) return status;
        if (accept(c, ",")) continue;
        if (!accept(c, "}")) return malformed(c, "expected , or } after a value");
        break;
    }
    accept(c, "");
    if (c->at < c->length) return malformed(c, "text after the header's }");
    return seen[0] && seen[1] && seen[2]
               ? QKV_OK
               : malformed(c, "the header lacks descr, fortran_order or shape");
}

/* ---- Loading -----------------------------------------------------------------------------------
 */

static qkv_status read_exactly(FILE *file, cursor *c, void *to, size_t n)
{
    if (fread(to, 1, n, file) == n) return QKV_OK;
    if (!ferror(file)) return malformed(c, "the file ends too early");
    return qkv_fail(QKV_E_IO, "%s: cannot read %s: %s", c->caller, c->path, strerror(errno));
}

/* Leaves c at the start of the header text, with its length. */
static qkv_status read_prefix(FILE *file, size_t file_bytes, cursor *c)
{
    unsigned char b[PREFIX_V2];
    qkv_status status = read_exactly(file, c, b, PREFIX_V1);
    if (status) return status;
    if (memcmp(b, magic, MAGIC) != 0) return malformed(c, "this is no .npy file");
    c->at = MAGIC;
    if (b[6] < 1 || b[6] > 3 || b[7] != 0)
        return malformed(c, "expected format version 1.0, 2.0 or 3.0");
    c->at += 2;
    c->length = b[8] | (size_t)b[9] << 8;
    c->offset = PREFIX_V1;
    if (b[6] > 1) {
        status = read_exactly(file, c, b + PREFIX_V1, PREFIX_V2 - PREFIX_V1);
        if (status) return status;
        c->length |= (size_t)b[10] << 16 | (size_t)b[11] << 24;
        c->offset = PREFIX_V2;
    }
    if (c->length > MAX_HEADER || c->length > file_bytes - c->offset) {
        c->offset = 0;
        return malformed(c, "the header is longer than the file, or than 64 KiB");
    }
    c->at = 0;
    return QKV_OK;
}

static qkv_status read_header(FILE *file, size_t file_bytes, cursor *c, qkv_npy *array,
                              storage *stored)
{
    qkv_status status = read_prefix(file, file_bytes, c);
    if (status) return status;
    char *text = malloc(c->length + 1);
    if (!text) return qkv_fail(QKV_E_NOMEM, "%s: no memory for the header", c->caller);
    c->text = text;
    status = read_exactly(file, c, text, c->length);
    if (!status) status = parse_header(c, array, stored);
    free(text);
    c->text = NULL;
    return status;
}

static void swap_bytes(qkv_npy *array)
{
    size_t bytes = qkv_npy_item_bytes(array->type), n = qkv_npy_size(array);
    for (unsigned char *x = array->data; n > 0; n--, x += bytes) {
        for (size_t i = 0; i < bytes / 2; i++) {
            unsigned char first = x[i];
            x[i] = x[bytes - 1 - i];
            x[bytes - 1 - i] = first;
        }
    }
}

/* Column-major to C order: the last axis of the file's order runs slowest. */
static qkv_status transpose(qkv_npy *array)
{
    size_t bytes = qkv_npy_item_bytes(array->type), n = qkv_npy_size(array);
    char *to = malloc(n ? n * bytes : 1);
    if (!to) return qkv_fail(QKV_E_NOMEM, "qkv_npy_load: no memory for %zu bytes", n * bytes);
    size_t stride[QKV_NPY_MAX_RANK], span = 1;
    ptrdiff_t index[QKV_NPY_MAX_RANK] = {0};
    for (int i = 0; i < array->rank; i++) {
        stride[i] = span;
        span *= (size_t)array->dim[i];
    }
    size_t from = 0;
    for (size_t i = 0; i < n; i++) {
        memcpy(to + i * bytes, (const char *)array->data + from * bytes, bytes);
        for (int axis = array->rank - 1; axis >= 0; axis--) {
            from += stride[axis];
            if (++index[axis] < array->dim[axis]) break;
            from -= stride[axis] * (size_t)array->dim[axis];
            index[axis] = 0;
        }
    }
    free(array->data);
    array->data = to;
    return QKV_OK;
}

/* The header, and that the data are as long as it says. */
static qkv_status read_sizes(FILE *file, size_t file_bytes, cursor *c, qkv_npy *array,
                             storage *stored, size_t *data_bytes)
{
    qkv_status status = read_header(file, file_bytes, c, array, stored);
    if (status) return status;
    size_t bytes = qkv_npy_item_bytes(array->type), left = file_bytes - c->offset - c->length;
    bool fits = true;
    for (int i = 0; i < array->rank; i++) fits = fits && qkv_size_mul(&bytes, array->dim[i]);
    *data_bytes = bytes;
    if (fits && bytes == left) return QKV_OK;
    return qkv_fail(QKV_E_FORMAT,
                    "%s: %s, byte %zu: the shape needs %s%zu bytes of data, the file has %zu",
                    c->caller, c->path, c->offset + c->length, fits ? "" : "more than ",
                    fits ? bytes : SIZE_MAX, left);
}

static qkv_status load_from(FILE *file, size_t file_bytes, cursor *c, qkv_npy *array)
{
    storage stored = {0};
    size_t bytes;
    qkv_status status = read_sizes(file, file_bytes, c, array, &stored, &bytes);
    if (status) return status;
    array->data = malloc(bytes ? bytes : 1);
    if (!array->data) return qkv_fail(QKV_E_NOMEM, "qkv_npy_load: no memory for %zu bytes", bytes);
    status = read_exactly(file, c, array->data, bytes);
    if (!status && stored.big_endian) swap_bytes(array);
    return status || !stored.fortran ? status : transpose(array);
}

/* Leaves the file's bytes where they are: they must be the array's. */
static qkv_status look_at(FILE *file, size_t file_bytes, cursor *c, qkv_npy *array)
{
    storage stored = {0};
    size_t bytes;
    qkv_status status = read_sizes(file, file_bytes, c, array, &stored, &bytes);
    if (status) return status;
    const char *problem = stored.fortran && array->rank > 1 ? "Fortran order"
                          : stored.big_endian && qkv_npy_item_bytes(array->type) > 1
                              ? "big-endian elements"
                              : NULL;
    return problem ? qkv_fail(QKV_E_FORMAT, "%s: %s has %s: load it", c->caller, c->path, problem)
                   : QKV_OK;
}

typedef qkv_status reader(FILE *file, size_t file_bytes, cursor *c, qkv_npy *array);

static qkv_status read_file(qkv_npy *array, cursor *c, reader *read)
{
    if (!array || !c->path) return qkv_fail(QKV_E_ARG, "%s: array or path is NULL", c->caller);
    *array = (qkv_npy){0};
    FILE *file = fopen(c->path, "rbe");
    struct stat info;
    if (!file || fstat(fileno(file), &info) != 0 || !S_ISREG(info.st_mode)) {
        const char *reason = file ? "not a regular file" : strerror(errno);
        if (file) fclose(file);
        return qkv_fail(QKV_E_IO, "%s: cannot read %s: %s", c->caller, c->path, reason);
    }
    qkv_status status = read(file, (size_t)info.st_size, c, array);
    fclose(file);
    if (status) qkv_npy_free(array);
    return status;
}

qkv_status qkv_npy_load(qkv_npy *array, const char *path)
{
    return read_file(array, &(cursor){.caller = "qkv_npy_load", .path = path}, load_from);
}

qkv_status qkv_npy_header(qkv_npy *array, const char *path, size_t *offset)
{
    cursor c = {.caller = "qkv_npy_header", .path = path};
    if (!offset) return qkv_fail(QKV_E_ARG, "qkv_npy_header: offset is NULL");
    qkv_status status = read_file(array, &c, look_at);
    if (!status) *offset = c.offset + c.length;
    return status;
}

/* ---- Saving ------------------------------------------------------------------------------------
 */

static int format_header(const qkv_npy *array, char *text, size_t capacity)
{
    int n = snprintf(text, capacity, "{'descr': '%c%s', 'fortran_order': False, 'shape': (",
                     types[array->type].bytes == 1 ? '|' : '<', types[array->type].code);
    for (int i = 0; i < array->rank; i++)
        n += snprintf(text + n, capacity - (size_t)n, "%td%s", array->dim[i],
                      i + 1 < array->rank ? ", "
                      : array->rank == 1  ? ","
                                          : "");
    n += snprintf(text + n, capacity - (size_t)n, "), }");
    /* The data starts at a multiple of 64 bytes, so that it can be mapped. */
    while ((PREFIX_V1 + n + 1) % 64 != 0) text[n++] = ' ';
    text[n++] = '\n';
    return n;
}

qkv_status qkv_npy_save(const qkv_npy *array, const char *path)
{
    if (!array || qkv_npy_item_bytes(array->type) == 0)
        return qkv_fail(QKV_E_ARG, "qkv_npy_save: array is NULL or has no known element type");
    if (array->rank < 0 || array->rank > QKV_NPY_MAX_RANK)
        return qkv_fail(QKV_E_SHAPE, "qkv_npy_save: rank is %d, expected 0 to 8", array->rank);
    size_t bytes = qkv_npy_item_bytes(array->type);
    for (int i = 0; i < array->rank; i++) {
        if (array->dim[i] < 0)
            return qkv_fail(QKV_E_SHAPE, "qkv_npy_save: dim[%d] is %td", i, array->dim[i]);
        if (!qkv_size_mul(&bytes, array->dim[i]))
            return qkv_fail(QKV_E_OVERFLOW, "qkv_npy_save: the sizes overflow at dim[%d]", i);
    }
    if (bytes > 0 && !array->data) return qkv_fail(QKV_E_ARG, "qkv_npy_save: data is NULL");

    char header[512]; /* 8 sizes of 20 digits and 64 bytes of padding are less */
    int n = format_header(array, header, sizeof header);
    const char prefix[] = {1, 0, (char)(n & 255), (char)(n >> 8)};
    qkv_output output;
    qkv_status status = qkv_output_open(&output, path, "qkv_npy_save");
    if (status) return status;
    fwrite(magic, 1, MAGIC, output.stream);
    fwrite(prefix, 1, sizeof prefix, output.stream);
    fwrite(header, 1, (size_t)n, output.stream);
    if (bytes) fwrite(array->data, 1, bytes, output.stream);
    return qkv_output_commit(&output, "qkv_npy_save");
}
