#include "converter/activation_record.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

static const tn_node *producer(const tn_value *value, const char *type, size_t inputs)
{
    const tn_node *node = value ? value->producer : NULL;
    if (!node || strcmp(node->type, type) != 0 || node->n_inputs < inputs)
        return NULL;
    for (size_t i = 0; i < inputs; i++)
        if (!node->inputs[i])
            return NULL;
    return node;
}

static bool scalar(const tn_value *value, float *number)
{
    const tn_tensor *tensor = value->constant;
    return tensor && tn_tensor_count(tensor) == 1 &&
           tn_tensor_read_float(tensor, 0, 1, number, NULL) == TN_OK;
}

int tn_activation_bits(const tn_value *value)
{
    const tn_node *back = producer(value, "DequantizeLinear", 3);
    const tn_node *there = back ? producer(back->inputs[0], "QuantizeLinear", 3) : NULL;
    float scale, low, high;
    if (!there || there->inputs[1] != back->inputs[1] || there->inputs[2] != back->inputs[2] ||
        !scalar(there->inputs[1], &scale) || !(scale > 0) || !there->inputs[2]->constant)
        return 0;
    const int bits = tn_dtype_bits(there->inputs[2]->constant->dtype);
    const tn_node *clip = producer(there->inputs[0], "Clip", 3);
    if (!clip || !scalar(clip->inputs[1], &low) || !scalar(clip->inputs[2], &high))
        return bits;
    const double levels = rint(((double)high - (double)low) / (double)scale) + 1;
    return levels >= 2 && levels < ldexp(1, bits) ? (int)ceil(log2(levels)) : bits;
}

/* The bits with which some user of `value` reads it. */
static int bits_behind(const tn_value *value)
{
    for (size_t i = 0; i < value->n_users; i++) {
        const tn_node *user = value->users[i];
        if (user->n_outputs > 0 && user->outputs[0] && strcmp(user->type, "Clip") == 0 &&
            user->outputs[0]->n_users == 1)
            user = user->outputs[0]->users[0];
        if (strcmp(user->type, "QuantizeLinear") != 0 || user->n_outputs < 1 || !user->outputs[0])
            continue;
        for (size_t k = 0; k < user->outputs[0]->n_users; k++) {
            const tn_node *back = user->outputs[0]->users[k];
            int bits = back->n_outputs > 0 ? tn_activation_bits(back->outputs[0]) : 0;
            if (bits > 0)
                return bits;
        }
    }
    return 0;
}

static bool is_one_of(const char *type, const char *const *list)
{
    while (*list && strcmp(*list, type) != 0)
        list++;
    return *list != NULL;
}

/* The DequantizeLinear that a value comes out of; runtimes move it past what only moves values. */
static const tn_node *find_dequantize(const tn_value *value)
{
    static const char *const moves[] = {"Flatten",   "Identity", "MaxPool", "Relu",      "Reshape",
                                        "Transpose", "Slice",    "Squeeze", "Unsqueeze", NULL};
    while (value && value->producer && !value->constant && value->producer->n_inputs > 0 &&
           is_one_of(value->producer->type, moves))
        value = value->producer->inputs[0];
    return value && !value->constant ? producer(value, "DequantizeLinear", 2) : NULL;
}

static bool dequantizes_input(const tn_node *back)
{
    const tn_node *there = producer(back->inputs[0], "QuantizeLinear", 2);
    const tn_node *clip = there ? producer(there->inputs[0], "Clip", 1) : NULL;
    return there && (clip ? clip : there)->inputs[0]->is_input;
}

static bool is_quantized(const tn_value *value)
{
    static const char *const passes[] = {"Add", "Clip", "Relu", NULL};
    while (value && value->n_users == 1 && value->users[0]->n_outputs > 0 &&
           is_one_of(value->users[0]->type, passes))
        value = value->users[0]->outputs[0];
    for (size_t i = 0; value && i < value->n_users; i++)
        if (strcmp(value->users[i]->type, "QuantizeLinear") == 0)
            return true;
    return false;
}

bool tn_activation_is_integer(const tn_node *user)
{
    const tn_node *back = user->n_inputs > 0 ? find_dequantize(user->inputs[0]) : NULL;
    return back &&
           (!dequantizes_input(back) || (user->n_outputs > 0 && is_quantized(user->outputs[0])));
}

bool tn_activation_record_inner(const char *json, const tn_graph *graph)
{
    json_t *object = json ? json_loads(json, 0, NULL) : NULL, *bits;
    const char *name;
    bool inner = false;
    json_object_foreach(json_object_get(object, "values"), name, bits)
    {
        const tn_value *value = tn_graph_value(graph, name);
        inner = inner || !value || !value->is_input;
    }
    json_decref(object);
    return inner;
}

tn_status tn_activation_record_verify(const tn_record *record, const tn_graph *graph,
                                      size_t *values, tn_error *error)
{
    json_t *object = record->json ? json_object_get(record->json, "activations") : NULL;
    json_t *list = json_object_get(object, "values"), *bits;
    const char *name;
    *values = 0;
    if (object && !json_is_object(list))
        return tn_fail(error, TN_ERROR_DIFFERS, "the record's activations have no values");
    json_object_foreach(list, name, bits)
    {
        const tn_value *value = tn_graph_value(graph, name);
        int found = value ? bits_behind(value) : 0;
        if (found == 0)
            return tn_fail(error, TN_ERROR_DIFFERS,
                           "value %s is not quantized, as the record says it is", tn_quote(name));
        if (found != json_integer_value(bits))
            return tn_fail(error, TN_ERROR_DIFFERS,
                           "value %s is quantized to %d bits, not %lld as the record says",
                           tn_quote(name), found, (long long)json_integer_value(bits));
        ++*values;
    }
    return TN_OK;
}
