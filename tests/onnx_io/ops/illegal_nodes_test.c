/* Nodes that shape inference must refuse, folding that must stay within its budget, and what
 * options do: models built in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "onnx_io/edit.h"
#include "onnx_io/infer.h"
#include "onnx_io/opset.h"
#include "onnx_io/ops/op.h"

#include <stdio.h>
#include <string.h>

/* A model of one node over graph inputs and initializers. */
typedef struct fixture {
    tn_model *model;
    Onnx__NodeProto *node;
} fixture;

static fixture begin(int64_t opset)
{
    fixture f = {NULL, NULL};
    assert_int_equal(tn_model_create("test", 8, opset, &f.model, NULL), TN_OK);
    return f;
}

static void add_input(fixture *f, const char *name, int rank, const int64_t *dims)
{
    assert_int_equal(tn_edit_add_input(f->model, name, TN_FLOAT, rank, dims, NULL), TN_OK);
}

static void add_ints(fixture *f, const char *name, int64_t count, const int64_t *values)
{
    assert_non_null(tn_edit_add_initializer(f->model, name, TN_INT64, 1, &count, values,
                                            (size_t)count * sizeof *values, true));
}

static void add_node(fixture *f, const char *type, const char *const *inputs)
{
    const char *outputs[] = {"y", NULL};
    f->node = tn_edit_add_node(f->model, SIZE_MAX, type, "n", inputs, outputs);
    assert_non_null(f->node);
}

static void set_ints(fixture *f, const char *name, const int64_t *values, size_t count)
{
    assert_int_equal(tn_edit_set_ints(f->model, f->node, name, values, count, NULL), TN_OK);
}

static void set_int(fixture *f, const char *name, int64_t value)
{
    assert_int_equal(tn_edit_set_int(f->model, f->node, name, value, NULL), TN_OK);
}

/* Builds the graph, which must fail as MODEL, naming the node and saying `text`. */
static void refused(fixture *f, const char *text)
{
    tn_graph *graph = NULL;
    tn_error error = {0};
    assert_int_equal(tn_graph_create(f->model, NULL, &graph, &error), TN_ERROR_MODEL);
    if (!strstr(error.message, text))
        fail_msg("message \"%s\" does not say \"%s\"", error.message, text);
    assert_non_null(strstr(error.message, "'n'"));
    assert_string_equal(error.node, "n");
    assert_null(graph);
    tn_model_destroy(f->model);
}

static tn_graph *accepted(fixture *f, const tn_graph_options *options)
{
    tn_graph *graph = NULL;
    tn_error error = {0};
    if (tn_graph_create(f->model, options, &graph, &error) != TN_OK)
        fail_msg("%s", error.message);
    return graph;
}

static void assert_dims(const tn_graph *graph, const char *name, int rank, const int64_t *dims)
{
    const tn_value *value = tn_graph_value(graph, name);
    assert_non_null(value);
    assert_int_equal(value->rank, rank);
    for (int i = 0; i < rank; i++)
        assert_int_equal(value->dims[i], dims[i]);
}

static fixture convolution(const int64_t *data, int data_rank, const int64_t *weight,
                           int weight_rank)
{
    fixture f = begin(13);
    const char *inputs[] = {"x", "w", NULL};
    add_input(&f, "x", data_rank, data);
    add_input(&f, "w", weight_rank, weight);
    add_node(&f, "Conv", inputs);
    return f;
}

static const int64_t image[] = {1, 4, 8, 8}, kernel[] = {6, 4, 3, 3};

static void convolutions_with_broken_attributes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t count;
        int64_t values[6];
        const char *text;
    } lists[] = {
        {"strides", 2, {0, 1}, "strides has value 0"},
        {"strides", 2, {INT64_MIN, 1}, "strides has value"},
        {"strides", 1, {1}, "strides has 1 values"},
        {"strides", 3, {1, 1, 1}, "strides has 3 values"},
        {"dilations", 2, {-1, 1}, "dilations has value -1"},
        {"dilations", 2, {INT64_MAX, 1}, "dilations has value"},
        {"dilations", 2, {INT32_MAX, 1}, "does not fit"},
        {"pads", 3, {0, 0, 0}, "pads has 3 values"},
        {"pads", 4, {0, 0, -1, 0}, "pads has value -1"},
        {"pads", 4, {INT64_MIN, 0, 0, 0}, "pads has value"},
        {"kernel_shape", 2, {3, 2}, "kernel_shape has 2"},
        {"kernel_shape", 1, {3}, "kernel_shape has 1 values"},
    };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        fixture f = convolution(image, 4, kernel, 4);
        set_ints(&f, lists[i].name, lists[i].values, lists[i].count);
        refused(&f, lists[i].text);
    }
    static const struct {
        int64_t group;
        const char *text;
    } groups[] = {{0, "group is 0"},
                  {-2, "group is -2"},
                  {INT64_MIN, "group is"},
                  {4, "does not divide"},
                  {2, "expects 8"}};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        fixture f = convolution(image, 4, kernel, 4);
        set_int(&f, "group", groups[i].group);
        refused(&f, groups[i].text);
    }
}

