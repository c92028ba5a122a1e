#include "finetune/gram_product.h"

#include "core/hot.h"

#include <stdbool.h>
#include <string.h>

enum { LANES = 8, VECTORS = TN_PRODUCT_TILE / LANES };

typedef double tn_wide_lanes __attribute__((vector_size(8 * LANES), aligned(8), may_alias));

void tn_gram_terms_clear(tn_gram_terms *terms)
{
    memset(terms->count, 0, sizeof terms->count);
}

/* A whole tile: its sums stay in registers. */
TN_HOT static void add_tile(int count, const uint16_t *at, const double *factor, const double *rows,
                            int64_t stride, double *product)
{
    tn_wide_lanes sum[VECTORS];
    for (int v = 0; v < VECTORS; v++)
        sum[v] = ((const tn_wide_lanes *)product)[v];
    for (int t = 0; t < count; t++) {
        const tn_wide_lanes *row = (const tn_wide_lanes *)(rows + at[t] * stride);
        for (int v = 0; v < VECTORS; v++)
            sum[v] += factor[t] * row[v];
    }
    for (int v = 0; v < VECTORS; v++)
        ((tn_wide_lanes *)product)[v] = sum[v];
}

/* Rows of the block into the tile; loads of several are under way together. */
TN_HOT static void pack_tile(int count, const uint16_t *used, const double *rows, int64_t stride,
                             double *tile)
{
    for (int t = 0; t < count; t++) {
        const tn_wide_lanes *row = (const tn_wide_lanes *)(rows + used[t] * stride);
        tn_wide_lanes *dst = (tn_wide_lanes *)(tile + used[t] * TN_PRODUCT_TILE);
        for (int v = 0; v < VECTORS; v++)
            dst[v] = row[v];
    }
}

/* The columns left at the right edge. */
static void add_edge(int count, const uint16_t *at, const double *factor, const double *rows,
                     int64_t stride, int64_t width, double *product)
{
    for (int t = 0; t < count; t++)
        for (int64_t j = 0; j < width; j++)
            product[j] += factor[t] * rows[at[t] * stride + j];
}

/* Lists the rows of the block that any product uses; whether on average each has several users. */
static bool list_used(const tn_gram_terms *terms, int rows, uint16_t *used, int *distinct)
{
    bool seen[TN_PRODUCT_BLOCK] = {false};
    int all = 0;
    *distinct = 0;
    for (int r = 0; r < rows; r++) {
        for (int t = 0; t < terms->count[r]; t++)
            seen[terms->at[r][t]] = true;
        all += terms->count[r];
    }
    for (int i = 0; i < TN_PRODUCT_BLOCK; i++)
        if (seen[i])
            used[(*distinct)++] = (uint16_t)i;
    return all > 2 * *distinct;
}

void tn_gram_terms_add(tn_gram_terms *terms, const double *gram, int64_t cols, int64_t from,
                       int64_t to, int rows, double *const *product)
{
    uint16_t used[TN_PRODUCT_BLOCK];
    int distinct;
    bool shared = list_used(terms, rows, used, &distinct);
    for (; from + TN_PRODUCT_TILE <= to; from += TN_PRODUCT_TILE) {
        if (shared)
            pack_tile(distinct, used, gram + from, cols, terms->tile);
        const double *tile = shared ? terms->tile : gram + from;
        for (int r = 0; r < rows; r++)
            if (terms->count[r] > 0)
                add_tile(terms->count[r], terms->at[r], terms->factor[r], tile,
                         shared ? TN_PRODUCT_TILE : cols, product[r] + from);
    }
    for (int r = 0; r < rows; r++)
        add_edge(terms->count[r], terms->at[r], terms->factor[r], gram + from, cols, to - from,
                 product[r] + from);
}
