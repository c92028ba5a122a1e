#include "finetune/evaluate.h"

#include "converter/record.h"
#include "core/memory.h"
#include "finetune/divergence.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Two-sided 95 % of the normal distribution. */
static const double z95 = 1.959963984540054;

enum { DEFAULT_BATCH = 64, DEFAULT_K = 5, SOURCE_SIZE = 96 };

/* How a network takes its images. */
typedef struct image_input {
    int channels, height, width; /* 0: free */
    bool channels_last;          /* [N, H, W, C], as TensorFlow exports */
} image_input;

/* One evaluation under way. */
typedef struct evaluation_run {
    tn_plan *plan;
    const tn_dataset *dataset;
    const tn_evaluate_options *options;
    tn_loader *loader;
    uint32_t *subset;
    float *logits; /* of a batch */
    size_t batch, n_samples;
    double loss;
    tn_evaluation result;
} evaluation_run;

void tn_evaluation_done(tn_evaluation *evaluation)
{
    tn_free(evaluation->class_images);
    tn_free(evaluation->class_correct);
    tn_free(evaluation->predictions);
    tn_free(evaluation->logits);
    *evaluation = (tn_evaluation){0};
}

void tn_comparison_done(tn_comparison *comparison)
{
    tn_evaluation_done(&comparison->a);
    tn_evaluation_done(&comparison->b);
    *comparison = (tn_comparison){0};
}

void tn_wilson_interval(size_t correct, size_t n, double *low, double *high)
{
    if (n == 0) {
        *low = 0.0;
        *high = 1.0;
        return;
    }
    double count = (double)n, p = (double)correct / count, z2 = z95 * z95;
    double centre = p + z2 / (2.0 * count);
    double spread = z95 * sqrt(p * (1.0 - p) / count + z2 / (4.0 * count * count));
    double scale = 1.0 + z2 / count;
    *low = correct == 0 ? 0.0 : (centre - spread) / scale;
    *high = correct == n ? 1.0 : (centre + spread) / scale;
}

/* --- the network's input ---------------------------------------------------------------------- */

static int known(int64_t dim)
{
    return dim > 0 && dim <= TN_IMAGE_MAX_SIDE ? (int)dim : 0;
}

static tn_status find_input(int rank, const int64_t *dims, const char *name, image_input *input,
                            tn_error *error)
{
    if (rank != 4)
        return tn_fail(error, TN_ERROR_MODEL, "input %s has rank %d; images go into [N, C, H, W]",
                       tn_quote(name), rank);
    bool last = tn_input_channels_last(rank, dims);
    *input = (image_input){known(dims[last ? 3 : 1]), known(dims[last ? 1 : 2]),
                           known(dims[last ? 2 : 3]), last};
    return TN_OK;
}

/* The preprocessing kept in the model's record; *found is false when there is none. */
static tn_status recorded_preprocess(const tn_model *model, tn_preprocess *preprocess, bool *found,
                                     tn_error *error)
{
    tn_record record = {0};
    *found = false;
    if (tn_record_parse(model, &record, NULL) != TN_OK || !record.json)
        return TN_OK; /* a broken record says nothing; verify is there to complain */
    char *text = tn_record_object(&record, "preprocess");
    tn_status status = TN_OK;
    if (text) {
        status = tn_preprocess_from_json(text, preprocess, error);
        *found = status == TN_OK;
    }
    free(text);
    tn_record_done(&record);
    return status;
}

/* Inputs as they are: no preset, no record; only their size can be wrong. */
static tn_status take_prepared(const tn_dataset *dataset, const tn_preprocess *asked,
                               const image_input *input, tn_preprocess *preprocess, char *source,
                               tn_error *error)
{
    const tn_sample_shape shape = tn_dataset_shape(dataset);
    if (asked)
        return tn_fail(error, TN_ERROR_USAGE,
                       "the data set holds network inputs (%s), which no preprocessing applies to: "
                       "leave out --preprocess, --resize, --crop, --mean, --std, --scale and "
                       "--channel-order",
                       tn_dataset_description(dataset));
    if ((input->channels > 0 && input->channels != shape.channels) ||
        (input->height > 0 && input->height != shape.height) ||
        (input->width > 0 && input->width != shape.width))
        return tn_fail(error, TN_ERROR_DATA,
                       "the data set holds inputs [%d, %d, %d] (channels, height, width), the "
                       "network reads [%d, %d, %d]: they were made for another network",
                       shape.channels, shape.height, shape.width, input->channels, input->height,
                       input->width);
    tn_status status = tn_preprocess_preset("none", preprocess, error);
    preprocess->channels = shape.channels;
    if (source)
        snprintf(source, SOURCE_SIZE, "none: the data set holds network inputs");
    return status;
}

