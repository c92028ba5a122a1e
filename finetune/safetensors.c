#include "finetune/safetensors.h"

#include "core/checked.h"
#include "core/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

static const char checksum_key[] = "xxh3_128";
enum { HEX_LENGTH = 32, LARGEST_HEADER = 100 << 20 };

static const struct {
    const char *name;
    tn_dtype dtype;
} type_names[] = {{"F32", TN_FLOAT}, {"F64", TN_DOUBLE}, {"F16", TN_FLOAT16}, {"BF16", TN_BFLOAT16},
                  {"I8", TN_INT8},   {"U8", TN_UINT8},   {"I16", TN_INT16},   {"U16", TN_UINT16},
                  {"I32", TN_INT32}, {"U32", TN_UINT32}, {"I64", TN_INT64},   {"U64", TN_UINT64},
                  {"BOOL", TN_BOOL}};
enum { N_TYPES = sizeof type_names / sizeof *type_names };

static const char *type_name(tn_dtype dtype)
{
    for (int i = 0; i < N_TYPES; i++)
        if (type_names[i].dtype == dtype)
            return type_names[i].name;
    return NULL;
}

static tn_dtype type_of(const char *name)
{
    for (int i = 0; name && i < N_TYPES; i++)
        if (!strcmp(type_names[i].name, name))
            return type_names[i].dtype;
    return TN_UNDEFINED;
}

static void hex_digest(XXH3_state_t *hash, char *text)
{
    XXH128_hash_t digest = XXH3_128bits_digest(hash);
    snprintf(text, HEX_LENGTH + 1, "%016" PRIx64 "%016" PRIx64, (uint64_t)digest.high64,
             (uint64_t)digest.low64);
}

static json_t *describe(const tn_named_tensor *named, size_t offset)
{
    json_t *shape = json_array();
    for (int i = 0; shape && i < named->tensor.rank; i++)
        if (json_array_append_new(shape, json_integer(named->tensor.dims[i])))
            goto fail;
    return json_pack("{s:s, s:o, s:[I,I]}", "dtype", type_name(named->tensor.dtype), "shape", shape,
                     "data_offsets", (json_int_t)offset,
                     (json_int_t)(offset + named->tensor.bytes));
fail:
    json_decref(shape);
    return NULL;
}

/* The header without the checksum's digits, which are zeros in it: their place is filled later. */
static tn_status make_header(const tn_named_tensor *tensors, size_t count, const json_t *metadata,
                             char **text, tn_error *error)
{
    tn_status status = TN_ERROR_LIMIT;
    json_t *header = json_object(), *strings = metadata ? json_deep_copy(metadata) : json_object();
    char zeros[HEX_LENGTH + 1];
    memset(zeros, '0', HEX_LENGTH);
    zeros[HEX_LENGTH] = '\0';
    size_t offset = 0;
    if (!header || !strings || json_object_set_new(strings, checksum_key, json_string(zeros)) ||
        json_object_set(header, "__metadata__", strings))
        goto done;
    for (size_t i = 0; i < count; i++) {
        if (!type_name(tensors[i].tensor.dtype)) {
            status = tn_fail(error, TN_ERROR_USAGE, "tensor %s: safetensors has no type %s",
                             tn_quote(tensors[i].name), tn_dtype_name(tensors[i].tensor.dtype));
            goto done;
        }
        if (json_object_get(header, tensors[i].name)) {
            status = tn_fail(error, TN_ERROR_USAGE, "two tensors of a checkpoint are called %s",
                             tn_quote(tensors[i].name));
            goto done;
        }
        if (json_object_set_new(header, tensors[i].name, describe(&tensors[i], offset)))
            goto done;
        offset += tensors[i].tensor.bytes;
    }
    *text = json_dumps(header, JSON_COMPACT);
    status = *text ? TN_OK : TN_ERROR_LIMIT;
done:
    json_decref(header);
    json_decref(strings);
    if (status == TN_ERROR_LIMIT)
        tn_fail(error, TN_ERROR_LIMIT, "out of memory for a checkpoint's header");
    return status;
}

