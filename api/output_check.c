/* Where a file may be written: known before any work, by one rule for all that is written. */
#include "api/boundary.h"

#include "core/file.h"
#include "data/dataset.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* True when `path`, which exists, lies somewhere below `folder`. */
static bool is_below(const char *folder, const char *path)
{
    char *above = realpath(folder, NULL), *below = realpath(path, NULL);
    size_t length = above ? strlen(above) : 0;
    bool inside = above && below && strncmp(above, below, length) == 0 &&
                  (below[length] == '/' || length == 1);
    free(above);
    free(below);
    return inside;
}

/* The tensors of a model, in a file of their own as it is usually called. */
static bool is_external_data(const char *path, const char *output)
{
    char data[4200];
    snprintf(data, sizeof data, "%s.data", path);
    return tn_file_is_same(data, output);
}

static tn_status check_input(const char *input, const char *output, tn_error *error)
{
    char path[4096];
    const size_t length = tn_dataset_path_length(input, NULL);
    struct stat info;
    if (length >= sizeof path)
        return TN_OK; /* too long to be opened */
    snprintf(path, sizeof path, "%.*s", (int)length, input);
    if (tn_file_is_same(path, output))
        return tn_fail(error, TN_ERROR_USAGE, "the output %s is the input itself: name another",
                       tn_quote(output));
    if (is_external_data(path, output))
        return tn_fail(error, TN_ERROR_USAGE,
                       "the output %s holds the external data of the input %s: name another",
                       tn_quote(output), tn_quote(path));
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode) && is_below(path, output))
        return tn_fail(error, TN_ERROR_USAGE,
                       "the output %s is a file of the data set %s, an input: name another",
                       tn_quote(output), tn_quote(path));
    return TN_OK;
}

static tn_status check_there(const char *output, const struct stat *info,
                             const tn_output_options *out, tn_error *error)
{
    if (S_ISDIR(info->st_mode))
        return tn_fail(error, TN_ERROR_USAGE, "the output %s is a folder: name a file",
                       tn_quote(output));
    if (!S_ISREG(info->st_mode))
        return tn_fail(error, TN_ERROR_USAGE,
                       "the output %s is a device or pipe, no regular file: name another",
                       tn_quote(output));
    if (!out->replace && !out->dry_run)
        return tn_fail(error, TN_ERROR_USAGE,
                       "%s exists already: give -f to overwrite it, or another name",
                       tn_quote(output));
    return TN_OK;
}

static tn_status check_folder(const char *output, tn_error *error)
{
    struct stat info;
    const char *slash = strrchr(output, '/');
    char folder[4096];
    if (!slash || slash == output)
        return TN_OK;
    snprintf(folder, sizeof folder, "%.*s", (int)(slash - output), output);
    if (stat(folder, &info) != 0)
        return tn_fail(error, TN_ERROR_IO, "cannot write %s: its folder %s: %s", tn_quote(output),
                       tn_quote(folder), strerror(errno));
    if (!S_ISDIR(info.st_mode))
        return tn_fail(error, TN_ERROR_IO, "cannot write %s: %s is no folder", tn_quote(output),
                       tn_quote(folder));
    return TN_OK;
}

tn_status tn_output_check(const char *output, const char *const *inputs, size_t n_inputs,
                          const tn_output_options *out, tn_error *error)
{
    static const tn_output_options standard;
    struct stat info;
    tn_status status = TN_OK;
    if (output[0] == '\0') /* nothing will be written */
        return TN_OK;
    for (size_t i = 0; i < n_inputs && status == TN_OK; i++)
        status = check_input(inputs[i], output, error);
    if (status != TN_OK)
        return status;
    return stat(output, &info) == 0 ? check_there(output, &info, out ? out : &standard, error)
                                    : check_folder(output, error);
}
