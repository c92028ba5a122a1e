/* The training loop: epochs, validation, checkpoints, divergence, and the result. */
#include "finetune/train.h"

#include "core/memory.h"
#include "finetune/checkpoint.h"
#include "finetune/evaluate.h"
#include "finetune/identity.h"
#include "finetune/runlog.h"
#include "finetune/schedule.h"
#include "finetune/student.h"
#include "finetune/trained.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { COMPARE_STEPS = 100 }; /* between looks whether all ranks hold the same weights */

typedef struct trainer {
    tn_train_options options; /* resolved */
    const tn_train_data *data;
    tn_student student;
    tn_loader *loader;
    tn_schedule schedule;
    tn_progress_state state;
    tn_run_identity identity;
    tn_checkpoint checkpoint;
    tn_runlog log;
    tn_epoch_figures figures;
    uint64_t steps_per_epoch, total_steps;
    double epoch_start, last_save;
    int64_t seen_since; /* epoch_start: after a resume not the whole epoch */
    int epochs_without_better;
    bool stopped;
    bool asked_to_stop; /* on some rank */
} trainer;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static bool is_first(const trainer *t)
{
    return t->options.collective->rank == 0;
}

static tn_status open_folder(trainer *t, tn_error *error)
{
    const char *folder = t->options.folder;
    if (!is_first(t))
        return TN_OK;
    if (folder && mkdir(folder, 0777) && errno != EEXIST)
        return tn_fail(error, TN_ERROR_IO, "%s: cannot create the run's folder: %s",
                       tn_quote(folder), strerror(errno));
    return tn_runlog_open(folder, &t->log, error);
}

static tn_status open_loader(trainer *t, tn_error *error)
{
    /* the feed makes images [N, H, W, C] where the plan keeps those of a model [N, C, H, W] */
    const tn_value *input = t->student.graph->inputs[0];
    bool bytes = !tn_input_channels_last(input->rank, input->dims) &&
                 tn_image_feed_wanted(t->options.device, t->data->train);
    tn_loader_options loader = {.preprocess = t->data->preprocess,
                                .augment = t->data->augment,
                                .output = bytes ? TN_LOADER_PIXELS : TN_LOADER_VALUES_NHWC,
                                .batch = (size_t)t->options.batch,
                                .seed = t->options.seed,
                                .shuffle = true,
                                .drop_last = true,
                                .replace_bad = true,
                                .max_bad = t->data->max_bad,
                                .rank = t->options.collective->rank,
                                .ranks = t->options.collective->size,
                                .threads = t->options.threads_loader};
    size_t images = tn_dataset_count(t->data->train);
    if (images < (size_t)t->options.batch * (size_t)t->options.accumulate)
        return tn_fail(
            error, TN_ERROR_DATA,
            "%s: %zu images are fewer than one step's %d x %d (batch-size x accumulate): give "
            "a smaller --batch-size or --accumulate",
            tn_dataset_description(t->data->train), images, t->options.batch,
            t->options.accumulate);
    tn_status status = tn_loader_create(t->data->train, &loader, &t->loader, error);
    if (status == TN_OK && bytes)
        status = tn_image_feed_create(t->options.device, t->loader, images,
                                      tn_train_rank_batch(&t->options), &t->student.feed, error);
    if (status != TN_OK)
        return status;
    t->steps_per_epoch = tn_loader_batches(t->loader) / (size_t)t->options.accumulate;
    t->total_steps = t->steps_per_epoch * (uint64_t)t->options.epochs;
    return TN_OK;
}

static tn_status check_classes(const trainer *t, const tn_dataset *dataset, tn_error *error)
{
    int classes = tn_dataset_classes(dataset);
    if (classes > 0 && classes != t->student.classes)
        return tn_fail(
            error, TN_ERROR_DATA,
            "%s, but the network has %lld outputs: they must be equal (--classes gives a "
            "network a new head)",
            tn_dataset_description(dataset), (long long)t->student.classes);
    if (classes == 0 && !t->student.teacher)
        return tn_fail(error, TN_ERROR_DATA,
                       "%s has no labels: training needs labels or a teacher (--distill)",
                       tn_dataset_description(dataset));
    return TN_OK;
}

