#include "cli/output_files.h"

#include "cli/commands.h"
#include "cli/library_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

tn_status cli_figures_path(const char *path, char beside[4096], tn_error *error)
{
    const char *dot = strrchr(path, '.'), *slash = strrchr(path, '/');
    size_t stem = dot && (!slash || dot > slash) ? (size_t)(dot - path) : strlen(path);
    if (snprintf(beside, 4096, "%.*s.json", (int)stem, path) >= 4096 || strcmp(beside, path) == 0)
        return cli_fail(error, TN_ERROR_USAGE,
                        "give a name such as report.html: the figures go into report.json");
    return TN_OK;
}

tn_status cli_file_write(const char *path, bool replace, cli_file_body *body, const void *content,
                         tn_error *error)
{
    char temporary[4096], shown[512];
    const char *name = tn_escape(path, shown, sizeof shown);
    if (!replace && access(path, F_OK) == 0)
        return cli_fail(error, TN_ERROR_USAGE, "%s exists already: give -f to overwrite it", name);
    if (snprintf(temporary, sizeof temporary, "%s.XXXXXX", path) >= (int)sizeof temporary)
        return cli_fail(error, TN_ERROR_IO, "%s: the path is too long", name);
    int descriptor = mkstemp(temporary);
    FILE *file = descriptor >= 0 ? fdopen(descriptor, "w") : NULL;
    if (!file) {
        if (descriptor >= 0)
            close(descriptor);
        return cli_fail(error, TN_ERROR_IO, "cannot write %s: %s", name, strerror(errno));
    }
    body(file, content);
    bool failed = fflush(file) != 0 || ferror(file) != 0 || fchmod(descriptor, 0644) != 0 ||
                  fsync(descriptor) != 0;
    failed = fclose(file) != 0 || failed;
    if (failed || rename(temporary, path) != 0) {
        tn_status status =
            cli_fail(error, TN_ERROR_IO, "cannot write %s: %s", name, strerror(errno));
        unlink(temporary);
        return status;
    }
    return TN_OK;
}

static void add(cli_list *list, const char *path)
{
    if (path && *path)
        cli_list_add(list, path);
}

/* Of a run's folder that is the journal: pages may lie beside it. */
static void add_run(cli_list *inputs, const char *run)
{
    struct stat info;
    if (!run || stat(run, &info) != 0)
        return;
    size_t size = strlen(run) + sizeof "/run.jsonl";
    char *journal = cli_alloc(size);
    snprintf(journal, size, S_ISDIR(info.st_mode) ? "%s/run.jsonl" : "%s", run);
    cli_list_add(inputs, journal);
}

static bool is_word(const char *text, const char *word)
{
    return text && strcmp(text, word) == 0;
}

/* Files and data sets that will be read. */
static cli_list list_inputs(const cli_context *context)
{
    const cli_arguments *a = context->arguments;
    cli_list inputs = {NULL, 0};
    for (size_t i = 0; i < a->operands.count; i++) {
        if (context->command == &cli_report_command)
            add_run(&inputs, a->operands.items[i]);
        else if (context->command != &cli_create_command) /* its operand is an architecture */
            add(&inputs, a->operands.items[i]);
    }
    add(&inputs, a->data);
    add(&inputs, a->val);
    add(&inputs, a->latent);
    add(&inputs, a->recipe);
    add(&inputs, is_word(a->calibration_data, "synthesize") ? NULL : a->calibration_data);
    add(&inputs, is_word(a->distill, "self") || is_word(a->distill, "none") ? NULL : a->distill);
    add_run(&inputs, a->checkpoint);
    return inputs;
}

/* Pages have their figures beside them. */
static tn_status list_outputs(const cli_context *context, cli_list *outputs, tn_error *error)
{
    const cli_arguments *a = context->arguments;
    const char *page =
        context->command == &cli_report_command ? cli_report_page_path(a) : a->report;
    tn_status status = TN_OK;
    if (context->command != &cli_report_command)
        add(outputs, a->out);
    add(outputs, a->predictions);
    add(outputs, a->save_synthesized);
    if (page) {
        char *beside = cli_alloc(4096);
        status = cli_figures_path(page, beside, error);
        add(outputs, page);
        add(outputs, beside);
    }
    return status;
}

static tn_status check_distinct(const cli_list *outputs, tn_error *error)
{
    char shown[512];
    for (size_t i = 1; i < outputs->count; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(outputs->items[i], outputs->items[k]) == 0)
                return cli_fail(error, TN_ERROR_USAGE,
                                "%s would be written twice, by two options: give each a file of "
                                "its own",
                                tn_escape(outputs->items[i], shown, sizeof shown));
    return TN_OK;
}

tn_status cli_outputs_check(cli_context *context)
{
    const cli_list inputs = list_inputs(context);
    const tn_output_options options = cli_output_options(context->arguments, NULL);
    cli_list outputs = {NULL, 0};
    tn_status status = list_outputs(context, &outputs, &context->error);
    if (status == TN_OK)
        status = check_distinct(&outputs, &context->error);
    for (size_t i = 0; i < outputs.count && status == TN_OK; i++)
        status = tn_output_check(outputs.items[i], (const char *const *)inputs.items, inputs.count,
                                 &options, &context->error);
    if (status == TN_OK && context->arguments->dry_run && context->arguments->checkpoint)
        status = cli_fail(&context->error, TN_ERROR_USAGE,
                          "--checkpoint keeps files, and --dry-run writes none: give one of them");
    return status;
}
