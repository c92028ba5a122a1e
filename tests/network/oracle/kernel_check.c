#include "kernel_check.h"

#include "core/bf16.h"
#include "tasks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GRAPH_VERBS = TN_VERB_DROPOUT };

static double *numbers(int64_t count)
{
    double *p = calloc((size_t)count + 1, sizeof(double));
    if (!p)
        abort();
    return p;
}

/* BN's statistics, params 2 and 3, have no gradient. */
static bool has_gradient(const oracle *o, int param)
{
    return o->task->verb != TN_VERB_BATCH_NORM || param < 2 || param == 4;
}

static void drop_codes(tn_task *task, oracle *o)
{
    if (task->verb != TN_VERB_BATCH_NORM || !task->batch_norm.codes)
        return;
    task->batch_norm.codes = false;
    o->n_params--;
}

/* fp32 values in double, so that device and oracle see the same. Positive where the formula needs
 * it: variances, scales, bases of powers, divisors; integer zero points. */
static void fill(tn_random *random, const oracle *o, bool is_param, int index, double *p,
                 int64_t count)
{
    const tn_task *t = o->task;
    bool variance =
        is_param && ((t->verb == TN_VERB_BATCH_NORM && index == 3) ||
                     (t->verb == TN_VERB_CONV && t->conv.fold && index == o->n_params - 1));
    bool scale = (t->verb == TN_VERB_QUANTIZE || t->verb == TN_VERB_DEQUANTIZE) && index == 1;
    bool step = is_param &&
                (t->verb == TN_VERB_FAKE_QUANTIZE || (t->verb == TN_VERB_BATCH_NORM && index == 4));
    bool zero = (t->verb == TN_VERB_QUANTIZE || t->verb == TN_VERB_DEQUANTIZE) && index == 2;
    bool base = t->verb == TN_VERB_BINARY &&
                (t->binary.kind == TN_BINARY_POW || t->binary.kind == TN_BINARY_DIV);
    for (int64_t i = 0; i < count; i++) {
        float x = tn_random_normal(random);
        if (variance || scale || base || step)
            x = fabsf(x) + 0.3f;
        if (zero)
            x = rintf(x * 3.0f);
        p[i] = (double)x;
    }
}

/* Whether a source, or (-1) the result, is stored as bf16. */
static bool is_bf16(const oracle *o, int operand)
{
    return operand < 0 ? o->task->bf16_dst : o->task->bf16_src >> operand & 1;
}

static void round_numbers(double *p, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        p[i] = (double)tn_bfloat16_to_float(tn_float_to_bfloat16((float)p[i]));
}

static void make(tn_random *random, oracle *o)
{
    for (int i = 0; i < o->n_src; i++) {
        o->src[i] = numbers(o->src_count[i]);
        o->dsrc[i] = numbers(o->src_count[i]);
        fill(random, o, false, i, o->src[i], o->src_count[i]);
        if (is_bf16(o, i))
            round_numbers(o->src[i], o->src_count[i]);
    }
    for (int i = 0; i < o->n_params; i++) {
        o->params[i] = numbers(o->param_count[i]);
        o->dparams[i] = numbers(o->param_count[i]);
        fill(random, o, true, i, o->params[i], o->param_count[i]);
    }
    o->dst = numbers(o->dst_count);
    o->ddst = numbers(o->dst_count);
    for (int64_t i = 0; i < o->dst_count; i++)
        o->ddst[i] = (double)tn_random_normal(random);
    if (is_bf16(o, -1))
        round_numbers(o->ddst, o->dst_count);
}

static void drop(oracle *o)
{
    for (int i = 0; i < ORACLE_OPERANDS; i++) {
        free(o->src[i]);
        free(o->dsrc[i]);
        free(o->params[i]);
        free(o->dparams[i]);
    }
    free(o->dst);
    free(o->ddst);
}

/* --- the oracle's own gradients -------------------------------------------------------------- */

static double weighted(oracle *o)
{
    double sum = 0.0;
    oracle_forward(o);
    for (int64_t i = 0; i < o->dst_count; i++)
        sum += o->dst[i] * o->ddst[i];
    return sum;
}

/* Along one random direction of one operand. A kink between the two points makes a difference that
 * a smaller step does not have. */
