/* One training step's parts: mixup's loss and gradient, and when Dropout drops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/memory.h"
#include "core/random.h"
#include "finetune/checkpoint.h"
#include "finetune/student.h"
#include "onnx_io/edit.h"
#include "onnx_io/zoo/zoo.h"
#include "tests/finetune/check_status.h"
#include "tests/finetune/glyph_training.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 16, CLASSES = 10, PIXELS = 3 * 32 * 32 };

static tn_model *network; /* resnet8 with a Dropout before its classifier */
static tn_device *device;
static float images[BATCH * PIXELS];
static int32_t labels[BATCH], partners[BATCH];

static void add_dropout(tn_model *model, tn_error *error)
{
    static const float ratio = 0.5f;
    Onnx__GraphProto *graph = model->proto->graph;
    size_t last = 0;
    for (size_t i = 0; i < graph->n_node; i++)
        if (!strcmp(graph->node[i]->op_type, "Gemm"))
            last = i;
    assert_non_null(
        tn_edit_add_initializer(model, "ratio", TN_FLOAT, 0, NULL, &ratio, sizeof ratio, true));
    const char *inputs[] = {graph->node[last]->input[0], "ratio", NULL};
    const char *outputs[] = {"dropped", NULL};
    assert_non_null(tn_edit_add_node(model, last, "Dropout", "drop", inputs, outputs));
    check(tn_edit_set_input(model, graph->node[last + 1], 0, "dropped", error), error);
}

