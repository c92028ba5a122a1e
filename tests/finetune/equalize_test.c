/* Equalization: the float network computes what it did, a wrong scale does not pass for it, weights
 * quantized with one scale per tensor come out nearer, and values with other users stay alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "converter/convert.h"
#include "converter/equalize.h"
#include "core/memory.h"
#include "core/random.h"
#include "onnx_io/edit.h"
#include "onnx_io/substitute.h"
#include "tests/finetune/network_output.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BATCH = 4, SIZE = 6, OUTPUTS = BATCH * 5 * SIZE * SIZE };

static tn_random noise;

static void constant(tn_model *model, const char *name, int rank, const int64_t *dims, double mean,
                     double spread)
{
    float data[1024];
    int64_t count;
    assert_true(tn_dims_count(rank, dims, &count) && count <= 1024);
    for (int64_t i = 0; i < count; i++)
        data[i] = (float)(mean + spread * (double)tn_random_normal(&noise));
    assert_non_null(tn_edit_add_initializer(model, name, TN_FLOAT, rank, dims, data,
                                            (size_t)count * sizeof data[0], true));
}

/* Output channels, and input channels where there are several, differ by orders of magnitude. */
static void uneven_weight(tn_model *model, const char *name, const int64_t *dims)
{
    float data[1024], column[64];
    int64_t run = dims[1] * dims[2] * dims[3], kernel = dims[2] * dims[3];
    assert_true(dims[0] * run <= 1024);
    for (int64_t c = 0; c < dims[1]; c++)
        column[c] = expf(1.2f * tn_random_normal(&noise));
    for (int64_t r = 0; r < dims[0]; r++) {
        float row = expf(1.2f * tn_random_normal(&noise));
        for (int64_t i = 0; i < run; i++)
            data[r * run + i] = row * column[i / kernel] * tn_random_normal(&noise);
    }
    assert_non_null(tn_edit_add_initializer(model, name, TN_FLOAT, 4, dims, data,
                                            (size_t)(dims[0] * run) * sizeof data[0], true));
}

static Onnx__NodeProto *add(tn_model *model, const char *type, const char *const *inputs,
                            const char *output)
{
    const char *outputs[] = {output, NULL};
    Onnx__NodeProto *node = tn_edit_add_node(model, SIZE_MAX, type, output, inputs, outputs);
    assert_non_null(node);
    return node;
}
#define INPUTS(...)                                                                                \
    (const char *const[])                                                                          \
    {                                                                                              \
        __VA_ARGS__, NULL                                                                          \
    }

static void conv(tn_model *model, const char *input, const char *output, const int64_t *dims,
                 int64_t group, const char *bias)
{
    char name[32];
    (void)snprintf(name, sizeof name, "%s_w", output);
    uneven_weight(model, name, dims);
    if (bias)
        constant(model, bias, 1, dims, 0.1, 2);
    Onnx__NodeProto *node =
        add(model, "Conv", bias ? INPUTS(input, name, bias) : INPUTS(input, name), output);
    int64_t pad = dims[2] / 2;
    assert_int_equal(tn_edit_set_int(model, node, "group", group, NULL), TN_OK);
    assert_int_equal(
        tn_edit_set_ints(model, node, "pads", (const int64_t[]){pad, pad, pad, pad}, 4, NULL),
        TN_OK);
}

static void batch_norm(tn_model *model, const char *input, const char *output, int64_t channels)
{
    static const char *const part[] = {"scale", "shift", "mean", "var"};
    static const double middle[] = {1, 0.2, 0.1, 100}, spread[] = {0.5, 0.3, 0.3, 5};
    char name[4][32];
    for (int i = 0; i < 4; i++) {
        (void)snprintf(name[i], sizeof name[i], "%s_%s", output, part[i]);
        constant(model, name[i], 1, &channels, middle[i], spread[i]);
    }
    add(model, "BatchNormalization", INPUTS(input, name[0], name[1], name[2], name[3]), output);
}

/* x -> stem (kept) -> BN -> Relu -> dw (depthwise) -> BN -> Clip -> pw (bias) -> LeakyRelu -> wide
 * -> PRelu -> grouped (2 groups, bias) -> last (kept) -> y. `tap`: LeakyRelu's output is an output
 * too.
 */
