/* Layers of zoo/ networks. A value carries its shape; the first failure sticks in the builder, and
 * every later call is then a no-op that gives back its input: families read as the papers do. */
#ifndef TERNION_ONNX_IO_ZOO_BUILDER_H
#define TERNION_ONNX_IO_ZOO_BUILDER_H

#include "onnx_io/edit.h"
#include "onnx_io/zoo/zoo.h"

typedef struct tn_zoo_builder {
    tn_model *model;
    tn_zoo_options options; /* resolved */
    uint64_t n_tensors;     /* numbers the weights: the sample of their random stream */
    tn_status status;
    tn_error *error;
} tn_zoo_builder;

typedef struct tn_zoo_value {
    const char *name;
    int64_t c, h, w; /* h = w = 0: flat, [batch, c] */
} tn_zoo_value;

typedef struct tn_zoo_window {
    int64_t kernel, stride, pad;
    bool ceil_mode; /* pooling only */
} tn_zoo_window;

/* printf into the model's arena; "" after a failure. */
const char *tn_zoo_name(tn_zoo_builder *builder, const char *fmt, ...) TN_PRINTF(2, 3);

/* `name` is the module path ("layer1.0.conv1"): node names are it, tensors add .weight and so on.
 */
tn_zoo_value tn_zoo_input(tn_zoo_builder *builder);
tn_zoo_value tn_zoo_conv(tn_zoo_builder *builder, tn_zoo_value x, const char *name,
                         int64_t channels, tn_zoo_window window, bool bias);
tn_zoo_value tn_zoo_batch_norm(tn_zoo_builder *builder, tn_zoo_value x, const char *name);
tn_zoo_value tn_zoo_relu(tn_zoo_builder *builder, tn_zoo_value x, const char *name);
tn_zoo_value tn_zoo_max_pool(tn_zoo_builder *builder, tn_zoo_value x, const char *name,
                             tn_zoo_window window);
tn_zoo_value tn_zoo_average_pool(tn_zoo_builder *builder, tn_zoo_value x, const char *name,
                                 tn_zoo_window window);
/* Down to `side` x `side` by equal windows: adaptive average pooling where the sides divide. A
 * smaller input passes as it is. */
tn_zoo_value tn_zoo_pool_to(tn_zoo_builder *builder, tn_zoo_value x, const char *name,
                            int64_t side);
tn_zoo_value tn_zoo_global_pool(tn_zoo_builder *builder, tn_zoo_value x, const char *name);
tn_zoo_value tn_zoo_add(tn_zoo_builder *builder, tn_zoo_value a, tn_zoo_value b, const char *name);
tn_zoo_value tn_zoo_concat(tn_zoo_builder *builder, tn_zoo_value a, tn_zoo_value b,
                           const char *name);
/* Every second row and column, channels padded with zeros on both sides to `channels`: the
 * parameter-free shortcut (option A of He et al. 2016). */
tn_zoo_value tn_zoo_subsample(tn_zoo_builder *builder, tn_zoo_value x, const char *name,
                              int64_t channels);
/* Identity in inference. */
tn_zoo_value tn_zoo_dropout(tn_zoo_builder *builder, tn_zoo_value x, const char *name, float ratio);
tn_zoo_value tn_zoo_flatten(tn_zoo_builder *builder, tn_zoo_value x, const char *name);
tn_zoo_value tn_zoo_linear(tn_zoo_builder *builder, tn_zoo_value x, const char *name,
                           int64_t features, bool last);
/* Names x `logits` and makes it the graph's output. x must be flat. */
void tn_zoo_output(tn_zoo_builder *builder, tn_zoo_value x);

#endif
