/* process.h - files of a test's own, and programs run without a shell. */
#ifndef QKV_TESTS_PROCESS_H
#define QKV_TESTS_PROCESS_H

#include <locale.h>
#include <stddef.h>

/* A path in a directory that only this test program has, and that goes when it ends. To be freed by
 * nobody: it lives until the end. */
const char *scratch(const char *name);

/* How many files the scratch directory has whose name contains text. */
int scratch_count(const char *text);

void write_file(const char *path, const void *content, size_t bytes);
/* The whole file, terminated; to be freed. Fails the test if it cannot be read. */
char *read_file(const char *path, size_t *bytes);

typedef struct ran {
    int exit_code;   /* 128 + signal if one ended it, 127 if it could not be started */
    char *out, *err; /* terminated */
} ran;

/* argv[0] is looked up in PATH; the list ends with NULL. input: its standard input, NULL: none. */
ran run(const char *const *argv, const char *input);
void ran_free(ran *r);

/* What stands in text behind the first label; the test fails if there is none. */
const char *text_after(const char *text, const char *label);
/* The n numbers that stand there, each perhaps with " %" behind it. */
void numbers_after(const char *text, const char *label, double *x, int n);
double number_after(const char *text, const char *label);

/* A locale that writes 1,5 for 1.5: an installed one, or one made by localedef; 0 without either.
 */
locale_t comma_locale(void);

#endif
