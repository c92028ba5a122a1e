/* Finds the command, parses its options, runs it, and turns its status into the exit code. */
#include "cli/commands.h"
#include "cli/output_files.h"
#include "cli/recipe_file.h"
#include "cli/terminal.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int finish(tn_status status, const tn_error *error)
{
    cli_terminal_close();
    if (status == TN_OK)
        return 0;
    if (tn_process_rank() > 0) /* the first of several processes says it */
        return status == TN_ERROR_CANCELLED ? 130 : (int)status;
    if (status == TN_ERROR_CANCELLED && cli_signal_caught()) {
        cli_error("stopped; the output was not written"); /* checkpoints may be */
        return 128 + cli_signal_caught();
    }
    cli_error(error->message[0] ? error->message : "failed without a message");
    return status == TN_ERROR_CANCELLED ? 130 : (int)status;
}

static tn_status unknown_command(const char *name, tn_error *error)
{
    char shown[128], hint[160];
    cli_command_hint(name, hint, sizeof hint);
    return cli_fail(error, TN_ERROR_USAGE, "unknown command \"%s\"%s%s (see `ternion help`)",
                    tn_escape(name, shown, sizeof shown), hint[0] ? "; " : "", hint);
}

/* Under mpirun: several would do the same and overwrite each other's files. */
static tn_status check_alone(const cli_command *command, tn_error *error)
{
    if (tn_process_count() == 1 || command == &cli_finetune_command)
        return TN_OK;
    return cli_fail(error, TN_ERROR_USAGE,
                    "`ternion %s` is the work of one process, and %d were started: run it without "
                    "mpirun (only `ternion finetune` spreads over several)",
                    command->name, tn_process_count());
}

/* A limit that the user set is named where it was met. */
static void name_limit(uint64_t limit, tn_error *error)
{
    const size_t used = strlen(error->message);
    if (limit && !strstr(error->message, "--max-memory"))
        snprintf(error->message + used, sizeof error->message - used,
                 "; --max-memory allows %llu bytes: allow more", (unsigned long long)limit);
}

static tn_status run_command(const cli_command *command, int argc, char **argv, tn_error *error)
{
    cli_arguments arguments;
    cli_context context = {.command = command, .arguments = &arguments};
    memset(&arguments, 0, sizeof arguments);
    const bool asks_help = argc > 1 && strcmp(argv[1], "--help") == 0;
    tn_status status = TN_OK;
    if (!command->planned || asks_help)
        status = cli_parse(command, argc, argv, &arguments, error);
    if (status == TN_OK && !arguments.help && !arguments.version)
        status = check_alone(command, error);
    if (status != TN_OK)
        return status;
    cli_terminal_open(&context);
    if (arguments.help) {
        cli_help_command(command, stdout);
    } else if (arguments.version) {
        printf("ternion %s\n", tn_version());
    } else {
        tn_configure((int)arguments.threads, arguments.max_memory);
        status = cli_outputs_check(&context);
        if (status == TN_OK)
            status = command->run(&context);
        if (status != TN_OK)
            *error = context.error;
        if (status == TN_ERROR_LIMIT)
            name_limit(arguments.max_memory, error);
    }
    return status == TN_OK ? cli_output_flush(error) : status;
}

/* `recipe run NAME ...` is `COMMAND --recipe FILE ...` of the recipe's command. */
static tn_status run_recipe(int argc, char **argv, tn_error *error)
{
    char *path = NULL, *name = NULL;
    if (argc < 3)
        return cli_fail(error, TN_ERROR_USAGE,
                        "usage: ternion recipe run NAME [operands] [options]");
    tn_status status = cli_recipe_find(argv[2], &path, error);
    if (status == TN_OK)
        status = cli_recipe_key(path, "command", &name, error);
    if (status != TN_OK)
        return status;
    const cli_command *command = name ? cli_command_find(name) : NULL;
    char shown[128], place[512], hint[160];
    tn_escape(path, place, sizeof place);
    if (!name)
        return cli_fail(error, TN_ERROR_USAGE,
                        "the recipe %s does not say which command it is for: expected a line such "
                        "as command: finetune",
                        place);
    if (!command) {
        cli_command_hint(name, hint, sizeof hint);
        return cli_fail(error, TN_ERROR_USAGE, "the recipe %s is for an unknown command \"%s\"%s%s",
                        place, tn_escape(name, shown, sizeof shown), hint[0] ? "; " : "", hint);
    }
    char **line = cli_alloc(((size_t)argc + 1) * sizeof *line);
    line[0] = name;
    line[1] = (char[]){"--recipe"};
    line[2] = path;
    memcpy(line + 3, argv + 3, ((size_t)argc - 3) * sizeof *line);
    return run_command(command, argc, line, error);
}

/* OpenMP's threads spin between parallel regions unless told otherwise, which ruins a machine that
 * others use too (6 times the processor time, measured in training). The runtime reads its policy
 * when it is loaded, so the program starts itself again with it. */
static void wait_passively(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT"))
        return;
    if (setenv("OMP_WAIT_POLICY", "passive", 1) == 0)
        execv("/proc/self/exe", argv); /* where that fails the program simply goes on */
}

int main(int argc, char **argv)
{
    tn_error error = {.code = TN_OK};
    tn_status status;
    wait_passively(argv);
    cli_signals_catch();
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is a failed write */
    if (argc < 2) {
        cli_help_overview(stderr);
        return TN_ERROR_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("ternion %s\n", tn_version());
        status = cli_output_flush(&error);
    } else if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        cli_help_overview(stdout);
        status = cli_output_flush(&error);
    } else if (argc > 2 && strcmp(argv[1], "recipe") == 0 && strcmp(argv[2], "run") == 0) {
        status = run_recipe(argc - 1, argv + 1, &error);
    } else {
        const cli_command *command = cli_command_find(argv[1]);
        status = command ? run_command(command, argc - 1, argv + 1, &error)
                         : unknown_command(argv[1], &error);
    }
    return finish(status, &error);
}
