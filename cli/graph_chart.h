/* A network as a column of its layers, coloured by bits, with lines to what each one reads. */
#ifndef TERNION_CLI_GRAPH_CHART_H
#define TERNION_CLI_GRAPH_CHART_H

#include <jansson.h>
#include <stdio.h>

/* Of cli_json_compared_layers and cli_json_edges. Nothing without layers. */
void cli_graph_chart(FILE *out, const json_t *layers, const json_t *edges);

#endif
