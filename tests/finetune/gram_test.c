/* Gram sums against plain loops in double, for strided, padded, dilated, grouped convolutions and
 * linear layers, and the same bits for one and two threads; products of a Gram matrix with several
 * channels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/memory.h"
#include "core/random.h"
#include "core/threads.h"
#include "finetune/gram.h"
#include "finetune/gram_product.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static float *random_floats(size_t n, uint64_t sample, float offset)
{
    float *x = tn_alloc_array(n, sizeof *x);
    assert_non_null(x);
    tn_random random = tn_random_make(7, TN_PURPOSE_TEST, 1, sample);
    for (size_t i = 0; i < n; i++)
        x[i] = tn_random_normal(&random) + offset;
    return x;
}

/* Element (group, weight column) of the patch at a position, straight from the definition. */
static double patch_at(const tn_patches *p, int64_t group, int64_t row, int64_t col)
{
    int64_t ox = row % p->out[1], oy = row / p->out[1] % p->out[0];
    int64_t n = row / (p->out[0] * p->out[1]);
    int64_t kx = col % p->kernel[1], ky = col / p->kernel[1] % p->kernel[0];
    int64_t c = col / (p->kernel[0] * p->kernel[1]) + group * (p->channels / p->group);
    int64_t y = oy * p->stride[0] - p->pad[0] + ky * p->dilation[0];
    int64_t x = ox * p->stride[1] - p->pad[1] + kx * p->dilation[1];
    if (y < 0 || y >= p->in[0] || x < 0 || x >= p->in[1])
        return 0;
    return (double)p->data[((n * p->in[0] + y) * p->in[1] + x) * p->channels + c];
}

static void check_against_loops(tn_patches *p, int64_t outputs)
{
    tn_gram gram;
    int64_t rows = tn_patches_rows(p), cols = tn_patches_cols(p), per = outputs / p->group;
    tn_gram_target data = {.channels = outputs,
                           .output = random_floats((size_t)(rows * outputs), 2, 0.5f)};
    assert_int_equal(tn_gram_init(&gram, outputs, cols, p->group, NULL), TN_OK);
    assert_int_equal(tn_gram_accumulate(p, 0, false, &data, &gram, NULL), TN_OK);
    assert_true(gram.count == (double)rows);
    for (int64_t g = 0; g < p->group; g++)
        for (int64_t i = 0; i < cols; i++) {
            double sum = 0;
            for (int64_t r = 0; r < rows; r++)
                sum += patch_at(p, g, r, i);
            assert_true(fabs(sum - gram.sum_x[g * cols + i]) < 1e-3);
            for (int64_t j = 0; j < cols; j += 3) {
                double want = 0;
                for (int64_t r = 0; r < rows; r++)
                    want += patch_at(p, g, r, i) * patch_at(p, g, r, j);
                assert_true(fabs(want - gram.inner[(g * cols + i) * cols + j]) < 1e-2);
            }
            for (int64_t o = 0; o < per; o++) {
                double want = 0;
                for (int64_t r = 0; r < rows; r++)
                    want += patch_at(p, g, r, i) * (double)data.output[r * outputs + g * per + o];
                assert_true(fabs(want - gram.cross[(g * per + o) * cols + i]) < 1e-2);
            }
        }
    tn_gram_done(&gram);
    tn_free((void *)data.output);
}

static void sums_equal_loops(void **state)
{
    (void)state;
    float *x = random_floats(3 * 11 * 9 * 12, 1, 0.3f);
    tn_patches plain = {2, 3, 12, 1, {11, 9}, {11, 9}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, x};
    tn_patches strided = {2, 3, 12, 1, {11, 9}, {6, 5}, {3, 3}, {2, 2}, {1, 1}, {1, 1}, x};
    tn_patches dilated = {2, 3, 12, 3, {11, 9}, {11, 9}, {3, 3}, {1, 1}, {2, 2}, {2, 2}, x};
    tn_patches depthwise = {2, 3, 12, 12, {11, 9}, {11, 9}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, x};
    check_against_loops(&plain, 5);
    check_against_loops(&strided, 70);
    check_against_loops(&dilated, 6);
    check_against_loops(&depthwise, 24);
    tn_free(x);
}

