#include "finetune/weight_placement.h"

#include "core/memory.h"

tn_status tn_weight_place(tn_params *params, const tn_layer *layer, const tn_qweight *weight,
                          tn_error *error)
{
    size_t at = tn_params_find(params, layer->weight->name);
    if (at == SIZE_MAX)
        return tn_fail(error, TN_ERROR_MODEL, "weight %s is missing in the plan",
                       tn_quote(layer->weight->name));
    float *values = tn_alloc_array((size_t)(layer->rows * layer->cols), sizeof *values);
    if (!values)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the weights of %s",
                       tn_quote(layer->weight->name));
    tn_status status = tn_converted_values(layer, weight, values, error);
    if (status == TN_OK)
        status = tn_params_set_rows(params, at, values, error);
    tn_free(values);
    return status;
}
