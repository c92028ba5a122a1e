#include "finetune/activations.h"

#include "core/memory.h"
#include "finetune/activation_range.h"
#include "finetune/calibrate_images.h"
#include "finetune/weight_placement.h"
#include "network/plan.h"
#include "onnx_io/edit.h"
#include "onnx_io/opset.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 32, SAMPLES = 256 };

static const char *const METHODS[] = {"minmax", "percentile", "entropy", "mse"};

bool tn_range_method_parse(const char *name, tn_range_method *method)
{
    for (size_t i = 0; i < sizeof METHODS / sizeof METHODS[0]; i++)
        if (!strcmp(METHODS[i], name)) {
            *method = (tn_range_method)i;
            return true;
        }
    return false;
}

const char *tn_range_method_name(tn_range_method method)
{
    return METHODS[method];
}

void tn_activation_fit(double low, double high, int bits, tn_activation_range *range)
{
    double top = ldexp(1, bits) - 1;
    low = low < 0 ? low : 0;
    high = high > 0 ? high : 0;
    float scale = (float)((high - low) / top);
    range->bits = bits;
    range->scale = isfinite(scale) && scale >= 0x1p-100f ? scale : 1.0f;
    double zero = rint(-low / (double)range->scale);
    range->zero = (int32_t)(zero < 0 ? 0 : zero > top ? top : zero);
}

/* --- measuring ----------------------------------------------------------------------------------
 */

typedef struct measure_run {
    tn_activation_options options;
    tn_device *device, *own_device;
    tn_calibrate_images images;
    tn_graph *graph;
    tn_plan *plan;
    tn_activations list;
    const char **names;
    tn_histogram *histogram; /* [count] */
    size_t count;
    float *values; /* the largest */
} measure_run;

static void run_done(measure_run *run)
{
    tn_plan_destroy(run->plan);
    tn_graph_destroy(run->graph);
    tn_calibrate_images_done(&run->images);
    tn_device_destroy(run->own_device);
    tn_activations_done(&run->list);
    tn_free(run->names);
    tn_free(run->histogram);
    tn_free(run->values);
}

static tn_status check(const tn_activation_options *options, tn_error *error)
{
    int bits[2] = {options->bits, options->input_bits};
    for (int i = 0; i < 2; i++)
        if (bits[i] != 0 && (bits[i] < 2 || bits[i] > 16))
            return tn_fail(error, TN_ERROR_USAGE, "%s takes 2 to 16 bits, not %d",
                           i == 0 ? "--activation-bits" : "--input-bits", bits[i]);
    if (bits[0] == 0 && bits[1] == 0)
        return tn_fail(error, TN_ERROR_USAGE, "give --activation-bits or --input-bits");
    return TN_OK;
}

static tn_status load(measure_run *run, const tn_model *model, const tn_dataset *dataset,
                      tn_error *error)
{
    tn_calibrate_options images = {.samples = run->options.samples ? run->options.samples : SAMPLES,
                                   .seed = run->options.seed,
                                   .preprocess = run->options.preprocess,
                                   .images = run->options.images};
    tn_status status = tn_calibrate_images_load(model, dataset, &images, &run->images, error);
    tn_graph_options graph = {
        .batch = BATCH,
        .input_rank = 3,
        .input_dims = {run->images.dims[0], run->images.dims[1], run->images.dims[2]},
        .output = run->options.output};
    if (status == TN_OK)
        status = tn_graph_create_near(model, &graph, &run->graph, error);
    return status;
}

static tn_status add_value(tn_activations *list, const tn_value *value, int bits, bool is_input,
                           tn_error *error)
{
    for (size_t i = 0; i < list->count; i++)
        if (!strcmp(list->range[i].value, value->name))
            return TN_OK;
    if (value->dtype != TN_FLOAT)
        return tn_fail(error, TN_ERROR_MODEL,
                       "value %s is %s: only FLOAT activations can be quantized",
                       tn_quote(value->name), tn_dtype_name(value->dtype));
    tn_activation_range *range = &list->range[list->count];
    *range = (tn_activation_range){.bits = bits, .scale = 1, .is_input = is_input};
    range->value = tn_strdup(value->name);
    if (!range->value)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the activations");
    list->count++;
    return TN_OK;
}

