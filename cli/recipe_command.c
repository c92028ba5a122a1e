/* ternion recipe list | show NAME | run NAME ... (the last is main's: it becomes the command the
 * recipe is for). */
#include "cli/commands.h"
#include "cli/json_report.h"
#include "cli/recipe_file.h"
#include "cli/terminal.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names of the recipes in a folder, sorted. */
static void folder_names(const char *folder, cli_list *names)
{
    DIR *stream = opendir(folder);
    struct dirent *entry;
    while (stream && (entry = readdir(stream))) {
        size_t length = strlen(entry->d_name);
        if (length <= 5 || strcmp(entry->d_name + length - 5, ".yaml") != 0)
            continue;
        char *name = cli_alloc(length);
        memcpy(name, entry->d_name, length - 5);
        cli_list_add(names, name);
    }
    if (stream)
        closedir(stream);
    if (names->count)
        qsort(names->items, names->count, sizeof *names->items, by_text);
}

/* Where recipes were looked for in vain. */
static void tell_folders(void)
{
    char folder[4096], shown[512];
    cli_message(TN_LOG_INFO, "no recipes; a recipe is NAME.yaml in one of:");
    for (size_t i = 0; cli_recipe_folder(i, folder, sizeof folder); i++)
        cli_message(TN_LOG_INFO, "  %s", tn_escape(folder, shown, sizeof shown));
}

static tn_status list_recipes(cli_context *context)
{
    char folder[4096];
    json_t *recipes = json_array();
    for (size_t i = 0; cli_recipe_folder(i, folder, sizeof folder); i++) {
        cli_list names = {NULL, 0};
        folder_names(folder, &names);
        for (size_t n = 0; n < names.count; n++) {
            char path[4400], *description = NULL;
            snprintf(path, sizeof path, "%s/%s.yaml", folder, names.items[n]);
            tn_status status = cli_recipe_key(path, "description", &description, &context->error);
            if (status != TN_OK) {
                json_decref(recipes);
                return status;
            }
            json_array_append_new(recipes,
                                  json_pack("{s:s, s:s, s:s}", "name", names.items[n], "path", path,
                                            "description", description ? description : ""));
        }
    }
    if (context->arguments->json) {
        json_t *report = cli_json_open(context);
        json_object_set(report, "recipes", recipes);
        cli_json_print(report);
    } else {
        size_t index;
        json_t *recipe;
        json_array_foreach(recipes, index, recipe)
            printf("%-28s %s\n", json_string_value(json_object_get(recipe, "name")),
                   json_string_value(json_object_get(recipe, "description")));
    }
    if (json_array_size(recipes) == 0)
        tell_folders();
    json_decref(recipes);
    return TN_OK;
}

/* The file's text, at most MAX_SHOWN bytes. */
static tn_status read_text(const char *path, char **text, tn_error *error)
{
    enum { MAX_SHOWN = 1 << 20 };
    char shown[512];
    FILE *file = fopen(path, "rb");
    *text = cli_alloc(MAX_SHOWN + 1);
    size_t got = file ? fread(*text, 1, MAX_SHOWN, file) : 0;
    tn_status status = TN_OK;
    if (!file || ferror(file)) /* a folder can be opened, but not read */
        status = cli_fail(error, TN_ERROR_IO, "cannot read the recipe %s: %s",
                          tn_escape(path, shown, sizeof shown), strerror(errno));
    else if (strlen(*text) != got || !feof(file))
        status = cli_fail(error, TN_ERROR_USAGE, "%s is no recipe, which is a short text file",
                          tn_escape(path, shown, sizeof shown));
    if (file)
        fclose(file);
    return status;
}

static tn_status show_recipe(cli_context *context, const char *name)
{
    char *path = NULL, *text = NULL;
    tn_status status = cli_recipe_find(name, &path, &context->error);
    if (status == TN_OK)
        status = read_text(path, &text, &context->error);
    if (status == TN_OK && context->arguments->json) {
        json_t *report = cli_json_open(context);
        json_object_set_new(report, "path", cli_json_text(path));
        json_object_set_new(report, "text", cli_json_text(text));
        cli_json_print(report);
    } else if (status == TN_OK) {
        fputs(text, stdout);
    }
    return status;
}

static tn_status run(cli_context *context)
{
    const cli_list *operands = &context->arguments->operands;
    if (strcmp(operands->items[0], "list") == 0 && operands->count == 1)
        return list_recipes(context);
    if (strcmp(operands->items[0], "show") == 0 && operands->count == 2)
        return show_recipe(context, operands->items[1]);
    return cli_fail(&context->error, TN_ERROR_USAGE, "usage: ternion recipe %s",
                    context->command->usage);
}

static const cli_example examples[] = {
    {"ternion recipe list", "what there is"},
    {"ternion recipe run cifar10-ternary resnet20.onnx -o out.onnx --data cifar10",
     "the recipe's command with its options; more options may follow"},
    {NULL, NULL}};
static const cli_group *const groups[] = {NULL};

const cli_command cli_recipe_command = {
    "recipe",
    "options kept in YAML files: list, show, run",
    "list | show NAME | run NAME [operands] [options]",
    "A recipe is a YAML mapping of option names and values, checked against the option table of "
    "its command. NAME is a file or the name of one in the folders of recipes (TERNION_RECIPES, "
    "the installed ones).",
    examples,
    groups,
    1,
    2,
    run,
    false};
