#!/bin/sh
# Fine-tuning from the command line: what it goes on from, what it refuses, and how it stops.
. "$(dirname "$0")/check.sh"

run 0 data generate glyphs g --train-images 320 --test-images 64
run 0 create resnet8 -o new.onnx --seed 3
common="--data g --batch-size 32 --threads 1 --no-preflight"
fast="$common --no-calibration --distill none" # from rounded weights: what is tested is not their accuracy
run 0 finetune new.onnx -o float.onnx $common --scheme float -e 3 --lr 0.05

# the same bits for every number of threads, with mixup, Dropout's stream and quantized activations
for threads in 1 2; do
    run 0 finetune float.onnx -o t$threads.onnx --data g --batch-size 32 --no-preflight -e 1 \
        --deterministic --augment pad:2,mixup:0.4 --activation-bits 4 --threads $threads
done
cmp -s t1.onnx t2.onnx || fail "1 and 2 threads write different files"
run 0 verify t1.onnx
prints "6 activations"
run 0 inspect t1.onnx
prints "reads 4 bits"

# activations: each way of training their steps; not twice, not without quantized weights
for scheme in pact fixed; do
    run 0 finetune float.onnx -o $scheme.onnx $fast -e 1 --activation-bits 3 \
        --activation-scheme $scheme
done
cmp -s pact.onnx fixed.onnx && fail "pact does not train the steps"
run 2 finetune t1.onnx -o x.onnx $common -e 1 --activation-bits 4
says "quantized already"
run 2 finetune float.onnx -o x.onnx $common --scheme float -e 1 --activation-bits 4
says "scheme float"
run 2 finetune float.onnx -o x.onnx $common -e 1 --activation-bits 4 --activation-range wide
absent x.onnx

# FLOAT16: trained plainly, alone and beside codes, and rounded in the file alone
run 0 finetune float.onnx -o half.onnx $common --scheme half -e 1
prints "73,728 weights of .* quantized, 16.00 bits"
run 0 finetune float.onnx -o mixed.onnx $common --layer 'layer2.*=half' -e 1
prints "layer1.0.conv1 .*lsq"
prints "layer2.0.conv1 .*half"
# against the weights that came in, as compare says it
relmse=$(awk '$1 == "layer1.0.conv1" { print $6 }' out)
run 0 compare float.onnx mixed.onnx
prints "layer1.0.conv1 .*$relmse"
run 2 finetune float.onnx -o x.onnx $common --scheme half -e 1 --activation-bits 4
says "floating point"

# on from a packed model: its codes, its activations, and float weights for the latents
run 0 finetune t1.onnx -o on.onnx $common -e 1
says "codes of the packed model"
run 0 verify on.onnx
prints "6 activations"
run 0 finetune t1.onnx -o latent.onnx $common -e 1 --latent float.onnx
cmp -s on.onnx latent.onnx && fail "--latent changes nothing"
run 0 create squeezenet1.1 -o other.onnx
run 3 finetune t1.onnx -o x.onnx $common -e 1 --latent other.onnx
says "no layer like"

# another resolution, kept in the written model
run 0 finetune float.onnx -o small.onnx $common --no-calibration -e 1 --input 3x24x24 --distill self
run 0 inspect small.onnx
prints "3x24x24"
run 0 evaluate small.onnx --data g
run 3 finetune float.onnx -o x.onnx $common -e 1 --input 1x24x24
says "1x24x24"

# data that does not fit
run 0 create resnet8 -o seven.onnx --classes 7
run 4 finetune seven.onnx -o x.onnx $common -e 1
says "10 classes.*7 outputs"
says "classes"
mkdir -p empty/train/a empty/train/b
run 4 finetune float.onnx -o x.onnx --data empty -e 1
run 4 finetune float.onnx -o x.onnx --data g --batch-size 512 -e 1 --no-preflight
says "fewer than one step.*give a smaller --batch-size"
absent x.onnx

# SIGTERM: saved, the command to go on printed, and that command ends where the whole run does
run 0 finetune float.onnx -o whole.onnx $fast -e 6
last="finetune and SIGTERM"
rm err
"$ternion" finetune float.onnx -o term.onnx $fast -e 6 --checkpoint run >out 2>err &
pid=$!
tries=0
until grep -qs "^epoch 1" err || [ $tries -ge 200 ]; do
    sleep 0.2
    tries=$((tries + 1))
done
kill -s TERM $pid
code=0
wait $pid || code=$?
[ "$code" -eq 143 ] || fail "$last: exit code $code, expected 143"
absent term.onnx
says "saved"
command=$(sed -n 's/^go on with: ternion //p' err)
[ -n "$command" ] || fail "$last: no command to go on with"
run 0 $command
cmp -s whole.onnx term.onnx || fail "a run stopped by SIGTERM and resumed ends elsewhere"

# a finished run, resumed: nothing is trained, and nothing is said of training; what it is worth is known
run 0 finetune float.onnx -o term.onnx -f $fast -e 6 --checkpoint run --resume
prints "^6 epochs$"
grep '"event":"end"' run/run.jsonl | tail -n 1 >out
holds "0 <= $(value .val_top1)"

# a full disk: exit code 6, the last whole checkpoint stays and is gone on from
last="finetune with a full disk"
run 0 finetune float.onnx -o x.onnx $fast -e 1 --checkpoint full
size=$(stat -c %s full/step-*.safetensors | head -n 1)
rm -r full x.onnx
code=0
(
    trap '' XFSZ
    ulimit -f $((size / 512 / 2))
    exec "$ternion" finetune float.onnx -o full.onnx $fast -e 6 --checkpoint full
) >out 2>err || code=$?
[ "$code" -eq 6 ] || fail "$last: exit code $code, expected 6"
says "checkpoint\|safetensors"
absent full.onnx
run 0 finetune float.onnx -o full.onnx $fast -e 6 --checkpoint full --resume
cmp -s whole.onnx full.onnx || fail "a run after a full disk ends elsewhere"
finish
