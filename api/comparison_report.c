#include "api/network_file.h"

#include "converter/comparison.h"

static tn_status make_report(const char *const paths[2], const tn_network_file files[2],
                             const tn_layer_comparison *comparison, tn_compare_report **report,
                             tn_error *error)
{
    tn_compare_report *made = tn_result_create(sizeof *made);
    if (!made)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    tn_arena *arena = tn_result_arena(made);
    tn_status status = TN_OK;
    made->a = tn_arena_strdup(arena, paths[0]);
    made->b = tn_arena_strdup(arena, paths[1]);
    made->bytes_a = files[0].bytes;
    made->bytes_b = files[1].bytes;
    made->relmse = comparison->relmse;
    made->layers = tn_arena_array(arena, comparison->count + 1, sizeof *made->layers);
    if (!made->a || !made->b || !made->layers)
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    for (size_t i = 0; i < comparison->count && status == TN_OK; i++) {
        const tn_layer_difference *difference = &comparison->layer[i];
        tn_layer_report *row = &made->layers[made->n_layers++];
        status = tn_layer_report_name(row, difference->b, arena, error);
        row->relmse = difference->relmse;
        row->sqnr_db = difference->sqnr_db;
        row->zeros = difference->zeros;
    }
    if (status == TN_OK)
        *report = made;
    else
        tn_result_free(made);
    return status;
}

tn_status tn_compare_files(const char *a, const char *b, const tn_input_options *given,
                           const tn_reporter *reporter, tn_compare_report **report, tn_error *error)
{
    static const tn_input_options standard;
    const char *const paths[2] = {a, b};
    tn_network_file files[2] = {{NULL, NULL, 0}, {NULL, NULL, 0}};
    tn_layers layers[2] = {{NULL, 0}, {NULL, 0}};
    tn_layer_comparison comparison = {NULL, 0, 0};
    tn_status status = TN_OK;
    for (int i = 0; i < 2 && status == TN_OK; i++) {
        status = tn_network_file_open(paths[i], given ? given : &standard, 0, reporter, &files[i],
                                      error);
        if (status == TN_OK)
            status = tn_network_file_layers(&files[i], &layers[i], error);
    }
    if (status == TN_OK)
        status = tn_layers_compare(&layers[0], &layers[1], reporter, &comparison, error);
    if (status == TN_OK)
        status = make_report(paths, files, &comparison, report, error);
    tn_free(comparison.layer);
    tn_network_file_close(&files[0]);
    tn_network_file_close(&files[1]);
    return status;
}

void tn_compare_report_free(tn_compare_report *report)
{
    tn_result_free(report);
}
