/* GPTQ and learned rounding: better than nearest rounding on correlated inputs, exact properties of
 * the Cholesky factor, the same bits for one and two threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/memory.h"
#include "core/random.h"
#include "core/threads.h"
#include "finetune/adaround.h"
#include "finetune/descent.h"
#include "finetune/gptq.h"
#include "finetune/grid.h"

#include <math.h>
#include <string.h>

enum { ROWS = 20, COLS = 90 };

static float w[ROWS * COLS];

static tn_gram correlated_gram(int64_t groups)
{
    tn_gram gram;
    tn_random random = tn_random_make(5, TN_PURPOSE_TEST, 3, (uint64_t)groups);
    assert_int_equal(tn_gram_init(&gram, ROWS, COLS, groups, NULL), TN_OK);
    for (int i = 0; i < ROWS * COLS; i++)
        w[i] = 0.1f * tn_random_normal(&random);
    for (int64_t g = 0; g < groups; g++)
        for (int s = 0; s < 3 * COLS; s++) {
            double x[COLS], common = (double)tn_random_normal(&random);
            for (int i = 0; i < COLS; i++)
                x[i] = common + (double)tn_random_normal(&random) * (1 + i % 3);
            for (int i = 0; i < COLS; i++)
                for (int j = 0; j < COLS; j++)
                    gram.inner[(g * COLS + i) * COLS + j] += x[i] * x[j];
        }
    for (int o = 0; o < ROWS; o++)
        for (int i = 0; i < COLS; i++)
            for (int j = 0; j < COLS; j++)
                gram.cross[o * COLS + i] +=
                    gram.inner[(o / (ROWS / groups) * COLS + i) * COLS + j] *
                    (double)w[o * COLS + j];
    return gram;
}

static tn_qweight rounded(int low, int high, float scale)
{
    tn_qweight weight = {.rank = 2,
                         .dims = {ROWS, COLS},
                         .granularity = TN_PER_CHANNEL,
                         .low = low,
                         .high = high,
                         .bits = 4};
    assert_int_equal(tn_qweight_init(&weight, false, false, NULL), TN_OK);
    for (int i = 0; i < ROWS; i++)
        weight.scale[i] = scale;
    for (int i = 0; i < ROWS * COLS; i++)
        weight.codes[i] = (int16_t)tn_grid_nearest(&weight, i / COLS, (double)w[i]);
    return weight;
}

static double total(const tn_gram *gram, const tn_qweight *weight)
{
    double objective[ROWS], sum = 0;
    assert_int_equal(tn_descent_objective(gram, weight, objective, NULL), TN_OK);
    for (int i = 0; i < ROWS; i++)
        sum += objective[i];
    return sum;
}

static double constant(const tn_gram *gram)
{
    double sum = 0;
    for (int i = 0; i < ROWS * COLS; i++)
        sum += (double)w[i] * gram->cross[i];
    return sum;
}

static void factor_times_its_transpose_is_the_matrix(void **state)
{
    (void)state;
    tn_gram gram = correlated_gram(1);
    double l[COLS * COLS];
    memcpy(l, gram.inner, sizeof l);
    assert_true(tn_cholesky(l, COLS));
    for (int i = 0; i < COLS; i++)
        for (int j = 0; j <= i; j++) {
            double sum = 0;
            for (int k = 0; k <= j; k++)
                sum += l[i * COLS + k] * l[j * COLS + k];
            assert_true(fabs(sum - gram.inner[i * COLS + j]) < 1e-8);
        }
    gram.inner[0] = -1;
    assert_false(tn_cholesky(gram.inner, COLS));
    tn_gram_done(&gram);
}

static void both_beat_nearest_rounding(void **state)
{
    (void)state;
    for (int64_t groups = 1; groups <= 2; groups++) {
        tn_gram gram = correlated_gram(groups);
        double zero = constant(&gram);
        tn_qweight nearest = rounded(-4, 3, 0.05f), gptq = rounded(-4, 3, 0.05f);
        tn_qweight learned = rounded(-4, 3, 0.05f), descent = rounded(-4, 3, 0.05f);
        assert_int_equal(tn_gptq(&gram, w, NULL, &gptq, NULL), TN_OK);
        assert_int_equal(tn_adaround(&gram, w, NULL, &learned, NULL), TN_OK);
        tn_descent_options keep = {.keep_scales = true};
        assert_int_equal(tn_descent(&gram, &keep, &descent, NULL, NULL), TN_OK);
        double error = total(&gram, &nearest) + zero;
        print_message("error: nearest %.3f, gptq %.3f, adaround %.3f, descent %.3f\n", error,
                      total(&gram, &gptq) + zero, total(&gram, &learned) + zero,
                      total(&gram, &descent) + zero);
        assert_true(total(&gram, &gptq) + zero < 0.7 * error);
        assert_true(total(&gram, &learned) + zero < 0.7 * error);
        for (int i = 0; i < ROWS * COLS; i++)
            assert_true(gptq.codes[i] >= -4 && gptq.codes[i] <= 3 && learned.codes[i] >= -4 &&
                        learned.codes[i] <= 3);
        tn_qweight_done(&nearest);
        tn_qweight_done(&gptq);
        tn_qweight_done(&learned);
        tn_qweight_done(&descent);
        tn_gram_done(&gram);
    }
}

/* G = I: error feedback has nothing to give, so the nearest codes come out. */
static void without_correlation_gptq_is_rounding(void **state)
{
    (void)state;
    tn_gram gram = correlated_gram(1);
    memset(gram.inner, 0, COLS * COLS * sizeof(double));
    for (int i = 0; i < COLS; i++)
        gram.inner[i * (COLS + 1)] = 1 + i % 4;
    tn_qweight nearest = rounded(-1, 1, 0.1f), gptq = rounded(-1, 1, 0.1f);
    tn_gptq_options own = {.own_target = true};
    memset(gptq.codes, 0, ROWS * COLS * sizeof(int16_t));
    assert_int_equal(tn_gptq(&gram, w, &own, &gptq, NULL), TN_OK);
    assert_memory_equal(nearest.codes, gptq.codes, ROWS * COLS * sizeof(int16_t));
    tn_qweight_done(&nearest);
    tn_qweight_done(&gptq);
    tn_gram_done(&gram);
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    tn_gram gram = correlated_gram(2);
    tn_qweight weight[2][2];
    for (int t = 0; t < 2; t++) {
        tn_threads_set(t + 1);
        weight[t][0] = rounded(-1, 1, 0.1f);
        weight[t][1] = rounded(-1, 1, 0.1f);
        assert_int_equal(tn_gptq(&gram, w, NULL, &weight[t][0], NULL), TN_OK);
        assert_int_equal(tn_adaround(&gram, w, NULL, &weight[t][1], NULL), TN_OK);
    }
    for (int m = 0; m < 2; m++) {
        assert_memory_equal(weight[0][m].codes, weight[1][m].codes, ROWS * COLS * sizeof(int16_t));
        tn_qweight_done(&weight[0][m]);
        tn_qweight_done(&weight[1][m]);
    }
    tn_gram_done(&gram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factor_times_its_transpose_is_the_matrix),
        cmocka_unit_test(both_beat_nearest_rounding),
        cmocka_unit_test(without_correlation_gptq_is_rounding),
        cmocka_unit_test(threads_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
