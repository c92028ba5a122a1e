#include "converter/verify.h"

#include "converter/activation_record.h"
#include "core/bf16.h"
#include "core/memory.h"

#include <string.h>

/* Folding unpacks every weight at once: up to 64 bytes a code, which the file's size bounds. */
static const uint64_t fold_limit = UINT64_C(1) << 40;

static tn_status differs(tn_status status, tn_error *error)
{
    if (status == TN_ERROR_MODEL && error)
        error->code = TN_ERROR_DIFFERS;
    return status == TN_ERROR_MODEL ? TN_ERROR_DIFFERS : status;
}

/* `expected` rounded to the tensor's type. */
static float as_stored(float value, tn_dtype dtype)
{
    return dtype == TN_FLOAT16    ? tn_half_to_float(tn_float_to_half(value))
           : dtype == TN_BFLOAT16 ? tn_bfloat16_to_float(tn_float_to_bfloat16(value))
                                  : value;
}

static tn_status compare_values(const tn_record_layer *layer, const tn_qweight *weight,
                                const tn_tensor *decoded, tn_error *error)
{
    int64_t count = weight->rows * weight->cols;
    float *layout = tn_alloc_array((size_t)count, sizeof *layout);
    float *rows = tn_alloc_array((size_t)count, sizeof *rows);
    tn_status status = TN_OK;
    if (!layout || !rows)
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory verifying the model");
    else if (tn_tensor_count(decoded) != count)
        status = tn_fail(error, TN_ERROR_DIFFERS, "layer %s decodes to another size",
                         tn_quote(layer->node));
    else
        status = tn_tensor_read_float(decoded, 0, count, layout, error);
    if (status == TN_OK)
        tn_rows_from_layout(layout, weight->rank, weight->dims, weight->axis, rows);
    for (int64_t i = 0; status == TN_OK && i < count; i++) {
        float expected =
            as_stored(tn_qweight_value(weight, i / weight->cols, i % weight->cols), decoded->dtype);
        if (memcmp(&expected, &rows[i], sizeof expected) != 0)
            status = tn_fail(error, TN_ERROR_DIFFERS,
                             "layer %s decodes to %.9g at row %lld, column %lld; its code %d "
                             "stands for %.9g",
                             tn_quote(layer->node), (double)rows[i], (long long)(i / weight->cols),
                             (long long)(i % weight->cols), weight->codes[i], (double)expected);
    }
    tn_free(rows);
    tn_free(layout);
    return status;
}

static tn_status verify_layer(const tn_record_layer *layer, const tn_graph *graph,
                              tn_verification *result, tn_error *error)
{
    tn_qweight weight;
    tn_status status = differs(tn_record_read(layer, graph, &weight, error), error);
    if (status != TN_OK)
        return status;
    const tn_tensor *decoded = tn_graph_value(graph, layer->weight)->constant;
    if (decoded)
        status = compare_values(layer, &weight, decoded, error);
    else
        status = tn_fail(error, TN_ERROR_DIFFERS, "the weight of layer %s does not decode",
                         tn_quote(layer->node));
    if (status == TN_OK) {
        result->layers++;
        result->weights += weight.rows * weight.cols;
    }
    tn_qweight_done(&weight);
    return status;
}

static tn_status verify_half(const tn_record_layer *layer, const tn_graph *graph,
                             tn_verification *result, tn_error *error)
{
    tn_status status = differs(tn_record_check_half(layer, graph, error), error);
    result->halves += status == TN_OK;
    return status;
}

static bool is_converted(const tn_record *record, const char *name)
{
    for (size_t i = 0; i < record->count; i++) {
        if (strcmp(record->layer[i].weight, name) == 0)
            return true;
    }
    return false;
}

static bool same_bytes(const tn_tensor *a, const tn_tensor *b)
{
    return a->dtype == b->dtype && a->rank == b->rank &&
           memcmp(a->dims, b->dims, (size_t)a->rank * sizeof *a->dims) == 0 &&
           a->bytes == b->bytes && memcmp(a->data, b->data, a->bytes) == 0;
}

/* Equal after rounding to half, where the record says that the rest was stored so. */
static bool same_halves(const tn_tensor *stored, const tn_tensor *original)
{
    enum { STEP = 256 };
    float a[STEP], b[STEP];
    int64_t count = tn_tensor_count(stored);
    if (stored->dtype != TN_FLOAT || original->dtype != TN_FLOAT ||
        tn_tensor_count(original) != count)
        return false;
    for (int64_t first = 0; first < count; first += STEP) {
        int64_t n = count - first < STEP ? count - first : STEP;
        if (tn_tensor_read_float(stored, first, n, a, NULL) != TN_OK ||
            tn_tensor_read_float(original, first, n, b, NULL) != TN_OK)
            return false;
        for (int64_t i = 0; i < n; i++) {
            if (a[i] != tn_half_to_float(tn_float_to_half(b[i])))
                return false;
        }
    }
    return true;
}

