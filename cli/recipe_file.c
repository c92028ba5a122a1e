#include "cli/recipe_file.h"

#include <yaml.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_RECIPE = 1 << 20 };

static tn_status load(const char *path, yaml_document_t *document, tn_error *error)
{
    char shown[256];
    yaml_parser_t parser;
    FILE *file = fopen(path, "rb");
    tn_escape(path, shown, sizeof shown);
    if (!file)
        return cli_fail(error, TN_ERROR_IO, "cannot open the recipe %s: %s", shown,
                        strerror(errno));
    tn_status status = TN_OK;
    if (fseek(file, 0, SEEK_END) != 0 || ftell(file) > MAX_RECIPE || fseek(file, 0, SEEK_SET) != 0)
        status =
            cli_fail(error, TN_ERROR_IO, "%s: not a recipe of at most %d bytes", shown, MAX_RECIPE);
    else if (!yaml_parser_initialize(&parser))
        status = cli_fail(error, TN_ERROR_LIMIT, "out of memory");
    if (status != TN_OK) {
        fclose(file);
        return status;
    }
    yaml_parser_set_input_file(&parser, file);
    if (!yaml_parser_load(&parser, document)) {
        status =
            cli_fail(error, TN_ERROR_USAGE, "%s: line %zu: %s", shown, parser.problem_mark.line + 1,
                     parser.problem ? parser.problem : "not YAML");
    } else {
        yaml_node_t *root = yaml_document_get_root_node(document);
        if (!root || root->type != YAML_MAPPING_NODE) {
            yaml_document_delete(document);
            status = cli_fail(error, TN_ERROR_USAGE,
                              "%s: a recipe is a mapping of option names and values", shown);
        }
    }
    yaml_parser_delete(&parser);
    fclose(file);
    return status;
}

