/* Presets, settings, their JSON form; the generated data set; contact sheets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/memory.h"
#include "data/contact_sheet.h"
#include "data/glyphs.h"
#include "data/preprocess.h"
#include "data/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static tn_preprocess preset(const char *name)
{
    tn_preprocess p;
    assert_int_equal(tn_preprocess_preset(name, &p, NULL), TN_OK);
    return p;
}

static void json_keeps_everything(void **state)
{
    (void)state;
    for (size_t i = 0; i < tn_preprocess_preset_count(); i++) {
        tn_preprocess p = preset(tn_preprocess_preset_name(i)), q;
        char *text;
        p.bgr = i & 1;
        p.channels = i == 2 ? 1 : 3;
        assert_int_equal(tn_preprocess_to_json(&p, &text, NULL), TN_OK);
        memset(&q, 0xaa, sizeof q);
        assert_int_equal(tn_preprocess_from_json(text, &q, NULL), TN_OK);
        assert_string_equal(p.preset, q.preset);
        assert_true(p.resize == q.resize && p.crop_width == q.crop_width &&
                    p.crop_height == q.crop_height && p.scale == q.scale && p.bgr == q.bgr &&
                    p.channels == q.channels);
        assert_memory_equal(p.mean, q.mean, sizeof p.mean);
        assert_memory_equal(p.deviation, q.deviation, sizeof p.deviation);
        /* any cut of it is an error, and leaves q alone */
        for (size_t n = 0; n < strlen(text); n++) {
            char cut[512];
            tn_error error = {0};
            snprintf(cut, sizeof cut, "%.*s", (int)n, text);
            assert_int_equal(tn_preprocess_from_json(cut, &q, &error), TN_ERROR_MODEL);
        }
        tn_free(text);
    }
}

static void broken_json_is_refused(void **state)
{
    (void)state;
    static const char *const broken[] = {
        "[]",
        "{}",
        "{\"preset\":1}",
        "{\"preset\":\"x\",\"resize\":-5,\"crop\":[0,0],\"scale\":1,\"mean\":[0,0,0],"
        "\"std\":[1,1,1],\"channel_order\":\"rgb\",\"channels\":3}",
        "{\"preset\":\"x\",\"resize\":0,\"crop\":[0,0],\"scale\":1,\"mean\":[0,0,0],"
        "\"std\":[1,0,1],\"channel_order\":\"rgb\",\"channels\":3}",
        "{\"preset\":\"x\",\"resize\":0,\"crop\":[9,0],\"scale\":1,\"mean\":[0,0,0],"
        "\"std\":[1,1,1],\"channel_order\":\"rgb\",\"channels\":3}",
        "{\"preset\":\"x\",\"resize\":0,\"crop\":[0,0],\"scale\":1,\"mean\":[0,0,0],"
        "\"std\":[1,1,1],\"channel_order\":\"rgb\",\"channels\":7}"};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        tn_preprocess p;
        tn_error error = {0};
        assert_int_equal(tn_preprocess_from_json(broken[i], &p, &error), TN_ERROR_MODEL);
    }
}

