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

static bool cpu_supports(tn_device *device, const tn_task *task, char *why, size_t why_size)
{
    const char *reason;
    if ((unsigned)task->verb >= TN_N_VERBS || !prepares[task->verb])
        reason = "the CPU device does not have it";
    else if (task->verb == TN_VERB_CONV && !tn_dnnl_has_function(task->conv.function))
        reason = "oneDNN does not fuse this function";
    else if (task->verb == TN_VERB_BATCH_NORM && task->batch_norm.n_parts &&
             (task->backward || task->batch_norm.residual))
        reason = "of several sources it has no gradient and no residual";
    else
        reason = tn_task_refusal(device, task);
    if (reason && why)
        snprintf(why, why_size, "%s: %s", tn_verb_name(task->verb), reason);
    return reason == NULL;
}

static tn_status cpu_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                             tn_error *error)
{
    char why[160];
    if (!cpu_supports(device, task, why, sizeof(why)))
        return tn_fail(error, TN_ERROR_USAGE, "%s", why);
    return prepares[task->verb](device, task, kernel, error);
}

static const tn_device_class cpu_class = {
    cpu_destroy,  cpu_alloc,   cpu_release, cpu_copy,   cpu_copy,   cpu_copy,
    cpu_zero,     cpu_add,     cpu_scale,   cpu_import, cpu_export, cpu_synchronize,
    cpu_supports, cpu_prepare, NULL,        NULL,       NULL,       NULL,
    NULL};

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
    cpu->base.host_memory = true;
    snprintf(cpu->base.id, sizeof(cpu->base.id), "cpu");
    snprintf(cpu->base.summary, sizeof(cpu->base.summary), "%s, %d threads, oneDNN %s", processor,
             tn_threads_get(), tn_dnnl_version());
    *device = &cpu->base;
    return TN_OK;
}

tn_status tn_cpu_kernel_create(tn_device *device, const tn_task *task, const tn_kernel_class *type,
                               const char *name, size_t bytes, tn_kernel **kernel, tn_error *error)
{
    tn_cpu_kernel *k = tn_alloc_zero(1, bytes);
    if (!k)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    k->base.device = device;
    k->base.type = type;
    k->base.name = name;
    k->task = *task;
    *kernel = &k->base;
    return TN_OK;
}

void tn_cpu_kernel_destroy(tn_kernel *kernel)
{
    tn_free(kernel);
}
