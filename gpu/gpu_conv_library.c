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
        l->x_at = take(l, l->x_bf16 ? 0 : (size_t)l->x * sizeof(tn_bf16));
        l->y_at = take(l, l->y_bf16 ? 0 : (size_t)l->y * sizeof(tn_bf16));
    }
    l->out_at = take(l, (size_t)most * (l->bf16 ? sizeof(tn_bf16) : sizeof(float)));
    for (int i = 0; i < TN_N_CONV_PASSES; i++) {
        size_t bytes = l->passes[i] ? tn_gpu_convolution_workspace(l->passes[i]) : 0;
        spare = bytes > spare ? bytes : spare;
    }
    l->spare_at = take(l, spare);
}

bool tn_conv_library_init(tn_conv_library *library, tn_gpu *gpu, const tn_task *task)
{
    *library = (tn_conv_library){.bf16 = task->precision == TN_PRECISION_BF16,
                                 .x_bf16 = task->bf16_src & 1,
                                 .y_bf16 = task->bf16_dst};
    for (int i = 0; i < (task->backward ? TN_N_CONV_PASSES : 1); i++) {
        library->passes[i] =
            tn_gpu_convolution_create(gpu, &task->conv, (tn_conv_pass)i, task->precision);
        if (!library->passes[i]) {
            tn_conv_library_done(library);
            return false;
        }
    }
    lay_out(library, &task->conv);
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

/* An activation or gradient as the library takes it: as it is stored, or rounded. */
static tn_status operand(const tn_conv_library *l, tn_gpu *gpu, const void *src, bool stored,
                         int64_t count, void *rounded, const void **operand, tn_error *error)
{
    bool as_is = l->bf16 == stored;
    *operand = as_is ? src : rounded;
    return as_is ? TN_OK : tn_gpu_convert(gpu, src, false, rounded, true, count, false, error);
}

/* A result as the network takes it; `made` may be dst itself. */
static tn_status deliver(const tn_conv_library *l, tn_gpu *gpu, const void *made, void *dst,
                         bool stored, int64_t count, bool accumulate, tn_error *error)
{
    return made == dst ? TN_OK
                       : tn_gpu_convert(gpu, made, l->bf16, dst, stored, count, accumulate, error);
}

tn_status tn_conv_library_forward(const tn_conv_library *l, tn_gpu *gpu, void *workspace,
                                  const void *x, const void *w, void *y, tn_error *error)
{
    const void *source;
    void *out = l->bf16 == l->y_bf16 ? y : at(workspace, l->out_at);
    tn_status status = operand(l, gpu, x, l->x_bf16, l->x, at(workspace, l->x_at), &source, error);
    if (status == TN_OK)
        status = tn_gpu_convolve(gpu, l->passes[TN_CONV_FORWARD], source, w, out,
                                 at(workspace, l->spare_at), error);
    return status == TN_OK ? deliver(l, gpu, out, y, l->y_bf16, l->y, false, error) : status;
}

tn_status tn_conv_library_data(const tn_conv_library *l, tn_gpu *gpu, void *workspace,
                               const void *dy, const void *w, void *dx, bool accumulate,
                               tn_error *error)
{
    const void *gradient;
    void *out = l->bf16 == l->x_bf16 && !accumulate ? dx : at(workspace, l->out_at);
    tn_status status =
        operand(l, gpu, dy, l->y_bf16, l->y, at(workspace, l->y_at), &gradient, error);
    if (status == TN_OK)
        status = tn_gpu_convolve(gpu, l->passes[TN_CONV_DATA], out, w, gradient,
                                 at(workspace, l->spare_at), error);
    return status == TN_OK ? deliver(l, gpu, out, dx, l->x_bf16, l->x, accumulate, error) : status;
}

tn_status tn_conv_library_weights(const tn_conv_library *l, tn_gpu *gpu, void *workspace,
                                  const void *x, const void *dy, const void **dw, tn_error *error)
{
    const void *source, *gradient;
    tn_status status = operand(l, gpu, x, l->x_bf16, l->x, at(workspace, l->x_at), &source, error);
    if (status == TN_OK)
        status = operand(l, gpu, dy, l->y_bf16, l->y, at(workspace, l->y_at), &gradient, error);
    *dw = at(workspace, l->out_at);
    return status == TN_OK ? tn_gpu_convolve(gpu, l->passes[TN_CONV_WEIGHTS], source, *dw, gradient,
                                             at(workspace, l->spare_at), error)
                           : status;
}
