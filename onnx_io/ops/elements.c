#include "onnx_io/ops/elements.h"

#include <string.h>

tn_status tn_op_output_init(const tn_node *node, size_t k, tn_tensor *output, tn_error *error)
{
    const tn_value *value = tn_op_output(node, k);
    if (!value) {
        *output = (tn_tensor){0};
        return TN_OK;
    }
    tn_shape shape = tn_op_shape(value);
    if (!tn_shape_is_known(&shape) || tn_dtype_bits(value->dtype) == 0)
        return tn_fail(error, TN_ERROR_USAGE, "the shape or type of output %zu is not known", k);
    return tn_tensor_init(output, value->dtype, shape.rank, shape.dims, error);
}

tn_status tn_op_output_view(const tn_node *node, const tn_tensor *source, tn_tensor *output,
                            tn_error *error)
{
    const tn_value *value = tn_op_output(node, 0);
    tn_shape shape = tn_op_shape(value);
    if (!value) {
        *output = (tn_tensor){0};
        return TN_OK;
    }
    if (tn_shape_count(&shape) != tn_tensor_count(source))
        return tn_fail(error, TN_ERROR_USAGE, "the shape of output 0 is not known");
    *output = *source;
    output->owned = false;
    output->rank = shape.rank;
    for (int i = 0; i < shape.rank; i++)
        output->dims[i] = shape.dims[i];
    return TN_OK;
}

void tn_strides_of(int rank, const int64_t *dims, int64_t *strides)
{
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        strides[i] = stride;
        stride *= dims[i];
    }
}

/* Drops axes of size 1 and joins neighbours that are one axis in both tensors. */
static tn_block block_collapse(const tn_block *block)
{
    tn_block out = {.src_offset = block->src_offset, .dst_offset = block->dst_offset};
    for (int i = 0; i < block->rank; i++) {
        int last = out.rank - 1;
        if (block->dims[i] == 1)
            continue;
        if (last >= 0 && out.src_stride[last] == block->src_stride[i] * block->dims[i] &&
            out.dst_stride[last] == block->dst_stride[i] * block->dims[i]) {
            out.dims[last] *= block->dims[i];
            out.src_stride[last] = block->src_stride[i];
            out.dst_stride[last] = block->dst_stride[i];
            continue;
        }
        out.dims[out.rank] = block->dims[i];
        out.src_stride[out.rank] = block->src_stride[i];
        out.dst_stride[out.rank] = block->dst_stride[i];
        out.rank++;
    }
    if (out.rank == 0) {
        out.rank = 1;
        out.dims[0] = out.src_stride[0] = out.dst_stride[0] = 1;
    }
    return out;
}

#define COPY_ROW(type)                                                                             \
    for (int64_t i = 0; i < n; i++) {                                                              \
        type element;                                                                              \
        memcpy(&element, src + i * src_stride * (int64_t)sizeof(type), sizeof(type));              \
        memcpy(dst + i * dst_stride * (int64_t)sizeof(type), &element, sizeof(type));              \
    }

static void copy_row(int64_t n, size_t size, const unsigned char *src, int64_t src_stride,
                     unsigned char *dst, int64_t dst_stride)
{
    if (src_stride == 1 && dst_stride == 1) {
        memcpy(dst, src, (size_t)n * size);
        return;
    }
    switch (size) {
    case 1:
        COPY_ROW(uint8_t)
        break;
    case 2:
        COPY_ROW(uint16_t)
        break;
    case 4:
        COPY_ROW(uint32_t)
        break;
    default:
        COPY_ROW(uint64_t)
    }
}

static tn_status copy_packed_row(int64_t n, const tn_tensor *src, int64_t src_at,
                                 int64_t src_stride, tn_tensor *dst, int64_t dst_at,
                                 int64_t dst_stride, tn_error *error)
{
    tn_status status = TN_OK;
    for (int64_t i = 0; status == TN_OK && i < n; i++) {
        int64_t element;
        status = tn_tensor_read_int64(src, src_at + i * src_stride, 1, &element, error);
        if (status == TN_OK)
            status = tn_tensor_write_int64(dst, dst_at + i * dst_stride, 1, &element, error);
    }
    return status;
}

