/* Convolution: by the runtime's library (cuDNN) where it is there; else columns of a chunk of
 * images, a matrix product per group, the epilogue; 1x1 convolutions in fp32 read the activations
 * themselves; depthwise ones have kernels of their own. The gradient of the weights adds the chunks
 * in order. */
#include "gpu/gpu_conv_library.h"

enum { COLUMN_BYTES = 32 << 20, ALIGN = 256, PAD = 8 };

typedef struct conv_kernel {
    tn_kernel base;
    tn_conv_shape s;
    bool bf16, direct, depthwise, by_library;
    tn_conv_library library;
    int64_t images;      /* of a chunk */
    int64_t dy_ld;       /* of dy as an operand */
    size_t packed_bytes; /* state: [packed weights][folded bias] */
    size_t columns_at, dst_at, back_at, dy_at, weights_at, partial_at; /* workspace */
    int chunks; /* of depthwise weight gradients */
} conv_kernel;

static size_t round_up(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static size_t element(const conv_kernel *k)
{
    return k->bf16 ? sizeof(tn_bf16) : sizeof(float);
}

typedef enum part { FORWARD, DATA, WEIGHTS } part;

static tn_gpu_product product_of(const conv_kernel *k, part which, int64_t images)
{
    const tn_conv_shape *s = &k->s;
    int64_t rows = images * s->out_pixels, out = s->out_channels / s->group;
    int64_t row = s->group * s->ld, filters = out * s->ld;
    switch (which) {
    case FORWARD:
        return (tn_gpu_product){false, true,  k->base.task.precision, rows,     out,   s->ld,
                                row,   s->ld, s->out_channels,        s->group, s->ld, filters,
                                out};
    case DATA:
        return (tn_gpu_product){false,    false, k->base.task.precision,
                                rows,     s->ld, out,
                                k->dy_ld, s->ld, row,
                                s->group, out,   filters,
                                s->ld};
    default:
        return (tn_gpu_product){true,     false, k->base.task.precision,
                                out,      s->ld, rows,
                                k->dy_ld, row,   s->ld,
                                s->group, out,   s->ld,
                                filters};
    }
}

static void *at(const tn_arguments *args, size_t offset)
{
    return (char *)args->workspace + offset;
}

static tn_status conv_pack(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const conv_kernel *k = (const conv_kernel *)kernel;
    const tn_conv_task *t = &k->base.task.conv;
    tn_weights_args w = {.weight = args->params[0],
                         .bias = t->bias ? args->params[1] : NULL,
                         .packed = args->state,
                         .cells = k->s.cells,
                         .per_group = k->s.per_group,
                         .k = k->s.k,
                         .ld = k->s.ld,
                         .epsilon = t->epsilon,
                         .bf16 = k->bf16 && !k->depthwise};
    if (t->fold) {
        const float *const *bn = args->params + (t->bias ? 2 : 1);
        w.gamma = bn[0];
        w.beta = bn[1];
        w.mean = bn[2];
        w.var = bn[3];
        w.folded_bias = (float *)(void *)((char *)args->state + k->packed_bytes);
    }
    tn_gpu *gpu = tn_gpu_of(kernel);
    tn_status status = tn_gpu_launch(gpu, TN_GPU_weights, &w, t->out_channels * k->s.ld, error);
    if (status == TN_OK && t->fold)
        status = tn_gpu_launch(gpu, TN_GPU_fold_bias, &w, t->out_channels, error);
    return status;
}

/* The columns of a chunk as operand, made unless the activations serve. */
static tn_status make_columns(const conv_kernel *k, const tn_arguments *args, int64_t first,
                              int64_t images, const void **columns, tn_error *error)
{
    const tn_conv_shape *s = &k->s;
    const bool src_bf16 = k->base.task.bf16_src & 1;
    const void *src = tn_gpu_element(args->src[0], first * s->in_pixels * s->channels, src_bf16);
    *columns = src;
    if (k->direct)
        return TN_OK;
    tn_columns_args c = {.s = *s,
                         .src = src,
                         .columns = at(args, k->columns_at),
                         .bf16 = k->bf16,
                         .src_bf16 = src_bf16};
    *columns = c.columns;
    return tn_gpu_launch(tn_gpu_of(&k->base), TN_GPU_columns, &c,
                         images * s->out_pixels * s->group * s->ld, error);
}

static tn_status depthwise_forward(const conv_kernel *k, const tn_arguments *args, tn_error *error)
{
    int64_t batch = k->base.task.conv.batch;
    tn_depthwise_args d = {.s = k->s,
                           .src = args->src[0],
                           .weight = args->state,
                           .dst = args->dst,
                           .images = batch,
                           .src_bf16 = k->base.task.bf16_src & 1,
                           .dst_bf16 = k->base.task.bf16_dst};
    return tn_gpu_launch(tn_gpu_of(&k->base), TN_GPU_depthwise, &d,
                         batch * k->s.out_pixels * k->s.out_channels, error);
}

static tn_status product_forward(const conv_kernel *k, const tn_arguments *args, tn_error *error)
{
    const tn_conv_shape *s = &k->s;
    tn_gpu *gpu = tn_gpu_of(&k->base);
    int64_t batch = k->base.task.conv.batch;
    tn_status status = TN_OK;
    for (int64_t i = 0; i < batch && status == TN_OK; i += k->images) {
        int64_t images = batch - i < k->images ? batch - i : k->images;
        tn_gpu_product p = product_of(k, FORWARD, images);
        int64_t first = i * s->out_pixels * s->out_channels;
        float *y = k->base.task.bf16_dst ? at(args, k->dst_at) : args->dst + first;
        const void *columns;
        status = make_columns(k, args, i, images, &columns, error);
        if (status == TN_OK)
            status = tn_gpu_multiply(gpu, &p, 1.0f, columns, args->state, 0.0f, y, error);
        if (status == TN_OK && k->base.task.bf16_dst)
            status = tn_gpu_convert(gpu, y, false, tn_gpu_element(args->dst, first, true), true,
                                    images * s->out_pixels * s->out_channels, false, error);
    }
    return status;
}

static tn_status conv_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const conv_kernel *k = (const conv_kernel *)kernel;
    const tn_conv_task *t = &k->base.task.conv;
    const float *bias =
        t->fold   ? (const float *)(const void *)((const char *)args->state + k->packed_bytes)
        : t->bias ? args->params[1]
                  : NULL;
    tn_status status =
        k->depthwise    ? depthwise_forward(k, args, error)
        : k->by_library ? tn_conv_library_forward(&k->library, tn_gpu_of(kernel), args->workspace,
                                                  args->src[0], args->state, args->dst, error)
                        : product_forward(k, args, error);
    if (status != TN_OK)
        return status;
    const tn_epilogue_args epilogue = {.dst = args->dst,
                                       .bias = bias,
                                       .residual = t->residual ? args->src[1] : NULL,
                                       .channels = t->out_channels,
                                       .function = t->function,
                                       .a = t->a,
                                       .b = t->b,
                                       .bf16 = k->base.task.bf16_dst,
                                       .residual_bf16 = k->base.task.bf16_src >> 1 & 1};
    return tn_gpu_epilogue(tn_gpu_of(kernel), &epilogue,
                           t->batch * k->s.out_pixels * t->out_channels, error);
}

