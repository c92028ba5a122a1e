/* Training with quantized activations on the CUDA device against the CPU device: from equal states,
 * one step on glyphs, for every way of training their steps.
 *
 * Rounding and Relu's derivative are not continuous: sums that two devices add in another order
 * may fall on both sides of a tie, of a bound or of 0, and that one element moves everything behind
 * it. With codes of weights and activations a channel's mean is often met exactly, so that 0 is
 * nothing rare. Both devices therefore run again, value by value in the network's order: each one's
 * codes are the formula's, bit by bit, of values that agree to rounding. Where an element falls
 * differently nonetheless it lies at a tie; such a batch says nothing more, and another is drawn.
 * Where none does, gradients, moments, weights and steps agree.
 *
 * For that the device keeps quantization apart from batch norm. A third plan, in which batch norm
 * makes the codes, takes the same steps: all it computes has the same bits as the second one's, but
 * for the steps' gradients, which are added in another order.
 * fake_quantize_test [SEED]
 *
 * Built over the emulated runtime here; over the real one it exits 77 without a GPU. */
#include "core/memory.h"
#include "data/glyphs.h"
#include "finetune/student.h"
#include "gpu/cuda_device.h"
#include "measured_ranges.h"
#include "onnx_io/zoo/zoo.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 2, SIDE = 32, PLANE = SIDE * SIDE, PIXELS = 3 * PLANE, MEASURED = 16 };
enum { STEPS = 3, TRIES = 24 }; /* steps without a tie; batches drawn for them */

/* Relative: of a value's largest element, and of a tensor's norm. */
static const double near_value = 2e-5, near_tensor = 2e-4;

static uint64_t seed;
static int bad;
static int64_t clipped; /* elements beyond their range, in steps that were compared */

static void must(tn_status status, const tn_error *error)
{
    if (status == TN_OK)
        return;
    printf("FAILED: %s\n", error->message);
    exit(1);
}

/* Glyph number i, normalized: [H, W, C], and [C, H, W]. */
static void draw(uint64_t i, float *nhwc, float *nchw)
{
    unsigned char pixels[PIXELS];
    tn_glyph_draw(seed, i, (int)(i % TN_GLYPH_CLASSES), pixels);
    for (int k = 0; k < PIXELS; k++) {
        nhwc[k] = ((float)pixels[k] / 255.0f - 0.48f) / 0.25f;
        nchw[k % 3 * PLANE + k / 3] = nhwc[k];
    }
}

/* --- codes ---------------------------------------------------------------------------------- */

/* One value on both devices. */
typedef struct both {
    float *at[2];
    int64_t count;
} both;

static void both_done(both *values)
{
    tn_free(values->at[0]);
    tn_free(values->at[1]);
}

/* Runs both plans on from `done` to before the step that writes `until`, or behind it, and reads a
 * value. */
static both run_and_read(const tn_student students[2], size_t done[2], const char *until,
                         bool behind, const char *value)
{
    tn_error error = {0};
    tn_extent extent;
    both values;
    must(tn_plan_shape(students[0].plan, value, &extent, &error), &error);
    values.count = tn_extent_count(&extent);
    for (int d = 0; d < 2; d++) {
        tn_plan *plan = students[d].plan;
        size_t last = tn_plan_step_of_value(plan, until) + behind;
        values.at[d] = tn_alloc_array((size_t)values.count, sizeof(float));
        if (!values.at[d])
            exit(1);
        must(tn_plan_forward(plan, TN_RUN_BATCH_STATISTICS, done[d], last, &error), &error);
        must(tn_plan_read(plan, value, values.at[d], &error), &error);
        done[d] = last;
    }
    return values;
}

static const tn_activation_range *range_of(const tn_student *student, const char *value,
                                           float *step)
{
    for (size_t i = 0; i < student->steps.ranges.count; i++)
        if (strcmp(student->steps.ranges.range[i].value, value) == 0) {
            *step = tn_params_at(student->params, student->steps.param[i])->host[0];
            return &student->steps.ranges.range[i];
        }
    printf("FAILED: %s is quantized, but nobody asked for it\n", value);
    exit(1);
}

/* Judges that both devices' values agree to rounding. */
static void judge_value(const char *name, const both *x)
{
    double largest = 0.0, apart = 0.0;
    for (int64_t i = 0; i < x->count; i++) {
        largest = fmax(largest, fabs((double)x->at[0][i]));
        apart = fmax(apart, fabs((double)x->at[0][i] - (double)x->at[1][i]));
    }
    if (!(apart <= near_value * largest)) {
        printf("%s: %.2e apart\n", name, apart / largest);
        bad++;
    }
}

/* Whether the devices agree which elements a Relu lets through. */
static bool same_signs(const char *name, const both *x)
{
    int64_t differ = 0;
    judge_value(name, x);
    for (int64_t i = 0; i < x->count; i++)
        differ += (x->at[0][i] > 0.0f) != (x->at[1][i] > 0.0f);
    return differ == 0;
}

