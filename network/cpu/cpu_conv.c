#include "network/cpu/cpu.h"

#include "core/memory.h"
#include "network/cpu/cpu_bf16.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

/* Weight gradients: the batch in fixed chunks, each on one thread, added in the order of a binary
 * tree; oneDNN's own threading of them gives other bits for another number of threads. */
enum { MAX_CHUNKS = 16, CHUNK_PIXELS = 128 };
static const size_t chunk_memory = (size_t)256 << 20; /* for all chunks' gradients together */

typedef struct conv_kernel {
    tn_kernel base;
    tn_dnnl_conv *forward, *data,
        *weights[2]; /* weights: chunks of small + 1 and of small images */
    int chunks;
    int64_t small, larger; /* images of a chunk; how many chunks have one more */
    size_t forward_bytes;  /* packed weights of forward, rounded up: bias or data's follow */
    size_t bias_bytes, chunk_bytes, chunk_weight_bytes, chunk_scratch_bytes;
    bool data_shares; /* backward data reads forward's packed weights */
    bool bf16;        /* operands are bf16: as they are stored, or rounded, the source's into
                         `saved` */
    bool src_stored, dst_stored; /* as bf16 */
    int64_t src_count, dst_count;
    size_t bf16_bytes; /* of a rounded operand at the workspace's end */
} conv_kernel;

static size_t round_up(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static void destroy_passes(conv_kernel *k)
{
    tn_dnnl_conv_destroy(k->forward);
    tn_dnnl_conv_destroy(k->data);
    tn_dnnl_conv_destroy(k->weights[0]);
    tn_dnnl_conv_destroy(k->weights[1]);
    k->forward = k->data = k->weights[0] = k->weights[1] = NULL;
}

static void conv_destroy(tn_kernel *kernel)
{
    destroy_passes((conv_kernel *)kernel);
    tn_free(kernel);
}

static int64_t weights_per_channel(const tn_conv_task *t)
{
    int64_t n = t->in_channels / t->group;
    for (int i = 0; i < t->spatial; i++)
        n *= t->kernel[i];
    return n;
}

static void *data_weights(const conv_kernel *k, const tn_arguments *args)
{
    return (char *)args->state + (k->data_shares ? 0 : k->forward_bytes + k->bias_bytes);
}

/* weight * gamma / sqrt(var + epsilon) into the workspace, (bias - mean) * that + beta into state
 */
static const float *fold(const conv_kernel *k, const tn_arguments *args)
{
    const tn_conv_task *t = &k->base.task.conv;
    const float *const *bn = args->params + (t->bias ? 2 : 1);
    float *bias = (float *)((char *)args->state + k->forward_bytes), *folded = args->workspace;
    int64_t n = weights_per_channel(t);
    for (int64_t o = 0; o < t->out_channels; o++) {
        double scale = (double)bn[0][o] / sqrt((double)bn[3][o] + (double)t->epsilon);
        double old = t->bias ? (double)args->params[1][o] : 0.0;
        bias[o] = (float)((old - (double)bn[2][o]) * scale + (double)bn[1][o]);
        for (int64_t i = 0; i < n; i++)
            folded[o * n + i] = (float)((double)args->params[0][o * n + i] * scale);
    }
    return folded;
}

static tn_status conv_pack(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    conv_kernel *k = (conv_kernel *)kernel;
    const float *plain = k->base.task.conv.fold ? fold(k, args) : args->params[0];
    tn_status status = tn_dnnl_conv_pack(k->forward, plain, args->state, error);
    if (status == TN_OK && k->data && !k->data_shares)
        status = tn_dnnl_conv_pack(k->data, plain, data_weights(k, args), error);
    return status;
}

/* The end of the workspace holds one rounded operand. */
static uint16_t *rounded_operand(const conv_kernel *k, const tn_arguments *args)
{
    return (uint16_t *)((char *)args->workspace + k->base.workspace_bytes - k->bf16_bytes);
}

static tn_status conv_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const conv_kernel *k = (const conv_kernel *)kernel;
    const tn_conv_task *t = &k->base.task.conv;
    const void *bias = t->fold   ? (const char *)args->state + k->forward_bytes
                       : t->bias ? (const char *)args->params[1]
                                 : NULL;
    const void *src = args->src[0];
    if (k->bf16 && !k->src_stored) {
        uint16_t *rounded = kernel->saved_bytes ? args->saved : rounded_operand(k, args);
        tn_cpu_round(args->src[0], rounded, k->src_count);
        src = rounded;
    }
    tn_dnnl_conv_args a = {src,       args->state,    bias, t->residual ? args->src[1] : NULL,
                           args->dst, args->workspace};
    if (!tn_dnnl_conv_run(k->forward, 0, &a))
        return tn_fail(error, TN_ERROR_DEVICE, "oneDNN: a convolution failed");
    return TN_OK;
}

