#include "gpu/gpu.h"

#include "core/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tn_gpu *gpu_of(tn_device *device)
{
    return ((tn_gpu_device *)device)->gpu;
}

static void gpu_destroy(tn_device *device)
{
    tn_gpu_device *d = (tn_gpu_device *)device;
    tn_gpu_free(d->gpu, d->staging);
    tn_gpu_close(d->gpu);
    tn_free(d);
}

static void *gpu_alloc(tn_device *device, size_t bytes)
{
    return tn_gpu_alloc(gpu_of(device), bytes);
}

static void gpu_release(tn_device *device, void *memory)
{
    if (memory)
        tn_gpu_free(gpu_of(device), memory);
}

static tn_status gpu_upload(tn_device *device, void *dst, const void *src, size_t bytes,
                            tn_error *error)
{
    return tn_gpu_copy(gpu_of(device), dst, src, bytes, TN_GPU_UPLOAD, error);
}

static tn_status gpu_download(tn_device *device, void *dst, const void *src, size_t bytes,
                              tn_error *error)
{
    return tn_gpu_copy(gpu_of(device), dst, src, bytes, TN_GPU_DOWNLOAD, error);
}

static tn_status gpu_copy(tn_device *device, void *dst, const void *src, size_t bytes,
                          tn_error *error)
{
    return tn_gpu_copy(gpu_of(device), dst, src, bytes, TN_GPU_WITHIN, error);
}

static tn_status gpu_zero(tn_device *device, void *dst, size_t bytes, tn_error *error)
{
    return tn_gpu_zero(gpu_of(device), dst, bytes, error);
}

static tn_status gpu_add(tn_device *device, float *dst, const float *src, int64_t count,
                         tn_error *error)
{
    tn_add_args k = {dst, src, count, tn_gpu_aligned(dst, src)};
    return tn_gpu_launch(gpu_of(device), TN_GPU_add, &k, (count + 3) / 4, error);
}

static tn_status gpu_scale(tn_device *device, float *dst, float alpha, int64_t count,
                           tn_error *error)
{
    tn_scale_args k = {dst, alpha, count, tn_gpu_aligned(dst, dst)};
    return tn_gpu_launch(gpu_of(device), TN_GPU_scale, &k, (count + 3) / 4, error);
}

static tn_status reserve(tn_gpu_device *d, size_t bytes, tn_error *error)
{
    if (bytes <= d->staging_bytes)
        return TN_OK;
    void *grown = tn_gpu_alloc(d->gpu, bytes);
    if (!grown)
        return tn_fail(error, TN_ERROR_DEVICE, "no memory on %s for a copy of %zu bytes",
                       d->base.id, bytes);
    tn_gpu_free(d->gpu, d->staging);
    d->staging = grown;
    d->staging_bytes = bytes;
    return TN_OK;
}

/* [n, rows, cols] -> [n, cols, rows] on the device */
static tn_status swap_axes(tn_gpu *gpu, float *dst, const float *src, int64_t n, int64_t rows,
                           int64_t cols, tn_error *error)
{
    tn_move_args k = {.src = src,
                      .dst = dst,
                      .rank = 3,
                      .width = 1,
                      .dims = {n, cols, rows},
                      .from = {rows * cols, 1, cols},
                      .to = {rows * cols, rows, 1}};
    return tn_gpu_launch(gpu, TN_GPU_move, &k, n * rows * cols, error);
}

static tn_status gpu_import(tn_device *device, float *dst, const float *src, int64_t n, int64_t c,
                            int64_t s, tn_error *error)
{
    tn_gpu_device *d = (tn_gpu_device *)device;
    size_t bytes = (size_t)(n * c * s) * sizeof(float);
    tn_status status = reserve(d, bytes, error);
    if (status == TN_OK)
        status = tn_gpu_copy(d->gpu, d->staging, src, bytes, TN_GPU_UPLOAD, error);
    return status == TN_OK ? swap_axes(d->gpu, dst, d->staging, n, c, s, error) : status;
}

static tn_status gpu_export(tn_device *device, float *dst, const float *src, int64_t n, int64_t c,
                            int64_t s, tn_error *error)
{
    tn_gpu_device *d = (tn_gpu_device *)device;
    size_t bytes = (size_t)(n * c * s) * sizeof(float);
    tn_status status = reserve(d, bytes, error);
    if (status == TN_OK)
        status = swap_axes(d->gpu, d->staging, src, n, s, c, error);
    return status == TN_OK ? tn_gpu_copy(d->gpu, dst, d->staging, bytes, TN_GPU_DOWNLOAD, error)
                           : status;
}

