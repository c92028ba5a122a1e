#include "data/loader_state.h"

#include "core/checked.h"
#include "core/memory.h"
#include "core/random.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* --- threads ---------------------------------------------------------------------------------- */

static size_t chunk_count(const tn_loader *loader, const loader_slot *slot)
{
    return (slot->batch.count + loader->chunk - 1) / loader->chunk;
}

/* Sets up a slot for the batch about to be handed out. Called with the lock held. */
static void begin_batch(tn_loader *loader, size_t number)
{
    loader_slot *slot = &loader->slots[number % TN_LOADER_DEPTH];
    size_t ranks = (size_t)loader->options.ranks, rank = (size_t)loader->options.rank;
    size_t first = number * loader->options.batch;
    size_t left = loader->n_order - first;
    size_t total = left < loader->options.batch ? left : loader->options.batch;
    /* every rank's part begins where it would in a full batch */
    size_t local = loader->options.batch / ranks, from = rank * local;
    size_t count = from >= total ? 0 : total - from < local ? total - from : local;
    slot->batch.number = number;
    slot->batch.count = count;
    slot->batch.total = total;
    slot->status = TN_OK;
    if (count > 0)
        memcpy(slot->indices, loader->order + first + from, count * sizeof *slot->indices);
    slot->chunks_left = chunk_count(loader, slot);
}

/* Takes the next chunk; false when the thread shall end. Called with the lock held. */
static bool take_chunk(tn_loader *loader, size_t *number, size_t *chunk)
{
    for (;;) {
        if (loader->stop)
            return false;
        if (loader->running && loader->next_batch < loader->n_batches &&
            loader->next_batch < loader->consumed + TN_LOADER_DEPTH) {
            loader_slot *slot = &loader->slots[loader->next_batch % TN_LOADER_DEPTH];
            if (loader->next_chunk == 0)
                begin_batch(loader, loader->next_batch);
            size_t chunks = chunk_count(loader, slot);
            *number = loader->next_batch;
            *chunk = loader->next_chunk++;
            if (loader->next_chunk >= chunks) {
                loader->next_batch++;
                loader->next_chunk = 0;
            }
            if (chunks > 0)
                return true;
            pthread_cond_broadcast(&loader->done); /* a rank without a part of the last batch */
            continue;
        }
        pthread_cond_wait(&loader->work, &loader->lock);
    }
}

static void *work(void *argument)
{
    loader_worker *worker = argument;
    tn_loader *loader = worker->loader;
    size_t number, chunk;
    pthread_mutex_lock(&loader->lock);
    while (take_chunk(loader, &number, &chunk)) {
        loader_slot *slot = &loader->slots[number % TN_LOADER_DEPTH];
        loader->busy++;
        pthread_mutex_unlock(&loader->lock);
        size_t first = chunk * loader->chunk;
        size_t last =
            first + loader->chunk < slot->batch.count ? first + loader->chunk : slot->batch.count;
        tn_error error = {0};
        tn_status status = TN_OK;
        size_t i = first;
        for (; i < last && status == TN_OK; i++)
            status = tn_loader_fill(worker, slot, i, &error);
        if (status == TN_OK)
            tn_loader_finish(loader, slot, first, last);
        pthread_mutex_lock(&loader->lock);
        loader->busy--;
        if (status != TN_OK && (slot->status == TN_OK || i < slot->failed_at)) {
            slot->status = status;
            slot->failed_at = i;
            slot->error = error;
        }
        slot->chunks_left--;
        pthread_cond_broadcast(&loader->done);
    }
    pthread_mutex_unlock(&loader->lock);
    return NULL;
}

/* --- setting up ------------------------------------------------------------------------------- */

static tn_status check_options(const tn_loader_options *o, const tn_augment_options *augment,
                               tn_sample_shape shape, tn_error *error)
{
    if (o->batch == 0 || o->batch > INT32_MAX || !o->preprocess)
        return tn_fail(error, TN_ERROR_USAGE, "a loader needs a batch size and a preprocessing");
    if (o->ranks < 1 || o->rank < 0 || o->rank >= o->ranks || o->batch % (size_t)o->ranks != 0)
        return tn_fail(error, TN_ERROR_USAGE,
                       "a batch of %zu cannot be divided among %d ranks: choose a multiple",
                       o->batch, o->ranks);
    if (augment->mixup > 0.0f && (o->batch / (size_t)o->ranks) % 2 != 0)
        return tn_fail(error, TN_ERROR_USAGE, "mixup needs an even batch on every rank, not %zu",
                       o->batch / (size_t)o->ranks);
    if (shape.is_float && (tn_augment_is_on(augment) || o->output == TN_LOADER_PIXELS))
        return tn_fail(error, TN_ERROR_USAGE,
                       "arrays of floats are not augmented: use images, or arrays of bytes");
    return TN_OK;
}

