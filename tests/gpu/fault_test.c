/* Every call of the runtime fails once: opening the device, building a student, restoring a
 * checkpoint, three steps (eager, recorded, replayed), saving. Each time a clean DEVICE error that
 * says what failed, and the checkpoint as it was. Where only the recording cannot be kept, as for
 * want of memory, the run goes on without, with a warning and to the same bits.
 * fault_test [FIRST [STRIDE]] */
#include "core/memory.h"
#include "finetune/checkpoint.h"
#include "finetune/safetensors.h"
#include "finetune/student.h"
#include "gpu/cuda_device.h"
#include "gpu/runtime.h"
#include "onnx_io/zoo/zoo.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 2, SIZE = 8, PIXELS = 3 * SIZE * SIZE };

static char folder[64];
static float images[BATCH * PIXELS];
static const int32_t labels[BATCH] = {3, 1};

static int warnings; /* of the run */

static void count_warning(void *context, tn_log_level level, const char *message)
{
    (void)context;
    (void)message;
    warnings += level == TN_LOG_WARNING;
}

static const tn_reporter reporter = {.log = count_warning};

/* A device's class whose recordings cannot be kept. */
static tn_device_class forgetful_class;
static tn_status (*real_end)(tn_device *, tn_recording **, tn_error *);

static tn_status fail_end(tn_device *device, tn_recording **recording, tn_error *error)
{
    tn_gpu_fail_call(1);
    return real_end(device, recording, error);
}

static void make_forgetful(tn_device *device)
{
    forgetful_class = *device->type;
    real_end = forgetful_class.record_end;
    forgetful_class.record_end = fail_end;
    device->type = &forgetful_class;
}

/* FNV-1a of all slots' values and moments. */
static uint64_t state_of(const tn_student *student)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < student->optimizer.n_slots; i++) {
        const tn_slot *slot = &student->optimizer.slots[i];
        for (int64_t k = 0; k < 2 * slot->count; k++) {
            uint32_t bits;
            memcpy(&bits, k < slot->count ? &slot->value[k] : &slot->first[k - slot->count],
                   sizeof bits);
            hash = (hash ^ bits) * 1099511628211u;
        }
    }
    return hash;
}

static tn_status steps(tn_student *student, tn_error *error)
{
    tn_status status = TN_OK;
    tn_step_record records[TN_STEP_LOG];
    int n;
    for (int step = 0; step < 3 && status == TN_OK; step++) {
        const tn_sample_batch batch = {.nhwc = images, .labels = labels, .count = BATCH};
        status = tn_student_ahead(student, &batch, false, 1.0, true, 0.01, error);
    }
    return status == TN_OK ? tn_student_look(student, records, &n, error) : status;
}

/* Opens, trains and saves; with `restore` it goes on from the checkpoint. */
static tn_status train(const tn_model *model, bool restore, bool forgetful, uint64_t *state,
                       tn_error *error)
{
    const tn_train_options asked = {.policy = {.scheme = "ttq"},
                                    .batch = BATCH,
                                    .precision = TN_PRECISION_FP32,
                                    .reporter = &reporter};
    tn_train_options options = asked;
    tn_device *device = NULL;
    tn_student student = {0};
    tn_progress_state progress = {.best_loss = 1};
    const tn_run_identity identity = {"recipe", "model", "data", "machine", 1};
    warnings = 0;
    tn_status status = tn_device_create_cuda(0, &device, error);
    options.device = device;
    if (status == TN_OK && forgetful)
        make_forgetful(device);
    if (status == TN_OK)
        status = tn_train_resolve(&options, &options, error);
    bool made = false, found = false;
    if (status == TN_OK) {
        status = tn_student_create(model, NULL, &options, &student, error);
        made = status == TN_OK;
    }
    tn_checkpoint checkpoint = {&student.optimizer, student.params, &progress, &identity};
    if (status == TN_OK && restore)
        status = tn_checkpoint_restore(folder, NULL, &checkpoint, &found, error);
    if (status == TN_OK && restore && !found)
        status = tn_fail(error, TN_ERROR_IO, "the checkpoint is lost");
    if (status == TN_OK)
        status = steps(&student, error);
    if (status == TN_OK)
        status = tn_student_fetch(&student, error);
    if (status == TN_OK)
        *state = state_of(&student);
    if (status == TN_OK && !restore)
        status = tn_checkpoint_save(folder, false, &checkpoint, error);
    else if (status == TN_OK) /* beside it */
        status = tn_checkpoint_save(folder, true, &checkpoint, error);
    if (made)
        tn_student_done(&student);
    tn_device_destroy(device);
    return status;
}

