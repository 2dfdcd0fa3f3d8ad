/* test_registry.c - every operation of the tape has the gradient its value implies. */
#include <string.h>

#include "qkv/gradcheck.h"
#include "qkv/tape.h"
#include "support.h"

static void every_operation_passes_its_gradient_check(void **state)
{
    (void)state;
    for (int op = 0; op < qkv_op_count(); op++)
        for (uint64_t seed = 1; seed <= 3; seed++) {
            qkv_check_report report;
            assert_ok(qkv_gradcheck_op(op, seed, &report));
            assert_true(report.passed && report.checked > 0 && !report.failed);
        }
}

static void operations_have_names_of_their_own(void **state)
{
    (void)state;
    assert_true(qkv_op_count() >= 25);
    for (int i = 0; i < qkv_op_count(); i++)
        for (int j = 0; j < i; j++) assert_string_not_equal(qkv_op_name(i), qkv_op_name(j));
    assert_null(qkv_op_name(-1));
    assert_null(qkv_op_name(qkv_op_count()));
}

static void check_of_no_operation_is_an_error(void **state)
{
    (void)state;
    qkv_check_report report;
    assert_status(qkv_gradcheck_op(-1, 1, &report), QKV_E_ARG);
    assert_status(qkv_gradcheck_op(qkv_op_count(), 1, NULL), QKV_E_ARG);
    assert_false(report.passed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_passes_its_gradient_check),
        cmocka_unit_test(operations_have_names_of_their_own),
        cmocka_unit_test(check_of_no_operation_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
