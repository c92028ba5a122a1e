/* A small network for policy and conversion tests:
 *
 *   x -> stem (Conv 3->8) -> Relu -> depthwise (Conv group 8) -> middle (Conv 8->6) -> up
 *   (ConvTranspose 6->4) -> Flatten -> fc1 (Gemm transB=0, 64->10) -> Relu -> fc2 (Gemm transB=1)
 *   -> fc3 (MatMul 10->10) -> Add -> fc4 (Gemm, shares fc2's weight) -> y
 */
#ifndef TERNION_TESTS_CONVERTER_NET_H
#define TERNION_TESTS_CONVERTER_NET_H

#include "onnx_io/edit.h"
#include "onnx_io/graph.h"

typedef struct net {
    tn_model *model;
    tn_graph *graph;
} net;

/* Weights are normal with the given seed; fails the cmocka test when something is wrong. */
void net_build(net *made, uint64_t seed);
void net_done(net *made);

/* Rebuilds the graph after an edit of the model. */
void net_relink(net *made);

#endif
