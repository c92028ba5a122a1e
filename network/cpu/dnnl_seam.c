#include "network/cpu/dnnl_seam.h"

#include "core/memory.h"
#include "core/threads.h"

#include <omp.h>
#include <string.h>

#include <oneapi/dnnl/dnnl.h>

/* Memory descriptors are structs in 2.x and handles in 3.x: `descriptor` owns one, `descriptor_ref`
 * is what functions take. */
#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t descriptor;
typedef const_dnnl_memory_desc_t descriptor_ref;
#define REF(d) (d)
#else
typedef dnnl_memory_desc_t descriptor;
typedef const dnnl_memory_desc_t *descriptor_ref;
#define REF(d) (&(d))
#endif

enum { MAX_ARGS = 6 };

struct tn_dnnl {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
};

typedef struct lane { /* memory objects of one caller; handles change only when pointers do */
    dnnl_exec_arg_t args[MAX_ARGS];
    void *handles[MAX_ARGS];
    int n;
} lane;

struct tn_dnnl_conv {
    tn_dnnl *dnnl;
    tn_dnnl_pass pass;
    dnnl_primitive_desc_t description;
    dnnl_primitive_t primitive;
    descriptor_ref weights; /* borrowed from description */
    descriptor plain;
    bool has_plain;
    dnnl_primitive_t to_packed, to_plain; /* NULL until used */
    dnnl_memory_t plain_memory, packed_memory;
    size_t scratch_bytes;
    const char *name;
    int n_lanes;
    lane *lanes;
};

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const char *tn_dnnl_version(void)
{
    return TEXT(DNNL_VERSION_MAJOR) "." TEXT(DNNL_VERSION_MINOR) "." TEXT(DNNL_VERSION_PATCH);
}

static tn_status failed(tn_error *error, const char *what, dnnl_status_t status)
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
        return failed(error, "creating its engine", status);
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

static bool describe(descriptor *d, int rank, const dnnl_dims_t dims, bool bf16,
                     dnnl_format_tag_t tag)
{
    dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_memory_desc_create_with_tag(d, rank, dims, type, tag) == dnnl_success;
#else
    return dnnl_memory_desc_init_by_tag(d, rank, dims, type, tag) == dnnl_success;
#endif
}

static void undescribe(descriptor *d)
{
#if DNNL_VERSION_MAJOR >= 3
    if (*d)
        dnnl_memory_desc_destroy(*d);
    *d = NULL;
#else
    (void)d;
#endif
}

bool tn_dnnl_has_function(tn_function function)
{
    switch (function) {
    case TN_FUNCTION_NONE:
    case TN_FUNCTION_RELU:
    case TN_FUNCTION_CLIP:
    case TN_FUNCTION_LEAKY_RELU:
    case TN_FUNCTION_SIGMOID:
        return true;
    default:
        return false;
    }
}

static dnnl_status_t append_function(dnnl_post_ops_t ops, const tn_conv_task *task)
{
    dnnl_alg_kind_t kind = dnnl_eltwise_relu;
    float a = 0.0f, b = 0.0f;
    if (task->function == TN_FUNCTION_NONE)
        return dnnl_success;
    if (task->function == TN_FUNCTION_CLIP) {
        kind = dnnl_eltwise_clip;
        a = task->a;
        b = task->b;
    } else if (task->function == TN_FUNCTION_LEAKY_RELU) {
        a = task->a;
    } else if (task->function == TN_FUNCTION_SIGMOID) {
        kind = dnnl_eltwise_logistic;
    }
#if DNNL_VERSION_MAJOR >= 3
    return dnnl_post_ops_append_eltwise(ops, kind, a, b);
#else
    return dnnl_post_ops_append_eltwise(ops, 1.0f, kind, a, b);
#endif
}

/* Scratch memory is the caller's; forward adds the residual and applies the function. */
static dnnl_status_t make_attributes(const tn_conv_task *task, tn_dnnl_pass pass,
                                     descriptor_ref dst, dnnl_primitive_attr_t *attributes)
{
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(attributes);
    if (status)
        return status;
    status = dnnl_primitive_attr_set_scratchpad_mode(*attributes, dnnl_scratchpad_mode_user);
    if (!status && pass == TN_DNNL_FORWARD) {
        status = dnnl_post_ops_create(&ops);
        if (!status && task->residual)
            status = dnnl_post_ops_append_binary(ops, dnnl_binary_add, dst);
        if (!status)
            status = append_function(ops, task);
        if (!status)
            status = dnnl_primitive_attr_set_post_ops(*attributes, ops);
        if (ops)
            dnnl_post_ops_destroy(ops);
    }
    if (status) {
        dnnl_primitive_attr_destroy(*attributes);
        *attributes = NULL;
    }
    return status;
}

