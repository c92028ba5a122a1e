/* UTF-8 as Unicode defines it: shortest form, no surrogates, at most U+10FFFF. */
#ifndef TERNION_CORE_UTF8_H
#define TERNION_CORE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Length (1 to 4) of the valid sequence at s, which has at most `left` bytes (>= 1); *code is its
 * code point. 0 when it is not one. */
int tn_utf8_length(const unsigned char *s, size_t left, uint32_t *code);

/* Offset of the first byte that is NUL or not valid UTF-8; `bytes` when there is none. */
size_t tn_utf8_check(const unsigned char *text, size_t bytes);

#endif