static int setup(void **state)
{
    (void)state;
    tn_error error = {0};
    tn_random random = tn_random_make(1, TN_PURPOSE_TEST, 0, 0);
    const tn_zoo_options zoo = {.seed = 3};
    check(tn_zoo_create("resnet8", &zoo, &network, &error), &error);
    add_dropout(network, &error);
    check(tn_device_create_cpu(&device, &error), &error);
    for (size_t i = 0; i < BATCH * PIXELS; i++)
        images[i] = tn_random_normal(&random);
    for (int i = 0; i < BATCH; i++) {
        labels[i] = i % CLASSES;
        partners[i] = (7 * i + 3) % CLASSES;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tn_device_destroy(device);
    tn_model_destroy(network);
    return 0;
}

static void open_scheme(const char *scheme, const char *bits, tn_batch_norm_mode mode,
                        tn_train_options *options, tn_student *student)
{
    tn_error error = {0};
    const tn_train_options asked = {.policy = {.scheme = scheme, .bits = bits},
                                    .batch = BATCH,
                                    .seed = 5,
                                    .device = device,
                                    .batch_norm = mode,
                                    .precision = TN_PRECISION_FP32}; /* differences need it */
    check(tn_train_resolve(&asked, options, &error), &error);
    check(tn_student_create(network, NULL, options, student, &error), &error);
}

static void open_student(tn_batch_norm_mode mode, tn_train_options *options, tn_student *student)
{
    open_scheme(NULL, NULL, mode, options, student);
}

static double loss_of(tn_student *student, const tn_sample_batch *batch)
{
    tn_error error = {0};
    tn_loss_result result = {0};
    check(tn_student_batch(student, batch, false, 1, &result, &error), &error);
    return result.loss;
}

/* All gradients the optimizer sees. */
static float *gradients(tn_student *student, int64_t *count)
{
    tn_error error = {0};
    double norm;
    check(tn_student_collect(student, &norm, &error), &error);
    *count = 0;
    for (size_t i = 0; i < student->optimizer.n_slots; i++)
        *count += student->optimizer.slots[i].count;
    float *all = tn_alloc_array((size_t)*count, sizeof *all), *at = all;
    assert_non_null(all);
    for (size_t i = 0; i < student->optimizer.n_slots; i++) {
        const tn_slot *slot = &student->optimizer.slots[i];
        memcpy(at, slot->gradient, (size_t)slot->count * sizeof *at);
        at += slot->count;
    }
    return all;
}

/* The loss of mixed labels is linear in the shares, and so is every gradient. */
static void mixed_labels_mix_losses_and_gradients(void **state)
{
    (void)state;
    tn_train_options options;
    tn_student student;
    int64_t count;
    float mix[BATCH];
    const float share = 0.3f;
    tn_sample_batch batch = {.nhwc = images, .labels = labels, .count = BATCH, .seed = 5};
    open_student(TN_BATCH_NORM_TRAIN, &options, &student);
    double first = loss_of(&student, &batch);
    float *one = gradients(&student, &count);
    batch.labels = partners;
    double second = loss_of(&student, &batch);
    float *two = gradients(&student, &count);
    for (int i = 0; i < BATCH; i++)
        mix[i] = share;
    batch = (tn_sample_batch){.nhwc = images,
                              .labels = labels,
                              .partners = partners,
                              .mix = mix,
                              .count = BATCH,
                              .seed = 5};
    double mixed = loss_of(&student, &batch);
    float *three = gradients(&student, &count);
    assert_true(fabs(first - second) > 1e-3);
    assert_true(fabs(mixed - (1 - (double)share) * first - (double)share * second) < 1e-5 * mixed);
    double worst = 0, most = 0;
    for (int64_t i = 0; i < count; i++) {
        double want = (1 - (double)share) * (double)one[i] + (double)share * (double)two[i];
        worst = fmax(worst, fabs(want - (double)three[i]));
        most = fmax(most, fabs(want));
    }
    if (!(most > 0 && worst < 1e-5 * most))
        fail_msg("gradients differ by %g of %g", worst, most);
    tn_free(one);
    tn_free(two);
    tn_free(three);
    tn_student_done(&student);
}

/* Dropout drops while training, BatchNormalization frozen or not, by (seed, epoch, sample); never
 * where the network is judged. */
static void dropout_is_keyed_and_only_trains(void **state)
{
    (void)state;
    for (int mode = TN_BATCH_NORM_TRAIN; mode <= TN_BATCH_NORM_FREEZE; mode++) {
        tn_train_options options;
        tn_student student;
        tn_error error = {0};
        tn_loss_result a = {0}, b = {0};
        const tn_sample_batch batch = {
            .nhwc = images, .labels = labels, .count = BATCH, .seed = 5, .epoch = 1, .first = 32};
        tn_sample_batch other_epoch = batch, other_samples = batch, other_seed = batch;
        other_epoch.epoch = 2;
        other_samples.first = 48;
        other_seed.seed = 6;
        open_student((tn_batch_norm_mode)mode, &options, &student);
        double loss = loss_of(&student, &batch);
        assert_true(loss != loss_of(&student, &other_epoch));
        assert_true(loss != loss_of(&student, &other_samples));
        assert_true(loss != loss_of(&student, &other_seed));
        if (mode == TN_BATCH_NORM_FREEZE) /* statistics do not move: the same bits */
            assert_true(loss == loss_of(&student, &batch));
        check(tn_student_judge(&student, &batch, &a, &error), &error);
        check(tn_student_judge(&student, &other_seed, &b, &error), &error);
        assert_true(a.loss == b.loss);
        tn_student_done(&student);
    }
}

/* What a sample draws does not depend on how an epoch is divided into batches. */
static void dropout_follows_the_sample(void **state)
{
    (void)state;
    tn_train_options options;
    tn_student student;
    open_student(TN_BATCH_NORM_FREEZE, &options, &student);
    tn_sample_batch batch = {
        .nhwc = images, .labels = labels, .count = BATCH, .seed = 5, .first = 64};
    double whole = loss_of(&student, &batch);
    batch.count = BATCH / 2;
    double parts = loss_of(&student, &batch);
    batch.nhwc += BATCH / 2 * PIXELS;
    batch.labels += BATCH / 2;
    batch.first += BATCH / 2;
    parts += loss_of(&student, &batch);
    assert_true(fabs(whole - parts) < 1e-5 * whole);
    tn_student_done(&student);
}

static tn_slot *slot_of(tn_student *student, const char *name)
{
    for (size_t i = 0; i < student->optimizer.n_slots; i++)
        if (!strcmp(student->optimizer.slots[i].name, name))
            return &student->optimizer.slots[i];
    fail_msg("no slot %s", name);
    return NULL;
}

/* Scales of TTQ through the whole network: with codes as they are the loss is a smooth function of
 * Wp and Wn, and its differences are the gradients, minus sign and all. */
static void scales_by_differences_of_the_loss(void **state)
{
    (void)state;
    static const char *const names[] = {
        "scale.layer1.0.conv2.weight", "scale_neg.layer1.0.conv2.weight",
        "scale.layer3.0.conv1.weight", "scale_neg.layer3.0.conv1.weight"};
    const tn_sample_batch batch = {.nhwc = images, .labels = labels, .count = BATCH, .seed = 5};
    tn_train_options options;
    tn_student student;
    int64_t count;
    open_scheme("ttq", NULL, TN_BATCH_NORM_TRAIN, &options, &student);
    loss_of(&student, &batch);
    tn_free(gradients(&student, &count));
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        tn_slot *slot = slot_of(&student, names[k]);
        double along = 0, differences, norm = 0, loss[2];
        float kept[256], direction[256];
        assert_true(slot->count <= 256);
        memcpy(kept, slot->value, (size_t)slot->count * sizeof *kept);
        memcpy(direction, slot->gradient, (size_t)slot->count * sizeof *direction);
        for (int64_t i = 0; i < slot->count; i++)
            norm += (double)direction[i] * (double)direction[i];
        const double h = 2e-3 / sqrt(norm); /* the loss is a sum of fp32 terms */
        along = norm;
        for (int side = 0; side < 2; side++) {
            for (int64_t i = 0; i < slot->count; i++)
                slot->value[i] = kept[i] + (float)((side ? h : -h) * (double)direction[i]);
            loss[side] = loss_of(&student, &batch) / BATCH;
        }
        memcpy(slot->value, kept, (size_t)slot->count * sizeof *kept);
        differences = (loss[1] - loss[0]) / (2 * h);
        if (!(fabs(differences - along) < 0.05 * along))
            fail_msg("%s: gradient %g, differences %g", names[k], along, differences);
    }
    tn_student_done(&student);
}