static void fill_checksum(char *header, size_t length, const tn_named_tensor *tensors, size_t count,
                          XXH3_state_t *hash)
{
    XXH3_128bits_reset(hash);
    XXH3_128bits_update(hash, header, length);
    for (size_t i = 0; i < count; i++)
        XXH3_128bits_update(hash, tensors[i].tensor.data, tensors[i].tensor.bytes);
    char digits[HEX_LENGTH + 1];
    hex_digest(hash, digits);
    char *key = strstr(header, checksum_key);
    if (key) /* "xxh3_128":"000... */
        memcpy(key + sizeof checksum_key - 1 + 3, digits, HEX_LENGTH);
}

tn_status tn_safetensors_write(const char *path, const tn_named_tensor *tensors, size_t count,
                               const json_t *metadata, tn_error *error)
{
    char *header = NULL, *padded = NULL;
    tn_file_writer *writer = NULL;
    XXH3_state_t *hash = XXH3_createState();
    tn_status status = hash ? make_header(tensors, count, metadata, &header, error)
                            : tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    if (status != TN_OK)
        goto done;
    size_t length = strlen(header), aligned = (length + 7) & ~(size_t)7;
    padded = tn_alloc(aligned + 1);
    if (!padded) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for a checkpoint's header");
        goto done;
    }
    memcpy(padded, header, length);
    memset(padded + length, ' ', aligned - length);
    padded[aligned] = '\0';
    fill_checksum(padded, aligned, tensors, count, hash);
    uint64_t prefix = aligned;
    status = tn_file_writer_open(path, true, &writer, error);
    if (status == TN_OK)
        status = tn_file_writer_write(writer, &prefix, sizeof prefix, error);
    if (status == TN_OK)
        status = tn_file_writer_write(writer, padded, aligned, error);
    for (size_t i = 0; status == TN_OK && i < count; i++)
        status =
            tn_file_writer_write(writer, tensors[i].tensor.data, tensors[i].tensor.bytes, error);
    if (status == TN_OK) {
        status = tn_file_writer_commit(writer, error);
        writer = NULL;
    }
done:
    tn_file_writer_discard(writer);
    XXH3_freeState(hash);
    tn_free(padded);
    free(header);
    return status;
}

/* One header entry; NULL when it is fine, else what is wrong with it. */
static const char *read_entry(json_t *entry, const unsigned char *data, size_t size,
                              tn_tensor *tensor)
{
    json_t *shape = json_object_get(entry, "shape"),
           *offsets = json_object_get(entry, "data_offsets");
    tensor->dtype = type_of(json_string_value(json_object_get(entry, "dtype")));
    if (tensor->dtype == TN_UNDEFINED)
        return "unknown dtype";
    if (!json_is_array(shape) || json_array_size(shape) > TN_MAX_RANK)
        return "bad shape";
    tensor->rank = (int)json_array_size(shape);
    for (int i = 0; i < tensor->rank; i++) {
        json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim))
            return "bad shape";
        tensor->dims[i] = json_integer_value(dim);
    }
    int64_t elements;
    size_t bytes;
    if (!tn_dims_count(tensor->rank, tensor->dims, &elements) ||
        !tn_dtype_bytes(tensor->dtype, (uint64_t)elements, &bytes))
        return "bad shape";
    json_int_t first = json_integer_value(json_array_get(offsets, 0)),
               last = json_integer_value(json_array_get(offsets, 1));
    if (json_array_size(offsets) != 2 || first < 0 || last < first || (uint64_t)last > size ||
        (uint64_t)(last - first) != bytes)
        return "data_offsets outside the file or not the size of the shape";
    tensor->bytes = bytes;
    union {
        const unsigned char *from;
        void *to;
    } view = {.from = data + first}; /* a mapped file: readers do not write */
    tensor->data = view.to;
    return NULL;
}

