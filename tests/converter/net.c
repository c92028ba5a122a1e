#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net.h"

#include "core/random.h"

#include <stdio.h>

static void add_weight(tn_model *model, uint64_t seed, const char *name, int rank,
                       const int64_t *dims)
{
    static float data[4096];
    int64_t count;
    assert_true(tn_dims_count(rank, dims, &count) && count <= 4096);
    tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 0, (uint64_t)count);
    for (int64_t i = 0; i < count; i++)
        data[i] = tn_random_normal(&random);
    assert_non_null(tn_edit_add_initializer(model, name, TN_FLOAT, rank, dims, data,
                                            (size_t)count * sizeof data[0], true));
}

static Onnx__NodeProto *add(tn_model *model, const char *type, const char *name, const char *a,
                            const char *b, const char *output)
{
    const char *inputs[] = {a, b, NULL}, *outputs[] = {output, NULL};
    Onnx__NodeProto *node = tn_edit_add_node(model, SIZE_MAX, type, name, inputs, outputs);
    assert_non_null(node);
    return node;
}

void net_relink(net *made)
{
    tn_error error = {0};
    tn_graph_destroy(made->graph);
    if (tn_graph_create(made->model, NULL, &made->graph, &error) != TN_OK)
        fail_msg("%s", error.message);
}

void net_build(net *made, uint64_t seed)
{
    tn_model *model;
    *made = (net){0};
    assert_int_equal(tn_model_create("net", 8, 13, &model, NULL), TN_OK);
    made->model = model;
    add_weight(model, seed, "stem_w", 4, (const int64_t[]){8, 3, 3, 3});
    add_weight(model, seed, "depthwise_w", 4, (const int64_t[]){8, 1, 3, 3});
    add_weight(model, seed, "middle_w", 4, (const int64_t[]){6, 8, 1, 1});
    add_weight(model, seed, "up_w", 4, (const int64_t[]){6, 4, 2, 2});
    add_weight(model, seed, "fc1_w", 2, (const int64_t[]){64, 10});
    add_weight(model, seed, "fc2_w", 2, (const int64_t[]){10, 10});
    add_weight(model, seed + 1, "fc3_w", 2, (const int64_t[]){10, 10});
    add_weight(model, seed, "fc3_b", 1, (const int64_t[]){10});
    assert_int_equal(
        tn_edit_add_input(model, "x", TN_FLOAT, 4, (const int64_t[]){1, 3, 4, 4}, NULL), TN_OK);
    assert_int_equal(tn_edit_add_output(model, "y", TN_FLOAT, 2, (const int64_t[]){1, 10}, NULL),
                     TN_OK);
    Onnx__NodeProto *node = add(model, "Conv", "stem", "x", "stem_w", "a");
    assert_int_equal(tn_edit_set_ints(model, node, "pads", (const int64_t[]){1, 1, 1, 1}, 4, NULL),
                     TN_OK);
    (void)add(model, "Relu", "relu1", "a", NULL, "b");
    node = add(model, "Conv", "depthwise", "b", "depthwise_w", "c");
    assert_int_equal(tn_edit_set_ints(model, node, "pads", (const int64_t[]){1, 1, 1, 1}, 4, NULL),
                     TN_OK);
    assert_int_equal(tn_edit_set_int(model, node, "group", 8, NULL), TN_OK);
    node = add(model, "Conv", "middle", "c", "middle_w", "d");
    assert_int_equal(tn_edit_set_ints(model, node, "strides", (const int64_t[]){2, 2}, 2, NULL),
                     TN_OK);
    node = add(model, "ConvTranspose", "up", "d", "up_w", "e");
    assert_int_equal(tn_edit_set_ints(model, node, "strides", (const int64_t[]){2, 2}, 2, NULL),
                     TN_OK);
    (void)add(model, "Flatten", "flatten", "e", NULL, "f");
    (void)add(model, "Gemm", "fc1", "f", "fc1_w", "g");
    (void)add(model, "Relu", "relu2", "g", NULL, "h");
    node = add(model, "Gemm", "fc2", "h", "fc2_w", "i");
    assert_int_equal(tn_edit_set_int(model, node, "transB", 1, NULL), TN_OK);
    (void)add(model, "MatMul", "", "i", "fc3_w", "fc3_out");
    (void)add(model, "Add", "add", "fc3_out", "fc3_b", "k");
    node = add(model, "Gemm", "fc4", "k", "fc2_w", "y");
    assert_int_equal(tn_edit_set_int(model, node, "transB", 1, NULL), TN_OK);
    net_relink(made);
}

void net_done(net *made)
{
    tn_graph_destroy(made->graph);
    tn_model_destroy(made->model);
}
