/* ternion: trained ONNX image networks with ternary and n-bit weights. The library's only public
 * header.
 *
 * Every function that can fail returns a tn_status and fills a caller-owned tn_error (NULL is
 * allowed). Option structs initialized with zeros mean the defaults. Results are allocated by the
 * library, stay valid until their _free function, and are untouched on failure; strings inside them
 * belong to them. Paths and names are UTF-8. The library never prints, and never exits. */
#ifndef TERNION_H
#define TERNION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TERNION_API __attribute__((visibility("default")))

#ifndef TERNION_STATUS_DEFINED
#define TERNION_STATUS_DEFINED
typedef enum tn_status {
    TN_OK = 0,
    TN_ERROR_DIFFERS = 1,  /* a comparison or verification failed */
    TN_ERROR_USAGE = 2,    /* the caller asked for something impossible */
    TN_ERROR_MODEL = 3,    /* the model is broken or not supported */
    TN_ERROR_DATA = 4,     /* the data set is broken or does not fit the model */
    TN_ERROR_DIVERGED = 5, /* training diverged */
    TN_ERROR_IO = 6,       /* reading or writing failed */
    TN_ERROR_LIMIT = 7,    /* out of memory, or a limit was reached */
    TN_ERROR_DEVICE = 8,   /* a device is missing or failed */
    TN_ERROR_CANCELLED = 9 /* the caller's cancel callback said stop */
} tn_status;

typedef struct tn_error {
    tn_status code;
    char message[1536]; /* what, where, expected, got, what to do; UTF-8, escaped names */
    char node[128];     /* the node or tensor it is about, or "" */
    const char *file;   /* source position that raised it */
    int line;
} tn_error;
#endif

#ifndef TERNION_REPORTER_DEFINED
#define TERNION_REPORTER_DEFINED
typedef enum tn_log_level { TN_LOG_DEBUG = 0, TN_LOG_INFO = 1, TN_LOG_WARNING = 2 } tn_log_level;

typedef struct tn_reporter {
    void *context;
    void (*log)(void *context, tn_log_level level, const char *message);
    /* `what` is a short static phrase ("calibrating", "evaluating"); done of total units. */
    void (*progress)(void *context, const char *what, uint64_t done, uint64_t total);
    /* true asks long work to stop soon with TN_ERROR_CANCELLED */
    bool (*cancelled)(void *context);
    /* what a run's journal says, as it says it: one JSON object (no line end) */
    void (*event)(void *context, const char *json);
} tn_reporter;
#endif

/* "0.1.0" */
TERNION_API const char *tn_version(void);

/* The process's settings: threads of parallel regions (0: all processors it may run on, or its part
 * of them where a launcher started several processes on the machine and bound none), and the bytes
 * the library may hold at once (0: no limit). */
TERNION_API void tn_configure(int threads, uint64_t max_memory);

/* This process among those that a launcher (mpirun) started together, as the environment says: 0 of
 * 1 without a launcher. */
TERNION_API int tn_process_rank(void);
TERNION_API int tn_process_count(void);

/* A name from a file made safe to print: control, zero-width and bidirectional characters and
 * invalid UTF-8 escaped, cut to `size`. Gives `text`. */
TERNION_API const char *tn_escape(const char *name, char *text, size_t size);

/* ---- catalog: what this build knows ------------------------------------------------------- */

typedef struct tn_catalog_parameter {
    const char *name, *range, *standard, *help;
} tn_catalog_parameter;

typedef struct tn_catalog_entry {
    const char *id, *summary;
    const tn_catalog_parameter *parameters;
    size_t n_parameters;
} tn_catalog_entry;

typedef enum tn_catalog_kind {
    TN_CATALOG_QUANTIZERS,
    TN_CATALOG_FORMS,
    TN_CATALOG_OPERATORS,
    TN_CATALOG_ARCHITECTURES,
    TN_CATALOG_DATA,  /* layouts of data sets */
    TN_CATALOG_IMAGES /* presets of preprocessing */
} tn_catalog_kind;

