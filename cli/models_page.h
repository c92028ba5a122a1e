/* The page of models against a first one. */
#ifndef TERNION_CLI_MODELS_PAGE_H
#define TERNION_CLI_MODELS_PAGE_H

#include <jansson.h>
#include <stdio.h>

/* figures: {"comparisons": [..]}, each of cli_json_comparison with histograms. */
void cli_models_page(FILE *out, const json_t *figures);

#endif