static bool checksum_is_right(const tn_safetensors *file, size_t header_length)
{
    const char *stored = tn_safetensors_metadata(file, checksum_key);
    if (!stored || strlen(stored) != HEX_LENGTH)
        return false;
    const char *header = (const char *)file->map.data + 8;
    char zeros[HEX_LENGTH], digits[HEX_LENGTH + 1];
    memset(zeros, '0', sizeof zeros);
    const char *place = memmem(header, header_length, stored, HEX_LENGTH);
    XXH3_state_t *hash = XXH3_createState();
    if (!hash || !place) {
        XXH3_freeState(hash);
        return false;
    }
    size_t before = (size_t)(place - header), after = before + HEX_LENGTH;
    XXH3_128bits_reset(hash);
    XXH3_128bits_update(hash, header, before);
    XXH3_128bits_update(hash, zeros, sizeof zeros);
    XXH3_128bits_update(hash, header + after, file->map.size - 8 - after);
    hex_digest(hash, digits);
    XXH3_freeState(hash);
    return memcmp(digits, stored, HEX_LENGTH) == 0;
}

static tn_status read_entries(const char *path, tn_safetensors *file, size_t header_length,
                              tn_error *error)
{
    const unsigned char *data = file->map.data + 8 + header_length;
    size_t size = file->map.size - 8 - header_length;
    file->tensors = tn_alloc_zero(json_object_size(file->header) + 1, sizeof *file->tensors);
    if (!file->tensors)
        return tn_fail(error, TN_ERROR_LIMIT, "%s: out of memory", path);
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry)
    {
        if (!strcmp(name, "__metadata__")) {
            file->metadata = entry;
            continue;
        }
        tn_named_tensor *named = &file->tensors[file->count];
        const char *wrong = read_entry(entry, data, size, &named->tensor);
        if (wrong)
            return tn_fail(error, TN_ERROR_USAGE, "%s: tensor %s: %s", path, tn_quote(name), wrong);
        named->name = name;
        file->count++;
    }
    file->verified = checksum_is_right(file, header_length);
    if (!file->verified && tn_safetensors_metadata(file, checksum_key))
        return tn_fail(error, TN_ERROR_USAGE,
                       "%s: the checksum does not match: the file is damaged", path);
    return TN_OK;
}

tn_status tn_safetensors_read(const char *path, tn_safetensors *out, tn_error *error)
{
    tn_safetensors file = {0};
    uint64_t length = 0;
    tn_status status = tn_file_map_open(path, &file.map, error);
    if (status != TN_OK)
        return status;
    if (file.map.size >= 8)
        memcpy(&length, file.map.data, 8);
    if (file.map.size < 8 || length > file.map.size - 8 || length > LARGEST_HEADER) {
        status = tn_fail(error, TN_ERROR_USAGE,
                         "%s: not a whole safetensors file (%zu bytes): it was cut or is something "
                         "else",
                         path, file.map.size);
        goto fail;
    }
    json_error_t reason;
    file.header = json_loadb((const char *)file.map.data + 8, (size_t)length,
                             JSON_REJECT_DUPLICATES, &reason);
    if (!json_is_object(file.header)) {
        status =
            tn_fail(error, TN_ERROR_USAGE, "%s: the safetensors header is no JSON object", path);
        goto fail;
    }
    status = read_entries(path, &file, (size_t)length, error);
    if (status != TN_OK)
        goto fail;
    *out = file;
    return TN_OK;
fail:
    tn_safetensors_close(&file);
    return status;
}

void tn_safetensors_close(tn_safetensors *file)
{
    tn_free(file->tensors);
    json_decref(file->header);
    tn_file_map_close(&file->map);
    *file = (tn_safetensors){0};
}

const tn_tensor *tn_safetensors_find(const tn_safetensors *file, const char *name)
{
    for (size_t i = 0; i < file->count; i++)
        if (!strcmp(file->tensors[i].name, name))
            return &file->tensors[i].tensor;
    return NULL;
}

const char *tn_safetensors_metadata(const tn_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(file->metadata, key));
}
