#include "gpu/gpu.h"

typedef struct norm_kernel {
    tn_kernel base;
    tn_tiles sums, spread;
    bool batch_statistics; /* of the last forward */
    int parts;
    int32_t first[TN_NORM_PARTS + 1]; /* channel of each part */
} norm_kernel;

#define PASS(k, pass) ((k)->parts > 1 ? TN_GPU_norm_parts_##pass : TN_GPU_norm_##pass)
#define CODES_PASS(k, pass)                                                                        \
    ((k)->base.task.batch_norm.codes ? TN_GPU_norm_codes_##pass : PASS(k, pass))

const char *tn_gpu_batch_norm_refusal(const tn_batch_norm_task *task)
{
    if (task->n_parts > TN_NORM_PARTS)
        return "batch norm takes 64 sources at most";
    return task->n_parts && task->residual ? "of several sources it has no residual" : NULL;
}

/* Workspace: [factors: 3 channels floats, rounded up][partial sums]. */
static size_t factor_bytes(int64_t channels)
{
    return (size_t)((3 * channels + 63) / 64 * 64) * sizeof(float);
}

static tn_norm_args shared_args(const norm_kernel *k, const tn_arguments *args)
{
    const tn_batch_norm_task *t = &k->base.task.batch_norm;
    tn_norm_args n = {.parts = k->parts,
                      .gamma = args->params[0],
                      .saved = args->saved,
                      .factors = args->workspace,
                      .beta = args->params[1],
                      .residual = t->residual ? args->src[1] : NULL,
                      .sums = k->sums,
                      .spread = k->spread,
                      .x_bf16 = k->base.task.bf16_src & 1,
                      .y_bf16 = k->base.task.bf16_dst,
                      .residual_bf16 = k->base.task.bf16_src >> 1 & 1,
                      .gated = t->function != TN_FUNCTION_NONE,
                      .epsilon = t->epsilon,
                      .low = t->function == TN_FUNCTION_NONE   ? -INFINITY
                             : t->function == TN_FUNCTION_RELU ? 0.0f
                                                               : t->a,
                      .high = t->function == TN_FUNCTION_CLIP ? t->b : INFINITY};
    n.partial = (double *)(void *)((char *)args->workspace + factor_bytes(t->channels));
    if (t->codes) {
        n.code_step = args->params[4];
        n.code_low = t->quantize.low;
        n.code_high = t->quantize.high;
        n.clip_only = t->quantize.clip_only;
        n.code_slopes = n.partial + 2 * n.sums.chunks * t->channels;
    }
    for (int i = 0; i < k->parts; i++)
        n.part[i] = (tn_norm_part){
            .x = args->src[i], .first = k->first[i], .channels = k->first[i + 1] - k->first[i]};
    return n;
}

/* Gradients that the next launch writes: of a source that is there twice one at a time. */
static bool take_gradients(const tn_arguments *args, tn_norm_args *n, bool given[TN_NORM_PARTS])
{
    bool any = false;
    for (int i = 0; i < n->parts; i++) {
        tn_norm_part *part = &n->part[i];
        part->dx = given[i] ? NULL : args->dsrc[i];
        for (int j = 0; j < i && part->dx; j++)
            part->dx = n->part[j].dx == part->dx ? NULL : part->dx;
        part->accumulate = part->dx && args->accumulate[i];
        given[i] = given[i] || part->dx;
        any = any || part->dx;
    }
    return any;
}

static tn_status norm_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    norm_kernel *k = (norm_kernel *)kernel;
    tn_gpu *gpu = tn_gpu_of(kernel);
    tn_norm_args n = shared_args(k, args);
    n.mean = args->params[2];
    n.var = args->params[3];
    n.dst = args->dst;
    n.training = k->batch_statistics = args->training;
    n.move = args->training && args->keep < 1.0f;
    n.keep = args->keep;
    n.running_mean = args->running_mean;
    n.running_var = args->running_var;
    tn_status status = TN_OK;
    if (n.training)
        status = tn_gpu_launch(gpu, PASS(k, statistics), &n, tn_gpu_tile_threads(&n.sums), error);
    if (status == TN_OK)
        status =
            tn_gpu_launch(gpu, TN_GPU_norm_finish, &n, tn_gpu_chunk_threads(n.sums.cols), error);
    if (status == TN_OK)
        status =
            tn_gpu_launch(gpu, CODES_PASS(k, apply), &n, tn_gpu_tile_threads(&n.spread), error);
    return status;
}

