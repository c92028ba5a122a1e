#!/bin/sh
# The kernels' machine code for sm_90: no spills, no stack, no atomics, registers within the budget
# (register_budget.txt: name and most registers, `*` for the rest). usage: kernel_code.sh ROOT NVCC;
# 77 without nvcc.
set -eu
root=$1
[ -x "$2" ] || exit 77
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$root"
flags="-std=c++17 -O3 --fmad=false -I ."
"$2" $flags -gencode arch=compute_90,code=sm_90 -Xptxas -v --keep --keep-dir "$folder" \
    -c gpu/kernels.cu -o "$folder/kernels.o" 2>"$folder/log"
awk 'NR == FNR { if ($1 !~ /^#/) budget[$1] = $2; next }
/Compiling entry function/ { name = $0; sub(/.*[0-9]+/, "", name); match($0, /[a-z_]+_kernel/)
    name = substr($0, RSTART, RLENGTH - 7); seen++ }
/stack frame/ && !/ 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads/ {
    print name ": stack or spills: " $0; bad = 1 }
/Used [0-9]+ registers/ { match($0, /Used [0-9]+/); n = substr($0, RSTART + 5, RLENGTH - 5) + 0
    most = name in budget ? budget[name] : budget["*"]
    if (n > most) { print name ": " n " registers, the budget is " most; bad = 1 }
    if (n > peak) peak = n }
END { print seen " kernels, at most " peak " registers"; exit bad || seen < 40 }' \
    tests/gpu/register_budget.txt "$folder/log"
ptx=$(find "$folder" -name '*.ptx' | head -1)
[ -s "$ptx" ] || { echo "no PTX"; exit 1; }
if grep -n -E '^[[:space:]]*(@%p[0-9]+ )?(atom|red)\.' "$ptx"; then
    echo "atomics in the PTX"
    exit 1
fi
for kernel in add scale unary; do # promised 16-byte loads
    sed -n "/entry .*${kernel}_kernel/,/^}/p" "$ptx" | grep -q 'ld.*v4' ||
        { echo "$kernel: no 16-byte loads"; exit 1; }
done
