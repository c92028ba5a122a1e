/* Quantizer bodies: every latent tensor of a network in one launch. Formulas, and the order of
 * sums, are those of converter/quantizers; the sums of scale gradients alone are in another order.
 *
 * Thresholds of least squared error and of a given sparsity come from sorted runs: cutting.h. */
#ifndef TERNION_GPU_KERNELS_QUANTIZING_H
#define TERNION_GPU_KERNELS_QUANTIZING_H

#include "gpu/kernels/tiles.h"

enum {
    TN_SUM_LANES = 8,     /* threads that sum a piece, as converter/lanes.h */
    TN_SUM_PIECE = 65536, /* converter/sums.h: TN_PIECE */
    TN_SLICE = 4096       /* elements of a run whose scale gradients a block sums */
};

typedef enum tn_latent_kind {
    TN_LATENT_TWN,
    TN_LATENT_TTQ,
    TN_LATENT_UNIFORM, /* fixed, lsq */
    TN_LATENT_AFFINE,
    TN_LATENT_DOREFA,
    TN_LATENT_PARQ
} tn_latent_kind;

/* How launches walk the tensors; the first thread of each entry is in `begin`. */
typedef enum tn_latent_walk {
    TN_WALK_ELEMENTS, /* of all */
    TN_WALK_CUTS,     /* blocks: runs of those whose cuts are compared */
    TN_WALK_RUNS,     /* of those that are refreshed */
    TN_WALK_LANES,    /* lanes of the pieces of the runs of those that are refreshed */
    TN_WALK_KEPT,     /* the same of TWN's */
    TN_WALK_SLICES,   /* blocks: slices of the runs of those with scale gradients */
    TN_WALK_SLOPES,   /* runs of those */
    TN_N_WALKS
} tn_latent_walk;

/* What a lane of a piece found. */
typedef struct tn_latent_part {
    double sum, other; /* |w|; PARQ: code w, code^2; kept: count, |w| by side */
    double sums[2];
    float most, low, high;
    float positive, negative; /* the one magnitude on each side, 0: none so far */
    bool mixed;               /* there are several */
} tn_latent_part;

typedef struct tn_latent_entry { /* one tensor; entries lie in device memory */
    int64_t begin[TN_N_WALKS];
    int64_t part, key, cut, slope; /* its first in the arrays of tn_quantizing_args */
    int64_t rows, cols, inner;     /* inner: of the layout, behind the channel axis */
    int64_t runs, longest, pieces, slices;
    int64_t group, groups_per_row; /* group 0: runs are rows, or the tensor */
    bool whole;                    /* one run */
    tn_latent_kind kind;
    tn_threshold_kind threshold_kind;
    float threshold_value, rho_inv;
    int low, high, bits;
    tn_quantizer_state state;
    const float *w, *dvalues;
    float *values, *dw, *dscale, *dscale_neg;
} tn_latent_entry;

typedef struct tn_quantizing_args {
    const tn_latent_entry *entries; /* [n] */
    int n;
    tn_latent_part *parts;
    uint32_t *keys;      /* of the runs whose cuts are compared, sorted */
    uint32_t *cuts;      /* the best of each: a magnitude's bits */
    double (*slopes)[2]; /* of slices: positive side or all, negative side */
} tn_quantizing_args;

/* The entry of thread i, which becomes a thread of the entry. Entries without threads in a walk
 * begin where the next one does. */
TN_BODY const tn_latent_entry *tn_latent_at(const tn_quantizing_args *k, tn_latent_walk walk,
                                            int64_t *i)
{
    int low = 0, high = k->n - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (k->entries[middle].begin[walk] <= *i)
            low = middle;
        else
            high = middle - 1;
    }
    *i -= k->entries[low].begin[walk];
    return &k->entries[low];
}

TN_BODY int64_t tn_latent_run_of(const tn_latent_entry *e, int64_t element)
{
    if (e->whole)
        return 0;
    if (e->group == 0)
        return element / e->cols;
    return element / e->cols * e->groups_per_row + element % e->cols / e->group;
}

TN_BODY int64_t tn_latent_run(const tn_latent_entry *e, int64_t run, int64_t *count)
{
    if (e->whole || e->group == 0) {
        *count = e->longest;
        return run * e->longest;
    }
    int64_t col = run % e->groups_per_row * e->group, left = e->cols - col;
    *count = left < e->group ? left : e->group;
    return run / e->groups_per_row * e->cols + col;
}

