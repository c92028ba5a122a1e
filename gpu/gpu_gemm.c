/* Matrix products by cuBLASLt; in bf16 the operands are rounded first, constant ones when packed.
 */
#include "gpu/gpu.h"

enum { ALIGN = 256, PAD = 8 };

typedef struct operand { /* a matrix as it is stored, batched */
    int64_t rows, cols, ld, stride;
} operand;

typedef struct gemm_kernel {
    tn_kernel base;
    bool bf16;
    operand a, b, dy;
    size_t a_at, b_at, dy_at, gate_at, partial_at; /* workspace */
} gemm_kernel;

static size_t round_up(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static operand operand_of(int64_t rows, int64_t cols, bool bf16)
{
    int64_t ld = bf16 ? (cols + PAD - 1) / PAD * PAD : cols;
    return (operand){rows, cols, ld, rows * ld};
}

typedef enum part { FORWARD, INTO_A, INTO_B } part;

/* da = alpha dy op(b)', db = alpha op(a)' dy, each in its operand's own layout. Products into a
 * shared b are one per matrix, added in order. */
static tn_gpu_product product_of(const gemm_kernel *k, part which)
{
    const tn_gemm_task *t = &k->base.task.gemm;
    int64_t b_stride = t->shared_b ? 0 : k->b.stride, ab = t->m * t->k;
    int64_t batch = which == INTO_B && t->shared_b ? 1 : t->batch, bb = t->k * t->n;
    const operand *a = &k->a, *b = &k->b, *d = &k->dy;
    if (which == FORWARD)
        return (tn_gpu_product){t->trans_a, t->trans_b, k->base.task.precision,
                                t->m,       t->n,       t->k,
                                a->ld,      b->ld,      t->n,
                                batch,      a->stride,  b_stride,
                                t->m * t->n};
    if (which == INTO_A && !t->trans_a)
        return (tn_gpu_product){false, !t->trans_b, k->base.task.precision,
                                t->m,  t->k,        t->n,
                                d->ld, b->ld,       t->k,
                                batch, d->stride,   b_stride,
                                ab};
    if (which == INTO_A)
        return (tn_gpu_product){t->trans_b, true,     k->base.task.precision,
                                t->k,       t->m,     t->n,
                                b->ld,      d->ld,    t->m,
                                batch,      b_stride, d->stride,
                                ab};
    if (!t->trans_b)
        return (tn_gpu_product){!t->trans_a, false,     k->base.task.precision,
                                t->k,        t->n,      t->m,
                                a->ld,       d->ld,     t->n,
                                batch,       a->stride, d->stride,
                                bb};
    return (tn_gpu_product){true,  t->trans_a, k->base.task.precision,
                            t->n,  t->k,       t->m,
                            d->ld, a->ld,      t->k,
                            batch, d->stride,  a->stride,
                            bb};
}

/* The operands wherever they are: among src or params. */
typedef struct places {
    int b_src, c_src, b_param, c_param; /* -1: not there */
} places;

static places find(const tn_gemm_task *t)
{
    places p = {-1, -1, -1, -1};
    int src = 1, param = 0;
    if (t->const_b)
        p.b_param = param++;
    else
        p.b_src = src++;
    if (t->has_c && t->const_c)
        p.c_param = param;
    else if (t->has_c)
        p.c_src = src;
    return p;
}

static tn_status convert(const gemm_kernel *k, const float *from, const operand *o, int64_t batch,
                         void *to, tn_error *error)
{
    tn_operand_args args = {from, to, o->cols, o->cols, o->ld, true, false};
    return tn_gpu_launch(tn_gpu_of(&k->base), TN_GPU_operand, &args, batch * o->stride, error);
}

static tn_status gemm_pack(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const gemm_kernel *k = (const gemm_kernel *)kernel;
    const tn_gemm_task *t = &k->base.task.gemm;
    if (!k->bf16 || !t->const_b)
        return TN_OK;
    return convert(k, args->params[find(t).b_param], &k->b, t->shared_b ? 1 : t->batch, args->state,
                   error);
}

/* a and b as operands of products. */
static tn_status make_operands(const gemm_kernel *k, const tn_arguments *args, const void **a,
                               const void **b, tn_error *error)
{
    const tn_gemm_task *t = &k->base.task.gemm;
    places p = find(t);
    char *workspace = args->workspace;
    *a = args->src[0];
    *b = t->const_b ? args->params[p.b_param] : args->src[p.b_src];
    if (!k->bf16)
        return TN_OK;
    tn_status status = convert(k, *a, &k->a, t->batch, workspace + k->a_at, error);
    *a = workspace + k->a_at;
    if (t->const_b) {
        *b = args->state;
    } else {
        if (status == TN_OK)
            status = convert(k, *b, &k->b, t->shared_b ? 1 : t->batch, workspace + k->b_at, error);
        *b = workspace + k->b_at;
    }
    return status;
}

static tn_status gemm_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const gemm_kernel *k = (const gemm_kernel *)kernel;
    const tn_gemm_task *t = &k->base.task.gemm;
    tn_gpu *gpu = tn_gpu_of(kernel);
    int64_t count = t->batch * t->m * t->n;
    tn_gpu_product p = product_of(k, FORWARD);
    const void *a, *b;
    tn_status status = make_operands(k, args, &a, &b, error);
    if (status == TN_OK && t->has_c) {
        places at = find(t);
        tn_broadcast_args c = {t->const_c ? args->params[at.c_param] : args->src[at.c_src],
                               args->dst,
                               t->m,
                               t->n,
                               t->c_rows,
                               t->c_cols,
                               t->beta};
        status = tn_gpu_launch(gpu, TN_GPU_broadcast, &c, count, error);
    }
    if (status == TN_OK)
        status = tn_gpu_multiply(gpu, &p, t->alpha, a, b, t->has_c ? 1.0f : 0.0f, args->dst, error);
    if (status == TN_OK)
        status = tn_gpu_epilogue(
            gpu,
            &(tn_epilogue_args){
                .dst = args->dst, .channels = 1, .function = t->function, .a = t->a, .b = t->b},
            count, error);
    return status;
}

