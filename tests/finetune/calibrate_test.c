/* Calibration on seeded networks and images: every method and BN mode, networks with residual sums,
 * concatenations, biases without BatchNorm; nothing but what it must change changes, and one and
 * two threads give the same bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "converter/record.h"
#include "core/memory.h"
#include "core/random.h"
#include "core/threads.h"
#include "finetune/calibrate.h"
#include "finetune/synthesize.h"
#include "onnx_io/edit.h"
#include "tests/finetune/seeded_network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { IMAGES = 32, CHOOSING = 128, SIZE = 16 };

static float images[CHOOSING * 3 * SIZE * SIZE];
static tn_model *resnet;

/* Smooth fields: neighbouring pixels are alike, as in photographs. */
static void make_images(void)
{
    for (int i = 0; i < CHOOSING * 3; i++) {
        tn_random random = tn_random_make(3, TN_PURPOSE_TEST, 4, (uint64_t)i);
        float a = tn_random_normal(&random), b = tn_random_normal(&random);
        float fx = tn_random_uniform(&random), fy = tn_random_uniform(&random);
        for (int y = 0; y < SIZE; y++)
            for (int x = 0; x < SIZE; x++)
                images[(i * SIZE + y) * SIZE + x] =
                    a + b * sinf(fx * (float)x + fy * (float)y) + 0.3f * tn_random_normal(&random);
    }
}

static tn_calibration calibrate(const tn_model *model, const tn_calibrate_options *given)
{
    tn_calibration calibration = {0};
    tn_error error = {0};
    tn_calibrate_options options = *given;
    if (!options.images)
        options.images = images;
    if (options.samples == 0)
        options.samples = IMAGES;
    if (tn_calibrate(model, NULL, &options, &calibration, &error) != TN_OK)
        print_message("%s\n", error.message);
    assert_int_equal(error.code, TN_OK);
    return calibration;
}

/* Sum of the layers' output errors. */
static double output_error(const tn_calibration *calibration)
{
    double sum = 0;
    for (size_t i = 0; i < calibration->conversion.count; i++)
        sum += calibration->layer[i].output_error;
    return sum;
}

static void every_method_lowers_the_output_error(void **state)
{
    (void)state;
    tn_calibrate_options options = {.method = TN_CALIBRATE_ROUND, .bn = TN_CALIBRATE_BN_AFFINE};
    tn_calibration round = calibrate(resnet, &options);
    assert_int_equal(round.conversion.count, 18);
    for (int m = TN_CALIBRATE_CD; m <= TN_CALIBRATE_ADAROUND; m++) {
        options.method = (tn_calibrate_method)m;
        tn_calibration other = calibrate(resnet, &options);
        print_message("%s: output error %.3f (round %.3f), KL %.4f (%.4f, data-free %.4f)\n",
                      tn_calibrate_method_name(options.method), output_error(&other),
                      output_error(&round), other.kl, round.kl, other.kl_round);
        assert_true(output_error(&other) < 0.8 * output_error(&round));
        assert_true(other.kl < other.kl_round);
        tn_calibration_done(&other);
    }
    tn_calibration_done(&round);
}

static void n_bits_come_near_the_float_network(void **state)
{
    (void)state;
    static const char *const bits[] = {"2", "4", "8"};
    double before = (double)INFINITY;
    for (size_t i = 0; i < sizeof bits / sizeof bits[0]; i++) {
        tn_calibrate_options options = {.policy = {.bits = bits[i]}, .bn = TN_CALIBRATE_BN_AFFINE};
        tn_calibration calibration = calibrate(resnet, &options);
        print_message("%s bits: KL %.6f\n", bits[i], calibration.kl);
        assert_true(calibration.kl < before);
        before = calibration.kl;
        tn_calibration_done(&calibration);
    }
    assert_true(before < 1e-3);
}

