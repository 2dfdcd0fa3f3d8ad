/* test_parameters.c - named arrays: their names and numbers, the tape, the optimizers, and files in
 * the safetensors format, well formed and not. Built for each dtype. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "process.h"
#include "qkv/parameters.h"
#include "src/safetensors.h"
#include "src/real.h"
#include "support.h"

#if QKV_REAL == 32
#define DTYPE "F32"
enum { BYTES = 4 };
#else
#define DTYPE "F64"
enum { BYTES = 8 };
#endif

static qkv_parameters *set;

static int set_up(void **state)
{
    (void)state;
    return (int)qkv_parameters_new(&set, REAL_DTYPE);
}

static int tear_down(void **state)
{
    (void)state;
    qkv_parameters_free(set);
    return 0;
}

static real *add(const char *name, qkv_shape shape, qkv_initializer how)
{
    assert_ok(qkv_parameters_add(set, name, shape, &how));
    return qkv_parameters_find(set, name)->data;
}

/* ---- Names and numbers ----------------------------------------------------------------------- */

static void arrays_are_found_by_name_and_place(void **state)
{
    (void)state;
    char name[32];
    assert_int_equal(qkv_parameters_count(set), 0);
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "layer.%d", i);
        assert_ok(qkv_parameters_add(set, name, qkv_shape2(i, 3), NULL));
    }
    strcpy(name, "copied");
    assert_int_equal(qkv_parameters_count(set), 100);
    assert_int_equal(qkv_parameters_size(set), 3 * 99 * 100 / 2);
    for (size_t i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "layer.%zu", i);
        const qkv_parameter *p = qkv_parameters_find(set, name);
        assert_ptr_equal(p, qkv_parameters_at(set, i));
        assert_string_equal(p->name, name);
        assert_int_equal(p->dtype, REAL_DTYPE);
        assert_int_equal(p->shape.rank, 2);
        assert_int_equal(p->shape.dim[0], i);
        assert_int_equal(p->size, 3 * i);
        for (size_t k = 0; k < p->size; k++)
            assert_true(((real *)p->data)[k] == 0 && ((real *)p->gradient)[k] == 0);
    }
    assert_null(qkv_parameters_at(set, 100));
    assert_null(qkv_parameters_find(set, "layer."));
    assert_null(qkv_parameters_find(set, NULL));
    assert_null(qkv_parameters_find(NULL, "layer.1"));
    assert_null(qkv_parameters_at(NULL, 0));
    assert_int_equal(qkv_parameters_size(NULL), 0);
}

enum { ROWS = 200, COLUMNS = 300, MANY = ROWS * COLUMNS };

/* Mean 0, this deviation, and nothing beyond limit but something close to it. */
static void assert_spread(const real *x, double deviation, double limit)
{
    double sum = 0, squares = 0, largest = 0;
    for (int i = 0; i < MANY; i++) {
        sum += (double)x[i];
        squares += (double)x[i] * (double)x[i];
        largest = (fmax)(largest, (fabs)((double)x[i]));
    }
    assert_close(sum / MANY, 0, 4 * deviation / (sqrt)(MANY));
    assert_close((sqrt)(squares / MANY), deviation, 0.02 * deviation);
    assert_in_range((int)(1000 * largest / limit), 700, 1000);
}

static void initialisers_are_their_formulas(void **state)
{
    (void)state;
    const qkv_shape shape = qkv_shape2(ROWS, COLUMNS);
    const double third = (sqrt)(1. / 3), glorot = 2 * (sqrt)(6. / 500), he = 2 * (sqrt)(2. / 200);
    real *x = add("constant", shape, (qkv_initializer){.rule = QKV_INIT_CONSTANT, .scale = -0.5});
    assert_true(x[0] == (real)-0.5 && x[MANY - 1] == (real)-0.5);
    x = add("one", shape, (qkv_initializer){.rule = QKV_INIT_CONSTANT});
    assert_true(x[0] == 1 && x[MANY - 1] == 1);
    x = add("zeros", shape, (qkv_initializer){.rule = QKV_INIT_ZEROS, .scale = 3});
    assert_true(x[0] == 0 && x[MANY - 1] == 0);
    assert_spread(
        add("u", shape, (qkv_initializer){.rule = QKV_INIT_UNIFORM, .scale = 0.25, .seed = 1}),
        third / 4, 0.25);
    assert_spread(
        add("n", shape, (qkv_initializer){.rule = QKV_INIT_NORMAL, .scale = 3, .seed = 1}), 3, 18);
    assert_spread(
        add("g", shape, (qkv_initializer){.rule = QKV_INIT_GLOROT, .scale = 2, .seed = 1}),
        glorot * third, glorot);
    assert_spread(add("h", shape, (qkv_initializer){.rule = QKV_INIT_HE, .scale = 2, .seed = 1}),
                  he, 6 * he);
}

