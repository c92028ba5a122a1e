/* Training steps with the state on the CUDA device against the same steps on the CPU device:
 * gradients' norm, latents, scales, moments after some steps; the third is recorded and replayed,
 * the fourth replayed after a visit to the host, and steps that are not recorded leave the same
 * bits. resident_step_test [SEED]
 *
 * Built over the emulated runtime here; over the real one it exits 77 without a GPU. */
#include "core/memory.h"
#include "finetune/student.h"
#include "onnx_io/zoo/zoo.h"
#include "tests/gpu/comparison.h"

#include <string.h>

enum { BATCH = 2, PIXELS = 3 * 32 * 32, STEPS = 4 };

static float images[STEPS][BATCH * PIXELS];

typedef struct outcome {
    double loss, norm;
    float *values; /* of all slots, in order */
    size_t count;
} outcome;

/* Slots' values and moments. */
static tn_status collect(tn_student *student, outcome *out, tn_error *error)
{
    tn_status status = tn_student_fetch(student, error);
    for (size_t i = 0; i < student->optimizer.n_slots; i++)
        out->count += 2 * (size_t)student->optimizer.slots[i].count;
    out->values = tn_alloc_array(out->count, sizeof(float));
    if (status == TN_OK && !out->values)
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    float *at = out->values;
    for (size_t i = 0; status == TN_OK && i < student->optimizer.n_slots; i++) {
        const tn_slot *slot = &student->optimizer.slots[i];
        memcpy(at, slot->value, (size_t)slot->count * sizeof(float));
        memcpy(at + slot->count, slot->first, (size_t)slot->count * sizeof(float));
        at += 2 * slot->count;
    }
    return status;
}

static tn_status train(const tn_model *model, const tn_train_options *asked, tn_device *device,
                       outcome *out, tn_error *error)
{
    static const int32_t labels[BATCH] = {3, 1};
    tn_train_options options, copy = *asked;
    tn_student student = {0};
    copy.device = device;
    tn_status status = tn_train_resolve(&copy, &options, error);
    if (status == TN_OK)
        status = tn_student_create(model, NULL, &options, &student, error);
    if (status != TN_OK)
        return status;
    if (!device->host_memory && !student.resident)
        status = tn_fail(error, TN_ERROR_DEVICE, "the state stays on the host");
    for (int step = 0; step < STEPS && status == TN_OK; step++) {
        tn_loss_result loss;
        const tn_sample_batch batch = {.nhwc = images[step], .labels = labels, .count = BATCH};
        tn_student_anneal(&student, (double)step / STEPS);
        status = tn_student_batch(&student, &batch, false, 1.0, &loss, error);
        if (status == TN_OK)
            status = tn_student_collect(&student, &out->norm, error);
        if (status == TN_OK)
            status = tn_student_update(&student, 0.01, out->norm, error);
        out->loss = loss.loss;
        if (status == TN_OK && step == 2) /* to the host and back */
            status = tn_student_settle(&student, error);
    }
    if (status == TN_OK)
        status = collect(&student, out, error);
    tn_student_done(&student);
    return status;
}

/* Steps that are not recorded leave the same bits. */
static bool same_eagerly(const tn_model *model, const tn_train_options *asked, tn_device *device,
                         const outcome *recorded, tn_error *error)
{
    tn_train_options eager = *asked;
    outcome again = {0};
    eager.eager = true;
    tn_status status = train(model, &eager, device, &again, error);
    bool same = status == TN_OK && again.norm == recorded->norm && again.loss == recorded->loss &&
                memcmp(again.values, recorded->values, again.count * sizeof(float)) == 0;
    if (status == TN_OK && !same)
        (void)tn_fail(error, TN_ERROR_DIFFERS, "replayed steps differ from eager ones");
    tn_free(again.values);
    return same;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *scheme, *optimizer, *granularity;
        double ema, clip;
    } runs[] = {{NULL, "sgd", "channel", 0, 0},
                {"ttq", "adam", "channel", 0.9, 1},
                {"twn", "adamw", "tensor", 0, 0},
                {"parq", "sgd", "channel", 0, 0}};
    tn_error error = {0};
    tn_device *cpu = NULL, *cuda = NULL;
    tn_model *model = NULL;
    comparison_seed(argc, argv, 1, 20269);
    int bad = comparison_open(&cpu, &cuda);
    if (bad)
        return bad;
    const tn_zoo_options zoo = {.seed = comparison_state};
    if (tn_zoo_create("resnet8", &zoo, &model, &error) != TN_OK)
        return 1;
    for (int i = 0; i < STEPS; i++)
        for (int k = 0; k < BATCH * PIXELS; k++)
            images[i][k] = 2.0f * comparison_uniform();
    for (size_t i = 0; i < sizeof(runs) / sizeof(runs[0]); i++) {
        outcome a = {0}, b = {0};
        double worst = (double)INFINITY;
        const tn_train_options asked = {
            .policy = {.scheme = runs[i].scheme, .granularity = runs[i].granularity},
            .batch = BATCH,
            .precision = TN_PRECISION_FP32,
            .optimizer = runs[i].optimizer,
            .ema = runs[i].ema,
            .clip_norm = runs[i].clip};
        tn_status status = train(model, &asked, cpu, &a, &error);
        if (status == TN_OK)
            status = train(model, &asked, cuda, &b, &error);
        if (status == TN_OK && !same_eagerly(model, &asked, cuda, &b, &error))
            status = TN_ERROR_DIFFERS;
        if (status == TN_OK)
            worst = fmax(comparison_distance(a.values, b.values, a.count),
                         fabs(a.norm - b.norm) / a.norm);
        bool ok = status == TN_OK && worst <= 1e-3;
        printf("%-6s %-6s %-8s loss %.5f and %.5f  %s  %.2e\n",
               runs[i].scheme ? runs[i].scheme : "lsq", runs[i].optimizer, runs[i].granularity,
               a.loss, b.loss, comparison_verdict(status, &error, ok), worst);
        bad += !ok;
        tn_free(a.values);
        tn_free(b.values);
        tn_error_clear(&error);
    }
    tn_model_destroy(model);
    tn_device_destroy(cuda);
    tn_device_destroy(cpu);
    return bad > 0;
}
