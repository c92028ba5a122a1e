/* BatchNormalization, InstanceNormalization, LayerNormalization, GroupNormalization, LRN; Softmax
 * and its relatives; Clip; Dropout and Identity: outputs shaped like the input. */
#include "onnx_io/ops/elements.h"
#include "onnx_io/ops/functions.h"

#include <math.h>
#include <string.h>

/* Inputs [first, last] are vectors of one value per channel. */
static tn_status check_channels(const tn_node *node, size_t first, size_t last, tn_error *error)
{
    tn_shape data = tn_op_shape(tn_op_input(node, 0));
    if (data.rank < 0)
        return TN_OK;
    int64_t channels = data.rank > 1 ? data.dims[1] : 1;
    for (size_t i = first; i <= last; i++) {
        tn_shape vector = tn_op_shape(tn_op_input(node, i));
        if (vector.rank < 0)
            continue;
        if (vector.rank != 1 || !tn_dims_agree(vector.dims[0], channels))
            return tn_fail(
                error, TN_ERROR_MODEL, "input %zu has rank %d and %lld elements: [%lld] expected",
                i, vector.rank, (long long)(vector.rank ? vector.dims[0] : 1), (long long)channels);
    }
    return TN_OK;
}

tn_status tn_batch_normalization_infer(tn_node *node, tn_error *error)
{
    int64_t spatial = 1;
    tn_status status = TN_OK;
    if (node->model->opset < 9)
        status = tn_node_int(node, "spatial", 1, &spatial, error);
    if (status == TN_OK && spatial == 0)
        return tn_fail(error, TN_ERROR_MODEL,
                       "attribute spatial is 0: statistics per activation are not supported");
    if (status == TN_OK)
        status = check_channels(node, 1, 4, error);
    if (status == TN_OK)
        status = tn_op_set_like(node, 0, tn_op_input(node, 0), error);
    for (size_t k = 1; status == TN_OK && k < node->n_outputs; k++)
        status = tn_op_set_like(node, k, tn_op_input(node, k == 2 || k == 4 ? 4 : 3), error);
    return status;
}

tn_status tn_instance_normalization_infer(tn_node *node, tn_error *error)
{
    tn_status status = check_channels(node, 1, 2, error);
    return status == TN_OK ? tn_op_set_like(node, 0, tn_op_input(node, 0), error) : status;
}

tn_status tn_like_infer(tn_node *node, tn_error *error)
{
    return tn_op_set_like(node, 0, tn_op_input(node, 0), error);
}

tn_status tn_layer_normalization_infer(tn_node *node, tn_error *error)
{
    int64_t attribute;
    int axis = 0;
    tn_shape shape = tn_op_shape(tn_op_input(node, 0));
    tn_status status = tn_node_int(node, "axis", -1, &attribute, error);
    if (status == TN_OK)
        status = tn_op_set_like(node, 0, tn_op_input(node, 0), error);
    if (status != TN_OK || shape.rank < 0)
        return status;
    status = tn_axis_resolve(attribute, shape.rank, &axis, error);
    for (int i = axis; status == TN_OK && i < shape.rank; i++)
        shape.dims[i] = 1;
    for (size_t k = 1; status == TN_OK && k < 3; k++)
        status = tn_op_set_output(node, k, TN_FLOAT, &shape, error);
    return status;
}

tn_status tn_softmax_infer(tn_node *node, tn_error *error)
{
    int64_t attribute;
    int axis = 0, rank = tn_op_shape(tn_op_input(node, 0)).rank;
    tn_status status =
        tn_node_int(node, "axis", node->model->opset < 13 ? 1 : -1, &attribute, error);
    /* Below 13 the axis only splits the input into a matrix: the rank itself is legal. */
    if (status == TN_OK && rank >= 0 && !(node->model->opset < 13 && attribute == rank))
        status = tn_axis_resolve(attribute, rank, &axis, error);
    return status == TN_OK ? tn_op_set_like(node, 0, tn_op_input(node, 0), error) : status;
}

tn_status tn_identity_evaluate(const tn_node *node, const tn_tensor *const *inputs,
                               tn_tensor *outputs, tn_error *error)
{
    return tn_op_output_view(node, inputs[0], &outputs[0], error);
}

