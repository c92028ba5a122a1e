/* Slice and Pad: copies between a dense tensor and a strided region of another. */
#include "network/cpu/cpu.h"

#include "core/memory.h"
#include "network/cpu/cpu_bf16.h"

#include <string.h>

/* The region of `big` that `small` maps to: small[i] lies at first + sum i[d] * stride[d]. */
typedef struct region {
    int rank;
    int64_t dims[TN_MAX_RANK]; /* of the copied box */
    int64_t stride[TN_MAX_RANK], first;
    int64_t small_stride[TN_MAX_RANK], small_first;
    int64_t count;
} region;

typedef struct region_kernel {
    tn_kernel base;
    region box;
    int64_t src_count, dst_count;
} region_kernel;

static void copy_row(const void *src, int64_t step, void *dst, int64_t dst_step, int64_t n,
                     bool add, bool bf16)
{
    if (add && step == 1 && dst_step == 1)
        tn_cpu_add_piece(dst, src, n, bf16);
    else if (add)
        for (int64_t i = 0; i < n; i++)
            tn_save(dst, i * dst_step,
                    tn_load(dst, i * dst_step, bf16) + tn_load(src, i * step, bf16), bf16);
    else if (step == 1 && dst_step == 1)
        memcpy(dst, src, (size_t)n * tn_element(bf16));
    else if (bf16)
        for (int64_t i = 0; i < n; i++)
            ((uint16_t *)dst)[i * dst_step] = ((const uint16_t *)src)[i * step];
    else
        for (int64_t i = 0; i < n; i++)
            ((float *)dst)[i * dst_step] = ((const float *)src)[i * step];
}

/* Copies (or adds) box elements: into small from big, or with `to_big` the other way. */
static void copy_box(const region *r, const void *small, const void *big, bool to_big, bool add,
                     bool bf16)
{
    int last = r->rank - 1, next = last - 1; /* rows, and what counts them */
    int64_t inner = r->dims[last], rows = next < 0 ? 1 : r->dims[next];
    int64_t planes = r->count ? r->count / (inner * rows) : 0;
    int64_t small_step = next < 0 ? 0 : r->small_stride[next];
    int64_t step = next < 0 ? 0 : r->stride[next];
#pragma omp parallel for schedule(static) if (r->count > TN_CPU_GRAIN)
    for (int64_t plane = 0; plane < planes; plane++) {
        int64_t rest = plane, s = r->small_first, b = r->first;
        for (int i = next - 1; i >= 0; i--) {
            int64_t at = rest % r->dims[i];
            rest /= r->dims[i];
            s += at * r->small_stride[i];
            b += at * r->stride[i];
        }
        for (int64_t row = 0; row < rows; row++, s += small_step, b += step) {
            void *in_small = tn_place(small, s, bf16), *in_big = tn_place(big, b, bf16);
            if (to_big)
                copy_row(in_small, r->small_stride[last], in_big, r->stride[last], inner, add,
                         bf16);
            else
                copy_row(in_big, r->stride[last], in_small, r->small_stride[last], inner, add,
                         bf16);
        }
    }
}

static tn_status slice_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const region_kernel *k = (const region_kernel *)kernel;
    copy_box(&k->box, args->dst, args->src[0], false, false, k->base.task.bf16_dst);
    return TN_OK;
}

static tn_status slice_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const region_kernel *k = (const region_kernel *)kernel;
    if (!args->dsrc[0])
        return TN_OK;
    if (!args->accumulate[0])
        memset(args->dsrc[0], 0, (size_t)k->src_count * tn_element(k->base.task.bf16_dst));
    copy_box(&k->box, args->ddst, args->dsrc[0], true, args->accumulate[0], k->base.task.bf16_dst);
    return TN_OK;
}

static const tn_kernel_class slice_class = {tn_kernel_free, NULL, slice_forward, slice_backward};

