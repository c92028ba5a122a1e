/* Unpacking of a scanned model without its large payloads, which stay where they are. */
#ifndef TERNION_ONNX_IO_SKELETON_H
#define TERNION_ONNX_IO_SKELETON_H

#include "onnx_io/scan.h"
#include "proto/onnx.pb-c.h"

/* Unpacks `bytes`, which tn_scan_model accepted. Payloads of spans are borrowed from `bytes`: they
 * must outlive the result, which the allocator owns (it is never freed piece by piece). NULL with
 * status MODEL when protobuf-c refuses it, LIMIT when out of memory. */
tn_status tn_skeleton_unpack(const unsigned char *bytes, size_t size, const tn_scan *scan,
                             ProtobufCAllocator *allocator, Onnx__ModelProto **proto,
                             tn_error *error) TN_MUST_CHECK;

#endif