static tn_status begin(trainer *t, const tn_conversion *start, tn_error *error)
{
    t->schedule = (tn_schedule){.lr = t->options.lr, .final = t->options.final_lr};
    t->state = (tn_progress_state){.lr_factor = 1, .best_loss = (double)INFINITY};
    tn_status status = tn_schedule_parse(t->options.schedule, &t->schedule, error);
    if (status == TN_OK)
        status = open_loader(t, error);
    if (status == TN_OK)
        status = check_classes(t, t->data->train, error);
    if (status == TN_OK && t->data->val)
        status = check_classes(t, t->data->val, error);
    if (status == TN_OK && start)
        status = tn_student_start(&t->student, start, error);
    if (status != TN_OK)
        return status;
    t->schedule.total_steps = t->total_steps;
    t->schedule.warmup_steps =
        (uint64_t)(t->options.warmup_epochs * (double)t->steps_per_epoch + 0.5);
    t->checkpoint = (tn_checkpoint){.optimizer = &t->student.optimizer,
                                    .params = t->student.params,
                                    .state = &t->state,
                                    .identity = &t->identity};
    status = open_folder(t, error);
    bool found = false;
    if (status == TN_OK && t->options.folder && t->options.resume && is_first(t))
        status = tn_checkpoint_restore(t->options.folder, t->options.reporter, &t->checkpoint,
                                       &found, error);
    if (status == TN_OK)
        status = tn_checkpoint_share(&t->checkpoint, t->options.collective, error);
    if (status != TN_OK)
        return status;
    t->last_save = now();
    return tn_runlog_write(&t->log, found ? "resume" : "start",
                           json_pack("{s:I, s:i, s:I, s:s, s:s, s:s, s:s, s:i, s:o}", "step",
                                     (json_int_t)t->state.step, "epoch", (int)t->state.epoch,
                                     "seed", (json_int_t)t->options.seed, "recipe_hash",
                                     t->identity.recipe, "model_hash", t->identity.model,
                                     "data_hash", t->identity.data, "machine", t->identity.machine,
                                     "processes", t->identity.processes, "recipe",
                                     tn_train_options_to_json(&t->options)),
                           error);
}

/* Amid bad steps the last checkpoint stays the one to go back to. */
static bool is_sound(const trainer *t)
{
    return t->state.guard.bad == 0 && isfinite(t->figures.val_loss);
}

static tn_status save(trainer *t, bool best, tn_error *error)
{
    if (!t->options.folder || !is_first(t))
        return TN_OK;
    tn_status status = tn_student_fetch(&t->student, error);
    if (status == TN_OK)
        status = tn_checkpoint_save(t->options.folder, best, &t->checkpoint, error);
    t->last_save = now();
    if (status == TN_OK)
        status = tn_runlog_write(&t->log, "checkpoint",
                                 json_pack("{s:I, s:i, s:b}", "step", (json_int_t)t->state.step,
                                           "epoch", (int)t->state.epoch, "best", best),
                                 error);
    return status;
}

static tn_status roll_back(trainer *t, tn_error *error)
{
    uint32_t rollbacks = t->state.guard.rollbacks + 1, dropped = t->state.guard.dropped;
    double factor = t->state.lr_factor * 0.5;
    bool found = false;
    if (rollbacks > TN_GUARD_ROLLBACKS || !t->options.folder)
        return tn_fail(
            error, TN_ERROR_DIVERGED,
            "training diverged at step %llu (loss or gradient not finite, or the loss 10 "
            "times its median) after %u rollbacks: try a smaller --lr, --clip-norm 5, or "
            "--warmup-epochs 1%s",
            (unsigned long long)t->state.step, t->state.guard.rollbacks,
            t->options.folder ? "" : "; --checkpoint DIR allows rollbacks");
    tn_status status = tn_student_fetch(&t->student, error);
    if (status == TN_OK && is_first(t))
        status = tn_checkpoint_restore(t->options.folder, t->options.reporter, &t->checkpoint,
                                       &found, error);
    if (status == TN_OK && is_first(t) && !found)
        status =
            tn_fail(error, TN_ERROR_DIVERGED,
                    "training diverged at step %llu before the first checkpoint: try a smaller "
                    "--lr",
                    (unsigned long long)t->state.step);
    if (status == TN_OK)
        status = tn_checkpoint_share(&t->checkpoint, t->options.collective, error);
    if (status != TN_OK)
        return status;
    t->state.lr_factor = factor;
    t->state.guard.rollbacks = rollbacks;
    t->state.guard.dropped = dropped;
    t->state.guard.bad = 0;
    tn_log(t->options.reporter, TN_LOG_WARNING,
           "the loss diverged: back to step %llu with half the learning rate",
           (unsigned long long)t->state.step);
    status = tn_runlog_write(
        &t->log, "rollback",
        json_pack("{s:I, s:f}", "step", (json_int_t)t->state.step, "lr_factor", factor), error);
    if (status == TN_OK)
        status = tn_loader_start(t->loader, t->state.epoch, t->state.batch, error);
    return status;
}