static bool is_intact(void)
{
    char path[128];
    tn_error error = {0};
    tn_safetensors file;
    snprintf(path, sizeof(path), "%s/step-0000000000.safetensors", folder);
    if (tn_safetensors_read(path, &file, &error) != TN_OK)
        return false;
    bool whole = file.verified;
    tn_safetensors_close(&file);
    return whole;
}

/* The n-th call fails; false when the failure is not clean. `state`: of a run that goes on. */
static bool fail_call(const tn_model *model, uint64_t n, uint64_t state)
{
    tn_error error = {0};
    uint64_t reached = 0;
    tn_gpu_fail_call(n);
    tn_status status = train(model, true, false, &reached, &error);
    bool went_on = status == TN_OK && warnings == 1 && reached == state;
    bool failed = status == TN_ERROR_DEVICE && error.message[0];
    bool clean = (went_on || failed) && is_intact();
    if (!clean)
        printf("call %llu: status %d, %s%s\n", (unsigned long long)n, (int)status, error.message,
               is_intact() ? "" : "; the checkpoint is damaged");
    return clean;
}

/* No recording can be kept: one warning, and the state of a run with recordings. */
static bool goes_on(const tn_model *model, uint64_t state)
{
    tn_error error = {0};
    uint64_t reached = 0;
    tn_status status = train(model, true, true, &reached, &error);
    bool same = status == TN_OK && warnings == 1 && reached == state && is_intact();
    if (!same)
        printf("without recordings: status %d, %s, %d warnings, state %016llx for %016llx\n",
               (int)status, error.message, warnings, (unsigned long long)reached,
               (unsigned long long)state);
    return same;
}

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t stride = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    const tn_zoo_options zoo = {.input = {3, SIZE, SIZE}, .seed = 5};
    tn_error error = {0};
    tn_device *device;
    tn_model *model;
    uint64_t state = 0;
    int bad = 0;
    if (argc > 3 && !getenv("TERNION_FULL")) { /* two minutes */
        printf("skipped: every call fails once in the full tests alone\n");
        return 77;
    }
    if (tn_device_create_cuda(0, &device, &error) != TN_OK) {
        printf("skipped: %s\n", error.message);
        return 77;
    }
    tn_device_destroy(device);
    snprintf(folder, sizeof(folder), "fault_test.%ld", (long)getpid());
    char command[96];
    snprintf(command, sizeof(command), "mkdir -p %s", folder);
    for (int i = 0; i < BATCH * PIXELS; i++)
        images[i] = sinf((float)(i * i));
    if (system(command) != 0 || tn_zoo_create("resnet8", &zoo, &model, &error) != TN_OK ||
        train(model, false, false, &state, &error) != TN_OK) {
        printf("FAILED: %s\n", error.message);
        return 1;
    }
    tn_gpu_fail_call(0);
    bool whole = train(model, true, false, &state, &error) == TN_OK && warnings == 0;
    uint64_t calls = tn_gpu_calls(), tried = 0;
    whole = whole && goes_on(model, state);
    for (uint64_t n = first; n <= calls && bad < 5; n += stride, tried++)
        bad += !fail_call(model, n, state);
    printf("%llu of %llu calls failed in turn, %d of them badly\n", (unsigned long long)tried,
           (unsigned long long)calls, bad);
    tn_model_destroy(model);
    snprintf(command, sizeof(command), "rm -r %s", folder);
    return system(command) != 0 || !whole || bad > 0;
}