/* Where an element of the rows lies in the model's layout. */
TN_BODY int64_t tn_latent_place(const tn_latent_entry *e, int64_t element)
{
    if (e->inner == e->cols)
        return element;
    int64_t row = element / e->cols, col = element % e->cols;
    return (col / e->inner * e->rows + row) * e->inner + col % e->inner;
}

TN_BODY float tn_round_even(float x) /* |x| < 2^22 */
{
    const float magic = 12582912.0f;
    return (x + magic) - magic;
}

TN_BODY float tn_round_clamped(float v, float low, float high)
{
    v = v < low ? low : v;
    v = v > high ? high : v;
    return tn_round_even(v);
}

TN_BODY uint32_t tn_magnitude_key(float w)
{
    uint32_t bits;
    memcpy(&bits, &w, sizeof(bits));
    return bits & 0x7fffffffu;
}

/* --- statistics ------------------------------------------------------------------------------- */

TN_BODY void tn_part_add(tn_latent_part *p, float w)
{
    float magnitude = fabsf(w);
    p->sum += (double)magnitude;
    p->most = magnitude > p->most ? magnitude : p->most;
    p->low = w < p->low ? w : p->low;
    p->high = w > p->high ? w : p->high;
    float side = w > 0.0f ? p->positive : p->negative;
    if (magnitude == 0.0f || magnitude == side)
        return;
    p->mixed = p->mixed || side != 0.0f;
    if (w > 0.0f)
        p->positive = magnitude;
    else
        p->negative = magnitude;
}

/* Lane of a piece of a run; sums of all that a refresh may need. */
TN_BODY void tn_latent_sums_body(const tn_quantizing_args *k, int64_t i)
{
    const tn_latent_entry *e = tn_latent_at(k, TN_WALK_LANES, &i);
    int64_t run = i / TN_SUM_LANES / e->pieces, count;
    int64_t first = i / TN_SUM_LANES % e->pieces * TN_SUM_PIECE;
    const float *w = e->w + tn_latent_run(e, run, &count);
    int64_t last = first + TN_SUM_PIECE < count ? first + TN_SUM_PIECE : count;
    tn_latent_part p = {0.0, 0.0, {0.0, 0.0}, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, false};
    float step = e->kind == TN_LATENT_PARQ ? e->state.scale[run] : 1.0f;
    for (int64_t j = first + i % TN_SUM_LANES; j < last; j += TN_SUM_LANES) {
        if (e->kind == TN_LATENT_PARQ) {
            double code = (double)tn_round_clamped(w[j] / step, (float)e->low, (float)e->high);
            p.sum += code * (double)w[j];
            p.other += code * code;
        } else {
            tn_part_add(&p, w[j]);
        }
    }
    k->parts[e->part + i] = p;
}

/* The eight lanes of a piece, in converter/lanes.h's order. */
TN_BODY double tn_lanes_total(const double *lane, int64_t stride)
{
    return ((lane[0] + lane[stride]) + (lane[2 * stride] + lane[3 * stride])) +
           ((lane[4 * stride] + lane[5 * stride]) + (lane[6 * stride] + lane[7 * stride]));
}

TN_BODY void tn_part_merge(tn_latent_part *to, const tn_latent_part *from)
{
    to->most = from->most > to->most ? from->most : to->most;
    to->low = from->low < to->low ? from->low : to->low;
    to->high = from->high > to->high ? from->high : to->high;
    to->mixed =
        to->mixed || from->mixed ||
        (to->positive != 0.0f && from->positive != 0.0f && to->positive != from->positive) ||
        (to->negative != 0.0f && from->negative != 0.0f && to->negative != from->negative);
    to->positive = to->positive != 0.0f ? to->positive : from->positive;
    to->negative = to->negative != 0.0f ? to->negative : from->negative;
}

/* The parts of a run. */
TN_BODY tn_latent_part tn_latent_part_of(const tn_quantizing_args *k, const tn_latent_entry *e,
                                         int64_t run)
{
    const int64_t stride = (int64_t)(sizeof(tn_latent_part) / sizeof(double));
    const tn_latent_part *from = k->parts + e->part + run * e->pieces * TN_SUM_LANES;
    tn_latent_part all = {0.0, 0.0, {0.0, 0.0}, 0.0f, 0.0f, 0.0f, 0.0f, 0.0f, false};
    int64_t count;
    (void)tn_latent_run(e, run, &count);
    for (int64_t piece = 0; piece * TN_SUM_PIECE < count; piece++, from += TN_SUM_LANES) {
        all.sum += tn_lanes_total(&from->sum, stride);
        all.other += tn_lanes_total(&from->other, stride);
        all.sums[0] += tn_lanes_total(&from->sums[0], stride);
        all.sums[1] += tn_lanes_total(&from->sums[1], stride);
        for (int lane = 0; lane < TN_SUM_LANES; lane++)
            tn_part_merge(&all, &from[lane]);
    }
    return all;
}

