/* ternion finetune MODEL -o OUT --data DATA */
#include "cli/commands.h"
#include "cli/json_report.h"
#include "cli/layer_table.h"
#include "cli/library_options.h"
#include "cli/terminal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void print_json(const cli_context *context, const tn_train_report *report)
{
    json_t *json = cli_json_conversion(context, report->conversion);
    json_object_set_new(json, "event", json_string("result"));
    json_t *figures = json_pack(
        "{s:I, s:b, s:b, s:o, s:o, s:o}", "epochs", (json_int_t)report->epochs, "stopped",
        (int)report->stopped, "reestimated", (int)report->reestimated, "train_loss",
        cli_json_real(report->train_loss), "train_top1", cli_json_real(report->train_top1),
        "images_per_s", cli_json_real(report->images_per_s));
    json_object_update(json, figures);
    json_decref(figures);
    cli_json_print(json);
}

static void print(const cli_context *context, const tn_train_report *report)
{
    if (context->arguments->json) {
        print_json(context, report);
        return;
    }
    cli_print_conversion(context, report->conversion);
    printf("%s epochs%s", cli_count(report->epochs), report->stopped ? " (stopped early)" : "");
    if (isfinite(report->train_loss)) /* not of a run that was finished before */
        printf(", last training loss %.4f, %.0f images/s", report->train_loss,
               report->images_per_s);
    fputc('\n', stdout);
}

/* "90", "90s", "10m", "2h" as seconds. */
static tn_status parse_seconds(cli_context *context, int64_t *seconds)
{
    const char *text = context->arguments->save_every;
    char *end;
    *seconds = 0;
    if (!text)
        return TN_OK;
    long value = strtol(text, &end, 10);
    long unit = *end == 'h' ? 3600 : *end == 'm' ? 60 : 1;
    if (end == text || value < 1 || value > 1000000 || (*end && end[1]) ||
        (*end && !strchr("smh", *end)))
        return cli_fail(&context->error, TN_ERROR_USAGE,
                        "--save-every: expected a time such as 90s, 10m or 2h");
    *seconds = value * unit;
    return TN_OK;
}

/* 0 in a request is the default: one that was asked for is "none". */
static double or_none(const cli_arguments *a, const char *option, double value)
{
    return value == 0 && cli_is_given(a, option) ? -1 : value;
}

/* Of these there is no "none". */
static tn_status check_positive(cli_context *context)
{
    const cli_arguments *a = context->arguments;
    if (cli_is_given(a, "lr") && !(a->lr > 0))
        return cli_fail(&context->error, TN_ERROR_USAGE, "--lr %g: expected a rate above 0", a->lr);
    if (cli_is_given(a, "temperature") && !(a->temperature > 0))
        return cli_fail(&context->error, TN_ERROR_USAGE,
                        "--temperature %g: expected a number above 0", a->temperature);
    return TN_OK;
}

static tn_train_request request_of(const cli_arguments *a, const char *recipe)
{
    return (tn_train_request){.in = cli_input_options(a),
                              .out = cli_output_options(a, recipe),
                              .scheme = cli_scheme_options(a),
                              .images = cli_image_options(a),
                              .data = a->data,
                              .val = a->val,
                              .augment = a->augment,
                              .epochs = a->epochs,
                              .accumulate = a->accumulate,
                              .early_stop = a->early_stop,
                              .optimizer = a->optimizer,
                              .schedule = a->schedule,
                              .distill = a->distill,
                              .batch_norm = a->batch_norm,
                              .lr = a->lr,
                              .momentum = or_none(a, "momentum", a->momentum),
                              .weight_decay = or_none(a, "weight-decay", a->weight_decay),
                              .final_lr = a->final_lr,
                              .warmup_epochs = a->warmup_epochs,
                              .scale_lr = or_none(a, "scale-lr", a->scale_lr),
                              .clip_norm = a->clip_norm,
                              .label_smoothing = a->label_smoothing,
                              .ema = a->ema,
                              .temperature = a->temperature,
                              .distill_weight = or_none(a, "distill-weight", a->distill_weight),
                              .frozen = a->freeze.items,
                              .n_frozen = a->freeze.count,
                              .sparsity_ramp = a->sparsity_ramp,
                              .restore_bn = a->restore_bn,
                              .classes = a->classes,
                              .input = {a->input[0], a->input[1], a->input[2]},
                              .latent = a->latent,
                              .activation_bits = (int)a->activation_bits,
                              .input_bits = (int)a->input_bits,
                              .activation_range = a->activation_range,
                              .activation_scheme = a->activation_scheme,
                              .folder = a->checkpoint,
                              .resume = a->resume,
                              .no_calibration = a->no_calibration,
                              .distributed = true};
}

/* In single quotes where the shell would not take it as it is. */
static void print_word(FILE *out, const char *word)
{
    if (*word && strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                              "_-+=:,./%@") == strlen(word)) {
        fprintf(out, " %s", word);
        return;
    }
    fputs(" '", out);
    for (; *word; word++)
        fputs(*word == '\'' ? "'\\''" : (char[]){*word, '\0'}, out);
    fputs("'", out);
}

