#include "api/boundary.h"

#include <string.h>

typedef struct result_head {
    tn_arena arena;
} result_head;

enum { HEAD = (sizeof(result_head) + 15) / 16 * 16 };

void *tn_result_create(size_t bytes)
{
    char *head = tn_alloc_zero(1, HEAD + bytes);
    if (!head)
        return NULL;
    tn_arena_init(tn_result_arena(head + HEAD));
    return head + HEAD;
}

tn_arena *tn_result_arena(void *result)
{
    return &((result_head *)(void *)((char *)result - HEAD))->arena;
}

void tn_result_free(void *result)
{
    if (!result)
        return;
    tn_arena_done(tn_result_arena(result));
    tn_free((char *)result - HEAD);
}

tn_read_options tn_boundary_read(const tn_input_options *in, const tn_reporter *reporter)
{
    return (tn_read_options){
        .max_memory = in->max_memory, .allow_symlinks = in->allow_symlinks, .reporter = reporter};
}

tn_status tn_boundary_write(const tn_output_options *out, tn_write_options *options,
                            tn_error *error)
{
    static const char *const names[] = {"auto", "never", "always"};
    tn_external external = TN_EXTERNAL_AUTO;
    bool known = !out->external;
    for (int i = 0; i < 3 && out->external; i++) {
        if (strcmp(out->external, names[i]) == 0) {
            external = (tn_external)i;
            known = true;
        }
    }
    if (!known)
        return tn_fail(error, TN_ERROR_USAGE, "external data %s: expected auto, never or always",
                       tn_quote(out->external));
    *options = (tn_write_options){.replace = out->replace, .external = external};
    return TN_OK;
}