static tn_sample_batch samples_of(const trainer *t, const tn_batch *batch)
{
    bool mixes = t->data->augment && t->data->augment->mixup > 0;
    const uint64_t before = (uint64_t)t->options.collective->rank *
                            (uint64_t)tn_train_rank_batch(&t->options); /* other ranks' samples */
    return (tn_sample_batch){.nhwc = batch->values,
                             .bytes = batch->values ? NULL : batch,
                             .labels = batch->labels,
                             .partners = mixes ? batch->partner_labels : NULL,
                             .mix = mixes ? batch->partner_shares : NULL,
                             .count = (int64_t)batch->count,
                             .seed = t->options.seed,
                             .epoch = t->state.epoch,
                             .first = batch->number * (uint64_t)t->options.batch + before};
}

/* Of a step, over all ranks: its loss, and whether somebody wants to stop. */
static tn_status add_figures(trainer *t, tn_loss_result *sum, int64_t *seen, tn_error *error)
{
    double figures[] = {sum->loss, (double)sum->top1, (double)*seen,
                        tn_cancelled(t->options.reporter) ? 1 : 0};
    tn_status status = tn_collective_sum_double(t->options.collective, figures,
                                                sizeof figures / sizeof *figures, error);
    if (status != TN_OK)
        return status;
    sum->loss = figures[0];
    sum->top1 = (int64_t)figures[1];
    *seen = (int64_t)figures[2];
    t->asked_to_stop = figures[3] > 0;
    return TN_OK;
}

/* Now and then: every rank must have come to the same weights. */
static tn_status compare_ranks(trainer *t, tn_error *error)
{
    char hash[33];
    /* where the weights are on a device, at the end of epochs only: they would be copied */
    if (t->options.collective->size == 1 || t->student.resident ||
        t->state.step % COMPARE_STEPS != 0)
        return TN_OK;
    tn_checkpoint_hash(&t->checkpoint, hash);
    return tn_checkpoint_compare(&t->checkpoint, hash, t->options.collective, error);
}

static tn_status next_samples(trainer *t, tn_sample_batch *samples, tn_error *error)
{
    const tn_batch *batch = NULL;
    tn_status status = tn_loader_next(t->loader, &batch, error);
    if (status == TN_OK && !batch)
        status = tn_fail(error, TN_ERROR_DATA, "the epoch ended early: the data set changed");
    if (status == TN_OK)
        *samples = samples_of(t, batch);
    return status;
}

/* The learning rate of a step. */
static double rate_of(const trainer *t, uint64_t step)
{
    return tn_schedule_rate(&t->schedule, step) * t->state.lr_factor;
}

static void add_step(trainer *t, double loss, int64_t top1, int64_t seen)
{
    t->state.epoch_loss += loss;
    t->state.epoch_top1 += top1;
    t->state.epoch_seen += seen;
    t->seen_since += seen;
}

/* One update, queued on the device; `look` finds out what became of it. */
static tn_status step_ahead(trainer *t, tn_error *error)
{
    tn_status status = TN_OK;
    const int last = t->options.accumulate - 1;
    tn_student_anneal(&t->student, (double)t->state.step / (double)t->total_steps);
    for (int i = 0; status == TN_OK && i <= last; i++) {
        tn_sample_batch samples;
        status = next_samples(t, &samples, error);
        if (status == TN_OK)
            status = tn_student_ahead(&t->student, &samples, i > 0, 1.0 / t->options.accumulate,
                                      i == last, rate_of(t, t->state.step), error);
    }
    t->state.batch += (uint32_t)t->options.accumulate;
    t->state.step++;
    return status;
}