static tn_status unpack_weights(const conv_kernel *k, const tn_arguments *args, const void *packed,
                                bool bf16, tn_error *error)
{
    const tn_conv_shape *s = &k->s;
    tn_unpack_args u = {packed, args->dparams[0],        s->cells, s->per_group, s->k,
                        s->ld,  args->accumulate_params, bf16};
    return tn_gpu_launch(tn_gpu_of(&k->base), TN_GPU_unpack, &u, s->out_channels * s->k, error);
}

static tn_status library_backward(const conv_kernel *k, const tn_arguments *args, tn_error *error)
{
    tn_gpu *gpu = tn_gpu_of(&k->base);
    tn_status status = TN_OK;
    if (args->dsrc[0])
        status = tn_conv_library_data(&k->library, gpu, args->workspace, args->ddst, args->state,
                                      args->dsrc[0], args->accumulate[0], error);
    if (status != TN_OK || !args->dparams[0])
        return status;
    const void *dw;
    status = tn_conv_library_weights(&k->library, gpu, args->workspace, args->src[0], args->ddst,
                                     &dw, error);
    return status == TN_OK ? unpack_weights(k, args, dw, k->library.bf16, error) : status;
}

static tn_status depthwise_backward(const conv_kernel *k, const tn_arguments *args, tn_error *error)
{
    const tn_conv_shape *s = &k->s;
    tn_gpu *gpu = tn_gpu_of(&k->base);
    int64_t batch = k->base.task.conv.batch, count = s->out_channels * s->cells;
    tn_depthwise_args d = {.s = *s,
                           .src = args->src[0],
                           .weight = args->state,
                           .dy = args->ddst,
                           .dst = args->dsrc[0],
                           .partial = at(args, k->partial_at),
                           .images = batch,
                           .chunks = k->chunks,
                           .accumulate = args->dsrc[0] && args->accumulate[0],
                           .src_bf16 = k->base.task.bf16_src & 1,
                           .dst_bf16 = k->base.task.bf16_dst};
    tn_status status = TN_OK;
    if (args->dsrc[0])
        status = tn_gpu_launch(gpu, TN_GPU_depthwise_data, &d, batch * s->in_pixels * s->channels,
                               error);
    if (status == TN_OK && args->dparams[0])
        status = tn_gpu_launch(gpu, TN_GPU_depthwise_weights, &d, count * k->chunks, error);
    if (status == TN_OK && args->dparams[0])
        status = tn_gpu_add_chunks(gpu, d.partial, count, k->chunks, args->dparams[0], 1.0f,
                                   args->accumulate_params, error);
    return status;
}

