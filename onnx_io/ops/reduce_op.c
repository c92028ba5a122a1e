/* Reduce*, ArgMax, ArgMin, TopK. Axes are an attribute below opset 18 (ReduceSum: 13), an input
 * from there on. */
#include "core/memory.h"
#include "onnx_io/ops/elements.h"
#include "onnx_io/ops/functions.h"

#include <math.h>
#include <string.h>

typedef struct reduction {
    bool known; /* which axes */
    bool keep;
    bool over[TN_MAX_RANK];
} reduction;

static tn_status read_reduction(const tn_node *node, const tn_tensor *axes_input, int rank,
                                reduction *r, tn_error *error)
{
    int64_t keep, no_op = 0, limit = !strcmp(node->type, "ReduceSum") ? 13 : 18;
    int marks[TN_MAX_RANK];
    tn_int_list axes;
    tn_status status = tn_node_int(node, "keepdims", 1, &keep, error);
    if (status == TN_OK && node->model->opset < limit) {
        status = tn_int_list_from_attribute(node, "axes", &axes, error);
    } else if (status == TN_OK) {
        status = tn_int_list_from_input(node, 1, axes_input, "axes", &axes, error);
        if (status == TN_OK)
            status = tn_node_int(node, "noop_with_empty_axes", 0, &no_op, error);
    }
    if (status == TN_OK)
        status = tn_axes_mark(&axes, rank, marks, error);
    if (status != TN_OK)
        return status;
    r->known = axes.known;
    r->keep = keep != 0;
    for (int i = 0; i < rank; i++)
        r->over[i] = axes.count ? marks[i] != 0 : no_op == 0;
    return TN_OK;
}

tn_status tn_reduce_infer(tn_node *node, tn_error *error)
{
    tn_shape data = tn_op_shape(tn_op_input(node, 0)), out = {.rank = TN_RANK_UNKNOWN};
    reduction r;
    if (data.rank >= 0) {
        tn_status status = read_reduction(node, tn_op_constant(node, 1), data.rank, &r, error);
        if (status != TN_OK)
            return status;
        if (r.known || r.keep)
            out.rank = 0;
        for (int i = 0; out.rank >= 0 && i < data.rank; i++)
            if (!r.known)
                out.dims[out.rank++] = TN_DIM_UNKNOWN;
            else if (!r.over[i] || r.keep)
                out.dims[out.rank++] = r.over[i] ? 1 : data.dims[i];
    }
    return tn_op_set_output(node, 0, node->inputs[0]->dtype, &out, error);
}

typedef enum reduce_kind {
    REDUCE_SUM,
    REDUCE_MEAN,
    REDUCE_MAX,
    REDUCE_MIN,
    REDUCE_PROD,
    REDUCE_L1,
    REDUCE_L2,
    REDUCE_SQUARES,
    REDUCE_LOG_SUM,
    REDUCE_KINDS
} reduce_kind;

static reduce_kind kind_of(const tn_node *node)
{
    static const char *const types[] = {"ReduceSum", "ReduceMean",      "ReduceMax",
                                        "ReduceMin", "ReduceProd",      "ReduceL1",
                                        "ReduceL2",  "ReduceSumSquare", "ReduceLogSum"};
    int kind = 0;
    while (kind < REDUCE_KINDS && strcmp(node->type, types[kind]) != 0)
        kind++;
    return (reduce_kind)kind;
}

static double accumulate(reduce_kind kind, double sum, double x)
{
    switch (kind) {
    case REDUCE_MAX:
        return x > sum || x != x ? x : sum;
    case REDUCE_MIN:
        return x < sum || x != x ? x : sum;
    case REDUCE_PROD:
        return sum * x;
    case REDUCE_L1:
        return sum + fabs(x);
    case REDUCE_L2:
    case REDUCE_SQUARES:
        return sum + x * x;
    default:
        return sum + x;
    }
}

