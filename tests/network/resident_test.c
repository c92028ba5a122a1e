/* resident_test [ARCHITECTURE BATCH MODE]: what a process holds while a network runs is what its
 * plan says (arena, parameters), besides what the libraries themselves take: that is measured on a
 * tiny network. Every measurement is a process of its own. Networks come from zoo/. */
#include "core/memory.h"
#include "network/plan.h"
#include "onnx_io/zoo/zoo.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

typedef enum run_mode { INFERENCE, BF16, TRAINING } run_mode;
static const char *const mode_names[] = {"inference", "bf16", "training"};

typedef struct subject {
    const char *architecture;
    int64_t batch;
    run_mode mode;
} subject;

typedef struct measured {
    uint64_t resident, planned, heap; /* bytes; heap: what the library holds */
    tn_status status;
} measured;

static uint64_t resident(void)
{
    char line[256];
    unsigned long long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "VmHWM: %llu kB", &kib) == 1)
            break;
    if (file)
        fclose(file);
    return (uint64_t)kib * 1024;
}

/* The high-water mark starts anew from what is held now. */
static bool reset_resident(void)
{
    int file = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    bool done = file >= 0 && write(file, "5", 1) == 1;
    if (file >= 0)
        close(file);
    return done;
}

static tn_status run(tn_plan *plan, const subject *s, tn_error *error)
{
    bool training = s->mode == TRAINING;
    int32_t *labels = tn_alloc_zero((size_t)s->batch, sizeof(*labels));
    tn_loss_options loss = {.labels = labels, .count = s->batch};
    tn_loss_result result;
    tn_status status = labels ? TN_OK : TN_ERROR_LIMIT;
    uint64_t calls = tn_memory_stats_get().calls;
    for (int i = 0; i < 2 && status == TN_OK; i++) {
        status = tn_plan_forward(plan, training ? TN_RUN_TRAINING : TN_RUN_INFERENCE, 0, SIZE_MAX,
                                 error);
        if (status == TN_OK && training)
            status = tn_plan_loss(plan, &loss, &result, error);
        if (status == TN_OK && training)
            status = tn_plan_backward(plan, 0, SIZE_MAX, false, error);
    }
    if (status == TN_OK && tn_memory_stats_get().calls != calls)
        status = tn_fail(error, TN_ERROR_DIFFERS, "a step allocated memory");
    tn_free(labels);
    return status;
}

static tn_status measure(const subject *s, const char *path, measured *m, tn_error *error)
{
    tn_model *model = NULL;
    tn_graph *graph = NULL;
    tn_device *device = NULL;
    tn_plan *plan = NULL;
    tn_graph_options graph_options = {.batch = s->batch};
    tn_plan_options options = {.training = s->mode == TRAINING, .loss = s->mode == TRAINING};
    options.precision = s->mode == BF16 ? TN_PRECISION_BF16 : TN_PRECISION_FP32;
    tn_status status = tn_model_read(path, NULL, &model, error);
    if (status == TN_OK)
        status = tn_graph_create(model, &graph_options, &graph, error);
    if (status == TN_OK)
        status = tn_device_create_cpu(&device, error);
    if (status == TN_OK)
        status = tn_plan_create(graph, device, &options, &plan, error);
    if (status != TN_OK)
        return status;
    tn_model_forget_pages(model);
    tn_plan_memory memory = tn_plan_memory_get(plan);
    m->planned = memory.arena + memory.parameters;
    m->heap = tn_memory_stats_get().live;
    if (!reset_resident())
        return tn_fail(error, TN_ERROR_IO, "no /proc/self/clear_refs");
    status = run(plan, s, error);
    m->resident = resident();
    tn_plan_destroy(plan);
    tn_device_destroy(device);
    tn_graph_destroy(graph);
    tn_model_destroy(model);
    return status;
}

static measured in_a_process(const subject *s, const char *path)
{
    measured m = {.status = TN_ERROR_IO};
    int ends[2];
    if (pipe(ends) != 0)
        return m;
    pid_t child = fork();
    if (child == 0) {
        tn_error error = {0};
        m.status = measure(s, path, &m, &error);
        if (m.status != TN_OK)
            fprintf(stderr, "%s: %s\n", s->architecture, error.message);
        _exit(write(ends[1], &m, sizeof(m)) == sizeof(m) ? 0 : 1);
    }
    close(ends[1]);
    if (child < 0 || read(ends[0], &m, sizeof(m)) != sizeof(m))
        m.status = TN_ERROR_IO;
    close(ends[0]);
    waitpid(child, NULL, 0);
    return m;
}

/* The models are written by a process of their own too: what that touched stays resident. */
static bool write_model(const char *architecture, const char *path)
{
    int code = 1;
    pid_t child = fork();
    if (child == 0) {
        tn_model *model = NULL;
        tn_zoo_options zoo = {.seed = 1};
        tn_write_options options = {.replace = true};
        tn_error error = {0};
        tn_status status = tn_zoo_create(architecture, &zoo, &model, &error);
        if (status == TN_OK)
            status = tn_model_write(model, path, &options, NULL, &error);
        if (status != TN_OK)
            fprintf(stderr, "%s: %s\n", architecture, error.message);
        _exit(status != TN_OK);
    }
    return child > 0 && waitpid(child, &code, 0) == child && code == 0;
}

static int check(const subject *s, const char *path, uint64_t baseline)
{
    if (!write_model(s->architecture, path))
        return 1;
    measured m = in_a_process(s, path);
    double mb = 1e6, bound = 1.1 * (double)(m.planned + baseline);
    if (m.status != TN_OK)
        return 1;
    bool good = (double)m.resident <= bound;
    printf("%s, batch %lld, %s: resident %.1f MB, planned %.1f, libraries %.1f (heap %.1f)%s\n",
           s->architecture, (long long)s->batch, mode_names[s->mode], (double)m.resident / mb,
           (double)m.planned / mb, (double)baseline / mb, (double)m.heap / mb,
           good ? "" : ": MORE THAN 10 % ABOVE");
    return !good;
}

int main(int argc, char **argv)
{
#ifdef SANITIZED
    return 77; /* its shadow memory is resident too */
#endif
    static const subject tiny = {"resnet8", 16, INFERENCE}; /* 16 rows: oneDNN's sgemm too */
    static const subject subjects[] = {{"resnet20", 64, INFERENCE},
                                       {"resnet18", 4, INFERENCE},
                                       {"resnet18", 4, BF16},
                                       {"densenet121", 4, INFERENCE},
                                       {"resnet20", 64, TRAINING}};
    char folder[] = "/tmp/resident_test.XXXXXX", path[64];
    if (!mkdtemp(folder))
        return 1;
    snprintf(path, sizeof(path), "%s/model.onnx", folder);
    int failures = 0;
    measured m = {.status = TN_ERROR_IO};
    if (write_model(tiny.architecture, path))
        m = in_a_process(&tiny, path);
    failures = m.status != TN_OK;
    uint64_t baseline = m.resident - m.planned;
    if (argc > 3) {
        subject s = {argv[1], atoll(argv[2]), INFERENCE};
        while (s.mode < TRAINING && strcmp(argv[3], mode_names[s.mode]) != 0)
            s.mode++;
        failures += check(&s, path, baseline);
    } else {
        for (size_t i = 0; i < sizeof(subjects) / sizeof(subjects[0]) && !failures; i++)
            failures += check(&subjects[i], path, baseline);
    }
    unlink(path);
    rmdir(folder);
    return failures > 0;
}