static void convolutions_with_broken_shapes(void **state)
{
    (void)state;
    const int64_t flat[] = {6, 4, 3}, wide[] = {6, 4, 9, 9}, none[] = {6, 4, 0, 3};
    fixture f = convolution(image, 4, flat, 3);
    refused(&f, "rank 3, the input 4");
    f = convolution(image, 4, wide, 4);
    refused(&f, "does not fit");
    f = convolution(image, 4, none, 4);
    refused(&f, "kernel has size 0");
    f = convolution(image, 2, kernel, 2);
    refused(&f, "rank 2");
    f = convolution(image, 4, kernel, 4);
    assert_int_equal(tn_edit_set_string(f.model, f.node, "auto_pad", "SAME", NULL), TN_OK);
    refused(&f, "auto_pad");
}

static void pooling_and_others(void **state)
{
    (void)state;
    const char *one[] = {"x", NULL}, *two[] = {"x", "w", NULL};
    const int64_t three[] = {3, 3}, low[] = {INT64_MIN, 0}, twice[] = {1, 1}, pads[] = {3, 0, 0, 0};
    fixture f = begin(13);
    add_input(&f, "x", 4, image);
    add_node(&f, "MaxPool", one);
    refused(&f, "kernel_shape is missing");
    f = begin(13);
    add_input(&f, "x", 4, image);
    add_node(&f, "AveragePool", one);
    set_ints(&f, "kernel_shape", three, 2);
    set_ints(&f, "pads", pads, 4);
    refused(&f, "padding");
    f = begin(13);
    add_input(&f, "x", 4, image);
    add_node(&f, "Transpose", one);
    set_ints(&f, "perm", low, 2);
    refused(&f, "perm has 2 values");
    f = begin(13);
    add_input(&f, "x", 2, image);
    add_node(&f, "Transpose", one);
    set_ints(&f, "perm", twice, 2);
    refused(&f, "given twice");
    f = begin(13);
    add_input(&f, "x", 2, image);
    add_node(&f, "Concat", one);
    set_int(&f, "axis", INT64_MIN);
    refused(&f, "outside a tensor");
    f = begin(13);
    add_input(&f, "x", 2, image);
    add_input(&f, "w", 2, three);
    add_node(&f, "Gemm", two);
    refused(&f, "inner dimensions 4 and 3");
    f = begin(13);
    add_input(&f, "x", 2, image);
    add_input(&f, "w", 2, three);
    add_node(&f, "Add", two);
    refused(&f, "do not broadcast");
    f = begin(13);
    add_input(&f, "x", 2, image);
    add_node(&f, "Add", one);
    refused(&f, "1 inputs: 2 to 2 expected");
}

