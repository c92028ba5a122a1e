/* Status codes and the error record that every fallible function of the library fills.
 *
 * A function that can fail returns a tn_status and takes a caller-owned `tn_error *` as its last
 * parameter (NULL is allowed). The first error wins; callers on the way up may prepend context.
 * Outputs are untouched on failure. */
#ifndef TERNION_CORE_STATUS_H
#define TERNION_CORE_STATUS_H

/* Values are fixed for ever: they are also the exit codes of the program. */
#ifndef TERNION_STATUS_DEFINED
#define TERNION_STATUS_DEFINED
typedef enum tn_status {
    TN_OK = 0,
    TN_ERROR_DIFFERS = 1,  /* a comparison or verification failed */
    TN_ERROR_USAGE = 2,    /* the caller asked for something impossible */
    TN_ERROR_MODEL = 3,    /* the model is broken or not supported */
    TN_ERROR_DATA = 4,     /* the data set is broken or does not fit the model */
    TN_ERROR_DIVERGED = 5, /* training diverged */
    TN_ERROR_IO = 6,       /* reading or writing failed */
    TN_ERROR_LIMIT = 7,    /* out of memory, or a limit was reached */
    TN_ERROR_DEVICE = 8,   /* a device is missing or failed */
    TN_ERROR_CANCELLED = 9 /* the caller's cancel callback said stop */
} tn_status;

typedef struct tn_error {
    tn_status code;
    char message[1536]; /* what, where, expected, got, what to do; UTF-8, escaped names */
    char node[128];     /* the node or tensor it is about, or "" */
    const char *file;   /* source position that raised it */
    int line;
} tn_error;
#endif

#define TN_MUST_CHECK __attribute__((warn_unused_result))
#define TN_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

/* Records an error unless one is recorded already, and returns `code`. Names that come from files
 * must be passed through tn_quote() first. */
tn_status tn_error_set(tn_error *error, tn_status code, const char *file, int line, const char *fmt,
                       ...) TN_PRINTF(5, 6);

#define tn_fail(error, code, ...) tn_error_set((error), (code), __FILE__, __LINE__, __VA_ARGS__)

/* Puts "context: " before the recorded message; no effect without an error. */
void tn_error_prepend(tn_error *error, const char *fmt, ...) TN_PRINTF(2, 3);

/* Notes which node or tensor the recorded error is about, unless one is noted already. */
void tn_error_note_node(tn_error *error, const char *node);

void tn_error_clear(tn_error *error);

/* A name from a file made safe to print: quoted, control and bidirectional characters and invalid
 * UTF-8 escaped, cut at about 100 characters. `name` may be NULL. The result lives in a small ring
 * of thread-local buffers: up to 8 calls may stand in one printf. */
const char *tn_quote(const char *name);

#endif
