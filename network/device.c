#include "network/device.h"

const char *tn_verb_name(tn_verb verb)
{
    static const char *const names[TN_N_VERBS] = {
        "convolution", "gemm",          "batch norm", "pool",   "unary",     "binary", "concat",
        "slice",       "pad",           "transpose",  "reduce", "softmax",   "lrn",    "quantize",
        "dequantize",  "fake quantize", "dropout",    "loss",   "quantizer", "norm",   "optimizer"};
    return (unsigned)verb < TN_N_VERBS ? names[verb] : "unknown";
}

const char *tn_precision_name(tn_precision precision)
{
    static const char *const names[] = {"auto", "fp32", "bf16", "tf32"};
    return (unsigned)precision < 4 ? names[precision] : "unknown";
}

int64_t tn_extent_count(const tn_extent *shape)
{
    int64_t count = 1;
    for (int i = 0; i < shape->rank; i++)
        count *= shape->dims[i];
    return count;
}

void tn_device_destroy(tn_device *device)
{
    if (device)
        device->type->destroy(device);
}

void tn_kernel_destroy(tn_kernel *kernel)
{
    if (kernel)
        kernel->type->destroy(kernel);
}
