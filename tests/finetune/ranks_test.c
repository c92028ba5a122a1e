/* Ranks that train together, under mpirun: sums and failures of the collective, several ranks
 * against one, equal weights on all, checkpoints between numbers of ranks.
 * usage: mpirun -np N ranks_test collective | different | train */
#include "core/memory.h"
#include "core/random.h"
#include "core/threads.h"
#include "finetune/ranks.h"
#include "finetune/safetensors.h"
#include "finetune/train.h"
#include "tests/finetune/glyph_training.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static tn_collective *ranks;
static glyph_training glyphs;

#define REQUIRE(condition, ...)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "process %d, %s:%d: ", ranks ? ranks->rank : -1, __FILE__, __LINE__);  \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputs("\n", stderr);                                                                   \
            _exit(1); /* without MPI's end: mpirun then ends the others */                         \
        }                                                                                          \
    } while (0)

static void must(tn_status status, const tn_error *error)
{
    REQUIRE(status == TN_OK, "status %d: %s", (int)status, error->message);
}

/* --- the collective ------------------------------------------------------------------------ */

static float value_of(int rank, int64_t i)
{
    /* magnitudes far apart: another order of addition gives other bits */
    tn_random random = tn_random_make(7, TN_PURPOSE_SHUFFLE, (uint32_t)rank, (uint64_t)i);
    return ldexpf(tn_random_uniform(&random) - 0.5f, (int)((i + rank * 13) % 40));
}

static void check_sums(const int64_t *counts, size_t n)
{
    tn_error error = {0};
    tn_span spans[4];
    int64_t at = 0;
    for (size_t s = 0; s < n; s++) {
        spans[s] = (tn_span){tn_alloc_array((size_t)counts[s] + 1, sizeof(float)), counts[s]};
        for (int64_t i = 0; i < counts[s]; i++)
            spans[s].data[i] = value_of(ranks->rank, at + i);
        spans[s].data[counts[s]] = 12.5f; /* must stay */
        at += counts[s];
    }
    must(tn_collective_sum(ranks, spans, n, &error), &error);
    at = 0;
    for (size_t s = 0; s < n; s++) {
        for (int64_t i = 0; i < counts[s]; i++) {
            double sum = 0;
            for (int rank = 0; rank < ranks->size; rank++)
                sum += (double)value_of(rank, at + i);
            REQUIRE(spans[s].data[i] == (float)sum, "span %zu element %lld: %.9g, expected %.9g", s,
                    (long long)i, (double)spans[s].data[i], sum);
        }
        REQUIRE(spans[s].data[counts[s]] == 12.5f, "span %zu was written past its end", s);
        at += counts[s];
        tn_free(spans[s].data);
    }
}

static void sums_are_exact(void)
{
    const int64_t small[] = {1}, uneven[] = {3, 0, 17, 1}, large[] = {1000003, 5, (1 << 22) + 11};
    check_sums(small, 1);
    check_sums(uneven, 4);
    check_sums(large, 3);
    tn_error error = {0};
    double figures[] = {1.0 / (1 + ranks->rank), 1};
    double expected = 0;
    if (ranks->rank == 1)
        usleep(300000); /* arrives last */
    must(tn_collective_sum_double(ranks, figures, 2, &error), &error);
    for (int rank = 0; rank < ranks->size; rank++)
        expected += 1.0 / (1 + rank);
    REQUIRE(figures[0] == expected && figures[1] == ranks->size, "a sum of figures is wrong");
}

static void broadcasts_arrive(void)
{
    tn_error error = {0};
    for (int root = 0; root < ranks->size; root++) {
        unsigned char bytes[1000];
        memset(bytes, ranks->rank == root ? 40 + root : 0, sizeof bytes);
        must(tn_collective_broadcast(ranks, bytes, sizeof bytes, root, &error), &error);
        REQUIRE(bytes[0] == 40 + root && bytes[999] == 40 + root, "a broadcast did not arrive");
    }
}

/* The last rank fails while the others are in some operation. Ends the collective. */
static void a_failure_is_everybodys(void)
{
    tn_error error = {0};
    const int last = ranks->size - 1;
    char expected[64];
    if (ranks->rank == last) {
        (void)!tn_fail(&error, TN_ERROR_DATA, "the disk is gone");
        tn_collective_fail(ranks, &error);
        REQUIRE(error.code == TN_ERROR_DATA && !strcmp(error.message, "the disk is gone"),
                "its own error was changed");
    } else {
        double figure = 1;
        tn_status status = tn_collective_sum_double(ranks, &figure, 1, &error);
        snprintf(expected, sizeof expected, "process %d: the disk is gone", last);
        REQUIRE(status == TN_ERROR_DATA && !strcmp(error.message, expected), "got %d: %s",
                (int)status, error.message);
        tn_collective_fail(ranks, &error); /* everybody knows: nothing to do */
    }
    tn_error later = {0};
    REQUIRE(tn_collective_barrier(ranks, &later) != TN_OK, "the collective goes on after its end");
}

