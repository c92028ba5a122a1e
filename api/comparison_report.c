#include "api/images.h"
#include "api/network_file.h"

#include "converter/comparison.h"
#include "converter/layer_edges.h"
#include "converter/unpack.h"
#include "converter/weight_histogram.h"
#include "finetune/exchange.h"

typedef struct pair {
    const char *path[2];
    tn_network_file file[2];
    tn_layers layers[2];
} pair;

static const tn_weight_report *weight_report(const tn_weight_histogram *h, tn_arena *arena)
{
    tn_weight_report *made = tn_arena_array(arena, 1, sizeof *made);
    tn_code_report *codes = tn_arena_array(arena, TN_HISTOGRAM_CODES, sizeof *codes);
    if (!made || !codes)
        return NULL;
    for (int c = 0; c < h->n_codes; c++)
        codes[c] =
            (tn_code_report){h->code[c].code, h->code[c].count, h->code[c].level, h->code[c].bin};
    *made = (tn_weight_report){h->low, h->high,    h->bin,      TN_HISTOGRAM_BINS,
                               codes,  h->n_codes, h->threshold};
    return made;
}

static const tn_qweight *weight_of(const tn_unpacked *unpacked, const tn_layer *layer)
{
    for (size_t i = 0; i < unpacked->count; i++)
        if (unpacked->item[i].layer->weight == layer->weight)
            return unpacked->item[i].weight;
    return NULL;
}

/* Bits per weight of a's layers. */
static tn_status report_bits(const pair *p, const tn_layer_comparison *weights,
                             const tn_reporter *reporter, tn_compare_report *report,
                             tn_error *error)
{
    tn_unpacked unpacked = {.count = 0};
    tn_status status = tn_unpack(p->file[0].graph, reporter, &unpacked, error);
    double a = 0, b = 0, count = 0;
    for (size_t i = 0; i < weights->count && status == TN_OK; i++) {
        tn_layer_report row;
        const tn_layer *layer = weights->layer[i].a;
        const tn_qweight *weight = weight_of(&unpacked, layer);
        status = tn_layer_report_name(&row, layer, tn_result_arena(report), error);
        if (status == TN_OK && weight)
            tn_layer_report_scheme(&row, weight, tn_result_arena(report));
        if (status != TN_OK)
            break;
        a += row.bits * (double)row.weights;
        b += report->layers[i].bits * (double)row.weights;
        count += (double)row.weights;
    }
    report->bits_a = count > 0 ? a / count : 0;
    report->bits_b = count > 0 ? b / count : 0;
    tn_unpacked_done(&unpacked);
    return status;
}

/* Of a's weights, by the codes that b keeps for them. */
static tn_status report_histogram(const tn_layer *a, const tn_qweight *weight, tn_arena *arena,
                                  tn_layer_report *row, tn_error *error)
{
    tn_weight_histogram *h = tn_arena_array(arena, 1, sizeof *h);
    if (!h)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    tn_status status = tn_weight_histogram_take(a, weight, h, error);
    if (status != TN_OK)
        return status;
    row->histogram = weight_report(h, arena);
    return row->histogram ? TN_OK : tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
}

/* What b's layers are stored in, with their histograms when asked for. */
static tn_status report_weights(const pair *p, const tn_layer_comparison *weights, bool histograms,
                                const tn_reporter *reporter, tn_compare_report *report,
                                tn_error *error)
{
    tn_arena *arena = tn_result_arena(report);
    tn_unpacked unpacked = {.count = 0};
    tn_status status = tn_unpack(p->file[1].graph, reporter, &unpacked, error);
    for (size_t i = 0; i < weights->count && status == TN_OK; i++) {
        const tn_qweight *weight = weight_of(&unpacked, weights->layer[i].b);
        if (histograms)
            status =
                report_histogram(weights->layer[i].a, weight, arena, &report->layers[i], error);
        if (status == TN_OK && weight)
            tn_layer_report_scheme(&report->layers[i], weight, arena);
    }
    tn_unpacked_done(&unpacked);
    return status == TN_OK ? report_bits(p, weights, reporter, report, error) : status;
}

/* How the layers follow each other; those that a does not have are left out. */
static tn_status report_edges(const pair *p, const tn_layer_comparison *weights,
                              tn_compare_report *report, tn_error *error)
{
    tn_arena *arena = tn_result_arena(report);
    const tn_layers *layers = &p->layers[1];
    tn_layer_edges edges = {NULL, 0};
    size_t *place = tn_arena_array(arena, layers->count + 1, sizeof *place);
    tn_status status = place ? tn_layer_edges_find(p->file[1].graph, layers, &edges, error)
                             : tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    if (status == TN_OK) {
        report->edges = tn_arena_array(arena, edges.count + 1, sizeof *report->edges);
        if (!report->edges)
            status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    }
    for (size_t i = 0; i < layers->count && status == TN_OK; i++)
        place[i] = SIZE_MAX;
    for (size_t i = 0; i < weights->count && status == TN_OK; i++)
        place[weights->layer[i].b - layers->layer] = i;
    for (size_t i = 0; i < edges.count && status == TN_OK; i++) {
        tn_edge_report edge = {place[edges.edge[i].from], place[edges.edge[i].to],
                               edges.edge[i].joins};
        if (edge.from != SIZE_MAX && edge.to != SIZE_MAX)
            report->edges[report->n_edges++] = edge;
    }
    tn_free(edges.edge);
    return status;
}

/* Layers of a that are the counterpart of none. */
static int64_t count_unmatched(const tn_layers *layers, const tn_layer_comparison *weights)
{
    int64_t unmatched = 0;
    for (size_t i = 0; i < layers->count; i++) {
        size_t k = 0;
        while (k < weights->count && weights->layer[k].a != &layers->layer[i])
            k++;
        unmatched += k == weights->count;
    }
    return unmatched;
}

