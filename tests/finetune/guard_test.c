#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "finetune/guard.h"

#include <math.h>

static void three_bad_steps_roll_back(void **state)
{
    (void)state;
    tn_guard guard = {0};
    assert_int_equal(tn_guard_judge(&guard, 1, 1), TN_STEP_GOOD);
    assert_int_equal(tn_guard_judge(&guard, (double)NAN, 1), TN_STEP_DROP);
    assert_int_equal(tn_guard_judge(&guard, 1, (double)INFINITY), TN_STEP_DROP);
    assert_int_equal(tn_guard_judge(&guard, 1, 1), TN_STEP_GOOD);
    assert_int_equal(tn_guard_judge(&guard, (double)NAN, 1), TN_STEP_DROP);
    assert_int_equal(tn_guard_judge(&guard, (double)NAN, 1), TN_STEP_DROP);
    assert_int_equal(tn_guard_judge(&guard, (double)NAN, 1), TN_STEP_ROLL_BACK);
    assert_int_equal(guard.dropped, 5);
}

static void a_jump_of_the_loss_rolls_back(void **state)
{
    (void)state;
    tn_guard guard = {0};
    for (int i = 0; i < TN_GUARD_WINDOW; i++) {
        assert_int_equal(tn_guard_judge(&guard, i < 50 ? 30 : 2, 1), TN_STEP_GOOD);
    }
    assert_int_equal(tn_guard_judge(&guard, 19.9, 1), TN_STEP_GOOD);
    assert_int_equal(tn_guard_judge(&guard, 20.1, 1), TN_STEP_ROLL_BACK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_bad_steps_roll_back),
        cmocka_unit_test(a_jump_of_the_loss_rolls_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
