/* Commands as data, and what their handlers get. */
#ifndef TERNION_CLI_COMMAND_H
#define TERNION_CLI_COMMAND_H

#include "cli/option.h"

#include <stdio.h>

struct cli_command;

typedef struct cli_context {
    const struct cli_command *command;
    const cli_arguments *arguments;
    tn_reporter reporter;
    tn_error error; /* what a failing handler leaves for main to print */
} cli_context;

typedef struct cli_example {
    const char *command, *what;
} cli_example;

typedef struct cli_command {
    const char *name, *summary, *usage; /* usage: what stands behind the name */
    const char *details;                /* a paragraph */
    const cli_example *examples;        /* ends with command == NULL */
    const cli_group *const *groups;     /* ends with NULL; cli_general comes behind them */
    size_t min_operands, max_operands;
    tn_status (*run)(cli_context *context);
    bool planned; /* not in this version: takes any options, to say so */
} cli_command;

extern const cli_group cli_general, cli_writing, cli_reading, cli_scheme, cli_form, cli_from_recipe,
    cli_images, cli_calibration, cli_activations; /* option_groups.c */

const cli_command *cli_command_at(size_t i); /* walks the table; NULL at its end */
const cli_command *cli_command_find(const char *name);
/* A "did you mean" in `text`, or "". */
const char *cli_command_hint(const char *name, char *text, size_t size);
const char *cli_option_hint(const cli_command *command, const char *name, char *text, size_t size);

/* All groups of a command, cli_general included; for each, until NULL. */
const cli_group *cli_command_group(const cli_command *command, size_t i);

/* Parses what stands behind the command's name; reads the recipe, if one is given, first. */
tn_status cli_parse(const cli_command *command, int argc, char **argv, cli_arguments *arguments,
                    tn_error *error);

/* Fails for options that would say nothing without another, or beside one. */
tn_status cli_needs_check(const cli_command *command, const cli_arguments *arguments,
                          tn_error *error);

/* Pages made from the tables. */
void cli_help_overview(FILE *out);
void cli_help_command(const cli_command *command, FILE *out);
void cli_man_page(const cli_command *command, FILE *out); /* NULL: the overview */
tn_status cli_completion(const char *shell, FILE *out, tn_error *error);

#endif
