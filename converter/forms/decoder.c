#include "converter/forms/decoder.h"

#include "converter/forms/packing.h"

#include <stdio.h>
#include <string.h>

enum { OPSET_BROADCAST_MAX = 8, OPSET_SLICE_INPUTS = 10, NAME_SIZE = 320 };

static void fail_memory(tn_decoder *decoder)
{
    if (decoder->status == TN_OK)
        decoder->status =
            tn_fail(decoder->error, TN_ERROR_LIMIT, "out of memory while packing weight %s",
                    tn_quote(decoder->site->output));
}

static void check(tn_decoder *decoder, tn_status status)
{
    if (decoder->status == TN_OK)
        decoder->status = status;
}

tn_decoder tn_decoder_start(const tn_form_site *site, tn_error *error)
{
    return (tn_decoder){
        .site = site, .grouped = site->weight->granularity == TN_PER_GROUP, .error = error};
}

/* stem + suffix, unique in the model; NULL after a failure. */
static const char *make_name(tn_decoder *decoder, const char *stem, const char *suffix)
{
    if (decoder->status != TN_OK)
        return NULL;
    char name[NAME_SIZE];
    snprintf(name, sizeof name, "%s_%s", stem, suffix);
    const char *unique = tn_edit_unique_name(decoder->site->model, name);
    if (!unique)
        fail_memory(decoder);
    return unique;
}

const char *tn_decoder_initializer(tn_decoder *decoder, const char *suffix, tn_dtype dtype,
                                   int rank, const int64_t *dims, const void *data, size_t bytes)
{
    const char *name = make_name(decoder, decoder->site->base, suffix);
    if (name && !tn_edit_add_initializer(decoder->site->model, name, dtype, rank, dims, data, bytes,
                                         true)) {
        fail_memory(decoder);
        return NULL;
    }
    return name;
}

const char *tn_decoder_payload(tn_decoder *decoder, const char *suffix, tn_dtype dtype, int rank,
                               const int64_t *dims, size_t bytes, void **data)
{
    const char *name = make_name(decoder, decoder->site->base, suffix);
    if (!name)
        return NULL;
    *data = tn_arena_alloc(&decoder->site->model->arena, bytes);
    if (!*data || !tn_edit_add_initializer(decoder->site->model, name, dtype, rank, dims, *data,
                                           bytes, false)) {
        fail_memory(decoder);
        return NULL;
    }
    return name;
}

static bool same_initializer(const Onnx__TensorProto *proto, const char *name, tn_dtype dtype,
                             int rank, const int64_t *dims, const void *data, size_t bytes)
{
    return strcmp(tn_text(proto->name), name) == 0 && proto->data_type == (int32_t)dtype &&
           proto->n_dims == (size_t)rank &&
           (rank == 0 || memcmp(proto->dims, dims, (size_t)rank * sizeof *dims) == 0) &&
           proto->has_raw_data && proto->raw_data.len == bytes &&
           memcmp(proto->raw_data.data, data, bytes) == 0;
}

const char *tn_decoder_shared(tn_decoder *decoder, const char *name, tn_dtype dtype, int rank,
                              const int64_t *dims, const void *data, size_t bytes)
{
    if (decoder->status != TN_OK)
        return NULL;
    const Onnx__GraphProto *graph = decoder->site->model->proto->graph;
    for (size_t i = 0; i < graph->n_initializer; i++) {
        if (same_initializer(graph->initializer[i], name, dtype, rank, dims, data, bytes))
            return graph->initializer[i]->name;
    }
    const char *unique = tn_edit_unique_name(decoder->site->model, name);
    if (!unique || !tn_edit_add_initializer(decoder->site->model, unique, dtype, rank, dims, data,
                                            bytes, true)) {
        fail_memory(decoder);
        return NULL;
    }
    return unique;
}

const char *tn_decoder_ints(tn_decoder *decoder, int count, const int64_t *values)
{
    char name[NAME_SIZE];
    int used = snprintf(name, sizeof name, decoder->site->compact ? "i" : "ternion_ints");
    for (int i = 0; i < count; i++)
        used += snprintf(name + used, sizeof name - (size_t)used, "%c%lld", i ? 'x' : '_',
                         (long long)values[i]);
    int64_t dims[1] = {count};
    return tn_decoder_shared(decoder, name, TN_INT64, 1, dims, values,
                             (size_t)count * sizeof *values);
}

const char *tn_decoder_zero(tn_decoder *decoder)
{
    static const float zero = 0.0f;
    return tn_decoder_shared(decoder, "ternion_zero", TN_FLOAT, 0, NULL, &zero, sizeof zero);
}