/* A vector is a column; axes before the last two are matrices of their own; a scalar is 1 by 1. */
static void sizes_in_and_out_are_those_of_products(void **state)
{
    (void)state;
    const qkv_shape vector = qkv_shape1(MANY), heads = qkv_shape3(100, 20, 30);
    const double column = (sqrt)(6. / (MANY + 1)), third = (sqrt)(1. / 3);
    const double matrix = (sqrt)(6. / 50);
    assert_spread(add("vector", vector, (qkv_initializer){.rule = QKV_INIT_GLOROT}), column * third,
                  column);
    assert_spread(add("heads", heads, (qkv_initializer){.rule = QKV_INIT_GLOROT}), matrix * third,
                  matrix);
    const real *x = add("scalar", qkv_scalar(), (qkv_initializer){.rule = QKV_INIT_GLOROT});
    assert_true(*x != 0 && (fabs)((double)*x) < (sqrt)(3.));
}

static void numbers_depend_on_seed_name_and_place_alone(void **state)
{
    (void)state;
    const qkv_initializer one = {.rule = QKV_INIT_NORMAL, .seed = 1},
                          two = {.rule = QKV_INIT_NORMAL, .seed = 2};
    qkv_parameters *other, *wide;
    assert_ok(qkv_parameters_new(&other, REAL_DTYPE));
    assert_ok(qkv_parameters_new(&wide, QKV_F64));
    real *x = add("x", qkv_shape1(8), one), *y = add("y", qkv_shape1(8), one);
    assert_ok(qkv_parameters_add(other, "y", qkv_shape1(9), &one));
    assert_ok(qkv_parameters_add(other, "x", qkv_shape1(8), &two));
    assert_ok(qkv_parameters_add(wide, "x", qkv_shape1(8), &one));
    const real *again = qkv_parameters_at(other, 0)->data, *x2 = qkv_parameters_at(other, 1)->data;
    const double *in_double = qkv_parameters_at(wide, 0)->data;
    assert_memory_equal(y, again, 8 * sizeof *y);
    for (int i = 0; i < 8; i++) {
        assert_true(x[i] != y[i] && x[i] != x2[i]);
        assert_close((double)x[i], (double)(real)in_double[i], 0);
    }
    qkv_parameters_free(other);
    qkv_parameters_free(wide);
}

static void assert_not_added(qkv_status status, const char *name, qkv_shape shape,
                             qkv_initializer how, const char *message)
{
    assert_status(qkv_parameters_add(set, name, shape, &how), status);
    assert_message(message);
    assert_int_equal(qkv_parameters_count(set), 1);
}

