/* cuDNN has plans for every convolution of the networks of the zoo on an H200 and an A100, without
 * a GPU, in three precisions, for all passes, within the workspace; what was chosen is found again
 * by a later start, unless the file is damaged, another GPU's, or not wanted. cudnn_plans_test
 * [NETWORK...] (all). 77 without cuDNN. */
#include "core/file.h"
#include "core/memory.h"
#include "gpu/cudnn_plan.h"
#include "gpu/plan_cache.h"
#include "gpu/profiles.h"
#include "network/lowering.h"
#include "onnx_io/ops/op.h"
#include "onnx_io/zoo/zoo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 1024 };
static const tn_precision precisions[] = {TN_PRECISION_FP32, TN_PRECISION_TF32, TN_PRECISION_BF16};

static tn_conv_task tasks[MOST];
static int count;

static void add(const tn_conv_task *task)
{
    for (int i = 0; i < count; i++)
        if (memcmp(&tasks[i], task, sizeof(*task)) == 0)
            return;
    if (count == MOST)
        exit(1);
    memcpy(&tasks[count++], task, sizeof(*task));
}

/* The convolutions of one network, at a batch for training. */
static tn_status collect(const tn_architecture *architecture, tn_error *error)
{
    const tn_zoo_options zoo = {.seed = 1};
    const tn_graph_options options = {.batch = architecture->input[1] > 64 ? 64 : 128};
    tn_model *model = NULL;
    tn_graph *graph = NULL;
    tn_status status = tn_zoo_create(architecture->id, &zoo, &model, error);
    if (status == TN_OK)
        status = tn_graph_create(model, &options, &graph, error);
    for (size_t i = 0; status == TN_OK && i < graph->n_nodes; i++) {
        const tn_node *node = graph->nodes[i];
        tn_window window;
        tn_conv_task task;
        if (strcmp(node->type, "Conv") != 0)
            continue;
        status = tn_window_parse(node, &window, error);
        memset(&task, 0, sizeof(task)); /* compared as bytes */
        task.spatial = window.spatial;
        task.group = window.group;
        task.batch = node->inputs[0]->dims[0];
        task.in_channels = node->inputs[0]->dims[1];
        task.out_channels = node->outputs[0]->dims[1];
        for (int k = 0; k < window.spatial; k++) {
            task.in[k] = node->inputs[0]->dims[2 + k];
            task.out[k] = node->outputs[0]->dims[2 + k];
            task.kernel[k] = window.kernel[k];
            task.stride[k] = window.stride[k];
            task.dilation[k] = window.dilation[k];
            task.pad_begin[k] = window.pad_begin[k];
            task.pad_end[k] = window.pad_end[k];
        }
        add(&task);
    }
    tn_graph_destroy(graph);
    tn_model_destroy(model);
    return status;
}

/* All passes of one convolution; prints what has no plan. */
static int plan_all(tn_cudnn *cudnn, const tn_conv_task *task, tn_precision precision,
                    size_t *largest)
{
    int missing = 0;
    for (int pass = 0; pass < TN_N_CONV_PASSES; pass++) {
        tn_error error = {0};
        tn_gpu_convolution *plan;
        if (tn_cudnn_plan(cudnn, task, (tn_conv_pass)pass, precision, TN_CONVOLUTION_WORKSPACE,
                          &plan, &error) != TN_OK) {
            printf("  %s\n", error.message);
            missing++;
            continue;
        }
        size_t bytes = tn_cudnn_plan_workspace(plan);
        *largest = bytes > *largest ? bytes : *largest;
        missing += bytes > TN_CONVOLUTION_WORKSPACE;
        tn_cudnn_plan_destroy(plan);
    }
    return missing;
}

/* --- choices kept between runs ------------------------------------------------------------------
 */

static int bad;

static void check(bool ok, const char *what)
{
    if (!ok)
        printf("cache: %s: FAILED\n", what);
    bad += !ok;
}

