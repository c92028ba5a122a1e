/* A model file with its graph and layers: what most commands begin with. */
#ifndef TERNION_API_NETWORK_FILE_H
#define TERNION_API_NETWORK_FILE_H

#include "api/boundary.h"
#include "converter/convert.h"
#include "converter/pack.h"
#include "onnx_io/graph.h"

typedef struct tn_network_file {
    tn_model *model;
    tn_graph *graph;
    uint64_t bytes; /* of the file and its external tensors */
} tn_network_file;

/* batch > 0 replaces the first dimension of every input. */
tn_status tn_network_file_open(const char *path, const tn_input_options *in, int64_t batch,
                               const tn_reporter *reporter, tn_network_file *file,
                               tn_error *error) TN_MUST_CHECK;
/* Bytes of a model's file and of the tensors it keeps in others. */
uint64_t tn_network_file_bytes(const char *path, const tn_model *model);
void tn_network_file_close(tn_network_file *file);

/* Every layer whose weight could be quantized, none chosen; fine when there is none. */
tn_status tn_network_file_layers(const tn_network_file *file, tn_layers *layers,
                                 tn_error *error) TN_MUST_CHECK;

/* Name, operator, shape and reason of a layer; strings are copied into `arena`. */
tn_status tn_layer_report_name(tn_layer_report *report, const tn_layer *layer, tn_arena *arena,
                               tn_error *error) TN_MUST_CHECK;
/* What its quantized weight says: scheme, bits, granularity. codes NULL: half. */
void tn_layer_report_scheme(tn_layer_report *report, const tn_qweight *weight, tn_arena *arena);
void tn_layer_report_figures(tn_layer_report *report, const tn_weight_figures *figures);

#endif
