#include "onnx_io/zoo/builder.h"

#include "core/checked.h"
#include "core/random.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool failed(const tn_zoo_builder *b)
{
    return b->status != TN_OK;
}

static void out_of_memory(tn_zoo_builder *b)
{
    if (!failed(b))
        b->status = tn_fail(b->error, TN_ERROR_LIMIT, "out of memory while building the network");
}

const char *tn_zoo_name(tn_zoo_builder *b, const char *fmt, ...)
{
    char text[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    const char *name = failed(b) ? NULL : tn_arena_strdup(&b->model->arena, text);
    if (!name)
        out_of_memory(b);
    return name ? name : "";
}

/* Zeroed room for a float initializer of the model; NULL after a failure. */
static float *add_floats(tn_zoo_builder *b, const char *name, int rank, const int64_t *dims)
{
    int64_t count;
    size_t bytes;
    if (!failed(b) && tn_cancelled(b->options.reporter))
        b->status = tn_fail(b->error, TN_ERROR_CANCELLED, "stopped");
    if (failed(b))
        return NULL;
    if (!tn_dims_count(rank, dims, &count) || !tn_dtype_bytes(TN_FLOAT, (uint64_t)count, &bytes)) {
        b->status = tn_fail(b->error, TN_ERROR_LIMIT, "tensor %s is too large", tn_quote(name));
        return NULL;
    }
    float *data = tn_arena_alloc(&b->model->arena, bytes);
    if (!data ||
        !tn_edit_add_initializer(b->model, name, TN_FLOAT, rank, dims, data, bytes, false)) {
        out_of_memory(b);
        return NULL;
    }
    return data;
}

/* [rows, cols] normal numbers; a row has its own stream, so threads do not change the result. */
static void fill_normal(tn_zoo_builder *b, float *data, int64_t rows, int64_t cols, double variance)
{
    const float deviation = (float)sqrt(variance);
    const uint64_t tensor = b->n_tensors++;
    const uint64_t seed = b->options.seed;
    if (!data)
        return;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++) {
        tn_random random = tn_random_make(seed, TN_PURPOSE_INIT, (uint32_t)r, tensor);
        for (int64_t i = 0; i < cols; i++)
            data[r * cols + i] = deviation * tn_random_normal(&random);
    }
}

static void fill(float *data, int64_t count, float value)
{
    for (int64_t i = 0; data && i < count; i++)
        data[i] = value;
}

static const char *add_int64s(tn_zoo_builder *b, const char *name, const int64_t *values,
                              int64_t count)
{
    if (!failed(b) && !tn_edit_add_initializer(b->model, name, TN_INT64, 1, &count, values,
                                               (size_t)count * sizeof *values, true))
        out_of_memory(b);
    return name;
}

/* Appends a node whose one output is "<name>_output", and gives that name. */
static Onnx__NodeProto *add_node(tn_zoo_builder *b, const char *type, const char *name,
                                 const char *const *inputs, const char **output)
{
    *output = tn_zoo_name(b, "%s_output", name);
    if (failed(b))
        return NULL;
    const char *outputs[] = {*output, NULL};
    Onnx__NodeProto *node = tn_edit_add_node(b->model, SIZE_MAX, type, name, inputs, outputs);
    if (!node)
        out_of_memory(b);
    return node;
}

static void set_int(tn_zoo_builder *b, Onnx__NodeProto *node, const char *name, int64_t value)
{
    if (!failed(b))
        b->status = tn_edit_set_int(b->model, node, name, value, b->error);
}

static void set_pair(tn_zoo_builder *b, Onnx__NodeProto *node, const char *name, int64_t h,
                     int64_t w, size_t count)
{
    const int64_t values[] = {h, w, h, w};
    if (!failed(b))
        b->status = tn_edit_set_ints(b->model, node, name, values, count, b->error);
}

