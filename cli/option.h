/* Options as data: one row makes parsing, checking, help, man page, completion and recipes. */
#ifndef TERNION_CLI_OPTION_H
#define TERNION_CLI_OPTION_H

#include "api/ternion.h"

typedef enum cli_kind {              /* type of the member of cli_arguments at `offset` */
                        CLI_FLAG,    /* bool */
                        CLI_TEXT,    /* const char * */
                        CLI_LIST,    /* cli_list: may be given again */
                        CLI_INTEGER, /* int64_t */
                        CLI_REAL,    /* double */
                        CLI_BYTES,   /* uint64_t; suffixes K, M, G are powers of 1,024 */
                        CLI_SHAPE    /* int64_t[3], "CxHxW" */
} cli_kind;

typedef struct cli_option {
    const char *name; /* without dashes */
    char letter;      /* 0: none */
    cli_kind kind;
    const char *argument; /* "FILE"; NULL for flags */
    const char *choices;  /* "a|b|c": nothing else is accepted; "FILE": a path */
    int64_t low, high;    /* CLI_INTEGER: accepted range, unless both are 0 */
    const char *standard; /* the default as help shows it; NULL: none worth a word */
    const char *help;
    size_t offset; /* into cli_arguments */
} cli_option;

typedef struct cli_group {
    const char *title;
    const cli_option *options; /* ends with name == NULL */
    bool in_recipe;            /* the group's options may stand in a recipe */
} cli_group;

typedef struct cli_list {
    const char **items;
    size_t count;
} cli_list;

/* Every option of every command: a command's groups say which it takes. */
typedef struct cli_arguments {
    cli_list operands;
    cli_list given, given_text; /* names and texts of the options that were set, in order */
    /* everywhere */
    bool help, version, quiet, verbose, json, no_progress, force, dry_run;
    const char *color;
    int64_t threads, seed;
    uint64_t max_memory;
    /* reading and writing */
    const char *out, *form, *target_runtime, *external_data, *rest, *recipe;
    bool prune_dead, allow_symlinks;
    /* scheme */
    const char *scheme, *bits, *granularity, *threshold, *levels;
    const char *first_layer, *last_layer, *conv_bits, *linear_bits;
    bool narrow;
    cli_list layer, excluded;
    /* single commands */
    bool tensors, man;
    const char *against, *completion;
    int64_t classes, input[3], show, layer_images, train_images, test_images;
    double fail_if_drop;
    bool catalog;
    /* images */
    const char *data, *preprocess, *resize, *crop, *mean, *std, *scale, *channel_order;
    const char *output, *device, *precision, *predictions, *topk;
    int64_t batch_size, max_bad, limit;
    bool no_preflight, deterministic;
    const char *calibration_data, *save_synthesized, *method, *bn;
    const char *activation_range, *activation_scheme, *latent;
    int64_t activation_bits, input_bits;
    const char *bias_bits;
    const char *equalize;
    int64_t calibration_samples;
    uint64_t target_size;
    double target_drop;
    bool sensitivity;
    /* finetune */
    const char *val, *checkpoint, *save_every, *optimizer, *schedule, *distill, *augment;
    const char *batch_norm, *report;
    int64_t epochs, accumulate, early_stop;
    double lr, momentum, weight_decay, final_lr, warmup_epochs, scale_lr, clip_norm;
    double label_smoothing, ema, temperature, distill_weight;
    bool resume, restore_bn, sparsity_ramp, no_calibration;
    cli_list freeze;
} cli_arguments;

/* True when the option takes only one of its choices ("FILE" and "DIR" are no list). */
bool cli_option_is_choice(const cli_option *option);

/* Sets one option from text (NULL for flags). `where` names it in messages ("--bits", "recipe.yaml:
 * bits"). USAGE when the text does not fit. Keeps `text`, which must outlive `arguments`. */
tn_status cli_option_set(const cli_option *option, const char *where, const char *text,
                         cli_arguments *arguments, tn_error *error);

/* True when the option was set, by the command line or a recipe. */
bool cli_is_given(const cli_arguments *arguments, const char *name);

/* True when both name one option: '_' stands for '-'. */
bool cli_option_names_equal(const char *a, const char *b);

/* tn_error_set for a place that is not the library's. Gives `code`. */
tn_status cli_fail(tn_error *error, tn_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Zeroed, freed when the program ends; ends it with exit code 7 when out of memory. */
void *cli_alloc(size_t bytes);
void cli_list_add(cli_list *list, const char *item);
bool cli_list_has(const cli_list *list, const char *item);

/* The word of `words` nearest to `word`, near enough to be a slip; NULL when none is. */
const char *cli_suggestion(const char *word, const char *const *words, size_t count);

#endif
