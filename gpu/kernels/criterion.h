/* The loss: softmax cross-entropy with label smoothing, distillation, top-1 and top-5. Three
 * launches: what the rows sum to, by 32 lanes each; the gradient; the sums over rows. */
#ifndef TERNION_GPU_KERNELS_CRITERION_H
#define TERNION_GPU_KERNELS_CRITERION_H

#include "gpu/body.h"

enum { TN_LOSS_LANES = 32 };

/* Of the classes lane, lane + 32, ... of a row; later of the whole row. */
typedef struct tn_loss_part {
    double most, teacher_most; /* largest logits */
    double sum, hot, teacher;  /* exp of logits; the same and the teacher's over T */
    double linear;             /* sum of logits, for the smoothed target */
    double before;             /* classes ranked before the label */
    double cross;              /* sum of p (log p - log q), once the row is known */
} tn_loss_part;

typedef struct tn_criterion_args {
    const float *logits, *teacher; /* teacher: NULL, none */
    const int32_t *labels;         /* NULL: all unlabelled */
    const int32_t *partners;       /* mixup's second labels; NULL: none */
    const float *mix;              /* with partners */
    float *gradient;               /* NULL: not wanted */
    float *sums;                   /* [4] */
    tn_loss_part *parts;           /* [count, LANES] */
    double *rows;                  /* [count, 4] */
    int64_t n_rows, classes, count;
    float scale, smoothing, temperature, weight;
} tn_criterion_args;

TN_BODY bool tn_loss_label(const tn_criterion_args *k, int64_t row, int32_t *label)
{
    *label = k->labels ? k->labels[row] : -1;
    return *label >= 0 && *label < k->classes;
}

/* Mixup's second label and its share: 0 without. */
TN_BODY double tn_loss_partner(const tn_criterion_args *k, int64_t row, int32_t *partner)
{
    *partner = k->partners ? k->partners[row] : -1;
    return *partner >= 0 && *partner < k->classes ? (double)k->mix[row] : 0.0;
}

/* Thread (row, lane): largest logits and the label's rank, over the lane's classes. */
TN_BODY void tn_loss_most_body(const tn_criterion_args *k, int64_t i)
{
    int64_t row = i / TN_LOSS_LANES;
    const float *x = k->logits + row * k->classes;
    const float *t = k->teacher ? k->teacher + row * k->classes : NULL;
    int32_t label;
    bool labelled = tn_loss_label(k, row, &label);
    float mine = labelled ? x[label] : 0.0f;
    tn_loss_part p = {-(double)INFINITY, -(double)INFINITY, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0};
    for (int64_t c = i % TN_LOSS_LANES; c < k->classes; c += TN_LOSS_LANES) {
        p.most = (double)x[c] > p.most ? (double)x[c] : p.most;
        if (t)
            p.teacher_most = (double)t[c] > p.teacher_most ? (double)t[c] : p.teacher_most;
        if (labelled && (mine != mine || x[c] > mine || (x[c] == mine && c < label)))
            p.before += 1.0;
        p.linear += (double)x[c];
    }
    k->parts[i] = p;
}

TN_BODY void tn_loss_largest(const tn_criterion_args *k, int64_t row, double *most,
                             double *teacher_most)
{
    *most = *teacher_most = -(double)INFINITY;
    for (int lane = 0; lane < TN_LOSS_LANES; lane++) {
        const tn_loss_part *p = &k->parts[row * TN_LOSS_LANES + lane];
        *most = p->most > *most ? p->most : *most;
        *teacher_most = p->teacher_most > *teacher_most ? p->teacher_most : *teacher_most;
    }
}

/* Thread (row, lane): sums of exponentials. */
TN_BODY void tn_loss_exponents_body(const tn_criterion_args *k, int64_t i)
{
    int64_t row = i / TN_LOSS_LANES;
    const float *x = k->logits + row * k->classes;
    const float *t = k->teacher ? k->teacher + row * k->classes : NULL;
    double most, teacher_most, sum = 0.0, hot = 0.0, teacher = 0.0;
    double heat = k->temperature > 0.0f ? (double)k->temperature : 1.0;
    tn_loss_largest(k, row, &most, &teacher_most);
    for (int64_t c = i % TN_LOSS_LANES; c < k->classes; c += TN_LOSS_LANES) {
        sum += exp((double)x[c] - most);
        if (t) {
            hot += exp(((double)x[c] - most) / heat);
            teacher += exp(((double)t[c] - teacher_most) / heat);
        }
    }
    k->parts[i].sum = sum;
    k->parts[i].hot = hot;
    k->parts[i].teacher = teacher;
}

typedef struct tn_loss_logs { /* log sum exp of a row: logits, logits / T, teacher / T */
    double plain, hot, teacher;
} tn_loss_logs;

