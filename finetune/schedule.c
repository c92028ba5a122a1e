#include "finetune/schedule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static tn_status parse_milestones(const char *text, tn_schedule *schedule, tn_error *error)
{
    char *end;
    schedule->gamma = strtod(text, &end);
    if (end == text || *end != '@' || !(schedule->gamma > 0 && schedule->gamma <= 1))
        goto bad;
    schedule->n_milestones = 0;
    for (double last = 0; *end;) {
        const char *start = end + 1;
        if (schedule->n_milestones == TN_MAX_MILESTONES)
            goto bad;
        double at = strtod(start, &end);
        if (end == start || (*end && *end != ',') || !(at > last && at < 1))
            goto bad;
        schedule->milestone[schedule->n_milestones++] = last = at;
    }
    if (schedule->n_milestones > 0)
        return TN_OK;
bad:
    return tn_fail(error, TN_ERROR_USAGE,
                   "schedule 'step:%s': expected step:GAMMA@F1,F2,... with 0 < GAMMA <= 1 and at "
                   "most %d increasing fractions of the run, such as step:0.1@0.5,0.75",
                   text, TN_MAX_MILESTONES);
}

tn_status tn_schedule_parse(const char *text, tn_schedule *schedule, tn_error *error)
{
    static const struct {
        const char *name;
        tn_schedule_kind kind;
    } names[] = {{"cosine", TN_SCHEDULE_COSINE},
                 {"linear", TN_SCHEDULE_LINEAR},
                 {"constant", TN_SCHEDULE_CONSTANT}};
    tn_schedule parsed = *schedule;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (!strcmp(text, names[i].name)) {
            schedule->kind = names[i].kind;
            return TN_OK;
        }
    }
    parsed.kind = TN_SCHEDULE_STEP;
    tn_status status;
    if (!strcmp(text, "step"))
        status = parse_milestones("0.1@0.5,0.75", &parsed, error);
    else if (!strncmp(text, "step:", 5))
        status = parse_milestones(text + 5, &parsed, error);
    else
        status = tn_fail(error, TN_ERROR_USAGE,
                         "schedule %s: expected cosine, linear, constant, step or "
                         "step:GAMMA@F1,F2,...",
                         tn_quote(text));
    if (status == TN_OK)
        *schedule = parsed;
    return status;
}

static double decay(const tn_schedule *schedule, double progress)
{
    switch (schedule->kind) {
    case TN_SCHEDULE_COSINE:
        return schedule->final +
               (1 - schedule->final) * 0.5 * (1 + cos(3.14159265358979323846 * progress));
    case TN_SCHEDULE_LINEAR:
        return 1 - (1 - schedule->final) * progress;
    case TN_SCHEDULE_STEP: {
        double factor = 1;
        for (int i = 0; i < schedule->n_milestones; i++)
            factor *= progress >= schedule->milestone[i] ? schedule->gamma : 1;
        return factor;
    }
    case TN_SCHEDULE_CONSTANT:
        break;
    }
    return 1;
}

double tn_schedule_rate(const tn_schedule *schedule, uint64_t step)
{
    if (schedule->total_steps > 0 && step >= schedule->total_steps)
        step = schedule->total_steps - 1;
    if (step < schedule->warmup_steps)
        return schedule->lr * (double)(step + 1) / (double)schedule->warmup_steps;
    /* curves begin behind the warm-up; milestones are fractions of the run */
    uint64_t first = schedule->kind == TN_SCHEDULE_STEP ? 0 : schedule->warmup_steps;
    uint64_t span = schedule->total_steps > first ? schedule->total_steps - first : 1;
    return schedule->lr * decay(schedule, (double)(step - first) / (double)span);
}
