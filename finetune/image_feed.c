#include "finetune/image_feed.h"

#include "core/checked.h"
#include "core/memory.h"

#include <string.h>

struct tn_image_feed {
    tn_device *device;
    tn_kernel *kernel;
    size_t image; /* bytes of one */
    int64_t batch;
    size_t kept, images;   /* so many of so many */
    uint32_t *place_of;    /* [images] TN_NO_PLACE: not there yet; NULL: none stays */
    uint32_t *places;      /* [batch], to be sent */
    unsigned char *pixels; /* device memory, as what follows */
    uint32_t *device_places;
    tn_augmentation *augmentations;
    float *table; /* NULL with augmentation */
};

static tn_task task_of(tn_sample_shape shape, int64_t rows)
{
    return (tn_task){.verb = TN_VERB_AUGMENT,
                     .precision = TN_PRECISION_FP32,
                     .augment = {.rows = rows,
                                 .width = shape.width,
                                 .height = shape.height,
                                 .channels = shape.channels}};
}

bool tn_image_feed_wanted(tn_device *device, const tn_dataset *dataset)
{
    tn_sample_shape shape = tn_dataset_shape(dataset);
    /* pictures may still change their channels: to one or three */
    tn_task task = task_of((tn_sample_shape){.width = 1, .height = 1, .channels = 3}, 1);
    return !shape.is_float && device->type->supports(device, &task, NULL, 0);
}

static tn_status remember_places(tn_image_feed *feed, tn_error *error)
{
    feed->place_of = tn_alloc_array(feed->images, sizeof *feed->place_of);
    if (!feed->place_of)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the places of %zu images",
                       feed->images);
    memset(feed->place_of, 0xff, feed->images * sizeof *feed->place_of);
    return TN_OK;
}

/* Device memory for images to stay, or for those of one batch. */
static tn_status place_images(tn_image_feed *feed, bool repeats, tn_error *error)
{
    tn_device *device = feed->device;
    size_t all, one = feed->image * (size_t)feed->batch;
    size_t available = device->type->available ? device->type->available(device) : 0;
    if (repeats && feed->images < TN_NO_PLACE &&
        tn_checked_mul_size(feed->image, feed->images, &all) && all <= available / 2)
        feed->pixels = device->type->alloc(device, all);
    if (feed->pixels)
        return remember_places(feed, error);
    feed->pixels = device->type->alloc(device, one);
    if (!feed->pixels)
        return tn_fail(error, tn_device_memory_status(device),
                       "no memory on %s for a batch of %lld images: use a smaller --batch-size",
                       device->id, (long long)feed->batch);
    return TN_OK;
}

static tn_status make_table(tn_image_feed *feed, const tn_loader *loader, tn_error *error)
{
    float table[TN_PIXEL_CHANNELS * 256];
    size_t bytes = (size_t)tn_loader_shape(loader).channels * 256 * sizeof(float);
    if (tn_loader_augments(loader))
        return TN_OK;
    tn_loader_table(loader, table);
    feed->table = feed->device->type->alloc(feed->device, bytes);
    if (!feed->table)
        return tn_fail(error, tn_device_memory_status(feed->device), "no memory on %s",
                       feed->device->id);
    return feed->device->type->upload(feed->device, feed->table, table, bytes, error);
}

static tn_status prepare(tn_image_feed *feed, const tn_loader *loader, tn_error *error)
{
    tn_device *device = feed->device;
    size_t n = (size_t)feed->batch;
    tn_task task = task_of(tn_loader_shape(loader), feed->batch);
    task.augment.normalization = tn_loader_normalization(loader);
    tn_status status = device->type->prepare(device, &task, &feed->kernel, error);
    if (status != TN_OK)
        return status;
    feed->places = tn_alloc_array(n, sizeof *feed->places);
    if (!feed->places)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    feed->device_places = device->type->alloc(device, n * sizeof *feed->device_places);
    feed->augmentations = device->type->alloc(device, n * sizeof *feed->augmentations);
    if (!feed->device_places || !feed->augmentations)
        return tn_fail(error, tn_device_memory_status(device), "no memory on %s", device->id);
    status = make_table(feed, loader, error);
    return status == TN_OK ? place_images(feed, tn_loader_repeats(loader), error) : status;
}