static void sizes_from_constants(void **state)
{
    (void)state;
    const char *one[] = {"s", NULL}, *two[] = {"x", "s", NULL},
               *slice[] = {"x", "s", "s", "s", "s", NULL};
    const int64_t huge[] = {INT64_C(1) << 40, INT64_C(1) << 40}, negative[] = {-5},
                  two_rests[] = {-1, -1};
    const int64_t zero[] = {0}, wrong[] = {5, 7};
    fixture f = begin(13);
    add_ints(&f, "s", 2, huge);
    add_node(&f, "ConstantOfShape", one);
    refused(&f, "2^63");
    f = begin(13);
    add_ints(&f, "s", 1, negative);
    add_node(&f, "ConstantOfShape", one);
    refused(&f, "-5");
    const struct {
        const char *type;
        const int64_t *values;
        int64_t count;
        const char *text;
    } cases[] = {{"Reshape", two_rests, 2, "-1 twice"},
                 {"Reshape", negative, 1, "-5"},
                 {"Reshape", wrong, 2, "256 elements, the shape 35"},
                 {"Reshape", huge, 2, "holds"},
                 {"Expand", negative, 1, "-5"},
                 {"Tile", wrong, 2, "2 repeats"},
                 {"Squeeze", negative, 1, "outside a tensor"},
                 {"Squeeze", two_rests, 2, "given twice"},
                 {"Unsqueeze", two_rests, 2, "given twice"},
                 {"Pad", wrong, 2, "2 pads are given"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        f = begin(13);
        add_input(&f, "x", 4, image);
        add_ints(&f, "s", cases[i].count, cases[i].values);
        add_node(&f, cases[i].type, two);
        refused(&f, cases[i].text);
    }
    f = begin(13);
    add_input(&f, "x", 4, image);
    add_ints(&f, "s", 1, zero);
    add_node(&f, "Slice", slice);
    refused(&f, "a step is 0");
}

/* What would exceed the budget keeps its shape and stays unfolded; the next op does too. */
static void folding_stays_within_its_budget(void **state)
{
    (void)state;
    const char *shape_in[] = {"s", NULL}, *shape_out[] = {"big", NULL};
    const char *next_in[] = {"big", NULL}, *next_out[] = {"y", NULL};
    const int64_t dims[] = {1 << 20, 1 << 12};
    fixture f = begin(13);
    add_ints(&f, "s", 2, dims);
    assert_non_null(
        tn_edit_add_node(f.model, SIZE_MAX, "ConstantOfShape", "a", shape_in, shape_out));
    assert_non_null(tn_edit_add_node(f.model, SIZE_MAX, "Neg", "b", next_in, next_out));
    tn_memory_stats before = tn_memory_stats_get();
    tn_graph *graph = accepted(&f, NULL);
    assert_dims(graph, "y", 2, dims);
    assert_null(tn_graph_value(graph, "big")->constant);
    assert_false(graph->nodes[0]->folded);
    assert_true(tn_memory_stats_get().live - before.live < 1 << 20);
    tn_graph_destroy(graph);
    tn_model_destroy(f.model);
}

static void fold_limit_counts_all_nodes(void **state)
{
    (void)state;
    const int64_t dims[] = {64, 64};
    const tn_graph_options options = {.fold_limit = 64 * 64 * 4 * 3 + 100};
    fixture f = begin(13);
    add_ints(&f, "s", 2, dims);
    for (int i = 0; i < 5; i++) {
        char name[8];
        snprintf(name, sizeof name, "y%d", i);
        const char *inputs[] = {"s", NULL}, *outputs[] = {name, NULL};
        assert_non_null(
            tn_edit_add_node(f.model, SIZE_MAX, "ConstantOfShape", "", inputs, outputs));
    }
    tn_graph *graph = accepted(&f, &options);
    int folded = 0;
    for (size_t i = 0; i < graph->n_nodes; i++)
        folded += graph->nodes[i]->folded;
    assert_int_equal(folded, 3);
    tn_graph_destroy(graph);
    tn_model_destroy(f.model);
}

/* Shape -> Gather -> Unsqueeze -> Concat([batch, -1]) -> Reshape over an unknown batch. */
static fixture shape_tail(int64_t opset)
{
    static const char *const nodes[][4] = {{"Shape", "x", NULL, "shape"},
                                           {"Gather", "shape", "zero", "n"},
                                           {"Unsqueeze", "n", "axes", "n1"},
                                           {"Concat", "n1", "rest", "target"},
                                           {"Reshape", "x", "target", "y"}};
    const int64_t dims[] = {-1, 3, 4, 5}, zero[] = {0}, rest[] = {-1};
    fixture f = begin(opset);
    add_input(&f, "x", 4, dims);
    assert_non_null(tn_edit_add_initializer(f.model, "zero", TN_INT64, 0, NULL, zero, 8, true));
    add_ints(&f, "axes", 1, zero);
    add_ints(&f, "rest", 1, rest);
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
        bool axes = i == 2 && opset < 13;
        const char *inputs[] = {nodes[i][1], axes ? NULL : nodes[i][2], NULL};
        const char *outputs[] = {nodes[i][3], NULL};
        Onnx__NodeProto *node =
            tn_edit_add_node(f.model, SIZE_MAX, nodes[i][0], "", inputs, outputs);
        assert_non_null(node);
        if (i == 3)
            assert_int_equal(tn_edit_set_int(f.model, node, "axis", 0, NULL), TN_OK);
        if (axes)
            assert_int_equal(tn_edit_set_ints(f.model, node, "axes", zero, 1, NULL), TN_OK);
    }
    return f;
}

