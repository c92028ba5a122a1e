#include "converter/biases.h"

#include "converter/policy.h"
#include "core/memory.h"

#include <stdio.h>
#include <string.h>

/* The bias that `user` adds to its product: its value, and the node and input that read it. */
static tn_value *bias_of(tn_node *user, tn_node **reader, size_t *input)
{
    *reader = user;
    *input = 2;
    if (strcmp(user->type, "MatMul") != 0)
        return user->n_inputs > 2 ? user->inputs[2] : NULL;
    const tn_value *product = user->n_outputs > 0 ? user->outputs[0] : NULL;
    if (!product || product->n_users != 1 || strcmp(product->users[0]->type, "Add") != 0)
        return NULL;
    *reader = product->users[0];
    *input = (*reader)->inputs[0] == product;
    return (*reader)->inputs[*input];
}

static bool is_bias(const tn_value *value)
{
    const tn_tensor *tensor = value ? value->constant : NULL;
    return tensor && tn_dtype_is_float(tensor->dtype) && tensor->rank > 0 &&
           tn_tensor_count(tensor) > 0 && !value->is_output;
}

static tn_layer *find(tn_layers *biases, const tn_value *value)
{
    for (size_t i = 0; i < biases->count; i++)
        if (biases->layer[i].weight == value)
            return &biases->layer[i];
    return NULL;
}

static tn_status add(tn_graph *graph, tn_layers *biases, tn_value *value, tn_node *reader,
                     size_t input, tn_error *error)
{
    tn_layer *bias = find(biases, value);
    if (!bias) {
        bias = &biases->layer[biases->count++];
        *bias = (tn_layer){.node = reader,
                           .weight = value,
                           .input = input,
                           .groups = 1,
                           .rows = value->constant->dims[0],
                           .cols = tn_tensor_count(value->constant) / value->constant->dims[0],
                           .reason = ""};
        bias->users = tn_arena_array(&graph->arena, value->n_users, sizeof *bias->users);
        if (!bias->users)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the biases");
    }
    bias->users[bias->n_users++] = reader;
    return TN_OK;
}

tn_status tn_biases_find(tn_graph *graph, const tn_layers *layers, tn_layers *biases,
                         tn_error *error)
{
    tn_layers found = {.layer =
                           tn_arena_array(&graph->arena, graph->n_nodes + 1, sizeof(tn_layer))};
    if (!found.layer)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the biases");
    for (size_t i = 0; i < layers->count; i++) {
        const tn_layer *layer = &layers->layer[i];
        for (size_t u = 0; u < layer->n_users; u++) {
            tn_node *reader;
            size_t input;
            tn_value *value = bias_of(layer->users[u], &reader, &input);
            tn_status status =
                is_bias(value) ? add(graph, &found, value, reader, input, error) : TN_OK;
            if (status != TN_OK)
                return status;
        }
    }
    *biases = (tn_layers){.layer = found.layer};
    for (size_t i = 0; i < found.count; i++) /* one that others read too stays */
        if (found.layer[i].n_users == found.layer[i].weight->n_users)
            biases->layer[biases->count++] = found.layer[i];
    return TN_OK;
}

static tn_status convert(const tn_policy *policy, tn_layers *biases, tn_conversion *made,
                         tn_error *error)
{
    tn_request request;
    tn_status status = tn_policy_check(policy, &request, error);
    made->item = tn_alloc_zero(biases->count + 1, sizeof *made->item);
    if (status == TN_OK && !made->item)
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the biases");
    for (size_t i = 0; status == TN_OK && i < biases->count; i++) {
        tn_layer *bias = &biases->layer[i];
        bias->quantized = true;
        status = tn_policy_resolve(policy, &request, bias, error);
        if (status == TN_OK)
            status = tn_convert_layer(bias, &made->item[made->count], error);
        made->count += status == TN_OK;
    }
    return status;
}

tn_status tn_biases_convert(tn_graph *graph, const tn_conversion *conversion, int bits,
                            tn_conversion *biases, tn_error *error)
{
    char width[16];
    snprintf(width, sizeof width, "%d", bits);
    const tn_policy policy = {.scheme = "affine", .bits = width, .granularity = "tensor"};
    tn_conversion made = {NULL, 0};
    tn_layers found,
        layers = {tn_arena_array(&graph->arena, conversion->count + 1, sizeof *layers.layer),
                  conversion->count};
    if (!layers.layer)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the biases");
    if (bits < 2 || (bits > 8 && bits != 16))
        return tn_fail(error, TN_ERROR_USAGE, "--bias-bits takes 2 to 8 or 16 bits, not %d", bits);
    for (size_t i = 0; i < conversion->count; i++)
        layers.layer[i] = *conversion->item[i].layer;
    tn_status status = tn_biases_find(graph, &layers, &found, error);
    if (status == TN_OK)
        status = convert(&policy, &found, &made, error);
    if (status == TN_OK)
        *biases = made;
    else
        tn_conversion_done(&made);
    return status;
}
