/* Exact ternary thresholds against a full sort, on rows of every kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "converter/thresholds.h"
#include "core/random.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 6000 };

static uint64_t seed;

typedef struct element {
    float magnitude;
    double h;
    int side;
} element;

static int descending(const void *a, const void *b)
{
    float x = ((const element *)a)->magnitude, y = ((const element *)b)->magnitude;
    return (x < y) - (x > y);
}

/* The best J over all cuts between different magnitudes, and also inside ties. */
static double brute_force(const float *w, const float *h, int64_t n, bool two_scales)
{
    static element all[MOST];
    double mass[2] = {0, 0}, moment[2] = {0, 0}, best = 0;
    for (int64_t i = 0; i < n; i++)
        all[i] = (element){fabsf(w[i]), h != NULL ? (double)h[i] : 1.0, w[i] < 0.0f};
    qsort(all, (size_t)n, sizeof all[0], descending);
    for (int64_t i = 0; i < n; i++) {
        int side = two_scales ? all[i].side : 0;
        mass[side] += all[i].h;
        moment[side] += all[i].h * (double)all[i].magnitude;
        if (two_scales && i + 1 < n && all[i].magnitude == all[i + 1].magnitude)
            continue; /* one threshold cannot part them */
        double j = 0;
        for (int s = 0; s < 2; s++)
            j += mass[s] > 0 ? moment[s] * moment[s] / mass[s] : 0;
        best = j > best ? j : best;
    }
    return best;
}

static float draw(tn_random *random, int kind)
{
    float x = tn_random_normal(random);
    switch (kind) {
    case 0:
        return x * 0.05f;
    case 1: /* Laplace */
        return copysignf(logf(1.0f - tn_random_uniform(random)), x);
    case 2: /* Cauchy */
        return x / (fabsf(tn_random_normal(random)) + 1e-6f);
    case 3: /* ties */
        return rintf(x * 2.0f) * 0.25f;
    case 4: /* sparse */
        return tn_random_below(random, 10) == 0 ? x : 0.0f;
    case 5: /* denormal */
        return x * 1e-40f;
    case 6: /* huge */
        return x > 0.5f ? FLT_MAX : x * 1e37f;
    case 7: /* all exponents */
        return copysignf(
            ldexpf(1.0f + tn_random_uniform(random), (int)tn_random_below(random, 270) - 148), x);
    case 8: /* |w| = 1 / sqrt(rank): J is flat */
        return copysignf(1.0f / sqrtf(1.0f + (float)tn_random_below(random, MOST)), x);
    case 9: /* two magnitudes */
        return x > 0.0f ? 0.75f : -0.5f;
    case 10: /* ternary, two scales */
        return x > 0.6f ? 0.3f : x < -0.6f ? -0.2f : 0.0f;
    default: /* normal with outliers */
        return tn_random_below(random, 200) == 0 ? x * 1000.0f : x;
    }
}

static void check_row(const float *w, const float *h, int64_t n, bool two_scales, const char *what)
{
    tn_cut cut;
    tn_threshold_optimal(w, h, n, two_scales, &cut);
    double mass[2] = {0, 0}, moment[2] = {0, 0}, j = 0;
    for (int64_t i = 0; i < n; i++) {
        if (fabsf(w[i]) > cut.threshold) {
            double weight = h != NULL ? (double)h[i] : 1.0;
            mass[two_scales && w[i] < 0.0f] += weight;
            moment[two_scales && w[i] < 0.0f] += weight * (double)fabsf(w[i]);
        }
    }
    for (int s = 0; s < 2; s++) {
        if (fabs(mass[s] - cut.mass[s]) > 1e-9 * mass[s] ||
            fabs(moment[s] - cut.moment[s]) > 1e-9 * moment[s])
            fail_msg("%s n %lld: sums of the kept differ: %g %g, %g %g", what, (long long)n,
                     mass[s], cut.mass[s], moment[s], cut.moment[s]);
    }
    if (two_scales)
        for (int s = 0; s < 2; s++)
            j += mass[s] > 0 ? moment[s] * moment[s] / mass[s] : 0;
    else if (mass[0] + mass[1] > 0)
        j = (moment[0] + moment[1]) * (moment[0] + moment[1]) / (mass[0] + mass[1]);
    double best = brute_force(w, h, n, two_scales);
    if (fabs(j - best) > 1e-12 * best)
        fail_msg("%s n %lld two_scales %d: J %.17g, brute force %.17g (seed %llu)", what,
                 (long long)n, two_scales, j, best, (unsigned long long)seed);
}

