#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "onnx_io/zoo/zoo.h"
#include "tests/network/zoo_plan.h"

#include <stdlib.h>
#include <string.h>

tn_error error;

void ok(tn_status status)
{
    if (status != TN_OK)
        print_error("%s\n", error.message);
    assert_int_equal(status, TN_OK);
}

void open_network(fixture *f, const char *id, int64_t batch)
{
    const tn_zoo_options zoo = {.classes = CLASSES, .input = {3, 32, 32}, .seed = 7};
    const tn_graph_options options = {.batch = batch};
    memset(&error, 0, sizeof(error));
    memset(f, 0, sizeof(*f));
    f->batch = batch;
    ok(tn_zoo_create(id, &zoo, &f->model, &error));
    ok(tn_graph_create(f->model, &options, &f->graph, &error));
    ok(tn_device_create_cpu(&f->device, &error));
    uint32_t state = 1;
    for (int i = 0; i < batch * PIXELS; i++) {
        state = state * 1664525u + 1013904223u;
        f->input[i] = (float)(state >> 8) / (float)(1 << 23) - 1.0f;
    }
    for (int i = 0; i < batch; i++)
        f->labels[i] = (3 * i + 1) % CLASSES;
}

void open_plan(fixture *f, const tn_plan_options *options)
{
    tn_plan_destroy(f->plan);
    f->plan = NULL;
    ok(tn_plan_create(f->graph, f->device, options, &f->plan, &error));
    ok(tn_plan_write_input(f->plan, 0, f->input, f->batch, &error));
}

void close_network(fixture *f)
{
    tn_plan_destroy(f->plan);
    tn_device_destroy(f->device);
    tn_graph_destroy(f->graph);
    tn_model_destroy(f->model);
}

float *gradients(const fixture *f, int64_t *count)
{
    const float *from = tn_params_gradients(tn_plan_params(f->plan), count);
    float *copy = malloc((size_t)*count * sizeof(float));
    assert_non_null(copy);
    memcpy(copy, from, (size_t)*count * sizeof(float));
    return copy;
}
