#include "gpu/runtime.h"

#include "core/memory.h"
#include "gpu/blaslt.h"
#include "gpu/cudnn_plan.h"
#include "gpu/fault.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Uploads go through pinned memory, so that neither the host nor the stream waits for them: filled
 * front to back, segment by segment; a segment is used again once its copies are done. */
enum { SEGMENTS = 8, SEGMENT_BYTES = 2 << 20, UPLOAD_ALIGN = 64 };

typedef struct upload_ring {
    char *memory;
    cudaEvent_t done[SEGMENTS];
    int segment;
    size_t used; /* of the segment */
} upload_ring;

struct tn_gpu {
    int index;
    bool recording;
    upload_ring ring;
    cudaStream_t stream;
    tn_blaslt *blaslt;
    tn_cudnn *cudnn; /* NULL: it is not there */
    char name[64];
    int processors, major;
    size_t bytes;
};

extern const void *const tn_gpu_kernel_addresses[TN_N_GPU_KERNELS];

static tn_status check(cudaError_t code, const char *what, tn_error *error)
{
    if (tn_gpu_fault())
        code = cudaErrorUnknown;
    if (code == cudaSuccess)
        return TN_OK;
    (void)cudaGetLastError(); /* so that the next call does not report it again */
    return tn_fail(error, TN_ERROR_DEVICE, "CUDA: %s failed: %s", what, cudaGetErrorString(code));
}