/* Layers' weights quantized and moved about, as a calibration does: codes that rounding the float
 * weights would not give, scales other than fitted ones. */
static void calibrated_start(tn_student *student, tn_conversion *start)
{
    tn_error error = {0};
    tn_random random = tn_random_make(4, TN_PURPOSE_TEST, 0, 0);
    tn_latents_export(&student->latents);
    start->item = tn_alloc_zero(student->latents.count, sizeof *start->item);
    assert_non_null(start->item);
    for (size_t l = 0; l < student->latents.count; l++) {
        const tn_qweight *from = &student->latents.item[l].weight;
        tn_converted *item = &start->item[start->count++];
        item->layer = student->latents.item[l].layer;
        item->weight = *from;
        check(tn_qweight_init(&item->weight, from->scale_neg, from->zero, &error), &error);
        for (int64_t i = 0; i < from->rows * from->cols; i++) {
            int64_t col = i % from->cols; /* both ends of the range in every row */
            int other =
                from->low + (int)tn_random_below(&random, (uint32_t)(from->high - from->low + 1));
            item->weight.codes[i] = (int16_t)(col == 0                           ? from->low
                                              : col == 1                         ? from->high
                                              : tn_random_below(&random, 4) == 0 ? other
                                                                                 : from->codes[i]);
        }
        for (int64_t i = 0; i < from->n_scales; i++) {
            item->weight.scale[i] = 0.9f * from->scale[i];
            if (from->scale_neg)
                item->weight.scale_neg[i] = 1.2f * from->scale_neg[i];
            if (from->zero)
                item->weight.zero[i] = from->zero[i];
        }
    }
}

