/* The table rows that the families' files define. */
#ifndef TERNION_ONNX_IO_ZOO_FAMILIES_H
#define TERNION_ONNX_IO_ZOO_FAMILIES_H

#include "onnx_io/zoo/builder.h"

extern const tn_architecture tn_alexnet;
extern const tn_architecture tn_vgg16, tn_vgg16_bn;
extern const tn_architecture tn_resnet18, tn_resnet18b, tn_resnet34, tn_resnet50;
extern const tn_architecture tn_resnet8, tn_resnet20, tn_resnet32, tn_resnet44, tn_resnet56,
    tn_resnet110;
extern const tn_architecture tn_densenet121, tn_densenet_small;
extern const tn_architecture tn_squeezenet, tn_squeezenet_bn;

#endif
