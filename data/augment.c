#include "data/augment.h"

#include "core/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const struct {
    const char *name;
    tn_augment_options options;
} named[] = {
    {"none", {0}},
    {"cifar", {.pad = 4, .flip = true}},
    {"imagenet", {.min_area = 0.08f, .flip = true}},
};

/* One "name" or "name:value". */
static bool parse_item(const char *name, const char *value, tn_augment_options *options)
{
    struct {
        const char *name;
        float most;
        float *into;
        int *whole;
    } items[] = {
        {"pad", 1024.0f, NULL, &options->pad},
        {"crop", 1.0f, &options->min_area, NULL},
        {"rotation", 180.0f, &options->rotation, NULL},
        {"brightness", 1.0f, &options->brightness, NULL},
        {"contrast", 1.0f, &options->contrast, NULL},
        {"saturation", 1.0f, &options->saturation, NULL},
        {"sharpness", 10.0f, &options->sharpness, NULL},
        {"cutout", 1024.0f, NULL, &options->cutout},
        {"mixup", 10.0f, &options->mixup, NULL},
    };
    if (strcmp(name, "flip") == 0 && !value) {
        options->flip = true;
        return true;
    }
    for (size_t i = 0; value && i < sizeof items / sizeof items[0]; i++) {
        if (strcmp(items[i].name, name) != 0)
            continue;
        char *end;
        float number = strtof(value, &end);
        if (end == value || *end || !(number >= 0.0f && number <= items[i].most))
            return false;
        if (items[i].into)
            *items[i].into = number;
        else
            *items[i].whole = (int)number;
        return true;
    }
    return false;
}

tn_status tn_augment_parse(const char *text, tn_augment_options *options, tn_error *error)
{
    char copy[256];
    tn_augment_options parsed = {0};
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++)
        if (strcmp(named[i].name, text) == 0) {
            *options = named[i].options;
            return TN_OK;
        }
    bool good = strlen(text) < sizeof copy;
    char *rest = copy;
    if (good)
        strcpy(copy, text);
    for (char *item; good && (item = strsep(&rest, ","));) {
        char *value = strchr(item, ':');
        if (value)
            *value++ = 0;
        good = parse_item(item, value, &parsed);
    }
    if (!good)
        return tn_fail(error, TN_ERROR_USAGE,
                       "augmentation %s is not understood: none, cifar, imagenet, or a list of "
                       "pad:4, flip, crop:0.08, rotation:10, brightness:0.2, contrast:0.2, "
                       "saturation:0.2, sharpness:0.2, cutout:8, mixup:0.2",
                       tn_quote(text));
    *options = parsed;
    return TN_OK;
}

bool tn_augment_is_on(const tn_augment_options *options)
{
    tn_augment_options off = {0};
    return options && (options->pad != off.pad || options->flip || options->min_area > 0.0f ||
                       options->rotation > 0.0f || options->brightness > 0.0f ||
                       options->contrast > 0.0f || options->saturation > 0.0f ||
                       options->sharpness > 0.0f || options->cutout > 0 || options->mixup > 0.0f);
}

/* Marsaglia and Tsang 2000, for any shape > 0. */
static double draw_gamma(tn_random *random, double shape)
{
    double boost = 1.0;
    if (shape < 1.0) {
        double u = ((double)tn_random_u32(random) + 0.5) * 0x1p-32;
        boost = pow(u, 1.0 / shape);
        shape += 1.0;
    }
    double d = shape - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d);
    for (;;) {
        double x = (double)tn_random_normal(random);
        double v = 1.0 + c * x;
        double u = ((double)tn_random_u32(random) + 0.5) * 0x1p-32;
        if (v <= 0.0)
            continue;
        v = v * v * v;
        if (log(u) < 0.5 * x * x + d - d * v + d * log(v))
            return boost * d * v;
    }
}

static float draw_mix(float alpha, uint64_t seed, uint32_t epoch, uint64_t sample)
{
    if (alpha <= 0.0f)
        return 0.0f;
    tn_random random = tn_random_make(seed, TN_PURPOSE_MIX, epoch, sample);
    double a = draw_gamma(&random, (double)alpha), b = draw_gamma(&random, (double)alpha);
    double share = a + b > 0.0 ? a / (a + b) : 0.5;
    return (float)(share > 0.5 ? 1.0 - share : share); /* a sample keeps at least half of itself */
}

/* In [-v, v]; always one word, so that switching one option moves no other. */
static float draw_around_zero(tn_random *random, float v)
{
    float u = tn_random_uniform(random);
    return v * (2.0f * u - 1.0f);
}

static int draw_whole(tn_random *random, int most)
{
    float u = tn_random_uniform(random);
    return (int)(u * (float)(2 * most + 1)) - most;
}