static bool along(tn_random *random, oracle *o, double *operand, const double *gradient,
                  int64_t count)
{
    double *direction = numbers(count), *keep = numbers(count), want = 0.0, scale = 1e-6;
    bool ok = false;
    memcpy(keep, operand, (size_t)count * sizeof(double));
    for (int64_t i = 0; i < count; i++) {
        direction[i] = (double)tn_random_normal(random);
        want += gradient[i] * direction[i];
        scale += fabs(gradient[i] * direction[i]);
    }
    for (double h = 1e-5; h > 1e-8 && !ok; h *= 0.1) {
        double sums[2];
        for (int side = 0; side < 2; side++) {
            for (int64_t i = 0; i < count; i++)
                operand[i] = keep[i] + (side ? -h : h) * direction[i];
            sums[side] = weighted(o);
        }
        ok = fabs((sums[0] - sums[1]) / (2.0 * h) - want) < 1e-5 * scale;
    }
    memcpy(operand, keep, (size_t)count * sizeof(double));
    free(direction);
    free(keep);
    return ok;
}

int oracle_check(uint64_t seed, int count)
{
    int failures = 0;
    for (int v = 0; v < GRAPH_VERBS; v++)
        for (int k = 0; k < count; k++) {
            tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, (uint32_t)v, (uint64_t)k);
            tn_task task;
            int64_t inner[4];
            oracle o;
            task_draw(&random, (tn_verb)v, false, &task, inner, &o);
            drop_codes(&task, &o);
            make(&random, &o);
            if (oracle_has_backward(&task)) {
                bool ok = true;
                double *frozen = numbers(2 * o.dst_count);
                if (v == TN_VERB_FAKE_QUANTIZE) {
                    oracle_freeze(&o, frozen);
                    task.fake_quantize.step_factor = 1; /* no difference has it */
                }
                weighted(&o);
                oracle_backward(&o);
                for (int i = 0; i < o.n_src; i++)
                    ok = along(&random, &o, o.src[i], o.dsrc[i], o.src_count[i]) && ok;
                for (int i = 0; i < o.n_params; i++)
                    ok = (!has_gradient(&o, i) ||
                          along(&random, &o, o.params[i], o.dparams[i], o.param_count[i])) &&
                         ok;
                free(frozen);
                failures += !ok;
                if (!ok)
                    printf("oracle: %s %d: gradient is not the difference\n",
                           tn_verb_name(task.verb), k);
            }
            drop(&o);
        }
    return failures;
}

/* --- a device -------------------------------------------------------------------------------- */

enum { BEHIND = 128 }; /* bytes */

typedef struct run {
    tn_device *device;
    tn_kernel *kernel;
    const oracle *o;
    float *src[ORACLE_OPERANDS], *dsrc[ORACLE_OPERANDS], *params[ORACLE_OPERANDS];
    float *dparams[ORACLE_OPERANDS], *dst, *ddst, *host;
    void *saved, *state, *workspace;
} run;

/* Memory in the type that it is stored as, with NaN behind it: what is read there shows. */
static float *upload_as(run *r, const double *values, int64_t count, float fallback, bool bf16)
{
    size_t bytes = (size_t)count * (bf16 ? sizeof(uint16_t) : sizeof(float));
    float *memory = r->device->type->alloc(r->device, bytes + BEHIND);
    for (int64_t i = 0; i < count; i++) {
        float x = values ? (float)values[i] : fallback;
        if (bf16)
            ((uint16_t *)r->host)[i] = tn_float_to_bfloat16(x);
        else
            r->host[i] = x;
    }
    memset((char *)r->host + bytes, 0xff, BEHIND);
    if (!memory ||
        r->device->type->upload(r->device, memory, r->host, bytes + BEHIND, NULL) != TN_OK)
        abort();
    return memory;
}

static float *upload(run *r, const double *values, int64_t count, float fallback)
{
    return upload_as(r, values, count, fallback, false);
}

/* max |device - want| relative to what was rounded: the magnitudes behind a value where scale gives
 * them (and what it was added to), else 1 + |want|. */
