#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "finetune/optimizer.h"

#include "core/threads.h"

#include <math.h>
#include <string.h>

#define N 50000 /* more than one chunk and one thread's share */
static float value[N], gradient[N];

static void fill(void)
{
    for (int i = 0; i < N; i++) {
        value[i] = (float)sin((double)i);
        gradient[i] = (float)cos(1.7 * (double)i);
    }
}

/* Three steps against the formulas in double, written a second time. */
static void check_kind(tn_optimizer_kind kind, bool nesterov)
{
    fill();
    tn_optimizer o = {.rule = {.kind = kind,
                               .momentum = 0.9f,
                               .nesterov = nesterov,
                               .beta1 = 0.9f,
                               .beta2 = 0.999f,
                               .epsilon = 1e-8f}};
    assert_int_equal(tn_optimizer_add(&o, "w", value, gradient, N, 0.5f, 0.01f, NULL), TN_OK);
    double lr = 0.1 * 0.5, scale = 0.25;
    for (int i = 0; i < 20; i++) {
        double w = sin((double)i), g0 = (double)gradient[i] * scale, m = 0, v = 0;
        for (int t = 1; t <= 3; t++) {
            if (kind == TN_OPTIMIZER_SGD) {
                double g = g0 + 0.01 * w;
                m = 0.9 * m + g;
                w -= lr * (nesterov ? g + 0.9 * m : m);
                continue;
            }
            double g = kind == TN_OPTIMIZER_ADAM ? g0 + 0.01 * w : g0;
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            if (kind == TN_OPTIMIZER_ADAMW)
                w -= lr * 0.01 * w;
            w -= lr * (m / (1 - pow(0.9, t))) / (sqrt(v / (1 - pow(0.999, t))) + 1e-8);
        }
        gradient[N - 1 - (size_t)i] = (float)w; /* kept for the comparison below */
    }
    float expected[20];
    for (int i = 0; i < 20; i++)
        expected[i] = gradient[N - 1 - (size_t)i];
    fill();
    for (int t = 0; t < 3; t++)
        tn_optimizer_step(&o, 0.1, scale);
    for (int i = 0; i < 20; i++)
        assert_true(fabs((double)value[i] - (double)expected[i]) < 2e-5);
    tn_optimizer_done(&o);
}

static void updates_follow_the_formulas(void **state)
{
    (void)state;
    check_kind(TN_OPTIMIZER_SGD, false);
    check_kind(TN_OPTIMIZER_SGD, true);
    check_kind(TN_OPTIMIZER_ADAM, false);
    check_kind(TN_OPTIMIZER_ADAMW, false);
}

static void frozen_slots_stay(void **state)
{
    (void)state;
    fill();
    tn_optimizer o = {.rule = {.kind = TN_OPTIMIZER_SGD, .momentum = 0.9f}};
    assert_int_equal(tn_optimizer_add(&o, "w", value, gradient, N, 1, 0.01f, NULL), TN_OK);
    o.slots[0].frozen = true;
    tn_optimizer_step(&o, 0.1, 1);
    assert_true(value[1] == (float)sin(1.0));
    assert_true(tn_optimizer_gradient_norm(&o) == 0);
    tn_optimizer_done(&o);
}

static void norm_does_not_depend_on_threads(void **state)
{
    (void)state;
    fill();
    tn_optimizer o = {.rule = {.kind = TN_OPTIMIZER_SGD}};
    assert_int_equal(tn_optimizer_add(&o, "w", value, gradient, N, 1, 0, NULL), TN_OK);
    tn_threads_set(1);
    double one = tn_optimizer_gradient_norm(&o), sum = 0;
    tn_threads_set(2);
    assert_true(one == tn_optimizer_gradient_norm(&o));
    for (int i = 0; i < N; i++)
        sum += (double)gradient[i] * (double)gradient[i];
    assert_true(fabs(one - sqrt(sum)) < 1e-9 * one);
    gradient[77] = NAN;
    assert_true(!(tn_optimizer_gradient_norm(&o) < 1e300)); /* NaN */
    tn_optimizer_done(&o);
}

static void averages_follow_and_swap(void **state)
{
    (void)state;
    float w[1] = {0}, g[1] = {-1};
    tn_optimizer o = {.rule = {.kind = TN_OPTIMIZER_SGD}, .ema = 0.5f};
    assert_int_equal(tn_optimizer_add(&o, "w", w, g, 1, 1, 0, NULL), TN_OK);
    tn_optimizer_step(&o, 1, 1); /* w = 1; keep = min(.5, 1/10) */
    assert_true(fabs((double)o.slots[0].average[0] - 0.9) < 1e-6);
    tn_optimizer_swap_averages(&o);
    assert_true(fabs((double)w[0] - 0.9) < 1e-6);
    tn_optimizer_swap_averages(&o);
    assert_true(w[0] == 1.0f);
    tn_optimizer_done(&o);
}

/* What never moved has no average of its own; and averages can start anew. */
static void averages_of_frozen_slots_stay_out(void **state)
{
    (void)state;
    static float moves[4] = {1, 2, 3, 4}, stays[4] = {5, 6, 7, 8}, none[4];
    tn_optimizer o = {.rule = {.kind = TN_OPTIMIZER_SGD}, .ema = 0.9f};
    assert_int_equal(tn_optimizer_add(&o, "moves", moves, none, 4, 1, 0, NULL), TN_OK);
    assert_int_equal(tn_optimizer_add(&o, "stays", stays, none, 4, 1, 0, NULL), TN_OK);
    o.slots[1].frozen = true;
    moves[0] = 10;
    stays[0] = 50; /* as a calibrated start does */
    tn_optimizer_swap_averages(&o);
    assert_true(moves[0] == 1 && stays[0] == 50);
    tn_optimizer_swap_averages(&o);
    tn_optimizer_start_averages(&o);
    tn_optimizer_swap_averages(&o);
    assert_true(moves[0] == 10 && stays[0] == 50);
    tn_optimizer_done(&o);
}

/* Names of tf2onnx may differ behind hundreds of bytes. */
static void long_names_are_told_apart(void **state)
{
    (void)state;
    char name[2][400], text[2][160];
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < 190; k++)
            memcpy(name[i] + 2 * k, "\xc3\xa9", 2); /* e with an acute accent */
        name[i][380] = (char)('a' + i);
        name[i][381] = '\0';
        tn_slot_name("scale", name[i], text[i], sizeof text[i]);
        const size_t cut = strcspn(text[i], "~");
        assert_true(strlen(text[i]) < sizeof text[i] && (cut - strlen("scale.")) % 2 == 0);
    }
    assert_string_not_equal(text[0], text[1]);
    tn_slot_name("scale", "short", text[0], sizeof text[0]);
    assert_string_equal(text[0], "scale.short");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(updates_follow_the_formulas),
        cmocka_unit_test(frozen_slots_stay),
        cmocka_unit_test(norm_does_not_depend_on_threads),
        cmocka_unit_test(averages_follow_and_swap),
        cmocka_unit_test(averages_of_frozen_slots_stay_out),
        cmocka_unit_test(long_names_are_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
