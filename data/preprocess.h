/* From a decoded picture to the tensor a network expects: resize, crop, scale, mean, deviation,
 * channel order. Kept in a written model's record as JSON and used from there by default. */
#ifndef TERNION_DATA_PREPROCESS_H
#define TERNION_DATA_PREPROCESS_H

#include "data/dataset.h"

#include <stdbool.h>

/* out = (pixel * scale - mean) / deviation per channel, mean and deviation in the order of the
 * file's channels (RGB), whatever the order given to the network. */
typedef struct tn_preprocess {
    char preset[16]; /* "imagenet", ..., or "custom" */
    int resize;      /* the shorter side becomes this (bilinear, antialias); 0: as it is */
    int crop_width, crop_height; /* centre crop; 0: none */
    float scale;                 /* 1/255 or 1 */
    float mean[3], deviation[3];
    bool bgr;     /* channels reversed for the network */
    int channels; /* 3, or 1: grey */
} tn_preprocess;

typedef enum tn_image_layout { TN_IMAGE_NCHW, TN_IMAGE_NHWC } tn_image_layout;

/* imagenet: shorter side 256, centre crop 224, /255, ImageNet mean and deviation, RGB.
 * cifar10: /255, mean .485 .456 .406, deviation .229 .224 .225 (He et al.'s CIFAR networks as
 * commonly trained). tiny-imagenet: the same without resize, crop to the network's input.
 * none: pixels / 255. USAGE for another name (the message lists them). */
tn_status tn_preprocess_preset(const char *name, tn_preprocess *preprocess,
                               tn_error *error) TN_MUST_CHECK;
size_t tn_preprocess_preset_count(void);
const char *tn_preprocess_preset_name(size_t which);
const char *tn_preprocess_preset_summary(size_t which);

/* The preset for a data set and an input height when nobody says: by the reader, else by size:
 * pictures no larger than 64 are taken as they are, larger ones resized. height <= 0: free. */
const char *tn_preprocess_guess(const tn_dataset *dataset, int height);

/* Single settings as the command line gives them: key "resize" ("256"), "crop" ("224" or "WxH"),
 * "mean", "std" ("a,b,c" or one number; in 0..1, or 0..255 when any exceeds 1, and then scale is
 * 1), "channel-order" ("rgb" or "bgr"), "scale" ("1" or "1/255"). USAGE when not understood. */
tn_status tn_preprocess_set(tn_preprocess *preprocess, const char *key, const char *value,
                            tn_error *error) TN_MUST_CHECK;

/* Adapts to a network whose input is channels x height x width (<= 0: free): an unset crop becomes
 * the input's size, the imagenet preset keeps its ratio 256/224, channels follow. DATA when a crop
 * that was asked for contradicts the network. */
tn_status tn_preprocess_fit(tn_preprocess *preprocess, int channels, int height, int width,
                            tn_error *error) TN_MUST_CHECK;

/* Compact JSON (tn_free); the `preprocess` member of the record. */
tn_status tn_preprocess_to_json(const tn_preprocess *preprocess, char **text,
                                tn_error *error) TN_MUST_CHECK;
tn_status tn_preprocess_from_json(const char *text, tn_preprocess *preprocess,
                                  tn_error *error) TN_MUST_CHECK;

/* Width and height of what comes out for a source of that size. */
void tn_preprocess_output_size(const tn_preprocess *preprocess, int width, int height,
                               int *out_width, int *out_height);

/* Geometry alone: `src` resized, cropped, with preprocess->channels channels, still bytes (or
 * floats), in dst; `scratch` is reused memory. src may not be dst. */
tn_status tn_preprocess_geometry(const tn_preprocess *preprocess, const tn_image *src,
                                 tn_image *scratch, tn_image *dst, tn_error *error) TN_MUST_CHECK;

/* Values alone: one image of the final size into `dst` (channels * height * width floats). Float
 * arrays are taken as they are: (value - mean) / deviation. */
void tn_preprocess_values(const tn_preprocess *preprocess, const tn_image *src,
                          tn_image_layout layout, float *dst);

/* What the values of bytes are in the network's channel `channel` of `channels`. */
void tn_preprocess_table(const tn_preprocess *preprocess, int channels, int channel,
                         float table[256]);

#endif
