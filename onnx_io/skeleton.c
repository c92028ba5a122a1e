#include "onnx_io/skeleton.h"

#include "core/memory.h"
#include "onnx_io/walk.h"

#include <string.h>

/* A varint in exactly `width` bytes: longer than needed where it must be. */
static void put_varint(unsigned char *dst, size_t width, uint32_t value)
{
    for (size_t i = 0; i + 1 < width; i++) {
        dst[i] = (unsigned char)(value | 0x80);
        value >>= 7;
    }
    dst[width - 1] = (unsigned char)(value & 0x7f);
}

/* The file without its spans: markers in their place, lengths of what holds them corrected. */
static unsigned char *build(const unsigned char *bytes, size_t size, const tn_scan *scan,
                            size_t *skeleton_size)
{
    size_t left = size;
    for (size_t i = 0; i < scan->n_spans; i++)
        left -= scan->spans[i].end - scan->spans[i].begin - TN_MARKER_BYTES;
    unsigned char *skeleton = tn_alloc(left);
    if (!skeleton)
        return NULL;
    size_t at = 0, dst = 0, patch = 0;
    for (size_t i = 0; i <= scan->n_spans; i++) {
        size_t end = i < scan->n_spans ? scan->spans[i].begin : size;
        memcpy(skeleton + dst, bytes + at, end - at);
        for (; patch < scan->n_patches && scan->patches[patch].at < end; patch++)
            put_varint(skeleton + dst + (scan->patches[patch].at - at), scan->patches[patch].width,
                       scan->patches[patch].length);
        dst += end - at;
        if (i == scan->n_spans)
            break;
        put_varint(skeleton + dst, 5, (uint32_t)TN_MARKER_FIELD << 3);
        put_varint(skeleton + dst + 5, 5, (uint32_t)i);
        dst += TN_MARKER_BYTES;
        at = scan->spans[i].end;
    }
    *skeleton_size = left;
    return skeleton;
}

static void set_span(Onnx__TensorProto *tensor, const unsigned char *bytes, const tn_span *span)
{
    uint8_t *data = (uint8_t *)(uintptr_t)(bytes + span->offset); /* never written through */
    if (span->field == 9) {
        tensor->has_raw_data = 1;
        tensor->raw_data = (ProtobufCBinaryData){span->bytes, data};
    } else if (span->field == 4) { /* perhaps unaligned: read through tn_tensor_read_* alone */
        tensor->n_float_data = span->bytes / 4;
        tensor->float_data = (float *)(void *)data;
    } else {
        tensor->n_double_data = span->bytes / 8;
        tensor->double_data = (double *)(void *)data;
    }
}

static uint32_t marker_index(const ProtobufCMessageUnknownField *field)
{
    uint32_t value = 0;
    for (size_t i = 0; i < field->len && i < 5; i++)
        value |= (uint32_t)(field->data[i] & 0x7f) << (7 * i);
    return value;
}

typedef struct source {
    const unsigned char *bytes;
    const tn_scan *scan;
} source;

/* Turns the markers of a tensor into borrowed payloads. */
static tn_status restore(void *context, Onnx__TensorProto *tensor, tn_error *error)
{
    const source *from = context;
    unsigned kept = 0;
    (void)error;
    for (unsigned i = 0; i < tensor->base.n_unknown_fields; i++) {
        const ProtobufCMessageUnknownField *field = &tensor->base.unknown_fields[i];
        uint32_t index = field->tag == TN_MARKER_FIELD ? marker_index(field) : UINT32_MAX;
        if (index < from->scan->n_spans)
            set_span(tensor, from->bytes, &from->scan->spans[index]);
        else
            tensor->base.unknown_fields[kept++] = *field;
    }
    tensor->base.n_unknown_fields = kept;
    if (kept == 0)
        tensor->base.unknown_fields = NULL;
    return TN_OK;
}

tn_status tn_skeleton_unpack(const unsigned char *bytes, size_t size, const tn_scan *scan,
                             ProtobufCAllocator *allocator, Onnx__ModelProto **proto,
                             tn_error *error)
{
    unsigned char *skeleton = NULL;
    size_t skeleton_size = size;
    if (scan->n_spans > 0) {
        skeleton = build(bytes, size, scan, &skeleton_size);
        if (!skeleton)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory reading the model");
    }
    Onnx__ModelProto *result =
        onnx__model_proto__unpack(allocator, skeleton_size, skeleton ? skeleton : bytes);
    tn_free(skeleton);
    if (!result)
        return tn_fail(error, TN_ERROR_MODEL, "not a valid ONNX file: its fields cannot be read");
    source from = {bytes, scan};
    tn_status status =
        scan->n_spans > 0 ? tn_walk_tensors(&result->base, restore, &from, error) : TN_OK;
    if (status == TN_OK)
        *proto = result;
    return status;
}
