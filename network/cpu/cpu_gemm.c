#include "network/cpu/cpu.h"

#include <stdatomic.h>
#include <string.h>

/* Pieces of a product: fixed blocks of the longer side of the result, one thread each, so that bits
 * do not depend on the number of threads. */
enum { PIECES = 16, ALIGN = 16 };

typedef struct product { /* c[m, n] = alpha op(a) op(b) + beta c */
    bool trans_a, trans_b;
    int64_t m, n, k, lda, ldb;
    float alpha, beta;
} product;

static int64_t piece_size(int64_t length)
{
    int64_t size = (length + PIECES - 1) / PIECES;
    return (size + ALIGN - 1) / ALIGN * ALIGN;
}

static bool multiply(const product *p, const float *a, const float *b, float *c)
{
    bool by_rows = p->m > p->n;
    int64_t length = by_rows ? p->m : p->n, size = piece_size(length);
    int pieces = size ? (int)((length + size - 1) / size) : 0;
    atomic_bool ok = true;
#pragma omp parallel for schedule(dynamic) if (p->m * p->n * p->k > 32 * TN_CPU_GRAIN)
    for (int i = 0; i < pieces; i++) {
        int64_t at = i * size, n = length - at < size ? length - at : size;
        bool done;
        if (by_rows)
            done = tn_dnnl_gemm(p->trans_a, p->trans_b, n, p->n, p->k, p->alpha,
                                a + at * (p->trans_a ? 1 : p->lda), p->lda, b, p->ldb, p->beta,
                                c + at * p->n, p->n);
        else
            done = tn_dnnl_gemm(p->trans_a, p->trans_b, p->m, n, p->k, p->alpha, a, p->lda,
                                b + at * (p->trans_b ? p->ldb : 1), p->ldb, p->beta, c + at, p->n);
        if (!done)
            ok = false;
    }
    return ok;
}

static tn_status out_of_memory(tn_error *error)
{
    return tn_fail(error, TN_ERROR_LIMIT, "oneDNN: a matrix product ran out of memory");
}

/* dst = beta * c, broadcast. */
static void fill(const tn_gemm_task *t, const float *c, float *dst)
{
    for (int64_t i = 0; i < t->m; i++)
        for (int64_t j = 0; j < t->n; j++)
            dst[i * t->n + j] =
                t->beta * c[(t->c_rows == 1 ? 0 : i * t->c_cols) + (t->c_cols == 1 ? 0 : j)];
}

/* The operands wherever they are: among src or params. */
typedef struct operands {
    const float *a, *b, *c;
    int b_src, c_src, b_param, c_param; /* positions; -1 */
} operands;

static operands find_operands(const tn_gemm_task *t, const tn_arguments *args)
{
    operands o = {args->src[0], NULL, NULL, -1, -1, -1, -1};
    int src = 1, param = 0;
    if (t->const_b)
        o.b_param = param++;
    else
        o.b_src = src++;
    if (t->has_c && t->const_c)
        o.c_param = param;
    else if (t->has_c)
        o.c_src = src;
    o.b = t->const_b ? args->params[o.b_param] : args->src[o.b_src];
    if (t->has_c)
        o.c = t->const_c ? args->params[o.c_param] : args->src[o.c_src];
    return o;
}

static tn_status gemm_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_gemm_task *t = &kernel->task.gemm;
    operands o = find_operands(t, args);
    product p = {t->trans_a,
                 t->trans_b,
                 t->m,
                 t->n,
                 t->k,
                 t->trans_a ? t->m : t->k,
                 t->trans_b ? t->k : t->n,
                 t->alpha,
                 t->has_c ? 1.0f : 0.0f};
    for (int64_t i = 0; i < t->batch; i++) {
        float *dst = args->dst + i * t->m * t->n;
        if (t->has_c)
            fill(t, o.c, dst);
        if (!multiply(&p, o.a + i * t->m * t->k, o.b + (t->shared_b ? 0 : i * t->k * t->n), dst))
            return out_of_memory(error);
    }
    if (t->function != TN_FUNCTION_NONE)
        tn_cpu_function(t->function, t->a, t->b, args->dst, args->dst, t->batch * t->m * t->n);
    return TN_OK;
}