tn_status tn_activations_list(const tn_graph *graph, const tn_conversion *conversion,
                              const tn_activation_options *options, tn_activations *activations,
                              tn_error *error)
{
    tn_activations list = {.range = tn_alloc_zero(graph->n_values + 1, sizeof *list.range)};
    tn_status status = check(options, error);
    if (status == TN_OK && !list.range)
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the activations");
    if (status == TN_OK && options->input_bits > 0)
        status = add_value(&list, graph->inputs[0], options->input_bits, true, error);
    for (size_t i = 0; options->bits > 0 && i < conversion->count; i++) {
        const tn_layer *layer = conversion->item[i].layer;
        if (layer->scheme.quantizer->plain)
            continue; /* a FLOAT16 layer computes in floating point */
        for (size_t u = 0; status == TN_OK && u < layer->n_users; u++) {
            const tn_value *value = tn_graph_value(graph, layer->users[u]->inputs[0]->name);
            if (value && !value->constant)
                status = add_value(&list, value, options->bits, false, error);
        }
    }
    if (status == TN_OK && list.count == 0)
        status = tn_fail(error, TN_ERROR_USAGE,
                         "--activation-bits quantizes what layers of few bits read, and there are "
                         "none: half layers compute in floating point");
    if (status == TN_OK)
        *activations = list;
    else
        tn_activations_done(&list);
    return status;
}

static tn_status choose_values(measure_run *run, const tn_conversion *conversion, tn_error *error)
{
    tn_status status =
        tn_activations_list(run->graph, conversion, &run->options, &run->list, error);
    if (status != TN_OK)
        return status;
    run->count = run->list.count;
    run->names = tn_alloc_zero(run->count + 1, sizeof *run->names);
    run->histogram = tn_alloc_zero(run->count + 1, sizeof *run->histogram);
    if (!run->names || !run->histogram)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu histograms", run->count);
    for (size_t i = 0; i < run->count; i++)
        run->names[i] = run->list.range[i].value;
    return TN_OK;
}

static tn_status make_plan(measure_run *run, const tn_conversion *conversion, tn_error *error)
{
    tn_plan_options options = {
        .precision = TN_PRECISION_FP32, .taps = run->names, .n_taps = run->count};
    tn_status status = tn_plan_create(run->graph, run->device, &options, &run->plan, error);
    for (size_t i = 0; status == TN_OK && i < conversion->count; i++) {
        const tn_converted *item = &conversion->item[i];
        tn_params *params = tn_plan_params(run->plan);
        /* without codes the model's own weights stay: FLOAT16 moves no range */
        if (item->weight.codes && tn_params_find(params, item->layer->weight->name) != SIZE_MAX)
            status = tn_weight_place(params, item->layer, &item->weight, error);
    }
    int64_t most = 1;
    for (size_t i = 0; status == TN_OK && i < run->count; i++) {
        tn_extent extent;
        status = tn_plan_shape(run->plan, run->names[i], &extent, error);
        if (status == TN_OK && tn_extent_count(&extent) > most)
            most = tn_extent_count(&extent);
    }
    if (status == TN_OK) {
        run->values = tn_alloc_array((size_t)most, sizeof *run->values);
        if (!run->values)
            status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for activations");
    }
    return status;
}

static tn_status widen(const char *name, const float *values, int64_t count,
                       tn_histogram *histogram, tn_error *error)
{
    for (int64_t k = 0; k < count; k++) {
        if (!isfinite(values[k]))
            return tn_fail(error, TN_ERROR_MODEL,
                           "value %s is infinite or not a number for some image: it has no range "
                           "to quantize",
                           tn_quote(name));
        histogram->low = fmin(histogram->low, (double)values[k]);
        histogram->high = fmax(histogram->high, (double)values[k]);
    }
    return TN_OK;
}

