/* Form `float`: the dequantized weight as one initializer of the replaced weight's type, to check
 * the others against and for tools that read nothing else. */
#include "converter/forms/decoder.h"
#include "converter/forms/forms.h"
#include "converter/forms/values.h"

static tn_status write_float(const tn_form_site *site, tn_form_names *names, tn_error *error)
{
    (void)names;
    size_t bytes;
    int64_t count = site->weight->rows * site->weight->cols;
    void *data = NULL;
    if (tn_dtype_bytes(site->dtype, (uint64_t)count, &bytes))
        data = tn_arena_alloc(&site->model->arena, bytes);
    if (!data || !tn_edit_add_initializer(site->model, site->output, site->dtype, site->rank,
                                          site->dims, data, bytes, false))
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the values of weight %s",
                       tn_quote(site->output));
    return tn_values_store(site, false, site->dtype, data, error);
}

static tn_status read_float(const tn_tensor *const *codes, const tn_tensor *values,
                            tn_qweight *weight, tn_error *error)
{
    (void)codes;
    return tn_values_read(values, false, weight, error);
}

static void need_versions(const tn_qweight *weight, int64_t *opset, int64_t *ir)
{
    (void)weight;
    *opset = 7;
    *ir = 4;
}

const tn_form tn_form_float = {
    .id = "float",
    .summary = "dequantized values, not packed: for checks",
    .needs = "whatever runs the input",
    .self_contained = true,
    .versions = need_versions,
    .write = write_float,
    .read = read_float,
};
