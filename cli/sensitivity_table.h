/* Layers by what each costs alone. */
#ifndef TERNION_CLI_SENSITIVITY_TABLE_H
#define TERNION_CLI_SENSITIVITY_TABLE_H

#include <jansson.h>
#include <stdio.h>

/* layers: of cli_json_compared_layers. Nothing where none was measured. */
void cli_sensitivity_table(FILE *out, const json_t *layers);

#endif
