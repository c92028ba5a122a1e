/* CIFAR-10 and CIFAR-100, python version: a pickled dict with `labels` (or `fine_labels`) and
 * `data`, an array of bytes [n, 3072]. Nothing is unpickled: the opcodes of that known layout are
 * walked over, every other one is refused, and no name but NumPy's array constructors is accepted.
 */
#include "data/reader.h"

#include <stdio.h>
#include <string.h>

enum { SIDE = 32, PLANE = SIDE * SIDE, ROW = 3 * PLANE, MAX_FILES = 16, FILE_LIMIT = 1 << 30 };

typedef struct pickle_files {
    tn_source file[MAX_FILES];
    const char *name[MAX_FILES];
    uint64_t data[MAX_FILES]; /* where the pixels begin */
    size_t first[MAX_FILES + 1];
    size_t n_files;
} pickle_files;

/* The walk over one file. */
typedef struct pickle_walk {
    const unsigned char *bytes;
    size_t size, at;
    const char *path;
    char key[32]; /* the dict key whose value is being read */
    bool has_data;
    size_t data_at, data_bytes;
    int32_t *labels; /* room for one per possible row */
    size_t n_labels, room;
} pickle_walk;

static const char *const train10[] = {"data_batch_1", NULL};
static const char *const test10[] = {"test_batch", NULL};
static const char *const train100[] = {"train", NULL};
static const char *const test100[] = {"test", NULL};
static const char *const meta100[] = {"meta", NULL};

static bool match(const tn_location *where)
{
    const char *path = where->path;
    return where->is_folder &&
           (tn_path_first_file(path, train10) || tn_path_first_file(path, test10) ||
            (tn_path_first_file(path, meta100) &&
             (tn_path_first_file(path, train100) || tn_path_first_file(path, test100))));
}

static bool take(pickle_walk *w, size_t n, const unsigned char **bytes)
{
    if (n > w->size - w->at)
        return false;
    *bytes = w->bytes + w->at;
    w->at += n;
    return true;
}

static bool take_number(pickle_walk *w, int bytes, uint64_t *value)
{
    const unsigned char *field;
    if (!take(w, (size_t)bytes, &field))
        return false;
    *value = 0;
    for (int i = bytes; i > 0; i--)
        *value = *value << 8 | field[i - 1];
    return true;
}

/* A counted string or bytes: the key of a pair, the data, or of no interest. */
static bool take_string(pickle_walk *w, int count_bytes)
{
    uint64_t n;
    const unsigned char *text;
    if (!take_number(w, count_bytes, &n) || n > w->size || !take(w, (size_t)n, &text))
        return false;
    if (strcmp(w->key, "data") == 0 && n >= ROW && !w->has_data) {
        w->has_data = true;
        w->data_at = (size_t)(text - w->bytes);
        w->data_bytes = (size_t)n;
    } else if (n < sizeof w->key && n > 0) {
        static const char *const keys[] = {"batch_label", "labels",        "data", "filenames",
                                           "fine_labels", "coarse_labels", NULL};
        for (const char *const *k = keys; *k; k++)
            if (strlen(*k) == n && memcmp(*k, text, (size_t)n) == 0)
                strcpy(w->key, *k);
    }
    return true;
}

/* "module\nname\n": only what NumPy's arrays are made of. */
static bool take_global(pickle_walk *w)
{
    static const char *const allowed[] = {"numpy.core.multiarray\n_reconstruct\n",
                                          "numpy._core.multiarray\n_reconstruct\n",
                                          "numpy\nndarray\n", "numpy\ndtype\n", NULL};
    for (const char *const *name = allowed; *name; name++) {
        size_t n = strlen(*name);
        if (n <= w->size - w->at && memcmp(w->bytes + w->at, *name, n) == 0) {
            w->at += n;
            return true;
        }
    }
    return false;
}

static bool take_label(pickle_walk *w, int bytes)
{
    uint64_t value;
    if (!take_number(w, bytes, &value))
        return false;
    if (strcmp(w->key, "labels") != 0 && strcmp(w->key, "fine_labels") != 0)
        return true;
    if (w->n_labels == w->room)
        return false;
    w->labels[w->n_labels++] = value > INT32_MAX ? -1 : (int32_t)value;
    return true;
}