static void what_cannot_be_added_is_named(void **state)
{
    (void)state;
    const qkv_shape two = qkv_shape1(2);
    const qkv_initializer zeros = {0};
    char longest[257] = "";
    memset(longest, 'x', 255);
    add(longest, two, zeros);
    longest[255] = 'x';
    assert_not_added(QKV_E_ARG, longest, two, zeros, "the name has more bytes, expected 1 to 255");
    longest[255] = 0;
    assert_not_added(QKV_E_ARG, longest, two, zeros, "already");
    assert_not_added(QKV_E_ARG, "", two, zeros, "the name has 0 bytes");
    assert_not_added(QKV_E_ARG, NULL, two, zeros, "name is NULL");
    assert_not_added(QKV_E_ARG, "__metadata__", two, zeros, "__metadata__");
    static const char *const texts[] = {
        "a\n",          "\xc2\x9b",         "\x7f", "\xff", "\xc3", "\xc0\xaf", "\xe0\x80\x80",
        "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc3("};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_not_added(QKV_E_ARG, texts[i], two, zeros, "the name is not UTF-8");
    assert_not_added(QKV_E_SHAPE, "x", qkv_shape2(1, -1), zeros, "size 1 is -1");
    assert_not_added(QKV_E_SHAPE, "x", (qkv_shape){.rank = 9}, zeros, "the rank is 9");
    assert_not_added(QKV_E_OVERFLOW, "x", qkv_shape2(PTRDIFF_MAX, 3), zeros, "overflows");
    assert_not_added(QKV_E_ARG, "x", two, (qkv_initializer){.rule = (qkv_initial)6}, "rule is 6");
    assert_not_added(QKV_E_ARG, "x", two, (qkv_initializer){.scale = NAN}, "scale is nan");
    assert_not_added(QKV_E_ARG, "x", two, (qkv_initializer){.scale = -INFINITY}, "scale is -inf");
    if (REAL_DTYPE == QKV_F32)
        assert_not_added(QKV_E_ARG, "x", two, (qkv_initializer){.scale = 1e39},
                         "scale is 1e+39, expected a finite float");
    assert_status(qkv_parameters_add(NULL, "x", two, NULL), QKV_E_ARG);
    assert_status(qkv_parameters_new(NULL, QKV_F32), QKV_E_ARG);
    qkv_parameters *none = set;
    assert_status(qkv_parameters_new(&none, (qkv_dtype)2), QKV_E_ARG);
    assert_null(none);
    qkv_parameters_free(NULL);
}

/* ---- The tape and the optimizers ------------------------------------------------------------- */

/* y = w x, by descent. */
static void parameters_are_recorded_and_learn(void **state)
{
    (void)state;
    static const real x[4] = {1, 2, -1, 1}, y[2] = {4, 5}; /* w = (1, 1.5), if y = x w */
    qkv_tape *tape;
    qkv_optimizer *optimizer;
    real *w = add("w", qkv_shape1(2), (qkv_initializer){.rule = QKV_INIT_NORMAL, .seed = 3});
    real *b = add("b", qkv_scalar(), (qkv_initializer){0});
    const real *db = qkv_parameters_find(set, "b")->gradient;
    assert_ok(qkv_tape_new(&tape, REAL_DTYPE));
    assert_ok(qkv_adam_new(&optimizer, &(qkv_adam){.rate = 0.05}));
    assert_ok(qkv_optimizer_add_parameters(optimizer, set));
    double loss = 0;
    for (int step = 0; step < 2000; step++) {
        qkv_tape_reset(tape);
        qkv_optimizer_zero_gradients(optimizer);
        assert_true(*db == 0);
        qkv_var in = FN(qkv_leaf)(tape, qkv_shape2(2, 2), x, NULL);
        qkv_var product = qkv_matmul(tape, in, qkv_parameters_leaf(tape, set, "w"));
        qkv_var guess = qkv_add(tape, product, qkv_parameters_leaf(tape, set, "b"));
        qkv_var error = qkv_mse(tape, guess, FN(qkv_leaf)(tape, qkv_shape1(2), y, NULL));
        assert_ok(qkv_backward(tape, error));
        assert_ok(qkv_optimizer_step(optimizer));
        loss = qkv_item(tape, error);
    }
    assert_close(loss, 0, 1e-6);
    assert_close((double)(w[0] + 2 * w[1] + *b), 4, 1e-2);
    assert_close((double)(w[1] - w[0] + *b), 5, 1e-2);
    assert_true(*b != 0);
    qkv_optimizer_free(optimizer);
    qkv_tape_free(tape);
}

static void assert_no_leaf(qkv_tape *tape, qkv_parameters *from, const char *name,
                           qkv_status status, const char *message)
{
    assert_int_equal(qkv_parameters_leaf(tape, from, name).generation, 0);
    assert_status(qkv_tape_status(tape), status);
    if (!strstr(qkv_tape_error(tape), message))
        fail_msg("\"%s\" does not contain \"%s\"", qkv_tape_error(tape), message);
    qkv_tape_reset(tape);
}

