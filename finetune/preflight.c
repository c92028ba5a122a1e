#include "finetune/preflight.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A different idea of what pixels become; in 0..1 unless scale is 1. */
typedef struct pixel_idea {
    const char *name;
    bool raw; /* pixels 0..255 */
    bool bgr;
    float mean[3], deviation[3];
} pixel_idea;

static const pixel_idea ideas[] = {
    {"pixels / 255 without mean", false, false, {0, 0, 0}, {1, 1, 1}},
    {"pixels 0..255", true, false, {0, 0, 0}, {1, 1, 1}},
    {"pixels 0..255, BGR", true, true, {0, 0, 0}, {1, 1, 1}},
    {"pixels 0..255 less the mean, BGR (Caffe)",
     true,
     true,
     {123.68f, 116.779f, 103.939f},
     {1, 1, 1}},
    {"pixels 0..255 less the mean", true, false, {123.68f, 116.779f, 103.939f}, {1, 1, 1}},
    {"ImageNet mean and deviation",
     false,
     false,
     {0.485f, 0.456f, 0.406f},
     {0.229f, 0.224f, 0.225f}},
    {"ImageNet mean and deviation, BGR",
     false,
     true,
     {0.485f, 0.456f, 0.406f},
     {0.229f, 0.224f, 0.225f}},
    {"CIFAR-10 mean and deviation",
     false,
     false,
     {0.4914f, 0.4822f, 0.4465f},
     {0.247f, 0.2435f, 0.2616f}},
    {"pixels in -1..1", false, false, {0.5f, 0.5f, 0.5f}, {0.5f, 0.5f, 0.5f}},
    {"pixels in -1..1, BGR", false, true, {0.5f, 0.5f, 0.5f}, {0.5f, 0.5f, 0.5f}},
};
enum { N_IDEAS = sizeof ideas / sizeof ideas[0] };

static bool same_pixels(const tn_preprocess *a, const tn_preprocess *b)
{
    return a->bgr == b->bgr && a->scale == b->scale &&
           memcmp(a->mean, b->mean, sizeof a->mean) == 0 &&
           memcmp(a->deviation, b->deviation, sizeof a->deviation) == 0;
}

static void add_variant(tn_preflight *preflight, const char *name, const tn_preprocess *p)
{
    if (preflight->n_variants == TN_PREFLIGHT_VARIANTS)
        return;
    tn_preflight_variant *v = &preflight->variants[preflight->n_variants++];
    *v = (tn_preflight_variant){.preprocess = *p};
    snprintf(v->name, sizeof v->name, "%s", name);
    snprintf(v->preprocess.preset, sizeof v->preprocess.preset, "custom");
    /* pixels 0..255 without a mean are said through the deviation: (x / 255) / (1 / 255) */
    bool small = p->mean[0] <= 1.0f && p->mean[1] <= 1.0f && p->mean[2] <= 1.0f;
    double unit = p->scale == 1.0f && small ? 255.0 : 1.0;
    snprintf(v->option, sizeof v->option,
             "--mean %.6g,%.6g,%.6g --std %.6g,%.6g,%.6g --channel-order %s",
             (double)p->mean[0] / unit, (double)p->mean[1] / unit, (double)p->mean[2] / unit,
             (double)p->deviation[0] / unit, (double)p->deviation[1] / unit,
             (double)p->deviation[2] / unit, p->bgr ? "bgr" : "rgb");
}

static void collect_variants(tn_preflight *preflight, const tn_preprocess *base)
{
    tn_preprocess p = *base;
    if (base->channels == 3) {
        p.bgr = !base->bgr;
        add_variant(preflight, p.bgr ? "channel order BGR" : "channel order RGB", &p);
    }
    for (size_t i = 0; i < N_IDEAS; i++) {
        const pixel_idea *idea = &ideas[i];
        p = *base;
        p.scale = idea->raw ? 1.0f : 1.0f / 255.0f;
        p.bgr = idea->bgr && base->channels == 3;
        memcpy(p.mean, idea->mean, sizeof p.mean);
        memcpy(p.deviation, idea->deviation, sizeof p.deviation);
        bool known = same_pixels(&p, base) || (idea->bgr && base->channels != 3);
        for (size_t k = 0; k < preflight->n_variants && !known; k++)
            known = same_pixels(&p, &preflight->variants[k].preprocess);
        if (!known)
            add_variant(preflight, idea->name, &p);
    }
}