static double finish(reduce_kind kind, double sum, double count)
{
    switch (kind) {
    case REDUCE_MEAN:
        return sum / count;
    case REDUCE_L2:
        return sqrt(sum);
    case REDUCE_LOG_SUM:
        return log(sum);
    default:
        return sum;
    }
}

/* The two halves of a reduction as blocks: positions of the results, and what each sums over. */
typedef struct reduce_space {
    int kept, summed;
    int64_t kept_dims[TN_MAX_RANK], kept_stride[TN_MAX_RANK];
    int64_t sum_dims[TN_MAX_RANK], sum_stride[TN_MAX_RANK];
} reduce_space;

static reduce_space space_of(const tn_tensor *data, const bool *over)
{
    reduce_space s = {0};
    int64_t strides[TN_MAX_RANK];
    tn_strides_of(data->rank, data->dims, strides);
    for (int i = 0; i < data->rank; i++) {
        int *n = over[i] ? &s.summed : &s.kept;
        (over[i] ? s.sum_dims : s.kept_dims)[*n] = data->dims[i];
        (over[i] ? s.sum_stride : s.kept_stride)[*n] = strides[i];
        ++*n;
    }
    return s;
}

/* Row-major successor of an index; returns the change of the offset. */
static int64_t advance(int rank, const int64_t *dims, const int64_t *stride, int64_t *index)
{
    int64_t change = 0;
    for (int i = rank - 1; i >= 0; i--) {
        change += stride[i];
        if (++index[i] < dims[i])
            break;
        change -= stride[i] * dims[i];
        index[i] = 0;
    }
    return change;
}

static tn_status reduce_run(reduce_kind kind, const tn_tensor *data, const bool *over,
                            tn_tensor *output, tn_error *error)
{
    reduce_space s = space_of(data, over);
    int64_t results = tn_tensor_count(output), each = 1, at = 0, index[TN_MAX_RANK] = {0};
    tn_status status = TN_OK;
    if (!tn_dims_count(s.summed, s.sum_dims, &each) ||
        (each == 0 && (kind == REDUCE_MAX || kind == REDUCE_MIN)))
        return tn_fail(error, TN_ERROR_USAGE, "nothing to reduce");
    for (int64_t r = 0; status == TN_OK && r < results; r++) {
        int64_t inner[TN_MAX_RANK] = {0}, from = at;
        double sum = kind == REDUCE_PROD ? 1 : 0, x;
        for (int64_t k = 0; status == TN_OK && k < each; k++) {
            status = tn_tensor_read_double(data, from, 1, &x, error);
            bool starts = k == 0 && (kind == REDUCE_MAX || kind == REDUCE_MIN);
            sum = starts ? x : accumulate(kind, sum, x);
            from += advance(s.summed, s.sum_dims, s.sum_stride, inner);
        }
        sum = finish(kind, sum, (double)each);
        if (status == TN_OK)
            status = tn_tensor_write_double(output, r, 1, &sum, error);
        at += advance(s.kept, s.kept_dims, s.kept_stride, index);
    }
    return status;
}

tn_status tn_reduce_evaluate(const tn_node *node, const tn_tensor *const *inputs,
                             tn_tensor *outputs, tn_error *error)
{
    reduce_kind kind = kind_of(node);
    reduction r;
    if (kind == REDUCE_KINDS || tn_work_of(inputs[0]->dtype) == TN_WORK_NONE)
        return tn_fail(error, TN_ERROR_USAGE, "not evaluated for type %s",
                       tn_dtype_name(inputs[0]->dtype));
    tn_status status =
        read_reduction(node, node->n_inputs > 1 ? inputs[1] : NULL, inputs[0]->rank, &r, error);
    if (status == TN_OK)
        status = tn_op_output_init(node, 0, &outputs[0], error);
    return status == TN_OK ? reduce_run(kind, inputs[0], r.over, &outputs[0], error) : status;
}

