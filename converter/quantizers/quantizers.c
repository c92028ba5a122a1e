#include "converter/quantizers/table.h"

#include <string.h>

static const tn_quantizer *const table[] = {
    &tn_quantizer_twn,    &tn_quantizer_ttq,    &tn_quantizer_fixed,
    &tn_quantizer_affine, &tn_quantizer_dorefa, &tn_quantizer_lsq,
    &tn_quantizer_parq,   &tn_quantizer_half,   &tn_quantizer_float,
};

enum { TABLE_SIZE = sizeof table / sizeof table[0] };

const tn_quantizer *tn_quantizer_at(size_t i)
{
    return i < TABLE_SIZE ? table[i] : NULL;
}

const tn_quantizer *tn_quantizer_find(const char *id)
{
    for (size_t i = 0; i < TABLE_SIZE; i++)
        if (strcmp(table[i]->id, id) == 0)
            return table[i];
    return NULL;
}

void tn_scheme_apply(const tn_scheme *scheme, tn_qweight *weight)
{
    weight->granularity = scheme->granularity;
    weight->group = scheme->group;
    weight->low = scheme->low;
    weight->high = scheme->high;
    weight->ternary = scheme->ternary;
    weight->bits = scheme->bits < 2 ? 2 : scheme->bits;
    weight->scheme = scheme->quantizer->id;
}
