#!/bin/bash
# Accuracy after `ternion quantize`, one line per cell, tab-separated, appended as it is measured:
#
#   calibration_table.sh TERNION MODEL DATA WIDTHS METHODS IMAGES [SEEDS] [QUANTIZE OPTION]...
#
# The lists are words in quotes. IMAGES are numbers of training images, none, synthesize or a FILE.npy; `none` rounds without data, so it is
# measured once per width. Labels are read by the evaluation alone, on the validation part of DATA.
# Columns: model, bits, method, images, seed, top-1 %, top-5 %, loss, bytes, processor seconds of quantize.
set -eu -o pipefail
ternion=$1 model=$2 data=$3 widths=$4 methods=$5 sources=$6 seeds=${7:-0}
shift $(($# < 7 ? $# : 7))
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
TIMEFORMAT='%U %S'

figure() { # NAME of a number in the evaluation's JSON
    grep -o "\"$1\":[^,}]*" "$work/figures" | head -1 | cut -d: -f2
}

cell() { # BITS METHOD IMAGES SEED OPTION...
    local bits=$1 method=$2 images=$3 seed=$4 spent
    shift 4
    case $bits in 1.58) set -- --scheme twn "$@" ;; *) set -- --scheme fixed --bits "$bits" "$@" ;; esac
    case $images in
    none) method=- ;;
    *.npy) set -- --method "$method" --calibration-data "$images" "$@" ;; # kept by --save-synthesized
    synthesize) set -- --method "$method" --calibration-data synthesize "$@" ;;
    *) set -- --method "$method" --calibration-data "$data" --calibration-samples "$images" "$@" ;;
    esac
    spent=$({ time "$ternion" quantize "$model" -f -q -o "$work/out.onnx" --seed "$seed" "$@" \
        >"$work/log" 2>&1; } 2>&1) || { cat "$work/log" >&2; return 1; }
    "$ternion" evaluate "$work/out.onnx" --data "$data" --json -q --no-progress >"$work/figures"
    awk -v m="$(basename "$model" .onnx)" -v b="$bits" -v me="$method" -v i="$images" -v s="$seed" -v t1="$(figure top1)" \
        -v t5="$(figure correct_top5)" -v n="$(figure images)" -v l="$(figure loss)" \
        -v z="$(stat -c %s "$work/out.onnx")" -v spent="$spent" 'BEGIN {
            split(spent, part, " ")
            printf "%s\t%s\t%s\t%s\t%s\t%.2f\t%.2f\t%.4f\t%d\t%.1f\n", m, b, me, i, s, 100 * t1, 100 * t5 / n, l, z,
                part[1] + part[2] }'
}

for bits in $widths; do
    for images in $sources; do
        for method in $methods; do
            for seed in $seeds; do
                cell "$bits" "$method" "$images" "$seed" "$@" || exit
                [ "$images" != none ] || continue 3 # nothing to choose or to draw
            done
        done
    done
done
