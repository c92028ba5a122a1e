/* Completion scripts for bash, zsh and fish, from the tables: for each command the words that may
 * follow, and for options with a fixed set of values those. */
#include "cli/command.h"

#include <string.h>

static void put_choices(FILE *out, const char *choices)
{
    for (; *choices; choices++)
        fputc(*choices == '|' ? ' ' : *choices, out);
}

/* Options whose values the library lists. */
static bool is_listed(const cli_option *row, tn_catalog_kind *kind)
{
    static const struct {
        const char *name;
        tn_catalog_kind kind;
    } lists[] = {{"scheme", TN_CATALOG_QUANTIZERS},
                 {"form", TN_CATALOG_FORMS},
                 {"preprocess", TN_CATALOG_IMAGES}};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        if (strcmp(row->name, lists[i].name) == 0) {
            *kind = lists[i].kind;
            return true;
        }
    return false;
}

static bool has_values(const cli_option *row)
{
    tn_catalog_kind kind;
    return cli_option_is_choice(row) || is_listed(row, &kind);
}

static void put_catalog(FILE *out, tn_catalog_kind kind)
{
    tn_catalog_entry entry;
    for (size_t i = 0; tn_catalog(kind, i, &entry); i++)
        fprintf(out, "%s%s", i ? " " : "", entry.id);
}

/* Of an option that has_values. */
static void put_values(FILE *out, const cli_option *row)
{
    tn_catalog_kind kind;
    if (is_listed(row, &kind))
        put_catalog(out, kind);
    else
        put_choices(out, row->choices);
}

static void put_commands(FILE *out)
{
    const cli_command *command;
    for (size_t i = 0; (command = cli_command_at(i)); i++)
        fprintf(out, "%s%s", i ? " " : "", command->name);
}

/* What the first operand of a command can be, where that is a word of a list. */
static bool has_words(const cli_command *command)
{
    return strcmp(command->name, "create") == 0 || strcmp(command->name, "recipe") == 0 ||
           strcmp(command->name, "help") == 0;
}

static void put_words(FILE *out, const cli_command *command)
{
    if (strcmp(command->name, "create") == 0)
        put_catalog(out, TN_CATALOG_ARCHITECTURES);
    else if (strcmp(command->name, "recipe") == 0)
        fputs("list show run", out);
    else
        put_commands(out);
}

/* Calls `put` for every option of a command. */
static void each_option(const cli_command *command, FILE *out,
                        void (*put)(const cli_command *, const cli_option *, FILE *))
{
    const cli_group *group;
    for (size_t g = 0; (group = cli_command_group(command, g)); g++)
        for (const cli_option *row = group->options; row->name; row++)
            put(command, row, out);
}

static void put_bash_word(const cli_command *command, const cli_option *row, FILE *out)
{
    (void)command;
    fprintf(out, " --%s", row->name);
}

static void put_bash_choices(const cli_command *command, const cli_option *row, FILE *out)
{
    if (!has_values(row))
        return;
    fprintf(out, "        %s:--%s", command->name, row->name);
    if (row->letter)
        fprintf(out, "|%s:-%c", command->name, row->letter);
    fputs(") words=\"", out);
    put_values(out, row);
    fputs("\" ;;\n", out);
}

static void put_bash(FILE *out)
{
    const cli_command *command;
    fputs("# bash completion of ternion: source it, or install it as completions/ternion\n"
          "_ternion() {\n"
          "    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} words=\n"
          "    local command=${COMP_WORDS[1]}\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n        words=\"",
          out);
    put_commands(out);
    fputs("\"\n    else\n        case $command:$before in\n", out);
    for (size_t i = 0; (command = cli_command_at(i)); i++)
        each_option(command, out, put_bash_choices);
    fputs("        esac\n        [ -n \"$words\" ] || case $word in -*) case $command in\n", out);
    for (size_t i = 0; (command = cli_command_at(i)); i++) {
        fprintf(out, "        %s) words=\"", command->name);
        each_option(command, out, put_bash_word);
        fputs("\" ;;\n", out);
    }
    fputs("        esac ;; esac\n"
          "        [ -n \"$words\" ] || [ \"$COMP_CWORD\" -ne 2 ] || case $command in\n",
          out);
    for (size_t i = 0; (command = cli_command_at(i)); i++) {
        if (!has_words(command))
            continue;
        fprintf(out, "        %s) words=\"", command->name);
        put_words(out, command);
        fputs("\" ;;\n", out);
    }
    fputs("        esac\n    fi\n"
          "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
          "    [ -n \"$words\" ] || COMPREPLY=($(compgen -f -- \"$word\"))\n"
          "}\ncomplete -o filenames -F _ternion ternion\n",
          out);
}

