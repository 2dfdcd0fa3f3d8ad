/* plot.h - figures through gnuplot. */
#ifndef QKV_PLOT_H
#define QKV_PLOT_H
#endif
