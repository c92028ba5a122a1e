#include "cli/option.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the command line needs lives as long as the program. */
typedef struct block {
    struct block *next;
    max_align_t bytes[];
} block;

static block *blocks;

static void free_blocks(void)
{
    while (blocks) {
        block *next = blocks->next;
        free(blocks);
        blocks = next;
    }
}

void *cli_alloc(size_t bytes)
{
    block *made = calloc(1, sizeof *made + bytes);
    if (!made) {
        fputs("ternion: error: out of memory\n", stderr);
        exit(TN_ERROR_LIMIT);
    }
    if (!blocks)
        atexit(free_blocks);
    made->next = blocks;
    blocks = made;
    return made->bytes;
}

void cli_list_add(cli_list *list, const char *item)
{
    const char **items = cli_alloc((list->count + 1) * sizeof *items);
    if (list->count)
        memcpy(items, list->items, list->count * sizeof *items);
    items[list->count++] = item;
    list->items = items;
}

bool cli_list_has(const cli_list *list, const char *item)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->items[i], item) == 0)
            return true;
    return false;
}

bool cli_is_given(const cli_arguments *arguments, const char *name)
{
    return cli_list_has(&arguments->given, name);
}

tn_status cli_fail(tn_error *error, tn_status code, const char *fmt, ...)
{
    if (error->code != TN_OK)
        return code;
    error->code = code;
    va_list args;
    va_start(args, fmt);
    vsnprintf(error->message, sizeof error->message, fmt, args);
    va_end(args);
    return code;
}

bool cli_option_names_equal(const char *a, const char *b)
{
    for (; *a && *b; a++, b++)
        if (*a != *b && !((*a == '-' || *a == '_') && (*b == '-' || *b == '_')))
            return false;
    return *a == *b;
}

bool cli_option_is_choice(const cli_option *option)
{
    return option->choices && !(option->choices[0] >= 'A' && option->choices[0] <= 'Z');
}

static bool is_choice(const char *choices, const char *text)
{
    size_t length = strlen(text);
    for (const char *at = choices; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL)
        if (strncmp(at, text, length) == 0 && (at[length] == '|' || at[length] == '\0'))
            return true;
    return false;
}

static bool parse_bytes(const char *text, uint64_t *bytes)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    int shift = 0;
    if (errno || end == text || text[0] == '-')
        return false;
    if (*end == 'K' || *end == 'k')
        shift = 10;
    else if (*end == 'M' || *end == 'm')
        shift = 20;
    else if (*end == 'G' || *end == 'g')
        shift = 30;
    end += shift != 0;
    if (shift && end[0] == 'i')
        end++;
    if (*end == 'B')
        end++;
    if (*end || value > UINT64_MAX >> shift)
        return false;
    *bytes = (uint64_t)value << shift;
    return true;
}

static bool parse_shape(const char *text, int64_t shape[3])
{
    long long c, h, w;
    int used = 0;
    if (sscanf(text, "%lldx%lldx%lld%n", &c, &h, &w, &used) != 3 || text[used] || c < 1 || h < 1 ||
        w < 1)
        return false;
    shape[0] = c;
    shape[1] = h;
    shape[2] = w;
    return true;
}

static tn_status set_integer(const cli_option *option, const char *where, const char *text,
                             int64_t *value, tn_error *error)
{
    char quoted[128], *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    if (errno || end == text || *end)
        return cli_fail(error, TN_ERROR_USAGE, "%s: expected a whole number, got \"%s\"", where,
                        tn_escape(text, quoted, sizeof quoted));
    if ((option->low || option->high) && (number < option->low || number > option->high))
        return cli_fail(error, TN_ERROR_USAGE, "%s: %lld is not in %lld to %lld", where, number,
                        (long long)option->low, (long long)option->high);
    *value = number;
    return TN_OK;
}

tn_status cli_option_set(const cli_option *option, const char *where, const char *text,
                         cli_arguments *arguments, tn_error *error)
{
    char *member = (char *)arguments + option->offset, quoted[128], *end;
    bool fits = true;
    if (cli_option_is_choice(option) && !is_choice(option->choices, text))
        return cli_fail(error, TN_ERROR_USAGE, "%s: expected one of %s, got \"%s\"", where,
                        option->choices, tn_escape(text, quoted, sizeof quoted));
    switch (option->kind) {
    case CLI_FLAG:
        *(bool *)(void *)member = true;
        break;
    case CLI_TEXT:
        *(const char **)(void *)member = text;
        break;
    case CLI_LIST:
        cli_list_add((cli_list *)(void *)member, text);
        break;
    case CLI_INTEGER: {
        tn_status status = set_integer(option, where, text, (int64_t *)(void *)member, error);
        if (status != TN_OK)
            return status;
        break;
    }
    case CLI_REAL:
        *(double *)(void *)member = strtod(text, &end);
        fits = end != text && !*end;
        break;
    case CLI_BYTES:
        fits = parse_bytes(text, (uint64_t *)(void *)member);
        break;
    case CLI_SHAPE:
        fits = parse_shape(text, (int64_t *)(void *)member);
        break;
    }
    if (!fits)
        return cli_fail(error, TN_ERROR_USAGE, "%s: expected %s, got \"%s\"", where,
                        option->argument, tn_escape(text, quoted, sizeof quoted));
    cli_list_add(&arguments->given, option->name);
    cli_list_add(&arguments->given_text, option->kind == CLI_FLAG ? "true" : text);
    return TN_OK;
}