/* da = alpha dy op(b)^T, in a's own layout. */
static bool backward_a(const tn_gemm_task *t, const float *dy, const float *b, float *da,
                       bool accumulate)
{
    product p = {false,
                 !t->trans_b,
                 t->m,
                 t->k,
                 t->n,
                 t->n,
                 t->trans_b ? t->k : t->n,
                 t->alpha,
                 accumulate ? 1.0f : 0.0f};
    if (!t->trans_a)
        return multiply(&p, dy, b, da);
    /* a is [k, m]: da = alpha op(b) dy^T */
    product q = {t->trans_b, true, t->k, t->m, t->n, p.ldb, t->n, t->alpha, p.beta};
    return multiply(&q, b, dy, da);
}

/* db = alpha op(a)^T dy, in b's own layout. */
static bool backward_b(const tn_gemm_task *t, const float *dy, const float *a, float *db,
                       bool accumulate)
{
    int64_t lda = t->trans_a ? t->m : t->k;
    float beta = accumulate ? 1.0f : 0.0f;
    if (!t->trans_b) {
        product p = {!t->trans_a, false, t->k, t->n, t->m, lda, t->n, t->alpha, beta};
        return multiply(&p, a, dy, db);
    }
    product p = {true, t->trans_a, t->n, t->k, t->m, t->n, lda, t->alpha, beta};
    return multiply(&p, dy, a, db);
}

static void backward_c(const tn_gemm_task *t, const float *dy, float *dc, bool accumulate)
{
    if (!accumulate)
        memset(dc, 0, (size_t)(t->c_rows * t->c_cols) * sizeof(float));
    for (int64_t i = 0; i < t->c_rows; i++)
        for (int64_t j = 0; j < t->c_cols; j++) {
            double sum = 0.0;
            for (int64_t r = t->c_rows == 1 ? 0 : i; r < (t->c_rows == 1 ? t->m : i + 1); r++)
                for (int64_t s = t->c_cols == 1 ? 0 : j; s < (t->c_cols == 1 ? t->n : j + 1); s++)
                    sum += (double)dy[r * t->n + s];
            dc[i * t->c_cols + j] += (float)sum * t->beta;
        }
}

static tn_status gemm_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const tn_gemm_task *t = &kernel->task.gemm;
    operands o = find_operands(t, args);
    float *db = o.b_param >= 0 ? args->dparams[o.b_param] : args->dsrc[o.b_src];
    float *dc = o.c_param >= 0 ? args->dparams[o.c_param]
                : o.c_src >= 0 ? args->dsrc[o.c_src]
                               : NULL;
    bool add_b = o.b_param >= 0 ? args->accumulate_params : args->accumulate[o.b_src];
    bool add_c = o.c_param >= 0 ? args->accumulate_params
                 : o.c_src >= 0 ? args->accumulate[o.c_src]
                                : false;
    const float *dy = args->ddst;
    if (t->function != TN_FUNCTION_NONE) {
        tn_cpu_function_backward(t->function, t->a, t->b, args->dst, args->dst, dy, args->workspace,
                                 false, t->batch * t->m * t->n);
        dy = args->workspace;
    }
    for (int64_t i = 0; i < t->batch; i++) {
        const float *d = dy + i * t->m * t->n;
        if (args->dsrc[0] && !backward_a(t, d, o.b + (t->shared_b ? 0 : i * t->k * t->n),
                                         args->dsrc[0] + i * t->m * t->k, args->accumulate[0]))
            return out_of_memory(error);
        if (db && !backward_b(t, d, o.a + i * t->m * t->k, db + (t->shared_b ? 0 : i * t->k * t->n),
                              add_b || (t->shared_b && i > 0)))
            return out_of_memory(error);
        if (dc)
            backward_c(t, d, dc, add_c || i > 0);
    }
    return TN_OK;
}

static const tn_kernel_class gemm_class = {tn_kernel_free, NULL, gemm_forward, gemm_backward};

/* A linear layer is a convolution by 1 with a pixel for every row, and the same operands: that way
 * its weights are packed as bf16 once, half the bytes that a small batch waits for. */
