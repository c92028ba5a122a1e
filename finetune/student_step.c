/* A student's training step: its batches, their gradients, the update. */
#include "finetune/student.h"

#include <math.h>
#include <string.h>

void tn_student_anneal(tn_student *student, double progress)
{
    const tn_train_options *options = student->options;
    double t = options->parq_fraction > 0 ? progress / options->parq_fraction : 1;
    /* PARQ's schedule: a sigmoid from 1 to 0, then hard */
    double rho_inv = t >= 1 ? 0 : 1 / (1 + exp(20 * (t - 0.5)));
    for (size_t i = 0; i < student->latents.count; i++) {
        tn_latent *latent = &student->latents.item[i];
        if (!strcmp(latent->scheme.quantizer->id, "parq"))
            latent->state.rho_inv = (float)rho_inv;
        if (options->sparsity_ramp && latent->scheme.threshold == TN_THRESHOLD_SPARSITY)
            latent->scheme.threshold_value = (float)((double)latent->layer->scheme.threshold_value *
                                                     (progress < 0.5 ? 2 * progress : 1));
    }
}

/* The teacher's logits for what its input holds. */
static tn_status ask_teacher(tn_student *student, tn_error *error)
{
    return student->teacher
               ? tn_plan_forward(student->teacher, TN_RUN_INFERENCE, 0, SIZE_MAX, error)
               : TN_OK;
}

/* Images to `plan`, and to the teacher. */
static tn_status send_images(const tn_student *student, tn_plan *plan, const tn_sample_batch *batch,
                             tn_error *error)
{
    if (batch->bytes)
        return tn_image_feed_send(student->feed, batch->bytes, error);
    tn_status status = tn_plan_write_images(plan, 0, batch->nhwc, batch->count, error);
    if (status == TN_OK && student->teacher)
        status = tn_plan_write_images(student->teacher, 0, batch->nhwc, batch->count, error);
    return status;
}

/* The same for bytes: the device makes them. */
static tn_status make_images(const tn_student *student, tn_error *error)
{
    float *input = tn_plan_input_buffer(student->plan, 0);
    tn_device *device = student->options->device;
    tn_status status = tn_image_feed_make(student->feed, input, error);
    if (status == TN_OK && student->teacher)
        status = device->type->copy(device, tn_plan_input_buffer(student->teacher, 0), input,
                                    (size_t)tn_image_feed_elements(student->feed) * sizeof *input,
                                    error);
    return status;
}

static tn_status set_targets(tn_student *student, const tn_sample_batch *batch,
                             tn_loss_options *loss, tn_error *error)
{
    const tn_train_options *options = student->options;
    bool channels_last;
    *loss = (tn_loss_options){.labels = batch->labels,
                              .partners = batch->partners,
                              .mix = batch->mix,
                              .count = batch->count,
                              .smoothing = (float)options->label_smoothing};
    if (!student->teacher)
        return TN_OK;
    loss->temperature = (float)options->temperature;
    loss->weight = (float)options->distill_weight;
    return tn_plan_raw(student->teacher, tn_plan_logits(student->teacher), &loss->teacher_data,
                       &channels_last, error);
}

/* Of a step, as recorded. Ahead of the host: AHEAD + NEXT for batches after the first, + LAST for
 * the last. */
enum part { FIRST_BATCH, NEXT_BATCH, COLLECT, UPDATE, AHEAD, NEXT = 1, LAST = 2 };

/* What a batch's work is done with. */
typedef struct batch_work {
    tn_student *student;
    tn_loss_options loss;
    bool accumulate, bytes, last;
} batch_work;

/* Parameters from latents where the host has them, else only what precedes that. */
static tn_status settle_latents(tn_student *student, tn_error *error)
{
    if (student->resident)
        return tn_resident_enter(student->resident, error);
    tn_status status = tn_params_push(student->params, error);
    return status == TN_OK ? tn_latents_apply(&student->latents, student->params, true, error)
                           : status;
}

