/* ternion evaluate MODEL --data DATA */
#include "cli/commands.h"
#include "cli/evaluation_summary.h"
#include "cli/library_options.h"
#include "cli/output_files.h"
#include "cli/terminal.h"

#include <stdlib.h>
#include <string.h>

static void print(const cli_context *context, const tn_evaluate_report *report)
{
    char text[512];
    if (context->arguments->json) {
        json_t *json = cli_json_open(context), *figures = cli_json_evaluation(report);
        json_object_update(json, figures);
        json_decref(figures);
        cli_json_print(json);
        return;
    }
    if (context->arguments->verbose)
        for (size_t i = 0; i < report->n_classes; i++)
            if (report->classes[i].images)
                printf(
                    "%-32s %6.2f %% of %s\n", tn_escape(report->classes[i].name, text, sizeof text),
                    100.0 * (double)report->classes[i].correct / (double)report->classes[i].images,
                    cli_count(report->classes[i].images));
    if (context->arguments->quiet) /* else it was said when the data set was opened */
        printf("%s\n", tn_escape(report->description, text, sizeof text));
    printf("%s of %s images right, preprocessing %s\n", cli_count(report->correct_top1),
           cli_count(report->images), report->preprocess);
    if (report->bad)
        printf("%s corrupt images left out\n", cli_count(report->bad));
    cli_print_accuracy(tn_escape(report->model, text, sizeof text), report);
    printf("%.0f images/s on %s, %s\n", report->images_per_s, report->device, report->precision);
}

/* One line an image: index, label, top-1 class, top-1 logit. */
static void put_predictions(FILE *out, const void *content)
{
    const tn_evaluate_report *report = content;
    for (int64_t i = 0; i < report->images; i++)
        fprintf(out, "%lld\t%lld\t%lld\t%.9g\n", (long long)report->predictions[i].index,
                (long long)report->predictions[i].label, (long long)report->predictions[i].top1,
                report->predictions[i].logit);
}

/* "5" or "1,5": top-1 is always counted, and one K beside it. */
static tn_status parse_topk(cli_context *context, int *top_k)
{
    const char *text = context->arguments->topk;
    char *end;
    *top_k = 0;
    if (!text)
        return TN_OK;
    const char *last = strncmp(text, "1,", 2) == 0 ? text + 2 : text;
    long k = strtol(last, &end, 10);
    if (end == last || *end || k < 1 || k > 1000)
        return cli_fail(&context->error, TN_ERROR_USAGE,
                        "--topk: expected one K from 1 to 1000 such as 5, or 1,5: top-1 is always "
                        "counted, and one K beside it");
    *top_k = (int)k;
    return TN_OK;
}

static tn_status run(cli_context *context)
{
    const cli_arguments *arguments = context->arguments;
    tn_evaluate_request request = {
        .in = cli_input_options(arguments),
        .images = cli_image_options(arguments),
        .input = {arguments->input[0], arguments->input[1], arguments->input[2]},
        .keep_predictions = arguments->predictions != NULL};
    tn_evaluate_report *report = NULL;
    if (!arguments->data)
        return cli_fail(&context->error, TN_ERROR_USAGE, "give a data set: --data DATA");
    tn_status status = parse_topk(context, &request.top_k);
    if (status == TN_OK)
        status = tn_evaluate_file(arguments->operands.items[0], arguments->data, &request,
                                  &context->reporter, &report, &context->error);
    if (status != TN_OK)
        return status;
    print(context, report);
    if (arguments->predictions && !arguments->dry_run)
        status = cli_file_write(arguments->predictions, arguments->force, put_predictions, report,
                                &context->error);
    tn_evaluate_report_free(report);
    return status;
}

static const cli_option options[] = {
    {"data", 'd', CLI_TEXT, "DATA", "FILE", 0, 0, NULL,
     "a folder or file, perhaps with :train or :val (the default) behind it (required)",
     offsetof(cli_arguments, data)},
    {"topk", 'k', CLI_TEXT, "1,K", NULL, 0, 0, "1,5", "count the right ones among the best K",
     offsetof(cli_arguments, topk)},
    {"limit", 0, CLI_INTEGER, "N", NULL, 1, INT64_MAX, "all",
     "at most so many images, drawn by the seed", offsetof(cli_arguments, limit)},
    {"input", 0, CLI_SHAPE, "CxHxW", NULL, 0, 0, "the model's", "another resolution",
     offsetof(cli_arguments, input)},
    {"predictions", 0, CLI_TEXT, "FILE", "FILE", 0, 0, NULL,
     "write a line an image: index, label, top-1 class, its logit",
     offsetof(cli_arguments, predictions)},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};
static const cli_group own = {"Evaluate", options, false};
static const cli_group *const groups[] = {&own, &cli_images, &cli_reading, NULL};
static const cli_example examples[] = {
    {"ternion evaluate model.onnx --data imagenet", "accuracy on the validation part"},
    {"ternion evaluate model.onnx --data photos:train --preprocess imagenet --limit 1000",
     "on 1,000 training images"},
    {NULL, NULL}};

const cli_command cli_evaluate_command = {
    "evaluate",
    "accuracy of a model on a data set",
    "MODEL --data DATA [options]",
    "Finds out what DATA is (image folders, CIFAR, Tiny ImageNet, MNIST-style IDX, NumPy, "
    "WebDataset, CSV, lists) and says so. Preprocessing is the one kept in the model, else the "
    "usual one for the data; a look at some hundred images warns when it does not fit.",
    examples,
    groups,
    1,
    1,
    run,
    false};
