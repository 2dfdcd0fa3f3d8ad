/* safetensors.h - named arrays in one file, as huggingface/safetensors defines it: 8 bytes with the
 * length of the header, the header in JSON, the arrays one after another. */
#ifndef QKV_SRC_SAFETENSORS_H
#define QKV_SRC_SAFETENSORS_H

#include <stdbool.h>

#include "qkv/status.h"

enum { QKV_TENSOR_MAX_RANK = 8 };

typedef struct qkv_tensor {
    const char *name; /* UTF-8 without control characters */
    qkv_dtype dtype;
    int rank;
    const ptrdiff_t *dim;
    size_t bytes; /* of data; those of the sizes */
    void *data;
    size_t begin, end; /* where it is among the file's data: of reading */
    bool found;        /* in the file's header: of reading */
} qkv_tensor;

/* caller names the public function, for messages. Errors as qkv_parameters_save and _load. */
qkv_status qkv_tensors_save(const char *caller, const qkv_tensor *tensors, size_t n,
                            const char *path);
/* Fills data if the file has exactly these; on an error none is changed. Sorts tensors. */
qkv_status qkv_tensors_load(const char *caller, qkv_tensor *tensors, size_t n, const char *path);

/* Whether n bytes are UTF-8; with printable, without control characters. */
bool qkv_is_utf8(const char *text, size_t n, bool printable);

#endif