typedef struct geometry {
    dnnl_dims_t strides, dilates, begin, end;
    descriptor src, weights, bias, dst;
} geometry;

static void geometry_done(geometry *g)
{
    undescribe(&g->src);
    undescribe(&g->weights);
    undescribe(&g->bias);
    undescribe(&g->dst);
}

/* [G,] O/G, I/G, k...: the rank. */
static int weight_dims(const tn_conv_task *task, dnnl_dims_t dims)
{
    int rank = 0;
    if (task->group > 1)
        dims[rank++] = task->group;
    dims[rank++] = task->out_channels / task->group;
    dims[rank++] = task->in_channels / task->group;
    for (int i = 0; i < task->spatial; i++)
        dims[rank++] = task->kernel[i];
    return rank;
}

static dnnl_format_tag_t plain_tag(int rank)
{
    static const dnnl_format_tag_t tags[] = {dnnl_a,    dnnl_ab,    dnnl_abc,
                                             dnnl_abcd, dnnl_abcde, dnnl_abcdef};
    return tags[rank - 1];
}

static bool make_geometry(const tn_conv_task *task, tn_dnnl_pass pass, int64_t batch,
                          tn_dnnl_types types, geometry *g)
{
    static const dnnl_format_tag_t last[] = {dnnl_nwc, dnnl_nhwc, dnnl_ndhwc};
    dnnl_dims_t src, dst, weights, bias = {task->out_channels};
    memset(g, 0, sizeof(*g));
    src[0] = dst[0] = batch;
    src[1] = task->in_channels;
    dst[1] = task->out_channels;
    for (int i = 0; i < task->spatial; i++) {
        src[2 + i] = task->in[i];
        dst[2 + i] = task->out[i];
        g->strides[i] = task->stride[i];
        g->dilates[i] = task->dilation[i] - 1;
        g->begin[i] = task->pad_begin[i];
        g->end[i] = task->pad_end[i];
    }
    int rank = weight_dims(task, weights);
    const bool bf16 = types != TN_DNNL_FP32, all = types == TN_DNNL_BF16;
    const bool bf16_src = all || (bf16 && pass != TN_DNNL_BACKWARD_DATA);
    const bool bf16_dst = all || (bf16 && pass != TN_DNNL_FORWARD);
    dnnl_format_tag_t tag = last[task->spatial - 1];
    return describe(&g->src, 2 + task->spatial, src, bf16_src, tag) &&
           describe(&g->dst, 2 + task->spatial, dst, bf16_dst, tag) &&
           describe(&g->weights, rank, weights, bf16 && pass != TN_DNNL_BACKWARD_WEIGHTS,
                    dnnl_format_tag_any) &&
           describe(&g->bias, 1, bias, false, dnnl_a);
}

#if DNNL_VERSION_MAJOR >= 3
static dnnl_status_t describe_forward(tn_dnnl *dnnl, const tn_conv_task *task, const geometry *g,
                                      dnnl_primitive_attr_t attributes, dnnl_primitive_desc_t *out)
{
    return dnnl_convolution_forward_primitive_desc_create(
        out, dnnl->engine, task->fold ? dnnl_forward_inference : dnnl_forward_training,
        dnnl_convolution_direct, g->src, g->weights, task->bias || task->fold ? g->bias : NULL,
        g->dst, g->strides, g->dilates, g->begin, g->end, attributes);
}