static tn_status backward_data(const conv_kernel *k, const tn_arguments *args, const void *ddst,
                               tn_error *error)
{
    int64_t count = k->src_count;
    void *dsrc = args->dsrc[0];
    char *scratch = args->workspace;
    if (args->accumulate[0]) {
        dsrc = args->workspace;
        scratch += round_up((size_t)count * tn_element(k->src_stored));
    }
    tn_dnnl_conv_args a = {dsrc, data_weights(k, args), NULL, NULL, ddst, scratch};
    if (!tn_dnnl_conv_run(k->data, 0, &a))
        return tn_fail(error, TN_ERROR_DEVICE, "oneDNN: a data gradient failed");
    if (args->accumulate[0])
        tn_cpu_add(args->dsrc[0], dsrc, count, k->src_stored);
    return TN_OK;
}

TN_HOT static void add_into(float *restrict dst, const float *restrict src, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        dst[i] += src[i];
}

/* Adds the chunks into chunk 0: i += i + 1, then i += i + 2, ... */
static void add_chunks(const conv_kernel *k, char *chunks)
{
    int64_t count = (int64_t)((k->chunk_bytes - k->chunk_scratch_bytes) / sizeof(float));
#pragma omp parallel for schedule(static) if (count > TN_CPU_GRAIN)
    for (int64_t at = 0; at < count; at += TN_CPU_GRAIN) {
        int64_t n = tn_cpu_piece(count, at);
        for (int step = 1; step < k->chunks; step *= 2)
            for (int i = 0; i + step < k->chunks; i += 2 * step)
                add_into((float *)(chunks + (size_t)i * k->chunk_bytes) + at,
                         (const float *)(chunks + (size_t)(i + step) * k->chunk_bytes) + at, n);
    }
}

static bool run_chunk(const conv_kernel *k, const tn_arguments *args, const char *ddst, int chunk)
{
    const tn_conv_task *t = &k->base.task.conv;
    size_t src = (size_t)(k->src_count / t->batch) * tn_element(k->bf16);
    size_t dst = (size_t)(k->dst_count / t->batch) * tn_element(k->bf16);
    int64_t first = chunk * k->small + (chunk < k->larger ? chunk : k->larger);
    bool more = chunk < k->larger;
    char *memory = (char *)args->workspace + (size_t)chunk * k->chunk_bytes;
    const char *from = k->bf16 && !k->src_stored ? args->saved : (const void *)args->src[0];
    tn_dnnl_conv_args a = {from + (size_t)first * src,
                           memory,
                           t->bias ? memory + k->chunk_weight_bytes : NULL,
                           NULL,
                           ddst + (size_t)first * dst,
                           memory + k->chunk_bytes - k->chunk_scratch_bytes};
    return tn_dnnl_conv_run(k->weights[more ? 0 : 1], more ? chunk : chunk - (int)k->larger, &a);
}