static tn_model *build(uint64_t seed, bool tap)
{
    tn_model *model;
    noise = tn_random_make(seed, TN_PURPOSE_TEST, 0, 7);
    assert_int_equal(tn_model_create("net", 8, 13, &model, NULL), TN_OK);
    assert_int_equal(
        tn_edit_add_input(model, "x", TN_FLOAT, 4, (const int64_t[]){BATCH, 3, SIZE, SIZE}, NULL),
        TN_OK);
    assert_int_equal(
        tn_edit_add_output(model, "y", TN_FLOAT, 4, (const int64_t[]){BATCH, 5, SIZE, SIZE}, NULL),
        TN_OK);
    conv(model, "x", "stem", (const int64_t[]){8, 3, 3, 3}, 1, NULL);
    batch_norm(model, "stem", "stem_bn", 8);
    add(model, "Relu", INPUTS("stem_bn"), "stem_act");
    conv(model, "stem_act", "dw", (const int64_t[]){8, 1, 3, 3}, 8, "dw_b");
    batch_norm(model, "dw", "dw_bn", 8);
    constant(model, "six", 0, NULL, 6, 0);
    constant(model, "none", 0, NULL, 0, 0);
    add(model, "Clip", INPUTS("dw_bn", "none", "six"), "dw_act");
    conv(model, "dw_act", "pw", (const int64_t[]){6, 8, 1, 1}, 1, "pw_b");
    add(model, "LeakyRelu", INPUTS("pw"), "pw_act");
    conv(model, "pw_act", "wide", (const int64_t[]){8, 6, 1, 1}, 1, NULL);
    constant(model, "slope", 3, (const int64_t[]){8, 1, 1}, 0.25, 0.1);
    add(model, "PRelu", INPUTS("wide", "slope"), "wide_act");
    conv(model, "wide_act", "grouped", (const int64_t[]){8, 4, 3, 3}, 2, "grouped_b");
    conv(model, "grouped", "y", (const int64_t[]){5, 8, 1, 1}, 1, NULL);
    if (tap)
        assert_int_equal(tn_edit_add_output(model, "stem_act", TN_FLOAT, 4,
                                            (const int64_t[]){BATCH, 8, SIZE, SIZE}, NULL),
                         TN_OK);
    return model;
}

static void run(const tn_model *model, float *output)
{
    static float images[BATCH * 3 * SIZE * SIZE];
    noise = tn_random_make(5, TN_PURPOSE_TEST, 0, 9);
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++)
        images[i] = tn_random_normal(&noise);
    network_output(model, images, BATCH, output);
}

static tn_equalized equalize(tn_model *model, const char *granularity, tn_equalize_when when)
{
    const tn_policy policy = {.scheme = "fixed", .bits = "6", .granularity = granularity};
    tn_graph *graph = NULL;
    tn_layers layers;
    tn_equalized done;
    tn_error error = {0};
    assert_int_equal(tn_graph_create(model, NULL, &graph, &error), TN_OK);
    assert_int_equal(tn_layers_select(graph, &policy, &layers, &error), TN_OK);
    if (tn_equalize(model, graph, &layers, when, &done, &error) != TN_OK)
        fail_msg("%s", error.message);
    tn_graph_destroy(graph);
    return done;
}

/* What the network gives with its weights rounded. */
static double rounding_error(const tn_model *model, const char *granularity, const float *wanted)
{
    const tn_policy policy = {.scheme = "fixed", .bits = "6", .granularity = granularity};
    tn_graph *graph = NULL;
    tn_layers layers;
    tn_conversion conversion;
    tn_model *copy = NULL;
    static float values[1024], got[OUTPUTS];
    assert_int_equal(tn_model_copy(model, &copy, NULL), TN_OK);
    assert_int_equal(tn_graph_create(model, NULL, &graph, NULL), TN_OK);
    assert_int_equal(tn_layers_select(graph, &policy, &layers, NULL), TN_OK);
    assert_int_equal(tn_convert(&layers, NULL, &conversion, NULL), TN_OK);
    for (size_t i = 0; i < conversion.count; i++) {
        const tn_value *weight = conversion.item[i].layer->weight;
        tn_qweight_dequantize(&conversion.item[i].weight, values);
        assert_int_equal(tn_substitute_values(copy, weight->name, TN_FLOAT, weight->rank,
                                              weight->dims, values, NULL),
                         TN_OK);
    }
    run(copy, got);
    tn_conversion_done(&conversion);
    tn_graph_destroy(graph);
    tn_model_destroy(copy);
    return output_distance(got, wanted, OUTPUTS);
}

static void the_function_stays_and_rounding_costs_less(void **state)
{
    (void)state;
    static float wanted[OUTPUTS], got[OUTPUTS];
    double product[2] = {1, 1};
    for (uint64_t seed = 1; seed <= 5; seed++) {
        tn_model *model = build(seed, false);
        run(model, wanted);
        double before = rounding_error(model, "tensor", wanted);
        tn_equalized done = equalize(model, "tensor", TN_EQUALIZE_AUTO);
        assert_int_equal(done.rows, 1);    /* dw; the stem is kept */
        assert_int_equal(done.links, 3);   /* into dw, wide, grouped; the last layer is kept */
        assert_int_equal(done.clipped, 1); /* into pw */
        run(model, got);
        double after = rounding_error(model, "tensor", wanted);
        print_message("seed %d: function %.1e, 6 bits per tensor %.3f -> %.3f\n", (int)seed,
                      output_distance(got, wanted, OUTPUTS), before, after);
        assert_true(memcmp(got, wanted, sizeof got) != 0);
        assert_true(output_distance(got, wanted, OUTPUTS) < 1e-5);
        product[0] *= before;
        product[1] *= after;
        tn_model_destroy(model);
    }
    assert_true(pow(product[1], 0.2) < 0.7 * pow(product[0], 0.2));
}

