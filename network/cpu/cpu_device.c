#include "network/cpu/cpu.h"

#include "core/memory.h"
#include "core/threads.h"

#include <stdio.h>
#include <string.h>

static void cpu_destroy(tn_device *device)
{
    tn_cpu_device *cpu = (tn_cpu_device *)device;
    tn_dnnl_destroy(cpu->dnnl);
    tn_free(cpu);
}

static void *cpu_alloc(tn_device *device, size_t bytes)
{
    (void)device;
    return tn_alloc(bytes);
}

static void cpu_release(tn_device *device, void *memory)
{
    (void)device;
    tn_free(memory);
}

static tn_status cpu_copy(tn_device *device, void *dst, const void *src, size_t bytes,
                          tn_error *error)
{
    (void)device;
    (void)error;
    memcpy(dst, src, bytes);
    return TN_OK;
}

static tn_status cpu_zero(tn_device *device, void *dst, size_t bytes, tn_error *error)
{
    (void)device;
    (void)error;
    memset(dst, 0, bytes);
    return TN_OK;
}

static tn_status cpu_add(tn_device *device, float *dst, const float *src, int64_t count,
                         tn_error *error)
{
    (void)device;
    (void)error;
#pragma omp parallel for simd schedule(static) if (count > TN_CPU_GRAIN)
    for (int64_t i = 0; i < count; i++)
        dst[i] += src[i];
    return TN_OK;
}

static tn_status cpu_scale(tn_device *device, float *dst, float alpha, int64_t count,
                           tn_error *error)
{
    (void)device;
    (void)error;
#pragma omp parallel for simd schedule(static) if (count > TN_CPU_GRAIN)
    for (int64_t i = 0; i < count; i++)
        dst[i] *= alpha;
    return TN_OK;
}

static tn_status cpu_import(tn_device *device, float *dst, const float *src, int64_t n, int64_t c,
                            int64_t s, tn_error *error)
{
    (void)device;
    (void)error;
    tn_cpu_transpose(src, dst, n, c, s);
    return TN_OK;
}

static tn_status cpu_export(tn_device *device, float *dst, const float *src, int64_t n, int64_t c,
                            int64_t s, tn_error *error)
{
    (void)device;
    (void)error;
    tn_cpu_transpose(src, dst, n, s, c);
    return TN_OK;
}

static tn_status cpu_synchronize(tn_device *device, tn_error *error)
{
    (void)device;
    (void)error;
    return TN_OK;
}

static tn_cpu_prepare *const prepares[TN_N_VERBS] = {
    [TN_VERB_CONV] = tn_cpu_conv_prepare,
    [TN_VERB_GEMM] = tn_cpu_gemm_prepare,
    [TN_VERB_BATCH_NORM] = tn_cpu_batch_norm_prepare,
    [TN_VERB_POOL] = tn_cpu_pool_prepare,
    [TN_VERB_UNARY] = tn_cpu_unary_prepare,
    [TN_VERB_BINARY] = tn_cpu_binary_prepare,
    [TN_VERB_CONCAT] = tn_cpu_concat_prepare,
    [TN_VERB_SLICE] = tn_cpu_slice_prepare,
    [TN_VERB_PAD] = tn_cpu_pad_prepare,
    [TN_VERB_TRANSPOSE] = tn_cpu_transpose_prepare,
    [TN_VERB_REDUCE] = tn_cpu_reduce_prepare,
    [TN_VERB_SOFTMAX] = tn_cpu_softmax_prepare,
    [TN_VERB_LRN] = tn_cpu_lrn_prepare,
    [TN_VERB_QUANTIZE] = tn_cpu_quantize_prepare,
    [TN_VERB_DEQUANTIZE] = tn_cpu_quantize_prepare,
    [TN_VERB_FAKE_QUANTIZE] = tn_cpu_fake_quantize_prepare,
    [TN_VERB_DROPOUT] = tn_cpu_dropout_prepare,
    [TN_VERB_LOSS] = tn_cpu_loss_prepare,
};

/* Sources of the verbs that take bf16. */
static int source_count(const tn_task *task)
{
    switch (task->verb) {
    case TN_VERB_CONV:
        return 1 + task->conv.residual;
    case TN_VERB_BATCH_NORM:
        return task->batch_norm.n_parts ? task->batch_norm.n_parts : 1 + task->batch_norm.residual;
    case TN_VERB_BINARY:
        return 2;
    case TN_VERB_CONCAT:
        return task->concat.n;
    default:
        return 1;
    }
}

/* Convolutions and reductions go between the types; all operands of others are of one type. */
static const char *storage_refusal(const tn_task *task)
{
    const int n = source_count(task);
    const uint64_t all = n < 64 ? ((uint64_t)1 << n) - 1 : UINT64_MAX;
    if (task->verb == TN_VERB_REDUCE || (!task->bf16_src && !task->bf16_dst))
        return NULL;
    if (task->verb == TN_VERB_CONV)
        return task->conv.residual && (task->bf16_src >> 1 & 1) != task->bf16_dst
                   ? "its residual is stored as the result is"
                   : NULL;
    if (n > 64 || task->bf16_src != all || !task->bf16_dst)
        return "its operands are all stored as bf16 or none is";
    if (task->verb == TN_VERB_BATCH_NORM && task->backward && task->batch_norm.residual &&
        task->batch_norm.function == TN_FUNCTION_CLIP)
        return "its gate would be told by a result rounded to the bound";
    if (task->verb == TN_VERB_BINARY)
        return tn_cpu_binary_refusal(&task->binary);
    return task->verb == TN_VERB_PAD && task->pad.mode != TN_PAD_CONSTANT
               ? "only constant padding takes bf16"
               : NULL;
}

