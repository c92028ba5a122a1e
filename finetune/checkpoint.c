#include "finetune/checkpoint.h"

#include "core/memory.h"
#include "finetune/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

enum { KEEP = 2, PATH_SIZE = 4096, NAME_SIZE = 256 };

/* One array of a checkpoint: its name there and where it lives. */
typedef struct part {
    char name[NAME_SIZE];
    float *data;
    int64_t count;
    size_t param; /* SIZE_MAX, or the store's entry to touch after a restore */
} part;

static bool is_statistic(const tn_param *param)
{
    return param->role == TN_PARAM_MEAN || param->role == TN_PARAM_VAR;
}

static size_t most_parts(const tn_checkpoint *checkpoint)
{
    return 4 * checkpoint->optimizer->n_slots + tn_params_count(checkpoint->params) + 2;
}

static void add_part(part *parts, size_t *count, const char *prefix, const char *name, float *data,
                     int64_t elements)
{
    if (!data)
        return;
    part *next = &parts[(*count)++];
    int length = snprintf(next->name, sizeof next->name, "%s/", prefix);
    tn_slot_name(NULL, name, next->name + length, sizeof next->name - (size_t)length);
    next->data = data;
    next->count = elements;
    next->param = SIZE_MAX;
}

/* All arrays in a fixed order; statistics are the host's copies. */
static size_t list_parts(const tn_checkpoint *checkpoint, part *parts)
{
    size_t count = 0;
    const tn_optimizer *optimizer = checkpoint->optimizer;
    for (size_t i = 0; i < optimizer->n_slots; i++) {
        const tn_slot *slot = &optimizer->slots[i];
        add_part(parts, &count, "value", slot->name, slot->value, slot->count);
        add_part(parts, &count, "first", slot->name, slot->first, slot->count);
        add_part(parts, &count, "second", slot->name, slot->second, slot->count);
        add_part(parts, &count, "average", slot->name, slot->average, slot->count);
    }
    for (size_t i = 0; i < tn_params_count(checkpoint->params); i++) {
        tn_param *param = tn_params_at(checkpoint->params, i);
        if (!is_statistic(param))
            continue;
        add_part(parts, &count, "statistic", param->name, param->host, param->count);
        parts[count - 1].param = i;
    }
    add_part(parts, &count, "guard", "window", checkpoint->state->guard.window, TN_GUARD_WINDOW);
    return count;
}

static json_t *describe(const tn_checkpoint *checkpoint)
{
    const tn_progress_state *s = checkpoint->state;
    const tn_run_identity *id = checkpoint->identity;
    char state[512];
    /* %a keeps doubles exact */
    snprintf(state, sizeof state,
             "%" PRIu64 " %" PRIu32 " %" PRIu32 " %a %a %" PRIu32 " %a %" PRId64 " %" PRId64
             " %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu32 " %" PRIu64,
             s->step, s->epoch, s->batch, s->lr_factor, s->best_loss, s->best_epoch, s->epoch_loss,
             s->epoch_top1, s->epoch_seen, s->guard.seen, s->guard.bad, s->guard.dropped,
             s->guard.rollbacks, checkpoint->optimizer->steps);
    char processes[16];
    snprintf(processes, sizeof processes, "%d", id->processes);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "format", "ternion-checkpoint-1",
                     "state", state, "recipe", id->recipe, "model", id->model, "data", id->data,
                     "machine", id->machine, "processes", processes);
}

static bool parse_state(const char *text, tn_progress_state *s, uint64_t *optimizer_steps)
{
    return text &&
           sscanf(text,
                  "%" SCNu64 " %" SCNu32 " %" SCNu32 " %la %la %" SCNu32 " %la %" SCNd64 " %" SCNd64
                  " %" SCNu32 " %" SCNu32 " %" SCNu32 " %" SCNu32 " %" SCNu64,
                  &s->step, &s->epoch, &s->batch, &s->lr_factor, &s->best_loss, &s->best_epoch,
                  &s->epoch_loss, &s->epoch_top1, &s->epoch_seen, &s->guard.seen, &s->guard.bad,
                  &s->guard.dropped, &s->guard.rollbacks, optimizer_steps) == 14;
}