/* Shift, flip and rotation about the centre as one map from output to picture. */
static void set_map(tn_augmentation *a, int shift_x, int shift_y, bool flip, float degrees,
                    int width, int height)
{
    float radians = degrees * 0.017453292519943295f;
    float cosine = degrees != 0.0f ? cosf(radians) : 1.0f;
    float sine = degrees != 0.0f ? sinf(radians) : 0.0f;
    float sign = flip ? -1.0f : 1.0f;
    float cx = (float)(width - 1) / 2.0f, cy = (float)(height - 1) / 2.0f;
    a->exact = degrees == 0.0f;
    a->a = cosine * sign;
    a->b = -sine;
    a->d = sine * sign;
    a->e = cosine;
    a->c = cx + (float)shift_x - a->a * cx - a->b * cy;
    a->f = cy + (float)shift_y - a->d * cx - a->e * cy;
}

static void set_cutout(tn_augmentation *a, tn_random *random, int side, int width, int height)
{
    int x = (int)(tn_random_uniform(random) * (float)width);
    int y = (int)(tn_random_uniform(random) * (float)height);
    if (side <= 0)
        return;
    a->cut_left = x - side / 2;
    a->cut_top = y - side / 2;
    a->cut_right = a->cut_left + side;
    a->cut_bottom = a->cut_top + side;
}

tn_augmentation tn_augment_draw(const tn_augment_options *options, uint64_t seed, uint32_t epoch,
                                uint64_t sample, int width, int height, float mean_grey)
{
    static const tn_augment_options none = {0};
    const tn_augment_options *o = options ? options : &none;
    tn_random random = tn_random_make(seed, TN_PURPOSE_AUGMENT, epoch, sample);
    tn_augmentation a = {.mean_grey = mean_grey};
    int shift_x = draw_whole(&random, o->pad), shift_y = draw_whole(&random, o->pad);
    bool flip = (tn_random_u32(&random) & 1) && o->flip;
    float degrees = draw_around_zero(&random, o->rotation);
    a.brightness = 1.0f + draw_around_zero(&random, o->brightness);
    a.contrast = 1.0f + draw_around_zero(&random, o->contrast);
    a.saturation = 1.0f + draw_around_zero(&random, o->saturation);
    a.sharpness = 1.0f + draw_around_zero(&random, o->sharpness);
    set_map(&a, shift_x, shift_y, flip, degrees, width, height);
    set_cutout(&a, &random, o->cutout, width, height);
    a.mix = draw_mix(o->mixup, seed, epoch, sample);
    return a;
}

tn_resize_box tn_augment_draw_box(const tn_augment_options *options, uint64_t seed, uint32_t epoch,
                                  uint64_t sample, int width, int height)
{
    tn_resize_box whole = {0.0f, 0.0f, (float)width, (float)height};
    if (!options || options->min_area <= 0.0f)
        return whole;
    /* a stream of its own: how many words it takes depends on the picture's size */
    tn_random random = tn_random_make(seed, TN_PURPOSE_AUGMENT, epoch, sample | UINT64_C(1) << 63);
    double area = (double)width * height;
    for (int attempt = 0; attempt < 10; attempt++) { /* as torchvision's RandomResizedCrop */
        double share = (double)options->min_area +
                       (double)tn_random_uniform(&random) * (1.0 - (double)options->min_area);
        double log_ratio = (2.0 * (double)tn_random_uniform(&random) - 1.0) * log(4.0 / 3.0);
        float u = tn_random_uniform(&random), v = tn_random_uniform(&random);
        int w = (int)lrint(sqrt(area * share * exp(log_ratio)));
        int h = (int)lrint(sqrt(area * share / exp(log_ratio)));
        if (w < 1 || h < 1 || w > width || h > height)
            continue;
        float left = floorf(u * (float)(width - w + 1)), top = floorf(v * (float)(height - h + 1));
        return (tn_resize_box){left, top, left + (float)w, top + (float)h};
    }
    int side = width < height ? width : height;
    float left = (float)((width - side) / 2), top = (float)((height - side) / 2);
    return (tn_resize_box){left, top, left + (float)side, top + (float)side};
}

float tn_augment_mean_grey(const unsigned char *pixels, size_t n_pixels, int channels)
{
    uint64_t sum = 0; /* of Pillow's fixed-point luma */
    for (size_t i = 0; i < n_pixels; i++, pixels += channels)
        sum += channels == 3
                   ? (19595u * pixels[0] + 38470u * pixels[1] + 7471u * pixels[2] + 0x8000u) >> 16
                   : pixels[0];
    return n_pixels ? (float)((double)sum / (double)n_pixels) : 0.0f;
}
