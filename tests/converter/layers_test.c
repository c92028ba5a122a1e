/* Which layers are chosen, how their weights are read, and what the messages say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net.h"

#include "converter/layers.h"

#include <string.h>

static const tn_layer *find(const tn_layers *layers, const char *weight)
{
    for (size_t i = 0; i < layers->count; i++)
        if (strcmp(layers->layer[i].weight->name, weight) == 0)
            return &layers->layer[i];
    fail_msg("no layer with weight %s", weight);
    return NULL;
}

static void select_ok(net *n, const tn_policy *policy, tn_layers *layers)
{
    tn_error error = {0};
    if (tn_layers_select(n->graph, policy, layers, &error) != TN_OK)
        fail_msg("%s", error.message);
}

static void select_fails(net *n, const tn_policy *policy, const char *part)
{
    tn_error error = {0};
    tn_layers layers = {0};
    tn_status status = tn_layers_select(n->graph, policy, &layers, &error);
    if (status != TN_ERROR_USAGE || strstr(error.message, part) == NULL)
        fail_msg("status %d, message \"%s\", expected \"%s\"", (int)status, error.message, part);
    assert_true(layers.count == 0 && layers.layer == NULL);
}

static void defaults(void **state)
{
    (void)state;
    net n;
    tn_layers layers;
    net_build(&n, 1);
    select_ok(&n, NULL, &layers);
    assert_int_equal(layers.count, 7);
    const tn_layer *stem = find(&layers, "stem_w"), *fc2 = find(&layers, "fc2_w");
    assert_true(stem->first && !stem->last && !stem->quantized);
    assert_string_equal(stem->reason, "first layer");
    /* fc4 is last and shares its weight with fc2: kept */
    assert_true(fc2->n_users == 2 && fc2->last && !fc2->quantized);
    assert_string_equal(fc2->reason, "last layer");
    static const char *const inner[] = {"depthwise_w", "middle_w", "up_w", "fc1_w", "fc3_w"};
    for (int i = 0; i < 5; i++) {
        const tn_layer *layer = find(&layers, inner[i]);
        assert_true(layer->quantized && !layer->first && !layer->last);
        assert_string_equal(layer->scheme.quantizer->id, "twn");
        assert_int_equal(layer->scheme.granularity, TN_PER_CHANNEL);
        assert_int_equal(layer->scheme.threshold, TN_THRESHOLD_OPTIMAL);
    }
    net_done(&n);
}

static void axes(void **state)
{
    (void)state;
    static const struct {
        const char *weight;
        int axis;
        int64_t rows, cols, groups;
        bool transpose, linear;
    } wanted[] = {{"stem_w", 0, 8, 27, 1, false, false}, {"depthwise_w", 0, 8, 9, 8, false, false},
                  {"up_w", 1, 4, 24, 1, false, false},   {"fc1_w", 1, 10, 64, 1, true, true},
                  {"fc2_w", 0, 10, 10, 1, false, true},  {"fc3_w", 1, 10, 10, 1, true, true},
                  {"middle_w", 0, 6, 8, 1, false, false}};
    net n;
    tn_layers layers;
    net_build(&n, 1);
    select_ok(&n, NULL, &layers);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        const tn_layer *layer = find(&layers, wanted[i].weight);
        assert_int_equal(layer->axis, wanted[i].axis);
        assert_int_equal(layer->rows, wanted[i].rows);
        assert_int_equal(layer->cols, wanted[i].cols);
        assert_int_equal(layer->groups, wanted[i].groups);
        assert_int_equal(layer->transpose, wanted[i].transpose);
        assert_int_equal(layer->is_linear, wanted[i].linear);
        float rows[1024], expected[1024], some[64];
        const tn_tensor *tensor = layer->weight->constant;
        assert_int_equal(tn_layer_rows(layer, rows, NULL), TN_OK);
        float layout[1024];
        assert_int_equal(tn_tensor_read_float(tensor, 0, layer->rows * layer->cols, layout, NULL),
                         TN_OK);
        tn_rows_from_layout(layout, tensor->rank, tensor->dims, layer->axis, expected);
        size_t bytes = (size_t)(layer->rows * layer->cols) * sizeof rows[0];
        assert_memory_equal(rows, expected, bytes);
        tn_rows_to_layout(rows, tensor->rank, tensor->dims, layer->axis, expected);
        assert_memory_equal(layout, expected, bytes);
        assert_int_equal(tn_layer_read_rows(layer, 2, 1, some, NULL), TN_OK);
        assert_memory_equal(some, rows + 2 * layer->cols, (size_t)layer->cols * sizeof some[0]);
    }
    net_done(&n);
}