static tn_status backward_weights(const conv_kernel *k, const tn_arguments *args, const void *ddst,
                                  tn_error *error)
{
    const tn_conv_task *t = &k->base.task.conv;
    char *chunks = args->workspace;
    int64_t count = t->out_channels * weights_per_channel(t);
    atomic_bool ok = true;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < k->chunks; i++)
        if (!run_chunk(k, args, ddst, i))
            ok = false;
    if (!ok)
        return tn_fail(error, TN_ERROR_DEVICE, "oneDNN: a weight gradient failed");
    add_chunks(k, chunks);
    if (args->dparams[0]) {
        float *plain = args->dparams[0];
        if (args->accumulate_params)
            plain = (float *)(chunks + (size_t)k->chunks * k->chunk_bytes);
        tn_status status =
            tn_dnnl_conv_unpack(k->larger ? k->weights[0] : k->weights[1], chunks, plain, error);
        if (status != TN_OK)
            return status;
        if (args->accumulate_params)
            add_into(args->dparams[0], plain, count);
    }
    if (t->bias && args->dparams[1]) {
        const float *bias = (const float *)(chunks + k->chunk_weight_bytes);
        for (int64_t o = 0; o < t->out_channels; o++)
            args->dparams[1][o] = bias[o] + (args->accumulate_params ? args->dparams[1][o] : 0.0f);
    }
    return TN_OK;
}

static tn_status conv_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const conv_kernel *k = (const conv_kernel *)kernel;
    const void *ddst = args->ddst;
    tn_status status = TN_OK;
    if (k->bf16 && !k->dst_stored) {
        tn_cpu_round(args->ddst, rounded_operand(k, args), k->dst_count);
        ddst = rounded_operand(k, args);
    }
    if (args->dsrc[0])
        status = backward_data(k, args, ddst, error);
    if (status == TN_OK && (args->dparams[0] || (k->base.task.conv.bias && args->dparams[1])))
        status = backward_weights(k, args, ddst, error);
    return status;
}

static const tn_kernel_class conv_class = {conv_destroy, conv_pack, conv_forward, conv_backward};

static tn_status prepare_weights(conv_kernel *k, tn_dnnl *dnnl, tn_error *error)
{
    const tn_conv_task *t = &k->base.task.conv;
    int64_t count = t->out_channels * weights_per_channel(t);
    int64_t chunks = (int64_t)(chunk_memory / (sizeof(float) * (size_t)(count + 1)));
    chunks = chunks > MAX_CHUNKS ? MAX_CHUNKS : chunks < 1 ? 1 : chunks;
    /* every chunk writes all weights and is added: that should not cost more than its products */
    int64_t pixels = k->dst_count / t->out_channels;
    while (chunks > 2 && pixels < chunks * CHUNK_PIXELS)
        chunks /= 2;
    k->chunks = (int)(chunks > t->batch ? t->batch : chunks);
    k->small = t->batch / k->chunks;
    k->larger = t->batch % k->chunks;
    for (int i = 0; i < 2; i++) {
        int lanes = i ? k->chunks - (int)k->larger : (int)k->larger;
        if (lanes == 0)
            continue;
        tn_status status = tn_dnnl_conv_create(
            dnnl, t, TN_DNNL_BACKWARD_WEIGHTS, i ? k->small : k->small + 1,
            k->bf16 ? TN_DNNL_BF16_TO_FP32 : TN_DNNL_FP32, true, lanes, &k->weights[i], error);
        if (status != TN_OK)
            return status;
        size_t weight = round_up(tn_dnnl_conv_weight_bytes(k->weights[i]));
        size_t scratch = round_up(tn_dnnl_conv_scratch_bytes(k->weights[i]));
        k->chunk_weight_bytes = weight;
        k->chunk_scratch_bytes =
            scratch > k->chunk_scratch_bytes ? scratch : k->chunk_scratch_bytes;
    }
    if (k->larger && !tn_dnnl_conv_same_weights(k->weights[0], k->weights[1]))
        return tn_fail(error, TN_ERROR_DEVICE,
                       "oneDNN lays out weight gradients of %lld and %lld images differently: use "
                       "a batch that %d divides",
                       (long long)k->small, (long long)k->small + 1, k->chunks);
    k->chunk_bytes = k->chunk_weight_bytes + k->chunk_scratch_bytes +
                     (t->bias ? round_up((size_t)t->out_channels * sizeof(float)) : 0);
    return TN_OK;
}

