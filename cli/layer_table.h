/* Tables of layers for people. */
#ifndef TERNION_CLI_LAYER_TABLE_H
#define TERNION_CLI_LAYER_TABLE_H

#include "cli/json_report.h"

void cli_print_inspected_layers(const tn_layer_report *layers, size_t count);
void cli_print_converted_layers(const tn_layer_report *layers, size_t count);
/* The keys of `quantize`. */
json_t *cli_json_conversion(const cli_context *context, const tn_conversion_report *report);
/* The figures that end quantize and export, as text or JSON; takes nothing. */
void cli_print_conversion(const cli_context *context, const tn_conversion_report *report);

#endif
