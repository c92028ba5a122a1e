/* Training images as bytes in the memory of a device that augments: the network's input is made
 * there, bit for bit as the loader makes it on the host. A data set that takes up to half of the
 * device's free memory stays there, each image sent when it first comes; else every batch is sent.
 * Decoding, resizing, random resized crops and the drawing of parameters are the loader's. */
#ifndef TERNION_FINETUNE_IMAGE_FEED_H
#define TERNION_FINETUNE_IMAGE_FEED_H

#include "data/loader.h"
#include "network/device.h"

typedef struct tn_image_feed tn_image_feed;

/* Whether such a loader's output shall be TN_LOADER_PIXELS, for this device. */
bool tn_image_feed_wanted(tn_device *device, const tn_dataset *dataset);

/* For the batches of a loader of TN_LOADER_PIXELS over `images` samples; `batch` rows are made.
 * Borrows the device. DEVICE without memory for a batch. */
tn_status tn_image_feed_create(tn_device *device, const tn_loader *loader, size_t images,
                               int64_t batch, tn_image_feed **feed, tn_error *error) TN_MUST_CHECK;
void tn_image_feed_destroy(tn_image_feed *feed); /* NULL is fine */

/* What the next tn_image_feed_make needs; batch->count rows, zeros behind. */
tn_status tn_image_feed_send(tn_image_feed *feed, const tn_batch *batch,
                             tn_error *error) TN_MUST_CHECK;
/* Queues the making of dst, device memory [batch, height, width, channels]; can be recorded. */
tn_status tn_image_feed_make(tn_image_feed *feed, float *dst, tn_error *error) TN_MUST_CHECK;

int64_t tn_image_feed_elements(const tn_image_feed *feed); /* of dst */
/* Images that have come to stay; 0 where every batch is sent. */
size_t tn_image_feed_kept(const tn_image_feed *feed);

#endif