/* What every sample will look like. */
static tn_status find_shape(tn_loader *loader, tn_error *error)
{
    tn_sample_shape in = tn_dataset_shape(loader->dataset);
    const tn_preprocess *p = &loader->preprocess;
    bool cropped = p->crop_width > 0;
    if (in.width == 0 && !cropped) {
        /* take the first readable sample's size: sets of equal pictures need no crop */
        tn_image image = {0};
        tn_status status = TN_ERROR_DATA;
        for (size_t i = 0; i < TN_LOADER_TRIES && i < tn_dataset_count(loader->dataset); i++)
            if ((status = tn_dataset_read(loader->dataset, i, &image, NULL)) == TN_OK)
                break;
        if (status != TN_OK)
            status = tn_dataset_read(loader->dataset, 0, &image, error);
        in.width = image.width;
        in.height = image.height;
        tn_image_done(&image);
        if (status != TN_OK)
            return status;
    }
    loader->shape = in;
    if (cropped) {
        loader->shape.width = p->crop_width;
        loader->shape.height = p->crop_height;
    } else {
        tn_preprocess_output_size(p, in.width, in.height, &loader->shape.width,
                                  &loader->shape.height);
    }
    if (!in.is_float)
        loader->shape.channels = p->channels;
    return tn_image_check_size((uint64_t)loader->shape.width, (uint64_t)loader->shape.height,
                               error);
}

static tn_status make_slots(tn_loader *loader, tn_error *error)
{
    size_t elements = tn_loader_elements(loader), n = loader->local_batch, total;
    bool bytes = !loader->shape.is_float &&
                 (loader->options.output == TN_LOADER_PIXELS || tn_augment_is_on(&loader->augment));
    bool values = loader->options.output != TN_LOADER_PIXELS;
    bool fits = tn_checked_mul_size(elements, n, &total);
    for (size_t i = 0; fits && i < TN_LOADER_DEPTH; i++) {
        loader_slot *slot = &loader->slots[i];
        slot->labels = tn_alloc_array(n, sizeof *slot->labels);
        slot->partner_labels = tn_alloc_array(n, sizeof *slot->partner_labels);
        slot->partner_shares = tn_alloc_array(n, sizeof *slot->partner_shares);
        slot->indices = tn_alloc_array(n, sizeof *slot->indices);
        slot->augmentations = tn_alloc_array(n, sizeof *slot->augmentations);
        slot->bad = tn_alloc_zero(n, sizeof *slot->bad);
        slot->pixels = bytes ? tn_alloc(total) : NULL;
        slot->values = values ? tn_alloc_array(total, sizeof(float)) : NULL;
        fits = slot->labels && slot->partner_labels && slot->partner_shares && slot->indices &&
               slot->augmentations && slot->bad && (slot->pixels || !bytes) &&
               (slot->values || !values);
        slot->batch = (tn_batch){.capacity = n,
                                 .width = loader->shape.width,
                                 .height = loader->shape.height,
                                 .channels = loader->shape.channels,
                                 .values = slot->values,
                                 .pixels = values ? NULL : slot->pixels,
                                 .labels = slot->labels,
                                 .indices = slot->indices,
                                 .augmentations = slot->augmentations,
                                 .partner_labels = slot->partner_labels,
                                 .partner_shares = slot->partner_shares};
    }
    if (!fits)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for batches of %zu x %dx%dx%d", n,
                       loader->shape.channels, loader->shape.height, loader->shape.width);
    return TN_OK;
}

/* Memory for decoded samples, if all fit; without it pictures are decoded anew every epoch. */
static void make_cache(tn_loader *loader)
{
    size_t count = tn_dataset_count(loader->dataset), total;
    size_t most = loader->options.cache_bytes ? loader->options.cache_bytes : (size_t)1 << 30;
    if (loader->shape.is_float || loader->augment.min_area > 0.0f ||
        loader->options.n_subset < count / 2 || /* not worth the room */
        !tn_checked_mul_size(tn_loader_elements(loader), count, &total) || total > most)
        return;
    loader->cache = tn_alloc(total);
    loader->cached = tn_alloc_zero(count, sizeof *loader->cached);
    if (!loader->cache || !loader->cached) {
        tn_free(loader->cache);
        tn_free(loader->cached);
        loader->cache = NULL;
        loader->cached = NULL;
    }
}

static void set_normalization(tn_loader *loader)
{
    const tn_preprocess *p = &loader->preprocess;
    bool bgr = p->bgr && loader->shape.channels == 3;
    loader->normalization.bgr = bgr;
    for (int k = 0; k < 3; k++) {
        int from = bgr ? 2 - k : k;
        loader->normalization.factor[k] = p->scale / p->deviation[from];
        loader->normalization.offset[k] = -p->mean[from] / p->deviation[from];
    }
}

