#include "gpu/gpu.h"

typedef struct dropout_kernel {
    tn_kernel base;
    bool drop; /* of the last forward */
    const tn_draw *draw;
} dropout_kernel;

static tn_status run(const dropout_kernel *k, const float *src, float *dst, bool accumulate,
                     tn_error *error)
{
    const tn_dropout_task *t = &k->base.task.dropout;
    tn_dropout_args args = {.src = src,
                            .dst = dst,
                            .inner = t->inner,
                            .draw = k->draw,
                            .layer = t->layer,
                            .threshold = (uint32_t)((double)t->ratio * 4294967296.0),
                            .scale = 1.0f / (1.0f - t->ratio),
                            .drop = k->drop,
                            .accumulate = accumulate};
    return tn_gpu_launch(tn_gpu_of(&k->base), TN_GPU_dropout, &args, t->rows * ((t->inner + 3) / 4),
                         error);
}

static tn_status dropout_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    dropout_kernel *k = (dropout_kernel *)kernel;
    k->drop = args->drop;
    k->draw = args->draw;
    return run(k, args->src[0], args->dst, false, error);
}

static tn_status dropout_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const dropout_kernel *k = (const dropout_kernel *)kernel;
    if (!args->dsrc[0])
        return TN_OK;
    return run(k, args->ddst, args->dsrc[0], args->accumulate[0], error);
}

static const tn_kernel_class dropout_class = {tn_kernel_free, NULL, dropout_forward,
                                              dropout_backward};

tn_status tn_gpu_dropout_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                 tn_error *error)
{
    return tn_kernel_create(device, task, &dropout_class, "cuda", sizeof(dropout_kernel), kernel,
                            error);
}