/* One opcode; false for one that the layout does not have, or that runs off the end. */
static bool step(pickle_walk *w, bool *stop)
{
    uint64_t number;
    const unsigned char *op;
    if (!take(w, 1, &op))
        return false;
    switch (*op) {
    case 0x80: /* PROTO */
        return take_number(w, 1, &number) && number <= 4;
    case 0x95: /* FRAME */
        return take_number(w, 8, &number);
    case 'c': /* GLOBAL */
        return take_global(w);
    case 'U': /* SHORT_BINSTRING, SHORT_BINBYTES, SHORT_BINUNICODE */
    case 'C':
    case 0x8c:
        return take_string(w, 1);
    case 'T': /* BINSTRING, BINBYTES, BINUNICODE */
    case 'B':
    case 'X':
        return take_string(w, 4);
    case 0x8e: /* BINBYTES8 */
        return take_string(w, 8);
    case 'K': /* BININT1, BININT2, BININT */
        return take_label(w, 1);
    case 'M':
        return take_label(w, 2);
    case 'J':
        return take_label(w, 4);
    case 'q': /* BINPUT, LONG_BINPUT, BINGET, LONG_BINGET */
    case 'h':
        return take_number(w, 1, &number);
    case 'r':
    case 'j':
        return take_number(w, 4, &number);
    case '}': /* EMPTY_DICT, EMPTY_LIST, MARK, APPENDS, APPEND, SETITEMS, SETITEM, MEMOIZE, TUPLE,
                 TUPLE1 to 3, EMPTY_TUPLE, REDUCE, BUILD, NONE, NEWTRUE, NEWFALSE */
    case ']':
    case '(':
    case 'e':
    case 'a':
    case 'u':
    case 's':
    case 0x94:
    case 't':
    case 0x85:
    case 0x86:
    case 0x87:
    case ')':
    case 'R':
    case 'b':
    case 'N':
    case 0x88:
    case 0x89:
        return true;
    case '.': /* STOP */
        *stop = true;
        return true;
    default:
        return false;
    }
}

static tn_status walk_file(pickle_walk *w, tn_error *error)
{
    bool stop = false;
    while (!stop) {
        size_t before = w->at;
        if (!step(w, &stop))
            return tn_fail(error, TN_ERROR_DATA,
                           "%s: byte %zu is not part of the layout of CIFAR's python version "
                           "(other pickles are never loaded)",
                           tn_quote(w->path), before);
    }
    if (!w->has_data || w->data_bytes % ROW != 0 || w->n_labels != w->data_bytes / ROW)
        return tn_fail(error, TN_ERROR_DATA,
                       "%s holds %zu labels and %zu bytes of pixels; %d bytes a label are expected",
                       tn_quote(w->path), w->n_labels, w->data_bytes, ROW);
    return TN_OK;
}

/* Opens one batch, adds its labels and fingerprint. */
static tn_status add_file(tn_dataset *dataset, const char *folder, const char *name,
                          tn_error *error)
{
    pickle_files *files = dataset->store;
    size_t k = files->n_files;
    unsigned char *bytes = NULL;
    pickle_walk *walk = tn_alloc_zero(1, sizeof *walk);
    char *path = tn_path_join(&dataset->arena, folder, name);
    files->name[k] = tn_arena_strdup(&dataset->arena, name);
    tn_status status = TN_OK;
    if (!walk || !path || !files->name[k]) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
        goto done;
    }
    walk->path = path;
    status = tn_source_read_all(path, FILE_LIMIT, &bytes, &walk->size, error);
    if (status != TN_OK)
        goto done;
    walk->bytes = bytes;
    walk->room = walk->size / ROW + 1;
    /* labels of all files in one array: moved as it grows */
    int32_t *all = tn_arena_array(&dataset->arena, files->first[k] + walk->room, sizeof *all);
    if (!all) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for labels");
        goto done;
    }
    walk->labels = all + files->first[k];
    status = walk_file(walk, error);
    if (status == TN_OK)
        status = tn_source_open(path, &files->file[k], error);
    if (status != TN_OK)
        goto done;
    if (k > 0)
        memcpy(all, dataset->labels, files->first[k] * sizeof *all);
    dataset->labels = all;
    tn_dataset_hash_add(dataset, bytes + walk->data_at, walk->data_bytes);
    files->data[k] = walk->data_at;
    files->first[k + 1] = files->first[k] + walk->n_labels;
    files->n_files++;
