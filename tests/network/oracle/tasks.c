#include "tasks.h"

#include <string.h>

static int64_t range(tn_random *random, int64_t low, int64_t high)
{
    return low + (int64_t)tn_random_below(random, (uint32_t)(high - low + 1));
}

static bool coin(tn_random *random)
{
    return tn_random_below(random, 2) == 0;
}

static int64_t product(const int64_t *dims, int n)
{
    int64_t p = 1;
    for (int i = 0; i < n; i++)
        p *= dims[i];
    return p;
}

static void draw_extent(tn_random *random, tn_extent *extent)
{
    extent->rank = (int)range(random, 1, 4);
    for (int i = 0; i < extent->rank; i++)
        extent->dims[i] = range(random, 1, 6);
}

/* in, kernel, stride, dilation, pads; out so that every window starts inside the padded input. */
static void draw_window(tn_random *random, int spatial, int64_t *in, int64_t *out, int64_t *kernel,
                        int64_t *stride, int64_t *dilation, int64_t *begin, int64_t *end)
{
    for (int i = 0; i < spatial; i++) {
        kernel[i] = range(random, 1, 4);
        dilation[i] = range(random, 1, 2);
        stride[i] = range(random, 1, 3);
        begin[i] = range(random, 0, kernel[i] - 1);
        end[i] = range(random, 0, kernel[i] - 1);
        in[i] = range(random, (kernel[i] - 1) * dilation[i] + 1, 11);
        out[i] = (in[i] + begin[i] + end[i] - (kernel[i] - 1) * dilation[i] - 1) / stride[i] + 1;
    }
}

static tn_function draw_function(tn_random *random, float *a, float *b)
{
    static const tn_function functions[] = {TN_FUNCTION_NONE, TN_FUNCTION_RELU, TN_FUNCTION_CLIP,
                                            TN_FUNCTION_LEAKY_RELU, TN_FUNCTION_SIGMOID};
    tn_function f = functions[tn_random_below(random, 5)];
    *a = f == TN_FUNCTION_LEAKY_RELU ? 0.1f : f == TN_FUNCTION_CLIP ? -0.5f : 0.0f;
    *b = f == TN_FUNCTION_CLIP ? 1.5f : 0.0f;
    return f;
}

/* Many channels and images, rows of at most 3 pixels: what devices may do as matrix products. */
static void draw_pixel_conv(tn_random *random, tn_task *task, oracle *o)
{
    tn_conv_task *t = &task->conv;
    t->spatial = 2;
    t->group = 1;
    t->batch = range(random, 16, 20);
    t->in_channels = 16 * range(random, 4, 5);
    t->out_channels = coin(random) ? 128 : 80;
    for (int i = 0; i < 2; i++) {
        t->kernel[i] = range(random, 2, 3);
        t->stride[i] = range(random, 1, 2);
        t->dilation[i] = range(random, 1, 2);
        t->pad_begin[i] = range(random, 0, t->kernel[i] - 1);
        t->pad_end[i] = range(random, 0, t->kernel[i] - 1);
        int64_t padding = t->pad_begin[i] + t->pad_end[i], window = t->dilation[i] * t->kernel[i];
        t->in[i] = range(random, 1, 3) * t->stride[i] + window - t->dilation[i] - padding;
        t->in[i] = t->in[i] < 1 ? 1 : t->in[i];
        while (t->in[i] + padding <= window - t->dilation[i])
            t->in[i]++;
        t->out[i] = (t->in[i] + padding - window + t->dilation[i] - 1) / t->stride[i] + 1;
    }
    t->bias = coin(random);
    o->n_src = 1;
    o->dst_count = t->batch * t->out_channels * product(t->out, 2);
    o->src_count[0] = t->batch * t->in_channels * product(t->in, 2);
    o->param_count[0] = t->out_channels * t->in_channels * product(t->kernel, 2);
    o->param_count[1] = t->out_channels;
    o->n_params = t->bias ? 2 : 1;
}

