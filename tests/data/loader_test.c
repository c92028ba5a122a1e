/* The loader: the same batches whatever the threads, ranks and starting point. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/memory.h"
#include "core/random.h"
#include "data/glyphs.h"
#include "data/loader.h"
#include "tests/data/every_augmentation.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

static char folder[] = "/tmp/ternion-loader-XXXXXX";
static tn_dataset *glyphs;

static int set_up(void **state)
{
    (void)state;
    tn_error error = {0};
    tn_glyphs_options options = {.seed = 5, .train = 333, .test = 40};
    return !mkdtemp(folder) || tn_glyphs_write(folder, &options, &error) != TN_OK ||
           tn_dataset_open(folder, TN_SPLIT_TRAIN, NULL, &glyphs, &error) != TN_OK;
}

static int tear_down(void **state)
{
    (void)state;
    char command[64];
    tn_dataset_close(glyphs);
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static tn_loader *make(const tn_loader_options *changes)
{
    tn_preprocess preprocess;
    tn_error error = {0};
    tn_loader *loader = NULL;
    tn_loader_options options = *changes;
    assert_int_equal(tn_preprocess_preset("cifar10", &preprocess, &error), TN_OK);
    options.preprocess = &preprocess;
    if (tn_loader_create(glyphs, &options, &loader, &error) != TN_OK)
        fail_msg("%s", error.message);
    return loader;
}

static size_t elements(const tn_batch *batch)
{
    return (size_t)batch->width * (size_t)batch->height * (size_t)batch->channels;
}

/* A fingerprint of batches [first, end) of an epoch. */
static uint64_t epoch_hash(tn_loader *loader, uint32_t epoch, size_t first, bool floats)
{
    const tn_batch *batch;
    tn_error error = {0};
    uint64_t hash = 0;
    assert_int_equal(tn_loader_start(loader, epoch, first, &error), TN_OK);
    for (;;) {
        assert_int_equal(tn_loader_next(loader, &batch, &error), TN_OK);
        if (!batch)
            return hash;
        size_t n = batch->count * elements(batch);
        hash = floats ? XXH3_64bits_withSeed(batch->values, n * sizeof(float), hash)
                      : XXH3_64bits_withSeed(batch->pixels, n, hash);
        hash = XXH3_64bits_withSeed(batch->labels, batch->count * sizeof(int32_t), hash);
        hash = XXH3_64bits_withSeed(batch->indices, batch->count * sizeof(uint32_t), hash);
        hash = XXH3_64bits_withSeed(batch->augmentations, batch->count * sizeof(tn_augmentation),
                                    hash);
    }
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    uint64_t first[3] = {0};
    for (int threads = 1; threads <= 5; threads += 2) {
        tn_loader *loader = make(&(tn_loader_options){.augment = &every_augmentation,
                                                      .batch = 64,
                                                      .shuffle = true,
                                                      .seed = 9,
                                                      .threads = threads});
        assert_int_equal(tn_loader_batches(loader), 6);
        for (uint32_t epoch = 0; epoch < 3; epoch++) {
            uint64_t hash = epoch_hash(loader, epoch, 0, true);
            if (threads == 1)
                first[epoch] = hash;
            assert_int_equal(hash, first[epoch]);
        }
        assert_int_not_equal(first[0], first[1]);
        /* from the middle, and again from the start without finishing */
        uint64_t half = epoch_hash(loader, 1, 3, true);
        assert_int_equal(tn_loader_start(loader, 2, 0, NULL), TN_OK);
        assert_int_equal(half, epoch_hash(loader, 1, 3, true));
        assert_int_equal(first[0], epoch_hash(loader, 0, 0, true));
        tn_loader_destroy(loader);
    }
}

static void cache_does_not_matter(void **state)
{
    (void)state;
    tn_loader_options options = {.batch = 50, .output = TN_LOADER_PIXELS, .shuffle = true};
    tn_loader *with = make(&options);
    options.cache_bytes = 1;
    tn_loader *without = make(&options);
    for (uint32_t epoch = 0; epoch < 3; epoch++)
        assert_int_equal(epoch_hash(with, epoch, 0, false), epoch_hash(without, epoch, 0, false));
    tn_loader_destroy(with);
    tn_loader_destroy(without);
}

