/* Gram sums of calibration (network/calibration.h): tiles of positions, their products by cuBLASLt,
 * added in double tile by tile. */
#include "gpu/gpu.h"

enum { ALIGN = 256, MOST_TILES = 16, MOST_PRODUCTS = 1 << 26 };

typedef struct gram_kernel {
    tn_kernel base;
    tn_gram_layout layout;
    int64_t tiles, present_ld;                /* tiles at a time */
    size_t products_at, present_at, parts_at; /* workspace; tiles are first */
} gram_kernel;

static size_t round_up(int64_t bytes)
{
    return ((size_t)bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* x' (x | y | 1) of each tile. */
static tn_gpu_product sums_product(const gram_kernel *k, int64_t tiles)
{
    const tn_gram_layout *l = &k->layout;
    int64_t tile = TN_GRAM_TILE * l->width;
    return (tn_gpu_product){.trans_a = true,
                            .precision = TN_PRECISION_FP32,
                            .m = l->cols,
                            .n = l->sum_width,
                            .k = TN_GRAM_TILE,
                            .lda = l->width,
                            .ldb = l->width,
                            .ldc = l->sum_width,
                            .batch = tiles,
                            .stride_a = tile,
                            .stride_b = tile,
                            .stride_c = l->cols * l->sum_width};
}

/* What the present weights give at each position. */
static tn_gpu_product present_product(const gram_kernel *k, int64_t tiles)
{
    const tn_gram_layout *l = &k->layout;
    return (tn_gpu_product){.trans_b = true,
                            .precision = TN_PRECISION_FP32,
                            .m = tiles * TN_GRAM_TILE,
                            .n = k->base.task.gram.outputs,
                            .k = l->cols,
                            .lda = l->width,
                            .ldb = l->y_at,
                            .ldc = k->present_ld,
                            .batch = 1};
}

static tn_gram_args arguments(const gram_kernel *k, const tn_arguments *args)
{
    const tn_gram_task *t = &k->base.task.gram;
    const float *const *p = args->params;
    char *workspace = args->workspace;
    tn_gram_args a = {.l = k->layout,
                      .target = {.channels = t->outputs * t->group,
                                 .output = args->src[1],
                                 .other_f = args->src[2],
                                 .other_q = args->src[3],
                                 .bias = p[0],
                                 .correction = p[1],
                                 .gain = (const double *)(const void *)p[3],
                                 .offset = (const double *)(const void *)p[4],
                                 .slope = (const double *)(const void *)p[5],
                                 .shift = (const double *)(const void *)p[6]},
                      .x = args->src[0],
                      .tiles = (float *)(void *)workspace,
                      .present = (float *)(void *)(workspace + k->present_at),
                      .products = (float *)(void *)(workspace + k->products_at),
                      .parts = (double *)(void *)(workspace + k->parts_at),
                      .outputs = t->outputs,
                      .present_ld = k->present_ld};
    tn_conv_shape *s = &a.s;
    s->channels = t->channels;
    s->per_group = t->channels / t->group;
    s->in_pixels = s->out_pixels = 1;
    for (int i = 0; i < 3; i++) {
        s->in[i] = t->in[i];
        s->out[i] = t->out[i];
        s->kernel[i] = t->kernel[i];
        s->stride[i] = t->stride[i];
        s->dilation[i] = t->dilation[i];
        s->pad[i] = t->pad[i];
        s->in_pixels *= t->in[i];
        s->out_pixels *= t->out[i];
    }
    return a;
}

/* `tiles` tiles of one group, from a->places on. */
static tn_status add_tiles(const gram_kernel *k, tn_gram_args *a, const float *values,
                           int64_t tiles, tn_error *error)
{
    tn_gpu *gpu = tn_gpu_of(&k->base);
    const tn_gram_layout *l = &k->layout;
    const tn_gpu_product sums = sums_product(k, tiles), present = present_product(k, tiles);
    a->tiles_count = tiles;
    tn_status status =
        tn_gpu_launch(gpu, TN_GPU_gram_tile, a, tiles * TN_GRAM_TILE * l->width, error);
    if (status == TN_OK && k->base.task.gram.relaxed) {
        status =
            tn_gpu_multiply(gpu, &present, 1.0f, a->tiles, values + a->group * a->outputs * l->y_at,
                            0.0f, (float *)(uintptr_t)a->present, error);
        if (status == TN_OK)
            status = tn_gpu_launch(gpu, TN_GPU_gram_relax, a, a->count * a->outputs, error);
    }
    if (status == TN_OK)
        status = tn_gpu_launch(gpu, TN_GPU_gram_moments, a, tiles * a->outputs, error);
    if (status == TN_OK)
        status = tn_gpu_launch(gpu, TN_GPU_gram_add_moments, a, 2 * a->outputs, error);
    if (status == TN_OK)
        status = tn_gpu_multiply(gpu, &sums, 1.0f, a->tiles, a->tiles + l->first, 0.0f,
                                 (float *)(uintptr_t)a->products, error);
    return status == TN_OK ? tn_gpu_launch(gpu, TN_GPU_gram_add, a, l->cols * l->sum_width, error)
                           : status;
}

static tn_status gram_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const gram_kernel *k = (const gram_kernel *)kernel;
    const tn_gram_task *t = &k->base.task.gram;
    const tn_gram_layout *l = &k->layout;
    tn_gram_args a = arguments(k, args);
    double *sums = (double *)(void *)args->dst;
    double *y_sums = sums + t->group * l->cols * l->sum_width;
    tn_status status = TN_OK;
    for (a.group = 0; a.group < t->group; a.group++) {
        a.sums = sums + a.group * l->cols * l->sum_width;
        a.y_sums = y_sums + 2 * a.group * t->outputs;
        for (int64_t at = 0; status == TN_OK && at < args->count;) {
            int64_t rest = args->count - at;
            int64_t tiles = 2 * rest > k->tiles * TN_GRAM_TILE ? k->tiles : 1;
            int64_t most = tiles * TN_GRAM_TILE;
            a.places = args->places + at;
            a.count = rest < most ? rest : most;
            status = add_tiles(k, &a, args->params[2], tiles, error);
            at += a.count;
        }
    }
    return status;
}

static const tn_kernel_class gram_class = {tn_kernel_free, NULL, gram_forward, NULL};

static void place(gram_kernel *k)
{
    const tn_gram_task *t = &k->base.task.gram;
    const tn_gram_layout *l = &k->layout;
    int64_t product = l->cols * l->sum_width, most = MOST_PRODUCTS / product;
    k->tiles = most < 1 ? 1 : most > MOST_TILES ? MOST_TILES : most;
    k->present_ld = tn_gram_padded(t->outputs);
    int64_t rows = k->tiles * TN_GRAM_TILE;
    k->products_at = round_up(rows * l->width * (int64_t)sizeof(float));
    k->present_at = k->products_at + round_up(k->tiles * product * (int64_t)sizeof(float));
    k->parts_at =
        k->present_at + (t->relaxed ? round_up(rows * k->present_ld * (int64_t)sizeof(float)) : 0);
    k->base.workspace_bytes =
        k->parts_at + round_up(k->tiles * 2 * t->outputs * (int64_t)sizeof(double));
}

tn_status tn_gpu_gram_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                              tn_error *error)
{
    tn_kernel *created;
    tn_status status = tn_kernel_create(device, task, &gram_class, "cuBLASLt", sizeof(gram_kernel),
                                        &created, error);
    if (status != TN_OK)
        return status;
    gram_kernel *k = (gram_kernel *)created;
    k->layout = tn_gram_layout_of(&task->gram);
    place(k);
    const int64_t tiles[2] = {1, k->tiles};
    for (int i = 0; i < 2; i++) {
        const tn_gpu_product sums = sums_product(k, tiles[i]),
                             present = present_product(k, tiles[i]);
        if (status == TN_OK)
            status = tn_gpu_product_prepare(tn_gpu_of(created), &sums, error);
        if (status == TN_OK && task->gram.relaxed)
            status = tn_gpu_product_prepare(tn_gpu_of(created), &present, error);
    }
    if (status == TN_OK)
        *kernel = created;
    else
        tn_kernel_free(created);
    return status;
}
