/* Accuracies for people and programs. */
#ifndef TERNION_CLI_EVALUATION_SUMMARY_H
#define TERNION_CLI_EVALUATION_SUMMARY_H

#include "cli/json_report.h"

/* "<label>: top-1 91.64 % (89.8 to 93.2), top-5 ..., loss" */
void cli_print_accuracy(const char *label, const tn_evaluate_report *report);
/* The keys of `evaluate`. */
json_t *cli_json_evaluation(const tn_evaluate_report *report);

#endif