static void draw_conv(tn_random *random, bool fused, tn_task *task, oracle *o)
{
    tn_conv_task *t = &task->conv;
    if (!fused && tn_random_below(random, 4) == 0) {
        draw_pixel_conv(random, task, o);
        return;
    }
    t->spatial = tn_random_below(random, 5) ? 2 : 3;
    t->group = coin(random) ? 1 : range(random, 2, 4);
    bool depthwise = coin(random);
    int64_t per_in = depthwise && t->group > 1 ? 1 : range(random, 1, 9);
    int64_t per_out = depthwise && t->group > 1 ? 1 : range(random, 1, 20);
    if (depthwise && t->group > 1)
        t->group = range(random, 2, 40);
    t->batch = range(random, 1, 5);
    t->in_channels = per_in * t->group;
    t->out_channels = per_out * t->group;
    draw_window(random, t->spatial, t->in, t->out, t->kernel, t->stride, t->dilation, t->pad_begin,
                t->pad_end);
    t->bias = coin(random);
    t->epsilon = 1e-3f;
    if (fused) {
        t->fold = coin(random);
        t->residual = coin(random);
        t->function = draw_function(random, &t->a, &t->b);
    }
    task_count_conv(task, o);
}

void task_count_conv(const tn_task *task, oracle *o)
{
    const tn_conv_task *t = &task->conv;
    int64_t per_in = t->in_channels / t->group;
    o->n_src = t->residual ? 2 : 1;
    o->dst_count = t->batch * t->out_channels * product(t->out, t->spatial);
    o->src_count[0] = t->batch * t->in_channels * product(t->in, t->spatial);
    o->src_count[1] = o->dst_count;
    o->param_count[0] = t->out_channels * per_in * product(t->kernel, t->spatial);
    o->n_params = (t->bias ? 2 : 1) + (t->fold ? 4 : 0);
    for (int i = 1; i < o->n_params; i++)
        o->param_count[i] = t->out_channels;
}

static void draw_gemm(tn_random *random, bool fused, tn_task *task, oracle *o)
{
    tn_gemm_task *t = &task->gemm;
    t->const_b = coin(random);
    t->shared_b = t->const_b;
    t->batch = t->const_b ? 1 : range(random, 1, 3);
    t->m = range(random, 1, 40);
    t->n = range(random, 1, 70);
    t->k = range(random, 1, 50);
    t->trans_a = coin(random);
    t->trans_b = coin(random);
    t->alpha = coin(random) ? 1.0f : 0.75f;
    t->beta = coin(random) ? 1.0f : -0.5f;
    t->has_c = coin(random);
    t->const_c = coin(random);
    t->c_rows = coin(random) ? 1 : t->m;
    t->c_cols = coin(random) ? 1 : t->n;
    if (fused)
        t->function = TN_FUNCTION_RELU;
    o->dst_count = t->batch * t->m * t->n;
    o->src_count[o->n_src++] = t->batch * t->m * t->k;
    int64_t b = (t->shared_b ? 1 : t->batch) * t->k * t->n;
    if (t->const_b)
        o->param_count[o->n_params++] = b;
    else
        o->src_count[o->n_src++] = b;
    if (t->has_c && t->const_c)
        o->param_count[o->n_params++] = t->c_rows * t->c_cols;
    else if (t->has_c)
        o->src_count[o->n_src++] = t->c_rows * t->c_cols;
}

static tn_fake_quantize_task draw_codes(tn_random *random, int64_t count)
{
    bool is_signed = coin(random);
    return (tn_fake_quantize_task){.count = count,
                                   .low = is_signed ? -2.0f : 0.0f,
                                   .high = coin(random) ? 3.0f : 1.0f,
                                   .clip_only = coin(random),
                                   .step_factor = coin(random) ? 1.0f : 0.25f};
}

