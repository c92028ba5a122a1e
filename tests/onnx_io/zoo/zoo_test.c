/* The architectures against the parameter counts of the originals. */
#include "onnx_io/graph.h"
#include "onnx_io/zoo/zoo.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>

/* Elements of initializers without running statistics and scalars: what frameworks count. */
static int64_t count_parameters(const tn_model *model)
{
    const Onnx__GraphProto *graph = model->proto->graph;
    int64_t total = 0;
    for (size_t i = 0; i < graph->n_initializer; i++) {
        const Onnx__TensorProto *tensor = graph->initializer[i];
        int64_t count;
        if (tensor->data_type != TN_FLOAT || tensor->n_dims == 0 ||
            strstr(tensor->name, ".running_"))
            continue;
        assert_true(tn_dims_count((int)tensor->n_dims, tensor->dims, &count));
        total += count;
    }
    return total;
}

static tn_model *build(const char *id, const tn_zoo_options *options)
{
    tn_model *model = NULL;
    tn_error error = {.code = TN_OK};
    if (tn_zoo_create(id, options, &model, &error) != TN_OK)
        fail_msg("%s: %s", id, error.message);
    return model;
}

static void counts_equal_the_originals(void **state)
{
    /* torchvision's at 1,000 classes; the published ones of the others; resnet18b, resnet8 and the
     * CIFAR networks by the formula of their papers */
    static const struct {
        const char *id;
        int64_t classes, parameters;
    } rows[] = {
        {"alexnet", 1000, 61100840},      {"vgg16", 1000, 138357544},
        {"vgg16-bn", 1000, 138365992},    {"resnet18", 1000, 11689512},
        {"resnet34", 1000, 21797672},     {"resnet50", 1000, 25557032},
        {"squeezenet1.1", 1000, 1235496}, {"squeezenet-bn", 200, 827784},
        {"densenet121", 200, 7151176},    {"densenet-small", 200, 440264},
        {"resnet8", 10, 75290},           {"resnet20", 10, 269722},
        {"resnet32", 10, 464154},         {"resnet44", 10, 658586},
        {"resnet56", 10, 853018},         {"resnet110", 10, 1727962},
        {"resnet18b", 1000, 0},
    };
    const bool large = *state != NULL;
    size_t known = 0;
    while (tn_architecture_at(known))
        known++;
    assert_int_equal(known, sizeof rows / sizeof rows[0]);
    for (size_t i = 0; i < known; i++) {
        if ((rows[i].parameters > 30000000) != large)
            continue;
        tn_model *model = build(rows[i].id, &(tn_zoo_options){.classes = rows[i].classes});
        int64_t count = count_parameters(model);
        if (rows[i].parameters && count != rows[i].parameters)
            fail_msg("%s has %lld parameters, expected %lld", rows[i].id, (long long)count,
                     (long long)rows[i].parameters);
        tn_model_destroy(model);
    }
}

