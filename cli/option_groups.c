/* The options that several commands share. */
#include "cli/command.h"

#define AT(member) offsetof(cli_arguments, member)

static const cli_option general[] = {
    {"help", 'h', CLI_FLAG, NULL, NULL, 0, 0, NULL, "show this page", AT(help)},
    {"quiet", 'q', CLI_FLAG, NULL, NULL, 0, 0, NULL, "warnings and errors only", AT(quiet)},
    {"verbose", 'v', CLI_FLAG, NULL, NULL, 0, 0, NULL, "say what is done and why", AT(verbose)},
    {"json", 0, CLI_FLAG, NULL, NULL, 0, 0, NULL,
     "results as JSON on standard output; finetune: a line for each event, the results last",
     AT(json)},
    {"color", 0, CLI_TEXT, "WHEN", "auto|always|never", 0, 0, "auto",
     "colours in messages; NO_COLOR is honoured", AT(color)},
    {"no-progress", 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, "no progress bar or lines",
     AT(no_progress)},
    {"threads", 0, CLI_INTEGER, "N", NULL, 0, 4096, "0",
     "threads; 0 takes all processors. Results do not depend on it", AT(threads)},
    {"seed", 0, CLI_INTEGER, "N", NULL, 0, INT64_MAX, "0", "seed of everything random", AT(seed)},
    {"max-memory", 0, CLI_BYTES, "BYTES", NULL, 0, 0, "no limit",
     "fail rather than hold more, e.g. 500M", AT(max_memory)},
    {"force", 'f', CLI_FLAG, NULL, NULL, 0, 0, NULL, "overwrite an existing file (never the input)",
     AT(force)},
    {"dry-run", 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, "do everything, write nothing", AT(dry_run)},
    {"version", 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, "print the version", AT(version)},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};

