/* Evaluates a model for other programs:
 *   evaluate_tool MODEL DATA [PRESET|- [BATCH [LIMIT [PREDICTIONS]]]] | evaluate_tool pair A B DATA
 *   evaluate_tool preflight MODEL DATA PRESET [KEY VALUE]...
 * Prints one line of figures; PREDICTIONS gets "index label top1 logit" lines. */
#include "finetune/preflight.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct subject {
    tn_model *model;
    tn_dataset *dataset;
    tn_device *device;
} subject;

static tn_status open_subject(const char *model, const char *data, subject *s, tn_error *error)
{
    tn_status status = tn_model_read(model, NULL, &s->model, error);
    if (status == TN_OK)
        status = tn_dataset_open(data, TN_SPLIT_VAL, NULL, &s->dataset, error);
    if (status == TN_OK)
        status = tn_device_create_cpu(&s->device, error);
    return status;
}

static void close_subject(subject *s)
{
    tn_device_destroy(s->device);
    tn_dataset_close(s->dataset);
    tn_model_destroy(s->model);
}

static void print(const char *what, const tn_evaluation *e)
{
    printf("%s images %zu top1 %zu topk %zu loss %.6f low %.4f high %.4f speed %.1f bad %zu "
           "(%s; %s)\n",
           what, e->images, e->correct_top1, e->correct_topk, e->loss, e->top1_low, e->top1_high,
           e->images_per_s, e->bad, e->preprocess.preset, e->preprocess_source);
}

static tn_status write_predictions(const char *path, const tn_evaluation *e)
{
    FILE *file = fopen(path, "w");
    for (size_t i = 0; file && i < e->images; i++)
        fprintf(file, "%u %d %d %.9g\n", e->predictions[i].index, e->predictions[i].label,
                e->predictions[i].top1, (double)e->predictions[i].logit);
    return file && fclose(file) == 0 ? TN_OK : TN_ERROR_IO;
}

static tn_status evaluate(int argc, char **argv, tn_error *error)
{
    subject s = {0};
    tn_evaluation e = {0};
    tn_preprocess preprocess;
    tn_evaluate_options options = {.keep_predictions = true};
    tn_status status = open_subject(argv[1], argv[2], &s, error);
    if (status == TN_OK && argc > 3 && strcmp(argv[3], "-") != 0) {
        status = tn_preprocess_preset(argv[3], &preprocess, error);
        options.preprocess = &preprocess;
    }
    options.batch = argc > 4 ? strtoul(argv[4], NULL, 10) : 0;
    options.limit = argc > 5 ? strtoul(argv[5], NULL, 10) : 0;
    const char *precision = getenv("PRECISION");
    options.precision =
        precision && strcmp(precision, "bf16") == 0 ? TN_PRECISION_BF16 : TN_PRECISION_FP32;
    if (status == TN_OK)
        status = tn_evaluate_model(s.model, s.dataset, s.device, &options, &e, error);
    if (status == TN_OK)
        print("evaluate", &e);
    if (status == TN_OK && argc > 6)
        status = write_predictions(argv[6], &e);
    tn_evaluation_done(&e);
    close_subject(&s);
    return status;
}

static tn_status pair(char **argv, tn_error *error)
{
    subject s = {0};
    tn_comparison c = {0};
    tn_model *other = NULL;
    tn_status status = open_subject(argv[2], argv[4], &s, error);
    if (status == TN_OK)
        status = tn_model_read(argv[3], NULL, &other, error);
    if (status == TN_OK)
        status = tn_evaluate_pair(s.model, other, s.dataset, s.device, NULL, NULL, &c, error);
    if (status == TN_OK) {
        print("a", &c.a);
        print("b", &c.b);
        printf("agreement %zu of %zu kl %.9f\n", c.agreed, c.images, c.kl);
    }
    tn_comparison_done(&c);
    tn_model_destroy(other);
    close_subject(&s);
    return status;
}

static tn_status preflight(int argc, char **argv, tn_error *error)
{
    subject s = {0};
    tn_preflight p;
    tn_preprocess preprocess;
    tn_evaluate_options options = {.preprocess = &preprocess};
    tn_status status = open_subject(argv[2], argv[3], &s, error);
    if (status == TN_OK)
        status = tn_preprocess_preset(argv[4], &preprocess, error);
    for (int i = 5; status == TN_OK && i + 1 < argc; i += 2)
        status = tn_preprocess_set(&preprocess, argv[i], argv[i + 1], error);
    if (status == TN_OK)
        status = tn_preflight_run(s.model, s.dataset, s.device, &options, &p, error);
    if (status == TN_OK)
        printf("near chance %d top1 %.4f better %zu\n%s\n", p.near_chance, p.top1, p.n_better,
               p.message);
    close_subject(&s);
    return status;
}

int main(int argc, char **argv)
{
    tn_error error = {0};
    tn_status status = TN_ERROR_USAGE;
    if (argc == 5 && strcmp(argv[1], "pair") == 0)
        status = pair(argv, &error);
    else if (argc >= 5 && strcmp(argv[1], "preflight") == 0)
        status = preflight(argc, argv, &error);
    else if (argc >= 3)
        status = evaluate(argc, argv, &error);
    if (status != TN_OK)
        fprintf(stderr, "evaluate_tool: %s\n", error.message);
    return (int)status;
}
