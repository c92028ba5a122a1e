/* Reductions: the verbs reduce, softmax and LRN, and column sums for the other verbs. */
#include "gpu/gpu.h"

/* --- column sums --- */

enum { MAX_CHUNKS = 256, WANTED_THREADS = 1 << 16, LEAST_ROWS = 32 };

int tn_gpu_chunks(int64_t rows, int64_t cols)
{
    int64_t chunks = cols > 0 ? (WANTED_THREADS + cols - 1) / cols : 1;
    int64_t most = (rows + LEAST_ROWS - 1) / LEAST_ROWS;
    chunks = chunks > most ? most : chunks;
    chunks = chunks > MAX_CHUNKS ? MAX_CHUNKS : chunks;
    return chunks < 1 ? 1 : (int)chunks;
}

tn_status tn_gpu_column_sums(tn_gpu *gpu, const float *src, int64_t rows, int64_t cols,
                             double *partial, float *dst, float alpha, bool accumulate,
                             tn_error *error)
{
    int chunks = tn_gpu_chunks(rows, cols);
    tn_column_sums_args sums = {src, partial, rows, cols, chunks};
    tn_chunks_args add = {partial, dst, cols, chunks, alpha, accumulate};
    tn_status status = tn_gpu_launch(gpu, TN_GPU_column_sums, &sums, chunks * cols, error);
    return status == TN_OK ? tn_gpu_launch(gpu, TN_GPU_chunks, &add, cols, error) : status;
}

/* --- reduce --- */

static tn_status reduce_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_reduce_task *t = &((tn_gpu_task *)kernel)->task.reduce;
    tn_reduce_args k = {args->src[0], args->dst, t->kind, t->reduced, t->inner, false};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_reduce, &k, t->outer * t->inner, error);
}

static tn_status reduce_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_reduce_task *t = &((tn_gpu_task *)kernel)->task.reduce;
    if (!args->dsrc[0])
        return TN_OK;
    tn_reduce_args k = {args->ddst, args->dsrc[0], t->kind,
                        t->reduced, t->inner,      args->accumulate[0]};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_reduce_backward, &k,
                         t->outer * t->reduced * t->inner, error);
}

static const tn_kernel_class reduce_class = {tn_gpu_task_destroy, NULL, reduce_forward,
                                             reduce_backward};
static const tn_kernel_class reduce_max_class = {tn_gpu_task_destroy, NULL, reduce_forward, NULL};

tn_status tn_gpu_reduce_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                tn_error *error)
{
    bool max = task->reduce.kind == TN_REDUCE_MAX;
    return tn_gpu_task_create(device, task, max ? &reduce_max_class : &reduce_class, "cuda",
                              sizeof(tn_gpu_task), kernel, error);
}

/* --- softmax --- */

static tn_status softmax_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_softmax_task *t = &((tn_gpu_task *)kernel)->task.softmax;
    tn_softmax_args k = {args->src[0], NULL, args->dst, t->axis, t->inner, t->log, false};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_softmax, &k, t->outer * t->inner, error);
}

static tn_status softmax_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_softmax_task *t = &((tn_gpu_task *)kernel)->task.softmax;
    if (!args->dsrc[0])
        return TN_OK;
    tn_softmax_args k = {args->dst, args->ddst, args->dsrc[0],      t->axis,
                         t->inner,  t->log,     args->accumulate[0]};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_softmax_backward, &k, t->outer * t->inner,
                         error);
}

static const tn_kernel_class softmax_class = {tn_gpu_task_destroy, NULL, softmax_forward,
                                              softmax_backward};

tn_status tn_gpu_softmax_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                 tn_error *error)
{
    tn_kernel *k;
    tn_status status =
        tn_gpu_task_create(device, task, &softmax_class, "cuda", sizeof(tn_gpu_task), &k, error);
    if (status != TN_OK)
        return status;
    k->reads_dst = true;
    *kernel = k;
    return TN_OK;
}

/* --- LRN --- */

static tn_status lrn_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_lrn_task *t = &((tn_gpu_task *)kernel)->task.lrn;
    tn_lrn_args k = {args->src[0], NULL,    args->dst, t->channels, t->size,
                     t->alpha,     t->beta, t->bias,   false};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_lrn, &k, t->rows * t->channels, error);
}

static tn_status lrn_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_lrn_task *t = &((tn_gpu_task *)kernel)->task.lrn;
    if (!args->dsrc[0])
        return TN_OK;
    tn_lrn_args k = {args->src[0], args->ddst, args->dsrc[0], t->channels,        t->size,
                     t->alpha,     t->beta,    t->bias,       args->accumulate[0]};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_lrn_backward, &k, t->rows * t->channels, error);
}

static const tn_kernel_class lrn_class = {tn_gpu_task_destroy, NULL, lrn_forward, lrn_backward};

tn_status tn_gpu_lrn_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                             tn_error *error)
{
    tn_kernel *k;
    tn_status status =
        tn_gpu_task_create(device, task, &lrn_class, "cuda", sizeof(tn_gpu_task), &k, error);
    if (status != TN_OK)
        return status;
    k->reads_src = true;
    *kernel = k;
    return TN_OK;
}
