/* Puts quantized weights into a copy of their model, in a chosen form, and writes it. */
#ifndef TERNION_CONVERTER_PACK_H
#define TERNION_CONVERTER_PACK_H

#include "converter/form.h"
#include "converter/runtime.h"
#include "core/reporter.h"

typedef struct tn_pack_item {
    const tn_layer *layer;    /* of the graph that is packed */
    const tn_qweight *weight; /* codes NULL: stored as FLOAT16 and cast (scheme half) */
} tn_pack_item;

/* Zero-initialized: form lut, for any runtime. All pointers are borrowed. */
typedef struct tn_pack_options {
    const tn_form *form;       /* NULL: lut */
    const tn_runtime *runtime; /* NULL: any */
    bool prune_dead;           /* drop unused nodes and replace constant plumbing by its result */
    bool rest_float16;         /* what is not quantized: FLOAT16 + Cast */
    bool rest_was_float16;     /* or it was so in the input: the record says it either way */
    const char *preprocess;    /* JSON objects for the record, or NULL */
    const char *recipe;
    const char
        *activations; /* the record's, of a model whose activations are or will be quantized */
    bool linear;      /* weights reach their layers through DequantizeLinear: where activations are
                         quantized, runtimes would quantize decoded ones once more. Set for those
                         that will be; tn_pack_choose finds those that are */
    int64_t opset;    /* the least the result must have; 0: as little as it needs */
    const tn_reporter *reporter;
} tn_pack_options;

typedef struct tn_pack_choice {
    const tn_form *form; /* NULL: half */
    const char *reason;  /* why not the form asked for; NULL when it is that */
} tn_pack_choice;

typedef struct tn_pack_plan {
    tn_pack_choice *choice; /* per item, in the graph's arena */
    const tn_form *form;    /* asked for, or the standard one */
    int64_t opset, ir;      /* of the output */
    char needs[96];         /* "any ONNX Runtime from 1.10" */
} tn_pack_plan;

/* Chooses a form per layer (SPEC: "a layer its form cannot hold takes the next"), the opset and the
 * IR. USAGE when the form asked for can hold no layer, or the runtime cannot load the result. */
tn_status tn_pack_choose(tn_graph *graph, const tn_pack_item *items, size_t count,
                         const tn_pack_options *options, tn_pack_plan *plan,
                         tn_error *error) TN_MUST_CHECK;

/* The packed model: a copy of graph->model, which must outlive it. Converts operators where the
 * opset rises (MODEL naming them when it cannot), replaces the weights, removes what only they
 * used, writes the record. plan (may be NULL) is what tn_pack_choose says. */
tn_status tn_pack(tn_graph *graph, const tn_pack_item *items, size_t count,
                  const tn_pack_options *options, tn_pack_plan *plan, tn_model **packed,
                  tn_error *error) TN_MUST_CHECK;

/* Writes a packed model, reads the file back and compares codes, scales and zeros of every layer
 * with the items: on a difference nothing stays at `path`. *bytes (may be NULL): of all files. */
tn_status tn_pack_write(const tn_model *packed, const tn_pack_item *items, size_t count,
                        const char *path, const tn_write_options *write, uint64_t *bytes,
                        tn_error *error) TN_MUST_CHECK;

#endif
