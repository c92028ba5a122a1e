/* The record: metadata_props key `ternion`, compact JSON that says which weights are quantized and
 * where their codes, scales and zeros lie (SPEC "Record"). Written by tn_pack, never trusted when
 * read: every size and name is checked against the model, and the codes against their hash.
 *
 * {"schema":1,"tool":"ternion
 * 0.1.0","preprocess":{..},"recipe":{..},"rest":"float16"?,"layers":[{"node","weight",
 *  "form","scheme","bits":1.58|2..16,"axis"?,"group"?,"shape":[..],"codes":name|[names],
 *  "scale","scale_neg"?,"zero"?:name|{"base64":fp32 little
 * endian},"params":{"low","high"}?,"hash"}]} `codes` is absent where the form keeps values alone;
 * `params` where the range follows from bits.
 *
 * Schema 2 (--prune-dead) says the same in fewer bytes: record_compact.c. */
#ifndef TERNION_CONVERTER_RECORD_H
#define TERNION_CONVERTER_RECORD_H

#include "converter/form.h"

struct json_t;

enum { TN_RECORD_SCHEMA = 1, TN_RECORD_COMPACT = 2 };

typedef struct tn_record_layer {
    const char *node, *weight; /* names in the file */
    const tn_form *form;       /* NULL: half */
    tn_qweight shape;          /* everything but codes, scales and zeros */
    struct json_t *entry;
} tn_record_layer;

typedef struct tn_record {
    struct json_t *json; /* NULL: the model has none */
    bool rest_float16;   /* what is not quantized was stored as FLOAT16 */
    tn_record_layer *layer;
    size_t count;
} tn_record;

/* Parses the record of a model. No record: TN_OK with json NULL. MODEL when it is broken. */
tn_status tn_record_parse(const tn_model *model, tn_record *record, tn_error *error) TN_MUST_CHECK;
void tn_record_done(tn_record *record);

/* JSON text of a top-level object ("preprocess", "recipe"), to be freed with free(); NULL when
 * absent. */
char *tn_record_object(const tn_record *record, const char *key);

/* Codes, scales and zeros of a layer, from the graph's initializers: MODEL when they are missing or
 * have other sizes, codes are out of range, scales not positive and finite, or the hash differs.
 * The caller ends `weight` with tn_qweight_done. */
tn_status tn_record_read(const tn_record_layer *layer, const tn_graph *graph, tn_qweight *weight,
                         tn_error *error) TN_MUST_CHECK;

/* The FLOAT16 weights of a half layer: MODEL when they are missing or their hash differs. Files
 * written without a hash are taken as they are. */
tn_status tn_record_check_half(const tn_record_layer *layer, const tn_graph *graph,
                               tn_error *error) TN_MUST_CHECK;

/* What a record says of the file as a whole: JSON objects or NULL. */
typedef struct tn_record_head {
    const char *preprocess, *recipe, *activations;
    bool rest_float16;
} tn_record_head;

/* A new record. USAGE when the objects are none. */
tn_status tn_record_create(const tn_record_head *head, struct json_t **json,
                           tn_error *error) TN_MUST_CHECK;
/* Adds a layer that was written at `site` by `form` (NULL: half). */
tn_status tn_record_add(struct json_t *json, const char *node, const tn_form *form,
                        const tn_form_site *site, const tn_form_names *names,
                        tn_error *error) TN_MUST_CHECK;
/* Stores it in the model's metadata; compact: as schema 2, which leaves out what repeats. */
tn_status tn_record_store(struct json_t *json, bool compact, tn_model *model,
                          tn_error *error) TN_MUST_CHECK;

/* Between schema 1 and 2, in place. False when out of memory, or of what is no such record. */
bool tn_record_shorten(struct json_t *json, const tn_model *model);
bool tn_record_expand(struct json_t *json, const tn_model *model);
void tn_record_release(struct json_t *json);

/* Of codes, scales and zeros. */
uint64_t tn_record_hash(const tn_qweight *weight);
/* Of the stored bytes of a half layer. */
uint64_t tn_record_bytes_hash(const void *bytes, size_t count);

#endif
