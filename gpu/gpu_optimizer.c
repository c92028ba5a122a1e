/* The optimizer and the norm of the gradients: a table of tensors in the kernel's state. */
#include "gpu/gpu.h"

#include "core/memory.h"

#include <string.h>

typedef struct optimizer_kernel {
    tn_gpu_task plain;
    float *rates;             /* [n] factors on the learning rate */
    tn_update_entry *entries; /* [n] */
    void *image;              /* what pack uploads: header and entries */
    int64_t elements, chunks;
} optimizer_kernel;

static const size_t header_bytes = 64;

static tn_update_args arguments(const optimizer_kernel *k, const tn_arguments *args)
{
    const tn_optimizer_task *t = &k->plain.task.optimizer;
    const char *state = args->state;
    return (tn_update_args){.header = args->state,
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
    const tn_update *u = args->update;
    int n = k->plain.task.optimizer.n;
    if (u) {
        tn_update_header header = {u->gradient_scale, u->unbias1, u->unbias2, u->keep};
        memcpy(k->image, &header, sizeof(header));
        for (int i = 0; i < n; i++)
            k->entries[i].rate = (float)(u->lr * (double)k->rates[i]);
    }
    memcpy((char *)k->image + header_bytes, k->entries, (size_t)n * sizeof(*k->entries));
    return tn_gpu_copy(tn_gpu_of(kernel), args->state, k->image, kernel->state_bytes, TN_GPU_UPLOAD,
                       error);
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
    tn_status status = tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_squares, &a, k->chunks, error);
    return status == TN_OK ? tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_squares_total, &a, 1, error)
                           : status;
}

static void optimizer_destroy(tn_kernel *kernel)
{
    optimizer_kernel *k = (optimizer_kernel *)kernel;
    tn_free(k->rates);
    tn_free(k->entries);
    tn_free(k->image);
    tn_free(k);
}

static const tn_kernel_class optimizer_class = {optimizer_destroy, optimizer_pack, update, NULL};
static const tn_kernel_class norm_class = {optimizer_destroy, optimizer_pack, norm, NULL};

static void lay_out(optimizer_kernel *k)
{
    const tn_optimizer_task *t = &k->plain.task.optimizer;
    for (int i = 0; i < t->n; i++) {
        const tn_optimizer_item *item = &t->items[i];
        k->rates[i] = item->rate;
        k->entries[i] = (tn_update_entry){.element = k->elements,
                                          .chunk = k->chunks,
                                          .value = item->value,
                                          .gradient = item->gradient,
                                          .first = item->first,
                                          .second = item->second,
                                          .average = item->average,
                                          .count = item->count,
                                          .decay = item->decay,
                                          .floor = item->floor};
        k->elements += item->count;
        k->chunks += (item->count + TN_NORM_CHUNK - 1) / TN_NORM_CHUNK;
    }
    k->plain.task.optimizer.items = NULL; /* the caller's */
    k->plain.base.workspace_bytes = (size_t)k->chunks * sizeof(double);
    k->plain.base.state_bytes = header_bytes + (size_t)t->n * sizeof(*k->entries);
}

tn_status tn_gpu_optimizer_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                   tn_error *error)
{
    tn_kernel *created;
    const tn_kernel_class *type = task->verb == TN_VERB_NORM ? &norm_class : &optimizer_class;
    size_t n = (size_t)task->optimizer.n;
    tn_status status =
        tn_gpu_task_create(device, task, type, "cuda", sizeof(optimizer_kernel), &created, error);
    if (status != TN_OK)
        return status;
    optimizer_kernel *k = (optimizer_kernel *)created;
    k->rates = tn_alloc_array(n + 1, sizeof(*k->rates));
    k->entries = tn_alloc_zero(n + 1, sizeof(*k->entries));
    k->image = tn_alloc_zero(1, header_bytes + n * sizeof(*k->entries));
    if (!k->rates || !k->entries || !k->image) {
        optimizer_destroy(created);
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    }
    lay_out(k);
    *kernel = created;
    return TN_OK;
}
