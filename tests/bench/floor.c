/* The floor of a conversion: reads a whole file from the page cache and writes BYTES of what was
 * read (all of it when BYTES is 0) to another with one fsync.
 *
 *     floor INPUT OUTPUT BYTES */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { BUFFER = 1 << 20 };

static int copy(int from, int to, unsigned long long limit)
{
    char *buffer = malloc(BUFFER);
    unsigned long long written = 0;
    int failed = buffer == NULL;
    while (!failed) {
        ssize_t got = read(from, buffer, BUFFER);
        if (got <= 0) {
            failed = got < 0;
            break;
        }
        size_t some = (size_t)got;
        if (limit != 0 && some > limit - written)
            some = (size_t)(limit - written);
        failed = some > 0 && write(to, buffer, some) != (ssize_t)some;
        written += some;
    }
    free(buffer);
    return failed || fsync(to) != 0;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    int from = open(argv[1], O_RDONLY), to = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (from < 0 || to < 0 || copy(from, to, strtoull(argv[3], NULL, 10)) != 0) {
        perror("floor");
        return 1;
    }
    (void)close(from);
    return close(to) != 0;
}
