/* gpu/runtime.h on the processor: device memory that the host cannot touch outside of calls (any
 * slip is a segmentation fault), poisoned when allocated, kernels as loops over their bodies. With
 * TERNION_EMULATION=reverse threads run last to first: results must not change;
 * with TERNION_EMULATION=fp32 the device has neither bf16 nor tf32; with
 * TERNION_EMULATION=cudnn there is a library of convolutions. */
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
    size_t used;  /* addresses are not used again */
    size_t *ends; /* of allocations, in order */
    size_t n_ends, end_room;
    bool reverse;
    tn_gpu_product *products;
    size_t n_products;
    tn_recording *recording; /* being made */
    int inside;              /* calls the region is open for */
};

enum { ARGUMENT_BYTES = 4096 };

typedef enum work { LAUNCH, MULTIPLY, COPY, ZERO } work;

typedef struct recorded { /* one call and what it was given */
    work work;
    tn_gpu_kernel kernel;
    int64_t threads;
    union {
        _Alignas(16) char args[ARGUMENT_BYTES];
        struct {
            tn_gpu_product product;
            float alpha, beta;
            const void *a, *b;
            float *c;
        };
        struct {
            void *dst;
            const void *src;
            size_t bytes;
        };
    };
} recorded;

struct tn_recording {
    recorded *calls;
    size_t n, capacity;
};

/* Room for one more call of the recording. */
static recorded *record(tn_gpu *gpu, work what)
{
    tn_recording *r = gpu->recording;
    if (r->n == r->capacity) {
        size_t capacity = r->capacity ? 2 * r->capacity : 1024;
        recorded *grown = tn_realloc(r->calls, capacity * sizeof(*grown));
        if (!grown)
            abort();
        r->calls = grown;
        r->capacity = capacity;
    }
    recorded *call = &r->calls[r->n++];
    memset(call, 0, sizeof(*call));
    call->work = what;
    return call;
}

static tn_status not_recorded(const char *what, tn_error *error)
{
    return tn_fail(error, TN_ERROR_DEVICE, "CUDA: %s is not possible while a step is recorded",
                   what);
}

/* The region as the GPU sees it. */
static void enter(tn_gpu *gpu)
{
    if (gpu->inside++ == 0 && gpu->used && mprotect(gpu->region, gpu->used, PROT_READ | PROT_WRITE))
        abort();
}

