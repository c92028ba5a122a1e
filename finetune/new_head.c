#include "finetune/new_head.h"

#include "converter/layers.h"
#include "core/memory.h"
#include "core/random.h"
#include "onnx_io/substitute.h"

#include <math.h>
#include <string.h>

static const tn_layer *find_last(const tn_layers *layers, tn_error *error)
{
    const tn_layer *last = NULL;
    for (size_t i = 0; i < layers->count; i++) {
        if (!layers->layer[i].last)
            continue;
        if (last) {
            tn_fail(error, TN_ERROR_MODEL,
                    "the network has several last layers (%s, %s): --classes needs exactly one "
                    "(--output NAME chooses an output)",
                    tn_quote(tn_node_label(last->node)),
                    tn_quote(tn_node_label(layers->layer[i].node)));
            return NULL;
        }
        last = &layers->layer[i];
    }
    if (!last)
        tn_fail(error, TN_ERROR_MODEL, "the network has no layer that can get a new head");
    return last;
}

/* The constant bias behind a layer's node: its third input, or what an Add adds; NULL: none. */
static const tn_value *find_bias(const tn_layer *layer)
{
    const tn_node *node = layer->node;
    if (node->n_inputs > 2 && node->inputs[2])
        return node->inputs[2]->constant ? node->inputs[2] : NULL;
    const tn_value *output = node->outputs[0];
    if (output->n_users != 1 || strcmp(output->users[0]->type, "Add"))
        return NULL;
    const tn_node *add = output->users[0];
    const tn_value *other = add->inputs[add->inputs[0] == output ? 1 : 0];
    return other->constant && tn_tensor_count(other->constant) == layer->rows ? other : NULL;
}

static tn_status replace_weight(tn_model *model, const tn_layer *layer, int64_t classes,
                                uint64_t seed, tn_error *error)
{
    const tn_tensor *old = layer->weight->constant;
    int64_t dims[TN_MAX_RANK], count;
    memcpy(dims, old->dims, sizeof dims);
    dims[layer->axis] = classes;
    if (!tn_dims_count(old->rank, dims, &count))
        return tn_fail(error, TN_ERROR_LIMIT, "a head of %lld classes is too large",
                       (long long)classes);
    float *values = tn_alloc_array((size_t)count, sizeof *values);
    if (!values)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a head of %lld classes",
                       (long long)classes);
    tn_random random = tn_random_make(seed, TN_PURPOSE_INIT, 0, 0);
    float deviation = 1 / sqrtf((float)layer->cols);
    for (int64_t i = 0; i < count; i++)
        values[i] = deviation * tn_random_normal(&random);
    tn_status status = tn_substitute_values(model, layer->weight->name, old->dtype, old->rank, dims,
                                            values, error);
    tn_free(values);
    return status;
}

/* The bias' axis that lines up with the layer's outputs: the last of a product, the second of an
 * image. */
static int class_axis(const tn_layer *layer, const tn_tensor *bias)
{
    int axis = bias->rank - (layer->node->outputs[0]->rank - 1);
    return axis > 0 ? axis : 0;
}

static tn_status replace_bias(tn_model *model, const tn_layer *layer, const tn_value *bias,
                              int64_t classes, tn_error *error)
{
    const tn_tensor *old = bias->constant;
    int64_t dims[TN_MAX_RANK];
    memcpy(dims, old->dims, sizeof dims);
    dims[class_axis(layer, old)] = classes;
    float *zeros = tn_alloc_zero((size_t)classes, sizeof *zeros);
    if (!zeros)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a head of %lld classes",
                       (long long)classes);
    tn_status status =
        tn_substitute_values(model, bias->name, old->dtype, old->rank, dims, zeros, error);
    tn_free(zeros);
    return status;
}

/* Shapes the file states for values behind the head: the old number of classes is no longer true.
 */
static void restate_outputs(tn_model *model, const tn_graph *changed)
{
    Onnx__GraphProto *graph = model->proto->graph;
    for (size_t i = 0; i < graph->n_output; i++) {
        Onnx__TypeProto *type = graph->output[i]->type;
        Onnx__TensorShapeProto *shape = type && type->tensor_type ? type->tensor_type->shape : NULL;
        const tn_value *value = tn_graph_value(changed, tn_text(graph->output[i]->name));
        for (size_t d = 1; shape && (int)shape->n_dim == value->rank && d < shape->n_dim; d++)
            if (shape->dim[d]->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE &&
                value->dims[d] > 0)
                shape->dim[d]->dim_value = value->dims[d];
    }
    graph->n_value_info = 0; /* optional, and perhaps wrong now */
}

tn_status tn_new_head(tn_model *model, int64_t classes, const char *output, uint64_t seed,
                      tn_error *error)
{
    const tn_graph_options chosen = {.output = output};
    tn_graph *graph = NULL, *changed = NULL;
    tn_layers layers;
    const tn_policy policy = {.first_layer = "8", .last_layer = "8"}; /* any that selects all */
    if (classes < 2)
        return tn_fail(error, TN_ERROR_USAGE, "--classes %lld: expected at least 2",
                       (long long)classes);
    tn_status status = tn_graph_create(model, &chosen, &graph, error);
    if (status == TN_OK)
        status = tn_layers_select(graph, &policy, &layers, error);
    const tn_layer *last = NULL;
    if (status == TN_OK && !(last = find_last(&layers, error)))
        status = TN_ERROR_MODEL;
    if (status == TN_OK && last->n_users > 1)
        status = tn_fail(error, TN_ERROR_MODEL, "the last layer %s shares its weight with others",
                         tn_quote(tn_node_label(last->node)));
    if (status != TN_OK)
        goto done;
    const tn_value *bias = find_bias(last);
    status = replace_weight(model, last, classes, seed, error);
    if (status == TN_OK && bias)
        status = replace_bias(model, last, bias, classes, error);
    if (status != TN_OK)
        goto done;
    status = tn_graph_create(model, NULL, &changed, error); /* does it hold together? */
    if (status == TN_OK)
        restate_outputs(model, changed);
    else
        tn_error_prepend(error, "with a new head of %lld classes", (long long)classes);
done:
    tn_graph_destroy(changed);
    tn_graph_destroy(graph);
    return status;
}
