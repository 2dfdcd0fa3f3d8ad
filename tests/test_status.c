/* test_status.c - names, messages, version and threads. */
#include "support.h"

#include <string.h>

static void every_status_has_its_name(void **state)
{
    (void)state;
    assert_string_equal(qkv_status_name(QKV_OK), "QKV_OK");
    assert_string_equal(qkv_status_name(QKV_E_PROCESS), "QKV_E_PROCESS");
    assert_string_equal(qkv_status_name((qkv_status)99), "unknown status");
    assert_string_equal(qkv_status_name((qkv_status)-1), "unknown status");
    for (int s = QKV_OK; s <= QKV_E_PROCESS; s++)
        assert_int_equal(strncmp(qkv_status_name((qkv_status)s), "QKV_", 4), 0);
}

static void threads_are_set_and_refused(void **state)
{
    (void)state;
    assert_status(qkv_set_num_threads(-1), QKV_E_ARG);
    assert_message("-1");
    assert_ok(qkv_set_num_threads(3));
#ifdef _OPENMP
    assert_int_equal(qkv_get_num_threads(), 3);
#else
    assert_int_equal(qkv_get_num_threads(), 1);
#endif
    assert_ok(qkv_set_num_threads(0));
    assert_true(qkv_get_num_threads() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_status_has_its_name),
        cmocka_unit_test(threads_are_set_and_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