/* Extremes in the first pass, counts in the second, of the first `images` of the batch. */
static tn_status look(measure_run *run, int pass, bool first, int64_t images, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < run->count; i++) {
        tn_extent extent;
        tn_histogram *histogram = &run->histogram[i];
        status = tn_plan_shape(run->plan, run->names[i], &extent, error);
        if (status == TN_OK)
            status = tn_plan_read(run->plan, run->names[i], run->values, error);
        if (status != TN_OK)
            break;
        int64_t count = tn_extent_count(&extent) / tn_plan_batch(run->plan) * images;
        if (pass == 1) {
            tn_histogram_add(histogram, run->values, count);
            continue;
        }
        if (first)
            histogram->low = histogram->high = (double)run->values[0];
        status = widen(run->names[i], run->values, count, histogram, error);
    }
    return status;
}

static tn_status run_images(measure_run *run, tn_error *error)
{
    const int64_t n = run->images.count, batch = tn_plan_batch(run->plan);
    tn_status status = TN_OK;
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; status == TN_OK && i < n; i += batch) {
            int64_t count = n - i < batch ? n - i : batch;
            if (tn_cancelled(run->options.reporter))
                return tn_fail(error, TN_ERROR_CANCELLED, "measuring activations was stopped");
            status = tn_plan_write_input(run->plan, 0, run->images.values + i * run->images.size,
                                         count, error);
            if (status == TN_OK)
                status = tn_plan_forward(run->plan, TN_RUN_INFERENCE, 0, SIZE_MAX, error);
            if (status == TN_OK)
                status = look(run, pass, i == 0, count, error);
            tn_progress(run->options.reporter, "measuring activations",
                        (uint64_t)(pass * n + i + count), (uint64_t)(2 * n));
        }
    return status;
}

static void collect(measure_run *run)
{
    for (size_t i = 0; i < run->count; i++) {
        tn_activation_range *range = &run->list.range[i];
        double low, high;
        tn_histogram_range(&run->histogram[i],
                           range->is_input ? TN_RANGE_MINMAX : run->options.method, range->bits,
                           &low, &high);
        tn_activation_fit(low, high, range->bits, range);
        range->seen_low = run->histogram[i].low;
        range->seen_high = run->histogram[i].high;
    }
}

tn_status tn_activations_measure(const tn_model *model, const tn_conversion *conversion,
                                 const tn_dataset *dataset, const tn_activation_options *options,
                                 tn_activations *out, tn_error *error)
{
    measure_run run = {.options = *options, .device = options->device};
    tn_status status = check(options, error);
    if (status == TN_OK && !run.device) {
        status = tn_device_create_cpu(&run.own_device, error);
        run.device = run.own_device;
    }
    if (status == TN_OK)
        status = load(&run, model, dataset, error);
    if (status == TN_OK)
        status = choose_values(&run, conversion, error);
    if (status == TN_OK)
        status = make_plan(&run, conversion, error);
    if (status == TN_OK)
        status = run_images(&run, error);
    if (status == TN_OK) {
        collect(&run);
        *out = run.list;
        run.list = (tn_activations){0};
    }
    run_done(&run);
    return status;
}

void tn_activations_done(tn_activations *activations)
{
    for (size_t i = 0; i < activations->count; i++)
        tn_free(activations->range[i].value);
    tn_free(activations->range);
    *activations = (tn_activations){0};
}

/* --- writing ------------------------------------------------------------------------------------
 */

/* The input of `node` that reads the value quantized; SIZE_MAX: none. */
static size_t data_input(const Onnx__NodeProto *node, const tn_activation_range *range)
{
    static const char *const TYPES[] = {"Conv", "ConvTranspose", "Gemm", "MatMul"};
    bool takes = false;
    for (size_t i = 0; i < sizeof TYPES / sizeof TYPES[0]; i++)
        takes = takes || !strcmp(tn_text(node->op_type), TYPES[i]);
    for (size_t i = 0; i < node->n_input && (i == 0 || range->is_input); i++)
        if ((takes || range->is_input) && !strcmp(node->input[i], range->value))
            return i;
    return SIZE_MAX;
}

static const char *add_scalar(tn_model *model, const char *value, const char *suffix,
                              tn_dtype dtype, const void *data, size_t bytes)
{
    char base[512];
    snprintf(base, sizeof base, "%.400s_%s", value, suffix);
    const char *name = tn_edit_unique_name(model, base);
    return name && tn_edit_add_initializer(model, name, dtype, 0, NULL, data, bytes, true) ? name
                                                                                           : NULL;
}