/* One line on why there is no such GPU. */
static tn_status find_gpu(int index, tn_error *error)
{
    int count = 0;
    cudaError_t code = cudaGetDeviceCount(&count);
    if (code == cudaErrorInsufficientDriver || code == cudaErrorStubLibrary)
        return tn_fail(error, TN_ERROR_DEVICE,
                       "no NVIDIA driver for CUDA %d.%d is installed: use --device cpu",
                       CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    if (code == cudaErrorNoDevice || (code == cudaSuccess && count == 0))
        return tn_fail(error, TN_ERROR_DEVICE, "there is no NVIDIA GPU: use --device cpu");
    if (code != cudaSuccess)
        return tn_fail(error, TN_ERROR_DEVICE, "CUDA does not start: %s: use --device cpu",
                       cudaGetErrorString(code));
    if (index < 0 || index >= count)
        return tn_fail(error, TN_ERROR_DEVICE, "there is no GPU %d: this machine has %d (0 to %d)",
                       index, count, count - 1);
    return TN_OK;
}

static tn_status start(tn_gpu *gpu, tn_error *error)
{
    struct cudaDeviceProp properties;
    tn_status status = check(cudaSetDevice(gpu->index), "choosing the GPU", error);
    if (status == TN_OK)
        status =
            check(cudaGetDeviceProperties(&properties, gpu->index), "looking at the GPU", error);
    if (status != TN_OK)
        return status;
    snprintf(gpu->name, sizeof(gpu->name), "%.63s", properties.name);
    gpu->processors = properties.multiProcessorCount;
    gpu->major = properties.major;
    gpu->bytes = properties.totalGlobalMem;
    if (gpu->major < 8)
        return tn_fail(error, TN_ERROR_DEVICE,
                       "GPU %d (%s) has compute capability %d.%d: 8.0 or newer is needed",
                       gpu->index, gpu->name, properties.major, properties.minor);
    status = check(cudaStreamCreateWithFlags(&gpu->stream, cudaStreamNonBlocking),
                   "creating a stream", error);
    if (status == TN_OK)
        status = tn_blaslt_create(&gpu->blaslt, error);
    if (status == TN_OK)
        status = check(cudaMallocHost((void **)&gpu->ring.memory, (size_t)SEGMENTS * SEGMENT_BYTES),
                       "reserving host memory", error);
    for (int i = 0; i < SEGMENTS && status == TN_OK; i++)
        status = check(cudaEventCreateWithFlags(&gpu->ring.done[i], cudaEventDisableTiming),
                       "creating an event", error);
    const char *wish = getenv("TERNION_CUDNN");
    if (status == TN_OK && !(wish && strcmp(wish, "off") == 0)) {
        char name[128]; /* a part of a GPU is another one */
        snprintf(name, sizeof(name), "%s, %d SMs, %d.%d", gpu->name, gpu->processors,
                 properties.major, properties.minor);
        (void)!tn_cudnn_open(NULL, name, &gpu->cudnn, NULL); /* convolution by columns without it */
    }
    return status;
}

tn_gpu_convolution *tn_gpu_convolution_create(tn_gpu *gpu, const tn_conv_task *task,
                                              tn_conv_pass pass, tn_precision precision)
{
    tn_gpu_convolution *plan = NULL;
    if (!gpu->cudnn || tn_cudnn_plan(gpu->cudnn, task, pass, precision, TN_CONVOLUTION_WORKSPACE,
                                     &plan, NULL) != TN_OK)
        return NULL;
    return plan;
}

void tn_gpu_convolution_destroy(tn_gpu_convolution *convolution)
{
    tn_cudnn_plan_destroy(convolution);
}

size_t tn_gpu_convolution_workspace(const tn_gpu_convolution *convolution)
{
    return tn_cudnn_plan_workspace(convolution);
}

tn_status tn_gpu_convolve(tn_gpu *gpu, const tn_gpu_convolution *convolution, const void *x,
                          const void *w, const void *y, void *workspace, tn_error *error)
{
    if (tn_gpu_fault())
        return tn_fail(error, TN_ERROR_DEVICE, "cuDNN: a convolution failed");
    return tn_cudnn_run(convolution, gpu->stream, x, w, y, workspace, error);
}

tn_status tn_gpu_open(int index, tn_gpu **gpu, tn_error *error)
{
    tn_status status = find_gpu(index, error);
    if (status != TN_OK)
        return status;
    tn_gpu *g = tn_alloc_zero(1, sizeof(*g));
    if (!g)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    g->index = index;
    status = start(g, error);
    if (status == TN_OK)
        *gpu = g;
    else
        tn_gpu_close(g);
    return status;
}

void tn_gpu_close(tn_gpu *gpu)
{
    if (!gpu)
        return;
    if (gpu->stream) {
        (void)cudaStreamSynchronize(gpu->stream);
        (void)cudaStreamDestroy(gpu->stream);
    }
    for (int i = 0; i < SEGMENTS; i++)
        if (gpu->ring.done[i])
            (void)cudaEventDestroy(gpu->ring.done[i]);
    (void)cudaFreeHost(gpu->ring.memory);
    tn_blaslt_destroy(gpu->blaslt);
    tn_cudnn_close(gpu->cudnn);
    tn_free(gpu);
}

void tn_gpu_describe(const tn_gpu *gpu, char *text, size_t size)
{
    size_t version = tn_blaslt_version(gpu->blaslt);
    snprintf(text, size, "%s, %d SMs, %zu GiB, cuBLASLt %zu.%zu", gpu->name, gpu->processors,
             gpu->bytes >> 30, version / 10000, version % 10000 / 100);
    size_t used = strlen(text), cudnn = gpu->cudnn ? tn_cudnn_version(gpu->cudnn) : 0;
    if (cudnn > 0)
        snprintf(text + used, size - used, ", cuDNN %zu.%zu", cudnn / 10000, cudnn % 10000 / 100);
}

bool tn_gpu_has_bf16(const tn_gpu *gpu)
{
    return gpu->major >= 8;
}

size_t tn_gpu_available(tn_gpu *gpu)
{
    size_t available = 0, total = 0;
    (void)gpu;
    if (cudaMemGetInfo(&available, &total) == cudaSuccess)
        return available;
    (void)cudaGetLastError();
    return 0;
}

void *tn_gpu_stream(const tn_gpu *gpu)
{
    return gpu->stream;
}

void *tn_gpu_alloc(tn_gpu *gpu, size_t bytes)
{
    void *memory = NULL;
    (void)gpu;
    if (tn_gpu_fault() || cudaMalloc(&memory, bytes ? bytes : 1) != cudaSuccess) {
        (void)cudaGetLastError();
        return NULL;
    }
    return memory;
}

void tn_gpu_free(tn_gpu *gpu, void *memory)
{
    if (memory)
        (void)cudaStreamSynchronize(gpu->stream);
    (void)cudaFree(memory);
}

/* Closes the segment and opens the next, whose copies of the last time round are waited for. An
 * event that was never recorded counts as done. */
static tn_status next_segment(tn_gpu *gpu, tn_error *error)
{
    upload_ring *ring = &gpu->ring;
    tn_status status =
        check(cudaEventRecord(ring->done[ring->segment], gpu->stream), "an event", error);
    ring->segment = (ring->segment + 1) % SEGMENTS;
    ring->used = 0;
    return status == TN_OK
               ? check(cudaEventSynchronize(ring->done[ring->segment]), "a copy to the GPU", error)
               : status;
}

static tn_status upload(tn_gpu *gpu, char *dst, const char *src, size_t bytes, tn_error *error)
{
    upload_ring *ring = &gpu->ring;
    tn_status status = TN_OK;
    if (gpu->recording)
        return tn_fail(error, TN_ERROR_DEVICE,
                       "CUDA: a copy from the host is not possible while a step is recorded");
    while (bytes > 0 && status == TN_OK) {
        if (ring->used == SEGMENT_BYTES)
            status = next_segment(gpu, error);
        if (status != TN_OK)
            return status;
        size_t room = SEGMENT_BYTES - ring->used, part = bytes < room ? bytes : room;
        char *from = ring->memory + (size_t)ring->segment * SEGMENT_BYTES + ring->used;
        memcpy(from, src, part);
        status = check(cudaMemcpyAsync(dst, from, part, cudaMemcpyHostToDevice, gpu->stream),
                       "a copy to the GPU", error);
        ring->used += (part + UPLOAD_ALIGN - 1) / UPLOAD_ALIGN * UPLOAD_ALIGN;
        dst += part;
        src += part;
        bytes -= part;
    }
    return status;
}

tn_status tn_gpu_copy(tn_gpu *gpu, void *dst, const void *src, size_t bytes,
                      tn_gpu_direction direction, tn_error *error)
{
    if (direction == TN_GPU_UPLOAD)
        return upload(gpu, dst, src, bytes, error);
    bool down = direction == TN_GPU_DOWNLOAD;
    tn_status status = check(
        cudaMemcpyAsync(dst, src, bytes, down ? cudaMemcpyDeviceToHost : cudaMemcpyDeviceToDevice,
                        gpu->stream),
        down ? "a copy from the GPU" : "a copy on the GPU", error);
    return status == TN_OK && down ? tn_gpu_wait(gpu, error) : status;
}

tn_status tn_gpu_zero(tn_gpu *gpu, void *dst, size_t bytes, tn_error *error)
{
    return check(cudaMemsetAsync(dst, 0, bytes, gpu->stream), "clearing memory", error);
}

tn_status tn_gpu_wait(tn_gpu *gpu, tn_error *error)
{
    tn_gpu_waited();
    return check(cudaStreamSynchronize(gpu->stream), "the queued work", error);
}

tn_status tn_gpu_launch(tn_gpu *gpu, tn_gpu_kernel kernel, const void *args, int64_t threads,
                        tn_error *error)
{
    if (threads <= 0)
        return TN_OK;
    int64_t blocks = (threads + TN_GPU_BLOCK - 1) / TN_GPU_BLOCK;
    if (blocks > INT32_MAX)
        return tn_fail(error, TN_ERROR_LIMIT, "a kernel of %lld threads is too large for a launch",
                       (long long)threads);
    dim3 grid = {(unsigned)blocks, 1, 1}, block = {TN_GPU_BLOCK, 1, 1};
    void *pointers[2] = {(void *)(uintptr_t)args, &threads};
    return check(
        cudaLaunchKernel(tn_gpu_kernel_addresses[kernel], grid, block, pointers, 0, gpu->stream),
        "a launch", error);
}

struct tn_recording {
    cudaGraphExec_t graph;
};

tn_status tn_gpu_record_begin(tn_gpu *gpu, tn_error *error)
{
    tn_status status = check(cudaStreamBeginCapture(gpu->stream, cudaStreamCaptureModeThreadLocal),
                             "recording a step", error);
    gpu->recording = status == TN_OK;
    return status;
}

tn_status tn_gpu_record_end(tn_gpu *gpu, tn_recording **recording, tn_error *error)
{
    cudaGraph_t graph = NULL;
    gpu->recording = false;
    cudaError_t code = cudaStreamEndCapture(gpu->stream, &graph);
    if (!recording) {
        (void)cudaGetLastError();
        if (graph)
            (void)cudaGraphDestroy(graph);
        return TN_OK;
    }
    tn_status status = check(code, "recording a step", error);
    if (status != TN_OK)
        return status;
    tn_recording *r = tn_alloc_zero(1, sizeof(*r));
    if (!r)
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    else
        status = check(cudaGraphInstantiate(&r->graph, graph, 0), "building a graph", error);
    (void)cudaGraphDestroy(graph);
    if (status == TN_OK)
        *recording = r;
    else
        tn_free(r);
    return status;
}

tn_status tn_gpu_replay(tn_gpu *gpu, const tn_recording *recording, tn_error *error)
{
    return check(cudaGraphLaunch(recording->graph, gpu->stream), "a graph's launch", error);
}

void tn_gpu_forget(tn_recording *recording)
{
    if (!recording)
        return;
    (void)cudaGraphExecDestroy(recording->graph);
    tn_free(recording);
}

tn_status tn_gpu_product_prepare(tn_gpu *gpu, const tn_gpu_product *product, tn_error *error)
{
    return tn_blaslt_prepare(gpu->blaslt, product, error);
}

tn_status tn_gpu_multiply(tn_gpu *gpu, const tn_gpu_product *product, float alpha, const void *a,
                          const void *b, float beta, float *c, tn_error *error)
{
    if (tn_gpu_fault())
        return tn_fail(error, TN_ERROR_DEVICE, "cuBLASLt: a matrix product failed");
    return tn_blaslt_multiply(gpu->blaslt, gpu->stream, product, alpha, a, b, beta, c, error);
}