static int newest_first(const void *a, const void *b)
{
    return -strcmp(a, b); /* zero-padded step numbers */
}

/* Names of step files, newest first; NULL when the folder cannot be read or memory is out. */
static char (*list_steps(const char *folder, size_t *count))[NAME_SIZE]
{
    char(*names)[NAME_SIZE] = NULL;
    size_t used = 0, capacity = 0;
    DIR *dir = opendir(folder);
    if (!dir)
        return NULL;
    for (struct dirent *entry; (entry = readdir(dir));) {
        size_t length = strlen(entry->d_name);
        if (strncmp(entry->d_name, "step-", 5) || length < 17 || length >= NAME_SIZE ||
            strcmp(entry->d_name + length - 12, ".safetensors"))
            continue;
        if (used == capacity) {
            capacity = capacity ? 2 * capacity : 16;
            void *grown = tn_realloc(names, capacity * sizeof *names);
            if (!grown) {
                tn_free(names);
                closedir(dir);
                return NULL;
            }
            names = grown;
        }
        memcpy(names[used++], entry->d_name, length + 1);
    }
    closedir(dir);
    if (used)
        qsort(names, used, sizeof *names, newest_first);
    *count = used;
    return names;
}

bool tn_checkpoint_exists(const char *folder)
{
    size_t count = 0;
    tn_free(list_steps(folder, &count));
    return count > 0;
}

static void remove_old(const char *folder)
{
    size_t count = 0;
    char(*names)[NAME_SIZE] = list_steps(folder, &count);
    for (size_t i = KEEP; names && i < count; i++) {
        char path[PATH_SIZE];
        if (snprintf(path, sizeof path, "%s/%s", folder, names[i]) < (int)sizeof path)
            unlink(path);
    }
    tn_free(names);
}

tn_status tn_checkpoint_save(const char *folder, bool best, const tn_checkpoint *checkpoint,
                             tn_error *error)
{
    size_t most = most_parts(checkpoint);
    part *parts = tn_alloc_array(most, sizeof *parts);
    tn_named_tensor *tensors = tn_alloc_zero(most, sizeof *tensors);
    json_t *metadata = describe(checkpoint);
    tn_status status = TN_OK;
    char path[PATH_SIZE];
    if (!parts || !tensors || !metadata) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for a checkpoint");
        goto done;
    }
    status = tn_params_pull_statistics(checkpoint->params, error);
    if (status != TN_OK)
        goto done;
    size_t count = list_parts(checkpoint, parts);
    for (size_t i = 0; i < count; i++) {
        tensors[i].name = parts[i].name;
        tensors[i].tensor = (tn_tensor){.dtype = TN_FLOAT,
                                        .rank = 1,
                                        .dims = {parts[i].count},
                                        .data = parts[i].data,
                                        .bytes = (size_t)parts[i].count * sizeof(float)};
    }
    int length = best ? snprintf(path, sizeof path, "%s/best.safetensors", folder)
                      : snprintf(path, sizeof path, "%s/step-%010" PRIu64 ".safetensors", folder,
                                 checkpoint->state->step);
    status = length < (int)sizeof path
                 ? tn_safetensors_write(path, tensors, count, metadata, error)
                 : tn_fail(error, TN_ERROR_IO, "%s: the path is too long", tn_quote(folder));
    if (status == TN_OK && !best)
        remove_old(folder);
done:
    json_decref(metadata);
    tn_free(tensors);
    tn_free(parts);
    return status;
}

