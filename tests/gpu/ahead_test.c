/* Steps that run ahead of the host on the CUDA device: the same bits as steps judged one by one,
 * recorded or not, with one that is dropped; and whole runs, stopped and resumed, and diverging.
 * ahead_test [SEED]
 *
 * Built over the emulated runtime here; over the real one it exits 77 without a GPU. */
#include "core/memory.h"
#include "data/glyphs.h"
#include "finetune/student.h"
#include "gpu/cuda_device.h"
#include "gpu/runtime.h"
#include "measured_ranges.h"
#include "onnx_io/zoo/zoo.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 2, PIXELS = 3 * 32 * 32, STEPS = 5, BAD = 2, MOST = 2 };

static uint64_t state;
static float images[STEPS * MOST][BATCH * PIXELS];
static char folder[] = "/tmp/ternion-ahead-XXXXXX";

static void must(tn_status status, const tn_error *error)
{
    if (status == TN_OK)
        return;
    printf("FAILED: %s\n", error->message);
    exit(1);
}

static float uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(state >> 32) / 2147483648.0f;
}

typedef struct outcome {
    tn_step_record records[STEPS];
    float *values; /* of all slots with their moments */
    size_t count;
    uint64_t updates, waits; /* waits: of the host while steps run */
} outcome;

static void collect(tn_student *student, outcome *out)
{
    tn_error error = {0};
    must(tn_student_fetch(student, &error), &error);
    for (size_t i = 0; i < student->optimizer.n_slots; i++)
        out->count += 2 * (size_t)student->optimizer.slots[i].count;
    float *at = out->values = tn_alloc_array(out->count, sizeof *at);
    for (size_t i = 0; i < student->optimizer.n_slots; i++) {
        const tn_slot *slot = &student->optimizer.slots[i];
        memcpy(at, slot->value, (size_t)slot->count * sizeof *at);
        memcpy(at + slot->count, slot->first, (size_t)slot->count * sizeof *at);
        at += 2 * slot->count;
    }
    out->updates = student->optimizer.steps;
}

static tn_sample_batch batch_of(int step, int i)
{
    static const int32_t labels[BATCH] = {3, 1};
    return (tn_sample_batch){
        .nhwc = images[step * MOST + i], .labels = labels, .count = BATCH, .first = 5};
}

static double rate(int step)
{
    return 0.01 / (1 + step);
}

/* One step, judged by the host. */
static void step_by_step(tn_student *student, int step, int batches, tn_step_record *record)
{
    tn_error error = {0};
    for (int i = 0; i < batches; i++) {
        const tn_sample_batch batch = batch_of(step, i);
        tn_loss_result loss;
        must(tn_student_batch(student, &batch, i > 0, 1.0 / batches, &loss, &error), &error);
        record->loss += loss.loss;
        record->top1 += (double)loss.top1;
    }
    must(tn_student_collect(student, &record->norm, &error), &error);
    if (!isfinite(record->loss) || !isfinite(record->norm)) {
        tn_student_drop(student);
        return;
    }
    record->updated = 1;
    must(tn_student_update(student, rate(step), record->norm, &error), &error);
}

static void ahead(tn_student *student, int step, int batches)
{
    tn_error error = {0};
    for (int i = 0; i < batches; i++) {
        const tn_sample_batch batch = batch_of(step, i);
        must(tn_student_ahead(student, &batch, i > 0, 1.0 / batches, i == batches - 1, rate(step),
                              &error),
             &error);
    }
}

static void train(const tn_model *model, const tn_train_options *asked, int batches,
                  bool runs_ahead, outcome *out)
{
    tn_train_options options;
    tn_student student = {0};
    tn_error error = {0};
    int n = 0;
    must(tn_train_resolve(asked, &options, &error), &error);
    must(tn_student_create(model, NULL, &options, &student, &error), &error);
    if (!tn_student_runs_ahead(&student))
        exit(1);
    out->waits = tn_gpu_waits();
    for (int step = 0; step < STEPS; step++) {
        if (runs_ahead)
            ahead(&student, step, batches);
        else
            step_by_step(&student, step, batches, &out->records[step]);
    }
    out->waits = tn_gpu_waits() - out->waits;
    if (runs_ahead) {
        tn_step_record records[TN_STEP_LOG];
        if (tn_student_pending(&student) != STEPS)
            exit(1);
        must(tn_student_look(&student, records, &n, &error), &error);
        memcpy(out->records, records, sizeof out->records);
    }
    collect(&student, out);
    tn_student_done(&student);
}

