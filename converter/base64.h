/* Base64 (RFC 4648) with padding. */
#ifndef TERNION_CONVERTER_BASE64_H
#define TERNION_CONVERTER_BASE64_H

#include <stdbool.h>
#include <stddef.h>

size_t tn_base64_size(size_t bytes); /* with the final NUL */
void tn_base64_encode(const void *data, size_t bytes, char *text);

/* Exactly `bytes` bytes; false when the text is no Base64 of that many. */
bool tn_base64_decode(const char *text, void *data, size_t bytes);

#endif