tn_status tn_dropout_infer(tn_node *node, tn_error *error)
{
    const tn_value *data = tn_op_input(node, 0);
    tn_shape shape = tn_op_shape(data);
    tn_status status = tn_op_set_like(node, 0, data, error);
    if (status == TN_OK)
        status = tn_op_set_output(node, 1, node->model->opset < 10 ? data->dtype : TN_BOOL, &shape,
                                  error);
    return status;
}

tn_status tn_dropout_evaluate(const tn_node *node, const tn_tensor *const *inputs,
                              tn_tensor *outputs, tn_error *error)
{
    int64_t training = 0;
    tn_status status = TN_OK;
    if (node->n_inputs > 2 && inputs[2] && tn_tensor_count(inputs[2]) == 1)
        status = tn_tensor_read_int64(inputs[2], 0, 1, &training, error);
    if (status == TN_OK && (training || tn_op_output(node, 1)))
        return tn_fail(error, TN_ERROR_USAGE, "training mode and masks are not evaluated");
    return status == TN_OK ? tn_op_output_view(node, inputs[0], &outputs[0], error) : status;
}

/* Clip: bounds are attributes below opset 11, optional scalar inputs from there on. */
tn_status tn_clip_infer(tn_node *node, tn_error *error)
{
    for (size_t i = 1; i < node->n_inputs; i++) {
        tn_shape bound = tn_op_shape(node->inputs[i]);
        int64_t count = tn_shape_count(&bound);
        if (node->inputs[i] && count >= 0 && count != 1)
            return tn_fail(error, TN_ERROR_MODEL, "bound %zu has %lld elements: a scalar expected",
                           i, (long long)count);
    }
    return tn_op_set_like(node, 0, tn_op_input(node, 0), error);
}

static void clip_float(const void *context, int64_t n, const void *const *in, void *out)
{
    const double *bounds = context;
    float low = (float)bounds[0], high = (float)bounds[1];
    for (int64_t i = 0; i < n; i++) {
        float x = ((const float *)in[0])[i];
        x = x < low ? low : x;
        ((float *)out)[i] = x > high ? high : x;
    }
}

static void clip_double(const void *context, int64_t n, const void *const *in, void *out)
{
    const double *bounds = context;
    for (int64_t i = 0; i < n; i++) {
        double x = ((const double *)in[0])[i];
        x = x < bounds[0] ? bounds[0] : x;
        ((double *)out)[i] = x > bounds[1] ? bounds[1] : x;
    }
}

tn_status tn_clip_evaluate(const tn_node *node, const tn_tensor *const *inputs, tn_tensor *outputs,
                           tn_error *error)
{
    float attribute;
    double bounds[2] = {-HUGE_VAL, HUGE_VAL};
    tn_work work = tn_work_of(inputs[0]->dtype);
    tn_status status = TN_OK;
    if (work == TN_WORK_NONE)
        return tn_fail(error, TN_ERROR_USAGE, "type %s is not evaluated",
                       tn_dtype_name(inputs[0]->dtype));
    for (size_t i = 0; status == TN_OK && i < 2; i++) {
        if (node->model->opset >= 11) {
            if (i + 1 < node->n_inputs && inputs[i + 1])
                status = tn_tensor_read_double(inputs[i + 1], 0, 1, &bounds[i], error);
            continue;
        }
        status = tn_node_float(node, i ? "max" : "min", (float)bounds[i], &attribute, error);
        bounds[i] = status == TN_OK ? (double)attribute : 0;
    }
    if (work == TN_WORK_INT)
        work = TN_WORK_DOUBLE; /* exact up to 2^53 */
    tn_map map = {.n_inputs = 1,
                  .in = {work},
                  .out = work,
                  .kernel = work == TN_WORK_FLOAT ? clip_float : clip_double,
                  .context = bounds};
    if (status == TN_OK)
        status = tn_op_output_init(node, 0, &outputs[0], error);
    return status == TN_OK ? tn_map_run(&map, inputs, &outputs[0], error) : status;
}