/* Fills entry `i` of a list; false behind its end. Entries are static. */
TERNION_API bool tn_catalog(tn_catalog_kind kind, size_t i, tn_catalog_entry *entry);

/* ---- reading and writing ------------------------------------------------------------------ */

typedef struct tn_input_options {
    uint64_t max_memory; /* for unpacking the file's structure; 0: 64 MiB + 4 x file */
    bool allow_symlinks; /* external data behind symbolic links */
} tn_input_options;

typedef struct tn_output_options {
    bool replace;         /* overwrite an existing file (never the input) */
    bool dry_run;         /* do everything but write */
    const char *form;     /* NULL: "lut" */
    const char *target;   /* "ort-1.10", ...: refuse what that runtime cannot load; NULL: any */
    const char *external; /* "auto" | "never" | "always"; NULL: auto */
    const char *rest;     /* "float16": what is not quantized too; NULL: as it is */
    bool prune_dead;      /* drop what is constant and unused */
    const char *recipe;   /* JSON object kept in the record; NULL: {} */
} tn_output_options;

/* Fails at once where writing `output` would fail late or do harm: it is one of the inputs, or a
 * file of a data set among them; it is no regular file; it exists and may not be replaced; its
 * folder is missing. Inputs are files, and data sets with :train or :val behind them; those that do
 * not exist count for nothing. The functions that write do it themselves for the model they read;
 * this one is for what else the caller names or writes. */
TERNION_API tn_status tn_output_check(const char *output, const char *const *inputs,
                                      size_t n_inputs, const tn_output_options *options,
                                      tn_error *error);

/* How images reach a network: what evaluate, compare, calibrate and train have in common. */
typedef struct tn_image_options {
    const char *preprocess; /* a preset; NULL: the model's record, else guessed from the data */
    const char *resize, *crop, *mean, *std, *scale, *channel_order; /* single settings over it */
    const char *output;    /* which of several graph outputs; NULL: the first */
    const char *device;    /* "auto" | "cpu" | "cuda" | "cuda:K"; NULL: auto */
    const char *precision; /* "auto" | "fp32" | "tf32" | "bf16"; NULL: auto */
    int64_t batch;         /* 0: chosen */
    int64_t max_bad;       /* corrupt images allowed */
    int64_t limit;         /* at most so many images, drawn by the seed; 0: all */
    uint64_t seed;
    bool no_preflight; /* do not look whether the preprocessing fits */
} tn_image_options;

/* ---- inspect ------------------------------------------------------------------------------ */

enum { TN_SHAPE_MAX = 16 };

typedef struct tn_report_shape {
    int rank;                   /* -1: unknown */
    int64_t dims[TN_SHAPE_MAX]; /* -1: dynamic or unknown */
} tn_report_shape;

typedef struct tn_value_report {
    const char *name, *dtype;
    tn_report_shape shape;
    uint64_t bytes; /* initializers: as stored */
} tn_value_report;

/* What became of a layer's weights when they were quantized. Bins divide [low, high], what the
 * weights before span, evenly. */
typedef struct tn_code_report { /* weights with one code */
    int code;
    int64_t count;
    double level; /* mean of the values they became; 0 when there are none */
    const int64_t *bins;
} tn_code_report;

typedef struct tn_weight_report {
    double low, high;
    const int64_t *bins; /* of all weights */
    int n_bins;
    const tn_code_report *codes; /* rising */
    int n_codes;                 /* 0: not quantized, or with more than 16 codes */
    const double *thresholds;    /* [n_codes - 1]: the edge of a bin that parts code i from i + 1
                                    with the fewest weights on the wrong side, over all channels */
} tn_weight_report;

