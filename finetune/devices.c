#include "finetune/devices.h"

#include "finetune/launcher.h"
#include "gpu/cuda_device.h"

#include <stdlib.h>
#include <string.h>

/* "cuda" (*index stays) or "cuda:K"; false when it is neither. */
static bool parse_cuda(const char *name, int *index)
{
    char *end;
    if (strcmp(name, "cuda") == 0)
        return true;
    if (strncmp(name, "cuda:", 5) != 0 || name[5] < '0' || name[5] > '9')
        return false;
    long k = strtol(name + 5, &end, 10);
    *index = k > 1023 ? 1023 : (int)k;
    return *end == '\0';
}

tn_status tn_devices_open(const char *name, tn_device **device, tn_error *error)
{
    int index = tn_launcher_read().local_rank;
    if (!name || strcmp(name, "auto") == 0) {
        if (tn_device_cuda_built() && tn_device_create_cuda(index, device, NULL) == TN_OK)
            return TN_OK;
        return tn_device_create_cpu(device, error);
    }
    if (strcmp(name, "cpu") == 0)
        return tn_device_create_cpu(device, error);
    if (!parse_cuda(name, &index))
        return tn_fail(error, TN_ERROR_USAGE, "device %s: expected auto, cpu or cuda[:K]",
                       tn_quote(name));
    tn_status status = tn_device_create_cuda(index, device, error);
    if (status != TN_OK)
        tn_error_prepend(error, "device %s", name);
    return status;
}