static tn_status check_identity(const char *path, const tn_safetensors *file,
                                const tn_run_identity *identity, const tn_reporter *reporter,
                                tn_error *error)
{
    const struct {
        const char *key, *ours, *what;
    } must[] = {{"recipe", identity->recipe, "options"},
                {"model", identity->model, "input model"},
                {"data", identity->data, "training data"}};
    for (size_t i = 0; i < sizeof must / sizeof *must; i++) {
        const char *theirs = tn_safetensors_metadata(file, must[i].key);
        if (!theirs || strcmp(theirs, must[i].ours))
            return tn_fail(error, TN_ERROR_USAGE,
                           "%s: belongs to a run with other %s; resume with what that run was "
                           "started with, or name another --checkpoint folder",
                           path, must[i].what);
    }
    const char *machine = tn_safetensors_metadata(file, "machine");
    if (!machine || strcmp(machine, identity->machine))
        tn_log(reporter, TN_LOG_WARNING,
               "%s was made on another machine or build (%s, here %s): the run goes on, but not "
               "with the bits it would have had there",
               path, tn_quote(machine), identity->machine);
    const char *processes = tn_safetensors_metadata(file, "processes");
    if ((processes ? atoi(processes) : 1) != identity->processes)
        tn_log(reporter, TN_LOG_WARNING,
               "%s was made by %s process(es), here are %d: the run goes on, but sums are rounded "
               "otherwise, and BatchNormalization that is not frozen sees batches of another size",
               path, processes ? tn_quote(processes) : "1", identity->processes);
    return TN_OK;
}

/* Checks everything before it changes anything. */
static tn_status take(const char *path, const tn_safetensors *file, const tn_checkpoint *checkpoint,
                      tn_error *error)
{
    part *parts = tn_alloc_array(most_parts(checkpoint), sizeof *parts);
    if (!parts)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a checkpoint");
    tn_status status = TN_OK;
    tn_progress_state state = {0};
    uint64_t optimizer_steps = 0;
    size_t count = list_parts(checkpoint, parts);
    if (!parse_state(tn_safetensors_metadata(file, "state"), &state, &optimizer_steps))
        status = tn_fail(error, TN_ERROR_USAGE, "%s: no state of a training run", path);
    for (size_t i = 0; status == TN_OK && i < count; i++) {
        const tn_tensor *tensor = tn_safetensors_find(file, parts[i].name);
        if (!tensor || tensor->dtype != TN_FLOAT || tn_tensor_count(tensor) != parts[i].count)
            status =
                tn_fail(error, TN_ERROR_USAGE, "%s: expected tensor %s of %lld floats, found %lld",
                        path, tn_quote(parts[i].name), (long long)parts[i].count,
                        tensor ? (long long)tn_tensor_count(tensor) : 0LL);
    }
    for (size_t i = 0; status == TN_OK && i < count; i++) {
        const tn_tensor *tensor = tn_safetensors_find(file, parts[i].name);
        memcpy(parts[i].data, tensor->data, tensor->bytes);
    }
    for (size_t i = 0; status == TN_OK && i < count; i++)
        if (parts[i].param != SIZE_MAX)
            status = tn_params_send(checkpoint->params, parts[i].param, error);
    tn_params_touch_all(checkpoint->params);
    if (status == TN_OK) {
        memcpy(state.guard.window, checkpoint->state->guard.window, sizeof state.guard.window);
        *checkpoint->state = state;
        checkpoint->optimizer->steps = optimizer_steps;
    }
    tn_free(parts);
    return status;
}

tn_status tn_checkpoint_restore(const char *folder, const tn_reporter *reporter,
                                const tn_checkpoint *checkpoint, bool *found, tn_error *error)
{
    size_t count = 0;
    char(*names)[NAME_SIZE] = list_steps(folder, &count);
    tn_status status = TN_OK;
    bool done = false;
    for (size_t i = 0; !done && names && i < count; i++) {
        char path[PATH_SIZE];
        tn_safetensors file;
        tn_error reason = {0};
        if (snprintf(path, sizeof path, "%s/%s", folder, names[i]) >= (int)sizeof path)
            continue;
        if (tn_safetensors_read(path, &file, &reason) != TN_OK) {
            tn_log(reporter, TN_LOG_WARNING, "passed over a damaged checkpoint: %s",
                   reason.message);
            continue;
        }
        if (!file.verified) {
            tn_log(reporter, TN_LOG_WARNING, "passed over %s: it has no checksum", path);
            tn_safetensors_close(&file);
            continue;
        }
        done = true;
        status = check_identity(path, &file, checkpoint->identity, reporter, error);
        if (status == TN_OK)
            status = take(path, &file, checkpoint, error);
        tn_safetensors_close(&file);
    }
    tn_free(names);
    if (status == TN_OK)
        *found = done;
    return status;
}

