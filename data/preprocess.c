#include "data/preprocess.h"

#include "core/memory.h"
#include "data/resize.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define IMAGENET_MEAN                                                                              \
    {                                                                                              \
        0.485f, 0.456f, 0.406f                                                                     \
    }
#define IMAGENET_DEVIATION                                                                         \
    {                                                                                              \
        0.229f, 0.224f, 0.225f                                                                     \
    }

static const struct {
    tn_preprocess value;
    const char *summary;
} presets[] = {
    {{"imagenet", 256, 224, 224, 1.0f / 255.0f, IMAGENET_MEAN, IMAGENET_DEVIATION, false, 3},
     "shorter side 256 (bilinear, antialias), centre crop 224, /255, ImageNet mean and std, RGB"},
    {{"cifar10", 0, 0, 0, 1.0f / 255.0f, IMAGENET_MEAN, IMAGENET_DEVIATION, false, 3},
     "as it is, /255, mean .485 .456 .406, std .229 .224 .225, RGB"},
    {{"tiny-imagenet", 0, 0, 0, 1.0f / 255.0f, IMAGENET_MEAN, IMAGENET_DEVIATION, false, 3},
     "centre crop to the network's input, /255, ImageNet mean and std, RGB"},
    {{"none", 0, 0, 0, 1.0f / 255.0f, {0.0f, 0.0f, 0.0f}, {1.0f, 1.0f, 1.0f}, false, 3},
     "as it is, /255, RGB"},
};
enum { N_PRESETS = sizeof presets / sizeof presets[0] };

size_t tn_preprocess_preset_count(void)
{
    return N_PRESETS;
}

const char *tn_preprocess_preset_name(size_t which)
{
    return presets[which].value.preset;
}

const char *tn_preprocess_preset_summary(size_t which)
{
    return presets[which].summary;
}

tn_status tn_preprocess_preset(const char *name, tn_preprocess *preprocess, tn_error *error)
{
    char known[128];
    size_t at = 0;
    for (size_t i = 0; i < N_PRESETS; i++) {
        if (strcmp(presets[i].value.preset, name) == 0) {
            *preprocess = presets[i].value;
            return TN_OK;
        }
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "",
                               presets[i].value.preset);
    }
    return tn_fail(error, TN_ERROR_USAGE, "no preprocessing is called %s; there are %s",
                   tn_quote(name), known);
}

const char *tn_preprocess_guess(const tn_dataset *dataset, int height)
{
    const char *reader = tn_dataset_reader_id(dataset);
    tn_sample_shape shape = tn_dataset_shape(dataset);
    if (strncmp(reader, "cifar", 5) == 0)
        return "cifar10";
    if (strcmp(reader, "tiny-imagenet") == 0)
        return "tiny-imagenet";
    if (shape.is_float || shape.channels == 1)
        return "none";
    int width = shape.width;
    if (width == 0) { /* pictures of any size: the first speaks for all */
        tn_image image = {0};
        if (tn_dataset_read(dataset, 0, &image, NULL) == TN_OK)
            width = image.width;
        tn_image_done(&image);
    }
    if (width > 0 && width <= 64 && height <= width)
        return width == 32 ? "cifar10" : "tiny-imagenet";
    return "imagenet"; /* resizes, in proportion to the network's input */
}

static bool parse_side(const char *text, char **end, int *side)
{
    errno = 0;
    long value = strtol(text, end, 10);
    if (*end == text || errno || value < 1 || value > TN_IMAGE_MAX_SIDE)
        return false;
    *side = (int)value;
    return true;
}

static bool parse_crop(const char *text, int *width, int *height)
{
    char *end;
    int w, h;
    if (!parse_side(text, &end, &w))
        return false;
    h = w;
    if (*end == 'x' && !parse_side(end + 1, &end, &h))
        return false;
    if (*end)
        return false;
    *width = w;
    *height = h;
    return true;
}

/* One number for all channels, or three. */
static bool parse_three(const char *text, float *three)
{
    float value[3];
    int n = 0;
    for (; n < 3; n++) {
        char *end;
        value[n] = strtof(text, &end);
        if (end == text || !isfinite(value[n]))
            return false;
        text = end;
        if (!*text) {
            n++;
            break;
        }
        if (*text++ != ',')
            return false;
    }
    if (*text || (n != 1 && n != 3))
        return false;
    for (int c = 0; c < 3; c++)
        three[c] = value[n == 1 ? 0 : c];
    return true;
}

static bool set_mean(tn_preprocess *preprocess, const char *text, bool deviation)
{
    float three[3];
    if (!parse_three(text, three))
        return false;
    for (int c = 0; c < 3; c++) {
        if (deviation && three[c] <= 0.0f)
            return false;
        if (three[c] > 1.0f)
            preprocess->scale = 1.0f; /* figures above 1 speak of pixels 0..255 */
    }
    memcpy(deviation ? preprocess->deviation : preprocess->mean, three, sizeof three);
    return true;
}

