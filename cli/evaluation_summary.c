#include "cli/evaluation_summary.h"
#include "cli/terminal.h"

bool cli_is_labelled(const tn_evaluate_report *report)
{
    for (size_t i = 0; i < report->n_classes; i++)
        if (report->classes[i].images > 0)
            return true;
    return false;
}

void cli_print_accuracy(const char *label, const tn_evaluate_report *report)
{
    printf("%s: top-1 %.2f %% (%.2f to %.2f at 95 %%), top-%d %.2f %%, loss %.4f\n", label,
           100 * report->top1, 100 * report->top1_low, 100 * report->top1_high, report->top_k,
           100 * report->topk, report->loss);
}

static json_t *json_classes(const tn_evaluate_report *report)
{
    json_t *classes = json_array();
    for (size_t i = 0; i < report->n_classes; i++)
        json_array_append_new(classes, json_pack("{s:o, s:I, s:I}", "name",
                                                 cli_json_text(report->classes[i].name), "images",
                                                 (json_int_t)report->classes[i].images, "correct",
                                                 (json_int_t)report->classes[i].correct));
    return classes;
}

static void add_accuracy(json_t *json, const tn_evaluate_report *report)
{
    char correct_key[32], top_key[32];
    snprintf(correct_key, sizeof correct_key, "correct_top%d", report->top_k);
    snprintf(top_key, sizeof top_key, "top%d", report->top_k);
    json_object_set_new(json, "correct_top1", json_integer((json_int_t)report->correct_top1));
    json_object_set_new(json, "top1", cli_json_real(report->top1));
    json_object_set_new(json, "top1_low", cli_json_real(report->top1_low));
    json_object_set_new(json, "top1_high", cli_json_real(report->top1_high));
    json_object_set_new(json, "loss", cli_json_real(report->loss));
    json_object_set_new(json, correct_key, json_integer((json_int_t)report->correct_topk));
    json_object_set_new(json, top_key, cli_json_real(report->topk));
}

json_t *cli_json_evaluation(const tn_evaluate_report *report)
{
    json_t *json =
        json_pack("{s:o, s:o, s:I, s:I, s:o}", "model", cli_json_text(report->model), "data",
                  cli_json_text(report->data), "images", (json_int_t)report->images, "bad",
                  (json_int_t)report->bad, "images_per_s", cli_json_real(report->images_per_s));
    if (cli_is_labelled(report))
        add_accuracy(json, report);
    json_object_set_new(json, "device", cli_json_text(report->device));
    json_object_set_new(json, "precision", json_string(report->precision));
    json_object_set_new(json, "preprocess", cli_json_text(report->preprocess));
    json_object_set_new(json, "classes", json_classes(report));
    return json;
}

static json_t *json_counts(const int64_t *counts, int n)
{
    json_t *array = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(array, json_integer((json_int_t)counts[i]));
    return array;
}

static json_t *json_histogram(const tn_weight_report *h)
{
    json_t *codes = json_array(), *thresholds = json_array();
    for (int c = 0; c < h->n_codes; c++)
        json_array_append_new(codes, json_pack("{s:i, s:I, s:o, s:o}", "code", h->codes[c].code,
                                               "count", (json_int_t)h->codes[c].count, "level",
                                               cli_json_real(h->codes[c].level), "bins",
                                               json_counts(h->codes[c].bins, h->n_bins)));
    for (int c = 0; c + 1 < h->n_codes; c++)
        json_array_append_new(thresholds, cli_json_real(h->thresholds[c]));
    return json_pack("{s:o, s:o, s:o, s:o, s:o}", "low", cli_json_real(h->low), "high",
                     cli_json_real(h->high), "bins", json_counts(h->bins, h->n_bins), "codes",
                     codes, "thresholds", thresholds);
}

json_t *cli_json_compared_layers(const tn_compare_report *comparison)
{
    json_t *layers = json_array();
    for (size_t i = 0; i < comparison->n_layers; i++) {
        const tn_layer_report *layer = &comparison->layers[i];
        json_t *json = cli_json_converted_layer(layer);
        json_object_set_new(json, "op", json_string(layer->op));
        json_object_set_new(json, "weights", json_integer((json_int_t)layer->weights));
        if (layer->kl >= 0)
            json_object_set_new(json, "kl", cli_json_real(layer->kl));
        if (layer->histogram)
            json_object_set_new(json, "histogram", json_histogram(layer->histogram));
        json_array_append_new(layers, json);
    }
    return layers;
}

json_t *cli_json_edges(const tn_compare_report *comparison)
{
    json_t *edges = json_array();
    for (size_t i = 0; i < comparison->n_edges; i++) {
        const tn_edge_report *edge = &comparison->edges[i];
        json_array_append_new(edges,
                              json_pack("{s:I, s:I, s:b}", "from", (json_int_t)edge->from, "to",
                                        (json_int_t)edge->to, "joins", (int)edge->joins));
    }
    return edges;
}

void cli_json_comparison(json_t *report, const tn_compare_report *comparison)
{
    json_t *figures = json_pack(
        "{s:o, s:o, s:I, s:I, s:o, s:o}", "a", cli_json_text(comparison->a), "b",
        cli_json_text(comparison->b), "bytes_a", (json_int_t)comparison->bytes_a, "bytes_b",
        (json_int_t)comparison->bytes_b, "relmse", cli_json_real(comparison->relmse), "layers",
        cli_json_compared_layers(comparison));
    json_object_update(report, figures);
    json_decref(figures);
    json_object_set_new(report, "unmatched_a", json_integer((json_int_t)comparison->unmatched_a));
    json_object_set_new(report, "unmatched_b", json_integer((json_int_t)comparison->unmatched_b));
    json_object_set_new(report, "edges", cli_json_edges(comparison));
    if (comparison->bits_a > 0) {
        json_object_set_new(report, "bits_a", cli_json_real(comparison->bits_a));
        json_object_set_new(report, "bits_b", cli_json_real(comparison->bits_b));
    }
    if (!comparison->on_a)
        return;
    json_object_set_new(report, "images", json_integer((json_int_t)comparison->images));
    json_object_set_new(report, "agreement", cli_json_real(comparison->agreement));
    json_object_set_new(report, "kl", cli_json_real(comparison->kl));
    if (cli_is_labelled(comparison->on_a))
        json_object_set_new(report, "drop_top1", cli_json_real(comparison->drop_top1));
    json_object_set_new(report, "on_a", cli_json_evaluation(comparison->on_a));
    json_object_set_new(report, "on_b", cli_json_evaluation(comparison->on_b));
}