/* Whether they agree in all codes, and in which elements lie inside the range. Judges that each
 * one's are the formula's. */
static bool same_codes(const tn_student *student, const char *name, const both *x, const both *y)
{
    float step;
    const tn_activation_range *range = range_of(student, name, &step);
    float low = -(float)range->zero, high = ldexpf(1.0f, range->bits) - 1.0f + low;
    int64_t differ = 0, wrong = 0;
    judge_value(name, x);
    for (int64_t i = 0; i < x->count; i++) {
        bool inside[2];
        for (int d = 0; d < 2; d++) {
            float v = x->at[d][i] / step, code = rintf(v);
            wrong += y->at[d][i] != (code < low ? low : code > high ? high : code) * step;
            inside[d] = v >= low && v <= high;
        }
        differ += y->at[0][i] != y->at[1][i] || inside[0] != inside[1];
        clipped += !inside[0];
    }
    if (wrong) {
        printf("%s: %lld codes are not the formula's\n", name, (long long)wrong);
        bad++;
    }
    return differ == 0;
}

/* Runs both plans again, value by value, up to the first where a tie fell differently. */
static bool no_tie(tn_student students[2])
{
    tn_error error = {0};
    size_t done[2] = {0, 0}, found = 0;
    bool same = true;
    for (size_t i = 0; same && i < tn_plan_step_count(students[0].plan); i++) {
        tn_plan_step step;
        must(tn_plan_step_at(students[0].plan, i, &step, &error), &error);
        if (step.verb == TN_VERB_FAKE_QUANTIZE) {
            both x = run_and_read(students, done, step.output, false, step.input);
            both y = run_and_read(students, done, step.output, true, step.output);
            same = same_codes(&students[0], step.input, &x, &y);
            found++;
            both_done(&x);
            both_done(&y);
        } else if (strcmp(step.type, "Relu") == 0 || strstr(step.fused, "Relu")) {
            both y = run_and_read(students, done, step.output, true, step.output);
            same = same_signs(step.output, &y);
            both_done(&y);
        }
    }
    if (same && found != students[0].steps.ranges.count) {
        printf("%zu values are quantized, not %zu\n", found, students[0].steps.ranges.count);
        bad++;
    }
    return same;
}

/* --- steps ---------------------------------------------------------------------------------- */

static double distance(const float *a, const float *b, int64_t count)
{
    double difference = 0.0, norm = 0.0;
    for (int64_t i = 0; i < count; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)a[i] * (double)a[i];
    }
    return difference > 0.0 ? sqrt(difference / norm) : 0.0;
}

/* Tells of arrays that are further apart than rounding explains. */
static double judge(const char *name, const float *a, const float *b, int64_t count)
{
    double apart = distance(a, b, count);
    if (!(apart <= near_tensor)) {
        printf("%s: %.2e apart\n", name, apart);
        bad++;
    }
    return apart;
}

/* Values and moments of every tensor; the steps, a number each, as one: a gradient of LSQ adds
 * terms of both signs, and what is left may be less than its rounding. */
static double compare(const tn_student students[2])
{
    static float steps[2][64], moments[2][64];
    int64_t n = 0;
    double worst = 0.0;
    for (size_t i = 0; i < students[0].optimizer.n_slots; i++) {
        const tn_slot *a = &students[0].optimizer.slots[i], *b = &students[1].optimizer.slots[i];
        if (a->floor == TN_LEAST_STEP) {
            for (int d = 0; d < 2; d++) {
                steps[d][n] = (d ? b : a)->value[0];
                moments[d][n] = (d ? b : a)->first[0];
            }
            n++;
            continue;
        }
        worst = fmax(worst, judge(a->name, a->value, b->value, a->count));
        worst = fmax(worst, judge(a->name, a->first, b->first, a->count));
    }
    bad += n != (int64_t)students[0].steps.ranges.count;
    worst = fmax(worst, judge("steps", steps[0], steps[1], n));
    return fmax(worst, judge("moments of the steps", moments[0], moments[1], n));
}

static void copy_state(const tn_student *from, tn_student *to)
{
    for (size_t i = 0; i < from->optimizer.n_slots; i++) {
        const tn_slot *a = &from->optimizer.slots[i], *b = &to->optimizer.slots[i];
        memcpy(b->value, a->value, (size_t)a->count * sizeof(float));
        memcpy(b->first, a->first, (size_t)a->count * sizeof(float));
    }
}