static void every_scheme_and_granularity_runs(void **state)
{
    (void)state;
    static const char *const settings[][3] = {
        {"ttq", "1.58", "channel"}, {"ttq", "1.58", "tensor"}, {"twn", "1.58", "group:9"},
        {"affine", "4", "channel"}, {"fixed", "3", "tensor"},  {"dorefa", "2", "tensor"},
    };
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        tn_calibrate_options options = {.policy = {.scheme = settings[i][0],
                                                   .bits = settings[i][1],
                                                   .granularity = settings[i][2]},
                                        .bn = TN_CALIBRATE_BN_AFFINE};
        tn_calibration calibration = calibrate(resnet, &options);
        print_message("%s %s %s: KL %.4f (round %.4f)\n", settings[i][0], settings[i][1],
                      settings[i][2], calibration.kl, calibration.kl_round);
        assert_true(calibration.kl < calibration.kl_round);
        tn_calibration_done(&calibration);
    }
}

/* Layers of FLOAT16 have no codes: they keep their own weights, and the others are fitted beside
 * them, in blocks too. */
static void half_layers_keep_their_weights(void **state)
{
    (void)state;
    static const char *const rules[] = {"layer2.*=half"};
    for (int m = TN_CALIBRATE_ROUND; m <= TN_CALIBRATE_ADAROUND; m++) {
        tn_calibrate_options options = {.policy = {.layer_rules = rules, .n_layer_rules = 1},
                                        .method = (tn_calibrate_method)m,
                                        .bn = TN_CALIBRATE_BN_AFFINE};
        tn_calibration calibration = calibrate(resnet, &options);
        size_t halves = 0;
        for (size_t i = 0; i < calibration.conversion.count; i++) {
            const tn_converted *item = &calibration.conversion.item[i];
            if (item->weight.codes)
                continue;
            halves++;
            assert_non_null(strstr(item->layer->weight->name, "layer2"));
            assert_true(item->figures.relmse > 0 && item->figures.relmse < 1e-6);
            assert_string_equal(calibration.layer[i].method, "round");
        }
        assert_true(halves > 0 && halves < calibration.conversion.count);
        tn_calibration_done(&calibration);
    }
    tn_calibrate_options all = {.policy = {.scheme = "half"}, .bn = TN_CALIBRATE_BN_AFFINE};
    tn_calibration calibration = calibrate(resnet, &all);
    assert_true(calibration.kl < 1e-4 && calibration.kl_round < 1e-4);
    assert_int_equal(calibration.conversion.count, 18);
    tn_calibration_done(&calibration);
}

static void batch_norm_changes_only_when_asked(void **state)
{
    (void)state;
    for (int mode = TN_CALIBRATE_BN_KEEP; mode <= TN_CALIBRATE_BN_AFFINE; mode++) {
        tn_calibrate_options options = {.bn = (tn_calibrate_bn)mode};
        tn_calibration calibration = calibrate(resnet, &options);
        print_message("%s: KL %.4f, %zu parameters changed\n", tn_calibrate_bn_name(options.bn),
                      calibration.kl, calibration.params_changed);
        if (mode == TN_CALIBRATE_BN_KEEP)
            assert_int_equal(calibration.params_changed, 0);
        else
            assert_true(calibration.params_changed >= 18);
        tn_calibration_done(&calibration);
    }
    tn_calibrate_options automatic = {0};
    tn_calibration calibration = calibrate(resnet, &automatic);
    assert_int_equal(calibration.held_out, 0); /* too few to choose by */
    assert_true(calibration.kl_held_out < 0 && calibration.bn == TN_CALIBRATE_BN_AFFINE);
    tn_calibration_done(&calibration);
    automatic.samples = CHOOSING;
    calibration = calibrate(resnet, &automatic);
    assert_int_equal(calibration.held_out, CHOOSING / 4);
    assert_true(calibration.kl_held_out >= 0 && calibration.bn != TN_CALIBRATE_BN_AUTO);
    tn_calibration_done(&calibration);
}

