/* Accuracy of several models against their size. */
#ifndef TERNION_CLI_MODELS_CHART_H
#define TERNION_CLI_MODELS_CHART_H

#include <jansson.h>
#include <stdio.h>

/* comparisons: all with one model "a". Against bytes and against bits per weight; nothing without
 * accuracies. */
void cli_models_chart(FILE *out, const json_t *comparisons);

#endif
