#include "onnx_io/scan.h"

#include "core/memory.h"
#include "core/utf8.h"
#include "proto/onnx.pb-c.h"

#include <stdlib.h>
#include <string.h>

enum { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5, MESSAGE_KINDS = 64 };
enum { TAG_BYTES = 5, LENGTH_BYTES = 5, VARINT_BYTES = 10 };

typedef struct frame {
    const ProtobufCMessageDescriptor *descriptor;
    size_t end;
    size_t length_at; /* the length prefix that announced this message, */
    uint32_t length_width;
    uint32_t length;
    uint32_t cut;  /* bytes the skeleton leaves out in here */
    uint32_t seen; /* singular fields so far, and payload fields that were lifted */
    uint32_t lifted;
    int graphs; /* GraphProto messages from here up */
} frame;

typedef struct walker {
    const unsigned char *bytes;
    size_t at;
    frame stack[TN_SCAN_DEPTH];
    int depth;
    struct {
        const ProtobufCMessageDescriptor *descriptor;
        uint32_t count;
    } kinds[MESSAGE_KINDS];
    tn_scan *scan;
    size_t spans_room, patches_room;
    tn_error *error;
} walker;

typedef struct field_header {
    size_t begin; /* of the tag */
    uint32_t id;
    int wire;
    const ProtobufCFieldDescriptor *field; /* NULL: unknown */
    unsigned index;                        /* in the descriptor */
} field_header;

static tn_status broken(const walker *w, const field_header *header, const char *what)
{
    const frame *top = &w->stack[w->depth - 1];
    const char *field = header->field ? header->field->name : "an unknown field";
    return tn_fail(w->error, TN_ERROR_MODEL, "not a valid ONNX file: byte %zu, %s, %s: %s",
                   header->begin, top->descriptor->short_name, field, what);
}

static tn_status out_of_memory(const walker *w)
{
    return tn_fail(w->error, TN_ERROR_LIMIT, "out of memory scanning the model");
}

/* A varint of at most `most` bytes before `end`. */
static bool read_varint(walker *w, size_t end, int most, uint64_t *value)
{
    uint64_t result = 0;
    for (int i = 0; i < most && w->at < end; i++) {
        unsigned char byte = w->bytes[w->at++];
        result |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (!(byte & 0x80)) {
            *value = result;
            return true;
        }
    }
    return false;
}

static bool is_packable(ProtobufCType type)
{
    return type != PROTOBUF_C_TYPE_STRING && type != PROTOBUF_C_TYPE_BYTES &&
           type != PROTOBUF_C_TYPE_MESSAGE;
}

static int native_wire(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_SFIXED32:
        return WIRE_32;
    case PROTOBUF_C_TYPE_DOUBLE:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return WIRE_64;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return WIRE_BYTES;
    default:
        return WIRE_VARINT;
    }
}

static tn_status count_message(walker *w, const field_header *header,
                               const ProtobufCMessageDescriptor *descriptor)
{
    int i = 0;
    while (w->kinds[i].descriptor && w->kinds[i].descriptor != descriptor)
        if (++i == MESSAGE_KINDS)
            return broken(w, header, "too many kinds of messages");
    w->kinds[i].descriptor = descriptor;
    if (++w->kinds[i].count > TN_SCAN_MESSAGES)
        return tn_fail(w->error, TN_ERROR_LIMIT,
                       "the model has more than %d %s messages, which is the limit",
                       TN_SCAN_MESSAGES, descriptor->short_name);
    return TN_OK;
}