tn_status tn_image_feed_create(tn_device *device, const tn_loader *loader, size_t images,
                               int64_t batch, tn_image_feed **feed, tn_error *error)
{
    tn_sample_shape shape = tn_loader_shape(loader);
    tn_image_feed *made = tn_alloc_zero(1, sizeof *made);
    if (!made)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for images");
    *made = (tn_image_feed){.device = device,
                            .image =
                                (size_t)shape.width * (size_t)shape.height * (size_t)shape.channels,
                            .batch = batch,
                            .images = images};
    tn_status status = prepare(made, loader, error);
    if (status == TN_OK)
        *feed = made;
    else
        tn_image_feed_destroy(made);
    return status;
}

void tn_image_feed_destroy(tn_image_feed *feed)
{
    if (!feed)
        return;
    const tn_device_class *type = feed->device->type;
    tn_kernel_destroy(feed->kernel);
    type->release(feed->device, feed->pixels);
    type->release(feed->device, feed->device_places);
    type->release(feed->device, feed->augmentations);
    type->release(feed->device, feed->table);
    tn_free(feed->places);
    tn_free(feed->place_of);
    tn_free(feed);
}

static bool is_new(const tn_image_feed *feed, const tn_batch *batch, size_t i)
{
    return batch->labels[i] != TN_BAD_SAMPLE &&
           (!feed->place_of || feed->place_of[batch->indices[i]] == TN_NO_PLACE);
}

/* Images that are not there, in runs; `places` for all. */
static tn_status send_images(tn_image_feed *feed, const tn_batch *batch, tn_error *error)
{
    tn_status status = TN_OK;
    size_t next = feed->place_of ? feed->kept : 0;
    for (size_t i = 0; i < batch->count && status == TN_OK;) {
        size_t end = i;
        for (; end < batch->count && is_new(feed, batch, end); end++) {
            feed->places[end] = (uint32_t)(next + end - i);
            if (feed->place_of)
                feed->place_of[batch->indices[end]] = feed->places[end];
        }
        if (end == i) {
            feed->places[i] =
                batch->labels[i] == TN_BAD_SAMPLE ? TN_NO_PLACE : feed->place_of[batch->indices[i]];
            i++;
            continue;
        }
        status = feed->device->type->upload(feed->device, feed->pixels + next * feed->image,
                                            batch->pixels + i * feed->image,
                                            (end - i) * feed->image, error);
        next += end - i;
        i = end;
    }
    if (feed->place_of)
        feed->kept = next;
    return status;
}

tn_status tn_image_feed_send(tn_image_feed *feed, const tn_batch *batch, tn_error *error)
{
    const tn_device_class *type = feed->device->type;
    size_t n = (size_t)feed->batch;
    if (batch->count > n)
        return tn_fail(error, TN_ERROR_USAGE, "%zu samples for a batch of %zu", batch->count, n);
    memset(feed->places, 0xff, n * sizeof *feed->places);
    tn_status status = send_images(feed, batch, error);
    if (status == TN_OK)
        status = type->upload(feed->device, feed->device_places, feed->places,
                              n * sizeof *feed->places, error);
    if (status == TN_OK && !feed->table)
        status = type->upload(feed->device, feed->augmentations, batch->augmentations,
                              batch->count * sizeof *feed->augmentations, error);
    return status;
}

tn_status tn_image_feed_make(tn_image_feed *feed, float *dst, tn_error *error)
{
    const float *src[1] = {feed->table};
    const tn_arguments args = {.src = src,
                               .dst = dst,
                               .pixels = feed->pixels,
                               .places = feed->device_places,
                               .augmentations = feed->augmentations};
    return feed->kernel->type->forward(feed->kernel, &args, error);
}

int64_t tn_image_feed_elements(const tn_image_feed *feed)
{
    return feed->batch * (int64_t)feed->image;
}

size_t tn_image_feed_kept(const tn_image_feed *feed)
{
    return feed->kept;
}