typedef struct start { /* one start of the program */
    int64_t engines[3 * TN_N_CONV_PASSES * MOST];
    size_t workspaces[3 * TN_N_CONV_PASSES * MOST];
    size_t plans, from_cache;
    double seconds; /* of the processor */
} start;

static void plan_with(const char *gpu, start *s)
{
    tn_error error = {0};
    tn_cudnn *cudnn;
    clock_t began = clock();
    s->plans = s->from_cache = 0;
    if (tn_cudnn_open(TN_PROFILE_H200, gpu, &cudnn, &error) != TN_OK) {
        check(false, error.message);
        return;
    }
    for (int i = 0; i < 3 * TN_N_CONV_PASSES * count; i++) {
        tn_gpu_convolution *plan;
        if (tn_cudnn_plan(cudnn, &tasks[i / (3 * TN_N_CONV_PASSES)],
                          (tn_conv_pass)(i % TN_N_CONV_PASSES),
                          precisions[i / TN_N_CONV_PASSES % 3], TN_CONVOLUTION_WORKSPACE, &plan,
                          &error) != TN_OK)
            continue;
        s->engines[s->plans] = tn_cudnn_plan_engine(plan);
        s->workspaces[s->plans++] = tn_cudnn_plan_workspace(plan);
        tn_cudnn_plan_destroy(plan);
    }
    s->from_cache = tn_cudnn_from_cache(cudnn);
    tn_cudnn_close(cudnn);
    s->seconds = (double)(clock() - began) / CLOCKS_PER_SEC;
}

static bool same(const start *a, const start *b)
{
    return a->plans > 0 && a->plans == b->plans &&
           !memcmp(a->engines, b->engines, a->plans * sizeof(*a->engines)) &&
           !memcmp(a->workspaces, b->workspaces, a->plans * sizeof(*a->workspaces));
}

static void write_bytes(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    check(file && fwrite(data, 1, size, file) == size, "the test cannot write its file");
    if (file)
        fclose(file);
}

/* A changed, a shorter, an empty and a foreign file: each is as good as none, and replaced. */
static void damage(const char *path, const start *first, start *again)
{
    unsigned char *data = NULL;
    size_t size = 0;
    if (tn_file_read(path, 1 << 24, &data, &size, NULL) != TN_OK || size < 100) {
        check(false, "the file is not there");
        return;
    }
    for (int i = 0; i < 5; i++) {
        unsigned char *changed = tn_alloc_array(size + 1, 1);
        size_t length = i == 1 ? size / 2 : i == 2 ? 0 : size;
        if (!changed)
            exit(1);
        memcpy(changed, data, size);
        if (i == 0)
            changed[size / 2] ^= 1;
        if (i == 3)
            memset(changed, 0, size);
        if (i == 4)
            memcpy(changed + size - 18, "0000000000000000", 16);
        write_bytes(path, changed, length);
        plan_with("a GPU", again);
        check(again->from_cache == 0 && same(first, again), "a damaged file was believed");
        plan_with("a GPU", again);
        check(again->from_cache == again->plans && same(first, again),
              "a damaged file was not replaced");
        tn_free(changed);
    }
    tn_free(data);
}

/* A file whose choices nothing can be made of. */
static void replace_choices(const start *first, start *again)
{
    const tn_plan_choice wrong = {.engine = 1 << 20, .knobs = 1, .type = {1}, .value = {1 << 20}};
    tn_cudnn *cudnn;
    if (tn_cudnn_open(TN_PROFILE_H200, NULL, &cudnn, NULL) != TN_OK)
        return;
    tn_plan_cache *cache = tn_plan_cache_open("a GPU", tn_cudnn_version(cudnn));
    const size_t entries = tn_plan_cache_count(cache);
    check(entries == first->plans, "entries and plans differ in number");
    unsigned char *data = NULL;
    size_t size = 0;
    if (tn_file_read(tn_plan_cache_path(cache), 1 << 24, &data, &size, NULL) == TN_OK)
        for (char *line = strtok((char *)data, "\n"); line; line = strtok(NULL, "\n")) {
            char *value = strchr(line, '=');
            if (!value)
                continue;
            *value = '\0';
            tn_plan_cache_keep(cache, line, &wrong);
        }
    check(tn_plan_cache_count(cache) == entries, "keys are not read as they are written");
    tn_plan_cache_close(cache);
    tn_free(data);
    tn_cudnn_close(cudnn);
    plan_with("a GPU", again);
    check(again->from_cache == 0 && same(first, again), "impossible choices were believed");
}