TN_BODY int64_t tn_zeros_wanted(const tn_latent_entry *e, int64_t count)
{
    return (int64_t)floor((double)e->threshold_value * (double)count + 1e-9);
}

TN_BODY bool tn_latent_has_cuts(const tn_latent_entry *e, int64_t count)
{
    return (e->kind == TN_LATENT_TWN || e->kind == TN_LATENT_TTQ) &&
           (e->threshold_kind == TN_THRESHOLD_OPTIMAL ||
            (e->threshold_kind == TN_THRESHOLD_SPARSITY && tn_zeros_wanted(e, count) > 0));
}

TN_BODY float tn_latent_threshold(const tn_latent_entry *e, int64_t run, const tn_latent_part *part,
                                  uint32_t best_key)
{
    int64_t count;
    (void)tn_latent_run(e, run, &count);
    if (e->threshold_kind == TN_THRESHOLD_OPTIMAL && best_key > 0)
        best_key--; /* kept is what is greater */
    if (e->threshold_kind == TN_THRESHOLD_OPTIMAL || e->threshold_kind == TN_THRESHOLD_SPARSITY) {
        float threshold;
        memcpy(&threshold, &best_key, sizeof(threshold));
        return threshold;
    }
    float positive = part->positive, negative = part->negative;
    bool two = e->kind == TN_LATENT_TTQ || positive == 0.0f || negative == 0.0f;
    if (!part->mixed && (two || positive == negative)) /* ternary already */
        return 0.5f * (positive == 0.0f || (negative != 0.0f && negative < positive) ? negative
                                                                                     : positive);
    return e->threshold_kind == TN_THRESHOLD_MAX
               ? e->threshold_value * part->most
               : (float)((double)e->threshold_value * (part->sum / (double)count));
}

/* converter/steps.h: tn_step_legal */
TN_BODY float tn_legal_step(double step, int low, int high)
{
    const float greatest = 3.40282346638528859812e+38f;
    int widest = -low > high ? -low : high;
    double most = (double)greatest / widest;
    if (!(step > 0.0))
        return 1.0f;
    if (step >= most)
        return nextafterf((float)most, 0.0f);
    float narrow = (float)step;
    return narrow > 0.0f ? narrow : 1.40129846432481707092e-45f;
}

/* One run's state from the sums of its pieces. */
TN_BODY void tn_latent_refresh_body(const tn_quantizing_args *k, int64_t i)
{
    const tn_latent_entry *e = tn_latent_at(k, TN_WALK_RUNS, &i);
    int64_t count;
    (void)tn_latent_run(e, i, &count);
    uint32_t best_key = tn_latent_has_cuts(e, count) ? k->cuts[e->cut + i] : 0;
    tn_latent_part part = tn_latent_part_of(k, e, i);
    const tn_quantizer_state *s = &e->state;
    switch (e->kind) {
    case TN_LATENT_TWN:
    case TN_LATENT_TTQ:
        s->threshold[i] = tn_latent_threshold(e, i, &part, best_key);
        break;
    case TN_LATENT_AFFINE: {
        float scale = tn_legal_step(((double)part.high - (double)part.low) / (e->high - e->low),
                                    e->low - e->high, e->high - e->low);
        double zero = rint(e->low - (double)part.low / (double)scale);
        zero = zero < e->low ? e->low : zero > e->high ? e->high : zero;
        s->scale[i] = scale;
        s->zero[i] = (float)zero;
        break;
    }
    case TN_LATENT_DOREFA: {
        float mean = (float)(2 * (part.sum / (double)count));
        s->zero[i] = -0.5f;
        s->threshold[i] = tanhf(part.most);
        s->scale[i] = e->bits > 1 ? 2.0f / (float)(e->high - e->low)
                      : mean > 0.0f && mean <= 3.40282346638528859812e+38f ? mean
                                                                           : 1.0f;
        break;
    }
    case TN_LATENT_PARQ:
        if (part.other > 0.0 && part.sum > 0.0)
            s->scale[i] = tn_legal_step(part.sum / part.other, e->low, e->high);
        break;
    default:
        break;
    }
}

