/* SqueezeNet of Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters"
 * (2016), version 1.1 as torchvision has it: 1,235,496 parameters at 1,000 classes.
 *
 * squeezenet-bn: without biases, BatchNormalization and ReLU before each convolution of a fire
 * module, identity skips over every second one, a stem that keeps the resolution: 827,784
 * parameters at 200 classes. */
#include "onnx_io/zoo/families.h"

static const int64_t squeezes[8] = {16, 16, 32, 32, 48, 48, 64, 64}; /* expands: 4x each, twice */
static const tn_zoo_window point = {1, 1, 0, false}, around = {3, 1, 1, false},
                           pool = {3, 2, 0, true};

static tn_zoo_value conv_relu(tn_zoo_builder *b, tn_zoo_value x, const char *path, const char *part,
                              int64_t channels, tn_zoo_window window)
{
    x = tn_zoo_conv(b, x, tn_zoo_name(b, "%s.%s", path, part), channels, window, true);
    return tn_zoo_relu(b, x, tn_zoo_name(b, "%s.%s_activation", path, part));
}

static tn_zoo_value fire(tn_zoo_builder *b, tn_zoo_value x, const char *path, int64_t squeeze)
{
    tn_zoo_value s = conv_relu(b, x, path, "squeeze", squeeze, point);
    tn_zoo_value e1 = conv_relu(b, s, path, "expand1x1", 4 * squeeze, point);
    tn_zoo_value e3 = conv_relu(b, s, path, "expand3x3", 4 * squeeze, around);
    return tn_zoo_concat(b, e1, e3, tn_zoo_name(b, "%s.concat", path));
}

static tn_zoo_value bn_relu_conv(tn_zoo_builder *b, tn_zoo_value x, const char *path,
                                 const char *part, int64_t channels, tn_zoo_window window)
{
    x = tn_zoo_batch_norm(b, x, tn_zoo_name(b, "%s.%s_bn", path, part));
    x = tn_zoo_relu(b, x, tn_zoo_name(b, "%s.%s_activation", path, part));
    return tn_zoo_conv(b, x, tn_zoo_name(b, "%s.%s", path, part), channels, window, false);
}

static tn_zoo_value fire_bn(tn_zoo_builder *b, tn_zoo_value x, const char *path, int64_t squeeze)
{
    tn_zoo_value s = bn_relu_conv(b, x, path, "squeeze", squeeze, point);
    tn_zoo_value e1 = bn_relu_conv(b, s, path, "expand1x1", 4 * squeeze, point);
    tn_zoo_value e3 = bn_relu_conv(b, s, path, "expand3x3", 4 * squeeze, around);
    tn_zoo_value y = tn_zoo_concat(b, e1, e3, tn_zoo_name(b, "%s.concat", path));
    return y.c == x.c ? tn_zoo_add(b, y, x, tn_zoo_name(b, "%s.add", path)) : y;
}

static void classify(tn_zoo_builder *b, tn_zoo_value x, float dropout)
{
    x = tn_zoo_dropout(b, x, "classifier.0", dropout);
    x = tn_zoo_conv(b, x, "classifier.1", b->options.classes, point, true);
    x = tn_zoo_relu(b, x, "classifier.2");
    x = tn_zoo_global_pool(b, x, "classifier.3");
    tn_zoo_output(b, tn_zoo_flatten(b, x, "flatten"));
}

static void build_plain(tn_zoo_builder *b, const void *plan)
{
    (void)plan;
    int index = 3;
    tn_zoo_value x = tn_zoo_input(b);
    x = tn_zoo_conv(b, x, "features.0", 64, (tn_zoo_window){3, 2, 0, false}, true);
    x = tn_zoo_max_pool(b, tn_zoo_relu(b, x, "features.1"), "features.2", pool);
    for (int i = 0; i < 8; i++) {
        if (i == 2 || i == 4)
            x = tn_zoo_max_pool(b, x, tn_zoo_name(b, "features.%d", index++), pool);
        x = fire(b, x, tn_zoo_name(b, "features.%d", index++), squeezes[i]);
    }
    classify(b, x, 0.5f);
}

static void build_bn(tn_zoo_builder *b, const void *plan)
{
    (void)plan;
    int index = 4;
    tn_zoo_value x = tn_zoo_input(b);
    x = tn_zoo_conv(b, x, "features.0", 64, around, false);
    x = tn_zoo_relu(b, tn_zoo_batch_norm(b, x, "features.1"), "features.2");
    x = tn_zoo_max_pool(b, x, "features.3", pool);
    for (int i = 0; i < 8; i++) {
        if (i == 2 || i == 4)
            x = tn_zoo_max_pool(b, x, tn_zoo_name(b, "features.%d", index++), pool);
        x = fire_bn(b, x, tn_zoo_name(b, "features.%d", index++), squeezes[i]);
    }
    classify(b, x, 0.6f);
}

const tn_architecture tn_squeezenet = {
    "squeezenet1.1", "SqueezeNet 1.1 (Iandola 2016)", 1000, {3, 224, 224}, NULL, build_plain};
const tn_architecture tn_squeezenet_bn = {
    "squeezenet-bn", "SqueezeNet with BatchNormalization and skips", 200, {3, 56, 56}, NULL,
    build_bn};
