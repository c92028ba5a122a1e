#include "core/file.h"

#include "core/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

tn_status tn_file_map_descriptor(int descriptor, const char *name, tn_file_map *map,
                                 tn_error *error)
{
    struct stat info;
    if (fstat(descriptor, &info) != 0)
        return tn_fail(error, TN_ERROR_IO, "%s: cannot examine: %s", tn_quote(name),
                       strerror(errno));
    if (!S_ISREG(info.st_mode))
        return tn_fail(error, TN_ERROR_IO, "%s is not a regular file", tn_quote(name));
    tn_file_map result = {.size = (size_t)info.st_size,
                          .device = (uint64_t)info.st_dev,
                          .inode = (uint64_t)info.st_ino};
    if (result.size > 0) {
        void *data = mmap(NULL, result.size, PROT_READ, MAP_PRIVATE, descriptor, 0);
        if (data == MAP_FAILED)
            return tn_fail(error, TN_ERROR_IO, "%s: cannot map %zu bytes: %s", tn_quote(name),
                           result.size, strerror(errno));
        result.data = data;
    }
    *map = result;
    return TN_OK;
}

tn_status tn_file_map_open(const char *path, tn_file_map *map, tn_error *error)
{
    /* O_NONBLOCK: opening a FIFO must not wait for a writer */
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (descriptor < 0)
        return tn_fail(error, TN_ERROR_IO, "cannot open %s: %s", tn_quote(path), strerror(errno));
    tn_status status = tn_file_map_descriptor(descriptor, path, map, error);
    close(descriptor);
    return status;
}

void tn_file_map_close(tn_file_map *map)
{
    if (map->data)
        munmap((void *)(uintptr_t)map->data, map->size);
    *map = (tn_file_map){0};
}

void tn_file_map_forget(const tn_file_map *map)
{
    if (map->data)
        (void)madvise((void *)(uintptr_t)map->data, map->size, MADV_DONTNEED); /* a hint */
}

enum { BUFFER_BYTES = 1 << 18 };

struct tn_file_writer {
    char *path;      /* as the caller named it, for messages */
    char *target;    /* where it goes: links resolved */
    char *temporary; /* NULL while the file has no name (O_TMPFILE) */
    char *folder;
    int descriptor;
    bool replace, synced;
    tn_status failed; /* first failure of a write */
    uint64_t position;
    size_t buffered;
    unsigned char buffer[BUFFER_BYTES];
};

static tn_status writer_fail(const tn_file_writer *writer, const char *what, tn_error *error)
{
    int reason = errno;
    return tn_fail(error, TN_ERROR_IO, "cannot %s %s: %s", what, tn_quote(writer->path),
                   strerror(reason));
}

static void release(tn_file_writer *writer)
{
    if (writer->descriptor >= 0)
        close(writer->descriptor);
    if (writer->temporary)
        unlink(writer->temporary);
    tn_free(writer->temporary);
    tn_free(writer->folder);
    tn_free(writer->target);
    tn_free(writer->path);
    tn_free(writer);
}

/* "FOLDER/.NAME.xxxxxxxx.tmp", a name nobody else picks. */
static char *temporary_name(const tn_file_writer *writer)
{
    const char *slash = strrchr(writer->target, '/');
    const char *name = slash ? slash + 1 : writer->target;
    uint64_t random = 0;
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
        random = (uint64_t)getpid() * 0x9e3779b97f4a7c15u;
    size_t bytes = strlen(writer->folder) + strlen(name) + 32;
    char *text = tn_alloc(bytes);
    /* a long name is cut: the temporary must fit into NAME_MAX too */
    if (text)
        snprintf(text, bytes, "%s/.%.200s.%016llx.tmp", writer->folder, name,
                 (unsigned long long)random);
    return text;
}

/* An unnamed file where the file system and /proc allow it: nothing stays behind even after
 * SIGKILL. Else an exclusive temporary. */
