#include "finetune/divergence.h"

#include <math.h>

double tn_divergence_row(const float *f, const float *q, int64_t classes)
{
    double top_f = (double)-INFINITY, top_q = (double)-INFINITY, sum_f = 0, sum_q = 0, kl = 0;
    for (int64_t i = 0; i < classes; i++) {
        top_f = fmax(top_f, (double)f[i]);
        top_q = fmax(top_q, (double)q[i]);
    }
    for (int64_t i = 0; i < classes; i++) {
        sum_f += exp((double)f[i] - top_f);
        sum_q += exp((double)q[i] - top_q);
    }
    for (int64_t i = 0; i < classes; i++) {
        double log_f = (double)f[i] - top_f - log(sum_f), log_q = (double)q[i] - top_q - log(sum_q);
        double p = exp(log_f);
        if (p != 0) /* 0 log 0 is 0: classes masked by a logit of -inf */
            kl += p * (log_f - log_q);
    }
    if (isnan(kl)) /* an overflow must not look like a perfect match */
        return (double)INFINITY;
    return fmax(kl, 0); /* rounding alone makes it less */
}

int64_t tn_first_maximum(const float *row, int64_t classes)
{
    int64_t top = 0;
    for (int64_t i = 0; i < classes; i++) {
        if (isnan(row[i]))
            return TN_NO_MAXIMUM;
        if (row[i] > row[top])
            top = i;
    }
    return isinf(row[top]) ? TN_NO_MAXIMUM : top;
}

bool tn_same_maximum(const float *f, const float *q, int64_t classes)
{
    int64_t top = tn_first_maximum(f, classes);
    return top != TN_NO_MAXIMUM && top == tn_first_maximum(q, classes);
}

void tn_divergence_mean(const float *f, const float *q, int64_t rows, int64_t classes, double *kl,
                        double *agreement)
{
    double sum = 0;
    int64_t agreed = 0;
    for (int64_t i = 0; i < rows; i++, f += classes, q += classes) {
        sum += tn_divergence_row(f, q, classes);
        agreed += tn_same_maximum(f, q, classes);
    }
    *kl = rows > 0 ? sum / (double)rows : 0;
    *agreement = rows > 0 ? (double)agreed / (double)rows : 0;
}
