/* Images made by the CUDA device from bytes against those of the loader, bit for bit: every part of
 * augmentation, none, grey pictures, BGR, random resized crops (made on the host), corrupt
 * pictures; with the data set kept on the device and with batches alone. image_feed_test [SEED]
 *
 * Built over the emulated runtime here; over the real one it exits 77 without a GPU. */
#include "core/memory.h"
#include "data/glyphs.h"
#include "data/image.h"
#include "finetune/image_feed.h"
#include "gpu/cuda_device.h"
#include "tests/data/every_augmentation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BATCH = 10, EPOCHS = 2, GLYPHS = 57, PICTURES = 13 };

static char folder[] = "/tmp/ternion-feed-XXXXXX";

static void must(tn_status status, const tn_error *error)
{
    if (status == TN_OK)
        return;
    printf("FAILED: %s\n", error->message);
    exit(1);
}

/* A folder of PNG pictures, the fourth and fifth cut short. */
static void write_pictures(uint64_t seed, const char *path)
{
    tn_error error = {0};
    char name[128];
    unsigned char pixels[TN_GLYPH_SIDE * TN_GLYPH_SIDE * 3];
    if (mkdir(path, 0777))
        exit(1);
    for (int class = 0; class < 2; class ++) {
        snprintf(name, sizeof name, "%s/class%d", path, class);
        if (mkdir(name, 0777))
            exit(1);
    }
    for (int i = 0; i < PICTURES; i++) {
        const tn_image image = {
            .width = TN_GLYPH_SIDE, .height = TN_GLYPH_SIDE, .channels = 3, .pixels = pixels};
        tn_glyph_draw(seed, (uint64_t)i, i % 2, pixels);
        snprintf(name, sizeof name, "%s/class%d/%02d.png", path, i % 2, i);
        must(tn_png_write(name, &image, 0, &error), &error);
        if ((i == 3 || i == 4) && truncate(name, 200))
            exit(1);
    }
}

typedef struct arrangement {
    const char *name, *set; /* in the folder */
    tn_augment_options augment;
    int channels;
    bool bgr, replace_bad;
    size_t max_bad;
} arrangement;

static tn_loader *open(const arrangement *a, const tn_dataset *set, bool bytes, uint64_t seed)
{
    tn_preprocess preprocess;
    tn_loader *loader = NULL;
    tn_error error = {0};
    must(tn_preprocess_preset("cifar10", &preprocess, &error), &error);
    preprocess.channels = a->channels;
    preprocess.bgr = a->bgr;
    const tn_loader_options options = {.preprocess = &preprocess,
                                       .augment = &a->augment,
                                       .output = bytes ? TN_LOADER_PIXELS : TN_LOADER_VALUES_NHWC,
                                       .batch = BATCH,
                                       .seed = seed,
                                       .shuffle = true,
                                       .replace_bad = a->replace_bad,
                                       .max_bad = a->max_bad};
    must(tn_loader_create(set, &options, &loader, &error), &error);
    return loader;
}

/* One batch; the count of values that differ. */
static size_t compare(tn_device *device, tn_image_feed *feed, const tn_batch *host,
                      const tn_batch *bytes, float *data, float *made)
{
    tn_error error = {0};
    size_t n = (size_t)tn_image_feed_elements(feed), differ = 0;
    size_t given = n / BATCH * host->count;
    must(tn_image_feed_send(feed, bytes, &error), &error);
    must(tn_image_feed_make(feed, data, &error), &error);
    must(device->type->download(device, made, data, n * sizeof *made, &error), &error);
    for (size_t i = 0; i < n; i++) {
        float expected = i < given ? host->values[i] : 0.0f;
        differ += memcmp(&made[i], &expected, sizeof expected) != 0 && made[i] != expected;
    }
    return differ + (host->count != bytes->count);
}

