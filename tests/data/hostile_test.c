/* Pictures and data sets that are broken on purpose: a clear error, bounded memory, no crash. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/memory.h"
#include "core/random.h"
#include "data/glyphs.h"
#include "data/loader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <turbojpeg.h>
#include <unistd.h>
#include <zlib.h>

static char folder[] = "/tmp/ternion-hostile-XXXXXX";

typedef struct bytes {
    unsigned char *data;
    size_t size, room;
} bytes;

static void add(bytes *b, const void *data, size_t size)
{
    if (b->size + size > b->room) {
        b->room = 2 * (b->size + size);
        b->data = realloc(b->data, b->room);
        assert_non_null(b->data);
    }
    memcpy(b->data + b->size, data, size);
    b->size += size;
}

static void add_u32(bytes *b, uint32_t v)
{
    unsigned char big[4] = {(unsigned char)(v >> 24), (unsigned char)(v >> 16),
                            (unsigned char)(v >> 8), (unsigned char)v};
    add(b, big, 4);
}

static void add_chunk(bytes *b, const char *type, const void *data, size_t size)
{
    add_u32(b, (uint32_t)size);
    size_t at = b->size;
    add(b, type, 4);
    add(b, data, size);
    add_u32(b, (uint32_t)crc32(0, b->data + at, (uInt)(4 + size)));
}

static void png_begin(bytes *b, uint32_t width, uint32_t height, unsigned char depth,
                      unsigned char colour)
{
    bytes head = {0};
    const unsigned char rest[5] = {depth, colour, 0, 0, 0};
    add_u32(&head, width);
    add_u32(&head, height);
    add(&head, rest, 5);
    add(b, "\x89PNG\r\n\x1a\n", 8);
    add_chunk(b, "IHDR", head.data, head.size);
    free(head.data);
}

/* `count` zero bytes, deflated. */
static void add_zeros(bytes *b, const char *type, const char *before, size_t n_before, size_t count)
{
    uLongf size = compressBound((uLong)count);
    unsigned char *zeros = calloc(1, count), *packed = malloc(n_before + size);
    assert_true(zeros && packed);
    memcpy(packed, before, n_before);
    assert_int_equal(compress2(packed + n_before, &size, zeros, (uLong)count, 9), Z_OK);
    add_chunk(b, type, packed, n_before + size);
    free(zeros);
    free(packed);
}

static tn_status decode(const bytes *b, tn_error *error)
{
    tn_image image = {0};
    *error = (tn_error){0};
    tn_status status = tn_image_decode(b->data, b->size, &image, error);
    assert_int_equal(status != TN_OK, error->message[0] != 0);
    tn_image_done(&image);
    return status;
}

static uint64_t highest_since(uint64_t live)
{
    return tn_memory_stats_get().highwater - live;
}

static void huge_png(void **state)
{
    (void)state;
    static const uint32_t sides[][2] = {{20000, 20000}, {16385, 1}, {1, 16385},
                                        {16384, 16384}, {0, 5},     {0x7fffffff, 0x7fffffff}};
    for (size_t i = 0; i < sizeof sides / sizeof sides[0]; i++) {
        bytes b = {0};
        tn_error error;
        uint64_t live = tn_memory_stats_get().live;
        png_begin(&b, sides[i][0], sides[i][1], 8, 2);
        add_zeros(&b, "IDAT", "", 0, 1 << 20);
        add_chunk(&b, "IEND", "", 0);
        assert_int_equal(decode(&b, &error), TN_ERROR_DATA);
        assert_int_equal(tn_memory_stats_get().live, live);
        free(b.data);
    }
    /* highwater only grows: so far nothing has needed much */
    assert_true(highest_since(0) < 40u << 20);
}

