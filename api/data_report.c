#include "api/images.h"

#include "data/contact_sheet.h"
#include "data/glyphs.h"
#include "data/survey.h"

#include <string.h>

_Static_assert((int)TN_GENERATE_TRAIN == (int)TN_GLYPHS_TRAIN &&
                   (int)TN_GENERATE_TEST == (int)TN_GLYPHS_TEST,
               "one default");

static tn_status fill(const char *data, const tn_dataset *dataset, const tn_survey *survey,
                      tn_data_report *report, tn_error *error)
{
    tn_arena *arena = tn_result_arena(report);
    report->data = tn_arena_strdup(arena, data);
    report->layout = tn_dataset_reader_id(dataset);
    report->description = tn_arena_strdup(arena, tn_dataset_description(dataset));
    report->first_bad = tn_arena_strdup(arena, survey->first_bad);
    report->images = (int64_t)survey->images;
    report->bad = (int64_t)survey->bad;
    report->unlabelled = (int64_t)survey->unlabelled;
    report->grey = (int64_t)survey->grey;
    report->min_width = survey->min_width;
    report->max_width = survey->max_width;
    report->min_height = survey->min_height;
    report->max_height = survey->max_height;
    report->n_classes = (size_t)tn_dataset_classes(dataset);
    report->classes = tn_arena_array(arena, report->n_classes + 1, sizeof *report->classes);
    bool complete = report->data && report->description && report->first_bad && report->classes;
    for (size_t i = 0; complete && i < report->n_classes; i++) {
        report->classes[i].name = tn_arena_strdup(arena, tn_dataset_class_name(dataset, (int)i));
        report->classes[i].images = (int64_t)survey->class_images[i];
        complete = report->classes[i].name != NULL;
    }
    return complete ? TN_OK : tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
}

tn_status tn_data_file(const char *data, const tn_data_request *given, const tn_reporter *reporter,
                       tn_data_report **report, tn_error *error)
{
    static const tn_data_request standard;
    const tn_data_request *request = given ? given : &standard;
    const tn_dataset_options options = {.allow_unlabelled = true};
    tn_dataset *dataset = NULL;
    tn_survey survey = {.class_images = NULL};
    tn_data_report *made = NULL;
    const tn_output_options out = {.replace = request->replace};
    tn_status status =
        request->sheet ? tn_output_check(request->sheet, &data, 1, &out, error) : TN_OK;
    if (status == TN_OK)
        status = tn_image_dataset_open(data, TN_SPLIT_TRAIN, &options, reporter, &dataset, error);
    if (status == TN_OK)
        status = tn_survey_take(dataset, reporter, &survey, error);
    if (status == TN_OK && request->sheet)
        status = tn_contact_sheet_write(dataset, request->show > 0 ? (size_t)request->show : 64,
                                        request->seed, request->sheet, request->replace, error);
    if (status == TN_OK && !(made = tn_result_create(sizeof *made)))
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    if (status == TN_OK)
        status = fill(data, dataset, &survey, made, error);
    if (status == TN_OK)
        *report = made;
    else
        tn_result_free(made);
    tn_survey_done(&survey);
    tn_dataset_close(dataset);
    return status;
}

void tn_data_report_free(tn_data_report *report)
{
    tn_result_free(report);
}

tn_status tn_generate_files(const char *name, const char *folder,
                            const tn_generate_request *request, const tn_reporter *reporter,
                            tn_error *error)
{
    tn_glyphs_options options = {.reporter = reporter};
    if (request)
        options = (tn_glyphs_options){.seed = request->seed,
                                      .train = (size_t)request->train,
                                      .test = (size_t)request->test,
                                      .replace = request->replace,
                                      .dry_run = request->dry_run,
                                      .reporter = reporter};
    if (strcmp(name, "glyphs") != 0)
        return tn_fail(error, TN_ERROR_USAGE, "no data set %s to generate: there is glyphs",
                       tn_quote(name));
    return tn_glyphs_write(folder, &options, error);
}
