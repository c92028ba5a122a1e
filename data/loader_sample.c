/* One sample of a batch: decoded or cached, sized, augmented. */
#include "data/loader_state.h"

#include "core/memory.h"

#include <string.h>

enum { CACHE_EMPTY, CACHE_FULL };

size_t tn_loader_elements(const tn_loader *loader)
{
    return (size_t)loader->shape.width * (size_t)loader->shape.height *
           (size_t)loader->shape.channels;
}

static tn_status decode_sample(loader_worker *worker, size_t index, tn_error *error)
{
    const tn_loader *loader = worker->loader;
    tn_status status = tn_dataset_read(loader->dataset, index, &worker->decoded, error);
    if (status != TN_OK)
        return status;
    if (loader->augment.min_area > 0.0f) {
        tn_resize_box box =
            tn_augment_draw_box(&loader->augment, loader->options.seed, loader->epoch, index,
                                worker->decoded.width, worker->decoded.height);
        bool convert = worker->decoded.channels != loader->shape.channels;
        tn_image *sized = convert ? &worker->scratch : &worker->final;
        status = tn_image_resize(&worker->decoded, &box, loader->shape.width, loader->shape.height,
                                 sized, error);
        if (status == TN_OK && convert)
            status =
                tn_image_convert_channels(sized, loader->shape.channels, &worker->final, error);
    } else {
        status = tn_preprocess_geometry(&loader->preprocess, &worker->decoded, &worker->scratch,
                                        &worker->final, error);
    }
    if (status != TN_OK)
        return status;
    const tn_image *f = &worker->final;
    if (f->width != loader->shape.width || f->height != loader->shape.height ||
        f->channels != loader->shape.channels)
        return tn_fail(error, TN_ERROR_DATA, "sample %zu is %dx%dx%d, not %dx%dx%d as the others",
                       index, f->width, f->height, f->channels, loader->shape.width,
                       loader->shape.height, loader->shape.channels);
    return TN_OK;
}

/* The sample before augmentation, in worker->final: from the cache or decoded. */
static tn_status fetch_sample(loader_worker *worker, size_t index, tn_error *error)
{
    tn_loader *loader = worker->loader;
    size_t bytes = tn_loader_elements(loader);
    if (loader->cache &&
        atomic_load_explicit(&loader->cached[index], memory_order_acquire) == CACHE_FULL) {
        tn_status status = tn_image_reserve(&worker->final, loader->shape.width,
                                            loader->shape.height, loader->shape.channels, error);
        if (status == TN_OK)
            memcpy(worker->final.pixels, loader->cache + index * bytes, bytes);
        return status;
    }
    tn_status status = decode_sample(worker, index, error);
    /* a sample stands once in an epoch, so nobody else fills this place now */
    if (status == TN_OK && loader->cache) {
        memcpy(loader->cache + index * bytes, worker->final.pixels, bytes);
        atomic_store_explicit(&loader->cached[index], CACHE_FULL, memory_order_release);
    }
    return status;
}

static void augment_values(const tn_loader *loader, const unsigned char *src,
                           const tn_augmentation *a, const unsigned char *partner,
                           const tn_augmentation *b, float *dst)
{
    int width = loader->shape.width, height = loader->shape.height;
    int channels = loader->shape.channels;
    size_t plane = (size_t)width * (size_t)height;
    bool planar = loader->options.output == TN_LOADER_VALUES_NCHW;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            float v[TN_PIXEL_CHANNELS];
            size_t at = (size_t)y * (size_t)width + (size_t)x;
            tn_pixel_mixed(src, a, partner, b, width, height, channels, &loader->normalization, x,
                           y, v);
            for (size_t k = 0; k < (size_t)channels; k++)
                dst[planar ? k * plane + at : at * (size_t)channels + k] = v[k];
        }
}

tn_status tn_loader_fill(loader_worker *worker, loader_slot *slot, size_t i, tn_error *error)
{
    tn_loader *loader = worker->loader;
    size_t elements = tn_loader_elements(loader), index = slot->indices[i];
    size_t count = tn_dataset_count(loader->dataset);
    tn_status status = fetch_sample(worker, index, error);
    slot->labels[i] = tn_dataset_label(loader->dataset, index);
    slot->bad[i] = status == TN_ERROR_DATA;
    if (slot->bad[i]) {
        slot->labels[i] = TN_BAD_SAMPLE;
        *error = (tn_error){0};
        for (size_t k = 1; loader->options.replace_bad && k < count && k < TN_LOADER_TRIES; k++) {
            size_t other = (index + k) % count;
            status = decode_sample(worker, other, error);
            if (status == TN_OK)
                slot->labels[i] = tn_dataset_label(loader->dataset, other);
            if (status != TN_ERROR_DATA)
                break;
            *error = (tn_error){0};
        }
    }
    if (status != TN_OK && status != TN_ERROR_DATA)
        return status;
    bool bad = status == TN_ERROR_DATA;
    const tn_image *image = &worker->final;
    bool grey = !bad && image->pixels && loader->augment.contrast > 0.0f;
    slot->augmentations[i] = tn_augment_draw(
        &loader->augment, loader->options.seed, loader->epoch, index, loader->shape.width,
        loader->shape.height,
        grey ? tn_augment_mean_grey(image->pixels, elements / (size_t)image->channels,
                                    image->channels)
             : 0.0f);
    if (slot->pixels && bad)
        memset(slot->pixels + i * elements, 0, elements);
    else if (slot->pixels)
        memcpy(slot->pixels + i * elements, image->pixels, elements);
    if (slot->values && bad)
        memset(slot->values + i * elements, 0, elements * sizeof(float));
    else if (slot->values && !slot->pixels)
        tn_preprocess_values(&loader->preprocess, image,
                             loader->options.output == TN_LOADER_VALUES_NCHW ? TN_IMAGE_NCHW
                                                                             : TN_IMAGE_NHWC,
                             slot->values + i * elements);
    return TN_OK;
}

void tn_loader_finish(const tn_loader *loader, loader_slot *slot, size_t first, size_t last)
{
    size_t elements = tn_loader_elements(loader);
    for (size_t i = first; i < last; i++) {
        size_t p = i ^ 1;
        bool mixes = loader->augment.mixup > 0.0f && p < last && slot->labels[p] >= 0;
        if (!mixes)
            slot->augmentations[i].mix = 0.0f;
        if (slot->values && slot->pixels && slot->labels[i] != TN_BAD_SAMPLE)
            augment_values(loader, slot->pixels + i * elements, &slot->augmentations[i],
                           mixes ? slot->pixels + p * elements : NULL, &slot->augmentations[p],
                           slot->values + i * elements);
        slot->partner_labels[i] = mixes ? slot->labels[p] : slot->labels[i];
        slot->partner_shares[i] = slot->augmentations[i].mix;
    }
}
