#include "converter/base64.h"

#include <stdint.h>
#include <string.h>

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

size_t tn_base64_size(size_t bytes)
{
    return (bytes + 2) / 3 * 4 + 1;
}

void tn_base64_encode(const void *data, size_t bytes, char *text)
{
    const unsigned char *in = data;
    for (size_t i = 0; i < bytes; i += 3) {
        size_t n = bytes - i < 3 ? bytes - i : 3;
        uint32_t word = (uint32_t)in[i] << 16 | (n > 1 ? (uint32_t)in[i + 1] << 8 : 0) |
                        (n > 2 ? in[i + 2] : 0);
        for (size_t k = 0; k < 4; k++)
            *text++ = k <= n ? digits[word >> (18 - 6 * k) & 63] : '=';
    }
    *text = '\0';
}

bool tn_base64_decode(const char *text, void *data, size_t bytes)
{
    unsigned char *out = data;
    if (strlen(text) != tn_base64_size(bytes) - 1)
        return false;
    for (size_t i = 0; i < bytes; i += 3, text += 4) {
        size_t n = bytes - i < 3 ? bytes - i : 3;
        uint32_t word = 0;
        for (size_t k = 0; k < 4; k++) {
            const char *digit = k <= n ? strchr(digits, text[k]) : digits;
            if (!digit || (k > n && text[k] != '='))
                return false;
            word = word << 6 | (uint32_t)(digit - digits);
        }
        for (size_t k = 0; k < n; k++)
            out[i + k] = (unsigned char)(word >> (16 - 8 * k));
    }
    return true;
}