static void png_text_bombs(void **state)
{
    (void)state;
    bytes b = {0};
    tn_error error;
    png_begin(&b, 4, 4, 8, 0);
    for (int i = 0; i < 20; i++)
        add_zeros(&b, "zTXt", "key\0\0", 5, 30 << 20);
    add_zeros(&b, "IDAT", "", 0, 4 * 5);
    add_chunk(&b, "IEND", "", 0);
    tn_status status = decode(&b, &error);
    assert_true(status == TN_OK || status == TN_ERROR_DATA);
    assert_true(highest_since(0) < 80u << 20);
    free(b.data);
}

static void png_pixel_bomb(void **state)
{
    (void)state;
    bytes b = {0};
    tn_error error;
    png_begin(&b, 4, 4, 8, 0); /* far more data than pixels */
    add_zeros(&b, "IDAT", "", 0, 64 << 20);
    add_chunk(&b, "IEND", "", 0);
    tn_status status = decode(&b, &error);
    assert_true(status == TN_OK || status == TN_ERROR_DATA);
    free(b.data);
}

static void palette_out_of_range(void **state)
{
    (void)state;
    bytes b = {0};
    tn_error error;
    unsigned char rows[] = {0, 0, 1, 0, 1, 2}, packed[64];
    uLongf size = sizeof packed;
    png_begin(&b, 2, 2, 8, 3);
    add_chunk(&b, "PLTE", "\1\2\3\4\5\6", 6);
    assert_int_equal(compress(packed, &size, rows, sizeof rows), Z_OK);
    add_chunk(&b, "IDAT", packed, size);
    add_chunk(&b, "IEND", "", 0);
    assert_int_equal(decode(&b, &error), TN_ERROR_DATA);
    assert_non_null(strstr(error.message, "palette"));
    free(b.data);
}

/* A JPEG of glyphs. */
static bytes make_jpeg(int side, int flags)
{
    bytes b = {0};
    unsigned char *pixels = malloc((size_t)(side * side * 3)), *jpeg = NULL;
    unsigned long size = 0;
    assert_non_null(pixels);
    for (int i = 0; i < side * side * 3; i++)
        pixels[i] = (unsigned char)((i * 7) ^ (i >> 5));
    tjhandle handle = tjInitCompress();
    assert_int_equal(
        tjCompress2(handle, pixels, side, 0, side, TJPF_RGB, &jpeg, &size, TJSAMP_420, 85, flags),
        0);
    add(&b, jpeg, size);
    tjFree(jpeg);
    tjDestroy(handle);
    free(pixels);
    return b;
}

static void jpeg_of_many_scans(void **state)
{
    (void)state;
    bytes b = make_jpeg(64, TJFLAG_PROGRESSIVE), many = {0};
    tn_error error;
    assert_int_equal(decode(&b, &error), TN_OK);
    size_t last = b.size - 2;
    while (b.data[last] != 0xff || b.data[last + 1] != 0xda)
        last--;
    add(&many, b.data, last);
    for (int i = 0; i < 510; i++)
        add(&many, b.data + last, b.size - 2 - last);
    add(&many, "\xff\xd9", 2);
    assert_int_equal(decode(&many, &error), TN_ERROR_DATA);
    assert_non_null(strstr(error.message, "scans"));
    free(b.data);
    free(many.data);
}

static void huge_jpeg(void **state)
{
    (void)state;
    bytes b = make_jpeg(16, 0);
    tn_error error;
    size_t at = 0;
    while (b.data[at] != 0xff || b.data[at + 1] != 0xc0)
        at++;
    b.data[at + 5] = b.data[at + 7] = 0x4e; /* 20000 x 20000 */
    b.data[at + 6] = b.data[at + 8] = 0x20;
    assert_int_equal(decode(&b, &error), TN_ERROR_DATA);
    assert_non_null(strstr(error.message, "20000x20000"));
    free(b.data);
}

/* Every cut of a picture is an error: half an image never trains. A cut behind the last pixel may
 * pass (only the end marker is missing). */
