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

void tn_codes_unpack(const unsigned char *bytes, int64_t count, int shift, int width,
                     int16_t *codes)
{
    if (width == 16) {
        memcpy(codes, bytes, (size_t)count * sizeof *codes);
        return;
    }
    int64_t each = 8 / width;
    int mask = (1 << width) - 1;
#pragma omp parallel for schedule(static) if (count > 1 << 18)
    for (int64_t k = 0; k < count; k++) {
        int part = (bytes[k / each] >> ((k % each) * width)) & mask;
        codes[k] = (int16_t)(codes[k] | part << shift);
    }
}

void tn_codes_extend(int16_t *codes, int64_t count, int bits)
{
    if (bits >= 16)
        return;
    int sign = 1 << (bits - 1);
#pragma omp parallel for schedule(static) if (count > 1 << 18)
    for (int64_t k = 0; k < count; k++)
        codes[k] = (int16_t)((codes[k] ^ sign) - sign);
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
