/* Images per second of processor time: the loader, and of libjpeg-turbo's bare decode of the same
 * files. image_speed DATA PRESET SIDE THREADS [FILE...] Prints "loader N" and, for the files,
 * "decode N" (one thread). */
#include "core/memory.h"
#include "data/loader.h"
#include "data/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <turbojpeg.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static tn_status load(char **argv, tn_error *error)
{
    tn_dataset *dataset = NULL;
    tn_loader *loader = NULL;
    tn_preprocess preprocess;
    const tn_batch *batch = NULL;
    int side = atoi(argv[3]);
    tn_status status = tn_dataset_open(argv[1], TN_SPLIT_TRAIN, NULL, &dataset, error);
    if (status == TN_OK)
        status = tn_preprocess_preset(argv[2], &preprocess, error);
    if (status == TN_OK)
        status = tn_preprocess_fit(&preprocess, 3, side, side, error);
    tn_loader_options options = {.preprocess = &preprocess,
                                 .output = TN_LOADER_VALUES_NHWC,
                                 .batch = 64,
                                 .threads = atoi(argv[4]),
                                 .cache_bytes = 1};
    if (status == TN_OK)
        status = tn_loader_create(dataset, &options, &loader, error);
    for (uint32_t epoch = 0; status == TN_OK && epoch < 2; epoch++) {
        double begin = now();
        size_t n = 0;
        status = tn_loader_start(loader, epoch, 0, error);
        while (status == TN_OK && (status = tn_loader_next(loader, &batch, error)) == TN_OK &&
               batch)
            n += batch->count;
        if (epoch == 1) /* the first one warms the page cache */
            printf("loader %.1f\n", (double)n / (now() - begin));
    }
    tn_loader_destroy(loader);
    tn_dataset_close(dataset);
    return status;
}

/* Decoding alone, from memory, with one handle. */
static void decode(int n, char **files)
{
    tjhandle handle = tjInitDecompress();
    unsigned char *pixels = malloc(1 << 26);
    double seconds = 0.0;
    int done = 0;
    for (int i = 0; i < n; i++) {
        unsigned char *bytes;
        size_t size;
        int width, height, sub, space;
        if (tn_source_read_all(files[i], 1 << 28, &bytes, &size, NULL) != TN_OK)
            continue;
        double begin = now();
        if (tjDecompressHeader3(handle, bytes, size, &width, &height, &sub, &space) == 0 &&
            (size_t)width * (size_t)height < (1u << 24) &&
            tjDecompress2(handle, bytes, size, pixels, width, 0, height, TJPF_RGB,
                          TJFLAG_ACCURATEDCT) == 0)
            done++;
        seconds += now() - begin;
        tn_free(bytes);
    }
    if (done > 0)
        printf("decode %.1f\n", done / seconds);
    free(pixels);
    tjDestroy(handle);
}

int main(int argc, char **argv)
{
    tn_error error = {0};
    if (argc < 5)
        return TN_ERROR_USAGE;
    tn_status status = load(argv, &error);
    if (status != TN_OK)
        fprintf(stderr, "image_speed: %s\n", error.message);
    if (argc > 5)
        decode(argc - 5, argv + 5);
    return (int)status;
}
