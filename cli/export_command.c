/* ternion export MODEL -o OUT --form FORM */
#include "cli/commands.h"
#include "cli/json_report.h"
#include "cli/layer_table.h"
#include "cli/library_options.h"

static tn_status run(cli_context *context)
{
    const cli_arguments *arguments = context->arguments;
    tn_conversion_report *report = NULL;
    tn_status status = cli_require_output(context);
    if (status != TN_OK)
        return status;
    const tn_export_request options = {.in = cli_input_options(arguments),
                                       .out = cli_output_options(arguments, NULL)};
    status = tn_export_file(arguments->operands.items[0], arguments->out, &options,
                            &context->reporter, &report, &context->error);
    if (status != TN_OK)
        return status;
    cli_print_conversion(context, report);
    tn_conversion_report_free(report);
    return TN_OK;
}

static const cli_example examples[] = {
    {"ternion export t.onnx -o t-float.onnx --form float",
     "plain float weights, for tools that fold nothing"},
    {"ternion export t.onnx -o t-qdq.onnx --form qdq", "DequantizeLinear, for newer runtimes"},
    {NULL, NULL}};
static const cli_group *const groups[] = {&cli_writing, &cli_form, &cli_reading, NULL};

const cli_command cli_export_command = {
    "export",
    "write the quantized weights in another encoding",
    "MODEL -o OUT --form FORM [options]",
    "Any form to any other; codes, scales and values stay bit for bit what they were. A form that "
    "cannot hold a weight says so.",
    examples,
    groups,
    1,
    1,
    run,
    false};
