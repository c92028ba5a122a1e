/* Version, process settings, escaping. */
#include "api/ternion.h"

#include "core/memory.h"
#include "core/status.h"
#include "core/threads.h"
#include "finetune/launcher.h"

#include <stdio.h>
#include <string.h>

const char *tn_version(void)
{
    return TERNION_VERSION;
}

void tn_configure(int threads, uint64_t max_memory)
{
    const tn_launch launch = tn_launcher_read();
    tn_threads_set(threads > 0 ? threads : tn_launcher_threads(&launch));
    tn_memory_set_limit(max_memory);
}

const char *tn_escape(const char *name, char *text, size_t size)
{
    const char *quoted = tn_quote(name);
    size_t length = strlen(quoted);
    if (size == 0)
        return "";
    if (length >= 2 && quoted[0] == '\'') /* the caller chooses its own quotes */
        snprintf(text, size, "%.*s", (int)(length - 2), quoted + 1);
    else
        snprintf(text, size, "%s", quoted);
    return text;
}
