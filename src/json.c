#include "json.h"

#include <stdint.h>
#include <string.h>

bool qkv_json_is(qkv_json_text x, const char *text)
{
    return x.n == strlen(text) && memcmp(x.text, text, x.n) == 0;
}

static void skip_space(qkv_json *j)
{
    while (j->at < j->length && memchr(" \t\n\r", j->text[j->at], 4)) j->at++;
}

static bool fail(qkv_json *j, const char *problem)
{
    j->problem = problem;
    return false;
}

bool qkv_json_accept(qkv_json *j, char sign)
{
    skip_space(j);
    if (j->at == j->length || j->text[j->at] != sign) return false;
    j->at++;
    return true;
}

bool qkv_json_at_end(qkv_json *j)
{
    skip_space(j);
    return j->at == j->length;
}

/* ---- Strings --------------------------------------------------------------------------------- */

/* Four hexadecimal digits, after \u; -1 for others. */
static int32_t read_hex(qkv_json *j)
{
    static const char digits[] = "0123456789abcdef";
    int32_t code = 0;
    if (j->length - j->at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        char c = j->text[j->at++];
        if (c >= 'A' && c <= 'F') c = (char)(c - 'A' + 'a');
        const char *digit = memchr(digits, c, 16);
        if (!digit) return -1;
        code = 16 * code + (int32_t)(digit - digits);
    }
    return code;
}

/* What follows \u: a code point, of which those beyond 16 bits are two halves, each with its \u; -1
 * for what is none. */
static int32_t read_code(qkv_json *j)
{
    int32_t code = read_hex(j);
    if (code < 0xd800 || code > 0xdfff) return code;
    if (code > 0xdbff || j->length - j->at < 2 || memcmp(j->text + j->at, "\\u", 2)) return -1;
    j->at += 2;
    int32_t low = read_hex(j);
    if (low < 0xdc00 || low > 0xdfff) return -1;
    return 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
}

/* In UTF-8; where it ends. */
static char *put_code(char *to, int32_t code)
{
    static const int32_t lead[] = {0, 0xc0, 0xe0, 0xf0};
    int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    *to++ = (char)(lead[more] | code >> 6 * more);
    while (more-- > 0) *to++ = (char)(0x80 | (code >> 6 * more & 0x3f));
    return to;
}

/* What follows a backslash goes to `to`. What is decoded is never longer than what it stood for. */
static char *read_escape(qkv_json *j, char *to)
{
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    if (j->at == j->length) return NULL;
    char c = j->text[j->at++];
    const char *escape = memchr(escapes, c, sizeof escapes - 1);
    if (escape) {
        *to = meanings[escape - escapes];
        return to + 1;
    }
    int32_t code = c == 'u' ? read_code(j) : -1;
    return code < 0 ? NULL : put_code(to, code);
}

bool qkv_json_string(qkv_json *j, qkv_json_text *x)
{
    if (!qkv_json_accept(j, '"')) return false;
    char *to = j->text + j->at;
    x->text = to;
    while (j->at < j->length) {
        char c = j->text[j->at++];
        if (c == '"') {
            x->n = (size_t)(to - x->text);
            *to = 0;
            return true;
        }
        if ((unsigned char)c < 0x20) return fail(j, "a control character in a string");
        if (c != '\\')
            *to++ = c;
        else if (!(to = read_escape(j, to)))
            return fail(j, "an unknown escape in a string");
    }
    return fail(j, "a string without its end");
}

bool qkv_json_key(qkv_json *j, qkv_json_text *x)
{
    return qkv_json_string(j, x) && qkv_json_accept(j, ':');
}

/* ---- Numbers --------------------------------------------------------------------------------- */

static bool is_digit(const qkv_json *j)
{
    return j->at < j->length && j->text[j->at] >= '0' && j->text[j->at] <= '9';
}

bool qkv_json_size(qkv_json *j, size_t *x)
{
    skip_space(j);
    if (!is_digit(j)) return false;
    const size_t start = j->at;
    for (*x = 0; is_digit(j); j->at++)
        if (__builtin_mul_overflow(*x, (size_t)10, x) ||
            __builtin_add_overflow(*x, (size_t)(j->text[j->at] - '0'), x) || *x > PTRDIFF_MAX)
            return fail(j, "a number that is too large");
    if (j->text[start] == '0' && j->at > start + 1) return fail(j, "a number that begins with 0");
    return true;
}