/* DenseNet: BatchNorms behind concatenations; SqueezeNet: biases and no BatchNorm. */
static void other_families_gain_as_well(void **state)
{
    (void)state;
    static const char *const ids[] = {"densenet-small", "squeezenet1.1"};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
        tn_model *model =
            seeded_network(ids[i], i == 0 ? SIZE : 2 * SIZE); /* a quarter of the images */
        tn_calibrate_options options = {.bn = TN_CALIBRATE_BN_AFFINE,
                                        .samples = i == 0 ? IMAGES : IMAGES / 4};
        tn_calibration calibration = calibrate(model, &options);
        print_message("%s: KL %.4f (round %.4f), %zu parameters changed\n", ids[i], calibration.kl,
                      calibration.kl_round, calibration.params_changed);
        assert_true(calibration.kl < 0.5 * calibration.kl_round);
        tn_calibration_done(&calibration);
        tn_model_destroy(model);
    }
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    tn_calibration calibration[2];
    tn_calibrate_options options = {.bn = TN_CALIBRATE_BN_AFFINE};
    for (int t = 0; t < 2; t++) {
        tn_threads_set(t + 1);
        calibration[t] = calibrate(resnet, &options);
    }
    for (size_t i = 0; i < calibration[0].conversion.count; i++)
        assert_true(tn_record_hash(&calibration[0].conversion.item[i].weight) ==
                    tn_record_hash(&calibration[1].conversion.item[i].weight));
    assert_true(calibration[0].kl == calibration[1].kl);
    tn_calibration_done(&calibration[0]);
    tn_calibration_done(&calibration[1]);
}

/* Three chunks, the last not full; in memory, in part in a file, all of it in a file. */
static void memory_does_not_matter(void **state)
{
    (void)state;
    enum { MANY = 70 };
    static const uint64_t memory[] = {0, 400000, 1};
    float *many = tn_alloc_array(MANY * 3 * SIZE * SIZE, sizeof *many);
    tn_random random = tn_random_make(5, TN_PURPOSE_TEST, 8, 1);
    for (size_t i = 0; i < MANY * 3 * SIZE * SIZE; i++)
        many[i] = tn_random_normal(&random);
    for (int mode = TN_CALIBRATE_BN_CONTROL; mode <= TN_CALIBRATE_BN_AFFINE; mode++) {
        tn_calibration calibration[3];
        for (int m = 0; m < 3; m++) {
            tn_calibrate_options options = {.bn = (tn_calibrate_bn)mode,
                                            .images = many,
                                            .samples = MANY,
                                            .hold_out = true,
                                            .memory = memory[m]};
            calibration[m] = calibrate(resnet, &options);
            assert_true((calibration[m].spilled > 0) == (m > 0));
            assert_true(calibration[m].spilled >= calibration[m > 0 ? m - 1 : 0].spilled);
            assert_true(calibration[m].kl == calibration[0].kl);
            for (size_t i = 0; i < calibration[0].conversion.count; i++)
                assert_true(tn_record_hash(&calibration[0].conversion.item[i].weight) ==
                            tn_record_hash(&calibration[m].conversion.item[i].weight));
        }
        print_message("%.1f MB to the file\n", 1e-6 * (double)calibration[2].spilled);
        for (int m = 0; m < 3; m++)
            tn_calibration_done(&calibration[m]);
    }
    tn_free(many);
}

static int64_t length_of(const Onnx__GraphProto *graph, const char *name)
{
    for (size_t i = 0; i < graph->n_initializer; i++)
        if (!strcmp(graph->initializer[i]->name, name))
            return graph->initializer[i]->dims[0];
    return -1;
}

/* Inputs from `first` on of all nodes of a type read the first parameter of their length. */
static void share(tn_model *model, const char *type, size_t first)
{
    const Onnx__GraphProto *graph = model->proto->graph;
    for (size_t i = 0; i < graph->n_node; i++)
        for (size_t j = i + 1; j < graph->n_node; j++) {
            const Onnx__NodeProto *one = graph->node[i], *other = graph->node[j];
            if (strcmp(one->op_type, type) != 0 || strcmp(other->op_type, type) != 0)
                continue;
            for (size_t k = first; k < one->n_input; k++)
                if (length_of(graph, one->input[k]) == length_of(graph, other->input[k]))
                    assert_int_equal(
                        tn_edit_set_input(model, graph->node[j], k, one->input[k], NULL), TN_OK);
        }
}