static void widths(void **state)
{
    (void)state;
    net n;
    tn_layers layers;
    net_build(&n, 1);
    tn_policy policy = {.conv_bits = "4",
                        .linear_bits = "8",
                        .first_layer = "8",
                        .last_layer = "3",
                        .granularity = "tensor"};
    select_ok(&n, &policy, &layers);
    const tn_layer *middle = find(&layers, "middle_w");
    assert_string_equal(middle->scheme.quantizer->id, "fixed");
    assert_true(middle->scheme.bits == 4 && middle->scheme.low == -8 && middle->scheme.high == 7);
    assert_int_equal(middle->scheme.granularity, TN_PER_TENSOR);
    assert_int_equal(find(&layers, "stem_w")->scheme.bits, 8);
    assert_int_equal(find(&layers, "fc1_w")->scheme.bits, 8);
    assert_int_equal(find(&layers, "fc2_w")->scheme.bits, 3);
    policy = (tn_policy){.scheme = "fixed", .bits = "4", .narrow = true};
    select_ok(&n, &policy, &layers);
    assert_int_equal(find(&layers, "middle_w")->scheme.low, -7);
    policy = (tn_policy){.scheme = "fixed", .levels = "-5:9"};
    select_ok(&n, &policy, &layers);
    middle = find(&layers, "middle_w");
    assert_true(middle->scheme.low == -5 && middle->scheme.high == 9 && middle->scheme.bits == 5);
    policy = (tn_policy){.bits = "2"};
    select_ok(&n, &policy, &layers);
    middle = find(&layers, "middle_w");
    assert_true(!middle->scheme.ternary && middle->scheme.low == -2 && middle->scheme.high == 1);
    assert_string_equal(middle->scheme.quantizer->id, "fixed");
    policy = (tn_policy){.scheme = "half"};
    select_ok(&n, &policy, &layers);
    assert_true(find(&layers, "middle_w")->quantized);
    policy = (tn_policy){.scheme = "float"};
    select_ok(&n, &policy, &layers);
    assert_false(find(&layers, "middle_w")->quantized);
    net_done(&n);
}

static void rules(void **state)
{
    (void)state;
    net n;
    tn_layers layers;
    net_build(&n, 1);
    static const char *const list[] = {"^fc=8",          "fc3_out=ttq",       "stem=twn",
                                       "fc[24]=fixed:5", "depth|middle=keep", "middle_w=affine"};
    static const char *const excluded[] = {"up_w"};
    tn_policy policy = {
        .layer_rules = list, .n_layer_rules = 6, .excluded = excluded, .n_excluded = 1};
    select_ok(&n, &policy, &layers);
    assert_int_equal(find(&layers, "fc1_w")->scheme.bits, 8);
    assert_string_equal(find(&layers, "fc3_w")->scheme.quantizer->id, "ttq");
    assert_string_equal(find(&layers, "stem_w")->scheme.quantizer->id, "twn");
    assert_true(find(&layers, "stem_w")->quantized);
    assert_int_equal(find(&layers, "fc2_w")->scheme.bits, 5);
    assert_false(find(&layers, "depthwise_w")->quantized);
    assert_string_equal(find(&layers, "depthwise_w")->reason, "--layer depth|middle=keep");
    assert_string_equal(find(&layers, "middle_w")->scheme.quantizer->id, "affine");
    assert_false(find(&layers, "up_w")->quantized);
    assert_string_equal(find(&layers, "up_w")->reason, "excluded");
    net_done(&n);
}

