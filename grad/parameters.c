/* parameters.c - named arrays: where they are, what they start as, and their way to files. */
#include "qkv/parameters.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "grad/tape.h"
#include "src/random.h"
#include "src/safetensors.h"
#include "src/size.h"

enum { MAX_NAME = 255 };

/* One array. The caller may hold a pointer to what is in front. */
typedef struct owned {
    qkv_parameter is;
    uint64_t hash; /* of the name */
    char name[];
} owned;

struct qkv_parameters {
    qkv_dtype dtype;
    owned **list;
    size_t count, size;
};

qkv_status qkv_parameters_new(qkv_parameters **set, qkv_dtype dtype)
{
    if (!set) return qkv_fail(QKV_E_ARG, "qkv_parameters_new: set is NULL");
    *set = NULL;
    if (dtype != QKV_F32 && dtype != QKV_F64)
        return qkv_fail(QKV_E_ARG, "qkv_parameters_new: dtype is %d, expected QKV_F32 or QKV_F64",
                        (int)dtype);
    *set = calloc(1, sizeof **set);
    if (!*set) return qkv_fail(QKV_E_NOMEM, "qkv_parameters_new: no memory");
    (*set)->dtype = dtype;
    return QKV_OK;
}

static void free_array(owned *p)
{
    if (!p) return;
    free(p->is.data);
    free(p->is.gradient);
    free(p);
}

void qkv_parameters_free(qkv_parameters *set)
{
    if (!set) return;
    for (size_t i = 0; i < set->count; i++) free_array(set->list[i]);
    free(set->list);
    free(set);
}

/* ---- Finding --------------------------------------------------------------------------------- */

/* FNV-1a. */
static uint64_t hash_of(const char *name)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (; *name; name++) hash = (hash ^ (unsigned char)*name) * 0x100000001b3;
    return hash;
}

size_t qkv_parameters_count(const qkv_parameters *set)
{
    return set ? set->count : 0;
}

size_t qkv_parameters_size(const qkv_parameters *set)
{
    return set ? set->size : 0;
}

const qkv_parameter *qkv_parameters_at(const qkv_parameters *set, size_t i)
{
    return i < qkv_parameters_count(set) ? &set->list[i]->is : NULL;
}

const qkv_parameter *qkv_parameters_find(const qkv_parameters *set, const char *name)
{
    if (!set || !name) return NULL;
    const uint64_t hash = hash_of(name);
    for (size_t i = 0; i < set->count; i++)
        if (set->list[i]->hash == hash && !strcmp(set->list[i]->name, name))
            return &set->list[i]->is;
    return NULL;
}

/* ---- Initialising ---------------------------------------------------------------------------- */

/* The factor that the rule has beside scale. */
static double spread_of(qkv_initial rule, const qkv_shape *shape)
{
    double n_in = shape->rank == 0 ? 1 : (double)shape->dim[shape->rank - 1], n_out = 1;
    if (shape->rank > 1) {
        n_out = n_in;
        n_in = (double)shape->dim[shape->rank - 2];
    }
    return rule == QKV_INIT_GLOROT ? sqrt(6 / (n_in + n_out))
           : rule == QKV_INIT_HE   ? sqrt(2 / n_in)
                                   : 1;
}

static void initialise(const owned *p, const qkv_initializer *how)
{
    const double scale = (how->scale == 0 ? 1 : how->scale) * spread_of(how->rule, &p->is.shape);
    const bool normal = how->rule == QKV_INIT_NORMAL || how->rule == QKV_INIT_HE;
    for (size_t i = 0; i < p->is.size; i++) {
        double x = how->rule == QKV_INIT_CONSTANT ? 1
                   : normal                       ? qkv_random_normal(how->seed, p->hash, i)
                            : 2 * qkv_random_uniform(how->seed, p->hash, i) - 1;
        if (p->is.dtype == QKV_F32)
            ((float *)p->is.data)[i] = (float)(scale * x);
        else
            ((double *)p->is.data)[i] = scale * x;
    }
}

/* ---- Adding ---------------------------------------------------------------------------------- */

static const char FUNCTION[] = "qkv_parameters_add";

static qkv_status check_name(const qkv_parameters *set, const char *name)
{
    if (!set || !name) return qkv_fail(QKV_E_ARG, "%s: %s is NULL", FUNCTION, set ? "name" : "set");
    size_t n = strnlen(name, MAX_NAME + 1);
    if (n == 0 || n > MAX_NAME)
        return qkv_fail(QKV_E_ARG, "%s: the name has %s bytes, expected 1 to %d", FUNCTION,
                        n ? "more" : "0", MAX_NAME);
    if (!qkv_is_utf8(name, n, true))
        return qkv_fail(QKV_E_ARG, "%s: the name is not UTF-8, or has control characters",
                        FUNCTION);
    if (!strcmp(name, "__metadata__"))
        return qkv_fail(QKV_E_ARG, "%s: __metadata__ is the file format's own name", FUNCTION);
    if (qkv_parameters_find(set, name))
        return qkv_fail(QKV_E_ARG, "%s: there is a '%s' already", FUNCTION, name);
    return QKV_OK;
}

