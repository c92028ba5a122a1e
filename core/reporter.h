/* How the library speaks to its caller: it never prints. Every member may be NULL, and so may the
 * pointer to a reporter. Calls come from the calling thread only. */
#ifndef TERNION_CORE_REPORTER_H
#define TERNION_CORE_REPORTER_H

#include "core/status.h"

#include <stdbool.h>
#include <stdint.h>

#ifndef TERNION_REPORTER_DEFINED
#define TERNION_REPORTER_DEFINED
typedef enum tn_log_level { TN_LOG_DEBUG = 0, TN_LOG_INFO = 1, TN_LOG_WARNING = 2 } tn_log_level;

typedef struct tn_reporter {
    void *context;
    void (*log)(void *context, tn_log_level level, const char *message);
    /* `what` is a short static phrase ("calibrating", "evaluating"); done of total units. */
    void (*progress)(void *context, const char *what, uint64_t done, uint64_t total);
    /* true asks long work to stop soon with TN_ERROR_CANCELLED */
    bool (*cancelled)(void *context);
    /* what a run's journal says, as it says it: one JSON object (no line end) */
    void (*event)(void *context, const char *json);
} tn_reporter;
#endif

void tn_log(const tn_reporter *reporter, tn_log_level level, const char *fmt, ...) TN_PRINTF(3, 4);
void tn_progress(const tn_reporter *reporter, const char *what, uint64_t done, uint64_t total);
bool tn_cancelled(const tn_reporter *reporter);

#endif