static void what_cannot_be_recorded_is_named(void **state)
{
    (void)state;
    qkv_tape *tape, *other;
    qkv_optimizer *optimizer;
    add("w", qkv_shape1(2), (qkv_initializer){0});
    assert_ok(qkv_tape_new(&tape, REAL_DTYPE));
    assert_ok(qkv_tape_new(&other, QKV_REAL == 32 ? QKV_F64 : QKV_F32));
    assert_no_leaf(tape, set, "W", QKV_E_ARG, "%0 = leaf(): no parameter is named 'W'");
    assert_no_leaf(tape, set, NULL, QKV_E_ARG, "the name of the parameter is NULL");
    assert_no_leaf(tape, NULL, "w", QKV_E_ARG, "the set of the parameter is NULL");
    assert_no_leaf(other, set, "w", QKV_E_DTYPE, "the tape carries");
    assert_int_equal(qkv_parameters_leaf(NULL, set, "w").generation, 0);
    assert_ok(qkv_sgd_new(&optimizer, NULL));
    assert_status(qkv_optimizer_add_parameters(optimizer, NULL), QKV_E_ARG);
    assert_message("set is NULL");
    assert_status(qkv_optimizer_add_parameters(NULL, set), QKV_E_ARG);
    qkv_optimizer_free(optimizer);
    qkv_tape_free(tape);
    qkv_tape_free(other);
}

/* ---- Files ----------------------------------------------------------------------------------- */

/* a [2] = 1, 2 and b [] = 3. */
static void add_two(void)
{
    real *a = add("a", qkv_shape1(2), (qkv_initializer){.rule = QKV_INIT_CONSTANT});
    a[1] = 2;
    *add("b", qkv_scalar(), (qkv_initializer){.rule = QKV_INIT_CONSTANT}) = 3;
}

static void assert_two(real a0, real a1, real b)
{
    const real *a = qkv_parameters_find(set, "a")->data,
               *other = qkv_parameters_find(set, "b")->data;
    assert_true(a[0] == a0 && a[1] == a1 && *other == b);
}

/* A file with this header and n numbers, 10, 11, .. */
static const char *write_tensors(const char *header, size_t n)
{
    static char file[1024];
    uint64_t length = strlen(header);
    memcpy(file, &length, 8);
    memcpy(file + 8, header, length);
    for (size_t i = 0; i < n; i++) {
        real x = (real)(10 + i);
        memcpy(file + 8 + length + i * sizeof x, &x, sizeof x);
    }
    write_file(scratch("in.safetensors"), file, 8 + length + n * BYTES);
    return scratch("in.safetensors");
}

static void the_file_is_the_formats(void **state)
{
    (void)state;
    char expected[200];
    int length = snprintf(expected, sizeof expected,
                          "{\"a\":{\"dtype\":\"" DTYPE "\",\"shape\":[2],\"data_offsets\":[0,%d]},"
                          "\"b\":{\"dtype\":\"" DTYPE "\",\"shape\":[],\"data_offsets\":[%d,%d]}}",
                          2 * BYTES, 2 * BYTES, 3 * BYTES);
    while (length % 8) expected[length++] = ' ';
    const real numbers[] = {1, 2, 3};
    size_t bytes;
    add_two();
    assert_ok(qkv_parameters_save(set, scratch("two.safetensors")));
    char *file = read_file(scratch("two.safetensors"), &bytes);
    assert_int_equal(bytes, 8 + (size_t)length + sizeof numbers);
    assert_int_equal((unsigned char)file[0], length);
    for (int i = 1; i < 8; i++) assert_int_equal(file[i], 0);
    assert_memory_equal(file + 8, expected, (size_t)length);
    assert_memory_equal(file + 8 + length, numbers, sizeof numbers);
    assert_int_equal(scratch_count(".tmp"), 0);
    free(file);
}