typedef struct tn_layer_report {
    const char *name, *op; /* node name (its output's when it has none), operator */
    const char *weight;    /* name of the weight */
    tn_report_shape shape;
    int64_t weights;
    bool eligible, quantized;
    const char *reason;      /* why it is not eligible, kept, or which rule chose it; may be "" */
    const char *scheme;      /* "float" when not quantized */
    double bits;             /* 1.58 is ternary; 32 for FLOAT */
    const char *granularity; /* "tensor", "channel", "group:N"; "" when not quantized */
    int64_t distinct;        /* different values, counted up to 65,536 (inspect) */
    double zeros;            /* fraction of values that are 0 */
    double relmse;           /* sum (w - w')^2 / sum w^2 against the input's values */
    double sqnr_db;          /* -10 log10(relmse); infinite when exact */
    double scale_min, scale_max;
    double kl; /* compare, with request.sensitivity: KL(softmax a || softmax of a with this layer's
                  weights of b alone in it), mean over images; < 0: not measured */
    int activation_bits, bias_bits;    /* of what it reads and of its bias, in the file; 0: float */
    const tn_weight_report *histogram; /* compare, when asked for; else NULL */
} tn_layer_report;

typedef struct tn_inspect_report {
    const char *file, *producer;
    uint64_t bytes; /* with external data */
    int64_t ir, opset;
    tn_value_report *inputs, *outputs;
    size_t n_inputs, n_outputs;
    /* of `bytes`: packed codes, their scales and zeros, other tensors, the record; the rest is the
     * graph, with names and headers */
    uint64_t bytes_codes, bytes_scales, bytes_tensors, bytes_record;
    int64_t parameters; /* elements of float initializers the graph uses, packed weights unpacked */
    int64_t flops;      /* of one image; -1 when shapes are unknown */
    tn_layer_report *layers;
    size_t n_layers;
    tn_value_report *tensors; /* all initializers */
    size_t n_tensors;
} tn_inspect_report;

TERNION_API tn_status tn_inspect_file(const char *path, const tn_input_options *options,
                                      const tn_reporter *reporter, tn_inspect_report **inspection,
                                      tn_error *error);
TERNION_API void tn_inspect_report_free(tn_inspect_report *inspection);

/* ---- quantize, export --------------------------------------------------------------------- */

typedef struct tn_scheme_options {        /* NULL: the default named behind */
    const char *scheme;                   /* twn */
    const char *bits;                     /* the scheme's; "1.58" is ternary */
    const char *granularity;              /* channel */
    const char *threshold;                /* optimal */
    const char *levels;                   /* "A:B": from bits */
    bool narrow;                          /* drop the lowest code */
    const char *first_layer, *last_layer; /* keep */
    const char *conv_bits, *linear_bits;  /* bits */
    const char *const *layer_rules;       /* "REGEX=BITS|scheme|keep", last match wins */
    size_t n_layer_rules;
    const char *const *excluded; /* REGEX */
    size_t n_excluded;
} tn_scheme_options;

typedef struct tn_quantize_request {
    tn_input_options in;
    tn_output_options out;
    tn_scheme_options scheme;
    const char *calibration_data; /* a data set, labels unread; "synthesize": images made to fit the
                                     network; NULL: from the weights alone */
    const char *save_synthesized; /* FILE.npy that keeps what "synthesize" made: a data set */
    const char *method;           /* "auto" | "round" | "cd" | "gptq" | "adaround"; NULL: auto */
    const char *bn;       /* "auto" | "keep" | "reestimate" | "control" | "affine"; NULL: auto */
    int64_t samples;      /* 0: 256 images, drawn by images.seed */
    uint64_t target_size; /* bits chosen per layer so that the file has at most so many bytes */
    double target_drop;   /* or so that at most so many points of top-1 are lost; 0: not asked */
    bool sensitivity;     /* measure what each width of each layer costs; alone: write nothing */
    int activation_bits, input_bits; /* 2 to 16: of what quantized layers read, and of the network's
                                        input; 0: as they are. They need calibration_data */
    int bias_bits;                   /* 2 to 8, 16: of the quantized layers' biases; 0 */
    const char *equalize; /* "auto" | "never" | "always": channels brought to one range before;
                             NULL: never */
    const char *activation_range; /* "minmax" | "percentile" | "entropy" | "mse"; NULL: mse */
    const char *val; /* a labelled data set: accuracy of input and output; NULL: unknown */
    tn_image_options images;
} tn_quantize_request;

enum { TN_WIDTHS = 5 };

