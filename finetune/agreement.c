/* Two networks on the same images. */
#include "finetune/divergence.h"
#include "finetune/evaluate.h"

/* Images that both have seen: each may have left out others. */
static void compare_outputs(tn_comparison *c)
{
    size_t classes = (size_t)c->a.classes, i = 0, j = 0;
    while (i < c->a.images && j < c->b.images) {
        const tn_prediction *p = &c->a.predictions[i], *q = &c->b.predictions[j];
        if (p->index != q->index) {
            i += p->index < q->index;
            j += q->index < p->index;
            continue;
        }
        c->images++;
        const float *a = c->a.logits + i++ * classes, *b = c->b.logits + j++ * classes;
        c->agreed += tn_same_maximum(a, b, (int64_t)classes);
        c->kl += tn_divergence_row(a, b, (int64_t)classes);
    }
    if (c->images > 0) {
        c->agreement = (double)c->agreed / (double)c->images;
        c->kl /= (double)c->images;
    }
}

tn_status tn_evaluate_pair(const tn_model *a, const tn_model *b, const tn_dataset *dataset,
                           tn_device *device, const tn_evaluate_options *options_a,
                           const tn_evaluate_options *options_b, tn_comparison *comparison,
                           tn_error *error)
{
    tn_comparison c = {0};
    tn_evaluate_options first = options_a ? *options_a : (tn_evaluate_options){0};
    tn_evaluate_options second = options_b ? *options_b : first;
    first.keep_predictions = first.keep_logits = true;
    second.keep_predictions = second.keep_logits = true;
    second.limit = first.limit; /* the same images */
    second.seed = first.seed;
    tn_status status = tn_evaluate_model(a, dataset, device, &first, &c.a, error);
    if (status == TN_OK)
        status = tn_evaluate_model(b, dataset, device, &second, &c.b, error);
    if (status == TN_OK && c.a.classes != c.b.classes)
        status = tn_fail(error, TN_ERROR_USAGE,
                         "the networks have %d and %d outputs: they cannot be compared",
                         c.a.classes, c.b.classes);
    if (status != TN_OK) {
        tn_comparison_done(&c);
        return status;
    }
    compare_outputs(&c);
    *comparison = c;
    return TN_OK;
}