static dnnl_status_t describe_pass(tn_dnnl *dnnl, const tn_conv_task *task, tn_dnnl_pass pass,
                                   const geometry *g, const geometry *forward,
                                   dnnl_primitive_attr_t attributes, dnnl_primitive_desc_t *out)
{
    if (pass == TN_DNNL_FORWARD)
        return describe_forward(dnnl, task, g, attributes, out);
    dnnl_primitive_desc_t hint = NULL;
    dnnl_status_t status = describe_forward(dnnl, task, forward, NULL, &hint);
    if (status)
        return status;
    if (pass == TN_DNNL_BACKWARD_DATA)
        status = dnnl_convolution_backward_data_primitive_desc_create(
            out, dnnl->engine, dnnl_convolution_direct, g->src, g->weights, g->dst, g->strides,
            g->dilates, g->begin, g->end, hint, attributes);
    else
        status = dnnl_convolution_backward_weights_primitive_desc_create(
            out, dnnl->engine, dnnl_convolution_direct, g->src, g->weights,
            task->bias ? g->bias : NULL, g->dst, g->strides, g->dilates, g->begin, g->end, hint,
            attributes);
    dnnl_primitive_desc_destroy(hint);
    return status;
}
#else
static dnnl_status_t describe_forward(tn_dnnl *dnnl, const tn_conv_task *task, const geometry *g,
                                      dnnl_primitive_attr_t attributes, dnnl_primitive_desc_t *out)
{
    dnnl_convolution_desc_t d;
    dnnl_status_t status = dnnl_dilated_convolution_forward_desc_init(
        &d, task->fold ? dnnl_forward_inference : dnnl_forward_training, dnnl_convolution_direct,
        &g->src, &g->weights, task->bias || task->fold ? &g->bias : NULL, &g->dst, g->strides,
        g->dilates, g->begin, g->end);
    return status ? status : dnnl_primitive_desc_create(out, &d, attributes, dnnl->engine, NULL);
}

static dnnl_status_t describe_pass(tn_dnnl *dnnl, const tn_conv_task *task, tn_dnnl_pass pass,
                                   const geometry *g, const geometry *forward,
                                   dnnl_primitive_attr_t attributes, dnnl_primitive_desc_t *out)
{
    if (pass == TN_DNNL_FORWARD)
        return describe_forward(dnnl, task, g, attributes, out);
    dnnl_primitive_desc_t hint = NULL;
    dnnl_convolution_desc_t d;
    dnnl_status_t status = describe_forward(dnnl, task, forward, NULL, &hint);
    if (status)
        return status;
    if (pass == TN_DNNL_BACKWARD_DATA)
        status = dnnl_dilated_convolution_backward_data_desc_init(
            &d, dnnl_convolution_direct, &g->src, &g->weights, &g->dst, g->strides, g->dilates,
            g->begin, g->end);
    else
        status = dnnl_dilated_convolution_backward_weights_desc_init(
            &d, dnnl_convolution_direct, &g->src, &g->weights, task->bias ? &g->bias : NULL,
            &g->dst, g->strides, g->dilates, g->begin, g->end);
    if (!status)
        status = dnnl_primitive_desc_create(out, &d, attributes, dnnl->engine, hint);
    dnnl_primitive_desc_destroy(hint);
    return status;
}
#endif

static bool lane_add(lane *l, tn_dnnl *dnnl, int arg, descriptor_ref d)
{
    dnnl_memory_t memory = NULL;
    if (dnnl_memory_create(&memory, d, dnnl->engine, DNNL_MEMORY_NONE))
        return false;
    l->args[l->n].arg = arg;
    l->args[l->n++].memory = memory;
    return true;
}

/* Arguments in the order src, weight, bias, residual, dst, scratch (absent ones skipped). */
static bool make_lane(tn_dnnl_conv *conv, const tn_conv_task *task, const geometry *g, lane *l)
{
    static const int forward[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS, DNNL_ARG_DST};
    static const int data[] = {DNNL_ARG_DIFF_SRC, DNNL_ARG_WEIGHTS, 0, DNNL_ARG_DIFF_DST};
    static const int weights[] = {DNNL_ARG_SRC, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_BIAS,
                                  DNNL_ARG_DIFF_DST};
    const int *args = conv->pass == TN_DNNL_FORWARD         ? forward
                      : conv->pass == TN_DNNL_BACKWARD_DATA ? data
                                                            : weights;
    bool bias =
        conv->pass == TN_DNNL_FORWARD ? task->bias || task->fold : task->bias && args[2] != 0;
    bool residual = conv->pass == TN_DNNL_FORWARD && task->residual;
    return lane_add(l, conv->dnnl, args[0], REF(g->src)) &&
           lane_add(l, conv->dnnl, args[1], conv->weights) &&
           (!bias || lane_add(l, conv->dnnl, args[2], REF(g->bias))) &&
           (!residual || lane_add(l, conv->dnnl, DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1,
                                  REF(g->dst))) &&
           lane_add(l, conv->dnnl, args[3], REF(g->dst)) &&
           lane_add(l, conv->dnnl, DNNL_ARG_SCRATCHPAD,
                    dnnl_primitive_desc_query_md(conv->description, dnnl_query_scratchpad_md, 0));
}