/* One layer alone at each width (tn_width_bits), all others float. */
typedef struct tn_sensitivity_row {
    const char *name, *weight; /* as in tn_layer_report */
    double kl[TN_WIDTHS];      /* KL(float || quantized) on held-out images */
    uint64_t bytes[TN_WIDTHS];
    int chosen; /* index of the width; -1: none was chosen */
} tn_sensitivity_row;

/* "1.58", "2", "3", "4", "8" */
TERNION_API const char *tn_width_bits(int index);

typedef struct tn_conversion_report {
    const char *input, *output;
    uint64_t bytes_in, bytes_out; /* bytes_out of a dry run: 0 */
    const char *form;
    int64_t opset, ir;
    int64_t weights_total, weights_quantized;
    double bits_per_weight; /* of the quantized layers, scales counted */
    double sparsity;        /* of the quantized layers */
    const char *needs;      /* "any ONNX Runtime from 1.10" */
    tn_layer_report *layers;
    size_t n_layers;
    /* of calibration; images 0 without */
    int64_t images, held_out;
    const char *method, *bn;
    double kl, kl_round, agreement; /* against the float network, on the calibration images, which
                                       codes were fitted to, with activations as the file has them;
                                       kl_round: of rounding the weights alone */
    int64_t unseen;                 /* images codes were not fitted to; 0: there are none, and what
                                       follows cannot be told */
    const char *unseen_which;       /* which these are */
    double kl_unseen, agreement_unseen; /* agreement < 0: not measured */
    bool unseen_weights_alone; /* measured before activations were quantized: the file is worse */
    double seconds;
    tn_sensitivity_row *sensitivity; /* with a target or when asked for */
    size_t n_sensitivity;
    double kl_uniform[TN_WIDTHS];              /* of whole networks at one width */
    int64_t activations, biases;               /* values and biases quantized */
    struct tn_evaluate_report *before, *after; /* on `val`; NULL without, `after` in dry runs */
} tn_conversion_report;

/* Reads `input`, quantizes its weights without data, writes `output` and reads it back. */
TERNION_API tn_status tn_quantize_file(const char *input, const char *output,
                                       const tn_quantize_request *options,
                                       const tn_reporter *reporter, tn_conversion_report **report,
                                       tn_error *error);

typedef struct tn_export_request {
    tn_input_options in;
    tn_output_options out;
} tn_export_request;

/* Rewrites the quantized weights of `input` in another form, value for value. */
TERNION_API tn_status tn_export_file(const char *input, const char *output,
                                     const tn_export_request *options, const tn_reporter *reporter,
                                     tn_conversion_report **report, tn_error *error);
TERNION_API void tn_conversion_report_free(tn_conversion_report *report);

/* ---- images ------------------------------------------------------------------------------- */

typedef struct tn_class_report {
    const char *name;
    int64_t images, correct;
} tn_class_report;

typedef struct tn_prediction_report {
    int64_t index, label, top1;
    double logit; /* of top1 */
} tn_prediction_report;

typedef struct tn_evaluate_report {
    const char *model, *data, *description; /* description: what the data was found to be */
    int64_t images, bad;
    int64_t correct_top1, correct_topk;
    int top_k;                              /* 5, less for fewer classes */
    double top1, topk, top1_low, top1_high; /* 0 to 1; Wilson's 95 % interval */
    double loss, seconds, images_per_s;
    const char *device, *precision, *preprocess; /* preprocess: its preset and where from */
    tn_class_report *classes;
    size_t n_classes;
    tn_prediction_report *predictions; /* n = images; NULL unless asked for */
} tn_evaluate_report;

typedef struct tn_evaluate_request {
    tn_input_options in;
    tn_image_options images;
    int top_k;        /* 0: 5 */
    int64_t input[3]; /* another resolution than the model's: C, H, W; 0: its own */
    bool keep_predictions;
} tn_evaluate_request;

/* Accuracy on a data set: a path, perhaps with :train or :val (the default) behind it. */
TERNION_API tn_status tn_evaluate_file(const char *path, const char *data,
                                       const tn_evaluate_request *options,
                                       const tn_reporter *reporter, tn_evaluate_report **report,
                                       tn_error *error);
