/* Exact n-bit steps against all breakpoints. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "converter/steps.h"
#include "core/random.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MOST = 120, CODES = 16 };

static uint64_t seed;

static double clamp_round(double v, int low, int high)
{
    double q = nearbyint(v);
    return q < low ? low : q > high ? high : q;
}

/* Least squared error over the codes that any step gives, each at its best step. */
static double brute_force(const float *w, const float *h, int n, int low, int high)
{
    static double breaks[MOST * CODES + 1];
    int m = 0;
    double best = 0;
    for (int i = 0; i < n; i++)
        for (int j = 1; j <= CODES; j++)
            if (w[i] != 0.0f)
                breaks[m++] = fabs((double)w[i]) / (j - 0.5);
    for (int k = 0; k < m; k++) {
        for (int beside = 0; beside < 2; beside++) {
            double step = breaks[k] * (beside ? 1 - 1e-12 : 1 + 1e-12), a = 0, b = 0;
            for (int i = 0; i < n; i++) {
                double q = clamp_round((double)w[i] / step, low, high);
                double weight = h != NULL ? (double)h[i] : 1.0;
                a += weight * q * (double)w[i];
                b += weight * q * q;
            }
            if (b > 0 && a > 0 && a * (a / b) > best)
                best = a * (a / b);
        }
    }
    return best;
}

static double energy_of(const float *w, const float *h, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (h != NULL ? (double)h[i] : 1.0) * (double)w[i] * (double)w[i];
    return sum;
}

static double error_of(const float *w, const float *h, int n, int low, int high, float step)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        double apart = (double)w[i] - clamp_round((double)(w[i] / step), low, high) * (double)step;
        sum += (h != NULL ? (double)h[i] : 1.0) * apart * apart;
    }
    return sum;
}

static void equals_brute_force(void **state)
{
    (void)state;
    static const int ranges[][2] = {{-1, 1}, {-2, 1}, {-4, 3}, {-3, 3}, {-8, 7},
                                    {-7, 7}, {0, 3},  {-1, 2}, {-1, 0}, {-16, 15}};
    float w[MOST], h[MOST];
    tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 0, 0);
    for (int trial = 0; trial < 3000; trial++) {
        const int *range = ranges[trial % 10];
        int n = 1 + (int)tn_random_below(&random, trial % 4 == 0 ? 4 : MOST);
        bool weighted = trial % 5 == 0;
        for (int i = 0; i < n; i++) {
            float x = tn_random_normal(&random);
            w[i] = trial % 7 == 0   ? rintf(3.0f * x)
                   : trial % 7 == 1 ? x * x * x * 1e-3f
                   : trial % 7 == 2 ? (x > 1.0f ? x : 0.0f)
                                    : x;
            h[i] = tn_random_uniform(&random) + 0.01f;
        }
        const float *weights = weighted ? h : NULL;
        float step = tn_step_optimal(w, weights, n, range[0], range[1]);
        assert_true(step > 0.0f && isfinite(step));
        double energy = energy_of(w, weights, n);
        double least = energy - brute_force(w, weights, n, range[0], range[1]);
        double reached = error_of(w, weights, n, range[0], range[1], step);
        if (reached > least + 1e-5 * energy)
            fail_msg(
                "trial %d (seed %llu) n %d levels %d:%d: relative error %.9g, brute force %.9g",
                trial, (unsigned long long)seed, n, range[0], range[1], reached / energy,
                least / energy);
    }
}

static void wide_ranges_are_close(void **state)
{
    (void)state;
    float w[1000];
    tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 1, 0);
    for (int i = 0; i < 1000; i++)
        w[i] = tn_random_normal(&random);
    for (int bits = 6; bits <= 16; bits++) {
        int high = (1 << (bits - 1)) - 1;
        float step = tn_step_optimal(w, NULL, 1000, -high - 1, high);
        double best = 1e300, reached = error_of(w, NULL, 1000, -high - 1, high, step);
        for (int i = 1; i <= 2000; i++) {
            double error =
                error_of(w, NULL, 1000, -high - 1, high, 6.0f / (float)high * (float)i / 2000.0f);
            best = error < best ? error : best;
        }
        if (reached > 1.15 * best)
            fail_msg("%d bits: error %g, 2000 steps tried reach %g", bits, reached, best);
    }
}

static void extremes_are_finite(void **state)
{
    (void)state;
    static const int ranges[][2] = {{-1, 1}, {-2, 1}, {-8, 7}, {-128, 127}, {-32768, 32767}};
    const float rows[][3] = {{0, 0, 0},
                             {FLT_MAX, -FLT_MAX, FLT_MAX},
                             {-FLT_MAX, 0, 0},
                             {1e-45f, -1e-45f, 0},
                             {1e-40f, 3e-41f, -2e-40f},
                             {FLT_MAX, 1e-45f, 1.0f},
                             {1, 1, 1}};
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        for (size_t k = 0; k < sizeof ranges / sizeof ranges[0]; k++) {
            float step = tn_step_optimal(rows[r], NULL, 3, ranges[k][0], ranges[k][1]);
            assert_true(step > 0.0f && isfinite(step));
            assert_true(isfinite(step * (float)ranges[k][0]));
            assert_true(isfinite(step * (float)ranges[k][1]));
        }
    }
}

int main(void)
{
    seed = getenv("TERNION_SEED") != NULL ? strtoull(getenv("TERNION_SEED"), NULL, 10)
                                          : (uint64_t)time(NULL);
    printf("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_brute_force),
        cmocka_unit_test(wide_ranges_are_close),
        cmocka_unit_test(extremes_are_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
