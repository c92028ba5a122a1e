#!/bin/sh
# Fine-tuning killed (SIGKILL) at random moments: every resume ends with the bit-identical file.
# usage: kill_test.sh TERNION [KILLS]       default: 3, in the full suite (TERNION_FULL=1) 50
# Moments are drawn by TERNION_SEED (default: the clock); each run is killed at one of them, half of
# the runs at a second one while they are resumed.
set -eu
ternion=$(realpath "$1")
kills=${2:-${TERNION_FULL:+50}}
kills=${kills:-3}
seed=${TERNION_SEED:-$(date +%s)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
echo "seed $seed, $kills kills"
"$ternion" data generate glyphs g --train-images 320 --test-images 64 -q >/dev/null
"$ternion" create resnet8 -o r.onnx --seed 3 -q >/dev/null

# moments of run N: 0 to 1, drawn by the seed
draw() { awk -v s="$seed" -v n="$1" 'BEGIN { srand(s * 1000 + n); rand(); print rand() }'; }
train() { # OUT RUN-FOLDER [MORE]
    out=$1 folder=$2
    shift 2
    set -- finetune r.onnx -o "$out" --data g --batch-size 32 -e 4 --threads 1 --save-every 1s \
        --augment pad:2,mixup:0.3 --ema 0.99 --checkpoint "$folder" "$@"
    exec "$ternion" "$@"
}

before=$(date +%s.%N)
(train whole.onnx whole >whole.out 2>&1) || { cat whole.out; exit 1; }
length=$(echo "$before $(date +%s.%N)" | awk '{ print $2 - $1 }')

done_kills=0 run=0 failed=0 early=0
while [ $done_kills -lt "$kills" ]; do
    run=$((run + 1))
    rm -rf k k.onnx
    for again in 0 1; do
        [ $again -eq 0 ] || [ $((run % 2)) -eq 0 ] || continue
        [ $done_kills -lt "$kills" ] || continue
        (train k.onnx k ${resume-} >out 2>&1) &
        pid=$!
        sleep "$(draw "$run$again" | awk -v l="$length" '{ print $1 * l }')"
        if kill -s KILL $pid 2>/dev/null; then done_kills=$((done_kills + 1)); else early=$((early + 1)); fi
        wait $pid 2>/dev/null || true
        resume=--resume
        [ ! -e k.onnx ] || break
    done
    if [ ! -e k.onnx ]; then
        (train k.onnx k --resume >out 2>&1) || { echo "run $run: the resume failed"; cat out; failed=$((failed + 1)); }
    fi
    unset resume
    cmp -s whole.onnx k.onnx || { echo "run $run: another file"; failed=$((failed + 1)); }
    left=$(ls -A k | grep -cv -e '^step-.*\.safetensors$' -e '^best\.safetensors$' -e '^run\.jsonl$' || true)
    [ "$left" -eq 0 ] || strays=$((${strays:-0} + left))
done
echo "$done_kills kills in $run runs of $length s each ($early came too late), $failed failed; ${strays:-0} temporary files stayed"
[ $failed -eq 0 ]
