#include "data/survey.h"

#include "core/memory.h"

#include <stdio.h>
#include <string.h>

enum { CHUNK = 256 }; /* images between two looks at the reporter */

static void widen(int value, int *low, int *high)
{
    if (*low == 0 || value < *low)
        *low = value;
    if (value > *high)
        *high = value;
}

/* Counts images [first, last); `first_bad` is the lowest index that failed so far. */
static void survey_chunk(const tn_dataset *dataset, size_t first, size_t last, tn_survey *total,
                         size_t *first_bad)
{
#pragma omp parallel
    {
        tn_image image = {0};
        tn_survey mine = {0};
        size_t failed = SIZE_MAX;
        char message[sizeof mine.first_bad] = "";
#pragma omp for schedule(dynamic, 8)
        for (size_t i = first; i < last; i++) {
            tn_error error = {.code = TN_OK};
            if (tn_dataset_read(dataset, i, &image, &error) != TN_OK) {
                mine.bad++;
                if (i < failed) {
                    failed = i;
                    snprintf(message, sizeof message, "%.*s", (int)sizeof message - 1,
                             error.message);
                }
                continue;
            }
            widen(image.width, &mine.min_width, &mine.max_width);
            widen(image.height, &mine.min_height, &mine.max_height);
            mine.grey += image.channels == 1;
        }
#pragma omp critical(tn_survey)
        {
            total->bad += mine.bad;
            total->grey += mine.grey;
            if (mine.min_width > 0) {
                widen(mine.min_width, &total->min_width, &total->max_width);
                widen(mine.max_width, &total->min_width, &total->max_width);
                widen(mine.min_height, &total->min_height, &total->max_height);
                widen(mine.max_height, &total->min_height, &total->max_height);
            }
            if (failed < *first_bad) {
                *first_bad = failed;
                memcpy(total->first_bad, message, sizeof message);
            }
        }
        tn_image_done(&image);
    }
}

tn_status tn_survey_take(const tn_dataset *dataset, const tn_reporter *reporter, tn_survey *survey,
                         tn_error *error)
{
    const size_t count = tn_dataset_count(dataset);
    const int classes = tn_dataset_classes(dataset);
    size_t first_bad = SIZE_MAX;
    tn_survey made = {.images = count};
    made.class_images = tn_alloc_zero((size_t)classes + 1, sizeof *made.class_images);
    if (!made.class_images)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    for (size_t i = 0; i < count; i++) {
        int32_t label = tn_dataset_label(dataset, i);
        if (label >= 0 && label < classes)
            made.class_images[label]++;
        else
            made.unlabelled++;
    }
    for (size_t first = 0; first < count; first += CHUNK) {
        tn_progress(reporter, "decoding", first, count);
        if (tn_cancelled(reporter)) {
            tn_survey_done(&made);
            return tn_fail(error, TN_ERROR_CANCELLED, "stopped");
        }
        survey_chunk(dataset, first, first + CHUNK < count ? first + CHUNK : count, &made,
                     &first_bad);
    }
    *survey = made;
    return TN_OK;
}

void tn_survey_done(tn_survey *survey)
{
    tn_free(survey->class_images);
    survey->class_images = NULL;
}