TERNION_API void tn_evaluate_report_free(tn_evaluate_report *report);

typedef struct tn_data_report {
    const char *data, *layout, *description;
    int64_t images, bad; /* bad: cannot be decoded */
    int64_t unlabelled;
    int min_width, max_width, min_height, max_height; /* of the good ones */
    int64_t grey;                                     /* of the good ones */
    const char *first_bad;                            /* message, or "" */
    tn_class_report *classes;                         /* correct is 0 */
    size_t n_classes;
} tn_data_report;

typedef struct tn_data_request {
    const char *sheet; /* write a contact sheet PNG there; NULL: none */
    int64_t show;      /* pictures on it; 0: 64 */
    bool replace;      /* overwrite it */
    uint64_t seed;
} tn_data_request;

/* Looks at a data set: decodes every image. */
TERNION_API tn_status tn_data_file(const char *data, const tn_data_request *options,
                                   const tn_reporter *reporter, tn_data_report **report,
                                   tn_error *error);
TERNION_API void tn_data_report_free(tn_data_report *report);

enum { TN_GENERATE_TRAIN = 10000, TN_GENERATE_TEST = 2000 };

typedef struct tn_generate_request {
    uint64_t seed;
    int64_t train, test; /* pictures; 0: TN_GENERATE_TRAIN and TN_GENERATE_TEST */
    bool replace;
    bool dry_run; /* only say whether writing would be refused */
} tn_generate_request;

/* Writes a data set drawn by code ("glyphs") into a folder, all of it or nothing. */
TERNION_API tn_status tn_generate_files(const char *name, const char *folder,
                                        const tn_generate_request *options,
                                        const tn_reporter *reporter, tn_error *error);

/* ---- compare, verify ---------------------------------------------------------------------- */

/* Layers of a report by position: `to` reads the result of `from`, through operators that are no
 * layers, or they meet (Add, Concat); what comes of that counts as the last one's result. */
typedef struct tn_edge_report {
    size_t from, to;
    bool joins; /* they meet */
} tn_edge_report;

typedef struct tn_compare_report {
    const char *a, *b;
    uint64_t bytes_a, bytes_b;
    double relmse;           /* over all layers */
    double bits_a, bits_b;   /* per weight of those layers */
    tn_layer_report *layers; /* those of b, measured against a's */
    size_t n_layers;
    int64_t unmatched_a, unmatched_b; /* layers without a counterpart, left out */
    tn_edge_report *edges;            /* between them */
    size_t n_edges;
    tn_evaluate_report *on_a, *on_b; /* NULL without data */
    int64_t images;                  /* the rest is 0 without data */
    double agreement;                /* fraction with the same top-1 class */
    double kl;                       /* mean KL(softmax a || softmax b) */
    double drop_top1;                /* top-1 of a minus that of b, in percentage points; 0 where
                                        no image is labelled */
} tn_compare_report;

typedef struct tn_compare_request {
    tn_input_options in;
    const char *data; /* NULL: weights alone */
    bool labelled;    /* data without labels is an error: accuracies are wanted */
    tn_image_options images;
    bool histograms;     /* of each layer's weights */
    int64_t sensitivity; /* with data: on so many images, what each layer costs alone; 0: not */
} tn_compare_request;

/* Layer by layer, matched by name, then by position among layers of the same shape. MODEL when the
 * networks have no layer in common. */
TERNION_API tn_status tn_compare_files(const char *a, const char *b,
                                       const tn_compare_request *request,
                                       const tn_reporter *reporter, tn_compare_report **comparison,
                                       tn_error *error);
TERNION_API void tn_compare_report_free(tn_compare_report *comparison);

typedef struct tn_verify_report {
    const char *file, *against; /* against: "" when none */
    int64_t layers;             /* whose codes and scales give the folded values bit by bit */
    int64_t activations;        /* values that are quantized as the record says */
    int64_t untouched;          /* other tensors, equal to those of `against` */
    int64_t halves;             /* layers of FLOAT16, whose weights are those that were written */
} tn_verify_report;

