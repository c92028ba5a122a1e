#!/bin/sh
# Accuracy of calibrated networks on real images: inner convolutions ternary per channel, one draw.
# Needs TERNION_SHARED (models) and TERNION_DATA (unpacked data sets); skipped without.
# The bounds lie two standard errors of 1,017 images below what ten draws reach on average.
runner=$1
if [ -z "$TERNION_SHARED" ] || [ -z "$TERNION_DATA" ] || [ ! -d "$TERNION_DATA/cifar10" ]; then
    echo "TERNION_SHARED and TERNION_DATA are not set: skipped"
    exit 77
fi
status=0
check() { # name, lowest accuracy, arguments
    name=$1 lowest=$2
    shift 2
    line=$("$runner" "$@" | grep '^seed') || { echo "$name: failed"; status=1; return; }
    got=$(echo "$line" | sed 's/.* calibrated \([0-9.]*\) .*/\1/')
    echo "$name: $line"
    if ! awk "BEGIN { exit !($got >= $lowest) }"; then
        echo "$name: $got is below $lowest"
        status=1
    fi
}
models=$TERNION_SHARED/models
cifar=$TERNION_DATA/cifar10
check "resnet20, 256 images" 88.4 "$models/resnet20-cifar10.onnx" "$cifar" seed=0
check "resnet20, BatchNorm folded" 88.4 "$models/resnet20-cifar10-bnfolded.onnx" "$cifar" seed=0
check "resnet20, 32 images" 85 "$models/resnet20-cifar10.onnx" "$cifar" seed=0 samples=32
check "resnet20, 4 bits" 90 "$models/resnet20-cifar10.onnx" "$cifar" seed=0 bits=4 bn=affine
exit $status
