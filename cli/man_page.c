/* Manual pages in man(7) macros, from the tables. */
#include "cli/command.h"

#include <ctype.h>
#include <string.h>

/* Text with troff's special characters escaped. */
static void put(FILE *out, const char *text)
{
    if (*text == '.' || *text == '\'')
        fputs("\\&", out);
    for (; *text; text++) {
        if (*text == '\\')
            fputs("\\e", out);
        else if (*text == '-')
            fputs("\\-", out);
        else
            fputc(*text, out);
    }
}

static void put_upper(FILE *out, const char *text)
{
    for (; *text; text++)
        fputc(toupper((unsigned char)*text), out);
}

static void put_option(const cli_option *row, FILE *out)
{
    fputs(".TP\n\\fB", out);
    if (row->letter)
        fprintf(out, "\\-%c\\fR, \\fB", row->letter);
    fputs("\\-\\-", out);
    put(out, row->name);
    fputs("\\fR", out);
    if (row->argument) {
        fputs(" \\fI", out);
        put(out, row->argument);
        fputs("\\fR", out);
    }
    fputc('\n', out);
    put(out, row->help);
    if (cli_option_is_choice(row)) {
        fputs(" (", out);
        put(out, row->choices);
        fputc(')', out);
    }
    if (row->kind == CLI_LIST)
        fputs("; may be repeated", out);
    if (row->standard) {
        fputs(". Default: ", out);
        put(out, row->standard);
    }
    fputs(".\n", out);
}

static void put_head(const char *name, const char *summary, FILE *out)
{
    fputs(".TH TERNION", out);
    if (name) {
        fputs("\\-", out);
        put_upper(out, name);
    }
    fprintf(out, " 1 \"\" \"ternion %s\" \"User commands\"\n.SH NAME\nternion", tn_version());
    if (name) {
        fputs("\\-", out);
        put(out, name);
    }
    fputs(" \\- ", out);
    put(out, summary);
    fputs("\n.SH SYNOPSIS\n.B ternion", out);
}

static void put_exit_codes(FILE *out)
{
    fputs(".SH EXIT STATUS\n0 success; 1 a comparison or verification failed; 2 usage; 3 bad or "
          "unsupported model; 4 bad data set; 5 training diverged; 6 reading or writing failed; "
          "7 out of memory or over a limit; 8 device; 130 stopped by Ctrl-C "
          "(SIGINT); 143 stopped by SIGTERM.\n",
          out);
}

static void put_overview(FILE *out)
{
    put_head(NULL, "ternary and n-bit weights for trained ONNX image networks", out);
    fputs("\n\\fICOMMAND\\fR [\\fIoperands\\fR] [\\fIoptions\\fR]\n.SH COMMANDS\n", out);
    const cli_command *command;
    for (size_t i = 0; (command = cli_command_at(i)); i++) {
        fputs(".TP\n\\fB", out);
        put(out, command->name);
        fputs("\\fR\n", out);
        put(out, command->summary);
        fputc('\n', out);
    }
    put_exit_codes(out);
    fputs(".SH FILES\n.TP\n~/.cache/ternion/cudnn-*.plans\n(or in $XDG_CACHE_HOME) engines that "
          "cuDNN chose on this machine's GPUs; not read or written with "
          "TERNION_CUDNN_CACHE=off.\n",
          out);
}

void cli_man_page(const cli_command *command, FILE *out)
{
    if (!command) {
        put_overview(out);
        return;
    }
    put_head(command->name, command->summary, out);
    fputs(" \\fB", out);
    put(out, command->name);
    fputs("\\fR ", out);
    put(out, command->usage);
    fputs("\n.SH DESCRIPTION\n", out);
    put(out, command->details);
    fputc('\n', out);
    if (command->examples->command)
        fputs(".SH EXAMPLES\n", out);
    for (const cli_example *example = command->examples; example->command; example++) {
        fputs(".TP\n", out);
        put(out, example->command);
        fputc('\n', out);
        put(out, example->what);
        fputc('\n', out);
    }
    fputs(".SH OPTIONS\n", out);
    const cli_group *group;
    for (size_t g = 0; (group = cli_command_group(command, g)); g++) {
        fprintf(out, ".SS %s\n", group->title);
        for (const cli_option *row = group->options; row->name; row++)
            put_option(row, out);
    }
    put_exit_codes(out);
}
