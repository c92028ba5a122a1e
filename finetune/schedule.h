/* Learning-rate schedules: pure functions of the step, so that a resumed run needs no state. */
#ifndef TERNION_FINETUNE_SCHEDULE_H
#define TERNION_FINETUNE_SCHEDULE_H

#include "core/status.h"

#include <stdint.h>

typedef enum tn_schedule_kind {
    TN_SCHEDULE_COSINE, /* half a cosine from lr to lr * final (Loshchilov and Hutter 2017, no
                           restarts) */
    TN_SCHEDULE_STEP,   /* lr * gamma^k behind k milestones, given as fractions of the run */
    TN_SCHEDULE_LINEAR, /* straight line from lr to lr * final */
    TN_SCHEDULE_CONSTANT
} tn_schedule_kind;

enum { TN_MAX_MILESTONES = 8 };

typedef struct tn_schedule {
    tn_schedule_kind kind;
    double lr;        /* the peak */
    double final;     /* cosine, linear: last rate as a fraction of lr */
    double gamma;     /* step */
    int n_milestones; /* step */
    double milestone[TN_MAX_MILESTONES];
    uint64_t warmup_steps; /* linear from lr / warmup_steps */
    uint64_t total_steps;
} tn_schedule;

/* "cosine", "linear", "constant", "step" (0.1 at 50 % and 75 %) or "step:0.1@0.5,0.75" (gamma at
 * increasing fractions of the run). Sets kind, gamma and milestones. USAGE on anything else. */
tn_status tn_schedule_parse(const char *text, tn_schedule *schedule, tn_error *error) TN_MUST_CHECK;

/* The rate of step 0 <= step < total_steps; the last one's beyond. */
double tn_schedule_rate(const tn_schedule *schedule, uint64_t step);

#endif
