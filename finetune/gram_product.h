/* Products of a Gram matrix with the weights of several output channels: blocks of its rows, read
 * once for all channels, in tiles that stay in the cache. Each sum gets its terms in the order of
 * the matrix's rows, the same bits as one channel after the other. */
#ifndef TERNION_FINETUNE_GRAM_PRODUCT_H
#define TERNION_FINETUNE_GRAM_PRODUCT_H

#include <stdint.h>

enum { TN_PRODUCT_ROWS = 32, TN_PRODUCT_BLOCK = 256, TN_PRODUCT_TILE = 64 };

/* What is to be added to up to TN_PRODUCT_ROWS products from one block of rows of G. */
typedef struct tn_gram_terms {
    int count[TN_PRODUCT_ROWS];
    uint16_t at[TN_PRODUCT_ROWS][TN_PRODUCT_BLOCK]; /* row of G, counted from the block's first */
    double factor[TN_PRODUCT_ROWS][TN_PRODUCT_BLOCK];
    double tile[TN_PRODUCT_BLOCK * TN_PRODUCT_TILE];
} tn_gram_terms;

/* No terms for any product. */
void tn_gram_terms_clear(tn_gram_terms *terms);

/* One more term: factor x row `at` of the block. At most TN_PRODUCT_BLOCK a product. */
static inline void tn_gram_terms_push(tn_gram_terms *terms, int product, int64_t at, double factor)
{
    int n = terms->count[product]++;
    terms->at[product][n] = (uint16_t)at;
    terms->factor[product][n] = factor;
}

/* product[r][j] += sum of factor x gram[at, j] over the terms of r, for the columns from <= j < to
 * and the first `rows` products. gram: the block's first row, [.., cols]. */
void tn_gram_terms_add(tn_gram_terms *terms, const double *gram, int64_t cols, int64_t from,
                       int64_t to, int rows, double *const *product);

#endif
