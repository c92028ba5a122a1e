/* The files that a command writes. */
#ifndef TERNION_CLI_OUTPUT_FILES_H
#define TERNION_CLI_OUTPUT_FILES_H

#include "cli/command.h"

/* Every file the arguments name for writing, against every file and data set they name for reading
 * and against each other; before any work. */
tn_status cli_outputs_check(cli_context *context);

/* Where the figures of the page at `path` go: page.json beside page.html. */
tn_status cli_figures_path(const char *path, char beside[4096], tn_error *error);

typedef void cli_file_body(FILE *out, const void *content);

/* Writes a text file beside its place, then puts it there: a reader never sees half of it. */
tn_status cli_file_write(const char *path, bool replace, cli_file_body *body, const void *content,
                         tn_error *error);

#endif