static tn_status finish(tn_dnnl_conv *conv, const tn_conv_task *task, const geometry *g, int lanes,
                        tn_error *error)
{
    conv->weights = dnnl_primitive_desc_query_md(
        conv->description,
        conv->pass == TN_DNNL_BACKWARD_WEIGHTS ? dnnl_query_diff_weights_md : dnnl_query_weights_md,
        0);
    conv->scratch_bytes = dnnl_memory_desc_get_size(
        dnnl_primitive_desc_query_md(conv->description, dnnl_query_scratchpad_md, 0));
    dnnl_primitive_desc_query(conv->description, dnnl_query_impl_info_str, 0, &conv->name);
    dnnl_dims_t dims;
    int rank = weight_dims(task, dims);
    conv->has_plain = describe(&conv->plain, rank, dims, false, plain_tag(rank));
    conv->lanes = tn_alloc_zero((size_t)lanes, sizeof(lane));
    if (!conv->lanes || !conv->has_plain)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    conv->n_lanes = lanes;
    for (int i = 0; i < lanes; i++)
        if (!make_lane(conv, task, g, &conv->lanes[i]))
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    return TN_OK;
}

tn_status tn_dnnl_conv_create(tn_dnnl *dnnl, const tn_conv_task *task, tn_dnnl_pass pass,
                              int64_t batch, tn_dnnl_types types, bool serial, int lanes,
                              tn_dnnl_conv **conv, tn_error *error)
{
    static const char *const what[] = {"convolution", "convolution backward data",
                                       "convolution backward weights"};
    int threads = omp_get_max_threads();
    geometry g, forward; /* backward is described with its forward primitive as a hint */
    dnnl_primitive_attr_t attributes = NULL;
    tn_status result = TN_OK;
    tn_dnnl_conv *c = tn_alloc_zero(1, sizeof(*c));
    if (!c)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    c->dnnl = dnnl;
    c->pass = pass;
    if (serial) /* a primitive is planned for the number of threads it is created under */
        omp_set_num_threads(1);
    memset(&forward, 0, sizeof(forward));
    bool described = make_geometry(task, pass, batch, types, &g) &&
                     make_geometry(task, TN_DNNL_FORWARD, batch, types, &forward);
    dnnl_status_t status =
        described ? make_attributes(task, pass, REF(g.dst), &attributes) : dnnl_invalid_arguments;
    if (!status)
        status = describe_pass(dnnl, task, pass, &g, &forward, attributes, &c->description);
    if (!status)
        status = dnnl_primitive_create(&c->primitive, c->description);
    if (serial)
        omp_set_num_threads(threads);
    result = status ? failed(error, what[pass], status) : finish(c, task, &g, lanes, error);
    geometry_done(&g);
    geometry_done(&forward);
    if (attributes)
        dnnl_primitive_attr_destroy(attributes);
    if (result != TN_OK)
        tn_dnnl_conv_destroy(c);
    else
        *conv = c;
    return result;
}

void tn_dnnl_conv_destroy(tn_dnnl_conv *conv)
{
    if (!conv)
        return;
    for (int i = 0; i < conv->n_lanes; i++)
        for (int j = 0; j < conv->lanes[i].n; j++)
            dnnl_memory_destroy(conv->lanes[i].args[j].memory);
    tn_free(conv->lanes);
    if (conv->plain_memory)
        dnnl_memory_destroy(conv->plain_memory);
    if (conv->packed_memory)
        dnnl_memory_destroy(conv->packed_memory);
    if (conv->to_packed)
        dnnl_primitive_destroy(conv->to_packed);
    if (conv->to_plain)
        dnnl_primitive_destroy(conv->to_plain);
    if (conv->primitive)
        dnnl_primitive_destroy(conv->primitive);
    if (conv->description)
        dnnl_primitive_desc_destroy(conv->description);
    if (conv->has_plain)
        undescribe(&conv->plain);
    tn_free(conv);
}

size_t tn_dnnl_conv_weight_bytes(const tn_dnnl_conv *conv)
{
    return dnnl_memory_desc_get_size(conv->weights);
}

size_t tn_dnnl_conv_scratch_bytes(const tn_dnnl_conv *conv)
{
    return conv->scratch_bytes;
}