static int compare_variants(const void *a, const void *b)
{
    const tn_preflight_variant *x = a, *y = b;
    if (x->top1 != y->top1)
        return x->top1 > y->top1 ? -1 : 1;
    return x->loss < y->loss ? -1 : x->loss > y->loss;
}

/* Beyond three standard errors of what guessing scores, and twice it, is no longer chance. */
static bool is_near_chance(double top1, double chance, size_t n)
{
    double error = 3.0 * sqrt(chance * (1.0 - chance) / (double)(n ? n : 1));
    return top1 <= chance + fmax(error, chance);
}

static void write_message(tn_preflight *p)
{
    size_t room = sizeof p->message;
    int n = snprintf(p->message, room,
                     "on %zu images the network gets %.1f %% right, where guessing gets %.1f %%.",
                     p->images, 100.0 * p->top1, 100.0 * p->chance);
    if (p->n_better == 0) {
        snprintf(p->message + n, room - (size_t)n,
                 " No other usual preprocessing does better: are the classes in the network's "
                 "order (sorted folder names), and is it trained at all?");
        return;
    }
    n += snprintf(p->message + n, room - (size_t)n, " Better with:");
    for (size_t i = 0; i < p->n_better && i < 3 && (size_t)n < room; i++)
        n += snprintf(p->message + n, room - (size_t)n, "%s %s (%.1f %%: %s)", i ? ";" : "",
                      p->variants[i].name, 100.0 * p->variants[i].top1, p->variants[i].option);
}

/* Evaluates the variants, the best first. */
static tn_status try_variants(tn_plan *plan, const tn_dataset *dataset,
                              const tn_evaluate_options *options, tn_preflight *preflight,
                              tn_error *error)
{
    tn_evaluate_options changed = *options;
    for (size_t i = 0; i < preflight->n_variants; i++) {
        tn_preflight_variant *v = &preflight->variants[i];
        tn_evaluation evaluation;
        changed.preprocess = &v->preprocess;
        tn_status status = tn_evaluate_plan(plan, dataset, &changed, &evaluation, error);
        if (status != TN_OK)
            return status;
        v->top1 = evaluation.top1;
        v->loss = evaluation.loss;
        tn_evaluation_done(&evaluation);
    }
    qsort(preflight->variants, preflight->n_variants, sizeof preflight->variants[0],
          compare_variants);
    double clear = preflight->top1 + 3.0 * sqrt(0.25 / (double)(preflight->images + 1));
    while (preflight->n_better < preflight->n_variants &&
           preflight->variants[preflight->n_better].top1 > clear &&
           !is_near_chance(preflight->variants[preflight->n_better].top1, preflight->chance,
                           preflight->images))
        preflight->n_better++;
    return TN_OK;
}

tn_status tn_preflight_run(const tn_model *model, const tn_dataset *dataset, tn_device *device,
                           const tn_evaluate_options *options, tn_preflight *preflight,
                           tn_error *error)
{
    tn_preflight result = {0};
    tn_evaluate_network network = {0};
    tn_evaluation evaluation;
    tn_evaluate_options o = options ? *options : (tn_evaluate_options){0};
    if (tn_dataset_classes(dataset) == 0)
        return tn_fail(error, TN_ERROR_USAGE, "a preflight needs labels");
    o.limit = o.limit ? o.limit : TN_PREFLIGHT_IMAGES;
    o.keep_logits = o.keep_predictions = false;
    o.reporter = NULL;
    tn_status status = tn_evaluate_open(model, dataset, device, &o, &network, error);
    if (status != TN_OK)
        return status;
    o.preprocess = &network.preprocess;
    status = tn_evaluate_plan(network.plan, dataset, &o, &evaluation, error);
    if (status != TN_OK)
        goto done;
    result.images = evaluation.images;
    result.top1 = evaluation.top1;
    result.loss = evaluation.loss;
    result.chance = 1.0 / (double)evaluation.classes;
    tn_evaluation_done(&evaluation);
    result.near_chance = is_near_chance(result.top1, result.chance, result.images);
    bool weak = result.top1 < 0.5 && result.top1 < 5.0 * result.chance;
    if ((result.near_chance || weak) && !tn_dataset_shape(dataset).is_float) {
        collect_variants(&result, &network.preprocess);
        status = try_variants(network.plan, dataset, &o, &result, error);
    }
    if (status == TN_OK && (result.near_chance || result.n_better > 0))
        write_message(&result);
    if (status == TN_OK)
        *preflight = result;
done:
    tn_evaluate_close(&network);
    return status;
}
