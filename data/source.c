#include "data/source.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

tn_status tn_source_open(const char *path, tn_source *source, tn_error *error)
{
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (descriptor < 0)
        return tn_fail(error, TN_ERROR_IO, "cannot open %s: %s", tn_quote(path), strerror(errno));
    struct stat info;
    if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size < 0) {
        close(descriptor);
        return tn_fail(error, TN_ERROR_IO, "%s is no regular file", tn_quote(path));
    }
    *source = (tn_source){descriptor, (uint64_t)info.st_size, path};
    return TN_OK;
}

void tn_source_close(tn_source *source)
{
    if (source->descriptor >= 0)
        close(source->descriptor);
    source->descriptor = -1;
}

tn_status tn_source_read(const tn_source *source, uint64_t offset, void *dst, size_t bytes,
                         tn_error *error)
{
    unsigned char *at = dst;
    if (offset > INT64_MAX || bytes > (uint64_t)INT64_MAX - offset)
        return tn_fail(error, TN_ERROR_DATA, "%s: position %llu lies outside any file",
                       tn_quote(source->path), (unsigned long long)offset);
    while (bytes > 0) {
        ssize_t got = pread(source->descriptor, at, bytes, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return tn_fail(error, TN_ERROR_IO, "reading %s: %s", tn_quote(source->path),
                           strerror(errno));
        if (got == 0)
            return tn_fail(error, TN_ERROR_DATA, "%s ends at byte %llu, %zu bytes too early",
                           tn_quote(source->path), (unsigned long long)offset, bytes);
        at += got;
        offset += (uint64_t)got;
        bytes -= (size_t)got;
    }
    return TN_OK;
}

tn_status tn_source_read_all(const char *path, size_t limit, unsigned char **data, size_t *size,
                             tn_error *error)
{
    tn_source source = {.descriptor = -1};
    unsigned char *bytes = NULL;
    tn_status status = tn_source_open(path, &source, error);
    if (status != TN_OK)
        return status;
    if (source.size > limit) {
        status = tn_fail(error, TN_ERROR_LIMIT, "%s has %llu bytes; at most %zu are read here",
                         tn_quote(path), (unsigned long long)source.size, limit);
        goto done;
    }
    bytes = tn_alloc((size_t)source.size + 1);
    if (!bytes) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for %s (%llu bytes)", tn_quote(path),
                         (unsigned long long)source.size);
        goto done;
    }
    status = tn_source_read(&source, 0, bytes, (size_t)source.size, error);
    if (status != TN_OK)
        goto done;
    bytes[source.size] = 0;
    *data = bytes;
    *size = (size_t)source.size;
    bytes = NULL;
done:
    tn_free(bytes);
    tn_source_close(&source);
    return status;
}
