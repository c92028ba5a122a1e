#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "network/plan.h"
#include "tests/finetune/network_output.h"

#include <math.h>

void network_output(const tn_model *model, const float *images, int64_t count, float *output)
{
    tn_graph *graph = NULL;
    tn_plan *plan = NULL;
    tn_device *device = NULL;
    tn_error error = {0};
    const tn_graph_options batch = {.batch = count};
    const tn_plan_options fp32 = {.precision = TN_PRECISION_FP32};
    tn_status status = tn_device_create_cpu(&device, &error);
    if (status == TN_OK)
        status = tn_graph_create(model, &batch, &graph, &error);
    if (status == TN_OK)
        status = tn_plan_create(graph, device, &fp32, &plan, &error);
    if (status == TN_OK)
        status = tn_plan_write_input(plan, 0, images, count, &error);
    if (status == TN_OK)
        status = tn_plan_forward(plan, TN_RUN_INFERENCE, 0, SIZE_MAX, &error);
    if (status == TN_OK)
        status = tn_plan_read(plan, tn_plan_output(plan, 0), output, &error);
    if (status != TN_OK)
        print_message("%s\n", error.message);
    assert_int_equal(status, TN_OK);
    tn_plan_destroy(plan);
    tn_graph_destroy(graph);
    tn_device_destroy(device);
}

double output_distance(const float *got, const float *wanted, int count)
{
    double most = 0, difference = 0;
    for (int i = 0; i < count; i++) {
        most = fmax(most, fabs((double)wanted[i]));
        difference = fmax(difference, fabs((double)got[i] - (double)wanted[i]));
    }
    assert_true(most > 0 && isfinite(most));
    return difference / most;
}
