#include "gpu/gpu.h"

static tn_fake_quantize_args arguments(const tn_fake_quantize_task *t, const tn_arguments *args)
{
    return (tn_fake_quantize_args){.src = args->src[0],
                                   .step = args->params[0],
                                   .count = t->count,
                                   .low = t->low,
                                   .high = t->high,
                                   .clip_only = t->clip_only};
}

static tn_status fake_quantize_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_fake_quantize_task *t = &kernel->task.fake_quantize;
    tn_fake_quantize_args k = arguments(t, args);
    k.dst = args->dst;
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_fake_quantize, &k, t->count, error);
}

static tn_status fake_quantize_backward(tn_kernel *kernel, const tn_arguments *args,
                                        tn_error *error)
{
    const tn_fake_quantize_task *t = &kernel->task.fake_quantize;
    tn_gpu *gpu = tn_gpu_of(kernel);
    tn_fake_quantize_args k = arguments(t, args);
    tn_status status = TN_OK;
    k.ddst = args->ddst;
    if (args->dparams[0]) {
        k.partial = args->workspace;
        k.chunks = tn_gpu_chunks(t->count, 1);
        status = tn_gpu_launch(gpu, TN_GPU_fake_quantize_sums, &k, (int64_t)k.chunks * TN_GPU_BLOCK,
                               error);
        if (status == TN_OK)
            status = tn_gpu_add_chunks(gpu, k.partial, 1, k.chunks, args->dparams[0],
                                       t->step_factor, args->accumulate_params, error);
    }
    k.dst = args->dsrc[0];
    k.accumulate = args->dsrc[0] && args->accumulate[0];
    if (status == TN_OK && k.dst)
        status = tn_gpu_launch(gpu, TN_GPU_fake_quantize_backward, &k, t->count, error);
    return status;
}

static const tn_kernel_class fake_quantize_class = {tn_kernel_free, NULL, fake_quantize_forward,
                                                    fake_quantize_backward};

tn_status tn_gpu_fake_quantize_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                       tn_error *error)
{
    tn_kernel *k;
    tn_status status =
        tn_kernel_create(device, task, &fake_quantize_class, "cuda", sizeof(tn_kernel), &k, error);
    if (status != TN_OK)
        return status;
    k->reads_src = true;
    k->workspace_bytes = (size_t)tn_gpu_chunks(task->fake_quantize.count, 1) * sizeof(double);
    *kernel = k;
    return TN_OK;
}
