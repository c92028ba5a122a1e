/* Slice, pad, transpose and concat: copies of boxes between strided tensors. */
#include "gpu/gpu.h"

/* A box: offsets into source and destination and their strides, of the forward direction. */
typedef struct region_kernel {
    tn_kernel base;
    tn_move_args box;
    int64_t src_first, dst_first, count, src_count, dst_count;
} region_kernel;

const char *tn_gpu_region_refusal(const tn_task *task)
{
    int rank = task->verb == TN_VERB_SLICE       ? task->slice.src.rank
               : task->verb == TN_VERB_PAD       ? task->pad.src.rank
               : task->verb == TN_VERB_TRANSPOSE ? task->transpose.src.rank
                                                 : 0;
    return rank > TN_BOX_RANK ? "it has more than 8 axes" : NULL;
}

/* Four neighbours at a time where both sides allow it. */
static tn_status launch_move(tn_gpu *gpu, tn_move_args *move, tn_error *error)
{
    const int last = move->rank - 1;
    bool wide = move->rank > 0 && move->dims[last] % TN_TILE_WIDTH == 0 && move->from[last] == 1 &&
                move->to[last] == 1 && tn_gpu_aligned(move->src, move->dst);
    int64_t count = 1;
    for (int i = 0; i < last; i++)
        wide = wide && move->from[i] % TN_TILE_WIDTH == 0 && move->to[i] % TN_TILE_WIDTH == 0;
    move->width = wide ? TN_TILE_WIDTH : 1;
    if (wide) {
        move->dims[last] /= TN_TILE_WIDTH;
        move->from[last] = move->to[last] = TN_TILE_WIDTH;
    }
    for (int i = 0; i < move->rank; i++)
        count *= move->dims[i];
    return tn_gpu_launch(gpu, TN_GPU_move, move, count, error);
}

static tn_status copy_box(const region_kernel *k, const float *src, float *dst, tn_error *error)
{
    tn_move_args move = k->box;
    move.bf16 = k->base.task.bf16_dst;
    move.src = tn_gpu_element(src, k->src_first, move.bf16);
    move.dst = tn_gpu_element(dst, k->dst_first, move.bf16);
    return launch_move(tn_gpu_of(&k->base), &move, error);
}

static tn_status region_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const region_kernel *k = (const region_kernel *)kernel;
    if (k->base.task.verb == TN_VERB_PAD && k->count < k->dst_count) {
        tn_fill_args fill = {args->dst, k->base.task.pad.value, k->base.task.bf16_dst};
        tn_status status =
            tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_fill, &fill, k->dst_count, error);
        if (status != TN_OK)
            return status;
    }
    return copy_box(k, args->src[0], args->dst, error);
}

static tn_status region_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const region_kernel *k = (const region_kernel *)kernel;
    tn_gpu *gpu = tn_gpu_of(kernel);
    const bool bf16 = k->base.task.bf16_dst;
    tn_status status = TN_OK;
    if (!args->dsrc[0])
        return TN_OK;
    if (!args->accumulate[0] && k->count < k->src_count)
        status =
            tn_gpu_zero(gpu, args->dsrc[0],
                        (size_t)k->src_count * (bf16 ? sizeof(tn_bf16) : sizeof(float)), error);
    tn_move_args move = k->box;
    move.bf16 = bf16;
    move.src = tn_gpu_element(args->ddst, k->dst_first, bf16);
    move.dst = tn_gpu_element(args->dsrc[0], k->src_first, bf16);
    move.accumulate = args->accumulate[0];
    for (int i = 0; i < move.rank; i++) {
        move.from[i] = k->box.to[i];
        move.to[i] = k->box.from[i];
    }
    return status == TN_OK ? launch_move(gpu, &move, error) : status;
}

static const tn_kernel_class region_class = {tn_kernel_free, NULL, region_forward, region_backward};

static tn_status region_create(tn_device *device, const tn_task *task, const tn_extent *src,
                               const tn_extent *dst, region_kernel **region, tn_kernel **kernel,
                               tn_error *error)
{
    tn_status status =
        tn_kernel_create(device, task, &region_class, "cuda", sizeof(region_kernel), kernel, error);
    if (status != TN_OK)
        return status;
    *region = (region_kernel *)*kernel;
    (*region)->src_count = tn_extent_count(src);
    (*region)->dst_count = tn_extent_count(dst);
    (*region)->box.rank = src->rank;
    return TN_OK;
}

tn_status tn_gpu_slice_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                               tn_error *error)
{
    const tn_slice_task *t = &task->slice;
    region_kernel *k;
    tn_kernel *created;
    tn_status status = region_create(device, task, &t->src, &t->dst, &k, &created, error);
    if (status != TN_OK)
        return status;
    tn_extent_strides(&t->src, k->box.from);
    tn_extent_strides(&t->dst, k->box.to);
    k->count = k->dst_count;
    for (int i = 0; i < t->dst.rank; i++) {
        k->src_first += k->box.from[i] * t->start[i];
        k->box.from[i] *= t->step[i];
        k->box.dims[i] = t->dst.dims[i];
    }
    *kernel = created;
    return TN_OK;
}

