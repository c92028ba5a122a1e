#include "finetune/host_copy.h"

#include "core/memory.h"

tn_status tn_host_copy_get(tn_host_copy *copy, tn_device *device, const float *from, size_t count,
                           const float **host, tn_error *error)
{
    if (!device || device->host_memory) {
        *host = from;
        return TN_OK;
    }
    if (count > copy->room) {
        tn_host_copy_done(copy);
        copy->data = tn_alloc_array(count, sizeof *copy->data);
        if (!copy->data)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a copy of %zu numbers", count);
        copy->room = count;
    }
    tn_status status =
        device->type->download(device, copy->data, from, count * sizeof *from, error);
    if (status == TN_OK)
        *host = copy->data;
    return status;
}

void tn_host_copy_done(tn_host_copy *copy)
{
    tn_free(copy->data);
    *copy = (tn_host_copy){0};
}