static tn_status enter(walker *w, const field_header *header, size_t length_at, uint32_t length)
{
    const ProtobufCMessageDescriptor *descriptor = header->field->descriptor;
    tn_status status = count_message(w, header, descriptor);
    if (status != TN_OK)
        return status;
    int graphs = w->stack[w->depth - 1].graphs + (descriptor == &onnx__graph_proto__descriptor);
    if (graphs > TN_SCAN_SUBGRAPHS + 1)
        return tn_fail(w->error, TN_ERROR_MODEL,
                       "subgraphs are nested more than %d deep (at byte %zu)", TN_SCAN_SUBGRAPHS,
                       header->begin);
    if (w->depth == TN_SCAN_DEPTH)
        return tn_fail(w->error, TN_ERROR_MODEL,
                       "messages are nested more than %d deep (at byte %zu)", TN_SCAN_DEPTH,
                       header->begin);
    w->stack[w->depth++] = (frame){.descriptor = descriptor,
                                   .end = w->at + length,
                                   .length_at = length_at,
                                   .length_width = (uint32_t)(w->at - length_at),
                                   .length = length,
                                   .graphs = graphs};
    return TN_OK;
}

/* raw_data, float_data, double_data: what memory holds as the file does. */
static bool is_payload(const frame *top, const ProtobufCFieldDescriptor *field)
{
    return top->descriptor == &onnx__tensor_proto__descriptor &&
           (field->type == PROTOBUF_C_TYPE_BYTES || field->type == PROTOBUF_C_TYPE_FLOAT ||
            field->type == PROTOBUF_C_TYPE_DOUBLE) &&
           strcmp(field->name, "string_data") != 0;
}

static tn_status lift(walker *w, const field_header *header, uint32_t length)
{
    tn_scan *scan = w->scan;
    if (scan->n_spans == w->spans_room) {
        size_t room = w->spans_room * 2 + 64;
        tn_span *spans = tn_realloc(scan->spans, room * sizeof *spans);
        if (!spans)
            return out_of_memory(w);
        scan->spans = spans;
        w->spans_room = room;
    }
    frame *top = &w->stack[w->depth - 1];
    size_t end = w->at + length;
    scan->spans[scan->n_spans++] = (tn_span){header->id, header->begin, end, w->at, length};
    top->cut += (uint32_t)(end - header->begin) - TN_MARKER_BYTES;
    top->lifted |= 1u << header->index;
    w->at = end;
    return TN_OK;
}

/* A length-delimited field: a message is entered, everything else is checked and passed. */
static tn_status read_bytes(walker *w, const field_header *header)
{
    const frame *top = &w->stack[w->depth - 1];
    const ProtobufCFieldDescriptor *field = header->field;
    size_t length_at = w->at;
    uint64_t length;
    if (!read_varint(w, top->end, LENGTH_BYTES, &length))
        return broken(w, header, "its length is cut off or too long");
    if (length > top->end - w->at)
        return broken(w, header, "it is longer than what holds it");
    if (field && field->type == PROTOBUF_C_TYPE_MESSAGE)
        return enter(w, header, length_at, (uint32_t)length);
    if (field && length >= TN_SCAN_LIFTED && is_payload(top, field) &&
        (field->type == PROTOBUF_C_TYPE_BYTES ||
         length % (field->type == PROTOBUF_C_TYPE_FLOAT ? 4 : 8) == 0)) {
        if (top->seen & (1u << header->index))
            return broken(w, header, "it comes in several pieces, which is not supported");
        return lift(w, header, (uint32_t)length);
    }
    if (field && field->type == PROTOBUF_C_TYPE_STRING) {
        size_t good = tn_utf8_check(w->bytes + w->at, (size_t)length);
        if (good < length)
            return broken(w, header,
                          w->bytes[w->at + good] ? "the text is not valid UTF-8"
                                                 : "the text holds a NUL byte");
    }
    w->at += (size_t)length;
    return TN_OK;
}

static tn_status check_field(walker *w, const field_header *header)
{
    frame *top = &w->stack[w->depth - 1];
    const ProtobufCFieldDescriptor *field = header->field;
    bool is_repeated = field->label == PROTOBUF_C_LABEL_REPEATED;
    bool fits = header->wire == native_wire(field->type) ||
                (is_repeated && header->wire == WIRE_BYTES && is_packable(field->type));
    if (!fits)
        return broken(w, header, "its wire type is not the one of this field");
    if (!is_repeated && (top->seen & (1u << header->index)))
        return broken(w, header, "it comes twice in one message");
    if (top->lifted & (1u << header->index))
        return broken(w, header, "it comes in several pieces, which is not supported");
    return TN_OK;
}

