#include "measured_ranges.h"

#include <stdio.h>
#include <stdlib.h>

static void must(tn_status status, const tn_error *error)
{
    if (status == TN_OK)
        return;
    printf("FAILED: %s\n", error->message);
    exit(1);
}

void measure_ranges(const tn_model *model, int bits, const float *images, size_t samples,
                    tn_activations *ranges)
{
    tn_error error = {0};
    tn_graph *graph;
    tn_layers layers;
    tn_conversion conversion;
    const tn_policy policy = {.scheme = "lsq", .bits = "1.58"};
    const tn_activation_options options = {.bits = bits, .samples = samples, .images = images};
    must(tn_graph_create(model, NULL, &graph, &error), &error);
    must(tn_layers_select(graph, &policy, &layers, &error), &error);
    must(tn_convert(&layers, NULL, &conversion, &error), &error);
    must(tn_activations_measure(model, &conversion, NULL, &options, ranges, &error), &error);
    tn_conversion_done(&conversion);
    tn_graph_destroy(graph);
}