static tn_status norm_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const norm_kernel *k = (const norm_kernel *)kernel;
    tn_gpu *gpu = tn_gpu_of(kernel);
    tn_norm_args n = shared_args(k, args);
    const tn_batch_norm_task *t = &k->base.task.batch_norm;
    float *dstep = t->codes ? args->dparams[4] : NULL;
    n.y = kernel->reads_dst ? args->dst : NULL;
    n.dy = args->ddst;
    n.dresidual = t->residual ? args->dsrc[1] : NULL;
    n.accumulate_residual = n.dresidual && args->accumulate[1];
    n.dgamma = args->dparams[0];
    n.dbeta = args->dparams[1];
    n.accumulate_params = args->accumulate_params;
    n.training = k->batch_statistics;
    tn_status status =
        tn_gpu_launch(gpu, CODES_PASS(k, sums), &n, tn_gpu_tile_threads(&n.sums), error);
    if (status == TN_OK)
        status =
            tn_gpu_launch(gpu, TN_GPU_norm_gradients, &n, tn_gpu_chunk_threads(n.sums.cols), error);
    if (t->codes)
        n.spread = k->sums; /* one block adds what the blocks leave: few serve it */
    bool given[TN_NORM_PARTS] = {false}, slopes = dstep != NULL;
    while (status == TN_OK && (take_gradients(args, &n, given) || n.dresidual || slopes)) {
        status =
            tn_gpu_launch(gpu, CODES_PASS(k, spread), &n, tn_gpu_tile_threads(&n.spread), error);
        n.dresidual = NULL;
        slopes = false;
    }
    if (status == TN_OK && dstep)
        status = tn_gpu_add_chunks(gpu, n.code_slopes, 1, n.spread.tiles * n.spread.chunks, dstep,
                                   t->quantize.step_factor, args->accumulate_params, error);
    return status;
}

static const tn_kernel_class norm_class = {tn_kernel_free, NULL, norm_forward, norm_backward};

tn_status tn_gpu_batch_norm_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                    tn_error *error)
{
    const tn_batch_norm_task *t = &task->batch_norm;
    tn_kernel *created;
    tn_status status =
        tn_kernel_create(device, task, &norm_class, "cuda", sizeof(norm_kernel), &created, error);
    if (status != TN_OK)
        return status;
    norm_kernel *k = (norm_kernel *)created;
    int64_t together = 0; /* its low bits: those of any part's channels */
    k->parts = t->n_parts ? t->n_parts : 1;
    for (int i = 0; i < k->parts; i++) {
        int64_t channels = t->n_parts ? t->parts[i] : t->channels;
        k->first[i + 1] = k->first[i] + (int32_t)channels;
        together |= channels;
    }
    k->sums = tn_gpu_sum_tiles(t->rows, t->channels, together);
    k->spread = tn_gpu_spread_tiles(t->rows, t->channels, together);
    created->saved_bytes = 3 * (size_t)t->channels * sizeof(float);
    size_t sums = 2 * (size_t)(k->sums.chunks * t->channels);
    if (t->codes)
        sums += (size_t)k->sums.tiles * (size_t)k->sums.chunks;
    created->workspace_bytes = factor_bytes(t->channels) + sums * sizeof(double);
    created->reads_src = true;
    created->reads_dst = t->function != TN_FUNCTION_NONE && t->residual && !t->codes;
    *kernel = created;
    return TN_OK;
}