static void every_truncation(void **state)
{
    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        bytes b = {0};
        tn_error error;
        if (kind < 2) {
            b = make_jpeg(24, kind ? TJFLAG_PROGRESSIVE : 0);
        } else {
            png_begin(&b, 40, 40, 8, 2);
            add_zeros(&b, "IDAT", "", 0, 40 * 121);
            add_chunk(&b, "IEND", "", 0);
        }
        size_t passed = 0;
        for (size_t n = 0; n < b.size; n++) {
            bytes cut = {malloc(n ? n : 1), n, n};
            assert_non_null(cut.data);
            memcpy(cut.data, b.data, n); /* its own memory: reading beyond shows */
            if (decode(&cut, &error) == TN_OK)
                passed++;
            else
                assert_int_equal(error.code, TN_ERROR_DATA);
            free(cut.data);
        }
        assert_true(passed <= (kind == 2 ? 16 : 0));
        free(b.data);
    }
}

/* Any byte changed: an error or a picture, never a crash. */
static void every_byte_flipped(void **state)
{
    (void)state;
    tn_random random = tn_random_make(1, TN_PURPOSE_TEST, 0, 0);
    for (int kind = 0; kind < 3; kind++) {
        bytes b = {0};
        tn_error error;
        if (kind < 2) {
            b = make_jpeg(16, kind ? TJFLAG_PROGRESSIVE : 0);
        } else {
            png_begin(&b, 12, 12, 8, 6);
            add_zeros(&b, "IDAT", "", 0, 12 * 49);
            add_chunk(&b, "IEND", "", 0);
        }
        for (size_t i = 0; i < b.size; i++) {
            unsigned char old = b.data[i];
            b.data[i] ^= (unsigned char)(1 + tn_random_below(&random, 255));
            tn_status status = decode(&b, &error);
            assert_true(status == TN_OK || status == TN_ERROR_DATA);
            b.data[i] = old;
        }
        assert_int_equal(decode(&b, &error), TN_OK);
        free(b.data);
    }
}

/* --- corrupt samples in a loader ---------------------------------------------------------------
 */

static void write_file(const char *name, const void *data, size_t size)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size, file), size);
    fclose(file);
}

static void make_folder(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(mkdir(path, 0777), 0);
}

/* Two classes of four pictures, two of them cut in half. */
static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return 1;
    bytes b = make_jpeg(32, 0);
    make_folder("a");
    make_folder("b");
    for (int i = 0; i < 8; i++) {
        char name[32];
        snprintf(name, sizeof name, "%c/%d.jpg", i < 4 ? 'a' : 'b', i);
        write_file(name, b.data, i == 2 || i == 5 ? b.size / 2 : b.size);
    }
    free(b.data);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static tn_loader *make_loader(tn_dataset *dataset, size_t max_bad, bool replace)
{
    tn_preprocess preprocess;
    tn_loader *loader = NULL;
    tn_error error = {0};
    assert_int_equal(tn_preprocess_preset("none", &preprocess, NULL), TN_OK);
    tn_loader_options options = {.preprocess = &preprocess,
                                 .batch = 3,
                                 .max_bad = max_bad,
                                 .replace_bad = replace,
                                 .threads = 3};
    if (tn_loader_create(dataset, &options, &loader, &error) != TN_OK)
        fail_msg("%s", error.message);
    return loader;
}

/* The labels of an epoch, 8 of them. */
static tn_status read_epoch(tn_loader *loader, int32_t *labels, tn_error *error)
{
    const tn_batch *batch;
    assert_int_equal(tn_loader_start(loader, 0, 0, error), TN_OK);
    for (size_t n = 0;;) {
        tn_status status = tn_loader_next(loader, &batch, error);
        if (status != TN_OK || !batch)
            return status;
        for (size_t i = 0; i < batch->count; i++) {
            bool zero = true;
            size_t elements = 3 * 32 * 32;
            for (size_t k = 0; k < elements; k++)
                zero = zero && batch->values[i * elements + k] == 0.0f;
            assert_int_equal(zero, batch->labels[i] == TN_BAD_SAMPLE);
            labels[n++] = batch->labels[i];
        }
    }
}

