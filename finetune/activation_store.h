/* Where the activations of all images wait between the layers that are fitted: in memory up to a
 * limit, beyond it in an unlinked temporary file in $TMPDIR (else /tmp). What is read back does not
 * depend on where it was. */
#ifndef TERNION_FINETUNE_ACTIVATION_STORE_H
#define TERNION_FINETUNE_ACTIVATION_STORE_H

#include "network/device.h"

typedef struct tn_activation_store tn_activation_store;

/* Room for keys 0 .. keys-1. device: whose memory the floats come from and go to; borrowed, NULL
 * for the host's. limit: bytes kept in the host's memory. LIMIT when out of memory. */
tn_status tn_activation_store_create(tn_device *device, size_t keys, uint64_t limit,
                                     tn_activation_store **store, tn_error *error) TN_MUST_CHECK;
void tn_activation_store_destroy(tn_activation_store *store); /* NULL is fine */

/* Keeps a copy of the floats under a key, in place of what it held. IO when the disk is full. */
tn_status tn_activation_store_put(tn_activation_store *store, size_t key, const float *data,
                                  size_t count, tn_error *error) TN_MUST_CHECK;
/* What a key holds; USAGE when that is not `count` floats. */
tn_status tn_activation_store_get(tn_activation_store *store, size_t key, float *data, size_t count,
                                  tn_error *error) TN_MUST_CHECK;
void tn_activation_store_drop(tn_activation_store *store, size_t key);

/* Bytes written to the file so far. */
uint64_t tn_activation_store_spilled(const tn_activation_store *store);

#endif
