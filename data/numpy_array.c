#include "data/numpy_array.h"

#include "core/checked.h"
#include "data/inflate.h"

#include <stdlib.h>
#include <string.h>

enum { HEADER_LIMIT = 10000, TAIL_LIMIT = 65536 + 22, DIRECTORY_LIMIT = 64 << 20 };

static uint64_t little(const unsigned char *at, int bytes)
{
    uint64_t value = 0;
    for (int i = bytes; i > 0; i--)
        value = value << 8 | at[i - 1];
    return value;
}

/* --- zip -------------------------------------------------------------------------------------- */

/* Position and size of the central directory: from the end record, or the 64-bit one before it. */
static tn_status find_directory(const tn_source *source, uint64_t *offset, uint64_t *bytes,
                                tn_error *error)
{
    size_t n = source->size < TAIL_LIMIT ? (size_t)source->size : TAIL_LIMIT;
    unsigned char *tail = tn_alloc(n), wide[56];
    if (!tail)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %s", tn_quote(source->path));
    tn_status status = tn_source_read(source, source->size - n, tail, n, error);
    if (status != TN_OK)
        goto done;
    size_t at = n < 22 ? 0 : n - 22 + 1;
    while (at > 0 && memcmp(tail + at - 1, "PK\5\6", 4) != 0)
        at--;
    if (at == 0) {
        status = tn_fail(error, TN_ERROR_DATA, "%s is no zip archive, or it is cut off",
                         tn_quote(source->path));
        goto done;
    }
    const unsigned char *end = tail + at - 1;
    *bytes = little(end + 12, 4);
    *offset = little(end + 16, 4);
    if (*offset == UINT32_MAX && at - 1 >= 20 && memcmp(end - 20, "PK\6\7", 4) == 0) {
        status = tn_source_read(source, little(end - 20 + 8, 8), wide, sizeof wide, error);
        if (status == TN_OK && memcmp(wide, "PK\6\6", 4) == 0) {
            *bytes = little(wide + 40, 8);
            *offset = little(wide + 48, 8);
        }
    }
    if (status == TN_OK && (*offset > source->size || *bytes > source->size - *offset))
        status = tn_fail(error, TN_ERROR_DATA, "%s: the zip directory lies outside the file",
                         tn_quote(source->path));
    if (status == TN_OK && *bytes > DIRECTORY_LIMIT)
        status = tn_fail(error, TN_ERROR_LIMIT, "%s: a zip directory of %llu bytes",
                         tn_quote(source->path), (unsigned long long)*bytes);
done:
    tn_free(tail);
    return status;
}

/* Sizes of 4 GiB and more stand in the extra field 1, in this order. */
static void read_zip64(const unsigned char *extra, size_t n, uint64_t *bytes, uint64_t *packed,
                       uint64_t *offset)
{
    for (size_t at = 0; at + 4 <= n;) {
        size_t length = (size_t)little(extra + at + 2, 2);
        const unsigned char *field = extra + at + 4;
        if (length > n - at - 4)
            return;
        if (little(extra + at, 2) == 1) {
            uint64_t *wide[3] = {bytes, packed, offset};
            size_t used = 0;
            for (int i = 0; i < 3; i++)
                if (*wide[i] == UINT32_MAX && used + 8 <= length) {
                    *wide[i] = little(field + used, 8);
                    used += 8;
                }
        }
        at += 4 + length;
    }
}

static tn_status member_place(const tn_source *source, const unsigned char *entry, size_t name,
                              size_t extra, tn_numpy_place *place, tn_error *error)
{
    unsigned char local[30];
    uint64_t packed = little(entry + 20, 4), bytes = little(entry + 24, 4);
    uint64_t offset = little(entry + 42, 4);
    uint64_t method = little(entry + 10, 2);
    read_zip64(entry + 46 + name, extra, &bytes, &packed, &offset);
    if ((little(entry + 8, 2) & 1) || (method != 0 && method != 8))
        return tn_fail(error, TN_ERROR_DATA,
                       "%s: a member is encrypted or packed with method %llu; np.savez and "
                       "np.savez_compressed write what is read",
                       tn_quote(source->path), (unsigned long long)method);
    tn_status status = tn_source_read(source, offset, local, sizeof local, error);
    if (status != TN_OK)
        return status;
    uint64_t start = offset + 30 + little(local + 26, 2) + little(local + 28, 2);
    if (memcmp(local, "PK\3\4", 4) != 0 || start > source->size || packed > source->size - start ||
        (method == 0 && packed != bytes) || bytes / TN_DEFLATE_MAX_RATIO > packed)
        return tn_fail(error, TN_ERROR_DATA,
                       "%s: a member claims %llu bytes in %llu packed ones, which cannot be",
                       tn_quote(source->path), (unsigned long long)bytes,
                       (unsigned long long)packed);
    *place = (tn_numpy_place){start, packed, bytes, method == 8};
    return TN_OK;
}