static void linear_layers_are_patches_without_space(void **state)
{
    (void)state;
    float *x = random_floats(700 * 9, 1, 0), *y = random_floats(700 * 2, 2, 0);
    tn_patches p = {.batch = 700, .channels = 9, .group = 1, .data = x};
    tn_gram_target data = {.channels = 2, .output = y};
    tn_gram gram;
    assert_int_equal(tn_patches_rows(&p), 700);
    assert_int_equal(tn_patches_cols(&p), 9);
    assert_int_equal(tn_gram_init(&gram, 2, 9, 1, NULL), TN_OK);
    assert_int_equal(tn_gram_accumulate(&p, 0, false, &data, &gram, NULL), TN_OK);
    double want = 0;
    for (int i = 0; i < 700; i++)
        want += (double)x[i * 9 + 4] * (double)y[i * 2 + 1];
    assert_true(fabs(want - gram.cross[9 + 4]) < 1e-3);
    tn_gram_center_inner(&gram);
    tn_gram_center_cross(&gram);
    double mx = 0, my = 0, centred = 0;
    for (int i = 0; i < 700; i++) {
        mx += (double)x[i * 9 + 4] / 700;
        my += (double)y[i * 2 + 1] / 700;
    }
    for (int i = 0; i < 700; i++)
        centred += ((double)x[i * 9 + 4] - mx) * ((double)y[i * 2 + 1] - my);
    assert_true(fabs(centred - gram.cross[9 + 4]) < 1e-3);
    tn_gram_done(&gram);
    tn_free(x);
    tn_free(y);
}

/* Nothing is known of a weight whose inputs do not vary: it is left to its own rounding. */
static void inputs_that_do_not_vary_ask_for_the_weights(void **state)
{
    (void)state;
    enum { POSITIONS = 700 };
    float *x = random_floats(POSITIONS * 4, 1, 0), *y = random_floats(POSITIONS * 4, 2, 0);
    float *w = random_floats(2 * 4, 3, 0);
    for (int i = 0; i < POSITIONS; i++)
        x[i * 4] = x[i * 4 + 1] = 0.7f;
    tn_patches p = {.batch = POSITIONS, .channels = 4, .group = 2, .data = x};
    tn_gram_target data = {.channels = 4, .output = y};
    tn_gram gram;
    double damping[2];
    assert_int_equal(tn_gram_init(&gram, 4, 2, 2, NULL), TN_OK);
    assert_int_equal(tn_gram_accumulate(&p, 0, false, &data, &gram, NULL), TN_OK);
    tn_gram_center_inner(&gram);
    tn_gram_center_cross(&gram);
    tn_gram_damp_inner(&gram, 0.01, damping);
    tn_gram_damp_cross(&gram, w, 2, damping);
    assert_true(gram.flat[0] && !gram.flat[1] && damping[0] == 0 && damping[1] > 0);
    for (int i = 0; i < 4; i++) {
        assert_true(gram.inner[i] == (i % 3 == 0));
        assert_true(gram.cross[i] == (double)w[i]);
    }
    assert_true(gram.inner[4] > 100);
    tn_gram_done(&gram);
    tn_free(x);
    tn_free(y);
    tn_free(w);
}

static void threads_and_thinning_are_deterministic(void **state)
{
    (void)state;
    float *x = random_floats(40 * 16 * 16 * 24, 1, 0.3f);
    tn_patches p = {2, 40, 24, 1, {16, 16}, {16, 16}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, x};
    float *y = random_floats(40 * 16 * 16 * 8, 2, 0);
    tn_gram_target data = {.channels = 8, .output = y};
    tn_gram gram[2];
    for (int64_t limit = 0; limit <= 3000; limit += 3000) {
        for (int t = 0; t < 2; t++) {
            tn_threads_set(t + 1);
            assert_int_equal(tn_gram_init(&gram[t], 8, 216, 1, NULL), TN_OK);
            assert_int_equal(tn_gram_accumulate(&p, limit, false, &data, &gram[t], NULL), TN_OK);
        }
        assert_true(gram[0].count == (limit ? 3413 : 10240));
        assert_memory_equal(gram[0].inner, gram[1].inner, 216 * 216 * sizeof(double));
        assert_memory_equal(gram[0].cross, gram[1].cross, 8 * 216 * sizeof(double));
        assert_memory_equal(gram[0].sum_yy, gram[1].sum_yy, 8 * sizeof(double));
        tn_gram_done(&gram[0]);
        tn_gram_done(&gram[1]);
    }
    tn_free(x);
    tn_free(y);
}

/* Terms of a block against one product after the other, bit for bit: all rows of it, some that
 * several products share, and single ones; whole tiles and edges. */
