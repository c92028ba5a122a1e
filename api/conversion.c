/* quantize and export: read, choose codes, pack, write, report. */
#include "api/packing.h"

#include "converter/unpack.h"

static tn_status open_input(tn_packing *packing, const tn_input_options *in, tn_network_file *file,
                            tn_error *error)
{
    tn_status status = tn_packing_begin(packing, error);
    if (status == TN_OK)
        status = tn_network_file_open(packing->input, in, 0, packing->reporter, file, error);
    packing->graph = file->graph;
    packing->bytes_in = file->bytes;
    return status;
}

tn_status tn_quantize_file(const char *input, const char *output, const tn_quantize_request *given,
                           const tn_reporter *reporter, tn_conversion_report **report,
                           tn_error *error)
{
    static const tn_quantize_request standard;
    const tn_quantize_request *request = given ? given : &standard;
    const tn_policy policy = tn_packing_policy(&request->scheme);
    tn_packing packing = {
        .input = input, .output = output, .out = &request->out, .reporter = reporter};
    tn_network_file file = {NULL, NULL, 0};
    tn_layers layers = {NULL, 0};
    tn_conversion conversion = {NULL, 0};
    tn_status status = open_input(&packing, &request->in, &file, error);
    if (status == TN_OK)
        status = tn_layers_select(file.graph, &policy, &layers, error);
    if (status == TN_OK)
        status = tn_convert(&layers, reporter, &conversion, error);
    if (status == TN_OK)
        status = tn_packing_take(&packing, &conversion, error);
    if (status == TN_OK)
        status = tn_packing_write(&packing, error);
    if (status == TN_OK)
        status = tn_packing_report(&packing, &layers, report, error);
    tn_conversion_done(&conversion);
    tn_network_file_close(&file);
    return status;
}

/* Exported weights are measured against the input's values: 0 unless something is wrong. */
static tn_status measure(tn_packing *j, tn_error *error)
{
    tn_weight_figures *figures = tn_arena_array(&j->graph->arena, j->count + 1, sizeof *figures);
    tn_status status = figures ? TN_OK : tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    for (size_t i = 0; i < j->count && status == TN_OK; i++) {
        const tn_layer *layer = j->items[i].layer;
        if (!j->items[i].weight || !j->items[i].weight->codes)
            continue;
        float *rows = tn_alloc_array((size_t)(layer->rows * layer->cols), sizeof *rows);
        if (!rows)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a layer");
        status = tn_layer_rows(layer, rows, error);
        if (status == TN_OK)
            tn_weight_measure(j->items[i].weight, rows, &figures[i]);
        tn_free(rows);
    }
    j->figures = figures;
    return status;
}

static tn_status take_unpacked(tn_packing *j, const tn_unpacked *unpacked, tn_error *error)
{
    if (unpacked->count == 0)
        return tn_fail(error, TN_ERROR_MODEL,
                       "%s has no quantized weights to export: `ternion quantize` makes them",
                       tn_quote(j->input));
    j->items = unpacked->item;
    j->count = unpacked->count;
    j->pack.preprocess = unpacked->preprocess;
    if (!j->pack.recipe)
        j->pack.recipe = unpacked->recipe;
    return measure(j, error);
}

tn_status tn_export_file(const char *input, const char *output, const tn_export_request *given,
                         const tn_reporter *reporter, tn_conversion_report **report,
                         tn_error *error)
{
    static const tn_export_request standard;
    const tn_export_request *request = given ? given : &standard;
    tn_packing packing = {
        .input = input, .output = output, .out = &request->out, .reporter = reporter};
    tn_network_file file = {NULL, NULL, 0};
    tn_layers layers = {NULL, 0};
    tn_unpacked unpacked = {.count = 0};
    tn_status status = open_input(&packing, &request->in, &file, error);
    if (status == TN_OK)
        status = tn_network_file_layers(&file, &layers, error);
    if (status == TN_OK)
        status = tn_unpack(file.graph, reporter, &unpacked, error);
    if (status == TN_OK)
        status = take_unpacked(&packing, &unpacked, error);
    if (status == TN_OK)
        status = tn_packing_write(&packing, error);
    if (status == TN_OK)
        status = tn_packing_report(&packing, &layers, report, error);
    tn_unpacked_done(&unpacked);
    tn_network_file_close(&file);
    return status;
}