static tn_status open_temporary(tn_file_writer *writer, tn_error *error)
{
    char proc[64];
    writer->descriptor = open(writer->folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
    if (writer->descriptor >= 0) {
        snprintf(proc, sizeof proc, "/proc/self/fd/%d", writer->descriptor);
        if (access(proc, F_OK) == 0)
            return TN_OK;
        close(writer->descriptor);
    }
    writer->temporary = temporary_name(writer);
    if (!writer->temporary)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory writing %s", tn_quote(writer->path));
    writer->descriptor =
        open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (writer->descriptor >= 0)
        return TN_OK;
    tn_status status = writer_fail(writer, "create", error);
    tn_free(writer->temporary);
    writer->temporary = NULL;
    return status;
}

/* What stands at the path already decides: a link is followed, a device is never replaced. */
static tn_status resolve_target(tn_file_writer *writer, tn_error *error)
{
    struct stat info;
    char resolved[PATH_MAX];
    if (lstat(writer->path, &info) != 0) {
        if (errno != ENOENT)
            return writer_fail(writer, "write", error);
        resolved[0] = '\0';
    } else {
        if (!writer->replace)
            return tn_fail(error, TN_ERROR_USAGE,
                           "%s exists already: choose another name or allow overwriting",
                           tn_quote(writer->path));
        if (!realpath(writer->path, resolved) || stat(resolved, &info) != 0)
            return writer_fail(writer, "follow the link", error);
        if (!S_ISREG(info.st_mode))
            return tn_fail(error, TN_ERROR_USAGE, "%s is not a regular file: it is not replaced",
                           tn_quote(writer->path));
    }
    size_t length = strlen(writer->path);
    if (length == 0 || writer->path[length - 1] == '/')
        return tn_fail(error, TN_ERROR_USAGE, "%s names no file", tn_quote(writer->path));
    writer->target = tn_strdup(resolved[0] ? resolved : writer->path);
    writer->folder = tn_strdup(writer->target ? writer->target : "");
    if (!writer->target || !writer->folder)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory writing %s", tn_quote(writer->path));
    char *slash = strrchr(writer->folder, '/');
    if (!slash)
        memcpy(writer->folder, ".", 2);
    else
        slash[slash == writer->folder] = '\0'; /* "/name" is in "/" */
    return TN_OK;
}

tn_status tn_file_writer_open(const char *path, bool replace, tn_file_writer **writer,
                              tn_error *error)
{
    tn_file_writer *result = tn_alloc(sizeof *result);
    if (!result)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory writing %s", tn_quote(path));
    memset(result, 0, offsetof(tn_file_writer, buffer));
    result->descriptor = -1;
    result->replace = replace;
    result->path = tn_strdup(path);
    tn_status status =
        result->path ? resolve_target(result, error)
                     : tn_fail(error, TN_ERROR_LIMIT, "out of memory writing %s", tn_quote(path));
    if (status == TN_OK)
        status = open_temporary(result, error);
    if (status != TN_OK) {
        release(result);
        return status;
    }
    *writer = result;
    return TN_OK;
}

static tn_status write_all(tn_file_writer *writer, const unsigned char *data, size_t bytes,
                           tn_error *error)
{
    while (bytes > 0) {
        size_t part = bytes < (size_t)1 << 30 ? bytes : (size_t)1 << 30;
        ssize_t done = write(writer->descriptor, data, part);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) {
            if (done == 0)
                errno = ENOSPC;
            return writer->failed = writer_fail(writer, "write", error);
        }
        data += done;
        bytes -= (size_t)done;
    }
    return TN_OK;
}

static tn_status flush(tn_file_writer *writer, tn_error *error)
{
    size_t bytes = writer->buffered;
    writer->buffered = 0;
    return write_all(writer, writer->buffer, bytes, error);
}

tn_status tn_file_writer_write(tn_file_writer *writer, const void *data, size_t bytes,
                               tn_error *error)
{
    if (writer->failed != TN_OK)
        return tn_fail(error, writer->failed, "an earlier write to %s failed",
                       tn_quote(writer->path));
    if (bytes == 0)
        return TN_OK;
    writer->synced = false;
    if (writer->buffered + bytes > BUFFER_BYTES) {
        tn_status status = flush(writer, error);
        if (status == TN_OK && bytes >= BUFFER_BYTES)
            status = write_all(writer, data, bytes, error);
        if (status != TN_OK)
            return status;
    }
    if (bytes < BUFFER_BYTES) {
        memcpy(writer->buffer + writer->buffered, data, bytes);
        writer->buffered += bytes;
    }
    writer->position += bytes;
    return TN_OK;
}

uint64_t tn_file_writer_position(const tn_file_writer *writer)
{
    return writer->position;
}