/* --- training ------------------------------------------------------------------------------ */

static tn_augment_options augment = {.pad = 2, .mixup = 0.3f};

static void set_up(void)
{
    tn_error error = {0};
    if (ranks->rank == 0)
        glyph_training_folder(&glyphs);
    must(tn_collective_broadcast(ranks, glyphs.folder, sizeof glyphs.folder, 0, &error), &error);
    if (ranks->rank == 0)
        must(glyph_training_write(&glyphs, 160, 50, &error), &error);
    must(tn_collective_barrier(ranks, &error), &error);
    must(glyph_training_open(&glyphs, &error), &error);
    tn_threads_set(1);
}

static void tear_down(void)
{
    glyph_training_close(&glyphs);
    if (ranks->rank == 0)
        REQUIRE(remove_folder(glyphs.folder) == 0, "cannot remove %s", glyphs.folder);
}

static tn_train_options options(const char *scheme, const char *run, tn_collective *collective)
{
    return (tn_train_options){.policy = {.scheme = scheme},
                              .epochs = 2,
                              .batch = 32,
                              .accumulate = 2,
                              .lr = 0.02,
                              .ema = 0.9,
                              .clip_norm = 1,
                              .batch_norm = TN_BATCH_NORM_FREEZE,
                              .seed = 5,
                              .device = glyphs.device,
                              .precision = TN_PRECISION_FP32, /* bf16 is not continuous */
                              .folder = run,
                              .resume = true,
                              .collective = collective};
}

static void train(const tn_train_options *o, tn_epoch_figures *figures)
{
    tn_error error = {0};
    tn_trained trained;
    const tn_train_data data = glyph_training_data(&glyphs, &augment);
    must(tn_train(glyphs.network, &data, NULL, NULL, o, &trained, &error), &error);
    REQUIRE(!trained.model == (o->collective && o->collective->rank > 0),
            "the trained network belongs to rank 0 alone");
    *figures = trained.last;
    tn_trained_done(&trained);
}

/* Rank 0 trains alone; the others wait. */
static void train_alone(tn_train_options o, tn_epoch_figures *figures)
{
    tn_error error = {0};
    o.collective = NULL;
    if (ranks->rank == 0)
        train(&o, figures);
    must(tn_collective_barrier(ranks, &error), &error);
}

/* The largest difference between two checkpoints of a step, relative to a tensor's largest value.
 */
static double difference(const char *run_a, const char *run_b, int step, const char *prefix)
{
    tn_error error = {0};
    tn_safetensors a, b;
    char path[160];
    double worst = 0;
    size_t compared = 0;
    snprintf(path, sizeof path, "%s/step-%010d.safetensors", run_a, step);
    must(tn_safetensors_read(path, &a, &error), &error);
    snprintf(path, sizeof path, "%s/step-%010d.safetensors", run_b, step);
    must(tn_safetensors_read(path, &b, &error), &error);
    for (size_t i = 0; i < a.count; i++) {
        const tn_tensor *x = &a.tensors[i].tensor, *y = tn_safetensors_find(&b, a.tensors[i].name);
        REQUIRE(y && y->bytes == x->bytes, "%s is in one checkpoint only", a.tensors[i].name);
        if (strncmp(a.tensors[i].name, prefix, strlen(prefix)) != 0)
            continue;
        double apart = 0, size = 0;
        for (size_t k = 0; k < x->bytes; k += sizeof(float)) {
            float p, q; /* perhaps unaligned there */
            memcpy(&p, (const char *)x->data + k, sizeof p);
            memcpy(&q, (const char *)y->data + k, sizeof q);
            apart += ((double)p - (double)q) * ((double)p - (double)q);
            size += (double)p * (double)p;
        }
        worst = fmax(worst, sqrt(size > 0 ? apart / size : apart));
        compared++;
    }
    REQUIRE(compared > 0, "nothing to compare");
    tn_safetensors_close(&a);
    tn_safetensors_close(&b);
    return worst;
}

/* With frozen statistics n ranks of B / n are one of B. */
static void ranks_are_one(const char *scheme)
{
    char one[128], several[128];
    tn_epoch_figures a, b;
    snprintf(one, sizeof one, "%s/one-%s", glyphs.folder, scheme);
    snprintf(several, sizeof several, "%s/several-%s", glyphs.folder, scheme);
    train_alone(options(scheme, one, NULL), &a);
    tn_train_options o = options(scheme, several, ranks);
    train(&o, &b);
    if (ranks->rank > 0)
        return;
    double apart = difference(one, several, 4, "value/");
    printf("%s: %d ranks against one, frozen statistics, after 4 steps: %.2g\n", scheme,
           ranks->size, apart);
    REQUIRE(apart > 0 && apart < 1e-6, "latents are %g apart", apart);
    REQUIRE(fabs(a.train_loss - b.train_loss) < 1e-5 && fabs(a.val_loss - b.val_loss) < 1e-5 &&
                a.val_top1 == b.val_top1 && a.val_top5 == b.val_top5,
            "the figures differ: loss %.9g and %.9g, validation %.9g and %.9g", a.train_loss,
            b.train_loss, a.val_loss, b.val_loss);
}

