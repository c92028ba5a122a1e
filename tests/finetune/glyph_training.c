#include "tests/finetune/glyph_training.h"

#include "converter/pack.h"
#include "data/glyphs.h"
#include "onnx_io/zoo/zoo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

tn_status glyph_training_make(glyph_training *training, size_t train, size_t test, tn_error *error)
{
    glyph_training_folder(training);
    tn_status status = glyph_training_write(training, train, test, error);
    return status == TN_OK ? glyph_training_open(training, error) : status;
}

tn_train_data glyph_training_data(const glyph_training *training, const tn_augment_options *augment)
{
    return (tn_train_data){.train = training->train,
                           .val = training->val,
                           .preprocess = &training->preprocess,
                           .augment = augment};
}

tn_status glyph_training_prove(const glyph_training *training, const tn_trained *trained,
                               const tn_train_options *options, tn_error *error)
{
    const tn_train_data data = glyph_training_data(training, NULL);
    const tn_pack_options pack = {0};
    const tn_write_options write = {0};
    tn_model *packed = NULL, *read = NULL;
    tn_pack_item items[64];
    char path[128];
    tn_status status = TN_OK;
    size_t count = trained->conversion.count;
    for (size_t k = 0; k < count; k++)
        items[k] = (tn_pack_item){.layer = trained->conversion.item[k].layer,
                                  .weight = &trained->conversion.item[k].weight};
    snprintf(path, sizeof path, "%s/out.onnx", training->folder);
    unlink(path);
    if (count)
        status = tn_pack(trained->graph, items, count, &pack, NULL, &packed, error);
    if (status == TN_OK && trained->activations.count)
        status = tn_activations_write(&trained->activations, packed, error);
    if (status == TN_OK)
        status = tn_model_write(packed ? packed : trained->model, path, &write, NULL, error);
    if (status == TN_OK)
        status = tn_model_read(path, NULL, &read, error);
    if (status == TN_OK)
        status = tn_trained_prove(trained, read, &data, options, error);
    tn_model_destroy(read);
    tn_model_destroy(packed);
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
