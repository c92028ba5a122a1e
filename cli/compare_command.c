/* ternion compare A B */
#include "cli/commands.h"
#include "cli/json_report.h"
#include "cli/layer_table.h"
#include "cli/library_options.h"
#include "cli/terminal.h"

static void print_json(const cli_context *context, const tn_compare_report *comparison)
{
    json_t *layers = json_array(), *report = cli_json_open(context);
    for (size_t i = 0; i < comparison->n_layers; i++)
        json_array_append_new(layers, cli_json_converted_layer(&comparison->layers[i]));
    json_t *figures =
        json_pack("{s:o, s:o, s:I, s:I, s:o, s:o}", "a", cli_json_text(comparison->a), "b",
                  cli_json_text(comparison->b), "bytes_a", (json_int_t)comparison->bytes_a,
                  "bytes_b", (json_int_t)comparison->bytes_b, "relmse",
                  cli_json_real(comparison->relmse), "layers", layers);
    json_object_update(report, figures);
    json_decref(figures);
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
}

static tn_status run(cli_context *context)
{
    const cli_arguments *arguments = context->arguments;
    const tn_input_options options = cli_input_options(arguments);
    tn_compare_report *comparison = NULL;
    tn_status status = tn_compare_files(arguments->operands.items[0], arguments->operands.items[1],
                                        &options, &context->reporter, &comparison, &context->error);
    if (status != TN_OK)
        return status;
    if (arguments->json)
        print_json(context, comparison);
    else
        print_text(comparison);
    tn_compare_report_free(comparison);
    return TN_OK;
}

static const cli_group *const groups[] = {&cli_reading, NULL};
static const cli_example examples[] = {
    {"ternion compare model.onnx model-t.onnx", "how far each layer's weights moved"},
    {NULL, NULL}};

const cli_command cli_compare_command = {
    "compare",
    "how far the weights of two models are apart",
    "A B [options]",
    "Layer by layer, the relative squared error of B's weights against A's and the signal to "
    "quantization noise ratio. Packed weights are unpacked first.",
    examples,
    groups,
    2,
    2,
    run,
    false};
