/* label.h - text in a figure: how wide it is, and how to make it fit. */
#ifndef QKV_SRC_LABEL_H
#define QKV_SRC_LABEL_H

/* Bytes of the UTF-8 character at s, 0 if it is none. */
int qkv_utf8_length(const char *s);

/* Width in inches of text up to its end or first newline, in DejaVu Sans of 9 points: rather too
 * much than too little. */
double qkv_label_inches(const char *text);

/* A copy of text that is at most that wide: broken at spaces, or inside a word wider than a line,
 * into at most that many lines; what does not fit in them is cut, and "…" stands for it. NULL: no
 * memory. */
char *qkv_label_fit(const char *text, double inches, int lines);

/* Lines of text: 0 for NULL and "". */
int qkv_label_lines(const char *text);

#endif