/* BN of several sources. Its gradient goes through them row by row: as fast as a copy of them, and
 * without its memory, in fp32 and where they are not narrow. */
static const char *batch_norm_refusal(const tn_task *task)
{
    enum { LEAST_WIDTH = 24 }; /* channels, on average */
    const tn_batch_norm_task *t = &task->batch_norm;
    if (task->verb != TN_VERB_BATCH_NORM)
        return NULL;
    if (t->codes)
        return "it makes no codes";
    if (t->n_parts == 0)
        return NULL;
    if (t->residual)
        return "of several sources it has no residual";
    if (task->backward && task->precision == TN_PRECISION_BF16)
        return "of several sources it has no gradient in bf16";
    return task->backward && t->channels < (int64_t)LEAST_WIDTH * t->n_parts
               ? "of several narrow sources it has no gradient"
               : NULL;
}

/* All but what oneDNN has to be asked for. */
static const char *refusal(tn_device *device, const tn_task *task)
{
    if ((unsigned)task->verb >= TN_N_VERBS || !prepares[task->verb])
        return "the CPU device does not have it";
    if (task->verb == TN_VERB_CONV && !tn_dnnl_has_function(task->conv.function))
        return "oneDNN does not fuse this function";
    const char *reason = batch_norm_refusal(task);
    if (!reason)
        reason = tn_task_refusal(device, task);
    return reason ? reason : storage_refusal(task);
}

static bool cpu_supports(tn_device *device, const tn_task *task, char *why, size_t why_size)
{
    const char *reason = refusal(device, task);
    bool doubtful = task->bf16_src || task->bf16_dst || task->conv.residual;
    if (!reason && task->verb == TN_VERB_CONV && doubtful) {
        tn_kernel *kernel =
            NULL; /* as oneDNN remembers its primitives, preparing it is cheap then */
        if (tn_cpu_conv_prepare(device, task, &kernel, NULL) == TN_ERROR_DEVICE)
            reason = "oneDNN does not have it so";
        tn_kernel_destroy(kernel);
    }
    if (reason && why)
        snprintf(why, why_size, "%s: %s", tn_verb_name(task->verb), reason);
    return reason == NULL;
}

static tn_status cpu_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                             tn_error *error)
{
    const char *reason = refusal(device, task);
    if (reason)
        return tn_fail(error, TN_ERROR_USAGE, "%s: %s", tn_verb_name(task->verb), reason);
    return prepares[task->verb](device, task, kernel, error);
}

static const tn_device_class cpu_class = {cpu_destroy,  cpu_alloc,   cpu_release, cpu_copy,
                                          cpu_copy,     cpu_copy,    cpu_zero,    cpu_add,
                                          cpu_scale,    cpu_import,  cpu_export,  cpu_synchronize,
                                          cpu_supports, cpu_prepare, NULL,        NULL,
                                          NULL,         NULL,        NULL};

/* The processor's name ("CPU" when unknown) and whether it multiplies bf16, in tiles (AMX) or at
 * least in vectors: those made a training step 1.5 times as fast as fp32 on Zen 4, but slower on
 * Intel's first processors that had them. */
static void read_processor(char *name, size_t size, bool *tiles, bool *vectors)
{
    char line[8192];
    bool flags = false;
    *tiles = *vectors = false;
    snprintf(name, size, "CPU");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file)
        return;
    while (!flags && fgets(line, sizeof(line), file)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && colon && colon[1])
            snprintf(name, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        flags = strncmp(line, "flags", 5) == 0;
        *tiles = flags && strstr(line, " amx_bf16") != NULL;
        *vectors = flags && strstr(line, " avx512_bf16") != NULL;
    }
    fclose(file);
}

tn_status tn_device_create_cpu(tn_device **device, tn_error *error)
{
    char processor[96];
    tn_cpu_device *cpu = tn_alloc_zero(1, sizeof(*cpu));
    if (!cpu)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    tn_status status = tn_dnnl_create(&cpu->dnnl, error);
    if (status != TN_OK) {
        tn_free(cpu);
        return status;
    }
    read_processor(processor, sizeof(processor), &cpu->base.bf16, &cpu->base.bf16_runs);
    cpu->base.type = &cpu_class;
    cpu->base.bf16_stores = 1u << TN_VERB_CONV | 1u << TN_VERB_BATCH_NORM | 1u << TN_VERB_POOL |
                            1u << TN_VERB_UNARY | 1u << TN_VERB_BINARY | 1u << TN_VERB_CONCAT |
                            1u << TN_VERB_SLICE | 1u << TN_VERB_PAD | 1u << TN_VERB_REDUCE;
    cpu->base.host_memory = true;
    snprintf(cpu->base.id, sizeof(cpu->base.id), "cpu");
    snprintf(cpu->base.arithmetic, sizeof(cpu->base.arithmetic), "%s, oneDNN %s", processor,
             tn_dnnl_version());
    snprintf(cpu->base.summary, sizeof(cpu->base.summary), "%s, %d threads", cpu->base.arithmetic,
             tn_threads_get());
    *device = &cpu->base;
    return TN_OK;
}
