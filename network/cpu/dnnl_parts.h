/* What the files behind dnnl_seam.h share. */
#ifndef TERNION_NETWORK_CPU_DNNL_PARTS_H
#define TERNION_NETWORK_CPU_DNNL_PARTS_H

#include "network/cpu/dnnl_seam.h"

#include <oneapi/dnnl/dnnl.h>

/* Memory descriptors are structs in 2.x and handles in 3.x: `tn_descriptor` owns one,
 * `tn_descriptor_ref` is what functions take. */
#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t tn_descriptor;
typedef const_dnnl_memory_desc_t tn_descriptor_ref;
#define TN_REF(d) (d)
#else
typedef dnnl_memory_desc_t tn_descriptor;
typedef const dnnl_memory_desc_t *tn_descriptor_ref;
#define TN_REF(d) (&(d))
#endif

struct tn_dnnl {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
};

/* Fails with what oneDNN could not do, and why. */
tn_status tn_dnnl_failed(tn_error *error, const char *what, dnnl_status_t status) TN_MUST_CHECK;

/* False when oneDNN refuses. */
bool tn_dnnl_describe(tn_descriptor *d, int rank, const dnnl_dims_t dims, bool bf16,
                      dnnl_format_tag_t tag);
bool tn_dnnl_describe_strided(tn_descriptor *d, int64_t rows, int64_t columns, int64_t row,
                              int64_t column, bool bf16);
void tn_dnnl_undescribe(tn_descriptor *d);

/* Of primitives whose scratch memory is the caller's; ops: NULL, or what they do to the result. */
dnnl_status_t tn_dnnl_attributes(const_dnnl_post_ops_t ops, dnnl_primitive_attr_t *attributes);
/* The layout of that memory, borrowed. */
tn_descriptor_ref tn_dnnl_scratch(const_dnnl_primitive_desc_t description);

dnnl_status_t tn_dnnl_reorder(tn_dnnl *dnnl, tn_descriptor_ref from, tn_descriptor_ref to,
                              dnnl_primitive_t *reorder);

#endif