/* TWN's second pass: lane of a piece of a run, over what its threshold keeps. */
TN_BODY void tn_latent_kept_body(const tn_quantizing_args *k, int64_t i)
{
    const tn_latent_entry *e = tn_latent_at(k, TN_WALK_KEPT, &i);
    int64_t run = i / TN_SUM_LANES / e->pieces, count;
    int64_t first = i / TN_SUM_LANES % e->pieces * TN_SUM_PIECE;
    const float *w = e->w + tn_latent_run(e, run, &count);
    int64_t last = first + TN_SUM_PIECE < count ? first + TN_SUM_PIECE : count;
    float threshold = e->state.threshold[run];
    double number = 0.0, sum = 0.0;
    for (int64_t j = first + i % TN_SUM_LANES; j < last; j += TN_SUM_LANES) {
        bool kept = fabsf(w[j]) > threshold;
        number += kept ? 1.0 : 0.0;
        sum += kept ? (double)fabsf(w[j]) : 0.0;
    }
    k->parts[e->part + i].sums[0] = number;
    k->parts[e->part + i].sums[1] = sum;
}

/* Elements at a sparsity's threshold that are kept all the same, the first ones. */
TN_BODY int64_t tn_latent_ties(const tn_latent_entry *e, const float *w, int64_t count,
                               float threshold)
{
    int64_t above = 0;
    if (e->threshold_kind != TN_THRESHOLD_SPARSITY || threshold == 0.0f)
        return 0;
    for (int64_t j = 0; j < count; j++)
        above += fabsf(w[j]) > threshold;
    return count - tn_zeros_wanted(e, count) - above;
}

/* TWN's scale: the mean of what is kept. */
TN_BODY void tn_latent_scale_body(const tn_quantizing_args *k, int64_t i)
{
    const tn_latent_entry *e = tn_latent_at(k, TN_WALK_RUNS, &i);
    if (e->kind != TN_LATENT_TWN)
        return;
    tn_latent_part part = tn_latent_part_of(k, e, i);
    int64_t count, first = tn_latent_run(e, i, &count);
    float threshold = e->state.threshold[i];
    double ties = (double)tn_latent_ties(e, e->w + first, count, threshold);
    double mass = part.sums[0] + ties, moment = part.sums[1];
    for (double tie = 0.0; tie < ties; tie++)
        moment += (double)threshold;
    float mean = mass > 0.0 ? (float)(moment / mass) : 1.0f;
    e->state.scale[i] = mean > 0.0f ? mean : 1.0f;
}

/* --- values ----------------------------------------------------------------------------------- */

TN_BODY int tn_ternary_code(const tn_latent_entry *e, int64_t run, int64_t element)
{
    float w = e->w[element], threshold = e->state.threshold[run];
    int code = (w > threshold) - (w < -threshold);
    if (e->threshold_kind != TN_THRESHOLD_SPARSITY || fabsf(w) != threshold || threshold == 0.0f)
        return code;
    int64_t count, first = tn_latent_run(e, run, &count), before = 0;
    for (int64_t j = first; j < element; j++)
        before += fabsf(e->w[j]) == threshold;
    return before >= tn_latent_ties(e, e->w + first, count, threshold) ? code : w < 0.0f ? -1 : 1;
}

TN_BODY float tn_dorefa_value(const tn_latent_entry *e, int64_t run, float w)
{
    float most = e->state.threshold[run], code = w < 0.0f ? -1.0f : 0.0f;
    if (e->bits > 1) {
        float x = most > 0.0f ? tanhf(w) / (2.0f * most) + 0.5f : 0.5f;
        code = rintf(x * (float)(e->high - e->low)) + (float)e->low;
        code = tn_clamp(code, (float)e->low, (float)e->high);
    }
    return (code - e->state.zero[run]) * e->state.scale[run];
}

TN_BODY float tn_parq_value(const tn_latent_entry *e, int64_t run, float w)
{
    float scale = e->state.scale[run], v = tn_clamp(w / scale, (float)e->low, (float)e->high);
    if (!(e->rho_inv > 0.0f))
        return tn_round_even(v) * scale;
    float below = floorf(v), middle = below + 0.5f;
    return tn_clamp(middle + (v - middle) / e->rho_inv, below, below + 1.0f) * scale;
}