static int choose_threads(const tn_loader *loader)
{
    if (loader->options.threads > 0)
        return loader->options.threads < TN_LOADER_THREADS ? loader->options.threads
                                                           : TN_LOADER_THREADS;
    if (tn_dataset_shape(loader->dataset).width > 0)
        return 1; /* nothing to decode */
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    return processors < 1 ? 1 : processors > 16 ? 16 : (int)processors;
}

static tn_status start_threads(tn_loader *loader, tn_error *error)
{
    loader->n_threads = choose_threads(loader);
    /* even, so that mixup's partners share a chunk */
    size_t chunk = loader->local_batch / (size_t)(2 * loader->n_threads) / 2 * 2;
    loader->chunk = chunk < 2 ? 2 : chunk > 32 ? 32 : chunk;
    for (int i = 0; i < loader->n_threads; i++) {
        loader->workers[i].loader = loader;
        if (pthread_create(&loader->workers[i].thread, NULL, work, &loader->workers[i]) != 0)
            return tn_fail(error, TN_ERROR_LIMIT, "no thread can be started to load images");
        loader->n_started++;
    }
    return TN_OK;
}

static tn_status prepare(tn_loader *loader, const tn_loader_options *options, tn_error *error)
{
    loader->options = *options;
    loader->options.ranks = options->ranks > 0 ? options->ranks : 1;
    if (options->augment)
        loader->augment = *options->augment;
    size_t count = tn_dataset_count(loader->dataset);
    if (!options->subset)
        loader->options.n_subset = count;
    for (size_t i = 0; options->subset && i < options->n_subset; i++)
        if (options->subset[i] >= count)
            return tn_fail(error, TN_ERROR_USAGE, "sample %u of a data set of %zu",
                           options->subset[i], count);
    tn_status status =
        check_options(&loader->options, &loader->augment, tn_dataset_shape(loader->dataset), error);
    if (status != TN_OK)
        return status;
    loader->preprocess = *options->preprocess;
    status = find_shape(loader, error);
    if (status != TN_OK)
        return status;
    size_t n = loader->options.n_subset, batch = options->batch;
    loader->n_order = n;
    loader->n_batches = options->drop_last ? n / batch : (n + batch - 1) / batch;
    loader->local_batch = batch / (size_t)loader->options.ranks;
    set_normalization(loader);
    loader->order = tn_alloc_array(n, sizeof *loader->order);
    loader->bad_seen = tn_alloc_zero(count, 1);
    if (!loader->order || !loader->bad_seen)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the order of %zu images", n);
    make_cache(loader);
    status = make_slots(loader, error);
    return status == TN_OK ? start_threads(loader, error) : status;
}

tn_status tn_loader_create(const tn_dataset *dataset, const tn_loader_options *options,
                           tn_loader **loader, tn_error *error)
{
    tn_loader *made = tn_alloc_zero(1, sizeof *made);
    if (!made)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a loader");
    made->dataset = dataset;
    pthread_mutex_init(&made->lock, NULL);
    pthread_cond_init(&made->work, NULL);
    pthread_cond_init(&made->done, NULL);
    tn_status status = prepare(made, options, error);
    if (status != TN_OK) {
        tn_loader_destroy(made);
        return status;
    }
    *loader = made;
    return TN_OK;
}

void tn_loader_destroy(tn_loader *loader)
{
    if (!loader)
        return;
    pthread_mutex_lock(&loader->lock);
    loader->stop = true;
    pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->lock);
    for (int i = 0; i < loader->n_started; i++) {
        loader_worker *worker = &loader->workers[i];
        pthread_join(worker->thread, NULL);
        tn_image_done(&worker->decoded);
        tn_image_done(&worker->scratch);
        tn_image_done(&worker->final);
    }
    for (size_t i = 0; i < TN_LOADER_DEPTH; i++) {
        loader_slot *slot = &loader->slots[i];
        tn_free(slot->labels);
        tn_free(slot->partner_labels);
        tn_free(slot->partner_shares);
        tn_free(slot->indices);
        tn_free(slot->augmentations);
        tn_free(slot->bad);
        tn_free(slot->pixels);
        tn_free(slot->values);
    }
    tn_free(loader->order);
    tn_free(loader->bad_seen);
    tn_free(loader->cache);
    tn_free(loader->cached);
    pthread_cond_destroy(&loader->work);
    pthread_cond_destroy(&loader->done);
    pthread_mutex_destroy(&loader->lock);
    tn_free(loader);
}

/* --- consuming -------------------------------------------------------------------------------- */

