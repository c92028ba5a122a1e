/* What tests of training have in common: glyphs in a folder of their own, and a small network for
 * them. */
#ifndef TERNION_TESTS_FINETUNE_GLYPH_TRAINING_H
#define TERNION_TESTS_FINETUNE_GLYPH_TRAINING_H

#include "finetune/train.h"

typedef struct glyph_training {
    char folder[64];
    tn_dataset *train, *val;  /* FOLDER/glyphs */
    tn_preprocess preprocess; /* fitted */
    tn_model *network;        /* resnet8, seed 3 */
    tn_device *device;        /* the CPU */
} glyph_training;

/* Makes a folder; "" on failure. */
void glyph_training_folder(glyph_training *training);
/* Writes the pictures there. */
tn_status glyph_training_write(const glyph_training *training, size_t train, size_t test,
                               tn_error *error) TN_MUST_CHECK;
/* Opens all the rest, of pictures that are written. */
tn_status glyph_training_open(glyph_training *training, tn_error *error) TN_MUST_CHECK;
/* Folder, pictures and all the rest, by one process. */
tn_status glyph_training_make(glyph_training *training, size_t train, size_t test,
                              tn_error *error) TN_MUST_CHECK;
tn_train_data glyph_training_data(const glyph_training *training,
                                  const tn_augment_options *augment);
/* Packs what was trained, writes it, reads it back, and demands its logits bit by bit. */
tn_status glyph_training_prove(const glyph_training *training, const tn_trained *trained,
                               const tn_train_options *options, tn_error *error) TN_MUST_CHECK;
void glyph_training_close(glyph_training *training);
/* 0 when a test's folder and all in it are gone. */
int remove_folder(const char *folder);

#endif
