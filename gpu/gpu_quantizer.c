/* The quantizers of all latent tensors: a table of tensors in the kernel's state, and launches that
 * walk it. */
#include "gpu/gpu.h"

#include "core/memory.h"

#include <string.h>

typedef struct quantizer_kernel {
    tn_kernel base;
    tn_quantizer_item *items; /* [n] */
    tn_latent_entry *entries; /* [n]: what pack uploads */
    int n;
    int64_t threads[TN_N_WALKS];
    size_t slopes_at, keys_at, cuts_at; /* workspace */
} quantizer_kernel;

/* Launchers are keyed by the quantizer's id: these have kernels. */
static const struct {
    const char *id;
    tn_latent_kind kind;
} kinds[] = {{"twn", TN_LATENT_TWN},     {"ttq", TN_LATENT_TTQ},       {"fixed", TN_LATENT_UNIFORM},
             {"lsq", TN_LATENT_UNIFORM}, {"affine", TN_LATENT_AFFINE}, {"dorefa", TN_LATENT_DOREFA},
             {"parq", TN_LATENT_PARQ}};

static int kind_of(const tn_scheme *scheme)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].id, scheme->quantizer->id) == 0)
            return (int)kinds[i].kind;
    return -1;
}

static int64_t longest_run(const tn_qweight *shape)
{
    return shape->granularity == TN_PER_TENSOR    ? shape->rows * shape->cols
           : shape->granularity == TN_PER_CHANNEL ? shape->cols
           : shape->group < shape->cols           ? shape->group
                                                  : shape->cols;
}

/* Thresholds are found by comparing all cuts. */
static bool compares_cuts(const tn_quantizer_item *item, int kind)
{
    return item->refresh && (kind == TN_LATENT_TWN || kind == TN_LATENT_TTQ) &&
           (item->scheme->threshold == TN_THRESHOLD_OPTIMAL ||
            item->scheme->threshold == TN_THRESHOLD_SPARSITY);
}

const char *tn_gpu_quantizer_refusal(const tn_quantizer_task *task)
{
    for (int i = 0; i < task->n; i++) {
        int kind = kind_of(task->items[i].scheme);
        if (kind < 0)
            return "this scheme has no kernels";
        if (compares_cuts(&task->items[i], kind) && longest_run(task->items[i].shape) > TN_CUT_RUN)
            return "thresholds of more than 32768 weights are found on the processor";
    }
    return NULL;
}

static int64_t inner_of(const tn_qweight *shape)
{
    int64_t inner = 1;
    for (int i = shape->axis + 1; i < shape->rank; i++)
        inner *= shape->dims[i];
    return inner;
}

static tn_latent_entry entry_of(const tn_quantizer_item *item)
{
    const tn_qweight *shape = item->shape;
    const tn_scheme *scheme = item->scheme;
    int64_t longest = longest_run(shape);
    return (tn_latent_entry){.rows = shape->rows,
                             .cols = shape->cols,
                             .inner = inner_of(shape),
                             .runs = shape->n_scales,
                             .longest = longest,
                             .pieces = (longest + TN_SUM_PIECE - 1) / TN_SUM_PIECE,
                             .slices = (longest + TN_SLICE - 1) / TN_SLICE,
                             .group = shape->granularity == TN_PER_GROUP ? shape->group : 0,
                             .groups_per_row = shape->groups_per_row,
                             .whole = shape->granularity == TN_PER_TENSOR,
                             .kind = (tn_latent_kind)kind_of(scheme),
                             .threshold_kind = scheme->threshold,
                             .threshold_value = scheme->threshold_value,
                             .rho_inv = item->rho_inv ? *item->rho_inv : 0.0f,
                             .low = scheme->low,
                             .high = scheme->high,
                             .bits = scheme->bits,
                             .state = item->state,
                             .w = item->w,
                             .dvalues = item->dvalues,
                             .values = item->values,
                             .dw = item->dw,
                             .dscale = item->dscale,
                             .dscale_neg = item->dscale_neg};
}

