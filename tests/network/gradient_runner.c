/* One training step for the Python oracles of this folder:
 *
 *   gradient_runner MODEL BATCH INPUT LABELS OUTPUT [MODE] [SMOOTHING] [THREADS] [REPEAT]
 *
 * INPUT: [BATCH, ...] floats, LABELS: BATCH int32 (raw files). MODE: training (default), inference,
 * keepall, nofusion,
 * bf16. OUTPUT gets a line "name count" and count floats for: "loss", "input", then
 * every trainable parameter's gradient and every running statistic. */
#include "core/memory.h"
#include "core/threads.h"
#include "network/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Processor time of forward, loss and backward: the best of n. */
static tn_status repeat(tn_plan *plan, const tn_loss_options *options, int n, tn_error *error)
{
    double best[3] = {1e9, 1e9, 1e9};
    for (int i = 0; i < n; i++) {
        double at[4] = {now(), 0, 0, 0};
        tn_status status = tn_plan_forward(plan, TN_RUN_TRAINING, 0, SIZE_MAX, error);
        at[1] = now();
        if (status == TN_OK)
            status = tn_plan_loss(plan, options, NULL, error);
        at[2] = now();
        if (status == TN_OK)
            status = tn_plan_backward(plan, 0, SIZE_MAX, false, error);
        at[3] = now();
        if (status != TN_OK)
            return status;
        for (int j = 0; j < 3; j++)
            best[j] = at[j + 1] - at[j] < best[j] ? at[j + 1] - at[j] : best[j];
    }
    printf("forward %.2f ms, loss %.2f ms, backward %.2f ms\n", best[0] * 1e3, best[1] * 1e3,
           best[2] * 1e3);
    return TN_OK;
}

static bool load(const char *path, void *data, size_t bytes)
{
    FILE *file = fopen(path, "rb");
    bool ok = file && fread(data, 1, bytes, file) == bytes;
    if (file)
        fclose(file);
    return ok;
}

static void put(FILE *file, const char *name, const float *data, int64_t count)
{
    fprintf(file, "%s %lld\n", name, (long long)count);
    fwrite(data, sizeof(float), (size_t)count, file);
}

static tn_status write_all(FILE *file, tn_plan *plan, float *memory, int64_t n_input,
                           const tn_loss_result *loss, tn_error *error)
{
    float sums[2] = {(float)loss->loss, (float)loss->top1};
    tn_params *params = tn_plan_params(plan);
    put(file, "loss", sums, 2);
    tn_status status = tn_plan_read_gradient(plan, tn_plan_input(plan, 0), memory, error);
    put(file, "input", memory, n_input);
    for (size_t i = 0; i < tn_params_count(params) && status == TN_OK; i++) {
        const tn_param *p = tn_params_at(params, i);
        if (p->trainable)
            status = tn_params_get_gradient(params, i, memory, error);
        else
            status = tn_params_get(params, i, memory, error);
        put(file, p->name, memory, p->count);
    }
    return status;
}

static tn_status step(char **argv, int argc, tn_plan *plan, FILE *file, tn_error *error)
{
    tn_extent in;
    int64_t most, batch = tn_plan_batch(plan);
    bool inference = argc > 6 && strcmp(argv[6], "inference") == 0;
    tn_loss_result loss = {0};
    tn_status status = tn_plan_shape(plan, tn_plan_input(plan, 0), &in, error);
    if (status != TN_OK)
        return status;
    most = tn_extent_count(&in);
    for (size_t i = 0; i < tn_params_count(tn_plan_params(plan)); i++)
        if (tn_params_at(tn_plan_params(plan), i)->count > most)
            most = tn_params_at(tn_plan_params(plan), i)->count;
    float *memory = tn_alloc((size_t)most * sizeof(float));
    int32_t *labels = tn_alloc((size_t)batch * sizeof(int32_t));
    tn_loss_options options = {.labels = labels, .count = batch};
    options.smoothing = argc > 7 ? (float)atof(argv[7]) : 0.0f;
    if (!memory || !labels ||
        !load(argv[3], memory, (size_t)tn_extent_count(&in) * sizeof(float)) ||
        !load(argv[4], labels, (size_t)batch * sizeof(int32_t)))
        status = tn_fail(error, TN_ERROR_IO, "cannot load input or labels");
    if (status == TN_OK)
        status = tn_plan_write_input(plan, 0, memory, batch, error);
    uint64_t calls = tn_memory_stats_get().calls;
    if (status == TN_OK)
        status = tn_plan_forward(plan, inference ? TN_RUN_INFERENCE : TN_RUN_TRAINING, 0, SIZE_MAX,
                                 error);
    if (status == TN_OK)
        status = tn_plan_loss(plan, &options, &loss, error);
    if (status == TN_OK)
        status = tn_plan_backward(plan, 0, SIZE_MAX, false, error);
    if (status == TN_OK && tn_memory_stats_get().calls != calls)
        status = tn_fail(error, TN_ERROR_DIFFERS, "a step allocated memory");
    if (status == TN_OK && argc > 9)
        status = repeat(plan, &options, atoi(argv[9]), error);
    if (status == TN_OK)
        status = write_all(file, plan, memory, tn_extent_count(&in), &loss, error);
    tn_free(memory);
    tn_free(labels);
    return status;
}

int main(int argc, char **argv)
{
    tn_error error = {0};
    tn_model *model = NULL;
    tn_graph *graph = NULL;
    tn_device *device = NULL;
    tn_plan *plan = NULL;
    if (argc < 6)
        return 2;
    if (argc > 8)
        tn_threads_set(atoi(argv[8]));
    tn_graph_options graph_options = {.batch = atoll(argv[2])};
    tn_plan_options options = {.training = true, .loss = true, .input_gradient = true};
    options.precision =
        argc > 6 && strcmp(argv[6], "bf16") == 0 ? TN_PRECISION_AUTO : TN_PRECISION_FP32;
    options.keep_all = argc > 6 && strcmp(argv[6], "keepall") == 0;
    options.no_fusion = argc > 6 && strcmp(argv[6], "nofusion") == 0;
    FILE *file = fopen(argv[5], "wb");
    tn_status status = file ? TN_OK : tn_fail(&error, TN_ERROR_IO, "cannot write %s", argv[5]);
    if (status == TN_OK)
        status = tn_model_read(argv[1], NULL, &model, &error);
    if (status == TN_OK)
        status = tn_graph_create(model, &graph_options, &graph, &error);
    if (status == TN_OK)
        status = tn_device_create_cpu(&device, &error);
    if (status == TN_OK && argc > 6 &&
        strcmp(argv[6], "bf16") == 0) { /* also where it does not pay */
        device->bf16 = true;
        options.precision = TN_PRECISION_BF16;
    }
    if (status == TN_OK)
        status = tn_plan_create(graph, device, &options, &plan, &error);
    if (status == TN_OK)
        status = step(argv, argc, plan, file, &error);
    if (status != TN_OK)
        fprintf(stderr, "%s\n", error.message);
    if (file)
        fclose(file);
    tn_plan_destroy(plan);
    tn_device_destroy(device);
    tn_graph_destroy(graph);
    tn_model_destroy(model);
    return (int)status;
}