static void draw_batch_norm(tn_random *random, tn_task *task, int64_t *parts, oracle *o)
{
    tn_batch_norm_task *t = &task->batch_norm;
    t->rows = range(random, 2, 200);
    t->channels = range(random, 1, 40);
    t->epsilon = 1e-5f;
    t->residual = coin(random);
    t->function = coin(random) ? TN_FUNCTION_NONE : TN_FUNCTION_RELU;
    o->n_src = t->residual ? 2 : 1;
    o->n_params = 4;
    o->dst_count = o->src_count[0] = o->src_count[1] = t->rows * t->channels;
    if (!t->residual && coin(random)) {
        t->channels = 0;
        t->n_parts = o->n_src = (int)range(random, 1, 4);
        t->parts = parts;
        for (int i = 0; i < t->n_parts; i++) {
            parts[i] = range(random, 1, 40);
            t->channels += parts[i];
            o->src_count[i] = t->rows * parts[i];
        }
        o->dst_count = t->rows * t->channels;
    }
    for (int i = 0; i < 4; i++)
        o->param_count[i] = t->channels;
    t->codes = coin(random);
    if (t->codes) { /* few elements: of many some lie at a tie within rounding */
        t->rows = t->rows % 30 + 2;
        int n = t->n_parts ? t->n_parts : 1;
        for (int i = 0; i < n || (t->residual && i < 2); i++)
            o->src_count[i] = t->rows * (t->n_parts ? parts[i] : t->channels);
        o->dst_count = t->rows * t->channels;
        t->quantize = draw_codes(random, o->dst_count);
        o->param_count[o->n_params++] = 1;
    }
}

static void draw_pool(tn_random *random, tn_task *task, oracle *o)
{
    tn_pool_task *t = &task->pool;
    t->spatial = (int)range(random, 1, 3);
    t->max = coin(random);
    t->count_include_pad = coin(random);
    t->batch = range(random, 1, 4);
    t->channels = range(random, 1, 20);
    draw_window(random, t->spatial, t->in, t->out, t->kernel, t->stride, t->dilation, t->pad_begin,
                t->pad_end);
    for (int i = 0; i < t->spatial; i++)
        if (!t->max)
            t->dilation[i] = 1; /* out is then smaller than it could be: legal */
    o->n_src = 1;
    o->src_count[0] = t->batch * t->channels * product(t->in, t->spatial);
    o->dst_count = t->batch * t->channels * product(t->out, t->spatial);
}

static void draw_unary(tn_random *random, tn_task *task, oracle *o)
{
    static const tn_function functions[] = {
        TN_FUNCTION_RELU,    TN_FUNCTION_CLIP,         TN_FUNCTION_LEAKY_RELU,
        TN_FUNCTION_SIGMOID, TN_FUNCTION_HARD_SIGMOID, TN_FUNCTION_HARD_SWISH,
        TN_FUNCTION_TANH,    TN_FUNCTION_ELU,          TN_FUNCTION_EXP,
        TN_FUNCTION_ABS,     TN_FUNCTION_NEG};
    tn_unary_task *t = &task->unary;
    t->function = functions[tn_random_below(random, 11)];
    t->a = t->function == TN_FUNCTION_CLIP ? -0.4f : 0.3f;
    t->b = 0.8f;
    t->count = range(random, 1, 20000);
    o->n_src = 1;
    o->src_count[0] = o->dst_count = t->count;
}

static void draw_binary(tn_random *random, tn_task *task, oracle *o)
{
    tn_binary_task *t = &task->binary;
    t->kind = (tn_binary_kind)tn_random_below(random, TN_N_BINARY_KINDS);
    draw_extent(random, &t->dst);
    t->a = t->b = t->dst;
    for (int i = 0; i < t->dst.rank; i++)
        switch (tn_random_below(random, 5)) {
        case 0:
            t->a.dims[i] = 1;
            break;
        case 1:
            t->b.dims[i] = 1;
            break;
        default:
            break;
        }
    t->function = coin(random) ? TN_FUNCTION_NONE : TN_FUNCTION_RELU;
    o->n_src = 2;
    o->src_count[0] = tn_extent_count(&t->a);
    o->src_count[1] = tn_extent_count(&t->b);
    o->dst_count = tn_extent_count(&t->dst);
}