tn_status tn_arg_infer(tn_node *node, tn_error *error)
{
    tn_shape data = tn_op_shape(tn_op_input(node, 0)), out = {.rank = TN_RANK_UNKNOWN};
    int64_t attribute, keep;
    int axis = 0;
    tn_status status = tn_node_int(node, "axis", 0, &attribute, error);
    if (status == TN_OK)
        status = tn_node_int(node, "keepdims", 1, &keep, error);
    if (status == TN_OK && data.rank >= 0) {
        status = tn_axis_resolve(attribute, data.rank, &axis, error);
        out.rank = 0;
        for (int i = 0; status == TN_OK && i < data.rank; i++)
            if (i != axis || keep)
                out.dims[out.rank++] = i == axis ? 1 : data.dims[i];
    }
    return status == TN_OK ? tn_op_set_output(node, 0, TN_INT64, &out, error) : status;
}

tn_status tn_arg_evaluate(const tn_node *node, const tn_tensor *const *inputs, tn_tensor *outputs,
                          tn_error *error)
{
    const tn_tensor *data = inputs[0];
    int64_t attribute, last = 0, index[TN_MAX_RANK] = {0}, at = 0;
    bool over[TN_MAX_RANK] = {false}, lowest = !strcmp(node->type, "ArgMin");
    int axis = 0;
    tn_status status = tn_node_int(node, "axis", 0, &attribute, error);
    if (status == TN_OK)
        status = tn_node_int(node, "select_last_index", 0, &last, error);
    if (status == TN_OK)
        status = tn_axis_resolve(attribute, data->rank, &axis, error);
    if (status == TN_OK && (data->dims[axis] == 0 || tn_work_of(data->dtype) == TN_WORK_NONE))
        return tn_fail(error, TN_ERROR_USAGE, "nothing to compare");
    if (status == TN_OK)
        status = tn_op_output_init(node, 0, &outputs[0], error);
    if (status != TN_OK)
        return status;
    over[axis] = true;
    reduce_space s = space_of(data, over);
    int64_t results = tn_tensor_count(&outputs[0]);
    for (int64_t r = 0; status == TN_OK && r < results; r++) {
        int64_t best = 0;
        double found = 0, x;
        for (int64_t k = 0; status == TN_OK && k < data->dims[axis]; k++) {
            status = tn_tensor_read_double(data, at + k * s.sum_stride[0], 1, &x, error);
            bool better = lowest ? x < found : x > found;
            if (k == 0 || better || (last && x == found)) {
                best = k;
                found = x;
            }
        }
        if (status == TN_OK)
            status = tn_tensor_write_int64(&outputs[0], r, 1, &best, error);
        at += advance(s.kept, s.kept_dims, s.kept_stride, index);
    }
    return status;
}

/* K is an attribute below opset 10. */
tn_status tn_topk_infer(tn_node *node, tn_error *error)
{
    tn_shape out = tn_op_shape(tn_op_input(node, 0));
    tn_int_list k;
    int64_t attribute, value = TN_DIM_UNKNOWN;
    int axis = 0;
    tn_status status = tn_node_int(node, "axis", -1, &attribute, error);
    if (status == TN_OK && out.rank >= 0)
        status = tn_axis_resolve(attribute, out.rank, &axis, error);
    if (status == TN_OK && node->model->opset < 10)
        status = tn_node_int(node, "k", 0, &value, error);
    else if (status == TN_OK)
        status = tn_int_list_from_input(node, 1, tn_op_constant(node, 1), "K values", &k, error);
    if (status != TN_OK)
        return status;
    if (node->model->opset >= 10 && k.known)
        value = k.count == 1 ? k.values[0] : 0;
    int64_t dim = out.rank >= 0 ? out.dims[axis] : TN_DIM_UNKNOWN;
    if (value != TN_DIM_UNKNOWN && (value < 0 || (dim >= 0 && value > dim)))
        return tn_fail(error, TN_ERROR_MODEL, "K is %lld on an axis of size %lld", (long long)value,
                       (long long)dim);
    if (out.rank >= 0)
        out.dims[axis] = value;
    status = tn_op_set_output(node, 0, node->inputs[0]->dtype, &out, error);
    return status == TN_OK ? tn_op_set_output(node, 1, TN_INT64, &out, error) : status;
}
