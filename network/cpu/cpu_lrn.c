#include "network/cpu/cpu.h"

#include <math.h>

/* The channels whose squares reach channel c: [c - (size - 1) / 2, c + size / 2]. */
static void reach(const tn_lrn_task *t, int64_t c, int64_t *low, int64_t *high)
{
    *low = c - (t->size - 1) / 2;
    *high = c + t->size / 2;
    if (*low < 0)
        *low = 0;
    if (*high > t->channels - 1)
        *high = t->channels - 1;
}

static double scale_at(const tn_lrn_task *t, const float *x, int64_t c)
{
    int64_t low, high;
    double sum = 0.0;
    reach(t, c, &low, &high);
    for (int64_t i = low; i <= high; i++)
        sum += (double)x[i] * (double)x[i];
    return (double)t->bias + (double)t->alpha / (double)t->size * sum;
}

static tn_status lrn_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const tn_lrn_task *t = &kernel->task.lrn;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < t->rows; r++) {
        const float *x = args->src[0] + r * t->channels;
        for (int64_t c = 0; c < t->channels; c++)
            args->dst[r * t->channels + c] =
                (float)((double)x[c] * pow(scale_at(t, x, c), -(double)t->beta));
    }
    return TN_OK;
}

/* dx_i = dy_i s_i^-b - 2 a b / n x_i sum over the c that i reaches of dy_c x_c s_c^(-b - 1) */
static tn_status lrn_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const tn_lrn_task *t = &kernel->task.lrn;
    double factor = 2.0 * (double)t->alpha * (double)t->beta / (double)t->size;
    if (!args->dsrc[0])
        return TN_OK;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < t->rows; r++) {
        const float *x = args->src[0] + r * t->channels, *dy = args->ddst + r * t->channels;
        float *dx = args->dsrc[0] + r * t->channels;
        for (int64_t i = 0; i < t->channels; i++) {
            int64_t low = i - t->size / 2, high = i + (t->size - 1) / 2;
            double sum = 0.0;
            low = low < 0 ? 0 : low;
            high = high > t->channels - 1 ? t->channels - 1 : high;
            for (int64_t c = low; c <= high; c++)
                sum +=
                    (double)dy[c] * (double)x[c] * pow(scale_at(t, x, c), -(double)t->beta - 1.0);
            double d = (double)dy[i] * pow(scale_at(t, x, i), -(double)t->beta) -
                       factor * (double)x[i] * sum;
            dx[i] = (float)d + (args->accumulate[0] ? dx[i] : 0.0f);
        }
    }
    return TN_OK;
}

static const tn_kernel_class lrn_class = {tn_kernel_free, NULL, lrn_forward, lrn_backward};

tn_status tn_cpu_lrn_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                             tn_error *error)
{
    tn_kernel *k;
    tn_status status =
        tn_kernel_create(device, task, &lrn_class, "omp", sizeof(tn_kernel), &k, error);
    if (status != TN_OK)
        return status;
    k->reads_src = true;
    *kernel = k;
    return TN_OK;
}
