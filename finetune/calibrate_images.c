#include "finetune/calibrate_images.h"

#include "core/checked.h"
#include "core/memory.h"
#include "core/random.h"
#include "finetune/evaluate.h"

#include <string.h>

void tn_calibrate_images_done(tn_calibrate_images *images)
{
    tn_free(images->values);
    *images = (tn_calibrate_images){0};
}

/* Takes the sizes of the network's first input, 0 where free, and the order it reads them in. */
static tn_status input_size(const tn_model *model, tn_calibrate_images *images, bool *channels_last,
                            tn_error *error)
{
    tn_graph *graph = NULL;
    tn_status status = tn_graph_create(model, NULL, &graph, error);
    if (status != TN_OK)
        return status;
    const tn_value *input = graph->n_inputs > 0 ? graph->inputs[0] : NULL;
    if (!input || input->rank != 4)
        status = tn_fail(error, TN_ERROR_MODEL,
                         "calibration needs an image input [N, C, H, W], the model's first input "
                         "has rank %d",
                         input ? input->rank : 0);
    for (int i = 0; status == TN_OK && i < 3; i++)
        images->dims[i] = input->dims[i + 1] > 0 ? input->dims[i + 1] : 0;
    if (status == TN_OK)
        *channels_last = tn_input_channels_last(input->rank, input->dims);
    tn_graph_destroy(graph);
    return status;
}

static tn_status reserve(tn_calibrate_images *images, tn_error *error)
{
    int64_t count;
    if (!tn_checked_mul_i64(images->dims[0], images->dims[1], &images->size) ||
        !tn_checked_mul_i64(images->size, images->dims[2], &images->size) ||
        !tn_checked_mul_i64(images->size, images->count, &count))
        return tn_fail(error, TN_ERROR_LIMIT, "%lld calibration images are too many",
                       (long long)images->count);
    images->values = tn_alloc_array((size_t)count, sizeof *images->values);
    return images->values ? TN_OK
                          : tn_fail(error, TN_ERROR_LIMIT, "no memory for %lld calibration images",
                                    (long long)images->count);
}

/* How samples become inputs of the network. */
typedef struct preparation {
    const tn_dataset *dataset;
    tn_preprocess preprocess;
    bool channels_last;
} preparation;

static void set_dims(const preparation *how, const tn_image *ready, int64_t dims[3])
{
    const int64_t channels = how->preprocess.channels;
    dims[0] = how->channels_last ? ready->height : channels;
    dims[1] = how->channels_last ? ready->width : ready->height;
    dims[2] = how->channels_last ? channels : ready->width;
}

/* Reads and prepares one sample; the first decides the size of all. */
static tn_status read_one(const preparation *how, size_t index, int64_t position, tn_image *buffers,
                          tn_calibrate_images *images, tn_error *error)
{
    tn_image *raw = &buffers[0], *scratch = &buffers[1], *ready = &buffers[2];
    tn_status status = tn_dataset_read(how->dataset, index, raw, error);
    if (status == TN_OK)
        status = tn_preprocess_geometry(&how->preprocess, raw, scratch, ready, error);
    if (status == TN_OK && !images->values) {
        set_dims(how, ready, images->dims);
        status = reserve(images, error);
    }
    if (status != TN_OK)
        return status;
    const int64_t height = images->dims[how->channels_last ? 0 : 1];
    const int64_t width = images->dims[how->channels_last ? 1 : 2];
    if (ready->width != width || ready->height != height) {
        char name[256];
        tn_dataset_sample_name(how->dataset, index, name, sizeof name);
        return tn_fail(error, TN_ERROR_DATA,
                       "%s is %dx%d, the images before it %lldx%lld: give --preprocess or --crop",
                       tn_quote(name), ready->width, ready->height, (long long)width,
                       (long long)height);
    }
    tn_preprocess_values(&how->preprocess, ready,
                         how->channels_last ? TN_IMAGE_NHWC : TN_IMAGE_NCHW,
                         images->values + position * images->size);
    return TN_OK;
}

static tn_status draw(const preparation *how, const tn_calibrate_options *options,
                      tn_calibrate_images *images, tn_error *error)
{
    tn_image buffers[3] = {{0}, {0}, {0}};
    size_t end = tn_dataset_count(how->dataset), skip = options->skip < end ? options->skip : end;
    end = options->samples < end - skip ? skip + options->samples : end;
    uint32_t *chosen = tn_alloc_array(end + 1, sizeof *chosen);
    tn_status status = chosen
                           ? tn_dataset_draw(how->dataset, options->seed, end, chosen, error)
                           : tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu numbers", end);
    images->count = (int64_t)(end - skip);
    for (size_t i = skip; status == TN_OK && i < end; i++)
        status = read_one(how, chosen[i], (int64_t)(i - skip), buffers, images, error);
    for (size_t i = 0; i < 3; i++)
        tn_image_done(&buffers[i]);
    tn_free(chosen);
    return status;
}

/* The images given, in the order in which a data set of them would be drawn: kept in a file and
 * read again they give the same bits. */
static tn_status take_given(const tn_calibrate_options *options, tn_calibrate_images *images,
                            tn_error *error)
{
    const size_t skip = options->skip, count = skip + (size_t)images->count;
    uint32_t *order = tn_alloc_array(count, sizeof *order);
    if (!order)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu numbers", count);
    tn_status status = reserve(images, error);
    const size_t size = (size_t)images->size;
    tn_random_permutation(options->seed, TN_PURPOSE_CALIBRATE, 0, count, order);
    for (size_t i = skip; status == TN_OK && i < count; i++)
        memcpy(images->values + (i - skip) * size, options->images + order[i] * size,
               size * sizeof(float));
    tn_free(order);
    return status;
}

tn_status tn_calibrate_images_load(const tn_model *model, const tn_dataset *dataset,
                                   const tn_calibrate_options *options, tn_calibrate_images *out,
                                   tn_error *error)
{
    tn_calibrate_images images = {.count = (int64_t)options->samples};
    preparation how = {.dataset = dataset};
    tn_status status = input_size(model, &images, &how.channels_last, error);
    if (status == TN_OK && options->images) {
        status = take_given(options, &images, error);
    } else if (status == TN_OK && !dataset) {
        status = tn_fail(error, TN_ERROR_USAGE, "calibration needs a data set or images");
    } else if (status == TN_OK) {
        status = tn_evaluate_preprocess(model, dataset, options->preprocess, &how.preprocess, NULL,
                                        error);
        if (status == TN_OK)
            status = draw(&how, options, &images, error);
    }
    if (status == TN_OK)
        *out = images;
    else
        tn_calibrate_images_done(&images);
    return status;
}
