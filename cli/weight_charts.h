/* Histograms of layers' weights with what quantization made of them, as inline SVG. */
#ifndef TERNION_CLI_WEIGHT_CHARTS_H
#define TERNION_CLI_WEIGHT_CHARTS_H

#include <jansson.h>
#include <stdio.h>

/* The quantized ones of cli_json_compared_layers (evaluation_summary.h); nothing without any. */
void cli_weight_charts(FILE *out, const json_t *layers);

#endif
