/* Steps of n-bit quantization: q = clamp(round(w / s), low, high), w' = q s.
 *
 * With A = sum h q w and B = sum h q^2 the squared error is sum h w^2 - A^2 / B at the step A / B.
 */
#ifndef TERNION_CONVERTER_STEPS_H
#define TERNION_CONVERTER_STEPS_H

#include <stdint.h>

/* The step with the least squared error; low <= 0 <= high, low < high. Exact up to |codes| of 16
 * (thresholds.h). Wider ranges: from the step that clamps nothing
 * down in hundredths of it until 20 in a row are no better, 16 more around the best, then 3 Lloyd
 * iterations. h may be NULL. Positive and finite for any finite w; codes * step stay finite.
 */
float tn_step_optimal(const float *w, const float *h, int64_t n, int low, int high);

/* One Lloyd iteration: the best step for the codes that `step` gives; `step` when all are 0. */
float tn_step_lloyd(const float *w, const float *h, int64_t n, int low, int high, float step);

/* Positive, finite, and such that code * step is finite for all codes. */
float tn_step_legal(double step, int low, int high);

#endif