static double distance_as(run *r, const float *memory, const double *want, const double *scale,
                          int64_t count, double offset, bool bf16)
{
    double worst = 0.0;
    size_t bytes = (size_t)count * (bf16 ? sizeof(uint16_t) : sizeof(float));
    if (r->device->type->download(r->device, r->host, memory, bytes, NULL) != TN_OK)
        return (double)INFINITY;
    for (int64_t i = 0; i < count; i++) {
        float have = bf16 ? tn_bfloat16_to_float(((uint16_t *)r->host)[i]) : r->host[i];
        double range = fabs(want[i]) + offset + (scale ? scale[i] + 1e-30 : 1.0);
        double d = fabs((double)have - want[i] - offset) / range;
        worst = isnan(d) || d > worst ? (isnan(d) ? (double)INFINITY : d) : worst;
    }
    return worst;
}

static double distance(run *r, const float *memory, const double *want, const double *scale,
                       int64_t count, double offset)
{
    return distance_as(r, memory, want, scale, count, offset, false);
}

/* The same task on magnitudes: for sums of products, the sum of |x||w| behind every value, and of
 * |bias|, |residual| and |mean| (which BN subtracts). */
static void magnitudes(const oracle *o, oracle *m, tn_task *task)
{
    *m = *o;
    *task = *o->task;
    m->task = task;
    for (int i = 0; i < o->n_src; i++) {
        m->src[i] = numbers(o->src_count[i]);
        m->dsrc[i] = numbers(o->src_count[i]);
        for (int64_t j = 0; j < o->src_count[i]; j++)
            m->src[i][j] = fabs(o->src[i][j]);
    }
    for (int i = 0; i < o->n_params; i++) {
        m->params[i] = numbers(o->param_count[i]);
        m->dparams[i] = numbers(o->param_count[i]);
        for (int64_t j = 0; j < o->param_count[i]; j++)
            m->params[i][j] = fabs(o->params[i][j]);
    }
    m->dst = numbers(o->dst_count);
    m->ddst = numbers(o->dst_count);
    for (int64_t j = 0; j < o->dst_count; j++)
        m->ddst[j] = fabs(o->ddst[j]);
    if (task->verb == TN_VERB_CONV)
        task->conv.function = TN_FUNCTION_NONE;
    if (task->verb == TN_VERB_CONV && task->conv.fold) {
        double *mean = m->params[o->n_params - 2];
        for (int64_t j = 0; j < o->param_count[o->n_params - 2]; j++)
            mean[j] = -mean[j];
    }
    if (task->verb == TN_VERB_GEMM) {
        task->gemm.function = TN_FUNCTION_NONE;
        task->gemm.alpha = fabsf(task->gemm.alpha);
        task->gemm.beta = fabsf(task->gemm.beta);
    }
}

static bool sums_products(const tn_task *task)
{
    return task->verb == TN_VERB_CONV || task->verb == TN_VERB_GEMM;
}

/* Gradients that a device adds to `offset`, or overwrites it with. */
static double backward_distance(run *r, tn_arguments *args, bool accumulate, const oracle *m)
{
    const oracle *o = r->o;
    double worst = 0.0;
    bool add[ORACLE_OPERANDS];
    for (int i = 0; i < ORACLE_OPERANDS; i++)
        add[i] = accumulate;
    args->accumulate = add;
    args->accumulate_params = accumulate;
    for (int i = 0; i < o->n_src; i++)
        r->dsrc[i] = upload_as(r, NULL, o->src_count[i], accumulate ? 2.0f : NAN, is_bf16(o, i));
    for (int i = 0; i < o->n_params; i++)
        r->dparams[i] =
            has_gradient(o, i) ? upload(r, NULL, o->param_count[i], accumulate ? 2.0f : NAN) : NULL;
    if (r->kernel->type->backward(r->kernel, args, NULL) != TN_OK)
        worst = (double)INFINITY;
    double offset = accumulate ? 2.0 : 0.0, gain = oracle_gain(o);
    for (int i = 0; i < o->n_src; i++)
        worst = fmax(worst, distance_as(r, r->dsrc[i], o->dsrc[i], m ? m->dsrc[i] : NULL,
                                        o->src_count[i], offset, is_bf16(o, i)) /
                                gain);
    for (int i = 0; i < o->n_params; i++) {
        double summed = (double)(o->dst_count / o->param_count[i]);
        double scale = o->task->verb == TN_VERB_BATCH_NORM ? sqrt(summed) * gain : 1.0;
        if (!has_gradient(o, i))
            continue;
        worst = fmax(worst, distance(r, r->dparams[i], o->dparams[i], m ? m->dparams[i] : NULL,
                                     o->param_count[i], offset) /
                                scale);
    }
    for (int i = 0; i < ORACLE_OPERANDS; i++) {
        r->device->type->release(r->device, r->dsrc[i]);
        r->device->type->release(r->device, r->dparams[i]);
        r->dsrc[i] = r->dparams[i] = NULL;
    }
    return worst;
}

