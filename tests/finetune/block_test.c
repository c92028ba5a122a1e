/* Learned rounding over blocks: which blocks networks have, that the error of a block's output
 * falls and never rises on images that were held out, for every family, scheme and granularity, and
 * that threads and memory do not matter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "converter/record.h"
#include "core/random.h"
#include "core/threads.h"
#include "finetune/block.h"
#include "finetune/calibrate.h"
#include "tests/finetune/seeded_network.h"

#include <stdio.h>
#include <string.h>

enum { IMAGES = 32, SIZE = 16 };

static float images[IMAGES * 3 * 4 * SIZE * SIZE];

/* --- which blocks there are ------------------------------------------------------------------- */

/* Layers of each block as a string of digits, and how many quantized layers are in none. */
static size_t shape_of(const char *id, int64_t size, char *digits)
{
    tn_model *model = seeded_network(id, size);
    tn_graph *graph = NULL;
    tn_layers layers;
    tn_blocks blocks;
    tn_policy policy = {0};
    tn_graph_options options = {.batch = 2};
    bool usable[256] = {false};
    size_t outside = 0, end = 0;
    assert_int_equal(tn_graph_create(model, &options, &graph, NULL), TN_OK);
    assert_int_equal(tn_layers_select(graph, &policy, &layers, NULL), TN_OK);
    assert_true(layers.count < sizeof usable);
    for (size_t i = 0; i < layers.count; i++)
        outside += usable[i] = layers.layer[i].quantized;
    assert_int_equal(tn_blocks_find(graph, &layers, usable, &blocks, NULL), TN_OK);
    for (size_t b = 0; b < blocks.count; b++) {
        const tn_block *block = &blocks.block[b];
        assert_true(block->first >= end && block->last > block->first);
        assert_true(block->n_layers > 0 && block->n_layers < 10 && block->n_inputs > 0);
        assert_non_null(block->output);
        end = block->last;
        digits[b] = (char)('0' + block->n_layers);
        outside -= block->n_layers;
    }
    digits[blocks.count] = '\0';
    print_message("%s: %s, %zu outside\n", id, digits, outside);
    tn_blocks_done(&blocks);
    tn_graph_destroy(graph);
    tn_model_destroy(model);
    return outside;
}

static void blocks_are_found(void **state)
{
    (void)state;
    char digits[256];
    assert_int_equal(shape_of("resnet20", 32, digits), 0);
    assert_string_equal(digits, "222222222");
    assert_int_equal(shape_of("resnet18", 64, digits), 0);
    assert_string_equal(digits, "22323232"); /* the projections with their blocks */
    assert_int_equal(shape_of("densenet-small", 32, digits), 0);
    assert_int_equal(shape_of("squeezenet1.1", 64, digits), 0);
    assert_string_equal(digits, "33333333"); /* fire modules */
}

/* --- what learning does ----------------------------------------------------------------------- */

typedef struct journal {
    int blocks, kept;
    double fitted[2], held[2]; /* sums before and after, of blocks that were kept */
} journal;

static void read_log(void *context, tn_log_level level, const char *message)
{
    journal *book = context;
    double fitted[2], held[2];
    (void)level;
    const char *numbers = strstr(message, ": error ");
    if (strncmp(message, "block of ", 9) != 0 || !numbers)
        return;
    assert_int_equal(sscanf(numbers, ": error %lf to %lf, held out %lf to %lf", &fitted[0],
                            &fitted[1], &held[0], &held[1]),
                     4);
    assert_true(fitted[1] <= fitted[0]);
    book->blocks++;
    if (strstr(message, "not kept"))
        return;
    assert_true(held[1] <= held[0]);
    book->kept++;
    for (int i = 0; i < 2; i++) {
        book->fitted[i] += fitted[i];
        book->held[i] += held[i];
    }
}

static tn_calibration learn(const tn_model *model, const tn_calibrate_options *given, journal *book)
{
    tn_calibration calibration = {0};
    tn_error error = {0};
    tn_calibrate_options options = *given;
    tn_reporter reporter = {.context = book, .log = read_log};
    *book = (journal){0};
    options.method = TN_CALIBRATE_ADAROUND;
    options.bn = options.bn == TN_CALIBRATE_BN_AUTO ? TN_CALIBRATE_BN_AFFINE : options.bn;
    options.images = images;
    options.samples = options.samples ? options.samples : IMAGES;
    options.reporter = &reporter;
    if (tn_calibrate(model, NULL, &options, &calibration, &error) != TN_OK)
        print_message("%s\n", error.message);
    assert_int_equal(error.code, TN_OK);
    return calibration;
}

