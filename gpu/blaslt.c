#include "gpu/blaslt.h"

#include "core/memory.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

enum { WORKSPACE = 32 << 20 };

typedef struct prepared {
    tn_gpu_product product;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
} prepared;

struct tn_blaslt {
    void *library, *workspace;
    cublasLtHandle_t handle;
    prepared *items;
    size_t n, capacity;
    __typeof__(&cublasLtCreate) create;
    __typeof__(&cublasLtDestroy) destroy;
    __typeof__(&cublasLtGetVersion) version;
    __typeof__(&cublasLtMatmulDescCreate) operation_create;
    __typeof__(&cublasLtMatmulDescDestroy) operation_destroy;
    __typeof__(&cublasLtMatmulDescSetAttribute) operation_set;
    __typeof__(&cublasLtMatrixLayoutCreate) layout_create;
    __typeof__(&cublasLtMatrixLayoutDestroy) layout_destroy;
    __typeof__(&cublasLtMatrixLayoutSetAttribute) layout_set;
    __typeof__(&cublasLtMatmulPreferenceCreate) preference_create;
    __typeof__(&cublasLtMatmulPreferenceDestroy) preference_destroy;
    __typeof__(&cublasLtMatmulPreferenceSetAttribute) preference_set;
    __typeof__(&cublasLtMatmulAlgoGetHeuristic) heuristic;
    __typeof__(&cublasLtMatmul) matmul;
};

static bool load_symbols(tn_blaslt *t)
{
    const struct {
        void *to;
        const char *name;
    } symbols[] = {{&t->create, "cublasLtCreate"},
                   {&t->destroy, "cublasLtDestroy"},
                   {&t->version, "cublasLtGetVersion"},
                   {&t->operation_create, "cublasLtMatmulDescCreate"},
                   {&t->operation_destroy, "cublasLtMatmulDescDestroy"},
                   {&t->operation_set, "cublasLtMatmulDescSetAttribute"},
                   {&t->layout_create, "cublasLtMatrixLayoutCreate"},
                   {&t->layout_destroy, "cublasLtMatrixLayoutDestroy"},
                   {&t->layout_set, "cublasLtMatrixLayoutSetAttribute"},
                   {&t->preference_create, "cublasLtMatmulPreferenceCreate"},
                   {&t->preference_destroy, "cublasLtMatmulPreferenceDestroy"},
                   {&t->preference_set, "cublasLtMatmulPreferenceSetAttribute"},
                   {&t->heuristic, "cublasLtMatmulAlgoGetHeuristic"},
                   {&t->matmul, "cublasLtMatmul"}};
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        void *address = dlsym(t->library, symbols[i].name);
        if (!address)
            return false;
        memcpy(symbols[i].to, &address, sizeof(address)); /* POSIX's way around ISO C */
    }
    return true;
}

tn_status tn_blaslt_create(tn_blaslt **blaslt, tn_error *error)
{
    tn_blaslt *t = tn_alloc_zero(1, sizeof(*t));
    if (!t)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    t->library = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
    tn_status status = TN_OK;
    if (!t->library || !load_symbols(t))
        status = tn_fail(error, TN_ERROR_DEVICE,
                         "libcublasLt.so.13 is not on the loader's path: install CUDA 13's cuBLAS "
                         "or use --device cpu");
    else if (t->create(&t->handle) != CUBLAS_STATUS_SUCCESS)
        status = tn_fail(error, TN_ERROR_DEVICE, "cuBLASLt does not start on this GPU");
    else if (cudaMalloc(&t->workspace, WORKSPACE) != cudaSuccess)
        status = tn_fail(error, TN_ERROR_DEVICE, "no GPU memory for cuBLASLt's workspace");
    if (status == TN_OK)
        *blaslt = t;
    else
        tn_blaslt_destroy(t);
    return status;
}

static void release(tn_blaslt *t, prepared *p)
{
    if (p->operation)
        t->operation_destroy(p->operation);
    if (p->a)
        t->layout_destroy(p->a);
    if (p->b)
        t->layout_destroy(p->b);
    if (p->c)
        t->layout_destroy(p->c);
}

void tn_blaslt_destroy(tn_blaslt *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++)
        release(t, &t->items[i]);
    if (t->handle)
        t->destroy(t->handle);
    cudaFree(t->workspace);
    if (t->library)
        dlclose(t->library);
    tn_free(t->items);
    tn_free(t);
}

size_t tn_blaslt_version(const tn_blaslt *t)
{
    return t->version();
}

static bool same(const tn_gpu_product *p, const tn_gpu_product *q)
{
    return p->trans_a == q->trans_a && p->trans_b == q->trans_b && p->precision == q->precision &&
           p->m == q->m && p->n == q->n && p->k == q->k && p->lda == q->lda && p->ldb == q->ldb &&
           p->ldc == q->ldc && p->batch == q->batch && p->stride_a == q->stride_a &&
           p->stride_b == q->stride_b && p->stride_c == q->stride_c;
}

static const prepared *find(const tn_blaslt *t, const tn_gpu_product *product)
{
    for (size_t i = 0; i < t->n; i++)
        if (same(&t->items[i].product, product))
            return &t->items[i];
    return NULL;
}

