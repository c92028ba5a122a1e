/* One quantized training step of whole networks on the CUDA device against the CPU's, in fp32 from
 * the same state: loss, latents and scales, gradients, and the codes that each device then makes of
 * its own latents. quantized_step_test [SEED [NETWORK]]
 *
 * Built over the emulated runtime here; over the real one it exits 77 without a GPU. */
#include "core/memory.h"
#include "finetune/student.h"
#include "onnx_io/zoo/zoo.h"
#include "tests/gpu/comparison.h"

#include <string.h>

enum { CLASSES = 10, MOST_BATCH = 8, MOST_PIXELS = 3 * 48 * 48 };

static const double RATE = 0.02; /* finetune's own */
static float images[MOST_BATCH * MOST_PIXELS];

typedef struct side { /* one device */
    tn_train_options options;
    tn_student student;
    tn_loss_result loss;
    double norm;
} side;

/* Quantizes the latents on the device and brings all to the host. */
static tn_status quantize(tn_student *student, tn_error *error)
{
    tn_status status = tn_student_fetch(student, error);
    if (!student->resident)
        return status == TN_OK ? tn_latents_apply(&student->latents, student->params, true, error)
                               : status;
    if (status == TN_OK)
        status = tn_resident_enter(student->resident, error);
    if (status == TN_OK)
        status = tn_resident_quantize(student->resident, error);
    return status == TN_OK ? tn_student_fetch(student, error) : status;
}

static tn_status step(const tn_model *model, const tn_train_options *asked, tn_device *device,
                      side *out, tn_error *error)
{
    static const int32_t labels[MOST_BATCH] = {3, 1, 7, 0, 5, 2, 9, 4};
    tn_train_options copy = *asked;
    copy.device = device;
    tn_status status = tn_train_resolve(&copy, &out->options, error);
    if (status == TN_OK)
        status = tn_student_create(model, NULL, &out->options, &out->student, error);
    if (status == TN_OK && !device->host_memory && !out->student.resident)
        status = tn_fail(error, TN_ERROR_DEVICE, "the state stays on the host");
    const tn_sample_batch batch = {.nhwc = images, .labels = labels, .count = asked->batch};
    if (status == TN_OK)
        status = tn_student_batch(&out->student, &batch, false, 1.0, &out->loss, error);
    if (status == TN_OK)
        status = tn_student_collect(&out->student, &out->norm, error);
    if (status == TN_OK)
        status = tn_student_update(&out->student, RATE, out->norm, error);
    return status == TN_OK ? quantize(&out->student, error) : status;
}

typedef struct figures {
    double loss, latents, gradients, scales; /* normwise, latents and scales of the worst layer */
    int64_t codes, near, differ;             /* in all; differ near a threshold, and elsewhere */
    double farthest;                         /* of those that differ, relative to the threshold */
} figures;

/* The latent's code changes at this magnitude. */
static double threshold_of(const tn_latent *latent, int64_t group)
{
    return strcmp(latent->scheme.quantizer->id, "ttq") == 0
               ? (double)latent->state.threshold[group]
               : 0.5 * (double)latent->state.scale[group];
}

/* Codes of ternary weights are the signs of their values. */
static tn_status compare_codes(side *a, side *b, size_t l, figures *f, tn_error *error)
{
    const tn_latent *p = &a->student.latents.item[l], *q = &b->student.latents.item[l];
    const int64_t cols = p->weight.cols, count = p->weight.rows * cols;
    float *values = tn_alloc_array((size_t)count, 2 * sizeof *values);
    if (!values)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    tn_status status = tn_params_get_rows(a->student.params, p->param, values, error);
    if (status == TN_OK)
        status = tn_params_get_rows(b->student.params, q->param, values + count, error);
    for (int64_t i = 0; status == TN_OK && i < count; i++) {
        int x = (values[i] > 0) - (values[i] < 0);
        int y = (values[count + i] > 0) - (values[count + i] < 0);
        double threshold = threshold_of(p, p->weight.n_scales == 1 ? 0 : i / cols);
        f->codes++;
        if (x == y)
            continue;
        double distance = fabs(fabs((double)p->w[i]) - threshold) / threshold;
        bool near = distance <= 1e-5;
        f->farthest = fmax(f->farthest, distance);
        f->near += near;
        f->differ += !near;
    }
    tn_free(values);
    return status;
}