/* The output of the node before `position` that casts `name`; decoding nodes come first. */
static const char *find_cast(const tn_form_site *site, const char *name)
{
    const Onnx__GraphProto *graph = site->model->proto->graph;
    for (size_t i = 0; i < *site->position; i++) {
        const Onnx__NodeProto *node = graph->node[i];
        if (strcmp(node->op_type, "Cast") == 0 && strcmp(node->input[0], name) == 0)
            return node->output[0];
    }
    return NULL;
}

const char *tn_decoder_shared_float(tn_decoder *decoder, const char *name)
{
    const char *cast = decoder->status == TN_OK && name ? find_cast(decoder->site, name) : NULL;
    if (!cast)
        tn_decoder_cast(decoder, name, TN_FLOAT);
    return cast ? cast : decoder->value;
}

const char *tn_decoder_step(tn_decoder *decoder, const char *type, const char *a, const char *b,
                            const char *c)
{
    const tn_form_site *site = decoder->site;
    char number[16];
    snprintf(number, sizeof number, "%d", ++decoder->steps);
    const char *output = make_name(decoder, site->base, number);
    if (!output || !a)
        return NULL;
    const char *inputs[] = {a, b, b ? c : NULL, NULL}, *outputs[] = {output, NULL};
    decoder->last = tn_edit_add_node(site->model, *site->position, type, "", inputs, outputs);
    if (!decoder->last) {
        fail_memory(decoder);
        return NULL;
    }
    decoder->last->name = NULL;
    ++*site->position;
    decoder->value = output;
    return output;
}

void tn_decoder_int(tn_decoder *decoder, const char *attribute, int64_t value)
{
    if (decoder->status == TN_OK)
        check(decoder, tn_edit_set_int(decoder->site->model, decoder->last, attribute, value,
                                       decoder->error));
}

void tn_decoder_cast(tn_decoder *decoder, const char *from, tn_dtype to)
{
    tn_decoder_step(decoder, "Cast", from, NULL, NULL);
    tn_decoder_int(decoder, "to", to);
}

void tn_decoder_reshape(tn_decoder *decoder, int rank, const int64_t *dims)
{
    const char *from = decoder->value, *shape = tn_decoder_ints(decoder, rank, dims);
    tn_decoder_step(decoder, "Reshape", from, shape, NULL);
}

static void slice_by_attributes(tn_decoder *decoder, int64_t axis, int64_t end)
{
    static const int64_t start = 0;
    const tn_form_site *site = decoder->site;
    tn_decoder_step(decoder, "Slice", decoder->value, NULL, NULL);
    if (decoder->status == TN_OK)
        check(decoder,
              tn_edit_set_ints(site->model, decoder->last, "axes", &axis, 1, decoder->error));
    if (decoder->status == TN_OK)
        check(decoder,
              tn_edit_set_ints(site->model, decoder->last, "starts", &start, 1, decoder->error));
    if (decoder->status == TN_OK)
        check(decoder,
              tn_edit_set_ints(site->model, decoder->last, "ends", &end, 1, decoder->error));
}

void tn_decoder_slice(tn_decoder *decoder, int64_t axis, int64_t end)
{
    static const int64_t start = 0;
    const tn_form_site *site = decoder->site;
    if (site->model->opset < OPSET_SLICE_INPUTS) {
        slice_by_attributes(decoder, axis, end);
        return;
    }
    const char *from = decoder->value;
    const char *starts = tn_decoder_ints(decoder, 1, &start);
    const char *ends = tn_decoder_ints(decoder, 1, &end);
    const char *axes = tn_decoder_ints(decoder, 1, &axis);
    tn_decoder_step(decoder, "Slice", from, starts, ends);
    if (decoder->status == TN_OK)
        check(decoder, tn_edit_set_input(site->model, decoder->last, 3, axes, decoder->error));
}

static bool all_equal(const float *numbers, int64_t count)
{
    for (int64_t i = 1; i < count; i++) {
        if (memcmp(numbers + i, numbers, sizeof *numbers) != 0)
            return false;
    }
    return true;
}

/* One number for all scales is kept once: the half-integer zero of DoReFa, mostly. */
static int scale_dims(const tn_decoder *decoder, bool scalar, int64_t *dims)
{
    const tn_form_site *site = decoder->site;
    const tn_qweight *weight = site->weight;
    if (scalar)
        return 0;
    if (decoder->grouped) {
        dims[0] = weight->rows;
        dims[1] = weight->groups_per_row;
        dims[2] = 1;
        return 3;
    }
    int rank = site->rank - site->axis;
    dims[0] = weight->rows;
    for (int i = 1; i < rank; i++)
        dims[i] = 1;
    return rank;
}

