/* Convolutions on few pixels as matrix products: an output pixel is the sum, over the input pixels
 * under its window, of [batch, in channels] times the weights of one tap. oneDNN's convolutions
 * block the pixels of a row, and read all weights again for every image: where rows are as short as
 * a layer's at the end of a network for small images, they run at a half to a seventh of a
 * product's speed.
 *
 * Every product is on one thread and the pieces follow from the shapes, so that bits do not depend
 * on the number of threads. */
#include "network/cpu/cpu.h"

#include "core/memory.h"
#include "network/cpu/cpu_bf16.h"

#include <stdatomic.h>
#include <string.h>

enum {
    MOST_WIDTH = 3, /* of a row of the result */
    MOST_PIXELS = 9,
    MOST_SOURCE_PIXELS = 64,
    MOST_TAPS = 9,
    MOST_PAIRS = MOST_PIXELS * MOST_TAPS,
    LEAST_BATCH = 16,
    LEAST_CHANNELS = 64,
    CHANNEL_STEP = 16,
    MOST_BLOCKS = 4 /* of result channels: pieces for more threads than there are pixels */
};

typedef struct pair { /* a source pixel, the result pixel that sees it, and through which tap */
    int src, dst, tap;
} pair;

/* Forward, or the data gradient, which goes from the result's pixels to the source's. */
typedef struct direction {
    tn_dnnl_product *product;
    int blocks, pixels;   /* of what is computed */
    int64_t depth, width; /* channels of the operand; of a block of what is computed */
    int64_t column;       /* of a tap's weights [out, in], between channels of what is computed */
    size_t block_bytes;   /* packed weights of a tap and block */
    size_t scratch_bytes; /* of a piece */
} direction;

typedef struct pixel_conv {
    tn_kernel base;
    bool bf16;                   /* operands of the products are */
    bool src_stored, dst_stored; /* in memory as bf16 */
    int src_pixels, dst_pixels, taps, n_pairs;
    pair pairs[MOST_PAIRS];
    direction forward, data;
    tn_dnnl_product *weights;
    size_t weights_scratch_bytes;
    size_t forward_bytes;                /* packed weights of forward; data's follow */
    size_t src_bytes, dst_bytes;         /* operands of the products, pixel after pixel */
    size_t src_sum_bytes, dst_sum_bytes; /* fp32 results */
} pixel_conv;

static size_t round_up(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static void pixel_conv_destroy(tn_kernel *kernel)
{
    pixel_conv *k = (pixel_conv *)kernel;
    tn_dnnl_product_destroy(k->forward.product);
    tn_dnnl_product_destroy(k->data.product);
    tn_dnnl_product_destroy(k->weights);
    tn_free(k);
}

/* --- between [image, pixel, channel] and [pixel, image, channel] --------------------------------
 */

TN_INLINE void copy(const void *restrict src, void *restrict dst, int64_t n, bool from, bool to)
{
    for (int64_t i = 0; i < n; i++)
        tn_save(dst, i, tn_load(src, i, from), to);
}

TN_HOT static void copy_row(const void *src, void *dst, int64_t n, bool from, bool to)
{
    if (from == to)
        memcpy(dst, src, (size_t)n * tn_element(to));
    else if (to)
        copy(src, dst, n, false, true);
    else
        copy(src, dst, n, true, false);
}

static void gather(const pixel_conv *k, const void *src, bool stored, int pixels, int64_t channels,
                   void *operand)
{
    int64_t batch = k->base.task.conv.batch;
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < batch; n++)
        for (int p = 0; p < pixels; p++)
            copy_row(tn_place(src, (n * pixels + p) * channels, stored),
                     tn_place(operand, (p * batch + n) * channels, k->bf16), channels, stored,
                     k->bf16);
}

TN_INLINE void write(const float *restrict sum, const float *restrict bias, void *restrict dst,
                     int64_t n, bool add, bool bf16)
{
    if (bias)
        for (int64_t i = 0; i < n; i++)
            tn_save(dst, i, sum[i] + bias[i], bf16);
    else if (add)
        for (int64_t i = 0; i < n; i++)
            tn_save(dst, i, tn_load(dst, i, bf16) + sum[i], bf16);
    else
        for (int64_t i = 0; i < n; i++)
            tn_save(dst, i, sum[i], bf16);
}

