#include "data/loader.h"

#include "core/checked.h"
#include "core/memory.h"
#include "core/random.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { DEPTH = 4, MAX_THREADS = 64, KEPT_MESSAGES = 16, MAX_TRIES = 256 };
enum { CACHE_EMPTY, CACHE_FULL };

typedef struct loader_slot {
    tn_batch batch;
    float *values;
    unsigned char *pixels;
    int32_t *labels, *partner_labels;
    float *partner_shares;
    bool *bad; /* corrupt, perhaps replaced; the consumer counts them */
    uint32_t *indices;
    tn_augmentation *augmentations;
    size_t chunks_left;
    tn_status status; /* the worst that happened, apart from corrupt samples */
    size_t failed_at;
    tn_error error;
} loader_slot;

typedef struct loader_worker {
    tn_loader *loader;
    pthread_t thread;
    tn_image decoded, scratch, final;
} loader_worker;

struct tn_loader {
    const tn_dataset *dataset;
    tn_loader_options options;
    tn_preprocess preprocess;
    tn_augment_options augment;
    tn_sample_shape shape; /* of what comes out */
    tn_normalization normalization;
    uint32_t epoch;
    uint32_t *order; /* samples of the epoch */
    size_t n_order, n_batches, local_batch, chunk;
    /* guarded by the lock */
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    size_t next_batch, next_chunk; /* to be handed to a worker */
    size_t consumed;               /* batches given back by the consumer */
    size_t busy;                   /* workers inside a chunk */
    bool holding, running, stop;
    loader_slot slots[DEPTH];
    loader_worker workers[MAX_THREADS];
    int n_threads, n_started;
    /* decoded samples; flags go from EMPTY to FULL once */
    unsigned char *cache;
    atomic_uchar *cached;
    /* corrupt samples, touched by the consumer alone */
    unsigned char *bad_seen;
    size_t n_bad;
    char bad_message[KEPT_MESSAGES][320];
};

static size_t sample_elements(const tn_loader *loader)
{
    return (size_t)loader->shape.width * (size_t)loader->shape.height *
           (size_t)loader->shape.channels;
}

/* --- one sample ------------------------------------------------------------------------------ */

static tn_status decode_sample(loader_worker *worker, size_t index, tn_error *error)
{
    const tn_loader *loader = worker->loader;
    tn_status status = tn_dataset_read(loader->dataset, index, &worker->decoded, error);
    if (status != TN_OK)
        return status;
    if (loader->augment.min_area > 0.0f) {
        tn_resize_box box =
            tn_augment_draw_box(&loader->augment, loader->options.seed, loader->epoch, index,
                                worker->decoded.width, worker->decoded.height);
        bool convert = worker->decoded.channels != loader->shape.channels;
        tn_image *sized = convert ? &worker->scratch : &worker->final;
        status = tn_image_resize(&worker->decoded, &box, loader->shape.width, loader->shape.height,
                                 sized, error);
        if (status == TN_OK && convert)
            status =
                tn_image_convert_channels(sized, loader->shape.channels, &worker->final, error);
    } else {
        status = tn_preprocess_geometry(&loader->preprocess, &worker->decoded, &worker->scratch,
                                        &worker->final, error);
    }
    if (status != TN_OK)
        return status;
    const tn_image *f = &worker->final;
    if (f->width != loader->shape.width || f->height != loader->shape.height ||
        f->channels != loader->shape.channels)
        return tn_fail(error, TN_ERROR_DATA, "sample %zu is %dx%dx%d, not %dx%dx%d as the others",
                       index, f->width, f->height, f->channels, loader->shape.width,
                       loader->shape.height, loader->shape.channels);
    return TN_OK;
}

/* The sample before augmentation, in worker->final: from the cache or decoded. */
static tn_status fetch_sample(loader_worker *worker, size_t index, tn_error *error)
{
    tn_loader *loader = worker->loader;
    size_t bytes = sample_elements(loader);
    if (loader->cache &&
        atomic_load_explicit(&loader->cached[index], memory_order_acquire) == CACHE_FULL) {
        tn_status status = tn_image_reserve(&worker->final, loader->shape.width,
                                            loader->shape.height, loader->shape.channels, error);
        if (status == TN_OK)
            memcpy(worker->final.pixels, loader->cache + index * bytes, bytes);
        return status;
    }
    tn_status status = decode_sample(worker, index, error);
    /* a sample stands once in an epoch, so nobody else fills this place now */
    if (status == TN_OK && loader->cache) {
        memcpy(loader->cache + index * bytes, worker->final.pixels, bytes);
        atomic_store_explicit(&loader->cached[index], CACHE_FULL, memory_order_release);
    }
    return status;
}

static void augment_values(const tn_loader *loader, const unsigned char *src,
                           const tn_augmentation *a, const unsigned char *partner,
                           const tn_augmentation *b, float *dst)
{
    int width = loader->shape.width, height = loader->shape.height;
    int channels = loader->shape.channels;
    size_t plane = (size_t)width * (size_t)height;
    bool planar = loader->options.output == TN_LOADER_VALUES_NCHW;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            float v[TN_PIXEL_CHANNELS];
            size_t at = (size_t)y * (size_t)width + (size_t)x;
            tn_pixel_mixed(src, a, partner, b, width, height, channels, &loader->normalization, x,
                           y, v);
            for (size_t k = 0; k < (size_t)channels; k++)
                dst[planar ? k * plane + at : at * (size_t)channels + k] = v[k];
        }
}