/* A recording holds the numbers it was made with: batches of one kind are replayed, others run. */
static bool is_usual(tn_student *student, const tn_loss_options *loss)
{
    tn_loss_options *usual = &student->usual;
    if (usual->count == 0)
        *usual = *loss;
    return loss->count == usual->count && loss->scale == usual->scale &&
           !loss->labels == !usual->labels && !loss->partners == !usual->partners;
}

static tn_status run_batch(void *context, tn_error *error)
{
    const batch_work *work = context;
    tn_student *student = work->student;
    tn_run_mode mode = student->options->batch_norm == TN_BATCH_NORM_FREEZE
                           ? TN_RUN_FROZEN_STATISTICS
                           : TN_RUN_TRAINING;
    tn_status status = work->bytes ? make_images(student, error) : TN_OK;
    if (status == TN_OK)
        status = ask_teacher(student, error);
    if (status == TN_OK && student->resident && !work->accumulate)
        status = tn_resident_quantize(student->resident, error);
    if (status == TN_OK)
        status = tn_plan_forward(student->plan, mode, 0, SIZE_MAX, error);
    if (status == TN_OK)
        status = tn_plan_compute_loss(student->plan, &work->loss, error);
    if (status == TN_OK)
        status = tn_plan_backward(student->plan, 0, SIZE_MAX, work->accumulate, error);
    return status;
}

/* What a batch's work needs in the device's memory. */
static tn_status send_batch(tn_student *student, const tn_sample_batch *batch, double share,
                            batch_work *work, tn_error *error)
{
    tn_status status = set_targets(student, batch, &work->loss, error);
    work->loss.scale = (float)(share / (double)batch->count);
    if (status == TN_OK && !work->accumulate)
        status = settle_latents(student, error);
    if (!student->resident && !work->accumulate)
        tn_running_statistics_keep(&student->running, student->params);
    if (status == TN_OK)
        status = send_images(student, student->plan, batch, error);
    if (status == TN_OK)
        status = tn_plan_set_dropout(student->plan, batch->seed, batch->epoch, batch->first, error);
    return status == TN_OK ? tn_plan_set_targets(student->plan, &work->loss, error) : status;
}

/* Recorded or not. */
static tn_status run_part(tn_student *student, int part, tn_recorded_work *run, batch_work *work,
                          tn_error *error)
{
    return is_usual(student, &work->loss)
               ? tn_recorder_run(&student->recorder, part, run, work, error)
               : run(work, error);
}

tn_status tn_student_batch(tn_student *student, const tn_sample_batch *batch, bool accumulate,
                           double share, tn_loss_result *result, tn_error *error)
{
    batch_work work = {.student = student, .accumulate = accumulate, .bytes = batch->bytes};
    tn_status status = send_batch(student, batch, share, &work, error);
    if (status == TN_OK)
        status = run_part(student, accumulate ? NEXT_BATCH : FIRST_BATCH, run_batch, &work, error);
    return status == TN_OK ? tn_plan_read_loss(student->plan, result, error) : status;
}

bool tn_student_runs_ahead(const tn_student *student)
{
    return student->resident && !student->reduction;
}

static tn_status run_ahead(void *context, tn_error *error)
{
    const batch_work *work = context;
    tn_resident *resident = work->student->resident;
    tn_status status = run_batch(context, error);
    if (status == TN_OK)
        status = tn_resident_tally(resident, tn_plan_loss_sums(work->student->plan),
                                   work->accumulate, error);
    if (status == TN_OK && work->last)
        status = tn_resident_collect(resident, error);
    if (status == TN_OK && work->last)
        status = tn_resident_conclude(resident, error);
    return status;
}

