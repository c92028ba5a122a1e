#!/bin/sh
# Every packed form of trained networks classifies every image as its float form does, with the same logits. Needs
# TERNION_SHARED (models/) and TERNION_DATA (cifar10/, tiny-imagenet-200/). TERNION_FULL=1 takes all images of CIFAR.
[ -d "${TERNION_SHARED-}/models" ] && [ -d "${TERNION_DATA-}/cifar10" ] || exit 77
. "$(dirname "$0")/check.sh"
forms=$("$ternion" help --catalog | sed -n '/^forms:/,/^[a-z]*:$/s/^  \([a-z0-9-]*\) .*/\1/p' | grep -v '^float$')
[ "$(echo $forms | wc -w)" -ge 6 ] || fail "the catalog lists only: $forms"

labels() { # MODEL FORM SCHEME DATA IMAGES: into FORM.tsv
    run 0 quantize "$TERNION_SHARED/models/$1.onnx" -o "$2.onnx" --scheme $3 --form "$2" -f
    run 0 evaluate "$2.onnx" --data "$TERNION_DATA/$4" --limit "$5" --no-preflight --precision fp32 --predictions "$2.tsv" -f
}

# as_float MODEL SCHEME DATA IMAGES
as_float() {
    labels "$1" float "$2" "$3" "$4"
    [ "$(cut -f4 float.tsv | sort -u | wc -l)" -gt $(($4 / 2)) ] || fail "$1 $2: its logits tell nothing"
    [ "$(wc -l <float.tsv)" -eq "$4" ] || fail "$1: not $4 images"
    for form in $forms; do
        labels "$1" $form "$2" "$3" "$4"
        cmp -s float.tsv $form.tsv || fail "$1 $2: $form differs in $(diff float.tsv $form.tsv | grep -c '^>') of $4"
    done
}

images=100
[ -z "${TERNION_FULL-}" ] || images=1017
for model in resnet20-cifar10 resnet20-cifar10-bnfolded resnet44-cifar10; do
    as_float $model "fixed --bits 3" cifar10 $images
    [ -z "${TERNION_FULL-}" ] || as_float $model twn cifar10 $images
done
[ ! -d "$TERNION_DATA/tiny-imagenet-200/val" ] || as_float densenet-small-tin "fixed --bits 4" tiny-imagenet-200 $images
finish
