/* Bits per layer: the budget is kept, what is spent pays, impossible budgets are refused, and
 * nothing is chosen when only the table is asked for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/random.h"
#include "finetune/budget.h"
#include "onnx_io/zoo/zoo.h"

#include <math.h>
#include <string.h>

enum { IMAGES = 48, SIZE = 16, BASE = 1000 };

static float images[IMAGES * 3 * SIZE * SIZE];
static tn_model *resnet;
static int packings;

/* Codes alone, 2 bits for ternary, and something for the rest of the file. */
static tn_status count_bytes(void *context, const tn_calibration *calibration, uint64_t *bytes,
                             tn_error *error)
{
    (void)context;
    (void)error;
    packings++;
    *bytes = BASE;
    for (size_t i = 0; i < calibration->conversion.count; i++) {
        const tn_qweight *weight = &calibration->conversion.item[i].weight;
        *bytes += (uint64_t)(weight->rows * weight->cols * weight->bits / 8) +
                  (uint64_t)weight->n_scales * 4;
    }
    return TN_OK;
}

static tn_budget_options options_for(uint64_t target_size)
{
    return (tn_budget_options){
        .calibrate = {.images = images, .samples = IMAGES, .bn = TN_CALIBRATE_BN_AFFINE},
        .target_size = target_size,
        .size = count_bytes};
}

static uint64_t bytes_at(const tn_budget *budget, int width)
{
    uint64_t sum = BASE;
    for (size_t i = 0; i < budget->count; i++)
        sum += budget->row[i].bytes[width];
    return sum;
}

static void the_table_alone_chooses_nothing(void **state)
{
    (void)state;
    tn_budget_options options = options_for(0);
    tn_budget budget;
    tn_calibration untouched = {.images = 77};
    options.sensitivity_only = true;
    assert_int_equal(tn_budget_choose(resnet, NULL, &options, &budget, &untouched, NULL), TN_OK);
    assert_int_equal(untouched.images, 77);
    assert_int_equal(budget.count, 6);
    for (int b = 0; b < TN_BUDGET_WIDTHS; b++)
        print_message("%s bits: KL %.5f, %llu bytes\n", tn_budget_bits[b], budget.kl_uniform[b],
                      (unsigned long long)bytes_at(&budget, b));
    assert_true(budget.kl_uniform[4] < budget.kl_uniform[3]);
    assert_true(budget.kl_uniform[3] < budget.kl_uniform[0]);
    for (size_t i = 0; i < budget.count; i++)
        assert_true(strlen(budget.row[i].name) > 0 && budget.row[i].kl[4] >= 0);
    tn_budget_done(&budget);
}

/* A row is what the float network with that one layer replaced gives on the probe's images, though
 * it is run from the layer's step on only. */
static void a_row_is_one_layer_in_the_float_network(void **state)
{
    (void)state;
    const tn_calibrate_options options = {
        .images = images, .samples = IMAGES, .bn = TN_CALIBRATE_BN_KEEP};
    tn_device *device = NULL;
    tn_probe *probe = NULL;
    tn_graph *graph = NULL;
    tn_sensitivity table;
    assert_int_equal(tn_device_create_cpu(&device, NULL), TN_OK);
    assert_int_equal(tn_probe_create(resnet, NULL, &options, 0, device, &probe, NULL), TN_OK);
    assert_int_equal(tn_sensitivity_measure(resnet, NULL, &options, probe, device, &table, NULL),
                     TN_OK);
    assert_int_equal(tn_graph_create(resnet, NULL, &graph, NULL), TN_OK);
    for (size_t i = 0; i < table.count; i++)
        for (int b = 0; b < TN_BUDGET_WIDTHS; b += 2) {
            tn_probe_result alone;
            const tn_calibration one = {.graph = graph,
                                        .conversion = {&table.width[b].conversion.item[i], 1}};
            assert_int_equal(tn_probe_measure(probe, &one, &alone, NULL), TN_OK);
            assert_true(fabs(alone.kl - table.row[i].kl[b]) <= 1e-6 * alone.kl + 1e-12);
        }
    tn_sensitivity_done(&table);
    tn_graph_destroy(graph);
    tn_probe_destroy(probe);
    tn_device_destroy(device);
}

static void a_size_is_kept_and_used(void **state)
{
    (void)state;
    tn_budget budget;
    tn_calibration calibration;
    tn_budget_options table = options_for(0);
    table.sensitivity_only = true;
    assert_int_equal(tn_budget_choose(resnet, NULL, &table, &budget, NULL, NULL), TN_OK);
    uint64_t low = bytes_at(&budget, 1), high = bytes_at(&budget, 3), between = (low + high) / 2;
    double lowest = budget.kl_uniform[0];
    tn_budget_done(&budget);
    tn_budget_options options = options_for(between);
    assert_int_equal(tn_budget_choose(resnet, NULL, &options, &budget, &calibration, NULL), TN_OK);
    print_message("%llu of %llu bytes, KL %.5f (ternary %.5f)\n", (unsigned long long)budget.bytes,
                  (unsigned long long)between, budget.result.kl, lowest);
    assert_true(budget.bytes <= between && budget.bytes > low);
    assert_true(budget.result.kl < lowest);
    uint64_t written = 0;
    assert_int_equal(count_bytes(NULL, &calibration, &written, NULL), TN_OK);
    assert_true(written == budget.bytes);
    tn_calibration_done(&calibration);
    tn_budget_done(&budget);
}