static void corrupt_images_are_counted(void **state)
{
    (void)state;
    int32_t labels[8];
    tn_error error = {0};
    tn_dataset *dataset;
    assert_int_equal(tn_dataset_open(folder, TN_SPLIT_TRAIN, NULL, &dataset, &error), TN_OK);
    tn_loader *loader = make_loader(dataset, 2, false);
    static const int32_t marked[8] = {0, 0, TN_BAD_SAMPLE, 0, 1, TN_BAD_SAMPLE, 1, 1};
    for (int epoch = 0; epoch < 2; epoch++) { /* each counts once */
        assert_int_equal(read_epoch(loader, labels, &error), TN_OK);
        assert_memory_equal(labels, marked, sizeof labels);
        assert_int_equal(tn_loader_bad_count(loader), 2);
    }
    assert_non_null(strstr(tn_loader_bad_message(loader, 0), "a/2.jpg"));
    assert_non_null(strstr(tn_loader_bad_message(loader, 1), "b/5.jpg"));
    assert_null(tn_loader_bad_message(loader, 2));
    tn_loader_destroy(loader);

    loader = make_loader(dataset, 2, true); /* the next good one stands in */
    static const int32_t replaced[8] = {0, 0, 0, 0, 1, 1, 1, 1};
    assert_int_equal(read_epoch(loader, labels, &error), TN_OK);
    assert_memory_equal(labels, replaced, sizeof labels);
    assert_int_equal(tn_loader_bad_count(loader), 2);
    tn_loader_destroy(loader);

    for (size_t allowed = 0; allowed < 2; allowed++) {
        loader = make_loader(dataset, allowed, false);
        error = (tn_error){0};
        assert_int_equal(read_epoch(loader, labels, &error), TN_ERROR_DATA);
        assert_non_null(strstr(error.message, allowed ? "b/5.jpg" : "a/2.jpg"));
        assert_non_null(strstr(error.message, "--max-bad"));
        tn_loader_destroy(loader);
    }
    tn_dataset_close(dataset);
}

static void flat_folder_needs_labels(void **state)
{
    (void)state;
    char flat[64];
    tn_error error = {0};
    tn_dataset *dataset = NULL;
    tn_dataset_options options = {.allow_unlabelled = true};
    snprintf(flat, sizeof flat, "%s/a", folder);
    assert_int_equal(tn_dataset_open(flat, TN_SPLIT_VAL, NULL, &dataset, &error), TN_ERROR_DATA);
    assert_non_null(strstr(error.message, "flat folder of 4 pictures"));
    assert_int_equal(tn_dataset_open(flat, TN_SPLIT_TRAIN, &options, &dataset, NULL), TN_OK);
    assert_int_equal(tn_dataset_count(dataset), 4);
    assert_int_equal(tn_dataset_classes(dataset), 0);
    assert_int_equal(tn_dataset_label(dataset, 3), TN_NO_LABEL);
    tn_dataset_close(dataset);
}

static void links_in_a_loop(void **state)
{
    (void)state;
    char loop[64];
    tn_error error = {0};
    tn_dataset *dataset = NULL;
    snprintf(loop, sizeof loop, "%s/a/again", folder);
    assert_int_equal(symlink(folder, loop), 0);
    assert_int_equal(tn_dataset_open(folder, TN_SPLIT_TRAIN, NULL, &dataset, &error),
                     TN_ERROR_DATA);
    assert_non_null(strstr(error.message, "deep"));
    unlink(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(huge_png),
        cmocka_unit_test(png_text_bombs),
        cmocka_unit_test(png_pixel_bomb),
        cmocka_unit_test(palette_out_of_range),
        cmocka_unit_test(jpeg_of_many_scans),
        cmocka_unit_test(huge_jpeg),
        cmocka_unit_test(every_truncation),
        cmocka_unit_test(every_byte_flipped),
        cmocka_unit_test(corrupt_images_are_counted),
        cmocka_unit_test(flat_folder_needs_labels),
        cmocka_unit_test(links_in_a_loop),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
