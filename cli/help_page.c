/* `ternion help` and `ternion COMMAND --help`, from the tables. */
#include "cli/command.h"

#include <string.h>

enum { WIDTH = 92, HELP_COLUMN = 30 };

/* Prints words from column `at` on, wrapped at WIDTH with that indent. */
static void print_wrapped(FILE *out, int at, int indent, const char *text)
{
    int column = at;
    while (*text) {
        int length = (int)strcspn(text, " ");
        if (column > indent && column + 1 + length > WIDTH) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", length, text);
        column += length;
        text += length;
        text += *text == ' ';
    }
    fputc('\n', out);
}

static void print_option(const cli_option *row, FILE *out)
{
    char left[96], right[512];
    int used = snprintf(left, sizeof left, row->letter ? "  -%c, " : "      ", row->letter);
    used += snprintf(left + used, sizeof left - (size_t)used, "--%s", row->name);
    if (row->argument)
        used += snprintf(left + used, sizeof left - (size_t)used, " %s", row->argument);
    const bool listed = cli_option_is_choice(row);
    snprintf(right, sizeof right, "%s%s%s%s%s%s%s%s", row->help, listed ? " (" : "",
             listed ? row->choices : "", listed ? ")" : "", row->standard ? " [" : "",
             row->standard ? row->standard : "", row->standard ? "]" : "",
             row->kind == CLI_LIST ? "; may be repeated" : "");
    fputs(left, out);
    if (used >= HELP_COLUMN - 1) {
        fputc('\n', out);
        used = 0;
    }
    fprintf(out, "%*s", HELP_COLUMN - used, "");
    print_wrapped(out, HELP_COLUMN, HELP_COLUMN, right);
}

void cli_help_command(const cli_command *command, FILE *out)
{
    fprintf(out, "ternion %s: %s\n\n", command->name, command->summary);
    for (const cli_example *example = command->examples; example->command; example++)
        fprintf(out, "  %s\n      %s\n", example->command, example->what);
    fprintf(out, "%susage: ternion %s %s\n\n", command->examples->command ? "\n" : "",
            command->name, command->usage);
    print_wrapped(out, 0, 0, command->details);
    const cli_group *group;
    for (size_t g = 0; (group = cli_command_group(command, g)); g++) {
        fprintf(out, "\n%s:\n", group->title);
        for (const cli_option *row = group->options; row->name; row++)
            print_option(row, out);
    }
}

void cli_help_overview(FILE *out)
{
    fputs(
        "ternion makes trained ONNX image networks ternary or n-bit, packed at 2 bits a weight.\n\n"
        "  ternion create resnet20 -o r20.onnx          a network to try it on\n"
        "  ternion quantize r20.onnx -o r20-t.onnx      ternary weights, without data\n"
        "  ternion inspect r20-t.onnx                   what is in a file\n\n"
        "usage: ternion COMMAND [operands] [options]\n\nCommands:\n",
        out);
    const cli_command *command;
    for (size_t i = 0; (command = cli_command_at(i)); i++)
        fprintf(out, "  %-10s %s\n", command->name, command->summary);
    fputs("\n`ternion COMMAND --help` shows a command's examples and options.\n\n"
          "Exit codes: 0 ok, 1 a comparison or verification failed, 2 usage, 3 bad or unsupported "
          "model,\n4 bad data set, 5 training diverged, 6 reading or writing failed, 7 out of "
          "memory or over a limit,\n8 device, 130 stopped by Ctrl-C (SIGINT), 143 stopped by "
          "SIGTERM.\n",
          out);
}
