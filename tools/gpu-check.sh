#!/bin/sh
# What is worth checking on a machine with an NVIDIA GPU. The parts need a build and no more; `peers`
# measures PyTorch where python3 has it.
#
#   tools/gpu-check.sh --build BUILD [ARCH]   configures and builds, with all cores (minutes); ARCH
#                                             80 or 90 builds for that architecture alone
#   tools/gpu-check.sh --list                 the parts
#   tools/gpu-check.sh BUILD [PART...]        runs them, all without names; each has a time limit
#
# Ends in a table; exit 77 without a GPU. Environment: TERNION_CUDNN=off,
# TERNION_CUDA_GRAPHS=off, TERNION_CUDNN_CACHE=off: without cuDNN, without recorded steps, without
# the engines that earlier runs chose.
set -u
parts="parity oracle verbs codes calibration columns tf32 bf16 steps ceilings kernels determinism
memcheck memcheck-verbs memcheck-codes memcheck-bf16 racecheck racecheck-verbs racecheck-codes
racecheck-bf16 faults accuracy peers"

list() {
    cat <<'END'
parity           60 s  a training step of six networks in fp32 against the CPU
oracle          300 s  every kernel against the double oracle in fp32, bf16, tf32, two seeds
verbs           120 s  quantizers, optimizers, augmentation, steps with the state on the GPU; replayed =
                       eager; one quantized step of five networks against the CPU
codes           120 s  steps with quantized activations, one of them in bf16
calibration     120 s  Gram sums, whole calibrations, synthesized images against the CPU
columns          60 s  parity without cuDNN
tf32             60 s  parity in tf32
bf16             60 s  parity in bf16
steps           240 s  images a second of whole training steps: float, lsq, eager, ttq, tf32
ceilings         30 s  copies, matrix products
kernels          30 s  bytes a second of the network's and the trainer's kernels against a copy's
determinism     120 s  two runs of a training, equal state hashes
memcheck        300 s  compute-sanitizer, a step of resnet20 in fp32
memcheck-verbs  500 s  the same on quantizers, optimizers and the norm
memcheck-codes  500 s  on steps with quantized activations
memcheck-bf16   300 s  on a step of densenet-small in bf16: batch norm of several sources
racecheck       300 s  compute-sanitizer --tool racecheck, the same four
racecheck-verbs 500 s
racecheck-codes 500 s
racecheck-bf16  300 s
faults          120 s  runtime calls that fail: clean errors, the checkpoint intact
accuracy        120 s  a network trained on the GPU, evaluated on GPU and CPU
peers           240 s  the same networks in PyTorch, eager and compiled
END
}

build() {
    folder=${1:?usage: gpu-check.sh --build BUILD [ARCH]}
    [ -d "$folder/meson-info" ] || meson setup "$folder" --buildtype=release -Dgpu=enabled \
        ${2:+-Dgpu_architectures=$2} || return 1
    ninja -C "$folder" -j "$(nproc)" cli/ternion tests/gpu/gpu_parity_test tests/gpu/gpu_bench \
        tests/gpu/gpu_training_verbs tests/gpu/gpu_resident_step tests/gpu/gpu_image_feed \
        tests/gpu/gpu_ahead tests/gpu/gpu_quantized_step tests/gpu/gpu_calibration \
        tests/gpu/gpu_fault tests/gpu/gpu_kernel_test tests/gpu/gpu_fake_quantize
}

