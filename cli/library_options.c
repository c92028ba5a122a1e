#include "cli/library_options.h"

tn_input_options cli_input_options(const cli_arguments *arguments)
{
    return (tn_input_options){.allow_symlinks = arguments->allow_symlinks};
}

tn_output_options cli_output_options(const cli_arguments *arguments, const char *recipe)
{
    return (tn_output_options){.replace = arguments->force,
                               .dry_run = arguments->dry_run,
                               .form = arguments->form,
                               .target = arguments->target_runtime,
                               .external = arguments->external_data,
                               .rest = arguments->rest,
                               .prune_dead = arguments->prune_dead,
                               .recipe = recipe};
}

tn_scheme_options cli_scheme_options(const cli_arguments *arguments)
{
    return (tn_scheme_options){.scheme = arguments->scheme,
                               .bits = arguments->bits,
                               .granularity = arguments->granularity,
                               .threshold = arguments->threshold,
                               .levels = arguments->levels,
                               .narrow = arguments->narrow,
                               .first_layer = arguments->first_layer,
                               .last_layer = arguments->last_layer,
                               .conv_bits = arguments->conv_bits,
                               .linear_bits = arguments->linear_bits,
                               .layer_rules = arguments->layer.items,
                               .n_layer_rules = arguments->layer.count,
                               .excluded = arguments->excluded.items,
                               .n_excluded = arguments->excluded.count};
}

tn_image_options cli_image_options(const cli_arguments *arguments)
{
    return (tn_image_options){.preprocess = arguments->preprocess,
                              .resize = arguments->resize,
                              .crop = arguments->crop,
                              .mean = arguments->mean,
                              .std = arguments->std,
                              .scale = arguments->scale,
                              .channel_order = arguments->channel_order,
                              .output = arguments->output,
                              .device = arguments->device,
                              .precision = arguments->precision,
                              .batch = arguments->batch_size,
                              .max_bad = arguments->max_bad,
                              .limit = arguments->limit,
                              .seed = (uint64_t)arguments->seed,
                              .no_preflight = arguments->no_preflight};
}

tn_status cli_require_output(cli_context *context)
{
    if (context->arguments->out && context->arguments->out[0])
        return TN_OK;
    return cli_fail(&context->error, TN_ERROR_USAGE, "give the file to write: -o FILE");
}
