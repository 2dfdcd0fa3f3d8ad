/* gnuplot.h - another program, fed through a pipe: no shell, no signal, no zombie. */
#ifndef QKV_SRC_GNUPLOT_H
#define QKV_SRC_GNUPLOT_H

#include <stdio.h>

#include "qkv/status.h"

/* Runs gnuplot on script, in which @data names the file behind the descriptor data; what it writes
 * to its standard output goes to the descriptor out. QKV_E_PROCESS, with what gnuplot wrote to
 * stderr, if it is missing, fails or writes nothing. */
qkv_status qkv_gnuplot_run(const char *script, int data, int out, const char *caller);

/* text as a gnuplot string expression that means exactly text: nothing in it is a quote, an escape,
 * a command or markup (given a terminal with noenhanced). */
void qkv_gnuplot_quote(FILE *script, const char *text);

/* The same where gnuplot takes the string for a printf format. */
void qkv_gnuplot_quote_tic(FILE *script, const char *text);

#endif
