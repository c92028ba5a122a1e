/* Layers by blocks of columns against the whole least-squares problem and plain rounding,
 * with a block that is not full, for scales per tensor, row and group; linear ones and
 * convolutions, the latter in two chunks; one and two threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/memory.h"
#include "core/random.h"
#include "core/threads.h"
#include "finetune/calibrate_wide.h"

#include <math.h>
#include <string.h>

enum { IMAGES = 300, CHUNK = 128, COLS = 1100, ROWS = 20, HIDDEN = 60 };

static float inputs[IMAGES * COLS], outputs[IMAGES * ROWS], w[ROWS * COLS];
static float x[CHUNK * COLS], y[CHUNK * ROWS];
static const double ones[ROWS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
static const double zeros[ROWS];

/* Inputs of low rank plus noise, all positive in the mean: what a ReLU gives. */
static int setup(void **state)
{
    (void)state;
    static float hidden[IMAGES * HIDDEN], mix[HIDDEN * COLS];
    tn_random random = tn_random_make(21, TN_PURPOSE_TEST, 4, 0);
    for (size_t i = 0; i < IMAGES * HIDDEN; i++)
        hidden[i] = tn_random_normal(&random);
    for (size_t i = 0; i < HIDDEN * COLS; i++)
        mix[i] = tn_random_normal(&random) / 8;
    for (size_t i = 0; i < ROWS * COLS; i++)
        w[i] = tn_random_normal(&random) / 30;
    for (size_t i = 0; i < IMAGES; i++)
        for (size_t j = 0; j < COLS; j++) {
            float sum = 0.3f + 0.3f * tn_random_normal(&random);
            for (size_t k = 0; k < HIDDEN; k++)
                sum += hidden[i * HIDDEN + k] * mix[k * COLS + j];
            inputs[i * COLS + j] = sum > 0 ? sum : 0;
        }
    for (size_t i = 0; i < IMAGES; i++)
        for (size_t o = 0; o < ROWS; o++) {
            float sum = 0.5f;
            for (size_t j = 0; j < COLS; j++)
                sum += inputs[i * COLS + j] * w[o * COLS + j];
            outputs[i * ROWS + o] = sum;
        }
    return 0;
}

static tn_status load(void *context, int pass, int64_t chunk, int64_t *images, tn_error *error)
{
    (void)context;
    (void)pass;
    (void)error;
    int64_t first = chunk * CHUNK, rest = IMAGES - first;
    *images = rest < CHUNK ? rest : CHUNK;
    memcpy(x, inputs + first * COLS, (size_t)(*images * COLS) * sizeof *x);
    memcpy(y, outputs + first * ROWS, (size_t)(*images * ROWS) * sizeof *y);
    return TN_OK;
}

static const tn_layer_source source = {.chunks = (IMAGES + CHUNK - 1) / CHUNK,
                                       .chunk_images = CHUNK,
                                       .images = IMAGES,
                                       .batch_per_image = 1,
                                       .load = load};

typedef tn_status fit_function(const tn_layer_view *, const tn_layer_source *,
                               const tn_layer_fit_options *, tn_qweight *, tn_layer_fit *,
                               tn_error *);

static const tn_layer_view linear_view = {
    .patches = {.batch = CHUNK, .channels = COLS, .group = 1, .data = x},
    .channels = ROWS,
    .w = w,
    .output = y,
    .gain = ones,
    .offset = zeros,
    .centered = true};

/* A convolution of 3x3 over the same numbers, each position's as an image's channels. */
enum { CHANNELS = 100, CONV_COLS = 9 * CHANNELS, SIDE = 6, CONV_IMAGES = 8, CONV_CHUNK = 5 };
enum { IMAGE_IN = SIDE * SIDE * CHANNELS, IMAGE_OUT = SIDE * SIDE / 2 * ROWS };

static float conv_y[CONV_IMAGES * IMAGE_OUT], w_conv[ROWS * CONV_COLS];

/* Strides 1 and 2, padded; data of the chunk. */
static tn_patches conv_patches(int64_t batch)
{
    return (tn_patches){.spatial = 2,
                        .batch = batch,
                        .channels = CHANNELS,
                        .group = 1,
                        .in = {SIDE, SIDE},
                        .out = {SIDE, SIDE / 2},
                        .kernel = {3, 3},
                        .stride = {1, 2},
                        .dilation = {1, 1},
                        .pad = {1, 1},
                        .data = x};
}

static tn_status load_conv(void *context, int pass, int64_t chunk, int64_t *images, tn_error *error)
{
    (void)context;
    (void)pass;
    (void)error;
    int64_t first = chunk * CONV_CHUNK, rest = CONV_IMAGES - first;
    *images = rest < CONV_CHUNK ? rest : CONV_CHUNK;
    for (int64_t p = 0; p < *images * SIDE * SIDE; p++)
        memcpy(x + p * CHANNELS, inputs + (first * SIDE * SIDE + p) * COLS, CHANNELS * sizeof *x);
    memcpy(y, conv_y + first * IMAGE_OUT, (size_t)(*images * IMAGE_OUT) * sizeof *y);
    return TN_OK;
}

static const tn_layer_source conv_source = {.chunks = (CONV_IMAGES + CONV_CHUNK - 1) / CONV_CHUNK,
                                            .chunk_images = CONV_CHUNK,
                                            .images = CONV_IMAGES,
                                            .batch_per_image = 1,
                                            .load = load_conv};