static bool is_convolution(const tn_task *task, tn_task *conv)
{
    const tn_gemm_task *t = &task->gemm;
    bool bias = !t->has_c || (t->const_c && t->c_rows == 1 && t->c_cols == t->n && t->beta == 1.0f);
    if (task->precision != TN_PRECISION_BF16 || task->backward || !t->const_b || t->batch != 1 ||
        t->trans_a || !t->trans_b || t->alpha != 1.0f || !bias)
        return false;
    *conv = (tn_task){.verb = TN_VERB_CONV, .precision = TN_PRECISION_BF16};
    conv->conv = (tn_conv_task){.spatial = 1,
                                .batch = 1,
                                .in_channels = t->k,
                                .out_channels = t->n,
                                .group = 1,
                                .in = {t->m},
                                .out = {t->m},
                                .kernel = {1},
                                .stride = {1},
                                .dilation = {1},
                                .bias = t->has_c,
                                .function = t->function,
                                .a = t->a,
                                .b = t->b};
    return tn_dnnl_has_function(t->function);
}

/* A product with constant weights [k, n] in inference: they are turned to [n, k] once, so that it
 * has the bits of a Gemm with transB = 1, which a packed file makes of it, and its packed bf16
 * weights. */
typedef struct turned {
    tn_kernel base;
    tn_kernel *inner; /* the product with transB = 1 */
    size_t weights;   /* bytes of the turned weights: the inner kernel's state follows */
} turned;

static bool is_turned(const tn_task *task)
{
    const tn_gemm_task *t = &task->gemm;
    return !task->backward && t->const_b && !t->trans_b && (t->shared_b || t->batch == 1);
}

/* The arguments with the turned weights in place of the model's, and with the inner kernel's state.
 */
static void turn_arguments(const turned *k, tn_arguments *args, const float *params[2])
{
    params[0] = args->state;
    params[1] = k->base.task.gemm.const_c ? args->params[1] : NULL;
    args->params = params;
    args->state = (char *)args->state + k->weights;
}

static tn_status turned_pack(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const turned *k = (const turned *)kernel;
    const tn_gemm_task *t = &kernel->task.gemm;
    const float *params[2], *from = args->params[0];
    float *to = args->state;
    tn_arguments inner = *args;
    for (int64_t row = 0; row < t->k; row++)
        for (int64_t col = 0; col < t->n; col++)
            to[col * t->k + row] = from[row * t->n + col];
    turn_arguments(k, &inner, params);
    return k->inner->type->pack ? k->inner->type->pack(k->inner, &inner, error) : TN_OK;
}

static tn_status turned_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    const turned *k = (const turned *)kernel;
    const float *params[2];
    tn_arguments inner = *args;
    turn_arguments(k, &inner, params);
    return k->inner->type->forward(k->inner, &inner, error);
}

static void turned_destroy(tn_kernel *kernel)
{
    tn_kernel_destroy(((turned *)kernel)->inner);
    tn_kernel_free(kernel);
}

static const tn_kernel_class turned_class = {turned_destroy, turned_pack, turned_forward, NULL};

static tn_status turned_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                tn_error *error)
{
    tn_task inner_task = *task;
    tn_kernel *inner = NULL;
    inner_task.gemm.trans_b = true;
    tn_status status = tn_cpu_gemm_prepare(device, &inner_task, &inner, error);
    if (status == TN_OK)
        status = tn_kernel_create(device, task, &turned_class, inner->name, sizeof(turned), kernel,
                                  error);
    if (status != TN_OK) {
        tn_kernel_destroy(inner);
        return status;
    }
    turned *k = (turned *)*kernel;
    k->inner = inner;
    k->weights = ((size_t)(task->gemm.n * task->gemm.k) * sizeof(float) + 63) & ~(size_t)63;
    k->base.state_bytes = k->weights + inner->state_bytes;
    k->base.workspace_bytes = inner->workspace_bytes;
    return TN_OK;
}

tn_status tn_cpu_gemm_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                              tn_error *error)
{
    const tn_gemm_task *t = &task->gemm;
    tn_kernel *k;
    tn_task conv;
    if (is_turned(task))
        return turned_prepare(device, task, kernel, error);
    if (is_convolution(task, &conv))
        return tn_cpu_conv_prepare(device, &conv, kernel, error);
    tn_status status =
        tn_kernel_create(device, task, &gemm_class, "oneDNN sgemm", sizeof(tn_kernel), &k, error);
    if (status != TN_OK)
        return status;
    k->reads_src = true;
    k->reads_dst = t->function != TN_FUNCTION_NONE;
    if (task->backward && t->function != TN_FUNCTION_NONE)
        k->workspace_bytes = (size_t)(t->batch * t->m * t->n) * sizeof(float);
    *kernel = k;
    return TN_OK;
}
