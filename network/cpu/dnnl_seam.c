/* oneDNN's engine, its memory descriptors, and what primitives have in common. */
#include "network/cpu/dnnl_parts.h"

#include "core/memory.h"

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const char *tn_dnnl_version(void)
{
    return TEXT(DNNL_VERSION_MAJOR) "." TEXT(DNNL_VERSION_MINOR) "." TEXT(DNNL_VERSION_PATCH);
}

tn_status tn_dnnl_failed(tn_error *error, const char *what, dnnl_status_t status)
{
    const char *why = status == dnnl_unimplemented   ? "it has no such primitive on this processor"
                      : status == dnnl_out_of_memory ? "out of memory"
                      : status == dnnl_invalid_arguments ? "invalid arguments"
                                                         : "runtime error";
    return tn_fail(error, status == dnnl_out_of_memory ? TN_ERROR_LIMIT : TN_ERROR_DEVICE,
                   "oneDNN %s: %s: %s", tn_dnnl_version(), what, why);
}

tn_status tn_dnnl_create(tn_dnnl **dnnl, tn_error *error)
{
    tn_dnnl *d = tn_alloc_zero(1, sizeof(*d));
    if (!d)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    dnnl_status_t status = dnnl_engine_create(&d->engine, dnnl_cpu, 0);
    if (!status)
        status = dnnl_stream_create(&d->stream, d->engine, dnnl_stream_default_flags);
    if (status) {
        tn_dnnl_destroy(d);
        return tn_dnnl_failed(error, "creating its engine", status);
    }
    *dnnl = d;
    return TN_OK;
}

void tn_dnnl_destroy(tn_dnnl *dnnl)
{
    if (!dnnl)
        return;
    if (dnnl->stream)
        dnnl_stream_destroy(dnnl->stream);
    if (dnnl->engine)
        dnnl_engine_destroy(dnnl->engine);
    tn_free(dnnl);
}

bool tn_dnnl_describe(tn_descriptor *d, int rank, const dnnl_dims_t dims, bool bf16,
                      dnnl_format_tag_t tag)
{
    dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_memory_desc_create_with_tag(d, rank, dims, type, tag) == dnnl_success;
#else
    return dnnl_memory_desc_init_by_tag(d, rank, dims, type, tag) == dnnl_success;
#endif
}

bool tn_dnnl_describe_strided(tn_descriptor *d, int64_t rows, int64_t columns, int64_t row,
                              int64_t column, bool bf16)
{
    dnnl_dims_t dims = {rows, columns}, strides = {row, column};
    dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_memory_desc_create_with_strides(d, 2, dims, type, strides) == dnnl_success;
#else
    return dnnl_memory_desc_init_by_strides(d, 2, dims, type, strides) == dnnl_success;
#endif
}

void tn_dnnl_undescribe(tn_descriptor *d)
{
#if DNNL_VERSION_MAJOR >= 3
    if (*d)
        dnnl_memory_desc_destroy(*d);
    *d = NULL;
#else
    (void)d;
#endif
}

dnnl_status_t tn_dnnl_attributes(const_dnnl_post_ops_t ops, dnnl_primitive_attr_t *attributes)
{
    dnnl_status_t status = dnnl_primitive_attr_create(attributes);
    if (status)
        return status;
    status = dnnl_primitive_attr_set_scratchpad_mode(*attributes, dnnl_scratchpad_mode_user);
    if (!status && ops)
        status = dnnl_primitive_attr_set_post_ops(*attributes, ops);
    if (status) {
        dnnl_primitive_attr_destroy(*attributes);
        *attributes = NULL;
    }
    return status;
}

tn_descriptor_ref tn_dnnl_scratch(const_dnnl_primitive_desc_t description)
{
    return dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
}

dnnl_status_t tn_dnnl_reorder(tn_dnnl *dnnl, tn_descriptor_ref from, tn_descriptor_ref to,
                              dnnl_primitive_t *reorder)
{
    dnnl_primitive_desc_t d = NULL;
    dnnl_status_t status =
        dnnl_reorder_primitive_desc_create(&d, from, dnnl->engine, to, dnnl->engine, NULL);
    if (!status)
        status = dnnl_primitive_create(reorder, d);
    if (d)
        dnnl_primitive_desc_destroy(d);
    return status;
}

bool tn_dnnl_gemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha,
                  const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                  int64_t ldc)
{
    return dnnl_sgemm(trans_a ? 'T' : 'N', trans_b ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb,
                      beta, c, ldc) == dnnl_success;
}
