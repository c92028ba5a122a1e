/* ResNet of He et al., "Deep residual learning for image recognition" (2016), as torchvision has
 * it (ResNet-50 with the stride in the 3x3 convolution): 11,689,512, 21,797,672 and 25,557,032
 * parameters for 18, 34 and 50 layers at 1,000 classes.
 *
 * resnet18b is the ResNet-18B of Li et al., "Ternary weight networks" (2016), to which Zhu et al.,
 * "Trained ternary quantization" (2017) compare too: ResNet-18 with 1.5 times the filters in each
 * block (96, 192, 384, 768; the stem as wide as the first block, whose shortcut is the identity).
 */
#include "onnx_io/zoo/families.h"

typedef struct resnet_plan {
    int blocks[4];
    int64_t width;   /* of the first stage */
    bool bottleneck; /* 1x1, 3x3, 1x1 with four times the width at the end */
} resnet_plan;

static tn_zoo_value conv_bn(tn_zoo_builder *b, tn_zoo_value x, const char *conv, const char *bn,
                            int64_t channels, tn_zoo_window window)
{
    x = tn_zoo_conv(b, x, conv, channels, window, false);
    return tn_zoo_batch_norm(b, x, bn);
}

static tn_zoo_value block(tn_zoo_builder *b, tn_zoo_value x, const resnet_plan *plan,
                          const char *path, int64_t width, int64_t stride)
{
    const int64_t out = plan->bottleneck ? 4 * width : width;
    const tn_zoo_window point = {1, 1, 0, false}, strided = {3, stride, 1, false},
                        wide = {3, 1, 1, false};
    tn_zoo_value shortcut = x, y = x;
#define NAME(suffix) tn_zoo_name(b, "%s." suffix, path)
    if (plan->bottleneck) {
        y = tn_zoo_relu(b, conv_bn(b, y, NAME("conv1"), NAME("bn1"), width, point), NAME("relu1"));
        y = tn_zoo_relu(b, conv_bn(b, y, NAME("conv2"), NAME("bn2"), width, strided),
                        NAME("relu2"));
        y = conv_bn(b, y, NAME("conv3"), NAME("bn3"), out, point);
    } else {
        y = tn_zoo_relu(b, conv_bn(b, y, NAME("conv1"), NAME("bn1"), width, strided),
                        NAME("relu1"));
        y = conv_bn(b, y, NAME("conv2"), NAME("bn2"), out, wide);
    }
    if (stride != 1 || x.c != out)
        shortcut = conv_bn(b, x, NAME("downsample.0"), NAME("downsample.1"), out,
                           (tn_zoo_window){1, stride, 0, false});
    y = tn_zoo_add(b, y, shortcut, NAME("add"));
    return tn_zoo_relu(b, y, NAME("relu"));
#undef NAME
}

static void build(tn_zoo_builder *b, const void *plan_pointer)
{
    const resnet_plan *plan = plan_pointer;
    tn_zoo_value x = tn_zoo_input(b);
    x = conv_bn(b, x, "conv1", "bn1", plan->width, (tn_zoo_window){7, 2, 3, false});
    x = tn_zoo_relu(b, x, "relu");
    x = tn_zoo_max_pool(b, x, "maxpool", (tn_zoo_window){3, 2, 1, false});
    for (int stage = 0; stage < 4; stage++)
        for (int i = 0; i < plan->blocks[stage]; i++)
            x = block(b, x, plan, tn_zoo_name(b, "layer%d.%d", stage + 1, i), plan->width << stage,
                      stage > 0 && i == 0 ? 2 : 1);
    x = tn_zoo_flatten(b, tn_zoo_global_pool(b, x, "avgpool"), "flatten");
    tn_zoo_output(b, tn_zoo_linear(b, x, "fc", b->options.classes, true));
}

static const resnet_plan plan18 = {{2, 2, 2, 2}, 64, false}, plan18b = {{2, 2, 2, 2}, 96, false},
                         plan34 = {{3, 4, 6, 3}, 64, false}, plan50 = {{3, 4, 6, 3}, 64, true};

const tn_architecture tn_resnet18 = {
    "resnet18", "ResNet-18 (He 2016)", 1000, {3, 224, 224}, &plan18, build};
const tn_architecture tn_resnet18b = {"resnet18b", "ResNet-18 with 1.5 times the filters (Li 2016)",
                                      1000,        {3, 224, 224},
                                      &plan18b,    build};
const tn_architecture tn_resnet34 = {
    "resnet34", "ResNet-34 (He 2016)", 1000, {3, 224, 224}, &plan34, build};
const tn_architecture tn_resnet50 = {
    "resnet50", "ResNet-50 (He 2016)", 1000, {3, 224, 224}, &plan50, build};
