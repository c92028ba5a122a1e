#include "finetune/resident.h"

#include "converter/quantizers/ternary.h"
#include "core/memory.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

enum { ALIGN = 64 }; /* floats */

typedef struct array { /* the same numbers on the host and on the device */
    float *host, *device;
    int64_t count;
} array;

typedef struct part { /* a prepared verb */
    tn_kernel *kernel;
    void *state;
} part;

struct tn_resident {
    tn_device *device;
    tn_params *params;
    tn_latents *latents;
    tn_optimizer *optimizer;
    float *memory; /* of all arrays below, on the device */
    size_t used;   /* floats */
    array *arrays;
    size_t n_arrays;
    tn_quantizer_item *quantizers;
    tn_optimizer_item *updates;
    int n_quantizers, n_updates;
    bool *from_host; /* per latent: the device cannot refresh it */
    part quantizer, norm, update, tally, judge;
    void *workspace;
    double *squares;
    tn_step_state *step;
    double clip;
    int pending; /* steps since the host looked */
    bool inside, packed;
};

/* Device memory of `count` floats; NULL while only counting. */
static float *place(tn_resident *r, int64_t count)
{
    float *memory = r->memory ? r->memory + r->used : NULL;
    r->used += ((size_t)count + ALIGN - 1) / ALIGN * ALIGN;
    return memory;
}

static float *pair(tn_resident *r, float *host, int64_t count)
{
    if (!host)
        return NULL;
    float *device = place(r, count);
    r->arrays[r->n_arrays++] = (array){host, device, count};
    return device;
}

static void describe_latent(tn_resident *r, size_t i)
{
    tn_latent *latent = &r->latents->item[i];
    const tn_param *param = tn_params_at(r->params, latent->param);
    int64_t count = latent->weight.rows * latent->weight.cols, scales = latent->weight.n_scales;
    tn_quantizer_item *item = &r->quantizers[r->n_quantizers++];
    *item = (tn_quantizer_item){.scheme = &latent->scheme,
                                .shape = &latent->weight,
                                .rho_inv = &latent->state.rho_inv,
                                .refresh = latent->scheme.quantizer->refresh && !r->from_host[i],
                                .values = param->data,
                                .dvalues = param->gradient};
    item->w = pair(r, latent->w, count);
    item->state.scale = pair(r, latent->state.scale, scales);
    item->state.scale_neg = pair(r, latent->state.scale_neg, scales);
    item->state.zero = pair(r, latent->state.zero, scales);
    item->state.threshold = pair(r, latent->state.threshold, scales);
    item->dw = place(r, count);
    if (latent->trains_scale && !param->frozen) {
        item->dscale = place(r, scales);
        if (latent->scheme.quantizer->two_scales)
            item->dscale_neg = place(r, scales);
    }
}

/* Where a slot's value lies on the device, and its gradient; false: nowhere. */
static bool find_slot(const tn_resident *r, const tn_slot *slot, tn_optimizer_item *item)
{
    item->floor = slot->floor;
    for (size_t i = 0; i < tn_params_count(r->params); i++) {
        const tn_param *param = tn_params_at(r->params, i);
        if (param->host != slot->value || !param->gradient)
            continue;
        item->value = param->data;
        item->gradient = param->gradient;
        return true;
    }
    for (size_t i = 0; i < r->latents->count; i++) {
        const tn_latent *latent = &r->latents->item[i];
        const tn_quantizer_item *q = &r->quantizers[i];
        const struct {
            const float *host;
            const float *device, *gradient;
            float floor;
        } places[] = {{latent->w, q->w, q->dw, -INFINITY},
                      {latent->state.scale, q->state.scale, q->dscale, TN_SCALE_FLOOR},
                      {latent->state.scale_neg, q->state.scale_neg, q->dscale_neg, TN_SCALE_FLOOR},
                      {latent->state.zero, q->state.zero, NULL, -INFINITY}};
        for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
            if (places[k].host != slot->value)
                continue;
            item->value = (float *)(uintptr_t)places[k].device;
            item->gradient = places[k].gradient;
            item->floor = places[k].floor;
            return true;
        }
    }
    return false;
}

/* Fills the lists; twice: to count, then with the memory there. False: a slot the device does not
 * know. */
static bool describe(tn_resident *r)
{
    r->used = r->n_arrays = 0;
    r->n_quantizers = r->n_updates = 0;
    r->squares = (double *)(void *)place(r, ALIGN);
    r->step = (tn_step_state *)(void *)place(r, sizeof *r->step / sizeof(float));
    for (size_t i = 0; i < r->latents->count; i++)
        describe_latent(r, i);
    for (size_t i = 0; i < r->optimizer->n_slots; i++) {
        const tn_slot *slot = &r->optimizer->slots[i];
        tn_optimizer_item item = {.count = slot->count, .rate = slot->rate, .decay = slot->decay};
        if (!find_slot(r, slot, &item))
            return false;
        item.first = pair(r, slot->first, slot->count);
        item.second = pair(r, slot->second, slot->count);
        item.average = pair(r, slot->average, slot->count);
        if (!slot->frozen)
            r->updates[r->n_updates++] = item;
    }
    return true;
}

