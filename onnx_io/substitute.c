#include "onnx_io/substitute.h"

#include "onnx_io/edit.h"

#include <string.h>

/* The numbers as bytes of `dtype`, in the model's arena. */
static tn_status encode(tn_model *model, tn_dtype dtype, int rank, const int64_t *dims,
                        const float *values, tn_tensor *tensor, tn_error *error)
{
    int64_t count;
    size_t bytes;
    if (!tn_dims_count(rank, dims, &count) || !tn_dtype_bytes(dtype, (uint64_t)count, &bytes))
        return tn_fail(error, TN_ERROR_LIMIT, "new values are too large");
    *tensor = (tn_tensor){.dtype = dtype, .rank = rank, .bytes = bytes};
    memcpy(tensor->dims, dims, (size_t)rank * sizeof *dims);
    tensor->data = tn_arena_alloc(&model->arena, bytes);
    if (!tensor->data)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu bytes of new values", bytes);
    tn_status status = TN_OK;
    for (int64_t i = 0; status == TN_OK && i < count; i++) {
        double value = (double)values[i];
        status = tn_tensor_write_double(tensor, i, 1, &value, error);
    }
    return status;
}

static Onnx__TensorProto *find_initializer(const tn_model *model, const char *name)
{
    const Onnx__GraphProto *graph = model->proto->graph;
    for (size_t i = 0; i < graph->n_initializer; i++)
        if (!strcmp(tn_text(graph->initializer[i]->name), name))
            return graph->initializer[i];
    return NULL;
}

tn_status tn_substitute_values(tn_model *model, const char *name, tn_dtype dtype, int rank,
                               const int64_t *dims, const float *values, tn_error *error)
{
    tn_tensor tensor;
    tn_status status = encode(model, dtype, rank, dims, values, &tensor, error);
    if (status != TN_OK)
        return status;
    if (find_initializer(model, name)) {
        tn_edit_remove_initializer(model, name);
        return tn_edit_add_initializer(model, name, dtype, rank, dims, tensor.data, tensor.bytes,
                                       false)
                   ? TN_OK
                   : tn_fail(error, TN_ERROR_LIMIT, "out of memory for new values of %s",
                             tn_quote(name));
    }
    const char *fresh = tn_edit_unique_name(model, name);
    if (!fresh ||
        !tn_edit_add_initializer(model, fresh, dtype, rank, dims, tensor.data, tensor.bytes, false))
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for new values of %s", tn_quote(name));
    size_t users = 0;
    Onnx__GraphProto *graph = model->proto->graph;
    for (size_t n = 0; n < graph->n_node; n++) {
        for (size_t i = 0; i < graph->node[n]->n_input; i++) {
            if (strcmp(tn_text(graph->node[n]->input[i]), name))
                continue;
            users++;
            status = tn_edit_set_input(model, graph->node[n], i, fresh, error);
            if (status != TN_OK)
                return status;
        }
    }
    if (users == 0)
        return tn_fail(error, TN_ERROR_USAGE, "the model has no constant %s", tn_quote(name));
    const char *const dead[] = {name, NULL};
    return tn_edit_prune_names(model, dead, error);
}