static tn_status fail_touched(const char *tensor, tn_error *error)
{
    return tn_fail(error, TN_ERROR_DIFFERS,
                   "tensor %s is not what it was: right for a file that was calibrated or "
                   "fine-tuned, which changes BatchNormalization, biases and float layers too "
                   "(verify it without --against); wrong for one converted without data",
                   tn_quote(tensor));
}

/* A MatMul's weight stored as that of a Gemm with transB: what it was before. */
static bool same_halves_turned(const tn_tensor *stored, const tn_tensor *original)
{
    int64_t count = tn_tensor_count(original);
    if (original->rank != 2 || tn_tensor_count(stored) != count)
        return false;
    tn_tensor turned = *original;
    float *values = tn_alloc_array((size_t)count, 2 * sizeof *values);
    bool same = values && tn_tensor_read_float(original, 0, count, values, NULL) == TN_OK;
    if (same) {
        tn_rows_from_layout(values, 2, original->dims, 1, values + count);
        turned.dtype = TN_FLOAT;
        turned.data = values + count;
        turned.bytes = (size_t)count * sizeof *values;
        same = same_halves(stored, &turned);
    }
    tn_free(values);
    return same;
}

/* Half layers hold the original's weights rounded; where others read the weight too, the layer's
 * has a name of its own and its hash must do. */
static tn_status compare_halves(const tn_record *record, const tn_graph *graph,
                                const tn_graph *original, tn_error *error)
{
    for (size_t i = 0; i < record->count; i++) {
        const char *name = record->layer[i].weight;
        const tn_value *before = tn_graph_value(original, name);
        const tn_value *after = tn_graph_value(graph, name);
        if (record->layer[i].form || !before || !before->constant || !after)
            continue;
        if (!after->constant || !(same_halves(after->constant, before->constant) ||
                                  same_halves_turned(after->constant, before->constant)))
            return fail_touched(name, error);
    }
    return TN_OK;
}

/* Initializers the original and the converted file both have. */
static tn_status compare_untouched(const tn_record *record, const tn_graph *graph,
                                   const tn_graph *original, tn_verification *result,
                                   tn_error *error)
{
    for (size_t i = 0; i < original->n_values; i++) {
        const tn_value *before = original->values[i];
        const tn_value *after = tn_graph_value(graph, before->name);
        if (!before->initializer || !before->constant || !after ||
            is_converted(record, before->name))
            continue;
        bool same = after->constant &&
                    (same_bytes(after->constant, before->constant) ||
                     (record->rest_float16 && same_halves(after->constant, before->constant)));
        if (!same)
            return fail_touched(before->name, error);
        result->untouched++;
    }
    return TN_OK;
}

tn_status tn_verify(const tn_model *model, const tn_model *against, tn_verification *verification,
                    tn_error *error)
{
    const tn_graph_options all = {.fold_limit = fold_limit}, none = {.fold_limit = 1};
    tn_verification result = {0};
    tn_graph *graph = NULL, *original = NULL;
    tn_record record = {0};
    tn_status status = differs(tn_record_parse(model, &record, error), error);
    if (status == TN_OK && !record.json)
        status = tn_fail(error, TN_ERROR_DIFFERS,
                         "the model has no record: it was not written by ternion");
    if (status == TN_OK)
        status = tn_graph_create(model, &all, &graph, error);
    for (size_t i = 0; status == TN_OK && i < record.count; i++) {
        const tn_record_layer *layer = &record.layer[i];
        status = (layer->form ? verify_layer : verify_half)(layer, graph, &result, error);
    }
    if (status == TN_OK)
        status = tn_activation_record_verify(&record, graph, &result.activations, error);
    if (status == TN_OK && against)
        status = tn_graph_create(against, &none, &original, error);
    if (status == TN_OK && against)
        status = compare_halves(&record, graph, original, error);
    if (status == TN_OK && against)
        status = compare_untouched(&record, graph, original, &result, error);
    if (status == TN_OK)
        *verification = result;
    tn_graph_destroy(original);
    tn_graph_destroy(graph);
    tn_record_done(&record);
    return status;
}