/* Latents whose statistics the device leaves to the host; false: it has no quantizers at all. */
static bool ask_device(tn_resident *r)
{
    tn_task update = {.verb = TN_VERB_OPTIMIZER, .precision = TN_PRECISION_FP32};
    if (!r->device->type->supports(r->device, &update, NULL, 0))
        return false;
    for (size_t i = 0; i < r->latents->count; i++) {
        const tn_latent *latent = &r->latents->item[i];
        tn_quantizer_item item = {
            .scheme = &latent->scheme, .shape = &latent->weight, .refresh = true};
        tn_task task = {.verb = TN_VERB_QUANTIZER,
                        .precision = TN_PRECISION_FP32,
                        .quantizer = {.items = &item, .n = 1}};
        r->from_host[i] = !r->device->type->supports(r->device, &task, NULL, 0);
        item.refresh = false;
        if (r->from_host[i] && !r->device->type->supports(r->device, &task, NULL, 0))
            return false;
    }
    return true;
}

static tn_status no_memory(const tn_resident *r, size_t bytes, tn_error *error)
{
    return tn_fail(error, tn_device_memory_status(r->device),
                   "no memory on %s for %zu bytes of latent weights and optimizer state: use a "
                   "smaller --batch-size or --device cpu",
                   r->device->id, bytes);
}

static tn_status prepare_part(tn_resident *r, const tn_task *task, part *p, size_t *workspace,
                              tn_error *error)
{
    tn_status status = r->device->type->prepare(r->device, task, &p->kernel, error);
    if (status != TN_OK)
        return status;
    p->state = r->device->type->alloc(r->device, p->kernel->state_bytes + 1);
    if (p->kernel->workspace_bytes > *workspace)
        *workspace = p->kernel->workspace_bytes;
    return p->state ? TN_OK : no_memory(r, p->kernel->state_bytes, error);
}

static tn_status prepare_parts(tn_resident *r, tn_error *error)
{
    size_t workspace = 1;
    tn_task task = {.precision = TN_PRECISION_FP32, .backward = true};
    task.verb = TN_VERB_QUANTIZER;
    task.quantizer = (tn_quantizer_task){r->quantizers, r->n_quantizers};
    tn_status status = prepare_part(r, &task, &r->quantizer, &workspace, error);
    task.optimizer = (tn_optimizer_task){r->optimizer->rule, r->updates, r->n_updates};
    task.verb = TN_VERB_NORM;
    if (status == TN_OK)
        status = prepare_part(r, &task, &r->norm, &workspace, error);
    task.verb = TN_VERB_OPTIMIZER;
    if (status == TN_OK)
        status = prepare_part(r, &task, &r->update, &workspace, error);
    task.verb = TN_VERB_TALLY;
    if (status == TN_OK)
        status = prepare_part(r, &task, &r->tally, &workspace, error);
    task.verb = TN_VERB_JUDGE;
    task.judge.clip = r->clip;
    if (status == TN_OK)
        status = prepare_part(r, &task, &r->judge, &workspace, error);
    if (status != TN_OK)
        return status;
    r->workspace = r->device->type->alloc(r->device, workspace);
    return r->workspace ? TN_OK : no_memory(r, workspace, error);
}

static tn_arguments arguments(const tn_resident *r, const part *p)
{
    return (tn_arguments){.dst = (float *)(void *)r->squares,
                          .state = p->state,
                          .workspace = r->workspace,
                          .step = r->step};
}

tn_status tn_resident_create(tn_device *device, tn_params *params, tn_latents *latents,
                             tn_optimizer *optimizer, double clip, tn_resident **resident,
                             tn_error *error)
{
    *resident = NULL;
    if (device->host_memory)
        return TN_OK;
    size_t n = latents->count + 1, slots = optimizer->n_slots + 1;
    tn_status status = TN_OK;
    tn_resident *r = tn_alloc_zero(1, sizeof *r);
    if (r) {
        *r = (tn_resident){.device = device,
                           .params = params,
                           .latents = latents,
                           .optimizer = optimizer,
                           .clip = clip,
                           .arrays = tn_alloc_array(5 * n + 3 * slots, sizeof(array)),
                           .quantizers = tn_alloc_zero(n, sizeof(tn_quantizer_item)),
                           .updates = tn_alloc_zero(slots, sizeof(tn_optimizer_item)),
                           .from_host = tn_alloc_zero(n, sizeof(bool))};
    }
    if (!r || !r->arrays || !r->quantizers || !r->updates || !r->from_host) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the optimizer");
        goto fail;
    }
    if (!ask_device(r) || !describe(r)) {
        status = tn_fail(error, TN_ERROR_DEVICE,
                         "%s cannot train with this quantizer and optimizer: use --device cpu",
                         device->id);
        goto fail;
    }
    r->memory = device->type->alloc(device, r->used * sizeof(float));
    if (!r->memory) {
        status = no_memory(r, r->used * sizeof(float), error);
        goto fail;
    }
    (void)describe(r);
    status = prepare_parts(r, error);
    if (status != TN_OK)
        goto fail;
    tn_arguments args = arguments(r, &r->norm);
    status = r->norm.kernel->type->pack(r->norm.kernel, &args, error);
    if (status == TN_OK)
        status = device->type->zero(device, r->step, sizeof *r->step, error);
    if (status != TN_OK)
        goto fail;
    *resident = r;
    return TN_OK;
