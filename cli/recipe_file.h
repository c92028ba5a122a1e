/* Recipes: YAML mappings of option names and values, checked against a command's option table.
 * Two more keys are allowed: `command` (which command it is for) and `description`. */
#ifndef TERNION_CLI_RECIPE_FILE_H
#define TERNION_CLI_RECIPE_FILE_H

#include "cli/command.h"

/* Sets the options the recipe gives, except those that were given on the command line. */
tn_status cli_recipe_apply(const cli_command *command, const char *path, cli_arguments *arguments,
                           tn_error *error);

/* The text of a top-level key, NULL when absent; it lives as long as the program. */
tn_status cli_recipe_key(const char *path, const char *key, char **text, tn_error *error);

/* The file a name stands for: itself where it has a '/' or ends with .yaml, else NAME.yaml in one
 * of cli_recipe_folder. It lives as long as the program. */
tn_status cli_recipe_find(const char *name, char **path, tn_error *error);
/* Folders with recipes, in order of search: TERNION_RECIPES, the installed ones, those of a source
 * tree whose build folder the program lies in. False behind the last; `path` is then untouched. */
bool cli_recipe_folder(size_t i, char *path, size_t size);

#endif