/* Memory that holds NaN: what is read before it is written shows. */
static void *reserve(run *r, size_t bytes)
{
    void *memory = r->device->type->alloc(r->device, bytes + 1), *poison = malloc(bytes + 1);
    if (!memory || !poison)
        abort();
    memset(poison, 0xff, bytes + 1);
    if (r->device->type->upload(r->device, memory, poison, bytes + 1, NULL) != TN_OK)
        abort();
    free(poison);
    return memory;
}

static int64_t largest(const oracle *o)
{
    int64_t most = o->dst_count;
    for (int i = 0; i < ORACLE_OPERANDS; i++) {
        most = o->src_count[i] > most ? o->src_count[i] : most;
        most = o->param_count[i] > most ? o->param_count[i] : most;
    }
    return most;
}

static void compare(run *r, bool backward, double *forward_worst, double *backward_worst)
{
    oracle m, *o = (oracle *)(uintptr_t)r->o;
    tn_task plain;
    bool products = sums_products(o->task);
    const float *src[ORACLE_OPERANDS], *params[ORACLE_OPERANDS];
    for (int i = 0; i < ORACLE_OPERANDS; i++) {
        src[i] = r->src[i] =
            i < o->n_src ? upload_as(r, o->src[i], o->src_count[i], 0, is_bf16(o, i)) : NULL;
        params[i] = r->params[i] =
            i < o->n_params ? upload(r, o->params[i], o->param_count[i], 0) : NULL;
    }
    r->dst = upload_as(r, NULL, o->dst_count, NAN, is_bf16(o, -1));
    r->ddst = upload_as(r, o->ddst, o->dst_count, 0, is_bf16(o, -1));
    r->saved = reserve(r, r->kernel->saved_bytes);
    r->state = reserve(r, r->kernel->state_bytes);
    r->workspace = reserve(r, r->kernel->workspace_bytes);
    tn_arguments args = {.src = src,
                         .dst = r->dst,
                         .params = params,
                         .ddst = r->ddst,
                         .dsrc = r->dsrc,
                         .dparams = r->dparams,
                         .training = o->training,
                         .keep = 1.0f,
                         .saved = r->saved,
                         .state = r->state,
                         .workspace = r->workspace};
    oracle_forward(o);
    magnitudes(o, &m, &plain);
    if (products)
        oracle_forward(&m);
    bool ok = !r->kernel->type->pack || r->kernel->type->pack(r->kernel, &args, NULL) == TN_OK;
    ok = ok && r->kernel->type->forward(r->kernel, &args, NULL) == TN_OK;
    *forward_worst = ok ? distance_as(r, r->dst, o->dst, products ? m.dst : NULL, o->dst_count, 0.0,
                                      is_bf16(o, -1))
                        : (double)INFINITY;
    *backward_worst = 0.0;
    if (backward) {
        oracle_backward(o);
        if (products)
            oracle_backward(&m);
        for (int accumulate = 0; accumulate < 2; accumulate++)
            *backward_worst = fmax(*backward_worst, backward_distance(r, &args, accumulate != 0,
                                                                      products ? &m : NULL));
    }
    drop(&m);
}

static void release(run *r)
{
    const tn_device_class *type = r->device->type;
    for (int i = 0; i < ORACLE_OPERANDS; i++) {
        type->release(r->device, r->src[i]);
        type->release(r->device, r->params[i]);
    }
    type->release(r->device, r->dst);
    type->release(r->device, r->ddst);
    type->release(r->device, r->saved);
    type->release(r->device, r->state);
    type->release(r->device, r->workspace);
    tn_kernel_destroy(r->kernel);
    free(r->host);
}