static void any_set_is_saved_and_loaded(void **state)
{
    (void)state;
    static const char *const names[] = {"w",
                                        "quote \" and \\ slash",
                                        "\xc3\xa9t\xc3\xa9",
                                        "\xe2\x88\x91",
                                        "\xf0\x9f\x94\x91",
                                        "layers.0.weight",
                                        "empty",
                                        "scalar",
                                        "{}[],:"};
    qkv_parameters *loaded;
    assert_ok(qkv_parameters_new(&loaded, REAL_DTYPE));
    assert_ok(qkv_parameters_save(set, scratch("any.safetensors"))); /* with nothing */
    assert_ok(qkv_parameters_load(loaded, scratch("any.safetensors")));
    for (int i = 0; i < 9; i++) {
        qkv_shape shape = {.rank = i};
        for (int k = 0; k < i; k++) shape.dim[k] = k == 1 ? 3 : k == 3 ? 2 : 1;
        if (i == 6) shape.dim[2] = 0;
        add(names[i], shape, (qkv_initializer){.rule = QKV_INIT_NORMAL, .seed = (uint64_t)i});
        assert_ok(qkv_parameters_add(loaded, names[8 - i], qkv_shape1(0), NULL));
    }
    qkv_parameters_free(loaded);
    assert_ok(qkv_parameters_new(&loaded, REAL_DTYPE));
    for (size_t i = 9; i-- > 0;)
        assert_ok(qkv_parameters_add(loaded, names[i], qkv_parameters_at(set, i)->shape, NULL));
    assert_ok(qkv_parameters_save(set, scratch("any.safetensors")));
    assert_ok(qkv_parameters_load(loaded, scratch("any.safetensors")));
    for (size_t i = 0; i < 9; i++) {
        const qkv_parameter *p = qkv_parameters_at(set, i);
        const real *x = qkv_parameters_find(loaded, names[i])->data;
        assert_memory_equal(x, p->data, p->size * sizeof *x);
        assert_true(p->size == 0 || x[0] != 0);
    }
    qkv_parameters_free(loaded);
}

#define A "{\"dtype\":\"" DTYPE "\",\"shape\":[2],\"data_offsets\":"
#define B "{\"dtype\":\"" DTYPE "\",\"shape\":[],\"data_offsets\":"
#if QKV_REAL == 32
#define FIRST "[0,8]}"
#define THEN "[8,12]}"
#else
#define FIRST "[0,16]}"
#define THEN "[16,24]}"
#endif

static void all_that_json_allows_is_read(void **state)
{
    (void)state;
    static const char *const headers[] = {
        "{\"a\":" A FIRST ",\"b\":" B THEN "}",
        "{\"b\":" B THEN ",\"a\":" A FIRST "}   \n",
        "{\"__metadata__\":{},\"b\":" B THEN ",\"a\":" A FIRST "}",
        "{\"a\":" A FIRST ",\"b\":" B THEN ",\"__metadata__\":{\"format\":\"pt\",\"x\":\"\\n\\u0000"
        "\\uD83D\\uDd11\\\"\"}}",
        "{ \"\\u0061\"\t:\n" A " " FIRST "\r,\"b\" :" B THEN " }",
    };
    add_two();
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        ((real *)qkv_parameters_at(set, 0)->data)[0] = 0;
        assert_ok(qkv_parameters_load(set, write_tensors(headers[i], 3)));
        assert_two(10, 11, 12);
    }
}

