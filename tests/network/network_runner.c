/* Runs a model on raw fp32 input for the Python oracles of this folder:
 *
 *   network_runner MODEL BATCH INPUT OUTPUT [fusion|nofusion|separate|keepall|bf16] [VALUE]
 * [REPEAT]
 *
 * INPUT holds [BATCH, ...] floats in the model's order ("-": 0.5 sin(i)), OUTPUT gets the values of
 * VALUE (default: the first output). With REPEAT the time per run is
 * printed: on the clock, or with TERNION_CPU_TIME the processor's (for busy machines). With
 * TERNION_STEPS the plan is listed first, with the time of every step. */
#include "core/memory.h"
#include "network/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(getenv("TERNION_CPU_TIME") ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool load(const char *path, float *data, size_t n)
{
    if (strcmp(path, "-") == 0) {
        for (size_t i = 0; i < n; i++)
            data[i] = 0.5f * sinf((float)(i % 1000003));
        return true;
    }
    FILE *file = fopen(path, "rb");
    bool ok = file && fread(data, sizeof(float), n, file) == n;
    if (file)
        fclose(file);
    return ok;
}

static bool save(const char *path, const float *data, size_t n)
{
    FILE *file = fopen(path, "wb");
    bool ok = file && fwrite(data, sizeof(float), n, file) == n;
    if (file)
        ok = fclose(file) == 0 && ok;
    return ok;
}

static tn_status repeat(tn_plan *plan, int n, tn_error *error)
{
    double best = 1e9, sum = 0.0;
    for (int i = 0; i < n; i++) {
        double start = now();
        tn_status status = tn_plan_forward(plan, TN_RUN_INFERENCE, 0, SIZE_MAX, error);
        double took = now() - start;
        if (status != TN_OK)
            return status;
        best = took < best ? took : best;
        sum += took;
    }
    printf("best %.3f ms, mean %.3f ms, %.1f images/s\n", best * 1e3, sum / n * 1e3,
           (double)tn_plan_batch(plan) / best);
    return TN_OK;
}

/* The best of three runs of a step alone. */
static double step_time(tn_plan *plan, size_t i)
{
    double best = 1e9;
    for (int k = 0; k < 3; k++) {
        double start = now();
        if (tn_plan_forward(plan, TN_RUN_INFERENCE, i, i + 1, NULL) != TN_OK)
            return 0.0;
        best = fmin(best, now() - start);
    }
    return best;
}

static void list_steps(tn_plan *plan)
{
    tn_plan_step s;
    for (size_t i = 0; i < tn_plan_step_count(plan); i++)
        if (tn_plan_step_at(plan, i, &s, NULL) == TN_OK)
            printf("%3zu %-12s %-40s %-32s %s %lld %.3f ms\n", i, tn_verb_name(s.verb), s.label,
                   s.fused, s.kernel, (long long)s.flops, 1e3 * step_time(plan, i));
    tn_plan_memory m = tn_plan_memory_get(plan);
    printf(
        "memory: values %zu workspace %zu packed %zu arena %zu parameters %zu without reuse %zu\n",
        m.values, m.workspace, m.packed, m.arena, m.parameters, m.without_reuse);
}

static tn_status run(char **argv, int argc, tn_plan *plan, tn_error *error)
{
    tn_extent in, out;
    const char *name = argc > 6 && argv[6][0] ? argv[6] : tn_plan_output(plan, 0);
    tn_status status = tn_plan_shape(plan, tn_plan_input(plan, 0), &in, error);
    if (status == TN_OK)
        status = tn_plan_shape(plan, name, &out, error);
    if (status != TN_OK)
        return status;
    size_t n_in = (size_t)tn_extent_count(&in), n_out = (size_t)tn_extent_count(&out);
    float *input = tn_alloc(n_in * sizeof(float)), *output = tn_alloc(n_out * sizeof(float));
    if (!input || !output || !load(argv[3], input, n_in))
        status = tn_fail(error, TN_ERROR_IO, "cannot load %s", argv[3]);
    if (status == TN_OK)
        status = tn_plan_write_input(plan, 0, input, tn_plan_batch(plan), error);
    if (status == TN_OK)
        status = tn_plan_forward(plan, TN_RUN_INFERENCE, 0, SIZE_MAX, error);
    if (status == TN_OK && argc > 7)
        status = repeat(plan, atoi(argv[7]), error);
    if (status == TN_OK)
        status = tn_plan_read(plan, name, output, error);
    if (status == TN_OK && strcmp(argv[4], "-") != 0 && !save(argv[4], output, n_out))
        status = tn_fail(error, TN_ERROR_IO, "cannot write %s", argv[4]);
    tn_free(input);
    tn_free(output);
    return status;
}

int main(int argc, char **argv)
{
    tn_error error = {0};
    tn_model *model = NULL;
    tn_graph *graph = NULL;
    tn_device *device = NULL;
    tn_plan *plan = NULL;
    const char *mode = argc > 5 ? argv[5] : "fusion", *tap = argc > 6 ? argv[6] : "";
    if (argc < 5)
        return 2;
    tn_graph_options graph_options = {.batch = atoll(argv[2])};
    tn_plan_options options = {.precision = strcmp(mode, "bf16") ? TN_PRECISION_FP32 : TN_PRECISION_AUTO,
                               .no_fusion = strcmp(mode, "nofusion") == 0,
                               .separate_bn = strcmp(mode, "separate") == 0,
                               .keep_all = strcmp(mode, "keepall") == 0,
                               .taps = &tap,
                               .n_taps = tap[0] != 0};
    tn_status status = tn_model_read(argv[1], NULL, &model, &error);
    if (status == TN_OK)
        status = tn_graph_create(model, &graph_options, &graph, &error);
    if (status == TN_OK)
        status = tn_device_create_cpu(&device, &error);
    if (status == TN_OK && strcmp(mode, "bf16") == 0) { /* also where it does not pay */
        device->bf16 = true;
        options.precision = TN_PRECISION_BF16;
    }
    if (status == TN_OK)
        status = tn_plan_create(graph, device, &options, &plan, &error);
    if (status == TN_OK && getenv("TERNION_STEPS"))
        list_steps(plan);
    if (status == TN_OK)
        status = run(argv, argc, plan, &error);
    if (status != TN_OK)
        fprintf(stderr, "%s\n", error.message);
    tn_plan_destroy(plan);
    tn_device_destroy(device);
    tn_graph_destroy(graph);
    tn_model_destroy(model);
    return (int)status;
}
