/* Running for hours: images that are not finite, damaged checkpoints, a disk that fills up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/random.h"
#include "finetune/train.h"
#include "onnx_io/zoo/zoo.h"
#include "tests/finetune/check_status.h"
#include "tests/finetune/glyph_training.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { IMAGES = 128, BATCH = 32, SIDE = 16, CLASSES = 4 };

static char folder[64], warnings[4096];
static tn_model *network;
static tn_device *device;
static tn_preprocess preprocess;

static void hear(void *context, tn_log_level level, const char *text)
{
    (void)context;
    if (level == TN_LOG_WARNING)
        strncat(warnings, text, sizeof warnings - strlen(warnings) - 1);
}

static const tn_reporter reporter = {.log = hear};

static FILE *create_npy(const char *path, const char *type, const char *shape)
{
    char header[128];
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    int n = snprintf(header, sizeof header,
                     "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", type, shape);
    while ((n + 11) % 64)
        header[n++] = ' ';
    header[n++] = '\n';
    const unsigned char magic[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, (unsigned char)n, 0};
    assert_int_equal(fwrite(magic, 1, 10, file), 10);
    assert_int_equal(fwrite(header, 1, (size_t)n, file), (size_t)n);
    return file;
}

/* Float images and labels as NPY; the first `broken` images hold a NaN. */
static tn_dataset *open_images(const char *name, int broken)
{
    char path[200];
    tn_error error = {0};
    tn_dataset *dataset = NULL;
    tn_random random = tn_random_make(1, TN_PURPOSE_TEST, 0, 0);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(mkdir(path, 0777), 0);
    snprintf(path, sizeof path, "%s/%s/train_images.npy", folder, name);
    FILE *file = create_npy(path, "<f4", "128, 3, 16, 16");
    for (int i = 0; i < IMAGES; i++)
        for (int e = 0; e < 3 * SIDE * SIDE; e++) {
            float x = 0.3f * tn_random_normal(&random) + 0.1f * (float)(i % CLASSES);
            x = i < broken && e == 7 ? NAN : x;
            assert_int_equal(fwrite(&x, sizeof x, 1, file), 1);
        }
    assert_int_equal(fclose(file), 0);
    snprintf(path, sizeof path, "%s/%s/train_labels.npy", folder, name);
    file = create_npy(path, "<i8", "128,");
    for (int64_t i = 0; i < IMAGES; i++) {
        int64_t label = i % CLASSES;
        assert_int_equal(fwrite(&label, sizeof label, 1, file), 1);
    }
    assert_int_equal(fclose(file), 0);
    snprintf(path, sizeof path, "%s/%s", folder, name);
    check(tn_dataset_open(path, TN_SPLIT_TRAIN, NULL, &dataset, &error), &error);
    return dataset;
}

