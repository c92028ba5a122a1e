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

/* Blocks by the shape alone, so that sums are the same on every GPU. */
static tn_tiles make_tiles(int64_t rows, int64_t cols, int64_t together, int64_t rows_of_a_thread,
                           int64_t most_blocks)
{
    int width = together % TN_TILE_WIDTH == 0 ? TN_TILE_WIDTH : 1;
    int64_t vectors = cols > 0 ? cols / width : 1;
    int64_t tiles = (vectors + TN_TILE_LANES - 1) / TN_TILE_LANES;
    int64_t lanes = (vectors + tiles - 1) / tiles;
    int64_t chunks = rows * lanes / (TN_GPU_BLOCK * rows_of_a_thread);
    chunks = chunks > most_blocks / tiles ? most_blocks / tiles : chunks;
    return (tn_tiles){.rows = rows,
                      .cols = cols,
                      .width = width,
                      .lanes = (int)lanes,
                      .tiles = (int)tiles,
                      .chunks = chunks < 1 ? 1 : (int)chunks};
}

tn_tiles tn_gpu_sum_tiles(int64_t rows, int64_t cols, int64_t together)
{
    return make_tiles(rows, cols, together, 2 * TN_TILE_ROWS, 528);
}

tn_tiles tn_gpu_spread_tiles(int64_t rows, int64_t cols, int64_t together)
{
    return make_tiles(rows, cols, together, TN_TILE_ROWS, 1 << 20);
}

int64_t tn_gpu_tile_threads(const tn_tiles *tiles)
{
    return (int64_t)tiles->tiles * tiles->chunks * TN_GPU_BLOCK;
}

int64_t tn_gpu_chunk_threads(int64_t cols)
{
    return (cols + TN_CHUNK_COLUMNS - 1) / TN_CHUNK_COLUMNS * TN_GPU_BLOCK;
}

tn_status tn_gpu_add_chunks(tn_gpu *gpu, const double *partial, int64_t count, int chunks,
                            float *dst, float alpha, bool accumulate, tn_error *error)
{
    tn_chunks_args add = {partial, dst, count, chunks, alpha, accumulate};
    return tn_gpu_launch(gpu, TN_GPU_chunks, &add, tn_gpu_chunk_threads(count), error);
}

size_t tn_gpu_column_sums_bytes(int64_t rows, int64_t cols)
{
    return (size_t)(tn_gpu_sum_tiles(rows, cols, cols).chunks * cols) * sizeof(double);
}

tn_status tn_gpu_column_sums(tn_gpu *gpu, const void *src, bool bf16, int64_t rows, int64_t cols,
                             double *partial, float *dst, float alpha, bool accumulate,
                             tn_error *error)
{
    tn_column_sums_args sums = {src, partial, tn_gpu_sum_tiles(rows, cols, cols), bf16};
    tn_status status =
        tn_gpu_launch(gpu, TN_GPU_column_sums, &sums, tn_gpu_tile_threads(&sums.tiles), error);
    return status == TN_OK ? tn_gpu_add_chunks(gpu, partial, cols, sums.tiles.chunks, dst, alpha,
                                               accumulate, error)
                           : status;
}

/* --- reduce --- */

static tn_status reduce_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_task *task = &kernel->task;
    const tn_reduce_task *t = &task->reduce;
    tn_reduce_args k = {args->src[0], args->dst,          t->kind,       t->reduced, t->inner,
                        false,        task->bf16_src & 1, task->bf16_dst};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_reduce, &k, t->outer * t->inner, error);
}

static tn_status reduce_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_task *task = &kernel->task;
    const tn_reduce_task *t = &task->reduce;
    if (!args->dsrc[0])
        return TN_OK;
    tn_reduce_args k = {args->ddst, args->dsrc[0],       t->kind,        t->reduced,
                        t->inner,   args->accumulate[0], task->bf16_dst, task->bf16_src & 1};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_reduce_backward, &k,
                         t->outer * t->reduced * t->inner, error);
}

static const tn_kernel_class reduce_class = {tn_kernel_free, NULL, reduce_forward, reduce_backward};
static const tn_kernel_class reduce_max_class = {tn_kernel_free, NULL, reduce_forward, NULL};

tn_status tn_gpu_reduce_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                tn_error *error)
{
    bool max = task->reduce.kind == TN_REDUCE_MAX;
    return tn_kernel_create(device, task, max ? &reduce_max_class : &reduce_class, "cuda",
                            sizeof(tn_kernel), kernel, error);
}

/* --- softmax --- */

static tn_status softmax_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_softmax_task *t = &kernel->task.softmax;
    tn_softmax_args k = {args->src[0], NULL, args->dst, t->axis, t->inner, t->log, false};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_softmax, &k, t->outer * t->inner, error);
}

static tn_status softmax_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_softmax_task *t = &kernel->task.softmax;
    if (!args->dsrc[0])
        return TN_OK;
    tn_softmax_args k = {args->dst, args->ddst, args->dsrc[0],      t->axis,
                         t->inner,  t->log,     args->accumulate[0]};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_softmax_backward, &k, t->outer * t->inner,
                         error);
}

static const tn_kernel_class softmax_class = {tn_kernel_free, NULL, softmax_forward,
                                              softmax_backward};

tn_status tn_gpu_softmax_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                 tn_error *error)
{
    tn_kernel *k;
    tn_status status =
        tn_kernel_create(device, task, &softmax_class, "cuda", sizeof(tn_kernel), &k, error);
    if (status != TN_OK)
        return status;
    k->reads_dst = true;
    *kernel = k;
    return TN_OK;
}

/* --- LRN --- */

static tn_status lrn_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_lrn_task *t = &kernel->task.lrn;
    tn_lrn_args k = {args->src[0], NULL,    args->dst, t->channels, t->size,
                     t->alpha,     t->beta, t->bias,   false};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_lrn, &k, t->rows * t->channels, error);
}

static tn_status lrn_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_lrn_task *t = &kernel->task.lrn;
    if (!args->dsrc[0])
        return TN_OK;
    tn_lrn_args k = {args->src[0], args->ddst, args->dsrc[0], t->channels,        t->size,
                     t->alpha,     t->beta,    t->bias,       args->accumulate[0]};
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_lrn_backward, &k, t->rows * t->channels, error);
}

static const tn_kernel_class lrn_class = {tn_kernel_free, NULL, lrn_forward, lrn_backward};

tn_status tn_gpu_lrn_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                             tn_error *error)
{
    tn_kernel *k;
    tn_status status =
        tn_kernel_create(device, task, &lrn_class, "cuda", sizeof(tn_kernel), &k, error);
    if (status != TN_OK)
        return status;
    k->reads_src = true;
    *kernel = k;
    return TN_OK;
}