static qkv_status check_shape(const qkv_shape *shape, size_t *size)
{
    size_t bytes = sizeof(double);
    *size = 1;
    if (shape->rank < 0 || shape->rank > QKV_MAX_RANK)
        return qkv_fail(QKV_E_SHAPE, "%s: the rank is %d, expected 0 to %d", FUNCTION, shape->rank,
                        QKV_MAX_RANK);
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dim[i] < 0)
            return qkv_fail(QKV_E_SHAPE, "%s: size %d is %td, expected 0 or more", FUNCTION, i,
                            shape->dim[i]);
        if (!qkv_size_mul(size, shape->dim[i]) || !qkv_size_mul(&bytes, shape->dim[i]))
            return qkv_fail(QKV_E_OVERFLOW, "%s: the product of the sizes overflows", FUNCTION);
    }
    return QKV_OK;
}

static qkv_status check_initializer(const qkv_initializer *how, qkv_dtype dtype)
{
    if ((unsigned)how->rule > QKV_INIT_HE)
        return qkv_fail(QKV_E_ARG, "%s: rule is %d, expected %d to %d", FUNCTION, (int)how->rule,
                        QKV_INIT_ZEROS, QKV_INIT_HE);
    if (!(fabs(how->scale) <= (dtype == QKV_F32 ? (double)FLT_MAX : DBL_MAX)))
        return qkv_fail(QKV_E_ARG, "%s: scale is %g, expected a finite %s", FUNCTION, how->scale,
                        dtype == QKV_F32 ? "float" : "double");
    return QKV_OK;
}

/* Zeros; NULL without memory. */
static owned *new_array(const char *name, const qkv_shape *shape, size_t size, qkv_dtype dtype)
{
    const size_t element = dtype == QKV_F32 ? sizeof(float) : sizeof(double);
    owned *p = calloc(1, sizeof *p + strlen(name) + 1);
    if (!p) return NULL;
    strcpy(p->name, name);
    p->hash = hash_of(name);
    p->is = (qkv_parameter){.name = p->name,
                            .shape = *shape,
                            .dtype = dtype,
                            .size = size,
                            .data = calloc(size + !size, element),
                            .gradient = calloc(size + !size, element)};
    if (p->is.data && p->is.gradient) return p;
    free_array(p);
    return NULL;
}

qkv_status qkv_parameters_add(qkv_parameters *set, const char *name, qkv_shape shape,
                              const qkv_initializer *how)
{
    size_t size;
    const qkv_initializer zeros = {0};
    if (!how) how = &zeros;
    qkv_status status = check_name(set, name);
    if (!status) status = check_shape(&shape, &size);
    if (!status) status = check_initializer(how, set->dtype);
    if (status) return status;
    owned **list = realloc(set->list, (set->count + 1) * sizeof *list);
    if (list) set->list = list;
    owned *p = list ? new_array(name, &shape, size, set->dtype) : NULL;
    if (!p) return qkv_fail(QKV_E_NOMEM, "%s: no memory for '%s'", FUNCTION, name);
    if (how->rule != QKV_INIT_ZEROS) initialise(p, how);
    set->list[set->count++] = p;
    set->size += size;
    return QKV_OK;
}

/* ---- Recording ------------------------------------------------------------------------------- */

qkv_var qkv_parameters_leaf(qkv_tape *tape, qkv_parameters *set, const char *name)
{
    if (!set || !name)
        return qkv_refuse(tape, QKV_OP_leaf, QKV_E_ARG, "the %s of the parameter is NULL",
                          set ? "name" : "set");
    const qkv_parameter *p = qkv_parameters_find(set, name);
    if (!p) return qkv_refuse(tape, QKV_OP_leaf, QKV_E_ARG, "no parameter is named '%s'", name);
    if (p->dtype == QKV_F32) return qkv_leaf_f32(tape, p->shape, p->data, p->gradient);
    return qkv_leaf_f64(tape, p->shape, p->data, p->gradient);
}

/* ---- Files ----------------------------------------------------------------------------------- */

_Static_assert((int)QKV_TENSOR_MAX_RANK == QKV_MAX_RANK, "every array can be saved");

/* The set as the file sees it, to be freed. NULL with an error. */
static qkv_tensor *tensors_of(const qkv_parameters *set, const char *path, const char *function,
                              qkv_status *status)
{
    *status = QKV_OK;
    if (!set || !path)
        *status = qkv_fail(QKV_E_ARG, "%s: %s is NULL", function, set ? "path" : "set");
    qkv_tensor *tensors = *status ? NULL : calloc(set->count + 1, sizeof *tensors);
    if (!tensors && !*status) *status = qkv_fail(QKV_E_NOMEM, "%s: no memory", function);
    for (size_t i = 0; tensors && i < set->count; i++) {
        const qkv_parameter *p = &set->list[i]->is;
        const size_t element = p->dtype == QKV_F32 ? sizeof(float) : sizeof(double);
        tensors[i] = (qkv_tensor){.name = p->name,
                                  .dtype = p->dtype,
                                  .rank = p->shape.rank,
                                  .dim = p->shape.dim,
                                  .bytes = p->size * element,
                                  .data = p->data};
    }
    return tensors;
}

qkv_status qkv_parameters_save(const qkv_parameters *set, const char *path)
{
    static const char function[] = "qkv_parameters_save";
    qkv_status status;
    qkv_tensor *tensors = tensors_of(set, path, function, &status);
    if (!status) status = qkv_tensors_save(function, tensors, set->count, path);
    free(tensors);
    return status;
}

qkv_status qkv_parameters_load(qkv_parameters *set, const char *path)
{
    static const char function[] = "qkv_parameters_load";
    qkv_status status;
    qkv_tensor *tensors = tensors_of(set, path, function, &status);
    if (!status) status = qkv_tensors_load(function, tensors, set->count, path);
    free(tensors);
    return status;
}