static void equals_brute_force(void **state)
{
    (void)state;
    static float w[MOST], h[MOST];
    tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 0, 0);
    for (int trial = 0; trial < 6000; trial++) {
        int kind = trial % 12;
        int64_t n = 1 + tn_random_below(&random, trial % 5 == 0 ? 40 : trial % 5 < 4 ? 700 : MOST);
        char what[40];
        (void)snprintf(what, sizeof what, "kind %d trial %d", kind, trial);
        for (int64_t i = 0; i < n; i++) {
            w[i] = draw(&random, kind);
            h[i] = tn_random_below(&random, 9) == 0 ? 0.0f : tn_random_uniform(&random) * 3.0f;
        }
        check_row(w, NULL, n, false, what);
        check_row(w, NULL, n, true, what);
        if (trial % 3 == 0) {
            check_row(w, h, n, false, what);
            check_row(w, h, n, true, what);
        }
    }
}

static void equals_brute_force_in_every_order(void **state)
{
    (void)state;
    /* all rows of 5 elements out of 6 values */
    const float values[] = {0.0f, 1.0f, -1.0f, 0.5f, -2.0f, 3.0f};
    for (int code = 0; code < 7776; code++) {
        float w[5];
        for (int i = 0, rest = code; i < 5; i++, rest /= 6)
            w[i] = values[rest % 6];
        check_row(w, NULL, 5, false, "five");
        check_row(w, NULL, 5, true, "five");
    }
}

static void large_row(void **state)
{
    (void)state;
    enum { N = 3000000 };
    float *w = malloc(N * sizeof *w);
    assert_non_null(w);
    tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 1, 0);
    double moment = 0;
    for (int i = 0; i < N; i++) {
        w[i] = tn_random_normal(&random);
        moment += (double)fabsf(w[i]);
    }
    tn_cut cut;
    tn_threshold_optimal(w, NULL, N, false, &cut);
    /* the known optimum of a normal distribution */
    assert_true(fabs((double)cut.threshold / (moment / N) - 0.767) < 0.01);
    assert_true(fabs((cut.mass[0] + cut.mass[1]) / N - 0.54) < 0.01);
    free(w);
}

static void all_zero(void **state)
{
    (void)state;
    float w[100] = {0};
    tn_cut cut;
    w[3] = -0.0f;
    tn_threshold_optimal(w, NULL, 100, true, &cut);
    assert_true(cut.threshold == 0.0f && cut.mass[0] == 0 && cut.mass[1] == 0);
    tn_threshold_optimal(w, NULL, 1, false, &cut);
    assert_true(cut.threshold == 0.0f && cut.mass[0] == 0 && cut.mass[1] == 0);
}

static int ascending(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void rank_equals_sort(void **state)
{
    (void)state;
    static float w[MOST], sorted[MOST];
    tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 2, 0);
    for (int trial = 0; trial < 600; trial++) {
        int64_t n = 1 + tn_random_below(&random, 900);
        for (int64_t i = 0; i < n; i++) {
            w[i] = draw(&random, trial % 12);
            sorted[i] = fabsf(w[i]);
        }
        qsort(sorted, (size_t)n, sizeof sorted[0], ascending);
        int64_t rank = tn_random_below(&random, (uint32_t)n);
        assert_true(tn_threshold_rank(w, n, rank) == sorted[rank]);
    }
}

int main(void)
{
    seed = getenv("TERNION_SEED") != NULL ? strtoull(getenv("TERNION_SEED"), NULL, 10)
                                          : (uint64_t)time(NULL);
    printf("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_brute_force), cmocka_unit_test(equals_brute_force_in_every_order),
        cmocka_unit_test(large_row),          cmocka_unit_test(all_zero),
        cmocka_unit_test(rank_equals_sort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