static tn_status compare_sides(side *a, side *b, figures *f, tn_error *error)
{
    double difference = 0, norm = 0;
    f->loss = fabs(a->loss.loss - b->loss.loss) / fabs(a->loss.loss);
    tn_status status = TN_OK;
    for (size_t l = 0; status == TN_OK && l < a->student.latents.count; l++) {
        const tn_latent *p = &a->student.latents.item[l], *q = &b->student.latents.item[l];
        f->latents = fmax(
            f->latents, comparison_distance(p->w, q->w, (size_t)(p->weight.rows * p->weight.cols)));
        size_t n = (size_t)p->weight.n_scales;
        f->scales = fmax(f->scales, comparison_distance(p->state.scale, q->state.scale, n));
        if (p->state.scale_neg)
            f->scales =
                fmax(f->scales, comparison_distance(p->state.scale_neg, q->state.scale_neg, n));
        status = compare_codes(a, b, l, f, error);
    }
    for (size_t i = 0; i < a->student.optimizer.n_slots; i++) {
        const tn_slot *p = &a->student.optimizer.slots[i], *q = &b->student.optimizer.slots[i];
        for (int64_t k = 0; k < p->count; k++) { /* the first step's momentum is the gradient */
            double d = (double)p->first[k] - (double)q->first[k];
            difference += d * d;
            norm += (double)p->first[k] * (double)p->first[k];
        }
    }
    f->gradients = sqrt(difference / norm);
    return status;
}

static bool agree(const figures *f)
{
    return f->latents <= 1e-4 && f->scales <= 1e-4 && f->gradients <= 1e-4 && f->loss <= 1e-5 &&
           f->codes > 0 && f->differ == 0;
}

/* Whatever the images are. */
static bool near(const figures *f)
{
    return f->loss <= 1e-5 && f->gradients <= 0.1;
}

static tn_status compare_once(const tn_model *model, const tn_train_options *asked, int64_t count,
                              tn_device *cpu, tn_device *cuda, figures *f, tn_error *error)
{
    side a = {0}, b = {0};
    *f = (figures){0};
    for (int64_t i = 0; i < count; i++)
        images[i] = 2.0f * comparison_uniform();
    tn_status status = step(model, asked, cpu, &a, error);
    if (status == TN_OK)
        status = step(model, asked, cuda, &b, error);
    if (status == TN_OK)
        status = compare_sides(&a, &b, f, error);
    tn_student_done(&a.student);
    tn_student_done(&b.student);
    return status;
}

/* Where an activation lies within rounding of ReLU's corner, or two of a pooling's maximum, the
 * gradient is one or another on any device (of squeezenet-bn's steps on the CPU, most change by
 * more than 1e-4 when their images do by 3e-7). So some draws of images are tried: where no
 * activation is so placed devices agree, and a kernel that is wrong is so for all of them. */
static tn_status compare(const char *id, int64_t size, int batch, const char *scheme,
                         tn_device *cpu, tn_device *cuda, figures *f, int *draws, tn_error *error)
{
    enum { MOST_DRAWS = 8 };
    const tn_zoo_options zoo = {
        .classes = CLASSES, .input = {3, size, size}, .seed = comparison_state};
    const char *threshold = scheme ? "max:0.05" : NULL; /* TTQ's own */
    const tn_train_options asked = {.policy = {.scheme = scheme, .threshold = threshold},
                                    .batch = batch,
                                    .precision = TN_PRECISION_FP32,
                                    .optimizer = "sgd"};
    tn_model *model = NULL;
    tn_status status = tn_zoo_create(id, &zoo, &model, error);
    do {
        if (status == TN_OK)
            status = compare_once(model, &asked, batch * 3 * size * size, cpu, cuda, f, error);
        (*draws)++;
    } while (status == TN_OK && !agree(f) && near(f) && *draws < MOST_DRAWS);
    tn_model_destroy(model);
    return status;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *id;
        int64_t size;
        int batch;
    } nets[] = {{"resnet20", 32, 4},
                {"resnet18", 40, 3},
                {"densenet-small", 32, 3},
                {"squeezenet-bn", 48, 3},
                {"vgg16-bn", 32, 8}}; /* BN over 1 x 1 pixels: of the batch alone */
    static const char *const schemes[] = {"ttq", NULL};
    tn_error error = {0};
    tn_device *cpu = NULL, *cuda = NULL;
    comparison_seed(argc, argv, 1, 20291);
    int bad = comparison_open(&cpu, &cuda);
    if (bad)
        return bad;
    for (size_t i = 0; i < 2 * sizeof nets / sizeof nets[0]; i++) {
        figures f = {0};
        const char *scheme = schemes[i % 2], *id = nets[i / 2].id;
        if (argc > 2 && strcmp(argv[2], id) != 0)
            continue;
        int draws = 0;
        tn_status status =
            compare(id, nets[i / 2].size, nets[i / 2].batch, scheme, cpu, cuda, &f, &draws, &error);
        bool ok = status == TN_OK && agree(&f);
        printf("%-14s %-4s %s  latents %.1e, scales %.1e, gradients %.1e, loss %.1e, of %lld codes "
               "%lld differ at a threshold, %lld elsewhere (%.1e from one), draw %d\n",
               id, scheme ? scheme : "lsq", comparison_verdict(status, &error, ok), f.latents,
               f.scales, f.gradients, f.loss, (long long)f.codes, (long long)f.near,
               (long long)f.differ, f.farthest, draws);
        fflush(stdout);
        bad += !ok;
        tn_error_clear(&error);
    }
    tn_device_destroy(cuda);
    tn_device_destroy(cpu);
    return bad > 0;
}
