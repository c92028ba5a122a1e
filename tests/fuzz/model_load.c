/* Fuzz target: bytes -> model -> graph -> written file -> model. Whatever is accepted must be
 * written and read again.
 *
 *     model_load -max_total_time=60 CORPUS-FOLDER */
#include "onnx_io/graph.h"
#include "onnx_io/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *output_path(void)
{
    static char path[64];
    if (!path[0])
        snprintf(path, sizeof path, "%s/ternion-fuzz-%ld.onnx",
                 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (long)getpid());
    return path;
}

/* Reads every constant of the graph, as the converter would. */
static void use(const tn_model *model)
{
    tn_graph *graph = NULL;
    tn_graph_options options = {.fold_limit = 1 << 24};
    if (tn_graph_create(model, &options, &graph, NULL) != TN_OK)
        return;
    float values[16];
    for (size_t i = 0; i < graph->n_values; i++) {
        const tn_tensor *constant = graph->values[i]->constant;
        int64_t count = constant ? tn_tensor_count(constant) : 0;
        for (int64_t at = 0; at < count; at += 16)
            if (tn_tensor_read_float(constant, at, count - at < 16 ? count - at : 16, values,
                                     NULL) != TN_OK)
                break;
    }
    tn_graph_destroy(graph);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tn_model *model = NULL, *back = NULL;
    tn_error error = {0};
    if (tn_model_read_bytes(data, size, NULL, &model, &error) != TN_OK)
        return 0;
    use(model);
    if (size < 100000 && data[size / 2] % 8 == 0) { /* writing is slow */
        tn_write_options options = {.replace = true};
        if (tn_model_write(model, output_path(), &options, NULL, &error) != TN_OK ||
            tn_model_read(output_path(), NULL, &back, &error) != TN_OK) {
            fprintf(stderr, "%s\n", error.message);
            abort();
        }
        unlink(output_path());
    }
    tn_model_destroy(back);
    tn_model_destroy(model);
    if (tn_memory_stats_get().live != 0)
        abort();
    return 0;
}
