/* From quantized layers to a written file and its report: what quantize, export and finetune share.
 */
#ifndef TERNION_API_PACKING_H
#define TERNION_API_PACKING_H

#include "api/network_file.h"
#include "finetune/activations.h"

typedef struct tn_packing {
    const char *input, *output; /* set by the caller, with the next two, before tn_packing_begin */
    const tn_output_options *out;
    const tn_reporter *reporter;
    tn_write_options write;
    tn_pack_options pack;
    tn_graph *graph; /* set by the caller when it is there, with the bytes of the input */
    uint64_t bytes_in;
    tn_pack_item *items;              /* tn_packing_take's, or the caller's */
    const tn_weight_figures *figures; /* per item */
    size_t count;
    int bias_bits;                     /* 0: biases stay as they are */
    tn_conversion biases;              /* tn_packing_take's */
    const tn_activations *activations; /* written into the packed model; NULL: none */
    tn_pack_plan plan;
    uint64_t bytes_out;
} tn_packing;

/* Checks the output and all options before anything is read. */
tn_status tn_packing_begin(tn_packing *packing, tn_error *error) TN_MUST_CHECK;

tn_policy tn_packing_policy(const tn_scheme_options *scheme);

/* Items and figures of converted layers, in the graph's arena; borrows the conversion. Converts
 * their biases too when asked: end with tn_packing_done. */
tn_status tn_packing_take(tn_packing *packing, const tn_conversion *conversion,
                          tn_error *error) TN_MUST_CHECK;

/* Bytes of the file that these weights would make: packs in memory, writes nothing. */
tn_status tn_packing_size(const tn_packing *packing, tn_graph *graph,
                          const tn_conversion *conversion, uint64_t *bytes,
                          tn_error *error) TN_MUST_CHECK;

/* Packs and writes, or plans only in a dry run. */
tn_status tn_packing_write(tn_packing *packing, tn_error *error) TN_MUST_CHECK;

void tn_packing_done(tn_packing *packing);

tn_status tn_packing_report(const tn_packing *packing, const tn_layers *layers,
                            tn_conversion_report **report, tn_error *error) TN_MUST_CHECK;

#endif