static void malformed_files_are_refused_with_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *header, *message;
    } cases[] = {
        {"", "byte 8: expected {"},
        {" {\"a\":" A FIRST ",\"b\":" B THEN "}", "byte 8: expected {"},
        {"{", "byte 9: expected a key"},
        {"{}", "it lacks 'a'"},
        {"{\"a\":" A FIRST "}", "it lacks 'b'"},
        {"{\"a\":" A FIRST ",\"b\":" B THEN ",\"c\":" B THEN "}", "it has 'c', which is not"},
        {"{\"a\":" A FIRST ",\"a\":" A FIRST "}", "it has 'a' twice"},
        {"{\"a\\u0000\":" A FIRST ",\"b\":" B THEN "}", "a control character in the name"},
        {"{\"a\":" A FIRST ",\"b\":" B THEN "} x", "text after"},
        {"{\"a\":" A FIRST ",\"b\":" B THEN ",}", "expected a key"},
        {"{\"a\":" A FIRST " \"b\":" B THEN "}", "expected , or }"},
        {"{\"a\" " A FIRST "}", "expected a key"},
        {"{\"a", "a string without its end"},
        {"{\"a\n", "a control character in a string"},
        {"{\"\\x", "an unknown escape"},
        {"{\"\\", "an unknown escape"},
        {"{\"\\u12", "an unknown escape"},
        {"{\"\\u12g4\"", "an unknown escape"},
        {"{\"\\ud800\"", "an unknown escape"},
        {"{\"\\ud800\\u0061\"", "an unknown escape"},
        {"{\"\\udc00\\ud800\"", "an unknown escape"},
        {"{\"\xff\"", "the header is not UTF-8"},
        {"{\"a\":3}", "byte 13: expected {"},
        {"{\"a\":{}}", "dtype, shape or data_offsets is missing"},
        {"{\"a\":{\"dtype\":\"" DTYPE "\",\"shape\":[2]}}", "is missing"},
        {"{\"a\":{\"dtype\":\"" DTYPE "\",\"dtype\":\"" DTYPE "\"}}", "unknown or repeated key"},
        {"{\"a\":{\"kind\":\"" DTYPE "\"}}", "unknown or repeated key"},
        {"{\"a\":{\"dtype\":4}}", "expected a string"},
        {"{\"a\":{\"dtype\":\"\\u001b[m\"}}", "a control character in the dtype before this"},
        {"{\"a\\u009b\":3}", "a control character in the name"},
        {"{\"a\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":" FIRST "}",
         "'a' is of dtype BF16, expected " DTYPE},
        {"{\"a\":{\"dtype\":\"nineteen_characters\xc3\xa9\",\"shape\":[2],\"data_offsets\":" FIRST
         "}",
         "'a' is of dtype nineteen_characters, expected " DTYPE},
        {"{\"a\":{\"shape\":2}}", "expected ["},
        {"{\"a\":{\"shape\":[-2]}}", "expected a number, 0 or more"},
        {"{\"a\":{\"shape\":[2.0]}}", "expected , or ]"},
        {"{\"a\":{\"shape\":[2,]}}", "expected a number"},
        {"{\"a\":{\"shape\":[02]}}", "a number that begins with 0"},
        {"{\"a\":{\"shape\":[00]}}", "a number that begins with 0"},
        {"{\"a\":{\"shape\":[9223372036854775808]}}", "too large"},
        {"{\"a\":{\"shape\":[99999999999999999999]}}", "too large"},
        {"{\"a\":{\"shape\":[1,1,1,1,1,1,1,1,1]}}", "more than 8 numbers"},
        {"{\"a\":{\"shape\":[2", "expected , or ]"},
        {"{\"a\":{\"data_offsets\":[0]}}", "expected two offsets"},
        {"{\"a\":{\"data_offsets\":[0,1,2]}}", "more than 2 numbers"},
        {"{\"b\":" A FIRST "}", "'b' is [2], expected []"},
        {"{\"a\":{\"dtype\":\"" DTYPE "\",\"shape\":[3,1],\"data_offsets\":" FIRST "}",
         "'a' is [3,1], expected [2]"},
        {"{\"a\":" A "[0,9]}}", "but is said to be bytes 0 to 9 of"},
        {"{\"a\":" A "[8,0]}}", "bytes 8 to 0"},
        {"{\"a\":" A "[9223372036854775799,9223372036854775807]}}", "9223372036854775807 of"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", "__metadata__ twice"},
        {"{\"__metadata__\":[]}", "expected {"},
        {"{\"__metadata__\":{\"a\":1}}", "expected a string"},
        {"{\"__metadata__\":{\"a\":\"b\"", "expected , or }"},
    };
    add_two();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_status(qkv_parameters_load(set, write_tensors(cases[i].header, 3)), QKV_E_FORMAT);
        assert_message(cases[i].message);
        assert_message("in.safetensors: ");
        assert_two(1, 2, 3);
    }
}

#undef FIRST
#undef THEN

static void a_long_name_is_cut_between_characters(void **state)
{
    (void)state;
    char header[1024] = "{\"", expected[512] = "it has '";
    for (int i = 0; i < 250; i++) strcat(header, "\xc3\xa9");
    for (int i = 0; i < 127; i++) strcat(expected, "\xc3\xa9");
    strcat(header, "\":3}");
    strcat(expected, "', which is not expected");
    assert_status(qkv_parameters_load(set, write_tensors(header, 0)), QKV_E_FORMAT);
    assert_message(expected);
}

