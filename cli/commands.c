/* The table of commands. */
#include "cli/commands.h"

#include <string.h>

static const cli_command *const commands[] = {
    &cli_inspect_command, &cli_quantize_command, &cli_finetune_command, &cli_evaluate_command,
    &cli_export_command,  &cli_compare_command,  &cli_verify_command,   &cli_report_command,
    &cli_create_command,  &cli_data_command,     &cli_recipe_command,   &cli_help_command_row,
};

enum { N_COMMANDS = sizeof commands / sizeof commands[0], MAX_NAMES = 160 };

const cli_command *cli_command_at(size_t i)
{
    return i < N_COMMANDS ? commands[i] : NULL;
}

const cli_command *cli_command_find(const char *name)
{
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

static const char *hint(const char *dashes, const char *suggested, char *text, size_t size)
{
    text[0] = '\0';
    if (suggested)
        snprintf(text, size, "did you mean %s%s?", dashes, suggested);
    return text;
}

const char *cli_command_hint(const char *name, char *text, size_t size)
{
    const char *names[N_COMMANDS];
    for (size_t i = 0; i < N_COMMANDS; i++)
        names[i] = commands[i]->name;
    return hint("", cli_suggestion(name, names, N_COMMANDS), text, size);
}

const char *cli_option_hint(const cli_command *command, const char *name, char *text, size_t size)
{
    const char *names[MAX_NAMES];
    size_t count = 0;
    const cli_group *group;
    for (size_t g = 0; (group = cli_command_group(command, g)); g++)
        for (const cli_option *row = group->options; row->name && count < MAX_NAMES; row++)
            names[count++] = row->name;
    return hint("--", cli_suggestion(name, names, count), text, size);
}

const cli_group *cli_command_group(const cli_command *command, size_t i)
{
    size_t n = 0;
    while (command->groups[n])
        n++;
    return i < n ? command->groups[i] : i == n ? &cli_general : NULL;
}
