/* opset_tool MODEL OUT TARGET: raises the opset and writes the result. opset_tool --steps: the
 * operators that change and when. The C side of raise_opset.py. */
#include "onnx_io/opset.h"
#include "onnx_io/opset_steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int print_steps(void)
{
    const tn_opset_step *step;
    for (size_t i = 0; (step = tn_opset_step_at(i)) != NULL; i++)
        printf("%s %d\n", step->type, step->opset);
    return 0;
}

int main(int argc, char **argv)
{
    tn_model *model = NULL;
    tn_error error = {0};
    const tn_write_options options = {.replace = true};
    if (argc == 2 && strcmp(argv[1], "--steps") == 0)
        return print_steps();
    if (argc != 4)
        return 2;
    tn_status status = tn_model_read(argv[1], NULL, &model, &error);
    if (status == TN_OK)
        status = tn_opset_raise(model, atoll(argv[3]), &error);
    if (status == TN_OK)
        status = tn_model_write(model, argv[2], &options, NULL, &error);
    if (status != TN_OK)
        printf("%s\n", error.message);
    tn_model_destroy(model);
    return (int)status;
}