fail:
    tn_resident_destroy(r);
    return status;
}

static void part_done(tn_resident *r, part *p)
{
    tn_kernel_destroy(p->kernel);
    r->device->type->release(r->device, p->state);
}

void tn_resident_destroy(tn_resident *r)
{
    if (!r)
        return;
    part_done(r, &r->quantizer);
    part_done(r, &r->norm);
    part_done(r, &r->update);
    part_done(r, &r->tally);
    part_done(r, &r->judge);
    r->device->type->release(r->device, r->workspace);
    r->device->type->release(r->device, r->memory);
    tn_free(r->arrays);
    tn_free(r->quantizers);
    tn_free(r->updates);
    tn_free(r->from_host);
    tn_free(r);
}

/* Whether a scheme's own numbers change from step to step. */
static bool is_annealed(const tn_resident *r)
{
    for (size_t i = 0; i < r->latents->count; i++)
        if (r->latents->item[i].state.rho_inv != 0.0f ||
            r->latents->item[i].scheme.threshold == TN_THRESHOLD_SPARSITY)
            return true;
    return false;
}

static tn_status send(const tn_resident *r, float *device, const float *host, int64_t count,
                      tn_error *error)
{
    return r->device->type->upload(r->device, device, host, (size_t)count * sizeof(float), error);
}

static tn_status fetch(const tn_resident *r, float *host, const float *device, int64_t count,
                       tn_error *error)
{
    return r->device->type->download(r->device, host, device, (size_t)count * sizeof(float), error);
}

/* Latents whose thresholds the device does not find: the host does. */
static tn_status refresh_on_host(tn_resident *r, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; i < r->latents->count && status == TN_OK; i++) {
        tn_latent *latent = &r->latents->item[i];
        const tn_quantizer_item *item = &r->quantizers[i];
        int64_t count = latent->weight.rows * latent->weight.cols, n = latent->weight.n_scales;
        if (!r->from_host[i])
            continue;
        status = fetch(r, latent->w, item->w, count, error);
        if (status != TN_OK)
            return status;
        latent->scheme.quantizer->refresh(&latent->scheme, &latent->weight, latent->w,
                                          &latent->state);
        status = send(r, item->state.threshold, latent->state.threshold, n, error);
        if (status == TN_OK && !latent->trains_scale)
            status = send(r, item->state.scale, latent->state.scale, n, error);
    }
    return status;
}

tn_status tn_resident_enter(tn_resident *r, tn_error *error)
{
    tn_status status = TN_OK;
    if (!r->inside) {
        status = tn_params_push(r->params, error);
        for (size_t i = 0; i < r->n_arrays && status == TN_OK; i++)
            status = send(r, r->arrays[i].device, r->arrays[i].host, r->arrays[i].count, error);
        r->inside = status == TN_OK;
    }
    if (status == TN_OK && (!r->packed || is_annealed(r))) {
        tn_arguments args = arguments(r, &r->quantizer);
        status = r->quantizer.kernel->type->pack(r->quantizer.kernel, &args, error);
        /* once more after the end of what was annealed */
        r->packed = status == TN_OK && !is_annealed(r);
    }
    return status == TN_OK ? refresh_on_host(r, error) : status;
}

tn_status tn_resident_quantize(tn_resident *r, tn_error *error)
{
    tn_arguments args = arguments(r, &r->quantizer);
    for (size_t i = 0; i < r->latents->count; i++)
        tn_params_touch(r->params, r->latents->item[i].param);
    return r->quantizer.kernel->type->forward(r->quantizer.kernel, &args, error);
}

tn_status tn_resident_collect(tn_resident *r, tn_error *error)
{
    tn_arguments args = arguments(r, &r->quantizer);
    tn_status status = r->quantizer.kernel->type->backward(r->quantizer.kernel, &args, error);
    args = arguments(r, &r->norm);
    return status == TN_OK ? r->norm.kernel->type->forward(r->norm.kernel, &args, error) : status;
}

