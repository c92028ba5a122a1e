/* Shows other programs what data/ makes of a picture: raw pixels on stdout behind a line "W H C".
 *   image_tool decode FILE | resize FILE W H | box FILE W H L T R B | preset NAME FILE | read DATA
 * N Exits with the status code; the message goes to stderr. */
#include "core/memory.h"
#include "data/contact_sheet.h"
#include "data/dataset.h"
#include "data/glyphs.h"
#include "data/preprocess.h"
#include "data/resize.h"
#include "data/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static tn_status decode_file(const char *path, tn_image *image, tn_error *error)
{
    unsigned char *bytes = NULL;
    size_t size = 0;
    tn_status status = tn_source_read_all(path, 1u << 30, &bytes, &size, error);
    if (status == TN_OK)
        status = tn_image_decode(bytes, size, image, error);
    tn_free(bytes);
    return status;
}

static tn_status resize_file(char **argv, bool with_box, tn_image *image, tn_error *error)
{
    tn_image src = {0};
    tn_resize_box box = {0};
    tn_status status = decode_file(argv[2], &src, error);
    if (with_box)
        box = (tn_resize_box){strtof(argv[5], NULL), strtof(argv[6], NULL), strtof(argv[7], NULL),
                              strtof(argv[8], NULL)};
    if (status == TN_OK)
        status = tn_image_resize(&src, with_box ? &box : NULL, atoi(argv[3]), atoi(argv[4]), image,
                                 error);
    tn_image_done(&src);
    return status;
}

static tn_status preset_file(char **argv, tn_image *image, tn_error *error)
{
    tn_image src = {0}, scratch = {0};
    tn_preprocess preprocess;
    tn_status status = tn_preprocess_preset(argv[2], &preprocess, error);
    if (status == TN_OK)
        status = decode_file(argv[3], &src, error);
    if (status == TN_OK)
        status = tn_preprocess_geometry(&preprocess, &src, &scratch, image, error);
    tn_image_done(&src);
    tn_image_done(&scratch);
    return status;
}

static tn_status read_sample(char **argv, tn_image *image, tn_error *error)
{
    tn_dataset *dataset = NULL;
    char name[256];
    size_t index = strtoul(argv[3], NULL, 10);
    tn_dataset_options options = {.allow_unlabelled = true};
    tn_status status = tn_dataset_open(argv[2], TN_SPLIT_TRAIN, &options, &dataset, error);
    if (status != TN_OK)
        return status;
    fprintf(stderr, "%s; %s; hash %016llx\n", tn_dataset_reader_id(dataset),
            tn_dataset_description(dataset), (unsigned long long)tn_dataset_hash(dataset));
    status = tn_dataset_read(dataset, index, image, error);
    if (status == TN_OK) {
        int label = tn_dataset_label(dataset, index);
        tn_dataset_sample_name(dataset, index, name, sizeof name);
        fprintf(stderr, "label %d (%s) of %s\n", label,
                label < 0 ? "none" : tn_dataset_class_name(dataset, label), name);
    }
    tn_dataset_close(dataset);
    return status;
}

static tn_status write_sheet(char **argv, tn_error *error)
{
    tn_dataset *dataset = NULL;
    tn_status status = tn_dataset_open(argv[2], TN_SPLIT_TRAIN, NULL, &dataset, error);
    if (status == TN_OK)
        status = tn_contact_sheet_write(dataset, strtoul(argv[3], NULL, 10), 0, argv[4], 1, error);
    tn_dataset_close(dataset);
    return status;
}

/* Opens the data set and reads its first sample with the n-th and all later allocations failing,
 * for every n: an error of code LIMIT and no leak until all goes well. */
static tn_status sweep(const char *spec, tn_error *error)
{
    tn_dataset_options options = {.allow_unlabelled = true};
    for (uint64_t n = 1; n < 100000; n++) {
        tn_dataset *dataset = NULL;
        tn_image image = {0};
        tn_error failure = {0};
        uint64_t live = tn_memory_stats_get().live;
        tn_memory_fail_call(n, 1);
        tn_status status = tn_dataset_open(spec, TN_SPLIT_TRAIN, &options, &dataset, &failure);
        if (status == TN_OK)
            status = tn_dataset_read(dataset, 0, &image, &failure);
        tn_memory_fail_call(0, 0);
        tn_image_done(&image);
        tn_dataset_close(dataset);
        if (tn_memory_stats_get().live != live)
            return tn_fail(error, TN_ERROR_DIFFERS, "allocation %d failing leaks", (int)n);
        if (status == TN_OK)
            return TN_OK;
        if (status != TN_ERROR_LIMIT)
            return tn_fail(error, TN_ERROR_DIFFERS, "allocation %d failing gives %d: %s", (int)n,
                           (int)status, failure.message);
    }
    return tn_fail(error, TN_ERROR_DIFFERS, "the sweep does not end");
}

int main(int argc, char **argv)
{
    tn_image image = {0};
    tn_error error = {0};
    tn_status status = TN_ERROR_USAGE;
    if (argc == 3 && strcmp(argv[1], "decode") == 0)
        status = decode_file(argv[2], &image, &error);
    else if (argc == 5 && strcmp(argv[1], "resize") == 0)
        status = resize_file(argv, false, &image, &error);
    else if (argc == 9 && strcmp(argv[1], "box") == 0)
        status = resize_file(argv, true, &image, &error);
    else if (argc == 4 && strcmp(argv[1], "preset") == 0)
        status = preset_file(argv, &image, &error);
    else if (argc == 4 && strcmp(argv[1], "read") == 0)
        status = read_sample(argv, &image, &error);
    else if (argc == 6 && strcmp(argv[1], "glyphs") == 0) {
        const tn_glyphs_options options = {.seed = strtoull(argv[3], NULL, 10),
                                           .train = strtoul(argv[4], NULL, 10),
                                           .test = strtoul(argv[5], NULL, 10)};
        status = tn_glyphs_write(argv[2], &options, &error);
    } else if (argc == 5 && strcmp(argv[1], "sheet") == 0)
        status = write_sheet(argv, &error);
    else if (argc == 3 && strcmp(argv[1], "sweep") == 0)
        status = sweep(argv[2], &error);
    if (status != TN_OK)
        fprintf(stderr, "image_tool: %s\n", error.message);
    size_t n = (size_t)image.width * (size_t)image.height * (size_t)image.channels;
    if (status == TN_OK && n > 0) {
        printf("%d %d %d\n", image.width, image.height, image.channels);
        if (image.pixels)
            fwrite(image.pixels, 1, n, stdout);
        else
            fwrite(image.values, sizeof(float), n, stdout);
    }
    tn_image_done(&image);
    return (int)status;
}
