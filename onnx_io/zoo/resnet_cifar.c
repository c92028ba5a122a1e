/* The CIFAR-10 ResNets of He et al., "Deep residual learning for image recognition" (2016),
 * section 4.2: a 3x3 stem, three stages of n blocks with 16, 32 and 64 channels, 6n + 2 layers,
 * parameter-free shortcuts (option A). resnet20 has 269,722 parameters. */
#include "onnx_io/zoo/families.h"

typedef struct resnet_cifar_plan {
    int blocks; /* a stage */
} resnet_cifar_plan;

static tn_zoo_value block(tn_zoo_builder *b, tn_zoo_value x, const char *path, int64_t channels)
{
    const tn_zoo_window first = {3, x.c == channels ? 1 : 2, 1, false}, second = {3, 1, 1, false};
    tn_zoo_value shortcut = x, y = x;
    y = tn_zoo_conv(b, y, tn_zoo_name(b, "%s.conv1", path), channels, first, false);
    y = tn_zoo_batch_norm(b, y, tn_zoo_name(b, "%s.bn1", path));
    y = tn_zoo_relu(b, y, tn_zoo_name(b, "%s.relu1", path));
    y = tn_zoo_conv(b, y, tn_zoo_name(b, "%s.conv2", path), channels, second, false);
    y = tn_zoo_batch_norm(b, y, tn_zoo_name(b, "%s.bn2", path));
    if (x.c != channels)
        shortcut = tn_zoo_subsample(b, x, tn_zoo_name(b, "%s.shortcut", path), channels);
    y = tn_zoo_add(b, y, shortcut, tn_zoo_name(b, "%s.add", path));
    return tn_zoo_relu(b, y, tn_zoo_name(b, "%s.relu", path));
}

static void build(tn_zoo_builder *b, const void *plan)
{
    const resnet_cifar_plan *resnet = plan;
    tn_zoo_value x = tn_zoo_input(b);
    x = tn_zoo_conv(b, x, "conv1", 16, (tn_zoo_window){3, 1, 1, false}, false);
    x = tn_zoo_relu(b, tn_zoo_batch_norm(b, x, "bn1"), "relu");
    for (int stage = 0; stage < 3; stage++)
        for (int i = 0; i < resnet->blocks; i++)
            x = block(b, x, tn_zoo_name(b, "layer%d.%d", stage + 1, i), 16 << stage);
    x = tn_zoo_flatten(b, tn_zoo_global_pool(b, x, "avgpool"), "flatten");
    tn_zoo_output(b, tn_zoo_linear(b, x, "linear", b->options.classes, true));
}

#define CIFAR(depth)                                                                               \
    static const resnet_cifar_plan plan##depth = {((depth)-2) / 6};                                \
    const tn_architecture tn_resnet##depth = {"resnet" #depth,                                     \
                                              "CIFAR ResNet-" #depth ", option A (He 2016)",       \
                                              10,                                                  \
                                              {3, 32, 32},                                         \
                                              &plan##depth,                                        \
                                              build}

CIFAR(8);
CIFAR(20);
CIFAR(32);
CIFAR(44);
CIFAR(56);
CIFAR(110);
