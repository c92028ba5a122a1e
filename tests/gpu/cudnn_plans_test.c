/* cuDNN has plans for every convolution of the networks of the zoo on an H200 and an A100, without
 * a GPU, in three precisions, for all passes, within the workspace. cudnn_plans_test [NETWORK...]
 * (all). 77 without cuDNN. */
#include "gpu/cudnn_plan.h"
#include "gpu/profiles.h"
#include "network/lowering.h"
#include "onnx_io/ops/op.h"
#include "onnx_io/zoo/zoo.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 1024 };

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

int main(int argc, char **argv)
{
    static const struct {
        const char *name, *profile;
    } gpus[] = {{"H200", TN_PROFILE_H200}, {"A100", TN_PROFILE_A100}};
    static const tn_precision precisions[] = {TN_PRECISION_FP32, TN_PRECISION_TF32,
                                              TN_PRECISION_BF16};
    tn_error error = {0};
    int missing = 0;
    for (int g = 0; g < 2; g++) {
        tn_cudnn *cudnn;
        if (tn_cudnn_open(gpus[g].profile, &cudnn, &error) != TN_OK) {
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
    return missing > 0 || count == 0;
}