static void text_is_utf_8_to_its_last_byte(void **state)
{
    (void)state;
    static const char all[] =
        "a\xc3\xa9\xe2\x88\x91\xf0\x9f\x94\x91\xf4\x8f\xbf\xbf\xed\x9f\xbf\xee\x80\x80";
    static const int ends[] = {0, 1, 3, 6, 10, 14, 17, 20};
    for (int n = 0, next = 0; n <= 20; n++) {
        bool whole = n == ends[next];
        assert_int_equal(qkv_is_utf8(all, (size_t)n, true), whole);
        next += whole;
    }
    assert_true(qkv_is_utf8("a\nb", 3, false));
    assert_false(qkv_is_utf8("a\nb", 3, true));
}

static void numbers_lie_one_after_another(void **state)
{
    (void)state;
    static const struct {
        int a, b, n; /* where they begin, and how many there are */
        const char *message;
    } cases[] = {
        {0, 1, 3, "'a' and 'b' overlap"},
        {1, 0, 3, NULL},
        {1, 1, 3, "are nobody's"},
        {0, 3, 4, "are nobody's"},
        {1, 3, 4, "bytes 0 to "},
        {0, 2, 4, "are nobody's"},
        {0, 0, 2, "overlap"},
        {0, 2, 2, "but is said to be"},
    };
    add_two();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char header[300];
        snprintf(header, sizeof header, "{\"a\":" A "[%d,%d]},\"b\":" B "[%d,%d]}}",
                 cases[i].a * BYTES, (cases[i].a + 2) * BYTES, cases[i].b * BYTES,
                 (cases[i].b + 1) * BYTES);
        qkv_status status = qkv_parameters_load(set, write_tensors(header, (size_t)cases[i].n));
        assert_int_equal(status, cases[i].message ? QKV_E_FORMAT : QKV_OK);
        if (cases[i].message)
            assert_message(cases[i].message);
        else
            assert_two(11, 12, 10);
    }
}

static void the_header_has_no_more_bytes_than_the_file(void **state)
{
    (void)state;
    char file[16] = "";
    const uint64_t lengths[] = {9, 1 << 20, 100000001, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memcpy(file, &lengths[i], 8);
        write_file(scratch("in.safetensors"), file, sizeof file);
        assert_status(qkv_parameters_load(set, scratch("in.safetensors")), QKV_E_FORMAT);
        assert_message("in.safetensors: byte 0: a header of ");
    }
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    add_two();
    assert_ok(qkv_parameters_save(set, scratch("whole.safetensors")));
    size_t bytes;
    char *whole = read_file(scratch("whole.safetensors"), &bytes);
    ((real *)qkv_parameters_at(set, 0)->data)[0] = 7;
    for (size_t n = 0; n < bytes; n++) {
        write_file(scratch("cut.safetensors"), whole, n);
        assert_status(qkv_parameters_load(set, scratch("cut.safetensors")), QKV_E_FORMAT);
        assert_message("cut.safetensors: ");
        assert_two(7, 2, 3);
    }
    free(whole);
}

/* One byte, where it stands. */
static void put(FILE *file, size_t at, char byte)
{
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    assert_int_equal(fputc(byte, file), (unsigned char)byte);
    assert_int_equal(fflush(file), 0);
}

/* Every byte, to many others: what loads has the set's sizes, what does not changes nothing. */
static void a_file_with_a_damaged_byte_is_read_in_bounds(void **state)
{
    (void)state;
    static const char likely[] = "0123456789\"\\',[]{}:/abdu_F-.eE \n\x80\xff\x01";
    const char *path = scratch("damaged.safetensors");
    int loaded = 0, refused = 0;
    size_t bytes;
    add_two();
    assert_ok(qkv_parameters_save(set, path));
    char *whole = read_file(path, &bytes);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    for (size_t at = 0; at < bytes; at++)
        for (size_t k = 0; k < sizeof likely + 8; k++) {
            char byte = (char)((unsigned char)whole[at] ^ 1U << (k + 8 - sizeof likely) % 8);
            if (k < sizeof likely) byte = likely[k];
            put(file, at, byte);
            qkv_status status = qkv_parameters_load(set, path);
            assert_true(status == QKV_OK || (status == QKV_E_FORMAT && byte != whole[at]));
            refused += status != QKV_OK;
            loaded += status == QKV_OK;
            put(file, at, whole[at]);
            if (status)
                assert_two(1, 2, 3);
            else
                assert_ok(qkv_parameters_load(set, path));
        }
    assert_true(loaded > 200 && refused > 4000);
    fclose(file);
    free(whole);
}

