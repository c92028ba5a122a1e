/* gpu/runtime.h on the processor: device memory that the host cannot touch outside of calls (any
 * slip is a segmentation fault), poisoned when allocated, kernels as loops over their bodies. With
 * TERNION_EMULATION=reverse threads run last to first: results must not change;
 * with TERNION_EMULATION=fp32 the device has no bf16. */
#include "gpu/runtime.h"

#include "core/memory.h"
#include "gpu/fault.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static const size_t region_bytes = (size_t)1 << 36;
enum { PAGE = 4096, MAX_PRODUCTS = 4096 };

struct tn_gpu {
    char *region;
    size_t used; /* memory is not used again: a use after free faults */
    bool reverse;
    tn_gpu_product *products;
    size_t n_products;
};

/* The region as the GPU sees it. */
static void enter(tn_gpu *gpu)
{
    if (gpu->used && mprotect(gpu->region, gpu->used, PROT_READ | PROT_WRITE))
        abort();
}

static void leave(tn_gpu *gpu)
{
    if (gpu->used && mprotect(gpu->region, gpu->used, PROT_NONE))
        abort();
}

static tn_status failed(const char *what, tn_error *error)
{
    return tn_fail(error, TN_ERROR_DEVICE, "CUDA: %s failed: emulated", what);
}

