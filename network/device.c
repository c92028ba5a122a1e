#include "network/device.h"

#include "core/memory.h"

const char *tn_verb_name(tn_verb verb)
{
    static const char *const names[TN_N_VERBS] = {
        "convolution", "gemm",          "batch norm", "pool",   "unary",     "binary", "concat",
        "slice",       "pad",           "transpose",  "reduce", "softmax",   "lrn",    "quantize",
        "dequantize",  "fake quantize", "dropout",    "loss",   "quantizer", "norm",   "optimizer",
        "augment",     "tally",         "judge",      "gram"};
    return (unsigned)verb < TN_N_VERBS ? names[verb] : "unknown";
}

const char *tn_precision_name(tn_precision precision)
{
    static const char *const names[] = {"auto", "fp32", "bf16", "tf32"};
    return (unsigned)precision < 4 ? names[precision] : "unknown";
}

/* Which functions a verb fuses with, forward and with a gradient; other verbs fuse what they say.
 */
static const struct {
    uint32_t forward, backward; /* bits 1 << tn_function */
    const char *reason;
} fusions[TN_N_VERBS] = {
    [TN_VERB_CONV] = {UINT32_MAX, 1u << TN_FUNCTION_NONE, "a fused convolution has no gradient"},
    [TN_VERB_GEMM] = {UINT32_MAX, 1u << TN_FUNCTION_NONE | 1u << TN_FUNCTION_RELU,
                      "with a gradient it fuses Relu alone"},
    [TN_VERB_BATCH_NORM] = {1u << TN_FUNCTION_NONE | 1u << TN_FUNCTION_RELU |
                                1u << TN_FUNCTION_CLIP,
                            1u << TN_FUNCTION_NONE | 1u << TN_FUNCTION_RELU |
                                1u << TN_FUNCTION_CLIP,
                            "batch norm fuses Relu and Clip alone"},
};

const char *tn_task_refusal(const tn_device *device, const tn_task *task)
{
    if (task->precision == TN_PRECISION_BF16 && !device->bf16 && !device->bf16_runs)
        return "bf16 needs a processor with AMX or AVX-512 BF16, or a GPU";
    if (task->precision == TN_PRECISION_TF32 && !device->tf32_runs)
        return "tf32 needs a GPU";
    if ((task->bf16_src || task->bf16_dst) &&
        (task->precision != TN_PRECISION_BF16 || !(device->bf16_stores >> task->verb & 1)))
        return "it has no operands stored as bf16";
    tn_function function = task->verb == TN_VERB_CONV         ? task->conv.function
                           : task->verb == TN_VERB_GEMM       ? task->gemm.function
                           : task->verb == TN_VERB_BATCH_NORM ? task->batch_norm.function
                                                              : TN_FUNCTION_NONE;
    uint32_t fuses = task->backward ? fusions[task->verb].backward : fusions[task->verb].forward;
    bool more = task->verb == TN_VERB_CONV && (task->conv.residual || task->conv.fold);
    if (!fusions[task->verb].reason)
        return NULL;
    return !(fuses >> function & 1) || (more && task->backward) ? fusions[task->verb].reason : NULL;
}

int64_t tn_extent_count(const tn_extent *shape)
{
    int64_t count = 1;
    for (int i = 0; i < shape->rank; i++)
        count *= shape->dims[i];
    return count;
}

void tn_extent_strides(const tn_extent *shape, int64_t *strides)
{
    int64_t count = 1;
    for (int i = shape->rank - 1; i >= 0; i--) {
        strides[i] = count;
        count *= shape->dims[i];
    }
}

bool tn_function_by_source(tn_function function)
{
    switch (function) {
    case TN_FUNCTION_RELU:
    case TN_FUNCTION_SIGMOID:
    case TN_FUNCTION_TANH:
    case TN_FUNCTION_EXP:
    case TN_FUNCTION_SQRT:
    case TN_FUNCTION_RECIPROCAL:
    case TN_FUNCTION_NEG:
    case TN_FUNCTION_NONE:
        return false;
    default:
        return true;
    }
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

tn_status tn_kernel_create(tn_device *device, const tn_task *task, const tn_kernel_class *type,
                           const char *name, size_t bytes, tn_kernel **kernel, tn_error *error)
{
    tn_kernel *k = tn_alloc_zero(1, bytes);
    if (!k)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    k->device = device;
    k->task = *task;
    k->type = type;
    k->name = name;
    *kernel = k;
    return TN_OK;
}

void tn_kernel_free(tn_kernel *kernel)
{
    tn_free(kernel);
}
