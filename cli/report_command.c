/* ternion report RUN [RUN ...] -o report.html */
#include "cli/commands.h"
#include "cli/json_report.h"
#include "cli/library_options.h"
#include "cli/report_page.h"
#include "cli/run_journal.h"
#include "cli/runs_page.h"
#include "cli/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef void write_body(FILE *out, const json_t *figures);

static void write_json(FILE *out, const json_t *figures)
{
    json_dumpf(figures, out, JSON_INDENT(1));
    fputc('\n', out);
}

/* Beside its place, then there: a reader never sees half a page. */
static tn_status write_file(const char *path, bool force, write_body *body, const json_t *figures,
                            tn_error *error)
{
    char temporary[4096], shown[512];
    const char *name = tn_escape(path, shown, sizeof shown);
    if (!force && access(path, F_OK) == 0)
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
    body(file, figures);
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

/* One run's figures, or {"runs": [..]} of several. */
static tn_status read_figures(const char *const *runs, size_t n_runs, json_t **figures,
                              tn_error *error)
{
    tn_status status = TN_OK;
    if (n_runs == 1)
        return cli_run_journal_read(runs[0], figures, error);
    json_t *all = json_array();
    for (size_t i = 0; status == TN_OK && i < n_runs; i++) {
        json_t *run = NULL;
        status = cli_run_journal_read(runs[i], &run, error);
        if (status == TN_OK)
            json_array_append_new(all, run);
    }
    if (status == TN_OK)
        *figures = json_pack("{s:O}", "runs", all);
    json_decref(all);
    return status;
}

tn_status cli_report_write(const char *const *runs, size_t n_runs, const char *path, bool force,
                           tn_error *error)
{
    char beside[4096];
    json_t *figures = NULL;
    const char *dot = strrchr(path, '.'), *slash = strrchr(path, '/');
    size_t stem = dot && (!slash || dot > slash) ? (size_t)(dot - path) : strlen(path);
    if (snprintf(beside, sizeof beside, "%.*s.json", (int)stem, path) >= (int)sizeof beside ||
        strcmp(beside, path) == 0)
        return cli_fail(error, TN_ERROR_USAGE,
                        "give a name such as report.html: the figures go into report.json");
    tn_status status = read_figures(runs, n_runs, &figures, error);
    if (status != TN_OK)
        return status;
    json_object_set_new(figures, "schema", json_integer(1));
    json_object_set_new(figures, "command", json_string("report"));
    json_object_set_new(figures, "ternion", json_string(tn_version()));
    status = write_file(path, force, n_runs == 1 ? cli_report_page : cli_runs_page, figures, error);
    if (status == TN_OK)
        status = write_file(beside, force, write_json, figures, error);
    json_decref(figures);
    return status;
}

/* Models have no journal: told apart by name, before a binary file is read as one. */
static tn_status refuse_models(const cli_list *operands, tn_error *error)
{
    char shown[512];
    for (size_t i = 0; i < operands->count; i++) {
        const char *dot = strrchr(operands->items[i], '.');
        if (dot && strcmp(dot, ".onnx") == 0)
            return cli_fail(error, TN_ERROR_USAGE,
                            "%s is a model: a page of models is not supported in this version "
                            "(%s); give folders of runs (`ternion finetune --checkpoint`), or "
                            "`ternion compare A B`",
                            tn_escape(operands->items[i], shown, sizeof shown), tn_version());
    }
    return TN_OK;
}

static json_t *names_of(const cli_list *operands)
{
    json_t *names = json_array();
    for (size_t i = 0; i < operands->count; i++)
        json_array_append_new(names, cli_json_text(operands->items[i]));
    return names;
}

static tn_status run(cli_context *context)
{
    const cli_arguments *arguments = context->arguments;
    const cli_list *runs = &arguments->operands;
    const char *path = arguments->out ? arguments->out : "report.html";
    char shown[512];
    tn_status status = refuse_models(runs, &context->error);
    if (status == TN_OK)
        status = cli_report_write((const char *const *)runs->items, runs->count, path,
                                  arguments->force, &context->error);
    if (status != TN_OK)
        return status;
    if (arguments->json) {
        json_t *json = cli_json_open(context);
        if (runs->count == 1)
            json_object_set_new(json, "run", cli_json_text(runs->items[0]));
        else
            json_object_set_new(json, "runs", names_of(runs));
        json_object_set_new(json, "output", cli_json_text(path));
        cli_json_print(json);
    } else {
        printf("%s\n", tn_escape(path, shown, sizeof shown));
    }
    return TN_OK;
}

static const cli_option report_options[] = {
    {"out", 'o', CLI_TEXT, "FILE.html", "FILE", 0, 0, "report.html",
     "where the page goes; its figures go beside it, into FILE.json", offsetof(cli_arguments, out)},
    {"force", 'f', CLI_FLAG, NULL, NULL, 0, 0, NULL, "overwrite them",
     offsetof(cli_arguments, force)},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};
static const cli_group own = {"Page", report_options, false};
static const cli_group *const groups[] = {&own, NULL};
static const cli_example examples[] = {
    {"ternion report run -o run.html", "of `ternion finetune ... --checkpoint run`"},
    {"ternion report run-1 run-2 -o runs.html", "two runs side by side"},
    {NULL, NULL}};

const cli_command cli_report_command = {
    "report",
    "an HTML page about a run, or several",
    "RUN [RUN ...] -o report.html",
    "Makes one page of a fine-tuning run from the journal in its folder: accuracy and size before "
    "and after, curves of loss, accuracy, learning rate, and of every layer's zeros and changed "
    "codes, the recipe, seed and hashes. Several runs stand side by side, with what their recipes "
    "differ in. It holds no scripts and needs nothing else. The run may "
    "still be going on.",
    examples,
    groups,
    1,
    16,
    run,
    false};