TN_HOT static void write_row(const float *sum, const float *bias, void *dst, int64_t n, bool add,
                             bool bf16)
{
    if (bf16)
        write(sum, bias, dst, n, add, true);
    else
        write(sum, bias, dst, n, add, false);
}

/* From [pixel, block, image, channel]. */
static void scatter(const pixel_conv *k, const direction *d, const float *sums, const float *bias,
                    void *dst, bool add, bool stored)
{
    int64_t batch = k->base.task.conv.batch;
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < batch; n++)
        for (int i = 0; i < d->pixels * d->blocks; i++) {
            int p = i / d->blocks, b = i % d->blocks;
            int64_t at = ((n * d->pixels + p) * d->blocks + b) * d->width;
            write_row(sums + (i * batch + n) * d->width, bias ? bias + b * d->width : NULL,
                      tn_place(dst, at, stored), d->width, add, stored);
        }
}

/* --- products --------------------------------------------------------------------------------- */

/* One block of channels of one pixel. */
static bool run_piece(const pixel_conv *k, const direction *d, const char *operand,
                      const char *packed, float *sums, char *scratch, int piece)
{
    int64_t batch = k->base.task.conv.batch;
    bool add = false, ok = true;
    int pixel = piece / d->blocks, block = piece % d->blocks;
    size_t pixel_bytes = (size_t)(batch * d->depth) * tn_element(k->bf16);
    float *sum = sums + piece * batch * d->width;
    for (int i = 0; i < k->n_pairs && ok; i++) {
        const pair *at = &k->pairs[i];
        int from = d == &k->forward ? at->src : at->dst, to = d == &k->forward ? at->dst : at->src;
        if (to != pixel)
            continue;
        ok = tn_dnnl_product_run(d->product, add, operand + (size_t)from * pixel_bytes,
                                 packed + (size_t)(at->tap * d->blocks + block) * d->block_bytes,
                                 sum, scratch + (size_t)piece * d->scratch_bytes);
        add = true;
    }
    if (!add) /* nothing but padding under its window */
        memset(sum, 0, (size_t)(batch * d->width) * sizeof(float));
    return ok;
}

static tn_status run_pieces(const pixel_conv *k, const direction *d, const void *operand,
                            const void *packed, float *sums, void *scratch, tn_error *error)
{
    atomic_bool ok = true;
#pragma omp parallel for schedule(dynamic)
    for (int i = 0; i < d->pixels * d->blocks; i++)
        if (!run_piece(k, d, operand, packed, sums, scratch, i))
            ok = false;
    return ok ? TN_OK
              : tn_fail(error, TN_ERROR_LIMIT, "oneDNN: a matrix product ran out of memory");
}

static bool pack_direction(const pixel_conv *k, const direction *d, const char *plain, char *packed)
{
    const tn_conv_task *t = &k->base.task.conv;
    int64_t all = t->out_channels * t->in_channels;
    atomic_bool ok = true;
#pragma omp parallel for schedule(static)
    for (int i = 0; i < k->taps * d->blocks; i++) {
        int64_t at = i / d->blocks * all + i % d->blocks * d->width * d->column;
        if (!tn_dnnl_product_pack(d->product, tn_place(plain, at, k->bf16),
                                  packed + (size_t)i * d->block_bytes))
            ok = false;
    }
    return ok;
}

TN_INLINE void take(const float *restrict weights, void *restrict dst, int64_t in, int taps,
                    bool bf16)
{
    for (int64_t i = 0; i < in; i++)
        tn_save(dst, i, weights[i * taps], bf16);
}

/* One tap's weights of an output channel. */
TN_HOT static void take_tap(const float *weights, void *dst, int64_t in, int taps, bool bf16)
{
    if (bf16)
        take(weights, dst, in, taps, true);
    else
        take(weights, dst, in, taps, false);
}