static tn_verdict judge_step(trainer *t, double loss, double norm)
{
    return tn_guard_judge(&t->state.guard, loss, norm, log((double)t->student.classes));
}

/* Judges the steps that ran ahead, in their order. Behind one to go back from, none counts. */
static tn_status look(trainer *t, tn_verdict *verdict, tn_error *error)
{
    tn_step_record records[TN_STEP_LOG];
    const int64_t seen = (int64_t)t->options.batch * t->options.accumulate; /* full batches alone */
    int n = 0;
    *verdict = TN_STEP_GOOD;
    tn_status status = tn_student_look(&t->student, records, &n, error);
    const uint64_t first = t->state.step - (uint64_t)n;
    for (int i = 0; status == TN_OK && i < n && *verdict != TN_STEP_ROLL_BACK; i++) {
        const uint64_t number = first + (uint64_t)i;
        *verdict = judge_step(t, records[i].loss / (double)seen, records[i].norm);
        if (*verdict == TN_STEP_ROLL_BACK)
            t->state.step = number + 1;
        if (*verdict != TN_STEP_GOOD)
            continue;
        t->figures.lr = rate_of(t, number);
        add_step(t, records[i].loss, (int64_t)records[i].top1, seen);
    }
    return status;
}

/* One update: forward and backward over `accumulate` batches, then the optimizer. */
static tn_status step(trainer *t, tn_verdict *verdict, tn_error *error)
{
    tn_loss_result sum = {0};
    int64_t seen = 0;
    tn_status status = TN_OK;
    double progress = (double)t->state.step / (double)t->total_steps, norm = 0;
    const double share = 1.0 / ((double)t->options.accumulate * t->options.collective->size);
    tn_student_anneal(&t->student, progress);
    for (int i = 0; status == TN_OK && i < t->options.accumulate; i++) {
        tn_sample_batch samples;
        tn_loss_result loss = {0};
        status = next_samples(t, &samples, error);
        if (status == TN_OK)
            status = tn_student_batch(&t->student, &samples, i > 0, share, &loss, error);
        if (status != TN_OK)
            return status;
        sum.loss += loss.loss;
        sum.top1 += loss.top1;
        seen += samples.count;
    }
    status = add_figures(t, &sum, &seen, error);
    if (status == TN_OK)
        status = tn_student_reduce(&t->student, error);
    if (status == TN_OK)
        status = tn_student_collect(&t->student, &norm, error);
    if (status != TN_OK)
        return status;
    *verdict = judge_step(t, sum.loss / (double)seen, norm);
    t->state.batch += (uint32_t)t->options.accumulate;
    t->state.step++; /* dropped steps count: the schedule and the data go on */
    if (*verdict != TN_STEP_GOOD) {
        tn_student_drop(&t->student);
        return TN_OK;
    }
    t->figures.lr = rate_of(t, t->state.step - 1);
    status = tn_student_update(&t->student, t->figures.lr, norm, error);
    if (status != TN_OK)
        return status;
    add_step(t, sum.loss, sum.top1, seen);
    return compare_ranks(t, error);
}

static bool must_stop(const trainer *t)
{
    return t->asked_to_stop ||
           (t->options.collective->size == 1 && tn_cancelled(t->options.reporter)) ||
           (t->options.max_steps > 0 && t->state.step >= (uint64_t)t->options.max_steps);
}

/* Each rank judges its part of the images. */
static tn_status add_evaluations(tn_collective *collective, tn_evaluation *e, tn_error *error)
{
    double labelled = 0;
    for (int k = 0; k < e->classes; k++)
        labelled += (double)e->class_images[k];
    double figures[] = {labelled, e->loss * labelled, (double)e->correct_top1,
                        (double)e->correct_topk};
    tn_status status =
        tn_collective_sum_double(collective, figures, sizeof figures / sizeof *figures, error);
    double n = figures[0] > 0 ? figures[0] : 1;
    e->loss = figures[1] / n;
    e->top1 = figures[2] / n;
    e->topk = figures[3] / n;
    return status;
}