tn_status tn_preprocess_set(tn_preprocess *preprocess, const char *key, const char *value,
                            tn_error *error)
{
    tn_preprocess changed = *preprocess;
    char *end;
    bool good = false;
    if (strcmp(key, "resize") == 0)
        good = parse_side(value, &end, &changed.resize) && !*end;
    else if (strcmp(key, "crop") == 0)
        good = parse_crop(value, &changed.crop_width, &changed.crop_height);
    else if (strcmp(key, "mean") == 0 || strcmp(key, "std") == 0)
        good = set_mean(&changed, value, key[0] == 's');
    else if (strcmp(key, "channel-order") == 0)
        good = (changed.bgr = strcasecmp(value, "bgr") == 0) || strcasecmp(value, "rgb") == 0;
    else if (strcmp(key, "scale") == 0) {
        good = strcmp(value, "1") == 0 || strcmp(value, "1/255") == 0;
        changed.scale = strcmp(value, "1") == 0 ? 1.0f : 1.0f / 255.0f;
    } else
        return tn_fail(error, TN_ERROR_USAGE, "no preprocessing setting is called %s",
                       tn_quote(key));
    if (!good)
        return tn_fail(error, TN_ERROR_USAGE,
                       "--%s does not understand %s (resize: 256; crop: 224 or 320x240; mean, std: "
                       "one or three numbers; channel-order: rgb or bgr)",
                       key, tn_quote(value));
    snprintf(changed.preset, sizeof changed.preset, "custom");
    *preprocess = changed;
    return TN_OK;
}

tn_status tn_preprocess_fit(tn_preprocess *preprocess, int channels, int height, int width,
                            tn_error *error)
{
    tn_preprocess fitted = *preprocess;
    if (channels > 0 && channels != 1 && channels != 3)
        return tn_fail(error, TN_ERROR_DATA,
                       "the network takes %d channels; images have 3 (or 1, grey)", channels);
    if (channels > 0)
        fitted.channels = channels;
    bool contradicts = height > 0 && width > 0 && fitted.crop_width > 0 &&
                       (fitted.crop_width != width || fitted.crop_height != height);
    if (contradicts && strcmp(fitted.preset, "imagenet") != 0)
        return tn_fail(error, TN_ERROR_DATA,
                       "the crop of %dx%d does not fit the network's input of %dx%d",
                       fitted.crop_width, fitted.crop_height, width, height);
    if (contradicts)
        fitted.resize = (int)lrint((double)(height < width ? height : width) * 256.0 / 224.0);
    if (height > 0 && width > 0) {
        fitted.crop_width = width;
        fitted.crop_height = height;
    }
    *preprocess = fitted;
    return TN_OK;
}

tn_status tn_preprocess_to_json(const tn_preprocess *p, char **text, tn_error *error)
{
    json_t *object = json_pack(
        "{s:s, s:i, s:[i,i], s:f, s:[f,f,f], s:[f,f,f], s:s, s:i}", "preset", p->preset, "resize",
        p->resize, "crop", p->crop_width, p->crop_height, "scale", (double)p->scale, "mean",
        (double)p->mean[0], (double)p->mean[1], (double)p->mean[2], "std", (double)p->deviation[0],
        (double)p->deviation[1], (double)p->deviation[2], "channel_order", p->bgr ? "bgr" : "rgb",
        "channels", p->channels);
    /* nine digits bring every float back */
    char *dumped = object ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    char *copy = dumped ? tn_strdup(dumped) : NULL;
    free(dumped);
    json_decref(object);
    if (!copy)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the preprocessing record");
    *text = copy;
    return TN_OK;
}

static bool is_sane(const tn_preprocess *p)
{
    bool sane = p->resize >= 0 && p->resize <= TN_IMAGE_MAX_SIDE && p->crop_width >= 0 &&
                p->crop_width <= TN_IMAGE_MAX_SIDE && p->crop_height >= 0 &&
                p->crop_height <= TN_IMAGE_MAX_SIDE && isfinite(p->scale) &&
                (p->crop_width > 0) == (p->crop_height > 0) &&
                (p->channels == 1 || p->channels == 3);
    for (int c = 0; c < 3; c++)
        sane = sane && isfinite(p->mean[c]) && isfinite(p->deviation[c]) && p->deviation[c] > 0.0f;
    return sane;
}