/* [out, in, tap] -> [tap, out, in] -> the products' layouts */
static tn_status pixel_conv_pack(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const pixel_conv *k = (const pixel_conv *)kernel;
    const tn_conv_task *t = &k->base.task.conv;
    int64_t in = t->in_channels, all = t->out_channels * in;
    char *state = args->state;
#pragma omp parallel for schedule(static)
    for (int64_t o = 0; o < t->out_channels; o++)
        for (int tap = 0; tap < k->taps; tap++)
            take_tap(args->params[0] + o * in * k->taps + tap,
                     tn_place(args->workspace, tap * all + o * in, k->bf16), in, k->taps, k->bf16);
    if (!pack_direction(k, &k->forward, args->workspace, state) ||
        (k->data.product &&
         !pack_direction(k, &k->data, args->workspace, state + k->forward_bytes)))
        return tn_fail(error, TN_ERROR_LIMIT, "oneDNN: packing weights ran out of memory");
    return TN_OK;
}

static tn_status pixel_conv_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const pixel_conv *k = (const pixel_conv *)kernel;
    const tn_conv_task *t = &k->base.task.conv;
    char *work = args->workspace;
    void *operand = args->saved;
    if (!kernel->saved_bytes) {
        operand = work;
        work += k->src_bytes;
    }
    gather(k, args->src[0], k->src_stored, k->src_pixels, t->in_channels, operand);
    tn_status status = run_pieces(k, &k->forward, operand, args->state, (float *)(void *)work,
                                  work + k->dst_sum_bytes, error);
    if (status == TN_OK)
        scatter(k, &k->forward, (const float *)(const void *)work, t->bias ? args->params[1] : NULL,
                args->dst, false, k->dst_stored);
    return status;
}

/* sums [tap, out, in] -> [out, in, tap] */
TN_HOT static void interleave(const float *restrict sums, float *restrict weights, int64_t in,
                              int64_t all, int taps, bool add)
{
    for (int64_t i = 0; i < in; i++)
        for (int t = 0; t < taps; t++) {
            float sum = sums[t * all + i];
            weights[i * taps + t] = add ? weights[i * taps + t] + sum : sum;
        }
}

static bool weight_tap(const pixel_conv *k, const char *src, const char *ddst, float *sums,
                       char *scratch, int tap)
{
    const tn_conv_task *t = &k->base.task.conv;
    size_t src_bytes = (size_t)(t->batch * t->in_channels) * tn_element(k->bf16);
    size_t dst_bytes = (size_t)(t->batch * t->out_channels) * tn_element(k->bf16);
    int64_t all = t->out_channels * t->in_channels;
    float *sum = sums + tap * all;
    bool add = false, ok = true;
    for (int i = 0; i < k->n_pairs && ok; i++) {
        const pair *at = &k->pairs[i];
        if (at->tap != tap)
            continue;
        ok = tn_dnnl_product_run(k->weights, add, ddst + (size_t)at->dst * dst_bytes,
                                 src + (size_t)at->src * src_bytes, sum,
                                 scratch + (size_t)tap * k->weights_scratch_bytes);
        add = true;
    }
    if (!add)
        memset(sum, 0, (size_t)all * sizeof(float));
    return ok;
}

static tn_status backward_weights(const pixel_conv *k, const tn_arguments *args, const void *ddst,
                                  char *work, tn_error *error)
{
    const tn_conv_task *t = &k->base.task.conv;
    int64_t in = t->in_channels, all = t->out_channels * in;
    float *sums = (float *)(void *)work;
    char *scratch = work + round_up((size_t)(k->taps * all) * sizeof(float));
    atomic_bool ok = true;
#pragma omp parallel for schedule(dynamic)
    for (int tap = 0; tap < k->taps; tap++)
        if (!weight_tap(k, args->saved, ddst, sums, scratch, tap))
            ok = false;
    if (!ok)
        return tn_fail(error, TN_ERROR_LIMIT, "oneDNN: a matrix product ran out of memory");
#pragma omp parallel for schedule(static)
    for (int64_t o = 0; o < t->out_channels; o++)
        interleave(sums + o * in, args->dparams[0] + o * in * k->taps, in, all, k->taps,
                   args->accumulate_params);
    return TN_OK;
}

static void backward_bias(const pixel_conv *k, const tn_arguments *args)
{
    const tn_conv_task *t = &k->base.task.conv;
    int64_t rows = t->batch * k->dst_pixels;
    for (int64_t o = 0; o < t->out_channels; o++) {
        double sum = 0.0;
        for (int64_t r = 0; r < rows; r++)
            sum += (double)tn_load(args->ddst, r * t->out_channels + o, k->dst_stored);
        args->dparams[1][o] = (float)sum + (args->accumulate_params ? args->dparams[1][o] : 0.0f);
    }
}