/* Gives every tensor its threads in every walk, and its places in the workspace. */
static void lay_out(quantizer_kernel *k)
{
    int64_t parts = 0, keys = 0, cuts = 0, slopes = 0;
    for (int i = 0; i < k->n; i++) {
        tn_latent_entry *e = &k->entries[i];
        *e = entry_of(&k->items[i]);
        bool refreshed = k->items[i].refresh && k->items[i].scheme->quantizer->refresh;
        bool sorted = compares_cuts(&k->items[i], (int)e->kind);
        int64_t count = e->rows * e->cols, lanes = e->runs * e->pieces * TN_SUM_LANES;
        const int64_t threads[TN_N_WALKS] = {[TN_WALK_ELEMENTS] = count,
                                             [TN_WALK_CUTS] = sorted ? e->runs : 0,
                                             [TN_WALK_RUNS] = refreshed ? e->runs : 0,
                                             [TN_WALK_LANES] = refreshed ? lanes : 0,
                                             [TN_WALK_KEPT] =
                                                 refreshed && e->kind == TN_LATENT_TWN ? lanes : 0,
                                             [TN_WALK_SLICES] = e->dscale ? e->runs * e->slices : 0,
                                             [TN_WALK_SLOPES] = e->dscale ? e->runs : 0};
        e->part = parts;
        e->key = keys;
        e->cut = cuts;
        e->slope = slopes;
        parts += threads[TN_WALK_LANES];
        keys += sorted ? e->runs * e->longest : 0;
        cuts += threads[TN_WALK_CUTS];
        slopes += threads[TN_WALK_SLICES];
        for (int walk = 0; walk < TN_N_WALKS; walk++) {
            e->begin[walk] = k->threads[walk];
            k->threads[walk] += threads[walk];
        }
    }
    k->slopes_at = (size_t)parts * sizeof(tn_latent_part);
    k->keys_at = k->slopes_at + (size_t)slopes * 2 * sizeof(double);
    k->cuts_at = k->keys_at + (size_t)keys * sizeof(uint32_t);
    k->base.workspace_bytes = k->cuts_at + (size_t)cuts * sizeof(uint32_t);
    k->base.state_bytes = (size_t)k->n * sizeof(*k->entries);
}

static tn_status quantizer_pack(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    quantizer_kernel *k = (quantizer_kernel *)kernel;
    for (int i = 0; i < k->n; i++) {
        k->entries[i].threshold_value = k->items[i].scheme->threshold_value;
        k->entries[i].rho_inv = k->items[i].rho_inv ? *k->items[i].rho_inv : 0.0f;
    }
    return tn_gpu_copy(tn_gpu_of(kernel), args->state, k->entries, kernel->state_bytes,
                       TN_GPU_UPLOAD, error);
}

typedef struct pass {
    tn_gpu_kernel kernel;
    tn_latent_walk walk;
    int threads; /* of each place in the walk */
} pass;

static tn_status launch_all(const quantizer_kernel *k, const tn_arguments *args, const pass *passes,
                            int n, tn_error *error)
{
    char *workspace = args->workspace;
    tn_quantizing_args a = {.entries = args->state,
                            .n = k->n,
                            .parts = args->workspace,
                            .slopes = (double(*)[2])(void *)(workspace + k->slopes_at),
                            .keys = (uint32_t *)(void *)(workspace + k->keys_at),
                            .cuts = (uint32_t *)(void *)(workspace + k->cuts_at)};
    tn_status status = TN_OK;
    for (int i = 0; i < n && status == TN_OK; i++)
        status = tn_gpu_launch(tn_gpu_of(&k->base), passes[i].kernel, &a,
                               k->threads[passes[i].walk] * passes[i].threads, error);
    return status;
}

static tn_status quantizer_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    static const pass passes[] = {
        {TN_GPU_latent_sums, TN_WALK_LANES, 1},   {TN_GPU_latent_cut, TN_WALK_CUTS, TN_GPU_BLOCK},
        {TN_GPU_latent_refresh, TN_WALK_RUNS, 1}, {TN_GPU_latent_kept, TN_WALK_KEPT, 1},
        {TN_GPU_latent_scale, TN_WALK_RUNS, 1},   {TN_GPU_latent_values, TN_WALK_ELEMENTS, 1}};
    return launch_all((const quantizer_kernel *)kernel, args, passes, 6, error);
}

static tn_status quantizer_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    static const pass passes[] = {{TN_GPU_latent_gradient, TN_WALK_ELEMENTS, 1},
                                  {TN_GPU_latent_slopes, TN_WALK_SLICES, TN_GPU_BLOCK},
                                  {TN_GPU_latent_slope, TN_WALK_SLOPES, 1}};
    return launch_all((const quantizer_kernel *)kernel, args, passes, 3, error);
}

static void quantizer_destroy(tn_kernel *kernel)
{
    quantizer_kernel *k = (quantizer_kernel *)kernel;
    tn_free(k->items);
    tn_free(k->entries);
    tn_free(k);
}

static const tn_kernel_class quantizer_class = {quantizer_destroy, quantizer_pack,
                                                quantizer_forward, quantizer_backward};

tn_status tn_gpu_quantizer_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                   tn_error *error)
{
    tn_kernel *created;
    const tn_quantizer_task *t = &task->quantizer;
    tn_status status = tn_kernel_create(device, task, &quantizer_class, "cuda",
                                        sizeof(quantizer_kernel), &created, error);
    if (status != TN_OK)
        return status;
    quantizer_kernel *k = (quantizer_kernel *)created;
    k->items = tn_alloc_array((size_t)t->n + 1, sizeof(*k->items));
    k->entries = tn_alloc_array((size_t)t->n + 1, sizeof(*k->entries));
    if (!k->items || !k->entries) {
        quantizer_destroy(created);
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    }
    memcpy(k->items, t->items, (size_t)t->n * sizeof(*k->items));
    k->n = t->n;
    lay_out(k);
    *kernel = created;
    return TN_OK;
}
