/* AlexNet as torchvision has it: Krizhevsky, "One weird trick for parallelizing convolutional
 * neural networks" (2014). At 224 x 224 and 1,000 classes 61,100,840 parameters; at smaller inputs
 * the first linear layer shrinks with the feature map. */
#include "onnx_io/zoo/families.h"

static void build(tn_zoo_builder *b, const void *plan)
{
    static const struct {
        const char *conv, *relu, *pool; /* pool NULL: none */
        int64_t channels;
        tn_zoo_window window;
    } layers[] = {
        {"features.0", "features.1", "features.2", 64, {11, 4, 2, false}},
        {"features.3", "features.4", "features.5", 192, {5, 1, 2, false}},
        {"features.6", "features.7", NULL, 384, {3, 1, 1, false}},
        {"features.8", "features.9", NULL, 256, {3, 1, 1, false}},
        {"features.10", "features.11", "features.12", 256, {3, 1, 1, false}},
    };
    (void)plan;
    tn_zoo_value x = tn_zoo_input(b);
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++) {
        x = tn_zoo_conv(b, x, layers[i].conv, layers[i].channels, layers[i].window, true);
        x = tn_zoo_relu(b, x, layers[i].relu);
        if (layers[i].pool)
            x = tn_zoo_max_pool(b, x, layers[i].pool, (tn_zoo_window){3, 2, 0, false});
    }
    x = tn_zoo_pool_to(b, x, "avgpool", 6);
    x = tn_zoo_flatten(b, x, "flatten");
    x = tn_zoo_dropout(b, x, "classifier.0", 0.5f);
    x = tn_zoo_relu(b, tn_zoo_linear(b, x, "classifier.1", 4096, false), "classifier.2");
    x = tn_zoo_dropout(b, x, "classifier.3", 0.5f);
    x = tn_zoo_relu(b, tn_zoo_linear(b, x, "classifier.4", 4096, false), "classifier.5");
    tn_zoo_output(b, tn_zoo_linear(b, x, "classifier.6", b->options.classes, true));
}

const tn_architecture tn_alexnet = {"alexnet", "5 convolutions, 3 linear layers (Krizhevsky 2014)",
                                    1000,      {3, 224, 224},
                                    NULL,      build};