static void set_window(tn_zoo_builder *b, Onnx__NodeProto *node, tn_zoo_window window)
{
    set_pair(b, node, "kernel_shape", window.kernel, window.kernel, 2);
    set_pair(b, node, "pads", window.pad, window.pad, 4);
    set_pair(b, node, "strides", window.stride, window.stride, 2);
    if (window.ceil_mode)
        set_int(b, node, "ceil_mode", 1);
}

/* Output side of a window; the error names the layer where nothing is left of the image. */
static int64_t window_side(tn_zoo_builder *b, const char *name, int64_t side, tn_zoo_window window)
{
    int64_t room = side + 2 * window.pad - window.kernel;
    if (failed(b) || side <= 0)
        return side;
    if (room < 0) {
        b->status =
            tn_fail(b->error, TN_ERROR_USAGE,
                    "the input is too small for this network: at %s only %lld pixels are "
                    "left a side, and its window needs %lld (give a larger --input)",
                    tn_quote(name), (long long)side, (long long)(window.kernel - 2 * window.pad));
        return 0;
    }
    return (room + (window.ceil_mode ? window.stride - 1 : 0)) / window.stride + 1;
}

static tn_zoo_value windowed(tn_zoo_builder *b, tn_zoo_value x, const char *name,
                             tn_zoo_window window, const char *output, int64_t channels)
{
    return (tn_zoo_value){.name = output,
                          .c = channels,
                          .h = window_side(b, name, x.h, window),
                          .w = window_side(b, name, x.w, window)};
}

tn_zoo_value tn_zoo_input(tn_zoo_builder *b)
{
    const int64_t *shape = b->options.input;
    const int64_t dims[] = {-1, shape[0], shape[1], shape[2]};
    if (!failed(b))
        b->status = tn_edit_add_input(b->model, "input", TN_FLOAT, 4, dims, b->error);
    return (tn_zoo_value){.name = "input", .c = shape[0], .h = shape[1], .w = shape[2]};
}

tn_zoo_value tn_zoo_conv(tn_zoo_builder *b, tn_zoo_value x, const char *name, int64_t channels,
                         tn_zoo_window window, bool bias)
{
    const int64_t dims[] = {channels, x.c, window.kernel, window.kernel};
    const char *weight = tn_zoo_name(b, "%s.weight", name);
    const char *bias_name = bias ? tn_zoo_name(b, "%s.bias", name) : NULL;
    int64_t fan_in = x.c * window.kernel * window.kernel;
    fill_normal(b, add_floats(b, weight, 4, dims), channels, fan_in, 2.0 / (double)fan_in);
    if (bias)
        add_floats(b, bias_name, 1, &channels);
    const char *inputs[] = {x.name, weight, bias_name, NULL};
    const char *output;
    Onnx__NodeProto *node = add_node(b, "Conv", name, inputs, &output);
    set_window(b, node, window);
    set_pair(b, node, "dilations", 1, 1, 2);
    set_int(b, node, "group", 1);
    tn_zoo_value y = windowed(b, x, name, window, output, channels);
    return failed(b) ? x : y;
}

tn_zoo_value tn_zoo_batch_norm(tn_zoo_builder *b, tn_zoo_value x, const char *name)
{
    const char *gamma = tn_zoo_name(b, "%s.weight", name);
    const char *beta = tn_zoo_name(b, "%s.bias", name);
    const char *mean = tn_zoo_name(b, "%s.running_mean", name);
    const char *variance = tn_zoo_name(b, "%s.running_var", name);
    fill(add_floats(b, gamma, 1, &x.c), x.c, 1.0f);
    add_floats(b, beta, 1, &x.c);
    add_floats(b, mean, 1, &x.c);
    fill(add_floats(b, variance, 1, &x.c), x.c, 1.0f);
    const char *inputs[] = {x.name, gamma, beta, mean, variance, NULL};
    const char *output;
    Onnx__NodeProto *node = add_node(b, "BatchNormalization", name, inputs, &output);
    if (!failed(b))
        b->status = tn_edit_set_float(b->model, node, "epsilon", 1e-5f, b->error);
    if (!failed(b))
        b->status = tn_edit_set_float(b->model, node, "momentum", 0.9f, b->error);
    if (!failed(b))
        x.name = output;
    return x;
}

