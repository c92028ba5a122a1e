/* Matrix products on one thread. */
#include "network/cpu/dnnl_parts.h"

#include "core/memory.h"

#include <omp.h>

struct tn_dnnl_product {
    tn_dnnl *dnnl;
    tn_descriptor a, b, c, plain;
    dnnl_primitive_desc_t description[2]; /* overwriting, adding */
    dnnl_primitive_t primitive[2], pack;
    tn_descriptor_ref packed; /* b's layout; borrowed from description */
    size_t scratch_bytes;
};

static bool describe_operands(tn_dnnl_product *p, const tn_dnnl_product_shape *s)
{
    dnnl_dims_t b = {s->k, s->n};
    return tn_dnnl_describe_strided(&p->a, s->m, s->k, s->trans_a ? 1 : s->k, s->trans_a ? s->m : 1,
                                    s->bf16) &&
           tn_dnnl_describe(&p->b, 2, b, s->bf16, s->packed_b ? dnnl_format_tag_any : dnnl_ab) &&
           tn_dnnl_describe_strided(&p->c, s->m, s->n, s->n, 1, false) &&
           (!s->packed_b ||
            tn_dnnl_describe_strided(&p->plain, s->k, s->n, s->pack_row, s->pack_column, s->bf16));
}

static dnnl_status_t product_attributes(bool add, dnnl_primitive_attr_t *attributes)
{
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t status = add ? dnnl_post_ops_create(&ops) : dnnl_success;
    if (!status && add)
#if DNNL_VERSION_MAJOR >= 3
        status = dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_f32);
#else
        status = dnnl_post_ops_append_sum(ops, 1.0f);
#endif
    if (!status)
        status = tn_dnnl_attributes(ops, attributes);
    if (ops)
        dnnl_post_ops_destroy(ops);
    return status;
}

/* The adding primitive reads b in the layout that the overwriting one chose. */
static dnnl_status_t make_product(tn_dnnl_product *p, int add)
{
    dnnl_primitive_attr_t attributes = NULL;
    tn_descriptor_ref b = add ? p->packed : TN_REF(p->b);
    dnnl_status_t status = product_attributes(add, &attributes);
#if DNNL_VERSION_MAJOR >= 3
    if (!status)
        status = dnnl_matmul_primitive_desc_create(&p->description[add], p->dnnl->engine, p->a, b,
                                                   NULL, p->c, attributes);
#else
    dnnl_matmul_desc_t d;
    if (!status)
        status = dnnl_matmul_desc_init(&d, &p->a, b, NULL, &p->c);
    if (!status)
        status =
            dnnl_primitive_desc_create(&p->description[add], &d, attributes, p->dnnl->engine, NULL);
#endif
    if (attributes)
        dnnl_primitive_attr_destroy(attributes);
    if (!status)
        status = dnnl_primitive_create(&p->primitive[add], p->description[add]);
    if (status)
        return status;
    size_t scratch = dnnl_memory_desc_get_size(tn_dnnl_scratch(p->description[add]));
    p->scratch_bytes = scratch > p->scratch_bytes ? scratch : p->scratch_bytes;
    p->packed = dnnl_primitive_desc_query_md(p->description[add], dnnl_query_weights_md, 0);
    return status;
}

tn_status tn_dnnl_product_create(tn_dnnl *dnnl, const tn_dnnl_product_shape *shape,
                                 tn_dnnl_product **product, tn_error *error)
{
    int threads = omp_get_max_threads();
    tn_dnnl_product *p = tn_alloc_zero(1, sizeof(*p));
    if (!p)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    p->dnnl = dnnl;
    omp_set_num_threads(1); /* a primitive is planned for the threads it is created under */
    dnnl_status_t status = describe_operands(p, shape) ? dnnl_success : dnnl_invalid_arguments;
    for (int add = 0; add < 2 && !status; add++)
        status = make_product(p, add);
    if (!status && shape->packed_b)
        status = tn_dnnl_reorder(dnnl, TN_REF(p->plain), p->packed, &p->pack);
    omp_set_num_threads(threads);
    if (status) {
        tn_dnnl_product_destroy(p);
        return tn_dnnl_failed(error, "matrix product", status);
    }
    *product = p;
    return TN_OK;
}

void tn_dnnl_product_destroy(tn_dnnl_product *product)
{
    if (!product)
        return;
    for (int add = 0; add < 2; add++) {
        if (product->primitive[add])
            dnnl_primitive_destroy(product->primitive[add]);
        if (product->description[add])
            dnnl_primitive_desc_destroy(product->description[add]);
    }
    if (product->pack)
        dnnl_primitive_destroy(product->pack);
    tn_dnnl_undescribe(&product->a);
    tn_dnnl_undescribe(&product->b);
    tn_dnnl_undescribe(&product->c);
    tn_dnnl_undescribe(&product->plain);
    tn_free(product);
}

size_t tn_dnnl_product_packed_bytes(const tn_dnnl_product *product)
{
    return dnnl_memory_desc_get_size(product->packed);
}

size_t tn_dnnl_product_scratch_bytes(const tn_dnnl_product *product)
{
    return product->scratch_bytes;
}

const char *tn_dnnl_product_name(const tn_dnnl_product *product)
{
    const char *name = NULL;
    dnnl_primitive_desc_query(product->description[0], dnnl_query_impl_info_str, 0, &name);
    return name ? name : "";
}

/* Memory objects are made for each call, which may be one of several at a time. */
static bool execute_once(const tn_dnnl_product *p, dnnl_primitive_t primitive, int n,
                         const int *names, const tn_descriptor_ref *layouts, void *const *handles)
{
    dnnl_exec_arg_t args[4];
    int made = 0;
    while (made < n &&
           !dnnl_memory_create(&args[made].memory, layouts[made], p->dnnl->engine, handles[made])) {
        args[made].arg = names[made];
        made++;
    }
    bool ok =
        made == n && dnnl_primitive_execute(primitive, p->dnnl->stream, n, args) == dnnl_success;
    while (made-- > 0)
        dnnl_memory_destroy(args[made].memory);
    return ok;
}

bool tn_dnnl_product_pack(const tn_dnnl_product *product, const void *plain, void *packed)
{
    const int names[] = {DNNL_ARG_FROM, DNNL_ARG_TO};
    const tn_descriptor_ref layouts[] = {TN_REF(product->plain), product->packed};
    void *const handles[] = {(void *)(uintptr_t)plain, packed};
    return execute_once(product, product->pack, 2, names, layouts, handles);
}

bool tn_dnnl_product_run(const tn_dnnl_product *product, bool add, const void *a, const void *b,
                         float *c, void *scratch)
{
    const int names[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD};
    const tn_descriptor_ref layouts[] = {TN_REF(product->a), product->packed, TN_REF(product->c),
                                         tn_dnnl_scratch(product->description[add])};
    void *const handles[] = {(void *)(uintptr_t)a, (void *)(uintptr_t)b, c, scratch};
    return execute_once(product, product->primitive[add], 4, names, layouts, handles);
}