/* NaN where both are counts as equal. */
static bool same_records(const outcome *a, const outcome *b)
{
    for (int i = 0; i < STEPS; i++) {
        const tn_step_record *x = &a->records[i], *y = &b->records[i];
        bool loss = x->loss == y->loss || (x->loss != x->loss && y->loss != y->loss);
        bool norm = x->norm == y->norm || !isfinite(x->loss);
        if (!loss || !norm || x->top1 != y->top1 || x->updated != y->updated ||
            (x->updated > 0) != (i != BAD))
            return false;
    }
    return a->updates == b->updates && a->updates == STEPS - 1;
}

/* `ranges`: of quantized activations; NULL: none are. */
static bool steps_agree(const tn_model *model, tn_device *device, const char *scheme,
                        const char *optimizer, int batches, const tn_activations *ranges)
{
    outcome one = {0}, recorded = {0}, eager = {0};
    tn_train_options asked = {.policy = {.scheme = scheme},
                              .batch = BATCH,
                              .accumulate = batches,
                              .precision = TN_PRECISION_FP32,
                              .optimizer = optimizer,
                              .activations = ranges,
                              .ema = 0.9,
                              .clip_norm = 1,
                              .device = device};
    train(model, &asked, batches, false, &one);
    train(model, &asked, batches, true, &recorded);
    asked.eager = true;
    train(model, &asked, batches, true, &eager);
    size_t bytes = one.count * sizeof(float);
    bool same = memcmp(one.values, recorded.values, bytes) == 0 &&
                memcmp(one.values, eager.values, bytes) == 0 && same_records(&one, &recorded) &&
                same_records(&one, &eager);
    printf("%s %s, %d batches a step%s: %s; the host waits %.1f times a step, ahead %.1f\n", scheme,
           optimizer, batches, ranges ? ", quantized activations" : "",
           same ? "the same bits" : "DIFFERS", (double)one.waits / STEPS,
           (double)recorded.waits / STEPS);
    tn_free(one.values);
    tn_free(recorded.values);
    tn_free(eager.values);
    return same && recorded.waits == 0 && eager.waits == 0 && one.waits > 0;
}

typedef struct run {
    char hash[33], message[160];
    double loss;
} run;

static run run_of(const tn_model *model, const tn_train_data *data, const tn_train_options *options)
{
    run r = {{0}, {0}, 0};
    tn_error error = {0};
    tn_trained trained;
    if (tn_train(model, data, NULL, NULL, options, &trained, &error) != TN_OK) {
        snprintf(r.message, sizeof r.message, "%.150s", error.message);
        return r;
    }
    memcpy(r.hash, trained.last.state_hash, sizeof r.hash);
    r.loss = trained.last.train_loss;
    tn_trained_done(&trained);
    return r;
}

/* A run, the same stopped twice and resumed, and on the CPU. */
static bool runs_agree(const tn_model *model, const tn_train_data *data, tn_device *device,
                       tn_device *cpu)
{
    static const int64_t stops[] = {3, 20, 0}; /* 0: at its end */
    char path[96];
    const tn_train_options options = {.policy = {.scheme = "ttq"},
                                      .epochs = 1,
                                      .batch = BATCH,
                                      .lr = 0.002,
                                      .seed = state,
                                      .precision = TN_PRECISION_FP32,
                                      .keep_batch_norm = true,
                                      .device = device};
    tn_train_options in_parts = options, elsewhere = options;
    run whole = run_of(model, data, &options), resumed = {{0}, {0}, 0};
    snprintf(path, sizeof path, "%s/run", folder);
    in_parts.folder = path;
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        in_parts.max_steps = stops[i];
        in_parts.resume = i > 0;
        resumed = run_of(model, data, &in_parts);
    }
    elsewhere.device = cpu;
    run here = run_of(model, data, &elsewhere);
    printf("run %s%s, resumed %s%s; loss %.5f, on the CPU %.5f\n", whole.hash, whole.message,
           resumed.hash, resumed.message, whole.loss, here.loss);
    return whole.hash[0] && strcmp(whole.hash, resumed.hash) == 0 &&
           fabs(whole.loss - here.loss) < 0.05 * here.loss;
}