static void check_products(int products, int64_t block, int64_t every, int64_t from, int64_t to)
{
    enum { COLS = 203 };
    tn_random random = tn_random_make(7, TN_PURPOSE_TEST, 3, (uint64_t)(every * products));
    size_t n = (size_t)(products * COLS);
    tn_gram_terms *terms = tn_alloc(sizeof *terms);
    double *gram = tn_alloc_array((size_t)block, COLS * sizeof *gram);
    double *found = tn_alloc_zero(n, sizeof *found), *wanted = tn_alloc_zero(n, sizeof *wanted);
    double *product[TN_PRODUCT_ROWS];
    assert_true(terms && gram && found && wanted);
    for (int64_t i = 0; i < block * COLS; i++)
        gram[i] = (double)tn_random_normal(&random);
    tn_gram_terms_clear(terms);
    for (int r = 0; r < products; r++) {
        product[r] = found + r * COLS;
        for (int64_t i = every > 1 ? r : 0; i < block; i += every) {
            double factor = (double)tn_random_normal(&random);
            tn_gram_terms_push(terms, r, i, factor);
            for (int64_t j = from; j < to; j++)
                wanted[r * COLS + j] += factor * gram[i * COLS + j];
        }
    }
    tn_gram_terms_add(terms, gram, COLS, from, to, products, product);
    assert_memory_equal(found, wanted, n * sizeof *found);
    tn_free(terms);
    tn_free(gram);
    tn_free(found);
    tn_free(wanted);
}

static void products_equal_loops(void **state)
{
    (void)state;
    check_products(1, 5, 1, 0, 3);
    check_products(TN_PRODUCT_ROWS, TN_PRODUCT_BLOCK, 1, 0, 203);
    check_products(TN_PRODUCT_ROWS, TN_PRODUCT_BLOCK, 7, 10, 200);
    check_products(9, 200, 199, 64, 203);
    check_products(3, 17, 100, 5, 5);
}

enum { WIDE = 48 };

/* Sums of n samples whose covariance is 0.9^|i - j|, or the identity; *given: the damping they get
 * as those of `count` positions, in mean diagonals. How far what is left is from that covariance.
 */
static double distance_damped(int64_t n, bool related, double count, double *given)
{
    tn_gram gram;
    double damping, mean = 0, apart = 0;
    assert_int_equal(tn_gram_init(&gram, 1, WIDE, 1, NULL), TN_OK);
    float *x = random_floats((size_t)(n * WIDE), (uint64_t)n, 0);
    gram.count = count;
    for (int64_t r = 0; r < n; r++) {
        for (int64_t i = 1; related && i < WIDE; i++)
            x[r * WIDE + i] = 0.9f * x[r * WIDE + i - 1] + 0.435890f * x[r * WIDE + i];
        for (int64_t i = 0; i < WIDE * WIDE; i++)
            gram.inner[i] += (double)x[r * WIDE + i / WIDE] * (double)x[r * WIDE + i % WIDE];
    }
    for (int64_t i = 0; i < WIDE; i++)
        mean += gram.inner[i * (WIDE + 1)] / WIDE;
    tn_gram_damp_inner(&gram, 0.01, &damping);
    *given = damping / mean;
    for (int64_t i = 0; i < WIDE; i++)
        for (int64_t j = 0; j < WIDE; j++) {
            double truth = related ? pow(0.9, (double)llabs(i - j)) : (double)(i == j);
            double d = gram.inner[i * WIDE + j] / ((double)n * (1 + *given)) - truth;
            apart += d * d;
        }
    tn_gram_done(&gram);
    tn_free(x);
    return apart;
}

/* Few positions: damping brings the sums nearer to what many would give than 0.01 does, by 0.25 at
 * most; from two a column on it is that 0.01. */
static void few_positions_are_damped_more(void **state)
{
    (void)state;
    double given, more = 0, fixed = 0;
    for (int64_t n = 12; n < 2 * WIDE; n += 12) {
        more += distance_damped(n, true, (double)n, &given);
        assert_true(given > 0.011 && given < 0.2501);
        fixed += distance_damped(n, true, 2 * WIDE, &given);
        assert_true(fabs(given - 0.01) < 1e-9);
        (void)distance_damped(n, false, (double)n, &given); /* nothing in common: the most */
        assert_true(fabs(given - 0.25) < 1e-9);
    }
    assert_true(more < 0.9 * fixed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_equal_loops),
        cmocka_unit_test(linear_layers_are_patches_without_space),
        cmocka_unit_test(inputs_that_do_not_vary_ask_for_the_weights),
        cmocka_unit_test(threads_and_thinning_are_deterministic),
        cmocka_unit_test(products_equal_loops),
        cmocka_unit_test(few_positions_are_damped_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
