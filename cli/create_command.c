/* ternion create ARCH -o OUT */
#include "cli/commands.h"
#include "cli/json_report.h"
#include "cli/library_options.h"
#include "cli/terminal.h"

static void print(const cli_context *context, const tn_create_report *made)
{
    char output[512];
    if (context->arguments->json) {
        json_t *report = cli_json_open(context);
        json_t *figures = json_pack(
            "{s:s, s:o, s:I, s:I, s:I, s:[III], s:I}", "architecture", made->architecture, "output",
            cli_json_text(made->output), "bytes", (json_int_t)made->bytes, "parameters",
            (json_int_t)made->parameters, "classes", (json_int_t)made->classes, "input",
            (json_int_t)made->input[0], (json_int_t)made->input[1], (json_int_t)made->input[2],
            "seed", (json_int_t)made->seed);
        json_object_update(report, figures);
        json_decref(figures);
        cli_json_print(report);
        return;
    }
    printf("%s: %s, %s parameters, input %lldx%lldx%lld, %s classes, untrained (seed %llu)\n",
           tn_escape(made->output, output, sizeof output), made->architecture,
           cli_count(made->parameters), (long long)made->input[0], (long long)made->input[1],
           (long long)made->input[2], cli_count(made->classes), (unsigned long long)made->seed);
    if (context->arguments->dry_run)
        puts("not written (--dry-run)");
    else
        printf("%s bytes\n", cli_count((int64_t)made->bytes));
}

static tn_status run(cli_context *context)
{
    const cli_arguments *arguments = context->arguments;
    tn_create_report *made = NULL;
    tn_status status = cli_require_output(context);
    if (status != TN_OK)
        return status;
    const tn_create_request options = {
        .out = cli_output_options(arguments, NULL),
        .classes = arguments->classes,
        .input = {arguments->input[0], arguments->input[1], arguments->input[2]},
        .seed = (uint64_t)arguments->seed};
    status = tn_create_file(arguments->operands.items[0], arguments->out, &options,
                            &context->reporter, &made, &context->error);
    if (status != TN_OK)
        return status;
    print(context, made);
    tn_create_report_free(made);
    return TN_OK;
}

static const cli_option options[] = {
    {"classes", 0, CLI_INTEGER, "N", NULL, 1, 1 << 24, "the architecture's", "number of classes",
     offsetof(cli_arguments, classes)},
    {"input", 0, CLI_SHAPE, "CxHxW", NULL, 0, 0, "the architecture's", "shape of an image",
     offsetof(cli_arguments, input)},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};
static const cli_group own = {"Create", options, false};
static const cli_group *const groups[] = {&own, &cli_writing, NULL};
static const cli_example examples[] = {
    {"ternion create resnet20 -o resnet20.onnx", "CIFAR ResNet-20, 10 classes"},
    {"ternion create densenet-small -o d.onnx --classes 10 --input 3x32x32 --seed 7",
     "any input size and number of classes"},
    {"ternion help --catalog", "the architectures"},
    {NULL, NULL}};

const cli_command cli_create_command = {
    "create",
    "write an untrained network of a known architecture",
    "ARCHITECTURE -o OUT [options]",
    "Weights are drawn from the seed (He initialization): the same seed gives the same file.",
    examples,
    groups,
    1,
    1,
    run,
    false};