static void leave(tn_gpu *gpu)
{
    if (--gpu->inside == 0 && gpu->used && mprotect(gpu->region, gpu->used, PROT_NONE))
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
    tn_free(gpu->ends);
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

size_t tn_gpu_available(tn_gpu *gpu)
{
    return region_bytes - gpu->used;
}

void *tn_gpu_stream(const tn_gpu *gpu)
{
    return gpu->region; /* no stream, but one that can be told */
}

void *tn_gpu_alloc(tn_gpu *gpu, size_t bytes)
{
    size_t whole = (bytes / PAGE + 1) * PAGE;
    if (gpu->recording) /* the CUDA runtime refuses it, too */
        return NULL;
    if (tn_gpu_fault() || bytes > region_bytes || whole > region_bytes - gpu->used)
        return NULL;
    if (gpu->n_ends == gpu->end_room) {
        size_t more = gpu->end_room ? 2 * gpu->end_room : 1024;
        size_t *grown = tn_realloc(gpu->ends, more * sizeof(*grown));
        if (!grown)
            return NULL;
        gpu->ends = grown;
        gpu->end_room = more;
    }
    char *memory = gpu->region + gpu->used;
    gpu->used += whole;
    gpu->ends[gpu->n_ends++] = gpu->used;
    enter(gpu);
    memset(memory, 0xff, whole); /* NaNs */
    leave(gpu);
    return memory;
}

/* Gives the pages back, which opening and closing the region would go through. */
void tn_gpu_free(tn_gpu *gpu, void *memory)
{
    size_t start = memory ? (size_t)((char *)memory - gpu->region) : gpu->used, low = 0;
    for (size_t high = gpu->n_ends; low < high;) {
        size_t middle = (low + high) / 2;
        if (gpu->ends[middle] > start)
            high = middle;
        else
            low = middle + 1;
    }
    if (memory && low < gpu->n_ends)
        (void)madvise(memory, gpu->ends[low] - start, MADV_DONTNEED);
}

tn_status tn_gpu_copy(tn_gpu *gpu, void *dst, const void *src, size_t bytes,
                      tn_gpu_direction direction, tn_error *error)
{
    if (tn_gpu_fault())
        return failed("a copy", error);
    if (gpu->recording && direction != TN_GPU_WITHIN)
        return not_recorded("a copy from or to the host", error);
    if (gpu->recording) {
        recorded *call = record(gpu, COPY);
        call->dst = dst;
        call->src = src;
        call->bytes = bytes;
        return TN_OK;
    }
    if (direction == TN_GPU_DOWNLOAD)
        tn_gpu_waited();
    enter(gpu);
    memcpy(dst, src, bytes);
    leave(gpu);
    return TN_OK;
}

tn_status tn_gpu_zero(tn_gpu *gpu, void *dst, size_t bytes, tn_error *error)
{
    if (tn_gpu_fault())
        return failed("clearing memory", error);
    if (gpu->recording) {
        recorded *call = record(gpu, ZERO);
        call->dst = dst;
        call->bytes = bytes;
        return TN_OK;
    }
    enter(gpu);
    memset(dst, 0, bytes);
    leave(gpu);
    return TN_OK;
}

tn_status tn_gpu_wait(tn_gpu *gpu, tn_error *error)
{
    if (gpu->recording)
        return not_recorded("waiting", error);
    tn_gpu_waited();
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

/* Blocks, each with poisoned shared memory, its threads one after the other within a phase. */
#define BLOCK_RUNNER(name, arguments, phases)                                                      \
    static void run_##name(const void *args, int64_t threads, bool reverse)                        \
    {                                                                                              \
        const int64_t blocks = (threads + TN_GPU_BLOCK - 1) / TN_GPU_BLOCK;                        \
        _Pragma("omp parallel for schedule(static) if (blocks > 16)") for (int64_t b = 0;          \
                                                                           b < blocks; b++)        \
        {                                                                                          \
            tn_tile_shared shared;                                                                 \
            memset(&shared, 0xff, sizeof(shared));                                                 \
            for (int phase = 0; phase < phases; phase++)                                           \
                for (int t = 0; t < TN_GPU_BLOCK; t++)                                             \
                    tn_##name##_phase((const tn_##arguments##_args *)args, &shared,                \
                                      reverse ? blocks - 1 - b : b,                                \
                                      reverse ? TN_GPU_BLOCK - 1 - t : t, phase);                  \
        }                                                                                          \
    }
TN_GPU_BLOCK_KERNELS(BLOCK_RUNNER)

#define ENTRY(name, arguments) run_##name,
#define BLOCK_ENTRY(name, arguments, phases) run_##name,
static runner *const runners[TN_N_GPU_KERNELS] = {TN_GPU_KERNELS(ENTRY)
                                                      TN_GPU_BLOCK_KERNELS(BLOCK_ENTRY)};

#define SIZE(name, arguments) sizeof(tn_##arguments##_args),
#define BLOCK_SIZE(name, arguments, phases) sizeof(tn_##arguments##_args),
static const size_t sizes[TN_N_GPU_KERNELS] = {TN_GPU_KERNELS(SIZE)
                                                   TN_GPU_BLOCK_KERNELS(BLOCK_SIZE)};

tn_status tn_gpu_launch(tn_gpu *gpu, tn_gpu_kernel kernel, const void *args, int64_t threads,
                        tn_error *error)
{
    if (threads <= 0)
        return TN_OK;
    if (tn_gpu_fault())
        return failed("a launch", error);
    if (gpu->recording) {
        recorded *call = record(gpu, LAUNCH);
        if (sizes[kernel] > ARGUMENT_BYTES)
            abort();
        call->kernel = kernel;
        call->threads = threads;
        memcpy(call->args, args, sizes[kernel]);
        return TN_OK;
    }
    enter(gpu);
    runners[kernel](args, threads, gpu->reverse);
    leave(gpu);
    return TN_OK;
}

static bool prepared(const tn_gpu *gpu, const tn_gpu_product *p)
{
    for (size_t i = 0; i < gpu->n_products; i++) {
        const tn_gpu_product *q = &gpu->products[i];
        if (p->trans_a == q->trans_a && p->trans_b == q->trans_b && p->precision == q->precision &&
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

static float element(const void *matrix, int64_t i, tn_precision precision)
{
    if (precision == TN_PRECISION_TF32) { /* 10 of 23 bits, to nearest */
        float full = ((const float *)matrix)[i];
        uint32_t whole;
        memcpy(&whole, &full, sizeof(whole));
        whole = (whole + 0x1000u) & ~0x1fffu;
        memcpy(&full, &whole, sizeof(full));
        return full;
    }
    if (precision != TN_PRECISION_BF16)
        return ((const float *)matrix)[i];
    return tn_bfloat16_to_float(((const tn_bf16 *)matrix)[i]);
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
            double x = (double)element(a, ai, p->precision);
            for (int64_t t = 0; t < n; t++) {
                int64_t bi = p->trans_b ? (j + t) * p->ldb + k : k * p->ldb + j + t;
                sum[t] += x * (double)element(b, batch * p->stride_b + bi, p->precision);
            }
        }
        for (int64_t t = 0; t < n; t++) {
            float *to = &c[batch * p->stride_c + row * p->ldc + j + t];
            *to = alpha * (float)sum[t] + (beta != 0.0f ? beta * *to : 0.0f);
        }
    }
}

static bool is_aligned(const void *at, int64_t ld, int64_t stride, bool bf16)
{
    return (uintptr_t)at % tn_gpu_operand_alignment(ld, stride, bf16) == 0;
}

/* On a GPU a fault, and only by those algorithms that need what they were promised. */
static tn_status check_aligned(const tn_gpu_product *p, const void *a, const void *b,
                               const float *c, tn_error *error)
{
    const char *which = !is_aligned(a, p->lda, p->stride_a, tn_gpu_is_bf16(p))   ? "a"
                        : !is_aligned(b, p->ldb, p->stride_b, tn_gpu_is_bf16(p)) ? "b"
                        : !is_aligned(c, p->ldc, p->stride_c, false)             ? "c"
                                                                                 : NULL;
    if (!which)
        return TN_OK;
    return tn_fail(error, TN_ERROR_DEVICE,
                   "CUDA: misaligned address: %s of a product of %lld x %lld x %lld (batch %lld)",
                   which, (long long)p->m, (long long)p->n, (long long)p->k, (long long)p->batch);
}

tn_status tn_gpu_multiply(tn_gpu *gpu, const tn_gpu_product *product, float alpha, const void *a,
                          const void *b, float beta, float *c, tn_error *error)
{
    if (tn_gpu_fault())
        return tn_fail(error, TN_ERROR_DEVICE, "cuBLASLt: a matrix product failed");
    if (!prepared(gpu, product))
        return tn_fail(error, TN_ERROR_USAGE, "a matrix product was not prepared");
    tn_status status = check_aligned(product, a, b, c, error);
    if (status != TN_OK)
        return status;
    if (gpu->recording) {
        recorded *call = record(gpu, MULTIPLY);
        call->product = *product;
        call->alpha = alpha;
        call->beta = beta;
        call->a = a;
        call->b = b;
        call->c = c;
        return TN_OK;
    }
    enter(gpu);
    int64_t rows = product->batch * product->m;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < rows; r++)
        multiply_row(product, alpha, a, b, beta, c, r / product->m, r % product->m);
    leave(gpu);
    return TN_OK;
}

/* --- the library's convolutions, with TERNION_EMULATION=cudnn -------------------------------- */

struct tn_gpu_convolution {
    tn_conv_task task;
    tn_conv_pass pass;
    tn_precision precision;
};

tn_gpu_convolution *tn_gpu_convolution_create(tn_gpu *gpu, const tn_conv_task *task,
                                              tn_conv_pass pass, tn_precision precision)
{
    const char *mode = getenv("TERNION_EMULATION");
    (void)gpu;
    if (!mode || strcmp(mode, "cudnn") != 0 || task->spatial != 2)
        return NULL;
    tn_gpu_convolution *c = tn_alloc_zero(1, sizeof(*c));
    if (c)
        *c = (tn_gpu_convolution){*task, pass, precision};
    return c;
}

void tn_gpu_convolution_destroy(tn_gpu_convolution *convolution)
{
    tn_free(convolution);
}

size_t tn_gpu_convolution_workspace(const tn_gpu_convolution *convolution)
{
    (void)convolution;
    return 1000;
}

static void store(void *to, int64_t i, tn_precision precision, double sum)
{
    tn_store_operand(to, i, precision == TN_PRECISION_BF16, (float)sum);
}

/* Adds x w, dy w or x dy of one output pixel and kernel cell to `sums`, which has the layout of
 * what is computed. */
static void add_cell(const tn_gpu_convolution *c, const void *x, const void *w, const void *y,
                     double *sums, int64_t out, int64_t in, int64_t cell)
{
    const tn_conv_task *t = &c->task;
    int64_t per = t->in_channels / t->group, filters = t->out_channels / t->group;
    int64_t cells = t->kernel[0] * t->kernel[1];
    for (int64_t o = 0; o < t->out_channels; o++)
        for (int64_t i = 0; i < per; i++) {
            int64_t xi = in * t->in_channels + o / filters * per + i;
            int64_t wi = (o * cells + cell) * per + i, yi = out * t->out_channels + o;
            if (c->pass == TN_CONV_FORWARD)
                sums[yi] +=
                    (double)element(x, xi, c->precision) * (double)element(w, wi, c->precision);
            else if (c->pass == TN_CONV_DATA)
                sums[xi] +=
                    (double)element(y, yi, c->precision) * (double)element(w, wi, c->precision);
            else
                sums[wi] +=
                    (double)element(x, xi, c->precision) * (double)element(y, yi, c->precision);
        }
}

static void convolve(const tn_gpu_convolution *c, const void *x, const void *w, const void *y,
                     double *sums)
{
    const tn_conv_task *t = &c->task;
    for (int64_t n = 0; n < t->batch; n++)
        for (int64_t p = 0; p < t->out[0] * t->out[1]; p++)
            for (int64_t cell = 0; cell < t->kernel[0] * t->kernel[1]; cell++) {
                int64_t r = p / t->out[1] * t->stride[0] - t->pad_begin[0] +
                            cell / t->kernel[1] * t->dilation[0];
                int64_t s = p % t->out[1] * t->stride[1] - t->pad_begin[1] +
                            cell % t->kernel[1] * t->dilation[1];
                if (r >= 0 && r < t->in[0] && s >= 0 && s < t->in[1])
                    add_cell(c, x, w, y, sums, n * t->out[0] * t->out[1] + p,
                             (n * t->in[0] + r) * t->in[1] + s, cell);
            }
}

tn_status tn_gpu_convolve(tn_gpu *gpu, const tn_gpu_convolution *c, const void *x, const void *w,
                          const void *y, void *workspace, tn_error *error)
{
    const tn_conv_task *t = &c->task;
    int64_t counts[3] = {t->batch * t->out_channels * t->out[0] * t->out[1],
                         t->batch * t->in_channels * t->in[0] * t->in[1],
                         t->out_channels * (t->in_channels / t->group) * t->kernel[0] *
                             t->kernel[1]};
    void *to = (void *)(uintptr_t)(c->pass == TN_CONV_FORWARD ? y
                                   : c->pass == TN_CONV_DATA  ? x
                                                              : w);
    (void)workspace;
    if (tn_gpu_fault())
        return tn_fail(error, TN_ERROR_DEVICE, "cuDNN: a convolution failed");
    if (gpu->recording)
        return not_recorded("an emulated convolution", error);
    double *sums = tn_alloc_zero((size_t)counts[c->pass], sizeof(*sums));
    if (!sums)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    enter(gpu);
    convolve(c, x, w, y, sums);
    for (int64_t i = 0; i < counts[c->pass]; i++)
        store(to, i, c->precision, sums[i]);
    leave(gpu);
    tn_free(sums);
    return TN_OK;
}

/* --- recordings ------------------------------------------------------------------------------ */

tn_status tn_gpu_record_begin(tn_gpu *gpu, tn_error *error)
{
    if (tn_gpu_fault() || gpu->recording)
        return failed("recording a step", error);
    gpu->recording = tn_alloc_zero(1, sizeof(*gpu->recording));
    return gpu->recording ? TN_OK : tn_fail(error, TN_ERROR_LIMIT, "out of memory");
}

tn_status tn_gpu_record_end(tn_gpu *gpu, tn_recording **recording, tn_error *error)
{
    tn_recording *made = gpu->recording;
    gpu->recording = NULL;
    if (recording && !tn_gpu_fault()) {
        *recording = made;
        return TN_OK;
    }
    tn_gpu_forget(made);
    return recording ? failed("building a graph", error) : TN_OK;
}

tn_status tn_gpu_replay(tn_gpu *gpu, const tn_recording *recording, tn_error *error)
{
    tn_status status = tn_gpu_fault() ? failed("a graph's launch", error) : TN_OK;
    enter(gpu);
    for (size_t i = 0; i < recording->n && status == TN_OK; i++) {
        const recorded *call = &recording->calls[i];
        if (call->work == LAUNCH)
            status = tn_gpu_launch(gpu, call->kernel, call->args, call->threads, error);
        else if (call->work == MULTIPLY)
            status = tn_gpu_multiply(gpu, &call->product, call->alpha, call->a, call->b, call->beta,
                                     call->c, error);
        else if (call->work == COPY)
            status = tn_gpu_copy(gpu, call->dst, call->src, call->bytes, TN_GPU_WITHIN, error);
        else
            status = tn_gpu_zero(gpu, call->dst, call->bytes, error);
    }
    leave(gpu);
    return status;
}

void tn_gpu_forget(tn_recording *recording)
{
    if (!recording)
        return;
    tn_free(recording->calls);
    tn_free(recording);
}