/* `images`: what the feed is told the set has; more than the memory holds: batches alone. */
static bool agrees(tn_device *device, const arrangement *a, size_t images, uint64_t seed)
{
    char path[96];
    tn_error error = {0};
    tn_dataset *set = NULL;
    tn_image_feed *feed = NULL;
    snprintf(path, sizeof path, "%s/%s", folder, a->set);
    must(tn_dataset_open(path, TN_SPLIT_TRAIN, NULL, &set, &error), &error);
    tn_loader *host = open(a, set, false, seed), *bytes = open(a, set, true, seed);
    size_t count = tn_dataset_count(set), differ = 0, batches = 0;
    if (!tn_image_feed_wanted(device, set))
        exit(1);
    must(tn_image_feed_create(device, bytes, images ? images : count, BATCH, &feed, &error),
         &error);
    size_t n = (size_t)tn_image_feed_elements(feed);
    float *data = device->type->alloc(device, n * sizeof *data), *made = tn_alloc(n * sizeof *made);
    for (uint32_t epoch = 0; epoch < EPOCHS; epoch++) {
        must(tn_loader_start(host, epoch, 0, &error), &error);
        must(tn_loader_start(bytes, epoch, 0, &error), &error);
        for (const tn_batch *expected, *batch;; batches++) {
            must(tn_loader_next(host, &expected, &error), &error);
            must(tn_loader_next(bytes, &batch, &error), &error);
            if (!expected || !batch)
                break;
            differ += compare(device, feed, expected, batch, data, made);
        }
    }
    size_t kept = tn_image_feed_kept(feed);
    bool repeats = a->augment.min_area == 0.0f && !images;
    size_t stay = repeats ? count - (a->replace_bad ? 0 : a->max_bad) : 0;
    printf("%-10s %zu batches, %zu images kept, %zu values differ\n", a->name, batches, kept,
           differ);
    device->type->release(device, data);
    tn_free(made);
    tn_image_feed_destroy(feed);
    tn_loader_destroy(host);
    tn_loader_destroy(bytes);
    tn_dataset_close(set);
    return differ == 0 && kept == stay && batches == EPOCHS * ((count + BATCH - 1) / BATCH);
}

int main(int argc, char **argv)
{
    const arrangement arrangements[] = {
        {"everything", "glyphs", every_augmentation, 3, false, false, 0},
        {"grey", "glyphs", every_augmentation, 1, false, false, 0},
        {"bgr", "glyphs", every_augmentation, 3, true, false, 0},
        {"cifar", "glyphs", {.pad = 4, .flip = true}, 3, false, false, 0},
        {"none", "glyphs", {0}, 3, false, false, 0},
        {"none, bgr", "glyphs", {0}, 3, true, false, 0},
        {"crop", "pictures", {.min_area = 0.08f, .flip = true}, 3, false, false, 2},
        {"corrupt", "pictures", every_augmentation, 3, false, false, 2},
        {"replaced", "pictures", every_augmentation, 3, false, true, 2},
    };
    const char *asked = getenv("TERNION_SEED");
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : asked ? strtoull(asked, NULL, 10) : 11;
    char path[96], command[96];
    tn_error error = {0};
    tn_device *device = NULL;
    int bad = 0;
    printf("seed %llu\n", (unsigned long long)seed);
    if (tn_device_create_cuda(0, &device, &error) != TN_OK) {
        printf("skipped: %s\n", error.message);
        return 77;
    }
    if (!mkdtemp(folder))
        return 1;
    const tn_glyphs_options glyphs = {.seed = seed, .train = GLYPHS, .test = 10};
    snprintf(path, sizeof path, "%s/glyphs", folder);
    must(tn_glyphs_write(path, &glyphs, &error), &error);
    snprintf(path, sizeof path, "%s/pictures", folder);
    write_pictures(seed, path);
    for (size_t i = 0; i < sizeof arrangements / sizeof *arrangements; i++) {
        bad += !agrees(device, &arrangements[i], 0, seed);
        bad += !agrees(device, &arrangements[i], (size_t)1 << 31, seed);
    }
    tn_device_destroy(device);
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) || bad > 0;
}