/* What training begins with is what calibration gave, for schemes that take scales and thresholds
 * from the latents too. DoReFa's values span [-1, 1] whatever the scale: its codes alone. */
static void training_starts_at_the_calibrated_codes(void **state)
{
    (void)state;
    static const struct {
        const char *scheme, *bits;
        bool scales;
    } cases[] = {{"lsq", "1.58", true}, {"lsq", "4", true},    {"fixed", "3", true},
                 {"twn", NULL, true},   {"ttq", NULL, true},   {"affine", "4", true},
                 {"dorefa", "1", true}, {"dorefa", "4", false}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        tn_error error = {0};
        tn_student student;
        tn_conversion start = {0};
        tn_train_options options;
        open_scheme(cases[c].scheme, cases[c].bits, TN_BATCH_NORM_TRAIN, &options, &student);
        calibrated_start(&student, &start);
        check(tn_student_start(&student, &start, &error), &error);
        check(tn_student_settle(&student, &error), &error);
        tn_latents_export(&student.latents);
        for (size_t l = 0; l < start.count; l++) {
            const tn_qweight *asked = &start.item[l].weight, *is = &student.latents.item[l].weight;
            assert_memory_equal(is->codes, asked->codes,
                                (size_t)(is->rows * is->cols) * sizeof *is->codes);
            for (int64_t i = 0; cases[c].scales && i < is->n_scales; i++) {
                assert_float_equal(is->scale[i], asked->scale[i], 1e-5f * asked->scale[i]);
                if (is->scale_neg)
                    assert_float_equal(is->scale_neg[i], asked->scale_neg[i],
                                       1e-5f * asked->scale_neg[i]);
                if (is->zero)
                    assert_true(is->zero[i] == asked->zero[i]);
            }
        }
        tn_conversion_done(&start);
        tn_student_done(&student);
    }
}

/* A restored checkpoint is what the network computes with, plain layers too, whose weights plans
 * keep packed. */
static void a_restored_network_computes_as_before(void **state)
{
    (void)state;
    const tn_sample_batch batch = {.nhwc = images, .labels = labels, .count = BATCH, .seed = 5};
    const tn_run_identity identity = {.recipe = "r", .model = "m", .data = "d", .machine = "here"};
    char folder[] = "/tmp/ternion-student-XXXXXX";
    tn_error error = {0};
    tn_train_options options;
    tn_student student;
    tn_progress_state progress = {0};
    bool found = false;
    int64_t count;
    assert_non_null(mkdtemp(folder));
    open_scheme("float", NULL, TN_BATCH_NORM_FREEZE, &options, &student);
    const tn_checkpoint checkpoint = {&student.optimizer, student.params, &progress, &identity};
    check(tn_checkpoint_save(folder, false, &checkpoint, &error), &error);
    const double before = loss_of(&student, &batch);
    tn_free(gradients(&student, &count));
    check(tn_student_update(&student, 10, 1, &error), &error);
    assert_true(loss_of(&student, &batch) != before);
    check(tn_checkpoint_restore(folder, NULL, &checkpoint, &found, &error), &error);
    assert_true(found && loss_of(&student, &batch) == before);
    tn_student_done(&student);
    assert_int_equal(remove_folder(folder), 0);
}

/* PARQ's values are nearly its latents at first, but what would be written now is hard. */
static void soft_values_are_judged_hard(void **state)
{
    (void)state;
    tn_error error = {0};
    tn_train_options options;
    tn_student student;
    open_scheme("parq", NULL, TN_BATCH_NORM_TRAIN, &options, &student);
    tn_student_anneal(&student, 0.1);
    check(tn_student_settle(&student, &error), &error);
    tn_latents_export(&student.latents);
    for (size_t l = 0; l < student.latents.count; l++) {
        const tn_latent *latent = &student.latents.item[l];
        const int64_t n = latent->weight.rows * latent->weight.cols;
        float *hard = tn_alloc_array((size_t)n, sizeof *hard);
        float *judged = tn_alloc_array((size_t)n, sizeof *judged);
        assert_true(hard && judged);
        tn_qweight_dequantize(&latent->weight, hard);
        check(tn_params_get_rows(student.params, latent->param, judged, &error), &error);
        assert_memory_equal(hard, judged, (size_t)n * sizeof *hard);
        tn_free(hard);
        tn_free(judged);
    }
    tn_student_done(&student);
}

