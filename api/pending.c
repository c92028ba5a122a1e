/* Stands in for what the converter does not have yet; each function goes when its own comes. */
#include "converter/unpack.h"
#include "converter/verify.h"
#include "onnx_io/ops/op.h"

#define PENDING __attribute__((weak))

static tn_status unsupported(tn_error *error)
{
    return tn_fail(error, TN_ERROR_USAGE, "not supported in this version");
}

PENDING tn_status tn_pack_choose(tn_graph *graph, const tn_pack_item *items, size_t count,
                                 const tn_pack_options *options, tn_pack_plan *plan,
                                 tn_error *error)
{
    (void)graph, (void)items, (void)count, (void)options, (void)plan;
    return unsupported(error);
}

PENDING tn_status tn_pack(tn_graph *graph, const tn_pack_item *items, size_t count,
                          const tn_pack_options *options, tn_pack_plan *plan, tn_model **packed,
                          tn_error *error)
{
    (void)graph, (void)items, (void)count, (void)options, (void)plan, (void)packed;
    return unsupported(error);
}

PENDING tn_status tn_pack_write(const tn_model *packed, const tn_pack_item *items, size_t count,
                                const char *path, const tn_write_options *write, uint64_t *bytes,
                                tn_error *error)
{
    (void)packed, (void)items, (void)count, (void)path, (void)write, (void)bytes;
    return unsupported(error);
}

PENDING tn_status tn_unpack(tn_graph *graph, const tn_reporter *reporter, tn_unpacked *unpacked,
                            tn_error *error)
{
    (void)graph, (void)reporter, (void)unpacked, (void)error;
    return TN_OK;
}

PENDING void tn_unpacked_done(tn_unpacked *unpacked)
{
    (void)unpacked;
}

PENDING tn_status tn_verify(const tn_model *model, const tn_model *against,
                            tn_verification *verification, tn_error *error)
{
    (void)model, (void)against, (void)verification;
    return unsupported(error);
}

PENDING const tn_op *tn_op_at(size_t i)
{
    (void)i;
    return NULL;
}

PENDING const tn_runtime *tn_runtime_find(const char *id)
{
    (void)id;
    return NULL;
}
