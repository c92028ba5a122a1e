/* Private to packing: the state of one tn_pack. */
#ifndef TERNION_CONVERTER_PACKER_H
#define TERNION_CONVERTER_PACKER_H

#include "converter/pack.h"

struct json_t;

typedef struct tn_packer {
    tn_graph *graph; /* of the original */
    const tn_pack_item *items;
    size_t count;
    const tn_pack_options *options;
    const tn_pack_plan *plan;
    tn_model *model; /* the copy under edit */
    struct proto_pair {
        const Onnx__NodeProto *original;
        Onnx__NodeProto *copy;
    } * pairs; /* sorted by original */
    size_t n_pairs;
    const char **decoded; /* per item: the decoded weight's name, the old one's unless others may
                             read that */
    bool has_subgraphs;
    size_t position; /* where in the copy the next decoding node goes */
    struct json_t *record;
} tn_packer;

/* The copy of an original's node. */
Onnx__NodeProto *tn_packer_node(const tn_packer *packer, const tn_node *node);

/* Drops the declared type of a value of the copy. */
void tn_packer_forget_type(tn_packer *packer, const char *name);

/* Makes user `node` of a transposed weight a Gemm(transB = 1); MatMul takes in an Add of a bias
 * that follows. weight is the name of its weight. */
tn_status tn_packer_make_gemm(tn_packer *packer, const tn_node *node, const char *weight,
                              tn_error *error) TN_MUST_CHECK;

/* Constants computed by nodes become small initializers (--prune-dead). */
tn_status tn_packer_flatten_plumbing(tn_packer *packer, tn_error *error) TN_MUST_CHECK;

/* Drops what no runtime reads (--prune-dead), once all weights are replaced. */
tn_status tn_packer_compact(tn_packer *packer, tn_error *error) TN_MUST_CHECK;

/* FLOAT initializers of the copy become FLOAT16 + Cast (--rest float16). */
tn_status tn_packer_store_half(tn_packer *packer, tn_error *error) TN_MUST_CHECK;

/* Adds `rows` (in the shape of `site`) as FLOAT16 initializer and a Cast to `site->output`. */
tn_status tn_packer_add_half(const tn_form_site *site, const tn_layer *layer, tn_form_names *names,
                             tn_error *error) TN_MUST_CHECK;

#endif