static const char *scalar(const yaml_node_t *node)
{
    return node && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

static const cli_option *recipe_option(const cli_command *command, const char *name)
{
    const cli_group *group;
    for (size_t g = 0; (group = cli_command_group(command, g)); g++)
        for (const cli_option *row = group->options; group->in_recipe && row->name; row++)
            if (cli_option_names_equal(row->name, name))
                return row;
    return NULL;
}

/* The document dies before the arguments: their texts are copies. */
static tn_status set_value(const cli_option *row, const char *where, const yaml_node_t *value,
                           cli_arguments *arguments, tn_error *error)
{
    const char *text = scalar(value);
    if (!text)
        return cli_fail(error, TN_ERROR_USAGE, "%s: expected one value", where);
    if (row->kind == CLI_FLAG) {
        if (strcmp(text, "false") == 0)
            return TN_OK;
        if (strcmp(text, "true") != 0)
            return cli_fail(error, TN_ERROR_USAGE, "%s: expected true or false", where);
    }
    size_t size = strlen(text) + 1;
    return cli_option_set(row, where, memcpy(cli_alloc(size), text, size), arguments, error);
}

static tn_status set_option(const cli_command *command, const char *path, yaml_document_t *document,
                            const char *key, yaml_node_t *value, const cli_list *given,
                            cli_arguments *arguments, tn_error *error)
{
    char where[512], hint[160], shown[128];
    snprintf(where, sizeof where, "%s: %s", path, tn_escape(key, shown, sizeof shown));
    const cli_option *row = recipe_option(command, key);
    if (!row) {
        cli_option_hint(command, key, hint, sizeof hint);
        return cli_fail(error, TN_ERROR_USAGE, "%s is no option of %s that a recipe can give%s%s",
                        where, command->name, hint[0] ? "; " : "", hint);
    }
    if (cli_list_has(given, row->name))
        return TN_OK;
    if (value->type != YAML_SEQUENCE_NODE || row->kind != CLI_LIST)
        return set_value(row, where, value, arguments, error);
    tn_status status = TN_OK;
    for (yaml_node_item_t *item = value->data.sequence.items.start;
         status == TN_OK && item < value->data.sequence.items.top; item++)
        status = set_value(row, where, yaml_document_get_node(document, *item), arguments, error);
    return status;
}

static tn_status apply_pair(const cli_command *command, const char *path, yaml_document_t *document,
                            const yaml_node_pair_t *pair, const cli_list *given,
                            cli_arguments *arguments, tn_error *error)
{
    char shown[256];
    const char *key = scalar(yaml_document_get_node(document, pair->key));
    yaml_node_t *value = yaml_document_get_node(document, pair->value);
    tn_escape(path, shown, sizeof shown);
    if (!key || !value)
        return cli_fail(error, TN_ERROR_USAGE, "%s: keys must be option names", shown);
    if (strcmp(key, "description") == 0)
        return TN_OK;
    if (strcmp(key, "command") == 0) {
        if (!scalar(value) || strcmp(scalar(value), command->name) != 0)
            return cli_fail(error, TN_ERROR_USAGE, "%s is a recipe for another command than %s",
                            shown, command->name);
        return TN_OK;
    }
    return set_option(command, shown, document, key, value, given, arguments, error);
}

tn_status cli_recipe_apply(const cli_command *command, const char *path, cli_arguments *arguments,
                           tn_error *error)
{
    yaml_document_t document;
    const cli_list given = arguments->given; /* by the command line, which wins */
    tn_status status = load(path, &document, error);
    if (status != TN_OK)
        return status;
    const yaml_node_t *root = yaml_document_get_root_node(&document);
    for (const yaml_node_pair_t *pair = root->data.mapping.pairs.start;
         status == TN_OK && pair < root->data.mapping.pairs.top; pair++)
        status = apply_pair(command, path, &document, pair, &given, arguments, error);
    yaml_document_delete(&document);
    return status;
}

tn_status cli_recipe_key(const char *path, const char *wanted, char **text, tn_error *error)
{
    yaml_document_t document;
    tn_status status = load(path, &document, error);
    if (status != TN_OK)
        return status;
    const yaml_node_t *root = yaml_document_get_root_node(&document);
    *text = NULL;
    for (const yaml_node_pair_t *pair = root->data.mapping.pairs.start;
         pair < root->data.mapping.pairs.top; pair++) {
        const char *key = scalar(yaml_document_get_node(&document, pair->key));
        const char *value = scalar(yaml_document_get_node(&document, pair->value));
        if (key && value && strcmp(key, wanted) == 0 && !*text) {
            *text = cli_alloc(strlen(value) + 1);
            memcpy(*text, value, strlen(value));
        }
    }
    yaml_document_delete(&document);
    return TN_OK;
}

/* The folder the program lies in, with `behind` appended. */
static bool beside_program(const char *behind, char *path, size_t size)
{
    char program[4096];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length <= 0)
        return false;
    program[length] = '\0';
    char *slash = strrchr(program, '/');
    if (!slash)
        return false;
    *slash = '\0';
    return snprintf(path, size, "%s/%s", program, behind) < (int)size;
}

bool cli_recipe_folder(size_t i, char *path, size_t size)
{
    const char *own = getenv("TERNION_RECIPES");
    if (own && *own) {
        if (i == 0) {
            snprintf(path, size, "%s", own);
            return true;
        }
        i--;
    }
    if (i == 0)
        return beside_program("../share/ternion/recipes", path, size);
    return i == 1 && beside_program("../../recipes", path, size);
}

tn_status cli_recipe_find(const char *name, char **path, tn_error *error)
{
    char folder[4096], shown[256], *text;
    size_t length = strlen(name);
    const bool is_path = strchr(name, '/') || (length > 5 && !strcmp(name + length - 5, ".yaml"));
    for (size_t i = 0; !is_path && cli_recipe_folder(i, folder, sizeof folder); i++) {
        size_t size = strlen(folder) + length + 7;
        text = cli_alloc(size);
        snprintf(text, size, "%s/%s.yaml", folder, name);
        if (access(text, R_OK) == 0) {
            *path = text;
            return TN_OK;
        }
    }
    if (!is_path)
        return cli_fail(error, TN_ERROR_USAGE, "no recipe \"%s\"; `ternion recipe list` names them",
                        tn_escape(name, shown, sizeof shown));
    *path = memcpy(cli_alloc(length + 1), name, length + 1);
    return TN_OK;
}