/* dy of a chunk as an operand. */
static tn_status make_dy(const conv_kernel *k, const tn_arguments *args, int64_t first,
                         int64_t images, const void **dy, tn_error *error)
{
    const tn_conv_shape *s = &k->s;
    const bool bf16 = k->base.task.bf16_dst;
    const void *from = tn_gpu_element(args->ddst, first * s->out_pixels * s->out_channels, bf16);
    *dy = from;
    if (!k->bf16)
        return TN_OK;
    tn_operand_args o = {from, at(args, k->dy_at), s->out_channels, s->out_channels, k->dy_ld, true,
                         bf16};
    *dy = o.dst;
    return tn_gpu_launch(tn_gpu_of(&k->base), TN_GPU_operand, &o, images * s->out_pixels * k->dy_ld,
                         error);
}

static tn_status data_chunk(const conv_kernel *k, const tn_arguments *args, int64_t first,
                            int64_t images, const void *dy, tn_error *error)
{
    const tn_conv_shape *s = &k->s;
    tn_gpu *gpu = tn_gpu_of(&k->base);
    tn_gpu_product p = product_of(k, DATA, images);
    const bool bf16 = k->base.task.bf16_src & 1;
    float *dx = tn_gpu_element(args->dsrc[0], first * s->in_pixels * s->channels, bf16);
    float *columns = k->direct ? dx : at(args, k->back_at);
    float beta = k->direct && args->accumulate[0] ? 1.0f : 0.0f;
    tn_status status = tn_gpu_multiply(gpu, &p, 1.0f, dy, args->state, beta, columns, error);
    if (status != TN_OK || k->direct)
        return status;
    tn_columns_args c = {.s = *s,
                         .columns = columns,
                         .dst = dx,
                         .accumulate = args->accumulate[0],
                         .src_bf16 = bf16};
    return tn_gpu_launch(gpu, TN_GPU_columns_back, &c, images * s->in_pixels * s->channels, error);
}