/* `together`: on all ranks; else the caller judges all images alone. */
static tn_status validate(trainer *t, bool together, tn_error *error)
{
    tn_collective *collective = together ? t->options.collective : tn_collective_single();
    t->figures.val_loss = t->figures.val_top1 = t->figures.val_top5 = -1;
    tn_status status = tn_student_settle(&t->student, error);
    if (status != TN_OK || !t->data->val)
        return status;
    tn_evaluation evaluation;
    tn_evaluate_options options = {.preprocess = t->data->preprocess,
                                   .max_bad = t->data->max_bad,
                                   .rank = collective->rank,
                                   .ranks = collective->size,
                                   .threads = t->options.threads_loader};
    status = tn_evaluate_plan(t->student.judge, t->data->val, &options, &evaluation, error);
    if (status == TN_OK && collective->size > 1) {
        status = add_evaluations(collective, &evaluation, error);
        if (status != TN_OK)
            tn_evaluation_done(&evaluation);
    }
    if (status != TN_OK)
        return status;
    t->figures.val_loss = evaluation.loss;
    t->figures.val_top1 = evaluation.top1;
    t->figures.val_top5 = evaluation.topk;
    tn_evaluation_done(&evaluation);
    return TN_OK;
}

/* Running statistics lag behind weights whose codes and scales move (ttq most of all), and are not
 * those of averages: a look in between measures its own. Training goes on with the running ones. */
static tn_status validate_measured(trainer *t, tn_error *error)
{
    tn_bn_statistics statistics = {0};
    if (!t->data->val || t->options.batch_norm != TN_BATCH_NORM_TRAIN)
        return validate(t, true, error);
    tn_status status = tn_student_settle(&t->student, error);
    if (status == TN_OK)
        status = tn_trained_measure(&t->student, t->data, &t->options, &statistics, error);
    if (status == TN_OK)
        status = validate(t, true, error);
    if (status == TN_OK)
        status = tn_bn_statistics_restore(&statistics, t->student.plan, error);
    tn_bn_statistics_done(&statistics);
    return status;
}

/* To the averages, where there are some, and back. */
static void swap_averages(trainer *t)
{
    if (t->options.ema <= 0)
        return;
    tn_optimizer_swap_averages(&t->student.optimizer);
    tn_params_touch_all(t->student.params);
}

static tn_status validate_averages(trainer *t, tn_error *error)
{
    tn_status status = tn_student_fetch(&t->student, error);
    if (status != TN_OK)
        return status;
    swap_averages(t);
    status = validate_measured(t, error);
    swap_averages(t);
    return status;
}

/* Per layer: codes that changed in this epoch and zeros; the sums go into the figures. */
static json_t *layer_figures(trainer *t)
{
    json_t *layers = json_array();
    int64_t all = 0, all_flips = 0, all_zeros = 0;
    for (size_t i = 0; i < t->student.latents.count; i++) {
        tn_latent *latent = &t->student.latents.item[i];
        int64_t flips, zeros, n = latent->weight.rows * latent->weight.cols;
        tn_latent_flips(latent, &flips, &zeros);
        all += n;
        all_flips += flips;
        all_zeros += zeros;
        json_array_append_new(
            layers, json_pack("{s:s, s:f, s:f}", "name", latent->layer->weight->name, "flips",
                              (double)flips / (double)n, "sparsity", (double)zeros / (double)n));
    }
    t->figures.flips = all ? (double)all_flips / (double)all : 0;
    t->figures.sparsity = all ? (double)all_zeros / (double)all : 0;
    return layers;
}