static tn_status pixel_conv_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const pixel_conv *k = (const pixel_conv *)kernel;
    const tn_conv_task *t = &k->base.task.conv;
    void *ddst = args->workspace;
    char *work = (char *)args->workspace + k->dst_bytes;
    tn_status status = TN_OK;
    gather(k, args->ddst, k->dst_stored, k->dst_pixels, t->out_channels, ddst);
    if (args->dsrc[0]) {
        status = run_pieces(k, &k->data, ddst, (char *)args->state + k->forward_bytes,
                            (float *)(void *)work, work + k->src_sum_bytes, error);
        if (status == TN_OK)
            scatter(k, &k->data, (const float *)(const void *)work, NULL, args->dsrc[0],
                    args->accumulate[0], k->src_stored);
    }
    if (status == TN_OK && args->dparams[0])
        status = backward_weights(k, args, ddst, work, error);
    if (status == TN_OK && t->bias && args->dparams[1])
        backward_bias(k, args);
    return status;
}

static const tn_kernel_class pixel_conv_class = {pixel_conv_destroy, pixel_conv_pack,
                                                 pixel_conv_forward, pixel_conv_backward};

/* --- preparation ------------------------------------------------------------------------------ */

static int64_t product_of(const int64_t *dims, int n)
{
    int64_t p = 1;
    for (int i = 0; i < n && p <= MOST_SOURCE_PIXELS; i++)
        p *= dims[i];
    return p;
}

bool tn_cpu_pixel_conv_suits(const tn_conv_task *t)
{
    int64_t taps = product_of(t->kernel, t->spatial);
    return t->group == 1 && !t->residual && !t->fold && t->function == TN_FUNCTION_NONE &&
           taps > 1 && taps <= MOST_TAPS && t->out[t->spatial - 1] <= MOST_WIDTH &&
           product_of(t->out, t->spatial) <= MOST_PIXELS &&
           product_of(t->in, t->spatial) <= MOST_SOURCE_PIXELS && t->batch >= LEAST_BATCH &&
           t->in_channels >= LEAST_CHANNELS && t->in_channels % CHANNEL_STEP == 0 &&
           t->out_channels >= LEAST_CHANNELS && t->out_channels % CHANNEL_STEP == 0;
}

/* The source pixel under a tap of a result pixel's window; -1: padding. */
static int source_pixel(const tn_conv_task *t, int dst, int tap)
{
    int64_t pixel = 0, stride = 1;
    for (int i = t->spatial - 1; i >= 0; i--) {
        int64_t out = dst % t->out[i], at = tap % t->kernel[i];
        int64_t in = out * t->stride[i] - t->pad_begin[i] + at * t->dilation[i];
        if (in < 0 || in >= t->in[i])
            return -1;
        pixel += in * stride;
        stride *= t->in[i];
        dst /= (int)t->out[i];
        tap /= (int)t->kernel[i];
    }
    return (int)pixel;
}

static void find_pairs(pixel_conv *k)
{
    const tn_conv_task *t = &k->base.task.conv;
    k->src_pixels = (int)product_of(t->in, t->spatial);
    k->dst_pixels = (int)product_of(t->out, t->spatial);
    k->taps = (int)product_of(t->kernel, t->spatial);
    for (int dst = 0; dst < k->dst_pixels; dst++)
        for (int tap = 0; tap < k->taps; tap++) {
            int src = source_pixel(t, dst, tap);
            if (src >= 0)
                k->pairs[k->n_pairs++] = (pair){src, dst, tap};
        }
}

