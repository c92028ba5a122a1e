#include "tests/finetune/glyph_training.h"

#include "data/glyphs.h"
#include "onnx_io/zoo/zoo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void glyph_training_folder(glyph_training *training)
{
    strcpy(training->folder, "/tmp/ternion-training-XXXXXX");
    if (!mkdtemp(training->folder))
        training->folder[0] = '\0';
}

static void path_of(const glyph_training *training, char path[128])
{
    snprintf(path, 128, "%s/glyphs", training->folder);
}

tn_status glyph_training_write(const glyph_training *training, size_t train, size_t test,
                               tn_error *error)
{
    char path[128];
    const tn_glyphs_options glyphs = {.seed = 1, .train = train, .test = test};
    path_of(training, path);
    return tn_glyphs_write(path, &glyphs, error);
}

tn_status glyph_training_open(glyph_training *training, tn_error *error)
{
    char path[128];
    const tn_zoo_options zoo = {.seed = 3};
    path_of(training, path);
    tn_status status = tn_dataset_open(path, TN_SPLIT_TRAIN, NULL, &training->train, error);
    if (status == TN_OK)
        status = tn_dataset_open(path, TN_SPLIT_VAL, NULL, &training->val, error);
    if (status == TN_OK)
        status = tn_preprocess_preset("cifar10", &training->preprocess, error);
    if (status == TN_OK)
        status = tn_preprocess_fit(&training->preprocess, 3, 32, 32, error);
    if (status == TN_OK)
        status = tn_zoo_create("resnet8", &zoo, &training->network, error);
    if (status == TN_OK)
        status = tn_device_create_cpu(&training->device, error);
    return status;
}

void glyph_training_close(glyph_training *training)
{
    tn_device_destroy(training->device);
    tn_model_destroy(training->network);
    tn_dataset_close(training->train);
    tn_dataset_close(training->val);
}

int remove_folder(const char *folder)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}
