#include "support.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "process.h"
#include "qkv/npy.h"

enum { N_TYPES = 12 };

/* A file of that version: header text as it is, data after it. */
static const char *write_npy(int version, const char *header, const void *data, size_t bytes)
{
    char file[1024] = "\x93NUMPY";
    size_t n = strlen(header), at = version == 1 ? 10 : 12;
    file[6] = (char)version;
    file[8] = (char)(n & 255);
    file[9] = (char)(n >> 8);
    memcpy(file + at, header, n);
    if (bytes > 0) memcpy(file + at + n, data, bytes);
    write_file(scratch("in.npy"), file, at + n + bytes);
    return scratch("in.npy");
}

static void every_type_and_rank_is_saved_and_loaded(void **state)
{
    (void)state;
    static const size_t item[N_TYPES] = {4, 8, 8, 1, 2, 1, 2, 4, 1, 2, 4, 8};
    unsigned char data[2 * 8 * 8];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 37);
    for (int type = 0; type < N_TYPES; type++) {
        for (int rank = 0; rank <= QKV_NPY_MAX_RANK; rank++) {
            qkv_npy a = {.type = (qkv_npy_type)type, .rank = rank, .data = data}, b;
            for (int i = 0; i < rank; i++) a.dim[i] = i == 1 ? 3 : i == 3 ? 2 : 1;
            assert_ok(qkv_npy_save(&a, scratch("out.npy")));
            assert_ok(qkv_npy_load(&b, scratch("out.npy")));
            assert_int_equal(b.type, type);
            assert_int_equal(b.rank, rank);
            assert_memory_equal(a.dim, b.dim, sizeof a.dim);
            assert_int_equal(qkv_npy_size(&b), rank > 3 ? 6 : rank > 1 ? 3 : 1);
            assert_memory_equal(b.data, data, qkv_npy_size(&b) * item[type]);
            qkv_npy_free(&b);
            assert_null(b.data);
        }
    }
    assert_int_equal(scratch_count(".tmp"), 0);
}

static void the_header_is_written_as_numpy_writes_it(void **state)
{
    (void)state;
    static const char one[] = "\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, "
                              "'shape': (3,), }";
    double x[3] = {1, 2, 3};
    qkv_npy a = {.type = QKV_NPY_F64, .rank = 1, .dim = {3}, .data = x};
    assert_ok(qkv_npy_save(&a, scratch("one.npy")));
    size_t bytes;
    char *text = read_file(scratch("one.npy"), &bytes);
    assert_int_equal(bytes, 128 + sizeof x);
    assert_memory_equal(text, one, sizeof one - 1);
    assert_int_equal(text[127], '\n');
    assert_memory_equal(text + 128, x, sizeof x);
    free(text);
}

static void all_versions_orders_of_keys_and_byte_order_marks_load(void **state)
{
    (void)state;
    static const char *const headers[] = {
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }\n",
        "{'shape':(2,1),'fortran_order':False,'descr':'=f4'}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 1L)}",
        "{ \"fortran_order\" : False , \"descr\" : \"|f4\" , \"shape\" : ( 2 , 1 , ) }   \n"};
    const float data[] = {1.5f, -2};
    for (int version = 1; version <= 3; version++) {
        for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
            qkv_npy a;
            assert_ok(qkv_npy_load(&a, write_npy(version, headers[i], data, sizeof data)));
            assert_int_equal(a.rank, 2);
            assert_int_equal(a.dim[0], 2);
            assert_memory_equal(a.data, data, sizeof data);
            qkv_npy_free(&a);
        }
    }
}

/* The little-endian bytes of 0, 1, 3 and -2 (where there is no sign: its bits) in each type, and
 * what they are as doubles. */
static const struct {
    const char *code;
    qkv_npy_type type;
    size_t bytes;
    uint64_t stored[4];
    double expected[4];
} elements[N_TYPES] = {
    {"b1", QKV_NPY_BOOL, 1, {0, 1, 3, 0xfe}, {0, 1, 1, 1}},
    {"i1", QKV_NPY_I8, 1, {0, 1, 3, 0xfe}, {0, 1, 3, -2}},
    {"u1", QKV_NPY_U8, 1, {0, 1, 3, 0xfe}, {0, 1, 3, 254}},
    {"i2", QKV_NPY_I16, 2, {0, 1, 3, 0xfffe}, {0, 1, 3, -2}},
    {"u2", QKV_NPY_U16, 2, {0, 1, 3, 0xfffe}, {0, 1, 3, 65534}},
    {"i4", QKV_NPY_I32, 4, {0, 1, 3, 0xfffffffe}, {0, 1, 3, -2}},
    {"u4", QKV_NPY_U32, 4, {0, 1, 3, 0xfffffffe}, {0, 1, 3, 4294967294}},
    {"i8", QKV_NPY_I64, 8, {0, 1, 3, 0xfffffffffffffffe}, {0, 1, 3, -2}},
    {"u8", QKV_NPY_U64, 8, {0, 1, 3, 0xfffffffffffffffe}, {0, 1, 3, 0x1p64}},
    {"f2", QKV_NPY_F16, 2, {0, 0x3c00, 0x4200, 0xc000}, {0, 1, 3, -2}},
    {"f4", QKV_NPY_F32, 4, {0, 0x3f800000, 0x40400000, 0xc0000000}, {0, 1, 3, -2}},
    {"f8",
     QKV_NPY_F64,
     8,
     {0, 0x3ff0000000000000, 0x4008000000000000, 0xc000000000000000},
     {0, 1, 3, -2}},
};

