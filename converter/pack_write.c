#include "converter/pack.h"

#include "converter/record.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool same_numbers(const float *a, const float *b, int64_t count)
{
    return (!a && !b) || (a && b && memcmp(a, b, (size_t)count * sizeof *a) == 0);
}

/* Unlike scales, -0 and 0 are one zero point: integer types hold no sign of it. */
static bool same_zeros(const float *a, const float *b, int64_t count)
{
    for (int64_t i = 0; a && b && i < count; i++) {
        if (a[i] != b[i])
            return false;
    }
    return !a == !b;
}

static bool same_weight(const tn_qweight *a, const tn_qweight *b)
{
    return a->rows == b->rows && a->cols == b->cols && a->n_scales == b->n_scales &&
           memcmp(a->codes, b->codes, (size_t)(a->rows * a->cols) * sizeof *a->codes) == 0 &&
           same_numbers(a->scale, b->scale, a->n_scales) &&
           same_numbers(a->scale_neg, b->scale_neg, a->n_scales) &&
           same_zeros(a->zero, b->zero, a->n_scales);
}

static tn_status compare_layer(const tn_record_layer *layer, const tn_graph *graph,
                               const tn_qweight *expected, tn_error *error)
{
    tn_qweight read;
    tn_status status = tn_record_read(layer, graph, &read, error);
    if (status != TN_OK)
        return status;
    if (!same_weight(&read, expected))
        status = tn_fail(error, TN_ERROR_DIFFERS, "layer %s read back is not what was written",
                         tn_quote(layer->node));
    tn_qweight_done(&read);
    return status;
}

/* The record's layers are the items in their order. Nothing is folded: codes lie in initializers.
 */
static tn_status compare(const tn_model *model, const tn_pack_item *items, size_t count,
                         tn_error *error)
{
    const tn_graph_options options = {.fold_limit = 1};
    tn_record record = {0};
    tn_graph *graph = NULL;
    tn_status status = tn_record_parse(model, &record, error);
    if (status == TN_OK && record.count != count)
        status = tn_fail(error, TN_ERROR_DIFFERS, "the file read back has %zu layers, not %zu",
                         record.count, count);
    if (status == TN_OK)
        status = tn_graph_create(model, &options, &graph, error);
    for (size_t i = 0; status == TN_OK && i < count; i++) {
        status = record.layer[i].form
                     ? compare_layer(&record.layer[i], graph, items[i].weight, error)
                     : tn_record_check_half(&record.layer[i], graph, error);
    }
    tn_graph_destroy(graph);
    tn_record_done(&record);
    return status;
}

static void remove_output(const char *path, bool external)
{
    char data[4096];
    unlink(path);
    if (external && snprintf(data, sizeof data, "%s.data", path) < (int)sizeof data)
        unlink(data);
}

tn_status tn_pack_write(const tn_model *packed, const tn_pack_item *items, size_t count,
                        const char *path, const tn_write_options *write, uint64_t *bytes,
                        tn_error *error)
{
    tn_model *model = NULL;
    uint64_t written;
    tn_status status = tn_model_write(packed, path, write, &written, error);
    if (status != TN_OK)
        return status;
    status = tn_model_read(path, NULL, &model, error);
    if (status == TN_OK)
        status = compare(model, items, count, error);
    tn_model_destroy(model);
    if (status != TN_OK) {
        struct stat file;
        bool is_whole = stat(path, &file) == 0 && (uint64_t)file.st_size == written;
        remove_output(path, !is_whole);
        tn_error_prepend(error, "%s was removed again", tn_quote(path));
        return status;
    }
    if (bytes)
        *bytes = written;
    return TN_OK;
}
