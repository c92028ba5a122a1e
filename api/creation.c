#include "api/boundary.h"

#include "converter/census.h"
#include "onnx_io/zoo/zoo.h"

#include <string.h>

static tn_status fill(const tn_model *model, const char *architecture, const char *output,
                      const tn_create_request *options, uint64_t bytes, tn_create_report *made,
                      tn_error *error)
{
    tn_graph *graph = NULL;
    tn_arena *arena = tn_result_arena(made);
    const Onnx__ValueInfoProto *in = model->proto->graph->input[0];
    tn_status status = tn_graph_create(model, NULL, &graph, error);
    if (status != TN_OK)
        return status;
    status = tn_census_parameters(graph, &made->parameters, error);
    for (size_t i = 0; i < 3; i++)
        made->input[i] = in->type->tensor_type->shape->dim[i + 1]->dim_value;
    made->classes = model->proto->graph->output[0]->type->tensor_type->shape->dim[1]->dim_value;
    made->architecture = tn_arena_strdup(arena, architecture);
    made->output = tn_arena_strdup(arena, output);
    made->bytes = bytes;
    made->seed = options->seed;
    tn_graph_destroy(graph);
    if (status == TN_OK && (!made->architecture || !made->output))
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    return status;
}

tn_status tn_create_file(const char *architecture, const char *output,
                         const tn_create_request *given, const tn_reporter *reporter,
                         tn_create_report **creation, tn_error *error)
{
    static const tn_create_request standard;
    const tn_create_request *options = given ? given : &standard;
    const tn_zoo_options zoo = {.classes = options->classes,
                                .input = {options->input[0], options->input[1], options->input[2]},
                                .seed = options->seed,
                                .reporter = reporter};
    tn_write_options write;
    tn_model *model = NULL;
    tn_create_report *made = NULL;
    uint64_t bytes = 0;
    tn_status status = tn_output_check(output, NULL, 0, &options->out, error);
    if (status == TN_OK)
        status = tn_boundary_write(&options->out, &write, error);
    if (status == TN_OK)
        status = tn_zoo_create(architecture, &zoo, &model, error);
    if (status == TN_OK && !(made = tn_result_create(sizeof *made)))
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    if (status == TN_OK && !options->out.dry_run)
        status = tn_model_write(model, output, &write, &bytes, error);
    if (status == TN_OK)
        status = fill(model, architecture, output, options, bytes, made, error);
    if (status == TN_OK)
        *creation = made;
    else
        tn_result_free(made);
    tn_model_destroy(model);
    return status;
}

void tn_create_report_free(tn_create_report *creation)
{
    tn_result_free(creation);
}
