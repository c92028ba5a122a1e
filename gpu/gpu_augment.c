#include "gpu/gpu.h"

static tn_status augment_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_augment_task *t = &kernel->task.augment;
    const tn_augment_args k = {.pixels = args->pixels,
                               .places = args->places,
                               .augmentations = args->augmentations,
                               .table = args->src ? args->src[0] : NULL,
                               .dst = args->dst,
                               .rows = t->rows,
                               .width = t->width,
                               .height = t->height,
                               .channels = t->channels,
                               .normalization = t->normalization};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_augment, &k,
                         t->rows * t->width * (int64_t)t->height, error);
}

static const tn_kernel_class augment_class = {tn_kernel_free, NULL, augment_forward, NULL};

tn_status tn_gpu_augment_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                 tn_error *error)
{
    return tn_kernel_create(device, task, &augment_class, "cuda", sizeof(tn_kernel), kernel, error);
}