static void every_family_learns(void **state)
{
    (void)state;
    static const struct {
        const char *id;
        int64_t size;
        size_t samples;
    } families[] = {
        {"resnet20", SIZE, IMAGES}, {"densenet-small", SIZE, 6}, {"squeezenet1.1", 2 * SIZE, 4}};
    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++) {
        tn_model *model = seeded_network(families[i].id, families[i].size);
        tn_calibrate_options options = {.samples = families[i].samples};
        journal book;
        tn_calibration calibration = learn(model, &options, &book);
        print_message("%s: %d of %d blocks, held-out error %.3f to %.3f, KL %.4f\n", families[i].id,
                      book.kept, book.blocks, book.held[0], book.held[1], calibration.kl);
        assert_true(book.blocks > 3);
        if (i == 0) {
            assert_true(book.kept > 0 && book.held[1] < book.held[0]);
            assert_true(book.fitted[1] < book.fitted[0]);
        }
        assert_true(calibration.kl < calibration.kl_round);
        for (size_t k = 0; k < calibration.conversion.count; k++)
            assert_true(!strcmp(calibration.layer[k].method, "adaround") ||
                        calibration.layer[k].reason);
        tn_calibration_done(&calibration);
        tn_model_destroy(model);
    }
}

static void every_scheme_and_granularity_learns(void **state)
{
    (void)state;
    static const char *const settings[][3] = {
        {"ttq", "1.58", "channel"}, {"ttq", "1.58", "tensor"}, {"twn", "1.58", "group:9"},
        {"affine", "2", "channel"}, {"fixed", "2", "tensor"},  {"dorefa", "2", "tensor"},
    };
    tn_model *model = seeded_network("resnet8", SIZE);
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        journal book;
        tn_calibrate_options options = {.policy = {.scheme = settings[i][0],
                                                   .bits = settings[i][1],
                                                   .granularity = settings[i][2]}};
        tn_calibration calibration = learn(model, &options, &book);
        print_message("%s %s %s: %d of %d blocks, held-out error %.3f to %.3f\n", settings[i][0],
                      settings[i][1], settings[i][2], book.kept, book.blocks, book.held[0],
                      book.held[1]);
        assert_true(book.blocks == 3);
        assert_true(calibration.kl < calibration.kl_round);
        tn_calibration_done(&calibration);
    }
    tn_model_destroy(model);
}

static void threads_and_memory_do_not_matter(void **state)
{
    (void)state;
    static const uint64_t memory[] = {0, 0, 1};
    tn_model *model = seeded_network("resnet8", SIZE);
    tn_calibration calibration[3];
    journal book;
    for (int t = 0; t < 3; t++) {
        tn_calibrate_options options = {.hold_out = true, .memory = memory[t]};
        tn_threads_set(t == 1 ? 2 : 1);
        calibration[t] = learn(model, &options, &book);
        assert_true((calibration[t].spilled > 0) == (memory[t] > 0));
        assert_true(calibration[t].kl == calibration[0].kl);
        for (size_t i = 0; i < calibration[0].conversion.count; i++)
            assert_true(tn_record_hash(&calibration[0].conversion.item[i].weight) ==
                        tn_record_hash(&calibration[t].conversion.item[i].weight));
    }
    for (int t = 0; t < 3; t++)
        tn_calibration_done(&calibration[t]);
    tn_model_destroy(model);
}

/* With --bn keep nothing but codes and scales may change. */
static void other_parameters_stay_when_asked(void **state)
{
    (void)state;
    tn_model *model = seeded_network("resnet8", SIZE);
    journal book;
    tn_calibrate_options options = {.bn = TN_CALIBRATE_BN_KEEP};
    tn_calibration calibration = learn(model, &options, &book);
    assert_int_equal(book.blocks, 3);
    assert_int_equal(calibration.params_changed, 0);
    tn_calibration_done(&calibration);
    tn_model_destroy(model);
}

static int setup(void **state)
{
    (void)state;
    tn_random random = tn_random_make(3, TN_PURPOSE_TEST, 9, 1);
    for (size_t i = 0; i < sizeof images / sizeof images[0]; i++)
        images[i] = tn_random_normal(&random) + (i > 0 ? 0.7f * images[i - 1] : 0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_found),
        cmocka_unit_test(every_family_learns),
        cmocka_unit_test(every_scheme_and_granularity_learns),
        cmocka_unit_test(threads_and_memory_do_not_matter),
        cmocka_unit_test(other_parameters_stay_when_asked),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
