#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "onnx_io/zoo/zoo.h"
#include "tests/finetune/seeded_network.h"

tn_model *seeded_network(const char *id, int64_t size)
{
    tn_model *model = NULL;
    tn_error error = {0};
    tn_zoo_options options = {.classes = 10, .input = {3, size, size}, .seed = 5};
    if (tn_zoo_create(id, &options, &model, &error) != TN_OK)
        print_message("%s: %s\n", id, error.message);
    assert_non_null(model);
    return model;
}
