#include "wire.h"

#include <stdlib.h>
#include <string.h>

void wire_free(wire *w)
{
    free(w->bytes);
    *w = (wire){0};
}

void wire_raw(wire *w, const void *bytes, size_t size)
{
    if (w->size + size > w->room) {
        w->room = (w->size + size) * 2 + 64;
        w->bytes = realloc(w->bytes, w->room);
        if (!w->bytes)
            abort();
    }
    if (size > 0)
        memcpy(w->bytes + w->size, bytes, size);
    w->size += size;
}

void wire_byte(wire *w, unsigned value)
{
    unsigned char byte = (unsigned char)value;
    wire_raw(w, &byte, 1);
}

void wire_varint(wire *w, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        wire_byte(w, (unsigned)(value & 0x7f) | 0x80);
    wire_byte(w, (unsigned)value);
}

void wire_int(wire *w, uint32_t field, uint64_t value)
{
    wire_varint(w, (uint64_t)field << 3);
    wire_varint(w, value);
}

void wire_bytes(wire *w, uint32_t field, const void *bytes, size_t size)
{
    wire_varint(w, (uint64_t)field << 3 | 2);
    wire_varint(w, size);
    wire_raw(w, bytes, size);
}

void wire_text(wire *w, uint32_t field, const char *text)
{
    wire_bytes(w, field, text, strlen(text));
}

void wire_message(wire *w, uint32_t field, wire *part)
{
    wire_bytes(w, field, part->bytes, part->size);
    wire_free(part);
}

wire wire_tensor(const char *name, int dtype, const int64_t *dims, size_t rank, const void *raw,
                 size_t bytes)
{
    wire w = {0};
    for (size_t i = 0; i < rank; i++)
        wire_int(&w, 1, (uint64_t)dims[i]);
    wire_int(&w, 2, (uint64_t)dtype);
    if (name[0])
        wire_text(&w, 8, name);
    if (raw)
        wire_bytes(&w, 9, raw, bytes);
    return w;
}

wire wire_node(const char *type, const char *name, const char *input, const char *output)
{
    wire w = {0};
    if (input[0])
        wire_text(&w, 1, input);
    if (output[0])
        wire_text(&w, 2, output);
    if (name[0])
        wire_text(&w, 3, name);
    if (type[0])
        wire_text(&w, 4, type);
    return w;
}

wire wire_value(const char *name)
{
    wire tensor = {0}, type = {0}, value = {0};
    wire_int(&tensor, 1, 1);
    wire_message(&type, 1, &tensor);
    wire_text(&value, 1, name);
    wire_message(&value, 2, &type);
    return value;
}

wire wire_graph(void)
{
    wire graph = {0}, node = wire_node("Relu", "r", "x", "y"), x = wire_value("x"),
         y = wire_value("y");
    wire_message(&graph, 1, &node);
    wire_text(&graph, 2, "g");
    wire_message(&graph, 11, &x);
    wire_message(&graph, 12, &y);
    return graph;
}

wire wire_model(wire *graph)
{
    wire model = {0}, opset = {0};
    wire_int(&model, 1, 8);
    wire_message(&model, 7, graph);
    wire_text(&opset, 1, "");
    wire_int(&opset, 2, 17);
    wire_message(&model, 8, &opset);
    return model;
}
