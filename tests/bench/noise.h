/* What the training benchmarks share: a network to train on noise, students of it, and clocks. */
#ifndef TERNION_TESTS_BENCH_NOISE_H
#define TERNION_TESTS_BENCH_NOISE_H

#include "finetune/student.h"

typedef struct noise { /* one network, and a batch of noise for it */
    tn_model *model;
    tn_device *device;
    tn_sample_batch samples;
    int batch;
    tn_precision precision;
} noise;

/* name: a file, or an architecture of `ternion create`. kind: fp32 or bf16. The device has
 * OMP_NUM_THREADS threads. */
tn_status noise_open(const char *name, int batch, const char *kind, noise *n,
                     tn_error *error) TN_MUST_CHECK;
void noise_close(noise *n);

typedef struct noise_student {
    char text[64]; /* as asked for, and cut apart at its commas */
    char parts[64];
    tn_train_options options;
    tn_student student;
} noise_student;

/* scheme: SCHEME[,GRANULARITY[,THRESHOLD]], e.g. "ttq,tensor,max:0.05". Stays where it is. */
tn_status noise_student_create(const noise *n, const char *scheme, noise_student *s,
                               tn_error *error) TN_MUST_CHECK;
/* One whole training step. */
tn_status noise_student_step(noise_student *s, const noise *n, tn_error *error) TN_MUST_CHECK;

/* Processor time of this process with TERNION_CPU_TIME, else wall time. */
double noise_milliseconds(void);
/* At most 100 of them. */
double noise_median(const double *values, int n);

#endif
