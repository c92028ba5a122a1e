#include "finetune/calibrate_images.h"

#include "core/checked.h"
#include "core/memory.h"
#include "core/random.h"
#include "finetune/evaluate.h"

#include <string.h>

void tn_calibrate_images_done(tn_calibrate_images *images)
{
    tn_free(images->nchw);
    *images = (tn_calibrate_images){0};
}

/* Channels, height and width of the network's first input; 0 where free. */
static tn_status input_size(const tn_model *model, int64_t size[3], tn_error *error)
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
        size[i] = input->dims[i + 1] > 0 ? input->dims[i + 1] : 0;
    tn_graph_destroy(graph);
    return status;
}

static tn_status reserve(tn_calibrate_images *images, tn_error *error)
{
    int64_t count;
    if (!tn_checked_mul_i64(images->channels * images->height, images->width, &count) ||
        !tn_checked_mul_i64(count, images->count, &count))
        return tn_fail(error, TN_ERROR_LIMIT, "%lld calibration images are too many",
                       (long long)images->count);
    images->nchw = tn_alloc_array((size_t)count, sizeof *images->nchw);
    return images->nchw ? TN_OK
                        : tn_fail(error, TN_ERROR_LIMIT, "no memory for %lld calibration images",
                                  (long long)images->count);
}

/* Reads and prepares one sample; the first decides the size of all. */
static tn_status read_one(const tn_dataset *dataset, const tn_preprocess *preprocess, size_t index,
                          int64_t position, tn_image *buffers, tn_calibrate_images *images,
                          tn_error *error)
{
    tn_image *raw = &buffers[0], *scratch = &buffers[1], *ready = &buffers[2];
    tn_status status = tn_dataset_read(dataset, index, raw, error);
    if (status == TN_OK)
        status = tn_preprocess_geometry(preprocess, raw, scratch, ready, error);
    if (status == TN_OK && !images->nchw) {
        images->channels = preprocess->channels;
        images->height = ready->height;
        images->width = ready->width;
        status = reserve(images, error);
    }
    if (status != TN_OK)
        return status;
    if (ready->width != images->width || ready->height != images->height) {
        char name[256];
        tn_dataset_sample_name(dataset, index, name, sizeof name);
        return tn_fail(error, TN_ERROR_DATA,
                       "%s is %dx%d, the images before it %lldx%lld: give --preprocess or --crop",
                       tn_quote(name), ready->width, ready->height, (long long)images->width,
                       (long long)images->height);
    }
    int64_t size = images->channels * images->height * images->width;
    tn_preprocess_values(preprocess, ready, TN_IMAGE_NCHW, images->nchw + position * size);
    return TN_OK;
}

static tn_status draw(const tn_dataset *dataset, const tn_preprocess *preprocess,
                      const tn_calibrate_options *options, tn_calibrate_images *images,
                      tn_error *error)
{
    tn_image buffers[3] = {{0}, {0}, {0}};
    size_t end = tn_dataset_count(dataset), skip = options->skip < end ? options->skip : end;
    end = options->samples < end - skip ? skip + options->samples : end;
    uint32_t *chosen = tn_alloc_array(end + 1, sizeof *chosen);
    tn_status status = chosen
                           ? tn_dataset_draw(dataset, options->seed, end, chosen, error)
                           : tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu numbers", end);
    images->count = (int64_t)(end - skip);
    for (size_t i = skip; status == TN_OK && i < end; i++)
        status =
            read_one(dataset, preprocess, chosen[i], (int64_t)(i - skip), buffers, images, error);
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
    const size_t size = (size_t)(images->channels * images->height * images->width);
    uint32_t *order = tn_alloc_array(count, sizeof *order);
    if (!order)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu numbers", count);
    tn_status status = reserve(images, error);
    tn_random_permutation(options->seed, TN_PURPOSE_CALIBRATE, 0, count, order);
    for (size_t i = skip; status == TN_OK && i < count; i++)
        memcpy(images->nchw + (i - skip) * size, options->images + order[i] * size,
               size * sizeof(float));
    tn_free(order);
    return status;
}

tn_status tn_calibrate_images_load(const tn_model *model, const tn_dataset *dataset,
                                   const tn_calibrate_options *options, tn_calibrate_images *out,
                                   tn_error *error)
{
    tn_calibrate_images images = {0};
    tn_preprocess preprocess;
    int64_t size[3];
    tn_status status = input_size(model, size, error);
    if (status == TN_OK && options->images) {
        images = (tn_calibrate_images){.count = (int64_t)options->samples,
                                       .channels = size[0],
                                       .height = size[1],
                                       .width = size[2]};
        status = take_given(options, &images, error);
    } else if (status == TN_OK && !dataset) {
        status = tn_fail(error, TN_ERROR_USAGE, "calibration needs a data set or images");
    } else if (status == TN_OK) {
        status =
            tn_evaluate_preprocess(model, dataset, options->preprocess, &preprocess, NULL, error);
        if (status == TN_OK)
            status = draw(dataset, &preprocess, options, &images, error);
    }
    if (status == TN_OK)
        *out = images;
    else
        tn_calibrate_images_done(&images);
    return status;
}
