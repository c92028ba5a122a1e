/* What quantization did to the accuracy of each class, as a table of a page. */
#ifndef TERNION_CLI_CLASS_CHANGES_H
#define TERNION_CLI_CLASS_CHANGES_H

#include <jansson.h>
#include <stdio.h>

/* Two accuracies with "classes" [{"name", "images", "correct"}] of the same images; those that lost
 * most come first. Nothing where either has none. `a` and `b` head their columns. */
void cli_class_changes(FILE *out, const json_t *before, const json_t *after, const char *a,
                       const char *b);

#endif
