/* Every part of augmentation at once. */
#ifndef TERNION_TESTS_EVERY_AUGMENTATION_H
#define TERNION_TESTS_EVERY_AUGMENTATION_H

#include "data/augment.h"

static const tn_augment_options every_augmentation = {.pad = 4,
                                                      .flip = true,
                                                      .rotation = 10.0f,
                                                      .brightness = 0.2f,
                                                      .contrast = 0.2f,
                                                      .saturation = 0.2f,
                                                      .sharpness = 0.2f,
                                                      .cutout = 8,
                                                      .mixup = 0.2f};

#endif