static tn_status pad_mapped_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_pad_task *t = &kernel->task.pad;
    tn_pad_args k = {
        .src = args->src[0], .dst = args->dst, .rank = t->src.rank, .edge = t->mode == TN_PAD_EDGE};
    for (int i = 0; i < t->src.rank; i++) {
        k.src_dims[i] = t->src.dims[i];
        k.dst_dims[i] = t->dst.dims[i];
        k.begin[i] = t->begin[i];
    }
    return tn_gpu_launch(tn_gpu_of(kernel), TN_GPU_pad, &k, tn_extent_count(&t->dst), error);
}

static const tn_kernel_class pad_mapped_class = {tn_kernel_free, NULL, pad_mapped_forward, NULL};

tn_status tn_gpu_pad_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                             tn_error *error)
{
    const tn_pad_task *t = &task->pad;
    region_kernel *k;
    tn_kernel *created;
    if (t->mode != TN_PAD_CONSTANT)
        return tn_kernel_create(device, task, &pad_mapped_class, "cuda", sizeof(tn_kernel), kernel,
                                error);
    tn_status status = region_create(device, task, &t->src, &t->dst, &k, &created, error);
    if (status != TN_OK)
        return status;
    tn_extent_strides(&t->src, k->box.from);
    tn_extent_strides(&t->dst, k->box.to);
    k->count = 1;
    for (int i = 0; i < t->src.rank; i++) { /* what of the source is still inside */
        int64_t low = t->begin[i] < 0 ? -t->begin[i] : 0, high = t->src.dims[i];
        if (high > t->dst.dims[i] - t->begin[i])
            high = t->dst.dims[i] - t->begin[i];
        k->box.dims[i] = high > low ? high - low : 0;
        k->src_first += low * k->box.from[i];
        k->dst_first += (low + t->begin[i]) * k->box.to[i];
        k->count *= k->box.dims[i];
    }
    *kernel = created;
    return TN_OK;
}

tn_status tn_gpu_transpose_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                   tn_error *error)
{
    const tn_transpose_task *t = &task->transpose;
    int64_t stride[TN_MAX_RANK];
    region_kernel *k;
    tn_kernel *created;
    tn_status status = region_create(device, task, &t->src, &t->src, &k, &created, error);
    if (status != TN_OK)
        return status;
    tn_extent_strides(&t->src, stride);
    k->count = k->src_count;
    int64_t count = 1;
    for (int i = t->src.rank - 1; i >= 0; i--) { /* in the order of dst */
        k->box.dims[i] = t->src.dims[t->permutation[i]];
        k->box.from[i] = stride[t->permutation[i]];
        k->box.to[i] = count;
        count *= k->box.dims[i];
    }
    *kernel = created;
    return TN_OK;
}

/* --- concat --- */

typedef struct concat_kernel {
    tn_kernel base;
    int64_t total; /* sum of inner */
    int64_t inner[];
} concat_kernel;

static tn_status concat_run(const concat_kernel *k, const tn_arguments *args, bool backward,
                            tn_error *error)
{
    const tn_concat_task *t = &k->base.task.concat;
    int64_t at = 0;
    tn_status status = TN_OK;
    for (int i = 0; i < t->n && status == TN_OK; at += k->inner[i++]) {
        if (backward && !args->dsrc[i])
            continue;
        const bool bf16 = k->base.task.bf16_dst;
        tn_move_args move = {.rank = 2, .dims = {t->outer, k->inner[i]}, .bf16 = bf16};
        move.src = backward ? tn_gpu_element(args->ddst, at, bf16) : args->src[i];
        move.dst = backward ? args->dsrc[i] : tn_gpu_element(args->dst, at, bf16);
        move.from[0] = backward ? k->total : k->inner[i];
        move.to[0] = backward ? k->inner[i] : k->total;
        move.from[1] = move.to[1] = 1;
        move.accumulate = backward && args->accumulate[i];
        status = launch_move(tn_gpu_of(&k->base), &move, error);
    }
    return status;
}

static tn_status concat_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    return concat_run((const concat_kernel *)kernel, args, false, error);
}

static tn_status concat_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    return concat_run((const concat_kernel *)kernel, args, true, error);
}

static const tn_kernel_class concat_class = {tn_kernel_free, NULL, concat_forward, concat_backward};

tn_status tn_gpu_concat_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                tn_error *error)
{
    const tn_concat_task *t = &task->concat;
    tn_kernel *created;
    tn_status status =
        tn_kernel_create(device, task, &concat_class, "cuda",
                         sizeof(concat_kernel) + (size_t)t->n * sizeof(int64_t), &created, error);
    if (status != TN_OK)
        return status;
    concat_kernel *k = (concat_kernel *)created;
    for (int i = 0; i < t->n; i++) {
        k->inner[i] = t->inner[i];
        k->total += t->inner[i];
    }
    k->base.task.concat.inner = k->inner;
    *kernel = created;
    return TN_OK;
}