static const char *add_step(tn_model *model, size_t position, const char *type, const char *x,
                            const char *a, const char *b)
{
    char base[512];
    snprintf(base, sizeof base, "%.400s_%s", x, type);
    const char *output = tn_edit_unique_name(model, base);
    const char *inputs[] = {x, a, b, NULL}, *outputs[] = {output, NULL};
    return output && tn_edit_add_node(model, position, type, output, inputs, outputs) ? output
                                                                                      : NULL;
}

/* [Clip,] QuantizeLinear, DequantizeLinear before node `position`; the name of what comes out. */
static const char *add_chain(tn_model *model, const tn_activation_range *range, size_t position)
{
    int type_bits = range->bits <= 8 ? 8 : 16, top = (1 << range->bits) - 1;
    uint8_t zero8 = (uint8_t)range->zero;
    uint16_t zero16 = (uint16_t)range->zero;
    const char *x = range->value;
    const char *scale =
        add_scalar(model, range->value, "scale", TN_FLOAT, &range->scale, sizeof range->scale);
    const char *zero = type_bits == 8
                           ? add_scalar(model, range->value, "zero", TN_UINT8, &zero8, 1)
                           : add_scalar(model, range->value, "zero", TN_UINT16, &zero16, 2);
    if (range->bits != type_bits && scale && zero) {
        float low = (float)(0 - range->zero) * range->scale;
        float high = (float)(top - range->zero) * range->scale;
        const char *min = add_scalar(model, range->value, "low", TN_FLOAT, &low, sizeof low);
        const char *max = add_scalar(model, range->value, "high", TN_FLOAT, &high, sizeof high);
        x = min && max ? add_step(model, position++, "Clip", x, min, max) : NULL;
    }
    if (!scale || !zero || !x)
        return NULL;
    x = add_step(model, position++, "QuantizeLinear", x, scale, zero);
    return x ? add_step(model, position, "DequantizeLinear", x, scale, zero) : NULL;
}

int64_t tn_activations_opset(const tn_activations *activations)
{
    int64_t opset = 13;
    for (size_t i = 0; i < activations->count; i++)
        opset = activations->range[i].bits > 8 ? 21 : opset;
    return opset;
}

tn_status tn_activations_to_json(const tn_activations *activations, tn_range_method method,
                                 char **json, tn_error *error)
{
    json_t *values = json_object();
    int failed = values == NULL;
    for (size_t i = 0; i < activations->count; i++)
        failed |= json_object_set_new(values, activations->range[i].value,
                                      json_integer(activations->range[i].bits));
    json_t *object =
        json_pack("{s:s, s:o}", "range", tn_range_method_name(method), "values", values);
    char *text = object && !failed ? json_dumps(object, JSON_COMPACT) : NULL;
    char *made = text ? tn_strdup(text) : NULL;
    json_decref(object);
    free(text);
    if (!made)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the activations");
    *json = made;
    return TN_OK;
}

tn_status tn_activations_write(const tn_activations *activations, tn_model *model, tn_error *error)
{
    const int64_t opset = tn_activations_opset(activations);
    tn_status status = tn_opset_raise(model, opset, error);
    for (size_t i = 0; status == TN_OK && i < activations->count; i++) {
        const tn_activation_range *range = &activations->range[i];
        const Onnx__GraphProto *graph = model->proto->graph;
        size_t first = 0;
        while (first < graph->n_node && data_input(graph->node[first], range) == SIZE_MAX)
            first++;
        if (first == graph->n_node)
            continue;
        const char *output = add_chain(model, range, first);
        if (!output)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the quantization of %s",
                           tn_quote(range->value));
        /* the chain itself lies at `first` */
        size_t n = first + 2 + (range->bits != 8 && range->bits != 16);
        for (size_t at; status == TN_OK && n < graph->n_node; n++)
            if ((at = data_input(graph->node[n], range)) != SIZE_MAX)
                status = tn_edit_set_input(model, graph->node[n], at, output, error);
    }
    if (status == TN_OK && opset == 21 && model->ir_version < 10)
        status = tn_edit_set_versions(model, 10, model->opset, error);
    return status;
}