static tn_status product_backward(const conv_kernel *k, const tn_arguments *args, tn_error *error)
{
    int64_t batch = k->base.task.conv.batch;
    tn_status status = TN_OK;
    for (int64_t i = 0; i < batch && status == TN_OK; i += k->images) {
        int64_t images = batch - i < k->images ? batch - i : k->images;
        const void *dy, *columns = NULL;
        status = make_dy(k, args, i, images, &dy, error);
        if (status == TN_OK && args->dsrc[0])
            status = data_chunk(k, args, i, images, dy, error);
        if (status != TN_OK || !args->dparams[0])
            continue;
        tn_gpu_product p = product_of(k, WEIGHTS, images);
        status = make_columns(k, args, i, images, &columns, error);
        if (status == TN_OK)
            status = tn_gpu_multiply(tn_gpu_of(&k->base), &p, 1.0f, dy, columns,
                                     i > 0 ? 1.0f : 0.0f, at(args, k->weights_at), error);
    }
    return status == TN_OK && args->dparams[0]
               ? unpack_weights(k, args, at(args, k->weights_at), false, error)
               : status;
}

static tn_status conv_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const conv_kernel *k = (const conv_kernel *)kernel;
    const tn_conv_task *t = &k->base.task.conv;
    tn_status status = k->depthwise    ? depthwise_backward(k, args, error)
                       : k->by_library ? library_backward(k, args, error)
                                       : product_backward(k, args, error);
    if (status == TN_OK && t->bias && args->dparams[1])
        status =
            tn_gpu_column_sums(tn_gpu_of(kernel), args->ddst, k->base.task.bf16_dst,
                               t->batch * k->s.out_pixels, t->out_channels, at(args, k->partial_at),
                               args->dparams[1], 1.0f, args->accumulate_params, error);
    return status;
}

static void conv_destroy(tn_kernel *kernel)
{
    tn_conv_library_done(&((conv_kernel *)kernel)->library);
    tn_kernel_free(kernel);
}

static const tn_kernel_class conv_class = {conv_destroy, conv_pack, conv_forward, conv_backward};

static bool reads_activations(const conv_kernel *k)
{
    const tn_conv_shape *s = &k->s;
    return !k->bf16 && s->group == 1 && s->cells == 1 && s->in_pixels == s->out_pixels &&
           s->stride[0] * s->stride[1] * s->stride[2] == 1 &&
           s->pad[0] + s->pad[1] + s->pad[2] == 0;
}

static void set_shape(conv_kernel *k)
{
    const tn_conv_task *t = &k->base.task.conv;
    tn_conv_shape *s = &k->s;
    s->channels = t->in_channels;
    s->out_channels = t->out_channels;
    s->group = t->group;
    s->per_group = t->in_channels / t->group;
    s->cells = s->in_pixels = s->out_pixels = 1;
    for (int i = 0; i < 3; i++) {
        int from = i - (3 - t->spatial);
        s->in[i] = from < 0 ? 1 : t->in[from];
        s->out[i] = from < 0 ? 1 : t->out[from];
        s->kernel[i] = from < 0 ? 1 : t->kernel[from];
        s->stride[i] = from < 0 ? 1 : t->stride[from];
        s->dilation[i] = from < 0 ? 1 : t->dilation[from];
        s->pad[i] = from < 0 ? 0 : t->pad_begin[from];
        s->cells *= s->kernel[i];
        s->in_pixels *= s->in[i];
        s->out_pixels *= s->out[i];
    }
    s->k = s->cells * s->per_group;
    k->depthwise = s->per_group == 1 && s->group > 1;
    k->direct = !k->depthwise && reads_activations(k);
    s->ld = k->direct || k->depthwise || k->by_library ? s->k : (s->k + PAD - 1) / PAD * PAD;
    bool padded = k->bf16 && s->group == 1;
    k->dy_ld = padded ? (s->out_channels + PAD - 1) / PAD * PAD : s->out_channels;
}