tn_status tn_preprocess_from_json(const char *text, tn_preprocess *preprocess, tn_error *error)
{
    json_error_t where;
    const char *preset, *order;
    double scale, mean[3], deviation[3];
    tn_preprocess p = {.channels = 3};
    tn_status status = TN_OK;
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, &where);
    if (!object)
        return tn_fail(error, TN_ERROR_MODEL, "the preprocessing record is no JSON: %s",
                       tn_quote(where.text));
    if (json_unpack_ex(
            object, &where, 0, "{s:s, s:i, s:[i,i], s:F, s:[F,F,F], s:[F,F,F], s:s, s:i}", "preset",
            &preset, "resize", &p.resize, "crop", &p.crop_width, &p.crop_height, "scale", &scale,
            "mean", &mean[0], &mean[1], &mean[2], "std", &deviation[0], &deviation[1],
            &deviation[2], "channel_order", &order, "channels", &p.channels) != 0) {
        status = tn_fail(error, TN_ERROR_MODEL, "the preprocessing record is broken: %s",
                         tn_quote(where.text));
        goto done;
    }
    snprintf(p.preset, sizeof p.preset, "%s", preset);
    p.scale = (float)scale;
    p.bgr = strcmp(order, "bgr") == 0;
    for (int c = 0; c < 3; c++) {
        p.mean[c] = (float)mean[c];
        p.deviation[c] = (float)deviation[c];
    }
    if (!is_sane(&p)) {
        status = tn_fail(error, TN_ERROR_MODEL,
                         "the preprocessing record holds values out of range: %s", tn_quote(text));
        goto done;
    }
    *preprocess = p;
done:
    json_decref(object);
    return status;
}

/* torchvision's Resize: the shorter side is exact, the longer one is cut down. */
static void resized_size(const tn_preprocess *p, int width, int height, int *out_width,
                         int *out_height)
{
    *out_width = width;
    *out_height = height;
    if (p->resize == 0)
        return;
    if (width <= height) {
        *out_width = p->resize;
        *out_height = (int)((int64_t)p->resize * height / width);
    } else {
        *out_height = p->resize;
        *out_width = (int)((int64_t)p->resize * width / height);
    }
}

void tn_preprocess_output_size(const tn_preprocess *preprocess, int width, int height,
                               int *out_width, int *out_height)
{
    resized_size(preprocess, width, height, out_width, out_height);
    if (preprocess->crop_width > 0) {
        *out_width = preprocess->crop_width;
        *out_height = preprocess->crop_height;
    }
}

/* torchvision's CenterCrop: (size - crop) / 2 rounded half to even; what is too small gets the
 * odd pixel of its border on the right and below. */
static int centre(int size, int crop)
{
    if (crop > size)
        return -((crop - size) / 2);
    return (int)lrint((size - crop) / 2.0);
}

tn_status tn_preprocess_geometry(const tn_preprocess *preprocess, const tn_image *src,
                                 tn_image *scratch, tn_image *dst, tn_error *error)
{
    int width, height;
    tn_status status;
    if (src->values && preprocess->resize)
        return tn_fail(error, TN_ERROR_DATA, "arrays of floats cannot be resized");
    resized_size(preprocess, src->width, src->height, &width, &height);
    int crop_width = preprocess->crop_width ? preprocess->crop_width : width;
    int crop_height = preprocess->crop_height ? preprocess->crop_height : height;
    int left = centre(width, crop_width), top = centre(height, crop_height);
    status = width != src->width || height != src->height
                 ? tn_image_resize_crop(src, width, height, left, top, crop_width, crop_height, dst,
                                        error)
                 : tn_image_crop(src, left, top, crop_width, crop_height, dst, error);
    if (status != TN_OK || dst->channels == preprocess->channels)
        return status;
    tn_image cropped = *dst;
    *dst = *scratch;
    *scratch = cropped;
    return tn_image_convert_channels(scratch, preprocess->channels, dst, error);
}

void tn_preprocess_table(const tn_preprocess *p, int channels, int channel, float table[256])
{
    int from = p->bgr && channels == 3 ? 2 - channel : channel, k = from < 3 ? from : 2;
    bool unit = p->scale == 1.0f;
    for (int v = 0; v < 256; v++) /* x / 255 as torchvision's ToTensor has it */
        table[v] = ((unit ? (float)v : (float)v / 255.0f) - p->mean[k]) / p->deviation[k];
}

void tn_preprocess_values(const tn_preprocess *p, const tn_image *src, tn_image_layout layout,
                          float *dst)
{
    size_t n = (size_t)src->width * (size_t)src->height, channels = (size_t)src->channels;
    for (size_t c = 0; c < channels; c++) {
        size_t from = p->bgr && channels == 3 ? 2 - c : c;
        size_t k = from < 3 ? from : 2;
        float mean = p->mean[k], deviation = p->deviation[k];
        size_t step = layout == TN_IMAGE_NCHW ? 1 : channels;
        float *to = layout == TN_IMAGE_NCHW ? dst + c * n : dst + c;
        if (src->values) {
            for (size_t i = 0; i < n; i++)
                to[i * step] = (src->values[i * channels + from] - mean) / deviation;
            continue;
        }
        float table[256];
        tn_preprocess_table(p, (int)channels, (int)c, table);
        for (size_t i = 0; i < n; i++)
            to[i * step] = table[src->pixels[i * channels + from]];
    }
}
