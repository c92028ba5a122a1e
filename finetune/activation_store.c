#include "finetune/activation_store.h"

#include "core/memory.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What one key holds: floats in memory, or a piece of the file. */
typedef struct held {
    float *data; /* NULL: in the file */
    uint64_t offset;
    size_t count; /* 0: nothing */
} held;

/* A piece of the file that is free again. */
typedef struct piece {
    uint64_t offset;
    size_t count;
} piece;

struct tn_activation_store {
    tn_device *device; /* NULL: floats are in the host's memory */
    float *staging;    /* between the device and the file */
    size_t staged;     /* room there */
    held *slot;
    size_t keys;
    uint64_t limit, used; /* bytes in memory */
    int file;             /* -1: not needed yet */
    uint64_t end, spilled;
    piece *free_pieces; /* [keys] at most: each was some key's */
    size_t n_free;
    char directory[512];
};

tn_status tn_activation_store_create(tn_device *device, size_t keys, uint64_t limit,
                                     tn_activation_store **out, tn_error *error)
{
    tn_activation_store *store = tn_alloc_zero(1, sizeof *store);
    if (!store)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    store->device = device && !device->host_memory ? device : NULL;
    store->file = -1;
    store->keys = keys;
    store->limit = limit;
    store->slot = tn_alloc_zero(keys + 1, sizeof *store->slot);
    store->free_pieces = tn_alloc_zero(keys + 1, sizeof *store->free_pieces);
    if (!store->slot || !store->free_pieces) {
        tn_activation_store_destroy(store);
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu activations", keys);
    }
    *out = store;
    return TN_OK;
}

void tn_activation_store_destroy(tn_activation_store *store)
{
    if (!store)
        return;
    for (size_t i = 0; store->slot && i < store->keys; i++)
        tn_free(store->slot[i].data);
    if (store->file >= 0)
        close(store->file);
    tn_free(store->staging);
    tn_free(store->slot);
    tn_free(store->free_pieces);
    tn_free(store);
}

uint64_t tn_activation_store_spilled(const tn_activation_store *store)
{
    return store->spilled;
}

/* --- the file -----------------------------------------------------------------------------------
 */

static tn_status open_file(tn_activation_store *store, tn_error *error)
{
    const char *directory = getenv("TMPDIR");
    char path[600];
    snprintf(store->directory, sizeof store->directory, "%s",
             directory && *directory ? directory : "/tmp");
    snprintf(path, sizeof path, "%s/ternion-XXXXXX", store->directory);
    store->file = mkstemp(path);
    if (store->file < 0)
        return tn_fail(error, TN_ERROR_IO,
                       "no temporary file for activations in %s: %s; set TMPDIR to a folder that "
                       "can be written",
                       tn_quote(store->directory), strerror(errno));
    unlink(path);
    return TN_OK;
}

/* A free piece of exactly that size, else new room at the end. */
static uint64_t take_piece(tn_activation_store *store, size_t count)
{
    for (size_t i = 0; i < store->n_free; i++)
        if (store->free_pieces[i].count == count) {
            uint64_t offset = store->free_pieces[i].offset;
            store->free_pieces[i] = store->free_pieces[--store->n_free];
            return offset;
        }
    uint64_t offset = store->end;
    store->end += count * sizeof(float);
    return offset;
}

