/* ternion compare A B */
#include "cli/commands.h"
#include "cli/evaluation_summary.h"
#include "cli/json_report.h"
#include "cli/layer_table.h"
#include "cli/library_options.h"
#include "cli/terminal.h"

static void print_json(const cli_context *context, const tn_compare_report *comparison)
{
    json_t *report = cli_json_open(context);
    cli_json_comparison(report, comparison);
    cli_json_print(report);
}

static void print_text(const tn_compare_report *comparison)
{
    char a[512], b[512];
    for (size_t i = 0; i < comparison->n_layers; i++)
        comparison->layers[i].quantized = true; /* every row has figures here */
    cli_print_converted_layers(comparison->layers, comparison->n_layers);
    printf("\n%s: %s bytes\n%s: %s bytes\nrelMSE of all weights %.6g\n",
           tn_escape(comparison->a, a, sizeof a), cli_count((int64_t)comparison->bytes_a),
           tn_escape(comparison->b, b, sizeof b), cli_count((int64_t)comparison->bytes_b),
           comparison->relmse);
    if (comparison->unmatched_a || comparison->unmatched_b)
        printf("left out, without a counterpart: %s layers of A, %s of B\n",
               cli_count(comparison->unmatched_a), cli_count(comparison->unmatched_b));
    if (!comparison->on_a)
        return;
    const bool labelled = cli_is_labelled(comparison->on_a);
    if (labelled) {
        cli_print_accuracy("A", comparison->on_a);
        cli_print_accuracy("B", comparison->on_b);
    }
    printf("same class on %.2f %% of %s images, KL %.5f", 100 * comparison->agreement,
           cli_count(comparison->images), comparison->kl);
    if (labelled)
        printf(", top-1 drops by %.2f points", comparison->drop_top1);
    putchar('\n');
}

/* The comparison fails where the user said from which drop on. */
static tn_status judge(cli_context *context, const tn_compare_report *comparison)
{
    const double limit = context->arguments->fail_if_drop;
    if (cli_is_given(context->arguments, "fail-if-drop") && !(comparison->drop_top1 <= limit))
        return cli_fail(&context->error, TN_ERROR_DIFFERS,
                        "top-1 accuracy drops by %.2f points, more than %.2f",
                        comparison->drop_top1, limit);
    return TN_OK;
}

static tn_status run(cli_context *context)
{
    const cli_arguments *arguments = context->arguments;
    const tn_compare_request request = {.in = cli_input_options(arguments),
                                        .data = arguments->data,
                                        .labelled = cli_is_given(arguments, "fail-if-drop"),
                                        .images = cli_image_options(arguments)};
    tn_compare_report *comparison = NULL;
    tn_status status = tn_compare_files(arguments->operands.items[0], arguments->operands.items[1],
                                        &request, &context->reporter, &comparison, &context->error);
    if (status != TN_OK)
        return status;
    if (arguments->json)
        print_json(context, comparison);
    else
        print_text(comparison);
    status = judge(context, comparison);
    tn_compare_report_free(comparison);
    return status;
}

static const cli_option options[] = {
    {"data", 'd', CLI_TEXT, "DATA", "FILE", 0, 0, NULL,
     "run both on a data set too: accuracies, agreement, KL of the outputs",
     offsetof(cli_arguments, data)},
    {"fail-if-drop", 0, CLI_REAL, "POINTS", NULL, 0, 0, NULL,
     "exit code 1 when B's top-1 accuracy is lower by more than that many percentage points; needs "
     "--data",
     offsetof(cli_arguments, fail_if_drop)},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};
static const cli_group own = {"Compare", options, false};
static const cli_group *const groups[] = {&own, &cli_images, &cli_reading, NULL};
static const cli_example examples[] = {
    {"ternion compare model.onnx model-t.onnx", "how far each layer's weights moved"},
    {"ternion compare model.onnx model-t.onnx --data cifar10 --fail-if-drop 1",
     "accuracies side by side; exit code 1 when B loses more than a point"},
    {NULL, NULL}};

const cli_command cli_compare_command = {
    "compare",
    "how far two models are apart: weights, and outputs on a data set",
    "A B [options]",
    "Layer by layer, the relative squared error of B's weights against A's and the signal to "
    "quantization noise ratio. Packed weights are unpacked first.",
    examples,
    groups,
    2,
    2,
    run,
    false};
