/* Coordinate descent: monotone, a coordinate-wise optimum, near brute force on tiny problems, the
 * same bits for one and two threads, for every granularity and kind of grid. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/memory.h"
#include "core/random.h"
#include "core/threads.h"
#include "finetune/descent.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct layer_problem {
    tn_gram gram;
    float *w;
} layer_problem;

/* Inputs with strong correlations, targets near w x. */
static layer_problem make_problem(int64_t rows, int64_t cols, uint64_t sample)
{
    layer_problem problem;
    tn_random random = tn_random_make(11, TN_PURPOSE_TEST, 2, sample);
    assert_int_equal(tn_gram_init(&problem.gram, rows, cols, 1, NULL), TN_OK);
    problem.w = tn_alloc_array((size_t)(rows * cols), sizeof(float));
    double *x = tn_alloc_array((size_t)cols, sizeof *x);
    assert_true(problem.w && x);
    for (int64_t i = 0; i < rows * cols; i++)
        problem.w[i] = 0.1f * tn_random_normal(&random);
    for (int64_t s = 0; s < 4 * cols; s++) {
        double common = (double)tn_random_normal(&random);
        for (int64_t i = 0; i < cols; i++)
            x[i] = common + (double)tn_random_normal(&random);
        for (int64_t i = 0; i < cols; i++)
            for (int64_t j = 0; j < cols; j++)
                problem.gram.inner[i * cols + j] += x[i] * x[j];
        for (int64_t o = 0; o < rows; o++) {
            double y = 0.05 * (double)tn_random_normal(&random);
            for (int64_t i = 0; i < cols; i++)
                y += (double)problem.w[o * cols + i] * x[i];
            for (int64_t i = 0; i < cols; i++)
                problem.gram.cross[o * cols + i] += y * x[i];
        }
    }
    tn_free(x);
    return problem;
}

static void problem_done(layer_problem *problem)
{
    tn_gram_done(&problem->gram);
    tn_free(problem->w);
}

typedef struct code_grid {
    tn_granularity granularity;
    int64_t group;
    int low, high;
    bool two_scales;
    float zero;
} code_grid;

static const code_grid GRIDS[] = {
    {TN_PER_TENSOR, 0, -1, 1, false, 0},  {TN_PER_CHANNEL, 0, -1, 1, false, 0},
    {TN_PER_GROUP, 5, -1, 1, false, 0},   {TN_PER_TENSOR, 0, -1, 1, true, 0},
    {TN_PER_CHANNEL, 0, -1, 1, true, 0},  {TN_PER_GROUP, 5, -1, 1, true, 0},
    {TN_PER_CHANNEL, 0, -8, 7, false, 0}, {TN_PER_CHANNEL, 0, -2, 1, false, -0.5f},
    {TN_PER_GROUP, 5, -8, 7, false, 3},
};
enum { N_GRIDS = sizeof GRIDS / sizeof GRIDS[0] };

/* Rounds w with a plain scale. */
static tn_qweight start(const layer_problem *problem, const code_grid *grid)
{
    int64_t rows = problem->gram.rows, cols = problem->gram.cols;
    tn_qweight weight = {.rank = 2,
                         .dims = {rows, cols},
                         .granularity = grid->granularity,
                         .group = grid->group,
                         .low = grid->low,
                         .high = grid->high,
                         .bits = 4};
    assert_int_equal(tn_qweight_init(&weight, grid->two_scales, grid->zero != 0, NULL), TN_OK);
    float scale = 0.3f / (float)(grid->high - grid->low);
    for (int64_t i = 0; i < weight.n_scales; i++) {
        weight.scale[i] = scale;
        if (weight.scale_neg)
            weight.scale_neg[i] = 1.2f * scale;
        if (weight.zero)
            weight.zero[i] = grid->zero;
    }
    for (int64_t i = 0; i < rows * cols; i++) {
        float code = rintf(problem->w[i] / scale + grid->zero);
        weight.codes[i] = (int16_t)fminf(fmaxf(code, (float)grid->low), (float)grid->high);
    }
    return weight;
}

static double total(const layer_problem *problem, const tn_qweight *weight)
{
    double objective[64], sum = 0;
    assert_int_equal(tn_descent_objective(&problem->gram, weight, objective, NULL), TN_OK);
    for (int64_t i = 0; i < weight->rows; i++)
        sum += objective[i];
    return sum;
}

/* E from the definition. */
static double direct(const layer_problem *problem, const tn_qweight *weight)
{
    double sum = 0;
    int64_t n = weight->cols;
    for (int64_t o = 0; o < weight->rows; o++)
        for (int64_t i = 0; i < n; i++) {
            double vi = (double)tn_qweight_value(weight, o, i);
            sum -= 2 * vi * problem->gram.cross[o * n + i];
            for (int64_t j = 0; j < n; j++)
                sum += vi * problem->gram.inner[i * n + j] * (double)tn_qweight_value(weight, o, j);
        }
    return sum;
}

