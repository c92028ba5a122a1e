/* Time of training steps on noise, for training_speed.py and for the price of quantization:
 *
 *   training_speed MODEL|ARCHITECTURE BATCH PAIRS fp32|bf16 SCHEME[,GRANULARITY[,THRESHOLD]]...
 *
 * One student per scheme; steps of all are taken in turn, so that what else the machine does meets
 * all alike. Per scheme: median and best milliseconds of a step, and its ratio to the first
 * scheme's as the median over the turns ("float" first gives the price of quantization). Processor
 * time with TERNION_CPU_TIME, else wall time. */
#include "tests/bench/noise.h"

#include <stdio.h>
#include <stdlib.h>

enum { MOST = 8, WARM = 2, MOST_TURNS = 100 };

typedef struct contender {
    noise_student trained;
    double took[MOST_TURNS]; /* milliseconds */
} contender;

static tn_status take_turns(contender *c, int n, int turns, const noise *network, tn_error *error)
{
    for (int turn = -WARM; turn < turns; turn++)
        for (int i = 0; i < n; i++) {
            double start = noise_milliseconds();
            tn_status status = noise_student_step(&c[i].trained, network, error);
            if (status != TN_OK)
                return status;
            if (turn >= 0)
                c[i].took[turn] = noise_milliseconds() - start;
        }
    return TN_OK;
}

static void print(const contender *c, int n, int turns, int batch)
{
    for (int i = 0; i < n; i++) {
        double ratio[MOST_TURNS], best = c[i].took[0], middle = noise_median(c[i].took, turns);
        for (int turn = 0; turn < turns; turn++) {
            ratio[turn] = c[i].took[turn] / c[0].took[turn];
            best = c[i].took[turn] < best ? c[i].took[turn] : best;
        }
        printf("%s: median %.2f ms, best %.2f ms, %.1f images/s, ratio %.4f\n", c[i].trained.text,
               middle, best, 1e3 * batch / best, noise_median(ratio, turns));
    }
}

int main(int argc, char **argv)
{
    tn_error error = {0};
    noise network;
    static contender all[MOST];
    if (argc < 6 || argc > 5 + MOST) {
        fprintf(stderr, "usage: training_speed MODEL|ARCHITECTURE BATCH PAIRS fp32|bf16 SCHEME...\n");
        return 2;
    }
    int batch = atoi(argv[2]), turns = atoi(argv[3]), n = argc - 5;
    turns = turns < 1 ? 1 : turns > MOST_TURNS ? MOST_TURNS : turns;
    tn_status status = noise_open(argv[1], batch, argv[4], &network, &error);
    for (int i = 0; status == TN_OK && i < n; i++)
        status = noise_student_create(&network, argv[5 + i], &all[i].trained, &error);
    if (status == TN_OK)
        status = take_turns(all, n, turns, &network, &error);
    if (status == TN_OK)
        print(all, n, turns, batch);
    else
        fprintf(stderr, "training_speed: %s\n", error.message);
    for (int i = 0; i < n; i++)
        tn_student_done(&all[i].trained.student);
    noise_close(&network);
    return status != TN_OK;
}
