#include "gpu/gpu_conv_library.h"

enum { ALIGN = 256 };

static size_t take(tn_conv_library *l, size_t bytes)
{
    size_t at = l->bytes;
    l->bytes += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return at;
}

static int64_t product(const int64_t *sizes, int n)
{
    int64_t all = 1;
    for (int i = 0; i < n; i++)
        all *= sizes[i];
    return all;
}

static void lay_out(tn_conv_library *l, const tn_conv_task *t)
{
    size_t spare = 0;
    l->x = t->batch * t->in_channels * product(t->in, t->spatial);
    l->w = t->out_channels * (t->in_channels / t->group) * product(t->kernel, t->spatial);
    l->y = t->batch * t->out_channels * product(t->out, t->spatial);
    int64_t most = l->x > l->y ? l->x : l->y;
    most = most > l->w ? most : l->w;
    if (l->bf16) {
        l->x_at = take(l, (size_t)l->x * sizeof(tn_bf16));
        l->y_at = take(l, (size_t)l->y * sizeof(tn_bf16));
    }
    l->out_at = take(l, (size_t)most * (l->bf16 ? sizeof(tn_bf16) : sizeof(float)));
    for (int i = 0; i < TN_N_CONV_PASSES; i++) {
        size_t bytes = l->passes[i] ? tn_gpu_convolution_workspace(l->passes[i]) : 0;
        spare = bytes > spare ? bytes : spare;
    }
    l->spare_at = take(l, spare);
}

bool tn_conv_library_init(tn_conv_library *library, tn_gpu *gpu, const tn_conv_task *task,
                          tn_precision precision, bool backward)
{
    *library = (tn_conv_library){.bf16 = precision == TN_PRECISION_BF16};
    for (int i = 0; i < (backward ? TN_N_CONV_PASSES : 1); i++) {
        library->passes[i] = tn_gpu_convolution_create(gpu, task, (tn_conv_pass)i, precision);
        if (!library->passes[i]) {
            tn_conv_library_done(library);
            return false;
        }
    }
    lay_out(library, task);
    return true;
}

void tn_conv_library_done(tn_conv_library *library)
{
    for (int i = 0; i < TN_N_CONV_PASSES; i++)
        tn_gpu_convolution_destroy(library->passes[i]);
    *library = (tn_conv_library){0};
}

static void *at(void *workspace, size_t offset)
{
    return (char *)workspace + offset;
}

/* An activation as the library takes it. */
static tn_status operand(const tn_conv_library *l, tn_gpu *gpu, const float *src, int64_t count,
                         void *rounded, const void **operand, tn_error *error)
{
    *operand = src;
    if (!l->bf16)
        return TN_OK;
    *operand = rounded;
    return tn_gpu_convert(gpu, src, false, rounded, true, count, false, error);
}

/* A result as the network takes it; `made` may be dst itself. */
static tn_status deliver(const tn_conv_library *l, tn_gpu *gpu, const void *made, float *dst,
                         int64_t count, bool accumulate, tn_error *error)
{
    return made == dst ? TN_OK
                       : tn_gpu_convert(gpu, made, l->bf16, dst, false, count, accumulate, error);
}

tn_status tn_conv_library_forward(const tn_conv_library *l, tn_gpu *gpu, void *workspace,
                                  const float *x, const void *w, float *y, tn_error *error)
{
    const void *source;
    void *out = l->bf16 ? at(workspace, l->out_at) : y;
    tn_status status = operand(l, gpu, x, l->x, at(workspace, l->x_at), &source, error);
    if (status == TN_OK)
        status = tn_gpu_convolve(gpu, l->passes[TN_CONV_FORWARD], source, w, out,
                                 at(workspace, l->spare_at), error);
    return status == TN_OK ? deliver(l, gpu, out, y, l->y, false, error) : status;
}

tn_status tn_conv_library_data(const tn_conv_library *l, tn_gpu *gpu, void *workspace,
                               const float *dy, const void *w, float *dx, bool accumulate,
                               tn_error *error)
{
    const void *gradient;
    void *out = l->bf16 || accumulate ? at(workspace, l->out_at) : dx;
    tn_status status = operand(l, gpu, dy, l->y, at(workspace, l->y_at), &gradient, error);
    if (status == TN_OK)
        status = tn_gpu_convolve(gpu, l->passes[TN_CONV_DATA], out, w, gradient,
                                 at(workspace, l->spare_at), error);
    return status == TN_OK ? deliver(l, gpu, out, dx, l->x, accumulate, error) : status;
}

tn_status tn_conv_library_weights(const tn_conv_library *l, tn_gpu *gpu, void *workspace,
                                  const float *x, const float *dy, float *dw, tn_error *error)
{
    const void *source, *gradient;
    void *out = l->bf16 ? at(workspace, l->out_at) : dw;
    tn_status status = operand(l, gpu, x, l->x, at(workspace, l->x_at), &source, error);
    if (status == TN_OK)
        status = operand(l, gpu, dy, l->y, at(workspace, l->y_at), &gradient, error);
    if (status == TN_OK)
        status = tn_gpu_convolve(gpu, l->passes[TN_CONV_WEIGHTS], source, out, gradient,
                                 at(workspace, l->spare_at), error);
    return status == TN_OK ? deliver(l, gpu, out, dw, l->w, false, error) : status;
}
