#include "small_model.h"

#include <stdlib.h>

static wire shaped_value(const char *name, const int64_t *dims, size_t rank)
{
    wire shape = {0}, tensor = {0}, type = {0}, value = {0};
    for (size_t i = 0; i < rank; i++) {
        wire dim = {0};
        if (dims[i] < 0)
            wire_text(&dim, 2, "batch");
        else
            wire_int(&dim, 1, (uint64_t)dims[i]);
        wire_message(&shape, 1, &dim);
    }
    wire_int(&tensor, 1, 1);
    wire_message(&tensor, 2, &shape);
    wire_message(&type, 1, &tensor);
    wire_text(&value, 1, name);
    wire_message(&value, 2, &type);
    return value;
}

static wire ints_attribute(const char *name, uint64_t value, int count)
{
    wire attribute = {0};
    wire_text(&attribute, 1, name);
    for (int i = 0; i < count; i++)
        wire_int(&attribute, 8, value);
    wire_int(&attribute, 20, 7);
    return attribute;
}

static wire branch(const char *op, const char *output)
{
    wire graph = {0}, node = wire_node(op, "", "fc", output), value = wire_value(output);
    wire_message(&graph, 1, &node);
    wire_text(&graph, 2, "branch");
    wire_message(&graph, 12, &value);
    return graph;
}

static wire if_node(void)
{
    wire node = wire_node("If", "if", "flag", "y");
    const char *names[2] = {"then_branch", "else_branch"}, *types[2] = {"Relu", "Identity"},
               *outputs[2] = {"t", "e"};
    for (int i = 0; i < 2; i++) {
        wire attribute = {0}, graph = branch(types[i], outputs[i]);
        wire_text(&attribute, 1, names[i]);
        wire_message(&attribute, 6, &graph);
        wire_int(&attribute, 20, 5);
        wire_message(&node, 5, &attribute);
    }
    return node;
}

static wire conv_node(void)
{
    wire node = {0}, pads = ints_attribute("pads", 1, 4);
    wire_text(&node, 1, "x");
    wire_text(&node, 1, "conv.weight");
    wire_text(&node, 2, "conv");
    wire_text(&node, 3, "conv");
    wire_text(&node, 4, "Conv");
    wire_message(&node, 5, &pads);
    return node;
}

static wire gemm_node(void)
{
    wire node = {0}, trans = {0};
    wire_text(&node, 1, "flat");
    wire_text(&node, 1, "fc.weight");
    wire_text(&node, 1, "fc.bias");
    wire_text(&node, 2, "fc");
    wire_text(&node, 4, "Gemm");
    wire_text(&trans, 1, "transB");
    wire_int(&trans, 3, 1);
    wire_int(&trans, 20, 2);
    wire_message(&node, 5, &trans);
    return node;
}

static wire constant_node(void)
{
    wire node = wire_node("Constant", "flag", "", "flag"), attribute = {0},
         tensor = wire_tensor("", 9, NULL, 0, "\1", 1);
    wire_text(&attribute, 1, "value");
    wire_message(&attribute, 5, &tensor);
    wire_int(&attribute, 20, 4);
    wire_message(&node, 5, &attribute);
    return node;
}

wire small_model(int large)
{
    const int64_t conv[4] = {2, 1, 3, 3}, fc[2] = {large, 32}, bias[1] = {large},
                  x[4] = {-1, 1, 4, 4}, y[2] = {-1, large};
    size_t count = (size_t)large * 32;
    float *weights = malloc(count * sizeof *weights);
    if (!weights)
        abort();
    for (size_t i = 0; i < count; i++)
        weights[i] = (float)((int)(i * 37 % 101) - 50) / 64.0f;
    wire graph = {0}, model = {0}, opset = {0}, metadata = {0};
    wire nodes[5] = {conv_node(), wire_node("Flatten", "", "conv", "flat"), gemm_node(),
                     constant_node(), if_node()};
    for (int i = 0; i < 5; i++)
        wire_message(&graph, 1, &nodes[i]);
    wire_text(&graph, 2, "small");
    wire tensors[3] = {wire_tensor("conv.weight", 1, conv, 4, weights, 18 * 4),
                       wire_tensor("fc.weight", 1, fc, 2, weights, count * 4),
                       {0}};
    wire_int(&tensors[2], 1, (uint64_t)bias[0]);
    wire_int(&tensors[2], 2, 1);
    wire_bytes(&tensors[2], 4, weights, (size_t)large * 4);
    wire_text(&tensors[2], 8, "fc.bias");
    for (int i = 0; i < 3; i++)
        wire_message(&graph, 5, &tensors[i]);
    wire in = shaped_value("x", x, 4), out = shaped_value("y", y, 2);
    wire_message(&graph, 11, &in);
    wire_message(&graph, 12, &out);
    wire_text(&graph, 1000, "a field of the future");
    wire_int(&model, 1, 8);
    wire_text(&model, 2, "test");
    wire_message(&model, 7, &graph);
    wire_text(&opset, 1, "");
    wire_int(&opset, 2, 17);
    wire_message(&model, 8, &opset);
    wire_text(&metadata, 1, "key");
    wire_text(&metadata, 2, "value");
    wire_message(&model, 14, &metadata);
    wire_int(&model, 4000, 7);
    free(weights);
    return model;
}
