#include "data/label_list.h"

#include "data/picture_files.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { FILE_LIMIT = 1 << 30, MAX_CLASSES = 1000000 };

/* Cuts the next column off *rest, in place; NULL at the end of the line. */
static char *next_column(char **rest, char separator)
{
    char *at = *rest, *start;
    if (!at)
        return NULL;
    at += strspn(at, " \t");
    if (separator == ',' && *at == '"') {
        char *to = start = ++at;
        for (; *at && !(at[0] == '"' && at[1] != '"'); at++) {
            at += at[0] == '"'; /* "" stands for " */
            *to++ = *at;
        }
        if (*at)
            at++;
        at += strcspn(at, ",");
        *rest = *at ? at + 1 : NULL;
        *to = 0;
        return start;
    }
    start = at;
    at += separator == ',' ? strcspn(at, ",") : strcspn(at, " \t");
    *rest = *at ? at + 1 : NULL;
    *at = 0;
    return *start || separator == ',' ? start : NULL;
}

/* A CSV's first line is a header if its path column does not look like a path but the next does,
 * or if it has one of the usual titles. */
static bool is_header(const char *path)
{
    static const char *const titles[] = {"path", "file",     "filename", "file_name", "image",
                                         "name", "image_id", "imageid",  "id"};
    for (size_t i = 0; i < sizeof titles / sizeof titles[0]; i++)
        if (strcasecmp(path, titles[i]) == 0)
            return true;
    return false;
}

/* "n03995372 85 1 499 272": a class and the box of what is to be seen. */
static bool is_box(const char *text)
{
    for (int i = 0; i < 4; i++) {
        char *end;
        strtol(text, &end, 10);
        if (end == text || (*end && *end != ' '))
            return false;
        text = end;
    }
    return true;
}

/* A CSV's class without boxes and blanks behind it, in place; names may have blanks inside. */
static void trim_label(char *label)
{
    size_t length = strlen(label), first = strcspn(label, " \t");
    while (length > 0 && (label[length - 1] == ' ' || label[length - 1] == '\t'))
        label[--length] = 0;
    if (first < length && is_box(label + first))
        label[first] = 0;
}

static tn_status add_line(tn_dataset *dataset, tn_label_list *list, char *line, size_t number,
                          char separator, tn_error *error)
{
    char *rest = line;
    char *path = next_column(&rest, separator), *label = next_column(&rest, separator);
    if (path && !*path)
        path = NULL;
    if (separator == ',' && number == 1 && path && is_header(path))
        return TN_OK;
    if (separator == ',' && label)
        trim_label(label);
    if (!path || !label || !*label)
        return tn_fail(error, TN_ERROR_DATA, "%s, line %zu: a path and a class are expected%s",
                       tn_quote(list->file), number,
                       path && !label
                           ? " (numbers alone are ILSVRC ids, which count the classes in "
                             "another order than their sorted names)"
                           : "");
    tn_label_row *row = &list->rows[list->count++];
    row->line = number;
    row->path = tn_arena_strdup(&dataset->arena, path);
    row->label = tn_arena_strdup(&dataset->arena, label);
    if (!row->path || !row->label)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %s", tn_quote(list->file));
    return TN_OK;
}

tn_status tn_label_list_read(tn_dataset *dataset, const char *file, char separator,
                             tn_label_list *list, tn_error *error)
{
    unsigned char *text = NULL;
    size_t size, lines = 1;
    tn_label_list read = {.file = file};
    tn_status status = tn_source_read_all(file, FILE_LIMIT, &text, &size, error);
    if (status != TN_OK)
        return status;
    if (memchr(text, 0, size)) {
        status = tn_fail(error, TN_ERROR_DATA, "%s is no text file", tn_quote(file));
        goto done;
    }
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    read.rows = tn_arena_array(&dataset->arena, lines, sizeof *read.rows);
    read.labels = tn_arena_array(&dataset->arena, lines, sizeof *read.labels);
    if (!read.rows || !read.labels) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu lines of %s", lines,
                         tn_quote(file));
        goto done;
    }
    const bool marked = size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0; /* UTF-8 of Excel */
    char *rest = (char *)text + (marked ? 3 : 0);
    size_t number = 0;
    for (char *line; status == TN_OK && (line = strsep(&rest, "\n"));) {
        number++;
        line[strcspn(line, "\r")] = 0;
        if (line[strspn(line, " \t")])
            status = add_line(dataset, &read, line, number, separator, error);
    }
    if (status == TN_OK)
        *list = read;
done:
    tn_free(text);
    return status;
}

/* A whole number; "7.0" is one, for a column with a gap in it is written so. */
static bool parse_number(const char *text, int32_t *label)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text)
        return false;
    if (end[0] == '.' && end[1] == '0')
        end += 1 + strspn(end + 1, "0");
    *label = value < -1 ? -1 : value > MAX_CLASSES ? MAX_CLASSES : (int32_t)value;
    return *end == 0;
}

