/* Ranges of activations: the arithmetic of scale and zero point, what each method does with an
 * outlier, and a written graph whose outputs stay near the float network's, nearer with more bits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/memory.h"
#include "core/random.h"
#include "finetune/activation_range.h"
#include "onnx_io/zoo/zoo.h"
#include "tests/finetune/network_output.h"

#include <math.h>
#include <string.h>

enum { IMAGES = 16, SIZE = 16 };

static float images[IMAGES * 3 * SIZE * SIZE];

static void zero_is_exact_and_the_range_is_held(void **state)
{
    (void)state;
    static const double ends[][2] = {{-1, 3}, {0, 6}, {0.5, 6}, {-4, -1}, {0, 0}, {-1e-30, 1e-30}};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        for (int bits = 2; bits <= 16; bits++) {
            tn_activation_range range = {0};
            int top = (1 << bits) - 1;
            tn_activation_fit(ends[i][0], ends[i][1], bits, &range);
            assert_true(range.scale > 0 && isfinite(range.scale));
            assert_in_range(range.zero, 0, top);
            double low = -range.zero * (double)range.scale;
            double high = (top - range.zero) * (double)range.scale;
            assert_true(low <= fmin(ends[i][0], 0) + 0.51 * (double)range.scale);
            assert_true(high >= fmax(ends[i][1], 0) - 0.51 * (double)range.scale);
        }
}

static void methods_treat_outliers_as_they_should(void **state)
{
    (void)state;
    static tn_histogram histogram;
    enum { COUNT = 100000 };
    float *values = tn_alloc_array(COUNT, sizeof *values);
    tn_random random = tn_random_make(1, TN_PURPOSE_TEST, 5, 1);
    for (int i = 0; i < COUNT; i++)
        values[i] = fabsf(tn_random_normal(&random));
    values[17] = 100; /* one in 100,000 */
    histogram = (tn_histogram){.low = 0, .high = 100};
    tn_histogram_add(&histogram, values, COUNT);
    double high[4], low;
    for (int m = TN_RANGE_MINMAX; m <= TN_RANGE_MSE; m++)
        tn_histogram_range(&histogram, (tn_range_method)m, 4, &low, &high[m]);
    print_message("high: minmax %.2f percentile %.2f entropy %.2f mse %.2f\n", high[0], high[1],
                  high[2], high[3]);
    assert_true(high[TN_RANGE_MINMAX] == 100);
    assert_true(high[TN_RANGE_PERCENTILE] < 6);
    assert_true(high[TN_RANGE_ENTROPY] < 50);
    assert_true(high[TN_RANGE_MSE] < 50);
    tn_free(values);
}

/* Codes finer than the histogram's bins have its shape whatever the range. */
static void entropy_of_many_bits_keeps_the_activation(void **state)
{
    (void)state;
    static tn_histogram histogram = {.low = 0, .high = 8};
    for (int i = 0; i < TN_HISTOGRAM_BINS; i++)
        histogram.bin[i] = (uint64_t)(1e6 * exp(-i / 256.0));
    for (int bits = 11; bits <= 16; bits++) {
        double low, high;
        tn_histogram_range(&histogram, TN_RANGE_ENTROPY, bits, &low, &high);
        assert_true(high > 4);
    }
}

static void what_is_no_number_has_no_bin_of_its_own(void **state)
{
    (void)state;
    static tn_histogram histogram = {.low = -1, .high = 1};
    const float values[] = {NAN, INFINITY, -INFINITY};
    tn_histogram_add(&histogram, values, 3);
    assert_int_equal(histogram.bin[0], 2);
    assert_int_equal(histogram.bin[TN_HISTOGRAM_BINS - 1], 1);
}

/* Largest difference of logits, relative to the largest logit. */
static double written_error(const tn_model *model, const tn_conversion *conversion, int bits,
                            int input_bits, const float *wanted, size_t *values)
{
    tn_activations activations;
    tn_error error = {0};
    float got[IMAGES * 10];
    tn_activation_options options = {
        .bits = bits, .input_bits = input_bits, .images = images, .samples = IMAGES};
    if (tn_activations_measure(model, conversion, NULL, &options, &activations, &error) != TN_OK)
        print_message("%s\n", error.message);
    assert_int_equal(error.code, TN_OK);
    *values = activations.count;
    tn_model *copy = NULL;
    assert_int_equal(tn_model_copy(model, &copy, NULL), TN_OK);
    if (tn_activations_write(&activations, copy, &error) != TN_OK)
        print_message("%s\n", error.message);
    assert_int_equal(error.code, TN_OK);
    network_output(copy, images, IMAGES, got);
    tn_model_destroy(copy);
    tn_activations_done(&activations);
    return output_distance(got, wanted, IMAGES * 10);
}

static void more_bits_come_nearer(void **state)
{
    (void)state;
    tn_model *model = NULL;
    tn_graph *graph = NULL;
    tn_layers layers;
    float wanted[IMAGES * 10];
    tn_zoo_options zoo = {.classes = 10, .input = {3, SIZE, SIZE}, .seed = 2};
    assert_int_equal(tn_zoo_create("resnet8", &zoo, &model, NULL), TN_OK);
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++) {
        tn_random random = tn_random_make(2, TN_PURPOSE_TEST, 6, i / 8);
        images[i] = tn_random_normal(&random);
    }
    assert_int_equal(tn_graph_create(model, NULL, &graph, NULL), TN_OK);
    tn_policy policy = {0};
    assert_int_equal(tn_layers_select(graph, &policy, &layers, NULL), TN_OK);
    tn_converted *items = tn_alloc_zero(layers.count, sizeof *items);
    tn_conversion conversion = {.item = items};
    for (size_t i = 0; i < layers.count; i++)
        if (layers.layer[i].quantized)
            items[conversion.count++].layer = &layers.layer[i];
    network_output(model, images, IMAGES, wanted);
    size_t values = 0;
    double four = written_error(model, &conversion, 4, 0, wanted, &values);
    double eight = written_error(model, &conversion, 8, 0, wanted, &values);
    assert_int_equal(values, 6);
    double sixteen = written_error(model, &conversion, 16, 0, wanted, &values);
    double input = written_error(model, &conversion, 0, 8, wanted, &values);
    assert_int_equal(values, 1);
    print_message("relative error: 4 bits %.4f, 8 %.5f, 16 %.7f; 8-bit input alone %.5f\n", four,
                  eight, sixteen, input);
    assert_true(eight < 0.05 && eight < four / 4 && sixteen < eight / 16);
    assert_true(input > 0 && input < 0.05);
    images[7] = INFINITY;
    tn_error error = {0};
    tn_activations refused;
    const tn_activation_options options = {.input_bits = 8, .images = images, .samples = IMAGES};
    assert_int_equal(tn_activations_measure(model, &conversion, NULL, &options, &refused, &error),
                     TN_ERROR_MODEL);
    assert_non_null(strstr(error.message, graph->inputs[0]->name));
    tn_error_clear(&error);
    tn_free(items);
    tn_graph_destroy(graph);
    tn_model_destroy(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zero_is_exact_and_the_range_is_held),
        cmocka_unit_test(methods_treat_outliers_as_they_should),
        cmocka_unit_test(entropy_of_many_bits_keeps_the_activation),
        cmocka_unit_test(what_is_no_number_has_no_bin_of_its_own),
        cmocka_unit_test(more_bits_come_nearer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