static void per_channel_only_when_asked(void **state)
{
    (void)state;
    static float wanted[OUTPUTS], got[OUTPUTS];
    tn_model *model = build(11, false);
    run(model, wanted);
    tn_equalized done = equalize(model, "channel", TN_EQUALIZE_AUTO);
    assert_int_equal(done.rows + done.links, 0);
    done = equalize(model, "tensor", TN_EQUALIZE_NEVER);
    assert_int_equal(done.rows + done.links, 0);
    run(model, got);
    assert_memory_equal(got, wanted, sizeof got);
    done = equalize(model, "channel", TN_EQUALIZE_ALWAYS);
    assert_int_equal(done.rows, 0);
    assert_int_equal(done.links, 2); /* a depthwise row has its own scale */
    run(model, got);
    assert_true(output_distance(got, wanted, OUTPUTS) < 1e-5);
    tn_model_destroy(model);
}

/* The network with one of its changed constants as it was before is another network. */
static void check_wrong_scales(bool tap, const char *const *changed)
{
    static float wanted[OUTPUTS], got[OUTPUTS], values[1024];
    tn_model *before = build(3, tap), *model = build(3, tap);
    tn_graph *graph = NULL;
    run(before, wanted);
    (void)equalize(model, "tensor", TN_EQUALIZE_AUTO);
    assert_int_equal(tn_graph_create(before, NULL, &graph, NULL), TN_OK);
    for (size_t i = 0; changed[i]; i++) {
        tn_model *wrong = NULL;
        const tn_tensor *old = tn_graph_value(graph, changed[i])->constant;
        assert_int_equal(tn_model_copy(model, &wrong, NULL), TN_OK);
        assert_int_equal(tn_tensor_read_float(old, 0, tn_tensor_count(old), values, NULL), TN_OK);
        assert_int_equal(
            tn_substitute_values(wrong, changed[i], TN_FLOAT, old->rank, old->dims, values, NULL),
            TN_OK);
        run(wrong, got);
        if (!(output_distance(got, wanted, OUTPUTS) > 1e-4))
            fail_msg("%s as it was: %.1e apart", changed[i], output_distance(got, wanted, OUTPUTS));
        tn_model_destroy(wrong);
    }
    tn_graph_destroy(graph);
    tn_model_destroy(model);
    tn_model_destroy(before);
}

/* With the link into dw its rows are even already; without, its BN takes them. */
static void a_wrong_scale_shows(void **state)
{
    (void)state;
    static const char *const links[] = {"stem_bn_scale", "stem_bn_shift", "dw_w",      "pw_w",
                                        "pw_b",          "wide_w",        "grouped_w", NULL};
    static const char *const rows[] = {"dw_w", "dw_b", "dw_bn_mean", "dw_bn_scale", NULL};
    check_wrong_scales(false, links);
    check_wrong_scales(true, rows);
}

static void values_with_other_users_stay(void **state)
{
    (void)state;
    static float wanted[OUTPUTS], got[OUTPUTS];
    tn_model *model = build(4, true);
    run(model, wanted);
    tn_equalized done = equalize(model, "tensor", TN_EQUALIZE_AUTO);
    assert_int_equal(done.links, 2); /* dw's is out */
    assert_int_equal(done.rows, 1);
    run(model, got);
    assert_true(output_distance(got, wanted, OUTPUTS) < 1e-5);
    tn_model_destroy(model);
}

static void names(void **state)
{
    (void)state;
    tn_equalize_when when;
    tn_error error = {0};
    assert_int_equal(tn_equalize_parse(NULL, &when, &error), TN_OK);
    assert_int_equal(when, TN_EQUALIZE_NEVER); /* BatchNormalization stays unless asked */
    assert_int_equal(tn_equalize_parse("always", &when, &error), TN_OK);
    assert_int_equal(when, TN_EQUALIZE_ALWAYS);
    assert_int_equal(tn_equalize_parse("sometimes", &when, &error), TN_ERROR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_function_stays_and_rounding_costs_less),
        cmocka_unit_test(per_channel_only_when_asked),
        cmocka_unit_test(a_wrong_scale_shows),
        cmocka_unit_test(values_with_other_users_stay),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
