/* Unary and binary verbs, quantize and dequantize, and the epilogue of matrix products. */
#include "gpu/gpu.h"

#include "core/memory.h"

/* --- unary --- */

static tn_status unary_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_unary_task *t = &kernel->task.unary;
    tn_unary_args k = {args->src[0],
                       args->dst,
                       t->function,
                       t->a,
                       t->b,
                       t->count,
                       tn_gpu_aligned(args->src[0], args->dst),
                       kernel->task.bf16_dst};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_unary, &k, (t->count + 3) / 4, error);
}

static tn_status unary_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_unary_task *t = &kernel->task.unary;
    if (!args->dsrc[0])
        return TN_OK;
    tn_unary_backward_args k = {kernel->reads_src ? args->src[0] : NULL,
                                args->dst,
                                args->ddst,
                                args->dsrc[0],
                                t->function,
                                t->a,
                                t->b,
                                args->accumulate[0],
                                kernel->task.bf16_dst};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_unary_backward, &k, t->count, error);
}

static const tn_kernel_class unary_class = {tn_kernel_free, NULL, unary_forward, unary_backward};
static const tn_kernel_class unary_forward_class = {tn_kernel_free, NULL, unary_forward, NULL};

bool tn_gpu_function_has_backward(tn_function function)
{
    return function <= TN_FUNCTION_RECIPROCAL && function != TN_FUNCTION_SOFTPLUS;
}

tn_status tn_gpu_unary_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                               tn_error *error)
{
    bool backward = tn_gpu_function_has_backward(task->unary.function);
    tn_kernel *k;
    tn_status status =
        tn_kernel_create(device, task, backward ? &unary_class : &unary_forward_class, "cuda",
                         sizeof(tn_kernel), &k, error);
    if (status != TN_OK)
        return status;
    k->reads_src = tn_function_by_source(task->unary.function);
    k->reads_dst = true;
    *kernel = k;
    return TN_OK;
}

tn_status tn_gpu_epilogue(tn_gpu *gpu, const tn_epilogue_args *epilogue, int64_t count,
                          tn_error *error)
{
    if (!epilogue->bias && !epilogue->residual && epilogue->function == TN_FUNCTION_NONE)
        return TN_OK;
    return tn_gpu_launch(gpu, TN_GPU_epilogue, epilogue, count, error);
}

/* --- binary --- */

typedef struct binary_kernel {
    tn_kernel base;
    tn_binary_args args; /* shapes; the pointers come with each run */
    int64_t count, counts[2];
    int chunks[2];
} binary_kernel;

/* Merges neighbouring axes that broadcast alike, the last first; returns how many remain. */
static int merge(const tn_binary_task *t, int64_t dims[TN_MAX_RANK], int64_t a[TN_MAX_RANK],
                 int64_t b[TN_MAX_RANK])
{
    int n = 0;
    bool a_was = false, b_was = false;
    int64_t a_count = 1, b_count = 1;
    for (int i = t->dst.rank - 1; i >= 0; i--) {
        bool a_full = t->a.dims[i] != 1, b_full = t->b.dims[i] != 1;
        if (t->dst.dims[i] == 1)
            continue;
        if (n > 0 && a_full == a_was && b_full == b_was) {
            dims[n - 1] *= t->dst.dims[i];
        } else {
            dims[n] = t->dst.dims[i];
            a[n] = a_full ? a_count : 0;
            b[n++] = b_full ? b_count : 0;
        }
        a_count *= t->a.dims[i];
        b_count *= t->b.dims[i];
        a_was = a_full;
        b_was = b_full;
    }
    return n;
}

const char *tn_gpu_binary_refusal(const tn_binary_task *task)
{
    int64_t dims[TN_MAX_RANK], a[TN_MAX_RANK], b[TN_MAX_RANK];
    return merge(task, dims, a, b) > TN_BINARY_RANK ? "it broadcasts over too many axes" : NULL;
}

static tn_status binary_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const binary_kernel *t = (const binary_kernel *)kernel;
    tn_binary_args k = t->args;
    k.a = args->src[0];
    k.b = args->src[1];
    k.dst = args->dst;
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_binary, &k, t->count, error);
}

