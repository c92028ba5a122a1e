#include "api/boundary.h"

#include "core/file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

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

tn_status tn_boundary_check_output(const char *input, const char *output,
                                   const tn_output_options *out, tn_error *error)
{
    struct stat info;
    if (output[0] == '\0') /* nothing will be written */
        return TN_OK;
    if (input && tn_file_is_same(input, output))
        return tn_fail(error, TN_ERROR_USAGE, "the output %s is the input itself: name another",
                       tn_quote(output));
    if (stat(output, &info) == 0) {
        if (S_ISDIR(info.st_mode))
            return tn_fail(error, TN_ERROR_USAGE, "the output %s is a folder", tn_quote(output));
        if (!out->replace && !out->dry_run)
            return tn_fail(error, TN_ERROR_USAGE,
                           "%s exists already: give -f to overwrite it, or another name",
                           tn_quote(output));
        return TN_OK;
    }
    const char *slash = strrchr(output, '/');
    char folder[4096];
    if (!slash || slash == output)
        return TN_OK;
    snprintf(folder, sizeof folder, "%.*s", (int)(slash - output), output);
    if (stat(folder, &info) != 0)
        return tn_fail(error, TN_ERROR_IO, "cannot write into the folder %s: %s", tn_quote(folder),
                       strerror(errno));
    return TN_OK;
}