static tn_status report_epoch(trainer *t, tn_error *error)
{
    tn_epoch_figures *f = &t->figures;
    double seconds = now() - t->epoch_start;
    double seen = t->state.epoch_seen > 0 ? (double)t->state.epoch_seen : 1;
    f->epoch = (int)t->state.epoch;
    f->step = t->state.step;
    f->train_loss = t->state.epoch_loss / seen;
    f->train_top1 = (double)t->state.epoch_top1 / seen;
    f->images_per_s = seconds > 0 ? (double)t->seen_since / seconds : 0;
    json_t *layers = layer_figures(t);
    tn_checkpoint_hash(&t->checkpoint, f->state_hash);
    tn_status status =
        tn_checkpoint_compare(&t->checkpoint, f->state_hash, t->options.collective, error);
    if (status != TN_OK) {
        json_decref(layers);
        return status;
    }
    char val[64] = "";
    if (f->val_top1 >= 0)
        snprintf(val, sizeof val, ", val loss %.4f, top-1 %.2f %%", f->val_loss, 100 * f->val_top1);
    tn_log(t->options.reporter, TN_LOG_INFO,
           "epoch %d/%d: lr %.3g, train loss %.4f, top-1 %.2f %%%s, %.0f images/s", f->epoch,
           t->options.epochs, f->lr, f->train_loss, 100 * f->train_top1, val, f->images_per_s);
    return tn_runlog_write(
        &t->log, "epoch",
        json_pack("{s:i, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:i, s:o}", "epoch",
                  f->epoch, "step", (json_int_t)f->step, "lr", tn_runlog_real(f->lr), "train_loss",
                  tn_runlog_real(f->train_loss), "train_top1", tn_runlog_real(f->train_top1),
                  "val_loss", tn_runlog_real(f->val_loss), "val_top1", tn_runlog_real(f->val_top1),
                  "val_top5", tn_runlog_real(f->val_top5), "images_per_s",
                  tn_runlog_real(f->images_per_s), "sparsity", tn_runlog_real(f->sparsity), "flips",
                  tn_runlog_real(f->flips), "state_hash", f->state_hash, "dropped_steps",
                  (int)t->state.guard.dropped, "layers", layers),
        error);
}

static tn_status end_epoch(trainer *t, tn_error *error)
{
    t->state.epoch++;
    t->state.batch = 0;
    tn_status status = validate_averages(t, error);
    if (status != TN_OK)
        return status;
    bool better = t->figures.val_loss >= 0 && t->figures.val_loss < t->state.best_loss;
    if (better) {
        t->state.best_loss = t->figures.val_loss;
        t->state.best_epoch = t->state.epoch;
    }
    status = report_epoch(t, error);
    t->state.epoch_loss = 0;
    t->state.epoch_top1 = t->state.epoch_seen = 0;
    if (status == TN_OK && is_sound(t))
        status = save(t, false, error);
    if (status == TN_OK && better)
        status = save(t, true, error);
    t->epoch_start = now();
    t->seen_since = 0;
    return status;
}

static bool stops_early(const trainer *t)
{
    return t->options.early_stop > 0 && t->data->val &&
           t->state.epoch >= t->state.best_epoch + (uint32_t)t->options.early_stop;
}

/* Judges what ran ahead, and goes back if it must. */
static tn_status catch_up(trainer *t, tn_error *error)
{
    tn_verdict verdict = TN_STEP_GOOD;
    tn_status status = tn_student_pending(&t->student) > 0 ? look(t, &verdict, error) : TN_OK;
    return status == TN_OK && verdict == TN_STEP_ROLL_BACK ? roll_back(t, error) : status;
}

/* One step; `last`: batches of the epoch. */
static tn_status advance(trainer *t, uint64_t last, tn_error *error)
{
    tn_verdict verdict = TN_STEP_GOOD;
    if (!tn_student_runs_ahead(&t->student)) {
        tn_status status = step(t, &verdict, error);
        return status == TN_OK && verdict == TN_STEP_ROLL_BACK ? roll_back(t, error) : status;
    }
    tn_status status = step_ahead(t, error);
    bool must_look = t->state.batch >= last || tn_student_pending(&t->student) == TN_STEP_LOG;
    return status == TN_OK && must_look ? catch_up(t, error) : status;
}

static tn_status train_epoch(trainer *t, tn_error *error)
{
    tn_status status = tn_loader_start(t->loader, t->state.epoch, t->state.batch, error);
    uint64_t last = t->steps_per_epoch * (uint64_t)t->options.accumulate;
    while (status == TN_OK && t->state.batch < last) {
        if (must_stop(t)) {
            status = catch_up(t, error);
            if (status != TN_OK || !must_stop(t)) /* a step that was not good, long ago */
                continue;
            t->stopped = true;
            return save(t, false, error);
        }
        status = advance(t, last, error);
        tn_progress(t->options.reporter, "training", t->state.step, t->total_steps);
        if (status == TN_OK && is_first(t) && now() - t->last_save > t->options.save_every) {
            status = catch_up(t, error);
            if (status == TN_OK && is_sound(t))
                status = save(t, false, error);
        }
    }
    return status == TN_OK ? end_epoch(t, error) : status;
}

