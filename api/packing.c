#include "api/packing.h"

#include "converter/biases.h"

#include <string.h>

tn_status tn_packing_begin(tn_packing *j, tn_error *error)
{
    const tn_output_options *out = j->out;
    tn_pack_options made = {
        .prune_dead = out->prune_dead, .recipe = out->recipe, .reporter = j->reporter};
    tn_status status = tn_output_check(j->output, &j->input, 1, out, error);
    if (status == TN_OK)
        status = tn_boundary_write(out, &j->write, error);
    if (status != TN_OK)
        return status;
    if (out->form && !(made.form = tn_form_find(out->form)))
        return tn_fail(error, TN_ERROR_USAGE,
                       "unknown form %s: expected lut, int2, qdq, planes, int8-lut, qonnx or float",
                       tn_quote(out->form));
    if (out->target && !(made.runtime = tn_runtime_find(out->target)))
        return tn_fail(error, TN_ERROR_USAGE,
                       "unknown runtime %s: expected ort-1.10 and later, e.g. ort-1.24",
                       tn_quote(out->target));
    if (out->rest && strcmp(out->rest, "float16") != 0)
        return tn_fail(error, TN_ERROR_USAGE, "rest %s: expected float16", tn_quote(out->rest));
    made.rest_float16 = out->rest != NULL;
    j->pack = made;
    return TN_OK;
}

tn_policy tn_packing_policy(const tn_scheme_options *scheme)
{
    return (tn_policy){.scheme = scheme->scheme,
                       .bits = scheme->bits,
                       .granularity = scheme->granularity,
                       .threshold = scheme->threshold,
                       .levels = scheme->levels,
                       .narrow = scheme->narrow,
                       .first_layer = scheme->first_layer,
                       .last_layer = scheme->last_layer,
                       .conv_bits = scheme->conv_bits,
                       .linear_bits = scheme->linear_bits,
                       .layer_rules = scheme->layer_rules,
                       .n_layer_rules = scheme->n_layer_rules,
                       .excluded = scheme->excluded,
                       .n_excluded = scheme->n_excluded};
}

/* The packed model, with its activations quantized. */
static tn_status pack(tn_packing *j, tn_model **packed, tn_error *error)
{
    if (j->activations)
        j->pack.opset = tn_activations_opset(j->activations);
    tn_status status = tn_pack(j->graph, j->items, j->count, &j->pack, &j->plan, packed, error);
    return status == TN_OK && j->activations ? tn_activations_write(j->activations, *packed, error)
                                             : status;
}

tn_status tn_packing_write(tn_packing *j, tn_error *error)
{
    tn_model *packed = NULL;
    if (j->activations)
        j->pack.opset = tn_activations_opset(j->activations);
    if (j->out->dry_run)
        return tn_pack_choose(j->graph, j->items, j->count, &j->pack, &j->plan, error);
    tn_status status = pack(j, &packed, error);
    if (status == TN_OK)
        status =
            tn_pack_write(packed, j->items, j->count, j->output, &j->write, &j->bytes_out, error);
    tn_model_destroy(packed);
    return status;
}

/* Bits of codes and scales, as the record's numbers are stored. */
static double stored_bits(const tn_pack_item *item)
{
    const tn_qweight *weight = item->weight;
    double weights = (double)item->layer->rows * (double)item->layer->cols;
    if (!weight || !weight->codes)
        return 16 * weights;
    int arrays = 1 + (weight->scale_neg != NULL) + (weight->zero != NULL);
    return weight->bits * weights + 32.0 * arrays * (double)weight->n_scales;
}

static size_t item_of(const tn_packing *j, const tn_layer *layer)
{
    size_t i = 0;
    while (i < j->count && j->items[i].layer->weight != layer->weight)
        i++;
    return i;
}

