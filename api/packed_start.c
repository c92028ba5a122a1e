#include "api/packed_start.h"

#include "core/memory.h"

#include <stdio.h>
#include <string.h>

tn_status tn_packed_start_read(const tn_model *model, const tn_reporter *reporter,
                               tn_packed_start *start, tn_error *error)
{
    tn_packed_start read = {0};
    if (!tn_model_metadata(model, "ternion"))
        return TN_OK;
    tn_status status = tn_graph_create(model, NULL, &read.graph, error);
    if (status == TN_OK)
        status = tn_unpack(read.graph, reporter, &read.unpacked, error);
    if (status == TN_OK && read.unpacked.from_record) {
        read.codes.item = tn_alloc_zero(read.unpacked.count + 1, sizeof *read.codes.item);
        if (!read.codes.item)
            status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the record's layers");
    }
    for (size_t i = 0; status == TN_OK && read.codes.item && i < read.unpacked.count; i++) {
        const tn_pack_item *item = &read.unpacked.item[i];
        if (!item->weight || !item->weight->codes)
            continue; /* half */
        tn_converted *converted = &read.codes.item[read.codes.count++];
        *converted = (tn_converted){.layer = item->layer, .weight = *item->weight};
    }
    if (status == TN_OK)
        *start = read;
    else
        tn_packed_start_done(&read);
    return status;
}

void tn_packed_start_done(tn_packed_start *start)
{
    tn_free(start->codes.item); /* the weights are the unpacked ones */
    tn_unpacked_done(&start->unpacked);
    tn_graph_destroy(start->graph);
    *start = (tn_packed_start){0};
}

static bool same_shape(const tn_qweight *a, const tn_qweight *b)
{
    return a->low == b->low && a->high == b->high && a->granularity == b->granularity &&
           a->group == b->group;
}

static bool same_kind(const tn_qweight *a, const tn_qweight *b)
{
    return same_shape(a, b) && !a->scale_neg == !b->scale_neg && !a->zero == !b->zero;
}

/* What trains codes of this kind on: lsq where it can have them, else what made them. */
static const char *scheme_of(const tn_qweight *weight)
{
    return weight->scale_neg || weight->zero ? weight->scheme : "lsq";
}

tn_status tn_packed_start_policy(tn_packed_start *start, tn_policy *policy, tn_error *error)
{
    const tn_conversion *codes = &start->codes;
    if (codes->count == 0 || policy->scheme || policy->levels || policy->n_layer_rules)
        return TN_OK;
    const tn_qweight *weight = &codes->item[0].weight;
    for (size_t i = 1; i < codes->count; i++)
        if (!same_kind(weight, &codes->item[i].weight))
            return policy->bits
                       ? TN_OK
                       : tn_fail(
                             error, TN_ERROR_USAGE,
                             "the layers of the packed model have codes of several kinds (%s and "
                             "%s differ): say with --scheme, --bits and --layer what they are "
                             "trained as",
                             tn_quote(codes->item[0].layer->weight->name),
                             tn_quote(codes->item[i].layer->weight->name));
    if (!policy->bits) {
        snprintf(start->bits, sizeof start->bits, "%d", weight->bits);
        policy->bits = weight->ternary ? "1.58" : start->bits;
        policy->scheme = scheme_of(weight);
    }
    if (!policy->granularity) {
        snprintf(start->granularity, sizeof start->granularity, "group:%lld",
                 (long long)weight->group);
        policy->granularity = weight->granularity == TN_PER_TENSOR    ? "tensor"
                              : weight->granularity == TN_PER_CHANNEL ? "channel"
                                                                      : start->granularity;
    }
    return TN_OK;
}

static const tn_qweight *codes_of(const tn_conversion *codes, const char *weight)
{
    for (size_t i = 0; i < codes->count; i++)
        if (strcmp(codes->item[i].layer->weight->name, weight) == 0)
            return &codes->item[i].weight;
    return NULL;
}

tn_status tn_packed_start_fits(const tn_packed_start *start, const tn_policy *policy, bool *fits,
                               tn_error *error)
{
    tn_layers layers;
    *fits = start->codes.count > 0;
    if (!*fits)
        return TN_OK;
    tn_status status = tn_layers_select(start->graph, policy, &layers, error);
    for (size_t i = 0; status == TN_OK && i < layers.count && *fits; i++) {
        const tn_layer *layer = &layers.layer[i];
        tn_qweight shape = {0};
        const tn_qweight *codes = codes_of(&start->codes, layer->weight->name);
        if (!layer->quantized || layer->scheme.quantizer->plain)
            continue;
        tn_scheme_apply(&layer->scheme, &shape);
        *fits = codes && codes->rows == layer->rows && codes->cols == layer->cols &&
                same_shape(codes, &shape) &&
                (layer->scheme.quantizer->has_zero || codes->zero == NULL) &&
                (layer->scheme.quantizer->two_scales || codes->scale_neg == NULL);
    }
    return status;
}
