/* Time of training steps on noise, for training_speed.py and for the price of quantization:
 *
 *   training_speed MODEL|ARCHITECTURE BATCH PAIRS fp32|bf16 SCHEME...
 *
 * One student per scheme; steps of all are taken in turn, so that what else the machine does meets all alike. Per scheme: median
 * and best milliseconds of a step, and its ratio to the first scheme's as the median over the turns ("float" first gives the
 * price of quantization). Processor time with TERNION_CPU_TIME, else wall time. */
#include "core/memory.h"
#include "core/threads.h"
#include "finetune/student.h"
#include "onnx_io/zoo/zoo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 8, WARM = 2, MOST_TURNS = 100 };

typedef struct contender {
    tn_train_options options;
    tn_student student;
    double took[MOST_TURNS]; /* milliseconds */
} contender;

static double milliseconds(void)
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

static double median(const double *values, int n)
{
    double sorted[MOST_TURNS];
    memcpy(sorted, values, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, by_size);
    return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static tn_status step(contender *c, const tn_sample_batch *batch, tn_error *error)
{
    tn_loss_result loss = {0};
    double norm;
    tn_status status = tn_student_batch(&c->student, batch, false, 1.0, &loss, error);
    if (status == TN_OK)
        status = tn_student_collect(&c->student, &norm, error);
    if (status == TN_OK)
        tn_student_update(&c->student, 0.01, norm);
    return status;
}

static tn_status take_turns(contender *c, int n, int turns, const tn_sample_batch *batch,
                            tn_error *error)
{
    for (int turn = -WARM; turn < turns; turn++)
        for (int i = 0; i < n; i++) {
            double start = milliseconds();
            tn_status status = step(&c[i], batch, error);
            if (status != TN_OK)
                return status;
            if (turn >= 0)
                c[i].took[turn] = milliseconds() - start;
        }
    return TN_OK;
}

static void print(const contender *c, int n, int turns, int batch)
{
    for (int i = 0; i < n; i++) {
        double ratio[MOST_TURNS], best = c[i].took[0], middle = median(c[i].took, turns);
        for (int turn = 0; turn < turns; turn++) {
            ratio[turn] = c[i].took[turn] / c[0].took[turn];
            best = c[i].took[turn] < best ? c[i].took[turn] : best;
        }
        printf("%s: median %.2f ms, best %.2f ms, %.1f images/s, ratio %.4f\n",
               c[i].options.policy.scheme, middle, best, 1e3 * batch / best, median(ratio, turns));
    }
}

static tn_status load(const char *name, tn_model **model, tn_error *error)
{
    const tn_zoo_options zoo = {.seed = 1};
    if (strstr(name, ".onnx"))
        return tn_model_read(name, NULL, model, error);
    return tn_zoo_create(name, &zoo, model, error);
}

static tn_status noise(const contender *c, int batch, tn_sample_batch *samples, tn_error *error)
{
    const tn_value *input = c->student.graph->inputs[0];
    size_t n = 1;
    for (int i = 0; i < input->rank; i++)
        n *= (size_t)input->dims[i];
    float *values = tn_alloc(n * sizeof *values);
    int32_t *labels = tn_alloc((size_t)batch * sizeof *labels);
    if (!values || !labels)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    unsigned state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = (float)(state >> 8) / (float)(1 << 24) - 0.5f;
    }
    for (int i = 0; i < batch; i++)
        labels[i] = (int32_t)(i % c->student.classes);
    *samples = (tn_sample_batch){.nhwc = values, .labels = labels, .count = batch};
    return TN_OK;
}

int main(int argc, char **argv)
{
    tn_error error = {0};
    tn_model *model = NULL;
    tn_device *device = NULL;
    tn_sample_batch samples = {0};
    static contender all[MOST];
    if (argc < 6 || argc > 5 + MOST) {
        fprintf(stderr, "usage: training_speed MODEL|ARCHITECTURE BATCH PAIRS fp32|bf16 SCHEME...\n");
        return 2;
    }
    int batch = atoi(argv[2]), turns = atoi(argv[3]), n = argc - 5;
    turns = turns < 1 ? 1 : turns > MOST_TURNS ? MOST_TURNS : turns;
    const char *threads = getenv("OMP_NUM_THREADS");
    tn_threads_set(threads ? atoi(threads) : 0);
    tn_status status = load(argv[1], &model, &error);
    if (status == TN_OK)
        status = tn_device_create_cpu(&device, &error);
    for (int i = 0; status == TN_OK && i < n; i++) {
        const tn_train_options options = {
            .policy = {.scheme = argv[5 + i]},
            .batch = batch,
            .device = device,
            .precision = strcmp(argv[4], "bf16") ? TN_PRECISION_FP32 : TN_PRECISION_BF16};
        status = tn_train_resolve(&options, &all[i].options, &error);
        if (status == TN_OK)
            status = tn_student_create(model, NULL, &all[i].options, &all[i].student, &error);
    }
    if (status == TN_OK)
        status = noise(&all[0], batch, &samples, &error);
    if (status == TN_OK)
        status = take_turns(all, n, turns, &samples, &error);
    if (status == TN_OK)
        print(all, n, turns, batch);
    else
        fprintf(stderr, "training_speed: %s\n", error.message);
    for (int i = 0; i < n; i++)
        tn_student_done(&all[i].student);
    tn_free((void *)(uintptr_t)samples.nhwc);
    tn_free((void *)(uintptr_t)samples.labels);
    tn_device_destroy(device);
    tn_model_destroy(model);
    return status != TN_OK;
}
