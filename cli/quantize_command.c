/* ternion quantize MODEL -o OUT */
#include "cli/commands.h"
#include "cli/json_report.h"
#include "cli/layer_table.h"
#include "cli/library_options.h"
#include "cli/terminal.h"

#include <float.h>
#include <stdlib.h>

static bool is_coarse(const tn_conversion_report *report)
{
    for (size_t i = 0; i < report->n_layers; i++)
        if (report->layers[i].quantized && report->layers[i].bits <= 3 &&
            report->layers[i].relmse > 0)
            return true;
    return false;
}

/* 0 points are a target too, which the request's 0 is not: the least loss there is. */
static double target_drop(const cli_arguments *arguments)
{
    const bool none = cli_is_given(arguments, "target-drop") && arguments->target_drop == 0;
    return none ? DBL_MIN : arguments->target_drop;
}

static tn_status run(cli_context *context)
{
    const cli_arguments *arguments = context->arguments;
    tn_conversion_report *report = NULL;
    const bool only_table =
        arguments->sensitivity && !arguments->target_size && !(target_drop(arguments) > 0);
    tn_status status = only_table ? TN_OK : cli_require_output(context);
    if (status != TN_OK)
        return status;
    char *recipe = cli_json_recipe(context);
    const tn_quantize_request options = {.in = cli_input_options(arguments),
                                         .out = cli_output_options(arguments, recipe),
                                         .scheme = cli_scheme_options(arguments),
                                         .calibration_data = arguments->calibration_data,
                                         .save_synthesized = arguments->save_synthesized,
                                         .method = arguments->method,
                                         .bn = arguments->bn,
                                         .target_size = arguments->target_size,
                                         .target_drop = target_drop(arguments),
                                         .sensitivity = arguments->sensitivity,
                                         .activation_bits = (int)arguments->activation_bits,
                                         .input_bits = (int)arguments->input_bits,
                                         .bias_bits =
                                             arguments->bias_bits ? atoi(arguments->bias_bits) : 0,
                                         .equalize = arguments->equalize,
                                         .activation_range = arguments->activation_range,
                                         .val = arguments->val,
                                         .samples = arguments->calibration_samples,
                                         .images = cli_image_options(arguments)};
    status = tn_quantize_file(arguments->operands.items[0], only_table ? "" : arguments->out,
                              &options, &context->reporter, &report, &context->error);
    free(recipe);
    if (status != TN_OK)
        return status;
    cli_print_conversion(context, report);
    if (report->images == 0 && is_coarse(report))
        cli_message(
            TN_LOG_WARNING,
            "weights of 3 bits or fewer chosen without data: expect the accuracy to fall to "
            "chance. Calibrate with some hundred unlabelled images (quantize "
            "--calibration-data DIR) or train (finetune --data DIR)");
    tn_conversion_report_free(report);
    return TN_OK;
}

static const cli_example examples[] = {
    {"ternion quantize resnet18.onnx -o resnet18-t.onnx",
     "ternary weights at 2 bits; first and last layer stay float"},
    {"ternion quantize resnet18.onnx -o resnet18-t.onnx --calibration-data photos",
     "the same, fitted to 256 unlabelled images: most of the accuracy comes back"},
    {"ternion quantize resnet18.onnx -o resnet18-t.onnx --calibration-data synthesize "
     "--save-synthesized made.npy",
     "without images; the next run takes --calibration-data made.npy"},
    {"ternion quantize resnet18.onnx -o r4.onnx --scheme fixed --bits 4",
     "4-bit weights, one scale a channel"},
    {"ternion quantize resnet18.onnx -o r8.onnx --scheme fixed --bits 8 --activation-bits 8 "
     "--form qdq --calibration-data photos",
     "8-bit weights and activations"},
    {"ternion quantize resnet18.onnx -o t.onnx --layer 'layer3=4' --layer '^conv1=8'",
     "bits chosen by name: 'conv1' alone would match layer3.0.conv1 too; the last match wins"},
    {"ternion quantize resnet18.onnx -o t.onnx --scheme ttq --form qdq --dry-run",
     "the plan and its figures, nothing written"},
    {NULL, NULL}};
static const cli_group *const groups[] = {&cli_writing,     &cli_scheme,      &cli_calibration,
                                          &cli_activations, &cli_form,        &cli_images,
                                          &cli_reading,     &cli_from_recipe, NULL};

const cli_command cli_quantize_command = {
    "quantize",
    "make the weights of a trained network ternary or n-bit",
    "MODEL -o OUT [options]",
    "Quantizes the constant weights of Conv, ConvTranspose, Gemm and MatMul, and writes a standard "
    "ONNX file with packed weights. The first and the last layer, biases and BatchNormalization "
    "stay as they are unless told otherwise. Without data, 4 bits and more keep most networks "
    "usable; 3 bits and fewer do not.",
    examples,
    groups,
    1,
    1,
    run,
    false};
