/* ternion report RUN [RUN ...] | A B [C ...] -o report.html */
#include "cli/commands.h"
#include "cli/evaluation_summary.h"
#include "cli/json_report.h"
#include "cli/library_options.h"
#include "cli/models_page.h"
#include "cli/output_files.h"
#include "cli/report_page.h"
#include "cli/run_journal.h"
#include "cli/runs_page.h"
#include "cli/terminal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void write_body(FILE *out, const json_t *figures);

typedef struct page {
    write_body *body;
    const json_t *figures;
} page;

static void put_page(FILE *out, const void *content)
{
    const page *p = content;
    p->body(out, p->figures);
}

static void put_figures(FILE *out, const void *content)
{
    json_dumpf(content, out, JSON_INDENT(1));
    fputc('\n', out);
}

/* Figures of a run's layers from the files it read and wrote, where they are still there and still
 * those: their histograms. */
static void add_layers(json_t *figures)
{
    const json_t *result = json_object_get(figures, "result");
    const char *input = cli_figure_text(result, "input"),
               *output = cli_figure_text(result, "output");
    const tn_compare_request request = {.histograms = true};
    tn_compare_report *comparison = NULL;
    if (!*input || !*output || access(input, R_OK) != 0 || access(output, R_OK) != 0 ||
        tn_compare_files(input, output, &request, NULL, &comparison, NULL) != TN_OK)
        return;
    if ((double)comparison->bytes_a == cli_figure(result, "bytes_in") &&
        (double)comparison->bytes_b == cli_figure(result, "bytes_out"))
        json_object_update_new(figures, json_pack("{s:o, s:o}", "layers",
                                                  cli_json_compared_layers(comparison), "edges",
                                                  cli_json_edges(comparison)));
    tn_compare_report_free(comparison);
}

