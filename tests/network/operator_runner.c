/* Runs a small model for operators.py of this folder:
 *
 *   operator_runner MODEL FOLDER [gradient | statistics | hostile]
 *
 * FOLDER/<input>.bin holds each input's floats; FOLDER/<output>.out gets each output's. With
 * `gradient` FOLDER/<first output>.seed is injected there, and FOLDER/<name>.gradient gets the
 * gradient of every input and parameter; with `statistics` BN uses those of the batch. `hostile` is
 * `gradient` without files and with at most 1 GiB. Exit 3: not supported, the message on stderr. */
#include "core/memory.h"
#include "network/plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct runner {
    const char *folder;
    float *memory;
    size_t count; /* floats in memory */
    bool hostile;
} runner;

static tn_status move_file(runner *r, const char *name, const char *suffix, bool write, size_t n,
                           tn_error *error)
{
    char path[1024];
    if (r->hostile) {
        for (size_t i = 0; i < n && i < r->count && !write; i++)
            r->memory[i] = 0.5f - (float)(i % 7) * 0.25f;
        return n <= r->count ? TN_OK : tn_fail(error, TN_ERROR_LIMIT, "too large");
    }
    snprintf(path, sizeof(path), "%s/%s.%s", r->folder, name, suffix);
    FILE *file = fopen(path, write ? "wb" : "rb");
    size_t done = 0;
    if (file && n <= r->count)
        done = write ? fwrite(r->memory, sizeof(float), n, file)
                     : fread(r->memory, sizeof(float), n, file);
    if (file)
        fclose(file);
    return file && done == n ? TN_OK : tn_fail(error, TN_ERROR_IO, "cannot move %s", path);
}

static size_t size_of(const tn_plan *plan, const char *value)
{
    tn_extent extent;
    return tn_plan_shape(plan, value, &extent, NULL) == TN_OK ? (size_t)tn_extent_count(&extent)
                                                              : SIZE_MAX;
}

static tn_status run_forward(runner *r, tn_plan *plan, tn_run_mode mode, tn_error *error)
{
    const char *name;
    tn_status status = TN_OK;
    for (size_t i = 0; (name = tn_plan_input(plan, i)) != NULL && status == TN_OK; i++) {
        status = move_file(r, name, "bin", false, size_of(plan, name), error);
        if (status == TN_OK)
            status = tn_plan_write_value(plan, name, r->memory, error);
    }
    uint64_t calls = tn_memory_stats_get().calls;
    if (status == TN_OK)
        status = tn_plan_forward(plan, mode, 0, SIZE_MAX, error);
    if (status == TN_OK && tn_memory_stats_get().calls != calls)
        status = tn_fail(error, TN_ERROR_DIFFERS, "a run allocated memory");
    for (size_t i = 0; (name = tn_plan_output(plan, i)) != NULL && status == TN_OK; i++) {
        status = tn_plan_read(plan, name, r->memory, error);
        if (status == TN_OK)
            status = move_file(r, name, "out", true, size_of(plan, name), error);
    }
    return status;
}

static tn_status run_backward(runner *r, tn_plan *plan, tn_error *error)
{
    const char *out = tn_plan_output(plan, 0), *name;
    tn_params *params = tn_plan_params(plan);
    tn_status status = move_file(r, out, "seed", false, size_of(plan, out), error);
    if (status == TN_OK)
        status = tn_plan_inject(plan, out, r->memory, error);
    if (status == TN_OK)
        status = tn_plan_backward(plan, 0, SIZE_MAX, false, error);
    for (size_t i = 0; (name = tn_plan_input(plan, i)) != NULL && status == TN_OK; i++) {
        status = tn_plan_read_gradient(plan, name, r->memory, error);
        if (status == TN_OK)
            status = move_file(r, name, "gradient", true, size_of(plan, name), error);
    }
    for (size_t i = 0; i < tn_params_count(params) && status == TN_OK; i++) {
        const tn_param *p = tn_params_at(params, i);
        if (!p->trainable)
            continue;
        status = tn_params_get_gradient(params, i, r->memory, error);
        if (status == TN_OK)
            status = move_file(r, p->name, "gradient", true, (size_t)p->count, error);
    }
    return status;
}

static size_t largest(const tn_graph *graph)
{
    size_t most = 1;
    for (size_t i = 0; i < graph->n_values; i++) {
        int64_t count;
        const tn_value *v = graph->values[i];
        if (v->rank >= 0 && tn_dims_count(v->rank, v->dims, &count) && (size_t)count > most)
            most = (size_t)count;
    }
    return most;
}

static tn_status run(runner *r, const tn_graph *graph, tn_device *device, const char *mode,
                     tn_error *error)
{
    bool gradient = strcmp(mode, "forward") != 0, statistics = strcmp(mode, "statistics") == 0;
    tn_params *params = NULL;
    tn_plan *plan = NULL;
    tn_status status = tn_params_create(graph, device, &params, error);
    for (size_t i = 0; status == TN_OK && i < tn_params_count(params); i++) {
        tn_param *p = tn_params_at(params, i);
        p->trainable = p->role != TN_PARAM_MEAN && p->role != TN_PARAM_VAR;
    }
    tn_plan_options options = {.training = gradient,
                               .input_gradient = gradient,
                               .params = params,
                               .precision = TN_PRECISION_FP32};
    if (status == TN_OK)
        status = tn_plan_create(graph, device, &options, &plan, error);
    if (status == TN_OK)
        status =
            run_forward(r, plan, statistics ? TN_RUN_BATCH_STATISTICS : TN_RUN_INFERENCE, error);
    if (status == TN_OK && gradient)
        status = run_backward(r, plan, error);
    tn_plan_destroy(plan);
    tn_params_destroy(params);
    return status;
}

int main(int argc, char **argv)
{
    tn_error error = {0};
    tn_model *model = NULL;
    tn_graph *graph = NULL;
    tn_device *device = NULL;
    if (argc < 3)
        return 2;
    runner r = {.folder = argv[2], .hostile = argc > 3 && strcmp(argv[3], "hostile") == 0};
    if (r.hostile)
        tn_memory_set_limit((uint64_t)1 << 30);
    tn_status status = tn_model_read(argv[1], NULL, &model, &error);
    if (status == TN_OK)
        status = tn_graph_create(model, NULL, &graph, &error);
    if (status == TN_OK)
        status = tn_device_create_cpu(&device, &error);
    if (status == TN_OK) {
        r.count = largest(graph);
        r.memory = tn_alloc(r.count * sizeof(float));
        status = r.memory ? run(&r, graph, device, argc > 3 ? argv[3] : "forward", &error)
                          : tn_fail(&error, TN_ERROR_LIMIT, "out of memory");
    }
    if (status != TN_OK)
        fprintf(stderr, "%s\n", error.message);
    tn_free(r.memory);
    tn_device_destroy(device);
    tn_graph_destroy(graph);
    tn_model_destroy(model);
    if (tn_memory_stats_get().live) {
        fprintf(stderr, "%llu bytes leaked\n", (unsigned long long)tn_memory_stats_get().live);
        return 1;
    }
    return (int)status;
}
