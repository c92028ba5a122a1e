/* rewrite_tool IN OUT [replace] [external]: reads a model and writes it again; the exit code is the
 * status. For tests that interfere from outside. */
#include "onnx_io/model.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    tn_model *model = NULL;
    tn_error error = {0};
    tn_write_options options = {.replace = false};
    if (argc < 3)
        return 2;
    for (int i = 3; i < argc; i++) {
        options.replace |= strcmp(argv[i], "replace") == 0;
        if (strcmp(argv[i], "external") == 0)
            options.external = TN_EXTERNAL_ALWAYS;
    }
    tn_status status = tn_model_read(argv[1], NULL, &model, &error);
    if (status == TN_OK)
        status = tn_model_write(model, argv[2], &options, NULL, &error);
    if (status != TN_OK)
        fprintf(stderr, "%s\n", error.message);
    tn_model_destroy(model);
    return (int)status;
}