/* An input of integers takes pixels as they are: nothing else fits into it. */
static tn_status take_integers(tn_preprocess *p, bool given, const tn_value *value, tn_error *error)
{
    bool plain = true;
    for (int c = 0; c < 3; c++)
        plain &= p->mean[c] == 0.0f && fabsf(p->scale / p->deviation[c] - 1.0f) < 1e-6f;
    if (plain || !tn_dtype_is_integer(value->dtype))
        return TN_OK;
    if (given)
        return tn_fail(error, TN_ERROR_USAGE,
                       "input %s takes %s, pixels of 0 to 255: leave --preprocess, --scale, --mean "
                       "and --std out, or say --scale 1 --mean 0,0,0 --std 1,1,1",
                       tn_quote(value->name), tn_dtype_name(value->dtype));
    for (int c = 0; c < 3; c++) {
        p->mean[c] = 0.0f;
        p->deviation[c] = 1.0f;
    }
    p->scale = 1.0f;
    snprintf(p->preset, sizeof p->preset, "custom");
    return TN_OK;
}

static tn_status choose_preprocess(const tn_model *model, const tn_dataset *dataset,
                                   const tn_preprocess *asked, const tn_value *value,
                                   const image_input *input, tn_preprocess *preprocess,
                                   char *source, tn_error *error)
{
    char said[SOURCE_SIZE] = "asked for";
    tn_preprocess chosen;
    bool found = asked != NULL;
    tn_status status = TN_OK;
    if (asked)
        chosen = *asked;
    else
        status = recorded_preprocess(model, &chosen, &found, error);
    if (status == TN_OK && !asked && found)
        snprintf(said, sizeof said, "the model's record");
    if (status == TN_OK && !found) {
        const char *name = tn_preprocess_guess(dataset, input->height);
        snprintf(said, sizeof said, "guessed from the data set (%s)", name);
        status = tn_preprocess_preset(name, &chosen, error);
    }
    if (status == TN_OK)
        status = tn_preprocess_fit(&chosen, input->channels, input->height, input->width, error);
    if (status == TN_OK)
        status = take_integers(&chosen, asked || found, value, error);
    if (status != TN_OK)
        return status;
    *preprocess = chosen;
    if (source)
        memcpy(source, said, sizeof said);
    return TN_OK;
}

/* Of a data set of inputs or of pictures. */
static tn_status choose_for(const tn_model *model, const tn_dataset *dataset,
                            const tn_preprocess *asked, const tn_value *value,
                            const image_input *input, tn_preprocess *preprocess, char *source,
                            tn_error *error)
{
    if (tn_dataset_shape(dataset).prepared)
        return take_prepared(dataset, asked, input, preprocess, source, error);
    return choose_preprocess(model, dataset, asked, value, input, preprocess, source, error);
}

tn_status tn_evaluate_preprocess(const tn_model *model, const tn_dataset *dataset,
                                 const tn_preprocess *asked, tn_preprocess *preprocess,
                                 char *source, tn_error *error)
{
    tn_graph *graph = NULL;
    image_input input;
    tn_status status = tn_graph_create(model, NULL, &graph, error);
    if (status != TN_OK)
        return status;
    if (graph->n_inputs == 0) {
        status = tn_fail(error, TN_ERROR_MODEL, "the network has no input");
        goto done;
    }
    const tn_value *value = graph->inputs[0];
    status = find_input(value->rank, value->dims, value->name, &input, error);
    if (status == TN_OK)
        status = choose_for(model, dataset, asked, value, &input, preprocess, source, error);
done:
    tn_graph_destroy(graph);
    return status;
}