static tn_status backward_c(const gemm_kernel *k, const tn_arguments *args, const float *dy,
                            tn_error *error)
{
    const tn_gemm_task *t = &k->base.task.gemm;
    tn_gpu *gpu = tn_gpu_of(&k->base);
    places p = find(t);
    float *dc = p.c_param >= 0 ? args->dparams[p.c_param]
                : p.c_src >= 0 ? args->dsrc[p.c_src]
                               : NULL;
    if (!dc)
        return TN_OK;
    bool add = p.c_param >= 0 ? args->accumulate_params : args->accumulate[p.c_src];
    if (t->c_rows == 1 && t->c_cols == t->n)
        return tn_gpu_column_sums(gpu, dy, false, t->batch * t->m, t->n,
                                  (double *)(void *)((char *)args->workspace + k->partial_at), dc,
                                  t->beta, add, error);
    tn_broadcast_sum_args sum = {dy, dc, t->batch, t->m, t->n, t->c_rows, t->c_cols, t->beta, add};
    return tn_gpu_launch(gpu, TN_GPU_broadcast_sum, &sum, t->c_rows * t->c_cols, error);
}

static tn_status backward_b(const gemm_kernel *k, const void *a, const void *dy, float *db,
                            bool add, tn_error *error)
{
    const tn_gemm_task *t = &k->base.task.gemm;
    tn_gpu_product p = product_of(k, INTO_B);
    size_t element = k->bf16 ? sizeof(tn_bf16) : sizeof(float);
    tn_status status = TN_OK;
    for (int64_t i = 0; i < (t->shared_b ? t->batch : 1) && status == TN_OK; i++) {
        const char *ai = (const char *)a + (size_t)(i * k->a.stride) * element;
        const char *di = (const char *)dy + (size_t)(i * k->dy.stride) * element;
        status = tn_gpu_multiply(tn_gpu_of(&k->base), &p, t->alpha, t->trans_b ? di : ai,
                                 t->trans_b ? ai : di, add || i > 0 ? 1.0f : 0.0f, db, error);
    }
    return status;
}

