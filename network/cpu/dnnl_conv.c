/* Passes of a convolution. */
#include "network/cpu/dnnl_parts.h"

#include "core/memory.h"

#include <omp.h>
#include <string.h>

enum { MAX_ARGS = 6 };

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
    tn_descriptor_ref weights; /* borrowed from description */
    tn_descriptor plain;
    bool has_plain;
    dnnl_primitive_t to_packed, to_plain; /* NULL until used */
    dnnl_memory_t plain_memory, packed_memory;
    size_t scratch_bytes;
    const char *name;
    int n_lanes;
    lane *lanes;
};

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

/* Forward adds the residual and applies the function. */
static dnnl_status_t make_attributes(const tn_conv_task *task, tn_dnnl_pass pass,
                                     tn_descriptor_ref dst, dnnl_primitive_attr_t *attributes)
{
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t status = dnnl_success;
    if (pass == TN_DNNL_FORWARD)
        status = dnnl_post_ops_create(&ops);
    if (!status && ops && task->residual)
        status = dnnl_post_ops_append_binary(ops, dnnl_binary_add, dst);
    if (!status && ops)
        status = append_function(ops, task);
    if (!status)
        status = tn_dnnl_attributes(ops, attributes);
    if (ops)
        dnnl_post_ops_destroy(ops);
    return status;
}

typedef struct geometry {
    dnnl_dims_t strides, dilates, begin, end;
    tn_descriptor src, weights, bias, dst;
} geometry;

static void geometry_done(geometry *g)
{
    tn_dnnl_undescribe(&g->src);
    tn_dnnl_undescribe(&g->weights);
    tn_dnnl_undescribe(&g->bias);
    tn_dnnl_undescribe(&g->dst);
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
    return tn_dnnl_describe(&g->src, 2 + task->spatial, src, bf16_src, tag) &&
           tn_dnnl_describe(&g->dst, 2 + task->spatial, dst, bf16_dst, tag) &&
           tn_dnnl_describe(&g->weights, rank, weights, bf16 && pass != TN_DNNL_BACKWARD_WEIGHTS,
                            dnnl_format_tag_any) &&
           tn_dnnl_describe(&g->bias, 1, bias, false, dnnl_a);
}

/* Whether some element of the kernel meets nothing but padding. */
static bool has_idle_tap(const tn_conv_task *t)
{
    for (int i = 0; i < t->spatial; i++)
        for (int64_t k = 0; k < t->kernel[i]; k++) {
            bool idle = true;
            for (int64_t o = 0; o < t->out[i] && idle; o++) {
                int64_t at = o * t->stride[i] - t->pad_begin[i] + k * t->dilation[i];
                idle = at < 0 || at >= t->in[i];
            }
            if (idle)
                return true;
        }
    return false;
}

/* Implementations of oneDNN 2.6 whose results are not the formula's, found with the oracle of
 * tests/network: data gradients of 1x1 convolutions with an odd number of output channels in bf16;
 * weight gradients over three axes; weight gradients in bf16 of what meets only padding, which are
 * not set to 0; a residual added by the product of columns, with groups or where an axis has one
 * element. (The reference that comes last adds it right, but takes too long.) */
static bool is_wrong(const tn_conv_task *task, tn_dnnl_pass pass,
                     const_dnnl_primitive_desc_t description)
{
    const char *name = "";
    dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, &name);
    if (pass == TN_DNNL_BACKWARD_DATA)
        return task->out_channels / task->group % 2 != 0 && strstr(name, "bf16_1x1") != NULL;
    if (pass == TN_DNNL_BACKWARD_WEIGHTS)
        return (task->spatial == 3 && strncmp(name, "jit", 3) == 0) ||
               (strstr(name, "bf16") != NULL && has_idle_tap(task));
    return task->residual && (strstr(name, "gemm") != NULL || strncmp(name, "ref", 3) == 0);
}

#if DNNL_VERSION_MAJOR >= 3
/* The first implementation that is right. */
static dnnl_status_t choose(const tn_conv_task *task, tn_dnnl_pass pass,
                            dnnl_primitive_desc_t *description)
{
    dnnl_status_t status = dnnl_success;
    while (!status && is_wrong(task, pass, *description))
        status = dnnl_primitive_desc_next_impl(*description);
    if (status) {
        dnnl_primitive_desc_destroy(*description);
        *description = NULL;
    }
    return status;
}

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
    dnnl_primitive_desc_t hint = NULL;
    dnnl_status_t status = pass == TN_DNNL_FORWARD
                               ? describe_forward(dnnl, task, g, attributes, out)
                               : describe_forward(dnnl, task, forward, NULL, &hint);
    if (status || pass == TN_DNNL_FORWARD)
        return status ? status : choose(task, pass, out);
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
    return status ? status : choose(task, pass, out);
}
#else
/* The first implementation that is right. */
static dnnl_status_t choose(tn_dnnl *dnnl, const tn_conv_task *task, tn_dnnl_pass pass,
                            const dnnl_convolution_desc_t *d, dnnl_primitive_attr_t attributes,
                            dnnl_primitive_desc_t hint, dnnl_primitive_desc_t *out)
{
    dnnl_primitive_desc_iterator_t at = NULL;
    dnnl_status_t status =
        dnnl_primitive_desc_iterator_create(&at, d, attributes, dnnl->engine, hint);
    *out = NULL;
    while (!status && !*out) {
        *out = dnnl_primitive_desc_iterator_fetch(at);
        if (!*out) {
            status = dnnl_out_of_memory;
        } else if (is_wrong(task, pass, *out)) {
            dnnl_primitive_desc_destroy(*out);
            *out = NULL;
            status = dnnl_primitive_desc_iterator_next(at);
        }
    }
    if (at)
        dnnl_primitive_desc_iterator_destroy(at);
    return status;
}