/* In bf16 both factors of a product are off by at most u = 2^-8, hence by 2u + u^2 of |x||w|; sums,
 * biases, residuals and results are fp32, and the functions fused have slopes of at most 1. */
static double bound_of(const tn_task *task)
{
    if (!sums_products(task) || task->precision == TN_PRECISION_FP32)
        return 1e-5;
    return task->precision == TN_PRECISION_TF32 ? 1e-3 : 1e-5 + 0x1p-7 + 0x1p-16;
}

/* Which operands are stored as bf16: random ones, else all, else none, as the device takes them. */
static void draw_storage(tn_random *random, tn_device *device, tn_task *task, int n_src)
{
    const uint64_t all = ((uint64_t)1 << n_src) - 1;
    uint32_t drawn = tn_random_below(random, 4 << n_src);
    const uint64_t src[] = {drawn >> 2 & all, all, all};
    const bool dst[] = {drawn & 1, drawn >> 1 & 1, true};
    for (int i = 0; i < 3; i++) {
        task->bf16_src = src[i];
        task->bf16_dst = dst[i];
        if (device->type->supports(device, task, NULL, 0))
            return;
    }
    task->bf16_src = 0;
    task->bf16_dst = false;
}

/* What storing adds: a result is rounded once (2^-8), a gradient that is added to what was there
 * twice, and its derivative may be told by a result that was rounded. */
static double stored_bound(const tn_task *task, bool backward)
{
    bool stored = task->bf16_src || task->bf16_dst;
    return !stored ? 0.0 : backward ? 0x1p-6 : 0x1.01p-8;
}

/* What a convolution that differs was drawn as. */
static void describe(const tn_task *task)
{
    const tn_conv_task *t = &task->conv;
    if (task->verb != TN_VERB_CONV)
        return;
    printf("  batch %lld, %lld -> %lld channels, group %lld, bias %d, residual %d, function %d:",
           (long long)t->batch, (long long)t->in_channels, (long long)t->out_channels,
           (long long)t->group, t->bias, t->residual, (int)t->function);
    for (int i = 0; i < t->spatial; i++)
        printf(" %lld->%lld k%lld s%lld d%lld p%lld,%lld", (long long)t->in[i],
               (long long)t->out[i], (long long)t->kernel[i], (long long)t->stride[i],
               (long long)t->dilation[i], (long long)t->pad_begin[i], (long long)t->pad_end[i]);
    printf("\n");
}

/* Whether a task that the device supports differs from the oracle, whose counts are there. */
static int check_made(tn_device *device, tn_random *random, oracle *o, int k)
{
    const tn_task *task = o->task;
    tn_error error = {0};
    double forward, backward;
    make(random, o);
    run r = {.device = device, .o = o};
    r.host = calloc((size_t)largest(o) * sizeof(float) + BEHIND, 1);
    int failed = 1;
    if (!r.host || device->type->prepare(device, task, &r.kernel, &error) != TN_OK) {
        printf("%s %d: %s\n", tn_verb_name(task->verb), k, error.message);
        free(r.host);
    } else {
        bool has = task->backward && r.kernel->type->backward;
        compare(&r, has, &forward, &backward);
        double bound = bound_of(task);
        /* rounding x / scale can tip over at a half: the oracle divides in fp32 too */
        failed = forward > bound + stored_bound(task, false) ||
                 backward > (bound > 1e-4 ? 1.0 : 2.0) * bound + stored_bound(task, true);
        if (failed) {
            printf("%s %d (%s, bf16 %#llx %d): forward %.2g, backward %.2g\n",
                   tn_verb_name(task->verb), k, r.kernel->name, (unsigned long long)task->bf16_src,
                   task->bf16_dst, forward, backward);
            describe(task);
        }
        release(&r);
    }
    drop(o);
    return failed;
}

static int check_task(tn_device *device, tn_precision precision, tn_verb verb, uint64_t seed, int k)
{
    tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, (uint32_t)verb, (uint64_t)k);
    bool fused = k % 3 == 0;
    tn_task task;
    int64_t inner[4];
    oracle o;
    task_draw(&random, verb, fused, &task, inner, &o);
    task.precision = precision;
    task.backward = oracle_has_backward(&task);
    if (precision == TN_PRECISION_BF16)
        draw_storage(&random, device, &task, o.n_src);
    if (!device->type->supports(device, &task, NULL, 0))
        drop_codes(&task, &o);
    return device->type->supports(device, &task, NULL, 0) ? check_made(device, &random, &o, k) : 0;
}