/* The header alone says as much, of a file whose bytes can be used as they are. */
static void assert_header_of(const char *path, qkv_npy_type type, bool usable, size_t offset)
{
    qkv_npy a = {.rank = 5};
    size_t found = 7;
    if (!usable) {
        assert_status(qkv_npy_header(&a, path, &found), QKV_E_FORMAT);
        assert_message(": load it");
        assert_int_equal(a.rank, 0);
        assert_int_equal(found, 7);
        return;
    }
    assert_ok(qkv_npy_header(&a, path, &found));
    assert_int_equal(a.type, type);
    assert_int_equal(a.rank, 2);
    assert_int_equal(a.dim[0], 2);
    assert_int_equal(a.dim[1], 2);
    assert_null(a.data);
    assert_int_equal(found, offset);
}

static void every_type_in_either_byte_order_and_axis_order_loads(void **state)
{
    (void)state;
    for (int i = 0; i < N_TYPES * 4; i++) {
        int type = i / 4, big = i & 1, fortran = i >> 1 & 1;
        size_t bytes = elements[type].bytes;
        unsigned char data[4 * 8];
        for (size_t at = 0; at < 4 * bytes; at++) {
            size_t byte = at % bytes;
            uint64_t x = elements[type].stored[at / bytes];
            data[at] = (unsigned char)(x >> 8 * (big ? bytes - 1 - byte : byte));
        }
        char header[100];
        snprintf(header, sizeof header, "{'descr': '%c%s', 'fortran_order': %s, 'shape': (2, 2)}",
                 big          ? '>'
                 : bytes == 1 ? '|'
                              : '<',
                 elements[type].code, fortran ? "True" : "False");
        qkv_npy a;
        assert_ok(qkv_npy_load(&a, write_npy(1, header, data, 4 * bytes)));
        assert_int_equal(a.type, elements[type].type);
        static const int transposed[] = {0, 2, 1, 3};
        for (int j = 0; j < 4; j++)
            assert_close(qkv_npy_element(&a, (size_t)j),
                         elements[type].expected[fortran ? transposed[j] : j], 0);
        qkv_npy_free(&a);
        assert_header_of(scratch("in.npy"), elements[type].type, !fortran && (!big || bytes == 1),
                         10 + strlen(header));
    }
}

static void halves_are_those_of_ieee_754(void **state)
{
    (void)state;
    uint16_t bits[] = {0x0001, 0x03ff, 0x0400, 0x3555, 0x7bff, 0x7c00, 0xfc00, 0x7e01};
    const double expected[] = {0x1p-24, 1023 * 0x1p-24, 0x1p-14,   1365 * 0x1p-12,
                               65504,   INFINITY,       -INFINITY, NAN};
    qkv_npy a = {.type = QKV_NPY_F16, .rank = 1, .dim = {8}, .data = bits};
    for (size_t i = 0; i < 8; i++) assert_close(qkv_npy_element(&a, i), expected[i], 0);
}

static void fortran_order_is_transposed(void **state)
{
    (void)state;
    int64_t file[24], *loaded;
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < 4; k++) file[i + 2 * (j + 3 * k)] = 100 * i + 10 * j + k;
    qkv_npy a;
    assert_ok(
        qkv_npy_load(&a, write_npy(1, "{'descr': '<i8', 'fortran_order': True, 'shape': (2, 3, 4)}",
                                   file, sizeof file)));
    loaded = a.data;
    for (int i = 0; i < 24; i++)
        assert_int_equal(loaded[i], 100 * (i / 12) + 10 * (i / 4 % 3) + i % 4);
    qkv_npy_free(&a);
}