/* What one layer's correction wrote there would change the others that read it. */
static void shared_parameters_stay(void **state)
{
    (void)state;
    static const char *const ids[] = {"squeezenet1.1", "resnet20"};
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++)
        for (int m = TN_CALIBRATE_CD; m <= TN_CALIBRATE_ADAROUND; m += 2) {
            tn_model *model = seeded_network(ids[i], i == 0 ? 2 * SIZE : SIZE);
            share(model, i == 0 ? "Conv" : "BatchNormalization", i == 0 ? 2 : 1);
            tn_calibrate_options options = {.method = (tn_calibrate_method)m,
                                            .bn = TN_CALIBRATE_BN_AFFINE,
                                            .samples = IMAGES / 4};
            tn_calibration calibration = calibrate(model, &options);
            assert_int_equal(calibration.params_changed, 0);
            tn_calibration_done(&calibration);
            tn_model_destroy(model);
        }
}

/* Of a layer inside, what its BatchNorm reads is added to what that gives. */
static void add_company(tn_model *model)
{
    const Onnx__GraphProto *graph = model->proto->graph;
    size_t at = 0;
    for (size_t found = 0; found < 2; at++)
        found += !strcmp(graph->node[at]->op_type, "BatchNormalization");
    const Onnx__NodeProto *bn = graph->node[at - 1];
    const char *inputs[] = {bn->input[0], bn->output[0], NULL}, *outputs[] = {"company", NULL};
    assert_non_null(tn_edit_add_node(model, at, "Add", "company", inputs, outputs));
    assert_int_equal(
        tn_edit_set_input(model, model->proto->graph->node[at + 1], 0, "company", NULL), TN_OK);
}

/* A BatchNorm that is not alone behind its layer cannot be part of the fit: it is corrected. */
static void a_batch_norm_in_company_is_corrected(void **state)
{
    (void)state;
    const tn_calibrate_options options = {.bn = TN_CALIBRATE_BN_AFFINE, .samples = IMAGES / 4};
    size_t changed[2];
    for (int t = 0; t < 2; t++) {
        tn_model *model = seeded_network("resnet20", SIZE);
        if (t == 1)
            add_company(model);
        tn_calibration calibration = calibrate(model, &options);
        changed[t] = calibration.params_changed;
        tn_calibration_done(&calibration);
        tn_model_destroy(model);
    }
    assert_int_equal(changed[1], changed[0] + 1); /* its gamma: no scale can take the slope */
}

static void add_node(tn_model *model, const char *type, const char *const *inputs,
                     const char *output)
{
    const char *outputs[] = {output, NULL};
    assert_non_null(tn_edit_add_node(model, SIZE_MAX, type, output, inputs, outputs));
}
#define INPUTS(...)                                                                                \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

enum { PLACES = 3 * SIZE, WIDE = 24, HIDDEN = 32 };

static void add_constant(tn_model *model, const char *name, int64_t rows, int64_t cols)
{
    static float numbers[PLACES * WIDE * HIDDEN];
    tn_random random = tn_random_make(6, TN_PURPOSE_TEST, 4, (uint64_t)(rows + cols));
    int64_t dims[2] = {rows, cols}, count = rows * cols;
    for (int64_t i = 0; i < count; i++)
        numbers[i] = rows == 1 ? 1 : tn_random_normal(&random) / sqrtf((float)rows);
    assert_non_null(tn_edit_add_initializer(model, name, TN_FLOAT, rows == 1 ? 1 : 2,
                                            rows == 1 ? dims + 1 : dims, numbers,
                                            (size_t)count * sizeof *numbers, true));
}

/* x -> a token per row of pixels -> MatMul -> BatchNorm over the tokens -> Add and MatMul -> a
 * number added -> Gemm whose C is one number -> Gemm. */
