/* Where the time of a training step goes:
 *
 *   training_profile MODEL|ARCHITECTURE BATCH STEPS fp32|bf16 SCHEME[,GRANULARITY[,THRESHOLD]] [all]
 *
 * Milliseconds per kind of work, forward and backward, the mean of STEPS steps on noise; with "all"
 * also per step of the plan. Processor time with TERNION_CPU_TIME, else wall time. What a single
 * convolution's backward does is told apart by ONEDNN_VERBOSE=1. */
#include "tests/bench/noise.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_STEPS = 2000, OTHERS = 6 };

typedef struct profile {
    double forward[MOST_STEPS], backward[MOST_STEPS]; /* of each step of the plan */
    double other[OTHERS];
} profile;

static const char *const other_names[OTHERS] = {"quantize latents", "write input", "loss",
                                                "latents backward", "gradient norm", "update"};

/* As tn_student_batch, _collect and _update do on the CPU, with a clock between the parts. */
static tn_status step(noise_student *s, const noise *n, profile *p, tn_error *error)
{
    tn_student *student = &s->student;
    size_t steps = tn_plan_step_count(student->plan);
    tn_loss_options loss = {.labels = n->samples.labels, .count = n->samples.count};
    double at = noise_milliseconds(), now;
#define LAP(slot) (now = noise_milliseconds(), (slot) += now - at, at = now)
    tn_status status = tn_latents_apply(&student->latents, student->params, true, error);
    LAP(p->other[0]);
    if (status == TN_OK)
        status = tn_plan_write_images(student->plan, 0, n->samples.nhwc, n->batch, error);
    LAP(p->other[1]);
    for (size_t i = 0; status == TN_OK && i < steps; i++) {
        status = tn_plan_forward(student->plan, TN_RUN_TRAINING, i, i + 1, error);
        LAP(p->forward[i]);
    }
    if (status == TN_OK)
        status = tn_plan_loss(student->plan, &loss, NULL, error);
    LAP(p->other[2]);
    for (size_t i = steps; status == TN_OK && i-- > 0;) {
        status = tn_plan_backward(student->plan, i, i + 1, false, error);
        LAP(p->backward[i]);
    }
    if (status == TN_OK)
        status = tn_latents_backward(&student->latents, student->params, error);
    LAP(p->other[3]);
    double norm = tn_optimizer_gradient_norm(&student->optimizer);
    LAP(p->other[4]);
    if (status == TN_OK)
        status = tn_student_update(student, 0.01, norm, error);
    LAP(p->other[5]);
#undef LAP
    return status;
}

static void print_steps(const tn_plan *plan, const profile *p, int steps)
{
    for (size_t i = 0; i < tn_plan_step_count(plan); i++) {
        tn_plan_step step;
        tn_error error;
        if (tn_plan_step_at(plan, i, &step, &error) == TN_OK)
            printf("%8.2f %8.2f  %s %s %s %s\n", p->forward[i] / steps, p->backward[i] / steps,
                   tn_verb_name(step.verb), step.label, step.fused, step.kernel);
    }
}

static void print(const tn_plan *plan, const profile *p, int steps)
{
    double total = 0, forward = 0, backward = 0;
    printf(" forward backward  ms\n");
    for (int verb = 0; verb < 64; verb++) {
        double sums[2] = {0, 0};
        int found = 0;
        for (size_t i = 0; i < tn_plan_step_count(plan); i++) {
            tn_plan_step step;
            tn_error error;
            if (tn_plan_step_at(plan, i, &step, &error) != TN_OK || (int)step.verb != verb)
                continue;
            found++;
            sums[0] += p->forward[i] / steps;
            sums[1] += p->backward[i] / steps;
        }
        if (found)
            printf("%8.2f %8.2f  %s, %d\n", sums[0], sums[1], tn_verb_name((tn_verb)verb), found);
        forward += sums[0];
        backward += sums[1];
    }
    printf("%8.2f %8.2f  in all\n", forward, backward);
    for (int i = 0; i < OTHERS; i++) {
        printf("%8.2f           %s\n", p->other[i] / steps, other_names[i]);
        total += p->other[i] / steps;
    }
    printf("%8.2f           the step\n", total + forward + backward);
}

int main(int argc, char **argv)
{
    tn_error error = {0};
    noise network;
    static noise_student trained;
    static profile p;
    if (argc != 6 && argc != 7) {
        fprintf(stderr, "usage: training_profile MODEL|ARCHITECTURE BATCH STEPS fp32|bf16 SCHEME "
                        "[all]\n");
        return 2;
    }
    int steps = atoi(argv[3]) < 1 ? 1 : atoi(argv[3]);
    tn_status status = noise_open(argv[1], atoi(argv[2]), argv[4], &network, &error);
    if (status == TN_OK)
        status = noise_student_create(&network, argv[5], &trained, &error);
    if (status == TN_OK && tn_plan_step_count(trained.student.plan) > MOST_STEPS)
        status = tn_fail(&error, TN_ERROR_LIMIT, "more than %d steps", MOST_STEPS);
    if (status == TN_OK)
        status = noise_student_step(&trained, &network, &error); /* warms, packs */
    for (int i = 0; i < steps && status == TN_OK; i++)
        status = step(&trained, &network, &p, &error);
    if (status == TN_OK && argc == 7)
        print_steps(trained.student.plan, &p, steps);
    if (status == TN_OK)
        print(trained.student.plan, &p, steps);
    else
        fprintf(stderr, "training_profile: %s\n", error.message);
    tn_student_done(&trained.student);
    noise_close(&network);
    return status != TN_OK;
}
