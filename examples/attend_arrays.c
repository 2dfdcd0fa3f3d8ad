/* attend_arrays.c - what attend reads and writes: .npy files as [batch, heads, rows, columns]. */
#include <stdlib.h>
#include <string.h>

#include "attend.h"

qkv_npy_type type;

size_t item(void)
{
    return qkv_npy_item_bytes(type);
}

double get(const void *data, ptrdiff_t i)
{
    return type == QKV_NPY_F32 ? (double)((const float *)data)[i] : ((const double *)data)[i];
}

void set(void *data, ptrdiff_t i, double x)
{
    if (type == QKV_NPY_F32)
        ((float *)data)[i] = (float)x;
    else
        ((double *)data)[i] = x;
}

operand packed(ptrdiff_t batch, ptrdiff_t heads, ptrdiff_t rows, ptrdiff_t columns)
{
    operand x = {.dim = {batch, heads, rows, columns},
                 .stride = {heads * rows * columns, rows * columns, columns, 1}};
    x.data = allocate((size_t)(batch * heads * rows * columns) + 1, item());
    return x;
}

operand packed_as(int rank, ptrdiff_t batch, ptrdiff_t heads, ptrdiff_t rows, ptrdiff_t columns)
{
    operand x = packed(batch, heads, rows, columns);
    if (rank != 3) return x;
    x.stride[1] = columns;
    x.stride[2] = heads * columns;
    return x;
}

ptrdiff_t place(const operand *x, ptrdiff_t b, ptrdiff_t h, ptrdiff_t i, ptrdiff_t c)
{
    return b * x->stride[0] + h * x->stride[1] + i * x->stride[2] + c * x->stride[3];
}

qkv_npy load(int option)
{
    qkv_npy a;
    check(qkv_npy_load(&a, given[option]));
    return a;
}

_Noreturn void refuse_axes(int option, int found, const char *expected)
{
    fail_with("%s has %d ax%s, expected %s", given[option], found, found == 1 ? "is" : "es",
              expected);
}

operand load_operand(int option, int rank, ptrdiff_t heads)
{
    qkv_npy a = load(option);
    if (a.type != type)
        fail_with("%s has type %s, expected that of the queries, %s", given[option],
                  type_name(a.type), type_name(type));
    if (a.rank != rank) refuse_axes(option, a.rank, print_text("%d", rank));
    operand x = {.data = a.data};
    const ptrdiff_t *n = a.dim;
    if (rank == 3 && n[2] % heads)
        fail_with("%s: the last axis is %td, expected a multiple of the %td heads", given[option],
                  n[2], heads);
    ptrdiff_t dim[3][4] = {
        {1, 1, n[0], n[1]}, {n[0], heads, n[1], rank == 3 ? n[2] / heads : 0}, {0}};
    memcpy(dim[2], n, sizeof dim[2]);
    memcpy(x.dim, dim[rank - 2], sizeof x.dim);
    operand shape = packed_as(rank, x.dim[0], x.dim[1], x.dim[2], x.dim[3]);
    free(shape.data);
    memcpy(x.stride, shape.stride, sizeof x.stride);
    return x;
}

void expect(int option, const char *what, ptrdiff_t found, ptrdiff_t expected)
{
    if (found != expected)
        fail_with("%s: %s is %td, expected %td", given[option], what, found, expected);
}

void save(int option, int rank, const ptrdiff_t *dim, const void *data)
{
    qkv_npy a = {.type = type, .rank = rank, .data = (void *)data};
    memcpy(a.dim, dim, (size_t)rank * sizeof *dim);
    check(qkv_npy_save(&a, given[option]));
    say("wrote %s", given[option]);
}

void save_operand(int option, const operand *x, int rank)
{
    const ptrdiff_t *n = x->dim, dims[3][4] = {{n[2], n[3]},
                                               {n[0], n[2], n[1] * n[3]},
                                               {n[0], n[1], n[2], n[3]}};
    save(option, rank, dims[rank - 2], x->data);
}

void save_matrix(int option, const operand *x, int rank, int axes)
{
    int first = rank == 2 ? 2 : 0;
    save(option, axes - first, x->dim + first, x->data);
}