int kernel_check(tn_device *device, tn_precision precision, uint64_t seed, int count)
{
    int failures = 0;
    for (int v = 0; v < GRAPH_VERBS; v++)
        for (int k = 0; k < count; k++)
            failures += check_task(device, precision, (tn_verb)v, seed, k);
    return failures;
}

/* Elements of the kernel that meet only padding (bf16: weight gradient); 1x1 with odd channels
 * (bf16: data gradient); over three axes (weight gradient); a residual where
 * an axis has one element, and with groups: each refused, or computed in another way. */
int conv_check(tn_device *device, tn_precision precision)
{
    static const struct {
        int spatial, batch, in_channels, out_channels, group;
        int64_t in[3], out[3], kernel[3], stride[3], dilation[3], begin[3], end[3];
        bool residual;
    } convs[] = {{2, 2, 7, 3, 1, {8, 2}, {6, 1}, {4, 2}, {1, 3}, {1, 1}, {1, 1}, {0, 1}, false},
                 {2, 3, 9, 13, 1, {10, 6}, {10, 6}, {1, 1}, {1, 1}, {1, 1}, {0}, {0}, false},
                 {3,
                  1,
                  3,
                  60,
                  3,
                  {4, 9, 5},
                  {3, 9, 3},
                  {4, 1, 2},
                  {2, 1, 2},
                  {1, 2, 2},
                  {3, 0, 1},
                  {1, 0, 1},
                  false},
                 {2, 1, 7, 1, 1, {9, 5}, {3, 1}, {1, 3}, {3, 3}, {2, 2}, {0, 2}, {0}, true},
                 {2, 5, 10, 22, 2, {11, 4}, {13, 2}, {4, 4}, {1, 3}, {1, 1}, {3, 3}, {2, 0}, true}};
    int failures = 0;
    for (int k = 0; k < (int)(sizeof convs / sizeof *convs); k++)
        for (int stored = 0; stored < (precision == TN_PRECISION_BF16 ? 2 : 1); stored++) {
            tn_random random = tn_random_make(1, TN_PURPOSE_TEST, TN_VERB_CONV, (uint64_t)k);
            tn_task task = {.verb = TN_VERB_CONV, .precision = precision};
            tn_conv_task *t = &task.conv;
            t->spatial = convs[k].spatial;
            t->batch = convs[k].batch;
            t->in_channels = convs[k].in_channels;
            t->out_channels = convs[k].out_channels;
            t->group = convs[k].group;
            t->residual = convs[k].residual;
            memcpy(t->in, convs[k].in, sizeof t->in);
            memcpy(t->out, convs[k].out, sizeof t->out);
            memcpy(t->kernel, convs[k].kernel, sizeof t->kernel);
            memcpy(t->stride, convs[k].stride, sizeof t->stride);
            memcpy(t->dilation, convs[k].dilation, sizeof t->dilation);
            memcpy(t->pad_begin, convs[k].begin, sizeof t->pad_begin);
            memcpy(t->pad_end, convs[k].end, sizeof t->pad_end);
            oracle o = {.task = &task};
            task.backward = oracle_has_backward(&task);
            task.bf16_dst = stored == 1;
            task_count_conv(&task, &o);
            o.n_params = 1;
            if (device->type->supports(device, &task, NULL, 0))
                failures += check_made(device, &random, &o, k);
        }
    return failures;
}

/* --- loss ------------------------------------------------------------------------------------ */

/* The oracle's own gradient by central differences of its loss. */
static double check_oracle_loss(oracle *o, const oracle_targets *t)
{
    double worst = 0.0, h = 1e-6;
    oracle_loss(o, t);
    double *gradient = malloc((size_t)o->src_count[0] * sizeof(double));
    memcpy(gradient, o->dsrc[0], (size_t)o->src_count[0] * sizeof(double));
    for (int64_t i = 0; i < o->src_count[0]; i++) {
        double x = o->src[0][i];
        o->src[0][i] = x + h;
        double above = oracle_loss(o, t);
        o->src[0][i] = x - h;
        double difference = t->scale * (above - oracle_loss(o, t)) / (2.0 * h);
        o->src[0][i] = x;
        worst = fmax(worst, fabs(difference - gradient[i]));
    }
    free(gradient);
    return worst;
}

