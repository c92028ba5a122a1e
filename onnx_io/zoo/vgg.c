/* VGG-16, configuration D of Simonyan and Zisserman, "Very deep convolutional networks for
 * large-scale image recognition" (2015), plain and with BatchNormalization, as torchvision has
 * them: 138,357,544 and 138,365,992 parameters at 224 x 224 and 1,000 classes. At smaller inputs
 * the first linear layer shrinks with the feature map. */
#include "onnx_io/zoo/families.h"

typedef struct vgg_plan {
    bool batch_norm;
} vgg_plan;

static void build(tn_zoo_builder *b, const void *plan)
{
    static const int64_t widths[] = {64, 64,  0,   128, 128, 0,   256, 256, 256,
                                     0,  512, 512, 512, 0,   512, 512, 512, 0};
    const vgg_plan *vgg = plan;
    tn_zoo_value x = tn_zoo_input(b);
    int index = 0;
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        if (widths[i] == 0) {
            x = tn_zoo_max_pool(b, x, tn_zoo_name(b, "features.%d", index++),
                                (tn_zoo_window){2, 2, 0, false});
            continue;
        }
        x = tn_zoo_conv(b, x, tn_zoo_name(b, "features.%d", index++), widths[i],
                        (tn_zoo_window){3, 1, 1, false}, true);
        if (vgg->batch_norm)
            x = tn_zoo_batch_norm(b, x, tn_zoo_name(b, "features.%d", index++));
        x = tn_zoo_relu(b, x, tn_zoo_name(b, "features.%d", index++));
    }
    x = tn_zoo_pool_to(b, x, "avgpool", 7);
    x = tn_zoo_flatten(b, x, "flatten");
    x = tn_zoo_relu(b, tn_zoo_linear(b, x, "classifier.0", 4096, false), "classifier.1");
    x = tn_zoo_dropout(b, x, "classifier.2", 0.5f);
    x = tn_zoo_relu(b, tn_zoo_linear(b, x, "classifier.3", 4096, false), "classifier.4");
    x = tn_zoo_dropout(b, x, "classifier.5", 0.5f);
    tn_zoo_output(b, tn_zoo_linear(b, x, "classifier.6", b->options.classes, true));
}

static const vgg_plan plain = {false}, with_bn = {true};

const tn_architecture tn_vgg16 = {"vgg16", "13 convolutions, 3 linear layers (Simonyan 2015)",
                                  1000,    {3, 224, 224},
                                  &plain,  build};
const tn_architecture tn_vgg16_bn = {
    "vgg16-bn", "vgg16 with BatchNormalization", 1000, {3, 224, 224}, &with_bn, build};
