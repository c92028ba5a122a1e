#include "tests/bench/noise.h"

#include "core/memory.h"
#include "core/threads.h"
#include "onnx_io/zoo/zoo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 100 };

double noise_milliseconds(void)
{
    struct timespec t;
    clock_gettime(getenv("TERNION_CPU_TIME") ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double noise_median(const double *values, int n)
{
    double sorted[MOST];
    memcpy(sorted, values, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_size);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static tn_status load(const char *name, tn_model **model, tn_error *error)
{
    const tn_zoo_options zoo = {.seed = 1};
    if (strstr(name, ".onnx"))
        return tn_model_read(name, NULL, model, error);
    return tn_zoo_create(name, &zoo, model, error);
}

static tn_status make_samples(noise *n, tn_error *error)
{
    tn_graph *graph = NULL;
    const tn_graph_options options = {.batch = n->batch};
    tn_status status = tn_graph_create(n->model, &options, &graph, error);
    if (status != TN_OK)
        return status;
    size_t count = 1;
    for (int i = 0; i < graph->inputs[0]->rank; i++)
        count *= (size_t)graph->inputs[0]->dims[i];
    tn_graph_destroy(graph);
    float *values = tn_alloc(count * sizeof *values);
    int32_t *labels = tn_alloc((size_t)n->batch * sizeof *labels);
    n->samples = (tn_sample_batch){.nhwc = values, .labels = labels, .count = n->batch};
    if (!values || !labels)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    unsigned state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = (float)(state >> 8) / (float)(1 << 24) - 0.5f;
    }
    for (int i = 0; i < n->batch; i++)
        labels[i] = (int32_t)(i % 10);
    return TN_OK;
}

tn_status noise_open(const char *name, int batch, const char *kind, noise *n, tn_error *error)
{
    const char *threads = getenv("OMP_NUM_THREADS");
    *n = (noise){.batch = batch};
    n->precision = strcmp(kind, "bf16") ? TN_PRECISION_FP32 : TN_PRECISION_BF16;
    tn_threads_set(threads ? atoi(threads) : 0);
    tn_status status = load(name, &n->model, error);
    if (status == TN_OK)
        status = tn_device_create_cpu(&n->device, error);
    return status == TN_OK ? make_samples(n, error) : status;
}

void noise_close(noise *n)
{
    tn_free((void *)(uintptr_t)n->samples.nhwc);
    tn_free((void *)(uintptr_t)n->samples.labels);
    tn_device_destroy(n->device);
    tn_model_destroy(n->model);
}

tn_status noise_student_create(const noise *n, const char *scheme, noise_student *s,
                               tn_error *error)
{
    snprintf(s->text, sizeof s->text, "%s", scheme);
    memcpy(s->parts, s->text, sizeof s->parts);
    char *rest = s->parts;
    const char *name = strsep(&rest, ","), *granularity = rest ? strsep(&rest, ",") : NULL;
    const tn_train_options options = {
        .policy = {.scheme = name, .granularity = granularity, .threshold = rest},
        .batch = n->batch,
        .device = n->device,
        .precision = n->precision};
    tn_status status = tn_train_resolve(&options, &s->options, error);
    return status == TN_OK ? tn_student_create(n->model, NULL, &s->options, &s->student, error)
                           : status;
}

tn_status noise_student_step(noise_student *s, const noise *n, tn_error *error)
{
    tn_loss_result loss = {0};
    double norm;
    tn_status status = tn_student_batch(&s->student, &n->samples, false, 1.0, &loss, error);
    if (status == TN_OK)
        status = tn_student_collect(&s->student, &norm, error);
    return status == TN_OK ? tn_student_update(&s->student, 0.01, norm, error) : status;
}
