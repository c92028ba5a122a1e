#!/bin/sh
# Few-bit weights, biases, inputs and activations of trained networks, in the program and in ONNX
# Runtime; needs TERNION_PYTHON, TERNION_SHARED (models/) and TERNION_DATA (cifar10/).
[ -n "$TERNION_PYTHON" ] && [ -d "$TERNION_SHARED/models" ] && [ -d "$TERNION_DATA/cifar10" ] || exit 77
exec "$TERNION_PYTHON" "$(dirname "$0")/few_bit_accuracy.py" "$1"
