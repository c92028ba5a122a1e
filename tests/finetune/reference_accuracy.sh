#!/bin/sh
# Known accuracies, and labels equal to ONNX Runtime's; needs TERNION_PYTHON, TERNION_SHARED (models/)
# and TERNION_DATA (cifar10/, tiny-imagenet-200/). TERNION_FULL=1 takes all of Tiny ImageNet.
[ -n "$TERNION_PYTHON" ] && [ -d "$TERNION_SHARED/models" ] && [ -d "$TERNION_DATA/cifar10" ] || exit 77
exec "$TERNION_PYTHON" "$(dirname "$0")/reference_accuracy.py" "$1"