static const float *weights(const tn_model *model, const char *name, int64_t *count)
{
    const Onnx__GraphProto *graph = model->proto->graph;
    for (size_t i = 0; i < graph->n_initializer; i++) {
        tn_tensor tensor;
        if (strcmp(graph->initializer[i]->name, name) != 0)
            continue;
        assert_int_equal(tn_model_tensor(model, graph->initializer[i], &tensor, NULL), TN_OK);
        *count = tn_tensor_count(&tensor);
        return tensor.data;
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

static void weights_are_he_normal(void **state)
{
    (void)state;
    tn_model *model = build("resnet20", &(tn_zoo_options){.seed = 11});
    int64_t count;
    const float *w = weights(model, "layer3.2.conv2.weight", &count);
    double sum = 0, squares = 0, fourth = 0;
    for (int64_t i = 0; i < count; i++) {
        double x = (double)w[i];
        sum += x;
        squares += x * x;
        fourth += x * x * x * x;
    }
    double n = (double)count, variance = squares / n, expected = 2.0 / (64 * 9);
    /* four standard errors of mean, variance and kurtosis of n normal numbers */
    assert_true(fabs(sum / n) < 4 * sqrt(expected / n));
    assert_true(fabs(variance / expected - 1) < 4 * sqrt(2 / n));
    assert_true(fabs(fourth / n / (variance * variance) - 3) < 4 * sqrt(24 / n));
    tn_model_destroy(model);
}

static void seeds_differ_and_repeat(void **state)
{
    (void)state;
    int64_t count;
    tn_model *a = build("resnet8", &(tn_zoo_options){.seed = 1});
    tn_model *b = build("resnet8", &(tn_zoo_options){.seed = 1});
    tn_model *c = build("resnet8", &(tn_zoo_options){.seed = 2});
    const float *x = weights(a, "conv1.weight", &count), *y = weights(b, "conv1.weight", &count);
    assert_memory_equal(x, y, (size_t)count * sizeof *x);
    y = weights(c, "conv1.weight", &count);
    assert_memory_not_equal(x, y, (size_t)count * sizeof *x);
    tn_model_destroy(a);
    tn_model_destroy(b);
    tn_model_destroy(c);
}

static void sizes_too_small_are_refused(void **state)
{
    (void)state;
    tn_model *model = NULL;
    tn_error error = {.code = TN_OK};
    assert_int_equal(
        tn_zoo_create("vgg16", &(tn_zoo_options){.input = {3, 16, 16}}, &model, &error),
        TN_ERROR_USAGE);
    assert_non_null(strstr(error.message, "too small"));
    assert_null(model);
    memset(&error, 0, sizeof error);
    assert_int_equal(
        tn_zoo_create("resnet20", &(tn_zoo_options){.input = {3, -1, 32}}, &model, &error),
        TN_ERROR_USAGE);
    assert_int_equal(tn_zoo_create("resnet20", &(tn_zoo_options){.classes = -5}, &model, NULL),
                     TN_ERROR_USAGE);
}

/* Inferred shapes end at [batch, classes] for odd sizes too. */
static void shapes_follow_the_input(void **state)
{
    static const struct {
        const char *id;
        int64_t c, h, w;
    } rows[] = {
        {"alexnet", 3, 64, 64},        {"alexnet", 3, 300, 260},     {"vgg16", 1, 48, 64},
        {"resnet18", 4, 65, 47},       {"resnet50", 3, 33, 33},      {"resnet20", 1, 28, 28},
        {"resnet20", 3, 31, 33},       {"densenet121", 3, 56, 56},   {"densenet121", 3, 130, 120},
        {"densenet-small", 3, 32, 32}, {"squeezenet1.1", 3, 96, 80}, {"squeezenet-bn", 3, 64, 40},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        tn_zoo_options options = {.classes = 7, .input = {rows[i].c, rows[i].h, rows[i].w}};
        tn_model *model = build(rows[i].id, &options);
        tn_graph *graph = NULL;
        tn_error error = {.code = TN_OK};
        if (tn_graph_create(model, &(tn_graph_options){.batch = 2}, &graph, &error) != TN_OK)
            fail_msg("%s: %s", rows[i].id, error.message);
        const tn_value *output = graph->outputs[0];
        assert_string_equal(output->name, "logits");
        if (output->rank != TN_RANK_UNKNOWN) {
            assert_int_equal(output->rank, 2);
            assert_int_equal(output->dims[0], 2);
            assert_int_equal(output->dims[1], 7);
        }
        tn_graph_destroy(graph);
        tn_model_destroy(model);
    }
}

/* zoo_test [large]: with an argument, the networks of hundreds of megabytes */
int main(int argc, char **argv)
{
    static bool yes = true;
    const struct CMUnitTest large[] = {
        cmocka_unit_test_prestate(counts_equal_the_originals, &yes),
    };
    (void)argv;
    if (argc > 1)
        return cmocka_run_group_tests(large, NULL, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_equal_the_originals), cmocka_unit_test(weights_are_he_normal),
        cmocka_unit_test(seeds_differ_and_repeat),    cmocka_unit_test(sizes_too_small_are_refused),
        cmocka_unit_test(shapes_follow_the_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