const char *tn_dnnl_conv_name(const tn_dnnl_conv *conv)
{
    return conv->name ? conv->name : "";
}

bool tn_dnnl_conv_same_weights(const tn_dnnl_conv *a, const tn_dnnl_conv *b)
{
    return dnnl_memory_desc_equal(a->weights, b->weights) != 0;
}

static dnnl_status_t make_reorder(tn_dnnl_conv *conv, bool pack)
{
    dnnl_primitive_desc_t d = NULL;
    descriptor_ref from = pack ? REF(conv->plain) : conv->weights;
    descriptor_ref to = pack ? conv->weights : REF(conv->plain);
    dnnl_engine_t engine = conv->dnnl->engine;
    dnnl_status_t status = dnnl_reorder_primitive_desc_create(&d, from, engine, to, engine, NULL);
    if (!status)
        status = dnnl_primitive_create(pack ? &conv->to_packed : &conv->to_plain, d);
    if (d)
        dnnl_primitive_desc_destroy(d);
    if (!status && !conv->plain_memory)
        status =
            dnnl_memory_create(&conv->plain_memory, REF(conv->plain), engine, DNNL_MEMORY_NONE);
    if (!status && !conv->packed_memory)
        status = dnnl_memory_create(&conv->packed_memory, conv->weights, engine, DNNL_MEMORY_NONE);
    return status;
}

static tn_status reorder(tn_dnnl_conv *conv, bool pack, void *plain, void *packed, tn_error *error)
{
    dnnl_status_t status = dnnl_success;
    if (!(pack ? conv->to_packed : conv->to_plain))
        status = make_reorder(conv, pack);
    if (!status)
        status = dnnl_memory_set_data_handle(conv->plain_memory, plain);
    if (!status)
        status = dnnl_memory_set_data_handle(conv->packed_memory, packed);
    if (!status) {
        dnnl_exec_arg_t args[2] = {{DNNL_ARG_FROM, pack ? conv->plain_memory : conv->packed_memory},
                                   {DNNL_ARG_TO, pack ? conv->packed_memory : conv->plain_memory}};
        status = dnnl_primitive_execute(pack ? conv->to_packed : conv->to_plain, conv->dnnl->stream,
                                        2, args);
    }
    return status ? failed(error, "reordering weights", status) : TN_OK;
}

tn_status tn_dnnl_conv_pack(tn_dnnl_conv *conv, const float *plain, void *packed, tn_error *error)
{
    return reorder(conv, true, (void *)(uintptr_t)plain, packed, error);
}

tn_status tn_dnnl_conv_unpack(tn_dnnl_conv *conv, const void *packed, float *plain, tn_error *error)
{
    return reorder(conv, false, plain, (void *)(uintptr_t)packed, error);
}

static bool set_handle(lane *l, int i, const void *pointer)
{
    void *handle = (void *)(uintptr_t)pointer;
    if (l->handles[i] == handle)
        return true;
    if (dnnl_memory_set_data_handle(l->args[i].memory, handle))
        return false;
    l->handles[i] = handle;
    return true;
}

bool tn_dnnl_conv_run(tn_dnnl_conv *conv, int lane_index, const tn_dnnl_conv_args *args)
{
    lane *l = &conv->lanes[lane_index];
    for (int i = 0; i < l->n; i++) {
        const void *pointer = NULL;
        switch (l->args[i].arg) {
        case DNNL_ARG_SRC:
        case DNNL_ARG_DIFF_SRC:
            pointer = args->src;
            break;
        case DNNL_ARG_WEIGHTS:
        case DNNL_ARG_DIFF_WEIGHTS:
            pointer = args->weight;
            break;
        case DNNL_ARG_BIAS:
        case DNNL_ARG_DIFF_BIAS:
            pointer = args->bias;
            break;
        case DNNL_ARG_DST:
        case DNNL_ARG_DIFF_DST:
            pointer = args->dst;
            break;
        case DNNL_ARG_SCRATCHPAD:
            pointer = args->scratch;
            break;
        default:
            pointer = args->residual;
        }
        if (!set_handle(l, i, pointer))
            return false;
    }
    return dnnl_primitive_execute(conv->primitive, conv->dnnl->stream, l->n, l->args) ==
           dnnl_success;
}

bool tn_dnnl_gemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha,
                  const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                  int64_t ldc)
{
    return dnnl_sgemm(trans_a ? 'T' : 'N', trans_b ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb,
                      beta, c, ldc) == dnnl_success;
}