/* Position `i` of a slot: pixels (or values) and label. Corrupt samples are marked or replaced. */
static tn_status fill_position(loader_worker *worker, loader_slot *slot, size_t i, tn_error *error)
{
    tn_loader *loader = worker->loader;
    size_t elements = sample_elements(loader), index = slot->indices[i];
    size_t count = tn_dataset_count(loader->dataset);
    tn_status status = fetch_sample(worker, index, error);
    slot->labels[i] = tn_dataset_label(loader->dataset, index);
    slot->bad[i] = status == TN_ERROR_DATA;
    if (slot->bad[i]) {
        slot->labels[i] = TN_BAD_SAMPLE;
        *error = (tn_error){0};
        for (size_t k = 1; loader->options.replace_bad && k < count && k < MAX_TRIES; k++) {
            size_t other = (index + k) % count;
            status = decode_sample(worker, other, error);
            if (status == TN_OK)
                slot->labels[i] = tn_dataset_label(loader->dataset, other);
            if (status != TN_ERROR_DATA)
                break;
            *error = (tn_error){0};
        }
    }
    if (status != TN_OK && status != TN_ERROR_DATA)
        return status;
    bool bad = status == TN_ERROR_DATA;
    const tn_image *image = &worker->final;
    bool grey = !bad && image->pixels && loader->augment.contrast > 0.0f;
    slot->augmentations[i] = tn_augment_draw(
        &loader->augment, loader->options.seed, loader->epoch, index, loader->shape.width,
        loader->shape.height,
        grey ? tn_augment_mean_grey(image->pixels, elements / (size_t)image->channels,
                                    image->channels)
             : 0.0f);
    if (slot->pixels && bad)
        memset(slot->pixels + i * elements, 0, elements);
    else if (slot->pixels)
        memcpy(slot->pixels + i * elements, image->pixels, elements);
    if (slot->values && bad)
        memset(slot->values + i * elements, 0, elements * sizeof(float));
    else if (slot->values && !slot->pixels)
        tn_preprocess_values(&loader->preprocess, image,
                             loader->options.output == TN_LOADER_VALUES_NCHW ? TN_IMAGE_NCHW
                                                                             : TN_IMAGE_NHWC,
                             slot->values + i * elements);
    return TN_OK;
}

/* Values of positions [first, last) from the slot's pixels: augmentation on the host. Chunks are
 * even, so partners lie inside. */
static void finish_positions(const tn_loader *loader, loader_slot *slot, size_t first, size_t last)
{
    size_t elements = sample_elements(loader);
    for (size_t i = first; i < last; i++) {
        size_t p = i ^ 1;
        bool mixes = loader->augment.mixup > 0.0f && p < last && slot->labels[p] >= 0;
        if (!mixes)
            slot->augmentations[i].mix = 0.0f;
        if (slot->values && slot->pixels && slot->labels[i] != TN_BAD_SAMPLE)
            augment_values(loader, slot->pixels + i * elements, &slot->augmentations[i],
                           mixes ? slot->pixels + p * elements : NULL, &slot->augmentations[p],
                           slot->values + i * elements);
        slot->partner_labels[i] = mixes ? slot->labels[p] : slot->labels[i];
        slot->partner_shares[i] = slot->augmentations[i].mix;
    }
}

/* --- threads ---------------------------------------------------------------------------------- */

static size_t chunk_count(const tn_loader *loader, const loader_slot *slot)
{
    return (slot->batch.count + loader->chunk - 1) / loader->chunk;
}

/* Sets up a slot for the batch about to be handed out. Called with the lock held. */
static void begin_batch(tn_loader *loader, size_t number)
{
    loader_slot *slot = &loader->slots[number % DEPTH];
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
            loader->next_batch < loader->consumed + DEPTH) {
            loader_slot *slot = &loader->slots[loader->next_batch % DEPTH];
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
        loader_slot *slot = &loader->slots[number % DEPTH];
        loader->busy++;
        pthread_mutex_unlock(&loader->lock);
        size_t first = chunk * loader->chunk;
        size_t last =
            first + loader->chunk < slot->batch.count ? first + loader->chunk : slot->batch.count;
        tn_error error = {0};
        tn_status status = TN_OK;
        size_t i = first;
        for (; i < last && status == TN_OK; i++)
            status = fill_position(worker, slot, i, &error);
        if (status == TN_OK)
            finish_positions(loader, slot, first, last);
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
        for (size_t i = 0; i < MAX_TRIES && i < tn_dataset_count(loader->dataset); i++)
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
    size_t elements = sample_elements(loader), n = loader->local_batch, total;
    bool bytes = !loader->shape.is_float &&
                 (loader->options.output == TN_LOADER_PIXELS || tn_augment_is_on(&loader->augment));
    bool values = loader->options.output != TN_LOADER_PIXELS;
    bool fits = tn_checked_mul_size(elements, n, &total);
    for (size_t i = 0; fits && i < DEPTH; i++) {
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
        !tn_checked_mul_size(sample_elements(loader), count, &total) || total > most)
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
        return loader->options.threads < MAX_THREADS ? loader->options.threads : MAX_THREADS;
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
    for (size_t i = 0; i < DEPTH; i++) {
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
        if (loader->n_bad < KEPT_MESSAGES)
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
    loader_slot *slot = &loader->slots[loader->consumed % DEPTH];
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

size_t tn_loader_bad_count(const tn_loader *loader)
{
    return loader->n_bad;
}

const char *tn_loader_bad_message(const tn_loader *loader, size_t i)
{
    return i < loader->n_bad && i < KEPT_MESSAGES ? loader->bad_message[i] : NULL;
}