tn_status tn_cpu_slice_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                               tn_error *error)
{
    const tn_slice_task *t = &task->slice;
    tn_kernel *created;
    tn_status status =
        tn_kernel_create(device, task, &slice_class, "omp", sizeof(region_kernel), &created, error);
    if (status != TN_OK)
        return status;
    region_kernel *k = (region_kernel *)created;
    region *box = &k->box;
    int64_t stride[TN_MAX_RANK];
    tn_extent_strides(&t->src, stride);
    tn_extent_strides(&t->dst, box->small_stride);
    box->rank = t->dst.rank;
    box->count = k->dst_count = tn_extent_count(&t->dst);
    k->src_count = tn_extent_count(&t->src);
    for (int i = 0; i < box->rank; i++) {
        box->dims[i] = t->dst.dims[i];
        box->stride[i] = stride[i] * t->step[i];
        box->first += stride[i] * t->start[i];
    }
    *kernel = created;
    return TN_OK;
}

static void pad_mapped(const tn_pad_task *t, const float *src, float *dst)
{
    int64_t stride[TN_MAX_RANK], count = tn_extent_count(&t->dst);
    tn_extent_strides(&t->src, stride);
#pragma omp parallel for schedule(static) if (count > TN_CPU_GRAIN)
    for (int64_t i = 0; i < count; i++) {
        int64_t rest = i, from = 0;
        for (int d = t->dst.rank - 1; d >= 0; d--) {
            int64_t at = rest % t->dst.dims[d] - t->begin[d];
            rest /= t->dst.dims[d];
            from += tn_padded_index(t->mode == TN_PAD_EDGE, at, t->src.dims[d]) * stride[d];
        }
        dst[i] = src[from];
    }
}

static void fill(void *dst, int64_t count, float value, bool bf16)
{
    const uint16_t rounded = tn_bf16_round(value);
    uint16_t *half = dst;
    float *full = dst;
#pragma omp parallel for simd schedule(static) if (count > TN_CPU_GRAIN)
    for (int64_t i = 0; i < count; i++)
        if (bf16)
            half[i] = rounded;
        else
            full[i] = value;
}

static tn_status pad_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const region_kernel *k = (const region_kernel *)kernel;
    const tn_pad_task *t = &k->base.task.pad;
    if (t->mode != TN_PAD_CONSTANT) {
        pad_mapped(t, args->src[0], args->dst);
        return TN_OK;
    }
    fill(args->dst, k->dst_count, t->value, k->base.task.bf16_dst);
    copy_box(&k->box, args->src[0], args->dst, true, false, k->base.task.bf16_dst);
    return TN_OK;
}

static tn_status pad_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const region_kernel *k = (const region_kernel *)kernel;
    if (!args->dsrc[0])
        return TN_OK;
    if (!args->accumulate[0] && k->box.count < k->src_count)
        memset(args->dsrc[0], 0, (size_t)k->src_count * tn_element(k->base.task.bf16_dst));
    copy_box(&k->box, args->dsrc[0], args->ddst, false, args->accumulate[0], k->base.task.bf16_dst);
    return TN_OK;
}

static const tn_kernel_class pad_class = {tn_kernel_free, NULL, pad_forward, pad_backward};
static const tn_kernel_class pad_mapped_class = {tn_kernel_free, NULL, pad_forward, NULL};

tn_status tn_cpu_pad_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                             tn_error *error)
{
    const tn_pad_task *t = &task->pad;
    tn_kernel *created;
    tn_status status =
        tn_kernel_create(device, task, t->mode == TN_PAD_CONSTANT ? &pad_class : &pad_mapped_class,
                         "omp", sizeof(region_kernel), &created, error);
    if (status != TN_OK)
        return status;
    region_kernel *k = (region_kernel *)created;
    region *box = &k->box;
    k->src_count = tn_extent_count(&t->src);
    k->dst_count = tn_extent_count(&t->dst);
    tn_extent_strides(&t->src, box->small_stride);
    tn_extent_strides(&t->dst, box->stride);
    box->rank = t->src.rank;
    box->count = 1;
    for (int i = 0; i < box->rank; i++) { /* what of the source is still inside */
        int64_t low = t->begin[i] < 0 ? -t->begin[i] : 0, high = t->src.dims[i];
        if (high > t->dst.dims[i] - t->begin[i])
            high = t->dst.dims[i] - t->begin[i];
        box->dims[i] = high > low ? high - low : 0;
        box->small_first += low * box->small_stride[i];
        box->first += (low + t->begin[i]) * box->stride[i];
        box->count *= box->dims[i];
    }
    *kernel = created;
    return TN_OK;
}