tn_status tn_student_ahead(tn_student *student, const tn_sample_batch *batch, bool accumulate,
                           double share, bool last, double lr, tn_error *error)
{
    batch_work work = {
        .student = student, .accumulate = accumulate, .bytes = batch->bytes, .last = last};
    tn_status status = send_batch(student, batch, share, &work, error);
    if (status == TN_OK && last)
        status = tn_resident_announce(student->resident, lr, error);
    if (status == TN_OK)
        status = run_part(student, AHEAD + (accumulate ? NEXT : 0) + (last ? LAST : 0), run_ahead,
                          &work, error);
    if (status == TN_OK && last)
        tn_resident_concluded(student->resident);
    return status;
}

int tn_student_pending(const tn_student *student)
{
    return tn_resident_pending(student->resident);
}

tn_status tn_student_look(tn_student *student, tn_step_record *records, int *n, tn_error *error)
{
    return tn_resident_look(student->resident, records, n, error);
}

tn_status tn_student_judge(tn_student *student, const tn_sample_batch *batch,
                           tn_loss_result *result, tn_error *error)
{
    tn_loss_options loss;
    tn_status status = set_targets(student, batch, &loss, error);
    if (status == TN_OK)
        status = send_images(student, student->judge, batch, error);
    if (status == TN_OK)
        status = ask_teacher(student, error);
    if (status == TN_OK)
        status = tn_plan_forward(student->judge, TN_RUN_INFERENCE, 0, SIZE_MAX, error);
    if (status == TN_OK)
        status = tn_plan_loss(student->judge, &loss, result, error);
    return status;
}

tn_status tn_student_reduce(tn_student *student, tn_error *error)
{
    return tn_reduction_run(student->reduction, error);
}

static tn_status run_collect(void *context, tn_error *error)
{
    return tn_resident_collect(context, error);
}

tn_status tn_student_collect(tn_student *student, double *norm, tn_error *error)
{
    tn_status status;
    if (student->resident) {
        status =
            tn_recorder_run(&student->recorder, COLLECT, run_collect, student->resident, error);
        return status == TN_OK ? tn_resident_norm(student->resident, norm, error) : status;
    }
    status = tn_latents_backward(&student->latents, student->params, error);
    if (status == TN_OK)
        status = tn_params_pull_gradients(student->params, error);
    if (status == TN_OK)
        *norm = tn_optimizer_gradient_norm(&student->optimizer);
    return status;
}

static tn_status run_update(void *context, tn_error *error)
{
    return tn_resident_update(context, error);
}

tn_status tn_student_update(tn_student *student, double lr, double norm, tn_error *error)
{
    double clip = student->options->clip_norm;
    double scale = tn_clip_factor(clip, norm);
    if (student->resident) {
        tn_status status = tn_resident_prepare(student->resident, lr, scale, error);
        if (status == TN_OK)
            status =
                tn_recorder_run(&student->recorder, UPDATE, run_update, student->resident, error);
        if (status == TN_OK)
            tn_resident_updated(student->resident);
        return status;
    }
    tn_optimizer_step(&student->optimizer, lr, scale);
    tn_latents_constrain(&student->latents);
    tn_activation_steps_constrain(&student->steps, student->params);
    for (size_t i = 0; i < tn_params_count(student->params); i++)
        if (tn_params_at(student->params, i)->trainable)
            tn_params_touch(student->params, i);
    return TN_OK;
}

void tn_student_drop(tn_student *student)
{
    if (!student->resident)
        tn_running_statistics_restore(&student->running, student->params);
}

tn_status tn_student_fetch(tn_student *student, tn_error *error)
{
    tn_status status = tn_resident_leave(student->resident, error);
    if (status == TN_OK)
        tn_activation_steps_constrain(&student->steps, student->params);
    return status;
}

tn_status tn_student_settle(tn_student *student, tn_error *error)
{
    tn_status status = tn_student_fetch(student, error);
    for (size_t i = 0; i < student->latents.count; i++)
        student->latents.item[i].state.rho_inv = 0; /* parq: judged as it would be written */
    if (status == TN_OK)
        status = tn_params_push(student->params, error);
    if (status == TN_OK)
        status = tn_latents_apply(&student->latents, student->params, true, error);
    return status;
}
