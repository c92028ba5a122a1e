#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "finetune/schedule.h"

#include <math.h>

static void shapes_begin_and_end_where_they_should(void **state)
{
    (void)state;
    tn_schedule s = {.lr = 0.1, .total_steps = 1000};
    assert_int_equal(tn_schedule_parse("cosine", &s, NULL), TN_OK);
    assert_true(fabs(tn_schedule_rate(&s, 0) - 0.1) < 1e-12);
    assert_true(fabs(tn_schedule_rate(&s, 500) - 0.05) < 1e-12);
    assert_true(tn_schedule_rate(&s, 999) < 1e-6 && tn_schedule_rate(&s, 999) > 0);
    assert_true(tn_schedule_rate(&s, 5000) == tn_schedule_rate(&s, 999));
    assert_int_equal(tn_schedule_parse("linear", &s, NULL), TN_OK);
    assert_true(fabs(tn_schedule_rate(&s, 250) - 0.075) < 1e-12);
    s.warmup_steps = 100;
    assert_true(fabs(tn_schedule_rate(&s, 0) - 0.001) < 1e-12);
    assert_true(fabs(tn_schedule_rate(&s, 100) - 0.1) < 1e-12);
}

static void step_drops_at_its_milestones(void **state)
{
    (void)state;
    tn_schedule s = {.lr = 1, .total_steps = 100};
    assert_int_equal(tn_schedule_parse("step:0.5@0.25,0.5", &s, NULL), TN_OK);
    assert_true(tn_schedule_rate(&s, 24) == 1);
    assert_true(tn_schedule_rate(&s, 25) == 0.5);
    assert_true(tn_schedule_rate(&s, 99) == 0.25);
    s.warmup_steps = 20; /* milestones stay where they are in the run */
    assert_true(tn_schedule_rate(&s, 24) == 1 && tn_schedule_rate(&s, 25) == 0.5);
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",           "cosin",        "step:",      "step:2@0.5",
        "step:0.1@",  "step:0.1@1.5", "step:0@0.5", "step:0.1@0.5,0.4",
        "step:nan@.5"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tn_schedule s = {.kind = TN_SCHEDULE_LINEAR};
        tn_error error = {0};
        assert_int_equal(tn_schedule_parse(bad[i], &s, &error), TN_ERROR_USAGE);
        assert_int_equal(s.kind, TN_SCHEDULE_LINEAR);
        assert_true(error.message[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_begin_and_end_where_they_should),
        cmocka_unit_test(step_drops_at_its_milestones),
        cmocka_unit_test(nonsense_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
