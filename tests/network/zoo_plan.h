/* What tests of plans have in common: a network of the zoo on the CPU, seeded images, a plan. By
 * cmocka: what fails, fails the test. */
#ifndef TERNION_TESTS_NETWORK_ZOO_PLAN_H
#define TERNION_TESTS_NETWORK_ZOO_PLAN_H

#include "network/plan.h"

enum { CLASSES = 10, PIXELS = 3 * 32 * 32, MOST_IMAGES = 16 };

typedef struct fixture {
    tn_model *model;
    tn_graph *graph;
    tn_device *device;
    tn_plan *plan; /* NULL until opened */
    int64_t batch;
    float input[MOST_IMAGES * PIXELS];
    int32_t labels[MOST_IMAGES];
} fixture;

extern tn_error error; /* of the test that runs */

void ok(tn_status status); /* TN_OK, else the test fails with error's message */

void open_network(fixture *f, const char *id, int64_t batch);
/* Instead of the last; it has the images. */
void open_plan(fixture *f, const tn_plan_options *options);
void close_network(fixture *f);

float *gradients(const fixture *f, int64_t *count); /* of all parameters; for free() */

#endif