static void what_cannot_be_saved_or_loaded_is_named(void **state)
{
    (void)state;
    assert_status(qkv_parameters_save(set, scratch("none/x")), QKV_E_IO);
    assert_message("none/x");
    assert_status(qkv_parameters_save(set, ""), QKV_E_ARG);
    assert_status(qkv_parameters_save(set, NULL), QKV_E_ARG);
    assert_status(qkv_parameters_save(NULL, scratch("x")), QKV_E_ARG);
    assert_status(qkv_parameters_load(set, scratch("absent")), QKV_E_IO);
    assert_message("absent");
    assert_status(qkv_parameters_load(set, "/tmp"), QKV_E_IO);
    assert_message("not a regular file");
    assert_status(qkv_parameters_load(set, NULL), QKV_E_ARG);
    assert_status(qkv_parameters_load(NULL, scratch("x")), QKV_E_ARG);
}

/* By the format's rules alone, in another language. */
static const char READER[] =
    "import json, struct, sys\n"
    "file = open(sys.argv[1], 'rb').read()\n"
    "n = struct.unpack('<Q', file[:8])[0]\n"
    "header, data, at = json.loads(file[8:8 + n].decode('utf-8')), file[8 + n:], 0\n"
    "assert n % 8 == 0 and file[8:9] == b'{'\n"
    "for name, t in header.items():\n"
    "    size, code = 1, {'F32': 'f', 'F64': 'd'}[t['dtype']]\n"
    "    for k in t['shape']: size *= k\n"
    "    begin, end = t['data_offsets']\n"
    "    assert begin == at and end - begin == size * struct.calcsize(code)\n"
    "    at = end\n"
    "    print(name, t['shape'], *struct.unpack('<%d%s' % (size, code), data[begin:end]))\n"
    "assert at == len(data)\n";

static void another_reader_of_the_format_reads_it(void **state)
{
    (void)state;
    add_two();
    real *x = add("a \"b\" \\c", qkv_shape2(1, 2), (qkv_initializer){0});
    x[0] = (real)0.25, x[1] = -8;
    assert_ok(qkv_parameters_save(set, scratch("read.safetensors")));
    const char *const command[] = {"python3", "-c", READER, scratch("read.safetensors"), NULL};
    ran r = run(command, NULL);
    if (r.exit_code == 127) skip();
    assert_string_equal(r.err, "");
    assert_string_equal(r.out, "a [2] 1.0 2.0\nb [] 3.0\na \"b\" \\c [1, 2] 0.25 -8.0\n");
    ran_free(&r);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(arrays_are_found_by_name_and_place),
        TEST(initialisers_are_their_formulas),
        TEST(sizes_in_and_out_are_those_of_products),
        TEST(numbers_depend_on_seed_name_and_place_alone),
        TEST(what_cannot_be_added_is_named),
        TEST(parameters_are_recorded_and_learn),
        TEST(what_cannot_be_recorded_is_named),
        TEST(the_file_is_the_formats),
        TEST(any_set_is_saved_and_loaded),
        TEST(all_that_json_allows_is_read),
        TEST(malformed_files_are_refused_with_what_is_wrong),
        TEST(a_long_name_is_cut_between_characters),
        TEST(text_is_utf_8_to_its_last_byte),
        TEST(numbers_lie_one_after_another),
        TEST(the_header_has_no_more_bytes_than_the_file),
        TEST(a_file_cut_anywhere_is_refused),
        TEST(a_file_with_a_damaged_byte_is_read_in_bounds),
        TEST(what_cannot_be_saved_or_loaded_is_named),
        TEST(another_reader_of_the_format_reads_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