case ${1-} in
--list) list; exit 0 ;;
--build) shift; build "$@"; exit $? ;;
-* | '') sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
root=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$1" && pwd) || exit 2
shift
[ $# -gt 0 ] || set -- $parts
tests=$build/tests/gpu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Generated pictures in $work/glyphs.
glyphs() {
    [ -d "$work/glyphs" ] || "$build/cli/ternion" data generate glyphs "$work/glyphs" -q
}

# Trains on them on the GPU; the last state hash.
train() {
    glyphs || return 1
    "$build/cli/ternion" finetune "$root/recipes/glyphs-resnet8.onnx" -o "$work/$1.onnx" \
        --data "$work/glyphs" --epochs 2 --seed 1 --device "${GPU_CHECK_DEVICE-cuda}" --no-calibration \
        --checkpoint "$work/$1" >"$work/$1.log" 2>&1 || { tail -3 "$work/$1.log"; return 1; }
    grep -o '"state_hash": *"[0-9a-f]*"' "$work/$1/run.jsonl" | tail -1
}

determinism() {
    first=$(train first) && second=$(train second) || { echo "$first$second"; return 1; }
    echo "$first and $second"
    [ -n "$first" ] && [ "$first" = "$second" ]
}

# The same calibration on both devices, from the command line.
calibration() {
    glyphs || return 1
    for device in cuda cpu; do
        "$build/cli/ternion" quantize "$root/recipes/glyphs-resnet8.onnx" -o "$work/$device.onnx" \
            --calibration-data "$work/glyphs" --seed 1 --device $device >"$work/$device.log" 2>&1
        code=$?
        grep -E "^calibrated|^KL|rounding|rror" "$work/$device.log" | sed "s/^/$device: /"
        [ $code -eq 0 ] || return 1
    done
}

accuracy() {
    train trained || return 1
    for device in cuda cpu; do
        "$build/cli/ternion" evaluate "$work/trained.onnx" --data "$work/glyphs" \
            --device $device >"$work/$device.log" 2>&1
        code=$?
        sed "s/^/$device: /" "$work/$device.log"
        [ $code -eq 0 ] || return 1
    done
}

# Strided and dilated convolutions and broadcast gradients in bf16 are in seed 5.
oracle() {
    bad=0
    "$tests/gpu_kernel_test" 5 20 || bad=1
    "$tests/gpu_kernel_test" 1 10 || bad=1
    return $bad
}

# TOOL PROGRAM [ARGUMENT...]
sanitize() {
    command -v compute-sanitizer >/dev/null || { echo "no compute-sanitizer"; return 77; }
    tool=$1
    program=$tests/$2
    shift 2
    compute-sanitizer --error-exitcode 1 --tool "$tool" "$program" "$@" >"$work/sanitizer.log" 2>&1
    code=$?
    tail -4 "$work/sanitizer.log"
    return $code
}

peers() {
    python3 -c 'import torch, torchvision' 2>/dev/null || { echo "no PyTorch"; return 77; }
    python3 "$root/tests/bench/gpu_peers.py"
}

# limit in seconds; what runs
limit() {
    list | awk -v part="$1" '$1 == part { print $2 }'
}

one() {
    case $1 in
    parity) "$tests/gpu_parity_test" ;;
    columns) TERNION_CUDNN=off "$tests/gpu_parity_test" ;;
    tf32 | bf16) "$tests/gpu_parity_test" "$1" ;;
    verbs)
        "$tests/gpu_training_verbs" && "$tests/gpu_image_feed" && "$tests/gpu_resident_step" &&
            "$tests/gpu_ahead" && "$tests/gpu_quantized_step"
        ;;
    codes) "$tests/gpu_fake_quantize" ;;
    calibration) "$tests/gpu_calibration" && calibration ;;
    steps | ceilings | kernels) "$tests/gpu_bench" "$1" ;;
    oracle | determinism | accuracy | peers) "$1" ;;
    memcheck | racecheck) sanitize "$1" gpu_parity_test fp32 1 resnet20 ;;
    memcheck-verbs | racecheck-verbs) sanitize "${1%-*}" gpu_training_verbs ;;
    memcheck-codes | racecheck-codes) sanitize "${1%-*}" gpu_fake_quantize ;;
    memcheck-bf16 | racecheck-bf16) sanitize "${1%-*}" gpu_parity_test bf16 1 densenet-small ;;
    faults) (cd "$work" && "$tests/gpu_fault" 1 29) ;;
    *) echo "no part $1"; return 2 ;;
    esac
}

if [ "${GPU_CHECK_PART-}" ]; then # called by itself under a time limit
    one "$GPU_CHECK_PART"
    exit $?
fi
"$tests/gpu_fault" 1 1000000 >"$work/start.log" 2>&1
[ $? -ne 77 ] || { cat "$work/start.log"; exit 77; }
table=
bad=0
ran=0
for part; do
    printf '== %s\n' "$part"
    start=$(date +%s)
    GPU_CHECK_PART=$part timeout "$(limit "$part")" sh "$0" "$build" "$part"
    code=$?
    result="failed ($code)"
    [ $code -eq 0 ] && result=ok && ran=1
    [ $code -eq 77 ] && result=skipped
    [ $code -eq 124 ] && result="out of time"
    [ $code -eq 0 ] || [ $code -eq 77 ] || bad=1
    table="$table$(printf '%-15s %-12s %4d s' "$part" "$result" $(($(date +%s) - start)))
"
done
printf '\n%s' "$table"
[ $bad -eq 0 ] || exit 1
[ $ran -eq 1 ] || exit 77