static int setup(void **state)
{
    (void)state;
    tn_error error = {0};
    snprintf(folder, sizeof folder, "/tmp/ternion-fault-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    const tn_zoo_options zoo = {.classes = CLASSES, .input = {3, SIDE, SIDE}, .seed = 3};
    check(tn_zoo_create("resnet8", &zoo, &network, &error), &error);
    check(tn_preprocess_preset("none", &preprocess, &error), &error);
    check(tn_preprocess_fit(&preprocess, 3, SIDE, SIDE, &error), &error);
    check(tn_device_create_cpu(&device, &error), &error);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tn_device_destroy(device);
    tn_model_destroy(network);
    return remove_folder(folder);
}

static tn_train_options options(int epochs)
{
    warnings[0] = 0;
    return (tn_train_options){.policy = {.scheme = "ttq"},
                              .epochs = epochs,
                              .batch = BATCH,
                              .lr = 0.02,
                              .seed = 5,
                              .keep_batch_norm = true,
                              .device = device,
                              .reporter = &reporter};
}

static tn_status train(const tn_dataset *images, const tn_train_options *o, tn_trained *trained,
                       tn_error *error)
{
    const tn_train_data data = {.train = images, .val = images, .preprocess = &preprocess};
    return tn_train(network, &data, NULL, NULL, o, trained, error);
}

/* One image that is not finite spoils one step an epoch; nothing of it stays. */
static void one_broken_image_costs_its_step(void **state)
{
    (void)state;
    tn_error error = {0};
    tn_trained trained;
    tn_dataset *images = open_images("one", 1);
    tn_train_options o = options(6);
    check(train(images, &o, &trained, &error), &error);
    assert_int_equal(trained.dropped_steps, 6);
    assert_int_equal(trained.rollbacks, 0);
    assert_true(isfinite(trained.last.train_loss) && trained.last.train_loss < 1.386);
    for (size_t i = 0; i < trained.conversion.count; i++)
        for (int64_t s = 0; s < trained.conversion.item[i].weight.n_scales; s++)
            assert_true(isfinite(trained.conversion.item[i].weight.scale[s]));
    /* weights, biases, and the running statistics of BatchNormalization */
    const Onnx__GraphProto *graph = trained.model->proto->graph;
    for (size_t i = 0; i < graph->n_initializer; i++) {
        tn_tensor tensor;
        check(tn_model_tensor(trained.model, graph->initializer[i], &tensor, &error), &error);
        for (int64_t e = 0; tensor.dtype == TN_FLOAT && e < tn_tensor_count(&tensor); e++) {
            float x;
            memcpy(&x, (const char *)tensor.data + (size_t)e * sizeof x, sizeof x);
            if (!isfinite(x))
                fail_msg("%s[%d] is %g", graph->initializer[i]->name, (int)e, (double)x);
        }
        tn_tensor_done(&tensor);
    }
    tn_trained_done(&trained);
    tn_dataset_close(images);
}

/* Three in a row: back to the last checkpoint, three times, then an error that says what to do. */
static void many_broken_images_end_the_run(void **state)
{
    (void)state;
    tn_error error = {0};
    tn_trained trained;
    char run[128], line[4096];
    int rollbacks = 0;
    tn_dataset *images = open_images("many", IMAGES);
    tn_train_options o = options(6);
    snprintf(run, sizeof run, "%s/many-run", folder);
    o.folder = run;
    assert_int_equal(train(images, &o, &trained, &error), TN_ERROR_DIVERGED);
    assert_non_null(strstr(error.message, "--lr"));
    assert_non_null(strstr(warnings, "half the learning rate"));
    snprintf(line, sizeof line, "%s/run.jsonl", run);
    FILE *log = fopen(line, "r");
    assert_non_null(log);
    while (fgets(line, sizeof line, log))
        rollbacks += strstr(line, "\"event\":\"rollback\"") != NULL;
    fclose(log);
    assert_int_equal(rollbacks, 3);
    tn_dataset_close(images);
}

/* The checkpoints of a folder, newest last. */
static int list_steps(const char *run, char names[8][300])
{
    struct dirent **entries;
    int count = 0, n = scandir(run, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        if (!strncmp(entries[i]->d_name, "step-", 5) && count < 8)
            snprintf(names[count++], 300, "%s/%.255s", run, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return count;
}

/* Flips a byte in the middle, or cuts the file there. */
static void damage(const char *path, bool cut)
{
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    if (cut) {
        assert_int_equal(truncate(path, info.st_size / 2), 0);
        return;
    }
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    fseek(file, (long)info.st_size / 2, SEEK_SET);
    int byte = fgetc(file);
    fseek(file, (long)info.st_size / 2, SEEK_SET);
    fputc(byte ^ 0x10, file);
    assert_int_equal(fclose(file), 0);
}

/* The newest checkpoint is damaged: the one before it is gone on from, said so, and the run ends
 * where it would have. */
static void a_damaged_checkpoint_is_passed_over(void **state)
{
    (void)state;
    tn_error error = {0};
    tn_trained whole, trained;
    char run[128], names[8][300];
    tn_dataset *images = open_images("whole", 0);
    tn_train_options o = options(4);
    check(train(images, &o, &whole, &error), &error);
    for (int cut = 0; cut < 2; cut++) {
        snprintf(run, sizeof run, "%s/damaged%d", folder, cut);
        o = options(4);
        o.folder = run;
        o.max_steps = 10;
        check(train(images, &o, &trained, &error), &error);
        tn_trained_done(&trained);
        assert_int_equal(list_steps(run, names), 2);
        damage(names[1], cut);
        o.max_steps = 0;
        o.resume = true;
        check(train(images, &o, &trained, &error), &error);
        assert_non_null(strstr(warnings, "damaged"));
        assert_non_null(strstr(warnings, strrchr(names[1], '/') + 1));
        assert_string_equal(trained.last.state_hash, whole.last.state_hash);
        tn_trained_done(&trained);
    }
    tn_trained_done(&whole);
    tn_dataset_close(images);
}

/* No room for another checkpoint: IO, and the last one is there and whole. */
static void a_full_disk_keeps_the_last_checkpoint(void **state)
{
    (void)state;
    tn_error error = {0};
    tn_trained whole, trained;
    char run[128], names[8][300];
    tn_dataset *images = open_images("full", 0);
    tn_train_options o = options(4);
    check(train(images, &o, &whole, &error), &error);
    snprintf(run, sizeof run, "%s/full-run", folder);
    o.folder = run;
    o.max_steps = 6;
    check(train(images, &o, &trained, &error), &error);
    tn_trained_done(&trained);
    int count = list_steps(run, names);
    struct stat info;
    assert_int_equal(stat(names[count - 1], &info), 0);
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    struct rlimit less = {.rlim_cur = (rlim_t)info.st_size / 2, .rlim_max = limit.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    o.max_steps = 0;
    o.resume = true;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &less), 0);
    tn_status status = train(images, &o, &trained, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(status, TN_ERROR_IO);
    char after[8][300];
    assert_int_equal(list_steps(run, after), count);
    assert_string_equal(after[count - 1], names[count - 1]);
    error = (tn_error){0};
    check(train(images, &o, &trained, &error), &error);
    assert_string_equal(trained.last.state_hash, whole.last.state_hash);
    tn_trained_done(&trained);
    tn_trained_done(&whole);
    tn_dataset_close(images);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_broken_image_costs_its_step),
        cmocka_unit_test(many_broken_images_end_the_run),
        cmocka_unit_test(a_damaged_checkpoint_is_passed_over),
        cmocka_unit_test(a_full_disk_keeps_the_last_checkpoint),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
