#include "api/activation_ranges.h"

tn_status tn_activation_ranges_options(int bits, int input_bits, const char *range,
                                       tn_activation_options *options, tn_error *error)
{
    options->bits = bits;
    options->input_bits = input_bits;
    options->method = TN_RANGE_MSE;
    if (range && !tn_range_method_parse(range, &options->method))
        return tn_fail(error, TN_ERROR_USAGE,
                       "activation range %s: expected minmax, percentile, entropy or mse",
                       tn_quote(range));
    return TN_OK;
}

tn_status tn_activation_ranges_measure(const tn_model *model, const tn_conversion *start,
                                       const tn_policy *policy, const tn_dataset *dataset,
                                       const tn_activation_options *options, tn_activations *ranges,
                                       tn_error *error)
{
    tn_graph *graph = NULL;
    tn_layers layers = {0};
    tn_conversion rounded = {0};
    tn_status status = TN_OK;
    if (!start) {
        status = tn_graph_create(model, NULL, &graph, error);
        if (status == TN_OK)
            status = tn_layers_select(graph, policy, &layers, error);
        if (status == TN_OK)
            status = tn_convert(&layers, options->reporter, &rounded, error);
        start = &rounded;
    }
    if (status == TN_OK)
        status = tn_activations_measure(model, start, dataset, options, ranges, error);
    tn_conversion_done(&rounded);
    tn_graph_destroy(graph);
    return status;
}
