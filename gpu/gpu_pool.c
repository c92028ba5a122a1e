#include "gpu/gpu.h"

typedef struct pool_kernel {
    tn_kernel base;
    tn_pooling_args args; /* shapes; the pointers come with each run */
} pool_kernel;

static tn_status pool_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const pool_kernel *k = (const pool_kernel *)kernel;
    tn_pooling_args pool = k->args;
    pool.src = args->src[0];
    pool.dst = args->dst;
    pool.index = kernel->saved_bytes ? args->saved : NULL;
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_pooling, &pool,
                         k->base.task.pool.batch * pool.out_pixels * pool.channels / pool.width,
                         error);
}

static tn_status pool_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const pool_kernel *k = (const pool_kernel *)kernel;
    tn_pooling_args pool = k->args;
    if (!args->dsrc[0])
        return TN_OK;
    pool.src = args->ddst;
    pool.dst = args->dsrc[0];
    pool.index = args->saved;
    pool.accumulate = args->accumulate[0];
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_pooling_backward, &pool,
                         k->base.task.pool.batch * pool.in_pixels * pool.channels / pool.width,
                         error);
}

static const tn_kernel_class pool_class = {tn_kernel_free, NULL, pool_forward, pool_backward};

tn_status tn_gpu_pool_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                              tn_error *error)
{
    const tn_pool_task *t = &task->pool;
    tn_kernel *created;
    tn_status status =
        tn_kernel_create(device, task, &pool_class, "cuda", sizeof(pool_kernel), &created, error);
    if (status != TN_OK)
        return status;
    tn_pooling_args *p = &((pool_kernel *)created)->args;
    p->max = t->max;
    p->bf16 = task->bf16_dst;
    p->width = t->channels % TN_TILE_WIDTH == 0 ? TN_TILE_WIDTH : 1;
    p->count_include_pad = t->count_include_pad;
    p->channels = t->channels;
    p->in_pixels = p->out_pixels = 1;
    for (int i = 0; i < 3; i++) {
        int from = i - (3 - t->spatial);
        p->in[i] = from < 0 ? 1 : (int32_t)t->in[from];
        p->out[i] = from < 0 ? 1 : (int32_t)t->out[from];
        p->kernel[i] = from < 0 ? 1 : (int32_t)t->kernel[from];
        p->stride[i] = from < 0 ? 1 : (int32_t)t->stride[from];
        p->dilation[i] = from < 0 ? 1 : (int32_t)t->dilation[from];
        p->pad_begin[i] = from < 0 ? 0 : (int32_t)t->pad_begin[from];
        p->pad_end[i] = from < 0 ? 0 : (int32_t)t->pad_end[from];
        p->in_pixels *= p->in[i];
        p->out_pixels *= p->out[i];
    }
    if (t->max && task->backward)
        created->saved_bytes = (size_t)(t->batch * p->out_pixels * t->channels) * sizeof(int32_t);
    *kernel = created;
    return TN_OK;
}
