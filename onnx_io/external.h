/* Tensor data in files beside the model. */
#ifndef TERNION_ONNX_IO_EXTERNAL_H
#define TERNION_ONNX_IO_EXTERNAL_H

#include "onnx_io/model.h"

/* Maps the files that tensors with external data name and turns those tensors into plain ones whose
 * raw_data is borrowed from the maps. Only regular files with one link inside the model's own
 * folder, reached without symbolic links, unless allow_symlinks (model caches). offset and length
 * are checked against the shape and the file. MODEL for a bad reference, IO for a bad file. */
tn_status tn_external_resolve(tn_model *model, bool allow_symlinks, tn_error *error) TN_MUST_CHECK;

/* Opens `location` below the folder without leaving it; the descriptor is the caller's. Without
 * openat2 (old kernels) the path is walked component by component. */
tn_status tn_external_open(int folder, const char *location, bool allow_symlinks, int *descriptor,
                           tn_error *error) TN_MUST_CHECK;

/* Moves the initializers of 4 KiB and more, in subgraphs too, into `data` and points them there:
 * `location` and offsets that are multiples of 4096. Edits the model; *moved counts them. */
tn_status tn_external_store(tn_model *model, tn_file_writer *data, const char *location,
                            size_t *moved, tn_error *error) TN_MUST_CHECK;

#endif