static const cli_option reading[] = {{"allow-symlinks", 0, CLI_FLAG, NULL, NULL, 0, 0, NULL,
                                      "follow symbolic links to external data", AT(allow_symlinks)},
                                     {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};

static const cli_option writing[] = {
    {"out", 'o', CLI_TEXT, "FILE", "FILE", 0, 0, NULL, "the file to write (required)", AT(out)},
    {"external-data", 0, CLI_TEXT, "WHEN", "auto|always|never", 0, 0, "auto",
     "tensors in a file of their own; auto: above 1.8 GB", AT(external_data)},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};

static const cli_option scheme[] = {
    {"scheme", 's', CLI_TEXT, "NAME", NULL, 0, 0, "twn; finetune: lsq",
     "how weights are quantized; see `ternion help --catalog`", AT(scheme)},
    {"bits", 'b', CLI_TEXT, "N", "1|1.58|2|3|4|5|6|7|8|16", 0, 0, "the scheme's",
     "bits of a weight; 1.58 is ternary, 2 is four levels; 1 for dorefa alone", AT(bits)},
    {"granularity", 'g', CLI_TEXT, "G", NULL, 0, 0, "channel",
     "one scale per tensor, channel, or group:N weights of a channel", AT(granularity)},
    {"threshold", 't', CLI_TEXT, "T", NULL, 0, 0, "optimal",
     "of ternary weights: optimal, mean:0.7, max:0.05, sparsity:0.5", AT(threshold)},
    {"levels", 0, CLI_TEXT, "A:B", NULL, 0, 0, "from --bits", "range of the integer codes",
     AT(levels)},
    {"narrow", 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, "drop the lowest code: a symmetric range",
     AT(narrow)},
    {"first-layer", 0, CLI_TEXT, "keep|N", "keep|1.58|2|3|4|5|6|7|8|16", 0, 0, "keep",
     "keep the first layer as it is, or quantize it to N bits", AT(first_layer)},
    {"last-layer", 0, CLI_TEXT, "keep|N", "keep|1.58|2|3|4|5|6|7|8|16", 0, 0, "keep",
     "the same for the last layer", AT(last_layer)},
    {"conv-bits", 0, CLI_TEXT, "N", "keep|1.58|2|3|4|5|6|7|8|16", 0, 0, "--bits",
     "bits of convolutions", AT(conv_bits)},
    {"linear-bits", 0, CLI_TEXT, "N", "keep|1.58|2|3|4|5|6|7|8|16", 0, 0, "--bits",
     "bits of Gemm and MatMul", AT(linear_bits)},
    {"layer", 'l', CLI_LIST, "REGEX=WHAT", NULL, 0, 0, NULL,
     "layers in whose node or weight name REGEX matches, anywhere unless ^ and $ hold it: bits, a "
     "scheme, scheme:bits, or keep; the last match wins",
     AT(layer)},
    {"nodes-to-exclude", 'x', CLI_LIST, "REGEX", NULL, 0, 0, NULL,
     "layers to keep as they are, by names as in --layer", AT(excluded)},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};

static const cli_option form[] = {
    {"form", 0, CLI_TEXT, "FORM", NULL, 0, 0, "lut",
     "encoding of the packed weights; see `ternion help --catalog`", AT(form)},
    {"target-runtime", 0, CLI_TEXT, "ort-1.10", NULL, 0, 0, NULL,
     "the oldest runtime that must load the file: picks form, opset and IR", AT(target_runtime)},
    {"prune-dead", 0, CLI_FLAG, NULL, NULL, 0, 0, NULL,
     "also drop what is unused or says nothing: plumbing, notes, defaults, long names of values",
     AT(prune_dead)},
    {"rest", 0, CLI_TEXT, "float16", "float16", 0, 0, NULL,
     "store what is not quantized as FLOAT16 too", AT(rest)},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};

static const cli_option images[] = {
    {"preprocess", 0, CLI_TEXT, "PRESET", NULL, 0, 0, "the model's record, or by the data",
     "imagenet, cifar10, tiny-imagenet or none", AT(preprocess)},
    {"resize", 0, CLI_TEXT, "N", NULL, 0, 0, NULL, "the shorter side becomes N", AT(resize)},
    {"crop", 0, CLI_TEXT, "N|WxH", NULL, 0, 0, NULL, "centre crop", AT(crop)},
    {"mean", 0, CLI_TEXT, "R,G,B", NULL, 0, 0, NULL, "subtracted; in 0..1, or in 0..255", AT(mean)},
    {"std", 0, CLI_TEXT, "R,G,B", NULL, 0, 0, NULL, "divided by", AT(std)},
    {"scale", 0, CLI_TEXT, "1|1/255", "1|1/255", 0, 0, "1/255", "factor on the pixels", AT(scale)},
    {"channel-order", 0, CLI_TEXT, "ORDER", "rgb|bgr", 0, 0, "rgb",
     "order of the channels the network expects", AT(channel_order)},
    {"output", 0, CLI_TEXT, "NAME", NULL, 0, 0, "the first", "the graph output to use, of several",
     AT(output)},
    {"device", 0, CLI_TEXT, "DEVICE", NULL, 0, 0, "auto", "auto, cpu or cuda[:K]", AT(device)},
    {"precision", 0, CLI_TEXT, "P", "auto|fp32|tf32|bf16", 0, 0, "auto", "of the arithmetic",
     AT(precision)},
    {"batch-size", 0, CLI_INTEGER, "N", NULL, 1, 1 << 20, "chosen", "images at a time",
     AT(batch_size)},
    {"max-bad", 0, CLI_INTEGER, "N", NULL, 0, INT64_MAX, "0",
     "corrupt images to leave out rather than fail", AT(max_bad)},
    {"no-preflight", 0, CLI_FLAG, NULL, NULL, 0, 0, NULL,
     "do not look first whether the preprocessing fits", AT(no_preflight)},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};

static const cli_option calibration[] = {
    {"calibration-data", 0, CLI_TEXT, "DATA|synthesize", "FILE", 0, 0, NULL,
     "choose codes and scales by what some hundred images give, labels unread; synthesize: by "
     "images made to fit the network's BatchNormalization",
     AT(calibration_data)},
    {"save-synthesized", 0, CLI_TEXT, "FILE.npy", "FILE", 0, 0, NULL,
     "keep the images that were synthesized, as a data set for --calibration-data",
     AT(save_synthesized)},
    {"calibration-samples", 0, CLI_INTEGER, "N", NULL, 1, 10000000, "256",
     "images, drawn by the seed", AT(calibration_samples)},
    {"target-size", 0, CLI_BYTES, "BYTES", NULL, 0, 0, NULL,
     "choose bits per layer so that the file has at most so many bytes, e.g. 120K",
     AT(target_size)},
    {"target-drop", 0, CLI_REAL, "POINTS", NULL, 0, 0, NULL,
     "choose bits per layer so that at most so many points of top-1 are lost, as estimated on "
     "images of --calibration-data: those the network was not trained on tell more",
     AT(target_drop)},
    {"sensitivity", 0, CLI_FLAG, NULL, NULL, 0, 0, NULL,
     "print what each width of each layer costs; without a target nothing is written",
     AT(sensitivity)},
    {"val", 0, CLI_TEXT, "DATA", "FILE", 0, 0, NULL,
     "measure the accuracy of input and output on labelled images", AT(val)},
    {"method", 0, CLI_TEXT, "METHOD", "auto|round|cd|gptq|adaround", 0, 0, "auto",
     "how codes are chosen", AT(method)},
    {"bn", 0, CLI_TEXT, "WHAT", "auto|keep|reestimate|control|affine", 0, 0, "auto",
     "what happens to BatchNormalization; auto: the best on images held out", AT(bn)},
    {"bias-bits", 0, CLI_TEXT, "N", "2|3|4|5|6|7|8|16", 0, 0, "as they are",
     "bits of the quantized layers' biases, min to max; needs no images", AT(bias_bits)},
    {"equalize", 0, CLI_TEXT, "WHEN", "auto|never|always", 0, 0, "never",
     "bring the channels of convolutions to one range before, in weights and "
     "BatchNormalization, the network's function unchanged; "
     "auto: where a weight has one scale per tensor; always: inputs of all others too",
     AT(equalize)},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};

static const cli_option activations[] = {
    {"activation-bits", 0, CLI_INTEGER, "N", NULL, 2, 16, "as they are",
     "bits of what quantized layers read: QuantizeLinear and DequantizeLinear in front of them; "
     "needs images. More than 8 need opset 21",
     AT(activation_bits)},
    {"activation-range", 0, CLI_TEXT, "HOW", "minmax|percentile|entropy|mse", 0, 0, "mse",
     "which range of an activation its codes cover: all that was seen, all but 0.005 % at each "
     "end, least KL, least squared error",
     AT(activation_range)},
    {"input-bits", 0, CLI_INTEGER, "N", NULL, 2, 16, "as it is",
     "the same for the network's input, its range min to max", AT(input_bits)},
    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};

static const cli_option recipe[] = {{"recipe", 0, CLI_TEXT, "FILE", "FILE", 0, 0, NULL,
                                     "options from a YAML file; the command line wins", AT(recipe)},
                                    {NULL, 0, CLI_FLAG, NULL, NULL, 0, 0, NULL, NULL, 0}};

const cli_group cli_general = {"Everywhere", general, false};
const cli_group cli_reading = {"Reading", reading, false};
const cli_group cli_writing = {"Writing", writing, false};
const cli_group cli_scheme = {"Scheme", scheme, true};
const cli_group cli_form = {"Form", form, true};
const cli_group cli_from_recipe = {"Recipe", recipe, false};
const cli_group cli_images = {"Images", images, true};
const cli_group cli_calibration = {"Calibration", calibration, true};
const cli_group cli_activations = {"Activations", activations, true};
