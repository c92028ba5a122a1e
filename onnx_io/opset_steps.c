#include "onnx_io/opset_steps.h"

#include "onnx_io/edit.h"

#include <stdio.h>
#include <string.h>

struct tn_opset_constant {
    struct tn_opset_constant *next;
    const char *name;
    tn_dtype dtype;
    int rank;
    size_t count, bytes;
    const void *data;
};

/* The node as attribute accessors want it. */
static tn_node view(const tn_opset_climb *climb, Onnx__NodeProto *proto)
{
    return (tn_node){.name = tn_text(proto->name),
                     .type = tn_text(proto->op_type),
                     .domain = "",
                     .proto = proto,
                     .model = climb->model};
}

static tn_value *value_of(const tn_opset_climb *climb, const char *name)
{
    return climb->graph && name[0] ? tn_graph_value(climb->graph, name) : NULL;
}

static const char *input_name(const Onnx__NodeProto *node, size_t i)
{
    return i < node->n_input ? node->input[i] : "";
}

/* The name of an initializer of `count` elements, rank 0 or 1, made for `node`; equal ones of late
 * are shared. */
static tn_status constant(tn_opset_climb *climb, const Onnx__NodeProto *node, const char *what,
                          tn_dtype dtype, int rank, size_t count, const void *data,
                          const char **name, tn_error *error)
{
    size_t bytes, looked = 0;
    char base[256];
    int length = snprintf(base, sizeof base, "%s_%s", node->n_output ? node->output[0] : "", what);
    if (!tn_dtype_bytes(dtype, count, &bytes))
        return tn_fail(error, TN_ERROR_MODEL, "type %s", tn_dtype_name(dtype));
    for (struct tn_opset_constant *c = climb->constants; c && looked < 64; c = c->next, looked++)
        if (c->dtype == dtype && c->rank == rank && c->count == count &&
            (bytes == 0 || memcmp(c->data, data, bytes) == 0)) {
            *name = c->name;
            return TN_OK;
        }
    struct tn_opset_constant *made = tn_arena_alloc(&climb->model->arena, sizeof *made);
    const char *unique =
        tn_edit_unique_name(climb->model, length > 0 && (size_t)length < sizeof base ? base : what);
    const int64_t dims[1] = {(int64_t)count};
    Onnx__TensorProto *proto =
        !made || !unique
            ? NULL
            : tn_edit_add_initializer(climb->model, unique, dtype, rank, dims, data, bytes, true);
    void *kept = tn_arena_alloc(&climb->model->arena, bytes);
    if (!proto || !kept)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    if (bytes)
        memcpy(kept, data, bytes);
    *made = (struct tn_opset_constant){climb->constants, unique, dtype, rank, count, bytes, kept};
    climb->constants = made;
    *name = unique;
    return TN_OK;
}

/* Moves a list of integers from attribute `attribute` to input `index`. Nothing when absent. */
static tn_status ints_to_input(tn_opset_climb *climb, Onnx__NodeProto *proto, const char *attribute,
                               size_t index, tn_error *error)
{
    tn_node node = view(climb, proto);
    const int64_t *values;
    size_t count;
    const char *name;
    if (!tn_node_has_attribute(&node, attribute))
        return TN_OK;
    tn_status status = tn_node_ints(&node, attribute, &values, &count, error);
    if (status == TN_OK)
        status = constant(climb, proto, attribute, TN_INT64, 1, count, values, &name, error);
    if (status == TN_OK)
        status = tn_edit_set_input(climb->model, proto, index, name, error);
    if (status == TN_OK)
        tn_edit_remove_attribute(proto, attribute);
    return status;
}