tn_status tn_block_copy(const tn_block *block, const tn_tensor *src, tn_tensor *dst,
                        tn_error *error)
{
    for (int i = 0; i < block->rank; i++)
        if (block->dims[i] == 0)
            return TN_OK;
    int bits = tn_dtype_bits(src->dtype);
    if (bits == 0 || bits > 64 || src->dtype != dst->dtype)
        return tn_fail(error, TN_ERROR_USAGE, "elements of type %s are not copied",
                       tn_dtype_name(src->dtype));
    tn_block b = block_collapse(block);
    int inner = b.rank - 1;
    int64_t index[2 * TN_MAX_RANK] = {0}, src_at = b.src_offset, dst_at = b.dst_offset;
    int64_t size = bits / 8;
    const unsigned char *from = src->data;
    unsigned char *to = dst->data;
    for (;;) {
        if (bits >= 8) {
            copy_row(b.dims[inner], (size_t)size, from + src_at * size, b.src_stride[inner],
                     to + dst_at * size, b.dst_stride[inner]);
        } else {
            tn_status status = copy_packed_row(b.dims[inner], src, src_at, b.src_stride[inner], dst,
                                               dst_at, b.dst_stride[inner], error);
            if (status != TN_OK)
                return status;
        }
        int axis = inner - 1;
        for (; axis >= 0; axis--) {
            src_at += b.src_stride[axis];
            dst_at += b.dst_stride[axis];
            if (++index[axis] < b.dims[axis])
                break;
            src_at -= b.src_stride[axis] * b.dims[axis];
            dst_at -= b.dst_stride[axis] * b.dims[axis];
            index[axis] = 0;
        }
        if (axis < 0)
            return TN_OK;
    }
}

tn_work tn_work_of(tn_dtype dtype)
{
    switch (dtype) {
    case TN_FLOAT:
    case TN_FLOAT16:
    case TN_BFLOAT16:
        return TN_WORK_FLOAT;
    case TN_DOUBLE:
        return TN_WORK_DOUBLE;
    case TN_UINT8:
    case TN_INT8:
    case TN_UINT16:
    case TN_INT16:
    case TN_UINT32:
    case TN_INT32:
    case TN_INT64:
    case TN_BOOL:
        return TN_WORK_INT;
    default:
        return TN_WORK_NONE;
    }
}

static size_t work_size(tn_work work)
{
    return work == TN_WORK_FLOAT ? sizeof(float) : sizeof(int64_t);
}

#define LOAD_AS(stored, wide)                                                                      \
    for (int64_t i = 0; i < n; i++) {                                                              \
        stored element;                                                                            \
        memcpy(&element, data + i * (int64_t)sizeof(stored), sizeof(stored));                      \
        ((wide *)dst)[i] = (wide)element;                                                          \
    }                                                                                              \
    return TN_OK;

/* 2 and 4 bit elements, low bits first. */
static void load_packed(const tn_tensor *tensor, int64_t first, int64_t n, int64_t *dst)
{
    const unsigned char *data = tensor->data;
    unsigned bits = (unsigned)tn_dtype_bits(tensor->dtype), mask = (1u << bits) - 1;
    unsigned sign = tensor->dtype == TN_INT2 || tensor->dtype == TN_INT4 ? 1u << (bits - 1) : 0;
    for (int64_t i = 0; i < n; i++) {
        uint64_t bit = (uint64_t)(first + i) * bits;
        unsigned code = ((unsigned)data[bit / 8] >> (bit % 8)) & mask;
        dst[i] = (int64_t)(code ^ sign) - (int64_t)sign;
    }
}

