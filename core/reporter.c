#include "core/reporter.h"

#include <stdarg.h>
#include <stdio.h>

void tn_log(const tn_reporter *reporter, tn_log_level level, const char *fmt, ...)
{
    if (!reporter || !reporter->log)
        return;
    char text[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    reporter->log(reporter->context, level, text);
}

void tn_progress(const tn_reporter *reporter, const char *what, uint64_t done, uint64_t total)
{
    if (reporter && reporter->progress)
        reporter->progress(reporter->context, what, done, total);
}

bool tn_cancelled(const tn_reporter *reporter)
{
    return reporter && reporter->cancelled && reporter->cancelled(reporter->context);
}