tn_status tn_resident_norm(tn_resident *r, double *norm, tn_error *error)
{
    double squares;
    tn_status status =
        r->device->type->download(r->device, &squares, r->squares, sizeof squares, error);
    if (status == TN_OK)
        *norm = sqrt(squares);
    return status;
}

/* What the next update is made with; `factors` for each number of dropped steps are filled in. */
static tn_status send_update(tn_resident *r, const tn_update *update, tn_error *error)
{
    tn_arguments args = arguments(r, &r->update);
    args.update = update;
    return r->update.kernel->type->pack(r->update.kernel, &args, error);
}

tn_status tn_resident_prepare(tn_resident *r, double lr, double gradient_scale, tn_error *error)
{
    const tn_update update = {.lr = lr,
                              .after = {tn_optimizer_factors(r->optimizer, r->optimizer->steps)}};
    const tn_step_state decided = {.updates = 1, .gradient_scale = (float)gradient_scale};
    tn_status status =
        r->device->type->upload(r->device, r->step, &decided, offsetof(tn_step_state, loss), error);
    return status == TN_OK ? send_update(r, &update, error) : status;
}

tn_status tn_resident_update(tn_resident *r, tn_error *error)
{
    tn_arguments args = arguments(r, &r->update);
    return r->update.kernel->type->forward(r->update.kernel, &args, error);
}

static void touch_trained(tn_resident *r)
{
    for (size_t i = 0; i < tn_params_count(r->params); i++)
        if (tn_params_at(r->params, i)->trainable)
            tn_params_touch(r->params, i);
}

void tn_resident_updated(tn_resident *r)
{
    touch_trained(r);
    r->optimizer->steps++;
}

tn_status tn_resident_announce(tn_resident *r, double lr, tn_error *error)
{
    tn_update update = {.lr = lr};
    if (r->pending >= TN_STEP_LOG)
        return tn_fail(error, TN_ERROR_USAGE, "%d steps wait to be looked at", r->pending);
    for (int dropped = 0; dropped <= r->pending; dropped++)
        update.after[dropped] = tn_optimizer_factors(
            r->optimizer, r->optimizer->steps + (uint64_t)(r->pending - dropped));
    return send_update(r, &update, error);
}

tn_status tn_resident_tally(tn_resident *r, const float *sums, bool adds, tn_error *error)
{
    const float *src[1] = {sums};
    tn_arguments args = arguments(r, &r->tally);
    args.src = src;
    args.accumulate_params = adds;
    return r->tally.kernel->type->forward(r->tally.kernel, &args, error);
}

tn_status tn_resident_conclude(tn_resident *r, tn_error *error)
{
    const float *src[1] = {(const float *)(const void *)r->squares};
    tn_arguments args = arguments(r, &r->judge);
    args.src = src;
    tn_status status = r->judge.kernel->type->forward(r->judge.kernel, &args, error);
    return status == TN_OK ? tn_resident_update(r, error) : status;
}

void tn_resident_concluded(tn_resident *r)
{
    touch_trained(r);
    r->pending++;
}

int tn_resident_pending(const tn_resident *r)
{
    return r ? r->pending : 0;
}

tn_status tn_resident_look(tn_resident *r, tn_step_record *records, int *n, tn_error *error)
{
    tn_step_state state;
    *n = 0;
    if (r->pending == 0)
        return TN_OK;
    tn_status status = r->device->type->download(r->device, &state, r->step, sizeof state, error);
    if (status == TN_OK)
        status = r->device->type->zero(r->device, r->step, offsetof(tn_step_state, loss), error);
    if (status != TN_OK)
        return status;
    *n = state.noted;
    memcpy(records, state.log, (size_t)state.noted * sizeof *records);
    for (int i = 0; i < state.noted; i++)
        r->optimizer->steps += records[i].updated > 0.0;
    r->pending = 0;
    return TN_OK;
}

/* The plain parameters: the store's own copies. */
static tn_status fetch_params(const tn_resident *r, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; i < tn_params_count(r->params) && status == TN_OK; i++) {
        tn_param *param = tn_params_at(r->params, i);
        if (param->trainable)
            status = tn_params_get(r->params, i, param->host, error);
    }
    return status;
}

tn_status tn_resident_leave(tn_resident *r, tn_error *error)
{
    if (!r || !r->inside)
        return TN_OK;
    if (r->pending > 0)
        return tn_fail(error, TN_ERROR_USAGE, "%d steps wait to be looked at", r->pending);
    tn_status status = fetch_params(r, error);
    for (size_t i = 0; i < r->n_arrays && status == TN_OK; i++)
        status = fetch(r, r->arrays[i].host, r->arrays[i].device, r->arrays[i].count, error);
    if (status == TN_OK)
        r->inside = false;
    return status;
}
