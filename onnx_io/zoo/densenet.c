/* DenseNet-BC of Huang et al., "Densely connected convolutional networks" (2017).
 *
 * densenet121: growth 32, blocks of 6, 12, 24, 16 layers with a 3x3 stem, 7,151,176 parameters at
 * 200 classes (torchvision's 7x7 stem has 7,680 more). Below 112 pixels the stem keeps the
 * resolution, as the networks published for 64 x 64 images do; from 112 on it has stride 2 and a
 * pooling behind it, as the original.
 * densenet-small: growth 12, blocks of 8, 12, 10 layers, 440,264 parameters at 200 classes. */
#include "onnx_io/zoo/families.h"

typedef struct densenet_plan {
    int64_t growth, stem;
    int blocks[4]; /* ends with 0 */
    bool pool_always;
} densenet_plan;

static tn_zoo_value norm_relu(tn_zoo_builder *b, tn_zoo_value x, const char *path,
                              const char *suffix)
{
    x = tn_zoo_batch_norm(b, x, tn_zoo_name(b, "%s.norm%s", path, suffix));
    return tn_zoo_relu(b, x, tn_zoo_name(b, "%s.relu%s", path, suffix));
}

static tn_zoo_value dense_layer(tn_zoo_builder *b, tn_zoo_value x, const char *path, int64_t growth)
{
    tn_zoo_value y = norm_relu(b, x, path, "1");
    y = tn_zoo_conv(b, y, tn_zoo_name(b, "%s.conv1", path), 4 * growth,
                    (tn_zoo_window){1, 1, 0, false}, false);
    y = norm_relu(b, y, path, "2");
    y = tn_zoo_conv(b, y, tn_zoo_name(b, "%s.conv2", path), growth, (tn_zoo_window){3, 1, 1, false},
                    false);
    return tn_zoo_concat(b, x, y, tn_zoo_name(b, "%s.concat", path));
}

static tn_zoo_value stem(tn_zoo_builder *b, const densenet_plan *plan)
{
    tn_zoo_value x = tn_zoo_input(b);
    const bool large = !plan->pool_always && x.h >= 112 && x.w >= 112;
    x = tn_zoo_conv(b, x, "features.conv0", plan->stem, (tn_zoo_window){3, large ? 2 : 1, 1, false},
                    false);
    x = norm_relu(b, x, "features", "0");
    if (large || plan->pool_always)
        x = tn_zoo_max_pool(b, x, "features.pool0", (tn_zoo_window){3, 2, 1, false});
    return x;
}

static void build(tn_zoo_builder *b, const void *plan_pointer)
{
    const densenet_plan *plan = plan_pointer;
    tn_zoo_value x = stem(b, plan);
    int n = 0;
    for (; n < 4 && plan->blocks[n]; n++) {
        if (n > 0) {
            const char *path = tn_zoo_name(b, "features.transition%d", n);
            x = norm_relu(b, x, path, "");
            x = tn_zoo_conv(b, x, tn_zoo_name(b, "%s.conv", path), x.c / 2,
                            (tn_zoo_window){1, 1, 0, false}, false);
            x = tn_zoo_average_pool(b, x, tn_zoo_name(b, "%s.pool", path),
                                    (tn_zoo_window){2, 2, 0, false});
        }
        for (int i = 1; i <= plan->blocks[n]; i++)
            x = dense_layer(b, x, tn_zoo_name(b, "features.denseblock%d.denselayer%d", n + 1, i),
                            plan->growth);
    }
    x = norm_relu(b, x, "features", tn_zoo_name(b, "%d", n + 1));
    x = tn_zoo_flatten(b, tn_zoo_global_pool(b, x, "avg_pool"), "flatten");
    tn_zoo_output(b, tn_zoo_linear(b, x, "classifier", b->options.classes, true));
}

static const densenet_plan plan121 = {32, 64, {6, 12, 24, 16}, false},
                           plan_small = {12, 48, {8, 12, 10, 0}, true};

const tn_architecture tn_densenet121 = {
    "densenet121", "DenseNet-121 with a 3x3 stem (Huang 2017)", 200, {3, 64, 64}, &plan121, build};
const tn_architecture tn_densenet_small = {
    "densenet-small", "DenseNet-BC, growth 12, 30 layers", 200, {3, 56, 56}, &plan_small, build};
