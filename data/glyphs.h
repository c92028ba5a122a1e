/* A data set drawn by code: ten symbols in 32x32 colour pictures, with strokes, colours,
 * backgrounds, positions and noise that vary. A network learns it in minutes; a linear classifier
 * does not. Only exactly rounded arithmetic is used, so a seed gives the same bytes everywhere. */
#ifndef TERNION_DATA_GLYPHS_H
#define TERNION_DATA_GLYPHS_H

#include "core/reporter.h"
#include "data/image.h"

#include <stdbool.h>

enum {
    TN_GLYPH_CLASSES = 10,
    TN_GLYPH_SIDE = 32,
    TN_GLYPHS_TRAIN = 10000, /* pictures, unless told otherwise */
    TN_GLYPHS_TEST = 2000
};

const char *tn_glyph_class_name(int label);

/* Draws one picture [32][32][3]. Sample numbers of the test part lie above 2^32. */
void tn_glyph_draw(uint64_t seed, uint64_t sample, int label, unsigned char *pixels);

typedef struct tn_glyphs_options {
    uint64_t seed;
    size_t train, test; /* pictures; 0: 10,000 and 2,000 */
    bool replace;       /* overwrite files that exist */
    bool dry_run;       /* only say whether writing would be refused */
    const tn_reporter *reporter;
} tn_glyphs_options;

/* Writes CIFAR-10's binary layout into `folder` (made if absent): data_batch_1.bin to _5.bin,
 * test_batch.bin, batches.meta.txt; all of them or, when it fails or is cancelled, none.
 * Labels take turns. options may be NULL. */
tn_status tn_glyphs_write(const char *folder, const tn_glyphs_options *options,
                          tn_error *error) TN_MUST_CHECK;

#endif