tn_status tn_gpu_open(int index, tn_gpu **gpu, tn_error *error)
{
    const char *order = getenv("TERNION_EMULATION");
    if (index != 0)
        return tn_fail(error, TN_ERROR_DEVICE, "there is no GPU %d: this machine has 1 (0 to 0)",
                       index);
    tn_gpu *g = tn_alloc_zero(1, sizeof(*g));
    if (!g)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    g->products = tn_alloc_array(MAX_PRODUCTS, sizeof(*g->products));
    g->region =
        mmap(NULL, region_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    g->reverse = order && strcmp(order, "reverse") == 0;
    if (!g->products || g->region == MAP_FAILED) {
        tn_free(g->products);
        tn_free(g);
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    }
    *gpu = g;
    return TN_OK;
}

void tn_gpu_close(tn_gpu *gpu)
{
    if (!gpu)
        return;
    munmap(gpu->region, region_bytes);
    tn_free(gpu->products);
    tn_free(gpu);
}

void tn_gpu_describe(const tn_gpu *gpu, char *text, size_t size)
{
    (void)gpu;
    snprintf(text, size, "emulated on the processor");
}

bool tn_gpu_has_bf16(const tn_gpu *gpu)
{
    const char *mode = getenv("TERNION_EMULATION");
    (void)gpu;
    return !mode || strcmp(mode, "fp32") != 0;
}

void *tn_gpu_alloc(tn_gpu *gpu, size_t bytes)
{
    size_t whole = (bytes / PAGE + 1) * PAGE;
    if (tn_gpu_fault() || bytes > region_bytes || whole > region_bytes - gpu->used)
        return NULL;
    char *memory = gpu->region + gpu->used;
    gpu->used += whole;
    enter(gpu);
    memset(memory, 0xff, whole); /* NaNs */
    leave(gpu);
    return memory;
}

void tn_gpu_free(tn_gpu *gpu, void *memory)
{
    (void)gpu; /* until close */
    (void)memory;
}

tn_status tn_gpu_copy(tn_gpu *gpu, void *dst, const void *src, size_t bytes,
                      tn_gpu_direction direction, tn_error *error)
{
    (void)direction;
    if (tn_gpu_fault())
        return failed("a copy", error);
    enter(gpu);
    memcpy(dst, src, bytes);
    leave(gpu);
    return TN_OK;
}

tn_status tn_gpu_zero(tn_gpu *gpu, void *dst, size_t bytes, tn_error *error)
{
    if (tn_gpu_fault())
        return failed("clearing memory", error);
    enter(gpu);
    memset(dst, 0, bytes);
    leave(gpu);
    return TN_OK;
}

tn_status tn_gpu_wait(tn_gpu *gpu, tn_error *error)
{
    (void)gpu;
    return tn_gpu_fault() ? failed("the queued work", error) : TN_OK;
}

typedef void runner(const void *args, int64_t threads, bool reverse);

#define RUNNER(name, arguments)                                                                    \
    static void run_##name(const void *args, int64_t threads, bool reverse)                        \
    {                                                                                              \
        _Pragma("omp parallel for schedule(static) if (threads > 4096)") for (int64_t i = 0;       \
                                                                              i < threads; i++)    \
            tn_##name##_body((const tn_##arguments##_args *)args, reverse ? threads - 1 - i : i);  \
    }
TN_GPU_KERNELS(RUNNER)

#define ENTRY(name, arguments) run_##name,
static runner *const runners[TN_N_GPU_KERNELS] = {TN_GPU_KERNELS(ENTRY)};

tn_status tn_gpu_launch(tn_gpu *gpu, tn_gpu_kernel kernel, const void *args, int64_t threads,
                        tn_error *error)
{
    if (threads <= 0)
        return TN_OK;
    if (tn_gpu_fault())
        return failed("a launch", error);
    enter(gpu);
    runners[kernel](args, threads, gpu->reverse);
    leave(gpu);
    return TN_OK;
}

static bool prepared(const tn_gpu *gpu, const tn_gpu_product *p)
{
    for (size_t i = 0; i < gpu->n_products; i++) {
        const tn_gpu_product *q = &gpu->products[i];
        if (p->trans_a == q->trans_a && p->trans_b == q->trans_b && p->bf16 == q->bf16 &&
            p->m == q->m && p->n == q->n && p->k == q->k && p->lda == q->lda && p->ldb == q->ldb &&
            p->ldc == q->ldc && p->batch == q->batch && p->stride_a == q->stride_a &&
            p->stride_b == q->stride_b && p->stride_c == q->stride_c)
            return true;
    }
    return false;
}

/* What cuBLASLt asks of leading dimensions. */
static bool legal(const tn_gpu_product *p)
{
    return p->m > 0 && p->n > 0 && p->k > 0 && p->batch > 0 &&
           p->lda >= (p->trans_a ? p->m : p->k) && p->ldb >= (p->trans_b ? p->k : p->n) &&
           p->ldc >= p->n;
}

tn_status tn_gpu_product_prepare(tn_gpu *gpu, const tn_gpu_product *product, tn_error *error)
{
    if (prepared(gpu, product))
        return TN_OK;
    if (!legal(product) || gpu->n_products == MAX_PRODUCTS)
        return tn_fail(error, TN_ERROR_USAGE, "no product of %lld x %lld x %lld",
                       (long long)product->m, (long long)product->n, (long long)product->k);
    gpu->products[gpu->n_products++] = *product;
    return TN_OK;
}

static float element(const void *matrix, int64_t i, bool bf16)
{
    if (!bf16)
        return ((const float *)matrix)[i];
    uint32_t bits = (uint32_t)((const tn_bf16 *)matrix)[i] << 16;
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

static void multiply_row(const tn_gpu_product *p, float alpha, const void *a, const void *b,
                         float beta, float *c, int64_t batch, int64_t row)
{
    enum { TILE = 64 };
    for (int64_t j = 0; j < p->n; j += TILE) {
        double sum[TILE] = {0.0};
        int64_t n = p->n - j < TILE ? p->n - j : TILE;
        for (int64_t k = 0; k < p->k; k++) {
            int64_t ai = batch * p->stride_a + (p->trans_a ? k * p->lda + row : row * p->lda + k);
            double x = (double)element(a, ai, p->bf16);
            for (int64_t t = 0; t < n; t++) {
                int64_t bi = p->trans_b ? (j + t) * p->ldb + k : k * p->ldb + j + t;
                sum[t] += x * (double)element(b, batch * p->stride_b + bi, p->bf16);
            }
        }
        for (int64_t t = 0; t < n; t++) {
            float *to = &c[batch * p->stride_c + row * p->ldc + j + t];
            *to = alpha * (float)sum[t] + (beta != 0.0f ? beta * *to : 0.0f);
        }
    }
}

tn_status tn_gpu_multiply(tn_gpu *gpu, const tn_gpu_product *product, float alpha, const void *a,
                          const void *b, float beta, float *c, tn_error *error)
{
    if (tn_gpu_fault())
        return tn_fail(error, TN_ERROR_DEVICE, "cuBLASLt: a matrix product failed");
    if (!prepared(gpu, product))
        return tn_fail(error, TN_ERROR_USAGE, "a matrix product was not prepared");
    enter(gpu);
    int64_t rows = product->batch * product->m;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        multiply_row(product, alpha, a, b, beta, c, r / product->m, r % product->m);
    leave(gpu);
    return TN_OK;
}