TN_BODY void tn_latent_values_body(const tn_quantizing_args *k, int64_t i)
{
    const tn_latent_entry *e = tn_latent_at(k, TN_WALK_ELEMENTS, &i);
    const tn_quantizer_state *s = &e->state;
    int64_t run = tn_latent_run_of(e, i);
    float w = e->w[i], value;
    switch (e->kind) {
    case TN_LATENT_TWN:
    case TN_LATENT_TTQ: {
        int code = tn_ternary_code(e, run, i);
        value = code == 0                  ? 0.0f
                : code > 0                 ? s->scale[run]
                : e->kind == TN_LATENT_TTQ ? -s->scale_neg[run]
                                           : -s->scale[run];
        break;
    }
    case TN_LATENT_DOREFA:
        value = tn_dorefa_value(e, run, w);
        break;
    case TN_LATENT_PARQ:
        value = tn_parq_value(e, run, w);
        break;
    default: {
        float zero = e->kind == TN_LATENT_AFFINE ? s->zero[run] : 0.0f;
        value = tn_round_clamped(w / s->scale[run], (float)e->low - zero, (float)e->high - zero) *
                s->scale[run];
        break;
    }
    }
    e->values[tn_latent_place(e, i)] = value;
}

/* --- gradients -------------------------------------------------------------------------------- */

TN_BODY void tn_latent_gradient_body(const tn_quantizing_args *k, int64_t i)
{
    const tn_latent_entry *e = tn_latent_at(k, TN_WALK_ELEMENTS, &i);
    int64_t run = tn_latent_run_of(e, i), at = tn_latent_place(e, i);
    float w = e->w[i], d = e->dvalues[at];
    switch (e->kind) {
    case TN_LATENT_TTQ: {
        float value = e->values[at];
        d *= value < 0.0f ? e->state.scale_neg[run] : value > 0.0f ? e->state.scale[run] : 1.0f;
        break;
    }
    case TN_LATENT_UNIFORM:
    case TN_LATENT_AFFINE: {
        float zero = e->kind == TN_LATENT_AFFINE ? e->state.zero[run] : 0.0f;
        float v = w / e->state.scale[run];
        d = v >= (float)e->low - zero && v <= (float)e->high - zero ? d : 0.0f;
        break;
    }
    case TN_LATENT_DOREFA:
        if (e->bits > 1) {
            float t = tanhf(w), most = e->state.threshold[run];
            d *= most > 0.0f ? (1.0f - t * t) / most : 1.0f;
        }
        break;
    default:
        break;
    }
    e->dw[i] = d;
}

/* What a slice of a run adds to the scales' gradients, a block each. */
TN_BODY void tn_latent_slopes_phase(const tn_quantizing_args *k, tn_tile_shared *s, int64_t block,
                                    int thread, int phase)
{
    const tn_latent_entry *e = tn_latent_at(k, TN_WALK_SLICES, &block);
    double sums[2] = {0.0, 0.0};
    for (int q = 0; q < 2 && phase > 0; q++) {
        sums[q] = tn_block_total(s, q, thread, phase);
        if (phase == 2 && thread == 0)
            k->slopes[e->slope + block][q] = sums[q];
    }
    if (phase > 0)
        return;
    int64_t run = block / e->slices, count, from = block % e->slices * TN_SLICE;
    int64_t first = tn_latent_run(e, run, &count);
    int64_t last = from + TN_SLICE < count ? from + TN_SLICE : count;
    float scale = e->state.scale[run];
    for (int64_t j = from + thread; j < last; j += TN_GPU_BLOCK) {
        int64_t at = tn_latent_place(e, first + j);
        double d = (double)e->dvalues[at];
        if (e->kind == TN_LATENT_TTQ) {
            float value = e->values[at];
            sums[0] += value > 0.0f ? d : 0.0;
            sums[1] += value < 0.0f ? d : 0.0;
        } else {
            float v = e->w[first + j] / scale, low = (float)e->low, high = (float)e->high;
            bool inside = v >= low && v <= high;
            sums[0] += d * (double)(tn_round_clamped(v, low, high) - (inside ? v : 0.0f));
        }
    }
    s->sums[0][thread] = sums[0];
    s->sums[1][thread] = sums[1];
}

TN_BODY void tn_latent_slope_body(const tn_quantizing_args *k, int64_t i)
{
    const tn_latent_entry *e = tn_latent_at(k, TN_WALK_SLOPES, &i);
    int64_t count;
    double sums[2] = {0.0, 0.0};
    (void)tn_latent_run(e, i, &count);
    for (int64_t slice = 0; slice < e->slices; slice++) {
        sums[0] += k->slopes[e->slope + i * e->slices + slice][0];
        sums[1] += k->slopes[e->slope + i * e->slices + slice][1];
    }
    if (e->kind != TN_LATENT_TTQ) {
        double most = e->high > 1 ? e->high : 1;
        sums[0] /= sqrt((double)count * most);
    }
    e->dscale[i] = (float)sums[0];
    if (e->dscale_neg)
        e->dscale_neg[i] = (float)-sums[1];
}

#endif