const char *tn_decoder_scales(tn_decoder *decoder, const char *suffix, const float *numbers)
{
    const tn_form_site *site = decoder->site;
    int64_t dims[TN_MAX_RANK], n = site->weight->n_scales;
    bool scalar = n == 1 || (numbers == site->weight->zero && all_equal(numbers, n));
    int rank = scale_dims(decoder, scalar, dims);
    return tn_decoder_initializer(decoder, suffix, TN_FLOAT, rank, dims, numbers,
                                  (size_t)(scalar ? 1 : n) * sizeof *numbers);
}

void tn_decoder_two_scales(tn_decoder *decoder, const char *positive, const char *negative)
{
    const char *value = decoder->value, *above, *below;
    if (decoder->site->model->opset >= OPSET_BROADCAST_MAX) {
        const char *zero = tn_decoder_zero(decoder);
        above = tn_decoder_step(decoder, "Max", value, zero, NULL);
        below = tn_decoder_step(decoder, "Min", value, zero, NULL);
    } else { /* Max and Min do not broadcast yet; x - Relu(x) = Min(x, 0) exactly */
        above = tn_decoder_step(decoder, "Relu", value, NULL, NULL);
        below = tn_decoder_step(decoder, "Sub", value, above, NULL);
    }
    above = tn_decoder_step(decoder, "Mul", above, positive, NULL);
    below = tn_decoder_step(decoder, "Mul", below, negative, NULL);
    tn_decoder_step(decoder, "Add", above, below, NULL);
}

void tn_decoder_dequantize(tn_decoder *decoder, tn_form_names *names)
{
    const tn_qweight *weight = decoder->site->weight;
    const char *codes = decoder->value;
    names->scale = tn_decoder_scales(decoder, "scale", weight->scale);
    if (weight->scale_neg) {
        names->scale_neg = tn_decoder_scales(decoder, "scale_neg", weight->scale_neg);
        tn_decoder_two_scales(decoder, names->scale, names->scale_neg);
        return;
    }
    if (weight->zero) {
        names->zero = tn_decoder_scales(decoder, "zero", weight->zero);
        codes = tn_decoder_step(decoder, "Sub", codes, names->zero, NULL);
    }
    tn_decoder_step(decoder, "Mul", codes, names->scale, NULL);
}

int tn_decoder_stored_dims(const tn_decoder *decoder, int64_t *dims)
{
    const tn_form_site *site = decoder->site;
    if (!decoder->grouped) {
        memcpy(dims, site->dims, sizeof site->dims);
        return site->rank;
    }
    dims[0] = site->weight->rows;
    dims[1] = site->weight->groups_per_row;
    dims[2] = tn_stored_group(site->weight);
    return 3;
}

/* [rows, groups, group] -> [rows, cols] -> the written shape. */
static void ungroup(tn_decoder *decoder)
{
    const tn_form_site *site = decoder->site;
    const tn_qweight *weight = site->weight;
    int64_t padded = tn_stored_count(weight, true) / weight->rows;
    if (padded != weight->cols) {
        tn_decoder_reshape(decoder, 2, (const int64_t[]){weight->rows, padded});
        tn_decoder_slice(decoder, 1, weight->cols);
    }
    if (site->axis == 0) {
        if (padded == weight->cols || site->rank != 2)
            tn_decoder_reshape(decoder, site->rank, site->dims);
        return;
    }
    int64_t dims[TN_MAX_RANK] = {site->dims[site->axis]}, back[TN_MAX_RANK];
    for (int i = 0, k = 1; i < site->rank; i++) {
        if (i == site->axis) {
            back[i] = 0;
            continue;
        }
        back[i] = k;
        dims[k++] = site->dims[i];
    }
    tn_decoder_reshape(decoder, site->rank, dims);
    tn_decoder_step(decoder, "Transpose", decoder->value, NULL, NULL);
    if (decoder->status == TN_OK)
        check(decoder, tn_edit_set_ints(site->model, decoder->last, "perm", back,
                                        (size_t)site->rank, decoder->error));
}

tn_status tn_decoder_finish(tn_decoder *decoder)
{
    const tn_form_site *site = decoder->site;
    if (decoder->grouped)
        ungroup(decoder);
    if (site->dtype != TN_FLOAT)
        tn_decoder_cast(decoder, decoder->value, site->dtype);
    if (decoder->status == TN_OK) {
        decoder->last->output[0] = tn_arena_strdup(&site->model->arena, site->output);
        if (!decoder->last->output[0])
            fail_memory(decoder);
    }
    return decoder->status;
}