/* Help text inside single quotes; zsh also minds brackets and colons. */
static void put_quoted(FILE *out, const char *text, const char *minded)
{
    for (; *text; text++) {
        if (*text == '\'')
            fputs("'\\''", out);
        else if (strchr(minded, *text))
            fprintf(out, "\\%c", *text);
        else
            fputc(*text, out);
    }
}

static void put_zsh_option(const cli_command *command, const cli_option *row, FILE *out)
{
    (void)command;
    fprintf(out, "            '%s--%s%s[", row->kind == CLI_LIST ? "*" : "", row->name,
            row->kind == CLI_FLAG ? "" : "=");
    put_quoted(out, row->help, "[]:\\");
    fputc(']', out);
    if (has_values(row)) {
        fprintf(out, ":%s:(", row->name);
        put_values(out, row);
        fputc(')', out);
    } else if (row->kind != CLI_FLAG) {
        fprintf(out, ":%s:_files", row->name);
    }
    fputs("' \\\n", out);
}

static void put_zsh(FILE *out)
{
    const cli_command *command;
    fputs("#compdef ternion\n_ternion() {\n    if (( CURRENT == 2 )); then\n        compadd ", out);
    put_commands(out);
    fputs("\n        return\n    fi\n    case $words[2] in\n", out);
    for (size_t i = 0; (command = cli_command_at(i)); i++) {
        fprintf(out, "    %s)\n        _arguments \\\n", command->name);
        each_option(command, out, put_zsh_option);
        if (has_words(command)) {
            fputs("            '2:word:(", out);
            put_words(out, command);
            fputs(")' \\\n", out);
        }
        fputs("            '*:file:_files' ;;\n", out);
    }
    fputs("    esac\n}\n_ternion \"$@\"\n", out);
}

static void put_fish_option(const cli_command *command, const cli_option *row, FILE *out)
{
    fprintf(out, "complete -c ternion -n '__fish_seen_subcommand_from %s' -l %s", command->name,
            row->name);
    if (row->letter)
        fprintf(out, " -s %c", row->letter);
    if (row->kind != CLI_FLAG)
        fputs(" -r", out);
    if (has_values(row)) {
        fputs(" -f -a '", out);
        put_values(out, row);
        fputc('\'', out);
    }
    fputs(" -d '", out);
    put_quoted(out, row->help, "\\");
    fputs("'\n", out);
}

static void put_fish(FILE *out)
{
    const cli_command *command;
    for (size_t i = 0; (command = cli_command_at(i)); i++) {
        fprintf(out, "complete -c ternion -f -n __fish_use_subcommand -a %s -d '", command->name);
        put_quoted(out, command->summary, "\\");
        fputs("'\n", out);
        each_option(command, out, put_fish_option);
        if (!has_words(command))
            continue;
        fprintf(out, "complete -c ternion -f -n '__fish_seen_subcommand_from %s' -a '",
                command->name);
        put_words(out, command);
        fputs("'\n", out);
    }
}

tn_status cli_completion(const char *shell, FILE *out, tn_error *error)
{
    if (strcmp(shell, "bash") == 0)
        put_bash(out);
    else if (strcmp(shell, "zsh") == 0)
        put_zsh(out);
    else if (strcmp(shell, "fish") == 0)
        put_fish(out);
    else
        return cli_fail(error, TN_ERROR_USAGE, "completion exists for bash, zsh and fish");
    return TN_OK;
}