static void errors(void **state)
{
    (void)state;
    net n;
    net_build(&n, 1);
    static const char *const unknown[] = {"midle=4"}, *const broken[] = {"a(=4"};
    static const char *const no_choice[] = {"stem"}, *const bad_choice[] = {"stem=9"};
    static const char *const wrong_scheme[] = {"stem=tqq"}, *const all[] = {"."};
    select_fails(&n, &(tn_policy){.layer_rules = unknown, .n_layer_rules = 1},
                 "matches no layer; did you mean 'middle'?; the layers are: 'stem'");
    select_fails(&n, &(tn_policy){.excluded = unknown, .n_excluded = 1}, "matches no layer");
    select_fails(&n, &(tn_policy){.layer_rules = broken, .n_layer_rules = 1},
                 "no regular expression");
    select_fails(&n, &(tn_policy){.layer_rules = no_choice, .n_layer_rules = 1}, "is no rule");
    select_fails(&n, &(tn_policy){.layer_rules = bad_choice, .n_layer_rules = 1}, "no width");
    select_fails(&n, &(tn_policy){.layer_rules = wrong_scheme, .n_layer_rules = 1},
                 "did you mean 'ttq'?");
    select_fails(&n, &(tn_policy){.excluded = all, .n_excluded = 1}, "nothing would be quantized");
    select_fails(&n, &(tn_policy){.scheme = "twn", .bits = "4"}, "ternary");
    select_fails(&n, &(tn_policy){.scheme = "ttq", .bits = "2"}, "ternary");
    select_fails(&n, &(tn_policy){.scheme = "nothing"}, "there is no scheme");
    select_fails(&n, &(tn_policy){.bits = "9"}, "no width");
    select_fails(&n, &(tn_policy){.bits = "four"}, "no width");
    select_fails(&n, &(tn_policy){.granularity = "group:0"}, "--granularity");
    select_fails(&n, &(tn_policy){.granularity = "group:"}, "--granularity");
    select_fails(&n, &(tn_policy){.granularity = "row"}, "--granularity");
    select_fails(&n, &(tn_policy){.threshold = "mean"}, "--threshold");
    select_fails(&n, &(tn_policy){.threshold = "max:2"}, "--threshold");
    select_fails(&n, &(tn_policy){.threshold = "sparsity:nan"}, "--threshold");
    select_fails(&n, &(tn_policy){.levels = "3:1"}, "--levels");
    select_fails(&n, &(tn_policy){.scheme = "fixed", .levels = "1:3"}, "hold 0");
    select_fails(&n, &(tn_policy){.levels = "0:99999"}, "--levels");
    select_fails(&n, &(tn_policy){.scheme = "dorefa", .levels = "-2:1"}, "dorefa");
    select_fails(&n, &(tn_policy){.conv_bits = "x"}, "--conv-bits");
    net_done(&n);
}

static void grouped_transpose_needs_tensor(void **state)
{
    (void)state;
    net n;
    tn_layers layers;
    net_build(&n, 1);
    Onnx__GraphProto *graph = n.model->proto->graph;
    for (size_t i = 0; i < graph->n_node; i++)
        if (strcmp(graph->node[i]->op_type, "ConvTranspose") == 0)
            assert_int_equal(tn_edit_set_int(n.model, graph->node[i], "group", 2, NULL), TN_OK);
    for (size_t i = 0; i < graph->n_initializer; i++) { /* 2 x 2 channels instead of 4 */
        Onnx__TensorProto *tensor = graph->initializer[i];
        if (strcmp(tensor->name, "up_w") == 0) {
            tensor->dims[1] = 2;
            tensor->raw_data.len /= 2;
        }
    }
    net_relink(&n);
    select_fails(&n, NULL, "ConvTranspose with group 2");
    select_ok(&n, &(tn_policy){.granularity = "tensor"}, &layers);
    assert_true(find(&layers, "up_w")->quantized);
    net_done(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults), cmocka_unit_test(axes),
        cmocka_unit_test(widths),   cmocka_unit_test(rules),
        cmocka_unit_test(errors),   cmocka_unit_test(grouped_transpose_needs_tensor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