static void an_empty_array_is_an_array(void **state)
{
    (void)state;
    qkv_npy a = {.type = QKV_NPY_F32, .rank = 2, .dim = {0, 7}}, b;
    assert_ok(qkv_npy_save(&a, scratch("empty.npy")));
    assert_ok(qkv_npy_load(&b, scratch("empty.npy")));
    assert_int_equal(qkv_npy_size(&b), 0);
    assert_int_equal(b.dim[1], 7);
    qkv_npy_free(&b);
}

static void malformed_headers_are_refused_with_their_offset(void **state)
{
    (void)state;
#define REST "'fortran_order': False, 'shape': (2,)}"
    static const struct {
        const char *header, *message;
    } cases[] = {
        {"", "byte 10: expected the header's {"},
        {"[1]", "byte 10"},
        {"{'descr': '<i3', " REST, "byte 21: expected element type b1, i1"},
        {"{'descr': 'f8', " REST, "or f8 behind <, >, = or |, found 'f8'"},
        {"{'descr': '', " REST, "element type"},
        {"{'descr': '>', " REST, "element type"},
        {"{'descr': '<f16', " REST, "element type"},
        {"{'descr': '<c16', " REST, "byte 21: complex numbers are not supported, found '<c16'"},
        {"{'descr': '>c8', " REST, "complex"},
        {"{'descr': '|O', " REST, "byte 21: Python objects are not supported, found '|O'"},
        {"{'descr': '<U12', " REST, "texts are not supported, found '<U12'"},
        {"{'descr': '|S3', " REST, "texts"},
        {"{'descr': '<M8[ns]', " REST, "dates and times are not supported, found '<M8[ns]'"},
        {"{'descr': '|V2', " REST, "raw bytes"},
        {"{'descr': [('a', '<f8')], " REST, "byte 21: structured element types"},
        {"{'descr': '<f8, " REST, "element type"},
        {"{'descr': '<f8' " REST, "expected , or }"},
        {"{'descr", "closing quote"},
        {"{'descr' '<f8'", "expected :"},
        {"{'descr': '<f8', 'descr': '<f8', " REST, "repeated key"},
        {"{'descr': '<f8', 'extra': 1, " REST, "unknown"},
        {"{'descr': '<f8', 'fortran_order': 0, 'shape': (2,)}", "True or False"},
        {"{'descr': '<f8', 'fortran_order': False}", "lacks"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': 2}", "expected the shape"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (2)}", "no tuple"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (-2,)}", "expected a size"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (,)}", "expected a size"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (2 2)}", "expected , or )"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (2,", "expected a size"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (2LL,)}", "expected , or )"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (L,)}", "expected a size"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,)}", "64 bits"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1)}", "8 axes"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (2,)} x", "text after"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (3,)}", "needs 24 bytes"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", "the file has 16"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,)}", "the file has 16"},
        {"{'descr': '<f8', 'fortran_order': False, 'shape': (9000000000000000000,9)}",
         "more than"}};
#undef REST
    const double data[2] = {1, 2};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qkv_npy a;
        assert_status(qkv_npy_load(&a, write_npy(1, cases[i].header, data, sizeof data)),
                      QKV_E_FORMAT);
        assert_message(cases[i].message);
        assert_message("in.npy, byte ");
        assert_null(a.data);
        assert_status(qkv_npy_header(&a, scratch("in.npy"), &(size_t){0}), QKV_E_FORMAT);
        assert_message("qkv_npy_header: ");
        assert_message(cases[i].message);
    }
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    double x[2] = {1, 2};
    qkv_npy a = {.type = QKV_NPY_F64, .rank = 1, .dim = {2}, .data = x}, b;
    assert_ok(qkv_npy_save(&a, scratch("whole.npy")));
    size_t bytes;
    char *whole = read_file(scratch("whole.npy"), &bytes);
    for (size_t n = 0; n < bytes; n++) {
        write_file(scratch("cut.npy"), whole, n);
        assert_status(qkv_npy_load(&b, scratch("cut.npy")), QKV_E_FORMAT);
    }
    whole[6] = 4;
    write_file(scratch("cut.npy"), whole, bytes);
    assert_status(qkv_npy_load(&b, scratch("cut.npy")), QKV_E_FORMAT);
    assert_message("byte 6: expected format version");
    whole[0] = 'X';
    write_file(scratch("cut.npy"), whole, bytes);
    assert_status(qkv_npy_load(&b, scratch("cut.npy")), QKV_E_FORMAT);
    assert_message("byte 0: this is no .npy file");
    free(whole);
}