/* Three steps that are not finite, three times back to the checkpoint, then the error. */
static bool divergence_is_noticed(const tn_model *model, const tn_train_data *data,
                                  tn_device *device, tn_device *cpu)
{
    run ends[2];
    for (int i = 0; i < 2; i++) {
        char path[96];
        snprintf(path, sizeof path, "%s/diverged%d", folder, i);
        const tn_train_options options = {.policy = {.scheme = "float"},
                                          .epochs = 1,
                                          .batch = BATCH,
                                          .lr = 1e3,
                                          .momentum = -1,
                                          .weight_decay = 1, /* latents grow 1000-fold a step */
                                          .seed = 1,
                                          .precision = TN_PRECISION_FP32,
                                          .folder = path,
                                          .device = i ? cpu : device};
        ends[i] = run_of(model, data, &options);
    }
    printf("%s\n%s\n", ends[0].message, ends[1].message);
    for (int i = 0; i < 2; i++) /* at which step depends on when what overflows */
        if (strncmp(ends[i].message, "training diverged at step ", 26) != 0 ||
            !strstr(ends[i].message, "after 3 rollbacks"))
            return false;
    return true;
}

int main(int argc, char **argv)
{
    tn_error error = {0};
    tn_device *device = NULL, *cpu = NULL;
    tn_model *model = NULL;
    tn_dataset *set = NULL;
    tn_preprocess preprocess;
    char path[96], command[96];
    const char *asked = getenv("TERNION_SEED");
    state = argc > 1 ? strtoull(argv[1], NULL, 10) : asked ? strtoull(asked, NULL, 10) : 20271;
    setvbuf(stdout, NULL, _IOLBF, 0);
    printf("seed %llu\n", (unsigned long long)state);
    if (tn_device_create_cuda(0, &device, &error) != TN_OK) {
        printf("skipped: %s\n", error.message);
        return 77;
    }
    const tn_zoo_options zoo = {.seed = state};
    const tn_glyphs_options glyphs = {.seed = state, .train = 50, .test = 10};
    must(tn_device_create_cpu(&cpu, &error), &error);
    must(tn_zoo_create("resnet8", &zoo, &model, &error), &error);
    for (int i = 0; i < STEPS * MOST; i++)
        for (int k = 0; k < BATCH * PIXELS; k++)
            images[i][k] = 2.0f * uniform();
    tn_activations ranges;
    measure_ranges(model, 4, images[0], BATCH, &ranges);
    images[BAD * MOST][7] = NAN;
    int bad = !steps_agree(model, device, "ttq", "adam", 1, NULL);
    bad += !steps_agree(model, device, "lsq", "sgd", 2, NULL);
    bad += !steps_agree(model, device, "lsq", "adam", 1, &ranges);
    tn_activations_done(&ranges);
    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof path, "%s/glyphs", folder);
    must(tn_glyphs_write(path, &glyphs, &error), &error);
    must(tn_dataset_open(path, TN_SPLIT_TRAIN, NULL, &set, &error), &error);
    must(tn_preprocess_preset("cifar10", &preprocess, &error), &error);
    must(tn_preprocess_fit(&preprocess, 3, 32, 32, &error), &error);
    const tn_augment_options augment = {.pad = 2, .flip = true, .mixup = 0.2f};
    const tn_train_data data = {.train = set, .preprocess = &preprocess, .augment = &augment};
    bad += !runs_agree(model, &data, device, cpu);
    bad += !divergence_is_noticed(model, &data, device, cpu);
    tn_dataset_close(set);
    tn_model_destroy(model);
    tn_device_destroy(device);
    tn_device_destroy(cpu);
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) || bad > 0;
}