/* Moves a float attribute to a scalar input of the type of input 0. Nothing when absent. */
static tn_status float_to_input(tn_opset_climb *climb, Onnx__NodeProto *proto,
                                const char *attribute, size_t index, tn_error *error)
{
    tn_node node = view(climb, proto);
    const tn_value *data = value_of(climb, input_name(proto, 0));
    tn_tensor scalar = {0};
    float value;
    const char *name;
    if (!tn_node_has_attribute(&node, attribute))
        return TN_OK;
    tn_status status = tn_node_float(&node, attribute, 0.0f, &value, error);
    if (status == TN_OK && (!data || !tn_dtype_is_float(data->dtype)))
        return tn_fail(error, TN_ERROR_MODEL, "the type of its input is not known");
    if (status == TN_OK)
        status = tn_tensor_init(&scalar, data->dtype, 0, NULL, error);
    double wide = status == TN_OK ? (double)value : 0;
    if (status == TN_OK)
        status = tn_tensor_write_double(&scalar, 0, 1, &wide, error);
    if (status == TN_OK)
        status = constant(climb, proto, attribute, data->dtype, 0, 1, scalar.data, &name, error);
    if (status == TN_OK)
        status = tn_edit_set_input(climb->model, proto, index, name, error);
    if (status == TN_OK)
        tn_edit_remove_attribute(proto, attribute);
    tn_tensor_done(&scalar);
    return status;
}

static tn_status rename_type(tn_opset_climb *climb, Onnx__NodeProto *proto, const char *type,
                             tn_error *error)
{
    proto->op_type = tn_arena_strdup(&climb->model->arena, type);
    return proto->op_type ? TN_OK : tn_fail(error, TN_ERROR_LIMIT, "out of memory");
}

static tn_status refuse_step(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    (void)climb;
    (void)proto;
    return tn_fail(error, TN_ERROR_MODEL, "its meaning changed");
}

static tn_status refuse_removed(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    (void)climb;
    (void)proto;
    return tn_fail(error, TN_ERROR_MODEL, "an experimental operator that was removed");
}

/* The standard gained types; ONNX Runtime (1.32) has a CPU kernel for the version before alone. */
static tn_status refuse_missing(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    (void)climb;
    (void)proto;
    return tn_fail(error, TN_ERROR_MODEL, "ONNX Runtime cannot run its newer version");
}

static tn_status batch_normalization_9(tn_opset_climb *climb, Onnx__NodeProto *proto,
                                       tn_error *error)
{
    tn_node node = view(climb, proto);
    int64_t spatial;
    tn_status status = tn_node_int(&node, "spatial", 1, &spatial, error);
    if (status == TN_OK && spatial == 0)
        return tn_fail(error, TN_ERROR_MODEL, "spatial = 0");
    if (status == TN_OK)
        tn_edit_remove_attribute(proto, "spatial");
    return status;
}

/* Outputs beyond the first are there for training alone, in another order from 14 on. */
static tn_status batch_normalization_14(tn_opset_climb *climb, Onnx__NodeProto *proto,
                                        tn_error *error)
{
    (void)climb;
    for (size_t k = 1; k < proto->n_output; k++)
        if (proto->output[k][0])
            return tn_fail(error, TN_ERROR_MODEL, "training outputs");
    return TN_OK;
}

static tn_status upsample_9(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    for (size_t i = 0; i < proto->n_attribute; i++) {
        const Onnx__AttributeProto *scales = proto->attribute[i];
        const char *name;
        if (strcmp(tn_text(scales->name), "scales") != 0)
            continue;
        tn_status status = constant(climb, proto, "scales", TN_FLOAT, 1, scales->n_floats,
                                    scales->floats, &name, error);
        if (status == TN_OK)
            status = tn_edit_set_input(climb->model, proto, 1, name, error);
        if (status == TN_OK)
            tn_edit_remove_attribute(proto, "scales");
        return status;
    }
    return tn_fail(error, TN_ERROR_MODEL, "scales are missing");
}

static tn_status upsample_10(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    return rename_type(climb, proto, "Resize", error);
}

/* Whether the scales are known and nothing shrinks: only then does nearest round down. */
static bool only_grows(const tn_opset_climb *climb, const char *name)
{
    float scales[TN_MAX_RANK];
    const tn_value *value = value_of(climb, name);
    int64_t count = 0;
    bool known = false;
    for (const struct tn_opset_constant *c = climb->constants; c && !known; c = c->next)
        if (strcmp(c->name, name) == 0 && c->dtype == TN_FLOAT && c->count <= TN_MAX_RANK) {
            memcpy(scales, c->data, c->bytes);
            count = (int64_t)c->count;
            known = true;
        }
    if (!known && value && value->constant && tn_tensor_count(value->constant) <= TN_MAX_RANK) {
        count = tn_tensor_count(value->constant);
        known = tn_tensor_read_float(value->constant, 0, count, scales, NULL) == TN_OK;
    }
    for (int64_t i = 0; known && i < count; i++)
        known = scales[i] >= 1.0f;
    return known;
}