static bool is_flag(const cli_command *command, const char *name)
{
    const cli_group *group;
    for (size_t g = 0; (group = cli_command_group(command, g)); g++)
        for (const cli_option *option = group->options; option->name; option++)
            if (cli_option_names_equal(option->name, name))
                return option->kind == CLI_FLAG;
    return false;
}

/* The command that goes on where a stopped run was saved. */
static void print_resume(const cli_context *context)
{
    const cli_arguments *arguments = context->arguments;
    fputs("go on with:", stderr);
    if (tn_process_count() > 1)
        fprintf(stderr, " mpirun -np %d", tn_process_count());
    fputs(" ternion finetune", stderr);
    for (size_t i = 0; i < arguments->operands.count; i++)
        print_word(stderr, arguments->operands.items[i]);
    for (size_t i = 0; i < arguments->given.count; i++) {
        if (strcmp(arguments->given.items[i], "resume") == 0)
            continue;
        fprintf(stderr, " --%s", arguments->given.items[i]);
        if (!is_flag(context->command, arguments->given.items[i]))
            print_word(stderr, arguments->given_text.items[i]);
    }
    fputs(" --resume\n", stderr);
}

static tn_status run(cli_context *context)
{
    const cli_arguments *arguments = context->arguments;
    tn_train_report *report = NULL;
    int64_t seconds = 0;
    tn_status status = cli_require_output(context);
    if (status == TN_OK)
        status = parse_seconds(context, &seconds);
    if (status == TN_OK)
        status = check_positive(context);
    if (status == TN_OK && arguments->report && !arguments->checkpoint)
        status = cli_fail(&context->error, TN_ERROR_USAGE,
                          "--report needs the journal that --checkpoint DIR keeps");
    if (status != TN_OK)
        return status;
    char *recipe = cli_json_recipe(context);
    tn_train_request request = request_of(arguments, recipe);
    request.save_seconds = seconds;
    status = tn_finetune_file(arguments->operands.items[0], arguments->out, &request,
                              &context->reporter, &report, &context->error);
    free(recipe);
    if (status == TN_ERROR_CANCELLED && arguments->checkpoint && tn_process_rank() == 0) {
        cli_terminal_close();
        fprintf(stderr, "%s\n", context->error.message);
        print_resume(context);
    }
    if (status != TN_OK || !report) /* of another process than the first */
        return status;
    print(context, report);
    tn_train_report_free(report);
    if (arguments->report)
        status = cli_report_write(&arguments->checkpoint, 1, arguments->report, arguments,
                                  &context->error);
    return status;
}

#define AT(member) offsetof(cli_arguments, member)

static const cli_option data_options[] = {
    {"data", 'd', CLI_TEXT, "DATA", "FILE", 0, 0, NULL, "the training set (required)", AT(data)},
    {"val", 0, CLI_TEXT, "DATA", "FILE", 0, 0, "the validation part of --data",
     "what the accuracy is measured on", AT(val)},
    {"checkpoint", 0, CLI_TEXT, "DIR", "DIR", 0, 0, NULL,
     "keep checkpoints and the journal run.jsonl there", AT(checkpoint)},
    {"report", 0, CLI_TEXT, "FILE.html", "FILE", 0, 0, NULL,
     "write the page of `ternion report` at the end; needs --checkpoint", AT(report)},
    {"resume", 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, "go on from the last checkpoint", AT(resume)},
    {"save-every", 0, CLI_TEXT, "TIME", NULL, 0, 0, "10m",
     "time between checkpoints inside an epoch", AT(save_every)},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};