tn_status tn_loader_start(tn_loader *loader, uint32_t epoch, size_t first_batch, tn_error *error)
{
    if (first_batch > loader->n_batches)
        return tn_fail(error, TN_ERROR_USAGE, "batch %zu of an epoch of %zu", first_batch,
                       loader->n_batches);
    pthread_mutex_lock(&loader->lock);
    loader->running = false;
    while (loader->busy > 0)
        pthread_cond_wait(&loader->done, &loader->lock);
    size_t n = loader->n_order;
    if (loader->options.shuffle)
        tn_random_permutation(loader->options.seed, TN_PURPOSE_SHUFFLE, epoch, n, loader->order);
    else
        for (size_t i = 0; i < n; i++)
            loader->order[i] = (uint32_t)i;
    for (size_t i = 0; loader->options.subset && i < n; i++)
        loader->order[i] = loader->options.subset[loader->order[i]];
    loader->epoch = epoch;
    loader->next_batch = loader->consumed = first_batch;
    loader->next_chunk = 0;
    loader->holding = false;
    loader->running = true;
    pthread_cond_broadcast(&loader->work);
    pthread_mutex_unlock(&loader->lock);
    return TN_OK;
}

/* Counts the corrupt samples of a batch, in its order, each once. */
static tn_status count_bad(tn_loader *loader, loader_slot *slot, tn_error *error)
{
    for (size_t i = 0; i < slot->batch.count; i++) {
        uint32_t index = slot->indices[i];
        if (!slot->bad[i] || loader->bad_seen[index])
            continue;
        loader->bad_seen[index] = 1;
        tn_image image = {0};
        tn_error why = {0};
        char name[256];
        tn_dataset_sample_name(loader->dataset, index, name, sizeof name);
        /* decoded once more for its message; one that reads well now did not fit */
        tn_status again = tn_dataset_read(loader->dataset, index, &image, &why);
        tn_image_done(&image);
        const char *message = again == TN_OK ? "does not fit the others" : why.message;
        if (loader->n_bad < TN_LOADER_MESSAGES)
            snprintf(loader->bad_message[loader->n_bad], sizeof loader->bad_message[0],
                     "%s: %.150s", tn_quote(name), message);
        loader->n_bad++;
        if (loader->n_bad > loader->options.max_bad)
            return tn_fail(error, TN_ERROR_DATA,
                           "%zu corrupt image%s, and --max-bad allows %zu; the last is %s: %s",
                           loader->n_bad, loader->n_bad == 1 ? "" : "s", loader->options.max_bad,
                           tn_quote(name), message);
    }
    return TN_OK;
}

tn_status tn_loader_next(tn_loader *loader, const tn_batch **batch, tn_error *error)
{
    pthread_mutex_lock(&loader->lock);
    if (loader->holding) {
        loader->holding = false;
        loader->consumed++;
        pthread_cond_broadcast(&loader->work);
    }
    if (!loader->running || loader->consumed >= loader->n_batches) {
        pthread_mutex_unlock(&loader->lock);
        *batch = NULL;
        return TN_OK;
    }
    loader_slot *slot = &loader->slots[loader->consumed % TN_LOADER_DEPTH];
    while (loader->next_batch <= loader->consumed || slot->chunks_left > 0)
        pthread_cond_wait(&loader->done, &loader->lock);
    pthread_mutex_unlock(&loader->lock);
    if (slot->status != TN_OK) {
        if (error && error->code == TN_OK)
            *error = slot->error;
        return slot->status;
    }
    tn_status status = count_bad(loader, slot, error);
    if (status != TN_OK)
        return status;
    loader->holding = true;
    *batch = &slot->batch;
    return TN_OK;
}

size_t tn_loader_batches(const tn_loader *loader)
{
    return loader->n_batches;
}

size_t tn_loader_samples(const tn_loader *loader)
{
    size_t full = loader->n_batches * loader->options.batch;
    return full < loader->n_order ? full : loader->n_order;
}

tn_sample_shape tn_loader_shape(const tn_loader *loader)
{
    return loader->shape;
}

tn_normalization tn_loader_normalization(const tn_loader *loader)
{
    return loader->normalization;
}

bool tn_loader_augments(const tn_loader *loader)
{
    return tn_augment_is_on(&loader->augment);
}

void tn_loader_table(const tn_loader *loader, float *table)
{
    int channels = loader->shape.channels;
    for (int c = 0; c < channels; c++)
        tn_preprocess_table(&loader->preprocess, channels, c, table + (size_t)c * 256);
}

bool tn_loader_repeats(const tn_loader *loader)
{
    return loader->augment.min_area <= 0.0f;
}

size_t tn_loader_bad_count(const tn_loader *loader)
{
    return loader->n_bad;
}

const char *tn_loader_bad_message(const tn_loader *loader, size_t i)
{
    return i < loader->n_bad && i < TN_LOADER_MESSAGES ? loader->bad_message[i] : NULL;
}
