/* Fuzz target: the first byte chooses a layout, the rest is its file; every sample is read.
 *
 *     dataset_read -max_total_time=60 -max_len=65536 CORPUS-FOLDER */
#include "core/memory.h"
#include "data/dataset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The file that is fuzzed, and one that must lie beside it; DATA is the folder, or the file. */
static const struct {
    const char *file, *beside;
    bool is_file;
} layouts[] = {{"data_batch_1", NULL, false},
               {"data_batch_1.bin", NULL, false},
               {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", false},
               {"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte", false},
               {"images.npy", "labels.npy", false},
               {"labels.npy", "images.npy", false},
               {"a.npz", NULL, true},
               {"a.npy", NULL, true},
               {"a.tar", NULL, true},
               {"labels.csv", NULL, false},
               {"val.txt", "1.png", false},
               {"val_annotations.txt", NULL, false}};
enum { N = sizeof layouts / sizeof layouts[0] };

static void put(const char *folder, const char *name, const void *data, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, size, file) != size || fclose(file) != 0)
        abort();
}

/* A plausible neighbour: two labels or images. */
static void put_beside(const char *folder, const char *name)
{
    static const unsigned char labels[] = {0, 0, 8, 1, 0, 0, 0, 2, 0, 1};
    char array[128 + 8] = "\x93NUMPY\x01\x00\x76";
    if (strstr(name, "idx1"))
        put(folder, name, labels, sizeof labels);
    else if (strstr(name, ".npy")) {
        bool images = name[0] == 'i';
        memset(array + 10, ' ', sizeof array - 10);
        int n =
            snprintf(array + 10, 118, "{'descr': '|u1', 'fortran_order': False, 'shape': (2,%s), }",
                     images ? " 2, 2" : "");
        array[10 + n] = ' ';
        put(folder, name, array, images ? 136 : 130);
    } else
        put(folder, name, "", 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char folders[N][64];
    tn_dataset *dataset = NULL;
    tn_image image = {0};
    if (size == 0)
        return 0;
    size_t k = data[0] % N;
    if (!folders[k][0]) {
        snprintf(folders[k], sizeof folders[k], "%s/ternion-fuzz-XXXXXX",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
        if (!mkdtemp(folders[k]))
            abort();
        if (layouts[k].beside)
            put_beside(folders[k], layouts[k].beside);
    }
    put(folders[k], layouts[k].file, data + 1, size - 1);
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folders[k], layouts[k].is_file ? layouts[k].file : "");
    tn_memory_set_limit(256u << 20);
    uint64_t live = tn_memory_stats_get().live;
    tn_dataset_options options = {.allow_unlabelled = true};
    if (tn_dataset_open(path, TN_SPLIT_TRAIN, &options, &dataset, NULL) == TN_OK)
        for (size_t i = 0; i < tn_dataset_count(dataset) && i < 64; i++) {
            char name[256];
            tn_dataset_sample_name(dataset, i, name, sizeof name);
            if (tn_dataset_read(dataset, i, &image, NULL) != TN_OK)
                continue;
        }
    tn_dataset_close(dataset);
    tn_image_done(&image);
    if (tn_memory_stats_get().live != live)
        __builtin_trap();
    return 0;
}