static const cli_option training_options[] = {
    {"epochs", 'e', CLI_INTEGER, "N", NULL, 1, 100000, "20", "passes over the training set",
     AT(epochs)},
    {"lr", 0, CLI_REAL, "X", NULL, 0, 0, "0.02; 0.1 for float, 0.001 for adam", "learning rate",
     AT(lr)},
    {"optimizer", 0, CLI_TEXT, "NAME", "sgd|adam|adamw", 0, 0, "sgd", "how weights move",
     AT(optimizer)},
    {"momentum", 0, CLI_REAL, "X", NULL, 0, 0, "0.9", "of sgd; 0: none", AT(momentum)},
    {"weight-decay", 0, CLI_REAL, "X", NULL, 0, 0, "1e-4",
     "of weights, not of scales and biases; 0: none", AT(weight_decay)},
    {"schedule", 0, CLI_TEXT, "NAME", NULL, 0, 0, "cosine", "of the learning rate", AT(schedule)},
    {"final-lr", 0, CLI_REAL, "F", NULL, 0, 0, "0", "last learning rate as a part of --lr",
     AT(final_lr)},
    {"warmup-epochs", 0, CLI_REAL, "N", NULL, 0, 0, "0", "the rate grows from 0 first",
     AT(warmup_epochs)},
    {"scale-lr", 0, CLI_REAL, "X", NULL, 0, 0, "1", "factor on the rate of quantizer scales",
     AT(scale_lr)},
    {"clip-norm", 0, CLI_REAL, "X", NULL, 0, 0, "none", "limit of the gradient's norm",
     AT(clip_norm)},
    {"label-smoothing", 0, CLI_REAL, "X", NULL, 0, 0, "0", "share of the other classes",
     AT(label_smoothing)},
    {"ema", 0, CLI_REAL, "X", NULL, 0, 0, "none", "decay of averaged weights, e.g. 0.999", AT(ema)},
    {"distill", 0, CLI_TEXT, "none|self|MODEL", "FILE", 0, 0,
     "self, where a trained float network is quantized",
     "learn from a float network's outputs too; self: the input model", AT(distill)},
    {"distill-weight", 0, CLI_REAL, "X", NULL, 0, 0, "0.5", "share of that loss",
     AT(distill_weight)},
    {"temperature", 0, CLI_REAL, "T", NULL, 0, 0, "4", "of distillation", AT(temperature)},
    {"accumulate", 0, CLI_INTEGER, "N", NULL, 1, 100000, "1", "batches in a step", AT(accumulate)},
    {"augment", 0, CLI_TEXT, "LIST", NULL, 0, 0, "cifar or imagenet, by the pictures",
     "none, cifar, imagenet, or a list such as pad:4,flip,cutout:8,mixup:0.2", AT(augment)},
    {"batch-norm", 0, CLI_TEXT, "MODE", "train|freeze", 0, 0, "train",
     "statistics of BatchNormalization while training", AT(batch_norm)},
    {"restore-bn", 0, CLI_FLAG, NULL, NULL, 0, 0, NULL,
     "put BatchNormalization behind convolutions it was folded into, and fold it again",
     AT(restore_bn)},
    {"freeze", 0, CLI_LIST, "REGEX", NULL, 0, 0, NULL,
     "layers that are not trained, by names as in --layer", AT(freeze)},
    {"early-stop", 0, CLI_INTEGER, "N", NULL, 1, 100000, "never",
     "end after N epochs without a better validation loss", AT(early_stop)},
    {"sparsity-ramp", 0, CLI_FLAG, NULL, NULL, 0, 0, NULL,
     "let threshold sparsity:F grow from 0 over the first half", AT(sparsity_ramp)},
    {"no-calibration", 0, CLI_FLAG, NULL, NULL, 0, 0, NULL,
     "start from rounded weights, not from calibrated ones", AT(no_calibration)},
    {"classes", 0, CLI_INTEGER, "N", NULL, 1, 1 << 24, "the model's",
     "a new last layer with N classes", AT(classes)},
    {"input", 0, CLI_SHAPE, "CxHxW", NULL, 0, 0, "the model's",
     "another resolution, kept in the written model", AT(input)},
    {"latent", 0, CLI_TEXT, "FLOATMODEL", "FILE", 0, 0, "code x scale",
     "float weights that the latents of a packed MODEL start at, moved to its codes", AT(latent)},
    {"activation-scheme", 0, CLI_TEXT, "SCHEME", "lsq|pact|fixed", 0, 0, "lsq",
     "how the steps of --activation-bits are trained: as LSQ's, as PACT's clip, not",
     AT(activation_scheme)},
    {"deterministic", 0, CLI_FLAG, NULL, NULL, 0, 0, "always so",
     "the same bits for every number of threads: there is no other way of training",
     AT(deterministic)},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};

static const cli_group data_group = {"Data and checkpoints", data_options, false};
static const cli_group training_group = {"Training", training_options, true};
static const cli_group *const groups[] = {
    &data_group, &cli_writing, &training_group, &cli_scheme,      &cli_activations,
    &cli_form,   &cli_images,  &cli_reading,    &cli_from_recipe, NULL};
static const cli_example examples[] = {
    {"ternion finetune resnet20.onnx -o r20-t.onnx --data cifar10",
     "ternary weights, 20 epochs, the packed file at the end"},
    {"ternion finetune r.onnx -o t.onnx --data photos --epochs 100 --checkpoint run",
     "with checkpoints in run/; go on later with --resume"},
    {"mpirun -np 4 --bind-to none ternion finetune r.onnx -o t.onnx --data photos",
     "four processes, each with a quarter of every batch"},
    {"ternion finetune small.onnx -o s.onnx --data glyphs --scheme float --epochs 20",
     "plain training, of a network from `ternion create`"},
    {NULL, NULL}};

const cli_command cli_finetune_command = {
    "finetune",
    "train quantized weights on a data set",
    "MODEL -o OUT --data DATA [options]",
    "Trains ternary or n-bit weights by the float network they come from, and writes the packed "
    "file, which is read back and must compute bit for bit what was trained. Ctrl-C saves a "
    "checkpoint where --checkpoint is given. Started by mpirun (in a build with MPI), the "
    "processes "
    "train one network: each takes its part of every batch, one GPU each where there are GPUs; the "
    "first writes. Unless --batch-norm is freeze, BatchNormalization sees each process's part "
    "only.",
    examples,
    groups,
    1,
    1,
    run,
    false};
