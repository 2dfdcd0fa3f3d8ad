/* parameters.h - what a model learns: named arrays with their gradients, initialised from a seed,
 * recorded by name, saved and loaded as safetensors.
 *
 *     qkv_parameters *set;
 *     qkv_parameters_new(&set, QKV_F32);
 *     qkv_parameters_add(set, "w", qkv_shape2(64, 10),
 *                        &(qkv_initializer){.rule = QKV_INIT_GLOROT, .seed = 1});
 *     qkv_parameters_add(set, "b", qkv_shape1(10), NULL);
 *     qkv_optimizer_add_parameters(optimizer, set);
 *     // each step
 *     qkv_var y = qkv_matmul(t, x, qkv_parameters_leaf(t, set, "w"));
 *     y = qkv_add(t, y, qkv_parameters_leaf(t, set, "b"));
 *     // and at the end
 *     qkv_parameters_save(set, "model.safetensors"); */
#ifndef QKV_PARAMETERS_H
#define QKV_PARAMETERS_H

#include "optim.h"
#include "tape.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct qkv_parameters qkv_parameters;

/* One of them. What stands behind the pointers is the set's, and may be read and written. */
typedef struct qkv_parameter {
    const char *name;
    qkv_shape shape;
    qkv_dtype dtype;
    size_t size;           /* number of elements */
    void *data, *gradient; /* [size], packed in C order: float or double, as dtype */
} qkv_parameter;

/* How an array starts. With n_in and n_out the last two sizes of its shape, for products x w of
 * rows (a vector [n] is a column, n_out = 1; a scalar has 1 and 1; axes before are so many matrices
 * of their own):
 *
 *     zeros
 *     constant  scale
 *     uniform   on (-scale, scale)
 *     normal    of mean 0 and deviation scale
 *     Glorot    uniform on (-a, a), a = scale sqrt(6 / (n_in + n_out))
 *                                            (Glorot & Bengio 2010, equation 16; "Xavier")
 *     He        normal of deviation scale sqrt(2 / n_in)        (He et al. 2015, equation 10)
 *
 * The numbers are a function of seed, name and place, by Philox (Salmon et al. 2011): what else the
 * set has does not change them, and two arrays with one seed differ. */
typedef enum qkv_initial {
    QKV_INIT_ZEROS = 0,
    QKV_INIT_CONSTANT,
    QKV_INIT_UNIFORM,
    QKV_INIT_NORMAL,
    QKV_INIT_GLOROT,
    QKV_INIT_HE
} qkv_initial;

typedef struct qkv_initializer {
    qkv_initial rule;
    double scale; /* 0: 1 */
    uint64_t seed;
} qkv_initializer;

/* *set = a new, empty set of arrays of one dtype, to be freed; NULL on an error: QKV_E_NOMEM, or
 * QKV_E_ARG for a NULL or an unknown dtype. Freeing frees all arrays: tapes that recorded them must
 * be reset, and optimizers freed, before. Freeing NULL is fine. */
QKV_API qkv_status qkv_parameters_new(qkv_parameters **set, qkv_dtype dtype);
QKV_API void qkv_parameters_free(qkv_parameters *set);

/* Adds an array, its gradient zero. name is copied. how NULL: zeros. On an error nothing is added:
 *
 *     QKV_E_ARG      a NULL; a name that is not 1 to 255 bytes of UTF-8 without control characters,
 *                    is there already, or is __metadata__, which the file format keeps to itself;
 *                    an unknown rule or a scale that is not finite in the set's dtype
 *     QKV_E_SHAPE    a rank not in 0 .. QKV_MAX_RANK or a negative size
 *     QKV_E_OVERFLOW, QKV_E_NOMEM */
QKV_API qkv_status qkv_parameters_add(qkv_parameters *set, const char *name, qkv_shape shape,
                                      const qkv_initializer *how);

/* How many arrays there are, and how many numbers they have together; of NULL, 0. */
QKV_API size_t qkv_parameters_count(const qkv_parameters *set);
QKV_API size_t qkv_parameters_size(const qkv_parameters *set);

/* One array by its place, 0, 1, .. as added, or by its name. It stays where it is until the set is
 * freed. NULL if there is none. */
QKV_API const qkv_parameter *qkv_parameters_at(const qkv_parameters *set, size_t i);
QKV_API const qkv_parameter *qkv_parameters_find(const qkv_parameters *set, const char *name);

/* qkv_leaf_.. of the array of that name: a backward adds to its gradient. Record it between
 * qkv_no_grad_begin and _end where none is wanted, and outside of segments (qkv_checkpoint), which
 * get it through xs. Errors, sticky, as qkv_leaf_..; QKV_E_ARG for a NULL and for a name that the
 * set has not. */
QKV_API qkv_var qkv_parameters_leaf(qkv_tape *tape, qkv_parameters *set, const char *name);

/* qkv_optimizer_add_.. of every array that the set has now, in its order. On an error none is
 * registered; QKV_E_ARG for a NULL. The set must outlive the optimizer. */
QKV_API qkv_status qkv_optimizer_add_parameters(qkv_optimizer *optimizer, qkv_parameters *set);

/* Writes all arrays over any file at path in the safetensors format, which has a reader in every
 * framework: 8 bytes with the length of the header, low byte first; the header, in JSON, {name:
 * {"dtype": "F32", "shape": [64,10], "data_offsets": [begin, end]}, ..}; the numbers, low byte
 * first. Gradients are not saved. The file appears whole, under a temporary name first, or not at
 * all. QKV_E_ARG for a NULL or an empty path, QKV_E_IO, QKV_E_NOMEM. */
QKV_API qkv_status qkv_parameters_save(const qkv_parameters *set, const char *path);

/* Overwrites the data of all arrays by those of a file, which must have the same names, dtype and
 * shapes, in any order; its __metadata__ is passed over. On an error nothing of the set is changed:
 *
 *     QKV_E_FORMAT   with the file, and the byte or the array: it is malformed (numbers that lie
 *                    beyond its end, overlap or leave gaps among it), lacks an array of the set,
 *                    has one that the set has not, or has it with another dtype or shape
 *     QKV_E_ARG      for a NULL; QKV_E_IO, QKV_E_NOMEM. What is allocated is bounded by the size of
 *                    the file */
QKV_API qkv_status qkv_parameters_load(qkv_parameters *set, const char *path);

#ifdef __cplusplus
}
#endif
#endif