static tn_status report_layers(const tn_packing *j, const tn_layers *layers,
                               tn_conversion_report *report, tn_error *error)
{
    tn_arena *arena = tn_result_arena(report);
    double zeros = 0, bits = 0;
    report->layers = tn_arena_array(arena, layers->count + 1, sizeof *report->layers);
    if (!report->layers)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    for (size_t i = 0; i < layers->count; i++) {
        const tn_layer *layer = &layers->layer[i];
        tn_layer_report *row = &report->layers[report->n_layers++];
        size_t item = item_of(j, layer);
        tn_status status = tn_layer_report_name(row, layer, arena, error);
        if (status != TN_OK)
            return status;
        report->weights_total += row->weights;
        if (item == j->count)
            continue;
        tn_layer_report_scheme(row, j->items[item].weight, arena);
        tn_layer_report_figures(row, &j->figures[item]);
        if (j->plan.choice && j->plan.choice[item].reason)
            row->reason = tn_arena_strdup(arena, j->plan.choice[item].reason);
        if (!row->reason)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
        report->weights_quantized += row->weights;
        zeros += row->zeros * (double)row->weights;
        bits += stored_bits(&j->items[item]);
    }
    if (report->weights_quantized > 0) {
        report->sparsity = zeros / (double)report->weights_quantized;
        report->bits_per_weight = bits / (double)report->weights_quantized;
    }
    return TN_OK;
}

tn_status tn_packing_report(const tn_packing *j, const tn_layers *layers,
                            tn_conversion_report **report, tn_error *error)
{
    tn_conversion_report *made = tn_result_create(sizeof *made);
    if (!made)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    tn_arena *arena = tn_result_arena(made);
    made->input = tn_arena_strdup(arena, j->input);
    made->output = tn_arena_strdup(arena, j->output);
    made->needs = tn_arena_strdup(arena, j->plan.needs);
    made->form = j->plan.form->id;
    made->bytes_in = j->bytes_in;
    made->bytes_out = j->bytes_out;
    made->biases = (int64_t)j->biases.count;
    made->activations = j->activations ? (int64_t)j->activations->count : 0;
    made->opset = j->plan.opset;
    made->ir = j->plan.ir;
    tn_status status = report_layers(j, layers, made, error);
    if (status == TN_OK && (!made->input || !made->output || !made->needs))
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    if (status == TN_OK)
        *report = made;
    else
        tn_result_free(made);
    return status;
}

tn_status tn_packing_take(tn_packing *j, const tn_conversion *conversion, tn_error *error)
{
    tn_arena *arena = &j->graph->arena;
    tn_status status = TN_OK;
    if (j->bias_bits)
        status = tn_biases_convert(j->graph, conversion, j->bias_bits, &j->biases, error);
    if (status != TN_OK)
        return status;
    size_t weights = conversion->count, count = weights + j->biases.count;
    tn_weight_figures *figures = tn_arena_array(arena, count + 1, sizeof *figures);
    j->items = tn_arena_array(arena, count + 1, sizeof *j->items);
    if (!j->items || !figures)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the layers");
    for (size_t i = 0; i < count; i++) {
        const tn_converted *converted =
            i < weights ? &conversion->item[i] : &j->biases.item[i - weights];
        j->items[i] = (tn_pack_item){.layer = converted->layer, .weight = &converted->weight};
        figures[i] = converted->figures;
    }
    j->figures = figures;
    j->count = count;
    return TN_OK;
}

void tn_packing_done(tn_packing *j)
{
    tn_conversion_done(&j->biases);
}

tn_status tn_packing_size(const tn_packing *packing, tn_graph *graph,
                          const tn_conversion *conversion, uint64_t *bytes, tn_error *error)
{
    tn_packing trial = *packing;
    tn_model *packed = NULL;
    trial.graph = graph;
    trial.pack.reporter = NULL;
    tn_status status = tn_packing_take(&trial, conversion, error);
    if (status == TN_OK)
        status = pack(&trial, &packed, error);
    if (status == TN_OK)
        *bytes = onnx__model_proto__get_packed_size(packed->proto);
    tn_model_destroy(packed);
    tn_packing_done(&trial);
    return status;
}

void tn_conversion_report_free(tn_conversion_report *report)
{
    if (!report)
        return;
    tn_evaluate_report_free(report->before);
    tn_evaluate_report_free(report->after);
    tn_result_free(report);
}
