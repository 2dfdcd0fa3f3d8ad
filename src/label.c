#include "label.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static const char ellipsis[] = "\u2026";

/* Unicode 15, table 3-7. */
int qkv_utf8_length(const char *text)
{
    const unsigned char *s = (const unsigned char *)text;
    if (s[0] < 0x80) return 1;
    int n = s[0] >= 0xc2 && s[0] <= 0xdf   ? 2
            : s[0] >> 4 == 0xe             ? 3
            : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4
                                           : 0;
    for (int i = 1; i < n; i++)
        if (s[i] >> 6 != 2) return 0;
    bool overlong = (s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xf0 && s[1] < 0x90);
    bool surrogate = s[0] == 0xed && s[1] > 0x9f, beyond = s[0] == 0xf4 && s[1] > 0x8f;
    return overlong || surrogate || beyond ? 0 : n;
}

/* Steps over one character, valid or not. */
static const char *next(const char *s)
{
    int n = qkv_utf8_length(s);
    return s + (n ? n : 1);
}

/* Width of a character by its class: gnuplot tells nobody what it measures. */
static double character_inches(const char *s)
{
    static const double em = 9 / 72.0;
    int n = qkv_utf8_length(s);
    if (n > 1) return (n == 2 ? 0.75 : 1) * em;
    if (strchr("ijlI|.,:;'! ", *s)) return 0.34 * em;
    if (strchr("ftr()[]/-\"\\`", *s)) return 0.46 * em;
    if (strchr("mMwW@%", *s)) return em;
    if (strchr("+<=>~#&", *s)) return 0.84 * em;
    return (*s >= 'A' && *s <= 'Z' ? 0.76 : 0.64) * em;
}

double qkv_label_inches(const char *text)
{
    double inches = 0;
    for (; *text && *text != '\n'; text = next(text)) inches += character_inches(text);
    return inches;
}

/* The first character of the line that begins at text and does not fit. */
static const char *line_end(const char *text, double inches)
{
    for (; *text && *text != '\n'; text = next(text))
        if ((inches -= character_inches(text)) < 0) break;
    return text;
}

/* Where to break a line: before a space, or else behind a dot or dash, or else anywhere; but a line
 * makes progress. */
static const char *break_at(const char *text, const char *end)
{
    if (*end == '\n') return end;
    for (const char *s = end; s > text; s--)
        if (*s == ' ') return s;
    for (const char *s = end; s > text; s--)
        if (strchr("._-/,:", s[-1])) return s;
    return end > text ? end : next(text);
}

static bool is_blank(const char *text)
{
    return text[strspn(text, " \n")] == '\0';
}

static char *append(char *to, const char *from, size_t n)
{
    return (char *)memcpy(to, from, n) + n;
}

char *qkv_label_fit(const char *text, double inches, int lines)
{
    char *fitted = malloc(strlen(text) + (size_t)lines + sizeof ellipsis), *to = fitted;
    if (!fitted) return NULL;
    for (; lines > 0; lines--) {
        const char *end = line_end(text, inches);
        if (is_blank(end)) {
            to = append(to, text, (size_t)(end - text));
            break;
        }
        if (lines == 1) {
            end = line_end(text, inches - qkv_label_inches(ellipsis));
            while (end > text && end[-1] == ' ') end--;
            to = append(to, text, (size_t)(end - text));
            to = append(to, ellipsis, sizeof ellipsis - 1);
            break;
        }
        end = break_at(text, end);
        to = append(to, text, (size_t)(end - text));
        *to++ = '\n';
        text = *end == '\n' ? end + 1 : end + strspn(end, " ");
    }
    *to = '\0';
    return fitted;
}

int qkv_label_lines(const char *text)
{
    if (!text || !*text) return 0;
    int lines = 1;
    for (; *text; text++) lines += *text == '\n';
    return lines;
}
