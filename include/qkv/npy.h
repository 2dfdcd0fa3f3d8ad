/* npy.h - arrays in files. */
#ifndef QKV_NPY_H
#define QKV_NPY_H
#endif
