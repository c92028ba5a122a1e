#include "core/status.h"

#include "core/utf8.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

tn_status tn_error_set(tn_error *error, tn_status code, const char *file, int line, const char *fmt,
                       ...)
{
    if (!error || error->code != TN_OK)
        return code;
    error->code = code;
    error->file = file;
    error->line = line;
    error->node[0] = '\0';
    va_list args;
    va_start(args, fmt);
    vsnprintf(error->message, sizeof error->message, fmt, args);
    va_end(args);
    return code;
}

void tn_error_prepend(tn_error *error, const char *fmt, ...)
{
    if (!error || error->code == TN_OK)
        return;
    char text[sizeof error->message];
    va_list args;
    va_start(args, fmt);
    int used = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (used < 0 || (size_t)used + 3 > sizeof text)
        return;
    snprintf(text + used, sizeof text - (size_t)used, ": %.*s",
             (int)(sizeof text - (size_t)used - 3), error->message);
    memcpy(error->message, text, sizeof text);
}

void tn_error_note_node(tn_error *error, const char *node)
{
    if (error && error->code != TN_OK && error->node[0] == '\0' && node)
        snprintf(error->node, sizeof error->node, "%s", node);
}

void tn_error_clear(tn_error *error)
{
    if (error)
        memset(error, 0, sizeof *error);
}

static int is_printable(uint32_t code)
{
    if (code < 0x20 || code == 0x7f || (code >= 0x80 && code < 0xa0))
        return 0;
    /* zero-width, bidirectional and line controls could disguise a name on a terminal */
    return !((code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) ||
             (code >= 0x2066 && code <= 0x2069) || code == 0x061c || code == 0xfeff);
}

const char *tn_quote(const char *name)
{
    enum { SIZE = 128, COUNT = 8 };
    static _Thread_local char ring[COUNT][SIZE];
    static _Thread_local int next;
    if (!name)
        return "(unnamed)";
    char *text = ring[next];
    next = (next + 1) % COUNT;
    size_t used = 0;
    text[used++] = '\'';
    const unsigned char *s = (const unsigned char *)name;
    while (*s) {
        if (used > SIZE - 16) {
            memcpy(text + used, "...", 3);
            used += 3;
            break;
        }
        uint32_t code = 0;
        int length = tn_utf8_length(s, 4, &code); /* a NUL ends a sequence too */
        if (length > 0 && is_printable(code)) {
            memcpy(text + used, s, (size_t)length);
            used += (size_t)length;
        } else if (length > 1) {
            used += (size_t)snprintf(text + used, SIZE - used, "\\u{%x}", (unsigned)code);
        } else {
            used += (size_t)snprintf(text + used, SIZE - used, "\\x%02x", (unsigned)*s);
        }
        s += length > 0 ? length : 1;
    }
    text[used++] = '\'';
    text[used] = '\0';
    return text;
}
