#include "data/contact_sheet.h"

#include "core/memory.h"
#include "data/resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TILE = 96, GAP = 4, MAX_TILES = 10000, GROUND = 48 };

typedef struct sheet_entry {
    int32_t label;
    uint32_t index;
} sheet_entry;

static int compare_entries(const void *a, const void *b)
{
    const sheet_entry *x = a, *y = b;
    if (x->label != y->label)
        return x->label < y->label ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* Floats to bytes over their own range. */
static tn_status make_bytes(tn_image *image, tn_image *bytes, tn_error *error)
{
    size_t n = (size_t)image->width * (size_t)image->height;
    size_t channels = (size_t)image->channels, shown = channels >= 3 ? 3 : 1;
    float lo = INFINITY, hi = -INFINITY;
    for (size_t i = 0; i < n * channels; i++)
        if (isfinite(image->values[i])) {
            lo = fminf(lo, image->values[i]);
            hi = fmaxf(hi, image->values[i]);
        }
    tn_status status = tn_image_reserve(bytes, image->width, image->height, (int)shown, error);
    for (size_t i = 0; status == TN_OK && i < n; i++)
        for (size_t c = 0; c < shown; c++) {
            float v = image->values[i * channels + c];
            float unit = isfinite(v) && hi > lo ? (v - lo) / (hi - lo) : 0.0f;
            bytes->pixels[i * shown + c] = (unsigned char)lrintf(unit * 255.0f);
        }
    return status;
}

static void draw_cross(tn_image *sheet, int left, int top)
{
    for (int i = 0; i < TILE; i++)
        for (int k = 0; k < 2; k++) {
            int x = left + (k ? TILE - 1 - i : i);
            unsigned char *p =
                sheet->pixels + 3 * ((size_t)(top + i) * (size_t)sheet->width + (size_t)x);
            p[0] = 220;
            p[1] = p[2] = 0;
        }
}

static void paste(tn_image *sheet, const tn_image *tile, int left, int top)
{
    for (int y = 0; y < tile->height; y++)
        for (int x = 0; x < tile->width; x++) {
            const unsigned char *from =
                tile->pixels +
                ((size_t)y * (size_t)tile->width + (size_t)x) * (size_t)tile->channels;
            unsigned char *to =
                sheet->pixels + 3 * ((size_t)(top + y) * (size_t)sheet->width + (size_t)(left + x));
            for (int c = 0; c < 3; c++)
                to[c] = from[tile->channels >= 3 ? c : 0];
        }
}

static tn_status draw_tile(const tn_dataset *dataset, size_t index, tn_image *sheet, int left,
                           int top, tn_error *error)
{
    tn_image image = {0}, bytes = {0}, tile = {0};
    tn_status status = tn_dataset_read(dataset, index, &image, NULL);
    if (status == TN_ERROR_DATA) {
        draw_cross(sheet, left, top);
        status = TN_OK;
        goto done;
    }
    if (status != TN_OK) {
        status = tn_dataset_read(dataset, index, &image, error);
        goto done;
    }
    if (image.values)
        status = make_bytes(&image, &bytes, error);
    const tn_image *src = image.values ? &bytes : &image;
    if (status != TN_OK)
        goto done;
    int longer = src->width > src->height ? src->width : src->height;
    int width = src->width * TILE / longer, height = src->height * TILE / longer;
    width = width < 1 ? 1 : width;
    height = height < 1 ? 1 : height;
    status = tn_image_resize(src, NULL, width, height, &tile, error);
    if (status == TN_OK)
        paste(sheet, &tile, left + (TILE - width) / 2, top + (TILE - height) / 2);
done:
    tn_image_done(&image);
    tn_image_done(&bytes);
    tn_image_done(&tile);
    return status;
}

tn_status tn_contact_sheet_write(const tn_dataset *dataset, size_t n, uint64_t seed,
                                 const char *path, int replace, tn_error *error)
{
    size_t count = tn_dataset_count(dataset);
    n = n > count ? count : n;
    if (n == 0 || n > MAX_TILES)
        return tn_fail(error, TN_ERROR_USAGE, "a sheet shows 1 to %d pictures, not %zu", MAX_TILES,
                       n);
    tn_image sheet = {0};
    sheet_entry *entries = tn_alloc_array(n, sizeof *entries);
    uint32_t *indices = tn_alloc_array(n, sizeof *indices);
    tn_status status = TN_OK;
    if (!entries || !indices) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for a sheet of %zu pictures", n);
        goto done;
    }
    status = tn_dataset_draw(dataset, seed, n, indices, error);
    if (status != TN_OK)
        goto done;
    for (size_t i = 0; i < n; i++)
        entries[i] = (sheet_entry){tn_dataset_label(dataset, indices[i]), indices[i]};
    qsort(entries, n, sizeof *entries, compare_entries);
    int columns = (int)ceil(sqrt((double)n * 1.6));
    columns = (size_t)columns > n ? (int)n : columns;
    int rows = ((int)n + columns - 1) / columns;
    status =
        tn_image_reserve(&sheet, GAP + columns * (TILE + GAP), GAP + rows * (TILE + GAP), 3, error);
    if (status != TN_OK)
        goto done;
    memset(sheet.pixels, GROUND, (size_t)sheet.width * (size_t)sheet.height * 3);
    for (size_t i = 0; status == TN_OK && i < n; i++)
        status = draw_tile(dataset, entries[i].index, &sheet, GAP + (int)i % columns * (TILE + GAP),
                           GAP + (int)i / columns * (TILE + GAP), error);
    if (status == TN_OK)
        status = tn_png_write(path, &sheet, replace, error);
done:
    tn_image_done(&sheet);
    tn_free(entries);
    tn_free(indices);
    return status;
}