/* How far what batch norm makes at once is from what two steps make. */
static double fused_apart(const tn_student *apart, const tn_student *fused)
{
    double worst = 0.0;
    for (size_t i = 0; i < apart->optimizer.n_slots; i++) {
        const tn_slot *a = &apart->optimizer.slots[i], *b = &fused->optimizer.slots[i];
        double moved = distance(a->value, b->value, a->count),
               first = distance(a->first, b->first, a->count);
        bool step = a->floor == TN_LEAST_STEP;
        if (!(moved <= (step ? 1e-6 : 0.0)) || !(first <= (step ? 1e-5 : 0.0))) {
            printf("%s: %.2e and %.2e apart when fused\n", a->name, moved, first);
            bad++;
        }
        worst = fmax(worst, fmax(moved, first));
    }
    return worst;
}

/* One step of all from equal states; false: something lay at a tie. */
static bool step_agrees(tn_student students[3], uint64_t first, double *worst, double *apart)
{
    tn_error error = {0};
    static float nhwc[BATCH * PIXELS], nchw[BATCH * PIXELS];
    int32_t labels[BATCH];
    double norm[3], losses[3];
    for (int i = 0; i < BATCH; i++) {
        draw(first + (uint64_t)i, nhwc + i * PIXELS, nchw + i * PIXELS);
        labels[i] = (int32_t)((first + (uint64_t)i) % TN_GLYPH_CLASSES);
    }
    const tn_sample_batch batch = {.nhwc = nhwc, .labels = labels, .count = BATCH};
    copy_state(&students[0], &students[1]);
    copy_state(&students[0], &students[2]);
    for (int d = 0; d < 3; d++) {
        tn_loss_result loss;
        must(tn_student_batch(&students[d], &batch, false, 1.0, &loss, &error), &error);
        losses[d] = loss.loss;
    }
    bool same = no_tie(students);
    for (int d = 0; d < 3; d++) {
        must(tn_student_collect(&students[d], &norm[d], &error), &error);
        must(tn_student_update(&students[d], 0.01, norm[d], &error), &error);
        must(tn_student_fetch(&students[d], &error), &error);
    }
    *apart = fmax(*apart, fused_apart(&students[1], &students[2]));
    if (!same)
        return false;
    *worst = fmax(*worst, fabs(norm[0] - norm[1]) / norm[0]);
    *worst = fmax(*worst, fabs(losses[0] - losses[1]) / losses[0]);
    bad += !(*worst <= near_tensor);
    *worst = fmax(*worst, compare(students));
    return true;
}

/* A device's class without codes of batch norm. */
static tn_device_class apart_class;
static bool (*all_supported)(tn_device *, const tn_task *, char *, size_t);

static bool supports_apart(tn_device *device, const tn_task *task, char *why, size_t size)
{
    return !(task->verb == TN_VERB_BATCH_NORM && task->batch_norm.codes) &&
           all_supported(device, task, why, size);
}

/* As `asked`, but for the device. */
static void create_student(const tn_model *model, tn_device *device, bool fuses,
                           const tn_train_options *asked, tn_train_options *options,
                           tn_student *student)
{
    tn_error error = {0};
    const tn_device_class *type = device->type;
    tn_train_options here = *asked;
    here.device = device;
    must(tn_train_resolve(&here, options, &error), &error);
    apart_class = *type;
    all_supported = type->supports;
    apart_class.supports = supports_apart;
    device->type = fuses ? type : &apart_class;
    must(tn_student_create(model, NULL, options, student, &error), &error);
    device->type = type;
}

/* Steps that are trained moved, others did not. */
static void check_moved(const tn_student *student, bool trained)
{
    size_t moved = 0;
    for (size_t i = 0; i < student->steps.ranges.count; i++)
        moved += tn_params_at(student->params, student->steps.param[i])->host[0] !=
                 student->steps.ranges.range[i].scale;
    if ((moved > 0) != trained) {
        printf("%zu of %zu steps moved\n", moved, student->steps.ranges.count);
        bad++;
    }
}

static void measure(const tn_model *model, int bits, tn_activations *ranges)
{
    static float nhwc[PIXELS], measured[MEASURED * PIXELS];
    for (int i = 0; i < MEASURED; i++)
        draw((uint64_t)i, nhwc, measured + i * PIXELS);
    measure_ranges(model, bits, measured, MEASURED, ranges);
    for (size_t i = 0; i < ranges->count; i++)
        ranges->range[i].scale /= 8.0f; /* measured with running statistics, of wider values */
}