static dnnl_status_t describe_forward(const tn_conv_task *task, const geometry *g,
                                      dnnl_convolution_desc_t *d)
{
    return dnnl_dilated_convolution_forward_desc_init(
        d, task->fold ? dnnl_forward_inference : dnnl_forward_training, dnnl_convolution_direct,
        &g->src, &g->weights, task->bias || task->fold ? &g->bias : NULL, &g->dst, g->strides,
        g->dilates, g->begin, g->end);
}

static dnnl_status_t describe_pass(tn_dnnl *dnnl, const tn_conv_task *task, tn_dnnl_pass pass,
                                   const geometry *g, const geometry *forward,
                                   dnnl_primitive_attr_t attributes, dnnl_primitive_desc_t *out)
{
    dnnl_primitive_desc_t hint = NULL;
    dnnl_convolution_desc_t d;
    dnnl_status_t status = describe_forward(task, pass == TN_DNNL_FORWARD ? g : forward, &d);
    if (status || pass == TN_DNNL_FORWARD)
        return status ? status : choose(dnnl, task, pass, &d, attributes, NULL, out);
    status = dnnl_primitive_desc_create(&hint, &d, NULL, dnnl->engine, NULL);
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
        status = choose(dnnl, task, pass, &d, attributes, hint, out);
    dnnl_primitive_desc_destroy(hint);
    return status;
}
#endif

static bool lane_add(lane *l, tn_dnnl *dnnl, int arg, tn_descriptor_ref d)
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
    return lane_add(l, conv->dnnl, args[0], TN_REF(g->src)) &&
           lane_add(l, conv->dnnl, args[1], conv->weights) &&
           (!bias || lane_add(l, conv->dnnl, args[2], TN_REF(g->bias))) &&
           (!residual || lane_add(l, conv->dnnl, DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1,
                                  TN_REF(g->dst))) &&
           lane_add(l, conv->dnnl, args[3], TN_REF(g->dst)) &&
           lane_add(l, conv->dnnl, DNNL_ARG_SCRATCHPAD, tn_dnnl_scratch(conv->description));
}

static tn_status finish(tn_dnnl_conv *conv, const tn_conv_task *task, const geometry *g, int lanes,
                        tn_error *error)
{
    conv->weights = dnnl_primitive_desc_query_md(
        conv->description,
        conv->pass == TN_DNNL_BACKWARD_WEIGHTS ? dnnl_query_diff_weights_md : dnnl_query_weights_md,
        0);
    conv->scratch_bytes = dnnl_memory_desc_get_size(tn_dnnl_scratch(conv->description));
    dnnl_primitive_desc_query(conv->description, dnnl_query_impl_info_str, 0, &conv->name);
    dnnl_dims_t dims;
    int rank = weight_dims(task, dims);
    conv->has_plain = tn_dnnl_describe(&conv->plain, rank, dims, false, plain_tag(rank));
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
    dnnl_status_t status = described ? make_attributes(task, pass, TN_REF(g.dst), &attributes)
                                     : dnnl_invalid_arguments;
    if (!status)
        status = describe_pass(dnnl, task, pass, &g, &forward, attributes, &c->description);
    if (!status)
        status = dnnl_primitive_create(&c->primitive, c->description);
    if (serial)
        omp_set_num_threads(threads);
    result = status ? tn_dnnl_failed(error, what[pass], status) : finish(c, task, &g, lanes, error);
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
        tn_dnnl_undescribe(&conv->plain);
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
    tn_descriptor_ref plain = TN_REF(conv->plain), packed = conv->weights;
    dnnl_engine_t engine = conv->dnnl->engine;
    dnnl_status_t status = pack ? tn_dnnl_reorder(conv->dnnl, plain, packed, &conv->to_packed)
                                : tn_dnnl_reorder(conv->dnnl, packed, plain, &conv->to_plain);
    if (!status && !conv->plain_memory)
        status = dnnl_memory_create(&conv->plain_memory, plain, engine, DNNL_MEMORY_NONE);
    if (!status && !conv->packed_memory)
        status = dnnl_memory_create(&conv->packed_memory, packed, engine, DNNL_MEMORY_NONE);
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
    return status ? tn_dnnl_failed(error, "reordering weights", status) : TN_OK;
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
