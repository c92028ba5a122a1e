/* graph_dump MODEL [BATCH]: every value with its type, shape and, when it is known and small, its
 * elements, one line each, tab-separated: the C side of oracle.py. */
#include "onnx_io/infer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST = 1 << 16 }; /* elements of a value that is printed */

static void print_elements(const tn_tensor *tensor)
{
    int64_t count = tn_tensor_count(tensor);
    printf("\t");
    for (int64_t i = 0; i < count; i++) {
        double value;
        int64_t integer;
        tn_error error = {0};
        if (tn_dtype_is_float(tensor->dtype)) {
            if (tn_tensor_read_double(tensor, i, 1, &value, &error) == TN_OK)
                printf("%s%.17g", i ? " " : "", value);
        } else if (tn_tensor_read_int64(tensor, i, 1, &integer, &error) == TN_OK) {
            printf("%s%" PRId64, i ? " " : "", integer);
        }
    }
}

static void print_value(const tn_value *value)
{
    printf("%s\t%d\t", value->name, (int)value->dtype);
    if (value->rank < 0)
        printf("?");
    for (int i = 0; i < value->rank; i++)
        printf("%s%" PRId64, i ? " " : "", value->dims[i]);
    if (value->constant && tn_tensor_count(value->constant) <= LARGEST)
        print_elements(value->constant);
    printf("\n");
}

int main(int argc, char **argv)
{
    tn_model *model = NULL;
    tn_graph *graph = NULL;
    tn_error error = {0};
    tn_graph_options options = {.batch = argc > 2 ? atoll(argv[2]) : 0};
    if (argc < 2)
        return 2;
    tn_status status = tn_model_read(argv[1], NULL, &model, &error);
    if (status == TN_OK)
        status = tn_graph_create(model, &options, &graph, &error);
    if (status != TN_OK)
        printf("error\t%d\t%s\n", (int)status, error.message);
    for (size_t i = 0; graph && i < graph->n_values; i++)
        if (graph->values[i]->producer)
            print_value(graph->values[i]);
    if (graph)
        printf("flops\t%" PRId64 "\n", tn_graph_flops(graph));
    tn_graph_destroy(graph);
    tn_model_destroy(model);
    return 0;
}