static int check_loss(tn_device *device, uint64_t seed, int k)
{
    enum { ROWS = 7, CLASSES = 11, COUNT = ROWS * CLASSES };
    tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 1000, (uint64_t)k);
    tn_task task = {.verb = TN_VERB_LOSS, .precision = TN_PRECISION_FP32, .backward = true};
    task.loss = (tn_loss_task){ROWS, CLASSES};
    oracle o = {.task = &task, .n_src = 2, .src_count = {COUNT, COUNT}, .dst_count = 4};
    int32_t labels[ROWS], partners[ROWS];
    float mix[ROWS];
    double shares[ROWS];
    make(&random, &o);
    int64_t count = 1 + (int64_t)tn_random_below(&random, ROWS);
    bool teacher = k % 2 == 0;
    for (int i = 0; i < ROWS; i++)
        labels[i] = (int32_t)tn_random_below(&random, CLASSES + 1) - (teacher ? 1 : 0);
    bool mixes = k % 3 == 0;
    for (int i = 0; i < ROWS; i++) {
        labels[i] = labels[i] >= CLASSES ? 0 : labels[i];
        partners[i] = (int32_t)tn_random_below(&random, CLASSES);
        mix[i] = i == 1 ? 0.0f : 0.5f * tn_random_uniform(&random);
        shares[i] = (double)mix[i];
    }
    run r = {.device = device, .o = &o};
    r.host = calloc(COUNT * sizeof(float) + BEHIND, 1);
    if (!r.host || device->type->prepare(device, &task, &r.kernel, NULL) != TN_OK)
        abort();
    double *keep = o.src[1];
    r.src[0] = upload(&r, o.src[0], COUNT, 0);
    r.src[1] = upload(&r, o.src[1], COUNT, 0);
    r.dst = upload(&r, NULL, 4, 0);
    float *gradient = upload(&r, NULL, COUNT, NAN);
    r.workspace = reserve(&r, r.kernel->workspace_bytes);
    char *targets = r.saved = reserve(&r, 3 * 64);
    if (device->type->upload(device, targets, labels, sizeof(labels), NULL) != TN_OK ||
        device->type->upload(device, targets + 64, partners, sizeof(partners), NULL) != TN_OK ||
        device->type->upload(device, targets + 128, mix, sizeof(mix), NULL) != TN_OK)
        abort();
    if (!teacher)
        o.src[1] = NULL;
    const oracle_targets t = {labels, mixes ? partners : NULL, shares, count, 0.1, 4.0, 0.3, 0.25};
    double differences = check_oracle_loss(&o, &t), want = oracle_loss(&o, &t);
    const float *src[2] = {r.src[0], teacher ? r.src[1] : NULL};
    bool accumulate[1] = {false};
    tn_arguments args = {.src = src, .dst = r.dst, .dsrc = &gradient, .accumulate = accumulate};
    args.workspace = r.workspace;
    args.labels = (const int32_t *)(void *)targets;
    args.partners = mixes ? (const int32_t *)(void *)(targets + 64) : NULL;
    args.mix = (const float *)(void *)(targets + 128);
    args.count = count;
    args.scale = 0.25f;
    args.smoothing = 0.1f;
    args.temperature = 4.0f;
    args.weight = 0.3f;
    bool ok = r.kernel->type->forward(r.kernel, &args, NULL) == TN_OK;
    double worst = distance(&r, gradient, o.dsrc[0], NULL, COUNT, 0.0);
    worst = fmax(worst, distance(&r, r.dst, &want, NULL, 1, 0.0));
    ok = ok && worst <= 1e-5 && differences <= 1e-7;
    if (!ok)
        printf("loss %d: %.2g from the oracle, which is %.2g from differences\n", k, worst,
               differences);
    device->type->release(device, gradient);
    o.src[1] = keep;
    release(&r);
    drop(&o);
    return !ok;
}

int loss_check(tn_device *device, uint64_t seed, int count)
{
    int failures = 0;
    for (int k = 0; k < count; k++)
        failures += check_loss(device, seed, k);
    return failures;
}