done:
    tn_free(walk);
    tn_free(bytes);
    return status;
}

static tn_status add_part(tn_dataset *dataset, const char *folder, bool ten, tn_split split,
                          tn_error *error)
{
    if (!ten)
        return add_file(dataset, folder, split == TN_SPLIT_TRAIN ? train100[0] : test100[0], error);
    if (split == TN_SPLIT_VAL)
        return add_file(dataset, folder, test10[0], error);
    for (unsigned i = 1; i <= MAX_FILES; i++) {
        char name[32];
        snprintf(name, sizeof name, "data_batch_%u", i);
        const char *const names[] = {name, NULL};
        if (!tn_path_first_file(folder, names))
            break;
        tn_status status = add_file(dataset, folder, name, error);
        if (status != TN_OK)
            return status;
    }
    return TN_OK;
}

static tn_status open_batches(tn_dataset *dataset, const tn_location *where, tn_error *error)
{
    pickle_files *files = tn_arena_alloc(&dataset->arena, sizeof *files);
    if (!files)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    dataset->store = files;
    const char *path = where->path;
    bool ten = tn_path_first_file(path, train10) || tn_path_first_file(path, test10);
    bool train = tn_path_first_file(path, ten ? train10 : train100) != NULL;
    bool test = tn_path_first_file(path, ten ? test10 : test100) != NULL;
    tn_split split = where->split;
    bool present = split == TN_SPLIT_TRAIN ? train : test;
    if (!present && where->split_asked)
        return tn_fail(error, TN_ERROR_DATA, "%s has no %s", tn_quote(path),
                       tn_split_phrase(split));
    if (!present)
        split = train ? TN_SPLIT_TRAIN : TN_SPLIT_VAL;
    dataset->part = split;
    tn_status status = add_part(dataset, path, ten, split, error);
    if (status != TN_OK)
        return status;
    dataset->count = files->first[files->n_files];
    dataset->classes = ten ? 10 : 100;
    dataset->shape = (tn_sample_shape){.width = SIDE, .height = SIDE, .channels = 3};
    snprintf(dataset->description, sizeof dataset->description,
             "CIFAR-%d python, %s: %zu images of %dx%d, %d classes", dataset->classes,
             tn_split_phrase(split), dataset->count, SIDE, SIDE, dataset->classes);
    return TN_OK;
}

static size_t file_of(const pickle_files *files, size_t index)
{
    size_t k = 0;
    while (index >= files->first[k + 1])
        k++;
    return k;
}

static tn_status read_row(const tn_dataset *dataset, size_t index, tn_image *image, tn_error *error)
{
    const pickle_files *files = dataset->store;
    size_t k = file_of(files, index);
    return tn_image_read_planes(&files->file[k], files->data[k] + (index - files->first[k]) * ROW,
                                SIDE, image, error);
}

static void sample_name(const tn_dataset *dataset, size_t index, char *name, size_t size)
{
    const pickle_files *files = dataset->store;
    size_t k = file_of(files, index);
    snprintf(name, size, "%s#%zu", files->name[k], index - files->first[k]);
}

static void close_files(tn_dataset *dataset)
{
    pickle_files *files = dataset->store;
    for (size_t k = 0; files && k < files->n_files; k++)
        tn_source_close(&files->file[k]);
}

const tn_reader tn_reader_cifar_python = {
    .id = "cifar-python",
    .summary = "CIFAR-10/100 python version: data_batch_N, test_batch; train, test, meta",
    .match = match,
    .open = open_batches,
    .read = read_row,
    .name = sample_name,
    .close = close_files,
};
