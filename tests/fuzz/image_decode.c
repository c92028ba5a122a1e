/* Fuzz target: bytes -> picture -> resized picture.
 *
 *     image_decode -max_total_time=60 -max_len=65536 CORPUS-FOLDER */
#include "core/memory.h"
#include "data/resize.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tn_image image = {0}, small = {0};
    tn_memory_set_limit(256u << 20); /* large pictures are slow under the sanitizers */
    if (tn_image_decode(data, size, &image, NULL) == TN_OK &&
        tn_image_resize(&image, NULL, 17, 13, &small, NULL) != TN_OK &&
        tn_memory_stats_get().live < 128u << 20)
        __builtin_trap();
    tn_image_done(&image);
    tn_image_done(&small);
    return 0;
}