/* --- running ---------------------------------------------------------------------------------- */

/* Labels must be the network's: the numbers of another set of classes mean nothing. */
static tn_status check_classes(const tn_dataset *dataset, int outputs, tn_error *error)
{
    int classes = tn_dataset_classes(dataset);
    bool named = classes > 0 && strcmp(tn_dataset_reader_id(dataset), "idx") != 0 &&
                 strcmp(tn_dataset_class_name(dataset, 0), "0") != 0;
    if (classes > outputs || (named && classes != outputs))
        return tn_fail(error, TN_ERROR_DATA,
                       "the data set has %d classes (%s to %s), the network %d outputs: it was "
                       "trained on other classes, or this is not the whole set%s",
                       classes, tn_quote(tn_dataset_class_name(dataset, 0)),
                       tn_quote(tn_dataset_class_name(dataset, classes - 1)), outputs,
                       classes == 1000 && outputs == 1001
                           ? " (outputs with a background class in front are not mapped)"
                           : "");
    return TN_OK;
}

static int compare_indices(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static tn_status choose_samples(evaluation_run *run, tn_error *error)
{
    size_t count = tn_dataset_count(run->dataset), limit = run->options->limit;
    run->n_samples = limit && limit < count ? limit : count;
    if (run->n_samples == count)
        return TN_OK;
    run->subset = tn_alloc_array(run->n_samples, sizeof *run->subset);
    if (!run->subset)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu indices", run->n_samples);
    tn_status status =
        tn_dataset_draw(run->dataset, run->options->seed, run->n_samples, run->subset, error);
    if (status == TN_OK)
        qsort(run->subset, run->n_samples, sizeof *run->subset, compare_indices);
    return status;
}

/* The size of the logits: [batch, classes], perhaps with axes of size 1 behind. */
static tn_status count_classes(evaluation_run *run, tn_error *error)
{
    tn_extent shape;
    const char *name = tn_plan_logits(run->plan);
    tn_status status = tn_plan_shape(run->plan, name, &shape, error);
    if (status != TN_OK)
        return status;
    int64_t count = 1;
    bool flat = shape.rank >= 2 && shape.dims[0] == (int64_t)run->batch;
    for (int i = 1; flat && i < shape.rank; i++) {
        flat = i == 1 || shape.dims[i] == 1;
        count *= shape.dims[i];
    }
    if (!flat || count < 1 || count > INT32_MAX)
        return tn_fail(error, TN_ERROR_MODEL,
                       "output %s is no classifier's: [N, classes] is expected", tn_quote(name));
    run->result.classes = (int)count;
    return TN_OK;
}

static tn_status make_room(evaluation_run *run, tn_error *error)
{
    size_t classes = (size_t)run->result.classes, n = run->n_samples;
    const tn_evaluate_options *o = run->options;
    tn_evaluation *r = &run->result;
    run->logits = tn_alloc_array(run->batch * classes, sizeof(float));
    r->class_images = tn_alloc_zero(classes, sizeof *r->class_images);
    r->class_correct = tn_alloc_zero(classes, sizeof *r->class_correct);
    if (o->keep_predictions)
        r->predictions = tn_alloc_array(n, sizeof *r->predictions);
    if (o->keep_logits)
        r->logits = tn_alloc_array(n, classes * sizeof(float));
    if (!run->logits || !r->class_images || !r->class_correct ||
        (o->keep_predictions && !r->predictions) || (o->keep_logits && !r->logits))
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the outputs of %zu images", n);
    return TN_OK;
}

static tn_status start_loader(evaluation_run *run, tn_error *error)
{
    tn_extent shape;
    image_input input;
    const char *name = tn_plan_input(run->plan, 0);
    tn_status status = tn_plan_shape(run->plan, name, &shape, error);
    if (status == TN_OK)
        status = find_input(shape.rank, shape.dims, name, &input, error);
    if (status != TN_OK)
        return status;
    const int ranks = run->options->ranks > 1 ? run->options->ranks : 1;
    tn_loader_options options = {.preprocess = &run->result.preprocess,
                                 .output = TN_LOADER_VALUES_NHWC,
                                 .batch = run->batch * (size_t)ranks,
                                 .rank = run->options->rank,
                                 .ranks = ranks,
                                 .subset = run->subset,
                                 .n_subset = run->subset ? run->n_samples : 0,
                                 .max_bad = run->options->max_bad,
                                 .cache_bytes = 1,
                                 .threads = run->options->threads};
    status = tn_loader_create(run->dataset, &options, &run->loader, error);
    if (status != TN_OK)
        return status;
    tn_sample_shape made = tn_loader_shape(run->loader);
    if (made.width != input.width || made.height != input.height || made.channels != input.channels)
        return tn_fail(error, TN_ERROR_DATA,
                       "images come out as %dx%dx%d, but the network takes %dx%dx%d: set --resize "
                       "and --crop",
                       made.channels, made.height, made.width, input.channels, input.height,
                       input.width);
    return tn_loader_start(run->loader, 0, 0, error);
}

/* One image's logits into the sums. An image without a class of its own is wrong in every count. */
static void take_logits(evaluation_run *run, uint32_t index, int32_t label, const float *z)
{
    tn_evaluation *r = &run->result;
    const int classes = r->classes, top1 = (int)tn_first_maximum(z, classes);
    const bool named = top1 != TN_NO_MAXIMUM;
    const float top = named ? z[top1] : NAN;
    if (r->predictions)
        r->predictions[r->images] = (tn_prediction){index, label, top1, top};
    if (r->logits)
        memcpy(r->logits + r->images * (size_t)classes, z, (size_t)classes * sizeof *z);
    r->images++;
    r->not_finite += !named;
    if (label < 0)
        return;
    double sum = 0.0;
    int before = 0; /* classes that rank before the label; the lower number wins a tie */
    for (int k = 0; k < classes; k++) {
        sum += exp((double)z[k] - (double)top);
        before += z[k] > z[label] || (z[k] == z[label] && k < label);
    }
    run->loss += log(sum) - ((double)z[label] - (double)top);
    r->class_images[label]++;
    r->class_correct[label] += top1 == label;
    r->correct_top1 += top1 == label;
    r->correct_topk += named && before < r->top_k;
}

static tn_status run_batch(evaluation_run *run, const tn_batch *batch, tn_error *error)
{
    tn_status status =
        tn_plan_write_images(run->plan, 0, batch->values, (int64_t)batch->count, error);
    if (status == TN_OK)
        status = tn_plan_forward(run->plan, TN_RUN_INFERENCE, 0, SIZE_MAX, error);
    if (status == TN_OK)
        status = tn_plan_read(run->plan, tn_plan_logits(run->plan), run->logits, error);
    for (size_t i = 0; status == TN_OK && i < batch->count; i++)
        if (batch->labels[i] != TN_BAD_SAMPLE)
            take_logits(run, batch->indices[i], batch->labels[i],
                        run->logits + i * (size_t)run->result.classes);
    return status;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static tn_status run_all(evaluation_run *run, tn_error *error)
{
    const tn_reporter *reporter = run->options->reporter;
    const tn_batch *batch = NULL;
    size_t done = 0;
    double begin = now();
    for (;;) {
        tn_status status = tn_loader_next(run->loader, &batch, error);
        if (status != TN_OK)
            return status;
        if (!batch)
            break;
        if (tn_cancelled(reporter))
            return tn_fail(error, TN_ERROR_CANCELLED, "stopped after %zu of %zu images", done,
                           run->n_samples);
        if (batch->count > 0) /* else only other ranks have a part of the last batch */
            status = run_batch(run, batch, error);
        if (status != TN_OK)
            return status;
        done += batch->count;
        tn_progress(reporter, "evaluating", done, run->n_samples);
    }
    run->result.seconds = now() - begin;
    return TN_OK;
}

static void summarize(evaluation_run *run)
{
    tn_evaluation *r = &run->result;
    size_t labelled = 0;
    for (int k = 0; k < r->classes; k++)
        labelled += r->class_images[k];
    double n = labelled ? (double)labelled : 1.0;
    r->top1 = (double)r->correct_top1 / n;
    r->topk = (double)r->correct_topk / n;
    r->loss = run->loss / n;
    tn_wilson_interval(r->correct_top1, labelled, &r->top1_low, &r->top1_high);
    r->images_per_s = r->seconds > 0.0 ? (double)r->images / r->seconds : 0.0;
    r->precision = tn_plan_precision(run->plan);
    r->bad = tn_loader_bad_count(run->loader);
    const char *bad = tn_loader_bad_message(run->loader, 0);
    snprintf(r->bad_message, sizeof r->bad_message, "%s", bad ? bad : "");
}

tn_status tn_evaluate_plan(tn_plan *plan, const tn_dataset *dataset,
                           const tn_evaluate_options *options, tn_evaluation *evaluation,
                           tn_error *error)
{
    evaluation_run run = {.plan = plan, .dataset = dataset, .options = options};
    if (!options || !options->preprocess)
        return tn_fail(error, TN_ERROR_USAGE, "evaluating a plan needs a preprocessing");
    run.batch = (size_t)tn_plan_batch(plan);
    run.result.preprocess = *options->preprocess;
    run.result.top_k = options->top_k > 0 ? options->top_k : DEFAULT_K;
    snprintf(run.result.preprocess_source, SOURCE_SIZE, "asked for");
    tn_status status = count_classes(&run, error);
    if (status == TN_OK)
        status = check_classes(dataset, run.result.classes, error);
    if (status == TN_OK)
        status = choose_samples(&run, error);
    if (status == TN_OK)
        status = make_room(&run, error);
    if (status == TN_OK)
        status = start_loader(&run, error);
    if (status == TN_OK)
        status = run_all(&run, error);
    if (status == TN_OK) {
        summarize(&run);
        *evaluation = run.result;
        run.result = (tn_evaluation){0};
    }
    tn_evaluation_done(&run.result);
    tn_loader_destroy(run.loader);
    tn_free(run.subset);
    tn_free(run.logits);
    return status;
}

/* Creates the plan and looks whether its logits are the data set's classes; where the network has
 * several outputs, the error names the others. */
static tn_status make_plan(tn_evaluate_network *made, const tn_dataset *dataset, tn_device *device,
                           const tn_plan_options *options, tn_error *error)
{
    const Onnx__GraphProto *file = made->graph->model->proto->graph;
    tn_extent shape = {.rank = 0};
    char list[200] = "";
    size_t used = 0;
    tn_status status = tn_plan_create(made->graph, device, options, &made->plan, error);
    if (status == TN_OK)
        status = tn_plan_shape(made->plan, tn_plan_logits(made->plan), &shape, error);
    if (status == TN_OK && shape.rank >= 2 && shape.dims[1] <= INT32_MAX)
        status = check_classes(dataset, (int)shape.dims[1], error);
    if (status == TN_OK || !error || made->graph->n_outputs == 0)
        return status;
    for (size_t i = 0; i < file->n_output && used < sizeof list; i++)
        if (strcmp(tn_text(file->output[i]->name), made->graph->outputs[0]->name) != 0)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "",
                                     tn_quote(tn_text(file->output[i]->name)));
    size_t length = strlen(error->message);
    if (used > 0)
        snprintf(error->message + length, sizeof error->message - length,
                 "; --output takes another of its outputs: %s", list);
    return status;
}

tn_status tn_evaluate_open(const tn_model *model, const tn_dataset *dataset, tn_device *device,
                           const tn_evaluate_options *options, tn_evaluate_network *network,
                           tn_error *error)
{
    static const tn_evaluate_options none = {0};
    const tn_evaluate_options *o = options ? options : &none;
    tn_evaluate_network made = {0};
    image_input input;
    tn_graph_options graph_options = {.batch = o->batch ? (int64_t)o->batch : DEFAULT_BATCH,
                                      .output = o->output};
    tn_plan_options plan_options = {.loss = true, .precision = o->precision};
    if (o->batch > INT32_MAX)
        return tn_fail(error, TN_ERROR_USAGE, "a batch of %zu", o->batch);
    tn_status status = tn_graph_create_near(model, &graph_options, &made.graph, error);
    if (status == TN_OK && made.graph->n_inputs == 0)
        status = tn_fail(error, TN_ERROR_MODEL, "the network has no input");
    if (status != TN_OK)
        goto done;
    const tn_value *value = made.graph->inputs[0];
    status = find_input(value->rank, value->dims, value->name, &input, error);
    if (status == TN_OK && o->input_width > 0) {
        input.width = o->input_width;
        input.height = o->input_height > 0 ? o->input_height : o->input_width;
    }
    if (status == TN_OK)
        status = choose_for(model, dataset, o->preprocess, value, &input, &made.preprocess,
                            made.preprocess_source, error);
    if (status != TN_OK)
        goto done;
    /* a free size becomes what the preprocessing gives */
    tn_sample_shape shape = tn_dataset_shape(dataset);
    int width = shape.width, height = shape.height;
    tn_preprocess_output_size(&made.preprocess, width ? width : 256, height ? height : 256, &width,
                              &height);
    bool changes = value->dims[input.channels_last ? 1 : 2] != height ||
                   value->dims[input.channels_last ? 2 : 3] != width ||
                   value->dims[input.channels_last ? 3 : 1] <= 0;
    if (changes) {
        int64_t channels = input.channels ? input.channels : made.preprocess.channels;
        graph_options.input_rank = 3;
        graph_options.input_dims[0] = input.channels_last ? height : channels;
        graph_options.input_dims[1] = input.channels_last ? width : height;
        graph_options.input_dims[2] = input.channels_last ? channels : width;
        tn_graph_destroy(made.graph);
        made.graph = NULL;
        status = tn_graph_create_near(model, &graph_options, &made.graph, error);
    }
    if (status == TN_OK)
        status = make_plan(&made, dataset, device, &plan_options, error);
    if (status == TN_OK) {
        tn_model_forget_pages(model);
        *network = made;
        made = (tn_evaluate_network){0};
    }
done:
    tn_evaluate_close(&made);
    return status;
}

void tn_evaluate_close(tn_evaluate_network *network)
{
    tn_plan_destroy(network->plan);
    tn_graph_destroy(network->graph);
    *network = (tn_evaluate_network){0};
}

/* Some images may overflow; a network that does on all of them has no accuracy to speak of. */
static tn_status check_finite(const tn_evaluation *e, const char *output,
                              const tn_reporter *reporter, tn_error *error)
{
    if (e->not_finite > 0 && e->not_finite == e->images)
        return tn_fail(error, TN_ERROR_MODEL,
                       "output %s is not finite on any of %zu images: the network overflows, or "
                       "its weights are broken",
                       tn_quote(output), e->images);
    if (e->not_finite > 0)
        tn_log(reporter, TN_LOG_WARNING,
               "output %s is not finite on %zu of %zu images, which count as wrong",
               tn_quote(output), e->not_finite, e->images);
    return TN_OK;
}

tn_status tn_evaluate_model(const tn_model *model, const tn_dataset *dataset, tn_device *device,
                            const tn_evaluate_options *options, tn_evaluation *evaluation,
                            tn_error *error)
{
    tn_evaluate_network network = {0};
    tn_evaluate_options changed = options ? *options : (tn_evaluate_options){0};
    tn_status status = tn_evaluate_open(model, dataset, device, options, &network, error);
    if (status != TN_OK)
        return status;
    changed.preprocess = &network.preprocess;
    status = tn_evaluate_plan(network.plan, dataset, &changed, evaluation, error);
    if (status == TN_OK) {
        status = check_finite(evaluation, tn_plan_logits(network.plan), changed.reporter, error);
        if (status != TN_OK)
            tn_evaluation_done(evaluation);
    }
    if (status == TN_OK)
        memcpy(evaluation->preprocess_source, network.preprocess_source, SOURCE_SIZE);
    tn_evaluate_close(&network);
    return status;
}