/* Resize 10 maps coordinates by x / scale and takes the pixel below (where it enlarges). */
static tn_status resize_11(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    tn_node node = view(climb, proto);
    char mode[16];
    const char *scales = input_name(proto, 1), *roi;
    tn_status status = tn_node_string(&node, "mode", "nearest", mode, sizeof mode, error);
    if (status == TN_OK && strcmp(mode, "nearest") == 0 && !only_grows(climb, scales))
        return tn_fail(error, TN_ERROR_MODEL, "shrinks by nearest neighbour or by unknown scales");
    if (status == TN_OK)
        status = tn_edit_set_input(climb->model, proto, 2, scales, error);
    if (status == TN_OK)
        status = constant(climb, proto, "roi", TN_FLOAT, 1, 0, NULL, &roi, error);
    if (status == TN_OK)
        status = tn_edit_set_input(climb->model, proto, 1, roi, error);
    if (status == TN_OK)
        status = tn_edit_set_string(climb->model, proto, "coordinate_transformation_mode",
                                    "asymmetric", error);
    if (status == TN_OK && strcmp(mode, "nearest") == 0)
        status = tn_edit_set_string(climb->model, proto, "nearest_mode", "floor", error);
    return status;
}

static tn_status resize_13(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    tn_node node = view(climb, proto);
    char mode[32];
    tn_status status =
        tn_node_string(&node, "coordinate_transformation_mode", "", mode, sizeof mode, error);
    if (status == TN_OK && strcmp(mode, "tf_half_pixel_for_nn") == 0)
        return tn_fail(error, TN_ERROR_MODEL, "tf_half_pixel_for_nn was removed");
    /* Before 13 scales had to be there, empty, beside sizes; from 13 on it is one or the other. */
    if (status == TN_OK && input_name(proto, 3)[0])
        status = tn_edit_set_input(climb->model, proto, 2, "", error);
    return status;
}

static tn_status slice_10(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    tn_status status = ints_to_input(climb, proto, "starts", 1, error);
    if (status == TN_OK)
        status = ints_to_input(climb, proto, "ends", 2, error);
    return status == TN_OK ? ints_to_input(climb, proto, "axes", 3, error) : status;
}

/* The mask changes its type to BOOL: only an unused one may go along. */
static tn_status dropout_10(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    if (proto->n_output < 2 || !proto->output[1][0])
        return TN_OK;
    const tn_value *mask = value_of(climb, proto->output[1]);
    if (!mask || mask->n_users > 0 || mask->is_output)
        return tn_fail(error, TN_ERROR_MODEL, "its mask is used");
    proto->n_output = 1;
    return TN_OK;
}

static tn_status dropout_12(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    tn_node node = view(climb, proto);
    const char *name;
    float ratio;
    if (!tn_node_has_attribute(&node, "ratio"))
        return TN_OK;
    tn_status status = tn_node_float(&node, "ratio", 0.5f, &ratio, error);
    if (status == TN_OK)
        status = constant(climb, proto, "ratio", TN_FLOAT, 0, 1, &ratio, &name, error);
    if (status == TN_OK)
        status = tn_edit_set_input(climb->model, proto, 1, name, error);
    if (status == TN_OK)
        tn_edit_remove_attribute(proto, "ratio");
    return status;
}

static tn_status topk_10(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    tn_node node = view(climb, proto);
    int64_t k;
    const char *name;
    tn_status status = tn_node_int(&node, "k", 0, &k, error);
    if (status == TN_OK)
        status = constant(climb, proto, "k", TN_INT64, 1, 1, &k, &name, error);
    if (status == TN_OK)
        status = tn_edit_set_input(climb->model, proto, 1, name, error);
    if (status == TN_OK)
        tn_edit_remove_attribute(proto, "k");
    return status;
}

static tn_status clip_11(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    tn_status status = float_to_input(climb, proto, "min", 1, error);
    return status == TN_OK ? float_to_input(climb, proto, "max", 2, error) : status;
}