static void check_scheme(const tn_model *model, tn_device *devices[2], const char *scheme, int bits)
{
    tn_activations ranges;
    const tn_train_options asked = {.batch = BATCH,
                                    .precision = TN_PRECISION_FP32,
                                    .activations = &ranges,
                                    .activation_scheme = scheme};
    tn_student students[3];
    tn_train_options options[3];
    double worst = 0.0, apart = 0.0;
    int steps = 0, tries = 0;
    measure(model, bits, &ranges);
    for (int d = 0; d < 3; d++)
        create_student(model, devices[d > 0], d == 2, &asked, &options[d], &students[d]);
    size_t fused = tn_plan_step_count(students[1].plan) - tn_plan_step_count(students[2].plan);
    bad += fused == 0;
    clipped = 0;
    for (; steps < STEPS && tries < TRIES && !bad; tries++)
        steps += step_agrees(students, (uint64_t)(MEASURED + tries * BATCH), &worst, &apart);
    check_moved(&students[1], strcmp(scheme, "fixed") != 0);
    bad += steps < STEPS || clipped == 0;
    printf(
        "%-5s %d bits: %d steps agree to %.2e, %lld elements clipped; %d batches with a tie; %zu "
        "fused, %.2e apart\n",
        scheme, bits, steps, worst, (long long)clipped, tries - steps, fused, apart);
    for (int d = 0; d < 3; d++)
        tn_student_done(&students[d]);
    tn_activations_done(&ranges);
}

/* The last tensor that both have of this size, which is the classifier's: its gradient depends on
 * codes by way of the logits alone. */
static double last_apart(const tn_student students[2], int64_t count)
{
    double apart = (double)INFINITY;
    for (size_t i = 0; i < students[0].optimizer.n_slots; i++) {
        const tn_slot *a = &students[0].optimizer.slots[i], *b = &students[1].optimizer.slots[i];
        if (a->count == count)
            apart = distance(a->first, b->first, count);
    }
    return apart;
}

/* One step in bf16 against fp32's, with an odd number of activation steps: parameters of one number
 * each, behind which gradients must be aligned for matrix products nonetheless. */
static void check_bf16(const tn_model *model, tn_device *device)
{
    static float nhwc[BATCH * PIXELS], nchw[BATCH * PIXELS];
    static const int32_t labels[BATCH] = {0, 1};
    tn_error error = {0};
    tn_activations ranges;
    tn_student students[2];
    tn_train_options options[2];
    double norm[2];
    tn_loss_result loss[2];
    measure(model, 6, &ranges);
    tn_activations odd = {ranges.range, (ranges.count - 1) | 1};
    for (int i = 0; i < BATCH; i++)
        draw(MEASURED + (uint64_t)i, nhwc + i * PIXELS, nchw + i * PIXELS);
    const tn_sample_batch batch = {.nhwc = nhwc, .labels = labels, .count = BATCH};
    for (int d = 0; d < 2; d++) {
        const tn_train_options asked = {.batch = BATCH,
                                        .precision = d ? TN_PRECISION_BF16 : TN_PRECISION_FP32,
                                        .activations = &odd,
                                        .activation_scheme = "lsq"};
        create_student(model, device, true, &asked, &options[d], &students[d]);
        must(tn_student_batch(&students[d], &batch, false, 1.0, &loss[d], &error), &error);
        must(tn_student_collect(&students[d], &norm[d], &error), &error);
        must(tn_student_update(&students[d], 0.01, norm[d], &error), &error);
        must(tn_student_fetch(&students[d], &error), &error);
    }
    double losses = fabs(loss[0].loss - loss[1].loss) / loss[0].loss;
    double norms = fabs(norm[0] - norm[1]) / norm[0], last = last_apart(students, 640);
    printf("lsq   6 bits in bf16, %zu steps: loss %.2e, norm %.2e, classifier %.2e apart\n",
           odd.count, losses, norms, last);
    bad += !(losses <= 0.1) || !(norms <= 0.25) || !(last <= 0.25);
    check_moved(&students[1], true);
    for (int d = 0; d < 2; d++)
        tn_student_done(&students[d]);
    tn_activations_done(&ranges);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *scheme;
        int bits;
    } cases[] = {{"lsq", 3}, {"lsq", 6}, {"pact", 4}, {"fixed", 4}};
    const char *asked = getenv("TERNION_SEED");
    tn_error error = {0};
    tn_device *devices[2] = {NULL, NULL};
    tn_model *model;
    seed = argc > 1 ? strtoull(argv[1], NULL, 10) : asked ? strtoull(asked, NULL, 10) : 20272;
    printf("seed %llu\n", (unsigned long long)seed);
    if (tn_device_create_cuda(0, &devices[1], &error) != TN_OK) {
        printf("skipped: %s\n", error.message);
        return 77;
    }
    const tn_zoo_options zoo = {.seed = seed};
    must(tn_device_create_cpu(&devices[0], &error), &error);
    must(tn_zoo_create("resnet8", &zoo, &model, &error), &error);
    if (devices[1]->bf16 || devices[1]->bf16_runs)
        check_bf16(model, devices[1]);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_scheme(model, devices, cases[i].scheme, cases[i].bits);
    tn_model_destroy(model);
    tn_device_destroy(devices[1]);
    tn_device_destroy(devices[0]);
    return bad > 0;
}
