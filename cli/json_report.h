/* Results as JSON: one object a line, each with schema, command and version. */
#ifndef TERNION_CLI_JSON_REPORT_H
#define TERNION_CLI_JSON_REPORT_H

#include "cli/command.h"

#include <jansson.h>

json_t *cli_json_open(const cli_context *context);
void cli_json_print(json_t *report); /* takes it */

/* A number, null when it is not finite (JSON has no infinity). */
json_t *cli_json_real(double value);
/* Text of a file: invalid UTF-8 is escaped. */
json_t *cli_json_text(const char *text);
json_t *cli_json_shape(const tn_report_shape *shape);

json_t *cli_json_inspected_layer(const tn_layer_report *layer);
json_t *cli_json_converted_layer(const tn_layer_report *layer);

/* The options of recipe groups that were set, as a compact object; the caller frees it. */
char *cli_json_recipe(const cli_context *context);

#endif