static void settings(void **state)
{
    (void)state;
    tn_preprocess p = preset("none");
    assert_int_equal(tn_preprocess_set(&p, "resize", "232", NULL), TN_OK);
    assert_int_equal(tn_preprocess_set(&p, "crop", "320x240", NULL), TN_OK);
    assert_int_equal(tn_preprocess_set(&p, "mean", "0.5", NULL), TN_OK);
    assert_int_equal(tn_preprocess_set(&p, "std", "0.25,0.5,1", NULL), TN_OK);
    assert_int_equal(tn_preprocess_set(&p, "channel-order", "BGR", NULL), TN_OK);
    assert_true(p.resize == 232 && p.crop_width == 320 && p.crop_height == 240 && p.bgr);
    assert_true(p.mean[2] == 0.5f && p.deviation[1] == 0.5f && p.scale != 1.0f);
    assert_string_equal(p.preset, "custom");
    assert_int_equal(tn_preprocess_set(&p, "mean", "123.68,116.78,103.94", NULL), TN_OK);
    assert_true(p.scale == 1.0f);
    assert_int_equal(tn_preprocess_set(&p, "scale", "1/255", NULL), TN_OK);
    assert_int_equal(tn_preprocess_set(&p, "std", "255", NULL), TN_OK);
    assert_true(p.scale == 1.0f);
    static const char *const wrong[][2] = {{"resize", "0"},   {"resize", "20000"},
                                           {"resize", "12a"}, {"crop", "x5"},
                                           {"crop", "5x"},    {"crop", "-4"},
                                           {"mean", "1,2"},   {"mean", "1,2,3,4"},
                                           {"mean", "nan"},   {"std", "0"},
                                           {"std", "-1"},     {"std", ""},
                                           {"colour", "red"}, {"channel-order", "grb"},
                                           {"scale", "2"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        tn_preprocess before = p;
        tn_error error = {0};
        assert_int_equal(tn_preprocess_set(&p, wrong[i][0], wrong[i][1], &error), TN_ERROR_USAGE);
        assert_memory_equal(&before, &p, sizeof p);
    }
}

static void fits_networks(void **state)
{
    (void)state;
    tn_preprocess p = preset("imagenet");
    int width, height;
    assert_int_equal(tn_preprocess_fit(&p, 3, 299, 299, NULL), TN_OK);
    assert_true(p.crop_width == 299 && p.resize == 342);
    p = preset("tiny-imagenet");
    assert_int_equal(tn_preprocess_fit(&p, 3, 56, 56, NULL), TN_OK);
    tn_preprocess_output_size(&p, 64, 64, &width, &height);
    assert_true(width == 56 && height == 56 && p.resize == 0);
    p = preset("imagenet");
    assert_int_equal(tn_preprocess_fit(&p, 3, 0, 0, NULL), TN_OK);
    tn_preprocess_output_size(&p, 500, 375, &width, &height);
    assert_true(width == 224 && height == 224);
    p.crop_width = p.crop_height = 0;
    tn_preprocess_output_size(&p, 500, 375, &width, &height);
    assert_true(width == 341 && height == 256);
    assert_int_equal(tn_preprocess_set(&p, "crop", "200", NULL), TN_OK);
    assert_int_equal(tn_preprocess_fit(&p, 3, 224, 224, NULL), TN_ERROR_DATA);
    assert_int_equal(tn_preprocess_fit(&p, 4, 200, 200, NULL), TN_ERROR_DATA);
}

/* torchvision pads (crop - size) / 2, rounded down, on the left. */
static void small_pictures_are_padded(void **state)
{
    (void)state;
    static const int cases[][3] = {{1, 2, 0}, {1, 4, 1}, {2, 3, 0}, {2, 7, 2}, {3, 3, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const int size = cases[i][0], crop = cases[i][1], left = cases[i][2];
        tn_preprocess p = preset("none");
        tn_image image = {0}, scratch = {0}, made = {0};
        p.crop_width = p.crop_height = crop;
        assert_int_equal(tn_image_reserve(&image, size, size, 3, NULL), TN_OK);
        memset(image.pixels, 9, (size_t)(3 * size * size));
        assert_int_equal(tn_preprocess_geometry(&p, &image, &scratch, &made, NULL), TN_OK);
        for (int at = 0; at < crop; at++)
            assert_int_equal(made.pixels[3 * (crop * left + at)],
                             at >= left && at < left + size ? 9 : 0);
        tn_image_done(&image);
        tn_image_done(&scratch);
        tn_image_done(&made);
    }
}

/* Both layouts and channel orders of one 2x1 picture, by hand. */
static void values_in_both_layouts(void **state)
{
    (void)state;
    unsigned char pixels[6] = {0, 51, 102, 153, 204, 255};
    tn_image image = {2, 1, 3, pixels, NULL, 6};
    tn_preprocess p = preset("none");
    float planar[6], last[6];
    for (int bgr = 0; bgr < 2; bgr++) {
        p.bgr = bgr;
        tn_preprocess_values(&p, &image, TN_IMAGE_NCHW, planar);
        tn_preprocess_values(&p, &image, TN_IMAGE_NHWC, last);
        for (int x = 0; x < 2; x++)
            for (int c = 0; c < 3; c++) {
                float v = (float)pixels[3 * x + (bgr ? 2 - c : c)] / 255.0f;
                assert_true(planar[2 * c + x] == v && last[3 * x + c] == v);
            }
    }
}

/* The bytes of a seed are fixed for ever: results on glyphs can be compared between versions. */
static void glyphs_are_deterministic(void **state)
{
    (void)state;
    enum { N = 200 };
    unsigned char pixels[3 * TN_GLYPH_SIDE * TN_GLYPH_SIDE];
    uint64_t hash[2] = {0, 0};
    for (uint64_t seed = 0; seed < 2; seed++)
        for (uint64_t i = 0; i < N; i++) {
            tn_glyph_draw(seed, i, (int)(i % TN_GLYPH_CLASSES), pixels);
            hash[seed] = XXH3_64bits_withSeed(pixels, sizeof pixels, hash[seed]);
        }
    assert_int_not_equal(hash[0], hash[1]);
    assert_int_equal(hash[0], UINT64_C(0x8fb10c1d15cf9820));
}

static void glyphs_are_written(void **state)
{
    (void)state;
    char folder[] = "/tmp/ternion-glyphs-XXXXXX", path[64], command[64];
    tn_error error = {0};
    tn_dataset *dataset;
    tn_image image = {0};
    unsigned char pixels[3 * TN_GLYPH_SIDE * TN_GLYPH_SIDE];
    assert_non_null(mkdtemp(folder));
    tn_glyphs_options options = {.seed = 4, .train = 55, .test = 10};
    assert_int_equal(tn_glyphs_write(folder, &options, &error), TN_OK);
    assert_int_equal(tn_glyphs_write(folder, &options, &error), TN_ERROR_USAGE); /* is there */
    options.replace = true;
    error = (tn_error){0};
    assert_int_equal(tn_glyphs_write(folder, &options, &error), TN_OK);
    assert_int_equal(tn_dataset_open(folder, TN_SPLIT_TRAIN, NULL, &dataset, &error), TN_OK);
    assert_int_equal(tn_dataset_count(dataset), 55);
    assert_string_equal(tn_dataset_class_name(dataset, 3), tn_glyph_class_name(3));
    for (size_t i = 0; i < 55; i++) {
        assert_int_equal(tn_dataset_read(dataset, i, &image, &error), TN_OK);
        tn_glyph_draw(4, i, tn_dataset_label(dataset, i), pixels);
        assert_memory_equal(image.pixels, pixels, sizeof pixels);
    }
    snprintf(path, sizeof path, "%s/sheet.png", folder);
    assert_int_equal(tn_contact_sheet_write(dataset, 30, 1, path, 0, &error), TN_OK);
    unsigned char *bytes;
    size_t size;
    assert_int_equal(tn_source_read_all(path, 1 << 24, &bytes, &size, &error), TN_OK);
    assert_int_equal(tn_image_decode(bytes, size, &image, &error), TN_OK);
    assert_true(image.width > 400 && image.height > 300);
    tn_free(bytes);
    assert_int_equal(tn_contact_sheet_write(dataset, 30, 1, path, 0, &error), TN_ERROR_USAGE);
    tn_dataset_close(dataset);
    tn_image_done(&image);
    snprintf(command, sizeof command, "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_keeps_everything),
        cmocka_unit_test(broken_json_is_refused),
        cmocka_unit_test(settings),
        cmocka_unit_test(fits_networks),
        cmocka_unit_test(small_pictures_are_padded),
        cmocka_unit_test(values_in_both_layouts),
        cmocka_unit_test(glyphs_are_deterministic),
        cmocka_unit_test(glyphs_are_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
