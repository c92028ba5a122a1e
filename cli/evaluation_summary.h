/* Accuracies for people and programs. */
#ifndef TERNION_CLI_EVALUATION_SUMMARY_H
#define TERNION_CLI_EVALUATION_SUMMARY_H

#include "cli/json_report.h"

/* "<label>: top-1 91.64 % (89.8 to 93.2), top-5 ..., loss" */
void cli_print_accuracy(const char *label, const tn_evaluate_report *report);
/* Whether any of the images has a label, without which there is no accuracy. */
bool cli_is_labelled(const tn_evaluate_report *report);
/* The keys of `evaluate`; those of accuracy only where there is one. */
json_t *cli_json_evaluation(const tn_evaluate_report *report);
/* Sets the keys of `compare` in `report`. */
void cli_json_comparison(json_t *report, const tn_compare_report *comparison);
/* Its `layers`, with "histogram" where there is one. */
json_t *cli_json_compared_layers(const tn_compare_report *comparison);
json_t *cli_json_edges(const tn_compare_report *comparison);

#endif