static tn_status report_layers(const pair *p, const tn_layer_comparison *weights,
                               tn_compare_report *report, tn_error *error)
{
    tn_arena *arena = tn_result_arena(report);
    tn_status status = TN_OK;
    report->a = tn_arena_strdup(arena, p->path[0]);
    report->b = tn_arena_strdup(arena, p->path[1]);
    report->bytes_a = p->file[0].bytes;
    report->bytes_b = p->file[1].bytes;
    report->relmse = weights->relmse;
    report->unmatched_a = count_unmatched(&p->layers[0], weights);
    report->unmatched_b = (int64_t)(p->layers[1].count - weights->count);
    report->layers = tn_arena_array(arena, weights->count + 1, sizeof *report->layers);
    if (!report->a || !report->b || !report->layers)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    for (size_t i = 0; i < weights->count && status == TN_OK; i++) {
        const tn_layer_difference *difference = &weights->layer[i];
        tn_layer_report *row = &report->layers[report->n_layers++];
        status = tn_layer_report_name(row, difference->b, arena, error);
        row->relmse = difference->relmse;
        row->sqnr_db = difference->sqnr_db;
        row->zeros = difference->zeros;
        row->kl = -1;
    }
    return status == TN_OK ? report_edges(p, weights, report, error) : status;
}

/* KL of each layer alone. */
static tn_status report_sensitivity(const pair *p, const tn_layer_comparison *weights,
                                    const tn_compare_request *request,
                                    const tn_image_source *source, tn_compare_report *report,
                                    tn_error *error)
{
    const tn_calibrate_options options = {.seed = request->images.seed,
                                          .preprocess = source->evaluate.preprocess,
                                          .output = request->images.output,
                                          .reporter = source->evaluate.reporter};
    tn_exchange *layers = tn_alloc_array(weights->count + 1, sizeof *layers);
    if (!layers)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    for (size_t i = 0; i < weights->count; i++)
        layers[i] = (tn_exchange){weights->layer[i].a, weights->layer[i].b, 0};
    tn_status status =
        tn_exchange_measure(p->file[0].model, source->dataset, &options, request->sensitivity,
                            source->device, layers, weights->count, error);
    for (size_t i = 0; i < weights->count && status == TN_OK; i++)
        report->layers[i].kl = layers[i].kl;
    tn_free(layers);
    return status;
}

static tn_status report_outputs(const pair *p, const tn_layer_comparison *weights,
                                const tn_compare_request *request, const tn_reporter *reporter,
                                tn_compare_report *report, tn_error *error)
{
    tn_image_source source = {.dataset = NULL};
    tn_comparison outputs = {.images = 0};
    tn_status status =
        tn_image_source_open(request->data, TN_SPLIT_VAL, !request->labelled, p->file[0].model,
                             &request->images, reporter, &source, error);
    if (status == TN_OK)
        status = tn_evaluate_pair(p->file[0].model, p->file[1].model, source.dataset, source.device,
                                  &source.evaluate, NULL, &outputs, error);
    if (status == TN_OK)
        status = tn_evaluate_report_make(p->path[0], request->data, &source, &outputs.a,
                                         &report->on_a, error);
    if (status == TN_OK)
        status = tn_evaluate_report_make(p->path[1], request->data, &source, &outputs.b,
                                         &report->on_b, error);
    if (status == TN_OK) {
        report->images = (int64_t)outputs.images;
        report->agreement = outputs.agreement;
        report->kl = outputs.kl;
        report->drop_top1 = 100 * (outputs.a.top1 - outputs.b.top1);
    }
    if (status == TN_OK && request->sensitivity > 0)
        status = report_sensitivity(p, weights, request, &source, report, error);
    tn_comparison_done(&outputs);
    tn_image_source_close(&source);
    return status;
}

static tn_status pair_open(pair *p, const tn_input_options *in, const tn_reporter *reporter,
                           tn_error *error)
{
    tn_status status = TN_OK;
    for (int i = 0; i < 2 && status == TN_OK; i++) {
        status = tn_network_file_open(p->path[i], in, 0, reporter, &p->file[i], error);
        if (status == TN_OK)
            status = tn_network_file_layers(&p->file[i], &p->layers[i], error);
    }
    return status;
}

tn_status tn_compare_files(const char *a, const char *b, const tn_compare_request *given,
                           const tn_reporter *reporter, tn_compare_report **report, tn_error *error)
{
    static const tn_compare_request standard;
    const tn_compare_request *request = given ? given : &standard;
    pair p = {.path = {a, b}};
    tn_layer_comparison weights = {NULL, 0, 0};
    tn_compare_report *made = NULL;
    tn_status status = pair_open(&p, &request->in, reporter, error);
    if (status == TN_OK)
        status = tn_layers_compare(&p.layers[0], &p.layers[1], reporter, &weights, error);
    if (status == TN_OK && !(made = tn_result_create(sizeof *made)))
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    if (status == TN_OK)
        status = report_layers(&p, &weights, made, error);
    if (status == TN_OK)
        status = report_weights(&p, &weights, request->histograms, reporter, made, error);
    if (status == TN_OK && request->data)
        status = report_outputs(&p, &weights, request, reporter, made, error);
    if (status == TN_OK)
        *report = made;
    else
        tn_compare_report_free(made);
    tn_free(weights.layer);
    tn_network_file_close(&p.file[0]);
    tn_network_file_close(&p.file[1]);
    return status;
}

void tn_compare_report_free(tn_compare_report *report)
{
    if (!report)
        return;
    tn_evaluate_report_free(report->on_a);
    tn_evaluate_report_free(report->on_b);
    tn_result_free(report);
}