static bool link_unnamed(const tn_file_writer *writer, const char *name)
{
    char proc[64];
    snprintf(proc, sizeof proc, "/proc/self/fd/%d", writer->descriptor);
    return linkat(AT_FDCWD, proc, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0;
}

/* Gives the finished file its name. Without `replace` the link itself fails when somebody took the
 * name meanwhile; with it, the rename is the moment the old file goes. */
static tn_status publish(tn_file_writer *writer, tn_error *error)
{
    struct stat info;
    if (!writer->temporary) {
        if (link_unnamed(writer, writer->target))
            return TN_OK;
        if (errno != EEXIST)
            return writer_fail(writer, "name", error);
    } else if (!writer->replace && link(writer->temporary, writer->target) == 0) {
        return TN_OK; /* release() unlinks the temporary name */
    }
    if (!writer->replace)
        return errno == EEXIST
                   ? tn_fail(error, TN_ERROR_USAGE, "%s was created by somebody else meanwhile",
                             tn_quote(writer->path))
                   : writer_fail(writer, "name", error);
    if (!writer->temporary) {
        writer->temporary = temporary_name(writer);
        if (!writer->temporary)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory writing %s",
                           tn_quote(writer->path));
        if (!link_unnamed(writer, writer->temporary)) {
            tn_status status = writer_fail(writer, "name", error);
            tn_free(writer->temporary);
            writer->temporary = NULL;
            return status;
        }
    }
    if (stat(writer->target, &info) == 0 && S_ISREG(info.st_mode))
        (void)!fchmod(writer->descriptor, info.st_mode & 0777); /* best effort: keep its mode */
    if (rename(writer->temporary, writer->target) != 0)
        return writer_fail(writer, "replace", error);
    tn_free(writer->temporary);
    writer->temporary = NULL;
    return TN_OK;
}

/* Some file systems cannot fsync at all: that is not a failure of this write. */
static bool sync_descriptor(int descriptor)
{
    return fsync(descriptor) == 0 || errno == EINVAL || errno == ENOTSUP || errno == EROFS;
}

static tn_status sync_folder(const tn_file_writer *writer, tn_error *error)
{
    int folder = open(writer->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return TN_OK; /* a folder may be writable and not readable */
    bool ok = sync_descriptor(folder);
    tn_status status = ok ? TN_OK : writer_fail(writer, "sync the folder of", error);
    close(folder);
    return status;
}

tn_status tn_file_writer_finish(tn_file_writer *writer, tn_error *error)
{
    if (writer->failed != TN_OK)
        return tn_fail(error, writer->failed, "an earlier write to %s failed",
                       tn_quote(writer->path));
    tn_status status = flush(writer, error);
    if (status == TN_OK && !writer->synced && !sync_descriptor(writer->descriptor))
        status = writer->failed = writer_fail(writer, "sync", error);
    writer->synced = status == TN_OK;
    return status;
}

tn_status tn_file_writer_commit(tn_file_writer *writer, tn_error *error)
{
    tn_status status = tn_file_writer_finish(writer, error);
    if (status == TN_OK)
        status = publish(writer, error);
    /* close can report nothing that fsync has not */
    if (status == TN_OK) {
        status = sync_folder(writer, error);
        if (status != TN_OK && !writer->replace)
            unlink(writer->target); /* it was not there before */
    }
    release(writer);
    return status;
}

void tn_file_writer_discard(tn_file_writer *writer)
{
    if (writer)
        release(writer);
}

/* Reads to the end of the file, at most size bytes; *got is how many. */
static tn_status read_all(int descriptor, const char *path, unsigned char *data, size_t size,
                          size_t *got, tn_error *error)
{
    size_t done = 0;
    while (done < size) {
        ssize_t part = read(descriptor, data + done, size - done);
        if (part < 0 && errno == EINTR)
            continue;
        if (part < 0)
            return tn_fail(error, TN_ERROR_IO, "cannot read %s: %s", tn_quote(path),
                           strerror(errno));
        if (part == 0)
            break;
        done += (size_t)part;
    }
    *got = done;
    return TN_OK;
}

tn_status tn_file_read(const char *path, size_t limit, unsigned char **data, size_t *size,
                       tn_error *error)
{
    struct stat info;
    unsigned char *bytes = NULL;
    size_t got = 0;
    tn_status status = TN_OK;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (descriptor < 0 || fstat(descriptor, &info) != 0) {
        status = tn_fail(error, TN_ERROR_IO, "cannot open %s: %s", tn_quote(path), strerror(errno));
        goto done;
    }
    if (!S_ISREG(info.st_mode)) {
        status = tn_fail(error, TN_ERROR_IO, "%s is not a regular file", tn_quote(path));
        goto done;
    }
    if ((uint64_t)info.st_size > limit || (uint64_t)info.st_size >= SIZE_MAX) {
        status = tn_fail(error, TN_ERROR_LIMIT, "%s has %lld bytes; at most %zu are read",
                         tn_quote(path), (long long)info.st_size, limit);
        goto done;
    }
    bytes = tn_alloc((size_t)info.st_size + 1);
    if (!bytes) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory reading %s", tn_quote(path));
        goto done;
    }
    status = read_all(descriptor, path, bytes, (size_t)info.st_size, &got, error);
    if (status != TN_OK)
        goto done;
    bytes[got] = '\0';
    *data = bytes;
    *size = got;
    bytes = NULL;
done:
    tn_free(bytes);
    if (descriptor >= 0)
        close(descriptor);
    return status;
}

bool tn_file_is_same(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}