static tn_status gemm_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const gemm_kernel *k = (const gemm_kernel *)kernel;
    const tn_gemm_task *t = &k->base.task.gemm;
    tn_gpu *gpu = tn_gpu_of(kernel);
    places at = find(t);
    float *db = at.b_param >= 0 ? args->dparams[at.b_param] : args->dsrc[at.b_src];
    const float *dy = args->ddst;
    const void *a, *b, *operand_dy;
    tn_status status = make_operands(k, args, &a, &b, error);
    if (status == TN_OK && t->function != TN_FUNCTION_NONE) {
        float *gated = (float *)(void *)((char *)args->workspace + k->gate_at);
        tn_unary_backward_args gate = {NULL, args->dst, dy,    gated, t->function,
                                       t->a, t->b,      false, false};
        status = tn_gpu_launch(gpu, TN_GPU_unary_backward, &gate, t->batch * t->m * t->n, error);
        dy = gated;
    }
    operand_dy = dy;
    if (status == TN_OK && k->bf16) {
        operand_dy = (char *)args->workspace + k->dy_at;
        status = convert(k, dy, &k->dy, t->batch, (char *)args->workspace + k->dy_at, error);
    }
    if (status == TN_OK && args->dsrc[0]) {
        tn_gpu_product p = product_of(k, INTO_A);
        status = tn_gpu_multiply(gpu, &p, t->alpha, t->trans_a ? b : operand_dy,
                                 t->trans_a ? operand_dy : b, args->accumulate[0] ? 1.0f : 0.0f,
                                 args->dsrc[0], error);
    }
    if (status == TN_OK && db)
        status = backward_b(k, a, operand_dy, db,
                            at.b_param >= 0 ? args->accumulate_params : args->accumulate[at.b_src],
                            error);
    return status == TN_OK ? backward_c(k, args, dy, error) : status;
}

static const tn_kernel_class gemm_class = {tn_kernel_free, gemm_pack, gemm_forward, gemm_backward};

static void place(gemm_kernel *k, bool backward)
{
    const tn_gemm_task *t = &k->base.task.gemm;
    int64_t b_batch = t->shared_b ? 1 : t->batch;
    size_t total = 0;
    if (k->bf16) {
        k->a_at = total;
        total += round_up((size_t)(t->batch * k->a.stride) * sizeof(tn_bf16));
        k->b_at = total;
        total += t->const_b ? 0 : round_up((size_t)(b_batch * k->b.stride) * sizeof(tn_bf16));
        if (t->const_b)
            k->base.state_bytes = round_up((size_t)(b_batch * k->b.stride) * sizeof(tn_bf16));
    }
    if (backward) {
        k->dy_at = total;
        if (k->bf16)
            total += round_up((size_t)(t->batch * k->dy.stride) * sizeof(tn_bf16));
        k->gate_at = total;
        if (t->function != TN_FUNCTION_NONE)
            total += round_up((size_t)(t->batch * t->m * t->n) * sizeof(float));
        k->partial_at = total;
        total += round_up(tn_gpu_column_sums_bytes(t->batch * t->m, t->n));
    }
    k->base.workspace_bytes = total;
}

tn_status tn_gpu_gemm_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                              tn_error *error)
{
    const tn_gemm_task *t = &task->gemm;
    tn_kernel *created;
    tn_status status = tn_kernel_create(device, task, &gemm_class, "cuBLASLt", sizeof(gemm_kernel),
                                        &created, error);
    if (status != TN_OK)
        return status;
    gemm_kernel *k = (gemm_kernel *)created;
    k->bf16 = task->precision == TN_PRECISION_BF16;
    k->a = operand_of(t->trans_a ? t->k : t->m, t->trans_a ? t->m : t->k, k->bf16);
    k->b = operand_of(t->trans_b ? t->n : t->k, t->trans_b ? t->k : t->n, k->bf16);
    k->dy = operand_of(t->m, t->n, k->bf16);
    place(k, task->backward);
    for (part which = FORWARD; which <= (task->backward ? INTO_B : FORWARD); which++) {
        tn_gpu_product p = product_of(k, which);
        if (status == TN_OK)
            status = tn_gpu_product_prepare(tn_gpu_of(created), &p, error);
    }
    if (status != TN_OK) {
        tn_kernel_free(created);
        return status;
    }
    created->reads_src = true;
    created->reads_dst = t->function != TN_FUNCTION_NONE;
    *kernel = created;
    return TN_OK;
}