/* A node without attributes or parameters that keeps the shape. */
static tn_zoo_value add_plain(tn_zoo_builder *b, tn_zoo_value x, const char *type, const char *name)
{
    const char *inputs[] = {x.name, NULL};
    const char *output;
    add_node(b, type, name, inputs, &output);
    if (!failed(b))
        x.name = output;
    return x;
}

tn_zoo_value tn_zoo_relu(tn_zoo_builder *b, tn_zoo_value x, const char *name)
{
    return add_plain(b, x, "Relu", name);
}

static tn_zoo_value add_pool(tn_zoo_builder *b, tn_zoo_value x, const char *type, const char *name,
                             tn_zoo_window window)
{
    const char *inputs[] = {x.name, NULL};
    const char *output;
    Onnx__NodeProto *node = add_node(b, type, name, inputs, &output);
    set_window(b, node, window);
    tn_zoo_value y = windowed(b, x, name, window, output, x.c);
    return failed(b) ? x : y;
}

tn_zoo_value tn_zoo_max_pool(tn_zoo_builder *b, tn_zoo_value x, const char *name,
                             tn_zoo_window window)
{
    return add_pool(b, x, "MaxPool", name, window);
}

tn_zoo_value tn_zoo_average_pool(tn_zoo_builder *b, tn_zoo_value x, const char *name,
                                 tn_zoo_window window)
{
    return add_pool(b, x, "AveragePool", name, window);
}

tn_zoo_value tn_zoo_pool_to(tn_zoo_builder *b, tn_zoo_value x, const char *name, int64_t side)
{
    if (x.h <= side && x.w <= side)
        return x;
    int64_t out_h = x.h < side ? x.h : side, out_w = x.w < side ? x.w : side;
    int64_t stride_h = x.h / out_h, stride_w = x.w / out_w;
    const char *inputs[] = {x.name, NULL};
    const char *output;
    Onnx__NodeProto *node = add_node(b, "AveragePool", name, inputs, &output);
    set_pair(b, node, "kernel_shape", x.h - (out_h - 1) * stride_h, x.w - (out_w - 1) * stride_w,
             2);
    set_pair(b, node, "strides", stride_h, stride_w, 2);
    return failed(b) ? x : (tn_zoo_value){.name = output, .c = x.c, .h = out_h, .w = out_w};
}

tn_zoo_value tn_zoo_global_pool(tn_zoo_builder *b, tn_zoo_value x, const char *name)
{
    tn_zoo_value y = add_plain(b, x, "GlobalAveragePool", name);
    y.h = y.w = 1;
    return y;
}

tn_zoo_value tn_zoo_add(tn_zoo_builder *b, tn_zoo_value x, tn_zoo_value y, const char *name)
{
    const char *inputs[] = {x.name, y.name, NULL};
    const char *output;
    add_node(b, "Add", name, inputs, &output);
    if (!failed(b))
        x.name = output;
    return x;
}

tn_zoo_value tn_zoo_concat(tn_zoo_builder *b, tn_zoo_value x, tn_zoo_value y, const char *name)
{
    const char *inputs[] = {x.name, y.name, NULL};
    const char *output;
    set_int(b, add_node(b, "Concat", name, inputs, &output), "axis", 1);
    if (failed(b))
        return x;
    return (tn_zoo_value){.name = output, .c = x.c + y.c, .h = x.h, .w = x.w};
}