/* --- products --------------------------------------------------------------------------------- */

struct tn_dnnl_product {
    tn_dnnl *dnnl;
    descriptor a, b, c, plain;
    dnnl_primitive_desc_t description[2]; /* overwriting, adding */
    dnnl_primitive_t primitive[2], pack;
    descriptor_ref packed; /* b's layout; borrowed from description */
    size_t scratch_bytes;
};

static bool describe_strided(descriptor *d, int64_t rows, int64_t columns, int64_t row,
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

static bool describe_operands(tn_dnnl_product *p, const tn_dnnl_product_shape *s)
{
    dnnl_dims_t b = {s->k, s->n};
    return describe_strided(&p->a, s->m, s->k, s->trans_a ? 1 : s->k, s->trans_a ? s->m : 1,
                            s->bf16) &&
           describe(&p->b, 2, b, s->bf16, s->packed_b ? dnnl_format_tag_any : dnnl_ab) &&
           describe_strided(&p->c, s->m, s->n, s->n, 1, false) &&
           (!s->packed_b ||
            describe_strided(&p->plain, s->k, s->n, s->pack_row, s->pack_column, s->bf16));
}

static dnnl_status_t product_attributes(bool add, dnnl_primitive_attr_t *attributes)
{
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t status = dnnl_primitive_attr_create(attributes);
    if (status)
        return status;
    status = dnnl_primitive_attr_set_scratchpad_mode(*attributes, dnnl_scratchpad_mode_user);
    if (!status && add)
        status = dnnl_post_ops_create(&ops);
    if (!status && add)
#if DNNL_VERSION_MAJOR >= 3
        status = dnnl_post_ops_append_sum(ops, 1.0f, 0, dnnl_f32);
#else
        status = dnnl_post_ops_append_sum(ops, 1.0f);
#endif
    if (!status && add)
        status = dnnl_primitive_attr_set_post_ops(*attributes, ops);
    if (ops)
        dnnl_post_ops_destroy(ops);
    return status;
}

/* The adding primitive reads b in the layout that the overwriting one chose. */
static dnnl_status_t make_product(tn_dnnl_product *p, int add)
{
    dnnl_primitive_attr_t attributes = NULL;
    descriptor_ref b = add ? p->packed : REF(p->b);
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
    size_t scratch = dnnl_memory_desc_get_size(
        dnnl_primitive_desc_query_md(p->description[add], dnnl_query_scratchpad_md, 0));
    p->scratch_bytes = scratch > p->scratch_bytes ? scratch : p->scratch_bytes;
    p->packed = dnnl_primitive_desc_query_md(p->description[add], dnnl_query_weights_md, 0);
    return status;
}

static dnnl_status_t make_packing(tn_dnnl_product *p)
{
    dnnl_primitive_desc_t d = NULL;
    dnnl_engine_t engine = p->dnnl->engine;
    dnnl_status_t status =
        dnnl_reorder_primitive_desc_create(&d, REF(p->plain), engine, p->packed, engine, NULL);
    if (!status)
        status = dnnl_primitive_create(&p->pack, d);
    if (d)
        dnnl_primitive_desc_destroy(d);
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
        status = make_packing(p);
    omp_set_num_threads(threads);
    if (status) {
        tn_dnnl_product_destroy(p);
        return failed(error, "matrix product", status);
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
    undescribe(&product->a);
    undescribe(&product->b);
    undescribe(&product->c);
    undescribe(&product->plain);
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
                         const int *names, const descriptor_ref *layouts, void *const *handles)
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
    const descriptor_ref layouts[] = {REF(product->plain), product->packed};
    void *const handles[] = {(void *)(uintptr_t)plain, packed};
    return execute_once(product, product->pack, 2, names, layouts, handles);
}

bool tn_dnnl_product_run(const tn_dnnl_product *product, bool add, const void *a, const void *b,
                         float *c, void *scratch)
{
    const int names[] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD};
    const descriptor_ref layouts[] = {
        REF(product->a), product->packed, REF(product->c),
        dnnl_primitive_desc_query_md(product->description[add], dnnl_query_scratchpad_md, 0)};
    void *const handles[] = {(void *)(uintptr_t)a, (void *)(uintptr_t)b, c, scratch};
    return execute_once(product, product->primitive[add], 4, names, layouts, handles);
}
