/* Training end to end on generated glyphs: it learns, it resumes bit by bit, it does not depend on
 * threads, it notices divergence, and what it writes is what it trained. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/threads.h"
#include "data/glyphs.h"
#include "tests/finetune/check_status.h"
#include "tests/finetune/glyph_training.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static glyph_training glyphs;
static tn_augment_options augment = {.pad = 2};

static int setup(void **state)
{
    (void)state;
    tn_error error = {0};
    check(glyph_training_make(&glyphs, 320, 64, &error), &error);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    glyph_training_close(&glyphs);
    return remove_folder(glyphs.folder);
}

static tn_train_options options(const char *scheme)
{
    return (tn_train_options){.policy = {.scheme = scheme},
                              .epochs = 2,
                              .batch = 32,
                              .lr = 0.02,
                              .seed = 5,
                              .device = glyphs.device};
}

/* Trains and gives the final state's hash. */
static void train(const tn_train_options *o, char *hash)
{
    tn_error error = {0};
    tn_trained trained;
    tn_train_data d = glyph_training_data(&glyphs, &augment);
    check(tn_train(glyphs.network, &d, NULL, NULL, o, &trained, &error), &error);
    memcpy(hash, trained.last.state_hash, 33);
    tn_trained_done(&trained);
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    char one[33], two[33];
    tn_train_options o = options(NULL);
    tn_threads_set(1);
    train(&o, one);
    tn_threads_set(2);
    train(&o, two);
    assert_string_equal(one, two);
}

static void a_resumed_run_is_the_run(void **state)
{
    (void)state;
    for (int scheme = 0; scheme < 2; scheme++) {
        char whole[33], resumed[33], run[128];
        tn_train_options o = options(scheme ? "ttq" : NULL);
        o.ema = 0.9;
        augment.mixup = scheme ? 0.4f : 0.0f;
        train(&o, whole);
        snprintf(run, sizeof run, "%s/run%d", glyphs.folder, scheme);
        o.folder = run;
        for (int stop = 3; stop <= 20; stop += 8) { /* inside and between epochs */
            o.resume = stop > 3;
            o.max_steps = stop;
            train(&o, resumed);
        }
        o.resume = true;
        o.max_steps = 0;
        train(&o, resumed);
        assert_string_equal(whole, resumed);
    }
    augment.mixup = 0.0f;
}

static void another_run_is_not_resumed(void **state)
{
    (void)state;
    char run[128];
    tn_error error = {0};
    tn_trained trained;
    tn_train_data d = glyph_training_data(&glyphs, &augment);
    snprintf(run, sizeof run, "%s/run0", glyphs.folder);
    tn_train_options o = options(NULL);
    o.folder = run;
    o.resume = true;
    o.seed = 6;
    assert_int_equal(tn_train(glyphs.network, &d, NULL, NULL, &o, &trained, &error),
                     TN_ERROR_USAGE);
    assert_non_null(strstr(error.message, "other options"));
}

static void a_great_rate_diverges_cleanly(void **state)
{
    (void)state;
    tn_error error = {0};
    tn_trained trained;
    tn_train_data d = glyph_training_data(&glyphs, &augment);
    tn_train_options o = options("float");
    o.lr = 1e3;
    o.momentum = -1;
    o.weight_decay = 1; /* latents grow 1000-fold a step: not finite soon, whatever BN does */
    o.epochs = 20;
    assert_int_equal(tn_train(glyphs.network, &d, NULL, NULL, &o, &trained, &error),
                     TN_ERROR_DIVERGED);
    assert_non_null(strstr(error.message, "--lr"));
}

/* A float network is trained, then every scheme from it; each must learn and export exactly. */
static void schemes_learn_and_export_exactly(void **state)
{
    (void)state;
    static const struct {
        const char *scheme, *bits, *granularity;
    } cases[] = {{"lsq", "1.58", NULL}, {"lsq", "4", "tensor"},  {"twn", NULL, NULL},
                 {"ttq", NULL, NULL},   {"ttq", NULL, "tensor"}, {"fixed", "3", NULL},
                 {"dorefa", "2", NULL}, {"parq", "1.58", NULL},  {"lsq", "1.58", "group:9"}};
    tn_error error = {0};
    tn_trained teacher;
    tn_train_data d = glyph_training_data(&glyphs, &augment);
    tn_train_options plain = options("float");
    plain.epochs = 24;
    plain.lr = 0.05;
    check(tn_train(glyphs.network, &d, NULL, NULL, &plain, &teacher, &error), &error);
    if (!(teacher.last.train_top1 > 0.4)) /* chance: 0.1 */
        fail_msg("float: %.3f right after 24 epochs", teacher.last.train_top1);
    assert_int_equal(teacher.conversion.count, 0);
    check(glyph_training_prove(&glyphs, &teacher, &plain, &error), &error);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tn_trained trained;
        tn_train_options o = options(cases[i].scheme);
        o.policy.bits = cases[i].bits;
        o.policy.granularity = cases[i].granularity;
        o.epochs = 3;
        check(tn_train(teacher.model, &d, teacher.model, NULL, &o, &trained, &error), &error);
        if (!(trained.last.train_top1 > 0.3))
            fail_msg("%s %s: %.3f right after 3 epochs", cases[i].scheme, cases[i].bits,
                     trained.last.train_top1);
        assert_true(trained.conversion.count > 0);
        check(glyph_training_prove(&glyphs, &trained, &o, &error), &error);
        tn_trained_done(&trained);
    }
    tn_trained_done(&teacher);
}

/* 64 images are learned by heart: every part of the step works together. */
static void few_images_are_learned_by_heart(void **state)
{
    (void)state;
    tn_error error = {0};
    tn_dataset *few = NULL;
    tn_trained trained;
    char path[128];
    snprintf(path, sizeof path, "%s/few", glyphs.folder);
    const tn_glyphs_options drawn = {.seed = 2, .train = 64, .test = 16};
    check(tn_glyphs_write(path, &drawn, &error), &error);
    check(tn_dataset_open(path, TN_SPLIT_TRAIN, NULL, &few, &error), &error);
    const tn_train_data d = {.train = few, .preprocess = &glyphs.preprocess};
    tn_train_options o = options("lsq");
    o.epochs = 120;
    o.lr = 0.05;
    o.keep_batch_norm = true;
    check(tn_train(glyphs.network, &d, NULL, NULL, &o, &trained, &error), &error);
    if (!(trained.last.train_top1 > 0.99))
        fail_msg("%.3f of 64 images right after 120 epochs", trained.last.train_top1);
    tn_trained_done(&trained);
    tn_dataset_close(few);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(a_resumed_run_is_the_run),
        cmocka_unit_test(another_run_is_not_resumed),
        cmocka_unit_test(a_great_rate_diverges_cleanly),
        cmocka_unit_test(few_images_are_learned_by_heart),
        cmocka_unit_test(schemes_learn_and_export_exactly),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