/* Row-major matrices are transposed column-major ones: c' = op(b)' op(a)', so b goes first. */
static bool set_layout(tn_blaslt *t, cublasLtMatrixLayout_t *layout, bool bf16, int64_t rows,
                       int64_t cols, int64_t ld, const tn_gpu_product *p, int64_t stride)
{
    int32_t batch = (int32_t)p->batch;
    return t->layout_create(layout, bf16 ? CUDA_R_16BF : CUDA_R_32F, (uint64_t)rows, (uint64_t)cols,
                            ld) == CUBLAS_STATUS_SUCCESS &&
           t->layout_set(*layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof(batch)) ==
               CUBLAS_STATUS_SUCCESS &&
           t->layout_set(*layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                         sizeof(stride)) == CUBLAS_STATUS_SUCCESS;
}

static bool describe(tn_blaslt *t, const tn_gpu_product *p, prepared *q)
{
    cublasOperation_t first = p->trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t second = p->trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasComputeType_t compute =
        p->precision == TN_PRECISION_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    return t->operation_create(&q->operation, compute, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS &&
           t->operation_set(q->operation, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof(first)) ==
               CUBLAS_STATUS_SUCCESS &&
           t->operation_set(q->operation, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof(second)) ==
               CUBLAS_STATUS_SUCCESS &&
           set_layout(t, &q->b, tn_gpu_is_bf16(p), p->trans_b ? p->k : p->n,
                      p->trans_b ? p->n : p->k, p->ldb, p, p->stride_b) &&
           set_layout(t, &q->a, tn_gpu_is_bf16(p), p->trans_a ? p->m : p->k,
                      p->trans_a ? p->k : p->m, p->lda, p, p->stride_a) &&
           set_layout(t, &q->c, false, p->n, p->m, p->ldc, p, p->stride_c);
}

/* The fastest by the library's own estimate; sums split over blocks only where they are added in a
 * fixed order. */
static bool choose(tn_blaslt *t, const tn_gpu_product *p, prepared *q)
{
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t result;
    uint64_t workspace = WORKSPACE;
    uint32_t reduction = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    uint32_t first = tn_gpu_operand_alignment(p->ldb, p->stride_b, tn_gpu_is_bf16(p));
    uint32_t second = tn_gpu_operand_alignment(p->lda, p->stride_a, tn_gpu_is_bf16(p));
    uint32_t third = tn_gpu_operand_alignment(p->ldc, p->stride_c, false);
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t size;
    } settings[] = {{CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof(workspace)},
                    {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction, sizeof(reduction)},
                    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &first, sizeof(first)},
                    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &second, sizeof(second)},
                    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &third, sizeof(third)},
                    {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &third, sizeof(third)}};
    int found = 0;
    bool ok = t->preference_create(&preference) == CUBLAS_STATUS_SUCCESS;
    for (size_t i = 0; ok && i < sizeof(settings) / sizeof(settings[0]); i++)
        ok = t->preference_set(preference, settings[i].name, settings[i].value, settings[i].size) ==
             CUBLAS_STATUS_SUCCESS;
    ok = ok &&
         t->heuristic(t->handle, q->operation, q->b, q->a, q->c, q->c, preference, 1, &result,
                      &found) == CUBLAS_STATUS_SUCCESS &&
         found > 0;
    if (ok)
        q->algorithm = result.algo;
    if (preference)
        t->preference_destroy(preference);
    return ok;
}

tn_status tn_blaslt_prepare(tn_blaslt *t, const tn_gpu_product *product, tn_error *error)
{
    if (find(t, product))
        return TN_OK;
    if (t->n == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 64;
        prepared *grown = tn_realloc(t->items, capacity * sizeof(*grown));
        if (!grown)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
        t->items = grown;
        t->capacity = capacity;
    }
    prepared *q = &t->items[t->n];
    memset(q, 0, sizeof(*q));
    q->product = *product;
    if (!describe(t, product, q) || !choose(t, product, q)) {
        release(t, q);
        return tn_fail(error, TN_ERROR_USAGE,
                       "cuBLASLt has no product of %lld x %lld x %lld (batch %lld, %s)",
                       (long long)product->m, (long long)product->n, (long long)product->k,
                       (long long)product->batch, tn_precision_name(product->precision));
    }
    t->n++;
    return TN_OK;
}

tn_status tn_blaslt_multiply(tn_blaslt *t, void *stream, const tn_gpu_product *product, float alpha,
                             const void *a, const void *b, float beta, float *c, tn_error *error)
{
    const prepared *q = find(t, product);
    if (!q)
        return tn_fail(error, TN_ERROR_USAGE, "a matrix product was not prepared");
    cublasStatus_t code =
        t->matmul(t->handle, q->operation, &alpha, b, q->b, a, q->a, &beta, c, q->c, c, q->c,
                  &q->algorithm, t->workspace, WORKSPACE, (cudaStream_t)stream);
    if (code != CUBLAS_STATUS_SUCCESS)
        return tn_fail(error, TN_ERROR_DEVICE, "cuBLASLt: a matrix product failed (status %d)",
                       (int)code);
    return TN_OK;
}