/* Offsets into the workspace, and its size. */
static void place(conv_kernel *k, bool backward)
{
    const tn_conv_shape *s = &k->s;
    int64_t batch = k->base.task.conv.batch, image = s->out_pixels * s->group * s->ld;
    size_t total = 0;
    k->images = k->direct ? batch : COLUMN_BYTES / (int64_t)sizeof(float) / (image ? image : 1);
    k->images = k->images < 1 ? 1 : k->images > batch ? batch : k->images;
    if (k->by_library) {
        total += round_up(k->library.bytes);
    } else if (!k->depthwise && !k->direct) {
        k->columns_at = total;
        total += round_up((size_t)(k->images * image) * element(k));
        k->dst_at = total; /* results before they are stored as bf16 */
        if (k->base.task.bf16_dst)
            total +=
                round_up((size_t)(k->images * s->out_pixels * s->out_channels) * sizeof(float));
    }
    if (backward) {
        int64_t rows = batch * s->out_pixels, count = s->out_channels * s->cells;
        size_t sums = tn_gpu_column_sums_bytes(rows, s->out_channels);
        if (!k->depthwise && !k->by_library) {
            k->back_at = total;
            total += k->direct ? 0 : round_up((size_t)(k->images * image) * sizeof(float));
            k->dy_at = total;
            if (k->bf16)
                total += round_up((size_t)(k->images * s->out_pixels * k->dy_ld) * element(k));
            k->weights_at = total;
            total += round_up((size_t)(s->out_channels * s->ld) * sizeof(float));
        } else if (k->depthwise) {
            k->chunks = tn_gpu_chunks(rows, count);
            size_t bytes = (size_t)(k->chunks * count) * sizeof(double);
            sums = sums > bytes ? sums : bytes;
        }
        k->partial_at = total;
        total += round_up(sums);
    }
    k->base.workspace_bytes = total;
}

/* Gradients by cuDNN 9.19 of convolutions with a stride and a dilation in one axis were wrong on an
 * H200 in both such draws of kernel_test's seed 5, in fp32 and tf32; others were right. */
static bool library_serves(const conv_kernel *k)
{
    const int64_t batch = k->base.task.conv.batch;
    /* cuDNN's engines index with 32 bits: larger tensors it refuses, or worse */
    bool both = false, large = batch * k->s.channels * k->s.in_pixels > INT32_MAX ||
                               batch * k->s.out_channels * k->s.out_pixels > INT32_MAX;
    for (int i = 0; i < 3; i++)
        both = both || (k->s.stride[i] > 1 && k->s.dilation[i] > 1);
    return !k->depthwise && !k->direct && !both && !large;
}

static tn_status prepare_products(const conv_kernel *k, tn_gpu *gpu, bool backward, tn_error *error)
{
    int64_t batch = k->base.task.conv.batch, sizes[2] = {k->images, batch % k->images};
    tn_status status = TN_OK;
    for (int i = 0; i < 2; i++)
        for (part which = FORWARD; which <= (backward ? WEIGHTS : FORWARD); which++) {
            tn_gpu_product p = product_of(k, which, sizes[i]);
            if (status == TN_OK && sizes[i] > 0)
                status = tn_gpu_product_prepare(gpu, &p, error);
        }
    return status;
}

tn_status tn_gpu_conv_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                              tn_error *error)
{
    tn_kernel *created;
    tn_status status = tn_kernel_create(device, task, &conv_class, "cuBLASLt", sizeof(conv_kernel),
                                        &created, error);
    if (status != TN_OK)
        return status;
    conv_kernel *k = (conv_kernel *)created;
    k->bf16 = task->precision == TN_PRECISION_BF16;
    set_shape(k);
    if (library_serves(k))
        k->by_library = tn_conv_library_init(&k->library, tn_gpu_of(created), task);
    if (k->by_library)
        set_shape(k); /* weights lie without gaps then */
    place(k, task->backward);
    if (k->depthwise)
        created->name = "cuda depthwise";
    else if (k->by_library)
        created->name = "cuDNN";
    else
        status = prepare_products(k, tn_gpu_of(created), task->backward, error);
    if (status != TN_OK) {
        conv_destroy(created);
        return status;
    }
    k->packed_bytes = round_up((size_t)(k->s.out_channels * k->s.ld) * sizeof(float));
    created->state_bytes = k->packed_bytes;
    if (task->conv.fold)
        created->state_bytes += round_up((size_t)k->s.out_channels * sizeof(float));
    created->reads_src = true;
    *kernel = created;
    return TN_OK;
}