/* DIFFERS when something does not hold; the message says what and where. */
TERNION_API tn_status tn_verify_file(const char *path, const char *against,
                                     const tn_input_options *options, const tn_reporter *reporter,
                                     tn_verify_report **verification, tn_error *error);
TERNION_API void tn_verify_report_free(tn_verify_report *verification);

/* ---- finetune ----------------------------------------------------------------------------- */

typedef struct tn_train_request { /* zeros: the defaults of finetune/train.h */
    tn_input_options in;
    tn_output_options out;
    tn_scheme_options scheme; /* "float" trains plainly */
    tn_image_options images;  /* batch: samples a step */
    const char *data;         /* a data set: its training part unless :val stands behind */
    const char *val;          /* validation; NULL: the validation part of `data`, if it has one */
    const char *augment;      /* NULL: chosen by the data; "none" */
    int64_t epochs, accumulate, early_stop, save_seconds;
    const char *optimizer, *schedule, *batch_norm; /* batch_norm: "train" | "freeze" */
    const char *distill; /* "none", "self" (the input model) or a model file; NULL: "self" where a
                            trained float network becomes a quantized one, else "none" */
    /* 0: the default; below 0: none */
    double lr, momentum, weight_decay, final_lr, warmup_epochs, scale_lr, clip_norm;
    double label_smoothing, ema, temperature, distill_weight;
    const char *const *frozen; /* REGEX */
    size_t n_frozen;
    bool sparsity_ramp, restore_bn;
    int64_t classes;    /* 0: the model's; else a new last layer */
    int64_t input[3];   /* 0: the model's; else another resolution: C, H, W */
    const char *latent; /* a float model whose weights are where a packed model's latents start */
    int activation_bits, input_bits; /* as in tn_quantize_request */
    const char *activation_range;    /* where their steps start: as in tn_quantize_request */
    const char *activation_scheme;   /* how they are trained: "lsq" | "pact" | "fixed" */
    const char *folder;              /* checkpoints and run.jsonl; NULL: none */
    bool resume;
    bool no_calibration; /* start from rounding, not from calibration */
    bool distributed;    /* all processes that a launcher started call this and train one network */
} tn_train_request;

typedef struct tn_train_report {
    tn_conversion_report *conversion; /* of the written file; before and after: on val */
    int64_t epochs;                   /* run, resumed ones counted */
    bool stopped;                     /* cancelled: the file holds what was reached */
    bool reestimated;                 /* BatchNormalization statistics measured at the end */
    double train_loss, train_top1; /* of the last epoch; NaN when --resume found the run finished */
    double images_per_s;           /* likewise */
} tn_train_report;

/* Trains the quantized weights of `input` on labelled images, writes `output`, reads it back and
 * proves that it computes bit for bit what was trained.
 *
 * With `distributed` under a launcher, each process takes its part of every batch; only the first
 * reports and writes, and *report is NULL on the others. When one fails or is cancelled all return
 * that error, and the first tells it. MPI is started and ended by the call, once in a process,
 * unless the caller has started it. USAGE in a build without MPI. */
TERNION_API tn_status tn_finetune_file(const char *input, const char *output,
                                       const tn_train_request *request, const tn_reporter *reporter,
                                       tn_train_report **report, tn_error *error);
TERNION_API void tn_train_report_free(tn_train_report *report);

/* ---- create ------------------------------------------------------------------------------- */

typedef struct tn_create_request {
    tn_output_options out;
    int64_t classes;  /* 0: the architecture's */
    int64_t input[3]; /* C, H, W; 0: the architecture's */
    uint64_t seed;
} tn_create_request;

typedef struct tn_create_report {
    const char *architecture, *output;
    uint64_t bytes;
    int64_t parameters, classes, input[3];
    uint64_t seed;
} tn_create_report;

TERNION_API tn_status tn_create_file(const char *architecture, const char *output,
                                     const tn_create_request *options, const tn_reporter *reporter,
                                     tn_create_report **creation, tn_error *error);
TERNION_API void tn_create_report_free(tn_create_report *creation);

#ifdef __cplusplus
}
#endif

#endif
