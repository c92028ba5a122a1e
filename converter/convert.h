/* The data-free conversion: quantizes every selected layer of a graph from its weights alone. */
#ifndef TERNION_CONVERTER_CONVERT_H
#define TERNION_CONVERTER_CONVERT_H

#include "converter/layers.h"
#include "core/reporter.h"

/* How far a quantized weight is from the float one. */
typedef struct tn_weight_figures {
    double relmse;              /* sum (w - w')^2 / sum w^2; 0 for an all-zero weight */
    double sqnr_db;             /* -10 log10(relmse); infinity when exact */
    double zeros;               /* fraction of values that are 0 */
    float scale_min, scale_max; /* over both scales, without channels that are all zero */
    int64_t dead_channels;      /* rows that became all zero and were not */
} tn_weight_figures;

typedef struct tn_converted {
    const tn_layer *layer;
    tn_qweight weight; /* codes == NULL for plain schemes (float, half) */
    tn_weight_figures figures;
} tn_converted;

typedef struct tn_conversion {
    tn_converted *item; /* the quantized layers, in graph order */
    size_t count;
} tn_conversion;

/* An empty weight of the layer's shape and scheme (tn_qweight_init); of a plain scheme the shape
 * alone. */
tn_status tn_layer_weight_init(const tn_layer *layer, tn_qweight *weight,
                               tn_error *error) TN_MUST_CHECK;

/* One layer: its rows are read, fitted, coded and measured while they are in cache, on all threads,
 * with the same bits for every number of them. MODEL when the weight holds NaN or infinity. The
 * caller ends `converted->weight` with tn_qweight_done. */
tn_status tn_convert_layer(const tn_layer *layer, tn_converted *converted,
                           tn_error *error) TN_MUST_CHECK;

/* All layers that the policy quantizes. Reports progress ("quantizing"), warnings (relMSE > 0.35,
 * dead channels, > 95 % zeros) and honours cancellation through `reporter` (may be NULL). */
tn_status tn_convert(const tn_layers *layers, const tn_reporter *reporter,
                     tn_conversion *conversion, tn_error *error) TN_MUST_CHECK;
void tn_conversion_done(tn_conversion *conversion);

/* The values [rows, cols] the written file gives a layer: those of the codes, or of a plain scheme
 * the layer's own weights as that scheme keeps them. */
tn_status tn_converted_values(const tn_layer *layer, const tn_qweight *weight, float *values,
                              tn_error *error) TN_MUST_CHECK;

/* Figures of codes that came from elsewhere (calibration): w is [rows, cols] in fp32. */
void tn_weight_measure(const tn_qweight *weight, const float *w, tn_weight_figures *figures);

/* Fills the figures of a converted layer against the weights of `original`: the same layer, or that
 * of the network it was trained from. */
tn_status tn_converted_measure(tn_converted *converted, const tn_layer *original,
                               tn_error *error) TN_MUST_CHECK;

#endif