tn_status tn_checkpoint_restore_best(const char *folder, const tn_checkpoint *checkpoint,
                                     tn_error *error)
{
    char path[PATH_SIZE];
    tn_safetensors file;
    if (snprintf(path, sizeof path, "%s/best.safetensors", folder) >= (int)sizeof path)
        return tn_fail(error, TN_ERROR_IO, "%s: the path is too long", tn_quote(folder));
    tn_status status = tn_safetensors_read(path, &file, error);
    if (status != TN_OK)
        return status;
    status = take(path, &file, checkpoint, error);
    tn_safetensors_close(&file);
    return status;
}

tn_status tn_checkpoint_share(const tn_checkpoint *checkpoint, tn_collective *collective,
                              tn_error *error)
{
    tn_status status = TN_OK;
    if (collective->size == 1)
        return status;
    part *parts = tn_alloc_array(most_parts(checkpoint), sizeof *parts);
    if (!parts)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a checkpoint");
    const size_t count = list_parts(checkpoint, parts);
    tn_optimizer *optimizer = checkpoint->optimizer;
    status =
        tn_collective_broadcast(collective, checkpoint->state, sizeof *checkpoint->state, 0, error);
    if (status == TN_OK)
        status = tn_collective_broadcast(collective, &optimizer->steps, sizeof optimizer->steps, 0,
                                         error);
    for (size_t i = 0; i < count && status == TN_OK; i++) {
        status = tn_collective_broadcast(collective, parts[i].data,
                                         parts[i].count * (int64_t)sizeof(float), 0, error);
        if (status == TN_OK && parts[i].param != SIZE_MAX)
            status = tn_params_send(checkpoint->params, parts[i].param, error);
    }
    tn_params_touch_all(checkpoint->params);
    tn_free(parts);
    return status;
}

tn_status tn_checkpoint_compare(const tn_checkpoint *checkpoint, const char *hash,
                                tn_collective *collective, tn_error *error)
{
    char first[33];
    memcpy(first, hash, sizeof first);
    tn_status status = tn_collective_broadcast(collective, first, sizeof first, 0, error);
    if (status == TN_OK && strcmp(first, hash) != 0)
        status = tn_fail(error, TN_ERROR_DIFFERS,
                         "after step %" PRIu64 " the weights (%s) are not those of process 0 (%s): "
                         "use machines of one processor type with the same ternion; --resume goes "
                         "on from the last checkpoint",
                         checkpoint->state->step, hash, first);
    return status;
}

void tn_checkpoint_hash(const tn_checkpoint *checkpoint, char *text)
{
    XXH128_hash_t digest = {0, 0};
    XXH3_state_t *hash = XXH3_createState();
    part *parts = tn_alloc_array(most_parts(checkpoint), sizeof *parts);
    if (hash && parts && tn_params_pull_statistics(checkpoint->params, NULL) == TN_OK) {
        XXH3_128bits_reset(hash);
        size_t count = list_parts(checkpoint, parts);
        for (size_t i = 0; i < count; i++)
            XXH3_128bits_update(hash, parts[i].data, (size_t)parts[i].count * sizeof(float));
        digest = XXH3_128bits_digest(hash);
    }
    tn_free(parts);
    XXH3_freeState(hash);
    snprintf(text, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)digest.high64,
             (uint64_t)digest.low64);
}
