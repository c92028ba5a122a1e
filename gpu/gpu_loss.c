#include "gpu/gpu.h"

/* Workspace: [parts of the rows][sums of the rows]. */
static size_t part_bytes(const tn_loss_task *t)
{
    return (size_t)(t->rows * TN_LOSS_LANES) * sizeof(tn_loss_part);
}

static tn_status loss_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_loss_task *t = &kernel->task.loss;
    tn_gpu *gpu = tn_gpu_of(kernel);
    bool backward = args->dsrc && args->dsrc[0];
    tn_criterion_args k = {.logits = args->src[0],
                           .teacher = args->src[1],
                           .labels = args->labels,
                           .partners = args->partners,
                           .mix = args->mix,
                           .gradient = backward ? args->dsrc[0] : NULL,
                           .sums = args->dst,
                           .parts = args->workspace,
                           .n_rows = t->rows,
                           .classes = t->classes,
                           .count = args->count,
                           .scale = args->scale,
                           .smoothing = args->smoothing,
                           .temperature = args->temperature,
                           .weight = args->weight};
    k.rows = (double *)(void *)((char *)args->workspace + part_bytes(t));
    int64_t lanes = k.count * TN_LOSS_LANES;
    tn_status status = tn_gpu_launch(gpu, TN_GPU_loss_most, &k, lanes, error);
    if (status == TN_OK)
        status = tn_gpu_launch(gpu, TN_GPU_loss_exponents, &k, lanes, error);
    if (status == TN_OK)
        status = tn_gpu_launch(gpu, TN_GPU_loss_gradient, &k,
                               backward ? t->rows * TN_LOSS_LANES : lanes, error);
    if (status == TN_OK)
        status = tn_gpu_launch(gpu, TN_GPU_loss_row, &k, k.count, error);
    if (status == TN_OK)
        status = tn_gpu_launch(gpu, TN_GPU_loss_sums, &k, 4, error);
    return status;
}

static const tn_kernel_class loss_class = {tn_kernel_free, NULL, loss_forward, NULL};

tn_status tn_gpu_loss_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                              tn_error *error)
{
    tn_kernel *k;
    tn_status status =
        tn_kernel_create(device, task, &loss_class, "cuda", sizeof(tn_kernel), &k, error);
    if (status != TN_OK)
        return status;
    k->workspace_bytes = part_bytes(&task->loss) + (size_t)task->loss.rows * 4 * sizeof(double);
    *kernel = k;
    return TN_OK;
}