static void unknown_batch_leaves_the_rest_known(void **state)
{
    (void)state;
    const int64_t expected[] = {TN_DIM_UNKNOWN, 60}, eight[] = {8, 60};
    fixture f = shape_tail(13);
    tn_graph *graph = accepted(&f, NULL);
    assert_dims(graph, "y", 2, expected);
    for (size_t i = 0; i < graph->n_nodes; i++)
        assert_false(graph->nodes[i]->folded);
    tn_graph_destroy(graph);
    const tn_graph_options options = {.batch = 8};
    graph = accepted(&f, &options);
    assert_dims(graph, "y", 2, eight);
    assert_non_null(tn_graph_value(graph, "target")->constant);
    tn_graph_destroy(graph);
    tn_model_destroy(f.model);
}

/* Every allocation fails once: inference and opset conversion give LIMIT and leak nothing. */
static void every_allocation_may_fail(void **state)
{
    (void)state;
    for (int batch = 0; batch <= 4; batch += 4) {
        fixture f = shape_tail(11);
        const tn_graph_options options = {.batch = batch};
        tn_status status = TN_ERROR_LIMIT;
        uint64_t n = 1;
        for (; status != TN_OK; n++) {
            tn_graph *graph = NULL;
            uint64_t live = tn_memory_stats_get().live;
            tn_memory_fail_call(n, 0);
            status = tn_graph_create(f.model, &options, &graph, NULL);
            tn_memory_fail_call(0, 0);
            assert_true(status == TN_OK || status == TN_ERROR_LIMIT);
            tn_graph_destroy(graph);
            assert_int_equal(tn_memory_stats_get().live, live);
        }
        assert_true(n > 5);
        tn_model_destroy(f.model);
    }
    uint64_t before = tn_memory_stats_get().live;
    tn_status status = TN_ERROR_LIMIT;
    for (uint64_t n = 1; status != TN_OK; n++) {
        fixture f = shape_tail(11);
        tn_memory_fail_call(n, 0);
        status = tn_opset_raise(f.model, 25, NULL);
        tn_memory_fail_call(0, 0);
        assert_true(status == TN_OK || status == TN_ERROR_LIMIT);
        assert_int_equal(f.model->opset, status == TN_OK ? 25 : 11);
        tn_model_destroy(f.model);
        assert_int_equal(tn_memory_stats_get().live, before);
    }
}

static void batch_option_reaches_reshape_constants(void **state)
{
    (void)state;
    const char *inputs[] = {"x", "s", NULL};
    const int64_t dims[] = {2, 3, 4}, shape[] = {2, 12}, seven[] = {7, 12};
    const tn_graph_options options = {.batch = 7};
    fixture f = begin(13);
    add_input(&f, "x", 3, dims);
    add_ints(&f, "s", 2, shape);
    add_node(&f, "Reshape", inputs);
    tn_graph *graph = accepted(&f, &options);
    assert_dims(graph, "y", 2, seven);
    tn_graph_destroy(graph);
    graph = accepted(&f, NULL);
    assert_dims(graph, "y", 2, shape);
    tn_graph_destroy(graph);
    tn_model_destroy(f.model);
}

static void flops_count_multiply_adds_twice(void **state)
{
    (void)state;
    fixture f = convolution(image, 4, kernel, 4);
    tn_graph *graph = accepted(&f, NULL);
    assert_int_equal(tn_graph_flops(graph), 2 * 6 * 6 * 6 * 4 * 3 * 3);
    tn_graph_destroy(graph);
    tn_model_destroy(f.model);
}

static void table_has_no_overlap(void **state)
{
    (void)state;
    for (size_t i = 0; tn_op_at(i); i++)
        for (size_t k = i + 1; tn_op_at(k); k++) {
            const tn_op *a = tn_op_at(i), *b = tn_op_at(k);
            if (strcmp(a->type, b->type) == 0 && strcmp(a->domain, b->domain) == 0)
                assert_true((a->last_opset && a->last_opset < b->first_opset) ||
                            (b->last_opset && b->last_opset < a->first_opset));
        }
    bool known = false;
    assert_null(tn_op_find("", "Upsample", 13, &known));
    assert_true(known);
    assert_null(tn_op_find("com.microsoft", "Conv", 13, &known));
    assert_false(known);
    assert_non_null(tn_op_find("ai.onnx", "Conv", 13, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions_with_broken_attributes),
        cmocka_unit_test(convolutions_with_broken_shapes),
        cmocka_unit_test(pooling_and_others),
        cmocka_unit_test(sizes_from_constants),
        cmocka_unit_test(folding_stays_within_its_budget),
        cmocka_unit_test(fold_limit_counts_all_nodes),
        cmocka_unit_test(unknown_batch_leaves_the_rest_known),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(batch_option_reaches_reshape_constants),
        cmocka_unit_test(flops_count_multiply_adds_twice),
        cmocka_unit_test(table_has_no_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
