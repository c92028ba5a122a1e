#include "cli/evaluation_summary.h"
#include "cli/terminal.h"

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

json_t *cli_json_evaluation(const tn_evaluate_report *report)
{
    char correct_key[32], top_key[32];
    snprintf(correct_key, sizeof correct_key, "correct_top%d", report->top_k);
    snprintf(top_key, sizeof top_key, "top%d", report->top_k);
    json_t *json = json_pack(
        "{s:o, s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "model", cli_json_text(report->model),
        "data", cli_json_text(report->data), "images", (json_int_t)report->images, "bad",
        (json_int_t)report->bad, "correct_top1", (json_int_t)report->correct_top1, "top1",
        cli_json_real(report->top1), "top1_low", cli_json_real(report->top1_low), "top1_high",
        cli_json_real(report->top1_high), "loss", cli_json_real(report->loss), "images_per_s",
        cli_json_real(report->images_per_s));
    json_object_set_new(json, correct_key, json_integer((json_int_t)report->correct_topk));
    json_object_set_new(json, top_key, cli_json_real(report->topk));
    json_object_set_new(json, "device", cli_json_text(report->device));
    json_object_set_new(json, "precision", json_string(report->precision));
    json_object_set_new(json, "preprocess", cli_json_text(report->preprocess));
    json_object_set_new(json, "classes", json_classes(report));
    return json;
}