/* Statistics of the batch on each rank: another training, but the same state on all ranks. */
static void ranks_agree(void)
{
    char run[128], hash[33];
    tn_epoch_figures figures;
    tn_error error = {0};
    snprintf(run, sizeof run, "%s/agree", glyphs.folder);
    tn_train_options o = options("ttq", run, ranks);
    o.batch_norm = TN_BATCH_NORM_TRAIN;
    train(&o, &figures);
    memcpy(hash, figures.state_hash, sizeof hash);
    must(tn_collective_broadcast(ranks, hash, sizeof hash, 0, &error), &error);
    REQUIRE(!strcmp(hash, figures.state_hash), "rank 0 has %s, this one %s", hash,
            figures.state_hash);
}

/* Stops after `steps` and goes on, among `first` and then `second`, NULL: one rank. */
static void resume(const char *name, tn_collective *first, tn_collective *second, int steps,
                   tn_epoch_figures *figures)
{
    char run[128];
    tn_collective *both[] = {first, second};
    snprintf(run, sizeof run, "%s/%s", glyphs.folder, name);
    for (int part = 0; part < 2; part++) {
        tn_train_options o = options("lsq", run, both[part]);
        o.batch_norm = first == second ? TN_BATCH_NORM_TRAIN : TN_BATCH_NORM_FREEZE;
        o.max_steps = part == 0 ? steps : 0;
        if (both[part])
            train(&o, figures);
        else
            train_alone(o, figures);
    }
}

static void checkpoints_move(void)
{
    char whole[128], one[128], several[128];
    tn_epoch_figures a, b;
    resume("stopped", ranks, ranks, 3, &a);
    snprintf(whole, sizeof whole, "%s/not-stopped", glyphs.folder);
    tn_train_options o = options("lsq", whole, ranks);
    o.batch_norm = TN_BATCH_NORM_TRAIN;
    train(&o, &b);
    REQUIRE(!strcmp(a.state_hash, b.state_hash), "a resumed run is not the run");
    resume("several-one", ranks, NULL, 1, &a);
    resume("one-several", NULL, ranks, 1, &b);
    snprintf(one, sizeof one, "%s/several-one", glyphs.folder);
    snprintf(several, sizeof several, "%s/one-several", glyphs.folder);
    snprintf(whole, sizeof whole, "%s/one-lsq", glyphs.folder);
    if (ranks->rank == 0) {
        REQUIRE(difference(one, whole, 4, "value/") < 1e-6, "from several ranks to one");
        REQUIRE(difference(several, whole, 4, "value/") < 1e-6, "from one rank to several");
    }
}

/* A rank whose updates differ is found, and all of them end. Ends the collective. */
static void other_weights_are_found(void)
{
    tn_error error = {0};
    tn_trained trained;
    const tn_train_data data = {.train = glyphs.train, .preprocess = &glyphs.preprocess};
    tn_train_options o = options("lsq", NULL, ranks);
    o.lr *= ranks->rank == 1 ? 1.5 : 1;
    tn_status status = tn_train(glyphs.network, &data, NULL, NULL, &o, &trained, &error);
    if (status == TN_OK) { /* rank 0 learns of it at the next common step */
        tn_trained_done(&trained);
        status = tn_collective_barrier(ranks, &error);
    }
    tn_collective_fail(ranks, &error);
    REQUIRE(status == TN_ERROR_DIFFERS && strstr(error.message, "not those of process 0"),
            "status %d: %s", (int)status, error.message);
}

/* Ranks at different operations are an error on all, not a deadlock. Ends the collective. */
static void different_work_is_found(void)
{
    tn_error error = {0};
    double figures[2] = {0, 0};
    tn_status status = tn_collective_sum_double(ranks, figures, ranks->rank == 0 ? 1 : 2, &error);
    REQUIRE(status == TN_ERROR_DIFFERS, "status %d: %s", (int)status, error.message);
}

int main(int argc, char **argv)
{
    tn_error error = {0};
    const char *part = argc > 1 ? argv[1] : "";
    must(tn_ranks_open(&ranks, &error), &error);
    REQUIRE(ranks->size > 1, "start it with mpirun -np 2 or more");
    if (!strcmp(part, "collective")) {
        sums_are_exact();
        broadcasts_arrive();
        a_failure_is_everybodys();
    } else if (!strcmp(part, "different")) {
        different_work_is_found();
    } else {
        set_up();
        ranks_are_one("lsq");
        ranks_are_one("ttq");
        ranks_are_one("float");
        ranks_agree();
        checkpoints_move();
        must(tn_collective_barrier(ranks, &error), &error);
        other_weights_are_found();
        tear_down();
    }
    tn_collective_destroy(ranks);
    return 0;
}
