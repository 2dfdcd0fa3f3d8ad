/* json.h - reads the little of JSON (RFC 8259) that a safetensors header has: strings, sizes, and
 * the signs between them. */
#ifndef QKV_SRC_JSON_H
#define QKV_SRC_JSON_H

#include <stdbool.h>
#include <stddef.h>

/* A text in UTF-8, and where in it the reader is. Strings are decoded where they stand. */
typedef struct qkv_json {
    char *text; /* [length + 1] */
    size_t at, length;
    const char *problem; /* what is wrong with a string or number; NULL: it is something else */
} qkv_json;

/* A string, terminated; but it may have zeros of its own. */
typedef struct qkv_json_text {
    const char *text;
    size_t n;
} qkv_json_text;

bool qkv_json_is(qkv_json_text x, const char *text);

/* Each passes over white space, then over what it names, if it is next; false otherwise. */
bool qkv_json_accept(qkv_json *j, char sign);
bool qkv_json_string(qkv_json *j, qkv_json_text *x);
bool qkv_json_key(qkv_json *j, qkv_json_text *x); /* a string and a colon */
bool qkv_json_size(qkv_json *j, size_t *x);       /* an integer, 0 to PTRDIFF_MAX */
bool qkv_json_at_end(qkv_json *j);

#endif
