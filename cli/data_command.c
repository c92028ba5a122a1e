/* ternion data DATA, and ternion data generate NAME FOLDER */
#include "cli/commands.h"
#include "cli/json_report.h"
#include "cli/terminal.h"

#include <string.h>

static void print_json(const cli_context *context, const tn_data_report *report)
{
    json_t *classes = json_array(), *json = cli_json_open(context);
    for (size_t i = 0; i < report->n_classes; i++)
        json_array_append_new(classes, json_pack("{s:o, s:I}", "name",
                                                 cli_json_text(report->classes[i].name), "images",
                                                 (json_int_t)report->classes[i].images));
    json_t *figures =
        json_pack("{s:o, s:s, s:o, s:I, s:I, s:I, s:I, s:[ii], s:[ii], s:o}", "data",
                  cli_json_text(report->data), "layout", report->layout, "description",
                  cli_json_text(report->description), "images", (json_int_t)report->images, "bad",
                  (json_int_t)report->bad, "unlabelled", (json_int_t)report->unlabelled, "grey",
                  (json_int_t)report->grey, "width", report->min_width, report->max_width, "height",
                  report->min_height, report->max_height, "classes", classes);
    json_object_update(json, figures);
    json_decref(figures);
    cli_json_print(json);
}

static void print_text(const cli_context *context, const tn_data_report *report)
{
    char text[512];
    int64_t fewest = INT64_MAX, most = 0;
    printf("%s\n", tn_escape(report->description, text, sizeof text));
    printf("%d to %d pixels wide, %d to %d high", report->min_width, report->max_width,
           report->min_height, report->max_height);
    if (report->grey)
        printf(", %s grey", cli_count(report->grey));
    fputc('\n', stdout);
    for (size_t i = 0; i < report->n_classes; i++) {
        const tn_class_report *row = &report->classes[i];
        fewest = row->images < fewest ? row->images : fewest;
        most = row->images > most ? row->images : most;
        if (context->arguments->verbose || report->n_classes <= 20)
            printf("%5zu  %-32s %s\n", i, tn_escape(row->name, text, sizeof text),
                   cli_count(row->images));
    }
    if (report->n_classes)
        printf("%s classes of %s to %s images\n", cli_count((int64_t)report->n_classes),
               cli_count(fewest), cli_count(most));
    if (report->unlabelled)
        printf("%s images without a label\n", cli_count(report->unlabelled));
    if (report->bad)
        printf("%s cannot be read, the first: %s\n", cli_count(report->bad), report->first_bad);
}

static void print_generated(const cli_context *context, const tn_generate_request *request)
{
    char shown[512];
    const char *folder = context->arguments->operands.items[2];
    const bool dry = context->arguments->dry_run;
    if (!context->arguments->json) {
        printf("%s: %s training and %s test pictures%s\n", tn_escape(folder, shown, sizeof shown),
               cli_count(request->train), cli_count(request->test), dry ? ", not written" : "");
        return;
    }
    json_t *json = cli_json_open(context);
    json_t *figures = json_pack("{s:o, s:o, s:I, s:I, s:I, s:b}", "data",
                                cli_json_text(context->arguments->operands.items[1]), "output",
                                cli_json_text(folder), "train_images", (json_int_t)request->train,
                                "test_images", (json_int_t)request->test, "seed",
                                (json_int_t)request->seed, "written", (int)!dry);
    json_object_update(json, figures);
    json_decref(figures);
    cli_json_print(json);
}

static tn_status generate(cli_context *context)
{
    const cli_arguments *arguments = context->arguments;
    const tn_generate_request request = {
        .seed = (uint64_t)arguments->seed,
        .train = arguments->train_images ? arguments->train_images : TN_GENERATE_TRAIN,
        .test = arguments->test_images ? arguments->test_images : TN_GENERATE_TEST,
        .replace = arguments->force,
        .dry_run = arguments->dry_run};
    if (arguments->operands.count != 3)
        return cli_fail(&context->error, TN_ERROR_USAGE,
                        "usage: ternion data generate glyphs FOLDER");
    tn_status status = tn_generate_files(arguments->operands.items[1], arguments->operands.items[2],
                                         &request, &context->reporter, &context->error);
    if (status == TN_OK)
        print_generated(context, &request);
    return status;
}

static tn_status run(cli_context *context)
{
    const cli_arguments *arguments = context->arguments;
    const tn_data_request request = {.sheet = arguments->dry_run ? NULL : arguments->out,
                                     .show = arguments->show,
                                     .replace = arguments->force,
                                     .seed = (uint64_t)arguments->seed};
    tn_data_report *report = NULL;
    if (strcmp(arguments->operands.items[0], "generate") == 0)
        return generate(context);
    if (arguments->operands.count != 1)
        return cli_fail(&context->error, TN_ERROR_USAGE, "usage: ternion data %s",
                        context->command->usage);
    if (arguments->show && !arguments->out)
        return cli_fail(&context->error, TN_ERROR_USAGE, "--show needs a file to write: -o FILE");
    tn_status status = tn_data_file(arguments->operands.items[0], &request, &context->reporter,
                                    &report, &context->error);
    if (status != TN_OK)
        return status;
    if (arguments->json)
        print_json(context, report);
    else
        print_text(context, report);
    tn_data_report_free(report);
    return TN_OK;
}

static const cli_option options[] = {
    {"out", 'o', CLI_TEXT, "FILE.png", "FILE", 0, 0, NULL, "write a contact sheet of pictures",
     offsetof(cli_arguments, out)},
    {"show", 0, CLI_INTEGER, "N", NULL, 1, 10000, "64", "pictures on the contact sheet",
     offsetof(cli_arguments, show)},
    {"train-images", 0, CLI_INTEGER, "N", NULL, 1, 10000000, "10000", "generate: training pictures",
     offsetof(cli_arguments, train_images)},
    {"test-images", 0, CLI_INTEGER, "N", NULL, 1, 10000000, "2000", "generate: test pictures",
     offsetof(cli_arguments, test_images)},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};
static const cli_group own = {"Data", options, false};
static const cli_group *const groups[] = {&own, NULL};
static const cli_example examples[] = {
    {"ternion data photos", "what it is, classes, counts, sizes, corrupt images"},
    {"ternion data photos:val --show 100 -o sheet.png", "a contact sheet of 100 pictures"},
    {"ternion data generate glyphs glyphs --seed 1", "a data set drawn by the program itself"},
    {NULL, NULL}};

const cli_command cli_data_command = {
    "data",
    "look at a data set, or generate one",
    "DATA [options] | generate glyphs FOLDER [options]",
    "Finds out what DATA is, decodes every image, and counts. `generate glyphs` writes a small "
    "labelled data set (10 classes of 32x32 colour pictures, CIFAR-10's layout) from a seed.",
    examples,
    groups,
    1,
    3,
    run,
    false};
