/* ternion verify MODEL */
#include "cli/commands.h"
#include "cli/json_report.h"
#include "cli/library_options.h"
#include "cli/terminal.h"

static tn_status run(cli_context *context)
{
    const cli_arguments *arguments = context->arguments;
    const tn_input_options options = cli_input_options(arguments);
    tn_verify_report *verification = NULL;
    char file[512];
    tn_status status = tn_verify_file(arguments->operands.items[0], arguments->against, &options,
                                      &context->reporter, &verification, &context->error);
    if (status != TN_OK)
        return status;
    if (arguments->json) {
        json_t *report = cli_json_open(context);
        json_object_set_new(report, "file", cli_json_text(verification->file));
        json_object_set_new(report, "against", cli_json_text(verification->against));
        json_object_set_new(report, "layers", json_integer(verification->layers));
        json_object_set_new(report, "halves", json_integer(verification->halves));
        json_object_set_new(report, "activations", json_integer(verification->activations));
        json_object_set_new(report, "untouched", json_integer(verification->untouched));
        cli_json_print(report);
    } else {
        printf("%s: codes and scales of %s layers give the stored values bit by bit\n",
               tn_escape(verification->file, file, sizeof file), cli_count(verification->layers));
        if (verification->halves > 0)
            printf("FLOAT16 weights of %s layers are those that were written\n",
                   cli_count(verification->halves));
        if (verification->activations > 0)
            printf("%s activations are quantized as its record says\n",
                   cli_count(verification->activations));
        if (arguments->against)
            printf("%s other tensors equal those of %s\n", cli_count(verification->untouched),
                   tn_escape(verification->against, file, sizeof file));
    }
    tn_verify_report_free(verification);
    return TN_OK;
}

static const cli_option options[] = {{"against", 0, CLI_TEXT, "MODEL", "FILE", 0, 0, NULL,
                                      "the model it was made from: untouched tensors must be equal",
                                      offsetof(cli_arguments, against)},
                                     {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};
static const cli_group own = {"Verify", options, false};
static const cli_group *const groups[] = {&own, &cli_reading, NULL};
static const cli_example examples[] = {
    {"ternion verify t.onnx --against model.onnx",
     "exit code 1 when the file does not hold what its record says"},
    {NULL, NULL}};

const cli_command cli_verify_command = {
    "verify",
    "check a written file against its record",
    "MODEL [--against ORIGINAL] [options]",
    "The record must parse, every code must be legal, and what the graph computes for each weight "
    "must be bit for bit code times scale.",
    examples,
    groups,
    1,
    1,
    run,
    false};