static void draw_movement(tn_random *random, tn_task *task, int64_t inner[4], oracle *o)
{
    o->n_src = 1;
    if (task->verb == TN_VERB_CONCAT) {
        task->concat = (tn_concat_task){(int)range(random, 1, 4), range(random, 1, 30), inner};
        o->n_src = task->concat.n;
        for (int i = 0; i < o->n_src; i++) {
            inner[i] = range(random, 1, 40);
            o->src_count[i] = task->concat.outer * inner[i];
            o->dst_count += o->src_count[i];
        }
        return;
    }
    tn_extent *src = task->verb == TN_VERB_SLICE ? &task->slice.src
                     : task->verb == TN_VERB_PAD ? &task->pad.src
                                                 : &task->transpose.src;
    draw_extent(random, src);
    o->src_count[0] = o->dst_count = tn_extent_count(src);
    if (task->verb == TN_VERB_TRANSPOSE) {
        uint32_t order[TN_MAX_RANK];
        tn_random_permutation(tn_random_u32(random), TN_PURPOSE_TEST, 0, (size_t)src->rank, order);
        for (int i = 0; i < src->rank; i++)
            task->transpose.permutation[i] = (int)order[i];
        return;
    }
    tn_extent *dst = task->verb == TN_VERB_SLICE ? &task->slice.dst : &task->pad.dst;
    dst->rank = src->rank;
    for (int i = 0; i < src->rank; i++) {
        if (task->verb == TN_VERB_PAD) {
            task->pad.begin[i] = range(random, -1, 2);
            dst->dims[i] = src->dims[i] + task->pad.begin[i] + range(random, 0, 2);
            dst->dims[i] = dst->dims[i] < 1 ? 1 : dst->dims[i];
            continue;
        }
        int64_t first = range(random, 0, src->dims[i] - 1),
                last = range(random, 0, src->dims[i] - 1);
        int64_t step = range(random, 1, 3);
        task->slice.start[i] = first;
        task->slice.step[i] = last >= first ? step : -step;
        dst->dims[i] = (last >= first ? last - first : first - last) / step + 1;
    }
    task->pad.value = task->verb == TN_VERB_PAD ? 0.25f : task->pad.value;
    o->dst_count = tn_extent_count(dst);
}

static void draw_reduction(tn_random *random, tn_task *task, oracle *o)
{
    int64_t outer = range(random, 1, 8), axis = range(random, 1, 40), inner = range(random, 1, 100);
    o->n_src = 1;
    o->src_count[0] = o->dst_count = outer * axis * inner;
    if (task->verb == TN_VERB_REDUCE) {
        task->reduce =
            (tn_reduce_task){(tn_reduce_kind)tn_random_below(random, 3), outer, axis, inner};
        o->dst_count = outer * inner;
    } else if (task->verb == TN_VERB_SOFTMAX) {
        task->softmax =
            (tn_softmax_task){outer, axis, coin(random) ? 1 : inner % 7 + 1, coin(random)};
        o->src_count[0] = o->dst_count = outer * axis * task->softmax.inner;
    } else if (task->verb == TN_VERB_LRN) {
        task->lrn = (tn_lrn_task){outer, axis, range(random, 1, 6), 0.3f, 0.75f, 1.5f};
        o->src_count[0] = o->dst_count = outer * axis;
    } else if (task->verb == TN_VERB_FAKE_QUANTIZE) {
        task->fake_quantize = draw_codes(random, outer * axis * inner);
        o->n_params = 1;
        o->param_count[0] = 1;
    } else {
        task->quantize = (tn_quantize_task){outer, axis, inner, coin(random), -128.0f, 127.0f};
        o->n_src = task->quantize.zero ? 3 : 2;
        o->src_count[1] = o->src_count[2] = axis;
    }
}

void task_draw(tn_random *random, tn_verb verb, bool fused, tn_task *task, int64_t inner[4],
               oracle *o)
{
    memset(task, 0, sizeof(*task));
    memset(o, 0, sizeof(*o));
    task->verb = verb;
    task->precision = TN_PRECISION_FP32;
    o->task = task;
    switch (verb) {
    case TN_VERB_CONV:
        draw_conv(random, fused, task, o);
        break;
    case TN_VERB_GEMM:
        draw_gemm(random, fused, task, o);
        break;
    case TN_VERB_BATCH_NORM:
        draw_batch_norm(random, task, inner, o);
        o->training = coin(random);
        break;
    case TN_VERB_POOL:
        draw_pool(random, task, o);
        break;
    case TN_VERB_UNARY:
        draw_unary(random, task, o);
        break;
    case TN_VERB_BINARY:
        draw_binary(random, task, o);
        break;
    case TN_VERB_CONCAT:
    case TN_VERB_SLICE:
    case TN_VERB_PAD:
    case TN_VERB_TRANSPOSE:
        draw_movement(random, task, inner, o);
        break;
    default:
        draw_reduction(random, task, o);
    }
}