/* The whole piece into the file or out of it; false with errno. */
static bool move_piece(const tn_activation_store *store, const held *slot, float *data, bool write)
{
    char *memory = (char *)data;
    size_t left = slot->count * sizeof *data;
    uint64_t at = slot->offset;
    while (left > 0) {
        ssize_t n = write ? pwrite(store->file, memory, left, (off_t)at)
                          : pread(store->file, memory, left, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = write ? ENOSPC : EIO;
        if (n <= 0)
            return false;
        memory += n;
        at += (uint64_t)n;
        left -= (size_t)n;
    }
    return true;
}

static tn_status write_piece(tn_activation_store *store, const held *slot, const float *data,
                             tn_error *error)
{
    if (!move_piece(store, slot, (float *)data, true)) /* only read */
        return tn_fail(error, TN_ERROR_IO,
                       "activations do not fit into %s (%.0f MB there): %s; set TMPDIR to a "
                       "larger disk, or use fewer images",
                       tn_quote(store->directory), 1e-6 * (double)store->end, strerror(errno));
    store->spilled += slot->count * sizeof *data;
    return TN_OK;
}

static tn_status read_piece(const tn_activation_store *store, const held *slot, float *data,
                            tn_error *error)
{
    return move_piece(store, slot, data, false)
               ? TN_OK
               : tn_fail(error, TN_ERROR_IO, "activations cannot be read back from %s: %s",
                         tn_quote(store->directory), strerror(errno));
}

/* --- the device ---------------------------------------------------------------------------------
 */

/* Into the store's memory, or out of it, from or to the caller's, which may be a device's. */
static tn_status carry(const tn_activation_store *store, bool in, float *dst, const float *src,
                       size_t count, tn_error *error)
{
    tn_device *device = store->device;
    size_t bytes = count * sizeof *src;
    if (device)
        return in ? device->type->download(device, dst, src, bytes, error)
                  : device->type->upload(device, dst, src, bytes, error);
    memcpy(dst, src, bytes);
    return TN_OK;
}

static tn_status reserve(tn_activation_store *store, size_t count, tn_error *error)
{
    if (count <= store->staged)
        return TN_OK;
    tn_free(store->staging);
    store->staging = tn_alloc_array(count, sizeof *store->staging);
    store->staged = store->staging ? count : 0;
    return store->staging ? TN_OK
                          : tn_fail(error, TN_ERROR_LIMIT,
                                    "out of memory for an activation of %zu numbers", count);
}

/* --- keys ---------------------------------------------------------------------------------------
 */

void tn_activation_store_drop(tn_activation_store *store, size_t key)
{
    held *slot = &store->slot[key];
    if (slot->count == 0)
        return;
    if (slot->data)
        store->used -= slot->count * sizeof(float);
    else
        store->free_pieces[store->n_free++] = (piece){slot->offset, slot->count};
    tn_free(slot->data);
    *slot = (held){0};
}

tn_status tn_activation_store_put(tn_activation_store *store, size_t key, const float *data,
                                  size_t count, tn_error *error)
{
    held *slot = &store->slot[key];
    if (slot->count != count)
        tn_activation_store_drop(store, key);
    if (count == 0)
        return TN_OK;
    bool fresh = slot->count == 0;
    slot->count = count;
    if (fresh && store->used + count * sizeof *data <= store->limit) {
        slot->data = tn_alloc_array(count, sizeof *data);
        if (slot->data)
            store->used += count * sizeof *data;
    }
    if (slot->data)
        return carry(store, true, slot->data, data, count, error);
    tn_status status = store->file < 0 ? open_file(store, error) : TN_OK;
    if (fresh)
        slot->offset = take_piece(store, count);
    if (status == TN_OK && store->device) {
        status = reserve(store, count, error);
        if (status == TN_OK)
            status = carry(store, true, store->staging, data, count, error);
        data = store->staging;
    }
    return status == TN_OK ? write_piece(store, slot, data, error) : status;
}

tn_status tn_activation_store_get(tn_activation_store *store, size_t key, float *data, size_t count,
                                  tn_error *error)
{
    const held *slot = &store->slot[key];
    if (slot->count != count)
        return tn_fail(error, TN_ERROR_USAGE, "activation %zu holds %zu numbers, not %zu", key,
                       slot->count, count);
    if (count == 0)
        return TN_OK;
    if (slot->data)
        return carry(store, false, data, slot->data, count, error);
    if (!store->device)
        return read_piece(store, slot, data, error);
    tn_status status = reserve(store, count, error);
    if (status == TN_OK)
        status = read_piece(store, slot, store->staging, error);
    return status == TN_OK ? carry(store, false, data, store->staging, count, error) : status;
}