static void check_cache(void)
{
    static start first, again;
    char folder[] = "/tmp/ternion-plans-XXXXXX", path[700] = "";
    if (!mkdtemp(folder) || setenv("XDG_CACHE_HOME", folder, 1) != 0)
        exit(1);
    plan_with("a GPU", &first);
    double ranked = first.seconds;
    check(first.from_cache == 0, "choices out of nowhere");
    plan_with("a GPU", &again);
    check(again.from_cache == first.plans && same(&first, &again), "choices were not found again");
    printf("cache: %zu plans ranked in %.0f ms of the processor, found again in %.0f ms\n",
           first.plans, 1e3 * ranked, 1e3 * again.seconds);
    tn_plan_cache *cache = tn_plan_cache_open("a GPU", 0);
    check(cache && tn_plan_cache_count(cache) == 0, "another version's choices were taken");
    tn_plan_cache_close(cache);
    plan_with("another GPU", &again);
    check(again.from_cache == 0, "another GPU's choices were taken");
    tn_cudnn *cudnn;
    if (tn_cudnn_open(TN_PROFILE_H200, NULL, &cudnn, NULL) == TN_OK) {
        cache = tn_plan_cache_open("a GPU", tn_cudnn_version(cudnn));
        snprintf(path, sizeof(path), "%s", tn_plan_cache_path(cache));
        tn_plan_cache_close(cache);
        tn_cudnn_close(cudnn);
    }
    damage(path, &first, &again);
    replace_choices(&first, &again);
    setenv("TERNION_CUDNN_CACHE", "off", 1);
    plan_with("a GPU", &again);
    check(again.from_cache == 0 && same(&first, &again), "off is not off");
    unsetenv("TERNION_CUDNN_CACHE");
    setenv("XDG_CACHE_HOME", "/proc/none", 1); /* where nothing can be written */
    plan_with("a GPU", &again);
    check(again.from_cache == 0 && same(&first, &again), "without a folder there are no plans");
    snprintf(path, sizeof(path), "rm -rf %s", folder);
    check(system(path) == 0, "the test's folder stays");
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name, *profile;
    } gpus[] = {{"H200", TN_PROFILE_H200}, {"A100", TN_PROFILE_A100}};
    tn_error error = {0};
    int missing = 0;
    for (int g = 0; g < 2; g++) {
        tn_cudnn *cudnn;
        if (tn_cudnn_open(gpus[g].profile, NULL, &cudnn, &error) != TN_OK) {
            printf("skipped: %s\n", error.message);
            return 77;
        }
        for (size_t i = 0; g == 0 && tn_architecture_at(i); i++) {
            bool wanted = argc == 1;
            for (int a = 1; a < argc; a++)
                wanted = wanted || strcmp(argv[a], tn_architecture_at(i)->id) == 0;
            if (wanted && collect(tn_architecture_at(i), &error) != TN_OK) {
                printf("FAILED: %s\n", error.message);
                return 1;
            }
        }
        for (int p = 0; p < 3; p++) {
            size_t largest = 0;
            int without = 0;
            for (int i = 0; i < count; i++)
                without += plan_all(cudnn, &tasks[i], precisions[p], &largest);
            printf("%s %s: %d convolutions, %d passes without a plan, workspace at most %zu MB\n",
                   gpus[g].name, tn_precision_name(precisions[p]), count, without, largest >> 20);
            missing += without;
        }
        tn_cudnn_close(cudnn);
    }
    if (count > 0)
        check_cache();
    return missing > 0 || count == 0 || bad > 0;
}
