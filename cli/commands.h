/* The rows that the commands' files define. */
#ifndef TERNION_CLI_COMMANDS_H
#define TERNION_CLI_COMMANDS_H

#include "cli/command.h"

extern const cli_command cli_inspect_command, cli_quantize_command, cli_export_command,
    cli_compare_command, cli_verify_command, cli_create_command, cli_recipe_command,
    cli_help_command_row, cli_evaluate_command, cli_data_command, cli_finetune_command,
    cli_report_command;

/* The page of a run and its figures beside it (report_command.c); --report of finetune too. */
tn_status cli_report_write(const char *const *runs, size_t n_runs, const char *path,
                           const cli_arguments *arguments, tn_error *error);
/* Where `ternion report` puts it. */
const char *cli_report_page_path(const cli_arguments *arguments);

#endif