/* One run's figures, or {"runs": [..]} of several. */
static tn_status read_figures(const char *const *runs, size_t n_runs, json_t **figures,
                              tn_error *error)
{
    tn_status status = TN_OK;
    if (n_runs == 1) {
        status = cli_run_journal_read(runs[0], figures, error);
        if (status == TN_OK)
            add_layers(*figures);
        return status;
    }
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

/* The page and its figures beside it; takes `figures`. */
static tn_status write_report(json_t *figures, write_body *body, const char *path,
                              const cli_arguments *arguments, tn_error *error)
{
    char beside[4096];
    const page made = {body, figures};
    tn_status status = cli_figures_path(path, beside, error);
    json_object_set_new(figures, "schema", json_integer(1));
    json_object_set_new(figures, "command", json_string("report"));
    json_object_set_new(figures, "ternion", json_string(tn_version()));
    if (status == TN_OK && !arguments->dry_run)
        status = cli_file_write(path, arguments->force, put_page, &made, error);
    if (status == TN_OK && !arguments->dry_run)
        status = cli_file_write(beside, arguments->force, put_figures, figures, error);
    json_decref(figures);
    return status;
}

tn_status cli_report_write(const char *const *runs, size_t n_runs, const char *path,
                           const cli_arguments *arguments, tn_error *error)
{
    json_t *figures = NULL;
    tn_status status = read_figures(runs, n_runs, &figures, error);
    if (status == TN_OK)
        status = write_report(figures, n_runs == 1 ? cli_report_page : cli_runs_page, path,
                              arguments, error);
    return status;
}

const char *cli_report_page_path(const cli_arguments *arguments)
{
    return arguments->out ? arguments->out : "report.html";
}

static bool is_model(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot && strcmp(dot, ".onnx") == 0;
}

/* Models have no journal: told apart by name, before a binary file is read as one. */
static tn_status check_operands(const cli_arguments *arguments, bool *models, tn_error *error)
{
    const cli_list *operands = &arguments->operands;
    char shown[512];
    size_t n = 0;
    const char *model = NULL;
    for (size_t i = 0; i < operands->count; i++) {
        model = is_model(operands->items[i]) ? operands->items[i] : model;
        n += is_model(operands->items[i]);
    }
    *models = n == operands->count;
    if (*models && n == 1)
        return cli_fail(error, TN_ERROR_USAGE,
                        "%s is a model: give a second one to compare it with, or folders of runs "
                        "(`ternion finetune --checkpoint`)",
                        tn_escape(model, shown, sizeof shown));
    if (model && !*models)
        return cli_fail(error, TN_ERROR_USAGE,
                        "%s is a model, other arguments are none: a page is of runs or of models",
                        tn_escape(model, shown, sizeof shown));
    if (arguments->layer_images > 0 && !arguments->data)
        return cli_fail(error, TN_ERROR_USAGE, "--sensitivity is measured on images: give --data");
    if (!*models && arguments->data)
        return cli_fail(error, TN_ERROR_USAGE, "--data is for models: a run has its accuracies");
    return TN_OK;
}

/* Every model against the first. */
static tn_status write_models(cli_context *context, const char *path)
{
    const cli_arguments *arguments = context->arguments;
    const tn_compare_request request = {.in = cli_input_options(arguments),
                                        .data = arguments->data,
                                        .images = cli_image_options(arguments),
                                        .histograms = true,
                                        .sensitivity = arguments->layer_images};
    json_t *comparisons = json_array();
    tn_status status = TN_OK;
    for (size_t i = 1; i < arguments->operands.count && status == TN_OK; i++) {
        tn_compare_report *comparison = NULL;
        status = tn_compare_files(arguments->operands.items[0], arguments->operands.items[i],
                                  &request, &context->reporter, &comparison, &context->error);
        if (status != TN_OK)
            break;
        json_t *figures = json_object();
        cli_json_comparison(figures, comparison);
        json_array_append_new(comparisons, figures);
        tn_compare_report_free(comparison);
    }
    if (status == TN_OK)
        status = write_report(json_pack("{s:O}", "comparisons", comparisons), cli_models_page, path,
                              arguments, &context->error);
    json_decref(comparisons);
    return status;
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
    const char *path = cli_report_page_path(arguments);
    char shown[512];
    bool models;
    tn_status status = check_operands(arguments, &models, &context->error);
    if (status == TN_OK && models)
        status = write_models(context, path);
    else if (status == TN_OK)
        status = cli_report_write((const char *const *)runs->items, runs->count, path, arguments,
                                  &context->error);
    if (status != TN_OK)
        return status;
    if (arguments->json) {
        json_t *json = cli_json_open(context);
        if (models)
            json_object_set_new(json, "models", names_of(runs));
        else if (runs->count == 1)
            json_object_set_new(json, "run", cli_json_text(runs->items[0]));
        else
            json_object_set_new(json, "runs", names_of(runs));
        json_object_set_new(json, "output", cli_json_text(path));
        cli_json_print(json);
    } else {
        printf("%s%s\n", tn_escape(path, shown, sizeof shown),
               arguments->dry_run ? ": not written" : "");
    }
    return TN_OK;
}

static const cli_option report_options[] = {
    {"out", 'o', CLI_TEXT, "FILE.html", "FILE", 0, 0, "report.html",
     "where the page goes; its figures go beside it, into FILE.json", offsetof(cli_arguments, out)},
    {"force", 'f', CLI_FLAG, NULL, NULL, 0, 0, NULL, "overwrite them",
     offsetof(cli_arguments, force)},
    {"data", 'd', CLI_TEXT, "DATA", "FILE", 0, 0, NULL,
     "run the models on a data set: accuracies, by class too", offsetof(cli_arguments, data)},
    {"sensitivity", 0, CLI_INTEGER, "N", NULL, 1, 1000000, "not measured",
     "with --data: what each layer costs alone, on N of the images",
     offsetof(cli_arguments, layer_images)},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};
static const cli_group own = {"Page", report_options, false};
static const cli_group *const groups[] = {&own, &cli_images, &cli_reading, NULL};
static const cli_example examples[] = {
    {"ternion report run -o run.html", "of `ternion finetune ... --checkpoint run`"},
    {"ternion report run-1 run-2 -o runs.html", "two runs side by side"},
    {"ternion report model.onnx model-t.onnx --data cifar10 -o models.html",
     "what quantization did to weights and classes"},
    {NULL, NULL}};

const cli_command cli_report_command = {
    "report",
    "an HTML page about a run, several, or models",
    "RUN [RUN ...] | A B [C ...] -o report.html",
    "Makes one page of a fine-tuning run from the journal in its folder: accuracy and size before "
    "and after, curves of loss, accuracy, learning rate, and of every layer's zeros and changed "
    "codes, accuracy by class, the layers by bits and histograms of their weights where the run's "
    "files are still there, the recipe, seed and hashes. Several runs stand side by side, with "
    "what their recipes differ in. Models (names ending in .onnx) are compared with the first of "
    "them: layers by bits, weights with thresholds and levels of the codes they became, and with "
    "--data accuracy against bytes and bits, and by class; with --sensitivity what each layer "
    "costs "
    "alone. It holds no scripts and needs nothing "
    "else. The run may still be going on.",
    examples,
    groups,
    1,
    16,
    run,
    false};
