/* ternion inspect MODEL */
#include "cli/commands.h"
#include "cli/json_report.h"
#include "cli/layer_table.h"
#include "cli/library_options.h"
#include "cli/terminal.h"

static json_t *json_values(const tn_value_report *values, size_t count, bool stored)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_t *value = json_pack("{s:o, s:s, s:o}", "name", cli_json_text(values[i].name), "type",
                                  values[i].dtype, "shape", cli_json_shape(&values[i].shape));
        if (stored)
            json_object_set_new(value, "bytes", json_integer((json_int_t)values[i].bytes));
        json_array_append_new(list, value);
    }
    return list;
}

static uint64_t graph_bytes(const tn_inspect_report *in)
{
    uint64_t known = in->bytes_codes + in->bytes_scales + in->bytes_tensors + in->bytes_record;
    return in->bytes > known ? in->bytes - known : 0;
}

static void print_json(const cli_context *context, const tn_inspect_report *in)
{
    json_t *layers = json_array(), *report = cli_json_open(context);
    for (size_t i = 0; i < in->n_layers; i++)
        json_array_append_new(layers, cli_json_inspected_layer(&in->layers[i]));
    json_t *figures = json_pack(
        "{s:o, s:I, s:I, s:I, s:o, s:o, s:o, s:I, s:I, s:o, s:{s:I, s:I, s:I, s:I, s:I}}", "file",
        cli_json_text(in->file), "bytes", (json_int_t)in->bytes, "ir", (json_int_t)in->ir, "opset",
        (json_int_t)in->opset, "producer", cli_json_text(in->producer), "inputs",
        json_values(in->inputs, in->n_inputs, false), "outputs",
        json_values(in->outputs, in->n_outputs, false), "parameters", (json_int_t)in->parameters,
        "flops", (json_int_t)in->flops, "layers", layers, "stored", "codes",
        (json_int_t)in->bytes_codes, "scales", (json_int_t)in->bytes_scales, "tensors",
        (json_int_t)in->bytes_tensors, "record", (json_int_t)in->bytes_record, "graph",
        (json_int_t)graph_bytes(in));
    json_object_update(report, figures);
    json_decref(figures);
    if (context->arguments->tensors)
        json_object_set_new(report, "tensors", json_values(in->tensors, in->n_tensors, true));
    cli_json_print(report);
}

static void print_values(const char *title, const tn_value_report *values, size_t count,
                         bool stored)
{
    char name[160];
    for (size_t i = 0; i < count; i++) {
        printf("%-8s %s %s", title, tn_escape(values[i].name, name, sizeof name), values[i].dtype);
        for (int d = 0; d < values[i].shape.rank; d++)
            if (values[i].shape.dims[d] < 0)
                printf("%s?", d ? "x" : " ");
            else
                printf("%s%lld", d ? "x" : " ", (long long)values[i].shape.dims[d]);
        if (stored)
            printf(", %s bytes", cli_count((int64_t)values[i].bytes));
        fputc('\n', stdout);
    }
}

static void print_text(const cli_context *context, const tn_inspect_report *in)
{
    char text[512];
    printf("%s: %s bytes, IR %lld, opset %lld", tn_escape(in->file, text, sizeof text),
           cli_count((int64_t)in->bytes), (long long)in->ir, (long long)in->opset);
    if (in->producer[0])
        printf(", by %s", tn_escape(in->producer, text, sizeof text));
    printf("\n%s parameters", cli_count(in->parameters));
    if (in->flops >= 0)
        printf(", %s operations an image", cli_count(in->flops));
    fputc('\n', stdout);
    if (in->bytes_codes > 0)
        printf("stored: codes %s bytes, scales and tables %s, other tensors %s, record %s, graph %s\n",
               cli_count((int64_t)in->bytes_codes), cli_count((int64_t)in->bytes_scales),
               cli_count((int64_t)in->bytes_tensors), cli_count((int64_t)in->bytes_record),
               cli_count((int64_t)graph_bytes(in)));
    print_values("input", in->inputs, in->n_inputs, false);
    print_values("output", in->outputs, in->n_outputs, false);
    cli_print_inspected_layers(in->layers, in->n_layers);
    if (context->arguments->tensors) {
        fputc('\n', stdout);
        print_values("tensor", in->tensors, in->n_tensors, true);
    }
}

static tn_status run(cli_context *context)
{
    const cli_arguments *arguments = context->arguments;
    const tn_input_options options = cli_input_options(arguments);
    tn_inspect_report *inspection = NULL;
    tn_status status = tn_inspect_file(arguments->operands.items[0], &options, &context->reporter,
                                       &inspection, &context->error);
    if (status != TN_OK)
        return status;
    if (arguments->json)
        print_json(context, inspection);
    else
        print_text(context, inspection);
    tn_inspect_report_free(inspection);
    return TN_OK;
}

static const cli_option options[] = {{"tensors", 0, CLI_FLAG, NULL, NULL, 0, 0, NULL,
                                      "list every stored tensor too",
                                      offsetof(cli_arguments, tensors)},
                                     {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};
static const cli_group own = {"Inspect", options, false};
static const cli_group *const groups[] = {&own, &cli_reading, NULL};
static const cli_example examples[] = {
    {"ternion inspect model.onnx", "layers, shapes, bits, distinct values, zeros"},
    {"ternion inspect model.onnx --json --tensors", "the same and all tensors, for programs"},
    {NULL, NULL}};

const cli_command cli_inspect_command = {
    "inspect",
    "what is in a model: layers, bits, values, size",
    "MODEL [options]",
    "Lists the layers that could be quantized with the bits they are stored in, how many different "
    "values each weight has (counted up to 65,536), and the fraction of zeros.",
    examples,
    groups,
    1,
    1,
    run,
    false};