tn_zoo_value tn_zoo_subsample(tn_zoo_builder *b, tn_zoo_value x, const char *name, int64_t channels)
{
    const int64_t starts[] = {0, 0}, ends[] = {INT64_MAX, INT64_MAX}, axes[] = {2, 3},
                  steps[] = {2, 2};
    int64_t before = (channels - x.c) / 2, after = channels - x.c - before;
    const int64_t pads[] = {0, before, 0, 0, 0, after, 0, 0};
    const char *slice_inputs[] = {x.name,
                                  add_int64s(b, tn_zoo_name(b, "%s.starts", name), starts, 2),
                                  add_int64s(b, tn_zoo_name(b, "%s.ends", name), ends, 2),
                                  add_int64s(b, tn_zoo_name(b, "%s.axes", name), axes, 2),
                                  add_int64s(b, tn_zoo_name(b, "%s.steps", name), steps, 2),
                                  NULL};
    const char *sliced, *output;
    add_node(b, "Slice", tn_zoo_name(b, "%s.slice", name), slice_inputs, &sliced);
    const char *pad_inputs[] = {sliced, add_int64s(b, tn_zoo_name(b, "%s.pads", name), pads, 8),
                                NULL};
    Onnx__NodeProto *node = add_node(b, "Pad", tn_zoo_name(b, "%s.pad", name), pad_inputs, &output);
    if (!failed(b))
        b->status = tn_edit_set_string(b->model, node, "mode", "constant", b->error);
    if (failed(b))
        return x;
    return (tn_zoo_value){.name = output, .c = channels, .h = (x.h + 1) / 2, .w = (x.w + 1) / 2};
}

tn_zoo_value tn_zoo_dropout(tn_zoo_builder *b, tn_zoo_value x, const char *name, float ratio)
{
    const char *ratio_name = tn_zoo_name(b, "%s.ratio", name);
    float *data = add_floats(b, ratio_name, 0, NULL);
    if (data)
        *data = ratio;
    const char *inputs[] = {x.name, ratio_name, NULL};
    const char *output;
    add_node(b, "Dropout", name, inputs, &output);
    if (!failed(b))
        x.name = output;
    return x;
}

tn_zoo_value tn_zoo_flatten(tn_zoo_builder *b, tn_zoo_value x, const char *name)
{
    const char *inputs[] = {x.name, NULL};
    const char *output;
    int64_t count = 0;
    set_int(b, add_node(b, "Flatten", name, inputs, &output), "axis", 1);
    if (failed(b))
        return x;
    if (!tn_checked_mul_i64(x.h, x.w, &count) || !tn_checked_mul_i64(count, x.c, &count)) {
        b->status =
            tn_fail(b->error, TN_ERROR_LIMIT, "the input is too large at %s", tn_quote(name));
        return x;
    }
    return (tn_zoo_value){.name = output, .c = count};
}

tn_zoo_value tn_zoo_linear(tn_zoo_builder *b, tn_zoo_value x, const char *name, int64_t features,
                           bool last)
{
    const int64_t dims[] = {features, x.c};
    const char *weight = tn_zoo_name(b, "%s.weight", name);
    const char *bias = tn_zoo_name(b, "%s.bias", name);
    fill_normal(b, add_floats(b, weight, 2, dims), features, x.c, (last ? 1.0 : 2.0) / (double)x.c);
    add_floats(b, bias, 1, &features);
    const char *inputs[] = {x.name, weight, bias, NULL};
    const char *output;
    set_int(b, add_node(b, "Gemm", name, inputs, &output), "transB", 1);
    return failed(b) ? x : (tn_zoo_value){.name = output, .c = features};
}

void tn_zoo_output(tn_zoo_builder *b, tn_zoo_value x)
{
    if (failed(b))
        return;
    Onnx__GraphProto *graph = b->model->proto->graph;
    Onnx__NodeProto *last = graph->node[graph->n_node - 1];
    last->output[0] = tn_arena_strdup(&b->model->arena, "logits");
    if (!last->output[0]) {
        out_of_memory(b);
        return;
    }
    const int64_t dims[] = {-1, x.c};
    b->status = tn_edit_add_output(b->model, "logits", TN_FLOAT, 2, dims, b->error);
}