static size_t gpu_available(tn_device *device)
{
    return tn_gpu_available(gpu_of(device));
}

static tn_status gpu_synchronize(tn_device *device, tn_error *error)
{
    return tn_gpu_wait(gpu_of(device), error);
}

static tn_status gpu_record_begin(tn_device *device, tn_error *error)
{
    return tn_gpu_record_begin(gpu_of(device), error);
}

static tn_status gpu_record_end(tn_device *device, tn_recording **recording, tn_error *error)
{
    return tn_gpu_record_end(gpu_of(device), recording, error);
}

static tn_status gpu_replay(tn_device *device, const tn_recording *recording, tn_error *error)
{
    return tn_gpu_replay(gpu_of(device), recording, error);
}

static void gpu_forget(tn_device *device, tn_recording *recording)
{
    (void)device;
    tn_gpu_forget(recording);
}

static tn_gpu_prepare *const prepares[TN_N_VERBS] = {
    [TN_VERB_CONV] = tn_gpu_conv_prepare,
    [TN_VERB_GEMM] = tn_gpu_gemm_prepare,
    [TN_VERB_BATCH_NORM] = tn_gpu_batch_norm_prepare,
    [TN_VERB_POOL] = tn_gpu_pool_prepare,
    [TN_VERB_UNARY] = tn_gpu_unary_prepare,
    [TN_VERB_BINARY] = tn_gpu_binary_prepare,
    [TN_VERB_CONCAT] = tn_gpu_concat_prepare,
    [TN_VERB_SLICE] = tn_gpu_slice_prepare,
    [TN_VERB_PAD] = tn_gpu_pad_prepare,
    [TN_VERB_TRANSPOSE] = tn_gpu_transpose_prepare,
    [TN_VERB_REDUCE] = tn_gpu_reduce_prepare,
    [TN_VERB_SOFTMAX] = tn_gpu_softmax_prepare,
    [TN_VERB_LRN] = tn_gpu_lrn_prepare,
    [TN_VERB_QUANTIZE] = tn_gpu_quantize_prepare,
    [TN_VERB_DEQUANTIZE] = tn_gpu_quantize_prepare,
    [TN_VERB_FAKE_QUANTIZE] = tn_gpu_fake_quantize_prepare,
    [TN_VERB_DROPOUT] = tn_gpu_dropout_prepare,
    [TN_VERB_LOSS] = tn_gpu_loss_prepare,
    [TN_VERB_AUGMENT] = tn_gpu_augment_prepare,
    [TN_VERB_QUANTIZER] = tn_gpu_quantizer_prepare,
    [TN_VERB_NORM] = tn_gpu_optimizer_prepare,
    [TN_VERB_OPTIMIZER] = tn_gpu_optimizer_prepare,
    [TN_VERB_TALLY] = tn_gpu_step_prepare,
    [TN_VERB_JUDGE] = tn_gpu_step_prepare,
    [TN_VERB_GRAM] = tn_gpu_gram_prepare,
};

/* Convolutions, batch norm and reductions go between the types; all operands of others are of one
 * type. */
static const char *storage_refusal(const tn_task *task)
{
    int n = task->verb == TN_VERB_BINARY       ? 2
            : task->verb == TN_VERB_CONCAT     ? task->concat.n
            : task->verb == TN_VERB_BATCH_NORM ? task->batch_norm.n_parts
                                               : 1;
    uint64_t all = n < 64 ? ((uint64_t)1 << n) - 1 : UINT64_MAX;
    if (task->verb == TN_VERB_BATCH_NORM && task->batch_norm.codes && task->bf16_dst)
        return "codes times their step are not stored as bf16"; /* which would round them */
    if (task->verb == TN_VERB_BATCH_NORM && n > 1)
        return task->bf16_src && task->bf16_src != all ? "its parts are not stored as one type"
                                                       : NULL;
    if ((!task->bf16_src && !task->bf16_dst) || task->verb == TN_VERB_CONV ||
        task->verb == TN_VERB_BATCH_NORM || task->verb == TN_VERB_REDUCE)
        return NULL;
    if (task->verb == TN_VERB_PAD && task->pad.mode != TN_PAD_CONSTANT)
        return "only constant padding takes bf16";
    if (task->verb == TN_VERB_BINARY) {
        int64_t count = tn_extent_count(&task->binary.dst);
        if (tn_extent_count(&task->binary.a) != count || tn_extent_count(&task->binary.b) != count)
            return "broadcast operands are not stored as bf16";
    }
    return task->bf16_src != all || !task->bf16_dst
               ? "its operands are all stored as bf16 or none is"
               : NULL;
}

