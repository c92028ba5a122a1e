#!/bin/sh
# Installs what is missing, builds, and runs the main job on what the repository ships: a small
# network on drawn symbols is made ternary without data (it loses a third), calibrated with unlabelled
# images, fine-tuned, and written at 2 bits a weight. About three minutes on two cores.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
. tools/packages.sh
install_packages $build_packages

build=$root/build
[ -e "$build/build.ninja" ] || meson setup "$build" --buildtype=release -Dtests=false >/dev/null
ninja -C "$build" >"$build/quickstart.log" || { tail -n 30 "$build/quickstart.log"; exit 1; }
ternion=$build/cli/ternion
work=$build/quickstart
rm -rf "$work"
mkdir -p "$work"
network=$root/recipes/glyphs-resnet8.onnx

echo "== a data set drawn by code, and a network trained on it (recipes/glyphs-resnet8.yaml)"
"$ternion" data generate glyphs "$work/glyphs" -q
"$ternion" quantize "$network" -o "$work/rounded.onnx" --prune-dead -q >/dev/null 2>&1
echo "== 256 unlabelled images"
"$ternion" quantize "$network" -o "$work/calibrated.onnx" --prune-dead \
    --calibration-data "$work/glyphs" >/dev/null
echo "== fine-tuning with labels"
"$ternion" finetune "$network" -o "$work/finetuned.onnx" --prune-dead --data "$work/glyphs" \
    --recipe recipes/glyphs-ternary.yaml >/dev/null
"$ternion" verify "$work/finetuned.onnx"

accuracy() { # FILE: top-1 in percent
    "$ternion" evaluate "$1" --data "$work/glyphs" --no-preflight --json 2>/dev/null |
        sed -n 's/.*"top1": *\([0-9.]*\).*/\1/p' | awk '{printf "%.2f", 100 * $1}'
}
echo
printf '%-44s %12s %12s\n' "network" "bytes" "top-1 %"
row() {
    printf '%-44s %12d %12s\n' "$1" "$(wc -c <"$2")" "$(accuracy "$2")"
}
row "float" "$network"
row "ternary, without data" "$work/rounded.onnx"
row "ternary, calibrated on 256 images" "$work/calibrated.onnx"
row "ternary, fine-tuned" "$work/finetuned.onnx"
echo
echo "$work/finetuned.onnx runs in any ONNX Runtime as it is."