/* How many labels from the first on are numbers as the first is, or names as it is. */
static size_t count_alike(const tn_label_list *list, bool *numbers)
{
    int32_t label;
    size_t n = 1;
    *numbers = parse_number(list->rows[0].label, &label);
    while (n < list->count && parse_number(list->rows[n].label, &label) == *numbers)
        n++;
    return n;
}

static tn_status take_numbers(tn_label_list *list, tn_error *error)
{
    int32_t least = INT32_MAX, most = INT32_MIN;
    for (size_t i = 0; i < list->count; i++) {
        parse_number(list->rows[i].label, &list->labels[i]);
        least = list->labels[i] < least ? list->labels[i] : least;
        most = list->labels[i] > most ? list->labels[i] : most;
    }
    if (least < 0 || most >= MAX_CLASSES)
        return tn_fail(error, TN_ERROR_DATA,
                       "%s holds the label %d; classes are numbered from 0 to %d",
                       tn_quote(list->file), least < 0 ? least : most, MAX_CLASSES - 1);
    if (least == 1 && list->count > 1 && most > 1)
        return tn_fail(error, TN_ERROR_DATA,
                       "the labels of %s run from 1 to %d, but classes are numbered from 0; "
                       "ILSVRC ids also have another order than the sorted class names",
                       tn_quote(list->file), most);
    list->classes = most + 1;
    return TN_OK;
}

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int32_t tn_listing_find(const tn_listing *listing, const char *name)
{
    for (size_t lo = 0, hi = listing->count; lo < hi;) {
        size_t mid = (lo + hi) / 2;
        int order = strcmp(listing->names[mid], name);
        if (order == 0)
            return (int32_t)mid;
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return TN_NO_LABEL;
}

/* The different labels of the list, sorted. */
static tn_status collect_classes(tn_dataset *dataset, const tn_label_list *list,
                                 tn_listing *classes, tn_error *error)
{
    const char **names = tn_arena_array(&dataset->arena, list->count, sizeof *names);
    if (!names)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the classes of %s",
                       tn_quote(list->file));
    for (size_t i = 0; i < list->count; i++)
        names[i] = list->rows[i].label;
    qsort(names, list->count, sizeof *names, compare_text);
    size_t n = 0;
    for (size_t i = 0; i < list->count; i++)
        if (n == 0 || strcmp(names[n - 1], names[i]) != 0)
            names[n++] = names[i];
    *classes = (tn_listing){names, NULL, n};
    return TN_OK;
}

tn_status tn_label_list_resolve(tn_dataset *dataset, tn_label_list *list, const tn_listing *known,
                                tn_error *error)
{
    bool numbers;
    tn_listing own = {0};
    if (list->count == 0)
        return tn_fail(error, TN_ERROR_DATA, "the list %s is empty", tn_quote(list->file));
    const size_t alike = count_alike(list, &numbers);
    if (alike == list->count && numbers)
        return take_numbers(list, error);
    if (alike < list->count && !known)
        return tn_fail(error, TN_ERROR_DATA,
                       "%s, line %zu: the class %s is %s, those before are %s: give all classes as "
                       "names, or all as numbers from 0",
                       tn_quote(list->file), list->rows[alike].line,
                       tn_quote(list->rows[alike].label), numbers ? "a name" : "a number",
                       numbers ? "numbers" : "names");
    if (!known) {
        tn_status status = collect_classes(dataset, list, &own, error);
        if (status != TN_OK)
            return status;
        known = &own;
    }
    for (size_t i = 0; i < list->count; i++) {
        list->labels[i] = tn_listing_find(known, list->rows[i].label);
        if (list->labels[i] < 0)
            return tn_fail(error, TN_ERROR_DATA,
                           "%s: the class %s of %s is not among the %zu known",
                           tn_quote(list->file), tn_quote(list->rows[i].label),
                           tn_quote(list->rows[i].path), known->count);
    }
    list->classes = (int)known->count;
    list->class_names = known->names;
    return TN_OK;
}

tn_status tn_label_list_add_files(tn_dataset *dataset, const tn_label_list *list,
                                  const char *folder, tn_error *error)
{
    tn_arena *arena = &dataset->arena;
    for (size_t i = 0; i < list->count; i++) {
        const char *path = list->rows[i].path;
        if (!tn_path_is_image(path)) {
            char *longer = tn_arena_alloc(arena, strlen(path) + 6);
            if (longer)
                strcat(strcpy(longer, path), ".JPEG");
            path = longer;
        }
        if (path && *folder && path[0] != '/')
            path = tn_path_join(arena, folder, path);
        if (!path)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for file names");
        tn_status status = tn_picture_files_add(dataset, path, list->labels[i], error);
        if (status != TN_OK)
            return status;
    }
    tn_picture_files_finish(dataset, list->classes, list->class_names);
    return TN_OK;
}