/* Two ranks side by side see what one rank sees. */
static void ranks_divide_batches(void **state)
{
    (void)state;
    tn_loader_options options = {
        .augment = &every_augmentation, .batch = 64, .shuffle = true, .seed = 3};
    tn_loader *whole = make(&options);
    options.ranks = 2;
    tn_loader *part[2];
    for (int r = 0; r < 2; r++) {
        options.rank = r;
        part[r] = make(&options);
        assert_int_equal(tn_loader_start(part[r], 4, 0, NULL), TN_OK);
    }
    assert_int_equal(tn_loader_start(whole, 4, 0, NULL), TN_OK);
    for (;;) {
        const tn_batch *all, *half;
        assert_int_equal(tn_loader_next(whole, &all, NULL), TN_OK);
        size_t at = 0;
        for (int r = 0; r < 2; r++) {
            assert_int_equal(tn_loader_next(part[r], &half, NULL), TN_OK);
            assert_int_equal(half == NULL, all == NULL);
            if (!half)
                continue;
            assert_int_equal(half->total, all->count);
            assert_memory_equal(half->indices, all->indices + at, half->count * sizeof(uint32_t));
            assert_memory_equal(half->values, all->values + at * elements(all),
                                half->count * elements(all) * sizeof(float));
            at += half->count;
        }
        if (!all)
            break;
        assert_int_equal(at, all->count);
    }
    tn_loader_destroy(whole);
    tn_loader_destroy(part[0]);
    tn_loader_destroy(part[1]);
}

/* Without augmentation, values are (pixel / 255 - mean) / deviation of the file's bytes. */
static void values_are_normalized_pixels(void **state)
{
    (void)state;
    const tn_batch *batch;
    tn_image image = {0};
    tn_loader *loader = make(&(tn_loader_options){.batch = 32});
    static const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};
    assert_int_equal(tn_loader_start(loader, 0, 2, NULL), TN_OK);
    assert_int_equal(tn_loader_next(loader, &batch, NULL), TN_OK);
    assert_int_equal(batch->number, 2);
    for (size_t i = 0; i < batch->count; i++) {
        assert_int_equal(batch->indices[i], 64 + i);
        assert_int_equal(tn_dataset_read(glyphs, 64 + i, &image, NULL), TN_OK);
        assert_int_equal(batch->labels[i], (64 + i) % 10);
        for (size_t p = 0; p < 1024; p++)
            for (size_t c = 0; c < 3; c++) {
                float x = ((float)image.pixels[3 * p + c] / 255.0f - mean[c]) / std[c];
                assert_true(batch->values[i * 3072 + c * 1024 + p] == x);
            }
    }
    tn_image_done(&image);
    tn_loader_destroy(loader);
}

/* A map without interpolation is a shift and a flip, whatever the pixel body computes. */
static void pad_and_flip_move_whole_pixels(void **state)
{
    (void)state;
    unsigned char src[8 * 6 * 3];
    tn_augment_options options = {.pad = 2, .flip = true};
    tn_normalization plain = {{1.0f, 1.0f, 1.0f}, {0.0f, 0.0f, 0.0f}, 0};
    bool flips[2] = {false, false};
    for (size_t i = 0; i < sizeof src; i++)
        src[i] = (unsigned char)(7 * i + 1);
    for (uint64_t sample = 0; sample < 200; sample++) {
        tn_augmentation a = tn_augment_draw(&options, 11, 0, sample, 8, 6, 0.0f);
        int found = 0;
        for (int flip = 0; flip < 2; flip++)
            for (int dy = -2; dy <= 2; dy++)
                for (int dx = -2; dx <= 2; dx++) {
                    bool same = true;
                    for (int y = 0; y < 6; y++)
                        for (int x = 0; x < 8; x++) {
                            float v[3];
                            int sx = (flip ? 7 - x : x) + dx, sy = y + dy;
                            bool in = sx >= 0 && sx < 8 && sy >= 0 && sy < 6;
                            tn_pixel_normalized(src, 8, 6, 3, &a, &plain, x, y, v);
                            for (int k = 0; k < 3; k++)
                                same = same && v[k] == (in ? src[(sy * 8 + sx) * 3 + k] : 0.0f);
                        }
                    if (same) {
                        found++;
                        flips[flip] = true;
                    }
                }
        assert_int_equal(found, 1);
    }
    assert_true(flips[0] && flips[1]);
}

static void neutral_augmentation_changes_nothing(void **state)
{
    (void)state;
    tn_image image = {0};
    tn_normalization plain = {{1.0f, 1.0f, 1.0f}, {0.0f, 0.0f, 0.0f}, 0};
    tn_augmentation a = tn_augment_draw(NULL, 1, 2, 3, 32, 32, 0.0f);
    assert_int_equal(tn_dataset_read(glyphs, 1, &image, NULL), TN_OK);
    for (int y = 0; y < 32; y++)
        for (int x = 0; x < 32; x++) {
            float v[3];
            tn_pixel_normalized(image.pixels, 32, 32, 3, &a, &plain, x, y, v);
            for (int k = 0; k < 3; k++)
                assert_true(v[k] == image.pixels[(y * 32 + x) * 3 + k]);
        }
    tn_image_done(&image);
}

static void mixup_follows_beta(void **state)
{
    (void)state;
    /* min(X, 1 - X) of Beta(1, 1) is uniform on [0, 1/2] */
    tn_augment_options options = {.mixup = 1.0f};
    double sum = 0.0, squares = 0.0;
    enum { N = 20000 };
    for (uint64_t i = 0; i < N; i++) {
        double mix = (double)tn_augment_draw(&options, 2, 0, i, 8, 8, 0.0f).mix;
        assert_true(mix >= 0.0 && mix <= 0.5);
        sum += mix;
        squares += mix * mix;
    }
    double mean = sum / N, variance = squares / N - mean * mean;
    assert_true(fabs(mean - 0.25) < 0.005);
    assert_true(fabs(variance - 1.0 / 48.0) < 0.001);
}