TN_BODY tn_loss_logs tn_loss_row_logs(const tn_criterion_args *k, int64_t row)
{
    double most, teacher_most, sum = 0.0, hot = 0.0, teacher = 0.0;
    double heat = k->temperature > 0.0f ? (double)k->temperature : 1.0;
    tn_loss_largest(k, row, &most, &teacher_most);
    for (int lane = 0; lane < TN_LOSS_LANES; lane++) {
        const tn_loss_part *p = &k->parts[row * TN_LOSS_LANES + lane];
        sum += p->sum;
        hot += p->hot;
        teacher += p->teacher;
    }
    tn_loss_logs logs = {most + log(sum), most / heat + log(hot),
                         teacher_most / heat + log(teacher)};
    return logs;
}

/* Thread (row, lane): the gradient of the lane's classes; their part of the divergence. Rows past
 * count get zeros. */
TN_BODY void tn_loss_gradient_body(const tn_criterion_args *k, int64_t i)
{
    int64_t row = i / TN_LOSS_LANES, base = row * k->classes;
    if (row >= k->count) {
        for (int64_t c = i % TN_LOSS_LANES; c < k->classes && k->gradient; c += TN_LOSS_LANES)
            k->gradient[base + c] = 0.0f;
        return;
    }
    int32_t label, partner;
    bool labelled = tn_loss_label(k, row, &label);
    double mix = tn_loss_partner(k, row, &partner), certain = 1.0 - (double)k->smoothing;
    bool distilled = k->teacher && k->weight > 0.0f;
    double heat = k->temperature > 0.0f ? (double)k->temperature : 1.0, cross = 0.0;
    double weight = k->teacher ? (double)k->weight : 0.0, scale = (double)k->scale;
    double other = (double)k->smoothing / (double)k->classes;
    tn_loss_logs logs = tn_loss_row_logs(k, row);
    for (int64_t c = i % TN_LOSS_LANES; c < k->classes; c += TN_LOSS_LANES) {
        double x = (double)k->logits[base + c];
        float d = 0.0f;
        if (labelled) {
            double target = other + (c == label ? certain * (1.0 - mix) : 0.0) +
                            (c == partner ? certain * mix : 0.0);
            d = (float)((1.0 - weight) * (exp(x - logs.plain) - target) * scale);
        }
        if (distilled) {
            double log_q = x / heat - logs.hot;
            double log_p = (double)k->teacher[base + c] / heat - logs.teacher, p = exp(log_p);
            cross += p * (log_p - log_q);
            d += (float)(weight * heat * (exp(log_q) - p) * scale);
        }
        if (k->gradient)
            k->gradient[base + c] = d;
    }
    k->parts[i].cross = cross;
}

/* Thread per row: its loss, ranks, plain cross-entropy. */
TN_BODY void tn_loss_row_body(const tn_criterion_args *k, int64_t row)
{
    int32_t label, partner;
    double heat = k->temperature > 0.0f ? (double)k->temperature : 1.0;
    double weight = k->teacher ? (double)k->weight : 0.0, cross = 0.0, before = 0.0, linear = 0.0;
    double *out = k->rows + 4 * row;
    for (int lane = 0; lane < TN_LOSS_LANES; lane++) {
        const tn_loss_part *p = &k->parts[row * TN_LOSS_LANES + lane];
        cross += p->cross;
        before += p->before;
        linear += p->linear;
    }
    out[0] = out[1] = out[2] = out[3] = 0.0;
    if (tn_loss_label(k, row, &label)) {
        double log_z = tn_loss_row_logs(k, row).plain, smoothing = (double)k->smoothing;
        double plain = log_z - (double)k->logits[row * k->classes + label];
        double ce = plain, mix = tn_loss_partner(k, row, &partner);
        if (mix > 0.0)
            ce += mix * ((double)k->logits[row * k->classes + label] -
                         (double)k->logits[row * k->classes + partner]);
        if (smoothing > 0.0) /* so that an infinite logit elsewhere costs nothing without */
            ce = (1.0 - smoothing) * ce + smoothing * (log_z - linear / (double)k->classes);
        out[0] = (1.0 - weight) * ce;
        out[1] = before == 0.0 ? 1.0 : 0.0;
        out[2] = before < 5.0 ? 1.0 : 0.0;
        out[3] = plain;
    }
    if (weight > 0.0)
        out[0] += weight * heat * heat * cross;
}

/* Four threads: one sum each, rows in order. */
TN_BODY void tn_loss_sums_body(const tn_criterion_args *k, int64_t i)
{
    double sum = 0.0;
    for (int64_t row = 0; row < k->count; row++)
        sum += k->rows[4 * row + i];
    k->sums[i] = (float)sum;
}

#endif
