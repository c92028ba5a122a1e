/* What the GPU does, and what the program makes of it.
 * gpu_bench ceilings | kernels | steps [SCALE]
 * gpu_bench one NET BATCH SCHEME fp32|tf32|bf16: steps of one network, for a profiler
 *
 * ceilings: copies on the device, matrix products. kernels: bytes moved a second against the
 * copy's. steps: whole training steps of student networks, images a second. SCALE divides all
 * sizes: 1 on a GPU, more to try the program where kernels are emulated. 77 without a GPU. */
#include "core/memory.h"
#include "finetune/student.h"
#include "gpu/gpu.h"
#include "onnx_io/zoo/zoo.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static tn_device *device;
static tn_gpu *gpu;
static int64_t scale = 1;

static void must(tn_status status, const tn_error *error)
{
    if (status == TN_OK)
        return;
    printf("FAILED: %s\n", error->message);
    exit(1);
}

static double now(void)
{
    tn_error error = {0};
    struct timespec time;
    must(tn_gpu_wait(gpu, &error), &error);
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void *memory(size_t bytes)
{
    tn_error error = {0};
    void *p = tn_gpu_alloc(gpu, bytes);
    if (!p) {
        printf("FAILED: no memory for %zu bytes\n", bytes);
        exit(1);
    }
    must(tn_gpu_zero(gpu, p, bytes, &error), &error);
    return p;
}

typedef void work(void *context);

/* Seconds of one of `times`, after a warm-up. */
static double seconds(work *run, void *context, int times)
{
    run(context);
    double start = now();
    for (int i = 0; i < times; i++)
        run(context);
    return (now() - start) / times;
}

/* --- ceilings ----------------------------------------------------------------------------------
 */

typedef struct copy {
    void *a, *b;
    size_t bytes;
} copy;

static void run_copy(void *context)
{
    tn_error error = {0};
    const copy *c = context;
    must(tn_gpu_copy(gpu, c->b, c->a, c->bytes, TN_GPU_WITHIN, &error), &error);
}

static double copy_rate(void)
{
    copy c = {.bytes = (size_t)((512 << 20) / scale)};
    c.a = memory(c.bytes);
    c.b = memory(c.bytes);
    double rate = 2.0 * (double)c.bytes / seconds(run_copy, &c, 20);
    tn_gpu_free(gpu, c.a);
    tn_gpu_free(gpu, c.b);
    return rate;
}

typedef struct product {
    tn_gpu_product p;
    void *a, *b;
    float *c;
} product;

static void run_product(void *context)
{
    tn_error error = {0};
    const product *q = context;
    must(tn_gpu_multiply(gpu, &q->p, 1.0f, q->a, q->b, 0.0f, q->c, &error), &error);
}

static void ceilings(void)
{
    static const tn_precision precisions[] = {TN_PRECISION_FP32, TN_PRECISION_TF32,
                                              TN_PRECISION_BF16};
    int64_t n = 4096 / scale;
    size_t bytes = (size_t)(n * n) * sizeof(float);
    printf("copy on the device        %8.0f GB/s\n", copy_rate() / 1e9);
    for (int i = 0; i < 3; i++) {
        tn_error error = {0};
        product q = {.p = {.trans_b = true,
                           .precision = precisions[i],
                           .m = n,
                           .n = n,
                           .k = n,
                           .lda = n,
                           .ldb = n,
                           .ldc = n,
                           .batch = 1},
                     .a = memory(bytes),
                     .b = memory(bytes),
                     .c = memory(bytes)};
        must(tn_gpu_product_prepare(gpu, &q.p, &error), &error);
        double flops = 2.0 * (double)n * (double)n * (double)n / seconds(run_product, &q, 10);
        printf("product %lld^3 %s       %8.1f TFLOP/s\n", (long long)n,
               tn_precision_name(precisions[i]), flops / 1e12);
        tn_gpu_free(gpu, q.a);
        tn_gpu_free(gpu, q.b);
        tn_gpu_free(gpu, q.c);
    }
}

/* --- kernels -----------------------------------------------------------------------------------
 */

typedef struct launch {
    tn_kernel *kernel;
    tn_arguments args;
    bool backward;
} launch;

static void run_launch(void *context)
{
    tn_error error = {0};
    const launch *l = context;
    must(l->backward ? l->kernel->type->backward(l->kernel, &l->args, &error)
                     : l->kernel->type->forward(l->kernel, &l->args, &error),
         &error);
}

static void report(const char *name, launch *l, double bytes, double ceiling)
{
    double rate = bytes / seconds(run_launch, l, 20);
    printf("%-24s %8.0f GB/s  %3.0f %% of a copy\n", name, rate / 1e9, 100.0 * rate / ceiling);
}

static launch prepare(const tn_task *task)
{
    tn_error error = {0};
    launch l = {0};
    must(device->type->prepare(device, task, &l.kernel, &error), &error);
    l.args.state = memory(l.kernel->state_bytes + 1);
    l.args.workspace = memory(l.kernel->workspace_bytes + 1);
    l.args.saved = memory(l.kernel->saved_bytes + 1);
    return l;
}

static void elementwise(double ceiling)
{
    int64_t channels = 64, rows = (1 << 20) / scale, n = rows * channels;
    float *x = memory((size_t)n * sizeof(float)), *y = memory((size_t)n * sizeof(float));
    float *vectors[4];
    const float *src[2] = {x, NULL}, *params[4];
    for (int i = 0; i < 4; i++)
        params[i] = vectors[i] = memory((size_t)channels * sizeof(float));
    tn_task unary = {.verb = TN_VERB_UNARY,
                     .precision = TN_PRECISION_FP32,
                     .unary = {.count = n, .function = TN_FUNCTION_RELU}};
    launch l = prepare(&unary);
    l.args.src = src;
    l.args.dst = y;
    report("relu", &l, 8.0 * (double)n, ceiling);
    tn_kernel_destroy(l.kernel);
    tn_task norm = {
        .verb = TN_VERB_BATCH_NORM,
        .precision = TN_PRECISION_FP32,
        .backward = true,
        .batch_norm = {
            .rows = rows, .channels = channels, .epsilon = 1e-5f, .function = TN_FUNCTION_RELU}};
    l = prepare(&norm);
    l.args.src = src;
    l.args.dst = y;
    l.args.params = params;
    l.args.training = true;
    l.args.keep = 1.0f;
    l.args.running_mean = vectors[2];
    l.args.running_var = vectors[3];
    report("batch norm + relu", &l, 12.0 * (double)n, ceiling);
    float *dsrc[2] = {x, NULL}, *dparams[4] = {vectors[0], vectors[1], NULL, NULL};
    bool accumulate[2] = {false, false};
    l.args.ddst = y;
    l.args.dsrc = dsrc;
    l.args.dparams = dparams;
    l.args.accumulate = accumulate;
    l.backward = true;
    report("batch norm backward", &l, 20.0 * (double)n, ceiling);
    tn_kernel_destroy(l.kernel);
}

static void optimizer(double ceiling)
{
    tn_error error = {0};
    int64_t n = (32 << 20) / scale;
    size_t bytes = (size_t)n * sizeof(float);
    tn_optimizer_item item = {.value = memory(bytes),
                              .gradient = memory(bytes),
                              .count = n,
                              .rate = 1.0f,
                              .floor = -INFINITY,
                              .first = memory(bytes)};
    tn_task task = {.verb = TN_VERB_OPTIMIZER,
                    .precision = TN_PRECISION_FP32,
                    .optimizer = {{TN_OPTIMIZER_SGD, 0.9f, true, 0, 0, 0}, &item, 1}};
    tn_update update = {.lr = 0.1};
    const tn_step_state decided = {.updates = 1, .gradient_scale = 1.0f};
    launch l = prepare(&task);
    l.args.update = &update;
    l.args.step = memory(sizeof decided);
    must(device->type->upload(device, l.args.step, &decided, sizeof decided, &error), &error);
    must(l.kernel->type->pack(l.kernel, &l.args, &error), &error);
    report("sgd", &l, 20.0 * (double)n, ceiling);
    tn_kernel_destroy(l.kernel);
    task.verb = TN_VERB_NORM;
    l = prepare(&task);
    l.args.dst = memory(sizeof(double));
    must(l.kernel->type->pack(l.kernel, &l.args, &error), &error);
    report("gradient norm", &l, 4.0 * (double)n, ceiling);
    tn_kernel_destroy(l.kernel);
}

static void quantizer(const char *id, double ceiling)
{
    tn_error error = {0};
    int64_t rows = 512 / (scale > 512 ? 512 : scale), cols = 4608, n = rows * cols;
    size_t bytes = (size_t)n * sizeof(float), scales = (size_t)rows * sizeof(float);
    tn_scheme scheme = {.quantizer = tn_quantizer_find(id), .granularity = TN_PER_CHANNEL};
    tn_qweight shape = {.rank = 2, .dims = {rows, cols}};
    must(scheme.quantizer->resolve(&scheme, &error), &error);
    tn_scheme_apply(&scheme, &shape);
    must(tn_qweight_init(&shape, true, false, &error), &error);
    tn_quantizer_item item = {.scheme = &scheme,
                              .shape = &shape,
                              .refresh = scheme.quantizer->refresh != NULL,
                              .state = {.scale = memory(scales),
                                        .scale_neg = memory(scales),
                                        .threshold = memory(scales)},
                              .w = memory(bytes),
                              .values = memory(bytes),
                              .dvalues = memory(bytes),
                              .dw = memory(bytes),
                              .dscale = memory(scales)};
    tn_task task = {
        .verb = TN_VERB_QUANTIZER, .precision = TN_PRECISION_FP32, .quantizer = {&item, 1}};
    char name[32];
    launch l = prepare(&task);
    must(l.kernel->type->pack(l.kernel, &l.args, &error), &error);
    snprintf(name, sizeof(name), "%s 512 x 4608", id);
    report(name, &l, 8.0 * (double)n, ceiling);
    snprintf(name, sizeof(name), "%s backward", id);
    l.backward = true;
    report(name, &l, 12.0 * (double)n, ceiling);
    tn_kernel_destroy(l.kernel);
    tn_qweight_done(&shape);
}

static void kernels(void)
{
    double ceiling = copy_rate();
    printf("%-24s %8.0f GB/s\n", "copy", ceiling / 1e9);
    elementwise(ceiling);
    optimizer(ceiling);
    quantizer("lsq", ceiling);
    quantizer("ttq", ceiling);
}

/* --- steps -------------------------------------------------------------------------------------
 */

typedef struct training {
    tn_student student;
    tn_sample_batch batch;
} training;

static void run_step(void *context)
{
    tn_error error = {0};
    training *t = context;
    tn_step_record records[TN_STEP_LOG];
    int n;
    must(tn_student_ahead(&t->student, &t->batch, false, 1.0, true, 1e-4, &error), &error);
    if (tn_student_pending(&t->student) == TN_STEP_LOG)
        must(tn_student_look(&t->student, records, &n, &error), &error);
}

static double images_per_second(const tn_model *model, const tn_architecture *net, int batch,
                                const char *scheme, tn_precision precision, bool eager)
{
    tn_error error = {0};
    training t = {0};
    size_t pixels = (size_t)(net->input[0] * net->input[1] * net->input[2]) * (size_t)batch;
    float *images = tn_alloc_array(pixels, sizeof(float));
    int32_t *labels = tn_alloc_zero((size_t)batch, sizeof(int32_t));
    if (!images || !labels)
        exit(1);
    for (size_t i = 0; i < pixels; i++)
        images[i] = sinf((float)(i % 100003));
    t.batch = (tn_sample_batch){.nhwc = images, .labels = labels, .count = batch};
    const tn_train_options asked = {.policy = {.scheme = scheme},
                                    .batch = batch,
                                    .device = device,
                                    .precision = precision,
                                    .eager = eager};
    tn_train_options options;
    must(tn_train_resolve(&asked, &options, &error), &error);
    must(tn_student_create(model, NULL, &options, &t.student, &error), &error);
    for (int i = 0; i < 3; i++)
        run_step(&t); /* eager, recorded, replayed */
    double rate = batch / seconds(run_step, &t, scale > 1 ? 1 : 20);
    tn_student_done(&t.student);
    tn_free(images);
    tn_free(labels);
    return rate;
}

static void steps(void)
{
    static const struct {
        const char *id;
        int batch;
    } nets[] = {{"resnet20", 128}, {"resnet20", 1024},  {"resnet56", 128}, {"densenet-small", 64},
                {"resnet18", 256}, {"squeezenet", 256}, {"resnet50", 128}};
    printf("images a second            float    lsq  lsq eager    ttq  lsq tf32\n");
    for (size_t i = 0; i < (scale > 1 ? 1 : sizeof(nets) / sizeof(nets[0])); i++) {
        tn_error error = {0};
        const char *id = scale > 1 ? "resnet8" : nets[i].id;
        const tn_architecture *net = tn_architecture_find(id);
        const tn_zoo_options zoo = {.seed = 1};
        int batch = (int)(nets[i].batch / scale);
        tn_model *model;
        batch = batch < 2 ? 2 : batch;
        must(tn_zoo_create(id, &zoo, &model, &error), &error);
        const tn_precision bf16 = TN_PRECISION_BF16;
        printf("%-16s batch %4d %8.0f", id, batch,
               images_per_second(model, net, batch, "float", bf16, false));
        printf(" %6.0f", images_per_second(model, net, batch, "lsq", bf16, false));
        printf(" %10.0f", images_per_second(model, net, batch, "lsq", bf16, true));
        printf(" %6.0f", images_per_second(model, net, batch, "ttq", bf16, false));
        printf(" %9.0f\n", images_per_second(model, net, batch, "lsq", TN_PRECISION_TF32, false));
        fflush(stdout);
        tn_model_destroy(model);
    }
}

static int one(int argc, char **argv)
{
    const tn_zoo_options zoo = {.seed = 1};
    const tn_architecture *net = argc == 6 ? tn_architecture_find(argv[2]) : NULL;
    tn_precision precision = TN_PRECISION_AUTO;
    tn_error error = {0};
    tn_model *model;
    for (int p = TN_PRECISION_FP32; net && p <= TN_PRECISION_TF32; p++)
        if (strcmp(argv[5], tn_precision_name((tn_precision)p)) == 0)
            precision = (tn_precision)p;
    if (!net || precision == TN_PRECISION_AUTO)
        return 2;
    must(tn_zoo_create(argv[2], &zoo, &model, &error), &error);
    printf("%.0f images/s\n",
           images_per_second(model, net, atoi(argv[3]), argv[4], precision, false));
    tn_model_destroy(model);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "ceilings";
    tn_error error = {0};
    int code = 0;
    scale = strcmp(what, "one") == 0 ? 1 : argc > 2 ? strtoll(argv[2], NULL, 10) : 1;
    if (tn_device_create_cuda(0, &device, &error) != TN_OK) {
        printf("skipped: %s\n", error.message);
        return 77;
    }
    gpu = ((tn_gpu_device *)device)->gpu;
    printf("%s\n", device->summary);
    if (strcmp(what, "ceilings") == 0)
        ceilings();
    else if (strcmp(what, "kernels") == 0)
        kernels();
    else if (strcmp(what, "one") == 0)
        code = one(argc, argv);
    else
        steps();
    tn_device_destroy(device);
    return code;
}
