/* Cast and CastLike. */
#include "onnx_io/ops/elements.h"
#include "onnx_io/ops/functions.h"

#include <string.h>

tn_status tn_cast_infer(tn_node *node, tn_error *error)
{
    tn_shape shape = tn_op_shape(tn_op_input(node, 0));
    int64_t to = TN_UNDEFINED;
    tn_status status = TN_OK;
    if (node->n_inputs > 1) { /* CastLike */
        to = node->inputs[1]->dtype;
    } else {
        status = tn_node_int(node, "to", TN_UNDEFINED, &to, error);
        if (status == TN_OK && (to < TN_FLOAT || to > TN_INT2))
            return tn_fail(error, TN_ERROR_MODEL, "attribute to is %lld: no known type",
                           (long long)to);
    }
    return status == TN_OK ? tn_op_set_output(node, 0, (tn_dtype)to, &shape, error) : status;
}

/* The low `bits` of a value, extended by sign when the type has one: what a narrowing cast of
 * integers keeps. */
static int64_t narrow(int64_t value, int bits, bool is_signed)
{
    uint64_t mask = bits < 64 ? ((uint64_t)1 << bits) - 1 : UINT64_MAX,
             low = (uint64_t)value & mask;
    if (is_signed && bits < 64 && (low >> (bits - 1)) & 1)
        low |= ~mask;
    return (int64_t)low;
}

static bool is_signed_type(tn_dtype dtype)
{
    return dtype == TN_INT2 || dtype == TN_INT4 || dtype == TN_INT8 || dtype == TN_INT16 ||
           dtype == TN_INT32 || dtype == TN_INT64;
}

typedef union cast_lane {
    float f[TN_LANE];
    double d[TN_LANE];
    int64_t i[TN_LANE];
} cast_lane;

/* In place: a lane of `from` becomes what `to` stores. */
static void convert_lane(cast_lane *lane, int64_t n, tn_work from, tn_dtype target, tn_work to)
{
    bool to_bool = target == TN_BOOL, is_signed = is_signed_type(target);
    int bits = tn_dtype_bits(target);
    if (from == TN_WORK_INT && to == TN_WORK_FLOAT)
        for (int64_t i = 0; i < n; i++) {
            float value = (float)lane->i[i];
            memcpy(&lane->f[i], &value, sizeof value);
        }
    else if (from == TN_WORK_INT && to == TN_WORK_DOUBLE)
        for (int64_t i = 0; i < n; i++)
            lane->d[i] = (double)lane->i[i];
    else if (from == TN_WORK_INT)
        for (int64_t i = 0; i < n; i++)
            lane->i[i] = to_bool ? lane->i[i] != 0 : narrow(lane->i[i], bits, is_signed);
    else if (from == TN_WORK_DOUBLE && to == TN_WORK_INT)
        for (int64_t i = 0; i < n; i++)
            if (to_bool)
                lane->d[i] = lane->d[i] != 0;
}

/* float -> integer goes through double, whose store truncates and saturates. */
static tn_status cast_lanes(const tn_tensor *src, tn_tensor *dst, tn_error *error)
{
    bool from_float = tn_dtype_is_float(src->dtype), to_float = tn_dtype_is_float(dst->dtype);
    tn_work to = !to_float ? TN_WORK_INT : tn_work_of(dst->dtype);
    tn_work from = !from_float                                      ? TN_WORK_INT
                   : to == TN_WORK_FLOAT && src->dtype != TN_DOUBLE ? TN_WORK_FLOAT
                                                                    : TN_WORK_DOUBLE;
    int64_t count = tn_tensor_count(src);
    cast_lane lane;
    tn_status status = TN_OK;
    for (int64_t at = 0; status == TN_OK && at < count; at += TN_LANE) {
        int64_t n = count - at < TN_LANE ? count - at : TN_LANE;
        status = tn_lane_load(src, at, n, from, &lane, error);
        if (status != TN_OK)
            break;
        convert_lane(&lane, n, from, dst->dtype, to);
        status = tn_lane_store(dst, at, n, from_float ? from : to, &lane, error);
    }
    return status;
}

tn_status tn_cast_evaluate(const tn_node *node, const tn_tensor *const *inputs, tn_tensor *outputs,
                           tn_error *error)
{
    const tn_value *value = tn_op_output(node, 0);
    tn_dtype from = inputs[0]->dtype, to = value ? value->dtype : TN_UNDEFINED;
    if (from == to)
        return tn_op_output_view(node, inputs[0], &outputs[0], error);
    const tn_dtype both[2] = {from, to};
    for (int i = 0; i < 2; i++)
        if (!tn_dtype_is_float(both[i]) && !tn_dtype_is_integer(both[i]) && both[i] != TN_BOOL)
            return tn_fail(error, TN_ERROR_USAGE, "type %s is not evaluated",
                           tn_dtype_name(both[i]));
    tn_status status = tn_op_output_init(node, 0, &outputs[0], error);
    return status == TN_OK ? cast_lanes(inputs[0], &outputs[0], error) : status;
}