static const char *refusal(tn_device *device, const tn_task *task)
{
    if ((unsigned)task->verb >= TN_N_VERBS || !prepares[task->verb])
        return "the CUDA device does not have it";
    const char *reason = tn_task_refusal(device, task);
    if (!reason)
        reason = storage_refusal(task);
    if (reason)
        return reason;
    switch (task->verb) {
    case TN_VERB_BATCH_NORM:
        return tn_gpu_batch_norm_refusal(&task->batch_norm);
    case TN_VERB_BINARY:
        return tn_gpu_binary_refusal(&task->binary);
    case TN_VERB_AUGMENT:
        return task->augment.channels == 1 || task->augment.channels == 3
                   ? NULL
                   : "pictures have 1 or 3 channels";
    case TN_VERB_NORM:
    case TN_VERB_OPTIMIZER:
    case TN_VERB_TALLY:
    case TN_VERB_JUDGE:
    case TN_VERB_GRAM:
        return NULL;
    case TN_VERB_QUANTIZER:
        return tn_gpu_quantizer_refusal(&task->quantizer);
    default:
        return tn_gpu_region_refusal(task);
    }
}

static bool gpu_supports(tn_device *device, const tn_task *task, char *why, size_t why_size)
{
    const char *reason = refusal(device, task);
    if (reason && why)
        snprintf(why, why_size, "%s: %s", tn_verb_name(task->verb), reason);
    return reason == NULL;
}

static tn_status gpu_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                             tn_error *error)
{
    char why[160];
    if (!gpu_supports(device, task, why, sizeof(why)))
        return tn_fail(error, TN_ERROR_USAGE, "%s", why);
    return prepares[task->verb](device, task, kernel, error);
}

static const tn_device_class gpu_class = {
    gpu_destroy,    gpu_alloc,       gpu_release,  gpu_upload,   gpu_download,
    gpu_copy,       gpu_zero,        gpu_add,      gpu_scale,    gpu_import,
    gpu_export,     gpu_synchronize, gpu_supports, gpu_prepare,  gpu_record_begin,
    gpu_record_end, gpu_replay,      gpu_forget,   gpu_available};

tn_status tn_device_create_cuda(int index, tn_device **device, tn_error *error)
{
    tn_gpu_device *d = tn_alloc_zero(1, sizeof(*d));
    if (!d)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    tn_status status = tn_gpu_open(index, &d->gpu, error);
    if (status != TN_OK) {
        tn_free(d);
        return status;
    }
    d->base.type = &gpu_class;
    const char *graphs = getenv("TERNION_CUDA_GRAPHS");
    d->base.records = !graphs || strcmp(graphs, "off") != 0;
    d->base.bf16 = d->base.tf32_runs = tn_gpu_has_bf16(d->gpu);
    d->base.bf16_stores = 1u << TN_VERB_CONV | 1u << TN_VERB_BATCH_NORM | 1u << TN_VERB_POOL |
                          1u << TN_VERB_UNARY | 1u << TN_VERB_BINARY | 1u << TN_VERB_CONCAT |
                          1u << TN_VERB_SLICE | 1u << TN_VERB_PAD | 1u << TN_VERB_TRANSPOSE |
                          1u << TN_VERB_REDUCE;
    snprintf(d->base.id, sizeof(d->base.id), "cuda:%d", index);
    tn_gpu_describe(d->gpu, d->base.summary, sizeof(d->base.summary));
    snprintf(d->base.arithmetic, sizeof(d->base.arithmetic), "%.*s",
             (int)sizeof(d->base.arithmetic) - 1, d->base.summary);
    *device = &d->base;
    return TN_OK;
}

bool tn_device_cuda_built(void)
{
    return true;
}
