#include "cli/json_report.h"

#include <math.h>
#include <string.h>

json_t *cli_json_open(const cli_context *context)
{
    return json_pack("{s:i, s:s, s:s}", "schema", 1, "command", context->command->name, "ternion",
                     tn_version());
}

void cli_json_print(json_t *report)
{
    json_dumpf(report, stdout, JSON_COMPACT | JSON_REAL_PRECISION(15));
    fputc('\n', stdout);
    json_decref(report);
}

json_t *cli_json_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *cli_json_text(const char *text)
{
    char escaped[1024];
    json_t *string = json_string(text ? text : "");
    return string ? string : json_string(tn_escape(text, escaped, sizeof escaped));
}

json_t *cli_json_shape(const tn_report_shape *shape)
{
    json_t *dims = json_array();
    for (int i = 0; i < shape->rank; i++)
        json_array_append_new(dims, json_integer(shape->dims[i]));
    return dims;
}

json_t *cli_json_inspected_layer(const tn_layer_report *layer)
{
    return json_pack("{s:o, s:s, s:o, s:I, s:o, s:s, s:I, s:o, s:b, s:o, s:i, s:i}", "name",
                     cli_json_text(layer->name), "op", layer->op, "shape",
                     cli_json_shape(&layer->shape), "weights", (json_int_t)layer->weights, "bits",
                     cli_json_real(layer->bits), "scheme", layer->scheme, "distinct",
                     (json_int_t)layer->distinct, "zeros", cli_json_real(layer->zeros), "eligible",
                     (int)layer->eligible, "reason", cli_json_text(layer->reason),
                     "activation_bits", layer->activation_bits, "bias_bits", layer->bias_bits);
}

json_t *cli_json_converted_layer(const tn_layer_report *layer)
{
    return json_pack("{s:o, s:s, s:o, s:s, s:b, s:o, s:o, s:o, s:o, s:o, s:o}", "name",
                     cli_json_text(layer->name), "scheme", layer->scheme, "bits",
                     cli_json_real(layer->bits), "granularity", layer->granularity, "quantized",
                     (int)layer->quantized, "reason", cli_json_text(layer->reason), "relmse",
                     cli_json_real(layer->relmse), "sqnr_db", cli_json_real(layer->sqnr_db),
                     "zeros", cli_json_real(layer->zeros), "scale_min",
                     cli_json_real(layer->scale_min), "scale_max", cli_json_real(layer->scale_max));
}

static const cli_option *recipe_row(const cli_context *context, const char *name)
{
    const cli_group *group;
    for (size_t g = 0; (group = cli_command_group(context->command, g)); g++)
        for (const cli_option *row = group->options; group->in_recipe && row->name; row++)
            if (strcmp(row->name, name) == 0)
                return row;
    return NULL;
}

char *cli_json_recipe(const cli_context *context)
{
    const cli_arguments *arguments = context->arguments;
    json_t *recipe = json_object();
    for (size_t i = 0; i < arguments->given.count; i++) {
        const char *name = arguments->given.items[i], *text = arguments->given_text.items[i];
        const cli_option *row = recipe_row(context, name);
        if (!row)
            continue;
        if (row->kind == CLI_LIST) {
            json_t *list = json_object_get(recipe, name);
            if (!list)
                json_object_set_new(recipe, name, list = json_array());
            json_array_append_new(list, cli_json_text(text));
        } else if (row->kind == CLI_FLAG) {
            json_object_set_new(recipe, name, json_true());
        } else {
            json_object_set_new(recipe, name, cli_json_text(text));
        }
    }
    char *text = json_dumps(recipe, JSON_COMPACT);
    json_decref(recipe);
    return text;
}