/* The first step of SGD with Nesterov's momentum, by hand; quantizing again changes nothing. */
static void one_step_by_hand(void **state)
{
    (void)state;
    static const char *const names[] = {"conv1.weight", "layer2.0.conv1.weight",
                                        "scale.layer2.0.conv1.weight", "linear.bias"};
    const tn_sample_batch batch = {.nhwc = images, .labels = labels, .count = BATCH, .seed = 5};
    enum { SLOTS = sizeof names / sizeof *names };
    const double lr = 0.1;
    tn_train_options options;
    tn_student student;
    tn_error error = {0};
    double norm;
    float *before[SLOTS];
    open_student(TN_BATCH_NORM_TRAIN, &options, &student);
    loss_of(&student, &batch);
    check(tn_student_collect(&student, &norm, &error), &error);
    for (int k = 0; k < SLOTS; k++) {
        const tn_slot *slot = slot_of(&student, names[k]);
        before[k] = tn_alloc_array((size_t)slot->count, sizeof(float));
        assert_non_null(before[k]);
        memcpy(before[k], slot->value, (size_t)slot->count * sizeof(float));
    }
    check(tn_student_update(&student, lr, norm, &error), &error);
    for (int k = 0; k < SLOTS; k++) {
        const tn_slot *slot = slot_of(&student, names[k]);
        double decay = k < 2 ? options.weight_decay : 0;
        for (int64_t i = 0; i < slot->count; i++) {
            double g = (double)slot->gradient[i] + decay * (double)before[k][i];
            double want = (double)before[k][i] - lr * (g + options.momentum * g);
            if (!(fabs(want - (double)slot->value[i]) < 1e-6 * (1 + fabs(want))))
                fail_msg("%s[%d] is %g, by hand %g", names[k], (int)i, (double)slot->value[i],
                         want);
        }
        tn_free(before[k]);
    }
    check(tn_student_settle(&student, &error), &error);
    for (size_t l = 0; l < student.latents.count; l++) {
        tn_latent *latent = &student.latents.item[l];
        int64_t n = latent->weight.rows * latent->weight.cols;
        float *values = tn_alloc_array((size_t)n, sizeof *values);
        int16_t *codes = tn_alloc_array((size_t)n, sizeof *codes);
        assert_true(values && codes);
        float *used = tn_alloc_array((size_t)n, sizeof *used);
        assert_non_null(used);
        check(tn_params_get_rows(student.params, latent->param, used, &error), &error);
        latent->scheme.quantizer->quantize(&latent->scheme, &latent->weight, used, &latent->state,
                                           codes, values);
        assert_memory_equal(codes, latent->codes, (size_t)n * sizeof *codes);
        assert_memory_equal(values, used, (size_t)n * sizeof *values);
        tn_free(used);
        tn_free(values);
        tn_free(codes);
    }
    tn_student_done(&student);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mixed_labels_mix_losses_and_gradients),
        cmocka_unit_test(dropout_is_keyed_and_only_trains),
        cmocka_unit_test(dropout_follows_the_sample),
        cmocka_unit_test(scales_by_differences_of_the_loss),
        cmocka_unit_test(training_starts_at_the_calibrated_codes),
        cmocka_unit_test(a_restored_network_computes_as_before),
        cmocka_unit_test(soft_values_are_judged_hard),
        cmocka_unit_test(one_step_by_hand),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