/* A damaged file loads as what its header says, or not at all. */
static void a_file_with_damaged_bytes_is_read_in_bounds(void **state)
{
    (void)state;
    double x[6] = {1, 2, 3, 4, 5, 6};
    qkv_npy a = {.type = QKV_NPY_F64, .rank = 2, .dim = {2, 3}, .data = x}, b;
    assert_ok(qkv_npy_save(&a, scratch("whole.npy")));
    size_t bytes;
    char *whole = read_file(scratch("whole.npy"), &bytes), *damaged = malloc(bytes);
    static const char likely[] = "0123456789',()[]{}:<>=|fiubOVTrue \n\xff";
    int loaded = 0, refused = 0;
    for (uint64_t seed = 0; seed < 4000; seed++) {
        memcpy(damaged, whole, bytes);
        for (uint64_t i = 0; i < 1 + seed % 3; i++)
            damaged[(size_t)uniform(seed, 2 * i, 0, 80)] =
                likely[(size_t)uniform(seed, 2 * i + 1, 0, sizeof likely)];
        write_file(scratch("damaged.npy"), damaged, bytes);
        qkv_status status = qkv_npy_load(&b, scratch("damaged.npy"));
        if (status) {
            assert_int_equal(status, QKV_E_FORMAT);
            assert_null(b.data);
            refused++;
            continue;
        }
        assert_int_equal(qkv_npy_size(&b) * qkv_npy_item_bytes(b.type), sizeof x);
        for (size_t i = 0; i < qkv_npy_size(&b); i++) (void)qkv_npy_element(&b, i);
        qkv_npy_free(&b);
        loaded++;
    }
    assert_true(loaded > 20 && refused > 1000);
    free(damaged);
    free(whole);
}

static void what_cannot_be_saved_is_refused_and_leaves_nothing(void **state)
{
    (void)state;
    double x = 1;
    const char *path = scratch("refused.npy");
    qkv_npy a = {.type = QKV_NPY_F64, .rank = 9, .data = &x};
    assert_status(qkv_npy_save(&a, path), QKV_E_SHAPE);
    a = (qkv_npy){.type = QKV_NPY_F64, .rank = 1, .dim = {-1}, .data = &x};
    assert_status(qkv_npy_save(&a, path), QKV_E_SHAPE);
    a = (qkv_npy){.type = QKV_NPY_F64, .rank = 2, .dim = {PTRDIFF_MAX, 9}, .data = &x};
    assert_status(qkv_npy_save(&a, path), QKV_E_OVERFLOW);
    a = (qkv_npy){.type = QKV_NPY_F64, .rank = 1, .dim = {1}};
    assert_status(qkv_npy_save(&a, path), QKV_E_ARG);
    a = (qkv_npy){.type = (qkv_npy_type)N_TYPES, .data = &x};
    assert_status(qkv_npy_save(&a, path), QKV_E_ARG);
    assert_int_equal(scratch_count("refused"), 0);
    a = (qkv_npy){.type = QKV_NPY_F64, .data = &x};
    assert_status(qkv_npy_save(&a, scratch("none/x.npy")), QKV_E_IO);
    assert_message("none/x.npy");
    assert_status(qkv_npy_save(&a, NULL), QKV_E_ARG);
}

static void what_is_no_file_is_refused(void **state)
{
    (void)state;
    qkv_npy a;
    assert_status(qkv_npy_load(&a, scratch("absent.npy")), QKV_E_IO);
    assert_message("absent.npy");
    assert_status(qkv_npy_load(&a, "/tmp"), QKV_E_IO);
    assert_message("not a regular file");
    assert_status(qkv_npy_load(&a, NULL), QKV_E_ARG);
    assert_status(qkv_npy_load(NULL, "x"), QKV_E_ARG);
    size_t offset;
    assert_status(qkv_npy_header(&a, scratch("absent.npy"), &offset), QKV_E_IO);
    assert_message("qkv_npy_header: cannot read ");
    assert_status(qkv_npy_header(&a, NULL, &offset), QKV_E_ARG);
    assert_status(qkv_npy_header(NULL, "x", &offset), QKV_E_ARG);
    assert_status(qkv_npy_header(&a, "x", NULL), QKV_E_ARG);
    qkv_npy_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_and_rank_is_saved_and_loaded),
        cmocka_unit_test(the_header_is_written_as_numpy_writes_it),
        cmocka_unit_test(all_versions_orders_of_keys_and_byte_order_marks_load),
        cmocka_unit_test(every_type_in_either_byte_order_and_axis_order_loads),
        cmocka_unit_test(halves_are_those_of_ieee_754),
        cmocka_unit_test(fortran_order_is_transposed),
        cmocka_unit_test(an_empty_array_is_an_array),
        cmocka_unit_test(malformed_headers_are_refused_with_their_offset),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(a_file_with_damaged_bytes_is_read_in_bounds),
        cmocka_unit_test(what_cannot_be_saved_is_refused_and_leaves_nothing),
        cmocka_unit_test(what_is_no_file_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
