#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "finetune/guard.h"

#include <math.h>

/* What most steps below are judged with. */
static tn_verdict judge(tn_guard *guard, double loss)
{
    return tn_guard_judge(guard, loss, 1, log(10));
}

/* One odd batch is no divergence, nor are losses that a well fitted network makes. */
static void jumps_of_the_loss_roll_back(void **state)
{
    (void)state;
    tn_guard guard = {0};
    for (int i = 0; i < TN_GUARD_WINDOW; i++)
        assert_int_equal(judge(&guard, i < 50 ? 30 : 2), TN_STEP_GOOD);
    for (int i = 0; i < 5; i++)
        assert_int_equal(judge(&guard, 19.9), TN_STEP_GOOD);
    assert_int_equal(judge(&guard, 20.1), TN_STEP_GOOD);
    assert_int_equal(judge(&guard, 20.1), TN_STEP_GOOD);
    assert_int_equal(judge(&guard, 2), TN_STEP_GOOD);
    assert_int_equal(judge(&guard, 20.1), TN_STEP_GOOD);
    assert_int_equal(judge(&guard, (double)NAN), TN_STEP_DROP);
    assert_int_equal(judge(&guard, 20.1), TN_STEP_ROLL_BACK);
    assert_int_equal(guard.dropped, 1);
}

static void a_fitted_network_may_err(void **state)
{
    (void)state;
    tn_guard guard = {0};
    for (int i = 0; i < TN_GUARD_WINDOW; i++)
        assert_int_equal(judge(&guard, 0.01), TN_STEP_GOOD);
    for (int i = 0; i < 10; i++)
        assert_int_equal(judge(&guard, 1.5), TN_STEP_GOOD);
    assert_int_equal(judge(&guard, 2.4), TN_STEP_GOOD);
    assert_int_equal(judge(&guard, 2.4), TN_STEP_GOOD);
    assert_int_equal(judge(&guard, 2.4), TN_STEP_ROLL_BACK);
}

static void three_bad_steps_roll_back(void **state)
{
    (void)state;
    tn_guard guard = {0};
    assert_int_equal(judge(&guard, 1), TN_STEP_GOOD);
    assert_int_equal(judge(&guard, (double)NAN), TN_STEP_DROP);
    assert_int_equal(tn_guard_judge(&guard, 1, (double)INFINITY, log(10)), TN_STEP_DROP);
    assert_int_equal(judge(&guard, 1), TN_STEP_GOOD);
    assert_int_equal(judge(&guard, (double)NAN), TN_STEP_DROP);
    assert_int_equal(judge(&guard, (double)NAN), TN_STEP_DROP);
    assert_int_equal(judge(&guard, (double)NAN), TN_STEP_ROLL_BACK);
    assert_int_equal(guard.dropped, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(three_bad_steps_roll_back),
        cmocka_unit_test(jumps_of_the_loss_roll_back),
        cmocka_unit_test(a_fitted_network_may_err),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
