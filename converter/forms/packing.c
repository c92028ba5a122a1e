#include "converter/forms/packing.h"

#include "core/memory.h"

#include <string.h>

static void pack_two_bits(const int16_t *codes, int64_t bytes_whole, unsigned char *bytes)
{
#pragma omp parallel for schedule(static) if (bytes_whole > 1 << 16)
    for (int64_t i = 0; i < bytes_whole; i++) {
        const int16_t *c = codes + i * 4;
        bytes[i] =
            (unsigned char)((c[0] & 3) | (c[1] & 3) << 2 | (c[2] & 3) << 4 | (c[3] & 3) << 6);
    }
}

void tn_codes_pack(const int16_t *codes, int64_t count, int shift, int width, unsigned char *bytes)
{
    if (width == 16) {
        memcpy(bytes, codes, (size_t)count * sizeof *codes);
        return;
    }
    int64_t each = 8 / width, total = (count + each - 1) / each, first = 0;
    int mask = (1 << width) - 1;
    if (width == 2 && shift == 0) {
        first = count / 4;
        pack_two_bits(codes, first, bytes);
    }
#pragma omp parallel for schedule(static) if (total - first > 1 << 16)
    for (int64_t i = first; i < total; i++) {
        int64_t start = i * each, end = start + each < count ? start + each : count;
        int byte = 0;
        for (int64_t k = start; k < end; k++)
            byte |= ((codes[k] >> shift) & mask) << ((k - start) * width);
        bytes[i] = (unsigned char)byte;
    }
}

/* The codes of each byte value, in place: sign-extended when these are a code's highest bits. */
static void fill_table(int16_t table[256][8], int shift, int width, bool top)
{
    int mask = (1 << width) - 1, sign = top ? 1 << (width - 1) : 0;
    for (int byte = 0; byte < 256; byte++) {
        for (int k = 0; k < 8 / width; k++) {
            int part = (byte >> (k * width)) & mask;
            table[byte][k] = (int16_t)(((part ^ sign) - sign) * (1 << shift));
        }
    }
}

static inline void unpack_bytes(const unsigned char *bytes, int64_t count, int16_t table[256][8],
                                int each, bool top, int16_t *codes)
{
#pragma omp parallel for schedule(static) if (count > 1 << 16)
    for (int64_t i = 0; i < count; i++) {
        const int16_t *part = table[bytes[i]];
        int16_t *dst = codes + i * each;
        for (int k = 0; k < each; k++)
            dst[k] = top ? part[k] : (int16_t)(dst[k] | part[k]);
    }
}

void tn_codes_unpack(const unsigned char *bytes, int64_t count, int shift, int width, bool top,
                     int16_t *codes)
{
    int16_t table[256][8];
    if (width == 16) {
        memcpy(codes, bytes, (size_t)count * sizeof *codes);
        return;
    }
    int64_t each = 8 / width, whole = count / each;
    fill_table(table, shift, width, top);
    if (width == 8)
        unpack_bytes(bytes, whole, table, 1, top, codes);
    else if (width == 4)
        unpack_bytes(bytes, whole, table, 2, top, codes);
    else if (width == 2)
        unpack_bytes(bytes, whole, table, 4, top, codes);
    else
        unpack_bytes(bytes, whole, table, 8, top, codes);
    for (int64_t k = whole * each; k < count; k++) {
        int16_t part = table[bytes[whole]][k - whole * each];
        codes[k] = top ? part : (int16_t)(codes[k] | part);
    }
}

int64_t tn_stored_group(const tn_qweight *weight)
{
    return weight->group < weight->cols ? weight->group : weight->cols;
}

static int64_t stored_cols(const tn_qweight *weight, bool padded)
{
    return padded ? weight->groups_per_row * tn_stored_group(weight) : weight->cols;
}

int64_t tn_stored_count(const tn_qweight *weight, bool padded)
{
    return weight->rows * stored_cols(weight, padded);
}

const int16_t *tn_stored_codes(const tn_form_site *site, bool padded, int16_t **owned)
{
    const tn_qweight *weight = site->weight;
    int64_t padded_cols = stored_cols(weight, padded);
    *owned = NULL;
    if (padded_cols == weight->cols && (padded || site->axis == 0))
        return weight->codes;
    *owned = tn_alloc_array((size_t)tn_stored_count(weight, padded), sizeof **owned);
    if (!*owned)
        return NULL;
    if (!padded) {
        tn_codes_to_layout(weight->codes, site->rank, site->dims, site->axis, *owned);
        return *owned;
    }
    for (int64_t row = 0; row < weight->rows; row++) {
        int16_t *dst = *owned + row * padded_cols;
        memcpy(dst, weight->codes + row * weight->cols, (size_t)weight->cols * sizeof *dst);
        memset(dst + weight->cols, 0, (size_t)(padded_cols - weight->cols) * sizeof *dst);
    }
    return *owned;
}

int16_t *tn_stored_target(const tn_qweight *weight, bool padded, int16_t **owned)
{
    bool same = stored_cols(weight, padded) == weight->cols && (padded || weight->axis == 0);
    *owned = NULL;
    if (same)
        return weight->codes;
    *owned = tn_alloc_array((size_t)tn_stored_count(weight, padded), sizeof **owned);
    return *owned;
}

void tn_stored_to_rows(const int16_t *stored, bool padded, tn_qweight *weight)
{
    if (!padded) {
        tn_codes_from_layout(stored, weight->rank, weight->dims, weight->axis, weight->codes);
        return;
    }
    int64_t padded_cols = stored_cols(weight, true);
    for (int64_t row = 0; row < weight->rows; row++)
        memcpy(weight->codes + row * weight->cols, stored + row * padded_cols,
               (size_t)weight->cols * sizeof *stored);
}
