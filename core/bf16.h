/* bf16: the upper half of a float's bits. */
#ifndef TERNION_CORE_BF16_H
#define TERNION_CORE_BF16_H

#include "core/portable.h"

#include <stdint.h>
#include <string.h>

TN_BODY float tn_bfloat16_to_float(uint16_t bits)
{
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof(value));
    return value;
}

/* Half to even; NaN stays NaN, subnormal numbers are kept. */
TN_BODY uint16_t tn_float_to_bfloat16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    if (value != value)
        return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

#endif