static void size_memory(conv_kernel *k, bool backward)
{
    const tn_conv_task *t = &k->base.task.conv;
    size_t weights = (size_t)(t->out_channels * weights_per_channel(t)) * sizeof(float);
    size_t source = (size_t)k->src_count * tn_element(k->src_stored);
    size_t most = tn_dnnl_conv_scratch_bytes(k->forward);
    if (t->fold && weights > most)
        most = weights;
    k->forward_bytes = round_up(tn_dnnl_conv_weight_bytes(k->forward));
    k->bias_bytes = t->fold ? round_up((size_t)t->out_channels * sizeof(float)) : 0;
    k->base.state_bytes = k->forward_bytes + k->bias_bytes;
    if (backward) {
        size_t data = round_up(source) + tn_dnnl_conv_scratch_bytes(k->data);
        size_t chunks = (size_t)k->chunks * k->chunk_bytes + round_up(weights);
        k->data_shares = tn_dnnl_conv_same_weights(k->forward, k->data);
        if (!k->data_shares)
            k->base.state_bytes += round_up(tn_dnnl_conv_weight_bytes(k->data));
        most = data > most ? data : most;
        most = chunks > most ? chunks : most;
    }
    if (k->bf16) {
        int64_t src = k->src_stored ? 0 : k->src_count, dst = k->dst_stored ? 0 : k->dst_count;
        k->bf16_bytes = round_up((size_t)(src > dst ? src : dst) * sizeof(uint16_t));
        most = round_up(most) + k->bf16_bytes;
        if (backward)
            k->base.saved_bytes = (size_t)src * sizeof(uint16_t);
    }
    k->base.workspace_bytes = most;
}

static tn_dnnl_types types_of(const conv_kernel *k, bool result_stored)
{
    return !k->bf16 ? TN_DNNL_FP32 : result_stored ? TN_DNNL_BF16 : TN_DNNL_BF16_TO_FP32;
}

/* All passes of one type: fp32, or bf16 when the task asks for it and oneDNN has all of them. */
static tn_status create_passes(conv_kernel *k, tn_dnnl *dnnl, bool backward, tn_error *error)
{
    const tn_conv_task *t = &k->base.task.conv;
    tn_status status =
        tn_dnnl_conv_create(dnnl, t, TN_DNNL_FORWARD, t->batch, types_of(k, k->dst_stored), false,
                            1, &k->forward, error);
    if (status == TN_OK && backward)
        status = tn_dnnl_conv_create(dnnl, t, TN_DNNL_BACKWARD_DATA, t->batch,
                                     types_of(k, k->src_stored), false, 1, &k->data, error);
    return status == TN_OK && backward ? prepare_weights(k, dnnl, error) : status;
}

tn_status tn_cpu_conv_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                              tn_error *error)
{
    tn_dnnl *dnnl = ((tn_cpu_device *)device)->dnnl;
    const tn_conv_task *t = &task->conv;
    tn_kernel *created = NULL;
    tn_status status = TN_ERROR_DEVICE;
    if (tn_cpu_pixel_conv_suits(t))
        status = tn_cpu_pixel_conv_prepare(device, task, kernel, NULL);
    if (status != TN_ERROR_DEVICE)
        return status == TN_OK ? status : tn_fail(error, status, "out of memory");
    status =
        tn_kernel_create(device, task, &conv_class, "oneDNN", sizeof(conv_kernel), &created, error);
    if (status != TN_OK)
        return status;
    conv_kernel *k = (conv_kernel *)created;
    k->src_count = t->batch * t->in_channels;
    k->dst_count = t->batch * t->out_channels;
    for (int i = 0; i < t->spatial; i++) {
        k->src_count *= t->in[i];
        k->dst_count *= t->out[i];
    }
    k->bf16 = task->precision == TN_PRECISION_BF16;
    k->src_stored = task->bf16_src & 1;
    k->dst_stored = task->bf16_dst;
    bool stored = k->src_stored || k->dst_stored; /* then there is no way back to fp32 */
    status = create_passes(k, dnnl, task->backward, k->bf16 && !stored ? NULL : error);
    if (status == TN_ERROR_DEVICE && k->bf16 && !stored) {
        destroy_passes(k);
        k->bf16 = false;
        status = create_passes(k, dnnl, task->backward, error);
    }
    if (status != TN_OK) {
        conv_destroy(created);
        return status;
    }
    size_memory(k, task->backward);
    created->name = tn_dnnl_conv_name(k->forward);
    created->reads_src = !k->bf16 || k->src_stored;
    *kernel = created;
    return TN_OK;
}
