/* Protobuf wire format written by hand, so that tests can make files no writer would make. */
#ifndef TERNION_TESTS_ONNX_IO_WIRE_H
#define TERNION_TESTS_ONNX_IO_WIRE_H

#include <stddef.h>
#include <stdint.h>

typedef struct wire {
    unsigned char *bytes;
    size_t size, room;
} wire;

void wire_free(wire *w);
void wire_byte(wire *w, unsigned value);
void wire_raw(wire *w, const void *bytes, size_t size);
void wire_varint(wire *w, uint64_t value);
void wire_int(wire *w, uint32_t field, uint64_t value);
void wire_bytes(wire *w, uint32_t field, const void *bytes, size_t size);
void wire_text(wire *w, uint32_t field, const char *text);
/* Appends `part` as a field and frees it. */
void wire_message(wire *w, uint32_t field, wire *part);

/* Messages of ONNX. Empty texts are left out. */
wire wire_tensor(const char *name, int dtype, const int64_t *dims, size_t rank, const void *raw,
                 size_t bytes);
wire wire_node(const char *type, const char *name, const char *input, const char *output);
wire wire_value(const char *name); /* FLOAT without shape */
/* A model of IR 8, opset 17 around a graph, which is freed. */
wire wire_model(wire *graph);
/* "x" -> Relu "r" -> "y", to which a test adds what it is about. */
wire wire_graph(void);

#endif