static void subset_and_last_batch(void **state)
{
    (void)state;
    uint32_t subset[70];
    const tn_batch *batch;
    assert_int_equal(tn_dataset_draw(glyphs, 4, 70, subset, NULL), TN_OK);
    tn_loader *loader = make(&(tn_loader_options){.batch = 32, .subset = subset, .n_subset = 70});
    size_t seen = 0;
    assert_int_equal(tn_loader_samples(loader), 70);
    assert_int_equal(tn_loader_start(loader, 0, 0, NULL), TN_OK);
    for (;;) {
        assert_int_equal(tn_loader_next(loader, &batch, NULL), TN_OK);
        if (!batch)
            break;
        assert_memory_equal(batch->indices, subset + seen, batch->count * sizeof *subset);
        seen += batch->count;
    }
    assert_int_equal(seen, 70);
    tn_loader_destroy(loader);
    loader = make(
        &(tn_loader_options){.batch = 32, .subset = subset, .n_subset = 70, .drop_last = true});
    assert_int_equal(tn_loader_samples(loader), 64);
    tn_loader_destroy(loader);
}

static void contradictions_are_refused(void **state)
{
    (void)state;
    tn_loader *loader = NULL;
    tn_preprocess preprocess;
    uint32_t outside[1] = {333};
    assert_int_equal(tn_preprocess_preset("none", &preprocess, NULL), TN_OK);
    const tn_loader_options wrong[] = {
        {.preprocess = &preprocess},
        {.preprocess = &preprocess, .batch = 9, .ranks = 2},
        {.preprocess = &preprocess, .batch = 9, .augment = &every_augmentation},
        {.preprocess = &preprocess, .batch = 8, .ranks = 2, .rank = 2},
        {.preprocess = &preprocess, .batch = 8, .subset = outside, .n_subset = 1},
        {.batch = 8},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        tn_error error = {0};
        assert_int_equal(tn_loader_create(glyphs, &wrong[i], &loader, &error), TN_ERROR_USAGE);
        assert_true(error.message[0] && !loader);
    }
}

static void steps_do_not_allocate(void **state)
{
    (void)state;
    tn_loader *loader = make(&(tn_loader_options){
        .augment = &every_augmentation, .batch = 64, .shuffle = true, .threads = 2});
    epoch_hash(loader, 0, 0, true);
    epoch_hash(loader, 1, 0, true);
    uint64_t before = tn_memory_stats_get().calls;
    epoch_hash(loader, 2, 0, true);
    assert_int_equal(tn_memory_stats_get().calls, before);
    tn_loader_destroy(loader);
}

/* Every single allocation failing: an error, no leak. */
static void allocation_failures_are_clean(void **state)
{
    (void)state;
    uint64_t live = tn_memory_stats_get().live;
    for (uint64_t n = 1; n < 200; n++) {
        tn_error error = {0};
        tn_dataset *dataset = NULL;
        tn_loader *loader = NULL;
        const tn_batch *batch;
        tn_preprocess preprocess;
        assert_int_equal(tn_preprocess_preset("none", &preprocess, NULL), TN_OK);
        tn_loader_options options = {.preprocess = &preprocess, .batch = 32};
        tn_memory_fail_call(n, 1);
        tn_status status = tn_dataset_open(folder, TN_SPLIT_VAL, NULL, &dataset, &error);
        if (status == TN_OK)
            status = tn_loader_create(dataset, &options, &loader, &error);
        if (status == TN_OK)
            status = tn_loader_start(loader, 0, 0, &error);
        if (status == TN_OK)
            status = tn_loader_next(loader, &batch, &error);
        tn_memory_fail_call(0, 0);
        tn_loader_destroy(loader);
        tn_dataset_close(dataset);
        assert_int_equal(tn_memory_stats_get().live, live);
        if (status == TN_OK)
            return;
        assert_int_equal(status, TN_ERROR_LIMIT);
        assert_true(error.message[0]);
    }
    fail_msg("the sweep did not end");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(cache_does_not_matter),
        cmocka_unit_test(ranks_divide_batches),
        cmocka_unit_test(values_are_normalized_pixels),
        cmocka_unit_test(pad_and_flip_move_whole_pixels),
        cmocka_unit_test(neutral_augmentation_changes_nothing),
        cmocka_unit_test(mixup_follows_beta),
        cmocka_unit_test(subset_and_last_batch),
        cmocka_unit_test(contradictions_are_refused),
        cmocka_unit_test(steps_do_not_allocate),
        cmocka_unit_test(allocation_failures_are_clean),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