static tn_model *tokens(void)
{
    tn_model *model = NULL;
    const int64_t three = 3, shape[] = {0, PLACES, SIZE}, image[] = {-1, 3, SIZE, SIZE};
    assert_int_equal(tn_model_create("tokens", 8, 13, &model, NULL), TN_OK);
    assert_int_equal(tn_edit_add_input(model, "x", TN_FLOAT, 4, image, NULL), TN_OK);
    assert_non_null(
        tn_edit_add_initializer(model, "shape", TN_INT64, 1, &three, shape, sizeof shape, true));
    add_constant(model, "m1", SIZE, WIDE);
    add_constant(model, "m2", WIDE, WIDE);
    add_constant(model, "one", 1, 1);
    add_constant(model, "places1", 1, PLACES);
    add_constant(model, "places2", 1, PLACES);
    add_constant(model, "places3", 1, PLACES);
    add_constant(model, "places4", 1, PLACES);
    add_constant(model, "g1", PLACES * WIDE, HIDDEN);
    add_constant(model, "g2", HIDDEN, 10);
    add_node(model, "Reshape", INPUTS("x", "shape"), "t");
    add_node(model, "MatMul", INPUTS("t", "m1"), "u");
    add_node(model, "BatchNormalization", INPUTS("u", "places1", "places2", "places3", "places4"),
             "n");
    add_node(model, "MatMul", INPUTS("n", "m2"), "v");
    add_node(model, "Add", INPUTS("v", "one"), "a");
    add_node(model, "Relu", INPUTS("a"), "r");
    add_node(model, "Flatten", INPUTS("r"), "f");
    add_node(model, "Gemm", INPUTS("f", "g1", "one"), "h");
    add_node(model, "Gemm", INPUTS("h", "g2"), "y");
    assert_int_equal(tn_edit_add_output(model, "y", TN_FLOAT, 2, (const int64_t[]){-1, 10}, NULL),
                     TN_OK);
    return model;
}

/* A BatchNorm's parameters for places are not those of channels, and a bias of one number is no
 * part of what a weight is fitted to. */
static void linear_layers_see_their_own_biases(void **state)
{
    (void)state;
    tn_model *model = tokens();
    const tn_calibrate_options options = {
        .policy = {.scheme = "fixed", .bits = "8", .first_layer = "8"},
        .bn = TN_CALIBRATE_BN_AFFINE};
    tn_calibration calibration = calibrate(model, &options);
    assert_int_equal(calibration.conversion.count, 3);
    assert_int_equal(calibration.params_changed, 2); /* mean and gamma of the places */
    for (size_t i = 0; i < 3; i++) {
        print_message("%s: %.6f\n", calibration.layer[i].name, calibration.layer[i].output_error);
        assert_true(calibration.layer[i].output_error < 1e-3);
    }
    tn_calibration_done(&calibration);
    tn_model_destroy(model);
}

static void synthesized_images_match_the_statistics(void **state)
{
    (void)state;
    tn_synthesis synthesis[2];
    tn_synthesize_options options = {.samples = 8, .batch = 8, .steps = 20, .seed = 3};
    for (int t = 0; t < 2; t++) {
        tn_threads_set(t + 1);
        assert_int_equal(tn_synthesize(resnet, &options, &synthesis[t], NULL), TN_OK);
    }
    print_message("loss %.4f -> %.4f\n", synthesis[0].first_loss, synthesis[0].last_loss);
    assert_true(synthesis[0].last_loss < 0.8 * synthesis[0].first_loss);
    assert_memory_equal(synthesis[0].images, synthesis[1].images,
                        8 * 3 * SIZE * SIZE * sizeof(float));
    tn_synthesis_done(&synthesis[0]);
    tn_synthesis_done(&synthesis[1]);
    tn_model *plain = seeded_network("squeezenet1.1", 2 * SIZE);
    tn_error error = {0};
    assert_int_equal(tn_synthesize(plain, &options, &synthesis[0], &error), TN_ERROR_MODEL);
    assert_non_null(strstr(error.message, "BatchNorm"));
    tn_model_destroy(plain);
}

static int setup(void **state)
{
    (void)state;
    make_images();
    resnet = seeded_network("resnet20", SIZE);
    return 0;
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
        cmocka_unit_test(every_method_lowers_the_output_error),
        cmocka_unit_test(n_bits_come_near_the_float_network),
        cmocka_unit_test(every_scheme_and_granularity_runs),
        cmocka_unit_test(half_layers_keep_their_weights),
        cmocka_unit_test(batch_norm_changes_only_when_asked),
        cmocka_unit_test(other_families_gain_as_well),
        cmocka_unit_test(shared_parameters_stay),
        cmocka_unit_test(a_batch_norm_in_company_is_corrected),
        cmocka_unit_test(linear_layers_see_their_own_biases),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(memory_does_not_matter),
        cmocka_unit_test(synthesized_images_match_the_statistics),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