static void every_sweep_lowers_the_objective(void **state)
{
    (void)state;
    layer_problem problem = make_problem(7, 23, 1);
    for (size_t g = 0; g < N_GRIDS; g++) {
        tn_qweight weight = start(&problem, &GRIDS[g]);
        double before = total(&problem, &weight), first = before;
        assert_true(fabs(before - direct(&problem, &weight)) < 1e-6 * fabs(before));
        for (int sweep = 0; sweep < 12; sweep++) {
            double reported[7], sum = 0;
            tn_descent_options options = {.sweeps = 1};
            assert_int_equal(tn_descent(&problem.gram, &options, &weight, reported, NULL), TN_OK);
            for (int i = 0; i < 7; i++)
                sum += reported[i];
            double after = total(&problem, &weight);
            assert_true(fabs(sum - after) < 1e-5 * fabs(after));
            assert_true(after <= before + 1e-6 * fabs(before));
            before = after;
        }
        print_message("grid %zu: %.4f -> %.4f\n", g, first, before);
        assert_true(before < first);
        tn_qweight_done(&weight);
    }
    problem_done(&problem);
}

static void no_single_code_improves_the_result(void **state)
{
    (void)state;
    layer_problem problem = make_problem(3, 17, 2);
    for (size_t g = 0; g < N_GRIDS; g++) {
        tn_qweight weight = start(&problem, &GRIDS[g]);
        tn_descent_options options = {.sweeps = 200};
        assert_int_equal(tn_descent(&problem.gram, &options, &weight, NULL, NULL), TN_OK);
        options.keep_scales = true;
        assert_int_equal(tn_descent(&problem.gram, &options, &weight, NULL, NULL), TN_OK);
        double best = direct(&problem, &weight);
        for (int64_t i = 0; i < 3 * 17; i++) {
            int16_t kept = weight.codes[i];
            for (int code = weight.low; code <= weight.high; code++) {
                weight.codes[i] = (int16_t)code;
                assert_true(direct(&problem, &weight) >= best - 1e-7 * fabs(best));
            }
            weight.codes[i] = kept;
        }
        tn_qweight_done(&weight);
    }
    problem_done(&problem);
}

/* All 3^8 ternary rows, each with its best scale. */
static double brute_force(const layer_problem *problem)
{
    double best = 0;
    for (int number = 0; number < 6561; number++) {
        double tb = 0, tgt = 0;
        int t[8], rest = number;
        for (int i = 0; i < 8; i++, rest /= 3)
            t[i] = rest % 3 - 1;
        for (int i = 0; i < 8; i++) {
            tb += t[i] * problem->gram.cross[i];
            for (int j = 0; j < 8; j++)
                tgt += t[i] * t[j] * problem->gram.inner[i * 8 + j];
        }
        if (tb > 0 && tgt > 0 && -tb * tb / tgt < best)
            best = -tb * tb / tgt;
    }
    return best;
}

static void comes_near_brute_force(void **state)
{
    (void)state;
    int exact = 0;
    double share = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        layer_problem problem = make_problem(1, 8, 100 + seed);
        tn_qweight weight = start(&problem, &GRIDS[1]);
        assert_int_equal(tn_descent(&problem.gram, NULL, &weight, NULL, NULL), TN_OK);
        double reached = direct(&problem, &weight), best = brute_force(&problem);
        assert_true(reached >= best - 1e-5 * fabs(best));
        share += reached / best / 40;
        exact += reached <= best + 1e-5 * fabs(best);
        tn_qweight_done(&weight);
        problem_done(&problem);
    }
    print_message("%d of 40 reach the global optimum, %.1f %% of it on average\n", exact,
                  100 * share);
    assert_true(exact >= 10);
    assert_true(share > 0.9);
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    layer_problem problem = make_problem(9, 31, 3);
    for (size_t g = 0; g < N_GRIDS; g++) {
        tn_qweight weight[2];
        for (int t = 0; t < 2; t++) {
            tn_threads_set(t + 1);
            weight[t] = start(&problem, &GRIDS[g]);
            assert_int_equal(tn_descent(&problem.gram, NULL, &weight[t], NULL, NULL), TN_OK);
        }
        assert_memory_equal(weight[0].codes, weight[1].codes, 9 * 31 * sizeof(int16_t));
        assert_memory_equal(weight[0].scale, weight[1].scale,
                            (size_t)weight[0].n_scales * sizeof(float));
        tn_qweight_done(&weight[0]);
        tn_qweight_done(&weight[1]);
    }
    problem_done(&problem);
}

static void inputs_that_are_always_zero_change_nothing(void **state)
{
    (void)state;
    layer_problem problem = make_problem(2, 6, 4);
    for (int i = 0; i < 6; i++)
        problem.gram.inner[2 * 6 + i] = problem.gram.inner[i * 6 + 2] = 0;
    for (int o = 0; o < 2; o++)
        problem.gram.cross[o * 6 + 2] = 0;
    tn_qweight weight = start(&problem, &GRIDS[1]);
    int16_t kept = weight.codes[2];
    assert_int_equal(tn_descent(&problem.gram, NULL, &weight, NULL, NULL), TN_OK);
    assert_int_equal(weight.codes[2], kept);
    memset(problem.gram.inner, 0, 36 * sizeof(double));
    memset(problem.gram.cross, 0, 12 * sizeof(double));
    float scale = weight.scale[0];
    assert_int_equal(tn_descent(&problem.gram, NULL, &weight, NULL, NULL), TN_OK);
    assert_true(weight.scale[0] == scale);
    tn_qweight_done(&weight);
    problem_done(&problem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sweep_lowers_the_objective),
        cmocka_unit_test(no_single_code_improves_the_result),
        cmocka_unit_test(comes_near_brute_force),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(inputs_that_are_always_zero_change_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
