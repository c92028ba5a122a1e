#include "onnx_io/external.h"

#include "onnx_io/model_store.h"
#include "onnx_io/walk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The entries of TensorProto.external_data. */
typedef struct reference {
    const char *location, *offset_text, *length_text, *checksum;
    uint64_t offset, length; /* of what the file says; length only with length_text */
} reference;

typedef struct resolver {
    tn_model *model;
    bool allow_symlinks;
    int folder;
    tn_names files; /* location -> struct tn_model_map */
} resolver;

static tn_status bad(const Onnx__TensorProto *tensor, const char *what, const char *value,
                     tn_error *error)
{
    return tn_fail(error, TN_ERROR_MODEL, "external data of tensor %s: %s %s",
                   tn_quote(tensor->name), what, value ? tn_quote(value) : "");
}

/* Decimal digits alone, below 2^63. */
static bool parse_number(const char *text, uint64_t *value)
{
    size_t length = strlen(text);
    if (length == 0 || length > 18 || strspn(text, "0123456789") != length)
        return false;
    *value = strtoull(text, NULL, 10);
    return true;
}

static tn_status parse(const Onnx__TensorProto *tensor, reference *ref, tn_error *error)
{
    const struct {
        const char *key;
        const char **value;
    } keys[] = {{"location", &ref->location},
                {"offset", &ref->offset_text},
                {"length", &ref->length_text},
                {"checksum", &ref->checksum}};
    *ref = (reference){0};
    for (size_t i = 0; i < tensor->n_external_data; i++) {
        const char *key = tn_text(tensor->external_data[i]->key);
        size_t k = 0;
        while (k < 4 && strcmp(keys[k].key, key) != 0)
            k++;
        if (k == 4)
            return bad(tensor, "unknown key", key, error);
        if (*keys[k].value)
            return bad(tensor, "this key comes twice:", key, error);
        *keys[k].value = tn_text(tensor->external_data[i]->value);
    }
    if (!ref->location || !ref->location[0])
        return bad(tensor, "there is no location", NULL, error);
    if (ref->offset_text && !parse_number(ref->offset_text, &ref->offset))
        return bad(tensor, "the offset is not a number:", ref->offset_text, error);
    if (ref->length_text && !parse_number(ref->length_text, &ref->length))
        return bad(tensor, "the length is not a number:", ref->length_text, error);
    return TN_OK;
}

/* Relative, and no empty, "." or ".." component. */
static bool stays_inside(const char *location)
{
    while (true) {
        size_t length = strcspn(location, "/");
        if (length == 0 || (length == 1 && location[0] == '.') ||
            (length == 2 && location[0] == '.' && location[1] == '.'))
            return false;
        if (!location[length])
            return true;
        location += length + 1;
    }
}

enum { OPEN_FLAGS = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY };

/* openat2 by hand: one component after the other, following no link. */
static int open_by_component(int folder, const char *location)
{
    char component[256];
    int at = folder, next = -1;
    while (true) {
        size_t length = strcspn(location, "/");
        bool is_last = !location[length];
        errno = ENAMETOOLONG;
        if (length < sizeof component) {
            memcpy(component, location, length);
            component[length] = '\0';
            next = openat(at, component,
                          is_last ? OPEN_FLAGS | O_NOFOLLOW
                                  : O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        } else {
            next = -1;
        }
        int reason = errno;
        if (at != folder)
            close(at);
        errno = reason;
        if (next < 0 || is_last)
            return next;
        at = next;
        location += length + 1;
    }
}

static int open_beneath(int folder, const char *location)
{
    struct open_how how = {.flags = OPEN_FLAGS,
                           .resolve =
                               RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    long descriptor = syscall(SYS_openat2, folder, location, &how, sizeof how);
    if (descriptor >= 0)
        return (int)descriptor;
    if (errno == ENOSYS || errno == EPERM || errno == EINVAL || errno == E2BIG)
        return open_by_component(folder, location);
    return -1;
}

tn_status tn_external_open(int folder, const char *location, bool allow_symlinks, int *descriptor,
                           tn_error *error)
{
    struct stat info;
    if (!stays_inside(location))
        return tn_fail(error, TN_ERROR_MODEL,
                       "the location %s is not a plain path inside the model's folder",
                       tn_quote(location));
    int result =
        allow_symlinks ? openat(folder, location, OPEN_FLAGS) : open_beneath(folder, location);
    if (result < 0 && (errno == ELOOP || errno == EXDEV || errno == ENOTDIR))
        return tn_fail(error, TN_ERROR_IO,
                       "%s is reached through a symbolic link: copy the file beside the model, or "
                       "allow links with --allow-symlinks",
                       tn_quote(location));
    if (result < 0)
        return tn_fail(error, TN_ERROR_IO, "cannot open %s: %s", tn_quote(location),
                       strerror(errno));
    tn_status status = TN_OK;
    if (fstat(result, &info) != 0 || !S_ISREG(info.st_mode))
        status = tn_fail(error, TN_ERROR_IO, "%s is not a regular file", tn_quote(location));
    else if (info.st_nlink > 1 && !allow_symlinks)
        status = tn_fail(error, TN_ERROR_IO,
                         "%s is a hard link to a file that has other names: copy it, or allow "
                         "links with --allow-symlinks",
                         tn_quote(location));
    if (status != TN_OK)
        close(result);
    else
        *descriptor = result;
    return status;
}

static tn_status out_of_memory(tn_error *error)
{
    return tn_fail(error, TN_ERROR_LIMIT, "out of memory reading external data");
}

/* The folder of the model, opened once. */
static tn_status open_folder(resolver *r, tn_error *error)
{
    const char *path = r->model->path, *slash = strrchr(path, '/');
    if (!path[0])
        return tn_fail(error, TN_ERROR_MODEL,
                       "a model without a file of its own cannot have external data");
    char *folder = slash ? tn_strdup(path) : tn_strdup(".");
    if (!folder)
        return out_of_memory(error);
    if (slash)
        folder[slash == path ? 1 : slash - path] = '\0';
    r->folder = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    tn_status status = TN_OK;
    if (r->folder < 0)
        status = tn_fail(error, TN_ERROR_IO, "cannot open the folder %s: %s", tn_quote(folder),
                         strerror(errno));
    tn_free(folder);
    return status;
}

static tn_status find_file(resolver *r, const char *location, const tn_file_map **map,
                           tn_error *error)
{
    struct tn_model_map *known = tn_names_get(&r->files, location);
    if (known) {
        *map = &known->map;
        return TN_OK;
    }
    int descriptor = -1;
    tn_file_map opened;
    tn_status status = r->folder >= 0 ? TN_OK : open_folder(r, error);
    if (status == TN_OK)
        status = tn_external_open(r->folder, location, r->allow_symlinks, &descriptor, error);
    if (status != TN_OK)
        return status;
    status = tn_file_map_descriptor(descriptor, location, &opened, error);
    close(descriptor);
    if (status != TN_OK)
        return status;
    if (!tn_model_keep_map(r->model, &opened, false)) {
        tn_file_map_close(&opened);
        return out_of_memory(error);
    }
    *map = &r->model->store->maps->map;
    return tn_names_set(&r->files, location, r->model->store->maps) ? TN_OK : out_of_memory(error);
}

static tn_status resolve(void *context, Onnx__TensorProto *tensor, tn_error *error)
{
    resolver *r = context;
    reference ref;
    const tn_file_map *map = NULL;
    int64_t count = 0;
    size_t bytes = 0;
    if (!tensor->has_data_location ||
        tensor->data_location != ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL)
        return tensor->n_external_data == 0
                   ? TN_OK
                   : bad(tensor, "it is named, but data_location is not EXTERNAL", NULL, error);
    if (tensor->has_raw_data)
        return bad(tensor, "the tensor has data of its own too", NULL, error);
    tn_status status = parse(tensor, &ref, error);
    if (status != TN_OK)
        return status;
    if (tensor->n_dims > TN_MAX_RANK || !tn_dims_count((int)tensor->n_dims, tensor->dims, &count) ||
        !tn_dtype_bytes((tn_dtype)tensor->data_type, (uint64_t)count, &bytes))
        return bad(tensor, "the tensor's type or shape is not valid", NULL, error);
    if (ref.length_text && ref.length != bytes)
        return tn_fail(error, TN_ERROR_MODEL,
                       "external data of tensor %s: length is %" PRIu64
                       ", type and shape need %zu bytes",
                       tn_quote(tensor->name), ref.length, bytes);
    status = find_file(r, ref.location, &map, error);
    if (status != TN_OK) {
        tn_error_prepend(error, "external data of tensor %s", tn_quote(tensor->name));
        return status;
    }
    if (ref.offset > map->size || bytes > map->size - ref.offset)
        return tn_fail(error, TN_ERROR_IO,
                       "external data of tensor %s: bytes %" PRIu64 " to %" PRIu64
                       " are wanted, but %s has %zu",
                       tn_quote(tensor->name), ref.offset, ref.offset + bytes,
                       tn_quote(ref.location), map->size);
    tensor->has_raw_data = 1; /* borrowed, never written through */
    tensor->raw_data.len = bytes;
    tensor->raw_data.data = bytes ? (uint8_t *)(uintptr_t)(map->data + ref.offset) : NULL;
    tensor->n_external_data = 0;
    tensor->external_data = NULL;
    tensor->has_data_location = 0;
    return TN_OK;
}

tn_status tn_external_resolve(tn_model *model, bool allow_symlinks, tn_error *error)
{
    resolver r = {.model = model, .allow_symlinks = allow_symlinks, .folder = -1};
    tn_names_init(&r.files);
    tn_status status = tn_walk_tensors(&model->proto->base, resolve, &r, error);
    tn_names_done(&r.files);
    if (r.folder >= 0)
        close(r.folder);
    return status;
}
