#include "network/cpu/cpu.h"

#include <math.h>
#include <string.h>

typedef struct row_sums {
    double loss, top1, top5, plain;
} row_sums;

/* log sum exp of row / temperature */
static double log_sum(const float *row, int64_t n, double temperature)
{
    double most = -(double)INFINITY, sum = 0.0;
    for (int64_t i = 0; i < n; i++)
        most = (double)row[i] > most ? (double)row[i] : most;
    for (int64_t i = 0; i < n; i++)
        sum += exp(((double)row[i] - most) / temperature);
    return most / temperature + log(sum);
}

/* Classes that come before `label` when sorted by logit, ties by index; all when it is NaN. */
static int64_t rank_of(const float *row, int64_t n, int32_t label)
{
    int64_t before = 0;
    if (isnan(row[label]))
        return n;
    for (int64_t i = 0; i < n; i++)
        before += row[i] > row[label] || (row[i] == row[label] && i < label);
    return before;
}

/* What a row's softmax should be. */
typedef struct row_target {
    int32_t label, partner;
    double share, partner_share, other; /* of the two, and of every class */
} row_target;

static row_target target_of(const tn_arguments *args, int64_t r, int64_t n)
{
    double smoothing = (double)args->smoothing;
    int32_t label = args->labels ? args->labels[r] : -1;
    int32_t partner = args->partners ? args->partners[r] : -1;
    double mix = partner >= 0 && partner < n ? (double)args->mix[r] : 0.0;
    return (row_target){label, partner, (1.0 - smoothing) * (1.0 - mix), (1.0 - smoothing) * mix,
                        smoothing / (double)n};
}

static double target_at(const row_target *target, int64_t i)
{
    return target->other + (i == target->label ? target->share : 0.0) +
           (i == target->partner ? target->partner_share : 0.0);
}

/* The distillation term of one row; adds weight * its gradient. */
static double distill(const tn_arguments *args, const float *row, const float *teacher, int64_t n,
                      double weight, float *gradient)
{
    double t = args->temperature > 0.0f ? (double)args->temperature : 1.0, loss = 0.0;
    double student_log = log_sum(row, n, t), teacher_log = log_sum(teacher, n, t);
    for (int64_t i = 0; i < n; i++) {
        double log_q = (double)row[i] / t - student_log;
        double log_p = (double)teacher[i] / t - teacher_log, p = exp(log_p);
        loss += p * (log_p - log_q);
        if (gradient) /* T^2 times (q - p) / T */
            gradient[i] += (float)(weight * t * (exp(log_q) - p) * (double)args->scale);
    }
    return t * t * loss;
}

static row_sums one_row(const tn_arguments *args, int64_t r, int64_t n, bool backward)
{
    const float *row = args->src[0] + r * n;
    const float *teacher = args->src[1] ? args->src[1] + r * n : NULL;
    float *gradient = backward ? args->dsrc[0] + r * n : NULL;
    double weight = teacher ? (double)args->weight : 0.0;
    row_target wanted = target_of(args, r, n);
    int32_t label = wanted.label;
    row_sums sums = {0.0, 0.0, 0.0, 0.0};
    if (gradient)
        memset(gradient, 0, (size_t)n * sizeof(float));
    if (label >= 0 && label < n) {
        double log_z = log_sum(row, n, 1.0), ce = 0.0;
        for (int64_t i = 0; i < n; i++) {
            double log_q = (double)row[i] - log_z;
            double target = target_at(&wanted, i);
            if (target > 0.0) /* so that an infinite logit elsewhere costs nothing */
                ce -= target * log_q;
            if (gradient)
                gradient[i] = (float)((1.0 - weight) * (exp(log_q) - target) * (double)args->scale);
        }
        int64_t before = rank_of(row, n, label);
        sums.loss = (1.0 - weight) * ce;
        sums.plain = log_z - (double)row[label];
        sums.top1 = before == 0 ? 1.0 : 0.0;
        sums.top5 = before < 5 ? 1.0 : 0.0;
    }
    if (teacher && weight > 0.0)
        sums.loss += weight * distill(args, row, teacher, n, weight, gradient);
    return sums;
}

/* Rows into the workspace, then added in order. */
static void run(tn_kernel *kernel, const tn_arguments *args, bool backward)
{
    const tn_loss_task *t = &kernel->task.loss;
    row_sums *rows = args->workspace, total = {0.0, 0.0, 0.0, 0.0};
    int64_t count = args->count;
#pragma omp parallel for schedule(static) if (count * t->classes > TN_CPU_GRAIN / 4)
    for (int64_t r = 0; r < count; r++)
        rows[r] = one_row(args, r, t->classes, backward);
    if (backward)
        memset(args->dsrc[0] + count * t->classes, 0,
               (size_t)((t->rows - count) * t->classes) * sizeof(float));
    for (int64_t r = 0; r < count; r++) {
        total.loss += rows[r].loss;
        total.top1 += rows[r].top1;
        total.top5 += rows[r].top5;
        total.plain += rows[r].plain;
    }
    args->dst[0] = (float)total.loss;
    args->dst[1] = (float)total.top1;
    args->dst[2] = (float)total.top5;
    args->dst[3] = (float)total.plain;
}

static tn_status loss_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    run(kernel, args, args->dsrc && args->dsrc[0]);
    return TN_OK;
}

static const tn_kernel_class loss_class = {tn_kernel_free, NULL, loss_forward, NULL};

tn_status tn_cpu_loss_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                              tn_error *error)
{
    tn_kernel *k;
    tn_status status =
        tn_kernel_create(device, task, &loss_class, "omp", sizeof(tn_kernel), &k, error);
    if (status != TN_OK)
        return status;
    k->workspace_bytes = (size_t)task->loss.rows * sizeof(row_sums);
    *kernel = k;
    return TN_OK;
}