static tn_status pad_11(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    tn_node node = view(climb, proto);
    float value;
    tn_status status = tn_node_float(&node, "value", 0.0f, &value, error);
    if (status == TN_OK && value == 0)
        tn_edit_remove_attribute(proto, "value");
    if (status == TN_OK)
        status = ints_to_input(climb, proto, "pads", 1, error);
    return status == TN_OK ? float_to_input(climb, proto, "value", 2, error) : status;
}

static tn_status scatter_11(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    return rename_type(climb, proto, "ScatterElements", error);
}

static tn_status axes_to_input(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    return ints_to_input(climb, proto, "axes", 1, error);
}

static tn_status split_13(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    return ints_to_input(climb, proto, "split", 1, error);
}

static tn_status split_18(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    if (input_name(proto, 1)[0])
        return TN_OK;
    return tn_edit_set_int(climb->model, proto, "num_outputs", (int64_t)proto->n_output, error);
}

static size_t position_of(const tn_model *model, const Onnx__NodeProto *node)
{
    const Onnx__GraphProto *graph = model->proto->graph;
    size_t i = 0;
    while (i < graph->n_node && graph->node[i] != node)
        i++;
    return i;
}

/* Softmax over axes [axis, rank) as a matrix: Flatten, the operator on the last axis, and Reshape
 * back to the shape of the input. */
static tn_status flatten_around(tn_opset_climb *climb, Onnx__NodeProto *proto, int64_t axis,
                                tn_error *error)
{
    tn_model *model = climb->model;
    const char *data = input_name(proto, 0), *result = proto->output[0];
    const char *shape = tn_edit_unique_name(model, "softmax_shape");
    const char *matrix = tn_edit_unique_name(model, "softmax_matrix");
    const char *normal = tn_edit_unique_name(model, "softmax_rows");
    if (climb->in_subgraph)
        return tn_fail(error, TN_ERROR_MODEL, "over several axes, inside a subgraph");
    size_t at = position_of(model, proto);
    const char *from[] = {data, NULL}, *to_shape[] = {shape, NULL}, *to_matrix[] = {matrix, NULL};
    const char *back[] = {normal, shape, NULL}, *out[] = {result, NULL};
    Onnx__NodeProto *flatten = NULL, *added = NULL;
    if (shape && matrix && normal)
        added = tn_edit_add_node(model, at, "Shape", shape, from, to_shape);
    if (added)
        flatten = tn_edit_add_node(model, at + 1, "Flatten", matrix, from, to_matrix);
    if (flatten)
        added = tn_edit_add_node(model, at + 3, "Reshape", normal, back, out);
    char *own = flatten && added ? tn_arena_strdup(&model->arena, normal) : NULL;
    if (!own)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    proto->output[0] = own;
    tn_status status = tn_edit_set_int(model, flatten, "axis", axis, error);
    if (status == TN_OK)
        status = tn_edit_set_input(model, proto, 0, matrix, error);
    return status == TN_OK ? tn_edit_set_int(model, proto, "axis", -1, error) : status;
}

/* Below 13 the axis splits the input into a matrix whose rows are normalized; from 13 on it is the
 * one axis to normalize over. */
static tn_status softmax_13(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    tn_node node = view(climb, proto);
    const tn_value *data = value_of(climb, input_name(proto, 0));
    int64_t axis;
    tn_status status = tn_node_int(&node, "axis", 1, &axis, error);
    if (status != TN_OK)
        return status;
    if (axis == -1 || (data && data->rank >= 0 && axis == data->rank - 1))
        return tn_edit_set_int(climb->model, proto, "axis", axis, error);
    if (!data || data->rank < 0)
        return tn_fail(error, TN_ERROR_MODEL, "the rank of its input is not known");
    axis = axis < 0 ? axis + data->rank : axis;
    int64_t only = -1, wide = 0;
    for (int64_t i = axis; i >= 0 && i < data->rank; i++)
        if (data->dims[i] != 1) {
            only = i;
            wide++;
        }
    if (wide == 1 && data->dims[only] > 1)
        return tn_edit_set_int(climb->model, proto, "axis", only, error);
    return flatten_around(climb, proto, axis, error);
}

