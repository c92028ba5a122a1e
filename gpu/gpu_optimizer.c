/* The optimizer and the norm of the gradients: a table of tensors in the kernel's state; what
 * decides on a step. */
#include "gpu/gpu.h"

#include "core/memory.h"

typedef struct optimizer_kernel {
    tn_kernel base;
    tn_update_entry *entries; /* [n] */
    const void *filled;       /* the state that has them */
    int64_t elements, chunks;
} optimizer_kernel;

static const size_t header_bytes = (sizeof(tn_update) + 63) / 64 * 64;

static tn_update_args arguments(const optimizer_kernel *k, const tn_arguments *args)
{
    const tn_optimizer_task *t = &k->base.task.optimizer;
    const char *state = args->state;
    return (tn_update_args){.header = args->state,
                            .step = args->step,
                            .entries =
                                (const tn_update_entry *)(const void *)(state + header_bytes),
                            .n = t->n,
                            .rule = t->rule,
                            .partial = args->workspace,
                            .total = (double *)(void *)args->dst,
                            .chunks = k->chunks};
}

static tn_status optimizer_pack(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    optimizer_kernel *k = (optimizer_kernel *)kernel;
    tn_gpu *gpu = tn_gpu_of(kernel);
    tn_status status = TN_OK;
    if (k->filled != args->state)
        status = tn_gpu_copy(gpu, (char *)args->state + header_bytes, k->entries,
                             (size_t)k->base.task.optimizer.n * sizeof(*k->entries), TN_GPU_UPLOAD,
                             error);
    if (status == TN_OK)
        k->filled = args->state;
    return status == TN_OK && args->update
               ? tn_gpu_copy(gpu, args->state, args->update, sizeof(*args->update), TN_GPU_UPLOAD,
                             error)
               : status;
}

static tn_status update(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const optimizer_kernel *k = (const optimizer_kernel *)kernel;
    tn_update_args a = arguments(k, args);
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_update, &a, k->elements, error);
}

static tn_status norm(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const optimizer_kernel *k = (const optimizer_kernel *)kernel;
    tn_update_args a = arguments(k, args);
    tn_status status =
        tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_squares, &a, k->chunks * TN_GPU_BLOCK, error);
    return status == TN_OK
               ? tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_squares_total, &a, TN_GPU_BLOCK, error)
               : status;
}

static void optimizer_destroy(tn_kernel *kernel)
{
    optimizer_kernel *k = (optimizer_kernel *)kernel;
    tn_free(k->entries);
    tn_free(k);
}

static const tn_kernel_class optimizer_class = {optimizer_destroy, optimizer_pack, update, NULL};
static const tn_kernel_class norm_class = {optimizer_destroy, optimizer_pack, norm, NULL};

static void lay_out(optimizer_kernel *k)
{
    const tn_optimizer_task *t = &k->base.task.optimizer;
    for (int i = 0; i < t->n; i++) {
        const tn_optimizer_item *item = &t->items[i];
        k->entries[i] = (tn_update_entry){.element = k->elements,
                                          .chunk = k->chunks,
                                          .value = item->value,
                                          .gradient = item->gradient,
                                          .first = item->first,
                                          .second = item->second,
                                          .average = item->average,
                                          .count = item->count,
                                          .rate = item->rate,
                                          .decay = item->decay,
                                          .floor = item->floor};
        k->elements += item->count;
        k->chunks += (item->count + TN_NORM_CHUNK - 1) / TN_NORM_CHUNK;
    }
    k->base.task.optimizer.items = NULL; /* the caller's */
    k->base.workspace_bytes = (size_t)k->chunks * sizeof(double);
    k->base.state_bytes = header_bytes + (size_t)t->n * sizeof(*k->entries);
}

tn_status tn_gpu_optimizer_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                   tn_error *error)
{
    tn_kernel *created;
    const tn_kernel_class *type = task->verb == TN_VERB_NORM ? &norm_class : &optimizer_class;
    size_t n = (size_t)task->optimizer.n;
    tn_status status =
        tn_kernel_create(device, task, type, "cuda", sizeof(optimizer_kernel), &created, error);
    if (status != TN_OK)
        return status;
    optimizer_kernel *k = (optimizer_kernel *)created;
    k->entries = tn_alloc_zero(n + 1, sizeof(*k->entries));
    if (!k->entries) {
        optimizer_destroy(created);
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    }
    lay_out(k);
    *kernel = created;
    return TN_OK;
}

static tn_status tally_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_step_args k = {
        .state = args->step, .sums = args->src[0], .adds = args->accumulate_params};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_tally, &k, 1, error);
}

static tn_status judge_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_step_args k = {.state = args->step,
                            .squares = (const double *)(const void *)args->src[0],
                            .clip = kernel->task.judge.clip};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_judge, &k, 1, error);
}

static const tn_kernel_class tally_class = {tn_kernel_free, NULL, tally_forward, NULL};
static const tn_kernel_class judge_class = {tn_kernel_free, NULL, judge_forward, NULL};

tn_status tn_gpu_step_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                              tn_error *error)
{
    return tn_kernel_create(device, task, task->verb == TN_VERB_TALLY ? &tally_class : &judge_class,
                            "cuda", sizeof(tn_kernel), kernel, error);
}
