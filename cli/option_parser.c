/* argv into cli_arguments, by getopt_long over a command's tables. */
#include "cli/recipe_file.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPTIONS = 128 };

typedef struct long_table {
    struct option options[MAX_OPTIONS + 1];
    const cli_option *rows[MAX_OPTIONS];
    char letters[2 * MAX_OPTIONS + 4];
    int count;
} long_table;

static void table_fill(const cli_command *command, long_table *table)
{
    const cli_group *group;
    size_t used = 0;
    table->letters[used++] = ':'; /* a missing argument gives ':' */
    for (size_t g = 0; (group = cli_command_group(command, g)); g++) {
        for (const cli_option *row = group->options; row->name; row++) {
            int takes = row->kind == CLI_FLAG ? no_argument : required_argument;
            if (table->count == MAX_OPTIONS)
                return;
            table->options[table->count] =
                (struct option){row->name, takes, NULL, 1000 + table->count};
            table->rows[table->count++] = row;
            if (row->letter) {
                table->letters[used++] = row->letter;
                if (takes)
                    table->letters[used++] = ':';
            }
        }
    }
    table->letters[used] = '\0';
}

/* Copies an argument with '_' as '-' in the option's name. */
static char *with_dashes(const char *text)
{
    size_t length = strlen(text);
    char *copy = cli_alloc(length + 1);
    memcpy(copy, text, length + 1);
    if (strncmp(copy, "--", 2) == 0)
        for (char *at = copy + 2; *at && *at != '='; at++)
            if (*at == '_')
                *at = '-';
    return copy;
}

static const cli_option *row_of(const long_table *table, int found)
{
    if (found >= 1000)
        return table->rows[found - 1000];
    for (int i = 0; i < table->count; i++)
        if (table->rows[i]->letter == found)
            return table->rows[i];
    return NULL;
}

static tn_status fail_unknown(const cli_command *command, const char *given, tn_error *error)
{
    char name[128], shown[160], hint[160];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(given, "="), given);
    const char *bare = name + strspn(name, "-");
    const bool is_long = strncmp(given, "--", 2) == 0;
    cli_option_hint(command, is_long ? bare : "", hint, sizeof hint);
    return cli_fail(error, TN_ERROR_USAGE,
                    "unknown option \"%s\" for %s%s%s (see `ternion %s --help`)",
                    tn_escape(name, shown, sizeof shown), command->name, hint[0] ? "; " : "", hint,
                    command->name);
}

static tn_status fail_option(const cli_command *command, const long_table *table, int found,
                             const char *given, tn_error *error)
{
    if (found == ':') {
        const cli_option *row = row_of(table, optopt);
        return cli_fail(error, TN_ERROR_USAGE, "--%s needs an argument: %s", row ? row->name : "?",
                        row ? row->argument : "?");
    }
    if (optopt >= 1000)
        return cli_fail(error, TN_ERROR_USAGE, "--%s takes no argument",
                        row_of(table, optopt)->name);
    char letter[3] = {'-', (char)optopt, '\0'};
    return fail_unknown(command, optopt ? letter : given, error);
}

static tn_status check_operands(const cli_command *command, const cli_arguments *arguments,
                                tn_error *error)
{
    size_t n = arguments->operands.count;
    if (arguments->help || arguments->version)
        return TN_OK;
    if (n < command->min_operands || n > command->max_operands)
        return cli_fail(error, TN_ERROR_USAGE, "%s: usage: ternion %s %s",
                        n < command->min_operands ? "an operand is missing" : "too many operands",
                        command->name, command->usage);
    return TN_OK;
}

/* The command line alone; lists and single values set here win over the recipe's. */
static tn_status parse_line(const cli_command *command, int argc, char **argv,
                            cli_arguments *arguments, tn_error *error)
{
    long_table table = {.count = 0};
    tn_status status = TN_OK;
    char **copy = cli_alloc(((size_t)argc + 1) * sizeof *copy);
    bool options_ended = false;
    table_fill(command, &table);
    for (int i = 0; i < argc; i++) {
        copy[i] = options_ended || i == 0 ? argv[i] : with_dashes(argv[i]);
        options_ended |= i > 0 && strcmp(argv[i], "--") == 0;
    }
    opterr = 0;
    optind = 0;
    while (status == TN_OK) {
        int at = optind ? optind : 1;
        int found = getopt_long(argc, copy, table.letters, table.options, NULL);
        char where[80];
        if (found == -1)
            break;
        if (found == '?' || found == ':') {
            const char *given = optind > 0 && copy[optind - 1] ? copy[optind - 1] : copy[at];
            status = fail_option(command, &table, found, given, error);
            break;
        }
        const cli_option *row = row_of(&table, found);
        snprintf(where, sizeof where, "--%s", row->name);
        status = cli_option_set(row, where, optarg, arguments, error);
    }
    for (int i = optind; status == TN_OK && i < argc; i++)
        cli_list_add(&arguments->operands, copy[i]);
    return status;
}

tn_status cli_parse(const cli_command *command, int argc, char **argv, cli_arguments *arguments,
                    tn_error *error)
{
    tn_status status = parse_line(command, argc, argv, arguments, error);
    if (status == TN_OK && arguments->recipe)
        status = cli_recipe_apply(command, arguments->recipe, arguments, error);
    if (status == TN_OK)
        status = check_operands(command, arguments, error);
    if (status == TN_OK && !arguments->help && !arguments->version)
        status = cli_needs_check(command, arguments, error);
    return status;
}