static tn_status roi_align_16(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    return tn_edit_set_string(climb->model, proto, "coordinate_transformation_mode",
                              "output_half_pixel", error);
}

static tn_status grid_sample_20(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    tn_node node = view(climb, proto);
    char mode[16];
    tn_status status = tn_node_string(&node, "mode", "bilinear", mode, sizeof mode, error);
    if (status != TN_OK || strncmp(mode, "bi", 2) != 0)
        return status;
    return tn_edit_set_string(climb->model, proto, "mode", mode + 2, error);
}

static tn_status dft_20(tn_opset_climb *climb, Onnx__NodeProto *proto, tn_error *error)
{
    tn_node node = view(climb, proto);
    int64_t axis;
    const char *name;
    tn_status status = tn_node_int(&node, "axis", 1, &axis, error);
    if (status == TN_OK)
        status = constant(climb, proto, "axis", TN_INT64, 0, 1, &axis, &name, error);
    if (status == TN_OK)
        status = tn_edit_set_input(climb->model, proto, 2, name, error);
    if (status == TN_OK)
        tn_edit_remove_attribute(proto, "axis");
    return status;
}

/* Every change of form or meaning among the standard's operators; what is not here only gained
 * types, optional inputs or attributes whose defaults keep the meaning. tests/onnx_io/ops checks
 * the list against the schemas of the onnx package. */
static const tn_opset_step steps[] = {
    {"BatchNormalization", 9, batch_normalization_9},
    {"Scan", 9, refuse_step},
    {"Upsample", 9, upsample_9},
    {"Affine", 10, refuse_removed},
    {"Crop", 10, refuse_removed},
    {"Dropout", 10, dropout_10},
    {"DynamicSlice", 10, refuse_removed},
    {"GivenTensorFill", 10, refuse_removed},
    {"ImageScaler", 10, refuse_removed},
    {"ParametricSoftplus", 10, refuse_removed},
    {"Scale", 10, refuse_removed},
    {"ScaledTanh", 10, refuse_removed},
    {"Slice", 10, slice_10},
    {"TopK", 10, topk_10},
    {"Upsample", 10, upsample_10},
    {"Clip", 11, clip_11},
    {"Pad", 11, pad_11},
    {"Resize", 11, resize_11},
    {"Scatter", 11, scatter_11},
    {"Dropout", 12, dropout_12},
    {"Hardmax", 13, softmax_13},
    {"LogSoftmax", 13, softmax_13},
    {"ReduceSum", 13, axes_to_input},
    {"Resize", 13, resize_13},
    {"Softmax", 13, softmax_13},
    {"Split", 13, split_13},
    {"Squeeze", 13, axes_to_input},
    {"Unsqueeze", 13, axes_to_input},
    {"BatchNormalization", 14, batch_normalization_14},
    {"RoiAlign", 16, roi_align_16},
    {"ReduceL1", 18, axes_to_input},
    {"ReduceL2", 18, axes_to_input},
    {"ReduceLogSum", 18, axes_to_input},
    {"ReduceLogSumExp", 18, axes_to_input},
    {"ReduceMax", 18, axes_to_input},
    {"ReduceMean", 18, axes_to_input},
    {"ReduceMin", 18, axes_to_input},
    {"ReduceProd", 18, axes_to_input},
    {"ReduceSumSquare", 18, axes_to_input},
    {"Split", 18, split_18},
    {"DFT", 20, dft_20},
    {"GridSample", 20, grid_sample_20},
    {"GroupNormalization", 21, refuse_step},
    {"Bernoulli", 22, refuse_missing},
    {"GlobalLpPool", 22, refuse_missing},
    {"MaxRoiPool", 22, refuse_missing},
    {"Multinomial", 22, refuse_missing},
    {"RandomNormal", 22, refuse_missing},
    {"RandomNormalLike", 22, refuse_missing},
    {"RandomUniform", 22, refuse_missing},
    {"RandomUniformLike", 22, refuse_missing},
    {"RoiAlign", 22, refuse_missing},
};

const tn_opset_step *tn_opset_step_at(size_t i)
{
    return i < sizeof steps / sizeof *steps ? &steps[i] : NULL;
}
