/* ternion help [COMMAND], and what is made from the option tables for other programs. */
#include "cli/commands.h"
#include "cli/json_report.h"

#include <string.h>

static const char *const titles[] = {"schemes",       "forms",     "operators",
                                     "architectures", "data sets", "preprocessing"};

static void print_catalog(tn_catalog_kind kind)
{
    tn_catalog_entry entry;
    printf("%s:\n", titles[kind]);
    for (size_t i = 0; tn_catalog(kind, i, &entry); i++) {
        printf("  %-16s %s\n", entry.id, entry.summary);
        for (size_t p = 0; p < entry.n_parameters; p++)
            printf("      --%-14s %s [%s] (%s)\n", entry.parameters[p].name,
                   entry.parameters[p].help, entry.parameters[p].standard,
                   entry.parameters[p].range);
    }
}

static json_t *json_entry(const tn_catalog_entry *entry)
{
    json_t *parameters = json_array();
    for (size_t p = 0; p < entry->n_parameters; p++)
        json_array_append_new(parameters,
                              json_pack("{s:s, s:s, s:s, s:s}", "name", entry->parameters[p].name,
                                        "range", entry->parameters[p].range, "default",
                                        entry->parameters[p].standard, "help",
                                        entry->parameters[p].help));
    return json_pack("{s:s, s:s, s:o}", "id", entry->id, "summary", entry->summary, "parameters",
                     parameters);
}

static void show_catalog(const cli_context *context)
{
    json_t *report = cli_json_open(context);
    for (int kind = TN_CATALOG_QUANTIZERS; kind <= TN_CATALOG_IMAGES; kind++) {
        tn_catalog_entry entry;
        json_t *list = json_array();
        for (size_t i = 0; tn_catalog((tn_catalog_kind)kind, i, &entry); i++)
            json_array_append_new(list, json_entry(&entry));
        json_object_set_new(report, titles[kind], list);
        if (!context->arguments->json)
            print_catalog((tn_catalog_kind)kind);
    }
    if (context->arguments->json)
        cli_json_print(report);
    else
        json_decref(report);
}

static tn_status run(cli_context *context)
{
    const cli_arguments *arguments = context->arguments;
    const char *name = arguments->operands.count ? arguments->operands.items[0] : NULL;
    const cli_command *command = name ? cli_command_find(name) : NULL;
    char shown[128], hint[160];
    if (name && !command) {
        cli_command_hint(name, hint, sizeof hint);
        return cli_fail(&context->error, TN_ERROR_USAGE, "no command \"%s\"%s%s",
                        tn_escape(name, shown, sizeof shown), hint[0] ? "; " : "", hint);
    }
    if (arguments->json && !arguments->catalog)
        return cli_fail(&context->error, TN_ERROR_USAGE,
                        "--json: pages and scripts are text; `ternion help --catalog --json` is "
                        "what there is as JSON");
    if (arguments->completion)
        return cli_completion(arguments->completion, stdout, &context->error);
    if (arguments->catalog)
        show_catalog(context);
    else if (arguments->man)
        cli_man_page(command, stdout);
    else if (command)
        cli_help_command(command, stdout);
    else
        cli_help_overview(stdout);
    return TN_OK;
}

static const cli_option options[] = {
    {"catalog", 0, CLI_FLAG, NULL, NULL, 0, 0, NULL,
     "list schemes, forms, operators, architectures, data sets, preprocessing",
     offsetof(cli_arguments, catalog)},
    {"man", 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, "the page in man(7) format",
     offsetof(cli_arguments, man)},
    {"completion", 0, CLI_TEXT, "SHELL", "bash|zsh|fish", 0, 0, NULL, "a completion script",
     offsetof(cli_arguments, completion)},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};
static const cli_group own = {"Help", options, false};
static const cli_group *const groups[] = {&own, NULL};
static const cli_example examples[] = {
    {"ternion help quantize", "examples and options of a command"},
    {"ternion help --catalog", "schemes, forms, operators, architectures"},
    {"ternion help --completion bash > ternion.bash", "completion for a shell"},
    {NULL, NULL}};

const cli_command cli_help_command_row = {"help",
                                          "commands, options, schemes, forms",
                                          "[COMMAND] [options]",
                                          "Without an operand, the list of commands.",
                                          examples,
                                          groups,
                                          0,
                                          1,
                                          run,
                                          false};