static tn_status run(trainer *t, tn_error *error)
{
    tn_status status = TN_OK;
    /* what no epoch of this process tells: of a finished run that is resumed, all */
    t->figures = (tn_epoch_figures){.lr = NAN,
                                    .train_loss = NAN,
                                    .train_top1 = NAN,
                                    .val_loss = -1,
                                    .val_top1 = -1,
                                    .val_top5 = -1,
                                    .images_per_s = NAN,
                                    .sparsity = NAN,
                                    .flips = NAN};
    t->epoch_start = now();
    /* what a rollback or a kill in the first epoch returns to */
    if (t->state.step == 0)
        status = save(t, false, error);
    while (status == TN_OK && !t->stopped && t->state.epoch < (uint32_t)t->options.epochs &&
           !stops_early(t))
        status = train_epoch(t, error);
    return status;
}

static void take_figures(const trainer *t, tn_trained *trained)
{
    trained->last = t->figures;
    trained->last.step = t->state.step;
    trained->epochs_run = (int)t->state.epoch;
    trained->stopped = t->stopped;
    trained->dropped_steps = t->state.guard.dropped;
    trained->rollbacks = t->state.guard.rollbacks;
}

/* The finished network: averages where they are kept, statistics re-estimated where that is better,
 * codes and scales exported. */
static tn_status finish(trainer *t, const tn_model *model, tn_trained *trained, tn_error *error)
{
    tn_status status = tn_student_fetch(&t->student, error);
    if (status == TN_OK)
        swap_averages(t);
    if (status == TN_OK)
        status = tn_student_settle(&t->student, error);
    bool reestimated = false;
    if (status == TN_OK && !t->options.keep_batch_norm && !t->stopped &&
        t->options.batch_norm == TN_BATCH_NORM_TRAIN)
        status = tn_trained_reestimate(&t->student, t->data, &t->options, &reestimated, error);
    if (status == TN_OK && !t->stopped)
        status = validate(t, false, error); /* with the statistics that are written */
    if (status == TN_OK)
        status = tn_trained_collect(&t->student, model, t->data, &t->options, trained, error);
    if (status != TN_OK)
        return status;
    trained->reestimated = reestimated;
    take_figures(t, trained);
    return tn_runlog_write(&t->log, "end",
                           json_pack("{s:i, s:I, s:o, s:o, s:o, s:b, s:b}", "epoch",
                                     (int)t->state.epoch, "step", (json_int_t)t->state.step,
                                     "val_loss", tn_runlog_real(t->figures.val_loss), "val_top1",
                                     tn_runlog_real(t->figures.val_top1), "val_top5",
                                     tn_runlog_real(t->figures.val_top5), "reestimated",
                                     reestimated, "stopped", t->stopped),
                           error);
}

tn_status tn_train(const tn_model *model, const tn_train_data *data, const tn_model *teacher,
                   const tn_conversion *start, const tn_train_options *options, tn_trained *trained,
                   tn_error *error)
{
    trainer t = {.data = data, .log = {.descriptor = -1, .reporter = options->reporter}};
    tn_status status = tn_train_resolve(options, &t.options, error);
    if (status == TN_OK)
        status = tn_identity_make(data->origin ? data->origin : model, data, &t.options,
                                  &t.identity, error);
    if (status == TN_OK)
        status = tn_student_create(model, teacher, &t.options, &t.student, error);
    if (status == TN_OK)
        status = begin(&t, start, error);
    if (status == TN_OK)
        status = run(&t, error);
    if (status == TN_OK && is_first(&t)) {
        status = finish(&t, model, trained, error);
    } else if (status == TN_OK) {
        *trained = (tn_trained){0};
        take_figures(&t, trained);
    }
    tn_runlog_close(&t.log);
    tn_loader_destroy(t.loader);
    tn_student_done(&t.student);
    return status;
}