/* Loops of their own for the types weights are packed in; others go through core/tensor.h. */
static tn_status load_integers(const tn_tensor *tensor, int64_t first, int64_t n, int64_t *dst,
                               tn_error *error)
{
    const unsigned char *data = tensor->data;
    switch (tensor->dtype) {
    case TN_UINT8:
        data += first;
        LOAD_AS(uint8_t, int64_t)
    case TN_INT8:
        data += first;
        LOAD_AS(int8_t, int64_t)
    case TN_INT32:
        data += first * 4;
        LOAD_AS(int32_t, int64_t)
    case TN_INT64:
        memcpy(dst, data + first * 8, (size_t)n * sizeof(int64_t));
        return TN_OK;
    case TN_INT2:
    case TN_UINT2:
    case TN_INT4:
    case TN_UINT4:
        load_packed(tensor, first, n, dst);
        return TN_OK;
    default:
        return tn_tensor_read_int64(tensor, first, n, dst, error);
    }
}

tn_status tn_lane_load(const tn_tensor *tensor, int64_t first, int64_t n, tn_work work, void *dst,
                       tn_error *error)
{
    switch (work) {
    case TN_WORK_FLOAT:
        return tn_tensor_read_float(tensor, first, n, dst, error);
    case TN_WORK_DOUBLE:
        return tn_tensor_read_double(tensor, first, n, dst, error);
    case TN_WORK_INT:
        return load_integers(tensor, first, n, dst, error);
    default:
        return tn_fail(error, TN_ERROR_USAGE, "arithmetic on type %s is not supported",
                       tn_dtype_name(tensor->dtype));
    }
}

#define STORE_AS(stored, wide)                                                                     \
    for (int64_t i = 0; i < n; i++)                                                                \
        ((stored *)at)[i] = (stored)((const wide *)src)[i];                                        \
    return TN_OK;

static tn_status store_integers(tn_tensor *tensor, int64_t first, int64_t n, const int64_t *src,
                                tn_error *error)
{
    if (tn_work_of(tensor->dtype) != TN_WORK_INT)
        return tn_tensor_write_int64(tensor, first, n, src, error);
    void *at =
        (unsigned char *)tensor->data + (size_t)first * ((size_t)tn_dtype_bits(tensor->dtype) / 8);
    switch (tensor->dtype) {
    case TN_BOOL:
        for (int64_t i = 0; i < n; i++)
            ((uint8_t *)at)[i] = src[i] != 0;
        return TN_OK;
    case TN_UINT8:
    case TN_INT8:
        STORE_AS(uint8_t, int64_t)
    case TN_UINT16:
    case TN_INT16:
        STORE_AS(uint16_t, int64_t)
    case TN_UINT32:
    case TN_INT32:
        STORE_AS(uint32_t, int64_t)
    default:
        memcpy(at, src, (size_t)n * sizeof(int64_t));
        return TN_OK;
    }
}

static tn_status store_floats(tn_tensor *tensor, int64_t first, int64_t n, const float *src,
                              tn_error *error)
{
    if (tensor->dtype == TN_FLOAT) {
        memcpy((float *)tensor->data + first, src, (size_t)n * sizeof(float));
        return TN_OK;
    }
    tn_status status = TN_OK;
    for (int64_t i = 0; status == TN_OK && i < n; i++) {
        double wide = (double)src[i];
        status = tn_tensor_write_double(tensor, first + i, 1, &wide, error);
    }
    return status;
}

tn_status tn_lane_store(tn_tensor *tensor, int64_t first, int64_t n, tn_work work, const void *src,
                        tn_error *error)
{
    switch (work) {
    case TN_WORK_FLOAT:
        return store_floats(tensor, first, n, src, error);
    case TN_WORK_DOUBLE:
        return tn_tensor_write_double(tensor, first, n, src, error);
    case TN_WORK_INT:
        return store_integers(tensor, first, n, src, error);
    default:
        return tn_fail(error, TN_ERROR_USAGE, "arithmetic on type %s is not supported",
                       tn_dtype_name(tensor->dtype));
    }
}

/* The shape of the output with neighbouring axes joined where every operand either has both or
 * broadcasts over both. */
typedef struct map_space {
    int rank;
    int64_t dims[TN_MAX_RANK];
    int64_t stride[TN_MAP_INPUTS][TN_MAX_RANK];
} map_space;