static tn_status binary_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const binary_kernel *t = (const binary_kernel *)kernel;
    tn_gpu *gpu = tn_gpu_of(kernel);
    tn_status status = TN_OK;
    for (int i = 0; i < 2 && status == TN_OK; i++) {
        if (!args->dsrc[i])
            continue;
        tn_binary_args k = t->args;
        k.a = args->src[0];
        k.b = args->src[1];
        k.dy = args->ddst;
        k.y = args->dst;
        k.dst = args->dsrc[i];
        k.which = i;
        k.accumulate = args->accumulate[i];
        if (t->counts[i] == t->count) {
            status = tn_gpu_launch(gpu, TN_GPU_binary_backward, &k, t->count, error);
            continue;
        }
        tn_binary_sum_args sum = {k, args->workspace, t->counts[i], t->count / t->counts[i],
                                  t->chunks[i]};
        status = tn_gpu_launch(gpu, TN_GPU_binary_sum, &sum, t->counts[i] * t->chunks[i], error);
        if (status == TN_OK)
            status = tn_gpu_add_chunks(gpu, args->workspace, t->counts[i], t->chunks[i],
                                       args->dsrc[i], 1.0f, args->accumulate[i], error);
    }
    return status;
}

static const tn_kernel_class binary_class = {tn_kernel_free, NULL, binary_forward, binary_backward};

tn_status tn_gpu_binary_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                tn_error *error)
{
    const tn_binary_task *t = &task->binary;
    int64_t dims[TN_MAX_RANK], a[TN_MAX_RANK], b[TN_MAX_RANK];
    tn_kernel *created;
    tn_status status = tn_kernel_create(device, task, &binary_class, "cuda", sizeof(binary_kernel),
                                        &created, error);
    if (status != TN_OK)
        return status;
    binary_kernel *k = (binary_kernel *)created;
    int n = merge(t, dims, a, b);
    k->args.rank = n;
    for (int i = 0; i < n; i++) {
        k->args.dims[i] = dims[n - 1 - i];
        k->args.a_stride[i] = a[n - 1 - i];
        k->args.b_stride[i] = b[n - 1 - i];
    }
    k->args.kind = t->kind;
    k->args.relu = t->function == TN_FUNCTION_RELU;
    k->args.bf16 = task->bf16_dst;
    k->count = tn_extent_count(&t->dst);
    for (int i = 0; i < 2; i++) {
        int64_t count = tn_extent_count(i ? &t->b : &t->a);
        k->counts[i] = count;
        if (count == k->count || count == 0)
            continue;
        k->chunks[i] = tn_gpu_chunks(k->count / count, count);
        size_t bytes = (size_t)(count * k->chunks[i]) * sizeof(double);
        if (task->backward && bytes > created->workspace_bytes)
            created->workspace_bytes = bytes;
    }
    created->reads_dst = t->function != TN_FUNCTION_NONE;
    created->reads_src = t->kind != TN_BINARY_ADD && t->kind != TN_BINARY_SUB;
    *kernel = created;
    return TN_OK;
}

/* --- between storages --- */

tn_status tn_gpu_convert(tn_gpu *gpu, const void *src, bool src_bf16, void *dst, bool dst_bf16,
                         int64_t count, bool accumulate, tn_error *error)
{
    tn_convert_args k = {src, dst, count, src_bf16, dst_bf16, accumulate, tn_gpu_aligned(src, dst)};
    return tn_gpu_launch(gpu, TN_GPU_convert, &k, (count + 3) / 4, error);
}

/* --- quantize, dequantize --- */

static tn_status quantize_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_task *task = &kernel->task;
    const tn_quantize_task *t = &task->quantize;
    tn_affine_args k = {args->src[0], args->src[1], t->zero ? args->src[2] : NULL,
                        args->dst,    t->axis,      t->inner,
                        t->low,       t->high,      task->verb == TN_VERB_DEQUANTIZE};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_affine, &k, t->outer * t->axis * t->inner,
                         error);
}

static const tn_kernel_class quantize_class = {tn_kernel_free, NULL, quantize_forward, NULL};

tn_status tn_gpu_quantize_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                  tn_error *error)
{
    return tn_kernel_create(device, task, &quantize_class, "cuda", sizeof(tn_kernel), kernel,
                            error);
}