static tn_status create_direction(const pixel_conv *k, tn_dnnl *dnnl, bool backward, direction *d,
                                  tn_error *error)
{
    const tn_conv_task *t = &k->base.task.conv;
    int64_t computed = backward ? t->in_channels : t->out_channels;
    d->pixels = backward ? k->src_pixels : k->dst_pixels;
    d->depth = backward ? t->out_channels : t->in_channels;
    d->column = backward ? 1 : t->in_channels;
    d->blocks = 1;
    while (d->blocks < MOST_BLOCKS && computed % (2 * d->blocks * LEAST_CHANNELS) == 0)
        d->blocks *= 2;
    d->width = computed / d->blocks;
    const tn_dnnl_product_shape shape = {.m = t->batch,
                                         .n = d->width,
                                         .k = d->depth,
                                         .bf16 = k->bf16,
                                         .packed_b = true,
                                         .pack_row = backward ? t->in_channels : 1,
                                         .pack_column = d->column};
    tn_status status = tn_dnnl_product_create(dnnl, &shape, &d->product, error);
    if (status != TN_OK)
        return status;
    d->block_bytes = round_up(tn_dnnl_product_packed_bytes(d->product));
    d->scratch_bytes = round_up(tn_dnnl_product_scratch_bytes(d->product));
    return TN_OK;
}

static size_t direction_bytes(const direction *d, size_t sums)
{
    return sums + (size_t)(d->pixels * d->blocks) * d->scratch_bytes;
}

static void size_memory(pixel_conv *k)
{
    const tn_conv_task *t = &k->base.task.conv;
    tn_kernel *base = &k->base;
    size_t src = (size_t)(t->batch * k->src_pixels * t->in_channels);
    size_t dst = (size_t)(t->batch * k->dst_pixels * t->out_channels);
    k->src_bytes = round_up(src * tn_element(k->bf16));
    k->dst_bytes = round_up(dst * tn_element(k->bf16));
    k->src_sum_bytes = round_up(src * sizeof(float));
    k->dst_sum_bytes = round_up(dst * sizeof(float));
    k->forward_bytes = (size_t)(k->taps * k->forward.blocks) * k->forward.block_bytes;
    base->state_bytes = k->forward_bytes + (size_t)(k->taps * k->data.blocks) * k->data.block_bytes;
    size_t all = (size_t)(k->taps * t->in_channels * t->out_channels);
    size_t forward = k->src_bytes + direction_bytes(&k->forward, k->dst_sum_bytes);
    size_t pack = all * tn_element(k->bf16);
    base->workspace_bytes = pack > forward ? pack : forward;
    if (!k->data.product)
        return;
    size_t weights = round_up(all * sizeof(float)) + (size_t)k->taps * k->weights_scratch_bytes;
    size_t data = direction_bytes(&k->data, k->src_sum_bytes);
    size_t backward = k->dst_bytes + (weights > data ? weights : data);
    base->saved_bytes = k->src_bytes;
    if (backward > base->workspace_bytes)
        base->workspace_bytes = backward;
}

static tn_status create_products(pixel_conv *k, tn_dnnl *dnnl, bool backward, tn_error *error)
{
    const tn_conv_task *t = &k->base.task.conv;
    const tn_dnnl_product_shape shape = {
        .m = t->out_channels, .n = t->in_channels, .k = t->batch, .bf16 = k->bf16, .trans_a = true};
    tn_status status = create_direction(k, dnnl, false, &k->forward, error);
    if (status == TN_OK && backward)
        status = create_direction(k, dnnl, true, &k->data, error);
    if (status == TN_OK && backward)
        status = tn_dnnl_product_create(dnnl, &shape, &k->weights, error);
    if (status == TN_OK && backward)
        k->weights_scratch_bytes = round_up(tn_dnnl_product_scratch_bytes(k->weights));
    return status;
}

tn_status tn_cpu_pixel_conv_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                    tn_error *error)
{
    tn_kernel *created = NULL;
    tn_status status =
        tn_kernel_create(device, task, &pixel_conv_class, "", sizeof(pixel_conv), &created, error);
    if (status != TN_OK)
        return status;
    pixel_conv *k = (pixel_conv *)created;
    k->bf16 = task->precision == TN_PRECISION_BF16;
    k->src_stored = task->bf16_src & 1;
    k->dst_stored = task->bf16_dst;
    find_pairs(k);
    status = create_products(k, ((tn_cpu_device *)device)->dnnl, task->backward, error);
    if (status != TN_OK) {
        pixel_conv_destroy(created);
        return status;
    }
    size_memory(k);
    created->name = tn_dnnl_product_name(k->forward.product);
    *kernel = created;
    return TN_OK;
}