/* As count_bytes, but one layer (context) takes far more than any budget when it has more bits than
 * another: the table, which sees one width at a time, does not tell. */
static tn_status count_company(void *context, const tn_calibration *calibration, uint64_t *bytes,
                               tn_error *error)
{
    const tn_converted *item = calibration->conversion.item;
    const size_t *dear = context;
    int lowest = 8;
    tn_status status = count_bytes(context, calibration, bytes, error);
    for (size_t i = 0; i < calibration->conversion.count; i++)
        lowest = item[i].weight.bits < lowest ? item[i].weight.bits : lowest;
    *bytes += item[*dear].weight.bits > lowest ? 1000000 : 0;
    return status;
}

/* Whichever layer turns out to be too large, the others are promoted all the same. */
static void an_overshoot_ends_nothing(void **state)
{
    (void)state;
    tn_budget budget;
    tn_calibration calibration;
    tn_budget_options options = options_for(0);
    options.sensitivity_only = true;
    assert_int_equal(tn_budget_choose(resnet, NULL, &options, &budget, NULL, NULL), TN_OK);
    uint64_t uniform = bytes_at(&budget, 2), limit = (uniform + bytes_at(&budget, 3)) / 2;
    size_t layers = budget.count;
    tn_budget_done(&budget);
    for (size_t dear = 0; dear < layers; dear++) {
        options = options_for(limit);
        options.size = count_company;
        options.size_context = &dear;
        assert_int_equal(tn_budget_choose(resnet, NULL, &options, &budget, &calibration, NULL),
                         TN_OK);
        print_message("%llu of %llu bytes\n", (unsigned long long)budget.bytes,
                      (unsigned long long)limit);
        assert_true(budget.bytes <= limit && budget.bytes > uniform);
        tn_calibration_done(&calibration);
        tn_budget_done(&budget);
    }
}

/* On the twelve images that are held out, one image is 8 points: a bound of 2 cannot be promised.
 */
static void a_loss_is_kept(void **state)
{
    (void)state;
    tn_budget budget;
    tn_calibration calibration;
    tn_error error = {0};
    tn_budget_options options = options_for(0);
    options.target_drop = 2;
    assert_int_equal(tn_budget_choose(resnet, NULL, &options, &budget, &calibration, &error),
                     TN_ERROR_USAGE);
    assert_non_null(strstr(error.message, "12 images"));
    tn_error_clear(&error);
    options.target_drop = 20;
    assert_int_equal(tn_budget_choose(resnet, NULL, &options, &budget, &calibration, NULL), TN_OK);
    print_message("%llu bytes, %.3f points (+- %.3f) on %lld images\n",
                  (unsigned long long)budget.bytes, budget.result.loss, budget.result.deviation,
                  (long long)budget.images);
    assert_int_equal(budget.images, IMAGES / 4);
    assert_true(budget.result.loss >= 0 && budget.result.deviation > 8.3);
    assert_true(budget.result.loss + budget.result.deviation <= 20);
    assert_true(budget.bytes <= bytes_at(&budget, TN_BUDGET_WIDTHS - 1));
    tn_calibration_done(&calibration);
    tn_budget_done(&budget);
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    tn_budget budget;
    tn_calibration calibration;
    tn_error error = {0};
    tn_budget_options options = options_for(BASE);
    assert_int_equal(tn_budget_choose(resnet, NULL, &options, &budget, &calibration, &error),
                     TN_ERROR_USAGE);
    assert_non_null(strstr(error.message, "more than"));
    tn_error_clear(&error);
    options = options_for(0);
    assert_int_equal(tn_budget_choose(resnet, NULL, &options, &budget, &calibration, &error),
                     TN_ERROR_USAGE);
}

static int setup(void **state)
{
    (void)state;
    tn_zoo_options zoo = {.classes = 10, .input = {3, SIZE, SIZE}, .seed = 4};
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++) {
        tn_random random = tn_random_make(4, TN_PURPOSE_TEST, 7, i / 4);
        images[i] = tn_random_normal(&random);
    }
    return tn_zoo_create("resnet8", &zoo, &resnet, NULL) == TN_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    tn_model_destroy(resnet);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_alone_chooses_nothing),
        cmocka_unit_test(a_row_is_one_layer_in_the_float_network),
        cmocka_unit_test(a_size_is_kept_and_used),
        cmocka_unit_test(an_overshoot_ends_nothing),
        cmocka_unit_test(a_loss_is_kept),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
