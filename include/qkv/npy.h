/* npy.h - arrays in .npy files (NumPy enhancement proposal 1, format versions 1.0, 2.0 and 3.0).
 *
 *     qkv_npy a;
 *     if (qkv_npy_load(&a, "weights.npy") == QKV_OK) {
 *         // a.rank, a.dim[0] .. , a.data
 *         qkv_npy_free(&a);
 *     } */
#ifndef QKV_NPY_H
#define QKV_NPY_H

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { QKV_NPY_MAX_RANK = 8 };

/* The element types that are read and written: all of NumPy's that are real numbers of up to 64
 * bits, with its name for each. */
typedef enum qkv_npy_type {
    QKV_NPY_F32 = 0, /* 'f4': float */
    QKV_NPY_F64,     /* 'f8': double */
    QKV_NPY_I64,     /* 'i8': int64_t */
    QKV_NPY_BOOL,    /* 'b1': uint8_t, 0 is false */
    QKV_NPY_F16,     /* 'f2': uint16_t, the bits of an IEEE 754 binary16 */
    QKV_NPY_I8,      /* 'i1' */
    QKV_NPY_I16,     /* 'i2' */
    QKV_NPY_I32,     /* 'i4' */
    QKV_NPY_U8,      /* 'u1' */
    QKV_NPY_U16,     /* 'u2' */
    QKV_NPY_U32,     /* 'u4' */
    QKV_NPY_U64      /* 'u8' */
} qkv_npy_type;

/* An array, packed in C order, of elements in the machine's byte order (little-endian). */
typedef struct qkv_npy {
    qkv_npy_type type;
    int rank; /* 0 (a single number) .. QKV_NPY_MAX_RANK */
    ptrdiff_t dim[QKV_NPY_MAX_RANK];
    void *data;
} qkv_npy;

/* Number of elements (the product of the sizes must be within SIZE_MAX, as it is for any array that
 * was loaded), and bytes of one element; 0 for an unknown type. */
QKV_API size_t qkv_npy_size(const qkv_npy *array);
QKV_API size_t qkv_npy_item_bytes(qkv_npy_type type);

/* Element i in C order of any type as a double, booleans as 0 and 1; integers beyond 2^53 are
 * rounded. i must be below qkv_npy_size(array). */
QKV_API double qkv_npy_element(const qkv_npy *array, size_t i);

/* Reads a whole file; array is overwritten, to be freed, and zeroed on an error. Either byte order
 * is read ('=' and '|' as little-endian); a Fortran-order array is transposed to C order.
 *
 *     QKV_E_FORMAT  with file and byte offset: a malformed file, another element type (structured,
 *                   object, complex, text, time, long double), more than QKV_NPY_MAX_RANK axes, or
 *                   data shorter or longer than the header says, which is checked before anything
 *                   of that size is allocated
 *     QKV_E_ARG     for a NULL; QKV_E_IO, QKV_E_NOMEM */
QKV_API qkv_status qkv_npy_load(qkv_npy *array, const char *path);

/* Reads and checks the header alone, of a file that is to be mapped or read piece by piece: array
 * gets type, rank and sizes, no data, and *offset is the byte of the file where the first element
 * begins. There is nothing to free. Errors as qkv_npy_load, and QKV_E_FORMAT where the bytes in the
 * file are not those of an array in memory: big-endian elements, or several axes in Fortran order.
 */
QKV_API qkv_status qkv_npy_header(qkv_npy *array, const char *path, size_t *offset);

/* Writes format 1.0 over any file at path. The file appears whole, under a temporary name first, or
 * not at all.
 *
 *     QKV_E_ARG     a NULL (data may be, without elements), an empty path or an unknown type
 *     QKV_E_SHAPE   a negative size, or a rank not in 0 .. QKV_NPY_MAX_RANK
 *     QKV_E_OVERFLOW, QKV_E_IO, QKV_E_NOMEM */
QKV_API qkv_status qkv_npy_save(const qkv_npy *array, const char *path);

/* Frees the data of a loaded array and zeroes it. NULL and a zeroed array are fine. */
QKV_API void qkv_npy_free(qkv_npy *array);

#ifdef __cplusplus
}
#endif
#endif