tn_status tn_npz_find(const tn_source *source, const char *name, tn_numpy_place *place, bool *found,
                      tn_error *error)
{
    uint64_t offset = 0, bytes = 0;
    size_t wanted = strlen(name);
    tn_status status = find_directory(source, &offset, &bytes, error);
    if (status != TN_OK)
        return status;
    unsigned char *directory = tn_alloc((size_t)bytes);
    if (!directory)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %s", tn_quote(source->path));
    status = tn_source_read(source, offset, directory, (size_t)bytes, error);
    *found = false;
    for (size_t at = 0; status == TN_OK && !*found && at + 46 <= bytes;) {
        const unsigned char *entry = directory + at;
        size_t n = (size_t)little(entry + 28, 2), extra = (size_t)little(entry + 30, 2);
        size_t size = 46 + n + extra + (size_t)little(entry + 32, 2);
        if (memcmp(entry, "PK\1\2", 4) != 0 || size > bytes - at) {
            status = tn_fail(error, TN_ERROR_DATA, "%s: the zip directory is broken",
                             tn_quote(source->path));
            break;
        }
        if (n == wanted + 4 && memcmp(entry + 46, name, wanted) == 0 &&
            memcmp(entry + 46 + wanted, ".npy", 4) == 0) {
            status = member_place(source, entry, n, extra, place, error);
            *found = status == TN_OK;
        }
        at += size;
    }
    tn_free(directory);
    return status;
}

/* --- npy -------------------------------------------------------------------------------------- */

static tn_status read_at(const tn_source *source, const tn_numpy_place *place, bool whole,
                         void *dst, size_t bytes, tn_error *error)
{
    if (bytes > place->bytes)
        return tn_fail(error, TN_ERROR_DATA, "%s: an array is cut off", tn_quote(source->path));
    return place->deflated ? tn_inflate(source, place->offset, place->packed, TN_DEFLATE_RAW, whole,
                                        dst, bytes, error)
                           : tn_source_read(source, place->offset, dst, bytes, error);
}

/* The text behind 'key': in the header's dict; NULL when absent. */
static const char *find_key(const char *text, const char *key)
{
    char quoted[32];
    const char *at;
    size_t n = strlen(key);
    for (int style = 0; style < 2; style++) {
        quoted[0] = quoted[n + 1] = style ? '"' : '\'';
        memcpy(quoted + 1, key, n);
        quoted[n + 2] = 0;
        at = strstr(text, quoted);
        if (at) {
            at += n + 2;
            at += strspn(at, " ");
            return *at == ':' ? at + 1 + strspn(at + 1, " ") : NULL;
        }
    }
    return NULL;
}

static tn_dtype parse_descr(const char *at)
{
    static const struct {
        const char *name;
        tn_dtype dtype;
    } types[] = {{"u1", TN_UINT8}, {"i1", TN_INT8},    {"b1", TN_BOOL},  {"u2", TN_UINT16},
                 {"i2", TN_INT16}, {"u4", TN_UINT32},  {"i4", TN_INT32}, {"u8", TN_UINT64},
                 {"i8", TN_INT64}, {"f2", TN_FLOAT16}, {"f4", TN_FLOAT}, {"f8", TN_DOUBLE}};
    if (!at || (*at != '\'' && *at != '"') || strlen(at) < 5 || at[4] != at[0])
        return TN_UNDEFINED;
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (strncmp(at + 2, types[i].name, 2) == 0 &&
            (at[1] == '<' || (at[3] == '1' && strchr("|>=", at[1]))))
            return types[i].dtype;
    return TN_UNDEFINED;
}