static map_space map_space_of(int n_inputs, const tn_tensor *const *inputs, const tn_tensor *output)
{
    map_space space = {0};
    int64_t full[TN_MAP_INPUTS][TN_MAX_RANK] = {{0}};
    for (int j = 0; j < n_inputs; j++) {
        int64_t own[TN_MAX_RANK];
        tn_strides_of(inputs[j]->rank, inputs[j]->dims, own);
        for (int i = 0, lead = output->rank - inputs[j]->rank; i < inputs[j]->rank; i++)
            full[j][lead + i] = inputs[j]->dims[i] == 1 ? 0 : own[i];
    }
    for (int i = 0; i < output->rank; i++) {
        int last = space.rank - 1;
        bool joins = last >= 0;
        for (int j = 0; j < n_inputs && joins; j++)
            joins = space.stride[j][last] == full[j][i] * output->dims[i];
        if (output->dims[i] == 1)
            continue;
        if (!joins)
            space.dims[last = space.rank++] = 1;
        space.dims[last] *= output->dims[i];
        for (int j = 0; j < n_inputs; j++)
            space.stride[j][last] = full[j][i];
    }
    if (space.rank == 0)
        space.dims[space.rank++] = 1;
    return space;
}

typedef union tn_lane_buffer {
    float f[TN_LANE];
    double d[TN_LANE];
    int64_t i[TN_LANE];
} tn_lane_buffer;

/* Repeats the first element of a lane. */
static void lane_repeat(void *lane, size_t size, int64_t n)
{
    tn_lane_buffer *buffer = lane;
    for (int64_t i = 1; i < n && size == sizeof(float); i++)
        buffer->f[i] = buffer->f[0];
    for (int64_t i = 1; i < n && size == sizeof(int64_t); i++)
        buffer->i[i] = buffer->i[0];
}

static tn_status map_row(const tn_map *map, const map_space *space, const tn_tensor *const *inputs,
                         const int64_t *at, int64_t out_at, tn_tensor *output, tn_error *error)
{
    tn_lane_buffer lanes[TN_MAP_INPUTS], result;
    const void *in[TN_MAP_INPUTS];
    int inner = space->rank - 1;
    tn_status status = TN_OK;
    for (int64_t done = 0; done < space->dims[inner]; done += TN_LANE) {
        int64_t n = space->dims[inner] - done < TN_LANE ? space->dims[inner] - done : TN_LANE;
        for (int j = 0; j < map->n_inputs; j++) {
            bool dense = space->stride[j][inner] != 0;
            in[j] = &lanes[j];
            status = tn_lane_load(inputs[j], dense ? at[j] + done : at[j], dense ? n : 1,
                                  map->in[j], &lanes[j], error);
            if (status != TN_OK)
                return status;
            if (!dense)
                lane_repeat(&lanes[j], work_size(map->in[j]), n);
        }
        map->kernel(map->context, n, in, &result);
        status = tn_lane_store(output, out_at + done, n, map->out, &result, error);
        if (status != TN_OK)
            return status;
    }
    return status;
}

tn_status tn_map_run(const tn_map *map, const tn_tensor *const *inputs, tn_tensor *output,
                     tn_error *error)
{
    if (tn_tensor_count(output) == 0)
        return TN_OK;
    map_space space = map_space_of(map->n_inputs, inputs, output);
    int64_t index[TN_MAX_RANK] = {0}, at[TN_MAP_INPUTS] = {0}, out_at = 0;
    int inner = space.rank - 1;
    for (;;) {
        tn_status status = map_row(map, &space, inputs, at, out_at, output, error);
        if (status != TN_OK)
            return status;
        out_at += space.dims[inner];
        int axis = inner - 1;
        for (; axis >= 0; axis--) {
            bool wraps = ++index[axis] == space.dims[axis];
            for (int j = 0; j < map->n_inputs; j++)
                at[j] += space.stride[j][axis] * (wraps ? 1 - space.dims[axis] : 1);
            if (!wraps)
                break;
            index[axis] = 0;
        }
        if (axis < 0)
            return TN_OK;
    }
}
