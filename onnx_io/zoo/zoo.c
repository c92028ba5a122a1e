#include "onnx_io/zoo/families.h"

#include <stdio.h>
#include <string.h>

static const tn_architecture *const architectures[] = {
    &tn_alexnet,    &tn_vgg16,         &tn_vgg16_bn,  &tn_resnet18,    &tn_resnet18b,
    &tn_resnet34,   &tn_resnet50,      &tn_resnet8,   &tn_resnet20,    &tn_resnet32,
    &tn_resnet44,   &tn_resnet56,      &tn_resnet110, &tn_densenet121, &tn_densenet_small,
    &tn_squeezenet, &tn_squeezenet_bn,
};

enum { MAX_SIDE = 1 << 15, MAX_CLASSES = 1 << 24, OPSET = 13, IR_VERSION = 7 };

const tn_architecture *tn_architecture_at(size_t i)
{
    return i < sizeof architectures / sizeof architectures[0] ? architectures[i] : NULL;
}

const tn_architecture *tn_architecture_find(const char *id)
{
    const tn_architecture *architecture;
    for (size_t i = 0; (architecture = tn_architecture_at(i)); i++)
        if (strcmp(architecture->id, id) == 0)
            return architecture;
    return NULL;
}

static tn_status fail_unknown(const char *id, tn_error *error)
{
    char list[512] = "";
    size_t used = 0;
    const tn_architecture *architecture;
    for (size_t i = 0; (architecture = tn_architecture_at(i)) && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "",
                                 architecture->id);
    return tn_fail(error, TN_ERROR_USAGE, "unknown architecture %s; known are %s", tn_quote(id),
                   list);
}

static tn_status resolve(const tn_architecture *architecture, const tn_zoo_options *given,
                         tn_zoo_options *options, tn_error *error)
{
    if (given)
        *options = *given;
    if (options->classes == 0)
        options->classes = architecture->classes;
    if (options->input[0] == 0)
        memcpy(options->input, architecture->input, sizeof options->input);
    if (options->classes < 1 || options->classes > MAX_CLASSES)
        return tn_fail(error, TN_ERROR_USAGE, "%lld classes: expected 1 to %d",
                       (long long)options->classes, MAX_CLASSES);
    for (int i = 0; i < 3; i++)
        if (options->input[i] < 1 || options->input[i] > MAX_SIDE)
            return tn_fail(error, TN_ERROR_USAGE, "input %lldx%lldx%lld: each expected 1 to %d",
                           (long long)options->input[0], (long long)options->input[1],
                           (long long)options->input[2], MAX_SIDE);
    return TN_OK;
}

tn_status tn_zoo_create(const char *id, const tn_zoo_options *given, tn_model **model,
                        tn_error *error)
{
    const tn_architecture *architecture = tn_architecture_find(id);
    tn_zoo_builder b = {.error = error};
    if (!architecture)
        return fail_unknown(id, error);
    b.status = resolve(architecture, given, &b.options, error);
    if (b.status == TN_OK)
        b.status = tn_model_create(id, IR_VERSION, OPSET, &b.model, error);
    if (b.status != TN_OK)
        return b.status;
    architecture->build(&b, architecture->plan);
    if (b.status == TN_OK) {
        char note[256];
        snprintf(
            note, sizeof note,
            "{\"architecture\":\"%s\",\"classes\":%lld,\"input\":[%lld,%lld,%lld],\"seed\":%llu}",
            id, (long long)b.options.classes, (long long)b.options.input[0],
            (long long)b.options.input[1], (long long)b.options.input[2],
            (unsigned long long)b.options.seed);
        b.status = tn_edit_set_metadata(b.model, "ternion.create", note, error);
    }
    if (b.status != TN_OK)
        tn_model_destroy(b.model);
    else
        *model = b.model;
    return b.status;
}