static tn_status read_field(walker *w)
{
    const size_t end = w->stack[w->depth - 1].end;
    const ProtobufCMessageDescriptor *descriptor = w->stack[w->depth - 1].descriptor;
    field_header header = {.begin = w->at};
    uint64_t tag, skipped;
    if (!read_varint(w, end, TAG_BYTES, &tag) || tag > UINT32_MAX || tag >> 3 == 0)
        return broken(w, &header, "there is no field");
    header.id = (uint32_t)(tag >> 3);
    header.wire = (int)(tag & 7);
    header.field = protobuf_c_message_descriptor_get_field(descriptor, header.id);
    tn_status status = TN_OK;
    if (header.field) {
        header.index = (unsigned)(header.field - descriptor->fields);
        status = check_field(w, &header);
    } else if (header.id == TN_MARKER_FIELD) {
        status = broken(w, &header, "its number is reserved");
    }
    if (status != TN_OK)
        return status;
    int depth = w->depth;
    size_t bytes = header.wire == WIRE_64 ? 8 : 4;
    switch (header.wire) {
    case WIRE_VARINT:
        if (!read_varint(w, end, VARINT_BYTES, &skipped))
            return broken(w, &header, "its number is cut off or too long");
        break;
    case WIRE_64:
    case WIRE_32:
        if (bytes > end - w->at)
            return broken(w, &header, "it is cut off");
        w->at += bytes;
        break;
    case WIRE_BYTES:
        status = read_bytes(w, &header);
        break;
    default:
        return broken(w, &header, "its wire type is not one protobuf has today");
    }
    if (header.field)
        w->stack[depth - 1].seen |= 1u << header.index;
    return status;
}

/* Leaves a message; one that lost bytes to spans gets a new length, in as many bytes. */
static tn_status leave(walker *w)
{
    const frame *top = &w->stack[--w->depth];
    tn_scan *scan = w->scan;
    if (top->cut == 0 || w->depth == 0)
        return TN_OK;
    w->stack[w->depth - 1].cut += top->cut;
    if (scan->n_patches == w->patches_room) {
        size_t room = w->patches_room * 2 + 64;
        tn_length_patch *patches = tn_realloc(scan->patches, room * sizeof *patches);
        if (!patches)
            return out_of_memory(w);
        scan->patches = patches;
        w->patches_room = room;
    }
    scan->patches[scan->n_patches++] =
        (tn_length_patch){top->length_at, top->length_width, top->length - top->cut};
    return TN_OK;
}

static int by_position(const void *a, const void *b)
{
    const tn_length_patch *x = a, *y = b;
    return (x->at > y->at) - (x->at < y->at);
}

tn_status tn_scan_model(const unsigned char *bytes, size_t size, tn_scan *scan, tn_error *error)
{
    *scan = (tn_scan){0};
    walker *w = tn_alloc_zero(1, sizeof *w);
    if (!w)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory scanning the model");
    w->bytes = bytes;
    w->scan = scan;
    w->error = error;
    w->stack[0] = (frame){.descriptor = &onnx__model_proto__descriptor, .end = size};
    w->depth = 1;
    tn_status status = TN_OK;
    while (status == TN_OK && w->depth > 0)
        status = w->at == w->stack[w->depth - 1].end ? leave(w) : read_field(w);
    tn_free(w);
    if (status == TN_OK && scan->n_patches > 1)
        qsort(scan->patches, scan->n_patches, sizeof *scan->patches, by_position);
    return status;
}

void tn_scan_done(tn_scan *scan)
{
    tn_free(scan->spans);
    tn_free(scan->patches);
    *scan = (tn_scan){0};
}