static bool parse_shape(const char *at, tn_numpy_array *array)
{
    if (!at || *at++ != '(')
        return false;
    array->rank = 0;
    for (;;) {
        at += strspn(at, " ,");
        if (*at == ')')
            return true;
        char *end;
        if (*at < '0' || *at > '9' || array->rank == TN_MAX_RANK)
            return false;
        unsigned long long value = strtoull(at, &end, 10);
        if (end == at || value > SIZE_MAX / 2)
            return false;
        array->dims[array->rank++] = (size_t)value;
        at = end;
        if (*at == 'L')
            at++;
    }
}

static tn_status parse_header(const char *text, tn_numpy_array *array, const char *path,
                              tn_error *error)
{
    const char *descr = find_key(text, "descr"), *fortran = find_key(text, "fortran_order");
    array->dtype = parse_descr(descr);
    if (array->dtype == TN_UNDEFINED)
        return tn_fail(error, TN_ERROR_DATA,
                       "%s: an array of type %.12s; little-endian numbers are read (objects, "
                       "structures and strings never)",
                       tn_quote(path), tn_quote(descr ? descr : "?"));
    if (!fortran || strncmp(fortran, "False", 5) != 0)
        return tn_fail(error, TN_ERROR_DATA,
                       "%s: an array in Fortran order: save np.ascontiguousarray of it",
                       tn_quote(path));
    if (!parse_shape(find_key(text, "shape"), array))
        return tn_fail(error, TN_ERROR_DATA, "%s: the array's shape cannot be read",
                       tn_quote(path));
    return TN_OK;
}

tn_status tn_numpy_open(const tn_source *source, const tn_numpy_place *place, tn_numpy_array *array,
                        tn_error *error)
{
    unsigned char head[12 + HEADER_LIMIT + 1];
    tn_numpy_array a = {.place =
                            place ? *place : (tn_numpy_place){0, source->size, source->size, 0}};
    tn_status status = read_at(source, &a.place, false, head, 12, error);
    if (status != TN_OK)
        return status;
    if (memcmp(head, "\x93NUMPY", 6) != 0 || head[6] < 1 || head[6] > 3)
        return tn_fail(error, TN_ERROR_DATA, "%s holds no NumPy array", tn_quote(source->path));
    size_t fixed = head[6] == 1 ? 10 : 12, length = (size_t)little(head + 8, head[6] == 1 ? 2 : 4);
    if (length > HEADER_LIMIT)
        return tn_fail(error, TN_ERROR_DATA,
                       "%s: an array header of %zu bytes; at most %d are read",
                       tn_quote(source->path), length, HEADER_LIMIT);
    a.header = fixed + length;
    status = read_at(source, &a.place, false, head, a.header, error);
    if (status != TN_OK)
        return status;
    head[a.header] = 0;
    status = parse_header((const char *)head + fixed, &a, source->path, error);
    if (status != TN_OK)
        return status;
    size_t count = 1;
    bool fits = true;
    for (int i = 0; i < a.rank; i++)
        fits = fits && tn_checked_mul_size(count, a.dims[i], &count);
    if (!fits || !tn_dtype_bytes(a.dtype, count, &a.elements) ||
        a.elements != a.place.bytes - a.header)
        return tn_fail(error, TN_ERROR_DATA,
                       "%s: an array's header promises more or less than the %llu bytes there are",
                       tn_quote(source->path), (unsigned long long)(a.place.bytes - a.header));
    *array = a;
    return TN_OK;
}

tn_status tn_numpy_load(const tn_source *source, const tn_numpy_array *array,
                        unsigned char **elements, tn_error *error)
{
    unsigned char *bytes = tn_alloc(array->header + array->elements);
    if (!bytes)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for an array of %zu bytes in %s",
                       array->elements, tn_quote(source->path));
    tn_status status =
        read_at(source, &array->place, true, bytes, array->header + array->elements, error);
    if (status != TN_OK) {
        tn_free(bytes);
        return status;
    }
    memmove(bytes, bytes + array->header, array->elements);
    *elements = bytes;
    return TN_OK;
}