/* The float layer's outputs, by plain loops. */
static void make_conv(void)
{
    memcpy(w_conv, w, sizeof w_conv);
    for (int64_t i = 0; i < CONV_IMAGES * SIDE * SIDE / 2; i++) {
        int64_t image = i / (SIDE * SIDE / 2), oy = i / (SIDE / 2) % SIDE, ox = i % (SIDE / 2);
        for (int64_t o = 0; o < ROWS; o++) {
            float sum = 0.5f;
            for (int64_t k = 0; k < 9; k++) {
                int64_t iy = oy - 1 + k / 3, ix = 2 * ox - 1 + k % 3;
                if (iy < 0 || iy >= SIDE || ix < 0 || ix >= SIDE)
                    continue;
                const float *from = inputs + ((image * SIDE + iy) * SIDE + ix) * COLS;
                for (int64_t c = 0; c < CHANNELS; c++)
                    sum += from[c] * w_conv[o * CONV_COLS + c * 9 + k];
            }
            conv_y[i * ROWS + o] = sum;
        }
    }
}

/* Ternary by 0.7 of the mean; then fitted. */
static double fit(fit_function *how, const tn_layer_view *view, const tn_layer_source *from,
                  tn_calibrate_method method, tn_granularity granularity, tn_qweight *weight)
{
    double slope[ROWS], shift[ROWS], sum = 0;
    int64_t cols = tn_patches_cols(&view->patches);
    tn_layer_fit result = {.slope = slope, .shift = shift};
    tn_layer_fit_options options = {
        .method = method, .damping = 0.01, .sweeps = 30, .positions = 65536};
    *weight = (tn_qweight){.rank = 2,
                           .dims = {ROWS, cols},
                           .granularity = granularity,
                           .group = 64,
                           .low = -1,
                           .high = 1,
                           .bits = 2};
    assert_int_equal(tn_qweight_init(weight, false, false, NULL), TN_OK);
    for (int64_t i = 0; i < ROWS * cols; i++)
        sum += fabs((double)view->w[i]) / (double)(ROWS * cols);
    for (int64_t i = 0; i < ROWS * cols; i++)
        weight->codes[i] = (int16_t)((double)view->w[i] > 0.7 * sum    ? 1
                                     : (double)view->w[i] < -0.7 * sum ? -1
                                                                       : 0);
    for (int64_t i = 0; i < weight->n_scales; i++)
        weight->scale[i] = (float)(1.4 * sum);
    assert_int_equal(how(view, from, &options, weight, &result, NULL), TN_OK);
    return result.error;
}

static void check_blocks(const tn_layer_view *view, const tn_layer_source *from)
{
    size_t weights = (size_t)(ROWS * tn_patches_cols(&view->patches));
    for (int g = TN_PER_TENSOR; g <= TN_PER_GROUP; g++) {
        tn_granularity granularity = (tn_granularity)g;
        tn_qweight weight[4];
        double round =
            fit(tn_layer_fit_run, view, from, TN_CALIBRATE_ROUND, granularity, &weight[0]);
        double whole = fit(tn_layer_fit_run, view, from, TN_CALIBRATE_CD, granularity, &weight[1]);
        double blocks[2];
        for (int t = 0; t < 2; t++) {
            tn_threads_set(t + 1);
            blocks[t] =
                fit(tn_wide_fit_run, view, from, TN_CALIBRATE_CD, granularity, &weight[2 + t]);
        }
        print_message("error: rounding %.4f, whole %.4f, by blocks %.4f\n", round, whole,
                      blocks[0]);
        assert_true(blocks[0] < 0.3 * round);
        assert_true(blocks[0] < 3 * whole);
        assert_true(blocks[0] == blocks[1]);
        assert_memory_equal(weight[2].codes, weight[3].codes, weights * sizeof(int16_t));
        assert_memory_equal(weight[2].scale, weight[3].scale,
                            (size_t)weight[2].n_scales * sizeof(float));
        for (int i = 0; i < 4; i++)
            tn_qweight_done(&weight[i]);
    }
}

static void blocks_come_near_the_whole(void **state)
{
    (void)state;
    check_blocks(&linear_view, &source);
}

static void so_do_those_of_a_convolution(void **state)
{
    (void)state;
    tn_layer_view view = linear_view;
    make_conv();
    view.patches = conv_patches(CONV_CHUNK);
    view.w = w_conv;
    check_blocks(&view, &conv_source);
}

/* Of y - x v', relative to the variance of y. */
static double own_error(const tn_qweight *weight)
{
    double left = 0, all = 0;
    for (int64_t o = 0; o < ROWS; o++) {
        double d = 0, dd = 0, yy = 0, sum = 0;
        for (int64_t i = 0; i < IMAGES; i++) {
            double wanted = (double)outputs[i * ROWS + o], error = wanted;
            for (int64_t j = 0; j < COLS; j++)
                error -= (double)inputs[i * COLS + j] * (double)tn_qweight_value(weight, o, j);
            d += error / IMAGES;
            dd += error * error / IMAGES;
            sum += wanted / IMAGES;
            yy += wanted * wanted / IMAGES;
        }
        left += dd - d * d;
        all += yy - sum * sum;
    }
    return left / all;
}

/* Where nothing takes up a factor, the error counts none. */
static void without_slopes_the_error_is_the_weights_own(void **state)
{
    (void)state;
    tn_layer_view view = linear_view;
    view.no_slope = true;
    for (int m = 0; m < 3; m++) {
        tn_qweight weight;
        double error = fit(m == 2 ? tn_wide_fit_run : tn_layer_fit_run, &view, &source,
                           m == 0 ? TN_CALIBRATE_ROUND : TN_CALIBRATE_CD, TN_PER_TENSOR, &weight);
        assert_true(fabs(error - own_error(&weight)) < 1e-4 * error);
        tn_qweight_done(&weight);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_come_near_the_whole),
        cmocka_unit_test(so_do_those_of_a_convolution),
        cmocka_unit_test(without_slopes_the_error_is_the_weights_own)};
    return cmocka_run_group_tests(tests, setup, NULL);
}
