#!/bin/sh
# The kernels' machine code for sm_80 and sm_90: no spills, no stack or local memory, no atomics,
# 16-byte accesses where they are promised, registers within the budget
# (register_budget.txt: name and most registers, `*` for the rest). usage: kernel_code.sh ROOT NVCC;
# 77 without nvcc.
set -eu
root=$1
[ -x "$2" ] || exit 77
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$root"
flags="-std=c++17 -O3 --fmad=false -I ."
"$2" $flags -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90 -Xptxas -v --keep --keep-dir "$folder" \
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
END { print seen " kernels, at most " peak " registers"; exit bad || seen < 110 }' \
    tests/gpu/register_budget.txt "$folder/log"
found=0
for ptx in "$folder"/*.ptx; do
    [ -s "$ptx" ] || continue
    found=$((found + 1))
    if grep -n -E '^[[:space:]]*(@%p[0-9]+ )?(atom|red|ld\.local|st\.local)' "$ptx"; then
        echo "atomics or local memory in $(basename "$ptx")"
        exit 1
    fi
    for kernel in add scale unary; do # promised 16-byte accesses
        sed -n "/entry .*${kernel}_kernel/,/^}/p" "$ptx" >"$folder/kernel"
        grep -q 'ld.*v4' "$folder/kernel" && grep -q 'st.*v4' "$folder/kernel" ||
            { echo "$kernel: no 16-byte accesses in $(basename "$ptx")"; exit 1; }
    done
done
[ "$found" -ge 2 ] || { echo "$found PTX files, 2 expected"; exit 1; }
