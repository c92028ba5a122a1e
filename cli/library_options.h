/* Arguments as the library's option structs. */
#ifndef TERNION_CLI_LIBRARY_OPTIONS_H
#define TERNION_CLI_LIBRARY_OPTIONS_H

#include "cli/command.h"

tn_input_options cli_input_options(const cli_arguments *arguments);
tn_output_options cli_output_options(const cli_arguments *arguments, const char *recipe);
tn_image_options cli_image_options(const cli_arguments *arguments);
tn_scheme_options cli_scheme_options(const cli_arguments *arguments);

/* USAGE when the command needs an output and none was given. */
tn_status cli_require_output(cli_context *context);

#endif
