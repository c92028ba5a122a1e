#include "core/utf8.h"

int tn_utf8_length(const unsigned char *s, size_t left, uint32_t *code)
{
    static const uint32_t lowest[5] = {0, 0, 0x80, 0x800, 0x10000};
    int length = s[0] < 0x80         ? 1
                 : (s[0] >> 5) == 6  ? 2
                 : (s[0] >> 4) == 14 ? 3
                 : (s[0] >> 3) == 30 ? 4
                                     : 0;
    if (length == 0 || (size_t)length > left)
        return 0;
    uint32_t value = length == 1 ? s[0] : s[0] & (0x7fu >> length);
    for (int i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        value = (value << 6) | (s[i] & 0x3fu);
    }
    if (value < lowest[length] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
        return 0;
    *code = value;
    return length;
}

size_t tn_utf8_check(const unsigned char *text, size_t bytes)
{
    size_t at = 0;
    while (at < bytes) {
        uint32_t code;
        if (text[at] == 0)
            return at;
        if (text[at] < 0x80) {
            at++;
            continue;
        }
        int length = tn_utf8_length(text + at, bytes - at, &code);
        if (length == 0)
            return at;
        at += (size_t)length;
    }
    return at;
}
